//! The server and its three versions.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dsu_samples::tools::Tools;
use tempfile::TempDir;

use crate::process::{Guard, free_port, wait_for_port};
use crate::{tool, workspace};

/// How many versions there are; they count from 0 here.
pub const VERSIONS: usize = 3;
/// Threads of the server, the one that accepts connections included.
pub const THREADS: usize = 16;

/// The answer of a version to a number: `compute` of `tests/soak/server.c`.
pub fn answer(version: usize, number: u64) -> u64 {
    let (factor, more) = [(3, 1), (5, 2), (7, 3)][version % VERSIONS];
    number * factor + more
}

/// The versions and bundles, in a directory that is removed in the end.
#[derive(Debug)]
pub struct Builds {
    dir: TempDir,
    /// Build ids by version.
    pub ids: Vec<String>,
}

impl Builds {
    /// Compiles the versions and makes all bundles.
    pub fn make(tools: &Tools) -> Result<Builds> {
        let mut builds = Builds { dir: TempDir::new()?, ids: Vec::new() };
        let source = workspace::root().join("tests/soak/server.c");
        for version in 0..VERSIONS {
            let status = Command::new("gcc")
                .args(["-O2", "-g", "-pthread", "-fPIE", "-pie", "-Wl,--build-id"])
                .arg(format!("-DVERSION={}", version + 1))
                .arg(&source)
                .arg("-o")
                .arg(builds.program(version))
                .status()
                .context("run gcc; install it")?;
            ensure!(status.success(), "gcc of version {version}: {status}");
        }
        let mut ids = vec![String::new(); VERSIONS];
        for (old, new) in pairs() {
            let (from, to) = (builds.program(old), builds.program(new));
            let said = tool::build(tools, &from, &to, &builds.bundle(old, new), &[])?;
            ensure!(said.exit == 0, "{}: {}", said.command, said.summary());
            let id =
                said.json["old"]["build_id"].as_str().context("dsu-build names no build id")?;
            id.clone_into(&mut ids[old]);
        }
        builds.ids = ids;
        Ok(builds)
    }

    /// The program of a version.
    pub fn program(&self, version: usize) -> PathBuf {
        self.dir.path().join(format!("server-{version}"))
    }

    /// The bundle between two versions.
    pub fn bundle(&self, old: usize, new: usize) -> PathBuf {
        self.dir.path().join(format!("{old}-{new}.patch"))
    }

    /// Starts the first version.
    pub fn start(&self) -> Result<Server> {
        let port = free_port()?;
        let log = self.dir.path().join("server.log");
        let mut command = Command::new(self.program(0));
        command.arg(port.to_string()).arg(THREADS.to_string());
        let mut guard = Guard::start(command, &log)?;
        wait_for_port(port, &mut guard, &log)?;
        Ok(Server { guard, port })
    }
}

/// All ways from one version to another.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..VERSIONS).flat_map(|old| (0..VERSIONS).map(move |new| (old, new))).filter(|(a, b)| a != b)
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    guard: Guard,
    /// Where it listens.
    pub port: u16,
}

/// What a process takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Address space.
    pub virtual_kb: u64,
    /// Resident.
    pub resident_kb: u64,
    /// Mappings.
    pub mappings: u64,
}

impl Memory {
    /// The larger ones of both.
    #[must_use]
    pub fn most(self, other: Memory) -> Memory {
        Memory {
            virtual_kb: self.virtual_kb.max(other.virtual_kb),
            resident_kb: self.resident_kb.max(other.resident_kb),
            mappings: self.mappings.max(other.mappings),
        }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Memory { virtual_kb, resident_kb, mappings } = self;
        write!(
            f,
            "{virtual_kb} kB of address space, {resident_kb} kB resident, {mappings} mappings"
        )
    }
}

impl Server {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.guard.pid()
    }

    /// Fails with how it has ended, if it has.
    pub fn alive(&mut self) -> Result<()> {
        match self.guard.ended() {
            None => Ok(()),
            Some(status) => anyhow::bail!("the server has ended: {status}"),
        }
    }

    /// What it takes now.
    pub fn memory(&self) -> Result<Memory> {
        let pid = self.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number.with_context(|| format!("no {name} of process {pid}"))?.parse()?)
        };
        let mappings = u64::try_from(maps.lines().count())?;
        Ok(Memory { virtual_kb: field("VmSize:")?, resident_kb: field("VmRSS:")?, mappings })
    }

    /// Whether a signal keeps it stopped.
    pub fn is_stopped(&self) -> bool {
        state(self.pid(), self.pid()) == Some('T')
    }

    /// A thread of it that serves connections.
    pub fn a_worker(&self) -> Result<i32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()))?;
        let ids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
        ids.filter(|tid| *tid != self.pid()).max().context("it has no thread")
    }

    /// How long clients and tools are waited for.
    pub const PATIENCE: Duration = Duration::from_secs(30);
}

/// The state of a thread, as the kernel's letter.
pub fn state(pid: i32, tid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
