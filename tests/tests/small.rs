//! What a stack may be besides a thread's own: suspended coroutines, frames that have waited over several
//! updates, longjmp; and those who look at stacks: exceptions, gdb, perf.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{Pair, Talker, compile, make_bundle};
use dsu_injector::status::status;
use dsu_injector::{ApplyOptions, ExitCode, Outcome, apply, revert};
use dsu_tests::corpus::needs;

fn updated(outcome: &Outcome) {
    assert!(outcome.result.is_ok(), "{}", outcome.text(true));
}

#[test]
fn suspended_coroutines_come_back_in_the_version_that_runs() {
    let pair = Pair::of("small/coroutines.c", "gcc", &["-O2"]);
    let mut program = pair.start();
    assert_eq!(program.ask("?"), "1 1001 2001 3001");
    assert_eq!(program.ask("?"), "3 1003 2003 3003");
    // Each coroutine's sum goes on; the sign is the version's.
    let mut sum = 3;
    for number in 0..10 {
        updated(&pair.update(number, &program));
        for step in 0..2 {
            sum += 3 + i64::try_from(2 * number).unwrap() + step;
            let sign = if number % 2 == 0 { -1 } else { 1 };
            let expected: Vec<String> =
                (0..4).map(|which| (sign * (sum + which * 1000)).to_string()).collect();
            assert_eq!(program.ask("?"), expected.join(" "), "update {number}");
        }
    }
    program.finish();
}

#[test]
fn a_coroutine_suspended_at_a_blind_point_is_seen() {
    let pair = Pair::of("small/blind_coroutine.c", "gcc", &["-O2"]);
    let mut program = pair.start();
    assert_eq!(program.ask("?"), "1");
    program.waits_for_input();
    let mut options = ApplyOptions::new(pair.bundle(), program.pid());
    options.timeout = std::time::Duration::from_millis(500);
    let outcome = apply(&options);
    assert_eq!(outcome.exit(), ExitCode::Blocked, "{}", outcome.text(true));
    let blocker = &outcome.blockers()[0];
    assert_eq!(blocker.function, "generate");
    assert!(blocker.note.contains("coroutine"), "{}", outcome.text(true));
    assert_eq!([program.ask("?"), program.ask("?"), program.ask("?")], ["1", "2", "2"]);
    program.finish();
}

/// The three versions of a program.
fn three(source: &str) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::TempDir::new().unwrap();
    let programs = (1..=3).map(|version| {
        let program = dir.path().join(format!("v{version}"));
        let flags = ["-O2", "-pthread", &format!("-DVERSION={version}")];
        compile(source, "gcc", &flags, &program);
        program
    });
    let programs = programs.collect();
    (dir, programs)
}

#[test]
fn a_frame_that_waits_over_several_updates_wakes_in_the_last_version() {
    let (dir, programs) = three("small/stacked.c");
    let bundle = |from: usize, to: usize| {
        let path = dir.path().join(format!("{from}{to}.dsu"));
        make_bundle(&programs[from - 1], &programs[to - 1], &path, &[]);
        path
    };
    let ways = [(1, 2), (2, 3), (3, 2), (2, 1)].map(|(from, to)| ((from, to), bundle(from, to)));
    let way = |from: usize, to: usize| &ways.iter().find(|(way, _)| *way == (from, to)).unwrap().1;
    let mut program = Talker::start(&programs[0], &[]);
    let (mut number, mut sum) = (0, 100);
    let mut wakes_in = |program: &mut Talker, version: usize| {
        number += 1;
        sum += number;
        assert_eq!(program.ask("?"), format!("sum {sum} version {version}"));
    };
    wakes_in(&mut program, 1);
    // Between two lines the thread waits in the same frame, whatever is applied.
    for climb in [vec![1, 2, 3], vec![3, 2, 1], vec![1, 2], vec![2, 3, 2, 1, 2, 3], vec![3, 2, 1]] {
        for step in climb.windows(2) {
            let outcome = apply(&ApplyOptions::new(way(step[0], step[1]), program.pid()));
            updated(&outcome);
            // Where a shadow image is taken again, the frame comes out in it by itself.
            let is_known = outcome.frames() >= 1 || outcome.again.is_some();
            assert!(is_known, "its frame is pending: {}", outcome.text(true));
        }
        wakes_in(&mut program, climb[climb.len() - 1]);
        wakes_in(&mut program, climb[climb.len() - 1]);
    }
    program.finish();
}

/// A program whose frame waits in a passage, and what was done to it.
struct Passing {
    program: Talker,
    bundles: [PathBuf; 2],
    _dir: tempfile::TempDir,
}

