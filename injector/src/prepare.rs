//! Prepare: the shadow image gets its place while the process runs on. Nothing can reach it yet.
//!
//! Takes the target and the plan; borrows one thread for the remote calls that map the span, writes
//! the content from outside. Gives a [`Shadow`]; giving it up unmaps the span again. Pieces are mapped
//! with their final protection, never both writable and executable. Where the bundle was applied before,
//! the shadow image is that of then, if it can be ([`crate::again`]), and the span is for the record alone.

use crate::address::ProcAddr;
use crate::commit::layout::Piece;
use crate::error::{ApplyError, SysError};
use crate::options::{ApplyOptions, FailPoint};
use crate::prepared::{Prepared, encoding};
use crate::ptrace::borrow::{Borrowed, Ground};
use crate::ptrace::keep;
use crate::ptrace::process::{StopError, StoppedProcess, seize, thread_ids};
use crate::ptrace::sched::{Beside, Pace, Relaxed};
use crate::ptrace::thread::{Stopped, WaitError, let_go_within};
use crate::record::{self, retire};
use crate::target::maps::Maps;
use crate::target::process::Status;
use crate::target::{Target, still_there};
use dsu_patch_format::Bundle;
use dsu_patch_format::plan::Protection;
use nix::errno::Errno;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long one thread is waited for before another one is tried.
const STOP_WITHIN: Duration = Duration::from_millis(50);
/// How long all threads are waited for, where all must be stopped.
const STOP_ALL_WITHIN: Duration = Duration::from_millis(200);
/// How often.
const STOP_TRIES: usize = 5;
/// How often it is tried to unmap what is not needed, and how long it is waited in between.
const TIDY_TRIES: usize = 5;
const TIDY_PAUSE: Duration = Duration::from_millis(20);
/// Threads tried.
const MAX_CANDIDATES: usize = 8;
/// Places tried when the process maps something there first.
const MAX_PLACES: usize = 4;

/// A span that is mapped in the process. Not undone by being dropped: see [`Shadow::unmap`].
#[derive(Debug)]
pub struct Shadow {
    /// What was prepared.
    pub prepared: Prepared,
    /// Where the journal of the record is.
    pub journal: ProcAddr,
    /// How long the whole process stood still for it.
    pub pause: Duration,
}

impl Shadow {
    /// Maps and writes the shadow image.
    ///
    /// # Errors
    /// What failed; the span is unmapped again.
    pub fn map(
        target: &Target,
        bundle: &Bundle,
        digest: &str,
        options: &ApplyOptions,
    ) -> Result<Self, ApplyError> {
        for _ in 0..MAX_PLACES {
            let prepared = Prepared::compute(target, bundle, digest, options)?;
            match map_span(target, &prepared, options) {
                Ok(pause) => return Self::fill(target, bundle, prepared, options, pause),
                // The process has mapped something there meanwhile.
                Err(MapError::Taken) => {}
                Err(MapError::Other(e)) => return Err(e),
            }
        }
        Err(ApplyError::Unsuitable(format!(
            "process {} keeps mapping memory where the update should go: try again",
            target.pid
        )))
    }

    fn fill(
        target: &Target,
        bundle: &Bundle,
        prepared: Prepared,
        options: &ApplyOptions,
        pause: Duration,
    ) -> Result<Self, ApplyError> {
        let record = prepared.layout.record(prepared.span);
        let offset = prepared.record.journal_offset().map_err(encoding)? as u64;
        let shadow = Self { prepared, journal: record.offset(offset), pause };
        match shadow.write_content(target, bundle, options) {
            Ok(()) => Ok(shadow),
            Err(e) => Err(shadow.unmap_after(target, e)),
        }
    }

    fn write_content(
        &self,
        target: &Target,
        bundle: &Bundle,
        options: &ApplyOptions,
    ) -> Result<(), ApplyError> {
        options.pass(FailPoint::Mapped)?;
        if self.prepared.again.is_some() {
            return options.pass(FailPoint::Prepared);
        }
        for (segment, bytes) in bundle.plan.segments.iter().zip(&self.prepared.segments) {
            target.memory.write(self.prepared.bias.apply(segment.start.0), bytes)?;
        }
        options.pass(FailPoint::Prepared)
    }

