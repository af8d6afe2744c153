//! Many trials on all processors, within a time.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};

use super::builds::{Bundle, Cell};
use super::moments::{Batch, Moment, Moments};
use super::mother::{self, Mother};
use super::parallel::{locked, on_each_processor};
use super::tally::Tally;
use super::tracee::Tracee;
use super::trial::{LIMIT, Outcome, Trial, Update, Verdict};
use super::updating;

/// Divergences that are run again, with everything said.
const MOST_SHOWN: u64 = 8;

/// The program that takes signals at any time.
const INTERRUPTED: &str = "interrupted";

/// When to stop, and how hard to try.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// No trial is begun later.
    pub until: Instant,
    /// No trial is begun when so many updates have been done or refused.
    pub updates: u64,
    /// Tries of one update.
    pub tries: u32,
}

/// Runs trials until their list or a bound ends.
pub fn run(cells: &[Cell], moments: &Moments, bounds: Bounds, tally: &Mutex<Tally>) {
    let next = AtomicU64::new(0);
    let start = locked(tally).total().updates();
    let over = || {
        let done = locked(tally).total().updates() - start;
        Instant::now() >= bounds.until || done >= bounds.updates
    };
    on_each_processor(|| {
        while !over() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(batch) = moments.get(number) else { break };
            let cell = &cells[batch.cell];
            if let Err(error) = run_batch(cell, &batch, bounds.tries, tally, &over) {
                println!("FAILED: {} {}: {error:#}", cell.program, cell.pair);
                locked(tally).failure();
            }
        }
    });
}

fn run_batch(
    cell: &Cell,
    batch: &Batch,
    tries: u32,
    tally: &Mutex<Tally>,
    over: &dyn Fn() -> bool,
) -> Result<()> {
    let mut way = Way::begin(cell)?;
    for moment in &batch.moments {
        if over() {
            break;
        }
        let Some(tracee) = way.at(moment.step)? else { break };
        one(cell, *moment, tracee, tries, tally)?;
    }
    Ok(())
}

/// How processes come to an instruction.
enum Way<'a> {
    /// As copies of one that is stepped once.
    Copies(Mother),
    /// Each on its own, from its start.
    Anew(&'a Path),
}

impl Way<'_> {
    fn begin(cell: &Cell) -> Result<Way<'_>> {
        Ok(match mother::is_alone(&cell.program) {
            true => Way::Copies(Mother::start(&cell.old)?),
            false => Way::Anew(&cell.old),
        })
    }

    /// A process there; `None` when the program has ended before.
    fn at(&mut self, step: u64) -> Result<Option<Tracee>> {
        match self {
            Way::Copies(mother) => {
                Ok(if mother.advance(step)? { Some(mother.copy()?) } else { None })
            }
            Way::Anew(program) => {
                let mut tracee = Tracee::start(program)?;
                tracee.step(step)?;
                Ok(Some(tracee).filter(|t| !t.has_ended()))
            }
        }
    }
}

fn one(
    cell: &Cell,
    moment: Moment,
    tracee: Tracee,
    tries: u32,
    tally: &Mutex<Tally>,
) -> Result<()> {
    let command = command(cell, moment, tries);
    updating::doing(command.clone());
    let how = |bundle: &Path, pid| updating::apply(bundle, pid, moment.run_on);
    let outcome = trial(cell, moment, tracee, tries, &how).with_context(|| command.clone())?;
    let shown = {
        let mut tally = locked(tally);
        tally.trial(cell, &outcome);
        tally.total().diverged
    };
    if let Verdict::Diverged(what) = &outcome.verdict {
        let mut text = format!(
            "DIVERGED: {what}\n  {command}\n  instructions, bytes written, update: {:?}",
            outcome.path
        );
        if shown <= MOST_SHOWN {
            text.push_str(&again(cell, moment, tries));
        }
        println!("{text}");
    }
    Ok(())
}

/// The same trial once more, with everything that can be known, from a process of its own.
fn again(cell: &Cell, moment: Moment, tries: u32) -> String {
    let said = RefCell::new(String::new());
    let how = |bundle: &Path, pid| {
        let (update, text) = updating::apply_aloud(bundle, pid, moment.run_on);
        said.borrow_mut().push_str(&text);
        update
    };
    let result = Tracee::start(&cell.old).and_then(|mut tracee| {
        tracee.step(moment.step)?;
        trial(cell, moment, tracee, tries, &how)
    });
    let verdict = match result {
        Ok(outcome) => format!("{:?}", outcome.verdict),
        Err(error) => format!("{error:#}"),
    };
    format!("{}\n  again, in a process of its own: {verdict}", said.into_inner())
}

/// One trial of a cell, on a process that stands where it begins.
pub fn trial(
    cell: &Cell,
    moment: Moment,
    tracee: Tracee,
    tries: u32,
    apply: &dyn Fn(&Path, i32) -> Update,
) -> Result<Outcome> {
    let update = |pid: i32, to_new: bool| {
        let bundle = if to_new { Some(&cell.there) } else { cell.back.as_ref() };
        match bundle.map(Bundle::path) {
            Some(Some(bundle)) => apply(bundle, pid),
            _ => Update::Refused(vec!["no bundle".into()]),
        }
    };
    let Moment { step, hops, .. } = moment;
    let signal = cell.program == INTERRUPTED && step.is_multiple_of(2);
    let reference = &cell.reference;
    Trial { reference, update: &update, step, tries, hops, signal, limit: LIMIT }.run(tracee)
}

/// What repeats a trial.
fn command(cell: &Cell, moment: Moment, tries: u32) -> String {
    format!(
        "torture --program {} --pair {} --step {} --hops {} --tries {tries}{}",
        cell.program,
        cell.pair,
        moment.step,
        moment.hops,
        if moment.run_on { " --run-on" } else { "" }
    )
}
