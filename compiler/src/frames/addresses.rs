//! What the addresses in both bodies mean, as values that are equal exactly when the addresses are
//! equal in the updated process.
//!
//! OLD's operands are where they were linked. NEW's lead where the shadow image's fix-ups send them: a
//! kept thing is at its OLD address, everything else in the shadow image.

use super::source::Named;
use super::value::{Base, Value, Values};
use crate::code::{Body, Field, Reference, Step};
use crate::image::{Image, Thing};
use dsu_patch_format::plan::{Fixup, Target};
use dsu_patch_format::{NewAddr, OldAddr};

/// The address-valued operand of an instruction that is no branch: its immediate, or its memory
/// operand's displacement.
fn reference(step: &Step, immediate: bool) -> Option<&Reference> {
    step.references
        .iter()
        .find(|r| r.immediate == immediate && !matches!(r.field, Field::Branch8 | Field::Branch32))
}

/// The address in an operand of OLD.
pub fn old(image: &Image, values: &mut Values, step: &Step, immediate: bool) -> Option<Value> {
    let address = reference(step, immediate)?.target;
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
    let mut named = Named::new();
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
