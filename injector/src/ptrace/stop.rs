//! What a traced thread's wait status says (ptrace(2), "Stopped states").

use libc::c_int;

/// What has happened to a traced thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Stopped by `PTRACE_INTERRUPT`, or at its start by being cloned.
    Interrupted,
    /// In a group stop: the whole process was stopped by this signal.
    GroupStop(c_int),
    /// About to take this signal. Letting it go on without naming it loses the signal.
    Signal(c_int),
    /// At the entry or the exit of a system call.
    SystemCall,
    /// Has made a thread; or another event of a kind that needs no answer.
    Other(c_int),
    /// Has executed another program.
    Executed,
    /// Has ended.
    Ended,
}

impl Event {
    /// Decodes a status of waitpid.
    #[must_use]
    pub fn of(status: c_int) -> Self {
        if !libc::WIFSTOPPED(status) {
            return Self::Ended;
        }
        let signal = libc::WSTOPSIG(status);
        match (status >> 16, signal) {
            (libc::PTRACE_EVENT_STOP, libc::SIGTRAP) => Self::Interrupted,
            (libc::PTRACE_EVENT_STOP, signal) => Self::GroupStop(signal),
            (libc::PTRACE_EVENT_EXEC, _) => Self::Executed,
            // PTRACE_O_TRACESYSGOOD sets the bit.
            (0, signal) if signal == libc::SIGTRAP | 0x80 => Self::SystemCall,
            (0, signal) => Self::Signal(signal),
            (event, _) => Self::Other(event),
        }
    }

    /// The signal that must be named when the thread goes on; 0 for none.
    #[must_use]
    pub fn pending(self) -> c_int {
        if let Self::Signal(signal) = self { signal } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let stopped = |signal: c_int, event: c_int| Event::of(event << 16 | signal << 8 | 0x7f);
        assert_eq!(stopped(libc::SIGTRAP, libc::PTRACE_EVENT_STOP), Event::Interrupted);
        assert_eq!(
            stopped(libc::SIGSTOP, libc::PTRACE_EVENT_STOP),
            Event::GroupStop(libc::SIGSTOP)
        );
        assert_eq!(stopped(libc::SIGTRAP | 0x80, 0), Event::SystemCall);
        assert_eq!(stopped(40, 0), Event::Signal(40), "real-time signals");
        assert_eq!(stopped(libc::SIGTRAP, 0).pending(), libc::SIGTRAP);
        assert_eq!(stopped(libc::SIGTRAP, 3), Event::Other(3));
        assert_eq!(stopped(libc::SIGTRAP, 4), Event::Executed);
        assert_eq!(Event::of(0), Event::Ended);
        assert_eq!(Event::of(9), Event::Ended);
    }
}
