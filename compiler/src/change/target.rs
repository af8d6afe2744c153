//! Whether two addresses, one in each build, stand for the same thing.

use super::compare::Comparing;
use super::meaning::{FARTHEST, Owner, Taken, is_taken, unseen_end};
use super::{Pair, constants, gaps};
use crate::code::{Field, Reference, Step};
use crate::image::{DynamicRelocation, Image, Meaning, ObjectId, SectionKind, Storage, Thing};
use crate::matching::names;

/// How deep anonymous constants may point to each other before they count as different.
pub(super) const DEPTH: u8 = 8;

/// Compares one reference of two instructions that are equal otherwise.
pub(super) fn same_reference(
    ctx: &Comparing<'_>,
    s: &Step,
    t: &Step,
    p: &Reference,
    q: &Reference,
) -> Result<(), String> {
    let branch = |r: &Reference| matches!(r.field, Field::Branch8 | Field::Branch32);
    if branch(p) != branch(q) || p.taken != q.taken || p.access != q.access {
        return Err(format!("`{}` -> `{}`", s.instruction, t.instruction));
    }
    match (ctx.old.index_at(p.target), ctx.new.index_at(q.target)) {
        (Some(i), Some(j)) if i == j => return Ok(()),
        (None, None) => {}
        _ => return Err(different(ctx.pair, p.target, q.target, branch(p))),
    }
    let same = same_address(ctx, p, q, 0);
    if !is_taken(ctx.pair.old, ctx.old, p) || !is_taken(ctx.pair.new, ctx.new, q) {
        return same;
    }
    match same {
        Ok(()) if same_linker_mark(ctx, p, q) => Ok(()),
        Ok(()) if same_neighbours(ctx, p.target, q.target) => Ok(()),
        same => same_meaning_of(ctx, p, q, same),
    }
}

/// Whether nothing around two addresses speaks for another reading than what they point into: see
/// [`super::meaning`].
fn same_neighbours(ctx: &Comparing<'_>, x: u64, y: u64) -> bool {
    let pair = ctx.pair;
    let (a, b) = (pair.old.object_ending_at(x), pair.new.object_ending_at(y));
    let same_ends = match (a, b) {
        (Some(a), Some(b)) => same_object(pair, a, b, 0),
        (None, None) => !ends_constant(pair.old, x) && !ends_constant(pair.new, y),
        _ => false,
    };
    let array = |image: &Image, at: u64| match image.resolve(at) {
        Thing::Object { object, offset: 0 } => !image.is_single(object),
        _ => false,
    };
    same_ends && (array(pair.old, x) && array(pair.new, y) || !other_next(pair, x, y))
}

/// Whether a constant without a name may end at an address: one among constants, where something
/// else begins. Texts follow each other everywhere, and nobody goes through them to the next.
fn ends_constant(image: &Image, address: u64) -> bool {
    let constants = image.section_at(address).is_some_and(|s| s.kind != SectionKind::Data);
    constants
        && match image.resolve(address) {
            Thing::Object { offset, .. } => offset == 0,
            Thing::Constant(at) => constants::text_at(image, at).is_none_or(|t| t.is_empty()),
            Thing::Mark(_) | Thing::Unknown | Thing::Outside(_) => true,
            Thing::Slot(_) | Thing::Code { .. } => false,
        }
}

/// Whether another object has taken the place of the next one behind two addresses: a biased address
/// would be of either.
fn other_next(pair: Pair<'_>, x: u64, y: u64) -> bool {
    let next = |image: &Image, at: u64| {
        let behind = image.objects_near(at..=at.saturating_add(FARTHEST));
        behind.filter(|(_, o)| o.address > at).map(|(id, o)| (id, o.address - at)).next()
    };
    match (next(pair.old, x), next(pair.new, y)) {
        (Some((a, i)), Some((b, j))) => i == j && !same_object(pair, a, b, 0),
        _ => false,
    }
}

