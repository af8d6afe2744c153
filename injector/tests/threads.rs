//! Many threads: waiting, spinning through replaced functions, fighting for locks in them, diving
//! deep, being made and ending, taking signals on another stack.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Build, BundleFile, Program, build, bundle, expect};
use dsu_injector::{ExitCode, Outcome, apply};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The heavy ones one after the other: what they measure is how one update fares.
static ALONE: Mutex<()> = Mutex::new(());

const SPIN: [&str; 3] = ["inner", "middle", "outer"];

fn versions() -> [Build; 2] {
    [1, 2].map(|version| build("threads", version, &[]))
}

/// Starts the program, updates it, and gives what it says of versions before and after.
fn update(threads: usize, busy: usize, how: &str, replaced: &[&str], timeout_ms: u64) -> Run {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let [old, new] = versions();
    let (threads, busy) = (threads.to_string(), busy.to_string());
    let mut program = Program::start(&old.path, &[&threads, &busy, how]);
    let before = program.ask("v");
    let file = BundleFile::new(&bundle(&old, &new, replaced, &[]));
    let mut options = file.options(program.pid);
    options.timeout = Duration::from_millis(timeout_ms);
    let outcome = apply(&options);
    let after = program.ask("v");
    print!("{threads:>4} threads, {busy:>3} {how}: {}", outcome.text(false));
    println!("     {}", outcome.json());
    Run { program, outcome, before, after }
}

struct Run {
    program: Program,
    outcome: Outcome,
    before: String,
    after: String,
}

#[test]
fn waiting_threads() {
    for threads in [2, 8, 64, 256] {
        let run = update(threads, 0, "idle", &SPIN, 2000);
        expect(&run.outcome, ExitCode::Updated);
        assert_eq!((run.outcome.threads, run.outcome.attempts), (threads, 1));
    }
}

#[test]
fn hot_threads() {
    for (threads, hot) in [(2, 1), (8, 2), (64, 4), (256, 8)] {
        let run = update(threads, hot, "hot", &SPIN, 5000);
        expect(&run.outcome, ExitCode::Updated);
        assert_eq!((run.before.as_str(), run.after.as_str()), ("111 111", "222 222"));
    }
}

/// Back and forth in one process, each update on top of the ones before.
fn back_and_forth(threads: usize, rounds: usize) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let builds = versions();
    let (all, hot) = ((threads + 1).to_string(), threads.to_string());
    let mut program = Program::start(&builds[0].path, &[&all, &hot, "hot"]);
    let files = [(0, 1), (1, 0)]
        .map(|(from, to)| BundleFile::new(&bundle(&builds[from], &builds[to], &SPIN, &[])));
    let mut longest = Duration::ZERO;
    let mut mapped = Vec::new();
    for round in 0..rounds {
        let mut options = files[round % 2].options(program.pid);
        options.timeout = Duration::from_secs(5);
        let outcome = apply(&options);
        expect(&outcome, ExitCode::Updated);
        longest = longest.max(outcome.pause).max(outcome.longest_other_pause);
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", program.pid)).unwrap();
        mapped.push(maps.lines().count());
        if round % 25 == 0 {
            print!("{round:>3}: {}", outcome.text(false));
            let seen = if round % 2 == 0 { "222 222" } else { "111 111" };
            assert_eq!(program.ask("v"), seen, "round {round}");
        }
    }
    println!("longest pause of all: {longest:?}");
    // The C library maps arenas as threads first need them.
    let grown = mapped[rounds - 1].saturating_sub(mapped[9]);
    assert!(grown < 8, "{grown} mappings more after {rounds} updates: {mapped:?}");
}

#[test]
fn spinning_threads_climb_many_versions() {
    back_and_forth(8, 20);
}

#[test]
fn all_of_64_threads_spin_through_replaced_functions_100_times() {
    back_and_forth(64, 100);
}

#[test]
fn all_of_64_threads_fight_for_a_lock_inside_a_replaced_function() {
    let run = update(65, 64, "fight", &["fight", "locked_step"], 10_000);
    expect(&run.outcome, ExitCode::Updated);
    assert_eq!((run.before.as_str(), run.after.as_str()), ("111 111", "222 222"));
}

#[test]
fn deep_recursion() {
    let run = update(9, 8, "deep", &["deep", "inner"], 5000);
    expect(&run.outcome, ExitCode::Updated);
    assert_eq!((run.before.as_str(), run.after.as_str()), ("111 111", "222 222"));
}

#[test]
fn threads_are_made_and_end_all_the_time() {
    let run = update(9, 8, "make", &SPIN, 5000);
    expect(&run.outcome, ExitCode::Updated);
    assert_eq!((run.before.as_str(), run.after.as_str()), ("111 111", "222 222"));
}

#[test]
fn threads_that_sleep_and_wake() {
    let run = update(33, 32, "sleep", &SPIN, 5000);
    expect(&run.outcome, ExitCode::Updated);
    assert_eq!((run.before.as_str(), run.after.as_str()), ("111 111", "222 222"));
}

#[test]
fn signals_on_another_stack_keep_coming() {
    for _ in 0..10 {
        let mut run = update(2, 1, "signals", &["on_signal", "inner", "middle", "outer"], 5000);
        expect(&run.outcome, ExitCode::Updated);
        assert_eq!(run.after, "222 222");
        let handled = run.program.number("h");
        assert!(handled > 0);
    }
}

#[test]
fn a_thread_that_never_leaves_is_named() {
    let run = update(5, 4, "hot", &["hot", "outer"], 200);
    expect(&run.outcome, ExitCode::Blocked);
    let names: Vec<_> = run.outcome.blockers().iter().map(|b| b.function.as_str()).collect();
    assert_eq!(names.iter().filter(|n| **n == "hot").count(), 4, "{names:?}");
    assert_eq!(run.after, "111 111");
}
