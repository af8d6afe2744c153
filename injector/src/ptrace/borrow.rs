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
//!
//! If the tool is killed meanwhile, the thread saves itself (see [`super::lifeline`]). If a call takes too
//! long, the thread is not let go of before it has its own registers again.

use super::footholds::Footholds;
use super::gate::{Gate, Suspend};
use super::lifeline::Lifeline;
use super::sched::Pace;
use super::stop::Event;
use super::sys::{Registers, Resume};
use super::thread::{Stopped, WaitError};
use crate::address::ProcAddr;
use crate::error::SysError;
use crate::faults::{self, Call};
use crate::target::bpf::{Action, SystemCall};
use crate::target::maps::Maps;
use crate::target::memory::ProcessMemory;
use nix::errno::Errno;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long one step of a remote call may take.
const STEP: Duration = Duration::from_secs(2);
/// A thread with borrowed registers must come back, whatever it does.
const MUST_STOP: Duration = Duration::from_secs(30);
/// Tries of one call before it is given up.
const MAX_TRIES: usize = 20;
/// Tries that signals have interrupted before they are blocked.
const PATIENT_TRIES: usize = 3;

/// Bytes of `syscall`.
const SYSCALL: u64 = 2;

/// What borrowing needs of the process.
#[derive(Debug, Clone)]
pub struct Ground<'a> {
    /// Its memory.
    pub memory: &'a ProcessMemory,
    /// Its mappings.
    pub maps: Rc<Maps>,
    /// Code of its.
    pub footholds: Footholds,
    /// When seccomp is suspended for the calls.
    pub suspend: Suspend,
}

/// What a thread needs back that was let go in a call of this tool's.
#[derive(Debug)]
pub struct Deposit {
    /// Its registers.
    pub registers: Registers,
    /// The signals that it blocks by itself.
    pub mask: u64,
    /// Where its lifeline is.
    pub line: ProcAddr,
    /// And what was there.
    pub before: Vec<u8>,
}

/// A thread that could not be borrowed. It stands as it stood, unless it has ended.
#[derive(Debug)]
pub struct NotBorrowed {
    /// The thread.
    pub thread: Option<Stopped>,
    /// Why.
    pub error: WaitError,
}

impl From<NotBorrowed> for WaitError {
    fn from(not: NotBorrowed) -> Self {
        not.error
    }
}

/// A stopped thread whose registers are saved.
#[derive(Debug)]
pub struct Borrowed<'a> {
    thread: Option<Stopped>,
    ground: Ground<'a>,
    saved: Registers,
    /// What saves the thread if the tool dies; `None` where that cannot be had.
    lifeline: Option<Lifeline>,
    /// The thread has left the stop in which its registers can be put back for good.
    away: bool,
    /// It stands at the entry of an injected call, which has not begun.
    at_entry: bool,
    pace: Pace,
    /// The signals that it blocks by itself, when all are blocked for now.
    mask: Option<u64>,
    /// What seccomp lets it do.
    gate: Gate,
    /// That does not count for now.
    suspended: bool,
}

impl<'a> Borrowed<'a> {
    /// Borrows a stopped thread.
    ///
    /// # Errors
    /// [`NotBorrowed`].
    pub fn new(thread: Stopped, ground: Ground<'a>, pace: Pace) -> Result<Self, NotBorrowed> {
        let thread = settle(thread, pace).map_err(|error| NotBorrowed { thread: None, error })?;
        let saved = match thread.registers() {
            Ok(saved) => saved,
            Err(e) => return Err(NotBorrowed { thread: Some(thread), error: e.into() }),
        };
        let gate = Gate::of(&thread);
        let mut borrowed = Self {
            thread: Some(thread),
            ground,
            saved,
            lifeline: None,
            away: false,
            at_entry: false,
            pace,
            mask: None,
            gate,
            suspended: false,
        };
        match borrowed.lay_lifeline() {
            Ok(()) => Ok(borrowed),
            Err(e) => Err(NotBorrowed { thread: borrowed.thread.take(), error: e.into() }),
        }
    }

