//! What a process does by itself while it is updated: it makes children, executes another program, ends, is
//! killed, stopped and continued, traced by somebody else. It goes on or ends as it would have without the
//! update, at once.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BundleFile, Program, build, bundle, expect};
use dsu_injector::ptrace::borrow::Ground;
use dsu_injector::ptrace::footholds::Footholds;
use dsu_injector::ptrace::gate::Suspend;
use dsu_injector::ptrace::process::{StopError, StoppedProcess, seize, thread_ids};
use dsu_injector::ptrace::sched::{Pace, Undisturbed};
use dsu_injector::ptrace::stop::Event;
use dsu_injector::ptrace::sys::Resume;
use dsu_injector::ptrace::thread::{Stopped, let_go_of_the_rest};
use dsu_injector::ptrace::trapnet::TrapNet;
use dsu_injector::target::maps::Maps;
use dsu_injector::target::memory::ProcessMemory;
use dsu_injector::target::process::Status;
use dsu_injector::{ExitCode, Outcome, apply};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SPIN: [&str; 3] = ["inner", "middle", "outer"];
const SEEN: [&str; 2] = ["111 111", "222 222"];
/// The event comes in the course of the update, sooner or later: one of so many moments ...
const MOMENTS: u32 = 15;
/// ... so far apart.
const APART: Duration = Duration::from_micros(1400);

/// One after the other: each has threads that spin.
static ALONE: Mutex<()> = Mutex::new(());

/// Threads that spin, and the way from one version to the other and back.
struct Target {
    program: Program,
    files: [BundleFile; 2],
    version: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Target {
    fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let builds = [1, 2].map(|version| build("threads", version, &[]));
        let files = [(0, 1), (1, 0)]
            .map(|(from, to)| BundleFile::new(&bundle(&builds[from], &builds[to], &SPIN, &[])));
        let program = Program::start(&builds[0].path, &["4", "2", "hot"]);
        Self { program, files, version: 0, _alone: alone }
    }

    fn update(&mut self) -> Outcome {
        let mut options = self.files[self.version].options(self.program.pid);
        options.timeout = Duration::from_secs(10);
        let start = Instant::now();
        let outcome = apply(&options);
        assert!(start.elapsed() < Duration::from_secs(15), "{}", outcome.text(true));
        self.version ^= usize::from(outcome.exit() == ExitCode::Updated);
        outcome
    }

    /// By the program, as its end must be its parent's to see, which this process is. Gives its exit code
    /// and what it said.
    fn run_tool(&self) -> (Option<i32>, String) {
        let done = Command::new(env!("CARGO_BIN_EXE_dsu-apply"))
            .arg(self.files[self.version].0.path())
            .args(["--pid", &self.program.pid.to_string(), "--timeout", "10000"])
            .output()
            .unwrap();
        let text = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// It answers as the version that it runs.
    fn assert_alive(&mut self, what: &str) {
        assert_eq!(self.program.ask("v"), SEEN[self.version], "{what}");
    }
}

/// Updates new processes, each of which ends in the middle of it, and gives what came of the update.
fn ends(how: char, right: impl Fn(ExitStatus) -> bool) {
    let mut came = 0;
    for moment in 0..MOMENTS {
        let mut target = Target::start();
        let after = (APART * moment).as_micros();
        assert_eq!(target.program.ask(&format!("{how}{after}")), "begun");
        let (code, said) = target.run_tool();
        let status = target.program.ended();
        assert!(right(status), "{how} after {after} us: {status}, {said}");
        let codes =
            [ExitCode::Updated, ExitCode::Died, ExitCode::NoProcess].map(|code| code as i32);
        assert!(code.is_some_and(|code| codes.contains(&code)), "{how} after {after} us: {said}");
        came += usize::from(code != Some(0));
    }
    println!("{how}: {came} of {MOMENTS} came before the update was made");
}

#[test]
fn it_ends() {
    ends('E', |status| status.code() == Some(7));
}

#[test]
fn all_its_threads_end_at_once() {
    ends('G', |status| status.code() == Some(8));
}

#[test]
fn it_is_killed() {
    ends('T', |status| status.signal() == Some(libc::SIGTERM));
}

#[test]
fn it_dies_of_a_fault_of_its_own() {
    ends('S', |status| status.signal() == Some(libc::SIGSEGV));
}

/// Whether it executes `cat`. While another thread takes the first one's place, nothing can be read of it.
fn is_cat(pid: i32) -> bool {
    Status::of(pid).is_some_and(|status| status.name == "cat")
}

#[test]
fn it_executes_another_program() {
    for moment in 0..MOMENTS {
        let mut target = Target::start();
        let after = (APART * moment).as_micros();
        assert_eq!(target.program.ask(&format!("X{after}")), "begun");
        let (_, said) = target.run_tool();
        let start = Instant::now();
        while !is_cat(target.program.pid) {
            assert!(start.elapsed() < common::PATIENCE, "{after} us: {said}");
            std::thread::yield_now();
        }
        assert_eq!(target.program.ask("echo"), "echo", "{after} us: {said}");
        let status = Status::of(target.program.pid).unwrap();
        assert_eq!((status.tracer, status.caught & 1 << (libc::SIGTRAP - 1)), (0, 0));
    }
}

fn catches_traps(pid: i32) -> bool {
    Status::of(pid).unwrap().caught & 1 << (libc::SIGTRAP - 1) != 0
}

/// What borrowing a thread needs.
fn ground(pid: i32, memory: &ProcessMemory) -> Ground<'_> {
    let maps = Rc::new(Maps::of(pid).unwrap());
    let footholds = Footholds::find(memory, &maps).unwrap();
    Ground { memory, maps, footholds, suspend: Suspend::default() }
}

