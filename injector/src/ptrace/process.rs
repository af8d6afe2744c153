//! The whole process, stopped: the only state in which a commit may write.
//!
//! Takes a pid; gives all its threads, each standing still, until no new one appears. Every thread
//! is seized and interrupted first and only then waited for: one after the other costs fifty times
//! as long with many busy threads (PEERS.md). Dropping it lets every thread go on as it was: stopped
//! processes stay stopped, and signals that were about to be taken are taken.
//!
//! The first thread is the last to be traced, and the first to be let go. The kernel asks it alone whether a signal to
//! the process is ignored, and a traced one ignores nothing (`sig_ignored` in kernel/signal.c): the signal then wakes
//! any thread that runs, and is taken by that one or by another one that comes first. So while the first thread is
//! traced every other one stands still, or does before it runs an instruction of its own: what has ended its call is
//! undone then (`look` in [`super::thread`]).

use super::keep;
use super::keeper;
use super::sched::{Pace, Patience, Relaxed, Urgent};
use super::thread::{Running, Stopped, WaitError, let_go_within};
use crate::error::SysError;
use crate::target::process::Status;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Passes over the thread list before a process that keeps making threads is left alone. Where one thread makes
/// the next and ends, each pass catches it with a chance of one in ten or so, in some fifty microseconds.
const MAX_PASSES: usize = 256;
/// How much longer the first thread is waited for than the others.
const FIRST_WITHIN: Duration = Duration::from_millis(100);
/// Of how many threads it is noted what they wait in: of each that takes some microseconds.
const MOST_NOTED: usize = 1024;
/// How long threads are waited for that were made while the others stood still.
const ADOPT_WITHIN: Duration = Duration::from_millis(50);

/// How long newborn threads are waited for once all others go on.
const LET_GO_WITHIN: Duration = Duration::from_millis(5);

/// All threads of a process, standing still.
#[derive(Debug)]
pub struct StoppedProcess {
    /// Process id.
    pub pid: i32,
    /// Its threads, by id.
    pub threads: Vec<Stopped>,
    /// When the first one was asked to stop.
    pub since: Instant,
    /// How to wait for those of them that run on.
    pub pace: Pace,
    /// Ends after the threads go on: fields are dropped in this order.
    _urgent: Option<Urgent>,
}

/// Why a process could not be stopped whole. All of it runs again.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// A thread waits in the kernel without regard for signals.
    #[error("thread {0} is in an uninterruptible system call")]
    Uninterruptible(i32),
    /// Threads appear faster than they can be stopped.
    #[error("process {0} makes new threads faster than they can be stopped")]
    Restless(i32),
    /// It has ended.
    #[error("process {0} has ended")]
    Ended(i32),
    /// It runs another program.
    #[error("process {0} has executed another program")]
    Executed(i32),
    /// A thread may not be traced.
    #[error("trace thread {0}: {1}")]
    Refused(i32, Errno),
    /// An operation failed.
    #[error(transparent)]
    System(#[from] SysError),
}

