//! The process that keeps time-outs when an update is done and `dsu-apply` has ended.
//!
//! Whoever updates a process hands the threads that wait with a time-out ([`super::keep`]) to a copy of its own,
//! `dsu-keeper`, which stays in the background until the last of these waits is over: in a session of its own,
//! with no file of the caller's open, so that nobody waits for it. A thread that it keeps is traced by it, and cannot be
//! traced by others, until its call ends. SIGTERM makes it let go; killed at any instant, the kernel does.
//! Time-outs come late then, and nothing else.
//!
//! The next tool that works on the process finds the keeper by what the kernel says of its threads (`TracerPid`):
//! the name of a socket that belongs to exactly that process (`SO_PEERCRED`) shows that it is a keeper, and the
//! threads are handed over there ([`super::park`]), to whoever could trace the keeper: its user, or root.
//!
//! Takes the threads that this process keeps ([`hand_over`]) and a process whose threads others keep ([`claim`],
//! [`tell`]); gives who keeps how many, and for how long.

use super::guardian;
use super::keep::{self, Reach};
use super::park::{self, Given, Rest};
use super::process::thread_ids;
use super::sched::Urgent;
use super::sys;
use super::thread::let_go_of_the_rest;
use crate::outcome::count;
use crate::target::process::{self, Status};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Its name in lists of processes.
const NAME: &str = "dsu-keeper";
/// Waits that are over so soon are attended to here.
const SOON: Duration = Duration::from_millis(30);
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// And the rest of a question that has begun to come.
const QUESTION: Duration = Duration::from_millis(100);
/// So many may be about to ask.
const MOST_ASKING: usize = 8;
/// The threads are looked at this often, whatever happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a keeper is asked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Question {
    /// What it keeps of a process.
    Tell(i32),
    /// To hand that over.
    Give(i32),
}

/// Who keeps what of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keeping {
    /// The keeper's process id; 0 where there is none.
    pub keeper: i32,
    /// What it keeps, and what nobody does.
    pub given: Given,
}

/// A keeper that this process has made.
struct Own {
    pid: i32,
    stream: UnixStream,
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// Hands the kept threads of a process to a keeper; those that are done soon are attended to here, as are all where
/// no keeper is wanted ([`Reach::Short`]) or to be had. Gives what has become of them, and of all that were
/// let go since this was asked last.
pub fn hand_over(pid: i32) -> Keeping {
    let mut keeping = Keeping::default();
    let kept = park::kept_of(pid);
    let last = kept.iter().map(|(_, wait)| wait.until).max();
    let soon = Instant::now() + SOON;
    if keep::reach() == Reach::All && last.is_some_and(|last| last > soon) {
        // What cannot be handed over stays here.
        let before = keep::set_reach(Reach::Short);
        keeping = give(pid).unwrap_or_default();
        keep::set_reach(before);
        if keeping.keeper == 0 {
            // Of those that were under way nobody knows more.
            keeping.given.late = kept.len() - park::kept_of(pid).len();
        }
    }
    keep::attend_to_all();
    // What is left is let go of when this process ends.
    keeping.given.late += keep::take_late() + park::kept_of(pid).len();
    keeping
}

fn give(pid: i32) -> Option<Keeping> {
    let own = OWN.take().or_else(make)?;
    let given = park::give(&own.stream, pid, Rest::Stay).ok()?;
    let keeper = own.pid;
    OWN.set(Some(own));
    Some(Keeping { keeper, given })
}

/// Makes a keeper, which lives for as long as this process at least. `None` where none is to be had.
fn make() -> Option<Own> {
    let (here, there) = UnixStream::pair().ok()?;
    for stream in [&here, &there] {
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        stream.set_write_timeout(Some(ANSWER)).ok()?;
    }
    match sys::fork().ok()? {
        Some(pid) => Some(Own { pid, stream: here }),
        None => {
            keep::forget_all();
            // Without the destructors of what belongs to the process that has made it.
            std::process::exit(i32::from(serve(there).is_err()))
        }
    }
}

/// What the keeper does, until there is nothing left to keep.
fn serve(maker: UnixStream) -> std::io::Result<()> {
    become_keeper(&maker)?;
    keep::set_reach(Reach::All);
    // What it does takes microseconds, and is late by each turn that it waits for.
    let _urgent = Urgent::begin();
    let listener = UnixListener::bind_addr(&address(std::process::id().cast_signed())?)?;
    listener.set_nonblocking(true)?;
    let signals = sys::signal_input(guardian::ENDING | CHILD)?;
    let mut maker = Some(maker);
    let mut asking: Vec<UnixStream> = Vec::new();
    loop {
        // In this order: what happens from here on makes the wait below a short one.
        sys::take_signal(CHILD, Duration::ZERO);
        let next = keep::tend();
        if next.is_none() && maker.is_none() || guardian::is_asked_to_end() {
            // The kernel lets go of what is left.
            return Ok(());
        }
        let most = next.map_or(LOOK_EVERY, |next| next.saturating_duration_since(Instant::now()));
        let inputs =
            [signals.as_fd(), listener.as_fd()].into_iter().chain(asking.iter().map(AsFd::as_fd));
        let inputs: Vec<_> = inputs.chain(maker.as_ref().map(AsFd::as_fd)).collect();
        let ready = sys::wait_for_input(&inputs, most.min(LOOK_EVERY));
        let mut ready = ready.into_iter().skip(1);
        let comes = ready.next() == Some(true);
        for stream in std::mem::take(&mut asking) {
            match ready.next() {
                // Whoever does not go on with it asks again, or is told that the thread is traced.
                Some(true) => drop(answer(&stream)),
                _ => asking.push(stream),
            }
        }
        if ready.next() == Some(true) && maker.as_ref().is_none_or(|m| park::take(m).is_err()) {
            maker = None;
        }
        if comes && let Ok((stream, _)) = listener.accept() {
            asking.push(stream);
            asking.drain(..asking.len().saturating_sub(MOST_ASKING));
        }
    }
}

const CHILD: u64 = 1 << (libc::SIGCHLD - 1);

/// Leaves all that belongs to its maker, but the connection to it.
fn become_keeper(maker: &UnixStream) -> std::io::Result<()> {
    // None of these matters enough to give it up for that.
    let _ = nix::unistd::setsid();
    let _ = std::env::set_current_dir("/");
    let _ = sys::set_scheduler(libc::SCHED_OTHER, 0);
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    guardian::rename(NAME);
    // Who waits for the end of a pipe would wait for it.
    Ok(sys::close_all_but(maker.as_fd())?)
}

fn answer(stream: &UnixStream) -> std::io::Result<()> {
    let (_, user) = sys::peer(stream.as_fd())?;
    if user != 0 && user != nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(QUESTION))?;
    let question = park::receive(stream)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    match question {
        Question::Give(pid) => park::give(stream, pid, Rest::Go).map(drop),
        Question::Tell(pid) => {
            let now = Instant::now();
            let left = |until: Instant| until.saturating_duration_since(now);
            let threads = park::kept_of(pid);
            let last = threads.iter().map(|(_, wait)| left(wait.until)).max();
            let given = Given { kept: threads.len(), left: last.unwrap_or_default(), late: 0 };
            park::send(stream, &given)
        }
    }
}

