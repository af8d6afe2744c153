//! `--revert`: the last update of a process taken back, from what the process itself holds.
//!
//! Takes a process; finds the update that was applied last, waits until no thread is inside of what it has
//! brought, and puts back every byte that its commit wrote, from its journal. Frames that still wait at
//! the sites of the version before go on in that version. Needs no file.
//!
//! Frames of NEW are not carried back: the journal knows bytes, not frames. Threads that never leave a new
//! function are named, and the way out is a bundle from NEW to OLD (`dsu-build NEW OLD`), which is an update
//! like any other. Refused, too, where the process has changed what the commit wrote since (a value that
//! would be lost).
//!
//! What NEW has made goes on to exist: its shadow image stays mapped, because pointers to new functions and
//! variables may be anywhere; the next application of the same bundle takes it again ([`crate::again`]). A revert is journalled as a commit is: a tool that is killed in the middle
//! leaves the process stopped, and `--recover` completes the revert.

use crate::address::ProcAddr;
use crate::checkpoint::blind::BlindRanges;
use crate::checkpoint::judge::BlindThread;
use crate::checkpoint::unwind::Unwinder;
use crate::checkpoint::{Checkpoint, suspended};
use crate::error::{ApplyError, Blocker, SysError};
use crate::options::ApplyOptions;
use crate::outcome::{Outcome, Phase};
use crate::ptrace::footholds::Footholds;
use crate::ptrace::guardian::is_asked_to_end;
use crate::ptrace::hold::Hold;
use crate::ptrace::keeper;
use crate::ptrace::process::StoppedProcess;
use crate::ptrace::sched::{Pace, Undisturbed, Urgent};
use crate::record::{self, Entry, Found, HELD_AT, Record, STATE_AT, State};
use crate::recover;
use crate::target::lock::Lock;
use crate::target::maps::{Mapping, Maps};
use crate::target::memory::{ProcessMemory, ReadMemory};
use crate::target::module::Module;
use crate::target::process;
use std::time::Instant;

/// Takes back the last update of `options.pid`; of the options, `pid`, `timeout` and `dry_run` count.
#[must_use]
pub fn revert(options: &ApplyOptions) -> Outcome {
    let mut outcome = Outcome::new(options.pid, options.dry_run);
    outcome.revert = true;
    outcome.log = options.log.clone();
    let _undisturbed = Undisturbed::begin();
    let _urgent = Pace::now().priority();
    // Nobody else begins before all threads are let go of.
    let mut lock = None;
    outcome.result = transaction(options, &mut outcome, &mut lock)
        .map_err(|cause| process::told_by_its_end(options.pid, cause));
    outcome.keeping = keeper::let_go(options.pid);
    outcome.write_log();
    outcome
}

/// What is to be taken back.
struct Work {
    pid: i32,
    memory: ProcessMemory,
    modules: Vec<Module>,
    footholds: Footholds,
    found: Found,
    /// All updates that count.
    updates: Vec<Record>,
    journal: Vec<Entry>,
    /// Code that the update has brought: what of its span can be executed.
    code: Vec<(u64, u64)>,
}

