//! What can go wrong, by class: each class has an exit code, each error names its operation, its
//! subject and, where there is one, the way out.

use dsu_patch_format::DecodeError;
use dsu_patch_format::dump::printable;
use dsu_patch_format::signature::Untrusted;
use nix::errno::Errno;
use serde::Serialize;
use std::path::PathBuf;

/// Exit codes of `dsu-apply`, one for each class of outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ExitCode {
    /// The process runs NEW (dry run: it would work now).
    Updated = 0,
    /// A failure inside the tool; the process is as before.
    Internal = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The bundle cannot be read or is damaged.
    Bundle = 10,
    /// There is no such process, or it has ended.
    NoProcess = 11,
    /// The process may not be traced.
    NotPermitted = 12,
    /// The process is not a 64-bit x86-64 one.
    NotX8664 = 13,
    /// The process does not run OLD.
    WrongBuild = 14,
    /// The process runs NEW already.
    AlreadyApplied = 15,
    /// The process runs OLD but cannot take the update.
    Unsuitable = 16,
    /// Threads stayed inside replaced functions until the deadline.
    Blocked = 17,
    /// The commit failed and was undone.
    CommitFailed = 18,
    /// The process ended or executed another program meanwhile.
    Died = 19,
    /// The bundle is not signed by whom it should be.
    Untrusted = 20,
    /// A signal asked the tool to end; the process is as before.
    Interrupted = 21,
    /// A probe failed after the update; it was taken back if that was asked for and possible.
    Unhealthy = 22,
    /// Of several processes, some ended in another way than others.
    Mixed = 23,
}

impl ExitCode {
    /// All of them, in order, for the help text.
    pub const ALL: [Self; 17] = [
        Self::Updated,
        Self::Internal,
        Self::Usage,
        Self::Bundle,
        Self::NoProcess,
        Self::NotPermitted,
        Self::NotX8664,
        Self::WrongBuild,
        Self::AlreadyApplied,
        Self::Unsuitable,
        Self::Blocked,
        Self::CommitFailed,
        Self::Died,
        Self::Untrusted,
        Self::Interrupted,
        Self::Unhealthy,
        Self::Mixed,
    ];

    /// The number that the process exits with.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// A short name, as in `--json`.
    #[must_use]
    pub fn name(self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value.as_str().unwrap_or_default().to_owned()
    }

    /// One line for people.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Updated => "updated (dry run: it would work now)",
            Self::Internal => "failure inside dsu-apply; the process is as before",
            Self::Usage => "wrong usage",
            Self::Bundle => "the bundle cannot be read or is damaged",
            Self::NoProcess => "no such process, or it has ended",
            Self::NotPermitted => "not permitted to trace the process",
            Self::NotX8664 => "not a 64-bit x86-64 process",
            Self::WrongBuild => "the process does not run the build that the bundle is for",
            Self::AlreadyApplied => "the process runs the new build already",
            Self::Unsuitable => "the process cannot take this update",
            Self::Blocked => "threads stayed inside replaced functions until the deadline",
            Self::CommitFailed => "the commit failed and was undone",
            Self::Died => "the process ended while it was updated",
            Self::Untrusted => "the bundle is not signed by a required key",
            Self::Interrupted => "dsu-apply was asked to end; the process is as before",
            Self::Unhealthy => {
                "the probe failed after the update (--revert-on-failure takes it back)"
            }
            Self::Mixed => "of several processes, some ended in another way than others",
        }
    }
}

/// An operating system call on the process that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {errno}")]
pub struct SysError {
    /// Operation and subject: `write 5 bytes at 0x55.. in pid 812`.
    pub operation: String,
    /// Why.
    pub errno: Errno,
}

impl SysError {
    /// Names an operation that failed with `errno`.
    pub fn new(operation: impl Into<String>, errno: Errno) -> Self {
        Self { operation: operation.into(), errno }
    }

    /// Names an operation of the standard library that failed.
    pub fn io(operation: impl Into<String>, error: &std::io::Error) -> Self {
        // An error without a number is a short read or write: the pages end there.
        let errno = error.raw_os_error().map_or(Errno::EFAULT, Errno::from_raw);
        Self::new(operation, errno)
    }
}

/// A frame that keeps a thread from being updated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// Thread id.
    pub tid: i32,
    /// Thread name.
    pub thread: String,
    /// Replaced function that the frame belongs to.
    pub function: String,
    /// Source file, empty when unknown.
    pub file: String,
    /// Source line, 0 when unknown.
    pub line: u32,
    /// Program counter or call, as linked in OLD.
    pub address: String,
    /// Why dsu-build found no counterpart for it; empty when it says nothing of this very point.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What else is known: found by a scan only, stopped, in an uninterruptible call.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Threads name themselves, and not for the eyes of whoever updates them.
        write!(f, "thread {} ({})", self.tid, printable(&self.thread))?;
        if !self.function.is_empty() {
            write!(f, " in {}", printable(&self.function))?;
        }
        if !self.file.is_empty() {
            write!(f, " at {}:{}", printable(&self.file), self.line)?;
        }
        if !self.why.is_empty() {
            write!(f, ": {}", printable(&self.why))?;
        }
        if !self.note.is_empty() {
            write!(f, " ({})", self.note)?;
        }
        Ok(())
    }
}