/// The name of a keeper's socket: a pid is used again, with the time when it began it is one process's alone.
fn address(pid: i32) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("dsu-keeper/{pid}/{}", process::began(pid)))
}

/// Asks the keeper with this process id; `None` where it is none.
fn ask(keeper: i32, question: Question) -> Option<UnixStream> {
    let stream = UnixStream::connect_addr(&address(keeper).ok()?).ok()?;
    // Anybody can give a socket that name, but not that owner.
    let (owner, _) = sys::peer(stream.as_fd()).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    stream.set_write_timeout(Some(ANSWER)).ok()?;
    (owner == keeper && park::send(&stream, &question).is_ok()).then_some(stream)
}

/// Whether this process is a keeper that can be asked.
#[must_use]
pub fn is_keeper(pid: i32) -> bool {
    // It keeps nothing of no process.
    ask(pid, Question::Tell(0)).is_some()
}

/// Takes over the threads of a process that a keeper traces; says whether it is one. They are kept on here.
pub fn claim(pid: i32, keeper: i32) -> bool {
    let Some(stream) = ask(keeper, Question::Give(pid)) else { return false };
    match park::take(&stream) {
        Ok((_, given)) => keep::are_late(given.late),
        Err(_) => return false,
    }
    true
}

/// Who keeps threads of a process, without touching them; of several keepers, the one that stays longest.
#[must_use]
pub fn tell(pid: i32) -> Keeping {
    let mut sum = Keeping::default();
    let tracer = |tid: i32| Some(Status::of(tid)?.tracer).filter(|tracer| *tracer != 0);
    let tracers: BTreeSet<i32> =
        thread_ids(pid).unwrap_or_default().into_iter().filter_map(tracer).collect();
    for keeper in tracers {
        let stream = ask(keeper, Question::Tell(pid));
        let told = stream.and_then(|stream| park::receive::<Given>(&stream).ok());
        let Some(given) = told.filter(|given| given.kept > 0) else { continue };
        if given.left >= sum.given.left {
            sum.keeper = keeper;
        }
        sum.given = sum.given.and(given);
    }
    sum
}

/// Lets go of all threads of a process that nobody holds, when nothing stands still any more; those that wait
/// with a time-out are kept.
pub fn let_go(pid: i32) -> Keeping {
    let_go_of_the_rest();
    hand_over(pid)
}

impl Keeping {
    /// For people: nothing where there is nothing to tell.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { keeper, given: Given { kept, left, late } } = *self;
        let mut out = String::new();
        // Writing to a String cannot fail.
        if kept > 0 {
            let (calls, left) = (count(kept, "time-out"), left.as_secs_f64());
            let _ = writeln!(
                out,
                "  dsu-keeper ({keeper}) keeps {calls} of system calls under way, for {left:.1} s at most: until then \
                 no debugger can trace these threads; to end it, kill {keeper}"
            );
        }
        if late > 0 {
            let calls = count(late, "time-out");
            let _ =
                writeln!(out, "  {calls} of system calls under way began anew, and will come late");
        }
        out
    }

    /// For tools.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let Given { kept, left, late } = self.given;
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let keeper = (kept > 0).then_some(self.keeper);
        serde_json::json!({ "keeper": keeper, "kept": kept, "left_ms": left, "late": late })
    }
}
