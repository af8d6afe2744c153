//! Frames that stay on the stack: carried over from one version to the next, wherever they wait, and
//! threads brought to where they can be.

#![allow(clippy::unwrap_used)]

mod common;

use common::sites::{Wanted, add, blind_point, point, returns};
use common::{Build, BundleFile, Program, build, bundle, expect};
use dsu_injector::{ExitCode, FailPoint, Outcome, apply};
use dsu_patch_format::Bundle;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

fn versions() -> [Build; 3] {
    [1, 2, 3].map(|version| build("sites", version, &[]))
}

/// A bundle that replaces `functions`, with these sites.
fn with_sites(old: &Build, new: &Build, functions: &[&str], sites: &[Wanted]) -> Bundle {
    let mut bundle = bundle(old, new, functions, &[]);
    add(&mut bundle, old, new, sites);
    bundle
}

fn serve(old: &Build, new: &Build) -> Bundle {
    with_sites(old, new, &["serve"], &returns(old, "serve"))
}

fn apply_within(bundle: &Bundle, pid: i32, ms: u64) -> Outcome {
    let file = BundleFile::new(bundle);
    let mut options = file.options(pid);
    options.timeout = Duration::from_millis(ms);
    apply(&options)
}

#[test]
fn a_loop_that_never_returns_goes_on_in_new() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &["serve"]);
    assert_eq!(program.number("5"), 1_001_005);
    program.settle();
    let outcome = BundleFile::new(&serve(&old, &new)).apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    println!("{}", outcome.text(true));
    assert_eq!((outcome.attempts, outcome.sites), (1, 2));
    assert_eq!(outcome.pending, [("serve".to_owned(), 1)]);
    assert_eq!(outcome.json()["frames_pending"], 1);
    assert_eq!(outcome.json()["pending_by_function"]["serve"], 1);
    let text = outcome.text(true);
    assert!(text.contains("2 sites, 1 frame to carry over"), "{text}");
    // The frame's own state, and the new constant, in the very call that was waiting.
    assert_eq!(program.number("6"), 2_002_006);
    assert_eq!(program.number("7"), 3_002_007);
}

#[test]
fn without_a_site_it_blocks_and_says_why() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &["serve"]);
    assert_eq!(program.number("5"), 1_001_005);
    let sites = returns(&old, "serve");
    let mut bundle = with_sites(&old, &new, &["serve"], &sites[1..]);
    let why = "variable `rounds` (line 3) has no value in OLD";
    blind_point(&mut bundle, &old, sites[0], why);
    let before = program.picture();
    let outcome = apply_within(&bundle, program.pid, 100);
    expect(&outcome, ExitCode::Blocked);
    let blocker = &outcome.blockers()[0];
    assert_eq!((blocker.function.as_str(), blocker.why.as_str()), ("serve", why));
    assert!(outcome.text(false).contains(why), "{}", outcome.text(false));
    assert_eq!(outcome.json()["blockers"][0]["why"], why);
    before.assert_same(&program.picture(), "after a blocked attempt");
    assert_eq!(program.number("6"), 2_001_006);
}

#[test]
fn a_return_that_never_happens_does_not_block() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &["serve"]);
    let mut bundle = with_sites(&old, &new, &["serve"], &[]);
    program.settle();
    // As if `ask` never returned.
    let ask = returns(&old, "serve")[0];
    let at = dsu_patch_format::OldAddr(old.symbol("serve").address + ask.offset);
    bundle.plan.dead_returns.push(at);
    let outcome = BundleFile::new(&bundle).apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    assert!(outcome.pending.is_empty());
    program.kill();
}

#[test]
fn a_site_may_go_by_a_cave() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &["serve"]);
    assert_eq!(program.number("5"), 1_001_005);
    let mut sites = returns(&old, "serve");
    // Dead code behind the redirect, and behind the other's cave.
    sites[0].cave = Some(11);
    let bundle = with_sites(&old, &new, &["serve"], &sites);
    expect(&BundleFile::new(&bundle).apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("6"), 2_002_006);
    assert_eq!(program.number("7"), 3_002_007);
}

