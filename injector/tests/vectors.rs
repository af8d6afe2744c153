//! Registers that system calls and calls do not save: as they were behind every stop, behind remote calls in
//! the very thread that holds them, and behind the death of the tool in the middle of one.

#![allow(clippy::unwrap_used)]

mod common;

use common::deaths::{guardian, kill};
use common::{Build, BundleFile, Program, build, bundle, expect};
use dsu_injector::recover::recover;
use dsu_injector::{ExitCode, revert};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::Duration;

fn versions() -> [Build; 2] {
    [1, 2].map(|version| build("vectors", version, &[]))
}

fn file() -> BundleFile {
    let [old, new] = versions();
    BundleFile::new(&bundle(&old, &new, &["version"], &[]))
}

/// A program whose only thread holds them: in a loop, or in a system call.
struct Holder {
    program: Program,
    go_on: tempfile::NamedTempFile,
}

fn holders() -> [Holder; 2] {
    [true, false].map(|spins| {
        let mut go_on = tempfile::NamedTempFile::new().unwrap();
        go_on.write_all(&[0; 4]).unwrap();
        let path = go_on.path().to_str().unwrap();
        let arguments: &[&str] = if spins { &["spin", path] } else { &["read"] };
        let program = Program::start(&versions()[0].path, arguments);
        // What is tested depends on the processor: that is said.
        println!("{}: registers of {} bits", arguments[0], program.line());
        Holder { program, go_on }
    })
}

impl Holder {
    fn end(mut self) -> String {
        // In place: the program reads the page all the time, and a file that is cut has none for a moment.
        self.go_on.as_file().write_all_at(&[1; 4], 0).unwrap();
        self.program.feed(b"x");
        self.program.line()
    }
}

#[test]
fn behind_updates_and_reverts() {
    let file = file();
    for holder in holders() {
        let pid = holder.program.pid;
        for _ in 0..5 {
            expect(&file.apply(pid), ExitCode::Updated);
            expect(&revert(&file.options(pid)), ExitCode::Updated);
        }
        expect(&file.apply(pid), ExitCode::Updated);
        assert_eq!(holder.end(), "same 2");
    }
}

/// The borrowed thread then restores them itself, from the frame on its stack.
#[test]
fn behind_the_death_of_the_tool() {
    let file = file();
    for holder in holders() {
        let pid = holder.program.pid;
        for round in 0..15 {
            die(&file, pid, Duration::from_micros(400 * round));
            recover(pid).unwrap();
            let outcome = file.apply(pid);
            if outcome.exit() != ExitCode::AlreadyApplied {
                expect(&outcome, ExitCode::Updated);
            }
            expect(&revert(&file.options(pid)), ExitCode::Updated);
        }
        assert_eq!(holder.end(), "same 1");
    }
}

/// Runs the tool, and kills its guardian so long after it was there.
fn die(file: &BundleFile, pid: i32, after: Duration) {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_dsu-apply"))
        .arg(file.0.path())
        .args(["--pid", &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    if let Some(guardian) = guardian(&mut tool) {
        std::thread::sleep(after);
        kill(guardian);
    }
    tool.wait().unwrap();
}
