//! One thread goes on, instruction by instruction, until it is where it may be.
//!
//! Takes a stopped thread, a reader of the code that it runs, and a test of program counters; gives the
//! thread, stopped again, and whether it has arrived. Bounded in steps and in time. All other threads
//! stand still meanwhile, and nothing is written into the text: the processor's trap flag does it (SDM
//! volume 3, 18.3.1.4).
//!
//! The flag must not be seen by the program. The kernel keeps it out of signal frames and registers,
//! but not out of what instructions store: `pushf` and `syscall` (in `r11`) are not stepped over, nor
//! are instructions that load the flag or raise a trap of their own. A thread that comes to one of these
//! stays there, and runs on freely later.
//!
//! Signals from outside wait meanwhile: a program that gets one every 200 us would never come out of its
//! handlers. The thread blocks them, which nothing in it can see, as it enters no kernel; what it blocks by
//! itself is noted in the process first, for the case that this tool dies. One that it is about to take
//! when it comes here is delivered, and that is all: the handler is another place.
//!
//! The trap is a forced SIGTRAP, with the limits that [`super::onward`] describes.

use super::onward::{Cause, blocks_trap, is_trap, without_pending_trap};
use super::sched::Pace;
use super::stop::Event;
use super::sys::Resume;
use super::thread::{NotResumed, Stopped, WaitError};
use crate::error::SysError;
use std::time::{Duration, Instant};

/// Steps of one thread. A copy by `rep movs` takes one for each element.
const MOST_STEPS: usize = 3000;
/// One step that takes longer is a page fault that waits for a disk, or a processor that has others to
/// serve.
const LONGEST_STEP: Duration = Duration::from_millis(5);
/// A thread that was let go must be stopped again, whatever it does.
const MUST_STOP: Duration = Duration::from_secs(30);
/// The longest instruction (SDM volume 2, 2.3.11).
pub const LONGEST_INSTRUCTION: usize = 15;

/// How it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The program counter passes the test.
    There,
    /// The bounds are used up.
    Bound,
    /// The next instruction is not one to be stepped over, or the thread not one to be stepped.
    Hindered,
}

/// Steps a thread until `there` says so, `until` at the latest. `code` gives the bytes from an address
/// on. Without a `note`, signals do not wait.
///
/// # Errors
/// The thread has ended, or executed another program.
pub fn step(
    thread: Stopped,
    code: impl FnMut(u64) -> [u8; LONGEST_INSTRUCTION],
    there: impl Fn(u64) -> bool,
    until: Instant,
    note: Option<&dyn Note>,
) -> Result<(Stopped, End), WaitError> {
    if blocks_trap(thread.tid()) {
        return Ok((thread, End::Hindered));
    }
    if matches!(thread.event(), Event::Signal(_)) {
        let running = thread.resume_interrupted()?;
        return Ok((running.wait(Instant::now() + MUST_STOP, Pace::Crowded)?, End::Hindered));
    }
    let Some(note) = note else { return step_on(thread, code, there, until) };
    let hindered = |before| {
        let noted = note.write(thread.tid(), before);
        noted.and_then(|()| thread.set_signal_mask(before | OUTSIDE)).is_err()
    };
    let Ok(before) = thread.signal_mask() else { return Ok((thread, End::Hindered)) };
    if hindered(before) {
        note.clear()?;
        return Ok((thread, End::Hindered));
    }
    let stepped = step_on(thread, code, there, until);
    if let Ok((thread, _)) = &stepped {
        thread.give_back_signal_mask(before)?;
    }
    note.clear()?;
    stepped
}

/// Where is written, in the process, what a thread blocks by itself while it is made to block more.
pub trait Note {
    /// Writes it.
    ///
    /// # Errors
    /// The process has ended.
    fn write(&self, tid: i32, mask: u64) -> Result<(), SysError>;

    /// Takes it away.
    ///
    /// # Errors
    /// The process has ended.
    fn clear(&self) -> Result<(), SysError>;
}

/// All signals but those that an instruction of the thread itself may raise: blocking these would end it.
const OUTSIDE: u64 = {
    let own =
        [libc::SIGILL, libc::SIGTRAP, libc::SIGBUS, libc::SIGFPE, libc::SIGSEGV, libc::SIGSYS];
    let mut mask = u64::MAX;
    let mut index = 0;
    while index < own.len() {
        mask &= !(1 << (own[index] - 1));
        index += 1;
    }
    mask
};

