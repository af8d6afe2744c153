//! How NEW follows OLD from point to point: the rules by which it is said to go one way and not another.
//!
//! Takes an edge that OLD takes and where NEW waits; gives the points to which both come, or says that NEW
//! cannot be followed. See [`super`] for what each rule is for.

use super::super::copied;
use super::super::point::{Exit, Point, PointId};
use super::super::state::{Doubt, State};
use super::{Arrival, Bodies, Search, UNFOLLOWED};
use crate::machine::flow::{BlockId, End};
use std::collections::BTreeSet;

/// Where NEW shall be when OLD is at a block.
struct Goal {
    goal: BlockId,
    /// Blocks that it might be at just as well.
    others: BTreeSet<BlockId>,
}

impl Search<'_, '_> {
    /// OLD takes an edge; NEW stays where it is, or follows.
    pub(super) fn old_edge(
        &mut self,
        id: PointId,
        edge: usize,
        to: BlockId,
        exit: Exit,
        state: &State,
        out: &mut Vec<Arrival>,
    ) {
        if self.bodies.matching.new_of[to.0].is_some() {
            self.follow(id, edge, to, exit, state, out);
        } else if !self.follow_copy(id, edge, to, exit, state, out) {
            out.push((Point::OldAlone { old: to, new: exit }, (id, edge, 0), state.clone()));
        }
    }

    /// Both come back from one call, to `old` and to the block behind NEW's: NEW goes on to OLD's partner,
    /// or is there with OLD.
    pub(super) fn come_back(
        &mut self,
        id: PointId,
        old: BlockId,
        call: BlockId,
        state: &State,
        out: &mut Vec<Arrival>,
    ) {
        let Some(new) = self.bodies.new.return_point(call) else { return };
        let bodies = self.bodies;
        let exit = Exit { block: call, edge: Some(0) };
        let partner = bodies.matching.new_of[old.0];
        let to = partner.map(|goal| Goal { goal, others: BTreeSet::new() });
        if let Some(arrivals) = to.and_then(|to| self.arrive(id, 0, old, &to, exit, state)) {
            self.failing.remove(&(id, 0, 0));
            out.extend(arrivals);
            return;
        }
        if copied::end_alike(bodies, old, new) && copied::alike_jumps(bodies, old, new) {
            self.failing.remove(&(id, 0, 0));
            out.push((Point::Joint { old, new }, (id, 0, 0), state.clone()));
        } else {
            self.old_edge(id, 0, old, exit, state, out);
        }
    }

    /// OLD is at the beginning of a block; NEW goes to a copy of its partner, or to the partner of a copy
    /// of it, if that is the only one to which it can go; otherwise `false`.
    fn follow_copy(
        &mut self,
        id: PointId,
        edge: usize,
        old: BlockId,
        exit: Exit,
        state: &State,
        out: &mut Vec<Arrival>,
    ) -> bool {
        let bodies = self.bodies;
        if !bodies.copied || state.doubt != Doubt::None {
            return false;
        }
        let close = copied::candidates(bodies, old);
        let others = |goal: BlockId| {
            let partner = bodies.matching.new_of[old.0];
            close.iter().copied().chain(partner).filter(|other| *other != goal).collect()
        };
        let to = |goal: BlockId| Goal { goal, others: others(goal) };
        let mut sound =
            close.iter().filter_map(|goal| self.arrive(id, edge, old, &to(*goal), exit, state));
        let (Some(arrivals), None) = (sound.next(), sound.next()) else { return false };
        self.failing.remove(&(id, edge, 0));
        out.extend(arrivals);
        true
    }

    /// The ways of NEW to `goal` while OLD comes to `old`; `None` when it may go elsewhere.
    fn arrive(
        &mut self,
        id: PointId,
        edge: usize,
        old: BlockId,
        to: &Goal,
        exit: Exit,
        state: &State,
    ) -> Option<Vec<Arrival>> {
        let (goal, bodies) = (to.goal, self.bodies);
        let mut arrivals = Vec::new();
        let mut sound = state.doubt != Doubt::Path;
        for (number, way) in copied::ways(self.bodies.new, exit).into_iter().enumerate() {
            let mut state = state.clone();
            let point = if way == goal {
                if state.doubt != Doubt::None && bodies.evidence.is_anchored(old, goal) {
                    state.found(bodies, &mut self.values, &mut self.known, goal);
                }
                Point::Joint { old, new: goal }
            } else if self.goes_around(exit, way, goal) {
                continue;
            } else if self.reaches(goal)[way.0] {
                sound &= self.is_allowed(old, way);
                Point::NewAlone { old, new: way, goal }
            } else {
                sound &= self.is_refuted(old, goal, exit.block, way);
                let ahead = self.ways.ahead(self.bodies, way);
                sound &=
                    !to.others.iter().any(|b| ahead.alone.contains(b) || ahead.firsts.contains(b));
                continue;
            };
            arrivals.push((point, (id, edge, number), state));
        }
        (sound && !arrivals.is_empty()).then_some(arrivals)
    }

    /// Whether NEW is taken not to go to a block by an edge: a test that is new in the source, as what it leads to
    /// is, is taken to fail, where NEW then comes to the same goal.
    fn goes_around(&mut self, exit: Exit, way: BlockId, goal: BlockId) -> bool {
        let bodies = self.bodies;
        let last = bodies.new.blocks[exit.block.0].steps.end - 1;
        if !bodies.evidence.is_added(last) || !bodies.evidence.is_fresh(way) {
            return false;
        }
        let reaches = self.reaches(goal);
        let mut ways = copied::ways(bodies.new, exit).into_iter();
        ways.any(|w| !bodies.evidence.is_fresh(w) && (w == goal || reaches[w.0]))
    }

