//! Mends a block matching before it is relied on: pairs that OLD's edges contradict are given up.
//!
//! From a matched pair OLD may go on, over blocks without partner, to certain matched blocks; NEW must
//! be able to go from the partner of the one to the partner of the other in the same way. An edge that
//! it cannot follow makes everything unknown at its end. So a pair is given up where that leaves fewer
//! such edges than before, the one that mends most first (FEASIBILITY section 2, item 5). Where the
//! program itself changed an edge remains; giving up what leads there would only move it.

use super::ways::region;
use crate::machine::flow::{BlockId, End, Flow};
use crate::sites::matching::BlockMatching;
use std::collections::BTreeSet;

/// Pairs that may be given up before the rest is taken as it is.
const ROUNDS: usize = 400;
/// Calls in a row that only one build makes.
const MOST_CALLS: usize = 8;

/// Pairs a block that ends with another call than its partner, or with a call where its partner has none,
/// anew: a statement that only one build has may end the block early, and the partner is then the rest of it.
/// `same_call` says whether an OLD block and a NEW one end with the same call, or with what takes its place.
/// `precious` says of which OLD blocks the beginning matters: others are given up for the block behind, too,
/// where that ends with the partner's call (in one build only somebody jumps there).
pub fn realign(
    old: &Flow,
    new: &Flow,
    matching: &mut BlockMatching,
    same_call: &dyn Fn(BlockId, BlockId) -> bool,
    precious: &dyn Fn(BlockId) -> bool,
) {
    let alike = |a: BlockId, b: BlockId| {
        let (end, other) = (old.blocks[a.0].end, new.blocks[b.0].end);
        if end == End::Call { same_call(a, b) } else { end == other }
    };
    let pairs: Vec<(BlockId, BlockId)> = matching.pairs().collect();
    for (a, b) in pairs {
        // The entries belong together.
        if a.0 == 0 || alike(a, b) {
            continue;
        }
        let calls = |flow: &Flow, block: BlockId| flow.blocks[block.0].end == End::Call;
        let a_on = calls(new, b) && !precious(a);
        let b_on = calls(old, a) && !precious(a);
        let a_rest = rest(old, a, a_on, &|block| matching.new_of[block.0].is_none());
        let b_rest = rest(new, b, b_on, &|block| matching.old_of[block.0].is_none());
        let later = a_rest.into_iter().find(|block| alike(*block, b)).map(|block| (block, b));
        let found = later
            .or_else(|| b_rest.into_iter().find(|block| alike(a, *block)).map(|block| (a, block)));
        if let Some((a_part, b_part)) = found {
            matching.unmatch(a);
            matching.add(a_part, b_part);
        }
    }
}

/// The blocks behind the call that a block ends with, and behind further calls, while they are free; with
/// `on`, also those to which a block just goes on.
fn rest(flow: &Flow, block: BlockId, on: bool, is_free: &dyn Fn(BlockId) -> bool) -> Vec<BlockId> {
    let mut rest = Vec::new();
    let mut last = block;
    while rest.len() < MOST_CALLS {
        let b = &flow.blocks[last.0];
        let next = if on && matches!(b.end, End::Next | End::Jump) {
            b.successors.first().copied()
        } else {
            flow.return_point(last)
        };
        match next {
            Some(next) if is_free(next) && !rest.contains(&next) => rest.push(next),
            _ => break,
        }
        last = rest[rest.len() - 1];
    }
    rest
}

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
            .flat_map(|(from, to)| [*from, *to].into_iter().chain(between(new, matching, *from)))
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
    let mut around = sources(old, block, &|b| matching.new_of[b.0].is_some());
    let others = sources(new, partner, &|b| matching.old_of[b.0].is_some());
    around.extend(others.into_iter().filter_map(|b| matching.old_of[b.0]));
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

/// The pairs, by OLD's block, to which NEW comes first behind the partner of a block: where OLD has a copy
/// of such a block (the head of a loop at the loop's end, too), NEW goes through the only one that it has.
fn between(new: &Flow, matching: &BlockMatching, from: BlockId) -> Vec<BlockId> {
    let Some(partner) = matching.new_of[from.0] else { return Vec::new() };
    let first = frontier(new, partner, &|b| matching.old_of[b.0].is_some());
    first.into_iter().filter_map(|block| matching.old_of[block.0]).collect()
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
