//! Time-outs of calls that are under way when a process is updated come in time, however long they are, and
//! nobody waits for them but `dsu-keeper`; whatever happens meanwhile to it and to the process.

#![allow(clippy::unwrap_used)]

mod common;

use common::calls::Ended;
use common::deaths::{Noise, guardian_of, kill};
use common::{Build, BundleFile, PATIENCE, Program, build, bundle, tool};
use dsu_injector::ExitCode;
use dsu_injector::ptrace::process::thread_ids;
use dsu_injector::target::process::Status;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// All at once: they hardly do anything but wait.
#[test]
fn meanwhile() {
    let all: [(&str, fn()); 17] = [
        ("time_outs_of_every_kind_come_in_time", time_outs_of_every_kind_come_in_time),
        ("undisturbed", undisturbed),
        ("what_they_wait_for_comes", what_they_wait_for_comes),
        ("signals_with_a_handler", signals_with_a_handler),
        ("signals_without_a_handler", signals_without_a_handler),
        ("the_process_is_stopped_and_goes_on", the_process_is_stopped_and_goes_on),
        ("it_forks", it_forks),
        ("it_ends", it_ends),
        ("it_is_killed", it_is_killed),
        ("it_executes_another_program", it_executes_another_program),
        ("whatever_operators_do", whatever_operators_do),
        ("the_keeper_is_killed", the_keeper_is_killed),
        ("without_a_keeper", without_a_keeper),
        ("several_processes", several_processes),
        ("none_where_none_is_needed", none_where_none_is_needed),
        ("a_keeper_that_is_stopped", a_keeper_that_is_stopped),
        (
            "anybody_is_killed_while_threads_are_handed_over",
            anybody_is_killed_while_threads_are_handed_over,
        ),
    ];
    let begin = |(name, scenario): (&str, fn())| {
        std::thread::Builder::new().name(name.into()).spawn(scenario).unwrap()
    };
    let running: Vec<_> = all.into_iter().map(begin).collect();
    let failed = |one: std::thread::JoinHandle<()>| {
        let name = one.thread().name().unwrap_or_default().to_owned();
        one.join().is_err().then_some(name)
    };
    let failed: Vec<String> = running.into_iter().filter_map(failed).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// What calls of every kind wait.
const LONG: Duration = Duration::from_secs(6);
/// What the calls of `waits.c` do.
const TIMEOUT: Duration = Duration::from_millis(5000);
/// They have waited for so long when something is done.
const WAITED: Duration = Duration::from_millis(1300);
/// What they may be late by, in microseconds, on a machine that has more to do: less than they have waited.
const LATE: i64 = 1_000_000;
/// The tool does not wait for any of them.
const AT_ONCE: Duration = Duration::from_secs(2);

fn versions(program: &str, timeout: Duration) -> [Build; 3] {
    let timeout = format!("-DTIMEOUT_MS={}", timeout.as_millis());
    [1, 2, 3].map(|version| build(program, version, &[&timeout]))
}

fn file(old: &Build, new: &Build) -> BundleFile {
    BundleFile::new(&bundle(old, new, &["version"], &[]))
}

/// Runs the tool on a process. Its output ends when nobody holds it open any more.
fn run(pid: i32, arguments: &[&str]) -> (ExitCode, Value) {
    let begun = Instant::now();
    let pid = pid.to_string();
    let done = tool(&[arguments, &["--pid", &pid, "--json"]].concat());
    let took = begun.elapsed();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    println!("{arguments:?}: {took:?}, {}", text.trim());
    let code = u8::try_from(done.status.code().unwrap()).unwrap();
    let exit = ExitCode::ALL.into_iter().find(|exit| exit.code() == code).unwrap();
    assert!(took < AT_ONCE || exit != ExitCode::Updated, "{took:?}: {text}");
    (exit, serde_json::from_str(&text).unwrap())
}

/// The same where it must succeed; gives what it tells of time-outs.
fn well(pid: i32, arguments: &[&str]) -> Value {
    let (exit, told) = run(pid, arguments);
    assert_eq!(exit, ExitCode::Updated, "{told}");
    told["timeouts"].clone()
}

/// Who traces threads of the process.
fn tracer(pid: i32) -> Option<i32> {
    let tids = thread_ids(pid).unwrap_or_default();
    tids.into_iter().filter_map(Status::of).map(|s| s.tracer).find(|t| *t != 0)
}

fn signal(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).unwrap();
}

/// Whether all threads of a process are stopped by a signal, and traced by nobody.
fn stands(pid: i32) -> bool {
    let stands = |tid: &i32| Status::of(*tid).is_none_or(|s| s.state == 'T' && s.tracer == 0);
    thread_ids(pid).unwrap().iter().all(stands)
}

