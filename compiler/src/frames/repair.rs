//! Mends a block matching before it is relied on: pairs that OLD's edges contradict are given up.
//!
//! From a matched pair OLD may go on, over blocks without partner, to certain matched blocks; NEW must
//! be able to go from the partner of the one to the partner of the other in the same way. An edge that
//! it cannot follow makes everything unknown at its end. So a pair is given up where that leaves fewer
//! such edges than before, the one that mends most first (FEASIBILITY section 2, item 5). Where the
//! program itself changed an edge remains; giving up what leads there would only move it.

use super::ways::region;
use crate::machine::flow::{BlockId, Flow};
use crate::sites::matching::BlockMatching;
use std::collections::BTreeSet;

/// Pairs that may be given up before the rest is taken as it is.
const ROUNDS: usize = 400;

/// Gives up pairs while that mends anything. `precious` says which OLD blocks are worth keeping when it
/// is all the same.
pub fn repair(
    old: &Flow,
    new: &Flow,
    matching: &mut BlockMatching,
    precious: &dyn Fn(BlockId) -> bool,
) {
    for _ in 0..ROUNDS {
        let all = failures(old, new, matching, (0..old.blocks.len()).map(BlockId));
        let suspects: BTreeSet<BlockId> = all
            .iter()
            .flat_map(|(from, to)| [*from, *to])
            // The entries belong together whatever the edges say.
            .filter(|block| block.0 != 0)
            .collect();
        let gains = suspects.into_iter().map(|block| (gain(old, new, matching, block), block));
        let best = gains.max_by_key(|(gain, block)| (*gain, !precious(*block), *block));
        match best {
            Some((gain, block)) if gain > 0 => matching.unmatch(block),
            _ => return,
        };
    }
}

/// How many failing edges fewer there are without a pair.
fn gain(old: &Flow, new: &Flow, matching: &mut BlockMatching, block: BlockId) -> isize {
    let Some(partner) = matching.new_of[block.0] else { return 0 };
    let around = sources(old, block, &|b| matching.new_of[b.0].is_some());
    let count = |matching: &BlockMatching, from: &BTreeSet<BlockId>| {
        failures(old, new, matching, from.iter().copied()).len().cast_signed()
    };
    let mut affected = around.clone();
    affected.insert(block);
    let before = count(matching, &affected);
    matching.unmatch(block);
    affected.remove(&block);
    let after = count(matching, &affected);
    matching.new_of[block.0] = Some(partner);
    matching.old_of[partner.0] = Some(block);
    before - after
}

/// Edges of OLD, between matched blocks, that NEW cannot follow.
fn failures(
    old: &Flow,
    new: &Flow,
    matching: &BlockMatching,
    from: impl Iterator<Item = BlockId>,
) -> Vec<(BlockId, BlockId)> {
    let mut failing = Vec::new();
    for block in from {
        let Some(partner) = matching.new_of[block.0] else { continue };
        let reached = frontier(old, block, &|b| matching.new_of[b.0].is_some());
        if reached.is_empty() {
            continue;
        }
        let followed = frontier(new, partner, &|b| matching.old_of[b.0].is_some());
        for to in reached {
            if matching.new_of[to.0].is_none_or(|goal| !followed.contains(&goal)) {
                failing.push((block, to));
            }
        }
    }
    failing
}

/// The matched blocks from which a block is reached first.
fn sources(flow: &Flow, to: BlockId, matched: &dyn Fn(BlockId) -> bool) -> BTreeSet<BlockId> {
    let before = |b: BlockId| flow.blocks[b.0].predecessors.clone();
    region(before(to), &before, matched).1
}

/// The matched blocks that come first behind a block.
fn frontier(flow: &Flow, from: BlockId, matched: &dyn Fn(BlockId) -> bool) -> BTreeSet<BlockId> {
    let next = |b: BlockId| flow.blocks[b.0].successors.clone();
    region(next(from), &next, matched).1
}
