//! Programs in C, compiled for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles a source as stock builds are, with `-g`, into a file of this name; `flags` come last.
pub fn compile(directory: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (file, out) = (directory.join("p.c"), directory.join(name));
    std::fs::write(&file, source).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-g", "-fPIE", "-pie", "-Wl,--build-id", "-w"]).args(flags);
    assert!(gcc.arg("-o").args([&out, &file]).status().unwrap().success(), "gcc");
    out
}
