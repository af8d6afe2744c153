//! The simulation relation: which places of OLD and NEW hold equal values at matched points.
//!
//! Takes two bodies, their matched blocks and what their addresses mean; walks both together from the
//! entries, where the ABI makes arguments and callee-saved registers equal, to the fixpoint. Gives the
//! states at each matched pair: places with the same [`Value`] are equal there.
//!
//! What is claimed (DESIGN section 5): if OLD is at p having run any path, there is a path of NEW to p'
//! such that equal values name equal bits, where results of matched calls and the memory behind them
//! are taken as equal, and calls that only NEW has are taken as not made. It holds by induction over
//! the product's edges:
//!
//! - every OLD edge out of a point leads to a point; where NEW cannot follow by blocks without partner,
//!   nothing is known there ([`Relation::failures`]);
//! - where NEW can follow on several ways, all of them must agree;
//! - where NEW has one way only it may go through a matched block that does nothing but move values;
//! - where both sides branch on the same condition, NEW follows in the same sense, and where both jump
//!   through tables by the same index, to the entry of the same number;
//! - where NEW alone decides, the way that it is not taken to go must be one that OLD would have
//!   gone, too, if NEW had: OLD has not passed a copy of what is there, nor is a copy of the goal there
//!   (loops unrolled or peeled in one build, tails duplicated); else nothing is known of NEW, not even
//!   where it is, until both come to a place of the source, or make a call, that is the only one; at such a
//!   place it holds what all of its ways from where it was known to be leave there ([`stray`]);
//! - a test that is new in the source, and leads to nothing but what is new, has let OLD pass: NEW is taken to have
//!   gone around that, where it comes to the same place by both ways;
//! - where OLD alone has made a call behind which nothing is put off, and NEW comes to such a place by such
//!   calls as well, memory is the same for both, whatever OLD's call has done to it;
//! - what OLD calls alone NEW must not call anywhere, unless the line is gone from the source; NEW is never
//!   taken to go where it calls what OLD has not called, unless OLD calls no such thing at all or the
//!   line is new;
//! - what OLD's call does to memory that the source no longer has, it does to NEW's, too: NEW goes on with
//!   memory as it is, where its code relies on nothing else ([`super::unread`]);
//! - a branch whose condition is known (numbers, or what OLD has found to be zero on its way and has not
//!   made anew since) has one way only;
//! - behind a matched call memory is the same if it was before, or if the callee is such that compilers
//!   cannot keep anything back from it;
//! - where both have stored the same since memory was the same ([`super::stores`]), in whatever order and pieces,
//!   what OLD has found to be zero or the number, it is the same again, as OLD has made it;
//! - loops that make numbers out of numbers alone are followed as one block each where points are left without that
//!   ([`super::computed`]), and no point inside of them is said to be anywhere;
//! - two values that a branch which was taken has found equal are one value behind it;
//! - of a counter whose end is known ([`super::bounds`]) a test for equality asks one thing, whatever multiple of it
//!   is compared: where more is done to know what loops count with ([`Bodies::further`]), it is said in one way, and
//!   what a loop does not change is not told apart for having come round;
//! - at a join, places stay together only if they agree on every edge, and a name that stands for the
//!   last time this point was passed is replaced by a new one; what is read on every edge from its memory, and what is
//!   stored there on every edge, is so behind the join ([`super::lifted`]); of the frame's slots, and of registers of
//!   which a byte or two are used, only the bytes count that some code reads again.
//!
//! Blocks that have no partner are walked by one side while the other waits; a pair of matched blocks
//! that is no good matters for what can be shown, never for whether it is true.

mod bodies;
mod branches;
mod emptied;
mod follow;
mod found;
mod returned;
mod stray;
mod taken;

pub use bodies::Bodies;
pub use returned::Returned;