fn transaction(
    options: &ApplyOptions,
    outcome: &mut Outcome,
    lock: &mut Option<Lock>,
) -> Result<(), ApplyError> {
    let start = Instant::now();
    let pid = options.pid;
    process::refuse_shadow_stack(pid, &process::check(pid)?)?;
    *lock = Some(Lock::of(pid)?);
    let work = outcome.timed(Phase::Look, |outcome| {
        let mut work = Work::look(pid);
        if let Err(ApplyError::LeftBehind(_)) = work {
            outcome.recovered = recover::recover_locked(pid)?.done;
            work = Work::look(pid);
        }
        work
    })?;
    work.describe(outcome);
    work.verify()?;
    let blind = work.blind();
    let mut checkpoint = Checkpoint {
        pid,
        memory: &work.memory,
        image: work.image_base()?,
        blind: &blind,
        unwinder: Unwinder::new(work.modules.clone()).with_updates(work.updates.iter()),
        even_stopped: options.even_stopped,
        footholds: work.footholds,
        record: Some(work.found.at),
        coroutines: suspended::may_be(&work.memory, &work.modules),
        search: Default::default(),
    };
    let deadline = start + options.timeout;
    let reached = outcome.timed(Phase::Checkpoint, |_| checkpoint.reach(deadline));
    outcome.attempts = checkpoint.search.attempts;
    outcome.threads = checkpoint.search.threads;
    let mut stopped = reached?.map_err(|in_the_way| ApplyError::Blocked {
        threads: in_the_way.len(),
        waited_ms: start.elapsed().as_millis(),
        blockers: in_the_way.iter().map(|thread| work.explain(thread)).collect(),
    })?;
    outcome.timed(Phase::Commit, |outcome| {
        let _urgent = Urgent::begin();
        let result = match (work.verify(), is_asked_to_end()) {
            (Ok(()), true) => Err(ApplyError::Interrupted),
            (Ok(()), false) if !options.dry_run => work.take_back(&mut stopped),
            (verified, _) => verified,
        };
        outcome.pause = stopped.release();
        if !options.dry_run {
            // It fails only where the process has ended.
            let _ = work.memory.write_back(work.found.at.offset(HELD_AT), &[0; 4]);
        }
        result
    })
}

/// What of an update's shadow image can be executed. A mapping may hold more than one span.
fn code(maps: &Maps, record: &Record) -> Vec<(u64, u64)> {
    let (start, end) = (record.image.start, record.image.end());
    let inside = |m: &Mapping| (m.start.0.max(start), m.end.0.min(end));
    let parts = maps.0.iter().filter(|m| m.executable).map(inside);
    parts.filter(|(start, end)| start < end).collect()
}

/// Of a process that goes back and forth between versions, only the last records are kept.
fn refuse_unknown(last: &Record, updates: &[Record]) -> Result<(), ApplyError> {
    let others: Vec<Record> = updates
        .iter()
        .filter(|r| r.image_bias == last.image_bias && r.sequence < last.sequence)
        .cloned()
        .collect();
    let before = others.iter().find(|r| r.sequence + 1 == last.sequence);
    let known = last.sequence == 1 || before.is_some_and(|r| record::retire::is_whole(r, &others));
    if known {
        return Ok(());
    }
    Err(ApplyError::Unsuitable(
        "the update before the last one is no longer on record, as the process went back and forth \
         between versions: use a bundle from NEW to OLD"
            .into(),
    ))
}

impl Work {
    fn look(pid: i32) -> Result<Self, ApplyError> {
        let memory = ProcessMemory::open(pid)?;
        let maps = Maps::of(pid)?;
        let records = record::find_all(&memory, &maps);
        if recover::is_needed(&records) {
            return Err(ApplyError::LeftBehind(pid));
        }
        let applied: Vec<_> = records.into_iter().filter(|f| f.state == State::Applied).collect();
        let updates: Vec<_> = applied.iter().map(|f| f.record.clone()).collect();
        let age = |f: &Found| (f.record.when, f.record.serial, f.record.sequence);
        let found = applied.into_iter().max_by_key(age).ok_or_else(|| {
            ApplyError::WrongBuild(format!("process {pid} has no update that could be taken back"))
        })?;
        refuse_unknown(&found.record, &updates)?;
        let footholds = Footholds::find(&memory, &maps).ok_or_else(|| {
            ApplyError::Unsuitable(format!("process {pid} has no syscall instruction in its code"))
        })?;
        let journal = record::journal(&memory, &found)?;
        let modules = Module::all(&memory, &maps);
        let code = code(&maps, &found.record);
        Ok(Self { pid, memory, modules, footholds, found, updates, journal, code })
    }

    fn describe(&self, outcome: &mut Outcome) {
        let record = &self.found.record;
        outcome.functions.clone_from(&record.functions);
        outcome.builds = (record.new_build_id.clone(), record.old_build_id.clone());
        outcome.file = self.image().map(|m| m.file_name().to_owned()).unwrap_or_default();
    }

