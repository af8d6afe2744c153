//! Part 3: sites are pairs of program points of one function, and planting them covers nothing that
//! is still needed.

use super::calls::{Callee, Calls};
use super::code::{Code, Step, branch_target};
use super::function::Analysis;
use super::stub;
use super::supply::Side;
use super::{Finding, Rule};
use crate::image::{FunctionId, Image};
use dsu_patch_format::plan::{Plan, Protection, RedirectForm, Site, SiteKind};
use dsu_patch_format::validate::{NEAR_JUMP, SHORT_JUMP};
use dsu_patch_format::{Bundle, OldAddr};
use iced_x86::{ConstantOffsets, Decoder, DecoderOptions, Instruction, Mnemonic};
use std::ops::Range;

/// Bytes that planting a site overwrites at the site itself.
pub(super) fn planted(at: OldAddr, form: RedirectForm) -> Range<u64> {
    let size = match form {
        RedirectForm::Near => NEAR_JUMP,
        RedirectForm::Short { .. } => SHORT_JUMP,
    };
    at.0..at.0.saturating_add(size)
}

/// Bytes of the cave that a short jump goes through.
fn cave(form: RedirectForm) -> Option<Range<u64>> {
    match form {
        RedirectForm::Near => None,
        RedirectForm::Short { cave } => Some(cave.0..cave.0.saturating_add(NEAR_JUMP)),
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The two functions of a site, by the manifest; `to` is its counterpart in NEW's own code.
pub(super) fn functions(
    old: &Image,
    new: &Image,
    bundle: &Bundle,
    site: &Site,
    to: u64,
) -> Result<(FunctionId, FunctionId), Finding> {
    let object = |what: &str| Finding::new(Rule::Counterpart, what);
    let replaced = usize::try_from(site.function).ok();
    let replaced = replaced.and_then(|i| bundle.manifest.replaced.get(i));
    let replaced = replaced.ok_or_else(|| object("names no replaced function"))?;
    let entry = |image: &Image, address: u64| {
        let found = image.functions.binary_search_by_key(&address, |f| f.address).ok();
        found.map(FunctionId)
    };
    let from = entry(old, replaced.old.0).ok_or_else(|| object("OLD has no such function"))?;
    let body = replaced.new.and_then(|n| entry(new, n.0));
    let body = body.ok_or_else(|| object("NEW has no such function"))?;
    Ok((from, rest_of(new, body, to).unwrap_or(body)))
}

/// What was split off a function (gcc's `f.part.0`) and holds an address, if the function jumps there:
/// one frame then goes on in the other's code.
fn rest_of(new: &Image, function: FunctionId, address: u64) -> Option<FunctionId> {
    let position = new.functions.partition_point(|f| f.address <= address).checked_sub(1)?;
    let clone = new.functions.get(position)?;
    let whole = new.function(function);
    let prefix = format!("{}.part.", whole.name());
    let named = clone.local && clone.names.iter().any(|n| n.starts_with(&prefix));
    let holds = || address < clone.address + clone.size;
    let jumps = || {
        let code = Code::new(new, function);
        let mut targets = code.steps.iter().filter_map(|s| branch_target(&s.instruction));
        targets.any(|target| target == clone.address)
    };
    (position != function.0 && named && holds() && jumps()).then_some(FunctionId(position))
}

/// Both points are where instructions begin, in code that is there.
pub(super) fn points(plan: &Plan, site: &Site, old: &Code, new: (&Code, u64)) -> Vec<Finding> {
    let mut out = Vec::new();
    if old.index(site.at.0).is_none() {
        let what = format!("no instruction of OLD's function begins at {}", site.at);
        out.push(Finding::new(Rule::Boundary, what));
    }
    let (new, to) = new;
    if new.index(to).is_none() {
        let what = format!("no instruction of NEW's function begins at {to:#x}");
        out.push(Finding::new(Rule::Boundary, what));
    }
    let carried = stub::segment(plan, site.to, 1);
    if carried.is_none_or(|(s, _)| s.protection != Protection::Text) {
        let what = format!("the shadow image has no code at {}", site.to);
        out.push(Finding::new(Rule::Counterpart, what));
    }
    out
}

/// Behind a call in OLD goes on behind the same call in NEW; landing pads on landing pads.
pub(super) fn calls(
    bundle: &Bundle,
    site: &Site,
    old: Side<'_>,
    (new, to): (Side<'_>, u64),
) -> Vec<Finding> {
    let object = |what: String| vec![Finding::new(Rule::Callee, what)];
    match site.kind {
        SiteKind::Return => {
            // Between a call of NEW's and the point there may be padding, which does nothing.
            let before = |side: Side<'_>, at: u64, padded: bool| {
                let is_padding = |step: &&Step| step.instruction.mnemonic() == Mnemonic::Nop;
                let mut step = side.function.code.before(at)?;
                while padded && is_padding(&step) {
                    step = side.function.code.before(step.instruction.ip())?;
                }
                let call = step.instruction.mnemonic() == Mnemonic::Call;
                let index = side.function.code.index(step.instruction.ip())?;
                call.then(|| side.function.values.callees.get(&index).cloned()).flatten()
            };
            let (from, to) = (before(old, site.at.0, false), before(new, to, true));
            let (Some(from), Some(to)) = (from, to) else {
                return object("a return point does not follow a call on both sides".to_owned());
            };
            if same_callee(bundle, old.calls, new.calls, &from, &to) {
                return Vec::new();
            }
            let (from, to) = (name(old.calls, &from), name(new.calls, &to));
            object(format!("OLD waits for {from}, NEW goes on behind a call of {to}"))
        }
        SiteKind::LandingPad => {
            let pad = |side: Side<'_>| {
                let block = side.function.code.block_of.get(side.point.index);
                block.is_some_and(|b| {
                    side.function.values.pads.iter().any(|pads| pads.contains(b))
                        && side.function.code.blocks[*b].start == side.point.index
                })
            };
            match pad(old) && pad(new) {
                true => Vec::new(),
                false => object("exceptions do not land there on both sides".to_owned()),
            }
        }
        SiteKind::Loop | SiteKind::Point => Vec::new(),
    }
}

fn name(calls: &Calls<'_>, callee: &Callee) -> String {
    match callee {
        Callee::Function(id) => calls.image.function(*id).name().to_owned(),
        Callee::Import(name) => name.clone(),
        Callee::Descriptor => "a thread-local descriptor".to_owned(),
        Callee::Unknown => "a pointer".to_owned(),
    }
}

/// The same function by the manifest, or by a name that both have, clones being their source.
fn same_callee(
    bundle: &Bundle,
    old: &Calls<'_>,
    new: &Calls<'_>,
    from: &Callee,
    to: &Callee,
) -> bool {
    match (from, to) {
        (Callee::Function(a), Callee::Function(b)) => {
            let (a, b) = (old.image.function(*a), new.image.function(*b));
            let paired = bundle
                .manifest
                .replaced
                .iter()
                .any(|r| r.old.0 == a.address && r.new.is_some_and(|n| n.0 == b.address));
            let same = |a: &String| b.names.iter().any(|b| plain(a) == plain(b));
            paired || a.names.iter().any(same)
        }
        (Callee::Function(id), Callee::Import(name)) => {
            old.image.function(*id).names.iter().any(|n| plain(n) == plain(name))
        }
        (Callee::Import(name), Callee::Function(id)) => {
            new.image.function(*id).names.iter().any(|n| plain(n) == plain(name))
        }
        (a, b) => a == b,
    }
}

/// A name without what compilers hang on to it: clone suffixes, Rust's hash.
fn plain(name: &str) -> &str {
    let hashed = name.len().checked_sub(20).filter(|at| {
        name.starts_with("_ZN") && name.get(*at..).is_some_and(|tail| tail.starts_with("17h"))
    });
    if let Some(name) = hashed.and_then(|at| name.get(..at)) {
        return name;
    }
    let dot = name.char_indices().skip(1).find(|(_, c)| *c == '.');
    dot.and_then(|(at, _)| name.get(..at)).unwrap_or(name)
}

/// Planted bytes lie in the site's own function or the padding behind it, are as expected, and cover
/// no other site and no jump.
pub(super) fn planting(
    image: &Image,
    plan: &Plan,
    index: usize,
    analysis: &Analysis,
) -> Vec<Finding> {
    let function = analysis.id;
    let mut out = Vec::new();
    let Some(site) = plan.sites.get(index) else { return out };
    let mut object = |what: String| out.push(Finding::new(Rule::Planted, what));
    let bytes = planted(site.at, site.form);
    let own = image.function(function);
    let inside = own.parts().any(|p| p.start <= bytes.start && bytes.end <= p.end);
    if !(inside || room(image, bytes.start) >= bytes.end && own_start(image, &bytes, function)) {
        object(format!("the jump planted at {} covers what follows its function", site.at));
    }
    for (other_index, other) in plan.sites.iter().enumerate() {
        let own = other_index == index;
        let there = planted(other.at, other.form);
        let near = other.at.0.abs_diff(site.at.0) < 256 || cave(site.form).is_some();
        if own || !near {
            continue;
        }
        if bytes.contains(&other.at.0) || overlap(&bytes, &there) {
            object(format!("the jumps planted at {} and {} overlap", site.at, other.at));
        }
        let caves = cave(site.form).is_some_and(|c| {
            overlap(&c, &there) || cave(other.form).is_some_and(|o| overlap(&c, &o))
        });
        if caves {
            object(format!("the cave of the site at {} is the site at {}'s", site.at, other.at));
        }
    }
    for redirect in &plan.redirects {
        let there = planted(redirect.at, redirect.form);
        let taken = [Some(there), cave(redirect.form)].into_iter().flatten();
        for place in taken {
            let mine = [Some(bytes.clone()), cave(site.form)].into_iter().flatten();
            if mine.into_iter().any(|m| overlap(&m, &place)) {
                object(format!("the site at {} overlaps the redirect at {}", site.at, redirect.at));
            }
        }
    }
    if let Some(cave) = cave(site.form)
        && !(spare(image, &cave) || is_dead(image, plan, analysis, &cave))
    {
        object(format!("the cave at {:#x} is neither padding nor dead code", cave.start));
    }
    if cave(site.form).is_some_and(|cave| overlap(&cave, &bytes)) {
        object(format!("the jump planted at {} overlaps its own cave", site.at));
    }
    out.extend(expected(image, site, &bytes));
    out.extend(stub_place(plan, index));
    out
}

/// Whether a range is code of the site's function alone, which nobody executes after the commit and
/// at which no thread may stand when it happens: all of it instructions to which some path leads, or
/// padding between them.
/// (Sites and redirects in it are objected to by themselves.)
fn is_dead(image: &Image, plan: &Plan, analysis: &Analysis, range: &Range<u64>) -> bool {
    let code = &analysis.code;
    let inside = code.parts.iter().any(|(p, _)| p.start < range.start && range.end <= p.end);
    let others =
        image.functions.iter().enumerate().filter(|(id, _)| FunctionId(*id) != analysis.id);
    let alone = others.flat_map(|(_, f)| f.parts()).all(|part| !overlap(&part, range));
    let free = plan.blind.iter().flat_map(|b| &b.free).any(|at| range.contains(&at.0));
    let steps = code.steps.iter().enumerate().filter(|(_, step)| {
        let i = &step.instruction;
        overlap(&(i.ip()..i.next_ip()), range)
    });
    let reached = |(index, step): (usize, &Step)| {
        if matches!(step.instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3) {
            return true;
        }
        let block = code.block_of.get(index);
        block.and_then(|b| analysis.values.states.get(*b)).is_some_and(Option::is_some)
    };
    code.damaged.is_none() && inside && alone && !free && { steps }.all(reached)
}

/// Where the next function or part begins behind an address.
fn room(image: &Image, address: u64) -> u64 {
    let parts = image.functions.iter().flat_map(crate::image::Function::parts);
    let next = parts.map(|p| p.start).filter(|s| *s > address).min();
    let section = image.section_at(address).map_or(0, crate::image::Section::end);
    next.unwrap_or(u64::MAX).min(section)
}

/// The site begins in its function, and what it covers behind it is padding.
fn own_start(image: &Image, bytes: &Range<u64>, function: FunctionId) -> bool {
    let own = image.function(function);
    let part = own.parts().find(|p| p.contains(&bytes.start));
    part.is_some_and(|p| spare(image, &(p.end..bytes.end)))
}

/// Whether a range is padding between functions, which nothing refers to.
fn spare(image: &Image, range: &Range<u64>) -> bool {
    let free = image.functions.iter().all(|f| f.parts().all(|p| !overlap(&p, range)));
    let Some(bytes) = image.content(range.start, range.end.saturating_sub(range.start)) else {
        return false;
    };
    let mut decoder = Decoder::with_ip(64, &bytes, range.start, DecoderOptions::NONE);
    let mut filler = true;
    while decoder.can_decode() {
        filler &= matches!(decoder.decode().mnemonic(), Mnemonic::Nop | Mnemonic::Int3);
    }
    // The last instruction of a long `nop` may end behind the range.
    let cut = bytes.iter().all(|b| *b == 0) || filler || middle_of_padding(image, range);
    free && cut && image.next_anchor(range.start.wrapping_sub(1)) >= range.end
}

/// A range that begins or ends within a `nop` of several bytes.
fn middle_of_padding(image: &Image, range: &Range<u64>) -> bool {
    let before = image.functions.iter().flat_map(crate::image::Function::parts);
    let start = before.map(|p| p.end).filter(|e| *e <= range.start).max().unwrap_or(range.start);
    let end = room(image, range.start).max(range.end);
    let Some(bytes) = image.content(start, end.saturating_sub(start)) else { return false };
    let mut decoder = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE);
    let mut filler = true;
    while decoder.can_decode() {
        let i = decoder.decode();
        filler &= i.ip() >= range.end || matches!(i.mnemonic(), Mnemonic::Nop | Mnemonic::Int3);
    }
    filler
}

