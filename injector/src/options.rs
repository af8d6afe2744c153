//! What the caller of [`crate::apply`] chooses.

use crate::error::ApplyError;
use crate::log::Log;
use crate::ptrace::gate::Suspend;
use crate::ptrace::guardian::is_asked_to_end;
use dsu_patch_format::PublicKey;
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use std::path::PathBuf;
use std::time::Duration;

/// How one update is done.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    /// The bundle's file.
    pub bundle: PathBuf,
    /// The process.
    pub pid: i32,
    /// Only find out whether it would work now.
    pub dry_run: bool,
    /// How long to wait for threads that are inside replaced functions.
    pub timeout: Duration,
    /// One of these must have signed the bundle; empty: nobody need have.
    pub required_keys: Vec<PublicKey>,
    /// The bundle must lead back to where the last update came from.
    pub back: bool,
    /// When filters of seccomp are suspended for the system calls that the update makes.
    pub suspend: Suspend,
    /// Where the bundle was applied before, its variables stay as NEW has left them even where they hold
    /// addresses (see [`crate::again`]).
    pub keep_variables: bool,
    /// Where every step is written to.
    pub log: Log,
    /// Let threads run on to a checkpoint even where a signal such as Ctrl-Z's has stopped the process,
    /// which stays stopped afterwards. For tests, which hold a process at an instruction; no command
    /// line sets it.
    pub even_stopped: bool,
    /// Where to fail on purpose. For tests; no command line sets it.
    pub fail: Vec<FailPoint>,
    /// Where to die by SIGKILL on purpose. For tests; no command line sets it.
    pub die: Option<FailPoint>,
}

impl ApplyOptions {
    /// The defaults: the real thing, within five seconds.
    #[must_use]
    pub fn new(bundle: impl Into<PathBuf>, pid: i32) -> Self {
        Self {
            bundle: bundle.into(),
            pid,
            dry_run: false,
            timeout: Duration::from_secs(5),
            required_keys: Vec::new(),
            back: false,
            suspend: Suspend::default(),
            keep_variables: false,
            log: Log::default(),
            even_stopped: false,
            fail: Vec::new(),
            die: None,
        }
    }

    /// Fails if a test has asked for it here, or, where nothing is visible yet, if a signal asks this
    /// process to end.
    pub(crate) fn pass(&self, point: FailPoint) -> Result<(), ApplyError> {
        if self.fail.contains(&point) {
            return Err(ApplyError::Internal(format!("failed on purpose at {point:?}")));
        }
        if self.die == Some(point) {
            // The signal that nobody can hold up.
            let _ = kill(getpid(), Signal::SIGKILL);
        }
        if point.is_early() && is_asked_to_end() {
            return Err(ApplyError::Interrupted);
        }
        Ok(())
    }
}

impl FailPoint {
    /// The commit has not begun.
    fn is_early(self) -> bool {
        use FailPoint::{Looked, Mapped, Prepared, Reserved, Stopped, Verified};
        matches!(self, Looked | Reserved | Mapped | Prepared | Stopped | Verified)
    }
}

/// A place where a test makes the update fail, to see that the process stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailPoint {
    /// The process was looked at; nothing was done.
    Looked,
    /// The span is reserved and has its record; its other pieces have no protection yet.
    Reserved,
    /// The span is mapped; nothing is in it.
    Mapped,
    /// The shadow image is whole.
    Prepared,
    /// All threads stand still at checkpoints.
    Stopped,
    /// The text was found as expected.
    Verified,
    /// The journal is written.
    Journalled,
    /// Before the write of the commit with this number, from 0: data first, then the text by regions.
    BeforeWrite(usize),
    /// After the write of the commit with this number.
    AfterWrite(usize),
    /// All is written, the record does not count yet.
    BeforeApplied,
    /// The record counts, the threads still stand.
    Applied,
    /// Undoing the write with this number fails; to be combined with another one.
    Undo(usize),
}
