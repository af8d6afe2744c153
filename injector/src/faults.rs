//! Faults on purpose: each call that could fail is made to fail once, by tests.
//!
//! Every ptrace request, every remote system call, every write to the process's memory and every signal sent to
//! it passes here, in the one place where calls of its kind are made; so none can be forgotten. Takes the number
//! of the call that is to fail, counted from when that was said; that call is not made and gives an error, and
//! all others are made. A test goes through all numbers until one is not reached. Reads of the process's
//! memory, of which there are many, are counted for themselves. It counts for the calling thread alone. Where nothing was said, a call costs one comparison more.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::cell::Cell;

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
}

/// What the failing call gives: a disk's answer, which no code here expects.
const ERROR: Errno = Errno::EIO;

thread_local! {
    /// Calls left until the one that fails, itself included; 0 when none is to fail.
    static LEFT: Cell<u64> = const { Cell::new(0) };
    /// Whether reads are counted, and nothing else.
    static READS: Cell<bool> = const { Cell::new(false) };
    /// The one that has failed.
    static FAILED: Cell<Option<Call>> = const { Cell::new(None) };
}

/// Makes the call with this number fail, the next one being 1.
pub fn fail(number: u64) {
    FAILED.set(None);
    READS.set(false);
    LEFT.set(number);
}

/// Makes the read with this number fail, the next one being 1.
pub fn fail_read(number: u64) {
    fail(number);
    READS.set(true);
}

/// Makes none fail from now on; gives the one that has.
pub fn end() -> Option<Call> {
    LEFT.set(0);
    FAILED.take()
}

/// To be asked before each call.
pub(crate) fn pass(call: Call) -> Result<(), Errno> {
    if LEFT.get() == 0 || READS.get() != matches!(call, Call::Read(_)) {
        return Ok(());
    }
    LEFT.set(LEFT.get() - 1);
    if LEFT.get() > 0 {
        return Ok(());
    }
    FAILED.set(Some(call));
    Err(ERROR)
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
        assert_eq!(end(), Some(Call::Write(1)));
        fail(2);
        assert!(write());
        assert_eq!(end(), None);
        assert!(write() && write());
        fail_read(1);
        assert!(write());
        assert!(pass(Call::Read(8)).is_err() && pass(Call::Read(8)).is_ok());
        assert_eq!(end(), Some(Call::Read(8)));
    }
}
