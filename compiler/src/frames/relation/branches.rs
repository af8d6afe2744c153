//! Branches: whether both builds ask the same, which way they go, and what has been found out behind.

use super::super::state::{Machine, State};
use super::super::value::{Side, Value};
use super::super::{entries, exec};
use super::{Search, taken};
use crate::machine::flow::{BlockId, End, Flow};
use std::collections::BTreeSet;

impl Search<'_, '_> {
    /// What holds behind an edge that one side has taken.
    pub(super) fn behind(
        &mut self,
        (side, block, edge): (Side, BlockId, usize),
        state: State,
    ) -> State {
        let (flow, _) = self.bodies.side(side);
        let flags = state.side(side).flags();
        taken::behind(&mut self.values, flow, block, edge, flags, state)
    }

    /// Whether two branches are taken alike (`true`) or the opposite way; `None`: not known.
    pub(super) fn same_condition(
        &mut self,
        old: BlockId,
        new: BlockId,
        state: &State,
    ) -> Option<bool> {
        let code = |flow: &Flow, block: BlockId| {
            let last = flow.blocks[block.0].steps.end.checked_sub(1)?;
            Some(flow.body.steps.get(last)?.instruction.condition_code())
        };
        let (first, second) = (code(self.bodies.old, old)?, code(self.bodies.new, new)?);
        if first == iced_x86::ConditionCode::None || second == iced_x86::ConditionCode::None {
            return None;
        }
        let (x, negated) = exec::condition(&mut self.values, first, state.old.flags());
        let (y, other) = exec::condition(&mut self.values, second, state.new.flags());
        if x != y && self.bodies.further {
            let Self { bounds, values, points, arrivals, .. } = self;
            bounds.guess(values, (x, y), |id| {
                let id = id.0 as usize;
                Some((*points.get(id)?, arrivals.get(id)?.values().cloned().collect()))
            });
        }
        (x == y).then_some(negated == other)
    }

    /// Whether two branches ask whether the same number is zero, however they come by it.
    pub(super) fn asks_the_same(&mut self, old: BlockId, new: BlockId, state: &State) -> bool {
        use iced_x86::ConditionCode::{e, ne};
        let is_equality = |flow: &Flow, block: BlockId| {
            let last = flow.blocks[block.0].steps.end - 1;
            matches!(flow.body.steps[last].instruction.condition_code(), e | ne)
        };
        if !is_equality(self.bodies.old, old) || !is_equality(self.bodies.new, new) {
            return false;
        }
        let mut asked = |machine: &Machine| exec::asked(&mut self.values, machine.flags());
        let (Some(a), Some(b)) = (asked(&state.old), asked(&state.new)) else { return false };
        let nothing = self.values.constant(0);
        a == b || self.values.subtract(nothing, a) == b
    }

    /// The edge that a branch takes, where what it tests is a number.
    pub(super) fn decided(
        &self,
        flow: &Flow,
        block: BlockId,
        machine: &Machine,
        zero: &BTreeSet<Value>,
    ) -> Option<usize> {
        let b = &flow.blocks[block.0];
        if b.end != End::Branch {
            return None;
        }
        let code = flow.body.steps[b.steps.end - 1].instruction.condition_code();
        let met = exec::decided(&self.values, code, machine.flags(), zero)?;
        Some(usize::from(!met))
    }

    /// The state behind an edge of a branch of OLD, with what the branch has found out.
    pub(super) fn tested(&mut self, old: BlockId, edge: usize, state: &State) -> State {
        let mut state = state.clone();
        let b = &self.bodies.old.blocks[old.0];
        if b.end != End::Branch || b.successors.first() == b.successors.get(1) {
            return state;
        }
        let code = self.bodies.old.body.steps[b.steps.end - 1].instruction.condition_code();
        if let Some((value, met)) = exec::apart(&mut self.values, code, state.old.flags())
            && edge == usize::from(!met)
            && !self.values.depends(value).is_empty()
        {
            state.apart.insert(value);
        }
        if !self.bodies.copied {
            return state;
        }
        if let Some((value, met)) = exec::zero(&self.values, code, state.old.flags())
            && edge == usize::from(!met)
        {
            state.zero.insert(value);
        }
        state
    }

    /// Whether two jumps through tables take entries of the same number (`true`); `None`: not known.
    pub(super) fn same_entry(&mut self, old: BlockId, new: BlockId, state: &State) -> Option<bool> {
        let bodies = self.bodies;
        let values = &mut self.values;
        let x = entries::taken(values, bodies.old, old, &bodies.old_context, &state.old)?;
        let y = entries::taken(values, bodies.new, new, &bodies.new_context, &state.new)?;
        (x == y).then_some(true)
    }
}
