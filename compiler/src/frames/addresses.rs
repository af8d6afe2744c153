//! What the addresses in both bodies mean, as values that are equal exactly when the addresses are
//! equal in the updated process.
//!
//! OLD's operands are where they were linked. NEW's lead where the shadow image's fix-ups send them: a
//! kept thing is at its OLD address, everything else in the shadow image.
//!
//! Literals are the exception: NEW has its own copy of a text that OLD has, too, and both addresses are one
//! value. Whether two literals that read alike are one object is nobody's business (C11 6.4.5), and what OLD
//! has stored of them everywhere else are addresses of its own copies in any case.

use super::source::Named;
use super::value::{Base, Value, Values};
use crate::change::{Pair, is_same_text, text_at};
use crate::code::{Body, Field, Reference, Step};
use crate::image::{Image, Thing};
use dsu_patch_format::plan::{Fixup, Target};
use dsu_patch_format::{NewAddr, OldAddr};
use std::collections::BTreeMap;

/// Where NEW has the texts whose addresses OLD's body takes, by OLD's address.
pub type Texts = BTreeMap<u64, u64>;

/// The address-valued operand of an instruction that is no branch: its immediate, or its memory
/// operand's displacement.
fn reference(step: &Step, immediate: bool) -> Option<&Reference> {
    step.references
        .iter()
        .find(|r| r.immediate == immediate && !matches!(r.field, Field::Branch8 | Field::Branch32))
}

/// The texts that both bodies take the address of, each having it once.
pub fn texts(pair: Pair<'_>, fixups: &[Fixup], old: &Body, new: &Body) -> Texts {
    // What may be the end of the object in front is not taken for a text.
    let mut old = taken(pair.old, old, |_, r| pair.old.object_ending_at(r.target).is_none());
    let new = taken(pair.new, new, |step, r| {
        meaning(fixups, step, r) == (Target::New(NewAddr(r.target)), 0)
    });
    let pairs = new.into_iter().filter_map(|(text, b)| Some((old.remove(&text)??, b?)));
    pairs.filter(|(a, b)| is_same_text(pair, *a, *b)).collect()
}

/// Where a body has the texts whose addresses it takes; `None`: at several places.
fn taken(
    image: &Image,
    body: &Body,
    counts: impl Fn(&Step, &Reference) -> bool,
) -> BTreeMap<Vec<u8>, Option<u64>> {
    let mut found: BTreeMap<Vec<u8>, Option<u64>> = BTreeMap::new();
    for (step, immediate) in body.steps.iter().flat_map(|step| [(step, false), (step, true)]) {
        let Some(r) = reference(step, immediate).filter(|r| r.access == 0) else { continue };
        let bare = matches!(image.resolve(r.target), Thing::Constant(_));
        let text = if bare && counts(step, r) { text_at(image, r.target) } else { None };
        if let Some(text) = text {
            let place = found.entry(text).or_insert(Some(r.target));
            *place = place.filter(|at| *at == r.target);
        }
    }
    found
}

/// The address in an operand of OLD.
pub fn old(
    image: &Image,
    texts: &Texts,
    values: &mut Values,
    step: &Step,
    immediate: bool,
) -> Option<Value> {
    let reference = reference(step, immediate)?;
    let address = reference.target;
    if let Some(text) = texts.get(&address).filter(|_| reference.access == 0) {
        return Some(values.target(&Target::New(NewAddr(*text)), 0));
    }
    let target = match image.resolve(address) {
        Thing::Code { offset: 0, .. } => Target::OldIdentity(OldAddr(address)),
        _ => Target::Old(OldAddr(address)),
    };
    Some(values.target(&target, 0))
}

/// The address in an operand of NEW.
pub fn new(fixups: &[Fixup], values: &mut Values, step: &Step, immediate: bool) -> Option<Value> {
    let (target, addend) = meaning(fixups, step, reference(step, immediate)?);
    Some(values.target(&target, addend))
}

/// Target and addend of an operand of NEW.
fn meaning(fixups: &[Fixup], step: &Step, reference: &Reference) -> (Target, i64) {
    let fixup = fixups.binary_search_by_key(&reference.at, |f| f.at.0).ok().map(|i| &fixups[i]);
    match fixup {
        // S + A - P is what the field holds; the processor counts from the instruction's end.
        Some(f) if reference.field == Field::Relative32 => {
            let behind = step.end().wrapping_sub(reference.at).cast_signed();
            (f.target, f.addend.wrapping_add(behind))
        }
        Some(f) => (f.target, f.addend),
        None => (Target::New(NewAddr(reference.target)), 0),
    }
}

/// Every address that a body of NEW names, as it names it.
pub fn named(fixups: &[Fixup], body: &Body) -> Named {
    let mut named = Named::default();
    for step in &body.steps {
        for immediate in [false, true] {
            let Some(r) = reference(step, immediate) else { continue };
            let (target, addend) = meaning(fixups, step, r);
            let (base, offset) = match target {
                Target::Old(a) => (Base::Old, a.0),
                Target::OldCode(a) | Target::OldIdentity(a) => (Base::Identity, a.0),
                Target::New(a) => (Base::Shadow, a.0),
                Target::Import(i) => (Base::Import(i), 0),
            };
            named.entry((base, offset.wrapping_add_signed(addend))).or_insert((target, addend));
        }
    }
    named
}
