//! redis' own tests, from its source tree, against a server that is already running.

use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::redis::Redis;
use super::{Fill, Program, Updates};
use crate::corpus::{Ladder, shell, tail};

/// A test that came with a fix: it fails before and passes after.
struct FixTest {
    patch: &'static str,
    unit: &'static str,
    test: &'static str,
}

const FIX_TESTS: &[FixTest] = &[
    FixTest {
        patch: "0001-Apply-security-fixes",
        unit: "unit/scripting",
        test: "lua bit.tohex bug",
    },
    FixTest {
        patch: "0001-Apply-security-fixes",
        unit: "unit/keyspace",
        test: "Regression for pattern matching very long nested loops",
    },
    FixTest {
        patch: "0006-CVE-2025-32023",
        unit: "unit/hyperloglog",
        test: "Corrupted sparse HyperLogLogs doesn't cause overflow and out-of-bounds with XZERO opcode",
    },
    FixTest {
        patch: "0006-CVE-2025-32023",
        unit: "unit/hyperloglog",
        test: "Corrupted sparse HyperLogLogs doesn't cause overflow and out-of-bounds with ZERO opcode",
    },
    FixTest {
        patch: "CVE-2025-46817",
        unit: "unit/scripting",
        test: "EVAL - Test table unpack with invalid indexes",
    },
    FixTest {
        patch: "CVE-2025-67733",
        unit: "unit/functions",
        test: "FUNCTION - test function list with CRLF injection attempt",
    },
];

/// Units of the package that pass against a running server; the whole of each.
const UNITS: &[&str] = &["unit/dump", "unit/type/list", "unit/hyperloglog"];

/// Fails before and after: the version number in its payload is newer than 7.0's.
const LEFT_OUT: &str = "RESTORE fail with invalid payload size";

/// The whole units, against the server at the end of the ladder.
pub fn units(tree: &Path, port: u16) -> Vec<(String, Result<String>)> {
    let run = |unit: &&str| {
        let result = runtest(tree, port, unit, &format!("--skiptest \"{LEFT_OUT}\""));
        let result = result.map(|n| format!("{n} tests pass (without \"{LEFT_OUT}\")"));
        (format!("runtest {unit}"), result)
    };
    UNITS.iter().map(run).collect()
}

/// Each fix's own test: fails in a process of the build before, passes in one that was updated live.
/// These tests empty the server, so they have processes of their own.
pub fn fixes(
    program: &Redis,
    ladder: &Ladder,
    updates: Option<&Updates<'_>>,
) -> Vec<(String, Result<String>)> {
    let run = |fix: &FixTest| {
        let name: String = fix.test.chars().take(30).collect();
        (format!("own test: {name}"), flips(program, ladder, updates, fix))
    };
    FIX_TESTS.iter().map(run).collect()
}

fn flips(
    program: &Redis,
    ladder: &Ladder,
    updates: Option<&Updates<'_>>,
    fix: &FixTest,
) -> Result<String> {
    let position = ladder.steps.iter().position(|s| s.patch.starts_with(fix.patch));
    let Some(position) = position else { bail!("the ladder has no {}", fix.patch) };
    let only = format!("--only \"{}\"", fix.test);
    let before = program.start(ladder, &ladder.steps[position - 1], Fill::Nothing)?;
    let failed = runtest(&ladder.tree, before.port(), fix.unit, &only);
    ensure!(failed.is_err(), "passes already before {}", fix.patch);
    drop(before);
    let (after, how) = match updates {
        Some(updates) => (updates.process(program, ladder, fix.patch)?, "in the updated process"),
        None => {
            (program.start(ladder, &ladder.steps[position], Fill::Nothing)?, "in the build after")
        }
    };
    runtest(&ladder.tree, after.port(), fix.unit, &only)?;
    Ok(format!("fails before {}, passes {how}", fix.patch))
}

/// Runs one unit; gives the number of tests that passed, at least one.
fn runtest(tree: &Path, port: u16, unit: &str, options: &str) -> Result<usize> {
    let log = tree.join("runtest.log");
    let _ = std::fs::remove_file(&log);
    let line =
        format!("timeout 240 ./runtest --host 127.0.0.1 --port {port} --single {unit} {options}");
    shell(&line, tree, &log)?;
    let text = std::fs::read_to_string(&log)?;
    // The word is coloured.
    let passed = text.lines().filter(|l| l.starts_with('[') && l.contains("ok\u{1b}[0m]")).count();
    ensure!(passed > 0 && text.contains("All tests passed"), "{}", tail(&log, 20));
    Ok(passed)
}
