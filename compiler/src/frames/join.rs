//! What all states agree on that lead to a point.
//!
//! Places stay equal only if they are so on every edge, and a name that stands for the last time the
//! point was passed is replaced by a new one. A slot of the frame that was not written on some edge holds
//! garbage there: in OLD that is a value like any other, which nothing else has; of NEW, which is only said to have come
//! here, it may be taken to be whatever is wanted, for no code that is right depends on it.
//!
//! What goes along with another place from edge to edge, a pointer with the number of its element, gets no
//! name of its own but is said in terms of that place: builds differ in what they count with.

use super::alone::Alone;
use super::lifted::Lift;
use super::multiples::{multiple, step};
use super::point::PointId;
use super::state::{Held, Machine};
use super::value::{Node, Place, Side, Value, Values};
use crate::machine::live::Live;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Places by what they hold on each edge into a point: those of OLD first, then those of NEW.
#[derive(Debug, Default)]
pub struct Classes {
    names: FxHashMap<Vec<Held>, Value>,
    /// The names that OLD's places have, in their order.
    old: Vec<(Place, Vec<Held>, Value)>,
    /// What others may be said in terms of: the values on the edges, and the name.
    counts: Vec<(Vec<Value>, Value)>,
    /// The same of places of NEW that OLD need not have.
    offered: Vec<(Vec<Value>, Value)>,
    /// The same of NEW's memory.
    new_memory: Option<(Vec<Held>, Value)>,
}

impl Classes {
    /// Before OLD's places get their names: NEW's, which OLD's may be multiples of.
    pub fn offer(&mut self, values: &mut Values, arrivals: &[&Machine], id: PointId) {
        let Some(first) = arrivals.first() else { return };
        let memory = arrivals.iter().map(|m| Held::Value(m.memory())).collect();
        self.new_memory = Some((memory, values.intern(Node::Phi(id, Side::New, Place::Memory))));
        for (place, _) in first.places().filter(|(place, _)| may_count(*place)) {
            let all: Option<Vec<Value>> = arrivals.iter().map(|m| m.at(place)).collect();
            if let Some(all) = all.filter(|all| all.iter().any(|value| *value != all[0])) {
                self.offered.push((all, values.intern(Node::Phi(id, Side::New, place))));
            }
        }
    }

    /// What holds these on the edges is said otherwise from now on.
    fn rename(&mut self, all: &[Held], value: Value) {
        self.names.insert(all.to_vec(), value);
        self.old.iter_mut().filter(|old| old.1 == all).for_each(|old| old.2 = value);
    }
}

/// Whether a place may hold a number of an element, or its address.
pub(super) fn may_count(place: Place) -> bool {
    matches!(place, Place::General(_) | Place::Slot(..))
}

/// Where the edges into a point do not agree on a slot, only those of its bytes count that some code reads
/// again: compilers spill whole registers of which they use a part.
pub fn cut<'a>(
    values: &mut Values,
    arrivals: impl Iterator<Item = &'a mut Machine>,
    live: &[Range<i64>],
) {
    let mut arrivals: Vec<&mut Machine> = arrivals.collect();
    let mut edges: FxHashMap<(Place, Value), usize> = FxHashMap::default();
    for (at, bytes, value) in arrivals.iter().flat_map(|m| m.slots()) {
        *edges.entry((Place::Slot(at, bytes), value)).or_default() += 1;
    }
    let all = arrivals.len();
    let agree = |place, value| edges.get(&(place, value)) == Some(&all);
    arrivals.iter_mut().for_each(|machine| machine.keep_live(values, live, agree));
}

/// How many low bytes of general registers count, by their numbers.
#[derive(Debug, Clone, Copy)]
pub struct Counting([u8; 16]);

impl Counting {
    /// All.
    pub fn all() -> Self {
        Self([8; 16])
    }

    /// Those that some code reads again, where that is a byte or two: wider ones may be parts of sums.
    pub fn of(live: &Live) -> Self {
        Self(live.general.map(|bytes| match bytes {
            1 => 1,
            2 | 3 => 2,
            _ => 8,
        }))
    }

    /// Of a place: nothing where all of it counts.
    fn part(self, place: Place) -> Option<u8> {
        match place {
            Place::General(n) => self.0.get(usize::from(n)).copied().filter(|bytes| *bytes < 8),
            _ => None,
        }
    }
}

