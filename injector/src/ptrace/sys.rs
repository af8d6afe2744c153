//! The system calls, one function each: the only unsafe code of the project.
//!
//! Each takes plain numbers and gives plain numbers or an errno; what may be called when is the
//! matter of the types above it. nix is not used for these: its wait status has no real-time
//! signals.
#![allow(unsafe_code)]

use crate::faults::{self, Call};
use crate::target::bpf::Instruction;
use libc::{c_int, c_long, c_uint, c_void};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Registers of a stopped thread, as `struct user_regs_struct` of sys/user.h.
pub type Registers = libc::user_regs_struct;

/// The one call of ptrace(2). A request that gives a word gives it as its result.
///
/// # Safety
/// `data` is what the request takes: a number, or a pointer to something whole and alive over the call that
/// the kernel may read or fill.
unsafe fn ptrace(
    request: c_uint,
    tid: i32,
    address: usize,
    data: *mut c_void,
) -> Result<c_long, Errno> {
    faults::pass(Call::Ptrace(request))?;
    // A word that was asked for may be -1: an error is known by errno alone.
    Errno::clear();
    // SAFETY: by the contract of this function.
    let result = unsafe { libc::ptrace(request, tid, address, data) };
    match Errno::last() {
        Errno::UnknownErrno => Ok(result),
        errno if result == -1 => Err(errno),
        _ => Ok(result),
    }
}

/// A `ptrace` request whose address and data are numbers.
fn request(request: c_uint, tid: i32, address: usize, data: usize) -> Result<c_long, Errno> {
    // SAFETY: the callers below only make requests that the kernel takes by value: address and data
    // are not pointers into this process.
    unsafe { ptrace(request, tid, address, std::ptr::without_provenance_mut(data)) }
}

/// How long a thread may be waited for that is executing another program.
const SEIZE_WITHIN: Duration = Duration::from_millis(50);

/// `PTRACE_SEIZE`: the thread runs on, traced. `EINTR` when its process is executing another program: that
/// waits for the end of its other threads, and those that are traced end only when their tracer asks for
/// them; waiting for it here would be for ever (`cred_guard_mutex` in kernel/ptrace.c and fs/exec.c).
pub fn seize(tid: i32, options: c_int) -> Result<(), Errno> {
    let options = usize::try_from(options).map_err(|_| Errno::EINVAL)?;
    let _alarm = Alarm::set(SEIZE_WITHIN);
    request(libc::PTRACE_SEIZE, tid, 0, options).map(drop)
}

/// `PTRACE_INTERRUPT`: the thread stops soon.
pub fn interrupt(tid: i32) -> Result<(), Errno> {
    request(libc::PTRACE_INTERRUPT, tid, 0, 0).map(drop)
}

/// How a stopped thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// `PTRACE_CONT`: until something happens.
    Freely,
    /// `PTRACE_SYSCALL`: until it enters or leaves a system call.
    ToSystemCall,
    /// `PTRACE_SINGLESTEP`: for one instruction.
    Step,
    /// `PTRACE_DETACH`: untraced.
    Untraced,
}

/// Lets a stopped thread go on, delivering `signal` (0: none).
pub fn resume(tid: i32, how: Resume, signal: i32) -> Result<(), Errno> {
    let kind = match how {
        Resume::Freely => libc::PTRACE_CONT,
        Resume::ToSystemCall => libc::PTRACE_SYSCALL,
        Resume::Step => libc::PTRACE_SINGLESTEP,
        Resume::Untraced => libc::PTRACE_DETACH,
    };
    request(kind, tid, 0, usize::try_from(signal).map_err(|_| Errno::EINVAL)?).map(drop)
}

/// `PTRACE_GETREGS`.
pub fn registers(tid: i32) -> Result<Registers, Errno> {
    let mut registers = std::mem::MaybeUninit::<Registers>::zeroed();
    // SAFETY: data points to a whole `user_regs_struct`, which the kernel fills.
    unsafe { ptrace(libc::PTRACE_GETREGS, tid, 0, registers.as_mut_ptr().cast())? };
    // SAFETY: it was zeroed, and every bit pattern is a valid `user_regs_struct` of integers.
    Ok(unsafe { registers.assume_init() })
}

/// Registers that are all zero.
#[cfg(test)]
pub fn no_registers() -> Registers {
    // SAFETY: every bit pattern is a valid `user_regs_struct` of integers.
    unsafe { std::mem::zeroed() }
}

/// The program counter of a stopped thread (`PTRACE_PEEKUSER`), for a third of what all registers cost.
pub fn program_counter(tid: i32) -> Result<u64, Errno> {
    let offset =
        std::mem::offset_of!(libc::user, regs) + std::mem::offset_of!(libc::user_regs_struct, rip);
    peek_user(tid, offset)
}

