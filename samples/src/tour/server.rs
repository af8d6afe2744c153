//! The tour's server: builds it, starts it, stops it by its own process id.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How each version is compiled, in its own directory.
pub const COMMAND: &str = "gcc -O2 -g -fPIE -pie -Wl,--build-id server.c shop.c -o server";

/// Says what to install when there is no C compiler.
///
/// # Errors
/// That.
pub fn compiler_is_there() -> Result<()> {
    let found = Command::new("gcc").arg("--version").stdin(Stdio::null()).output();
    if found.is_ok_and(|out| out.status.success()) {
        return Ok(());
    }
    bail!("gcc is missing, the tour builds a C program with it: apt-get install gcc libc6-dev")
}

/// A directory for what the tour makes: `target/tour`.
///
/// # Errors
/// It cannot be made.
pub fn scratch() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let dir = target.unwrap_or_else(|| root.join("target")).join("tour");
    std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    Ok(dir.canonicalize()?)
}

/// Compiles a version; gives the program.
///
/// # Errors
/// What the compiler says.
pub fn build(version: u32, scratch: &Path) -> Result<PathBuf> {
    let dir = scratch.join(format!("v{version}"));
    std::fs::create_dir_all(&dir)?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tour");
    for name in ["server.c", "shop.h", &format!("v{version}/shop.c")] {
        let file = Path::new(name).file_name().unwrap_or_default();
        std::fs::copy(sources.join(name), dir.join(file)).with_context(|| name.to_owned())?;
    }
    let mut words = COMMAND.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(&dir);
    let out = command.stdin(Stdio::null()).output().context("run gcc")?;
    ensure!(out.status.success(), "{COMMAND}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(dir.join("server"))
}

/// The running server; killed by its own id when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    started: Instant,
}

impl Server {
    /// Starts a version and waits until it listens.
    ///
    /// # Errors
    /// It does not start, or says something else than `ready PORT`.
    pub fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        // From here on the guard kills it, whatever goes wrong.
        let mut server = Self { child, port: 0, started: Instant::now() };
        let mut line = String::new();
        let stdout = server.child.stdout.take().context("no standard output")?;
        // It says so at once, or ends, which ends the line too.
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line.trim().strip_prefix("ready ").and_then(|p| p.parse().ok());
        server.port = port.with_context(|| format!("the server said {line:?} instead of ready"))?;
        Ok(server)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How long it has run.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Says whether it still runs.
    ///
    /// # Errors
    /// The kernel does not know it.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Ends it.
    ///
    /// # Errors
    /// It had ended before.
    pub fn stop(mut self) -> Result<()> {
        ensure!(self.is_running()?, "the server has ended by itself");
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // There is nobody left to tell about an error.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