/// The state of one side at a point; `None` when nothing leads there. OLD's comes first.
pub fn join(
    values: &mut Values,
    arrivals: &[&Machine],
    (id, side): (PointId, Side),
    classes: &mut Classes,
    counting: Counting,
) -> Option<Machine> {
    let first = arrivals.first()?;
    let memory = (arrivals.iter().map(|m| m.memory()).collect::<Vec<_>>(), first.memory());
    let mut join = Join { values, id, side, classes, memory };
    let held = join.memory.0.iter().map(|memory| Held::Value(*memory)).collect();
    join.memory.1 = join.one(Place::Memory, held);
    let mut places: Vec<(Place, Vec<Held>)> = Vec::new();
    for (place, _) in first.places().filter(|(place, _)| !matches!(place, Place::Slot(..))) {
        let all = arrivals.iter().map(|m| m.at(place).map_or(Held::Unknown, Held::Value));
        places.push((place, all.collect()));
    }
    for (at, bytes) in extents(arrivals) {
        let all: Vec<Held> = arrivals.iter().map(|m| m.held(join.values, at, bytes)).collect();
        // An argument that was not read on some edge: it is read when it is needed.
        if at < 0 || !all.contains(&Held::Unknown) {
            places.push((Place::Slot(at, bytes), all));
        }
    }
    // Numbers of elements before their addresses.
    let mut order: Vec<usize> = (0..places.len()).collect();
    if arrivals.len() > 1 {
        order.sort_by_cached_key(|i| step(join.values, &places[*i].1));
    }
    let mut joined = first.without_slots();
    for index in order {
        let (place, all) = &mut places[index];
        let all = std::mem::take(all);
        let value = match counting.part(*place) {
            Some(bytes) if all.iter().any(|held| *held != all[0]) => join.part(*place, all, bytes),
            _ => join.one(*place, all),
        };
        joined.put(*place, value);
    }
    if side == Side::Old
        && let Some(memory) = join.stored_before()
    {
        joined.set_memory(memory);
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
    /// Memory on the edges, and behind them.
    memory: (Vec<Value>, Value),
}

impl Join<'_> {
    /// What a place holds that holds these on the edges.
    fn one(&mut self, place: Place, mut all: Vec<Held>) -> Value {
        if self.side == Side::Old && all.contains(&Held::Garbage) {
            // Each slot has its own.
            let own = Node::Given(self.id, Some(Side::Old), u32::MAX, place);
            let own = Held::Value(self.values.intern(own));
            all.iter_mut().filter(|h| **h == Held::Garbage).for_each(|held| *held = own);
        }
        // What OLD has there on all edges may be something else the next time.
        if self.side == Side::New
            && all.contains(&Held::Garbage)
            && let Some(known) = self.chosen(place, &all)
        {
            return known;
        }
        if let Some(value) = self.agreed(&all) {
            return value;
        }
        let name = Node::Phi(self.id, self.side, place);
        if self.values.is_further() && !Alone::is_of_walk(self.id) {
            // What it was the last time says nothing new.
            let own = Held::Value(self.values.intern(name.clone()));
            if let Some(value) = self.agreed(all.iter().filter(|held| **held != own)) {
                self.classes.names.insert(all, value);
                return value;
            }
        }
        if all.contains(&Held::Unknown) {
            return self.values.intern(name);
        }
        if let Some(known) = self.classes.names.get(&all) {
            return *known;
        }
        if let Some(value) = self.lifted(place, &all) {
            if self.side == Side::Old {
                self.classes.old.push((place, all.clone(), value));
            }
            self.classes.names.insert(all, value);
            return value;
        }
        let counted = may_count(place).then(|| values_of(&all)).flatten();
        let along = counted.as_ref().and_then(|all| self.along(all));
        let value = along.unwrap_or_else(|| self.values.intern(name));
        if let Some(counted) = counted.filter(|_| along.is_none()) {
            self.classes.counts.push((counted, value));
        }
        if self.side == Side::Old {
            self.classes.old.push((place, all.clone(), value));
        }
        self.classes.names.insert(all, value);
        value
    }

    /// The same of a register of which only so many low bytes count: what is known of these is kept, too, where
    /// nothing is known of the whole.
    fn part(&mut self, place: Place, all: Vec<Held>, bytes: u8) -> Value {
        let low = |values: &mut Values, held: &Held| match held {
            Held::Value(value) => Held::Value(values.low(bytes, *value)),
            other => *other,
        };
        let lows: Vec<Held> = all.iter().map(|held| low(self.values, held)).collect();
        let agreed = self.agreed(&lows);
        if self.side == Side::Old {
            let is_first = !self.classes.names.contains_key(&all);
            let whole = self.one(place, all.clone());
            let Some(low) = agreed else {
                let low = self.values.low(bytes, whole);
                self.classes.names.entry(lows).or_insert(low);
                return whole;
            };
            // All of it may be what NEW uses.
            let value = self.values.insert(bytes, whole, low);
            if is_first {
                self.classes.rename(&all, value);
            }
            return value;
        }
        let known = agreed.or_else(|| self.classes.names.get(&lows).copied());
        match known {
            Some(low) if !self.classes.names.contains_key(&all) => {
                let whole = Node::Given(self.id, Some(self.side), u32::MAX, place);
                let whole = self.values.intern(whole);
                self.values.insert(bytes, whole, low)
            }
            _ => self.one(place, all),
        }
    }

    /// What a place holds, where that is made of what has a name here in the same way on every edge.
    fn lifted(&mut self, place: Place, all: &[Held]) -> Option<Value> {
        if place == Place::Flags {
            return None;
        }
        let all = values_of(all)?;
        let (id, names, memory) = (self.id, &self.classes.names, &self.memory);
        Lift { values: self.values, id, names, memory }.value(&all)
    }

    /// OLD's memory, where that is NEW's and what OLD has stored on each edge already: NEW stores it behind.
    fn stored_before(&mut self) -> Option<Value> {
        let (held, name) = self.classes.new_memory.clone()?;
        let (id, memory) = (self.id, &self.memory);
        if self.classes.names.contains_key(&held)
            || self.values.node(memory.1) != &Node::Phi(id, Side::Old, Place::Memory)
        {
            return None;
        }
        self.classes.names.insert(held.clone(), name);
        let names = &self.classes.names;
        let lifted = Lift { values: self.values, id, names, memory }.value(&memory.0);
        if lifted.is_none() {
            self.classes.names.remove(&held);
        }
        lifted
    }

    /// The value that all edges have, if it is the same the next time, too.
    fn agreed<'h>(&self, all: impl IntoIterator<Item = &'h Held>) -> Option<Value> {
        let mut found = None;
        for held in all {
            match held {
                Held::Value(value) if found.is_none_or(|f| f == *value) => found = Some(*value),
                Held::Garbage if self.side == Side::New => {}
                _ => return None,
            }
        }
        found.filter(|v| !self.values.depends_on(*v, self.id))
    }

    /// A place in terms of another one that it goes along with: so many times that, and what is the
    /// same on every edge and the next time.
    fn along(&mut self, all: &[Value]) -> Option<Value> {
        let classes = &*self.classes;
        let own = classes.counts.iter().find_map(|with| {
            let (value, _) = multiple(self.values, self.id, all, with)?;
            Some((value, with.1))
        });
        if let Some((value, name)) = own {
            if !matches!(self.values.node(name), Node::Phi(_, side, _) if *side == self.side) {
                self.values.go_in_step(self.id);
            }
            return Some(value);
        }
        if self.side == Side::New {
            return None;
        }
        // One of NEW's is only worth it where OLD's is no unit itself.
        let (value, with) = classes.offered.iter().find_map(|with| {
            let (value, factor) = multiple(self.values, self.id, all, with)?;
            (factor != 1 && factor != u64::MAX).then(|| (value, with.clone()))
        })?;
        let held = with.0.iter().map(|value| Held::Value(*value)).collect();
        self.classes.names.insert(held, with.1);
        self.classes.counts.push(with);
        self.values.go_in_step(self.id);
        Some(value)
    }

    /// What garbage of NEW is best taken to be, where its other edges do not agree: what makes the place
    /// equal to one of OLD, one that is garbage there, too, or the same one if that can be.
    fn chosen(&mut self, place: Place, all: &[Held]) -> Option<Value> {
        let mut best = None;
        for (other, held, value) in &self.classes.old {
            let mut pairs = held.iter().zip(all);
            let fits = pairs.all(|(old, new)| match (old, new) {
                (Held::Value(old), Held::Garbage) => has_room(self.values, place, *other, *old),
                _ => old == new,
            });
            if !fits {
                continue;
            }
            let own = Node::Given(self.id, Some(Side::Old), u32::MAX, *other);
            let is_garbage = |(old, new): (&Held, &Held)| match (old, new) {
                (Held::Value(old), Held::Garbage) => *self.values.node(*old) == own,
                _ => true,
            };
            let rank = (held.iter().zip(all).all(is_garbage), *other == place);
            if best.is_none_or(|(found, _)| found < rank) {
                best = Some((rank, *value));
            }
        }
        best.map(|(_, value)| value)
    }
}

