//! A system call that a thread waits in, with its time-out, as `/proc` shows it; nothing is stopped for it.
//!
//! Takes a thread; gives when it began to wait and until when it does, for those calls of which the kernel
//! forgets that when they are interrupted. The beginning is the moment at which the thread was last taken
//! from its processor, which the scheduler has noted by that processor's clock. It is never taken for earlier
//! than it was; so no time-out comes early. (Linux from 6.12 on may move a thread that has just gone to sleep to another
//! processor, whose clock may differ by what was stolen from the two; what is certain then is that it has not waited
//! before it was there.)

use crate::ptrace::restart::SYS_IO_PGETEVENTS;
use crate::ptrace::sched::Beside;
use crate::ptrace::sys;
use crate::target::process::Status;
use nix::errno::Errno;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Which call of which frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Number of the call.
    pub call: i64,
    /// Stack pointer.
    pub stack: u64,
    /// Behind the `syscall` instruction.
    pub at: u64,
}

/// A wait with an end.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// Of which call.
    pub frame: Frame,
    /// Its time-out comes then.
    pub until: Instant,
    /// And the call gives this, as `rax` holds it.
    pub result: u64,
    /// How often the thread had gone to sleep.
    pub sleeps: u64,
}

impl Wait {
    /// What a thread waits in, if it is such a call.
    #[must_use]
    pub fn of(tid: i32) -> Option<Self> {
        let (frame, arguments) = call(tid)?;
        let (timeout, errno) = timeout(tid, frame.call, &arguments)?;
        let sleeps = Status::of(tid)?.sleeps;
        let since = began(tid)?;
        // It has not moved meanwhile.
        let same = call(tid)?.0 == frame && sleeps == Status::of(tid)?.sleeps;
        let result = errno.map_or(0, |errno| (-(errno as i64)).cast_unsigned());
        same.then_some(Self { frame, until: since.checked_add(timeout)?, result, sleeps })
    }

    /// Whether a thread has gone to sleep once since: to be stopped in that call.
    #[must_use]
    pub fn was_interrupted(&self, tid: i32) -> bool {
        Status::of(tid).is_some_and(|status| status.sleeps == self.sleeps + 1)
    }
}

/// `/proc/TID/syscall`: number, arguments, stack pointer, program counter.
fn call(tid: i32) -> Option<(Frame, [u64; 6])> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?;
    parse(&text)
}

fn parse(text: &str) -> Option<(Frame, [u64; 6])> {
    let mut fields = text.split_whitespace();
    let call = fields.next()?.parse().ok()?;
    let hex = |field: &str| u64::from_str_radix(field.strip_prefix("0x")?, 16).ok();
    let mut words = fields.map_while(hex);
    let mut arguments = [0; 6];
    for place in &mut arguments {
        *place = words.next()?;
    }
    Some((Frame { call, stack: words.next()?, at: words.next()? }, arguments))
}

/// Flags of `io_uring_enter` (uapi/linux/io_uring.h): its argument is a `struct io_uring_getevents_arg`; its time
/// is a moment, which the kernel does not forget.
const EXT_ARG: u64 = 1 << 3;
const ABS_TIMER: u64 = 1 << 5;
/// Offset of the time in that structure.
const RING_TIME: u64 = 16;

/// How long it waits, and what error it gives then (none: 0). `None` where it waits for ever.
fn timeout(tid: i32, call: i64, arguments: &[u64; 6]) -> Option<(Duration, Option<Errno>)> {
    let [first, _, third, fourth, fifth, _] = *arguments;
    let at = |place: u64| timespec(tid, place);
    let receives = || Some((of_socket(tid, first, true)?, Some(Errno::EAGAIN)));
    let sends = || Some((of_socket(tid, first, false)?, Some(Errno::EAGAIN)));
    match call {
        // Milliseconds; negative ones are for ever.
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => {
            let ms = i32::try_from((fourth & 0xffff_ffff).cast_signed()).ok()?;
            Some((Duration::from_millis(u64::try_from(ms).ok()?), None))
        }
        libc::SYS_epoll_pwait2 => Some((at(fourth)?, None)),
        libc::SYS_io_getevents | SYS_IO_PGETEVENTS => Some((at(fifth)?, None)),
        libc::SYS_io_uring_enter if fourth & (EXT_ARG | ABS_TIMER) == EXT_ARG => {
            let time = word(tid, fifth.checked_add(RING_TIME)?)?;
            Some((at(time)?, Some(Errno::ETIME)))
        }
        libc::SYS_semtimedop => Some((at(fourth)?, Some(Errno::EAGAIN))),
        libc::SYS_rt_sigtimedwait => Some((at(third)?, Some(Errno::EAGAIN))),
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_accept
        | libc::SYS_accept4 => receives(),
        libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg => sends(),
        libc::SYS_connect => {
            let (time, _) = sends()?;
            // `unix_stream_connect` (net/unix/af_unix.c); `__inet_stream_connect` (net/ipv4/af_inet.c).
            let errno = match family(tid, arguments[1])? {
                libc::AF_UNIX => Errno::EAGAIN,
                _ => Errno::EINPROGRESS,
            };
            Some((time, Some(errno)))
        }
        _ => None,
    }
}

