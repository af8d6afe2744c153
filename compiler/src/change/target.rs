//! Whether two addresses, one in each build, stand for the same thing.

use super::compare::Comparing;
use super::{Pair, constants, gaps};
use crate::code::{Body, Field, Reference, Step};
use crate::image::{DynamicRelocation, Image, Meaning, ObjectId, Storage, Thing};
use crate::matching::names;
use iced_x86::{Mnemonic, OpAccess, OpKind, Register};

/// How deep anonymous constants may point to each other before they count as different.
const DEPTH: u8 = 8;

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
    same.or_else(|reason| {
        let ends = p.taken && ends_same_object(ctx, p.target, q.target);
        let only_compared = || is_only_compared(ctx.old, s) && is_only_compared(ctx.new, t);
        let ends = ends || p.taken && same_end(ctx, p.target, q.target);
        if ends && only_compared() { Ok(()) } else { Err(reason) }
    })
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
        if branch || same_linker_mark(ctx, p, q) {
            return if branch { fail() } else { Ok(()) };
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
    pair.matching.old_object(b).is_none()
        && x.storage == Storage::Constant
        && y.storage == Storage::Constant
        && x.size == y.size
        && (same_content(pair, x.range(), y.range(), depth)
            || names::is_offset_table(x.name())
                && names::is_offset_table(y.name())
                && constants::same_offsets(pair, x.range(), y.range()))
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

fn ends_same_object(ctx: &Comparing<'_>, x: u64, y: u64) -> bool {
    match (ctx.pair.old.object_ending_at(x), ctx.pair.new.object_ending_at(y)) {
        (Some(a), Some(b)) => ctx.pair.matching.new_object(a) == Some(b),
        _ => false,
    }
}

/// Labels without a size may be the end of what is before them.
fn same_end(ctx: &Comparing<'_>, x: u64, y: u64) -> bool {
    match (ctx.pair.old.resolve(x), ctx.pair.new.resolve(y)) {
        (Thing::Mark(a), Thing::Mark(b)) => a == b,
        _ => false,
    }
}

/// Whether the address that an instruction takes is only compared afterwards: then it may be the
/// end of an array as well as the beginning of what follows it. Scans on until the register is
/// overwritten; every other use says no.
pub(crate) fn is_only_compared(body: &Body, step: &Step) -> bool {
    if step.instruction.mnemonic() != Mnemonic::Lea
        || step.instruction.op_kind(0) != OpKind::Register
    {
        return false;
    }
    let register = step.instruction.op_register(0).full_register();
    let Some(index) = body.index_at(step.address()) else {
        return false;
    };
    let mut factory = iced_x86::InstructionInfoFactory::new();
    let mut compared = false;
    for later in &body.steps[index + 1..] {
        let instruction = &later.instruction;
        let uses = factory.info(instruction);
        let touched =
            uses.used_registers().iter().any(|r| r.register().full_register() == register);
        let address = uses
            .used_memory()
            .iter()
            .any(|m| m.base().full_register() == register || m.index().full_register() == register);
        if address {
            return false;
        }
        if !touched {
            continue;
        }
        let overwritten = uses
            .used_registers()
            .iter()
            .all(|r| r.register().full_register() != register || r.access() == OpAccess::Write);
        if overwritten {
            return compared;
        }
        let saved = matches!(instruction.mnemonic(), Mnemonic::Push | Mnemonic::Pop);
        if instruction.mnemonic() != Mnemonic::Cmp && !(saved && register != Register::None) {
            return false;
        }
        compared |= instruction.mnemonic() == Mnemonic::Cmp;
    }
    compared
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