/// What the system call of a stopped thread gave, if it was in one (`PTRACE_PEEKUSER`).
pub fn result_register(tid: i32) -> Result<u64, Errno> {
    let offset =
        std::mem::offset_of!(libc::user, regs) + std::mem::offset_of!(libc::user_regs_struct, rax);
    peek_user(tid, offset)
}

/// A word of a stopped thread's `struct user`.
fn peek_user(tid: i32, offset: usize) -> Result<u64, Errno> {
    // The C library stores the word itself and returns it.
    request(libc::PTRACE_PEEKUSER, tid, offset, 0).map(c_long::cast_unsigned)
}

/// `PTRACE_SETREGS`.
pub fn set_registers(tid: i32, registers: &Registers) -> Result<(), Errno> {
    let data: *const Registers = registers;
    // SAFETY: data points to a whole `user_regs_struct`, which the kernel only reads.
    unsafe { ptrace(libc::PTRACE_SETREGS, tid, 0, data.cast_mut().cast()) }.map(drop)
}

/// The `si_code` of the signal that a thread stopped with (`PTRACE_GETSIGINFO`).
pub fn signal_code(tid: i32) -> Result<c_int, Errno> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: data points to a whole `siginfo_t`, which the kernel fills.
    unsafe { ptrace(libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr().cast())? };
    // SAFETY: it was zeroed, and every bit pattern of the fields read is valid.
    Ok(unsafe { info.assume_init() }.si_code)
}

/// Not in libc (uapi/linux/ptrace.h).
const PTRACE_SECCOMP_GET_FILTER: c_uint = 0x420c;

/// The instructions of a stopped thread's seccomp filter with this number, the oldest first
/// (`PTRACE_SECCOMP_GET_FILTER`). `ENOENT` where there are not so many.
pub fn seccomp_filter(tid: i32, number: usize) -> Result<Vec<Instruction>, Errno> {
    let request = PTRACE_SECCOMP_GET_FILTER;
    // SAFETY: without a place to put them, the kernel gives their number alone.
    let len = unsafe { ptrace(request, tid, number, std::ptr::null_mut())? };
    let none = libc::sock_filter { code: 0, jt: 0, jf: 0, k: 0 };
    let mut filter = vec![none; usize::try_from(len).map_err(|_| Errno::EINVAL)?];
    // SAFETY: the place holds as many instructions as the kernel said it would write. The thread stands still,
    // and a filter with that number is never changed.
    unsafe { ptrace(request, tid, number, filter.as_mut_ptr().cast())? };
    let one =
        |f: &libc::sock_filter| Instruction { code: f.code, if_true: f.jt, if_false: f.jf, k: f.k };
    Ok(filter.iter().map(one).collect())
}

/// `PTRACE_SETOPTIONS`.
pub fn set_options(tid: i32, options: c_int) -> Result<(), Errno> {
    let options = usize::try_from(options).map_err(|_| Errno::EINVAL)?;
    request(libc::PTRACE_SETOPTIONS, tid, 0, options).map(drop)
}

/// What goes with the event that a thread stopped for: the id of the thread it has made
/// (`PTRACE_GETEVENTMSG`).
pub fn event_message(tid: i32) -> Result<u64, Errno> {
    let mut message: libc::c_ulong = 0;
    let data: *mut libc::c_ulong = &raw mut message;
    // SAFETY: data points to an `unsigned long`, which the kernel fills.
    unsafe { ptrace(libc::PTRACE_GETEVENTMSG, tid, 0, data.cast()) }.map(|_| message)
}

/// The register set of the extended state (elf.h).
const NT_X86_XSTATE: usize = 0x202;
/// Room for it: AMX takes 11 kB.
const MOST_XSTATE: usize = 1 << 16;

/// The extended processor state of a stopped thread, as an XSAVE image (`PTRACE_GETREGSET`).
pub fn extended_state(tid: i32) -> Result<Vec<u8>, Errno> {
    let mut state = vec![0u8; MOST_XSTATE];
    let mut place =
        libc::iovec { iov_base: state.as_mut_ptr().cast::<c_void>(), iov_len: state.len() };
    let data: *mut libc::iovec = &raw mut place;
    // SAFETY: data points to an `iovec` that describes the buffer, whole and alive over the call; the
    // kernel fills it as far as the `iovec` allows, and sets its length.
    unsafe { ptrace(libc::PTRACE_GETREGSET, tid, NT_X86_XSTATE, data.cast())? };
    state.truncate(place.iov_len);
    Ok(state)
}