    /// OLD is at the beginning of a matched block; NEW goes there by blocks without partner.
    pub(super) fn follow(
        &mut self,
        id: PointId,
        edge: usize,
        old: BlockId,
        exit: Exit,
        state: &State,
        out: &mut Vec<Arrival>,
    ) {
        let Some(goal) = self.bodies.matching.new_of[old.0] else { return };
        self.failing.remove(&(id, edge, 0));
        let to = Goal { goal, others: BTreeSet::new() };
        if let Some(arrivals) = self.arrive(id, edge, old, &to, exit, state) {
            out.extend(arrivals);
            return;
        }
        if self.follow_copy(id, edge, old, exit, state, out)
            || self.go_through(id, edge, (old, goal), exit, state, out)
        {
            return;
        }
        self.failing.insert((id, edge, 0), (old, goal));
        let joint = Point::Joint { old, new: goal };
        let target = self.point(joint);
        let new = self.unrelated(target, goal);
        let bodies = self.bodies;
        let is_same = state.doubt == Doubt::None && state.old.memory() == state.new.memory();
        let seen = state.seen.clone().left(copied::ways(bodies.new, exit), &state.new);
        let mut state = State { new, doubt: Doubt::Place, seen, ..state.clone() };
        // From where NEW is known to have been it has come here, if this is the only place of its kind.
        if bodies.evidence.is_anchored(old, goal) {
            let ways =
                state.found(bodies, &mut self.values, &mut self.known, goal).filter(|_| is_same);
            let memory = state.old.memory();
            if ways.is_some_and(|w| w.are_settled(bodies, &mut self.values, target, memory)) {
                state.change_memory();
            }
        }
        out.push((joint, (id, edge, UNFOLLOWED), state));
    }

    /// OLD is at the beginning of a matched block; NEW, which has one way only, comes to its partner by a block
    /// that has a partner, too, but does nothing beside putting values into their places: in the other build
    /// somebody else goes there as well.
    fn go_through(
        &mut self,
        id: PointId,
        edge: usize,
        (old, goal): (BlockId, BlockId),
        exit: Exit,
        state: &State,
        out: &mut Vec<Arrival>,
    ) -> bool {
        let new = self.bodies.new;
        let ways: Vec<BlockId> = copied::ways(new, exit).into_iter().collect();
        let [way] = ways[..] else { return false };
        if state.doubt == Doubt::Path || way == goal || !copied::only_moves(new, way) {
            return false;
        }
        let next = new.blocks[way.0].successors[0];
        if next != goal && !self.reaches(goal)[next.0] {
            return false;
        }
        self.failing.remove(&(id, edge, 0));
        out.push((Point::NewAlone { old, new: way, goal }, (id, edge, 0), state.clone()));
        true
    }

    /// Whether NEW may have gone through a block without partner while OLD came to `old`: not when it
    /// is a copy of one with a partner, unless OLD has passed a copy of that partner, too, or has
    /// done by itself what the copies have in common (the partner may be without it: where both builds
    /// test a loop's condition behind its body, one may test it before the first round as well).
    fn is_allowed(&mut self, old: BlockId, way: BlockId) -> bool {
        let bodies = self.bodies;
        let passed = self.ways.passed(bodies, old, &self.joined);
        let mut copied =
            bodies.matching.pairs().filter(|(_, m)| bodies.evidence.new.are_copies(way, *m));
        copied.all(|(partner, copy)| {
            passed.all().any(|b| bodies.evidence.old.are_copies(b, partner))
                || bodies.evidence.is_done((way, copy), passed.all())
        })
    }

    /// Whether NEW cannot have gone to `way` when OLD came to `old`, whose partner is `goal`: OLD would
    /// have come elsewhere.
    fn is_refuted(&mut self, old: BlockId, goal: BlockId, from: BlockId, way: BlockId) -> bool {
        let bodies = self.bodies;
        let last = bodies.new.blocks[from.0].steps.end - 1;
        if bodies.evidence.is_added(last) {
            return true;
        }
        let (old_copies, new_copies) = (&bodies.evidence.old, &bodies.evidence.new);
        let ahead = self.ways.ahead(bodies, way);
        if ahead.alone.iter().any(|u| new_copies.are_copies(*u, goal)) {
            return false;
        }
        let passed = self.ways.passed(bodies, old, &BTreeSet::new());
        ahead.firsts.iter().filter_map(|first| bodies.matching.old_of[first.0]).all(|elsewhere| {
            let again = passed.from.contains(&elsewhere) && old_copies.repeats(elsewhere);
            // Of a loop that is one block OLD goes through what is inside as often as it likes.
            let is_it = |b: &BlockId| *b == elsewhere || old_copies.are_copies(*b, elsewhere);
            !again && !passed.alone.iter().any(is_it)
        })
    }

    /// From which blocks without partner NEW gets to a block by such blocks alone, without a call that
    /// OLD would have made, too.
    fn reaches(&mut self, goal: BlockId) -> &[bool] {
        let bodies = self.bodies;
        self.reach.entry(goal).or_insert_with(|| {
            let mut reached = vec![false; bodies.new.blocks.len()];
            let mut queue = vec![goal];
            while let Some(block) = queue.pop() {
                for &before in &bodies.new.blocks[block.0].predecessors {
                    if is_passable(bodies, before) && !reached[before.0] {
                        reached[before.0] = true;
                        queue.push(before);
                    }
                }
            }
            reached
        })
    }
}

/// Whether NEW may be taken to go through a block while OLD does not.
fn is_passable(bodies: &Bodies<'_>, new: BlockId) -> bool {
    let calls = bodies.new.blocks[new.0].end == End::Call;
    bodies.matching.old_of[new.0].is_none() && (!calls || (bodies.inserted)(new))
}
