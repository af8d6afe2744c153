//! Every call that an update, a revert or a recovery makes fails once, each in its turn: afterwards the
//! process is as before, or as after, and no thread of it is stopped, traced or has anything set.

#![allow(clippy::unwrap_used)]

mod common;

use common::sites::{add, point};
use common::{Build, BundleFile, PATIENCE, Picture, Program, build, bundle, expect, write_data};
use dsu_injector::faults::{self, Call};
use dsu_injector::ptrace::process::{StoppedProcess, thread_ids};
use dsu_injector::recover::{Recovered, recover};
use dsu_injector::target::process::Status;
use dsu_injector::{ApplyOptions, ExitCode, FailPoint, Outcome, apply, revert};
use dsu_patch_format::Bundle;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// No update makes so many calls.
const MOST: u64 = 5000;

/// What a failed call may take longer: a wait for what does not come then.
const LONGER: Duration = Duration::from_secs(10);

/// Lets each call of `act` but reads fail once; `check` is told what has come of it.
fn each<S, T: Told>(
    state: &mut S,
    act: impl FnMut(&mut S) -> T,
    check: impl FnMut(&mut S, &str, T),
) {
    each_of(faults::fail, state, act, check);
}

/// The same with what `fail` says.
fn each_of<S, T: Told>(
    fail: fn(u64),
    state: &mut S,
    mut act: impl FnMut(&mut S) -> T,
    mut check: impl FnMut(&mut S, &str, T),
) {
    let start = Instant::now();
    for number in 1..MOST {
        let begun = Instant::now();
        fail(number);
        let result = act(state);
        let Some(call) = faults::end() else {
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

/// It takes the memory that the bundle had before, and puts its code back.
#[test]
fn of_an_update_that_is_made_again() {
    update(faults::fail, Quiet::back);
}

fn update(fail: fn(u64), start: fn() -> Quiet) {
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
            _ => quiet.assert_as_before(what),
        },
    );
    assert_eq!(quiet.answers(), NEW);
}

#[test]
fn of_a_revert() {
    let mut quiet = Quiet::updated();
    each(
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
    let mut quiet = Quiet::start();
    die(&quiet);
    each(
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

    fn sweep(start: fn() -> Self) {
        let mut busy = start();
        each(
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
    Busy::sweep(Busy::hot);
}

#[test]
fn of_an_update_whose_threads_are_stepped() {
    Busy::sweep(Busy::stepped);
}
