//! Where each side may have been, or may go, between matched blocks: what the relation's rules about copies
//! ask for.

use super::relation::Bodies;
use crate::machine::flow::{BlockId, Flow};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Where both sides may have been between matched blocks, found once for each.
#[derive(Default)]
pub(super) struct Ways {
    passed: FxHashMap<(BlockId, bool), Rc<Passed>>,
    ahead: FxHashMap<BlockId, Rc<Ahead>>,
}

/// What OLD may have passed since its last matched block.
pub(super) struct Passed {
    /// Blocks without partner.
    pub(super) alone: BTreeSet<BlockId>,
    /// The matched blocks that it may come from.
    pub(super) from: BTreeSet<BlockId>,
}

impl Passed {
    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = BlockId> + '_ {
        self.alone.iter().chain(&self.from).copied()
    }
}

/// What NEW comes to by an edge.
pub(super) struct Ahead {
    /// Blocks without partner.
    pub(super) alone: BTreeSet<BlockId>,
    /// The first matched blocks.
    pub(super) firsts: BTreeSet<BlockId>,
}

impl Ways {
    /// Before OLD comes to a block. `joined` are blocks that both sides may have gone through together
    /// although they have no partner, where these are not to be counted: always the same ones, or none.
    pub(super) fn passed(
        &mut self,
        bodies: &Bodies<'_>,
        old: BlockId,
        joined: &BTreeSet<BlockId>,
    ) -> Rc<Passed> {
        let find = || {
            let before = |b: BlockId| bodies.old.blocks[b.0].predecessors.clone();
            let matched = |b: BlockId| bodies.matching.new_of[b.0].is_some() || joined.contains(&b);
            let (mut alone, from) = region(before(old), &before, &matched);
            add_insides(bodies.old, &mut alone, &from);
            Rc::new(Passed { alone, from })
        };
        self.passed.entry((old, joined.is_empty())).or_insert_with(find).clone()
    }

    /// When NEW goes to a block.
    pub(super) fn ahead(&mut self, bodies: &Bodies<'_>, new: BlockId) -> Rc<Ahead> {
        let find = || {
            let next = |b: BlockId| bodies.new.blocks[b.0].successors.clone();
            let matched = |b: BlockId| bodies.matching.old_of[b.0].is_some();
            let (mut alone, firsts) = region(vec![new], &next, &matched);
            add_insides(bodies.new, &mut alone, &firsts);
            Rc::new(Ahead { alone, firsts })
        };
        self.ahead.entry(new).or_insert_with(find).clone()
    }
}

/// Who goes through a loop that is one block of the graph goes through all that is inside of it.
fn add_insides(flow: &Flow, alone: &mut BTreeSet<BlockId>, others: &BTreeSet<BlockId>) {
    let is_passed = |head: &BlockId| alone.contains(head) || others.contains(head);
    let passed = flow.whole.iter().filter(|(head, _)| is_passed(head));
    let inside: Vec<BlockId> = passed.flat_map(|(_, whole)| whole.blocks.iter().copied()).collect();
    alone.extend(inside);
}

/// From some blocks on by unmatched ones: these, and the matched ones that they end at.
pub(super) fn region(
    mut queue: Vec<BlockId>,
    next: &dyn Fn(BlockId) -> Vec<BlockId>,
    matched: &dyn Fn(BlockId) -> bool,
) -> (BTreeSet<BlockId>, BTreeSet<BlockId>) {
    let (mut inside, mut ends) = (BTreeSet::new(), BTreeSet::new());
    while let Some(block) = queue.pop() {
        if matched(block) {
            ends.insert(block);
        } else if inside.insert(block) {
            queue.extend(next(block));
        }
    }
    (inside, ends)
}
