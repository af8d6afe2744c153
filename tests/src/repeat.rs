//! The updates of a climb again, each in a fresh process at a random moment of its load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::Rng;

use crate::climb::Applied;
use crate::corpus::Ladder;
use crate::load::Load;
use crate::report::{Report, Verdict};
use crate::scenario::{Fill, Program, Version};
use crate::tool;
use dsu_samples::tools::Tools;

/// The latest moment of the load at which an update comes.
const LATEST_MS: u64 = 300;

/// Repeats the climb's updates `times` times, going around its bundles; one row for all.
pub fn repeat(
    program: &dyn Program,
    ladder: &Ladder,
    applied: &[Applied],
    times: usize,
    tools: &Tools,
    report: &mut Report,
) {
    let key = program.recipe().key;
    if applied.is_empty() {
        report.failure(key, "repeated", &anyhow::anyhow!("no bundle of the climb was applied"));
        return;
    }
    let (mut passed, mut longest) = (0, 0);
    for number in 0..times {
        let update = &applied[number % applied.len()];
        match once(program, ladder, update, tools) {
            Ok(pause) => {
                passed += 1;
                longest = longest.max(pause);
            }
            Err(error) => {
                let case = format!("repeated {}: {}", number + 1, update.new.label());
                report.failure(key, &case, &error);
            }
        }
    }
    if passed > 0 {
        let text =
            format!("{passed} of {times} at random moments of the load; longest pause shown");
        let verdict = if passed == times { Verdict::Passed } else { Verdict::Failed };
        report.add(key, "repeated", verdict, &text, Some(longest));
    }
}

/// A fresh process, its load, the update, more load, and what the process must answer. Gives the pause.
fn once(program: &dyn Program, ladder: &Ladder, update: &Applied, tools: &Tools) -> Result<u64> {
    let mut server = program.start(ladder, &update.old, Fill::Small)?;
    let load = Load::start(server.clients()?);
    load.progress(20)?;
    let moment = rand::rng().random_range(0..LATEST_MS * 1000);
    std::thread::sleep(Duration::from_micros(moment));
    let said = tool::apply(tools, &update.bundle, &server.targets(), &[])?;
    ensure!(said.exit == 0, "{}: {}", said.command, said.summary());
    load.progress(100).with_context(|| format!("after {moment} us of load"))?;
    server.alive()?;
    server.check(Version { ladder, number: update.new.number })?;
    load.finish()?;
    Ok(said.pause_us().unwrap_or(0))
}