/// Two addresses by what the bodies do with them. `same` is what they are by what they point into.
fn same_meaning_of(
    ctx: &Comparing<'_>,
    p: &Reference,
    q: &Reference,
    same: Result<(), String>,
) -> Result<(), String> {
    let pair = ctx.pair;
    let (before, after) = (ctx.old_meanings(), ctx.new_meanings());
    let (Some(i), Some(j)) = (before.find(p.at), after.find(q.at)) else {
        return same;
    };
    let (old, new) = (&before.taken[i], &after.taken[j]);
    let fail = || {
        let text = different(pair, p.target, q.target, false);
        Err(same.clone().err().unwrap_or(text))
    };
    match (old.owner, new.owner) {
        (Owner::Object(a), Owner::Object(b)) => {
            let offset =
                |image: &Image, id: ObjectId, at: u64| at.wrapping_sub(image.object(id).address);
            let alike = offset(pair.old, a, p.target) == offset(pair.new, b, q.target);
            if alike && same_object(pair, a, b, 0) { Ok(()) } else { fail() }
        }
        (Owner::Object(_), _) | (_, Owner::Object(_)) => fail(),
        (Owner::Bare, Owner::Bare) => {
            let constant = |image: &Image, at: u64| matches!(image.resolve(at), Thing::Constant(_));
            let inside = constant(pair.old, p.target) && constant(pair.new, q.target);
            // As far from the constant's other addresses, whose content is compared.
            let (x, y) = (before.distances(i), after.distances(j));
            if x == y && (inside || !x.is_empty()) {
                same_unless_inside(inside, same)
            } else {
                fail()
            }
        }
        _ if is_bound(old) && is_bound(new) && same_end(ctx, p.target, q.target) => Ok(()),
        (Owner::Open, Owner::Open) => {
            let start = |image: &Image, at: u64| {
                matches!(image.resolve(at), Thing::Object { offset: 0, .. })
            };
            let inside = !start(pair.old, p.target) || !start(pair.new, q.target);
            let unseen = (unseen_end(pair.old, p.target), unseen_end(pair.new, q.target));
            let ends = match unseen {
                (Some(a), Some(b)) => same_object(pair, a, b, 0),
                (None, None) => true,
                _ => false,
            };
            let next = !old.indexed || !inside || !other_next(pair, p.target, q.target);
            if ends && next { same } else { fail() }
        }
        _ => same,
    }
}

/// Outside of the constant, what the address points into does not count.
fn same_unless_inside(inside: bool, same: Result<(), String>) -> Result<(), String> {
    if inside { same } else { Ok(()) }
}

/// Whether an address is only compared.
fn is_bound(taken: &Taken) -> bool {
    let uses = taken.uses.as_ref();
    !taken.indexed && uses.is_some_and(|u| u.exact.is_empty() && !u.escapes)
}

fn same_address(
    ctx: &Comparing<'_>,
    p: &Reference,
    q: &Reference,
    depth: u8,
) -> Result<(), String> {
    let branch = matches!(p.field, Field::Branch8 | Field::Branch32);
    let fail = || Err(different(ctx.pair, p.target, q.target, branch));
    let (old, new) = (ctx.pair.old.resolve(p.target), ctx.pair.new.resolve(q.target));
    if let (Thing::Constant(a), Thing::Constant(b)) = (&old, &new) {
        // Code that no symbol names cannot be told to be the same by its first bytes.
        if branch {
            return if gaps::same_padding(ctx.pair, *a, *b, depth) { Ok(()) } else { fail() };
        }
        if same_linker_mark(ctx, p, q) {
            return Ok(());
        }
        return constants::same(ctx, p, q, *a, *b);
    }
    if let (Thing::Mark(a), Thing::Mark(b)) = (&old, &new)
        && a == b
        && !same_label(ctx.pair, a)
    {
        return Err(format!("refers to {a}, which has no size and stands at other content"));
    }
    let owner = |r: &Reference, image: &Image| {
        let id = r.symbol.and_then(|symbol| image.object_at(symbol))?;
        let object = image.object(id);
        (object.size > 0).then(|| (id, r.target.wrapping_sub(object.address)))
    };
    // Where relocations name the symbol, an address outside of its object still belongs to it.
    if let (Some((a, i)), Some((b, j))) = (owner(p, ctx.pair.old), owner(q, ctx.pair.new)) {
        return if i == j && same_object(ctx.pair, a, b, depth) { Ok(()) } else { fail() };
    }
    if same_thing(ctx.pair, &old, &new, depth) || same_linker_mark(ctx, p, q) {
        Ok(())
    } else {
        fail()
    }
}

/// The compiler's own start-up code refers to marks of the linker (`__TMC_END__`), where by chance
/// a variable may be too, and to the beginning of the unwind tables.
fn same_linker_mark(ctx: &Comparing<'_>, p: &Reference, q: &Reference) -> bool {
    let marks = |image: &Image, address: u64| -> Vec<String> {
        let at = image.object_at(address).map(|id| image.object(id));
        let at = at.filter(|o| o.address == address);
        at.map_or_else(Vec::new, |o| o.names.clone())
    };
    let start_up = ctx.pair.old.function(ctx.a).unit == "crtstuff.c"
        && ctx.pair.new.function(ctx.b).unit == "crtstuff.c";
    let unwind = |image: &Image, address: u64| {
        image.section_at(address).is_some_and(|s| s.name == ".eh_frame")
    };
    let tables = unwind(ctx.pair.old, p.target) && unwind(ctx.pair.new, q.target);
    start_up
        && (tables || {
            let theirs = marks(ctx.pair.new, q.target);
            marks(ctx.pair.old, p.target).iter().any(|m| m.starts_with("__") && theirs.contains(m))
        })
}

