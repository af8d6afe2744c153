//! Constants without a name: literals, tables of a `switch`, initializers of aggregates.
//!
//! A linked file says neither where such a constant ends nor what it is. Several readings are tried;
//! each compares everything up to the next anchor, so that none can miss a difference:
//!
//! | reading | compares |
//! |---|---|
//! | accessed by the instruction | the bytes accessed |
//! | jump table of the function | the instructions that its offsets lead to, then the rest |
//! | between functions | the whole gap: see [`super::gaps`] |
//! | text | up to its NUL; what is between that and the next anchor must be zero, or is compared |
//! | anything else | all bytes and pointers up to the next anchor, or as a table of offsets to text |

use super::compare::Comparing;
use super::{Pair, gaps, target};
use crate::code::{Body, Reference};
use crate::image::{DynamicRelocation, FunctionId, Image, Meaning, Object, SectionKind, Thing};
use iced_x86::FlowControl;
use object::elf;
use std::ops::Range;

/// Longest text that is looked at: longer literals are compared whole all the same.
const LONGEST: u64 = 1 << 20;

/// Compares the constants that two equal instructions refer to.
pub(super) fn same(
    ctx: &Comparing<'_>,
    p: &Reference,
    q: &Reference,
    a: u64,
    b: u64,
) -> Result<(), String> {
    if p.access > 0 {
        let same = target::same_content(ctx.pair, a..a + p.access, b..b + q.access, 0);
        return if same { Ok(()) } else { Err(constant_changed(ctx.pair, a, b, p.access)) };
    }
    match (jump_table(ctx.pair.old, ctx.old, a), jump_table(ctx.pair.new, ctx.new, b)) {
        (Some(x), Some(y)) => return same_tables(ctx, a, b, &x, &y),
        (None, None) => {}
        _ => return Err("a table of jump targets changed".to_owned()),
    }
    let own =
        |image: &Image, f: FunctionId, body: &Body, at: u64| pointer_targets(image, f, body, at);
    // Absolute jump tables, label tables: pointers into the function itself.
    if let (Some(x), Some(y)) =
        (own(ctx.pair.old, ctx.a, ctx.old, a), own(ctx.pair.new, ctx.b, ctx.new, b))
    {
        return if x == y { Ok(()) } else { Err("a table of labels changed".to_owned()) };
    }
    same_taken(ctx.pair, a, b, 0)
}

/// Compares two constants whose addresses are taken. An anchor in either build ends both.
pub(super) fn same_taken(pair: Pair<'_>, a: u64, b: u64, depth: u8) -> Result<(), String> {
    let len = (extent(pair.old, a) - a).min(extent(pair.new, b) - b);
    let (old, new) = (a..a + len, b..b + len);
    if gaps::is_in_gap(pair.old, a) || gaps::is_in_gap(pair.new, b) {
        let same = gaps::same(pair, a, b, depth);
        return if same { Ok(()) } else { Err(constant_changed(pair, a, b, len)) };
    }
    if let (Some(x), Some(y)) = (text_at(pair.old, a), text_at(pair.new, b)) {
        let behind = (x.len() as u64 + 1).min(len);
        let nothing_behind = zeroes(pair.old, old.start + behind..old.end)
            && zeroes(pair.new, new.start + behind..new.end);
        // A text whose tail another text shares is followed by anything.
        let text = is_text(&x) && is_text(&y);
        if text && (nothing_behind || x != y) {
            return if x == y { Ok(()) } else { Err(text_changed(&x, &y)) };
        }
    }
    if target::same_content(pair, old.clone(), new.clone(), depth) || same_offsets(pair, old, new) {
        return Ok(());
    }
    Err(constant_changed(pair, a, b, len))
}

/// Whether both builds have the same text at these addresses, which nothing follows: a literal.
pub fn is_same_text(pair: Pair<'_>, a: u64, b: u64) -> bool {
    let constant =
        |image: &Image, at| image.section_at(at).is_some_and(|s| s.kind == SectionKind::ReadOnly);
    if !constant(pair.old, a) || !constant(pair.new, b) {
        return false;
    }
    let (Some(x), Some(y)) = (text_at(pair.old, a), text_at(pair.new, b)) else { return false };
    let behind = x.len() as u64 + 1;
    let ends = |image: &Image, at: u64| {
        let end = extent(image, at);
        at + behind <= end && zeroes(image, at + behind..end)
    };
    !x.is_empty() && x == y && is_text(&x) && ends(pair.old, a) && ends(pair.new, b)
}

