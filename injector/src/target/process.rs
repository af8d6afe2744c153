//! Whether there is a process that can be updated at all.
//!
//! Takes a pid; gives what `/proc/PID` says of it. Refuses, with the way out: no such process, a
//! thread's id, a zombie, a kernel thread, another machine's code, another tracer.

use crate::error::ApplyError;
use object::elf;
use std::io::Read;
use std::time::{Duration, Instant};

/// What `/proc/PID/status` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// `Name`.
    pub name: String,
    /// First letter of `State`.
    pub state: char,
    /// `Tgid`.
    pub tgid: i32,
    /// `TracerPid`.
    pub tracer: i32,
    /// Real `Uid`.
    pub uid: u32,
    /// `Threads`.
    pub threads: usize,
    /// `VmSize` is there: the process has an address space.
    pub has_memory: bool,
    /// `SigIgn`.
    pub ignored: u64,
    /// `SigBlk` of this thread.
    pub blocked: u64,
    /// `SigCgt`.
    pub caught: u64,
    /// `SigPnd`, of this thread alone.
    pub pending: u64,
    /// `ShdPnd`, of the process.
    pub shared: u64,
    /// `Seccomp`: 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// `CapEff`.
    pub capabilities: u64,
}

impl Status {
    /// Reads `/proc/PID/status`, or a thread's with its id.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
    }

    /// Parses the text of such a file; what is missing stays zero.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let first = value.split_whitespace().next().unwrap_or_default();
            let mask = || u64::from_str_radix(first, 16).unwrap_or(0);
            match key {
                "Name" => value.clone_into(&mut status.name),
                "State" => status.state = first.chars().next().unwrap_or_default(),
                "Tgid" => status.tgid = first.parse().unwrap_or(0),
                "TracerPid" => status.tracer = first.parse().unwrap_or(0),
                "Uid" => status.uid = first.parse().unwrap_or(0),
                "Threads" => status.threads = first.parse().unwrap_or(0),
                "VmSize" => status.has_memory = true,
                "SigIgn" => status.ignored = mask(),
                "SigBlk" => status.blocked = mask(),
                "SigCgt" => status.caught = mask(),
                "SigPnd" => status.pending = mask(),
                "ShdPnd" => status.shared = mask(),
                "CapEff" => status.capabilities = mask(),
                "Seccomp" => status.seccomp = first.parse().unwrap_or(0),
                _ => {}
            }
        }
        status
    }

    /// Whether the process or thread has ended.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Checks what can be checked before anything of the process is opened.
///
/// # Errors
/// The refusal.
pub fn check(pid: i32) -> Result<Status, ApplyError> {
    let status = Status::of(pid).filter(|_| pid > 0);
    let Some(status) = status else {
        return Err(ApplyError::NoProcess(format!("there is no process {pid}")));
    };
    if status.is_dead() && is_outlived(pid) {
        return Err(ApplyError::Unsuitable(format!(
            "process {pid} ({}) goes on without its first thread, which has ended: the kernel no longer shows \
             such a process's memory by that thread, so it cannot be updated",
            status.name
        )));
    }
    if status.is_dead() {
        return Err(ApplyError::NoProcess(format!(
            "process {pid} ({}) has ended and waits for its parent",
            status.name
        )));
    }
    if status.tgid != pid {
        let (name, tgid) = (&status.name, status.tgid);
        return Err(ApplyError::NoProcess(format!(
            "{pid} ({name}) is a thread of process {tgid}: use --pid {tgid}"
        )));
    }
    if !status.has_memory {
        let name = &status.name;
        return Err(ApplyError::NoProcess(format!("process {pid} ({name}) is a kernel thread")));
    }
    if u32::try_from(pid).is_ok_and(|p| p == std::process::id()) {
        return Err(ApplyError::Unsuitable("a process cannot update itself".into()));
    }
    if status.tracer != 0 {
        return Err(ApplyError::NotPermitted(traced_by(pid, status.tracer)));
    }
    Ok(status)
}

/// What failed, or was not found, because the process has ended meanwhile is told by that: its memory and its
/// threads go one after the other, with an error of their own each.
#[must_use]
pub fn told_by_its_end(pid: i32, cause: ApplyError) -> ApplyError {
    let ended = || match Status::of(pid) {
        Some(status) => !status.has_memory && status.threads <= 1,
        None => true,
    };
    match cause {
        ApplyError::Internal(cause)
        | ApplyError::Unsuitable(cause)
        | ApplyError::WrongBuild(cause)
            if ended() =>
        {
            ApplyError::Died(format!("process {pid} has ended meanwhile ({cause})"))
        }
        cause => cause,
    }
}

