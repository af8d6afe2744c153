//! dsu-build: see the library.

use clap::Parser;
use dsu_compiler::cli::{Arguments, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    run(&Arguments::parse()).into()
}
