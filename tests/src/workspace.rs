//! Where things are: the workspace, its `target/corpus`, and the two programs under test.
//!
//! `cargo run --bin real-programs` builds only its own crate, so the programs under test are built here,
//! once, in release, with the same cargo and target directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The directory that holds the workspace's `Cargo.toml`.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// The cache of fetched sources and built programs.
pub fn corpus_dir() -> PathBuf {
    root().join("target/corpus")
}

/// The two programs under test.
#[derive(Debug, Clone)]
pub struct Tools {
    /// `dsu-build`.
    pub build: PathBuf,
    /// `dsu-apply`.
    pub apply: PathBuf,
}

/// Builds both programs and says where they are. `DSU_TEST_BIN_DIR` names a directory with ready ones.
pub fn tools() -> Result<Tools> {
    if let Some(dir) = std::env::var_os("DSU_TEST_BIN_DIR") {
        return in_directory(Path::new(&dir));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--quiet", "-p", "dsu-compiler", "-p", "dsu-injector"])
        .current_dir(root())
        .status()
        .context("run cargo build of dsu-compiler and dsu-injector")?;
    ensure!(status.success(), "cargo build of dsu-compiler and dsu-injector: {status}");
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    in_directory(&target.unwrap_or_else(|| root().join("target")).join("release"))
}

fn in_directory(dir: &Path) -> Result<Tools> {
    let tools = Tools { build: dir.join("dsu-build"), apply: dir.join("dsu-apply") };
    for path in [&tools.build, &tools.apply] {
        ensure!(path.is_file(), "{} is not there after the build", path.display());
    }
    Ok(tools)
}
