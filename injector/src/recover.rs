//! Putting right what a tool has left behind that was killed.
//!
//! Takes a process; stops it, and gives what was found and done:
//!
//! - a commit that was under way is undone from its journal; a span that nothing leads into is unmapped;
//! - a revert that was under way is completed from it;
//! - a thread that blocks more signals than it knows of gets its own mask back;
//! - breakpoints in debug registers, and the handler under traps, are taken away;
//! - a process that was held for a commit goes on.
//!
//! Each of these can be repeated, should this tool be killed in its turn. Refuses nothing: a process in which
//! there is nothing to do is as before.

use crate::address::ProcAddr;
use crate::error::{ApplyError, SysError};
use crate::ptrace::borrow::{Borrowed, Ground};
use crate::ptrace::footholds::Footholds;
use crate::ptrace::gate::Suspend;
use crate::ptrace::keeper::{self, Keeping};
use crate::ptrace::lifeline;
use crate::ptrace::onward::{Cause, MAX_GOALS, without_pending_trap};
use crate::ptrace::process::{StopError, StoppedProcess};
use crate::ptrace::sched::{Pace, Undisturbed};
use crate::ptrace::stop::Event;
use crate::ptrace::sys::{self, Resume};
use crate::ptrace::thread::{Stopped, WaitError};
use crate::ptrace::trapnet::TrapNet;
use crate::record::{self, Found, HELD_AT, NOTE_AT, STATE_AT, State};
use crate::target::lock::Lock;
use crate::target::maps::Maps;
use crate::target::memory::{ProcessMemory, ReadMemory};
use crate::target::process::{self, Status};
use nix::sys::signal::Signal;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long all threads are waited for, and how often.
const STOP_WITHIN: Duration = Duration::from_millis(500);
const STOP_TRIES: usize = 10;
/// A thread that was let go must be stopped again, whatever it does.
const MUST_STOP: Duration = Duration::from_secs(30);
/// The control register among the debug registers, and its bits that enable one.
const CONTROL: usize = 7;
const ENABLED: u64 = 0xff;
/// SIGTRAP's bit in the masks of `/proc/PID/status`.
const TRAP_BIT: u64 = 1 << (libc::SIGTRAP - 1);
const STOP_BIT: u64 = 1 << (libc::SIGSTOP - 1);
/// How long a borrowed thread may take for one call at a time, and how often.
const HEAL: Duration = Duration::from_micros(200);
const HEAL_TRIES: usize = 200;

/// What was found and put right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// In words, in the order in which it was done.
    pub done: Vec<String>,
    /// Who keeps the time-outs of calls that were under way.
    pub keeping: Keeping,
}

impl Recovered {
    /// For people.
    #[must_use]
    pub fn text(&self, pid: i32) -> String {
        let keeping = self.keeping.text();
        if self.done.is_empty() {
            return format!("process {pid}: nothing was left behind in it\n{keeping}");
        }
        let done = self.done.join("; ");
        format!("process {pid} put right after a tool was killed: {done}\n{keeping}")
    }
}

/// Whether something was left behind that records show. Nothing is stopped for the look.
#[must_use]
pub fn is_needed(records: &[Found]) -> bool {
    use State::{Committing, Prepared, Reverting};
    let left = |f: &Found| matches!(f.state, Prepared | Committing | Reverting);
    records.iter().any(|f| left(f) || f.held || f.note.is_some())
}

/// Puts a process right.
///
/// # Errors
/// It cannot be traced, or has ended meanwhile, or another tool is at work on it.
pub fn recover(pid: i32) -> Result<Recovered, ApplyError> {
    process::check(pid)?;
    let _lock = Lock::of(pid)?;
    recover_locked(pid).map_err(|cause| process::told_by_its_end(pid, cause))
}

/// As [`recover`], for whoever has the lock.
pub(crate) fn recover_locked(pid: i32) -> Result<Recovered, ApplyError> {
    process::check(pid)?;
    let memory = ProcessMemory::open(pid)?;
    let _undisturbed = Undisturbed::begin();
    let process = stop(pid).inspect_err(|_| _ = keeper::let_go(pid))?;
    let maps = Rc::new(Maps::of(pid)?);
    let footholds = Footholds::find(&memory, &maps).ok_or_else(|| {
        ApplyError::Unsuitable(format!("process {pid} has no syscall instruction in its code"))
    })?;
    let mut work = Work {
        held: is_held(&process),
        process,
        ground: Ground { memory: &memory, maps, footholds, suspend: Suspend::Mildly },
        done: Vec::new(),
    };
    let result = work.all();
    let Work { process, done, .. } = work;
    // Whatever happened, it does not stay stopped by this tool.
    let _ = process.release();
    let keeping = keeper::let_go(pid);
    result.map(|()| Recovered { done, keeping })
}

