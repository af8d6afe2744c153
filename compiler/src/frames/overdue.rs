//! Assignments that one build has made when both come to a point, and the other has not.
//!
//! Compilers compute a variable's next value early or late, across calls that do not matter to it. A debugger is told
//! where the variable is all the while, but not that in one build it still is what it was before the
//! statement, and in the other what it is behind. So what is known of a variable by its name alone is held
//! against the points that both have come through before: since each of them both builds have given it another
//! value, or neither has.
//!
//! Takes the points that lead to one; gives what both held there. Points before the last round of a loop
//! around began do not count: that the variable has changed since says nothing there.

use super::beginning::Rounds;
use super::relation::Arrivals;
use super::state::State;
use crate::machine::flow::{BlockId, Flow};
use crate::sites::matching::BlockMatching;

/// So many points are looked at.
const MOST: usize = 12;

/// A point that both came through.
#[derive(Clone, Copy)]
pub struct Earlier<'a> {
    /// OLD's address.
    pub at: u64,
    /// NEW's address.
    pub to: u64,
    /// What both held.
    pub state: &'a State,
}

/// The points through which both come on every way to the beginnings of these blocks, since the last round of a loop
/// around began; the nearest first. With `inside` the way ends somewhere in the blocks.
pub fn earlier<'a>(
    arrivals: Arrivals<'a>,
    matching: &BlockMatching,
    (old, new): (&Flow, &Flow),
    rounds: (&Rounds, &Rounds),
    (a, b, inside): (BlockId, BlockId, bool),
) -> Vec<Earlier<'a>> {
    let (ours, theirs) = (rounds.0.since(a, inside), rounds.1.since(b, inside));
    let address = |flow: &Flow, block: BlockId| {
        let step = flow.blocks.get(block.0)?.steps.start;
        Some(flow.body.steps.get(step)?.address())
    };
    let both = |block: BlockId| {
        let partner = matching.new_of[block.0].filter(|partner| theirs.contains(partner))?;
        let state = arrivals.at(block, partner)?;
        Some(Earlier { at: address(old, block)?, to: address(new, partner)?, state })
    };
    ours.into_iter().filter_map(both).take(MOST).collect()
}
