//! SIGKILL of the tool at random instants: the process runs on in one version, whole, or is put right by
//! `--recover`. `DSU_KILLS=N` does N rounds of each instead of some.

#![allow(clippy::unwrap_used)]

mod common;

use common::deaths::{Noise, guardian_of, kill};
use common::sites::{add, point, returns};
use common::{Build, BundleFile, Program, build, bundle, expect, write_data};
use dsu_injector::recover::recover;
use dsu_injector::{ApplyOptions, ExitCode, FailPoint, Outcome, apply};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Front,
    Guardian,
    Both,
}

fn rounds() -> usize {
    std::env::var("DSU_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(25)
}

fn start(file: &BundleFile, pid: i32) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dsu-apply"))
        .arg(file.0.path())
        .args(["--pid", &pid.to_string(), "--json", "--timeout", "60000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs the tool, kills it after a while, and waits until nothing of it is left.
fn run_and_kill(file: &BundleFile, pid: i32, victim: Victim, after: Duration) {
    let mut child = start(file, pid);
    let front = child.id();
    let mut output = child.stdout.take().unwrap();
    let begun = std::time::Instant::now();
    let mut guardian = None;
    while begun.elapsed() < after {
        guardian = guardian.or_else(|| guardian_of(front));
        std::hint::spin_loop();
    }
    match (victim, guardian) {
        (Victim::Front, _) => kill(front),
        (Victim::Guardian, Some(guardian)) => kill(guardian),
        (Victim::Both, Some(guardian)) => {
            kill(front);
            kill(guardian);
        }
        (_, None) => {}
    }
    // Both hold its other end.
    output.read_to_end(&mut Vec::new()).unwrap();
    child.wait().unwrap();
}

/// How often the process was found in which state.
#[derive(Debug, Default)]
struct Tally {
    old: usize,
    new: usize,
    stopped: usize,
    put_right: usize,
}

/// On a crowded machine all of this takes its time.
fn patiently(file: &BundleFile, pid: i32) -> Outcome {
    let mut options = file.options(pid);
    options.timeout = Duration::from_secs(60);
    apply(&options)
}

/// They measure by time where to kill: one after the other.
static ALONE: Mutex<()> = Mutex::new(());

/// Fails with the signal that it died of.
fn alive(program: &Program, round: usize, after: Duration) {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid)).unwrap();
    let signal = stat.split(' ').nth(51).unwrap();
    assert!(!stat.contains(") Z "), "round {round}: it died of {signal} after {after:?}");
}

/// Kills the tool at random, again and again, on its way there and back.
fn storm(
    program: &mut Program,
    files: &[BundleFile; 2],
    question: &str,
    seen: [&str; 2],
    victim: Victim,
) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut version = 0;
    // How long it takes, to spread the kills over it.
    let begun = std::time::Instant::now();
    assert!(start(&files[0], program.pid).wait().unwrap().success());
    let whole = u64::try_from(begun.elapsed().as_micros()).unwrap() * 5 / 4;
    assert_eq!(program.ask(question), seen[1]);
    expect(&patiently(&files[1], program.pid), ExitCode::Updated);
    let mut tally = Tally::default();
    for round in 0..rounds() {
        let after = Duration::from_micros(noise.below(whole));
        run_and_kill(&files[version], program.pid, victim, after);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid)).unwrap();
        tally.stopped += usize::from(stat.contains(") T "));
        alive(program, round, after);
        if victim == Victim::Both {
            let recovered = recover(program.pid).unwrap();
            tally.put_right += usize::from(!recovered.done.is_empty());
        }
        alive(program, round, after);
        let again = recover(program.pid).unwrap();
        assert_eq!(again.done, [""; 0], "round {round}: left behind after {after:?}");
        let found = program.ask(question);
        if found == seen[1 - version] {
            version = 1 - version;
            tally.new += 1;
        } else {
            assert_eq!(found, seen[version], "round {round} after {after:?}");
            tally.old += 1;
        }
    }
    println!("{victim:?}: {tally:?}");
    expect(&patiently(&files[version], program.pid), ExitCode::Updated);
    assert_eq!(program.ask(question), seen[1 - version]);
}

fn hot(victim: Victim) {
    let builds = [1, 2].map(|version| build("threads", version, &[]));
    let mut program = Program::start(&builds[0].path, &["16", "4", "hot"]);
    let spin = ["inner", "middle", "outer"];
    let files = [(0, 1), (1, 0)]
        .map(|(from, to)| BundleFile::new(&bundle(&builds[from], &builds[to], &spin, &[])));
    storm(&mut program, &files, "v", ["111 111", "222 222"], victim);
}

/// Threads that are stepped to their sites, with signals on top.
fn stepped(what: &str, function: &'static str, victim: Victim) {
    let builds = [1, 2].map(|version| build("sites", version, &[]));
    let mut program = Program::start(&builds[0].path, &[what, "2"]);
    let files = [(0, 1), (1, 0)].map(|(from, to)| {
        let (old, new): (&Build, &Build) = (&builds[from], &builds[to]);
        let mut bundle = bundle(old, new, &[function], &[]);
        let sites =
            if function == "nap" { returns(old, "nap") } else { vec![point(old, function)] };
        add(&mut bundle, old, new, &sites);
        BundleFile::new(&bundle)
    });
    storm(&mut program, &files, "?", ["1000 1000 0", "2000 2000 0"], victim);
}

