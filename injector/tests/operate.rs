//! What operators do: look what runs, take an update back, several processes at once, probes, logs.

#![allow(clippy::unwrap_used)]

mod common;

use common::sites::{add, returns};
use common::{Build, BundleFile, Program, build, bundle, expect, tool, write_data};
use dsu_injector::status::status;
use dsu_injector::{ApplyOptions, ExitCode, Outcome, revert};
use dsu_patch_format::plan::{DataPointer, Target};
use dsu_patch_format::{Bundle, NewAddr};
use std::process::Command;
use std::time::Duration;

fn versions() -> [Build; 3] {
    [1, 2, 3].map(|version| build("answer", version, &[]))
}

fn answer(old: &Build, new: &Build) -> Bundle {
    bundle(old, new, &["answer"], &["added", "bonus"])
}

fn serve(old: &Build, new: &Build) -> Bundle {
    let mut bundle = bundle(old, new, &["serve"], &[]);
    add(&mut bundle, old, new, &returns(old, "serve"));
    bundle
}

fn back(pid: i32, ms: u64) -> Outcome {
    let mut options = ApplyOptions::new("", pid);
    options.timeout = Duration::from_millis(ms);
    revert(&options)
}

#[test]
fn status_shows_updates_in_order_and_what_still_waits() {
    let [first, second, third] = [1, 2, 3].map(|version| build("sites", version, &[]));
    let mut program = Program::start(&first.path, &["serve"]);
    assert_eq!(program.number("5"), 1_001_005);
    program.settle();
    let none = status(program.pid).unwrap();
    assert!(none.images.is_empty() && none.text().contains("no updates"), "{}", none.text());
    expect(&BundleFile::new(&serve(&first, &second)).apply(program.pid), ExitCode::Updated);
    expect(&BundleFile::new(&serve(&second, &third)).apply(program.pid), ExitCode::Updated);
    let before = program.picture();
    let found = status(program.pid).unwrap();
    before.assert_same(&program.picture(), "after a look");
    println!("{}", found.text());
    let image = &found.images[0];
    assert_eq!((&*image.loaded, image.runs()), (&*first.build_id, &*third.build_id));
    let pending: Vec<_> = image.updates.iter().map(|u| u.pending).collect();
    assert_eq!(pending, [1, 0], "it waits at a site of the first one");
    let json = found.json();
    assert_eq!(json["images"][0]["updates"][0]["frames_pending"], 1);
    assert_eq!(json["images"][0]["updates"][1]["new_build_id"], *third.build_id);
    assert_eq!(program.number("6"), 2_003_006);
    program.settle();
    let pending =
        status(program.pid).unwrap().images[0].updates.iter().map(|u| u.pending).sum::<usize>();
    assert_eq!(pending, 0, "it has landed");
    let done = tool(&["--status", "--json", "--pid", &program.pid.to_string()]);
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((done.status.code(), &report["left_behind"]), (Some(0), &false.into()));
}

#[test]
fn the_last_update_is_taken_back() {
    let [first, second, third] = versions();
    let mut program = Program::start(&first.path, &[]);
    expect(&back(program.pid, 100), ExitCode::WrongBuild);
    let mut one = answer(&first, &second);
    write_data(&mut one, &first, "table", &[9; 32]);
    let one = BundleFile::new(&one);
    let two = BundleFile::new(&bundle(&second, &third, &["answer", "other"], &[]));
    expect(&one.apply(program.pid), ExitCode::Updated);
    assert_eq!((program.number("a5"), program.number("t1")), (120, 0x0909_0909_0909_0909));
    expect(&two.apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("a5"), 12_003);
    let outcome = back(program.pid, 2000);
    expect(&outcome, ExitCode::Updated);
    assert!(outcome.text(false).contains("reverted"), "{}", outcome.text(false));
    assert_eq!(program.number("a5"), 120, "version 2");
    expect(&back(program.pid, 2000), ExitCode::Updated);
    assert_eq!((program.number("a5"), program.number("p5"), program.number("t1")), (6, 6, 2));
    expect(&back(program.pid, 100), ExitCode::WrongBuild);
    let found = status(program.pid).unwrap();
    assert_eq!((found.images[0].updates.len(), found.images[0].undone.len()), (0, 2));
    // And there again.
    expect(&one.apply(program.pid), ExitCode::Updated);
    expect(&two.apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("a5"), 12_003);
}

/// What a process points to among NEW's data is no frame of NEW: in a process that may have stacks which no
/// thread is on, all of its memory is looked at.
#[test]
fn a_pointer_to_new_data_keeps_no_update_from_being_taken_back() {
    let [old, new] = [1, 2].map(|version| build("answer", version, &["-DCOROUTINES"]));
    let mut program = Program::start(&old.path, &[]);
    let mut one = answer(&old, &new);
    write_data(&mut one, &old, "table", &[0; 32]);
    let target = Target::New(NewAddr(new.symbol("bonus").address));
    let pointer = DataPointer { offset: 8, addend: 4, target };
    one.plan.writes[0].pointers.push(pointer);
    expect(&BundleFile::new(&one).apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("a5"), 120);
    assert_ne!(program.number("t1"), 0);
    expect(&back(program.pid, 500), ExitCode::Updated);
    assert_eq!((program.number("a5"), program.number("t1")), (6, 2));
}

