//! Faults on purpose: each call that could fail is made to fail, by tests.
//!
//! Every ptrace request, every remote system call, every write to the process's memory and every signal sent to
//! it passes here, in the one place where calls of its kind are made; so none can be forgotten. Takes the numbers
//! of the calls that are to fail, counted from when that was said; such a call is not made and gives an error, and
//! all others are made. A test goes through all numbers until one is not reached. Reads of the process's
//! memory, of which there are many, are counted for themselves; so are waits that have something to tell, which they
//! tell the next time: instead of failing, they may bring the thread a signal, which its next stop is for. It counts for the calling thread alone. Where nothing was said, a call costs one comparison more.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// A call that could fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A request of ptrace(2).
    Ptrace(u32),
    /// A system call with this number in a borrowed thread.
    Remote(i64),
    /// A write of so many bytes to the process's memory.
    Write(usize),
    /// A signal to the process.
    Signal(Signal),
    /// A read of so many bytes of the process's memory.
    Read(usize),
    /// A wait that would have given this status.
    Wait(i32),
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads.
    Reads,
    /// Waits.
    Waits,
    /// All other calls.
    Calls,
}

impl Call {
    fn kind(self) -> Kind {
        match self {
            Self::Read(_) => Kind::Reads,
            Self::Wait(_) => Kind::Waits,
            _ => Kind::Calls,
        }
    }
}

/// What a failing call gives: a disk's answer, which no code here expects.
const ERROR: Errno = Errno::EIO;

/// Which calls are to fail.
struct Plan {
    kind: Kind,
    numbers: Vec<u64>,
    /// All of these, too.
    always: Option<Call>,
    /// It does not fail: the thread gets this signal.
    signal: Option<Signal>,
    counted: u64,
    failed: Vec<Call>,
}

thread_local! {
    /// Whether there is a plan.
    static ANY: Cell<bool> = const { Cell::new(false) };
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
    /// What failed waits would have told, by thread.
    static UNTOLD: RefCell<BTreeMap<i32, i32>> = const { RefCell::new(BTreeMap::new()) };
}

/// Makes the calls of this kind with these numbers fail, the next one being 1.
pub fn fail_these(kind: Kind, numbers: &[u64]) {
    say(Plan { numbers: numbers.to_vec(), ..Plan::of(kind) });
}

/// Makes this call fail whenever it is made.
pub fn fail_always(call: Call) {
    say(Plan { always: Some(call), ..Plan::of(call.kind()) });
}

/// Sends a signal to the process of the thread that the wait with this number has found stopped.
pub fn signal_at_wait(number: u64, signal: Signal) {
    say(Plan { numbers: vec![number], signal: Some(signal), ..Plan::of(Kind::Waits) });
}

/// Makes the call with this number fail, the next one being 1.
pub fn fail(number: u64) {
    fail_these(Kind::Calls, &[number]);
}

/// Makes the read with this number fail, the next one being 1.
pub fn fail_read(number: u64) {
    fail_these(Kind::Reads, &[number]);
}

fn say(plan: Plan) {
    PLAN.set(Some(plan));
    ANY.set(true);
}

/// Makes none fail from now on; gives those that have.
pub fn end() -> Vec<Call> {
    ANY.set(false);
    PLAN.take().map(|plan| plan.failed).unwrap_or_default()
}

/// To be asked before each call.
pub(crate) fn pass(call: Call) -> Result<(), Errno> {
    if ANY.get() && PLAN.with_borrow_mut(|plan| plan.as_mut().is_some_and(|p| p.hits(call))) {
        return Err(ERROR);
    }
    Ok(())
}

impl Plan {
    fn of(kind: Kind) -> Self {
        let (numbers, failed) = (Vec::new(), Vec::new());
        Self { kind, numbers, always: None, signal: None, counted: 0, failed }
    }

    fn hits(&mut self, call: Call) -> bool {
        if call.kind() != self.kind {
            return false;
        }
        self.counted += 1;
        let hit = self.numbers.contains(&self.counted) || self.always == Some(call);
        if hit {
            self.failed.push(call);
        }
        hit
    }
}

/// To be asked when a wait for a thread has given a status: one that fails gives it the next time.
pub(crate) fn pass_wait(tid: i32, status: i32) -> Result<i32, Errno> {
    let Err(error) = pass(Call::Wait(status)) else { return Ok(status) };
    if let Some(signal) = PLAN.with_borrow(|plan| plan.as_ref()?.signal) {
        // One that has ended gets none.
        let _ = kill(Pid::from_raw(tid), signal);
        return Ok(status);
    }
    UNTOLD.with_borrow_mut(|untold| untold.insert(tid, status));
    Err(error)
}

/// What a wait for this thread that has failed would have told.
pub(crate) fn untold(tid: i32) -> Option<i32> {
    UNTOLD.with_borrow_mut(|untold| untold.remove(&tid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fails() {
        let write = || pass(Call::Write(1)).is_ok();
        assert!(write(), "nothing was said");
        fail(2);
        assert_eq!([write(), write(), write()], [true, false, true]);
        assert_eq!(end(), [Call::Write(1)]);
        fail(2);
        assert!(write());
        assert_eq!(end(), []);
        assert!(write() && write());
        fail_read(1);
        assert!(write());
        assert!(pass(Call::Read(8)).is_err() && pass(Call::Read(8)).is_ok());
        assert_eq!(end(), [Call::Read(8)]);
    }

    #[test]
    fn several_fail() {
        let write = |len| pass(Call::Write(len)).is_ok();
        fail_these(Kind::Calls, &[1, 3]);
        assert_eq!([write(1), write(2), write(3), write(4)], [false, true, false, true]);
        assert_eq!(end(), [Call::Write(1), Call::Write(3)]);
        fail_always(Call::Write(2));
        assert_eq!([write(1), write(2), write(2), write(3)], [true, false, false, true]);
        end();
    }

    #[test]
    fn what_a_wait_does_not_tell_is_told_later() {
        fail_these(Kind::Waits, &[1]);
        assert!(pass_wait(7, 0x57f).is_err());
        assert_eq!((untold(8), untold(7), untold(7)), (None, Some(0x57f), None));
        assert_eq!(pass_wait(7, 0x57f), Ok(0x57f));
        end();
    }
}