use super::alone::Alone;
use super::bounds::Bounds;
use super::copied;
use super::exec::{Call, Executor};
use super::join::{Classes, Counting, cut, join};
use super::point::{Exit, Point, PointId};
use super::state::{Doubt, Machine, Seen, State};
use super::stores;
use super::value::{Node, Side, Value, Values};
use super::ways::Ways;
use crate::machine::flow::{BlockId, End, Flow};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// Points may be executed this often each, on average, before the search is given up.
const VISITS: usize = 40;
/// So often a loop is begun anew.
const RESTARTS: usize = 2;
/// So often what comes out of a point may lead elsewhere than before.
const WAVERING: usize = 12;
/// Searches until the blocks are known that are followed together with copies, and how far counters go; as many more
/// without the latter.
const SEARCHES: usize = 4;

/// States by matched pair.
pub struct Relation {
    /// All values that the states name.
    pub values: Values,
    alone: Alone,
    states: Vec<Option<State>>,
    arrivals: Vec<BTreeMap<EdgeKey, State>>,
    points: Vec<Point>,
    index: FxHashMap<Point, PointId>,
    /// NEW's blocks that end with a branch, and whether OLD makes the same wherever both come there.
    tests: BTreeMap<BlockId, bool>,
    /// Matched pairs to which some OLD edge leads that NEW cannot follow.
    pub failures: BTreeSet<(BlockId, BlockId)>,
    /// How often points were executed to find it.
    pub visits: usize,
}

/// What holds just before a call.
pub struct Before {
    /// Of both sides.
    pub state: State,
    /// By each way to the block that ends with the call.
    pub arrivals: Vec<State>,
    /// Both have the same memory, as far as anybody else can see it.
    pub settled: bool,
}

/// What both sides held at the end of each edge.
#[derive(Clone, Copy)]
pub struct Arrivals<'a> {
    points: &'a [Point],
    index: &'a FxHashMap<Point, PointId>,
    arrivals: &'a [BTreeMap<EdgeKey, State>],
    states: &'a [Option<State>],
}

/// The search went on for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// Which edge a state came by: the point it left, OLD's edge, NEW's edge.
type EdgeKey = (PointId, usize, usize);
/// NEW's edge where it cannot follow.
const UNFOLLOWED: usize = usize::MAX;
/// The entry's, which leaves no point.
const ENTRY: EdgeKey = (PointId::NOWHERE, 0, 0);

/// A state on its way to a point. `None`: NEW cannot follow.
type Arrival = (Point, EdgeKey, State);

struct Search<'a, 'b> {
    bodies: &'b Bodies<'a>,
    values: Values,
    points: Vec<Point>,
    index: FxHashMap<Point, PointId>,
    states: Vec<Option<State>>,
    arrivals: Vec<BTreeMap<EdgeKey, State>>,
    sent: Vec<BTreeSet<(PointId, EdgeKey)>>,
    /// How often each point was executed.
    visits: Vec<usize>,
    failing: BTreeMap<EdgeKey, (BlockId, BlockId)>,
    /// Points at which NEW branches, and whether OLD does on the same condition.
    tests: BTreeMap<PointId, bool>,
    /// How often the loop that begins at a point was begun anew.
    restarts: BTreeMap<PointId, usize>,
    /// Points to be executed although nothing else leads there than before.
    again: BTreeSet<PointId>,
    queue: BTreeSet<(usize, u8, usize, PointId)>,
    order: (Vec<usize>, Vec<usize>),
    reach: FxHashMap<BlockId, Vec<bool>>,
    ways: Ways,
    /// Ways of NEW on which it was lost.
    known: stray::Known,
    /// OLD's blocks that are followed together with copies of their partners, as far as is known.
    joined: BTreeSet<BlockId>,
    /// Counters whose end is known.
    bounds: Bounds,
}

impl Relation {
    /// Runs to the fixpoint.
    ///
    /// # Errors
    /// [`TooLarge`] when the states do not settle within bounds.
    pub fn new(bodies: &Bodies<'_>) -> Result<Self, TooLarge> {
        let (mut joined, mut bounds, mut visits) = (BTreeSet::new(), Bounds::default(), 0);
        for count in 0..2 * SEARCHES {
            bounds.off = count >= SEARCHES;
            let (mut relation, next, again) = Self::search(bodies, joined.clone(), bounds)?;
            visits += relation.visits;
            relation.visits = visits;
            let found: BTreeSet<BlockId> = relation.joined(bodies).collect();
            if found.is_subset(&joined) && !again {
                return Ok(relation);
            }
            joined.extend(found);
            bounds = next;
        }
        Err(TooLarge)
    }

