//! Programs of csmith (Yang, Chen, Eide, Regehr: "Finding and understanding bugs in C compilers", 2011): random,
//! without undefined behaviour, with a checksum of all their variables at the end.
//!
//! Program `random-17` is the one with seed 17, always the same one. Programs that end at once or run
//! for too long are passed over, as are those whose two builds do not print the same (then the program, or
//! a compiler, is wrong).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::builds::{Cell, Making, Source, WRAPPER, home};
use super::parallel::in_parallel;
use super::variants::{Pair, RANDOM_PAIRS};
use dsu_samples::tools::Tools;

/// Prefix of the names of these programs.
pub const PREFIX: &str = "random-";
/// Seconds that csmith may take; most programs take it milliseconds.
const PATIENCE: &str = "10";
/// Instructions: fewer show little, more take long to step through.
const LENGTHS: std::ops::Range<u64> = 400..60_000;
/// Smaller programs than csmith makes by itself, of everything that frames can hold.
const OPTIONS: &[&str] = &[
    "--quiet",
    "--concise",
    "--no-argc",
    "--max-funcs",
    "7",
    "--max-block-depth",
    "4",
    "--max-block-size",
    "4",
    "--max-array-dim",
    "2",
    "--max-array-len-per-dim",
    "6",
    "--float",
];

/// The source of the program with this seed.
pub fn source(seed: u64) -> Result<Source> {
    let dir = home().join("random");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{PREFIX}{seed}.c"));
    if !path.is_file() {
        let draft = path.with_extension("draft");
        let mut command = Command::new("timeout");
        command.args([PATIENCE, "csmith", "--seed", &seed.to_string()]).args(OPTIONS);
        // It writes a file about the platform where it is started.
        let out = command.arg("-o").arg(&draft).current_dir(&dir).output();
        let out = out.context("run csmith (Debian packages csmith and libcsmith-dev)")?;
        ensure!(out.status.success(), "csmith of seed {seed}: {}", out.status);
        std::fs::rename(&draft, &path)?;
    }
    let wrapper = Path::new(env!("CARGO_MANIFEST_DIR")).join("torture");
    Ok(Source {
        name: format!("{PREFIX}{seed}"),
        files: vec![wrapper.join(format!("{WRAPPER}.c"))],
        flags: vec![
            format!("-DSOURCE=\"{}\"", path.display()),
            "-I/usr/include/csmith".into(),
            // csmith's programs pun types and overflow on purpose here and there.
            "-fno-strict-aliasing".into(),
            "-fwrapv".into(),
        ],
        includes: vec![path, wrapper.join("torture.h")],
    })
}

/// The pair that this seed's program is compiled as.
pub fn pair(seed: u64) -> Result<Pair> {
    let count = u64::try_from(RANDOM_PAIRS.len())?;
    Pair::parse(RANDOM_PAIRS[usize::try_from(seed % count)?])
}

/// The cells of those seeds whose programs are of use.
pub fn cells(tools: &Tools, seeds: &[u64]) -> Result<Vec<Cell>> {
    let making = Making { tools, most: LENGTHS.end, both_ways: true };
    let made =
        in_parallel(seeds, |seed| anyhow::Ok(making.cells(&[(&source(*seed)?, pair(*seed)?)])));
    let mut cells = Vec::new();
    for result in made.into_iter().flatten().flatten() {
        match result {
            Ok(cell) if LENGTHS.contains(&cell.reference.instructions) => cells.push(cell),
            Ok(_) => {}
            // dsu-build must never fail; programs that do not agree with themselves are no matter.
            Err(error) if format!("{error:#}").contains("dsu-build") => return Err(error),
            Err(_) => {}
        }
    }
    Ok(cells)
}

/// Whether csmith is there.
pub fn is_installed() -> bool {
    // It writes a file about the platform where it is started.
    let version =
        Command::new("csmith").arg("--version").current_dir(std::env::temp_dir()).output();
    version.is_ok_and(|o| o.status.success())
}