    /// Unmaps the span and gives back the error for which it was given up. Where that cannot be done, for now, the error
    /// says so.
    #[must_use]
    pub fn unmap_after(self, target: &Target, cause: ApplyError) -> ApplyError {
        unmapped_after(target, self.prepared.span, self.prepared.layout.len, cause)
    }
}

/// See [`Shadow::unmap_after`].
fn unmapped_after(target: &Target, start: ProcAddr, len: u64, cause: ApplyError) -> ApplyError {
    // Whoever says so may have seen no more than a read that failed.
    let gone = || still_there(target.pid, &target.memory, target.image.base).is_err();
    if matches!(cause, ApplyError::Died(_)) && gone() {
        return cause;
    }
    match unmap_surely(target, start, len) {
        None => cause,
        Some(left) => ApplyError::Untidy { cause: Box::new(cause), left },
    }
}

/// Unmaps memory that nothing uses, tried again where no thread can be stopped; says what is left.
fn unmap_surely(target: &Target, start: ProcAddr, len: u64) -> Option<String> {
    let mut tries = 1..=TIDY_TRIES;
    loop {
        let unmapped = borrow(target).and_then(|mut loan| {
            loan.call(libc::SYS_munmap, [start.0, len, 0, 0, 0, 0])?;
            loan.end()
        });
        match unmapped {
            Ok(_) | Err(ApplyError::Died(_)) => return None,
            // It may have failed behind the call.
            Err(_) if Maps::of(target.pid).is_ok_and(|maps| maps.find(start).is_none()) => {
                return None;
            }
            Err(e) if tries.next().is_none() => {
                return Some(format!("{len} unused bytes at {start} stay mapped ({e})"));
            }
            Err(_) => std::thread::sleep(TIDY_PAUSE),
        }
    }
}

/// Unmaps the records of the target's image that nothing needs any more.
///
/// # Errors
/// No thread could be borrowed for it; they stay.
pub fn retire(target: &Target) -> Result<(), ApplyError> {
    let records = record::find_all(&target.memory, &Maps::of(target.pid)?);
    let of_image: Vec<_> =
        records.iter().filter(|f| f.record.image_bias == target.image.bias).collect();
    let needless = retire::needless(&of_image);
    if needless.is_empty() {
        return Ok(());
    }
    let mut loan = borrow(target)?;
    let unmapped = needless.iter().try_for_each(|part| {
        loan.call(libc::SYS_munmap, [part.start, part.len, 0, 0, 0, 0]).map(drop)
    });
    loan.end()?;
    unmapped
}

enum MapError {
    Taken,
    Other(ApplyError),
}

impl<E: Into<ApplyError>> From<E> for MapError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Reserves the span and gives its pieces their protections.
fn map_span(
    target: &Target,
    prepared: &Prepared,
    options: &ApplyOptions,
) -> Result<Duration, MapError> {
    let mut loan = borrow(target)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let span = prepared.span;
    let reserve = flags | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE;
    let arguments = map_arguments(span, prepared.layout.len, libc::PROT_NONE, reserve);
    match loan.thread.call(libc::SYS_mmap, arguments)? {
        Ok(at) if at == span.0 => {}
        // Kernels before 4.17 do not know the flag and put it elsewhere.
        Ok(at) => {
            loan.call(libc::SYS_munmap, [at, prepared.layout.len, 0, 0, 0, 0])?;
            return Err(MapError::Taken);
        }
        Err(Errno::EEXIST) => return Err(MapError::Taken),
        Err(e) => return Err(refused("mmap", prepared.layout.len, target.pid, e).into()),
    }
    let pieces = map_pieces(&mut loan.thread, target, prepared, options);
    let len = prepared.layout.len;
    let unmapped =
        pieces.is_err() && loan.call(libc::SYS_munmap, [span.0, len, 0, 0, 0, 0]).is_ok();
    let ended = loan.end();
    let cause = match (pieces, ended) {
        (Ok(()), Ok(pause)) => return Ok(pause),
        (Err(cause), _) | (Ok(()), Err(cause)) => cause,
    };
    Err(if unmapped { cause } else { unmapped_after(target, span, len, cause) }.into())
}

