//! The corpus: other people's programs, fetched by package name and built step by step.
//!
//! Takes a [`Recipe`]; gives a [`Ladder`] whose steps are built executables under
//! `target/corpus/KEY/steps/NN-PATCH/`. A version that the mirror no longer has is a [`NotHad`] error,
//! which the suites list by name and count apart.

pub mod apt;
pub mod ladder;
pub mod needs;
pub mod programs;
pub mod recipe;

pub use ladder::{Ladder, Step};
pub use recipe::{Grouping, Recipe};

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A source that could not be fetched, with the versions that were tried.
#[derive(Debug)]
pub struct NotHad(pub String);

impl fmt::Display for NotHad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not had: {}", self.0)
    }
}

impl std::error::Error for NotHad {}

/// Runs a shell line in `dir` with the build environment, output to `log`; an error quotes the log's end.
pub fn shell(line: &str, dir: &Path, log: &Path) -> Result<()> {
    let out = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    let mut command = Command::new("sh");
    command.args(["-ec", line]).current_dir(dir).stdin(std::process::Stdio::null());
    command.stdout(out.try_clone()?).stderr(out);
    // Flags of the caller's environment must not leak into the builds that the cache is keyed on.
    for name in
        ["CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CC"]
    {
        command.env_remove(name);
    }
    command.env("SOURCE_DATE_EPOCH", "1").env("LC_ALL", "C");
    command.env("QUILT_PATCHES", "debian/patches").env("QUILT_PC", ".pc");
    // redis writes the commit of an enclosing git work tree into itself: hide this workspace's.
    command.env("GIT_CEILING_DIRECTORIES", crate::workspace::corpus_dir());
    let status = command.status().with_context(|| format!("run sh in {}", dir.display()))?;
    if !status.success() {
        bail!("`{line}` in {}: {status}\n{}", dir.display(), tail(log, 15));
    }
    Ok(())
}

/// The last `lines` lines of a file, for error messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
