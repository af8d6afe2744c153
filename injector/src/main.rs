//! `dsu-apply`: the command line over [`dsu_injector::apply`].

use clap::Parser;
use dsu_injector::{ApplyOptions, ExitCode, apply, inspect};
use dsu_patch_format::PublicKey;
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
    #[arg(required_unless_present = "inspect")]
    pid: Option<i32>,
    /// Show what is in the bundle; needs no process (with --verbose also every entry and table)
    #[arg(long, conflicts_with_all = ["pid", "dry_run"])]
    inspect: bool,
    /// Refuse a bundle that is not signed by this Ed25519 key (public, PEM); several: by one of them
    #[arg(long, value_name = "PUBKEY", value_parser = public_key)]
    require_signature: Vec<PublicKey>,
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

fn public_key(path: &str) -> Result<PublicKey, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    PublicKey::from_pem(&text).map_err(|e| e.to_string())
}

/// What is in the bundle.
fn show(arguments: &Arguments) -> ExitCode {
    match inspect(&arguments.file, &arguments.require_signature) {
        Ok(found) if arguments.json => println!("{}", found.json(arguments.verbose)),
        Ok(found) => print!("{}", found.text(arguments.verbose)),
        Err(error) => {
            if arguments.json {
                println!("{}", serde_json::json!({ "error": error.json() }));
            } else {
                eprintln!("{}: {error}", arguments.file.display());
            }
            return error.exit();
        }
    }
    ExitCode::Updated
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    // Without a process there is nothing but to look.
    let Some(pid) = arguments.pid else { return show(&arguments).code().into() };
    let mut options = ApplyOptions::new(arguments.file, pid);
    options.required_keys = arguments.require_signature;
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
