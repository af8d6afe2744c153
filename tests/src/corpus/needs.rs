//! What the builds and the tests need of the machine: installed by apt when root, else named.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::recipe::Recipe;

/// Needed whatever is built.
const ALWAYS: &[&str] = &["gcc", "make", "quilt", "dpkg-dev", "perl", "libc6-dev", "binutils"];

/// Installs the packages that `recipes` need and the machine lacks.
pub fn install(recipes: &[Recipe]) -> Result<()> {
    let mut wanted: Vec<&str> = ALWAYS.to_vec();
    wanted.extend(recipes.iter().flat_map(|r| r.needs.iter().copied()));
    wanted.sort_unstable();
    wanted.dedup();
    packages(&wanted)
}

/// Installs the packages of `wanted` that the machine lacks.
pub fn packages(wanted: &[&str]) -> Result<()> {
    let missing: Vec<&str> = wanted.iter().copied().filter(|p| !installed(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !nix::unistd::geteuid().is_root() {
        bail!("missing packages: {}\ninstall them with: sudo {line}", missing.join(" "));
    }
    println!("installing: {}", missing.join(" "));
    apt(&["update"])?;
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(&missing);
    apt(&args)
}

fn apt(args: &[&str]) -> Result<()> {
    let out = Command::new("apt-get")
        .arg("-q")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("run apt-get")?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "apt-get {}: {}\n{text}", args.join(" "), out.status);
    Ok(())
}

fn installed(package: &str) -> bool {
    let out =
        Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
    // A package of several architectures prints its state once for each.
    out.is_ok_and(|o| {
        String::from_utf8_lossy(&o.stdout).contains("installed")
            && !String::from_utf8_lossy(&o.stdout).starts_with("not-installed")
    })
}
