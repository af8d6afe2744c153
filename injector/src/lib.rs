//! Puts a patch bundle into a running process, whole or not at all (DESIGN section 7).
//!
//! ```text
//! bundle -> target/  -> prepare    -> checkpoint/       -> commit/ -> record/
//!           look at     map and       stop all threads     write,     what the
//!           it          write the     where none is at     or undo    process holds
//!                       shadow image  a blind point                   of it
//!           \______________________ ptrace/: all that is unsafe ____/
//! ```
//!
//! A dead version's memory is never unmapped, as pointers to it may be anywhere; the next application of the
//! same bundle takes it again ([`again`]), so that a process may go back and forth for ever.
//!
//! The injector does no analysis: it compares numbers and copies bytes. It links no disassembler and
//! reads no DWARF but unwinding rows.

pub mod address;
pub mod again;
pub mod checkpoint;
pub mod commit;
pub mod error;
pub mod faults;
pub mod fleet;
pub mod inspect;
pub mod log;
pub mod options;
pub mod outcome;
pub mod prepare;
pub mod prepared;
pub mod probe;
pub mod ptrace;
pub mod record;
pub mod recover;
pub mod revert;
pub mod seccomp;
pub mod status;
pub mod target;

use address::ProcAddr;
use checkpoint::Checkpoint;
use checkpoint::blind::{BlindRanges, NOBODY};
use checkpoint::judge::BlindThread;
use checkpoint::unwind::Unwinder;
use commit::Commit;
use dsu_patch_format::{Bundle, OldAddr, codec};
pub use error::{ApplyError, Blocker, ExitCode};
pub use inspect::inspect;
pub use options::{ApplyOptions, FailPoint};
pub use outcome::{Outcome, Phase};
use prepare::Shadow;
use prepared::Prepared;
use ptrace::keeper;
use ptrace::process::StoppedProcess;
use ptrace::sched::{Pace, Undisturbed, Urgent};
use record::detours::Detours;
pub use revert::revert;
use std::collections::BTreeMap;
use std::time::Instant;
use target::Target;
use target::lock::Lock;

/// Updates one process, or finds out whether it could be.
///
/// The calling thread becomes the tracer of the process's threads for as long as this takes; no other
/// thread of the caller may wait for that process meanwhile.
#[must_use]
pub fn apply(options: &ApplyOptions) -> Outcome {
    let mut outcome = Outcome::new(options.pid, options.dry_run);
    outcome.log = options.log.clone();
    // What would end this process waits for a safe point.
    let _undisturbed = Undisturbed::begin();
    // On a crowded machine every step would wait for its turn behind the target's own threads.
    let _urgent = Pace::now().priority();
    // Nobody else begins before all threads are let go of.
    let mut lock = None;
    outcome.result = transaction(options, &mut outcome, &mut lock)
        .map_err(|cause| target::process::told_by_its_end(options.pid, cause));
    outcome.keeping = keeper::let_go(options.pid);
    outcome.write_log();
    outcome
}

fn transaction(
    options: &ApplyOptions,
    outcome: &mut Outcome,
    lock: &mut Option<Lock>,
) -> Result<(), ApplyError> {
    let start = Instant::now();
    // One that does not exist has its own message.
    target::process::check(options.pid)?;
    *lock = Some(Lock::of(options.pid)?);
    let (bundle, digest, target) = outcome.timed(Phase::Look, |outcome| {
        let (bundle, digest) = read_bundle(options)?;
        outcome.describe(&bundle);
        let mut target = match Target::look(options.pid, &bundle) {
            Err(ApplyError::LeftBehind(pid)) if !options.dry_run => {
                outcome.recovered = recover::recover_locked(pid)?.done;
                Target::look(pid, &bundle)?
            }
            looked => looked?,
        };
        if options.back {
            refuse_other_than_back(&bundle, &target)?;
            outcome.revert = true;
        }
        target.permit = seccomp::examine(target.pid, &target.footholds, options.suspend)?;
        options.pass(FailPoint::Looked)?;
        Ok::<_, ApplyError>((bundle, digest, target))
    })?;
    let mut update = Update { options, bundle: &bundle, target: &target, start };
    if options.dry_run {
        return update.rehearse(&digest, outcome);
    }
    let shadow = outcome.timed(Phase::Prepare, |outcome| {
        let shadow = Shadow::map(&target, &bundle, &digest, options)?;
        outcome.longest_other_pause = shadow.pause;
        Ok::<_, ApplyError>(shadow)
    })?;
    outcome.describe_memory(&shadow.prepared);
    match update.commit(&shadow, outcome) {
        // Something in the process still leads into the span: it must stay.
        Err(ApplyError::CommitFailed { cause, left }) if !left.is_empty() => {
            Err(ApplyError::CommitFailed { cause, left })
        }
        Err(e) => Err(outcome.timed(Phase::Undo, |_| shadow.unmap_after(&target, e))),
        Ok(()) => {
            update.retire(outcome);
            Ok(())
        }
    }
}

