//! When the tool runs, and where, how it waits, and when it may be ended. All but the waiting end with
//! the value that stands for them.

use super::sys;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::Pid;
use std::sync::OnceLock;
use std::time::Duration;

/// How to wait for a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// There are processors enough: give way and look again, which misses hardly a microsecond.
    Calm,
    /// More wants to run than there are processors. Giving way would mean to come back when all
    /// others have had their turn (90 ms with 64 busy threads on 2 processors): sleep a moment, and be
    /// urgent when it has passed.
    Crowded,
}

impl Pace {
    /// The right one at this moment: `/proc/loadavg` counts what runs or wants to (proc(5)).
    #[must_use]
    pub fn now() -> Self {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let running = text.split(' ').nth(3).and_then(|f| f.split('/').next()?.parse().ok());
        // Once: it costs more than all else here, and the tool moves to one processor at times.
        static PROCESSORS: OnceLock<usize> = OnceLock::new();
        let processors =
            *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
        if running.is_some_and(|r: usize| r > processors) { Self::Crowded } else { Self::Calm }
    }

    /// The priority that belongs to it.
    #[must_use]
    pub fn priority(self) -> Option<Urgent> {
        (self == Self::Crowded).then(Urgent::begin)
    }
}

/// Waiting for one thing: short moments first, then longer ones.
#[derive(Debug)]
pub struct Patience {
    pace: Pace,
    looks: u32,
}

impl Patience {
    /// Begins to wait.
    #[must_use]
    pub fn at(pace: Pace) -> Self {
        Self { pace, looks: 0 }
    }

    /// Waits a little.
    pub fn pause(&mut self) {
        self.looks += 1;
        let longer = match self.pace {
            Pace::Calm if self.looks < 100 => return std::thread::yield_now(),
            Pace::Calm => self.looks - 90,
            // Sleeping is what keeps an urgent tool from starving those that it waits for.
            Pace::Crowded => 1 + self.looks / 20,
        };
        std::thread::sleep(Duration::from_micros(10 * u64::from(longer.min(50))));
    }
}

/// The tool goes before everything else on its processor, so that the threads it resumes do not keep
/// it from resuming the others (PEERS.md: 28 ms against 0.35). Never while polling without sleep.
#[derive(Debug)]
pub struct Urgent {
    before: Option<i32>,
}

impl Urgent {
    /// Begins. Without the right to it, nothing changes.
    #[must_use]
    pub fn begin() -> Self {
        let before = sys::scheduler().ok().filter(|p| *p == libc::SCHED_OTHER);
        let before = before.filter(|_| sys::set_scheduler(libc::SCHED_FIFO, 1).is_ok());
        Self { before }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        if let Some(policy) = self.before {
            // Lowering one's own priority is always allowed.
            let _ = sys::set_scheduler(policy, 0);
        }
    }
}

/// The end of an urgency for a while: an urgent tool that gives way gives way to nobody, and one that
/// sleeps for ten microseconds sleeps for seventy.
#[derive(Debug)]
pub struct Relaxed {
    urgent: bool,
}

impl Relaxed {
    /// Begins.
    #[must_use]
    pub fn begin() -> Self {
        let urgent = sys::scheduler() == Ok(libc::SCHED_FIFO)
            && sys::set_scheduler(libc::SCHED_OTHER, 0).is_ok();
        Self { urgent }
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        if self.urgent {
            // It was allowed before; if not any more, the tool is only slower.
            let _ = sys::set_scheduler(libc::SCHED_FIFO, 1);
        }
    }
}

/// The tool runs on one processor: a ptrace round trip costs 4 us there against 45 us across
/// processors, when the other one sleeps (PEERS.md).
#[derive(Debug)]
pub struct Beside {
    before: Option<CpuSet>,
}

impl Beside {
    /// Moves to the processor that `tid` ran on last.
    #[must_use]
    pub fn thread(pid: i32, tid: i32) -> Self {
        let this = Pid::from_raw(0);
        let before = last_processor(pid, tid).and_then(|cpu| {
            let before = sched_getaffinity(this).ok()?;
            let mut one = CpuSet::new();
            one.set(cpu).ok()?;
            sched_setaffinity(this, &one).ok()?;
            Some(before)
        });
        Self { before }
    }
}

impl Beside {
    /// Whether that could be done.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.before.is_some()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(set) = &self.before {
            // The processors may have been taken away meanwhile; then the kernel has chosen others.
            let _ = sched_setaffinity(Pid::from_raw(0), set);
        }
    }
}

/// Signals that would end the tool wait: a thread whose debug registers or trap flag are set must not be
/// left alone, the trap would end it.
#[derive(Debug)]
pub struct Undisturbed {
    before: Option<SigSet>,
}

impl Undisturbed {
    /// Begins.
    #[must_use]
    pub fn begin() -> Self {
        Self { before: SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok() }
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // What waited is taken now.
            let _ = before.thread_set_mask();
        }
    }
}

/// Field 39 of `/proc/PID/task/TID/stat`, counted behind the name, which may hold anything.
fn last_processor(pid: i32, tid: i32) -> Option<usize> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(36)?.parse().ok()
}