/// Where the last of these features ends in an XSAVE image (SDM volume 1, 13.2: CPUID leaf 0xd).
#[must_use]
#[allow(unused_unsafe)]
pub fn xsave_end(features: u64) -> usize {
    let end = |feature: u32| {
        // SAFETY: whoever has an XSAVE image has a processor with this leaf.
        let leaf = unsafe { std::arch::x86_64::__cpuid_count(0xd, feature) };
        leaf.eax.saturating_add(leaf.ebx) as usize
    };
    (2..63).filter(|f| features >> f & 1 == 1).map(end).max().unwrap_or(0)
}

/// Breaks off a seizing that takes too long.
struct Alarm {
    timer: Option<libc::timer_t>,
    before: libc::sigset_t,
}

impl Alarm {
    /// Its signal: one that no library uses.
    fn signal() -> c_int {
        libc::SIGRTMAX() - 1
    }

    fn set(after: Duration) -> Self {
        static HANDLER: std::sync::Once = std::sync::Once::new();
        HANDLER.call_once(|| {
            // SAFETY: an action of zeroes is a valid one, with an empty mask.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = break_off as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            // SAFETY: the action is whole and alive over the call; the old one is not asked for. The handler
            // is one that takes three arguments, as its flag says.
            unsafe { libc::sigaction(Self::signal(), &raw const action, std::ptr::null_mut()) };
        });
        // SAFETY: a set of zeroes is the empty one; the sets are whole and alive over the calls.
        let before = unsafe {
            let (mut one, mut before) = std::mem::zeroed::<(libc::sigset_t, libc::sigset_t)>();
            libc::sigaddset(&raw mut one, Self::signal());
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const one, &raw mut before);
            before
        };
        Self { timer: Self::timer(after), before }
    }

    /// A timer whose signal comes to this thread; `None` where there are too many.
    fn timer(after: Duration) -> Option<libc::timer_t> {
        // SAFETY: an event and a time of zeroes are valid ones.
        let (mut event, mut time) =
            unsafe { std::mem::zeroed::<(libc::sigevent, libc::itimerspec)>() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = Self::signal();
        event.sigev_notify_thread_id = nix::unistd::gettid().as_raw();
        time.it_value.tv_nsec = c_long::from(after.subsec_nanos().cast_signed());
        // The signal may come between two instructions of which neither is the call: once more, then.
        time.it_interval = time.it_value;
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: event and time are whole and alive over the calls, and the timer is one that was made.
        unsafe {
            let made =
                libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == 0;
            made.then(|| {
                libc::timer_settime(timer, 0, &raw const time, std::ptr::null_mut());
                timer
            })
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer was made and is deleted once; the set is whole, and alive over the call.
        unsafe {
            if let Some(timer) = self.timer {
                libc::timer_delete(timer);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut());
        }
    }
}

/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// The kernel begins the call anew behind a handler (`ERESTARTNOINTR`): where it stands before it then, the
/// call is left out, and gives `EINTR`.
extern "C" fn break_off(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let place = |register: c_int| usize::try_from(register).unwrap_or(0);
    // SAFETY: the kernel gives such a handler the context that it has interrupted, for it alone.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let [rip, rax, rdi] = [libc::REG_RIP, libc::REG_RAX, libc::REG_RDI].map(place);
    let seizes =
        registers[rax] == libc::SYS_ptrace && registers[rdi] == i64::from(libc::PTRACE_SEIZE);
    let Ok(at) = usize::try_from(registers[rip]) else { return };
    // SAFETY: the processor was about to execute what is there: at least a byte, and more where that is
    // the first one of this instruction.
    let code = || unsafe { std::ptr::with_exposed_provenance::<[u8; 2]>(at).read_unaligned() };
    if seizes && code() == SYSCALL {
        registers[rip] += 2;
        registers[rax] = -i64::from(libc::EINTR);
    }
}

/// Bytes of the kernel's signal set.
const SIGNAL_SET: usize = 8;

/// The signals that a stopped thread blocks (`PTRACE_GETSIGMASK`).
pub fn signal_mask(tid: i32) -> Result<u64, Errno> {
    let mut mask = 0u64;
    let data: *mut u64 = &raw mut mask;
    // SAFETY: data points to the 8 bytes whose number is given, which the kernel fills.
    unsafe { ptrace(libc::PTRACE_GETSIGMASK, tid, SIGNAL_SET, data.cast()) }.map(|_| mask)
}

/// Sets the signals that a stopped thread blocks (`PTRACE_SETSIGMASK`).
pub fn set_signal_mask(tid: i32, mask: u64) -> Result<(), Errno> {
    let data: *const u64 = &raw const mask;
    // SAFETY: data points to the 8 bytes whose number is given, which the kernel only reads.
    unsafe { ptrace(libc::PTRACE_SETSIGMASK, tid, SIGNAL_SET, data.cast_mut().cast()) }.map(drop)
}

/// Reads debug register `number` (0 to 7) of a stopped thread (`PTRACE_PEEKUSER`).
pub fn debug_register(tid: i32, number: usize) -> Result<u64, Errno> {
    peek_user(tid, std::mem::offset_of!(libc::user, u_debugreg) + number.min(7) * 8)
}

/// Writes debug register `number` (0 to 7) of a stopped thread (`PTRACE_POKEUSER`).
pub fn set_debug_register(tid: i32, number: usize, value: u64) -> Result<(), Errno> {
    let offset = std::mem::offset_of!(libc::user, u_debugreg) + number.min(7) * 8;
    let value = usize::try_from(value).map_err(|_| Errno::EINVAL)?;
    request(libc::PTRACE_POKEUSER, tid, offset, value).map(drop)
}

/// How long a socket of a process waits for input or for room (`SO_RCVTIMEO`, `SO_SNDTIMEO`); zero: for ever.
pub fn socket_timeout(pid: i32, descriptor: c_int, receives: bool) -> Result<Duration, Errno> {
    // SAFETY: no pointers are passed.
    let process = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let process = owned(process)?;
    // SAFETY: no pointers are passed.
    let copy = Errno::result(unsafe {
        libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0)
    })?;
    let copy = owned(copy)?;
    let mut time = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut len = libc::socklen_t::try_from(size_of::<libc::timeval>()).unwrap_or(0);
    let what = if receives { libc::SO_RCVTIMEO } else { libc::SO_SNDTIMEO };
    let data: *mut libc::timeval = &raw mut time;
    let size: *mut libc::socklen_t = &raw mut len;
    // SAFETY: data points to a whole `timeval` whose size is given; both are alive over the call.
    Errno::result(unsafe {
        libc::getsockopt(copy.as_raw_fd(), libc::SOL_SOCKET, what, data.cast(), size)
    })?;
    let seconds = u64::try_from(time.tv_sec).map_err(|_| Errno::EINVAL)?;
    let micros = u64::try_from(time.tv_usec).map_err(|_| Errno::EINVAL)?;
    Ok(Duration::from_secs(seconds) + Duration::from_micros(micros))
}

