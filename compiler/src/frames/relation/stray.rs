//! What NEW still holds when it has come from one place to another on a way that is not known.
//!
//! OLD goes where NEW cannot follow, and comes to a place that is the only one of its kind: NEW is there, too,
//! however it came. Whatever way it took, what all of these ways leave in one place is there: in registers
//! that none of them writes, and in those that each of them saves and restores.
//!
//! Takes where NEW was last known to be and what it held there; gives what it still holds at such a place, nothing
//! where it cannot have come from there. What else the states say of NEW there is what it would hold had it gone as
//! OLD went. And says whether NEW finds memory there as OLD leaves it, though it may not know: where neither has
//! put a store off, as calls come last that may look at any memory.

use super::super::alone::Alone;
use super::super::copied;
use super::super::point::{Point, PointId};
use super::super::state::{Doubt, Machine, Seen, State};
use super::super::value::{Node, Place, Side, Value, Values};
use super::{Bodies, Search, steps};
use crate::machine::flow::{BlockId, End, Flow};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Ways that were looked at already: the search asks for the same ones again and again until it settles.
#[derive(Default)]
pub(super) struct Known(BTreeMap<BlockId, Vec<Lost>>);

/// Where NEW was, and its ways from there.
type Lost = (Seen, Option<Rc<Ways>>);

/// So many are kept for each block.
const KEPT: usize = 16;

impl Known {
    /// All ways from where NEW was to `goal`.
    fn ways(
        &mut self,
        bodies: &Bodies<'_>,
        values: &mut Values,
        seen: &Seen,
        goal: BlockId,
    ) -> Option<Rc<Ways>> {
        let known = self.0.entry(goal).or_default();
        if let Some((_, ways)) = known.iter().find(|(other, _)| other == seen) {
            return ways.clone();
        }
        let ways = Ways::new(bodies, values, seen, goal).map(Rc::new);
        if known.len() == KEPT {
            known.remove(0);
        }
        known.push((seen.clone(), ways.clone()));
        ways
    }
}

/// The ways by which NEW may come to a block.
pub(super) struct Ways {
    /// All blocks but the last.
    blocks: BTreeSet<BlockId>,
    /// What NEW holds before each of them, and before the last.
    held: Alone,
    /// The last.
    goal: BlockId,
}

impl Seen {
    /// NEW goes on from before one of these blocks to nobody knows where.
    pub(super) fn left(self, blocks: BTreeSet<BlockId>, machine: &Machine) -> Self {
        match self {
            Self::Here => Self::Before(Rc::new(BTreeMap::from([(blocks, machine.clone())]))),
            before => before,
        }
    }
}

impl Search<'_, '_> {
    /// Where NEW was last known to be, by all ways to a point.
    pub(super) fn seen(&mut self, id: PointId, arrivals: &[State]) -> Seen {
        if arrivals.iter().all(|state| state.seen == Seen::Here) {
            return Seen::Here;
        }
        let here = match self.points[id.0 as usize] {
            Point::Joint { new, .. } | Point::NewAlone { new, .. } => BTreeSet::from([new]),
            Point::OldAlone { new: exit, .. } => copied::ways(self.bodies.new, exit),
        };
        let mut all: BTreeMap<BTreeSet<BlockId>, Machine> = BTreeMap::new();
        for state in arrivals {
            let Seen::Before(before) = state.seen.clone().left(here.clone(), &state.new) else {
                return Seen::Nowhere;
            };
            for (blocks, machine) in before.iter() {
                let machine = alike(&mut self.values, Some(id), machine, all.get(blocks));
                all.insert(blocks.clone(), machine);
            }
        }
        Seen::Before(Rc::new(all))
    }
}

impl State {
    /// NEW is at the beginning of `goal`, however it came there. Gives its ways there, if it had been lost.
    pub(super) fn found(
        &mut self,
        bodies: &Bodies<'_>,
        values: &mut Values,
        known: &mut Known,
        goal: BlockId,
    ) -> Option<Rc<Ways>> {
        self.doubt = Doubt::None;
        let seen = std::mem::replace(&mut self.seen, Seen::Here);
        if seen == Seen::Here {
            return None;
        }
        let ways = known.ways(bodies, values, &seen, goal)?;
        // What has a name from the walk differs from way to way, or nothing else is known by it.
        let followed = |(place, value): &(Place, Value)| match place {
            Place::General(4) => false,
            Place::General(_) | Place::Slot(..) => !Alone::is_named(*value, values),
            _ => false,
        };
        let held = ways.held.at(goal).into_iter().flat_map(Machine::places);
        let known: Vec<(Place, Value)> = held.filter(followed).collect();
        for (place, value) in known {
            match place {
                Place::Slot(at, bytes) => self.new.set_slot(values, at, bytes, value),
                place => self.new.put(place, value),
            }
        }
        Some(ways)
    }
}

