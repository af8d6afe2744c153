//! Is dsu-build's comparison ever wrong? Real programs built twice, shuffled, and mutated.
//!
//! See [`dsu_tests::comparison`].

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use dsu_tests::comparison::{image::Image, mutate, variants};
use dsu_tests::corpus::{Ladder, Recipe, ladder::Builder, needs, programs};
use dsu_tests::report::Report;
use dsu_tests::workspace::{self, Tools};

/// Comparison of real programs with themselves, shuffled and mutated.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these programs (redis7, nginx122, memcached, ...).
    #[arg(long, value_delimiter = ',', value_name = "KEY")]
    only: Vec<String>,
    /// Mutations over all programs together.
    #[arg(long, default_value_t = 100, value_name = "N")]
    mutations: usize,
    /// Chooses other functions.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Only fetch and build.
    #[arg(long)]
    build_only: bool,
}

fn main() -> ExitCode {
    let start = Instant::now();
    let mut report = Report::default();
    if let Err(error) = run(&Arguments::parse(), &mut report) {
        report.failure("suite", "set-up", &error);
    }
    if report.finish(start.elapsed()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let recipes = chosen(arguments)?;
    needs::install(&recipes)?;
    let tools = if arguments.build_only { None } else { Some(workspace::tools()?) };
    let mut builder = Builder::new(&workspace::corpus_dir())?;
    // Spread evenly, the rest over the first.
    let (each, rest) = (arguments.mutations / recipes.len(), arguments.mutations % recipes.len());
    for (index, recipe) in recipes.iter().enumerate() {
        let ladder = match builder.ladder(recipe) {
            Ok(ladder) => ladder,
            Err(error) => {
                report.failure(recipe.key, "fetch and build", &error);
                continue;
            }
        };
        let count = each + usize::from(index < rest);
        match &tools {
            Some(tools) => compare(tools, &ladder, count, arguments.seed, report),
            None => report.outcome(
                recipe.key,
                "variants",
                variants::build(&ladder).map(|_| String::new()),
            ),
        }
    }
    Ok(())
}

fn chosen(arguments: &Arguments) -> Result<Vec<Recipe>> {
    let all: Vec<Recipe> =
        programs::ALL.iter().filter(|r| r.key != programs::OPENSSL.key).copied().collect();
    for key in &arguments.only {
        ensure!(all.iter().any(|r| r.key == key), "no program {key}");
    }
    let only = &arguments.only;
    Ok(all.into_iter().filter(|r| only.is_empty() || only.iter().any(|k| k == r.key)).collect())
}

fn compare(tools: &Tools, ladder: &Ladder, mutations: usize, seed: u64, report: &mut Report) {
    let key = ladder.recipe.key;
    match compared(tools, ladder, mutations, seed, report) {
        Ok(()) => {}
        Err(error) => report.failure(key, "comparison", &error),
    }
}

fn compared(
    tools: &Tools,
    ladder: &Ladder,
    mutations: usize,
    seed: u64,
    report: &mut Report,
) -> Result<()> {
    let key = ladder.recipe.key;
    let dir = tempfile::TempDir::new()?;
    let last = &ladder.steps.last().context("a ladder has steps")?.program;
    let bundle = dir.path().join("bundle");
    match variants::build(ladder) {
        Ok(variants) => {
            let again = variants::same(tools, last, &variants.again, &bundle);
            report.outcome(key, "the same source built again", again);
            let shuffled = variants::same(tools, last, &variants.shuffled, &bundle);
            report.outcome(key, "functions shuffled", shuffled);
        }
        Err(error) => report.failure(key, "variants", &error),
    }
    let image = Image::read(last)?;
    let sites = mutate::choose(&image, mutations, seed);
    let start = Instant::now();
    let mut found = 0;
    for (number, site) in sites.iter().enumerate() {
        match mutate::check(tools, last, &image, site, dir.path(), number) {
            Ok(()) => found += 1,
            Err(error) => report.failure(key, &format!("mutation {number}"), &error),
        }
    }
    if found == sites.len() {
        let lacking = mutate::lacking(&sites);
        let text = format!(
            "{found} of {} found, nothing else ({}), in {} s{}",
            sites.len(),
            mutate::counts(&sites),
            start.elapsed().as_secs(),
            if lacking.is_empty() { String::new() } else { format!("; none of {lacking:?} here") }
        );
        report.outcome(key, "mutations", Ok(text));
    }
    Ok(())
}