    fn image(&self) -> Option<&Module> {
        self.modules.iter().find(|m| m.bias == self.found.record.image_bias)
    }

    fn image_base(&self) -> Result<ProcAddr, ApplyError> {
        let gone = || {
            ApplyError::Unsuitable(format!(
                "the image of the last update is no longer loaded in process {}",
                self.pid
            ))
        };
        self.image().map(|image| image.base).ok_or_else(gone)
    }

    /// Whether everything that the commit wrote is still as it wrote it.
    fn verify(&self) -> Result<(), ApplyError> {
        for entry in &self.journal {
            if self.memory.read_vec(entry.at, entry.new.len())? != entry.new {
                return Err(ApplyError::Unsuitable(format!(
                    "the {} bytes at {} that the update wrote have changed since: to put back what \
                     was there before could lose a value; use a bundle from NEW to OLD",
                    entry.new.len(),
                    entry.at
                )));
            }
        }
        Ok(())
    }

    /// All code of the span; and the jumps in padding on the way to it, where OLD has nothing to go on with.
    fn blind(&self) -> BlindRanges {
        let record = &self.found.record;
        let behind_entry =
            |jump: u64| record.identities.iter().any(|i| i.jump == jump && i.identity != jump);
        let caves = self.journal.iter().filter(|e| {
            // An entry behind its `endbr64` is a place in OLD all the same: it costs only a wait.
            behind_entry(e.at.0) || self.is_cave(e)
        });
        let caves = caves.map(|e| (e.at.0, e.at.0 + 1)).collect::<Vec<_>>();
        BlindRanges::of_code(&[caves.as_slice(), &self.code].concat())
    }

    /// Whether another jump of the journal leads to this one.
    fn is_cave(&self, entry: &Entry) -> bool {
        self.journal.iter().any(|jump| match jump.new[..] {
            [0xeb, distance] => {
                let to = jump
                    .at
                    .0
                    .wrapping_add(2)
                    .wrapping_add_signed(i64::from(distance.cast_signed()));
                to == entry.at.0
            }
            _ => false,
        })
    }

    fn explain(&self, thread: &BlindThread) -> Blocker {
        let (pid, tid) = (self.pid, thread.tid);
        let name = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
        let mut note = "inside of what the update has brought".to_owned();
        if !thread.note.is_empty() {
            note = format!("{note}, {}", thread.note);
        }
        Blocker {
            tid,
            thread: name.unwrap_or_default().trim_end().to_owned(),
            function: String::new(),
            file: String::new(),
            line: 0,
            address: thread.points.first().map(|p| p.linked.to_string()).unwrap_or_default(),
            why: "a frame of NEW is carried back by a bundle from NEW to OLD only".into(),
            note,
        }
    }

    fn take_back(&self, stopped: &mut StoppedProcess) -> Result<(), ApplyError> {
        let held = !stopped.in_group_stop();
        self.state(State::Reverting, held)?;
        let hold = Hold::begin(stopped);
        let mut written = self.journal.iter().rev();
        let result = written
            .try_for_each(|entry| self.memory.write(entry.at, &entry.old))
            .and_then(|()| self.state(State::Undone, held))
            .map_err(|e| self.do_again(e, held));
        if let Some(hold) = hold {
            // An error here says that the process has ended.
            let _ = hold.end(stopped);
        }
        result.map_err(|e| ApplyError::CommitFailed { cause: e.to_string(), left: Vec::new() })
    }

    /// What was taken back is done once more.
    fn do_again(&self, cause: SysError, held: bool) -> SysError {
        for entry in &self.journal {
            // The first error counts; what cannot be written now could not be a moment ago.
            let _ = self.memory.write_back(entry.at, &entry.new);
        }
        let state = State::Applied.words(held);
        let _ = self.memory.write_back(self.found.at.offset(STATE_AT), &state);
        cause
    }

    fn state(&self, state: State, held: bool) -> Result<(), SysError> {
        self.memory.write(self.found.at.offset(STATE_AT), &state.words(held))
    }
}
