//! Whether seccomp lets a process be updated; found out before anything in it is changed.
//!
//! Takes a process of which some threads are under seccomp; stops these for a moment, one after the other (the first
//! one with all others), and asks their filters about every kind of system call that an update makes in a thread, or
//! makes a thread repeat. Gives the threads that may make them, or the refusal: which call, what the filter does about
//! it, and the way out. A filter that gives errors is suspended for such calls, one that kills only if that was
//! asked for (see [`crate::ptrace::gate`]).

use crate::error::ApplyError;
use crate::ptrace::footholds::Footholds;
use crate::ptrace::gate::{Gate, Suspend, may_look};
use crate::ptrace::keep;
use crate::ptrace::process::{StoppedProcess, seize, thread_ids};
use crate::ptrace::sched::Pace;
use crate::ptrace::thread::{Stopped, WaitError, let_go_within};
use crate::target::bpf::{Action, SystemCall};
use crate::target::process::Status;
use std::time::{Duration, Instant};

/// How long one thread is waited for.
const STOP_WITHIN: Duration = Duration::from_millis(200);

/// What is known of the threads of a process.
#[derive(Debug, Clone, Default)]
pub struct Permit {
    /// Some threads are under seccomp, and these are not hindered by it.
    pub lenders: Vec<i32>,
    /// When filters are suspended.
    pub suspend: Suspend,
}

impl Permit {
    /// Whether a thread may be borrowed from.
    #[must_use]
    pub fn lends(&self, tid: i32) -> bool {
        self.lenders.is_empty() || self.lenders.contains(&tid)
    }
}

/// A call that a thread may not make, and what would become of it.
#[derive(Debug, Clone, Copy)]
struct Forbidden {
    call: i64,
    action: Action,
}

impl Forbidden {
    /// Whether the process lives even if this tool dies in the middle of the call: that gives an error, and
    /// then the thread must be able to save itself.
    fn is_mild(self) -> bool {
        self.action.is_mild() && self.call != libc::SYS_rt_sigreturn
    }

    /// The one that counts: of those that are as bad, the first.
    fn worst(all: impl DoubleEndedIterator<Item = Self>) -> Option<Self> {
        all.rev().max_by_key(|found| found.rank())
    }

    fn rank(self) -> (bool, Action) {
        (!self.is_mild(), self.action)
    }
}

/// Examines a process.
///
/// # Errors
/// The refusal; or the process has ended.
pub fn examine(pid: i32, footholds: &Footholds, suspend: Suspend) -> Result<Permit, ApplyError> {
    let mut permit = Permit { lenders: Vec::new(), suspend };
    // Threads that may not make them, with the worst that would come of it.
    let mut hindered: Vec<(i32, Forbidden)> = Vec::new();
    let mut filtered = false;
    let mut tids = thread_ids(pid)?;
    // The first one last: see `of_first`.
    tids.sort_by_key(|tid| *tid == pid);
    for tid in tids {
        let mode = Status::of(tid).map_or(0, |status| status.seccomp);
        filtered |= mode != 0;
        match mode {
            0 => permit.lenders.push(tid),
            1 => hindered.extend(look(&Gate::Strict, footholds).map(|found| (tid, found))),
            _ if !may_look() => return Err(unreadable(pid)),
            _ => {
                let found = match tid == pid {
                    true => of_first(pid, footholds)?,
                    false => of_thread(pid, tid, footholds)?,
                };
                match found {
                    Some(found) => hindered.push((tid, found)),
                    None => permit.lenders.push(tid),
                }
            }
        }
    }
    if !filtered {
        permit.lenders.clear();
    }
    let Some((_, least)) = hindered.iter().min_by_key(|(_, found)| found.rank()) else {
        return Ok(permit);
    };
    if permit.lenders.is_empty() {
        may_suspend(pid, *least, suspend)?;
        let as_mild = hindered.iter().filter(|(_, found)| found.is_mild() == least.is_mild());
        permit.lenders = as_mild.map(|(tid, _)| *tid).collect();
    }
    Ok(permit)
}

/// No thread may make the calls: only without the filter.
fn may_suspend(pid: i32, found: Forbidden, suspend: Suspend) -> Result<(), ApplyError> {
    let Forbidden { call, action } = found;
    let what = format!(
        "process {pid} runs under seccomp, which {} for the {} that an update needs",
        action.what(),
        name(call)
    );
    if !may_look() {
        return Err(ApplyError::Unsuitable(format!("{what}; to have that suspended, {PRIVILEGE}")));
    }
    if found.is_mild() || suspend == Suspend::Always {
        return Ok(());
    }
    Err(ApplyError::Unsuitable(format!(
        "{what}; with --suspend-seccomp it is suspended for these calls, some microseconds each: if \
         dsu-guardian is killed by SIGKILL in one of them, the process is killed, too"
    )))
}

const PRIVILEGE: &str = "dsu-apply needs CAP_SYS_ADMIN of the system and must not be under seccomp \
                         itself: run it as root outside of the container";