    /// One search; what is then known of counters, and whether another one is needed for that.
    fn search(
        bodies: &Bodies<'_>,
        joined: BTreeSet<BlockId>,
        bounds: Bounds,
    ) -> Result<(Self, Bounds, bool), TooLarge> {
        let order = (reverse_postorder(bodies.old), reverse_postorder(bodies.new));
        let mut search = Search {
            bodies,
            values: Values::new(bodies.further),
            points: Vec::new(),
            index: FxHashMap::default(),
            states: Vec::new(),
            arrivals: Vec::new(),
            sent: Vec::new(),
            visits: Vec::new(),
            failing: BTreeMap::new(),
            tests: BTreeMap::new(),
            restarts: BTreeMap::new(),
            again: BTreeSet::new(),
            queue: BTreeSet::new(),
            order,
            reach: FxHashMap::default(),
            ways: Ways::default(),
            known: stray::Known::default(),
            joined,
            bounds,
        };
        search.begin();
        search.run()?;
        let alone = search.alone();
        let visits = search.visits.iter().sum();
        let Search { values, states, arrivals, points, index, failing, bounds, .. } = search;
        let failures = failing.into_values().collect();
        let mut tests: BTreeMap<BlockId, bool> = BTreeMap::new();
        for (id, is_shared) in search.tests {
            let is_reached = !arrivals[id.0 as usize].is_empty();
            let new = match points[id.0 as usize] {
                Point::Joint { new, .. } | Point::NewAlone { new, .. } if is_reached => new,
                _ => continue,
            };
            *tests.entry(new).or_insert(true) &= is_shared;
        }
        let (next, again) = bounds.next();
        let relation =
            Self { values, alone, states, arrivals, points, index, tests, failures, visits };
        Ok((relation, next, again))
    }
}

impl Search<'_, '_> {
    fn begin(&mut self) {
        let old = Machine::at_entry(&mut self.values, |v, place| v.intern(Node::Entry(place)));
        // NEW may do something first: what OLD begins with is then in a block behind.
        let first = BlockId(0);
        let id = self.point(match self.bodies.matching.new_of[0] {
            Some(goal) if goal != first => Point::NewAlone { old: first, new: first, goal },
            _ => Point::Joint { old: first, new: first },
        });
        let new = self.new_entry(id);
        self.arrivals[id.0 as usize].insert(
            ENTRY,
            State {
                old,
                new,
                doubt: Doubt::None,
                seen: Seen::Here,
                changed: false,
                zero: BTreeSet::new(),
                apart: BTreeSet::new(),
            },
        );
        self.enqueue(id);
    }

    fn new_entry(&mut self, id: PointId) -> Machine {
        let entry = self.bodies.entry;
        let mut machine = Machine::at_entry(&mut self.values, |v, place| match entry(place) {
            Some(same) => v.intern(Node::Entry(same)),
            None => v.intern(Node::Given(id, Some(Side::New), u32::MAX, place)),
        });
        // Deeper where NEW's frame is to stand lower than OLD's.
        self.set_depth(&mut machine, Side::New, BlockId(0));
        machine
    }

    /// What holds on all of NEW's paths.
    fn alone(&mut self) -> Alone {
        let id = self.point(Point::Joint { old: BlockId(0), new: BlockId(0) });
        let entry = self.new_entry(id);
        self.bodies.alone(Side::New, |body| Alone::new(body, &mut self.values, entry))
    }

