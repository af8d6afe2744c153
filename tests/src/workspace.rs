//! Where things are: the workspace, and its `target/corpus`.

use std::path::{Path, PathBuf};

/// The directory that holds the workspace's `Cargo.toml`.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// The cache of fetched sources and built programs.
pub fn corpus_dir() -> PathBuf {
    root().join("target/corpus")
}