#[test]
fn text_that_differs_at_a_site_is_refused() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &["serve"]);
    let mut bundle = serve(&old, &new);
    bundle.plan.sites[1].expect[0] ^= 0x10;
    let before = program.picture();
    for dry_run in [true, false] {
        let file = BundleFile::new(&bundle);
        let mut options = file.options(program.pid);
        options.dry_run = dry_run;
        let outcome = apply(&options);
        expect(&outcome, ExitCode::Unsuitable);
        assert!(outcome.text(false).contains("the site at"), "{}", outcome.text(false));
        before.assert_same(&program.picture(), "after a refusal");
    }
    assert_eq!(program.number("5"), 1_001_005);
}

#[test]
fn every_fail_point_leaves_the_process_as_it_was() {
    use FailPoint::*;
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &["serve"]);
    let file = BundleFile::new(&serve(&old, &new));
    let before = program.picture();
    let points =
        [Looked, Reserved, Mapped, Prepared, Stopped, Verified, Journalled, BeforeWrite(0)];
    for point in points.into_iter().chain([AfterWrite(0), BeforeApplied, Applied]) {
        let mut options = file.options(program.pid);
        options.fail = vec![point];
        let outcome = apply(&options);
        assert!(matches!(outcome.exit(), ExitCode::Internal | ExitCode::CommitFailed), "{point:?}");
        before.assert_same(&program.picture(), &format!("{point:?}"));
    }
    assert_eq!(program.number("5"), 1_001_005);
    expect(&file.apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("6"), 2_002_006);
}

#[test]
fn deep_recursion_is_carried_over_frame_by_frame() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &["recurse"]);
    assert_eq!(program.ask("100\n1"), "100001");
    program.tell("300");
    std::thread::sleep(Duration::from_millis(20));
    program.settle();
    let bundle = with_sites(&old, &new, &["recurse"], &returns(&old, "recurse"));
    let outcome = BundleFile::new(&bundle).apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    assert_eq!(outcome.pending, [("recurse".to_owned(), 300)]);
    assert_eq!(program.number("7"), 600_007);
}

/// The frame waits in `read` during both updates, and then goes on in version 3.
#[test]
fn a_frame_climbs_two_versions_in_its_sleep() {
    let [first, second, third] = versions();
    let mut program = Program::start(&first.path, &["serve"]);
    assert_eq!(program.number("5"), 1_001_005);
    program.settle();
    let apply = |bundle: &Bundle, pid| {
        let outcome = BundleFile::new(bundle).apply(pid);
        expect(&outcome, ExitCode::Updated);
        assert_eq!(outcome.pending, [("serve".to_owned(), 1)]);
    };
    apply(&serve(&first, &second), program.pid);
    apply(&serve(&second, &third), program.pid);
    assert_eq!(program.number("6"), 2_003_006);
    assert_eq!(program.number("7"), 3_003_007);
    // And back again, with the frame of version 3 waiting in its turn.
    program.settle();
    apply(&serve(&third, &second), program.pid);
    // Where it waits is version 3's code again: nothing has to be carried over.
    let outcome = BundleFile::new(&serve(&second, &third)).apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    assert_eq!((outcome.again, outcome.frames()), (Some(0), 0));
    apply(&serve(&third, &first), program.pid);
    assert_eq!(program.number("8"), 4_001_008);
}

/// An address inside a function of a process, as bytes in memory, without one of 10 among them.
fn word_inside(program: &Program, build: &Build, function: &str) -> Option<[u8; 8]> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", program.pid)).unwrap();
    let image = maps.lines().find(|line| line.ends_with("/sites")).unwrap();
    let base = u64::from_str_radix(image.split('-').next().unwrap(), 16).unwrap();
    let symbol = build.symbol(function);
    let mut words = (1..symbol.size).map(|o| (base + symbol.address + o).to_le_bytes());
    words.find(|word| !word.contains(&10))
}

