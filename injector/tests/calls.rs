//! System calls that are under way when the process is updated: none of them ends because of it, none sees
//! `EINTR`, none misses its deadline, and the parent is told nothing.

#![allow(clippy::unwrap_used)]

mod common;

use common::calls::Ended;
use common::{Build, BundleFile, Program, build, bundle, expect};
use dsu_injector::ExitCode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the calls with a time-out may be late by, in microseconds, on a machine that has more to do.
const LATE: i64 = 300_000;
/// They have waited for so long when the update comes: a call that began anew would be late by more than that.
const WAITED: Duration = Duration::from_millis(400);

fn versions() -> [Build; 3] {
    [1, 2, 3].map(|version| build("calls", version, &[]))
}

/// A program with one thread, which makes all calls of the update in the middle of its own.
#[test]
fn a_call_of_the_only_thread_goes_on() {
    let [old, new, _] = versions();
    for name in ["epoll", "semtimedop", "nanosleep"] {
        let mut program = Program::start(&old.path, &[]);
        let pid = i32::try_from(program.number("p")).unwrap();
        assert_eq!(program.ask(&format!("o{name}")), "begun");
        std::thread::sleep(WAITED);
        let outcome = BundleFile::new(&bundle(&old, &new, &["version"], &[])).apply(pid);
        expect(&outcome, ExitCode::Updated);
        let ended = Ended::parse(&program.line()).unwrap();
        println!("{name}: late by {} us", ended.late);
        assert_eq!(ended.wrong(LATE, Duration::ZERO), None);
        assert_eq!(program.number("v"), 2);
    }
}

#[test]
fn calls_under_way_go_on() {
    let [old, new, third] = versions();
    let mut program = Program::start(&old.path, &[]);
    let pid = i32::try_from(program.number("p")).unwrap();
    assert_eq!(program.ask("b"), "begun");
    let mut stood = Duration::ZERO;
    for (from, to, version) in [(&old, &new, 2), (&new, &third, 3)] {
        std::thread::sleep(WAITED);
        let outcome = BundleFile::new(&bundle(from, to, &["version"], &[])).apply(pid);
        expect(&outcome, ExitCode::Updated);
        stood += outcome.pause + outcome.longest_other_pause;
        assert_eq!(program.number("v"), version);
    }
    let all = program.ended_calls();
    assert_eq!(all.len(), 29);
    let wrong: Vec<_> = all.iter().filter_map(|one| one.wrong(LATE, stood)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    program.close();
    assert_eq!(program.line(), "told 0");
}

/// Signals that it ignores come all the time while it is updated, there and back, on a machine that has more to do:
/// a thread that is traced is woken by them, and its calls go on all the same.
#[test]
fn signals_that_are_ignored_end_no_call() {
    let [old, new] = [1, 2].map(|version| build("waits", version, &["-DTIMEOUT_MS=300"]));
    let files = [(&old, &new), (&new, &old)]
        .map(|(from, to)| BundleFile::new(&bundle(from, to, &["version"], &[])));
    let mut program = Program::start(&old.path, &[]);
    let pid = i32::try_from(program.number("p")).unwrap();
    let mut wrong = Vec::new();
    for round in 0..10 {
        // A thread that makes another one blocks all signals meanwhile: what comes then is not ignored.
        assert_eq!(program.ask("b"), "begun");
        let over = AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for signal in [Signal::SIGURG, Signal::SIGWINCH, Signal::SIGUSR2] {
                        kill(Pid::from_raw(pid), signal).unwrap();
                        std::thread::sleep(Duration::from_micros(70));
                    }
                }
            });
            let outcome = files[round % 2].apply(pid);
            over.store(true, Ordering::Relaxed);
            outcome
        });
        expect(&outcome, ExitCode::Updated);
        let all = program.ended_calls();
        assert_eq!(all.len(), 4);
        // When exactly is not the matter here, with so many signals.
        let late = LATE * 10;
        wrong.extend(all.iter().filter_map(|one| one.wrong(late, Duration::ZERO)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