/// The ids of all threads of a process.
///
/// # Errors
/// The process has ended.
pub fn thread_ids(pid: i32) -> Result<Vec<i32>, SysError> {
    let path = format!("/proc/{pid}/task");
    let list = std::fs::read_dir(&path).map_err(|e| SysError::io(format!("list {path}"), &e))?;
    Ok(list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// Seizes one thread. `None` when it is ending, which it may do at any time. One that a keeper traces is taken over
/// from it, with all others that it keeps of the process.
///
/// # Errors
/// It lives and may not be traced.
pub fn seize(tid: i32) -> Result<Option<Running>, StopError> {
    match seize_free(tid) {
        Err(StopError::Refused(_, Errno::EPERM)) => {}
        seized => return seized,
    }
    if let Some(Status { tgid, tracer, .. }) = Status::of(tid).filter(|s| s.tracer != 0) {
        keeper::claim(tgid, tracer);
    }
    seize_free(tid)
}

/// Seizes one that nobody else traces.
fn seize_free(tid: i32) -> Result<Option<Running>, StopError> {
    match Running::seize(tid) {
        Ok(running) => Ok(Some(running)),
        Err(Errno::ESRCH) => Ok(None),
        Err(Errno::EINTR) => Err(StopError::Uninterruptible(tid)),
        Err(Errno::EPERM) => match Status::of(tid) {
            None => Ok(None),
            Some(status) if status.is_dead() => Ok(None),
            // Made by a thread that is traced already, or left over from an earlier attempt.
            Some(status) if status.tracer == nix::unistd::gettid().as_raw() => {
                Ok(Some(Running::traced(tid)))
            }
            Some(_) => Err(StopError::Refused(tid, Errno::EPERM)),
        },
        Err(e) => Err(StopError::Refused(tid, e)),
    }
}

impl StoppedProcess {
    /// Stops all threads, or none.
    ///
    /// # Errors
    /// [`StopError`].
    pub fn stop(pid: i32, within: Duration) -> Result<Self, StopError> {
        let mut running: Vec<Running> = Vec::new();
        // Seizing disturbs nobody: all of it but for the first thread happens before the first interrupt.
        for _ in 0..MAX_PASSES {
            let others = running.iter().map(Running::tid).chain([pid]).collect();
            let look = Look::at(pid, &others)?;
            if look.new.is_empty() {
                break;
            }
            running.extend(look.new);
        }
        running.iter().map(Running::tid).chain([pid]).take(MOST_NOTED).for_each(keep::note);
        let pace = Pace::now();
        let urgent = pace.priority();
        let threads = Vec::with_capacity(running.len() + 1);
        let since = Instant::now();
        let mut process = Self { pid, threads, since, pace, _urgent: urgent };
        interrupt(&running);
        if let Some(first) = seize(pid)? {
            interrupt(std::slice::from_ref(&first));
            running.push(first);
        }
        process.stop_until_stable(running, since + within)?;
        // If the crowd was this process's own threads, there is none any more.
        process.pace = Pace::now();
        Ok(process)
    }

    /// A process that has just been forked: it has one thread.
    #[must_use]
    pub fn newborn(thread: Stopped, pace: Pace) -> Self {
        let pid = thread.tid();
        Self { pid, threads: vec![thread], since: Instant::now(), pace, _urgent: None }
    }

    /// Threads that appeared since the process was stopped: made by one that ran on.
    ///
    /// # Errors
    /// [`StopError`].
    pub fn adopt_new(&mut self) -> Result<(), StopError> {
        self.stop_until_stable(Vec::new(), Instant::now() + ADOPT_WITHIN)
    }

    /// Waits for those that were asked to stop, until no others appear.
    fn stop_until_stable(
        &mut self,
        mut running: Vec<Running>,
        until: Instant,
    ) -> Result<(), StopError> {
        for _ in 0..MAX_PASSES {
            self.collect(running, until)?;
            let look = Look::at(self.pid, &self.threads.iter().map(Stopped::tid).collect())?;
            if look.is_everybody() {
                let nobody = self.threads.is_empty();
                return if nobody { Err(StopError::Ended(self.pid)) } else { Ok(()) };
            }
            interrupt(&look.new);
            running = look.new;
        }
        Err(StopError::Restless(self.pid))
    }

    /// Waits for all of `running`.
    fn collect(&mut self, mut running: Vec<Running>, until: Instant) -> Result<(), StopError> {
        let mut patience = Patience::at(self.pace);
        while !running.is_empty() {
            let mut waiting = Vec::new();
            for thread in running {
                let tid = thread.tid();
                match thread.poll() {
                    Ok(Ok(stopped)) => self.threads.push(stopped),
                    Ok(Err(thread)) => waiting.push(thread),
                    Err(WaitError::Ended(_)) => {}
                    Err(WaitError::Executed(_)) => return Err(StopError::Executed(self.pid)),
                    Err(WaitError::TimedOut(_)) => return Err(StopError::Uninterruptible(tid)),
                    Err(WaitError::System(e)) => return Err(e.into()),
                }
            }
            running = waiting;
            let now = Instant::now();
            // As long as the first one is traced, none of the others is to be let go.
            let first = running.iter().any(|t| t.tid() == self.pid);
            let late = now >= if first { until + FIRST_WITHIN } else { until };
            if late {
                // A main thread that has ended before the others stays as a zombie without a word.
                running.retain(|t| Status::of(t.tid()).is_some_and(|s| !s.is_dead()));
            }
            match running.first() {
                Some(thread) if late => return Err(StopError::Uninterruptible(thread.tid())),
                Some(_) => patience.pause(),
                None => {}
            }
        }
        Ok(())
    }

    /// Whether a signal such as Ctrl-Z's has stopped the process.
    #[must_use]
    pub fn in_group_stop(&self) -> bool {
        self.threads.iter().any(Stopped::in_group_stop)
    }

    /// Lets all threads go on, untraced; gives how long the first one to stop has stood still.
    #[must_use = "the pause belongs in the report"]
    pub fn release(mut self) -> Duration {
        self.let_go();
        let pause = self.since.elapsed();
        // Made by threads that ran on meanwhile.
        let_go_within(LET_GO_WITHIN);
        pause
    }

    fn let_go(&mut self) {
        // Those that go on first must not keep the others waiting.
        let _urgent = Urgent::begin();
        self.threads.sort_by_key(|thread| thread.tid() != self.pid);
        for thread in self.threads.drain(..) {
            thread.detach();
        }
    }

    /// For letting some of its threads run on: the priority of the tool that goes with [`Self::pace`].
    #[must_use]
    pub fn relaxed(&self) -> Option<Relaxed> {
        (self.pace == Pace::Calm).then(Relaxed::begin)
    }

    /// Takes one thread out, to let it run on.
    pub fn take(&mut self, tid: i32) -> Option<Stopped> {
        let index = self.threads.iter().position(|t| t.tid() == tid)?;
        Some(self.threads.swap_remove(index))
    }

    /// Puts a thread back that was taken out.
    pub fn put(&mut self, thread: Stopped) {
        self.threads.push(thread);
    }
}

impl Drop for StoppedProcess {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Asks threads to stop.
fn interrupt(running: &[Running]) {
    for thread in running {
        // One that has ended says so when it is waited for.
        let _ = thread.interrupt();
    }
}

/// One look at the list of threads.
///
/// The kernel makes that list while threads come and go: behind one that ends just then it may leave out some
/// that live (`next_tid` in fs/proc/base.c). And one that is listed may have made another one and ended
/// before it could be seized.
struct Look {
    pid: i32,
    /// Those that were not held, seized.
    new: Vec<Running>,
    /// Those that have ended or are about to: they make no more threads.
    ending: Vec<i32>,
    /// How many were listed.
    listed: usize,
}

impl Look {
    /// Looks, and seizes whom nobody holds.
    fn at(pid: i32, held: &BTreeSet<i32>) -> Result<Self, StopError> {
        let mut list = thread_ids(pid).map_err(|_| StopError::Ended(pid))?;
        list.sort_by_key(|tid| *tid == pid);
        let mut look = Self { pid, new: Vec::new(), ending: Vec::new(), listed: list.len() };
        for tid in list.into_iter().filter(|tid| !held.contains(tid)) {
            match seize(tid)? {
                Some(running) => look.new.push(running),
                None => look.ending.push(tid),
            }
        }
        Ok(look)
    }

    /// Whether all threads but ending ones were held when it began. There are as many as were listed, at a
    /// time at which each of those was still there: those that are held cannot end, and the others are
    /// looked for afterwards.
    fn is_everybody(&self) -> bool {
        self.new.is_empty()
            && Status::of(self.pid).is_some_and(|s| s.threads == self.listed)
            && self.ending.iter().all(|tid| Status::of(*tid).is_some())
    }
}
