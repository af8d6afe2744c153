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

mod common;
pub mod evidence;
mod lines;
pub mod quality;
mod tokens;
mod view;
mod votes;

use crate::change::Pair;
use crate::image::FunctionId;
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
    fn add(&mut self, old: BlockId, new: BlockId) -> bool {
        let free = self.new_of[old.0].is_none() && self.old_of[new.0].is_none();
        if free {
            self.new_of[old.0] = Some(new);
            self.old_of[new.0] = Some(old);
        }
        free
    }
}

/// Matches the blocks of a function; and what the line tables say of its instructions, for those
/// who must not depend on the matching.
#[must_use]
pub fn match_blocks(
    pair: Pair<'_>,
    old: (FunctionId, &Flow),
    new: (FunctionId, &Flow),
) -> (BlockMatching, Evidence) {
    let mut matching = BlockMatching::empty(old.1.blocks.len(), new.1.blocks.len());
    let (x, y) = (Side { pair, old: true }, Side { pair, old: false });
    let (s, t) = (x.tokens(&old.1.body), y.tokens(&new.1.body));
    let p = lines::spots(pair.old, old.0, &old.1.body);
    let q = lines::spots(pair.new, new.0, &new.1.body);
    let map = LineMap::new(pair, (&s, &p), (&t, &q));
    let evidence = Evidence::new((old.1, &p), (new.1, &q), &map);
    if old.1.blocks.is_empty() || new.1.blocks.is_empty() {
        return (matching, evidence);
    }
    let a = View::new(x, old.1, &s, &p.places(Some(&map)));
    let b = View::new(y, new.1, &t, &q.places(None));
    matching.add(BlockId(0), BlockId(0));
    equal(&a, &b, &mut matching);
    votes::settle(&a, &b, &mut matching);
    (matching, evidence)
}

/// Pairs blocks that say the same at the same source positions, in the order of the code.
fn equal(a: &View<'_>, b: &View<'_>, matching: &mut BlockMatching) {
    let keys = |view: &View<'_>| view.facts.iter().map(|f| f.strong).collect::<Vec<_>>();
    for (i, j) in common::common(&keys(a), &keys(b)) {
        matching.add(BlockId(i), BlockId(j));
    }
}