/// What a machine and another one hold alike, with names that are still what they were when a point has been
/// passed.
fn alike(
    values: &mut Values,
    passed: Option<PointId>,
    machine: &Machine,
    other: Option<&Machine>,
) -> Machine {
    let mut alike = machine.map(|place, value| {
        let differs = other.is_some_and(|other| other.at(place) != Some(value));
        let is_old = |id: PointId| values.depends_on(value, id);
        if differs || passed.is_some_and(is_old) { Alone::unknown(values, place) } else { value }
    });
    alike.lose_others();
    alike
}

/// Whether a call that OLD made without NEW, and that may look at any memory, has left memory like this: what OLD
/// had put off before is done.
fn is_left_by_call(bodies: &Bodies<'_>, values: &Values, memory: Value) -> bool {
    let old = bodies.old;
    let Node::Given(_, Some(Side::Old), step, Place::Memory) = *values.node(memory) else {
        return false;
    };
    let step = usize::try_from(step).ok();
    let block = step.and_then(|step| old.block_of.get(step)).copied();
    block.is_some_and(|block| {
        old.blocks[block.0].steps.end.checked_sub(1) == step && is_barrier(bodies, Side::Old, block)
    })
}

/// Whether a block ends with a call that may look at any memory.
fn is_barrier(bodies: &Bodies<'_>, side: Side, block: BlockId) -> bool {
    let (flow, _) = bodies.side(side);
    flow.blocks[block.0].end == End::Call && (bodies.looks_anywhere)(side, block)
}

impl Ways {
    /// All ways from where NEW was to `goal`, which it comes to for the first time; `None`: there may be none.
    fn new(bodies: &Bodies<'_>, values: &mut Values, seen: &Seen, goal: BlockId) -> Option<Self> {
        let Seen::Before(before) = seen else { return None };
        let blocks = between(bodies.new, before.keys().flatten().copied().collect(), goal)?;
        let mut starts: BTreeMap<BlockId, Machine> = BTreeMap::new();
        for (first, machine) in before.iter() {
            let mut leading = first.iter().filter(|b| **b == goal || blocks.contains(b)).peekable();
            leading.peek()?;
            for block in leading {
                let machine = match starts.get(block) {
                    Some(known) => alike(values, None, known, Some(machine)),
                    None => machine.clone(),
                };
                starts.insert(*block, machine);
            }
        }
        let inside = |block: BlockId| blocks.contains(&block);
        let held = bodies.alone(Side::New, |body| Alone::walk(body, values, &starts, &inside));
        Some(Self { blocks, held, goal })
    }

    /// Whether neither build has put off a store at their end, where OLD has this memory, if NEW had put off at their
    /// beginning what OLD had, and no more.
    pub(super) fn are_settled(
        &self,
        bodies: &Bodies<'_>,
        values: &mut Values,
        point: PointId,
        memory: Value,
    ) -> bool {
        is_left_by_call(bodies, values, memory) && self.settle(bodies, values, point)
    }

    /// Whether NEW has put nothing off at their end, whichever it took: of what it has stored, and had to store,
    /// such calls were the last.
    fn settle(&self, bodies: &Bodies<'_>, values: &mut Values, point: PointId) -> bool {
        // Whether each block stores something; `None`: a call comes last that looks at it.
        let mut stores: BTreeMap<BlockId, Option<bool>> = BTreeMap::new();
        for &block in &self.blocks {
            let Some(state) = self.held.at(block) else { continue };
            let end = steps(bodies, values, (point, Side::New), block, state.clone());
            let seen = is_barrier(bodies, Side::New, block);
            stores.insert(block, (!seen).then_some(end.memory() != state.memory()));
        }
        let open = |block: &BlockId| stores.get(block) == Some(&Some(true));
        let mut queue: Vec<BlockId> = self.blocks.iter().copied().filter(open).collect();
        let mut reached: BTreeSet<BlockId> = queue.iter().copied().collect();
        while let Some(block) = queue.pop() {
            for &next in &bodies.new.blocks[block.0].successors {
                if next == self.goal {
                    return false;
                }
                if stores.get(&next).is_some_and(Option::is_some) && reached.insert(next) {
                    queue.push(next);
                }
            }
        }
        true
    }
}

/// The blocks on all ways by which NEW comes from the beginnings of some blocks to `goal` for the first time;
/// `None`: it does not.
fn between(flow: &Flow, starts: Vec<BlockId>, goal: BlockId) -> Option<BTreeSet<BlockId>> {
    let (mut ahead, mut queue) = (BTreeSet::new(), starts);
    while let Some(block) = queue.pop() {
        if ahead.insert(block) && block != goal {
            queue.extend(&flow.blocks[block.0].successors);
        }
    }
    if !ahead.contains(&goal) {
        return None;
    }
    let (mut found, mut queue) = (BTreeSet::new(), vec![goal]);
    while let Some(block) = queue.pop() {
        for before in &flow.blocks[block.0].predecessors {
            if *before != goal && ahead.contains(before) && found.insert(*before) {
                queue.push(*before);
            }
        }
    }
    Some(found)
}
