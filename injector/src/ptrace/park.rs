//! Threads that are handed to another tracer while they wait.
//!
//! A thread has one tracer, and between two of them it would run unseen: the call that it waits in could end and
//! begin anew, and nobody could tell whose time-out that is. So the giver leaves it in a call that does
//! nothing, on its lifeline ([`super::lifeline`]): until somebody gives it its registers back, it runs no
//! instruction of its own. The taker finds it there by the marks of that lifeline, and leads it back into its
//! call. If the taker does not come, because one of the two was killed, the thread saves itself after
//! [`PARKED`]; its time-out comes late then, and nothing else. The signals that come meanwhile wait.
//!
//! Takes kept threads and a connection ([`give`]), a few at a time, so that none stands for long; gives kept
//! threads on its other end ([`take`]). What cannot be handed over is said.

use super::borrow::{Borrowed, Deposit, Ground};
use super::footholds::Footholds;
use super::gate::Suspend;
use super::keep;
use super::lifeline::{self, Lifeline};
use super::process::seize;
use super::restart;
use super::sched::{Pace, Urgent};
use super::sys::{self, Registers};
use super::thread::{Running, Stopped};
use crate::address::ProcAddr;
use crate::target::maps::Maps;
use crate::target::memory::ProcessMemory;
use crate::target::process::Status;
use crate::target::waiting::{Frame, Wait};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A thread that nobody takes saves itself after this time.
const PARKED: Duration = Duration::from_millis(500);
/// Threads that are handed over at once.
const AT_ONCE: usize = 8;
/// How long one is waited for, which may have to wait for a processor.
const STOP_WITHIN: Duration = Duration::from_millis(500);
/// No message is longer: the lifeline of a thread takes some 14 kB at most.
const LONGEST: u32 = 1 << 20;

/// A thread that was left for another tracer.
#[derive(Debug, Serialize, Deserialize)]
struct Parked {
    tid: i32,
    /// What it waits in: call, stack pointer, place.
    frame: (i64, u64, u64),
    /// Until when: from the moment on at which it was sent.
    left: Duration,
    /// What its call gives then.
    result: u64,
    registers: [u64; 27],
    mask: u64,
    line: u64,
    before: Vec<u8>,
}

/// Some threads of a process.
#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    pid: i32,
    threads: Vec<Parked>,
    /// That moment, by the clock of whoever sends it.
    sent: Duration,
    /// Whether no more are to come.
    last: bool,
}

/// What has become of the threads of a process, seen from either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Given {
    /// So many are kept on.
    pub kept: usize,
    /// The last of their time-outs comes after this time.
    pub left: Duration,
    /// Of so many the time-out comes late.
    pub late: usize,
}

impl Given {
    /// With what has become of others.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            kept: self.kept + other.kept,
            left: self.left.max(other.left),
            late: self.late + other.late,
        }
    }
}

/// Sends a message: its length, and its content.
///
/// # Errors
/// Nobody is there any more.
pub fn send(mut stream: &UnixStream, message: &impl Serialize) -> std::io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(std::io::Error::other)?;
    let len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&len.to_le_bytes(), &bytes[..]].concat())
}

/// Receives one.
///
/// # Errors
/// None has come in time, or it is none.
pub fn receive<T: DeserializeOwned>(mut stream: &UnixStream) -> std::io::Result<T> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    if len > LONGEST {
        return Err(std::io::Error::other("a message that is too long"));
    }
    let mut bytes = Vec::new();
    stream.take(u64::from(len)).read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(std::io::Error::other)
}

/// The kept threads of a process, with what they wait in.
#[must_use]
pub fn kept_of(pid: i32) -> Vec<(i32, Wait)> {
    let is_of = |(tid, _): &(i32, Wait)| Status::of(*tid).is_some_and(|s| s.tgid == pid);
    keep::kept().into_iter().filter(is_of).collect()
}

/// Code and memory of a process whose threads are handed over.
struct Place {
    memory: ProcessMemory,
    maps: Rc<Maps>,
    footholds: Footholds,
}

impl Place {
    fn of(pid: i32) -> Option<Self> {
        let memory = ProcessMemory::open(pid).ok()?;
        let maps = Rc::new(Maps::of(pid).ok()?);
        let footholds = Footholds::find(&memory, &maps)?;
        Some(Self { memory, maps, footholds })
    }

    fn ground(&self) -> Ground<'_> {
        Ground {
            memory: &self.memory,
            maps: Rc::clone(&self.maps),
            footholds: self.footholds,
            suspend: Suspend::Mildly,
        }
    }
}

/// What becomes of threads that cannot be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// They are kept on here, if their time is short.
    Stay,
    /// They are let go.
    Go,
}

