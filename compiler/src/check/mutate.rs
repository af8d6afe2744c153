//! Everything that can go wrong with one site, one thing at a time: for tests of the checker.
//!
//! Takes a bundle that the checker accepts; gives changes of it that it must object to. A change is
//! made to the table with the stub unchanged, or to the stub with the table unchanged.

use dsu_patch_format::frames::{Location, Proof, Translation, Value};
use dsu_patch_format::plan::{Copied, Plan};
use dsu_patch_format::{Bundle, NewAddr};
use iced_x86::{Decoder, DecoderOptions, FlowControl};

/// One change of one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// [`Plan::sites`] by index.
    pub site: usize,
    /// What was done, in words.
    pub what: String,
    change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Table(Box<Translation>),
    /// An address of the shadow image, and the byte that is there instead.
    Byte(NewAddr, u8),
}

impl Mutant {
    /// The bundle with this change.
    #[must_use]
    pub fn apply(&self, bundle: &Bundle) -> Bundle {
        let mut out = bundle.clone();
        match &self.change {
            Change::Table(table) => {
                if let Some(place) = out.frames.get_mut(self.site) {
                    *place = (**table).clone();
                }
            }
            Change::Byte(at, value) => {
                for segment in &mut out.plan.segments {
                    let offset = usize::try_from(at.since(segment.start)).ok();
                    if let Some(byte) = offset.and_then(|o| segment.bytes.get_mut(o)) {
                        *byte = *value;
                    }
                }
            }
        }
        out
    }
}

/// Changes of a site's table: each move dropped, narrowed, misplaced, off by one, or given the source of
/// another one; depths and flags changed.
#[must_use]
pub fn tables(bundle: &Bundle, site: usize) -> Vec<Mutant> {
    let Some(table) = bundle.frames.get(site) else { return Vec::new() };
    let mut out = Vec::new();
    let mut mutant = |what: String, change: &dyn Fn(&mut Translation)| {
        let mut changed = table.clone();
        change(&mut changed);
        changed.moves.sort_by_key(|m| m.to);
        if changed != *table {
            out.push(Mutant { site, what, change: Change::Table(Box::new(changed)) });
        }
    };
    for (index, step) in table.moves.iter().enumerate() {
        let to = step.to;
        // A caller's value that stays in its register is where it belongs, whatever the table says.
        let stays = step.proof == Proof::CalleeSaved && step.from == Value::At(to);
        if !stays {
            mutant(format!("drop {to:?}"), &|t| {
                t.moves.remove(index);
            });
        }
        if let Some(narrow) = narrowed(to).filter(|_| !stays) {
            mutant(format!("narrow {to:?}"), &|t| t.moves[index].to = narrow);
        }
        for other in misplaced(table, to) {
            mutant(format!("misplace {to:?} to {other:?}"), &|t| t.moves[index].to = other);
        }
        if let Value::At(from) = &step.from {
            for other in misplaced(table, *from) {
                let what = format!("take {to:?} from {other:?}");
                mutant(what, &|t| t.moves[index].from = Value::At(other));
            }
        }
        if let Some(off) = one_off(&step.from) {
            mutant(format!("off by one for {to:?}"), &|t| t.moves[index].from = off.clone());
        }
        let next = table.moves.get(index + 1);
        if let Some(next) = next.filter(|n| n.from != step.from) {
            mutant(format!("swap the sources of {to:?} and {:?}", next.to), &|t| {
                let (a, b) = (t.moves[index].from.clone(), t.moves[index + 1].from.clone());
                (t.moves[index].from, t.moves[index + 1].from) = (b, a);
            });
        }
    }
    mutant("a deeper OLD frame".to_owned(), &|t| t.old_depth += 8);
    mutant("a deeper NEW frame".to_owned(), &|t| t.new_depth += 8);
    mutant("a lower NEW frame".to_owned(), &|t| t.lowered += 16);
    mutant("a higher NEW frame".to_owned(), &|t| t.lowered = t.lowered.saturating_sub(16));
    if table.flags {
        mutant("no flags".to_owned(), &|t| t.flags = false);
    }
    out
}

/// A number or an address that is not quite the right one.
fn one_off(value: &Value) -> Option<Value> {
    match value {
        Value::Constant(number) => Some(Value::Constant(number ^ 1)),
        Value::Frame(cfa) => Some(Value::Frame(cfa.saturating_add(8))),
        Value::Address { target, addend } => {
            Some(Value::Address { target: *target, addend: addend.saturating_add(1) })
        }
        _ => None,
    }
}