    fn point(&mut self, point: Point) -> PointId {
        if let Some(id) = self.index.get(&point) {
            return *id;
        }
        // Bounded by the product of two functions' blocks, of which few are reached.
        let id = PointId(u32::try_from(self.points.len()).unwrap_or(u32::MAX));
        self.points.push(point);
        self.index.insert(point, id);
        self.states.push(None);
        self.arrivals.push(BTreeMap::new());
        self.sent.push(BTreeSet::new());
        self.visits.push(0);
        id
    }

    /// Earlier blocks first, and NEW catches up before both go on.
    fn enqueue(&mut self, id: PointId) {
        let place =
            |order: &[usize], block: BlockId| order.get(block.0).copied().unwrap_or(usize::MAX);
        let key = match self.points[id.0 as usize] {
            Point::NewAlone { old, new, .. } => {
                (place(&self.order.0, old), 0, place(&self.order.1, new))
            }
            Point::OldAlone { old, new } => (place(&self.order.0, old), 1, new.block.0),
            Point::Joint { old, .. } => (place(&self.order.0, old), 2, 0),
        };
        self.queue.insert((key.0, key.1, key.2, id));
    }

    fn run(&mut self) -> Result<(), TooLarge> {
        let blocks = self.bodies.old.blocks.len() + self.bodies.new.blocks.len();
        let mut budget = VISITS * blocks + 1000;
        while let Some((.., id)) = self.queue.pop_first() {
            budget = budget.checked_sub(1).ok_or(TooLarge)?;
            let again = self.again.remove(&id);
            let Some(state) = self.join(id) else {
                // Nobody comes here any more.
                if self.states[id.0 as usize].take().is_some() {
                    self.deliver(id, Vec::new());
                }
                continue;
            };
            if !again && self.states[id.0 as usize].as_ref() == Some(&state) {
                continue;
            }
            self.states[id.0 as usize] = Some(state.clone());
            let arrivals = self.execute(id, state);
            self.deliver(id, arrivals);
        }
        Ok(())
    }

    /// What comes out of a point replaces what came out of it before, at least for the first times:
    /// where one way makes both sides differ, for which reason it is not taken, for which reason they do
    /// not, it stays. That something may lead to a point takes nothing away but what is known there.
    fn deliver(&mut self, from: PointId, arrivals: Vec<Arrival>) {
        let mut now = BTreeSet::new();
        for (point, key, state) in arrivals {
            let to = self.point(point);
            now.insert((to, key));
            let known = &mut self.arrivals[to.0 as usize];
            if known.get(&key) != Some(&state) {
                known.insert(key, state);
                self.enqueue(to);
            }
        }
        let index = from.0 as usize;
        self.visits[index] += 1;
        if self.visits[index] > WAVERING {
            self.sent[index].append(&mut now);
            return;
        }
        let before = std::mem::replace(&mut self.sent[index], now.clone());
        for (to, key) in before.difference(&now) {
            self.arrivals[to.0 as usize].remove(key);
            if self.bodies.further {
                self.begin_anew(*to);
            }
            self.enqueue(*to);
        }
    }

    /// Where something does not lead to a point any more: what goes round from there was told apart for its sake, and
    /// would stay so. It is forgotten, and found out again.
    fn begin_anew(&mut self, id: PointId) {
        let goes_round = |state: &State| {
            let held = |machine: &Machine| {
                let places = machine.places().map(|(_, value)| value);
                places.chain([machine.memory()]).any(|v| self.values.depends_on(v, id))
            };
            held(&state.old) || held(&state.new)
        };
        let all = &self.arrivals[id.0 as usize];
        let round = all.iter().filter(|(key, state)| **key != ENTRY && goes_round(state));
        let round: Vec<EdgeKey> = round.map(|(key, _)| *key).collect();
        let restarts = self.restarts.entry(id).or_default();
        if round.is_empty() || round.len() == all.len() || *restarts == RESTARTS {
            return;
        }
        *restarts += 1;
        for key in round {
            self.arrivals[id.0 as usize].remove(&key);
            self.again.insert(key.0);
            self.enqueue(key.0);
        }
    }

