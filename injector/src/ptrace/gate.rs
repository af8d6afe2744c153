//! What seccomp lets a thread do.
//!
//! Takes a stopped thread; reads its filters, and says beforehand what would become of a system call in it: no
//! call is ever made in a borrowed thread that would end the process. The kernel gives filters to a tracer with
//! CAP_SYS_ADMIN that is under none itself, and to the same one it allows to have them suspended for as long as
//! it traces (ptrace(2), `PTRACE_SECCOMP_GET_FILTER`, `PTRACE_O_SUSPEND_SECCOMP`). If that tracer is killed in
//! the middle of a call, the filter counts again, for that very call: where it gives an error the thread
//! saves itself as ever, where it kills, it kills.

use super::sys;
use super::thread::Stopped;
use crate::target::bpf::{self, Action, Instruction, SystemCall};
use crate::target::process::Status;
use nix::errno::Errno;

/// No thread has more filters, with fewer instructions than these in all.
const MOST_FILTERS: usize = 4096;
/// CAP_SYS_ADMIN's bit (uapi/linux/capability.h).
const SYS_ADMIN: u64 = 1 << 21;
/// What strict mode allows (`mode1_syscalls` in kernel/seccomp.c).
const STRICT: [i64; 4] = [libc::SYS_read, libc::SYS_write, libc::SYS_exit, libc::SYS_rt_sigreturn];

/// When filters are suspended for the calls of this tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Suspend {
    /// Where they would give an error.
    #[default]
    Mildly,
    /// Also where they would kill.
    Always,
}

/// What stands between a thread and the kernel.
#[derive(Debug, Clone)]
pub enum Gate {
    /// Nothing.
    Open,
    /// Strict mode.
    Strict,
    /// Filters, all of which are asked.
    Filters(Vec<Vec<Instruction>>),
    /// Filters that cannot be read.
    Unknown,
}

impl Gate {
    /// Of a stopped thread.
    #[must_use]
    pub fn of(thread: &Stopped) -> Self {
        match Status::of(thread.tid()).map_or(0, |status| status.seccomp) {
            0 => Self::Open,
            1 => Self::Strict,
            _ => read(thread.tid()).map_or(Self::Unknown, Self::Filters),
        }
    }

    /// What becomes of a call; `None` where nobody can tell.
    #[must_use]
    pub fn verdict(&self, call: &SystemCall) -> Option<Action> {
        match self {
            Self::Open => Some(Action::Allow),
            Self::Strict if STRICT.contains(&call.number) => Some(Action::Allow),
            Self::Strict => Some(Action::KillProcess),
            Self::Filters(filters) => bpf::verdict(filters, call),
            Self::Unknown => None,
        }
    }
}

fn read(tid: i32) -> Result<Vec<Vec<Instruction>>, Errno> {
    let mut filters = Vec::new();
    while filters.len() < MOST_FILTERS {
        match sys::seccomp_filter(tid, filters.len()) {
            Ok(filter) => filters.push(filter),
            Err(Errno::ENOENT) => return Ok(filters),
            Err(e) => return Err(e),
        }
    }
    Err(Errno::E2BIG)
}

/// Whether this process may read and suspend filters; asked before anything is stopped for it.
#[must_use]
pub fn may_look() -> bool {
    let me = Status::of(std::process::id().cast_signed());
    let able = me.is_some_and(|me| me.seccomp == 0 && me.capabilities & SYS_ADMIN != 0);
    // It is the system's capability that counts, not a container's: its users are all there are.
    let users = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = users.split_whitespace().collect();
    able && fields == ["0", "0", "4294967295"]
}
