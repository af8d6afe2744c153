//! What each body's registers, private slots and memory hold at a point of the product.

use super::value::{Base, Node, Place, Side, Value, Values};
use crate::machine::flow::BlockId;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

/// General registers.
const GENERAL: usize = 16;
/// Vector registers that are followed; the others are never sources.
pub const VECTORS: usize = 16;
/// Eight-byte lanes of a vector register that are followed (256 bits).
pub const LANES: usize = 4;
const FLAGS: usize = GENERAL + VECTORS * LANES;
const MEMORY: usize = FLAGS + 1;
const FIXED: usize = MEMORY + 1;

/// One body's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    fixed: [Value; FIXED],
    /// Private memory: offset from the CFA to bytes and value; no two overlap.
    slots: BTreeMap<i64, (u8, Value)>,
    /// Private memory beyond these slots may have been written.
    lost: bool,
}

/// What some bytes of private memory hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// A value.
    Value(Value),
    /// Nothing was written there since the function was entered, or since a call that may have used
    /// what was below the stack pointer.
    Garbage,
    /// Something that has no name.
    Unknown,
}

impl Machine {
    /// The state at a function's entry, each place holding what `entry` says.
    pub fn at_entry(
        values: &mut Values,
        mut entry: impl FnMut(&mut Values, Place) -> Value,
    ) -> Self {
        let nothing = values.constant(0);
        let mut fixed = [nothing; FIXED];
        for (index, slot) in fixed.iter_mut().enumerate() {
            *slot = entry(values, place_of(index));
        }
        // psABI 3.2.2: at entry the stack pointer is at the return address, eight below the CFA.
        fixed[4] = values.address(Base::Cfa, 8u64.wrapping_neg());
        Self { fixed, slots: BTreeMap::new(), lost: false }
    }

    /// What a general register holds.
    pub fn general(&self, number: u8) -> Value {
        self.fixed[usize::from(number) % GENERAL]
    }

    /// Writes a whole general register.
    pub fn set_general(&mut self, number: u8, value: Value) {
        self.fixed[usize::from(number) % GENERAL] = value;
    }

    /// The stack pointer is so many bytes below the CFA.
    pub fn set_depth(&mut self, values: &mut Values, depth: u64) {
        let top = values.address(Base::Cfa, depth.wrapping_neg());
        self.set_general(4, top);
    }

    /// What eight bytes of a vector register hold.
    pub fn lane(&self, number: u8, lane: u8) -> Value {
        self.fixed[lane_index(number, lane)]
    }

    /// Writes eight bytes of a vector register.
    pub fn set_lane(&mut self, number: u8, lane: u8, value: Value) {
        self.fixed[lane_index(number, lane)] = value;
    }

    /// The status flags.
    pub fn flags(&self) -> Value {
        self.fixed[FLAGS]
    }

    /// Writes the status flags.
    pub fn set_flags(&mut self, value: Value) {
        self.fixed[FLAGS] = value;
    }

    /// Memory outside of private slots.
    pub fn memory(&self) -> Value {
        self.fixed[MEMORY]
    }

    /// Replaces it.
    pub fn set_memory(&mut self, value: Value) {
        self.fixed[MEMORY] = value;
    }

