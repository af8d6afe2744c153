//! Sets of bytes of the frame. Bytes that are always accessed together are one atom, so that sets
//! are small however large the frame is.

use std::collections::BTreeSet;
use std::ops::Range;

/// The atoms of one function's frame.
#[derive(Debug, Clone, Default)]
pub(super) struct Atoms {
    /// Ascending; an atom lies between two neighbours.
    bounds: Vec<i64>,
}

/// A set of atoms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Slots(Vec<u64>);

impl Atoms {
    /// Cuts at the ends of all these.
    pub(super) fn new(accesses: impl Iterator<Item = Range<i64>>) -> Self {
        let cuts: BTreeSet<i64> =
            accesses.filter(|r| r.start < r.end).flat_map(|r| [r.start, r.end]).collect();
        Self { bounds: cuts.into_iter().collect() }
    }

    /// The empty set.
    pub(super) fn none(&self) -> Slots {
        Slots(vec![0; self.bounds.len().div_ceil(64)])
    }

    /// Atoms that have a byte in a range.
    pub(super) fn touching(&self, range: &Range<i64>) -> Range<usize> {
        if range.is_empty() || self.bounds.len() < 2 {
            return 0..0;
        }
        let first = self.bounds.partition_point(|b| *b <= range.start).saturating_sub(1);
        let end = self.bounds.partition_point(|b| *b < range.end).min(self.bounds.len() - 1);
        first..end.max(first)
    }

    /// Atoms that lie in a range as a whole.
    pub(super) fn within(&self, range: &Range<i64>) -> Range<usize> {
        let first = self.bounds.partition_point(|b| *b < range.start);
        let end = self.bounds.partition_point(|b| *b <= range.end).saturating_sub(1);
        first..end.max(first)
    }

    /// The bytes of an atom.
    pub(super) fn bytes(&self, atom: usize) -> Range<i64> {
        self.bounds[atom]..self.bounds[atom + 1]
    }

    /// The bytes of a set: sorted, disjoint, not adjacent.
    pub(super) fn ranges(&self, set: &Slots) -> Vec<Range<i64>> {
        let mut out: Vec<Range<i64>> = Vec::new();
        for atom in set.iter() {
            let bytes = self.bytes(atom);
            match out.last_mut() {
                Some(last) if last.end == bytes.start => last.end = bytes.end,
                _ => out.push(bytes),
            }
        }
        out
    }
}

impl Slots {
    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }

    pub(super) fn insert(&mut self, atoms: Range<usize>) {
        atoms.for_each(|atom| self.0[atom / 64] |= 1 << (atom % 64));
    }

    pub(super) fn remove(&mut self, atoms: Range<usize>) {
        atoms.for_each(|atom| self.0[atom / 64] &= !(1 << (atom % 64)));
    }

    pub(super) fn has(&self, atom: usize) -> bool {
        self.0[atom / 64] >> (atom % 64) & 1 != 0
    }

    pub(super) fn clear(&mut self) {
        self.0.fill(0);
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(i, word)| {
            (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| i * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vec_of(range: Range<i64>) -> Vec<Range<i64>> {
        std::iter::once(range).collect()
    }

    #[test]
    fn atoms_end_where_accesses_do() {
        let atoms = Atoms::new([-16..-8, -24..-16, -20..-16, 0..8].into_iter());
        let ranges = |range| {
            let mut set = atoms.none();
            set.insert(range);
            atoms.ranges(&set)
        };
        assert_eq!(ranges(atoms.within(&(-24..-16))), vec_of(-24..-16));
        assert_eq!(ranges(atoms.within(&(-23..-16))), vec_of(-20..-16));
        assert_eq!(ranges(atoms.touching(&(-23..-16))), vec_of(-24..-16));
        assert_eq!(ranges(atoms.touching(&(-9..1))), vec_of(-16..8));
        assert_eq!(ranges(atoms.within(&(-9..1))), vec_of(-8..0));
        assert_eq!(atoms.touching(&(3..3)), 0..0);
        assert!(ranges(atoms.touching(&(100..200))).is_empty());
        assert!(ranges(atoms.touching(&(-100..-90))).is_empty());
        assert!(ranges(atoms.within(&(-100..-90))).is_empty());
    }
}
