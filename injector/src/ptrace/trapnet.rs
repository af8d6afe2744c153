//! A net under the traps that this tool causes.
//!
//! Stepping and breakpoints stop a thread by a SIGTRAP that only the tracer sees. If the tool is killed
//! meanwhile, nobody takes that signal, and its default is to end the process. So while threads are moved
//! in these ways, the process has a handler for it: an address in the C library that holds a `ret`, which
//! leads on to `rt_sigreturn`. A trap that nobody takes is then a signal handler that does nothing; the
//! kernel keeps the trap flag out of what it restores, and passes a breakpoint by (the resume flag).
//!
//! A child that is forked meanwhile, by a thread that is moved, is a copy with that handler: it stands still from its birth,
//! and loses it before its first instruction. (One of vfork(2) loses it by executing another program.) If the
//! tool is killed before that, the child loses it with its next update.
//!
//! Takes a stopped process in which SIGTRAP has its default; sets the handler, and takes it away again. Where
//! no thread is to be had for it, there is no net: the tool's guardian is then what remains.

use super::borrow::{Borrowed, Ground, NotBorrowed};
use super::process::StoppedProcess;
use super::sched::Pace;
use super::stop::Event;
use super::thread::{Running, Stopped, WaitError, newborn_processes};
use crate::address::ProcAddr;
use crate::error::SysError;
use crate::target::maps::Maps;
use crate::target::memory::{ProcessMemory, ReadMemory};
use nix::errno::Errno;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// `struct sigaction` of the kernel: handler, flags, restorer, mask.
const ACTION: usize = 32;
/// `SA_RESTORER`, `SA_ONSTACK`, `SA_RESTART` and `SA_NODEFER` (uapi/asm/signal.h).
const FLAGS: u64 = 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x4000_0000;
/// Bytes of the kernel's signal set.
const SIGNAL_SET: u64 = 8;

type Action = [u8; ACTION];

/// A net that was put up.
#[derive(Debug)]
pub struct TrapNet {
    /// The thread that was borrowed for it: signals may have come to it.
    pub thread: i32,
    ours: Action,
    before: Action,
}

impl TrapNet {
    /// Puts it up. `None` where it cannot be had.
    ///
    /// # Errors
    /// The process has ended.
    pub fn put_up(
        process: &mut StoppedProcess,
        ground: &Ground<'_>,
    ) -> Result<Option<Self>, WaitError> {
        let (Some(ret), Some(sigreturn)) = (ground.footholds.ret, ground.footholds.sigreturn)
        else {
            return Ok(None);
        };
        let ours = action(ret, sigreturn);
        let before = exchange(process, ground, Some(&ours))?;
        Ok(before.map(|(thread, before)| Self { thread, ours, before }))
    }

    /// Takes it away; gives the thread that was borrowed for that. An action that the program has set
    /// meanwhile stays.
    ///
    /// # Errors
    /// The process has ended.
    pub fn take_down(
        self,
        process: &mut StoppedProcess,
        ground: &Ground<'_>,
    ) -> Result<Option<i32>, WaitError> {
        clear_children(process.pid, ground);
        let Some((thread, found)) = exchange_surely(process, ground, Some(&self.before))? else {
            return Ok(None);
        };
        if found != self.ours {
            exchange_surely(process, ground, Some(&found))?;
        }
        Ok(Some(thread))
    }

    /// Takes away a net that was left behind: by a tool that was killed, or in a child that was forked under
    /// it. Gives the thread that was borrowed for that. A handler of the program's own is only looked at.
    ///
    /// # Errors
    /// The process has ended.
    pub fn clear(
        process: &mut StoppedProcess,
        ground: &Ground<'_>,
    ) -> Result<Option<i32>, WaitError> {
        let Some((_, found)) = exchange(process, ground, None)? else { return Ok(None) };
        let word = |at: usize| {
            found.get(at..).and_then(|b| b.first_chunk::<8>()).map_or(0, |b| u64::from_le_bytes(*b))
        };
        let mut code = [0; 1];
        let nothing = ground.memory.read(ProcAddr(word(0)), &mut code).is_ok() && code == [RET];
        if !nothing || word(8) != FLAGS {
            return Ok(None);
        }
        let cleared = exchange_surely(process, ground, Some(&[0; ACTION]))?;
        Ok(cleared.map(|(thread, _)| thread))
    }
}

/// Takes the net away from children that were forked under it, and lets them go.
pub fn clear_children(pid: i32, ground: &Ground<'_>) {
    for child in newborn_processes(pid) {
        // One that has ended needs nothing.
        let _ = clear_child(child, ground);
    }
}

