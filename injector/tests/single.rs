//! One thread: first update, second update on top of it, refusals, and that nothing else changes.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Build, BundleFile, PATIENCE, Program, build, bundle, expect, write_data};
use dsu_injector::{ExitCode, FailPoint, apply};
use std::time::Duration;

fn versions() -> [Build; 3] {
    [1, 2, 3].map(|version| build("answer", version, &[]))
}

#[test]
fn a_function_is_replaced() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &[]);
    assert_eq!(program.number("a5"), 6);
    let bundle = bundle(&old, &new, &["answer"], &["added", "bonus"]);
    let outcome = BundleFile::new(&bundle).apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    assert_eq!(program.number("a5"), 120);
    assert_eq!(program.number("p5"), 120, "through a pointer made before");
    assert_eq!(program.number("="), 1, "identity");
    assert_eq!(program.number("c"), 101 + 9 + 9, "the counter goes on where it was");
    assert_eq!((outcome.attempts, outcome.threads), (1, 1));
    assert!(outcome.pause < Duration::from_millis(100), "{:?}", outcome.pause);
    println!("{}", outcome.text(true));
    println!("{}", outcome.json());
}

#[test]
fn updates_stack() {
    let [first, second, third] = versions();
    let mut program = Program::start(&first.path, &[]);
    let one = bundle(&first, &second, &["answer"], &["added", "bonus"]);
    expect(&BundleFile::new(&one).apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("a5"), 120);
    assert_eq!(program.number("o0"), 0x55);
    let two = bundle(&second, &third, &["answer", "other"], &[]);
    expect(&BundleFile::new(&two).apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("a5"), 12_003, "by version 2's added and bonus");
    assert_eq!(program.number("p5"), 12_003);
    assert_eq!(program.number("o0"), 0xaa);
    assert_eq!(program.number("c"), 100 + 9 + 21 + 21);
    // And back again: version 3 to version 2 is an update like any other.
    let back = bundle(&third, &second, &["answer", "other"], &[]);
    expect(&BundleFile::new(&back).apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("a5"), 120);
    assert_eq!(program.number("p5"), 120);
    assert_eq!(program.number("o0"), 0x55);
    assert_eq!(program.number("="), 1);
}

#[test]
fn the_same_bundle_twice() {
    let [old, new, third] = versions();
    let program = Program::start(&old.path, &[]);
    let file = BundleFile::new(&bundle(&old, &new, &["answer"], &["added", "bonus"]));
    expect(&file.apply(program.pid), ExitCode::Updated);
    let before = program.picture();
    expect(&file.apply(program.pid), ExitCode::AlreadyApplied);
    let skips = BundleFile::new(&bundle(&old, &third, &["answer"], &["added", "bonus"]));
    expect(&skips.apply(program.pid), ExitCode::WrongBuild);
    before.assert_same(&program.picture(), "after refusals");
}

#[test]
fn a_replaced_function_on_the_stack_blocks() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &[]);
    assert_eq!(program.ask("i"), "inside");
    let file = BundleFile::new(&bundle(&old, &new, &["inside"], &[]));
    let before = program.picture();
    let mut options = file.options(program.pid);
    options.timeout = Duration::from_millis(100);
    for dry_run in [true, false] {
        options.dry_run = dry_run;
        let outcome = apply(&options);
        expect(&outcome, ExitCode::Blocked);
        let blocker = outcome.blockers().first().expect("a blocker");
        assert_eq!(blocker.tid, program.pid);
        assert_eq!((blocker.thread.as_str(), blocker.function.as_str()), ("answer", "inside"));
        assert_eq!((blocker.file.as_str(), blocker.line), ("program.c", 1));
        assert!(outcome.attempts > 1);
        before.assert_same(&program.picture(), "after a blocked attempt");
    }
    // The newline that follows is what `inside` reads; then nothing is in the way.
    assert_eq!(program.number("x"), 2);
    expect(&file.apply(program.pid), ExitCode::Updated);
}

