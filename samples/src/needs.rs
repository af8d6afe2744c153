//! Compilers and linkers that the cases need: installed by apt when that is possible, else named.

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::{Command, Stdio};

/// Program and the Debian package that has it.
const NEEDS: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("clang", "clang"),
    ("ld.lld", "lld"),
    ("ld.gold", "binutils"),
    ("objcopy", "binutils"),
    ("musl-gcc", "musl-tools"),
];

/// Sees to it that all of them are there.
///
/// # Errors
/// What is missing, with the command that installs it.
pub fn install() -> Result<()> {
    let mut missing: Vec<&str> = NEEDS
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let mut line = vec!["install", "-y", "--no-install-recommends"];
    line.append(&mut missing);
    if !is_root() || !is_there("apt-get") {
        bail!("the samples need more compilers: sudo apt-get {}", line.join(" "));
    }
    eprintln!("samples: apt-get {}", line.join(" "));
    apt_get(&["update"])?;
    apt_get(&line)
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.arg("-q").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let out = command.stdin(Stdio::null()).output().context("run apt-get")?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "apt-get {}: {}\n{said}", arguments.join(" "), out.status);
    Ok(())
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The owner of our own entry in /proc is our effective user.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(Path::new("/proc/self")).is_ok_and(|m| m.uid() == 0)
}
