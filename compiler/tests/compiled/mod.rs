//! Programs in C, compiled for a test.

use dsu_compiler::{Built, Options, Outcome, build};
use dsu_patch_format::Bundle;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles a source as stock builds are, with `-g`, into a file of this name; `flags` come last.
pub fn compile(directory: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    compile_by("gcc", directory, name, source, flags)
}

/// The same by another compiler.
pub fn compile_by(
    compiler: &str,
    directory: &Path,
    name: &str,
    source: &str,
    flags: &[&str],
) -> PathBuf {
    let (file, out) = (directory.join("p.c"), directory.join(name));
    std::fs::write(&file, source).unwrap();
    let mut command = Command::new(compiler);
    command.args(["-O2", "-g", "-fPIE", "-pie", "-Wl,--build-id", "-w"]).args(flags);
    assert!(command.arg("-o").args([&out, &file]).status().unwrap().success(), "{compiler}");
    out
}

/// The bundle of two builds, live frames and all, as it is read back.
#[allow(dead_code, reason = "some tests make other bundles")]
pub fn bundle(old: PathBuf, new: PathBuf) -> (Built, Bundle) {
    let options = Options { old, new, live_frames: true, ..Options::default() };
    let built = build(&options, &|_| ()).unwrap();
    assert_eq!(built.outcome, Outcome::Written, "{:?}", built.refusals);
    let bundle = dsu_patch_format::decode(&built.bundle(&options).unwrap()).unwrap();
    (built, bundle)
}