    /// The state at a point: what all edges into it agree on.
    fn join(&mut self, id: PointId) -> Option<State> {
        let mut arrivals: Vec<State> = self.arrivals[id.0 as usize].values().cloned().collect();
        let point = self.points[id.0 as usize];
        self.bounds.ask(&mut self.values, (id, point), &mut arrivals);
        let (a, b) = match point {
            Point::Joint { old, new } | Point::NewAlone { old, new, .. } => (old, Some(new)),
            Point::OldAlone { old, .. } => (old, None),
        };
        let (values, live) = (&mut self.values, self.bodies.live);
        let (old_live, new_live) = (live(Side::Old, a), b.map(|b| live(Side::New, b)));
        cut(values, arrivals.iter_mut().map(|s| &mut s.old), &old_live.slots);
        if let Some(live) = new_live {
            cut(values, arrivals.iter_mut().map(|s| &mut s.new), &live.slots);
        }
        let old_counting = Counting::of(old_live);
        let new_counting = new_live.map_or_else(Counting::all, Counting::of);
        let doubt = arrivals.iter().map(|s| s.doubt).max()?;
        let changed = arrivals.iter().any(|s| s.changed);
        let mut classes = Classes::default();
        let new: Vec<&Machine> = arrivals.iter().map(|s| &s.new).collect();
        classes.offer(&mut self.values, &new, id);
        let mut side = |values: &mut Values, side: Side, counting: Counting| {
            let machines: Vec<&Machine> = arrivals.iter().map(|s| s.side(side)).collect();
            join(values, &machines, (id, side), &mut classes, counting)
        };
        let mut old = side(&mut self.values, Side::Old, old_counting)?;
        let mut new = side(&mut self.values, Side::New, new_counting)?;
        // Loops that probe a large frame page by page end where the unwind tables say.
        self.set_depth(&mut old, Side::Old, a);
        if let Some(b) = b {
            self.set_depth(&mut new, Side::New, b);
        }
        // What was zero when this point was passed before, or was not, need not be so now.
        let still = |known: fn(&State) -> &BTreeSet<Value>| {
            let (first, rest) = arrivals.split_first()?;
            let is_still = |value: &Value| {
                rest.iter().all(|s| known(s).contains(value)) && !self.values.depends_on(*value, id)
            };
            Some(known(first).iter().copied().filter(is_still).collect::<BTreeSet<Value>>())
        };
        let (mut zero, apart) = (still(|s| &s.zero)?, still(|s| &s.apart)?);
        zero.extend(emptied::on_every_way(&self.values, &arrivals, &old));
        let seen = self.seen(id, &arrivals);
        Some(State { old, new, doubt, seen, changed, zero, apart })
    }

    fn set_depth(&mut self, machine: &mut Machine, side: Side, block: BlockId) {
        if let Some(depth) = (self.bodies.depth)(side, block) {
            machine.set_depth(&mut self.values, depth);
        }
    }

    fn execute(&mut self, id: PointId, state: State) -> Vec<Arrival> {
        let mut out = Vec::new();
        match self.points[id.0 as usize] {
            Point::Joint { old, new } => self.both(id, state, old, new, &mut out),
            Point::OldAlone { old, new } => {
                let left_out = self.left_out(old, false);
                let doubt = state.doubt.max(left_out);
                let seen = match left_out {
                    Doubt::None => state.seen,
                    _ => state.seen.left(copied::ways(self.bodies.new, new), &state.new),
                };
                let machine = self.steps(id, Side::Old, old, state.old);
                let is_same = machine.memory() == state.new.memory();
                let machine = self.call(id, Side::Old, old, machine, Call::Alone);
                let mut state = State { old: machine, doubt, seen, ..state };
                if is_same && self.is_gone(old) {
                    state.change_memory();
                }
                for (edge, to) in
                    self.bodies.old.blocks[old.0].successors.clone().into_iter().enumerate()
                {
                    let state = self.tested(old, edge, &state);
                    let state = self.behind((Side::Old, old, edge), state);
                    self.old_edge(id, edge, to, new, &state, &mut out);
                }
            }
            Point::NewAlone { old, new, goal } => {
                if self.bodies.new.blocks[new.0].end == End::Branch {
                    self.tests.insert(id, false);
                }
                let call = if (self.bodies.inserted)(new) { Call::Inserted } else { Call::Alone };
                let machine = self.steps(id, Side::New, new, state.new);
                let machine = self.call(id, Side::New, new, machine, call);
                let state = State { new: machine, ..state };
                let edge = if self.bodies.copied {
                    self.decided(self.bodies.new, new, &state.new, &state.zero)
                } else {
                    None
                };
                let exit = Exit { block: new, edge };
                if self.bodies.matching.new_of[old.0] == Some(goal) {
                    self.follow(id, 0, old, exit, &state, &mut out);
                } else {
                    self.old_edge(id, 0, old, exit, &state, &mut out);
                }
            }
        }
        for (point, _, state) in &mut out {
            if matches!(point, Point::Joint { .. }) && state.doubt == Doubt::None {
                settle(&mut self.values, &state.zero, &state.old, &mut state.new);
            }
        }
        out
    }