/// Whether two resolved addresses stand for the same thing, anonymous constants aside.
pub(super) fn same_thing(pair: Pair<'_>, old: &Thing, new: &Thing, depth: u8) -> bool {
    match (old, new) {
        (Thing::Code { function: f, offset: i }, Thing::Code { function: g, offset: j }) => {
            i == j && pair.matching.is_pair(*f, *g)
        }
        (Thing::Object { object: a, offset: i }, Thing::Object { object: b, offset: j }) => {
            i == j && same_object(pair, *a, *b, depth)
        }
        (Thing::Slot(a), Thing::Slot(b)) => a.kind == b.kind && same_meaning(pair, a, b, depth),
        (Thing::Mark(a), Thing::Mark(b)) => a == b && same_label(pair, a),
        (Thing::Outside(a), Thing::Outside(b)) => {
            a.wrapping_sub(pair.old.extent.start) == b.wrapping_sub(pair.new.extent.start)
        }
        _ => false,
    }
}

/// Whether what a label without a size stands at is the same in both builds, as far as it may go;
/// nothing is known of marks of the linker but their name.
#[must_use]
pub fn same_label(pair: Pair<'_>, name: &str) -> bool {
    match (pair.old.unsized_tables(name).as_slice(), pair.new.unsized_tables(name).as_slice()) {
        ([], []) => true,
        ([a], [b]) => constants::same_taken(pair, *a, *b, 0).is_ok(),
        // Local labels share names.
        _ => false,
    }
}

/// The same variable; or, for tables that only the compiler named, the same content.
fn same_object(pair: Pair<'_>, a: ObjectId, b: ObjectId, depth: u8) -> bool {
    if let Some(counterpart) = pair.matching.new_object(a) {
        return counterpart == b;
    }
    let (x, y) = (pair.old.object(a), pair.new.object(b));
    let constants = x.storage == Storage::Constant && y.storage == Storage::Constant;
    if pair.matching.old_object(b).is_some() || !constants {
        return false;
    }
    if x.distances.is_some() && y.distances.is_some() {
        return constants::same_distances(pair, x, y, depth);
    }
    x.size == y.size && same_content(pair, x.range(), y.range(), depth)
}

/// What the dynamic linker puts at two places.
pub(super) fn same_meaning(
    pair: Pair<'_>,
    a: &DynamicRelocation,
    b: &DynamicRelocation,
    depth: u8,
) -> bool {
    match (&a.meaning, &b.meaning) {
        (Meaning::Address(x), Meaning::Address(y)) => same_pointer(pair, *x, *y, depth),
        (Meaning::Symbol(s, i), Meaning::Symbol(t, j)) => {
            i == j && s.name == t.name && s.version == t.version
        }
        (Meaning::Copy(s), Meaning::Copy(t)) => s.name == t.name,
        (Meaning::Number(x), Meaning::Number(y)) => x == y,
        (Meaning::Resolver(x), Meaning::Resolver(y)) => same_pointer(pair, *x, *y, depth),
        (Meaning::ThreadLocal(k, s, i), Meaning::ThreadLocal(l, t, j)) => {
            let named = |s: &Option<crate::image::SymbolName>| s.as_ref().map(|s| s.name.clone());
            k == l
                && match (named(s), named(t)) {
                    (Some(s), Some(t)) => s == t && i == j,
                    (None, None) => same_thread_local_offset(pair, *i, *j),
                    _ => false,
                }
        }
        _ => false,
    }
}

/// Offsets in the two images' TLS segments.
fn same_thread_local_offset(pair: Pair<'_>, i: i64, j: i64) -> bool {
    let find = |image: &Image, offset: i64| {
        let start = image.tls.as_ref()?.extent.start;
        let address = start.checked_add_signed(offset)?;
        let id = image.thread_local_at(address)?;
        Some((id, address - image.object(id).address))
    };
    match (find(pair.old, i), find(pair.new, j)) {
        (Some((a, x)), Some((b, y))) => x == y && pair.matching.new_object(a) == Some(b),
        // A module's whole block, as local-dynamic accesses take it.
        (None, None) => i == j,
        _ => false,
    }
}

