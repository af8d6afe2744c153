//! Takes other people's servers up their ladders of fixes, in running processes, under load.
//!
//! See the crate's documentation for what it needs and what it shows.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use dsu_samples::tools::Tools;
use dsu_tests::comparison::variants::{self, Variants};
use dsu_tests::corpus::programs::{OPENSSL, POSTGRESQL};
use dsu_tests::corpus::{Ladder, Recipe, ladder::Builder, needs};
use dsu_tests::report::Report;
use dsu_tests::scenario::{self, Program, postgresql};
use dsu_tests::{climb, comparison, live, load, repeat, workspace};

/// Live updates of real programs: fetched, built, updated while they run.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these programs (redis7, nginx122, memcached, ...). postgresql15 is in no other run: its server takes
    /// minutes to build.
    #[arg(long, value_delimiter = ',', value_name = "KEY")]
    only: Vec<String>,
    /// Repetitions at random moments of the load, for redis7, nginx122 and memcached.
    #[arg(long, default_value_t = 20, value_name = "N")]
    repeat: usize,
    /// Updates of each changed loop, back and forth in one process. Not in the default run yet: not all of
    /// these changes can be carried over.
    #[arg(long, default_value_t = 0, value_name = "N")]
    live: usize,
    /// Of the updates, only those of changed loops.
    #[arg(long)]
    live_only: bool,
    /// Mutations for the comparison suite, over all programs together; 0 leaves that suite out.
    #[arg(long, default_value_t = 100, value_name = "N")]
    mutations: usize,
    /// Only fetch and build.
    #[arg(long)]
    build_only: bool,
    /// Update nothing: start each build by itself, and ask whether the oracles flip where they should.
    #[arg(long)]
    oracles_only: bool,
}

fn main() -> ExitCode {
    let start = Instant::now();
    let mut report = Report::default();
    match run(&Arguments::parse(), &mut report) {
        Ok(()) => {}
        Err(error) => report.failure("suite", "set-up", &error),
    }
    if report.finish(start.elapsed()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let programs = chosen(arguments)?;
    let mut recipes: Vec<Recipe> = programs.iter().map(|p| *p.recipe()).collect();
    let postgresql = arguments.only.iter().any(|key| key == POSTGRESQL.key);
    recipes.extend(postgresql.then_some(POSTGRESQL));
    needs::install(&recipes)?;
    let Builds { ladders, climbed, variants } = build_in_background(recipes);
    let compared = arguments.mutations > 0 && !arguments.live_only;
    let updates = !arguments.build_only && !arguments.oracles_only;
    let tools = if updates { Some(Tools::ready()?) } else { None };
    let bundles = tempfile::TempDir::new()?;
    let mut kept: Vec<Ladder> = Vec::new();
    let mut early: HashMap<&str, Result<Ladder>> = HashMap::new();
    for program in programs {
        let key = program.recipe().key;
        let Some(ladder) = wait_for(key, &ladders, &mut early, report)? else { continue };
        println!("{key}: {} steps of {}", ladder.steps.len() - 1, ladder.version);
        if ladder.version != program.recipe().version && !ladder.version.contains(" and ") {
            println!(
                "{key}: not had: {}; had {} instead",
                program.recipe().version,
                ladder.version
            );
        }
        if arguments.oracles_only {
            climb::oracles_alone(program, &ladder, report);
        }
        let Some(tools) = &tools else { continue };
        if let Some(loops) = program.loops()
            && arguments.live > 0
        {
            live::rounds::run(loops, &ladder, arguments.live, tools, bundles.path(), report);
        }
        if arguments.live_only {
            continue;
        }
        let applied = climb::climb(program, &ladder, tools, bundles.path(), report);
        if program.repeated() && arguments.repeat > 0 {
            repeat::repeat(program, &ladder, &applied, arguments.repeat, tools, report);
        }
        // The comparison suite is for executables.
        if compared && key != OPENSSL.key {
            climbed.send(ladder.clone()).context("the builder ended early")?;
            kept.push(ladder);
        }
    }
    if postgresql
        && let Some(ladder) = wait_for(POSTGRESQL.key, &ladders, &mut early, report)?
        && let Some(tools) = &tools
    {
        postgresql::run(&ladder, tools, report);
    }
    drop(climbed);
    for (index, ladder) in kept.iter().enumerate() {
        let Some(tools) = &tools else { break };
        let built = variants.recv().context("the builder ended early")?;
        let count = comparison::share(arguments.mutations, kept.len(), index);
        comparison::run(tools, ladder, built, (count, 1), report);
    }
    Ok(())
}

/// The ladder of this key, once it is built; a build that fails is in the report.
fn wait_for(
    key: &str,
    ladders: &Receiver<(&'static str, Result<Ladder>)>,
    early: &mut HashMap<&str, Result<Ladder>>,
    report: &mut Report,
) -> Result<Option<Ladder>> {
    while !early.contains_key(key) {
        let (built, ladder) = ladders.recv().context("the builder ended early")?;
        early.insert(built, ladder);
    }
    let ladder = early.remove(key).context("just received")?;
    Ok(ladder.map_err(|error| report.failure(key, "fetch and build", &error)).ok())
}

fn chosen(arguments: &Arguments) -> Result<Vec<&'static dyn Program>> {
    let all = scenario::all();
    for key in &arguments.only {
        let known = all.iter().map(|p| p.recipe().key);
        let known: Vec<&str> = known.chain([POSTGRESQL.key]).collect();
        ensure!(known.contains(&key.as_str()), "no program {key}; there are {}", known.join(", "));
    }
    let wanted = |key: &str| match arguments.only.as_slice() {
        [] => true,
        only => only.iter().any(|k| k == key),
    };
    Ok(all.into_iter().filter(|p| wanted(p.recipe().key)).collect())
}

/// What is built on a thread of its own.
struct Builds {
    /// The ladders, in order.
    ladders: Receiver<(&'static str, Result<Ladder>)>,
    /// Ladders that nobody needs the tree of any more.
    climbed: Sender<Ladder>,
    /// The variants of these, in their order.
    variants: Receiver<Result<Variants>>,
}

/// Builds the ladders on a thread, in order, while those that are ready are climbed; then their variants.
fn build_in_background(recipes: Vec<Recipe>) -> Builds {
    let (ladder_sender, ladders) = channel();
    let (climbed, climbed_receiver) = channel();
    let (variants_sender, variants) = channel();
    std::thread::spawn(move || {
        // What a climb does has limits in time; a climb that waits for its ladder leaves it the processors.
        load::yield_to_others();
        let mut builder = Builder::new(&workspace::corpus_dir());
        for recipe in recipes {
            let ladder = match &mut builder {
                Ok(builder) => builder.ladder(&recipe),
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            if ladder_sender.send((recipe.key, ladder)).is_err() {
                return;
            }
        }
        for ladder in climbed_receiver {
            if variants_sender.send(variants::build(&ladder)).is_err() {
                return;
            }
        }
    });
    Builds { ladders, climbed, variants }
}
