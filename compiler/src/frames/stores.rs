//! Whether both builds have stored the same by now, though in another order or in other pieces.
//!
//! A compiler that knows that two accesses do not meet, by the rules of its language (C17 6.5: an object is
//! accessed as what it is) or by what it has seen of their addresses, moves the one past the other, leaves out a
//! store that a later one covers, reads a place once instead of twice, and makes one store of several. Another
//! build of the same source does not. Of the code alone nothing shows that the accesses do not meet.
//!
//! Takes both builds' memory, as what was stored since they had the same. Here addresses that are not made of the
//! same are taken to be apart, on both sides. What is asked is only whether one build has a store before it
//! that the other one has made: memory is what OLD has made of it, whatever NEW would have. No register is said
//! to hold anything for that reason.

use super::value::{Bits, Node, Operation, Value, Values, operands};
use iced_x86::Code;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// So many stores are compared on each side.
const MOST: usize = 96;
/// So many values, and stores behind which each is looked for, are gone through for one comparison.
const BUDGET: usize = 20_000;
/// How deep values are gone into.
const DEPTH: usize = 64;

/// What a byte of memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Byte {
    /// A number.
    Known(u8),
    /// That byte of a value.
    Of(Value, u8),
    /// What memory held at a base plus an offset.
    At(Value, Value, u64),
}

/// Bytes by what their addresses are made of, and the number added to that.
type Written = BTreeMap<(Value, u64), Byte>;
/// An address, what is stored there, and how many bytes.
type Stored = (Value, Value, u8);

/// Whether the same was stored on both sides since memory was the same. `zero` are values that are zero.
pub fn are_alike(values: &mut Values, zero: &BTreeSet<Value>, (old, new): (Value, Value)) -> bool {
    let mut stores = Stores::new(values, zero);
    stores.of_both(old, new).is_some_and(|(a, b)| a == b)
}

struct Stores<'v> {
    values: &'v mut Values,
    known: FxHashMap<Value, Value>,
    bytes: FxHashMap<(Value, u8), Byte>,
    left: usize,
}

impl<'v> Stores<'v> {
    fn new(values: &'v mut Values, zero: &BTreeSet<Value>) -> Self {
        let nothing = values.constant(0);
        let known = zero.iter().map(|value| (*value, nothing)).collect();
        Self { values, known, bytes: FxHashMap::default(), left: BUDGET }
    }

    /// What has been stored on both sides since memory was the same; `None` where it never was, or that is too
    /// much.
    fn of_both(&mut self, old: Value, new: Value) -> Option<(Written, Written)> {
        let ((first, a), (other, b)) = (self.stores(old)?, self.stores(new)?);
        if first != other {
            return None;
        }
        Some((self.written(first, &a)?, self.written(first, &b)?))
    }

    /// Memory before all stores, and those, the last one first.
    fn stores(&self, memory: Value) -> Option<(Value, Vec<Stored>)> {
        let (mut stores, mut first) = (Vec::new(), memory);
        while let Node::Store(before, at, value, bytes) = *self.values.node(first) {
            if stores.len() == MOST {
                return None;
            }
            stores.push((at, value, bytes));
            first = before;
        }
        Some((first, stores))
    }

    fn written(&mut self, first: Value, stores: &[Stored]) -> Option<Written> {
        let mut written = Written::new();
        for (at, value, bytes) in stores.iter().rev() {
            let (at, value) = (self.seen(*at, DEPTH)?, self.seen(*value, DEPTH)?);
            let (base, offset) = self.parts(at);
            for byte in 0..*bytes {
                let holds = self.byte(value, byte);
                written.insert((base, offset.wrapping_add(byte.into())), holds);
            }
        }
        // What is put back where it was is not stored.
        written.retain(|(base, offset), holds| *holds != Byte::At(first, *base, *offset));
        Some(written)
    }

