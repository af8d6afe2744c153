//! Places that go along with each other: one is so many times the other and something that stays.
//!
//! Takes what two places hold on each edge into a point. Where the differences from edge to edge have one
//! ratio, one is said in terms of the other. Sums are exact modulo 2^64, so that nothing is guessed.

use super::point::PointId;
use super::state::Held;
use super::value::{Value, Values};

/// One value less another: terms in their order, and number.
fn difference(values: &Values, a: Value, b: Value) -> (Vec<(Value, u64)>, u64) {
    let ((mut terms, i), (others, j)) = (values.terms(a), values.terms(b));
    for (term, factor) in others {
        match terms.binary_search_by_key(&term, |t| t.0) {
            Ok(at) => terms[at].1 = terms[at].1.wrapping_sub(factor),
            Err(at) => terms.insert(at, (term, factor.wrapping_neg())),
        }
    }
    terms.retain(|t| t.1 != 0);
    (terms, i.wrapping_sub(j))
}

/// By how much the places differ from one edge to another: what makes a good unit comes first.
pub(super) fn step(values: &Values, all: &[Held]) -> u64 {
    let Some((Held::Value(first), rest)) = all.split_first() else { return u64::MAX };
    let differs = rest.iter().find_map(|held| match held {
        Held::Value(value) if value != first => Some(*value),
        _ => None,
    });
    let Some(other) = differs else { return 0 };
    let (terms, number) = difference(values, other, *first);
    let size = |n: u64| n.cast_signed().unsigned_abs();
    terms.iter().map(|t| size(t.1)).max().unwrap_or(size(number))
}

/// Values on the edges in terms of others that have a name: the sum, and how many times the name is in it.
/// What is added is the same on every edge and the next time.
pub(super) fn multiple(
    values: &mut Values,
    id: PointId,
    all: &[Value],
    (other, name): &(Vec<Value>, Value),
) -> Option<(Value, u64)> {
    let factor = factor(values, (all, other))?;
    let mut pairs = all.iter().copied().zip(other.iter().copied());
    let mut rest = || {
        let (a, b) = pairs.next()?;
        Some(values.linear(&[(a, 1), (b, factor.wrapping_neg())], 0))
    };
    let same = rest()?;
    while let Some(next) = rest() {
        if next != same {
            return None;
        }
    }
    let again = values.depends_on(same, id);
    (!again).then(|| (values.linear(&[(*name, factor), (same, 1)], 0), factor))
}

/// How many times the one differs as the other does, from the first edge to one on which they differ.
fn factor(values: &Values, (all, other): (&[Value], &[Value])) -> Option<u64> {
    let edge = other.iter().position(|value| *value != other[0])?;
    let (of, number) = difference(values, all[edge], all[0]);
    let (unit, one) = difference(values, other[edge], other[0]);
    let (dividend, divisor) = match unit.first() {
        Some((term, divisor)) => (of.iter().find(|t| t.0 == *term)?.1, *divisor),
        None if of.is_empty() => (number, one),
        None => return None,
    };
    let (dividend, divisor) = (dividend.cast_signed(), divisor.cast_signed());
    let factor = dividend.checked_div(divisor)?;
    let exact = factor != 0 && factor.checked_mul(divisor) == Some(dividend);
    exact.then_some(factor.cast_unsigned())
}
