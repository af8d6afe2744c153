//! What an update came to, for people and for tools.

use crate::error::{ApplyError, Blocker, ExitCode};
use crate::log::Log;
use crate::ptrace::keeper::Keeping;
use dsu_patch_format::dump::printable;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// The phases of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Bundle and process are read.
    Look,
    /// The shadow image is mapped and written.
    Prepare,
    /// From the first look at threads until all stand at checkpoints.
    Checkpoint,
    /// From there until all of them go on.
    Commit,
    /// After a failure: back to what was.
    Undo,
}

impl Phase {
    /// As in `--json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Prepare => "prepare",
            Self::Checkpoint => "checkpoint",
            Self::Commit => "commit",
            Self::Undo => "undo",
        }
    }
}

/// All that is known when an update has ended, well or not.
#[derive(Debug)]
pub struct Outcome {
    /// Process id.
    pub pid: i32,
    /// Nothing was to be changed.
    pub dry_run: bool,
    /// The last update was to be taken back.
    pub revert: bool,
    /// How it ended.
    pub result: Result<(), ApplyError>,
    /// What each phase took.
    pub phases: Vec<(Phase, Duration)>,
    /// How long the process stood still for the commit, from the first thread asked to stop until
    /// the last one went on.
    pub pause: Duration,
    /// The longest time that it stood still otherwise: for an attempt in vain, for mappings.
    pub longest_other_pause: Duration,
    /// Attempts to find all threads at checkpoints.
    pub attempts: u32,
    /// Threads in the last attempt.
    pub threads: usize,
    /// Names of the replaced functions.
    pub functions: Vec<String>,
    /// Checkpoint sites of the bundle: planted, if it was applied.
    pub sites: usize,
    /// Frames that waited at sites when all threads stood at checkpoints, by function: they are carried
    /// over when they wake. Found by a scan of the stacks, which may count a stale word.
    pub pending: Vec<(String, usize)>,
    /// Memory that the update costs the process.
    pub memory_bytes: u64,
    /// The shadow image of an earlier application of the bundle was taken again: how many bytes of its
    /// variables have kept another value than NEW's initial one.
    pub again: Option<u64>,
    /// Why such a one was not.
    pub why_anew: Option<&'static str>,
    /// Build ids, from and to.
    pub builds: (String, String),
    /// File name of the image.
    pub file: String,
    /// What an earlier tool had left behind and was put right first.
    pub recovered: Vec<String>,
    /// What is not tidied up, although all is well.
    pub warnings: Vec<String>,
    /// Who keeps the time-outs of calls that were under way.
    pub keeping: Keeping,
    /// Where each phase is written to when it has ended and nothing stands still.
    pub log: Log,
    /// How many of the phases are in it.
    pub(crate) logged: usize,
}

impl Outcome {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(pid: i32, dry_run: bool) -> Self {
        Self {
            pid,
            dry_run,
            revert: false,
            result: Ok(()),
            phases: Vec::new(),
            pause: Duration::ZERO,
            longest_other_pause: Duration::ZERO,
            attempts: 0,
            threads: 0,
            functions: Vec::new(),
            sites: 0,
            pending: Vec::new(),
            memory_bytes: 0,
            again: None,
            why_anew: None,
            builds: Default::default(),
            file: String::new(),
            recovered: Vec::new(),
            warnings: Vec::new(),
            keeping: Keeping::default(),
            log: Log::default(),
            logged: 0,
        }
    }

    /// The class of the outcome.
    #[must_use]
    pub fn exit(&self) -> ExitCode {
        self.result.as_ref().err().map_or(ExitCode::Updated, ApplyError::exit)
    }

    /// The frames that were in the way.
    #[must_use]
    pub fn blockers(&self) -> &[Blocker] {
        match self.result.as_ref().map_err(ApplyError::cause) {
            Err(ApplyError::Blocked { blockers, .. }) => blockers,
            _ => &[],
        }
    }

    /// Runs one phase and keeps its time, also when it fails.
    pub(crate) fn timed<T>(&mut self, phase: Phase, work: impl FnOnce(&mut Self) -> T) -> T {
        let start = Instant::now();
        let result = work(self);
        self.phases.push((phase, start.elapsed()));
        // Behind a checkpoint threads stand still: nobody is to wait for a disk, or for whoever reads a pipe.
        if phase != Phase::Checkpoint {
            self.write_log();
        }
        result
    }

    /// Logs the phases that are not in the log yet.
    pub(crate) fn write_log(&mut self) {
        for (phase, took) in self.phases.get(self.logged..).unwrap_or_default() {
            self.log.line(self.pid, &format!("{} took {} us", phase.name(), took.as_micros()));
        }
        self.logged = self.phases.len();
    }

