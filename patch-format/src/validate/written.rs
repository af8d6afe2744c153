//! That no two writes of a commit touch one byte, and none covers what is still to be run.
//!
//! Takes the plan; gives the first two writes that meet. What a redirect needs is counted from its
//! entry: a thread may still be about to run an `endbr64` before the jump.

use super::{Check, NEAR_JUMP, require};
use crate::OldAddr;
use crate::plan::Plan;

/// `[start, end)` of OLD, written at commit, and by what.
type Extent = (OldAddr, OldAddr, &'static str);

pub(super) fn check(plan: &Plan) -> Check {
    let mut extents = redirects(plan);
    let sites = sites(plan);
    free_points(plan, &sites)?;
    extents.extend(sites);
    extents.extend(
        plan.writes.iter().map(|w| (w.at, w.at.offset(w.bytes.len() as u64), "a data write")),
    );
    extents.sort_unstable();
    for (before, next) in extents.iter().zip(extents.iter().skip(1)) {
        let place = format_args!("{} and {} at {}", before.2, next.2, next.0);
        require(before.1 <= next.0, "no two writes touch one byte", place)?;
    }
    passages(plan, &extents)
}

/// What is written is none of the code that threads still run through.
fn passages(plan: &Plan, extents: &[Extent]) -> Check {
    for passage in &plan.passages {
        let after = extents.partition_point(|(start, ..)| *start < passage.end);
        let before = after.checked_sub(1).and_then(|i| extents.get(i));
        let covered = before.is_some_and(|(_, end, _)| passage.start < *end);
        require(!covered, "nothing is written into a passage", passage.start)?;
    }
    Ok(())
}

fn redirects(plan: &Plan) -> Vec<Extent> {
    let jumps = plan.redirects.iter().map(|r| {
        // Behind the entry by 4 at most, and all of it in OLD's image: checked.
        (r.entry, r.at.offset(r.form.jump_len()), "a redirect")
    });
    let caves = plan.redirects.iter().filter_map(|r| r.form.cave());
    jumps.chain(caves.map(|c| (c, c.offset(NEAR_JUMP), "a redirect's cave"))).collect()
}

fn sites(plan: &Plan) -> Vec<Extent> {
    let jumps = plan.sites.iter().map(|s| (s.at, s.at.offset(s.form.jump_len()), "a site"));
    let caves = plan.sites.iter().filter_map(|s| s.form.cave());
    jumps.chain(caves.map(|c| (c, c.offset(NEAR_JUMP), "a site's cave"))).collect()
}

/// A thread may stand at a free point at commit: what it is about to run must be what OLD has there,
/// or a redirect.
fn free_points(plan: &Plan, sites: &[Extent]) -> Check {
    let mut sites = sites.to_vec();
    sites.sort_unstable();
    for free in plan.blind.iter().flat_map(|b| &b.free) {
        let after = sites.partition_point(|(start, ..)| start <= free);
        let before = after.checked_sub(1).and_then(|i| sites.get(i));
        let covered = before.is_some_and(|(_, end, _)| free < end);
        require(!covered, "no site covers the entry of a function", free)?;
    }
    Ok(())
}
