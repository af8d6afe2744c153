//! Programs updated after their k-th instruction: see [`dsu_tests::torture`].

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::Parser;

use dsu_samples::tools::Tools;
use dsu_tests::torture::builds::{self, Cell, Making, Source};
use dsu_tests::torture::moments::{self, Choice, Moment, Moments};
use dsu_tests::torture::parallel::{locked, seconds};
use dsu_tests::torture::random;
use dsu_tests::torture::suite::{self, Bounds};
use dsu_tests::torture::tally::Tally;
use dsu_tests::torture::variants::{MORE_PAIRS, PAIRS, Pair};

/// Programs of more instructions than this are not counted to their end.
const MOST_INSTRUCTIONS: u64 = 500_000;

/// Updates after the k-th instruction, of programs made for it and of random ones.
#[derive(Debug, Parser)]
struct Arguments {
    /// After every instruction of every program, however long it takes.
    #[arg(long)]
    exhaustive: bool,
    /// Only these programs; `random-N` is csmith's of seed N.
    #[arg(long, value_delimiter = ',', value_name = "P")]
    program: Vec<String>,
    /// Only these pairs of builds, OLD:NEW.
    #[arg(long, value_delimiter = ',', value_name = "A:B")]
    pair: Vec<String>,
    /// Pairs that leave out or add single optimizations, too.
    #[arg(long)]
    more_pairs: bool,
    /// Only so many programs in a pair of builds, chosen by the seed: a short time comes to no more of them.
    #[arg(long, value_name = "N")]
    cells: Option<usize>,
    /// Only after this instruction.
    #[arg(long, value_name = "K")]
    step: Option<u64>,
    /// With --step: updates in turn, there and back.
    #[arg(long, default_value_t = 1, value_name = "N")]
    hops: u32,
    /// With --step: let the process run on to where it can be updated; else judge it where it stands.
    #[arg(long)]
    run_on: bool,
    /// Tries of one update, a few instructions apart; 1 when exhaustive.
    #[arg(long, value_name = "N")]
    tries: Option<u32>,
    /// Chooses other moments and other random programs.
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// For the torture programs, once they are built.
    #[arg(long, default_value_t = 60, value_name = "T")]
    seconds: u64,
    /// Updates of csmith's programs.
    #[arg(long, default_value_t = 0, value_name = "N")]
    csmith: u64,
    /// Fail when more of csmith's updates than this are refused.
    #[arg(long, default_value_t = 100, value_name = "PERCENT")]
    most_refused: u64,
}