/// A word on the stack that could be a blind return address, below a frame that runs in a shadow image: only
/// who can unwind that frame knows that it is none.
#[test]
fn stale_words_do_not_block_below_frames_of_the_shadow_image() {
    let [first, second, third] = versions();
    // What comes in lies in a buffer on the stack. A byte of 10 would end it, and the kernel chooses
    // addresses at random: a process where one has none.
    let started = (0..50).find_map(|_| {
        let program = Program::start(&first.path, &["serve"]);
        let word = word_inside(&program, &second, "recurse")?;
        Some((program, word))
    });
    let (mut program, word) = started.unwrap();
    program.settle();
    expect(&BundleFile::new(&serve(&first, &second)).apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("5"), 1_002_005, "its frame is in the shadow image now");
    let functions = ["serve", "recurse"];
    let sites = returns(&second, "serve");
    let bundle = with_sites(&second, &third, &functions, &sites);
    program.feed(&word);
    std::thread::sleep(Duration::from_millis(20));
    program.settle();
    let mut blind = bundle.clone();
    blind.plan.sites.iter_mut().for_each(|site| site.mask.fill(0));
    let outcome = apply_within(&blind, program.pid, 2000);
    expect(&outcome, ExitCode::Updated);
    assert_eq!(program.number(""), 2_003_000);
}

/// The frame of version 1 lands in version 2, where the second update has no site for it.
#[test]
fn a_frame_that_lands_at_a_blind_point_blocks() {
    let [first, second, third] = versions();
    let mut program = Program::start(&first.path, &["serve"]);
    program.settle();
    expect(&BundleFile::new(&serve(&first, &second)).apply(program.pid), ExitCode::Updated);
    let sites = returns(&second, "serve");
    let mut bundle = with_sites(&second, &third, &["serve"], &sites[1..]);
    blind_point(&mut bundle, &second, sites[0], "because");
    let before = program.picture();
    let outcome = apply_within(&bundle, program.pid, 100);
    expect(&outcome, ExitCode::Blocked);
    let blocker = &outcome.blockers()[0];
    assert_eq!((blocker.function.as_str(), blocker.why.as_str()), ("serve", "because"));
    before.assert_same(&program.picture(), "after a blocked attempt");
    // Once it has landed, it is an ordinary frame of version 2.
    assert_eq!(program.number("5"), 1_002_005);
    // Behind the answer there is a site; the point where it waits for the next question has none.
    program.settle();
    expect(&apply_within(&bundle, program.pid, 100), ExitCode::Blocked);
    expect(&apply_within(&serve(&second, &third), program.pid, 2000), ExitCode::Updated);
    assert_eq!(program.number("6"), 2_003_006);
}

/// A pending frame whose function the next update leaves alone, and the one after that replaces.
#[test]
fn a_frame_waits_through_an_update_of_something_else() {
    let [first, second, third] = versions();
    let mut program = Program::start(&first.path, &["serve"]);
    assert_eq!(program.number("5"), 1_001_005);
    program.settle();
    let both = |build: &Build| [returns(build, "serve"), returns(build, "recurse")].concat();
    let one = with_sites(&first, &second, &["serve", "recurse"], &both(&first));
    expect(&BundleFile::new(&one).apply(program.pid), ExitCode::Updated);
    // To version 3, but for `serve`: as if it were the same in both.
    let other = with_sites(&second, &third, &["recurse"], &returns(&second, "recurse"));
    let outcome = BundleFile::new(&other).apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    assert!(outcome.pending.is_empty());
    // `serve` is where version 3 has it now, and is still what version 2 has.
    let mut last = serve(&third, &first);
    last.plan.sites.iter_mut().for_each(|site| site.mask.fill(0));
    expect(&BundleFile::new(&last).apply(program.pid), ExitCode::Updated);
    assert_eq!(program.number("6"), 2_001_006);
}

