//! Some threads run on for a bounded time, each to an address, while all others stand still.
//!
//! Takes stopped threads, for each up to four addresses and the stack pointer that it must have there
//! at least (a recursion passes the same address in deeper frames first); gives the threads, stopped
//! again, wherever they are, and says which have come to an address of theirs. The stop is a hardware breakpoint in the thread's own debug registers
//! (SDM volume 3, 18.2): nothing is written into the text. They run together: each one alone would hold
//! the others for its own time, and may need what one of them holds.
//!
//! The trap is a forced SIGTRAP: a thread that blocks it, or a process that ignores or catches it,
//! could lose that setting to the kernel's force (`force_sig_info_to_task`). Such threads are let run
//! without goals, for a moment, and are interrupted where they are. The same is done where the processor's debug
//! registers are not to be had, and where no address is known.
//!
//! A trap may be under way when the thread is interrupted for another reason: the interrupt stop
//! comes first then, and the signal after it. It is fetched before the thread is given back, or else
//! it would kill the process.

use super::sched::{Pace, Patience, Urgent};
use super::stop::Event;
use super::sys::Resume;
use super::thread::{NotResumed, Running, Stopped, WaitError};
use crate::address::ProcAddr;
use crate::error::SysError;
use crate::target::process::Status;
use std::time::{Duration, Instant};

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
/// Stops of a thread on its way to a trap: for other signals, and for having been asked to stop.
const MOST_STOPS: usize = 100;
/// Threads that run at the same time on a crowded machine.
const CROWDED_AT_ONCE: usize = 2;
/// A thread without a goal runs for this long.
const SAMPLE: Duration = Duration::from_micros(30);
/// Threads that have not come after this time, and then again after each such time, are looked at:
/// those asleep in the kernel will not come.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal {
    /// Stop before the instruction here ...
    pub at: ProcAddr,
    /// ... when the stack pointer is at least this.
    pub min_rsp: u64,
}

/// One thread that is to run on.
#[derive(Debug)]
pub struct Runner {
    /// The thread.
    pub thread: Stopped,
    /// Where to; the first four count.
    pub goals: Vec<Goal>,
}

/// One that runs.
struct Active {
    running: Running,
    goals: Vec<Goal>,
    until: Instant,
}

/// One that has stopped again.
struct Arrived {
    thread: Stopped,
    /// Its debug registers are set.
    armed: bool,
    /// A trap of its may still be pending.
    unsure: bool,
    /// It is at a goal.
    there: bool,
}

/// One that ran on and stands still again.
#[derive(Debug)]
pub struct Ran {
    /// The thread.
    pub thread: Stopped,
    /// It is at one of its goals.
    pub there: bool,
}

/// Lets all of them run on, each for `bound` at most. Those that have ended are left out.
///
/// With processors enough they run at once. On a crowded machine a few at a time come through sooner:
/// the scheduler gives way to one thread that wakes, not to a crowd of them.
///
/// # Errors
/// The process has executed another program.
pub fn run(runners: Vec<Runner>, bound: Duration, pace: Pace) -> Result<Vec<Ran>, WaitError> {
    let at_once = if pace == Pace::Calm { usize::MAX } else { CROWDED_AT_ONCE };
    let mut stopped = Vec::with_capacity(runners.len());
    let mut runners = runners.into_iter();
    loop {
        let batch: Vec<_> = runners.by_ref().take(at_once).collect();
        if batch.is_empty() {
            return Ok(stopped);
        }
        stopped.extend(run_at_once(batch, bound, pace)?);
    }
}

fn run_at_once(runners: Vec<Runner>, bound: Duration, pace: Pace) -> Result<Vec<Ran>, WaitError> {
    let armed = runners.into_iter().map(|one| (arm(&one.thread, one.goals), one.thread)).collect();
    let start = Instant::now();
    let (mut active, mut arrived) = set_off(armed, start, bound);
    let mut executed = None;
    let mut patience = Patience::at(pace);
    let mut look = start + LOOK_EVERY;
    while !active.is_empty() && executed.is_none() {
        let mut still = Vec::new();
        for one in active {
            match one.poll() {
                Ok(Step::Runs(one)) => still.push(one),
                Ok(Step::Stands(one)) => arrived.push(one),
                Err(WaitError::Executed(tid)) => executed = Some(tid),
                // It has ended, by itself or with the whole process.
                Err(_) => {}
            }
        }
        active = still;
        let now = Instant::now();
        let looking = now >= look;
        let (over, rest) = active
            .into_iter()
            .partition(|one| now >= one.until || looking && is_asleep(one.running.tid()));
        active = rest;
        if looking {
            // Looking takes the processor from those that are waited for: a tenth of the time.
            look = Instant::now() + LOOK_EVERY.max(now.elapsed() * 10);
        }
        arrived.extend(interrupt(over, pace));
        if !active.is_empty() {
            patience.pause();
        }
    }
    match executed {
        // Its other threads are gone, and so are debug registers.
        Some(tid) => Err(WaitError::Executed(tid)),
        None => Ok(disarm_all(arrived, pace)),
    }
}

