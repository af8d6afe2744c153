//! Which basic block of OLD is which of NEW.
//!
//! Takes the graphs of a function's two bodies; gives a partial one-to-one relation of their blocks
//! ([`BlockMatching`]). A pair means: whoever is about to execute the one, is where NEW is about to
//! execute the other; so it is the beginnings of blocks that correspond. The entries always do.
//!
//! ```text
//! tokens (what each instruction says)  ->  lines (OLD's source lines in NEW)
//!   -> view (what each block says, how edges are taken)
//!   -> common (equal blocks in the same order)  ->  votes (the others, by what they say and by
//!                                                    what the blocks around them became)
//! ```
//!
//! Nothing depends on a pair being right: a wrong one proves nothing later, and spoils what could
//! have been proved around it. Who finds one out takes it back with [`BlockMatching::unmatch`].

mod align;
mod common;
pub mod evidence;
mod lines;
pub mod quality;
mod tokens;
mod view;
mod votes;

use crate::change::Pair;
use crate::debug::Locals;
use crate::machine::flow::{BlockId, Flow};
use evidence::Evidence;
use lines::LineMap;
use tokens::Side;
use view::View;

/// Which block is which.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockMatching {
    /// The NEW counterpart of each OLD block.
    pub new_of: Vec<Option<BlockId>>,
    /// The OLD counterpart of each NEW block.
    pub old_of: Vec<Option<BlockId>>,
}

impl BlockMatching {
    /// Nothing matched yet.
    #[must_use]
    pub fn empty(old: usize, new: usize) -> Self {
        Self { new_of: vec![None; old], old_of: vec![None; new] }
    }

    /// Every pair, ascending by OLD block.
    pub fn pairs(&self) -> impl Iterator<Item = (BlockId, BlockId)> + '_ {
        self.new_of.iter().enumerate().filter_map(|(a, b)| Some((BlockId(a), (*b)?)))
    }

    /// Takes the pair of an OLD block back; gives what it was matched with.
    pub fn unmatch(&mut self, old: BlockId) -> Option<BlockId> {
        let new = self.new_of.get_mut(old.0)?.take()?;
        if let Some(back) = self.old_of.get_mut(new.0) {
            *back = None;
        }
        Some(new)
    }

    /// Adds a pair, unless one of both has a counterpart.
    pub fn add(&mut self, old: BlockId, new: BlockId) -> bool {
        let free = self.new_of[old.0].is_none() && self.old_of[new.0].is_none();
        if free {
            self.new_of[old.0] = Some(new);
            self.old_of[new.0] = Some(old);
        }
        free
    }
}

/// Matches the blocks of a function; and what the line tables say of its instructions, for those
/// who must not depend on the matching. `start` is where in NEW's body OLD's begins.
#[must_use]
pub fn match_blocks(
    pair: Pair<'_>,
    old: (&Flow, &Locals),
    new: (&Flow, &Locals),
    start: BlockId,
) -> (BlockMatching, Evidence) {
    let mut matching = BlockMatching::empty(old.0.blocks.len(), new.0.blocks.len());
    let (x, y) = (Side { pair, old: true }, Side { pair, old: false });
    let (s, t) = (x.tokens(&old.0.body), y.tokens(&new.0.body));
    let p = lines::spots(pair.old, old.1, &old.0.body);
    let q = lines::spots(pair.new, new.1, &new.0.body);
    let map = LineMap::new(pair, (&s, &p), (&t, &q));
    let evidence = Evidence::new((old.0, &p), (new.0, &q), &map);
    if old.0.blocks.is_empty() || new.0.blocks.is_empty() {
        return (matching, evidence);
    }
    let a = View::new(x, old.0, &s, &p.places(Some(&map)));
    let b = View::new(y, new.0, &t, &q.places(None));
    matching.add(BlockId(0), start);
    equal(&a, &b, &mut matching);
    votes::settle(&a, &b, &evidence, &mut matching);
    (matching, evidence)
}

/// Pairs blocks that say the same at the same source positions, in the order of the code.
fn equal(a: &View<'_>, b: &View<'_>, matching: &mut BlockMatching) {
    let keys = |view: &View<'_>| view.facts.iter().map(|f| f.strong).collect::<Vec<_>>();
    for (i, j) in common::common(&keys(a), &keys(b)) {
        matching.add(BlockId(i), BlockId(j));
    }
}