fn clear_child(child: i32, ground: &Ground<'_>) -> Result<(), WaitError> {
    let thread = Running::traced(child).wait(Instant::now() + BIRTH, Pace::Crowded)?;
    let memory = ProcessMemory::open(child)?;
    let ground = Ground { memory: &memory, maps: Rc::new(Maps::of(child)?), ..ground.clone() };
    let mut process = StoppedProcess::newborn(thread, Pace::Crowded);
    let cleared = TrapNet::clear(&mut process, &ground);
    let _ = process.release();
    cleared.map(drop)
}

/// How long a child is waited for that has just been made.
const BIRTH: Duration = Duration::from_millis(50);

/// `ret`.
const RET: u8 = 0xc3;

fn action(handler: ProcAddr, restorer: ProcAddr) -> Action {
    let mut action = [0; ACTION];
    let words = [handler.0, FLAGS, restorer.0, 0];
    for (place, word) in action.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    action
}

/// Tries of what must not be left undone.
const TRIES: usize = 3;

/// As [`exchange`], more than once if need be.
fn exchange_surely(
    process: &mut StoppedProcess,
    ground: &Ground<'_>,
    new: Option<&Action>,
) -> Result<Option<(i32, Action)>, WaitError> {
    for _ in 1..TRIES {
        match exchange(process, ground, new) {
            Ok(None) | Err(WaitError::System(_) | WaitError::TimedOut(_)) => {}
            done => return done,
        }
    }
    exchange(process, ground, new)
}

/// Sets the action of SIGTRAP, if there is a new one; gives the one before and the thread that was borrowed for it, or `None`
/// where that cannot be done.
fn exchange(
    process: &mut StoppedProcess,
    ground: &Ground<'_>,
    new: Option<&Action>,
) -> Result<Option<(i32, Action)>, WaitError> {
    let Some(thread) = process.take_idle() else { return Ok(None) };
    let tid = thread.tid();
    let mut borrowed = match Borrowed::new(thread, ground.clone(), process.pace) {
        Ok(borrowed) => borrowed,
        Err(NotBorrowed { thread, error }) => {
            thread.into_iter().for_each(|thread| process.put(thread));
            return Err(error);
        }
    };
    let result = exchange_in(&mut borrowed, ground, new);
    process.put(borrowed.give_back()?);
    Ok(result?.map(|before| (tid, before)))
}

fn exchange_in(
    borrowed: &mut Borrowed<'_>,
    ground: &Ground<'_>,
    new: Option<&Action>,
) -> Result<Option<Action>, WaitError> {
    if borrowed.scratch().is_none() {
        return Ok(None);
    }
    let trap = u64::from(libc::SIGTRAP.cast_unsigned());
    let arguments = |borrowed: &Borrowed<'_>| {
        let place = place(borrowed)?;
        if let Some(new) = new {
            ground.memory.write(place, new)?;
        }
        // rt_sigaction(2) only tells where no new action is given.
        let given = new.map_or(0, |_| place.0);
        Ok([trap, given, place.offset(ACTION as u64).0, SIGNAL_SET, 0, 0])
    };
    match borrowed.call_with(libc::SYS_rt_sigaction, arguments) {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Ok(None),
        // The handler of a signal that came first runs on another stack.
        Err(WaitError::System(e)) if e.errno == Errno::ENOSPC => return Ok(None),
        Err(e) => return Err(e),
    }
    let old = place(borrowed)?.offset(ACTION as u64);
    let mut before = [0; ACTION];
    ground.memory.read(old, &mut before)?;
    Ok(Some(before))
}

/// Where the new action is, with room for the one before behind it.
fn place(borrowed: &Borrowed<'_>) -> Result<ProcAddr, SysError> {
    let none = || SysError::new("find room on the stack of a borrowed thread", Errno::ENOSPC);
    borrowed.scratch().ok_or_else(none)
}

impl StoppedProcess {
    /// Takes out a thread that can be borrowed without moving it: at an interrupt stop, and in a system
    /// call if there is such a one.
    pub fn take_idle(&mut self) -> Option<Stopped> {
        let idle = |t: &&Stopped| matches!(t.event(), Event::Interrupted | Event::GroupStop(_));
        let in_call = |t: &&Stopped| t.registers().is_ok_and(|r| r.orig_rax.cast_signed() >= 0);
        let found = self.threads.iter().filter(idle).find(in_call);
        let tid = found.or_else(|| self.threads.iter().find(idle)).map(Stopped::tid)?;
        self.take(tid)
    }
}
