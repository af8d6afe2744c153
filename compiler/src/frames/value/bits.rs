//! What rows of bitwise operations with numbers make of a value, in one form whatever their order.

use super::narrow::MOST_DEPTH;
use super::{Node, Operation, Value, Values, mask};

/// So many values of one row of the same bitwise operation are put into order.
const MOST_LINKS: usize = 12;

/// What any row of `and`, `or` and `xor` with numbers makes of a value (SDM volume 2: bit by bit):
/// `(of & kept) ^ changed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    /// The value.
    pub of: Value,
    /// What is kept of it.
    pub kept: u64,
    /// What is changed then.
    pub changed: u64,
}

impl Bits {
    fn all_of(of: Value) -> Self {
        Self { of, kept: u64::MAX, changed: 0 }
    }

    /// With one more number.
    fn then(self, operation: Operation, number: u64) -> Self {
        let Self { of, kept, changed } = self;
        match operation {
            Operation::And => Self { of, kept: kept & number, changed: changed & number },
            Operation::Or => Self { of, kept: kept & !number, changed: changed | number },
            _ => Self { of, kept, changed: changed ^ number },
        }
    }
}

impl Values {
    /// A value whose low bytes are those of this one, where numbers say which bits of it count: those above them
    /// do not.
    pub(super) fn bits_below(&mut self, bytes: u8, value: Value) -> Value {
        let Bits { of, kept, changed } = self.bits(value);
        let below = mask(bytes);
        if of == value || (kept | changed) & !below == 0 {
            return value;
        }
        let made = self.made_of_bits(Bits { of, kept: kept & below, changed: changed & below });
        match *self.node(made) {
            Node::Low(n, inner) if n >= bytes => self.strip(bytes, inner),
            _ => made,
        }
    }

    /// The bits of a value that are not known to be zero.
    pub fn possible(&self, value: Value) -> u64 {
        self.possible_at(value, MOST_DEPTH)
    }

    pub(super) fn possible_at(&self, value: Value, depth: u8) -> u64 {
        let Some(below) = depth.checked_sub(1) else { return u64::MAX };
        let of = |v: &Value| self.possible_at(*v, below);
        match self.node(value) {
            Node::Linear(terms, k) => {
                // No bit above the sum's first, and none below the first of all its parts.
                let most = self.most(value, depth);
                let above = u64::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
                let parts = terms.iter().map(|(term, factor)| {
                    of(term).trailing_zeros().saturating_add(factor.trailing_zeros())
                });
                let zeros = parts.fold(k.trailing_zeros(), u32::min);
                above & u64::MAX.checked_shl(zeros).unwrap_or(0)
            }
            Node::Low(n, v) => mask(*n) & of(v),
            Node::Load(_, _, n) => mask(*n),
            Node::Insert(n, above, low) => of(above) & !mask(*n) | of(low) & mask(*n),
            Node::Operation(Operation::Condition(_), _) => 1,
            Node::Operation(Operation::ShiftRight(n), operands) => {
                let shift = self.as_constant(operands[1]).filter(|s| *s < 64);
                let shifted = shift.map(|shift| (of(&operands[0]) & mask(*n)) >> shift);
                shifted.unwrap_or(mask(*n))
            }
            Node::Operation(Operation::And, operands) => {
                operands.iter().map(of).fold(u64::MAX, |all, bits| all & bits)
            }
            Node::Operation(Operation::Or | Operation::Xor, operands) => {
                operands.iter().map(of).fold(0, |all, bits| all | bits)
            }
            Node::Operation(Operation::Select, operands) => {
                operands[1..].iter().map(of).fold(0, |all, bits| all | bits)
            }
            _ => u64::MAX,
        }
    }