/// Why a process was not updated.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The bundle's file cannot be read.
    #[error("read {path}: {error}", path = path.display())]
    BundleFile {
        /// File.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The bundle's content is wrong.
    #[error(transparent)]
    Bundle(#[from] dsu_patch_format::DecodeError),
    /// The bundle is not signed by whom it should be.
    #[error("{0}")]
    Untrusted(Untrusted),
    /// There is nobody to update.
    #[error("{0}")]
    NoProcess(String),
    /// The kernel or its owner does not let us.
    #[error("{0}")]
    NotPermitted(String),
    /// Another kind of process.
    #[error("{0}")]
    NotX8664(String),
    /// It does not run OLD.
    #[error("{0}")]
    WrongBuild(String),
    /// It runs NEW.
    #[error("{0}")]
    AlreadyApplied(String),
    /// It cannot take this update.
    #[error("{0}")]
    Unsuitable(String),
    /// Threads were in replaced functions in every attempt.
    #[error("{threads} of its threads stayed inside replaced functions for {waited_ms} ms")]
    Blocked {
        /// Threads that blocked the last attempt.
        threads: usize,
        /// How long it was tried.
        waited_ms: u128,
        /// Their frames.
        blockers: Vec<Blocker>,
    },
    /// A write of the commit failed; `left` is what could not be undone.
    #[error("the commit failed and was undone: {cause}{}", left_over(left))]
    CommitFailed {
        /// The write that failed.
        cause: String,
        /// Errors of the undo; empty when all was restored.
        left: Vec<String>,
    },
    /// The process ended.
    #[error("{0}")]
    Died(String),
    /// A tool that was killed has left something behind in the process.
    #[error(
        "process {0} holds what a tool has left behind that was killed: run dsu-apply --recover --pid {0}"
    )]
    LeftBehind(i32),
    /// The probe failed.
    #[error("the probe failed after the update: {0}")]
    Unhealthy(String),
    /// A signal asked the tool to end.
    #[error("interrupted by a signal")]
    Interrupted,
    /// It was not updated, and not everything is tidied up: a matter of its memory, which the next tool settles.
    #[error(
        "{cause}; and {left}: nothing uses that, and --recover or the next dsu-apply takes it away"
    )]
    Untidy {
        /// Why it was not updated.
        cause: Box<Self>,
        /// What is left.
        left: String,
    },
    /// A failure that no other class describes.
    #[error("{0}")]
    Internal(String),
}

fn left_over(left: &[String]) -> String {
    if left.is_empty() { String::new() } else { format!("; NOT undone: {}", left.join("; ")) }
}

impl ApplyError {
    /// For a line that begins with the process that it is about: without its name a second time.
    #[must_use]
    pub fn of(&self, pid: i32) -> String {
        let text = self.to_string();
        text.strip_prefix(&format!("process {pid} ")).map_or(text.clone(), str::to_owned)
    }

    /// For tools.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "class": self.exit(), "message": self.to_string() })
    }

    /// The class of the error.
    #[must_use]
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::BundleFile { .. } | Self::Bundle(_) => ExitCode::Bundle,
            Self::Untrusted(_) => ExitCode::Untrusted,
            Self::NoProcess(_) => ExitCode::NoProcess,
            Self::NotPermitted(_) => ExitCode::NotPermitted,
            Self::NotX8664(_) => ExitCode::NotX8664,
            Self::WrongBuild(_) => ExitCode::WrongBuild,
            Self::AlreadyApplied(_) => ExitCode::AlreadyApplied,
            Self::Unsuitable(_) | Self::LeftBehind(_) => ExitCode::Unsuitable,
            Self::Blocked { .. } => ExitCode::Blocked,
            Self::CommitFailed { .. } => ExitCode::CommitFailed,
            Self::Died(_) => ExitCode::Died,
            Self::Interrupted => ExitCode::Interrupted,
            Self::Unhealthy(_) => ExitCode::Unhealthy,
            Self::Untidy { cause, .. } => cause.exit(),
            Self::Internal(_) => ExitCode::Internal,
        }
    }

    /// Why the process was not updated, whatever is left in it.
    #[must_use]
    pub fn cause(&self) -> &Self {
        if let Self::Untidy { cause, .. } = self { cause } else { self }
    }
}

impl From<Untrusted> for ApplyError {
    fn from(error: Untrusted) -> Self {
        match error {
            // Not a matter of trust: no bundle at all, or another version's.
            Untrusted::Damaged(error) if !matches!(error, DecodeError::Signature) => {
                Self::Bundle(error)
            }
            error => Self::Untrusted(error),
        }
    }
}

impl From<SysError> for ApplyError {
    fn from(error: SysError) -> Self {
        match error.errno {
            // Files of a process that has ended are not there any more.
            Errno::ESRCH | Errno::ECHILD | Errno::ENOENT => {
                Self::Died(format!("the process ended ({error})"))
            }
            Errno::EPERM | Errno::EACCES => Self::NotPermitted(error.to_string()),
            _ => Self::Internal(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_once() {
        assert!(ApplyError::LeftBehind(12).of(12).starts_with("holds what a tool has left"));
        let other = ApplyError::Died("process 123 has ended".into());
        assert_eq!(other.of(12), "process 123 has ended");
        assert_eq!(other.of(123), "has ended");
    }
}