/// Two pointers as values, as tables hold them.
pub(super) fn same_pointer(pair: Pair<'_>, x: u64, y: u64, depth: u8) -> bool {
    if depth > DEPTH {
        return false;
    }
    match (pair.old.resolve(x), pair.new.resolve(y)) {
        (Thing::Constant(a), Thing::Constant(b)) => {
            constants::same_taken(pair, a, b, depth + 1).is_ok()
        }
        (old, new) => {
            same_thing(pair, &old, &new, depth + 1)
                || matches!(
                    (pair.old.object_ending_at(x), pair.new.object_ending_at(y)),
                    (Some(a), Some(b)) if pair.matching.new_object(a) == Some(b)
                        && matches!((old, new), (Thing::Unknown, Thing::Unknown))
                )
        }
    }
}

/// Content of two ranges with every pointer in it resolved.
pub(crate) fn same_content(
    pair: Pair<'_>,
    old: std::ops::Range<u64>,
    new: std::ops::Range<u64>,
    depth: u8,
) -> bool {
    if old.end - old.start != new.end - new.start || depth > DEPTH {
        return false;
    }
    let len = old.end - old.start;
    let (Some(mut x), Some(mut y)) = (
        pair.old.content(old.start, len).map(std::borrow::Cow::into_owned),
        pair.new.content(new.start, len).map(std::borrow::Cow::into_owned),
    ) else {
        return false;
    };
    let (p, q) = (constants::pointers(pair.old, &old), constants::pointers(pair.new, &new));
    if p.len() != q.len() {
        return false;
    }
    for ((i, a), (j, b)) in p.iter().zip(&q) {
        if i != j || !same_meaning(pair, a, b, depth + 1) {
            return false;
        }
        let from = usize::try_from(*i).unwrap_or(usize::MAX);
        for bytes in [&mut x, &mut y] {
            let end = from.saturating_add(8).min(bytes.len());
            if let Some(field) = bytes.get_mut(from..end) {
                field.fill(0);
            }
        }
    }
    x == y
}

/// Labels without a size may be the end of what is before them.
fn same_end(ctx: &Comparing<'_>, x: u64, y: u64) -> bool {
    match (ctx.pair.old.resolve(x), ctx.pair.new.resolve(y)) {
        (Thing::Mark(a), Thing::Mark(b)) => a == b,
        _ => false,
    }
}

/// Both targets in words.
fn different(pair: Pair<'_>, x: u64, y: u64, call: bool) -> String {
    let (old, new) = (describe(pair.old, x), describe(pair.new, y));
    if call && old != new {
        return format!("goes to {new} instead of {old}");
    }
    if old == new {
        let thing = old.strip_prefix("a ").unwrap_or(&old);
        return format!("{} another {thing}", if call { "goes to" } else { "refers to" });
    }
    format!("refers to {new} instead of {old}")
}

/// An address in words.
#[must_use]
pub fn describe(image: &Image, address: u64) -> String {
    let plus = |offset: u64| {
        if offset == 0 { String::new() } else { format!("+{offset}") }
    };
    match image.resolve(address) {
        Thing::Code { function, offset } => {
            format!("{}{}", names::readable(image.function(function).name()), plus(offset))
        }
        Thing::Object { object, offset } => {
            format!("{}{}", names::readable(image.object(object).name()), plus(offset))
        }
        Thing::Slot(slot) => match slot.meaning {
            Meaning::Symbol(symbol, _) | Meaning::Copy(symbol) => format!("{symbol} (by its slot)"),
            Meaning::Address(a) => format!("{} (by its slot)", describe(image, a)),
            Meaning::Resolver(a) => format!("what {} resolves to", describe(image, a)),
            Meaning::Number(n) => format!("{n:#x} (by its slot)"),
            Meaning::ThreadLocal(..) => "a thread-local variable (by its slot)".to_owned(),
        },
        Thing::Constant(a) => match constants::text_at(image, a) {
            Some(text) if is_readable_text(&text) && !gaps::is_in_gap(image, a) => {
                format!("\"{}\"", String::from_utf8_lossy(&text).escape_debug())
            }
            _ if gaps::is_in_gap(image, a) => "a place between functions".to_owned(),
            _ => "a constant".to_owned(),
        },
        Thing::Mark(name) => name,
        Thing::Outside(number) => format!("{number:#x}"),
        Thing::Unknown => format!("memory without a name at {address:#x}"),
    }
}

/// Whether bytes are text that a person wrote.
#[must_use]
pub fn is_readable_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| {
        text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\r' | '\x1b'))
    })
}

/// Whether two slots hold the same.
#[must_use]
pub fn same_slot(pair: Pair<'_>, old: &DynamicRelocation, new: &DynamicRelocation) -> bool {
    old.kind == new.kind && same_meaning(pair, old, new, 0)
}