    /// What an address is made of, and the number added to that.
    fn parts(&mut self, address: Value) -> (Value, u64) {
        let (terms, offset) = self.values.terms(address);
        (self.values.linear(&terms, 0), offset)
    }

    /// One byte of a value.
    fn byte(&mut self, value: Value, number: u8) -> Byte {
        if let Some(known) = self.bytes.get(&(value, number)) {
            return *known;
        }
        let byte = self.one_byte(value, number);
        self.bytes.insert((value, number), byte);
        byte
    }

    fn one_byte(&mut self, value: Value, number: u8) -> Byte {
        // No value is of more than eight bytes.
        let part = |bits: u64| bits.to_le_bytes().get(usize::from(number)).copied().unwrap_or(0);
        if part(self.values.possible(value)) == 0 {
            return Byte::Known(0);
        }
        let Bits { of, kept, changed } = self.values.bits(value);
        if of != value {
            let mut byte = self.byte(of, number);
            let (kept, changed) = (part(kept | !self.values.possible(of)), part(changed));
            for (op, with, idle) in [(Operation::And, kept, 0xff), (Operation::Xor, changed, 0)] {
                if with != idle {
                    byte = self.both(op, [byte, Byte::Known(with)]);
                }
            }
            return byte;
        }
        match self.values.node(value).clone() {
            Node::Linear(terms, k) if terms.is_empty() => Byte::Known(part(k)),
            Node::Signed(bytes, inner) if number < bytes => self.byte(inner, number),
            Node::Insert(bytes, _, low) if number < bytes => self.byte(low, number),
            Node::Insert(_, above, _) => self.byte(above, number),
            Node::Load(memory, address, _) => {
                let (base, offset) = self.parts(address);
                Byte::At(memory, base, offset.wrapping_add(number.into()))
            }
            // Bit by bit, so byte by byte.
            Node::Operation(op @ (Operation::And | Operation::Or | Operation::Xor), operands) => {
                let both = [operands[0], operands[1]].map(|operand| self.byte(operand, number));
                self.both(op, both)
            }
            Node::Operation(Operation::ShiftRight(width), operands) => {
                match self.values.as_constant(operands[1]) {
                    Some(bits) if bits % 8 == 0 && bits < u64::from(width) * 8 => {
                        let from = u8::try_from(bits / 8).unwrap_or(0) + number;
                        if from < width { self.byte(operands[0], from) } else { Byte::Known(0) }
                    }
                    _ => Byte::Of(value, number),
                }
            }
            Node::Operation(Operation::Instruction { code, output: 1, .. }, operands) => {
                // The bytes from the other end (SDM volume 2, BSWAP).
                let last = match code {
                    _ if code == Code::Bswap_r32 as u16 => 3u8,
                    _ if code == Code::Bswap_r64 as u16 => 7,
                    _ => return Byte::Of(value, number),
                };
                match last.checked_sub(number) {
                    Some(from) => self.byte(operands[0], from),
                    None => Byte::Of(value, number),
                }
            }
            Node::Linear(terms, k) => {
                let beside = if k == 0 { self.beside(&terms, number) } else { None };
                beside.unwrap_or_else(|| {
                    // What the sum is beyond these bytes does not matter.
                    let low = self.values.low((number + 1).next_power_of_two(), value);
                    match *self.values.node(low) {
                        Node::Low(_, inner) => Byte::Of(inner, number),
                        _ => Byte::Of(low, number),
                    }
                })
            }
            _ => Byte::Of(value, number),
        }
    }

    /// A byte of a sum of values that are shifted by whole bytes, where no bit of one meets one of another: there is
    /// no carry.
    fn beside(&mut self, terms: &[(Value, u64)], number: u8) -> Option<Byte> {
        let mut taken = 0;
        let mut parts = Vec::new();
        for (value, factor) in terms {
            let shift = factor.trailing_zeros();
            if !factor.is_power_of_two() || shift % 8 != 0 {
                return None;
            }
            let bits = self.values.possible(*value) << shift;
            if taken & bits != 0 {
                return None;
            }
            taken |= bits;
            let from = number.checked_sub(u8::try_from(shift / 8).ok()?);
            parts.extend(from.map(|from| (*value, from)));
        }
        let mut sum = Byte::Known(0);
        for (value, from) in parts {
            let part = self.byte(value, from);
            sum = self.both(Operation::Or, [sum, part]);
        }
        Some(sum)
    }