/// Where a constant ends at the latest.
fn extent(image: &Image, address: u64) -> u64 {
    let end = image.section_at(address).map_or(address, crate::image::Section::end);
    let end = image.next_anchor(address).min(end);
    if gaps::is_in_gap(image, address) {
        // Nothing need refer to the function behind it.
        return image.constant_zone(address).map_or(end, |zone| end.min(zone.end));
    }
    end
}

/// The bytes up to the next NUL, when there is one in the section.
pub(crate) fn text_at(image: &Image, address: u64) -> Option<Vec<u8>> {
    let section = image.section_at(address)?;
    let len = (section.end() - address).min(LONGEST);
    let bytes = image.content(address, len)?;
    let end = bytes.iter().position(|b| *b == 0)?;
    Some(bytes[..end].to_vec())
}

/// Whether bytes may be a C string: anything but control characters that no text has.
fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b >= 0x20 || matches!(*b, b'\n' | b'\t' | b'\r' | 0x1b | 7 | 8 | 11 | 12))
}

fn zeroes(image: &Image, range: Range<u64>) -> bool {
    range.is_empty()
        || image
            .content(range.start, range.end - range.start)
            .is_some_and(|b| b.iter().all(|b| *b == 0))
            && pointers(image, &range).is_empty()
}

/// Places of pointers in a range, from its start, with what stands there: dynamic relocations, and
/// in executables linked at a fixed address those that `--emit-relocs` left.
#[must_use]
pub fn pointers(image: &Image, range: &Range<u64>) -> Vec<(u64, DynamicRelocation)> {
    let mut out: Vec<(u64, DynamicRelocation)> = image
        .relocations
        .range(range.clone())
        .map(|(at, relocation)| (at - range.start, relocation.clone()))
        .collect();
    let all = &image.static_relocations;
    let first = all.partition_point(|r| r.at < range.start);
    for relocation in all[first..].iter().take_while(|r| r.at < range.end) {
        let at = relocation.at - range.start;
        if relocation.kind != elf::R_X86_64_64 || out.iter().any(|(a, _)| *a == at) || !image.fixed
        {
            continue;
        }
        let meaning = Meaning::Address(image.word(relocation.at).unwrap_or(0));
        out.push((at, DynamicRelocation { kind: elf::R_X86_64_RELATIVE, meaning }));
    }
    out.sort_by_key(|(at, _)| *at);
    out
}

/// A jump table of this function at an address: the instructions that it leads to.
///
/// Position-independent tables hold 32-bit distances from the table to the target (gcc and clang,
/// `-fPIC`/`-fPIE`). It is one when the function jumps indirectly and the first entry leads to one
/// of its instructions; it goes on as long as they do, at most to the next anchor.
pub(crate) fn jump_table(image: &Image, body: &Body, address: u64) -> Option<Vec<usize>> {
    let indirect =
        body.steps.iter().any(|s| s.instruction.flow_control() == FlowControl::IndirectBranch);
    if !indirect || image.section_at(address)?.kind == SectionKind::Data {
        return None;
    }
    let len = (extent(image, address) - address) & !3;
    let bytes = image.content(address, len)?;
    let mut entries = Vec::new();
    for entry in bytes.chunks_exact(4) {
        let distance = i32::from_le_bytes(entry.try_into().ok()?);
        let to = address.wrapping_add_signed(i64::from(distance));
        let Some(index) = body.index_at(to).filter(|_| body.is_boundary(to)) else {
            break;
        };
        entries.push(index);
    }
    (!entries.is_empty()).then_some(entries)
}

fn same_tables(
    ctx: &Comparing<'_>,
    a: u64,
    b: u64,
    x: &[usize],
    y: &[usize],
) -> Result<(), String> {
    if x != y {
        let entry = x.iter().zip(y).position(|(i, j)| i != j).unwrap_or(x.len().min(y.len()));
        return Err(format!("entry {entry} of a table of jump targets changed"));
    }
    let size = x.len() as u64 * 4;
    let rest = (extent(ctx.pair.old, a) - a).min(extent(ctx.pair.new, b) - b).saturating_sub(size);
    let (rest_a, rest_b) = (a + size..a + size + rest, b + size..b + size + rest);
    if rest == 0 || target::same_content(ctx.pair, rest_a, rest_b, 0) {
        Ok(())
    } else {
        Err("what follows a table of jump targets changed".to_owned())
    }
}

