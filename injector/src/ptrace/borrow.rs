//! A thread borrowed for remote system calls.
//!
//! Takes a stopped thread and the address of a `syscall` instruction in the process (nothing is ever
//! written into its text); gives results; leaves the thread as it was.
//!
//! An interrupted system call is restarted by the kernel's own rule: at an interrupt stop the thread
//! stands inside `get_signal`, and on its way out the kernel looks at `rax` (`-ERESTART*`) and
//! `orig_rax` to decide about a restart (arch/x86/kernel/signal.c). So the registers are put back
//! exactly as read, at a stop of that same kind, and every injected call has `orig_rax = -1` until
//! the processor enters the kernel. `ERESTART_RESTARTBLOCK` calls (nanosleep, poll) keep their
//! deadline: the calls injected here never touch the restart block.
//!
//! A signal that comes in between is delivered before the next try: it is neither lost nor does it
//! see the borrowed registers. Where signals come faster than the thread gets a processor, they are
//! blocked until the thread is given back.

use super::sched::Pace;
use super::stop::Event;
use super::sys::{Registers, Resume};
use super::thread::{Stopped, WaitError};
use crate::address::ProcAddr;
use crate::error::SysError;
use nix::errno::Errno;
use std::time::{Duration, Instant};

/// How long one step of a remote call may take.
const STEP: Duration = Duration::from_millis(500);
/// Tries of one call before it is given up.
const MAX_TRIES: usize = 20;
/// Tries that signals have interrupted before they are blocked.
const PATIENT_TRIES: usize = 3;

/// A stopped thread whose registers are saved.
#[derive(Debug)]
pub struct Borrowed {
    thread: Option<Stopped>,
    instruction: ProcAddr,
    saved: Registers,
    /// The thread has left the stop in which its registers can be put back for good.
    away: bool,
    pace: Pace,
    /// The signals that it blocks by itself, when all are blocked for now.
    mask: Option<u64>,
}

impl Borrowed {
    /// Borrows a stopped thread; `instruction` is the address of a `syscall` instruction.
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn new(thread: Stopped, instruction: ProcAddr, pace: Pace) -> Result<Self, WaitError> {
        let thread = settle(thread, pace)?;
        let saved = thread.registers()?;
        Ok(Self { thread: Some(thread), instruction, saved, away: false, pace, mask: None })
    }

    /// Runs one system call in the thread.
    ///
    /// # Errors
    /// The inner error is the call's own; the outer one means that it could not be run.
    pub fn call(
        &mut self,
        number: i64,
        arguments: [u64; 6],
    ) -> Result<Result<u64, Errno>, WaitError> {
        for attempt in 0..MAX_TRIES {
            if attempt >= PATIENT_TRIES {
                self.block_signals()?;
            }
            match self.enter(number, arguments)? {
                Some(()) => {}
                None => continue,
            }
            let thread = self.step(Resume::ToSystemCall)?;
            let result = thread.registers()?.rax;
            self.thread = Some(thread);
            // psABI A.2.1: -4095 to -1 is an error number.
            let negative = result.wrapping_neg();
            return Ok(match i32::try_from(negative) {
                Ok(errno @ 1..4096) => Err(Errno::from_raw(errno)),
                _ => Ok(result),
            });
        }
        let what = format!("run a system call in thread {}", self.saved_tid());
        Err(SysError::new(what, Errno::EAGAIN).into())
    }

    fn block_signals(&mut self) -> Result<(), SysError> {
        if let (None, Some(thread)) = (self.mask, &self.thread) {
            self.mask = Some(thread.signal_mask()?);
            // SIGKILL and SIGSTOP cannot be blocked; the kernel leaves them out.
            thread.set_signal_mask(u64::MAX)?;
        }
        Ok(())
    }

    fn saved_tid(&self) -> i32 {
        self.thread.as_ref().map_or(0, Stopped::tid)
    }

    /// Brings the thread to the entry of the call; `None` when a signal came first.
    fn enter(&mut self, number: i64, arguments: [u64; 6]) -> Result<Option<()>, WaitError> {
        let mut registers = self.saved;
        registers.rip = self.instruction.0;
        registers.rax = number.cast_unsigned();
        // Not in a system call, as far as restarting is concerned.
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] =
            arguments;
        if let Some(thread) = &self.thread {
            thread.set_registers(&registers)?;
        }
        self.away = true;
        let thread = self.step(Resume::ToSystemCall)?;
        let event = thread.event();
        self.thread = Some(thread);
        if event == Event::SystemCall {
            return Ok(Some(()));
        }
        self.give_back_registers()?;
        // With its own registers it takes the signal; the next stop is the handler's first
        // instruction, or a stop of the whole group.
        if let Some(thread) = self.thread.take() {
            let thread = settle(thread, self.pace)?;
            self.saved = thread.registers()?;
            self.thread = Some(thread);
        }
        Ok(None)
    }

    fn step(&mut self, how: Resume) -> Result<Stopped, WaitError> {
        let Some(thread) = self.thread.take() else {
            return Err(WaitError::Ended(0));
        };
        thread.resume(how)?.wait(Instant::now() + STEP, self.pace)
    }

    /// Puts the saved registers back at a stop where the kernel still decides about a restart.
    fn give_back_registers(&mut self) -> Result<(), WaitError> {
        if self.away && self.thread.as_ref().is_some_and(|t| t.event() == Event::SystemCall) {
            // Out of the injected call, into the next interrupt stop.
            let Some(thread) = self.thread.take() else { return Ok(()) };
            self.thread = Some(stop_again(thread, self.pace)?);
        }
        if let (true, Some(thread)) = (self.away, &self.thread) {
            thread.set_registers(&self.saved)?;
            self.away = false;
        }
        Ok(())
    }

    fn unblock_signals(&mut self) -> Result<(), SysError> {
        if let (Some(mask), Some(thread)) = (self.mask.take(), &self.thread) {
            thread.set_signal_mask(mask)?;
        }
        Ok(())
    }

    /// Ends the loan; the thread is stopped as it was before.
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn give_back(mut self) -> Result<Stopped, WaitError> {
        self.give_back_registers()?;
        self.unblock_signals()?;
        self.thread.take().ok_or(WaitError::Ended(0))
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // Only reached when something failed: the thread has ended, or goes on with its registers.
        let _ = self.give_back_registers();
        let _ = self.unblock_signals();
    }
}

/// Lets a stopped thread run into the next interrupt stop, without an instruction of its own when it
/// is on its way out of the kernel.
fn stop_again(thread: Stopped, pace: Pace) -> Result<Stopped, WaitError> {
    let tid = thread.tid();
    let running = thread.resume_interrupted()?;
    let stopped = running.wait(Instant::now() + STEP, pace)?;
    debug_assert_eq!(stopped.tid(), tid);
    Ok(stopped)
}

/// Delivers the signals that a thread is about to take, until it stands at an interrupt stop.
fn settle(mut thread: Stopped, pace: Pace) -> Result<Stopped, WaitError> {
    for _ in 0..MAX_TRIES {
        if !matches!(thread.event(), Event::Signal(_) | Event::Other(_) | Event::SystemCall) {
            break;
        }
        thread = stop_again(thread, pace)?;
    }
    Ok(thread)
}