/// A descriptor that the kernel has just made for this process.
fn owned(descriptor: c_long) -> Result<OwnedFd, Errno> {
    let descriptor = c_int::try_from(descriptor).map_err(|_| Errno::EBADF)?;
    // SAFETY: it is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Sends a signal to a process.
pub fn send(pid: i32, signal: Signal) -> Result<(), Errno> {
    faults::pass(Call::Signal(signal))?;
    kill(Pid::from_raw(pid), signal)
}

/// `waitpid` for one thread without blocking; `None` when nothing has happened to it.
pub fn poll(tid: i32) -> Result<Option<c_int>, Errno> {
    let mut status = 0;
    if let Some(untold) = faults::untold(tid) {
        status = untold;
    } else {
        // SAFETY: status is an int that the kernel may write.
        let result = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
        if Errno::result(result)? == 0 {
            return Ok(None);
        }
    }
    faults::pass_wait(tid, status).map(Some)
}

/// The signals that are blocked here and wait (sigpending(2)): bit `n - 1` for signal `n`.
pub fn waiting_signals() -> u64 {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the set is whole and alive over the call, which fills it.
    if unsafe { libc::sigpending(set.as_mut_ptr()) } != 0 {
        return 0;
    }
    // SAFETY: it was zeroed and filled; any content is a valid set.
    let set = unsafe { set.assume_init() };
    // SAFETY: the set is whole and alive over the call, which reads it.
    let waits = |signal: &c_int| unsafe { libc::sigismember(&raw const set, *signal) == 1 };
    (1..32).filter(waits).fold(0, |all, signal| all | 1 << (signal - 1))
}

/// Sleeps until something has happened to a traced thread (SIGCHLD, which must be blocked), or for this
/// long.
pub fn sleep_until_child(most: Duration) {
    // Whether it was the signal or the time does not matter: the caller looks.
    take_signal(1 << (libc::SIGCHLD - 1), most);
}

/// A new process, a copy of this one (fork(2)): `None` in it, its id here.
///
/// # Errors
/// Why there is none. `EBUSY` where this process has more than one thread: the copy would have one only,
/// and the locks of the others for ever.
pub fn fork() -> Result<Option<i32>, Errno> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(2, Iterator::count);
    if threads != 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: with one thread, nothing in the copy waits for another one.
    let pid = Errno::result(unsafe { libc::fork() })?;
    Ok((pid != 0).then_some(pid))
}