/// A table of pointers to instructions of this function, up to the next anchor.
pub(crate) fn pointer_targets(
    image: &Image,
    function: FunctionId,
    body: &Body,
    address: u64,
) -> Option<Vec<usize>> {
    let range = address..extent(image, address);
    let mut out = Vec::new();
    for (at, pointer) in pointers(image, &range) {
        let Meaning::Address(to) = pointer.meaning else {
            break;
        };
        if at != out.len() as u64 * 8 {
            break;
        }
        match image.resolve(to) {
            Thing::Code { function: f, offset } if f == function && offset > 0 => {
                out.push(body.index_at(to)?);
            }
            _ => break,
        }
    }
    (!out.is_empty()).then_some(out)
}

/// Tables of 32-bit distances to texts (clang's relative lookup tables): equal when every entry
/// leads to the beginning of an equal text. Small numbers lead into the table itself or to nothing
/// that begins there: a table of numbers never passes for one of distances.
pub(super) fn same_offsets(pair: Pair<'_>, a: Range<u64>, b: Range<u64>) -> bool {
    let len = a.end.saturating_sub(a.start);
    if len < 8 || !len.is_multiple_of(4) || len != b.end.saturating_sub(b.start) {
        return false;
    }
    let (Some(x), Some(y)) = (pair.old.content(a.start, len), pair.new.content(b.start, len))
    else {
        return false;
    };
    x.chunks_exact(4).zip(y.chunks_exact(4)).all(|(x, y)| {
        match (text_entry(pair.old, &a, x), text_entry(pair.new, &b, y)) {
            (Some(x), Some(y)) => x == y,
            _ => false,
        }
    })
}

/// The text that an entry of a table of distances leads to.
fn text_entry(image: &Image, table: &Range<u64>, entry: &[u8]) -> Option<Vec<u8>> {
    let to = entry_target(table.start, entry).filter(|to| !table.contains(to))?;
    let section = image.section_at(to).filter(|s| s.kind == SectionKind::ReadOnly)?;
    let begins = to == section.address || image.content(to - 1, 1).is_some_and(|b| b[0] == 0);
    let text = text_at(image, to).filter(|t| !t.is_empty() && is_text(t))?;
    begins.then_some(text)
}

/// Where a 32-bit distance from a table leads.
fn entry_target(table: u64, entry: &[u8]) -> Option<u64> {
    let distance = i32::from_le_bytes(entry.try_into().ok()?);
    Some(table.wrapping_add_signed(i64::from(distance)))
}

/// Whether two tables of distances lead to the same: texts or other constants.
pub(super) fn same_distances(pair: Pair<'_>, a: &Object, b: &Object, depth: u8) -> bool {
    let (x, y) = (offset_table(pair.old, a, a.size), offset_table(pair.new, b, b.size));
    let text = |image: &Image, at: u64| text_at(image, at).filter(|text| is_text(text));
    let same = |x: u64, y: u64| match (text(pair.old, x), text(pair.new, y)) {
        (Some(x), Some(y)) => x == y,
        _ => same_taken(pair, x, y, depth + 1).is_ok(),
    };
    depth < target::DEPTH && x.len() == y.len() && x.iter().zip(&y).all(|(x, y)| same(*x, *y))
}

/// Where the entries of a table of distances lead that are in its first bytes, when an object is one.
#[must_use]
pub fn offset_table(image: &Image, object: &Object, size: u64) -> Vec<u64> {
    if object.distances.is_none() {
        return Vec::new();
    }
    let bytes = image.content(object.address, size).unwrap_or_default();
    bytes.chunks_exact(4).filter_map(|entry| entry_target(object.address, entry)).collect()
}

fn text_changed(x: &[u8], y: &[u8]) -> String {
    let show = |t: &[u8]| String::from_utf8_lossy(t).chars().take(60).collect::<String>();
    format!("text \"{}\" -> \"{}\"", show(x).escape_debug(), show(y).escape_debug())
}

fn constant_changed(pair: Pair<'_>, a: u64, b: u64, size: u64) -> String {
    let bytes = |image: &Image, at: u64| {
        image.content(at, size).map_or_else(Vec::new, std::borrow::Cow::into_owned)
    };
    let (x, y) = (bytes(pair.old, a), bytes(pair.new, b));
    let Some(first) = x.iter().zip(&y).position(|(x, y)| x != y) else {
        return "a constant changed, in what it refers to or before the address taken".to_owned();
    };
    let show = |bytes: &[u8]| {
        let shown = bytes.iter().skip(first & !15).take(16);
        shown.map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
    };
    let place = if first < 16 { String::new() } else { format!(" at byte {}", first & !15) };
    format!("a constant changed{place}: {} -> {}", show(&x), show(&y))
}
