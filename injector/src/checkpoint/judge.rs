//! The verdict on one stopped thread: may the update commit while it stands here?
//!
//! Takes the thread's registers and stack; first the scan, and where that finds something, the
//! unwinding. Gives *free*, with the frames that wait at sites, or the frames that are in the way and
//! how to bring the thread out of them.

use super::blind::{BlindRanges, Point, Standing};
use super::guess;
use super::scan::{self, Scan};
use super::unwind::{self, Frame, Stack, Unwinder};
use crate::address::ProcAddr;
use crate::error::SysError;
use crate::ptrace::onward::{Goal, MAX_GOALS};
use crate::ptrace::stop::Event;
use crate::ptrace::sys::Registers;
use crate::ptrace::thread::Stopped;
use crate::target::maps::Maps;
use crate::target::memory::ProcessMemory;
use std::collections::BTreeMap;

/// What a system call gives that a signal has interrupted (include/linux/errno.h): it was waiting.
const RESTARTS: std::ops::RangeInclusive<i64> = -516..=-512;
/// Bytes of `syscall`: so far back a restarted call begins (arch/x86/kernel/signal.c).
const SYSCALL: u64 = 2;

/// A thread that must move before the update can commit.
#[derive(Debug, Clone, PartialEq)]
pub struct BlindThread {
    /// Thread id.
    pub tid: i32,
    /// Its blind frames, innermost first.
    pub points: Vec<Point>,
    /// Only the function that it runs in is in the way, and has sites: some steps may do.
    pub step: bool,
    /// Else: where the outermost blind frame goes on, or returns to; several where that is a guess.
    pub goals: Vec<Goal>,
    /// It was waiting in the kernel.
    pub waiting: bool,
    /// What people should know.
    pub note: String,
}

impl BlindThread {
    /// It can only be let run for a moment.
    pub fn forgo_traps(&mut self) {
        (self.step, self.goals) = (false, Vec::new());
    }
}

/// Judges threads of one stopped process.
pub struct Judge<'a> {
    /// Memory of the process.
    pub memory: &'a ProcessMemory,
    /// Where no thread may be, and where frames are carried over.
    pub blind: &'a BlindRanges,
    /// Tables, kept over attempts.
    pub unwinder: &'a mut Unwinder,
    /// Kept over threads.
    pub buffer: Vec<u8>,
    /// Threads may be made to trap.
    pub traps: bool,
    /// Functions of the frames that wait at sites, of threads that were found free. Found by the scan
    /// alone, a stale word may be among them.
    pub pending: BTreeMap<i32, Vec<u32>>,
}

/// All that is known of one thread.
struct Evidence {
    registers: Registers,
    /// How its program counter stands.
    top: Standing,
    scan: Scan,
    stack: Stack,
    /// Blind frames with their index.
    exact: Vec<(usize, Point)>,
}

