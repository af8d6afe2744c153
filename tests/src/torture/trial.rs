//! One trial: a process that stands behind its k-th instruction is updated there, and must end as if
//! nothing had happened; or the update is refused, and it must end as OLD.
//!
//! A refused update is tried again a little later, a few times, as dsu-apply itself would in a process that
//! runs. With more than one hop the process is then taken back to OLD, and there again: frames that
//! still wait are carried through every version.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};

use super::oracle::{Commit, Reference};
use super::tracee::{Finished, Tracee};

/// How long a process may take from its last update to its end. Undisturbed, it takes milliseconds.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Stands for a signal where tries are numbered.
const SIGNAL: u32 = 1000;
/// From one try to the next, and from one hop to the next: this many instructions at most.
const MOST_BETWEEN: u64 = 150;

/// What an update came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// The process runs the other version.
    Done,
    /// It runs the same as before, because of these.
    Refused(Vec<String>),
    /// It ended while it was let run on to where it could be updated.
    Ended,
    /// Nothing that may happen.
    Failed(String),
}

/// Updates the process, which is stopped, to NEW (`true`) or back to OLD.
pub type Updater<'a> = &'a dyn Fn(i32, bool) -> Update;

/// What to do.
#[derive(Clone, Copy)]
pub struct Trial<'a> {
    /// What it says undisturbed.
    pub reference: &'a Reference,
    /// Updates it.
    pub update: Updater<'a>,
    /// Instructions that the process has executed.
    pub step: u64,
    /// Tries of each hop.
    pub tries: u32,
    /// Updates, there and back in turn.
    pub hops: u32,
    /// Interrupted by a signal first, and updated somewhere in its handler.
    pub signal: bool,
    /// How long it may run after its last update.
    pub limit: Duration,
}

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The program has said what it must.
    Right,
    /// It has not, or the update did what it must not: this.
    Diverged(String),
}

/// What happened in a trial.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Whether it was right.
    pub verdict: Verdict,
    /// Updates done.
    pub applied: u32,
    /// Of these, at the first try.
    pub at_once: u32,
    /// A hop was given up after all its tries, because of what was said the first time.
    pub refused: Option<Vec<String>>,
    /// The program ended before it was updated or refused: nothing was shown.
    pub missed: bool,
    /// What was tried: after how many instructions, with how much written, and what came of it.
    pub path: Vec<(u64, usize, Update)>,
}

/// A trial under way.
struct Run {
    tracee: Tracee,
    outcome: Outcome,
    commits: Vec<Commit>,
    /// Instructions executed.
    at: u64,
}

impl Trial<'_> {
    /// Does it to this process.
    pub fn run(&self, tracee: Tracee) -> Result<Outcome> {
        let outcome = Outcome {
            verdict: Verdict::Right,
            applied: 0,
            at_once: 0,
            refused: None,
            missed: tracee.has_ended(),
            path: Vec::new(),
        };
        let mut run = Run { tracee, outcome, commits: Vec::new(), at: self.step };
        if self.signal {
            kill(run.tracee.pid(), Signal::SIGUSR1)?;
            run.step(self.between(0, SIGNAL))?;
        }
        for hop in 0..self.hops {
            if run.tracee.has_ended() || !self.hop(&mut run, hop)? {
                break;
            }
            run.step(self.between(hop, 0))?;
        }
        let Run { tracee, mut outcome, commits, .. } = run;
        let finished = tracee.finish(self.limit)?;
        if outcome.verdict == Verdict::Right {
            outcome.verdict = self.judge(&finished, &commits);
        }
        Ok(outcome)
    }

    /// One update, tried several times; gives whether it was done.
    fn hop(&self, run: &mut Run, hop: u32) -> Result<bool> {
        let to_new = hop.is_multiple_of(2);
        let mut first = None;
        for attempt in 0..self.tries {
            if attempt > 0 {
                run.step(self.between(hop, attempt))?;
            }
            if run.tracee.has_ended() {
                break;
            }
            let said = run.tracee.said()?.len();
            let update = (self.update)(run.tracee.pid().as_raw(), to_new);
            run.outcome.path.push((run.at, said, update.clone()));
            match update {
                Update::Done => {
                    run.outcome.applied += 1;
                    run.outcome.at_once += u32::from(attempt == 0);
                    // It may have been let run on before, and stands still again.
                    let at = run.tracee.said()?.len();
                    run.commits.push(Commit { at, new: to_new });
                    return Ok(true);
                }
                Update::Refused(why) => {
                    first.get_or_insert(why);
                }
                Update::Ended => {
                    run.outcome.missed = run.outcome.applied == 0;
                    return Ok(false);
                }
                Update::Failed(why) => {
                    run.outcome.verdict = Verdict::Diverged(why);
                    return Ok(false);
                }
            }
        }
        run.outcome.refused = first;
        Ok(false)
    }

    fn judge(&self, finished: &Finished, commits: &[Commit]) -> Verdict {
        match self.reference.judge(finished, commits) {
            Ok(()) => Verdict::Right,
            Err(what) => Verdict::Diverged(what),
        }
    }

    /// Instructions to the next try or hop: any number, but always the same one.
    fn between(&self, hop: u32, attempt: u32) -> u64 {
        let number = self.step ^ u64::from(hop) << 40 ^ u64::from(attempt) << 50;
        1 + (scramble(number) >> 20) % MOST_BETWEEN
    }
}

impl Run {
    fn step(&mut self, instructions: u64) -> Result<()> {
        self.at += self.tracee.step(instructions)?;
        Ok(())
    }
}

/// Spreads numbers evenly (the finalizer of MurmurHash3, Appleby).
#[must_use]
pub fn scramble(mut number: u64) -> u64 {
    number = (number ^ number >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ number >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ number >> 33
}
