//! The process that does the work, which nobody kills by mistake.
//!
//! Takes what is to be done; does it in a process of its own, the guardian: in its own session, where no
//! Ctrl-C and no closed terminal reaches it, under its own name, which no `killall dsu-apply` means, and the
//! last one that the kernel would end for want of memory. What ends or kills the process in front, which
//! people see, only asks the guardian to come to an orderly end; it holds up all signals and looks for that at
//! safe points ([`is_asked_to_end`]). If the guardian itself is killed, the process in front puts right what
//! it has left behind.
//!
//! Gives the exit code. Where no second process is to be had, the work is done in this one.

use super::sched::Undisturbed;
use super::sys;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid, setsid};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Its name in lists of processes.
const NAME: &str = "dsu-guardian";
/// Signals that ask a program to end.
pub(super) const ENDING: u64 =
    bit(libc::SIGHUP) | bit(libc::SIGINT) | bit(libc::SIGQUIT) | bit(libc::SIGTERM);
/// The guardian is looked at this often, should the signal of its end get lost.
const LOOK_EVERY: Duration = Duration::from_millis(200);

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Whether a signal waits that asks this process to end. Signals must be held up: see [`Undisturbed`].
#[must_use]
pub fn is_asked_to_end() -> bool {
    sys::waiting_signals() & ENDING != 0
}

/// Does `work` in a guardian; `after_death` if that is killed.
pub fn guarded(work: impl FnOnce() -> u8, after_death: impl FnOnce() -> u8) -> u8 {
    let _undisturbed = Undisturbed::begin();
    let front = getpid();
    match sys::fork() {
        Ok(Some(guardian)) => watch(Pid::from_raw(guardian)).unwrap_or_else(after_death),
        Ok(None) => {
            become_guardian(front);
            // Without the destructors of what belongs to the process in front.
            std::process::exit(i32::from(work()))
        }
        Err(_) => work(),
    }
}

/// Waits for the guardian's end, and hands on what asks for it. `None` if it was killed.
fn watch(guardian: Pid) -> Option<u8> {
    loop {
        match waitpid(guardian, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return u8::try_from(code).ok(),
            Ok(WaitStatus::Signaled(..)) | Err(_) => return None,
            Ok(_) => {}
        }
        let taken = sys::take_signal(ENDING | bit(libc::SIGCHLD), LOOK_EVERY);
        if taken.is_some_and(|signal| signal != libc::SIGCHLD) {
            // It has ended meanwhile: the next look says so.
            let _ = kill(guardian, Signal::SIGTERM);
        }
    }
}

fn become_guardian(front: Pid) {
    // None of these matters enough to give the work up for it.
    let _ = setsid();
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM);
    if getppid() != front {
        // It is gone already.
        let _ = kill(getpid(), Signal::SIGTERM);
    }
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    rename(NAME);
}

/// Gives this process another name in lists of processes.
pub(super) fn rename(name: &str) {
    // Nothing depends on it.
    let _ = std::fs::write("/proc/self/comm", name);
    let _ = overwrite_command_line(name);
}

/// Overwrites the command line, which `/proc/self/stat` says the place of (proc(5), fields 48 and 49).
fn overwrite_command_line(name: &str) -> std::io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let behind = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = behind.split_whitespace().skip(45).map_while(|f| f.parse::<u64>().ok());
    let (Some(start), Some(end)) = (fields.next(), fields.next()) else { return Ok(()) };
    let mut line = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
    for (place, byte) in line.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    std::fs::OpenOptions::new().write(true).open("/proc/self/mem")?.write_all_at(&line, start)
}
