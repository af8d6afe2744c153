//! Time-outs that the kernel forgets when a stop ends the call that has them (see [`super::restart`]).
//!
//! Such a call begins anew behind the stop, with its whole time-out. So a thread that would wait too long is
//! not let go of with the others: it stays traced, though it runs, until the call ends by itself, and then is
//! let go; or until the time-out comes that it had before, and then it is stopped once more and given what the
//! call gives then. All that is ever written is that one result. If the tool dies meanwhile, the time-out
//! comes late.
//!
//! A thread that is traced is also woken by signals that it ignores (`sig_ignored` in kernel/signal.c): they do not
//! end its call, as they would not without a tracer.
//!
//! Takes threads before they are stopped ([`note`]), when they have been ([`stopped`]), and when they are let
//! go ([`keep`]); gives them to [`attend`], which is to be called as often as may be, or to another process
//! ([`super::keeper`]). Which waits are kept is said by [`set_reach`].

use super::restart;
use super::stop::Event;
use super::sys::{self, Resume};
use crate::target::process::Status;
use crate::target::waiting::Wait;
use nix::errno::Errno;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Where this process stays for them itself, longer waits begin anew, and are late by as much as they had lasted.
pub const MOST: Duration = Duration::from_secs(2);
/// Bytes of `syscall`.
const SYSCALL: u64 = 2;
/// Threads are looked at this often, should the signal get lost that says that one has stopped.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// How long a thread is waited for that is on its way back into its call.
const ENTER: Duration = Duration::from_millis(5);
const ENTER_LOOK: Duration = Duration::from_micros(20);
/// A thread that was asked to stop is looked at after this time in any case.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A thread on its way through a call.
#[derive(Debug, Clone, Copy)]
struct Kept {
    wait: Wait,
    /// It has entered the call.
    entered: bool,
    /// Its time has come, and it was asked to stop.
    asked: bool,
}

/// Which waits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those that end within [`MOST`].
    Short,
    /// All: there is somebody to hand them to.
    All,
}

thread_local! {
    static REACH: Cell<Reach> = const { Cell::new(Reach::Short) };
    /// Threads whose time-outs come late.
    static LATE: RefCell<BTreeSet<i32>> = const { RefCell::new(BTreeSet::new()) };
    /// How many more there are, of which others have told.
    static MORE_LATE: Cell<usize> = const { Cell::new(0) };
    /// What threads were seen waiting in, before they were asked to stop.
    static NOTED: RefCell<BTreeMap<i32, Wait>> = const { RefCell::new(BTreeMap::new()) };
    /// What stopped threads were waiting in, and wait in again when they go on.
    static WAITS: RefCell<BTreeMap<i32, Wait>> = const { RefCell::new(BTreeMap::new()) };
    /// Threads that run, traced.
    static KEPT: RefCell<BTreeMap<i32, Kept>> = const { RefCell::new(BTreeMap::new()) };
}

/// Says which waits are kept from now on; gives which ones were.
pub fn set_reach(reach: Reach) -> Reach {
    REACH.replace(reach)
}

/// Which waits are kept.
#[must_use]
pub fn reach() -> Reach {
    REACH.get()
}

/// How many time-outs come late since this was asked last.
pub(super) fn take_late() -> usize {
    LATE.take().len() + MORE_LATE.take()
}

/// So many more time-outs come late.
pub(super) fn are_late(number: usize) {
    MORE_LATE.set(MORE_LATE.get() + number);
}

/// The time-out of a thread comes late.
pub(super) fn is_late(tid: i32) {
    LATE.with_borrow_mut(|late| late.insert(tid));
}

/// Notes what a thread waits in that is about to be asked to stop.
pub fn note(tid: i32) {
    if KEPT.with_borrow(|kept| kept.contains_key(&tid)) {
        return;
    }
    let wait = Wait::of(tid);
    NOTED.with_borrow_mut(|noted| match wait {
        Some(wait) => drop(noted.insert(tid, wait)),
        None => drop(noted.remove(&tid)),
    });
}

/// Whether a thread is kept: stops of its calls are no stops that somebody waits for.
#[must_use]
pub(super) fn is_kept(tid: i32) -> bool {
    KEPT.with_borrow(|kept| kept.contains_key(&tid))
}

/// A thread has stopped for another reason than that it is kept. Gives what it was kept for.
pub(super) fn stopped(tid: i32) -> Option<Wait> {
    KEPT.with_borrow_mut(|kept| kept.remove(&tid)).map(|kept| kept.wait)
}

/// A kept thread has stopped, and does not wait: on its way back into its call, if the stop came so soon, it is to be
/// kept on.
pub(super) fn stopped_on_the_way(tid: i32, registers: &sys::Registers, wait: Wait) {
    if is_on_the_way(&wait, registers) {
        WAITS.with_borrow_mut(|waits| waits.insert(tid, wait));
    }
}