impl Judge<'_> {
    /// `None` when the thread is free.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn verdict(
        &mut self,
        thread: &Stopped,
        maps: &Maps,
    ) -> Result<Option<BlindThread>, SysError> {
        let registers = thread.registers()?;
        let top = self.top(&registers);
        // Blind ranges and sites are in compiled functions.
        let from = (registers.rsp, top != Standing::Clear);
        let scan = scan::scan(self.memory, maps, self.blind, from, &mut self.buffer);
        self.pending.remove(&thread.tid());
        if top.blind().is_none() && scan.is_clean() {
            let found = top.site().into_iter().chain(scan.pending).collect();
            self.pending.insert(thread.tid(), found);
            return Ok(None);
        }
        let stack = self.unwinder.walk(self.memory, registers.rip, unwind::known(&registers));
        let standings = self.standings(top, &stack.frames);
        let blind = standings.iter().enumerate().filter_map(|(i, s)| Some((i, s.blind()?)));
        let exact: Vec<_> = blind.collect();
        if stack.complete && exact.is_empty() {
            let found = standings.iter().filter_map(|s| s.site()).collect();
            self.pending.insert(thread.tid(), found);
            return Ok(None);
        }
        let evidence = Evidence { registers, top, scan, stack, exact };
        Ok(Some(self.sentence(thread, maps, &evidence)))
    }

    /// A system call that is to be restarted begins before the program counter: then both count.
    fn top(&self, registers: &Registers) -> Standing {
        let here = self.blind.counter(registers.rip);
        if here.blind().is_some() || !is_restarted(registers) {
            return here;
        }
        match self.blind.counter(registers.rip.wrapping_sub(SYSCALL)) {
            Standing::Clear => here,
            again => again,
        }
    }

    fn standings(&self, top: Standing, frames: &[Frame]) -> Vec<Standing> {
        let standing = |(index, frame): (usize, &Frame)| match frame.interrupted {
            _ if index == 0 => top,
            true => self.blind.counter(frame.pc),
            false => self.blind.return_address(frame.pc),
        };
        frames.iter().enumerate().map(standing).collect()
    }

    fn sentence(&self, thread: &Stopped, maps: &Maps, evidence: &Evidence) -> BlindThread {
        let Evidence { registers, top, scan, stack, exact } = evidence;
        let mut blind = BlindThread {
            tid: thread.tid(),
            points: exact.iter().map(|(_, point)| *point).collect(),
            step: false,
            goals: self.goals(maps, evidence),
            waiting: is_waiting(registers),
            note: String::new(),
        };
        let alone = exact.len() == 1 && (stack.complete || scan.hits.is_empty());
        blind.step = alone && !blind.waiting && top.blind().is_some_and(|p| p.sited);
        if !stack.complete {
            let unsure = scan.hits.iter().map(|h| h.point).chain(scan.interrupted.iter().copied());
            for point in unsure {
                if !blind.points.contains(&point) {
                    blind.points.push(point);
                }
            }
            blind.note = scan.incomplete.unwrap_or("found by a scan of its stack").into();
        }
        if !self.traps {
            blind.forgo_traps();
        }
        if let Event::GroupStop(signal) = thread.event() {
            blind.note = format!("the process is stopped by signal {signal}");
        }
        blind
    }

    /// Where the thread is to run.
    fn goals(&self, maps: &Maps, evidence: &Evidence) -> Vec<Goal> {
        let Evidence { registers, scan, stack, exact, .. } = evidence;
        // Words beyond an incomplete walk may be outer frames; the verdict after the run will say so.
        let known = exact.last().map(|(index, point)| self.past(&stack.frames, *index, *point));
        match known {
            Some(goals) if !goals.is_empty() => goals,
            _ => self.guess(maps, registers.rsp, &scan.hits),
        }
    }

    /// Past the frame with this index: to where it goes on, when sites may follow there, and to its
    /// caller, when the walk came that far.
    fn past(&self, frames: &[Frame], index: usize, point: Point) -> Vec<Goal> {
        let mut goals = Vec::new();
        let frame = frames.get(index);
        let inner = index.checked_sub(1).and_then(|i| frames.get(i));
        if let (Some(frame), Some(inner), true) = (frame, inner, point.sited) {
            goals.push(Goal { at: ProcAddr(frame.pc), min_rsp: inner.cfa });
        }
        if let (Some(frame), Some(caller)) = (frame, frames.get(index + 1)) {
            goals.push(Goal { at: ProcAddr(caller.pc), min_rsp: frame.cfa });
        }
        if let (Some(frame), 0) = (frame, index) {
            // Only the function that it runs in: the caller, or a site if it comes to one first.
            let near = self.blind.sites_near(frame.pc);
            goals.extend(near.into_iter().map(|at| Goal { at, min_rsp: 0 }));
        }
        goals
    }

    /// The outermost blind word, and likely callers: above it, and above the stack pointer in case
    /// that word is a stale one.
    fn guess(&self, maps: &Maps, rsp: u64, hits: &[scan::Hit]) -> Vec<Goal> {
        let outermost = hits.iter().filter(|h| h.at.0 >= rsp).max_by_key(|h| h.at);
        let behind = outermost.map(|hit| hit.at.0 + 8);
        let callers = |from, most| guess::callers(self.memory, maps, self.blind, from, most);
        let itself = outermost.filter(|hit| hit.point.sited);
        let mut goals: Vec<Goal> =
            itself.map(|hit| Goal { at: hit.word, min_rsp: hit.at.0 + 8 }).into_iter().collect();
        goals.extend(callers(behind.unwrap_or(rsp), MAX_GOALS / 2));
        for goal in callers(rsp, MAX_GOALS) {
            if goals.len() < MAX_GOALS && !goals.contains(&goal) {
                goals.push(goal);
            }
        }
        goals
    }
}

fn is_restarted(registers: &Registers) -> bool {
    registers.orig_rax.cast_signed() >= 0 && RESTARTS.contains(&registers.rax.cast_signed())
}

/// Whether the thread was waiting in a system call when it was stopped.
fn is_waiting(registers: &Registers) -> bool {
    let interrupted = registers.rax.cast_signed() == -i64::from(libc::EINTR);
    is_restarted(registers) || registers.orig_rax.cast_signed() >= 0 && interrupted
}