/// Whether the process is stopped by a signal, or is about to be: no thread has run since.
fn is_held(process: &StoppedProcess) -> bool {
    let takes =
        |t: &Stopped| matches!(t.event(), Event::GroupStop(_) | Event::Signal(libc::SIGSTOP));
    process.threads.iter().any(takes)
        || Status::of(process.pid).is_some_and(|s| (s.shared | s.pending) & STOP_BIT != 0)
}

fn stop(pid: i32) -> Result<StoppedProcess, StopError> {
    for _ in 1..STOP_TRIES {
        match StoppedProcess::stop(pid, STOP_WITHIN) {
            Err(StopError::Uninterruptible(_) | StopError::Restless(_)) => {}
            other => return other,
        }
    }
    StoppedProcess::stop(pid, STOP_WITHIN)
}

struct Work<'a> {
    process: StoppedProcess,
    ground: Ground<'a>,
    /// The process is stopped by a signal: no thread has run since the tool was killed.
    held: bool,
    done: Vec<String>,
}

impl Work<'_> {
    fn all(&mut self) -> Result<(), ApplyError> {
        self.let_borrowed_heal()?;
        let records = record::find_all(self.ground.memory, &self.ground.maps);
        let unused = self.put_back(&records)?;
        if self.held && records.iter().any(|f| f.held) {
            self.go_on()?;
        }
        self.clear_threads()?;
        for found in unused {
            self.unmap(found)?;
        }
        for found in records.iter().filter(|f| f.held && f.state == State::Applied) {
            self.ground.memory.write(found.at.offset(HELD_AT), &[0; 4])?;
        }
        Ok(())
    }

    /// Threads that the tool had borrowed still run its calls, and then save themselves: let them. One that
    /// is held for a commit has not begun one.
    fn let_borrowed_heal(&mut self) -> Result<(), ApplyError> {
        for _ in 0..HEAL_TRIES {
            let is_away =
                |t: &&Stopped| lifeline::is_on(t, self.ground.memory, &self.ground.footholds);
            let Some(tid) = self.process.threads.iter().find(is_away).map(Stopped::tid) else {
                break;
            };
            let Some(thread) = self.process.take(tid) else { break };
            let running = thread.resume(Resume::Freely).map_err(SysError::from)?;
            std::thread::sleep(HEAL);
            running.interrupt()?;
            self.process.put(running.wait(Instant::now() + MUST_STOP, Pace::Crowded)?);
        }
        self.ground.maps = Rc::new(Maps::of(self.process.pid)?);
        Ok(())
    }

    /// Ends the hold: the signal is taken away, and with it the stop.
    fn go_on(&mut self) -> Result<(), ApplyError> {
        let pid = self.process.pid;
        let takes = |t: &&Stopped| t.event() == Event::Signal(libc::SIGSTOP);
        while let Some(tid) = self.process.threads.iter().find(takes).map(Stopped::tid) {
            let Some(thread) = self.process.take(tid) else { break };
            self.process.put(thread.without_signal());
        }
        sys::send(pid, Signal::SIGCONT)
            .map_err(|e| SysError::new(format!("continue process {pid}"), e))?;
        self.done.push("it was held for a commit, and goes on".into());
        Ok(())
    }

    /// What counts most: memory and signal masks. Gives the spans that nothing leads into.
    fn put_back<'f>(&mut self, records: &'f [Found]) -> Result<Vec<&'f Found>, ApplyError> {
        let mut unused = Vec::new();
        for found in records {
            let under_way = matches!(found.state, State::Committing | State::Reverting);
            if under_way && !self.undo(found)? {
                continue;
            }
            if matches!(found.state, State::Prepared | State::Committing) {
                unused.push(found);
            }
        }
        for found in records {
            self.give_back_mask(found)?;
        }
        Ok(unused)
    }

    /// What makes threads trap, and what is under it.
    fn clear_threads(&mut self) -> Result<(), ApplyError> {
        self.clear_breakpoints()?;
        self.lead_out_of_traps()?;
        let caught = Status::of(self.process.pid).is_some_and(|s| s.caught & TRAP_BIT != 0);
        if caught && TrapNet::clear(&mut self.process, &self.ground)?.is_some() {
            self.done.push("handler under traps taken away".into());
        }
        Ok(())
    }

    /// Takes the writes of a commit back; says whether nothing can be inside its span.
    fn undo(&mut self, found: &Found) -> Result<bool, ApplyError> {
        let memory = self.ground.memory;
        let mut written = 0;
        for entry in record::journal(memory, found)?.iter().rev() {
            let now = memory.read_vec(entry.at, entry.old.len())?;
            if now != entry.old {
                memory.write(entry.at, &entry.old)?;
                written += 1;
            }
        }
        // What was being reverted has run.
        let unreached = found.state == State::Committing && (self.held || written == 0);
        let state = if unreached { State::Prepared } else { State::Undone };
        // Held until the end: it is what says that the process is to go on.
        memory.write(found.at.offset(STATE_AT), &state.words(found.held))?;
        self.done.push(format!(
            "the {} of {} was under way: {written} of its writes taken back",
            if found.state == State::Committing { "commit" } else { "revert" },
            short(&found.record.new_build_id)
        ));
        Ok(unreached)
    }

    fn give_back_mask(&mut self, found: &Found) -> Result<(), ApplyError> {
        let Some((tid, mask)) = found.note else { return Ok(()) };
        if let Some(thread) = self.process.threads.iter().find(|t| t.tid() == tid) {
            thread.give_back_signal_mask(mask)?;
            self.done.push(format!("signal mask of thread {tid} given back"));
        }
        self.ground.memory.write(found.at.offset(NOTE_AT), &[0; 4])?;
        Ok(())
    }

    /// Without a tracer, what is set there has been left behind.
    fn clear_breakpoints(&mut self) -> Result<(), ApplyError> {
        let mut threads = 0;
        for thread in &self.process.threads {
            if thread.debug_register(CONTROL)? & ENABLED != 0 {
                thread.clear_debug_register(CONTROL)?;
                (0..MAX_GOALS).try_for_each(|n| thread.clear_debug_register(n))?;
                threads += 1;
            }
        }
        if threads > 0 {
            self.done.push(format!("breakpoints of {threads} threads taken away"));
        }
        Ok(())
    }

    /// One that the death of the tool has left for a thread to take: without the net below it would end
    /// the process.
    fn lead_out_of_traps(&mut self) -> Result<(), ApplyError> {
        let tids: Vec<_> = self.process.threads.iter().map(Stopped::tid).collect();
        for tid in tids {
            let Some(thread) = self.process.take(tid) else { continue };
            match without_pending_trap(thread, Cause::Any, self.process.pace) {
                Ok(thread) => self.process.put(thread),
                Err(WaitError::Ended(_)) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn unmap(&mut self, found: &Found) -> Result<(), ApplyError> {
        let (start, len) = (ProcAddr(found.record.span_start), found.record.span_len);
        if !is_span(found) {
            return Ok(());
        }
        // One that is about to take a signal takes it first.
        let thread = self.process.take_idle().or_else(|| self.process.threads.pop());
        let Some(thread) = thread else { return Ok(()) };
        let thread = self.call_munmap(thread, start, len)?;
        self.process.put(thread);
        self.done.push(format!("{len} unused bytes at {start} unmapped"));
        Ok(())
    }

    fn call_munmap(
        &self,
        thread: Stopped,
        start: ProcAddr,
        len: u64,
    ) -> Result<Stopped, ApplyError> {
        let mut borrowed = Borrowed::new(thread, self.ground.clone(), self.process.pace)
            .map_err(WaitError::from)?;
        let result = borrowed.call(libc::SYS_munmap, [start.0, len, 0, 0, 0, 0]);
        let thread = borrowed.give_back()?;
        result?.map_err(|e| SysError::new(format!("unmap {len} bytes at {start}"), e))?;
        Ok(thread)
    }
}

/// Whether a record says of itself where it is: it is the first thing behind its guard page.
fn is_span(found: &Found) -> bool {
    let (start, len) = (found.record.span_start, found.record.span_len);
    found.at.0.checked_sub(start) == Some(crate::address::PAGE) && len > crate::address::PAGE
}

fn short(build_id: &str) -> &str {
    build_id.get(..12).unwrap_or(build_id)
}
