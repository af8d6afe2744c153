//! Readers of copies.
//!
//! A function that reads constants by an address that may be meant for one or another of them is
//! given copies of all (see [`crate::emit`]). When one of them is updated in place by a later update,
//! such a reader does not see it: it is replaced as well, and takes NEW's content along. Whether an
//! earlier update replaced it is not known here; replacing it for nothing does no harm.

use super::Pair;
use super::meaning::{Meanings, Owner, Taken, unseen_end};
use crate::code::{decode, for_each_reference};
use crate::image::{FunctionId, Image, ObjectId, Storage, Thing};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;

/// OLD functions that may read a copy of a constant that is updated in place, with the reason.
#[must_use]
pub fn readers_of_copies(
    pair: Pair<'_>,
    updates: &BTreeSet<(ObjectId, ObjectId)>,
) -> Vec<(FunctionId, String)> {
    // Copies are made of whole sections of constants: see `constants_around` of the shadow image.
    let constants: Vec<(Range<u64>, &str)> = updates
        .iter()
        .map(|(old, _)| pair.old.object(*old))
        .filter(|o| o.storage == Storage::Constant)
        .filter_map(|o| {
            let section = pair.old.section_at(o.address)?;
            Some((section.address..section.end(), o.name()))
        })
        .collect();
    if constants.is_empty() {
        return Vec::new();
    }
    (0..pair.old.functions.len())
        .into_par_iter()
        .map(FunctionId)
        .filter(|f| pair.matching.new_of(*f).is_some())
        .filter_map(|f| {
            let name = reads(pair, f, &constants)?;
            Some((f, format!("may read a copy of {name}, whose content changed")))
        })
        .collect()
}

fn reads<'a>(
    pair: Pair<'_>,
    id: FunctionId,
    constants: &[(Range<u64>, &'a str)],
) -> Option<&'a str> {
    let function = pair.old.function(id);
    // An address between two sections may be of the one before it.
    let near = |at: u64| {
        constants
            .iter()
            .find(|(range, _)| range.contains(&at) || range.contains(&at.wrapping_sub(1)))
    };
    let mut close = false;
    for part in function.parts() {
        for_each_reference(pair.old, part, |r| {
            close |= r.access == 0 && near(r.target).is_some();
        });
    }
    if !close {
        return None;
    }
    let meanings = Meanings::new(pair.old, function, &decode(pair.old, function));
    let open = meanings.taken.iter().filter(|t| {
        let alone = t.uses.as_ref().is_none_or(|u| !u.escapes && !u.meets_strangers());
        t.owner == Owner::Open && t.indexed && alone && !is_into_array(pair.old, t)
    });
    open.into_iter().find_map(|t| near(t.target)).map(|(_, name)| *name)
}

/// Whether an index goes up from the start of an array, which is then what is meant.
fn is_into_array(image: &Image, taken: &Taken) -> bool {
    let start = match image.resolve(taken.target) {
        Thing::Object { object, offset: 0 } => !image.is_single(object),
        _ => false,
    };
    let down = taken.uses.as_ref().is_none_or(|u| u.down);
    let ends = image.object_ending_at(taken.target).is_some();
    start && !(down && ends) && unseen_end(image, taken.target).is_none()
}
