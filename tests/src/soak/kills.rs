//! SIGKILL of `dsu-apply`, of its guardian, or of both, on a server of 16 threads under load.
//!
//! The instants are spread over the whole run of the tool, or aimed at the commit: the tool's log, a pipe here,
//! says when all is prepared; then the process is watched until it is held for the commit (a SIGSTOP waits for it),
//! and the kill follows within [`AIMED`]. Afterwards each process is in one version, whole: by `--status`, after `--recover` where both were killed,
//! and by the answers that its clients get. Nothing crashes, hangs, or answers wrongly.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dsu_injector::ptrace::sched::Urgent;
use dsu_injector::target::process::Status;
use dsu_samples::tools::Tools;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::clients::Clients;
use super::server::{Builds, Server, VERSIONS, state};
use crate::tool;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Front,
    Guardian,
    Both,
}

/// What the tool writes to its log when all is prepared.
const PREPARED: &str = "prepare took ";
/// About what a commit takes from where it holds the process.
const AIMED: Duration = Duration::from_micros(30);
/// Between two looks at a process that is about to be held.
const LOOK: Duration = Duration::from_micros(10);
/// SIGSTOP's bit in the masks of `/proc/PID/status`.
const STOP_BIT: u64 = 1 << (nix::libc::SIGSTOP - 1);

/// How the process was found.
#[derive(Debug, Default)]
struct Tally {
    old: usize,
    new: usize,
    /// Left stopped in the middle of a commit.
    stopped: usize,
    put_right: usize,
    /// It was seen held before the kill.
    held: usize,
    /// The tool had done its work.
    late: usize,
}

/// Kills `rounds` tools.
pub fn run(tools: &Tools, builds: &Builds, rounds: usize, seed: u64) -> Result<()> {
    let mut server = builds.start()?;
    let clients = Clients::start(server.port)?;
    let mut noise = StdRng::seed_from_u64(seed);
    let log = Log::new()?;
    let whole = measure(tools, builds, &server, &clients, &log)?;
    println!("dsu-apply takes {} us here", whole.as_micros());
    let mut tally = Tally::default();
    let mut version = 0;
    let start = Instant::now();
    for round in 0..rounds {
        let next = (version + noise.random_range(1..VERSIONS)) % VERSIONS;
        let victim = [Victim::Front, Victim::Guardian, Victim::Both, Victim::Both];
        let victim = victim[noise.random_range(0..4)];
        let aimed = noise.random_bool(0.5);
        let after = if aimed { AIMED } else { whole * 5 / 4 }.mul_f64(noise.random());
        let what = format!(
            "round {round}, {victim:?} {} after {} us, {version} to {next}",
            if aimed { "in the commit" } else { "anywhere" },
            after.as_micros()
        );
        clients.allow(&[version, next]);
        let mut hunt = Hunt::start(tools, &builds.bundle(version, next), &server, &log)?;
        if aimed {
            hunt.wait_for_commit()?;
            tally.held += usize::from(hunt.urgent.is_some());
        }
        hunt.kill(victim, after, &mut tally).with_context(|| what.clone())?;
        server.alive().with_context(|| what.clone())?;
        tally.stopped += usize::from(server.is_stopped());
        if victim == Victim::Both {
            let said = operate(tools, "--recover", &server).with_context(|| what.clone())?;
            let done = said["recovered"].as_array().map_or(0, Vec::len);
            tally.put_right += usize::from(done > 0);
        }
        let found = runs(tools, builds, &server).with_context(|| what.clone())?;
        ensure!(found == version || found == next, "{what}: it runs version {found}");
        if found == next {
            tally.new += 1;
        } else {
            tally.old += 1;
        }
        version = found;
        clients.all_answered().with_context(|| what.clone())?;
        clients.allow(&[version]);
        clients.all_answered().with_context(|| what.clone())?;
        server.alive().with_context(|| what)?;
        if round % 500 == 499 {
            println!("{} rounds in {} s: {tally:?}", round + 1, start.elapsed().as_secs());
        }
    }
    // It can be updated as ever.
    let next = (version + 1) % VERSIONS;
    update(tools, builds, &server, &clients, version, next)?;
    println!("{rounds} kills in {} s: {tally:?}", start.elapsed().as_secs());
    println!("{}", server.memory()?);
    println!("{} answers, all of them right: 0 crashes, 0 hangs", clients.finish()?);
    server.alive()
}

/// An update that nobody disturbs.
fn update(
    tools: &Tools,
    builds: &Builds,
    server: &Server,
    clients: &Clients,
    old: usize,
    new: usize,
) -> Result<()> {
    clients.allow(&[old, new]);
    let said = tool::apply(tools, &builds.bundle(old, new), &[server.pid()], &[])?;
    ensure!(said.exit == 0, "{}: {}", said.command, said.summary());
    clients.all_answered()?;
    clients.allow(&[new]);
    Ok(())
}

/// How long the tool takes; the process is in its first version again.
fn measure(
    tools: &Tools,
    builds: &Builds,
    server: &Server,
    clients: &Clients,
    log: &Log,
) -> Result<Duration> {
    let mut whole = Vec::new();
    for (old, new) in [(0, 1), (1, 2), (2, 0)].repeat(3) {
        clients.allow(&[old, new]);
        let start = Instant::now();
        let mut hunt = Hunt::start(tools, &builds.bundle(old, new), server, log)?;
        ensure!(hunt.child.wait()?.success(), "an update that nobody disturbs fails");
        whole.push(start.elapsed());
        clients.all_answered()?;
        clients.allow(&[new]);
    }
    whole.sort_unstable();
    Ok(whole[whole.len() / 2])
}