    /// Whether OLD's block ends with a call that the source no longer has.
    fn is_gone(&self, old: BlockId) -> bool {
        self.bodies.old.blocks[old.0].end == End::Call && (self.bodies.removed)(old)
    }

    /// What it means that OLD makes the call at the end of a block and NEW does not.
    fn left_out(&self, old: BlockId, matched: bool) -> Doubt {
        let calls = self.bodies.old.blocks[old.0].end == End::Call;
        if calls && !matched && !(self.bodies.removed)(old) { Doubt::Path } else { Doubt::None }
    }

    /// Both sides execute their blocks.
    fn both(
        &mut self,
        id: PointId,
        mut state: State,
        old: BlockId,
        new: BlockId,
        out: &mut Vec<Arrival>,
    ) {
        let bodies = self.bodies;
        let (b, c) = (&bodies.old.blocks[old.0], &bodies.new.blocks[new.0]);
        let (b_calls, c_calls) = (b.end == End::Call, c.end == End::Call);
        let matched = b_calls && c_calls && (self.bodies.same_callee)(old, new);
        let inserted = (self.bodies.inserted)(new);
        if matched && self.bodies.evidence.is_same_place(old, new) {
            state.found(bodies, &mut self.values, &mut self.known, new);
        }
        let left_out = self.left_out(old, matched);
        let called_alone = c_calls && !matched && !inserted;
        let mut doubt = state.doubt.max(left_out);
        if called_alone {
            doubt = Doubt::Path;
        }
        if called_alone || left_out != Doubt::None {
            state.seen = state.seen.left(BTreeSet::from([new]), &state.new);
        }
        let a = self.steps(id, Side::Old, old, state.old);
        let mut z = self.steps(id, Side::New, new, state.new);
        if state.doubt == Doubt::None {
            settle(&mut self.values, &state.zero, &a, &mut z);
        }
        let is_same = a.memory() == z.memory();
        let is_barrier = (self.bodies.barrier)(old);
        let settled = is_same || is_barrier;
        let how = |inserted: bool| match (matched, inserted) {
            (true, _) => Call::Matched { settled },
            (false, true) => Call::Inserted,
            (false, false) => Call::Alone,
        };
        let mut state = State {
            old: self.call(id, Side::Old, old, a, how(false)),
            new: self.call(id, Side::New, new, z, how(inserted)),
            doubt,
            seen: state.seen,
            changed: state.changed && !(matched && is_barrier),
            zero: state.zero,
            apart: state.apart,
        };
        if is_same && !matched && self.is_gone(old) && (!c_calls || inserted) {
            state.change_memory();
        }
        let choice = match (b.end, c.end) {
            (End::Branch, End::Branch) => self.same_condition(old, new, &state),
            (End::Table, End::Table) => self.same_entry(old, new, &state),
            _ => None,
        };
        if c.end == End::Branch {
            let is_shared =
                choice.is_some() || b.end == End::Branch && self.asks_the_same(old, new, &state);
            self.tests.insert(id, is_shared);
        }
        let ways = c.successors.len();
        // Of numbers that are known one way is no way, whatever the other side does.
        let only = |this: &Self, flow: &Flow, block: BlockId, machine: &Machine| {
            if bodies.copied { this.decided(flow, block, machine, &state.zero) } else { None }
        };
        let taken = only(self, bodies.old, old, &state.old);
        let others = only(self, bodies.new, new, &state.new);
        for (edge, to) in b.successors.clone().into_iter().enumerate() {
            if bodies.copied && matched && edge == 0 {
                self.come_back(id, to, new, &state, out);
                continue;
            }
            // With the condition known to agree, NEW takes the edge of the same sense, and with the
            // index, the entry of the same number.
            if taken.is_some_and(|taken| taken != edge) {
                continue;
            }
            let follows = choice.map(|same| if same { edge } else { 1 - edge.min(1) }).or(others);
            let exit = Exit { block: new, edge: follows.filter(|edge| *edge < ways) };
            let state = self.tested(old, edge, &state);
            let mut state = self.behind((Side::Old, old, edge), state);
            if let Some(edge) = exit.edge {
                state = self.behind((Side::New, new, edge), state);
            }
            self.old_edge(id, edge, to, exit, &state, out);
        }
    }

