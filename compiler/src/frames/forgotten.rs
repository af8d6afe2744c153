//! Variables of OLD that nothing of NEW can read: counters and the like that NEW no longer has.
//!
//! NEW's code does not name them, for it does not have them; and no pointer leads to them, for nobody takes
//! their address. So what OLD stores there is no business of NEW's memory.

use crate::code::for_each_reference;
use crate::image::{Image, Meaning, ObjectId, Storage};
use crate::matching::Matching;
use std::ops::Range;

/// Where they are, ascending.
pub(super) fn forgotten(old: &Image, matching: &Matching) -> Vec<Range<u64>> {
    // Where addresses may be immediates without anything that tells, it is not known who takes them.
    if old.fixed {
        return Vec::new();
    }
    let all = old.objects.iter().enumerate().filter(|(id, o)| {
        o.size > 0
            && o.storage == Storage::Writable
            && !o.copied
            && matching.new_object(ObjectId(*id)).is_none()
    });
    let mut found: Vec<Range<u64>> = all.map(|(_, object)| object.range()).collect();
    // What another object shares is that one's, too.
    found.retain(|range| {
        let others = old.objects.iter().filter(|o| o.storage == Storage::Writable && o.size > 0);
        others.filter(|o| o.address < range.end && range.start < o.range().end).count() == 1
    });
    for relocation in old.relocations.values() {
        match &relocation.meaning {
            Meaning::Address(to) => found.retain(|range| !range.contains(to)),
            Meaning::Symbol(name, _) | Meaning::Copy(name) => found.retain(|range| {
                let object = old.object_at(range.start);
                object.is_none_or(|id| !old.object(id).names.contains(&name.name))
            }),
            _ => {}
        }
    }
    if found.is_empty() {
        return found;
    }
    for part in old.functions.iter().flat_map(|f| f.parts()) {
        for_each_reference(old, part, |r| {
            let end = r.target.saturating_add(r.access.max(1));
            found.retain(|range| {
                let touches = r.target < range.end && range.start < end;
                let plain = r.access > 0 && range.start <= r.target && end <= range.end;
                !touches || plain
            });
        });
    }
    found
}
