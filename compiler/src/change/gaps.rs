//! Constants between functions: tables that assembler sources keep beside the code that uses them.
//!
//! Such a table has no symbol, and code may take an address in its middle and reach before it, so
//! the whole gap between two functions is compared. What is surely code in it is a function already
//! (see [`crate::image`]); what is left may still be code whose address is taken, and then has
//! operands: equal bytes must lead to equal things as well.

use super::{Pair, target};
use crate::code::{Reference, follow, for_each_reference, is_filler, leading_filler};
use crate::image::{Image, SectionKind};
use std::ops::Range;

/// What some linkers pad with (SDM volume 2, INT3).
const INT3: u8 = 0xcc;

/// Whether an address that no symbol names lies between functions.
pub(super) fn is_in_gap(image: &Image, address: u64) -> bool {
    image.section_at(address).is_some_and(|s| s.kind == SectionKind::Text)
}

/// Compares what is around two addresses between functions.
pub(super) fn same(pair: Pair<'_>, a: u64, b: u64, depth: u8) -> bool {
    let (Some(x), Some(y)) = (content(pair.old, a), content(pair.new, b)) else {
        return false;
    };
    let len = (x.end - x.start).min(y.end - y.start);
    let (p, q) = (x.start..x.start + len, y.start..y.start + len);
    let rest = |image: &Image, from: u64, to: u64| {
        image.content(from, to - from).is_some_and(|bytes| is_filler(&bytes))
    };
    a.wrapping_sub(x.start) == b.wrapping_sub(y.start)
        && a < p.end
        && target::same_content(pair, p.clone(), q.clone(), depth)
        && rest(pair.old, p.end, x.end)
        && rest(pair.new, q.end, y.end)
        && same_operands(pair, a, b, (&p, &q), depth)
}

/// Whether two branches lead through padding to the same thing. In the cold part of a function, behind a call
/// that does not return, a compiler may leave a jump to where the function ends.
pub(super) fn same_padding(pair: Pair<'_>, a: u64, b: u64, depth: u8) -> bool {
    let padding = |image: &Image, at: u64| {
        let end = image.constant_zone(at)?.end;
        let bytes = image.content(at, end - at)?.into_owned();
        let trap = bytes.first() == Some(&INT3);
        let all = leading_filler(&bytes) == bytes.len() && (trap || !bytes.contains(&INT3));
        all.then_some((trap, end))
    };
    match (padding(pair.old, a), padding(pair.new, b)) {
        (Some((true, _)), Some((true, _))) => true,
        (Some((false, x)), Some((false, y))) => target::same_pointer(pair, x, y, depth + 1),
        _ => false,
    }
}

/// The gap around an address without the padding before its content.
fn content(image: &Image, address: u64) -> Option<Range<u64>> {
    let gap = image.constant_zone(address)?;
    let bytes = image.content(gap.start, gap.end - gap.start)?;
    let padding = leading_filler(&bytes) as u64;
    // Not padding then, but data that looks like it.
    let padding = if gap.start + padding > address { 0 } else { padding };
    Some(gap.start + padding..gap.end)
}

/// If equal bytes at two addresses are code, whether it refers to the same things.
fn same_operands(
    pair: Pair<'_>,
    a: u64,
    b: u64,
    (p, q): (&Range<u64>, &Range<u64>),
    depth: u8,
) -> bool {
    let (Some(x), Some(y)) = (operands(pair.old, a, p), operands(pair.new, b, q)) else {
        return true;
    };
    x.len() == y.len()
        && x.iter().zip(&y).all(|(r, s)| target::same_pointer(pair, r.target, s.target, depth + 1))
}

/// References out of a gap that code from an address on would make; `None` when it is no code.
fn operands(image: &Image, address: u64, gap: &Range<u64>) -> Option<Vec<Reference>> {
    let flow = follow(image, address, std::slice::from_ref(gap));
    if flow.broken {
        return None;
    }
    let mut out = Vec::new();
    for (start, end) in flow.reached {
        for_each_reference(image, start..end, |r| out.push(r));
    }
    out.retain(|r| !gap.contains(&r.target));
    Some(out)
}

/// Whether what is at an address between functions may be code that works only where it is.
#[must_use]
pub fn is_bound_code(image: &Image, address: u64) -> bool {
    let Some(gap) = image.constant_zone(address).filter(|_| is_in_gap(image, address)) else {
        return false;
    };
    // Code ends by itself; what runs into the next function is a table.
    let runs_out = follow(image, address, std::slice::from_ref(&gap)).left.contains(&gap.end);
    !runs_out && operands(image, address, &gap).is_some_and(|o| !o.is_empty())
}
