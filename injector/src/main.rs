//! `dsu-apply`: the command line over [`dsu_injector::apply`].

use clap::Parser;
use dsu_injector::{ApplyOptions, ExitCode, apply};
use std::path::PathBuf;
use std::time::Duration;

/// Puts a patch bundle into a running process.
#[derive(Parser)]
#[command(name = "dsu-apply", version, after_help = exit_codes())]
struct Arguments {
    /// The bundle that dsu-build made
    file: PathBuf,
    /// The process to update
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    /// Only say whether it would work now, and what is in the way; change nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for threads that are inside replaced functions
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    timeout: u64,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Also print build ids, functions and the time of each phase
    #[arg(short, long)]
    verbose: bool,
}

fn exit_codes() -> String {
    let mut text = String::from("Exit codes:\n");
    for code in ExitCode::ALL {
        text.push_str(&format!("  {:>2}  {}\n", code.code(), code.meaning()));
    }
    text
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let mut options = ApplyOptions::new(arguments.file, arguments.pid);
    options.dry_run = arguments.dry_run;
    options.timeout = Duration::from_millis(arguments.timeout);
    let outcome = apply(&options);
    if arguments.json {
        println!("{}", outcome.json());
    } else if outcome.result.is_ok() {
        print!("{}", outcome.text(arguments.verbose));
    } else {
        eprint!("{}", outcome.text(arguments.verbose));
    }
    outcome.exit().code().into()
}
