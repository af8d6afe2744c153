//! Every call that an update, a revert or a recovery makes fails once, each in its turn: afterwards the
//! process is as before, or as after, and no thread of it is stopped, traced or has anything set.

#![allow(clippy::unwrap_used)]

mod common;

use common::sites::{add, point};
use common::{Build, BundleFile, PATIENCE, Picture, Program, build, bundle, expect, write_data};
use dsu_injector::faults::{self, Call, Kind};
use dsu_injector::ptrace::process::{StoppedProcess, thread_ids};
use dsu_injector::ptrace::stop::Event;
use dsu_injector::recover::{Recovered, recover};
use dsu_injector::status::status;
use dsu_injector::target::process::Status;
use dsu_injector::{ApplyError, ApplyOptions, ExitCode, FailPoint, Outcome, apply, revert};
use dsu_patch_format::Bundle;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// No update makes so many calls.
const MOST: u64 = 5000;

/// What a failed call may take longer: a wait for what does not come then.
const LONGER: Duration = Duration::from_secs(10);

/// Lets each call of `act` that `fail` says fail, one after the other; `check` is told what has come of it.
fn each_of<S, T: Told>(
    fail: impl Fn(u64),
    state: &mut S,
    mut act: impl FnMut(&mut S) -> T,
    mut check: impl FnMut(&mut S, &str, T),
) {
    let start = Instant::now();
    for number in 1..MOST {
        let begun = Instant::now();
        fail(number);
        let result = act(state);
        let Some(call) = faults::end().into_iter().next() else {
            println!("{} calls failed in their turn, {:?}", number - 1, start.elapsed());
            assert!(number > 10, "it makes more calls than that: {}", result.told());
            return;
        };
        let took = begun.elapsed();
        let what = format!("call {number}, {}, {took:?}: {}", name(call), result.told());
        println!("{what}");
        assert!(took < LONGER, "{what}");
        check(state, &what, result);
    }
    panic!("there is no end to it");
}

/// What can be told in a line.
trait Told {
    fn told(&self) -> String;
}

impl Told for Outcome {
    fn told(&self) -> String {
        self.text(false)
    }
}

impl Told for Result<Recovered, String> {
    fn told(&self) -> String {
        format!("{self:?}")
    }
}

fn name(call: Call) -> String {
    if let Call::Wait(status) = call {
        return format!("wait, {:?}", Event::of(status));
    }
    let Call::Ptrace(request) = call else { return format!("{call:?}") };
    let known = [
        (libc::PTRACE_SEIZE, "SEIZE"),
        (libc::PTRACE_INTERRUPT, "INTERRUPT"),
        (libc::PTRACE_CONT, "CONT"),
        (libc::PTRACE_SYSCALL, "SYSCALL"),
        (libc::PTRACE_SINGLESTEP, "SINGLESTEP"),
        (libc::PTRACE_DETACH, "DETACH"),
        (libc::PTRACE_GETREGS, "GETREGS"),
        (libc::PTRACE_SETREGS, "SETREGS"),
        (libc::PTRACE_PEEKUSER, "PEEKUSER"),
        (libc::PTRACE_POKEUSER, "POKEUSER"),
        (libc::PTRACE_GETSIGINFO, "GETSIGINFO"),
        (libc::PTRACE_GETEVENTMSG, "GETEVENTMSG"),
        (libc::PTRACE_GETREGSET, "GETREGSET"),
        (libc::PTRACE_GETSIGMASK, "GETSIGMASK"),
        (libc::PTRACE_SETSIGMASK, "SETSIGMASK"),
    ];
    let found = known.iter().find(|(number, _)| *number == request);
    found.map_or_else(|| format!("{call:?}"), |(_, name)| format!("PTRACE_{name}"))
}

/// What a process whose memory changes by itself has all the same.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    maps: String,
    signals: BTreeSet<String>,
}

