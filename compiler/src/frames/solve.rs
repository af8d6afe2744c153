//! What a value is by what has been made of it: OLD keeps the end of a buffer, NEW its length; OLD walks
//! with a pointer, NEW counts elements.
//!
//! A place that holds so many times the wanted value plus something that can be had gives the value: exactly,
//! when the factor is odd, for that has an inverse modulo 2^64. An even factor loses the upper bits. They are
//! known of a counter ([`Beginnings::counts`]), which is small for want of time to grow.

use super::source::{Sources, binary, whole};
use super::value::{Value, mask};
use dsu_patch_format::frames::{Binary, Value as Source};

/// So many places are looked at for one value.
const CANDIDATES: usize = 8;
/// The largest power of two that an even factor may have: a counter of 2^57 is none.
const SHIFT: u32 = 6;

impl Sources<'_> {
    /// The low `width` bytes of a value out of a place that holds a multiple of it and something else.
    pub(super) fn solved(
        &mut self,
        wanted: Value,
        (depth, width): (usize, u8),
        budget: &mut usize,
    ) -> Option<Source> {
        let term = whole(self.known(), wanted, width);
        let mut tried = 0;
        for place in self.with(term) {
            let Some(factor) = self.factor(place, wanted, width) else { continue };
            if tried == CANDIDATES {
                break;
            }
            tried += 1;
            let mut left = *budget;
            if let Some(source) = self.by(place, (wanted, factor), width, depth, &mut left) {
                *budget = left;
                return Some(source);
            }
        }
        None
    }

    /// How many times a value is in a place's, modulo 2^(8 `width`).
    fn factor(&self, place: Value, wanted: Value, width: u8) -> Option<u64> {
        let (terms, _) = self.known().terms(whole(self.known(), place, width));
        let wanted = whole(self.known(), wanted, width);
        let (_, factor) = terms.into_iter().find(|(term, _)| *term == wanted)?;
        (place != wanted && factor & mask(width) != 0).then_some(factor)
    }

    fn by(
        &mut self,
        place: Value,
        (wanted, factor): (Value, u64),
        width: u8,
        depth: usize,
        budget: &mut usize,
    ) -> Option<Source> {
        let (shift, odd) = (factor.trailing_zeros(), factor >> factor.trailing_zeros());
        let even = shift > 0;
        if even && (width < 8 || shift > SHIFT || !self.counts(wanted)) {
            return None;
        }
        let (all, one) = (whole(self.known(), place, width), whole(self.known(), wanted, width));
        let rest = self.values().linear(&[(all, 1), (one, factor.wrapping_neg())], 0);
        let mut source = self.place(place, width)?;
        if self.known().as_constant(rest) != Some(0) {
            let rest = self.remake(rest, width, depth, budget)?;
            source = binary(Binary::Sub, width, source, rest);
        }
        if odd != 1 {
            source =
                binary(Binary::Mul, width, source, Source::Constant(inverse(odd) & mask(width)));
        }
        if even {
            source = binary(Binary::Sar, width, source, Source::Constant(shift.into()));
        }
        Some(source)
    }
}

/// The inverse of an odd number modulo 2^64 (Newton's iteration: each step doubles the right bits).
fn inverse(odd: u64) -> u64 {
    let mut found = odd;
    for _ in 0..5 {
        found = found.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(found)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::inverse;

    #[test]
    fn odd_numbers_have_inverses() {
        for odd in [1u64, 3, 5, 7, 11, 0x1234_5677, u64::MAX] {
            assert_eq!(odd.wrapping_mul(inverse(odd)), 1);
        }
    }
}
