//! The same update again and again: the process does not grow, its variables keep what they had, and frames
//! of any version that still wait go on in the version that runs.

#![allow(clippy::unwrap_used)]

mod common;

use common::deaths::Noise;
use common::sites::{add, returns};
use common::{Build, BundleFile, Program, build, bundle, expect};
use dsu_injector::status::status;
use dsu_injector::{ApplyOptions, ExitCode, Outcome, apply, revert};
use std::os::unix::fs::FileExt;

/// Mappings and kB of address space.
fn size(pid: i32) -> (usize, u64) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let size = status.lines().find_map(|l| l.strip_prefix("VmSize:")).unwrap();
    let size = size.trim().trim_end_matches(" kB").parse().unwrap();
    (maps.lines().count(), size)
}

fn back(pid: i32) -> Outcome {
    revert(&ApplyOptions::new("", pid))
}

fn counting() -> [BundleFile; 2] {
    let [old, new] = [1, 2].map(|version| build("again", version, &[]));
    let replaced = ["answer", "hold"];
    [
        BundleFile::new(&bundle(&old, &new, &replaced, &["calls", "held", "room"])),
        BundleFile::new(&bundle(&new, &old, &replaced, &[])),
    ]
}

fn program() -> Program {
    Program::start(&build("again", 1, &[]).path, &[])
}

#[test]
fn update_and_revert_do_not_grow() {
    let [there, _] = counting();
    let mut program = program();
    let mut flat = None;
    for round in 0..40 {
        let outcome = there.apply(program.pid);
        expect(&outcome, ExitCode::Updated);
        assert_eq!(outcome.again, (round > 0).then_some(u64::from(round > 0)), "one byte differs");
        let text = outcome.text(false);
        assert_eq!(text.contains("the values that they had then (1 byte"), round > 0, "{text}");
        assert_eq!(program.number("a5"), 605 + 100 * round, "it goes on counting");
        expect(&back(program.pid), ExitCode::Updated);
        assert_eq!(program.number("a5"), 6);
        if round >= 2 {
            assert_eq!(*flat.get_or_insert(size(program.pid)), size(program.pid), "{round}");
        }
    }
    let found = status(program.pid).unwrap();
    assert!(found.images[0].undone.len() <= 2, "{}", found.text());
    expect(&back(program.pid), ExitCode::WrongBuild);
}

#[test]
fn there_and_back_by_bundles_does_not_grow() {
    let files = counting();
    let mut program = program();
    let mut flat = None;
    for round in 0..60 {
        expect(&files[round % 2].apply(program.pid), ExitCode::Updated);
        let calls = i64::try_from(6 + round / 2).unwrap();
        let expected = if round % 2 == 0 { calls * 100 + 5 } else { 6 };
        assert_eq!(program.number("a5"), expected, "{round}");
        if round >= 8 && round % 2 == 1 {
            assert_eq!(*flat.get_or_insert(size(program.pid)), size(program.pid), "{round}");
        }
    }
    let found = status(program.pid).unwrap();
    assert!(found.images[0].updates.len() <= 4, "{}", found.text());
    assert!(found.text().contains("60 updates"), "{}", found.text());
    // The last one can be taken back, and then what led to the one before may be unknown.
    expect(&back(program.pid), ExitCode::Updated);
    assert_eq!(program.number("a5"), 36 * 100 + 5);
    while back(program.pid).exit() == ExitCode::Updated {}
    let outcome = back(program.pid);
    expect(&outcome, ExitCode::Unsuitable);
    assert!(outcome.text(false).contains("no longer on record"), "{}", outcome.text(false));
    let runs = status(program.pid).unwrap().images[0].runs().to_owned();
    let version = usize::from(runs == build("again", 2, &[]).build_id);
    expect(&files[version].apply(program.pid), ExitCode::Updated);
}

