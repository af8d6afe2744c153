//! What conditions ask of flags.
//!
//! Takes flags as the values that instructions leave in them; gives conditions in one form, so that those which mean
//! the same are one value, and what a branch finds out that has gone one way.

use super::super::value::{Node, Operation, Value, Values, mask};
use iced_x86::ConditionCode;
use std::collections::BTreeSet;

/// The even condition code of equality.
pub const EQUAL: u8 = 4;

/// A condition on flags in normal form: operands in one order, and a sense. Conditions that mean the
/// same are one value.
pub fn condition(values: &mut Values, code: ConditionCode, flags: Value) -> (Value, bool) {
    // iced numbers the conditions from 1, in the processor's order: odd ones negate (SDM volume 1, B.1).
    let number = (code as u8).saturating_sub(1);
    let (mut base, mut negated) = (number & !1, number & 1 == 1);
    const BELOW: u8 = 2;
    const BELOW_EQUAL: u8 = 6;
    const SIGN: u8 = 8;
    const LESS: u8 = 12;
    const LESS_EQUAL: u8 = 14;
    let mut flags = flags;
    let node = match values.node(flags) {
        Node::Operation(op, operands) => Some((*op, operands.clone())),
        _ => None,
    };
    match node {
        Some((Operation::Compare(bytes), operands)) => {
            let (mut a, mut b) = (operands[0], operands[1]);
            if matches!(base, BELOW_EQUAL | LESS_EQUAL) {
                // a <= b is not (b < a).
                (a, b) = (b, a);
                base = if base == BELOW_EQUAL { BELOW } else { LESS };
                negated = !negated;
            }
            let most = mask(bytes) >> u8::from(base == LESS);
            if matches!(base, BELOW | LESS)
                && let Some(k) = values.as_constant(a)
                && k != most
                && values.as_constant(b).is_none()
            {
                // k < b is not (b < k + 1).
                let above = values.constant(k.wrapping_add(1) & mask(bytes));
                (a, b) = (b, above);
                negated = !negated;
            }
            let wide = if matches!(base, EQUAL | BELOW) { 8 } else { bytes };
            if base == EQUAL && b < a {
                (a, b) = (b, a);
            }
            if base == EQUAL && values.is_further() {
                let difference = values.subtract(a, b);
                if let Some(number) = values.as_constant(difference) {
                    return (values.constant(u64::from(number == 0)), negated);
                }
                if let Some(zero) = values.zero_with(difference) {
                    (a, b) = (zero, values.constant(0));
                }
            }
            if matches!(base, EQUAL | LESS) && values.as_constant(b) == Some(0) {
                flags = values.operation(Operation::Logic(wide), &[a]);
                base = if base == EQUAL { EQUAL } else { SIGN };
            } else {
                flags = values.operation(Operation::Compare(wide), &[a, b]);
            }
        }
        Some((Operation::Logic(bytes), operands)) => match base {
            EQUAL => {
                let zero = values.zero_with(operands[0]).unwrap_or(operands[0]);
                flags = values.operation(Operation::Logic(8), &[zero]);
            }
            // The carry flag is clear: below or equal is equal.
            BELOW_EQUAL => {
                base = EQUAL;
                flags = values.operation(Operation::Logic(8), &operands);
            }
            LESS => base = SIGN,
            LESS_EQUAL => {
                // a <= 0 is a < 1.
                let one = values.constant(1);
                flags = values.operation(Operation::Compare(bytes), &[operands[0], one]);
                base = LESS;
            }
            _ => {}
        },
        Some((Operation::Instruction { immediate, output: u8::MAX, .. }, operands)) => {
            let bytes = u8::try_from(immediate & 0xff).unwrap_or(8);
            if base == EQUAL {
                flags = values.operation(Operation::Logic(8), &operands[..1]);
            } else if base == SIGN {
                flags = values.operation(Operation::Logic(bytes), &operands[..1]);
            }
        }
        _ => {}
    }
    (values.operation(Operation::Condition(base), &[flags]), negated)
}

/// The value that a condition tests for being zero, and whether the condition is met then.
pub fn zero(values: &Values, code: ConditionCode, flags: Value) -> Option<(Value, bool)> {
    match (values.node(flags), code) {
        (Node::Operation(Operation::Logic(_), operands), ConditionCode::e) => {
            Some((operands[0], true))
        }
        (Node::Operation(Operation::Logic(_), operands), ConditionCode::ne) => {
            Some((operands[0], false))
        }
        _ => None,
    }
}

/// The value that is not zero where an equality is met (`true`), or is not, if the condition is one.
pub fn apart(values: &mut Values, code: ConditionCode, flags: Value) -> Option<(Value, bool)> {
    let met = match code {
        ConditionCode::e => false,
        ConditionCode::ne => true,
        _ => return None,
    };
    let is_result = matches!(values.node(flags), Node::Operation(Operation::Instruction { .. }, _));
    asked(values, flags).filter(|_| !is_result).map(|value| (value, met))
}

/// The value that the zero flag tells of.
pub fn asked(values: &mut Values, flags: Value) -> Option<Value> {
    let (bytes, value) = match values.node(flags) {
        Node::Operation(Operation::Logic(bytes), operands) => (*bytes, operands[0]),
        Node::Operation(Operation::Compare(bytes), operands) => {
            let (bytes, a, b) = (*bytes, operands[0], operands[1]);
            (bytes, values.subtract(a, b))
        }
        Node::Operation(Operation::Instruction { immediate, output: u8::MAX, .. }, operands) => {
            (u8::try_from(immediate & 0xff).unwrap_or(8), operands[0])
        }
        _ => return None,
    };
    Some(values.low(bytes, value))
}

/// Whether a condition is met by flags that are those of numbers, or of a value that is `known` to be zero:
/// of equality alone, for all that is needed.
pub fn decided(
    values: &Values,
    code: ConditionCode,
    flags: Value,
    known: &BTreeSet<Value>,
) -> Option<bool> {
    if let Some((_, met)) = zero(values, code, flags).filter(|(value, _)| known.contains(value)) {
        return Some(met);
    }
    let equal = match values.node(flags) {
        Node::Operation(Operation::Logic(bytes), operands) => {
            values.as_constant(operands[0])? & mask(*bytes) == 0
        }
        Node::Operation(Operation::Compare(bytes), operands) => {
            let (a, b) = (values.as_constant(operands[0])?, values.as_constant(operands[1])?);
            (a ^ b) & mask(*bytes) == 0
        }
        _ => return None,
    };
    match code {
        ConditionCode::e => Some(equal),
        ConditionCode::ne => Some(!equal),
        _ => None,
    }
}
