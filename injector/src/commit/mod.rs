//! The commit: from "all threads stand at checkpoints" to "the process runs NEW", or back.
//!
//! A tool that is killed in the middle of it leaves the process *stopped*, with the journal in it: see
//! [`crate::ptrace::hold`]. From there `dsu-apply --recover`, or the next update, takes every write back and
//! lets the process go on as OLD; no thread has run an instruction in between. What holds at each instant:
//!
//! | killed | the process | its record |
//! |---|---|---|
//! | before the hold | runs on as OLD | *prepared*, or *committing* with nothing written |
//! | from the hold to its end | stopped, whatever is written | *committing* or *applied*, *held* |
//! | behind it | runs on as NEW, or as OLD after an undo | *applied* or *prepared*; *held* means nothing |
//!
//! Takes the prepared writes and the stopped process; only memory writes happen here. Refuses before
//! the first write when the text is not as built. After it, any failure undoes every write in
//! reverse; the undo goes on after an error and lists what it could not restore.
//!
//! All threads are stopped in the kernel, and returning from it serializes the instruction stream,
//! so code may be rewritten (SDM volume 3, 9.1.3).

pub mod layout;
pub mod places;
pub mod regions;
pub mod writes;

use crate::address::ProcAddr;
use crate::error::{ApplyError, SysError};
use crate::options::{ApplyOptions, FailPoint};
use crate::ptrace::hold::Hold;
use crate::ptrace::process::StoppedProcess;
use crate::record::{HELD_AT, STATE_AT, State};
use crate::target::maps::Maps;
use crate::target::memory::{ProcessMemory, ReadMemory};
use regions::Region;
use writes::{CommitPlan, Expected};

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
    check(plan, &read(memory, plan)?)
}

/// Refuses text that nobody can write to.
///
/// # Errors
/// The refusal.
pub fn refuse_unwritable(maps: &Maps, plan: &CommitPlan) -> Result<(), ApplyError> {
    for region in plan.regions.iter().filter(|r| !r.writes.is_empty()) {
        let found = maps.find(region.at).filter(|m| !m.writable);
        // So the kernel names MAP_HUGETLB; it lets no tracer write there (`check_vma_flags` in mm/gup.c).
        if found.is_some_and(|m| m.name.starts_with("/anon_hugepage")) {
            return Err(ApplyError::Unsuitable(format!(
                "{} is in pages of hugetlbfs, to which Linux lets no tracer write: let the program move its \
                 text to transparent huge pages (madvise MADV_HUGEPAGE) instead",
                region.what(&plan.writes)
            )));
        }
    }
    Ok(())
}

/// The content of all regions.
fn read(memory: &impl ReadMemory, plan: &CommitPlan) -> Result<Vec<Vec<u8>>, SysError> {
    plan.regions.iter().map(|r| memory.read_vec(r.at, r.len)).collect()
}

fn check(plan: &CommitPlan, content: &[Vec<u8>]) -> Result<(), ApplyError> {
    for (region, content) in plan.regions.iter().zip(content) {
        for expected in region.expected.iter().filter_map(|i| plan.expected.get(*i)) {
            let found = region.slice(content, expected.at, expected.bytes.len());
            check_one(expected, found)?;
        }
    }
    Ok(())
}

fn check_one(expected: &Expected, found: &[u8]) -> Result<(), ApplyError> {
    let all = found.len() == expected.bytes.len();
    let pairs = expected.bytes.iter().zip(found).zip(&expected.mask);
    if all && pairs.clone().all(|((expected, found), mask)| (expected ^ found) & mask == 0) {
        return Ok(());
    }
    Err(ApplyError::Unsuitable(format!(
        "{} at {} differs from the build: found {}, expected {}; another tool has patched it, or a \
         debugger has a breakpoint there",
        expected.what,
        expected.at,
        crate::target::elf::hex(found),
        crate::target::elf::hex(&expected.bytes),
    )))
}

