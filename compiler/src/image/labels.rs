//! Code that no function symbol covers: assembler labels that are not declared to be functions
//! (`STT_NOTYPE`), and entries that the source gave a local name only.
//!
//! Takes the functions that symbols declare; gives them company. What a call or a jump of sure code
//! leads to, and what has unwinding rules, is code and becomes a [`Function`] of its own, so that it
//! is compared, matched and replaced as one. Anything else between functions stays a constant.
//! A label whose address is only taken may be either; it is left to the comparison, which is strict.

use super::functions::{Function, RawSymbol, merge};
use super::{Image, SectionKind};
use crate::code::{Field, Flow, follow, for_each_reference, is_filler};
use gimli::UnwindSection;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Adds the functions that no symbol declares. Their rooms and the index of cold parts are left to
/// the caller.
pub(super) fn adopt(image: &mut Image, labels: &[RawSymbol]) {
    let gaps = gaps(image);
    if gaps.is_empty() {
        return;
    }
    let mut named: BTreeMap<u64, Vec<RawSymbol>> = BTreeMap::new();
    for label in labels {
        if gap_of(&gaps, label.address).is_some() {
            named.entry(label.address).or_default().push(label.clone());
        }
    }
    let unwound = unwound(image, &gaps);
    let mut entries = entries(image, &gaps, &unwound);
    settle(&mut entries, &named);
    for range in ranges(&entries, &gaps, &named, &unwound) {
        let after = image.functions.partition_point(|f| f.address < range.start);
        let before = after.checked_sub(1).map(|i| &image.functions[i]);
        let found = function(image, &range, named.get(&range.start), before);
        image.functions.insert(after, found);
    }
}

/// Executable bytes that belong to no function and are no padding, ascending.
fn gaps(image: &Image) -> Vec<Range<u64>> {
    let mut covered: Vec<Range<u64>> = image.functions.iter().flat_map(Function::parts).collect();
    covered.sort_by_key(|r| r.start);
    let mut out = Vec::new();
    let text = image.sections.iter().filter(|s| s.kind == SectionKind::Text);
    for section in text.filter(|s| !s.name.contains("plt")) {
        let mut at = section.address;
        let first = covered.partition_point(|r| r.start < section.address);
        let inside = covered[first..].iter().take_while(|r| r.start < section.end());
        for range in inside.cloned().chain(std::iter::once(section.end()..section.end())) {
            if range.start > at {
                out.push(at..range.start);
            }
            at = at.max(range.end);
        }
    }
    out.retain(|g| image.content(g.start, g.end - g.start).is_some_and(|b| !is_filler(&b)));
    out
}

fn gap_of(gaps: &[Range<u64>], address: u64) -> Option<&Range<u64>> {
    let after = gaps.partition_point(|g| g.start <= address);
    gaps.get(after.checked_sub(1)?).filter(|g| g.contains(&address))
}

/// Ranges in gaps that have unwinding rules of their own (`.cfi_startproc`).
fn unwound(image: &Image, gaps: &[Range<u64>]) -> BTreeMap<u64, u64> {
    let mut out = BTreeMap::new();
    let Some(section) = image.sections.iter().find(|s| s.name == ".eh_frame") else {
        return out;
    };
    let content = image.content(section.address, section.size).unwrap_or_default();
    let frames = gimli::EhFrame::new(&content, gimli::LittleEndian);
    let bases = gimli::BaseAddresses::default().set_eh_frame(section.address);
    let mut entries = frames.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let gimli::CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(gimli::EhFrame::cie_from_offset) else { continue };
        let start = fde.initial_address();
        if let Some(gap) = gap_of(gaps, start) {
            out.insert(start, start.saturating_add(fde.len()).min(gap.end));
        }
    }
    out
}

/// Where code in gaps is entered, with what follows from there; and whether by a jump alone.
#[derive(Default)]
struct Entries {
    flows: BTreeMap<u64, Flow>,
    /// Entries that are called or have unwinding rules: each begins something.
    begin: BTreeSet<u64>,
}

fn entries(image: &Image, gaps: &[Range<u64>], unwound: &BTreeMap<u64, u64>) -> Entries {
    let mut out = Entries::default();
    out.begin.extend(unwound.keys());
    let mut todo: Vec<u64> = unwound.keys().copied().collect();
    let flows: Vec<Flow> = image
        .functions
        .par_iter()
        .filter(|f| f.import.is_none() && enters(image, f, gaps))
        .map(|f| {
            let parts: Vec<Range<u64>> = f.parts().collect();
            // Data in a function decodes to branches as well: only those that control reaches count.
            follow(image, f.address, &parts)
        })
        .collect();
    for flow in &flows {
        note(flow, gaps, &mut out, &mut todo);
    }
    while let Some(at) = todo.pop() {
        if out.flows.contains_key(&at) {
            continue;
        }
        let Some(gap) = gap_of(gaps, at) else { continue };
        let flow = follow(image, at, std::slice::from_ref(gap));
        note(&flow, gaps, &mut out, &mut todo);
        out.flows.insert(at, flow);
    }
    out
}

