//! Names of counters whose end is known: see [`super::super::bounds`].

use super::super::bounds::Bound;
use super::super::point::PointId;
use super::{Node, Value, Values, extended, mask};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

impl Values {
    /// A name that is known to be bounded before there is anything made of it: what is made of it is made of what it
    /// begins with, too. `None`: something was.
    pub fn bound_name(&mut self, name: Node, first: Value) -> Option<Value> {
        if self.numbers.contains_key(&name) {
            return None;
        }
        let name = self.intern(name);
        let both = [&self.depends[name.0 as usize], &self.depends[first.0 as usize]];
        let all: BTreeSet<PointId> = both.into_iter().flat_map(|set| set.iter().copied()).collect();
        self.depends[name.0 as usize] = all.into_iter().collect();
        Some(name)
    }

    /// What a name may stand for is known from now on; `None`: it is not.
    pub fn bind(&mut self, name: Value, bound: Option<Bound>) {
        match bound {
            Some(bound) => self.bounds.insert(name, bound),
            None => self.bounds.remove(&name),
        };
    }

    /// The sum whose low bytes a value has, where these are all of it: within the bounds of a name that is
    /// part of it, it is one of `range`.
    pub(super) fn bounded(
        &mut self,
        bytes: u8,
        value: Value,
        range: RangeInclusive<i128>,
    ) -> Option<Value> {
        if self.bounds.is_empty() {
            return None;
        }
        let (terms, _) = self.terms(value);
        terms.into_iter().find_map(|(name, factor)| {
            let Bound { first, last } = *self.bounds.get(&name)?;
            let factor = extended(bytes, factor);
            let times = factor.cast_unsigned();
            let rest = self.linear(&[(value, 1), (name, times.wrapping_neg()), (first, times)], 0);
            let (others, number) = self.terms(rest);
            if others.iter().any(|other| other.1 & mask(bytes) != 0) {
                return None;
            }
            let number = match *range.start() < 0 {
                true => extended(bytes, number).cast_unsigned(),
                false => number & mask(bytes),
            };
            let begins = i128::from(number.cast_signed());
            let ends = begins + i128::from(factor) * i128::from(last);
            let inside = range.contains(&begins) && range.contains(&ends);
            let parts = [(name, times), (first, times.wrapping_neg())];
            inside.then(|| self.linear(&parts, number))
        })
    }

    /// What is zero just where a sum is, if that is for one of the numbers that a bounded name in it may stand for:
    /// the name less that number. Builds that count with a number or with a pointer ask the same of it.
    pub fn zero_with(&mut self, sum: Value) -> Option<Value> {
        // Far from where sums would wrap.
        const FARTHEST: i128 = 1 << 62;
        if self.bounds.is_empty() || !self.further {
            return None;
        }
        let (terms, _) = self.terms(sum);
        terms.into_iter().find_map(|(name, times)| {
            let Bound { first, last } = *self.bounds.get(&name)?;
            let rest = self.linear(&[(sum, 1), (name, times.wrapping_neg()), (first, times)], 0);
            let begins = i128::from(self.as_constant(rest)?.cast_signed());
            let factor = i128::from(times.cast_signed());
            let far = factor.checked_mul(i128::from(last)).is_none_or(|n| n.abs() > FARTHEST);
            let ends = i64::try_from(-begins / factor).ok().filter(|_| begins % factor == 0)?;
            let is_met = (last.min(0)..=last.max(0)).contains(&ends);
            let parts = [(name, 1), (first, u64::MAX)];
            (is_met && !far).then(|| self.linear(&parts, ends.wrapping_neg().cast_unsigned()))
        })
    }
}