    /// Private slots: offset from the CFA, bytes, value.
    pub fn slots(&self) -> impl Iterator<Item = (i64, u8, Value)> + '_ {
        self.slots.iter().map(|(at, (bytes, value))| (*at, *bytes, *value))
    }

    /// What a private slot holds, zero-extended; `None` when that was never written as one.
    pub fn slot(&self, values: &mut Values, at: i64, bytes: u8) -> Option<Value> {
        let (start, (size, value)) = self.slots.range(..=at).next_back()?;
        let (size, value) = (*size, *value);
        if at + i64::from(bytes) > start + i64::from(size) {
            return None;
        }
        // Inside the slot: less than eight.
        let skip = at.abs_diff(*start);
        if skip == 0 {
            return Some(values.low(bytes, value));
        }
        let shift = values.constant(8 * skip);
        let moved = values.operation(super::value::Operation::ShiftRight(8), &[value, shift]);
        Some(values.low(bytes, moved))
    }

    /// What some bytes of private memory hold.
    pub fn held(&self, values: &mut Values, at: i64, bytes: u8) -> Held {
        if let Some(value) = self.at(Place::Slot(at, bytes)) {
            return Held::Value(value);
        }
        if let Some(value) = self.slot(values, at, bytes) {
            return Held::Value(value);
        }
        let end = at + i64::from(bytes);
        let written = self
            .slots
            .range(at - 8..end)
            .any(|(start, (size, _))| start + i64::from(*size) > at && *start < end);
        if end <= -8 && !written && !self.lost { Held::Garbage } else { Held::Unknown }
    }

    /// The same machine without slots.
    pub fn without_slots(&self) -> Self {
        Self { fixed: self.fixed, slots: BTreeMap::new(), lost: false }
    }

    /// Writes a place; a slot where none is, its value zero-extended.
    pub fn put(&mut self, place: Place, value: Value) {
        match place {
            Place::General(number) => self.set_general(number, value),
            Place::Lane(number, lane) => self.set_lane(number, lane, value),
            Place::Flags => self.set_flags(value),
            Place::Memory => self.set_memory(value),
            Place::Slot(at, bytes) => self.put_slot(at, bytes, value),
        }
    }

    /// Adds a slot where none is, its value zero-extended.
    pub fn put_slot(&mut self, at: i64, bytes: u8, value: Value) {
        self.slots.insert(at, (bytes, value));
    }

    /// The same, unless it would overlap another one than that in its very place.
    pub fn add_slot(&mut self, at: i64, bytes: u8, value: Value) {
        let end = at + i64::from(bytes);
        let overlaps = |(start, (size, _)): (&i64, &(u8, Value))| {
            *start + i64::from(*size) > at && (*start, *size) != (at, bytes)
        };
        if !self.slots.range(at - 8..end).any(overlaps) {
            self.put_slot(at, bytes, value);
        }
    }

    /// Nothing is known of private memory beyond the slots.
    pub fn lose_others(&mut self) {
        self.lost = true;
    }

    /// Whether private memory beyond the slots may have been written.
    pub fn has_lost_slots(&self) -> bool {
        self.lost
    }

    /// Writes a private slot; what it covers only in part keeps its other bytes.
    pub fn set_slot(&mut self, values: &mut Values, at: i64, bytes: u8, value: Value) {
        let end = at + i64::from(bytes);
        let covered: Vec<(i64, u8, Value)> = self
            .slots
            .range(at - 8..end)
            .map(|(start, (size, v))| (*start, *size, *v))
            .filter(|(start, size, _)| start + i64::from(*size) > at)
            .collect();
        for (start, size, before) in covered {
            self.slots.remove(&start);
            self.keep_part(values, (start, before), start..at);
            self.keep_part(values, (start, before), end..start + i64::from(size));
        }
        let value = values.low(bytes, value);
        self.slots.insert(at, (bytes, value));
    }

    /// Puts back the bytes of a slot that are in `part`, in pieces of a power of two.
    fn keep_part(&mut self, values: &mut Values, slot: (i64, Value), part: Range<i64>) {
        let (start, value) = slot;
        let mut at = part.start;
        while at < part.end {
            let left = part.end - at;
            let bytes = [4u8, 2, 1].into_iter().find(|n| i64::from(*n) <= left).unwrap_or(1);
            // Inside of eight bytes.
            let shift = values.constant(8 * at.abs_diff(start));
            let moved = match at == start {
                true => value,
                false => values.operation(super::value::Operation::ShiftRight(8), &[value, shift]),
            };
            let low = values.low(bytes, moved);
            self.slots.insert(at, (bytes, low));
            at += i64::from(bytes);
        }
    }

    /// Forgets of private slots that some code reads again in part the bytes that none does; `live` are those
    /// that some does, sorted. Arguments, the return address and what the caller had in registers stay, and
    /// what `stays` says does.
    pub fn keep_live(
        &mut self,
        values: &mut Values,
        live: &[Range<i64>],
        stays: impl Fn(Place, Value) -> bool,
    ) {
        let is_partly = |start: i64, end: i64| {
            let first = live.get(live.partition_point(|part| part.end <= start));
            first.is_some_and(|part| part.start < end && (part.start > start || part.end < end))
        };
        let is_callers = |value: Value| matches!(values.node(value), Node::Entry(_));
        let of_frame = self.slots.range(..-8).map(|(start, (size, v))| (*start, *size, *v));
        let partly: Vec<(i64, u8, Value)> = of_frame
            .filter(|(at, bytes, value)| {
                is_partly(*at, at + i64::from(*bytes))
                    && !is_callers(*value)
                    && !stays(Place::Slot(*at, *bytes), *value)
            })
            .collect();
        for (start, bytes, value) in partly {
            let end = start + i64::from(bytes);
            self.slots.remove(&start);
            let first = live.partition_point(|part| part.end <= start);
            for part in live[first..].iter().take_while(|part| part.start < end) {
                let part = part.start.max(start)..part.end.min(end);
                self.keep_part(values, (start, value), part);
            }
        }
    }

    /// Forgets of private slots what is below the stack pointer: nothing there survives a call.
    pub fn forget_below(&mut self, values: &mut Values, depth: i64) {
        let kept = self.slots.split_off(&-depth);
        let below = std::mem::replace(&mut self.slots, kept);
        let last = below.last_key_value().map(|(start, (size, value))| (*start, *size, *value));
        if let Some((start, size, value)) = last {
            self.keep_part(values, (start, value), -depth..start + i64::from(size));
        }
    }

    /// Nothing is known of private memory any more.
    pub fn lose_slots(&mut self) {
        self.slots.clear();
        self.lost = true;
    }

    /// Every place with its value.
    pub fn places(&self) -> impl Iterator<Item = (Place, Value)> + '_ {
        let fixed = self.fixed.iter().enumerate().map(|(i, v)| (place_of(i), *v));
        fixed.chain(self.slots().map(|(at, bytes, v)| (Place::Slot(at, bytes), v)))
    }

    /// The same places with other values.
    pub fn map(&self, mut each: impl FnMut(Place, Value) -> Value) -> Self {
        let mut fixed = self.fixed;
        for (i, value) in fixed.iter_mut().enumerate() {
            *value = each(place_of(i), *value);
        }
        let slots = self.slots();
        let slots = slots.map(|(at, bytes, v)| (at, (bytes, each(Place::Slot(at, bytes), v))));
        Self { fixed, slots: slots.collect(), lost: self.lost }
    }

    /// What a place holds; `None` for a slot that is not there with this size.
    pub fn at(&self, place: Place) -> Option<Value> {
        match place {
            Place::General(n) => Some(self.general(n)),
            Place::Lane(n, lane) => Some(self.lane(n, lane)),
            Place::Flags => Some(self.flags()),
            Place::Memory => Some(self.memory()),
            Place::Slot(at, bytes) => {
                self.slots.get(&at).filter(|(size, _)| *size == bytes).map(|(_, v)| *v)
            }
        }
    }
}