impl Commit<'_> {
    /// Commits, in a process that stands still.
    ///
    /// # Errors
    /// [`ApplyError::CommitFailed`] when it was undone; others before the first write.
    pub fn run(&self, stopped: &mut StoppedProcess) -> Result<(), ApplyError> {
        let old = read(self.memory, self.plan)?;
        check(self.plan, &old)?;
        self.options.pass(FailPoint::Verified)?;
        self.memory.write(self.journal, &self.plan.journal(&old))?;
        // Where somebody else has stopped the process, nobody is to let it go on.
        let held = !stopped.in_group_stop();
        self.state(State::Committing, held)?;
        let hold = Hold::begin(stopped);
        let mut done = 0;
        let result = self
            .write_all(&old, held, &mut done)
            .map_err(|cause| self.undo(&old, held, done, &cause));
        if let Some(hold) = hold {
            // An error here says that the process has ended: its threads are let go of in any case.
            let _ = hold.end(stopped);
        }
        result
    }

    /// To be called once all threads go on: whoever finds the process stopped from now on, it was not
    /// this commit.
    ///
    /// # Errors
    /// The process has ended.
    pub fn let_go(&self) -> Result<(), SysError> {
        self.memory.write_back(self.record.offset(HELD_AT), &[0; 4])
    }

    /// The regions in which something is written, with their content.
    fn regions<'b>(
        &'b self,
        old: &'b [Vec<u8>],
    ) -> impl DoubleEndedIterator<Item = (&'b Region, &'b [u8])> + ExactSizeIterator {
        let all: Vec<_> = self.plan.regions.iter().zip(old.iter().map(Vec::as_slice)).collect();
        let written: Vec<_> = all.into_iter().filter(|(r, _)| !r.writes.is_empty()).collect();
        written.into_iter()
    }

    fn state(&self, state: State, held: bool) -> Result<(), SysError> {
        self.memory.write(self.record.offset(STATE_AT), &state.words(held))
    }

    fn write_all(&self, old: &[Vec<u8>], held: bool, done: &mut usize) -> Result<(), ApplyError> {
        self.options.pass(FailPoint::Journalled)?;
        for (number, (region, old)) in self.regions(old).enumerate() {
            self.options.pass(FailPoint::BeforeWrite(number))?;
            // A write that fails may have been done in part.
            *done = number + 1;
            let new = region.after(&self.plan.writes, old);
            self.memory.write(region.write_at(), region.to_write(&new)).map_err(|e| {
                let what = region.what(&self.plan.writes);
                SysError::new(format!("{what}: {}", e.operation), e.errno)
            })?;
            self.options.pass(FailPoint::AfterWrite(number))?;
        }
        self.options.pass(FailPoint::BeforeApplied)?;
        self.state(State::Applied, held)?;
        self.options.pass(FailPoint::Applied)
    }

    fn undo(&self, old: &[Vec<u8>], held: bool, done: usize, cause: &ApplyError) -> ApplyError {
        let mut left = Vec::new();
        for (number, (region, old)) in self.regions(old).enumerate().take(done).rev() {
            let result = match self.options.pass(FailPoint::Undo(number)) {
                Ok(()) => self
                    .memory
                    .write_back(region.write_at(), region.to_write(old))
                    .map_err(ApplyError::from),
                Err(e) => Err(e),
            };
            if let Err(e) = result {
                left.push(format!("{} ({e})", region.what(&self.plan.writes)));
            }
        }
        // What could not be undone stays in the journal, for whoever comes next.
        if left.is_empty() {
            let state = State::Prepared.words(held);
            let written = self.memory.write_back(self.record.offset(STATE_AT), &state);
            left.extend(written.err().map(|e| e.to_string()));
        }
        ApplyError::CommitFailed { cause: cause.to_string(), left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use writes::Write;

    #[test]
    fn pages_of_hugetlbfs() {
        let text = |name: &str| {
            Maps::parse(format!("400000-800000 r-xp 00000000 00:0f 99  {name}\n").as_bytes())
        };
        let write = Write {
            at: ProcAddr(0x40_1000),
            bytes: vec![0xe9; 5],
            what: "redirect of f".into(),
            text: true,
            cave: false,
        };
        let region = Region {
            at: ProcAddr(0x40_1000),
            len: 16,
            written: (0, 5),
            writes: vec![0],
            expected: Vec::new(),
        };
        let plan = CommitPlan { writes: vec![write], regions: vec![region], ..Default::default() };
        assert!(refuse_unwritable(&text("/usr/bin/f"), &plan).is_ok());
        let error = refuse_unwritable(&text("/anon_hugepage (deleted)"), &plan).unwrap_err();
        assert!(error.to_string().contains("redirect of f is in pages of hugetlbfs"), "{error}");
        assert_eq!(error.exit(), crate::ExitCode::Unsuitable);
    }
}
