//! What the relation is asked of: two bodies, and all that is known of them.

use super::super::alone::Body;
use super::super::computed;
use super::super::exec::Context;
use super::super::value::{Place, Side, Values};
use crate::machine::flow::{BlockId, Flow};
use crate::machine::live::Live;
use crate::sites::matching::BlockMatching;
use crate::sites::matching::evidence::Evidence;

/// Both bodies.
pub struct Bodies<'a> {
    /// OLD's graph.
    pub old: &'a Flow,
    /// NEW's graph.
    pub new: &'a Flow,
    /// Which blocks belong together.
    pub matching: &'a BlockMatching,
    /// What OLD's addresses mean.
    pub old_context: Context<'a>,
    /// What NEW's addresses mean.
    pub new_context: Context<'a>,
    /// Whether the calls that end two blocks call the same.
    pub same_callee: &'a dyn Fn(BlockId, BlockId) -> bool,
    /// Whether NEW's call at the end of this block is code that OLD has nothing like.
    pub inserted: &'a dyn Fn(BlockId) -> bool,
    /// Whether OLD's call at the end of this block is code that NEW has nothing like.
    pub removed: &'a dyn Fn(BlockId) -> bool,
    /// Whether the callee at the end of an OLD block may look at any memory.
    pub barrier: &'a dyn Fn(BlockId) -> bool,
    /// Whether the callee at the end of a block of one side may.
    pub looks_anywhere: &'a dyn Fn(Side, BlockId) -> bool,
    /// What the line tables say of both bodies.
    pub evidence: &'a Evidence,
    /// Blocks are followed together with copies of their partners, too: see [`super::super::copied`].
    pub copied: bool,
    /// More is done to know what loops count with.
    pub further: bool,
    /// Whether the callee at the end of a block is known to keep a caller-saved register.
    pub kept: &'a dyn Fn(Side, BlockId, Place) -> bool,
    /// What a place holds at NEW's entry, in terms of OLD's entry values; `None`: something else.
    pub entry: &'a dyn Fn(Place) -> Option<Place>,
    /// CFA minus stack pointer at the beginning of a block, when that is one number.
    pub depth: &'a dyn Fn(Side, BlockId) -> Option<u64>,
    /// What code may read again, at the beginning of a block.
    pub live: &'a dyn Fn(Side, BlockId) -> &'a Live,
}

impl<'a> Bodies<'a> {
    /// Gives the body of one side by itself to `then`.
    pub(super) fn alone<R>(&self, side: Side, then: impl FnOnce(&Body<'_>) -> R) -> R {
        let (flow, context) = self.side(side);
        then(&Body {
            flow,
            context,
            kept: &|block, place| (self.kept)(side, block, place),
            depth: &|block| (self.depth)(side, block),
            live: &|block| (self.live)(side, block),
        })
    }

    /// The graph of a body of one side with each loop that makes numbers of numbers alone as one block; `None`: it has none.
    pub fn collapsed(&self, side: Side) -> Option<Flow> {
        self.alone(side, |body| computed::collapse(body, &mut Values::default()))
    }

    pub(super) fn side(&self, side: Side) -> (&'a Flow, &Context<'a>) {
        match side {
            Side::Old => (self.old, &self.old_context),
            Side::New => (self.new, &self.new_context),
        }
    }
}
