//! `dsu-apply`: the command line over [`dsu_injector::apply`].

use clap::{ArgGroup, Parser};
use dsu_injector::log::Log;
use dsu_injector::ptrace::gate::Suspend;
use dsu_injector::ptrace::guardian::guarded;
use dsu_injector::ptrace::keep::{self, Reach};
use dsu_injector::recover::recover;
use dsu_injector::status::status;
use dsu_injector::{
    ApplyError, ApplyOptions, ExitCode, Outcome, apply, fleet, inspect, probe, read_bundle, revert,
};
use dsu_patch_format::PublicKey;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Puts a patch bundle into running processes, shows what runs in them, takes updates back.
#[derive(Parser)]
#[command(name = "dsu-apply", version, after_help = exit_codes())]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["file", "status", "recover", "revert"]))]
#[command(group = ArgGroup::new("whom").required(true).multiple(true).args(["pid", "all", "inspect"]))]
struct Arguments {
    /// The bundle that dsu-build made
    file: Option<PathBuf>,
    /// The process to update; may be given many times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Vec<i32>,
    /// Update every process that runs the build that the bundle is for
    #[arg(long, requires = "file", conflicts_with_all = ["pid", "status", "recover", "inspect"])]
    all: bool,
    /// Also update the descendants of the named processes that run that build
    #[arg(long, requires = "file", conflicts_with_all = ["all", "inspect"])]
    tree: bool,
    /// Show what is in the bundle; needs no process (with --verbose also every entry and table)
    #[arg(long, requires = "file", conflicts_with_all = ["pid", "dry_run"])]
    inspect: bool,
    /// Show what runs in the process: build, updates in order, frames that still wait
    #[arg(long, conflicts_with_all = ["file", "dry_run", "recover", "revert"])]
    status: bool,
    /// Take the last update back. Without FILE: from what the process itself holds, once no thread is
    /// inside of new code; with FILE, a bundle from NEW to OLD: frames included
    #[arg(long, conflicts_with_all = ["recover", "all", "inspect"])]
    revert: bool,
    /// Put right what a dsu-apply has left behind in the process that was killed
    #[arg(long, conflicts_with_all = ["file", "dry_run", "inspect"])]
    recover: bool,
    /// Refuse a bundle that is not signed by this Ed25519 key (public, PEM); several: by one of them
    #[arg(long, value_name = "PUBKEY", value_parser = public_key)]
    require_signature: Vec<PublicKey>,
    /// After the update, run this shell command until it succeeds (the process's id is in DSU_PID)
    #[arg(long, value_name = "CMD", requires = "file", conflicts_with = "dry_run")]
    wait_healthy: Option<String>,
    /// How long to wait for that
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    healthy_within: u64,
    /// Take the update back if it does not succeed
    #[arg(long, requires = "wait_healthy")]
    revert_on_failure: bool,
    /// Suspend a seccomp filter that would kill the process for the system calls of the update: if dsu-guardian
    /// is killed by SIGKILL within one of them, the process is killed, too
    #[arg(long)]
    suspend_seccomp: bool,
    /// Leave no dsu-keeper behind, which keeps the time-outs of system calls under way: those that end within two
    /// seconds are waited for, the others begin anew, and come late
    #[arg(long)]
    no_keeper: bool,
    /// Only say whether it would work now, and what is in the way; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Where the bundle was applied before: its new variables go on with the values that they had then, even
    /// if these may be stale addresses; else such a bundle takes new memory, and they begin anew
    #[arg(long, requires = "file")]
    keep_variables: bool,
    /// How long to wait for threads that are inside replaced functions
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    timeout: u64,
    /// Append every step with its time to a file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
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

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    if let (true, Some(file)) = (arguments.inspect, &arguments.file) {
        return show(&arguments, file).code().into();
    }
    let log = match arguments.log.as_deref().map(Log::to).transpose() {
        Ok(log) => log.unwrap_or_default(),
        Err(e) => {
            complain(&format!("open the log: {e}\n"));
            return ExitCode::Usage.code().into();
        }
    };
    let mut options = ApplyOptions::new(arguments.file.clone().unwrap_or_default(), 0);
    options.required_keys.clone_from(&arguments.require_signature);
    options.dry_run = arguments.dry_run;
    options.timeout = Duration::from_millis(arguments.timeout);
    options.back = arguments.revert;
    if arguments.suspend_seccomp {
        options.suspend = Suspend::Always;
    }
    options.keep_variables = arguments.keep_variables;
    options.log = log;
    let pids = match processes(&arguments, &options) {
        Ok(pids) => pids,
        Err(e) => {
            let mut outcome = Outcome::new(0, arguments.dry_run);
            outcome.result = Err(e);
            return report(&arguments, &[outcome]).into();
        }
    };
    let each = |work: &dyn Fn(i32) -> ExitCode| {
        let codes: Vec<_> = pids.iter().map(|pid| work(*pid)).collect();
        let same = codes.first().filter(|first| codes.iter().all(|code| code == *first));
        same.copied().unwrap_or(ExitCode::Mixed).code()
    };
    let work = || match (arguments.status, arguments.recover) {
        (true, _) => each(&|pid| tell_status(&arguments, pid)),
        (_, true) => each(&|pid| put_right(&arguments, pid)),
        _ => {
            let outcomes = several(&arguments, &options, &pids);
            report(&arguments, &outcomes)
        }
    };
    if !arguments.no_keeper {
        keep::set_reach(Reach::All);
    }
    guarded(work, || after_death(&pids)).into()
}