#[test]
fn a_value_that_changed_since_is_not_lost() {
    let [first, second, _] = versions();
    let mut program = Program::start(&first.path, &[]);
    let mut one = answer(&first, &second);
    write_data(&mut one, &first, "counter", &[0; 8]);
    expect(&BundleFile::new(&one).apply(program.pid), ExitCode::Updated);
    // It counts.
    program.number("a5");
    let before = program.picture();
    let outcome = back(program.pid, 500);
    expect(&outcome, ExitCode::Unsuitable);
    assert!(outcome.text(false).contains("have changed since"), "{}", outcome.text(false));
    before.assert_same(&program.picture(), "after a refusal");
}

#[test]
fn frames_that_wait_go_on_in_old_and_frames_of_new_need_a_bundle() {
    let [first, second, third] = [1, 2, 3].map(|version| build("sites", version, &[]));
    let mut program = Program::start(&first.path, &["serve"]);
    assert_eq!(program.number("5"), 1_001_005);
    program.settle();
    let there = BundleFile::new(&serve(&first, &second));
    expect(&there.apply(program.pid), ExitCode::Updated);
    // Its frame has not woken yet.
    expect(&back(program.pid, 2000), ExitCode::Updated);
    assert_eq!(program.number("6"), 2_001_006);
    program.settle();
    expect(&there.apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("7"), 3_002_007);
    program.settle();
    let before = program.picture();
    let outcome = back(program.pid, 100);
    expect(&outcome, ExitCode::Blocked);
    assert!(outcome.text(false).contains("bundle from NEW to OLD"), "{}", outcome.text(false));
    before.assert_same(&program.picture(), "after a blocked revert");
    let home = BundleFile::new(&serve(&second, &first));
    let pid = program.pid.to_string();
    let done = tool(&[home.path(), "--revert", "--pid", &pid]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stdout).contains("reverted"), "{done:?}");
    assert_eq!(program.number("8"), 4_001_008);
    // What does not lead back is refused.
    let elsewhere = BundleFile::new(&serve(&first, &third));
    let done = tool(&[elsewhere.path(), "--revert", "--pid", &pid]);
    assert_eq!(done.status.code(), Some(14), "{done:?}");
}

#[test]
fn several_processes_with_one_command() {
    let flag = ["-Wl,--build-id=0xa11a11a11a11a11a11"];
    let [old, new] =
        [1, 2].map(|version| build("answer", version, if version == 1 { &flag } else { &[] }));
    let mut programs = [(); 3].map(|()| Program::start(&old.path, &[]));
    let file = BundleFile::new(&answer(&old, &new));
    let pids = [0, 1].map(|i: usize| programs[i].pid.to_string());
    let done = tool(&[file.path(), "--pid", &pids[0], "--pid", &pids[1]]);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(text.contains("2 of 2 processes"), "{text}");
    // Those that are left; then one that is there with one that is not.
    let done = tool(&[file.path(), "--all", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((done.status.code(), &report["pid"]), (Some(0), &programs[2].pid.into()));
    assert_eq!(programs.each_mut().map(|p| p.number("a5")), [120; 3]);
    let done = tool(&[file.path(), "--all"]);
    assert_eq!(done.status.code(), Some(11), "nobody left: {done:?}");
    let fourth = Program::start(&old.path, &[]);
    let done = tool(&[file.path(), "--json", "--pid", &pids[0], "--pid", &fourth.pid.to_string()]);
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((done.status.code(), &report["exit"]), (Some(23), &23.into()));
    assert_eq!(report["processes"][0]["outcome"], "already-applied");
    assert_eq!(report["processes"][1]["outcome"], "updated");
}

#[test]
fn a_tree_of_processes() {
    let [old, new, _] = versions();
    let shell = std::path::Path::new("/bin/sh");
    let mut program = Program::start(shell, &["-c", "\"$0\"; true", old.path.to_str().unwrap()]);
    let file = BundleFile::new(&answer(&old, &new));
    let done = tool(&[file.path(), "--tree", "--json", "--pid", &program.pid.to_string()]);
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(0), "{report}");
    assert_ne!(report["pid"], program.pid, "the child of the shell");
    assert_eq!(program.number("a5"), 120);
    let child = report["pid"].as_i64().unwrap().to_string();
    program.kill();
    let _ = Command::new("kill").arg(child).status();
}

#[test]
fn a_probe_decides() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &[]);
    let file = BundleFile::new(&answer(&old, &new));
    let log = tempfile::NamedTempFile::new().unwrap();
    let pid = program.pid.to_string();
    let run = |command: &str, more: &[&str]| {
        let mut arguments = vec![file.path(), "--pid", &pid, "--wait-healthy", command];
        arguments.extend(["--healthy-within", "300", "--log", log.path().to_str().unwrap()]);
        arguments.extend(more);
        tool(&arguments)
    };
    let done = run("exit 7", &["--revert-on-failure"]);
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(22), "{text}");
    assert!(text.contains("exit status: 7") && text.contains("was taken back"), "{text}");
    assert_eq!(program.number("a5"), 6);
    // A log on a full disk is no reason to fail.
    let done = tool(&[file.path(), "--pid", &pid, "--log", "/dev/full"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    expect(&back(program.pid, 2000), ExitCode::Updated);
    let done = run("test -d /proc/$DSU_PID", &["--revert-on-failure"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(program.number("a5"), 120);
    let text = std::fs::read_to_string(log.path()).unwrap();
    for words in ["look took", "commit took", "was taken back", &format!("UTC pid {pid}: ")] {
        assert!(text.contains(words), "no {words:?} in: {text}");
    }
}