/// Whether a function has a branch into a gap, or falls into one.
fn enters(image: &Image, function: &Function, gaps: &[Range<u64>]) -> bool {
    let mut any = gap_of(gaps, function.main().end).is_some();
    for part in function.parts() {
        for_each_reference(image, part, |r| {
            any |= matches!(r.field, Field::Branch8 | Field::Branch32)
                && gap_of(gaps, r.target).is_some();
        });
    }
    any
}

fn note(flow: &Flow, gaps: &[Range<u64>], out: &mut Entries, todo: &mut Vec<u64>) {
    let in_gap = |t: &&u64| gap_of(gaps, **t).is_some();
    out.begin.extend(flow.called.iter().filter(in_gap));
    todo.extend(flow.called.iter().chain(&flow.left).filter(in_gap));
}

/// What a named label stands at begins there, too, when it is code.
fn settle(entries: &mut Entries, named: &BTreeMap<u64, Vec<RawSymbol>>) {
    let reached: BTreeSet<u64> =
        entries.flows.values().flat_map(|f| f.reached.iter().map(|(at, _)| *at)).collect();
    entries.begin.extend(named.keys().filter(|at| reached.contains(at)));
}

/// What each function covers: from where it begins to the last byte that is known to be its code. A
/// jump into the midst of code that begins before does not begin anything.
fn ranges(
    entries: &Entries,
    gaps: &[Range<u64>],
    named: &BTreeMap<u64, Vec<RawSymbol>>,
    unwound: &BTreeMap<u64, u64>,
) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    let starts: BTreeSet<u64> = entries.begin.iter().chain(entries.flows.keys()).copied().collect();
    for start in starts {
        let Some(gap) = gap_of(gaps, start) else { continue };
        let limit = |from: u64| {
            let begin = entries.begin.range(from + 1..).next();
            let label = named.range(from + 1..).next().map(|(at, _)| at);
            begin.into_iter().chain(label).copied().chain([gap.end]).min().unwrap_or(gap.end)
        };
        if !entries.begin.contains(&start)
            && let Some(before) = out.last_mut()
            && gap.contains(&before.start)
            && limit(before.start) > start
        {
            before.end = before.end.max(reach(entries, start, limit(start)));
            continue;
        }
        let sized = named.get(&start).into_iter().flatten().map(|l| l.size).max().unwrap_or(0);
        let known = unwound.get(&start).copied().unwrap_or(0).max(start + sized);
        let end = reach(entries, start, limit(start)).max(known).min(gap.end);
        out.push(start..end);
    }
    // A size or a rule may cover what another entry begins in.
    for i in 1..out.len() {
        out[i - 1].end = out[i - 1].end.min(out[i].start);
    }
    out.retain(|r| !r.is_empty());
    out
}

/// How far code goes from an entry, at most up to a limit; all the way where it jumps indirectly.
fn reach(entries: &Entries, start: u64, limit: u64) -> u64 {
    let inside = |(at, _): &&(u64, u64)| (start..limit).contains(at);
    let flows = entries.flows.values();
    let mut end = start;
    for flow in flows.filter(|f| f.reached.iter().any(|r| inside(&r))) {
        if flow.indirect {
            return limit;
        }
        let last = flow.reached.iter().filter(inside).map(|(_, end)| *end).max();
        end = end.max(last.unwrap_or(start).min(limit));
    }
    end
}

/// A function with the labels that stand at it; without any it is called after what is before it.
fn function(
    image: &Image,
    range: &Range<u64>,
    labels: Option<&Vec<RawSymbol>>,
    before: Option<&Function>,
) -> Function {
    let size = range.end - range.start;
    if let Some(labels) = labels {
        return Function { size, ..merge(labels.clone(), &image.debug) };
    }
    let name = match before {
        Some(before) if before.nameless => before.name().to_owned(),
        before => format!("behind_{}", before.map_or("start", Function::name)),
    };
    let symbol = RawSymbol {
        name,
        address: range.start,
        size,
        local: true,
        exported: false,
        file: before.map_or_else(String::new, |f| f.unit.clone()),
    };
    Function { nameless: true, ..merge(vec![symbol], &image.debug) }
}
