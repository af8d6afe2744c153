//! Whether there is a process that can be updated at all.
//!
//! Takes a pid; gives what `/proc/PID` says of it. Refuses, with the way out: no such process, a
//! thread's id, a zombie, a kernel thread, another machine's code, another tracer.

use crate::error::ApplyError;
use crate::ptrace::keeper;
use object::elf;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
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
    /// `CapPrm`.
    pub permitted: u64,
    /// `voluntary_ctxt_switches` of this thread.
    pub sleeps: u64,
    /// `x86_Thread_features`: a shadow stack is among them.
    pub shadow_stack: bool,
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
                "voluntary_ctxt_switches" => status.sleeps = first.parse().unwrap_or(0),
                "x86_Thread_features" => {
                    status.shadow_stack = value.split_whitespace().any(|word| word == "shstk");
                }
                "CapPrm" => status.permitted = mask(),
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
    refuse_foreign_proc()?;
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
    // One of ours hands it over when it is to be traced.
    if status.tracer != 0 && !keeper::is_keeper(status.tracer) {
        return Err(ApplyError::NotPermitted(traced_by(pid, status.tracer)));
    }
    Ok(status)
}

/// When a process began, in the kernel's clock ticks (`/proc/PID/stat`, field 22, counted behind the name): with it, a
/// pid is that process's alone.
#[must_use]
pub fn began(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let began = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    began.unwrap_or_default().to_owned()
}

/// What failed, or was not found, because the process has ended meanwhile is told by that: its memory and its
/// threads go one after the other, with an error of their own each.
#[must_use]
pub fn told_by_its_end(pid: i32, cause: ApplyError) -> ApplyError {
    // The last thread lets the memory go while the others still count as threads.
    let ended = || Status::of(pid).is_none_or(|status| !status.has_memory && !is_outlived(pid));
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

/// What a shadow stack forbids.
///
/// Redirects and stubs only jump, and return addresses are never written, so updated code runs under one
/// as it did (SDM volume 1, 17.2). But a borrowed thread saves itself by a `ret` and an `rt_sigreturn` that its
/// shadow stack knows nothing of (`setup_signal_shadow_stack`, arch/x86/kernel/shstk.c).
///
/// # Errors
/// The refusal.
pub fn refuse_shadow_stack(pid: i32, status: &Status) -> Result<(), ApplyError> {
    if !status.shadow_stack {
        return Ok(());
    }
    Err(ApplyError::Unsuitable(format!(
        "process {pid} runs with a shadow stack: if dsu-guardian were killed in the middle of a system call that \
         it makes there, that would end the process; start it without \
         (GLIBC_TUNABLES=glibc.cpu.x86_shstk=off)"
    )))
}

/// The numbers in `/proc` must be those by which processes are traced.
fn refuse_foreign_proc() -> Result<(), ApplyError> {
    let shown = std::fs::read_link("/proc/self").unwrap_or_default();
    if shown.to_str() == Some(&*std::process::id().to_string()) {
        return Ok(());
    }
    Err(ApplyError::NotPermitted(
        "/proc is that of another PID namespace, in which numbers mean other processes: mount one of this \
         namespace (unshare --mount-proc), or run dsu-apply where /proc is from"
            .into(),
    ))
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
    let me = Status::of(std::process::id().cast_signed()).unwrap_or_default();
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let owner = std::fs::metadata(format!("/proc/{pid}/status")).map_or(status.uid, |m| m.uid());
    let why = Refusal {
        me: nix::unistd::geteuid().as_raw(),
        user: status.uid,
        // Files in /proc of one that is not dumpable are root's (proc(5)).
        dumpable: owner == status.uid,
        more_capable: status.permitted & !me.permitted != 0,
        yama: yama.trim().parse().unwrap_or(0),
    };
    ApplyError::NotPermitted(format!("may not trace process {pid} ({cause}): {}", why.text()))
}

/// What decides about tracing (ptrace(2), "Ptrace access mode checking").
#[derive(Debug, Clone, Copy)]
struct Refusal {
    /// Who asks.
    me: u32,
    /// Whose process it is.
    user: u32,
    /// It lets itself be looked at.
    dumpable: bool,
    /// It has capabilities that the asker lacks.
    more_capable: bool,
    /// `kernel.yama.ptrace_scope`, 0 where there is no Yama.
    yama: u32,
}

impl Refusal {
    fn text(self) -> String {
        let Self { me, user, yama, .. } = self;
        if me != user && me != 0 {
            return format!(
                "it belongs to user {user} and you are user {me}: run dsu-apply as root"
            );
        }
        if yama == 3 {
            return "the system forbids all tracing (kernel.yama.ptrace_scope = 3) until it is restarted".into();
        }
        if me == 0 {
            return "a container or a security module forbids it: run dsu-apply as root with CAP_SYS_PTRACE, \
                    outside of the container"
                .into();
        }
        if !self.dumpable {
            return "it does not let itself be looked at (prctl PR_SET_DUMPABLE, or it has changed its user): \
                    run dsu-apply as root"
                .into();
        }
        if self.more_capable {
            return "it has capabilities that you lack: run dsu-apply as root".into();
        }
        if yama > 0 {
            return format!(
                "the system restricts tracing (kernel.yama.ptrace_scope = {yama}): run dsu-apply as root"
            );
        }
        "it may be in a container, or a security module forbids it: run dsu-apply as root with \
         CAP_SYS_PTRACE"
            .into()
    }
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

    #[test]
    fn shadow_stacks_are_refused() {
        let of = |features: &str| {
            let text = format!("Name:\ta\nx86_Thread_features:\t{features}\nVmSize:\t1 kB\n");
            refuse_shadow_stack(7, &Status::parse(&text))
        };
        for features in ["", "wrss"] {
            assert!(of(features).is_ok(), "{features}");
        }
        for features in ["shstk ", "shstk wrss "] {
            let error = of(features).unwrap_err();
            assert_eq!(error.exit(), crate::ExitCode::Unsuitable);
            assert!(error.to_string().contains("x86_shstk=off"), "{error}");
        }
    }

    #[test]
    fn refusals_say_the_way_out() {
        let base = Refusal { me: 5, user: 5, dumpable: true, more_capable: false, yama: 0 };
        for (refusal, words) in [
            (Refusal { user: 6, ..base }, "belongs to user 6 and you are user 5"),
            (Refusal { dumpable: false, yama: 1, ..base }, "PR_SET_DUMPABLE"),
            (Refusal { more_capable: true, ..base }, "capabilities that you lack"),
            (Refusal { yama: 1, ..base }, "kernel.yama.ptrace_scope = 1"),
            (Refusal { yama: 2, ..base }, "kernel.yama.ptrace_scope = 2"),
            (Refusal { me: 0, ..base }, "outside of the container"),
            (base, "security module"),
        ] {
            let text = refusal.text();
            assert!(text.contains(words) && text.contains("run dsu-apply as root"), "{text}");
        }
        let none = Refusal { me: 0, yama: 3, ..base }.text();
        assert!(none.contains("until it is restarted"), "{none}");
    }
}