/// How long the threads of a process that ends may take to end, one after the other.
const ENDING: Duration = Duration::from_millis(500);

/// Whether other threads go on without the first one.
fn is_outlived(pid: i32) -> bool {
    let until = Instant::now() + ENDING;
    while Status::of(pid).is_some_and(|status| status.threads > 1) {
        if Instant::now() >= until {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

fn traced_by(pid: i32, tracer: i32) -> String {
    let name = Status::of(tracer).map(|s| s.name).unwrap_or_default();
    format!(
        "process {pid} is traced by process {tracer} ({name}) already, and the kernel allows one \
         tracer: end that one first"
    )
}

/// Checks that the process runs 64-bit x86-64 code.
///
/// # Errors
/// The refusal.
pub fn check_machine(pid: i32) -> Result<(), ApplyError> {
    let mut header = [0; 20];
    let read = std::fs::File::open(format!("/proc/{pid}/exe"))
        .and_then(|mut file| file.read_exact(&mut header));
    match read {
        // Without the right to look at the file, opening the memory says why.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
        // A file that was deleted can be read there all the same.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(ApplyError::NoProcess(format!("process {pid} has ended")));
        }
        Err(e) => return Err(ApplyError::NotX8664(format!("read /proc/{pid}/exe: {e}"))),
        Ok(()) => {}
    }
    let machine = elf::Machine(super::elf::u16_at(&header, 18));
    let what = match (header[..4] == elf::ELFMAG, header[4], machine) {
        (true, 2, elf::EM_X86_64) => return Ok(()),
        (true, _, elf::EM_X86_64) => "an x32 process (x86-64 with 32-bit pointers)".into(),
        (true, _, elf::EM_386) => "a 32-bit process".into(),
        (true, ..) => format!("a process of another machine (e_machine {})", machine.0),
        (false, ..) => "not an ELF program".into(),
    };
    Err(ApplyError::NotX8664(format!("process {pid} is {what}: only x86-64 ones can be updated")))
}

/// Says why tracing was refused, and what would help (ptrace(2), access mode checking).
#[must_use]
pub fn explain_refusal(pid: i32, cause: &str) -> ApplyError {
    let Some(status) = Status::of(pid) else {
        return ApplyError::NoProcess(format!("there is no process {pid}"));
    };
    if status.tracer != 0 {
        return ApplyError::NotPermitted(traced_by(pid, status.tracer));
    }
    let user = nix::unistd::geteuid();
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let why = if user.as_raw() != status.uid && !user.is_root() {
        format!("it belongs to user {} and you are user {user}: run dsu-apply as root", status.uid)
    } else if yama.trim() == "3" {
        "the system forbids all tracing (kernel.yama.ptrace_scope = 3) until it is restarted".into()
    } else if !matches!(yama.trim(), "" | "0") && !user.is_root() {
        format!(
            "the system restricts tracing (kernel.yama.ptrace_scope = {}): run dsu-apply as root",
            yama.trim()
        )
    } else {
        "it may have changed its user, hold capabilities that you lack, or be in a container that \
         forbids ptrace: run dsu-apply as root with CAP_SYS_PTRACE"
            .into()
    };
    ApplyError::NotPermitted(format!("may not trace process {pid} ({cause}): {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_in_a_process_that_is_there_is_one() {
        let failure = || ApplyError::Internal("write".into());
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(told_by_its_end(own, failure()), ApplyError::Internal(_)));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        assert!(matches!(told_by_its_end(pid, failure()), ApplyError::Died(_)));
        let other = told_by_its_end(pid, ApplyError::Interrupted);
        assert!(matches!(other, ApplyError::Interrupted));
    }

    #[test]
    fn parses_status() {
        let status = Status::parse(
            "Name:\ta b\nState:\tS (sleeping)\nTgid:\t12\nTracerPid:\t7\nUid:\t5\t6\t5\t5\n\
             VmSize:\t  10 kB\nThreads:\t9\nSigPnd:\t0000000000000001\nShdPnd:\t0000000000000100\n\
             SigBlk:\t0000000000000010\nSigIgn:\t0000000000001000\nSeccomp:\t2\n",
        );
        assert_eq!((status.name.as_str(), status.state), ("a b", 'S'));
        assert_eq!((status.tgid, status.tracer, status.uid, status.seccomp), (12, 7, 5, 2));
        assert_eq!((status.pending, status.blocked, status.ignored), (0x1, 0x10, 0x1000));
        assert_eq!((status.shared, status.threads), (0x100, 9));
        assert!(status.has_memory && !status.is_dead());
    }
}
