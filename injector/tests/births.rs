//! Threads that are born and end while the process is being stopped, held and let go: none is overlooked,
//! and none is left behind.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BundleFile, Program, build, bundle, expect};
use dsu_injector::ptrace::hold::Hold;
use dsu_injector::ptrace::onward::{Cause, without_pending_trap};
use dsu_injector::ptrace::process::{StoppedProcess, thread_ids};
use dsu_injector::ptrace::sched::{Pace, Undisturbed};
use dsu_injector::ptrace::stop::Event;
use dsu_injector::ptrace::sys;
use dsu_injector::ptrace::thread::let_go_of_the_rest;
use dsu_injector::target::process::Status;
use dsu_injector::{ExitCode, apply};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(5);

/// Whether no thread of it is stopped or traced.
fn runs(pid: i32) -> bool {
    let statuses = thread_ids(pid).unwrap().into_iter().filter_map(Status::of);
    statuses.into_iter().all(|s| s.tracer == 0 && !matches!(s.state, 'T' | 't'))
}

/// A thread may have been asked to stop a second time while it stood still already: a newborn one always
/// has. It stops for that before it takes any signal.
#[test]
fn a_hold_ends_in_a_thread_that_is_to_stop_once_more() {
    let build = build("threads", 1, &[]);
    // More than a hold asks for their signal masks: one of them takes the signal.
    let mut program = Program::start(&build.path, &["100", "0", "idle"]);
    let _undisturbed = Undisturbed::begin();
    let mut stopped = StoppedProcess::stop(program.pid, WITHIN).unwrap();
    for thread in &stopped.threads {
        sys::interrupt(thread.tid()).unwrap();
    }
    let hold = Hold::begin(&stopped).unwrap();
    hold.end(&mut stopped).unwrap();
    let _ = stopped.release();
    assert!(runs(program.pid), "it was left stopped");
    program.tell("v");
    program.line();
}

/// Sends SIGTRAP to a process's first thread alone (tgkill(2), which no command and no library has).
fn trap(pid: i32) {
    let call = format!("syscall(234, {pid}, {pid}, 5) == 0 or exit 1");
    assert!(Command::new("perl").args(["-e", &call]).status().unwrap().success());
}

/// The same with a trap: as long as it is there, letting the thread go would end the process.
#[test]
fn a_trap_is_fetched_from_a_thread_that_is_to_stop_once_more() {
    let build = build("threads", 1, &[]);
    let program = Program::start(&build.path, &["2", "0", "idle"]);
    let _undisturbed = Undisturbed::begin();
    let fetch = |thread| without_pending_trap(thread, Cause::Breakpoint, Pace::Crowded).unwrap();
    let mut stopped = StoppedProcess::stop(program.pid, WITHIN).unwrap();
    let thread = stopped.take(program.pid).unwrap();
    trap(program.pid);
    sys::interrupt(thread.tid()).unwrap();
    let thread = fetch(thread);
    assert_eq!(thread.event(), Event::Signal(libc::SIGTRAP), "sent, so it is for the program");
    let thread = thread.without_signal();
    // One that is blocked does not come.
    thread.set_signal_mask(1 << (libc::SIGTRAP - 1)).unwrap();
    trap(program.pid);
    let start = Instant::now();
    assert_eq!(fetch(thread).event(), Event::Interrupted);
    assert!(start.elapsed() < WITHIN, "it was waited for");
}

/// While the others stand still, threads of the failed attempt make new ones, which are traced from their
/// birth.
#[test]
fn threads_that_are_born_in_a_failed_attempt_go_on() {
    let [old, new] = [1, 2].map(|version| build("threads", version, &[]));
    let file = BundleFile::new(&bundle(&old, &new, &["breed"], &[]));
    let mut program = Program::start(&old.path, &["5", "4", "breed"]);
    for round in 0..50 {
        let mut options = file.options(program.pid);
        (options.timeout, options.dry_run) = (Duration::ZERO, true);
        expect(&apply(&options), ExitCode::Blocked);
        assert!(runs(program.pid), "round {round}: a thread was left behind");
    }
    assert_eq!(program.ask("v"), "111 111");
}

/// Stops the process often; each time, every thread that is there must be held, and stay so.
fn stop_often(how: &str, busy: usize, rounds: usize) {
    let build = build("threads", 1, &[]);
    let (all, busy) = ((busy + 1).to_string(), busy.to_string());
    let mut program = Program::start(&build.path, &[&all, &busy, how]);
    for round in 0..rounds {
        let stopped = StoppedProcess::stop(program.pid, WITHIN).unwrap();
        let held: BTreeSet<i32> = stopped.threads.iter().map(|t| t.tid()).collect();
        let there: BTreeSet<i32> = thread_ids(program.pid).unwrap().into_iter().collect();
        assert_eq!(held, there, "round {round}");
        // The first one, and whoever is busy.
        assert!(held.len() >= 2, "round {round}: {held:?}");
        let _ = stopped.release();
        let_go_of_the_rest();
    }
    assert_eq!(program.ask("v"), "111 111");
}

#[test]
fn no_thread_of_a_process_that_makes_many_is_overlooked() {
    stop_often("make", 8, 300);
}

/// Whoever is listed has ended when it is looked at, and has made another one.
#[test]
fn no_thread_of_a_relay_is_overlooked() {
    stop_often("relay", 1, 4000);
}