/// The bytes that apply compares are OLD's, but for operands that an earlier update may have changed.
fn expected(image: &Image, site: &Site, bytes: &Range<u64>) -> Option<Finding> {
    let object = |what: String| Some(Finding::new(Rule::Expect, what));
    let size = bytes.end.saturating_sub(bytes.start);
    let fits = site.expect.len() as u64 == size && site.mask.len() == site.expect.len();
    let content = image.content(bytes.start, size);
    let (true, Some(content)) = (fits, content) else {
        return object(format!("{} bytes expected for a jump of {size}", site.expect.len()));
    };
    for (offset, ((expect, mask), byte)) in
        (0..).zip(site.expect.iter().zip(&site.mask).zip(content.iter()))
    {
        let at = site.at.0.saturating_add(offset);
        if (expect ^ byte) & mask != 0 {
            return object(format!("OLD has {byte:#04x} at {at:#x}, not {expect:#04x}"));
        }
        if *mask != 0xff && !is_operand(image, site.at.0, at) {
            return object(format!("the byte at {at:#x} is no operand, and not compared"));
        }
    }
    None
}

/// Whether a byte belongs to a displacement or immediate of four or eight bytes, of the code that
/// begins at `from`.
fn is_operand(image: &Image, from: u64, at: u64) -> bool {
    let Some(bytes) = image.content(from, 24).or_else(|| image.content(from, 8)) else {
        return false;
    };
    let mut decoder = Decoder::with_ip(64, &bytes, from, DecoderOptions::NONE);
    while decoder.can_decode() {
        let i = decoder.decode();
        if i.next_ip() > at {
            let offsets = decoder.get_constant_offsets(&i);
            return in_operand(&i, &offsets, at);
        }
    }
    false
}

fn in_operand(i: &Instruction, offsets: &ConstantOffsets, at: u64) -> bool {
    let within = usize::try_from(at.wrapping_sub(i.ip())).unwrap_or(usize::MAX);
    let inside = |start: usize, size: usize| (start..start + size).contains(&within);
    offsets.has_displacement() && inside(offsets.displacement_offset(), offsets.displacement_size())
        || offsets.has_immediate() && inside(offsets.immediate_offset(), offsets.immediate_size())
}

/// No two stubs share bytes.
fn stub_place(plan: &Plan, index: usize) -> Option<Finding> {
    let range = |s: &Site| s.stub.0..s.stub.0.saturating_add(u64::from(s.stub_len));
    let own = range(plan.sites.get(index)?);
    let others = plan.sites.iter().enumerate().filter(|(i, _)| *i != index);
    let shared = others.map(|(_, s)| s).find(|s| overlap(&range(s), &own))?;
    let what = format!("the stub at {} overlaps that of the site at {}", own.start, shared.at);
    Some(Finding::new(Rule::Bytes, what))
}