/// What `rax` is to be of a thread whose call the stop has ended: the call begins anew, or its time is over.
pub(super) fn result(tid: i32, registers: &sys::Registers, kept: Option<Wait>) -> Option<u64> {
    // Of a wait that has ended since; a thread that was borrowed meanwhile still has it.
    WAITS.with_borrow_mut(|waits| waits.remove(&tid));
    let again = restart::again(registers.rax, registers.orig_rax.cast_signed())?;
    let noted = NOTED.with_borrow_mut(|noted| noted.remove(&tid));
    let noted = noted.filter(|wait| wait.was_interrupted(tid));
    let Some(wait) = kept.or(noted).filter(|wait| is_in(wait, registers)) else {
        return Some(again);
    };
    if Instant::now() >= wait.until {
        return Some(wait.result);
    }
    WAITS.with_borrow_mut(|waits| waits.insert(tid, wait));
    Some(again)
}

fn is_in(wait: &Wait, registers: &sys::Registers) -> bool {
    let frame = wait.frame;
    let call = registers.orig_rax.cast_signed();
    (frame.call, frame.stack, frame.at) == (call, registers.rsp, registers.rip)
}

/// Whether it begins that call anew when it goes on.
fn is_on_the_way(wait: &Wait, registers: &sys::Registers) -> bool {
    registers.rax == restart::AGAIN && is_in(wait, registers) || is_before(wait, registers)
}

/// Whether it is about to execute that call. The number of the one that was ended may still be there.
fn is_before(wait: &Wait, registers: &sys::Registers) -> bool {
    let frame = wait.frame;
    let at = (registers.rax.cast_signed(), registers.rsp, registers.rip.wrapping_add(SYSCALL));
    let none_else = [-1, frame.call].contains(&registers.orig_rax.cast_signed());
    none_else && at == (frame.call, frame.stack, frame.at)
}

/// To be asked when a stopped thread would be let go: whether it is kept instead, and runs already.
pub(super) fn keep(tid: i32, event: Event) -> bool {
    let Some(wait) = WAITS.with_borrow_mut(|waits| waits.remove(&tid)) else { return false };
    let waits = || sys::registers(tid).is_ok_and(|registers| is_on_the_way(&wait, &registers));
    if !(event == Event::Interrupted || is_nothing(tid, event)) || !waits() {
        return false;
    }
    let short = wait.until.saturating_duration_since(Instant::now()) <= MOST;
    if REACH.get() == Reach::Short && !short || sys::resume(tid, Resume::ToSystemCall, 0).is_err() {
        is_late(tid);
        return false;
    }
    let kept = Kept { wait, entered: false, asked: false };
    KEPT.with_borrow_mut(|all| all.insert(tid, kept));
    true
}

/// Whether a stop is for a signal that the thread would never have seen: its process ignores it.
pub(super) fn is_nothing(tid: i32, event: Event) -> bool {
    /// Their default is to be ignored (signal(7)).
    const SILENT: [i32; 4] = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    let Event::Signal(signal) = event else { return false };
    if signal == libc::SIGTRAP {
        // Of breakpoints and steps, which are many.
        return false;
    }
    let is_in = |mask: u64| mask >> (signal - 1) & 1 == 1;
    Status::of(tid).is_some_and(|status| {
        is_in(status.ignored) || SILENT.contains(&signal) && !is_in(status.caught)
    })
}