#[test]
fn stale_words_do_not_block() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &[]);
    assert_eq!(program.ask("r50"), "deep");
    assert_eq!(program.number(""), 51, "the frames of recurse are left below the stack pointer");
    let file = BundleFile::new(&bundle(&old, &new, &["recurse"], &[]));
    expect(&file.apply(program.pid), ExitCode::Updated);
}

#[test]
fn a_dry_run_changes_nothing() {
    let [old, new, _] = versions();
    let program = Program::start(&old.path, &[]);
    let file = BundleFile::new(&bundle(&old, &new, &["answer"], &["added", "bonus"]));
    let mut options = file.options(program.pid);
    options.dry_run = true;
    let before = program.picture();
    expect(&apply(&options), ExitCode::Updated);
    before.assert_same(&program.picture(), "after a dry run");
}

#[test]
fn every_fail_point_leaves_the_process_as_it_was() {
    use FailPoint::*;
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &[]);
    let mut bundle = bundle(&old, &new, &["answer", "other"], &["added", "bonus"]);
    write_data(&mut bundle, &old, "table", &[9; 32]);
    let file = BundleFile::new(&bundle);
    let before = program.picture();
    let early = [Looked, Reserved, Mapped, Prepared, Stopped, Verified];
    for point in early {
        let mut options = file.options(program.pid);
        options.fail = vec![point];
        expect(&apply(&options), ExitCode::Internal);
        before.assert_same(&program.picture(), &format!("{point:?}"));
    }
    let mut late = vec![Journalled, BeforeApplied, Applied];
    // The data, then both redirects at once.
    late.extend((0..2).flat_map(|n| [BeforeWrite(n), AfterWrite(n)]));
    for point in late {
        let mut options = file.options(program.pid);
        options.fail = vec![point];
        expect(&apply(&options), ExitCode::CommitFailed);
        before.assert_same(&program.picture(), &format!("{point:?}"));
    }
    assert_eq!((program.number("a5"), program.number("t1")), (6, 2));
    expect(&file.apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("t1"), 0x0909_0909_0909_0909);
}

#[test]
fn an_undo_that_fails_is_told_and_the_rest_is_undone() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &[]);
    let mut bundle = bundle(&old, &new, &["answer", "other"], &["added", "bonus"]);
    write_data(&mut bundle, &old, "table", &[9; 32]);
    let file = BundleFile::new(&bundle);
    let mut options = file.options(program.pid);
    options.fail = vec![FailPoint::BeforeApplied, FailPoint::Undo(1)];
    let outcome = apply(&options);
    expect(&outcome, ExitCode::CommitFailed);
    let text = outcome.text(false);
    assert!(text.contains("NOT undone: redirect of") && text.contains("1 more near it"), "{text}");
    // Both still answer: what was left leads into code that is still there.
    assert_eq!((program.number("a5"), program.number("o0")), (120, 0x55));
    assert_eq!(program.number("t1"), 2, "the data is undone");
}

#[test]
fn text_that_differs_is_refused() {
    let [old, new, _] = versions();
    let program = Program::start(&old.path, &[]);
    let mut bundle = bundle(&old, &new, &["answer"], &["added", "bonus"]);
    bundle.plan.redirects[0].mask.fill(0xff);
    bundle.plan.redirects[0].expect[3] ^= 1;
    let before = program.picture();
    expect(&BundleFile::new(&bundle).apply(program.pid), ExitCode::Unsuitable);
    before.assert_same(&program.picture(), "after a refusal");
}

#[test]
fn a_stopped_process_stays_stopped() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &[]);
    program.settle();
    stop_and_wait(program.pid);
    let file = BundleFile::new(&bundle(&old, &new, &["answer"], &["added", "bonus"]));
    expect(&file.apply(program.pid), ExitCode::Updated);
    wait_until_stopped(program.pid);
    signal(program.pid, "CONT");
    assert_eq!(program.number("a5"), 120);
}

fn signal(pid: i32, name: &str) {
    let done =
        std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(done.unwrap().success());
}

fn stop_and_wait(pid: i32) {
    signal(pid, "STOP");
    wait_until_stopped(pid);
}

fn wait_until_stopped(pid: i32) {
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        if std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ") {
            return;
        }
        std::thread::yield_now();
    }
    panic!("it does not stop");
}
