//! Single steps by themselves: they arrive, end within their bounds, and leave no trace.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Program, build};
use dsu_injector::address::ProcAddr;
use dsu_injector::ptrace::process::{seize, thread_ids};
use dsu_injector::ptrace::sched::{Pace, Undisturbed};
use dsu_injector::ptrace::stepping::{End, LONGEST_INSTRUCTION, step};
use dsu_injector::ptrace::thread::{Stopped, let_go_of_the_rest};
use dsu_injector::target::memory::{ProcessMemory, ReadMemory};
use std::time::{Duration, Instant};

/// A thread of the program other than its first, stopped wherever it was.
fn stop(program: &Program) -> Stopped {
    let tids = thread_ids(program.pid).unwrap();
    let tid = *tids.iter().find(|tid| **tid != program.pid).unwrap();
    let running = seize(tid).unwrap().unwrap();
    running.interrupt().unwrap();
    running.wait(Instant::now() + Duration::from_secs(10), Pace::Crowded).unwrap()
}

/// Its code, as it is.
fn code(program: &Program) -> impl Fn(u64) -> [u8; LONGEST_INSTRUCTION] {
    let memory = ProcessMemory::open(program.pid).unwrap();
    move |pc| memory.read_vec(ProcAddr(pc), LONGEST_INSTRUCTION).unwrap().try_into().unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// Where the program has the address that its file has at `linked`.
fn place(program: &Program, linked: u64) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", program.pid)).unwrap();
    let first = maps.lines().next().unwrap().split('-').next().unwrap();
    u64::from_str_radix(first, 16).unwrap() + linked
}

#[test]
fn it_arrives() {
    let build = build("sites", 1, &[]);
    let mut program = Program::start(&build.path, &["spin"]);
    let head = place(&program, build.points["spin"]);
    for _ in 0..50 {
        let _undisturbed = Undisturbed::begin();
        let go = |thread| step(thread, code(&program), |pc| pc == head, soon(), None).unwrap();
        let (mut thread, mut end) = go(stop(&program));
        // A step may take longer than it may where others want the processor.
        for _ in 0..1000 {
            if end == End::Bound {
                (thread, end) = go(thread);
            }
        }
        assert_eq!((end, thread.program_counter().unwrap()), (End::There, head));
        thread.detach();
    }
    assert_eq!(program.ask("?"), "1000 1000 0");
}

#[test]
fn flags_are_not_stored_under_the_trap_flag() {
    let build = build("sites", 1, &[]);
    let mut program = Program::start(&build.path, &["wary"]);
    let mut hindered = 0;
    for _ in 0..50 {
        let _undisturbed = Undisturbed::begin();
        let (thread, end) = step(stop(&program), code(&program), |_| false, soon(), None).unwrap();
        hindered += usize::from(end == End::Hindered);
        thread.detach();
    }
    // Where it is stopped is chance: now and then it is not on its way to storing flags.
    assert!(hindered > 40, "{hindered} of 50");
    assert_eq!(program.ask("?"), "1000 1000 0");
    // The program would have seen it.
    let _undisturbed = Undisturbed::begin();
    let blind = |_| [0x90; LONGEST_INSTRUCTION];
    drop(step(stop(&program), blind, |_| false, soon(), None).unwrap());
    assert_ne!(program.ask("?"), "1000 1000 0");
}

#[test]
fn it_is_bounded() {
    let build = build("sites", 1, &[]);
    let mut program = Program::start(&build.path, &["copy"]);
    let _undisturbed = Undisturbed::begin();
    let (thread, end) = step(stop(&program), code(&program), |_| false, soon(), None).unwrap();
    assert_eq!(end, End::Bound, "in steps");
    let now = Instant::now();
    let (thread, end) = step(thread, code(&program), |_| false, now, None).unwrap();
    assert_eq!(end, End::Bound, "in time");
    thread.detach();
    assert_eq!(program.ask("?"), "1000 1000 0");
}

#[test]
fn signals_are_taken_on_the_way() {
    let build = build("sites", 1, &[]);
    let mut program = Program::start(&build.path, &["storm"]);
    for _ in 0..50 {
        let _undisturbed = Undisturbed::begin();
        drop(step(stop(&program), code(&program), |_| false, soon(), None).unwrap());
    }
    let_go_of_the_rest();
    assert_eq!(program.ask("?"), "1000 1000 0");
}
