//! Who else must be replaced: closing over references.
//!
//! A kept function runs as OLD has it. That is right only while everything that its operands stand
//! for is where they say. So whoever refers to an object that moves, or to the inside of a replaced
//! function, is replaced as well, until nothing is left to add.

use super::{Comparisons, Pair, Verdict, constants};
use crate::code::for_each_reference;
use crate::image::{FunctionId, Image, Meaning, ObjectId, Thing};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// The OLD functions that get a NEW body.
#[derive(Debug, Clone, Default)]
pub struct Closure {
    /// OLD function, with the reasons in words, the main one first.
    pub replaced: BTreeMap<FunctionId, Vec<String>>,
}

/// What an OLD function depends on not moving.
#[derive(Debug, Clone, Default)]
struct Uses {
    objects: BTreeSet<ObjectId>,
    /// Functions that it refers to behind their entry.
    inside: BTreeSet<FunctionId>,
}

/// Closes the set of changed functions. `moved` are OLD objects that NEW code must not find at
/// their OLD address; `contract` gives callers that rely on a register which a replaced function's
/// NEW body clobbers.
#[must_use]
pub fn close(
    pair: Pair<'_>,
    comparisons: &Comparisons,
    moved: &BTreeMap<ObjectId, String>,
    contract: impl Fn(&BTreeMap<FunctionId, Vec<String>>) -> Vec<(FunctionId, String)>,
) -> Closure {
    let mut replaced: BTreeMap<FunctionId, Vec<String>> = comparisons
        .iter()
        .filter(|((a, b), c)| c.verdict == Verdict::Changed && pair.matching.new_of(*a) == Some(*b))
        .map(|((a, _), c)| (*a, c.reasons.clone()))
        .collect();
    let uses: Vec<Uses> = pair.old.functions.par_iter().map(|f| uses(pair.old, f)).collect();
    loop {
        let mut found: Vec<(FunctionId, String)> = Vec::new();
        for (i, uses) in uses.iter().enumerate() {
            let id = FunctionId(i);
            if pair.matching.new_of(id).is_none() {
                continue;
            }
            if let Some((_, why)) = moved.iter().find(|(o, _)| uses.objects.contains(o)) {
                found.push((id, why.clone()));
            } else if let Some(f) = uses.inside.iter().find(|f| replaced.contains_key(f)) {
                let name = pair.old.function(*f).name();
                found.push((id, format!("refers to the inside of {name}, which is replaced")));
            }
        }
        found.extend(contract(&replaced));
        found.retain(|(id, _)| !replaced.contains_key(id));
        if found.is_empty() {
            return Closure { replaced };
        }
        for (id, why) in found {
            replaced.entry(id).or_default().push(why);
        }
    }
}

fn uses(image: &Image, function: &crate::image::Function) -> Uses {
    let mut uses = Uses::default();
    let mut constants = BTreeSet::new();
    for part in function.parts() {
        for_each_reference(image, part, |reference| {
            let owner = reference.symbol.and_then(|s| image.object_at(s));
            uses.objects.extend(owner);
            note(image, function.address, reference.target, &mut uses, &mut constants);
        });
    }
    // Pointers inside anonymous tables are as much references as operands are.
    while let Some(constant) = constants.pop_first() {
        let range = constant..image.next_anchor(constant);
        for (_, pointer) in constants::pointers(image, &range) {
            if let Meaning::Address(to) = pointer.meaning {
                let mut deeper = BTreeSet::new();
                note(image, function.address, to, &mut uses, &mut deeper);
                constants.extend(deeper.into_iter().filter(|c| *c > constant));
            }
        }
    }
    uses
}

fn note(image: &Image, own: u64, target: u64, uses: &mut Uses, constants: &mut BTreeSet<u64>) {
    match image.resolve(target) {
        Thing::Code { function, offset }
            if offset > 0 && image.function(function).address != own =>
        {
            uses.inside.insert(function);
        }
        Thing::Object { object, .. } => {
            uses.objects.insert(object);
        }
        Thing::Constant(address) => {
            constants.insert(address);
        }
        Thing::Slot(slot) => {
            if let Meaning::Address(to) = slot.meaning
                && let Thing::Object { object, .. } = image.resolve(to)
            {
                uses.objects.insert(object);
            }
        }
        Thing::Code { .. } => {}
        // The end of an object, where nothing else begins.
        Thing::Mark(_) | Thing::Unknown | Thing::Outside(_) => {
            uses.objects.extend(image.object_ending_at(target));
        }
    }
}