/// Not a test of its own, but what [`at_every_point`] runs in a process that dies.
#[test]
fn a_tool_that_dies() {
    let Some(text) = std::env::var_os("DSU_DIES") else { return };
    let text = text.into_string().unwrap();
    let [file, pid, point] = text.split('\n').collect::<Vec<_>>().try_into().unwrap();
    let mut options = ApplyOptions::new(file, pid.parse().unwrap());
    options.die = Some(points()[point.parse::<usize>().unwrap()]);
    let outcome = apply(&options);
    panic!("it lives: {}", outcome.text(true));
}

fn points() -> Vec<FailPoint> {
    use FailPoint::*;
    let mut points = vec![Looked, Reserved, Mapped, Prepared, Stopped, Verified, Journalled];
    points.extend((0..2).flat_map(|n| [BeforeWrite(n), AfterWrite(n)]));
    points.extend([BeforeApplied, Applied]);
    points
}

/// The process is stopped in the middle of a commit, and nowhere else; afterwards it is as before, or
/// updated.
#[test]
fn at_every_point() {
    let [old, new] = [1, 2].map(|version| build("answer", version, &[]));
    let mut program = Program::start(&old.path, &[]);
    let mut bundle = bundle(&old, &new, &["answer", "other"], &["added", "bonus"]);
    write_data(&mut bundle, &old, "table", &[9; 32]);
    let file = BundleFile::new(&bundle);
    assert_eq!(program.number("a5"), 6);
    // A thread that saves itself does so from there.
    let before = program.picture().in_use();
    for (index, point) in points().into_iter().enumerate() {
        let text = format!("{}\n{}\n{index}", file.0.path().display(), program.pid);
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_tool_that_dies", "--nocapture"])
            .env("DSU_DIES", text)
            .output()
            .unwrap();
        assert_eq!(done.status.signal(), Some(9), "{point:?}: {done:?}");
        let stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid)).unwrap();
            stat.contains(") T ")
        };
        let committing =
            points().iter().position(|p| *p == FailPoint::Journalled).unwrap() <= index;
        if committing {
            let begun = std::time::Instant::now();
            while !stopped() {
                assert!(begun.elapsed() < common::PATIENCE, "{point:?}: it runs half updated");
                std::thread::yield_now();
            }
        }
        let looked = dry_run(&file, program.pid);
        assert_eq!(
            looked,
            if index == 0 { ExitCode::Updated } else { ExitCode::Unsuitable },
            "{point:?}"
        );
        let recovered = recover(program.pid).unwrap();
        println!("{point:?}: {}", recovered.text(program.pid));
        assert_eq!(recovered.done.is_empty(), index == 0, "{point:?}");
        assert!(!stopped(), "{point:?}");
        if point == FailPoint::Applied {
            assert_eq!((program.number("a5"), program.number("o0")), (120, 0x55));
        } else {
            before.assert_same(&program.picture().in_use(), &format!("{point:?}"));
        }
        assert_eq!(recover(program.pid).unwrap().done, [""; 0]);
    }
}

/// The next update puts right what it finds, without being asked.
#[test]
fn the_next_update_recovers() {
    let [old, new] = [1, 2].map(|version| build("answer", version, &[]));
    let mut program = Program::start(&old.path, &[]);
    let file = BundleFile::new(&bundle(&old, &new, &["answer", "other"], &["added", "bonus"]));
    let index = points().iter().position(|p| *p == FailPoint::BeforeApplied).unwrap();
    let text = format!("{}\n{}\n{index}", file.0.path().display(), program.pid);
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_tool_that_dies", "--nocapture"])
        .env("DSU_DIES", text)
        .output()
        .unwrap();
    assert_eq!(done.status.signal(), Some(9), "{done:?}");
    let outcome = file.apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    assert!(outcome.text(false).contains("under way"), "{}", outcome.text(false));
    assert_eq!((program.number("a5"), program.number("o0")), (120, 0x55));
}

fn dry_run(file: &BundleFile, pid: i32) -> ExitCode {
    let mut options = file.options(pid);
    options.dry_run = true;
    apply(&options).exit()
}

/// What asks the tool to end finds the process as before, and the tool with a code of its own.
#[test]
fn signals_end_it_orderly() {
    let [old, new] = [1, 2].map(|version| build("answer", version, &[]));
    let mut program = Program::start(&old.path, &[]);
    assert_eq!(program.ask("i"), "inside");
    let file = BundleFile::new(&bundle(&old, &new, &["inside"], &[]));
    let before = program.picture();
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        let child = Command::new(env!("CARGO_BIN_EXE_dsu-apply"))
            .arg(file.0.path())
            .args(["--pid", &program.pid.to_string(), "--timeout", "60000"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(150));
        let begun = std::time::Instant::now();
        let sent =
            Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let done = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(21), "{signal}: {text}");
        assert!(text.contains("interrupted by a signal"), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        before.assert_same(&program.picture(), signal);
    }
    assert_eq!(program.number("x"), 2);
}

#[test]
fn the_front_of_an_update_of_hot_threads() {
    hot(Victim::Front);
}

#[test]
fn the_guardian_of_an_update_of_hot_threads() {
    hot(Victim::Guardian);
}

#[test]
fn both_of_an_update_of_hot_threads() {
    hot(Victim::Both);
}

#[test]
fn the_front_while_threads_are_stepped() {
    stepped("spin", "spin", Victim::Front);
}

#[test]
fn the_guardian_while_threads_are_stepped() {
    stepped("storm", "spin", Victim::Guardian);
}

#[test]
fn both_while_threads_are_stepped() {
    stepped("spin", "spin", Victim::Both);
}

#[test]
fn both_while_threads_are_stepped_under_signals() {
    stepped("storm", "spin", Victim::Both);
}