    /// For tools.
    #[must_use]
    pub fn json(&self) -> Value {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let phases: serde_json::Map<String, Value> =
            self.phases.iter().map(|(p, d)| (p.name().into(), micros(*d).into())).collect();
        let error = self.result.as_ref().err().map(ApplyError::json);
        let outcome = match (&self.result, self.dry_run) {
            (Ok(()), false) if self.revert => json!("reverted"),
            (Ok(()), false) => json!("updated"),
            (Ok(()), true) => json!("would-update"),
            (Err(e), _) => json!(e.exit()),
        };
        json!({
            "outcome": outcome,
            "exit": self.exit().code(),
            "pid": self.pid,
            "dry_run": self.dry_run,
            "file": self.file,
            "old_build_id": self.builds.0,
            "new_build_id": self.builds.1,
            "pause_us": micros(self.pause),
            "longest_other_pause_us": micros(self.longest_other_pause),
            "phases_us": phases,
            "attempts": self.attempts,
            "threads": self.threads,
            "functions": self.functions,
            "sites": self.sites,
            "frames_pending": self.frames(),
            "pending_by_function": self.pending_json(),
            "memory_bytes": self.memory_bytes,
            "memory_again": self.again.is_some(),
            "kept_variable_bytes": self.again.unwrap_or(0),
            "why_new_memory": self.why_anew,
            "recovered": self.recovered,
            "warnings": self.warnings,
            "timeouts": self.keeping.json(),
            "blockers": self.blockers(),
            "error": error,
        })
    }

    /// All frames that waited at sites.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.pending.iter().map(|(_, n)| n).sum()
    }

    fn pending_json(&self) -> Value {
        let mut by_name = serde_json::Map::new();
        for (name, n) in &self.pending {
            // Static functions may share a name.
            let sum = by_name.get(name).and_then(Value::as_u64).unwrap_or(0) + *n as u64;
            by_name.insert(name.clone(), sum.into());
        }
        by_name.into()
    }

    /// For people.
    #[must_use]
    pub fn text(&self, verbose: bool) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_text(&mut out, verbose);
        out
    }

    fn write_text(&self, out: &mut String, verbose: bool) -> std::fmt::Result {
        for done in &self.recovered {
            writeln!(out, "process {}, after a tool was killed: {done}", self.pid)?;
        }
        match &self.result {
            Ok(()) => self.write_success(out)?,
            Err(error) => {
                let what = match (self.dry_run, self.revert) {
                    (true, false) => "would not be updated",
                    (true, true) => "would not be reverted",
                    (false, false) => "not updated",
                    (false, true) => "not reverted",
                };
                writeln!(out, "process {} {what}: {}", self.pid, error.of(self.pid))?;
                for blocker in self.blockers() {
                    writeln!(out, "  {blocker}")?;
                }
            }
        }
        for warning in &self.warnings {
            writeln!(out, "  warning: {warning}")?;
        }
        out.push_str(&self.keeping.text());
        if verbose {
            writeln!(out, "build {} -> {}", self.builds.0, self.builds.1)?;
            for name in &self.functions {
                writeln!(out, "  function {}", printable(name))?;
            }
            for (name, n) in &self.pending {
                writeln!(out, "  {} of {name} carried over", count(*n, "frame"))?;
            }
            for (phase, time) in &self.phases {
                writeln!(out, "  {:<10} {:>8} us", phase.name(), time.as_micros())?;
            }
        }
        Ok(())
    }

    fn write_success(&self, out: &mut String) -> std::fmt::Result {
        let (pid, functions) = (self.pid, count(self.functions.len(), "function"));
        let threads = count(self.threads, "thread");
        let attempts = count(usize::try_from(self.attempts).unwrap_or(0), "attempt");
        let done = if self.revert { "reverted" } else { "updated" };
        let frames = match self.frames() {
            0 => String::new(),
            n => format!(", {} to carry over", count(n, "frame")),
        };
        if self.dry_run {
            return writeln!(
                out,
                "process {pid} would be {done} now: {} ({functions}{frames}, {threads}, {attempts})",
                self.file
            );
        }
        let sites = match self.sites {
            0 => String::new(),
            n => format!(", {}", count(n, "site")),
        };
        writeln!(
            out,
            "process {pid} {done}: {} ({functions}{sites}{frames}, paused {} us, {threads}, \
             {attempts}, {} kB)",
            self.file,
            self.pause.as_micros(),
            self.memory_bytes.div_ceil(1024),
        )?;
        self.write_memory(out)
    }

    /// What an operator has to know about the variables of an update that is applied once more.
    fn write_memory(&self, out: &mut String) -> std::fmt::Result {
        match (self.again, self.why_anew) {
            (Some(changed), _) if changed > 0 => writeln!(
                out,
                "  as this patch was applied before, its new variables go on with the values that they \
                 had then ({} differ from the initial ones)",
                count(usize::try_from(changed).unwrap_or(usize::MAX), "byte")
            ),
            (_, Some(why)) => writeln!(
                out,
                "  this patch was applied before, but {why}: it takes new memory, and its new variables \
                 begin anew"
            ),
            _ => Ok(()),
        }
    }
}

pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_logged_while_threads_stand() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = || std::fs::read_to_string(file.path()).unwrap().lines().count();
        let mut outcome = Outcome::new(7, false);
        outcome.log = Log::to(file.path()).unwrap();
        outcome.timed(Phase::Look, |_| ());
        assert_eq!(lines(), 1);
        outcome.timed(Phase::Checkpoint, |_| ());
        assert_eq!(lines(), 1);
        outcome.timed(Phase::Commit, |_| ());
        assert_eq!(lines(), 3);
        outcome.timed(Phase::Checkpoint, |_| ());
        outcome.write_log();
        outcome.write_log();
        assert_eq!(lines(), 4);
    }
}
