//! Everything that the checker knows of one function.

use super::calls::Calls;
use super::code::Code;
use super::demand::{Demand, Demands};
use super::effects::Effects;
use super::reach::{Function, Reach, Reached};
use super::rows::Row;
use super::values::{State, Values};
use crate::debug::Parameters;
use crate::image::FunctionId;

/// The analyses of one function.
#[derive(Debug)]
pub(super) struct Analysis {
    pub(super) id: FunctionId,
    pub(super) code: Code,
    pub(super) values: Values,
    pub(super) effects: Effects,
    pub(super) demands: Demands,
    pub(super) reach: Reach,
    pub(super) own: Option<Parameters>,
    /// All of its exception tables could be read.
    pub(super) pads_known: bool,
}

/// What is known at one instruction.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) index: usize,
    pub(super) state: State,
    pub(super) demand: Demand,
    pub(super) reached: Reached,
    pub(super) row: Option<Row>,
}

impl Analysis {
    pub(super) fn new(calls: &Calls<'_>, id: FunctionId) -> Self {
        let mut code = Code::new(calls.image, id);
        let values = Values::new(calls, &mut code);
        let effects = Effects::new(calls, &code, &values);
        let own = calls.own_prototype(id);
        let function = Function { calls, code: &code, values: &values, effects: &effects, own };
        let demands = Demands::new(function);
        let alive = |block: usize, register: usize| {
            let start = &demands.starts[block];
            (start.hard.general[register] | start.soft.general[register]) != 0
        };
        let reach = Reach::new(function, alive);
        let pads_known =
            code.parts.iter().all(|(part, _)| calls.rows.landing_pads(part.start).is_some());
        Self { id, code, values, effects, demands, reach, own, pads_known }
    }

    /// The parts that the analyses look at.
    pub(super) fn view<'a>(&'a self, calls: &'a Calls<'a>) -> Function<'a> {
        Function {
            calls,
            code: &self.code,
            values: &self.values,
            effects: &self.effects,
            own: self.own,
        }
    }

    /// What is known at the instruction that begins at an address, if one does and some path leads
    /// there.
    pub(super) fn point(&self, calls: &Calls<'_>, address: u64) -> Option<Point> {
        let index = self.code.index(address)?;
        Some(Point {
            index,
            state: self.values.at(&self.code, index)?,
            demand: self.demands.at(self.view(calls), index)?,
            reached: self.reach.at(self.view(calls), index)?,
            row: calls.rows.row(address),
        })
    }
}