/// Waits for one of these signals, which must be blocked (bit `n - 1` for signal `n`), and takes it; `None`
/// after `most`.
pub fn take_signal(signals: u64, most: Duration) -> Option<c_int> {
    let (set, most) = (signal_set(signals), timespec(most));
    // SAFETY: set and time are whole and alive over the call; the information about the signal is not asked for.
    let taken =
        unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const most) };
    (taken > 0).then_some(taken)
}

/// Closes all files but this one; standard input, output and error are nowhere from now on.
pub fn close_all_but(kept: BorrowedFd<'_>) -> Result<(), Errno> {
    let kept = kept.as_raw_fd();
    let nowhere = std::fs::File::options().read(true).write(true).open("/dev/null");
    let nowhere = nowhere.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    for standard in 0..3 {
        // SAFETY: no pointers are passed; the standard ones are owned by nobody.
        Errno::result(unsafe { libc::dup2(nowhere.as_raw_fd(), standard) })?;
    }
    drop(nowhere);
    let close = |first: c_int, last: c_int| -> Result<(), Errno> {
        let [first, last] = [first, last].map(c_int::cast_unsigned);
        if first > last {
            return Ok(());
        }
        // SAFETY: no pointers are passed. Whoever owned these files is a copy that does not run any more: this
        // process is a fork that never returns.
        Errno::result(unsafe { libc::close_range(first, last, 0) }).map(drop)
    };
    close(3, kept - 1)?;
    close(kept + 1, c_int::MAX)
}

/// A file that can be read when one of these signals, which must be blocked, waits (bit `n - 1` for signal `n`).
pub fn signal_input(signals: u64) -> Result<OwnedFd, Errno> {
    let set = signal_set(signals);
    // SAFETY: the set is whole and alive over the call.
    let input = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
    owned(c_long::from(Errno::result(input)?))
}

/// Waits until one of these files can be read, or for this long; says of which ones that is so.
pub fn wait_for_input(files: &[BorrowedFd<'_>], most: Duration) -> Vec<bool> {
    let poll = |file: &BorrowedFd<'_>| libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polled: Vec<_> = files.iter().map(poll).collect();
    let most = timespec(most);
    let len = libc::nfds_t::try_from(polled.len()).unwrap_or(0);
    // SAFETY: there are so many entries; they and the time are whole and alive over the call. The mask of signals
    // stays.
    unsafe { libc::ppoll(polled.as_mut_ptr(), len, &raw const most, std::ptr::null()) };
    polled.iter().map(|one| one.revents != 0).collect()
}

/// Process and user at the other end of a connection (`SO_PEERCRED`): who has made it, or has listened for it.
pub fn peer(stream: BorrowedFd<'_>) -> Result<(i32, u32), Errno> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    let data: *mut libc::ucred = &raw mut peer;
    // SAFETY: data points to a whole `ucred` whose size is given; both are alive over the call.
    Errno::result(unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            data.cast(),
            &raw mut len,
        )
    })?;
    Ok((peer.pid, peer.uid))
}

/// `CLOCK_MONOTONIC`, as a number that another process understands.
pub fn monotonic_clock() -> Duration {
    clock(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_BOOTTIME`.
pub fn boot_clock() -> Duration {
    clock(libc::CLOCK_BOOTTIME)
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut now = timespec(Duration::ZERO);
    // SAFETY: the time is whole and alive over the call, which fills it.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

fn timespec(time: Duration) -> libc::timespec {
    let nanos = c_long::from(time.subsec_nanos().cast_signed());
    let seconds = libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX);
    libc::timespec { tv_sec: seconds, tv_nsec: nanos }
}

/// The signals of such a mask.
fn signal_set(signals: u64) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the set is initialized by sigemptyset before anything else looks at it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in (1..32).filter(|signal| signals >> (signal - 1) & 1 == 1) {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Sets this thread's scheduling policy and real-time priority.
pub fn set_scheduler(policy: c_int, priority: c_int) -> Result<(), Errno> {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameter is a whole `sched_param`, which the kernel reads.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
    Errno::result(result).map(drop)
}

/// This thread's scheduling policy.
pub fn scheduler() -> Result<c_int, Errno> {
    // SAFETY: no pointers are passed.
    Errno::result(unsafe { libc::sched_getscheduler(0) })
}
