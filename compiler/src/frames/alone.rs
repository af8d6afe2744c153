//! What NEW's places hold whatever way NEW went: its body walked for itself.
//!
//! The relation's paths of NEW are those that OLD's paths call for. A number, an address or an
//! argument that a place holds on these alone is no fact about NEW: where a loop is unrolled in OLD,
//! NEW seems to run it once. So what is said of NEW without OLD must be true on all of its paths.

use super::computed;
use super::exec::{Call, Context, Executor};
use super::join::{Classes, Counting, cut, join};
use super::point::PointId;
use super::state::Machine;
use super::value::{Node, Place, Side, Value, Values};
use crate::machine::flow::{BlockId, End, Flow};
use crate::machine::live::Live;
use std::collections::{BTreeMap, BTreeSet};

/// Points of this walk, apart from those of the relation.
const FIRST: u32 = 1 << 31;
/// Visits of a block on average before nothing is said at all.
const VISITS: usize = 40;

/// One body and what belongs to it.
pub struct Body<'a> {
    /// Its graph.
    pub flow: &'a Flow,
    /// What its addresses mean.
    pub context: &'a Context<'a>,
    /// Whether the callee at the end of a block is known to keep a register.
    pub kept: &'a dyn Fn(BlockId, Place) -> bool,
    /// CFA minus stack pointer at the beginning of a block.
    pub depth: &'a dyn Fn(BlockId) -> Option<u64>,
    /// What code may read again, at the beginning of a block.
    pub live: &'a dyn Fn(BlockId) -> &'a Live,
}

/// The states at the beginnings of blocks.
#[derive(Default)]
pub struct Alone(Vec<Option<Machine>>);

impl Alone {
    /// Walks from the entry to the fixpoint.
    pub fn new(body: &Body<'_>, values: &mut Values, entry: Machine) -> Self {
        Self::walk(body, values, &BTreeMap::from([(BlockId(0), entry)]), &|_| true)
    }

    /// Walks from the beginnings of some blocks to the fixpoint; on behind those blocks alone that are `inside`.
    pub fn walk(
        body: &Body<'_>,
        values: &mut Values,
        starts: &BTreeMap<BlockId, Machine>,
        inside: &dyn Fn(BlockId) -> bool,
    ) -> Self {
        let count = body.flow.blocks.len();
        let mut states: Vec<Option<Machine>> = vec![None; count];
        let mut arrivals: Vec<BTreeMap<usize, Machine>> = vec![BTreeMap::new(); count];
        let mut queue = BTreeSet::new();
        for (start, state) in starts.iter().filter(|(start, _)| start.0 < count) {
            arrivals[start.0].insert(usize::MAX, state.clone());
            queue.insert(start.0);
        }
        for _ in 0..VISITS * count + 1000 {
            let Some(block) = queue.pop_first() else { return Self(states) };
            let id = point(block);
            let mut machines: Vec<Machine> = arrivals[block].values().cloned().collect();
            let live = (body.live)(BlockId(block));
            cut(values, machines.iter_mut(), &live.slots);
            let machines: Vec<&Machine> = machines.iter().collect();
            let mut classes = Classes::default();
            let Some(mut state) =
                join(values, &machines, (id, Side::New), &mut classes, Counting::of(live))
            else {
                continue;
            };
            if let Some(depth) = (body.depth)(BlockId(block)) {
                state.set_depth(values, depth);
            }
            if states[block].as_ref() == Some(&state) {
                continue;
            }
            states[block] = Some(state.clone());
            if !inside(BlockId(block)) {
                continue;
            }
            let after = steps(body, values, id, block, state);
            for to in &body.flow.blocks[block].successors {
                let known = &mut arrivals[to.0];
                if known.get(&block) != Some(&after) {
                    known.insert(block, after.clone());
                    queue.insert(to.0);
                }
            }
        }
        Self::default()
    }

    /// What is known of NEW before a block without OLD: places whose values do not depend on the way.
    pub fn facts(&self, block: BlockId, values: &Values) -> Vec<(Place, Value)> {
        let places = self.at(block).into_iter().flat_map(Machine::places);
        places.filter(|(_, value)| values.depends(*value).is_empty()).collect()
    }

    /// The state before a block; `None`: the walk does not come there.
    pub fn at(&self, block: BlockId) -> Option<&Machine> {
        self.0.get(block.0).and_then(Option::as_ref)
    }

    /// A name of which nothing is known, as if it were from a walk.
    pub fn unknown(values: &mut Values, place: Place) -> Value {
        values.intern(Node::Given(PointId::NOWHERE, Some(Side::New), u32::MAX, place))
    }

    /// Whether a value has its name from a walk.
    pub fn is_named(value: Value, values: &Values) -> bool {
        values.depends(value).iter().any(|point| Self::is_of_walk(*point))
    }

    /// Whether a point is one of a walk.
    pub fn is_of_walk(point: PointId) -> bool {
        point.0 >= FIRST
    }

    /// Whether a place holds a value on every path.
    pub fn holds(&self, block: BlockId, place: Place, value: Value) -> bool {
        self.at(block).is_some_and(|state| state.at(place) == Some(value))
    }
}

pub(super) fn point(block: usize) -> PointId {
    PointId(FIRST.saturating_add(u32::try_from(block).unwrap_or(u32::MAX)))
}

/// What a block makes of the state before it, with the call at its end.
pub(super) fn steps(
    body: &Body<'_>,
    values: &mut Values,
    id: PointId,
    block: usize,
    state: Machine,
) -> Machine {
    let b = &body.flow.blocks[block];
    let state = body.execute(values, id, BlockId(block), state);
    if b.end != End::Call {
        return state;
    }
    let mut executor = Executor::new(body.context, values, state, id);
    executor.call(b.steps.end - 1, Call::Alone, &|place| (body.kept)(BlockId(block), place));
    executor.finish()
}

impl Body<'_> {
    /// What a block makes of the state before it, but for the call at its end.
    pub(super) fn execute(
        &self,
        values: &mut Values,
        id: PointId,
        block: BlockId,
        state: Machine,
    ) -> Machine {
        if let Some(whole) = self.flow.whole.get(&block) {
            let ends = &self.flow.blocks[block.0].successors;
            return match computed::run(self, values, id, (block, whole), state) {
                Some((state, exit)) if ends[..] == [exit] => state,
                // It ends there all the same.
                _ => self.unrelated(values, id, block),
            };
        }
        let mut executor = Executor::new(self.context, values, state, id);
        for index in self.flow.blocks[block.0].steps.clone() {
            executor.step(index, &self.flow.body.steps[index]);
        }
        executor.finish()
    }

    /// A state of which nothing is known but where the frame is at the beginning of a block.
    pub(super) fn unrelated(&self, values: &mut Values, id: PointId, block: BlockId) -> Machine {
        let unknown = |place| Node::Given(id, Some(self.context.side), u32::MAX, place);
        let mut machine = Machine::at_entry(values, |v, place| v.intern(unknown(place)));
        let top = values.intern(unknown(Place::General(4)));
        machine.set_general(4, top);
        machine.lose_others();
        if let Some(depth) = (self.depth)(block) {
            machine.set_depth(values, depth);
        }
        machine
    }
}