/// Reads the bundle of the options, and its digest.
///
/// # Errors
/// It cannot be read, is damaged, or not signed as the options want it.
pub fn read_bundle(options: &ApplyOptions) -> Result<(Bundle, String), ApplyError> {
    let bytes = inspect::read_trusted(&options.bundle, &options.required_keys)?;
    let bundle = codec::decode_plan(&bytes)?;
    Ok((bundle, target::elf::hex(&codec::digest(&bytes)?)))
}

/// `--revert` with a bundle: it must lead to where the last update came from.
fn refuse_other_than_back(bundle: &Bundle, target: &Target) -> Result<(), ApplyError> {
    let before = target.updates.last().map(|found| &found.record.old_build_id);
    if before == Some(&bundle.manifest.new.build_id) {
        return Ok(());
    }
    Err(ApplyError::WrongBuild(format!(
        "the bundle does not lead back: it makes build {}, and the last update of process {} came from {}",
        bundle.manifest.new.build_id,
        target.pid,
        before.map_or("nowhere", String::as_str),
    )))
}

impl Outcome {
    fn describe(&mut self, bundle: &Bundle) {
        let manifest = &bundle.manifest;
        let updated = manifest.replaced.iter().filter(|f| f.new.is_some());
        self.functions = updated.map(|f| f.name.clone()).collect();
        self.builds = (manifest.old.build_id.clone(), manifest.new.build_id.clone());
        self.file.clone_from(&manifest.old.file);
        self.sites = bundle.plan.sites.len();
    }

    fn describe_memory(&mut self, prepared: &Prepared) {
        self.memory_bytes = prepared.layout.mapped();
        self.again = prepared.again.as_ref().map(|again| again.changed);
        self.why_anew = prepared.why;
    }
}

/// One update under way.
struct Update<'a> {
    options: &'a ApplyOptions,
    bundle: &'a Bundle,
    target: &'a Target,
    start: Instant,
}

