//! What all states agree on that lead to a point.
//!
//! Places stay equal only if they are so on every edge, and a name that stands for the last time the
//! point was passed is replaced by a new one. A slot of the frame that was not written on some edge holds
//! garbage there: in OLD that is a value like any other, which nothing else has; of NEW, which is only said to have come
//! here, it may be taken to be whatever is wanted, for no code that is right depends on it.

use super::point::PointId;
use super::state::{Held, Machine};
use super::value::{Node, Place, Side, Value, Values};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Places by what they hold on each edge into a point: those of OLD first, then those of NEW.
#[derive(Debug, Default)]
pub struct Classes {
    names: HashMap<Vec<Held>, Value>,
    /// The names that OLD's places have, in their order.
    old: Vec<(Place, Vec<Held>, Value)>,
}

/// The state of one side at a point; `None` when nothing leads there. OLD's comes first.
pub fn join(
    values: &mut Values,
    arrivals: &[&Machine],
    (id, side): (PointId, Side),
    classes: &mut Classes,
) -> Option<Machine> {
    let first = arrivals.first()?;
    let mut join = Join { values, id, side, classes };
    let mut joined = first.map_registers(|place| {
        let all = arrivals.iter().map(|m| m.at(place).map_or(Held::Unknown, Held::Value));
        join.one(place, all.collect())
    });
    for (at, bytes) in extents(arrivals) {
        let all = arrivals.iter().map(|m| m.held(join.values, at, bytes)).collect();
        let value = join.one(Place::Slot(at, bytes), all);
        joined.put_slot(at, bytes, value);
    }
    if arrivals.iter().any(|m| m.has_lost_slots()) {
        joined.lose_others();
    }
    Some(joined)
}

struct Join<'a> {
    values: &'a mut Values,
    id: PointId,
    side: Side,
    classes: &'a mut Classes,
}

impl Join<'_> {
    /// What a place holds that holds these on the edges.
    fn one(&mut self, place: Place, mut all: Vec<Held>) -> Value {
        if self.side == Side::Old {
            // Each slot has its own.
            let own = Node::Given(self.id, Some(Side::Old), u32::MAX, place);
            let own = Held::Value(self.values.intern(own));
            all.iter_mut().filter(|h| **h == Held::Garbage).for_each(|held| *held = own);
        }
        if let Some(value) = self.agreed(&all) {
            return value;
        }
        let name = Node::Phi(self.id, self.side, place);
        if all.contains(&Held::Unknown) {
            return self.values.intern(name);
        }
        if let Some(known) = self.classes.names.get(&all) {
            return *known;
        }
        if self.side == Side::New
            && all.contains(&Held::Garbage)
            && let Some(known) = self.chosen(place, &all)
        {
            return known;
        }
        let value = self.values.intern(name);
        if self.side == Side::Old {
            self.classes.old.push((place, all.clone(), value));
        }
        self.classes.names.insert(all, value);
        value
    }

    /// The value that all edges have, if it is the same the next time, too.
    fn agreed(&self, all: &[Held]) -> Option<Value> {
        let mut found = None;
        for held in all {
            match held {
                Held::Value(value) if found.is_none_or(|f| f == *value) => found = Some(*value),
                Held::Garbage if self.side == Side::New => {}
                _ => return None,
            }
        }
        found.filter(|v| self.values.depends(*v).binary_search(&self.id).is_err())
    }

    /// What garbage of NEW is best taken to be: what makes the place equal to one of OLD, the same one
    /// if that can be.
    fn chosen(&mut self, place: Place, all: &[Held]) -> Option<Value> {
        let mut best = None;
        for (other, held, value) in &self.classes.old {
            let mut pairs = held.iter().zip(all);
            let fits = pairs.all(|(old, new)| match (old, new) {
                (Held::Value(old), Held::Garbage) => has_room(self.values, place, *other, *old),
                _ => old == new,
            });
            if fits && (best.is_none() || *other == place) {
                best = Some(*value);
            }
        }
        best
    }
}

/// Whether a place has all bytes of a value that another place holds.
fn has_room(values: &mut Values, place: Place, other: Place, value: Value) -> bool {
    match (place, other) {
        (Place::Slot(_, bytes), Place::Slot(_, others)) if bytes == others => true,
        (Place::Slot(_, bytes), _) => values.low(bytes, value) == value,
        _ => true,
    }
}

/// Slots that together are all that are written on some edge, none of which overlap: large ones first.
fn extents(arrivals: &[&Machine]) -> BTreeMap<i64, u8> {
    let all: BTreeSet<(u8, i64)> =
        arrivals.iter().flat_map(|m| m.slots()).map(|(at, bytes, _)| (bytes, at)).collect();
    let mut chosen: BTreeMap<i64, u8> = BTreeMap::new();
    let mut pieces = Vec::new();
    for (bytes, at) in all.into_iter().rev() {
        let end = at + i64::from(bytes);
        let overlaps = chosen.range(at - 8..end).any(|(start, n)| start + i64::from(*n) > at);
        if overlaps {
            pieces.extend(at..end);
        } else {
            chosen.insert(at, bytes);
        }
    }
    for at in pieces {
        let covered = chosen.range(at - 8..=at).any(|(start, n)| start + i64::from(*n) > at);
        if !covered {
            chosen.insert(at, 1);
        }
    }
    chosen
}