/// The values on all edges, when all are known.
fn values_of(all: &[Held]) -> Option<Vec<Value>> {
    let value = |held: &Held| match held {
        Held::Value(value) => Some(*value),
        Held::Garbage | Held::Unknown => None,
    };
    all.iter().map(value).collect()
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

#[cfg(test)]
mod tests {
    use super::{Classes, Counting, cut, join};
    use crate::frames::point::PointId;
    use crate::frames::state::Machine;
    use crate::frames::value::{Node, Place, Side, Value, Values};

    const HERE: PointId = PointId(7);

    fn machine(values: &mut Values) -> Machine {
        Machine::at_entry(values, |v, place| v.intern(Node::Entry(place)))
    }

    /// A slot that is written on the first of two edges only.
    fn half_written(values: &mut Values, slots: &[i64], value: Value) -> [Machine; 2] {
        let (mut one, two) = (machine(values), machine(values));
        slots.iter().for_each(|at| one.set_slot(values, *at, 8, value));
        [one, two]
    }

    fn joined(
        values: &mut Values,
        arrivals: &[Machine],
        side: Side,
        classes: &mut Classes,
    ) -> Machine {
        let arrivals: Vec<&Machine> = arrivals.iter().collect();
        join(values, &arrivals, (HERE, side), classes, Counting::all())
            .expect("something leads here")
    }

    /// Three edges: with these on the first two; on the third OLD has a value of its own, and NEW has
    /// written nothing.
    #[test]
    fn what_new_has_not_written_is_what_old_has() {
        let mut values = Values::default();
        let entry = values.intern(Node::Entry(Place::General(7)));
        let held = [entry, values.constant(3), values.constant(4)];
        let mut classes = Classes::default();
        let [mut old, mut new] = [(); 2].map(|()| held.map(|_| machine(&mut values)));
        for (machine, value) in old.iter_mut().zip(held) {
            machine.set_slot(&mut values, -24, 8, value);
        }
        for (machine, value) in new.iter_mut().zip(&held[..2]) {
            machine.set_slot(&mut values, -40, 8, *value);
        }
        let old = joined(&mut values, &old, Side::Old, &mut classes);
        let new = joined(&mut values, &new, Side::New, &mut classes);
        assert_eq!(new.at(Place::Slot(-40, 8)), old.at(Place::Slot(-24, 8)));
    }

    #[test]
    fn garbage_of_new_is_no_reason_to_drop_a_value() {
        let mut values = Values::default();
        let value = values.constant(5);
        let mut classes = Classes::default();
        let new = half_written(&mut values, &[-40], value);
        let new = joined(&mut values, &new, Side::New, &mut classes);
        assert_eq!(new.at(Place::Slot(-40, 8)), Some(value));
    }

    #[test]
    fn garbage_of_old_equals_nothing() {
        let mut values = Values::default();
        let value = values.constant(5);
        let mut classes = Classes::default();
        let old = half_written(&mut values, &[-24, -32], value);
        let old = joined(&mut values, &old, Side::Old, &mut classes);
        let (a, b) = (old.at(Place::Slot(-24, 8)), old.at(Place::Slot(-32, 8)));
        assert_ne!(a, b);
        assert!(a != Some(value) && b != Some(value));
    }

    #[test]
    fn what_was_lost_is_no_garbage() {
        let mut values = Values::default();
        let value = values.constant(5);
        let mut classes = Classes::default();
        let mut new = half_written(&mut values, &[-40], value);
        new[1].lose_others();
        let new = joined(&mut values, &new, Side::New, &mut classes);
        assert_ne!(new.at(Place::Slot(-40, 8)), Some(value));
        assert!(new.has_lost_slots());
    }

    /// On each edge: what rbx holds, and what r12 does.
    fn counting(values: &mut Values, edges: &[(Value, Value)]) -> Machine {
        let mut arrivals = Vec::new();
        for (pointer, number) in edges {
            let mut one = machine(values);
            one.set_general(3, *pointer);
            one.set_general(12, *number);
            arrivals.push(one);
        }
        joined(values, &arrivals, Side::Old, &mut Classes::default())
    }

    #[test]
    fn a_pointer_is_said_in_terms_of_the_number_of_its_element() {
        let mut values = Values::default();
        let base = values.intern(Node::Entry(Place::General(7)));
        let again = values.intern(Node::Phi(HERE, Side::Old, Place::General(12)));
        let (two, next) = (values.constant(2), values.offset(again, 1));
        let at = |values: &mut Values, number: Value| values.linear(&[(base, 1), (number, 16)], 0);
        let edges = [(at(&mut values, two), two), (at(&mut values, next), next)];
        let machine = counting(&mut values, &edges);
        let number = machine.general(12);
        assert_eq!(machine.general(3), at(&mut values, number));
    }

    #[test]
    fn what_goes_its_own_way_on_one_edge_has_a_name_of_its_own() {
        let mut values = Values::default();
        let base = values.intern(Node::Entry(Place::General(7)));
        let edges = [(0, 0), (16, 1), (40, 2)];
        let edges = edges.map(|(at, n)| (values.offset(base, at), values.constant(n)));
        let machine = counting(&mut values, &edges);
        let own = values.intern(Node::Phi(HERE, Side::Old, Place::General(3)));
        assert_eq!(machine.general(3), own);
        // What is added must be the same the next time, too.
        let moving = values.intern(Node::Phi(HERE, Side::Old, Place::General(6)));
        let edges = [0, 1].map(|n| {
            let number = values.constant(n);
            (values.linear(&[(moving, 1), (number, 8)], 0), number)
        });
        let machine = counting(&mut values, &edges);
        assert_eq!(machine.general(3), own);
    }

    #[test]
    fn of_a_slot_that_is_read_in_part_that_part_is_compared() {
        let mut values = Values::default();
        let (one, five) = (values.constant(1), values.constant(5));
        let [a, b] = [6, 7].map(|n| {
            let above = values.intern(Node::Entry(Place::General(n)));
            values.insert(1, above, one)
        });
        let mut edges = [a, b].map(|value| {
            let mut edge = machine(&mut values);
            edge.set_slot(&mut values, -40, 8, value);
            edge.set_slot(&mut values, -48, 8, value);
            edge.set_slot(&mut values, -56, 8, five);
            edge
        });
        // Nobody reads the second again, and on the third the edges agree.
        cut(&mut values, edges.iter_mut(), &[-56..-55, -40..-39]);
        for (edge, whole) in edges.iter().zip([a, b]) {
            let slots: Vec<_> = edge.slots().collect();
            assert_eq!(slots, [(-56, 8, five), (-48, 8, whole), (-40, 1, one)]);
        }
    }

    #[test]
    fn a_slot_written_in_halves_on_one_edge_is_unknown() {
        let mut values = Values::default();
        let value = values.intern(Node::Entry(Place::General(7)));
        let mut classes = Classes::default();
        let mut new = half_written(&mut values, &[-40], value);
        new[1].set_slot(&mut values, -40, 4, value);
        new[1].set_slot(&mut values, -36, 4, value);
        let new = joined(&mut values, &new, Side::New, &mut classes);
        let all: Vec<_> = new.slots().collect();
        assert_eq!(all.len(), 1);
        assert_ne!(all[0].2, value);
    }

    #[test]
    fn a_narrow_slot_keeps_the_rest_of_a_wide_one() {
        let mut values = Values::default();
        let value = values.constant(0x1122_3344_5566_7788);
        let byte = values.constant(0xff);
        let mut one = machine(&mut values);
        one.set_slot(&mut values, -16, 8, value);
        one.set_slot(&mut values, -15, 1, byte);
        let starts: Vec<(i64, u8)> = one.slots().map(|(at, bytes, _)| (at, bytes)).collect();
        assert_eq!(starts, [(-16, 1), (-15, 1), (-14, 4), (-10, 2)]);
    }
}