/// Whether a stop is that of the whole process, or for a signal that stops it.
pub(super) fn is_stop(event: Event) -> bool {
    use libc::{SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    matches!(event, Event::GroupStop(_) | Event::Signal(SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU))
}

/// All kept threads, with what they wait in.
#[must_use]
pub fn kept() -> Vec<(i32, Wait)> {
    KEPT.with_borrow(|kept| kept.iter().map(|(tid, one)| (*tid, one.wait)).collect())
}

/// What a stopped thread waits in, which is not kept any more.
pub(super) fn take(tid: i32) -> Option<Wait> {
    WAITS.with_borrow_mut(|waits| waits.remove(&tid))
}

/// What a stopped thread waits in when it goes on.
pub(super) fn put(tid: i32, wait: Wait) {
    WAITS.with_borrow_mut(|waits| waits.insert(tid, wait));
}

/// Forgets all threads: in a copy of the process that traces them, which does not.
pub(super) fn forget_all() {
    KEPT.take();
    NOTED.take();
    WAITS.take();
    take_late();
}

/// Leads the kept threads back into their calls, which takes microseconds.
pub fn enter() {
    let until = Instant::now() + ENTER;
    while KEPT.with_borrow(|kept| kept.values().any(|one| !one.entered)) {
        look_at_all();
        if Instant::now() >= until {
            return;
        }
        // Where many want to run, these are among them.
        sys::sleep_until_child(ENTER_LOOK);
    }
}

/// Attends to the kept threads until then, or until there are none. Needs SIGCHLD to be blocked.
pub fn attend(until: Instant) {
    loop {
        look_at_all();
        let now = Instant::now();
        if KEPT.with_borrow(BTreeMap::is_empty) || now >= until {
            return;
        }
        // One that was asked already needs a processor to stop, which may be this one.
        let waits = |one: &Kept| (!one.asked).then_some(one.wait.until);
        let next = KEPT.with_borrow(|kept| kept.values().filter_map(waits).min());
        let most = next.map_or(LOOK_EVERY, |next| next.saturating_duration_since(now));
        let most = most.min(until.saturating_duration_since(now)).min(LOOK_EVERY);
        sys::sleep_until_child(most.max(Duration::from_micros(1)));
    }
}

/// As [`attend`], until there are none; or for as long as short waits last.
pub fn attend_to_all() {
    attend(Instant::now() + MOST + MOST);
    // Of threads that are gone.
    NOTED.take();
    WAITS.take();
}

/// Looks at each kept thread; gives when the next time-out comes, `None` where none is kept any more.
pub(super) fn tend() -> Option<Instant> {
    look_at_all();
    let now = Instant::now();
    // Asked to stop, it says so as soon as it has.
    let next = |one: &Kept| if one.wait.until <= now { now + LOOK_AGAIN } else { one.wait.until };
    KEPT.with_borrow(|kept| kept.values().map(next).min())
}

fn look_at_all() {
    let all = KEPT.take();
    let still: Vec<_> =
        all.into_iter().filter_map(|(tid, one)| Some((tid, one.look(tid)?))).collect();
    KEPT.with_borrow_mut(|kept| kept.extend(still));
}

impl Kept {
    /// What has become of it; `None` when it is let go, or has ended.
    fn look(mut self, tid: i32) -> Option<Self> {
        let event = match super::thread::insist(|| sys::poll(tid)) {
            Ok(Some(status)) => Event::of(status),
            Ok(None) => {
                if !self.asked && Instant::now() >= self.wait.until {
                    // One that has ended says so when it is looked at.
                    self.asked = super::thread::insist(|| sys::interrupt(tid)).is_ok();
                }
                return Some(self);
            }
            Err(_) => return None,
        };
        if event == Event::SystemCall && !self.entered {
            // This stop makes undone that it was asked for another one.
            (self.entered, self.asked) = (true, false);
            return sys::resume(tid, Resume::ToSystemCall, 0).is_ok().then_some(self);
        }
        let nothing = is_nothing(tid, event);
        if nothing || matches!(event, Event::SystemCall | Event::Interrupted) {
            // Its time has come; or a signal has woken it, which it may ignore.
            let result = if self.asked { self.wait.result } else { restart::AGAIN };
            match self.end_with(tid, result) {
                Ok(Stands::Before) => return self.go_on(tid),
                Ok(Stands::In) if !self.asked => return self.go_on(tid),
                // An error says that it was killed.
                _ => {}
            }
        } else if is_stop(event) {
            // That ends the call also without a tracer (signal(7)).
            let _ = self.end_with(tid, restart::ENDED);
        }
        if event != Event::Ended {
            let _ = super::thread::insist(|| sys::resume(tid, Resume::Untraced, event.pending()));
        }
        None
    }

    /// It begins its call anew, and is kept on.
    fn go_on(self, tid: i32) -> Option<Self> {
        let resumed = super::thread::insist(|| sys::resume(tid, Resume::ToSystemCall, 0));
        resumed.is_ok().then_some(Self { entered: false, asked: false, ..self })
    }

    /// Its call gives that, unless it has given something of its own.
    fn end_with(&self, tid: i32, result: u64) -> Result<Stands, Errno> {
        let mut registers = super::thread::insist(|| sys::registers(tid))?;
        if is_before(&self.wait, &registers) {
            return Ok(Stands::Before);
        }
        let ended = matches!(registers.rax, restart::ENDED | restart::AGAIN);
        if !ended || !is_in(&self.wait, &registers) {
            return Ok(Stands::Elsewhere);
        }
        registers.rax = result;
        super::thread::insist(|| sys::set_registers(tid, &registers))?;
        Ok(Stands::In)
    }
}

/// Where a kept thread stands.
enum Stands {
    /// About to begin its call anew.
    Before,
    /// In its call.
    In,
    /// Its call has given something.
    Elsewhere,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::waiting::Frame;

    /// Where a thread may be stopped once more between a call that was ended and the same one that has begun anew.
    #[test]
    fn on_the_way_back_into_a_call() {
        let frame = Frame { call: libc::SYS_epoll_wait, stack: 0x7000, at: 0x1002 };
        let wait = Wait { frame, until: Instant::now(), result: 0, sleeps: 1 };
        let call = libc::SYS_epoll_wait.cast_unsigned();
        let on_the_way = |rip: u64, rax: u64, orig_rax: u64| {
            let registers =
                sys::Registers { rip, rax, orig_rax, rsp: 0x7000, ..sys::no_registers() };
            is_on_the_way(&wait, &registers)
        };
        assert!(on_the_way(0x1002, restart::AGAIN, call), "in the kernel, before it is begun anew");
        assert!(on_the_way(0x1000, call, call), "in the kernel, behind that");
        assert!(on_the_way(0x1000, call, u64::MAX), "in the program");
        assert!(!on_the_way(0x1002, 1, call), "it has got something");
        assert!(!on_the_way(0x1002, call, u64::MAX), "behind it");
        assert!(!on_the_way(0x1000, 0, u64::MAX), "another call");
        assert!(!on_the_way(0x1000, call, 0), "out of another call");
    }
}