impl Passing {
    fn start() -> Passing {
        let (dir, programs) = three("small/passages.c");
        let bundles = [(0, 1), (1, 2)].map(|(from, to)| {
            let path = dir.path().join(format!("{from}{to}.dsu"));
            let said = make_bundle(&programs[from], &programs[to], &path, &[]);
            // One call of `f` is where OLD's code runs on: in version 1 the one that only it makes.
            let f = &said.json["frames"][0];
            let passing = [&f["name"], &f["sites"], &f["passing"]].map(ToString::to_string);
            let sites = if from == 0 { "2" } else { "1" };
            assert_eq!(passing, ["\"f\"", sites, "1"], "{}", said.json);
            path
        });
        let mut program = Talker::start(&programs[0], &[]);
        assert_eq!(program.ask("s"), "waits");
        Passing { program, bundles, _dir: dir }
    }

    /// Up by so many updates, and back by so many reverts; the frame waits over each.
    fn climbed(up: usize, down: usize) -> Passing {
        let passing = Self::start();
        for bundle in passing.bundles.iter().take(up) {
            let outcome = apply(&ApplyOptions::new(bundle, passing.program.pid()));
            updated(&outcome);
            assert_eq!(outcome.frames(), 1, "{}", outcome.text(true));
        }
        for _ in 0..down {
            updated(&revert(&ApplyOptions::new("", passing.program.pid())));
        }
        passing
    }

    /// Frames of earlier versions that wait, by what the process holds.
    fn pending(&self) -> usize {
        let found = status(self.program.pid()).unwrap();
        found.images.iter().flat_map(|image| &image.updates).map(|update| update.pending).sum()
    }
}

/// What OLD's statement gives counts once, and each round behind it is the version's that runs.
#[test]
fn a_frame_in_a_passage_goes_on_in_the_version_that_runs() {
    for (up, down, comes_to) in [
        (1, 0, "200 undone 0"),
        (2, 0, "206 undone 0"),
        (2, 1, "200 undone 0"),
        // In version 1 it waits once more.
        (0, 0, "waits"),
        (1, 1, "waits"),
        (2, 2, "waits"),
    ] {
        let mut passing = Passing::climbed(up, down);
        let program = &mut passing.program;
        assert_eq!(program.ask("g"), comes_to, "{up} up, {down} down");
        if comes_to == "waits" {
            assert_eq!(program.ask("g"), "202 undone 0", "{up} up, {down} down");
        }
        // The next one begins in the version that runs.
        let fresh = ["waits", "209 undone 0", "210 undone 0"][up - down];
        assert_eq!(program.ask("s"), fresh, "{up} up, {down} down");
        if up == down {
            assert_eq!(program.ask("g"), "waits");
            assert_eq!(program.ask("g"), "202 undone 0");
        }
        passing.program.finish();
    }
}

/// By longjmp, by the end of its thread, by its being cancelled: the frame is gone, and nothing waits for it.
#[test]
fn a_frame_in_a_passage_is_left_in_other_ways() {
    for (up, down) in [(1, 0), (2, 0), (2, 1), (2, 2)] {
        let fresh = ["waits", "209", "210"][up - down];
        for (how, comes_to, undone) in [("j", "-1", 0), ("x", "7", 1), ("c", "-1", 1)] {
            let mut passing = Passing::climbed(up, down);
            let program = &mut passing.program;
            let what = format!("{how}, {up} up, {down} down");
            assert_eq!(program.ask(how), format!("{comes_to} undone {undone}"), "{what}");
            let answer = program.ask("s");
            assert!(answer.starts_with(fresh), "{what}: {answer}");
            if up == down {
                assert_eq!(program.ask("g"), "waits", "{what}");
                assert!(program.ask("g").starts_with("202 "), "{what}");
            }
            assert_eq!(passing.pending(), 0, "{what}");
            passing.program.finish();
        }
    }
}

#[test]
fn a_function_that_returns_twice_is_refused_with_the_reason() {
    let pair = Pair::of("small/longjmp.c", "gcc", &["-O2"]);
    let mut program = pair.start();
    assert_eq!(program.ask("fail"), "failed 1 times");
    program.waits_for_input();
    let mut options = ApplyOptions::new(pair.bundle(), program.pid());
    options.timeout = std::time::Duration::from_millis(500);
    let outcome = apply(&options);
    // Either it comes back in NEW, or it is said why not.
    if outcome.result.is_ok() {
        assert_eq!(program.ask("fail"), "failed 2 times, in NEW");
        assert_eq!(program.ask("x"), "fine, in NEW");
    } else {
        assert_eq!(outcome.exit(), ExitCode::Blocked, "{}", outcome.text(true));
        let blocker = &outcome.blockers()[0];
        assert_eq!(blocker.function, "serve");
        assert!(blocker.why.contains("setjmp"), "{}", outcome.text(true));
        assert_eq!(program.ask("fail"), "failed 2 times");
        assert_eq!(program.ask("x"), "fine");
    }
    program.finish();
}