    /// A state of NEW of which nothing is known but where its frame is.
    fn unrelated(&mut self, point: PointId, block: BlockId) -> Machine {
        let Self { bodies, values, .. } = self;
        bodies.alone(Side::New, |body| body.unrelated(values, point, block))
    }

    /// One side executes a block, but for the call at its end.
    fn steps(&mut self, id: PointId, side: Side, block: BlockId, machine: Machine) -> Machine {
        steps(self.bodies, &mut self.values, (id, side), block, machine)
    }

    /// The call at the end of a block, if there is one.
    fn call(
        &mut self,
        id: PointId,
        side: Side,
        block: BlockId,
        machine: Machine,
        call: Call,
    ) -> Machine {
        let (flow, context) = self.bodies.side(side);
        let b = &flow.blocks[block.0];
        if b.end != End::Call {
            return machine;
        }
        let kept = |place| (self.bodies.kept)(side, block, place);
        let mut executor = Executor::new(context, &mut self.values, machine, id);
        executor.call(b.steps.end - 1, call, &kept);
        executor.finish()
    }
}

/// Where both have stored the same, memory is the same: as OLD has made it.
fn settle(values: &mut Values, zero: &BTreeSet<Value>, old: &Machine, new: &mut Machine) {
    let both = (old.memory(), new.memory());
    if both.0 != both.1 && stores::are_alike(values, zero, both) {
        new.set_memory(both.0);
    }
}

/// One side executes a block, from a point on, but for the call at the block's end.
fn steps(
    bodies: &Bodies<'_>,
    values: &mut Values,
    (id, side): (PointId, Side),
    block: BlockId,
    machine: Machine,
) -> Machine {
    bodies.alone(side, |body| body.execute(values, id, block, machine))
}

/// Each block's place in reverse postorder; unreachable ones at the end.
fn reverse_postorder(flow: &Flow) -> Vec<usize> {
    let count = flow.blocks.len();
    let mut order = vec![usize::MAX; count];
    let mut seen = vec![false; count];
    let mut done = Vec::new();
    let mut stack = vec![(BlockId(0), 0)];
    if let Some(first) = seen.first_mut() {
        *first = true;
    }
    while let Some((block, next)) = stack.pop() {
        match flow.blocks.get(block.0).and_then(|b| b.successors.get(next)) {
            Some(to) => {
                stack.push((block, next + 1));
                if !std::mem::replace(&mut seen[to.0], true) {
                    stack.push((*to, 0));
                }
            }
            None => done.push(block),
        }
    }
    for (place, block) in done.into_iter().rev().enumerate() {
        if let Some(slot) = order.get_mut(block.0) {
            *slot = place;
        }
    }
    order
}