/// Maps the pieces, the one of the record first: with its record a span can be found by whoever comes next,
/// should this tool be killed. Until then it is a reservation that takes no memory.
fn map_pieces(
    thread: &mut Borrowed<'_>,
    target: &Target,
    prepared: &Prepared,
    options: &ApplyOptions,
) -> Result<(), ApplyError> {
    for (index, piece) in prepared.layout.pieces.iter().enumerate() {
        map_piece(thread, prepared.span, piece, target.pid)?;
        if index == 0 {
            let bytes = prepared.record.encode(prepared.commit.journal_len());
            let record = prepared.layout.record(prepared.span);
            target.memory.write(record, &bytes.map_err(encoding)?)?;
            options.pass(FailPoint::Reserved)?;
        }
    }
    Ok(())
}

fn map_piece(
    thread: &mut Borrowed<'_>,
    span: ProcAddr,
    piece: &Piece,
    pid: i32,
) -> Result<(), ApplyError> {
    let protection = match piece.protection {
        Protection::Text => libc::PROT_READ | libc::PROT_EXEC,
        Protection::ReadOnly => libc::PROT_READ,
        Protection::Data => libc::PROT_READ | libc::PROT_WRITE,
    };
    // Mapped anew, not mprotect'ed: systems that forbid making memory executable allow this.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let arguments = map_arguments(span.offset(piece.offset), piece.len, protection, flags);
    match thread.call(libc::SYS_mmap, arguments)? {
        Ok(_) => Ok(()),
        Err(e) => Err(refused("mmap", piece.len, pid, e)),
    }
}

fn map_arguments(at: ProcAddr, len: u64, protection: i32, flags: i32) -> [u64; 6] {
    let number = |n: i32| u64::from(n.cast_unsigned());
    [at.0, len, number(protection), number(flags), u64::MAX, 0]
}

fn refused(call: &str, len: u64, pid: i32, errno: Errno) -> ApplyError {
    ApplyError::Unsuitable(format!(
        "{call} of {len} bytes in process {pid}: {errno}; the process is out of memory or address \
         space, or forbidden to map code"
    ))
}

/// A thread for remote calls, and what goes with it.
struct Loan<'a> {
    thread: Borrowed<'a>,
    /// Ends before the others go on: fields are dropped in this order.
    relaxed: Option<Relaxed>,
    /// The others, where they had to be stopped.
    others: Option<StoppedProcess>,
    _beside: Beside,
}

impl Loan<'_> {
    /// Runs one system call, which must succeed.
    fn call(&mut self, number: i64, arguments: [u64; 6]) -> Result<u64, ApplyError> {
        Ok(self
            .thread
            .call(number, arguments)?
            .map_err(|e| SysError::new(format!("remote system call {number}"), e))?)
    }

    /// Everything goes on; gives how long the whole process stood still, which is zero where one
    /// thread alone was stopped.
    fn end(self) -> Result<Duration, ApplyError> {
        let thread = self.thread.give_back()?;
        drop(self.relaxed);
        Ok(match self.others {
            None => {
                thread.detach();
                // It may have made one before it stopped.
                let_go_within(STOP_WITHIN);
                Duration::ZERO
            }
            Some(mut process) => {
                process.put(thread);
                process.release()
            }
        })
    }
}

