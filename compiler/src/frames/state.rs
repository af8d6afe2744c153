//! What each body's registers, private slots and memory hold at a point of the product.

use super::point::PointId;
use super::value::{Base, Node, Place, Side, Value, Values};
use std::collections::{BTreeMap, HashMap};

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
        Self { fixed, slots: BTreeMap::new() }
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

    /// Writes a private slot; what it covers only in part keeps its low bytes.
    pub fn set_slot(&mut self, values: &mut Values, at: i64, bytes: u8, value: Value) {
        let end = at + i64::from(bytes);
        let covered: Vec<(i64, u8, Value)> = self
            .slots
            .range(at - 8..end)
            .map(|(start, (size, v))| (*start, *size, *v))
            .filter(|(start, size, _)| start + i64::from(*size) > at)
            .collect();
        for (start, _, before) in covered {
            self.slots.remove(&start);
            if let Ok(left @ (1 | 2 | 4)) = u8::try_from(at - start) {
                let low = values.low(left, before);
                self.slots.insert(start, (left, low));
            }
        }
        let value = values.low(bytes, value);
        self.slots.insert(at, (bytes, value));
    }

    /// Forgets private slots that reach below the stack pointer: nothing there survives a call.
    pub fn forget_below(&mut self, depth: i64) {
        self.slots = self.slots.split_off(&-depth);
    }

    /// Every place with its value.
    pub fn places(&self) -> impl Iterator<Item = (Place, Value)> + '_ {
        let fixed = self.fixed.iter().enumerate().map(|(i, v)| (place_of(i), *v));
        fixed.chain(self.slots().map(|(at, bytes, v)| (Place::Slot(at, bytes), v)))
    }

    /// The same places with other values; `None` takes a slot away.
    pub fn map(&self, mut each: impl FnMut(Place, Value) -> Option<Value>) -> Self {
        let mut fixed = self.fixed;
        for (i, value) in fixed.iter_mut().enumerate() {
            *value = each(place_of(i), *value).unwrap_or(*value);
        }
        let slots = self
            .slots()
            .filter_map(|(at, bytes, v)| each(Place::Slot(at, bytes), v).map(|v| (at, (bytes, v))));
        Self { fixed, slots: slots.collect() }
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

/// Both bodies' states at one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Of the build that runs.
    pub old: Machine,
    /// Of the build to come.
    pub new: Machine,
    /// Whether NEW is where it is said to be.
    pub doubt: Doubt,
}

impl State {
    /// One side.
    pub fn side(&self, side: Side) -> &Machine {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }
}

/// Places that hold one value on each edge into a point, by these values.
pub type Classes = HashMap<Vec<Value>, Value>;

/// What all states agree on that lead to a point; `None` when there is none. Places stay equal only if
/// they are so in each of them, and a name that stands for the last time this point was passed is
/// replaced by a new one.
pub fn join(
    values: &mut Values,
    arrivals: &[&Machine],
    (id, side): (PointId, Side),
    classes: &mut Classes,
) -> Option<Machine> {
    Some(arrivals.first()?.map(|place, _| {
        let all: Vec<Value> = arrivals.iter().map(|m| m.at(place)).collect::<Option<_>>()?;
        let value = all[0];
        let stays =
            all.iter().all(|v| *v == value) && values.depends(value).binary_search(&id).is_err();
        if stays {
            return Some(value);
        }
        let mut name = || values.intern(Node::Phi(id, side, place));
        Some(*classes.entry(all).or_insert_with(&mut name))
    }))
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
            _ => false,
        }
    }
}
