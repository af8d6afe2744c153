//! A process that would stay stopped if the tool died.
//!
//! The threads of a stopped process are let go by the kernel the moment their tracer is killed. In the
//! middle of a commit that must not be. So a SIGSTOP is queued for the process first: as long as all its
//! threads are held by their tracer, nobody takes it, and nobody is told. If the tracer dies, each thread
//! looks for signals on its way out, before any instruction of its own, and the whole process stops as it
//! would on Ctrl-Z, where `dsu-apply --recover` finds it.
//!
//! If the tracer lives, the signal is taken away again. A SIGCONT does that at once (`prepare_signal` in
//! kernel/signal.c), and is itself forgotten by a process that was not stopped and in which nobody catches it,
//! blocks it or waits for it. Elsewhere one thread is led to the signal, which is then dropped (ptrace(2),
//! "Signal-delivery-stop"); that takes a turn on the processor.
//!
//! Takes a stopped process; gives it back without that signal. A process that is stopped by a signal of
//! another's needs none of this.

use super::process::StoppedProcess;
use super::stop::Event;
use super::sys::{self, Resume};
use super::thread::{Running, Stopped, WaitError};
use crate::target::process::Status;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Bits in the masks of `/proc/PID/status`: signals that the process is about to take of its own.
const OWN: u64 = 1 << (libc::SIGSTOP - 1) | 1 << (libc::SIGCONT - 1);
const STOP_BIT: u64 = 1 << (libc::SIGSTOP - 1);
const CONT_BIT: u64 = 1 << (libc::SIGCONT - 1);
/// To ask so many threads for their masks takes less time than a turn on the processor.
const FEW: usize = 64;
/// How long the thread is waited for before it is looked whether the signal is still there.
const LOOK_AFTER: Duration = Duration::from_millis(5);
/// Stops of that thread on its way to the signal: one for each signal before it, and what was asked for.
const MOST_STOPS: usize = 100;
/// A thread that was let go must be stopped again, whatever it does.
const MUST_STOP: Duration = Duration::from_secs(30);

/// A hold that has begun.
#[derive(Debug)]
#[must_use = "a hold that is not ended leaves the process stopped"]
pub struct Hold {
    /// The program has a handler for SIGCONT.
    caught: bool,
}

impl Hold {
    /// Begins. `None` where it is not needed or cannot be had: the process is stopped anyway, or is about
    /// to take such a signal that is not ours.
    pub fn begin(process: &StoppedProcess) -> Option<Self> {
        if process.in_group_stop() {
            return None;
        }
        let status = Status::of(process.pid)?;
        let own = (status.shared | status.pending) & OWN != 0;
        if own || sys::send(process.pid, Signal::SIGSTOP).is_err() {
            return None;
        }
        Some(Self { caught: status.caught & CONT_BIT != 0 })
    }

    /// Ends it. A thread takes the signal, which is dropped; signals before it in the queue are taken by
    /// that thread as they would have been.
    ///
    /// # Errors
    /// The process has ended.
    pub fn end(self, process: &mut StoppedProcess) -> Result<(), WaitError> {
        if self.is_forgotten(process) && sys::send(process.pid, Signal::SIGCONT).is_ok() {
            return Ok(());
        }
        let ended = Self::take(process);
        if ended.is_err() || is_waiting(process.pid) {
            // It goes away in another way, which the program can see if it catches SIGCONT. An error says
            // that the process has ended.
            let _ = sys::send(process.pid, Signal::SIGCONT);
        }
        ended
    }

    /// Whether a SIGCONT would leave no trace.
    fn is_forgotten(&self, process: &StoppedProcess) -> bool {
        let blocks = |t: &Stopped| t.signal_mask().map_or(true, |mask| mask & CONT_BIT != 0);
        !self.caught && process.threads.len() <= FEW && !process.threads.iter().any(blocks)
    }

    fn take(process: &mut StoppedProcess) -> Result<(), WaitError> {
        let Some(mut thread) = take_one(process) else { return Ok(()) };
        for _ in 0..MOST_STOPS {
            let running = thread.resume_surely(Resume::Freely)?;
            thread = match running.wait_asleep(Instant::now() + LOOK_AFTER)? {
                Ok(stopped) => stopped,
                Err(running) => wait_longer(process.pid, running)?,
            };
            match thread.event() {
                Event::Signal(libc::SIGSTOP) => {
                    process.put(thread.without_signal());
                    return Ok(());
                }
                // Before ours in the queue: its handler's frame is set up, no instruction runs.
                Event::Signal(_) => {}
                // One that is to stop once more, as newborn ones are, does so before it takes a signal.
                _ if is_waiting(process.pid) => {}
                _ => break,
            }
        }
        process.put(thread);
        Ok(())
    }
}

/// Whether the signal is still there for a thread to take.
fn is_waiting(pid: i32) -> bool {
    Status::of(pid).is_some_and(|s| s.shared & STOP_BIT != 0)
}

/// One that is at an interrupt stop takes the signal without more ado.
fn take_one(process: &mut StoppedProcess) -> Option<Stopped> {
    let found = process.threads.iter().find(|t| t.event() == Event::Interrupted);
    let tid = found.or(process.threads.first()).map(Stopped::tid)?;
    process.take(tid)
}

/// Somebody's SIGCONT may have taken the signal away; else the thread waits for a processor.
fn wait_longer(pid: i32, running: Running) -> Result<Stopped, WaitError> {
    if !is_waiting(pid) {
        // One that has ended says so when it is waited for.
        let _ = running.interrupt();
    }
    let tid = running.tid();
    running.wait_asleep(Instant::now() + MUST_STOP)?.map_err(|_| WaitError::TimedOut(tid))
}