impl Batch {
    fn new(pid: i32, threads: Vec<(Instant, Parked)>, last: bool) -> Self {
        let (sent, now) = (sys::monotonic_clock(), Instant::now());
        let of = |(until, one): (Instant, Parked)| Parked {
            left: until.saturating_duration_since(now),
            ..one
        };
        Self { pid, threads: threads.into_iter().map(of).collect(), sent, last }
    }

    /// How long it was under way. In another time namespace (time_namespaces(7)) nobody can tell; time-outs come late
    /// then, by so much.
    fn age(&self) -> Duration {
        let age = sys::monotonic_clock().checked_sub(self.sent);
        age.filter(|age| *age < LONGEST_AGE).unwrap_or_default()
    }
}

/// Hands the kept threads of a process to whoever is at the other end.
///
/// # Errors
/// Nobody answers: threads that were under way then save themselves.
pub fn give(stream: &UnixStream, pid: i32, rest: Rest) -> std::io::Result<Given> {
    // Nobody else is to keep them waiting.
    let _urgent = Urgent::begin();
    let place = Place::of(pid);
    let threads: Vec<i32> = kept_of(pid).into_iter().map(|(tid, _)| tid).collect();
    // So that all is ready at the other end when the first one comes.
    send(stream, &Batch::new(pid, Vec::new(), threads.is_empty()))?;
    let mut sum: Given = receive(stream)?;
    if threads.is_empty() {
        return Ok(sum);
    }
    for some in threads.chunks(AT_ONCE) {
        let parked = park_all(some, place.as_ref(), rest);
        send(stream, &Batch::new(pid, parked, false))?;
        sum = sum.and(receive(stream)?);
    }
    send(stream, &Batch::new(pid, Vec::new(), true))?;
    Ok(sum.and(receive(stream)?))
}

/// Stops all of them first: none is to wait for another one.
fn park_all(tids: &[i32], place: Option<&Place>, rest: Rest) -> Vec<(Instant, Parked)> {
    let threads: Vec<_> = tids.iter().map(|tid| Running::traced(*tid)).collect();
    for thread in &threads {
        // One that has ended says so when it is waited for.
        let _ = thread.interrupt();
    }
    let until = Instant::now() + STOP_WITHIN;
    let stopped: Vec<Stopped> =
        threads.into_iter().filter_map(|t| t.wait(until, Pace::Crowded).ok()).collect();
    stopped.into_iter().filter_map(|thread| park(thread, place, rest)).collect()
}

/// `None` where it does not wait any more, or cannot be left there.
fn park(thread: Stopped, place: Option<&Place>, rest: Rest) -> Option<(Instant, Parked)> {
    let tid = thread.tid();
    let wait = keep::take(tid)?;
    let parked = match place {
        Some(place) => leave(thread, place),
        None => Err(Some(thread)),
    };
    let Deposit { registers, mask, line, before } = match parked {
        Ok(deposit) => deposit,
        Err(Some(thread)) if rest == Rest::Stay => {
            keep::put(tid, wait);
            thread.detach();
            return None;
        }
        Err(_) => {
            keep::is_late(tid);
            return None;
        }
    };
    let frame = (wait.frame.call, wait.frame.stack, wait.frame.at);
    let (left, result, line) = (Duration::ZERO, wait.result, line.0);
    let registers = words(&registers);
    Some((wait.until, Parked { tid, frame, left, result, registers, mask, line, before }))
}

/// Leaves a stopped thread; the error is one that stands as it stood, if it lives.
fn leave(thread: Stopped, place: &Place) -> Result<Deposit, Option<Stopped>> {
    let borrowed =
        Borrowed::new(thread, place.ground(), Pace::Crowded).map_err(|not| not.thread)?;
    match borrowed.park(PARKED) {
        Ok(parked) => parked.map_err(Some),
        Err(_) => Err(None),
    }
}

/// Takes the threads that are handed over at the other end; gives whose they are.
///
/// # Errors
/// Nobody is there any more.
pub fn take(stream: &UnixStream) -> std::io::Result<(i32, Given)> {
    let _urgent = Urgent::begin();
    let mut sum = Given::default();
    let mut place = None;
    loop {
        let batch: Batch = receive(stream)?;
        let (pid, last) = (batch.pid, batch.last);
        let place = place.get_or_insert_with(|| Place::of(pid)).as_ref();
        let given = take_all(batch, place);
        send(stream, &given)?;
        sum = sum.and(given);
        if last {
            keep::enter();
            return Ok((pid, sum));
        }
    }
}

