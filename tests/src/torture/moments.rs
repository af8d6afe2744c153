//! Which program is updated at which instructions: the list of trials, in batches, computed by number.
//!
//! A batch is made from one process that is stepped once. The n-th batch of a list is always the same one.

use super::builds::Cell;
use super::trial::scramble;

/// Moments of a random batch: enough to share the way to them, few enough to reach all programs soon.
const BATCH: u64 = 16;
/// Instructions of a batch that takes every one.
const STRETCH: u64 = 400;

/// One trial to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Instructions before the first try.
    pub step: u64,
    /// Updates, there and back in turn.
    pub hops: u32,
    /// Let threads run on to where they can be updated; else judge them exactly where they are.
    pub run_on: bool,
}

/// Trials with one program, by instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Which cell.
    pub cell: usize,
    /// When.
    pub moments: Vec<Moment>,
}

/// How moments are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// At random, evenly over cells and instructions, endlessly.
    Random {
        /// Chooses others.
        seed: u64,
    },
    /// After every instruction of every cell, once.
    Every,
    /// This one of each cell.
    One(Moment),
}

/// The trials over some cells.
#[derive(Debug)]
pub struct Moments {
    choice: Choice,
    cells: Vec<Length>,
}

/// What counts of a cell.
#[derive(Debug, Clone, Copy)]
struct Length {
    cell: usize,
    instructions: u64,
    /// There is a bundle for the way back.
    back: bool,
}

impl Moments {
    /// Trials over those of `cells` that have a bundle.
    #[must_use]
    pub fn new(choice: Choice, cells: &[Cell]) -> Moments {
        let with_bundle = |(index, cell): (usize, &Cell)| {
            cell.there.path()?;
            let back = cell.back.as_ref().is_some_and(|b| b.path().is_some());
            Some(Length { cell: index, instructions: cell.reference.instructions.max(1), back })
        };
        let mut cells: Vec<Length> = cells.iter().enumerate().filter_map(with_bundle).collect();
        if let Choice::Random { seed } = choice {
            // A short time must reach all programs and all pairs.
            shuffle(seed, &mut cells);
        }
        Moments { choice, cells }
    }

    /// The batch with this number; `None` behind the last one.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Batch> {
        let count = u64::try_from(self.cells.len()).ok().filter(|c| *c > 0)?;
        match self.choice {
            Choice::Random { seed } => {
                let length = self.cells[usize::try_from(number % count).ok()?];
                let moment = |n| length.random(scramble(scramble(seed) ^ (number * BATCH + n)));
                let mut moments: Vec<Moment> = (0..BATCH).map(moment).collect();
                moments.sort_unstable();
                moments.dedup();
                Some(Batch { cell: length.cell, moments })
            }
            Choice::Every => {
                let mut rest = number;
                for length in &self.cells {
                    let stretches = length.instructions.div_ceil(STRETCH);
                    if rest < stretches {
                        return Some(length.stretch(rest));
                    }
                    rest -= stretches;
                }
                None
            }
            Choice::One(moment) => {
                let length = self.cells.get(usize::try_from(number).ok()?)?;
                Some(Batch { cell: length.cell, moments: vec![moment] })
            }
        }
    }
}

/// Puts a list into another order, by the seed.
pub fn shuffle<T: Copy>(seed: u64, list: &mut [T]) {
    let mut keyed: Vec<(u64, T)> =
        (0..).map(|n| scramble(scramble(seed) ^ n)).zip(list.iter().copied()).collect();
    keyed.sort_by_key(|(key, _)| *key);
    for (place, (_, item)) in list.iter_mut().zip(keyed) {
        *place = item;
    }
}

impl Length {
    fn random(self, noise: u64) -> Moment {
        // One in four goes there, back, and there again.
        let hops = if self.back && noise >> 61 < 2 { 3 } else { 1 };
        Moment { step: noise % self.instructions, hops, run_on: noise >> 60 & 1 == 1 }
    }

    fn stretch(self, number: u64) -> Batch {
        let start = number * STRETCH;
        let end = (start + STRETCH).min(self.instructions);
        let moment = |step| Moment { step, hops: 1, run_on: false };
        Batch { cell: self.cell, moments: (start..end).map(moment).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(choice: Choice) -> Moments {
        let length = |cell, instructions, back| Length { cell, instructions, back };
        Moments { choice, cells: vec![length(0, 10, false), length(2, 1000, true)] }
    }

    fn all(choice: Choice, batches: u64) -> Vec<(usize, Moment)> {
        let plan = moments(choice);
        let batches = (0..batches).map_while(|n| plan.get(n));
        batches.flat_map(|b| b.moments.into_iter().map(move |m| (b.cell, m))).collect()
    }

    #[test]
    fn every_instruction_comes_once() {
        let list = all(Choice::Every, u64::MAX);
        assert_eq!(list.len(), 1010);
        assert_eq!((list[10].0, list[10].1.step), (2, 0));
        assert_eq!(list.last().unwrap().1.step, 999);
        let distinct: std::collections::BTreeSet<_> = list.iter().collect();
        assert_eq!(distinct.len(), list.len());
    }

    #[test]
    fn random_moments_are_everywhere_and_repeatable() {
        let list = all(Choice::Random { seed: 1 }, 60);
        assert_eq!(list, all(Choice::Random { seed: 1 }, 60));
        assert_ne!(list, all(Choice::Random { seed: 2 }, 60));
        let has = |test: fn(&Moment) -> bool| list.iter().any(|(cell, m)| *cell == 2 && test(m));
        assert!(has(|m| m.step < 100) && has(|m| m.step > 900));
        assert!(has(|m| m.hops == 1) && has(|m| m.hops == 3));
        assert!(has(|m| m.run_on) && has(|m| !m.run_on));
        assert!(list.iter().all(|(cell, m)| *cell == 2 || m.hops == 1), "no way back");
    }

    #[test]
    fn a_seed_shuffles_always_the_same_way() {
        let shuffled = |seed| {
            let mut list: Vec<u32> = (0..100).collect();
            shuffle(seed, &mut list);
            list
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut sorted = shuffled(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn no_cells_no_trials() {
        let plan = Moments { choice: Choice::Random { seed: 1 }, cells: Vec::new() };
        assert_eq!(plan.get(0), None);
    }
}
