//! What operations make of numbers.

use super::{Node, Operation, Value, Values};

/// All ones in so many bytes.
pub fn mask(bytes: u8) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (8 * u32::from(bytes))) - 1 }
}

/// The low bytes of a number, with their sign.
pub fn extended(bytes: u8, number: u64) -> i64 {
    let above = 64 - 8 * u32::from(bytes.clamp(1, 8));
    (number << above).cast_signed() >> above
}

/// The bits of a shift's count that the processor looks at (SDM volume 2, SAL).
pub(in crate::frames) fn shift_limit(bytes: u8) -> u64 {
    if bytes == 8 { 63 } else { 31 }
}

impl Values {
    /// What an operation makes of numbers.
    pub(super) fn of_numbers(&mut self, operation: Operation, operands: &[Value]) -> Option<Value> {
        let number = |this: &Self, n: usize| this.as_constant(*operands.get(n)?);
        let known = match operation {
            Operation::Select => {
                return Some(operands[if number(self, 0)? == 0 { 2 } else { 1 }]);
            }
            Operation::And => number(self, 0)? & number(self, 1)?,
            Operation::Or => number(self, 0)? | number(self, 1)?,
            Operation::Xor => number(self, 0)? ^ number(self, 1)?,
            Operation::ShiftLeft(_) => number(self, 0)? << number(self, 1)?,
            Operation::ShiftRight(n) => (number(self, 0)? & mask(n)) >> number(self, 1)?,
            Operation::ShiftArithmetic(n) => {
                (extended(n, number(self, 0)?) >> number(self, 1)?).cast_unsigned()
            }
            Operation::Condition(code) => u64::from(self.is_met(code, operands[0])?),
            _ => return None,
        };
        Some(self.constant(known))
    }

    /// Whether an even condition code (SDM volume 1, B.1) is met by flags that are those of numbers.
    fn is_met(&mut self, code: u8, flags: Value) -> Option<bool> {
        let sign = |bytes: u8, n: u64| extended(bytes, n) < 0;
        let less = |bytes: u8, a: u64, b: u64| extended(bytes, a) < extended(bytes, b);
        match self.node(flags).clone() {
            // Without carry and overflow.
            Node::Operation(Operation::Logic(bytes), all) => {
                let result = self.as_constant(all[0])? & mask(bytes);
                match code {
                    0 | 2 => Some(false),
                    4 | 6 => Some(result == 0),
                    8 | 12 => Some(sign(bytes, result)),
                    14 => Some(sign(bytes, result) || result == 0),
                    _ => None,
                }
            }
            Node::Operation(Operation::Compare(bytes), all) => {
                if (code, bytes) == (4, 8) {
                    let difference = self.subtract(all[0], all[1]);
                    return Some(self.as_constant(difference)? == 0);
                }
                let [a, b] = [all[0], all[1]].map(|v| self.as_constant(v).map(|n| n & mask(bytes)));
                let (a, b) = (a?, b?);
                match code {
                    2 => Some(a < b),
                    4 => Some(a == b),
                    6 => Some(a <= b),
                    8 => Some(sign(bytes, a.wrapping_sub(b))),
                    12 => Some(less(bytes, a, b)),
                    14 => Some(!less(bytes, b, a)),
                    _ => None,
                }
            }
            // What else the flags of a result tell depends on what was done.
            Node::Operation(Operation::Instruction { immediate, output: u8::MAX, .. }, all) => {
                let bytes = u8::try_from(immediate & 0xff).ok()?;
                let result = self.as_constant(all[0])? & mask(bytes);
                match code {
                    4 => Some(result == 0),
                    8 => Some(sign(bytes, result)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Operation, Values};
    use super::{extended, mask};

    /// By what the processor does with the same numbers, for all conditions and widths.
    #[test]
    fn conditions_on_numbers_are_met_as_the_processor_says() {
        let mut values = Values::default();
        let numbers = [0u64, 1, 2, 0x7f, 0x80, 0xff, 0x8000_0000, 0xffff_ffff, 1 << 63, u64::MAX];
        for bytes in [1u8, 4, 8] {
            for (a, b) in numbers.iter().flat_map(|a| numbers.iter().map(move |b| (*a, *b))) {
                let (a, b) = (a & mask(bytes), b & mask(bytes));
                let (x, y) = (extended(bytes, a), extended(bytes, b));
                let sign = extended(bytes, a.wrapping_sub(b)) < 0;
                let compared =
                    [(2, a < b), (4, a == b), (6, a <= b), (8, sign), (12, x < y), (14, x <= y)];
                let (first, second) = (values.constant(a), values.constant(b));
                let flags = values.operation(Operation::Compare(bytes), &[first, second]);
                for (code, met) in compared {
                    let asked = values.operation(Operation::Condition(code), &[flags]);
                    assert_eq!(
                        values.as_constant(asked),
                        Some(u64::from(met)),
                        "{code} {a:x} {b:x}"
                    );
                }
                // As if compared with zero.
                let tested =
                    [(2, false), (4, a == 0), (6, a == 0), (8, x < 0), (12, x < 0), (14, x <= 0)];
                let flags = values.operation(Operation::Logic(bytes), &[first]);
                for (code, met) in tested {
                    let asked = values.operation(Operation::Condition(code), &[flags]);
                    assert_eq!(values.as_constant(asked), Some(u64::from(met)), "{code} {a:x}");
                }
            }
        }
    }

    #[test]
    fn shifts_and_choices_of_numbers_are_numbers() {
        let mut values = Values::default();
        let [value, by, one, zero] = [0xffff_ffff_8000_0001, 4, 1, 0].map(|n| values.constant(n));
        let shifted = [
            (Operation::ShiftRight(8), 0x0fff_ffff_f800_0000),
            (Operation::ShiftRight(4), 0x0800_0000),
            (Operation::ShiftArithmetic(4), 0xffff_ffff_f800_0000),
            (Operation::ShiftLeft(8), 0xffff_fff8_0000_0010),
        ];
        for (operation, result) in shifted {
            let made = values.operation(operation, &[value, by]);
            assert_eq!(values.as_constant(made), Some(result), "{operation:?}");
        }
        assert_eq!(values.operation(Operation::Select, &[one, value, by]), value);
        assert_eq!(values.operation(Operation::Select, &[zero, value, by]), by);
    }
}
