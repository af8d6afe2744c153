//! Processes under seccomp: updated where the filter allows it or can be left out; else refused with the call,
//! the answer of the filter and the way out, before anything in them is changed.

#![allow(clippy::unwrap_used)]

mod common;

use common::deaths::{guardian, kill};
use common::{Build, BundleFile, Program, build, bundle, expect};
use dsu_injector::ptrace::gate::{Suspend, may_look};
use dsu_injector::recover::recover;
use dsu_injector::{ExitCode, Outcome, apply, revert};
use std::process::{Command, Stdio};
use std::time::Duration;

fn versions() -> [Build; 3] {
    [1, 2, 3].map(|version| build("hardened", version, &[]))
}

fn file() -> BundleFile {
    let [old, new, _] = versions();
    BundleFile::new(&bundle(&old, &new, &["answer"], &[]))
}

fn start(kinds: &str) -> Program {
    // What is tested here cannot be seen otherwise: never pass by for want of it.
    assert!(may_look(), "these tests need root, CAP_SYS_ADMIN and no seccomp of their own");
    let mut program = Program::start(&versions()[0].path, &[]);
    for kind in kinds.chars() {
        assert_eq!(program.number(&format!("!{kind}")), 0, "filter {kind}");
    }
    program
}

fn updated(program: &mut Program, suspend: Suspend) -> Outcome {
    let file = file();
    let mut options = file.options(program.pid);
    options.suspend = suspend;
    let outcome = apply(&options);
    expect(&outcome, ExitCode::Updated);
    assert_eq!(program.number("a4"), 42);
    outcome
}

/// Refused with these words, dry or not; and as it was.
fn refused(program: &mut Program, words: &[&str]) {
    let file = file();
    let before = program.picture();
    for dry_run in [true, false] {
        let mut options = file.options(program.pid);
        options.dry_run = dry_run;
        let outcome = apply(&options);
        expect(&outcome, ExitCode::Unsuitable);
        let text = outcome.text(false);
        for word in words {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        before.assert_same(&program.picture(), &text);
    }
    assert_eq!(program.number("a4"), 41);
}

#[test]
fn filters_that_allow_it() {
    // One that forbids something else; systemd's MemoryDenyWriteExecute; both at once.
    for kinds in ["a", "w", "W", "aW"] {
        updated(&mut start(kinds), Suspend::Mildly);
    }
}

#[test]
fn filters_that_give_errors_are_left_out() {
    for kinds in ["m", "x", "mx", "wm", "hm"] {
        let mut program = start(kinds);
        updated(&mut program, Suspend::Mildly);
        // It counts again behind the calls, and a revert makes none that it forbids.
        let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid)).unwrap();
        assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
        expect(&revert(&file().options(program.pid)), ExitCode::Updated);
        assert_eq!(program.number("a4"), 41);
    }
}

#[test]
fn filters_that_kill_are_left_out_only_if_that_is_asked_for() {
    for (kinds, what) in [
        ("k", "kills it for the mmap"),
        ("X", "kills it for the mmap"),
        ("t", "sends SIGSYS for the munmap"),
        ("g", "kills it for the rt_sigreturn"),
        ("mk", "kills it for the mmap"),
        ("s", "kills it for the mmap"),
    ] {
        let mut program = start(kinds);
        refused(&mut program, &["runs under seccomp", what, "--suspend-seccomp"]);
        updated(&mut program, Suspend::Always);
    }
}

#[test]
fn a_thread_without_filter_makes_the_calls() {
    let mut program = start("h");
    updated(&mut program, Suspend::Mildly);
}

/// Stopping such a process as ever would kill it.
#[test]
fn a_filter_that_forbids_to_go_on_sleeping() {
    let mut program = start("r");
    refused(&mut program, &["for restart_syscall", "allow restart_syscall"]);
    // The same in the middle of a sleep.
    assert_eq!(program.number("p"), 1);
    program.settle();
    expect(&file().apply(program.pid), ExitCode::Unsuitable);
    assert_eq!(program.line(), "0", "the sleep has ended as it should");
    assert_eq!(program.number("a4"), 41);
}

/// The kernel's own: memory never becomes executable that was not mapped so.
#[test]
fn memory_that_denies_write_and_execute() {
    let mut program = Program::start(&versions()[0].path, &[]);
    let answer = program.number("!d");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = kernel.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    // Before Linux 6.3 there is no such thing, and the call says so.
    assert_eq!(answer, if version >= (6, 3) { 0 } else { -1 }, "{kernel}");
    updated(&mut program, Suspend::Mildly);
    let [_, new, third] = versions();
    let next = BundleFile::new(&bundle(&new, &third, &["answer"], &[]));
    expect(&next.apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("a4"), 43);
}

/// Killed in the middle of a call for which the filter is suspended: it counts again, the call gives an error,
/// and the thread saves itself.
#[test]
fn the_tool_is_killed_while_a_filter_is_left_out() {
    let file = file();
    let (mut updates, mut seen) = (0, 0);
    for round in 0..40 {
        let mut program = start("m");
        let mut tool = Command::new(env!("CARGO_BIN_EXE_dsu-apply"))
            .arg(file.0.path())
            .args(["--pid", &program.pid.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if let Some(guardian) = guardian(&mut tool) {
            seen += 1;
            std::thread::sleep(Duration::from_micros(250 * round));
            kill(guardian);
        }
        tool.wait().unwrap();
        recover(program.pid).unwrap();
        let answer = program.number("a4");
        assert!(matches!(answer, 41 | 42), "{answer}");
        updates += i32::from(answer == 42);
    }
    assert!(seen > 20, "the tool was there to be killed {seen} times of 40");
    println!("{updates} of 40 were updated");
}