/// Which processes.
fn processes(arguments: &Arguments, options: &ApplyOptions) -> Result<Vec<i32>, ApplyError> {
    if !arguments.all && !arguments.tree {
        return Ok(arguments.pid.clone());
    }
    let (bundle, _) = read_bundle(options)?;
    if arguments.all {
        let found = fleet::running_old(&bundle);
        if found.is_empty() {
            let what =
                format!("build {} of {}", bundle.manifest.old.build_id, bundle.manifest.old.file);
            return Err(ApplyError::NoProcess(format!("no process runs {what}")));
        }
        return Ok(found);
    }
    let mut found = fleet::tree(&arguments.pid);
    found.retain(|pid| fleet::runs_old(*pid, &bundle));
    // If there is none, each of the named ones has its reason.
    Ok(if found.is_empty() { arguments.pid.clone() } else { found })
}

/// How often it is looked for processes that were forked, by one that still ran OLD, while others were updated.
const LOOKS: usize = 5;

/// Updates or reverts all of them; of a tree, or of all that run OLD, those as well that have just come.
fn several(arguments: &Arguments, options: &ApplyOptions, pids: &[i32]) -> Vec<Outcome> {
    let mut outcomes: Vec<_> = pids.iter().map(|pid| one(arguments, options, *pid)).collect();
    if !arguments.all && !arguments.tree || arguments.dry_run {
        return outcomes;
    }
    for _ in 0..LOOKS {
        let mut found = processes(arguments, options).unwrap_or_default();
        // Where none runs OLD any more, the named ones are given.
        found.retain(|pid| !arguments.pid.contains(pid) && outcomes.iter().all(|o| o.pid != *pid));
        if found.is_empty() {
            break;
        }
        outcomes.extend(found.iter().map(|pid| one(arguments, options, *pid)));
    }
    fleet::forget_ended(&mut outcomes, &arguments.pid);
    outcomes
}

/// Updates or reverts one process.
fn one(arguments: &Arguments, options: &ApplyOptions, pid: i32) -> Outcome {
    let options = ApplyOptions { pid, ..options.clone() };
    let mut outcome = match &arguments.file {
        Some(_) => apply(&options),
        None => revert(&options),
    };
    if let (Some(command), Ok(())) = (&arguments.wait_healthy, &outcome.result) {
        let within = Duration::from_millis(arguments.healthy_within);
        if let Err(why) = probe::wait(command, pid, within) {
            let back =
                if arguments.revert_on_failure { take_back(&options) } else { String::new() };
            outcome.result = Err(ApplyError::Unhealthy(format!("{why}{back}")));
        }
    }
    let text = outcome.text(true);
    text.lines().for_each(|line| options.log.line(pid, line));
    outcome
}

fn take_back(options: &ApplyOptions) -> String {
    match revert(options).result {
        Ok(()) => "; the update was taken back".into(),
        Err(e) => format!("; the update was NOT taken back: {e}"),
    }
}

/// Prints what it came to, and gives the exit code.
fn report(arguments: &Arguments, outcomes: &[Outcome]) -> u8 {
    let exit = fleet::exit(outcomes);
    if arguments.json {
        let value = match outcomes {
            [one] => one.json(),
            many => fleet::json(many),
        };
        say(&format!("{value}\n"));
        return exit.code();
    }
    for outcome in outcomes {
        let text = outcome.text(arguments.verbose);
        if outcome.result.is_ok() { say(&text) } else { complain(&text) }
    }
    if outcomes.len() > 1 {
        say(&fleet::table(outcomes));
    }
    exit.code()
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

fn tell_status(arguments: &Arguments, pid: i32) -> ExitCode {
    match status(pid) {
        Ok(status) if arguments.json => say(&format!("{}\n", status.json())),
        Ok(status) => say(&status.text()),
        Err(e) => return failed(arguments, pid, &e),
    }
    ExitCode::Updated
}

fn put_right(arguments: &Arguments, pid: i32) -> ExitCode {
    match recover(pid) {
        Ok(recovered) if arguments.json => {
            let report = serde_json::json!({ "pid": pid, "exit": 0, "recovered": recovered.done });
            say(&format!("{report}\n"));
        }
        Ok(recovered) => say(&recovered.text(pid)),
        Err(e) => return failed(arguments, pid, &e),
    }
    ExitCode::Updated
}

fn failed(arguments: &Arguments, pid: i32, error: &ApplyError) -> ExitCode {
    if arguments.json {
        let exit = error.exit().code();
        let report = serde_json::json!({ "pid": pid, "exit": exit, "error": error.json() });
        say(&format!("{report}\n"));
    } else {
        complain(&format!("process {pid}: {}\n", error.of(pid)));
    }
    error.exit()
}

/// Puts right what a guardian has left behind that was killed.
fn after_death(pids: &[i32]) -> u8 {
    for pid in pids {
        match recover(*pid) {
            Ok(recovered) => complain(&format!("dsu-apply was killed. {}", recovered.text(*pid))),
            Err(e) => {
                complain(&format!(
                    "dsu-apply was killed, and process {pid} is not put right: {e}\n"
                ));
            }
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
