//! The two programs under test: where they are, and what they said.
//!
//! `cargo test` and `cargo run` build the binaries of one package alone, so these are built here, once,
//! with the same cargo, in release. `DSU_TEST_BIN_DIR` names a directory with ready ones.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// No run of either tool on a sample takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// `dsu-build` and `dsu-apply`.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Path of `dsu-build`.
    pub build: PathBuf,
    /// Path of `dsu-apply`.
    pub apply: PathBuf,
}

/// What a tool said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code; -1 when a signal ended it.
    pub exit: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Standard output as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.stdout.trim()).unwrap_or(Value::Null)
    }

    /// Both outputs, for messages.
    #[must_use]
    pub fn all(&self) -> String {
        format!("exit {}\n{}{}", self.exit, self.stdout, self.stderr)
    }
}

impl Tools {
    /// Builds both, or takes those of `DSU_TEST_BIN_DIR`.
    ///
    /// # Errors
    /// A build that fails.
    pub fn ready() -> Result<Self> {
        if let Some(dir) = std::env::var_os("DSU_TEST_BIN_DIR") {
            return Self::in_directory(Path::new(&dir));
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // Cargo chooses the features of shared dependencies for all selected packages together: with
        // the tests' package among them, no suite of theirs builds the rest once more.
        let packages = ["dsu-compiler", "dsu-injector", "dsu-tests"];
        let status = Command::new(cargo)
            .args(["build", "--release", "--quiet", "--bin", "dsu-build", "--bin", "dsu-apply"])
            .args(packages.iter().flat_map(|package| ["-p", package]))
            .current_dir(&root)
            .stdin(Stdio::null())
            .status()
            .context("run cargo build")?;
        ensure!(status.success(), "cargo build of dsu-build and dsu-apply: {status}");
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        Self::in_directory(&target.unwrap_or_else(|| root.join("target")).join("release"))
    }

    fn in_directory(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
        let tools = Self { build: dir.join("dsu-build"), apply: dir.join("dsu-apply") };
        for tool in [&tools.build, &tools.apply] {
            ensure!(tool.is_file(), "{} is not there", tool.display());
        }
        Ok(tools)
    }
}

/// Runs a tool to its end, which comes within a minute or is an error.
///
/// # Errors
/// It cannot be started or does not end.
pub fn say<S: AsRef<OsStr>>(tool: &Path, arguments: &[S]) -> Result<Said> {
    let mut command = Command::new(tool);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("run {}", tool.display()))?;
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("{} has not ended within {LIMIT:?}", tool.display());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let text = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
    Ok(Said { exit: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) })
}

/// Reads a pipe on a thread of its own, so that a full one blocks nobody.
fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
