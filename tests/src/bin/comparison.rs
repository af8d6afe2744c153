//! Is dsu-build's comparison ever wrong? Real programs built twice, shuffled, and mutated.
//!
//! See [`dsu_tests::comparison`].

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;

use dsu_samples::tools::Tools;
use dsu_tests::comparison::{self, share, variants};
use dsu_tests::corpus::{Recipe, ladder::Builder, needs, programs};
use dsu_tests::report::Report;
use dsu_tests::workspace;

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
    let tools = if arguments.build_only { None } else { Some(Tools::ready()?) };
    let mut builder = Builder::new(&workspace::corpus_dir())?;
    for (index, recipe) in recipes.iter().enumerate() {
        let ladder = match builder.ladder(recipe) {
            Ok(ladder) => ladder,
            Err(error) => {
                report.failure(recipe.key, "fetch and build", &error);
                continue;
            }
        };
        let count = share(arguments.mutations, recipes.len(), index);
        let built = variants::build(&ladder);
        match &tools {
            Some(tools) => {
                comparison::run(tools, &ladder, built, (count, arguments.seed), report);
            }
            None => report.outcome(recipe.key, "variants", built.map(|_| String::new())),
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