/// Takes all breakpoints away; then those that stand in a trap are led out of it, all at once.
fn disarm_all(arrived: Vec<Arrived>, pace: Pace) -> Vec<Ran> {
    let leave = |one: Arrived| -> Result<Leaving, SysError> {
        if one.armed {
            clear(&one.thread)?;
        }
        if !is_trap(&one.thread, Cause::Breakpoint) {
            return Ok(Leaving::Stands(one));
        }
        let running = one.thread.without_signal().resume_interrupted()?;
        Ok(Leaving::Runs(running, one.there))
    };
    // An error says that the thread has ended.
    let leaving: Vec<_> = arrived.into_iter().filter_map(|one| leave(one).ok()).collect();
    let settle = |one: Leaving| -> Result<Ran, WaitError> {
        let (thread, there) = match one {
            Leaving::Stands(one) if one.unsure => {
                (without_pending_trap(one.thread, Cause::Breakpoint, pace)?, one.there)
            }
            Leaving::Stands(one) => (one.thread, one.there),
            Leaving::Runs(running, there) => {
                (running.wait(Instant::now() + MUST_STOP, pace)?, there)
            }
        };
        Ok(Ran { thread, there })
    };
    leaving.into_iter().filter_map(|one| settle(one).ok()).collect()
}

/// One that is about to leave a trap.
enum Leaving {
    Stands(Arrived),
    Runs(Running, bool),
}

/// Lets all of them go; gives those that run, and those that stand still where they stood.
fn set_off(
    threads: Vec<(Vec<Goal>, Stopped)>,
    start: Instant,
    bound: Duration,
) -> (Vec<Active>, Vec<Arrived>) {
    // The first ones must not keep the tool from letting the others go.
    let _urgent = Urgent::begin();
    let (mut active, mut standing) = (Vec::new(), Vec::new());
    for (goals, thread) in threads {
        let until = start + if goals.is_empty() { SAMPLE } else { bound };
        let armed = !goals.is_empty();
        match thread.resume(Resume::Freely) {
            Ok(running) => active.push(Active { running, goals, until }),
            Err(NotResumed { thread, .. }) => standing.push(Arrived::nowhere(thread, armed)),
        }
    }
    (active, standing)
}

impl Arrived {
    /// It stands somewhere on its way.
    fn nowhere(thread: Stopped, armed: bool) -> Self {
        Self { thread, armed, unsure: armed, there: false }
    }
}

enum Step {
    Runs(Active),
    Stands(Arrived),
}

impl Active {
    /// What has become of it, without waiting.
    fn poll(self) -> Result<Step, WaitError> {
        let Self { running, goals, until } = self;
        let stopped = match running.poll()? {
            Ok(stopped) => stopped,
            Err(running) => return Ok(Step::Runs(Self { running, goals, until })),
        };
        let armed = !goals.is_empty();
        let stopped = match stopped.event() {
            // A group stop ends the run; other signals are delivered and their handlers run.
            Event::GroupStop(_) => {
                return Ok(Step::Stands(Arrived::nowhere(stopped, armed)));
            }
            Event::Signal(libc::SIGTRAP) if is_trap(&stopped, Cause::Breakpoint) => {
                let Ok(registers) = stopped.registers() else {
                    return Ok(Step::Stands(Arrived::nowhere(stopped, armed)));
                };
                let here = |g: &Goal| registers.rip == g.at.0 && registers.rsp >= g.min_rsp;
                if goals.iter().any(here) {
                    let thread = stopped;
                    return Ok(Step::Stands(Arrived { thread, armed, unsure: false, there: true }));
                }
                // The kernel sets the resume flag, so that it does not trap here again at once.
                stopped.without_signal()
            }
            _ => stopped,
        };
        Ok(match stopped.resume(Resume::Freely) {
            Ok(running) => Step::Runs(Self { running, goals, until }),
            Err(NotResumed { thread, .. }) => Step::Stands(Arrived::nowhere(thread, armed)),
        })
    }
}

