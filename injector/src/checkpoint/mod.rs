//! The checkpoint: all threads stopped, none of them at a blind point.
//!
//! Takes the process and the blind ranges; stops all threads, judges each, lets the blind ones run on
//! for a bounded time, and repeats until the deadline. Between attempts the process runs freely
//! and untraced. Gives the stopped process, or the frames that were in the way in the last attempt.
//!
//! | module | holds |
//! |---|---|
//! | [`blind`] | where no thread may be |
//! | [`scan`] | conservative: words of a stack |
//! | [`unwind`] | precise: frames of a stack |
//! | [`guess`] | where a thread may come out, when nothing tells |
//! | [`judge`] | both, into one verdict on a thread |
//! | [`suspended`] | stacks of coroutines, which no thread is on |
//! | [`clear`] | bringing blind threads to where they may be |

pub mod blind;
pub mod clear;
pub mod guess;
pub mod judge;
pub mod scan;
pub mod suspended;
pub mod unwind;

use crate::address::ProcAddr;
use crate::error::ApplyError;
use crate::ptrace::footholds::Footholds;
use crate::ptrace::guardian::is_asked_to_end;
use crate::ptrace::keep;
use crate::ptrace::process::{StopError, StoppedProcess};
use crate::ptrace::thread::{WaitError, let_go_within};
use crate::target::maps::Maps;
use crate::target::memory::ProcessMemory;
use crate::target::still_there;
use blind::BlindRanges;
use judge::BlindThread;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use unwind::Unwinder;

/// How long all threads are waited for in one attempt.
const STOP_WITHIN: Duration = Duration::from_millis(200);
/// How long threads are waited for that an attempt has given up while they ran.
const LET_GO_WITHIN: Duration = Duration::from_millis(5);
/// Pauses between attempts start here, double, and end here.
const BACKOFF: Duration = Duration::from_micros(500);
const BACKOFF_MOST: Duration = Duration::from_millis(50);

/// What the search for a checkpoint has cost.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Attempts made.
    pub attempts: u32,
    /// Threads in the last one.
    pub threads: usize,
    /// The longest time that a failed attempt held the process.
    pub longest_pause: Duration,
    /// Where it succeeded: how many frames wait at sites, by function.
    pub pending: BTreeMap<u32, usize>,
}

/// What is to be stopped and where it must not stand.
pub struct Checkpoint<'a> {
    /// Process id.
    pub pid: i32,
    /// Its memory.
    pub memory: &'a ProcessMemory,
    /// Where its image is.
    pub image: ProcAddr,
    /// Where no thread may be.
    pub blind: &'a BlindRanges,
    /// For precise answers.
    pub unwinder: Unwinder,
    /// Threads of a stopped process may run on, too.
    pub even_stopped: bool,
    /// Code of the process that remote calls go through.
    pub footholds: Footholds,
    /// Where the update's record is, once it is there.
    pub record: Option<ProcAddr>,
    /// The process may have stacks that no thread is on.
    pub coroutines: bool,
    /// Cost so far.
    pub search: Search,
}

/// Threads in the way, or a thread that would not stop.
type InTheWay = Vec<BlindThread>;

impl Checkpoint<'_> {
    /// Stops the process at a checkpoint, trying until `deadline`.
    ///
    /// # Errors
    /// The inner error: what was in the way in the last attempt. The outer one: the process ended.
    pub fn reach(
        &mut self,
        deadline: Instant,
    ) -> Result<Result<StoppedProcess, InTheWay>, ApplyError> {
        let mut backoff = Backoff::new(self.pid);
        loop {
            let in_the_way = match self.attempt()? {
                Ok(stopped) => return Ok(Ok(stopped)),
                Err(in_the_way) => in_the_way,
            };
            let now = Instant::now();
            if now >= deadline {
                return Ok(Err(in_the_way));
            }
            if is_asked_to_end() {
                return Err(ApplyError::Interrupted);
            }
            // Those of an attempt that could not even stop all of them.
            let_go_within(LET_GO_WITHIN);
            if self.search.attempts == 1 {
                self.unwinder.load(self.memory);
            }
            let again = now + backoff.next().min(deadline - now);
            keep::attend(again);
            std::thread::sleep(again.saturating_duration_since(Instant::now()));
        }
    }

    /// One attempt. Everything runs again when it fails.
    fn attempt(&mut self) -> Result<Result<StoppedProcess, InTheWay>, ApplyError> {
        self.search.attempts += 1;
        let mut process = match StoppedProcess::stop(self.pid, STOP_WITHIN) {
            Ok(process) => process,
            Err(StopError::Uninterruptible(tid)) => {
                return Ok(Err(vec![unstoppable(tid, "in an uninterruptible system call")]));
            }
            Err(StopError::Restless(pid)) => {
                return Ok(Err(vec![unstoppable(pid, "new threads appear faster than they stop")]));
            }
            Err(e) => return Err(e.into()),
        };
        still_there(self.pid, self.memory, self.image)?;
        self.search.threads = process.threads.len();
        let mut in_the_way = clear::the_way(self, &mut process)?;
        if in_the_way.is_empty() && self.coroutines {
            let stands: Vec<_> = process.threads.iter().filter_map(suspended::Stand::of).collect();
            let maps = Maps::of(self.pid)?;
            in_the_way.extend(suspended::look(self.memory, &maps, self.blind, self.pid, &stands));
        }
        if in_the_way.is_empty() {
            return Ok(Ok(process));
        }
        let pause = process.release();
        self.search.longest_pause = self.search.longest_pause.max(pause);
        Ok(Err(in_the_way))
    }
}

fn unstoppable(tid: i32, why: &str) -> BlindThread {
    BlindThread {
        tid,
        points: Vec::new(),
        step: false,
        goals: Vec::new(),
        waiting: true,
        note: why.into(),
    }
}

/// Pauses that grow, with jitter: a program that does something every millisecond must not meet
/// every attempt at the same point.
struct Backoff {
    next: Duration,
    noise: u64,
}

impl Backoff {
    fn new(pid: i32) -> Self {
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| u64::from(d.subsec_nanos()));
        Self { next: BACKOFF, noise: (nanos << 20 ^ u64::from(pid.unsigned_abs())) | 1 }
    }

    fn next(&mut self) -> Duration {
        // Marsaglia's xorshift: any unevenness will do.
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        let quarters = u32::try_from(self.noise % 4).unwrap_or(0);
        let pause = self.next / 2 + self.next / 4 * quarters;
        self.next = (self.next * 2).min(BACKOFF_MOST);
        pause
    }
}

impl From<StopError> for ApplyError {
    fn from(error: StopError) -> Self {
        match error {
            StopError::Ended(_) | StopError::Executed(_) => Self::Died(error.to_string()),
            StopError::Refused(tid, errno) => {
                crate::target::process::explain_refusal(tid, errno.desc())
            }
            StopError::System(e) => e.into(),
            StopError::Uninterruptible(_) | StopError::Restless(_) => {
                Self::Internal(error.to_string())
            }
        }
    }
}

impl From<WaitError> for ApplyError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Ended(_) | WaitError::Executed(_) => Self::Died(error.to_string()),
            WaitError::TimedOut(_) => Self::Internal(error.to_string()),
            WaitError::System(e) => e.into(),
        }
    }
}
