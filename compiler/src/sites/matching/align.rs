//! The lines of one stretch of a file between two declarations: which of OLD is which of NEW.
//!
//! Between two declarations lines may be added and removed, as many or not. Each line with code on both
//! sides is as good a counterpart as the columns that it has in common with it, and better where the
//! same instructions show it. A change of distance must pay: code that was optimized in another way has
//! no other lines.

use std::collections::{BTreeMap, BTreeSet};

/// The columns at which a line has code, by line.
pub(super) type Lines = BTreeMap<u32, BTreeSet<u32>>;

/// What a line is worth whose columns are all the same.
const ALIKE: i64 = 100;
/// What it is worth more when instructions show it.
const SHOWN: i64 = 50;
/// What a change of distance costs.
const CHANGE: i64 = 250;
/// Distances that are tried, at most: those that most instructions show.
const MOST_SHIFTS: usize = 48;

/// One stretch.
pub(super) struct Stretch<'a> {
    /// OLD's lines with code.
    pub old: Vec<(u32, &'a BTreeSet<u32>)>,
    /// NEW's lines with code, of the whole file.
    pub new: &'a Lines,
    /// How much further the declarations before and behind are in NEW.
    pub ends: (Option<i64>, Option<i64>),
    /// Counterparts that instructions show.
    pub shown: &'a BTreeMap<u32, u32>,
}

/// How the best way to a line and distance came there: the line before on that way, and its distance.
type Step = Option<(usize, usize)>;

impl Stretch<'_> {
    /// Pairs of lines, rising on both sides.
    pub(super) fn pairs(&self) -> Vec<(u32, u32)> {
        let shifts = self.shifts();
        let worth: Vec<Vec<i64>> = self
            .old
            .iter()
            .map(|(line, columns)| shifts.iter().map(|s| self.worth(*line, columns, *s)).collect())
            .collect();
        let cost = |end: Option<i64>, shift: i64| match end {
            Some(end) if end != shift => CHANGE,
            _ => 0,
        };
        let mut best: Vec<Vec<(i64, Step)>> = Vec::new();
        for (k, (line, _)) in self.old.iter().enumerate() {
            let row = shifts.iter().enumerate().map(|(s, shift)| {
                let first = (-cost(self.ends.0, *shift), None);
                let (total, from) = self.before(k, *line, (s, &shifts), &best).unwrap_or(first);
                (total + worth[k][s], from)
            });
            let row = row.collect();
            best.push(row);
        }
        let mut at: Step = best.len().checked_sub(1).and_then(|last| {
            let ends = (0..shifts.len()).max_by_key(|s| {
                (best[last][*s].0 - cost(self.ends.1, shifts[*s]), std::cmp::Reverse(*s))
            });
            Some((last, ends?))
        });
        let mut pairs = Vec::new();
        while let Some((k, s)) = at {
            let line = self.old[k].0;
            if worth[k][s] > 0
                && let Some(other) = shifted(line, shifts[s])
            {
                pairs.push((line, other));
            }
            at = best[k][s].1;
        }
        pairs.reverse();
        pairs
    }

    /// The best way to a line at a distance from the lines before it.
    fn before(
        &self,
        k: usize,
        line: u32,
        (s, shifts): (usize, &[i64]),
        best: &[Vec<(i64, Step)>],
    ) -> Option<(i64, Step)> {
        let mut found: Option<(i64, Step)> = None;
        for (t, shift) in shifts.iter().enumerate() {
            // Lines that would be before their predecessors are gone.
            let gone = (shift - shifts[s]).max(0);
            let limit = i64::from(line) - gone;
            let from = self.old[..k].partition_point(|(l, _)| i64::from(*l) < limit).checked_sub(1);
            let Some(from) = from else { continue };
            let total = best[from][t].0 - if t == s { 0 } else { CHANGE };
            if found.is_none_or(|(most, _)| total > most || total == most && t == s) {
                found = Some((total, Some((from, t))));
            }
        }
        found
    }

    /// The distances of the declarations, and those that most instructions show; ascending by how likely.
    fn shifts(&self) -> Vec<i64> {
        let mut count: BTreeMap<i64, usize> = BTreeMap::new();
        for (line, _) in &self.old {
            if let Some(other) = self.shown.get(line) {
                *count.entry(i64::from(*other) - i64::from(*line)).or_default() += 1;
            }
        }
        let mut shown: Vec<(i64, usize)> = count.into_iter().collect();
        shown.sort_by_key(|(shift, count)| (std::cmp::Reverse(*count), shift.abs()));
        let ends = [self.ends.0, self.ends.1].into_iter().flatten();
        let mut shifts: Vec<i64> = Vec::new();
        for shift in ends.chain(shown.into_iter().map(|(shift, _)| shift)) {
            if !shifts.contains(&shift) && shifts.len() < MOST_SHIFTS {
                shifts.push(shift);
            }
        }
        if shifts.is_empty() {
            shifts.push(0);
        }
        shifts
    }

    fn worth(&self, line: u32, columns: &BTreeSet<u32>, shift: i64) -> i64 {
        let Some(other) = shifted(line, shift) else { return 0 };
        let Some(others) = self.new.get(&other) else { return 0 };
        let both = i64::try_from(columns.intersection(others).count()).unwrap_or(0);
        let all = i64::try_from(columns.union(others).count()).unwrap_or(i64::MAX).max(1);
        let shown = self.shown.get(&line) == Some(&other);
        if both == 0 { 0 } else { ALIKE * both / all + if shown { SHOWN } else { 0 } }
    }
}