    /// A bitwise operation on two bytes.
    fn both(&mut self, operation: Operation, bytes: [Byte; 2]) -> Byte {
        let [a, b] = bytes.map(|byte| self.alone(byte));
        let value = self.values.bitwise(operation, a, b);
        if let Some(at) = [a, b].iter().position(|one| *one == value) {
            return bytes[at];
        }
        match (self.values.as_constant(value), self.values.node(value)) {
            (Some(number), _) => Byte::Known(number.to_le_bytes()[0]),
            (_, &Node::Load(memory, address, 1)) => {
                let (base, offset) = self.parts(address);
                Byte::At(memory, base, offset)
            }
            _ => Byte::Of(value, 0),
        }
    }

    /// A byte as a value that is no more than it.
    fn alone(&mut self, byte: Byte) -> Value {
        match byte {
            Byte::Known(number) => self.values.constant(number.into()),
            Byte::Of(value, 0) => self.values.low(1, value),
            Byte::Of(value, number) => {
                let bits = self.values.constant(8 * u64::from(number));
                let shifted = self.values.operation(Operation::ShiftRight(8), &[value, bits]);
                self.values.low(1, shifted)
            }
            Byte::At(memory, base, offset) => {
                let address = self.values.offset(base, offset);
                self.values.intern(Node::Load(memory, address, 1))
            }
        }
    }

    /// A value as if no store but those to the same address had been made before it was read.
    fn seen(&mut self, value: Value, depth: usize) -> Option<Value> {
        if let Some(known) = self.known.get(&value) {
            return Some(*known);
        }
        let depth = depth.checked_sub(1)?;
        self.left = self.left.checked_sub(1)?;
        let node = self.values.node(value).clone();
        let seen = match node {
            Node::Load(memory, address, bytes) => {
                let address = self.seen(address, depth)?;
                self.read(memory, address, bytes, depth)?
            }
            Node::Store(..) => value,
            _ => {
                let all = operands(&node).into_iter().map(|operand| self.seen(operand, depth));
                let all: Vec<Value> = all.collect::<Option<_>>()?;
                self.values.remade(&node, &all)
            }
        };
        self.known.insert(value, seen);
        Some(seen)
    }