#[test]
fn an_address_among_the_variables_takes_new_memory() {
    let [there, _] = counting();
    let mut program = program();
    expect(&there.apply(program.pid), ExitCode::Updated);
    // One that leads into the image itself cannot be stale.
    assert_eq!(program.number("h1"), 3);
    expect(&back(program.pid), ExitCode::Updated);
    let outcome = there.apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    assert!(outcome.again.is_some());
    assert_eq!(program.number("h2"), 4, "from malloc");
    expect(&back(program.pid), ExitCode::Updated);
    let outcome = there.apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    assert!(outcome.again.is_none());
    assert!(outcome.text(false).contains("takes new memory"), "{}", outcome.text(false));
    assert_eq!(program.number("a5"), 605, "anew");
    assert_eq!(program.number("h2"), 4);
    expect(&back(program.pid), ExitCode::Updated);
    let mut options = there.options(program.pid);
    options.keep_variables = true;
    let outcome = apply(&options);
    expect(&outcome, ExitCode::Updated);
    assert!(outcome.again.is_some_and(|changed| changed > 1));
    assert_eq!(program.number("a5"), 705);
}

#[test]
fn code_that_something_else_has_changed_is_left_alone() {
    let [there, _] = counting();
    let mut program = program();
    expect(&there.apply(program.pid), ExitCode::Updated);
    let found = status(program.pid).unwrap();
    let record = &found.images[0].updates[0].found.record;
    let at = record.bias.wrapping_add(build("again", 2, &[]).symbol("answer").address);
    expect(&back(program.pid), ExitCode::Updated);
    let memory = format!("/proc/{}/mem", program.pid);
    let memory = std::fs::OpenOptions::new().write(true).open(memory).unwrap();
    memory.write_all_at(&[0xcc], at).unwrap();
    let outcome = there.apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    assert!(outcome.text(false).contains("changed by something else"), "{}", outcome.text(false));
    assert_eq!(program.number("a5"), 605);
}

fn serve(old: &Build, new: &Build) -> BundleFile {
    let mut bundle = bundle(old, new, &["serve"], &[]);
    add(&mut bundle, old, new, &returns(old, "serve"));
    BundleFile::new(&bundle)
}

/// A frame that never ends waits through some updates, wakes, waits again: in whatever version it went to
/// sleep, it goes on in the one that runs.
#[test]
fn a_frame_wakes_in_the_version_that_runs() {
    let builds = [1, 2, 3].map(|version| build("sites", version, &[]));
    let pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)];
    let files = pairs.map(|(old, new)| serve(&builds[old], &builds[new]));
    let mut program = Program::start(&builds[0].path, &["serve"]);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let (mut version, mut rounds, mut again, mut reverts) = (0, 0, 0, 0);
    let mut history = vec![0];
    let mut sizes = Vec::new();
    for step in 0..400 {
        program.settle();
        match noise.below(5) {
            0 => {
                // It blocks where the frame has woken in the last version: that is known.
                let mut options = ApplyOptions::new("", program.pid);
                options.timeout = std::time::Duration::from_millis(1);
                if history.len() > 1 && revert(&options).exit() == ExitCode::Updated {
                    history.pop();
                    version = *history.last().unwrap();
                    reverts += 1;
                }
            }
            1 | 2 => {
                let next = (version + 1 + usize::try_from(noise.below(2)).unwrap()) % 3;
                let file = pairs.iter().position(|pair| *pair == (version, next)).unwrap();
                let outcome = files[file].apply(program.pid);
                expect(&outcome, ExitCode::Updated);
                again += usize::from(outcome.again.is_some());
                version = next;
                history.push(version);
            }
            _ => {
                rounds += 1;
                let mark = i64::try_from(version + 1).unwrap() * 1000;
                let expected = rounds * 1_000_000 + mark + 5;
                assert_eq!(program.number("5"), expected, "step {step}");
            }
        }
        sizes.push(size(program.pid));
    }
    println!("{again} again, {reverts} reverts, {:?} to {:?}", sizes[100], sizes[399]);
    assert!(again > 100 && reverts > 10);
    let most = |sizes: &[(usize, u64)]| sizes.iter().map(|s| s.1).max().unwrap();
    assert!(most(&sizes[200..]) <= most(&sizes[..200]) + 64, "{sizes:?}");
}