    /// Bitwise operations, in one form whatever the order of the numbers among them.
    pub fn bitwise(&mut self, operation: Operation, a: Value, b: Value) -> Value {
        let (x, y) = (self.as_constant(a), self.as_constant(b));
        let (a, k) = match (x, y) {
            (Some(x), _) => (b, Some(x)),
            (_, y) => (a, y),
        };
        if let Some(k) = k {
            let bits = self.bits(a).then(operation, k);
            return self.made_of_bits(bits);
        }
        let (p, q) = (self.bits(a), self.bits(b));
        match operation {
            Operation::Or => {
                // Bits that are one on either side are so, whatever the other bits of both are.
                let ones = p.changed & !p.kept | q.changed & !q.kept;
                if ones == 0 {
                    return self.row(operation, p, q);
                }
                let others = [p, q].map(|bits| bits.then(Operation::And, !ones));
                let [a, b] = others.map(|bits| self.made_of_bits(bits));
                let rest = self.bitwise(operation, a, b);
                let bits = self.bits(rest).then(operation, ones);
                self.made_of_bits(bits)
            }
            Operation::Xor => {
                // (a ^ c) ^ b is (a ^ b) ^ c.
                let changed = p.changed ^ q.changed;
                if p.changed | q.changed == 0 {
                    return self.row(operation, p, q);
                }
                let [a, b] = [p, q].map(|bits| self.made_of_bits(Bits { changed: 0, ..bits }));
                let rest = self.bitwise(operation, a, b);
                let bits = self.bits(rest).then(operation, changed);
                self.made_of_bits(bits)
            }
            _ => self.row(operation, p, q),
        }
    }

    /// The same operation on more than two values is the same in any order (SDM volume 2, AND, OR, XOR: bit by
    /// bit); what is there twice is once, or cancels.
    fn row(&mut self, operation: Operation, a: Bits, b: Bits) -> Value {
        let mut all = Vec::new();
        for bits in [a, b] {
            let value = self.made_of_bits(bits);
            self.links(operation, value, &mut all);
        }
        all.sort_unstable();
        if operation == Operation::Xor {
            let mut odd: Vec<Value> = Vec::new();
            for value in all {
                if odd.last() == Some(&value) {
                    odd.pop();
                } else {
                    odd.push(value);
                }
            }
            all = odd;
        } else {
            all.dedup();
        }
        let Some((first, rest)) = all.split_first() else { return self.constant(0) };
        rest.iter().fold(*first, |made, value| self.operation(operation, &[made, *value]))
    }

    fn links(&self, operation: Operation, value: Value, all: &mut Vec<Value>) {
        match self.node(value) {
            Node::Operation(op, operands)
                if *op == operation
                    && all.len() < MOST_LINKS
                    && operands.iter().all(|v| self.as_constant(*v).is_none()) =>
            {
                operands.iter().for_each(|v| self.links(operation, *v, all));
            }
            _ => all.push(value),
        }
    }

    /// `and` with a number: of a row of `or` or `xor` it is that of each, bit by bit.
    fn kept_of(&mut self, value: Value, kept: u64) -> Value {
        let of = self.bits(value).of;
        let wide = |op: &Operation| matches!(op, Operation::Or | Operation::Xor);
        let operation = match self.node(of) {
            Node::Operation(op, _) if wide(op) => Some(*op),
            _ => None,
        };
        let mut all = Vec::new();
        if let Some(operation) = operation {
            self.links(operation, of, &mut all);
        }
        let nested = |v: &Value| matches!(self.node(*v), Node::Operation(op, _) if wide(op));
        match (operation, all.split_first()) {
            (Some(operation), Some((first, rest))) if !all.iter().any(nested) => {
                let first = self.bits(*first).then(Operation::And, kept);
                let mut made = self.made_of_bits(first);
                for other in rest {
                    let other = self.bits(*other).then(Operation::And, kept);
                    let other = self.made_of_bits(other);
                    made = self.bitwise(operation, made, other);
                }
                made
            }
            _ => {
                let number = self.constant(kept);
                self.commutative(Operation::And, value, number)
            }
        }
    }