fn lane_index(number: u8, lane: u8) -> usize {
    GENERAL + (usize::from(number) % VECTORS) * LANES + usize::from(lane) % LANES
}

/// The place of an index in [`Machine::fixed`]; the numbers are below 256.
fn place_of(index: usize) -> Place {
    let small = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    match index {
        MEMORY => Place::Memory,
        FLAGS => Place::Flags,
        _ if index < GENERAL => Place::General(small(index)),
        _ => {
            let index = index - GENERAL;
            Place::Lane(small(index / LANES), small(index % LANES))
        }
    }
}

/// What is wrong with the way that NEW is taken to have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// Nothing.
    None,
    /// OLD came here as NEW could not: NEW may be elsewhere.
    Place,
    /// OLD has done something that NEW would have done elsewhere.
    Path,
}

/// Where NEW was last known to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Where it is said to be.
    Here,
    /// At one of several places before, which it has left: before one of these blocks each, and what it held
    /// there. Nobody knows where it has gone from there.
    Before(Rc<BTreeMap<BTreeSet<BlockId>, Machine>>),
    /// Nobody knows.
    Nowhere,
}

/// Both bodies' states at one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Of the build that runs.
    pub old: Machine,
    /// Of the build to come.
    pub new: Machine,
    /// Whether NEW is where it is said to be.
    pub doubt: Doubt,
    /// Where it was last known to be.
    pub seen: Seen,
    /// Memory was changed by a call that NEW does not make, since both have made one behind which no code
    /// knows what memory holds: see [`super::unread`].
    pub changed: bool,
    /// Values that OLD has found to be zero on its way, or on each of its ways.
    pub zero: BTreeSet<Value>,
    /// Values that it has found not to be zero.
    pub apart: BTreeSet<Value>,
}

