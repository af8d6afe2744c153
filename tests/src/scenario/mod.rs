//! What each program is to show: how it is started, loaded, questioned, and what each step must end in.

pub mod civetweb;
pub mod dnsmasq;
pub mod memcached;
pub mod nginx;
pub mod openssl;
pub mod pgbouncer;
pub mod postgresql;
pub mod redis;
mod runtest;
pub mod tinyproxy;
pub mod vsftpd;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::climb::Applied;
use crate::corpus::{Ladder, Recipe, Step};
use crate::live::Loops;
use crate::load::Client;
use crate::tool;
use dsu_samples::tools::Tools;

/// What a step has to end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A bundle is written, and applied to every process.
    Applied,
    /// dsu-build: nothing to do.
    Nothing,
    /// dsu-build refuses, with a refusal about one of these variables or types.
    Refused(&'static [&'static str]),
    /// dsu-apply refuses at its deadline, naming one of these functions as being on a stack.
    Blocked(&'static [&'static str]),
    /// A patch that this suite does not know (the package is newer): any of the above.
    Unknown,
}

/// What each patch, by the beginning of its name, has to end in.
pub type Steps = &'static [(&'static str, Expect)];

/// How far a running process has come.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// Its ladder.
    pub ladder: &'a Ladder,
    /// The number of the last step that it took.
    pub number: usize,
}

impl Version<'_> {
    /// Says whether the running version has the fix of `patch`.
    pub fn has(&self, patch: &str) -> bool {
        let step = self.ladder.steps.iter().find(|s| s.patch.starts_with(patch));
        step.is_some_and(|s| s.number <= self.number)
    }
}

/// How much state a server gets before the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// All of it: the ladder.
    Full,
    /// Little, so that one repetition takes a second.
    Small,
    /// None, and no load beside: for tests that empty the server.
    Nothing,
}

/// What a climb applied, to be applied again.
#[derive(Debug, Clone, Copy)]
pub struct Updates<'a> {
    /// The program that applies.
    pub tools: &'a Tools,
    /// The bundles.
    pub applied: &'a [Applied],
}

impl Updates<'_> {
    /// A new process of the build before `patch`, updated by that step's bundle.
    pub fn process(
        &self,
        program: &dyn Program,
        ladder: &Ladder,
        patch: &str,
    ) -> Result<Box<dyn Server>> {
        let update = self.applied.iter().find(|a| a.new.patch.starts_with(patch));
        let update = update.with_context(|| format!("the climb applied no bundle of {patch}"))?;
        let server = program.start(ladder, &update.old, Fill::Nothing)?;
        let said = tool::apply(self.tools, &update.bundle, &server.targets(), &[])?;
        ensure!(said.exit == 0, "{}: {}", said.command, said.summary());
        Ok(server)
    }
}

/// One program of the suite.
pub trait Program: Sync {
    /// What it is built from.
    fn recipe(&self) -> &'static Recipe;

    /// What its steps must end in.
    fn steps(&self) -> Steps;

    /// What the step of this patch must end in.
    fn expect(&self, patch: &str) -> Expect {
        let known = self.steps().iter().find(|(p, _)| patch.starts_with(p));
        known.map_or(Expect::Unknown, |(_, expect)| *expect)
    }

    /// At least so many functions differ by line number alone at this step, and are kept.
    fn line_only(&self, _patch: &str) -> usize {
        0
    }

    /// Types whose changed layout the user accepts for this image, as none of their objects lives across
    /// the update. Without being accepted, each must be refused by name.
    fn accepted(&self, _patch: &str, _image: usize) -> &'static [&'static str] {
        &[]
    }

    /// What is updated, one bundle each, in this order: the program itself, or libraries that it has loaded.
    fn images(&self, step: &Step) -> Vec<PathBuf> {
        vec![step.program.clone()]
    }

    /// Starts the build of `step` in a new process.
    fn start(&self, ladder: &Ladder, step: &Step, fill: Fill) -> Result<Box<dyn Server>>;

    /// Checks of single builds in throw-away processes: those in which OLD crashes. Each is a named case.
    /// `updates` are those of the climb, where there was one.
    fn apart(
        &self,
        _ladder: &Ladder,
        _updates: Option<&Updates<'_>>,
    ) -> Vec<(String, Result<String>)> {
        Vec::new()
    }

    /// The package's own tests, against the updated server. Each is a named case.
    fn own_tests(
        &self,
        _ladder: &Ladder,
        _server: &mut dyn Server,
    ) -> Vec<(String, Result<String>)> {
        Vec::new()
    }

    /// Functions of it that never leave the stack and that the suite changes.
    fn loops(&self) -> Option<&'static dyn Loops> {
        None
    }

    /// The number of repetitions of its updates at random moments, in the default run.
    fn repeated(&self) -> bool {
        false
    }
}

/// A running server.
pub trait Server {
    /// Its processes, in the order in which they are to be updated.
    fn targets(&self) -> Vec<i32>;

    /// The TCP port that it serves.
    fn port(&self) -> u16;

    /// Client threads for its load.
    fn clients(&self) -> Result<Vec<Client>>;

    /// Asks whether all processes are still those of the start, and nothing beside them complained.
    fn alive(&mut self) -> Result<()>;

    /// Holds what loads the server beside the clients, or lets it go on.
    fn lighten(&mut self, _light: bool) -> Result<()> {
        Ok(())
    }

    /// Ends what runs beside the clients, for the package's own tests.
    fn quiet(&mut self) {}

    /// State and oracles: everything that a process of this version must answer. Says what was asked.
    fn check(&mut self, version: Version<'_>) -> Result<String>;
}

/// The programs of the default run, in the order of their builds.
pub fn all() -> Vec<&'static dyn Program> {
    vec![
        &memcached::Memcached,
        &tinyproxy::Tinyproxy,
        &civetweb::Civetweb,
        &nginx::Nginx,
        &redis::Redis,
        &vsftpd::Vsftpd,
        &pgbouncer::Pgbouncer,
        &dnsmasq::Dnsmasq,
        &openssl::Openssl,
    ]
}