fn step_on(
    mut thread: Stopped,
    mut code: impl FnMut(u64) -> [u8; LONGEST_INSTRUCTION],
    there: impl Fn(u64) -> bool,
    until: Instant,
) -> Result<(Stopped, End), WaitError> {
    for _ in 0..MOST_STEPS {
        let Ok(pc) = thread.program_counter() else { break };
        if there(pc) {
            return finish(thread, End::There);
        }
        if is_hindrance(&code(pc)) {
            return finish(thread, End::Hindered);
        }
        if Instant::now() >= until {
            break;
        }
        thread = match one_step(thread)? {
            Step::Done(thread) => thread,
            Step::Over(thread, end) => return finish(thread, end),
        };
    }
    finish(thread, End::Bound)
}

enum Step {
    /// One instruction, or the start of a signal handler; or a signal that the next step delivers.
    Done(Stopped),
    Over(Stopped, End),
}

fn one_step(thread: Stopped) -> Result<Step, WaitError> {
    let running = match thread.resume(Resume::Step) {
        Ok(running) => running,
        Err(NotResumed { thread, .. }) => return Ok(Step::Over(thread, End::Bound)),
    };
    let stopped = match running.wait_asleep(Instant::now() + LONGEST_STEP)? {
        Ok(stopped) => stopped,
        Err(running) => {
            // One that has ended says so when it is waited for.
            let _ = running.interrupt();
            let stopped = running.wait(Instant::now() + MUST_STOP, Pace::Crowded)?;
            return Ok(Step::Over(
                without_pending_trap(stopped, Cause::Step, Pace::Crowded)?,
                End::Bound,
            ));
        }
    };
    Ok(match stopped.event() {
        Event::Signal(_) if is_trap(&stopped, Cause::Step) => Step::Done(stopped.without_signal()),
        // A trap of its own must be taken where it was raised; a stop of the process ends everything.
        Event::Signal(libc::SIGTRAP) | Event::GroupStop(_) => Step::Over(stopped, End::Hindered),
        _ => Step::Done(stopped),
    })
}

/// Takes the trap flag away, which the kernel does when the thread goes on in another way: it goes on
/// only to be stopped at once. If this tool were to die, nothing would be left.
fn finish(thread: Stopped, end: End) -> Result<(Stopped, End), WaitError> {
    if matches!(thread.event(), Event::Signal(_) | Event::GroupStop(_)) {
        // It would take the signal; it goes on in another way when it does.
        return Ok((thread, end));
    }
    let running = thread.resume_interrupted()?;
    Ok((running.wait(Instant::now() + MUST_STOP, Pace::Crowded)?, end))
}

/// Whether an instruction is not to be stepped over (opcodes: SDM volume 2, appendix A): one that
/// stores or loads the flags, enters the kernel, or traps by itself.
fn is_hindrance(code: &[u8; LONGEST_INSTRUCTION]) -> bool {
    const PREFIXES: [u8; 11] = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
    let opcode = code.iter().position(|b| !PREFIXES.contains(b) && !matches!(b, 0x40..=0x4f));
    let Some((first, rest)) = opcode.and_then(|at| code[at..].split_first()) else { return true };
    match first {
        // pushf, popf; int3, int, int1; iret.
        0x9c | 0x9d | 0xcc | 0xcd | 0xf1 | 0xcf => true,
        // syscall, sysenter.
        0x0f => matches!(rest.first(), Some(0x05 | 0x34)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hindrances() {
        let is = |bytes: &[u8]| {
            let mut code = [0x90; LONGEST_INSTRUCTION];
            code[..bytes.len()].copy_from_slice(bytes);
            is_hindrance(&code)
        };
        assert!(is(&[0x9c]) && is(&[0x66, 0x9c]) && is(&[0x48, 0x9d]), "pushf, popf");
        assert!(is(&[0x0f, 0x05]) && is(&[0xcc]) && is(&[0xcd, 0x80]) && is(&[0x48, 0xcf]));
        assert!(is(&[0x66; LONGEST_INSTRUCTION]), "nothing but prefixes");
        assert!(!is(&[0x0f, 0x1f, 0x05]), "nop");
        assert!(!is(&[0xe8, 0x9c, 0x9c, 0x9c, 0x9c]), "call");
        assert!(!is(&[0xf3, 0xa4]) && !is(&[0x50]) && !is(&[0xc3]));
    }
}