impl State {
    /// OLD has made a call that NEW no longer has, where both had the same memory: NEW finds it as OLD
    /// leaves it, though it may not know.
    pub fn change_memory(&mut self) {
        self.new.set_memory(self.old.memory());
        self.changed = true;
    }

    /// One side.
    pub fn side(&self, side: Side) -> &Machine {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }
}

/// Loads and stores outside of private slots.
pub mod memory {
    use super::{Base, Node, Value, Values};

    /// How many earlier stores a load looks behind, and a store is sorted among.
    const DEPTH: usize = 32;

    /// What memory holds at an address, zero-extended.
    pub fn load(values: &mut Values, memory: Value, address: Value, bytes: u8) -> Value {
        let mut memory = memory;
        for _ in 0..DEPTH {
            let Node::Store(before, at, value, size) = *values.node(memory) else { break };
            if at == address && size == bytes {
                return value;
            }
            if !apart(values, at, size, address, bytes) {
                break;
            }
            memory = before;
        }
        values.intern(Node::Load(memory, address, bytes))
    }

    /// Memory after a store. Stores that are surely apart are put into one order, whatever order the
    /// compiler chose.
    pub fn store(
        values: &mut Values,
        memory: Value,
        address: Value,
        value: Value,
        bytes: u8,
    ) -> Value {
        let value = values.low(bytes, value);
        let mut later = Vec::new();
        let mut memory = memory;
        while later.len() < DEPTH {
            let Node::Store(before, at, stored, size) = *values.node(memory) else { break };
            if at == address && size == bytes {
                memory = before;
                break;
            }
            if at < address || !apart(values, at, size, address, bytes) {
                break;
            }
            later.push((at, stored, size));
            memory = before;
        }
        memory = values.intern(Node::Store(memory, address, value, bytes));
        for (at, stored, size) in later.into_iter().rev() {
            memory = values.intern(Node::Store(memory, at, stored, size));
        }
        memory
    }

    /// Whether an address is in the part of the frame that the function has made itself.
    fn is_own((base, offset): (Base, u64)) -> bool {
        match base {
            Base::Local(_) => true,
            Base::Cfa => offset.cast_signed() < 0,
            _ => false,
        }
    }

    /// Whether two accesses surely do not overlap.
    fn apart(values: &Values, a: Value, a_bytes: u8, b: Value, b_bytes: u8) -> bool {
        let ((x, i), (y, j)) = (values.terms(a), values.terms(b));
        if x == y {
            let (from_a, from_b) = (j.wrapping_sub(i), i.wrapping_sub(j));
            return from_a >= u64::from(a_bytes) && from_b >= u64::from(b_bytes);
        }
        // Different objects of the program, both named outright.
        match (values.as_address(a), values.as_address(b)) {
            (Some((p, _)), Some((q, _))) => {
                let frame = |base| matches!(base, Base::Cfa | Base::Local(_));
                p != q && (frame(p) || frame(q))
            }
            (Some(own), None) => is_own(own) && values.is_from_entry(b),
            (None, Some(own)) => is_own(own) && values.is_from_entry(a),
            (None, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::memory::{load, store};
    use super::{Base, Node, Place, Side, Values};
    use crate::frames::point::PointId;

    /// A pointer that was there before the frame was is none into it; one that somebody gave later may be.
    #[test]
    fn who_was_there_before_does_not_know_the_frame() {
        let mut values = Values::default();
        let [before, pointer, five] = [
            Node::Entry(Place::Memory),
            Node::Entry(Place::General(7)),
            Node::Entry(Place::General(6)),
        ]
        .map(|node| values.intern(node));
        let local = values.address(Base::Local(0), 0);
        let written = store(&mut values, before, local, five, 8);
        let kept = load(&mut values, written, pointer, 8);
        assert_eq!(*values.node(kept), Node::Load(before, pointer, 8));
        // What it points to may be, where the local's address was put there.
        let told = store(&mut values, written, pointer, local, 8);
        let later = values.offset(pointer, 4);
        let next = load(&mut values, told, later, 8);
        let through = load(&mut values, written, next, 8);
        assert_eq!(*values.node(through), Node::Load(written, next, 8));
        let given = Node::Given(PointId(1), Some(Side::Old), 0, Place::General(0));
        let given = values.intern(given);
        let unknown = load(&mut values, written, given, 8);
        assert_eq!(*values.node(unknown), Node::Load(written, given, 8));
    }
}