fn unreadable(pid: i32) -> ApplyError {
    ApplyError::Unsuitable(format!(
        "process {pid} runs under seccomp, and its filter may kill it for the mmap that an update needs; to \
         read the filter, {PRIVILEGE}"
    ))
}

/// The strictest answer of one thread's filters, if any forbids something.
fn of_thread(pid: i32, tid: i32, footholds: &Footholds) -> Result<Option<Forbidden>, ApplyError> {
    let Some(running) = seize(tid)? else { return Ok(None) };
    keep::note(tid);
    running.interrupt()?;
    let thread = match running.wait(Instant::now() + STOP_WITHIN, Pace::now()) {
        Ok(thread) => thread,
        Err(WaitError::Ended(_)) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let answer = answer_of(pid, &thread, footholds);
    thread.detach();
    let_go_within(STOP_WITHIN);
    answer
}

/// That of the first one's. Alone it is not to be traced where there are others: see [`crate::ptrace::process`].
/// These may be stopped with it: their filters were asked before.
fn of_first(pid: i32, footholds: &Footholds) -> Result<Option<Forbidden>, ApplyError> {
    let mut process = StoppedProcess::stop(pid, STOP_WITHIN)?;
    let Some(thread) = process.take(pid) else { return Ok(None) };
    let answer = answer_of(pid, &thread, footholds);
    process.put(thread);
    drop(process);
    let_go_within(STOP_WITHIN);
    answer
}

fn answer_of(
    pid: i32,
    thread: &Stopped,
    footholds: &Footholds,
) -> Result<Option<Forbidden>, ApplyError> {
    let gate = Gate::of(thread);
    let repeats = repeats(&gate, thread);
    if matches!(gate, Gate::Unknown) {
        return Err(unreadable(pid));
    }
    if let Some(Forbidden { action, .. }) = repeats? {
        return Err(ApplyError::Unsuitable(format!(
            "process {pid} runs under seccomp, which {} for restart_syscall: a thread that sleeps could not \
             be stopped and go on sleeping; allow restart_syscall in its filter",
            action.what()
        )));
    }
    Ok(look(&gate, footholds))
}

/// A thread that is stopped in a sleep with a time-out goes on with `restart_syscall`. Where it may not, it
/// begins that sleep anew for this once, and is not stopped again.
fn repeats(gate: &Gate, thread: &Stopped) -> Result<Option<Forbidden>, ApplyError> {
    /// `ERESTART_RESTARTBLOCK` and `ERESTARTNOHAND` (include/linux/errno.h).
    const RESTARTBLOCK: i64 = -516;
    const RESTARTNOHAND: i64 = -514;
    let mut registers = thread.registers()?;
    let arguments =
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
    let call = SystemCall { number: libc::SYS_restart_syscall, arguments, at: registers.rip };
    let action = match gate {
        // What it allows does not sleep with a time-out.
        Gate::Strict => Action::Allow,
        _ => gate.verdict(&call).unwrap_or(Action::KillProcess),
    };
    if action.allows() {
        return Ok(None);
    }
    if registers.rax.cast_signed() == RESTARTBLOCK {
        registers.rax = RESTARTNOHAND.cast_unsigned();
        thread.give_back_registers(&registers)?;
    }
    Ok(Some(Forbidden { call: call.number, action }))
}

/// The strictest answer.
fn look(gate: &Gate, footholds: &Footholds) -> Option<Forbidden> {
    let ask = |call: SystemCall| {
        let action = gate.verdict(&call).unwrap_or(Action::KillProcess);
        (!action.allows()).then_some(Forbidden { call: call.number, action })
    };
    Forbidden::worst(calls(footholds).into_iter().filter_map(ask))
}

/// One of each kind.
fn calls(footholds: &Footholds) -> Vec<SystemCall> {
    let at = footholds.syscall.0 + 2;
    let flags =
        u64::from((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED).cast_unsigned());
    let protections = [
        libc::PROT_NONE,
        libc::PROT_READ,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::PROT_READ | libc::PROT_EXEC,
    ];
    let map = |protection: i32| {
        let protection = u64::from(protection.cast_unsigned());
        let arguments = [at & !0xfff, 0x1000, protection, flags, u64::MAX, 0];
        SystemCall { number: libc::SYS_mmap, arguments, at }
    };
    let unmap = [at & !0xfff, 0x1000, 0, 0, 0, 0];
    let mut calls: Vec<_> = protections.into_iter().map(map).collect();
    calls.push(SystemCall { number: libc::SYS_munmap, arguments: unmap, at });
    // By which a borrowed thread saves itself.
    let at = footholds.sigreturn.map_or(at, |at| at.0);
    calls.push(SystemCall { number: libc::SYS_rt_sigreturn, arguments: [0; 6], at });
    calls
}

fn name(call: i64) -> &'static str {
    match call {
        libc::SYS_mmap => "mmap",
        libc::SYS_munmap => "munmap",
        libc::SYS_rt_sigreturn => "rt_sigreturn",
        _ => "system call",
    }
}
