//! The harness must not disturb what it watches, and must see what is wrong.

use std::time::Duration;

use anyhow::Result;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::builds::{self, Compiled, sources};
use super::mother::Mother;
use super::oracle::Reference;
use super::tracee::Tracee;
use super::trial::{Outcome, Trial, Update, Updater, Verdict};
use super::variants::Side;

/// `jmp .`: two bytes.
const ENDLESS: i64 = 0xfeeb;

struct Watched {
    old: Compiled,
    reference: Reference,
}

/// A torture program in both of its versions.
fn watched(name: &str) -> Watched {
    let source = sources().unwrap().into_iter().find(|s| s.name == name).unwrap();
    let [old, new] = ["gcc-O2", "gcc-O2+new"]
        .map(|side| builds::program(&source, Side::parse(side).unwrap(), 100_000).unwrap());
    let reference = Reference::new(old.finished.clone(), new.finished, old.instructions).unwrap();
    Watched { old, reference }
}

impl Watched {
    fn trial(&self, tracee: Tracee, step: u64, update: Updater<'_>) -> Outcome {
        let reference = &self.reference;
        let limit = Duration::from_secs(2);
        let trial = Trial { reference, update, step, tries: 2, hops: 1, signal: false, limit };
        trial.run(tracee).unwrap()
    }

    /// Trials all over the program, each on a copy of one process.
    fn all_over(&self, update: Updater<'_>) -> Vec<Outcome> {
        let mut mother = Mother::start(&self.old.path).unwrap();
        let mut outcomes = Vec::new();
        for number in 0..40 {
            let step = self.reference.instructions * number / 40;
            assert!(mother.advance(step).unwrap());
            outcomes.push(self.trial(mother.copy().unwrap(), step, update));
        }
        outcomes
    }

    /// One trial in a process of its own.
    fn once(&self, update: Updater<'_>) -> Outcome {
        let mut tracee = Tracee::start(&self.old.path).unwrap();
        tracee.step(2000).unwrap();
        self.trial(tracee, 2000, update)
    }
}

/// Does something with a stopped process while it is traced.
fn traced(pid: i32, work: impl FnOnce(Pid) -> nix::Result<()>) {
    let pid = Pid::from_raw(pid);
    let all = || -> Result<()> {
        ptrace::seize(pid, Options::empty())?;
        waitpid(pid, None)?;
        work(pid)?;
        ptrace::detach(pid, None)?;
        Ok(())
    };
    all().unwrap();
}

fn is_wrong(outcome: &Outcome) -> bool {
    outcome.verdict != Verdict::Right
}

#[test]
fn stopping_and_copying_disturbs_nothing() {
    for name in ["nested_loops", "doubles", "recursion"] {
        let refuse = |_, _| Update::Refused(vec!["not now".into()]);
        let outcomes = watched(name).all_over(&refuse);
        assert!(!outcomes.iter().any(is_wrong), "{name}: {outcomes:?}");
        assert!(outcomes.iter().all(|o| o.refused.is_some() && o.applied == 0));
    }
}

#[test]
fn a_register_that_is_carried_over_wrongly_is_seen() {
    let corrupt = |pid, _| {
        traced(pid, |pid| {
            let mut registers = ptrace::getregs(pid)?;
            registers.rbx ^= 0x10;
            registers.rbp ^= 0x10;
            registers.rax ^= 0x10;
            ptrace::setregs(pid, registers)
        });
        // As a refusal: it must end as OLD then.
        Update::Refused(Vec::new())
    };
    let outcomes = watched("nested_loops").all_over(&corrupt);
    let seen = outcomes.iter().filter(|o| is_wrong(o)).count();
    assert!(seen * 2 > outcomes.len(), "{seen} of {}", outcomes.len());
}

#[test]
fn a_vector_register_that_is_lost_is_seen() {
    let corrupt = |pid, _| {
        traced(pid, |pid| {
            let mut registers = ptrace::getregset::<ptrace::regset::NT_PRFPREG>(pid)?;
            registers.xmm_space = [0x3fc0_0000; 64];
            ptrace::setregset::<ptrace::regset::NT_PRFPREG>(pid, registers)
        });
        Update::Refused(Vec::new())
    };
    let outcomes = watched("doubles").all_over(&corrupt);
    let seen = outcomes.iter().filter(|o| is_wrong(o)).count();
    assert!(seen * 3 > outcomes.len(), "{seen} of {}", outcomes.len());
}

#[test]
fn an_update_that_does_nothing_is_seen() {
    let outcome = watched("nested_loops").once(&|_, _| Update::Done);
    assert!(is_wrong(&outcome), "OLD's version lines: {outcome:?}");
}

#[test]
fn hangs_and_deaths_and_failures_are_seen() {
    let watched = watched("nested_loops");
    let hang = |pid, _| {
        traced(pid, |pid| {
            let rip = ptrace::getregs(pid)?.rip;
            ptrace::write(pid, rip as ptrace::AddressType, ENDLESS)
        });
        Update::Done
    };
    let outcome = watched.once(&hang);
    assert!(format!("{:?}", outcome.verdict).contains("Hung"), "{outcome:?}");
    let killed = |pid, _| {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        Update::Done
    };
    let outcome = watched.once(&killed);
    assert!(format!("{:?}", outcome.verdict).contains("SIGKILL"), "{outcome:?}");
    let outcome = watched.once(&|_, _| Update::Failed("it said so".into()));
    assert_eq!(outcome.verdict, Verdict::Diverged("it said so".into()));
}
