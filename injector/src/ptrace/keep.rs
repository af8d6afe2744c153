//! Time-outs that the kernel forgets when a stop ends the call that has them (see [`super::restart`]).
//!
//! Such a call begins anew behind the stop, with its whole time-out. So a thread that would wait too long is
//! not let go of with the others: it stays traced, though it runs, until the call ends by itself, and then is
//! let go; or until the time-out comes that it had before, and then it is stopped once more and given what the
//! call gives then. All that is ever written is that one result. If the tool dies meanwhile, the time-out
//! comes late.
//!
//! Takes threads before they are stopped ([`note`]), when they have been ([`stopped`]), and when they are let
//! go ([`keep`]); gives them to [`attend`], which is to be called as often as may be. Waits that last longer
//! than [`MOST`] are not kept: the tool would have to stay.

use super::restart;
use super::stop::Event;
use super::sys::{self, Resume};
use crate::target::waiting::Wait;
use nix::errno::Errno;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longer waits begin anew, and are late by as much as they had lasted.
pub const MOST: Duration = Duration::from_secs(2);
/// Bytes of `syscall`.
const SYSCALL: u64 = 2;
/// Threads are looked at this often, should the signal get lost that says that one has stopped.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// How long a thread is waited for that is on its way back into its call.
const ENTER: Duration = Duration::from_millis(5);
const ENTER_LOOK: Duration = Duration::from_micros(20);

/// A thread on its way through a call.
#[derive(Debug, Clone, Copy)]
struct Kept {
    wait: Wait,
    /// It has entered the call.
    entered: bool,
    /// Its time has come, and it was asked to stop.
    asked: bool,
}

thread_local! {
    /// What threads were seen waiting in, before they were asked to stop.
    static NOTED: RefCell<BTreeMap<i32, Wait>> = const { RefCell::new(BTreeMap::new()) };
    /// What stopped threads were waiting in, and wait in again when they go on.
    static WAITS: RefCell<BTreeMap<i32, Wait>> = const { RefCell::new(BTreeMap::new()) };
    /// Threads that run, traced.
    static KEPT: RefCell<BTreeMap<i32, Kept>> = const { RefCell::new(BTreeMap::new()) };
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

/// A kept thread has stopped, and does not wait: before its call, if the stop came so soon, it is to be kept on.
pub(super) fn stopped_on_the_way(tid: i32, registers: &sys::Registers, wait: Wait) {
    if is_before(&wait, registers) {
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

/// Whether it is about to begin that call anew.
fn is_before(wait: &Wait, registers: &sys::Registers) -> bool {
    let frame = wait.frame;
    let at = (registers.rax.cast_signed(), registers.rsp, registers.rip.wrapping_add(SYSCALL));
    registers.orig_rax.cast_signed() < 0 && at == (frame.call, frame.stack, frame.at)
}

/// To be asked when a stopped thread would be let go: whether it is kept instead, and runs already.
pub(super) fn keep(tid: i32, event: Event) -> bool {
    let Some(wait) = WAITS.with_borrow_mut(|waits| waits.remove(&tid)) else { return false };
    let short = wait.until.saturating_duration_since(Instant::now()) <= MOST;
    let waits = || {
        let registers = sys::registers(tid);
        let goes_on =
            |r: &sys::Registers| r.rax == restart::AGAIN && is_in(&wait, r) || is_before(&wait, r);
        registers.is_ok_and(|r| goes_on(&r))
    };
    if event != Event::Interrupted || !short || !waits() {
        return false;
    }
    if sys::resume(tid, Resume::ToSystemCall, 0).is_err() {
        return false;
    }
    let kept = Kept { wait, entered: false, asked: false };
    KEPT.with_borrow_mut(|all| all.insert(tid, kept));
    true
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

/// As [`attend`], until there are none.
pub fn attend_to_all() {
    attend(Instant::now() + MOST + MOST);
    // Of threads that are gone.
    NOTED.take();
    WAITS.take();
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
        let event = match sys::poll(tid) {
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
        if self.asked && matches!(event, Event::SystemCall | Event::Interrupted) {
            // An error says that it was killed.
            let _ = self.time_out(tid);
        }
        if event != Event::Ended {
            let _ = super::thread::insist(|| sys::resume(tid, Resume::Untraced, event.pending()));
        }
        None
    }

    /// Its call gives what it gives when its time is over, unless it has given something else.
    fn time_out(&self, tid: i32) -> Result<(), Errno> {
        let mut registers = super::thread::insist(|| sys::registers(tid))?;
        let ended = matches!(registers.rax, restart::ENDED | restart::AGAIN);
        if ended && is_in(&self.wait, &registers) {
            registers.rax = self.wait.result;
            super::thread::insist(|| sys::set_registers(tid, &registers))?;
        }
        Ok(())
    }
}
