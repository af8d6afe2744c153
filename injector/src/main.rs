//! `dsu-apply`: the command line over [`dsu_injector::apply`].

use clap::Parser;
use dsu_injector::ptrace::guardian::guarded;
use dsu_injector::recover::recover;
use dsu_injector::{ApplyOptions, ExitCode, apply, inspect};
use dsu_patch_format::PublicKey;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Puts a patch bundle into a running process.
#[derive(Parser)]
#[command(name = "dsu-apply", version, after_help = exit_codes())]
struct Arguments {
    /// The bundle that dsu-build made
    #[arg(required_unless_present = "recover")]
    file: Option<PathBuf>,
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
    /// Put right what a dsu-apply has left behind in the process that was killed
    #[arg(long, conflicts_with_all = ["file", "dry_run", "inspect"])]
    recover: bool,
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
fn show(arguments: &Arguments, file: &Path) -> ExitCode {
    match inspect(file, &arguments.require_signature) {
        Ok(found) if arguments.json => say(&format!("{}\n", found.json(arguments.verbose))),
        Ok(found) => say(&found.text(arguments.verbose)),
        Err(error) => {
            if arguments.json {
                say(&format!("{}\n", serde_json::json!({ "error": error.json() })));
            } else {
                complain(&format!("{}: {error}\n", file.display()));
            }
            return error.exit();
        }
    }
    ExitCode::Updated
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    // Without a process there is nothing but to look, and without a bundle nothing but to put right.
    let (Some(file), Some(pid)) = (arguments.file.clone(), arguments.pid) else {
        return match (&arguments.file, arguments.pid) {
            (Some(file), _) => show(&arguments, file).code(),
            (None, Some(pid)) => guarded(|| put_right(&arguments, pid), || after_death(pid)),
            (None, None) => ExitCode::Usage.code(),
        }
        .into();
    };
    let mut options = ApplyOptions::new(file, pid);
    options.required_keys.clone_from(&arguments.require_signature);
    options.dry_run = arguments.dry_run;
    options.timeout = Duration::from_millis(arguments.timeout);
    let work = || {
        let outcome = apply(&options);
        if arguments.json {
            say(&format!("{}\n", outcome.json()));
        } else if outcome.result.is_ok() {
            say(&outcome.text(arguments.verbose));
        } else {
            complain(&outcome.text(arguments.verbose));
        }
        outcome.exit().code()
    };
    guarded(work, || after_death(options.pid)).into()
}

fn put_right(arguments: &Arguments, pid: i32) -> u8 {
    let (done, exit, error) = match recover(pid) {
        Ok(recovered) => {
            if !arguments.json {
                say(&recovered.text(pid));
            }
            (recovered.done, ExitCode::Updated, None)
        }
        Err(e) => {
            if !arguments.json {
                complain(&format!("process {pid} not put right: {e}\n"));
            }
            (Vec::new(), e.exit(), Some(e.to_string()))
        }
    };
    if arguments.json {
        let report = serde_json::json!({ "pid": pid, "exit": exit.code(), "recovered": done, "error": error });
        say(&format!("{report}\n"));
    }
    exit.code()
}

/// Puts right what a guardian has left behind that was killed.
fn after_death(pid: i32) -> u8 {
    match recover(pid) {
        Ok(recovered) => complain(&format!("dsu-apply was killed. {}", recovered.text(pid))),
        Err(e) => {
            complain(&format!("dsu-apply was killed, and process {pid} is not put right: {e}\n"))
        }
    }
    ExitCode::Internal.code()
}

/// Nobody may listen any more: that is no reason to fail.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