    /// Whether the thread would save itself if the tool died.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.lifeline.is_some()
    }

    fn lay_lifeline(&mut self) -> Result<(), SysError> {
        let Some(thread) = &self.thread else { return Ok(()) };
        let Ground { memory, maps, footholds, .. } = &self.ground;
        self.lifeline = Lifeline::lay(thread, &self.saved, memory, maps, footholds)?;
        Ok(())
    }

    fn take_up_lifeline(&mut self) -> Result<(), SysError> {
        self.lifeline.take().map_or(Ok(()), |line| line.take_up(self.ground.memory))
    }

    /// Whether a call may be made: seccomp allows it, or is suspended.
    fn passes(&mut self, number: i64, arguments: [u64; 6]) -> bool {
        let at = self.ground.footholds.syscall.0 + SYSCALL;
        let action = self.gate.verdict(&SystemCall { number, arguments, at });
        if self.suspended || action.is_some_and(Action::allows) {
            return true;
        }
        let mild = action.is_some_and(Action::is_mild);
        if mild || self.ground.suspend == Suspend::Always {
            self.suspended =
                self.thread.as_ref().is_some_and(|thread| thread.suspend_seccomp(true).is_ok());
        }
        self.suspended
    }

    /// Runs one system call in the thread. One that seccomp forbids is not made, and gives `EACCES`.
    ///
    /// # Errors
    /// The inner error is the call's own; the outer one means that it could not be run.
    pub fn call(
        &mut self,
        number: i64,
        arguments: [u64; 6],
    ) -> Result<Result<u64, Errno>, WaitError> {
        self.call_with(number, |_| Ok(arguments))
    }

    /// As [`Self::call`], with arguments that are made for each try: what they point to in the scratch
    /// is gone when a signal has come first.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_with(
        &mut self,
        number: i64,
        arguments: impl Fn(&Self) -> Result<[u64; 6], WaitError>,
    ) -> Result<Result<u64, Errno>, WaitError> {
        if let Err(e) = faults::pass(Call::Remote(number)) {
            return Ok(Err(e));
        }
        for attempt in 0..MAX_TRIES {
            if attempt >= PATIENT_TRIES {
                self.block_signals()?;
            }
            let arguments = arguments(self)?;
            if !self.passes(number, arguments) {
                return Ok(Err(Errno::EACCES));
            }
            match self.enter(number, arguments)? {
                Some(()) => {}
                None => continue,
            }
            self.step(Resume::ToSystemCall)?;
            // Without the result nobody would know what is to be undone.
            let result = self.thread()?.call_result()?;
            // psABI A.2.1: -4095 to -1 is an error number.
            let negative = result.wrapping_neg();
            return Ok(match i32::try_from(negative) {
                Ok(errno @ 1..4096) => Err(Errno::from_raw(errno)),
                _ => Ok(result),
            });
        }
        let what = format!("run a system call in thread {}", self.thread()?.tid());
        Err(SysError::new(what, Errno::EAGAIN).into())
    }

    /// Where some bytes may be written for the arguments of a call, until a signal comes.
    #[must_use]
    pub fn scratch(&self) -> Option<ProcAddr> {
        self.lifeline.as_ref().map(Lifeline::scratch)
    }

    fn block_signals(&mut self) -> Result<(), SysError> {
        if let (None, Some(thread)) = (self.mask, &self.thread) {
            self.mask = Some(thread.signal_mask()?);
            // SIGKILL and SIGSTOP cannot be blocked; the kernel leaves them out.
            thread.set_signal_mask(u64::MAX)?;
        }
        Ok(())
    }

    fn thread(&self) -> Result<&Stopped, WaitError> {
        self.thread.as_ref().ok_or(WaitError::Ended(0))
    }

    /// Brings the thread to the entry of the call; `None` when a signal came first.
    fn enter(&mut self, number: i64, arguments: [u64; 6]) -> Result<Option<()>, WaitError> {
        if self.at_entry {
            // Of a call before this one, which came to nothing.
            self.give_back_registers()?;
        }
        let mut registers = self.saved;
        registers.rip = self.ground.footholds.syscall.0;
        if let Some(lifeline) = &self.lifeline {
            registers.rsp = lifeline.stack_pointer();
        }
        registers.rax = number.cast_unsigned();
        // Not in a system call, as far as restarting is concerned.
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] =
            arguments;
        self.thread()?.set_registers(&registers)?;
        self.away = true;
        self.step(Resume::ToSystemCall)?;
        if self.thread()?.event() == Event::SystemCall {
            self.at_entry = true;
            return Ok(Some(()));
        }
        self.give_back_registers()?;
        // With its own registers it takes the signal, whose frame lies where the lifeline is; the next
        // stop is the handler's first instruction, or a stop of the whole group.
        self.take_up_lifeline()?;
        if let Some(thread) = self.thread.take() {
            let thread = settle(thread, self.pace)?;
            self.saved = thread.registers()?;
            self.thread = Some(thread);
        }
        self.lay_lifeline()?;
        Ok(None)
    }

    /// Lets the thread go on to the next stop. One that takes too long is an error, but it is waited for
    /// and kept all the same: it must get its registers back.
    fn step(&mut self, how: Resume) -> Result<(), WaitError> {
        let thread = self.thread.take().ok_or(WaitError::Ended(0))?;
        let tid = thread.tid();
        let running = thread.resume(how).map_err(|not| {
            self.thread = Some(not.thread);
            not.error
        })?;
        self.at_entry = false;
        let running = match running.wait_or_keep(Instant::now() + STEP, self.pace)? {
            Ok(stopped) => {
                self.thread = Some(stopped);
                return Ok(());
            }
            Err(running) => running,
        };
        // One that has ended says so when it is waited for.
        let _ = running.interrupt();
        let stopped = running.wait(Instant::now() + MUST_STOP, Pace::Crowded)?;
        // It may have come as far as to the entry of the call.
        self.at_entry = stopped.event() == Event::SystemCall
            && stopped.registers().is_ok_and(|r| r.rax.cast_signed() == -i64::from(libc::ENOSYS));
        self.thread = Some(stopped);
        Err(WaitError::TimedOut(tid))
    }

    /// Puts the saved registers back at a stop where the kernel still decides about a restart.
    fn give_back_registers(&mut self) -> Result<(), WaitError> {
        if !self.away {
            return Ok(());
        }
        if self.at_entry {
            // The call has not begun: -1 is none (ptrace(2), on system call stops).
            let mut none = self.thread()?.registers_surely()?;
            none.orig_rax = u64::MAX;
            self.thread()?.give_back_registers(&none)?;
            self.at_entry = false;
        }
        if self.thread()?.event() == Event::SystemCall {
            // Out of the injected call, into the next interrupt stop.
            let thread = self.thread.take().ok_or(WaitError::Ended(0))?;
            self.thread = Some(stop_again(thread, self.pace)?);
        }
        self.thread()?.give_back_registers(&self.saved)?;
        self.away = false;
        Ok(())
    }

    fn unblock_signals(&mut self) -> Result<(), SysError> {
        if let (Some(mask), Some(thread)) = (self.mask.take(), &self.thread) {
            thread.give_back_signal_mask(mask)?;
        }
        Ok(())
    }

    fn heed_seccomp(&mut self) -> Result<(), SysError> {
        if let (true, Some(thread)) = (std::mem::take(&mut self.suspended), &self.thread) {
            thread.suspend_seccomp(false)?;
        }
        Ok(())
    }

    /// Lets the thread go, untraced, in a call that does nothing for that long: for another process to find it
    /// there ([`super::park`]). Until it gets its registers back it runs no instruction of its own; if nobody
    /// comes, it saves itself. The inner error: it cannot be done, and the thread is stopped as it was before.
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn park(mut self, most: Duration) -> Result<Result<Deposit, Stopped>, WaitError> {
        let most = u64::try_from(most.as_millis()).unwrap_or(0);
        let (number, arguments) = (libc::SYS_poll, [0, 0, most, 0, 0, 0]);
        let at = self.ground.footholds.syscall.0 + SYSCALL;
        let verdict = self.gate.verdict(&SystemCall { number, arguments, at });
        // Without its tracer, no filter is suspended.
        let may = self.is_safe() && verdict.is_some_and(Action::allows);
        // Signals that come first are taken first.
        let mut tries = 0..PATIENT_TRIES;
        while may && !self.at_entry && tries.next().is_some() {
            self.enter(number, arguments)?;
        }
        if !self.at_entry || !self.is_safe() {
            return Ok(Err(self.give_back()?));
        }
        let mask = self.thread()?.signal_mask()?;
        // From here on it saves itself with its own mask: not before.
        self.thread()?.set_signal_mask(u64::MAX)?;
        let (Some(line), Some(thread)) = (self.lifeline.take(), self.thread.take()) else {
            return Err(WaitError::Ended(0));
        };
        self.away = false;
        thread.detach();
        let (line, before) = line.into_parts();
        Ok(Ok(Deposit { registers: self.saved, mask, line, before }))
    }

    /// Ends the loan; the thread is stopped as it was before.
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn give_back(mut self) -> Result<Stopped, WaitError> {
        self.give_back_registers()?;
        self.unblock_signals()?;
        self.heed_seccomp()?;
        self.take_up_lifeline()?;
        self.thread.take().ok_or(WaitError::Ended(0))
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        // Only reached when something failed: the thread has ended, or goes on with its registers.
        let given_back = self.give_back_registers().is_ok();
        let _ = self.unblock_signals();
        let _ = self.heed_seccomp();
        // A thread that still has foreign registers needs it.
        if given_back && !self.away {
            let _ = self.take_up_lifeline();
        }
    }
}

/// Lets a stopped thread run into the next interrupt stop, without an instruction of its own when it
/// is on its way out of the kernel.
fn stop_again(thread: Stopped, pace: Pace) -> Result<Stopped, WaitError> {
    let running = thread.resume_interrupted()?;
    match running.wait_or_keep(Instant::now() + STEP, pace)? {
        Ok(stopped) => Ok(stopped),
        Err(running) => running.wait(Instant::now() + MUST_STOP, Pace::Crowded),
    }
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