    /// What was last stored at an address, or what memory held there before all stores.
    fn read(&mut self, from: Value, address: Value, bytes: u8, depth: usize) -> Option<Value> {
        let (base, offset) = self.parts(address);
        let mut memory = from;
        while let Node::Store(before, at, value, size) = *self.values.node(memory) {
            self.left = self.left.checked_sub(1)?;
            let at = self.seen(at, depth)?;
            if at == address && size == bytes {
                return self.seen(value, depth);
            }
            let (other, start) = self.parts(at);
            let (ahead, behind) = (offset.wrapping_sub(start), start.wrapping_sub(offset));
            if other == base && (ahead < u64::from(size) || behind < u64::from(bytes)) {
                break;
            }
            memory = before;
        }
        Some(self.values.intern(Node::Load(memory, address, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::are_alike as compared;
    use crate::frames::point::PointId;
    use crate::frames::state::memory::{load, store};
    use crate::frames::value::{Node, Operation, Place, Value, Values};
    use iced_x86::Code;
    use std::collections::BTreeSet;

    fn are_alike(values: &mut Values, old: Value, new: Value) -> bool {
        compared(values, &BTreeSet::new(), (old, new))
    }

    /// Memory as it was, and what three registers held.
    fn start(values: &mut Values) -> (Value, [Value; 3]) {
        let memory = values.intern(Node::Entry(Place::Memory));
        (memory, [7, 6, 2].map(|n| values.intern(Node::Entry(Place::General(n)))))
    }

    #[test]
    fn the_order_of_stores_to_unlike_addresses_does_not_count() {
        let mut values = Values::default();
        let (memory, [p, q, x]) = start(&mut values);
        let zero = values.constant(0);
        let mut both = [[(p, x), (q, zero)], [(q, zero), (p, x)]].map(|stores| {
            stores.iter().fold(memory, |m, (at, v)| store(&mut values, m, *at, *v, 8))
        });
        assert_ne!(both[0], both[1]);
        assert!(are_alike(&mut values, both[0], both[1]));
        // One has a store before it.
        both[1] = store(&mut values, memory, p, x, 8);
        assert!(!are_alike(&mut values, both[0], both[1]));
        // Not to the same memory.
        let other = values.intern(Node::Given(PointId(1), None, 0, Place::Memory));
        both[1] =
            [(q, zero), (p, x)].iter().fold(other, |m, (at, v)| store(&mut values, m, *at, *v, 8));
        assert!(!are_alike(&mut values, both[0], both[1]));
    }

    #[test]
    fn what_is_read_again_is_the_same_but_behind_a_store_to_it() {
        let mut values = Values::default();
        let (memory, [p, q, x]) = start(&mut values);
        let once = load(&mut values, memory, q, 8);
        let first = store(&mut values, memory, p, x, 8);
        let again = load(&mut values, first, q, 8);
        let at = values.offset(once, 8);
        let other = values.offset(again, 8);
        let (old, new) =
            (store(&mut values, first, at, once, 8), store(&mut values, first, other, again, 8));
        assert_ne!(old, new);
        assert!(are_alike(&mut values, old, new));
        // An increment by one more is not.
        let more = values.offset(again, 1);
        let new = store(&mut values, first, other, more, 8);
        assert!(!are_alike(&mut values, old, new));
        // Nor is what was read before a store to its own address, or to a part of it.
        for at in [0, 4] {
            let into = values.offset(q, at);
            let first = store(&mut values, memory, into, x, 4);
            let again = load(&mut values, first, q, 8);
            let (old, new) =
                (store(&mut values, first, p, once, 8), store(&mut values, first, p, again, 8));
            assert!(!are_alike(&mut values, old, new));
        }
    }

    #[test]
    fn pieces_count_by_the_byte() {
        let mut values = Values::default();
        let (memory, [p, q, _]) = start(&mut values);
        let whole = values.constant(0x2e2e);
        let dot = values.constant(0x2e);
        let next = values.offset(p, 1);
        let old = store(&mut values, memory, p, whole, 2);
        let half = store(&mut values, memory, p, dot, 1);
        let new = store(&mut values, half, next, dot, 1);
        assert!(are_alike(&mut values, old, new));
        assert!(!are_alike(&mut values, old, half));
        // A structure that is copied.
        let four = values.offset(q, 4);
        let upper = values.offset(p, 4);
        let (all, low, high) = (
            load(&mut values, memory, q, 8),
            load(&mut values, memory, q, 4),
            load(&mut values, memory, four, 4),
        );
        let old = store(&mut values, memory, p, all, 8);
        let half = store(&mut values, memory, p, low, 4);
        let new = store(&mut values, half, upper, high, 4);
        let swapped = store(&mut values, half, upper, low, 4);
        assert!(are_alike(&mut values, old, new));
        assert!(!are_alike(&mut values, old, swapped));
    }

    #[test]
    fn bits_count_by_the_byte() {
        let mut values = Values::default();
        let (memory, [p, q, x]) = start(&mut values);
        let upper = values.offset(p, 4);
        // Two halves that are put together, and a sum that may carry from the one into the other.
        let read = load(&mut values, memory, q, 8);
        let (low, half) = (values.low(4, read), values.low(4, x));
        let [beside, carrying] =
            [low, read].map(|low| values.linear(&[(low, 1), (half, 1 << 32)], 0));
        let first = store(&mut values, memory, p, low, 4);
        let pieces = store(&mut values, first, upper, half, 4);
        for (sum, alike) in [(beside, true), (carrying, false)] {
            let whole = store(&mut values, memory, p, sum, 8);
            assert_eq!(are_alike(&mut values, whole, pieces), alike);
        }
        // A mask that leaves all bytes but one, and that bit of it.
        let before = load(&mut values, memory, p, 8);
        let six = values.offset(p, 6);
        let byte = load(&mut values, memory, six, 1);
        for (mask, of_byte, alike) in [
            (!(1 << 54), 0xbf, true),
            (!(1 << 55), 0xbf, false),
            (!(1 << 54 | 1), 0xbf, false),
            (!(1 << 54), 0xff, false),
        ] {
            let (mask, of_byte) = (values.constant(mask), values.constant(of_byte));
            let whole = values.bitwise(Operation::And, before, mask);
            let piece = values.bitwise(Operation::And, byte, of_byte);
            let whole = store(&mut values, memory, p, whole, 8);
            let piece = store(&mut values, memory, six, piece, 1);
            assert_eq!(are_alike(&mut values, whole, piece), alike);
        }
        // Above the sign's byte it is the sign's.
        let signed = values.signed(2, x);
        for (bytes, alike) in [(2, true), (4, false)] {
            let extended = store(&mut values, memory, p, signed, bytes);
            let plain = store(&mut values, memory, p, x, bytes);
            assert_eq!(are_alike(&mut values, extended, plain), alike);
        }
    }

    #[test]
    fn turned_bytes_are_the_same_ones_from_the_other_end() {
        let mut values = Values::default();
        let (memory, [p, _, x]) = start(&mut values);
        for (code, bytes) in [(Code::Bswap_r32, 4u8), (Code::Bswap_r64, 8)] {
            let operation = Operation::Instruction { code: code as u16, immediate: 0, output: 1 };
            let of = values.low(bytes, x);
            let turned = values.operation(operation, &[of]);
            let whole = store(&mut values, memory, p, turned, bytes);
            let plain = store(&mut values, memory, p, x, bytes);
            assert!(!are_alike(&mut values, whole, plain));
            let mut pieces = memory;
            for byte in 0..bytes {
                let at = values.offset(p, byte.into());
                let shift = values.constant(8 * u64::from(bytes - 1 - byte));
                let moved = values.operation(Operation::ShiftRight(8), &[x, shift]);
                assert!(!are_alike(&mut values, whole, pieces));
                pieces = store(&mut values, pieces, at, moved, 1);
            }
            assert!(are_alike(&mut values, whole, pieces));
        }
    }

    #[test]
    fn a_store_that_is_covered_or_changes_nothing_is_none() {
        let mut values = Values::default();
        let (memory, [p, q, x]) = start(&mut values);
        let zero = values.constant(0);
        let once = store(&mut values, memory, q, x, 8);
        let old = store(&mut values, once, p, x, 8);
        let new = [(p, zero), (q, x), (p, x)]
            .iter()
            .fold(memory, |m, (at, v)| store(&mut values, m, *at, *v, 8));
        assert!(are_alike(&mut values, old, new));
        let same = load(&mut values, memory, p, 8);
        let back = store(&mut values, memory, p, same, 8);
        assert!(are_alike(&mut values, memory, back));
        assert!(!are_alike(&mut values, memory, once));
    }

    #[test]
    fn what_is_known_to_be_zero_is_stored_as_such() {
        let mut values = Values::default();
        let (memory, [p, _, x]) = start(&mut values);
        let zero = values.constant(0);
        let (old, new) =
            (store(&mut values, memory, p, x, 8), store(&mut values, memory, p, zero, 8));
        assert!(compared(&mut values, &BTreeSet::from([x]), (old, new)));
        assert!(!compared(&mut values, &BTreeSet::new(), (old, new)));
    }
}
