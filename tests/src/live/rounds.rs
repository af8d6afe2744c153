//! One process, one change, OLD to NEW and NEW to OLD, under load, as often as asked for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::build::{self, Builds};
use super::{Expect, Looping, Loops, Variant};
use crate::corpus::Ladder;
use crate::load::Load;
use crate::process::wait_until;
use crate::report::{Report, Verdict};
use crate::tool::{self, Said};
use dsu_samples::tools::Tools;

/// Operations of the load between two updates.
const BETWEEN: u64 = 20;
/// A loop that has not counted after this time does not run in NEW. Some go around once in a second.
const COUNTS_WITHIN: Duration = Duration::from_secs(5);
/// dsu-apply: threads stayed inside replaced functions until the deadline.
const BLOCKED: i32 = 17;

/// Both ways of one change.
struct Bundles {
    there: PathBuf,
    back: PathBuf,
    coverage: String,
}

/// What the updates of one variant came to.
#[derive(Debug, Default)]
struct Figures {
    pauses: Vec<u64>,
    frames: u64,
    attempts: u64,
}

/// Every variant of `loops`, `updates` times each.
pub fn run(
    loops: &dyn Loops,
    ladder: &Ladder,
    updates: usize,
    tools: &Tools,
    bundles: &Path,
    report: &mut Report,
) {
    let key = ladder.recipe.key;
    let builds = match build::make(ladder, loops.variants()) {
        Ok(builds) => builds,
        Err(error) => return report.failure(key, "live: build", &error),
    };
    for variant in loops.variants() {
        let case = format!("live: {}", variant.name);
        match one(loops, &builds, variant, updates, tools, bundles) {
            Ok((text, pause)) => report.add(key, &case, Verdict::Passed, &text, pause),
            Err(error) => report.failure(key, &case, &error),
        }
    }
}

fn one(
    loops: &dyn Loops,
    builds: &Builds,
    variant: &Variant,
    updates: usize,
    tools: &Tools,
    dir: &Path,
) -> Result<(String, Option<u64>)> {
    let (old, new) = (builds.old(), builds.changed(variant));
    let made = make_bundles(&old, &new, tools, dir)?;
    let mut server = loops.start(&old)?;
    // Dropped before the server, or its clients would wait for answers that never come.
    let load = Load::start(server.clients()?);
    load.progress(10 * BETWEEN)?;
    let text = updates_of(loops, server.as_mut(), &load, &made, variant, updates, tools);
    // A process that has ended is the better reason for what a client has seen.
    server.alive()?;
    let (text, pause) = text?;
    let operations = load.finish()?;
    let mut said = format!("{text}; {operations} operations, every reply as expected");
    if variant.expect == Expect::Applied {
        said += &format!("; {}", server.end()?);
    }
    Ok((said, pause))
}

/// The updates; what they came to, and the longest pause.
fn updates_of(
    loops: &dyn Loops,
    server: &mut dyn Looping,
    load: &Load,
    made: &Bundles,
    variant: &Variant,
    updates: usize,
    tools: &Tools,
) -> Result<(String, Option<u64>)> {
    ensure!(server.ask()?.is_none(), "OLD answers as NEW does");
    match variant.expect {
        Expect::Applied => {
            let mut figures = Figures::default();
            // The last one leads to NEW.
            for number in 0..updates | 1 {
                round(loops, server, load, made, tools, number, &mut figures)
                    .with_context(|| format!("update {} of {}", number + 1, updates | 1))?;
            }
            Ok((figures.text(made), figures.pauses.iter().max().copied()))
        }
        Expect::Blocked(function, why) => {
            let said = tool::apply(tools, &made.there, &[server.pid()], &["--timeout", "300"])?;
            let text = blocked(&said, function, why)?;
            load.progress(10 * BETWEEN)?;
            ensure!(server.ask()?.is_none(), "refused, and yet NEW answers");
            Ok((text, None))
        }
    }
}

fn make_bundles(old: &Path, new: &Path, tools: &Tools, dir: &Path) -> Result<Bundles> {
    let (there, back) = (dir.join("there.dsu"), dir.join("back.dsu"));
    let mut shares = Vec::new();
    for (from, to, bundle) in [(old, new, &there), (new, old, &back)] {
        let said = tool::build(tools, from, to, bundle, &[])?;
        ensure!(said.exit == 0, "{}: {}", said.command, said.summary());
        let (sites, of) = said.coverage();
        shares.push(format!("{sites}/{of}"));
    }
    let coverage = format!("sites {}", shares.join(" and back "));
    Ok(Bundles { there, back, coverage })
}

/// One update; then the load goes on, and the old connection tells which version runs.
fn round(
    loops: &dyn Loops,
    server: &mut dyn Looping,
    load: &Load,
    bundles: &Bundles,
    tools: &Tools,
    number: usize,
    figures: &mut Figures,
) -> Result<()> {
    let to_new = number.is_multiple_of(2);
    let bundle = if to_new { &bundles.there } else { &bundles.back };
    let said = tool::apply(tools, bundle, &[server.pid()], &[])?;
    if said.exit != 0 {
        server.alive()?;
        load.check()?;
        bail!("{}; {}: {}", bundles.coverage, said.command, said.summary());
    }
    figures.add(&said);
    load.progress(BETWEEN)?;
    if !to_new {
        ensure!(server.ask()?.is_none(), "NEW answers after the way back");
        return Ok(());
    }
    let mut seen = Vec::new();
    let result = wait_until(COUNTS_WITHIN, "every loop runs in NEW", || match server.ask() {
        Ok(Some(counts)) => {
            let all = counts.iter().all(|n| *n > 0);
            seen = counts;
            all
        }
        _ => false,
    });
    let named: Vec<String> =
        loops.loops().iter().zip(&seen).map(|(name, n)| format!("{name} {n}")).collect();
    result.with_context(|| format!("on a connection opened before: {}", named.join(", ")))?;
    ensure!(seen.len() == loops.loops().len(), "an answer of {} numbers", seen.len());
    Ok(())
}

/// Asks that the update was refused for this reason.
fn blocked(said: &Said, function: &str, why: &str) -> Result<String> {
    ensure!(said.exit == BLOCKED, "expected a refusal: {}: {}", said.command, said.summary());
    let reasons = said.blocked_by(function);
    let found = reasons.iter().find(|reason| reason.contains(why));
    let found = found.with_context(|| {
        format!("{function} should be in the way because of {why}: {}", said.summary())
    })?;
    Ok(format!("refused, as it must: {function}: {found}"))
}

impl Figures {
    fn add(&mut self, said: &Said) {
        self.pauses.push(said.pause_us().unwrap_or(0));
        self.frames += said.json["frames_pending"].as_u64().unwrap_or(0);
        self.attempts += said.json["attempts"].as_u64().unwrap_or(0);
    }

    fn text(&self, bundles: &Bundles) -> String {
        let mut sorted = self.pauses.clone();
        sorted.sort_unstable();
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0);
        format!(
            "{} applied, 0 refused, pauses {}/{}/{} us (min/median/max), {} frames carried, {} attempts, {}",
            sorted.len(),
            at(0),
            at(sorted.len() / 2),
            at(sorted.len().saturating_sub(1)),
            self.frames,
            self.attempts,
            bundles.coverage
        )
    }
}