fn take_all(batch: Batch, place: Option<&Place>) -> Given {
    let (now, age) = (Instant::now(), batch.age());
    let begin = |one: Parked| {
        let left = one.left.saturating_sub(age);
        let until = now.checked_add(left).unwrap_or(now + LONGEST_WAIT);
        (until, seize_and_interrupt(batch.pid, one.tid), one)
    };
    let begun: Vec<_> = batch.threads.into_iter().map(begin).collect();
    let mut sum = Given::default();
    for (until, running, one) in begun {
        let (frame, tid) = (one.frame, one.tid);
        let frame = Frame { call: frame.0, stack: frame.1, at: frame.2 };
        let wait = Wait { frame, until, result: one.result, sleeps: 0 };
        let taken = match (running, place) {
            (Some(running), Some(place)) => unpark(running, &one, wait, place),
            _ => None,
        };
        let of = |left| Given { left, ..Given::default() };
        sum = sum.and(match taken {
            Some(true) => Given { kept: 1, ..of(one.left) },
            // Its time is over, or the process was stopped.
            Some(false) => Given::default(),
            None if Status::of(tid).is_none() => Given::default(),
            None => Given { late: 1, ..Given::default() },
        });
    }
    sum
}

/// A message that seems to be older is of another clock.
const LONGEST_AGE: Duration = Duration::from_secs(5);
/// More than any clock counts.
const LONGEST_WAIT: Duration = Duration::from_secs(1 << 31);

fn seize_and_interrupt(pid: i32, tid: i32) -> Option<Running> {
    Status::of(tid).filter(|status| status.tgid == pid)?;
    let running = seize(tid).ok().flatten()?;
    running.interrupt().is_ok().then_some(running)
}

/// Gives a thread its registers back; says whether it is kept on. `None` if it was not where it should be.
fn unpark(running: Running, parked: &Parked, wait: Wait, place: &Place) -> Option<bool> {
    let thread = running.wait(Instant::now() + STOP_WITHIN, Pace::Crowded).ok()?;
    let found = thread.registers().ok()?;
    let Place { memory, footholds, .. } = place;
    if found.rsp != parked.line || !lifeline::is_on(&thread, memory, footholds) {
        return None;
    }
    let mut own = found;
    set_words(&mut own, &parked.registers);
    let mut goes_on = true;
    if keep::is_stop(thread.event()) {
        goes_on = false;
        if own.rax == restart::AGAIN {
            own.rax = restart::ENDED;
        }
    } else if Instant::now() >= wait.until && own.rax == restart::AGAIN {
        (goes_on, own.rax) = (false, wait.result);
    }
    // In this order: if this tool dies in between, the thread saves itself.
    thread.give_back_signal_mask(parked.mask).ok()?;
    thread.give_back_registers(&own).ok()?;
    let line = Lifeline::from_parts(ProcAddr(parked.line), parked.before.clone());
    line.take_up(memory).ok()?;
    let tid = thread.tid();
    if goes_on {
        keep::put(tid, wait);
    }
    thread.detach();
    Some(goes_on && keep::is_kept(tid))
}

/// `struct user_regs_struct` in its order.
macro_rules! registers {
    ($($name:ident)*) => {
        fn words(registers: &Registers) -> [u64; 27] {
            [$(registers.$name),*]
        }

        fn set_words(registers: &mut Registers, words: &[u64; 27]) {
            let mut words = words.iter();
            $(if let Some(word) = words.next() { registers.$name = *word; })*
        }
    };
}

registers!(r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_or_not_at_all() {
        let (here, there) = UnixStream::pair().unwrap();
        there.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let given = Given { kept: 3, left: Duration::from_millis(7), late: 1 };
        send(&here, &given).unwrap();
        assert_eq!(receive::<Given>(&there).unwrap(), given);
        assert!(receive::<Given>(&there).is_err(), "there is none");
        for wrong in [&[5, 0, 0, 0, 1][..], &[0xff; 8], &[1, 0, 0, 0, 0xff]] {
            let (mut here, there) = UnixStream::pair().unwrap();
            here.write_all(wrong).unwrap();
            drop(here);
            assert!(receive::<Given>(&there).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn registers_come_as_they_were() {
        let numbers: [u64; 27] = std::array::from_fn(|index| index as u64 + 100);
        let mut registers = sys::no_registers();
        set_words(&mut registers, &numbers);
        assert_eq!(words(&registers), numbers);
        assert_eq!((registers.r15, registers.gs), (100, 126));
    }

    /// Its moment of sending is what counts, unless it is of another clock.
    #[test]
    fn messages_have_an_age() {
        let mut batch = Batch::new(1, Vec::new(), true);
        std::thread::sleep(Duration::from_millis(2));
        assert!((2..1000).contains(&batch.age().as_millis()));
        for other in [sys::monotonic_clock() + LONGEST_AGE, Duration::ZERO] {
            batch.sent = other;
            assert_eq!(batch.age(), Duration::ZERO);
        }
    }
}