impl Shape {
    fn of(pid: i32) -> Self {
        let read = |path: String| std::fs::read_to_string(path).unwrap();
        let kept = ["TracerPid", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"];
        let mut signals = BTreeSet::new();
        for tid in thread_ids(pid).unwrap() {
            let status = read(format!("/proc/{pid}/task/{tid}/status"));
            let lines = status.lines().filter(|l| kept.iter().any(|k| l.starts_with(k)));
            signals.extend(lines.map(str::to_owned));
            let state = Status::parse(&status).state;
            assert!(!matches!(state, 'T' | 't'), "thread {tid} is stopped");
        }
        // Another test program that runs beside this one builds the file anew.
        let maps = read(format!("/proc/{pid}/maps")).replace(" (deleted)", "");
        Self { maps, signals }
    }
}

/// Nothing is left in the debug registers, and no step is under way.
fn assert_untouched(pid: i32, what: &str) {
    let stopped = StoppedProcess::stop(pid, Duration::from_secs(5)).unwrap();
    for thread in &stopped.threads {
        assert_eq!(thread.debug_register(7).unwrap() & 0xff, 0, "{what}: a breakpoint is left");
        assert_eq!(thread.registers().unwrap().eflags & 0x100, 0, "{what}: the trap flag is left");
    }
    let _ = stopped.release();
}

/// A process of one thread, which sleeps between questions: all of it is compared.
struct Quiet {
    program: Program,
    file: BundleFile,
    /// What it is, without what is below its stack.
    before: Picture,
}

impl Quiet {
    fn start() -> Self {
        let [old, new] = [1, 2].map(|version| build("answer", version, &[]));
        let mut bundle = bundle(&old, &new, &["answer", "other"], &["added", "bonus"]);
        write_data(&mut bundle, &old, "table", &[9; 32]);
        let program = Program::start(&old.path, &[]);
        let before = program.picture().in_use();
        Self { program, file: BundleFile::new(&bundle), before }
    }

    /// One that was updated.
    fn updated() -> Self {
        let mut quiet = Self::start();
        expect(&quiet.file.apply(quiet.program.pid), ExitCode::Updated);
        quiet.before = quiet.program.picture().in_use();
        quiet
    }

    /// One that was updated, and brought back by a bundle.
    fn back() -> Self {
        let mut quiet = Self::updated();
        let [old, new] = [1, 2].map(|version| build("answer", version, &[]));
        let mut bundle = bundle(&new, &old, &["answer", "other"], &[]);
        write_data(&mut bundle, &new, "table", &old.symbol("table").bytes);
        expect(&BundleFile::new(&bundle).apply(quiet.program.pid), ExitCode::Updated);
        quiet.before = quiet.program.picture().in_use();
        quiet
    }

    /// As before: at once, or when what the outcome says to be left was taken away.
    fn assert_as_before_or_told(&self, what: &str, outcome: &Outcome) {
        if let Err(ApplyError::Untidy { .. }) = outcome.result {
            assert!(!recover(self.program.pid).unwrap().done.is_empty(), "{what}: nothing is left");
        }
        self.assert_as_before(what);
    }

    fn assert_as_before(&self, what: &str) {
        self.before.assert_same(&self.program.picture().in_use(), what);
        assert_untouched(self.program.pid, what);
    }