#[test]
fn a_signal_handler_on_top_of_a_waiting_frame() {
    let [old, new, _] = versions();
    let mut program = Program::start(&old.path, &["signal"]);
    assert_eq!(program.number("5"), 1_001_005);
    program.settle();
    program.signal("USR1");
    program.wait_for_call(0);
    let outcome = BundleFile::new(&serve(&old, &new)).apply(program.pid);
    expect(&outcome, ExitCode::Updated);
    assert_eq!(outcome.pending, [("serve".to_owned(), 1)], "on the stack below the handler's");
    program.open_gate();
    assert_eq!(program.number("6"), 2_002_006);
}

/// The program counter that a signal has interrupted counts like one: a waiting handler keeps it.
#[test]
fn an_interrupted_loop_blocks_while_the_handler_waits() {
    let [old, new, _] = versions();
    let program = Program::start(&old.path, &["held"]);
    let bundle = with_sites(&old, &new, &["spin"], &[point(&old, "spin")]);
    // It says that it is ready before it begins.
    program.has_run_for(2);
    program.signal("USR1");
    program.wait_for_call(0);
    let outcome = apply_within(&bundle, program.pid, 150);
    // One instruction in forty is the site.
    if outcome.exit() == ExitCode::Blocked {
        assert!(outcome.blockers().iter().any(|b| b.function == "spin"), "{}", outcome.text(true));
    } else {
        expect(&outcome, ExitCode::Updated);
        assert_eq!(outcome.pending, [("spin".to_owned(), 1)]);
        return;
    }
    program.open_gate();
    let outcome = apply_within(&bundle, program.pid, 5000);
    expect(&outcome, ExitCode::Updated);
}

/// Starts threads in `what`, updates there and back, and compares what they see.
fn threads(what: &str, threads: usize, functions: &[&str], sites: fn(&Build) -> Vec<Wanted>) {
    /// Each takes all processors: together they would measure one another.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let [first, second, _] = versions();
    let threads = threads.to_string();
    let mut program = Program::start(&first.path, &[what, &threads]);
    assert_eq!(program.ask("?"), "1000 1000 0");
    let pair = [(&first, &second), (&second, &first)];
    let bundles = pair.map(|(old, new)| with_sites(old, new, functions, &sites(old)));
    for round in 0..6 {
        let outcome = apply_within(&bundles[round % 2], program.pid, 20_000);
        print!("{what} {round}: {}", outcome.text(false));
        expect(&outcome, ExitCode::Updated);
        let seen = if round % 2 == 0 { "2000 2000 0" } else { "1000 1000 0" };
        assert_eq!(program.ask("?"), seen, "round {round}");
    }
}

#[test]
fn a_spinning_loop_is_stepped_to_its_head() {
    threads("spin", 1, &["spin"], |old| vec![point(old, "spin")]);
}

#[test]
fn stepping_survives_signals() {
    threads("storm", 2, &["spin"], |old| vec![point(old, "spin")]);
}

#[test]
fn no_program_sees_the_trap_flag() {
    threads("wary", 2, &["wary"], |old| vec![point(old, "wary")]);
}

#[test]
fn a_loop_that_spends_its_time_in_what_it_calls() {
    threads("toil", 2, &["toil"], |old| vec![point(old, "toil")]);
}

#[test]
fn an_instruction_that_takes_long() {
    threads("copy", 1, &["copy"], |old| vec![point(old, "copy")]);
}

#[test]
fn loops_of_64_threads() {
    threads("all", 64, &["spin", "toil", "nap"], |old| {
        let mut sites = vec![point(old, "spin"), point(old, "toil")];
        sites.extend(returns(old, "nap"));
        sites
    });
}
