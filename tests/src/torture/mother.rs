//! One process taken through a program instruction by instruction, and copies of it made on the way.
//!
//! Stepping to the k-th instruction anew for each k would cost the square of the program's length. So the process
//! is made to call clone(2) where a copy is wanted, and neither it nor the copy knows: registers are put
//! back in both. `CLONE_PARENT` makes the copy a child of the harness. Memory is copied on write, the output pipe is
//! shared, so one of them may run at a time. What clone does not copy (timers, the content of pipes) such
//! programs must not have: [`is_alone`].

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::tracee::Tracee;

/// `SYS_clone` of asm/unistd_64.h.
const SYS_CLONE: u64 = 56;
/// `CLONE_PARENT | SIGCHLD` of linux/sched.h: who made the caller is told when the copy ends.
const CLONE_FLAGS: u64 = 0x8000 | 17;
/// Bytes of the instruction `syscall`.
const SYSCALL_LEN: u64 = 2;
/// Programs whose state is not theirs alone.
const NOT_ALONE: &[&str] = &["signals", "waits"];

/// Whether copies of a program behave as the program itself.
#[must_use]
pub fn is_alone(program: &str) -> bool {
    !NOT_ALONE.contains(&program)
}

/// The process that is stepped, traced all the time.
#[derive(Debug)]
pub struct Mother {
    tracee: Tracee,
    /// Address of a `syscall` instruction.
    syscall: u64,
    at: u64,
}

impl Mother {
    /// Starts a program, which stops itself.
    pub fn start(program: &Path) -> Result<Mother> {
        let mut tracee = Tracee::start(program)?;
        tracee.seize(Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACEFORK)?;
        // It has called kill(2) and stands behind the instruction.
        let syscall = ptrace::getregs(tracee.pid)?.rip - SYSCALL_LEN;
        Ok(Mother { tracee, syscall, at: 0 })
    }

    /// Instructions executed.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Takes it on to the instruction with this number; gives whether it came there.
    pub fn advance(&mut self, to: u64) -> Result<bool> {
        let (done, signal) = self.tracee.step_traced(to.saturating_sub(self.at))?;
        ensure!(signal.is_none(), "{signal:?} in a program without signals");
        self.at += done;
        Ok(!self.tracee.has_ended())
    }

    /// A copy that stands where this one stands, stopped and untraced.
    pub fn copy(&mut self) -> Result<Tracee> {
        let pid = self.tracee.pid;
        let saved = ptrace::getregs(pid)?;
        // What was written must not be taken for the copy's.
        let said = self.tracee.said()?.to_vec();
        ptrace::setregs(pid, self.call(saved))?;
        ptrace::step(pid, None)?;
        let status = waitpid(pid, None)?;
        let made = matches!(status, WaitStatus::PtraceEvent(..));
        ensure!(made, "expected a clone: {status:?}");
        let child = Pid::from_raw(i32::try_from(ptrace::getevent(pid)?)?);
        let output = self.tracee.output.clone();
        let copy = Tracee { pid: child, output, said, end: None };
        // Out of the call.
        ptrace::step(pid, None)?;
        waitpid(pid, None)?;
        ptrace::setregs(pid, saved)?;
        stop(child, saved).context("stop the copy")?;
        Ok(copy)
    }

    fn call(&self, mut registers: user_regs_struct) -> user_regs_struct {
        registers.rip = self.syscall;
        registers.rax = SYS_CLONE;
        registers.orig_rax = u64::MAX;
        registers.rdi = CLONE_FLAGS;
        // The same stack, and nobody to be told thread ids.
        (registers.rsi, registers.rdx, registers.r10, registers.r8) = (0, 0, 0, 0);
        registers
    }
}

/// Puts the new process where its maker was and stops it before it executes anything.
fn stop(child: Pid, registers: user_regs_struct) -> Result<()> {
    let status = waitpid(child, None)?;
    let born = matches!(status, WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..));
    ensure!(born, "expected a new process: {status:?}");
    ptrace::setregs(child, registers)?;
    kill(child, Signal::SIGSTOP)?;
    ptrace::cont(child, None)?;
    let status = waitpid(child, None)?;
    let taken = matches!(status, WaitStatus::Stopped(_, Signal::SIGSTOP));
    ensure!(taken, "expected the signal: {status:?}");
    // The signal is taken now, and stops it.
    ptrace::detach(child, Signal::SIGSTOP)?;
    waitpid(child, Some(nix::sys::wait::WaitPidFlag::WUNTRACED))?;
    Ok(())
}