    /// What its two functions and its table say.
    fn answers(&mut self) -> [i64; 3] {
        ["a5", "o0", "t1"].map(|question| self.program.number(question))
    }
}

const OLD: [i64; 3] = [6, 0x55, 2];
const NEW: [i64; 3] = [120, 0x55, 0x0909_0909_0909_0909];

#[test]
fn of_an_update() {
    update(faults::fail, Quiet::start);
}

#[test]
fn reads_of_an_update() {
    // Most of them are of the look at the process, which changes nothing.
    update(|number| faults::fail_read(number * 4), Quiet::start);
}

/// Each wait that tells something fails once, and tells it when it is asked again.
#[test]
fn waits_of_an_update() {
    update(|number| faults::fail_these(Kind::Waits, &[number]), Quiet::start);
}

/// The second one is the one in which it is asked again.
#[test]
fn two_waits_of_an_update() {
    update(|number| faults::fail_these(Kind::Waits, &[number, number + 1]), Quiet::start);
}

/// Each stop is followed by one that nobody expects.
#[test]
fn signals_at_each_wait_of_an_update() {
    for signal in [Signal::SIGURG, Signal::SIGCONT] {
        update(|number| faults::signal_at_wait(number, signal), Quiet::start);
    }
}

#[test]
fn signals_at_each_wait_while_threads_are_stepped() {
    Busy::sweep(|number| faults::signal_at_wait(number, Signal::SIGURG), Busy::stepped);
}

/// Two fail: these numbers and the ones that follow them after so many. What fails next is in the clean-up, mostly.
const APART: [u64; 2] = [1, 4];

fn two(apart: u64) -> impl Fn(u64) {
    move |number| faults::fail_these(Kind::Calls, &[number, number + apart])
}

#[test]
fn two_of_an_update() {
    APART.into_iter().for_each(|apart| update(two(apart), Quiet::start));
}

#[test]
fn two_of_an_update_that_is_made_again() {
    update(two(3), Quiet::back);
}

#[test]
fn two_of_a_revert() {
    APART.into_iter().for_each(|apart| reverted(two(apart)));
}

#[test]
fn two_of_a_recovery() {
    recovery(two(1));
}

#[test]
fn two_of_an_update_whose_threads_run_to_breakpoints() {
    Busy::sweep(two(2), Busy::hot);
}

/// Only the tidying fails, for good: the outcome is what it is, and what is left is told and taken away later.
#[test]
fn memory_that_cannot_be_unmapped() {
    let [old, new] = [1, 2].map(|version| build("answer", version, &[]));
    let mut program = Program::start(&old.path, &[]);
    assert_eq!(program.ask("i"), "inside");
    let file = BundleFile::new(&bundle(&old, &new, &["inside"], &[]));
    let mut options = file.options(program.pid);
    options.timeout = Duration::from_millis(50);
    let before = program.picture().in_use();
    faults::fail_always(Call::Remote(libc::SYS_munmap));
    let outcome = apply(&options);
    assert!(!faults::end().is_empty());
    expect(&outcome, ExitCode::Blocked);
    assert_eq!(outcome.blockers().len(), 1, "what was in the way is told all the same");
    assert!(outcome.text(false).contains("unused bytes"), "{}", outcome.text(false));
    assert!(status(program.pid).unwrap().left_behind);
    let outcome = apply(&options);
    expect(&outcome, ExitCode::Blocked);
    assert!(outcome.text(false).contains("unmapped"), "{}", outcome.text(false));
    assert!(matches!(outcome.result, Err(ApplyError::Blocked { .. })));
    before.assert_same(&program.picture().in_use(), "tidied up");
    assert_eq!(program.number("x"), 2);
}

/// The same behind updates that are done, there and back.
#[test]
fn records_that_cannot_be_unmapped() {
    let [old, new] = [1, 2].map(|version| build("again", version, &[]));
    let replaced = ["answer", "hold"];
    let there = bundle(&old, &new, &replaced, &["calls", "held", "room"]);
    let files = [there, bundle(&new, &old, &replaced, &[])].map(|bundle| BundleFile::new(&bundle));
    let mut program = Program::start(&old.path, &[]);
    let mut told = 0;
    for round in 0..8 {
        faults::fail_always(Call::Remote(libc::SYS_munmap));
        let outcome = files[round % 2].apply(program.pid);
        let failed = faults::end();
        expect(&outcome, ExitCode::Updated);
        assert_eq!(outcome.warnings.len(), failed.len().min(1), "{}", outcome.text(false));
        told += usize::from(outcome.text(false).contains("warning: the records"));
        assert_eq!(program.number("a5") == 6, round % 2 == 1);
    }
    assert!(told > 0, "no record was needless");
    let outcome = files[0].apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    assert!(outcome.warnings.is_empty(), "{}", outcome.text(false));
}

/// It takes the memory that the bundle had before, and puts its code back.
#[test]
fn of_an_update_that_is_made_again() {
    update(faults::fail, Quiet::back);
}

fn update(fail: impl Fn(u64), start: fn() -> Quiet) {
    let mut quiet = start();
    each_of(
        fail,
        &mut quiet,
        |quiet| quiet.file.apply(quiet.program.pid),
        |quiet, what, outcome| match outcome.exit() {
            ExitCode::Updated => {
                Shape::of(quiet.program.pid);
                assert_untouched(quiet.program.pid, what);
                assert_eq!(quiet.answers(), NEW, "{what}");
                *quiet = start();
            }
            _ => quiet.assert_as_before_or_told(what, &outcome),
        },
    );
    assert_eq!(quiet.answers(), NEW);
}

#[test]
fn of_a_revert() {
    reverted(faults::fail);
}

fn reverted(fail: impl Fn(u64)) {
    let mut quiet = Quiet::updated();
    each_of(
        fail,
        &mut quiet,
        |quiet| revert(&quiet.file.options(quiet.program.pid)),
        |quiet, what, outcome| match outcome.exit() {
            ExitCode::Updated => {
                Shape::of(quiet.program.pid);
                assert_untouched(quiet.program.pid, what);
                assert_eq!(quiet.answers(), OLD, "{what}");
                *quiet = Quiet::updated();
            }
            _ => quiet.assert_as_before(what),
        },
    );
    assert_eq!(quiet.answers(), OLD);
}

/// Not a test of its own, but what [`of_a_recovery`] runs in a process that dies.
#[test]
fn a_tool_that_dies() {
    let Some(text) = std::env::var_os("DSU_DIES") else { return };
    let text = text.into_string().unwrap();
    let [file, pid] = text.split('\n').collect::<Vec<_>>().try_into().unwrap();
    let mut options = ApplyOptions::new(file, pid.parse().unwrap());
    options.die = Some(FailPoint::BeforeApplied);
    panic!("it lives: {}", apply(&options).text(true));
}

/// Leaves a commit half done.
fn die(quiet: &Quiet) {
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_tool_that_dies", "--nocapture"])
        .env("DSU_DIES", format!("{}\n{}", quiet.file.0.path().display(), quiet.program.pid))
        .output()
        .unwrap();
    assert_eq!(done.status.signal(), Some(9), "{done:?}");
}

/// One that fails leaves it to the next one.
#[test]
fn of_a_recovery() {
    recovery(faults::fail);
}

fn recovery(fail: impl Fn(u64)) {
    let mut quiet = Quiet::start();
    die(&quiet);
    each_of(
        fail,
        &mut quiet,
        |quiet| recover(quiet.program.pid).map_err(|e| e.to_string()),
        |quiet, what, recovered| {
            let again = recover(quiet.program.pid).unwrap();
            quiet.assert_as_before(&format!("{what}: {recovered:?}, then {again:?}"));
            die(quiet);
        },
    );
    quiet.assert_as_before("in the end");
    assert_eq!(quiet.answers(), OLD);
}

/// A process whose threads never rest.
struct Busy {
    program: Program,
    file: BundleFile,
    question: &'static str,
    seen: [&'static str; 2],
    before: Shape,
}

impl Busy {
    fn start(build: &Build, arguments: &[&str], bundle: &Bundle) -> Self {
        let program = Program::start(&build.path, arguments);
        let mut before = Shape::of(program.pid);
        // A thread that is being made blocks all signals.
        while before.signals.iter().filter(|line| line.starts_with("SigBlk")).count() > 1 {
            before = Shape::of(program.pid);
        }
        let file = BundleFile::new(bundle);
        Self { program, file, question: "?", seen: ["1000 1000 0", "2000 2000 0"], before }
    }