/// Bytes of the thread's memory.
fn bytes<const N: usize>(tid: i32, at: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let memory = File::open(format!("/proc/{tid}/mem")).ok().filter(|_| at != 0)?;
    memory.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

fn word(tid: i32, at: u64) -> Option<u64> {
    bytes(tid, at).map(u64::from_le_bytes)
}

/// Of a socket's address.
fn family(tid: i32, at: u64) -> Option<i32> {
    bytes(tid, at).map(|family| i32::from(u16::from_le_bytes(family)))
}

/// A `struct timespec` of the thread's.
fn timespec(tid: i32, at: u64) -> Option<Duration> {
    let bytes: [u8; 16] = bytes(tid, at)?;
    let words = bytes.as_chunks::<8>().0;
    let [seconds, nanos] = [words.first()?, words.get(1)?].map(|word| u64::from_le_bytes(*word));
    (seconds < 1 << 31).then_some(Duration::new(seconds, u32::try_from(nanos).ok()?))
}

/// The time-out of a socket of the process's.
fn of_socket(tid: i32, descriptor: u64, receives: bool) -> Option<Duration> {
    let pid = Status::of(tid)?.tgid;
    let descriptor = i32::try_from(descriptor & 0xffff_ffff).ok()?;
    let timeout = sys::socket_timeout(pid, descriptor, receives).ok()?;
    (!timeout.is_zero()).then_some(timeout)
}

/// When a thread that sleeps was taken from its processor.
fn began(tid: i32) -> Option<Instant> {
    let theirs = last_turn(&format!("/proc/{tid}/sched"))?;
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    // proc(5), fields 39 and 22, counted behind the name.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let processor: usize = fields.get(36)?.parse().ok()?;
    let born = born(fields.get(19)?.parse().ok()?)?;
    let known = CLOCKS.with_borrow(|clocks| clocks.get(&processor).copied());
    let Clock { now, shows } = match known.filter(|clock| clock.shows >= theirs) {
        Some(clock) => clock,
        None => Clock::beside(tid, processor)?,
    };
    let since = now.checked_sub(shows.checked_sub(theirs)?);
    Some(since.map_or(born, |since| since.max(born)))
}

/// When a thread was made that was so in this tick of the clock since boot; at the latest.
fn born(tick: u64) -> Option<Instant> {
    /// `USER_HZ` is 100 (include/asm-generic/param.h).
    const TICK: u64 = 10_000_000;
    let made = Duration::from_nanos(tick.checked_add(1)?.checked_mul(TICK)?);
    // One that is younger than a tick may have been made just now.
    let age = sys::boot_clock().saturating_sub(made);
    Instant::now().checked_sub(age)
}

/// What the scheduler's clock of a processor shows at a moment.
#[derive(Debug, Clone, Copy)]
struct Clock {
    now: Instant,
    shows: Duration,
}

thread_local! {
    /// Read last, by processor. What is later than these is read anew: such a clock may stand still (time that is
    /// stolen from a virtual machine), but does not go ahead.
    static CLOCKS: RefCell<BTreeMap<usize, Clock>> = const { RefCell::new(BTreeMap::new()) };
}

impl Clock {
    /// Reads that of the processor that a thread sleeps on.
    fn beside(tid: i32, processor: usize) -> Option<Self> {
        let _there = Some(Beside::thread(tid, tid)).filter(Beside::is_there)?;
        // Off it and on it again: so the scheduler notes the time.
        std::thread::sleep(Duration::from_micros(1));
        let shows = last_turn("/proc/thread-self/sched")?;
        // Behind it: what takes a while in between makes a time-out late, not early.
        let clock = Self { now: Instant::now(), shows };
        CLOCKS.with_borrow_mut(|clocks| clocks.insert(processor, clock));
        Some(clock)
    }
}

/// `se.exec_start`, in milliseconds of the processor's clock.
fn last_turn(path: &str) -> Option<Duration> {
    let text = std::fs::read_to_string(path).ok()?;
    exec_start(&text)
}

fn exec_start(text: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.starts_with("se.exec_start"))?;
    let (ms, rest) = line.rsplit(':').next()?.trim().split_once('.')?;
    let nanos: u64 = rest.parse().ok().filter(|_| rest.len() == 6)?;
    Some(Duration::from_millis(ms.parse().ok()?) + Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kernel_writes_them() {
        let text = "232 0x5 0x7ffe10 0x10 0x1f4 0x0 0x8 0x7ffe00 0x7f01\n";
        let (frame, arguments) = parse(text).unwrap();
        assert_eq!(frame, Frame { call: 232, stack: 0x7ffe00, at: 0x7f01 });
        assert_eq!(timeout(0, 232, &arguments), Some((Duration::from_millis(500), None)));
        assert!(parse("running\n").is_none() && parse("-1 0x7ffe00 0x7f01\n").is_none());
        let mut for_ever = arguments;
        for_ever[3] = 0xffff_ffff;
        assert_eq!(timeout(0, 232, &for_ever), None);
        let sched =
            "a (1, #threads: 1)\n---\nse.exec_start          :      23471956.264798\nx : 1\n";
        assert_eq!(exec_start(sched), Some(Duration::from_nanos(23_471_956_264_798)));
    }

    /// What a wrong clock may say of a thread that has just been made.
    #[test]
    fn a_thread_has_not_waited_before_it_was_there() {
        let before = Instant::now();
        let made = std::thread::spawn(|| {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let tick = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
            born(tick.parse().unwrap()).unwrap()
        });
        let made = made.join().unwrap();
        assert!(made >= before, "{:?} too early", before - made);
        assert!(made <= Instant::now() && made - before < Duration::from_millis(500));
    }

    /// This thread sleeps while another one looks at it.
    #[test]
    fn since_when_a_thread_waits() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let waits = std::thread::spawn(move || {
            sender.send((nix::unistd::gettid().as_raw(), Instant::now())).unwrap();
            sys::take_signal(0, Duration::from_millis(400))
        });
        let (tid, begun) = receiver.recv().unwrap();
        std::thread::sleep(Duration::from_millis(150));
        let wait = Wait::of(tid).expect("it waits");
        let error = wait.until.duration_since(begun).as_micros();
        assert!((400_000..430_000).contains(&error), "{error}");
        waits.join().unwrap();
    }
}