/// A signal that comes while a thread is borrowed is taken first; the call's arguments in memory are made
/// anew behind it.
#[test]
fn a_borrowed_thread_takes_a_signal() {
    let build = build("threads", 1, &[]);
    let program = Program::start(&build.path, &["1", "0", "idle"]);
    let memory = ProcessMemory::open(program.pid).unwrap();
    let ground = ground(program.pid, &memory);
    let _undisturbed = Undisturbed::begin();
    for _ in 0..10 {
        let mut stopped = StoppedProcess::stop(program.pid, Duration::from_secs(5)).unwrap();
        program.signal("CHLD");
        let net = TrapNet::put_up(&mut stopped, &ground).unwrap().unwrap();
        assert!(catches_traps(program.pid));
        program.signal("CHLD");
        net.take_down(&mut stopped, &ground).unwrap().unwrap();
        assert!(!catches_traps(program.pid), "the handler is left");
        let _ = stopped.release();
    }
}

/// A child may be forked while its parent has a handler under its traps: it is not its own.
#[test]
fn a_handler_under_traps_was_inherited() {
    let mut target = Target::start();
    let pid = target.program.pid;
    {
        let memory = ProcessMemory::open(pid).unwrap();
        let _undisturbed = Undisturbed::begin();
        let mut stopped = StoppedProcess::stop(pid, Duration::from_secs(5)).unwrap();
        TrapNet::put_up(&mut stopped, &ground(pid, &memory)).unwrap().unwrap();
        let _ = stopped.release();
    }
    assert!(catches_traps(pid));
    expect(&target.update(), ExitCode::Updated);
    assert!(!catches_traps(pid), "it was taken for the program's own");
    target.assert_alive("updated");
}

/// Children that are forked by a thread that runs on while there is a handler under its traps do not keep it.
#[test]
fn a_handler_under_traps_is_not_inherited() {
    let build = build("threads", 1, &[]);
    let mut program = Program::start(&build.path, &["1", "0", "idle"]);
    assert_eq!(program.ask("F"), "begun");
    let memory = ProcessMemory::open(program.pid).unwrap();
    let ground = ground(program.pid, &memory);
    let start = Instant::now();
    let mut forked = 0;
    while forked < 10 {
        assert!(start.elapsed() < common::PATIENCE, "{forked} forks");
        let _undisturbed = Undisturbed::begin();
        let mut stopped = StoppedProcess::stop(program.pid, Duration::from_secs(5)).unwrap();
        let parent = stopped.threads.iter().map(Stopped::tid).find(|tid| *tid != program.pid);
        // Each of the two threads may be about to do something else: to take SIGCHLD, to fork.
        let Some(net) = TrapNet::put_up(&mut stopped, &ground).unwrap() else {
            let _ = stopped.release();
            let_go_of_the_rest();
            continue;
        };
        let mut thread = stopped.take(parent.unwrap()).unwrap();
        for _ in 0..10 {
            // Until something happens to it, a millisecond at most.
            let running = thread.resume(Resume::Freely).unwrap();
            let until = Instant::now() + Duration::from_millis(1);
            thread = match running.wait_asleep(until).unwrap() {
                Ok(stopped) => stopped,
                Err(running) => {
                    running.interrupt().unwrap();
                    running.wait(Instant::now() + common::PATIENCE, Pace::Crowded).unwrap()
                }
            };
            forked += usize::from(thread.event() == Event::Other(libc::PTRACE_EVENT_FORK));
        }
        stopped.put(thread);
        net.take_down(&mut stopped, &ground).unwrap();
        assert!(!catches_traps(program.pid), "the handler is left");
        let _ = stopped.release();
        let_go_of_the_rest();
        let (before, start) = (program.number("c"), Instant::now());
        while program.number("c") < before + 3 {
            assert!(start.elapsed() < common::PATIENCE, "no more children");
        }
    }
    assert_eq!(program.number("w"), 0, "children that ended in another way");
}

