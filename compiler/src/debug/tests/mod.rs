//! Debug information of small programs, compiled when the tests run.

mod damage;
mod layouts;
mod locals;
mod reading;

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{DebugError, DebugInfo, Function, Variable};

/// A program compiled in a directory of its own.
pub(crate) struct Built {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Built {
    pub(super) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }

    pub(super) fn info(&self) -> DebugInfo {
        read(&self.bytes(), None).unwrap()
    }

    /// Runs a tool of binutils on the program, into another file.
    pub(crate) fn objcopy(&self, options: &[&str]) -> Vec<u8> {
        let to = self.directory.path().join("copied");
        run(Command::new("objcopy").args(options).arg(&self.path).arg(&to));
        std::fs::read(to).unwrap()
    }
}

/// Compiles sources, named `a.c`, `b.c` and so on, or `.cc` by a C++ compiler.
pub(crate) fn compile(compiler: &str, options: &[&str], sources: &[&str]) -> Built {
    let directory = tempfile::tempdir().unwrap();
    let suffix = if compiler.contains("++") { "cc" } else { "c" };
    let mut names = Vec::new();
    for (name, source) in ('a'..).zip(sources) {
        let name = format!("{name}.{suffix}");
        std::fs::write(directory.path().join(&name), source).unwrap();
        names.push(name);
    }
    let path = directory.path().join("program");
    let mut command = Command::new(compiler);
    // The C library's start-up files have no debug information of their own here.
    command.current_dir(directory.path()).arg("-g").args(options).args(&names);
    run(command.arg("-o").arg(&path));
    Built { directory, path }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {message}");
}

/// Reads debug information from the bytes of an image and of a separate file.
pub(super) fn read(image: &[u8], separate: Option<&[u8]>) -> Result<DebugInfo, DebugError> {
    let image = object::File::parse(image).unwrap();
    let separate = separate.map(|bytes| object::File::parse(bytes).unwrap());
    DebugInfo::read(&image, separate.as_ref())
}

pub(super) fn function<'i>(info: &'i DebugInfo, name: &str) -> &'i Function {
    info.functions.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no {name}"))
}

pub(super) fn variable<'i>(info: &'i DebugInfo, name: &str) -> &'i Variable {
    info.variables.iter().find(|v| v.name == name).unwrap_or_else(|| panic!("no {name}"))
}

/// A clang, if this machine has one: it is no part of what the project needs to be built.
pub(crate) fn clang() -> Option<&'static str> {
    let is_there = |name: &&str| {
        let found = Command::new(name).arg("--version").output();
        found.is_ok_and(|output| output.status.success())
    };
    let found = ["clang", "clang-14", "clang-16", "clang-19"].into_iter().find(is_there);
    if found.is_none() {
        eprintln!("no clang here: its debug information is not tested");
    }
    found
}

/// Whether a file exists at a path that the debug information names, from its directory.
pub(super) fn exists(directory: &Path, name: &str) -> bool {
    directory.join(name).exists()
}