/// A pipe with a name, so that a line wakes its reader.
struct Log {
    path: PathBuf,
    file: File,
    _dir: tempfile::TempDir,
}

impl Log {
    fn new() -> Result<Log> {
        let dir = tempfile::TempDir::new()?;
        let path = dir.path().join("log");
        mkfifo(&path, Mode::from_bits_truncate(0o600))?;
        let mut options = File::options();
        // Open for both, it has no end.
        let file = options.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits());
        Ok(Log { file: file.open(&path)?, path, _dir: dir })
    }

    /// What was written to it since the last time.
    fn read(&self) -> String {
        let mut bytes = vec![0; 1 << 16];
        let count = (&self.file).read(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    /// Waits until there is something, a moment at most.
    fn wait(&self) {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(5u8));
    }
}

fn operate(tools: &Tools, what: &str, server: &Server) -> Result<serde_json::Value> {
    let pid = server.pid().to_string();
    let said = tool::operate(tools, &[what.as_ref(), "--pid".as_ref(), pid.as_ref()])?;
    ensure!(said.exit == 0, "{}: {}", said.command, said.summary());
    Ok(said.json)
}

/// Which version runs; nothing is left behind by a tool that was killed.
fn runs(tools: &Tools, builds: &Builds, server: &Server) -> Result<usize> {
    let status = operate(tools, "--status", server)?;
    ensure!(status["left_behind"] == false, "something was left behind: {status}");
    ensure!(!server.is_stopped(), "it stays stopped: {status}");
    let Some(image) = status["images"].as_array().and_then(|images| images.first()) else {
        return Ok(0);
    };
    let id = image["runs_build_id"].as_str().unwrap_or_default();
    builds.ids.iter().position(|known| known == id).with_context(|| format!("build {id} runs"))
}

/// A tool at work.
struct Hunt<'a> {
    child: Child,
    guardian: Option<i32>,
    log: &'a Log,
    pid: i32,
    worker: i32,
    /// It was seen held.
    urgent: Option<Urgent>,
}

impl Hunt<'_> {
    fn start<'a>(tools: &Tools, bundle: &Path, server: &Server, log: &'a Log) -> Result<Hunt<'a>> {
        log.read();
        let mut command = Command::new(&tools.apply);
        command.arg(bundle).args(["--pid", &server.pid().to_string(), "--json"]);
        command.args(["--timeout", "20000"]).arg("--log").arg(&log.path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let (pid, worker) = (server.pid(), server.a_worker()?);
        Ok(Hunt { child: command.spawn()?, guardian: None, log, pid, worker, urgent: None })
    }

    /// Waits until the process is held for the commit, or the tool has ended.
    fn wait_for_commit(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut prepared = false;
        loop {
            if !prepared {
                self.log.wait();
                prepared = self.log.read().contains(PREPARED);
            } else if state(self.pid, self.worker) == Some('t') && self.is_held_soon() {
                return Ok(());
            }
            self.find_guardian();
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            ensure!(start.elapsed() < Server::PATIENCE, "dsu-apply comes to no commit");
        }
    }

    /// Looks as long as a thread stands, without waiting for a turn; and sleeps in between, as else the tool
    /// would wait for this one's turn to end. Stays urgent until the kill, if it is to come.
    fn is_held_soon(&mut self) -> bool {
        let urgent = Urgent::begin();
        while state(self.pid, self.worker) == Some('t') {
            if Status::of(self.pid).is_some_and(|s| s.shared & STOP_BIT != 0) {
                self.urgent = Some(urgent);
                return true;
            }
            std::thread::sleep(LOOK);
        }
        false
    }

    fn find_guardian(&mut self) {
        if self.guardian.is_none() {
            let front = self.child.id();
            let path = format!("/proc/{front}/task/{front}/children");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            self.guardian = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
        }
    }

    /// Kills after a while, and waits until nothing of the tool is left.
    fn kill(mut self, victim: Victim, after: Duration, tally: &mut Tally) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < after {
            self.find_guardian();
            std::hint::spin_loop();
        }
        let front = i32::try_from(self.child.id())?;
        // They may have ended by themselves.
        let end = |pid| {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        };
        match (victim, self.guardian) {
            (Victim::Front, _) => end(front),
            (Victim::Guardian, Some(guardian)) => end(guardian),
            (Victim::Both, guardian) => {
                // It does the work.
                guardian.into_iter().for_each(end);
                end(front);
            }
            (Victim::Guardian, None) => {}
        }
        drop(self.urgent.take());
        // Both hold the other end of its output.
        let output = self.child.stdout.take().context("its output")?;
        let read = std::thread::spawn(move || {
            let mut output = output;
            output.read_to_end(&mut Vec::new())
        });
        let start = Instant::now();
        while !read.is_finished() {
            if start.elapsed() > Server::PATIENCE {
                bail!("dsu-apply, killed in part, does not end within {:?}", Server::PATIENCE);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let ended = self.child.wait()?;
        tally.late += usize::from(ended.success());
        Ok(())
    }
}
