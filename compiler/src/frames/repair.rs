//! Mends a block matching before it is relied on: pairs that OLD's edges contradict are given up.
//!
//! From a matched pair OLD may go on, over blocks without partner, to certain matched blocks; NEW must
//! be able to go from the partner of the one to the partner of the other in the same way. A single
//! edge that it cannot follow makes everything unknown at its end, so the pair with most such edges is
//! given up, worst first (FEASIBILITY section 2, item 5).

use crate::machine::flow::{BlockId, Flow};
use crate::sites::matching::BlockMatching;
use std::collections::{BTreeMap, BTreeSet};

/// Pairs that may be given up before the rest is taken as it is.
const ROUNDS: usize = 400;

/// Gives up pairs until every edge can be followed, or the bound is met. `precious` says which OLD blocks
/// are worth keeping when it is all the same.
pub fn repair(
    old: &Flow,
    new: &Flow,
    matching: &mut BlockMatching,
    precious: &dyn Fn(BlockId) -> bool,
) {
    for _ in 0..ROUNDS {
        let mut blame: BTreeMap<BlockId, usize> = BTreeMap::new();
        for (from, to) in failures(old, new, matching) {
            for block in BTreeSet::from([from, to]) {
                // The entries belong together whatever the edges say.
                if block.0 != 0 {
                    *blame.entry(block).or_default() += 1;
                }
            }
        }
        let worst =
            blame.iter().max_by_key(|(block, count)| (**count, !precious(**block), **block));
        match worst {
            Some((block, _)) => {
                matching.unmatch(*block);
            }
            None => return,
        }
    }
}

/// Edges of OLD, between matched blocks, that NEW cannot follow.
fn failures(old: &Flow, new: &Flow, matching: &BlockMatching) -> Vec<(BlockId, BlockId)> {
    let mut failing = Vec::new();
    for block in 0..old.blocks.len() {
        let Some(partner) = matching.new_of[block] else { continue };
        let reached = frontier(old, BlockId(block), &|b| matching.new_of[b.0].is_some());
        if reached.is_empty() {
            continue;
        }
        let followed = frontier(new, partner, &|b| matching.old_of[b.0].is_some());
        for to in reached {
            if matching.new_of[to.0].is_none_or(|goal| !followed.contains(&goal)) {
                failing.push((BlockId(block), to));
            }
        }
    }
    failing
}

/// The matched blocks that come first behind a block.
fn frontier(flow: &Flow, from: BlockId, matched: &dyn Fn(BlockId) -> bool) -> BTreeSet<BlockId> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut queue = flow.blocks[from.0].successors.clone();
    while let Some(block) = queue.pop() {
        if !seen.insert(block) {
            continue;
        }
        if matched(block) {
            found.insert(block);
        } else {
            queue.extend(&flow.blocks[block.0].successors);
        }
    }
    found
}