fn main() -> ExitCode {
    let start = Instant::now();
    let arguments = Arguments::parse();
    let tally = Mutex::new(Tally::default());
    if let Err(error) = run(&arguments, &tally) {
        println!("FAILED: {error:#}");
        locked(&tally).failure();
    }
    let tally = locked(&tally);
    let total = tally.total();
    println!("{}", tally.text());
    println!("took {} s", start.elapsed().as_secs());
    println!("{} passed, {} failed", total.trials.saturating_sub(total.diverged), total.diverged);
    if total.diverged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(arguments: &Arguments, tally: &Mutex<Tally>) -> Result<()> {
    let tools = Tools::ready()?;
    let (random_names, names): (Vec<&String>, Vec<&String>) =
        arguments.program.iter().partition(|p| p.starts_with(random::PREFIX));
    let fixed = arguments.program.is_empty() || !names.is_empty();
    if fixed {
        let cells = torture_cells(&tools, arguments, &names, tally)?;
        let choice = choice(arguments);
        let bounds = Bounds {
            until: seconds(if arguments.exhaustive {
                u64::from(u32::MAX)
            } else {
                arguments.seconds
            }),
            updates: u64::MAX,
            tries: tries(arguments),
        };
        suite::run(&cells, &Moments::new(choice, &cells), bounds, tally);
    }
    if arguments.csmith > 0 || !random_names.is_empty() {
        csmith(&tools, arguments, &random_names, tally)?;
    }
    Ok(())
}

fn choice(arguments: &Arguments) -> Choice {
    match arguments.step {
        Some(step) => Choice::One(Moment { step, hops: arguments.hops, run_on: arguments.run_on }),
        None if arguments.exhaustive => Choice::Every,
        None => Choice::Random { seed: arguments.seed },
    }
}

fn tries(arguments: &Arguments) -> u32 {
    arguments.tries.unwrap_or(if arguments.exhaustive { 1 } else { 8 })
}

/// Builds the programs of `tests/torture`.
fn torture_cells(
    tools: &Tools,
    arguments: &Arguments,
    names: &[&String],
    tally: &Mutex<Tally>,
) -> Result<Vec<Cell>> {
    let mut sources = builds::sources()?;
    for name in names {
        ensure!(sources.iter().any(|s| s.name == **name), "no program {name}");
    }
    sources.retain(|s| names.is_empty() || names.contains(&&s.name));
    let texts: Vec<&str> = match arguments.pair.is_empty() {
        true if arguments.more_pairs => [PAIRS, MORE_PAIRS].concat(),
        true => PAIRS.to_vec(),
        false => arguments.pair.iter().map(String::as_str).collect(),
    };
    let pairs: Vec<Pair> = texts.into_iter().map(Pair::parse).collect::<Result<_>>()?;
    let start = Instant::now();
    let mut wanted: Vec<(&Source, Pair)> =
        pairs.iter().flat_map(|pair| sources.iter().map(move |source| (source, *pair))).collect();
    if let Some(count) = arguments.cells {
        moments::shuffle(arguments.seed, &mut wanted);
        wanted.truncate(count);
    }
    // All pairs together have most ways back; a few may each be gone through there and back.
    let both_ways = !arguments.pair.is_empty() || arguments.cells.is_some();
    let making = Making { tools, most: MOST_INSTRUCTIONS, both_ways };
    let made = making.cells(&wanted);
    let mut cells = Vec::new();
    for result in made {
        match result {
            Ok(cell) => {
                locked(tally).cell(&cell);
                cells.push(cell);
            }
            Err(error) => {
                println!("FAILED: {error:#}");
                locked(tally).failure();
            }
        }
    }
    let steps: u64 = cells.iter().map(|c| c.reference.instructions).sum();
    println!(
        "{} cells of {} programs in {} pairs, {steps} instructions, built in {} s",
        cells.len(),
        sources.len(),
        pairs.len(),
        start.elapsed().as_secs()
    );
    Ok(cells)
}

/// Updates csmith's programs.
fn csmith(
    tools: &Tools,
    arguments: &Arguments,
    names: &[&String],
    tally: &Mutex<Tally>,
) -> Result<()> {
    if !random::is_installed() {
        bail!("csmith is not installed: apt-get install csmith libcsmith-dev");
    }
    let start = Instant::now();
    // Some two thirds of the seeds give programs of use.
    let first = arguments.seed * 1_000_000;
    let seeds: Vec<u64> = match names.is_empty() {
        true => (first..first + (arguments.csmith / 25).max(4)).collect(),
        false => {
            names.iter().map(|n| Ok(n[random::PREFIX.len()..].parse()?)).collect::<Result<_>>()?
        }
    };
    let cells = random::cells(tools, &seeds)?;
    cells.iter().for_each(|cell| locked(tally).cell(cell));
    println!(
        "{} random programs of {} seeds, built in {} s",
        cells.len(),
        seeds.len(),
        start.elapsed().as_secs()
    );
    let before = locked(tally).total();
    let updates = if names.is_empty() { arguments.csmith } else { arguments.csmith.max(100) };
    let bounds = Bounds { until: seconds(3600), updates, tries: tries(arguments) };
    suite::run(&cells, &Moments::new(choice(arguments), &cells), bounds, tally);
    let after = locked(tally).total();
    let (applied, refused) = (after.applied - before.applied, after.refused - before.refused);
    let percent = (refused * 100).checked_div(applied + refused).unwrap_or(100);
    println!("csmith: {applied} updates applied, {refused} refused ({percent} %)");
    ensure!(
        arguments.step.is_some() || percent <= arguments.most_refused,
        "{percent} % of csmith's updates were refused"
    );
    Ok(())
}
