//! The verdict on one stopped thread: may the update commit while it stands here?
//!
//! Takes the thread's registers and stack; first the scan, and where that finds something, the
//! unwinding. Gives *free*, or the frames that are in the way and how to bring the thread out of
//! them.

use super::blind::{BlindRanges, Point};
use super::guess;
use super::scan;
use super::unwind::{self, Frame, Unwinder};
use crate::address::ProcAddr;
use crate::error::SysError;
use crate::ptrace::onward::{Goal, MAX_GOALS};
use crate::ptrace::stop::Event;
use crate::ptrace::sys::Registers;
use crate::ptrace::thread::Stopped;
use crate::target::maps::Maps;
use crate::target::memory::ProcessMemory;

/// What a system call gives that a signal has interrupted (include/linux/errno.h): it was waiting.
const RESTARTS: std::ops::RangeInclusive<i64> = -516..=-512;

/// A thread that must move before the update can commit.
#[derive(Debug, Clone, PartialEq)]
pub struct BlindThread {
    /// Thread id.
    pub tid: i32,
    /// Its blind frames, innermost first.
    pub points: Vec<Point>,
    /// Where the outermost of them returns to; several where that is a guess.
    pub goals: Vec<Goal>,
    /// It was waiting in the kernel.
    pub waiting: bool,
    /// What people should know.
    pub note: String,
}

/// Judges threads of one stopped process.
pub struct Judge<'a> {
    /// Memory of the process.
    pub memory: &'a ProcessMemory,
    /// Where no thread may be.
    pub blind: &'a BlindRanges,
    /// Tables, kept over attempts.
    pub unwinder: &'a mut Unwinder,
    /// Kept over threads.
    pub buffer: Vec<u8>,
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
        let top = self.blind.counter(registers.rip);
        let scan = scan::scan(self.memory, maps, self.blind, registers.rsp, &mut self.buffer);
        if top.is_none() && scan.is_clean() {
            return Ok(None);
        }
        let stack = self.unwinder.walk(self.memory, registers.rip, unwind::known(&registers));
        let exact = self.exact(&stack.frames);
        if stack.complete && exact.is_empty() {
            return Ok(None);
        }
        let mut blind = BlindThread {
            tid: thread.tid(),
            points: exact.iter().map(|(_, point)| *point).collect(),
            goals: Vec::new(),
            waiting: is_waiting(&registers),
            note: String::new(),
        };
        // The caller of the outermost blind frame, when the walk came that far; words beyond an
        // incomplete walk may be outer ones, and the verdict after the run will say so.
        let outermost = exact.last().map_or(usize::MAX - 1, |(index, _)| *index);
        if let (Some(frame), Some(caller)) =
            (stack.frames.get(outermost), stack.frames.get(outermost + 1))
        {
            blind.goals = vec![Goal { at: ProcAddr(caller.pc), min_rsp: frame.cfa }];
        } else {
            blind.goals = self.guess(maps, registers.rsp, &scan.hits);
        }
        if !stack.complete {
            let unsure = scan.hits.iter().map(|h| h.point).chain(scan.interrupted.iter().copied());
            for point in unsure {
                if !blind.points.contains(&point) {
                    blind.points.push(point);
                }
            }
            blind.note = scan.incomplete.unwrap_or("found by a scan of its stack").into();
        }
        if let Event::GroupStop(signal) = thread.event() {
            blind.note = format!("the process is stopped by signal {signal}");
        }
        Ok(Some(blind))
    }

    /// Likely callers of blind frames: above the outermost blind word, and above the stack pointer in
    /// case that word is a stale one.
    fn guess(&self, maps: &Maps, rsp: u64, hits: &[scan::Hit]) -> Vec<Goal> {
        let outermost = hits.iter().map(|h| h.at.0 + 8).filter(|at| *at > rsp).max();
        let callers = |from, most| guess::callers(self.memory, maps, self.blind, from, most);
        let mut goals = callers(outermost.unwrap_or(rsp), MAX_GOALS / 2);
        for goal in callers(rsp, MAX_GOALS) {
            if goals.len() < MAX_GOALS && !goals.contains(&goal) {
                goals.push(goal);
            }
        }
        goals
    }

    /// Blind frames with their index.
    fn exact(&self, frames: &[Frame]) -> Vec<(usize, Point)> {
        let point = |frame: &Frame| {
            if frame.interrupted {
                self.blind.counter(frame.pc)
            } else {
                self.blind.return_address(frame.pc)
            }
        };
        frames.iter().enumerate().filter_map(|(i, f)| Some((i, point(f)?))).collect()
    }
}

/// Whether the thread was waiting in a system call when it was stopped.
fn is_waiting(registers: &Registers) -> bool {
    let result = registers.rax.cast_signed();
    registers.orig_rax.cast_signed() >= 0
        && (RESTARTS.contains(&result) || result == -i64::from(libc::EINTR))
}
