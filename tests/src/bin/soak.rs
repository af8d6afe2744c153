//! One server updated for a long time, and its tool killed: see [`dsu_tests::soak`].

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;

use dsu_samples::tools::Tools;
use dsu_tests::soak::rounds::Plan;
use dsu_tests::soak::server::Builds;
use dsu_tests::soak::{kills, rounds};

/// A server of 16 threads under load: updates and reverts for minutes, and SIGKILLs of the tool.
#[derive(Debug, Parser)]
struct Arguments {
    /// Updates and reverts for so long
    #[arg(long, default_value_t = 0, value_name = "N")]
    minutes: u64,
    /// The same in seconds
    #[arg(long, default_value_t = 0, value_name = "N")]
    seconds: u64,
    /// SIGKILLs of dsu-apply and its guardian
    #[arg(long, default_value_t = 0, value_name = "N")]
    kills: usize,
    /// Chooses other rounds and other instants
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
}

fn main() -> ExitCode {
    let start = Instant::now();
    let arguments = Arguments::parse();
    let result = run(&arguments);
    println!("took {} s", start.elapsed().as_secs());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let tools = Tools::ready()?;
    let builds = Builds::make(&tools)?;
    let seconds = Duration::from_secs(arguments.minutes * 60 + arguments.seconds);
    if !seconds.is_zero() {
        let rest = (seconds / 10).clamp(Duration::from_secs(2), Duration::from_secs(20));
        rounds::run(&tools, &builds, Plan { rounds: seconds, rest, seed: arguments.seed })?;
    }
    if arguments.kills > 0 {
        kills::run(&tools, &builds, arguments.kills, arguments.seed)?;
    }
    Ok(())
}
