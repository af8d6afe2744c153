//! The address map: where every address of NEW is once the update is in (DESIGN 7.5).
//!
//! Kept functions and objects are where OLD has them; what the shadow image carries is there. Runs
//! of one difference are merged over what lies between them, which nothing refers to by address.

use super::shadow::Placed;
use super::slots::{self, Slots};
use super::{Emitted, Inputs};
use crate::image::ObjectId;
use dsu_patch_format::plan::{Identity, MapRun, MapTarget};
use dsu_patch_format::{NewAddr, OldAddr};

/// Runs this close are one, when their difference is the same.
const GAP: u64 = 4096;

pub(super) fn write(inputs: Inputs<'_>, placed: &Placed, out: &mut Emitted) {
    let mut runs = Vec::new();
    kept_functions(inputs, placed, &mut runs);
    kept_data(inputs, placed, &mut runs);
    shadow(inputs, placed, &mut runs);
    out.plan.map = merge(runs);
    for id in &placed.functions {
        let Some(old) = inputs.pair.matching.old_of(*id) else {
            continue;
        };
        out.plan.identities.push(Identity {
            new: NewAddr(inputs.pair.new.function(*id).address),
            old: OldAddr(inputs.pair.old.function(old).address),
        });
    }
    out.plan.identities.sort_by_key(|i| i.new);
}

fn run(new: u64, len: u64, to: MapTarget) -> MapRun {
    MapRun { start: NewAddr(new), len, to }
}

fn kept_functions(inputs: Inputs<'_>, placed: &Placed, runs: &mut Vec<MapRun>) {
    let pair = inputs.pair;
    for ((a, b), comparison) in inputs.comparisons {
        if placed.functions.contains(b) || pair.matching.old_of(*b) != Some(*a) {
            continue;
        }
        let (old, new) = (pair.old.function(*a), pair.new.function(*b));
        for (i, (from, to, len)) in comparison.runs.iter().enumerate() {
            // The room behind a short function belongs to it: a redirect may need it.
            let last_of_main =
                comparison.runs.get(i + 1).is_none_or(|n| !new.main().contains(&n.1));
            let len = if new.main().contains(to) && last_of_main {
                let room_old = (old.address + old.room).saturating_sub(*from);
                let room_new = (new.address + new.room).saturating_sub(*to);
                room_old.min(room_new).max(*len)
            } else {
                *len
            };
            runs.push(run(*to, len, MapTarget::Old(OldAddr(*from))));
        }
    }
}

fn kept_data(inputs: Inputs<'_>, placed: &Placed, runs: &mut Vec<MapRun>) {
    let pair = inputs.pair;
    for (i, object) in pair.new.objects.iter().enumerate() {
        let id = ObjectId(i);
        let thread_local = object.storage == crate::image::Storage::ThreadLocal;
        if object.size == 0 || thread_local || placed.objects.contains(&id) {
            continue;
        }
        let Some(old) = pair.matching.old_object(id) else {
            continue;
        };
        let counterpart = pair.old.object(old);
        if counterpart.size >= object.size && !inputs.data.moved.contains_key(&old) {
            let to = MapTarget::Old(OldAddr(counterpart.address));
            runs.push(run(object.address, object.size, to));
        }
    }
    let index = Slots::new(pair.old);
    for (at, slot) in slots::all(pair.new) {
        if let Some(old) = index.find(pair, &slot).filter(|_| !placed.slots.contains(&at)) {
            runs.push(run(at, 8, MapTarget::Old(OldAddr(old))));
        }
    }
}

fn shadow(inputs: Inputs<'_>, placed: &Placed, runs: &mut Vec<MapRun>) {
    let new = inputs.pair.new;
    for id in &placed.functions {
        let function = new.function(*id);
        runs.extend(function.parts().map(|p| run(p.start, p.end - p.start, MapTarget::Shadow)));
        if let Some(last) = runs.iter_mut().rev().find(|r| r.start.0 == function.address) {
            last.len = last.len.max(super::shadow::room(function));
        }
    }
    for id in &placed.objects {
        let object = new.object(*id);
        runs.push(run(object.address, object.size, MapTarget::Shadow));
    }
    runs.extend(placed.slots.iter().map(|at| run(*at, 8, MapTarget::Shadow)));
}

fn merge(mut runs: Vec<MapRun>) -> Vec<MapRun> {
    runs.retain(|r| r.len > 0);
    runs.sort_by_key(|r| (r.start, r.len));
    let mut out: Vec<MapRun> = Vec::new();
    for mut next in runs {
        if let Some(last) = out.last_mut() {
            let end = last.start.0 + last.len;
            if same_difference(last, &next) && next.start.0 <= end + GAP {
                last.len = last.len.max(next.start.0 + next.len - last.start.0);
                continue;
            }
            if next.start.0 < end {
                // Overlapping runs that disagree: nested assembler symbols; the first stands.
                let cut = end - next.start.0;
                if cut >= next.len {
                    continue;
                }
                next.start = NewAddr(end);
                next.len -= cut;
                if let MapTarget::Old(old) = &mut next.to {
                    *old = old.offset(cut);
                }
            }
        }
        out.push(next);
    }
    out
}

fn same_difference(a: &MapRun, b: &MapRun) -> bool {
    match (a.to, b.to) {
        (MapTarget::Old(x), MapTarget::Old(y)) => {
            y.0.wrapping_sub(x.0) == b.start.0.wrapping_sub(a.start.0)
        }
        (MapTarget::Shadow, MapTarget::Shadow) => true,
        _ => false,
    }
}