    /// A value as the bits of another one that numbers have kept, changed, or put in their place.
    pub fn bits(&self, value: Value) -> Bits {
        let mut bits = Bits::all_of(value);
        while let Some(inner) = self.bits_of_one(bits.of) {
            bits = Bits {
                of: inner.of,
                kept: inner.kept & bits.kept,
                changed: inner.changed & bits.kept ^ bits.changed,
            };
        }
        bits.kept &= self.possible(bits.of);
        bits
    }

    /// The same for one operation.
    fn bits_of_one(&self, value: Value) -> Option<Bits> {
        // k - a: where no bit of a is beyond those of k there is no borrow, and each is changed. With all ones it is
        // what `not` is in two's complement.
        let sum = |bytes: u8, inner: Value| {
            let Node::Linear(terms, k) = self.node(inner) else { return None };
            let ([(term, factor)], below) = (&**terms, mask(bytes)) else { return None };
            let (k, factor) = (*k & below, *factor & below);
            if factor == below && self.possible(*term) & below & !k == 0 {
                return Some(Bits { of: *term, kept: below, changed: k });
            }
            // Bits that were moved down, and are where they were again.
            let added = k == 0 && factor.is_power_of_two();
            let moved = if added { factor } else { factor.wrapping_neg() & below };
            let Bits { of, kept, changed: already } = self.bits(*term);
            match self.node(of) {
                Node::Operation(Operation::ShiftRight(n), operands)
                    if moved.is_power_of_two()
                        && already == 0
                        && self.as_constant(operands[1]) == Some(moved.trailing_zeros().into()) =>
                {
                    let kept = (kept << moved.trailing_zeros()) & mask(*n) & below;
                    let is_apart = added || kept & !k == 0;
                    is_apart.then_some(Bits { of: operands[0], kept, changed: k })
                }
                _ => None,
            }
        };
        match self.node(value) {
            Node::Low(n, inner) => {
                let low = || Bits::all_of(*inner).then(Operation::And, mask(*n));
                Some(sum(*n, *inner).unwrap_or_else(low))
            }
            Node::Linear(..) => sum(8, value),
            Node::Operation(op @ (Operation::And | Operation::Or | Operation::Xor), operands) => {
                let (a, b) = (operands[0], operands[1]);
                match (self.as_constant(a), self.as_constant(b)) {
                    (_, Some(k)) => Some(Bits::all_of(a).then(*op, k)),
                    (Some(k), _) => Some(Bits::all_of(b).then(*op, k)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The value that is such bits, in the one form of it: `and`, then `xor`, then `or`, no bit of one number in
    /// another that need not be there.
    fn made_of_bits(&mut self, bits: Bits) -> Value {
        let Bits { mut of, mut kept, mut changed } = bits;
        // What is above the bits that are kept does not matter.
        let low = loop {
            kept &= self.possible(of);
            let low = match covering(kept) {
                Some(bytes) => self.low(bytes, of),
                None => of,
            };
            let inner = self.bits(low);
            changed ^= inner.changed & kept;
            kept &= inner.kept;
            if inner.of == of {
                break low;
            }
            of = inner.of;
        };
        if kept == 0 {
            return self.constant(changed);
        }
        let mut value = low;
        if kept != self.possible(low) {
            value = self.kept_of(low, kept);
        }
        let (flipped, ones) = (changed & kept, changed & !kept);
        if flipped == kept {
            // `not`, or what is left of a number without these bits of it.
            value = match [1, 2, 4, 8].into_iter().find(|bytes| kept == mask(*bytes)) {
                Some(bytes) => {
                    let not = self.linear(&[(of, u64::MAX)], u64::MAX);
                    self.low(bytes, not)
                }
                None => self.linear(&[(value, u64::MAX)], kept),
            };
        } else if flipped != 0 {
            let number = self.constant(flipped);
            value = self.commutative(Operation::Xor, value, number);
        }
        if ones != 0 {
            let number = self.constant(ones);
            value = self.commutative(Operation::Or, value, number);
        }
        value
    }
}

/// The fewest bytes that hold a number, if they are fewer than eight.
fn covering(number: u64) -> Option<u8> {
    [1, 2, 4].into_iter().find(|bytes| number <= mask(*bytes))
}

#[cfg(test)]
mod tests {
    use super::super::{Node, Operation, Place, Value, Values, extended, mask, operands};
    use super::Bits;

    /// Numbers without order, the same ones each time.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, end: u64) -> u64 {
            self.next() % end
        }

        fn bytes(&mut self) -> u8 {
            1 << self.below(4)
        }

        /// One that is likely to be in a program.
        fn constant(&mut self) -> u64 {
            let short = self.next() >> self.below(64);
            match self.below(6) {
                0 => 1 << self.below(64),
                1 => !(1 << self.below(64)),
                2 => mask(self.bytes()),
                3 => extended(1, short).cast_unsigned(),
                4 => short & 0xff00,
                _ => short,
            }
        }
    }

    /// What a value is where the entry's registers hold these numbers, and memory others.
    fn number(values: &Values, value: Value, held: &[u64; 3]) -> u64 {
        let of = |v: &Value| number(values, *v, held);
        match values.node(value) {
            Node::Linear(terms, k) => terms
                .iter()
                .fold(*k, |sum, (v, factor)| sum.wrapping_add(of(v).wrapping_mul(*factor))),
            Node::Entry(Place::General(n)) => held[usize::from(*n)],
            Node::Low(n, v) => of(v) & mask(*n),
            Node::Signed(n, v) => extended(*n, of(v)).cast_unsigned(),
            Node::Insert(n, above, low) => of(above) & !mask(*n) | of(low) & mask(*n),
            Node::Load(_, address, n) => of(address).wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask(*n),
            Node::Operation(operation, operands) => {
                let all: Vec<u64> = operands.iter().map(of).collect();
                match operation {
                    Operation::And => all[0] & all[1],
                    Operation::Or => all[0] | all[1],
                    Operation::Xor => all[0] ^ all[1],
                    Operation::ShiftRight(n) => (all[0] & mask(*n)) >> all[1],
                    Operation::Condition(_) => all[0] & 1,
                    Operation::Select if all[0] == 1 => all[1],
                    Operation::Select => all[2],
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A value of random operations, and what it has to be.
    fn random(
        values: &mut Values,
        numbers: &mut Numbers,
        held: &[[u64; 3]],
        depth: u8,
    ) -> (Value, Vec<u64>) {
        let each = |a: &[u64], f: &dyn Fn(u64) -> u64| a.iter().map(|n| f(*n)).collect::<Vec<_>>();
        if depth == 0 {
            let n = numbers.below(3);
            let index = usize::try_from(n).unwrap();
            let place = Place::General(u8::try_from(n).unwrap());
            let value = values.intern(Node::Entry(place));
            return (value, held.iter().map(|held| held[index]).collect());
        }
        let (a, x) = random(values, numbers, held, depth - 1);
        let (k, bytes) = (numbers.constant(), numbers.bytes());
        match numbers.below(13) {
            kind @ 0..=5 => {
                let operation = [Operation::And, Operation::Or, Operation::Xor]
                    [usize::try_from(kind % 3).unwrap()];
                let apply = |a: u64, b: u64| match operation {
                    Operation::And => a & b,
                    Operation::Or => a | b,
                    _ => a ^ b,
                };
                if numbers.below(3) > 0 {
                    let constant = values.constant(k);
                    let both = if kind > 2 { [a, constant] } else { [constant, a] };
                    let made = values.bitwise(operation, both[0], both[1]);
                    return (made, each(&x, &|n| apply(n, k)));
                }
                let (b, y) = random(values, numbers, held, depth - 1);
                let made = values.bitwise(operation, a, b);
                (made, x.iter().zip(&y).map(|(a, b)| apply(*a, *b)).collect())
            }
            6 => (values.low(bytes, a), each(&x, &|n| n & mask(bytes))),
            7 => (values.signed(bytes, a), each(&x, &|n| extended(bytes, n).cast_unsigned())),
            8 => {
                let factor = [1, 2, 256, u64::MAX, u64::from(u32::MAX)];
                let factor = factor[usize::try_from(numbers.below(5)).unwrap()];
                let k = [0, 1, 0xff, u64::MAX, k][usize::try_from(numbers.below(5)).unwrap()];
                let made = values.linear(&[(a, factor)], k);
                (made, each(&x, &|n| n.wrapping_mul(factor).wrapping_add(k)))
            }
            9 => {
                let (b, y) = random(values, numbers, held, depth - 1);
                let made = values.insert(bytes, a, b);
                let above = |(a, b): (&u64, &u64)| *a & !mask(bytes) | *b & mask(bytes);
                (made, x.iter().zip(&y).map(above).collect())
            }
            10 => {
                let bits = numbers.below(u64::from(bytes) * 8);
                let constant = values.constant(bits);
                let made = values.operation(Operation::ShiftRight(bytes), &[a, constant]);
                (made, each(&x, &|n| (n & mask(bytes)) >> bits))
            }
            11 => {
                // Down, some bits, and up again by as many or by one more, below a number.
                let bits = numbers.below(u64::from(bytes) * 8);
                let (down, some) = (values.constant(bits), values.constant(k));
                let made = values.operation(Operation::ShiftRight(bytes), &[a, down]);
                let made = values.bitwise(Operation::And, made, some);
                let up = 1u64.wrapping_shl(u32::try_from(bits + numbers.below(5) / 4).unwrap());
                let up = if numbers.below(2) == 0 { up } else { up.wrapping_neg() };
                let top = [0, u64::MAX, k << bits, 1][usize::try_from(numbers.below(4)).unwrap()];
                let made = values.linear(&[(made, up)], top);
                let apply =
                    |n: u64| ((n & mask(bytes)) >> bits & k).wrapping_mul(up).wrapping_add(top);
                (made, each(&x, &apply))
            }
            _ => {
                let memory = values.intern(Node::Entry(Place::Memory));
                let made = values.intern(Node::Load(memory, a, bytes));
                (made, each(&x, &|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask(bytes)))
            }
        }
    }

    #[test]
    fn every_form_is_the_same_number() {
        let mut numbers = Numbers(88);
        let mut values = Values::default();
        for round in 0..20_000u64 {
            if round % 500 == 0 {
                values = Values::default();
            }
            let mut held = vec![[0; 3], [u64::MAX; 3]];
            held.extend((0..6).map(|_| [0; 3].map(|_: u64| numbers.constant())));
            let (value, wanted) = random(&mut values, &mut numbers, &held, 2 + (round % 5) as u8);
            for (held, wanted) in held.iter().zip(wanted) {
                let found = number(&values, value, held);
                assert_eq!(found, wanted, "round {round} {held:x?} {:?}", values.node(value));
                let possible = values.possible(value);
                assert_eq!(found & !possible, 0, "round {round} {:?}", values.node(value));
                let Bits { of, kept, changed } = values.bits(value);
                assert_eq!(number(&values, of, held) & kept ^ changed, found, "round {round}");
            }
            // What is made again is what it was.
            let node = values.node(value).clone();
            let again = values.remade(&node, &operands(&node));
            let bits = values.bits(value);
            let same = values.made_of_bits(bits);
            for made in [again, same] {
                for held in &held {
                    assert_eq!(number(&values, made, held), number(&values, value, held));
                }
            }
        }
    }

    /// Rows of operations with numbers, from the first on.
    fn row(values: &mut Values, value: Value, all: &[(Operation, u64)]) -> Value {
        all.iter().fold(value, |value, (operation, k)| {
            let k = values.constant(*k);
            values.bitwise(*operation, value, k)
        })
    }

    #[test]
    fn numbers_in_a_row_of_bitwise_operations_are_one_number_each() {
        use Operation::{And, Or, Xor};
        let mut values = Values::default();
        let x = values.intern(Node::Entry(Place::General(0)));
        let memory = values.intern(Node::Entry(Place::Memory));
        let byte = values.intern(Node::Load(memory, x, 1));
        let same: [[&[(Operation, u64)]; 2]; 7] = [
            [&[(And, !3), (Or, 1)], &[(And, !2), (Or, 1)]],
            [&[(And, 0xffff_ffff_ffff_ff9f), (Or, 0x40)], &[(Or, 0x40), (And, !0x20)]],
            [&[(And, 0xf0), (And, 0x3c)], &[(And, 0x30)]],
            [&[(Or, 0xf0), (Or, 0x0f)], &[(Or, 0xff)]],
            [&[(Xor, 0xf0), (Xor, 0x30)], &[(Xor, 0xc0)]],
            [&[(Xor, 1), (And, 1)], &[(Xor, u64::MAX), (And, 1)]],
            [&[(Or, 6), (Xor, 2)], &[(And, !2), (Or, 4)]],
        ];
        let other: [[&[(Operation, u64)]; 2]; 5] = [
            [&[(And, !3), (Or, 1)], &[(And, !1), (Or, 1)]],
            [&[(And, 0xff9f), (Or, 0x40)], &[(Or, 0x40), (And, 0xff9f)]],
            [&[(Or, 0xf0), (And, 0x3c)], &[(And, 0x3c), (Or, 0xf0)]],
            [&[(Xor, 3), (Or, 1)], &[(Or, 1)]],
            [&[(And, 1), (Xor, 1)], &[(And, 1), (Or, 1)]],
        ];
        for x in [x, byte] {
            for [a, b] in same {
                assert_eq!(row(&mut values, x, a), row(&mut values, x, b), "{a:?} {b:?}");
            }
            for [a, b] in other {
                assert_ne!(row(&mut values, x, a), row(&mut values, x, b), "{a:?} {b:?}");
            }
        }
        // A byte has no bits above it; eight bytes have.
        let above: [&[(Operation, u64)]; 2] = [&[(And, !3)], &[(And, 0xfc)]];
        assert_eq!(row(&mut values, byte, above[0]), row(&mut values, byte, above[1]));
        assert_ne!(row(&mut values, x, above[0]), row(&mut values, x, above[1]));
        // What is above the bytes that are written does not matter.
        let [wide, narrow] = above.map(|all| row(&mut values, x, all));
        assert_eq!(values.low(1, wide), values.low(1, narrow));
        assert_eq!(values.signed(1, wide), values.signed(1, narrow));
        assert_ne!(values.low(2, wide), values.low(2, narrow));
    }

    #[test]
    fn three_values_are_in_one_order() {
        let mut values = Values::default();
        let [x, y, z] = [0, 1, 2].map(|n| values.intern(Node::Entry(Place::General(n))));
        for operation in [Operation::And, Operation::Or, Operation::Xor] {
            let first = values.bitwise(operation, x, y);
            let first = values.bitwise(operation, first, z);
            let second = values.bitwise(operation, z, y);
            let second = values.bitwise(operation, x, second);
            assert_eq!(first, second);
            let twice = values.bitwise(operation, second, y);
            match operation {
                Operation::Xor => assert_eq!(twice, values.bitwise(operation, x, z)),
                _ => assert_eq!(twice, first),
            }
        }
        let (and, or) = (values.bitwise(Operation::And, x, y), values.bitwise(Operation::Or, y, z));
        let mixed = [values.bitwise(Operation::Or, and, z), values.bitwise(Operation::And, x, or)];
        assert_ne!(mixed[0], mixed[1]);
        // A number goes outward, and takes no part of the others with it.
        let one = values.constant(1);
        let odd = values.bitwise(Operation::Or, x, one);
        let (a, b) = (values.bitwise(Operation::Or, odd, y), values.bitwise(Operation::Or, x, y));
        assert_eq!(a, values.bitwise(Operation::Or, one, b));
        assert_ne!(a, b);
    }
}
