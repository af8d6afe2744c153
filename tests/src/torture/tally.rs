//! What came of the trials: by pair, by program, and for which reasons not.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::builds::{Bundle, Cell};
use super::trial::{Outcome, Verdict};

/// Counts of some trials.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Program pairs.
    pub cells: u64,
    /// Of these, without a bundle.
    pub without: u64,
    /// Processes.
    pub trials: u64,
    /// Updates done.
    pub applied: u64,
    /// Of these, at the first try.
    pub at_once: u64,
    /// Updates refused until the end.
    pub refused: u64,
    /// Programs that had ended before the first try.
    pub missed: u64,
    /// Wrong results.
    pub diverged: u64,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        self.trials += 1;
        self.applied += u64::from(outcome.applied);
        self.at_once += u64::from(outcome.at_once);
        self.refused += u64::from(outcome.refused.is_some());
        self.missed += u64::from(outcome.missed);
        self.diverged += u64::from(outcome.verdict != Verdict::Right);
    }

    /// Updates done and refused.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.applied + self.refused
    }

    /// Refused updates of all, in percent.
    #[must_use]
    pub fn refused_percent(&self) -> u64 {
        (self.refused * 100).checked_div(self.updates()).unwrap_or(0)
    }
}

/// All counts.
#[derive(Debug, Default)]
pub struct Tally {
    total: Counts,
    pairs: BTreeMap<String, Counts>,
    programs: BTreeMap<String, Counts>,
    /// No bundle, because of this.
    builds: BTreeMap<String, u64>,
    /// Not applied, because of this.
    reasons: BTreeMap<String, u64>,
}

/// Reasons shown.
const MOST_REASONS: usize = 25;

impl Tally {
    /// Notes a cell before its trials.
    pub fn cell(&mut self, cell: &Cell) {
        let without = u64::from(cell.there.path().is_none());
        for counts in self.counts(cell) {
            counts.cells += 1;
            counts.without += without;
        }
        if let Bundle::None(why) = &cell.there {
            *self.builds.entry(why.clone()).or_default() += 1;
        }
    }

    /// Notes a trial.
    pub fn trial(&mut self, cell: &Cell, outcome: &Outcome) {
        for counts in self.counts(cell) {
            counts.add(outcome);
        }
        for why in outcome.refused.iter().flatten() {
            *self.reasons.entry(format!("{} {why}", cell.program)).or_default() += 1;
        }
    }

    /// Notes a failure outside of any trial.
    pub fn failure(&mut self) {
        self.total.diverged += 1;
    }

    fn counts(&mut self, cell: &Cell) -> [&mut Counts; 3] {
        // All of csmith's programs in one line.
        let random = cell.program.starts_with(super::random::PREFIX);
        let program = if random { "csmith".to_owned() } else { cell.program.clone() };
        let pair = format!("{}{}", if random { "csmith " } else { "" }, cell.pair);
        [
            &mut self.total,
            self.pairs.entry(pair).or_default(),
            self.programs.entry(program).or_default(),
        ]
    }

    /// Over everything.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.total
    }

    /// As tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        for (title, rows) in [("pair", &self.pairs), ("program", &self.programs)] {
            writeln!(
                out,
                "\n{title:<34} cells  no bundle   trials  applied  at once  refused    %   missed  diverged"
            )?;
            for (name, counts) in rows {
                line(out, name, counts)?;
            }
        }
        line(out, "all", &self.total)?;
        top(out, "no bundle, because", &self.builds)?;
        top(out, "not applied at first, because of a frame in (several at a time)", &self.reasons)
    }
}

fn line(out: &mut String, name: &str, c: &Counts) -> std::fmt::Result {
    writeln!(
        out,
        "{name:<34} {:>5} {:>10} {:>8} {:>8} {:>8} {:>8} {:>4} {:>8} {:>9}",
        c.cells,
        c.without,
        c.trials,
        c.applied,
        c.at_once,
        c.refused,
        c.refused_percent(),
        c.missed,
        c.diverged
    )
}

fn top(out: &mut String, title: &str, counts: &BTreeMap<String, u64>) -> std::fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
    for (name, count) in rows.iter().take(MOST_REASONS) {
        let name: String = name.chars().take(130).collect();
        writeln!(out, "{count:>8}  {name}")?;
    }
    match rows.len().saturating_sub(MOST_REASONS) {
        0 => Ok(()),
        more => writeln!(out, "          and {more} more"),
    }
}