/// Whether a parent waits with no `SIGCHLD` pending: a second one would become one with it (signal(7)).
fn has_heard(parent: i32) -> bool {
    let pending = |s: &Status| (s.pending | s.shared) >> (libc::SIGCHLD - 1) & 1 != 0;
    Status::of(parent).is_some_and(|s| s.state == 'S' && !pending(&s))
}

/// Waits until a process is not there any more, or is a zombie of somebody who does not look.
fn gone(pid: i32) {
    let start = Instant::now();
    while Status::of(pid).is_some_and(|status| !status.is_dead()) {
        assert!(start.elapsed() < PATIENCE, "{pid} does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every kind of call, one update after the other.
fn time_outs_of_every_kind_come_in_time() {
    let [old, new, third] = versions("calls", LONG);
    let files = [file(&old, &new), file(&new, &third)];
    let mut program = Program::start(&old.path, &[]);
    let pid = i32::try_from(program.number("p")).unwrap();
    assert_eq!(program.ask("b"), "begun");
    for (file, version) in files.iter().zip(2..) {
        std::thread::sleep(WAITED);
        let timeouts = well(pid, &[file.path()]);
        assert_eq!((&timeouts["kept"], &timeouts["late"]), (&11.into(), &0.into()), "{timeouts}");
        assert_eq!(program.number("v"), version);
    }
    let keeper = tracer(pid).unwrap();
    let all = program.ended_calls();
    all.iter().for_each(|one| println!("{}: late by {} us", one.name, one.late));
    assert_eq!(all.len(), 29);
    let wrong: Vec<_> = all.iter().filter_map(|one| one.wrong(LATE, Duration::ZERO)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    gone(keeper);
    program.close();
    assert_eq!(program.line(), "told 0");
}

/// One that waits and is updated, and one like it that is not.
struct Pair {
    files: [BundleFile; 3],
    subject: Program,
    control: Program,
    pid: i32,
    control_pid: i32,
    begun: Instant,
}

impl Pair {
    fn start() -> Self {
        let [old, new, third] = versions("waits", TIMEOUT);
        let files = [file(&old, &new), file(&new, &third), file(&new, &old)];
        let [mut subject, mut control] = [(); 2].map(|()| Program::start(&old.path, &[]));
        let [pid, control_pid] =
            [&mut subject, &mut control].map(|p| i32::try_from(p.number("p")).unwrap());
        let begun = Instant::now();
        for program in [&mut subject, &mut control] {
            assert_eq!(program.ask("b"), "begun");
        }
        std::thread::sleep(WAITED);
        Self { files, subject, control, pid, control_pid, begun }
    }

    /// Updates the one; gives its keeper.
    fn update(&mut self) -> i32 {
        let timeouts = well(self.pid, &[self.files[0].path()]);
        assert_eq!((&timeouts["kept"], &timeouts["late"]), (&4.into(), &0.into()), "{timeouts}");
        let keeper = i32::try_from(timeouts["keeper"].as_i64().unwrap()).unwrap();
        assert_eq!(tracer(self.pid), Some(keeper));
        assert_eq!(Status::of(keeper).unwrap().name, "dsu-keeper");
        keeper
    }

    /// An updated one.
    fn updated() -> (Self, i32) {
        let mut pair = Self::start();
        let keeper = pair.update();
        (pair, keeper)
    }

    /// Tells both the same.
    fn both(&mut self, what: &str) {
        assert_eq!(self.subject.ask(what), self.control.ask(what), "{what}");
    }

    /// Does the same to both.
    fn signal(&mut self, what: Signal) {
        signal(self.pid, what);
        signal(self.control_pid, what);
    }

    /// Their calls have ended in the same way, at the same time.
    fn assert_same(&mut self) {
        let [subject, control] = [&mut self.subject, &mut self.control].map(Program::ended_calls);
        assert_eq!((subject.len(), control.len()), (4, 4));
        for (a, b) in subject.iter().zip(&control) {
            println!("{a:?} {b:?}");
            assert_eq!((&a.name, a.ok, a.error), (&b.name, b.ok, b.error), "{a:?} {b:?}");
            assert!((a.late - b.late).abs() < LATE, "{a:?} {b:?}");
        }
        self.both("h");
    }

    /// And their parents were told the same.
    fn assert_same_end(mut self) {
        self.subject.close();
        self.control.close();
        assert_eq!(self.subject.line(), self.control.line());
    }

    /// As [`Self::assert_same_end`], where the control is not asked.
    fn assert_good_end(mut self) {
        self.subject.close();
        assert_eq!(self.subject.line(), "told 0, exited 0");
    }

    /// The calls have ended by their time-outs, never early, and late by this at most.
    fn assert_late(&mut self, most: Duration) {
        for one in self.subject.ended_calls() {
            assert!(one.is_over(most), "{one:?}");
        }
    }
}

fn undisturbed() {
    let (mut pair, keeper) = Pair::updated();
    pair.assert_same();
    gone(keeper);
    pair.assert_same_end();
}

fn what_they_wait_for_comes() {
    let (mut pair, keeper) = Pair::updated();
    pair.both("w");
    pair.assert_same();
    assert!(pair.begun.elapsed() < TIMEOUT, "it does not wait for the time-out");
    gone(keeper);
    pair.assert_same_end();
}

fn signals_with_a_handler() {
    let (mut pair, keeper) = Pair::updated();
    pair.both(&format!("s{}", libc::SIGUSR1));
    pair.assert_same();
    gone(keeper);
    pair.assert_same_end();
}

fn signals_without_a_handler() {
    let (mut pair, _) = Pair::updated();
    for signal in [libc::SIGUSR2, libc::SIGCHLD, libc::SIGCONT, libc::SIGWINCH] {
        pair.both(&format!("s{signal}"));
    }
    pair.signal(Signal::SIGUSR2);
    pair.assert_same();
    pair.assert_same_end();
}

fn the_process_is_stopped_and_goes_on() {
    let (mut pair, _) = Pair::updated();
    pair.signal(Signal::SIGSTOP);
    // The parents are told when the last thread has stopped.
    let start = Instant::now();
    let heard = |program: &Program| has_heard(program.pid);
    while !(stands(pair.pid)
        && stands(pair.control_pid)
        && heard(&pair.subject)
        && heard(&pair.control))
    {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(300));
    pair.signal(Signal::SIGCONT);
    pair.assert_same();
    pair.assert_same_end();
}

fn it_forks() {
    let (mut pair, _) = Pair::updated();
    assert_eq!((pair.subject.number("f"), pair.control.number("f")), (2, 1), "versions");
    pair.assert_same();
    pair.assert_same_end();
}

fn it_ends() {
    let (mut pair, keeper) = Pair::updated();
    pair.subject.tell("q");
    pair.control.tell("q");
    gone(keeper);
    pair.assert_same_end();
}

fn it_is_killed() {
    let (mut pair, keeper) = Pair::updated();
    pair.signal(Signal::SIGKILL);
    gone(keeper);
    pair.assert_same_end();
}

fn it_executes_another_program() {
    let (mut pair, keeper) = Pair::updated();
    pair.both("x");
    gone(keeper);
    pair.both("v");
    pair.both("b");
    pair.both("w");
    let [subject, control] = [&mut pair.subject, &mut pair.control].map(Program::ended_calls);
    assert!(subject.iter().chain(&control).all(|one| one.ok));
    pair.assert_same_end();
}

impl Ended {
    /// By its time-out, late by so much at most.
    fn is_over(&self, most: Duration) -> bool {
        let over = if self.name == "epoll" { self.ok } else { self.error == libc::EAGAIN };
        let most = i64::try_from(most.as_micros()).unwrap() + LATE;
        over && (0..most).contains(&self.late)
    }
}

/// Updates, reverts, looks: each takes the threads over, or leaves them where they are.
fn whatever_operators_do() {
    let (mut pair, mut keeper) = Pair::updated();
    let [_, third, back] = [0, 1, 2].map(|index| pair.files[index].path().to_owned());
    let does: [&[&str]; 7] = [
        &["--status"],
        &[&third, "--dry-run"],
        &[&back],
        &["--revert"],
        &[&third],
        &["--recover"],
        &["--revert"],
    ];
    for (arguments, version) in does.into_iter().zip([2, 2, 1, 2, 3, 3, 2]) {
        let (exit, told) = run(pair.pid, arguments);
        assert_eq!(exit, ExitCode::Updated, "{told}");
        assert_eq!(pair.subject.number("v"), version, "{arguments:?}");
        let now = tracer(pair.pid).expect("it is kept");
        if arguments == ["--status"] {
            assert_eq!(
                (&told["timeouts"]["keeper"], &told["timeouts"]["kept"]),
                (&now.into(), &4.into())
            );
            assert_eq!(now, keeper);
        } else {
            gone(keeper);
        }
        keeper = now;
    }
    assert!(pair.begun.elapsed() < TIMEOUT, "they still waited");
    pair.assert_same();
    pair.assert_same_end();
}

/// What the time-outs come late by, when nobody keeps them.
fn lost(pair: &Pair) -> Duration {
    pair.begun.elapsed()
}

fn the_keeper_is_killed() {
    for signal_of in [Signal::SIGKILL, Signal::SIGTERM] {
        let (mut pair, keeper) = Pair::updated();
        let most = lost(&pair);
        signal(keeper, signal_of);
        gone(keeper);
        assert_eq!(tracer(pair.pid), None);
        pair.assert_late(most);
        pair.assert_good_end();
    }
}

/// Nobody keeps them, and it is said.
fn without_a_keeper() {
    let mut pair = Pair::start();
    let most = lost(&pair) + AT_ONCE;
    let timeouts = well(pair.pid, &[pair.files[0].path(), "--no-keeper"]);
    assert_eq!((&timeouts["kept"], &timeouts["late"]), (&0.into(), &4.into()), "{timeouts}");
    assert_eq!(tracer(pair.pid), None);
    pair.assert_late(most);
}

/// Several processes by one command: they have one keeper, and a process that ends leaves it the others.
fn several_processes() {
    let [mut first, mut second] = [(); 2].map(|()| Pair::start());
    let pid = second.pid.to_string();
    let (exit, told) = run(first.pid, &[first.files[0].path(), "--pid", &pid]);
    assert_eq!(exit, ExitCode::Updated, "{told}");
    let keepers = [&first, &second].map(|pair| tracer(pair.pid));
    assert!(keepers[0].is_some() && keepers[0] == keepers[1], "{keepers:?}");
    first.subject.tell("q");
    second.assert_same();
    keepers.into_iter().flatten().for_each(gone);
}

/// Nobody waits with a time-out: no keeper.
fn none_where_none_is_needed() {
    let [old, new, _] = versions("waits", TIMEOUT);
    let mut program = Program::start(&old.path, &[]);
    let pid = i32::try_from(program.number("p")).unwrap();
    let timeouts = well(pid, &[file(&old, &new).path()]);
    assert!(timeouts["keeper"].is_null() && timeouts["late"] == 0, "{timeouts}");
    assert_eq!(tracer(pid), None);
}

/// One that does not answer is a tracer like any other.
fn a_keeper_that_is_stopped() {
    let (mut pair, keeper) = Pair::updated();
    signal(keeper, Signal::SIGSTOP);
    let (exit, told) = run(pair.pid, &[pair.files[1].path()]);
    assert_eq!(exit, ExitCode::NotPermitted, "{told}");
    assert!(told.to_string().contains("(dsu-keeper)"), "{told}");
    signal(keeper, Signal::SIGCONT);
    well(pair.pid, &[pair.files[1].path()]);
    assert_eq!(pair.subject.number("v"), 3);
    pair.assert_late(AT_ONCE);
}

/// The tool, its guardian or the keeper are killed at any moment of a hand-over: the process goes on, and no
/// time-out comes early. A call that is left at the very stop of its thread gives `EINTR`, as behind Ctrl-Z.
fn anybody_is_killed_while_threads_are_handed_over() {
    let (mut pair, _) = Pair::updated();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut rounds = 0;
    let mut last = pair.begun;
    while pair.begun.elapsed() < TIMEOUT {
        let version = pair.subject.number("v");
        let index = usize::from(version == 2) * 2;
        let mut front = Command::new(env!("CARGO_BIN_EXE_dsu-apply"))
            .args([pair.files[index].path(), "--pid", &pair.pid.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let after = Duration::from_micros(noise.below(120_000));
        let begun = Instant::now();
        let mut guardian = None;
        while begun.elapsed() < after {
            guardian = guardian.or_else(|| guardian_of(front.id()));
        }
        match rounds % 3 {
            0 => kill(front.id()),
            1 => guardian.into_iter().for_each(kill),
            _ => {
                let keeper = tracer(pair.pid).and_then(|tracer| u32::try_from(tracer).ok());
                keeper.into_iter().for_each(kill);
            }
        }
        last = Instant::now();
        front.wait().unwrap();
        rounds += 1;
        well_or_busy(pair.pid);
    }
    println!("{rounds} rounds");
    assert!(rounds > 2);
    let most = last.duration_since(pair.begun) + AT_ONCE;
    for one in pair.subject.ended_calls() {
        assert!(one.error == libc::EINTR || one.is_over(most), "{one:?}");
    }
    pair.assert_good_end();
}

/// A guardian whose front was killed may still be at work.
fn well_or_busy(pid: i32) {
    let start = Instant::now();
    while run(pid, &["--recover"]).0 != ExitCode::Updated {
        assert!(start.elapsed() < PATIENCE);
    }
}
