//! What the relation says of points, once it is found.

use super::super::point::{Point, PointId};
use super::super::state::{Doubt, Machine, State};
use super::super::value::{Node, Place, Side, Value, Values};
use super::{Arrivals, Before, Bodies, Relation, settle, steps, stray};
use crate::machine::flow::{BlockId, End, Flow};

impl Relation {
    /// Whether the branch that ends a block of NEW asks what OLD asks, wherever both come there.
    pub fn is_test_shared(&self, new: BlockId) -> bool {
        self.tests.get(&new) == Some(&true)
    }

    /// OLD's blocks that are somewhere followed together with another block than their partner.
    pub(super) fn joined(&self, bodies: &Bodies<'_>) -> impl Iterator<Item = BlockId> {
        self.reached().filter_map(|point| match point {
            Point::Joint { old, new } if bodies.matching.new_of[old.0] != Some(new) => Some(old),
            _ => None,
        })
    }

    /// Points to which something leads.
    fn reached(&self) -> impl Iterator<Item = Point> {
        let all = self.points.iter().zip(&self.arrivals);
        all.filter(|(_, arrivals)| !arrivals.is_empty()).map(|(point, _)| *point)
    }

    /// The block at which NEW is whenever OLD is at a block; `None` when it may be at several, or somewhere in
    /// between.
    pub fn only(&self, block: BlockId) -> Option<BlockId> {
        let mut places = self.reached().filter_map(|point| match point {
            Point::Joint { old, new } if old == block => Some(Some(new)),
            Point::OldAlone { old, .. } if old == block => Some(None),
            _ => None,
        });
        let first = places.next()?;
        first.filter(|_| places.next().is_none())
    }

    /// The states at the beginning of two matched blocks; `None` when OLD never gets there. What is
    /// said of a place of NEW without OLD is true on all of NEW's paths.
    pub fn at(&mut self, old: BlockId, new: BlockId) -> Option<State> {
        let id = *self.index.get(&Point::Joint { old, new })?;
        self.state(id, new)
    }

    /// The states at a point at which NEW is at the beginning of a block.
    pub(super) fn state(&mut self, id: PointId, new: BlockId) -> Option<State> {
        let mut state = self.states.get(id.0 as usize)?.clone()?;
        let State { old, new: machine, .. } = &state;
        let checked = machine.map(|place, value| self.on_all_ways((id, new), old, place, value));
        state.new = checked;
        self.complete(new, &mut state.new);
        Some(state)
    }

    /// What a place of NEW is said to hold; of numbers and addresses, if they are a part of it only, just those
    /// that NEW has there on all of its paths, or shares with OLD as part of something else.
    fn on_all_ways(
        &mut self,
        (id, block): (PointId, BlockId),
        old: &Machine,
        place: Place,
        value: Value,
    ) -> Value {
        let values = &mut self.values;
        let unknown = Node::Given(id, Some(Side::New), u32::MAX, place);
        match *values.node(value) {
            _ if matches!(place, Place::Memory | Place::General(4)) => value,
            _ if values.depends(value).is_empty() => match self.alone.holds(block, place, value) {
                true => value,
                false => values.intern(unknown),
            },
            Node::Insert(bytes, _, low) if values.depends(low).is_empty() => {
                let held = self.alone.at(block).and_then(|state| state.at(place));
                let is_old = || old.places().any(|(_, held)| held == value);
                if held.is_some_and(|held| values.low(bytes, held) == low) || is_old() {
                    return value;
                }
                let unknown = values.intern(unknown);
                values.insert(bytes, value, unknown)
            }
            _ => value,
        }
    }

    /// Adds what is true of NEW on all of its paths, where the relation has nothing that OLD has, too: its
    /// caller's registers and where they are saved, addresses, numbers.
    fn complete(&self, block: BlockId, machine: &mut Machine) {
        for (place, fact) in self.alone.facts(block, &self.values) {
            let is_known = machine.at(place).is_some_and(|value| {
                let node = self.values.node(value);
                !matches!(node, Node::Phi(_, Side::New, _) | Node::Given(_, Some(Side::New), ..))
            });
            match place {
                _ if is_known => {}
                Place::General(number) if number != 4 => machine.set_general(number, fact),
                Place::Lane(number, lane) => machine.set_lane(number, lane, fact),
                Place::Slot(at, bytes) => machine.add_slot(at, bytes, fact),
                _ => {}
            }
        }
    }

    /// The states just before the calls that end two matched blocks, where they call the same.
    pub fn before_call(
        &mut self,
        bodies: &Bodies<'_>,
        old: BlockId,
        new: BlockId,
    ) -> Option<Before> {
        let id = *self.index.get(&Point::Joint { old, new })?;
        let call = |flow: &Flow, block: BlockId| flow.blocks[block.0].end == End::Call;
        if !call(bodies.old, old) || !call(bodies.new, new) || !(bodies.same_callee)(old, new) {
            return None;
        }
        let mut start = self.at(old, new)?;
        let mut arrivals = self.arrivals(old, new);
        if bodies.evidence.is_same_place(old, new) {
            let mut known = stray::Known::default();
            for state in arrivals.iter_mut().chain([&mut start]) {
                state.found(bodies, &mut self.values, &mut known, new);
            }
        }
        let mut run = |state: State| {
            let a = steps(bodies, &mut self.values, (id, Side::Old), old, state.old);
            let mut z = steps(bodies, &mut self.values, (id, Side::New), new, state.new);
            if state.doubt == Doubt::None {
                settle(&mut self.values, &state.zero, &a, &mut z);
            }
            State { old: a, new: z, ..state }
        };
        let arrivals = arrivals.into_iter().map(&mut run).collect();
        let state = run(start);
        // What nothing can be kept back from finds the same memory as it leaves.
        let settled = state.old.memory() == state.new.memory() || (bodies.barrier)(old);
        Some(Before { state, arrivals, settled })
    }

    /// All values, and what both sides held at the end of each edge into any point.
    pub fn parts(&mut self) -> (&mut Values, Arrivals<'_>) {
        let Self { values, points, index, arrivals, states, .. } = self;
        (values, Arrivals { points, index, arrivals, states })
    }

    /// What both sides held at the end of each edge into two matched blocks.
    pub fn arrivals(&self, old: BlockId, new: BlockId) -> Vec<State> {
        let id = self.index.get(&Point::Joint { old, new });
        let all = id.and_then(|id| self.arrivals.get(id.0 as usize));
        all.map(|all| all.values().cloned().collect()).unwrap_or_default()
    }
}

impl<'a> Arrivals<'a> {
    /// Which point it is.
    pub fn point(&self, id: PointId) -> Option<Point> {
        self.points.get(id.0 as usize).copied()
    }

    /// What both sides hold at the beginnings of two matched blocks, as far as that is known of both together.
    pub fn at(&self, old: BlockId, new: BlockId) -> Option<&'a State> {
        let id = self.index.get(&Point::Joint { old, new })?;
        self.states.get(id.0 as usize)?.as_ref()
    }

    /// By each edge into a point: the point that it leaves, `None` for the entry, and the states.
    pub fn edges(&self, id: PointId) -> impl Iterator<Item = (Option<Point>, &'a State)> {
        let all = self.arrivals.get(id.0 as usize).into_iter().flatten();
        let points = self.points;
        all.map(|(key, state)| (points.get(key.0.0 as usize).copied(), state))
    }
}
