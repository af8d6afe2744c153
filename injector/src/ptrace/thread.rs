//! One thread, its state in its type: [`Running`] (seized) or [`Stopped`].
//!
//! Transitions consume; dropping a stopped thread lets it go, untraced, with the signal it was about
//! to take; dropping a running one stops it first, because only a stopped thread can be detached.

use super::sched::{Pace, Patience};
use super::stop::Event;
use super::sys::{self, Registers, Resume};
use crate::error::SysError;
use nix::errno::Errno;
use std::time::{Duration, Instant};

/// New threads are traced from their first instruction; system call stops can be told from traps.
const OPTIONS: i32 =
    libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACESYSGOOD;
/// How long a thread is waited for when nobody is interested any more.
const LAST_WAIT: Duration = Duration::from_millis(20);

/// Why a thread did not stop.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// It has ended; there is nothing left to trace.
    #[error("thread {0} has ended")]
    Ended(i32),
    /// It has executed another program.
    #[error("thread {0} has executed another program")]
    Executed(i32),
    /// It did not stop in time: it waits in the kernel without regard for signals.
    #[error("thread {0} does not stop")]
    TimedOut(i32),
    /// An operation failed.
    #[error(transparent)]
    System(#[from] SysError),
}

/// A traced thread that runs, or may run at any time.
#[derive(Debug)]
pub struct Running {
    tid: i32,
    armed: bool,
}

/// A traced thread that stands still until it is let go.
#[derive(Debug)]
pub struct Stopped {
    tid: i32,
    event: Event,
    armed: bool,
}

impl Running {
    /// Starts tracing a thread.
    ///
    /// # Errors
    /// `EPERM` when it may not be traced, or is a zombie; `ESRCH` when it has ended.
    pub fn seize(tid: i32) -> Result<Self, Errno> {
        sys::seize(tid, OPTIONS)?;
        Ok(Self { tid, armed: true })
    }

    /// A thread that is traced from its birth, because its maker is.
    #[must_use]
    pub fn born(tid: i32) -> Self {
        Self { tid, armed: true }
    }

    /// Thread id.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Asks it to stop. To be followed by waiting.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn interrupt(&self) -> Result<(), SysError> {
        sys::interrupt(self.tid).map_err(|e| failed("interrupt", self.tid, e))
    }

    /// Looks whether it has stopped, without waiting.
    ///
    /// # Errors
    /// [`WaitError`]; the thread is gone then.
    pub fn poll(mut self) -> Result<Result<Stopped, Self>, WaitError> {
        let tid = self.tid;
        match sys::poll(tid) {
            Ok(None) => Ok(Err(self)),
            Err(Errno::ECHILD) => {
                self.armed = false;
                Err(WaitError::Ended(tid))
            }
            Err(e) => Err(failed("wait for", tid, e).into()),
            Ok(Some(status)) => {
                self.armed = false;
                match Event::of(status) {
                    Event::Ended => Err(WaitError::Ended(tid)),
                    Event::Executed => {
                        // It stands still in its new program: let go before reporting.
                        drop(Stopped { tid, event: Event::Executed, armed: true });
                        Err(WaitError::Executed(tid))
                    }
                    event => Ok(Ok(Stopped { tid, event, armed: true })),
                }
            }
        }
    }

    /// Waits for it to stop.
    ///
    /// # Errors
    /// [`WaitError`]. After a time-out the thread is detached as well as possible.
    pub fn wait(mut self, until: Instant, pace: Pace) -> Result<Stopped, WaitError> {
        let mut patience = Patience::at(pace);
        loop {
            match self.poll()? {
                Ok(stopped) => return Ok(stopped),
                Err(running) => self = running,
            }
            if Instant::now() >= until {
                return Err(WaitError::TimedOut(self.tid));
            }
            patience.pause();
        }
    }

    /// Waits as [`Running::wait`], but hands the thread back when the time is up.
    ///
    /// # Errors
    /// [`WaitError`], never a time-out.
    pub fn wait_until(
        mut self,
        until: Instant,
        pace: Pace,
    ) -> Result<Result<Stopped, Self>, WaitError> {
        let mut patience = Patience::at(pace);
        loop {
            match self.poll()? {
                Ok(stopped) => return Ok(Ok(stopped)),
                Err(running) => self = running,
            }
            if Instant::now() >= until {
                return Ok(Err(self));
            }
            patience.pause();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.armed || sys::interrupt(self.tid).is_err() {
            return;
        }
        let until = Instant::now() + LAST_WAIT;
        let mut patience = Patience::at(Pace::Crowded);
        while Instant::now() < until {
            match sys::poll(self.tid) {
                Ok(None) => patience.pause(),
                Ok(Some(status)) if Event::of(status) != Event::Ended => {
                    // Nothing can be done about an error: the thread is gone, or goes free when
                    // this process ends.
                    let _ = sys::resume(self.tid, Resume::Untraced, Event::of(status).pending());
                    return;
                }
                _ => return,
            }
        }
    }
}

impl Stopped {
    /// Thread id.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Why it stopped.
    #[must_use]
    pub fn event(&self) -> Event {
        self.event
    }

    /// Whether the whole process is stopped by a signal, as with Ctrl-Z.
    #[must_use]
    pub fn in_group_stop(&self) -> bool {
        matches!(self.event, Event::GroupStop(_))
    }

    /// Its registers.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn registers(&self) -> Result<Registers, SysError> {
        sys::registers(self.tid).map_err(|e| failed("read the registers of", self.tid, e))
    }

    /// Sets its registers.
    ///
    /// # Errors
    /// The thread was killed, or a value is not allowed.
    pub fn set_registers(&self, registers: &Registers) -> Result<(), SysError> {
        sys::set_registers(self.tid, registers)
            .map_err(|e| failed("set the registers of", self.tid, e))
    }

    /// The `si_code` of the signal it stopped with.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn signal_code(&self) -> Result<i32, SysError> {
        sys::signal_code(self.tid).map_err(|e| failed("read the signal of", self.tid, e))
    }

    /// Sets one of its debug registers.
    ///
    /// # Errors
    /// The thread was killed, or the processor's debug registers are in use.
    pub fn set_debug_register(&self, number: usize, value: u64) -> Result<(), SysError> {
        sys::set_debug_register(self.tid, number, value)
            .map_err(|e| failed("set a debug register of", self.tid, e))
    }

    /// Forgets the signal that it was about to take: it was made by this tool.
    #[must_use]
    pub fn without_signal(mut self) -> Self {
        self.event = Event::Interrupted;
        self
    }

    /// Lets it go on, traced. It takes the signal that it was about to take.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn resume(mut self, how: Resume) -> Result<Running, SysError> {
        self.armed = false;
        sys::resume(self.tid, how, self.event.pending())
            .map_err(|e| failed("let go on", self.tid, e))?;
        Ok(Running { tid: self.tid, armed: true })
    }

    /// Lets it go on, untraced.
    pub fn detach(self) {
        drop(self);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if self.armed {
            // ESRCH: it was killed meanwhile. Nothing else can happen to a stopped thread.
            let _ = sys::resume(self.tid, Resume::Untraced, self.event.pending());
        }
    }
}

fn failed(what: &str, tid: i32, errno: Errno) -> SysError {
    SysError::new(format!("{what} thread {tid}"), errno)
}
