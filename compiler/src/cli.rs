//! The command line of dsu-build.

use crate::data::{Choice, Choices};
use crate::{BuildError, Built, Options, Outcome, build, report};
use clap::Parser;
use dsu_patch_format::SigningKey;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How dsu-build ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// A patch was written (or explained).
    Written = 0,
    /// A defect of this tool, or the patch could not be written.
    Internal = 1,
    /// Wrong arguments (clap's own code).
    Usage = 2,
    /// A file cannot be used: unreadable, not ELF, no build id, no symbols, different kinds.
    Input = 3,
    /// The difference cannot be put into a running process; each refusal says why.
    Refused = 4,
    /// Both builds do the same.
    NothingToDo = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Compares two builds of a program and writes a patch that dsu-apply puts into processes that run
/// the first.
#[derive(Debug, Parser)]
#[command(name = "dsu-build", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// The build that processes run now (unstripped, or with its debug file found)
    old: PathBuf,
    /// The build that they shall run
    new: PathBuf,
    /// Where the patch is written
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["explain", "report"])]
    output: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Write all of it as one HTML page, also when the patch is refused
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Show why a function is replaced, where its frames go on, and both bodies as a diff; writes no
    /// patch without -o
    #[arg(long, value_name = "FUNCTION")]
    explain: Option<String>,
    /// Also replace functions that differ by their own source line numbers alone
    #[arg(long)]
    line_numbers: bool,
    /// A function that was renamed
    #[arg(long, value_name = "OLD=NEW", value_parser = equation)]
    map: Vec<(String, String)>,
    /// What to do with a variable whose initializer or layout changed: keep its value, or take NEW's
    #[arg(long, value_name = "NAME=keep|new", value_parser = choice)]
    data: Vec<(String, Choice)>,
    /// No object of this changed structure type lives across the update
    #[arg(long, value_name = "TYPE")]
    accept_layout: Vec<String>,
    /// No exception or panic passes through a replaced function (or it ends the process anyway)
    #[arg(long)]
    accept_no_unwinding: bool,
    /// Carry frames of replaced functions over while they are on the stack, at each point where every
    /// value that NEW needs has a proven source (checkpoint sites). The default
    #[arg(long, overrides_with = "no_live_frames")]
    live_frames: bool,
    /// In a frame that goes on in NEW, a local that OLD does not have may begin with the constant that NEW
    /// gives it before its outermost loop: a counter counts from its start. Each is reported
    #[arg(long)]
    init_new_locals: bool,
    /// Carry no frames over: dsu-apply waits until no thread is inside a replaced function
    #[arg(long, overrides_with = "live_frames")]
    no_live_frames: bool,
    /// Sign the patch with this Ed25519 private key (PEM, as `openssl genpkey -algorithm ed25519` writes it)
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// Debug file of OLD, when it is kept apart and not found by itself
    #[arg(long, value_name = "FILE")]
    debug_old: Option<PathBuf>,
    /// Debug file of NEW
    #[arg(long, value_name = "FILE")]
    debug_new: Option<PathBuf>,
}

const EXIT_CODES: &str = "Exit codes: 0 patch written, 1 internal failure, 2 usage, 3 a file cannot \
be used, 4 refused (each refusal says why and what can be done), 5 nothing to do";

fn equation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() => Ok((a.to_owned(), b.to_owned())),
        _ => Err("expected OLD=NEW".to_owned()),
    }
}

fn choice(text: &str) -> Result<(String, Choice), String> {
    let (name, choice) = equation(text).map_err(|_| "expected NAME=keep or NAME=new")?;
    match choice.as_str() {
        "keep" => Ok((name, Choice::Keep)),
        "new" => Ok((name, Choice::New)),
        other => Err(format!("{other}: expected keep or new")),
    }
}

impl Arguments {
    fn key(&self) -> Result<Option<SigningKey>, BuildError> {
        let Some(path) = &self.sign else { return Ok(None) };
        let read = || Ok(SigningKey::from_pem(&std::fs::read_to_string(path)?)?);
        read().map(Some).map_err(|error| BuildError::Key { path: path.clone(), error })
    }