#[test]
fn an_exception_passes_through_a_pending_frame() {
    let dir = tempfile::TempDir::new().unwrap();
    let [old, new] = ["old", "new"].map(|name| dir.path().join(name));
    compile("small/throws.cc", "g++", &["-O2"], &old);
    compile("small/throws.cc", "g++", &["-O2", "-DNEW"], &new);
    let bundle = dir.path().join("bundle");
    // Nothing is thrown through NEW's own frames here.
    make_bundle(&old, &new, &bundle, &["--accept-no-unwinding"]);
    let mut program = Talker::start(&old, &[]);
    assert_eq!(program.ask("x"), "line 1");
    program.waits_for_input();
    let outcome = apply(&ApplyOptions::new(&bundle, program.pid()));
    updated(&outcome);
    assert!(outcome.frames() >= 1, "{}", outcome.text(true));
    assert_eq!(program.ask("throw"), "caught thrown");
    assert_eq!(program.ask("x"), "line 1, in NEW");
    program.finish();
}

/// `deep.c`, updated while three frames of the function that is replaced wait under its main.
fn pending_frames(flags: &[&str]) -> (Pair, Talker) {
    let pair = Pair::of("small/deep.c", "gcc", flags);
    let mut program = pair.start();
    assert_eq!(program.ask("x"), "inside");
    program.waits_for_input();
    let outcome = pair.update(0, &program);
    updated(&outcome);
    assert!(outcome.frames() >= 3, "{}", outcome.text(true));
    (pair, program)
}

/// The frames of `deep.c` in this order, innermost first.
fn is_whole(names: &[String], what: &str) {
    let wanted = ["replaced", "replaced", "replaced", "main"];
    let from = names.iter().position(|n| n == "replaced").unwrap_or(names.len());
    let found: Vec<&str> = names[from..].iter().map(String::as_str).take(4).collect();
    assert_eq!(found, wanted, "{what} sees {names:?}");
}

#[test]
fn gdb_sees_the_whole_stack_of_pending_frames() {
    needs::packages(&["gdb"]).unwrap();
    let (pair, mut program) = pending_frames(&["-O2"]);
    let out = Command::new("gdb")
        .args(["-batch", "-nx", "-iex", "set debuginfod enabled off", "-ex", "bt"])
        .arg("-p")
        .arg(program.pid().to_string())
        .output()
        .expect("run gdb");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let frames = text.lines().filter(|line| line.starts_with('#'));
    let names: Vec<String> = frames
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let first = words.next()?;
            Some(if first.starts_with("0x") { words.nth(1)? } else { first }.to_owned())
        })
        .collect();
    is_whole(&names, "gdb");
    // And it has harmed nobody: 1000 by the innermost frame in NEW, 10 by each of the others.
    assert_eq!(program.ask("x"), "1020");
    program.finish();
    drop(pair);
}

/// The stacks of the samples in which `burn` was on top; nothing if perf cannot measure here.
fn perf_stacks(call_graph: &str, flags: &[&str]) -> Option<Vec<Vec<String>>> {
    needs::packages(&["linux-perf"]).unwrap();
    let (pair, mut program) = pending_frames(flags);
    let data = pair.dir().join("perf.data");
    program.say("burn");
    let out = Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-F", "499", "--call-graph", call_graph, "-o"])
        .arg(&data)
        .args(["-p", &program.pid().to_string(), "--", "sleep", "0.7"])
        .output()
        .expect("run perf record");
    if !out.status.success() {
        println!(
            "NOT CHECKED: perf record does not work on this machine: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    let script = Command::new("perf")
        .args(["script", "-F", "ip,sym", "-i"])
        .arg(&data)
        .output()
        .expect("run perf script");
    program.say("enough");
    // What can be checked whether or not perf works: everybody returns in NEW.
    assert_eq!(program.line(), "1020");
    program.finish();
    out.status.success().then(|| {
        let text = String::from_utf8_lossy(&script.stdout).into_owned();
        let stacks = text.split("\n\n").map(|sample| {
            let names = sample.lines().filter_map(|line| line.split_whitespace().nth(1));
            names.map(str::to_owned).collect::<Vec<_>>()
        });
        stacks.filter(|names| names.iter().any(|n| n == "burn")).collect()
    })
}

#[test]
fn perf_sees_the_whole_stack_by_unwinding_rows() {
    if let Some(stacks) = perf_stacks("dwarf", &["-O2"]) {
        assert!(stacks.len() > 3, "{} samples", stacks.len());
        stacks.iter().for_each(|names| is_whole(names, "perf --call-graph dwarf"));
    }
}

#[test]
fn perf_sees_the_whole_stack_by_frame_pointers() {
    if let Some(stacks) = perf_stacks("fp", &["-O2", "-fno-omit-frame-pointer"]) {
        assert!(stacks.len() > 3, "{} samples", stacks.len());
        stacks.iter().for_each(|names| is_whole(names, "perf --call-graph fp"));
    }
}
