//! Where NEW is when both come back from a call: right behind its own.
//!
//! Block matchings say where a block of OLD goes on in NEW, and statements that only one build has, right behind
//! a call, come before that. The frame that waits in the call may go on there all the same: whatever only NEW
//! has is done then, and what only OLD has is not.
//!
//! Takes the relation and the block to which OLD's call returns. Refuses where OLD comes to that block in
//! other ways, too, and where NEW, which waits for OLD there, is not said to be anywhere later on.

use super::super::point::{Point, PointId};
use super::super::state::{Doubt, State};
use super::{Relation, UNFOLLOWED};
use crate::machine::flow::{BlockId, Flow};
use std::collections::BTreeSet;

/// Where both are when they come back from a call.
pub struct Returned {
    /// NEW's block.
    pub new: BlockId,
    /// Both states.
    pub state: State,
    /// By each way there.
    pub arrivals: Vec<State>,
}

impl Relation {
    /// OLD comes back from a call to a block, and NEW from the same call to wherever the code behind it is,
    /// which need not be the partner of OLD's: statements that only one build has may be first there. The
    /// block of NEW, and both states there; `None` when OLD comes to its block in other ways, too. `same`
    /// says whether a block of NEW ends with the call.
    pub fn returned(
        &mut self,
        new_flow: &Flow,
        block: BlockId,
        same: &dyn Fn(BlockId) -> bool,
    ) -> Option<Returned> {
        let is_here = |point: &Point| match point {
            Point::Joint { old, .. }
            | Point::OldAlone { old, .. }
            | Point::NewAlone { old, .. } => *old == block,
        };
        let reached = |index: &usize| !self.arrivals[*index].is_empty();
        let here: Vec<usize> =
            (0..self.points.len()).filter(reached).filter(|i| is_here(&self.points[*i])).collect();
        // Where NEW is when OLD comes here, not while it catches up.
        let outside = |index: &usize| {
            let mut from = self.arrivals[*index].keys().map(|key| key.0.0 as usize);
            from.any(|from| !here.contains(&from))
        };
        let mut first = here.iter().copied().filter(outside);
        let (Some(index), None) = (first.next(), first.next()) else { return None };
        let behind = |call: BlockId| new_flow.return_point(call).filter(|_| same(call));
        let new = match self.points[index] {
            Point::OldAlone { new: exit, .. } => {
                let only = new_flow.blocks[exit.block.0].successors.len() == 1;
                if !self.meets_again(index) {
                    return None;
                }
                behind(exit.block).filter(|_| only || exit.edge == Some(0))?
            }
            Point::NewAlone { new, .. } => {
                let mut all = (0..new_flow.blocks.len()).map(BlockId);
                all.any(|b| behind(b) == Some(new)).then_some(new)?
            }
            Point::Joint { .. } => return None,
        };
        let id = PointId(u32::try_from(index).ok()?);
        let arrivals = self.arrivals[index].values().cloned().collect();
        Some(Returned { new, state: self.state(id, new)?, arrivals })
    }

    /// Whether OLD, which goes on alone from a point, comes to where NEW is, or goes, on all of its ways.
    fn meets_again(&self, from: usize) -> bool {
        let (mut seen, mut queue) = (BTreeSet::new(), vec![from]);
        while let Some(index) = queue.pop() {
            if !seen.insert(index) {
                continue;
            }
            let mut goes_on = false;
            for (next, arrivals) in self.arrivals.iter().enumerate() {
                let ways = arrivals.iter().filter(|(key, _)| key.0.0 as usize == index);
                for (key, state) in ways {
                    if key.2 == UNFOLLOWED || state.doubt != Doubt::None {
                        return false;
                    }
                    goes_on = true;
                    if matches!(self.points[next], Point::OldAlone { .. }) {
                        queue.push(next);
                    }
                }
            }
            if !goes_on {
                return false;
            }
        }
        true
    }
}