    /// Threads that spin through replaced functions: they run to breakpoints.
    fn hot() -> Self {
        let [old, new] = [1, 2].map(|version| build("threads", version, &[]));
        let bundle = bundle(&old, &new, &["inner", "middle", "outer"], &[]);
        let (question, seen) = ("v", ["111 111", "222 222"]);
        Self { question, seen, ..Self::start(&old, &["4", "2", "hot"], &bundle) }
    }

    /// Threads that never leave a replaced function: they are stepped to a site.
    fn stepped() -> Self {
        let [old, new] = [1, 2].map(|version| build("sites", version, &[]));
        let mut bundle = bundle(&old, &new, &["spin"], &[]);
        add(&mut bundle, &old, &new, &[point(&old, "spin")]);
        Self::start(&old, &["spin", "2"], &bundle)
    }

    /// What it has once its threads have passed by a signal that they ignore.
    fn settled(&self) -> Shape {
        let start = Instant::now();
        loop {
            let now = Shape::of(self.program.pid);
            if now.signals == self.before.signals || start.elapsed() > PATIENCE {
                return now;
            }
            std::thread::yield_now();
        }
    }

    fn sweep(fail: impl Fn(u64), start: fn() -> Self) {
        let mut busy = start();
        each_of(
            fail,
            &mut busy,
            |busy| {
                let mut options = busy.file.options(busy.program.pid);
                options.timeout = Duration::from_secs(5);
                apply(&options)
            },
            |busy, what, outcome| {
                assert_untouched(busy.program.pid, what);
                let now = busy.settled();
                assert_eq!(now.signals, busy.before.signals, "{what}");
                let updated = outcome.exit() == ExitCode::Updated;
                assert_eq!(
                    busy.program.ask(busy.question),
                    busy.seen[usize::from(updated)],
                    "{what}"
                );
                if updated {
                    *busy = start();
                } else {
                    assert_eq!(now.maps, busy.before.maps, "{what}");
                }
            },
        );
        assert_eq!(busy.program.ask(busy.question), busy.seen[1]);
    }
}

#[test]
fn of_an_update_whose_threads_run_to_breakpoints() {
    Busy::sweep(faults::fail, Busy::hot);
}

#[test]
fn of_an_update_whose_threads_are_stepped() {
    Busy::sweep(faults::fail, Busy::stepped);
}
