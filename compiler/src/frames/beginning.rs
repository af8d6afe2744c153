//! What a local that only NEW has began with, before the loops around a point.
//!
//! A frame that goes on in NEW has no value for a variable that OLD does not have. Where NEW gives it one
//! constant before its outermost loop, and the user says that counting may begin anew
//! (`--init-new-locals`), the frame may go on as in its first round. Takes what the relation found on
//! each edge into each point; gives that constant, or nothing: never a value that is set inside of a
//! loop, and none where the ways to a point do not agree.

use super::point::{Point, PointId};
use super::relation::Arrivals;
use super::value::{Node, Place, Side, Value, Values};
use crate::machine::dominators::{Dominators, Loops, natural_loop};
use crate::machine::flow::{BlockId, Flow};
use std::collections::BTreeSet;

/// Points whose names are looked through, at most, for one value.
const DEPTH: usize = 16;

/// The largest step of a counter.
const STRIDE: u64 = 4;

/// The loops of one build.
pub struct Rounds {
    dominators: Dominators,
    loops: Loops,
}

/// The beginnings of the values of one relation.
pub struct Beginnings<'a> {
    rounds: &'a Rounds,
    arrivals: Arrivals<'a>,
}

impl Rounds {
    /// Of its graph.
    pub fn new(flow: &Flow) -> Self {
        let dominators = Dominators::new(flow);
        let loops = Loops::new(flow, &dominators);
        Self { dominators, loops }
    }

    /// The blocks through which every way leads to a block, since the last round of the innermost loop around it
    /// began; the nearest first. With `inside` the block itself is one.
    pub fn since(&self, block: BlockId, inside: bool) -> Vec<BlockId> {
        let head = self.loops.innermost(block);
        let up = |at: &BlockId| self.dominators.idom(*at).filter(|_| Some(*at) != head);
        let all = std::iter::successors(Some(block), up);
        all.skip(usize::from(!inside)).collect()
    }

    /// The blocks of each loop.
    pub fn blocks<'a>(&'a self, flow: &'a Flow) -> impl Iterator<Item = BTreeSet<BlockId>> + 'a {
        self.loops.heads().iter().map(|head| natural_loop(flow, &self.dominators, *head))
    }

    /// Of NEW's, with what a relation found on the edges.
    pub fn of<'a>(&'a self, arrivals: Arrivals<'a>) -> Beginnings<'a> {
        Beginnings { rounds: self, arrivals }
    }
}

impl Beginnings<'_> {
    /// The number that the low `bytes` of a value are in the first round of all loops around.
    pub fn number(&self, values: &mut Values, value: Value, bytes: u8) -> Option<u64> {
        let first = self.first(values, value, DEPTH)?;
        let first = values.low(bytes, first);
        values.as_constant(first)
    }

    /// Whether a value begins with a number of at most 32 bits and goes on by at most [`STRIDE`] each time
    /// that it is given a name anew. To be of 57 bits it would have to do so for years, for each time is a
    /// round of a loop.
    pub fn counts(&self, values: &Values, value: Value) -> bool {
        let (mut queue, mut seen) = (vec![value], BTreeSet::from([value]));
        while let Some(next) = queue.pop() {
            if seen.len() > DEPTH {
                return false;
            }
            let Node::Phi(point, side, place) = *values.node(next) else { return false };
            for (_, state) in self.arrivals.edges(point) {
                let Some(held) = state.side(side).at(place) else { return false };
                let (terms, number) = values.terms(held);
                match terms[..] {
                    [] if number.cast_signed().unsigned_abs() <= u64::from(u32::MAX) => {}
                    [(term, 1)] if number.cast_signed().unsigned_abs() <= STRIDE => {
                        if seen.insert(term) {
                            queue.push(term);
                        }
                    }
                    _ => return false,
                }
            }
        }
        true
    }

    /// The value with each name replaced by what it stands for in the first round.
    fn first(&self, values: &mut Values, value: Value, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        match values.node(value).clone() {
            Node::Linear(terms, constant) => {
                let mut parts = Vec::new();
                for (term, factor) in terms.iter() {
                    parts.push((self.first(values, *term, depth)?, *factor));
                }
                Some(values.linear(&parts, constant))
            }
            Node::Low(bytes, inner) => {
                let inner = self.first(values, inner, depth)?;
                Some(values.low(bytes, inner))
            }
            Node::Signed(bytes, inner) => {
                let inner = self.first(values, inner, depth)?;
                Some(values.signed(bytes, inner))
            }
            Node::Insert(bytes, old, low) => {
                let (old, low) = (self.first(values, old, depth)?, self.first(values, low, depth)?);
                Some(values.insert(bytes, old, low))
            }
            Node::Phi(point, Side::New, place) => self.entering(values, point, place, depth),
            _ => None,
        }
    }

    /// What a place holds on all edges into a point but those that a loop goes around by.
    fn entering(
        &self,
        values: &mut Values,
        point: PointId,
        place: Place,
        depth: usize,
    ) -> Option<Value> {
        let head = match self.arrivals.point(point)? {
            Point::Joint { new, .. } | Point::NewAlone { new, .. } => new,
            // NEW only waits.
            Point::OldAlone { .. } => return None,
        };
        let mut found = None;
        for (from, state) in self.arrivals.edges(point) {
            let from = from.map(left);
            if from.is_some_and(|from| self.rounds.dominators.dominates(head, from)) {
                continue;
            }
            let held = match place {
                Place::Slot(at, bytes) => state.new.slot(values, at, bytes)?,
                _ => state.new.at(place)?,
            };
            // What is set inside of a loop is not what all loops begin with.
            let inside = from.is_some_and(|from| self.rounds.loops.depth(from) > 0);
            if inside && values.as_constant(held).is_some() {
                return None;
            }
            let first = self.first(values, held, depth)?;
            if *found.get_or_insert(first) != first {
                return None;
            }
        }
        found
    }
}

/// The block of NEW that an edge leaves which leaves a point.
fn left(point: Point) -> BlockId {
    match point {
        Point::Joint { new, .. } | Point::NewAlone { new, .. } => new,
        Point::OldAlone { new, .. } => new.block,
    }
}