/// Stops a thread and borrows it. Each step of a remote call needs that thread to run: where more
/// wants to run than there are processors it would wait for all others each time, so these are stopped
/// meanwhile; that takes well under a millisecond.
fn borrow(target: &Target) -> Result<Loan<'_>, ApplyError> {
    let ground = Ground {
        memory: &target.memory,
        maps: Rc::new(Maps::of(target.pid)?),
        footholds: target.footholds,
        suspend: target.permit.suspend,
    };
    let pace = Pace::now();
    if pace == Pace::Calm {
        return borrow_one(target, ground, pace);
    }
    let mut process = match stop_all(target.pid) {
        Ok(process) => process,
        // One late thread is no reason: any other one will do, only slower.
        Err(StopError::Uninterruptible(_) | StopError::Restless(_)) => {
            return borrow_one(target, ground, pace);
        }
        Err(e) => return Err(e.into()),
    };
    still_there(target.pid, &target.memory, target.image.base)?;
    let lends = |t: &&Stopped| target.permit.lends(t.tid());
    let idle = process.threads.iter().filter(lends).find(|t| in_call(t));
    let tid = idle.or_else(|| process.threads.iter().find(lends)).or(process.threads.first());
    let thread = tid.map(Stopped::tid).and_then(|tid| process.take(tid));
    let thread = thread.ok_or_else(|| ended(target))?;
    let _beside = Beside::thread(target.pid, thread.tid());
    let relaxed = process.relaxed();
    let thread = Borrowed::new(thread, ground, process.pace).map_err(WaitError::from)?;
    Ok(Loan { thread, relaxed, others: Some(process), _beside })
}

/// Stops all threads. On a crowded machine some may not get a turn in time to do so.
fn stop_all(pid: i32) -> Result<StoppedProcess, StopError> {
    for _ in 1..STOP_TRIES {
        match StoppedProcess::stop(pid, STOP_ALL_WITHIN) {
            Err(StopError::Uninterruptible(_) | StopError::Restless(_)) => {}
            other => return other,
        }
    }
    StoppedProcess::stop(pid, STOP_ALL_WITHIN)
}

fn ended(target: &Target) -> ApplyError {
    ApplyError::Died(format!("process {} has ended", target.pid))
}

/// Whether a thread was in a system call when it was stopped.
fn in_call(thread: &Stopped) -> bool {
    thread.registers().is_ok_and(|r| r.orig_rax.cast_signed() >= 0)
}

/// Stops one thread and borrows it: one that waits in the kernel when there is one, because it is
/// in no restartable sequence (rseq(2)) that remote calls would break.
fn borrow_one<'a>(
    target: &'a Target,
    ground: Ground<'a>,
    pace: Pace,
) -> Result<Loan<'a>, ApplyError> {
    let mut last = None;
    let mut ids = thread_ids(target.pid).map_err(|_| ended(target))?;
    ids.retain(|tid| target.permit.lends(*tid));
    ids.truncate(MAX_CANDIDATES);
    // Alone, the first thread is not to be traced where another one will do: see `ptrace::process`.
    let asleep = |tid: i32| Status::of(tid).is_some_and(|status| status.state == 'S');
    ids.sort_by_cached_key(|tid| (!asleep(*tid), *tid == target.pid));
    let tried = ids.len();
    let within = if pace == Pace::Calm { STOP_WITHIN } else { STOP_ALL_WITHIN };
    for (index, tid) in ids.into_iter().enumerate() {
        let _beside = Beside::thread(target.pid, tid);
        let running = match seize(tid) {
            Ok(Some(running)) => running,
            Ok(None) => continue,
            Err(StopError::Uninterruptible(tid)) => {
                last = Some(WaitError::TimedOut(tid));
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        keep::note(tid);
        if running.interrupt().is_err() {
            continue;
        }
        let thread: Stopped = match running.wait(Instant::now() + within, pace) {
            Ok(thread) => thread,
            Err(WaitError::Executed(_)) => return Err(WaitError::Executed(tid).into()),
            Err(e) => {
                last = Some(e);
                continue;
            }
        };
        still_there(target.pid, &target.memory, target.image.base)?;
        if in_call(&thread) || index + 1 == tried {
            let thread = Borrowed::new(thread, ground, pace).map_err(WaitError::from)?;
            return Ok(Loan { thread, relaxed: None, others: None, _beside });
        }
    }
    Err(match last {
        Some(WaitError::TimedOut(tid)) => ApplyError::Unsuitable(format!(
            "process {} has no thread that can be stopped: thread {tid} is in an uninterruptible \
             system call, or frozen",
            target.pid
        )),
        Some(e) => e.into(),
        None => ended(target),
    })
}