fn narrowed(place: Location) -> Option<Location> {
    match place {
        Location::General { number, bytes: bytes @ 2.. } => {
            Some(Location::General { number, bytes: bytes / 2 })
        }
        Location::Vector { number, bytes: bytes @ 8.. } => {
            Some(Location::Vector { number, bytes: bytes / 2 })
        }
        Location::Slot { cfa, bytes: bytes @ 2.. } => {
            Some(Location::Slot { cfa, bytes: bytes - bytes / 2 })
        }
        _ => None,
    }
}

/// Places next to one that the table does not name as a destination.
fn misplaced(table: &Translation, place: Location) -> Vec<Location> {
    let near = match place {
        Location::General { number, bytes } => {
            let other = |n| Location::General { number: n, bytes };
            vec![other((number + 1) % 16), other((number + 15) % 16)]
        }
        Location::Vector { number, bytes } => {
            vec![Location::Vector { number: (number + 1) % 16, bytes }]
        }
        Location::Slot { cfa, bytes } => {
            let other = |by: i64| Location::Slot { cfa: cfa.saturating_add(by), bytes };
            vec![other(8), other(-8), other(1)]
        }
    };
    let mut near = near;
    let named = |l: &Location| table.moves.iter().any(|m| m.to == *l);
    near.retain(|l| !named(l) && !matches!(l, Location::General { number: 4, .. }));
    near
}

/// Changes of a site's stub: each byte of each displacement and immediate, and of the jump at its end.
#[must_use]
pub fn stubs(bundle: &Bundle, site: usize) -> Vec<Mutant> {
    let Some(place) = bundle.plan.sites.get(site) else { return Vec::new() };
    let len = u64::from(place.stub_len);
    let Some(bytes) = super::stub::content(&bundle.plan, place.stub, len) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    let mut decoder = Decoder::with_ip(64, bytes, place.stub.0, DecoderOptions::NONE);
    while decoder.can_decode() {
        let i = decoder.decode();
        let offsets = decoder.get_constant_offsets(&i);
        let displacement = (offsets.displacement_offset(), offsets.displacement_size());
        let immediate = (offsets.immediate_offset(), offsets.immediate_size());
        for (start, size) in [displacement, immediate] {
            for offset in start..start + size {
                let at = NewAddr(i.ip()).offset(offset as u64);
                if fixed(&bundle.plan, at) {
                    continue;
                }
                let byte = usize::try_from(at.since(place.stub)).ok().and_then(|o| bytes.get(o));
                let Some(byte) = byte else { continue };
                let what = format!("byte {offset} of `{i}` at {:#x}", i.ip());
                let change = Change::Byte(at, byte ^ 0x08);
                out.push(Mutant { site, what, change });
            }
        }
        if i.flow_control() == FlowControl::UnconditionalBranch {
            break;
        }
    }
    out
}

/// Changes of the code by which a frame returns that stands lower: each of its bytes.
#[must_use]
pub fn returns(bundle: &Bundle, site: usize) -> Vec<Mutant> {
    let code = bundle.frames.get(site).and_then(super::lowered::returns_to);
    let bytes = code.and_then(|at| {
        let bytes = super::lowered::decode(&bundle.plan, at)?;
        Some((0..).map(move |n| at.offset(n)).zip(bytes))
    });
    let changed = |(at, byte): (NewAddr, &u8)| Mutant {
        site,
        what: format!("the byte at {at}"),
        change: Change::Byte(at, byte ^ 0x08),
    };
    bytes.into_iter().flatten().map(changed).collect()
}

/// Changes of the copies of functions: each of their bytes, but for those that fix-ups decide.
#[must_use]
pub fn copies(bundle: &Bundle) -> Vec<Mutant> {
    let plan = &bundle.plan;
    let bytes = |copy: &Copied| {
        let bytes = super::stub::content(plan, copy.start, copy.len.into()).unwrap_or_default();
        let start = copy.start;
        (0..).map(move |n| start.offset(n)).zip(bytes.to_vec())
    };
    let site = |copy: &Copied| plan.sites.iter().position(|site| copy.contains(site.to));
    let all = plan.copies.iter().flat_map(|copy| site(copy).map(|site| (site, bytes(copy))));
    all.flat_map(|(site, bytes)| {
        let own = bytes.filter(|(at, _)| !fixed(plan, *at));
        own.map(move |(at, byte)| Mutant {
            site,
            what: format!("the byte at {at}"),
            // Of REX prefixes some low bits mean nothing (SDM volume 2, 2.2.1.2).
            change: Change::Byte(at, byte ^ 0x10),
        })
    })
    .collect()
}

/// Whether a fix-up decides what a byte will be.
fn fixed(plan: &Plan, at: NewAddr) -> bool {
    !super::stub::fixups(plan, at, 1).is_empty()
}