/// It waits for the end of a thread that is traced, and whoever traces the next one waits for it.
#[test]
fn a_thread_is_not_seized_while_another_one_executes_a_program() {
    let build = build("threads", 1, &[]);
    let mut program = Program::start(&build.path, &["3", "0", "idle"]);
    let other = *thread_ids(program.pid).unwrap().last().unwrap();
    let traced = seize(other).unwrap().unwrap();
    assert_eq!(program.ask("X0"), "begun");
    let start = Instant::now();
    while !Status::of(other).unwrap().is_dead() {
        assert!(start.elapsed() < common::PATIENCE);
    }
    assert!(matches!(seize(program.pid), Err(StopError::Uninterruptible(_))));
    drop(traced);
    let_go_of_the_rest();
    while !is_cat(program.pid) {
        assert!(start.elapsed() < common::PATIENCE);
    }
    assert_eq!(program.ask("echo"), "echo");
}

/// There and back while children are made; each must end as it should.
fn makes_children(how: &str) {
    let mut target = Target::start();
    assert_eq!(target.program.ask(how), "begun");
    for round in 0..12 {
        let outcome = target.update();
        expect(&outcome, ExitCode::Updated);
        let (start, before) = (Instant::now(), target.program.number("c"));
        while target.program.number("c") < before + 3 {
            assert!(start.elapsed() < common::PATIENCE, "round {round}: no more children");
        }
        target.assert_alive(&format!("round {round}"));
    }
    assert_eq!(target.program.number("w"), 0, "children that ended in another way");
}

#[test]
fn it_forks() {
    makes_children("F");
}

#[test]
fn it_forks_and_executes() {
    makes_children("V");
}

/// The first thread has ended, and the others go on.
#[test]
fn its_first_thread_ends() {
    let mut target = Target::start();
    assert_eq!(target.program.ask("L"), "alone");
    let start = Instant::now();
    while !Status::of(target.program.pid).unwrap().is_dead() {
        assert!(start.elapsed() < common::PATIENCE);
    }
    let outcome = target.update();
    expect(&outcome, ExitCode::Unsuitable);
    assert!(outcome.text(false).contains("without its first thread"), "{}", outcome.text(false));
    let others = thread_ids(target.program.pid).unwrap();
    let status =
        others.iter().filter(|tid| **tid != target.program.pid).map(|tid| Status::of(*tid));
    assert!(status.map(Option::unwrap).all(|s| s.tracer == 0 && matches!(s.state, 'R' | 'S')));
}

/// Ctrl-Z and `fg`, all the time.
#[test]
fn it_is_stopped_and_continued() {
    let mut target = Target::start();
    let pid = nix::unistd::Pid::from_raw(target.program.pid);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use nix::sys::signal::{Signal, kill};
            let mut pause = 100;
            while !over.load(Ordering::Relaxed) {
                kill(pid, Signal::SIGSTOP).unwrap();
                std::thread::sleep(Duration::from_micros(pause));
                kill(pid, Signal::SIGCONT).unwrap();
                std::thread::sleep(Duration::from_micros(1500 - pause));
                pause = pause % 1300 + 130;
            }
        });
        let mut updates = 0;
        for _ in 0..20 {
            updates += usize::from(target.update().exit() == ExitCode::Updated);
        }
        over.store(true, Ordering::Relaxed);
        println!("{updates} of 20 updates");
    });
    target.assert_alive("it was continued last");
}

/// All of it, or one thread alone, which is not the first.
#[test]
fn somebody_else_traces_it() {
    let mut target = Target::start();
    let (first, last) =
        (target.program.pid, *thread_ids(target.program.pid).unwrap().last().unwrap());
    for tid in [first, last] {
        let (ready, is_ready) = channel();
        let (over, is_over) = channel::<()>();
        let trace = move || {
            let traced = seize(tid).unwrap().unwrap();
            ready.send(()).unwrap();
            // The other end is given up.
            let _ = is_over.recv();
            drop(traced);
            let_go_of_the_rest();
        };
        let tracer = std::thread::Builder::new().name("tracer".into()).spawn(trace).unwrap();
        is_ready.recv().unwrap();
        let outcome = target.update();
        expect(&outcome, ExitCode::NotPermitted);
        assert!(outcome.text(false).contains("(tracer)"), "{}", outcome.text(false));
        target.assert_alive("traced");
        drop(over);
        tracer.join().unwrap();
    }
    expect(&target.update(), ExitCode::Updated);
    target.assert_alive("untraced");
}