fn shifted(line: u32, by: i64) -> Option<u32> {
    u32::try_from(i64::from(line) + by).ok()
}

#[cfg(test)]
mod tests {
    use super::{Lines, Stretch};
    use std::collections::{BTreeMap, BTreeSet};

    /// Each line with columns of its own.
    fn lines(lines: impl Iterator<Item = (u32, u32)>) -> Lines {
        lines.map(|(line, id)| (line, BTreeSet::from([id, 100 + id % 7]))).collect()
    }

    fn aligned(
        old: &Lines,
        new: &Lines,
        shown: &[(u32, u32)],
        ends: (Option<i64>, Option<i64>),
    ) -> BTreeMap<u32, u32> {
        let shown = shown.iter().copied().collect();
        let old = old.iter().map(|(line, columns)| (*line, columns)).collect();
        Stretch { old, new, ends, shown: &shown }.pairs().into_iter().collect()
    }

    /// One line is added at 30, and one removed at 60: all in all as many as before.
    #[test]
    fn lines_added_here_and_removed_there_are_found() {
        let old = lines((10..90).map(|l| (l, l)));
        let new = lines((10..90).map(|l| match l {
            ..30 => (l, l),
            30 => (l, 9),
            31..=60 => (l, l - 1),
            _ => (l, l),
        }));
        let pairs = aligned(&old, &new, &[(40, 41), (41, 42), (20, 20)], (Some(0), Some(0)));
        assert_eq!(pairs.get(&29), Some(&29));
        assert!((30..60).all(|l| pairs.get(&l) == Some(&(l + 1))));
        assert!((61..90).all(|l| pairs.get(&l) == Some(&l)));
        assert_eq!(pairs.get(&60), None);
    }

    /// Code that was optimized in another way shows a few lines at other distances.
    #[test]
    fn a_few_instructions_do_not_move_lines() {
        let old = lines((10..90).map(|l| (l, l)));
        let new = lines((10..90).filter(|l| l % 3 != 0).map(|l| (l, l)));
        let pairs = aligned(&old, &new, &[(40, 44), (41, 45)], (Some(0), Some(0)));
        assert!(pairs.iter().all(|(a, b)| a == b));
    }
}