/// Stops those that have not come; the first interrupt goes out before the first wait.
fn interrupt(over: Vec<Active>, pace: Pace) -> Vec<Arrived> {
    for one in &over {
        // One that has ended says so when it is waited for.
        let _ = one.running.interrupt();
    }
    let until = Instant::now() + MUST_STOP;
    let stop = |one: Active| {
        let armed = !one.goals.is_empty();
        let thread = one.running.wait(until, pace).ok()?;
        Some(Arrived::nowhere(thread, armed))
    };
    over.into_iter().filter_map(stop).collect()
}

/// Sets breakpoints at the goals; gives those that are set: all, or none.
fn arm(thread: &Stopped, mut goals: Vec<Goal>) -> Vec<Goal> {
    goals.truncate(MAX_GOALS);
    if goals.is_empty() || blocks_trap(thread.tid()) {
        return Vec::new();
    }
    if set(thread, &goals).is_err() {
        // Half set is not set. An error here means that the thread was killed.
        let _ = clear(thread);
        return Vec::new();
    }
    goals
}

/// Takes away a trap that this tool has caused and that the thread has not taken yet: it goes on
/// only to stop again with it, before any instruction of its own. Leads it out of one that it has taken.
///
/// # Errors
/// The thread has ended.
pub fn without_pending_trap(
    thread: Stopped,
    cause: Cause,
    pace: Pace,
) -> Result<Stopped, WaitError> {
    let mut thread = without_trap(thread, cause, pace)?;
    for _ in 0..MOST_STOPS {
        // What it blocks it does not take, and this tool has not caused.
        let takes = |s: Status| s.pending & !s.blocked & TRAP_BIT != 0;
        if !Status::of(thread.tid()).is_some_and(takes) {
            break;
        }
        let running = thread.resume_surely(Resume::Freely)?;
        thread = without_trap(running.wait(Instant::now() + MUST_STOP, pace)?, cause, pace)?;
    }
    Ok(thread)
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
    thread.clear_debug_register(CONTROL)?;
    (0..MAX_GOALS).try_for_each(|number| thread.clear_debug_register(number))
}

/// Whether SIGTRAP can be used without changing what the process sees of it: it has its default. To be
/// asked before anything else here, and before there is a net ([`super::trapnet`]).
#[must_use]
pub fn may_trap(pid: i32) -> bool {
    Status::of(pid).is_some_and(|s| (s.ignored | s.caught) & TRAP_BIT == 0)
}

/// Whether a thread blocks it: then it could not be used either.
pub(super) fn blocks_trap(tid: i32) -> bool {
    Status::of(tid).is_none_or(|s| s.blocked & TRAP_BIT != 0)
}

fn is_asleep(tid: i32) -> bool {
    Status::of(tid).is_some_and(|s| matches!(s.state, 'S' | 'D'))
}

/// What makes a thread trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A debug register.
    Breakpoint,
    /// A single step.
    Step,
    /// Either: it is not known what a tool has done that was killed.
    Any,
}

impl Cause {
    /// Values of `si_code`: `TRAP_HWBKPT`; `TRAP_TRACE`, `TRAP_BRKPT` behind a system call, and the
    /// signal's number at the start of a handler (siginfo.h; arch/x86/kernel/ptrace.c, signal.c). An
    /// `int3` of the program's has `SI_KERNEL`, a signal that was sent no positive number.
    fn codes(self) -> &'static [i32] {
        match self {
            Self::Breakpoint => &[4],
            Self::Step => &[2, 1, libc::SIGTRAP],
            Self::Any => &[4, 2, 1, libc::SIGTRAP],
        }
    }
}

/// Whether it is about to take a trap that this tool has caused.
pub(super) fn is_trap(stopped: &Stopped, cause: Cause) -> bool {
    stopped.event() == Event::Signal(libc::SIGTRAP)
        && stopped.signal_code().is_ok_and(|code| cause.codes().contains(&code))
}

/// Leads a thread out of a trap, to an interrupt stop, without an instruction of its own; leaves any other
/// stop as it is. As long as it stands in the trap, the death of this tool would deliver the signal.
pub(super) fn without_trap(
    stopped: Stopped,
    cause: Cause,
    pace: Pace,
) -> Result<Stopped, WaitError> {
    if !is_trap(&stopped, cause) {
        return Ok(stopped);
    }
    let running = stopped.without_signal().resume_interrupted()?;
    running.wait(Instant::now() + MUST_STOP, pace)
}
