//! OLD code that frames may run on in for a moment after the commit.
//!
//! Takes the graphs of the functions whose OLD code may do that, and the sites; gives the bytes to leave
//! alone when jumps are planted ([`reserve`]), and, once they are, [`Plan::passages`] ([`write`]).
//!
//! [`Plan::passages`]: dsu_patch_format::plan::Plan::passages

use super::sites::{Planned, union};
use super::{Emitted, Inputs};
use crate::machine::calls::{Callee, callee};
use crate::machine::flow::{BlockId, Flow};
use crate::sites::passages::{self, Bounds};
use dsu_patch_format::OldAddr;
use dsu_patch_format::plan::{Passage, Plan, RedirectForm};
use dsu_patch_format::validate::{NEAR_JUMP, SHORT_JUMP};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Functions with passages: [`Emitted::replaced`] by index, OLD's graph, and the return addresses from which it may not
/// go on.
pub(super) type Flows<'a> = Vec<(u32, &'a Flow, &'a BTreeSet<u64>)>;

/// Code that is better left alone, the first the best: what would be passages if each site had its jump where
/// it is. Jumps of two bytes leave more of it, but need five elsewhere: worth it for what frames at `blind`
/// points run through.
pub(super) fn reserve(
    inputs: Inputs<'_>,
    flows: &Flows<'_>,
    planned: &[Planned],
    blind: &BTreeSet<u64>,
) -> [Vec<Range<u64>>; 3] {
    let sites: BTreeSet<u64> = planned.iter().map(|p| p.at.0).collect();
    let passing = |flow: (&Flow, &BTreeSet<u64>), jump: u64| {
        let jumps = sites.iter().map(|at| *at..*at + jump).collect();
        find(inputs, flow, &|at| sites.contains(&at), &Covered::new(jumps))
    };
    let (mut needed, mut all) = (Vec::new(), Vec::new());
    for &(_, flow, relying) in flows {
        let passing = |jump: u64| passing((flow, relying), jump);
        let through = passages::from(flow, &passing(SHORT_JUMP), blind);
        needed.extend(passages::ranges(flow, &through));
        all.extend(passages::ranges(flow, &passing(NEAR_JUMP)));
    }
    [union([&needed[..], &all].concat()), union(needed), union(all)]
}

/// Writes the passages that there are. `unexpected` are return addresses behind calls that never come back as
/// far as OLD's code shows.
pub(super) fn write(
    inputs: Inputs<'_>,
    flows: &Flows<'_>,
    unexpected: impl Iterator<Item = u64>,
    out: &mut Emitted,
) {
    let sites: BTreeMap<u64, u32> = out.plan.sites.iter().map(|s| s.at.0).zip(0..).collect();
    let covered = Covered::new(planted(&out.plan));
    let mut all = Vec::new();
    for &(function, flow, relying) in flows {
        let passing = find(inputs, (flow, relying), &|at| sites.contains_key(&at), &covered);
        for range in passages::ranges(flow, &passing) {
            let onward = passages::onward(flow, &passing, &range);
            all.push(Passage {
                start: OldAddr(range.start),
                end: OldAddr(range.end),
                function,
                exits: onward.exits.iter().filter_map(|at| sites.get(at).copied()).collect(),
                names: onward.names.into_iter().map(OldAddr).collect(),
            });
        }
    }
    all.sort_by_key(|p| p.start);
    // Nested assembler symbols: what is another function's is not this one's.
    let range = |p: &Passage| out.plan.blind.iter().find(|b| b.start <= p.start && p.end <= b.end);
    all.retain(|p| range(p).is_some_and(|b| b.function == p.function));
    let is_passed = |at: &u64| all.iter().any(|p| p.start.0 <= *at && *at < p.end.0);
    let unexpected = unexpected.filter(is_passed).map(OldAddr);
    out.plan.unexpected_returns = unexpected.collect();
    out.plan.unexpected_returns.sort_unstable();
    out.plan.passages = all;
    let left = inputs.data.moved.keys().map(|id| inputs.pair.old.object(*id));
    out.plan.left = left.map(|o| (OldAddr(o.address), o.size)).collect();
    out.plan.left.sort_unstable();
}

fn find(
    inputs: Inputs<'_>,
    (flow, relying): (&Flow, &BTreeSet<u64>),
    is_site: &dyn Fn(u64) -> bool,
    covered: &Covered,
) -> Vec<bool> {
    let bounds = Bounds {
        is_site,
        is_covered: &|range| covered.meets(range) || relying.contains(&range.start),
        may_call: &|block| may_call(inputs, flow, block),
    };
    passages::passing(flow, &bounds)
}

/// Whom OLD's code may call beside NEW's: whoever is the same in both.
fn may_call(inputs: Inputs<'_>, flow: &Flow, block: BlockId) -> bool {
    let last = &flow.body.steps[flow.blocks[block.0].steps.end - 1];
    match callee(inputs.pair.old, last) {
        Callee::Function(id) => {
            inputs.pair.matching.new_of(id).is_some() && !inputs.closure.replaced.contains_key(&id)
        }
        Callee::Import(_) | Callee::Unknown => true,
        Callee::Inside(_) => false,
    }
}

/// Bytes of OLD's text that the commit writes.
fn planted(plan: &Plan) -> Vec<Range<u64>> {
    let jump = |at: OldAddr, form: RedirectForm| at.0..at.0 + form.jump_len();
    let cave = |form: RedirectForm| form.cave().map(|cave| cave.0..cave.0 + NEAR_JUMP);
    let sites = plan.sites.iter().map(|s| (jump(s.at, s.form), cave(s.form)));
    // A thread may still be about to run an `endbr64` before the jump.
    let redirects =
        plan.redirects.iter().map(|r| (r.entry.0..jump(r.at, r.form).end, cave(r.form)));
    sites.chain(redirects).flat_map(|(jump, cave)| [Some(jump), cave]).flatten().collect()
}

/// Ranges, for lookups.
struct Covered(Vec<Range<u64>>);

impl Covered {
    /// Jumps that may overlap.
    fn new(ranges: Vec<Range<u64>>) -> Self {
        Self(union(ranges))
    }

    fn meets(&self, range: &Range<u64>) -> bool {
        let first = self.0.partition_point(|r| r.end <= range.start);
        self.0.get(first).is_some_and(|r| r.start < range.end)
    }
}
