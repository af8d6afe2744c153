//! System calls that are under way when the process is updated: none of them ends because of it, none sees
//! `EINTR`, none misses a deadline that the kernel keeps, and the parent is told nothing.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Build, BundleFile, Program, build, bundle, expect};
use dsu_injector::ExitCode;
use std::time::{Duration, Instant};

/// What the calls with a time-out may be late by, in microseconds: those of sockets are counted in ticks.
const LATE: i64 = 60_000;

fn versions() -> [Build; 3] {
    [1, 2, 3].map(|version| build("calls", version, &[]))
}

/// One call: its name, whether it succeeded, its error, and what it was late by.
struct Ended {
    name: String,
    ok: bool,
    error: i32,
    late: i64,
}

fn ended(program: &mut Program) -> Vec<Ended> {
    program.tell("e");
    let mut all = Vec::new();
    loop {
        let line = program.line();
        let fields: Vec<&str> = line.split(' ').collect();
        let [name, how, error, late] = fields[..] else { return all };
        assert_ne!(how, "none", "{name} could not be called");
        all.push(Ended {
            name: name.into(),
            ok: how == "ok",
            error: error.parse().unwrap(),
            late: late.parse().unwrap(),
        });
    }
}

/// Calls whose time-out begins anew with them: the kernel keeps no deadline for these.
const ANEW: [&str; 5] = ["epoll", "epoll2", "recv", "semtimedop", "sigtimedwait"];

#[test]
fn calls_under_way_go_on() {
    let [old, new, third] = versions();
    let mut program = Program::start(&old.path, &[]);
    let pid = i32::try_from(program.number("p")).unwrap();
    assert_eq!(program.ask("b"), "begun");
    let begun = Instant::now();
    for (from, to, version) in [(&old, &new, 2), (&new, &third, 3)] {
        std::thread::sleep(Duration::from_millis(150));
        let outcome = BundleFile::new(&bundle(from, to, &["version"], &[])).apply(pid);
        expect(&outcome, ExitCode::Updated);
        assert_eq!(program.number("v"), version);
    }
    let updated = i64::try_from(begun.elapsed().as_micros()).unwrap();
    let all = ended(&mut program);
    assert_eq!(all.len(), 23);
    let mut wrong = Vec::new();
    for Ended { name, ok, error, late } in all {
        let right = match &*name {
            "futex" | "futex-until" | "condition" => !ok && error == libc::ETIMEDOUT,
            "recv" | "semtimedop" | "sigtimedwait" => !ok && error == libc::EAGAIN,
            _ => ok,
        };
        let anew = if ANEW.contains(&&*name) { updated } else { 0 };
        if !right || !(0..LATE + anew).contains(&late) {
            wrong.push(format!("{name}: ok {ok}, error {error}, late by {late} us"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    program.close();
    assert_eq!(program.line(), "told 0");
}