    fn options(&self) -> Result<Options, BuildError> {
        let mut recorded = Vec::new();
        if self.line_numbers {
            recorded.push("--line-numbers".to_owned());
        }
        recorded.extend(self.map.iter().map(|(a, b)| format!("--map {a}={b}")));
        recorded.extend(self.data.iter().map(|(n, c)| {
            format!("--data {n}={}", if *c == Choice::New { "new" } else { "keep" })
        }));
        if self.accept_no_unwinding {
            recorded.push("--accept-no-unwinding".to_owned());
        }
        if self.init_new_locals {
            recorded.push("--init-new-locals".to_owned());
        }
        if self.no_live_frames {
            recorded.push("--no-live-frames".to_owned());
        }
        recorded.extend(self.accept_layout.iter().map(|t| format!("--accept-layout {t}")));
        Ok(Options {
            old: self.old.clone(),
            new: self.new.clone(),
            debug_old: self.debug_old.clone(),
            debug_new: self.debug_new.clone(),
            renames: self.map.clone(),
            line_numbers: self.line_numbers,
            no_unwinding: self.accept_no_unwinding,
            live_frames: !self.no_live_frames,
            init_new_locals: self.init_new_locals,
            choices: Choices {
                objects: self.data.iter().cloned().collect(),
                accepted_types: self.accept_layout.iter().cloned().collect(),
            },
            recorded,
            key: self.key()?,
        })
    }
}

/// Runs the tool; prints to standard output and error.
#[must_use]
pub fn run(arguments: &Arguments) -> Exit {
    match try_run(arguments) {
        Ok(exit) => exit,
        Err(error) => {
            let exit = match error {
                BuildError::Load { .. } | BuildError::Key { .. } | BuildError::Mismatch(_) => {
                    Exit::Input
                }
                BuildError::Encode(_) => Exit::Internal,
            };
            if arguments.json {
                say(&format!(
                    "{}\n",
                    serde_json::json!({"outcome": "error", "error": error.to_string()})
                ));
            }
            eprintln!("dsu-build: {error}");
            exit
        }
    }
}

fn try_run(arguments: &Arguments) -> Result<Exit, BuildError> {
    let options = arguments.options()?;
    let bar = progress_bar(arguments.json);
    let built = build(&options, &|phase| bar.set_message(phase.to_owned()))?;
    bar.finish_and_clear();
    if let Some(name) = &arguments.explain {
        match report::explain(&built, name) {
            Ok(text) => say(&text),
            Err(unknown) => {
                eprintln!("dsu-build: {unknown}");
                return Ok(Exit::Input);
            }
        }
        if arguments.output.is_none() && arguments.report.is_none() {
            return Ok(Exit::Written);
        }
    }
    if let Some(path) = &arguments.report
        && !write_or_say(path, report::html(&built, &options).as_bytes())
    {
        return Ok(Exit::Internal);
    }
    let size = match (&arguments.output, built.outcome) {
        (Some(path), Outcome::Written) => {
            let bytes = built.bundle(&options)?;
            if !write_or_say(path, &bytes) {
                return Ok(Exit::Internal);
            }
            Some((path.display().to_string(), bytes.len()))
        }
        _ => None,
    };
    print_report(arguments, &built, size);
    Ok(match built.outcome {
        Outcome::Written => Exit::Written,
        Outcome::NothingToDo => Exit::NothingToDo,
        Outcome::Refused => Exit::Refused,
    })
}

fn print_report(arguments: &Arguments, built: &Built, size: Option<(String, usize)>) {
    if arguments.json {
        say(&format!("{}\n", report::json(built)));
    } else {
        let written = size.as_ref().map(|(path, size)| (path.as_str(), *size));
        say(&report::text(built, written));
    }
}

/// Prints. Who has closed the other end (`| head`) wants no more of it, which is no failure.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn write_or_say(path: &Path, bytes: &[u8]) -> bool {
    let written = write_whole(path, bytes);
    written.inspect_err(|e| eprintln!("dsu-build: write {}: {e}", path.display())).is_ok()
}

/// A file is there whole or not at all: written beside and renamed, where a link leads to. What is no regular file
/// (`/dev/null`, a pipe) is written to: a rename would put a file in its place.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return std::fs::write(path, bytes);
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".{}.tmp", std::process::id()));
    std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, &path)).inspect_err(
        |_| {
            // The error that matters is the first.
            let _ = std::fs::remove_file(&beside);
        },
    )
}

/// Shown on terminals only, and only when it takes long enough to wonder.
fn progress_bar(json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_files_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let [file, link, socket] =
            ["file", "link", "socket"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_whole(&file, b"first").unwrap();
        write_whole(&link, b"second").unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"second");
        // As a device would be, without a superuser.
        let _listener = UnixListener::bind(&socket).unwrap();
        write_whole(&socket, b"third").unwrap_err();
        assert!(std::fs::metadata(&socket).unwrap().file_type().is_socket());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
        write_whole(&directory.path().join("none").join("file"), b"fourth").unwrap_err();
    }
}
