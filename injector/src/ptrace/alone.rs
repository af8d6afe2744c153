//! One thread runs, alone and for a bounded time, to an address; all others stand still.
//!
//! Takes a stopped thread, up to four addresses, and the stack pointer that it must have there at least
//! (a recursion passes the same address in deeper frames first); gives the thread, stopped again, and
//! whether it has arrived. The stop is a hardware breakpoint in the thread's own debug registers (SDM
//! volume 3, 18.2): nothing is written into the text.
//!
//! The trap is a forced SIGTRAP: a thread that blocks it, or a process that ignores or catches it,
//! could lose that setting to the kernel's force (`force_sig_info_to_task`). Such threads are let run
//! for a moment and are interrupted where they are. The same is done where the processor's debug
//! registers are not to be had.
//!
//! A trap may be under way when the thread is interrupted for another reason: the interrupt stop
//! comes first then, and the signal after it. It is fetched before the thread is given back, or else
//! it would kill the process.

use super::sched::Pace;
use super::stop::Event;
use super::sys::Resume;
use super::thread::{Stopped, WaitError};
use crate::address::ProcAddr;
use crate::error::SysError;
use crate::target::process::Status;
use std::time::{Duration, Instant};

/// `TRAP_HWBKPT` of siginfo.h: the `si_code` of a debug register's trap.
const TRAP_HWBKPT: i32 = 4;
/// The processor has four address registers (SDM volume 3, 18.2).
pub const MAX_GOALS: usize = 4;
/// The control register, whose bits 0, 2, 4 and 6 enable the four for this thread, with all else zero
/// for execution (SDM volume 3, 18.2.4).
const CONTROL: usize = 7;
/// SIGTRAP's bit in the masks of `/proc/PID/status`.
const TRAP_BIT: u64 = 1 << (libc::SIGTRAP - 1);
/// A thread with a breakpoint set must be stopped again, whatever it does: a vfork holds it for as
/// long as its child takes to execute.
const MUST_STOP: Duration = Duration::from_secs(30);
/// A thread that only samples is interrupted after this time.
const SAMPLE: Duration = Duration::from_micros(30);
/// After this time a thread that has not come is looked at: asleep in the kernel, it will not.
const LOOK_AFTER: Duration = Duration::from_micros(80);

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal {
    /// Stop before the instruction here ...
    pub at: ProcAddr,
    /// ... when the stack pointer is at least this.
    pub min_rsp: u64,
}

/// Whether a thread's SIGTRAP can be used without changing what the process sees of it.
fn may_trap(tid: i32) -> bool {
    Status::of(tid).is_some_and(|s| (s.ignored | s.blocked | s.caught) & TRAP_BIT == 0)
}

/// Lets `thread` run to one of `goals` within `bound`; without any, for a moment.
///
/// # Errors
/// The thread has ended, executed, or cannot be stopped any more.
pub fn run(
    thread: Stopped,
    goals: &[Goal],
    bound: Duration,
    pace: Pace,
) -> Result<Stopped, WaitError> {
    let until = Instant::now() + bound;
    let goals = &goals[..goals.len().min(MAX_GOALS)];
    if goals.is_empty() || !may_trap(thread.tid()) {
        return sample(thread, pace);
    }
    if set(&thread, goals).is_err() {
        // Half set is not set: clear before running.
        clear(&thread)?;
        return sample(thread, pace);
    }
    let (thread, arrived) = run_to_trap(thread, goals, until, pace)?;
    clear(&thread)?;
    if arrived { Ok(thread) } else { fetch_trap(thread, pace) }
}

/// Takes a trap out of the thread's pending signals: it goes on only to stop again with it, before
/// any instruction of its own.
fn fetch_trap(thread: Stopped, pace: Pace) -> Result<Stopped, WaitError> {
    let pending = Status::of(thread.tid()).is_some_and(|s| s.pending & TRAP_BIT != 0);
    if !pending {
        return Ok(thread);
    }
    let stopped = thread.resume(Resume::Freely)?.wait(Instant::now() + MUST_STOP, pace)?;
    Ok(without_trap(stopped)?)
}

/// Forgets the signal of a trap; keeps any other.
fn without_trap(stopped: Stopped) -> Result<Stopped, SysError> {
    let ours =
        stopped.event() == Event::Signal(libc::SIGTRAP) && stopped.signal_code()? == TRAP_HWBKPT;
    Ok(if ours { stopped.without_signal() } else { stopped })
}

fn set(thread: &Stopped, goals: &[Goal]) -> Result<(), SysError> {
    let mut enabled = 0;
    for (number, goal) in goals.iter().enumerate() {
        thread.set_debug_register(number, goal.at.0)?;
        enabled |= 1 << (2 * number);
    }
    thread.set_debug_register(CONTROL, enabled)
}

fn clear(thread: &Stopped) -> Result<(), SysError> {
    thread.set_debug_register(CONTROL, 0)?;
    (0..MAX_GOALS).try_for_each(|number| thread.set_debug_register(number, 0))
}

/// Lets it go on until it is at a goal, or the time is up; says which.
fn run_to_trap(
    mut thread: Stopped,
    goals: &[Goal],
    until: Instant,
    pace: Pace,
) -> Result<(Stopped, bool), WaitError> {
    loop {
        let tid = thread.tid();
        let mut running = thread.resume(Resume::Freely)?;
        let look = Instant::now() + LOOK_AFTER;
        let stopped = match running.wait_until(look.min(until), pace)? {
            Ok(stopped) => stopped,
            Err(still) => {
                running = still;
                let asleep = Status::of(tid).is_some_and(|s| matches!(s.state, 'S' | 'D'));
                let end = if asleep { Instant::now() } else { until };
                match running.wait_until(end, pace)? {
                    Ok(stopped) => stopped,
                    Err(still) => return Ok((interrupt(still, pace)?, false)),
                }
            }
        };
        thread = match stopped.event() {
            Event::Signal(libc::SIGTRAP) if stopped.signal_code()? == TRAP_HWBKPT => {
                let stopped = stopped.without_signal();
                let registers = stopped.registers()?;
                let here = |g: &Goal| registers.rip == g.at.0 && registers.rsp >= g.min_rsp;
                if goals.iter().any(here) {
                    return Ok((stopped, true));
                }
                // The kernel sets the resume flag, so that it does not trap here again at once.
                stopped
            }
            // A group stop ends the run; signals are delivered and their handlers run.
            Event::GroupStop(_) => return Ok((stopped, false)),
            _ => stopped,
        };
        if Instant::now() >= until {
            return Ok((thread, false));
        }
    }
}

fn interrupt(running: super::thread::Running, pace: Pace) -> Result<Stopped, WaitError> {
    running.interrupt()?;
    let stopped = running.wait(Instant::now() + MUST_STOP, pace)?;
    Ok(without_trap(stopped)?)
}

fn sample(thread: Stopped, pace: Pace) -> Result<Stopped, WaitError> {
    let running = thread.resume(Resume::Freely)?;
    match running.wait_until(Instant::now() + SAMPLE, pace)? {
        Ok(stopped) => Ok(stopped),
        Err(running) => interrupt(running, pace),
    }
}
