//! The commit: from "all threads stand at checkpoints" to "the process runs NEW", or back.
//!
//! Takes the prepared writes and the stopped process; only memory writes happen here. Refuses before
//! the first write when the text is not as built. After it, any failure undoes every write in
//! reverse; the undo goes on after an error and lists what it could not restore.
//!
//! All threads are stopped in the kernel, and returning from it serializes the instruction stream,
//! so code may be rewritten (SDM volume 3, 9.1.3).

pub mod layout;
pub mod places;
pub mod writes;

use crate::address::ProcAddr;
use crate::error::{ApplyError, SysError};
use crate::options::{ApplyOptions, FailPoint};
use crate::ptrace::process::StoppedProcess;
use crate::record::{STATE_AT, State};
use crate::target::memory::{ProcessMemory, ReadMemory};
use writes::CommitPlan;

/// A commit that is about to happen in a stopped process.
pub struct Commit<'a> {
    /// Memory of the process.
    pub memory: &'a ProcessMemory,
    /// What to do.
    pub plan: &'a CommitPlan,
    /// Where the record is.
    pub record: ProcAddr,
    /// Where its journal is.
    pub journal: ProcAddr,
    /// For fail points.
    pub options: &'a ApplyOptions,
}

/// Checks that the text is as built.
///
/// # Errors
/// It is not; nothing was written.
pub fn verify(memory: &impl ReadMemory, plan: &CommitPlan) -> Result<(), ApplyError> {
    for expected in &plan.expected {
        let found = memory.read_vec(expected.at, expected.bytes.len())?;
        let differs = expected
            .bytes
            .iter()
            .zip(&found)
            .zip(&expected.mask)
            .any(|((expected, found), mask)| (expected ^ found) & mask != 0);
        if differs {
            return Err(ApplyError::Unsuitable(format!(
                "{} at {} differs from the build: found {}, expected {}; another tool has patched \
                 it, or a debugger has a breakpoint there",
                expected.what,
                expected.at,
                crate::target::elf::hex(&found),
                crate::target::elf::hex(&expected.bytes),
            )));
        }
    }
    Ok(())
}

impl Commit<'_> {
    /// Commits. The stopped process is proof that nothing runs.
    ///
    /// # Errors
    /// [`ApplyError::CommitFailed`] when it was undone; others before the first write.
    pub fn run(&self, _stopped: &StoppedProcess) -> Result<(), ApplyError> {
        verify(self.memory, self.plan)?;
        self.options.pass(FailPoint::Verified)?;
        let old = self.read_old()?;
        self.memory.write(self.journal, &self.plan.journal(&old))?;
        self.state(State::Committing)?;
        let mut done = 0;
        self.write_all(&mut done).map_err(|cause| self.undo(&old, done, &cause))
    }

    fn read_old(&self) -> Result<Vec<Vec<u8>>, SysError> {
        self.plan.writes.iter().map(|w| self.memory.read_vec(w.at, w.bytes.len())).collect()
    }

    fn state(&self, state: State) -> Result<(), SysError> {
        self.memory.write(self.record.offset(STATE_AT), &state.word())
    }

    fn write_all(&self, done: &mut usize) -> Result<(), ApplyError> {
        self.options.pass(FailPoint::Journalled)?;
        for (number, write) in self.plan.writes.iter().enumerate() {
            self.options.pass(FailPoint::BeforeWrite(number))?;
            // A write that fails may have been done in part.
            *done = number + 1;
            self.memory
                .write(write.at, &write.bytes)
                .map_err(|e| SysError::new(format!("{}: {}", write.what, e.operation), e.errno))?;
            self.options.pass(FailPoint::AfterWrite(number))?;
        }
        self.options.pass(FailPoint::BeforeApplied)?;
        self.state(State::Applied)?;
        self.options.pass(FailPoint::Applied)
    }

    fn undo(&self, old: &[Vec<u8>], done: usize, cause: &ApplyError) -> ApplyError {
        let mut left = Vec::new();
        for (number, (write, old)) in self.plan.writes.iter().zip(old).enumerate().take(done).rev()
        {
            let result = match self.options.pass(FailPoint::Undo(number)) {
                Ok(()) => self.memory.write(write.at, old).map_err(ApplyError::from),
                Err(e) => Err(e),
            };
            if let Err(e) = result {
                left.push(format!("{} ({e})", write.what));
            }
        }
        // What could not be undone stays in the journal, for whoever comes next.
        if left.is_empty() {
            left.extend(self.state(State::Prepared).err().map(|e| e.to_string()));
        }
        ApplyError::CommitFailed { cause: cause.to_string(), left }
    }
}
