//! Parts of values: low bytes, what is above them, and how large a value may be.

use super::{Node, Operation, Value, Values, extended, mask};

/// How deep a value is looked into for how large it may be.
pub(super) const MOST_DEPTH: u8 = 6;

impl Values {
    /// The low bytes, zero-extended.
    pub fn low(&mut self, bytes: u8, value: Value) -> Value {
        if bytes >= 8 || self.fits(value, bytes) {
            return value;
        }
        let mask = mask(bytes);
        if let Some(sum) = self.bounded(bytes, value, 0..=i128::from(mask)) {
            return sum;
        }
        match self.node(value).clone() {
            Node::Linear(terms, k) => {
                let stripped: Vec<(Value, u64)> =
                    terms.iter().map(|(v, f)| (self.strip(bytes, *v), f & mask)).collect();
                let sum = self.linear(&stripped, k & mask);
                self.low_of_normal(bytes, sum)
            }
            _ => {
                let stripped = self.strip(bytes, value);
                if stripped == value {
                    self.low_of_normal(bytes, value)
                } else {
                    self.low(bytes, stripped)
                }
            }
        }
    }

    fn low_of_normal(&mut self, bytes: u8, value: Value) -> Value {
        let mask = mask(bytes);
        let (terms, k) = self.terms(value);
        if terms.is_empty() {
            return self.constant(k & mask);
        }
        let value = match self.node(value) {
            Node::Linear(..) => {
                let masked: Vec<_> =
                    terms.iter().map(|(v, f)| (*v, f & mask)).filter(|t| t.1 != 0).collect();
                self.linear(&masked, k & mask)
            }
            _ => value,
        };
        // A number without some of its bits is no more than it.
        if let Node::Linear(terms, k) = self.node(value)
            && let [(term, factor)] = **terms
            && factor == mask
            && self.possible(term) & !*k == 0
        {
            let k = *k;
            return self.linear(&[(term, u64::MAX)], k);
        }
        if self.fits(value, bytes) { value } else { self.intern(Node::Low(bytes, value)) }
    }

    /// A value with the same low bytes, simpler where that is possible.
    pub(super) fn strip(&mut self, bytes: u8, value: Value) -> Value {
        match self.node(value).clone() {
            Node::Low(n, v) | Node::Signed(n, v) | Node::Insert(n, _, v) if n >= bytes => {
                self.strip(bytes, v)
            }
            Node::Operation(op @ (Operation::And | Operation::Or | Operation::Xor), operands) => {
                let (a, b) = (self.strip(bytes, operands[0]), self.strip(bytes, operands[1]));
                if (a, b) == (operands[0], operands[1]) {
                    return self.bits_below(bytes, value);
                }
                let stripped = self.bitwise(op, a, b);
                self.bits_below(bytes, stripped)
            }
            Node::Operation(Operation::Multiply, operands) => {
                let (a, b) = (self.strip(bytes, operands[0]), self.strip(bytes, operands[1]));
                self.multiply(a, b)
            }
            _ => value,
        }
    }

    /// Whether the upper bytes are known to be zero.
    pub(super) fn fits(&self, value: Value, bytes: u8) -> bool {
        self.most(value, MOST_DEPTH) <= mask(bytes)
    }

    /// A number that the value is never above.
    pub(super) fn most(&self, value: Value, depth: u8) -> u64 {
        let Some(depth) = depth.checked_sub(1) else { return u64::MAX };
        let of = |v: &Value| self.most(*v, depth);
        match self.node(value) {
            Node::Linear(terms, k) => {
                // Less than a number is no more than that.
                if let [(term, u64::MAX)] = **terms
                    && of(&term) <= *k
                {
                    return *k;
                }
                let mut sum = Some(*k);
                for (term, factor) in terms.iter() {
                    let product = of(term).checked_mul(*factor);
                    sum = sum.zip(product).and_then(|(sum, product)| sum.checked_add(product));
                }
                sum.unwrap_or(u64::MAX)
            }
            Node::Low(n, v) => mask(*n).min(of(v)),
            Node::Load(_, _, n) => mask(*n),
            Node::Operation(Operation::Condition(_), _) => 1,
            Node::Operation(Operation::ShiftRight(n), operands) => {
                let shift = self.as_constant(operands[1]).filter(|s| *s < 64).unwrap_or(0);
                mask(*n) >> shift
            }
            Node::Operation(Operation::And, operands) => {
                operands.iter().map(of).min().unwrap_or(u64::MAX)
            }
            Node::Operation(Operation::Or | Operation::Xor, operands) => {
                let all = operands.iter().map(of).fold(0, |all, most| all | most);
                u64::MAX.checked_shr(all.leading_zeros()).unwrap_or(0)
            }
            Node::Operation(Operation::Select, operands) => {
                operands[1..].iter().map(of).max().unwrap_or(u64::MAX)
            }
            _ => u64::MAX,
        }
    }

    /// The low bytes, sign-extended to 64 bits.
    pub fn signed(&mut self, bytes: u8, value: Value) -> Value {
        if bytes >= 8 {
            return value;
        }
        let value = self.strip(bytes, value);
        let most = i128::from(mask(bytes) >> 1);
        if let Some(sum) = self.bounded(bytes, value, -most - 1..=most) {
            return sum;
        }
        match self.as_constant(value) {
            Some(k) => self.constant(extended(bytes, k).cast_unsigned()),
            None => self.intern(Node::Signed(bytes, value)),
        }
    }

    /// `old` with its low bytes replaced.
    pub fn insert(&mut self, bytes: u8, old: Value, low: Value) -> Value {
        if bytes >= 8 {
            return low;
        }
        let low = self.low(bytes, low);
        let old = match *self.node(old) {
            Node::Insert(n, before, _) if n <= bytes => before,
            _ => old,
        };
        // All above is zero: the low bytes alone are the value.
        if self.fits(old, bytes) { low } else { self.intern(Node::Insert(bytes, old, low)) }
    }
}