impl Update<'_> {
    /// Everything that can be done without changing anything.
    fn rehearse(&mut self, digest: &str, outcome: &mut Outcome) -> Result<(), ApplyError> {
        let compute = || Prepared::compute(self.target, self.bundle, digest, self.options);
        let prepared = outcome.timed(Phase::Prepare, |_| compute())?;
        outcome.describe_memory(&prepared);
        let blind = self.blind(&prepared);
        let stopped = self.reach(&mut self.checkpoint(&blind, None), outcome)?;
        let verified = commit::verify(&self.target.memory, &prepared.commit);
        outcome.pause = stopped.release();
        verified
    }

    /// Where no thread may be.
    fn blind(&self, prepared: &Prepared) -> BlindRanges {
        let updates: Vec<_> = self.target.updates.iter().map(|found| &found.record).collect();
        let again = prepared.again.as_ref();
        let detours = Detours::of(&updates, again.map(|again| again.image));
        let blind = BlindRanges::new(&self.bundle.plan, &self.target.map, &detours);
        match again {
            Some(again) => blind.with_code(&again.caves()),
            None => blind,
        }
    }

    fn checkpoint<'b>(
        &'b self,
        blind: &'b BlindRanges,
        record: Option<ProcAddr>,
    ) -> Checkpoint<'b> {
        let target = self.target;
        Checkpoint {
            pid: target.pid,
            memory: &target.memory,
            image: target.image.base,
            blind,
            unwinder: Unwinder::new(target.modules.clone())
                .with_updates(target.updates.iter().map(|found| &found.record)),
            even_stopped: self.options.even_stopped,
            footholds: target.footholds,
            record,
            coroutines: checkpoint::suspended::may_be(&target.memory, &target.modules),
            search: Default::default(),
        }
    }

    /// Checkpoint and commit; whatever happens, the process goes on.
    fn commit(&mut self, shadow: &Shadow, outcome: &mut Outcome) -> Result<(), ApplyError> {
        let prepared = &shadow.prepared;
        let record = prepared.layout.record(prepared.span);
        let blind = self.blind(prepared);
        let mut stopped = self.reach(&mut self.checkpoint(&blind, Some(record)), outcome)?;
        outcome.timed(Phase::Commit, |outcome| {
            let _urgent = Urgent::begin();
            let commit = Commit {
                memory: &self.target.memory,
                plan: &prepared.commit,
                record,
                journal: shadow.journal,
                options: self.options,
            };
            let result = self
                .options
                .pass(FailPoint::Stopped)
                .and_then(|()| self.look_at_variables(prepared, outcome))
                .and_then(|()| commit.run(&mut stopped));
            outcome.pause = stopped.release();
            // It fails only where the process has ended.
            let _ = commit.let_go();
            result
        })
    }

    /// Once nothing runs any more: whether the variables of an image that is taken again are still such that
    /// they may stay.
    fn look_at_variables(
        &self,
        prepared: &Prepared,
        outcome: &mut Outcome,
    ) -> Result<(), ApplyError> {
        let Some(mut again) = prepared.again.clone() else { return Ok(()) };
        let (plan, content) = (&self.bundle.plan, &prepared.segments);
        if !again.look_at_variables(self.target, plan, content, self.options)? {
            return Err(ApplyError::Unsuitable(
                "the new variables of the earlier application of this bundle have just got addresses \
                 as values: run it again, and it takes new memory"
                    .into(),
            ));
        }
        outcome.again = Some(again.changed);
        Ok(())
    }

    /// Gives back the memory of records that nothing needs any more. The update is done: whatever goes wrong
    /// here, the next one does it.
    fn retire(&self, outcome: &mut Outcome) {
        if let Err(e) = prepare::retire(self.target) {
            outcome.warnings.push(format!(
                "the records of earlier updates stay mapped ({e}): the next one unmaps them"
            ));
        }
    }

    /// Stops the process where none of its threads is at a blind point.
    fn reach(
        &self,
        checkpoint: &mut Checkpoint<'_>,
        outcome: &mut Outcome,
    ) -> Result<StoppedProcess, ApplyError> {
        let deadline = self.start + self.options.timeout;
        let reached = outcome.timed(Phase::Checkpoint, |_| checkpoint.reach(deadline));
        outcome.attempts = checkpoint.search.attempts;
        outcome.threads = checkpoint.search.threads;
        outcome.pending = self.pending(&checkpoint.search.pending);
        outcome.longest_other_pause =
            outcome.longest_other_pause.max(checkpoint.search.longest_pause);
        reached?.map_err(|in_the_way| ApplyError::Blocked {
            threads: in_the_way.len(),
            waited_ms: self.start.elapsed().as_millis(),
            blockers: in_the_way.iter().flat_map(|t| self.explain(t)).collect(),
        })
    }

    /// What keeps a thread, in the words of the source.
    fn explain(&self, thread: &BlindThread) -> Vec<Blocker> {
        let (pid, tid) = (self.target.pid, thread.tid);
        let name = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
        let blocker = Blocker {
            tid,
            thread: name.unwrap_or_default().trim_end().to_owned(),
            function: String::new(),
            file: String::new(),
            line: 0,
            address: String::new(),
            why: String::new(),
            note: thread.note.clone(),
        };
        if thread.points.is_empty() {
            return vec![blocker];
        }
        let points = thread.points.iter().map(|point| {
            if point.function == NOBODY {
                let why = "it still runs through code of an earlier version, for a moment, that uses data \
                           which this update changes";
                return Blocker { why: why.to_owned(), ..blocker.clone() };
            }
            let (file, line) = self.source_line(point.linked);
            let function = self.bundle.manifest.replaced.get(point.function as usize);
            Blocker {
                function: function.map(|f| f.name.clone()).unwrap_or_default(),
                file,
                line,
                address: point.linked.to_string(),
                why: self.reason(point.at),
                ..blocker.clone()
            }
        });
        points.collect()
    }

    /// Why the update cannot be done there, as dsu-build found.
    fn reason(&self, at: OldAddr) -> String {
        let points = &self.bundle.manifest.blind_points;
        let found = points.binary_search_by_key(&at, |p| p.at);
        if let Some(point) = found.ok().and_then(|i| points.get(i)) {
            return point.why.clone();
        }
        // Nobody waits at an entry.
        match self.bundle.plan.blind.iter().any(|range| range.start == at) {
            true => "a frame of it goes on in a copy of its code, or in code that ran on, since an earlier \
                     update, and cannot be carried over before it returns"
                .to_owned(),
            false => String::new(),
        }
    }

    /// Frames that wait at sites, by the name of their function.
    fn pending(&self, found: &BTreeMap<u32, usize>) -> Vec<(String, usize)> {
        let name = |index: u32| self.bundle.manifest.replaced.get(index as usize);
        found.iter().filter_map(|(index, n)| Some((name(*index)?.name.clone(), *n))).collect()
    }

    fn source_line(&self, address: OldAddr) -> (String, u32) {
        let plan = &self.bundle.plan;
        let after = plan.lines.partition_point(|row| row.start <= address);
        let row = after.checked_sub(1).and_then(|i| plan.lines.get(i));
        let file = row.and_then(|r| plan.files.get(r.file as usize)).cloned().unwrap_or_default();
        (file, row.map_or(0, |r| r.line))
    }
}
