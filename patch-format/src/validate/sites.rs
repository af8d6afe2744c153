//! Checkpoint sites, the stubs that they lead to, and returns that never happen.

use super::{Check, NEAR_JUMP, check_jump, in_old, in_text, require};
use crate::plan::{BlindRange, MapRun, MapTarget, Plan, Site, SiteKind};
use crate::{Bundle, NewAddr, OldAddr};

/// Functions are aligned to this at most: padding behind one is not longer.
const MOST_PADDING: u64 = 64;

/// Runs that are looked at: those of a build are disjoint.
const NEAREST: usize = 4;

pub(super) fn check(bundle: &Bundle) -> Check {
    let plan = &bundle.plan;
    let kept = kept(plan);
    let mut end = OldAddr(0);
    for site in &plan.sites {
        require(site.at >= end, "sites ascend", site.at)?;
        check_site(bundle, site, &kept)?;
        end = site.at.offset(1);
    }
    stubs(plan)?;
    dead_returns(plan)?;
    passages(plan)
}

fn check_site(bundle: &Bundle, site: &Site, kept: &[(OldAddr, OldAddr)]) -> Check {
    let (plan, at) = (&bundle.plan, site.at);
    check_jump(plan, at, site.form)?;
    let range = range_before(plan, at).filter(|r| at < r.end);
    require(range.is_some(), "a site lies in a blind range", at)?;
    let same = range.is_some_and(|r| r.function == site.function);
    require(same, "a site names the function of its blind range", at)?;
    if let Some(cave) = site.form.cave() {
        require(is_spare(plan, cave), "a site's cave lies in dead code or behind it", cave)?;
    }
    let written = (at.0..at.0 + site.form.jump_len()).chain(
        // In OLD's image, like the jump: checked.
        site.form.cave().into_iter().flat_map(|cave| cave.0..cave.0 + NEAR_JUMP),
    );
    let kept = written.map(OldAddr).find(|byte| is_kept(plan, kept, *byte));
    require(kept.is_none(), "a site's jump does not reach into kept code", at)?;
    let known = (site.function as usize) < bundle.manifest.replaced.len();
    require(known, "a site names a replaced function", at)?;
    let len = site.form.jump_len();
    let expected = site.expect.len() as u64 == len && site.mask.len() as u64 == len;
    require(expected, "a site has as many expected bytes as its jump", at)?;
    let stub = site.stub_len > 0 && in_text(plan, site.stub, u64::from(site.stub_len));
    require(stub, "a stub lies in a text segment", site.stub)?;
    require(in_text(plan, site.to, 1), "a site's counterpart lies in a text segment", site.to)
}

/// What NEW keeps of OLD, `[start, end)`, ascending by start.
fn kept(plan: &Plan) -> Vec<(OldAddr, OldAddr)> {
    let old = |run: &MapRun| match run.to {
        MapTarget::Old(at) => Some((at, at.offset(run.len))),
        MapTarget::Shadow => None,
    };
    let mut kept: Vec<_> = plan.map.iter().filter_map(old).collect();
    kept.sort_unstable();
    kept
}

/// Whether a byte outside of all dead code is used by NEW: code that several runs lead to is looked for
/// in the nearest ones.
fn is_kept(plan: &Plan, kept: &[(OldAddr, OldAddr)], byte: OldAddr) -> bool {
    if range_before(plan, byte).is_some_and(|r| byte < r.end) {
        return false;
    }
    let after = kept.partition_point(|(start, _)| *start <= byte);
    kept[..after].iter().rev().take(NEAREST).any(|(_, end)| byte < *end)
}

fn range_before(plan: &Plan, at: OldAddr) -> Option<&BlindRange> {
    let after = plan.blind.partition_point(|b| b.start <= at);
    after.checked_sub(1).and_then(|i| plan.blind.get(i))
}

/// Whether the bytes of a cave are dead code, or padding directly behind dead code.
fn is_spare(plan: &Plan, cave: OldAddr) -> bool {
    range_before(plan, cave).is_some_and(|range| {
        let padded = range.end.checked_add(MOST_PADDING);
        cave.checked_add(NEAR_JUMP).is_some_and(|end| padded.is_some_and(|p| end <= p))
    })
}

fn passages(plan: &Plan) -> Check {
    for (at, bytes) in &plan.left {
        require(in_old(plan, *at, *bytes), "what is left is in OLD", at)?;
    }
    require(plan.left.is_sorted(), "what is left ascends", plan.old_start)?;
    let unexpected = &plan.unexpected_returns;
    require(unexpected.is_sorted(), "unexpected return addresses ascend", plan.old_start)?;
    let mut end = OldAddr(0);
    for passage in &plan.passages {
        let at = passage.start;
        require(at >= end && at < passage.end, "passages ascend, disjoint", at)?;
        let range = range_before(plan, at).filter(|r| passage.end <= r.end);
        let own = range.is_some_and(|r| r.function == passage.function);
        require(own, "a passage lies in a blind range of its function", at)?;
        let exit = |index: &u32| {
            let site = plan.sites.get(*index as usize);
            site.is_some_and(|s| s.function == passage.function)
        };
        require(passage.exits.iter().all(exit), "a passage leads to sites of its function", at)?;
        require(passage.exits.is_sorted(), "a passage's exits ascend", at)?;
        require(passage.names.is_sorted(), "what a passage names ascends", at)?;
        end = passage.end;
    }
    Ok(())
}

/// A program counter in a stub must tell where it leads: stubs are the same, or have no byte in
/// common.
fn stubs(plan: &Plan) -> Check {
    let mut stubs: Vec<(NewAddr, u32, NewAddr)> =
        plan.sites.iter().map(|s| (s.stub, s.stub_len, s.to)).collect();
    stubs.sort_unstable();
    stubs.dedup();
    for (before, next) in stubs.iter().zip(stubs.iter().skip(1)) {
        let apart = before.0.offset(u64::from(before.1)) <= next.0;
        require(apart, "stubs do not overlap", next.0)?;
    }
    Ok(())
}

fn dead_returns(plan: &Plan) -> Check {
    let mut end = OldAddr(0);
    for dead in &plan.dead_returns {
        require(*dead >= end, "dead return addresses ascend", dead)?;
        // A return address belongs to the call before it.
        let call = OldAddr(dead.0.wrapping_sub(1));
        let inside = range_before(plan, call).is_some_and(|r| call < r.end);
        require(inside && in_old(plan, call, 1), "a dead return is in a blind range", dead)?;
        // Another function may begin where one ends with such a call, with a site that nothing returns to.
        let site = plan.sites.binary_search_by_key(dead, |s| s.at).ok();
        let returns = site.is_some_and(|index| plan.sites[index].kind == SiteKind::Return);
        require(!returns, "nothing returns to a site at a dead return", dead)?;
        end = dead.offset(1);
    }
    Ok(())
}
