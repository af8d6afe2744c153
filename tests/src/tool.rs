//! The two programs under test: run with a limit, their exit code and their one JSON object.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use dsu_samples::tools::Tools;

/// No run of either program may take longer than this, unless the caller says so.
const LIMIT: Duration = Duration::from_secs(120);

/// What a program said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code; -1 for a signal.
    pub exit: i32,
    /// Its JSON object, or `Null` when standard output held none.
    pub json: Value,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
    /// The command, to be repeated by hand.
    pub command: String,
}

/// A function of dsu-build's `functions.changed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// Entry as linked in OLD.
    pub old_address: u64,
    /// Entry as linked in NEW.
    pub new_address: u64,
}

/// One refusal of dsu-build.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What it is about.
    pub subject: String,
    /// The whole sentence, with the way out.
    pub text: String,
}

impl Said {
    /// The changed functions.
    pub fn changed(&self) -> Vec<Changed> {
        let list = self.json["functions"]["changed"].as_array().cloned().unwrap_or_default();
        let number = |v: &Value| v.as_u64().unwrap_or(0);
        list.iter()
            .map(|f| Changed {
                name: f["name"].as_str().unwrap_or("").to_owned(),
                old_address: number(&f["old_address"]),
                new_address: number(&f["new_address"]),
            })
            .collect()
    }

    /// How many functions were kept that differ by line number alone.
    pub fn line_only(&self) -> usize {
        self.json["functions"]["line_only"].as_array().map_or(0, Vec::len)
    }

    /// The refusals.
    pub fn refusals(&self) -> Vec<Refusal> {
        let list = self.json["refusals"].as_array().cloned().unwrap_or_default();
        let string = |v: &Value| v.as_str().unwrap_or("").to_owned();
        list.iter()
            .map(|r| Refusal {
                subject: string(&r["subject"]),
                text: format!(
                    "{}: {} ({})",
                    string(&r["code"]),
                    string(&r["text"]),
                    string(&r["way_out"])
                ),
            })
            .collect()
    }

    /// The names in `data.KIND`, whether plain strings or objects with a name.
    pub fn data(&self, kind: &str) -> Vec<String> {
        let list = self.json["data"][kind].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|d| d.as_str().or_else(|| d["name"].as_str()).unwrap_or("").to_owned())
            .collect()
    }

    /// What dsu-apply says of each process.
    fn processes(&self) -> &[Value] {
        self.json["processes"].as_array().map_or(std::slice::from_ref(&self.json), Vec::as_slice)
    }

    /// The frames that dsu-apply says are in the way, of all processes.
    fn blocking(&self) -> impl Iterator<Item = &Value> {
        self.processes().iter().filter_map(|p| p["blockers"].as_array()).flatten()
    }

    /// The functions that dsu-apply named as being on a stack.
    pub fn blockers(&self) -> Vec<String> {
        self.blocking().map(|b| b["function"].as_str().unwrap_or("").to_owned()).collect()
    }

    /// Why dsu-apply could not carry the frames of `function` over, as dsu-build found.
    pub fn blocked_by(&self, function: &str) -> Vec<String> {
        let of = self.blocking().filter(|b| b["function"] == function);
        of.map(|b| b["why"].as_str().unwrap_or("").to_owned()).collect()
    }

    /// Of dsu-build: call sites in changed functions at which frames are carried over, and all of them.
    pub fn coverage(&self) -> (u64, u64) {
        let list = self.json["frames"].as_array().cloned().unwrap_or_default();
        let sum = |key: &str| list.iter().filter_map(|f| f[key].as_u64()).sum();
        (sum("sites"), sum("of"))
    }

    /// The longest pause of a process in microseconds.
    pub fn pause_us(&self) -> Option<u64> {
        self.processes().iter().filter_map(|p| p["pause_us"].as_u64()).max()
    }

    /// Exit code, reasons and standard error in a few words.
    pub fn summary(&self) -> String {
        let mut parts = vec![format!("exit {}", self.exit)];
        parts.extend(self.refusals().iter().take(3).map(|r| format!("{}: {}", r.subject, r.text)));
        if !self.blockers().is_empty() {
            parts.push(format!("on a stack: {}", self.blockers().join(", ")));
            let text = |b: &Value, key: &str| b[key].as_str().unwrap_or("").to_owned();
            let mut whys: Vec<String> = self
                .blocking()
                .map(|b| format!("{}:{}: {}", text(b, "function"), b["line"], text(b, "why")))
                .collect();
            whys.dedup();
            parts.extend(whys.into_iter().take(8));
        }
        let failed = self.processes().iter().filter_map(|p| p["error"]["message"].as_str());
        parts.extend(failed.take(3).map(str::to_owned));
        let stderr = self.stderr.trim();
        if !stderr.is_empty() {
            parts.push(stderr.lines().take(4).collect::<Vec<_>>().join(" / "));
        }
        parts.join("; ")
    }
}

/// Runs `dsu-build OLD NEW -o BUNDLE --json FLAGS`.
pub fn build(tools: &Tools, old: &Path, new: &Path, bundle: &Path, flags: &[&str]) -> Result<Said> {
    build_within(tools, old, new, bundle, flags, LIMIT)
}

/// The same with a limit of one's own: for builds that differ in every function.
pub fn build_within(
    tools: &Tools,
    old: &Path,
    new: &Path,
    bundle: &Path,
    flags: &[&str],
    limit: Duration,
) -> Result<Said> {
    let mut command = Command::new(&tools.build);
    command.arg(old).arg(new).arg("-o").arg(bundle).arg("--json").args(flags);
    run(command, limit)
}

/// Runs `dsu-apply BUNDLE --pid PID --json FLAGS`, with all processes in one command.
pub fn apply(tools: &Tools, bundle: &Path, pids: &[i32], flags: &[&str]) -> Result<Said> {
    let mut command = Command::new(&tools.apply);
    command.arg(bundle).arg("--json").args(flags);
    for pid in pids {
        command.args(["--pid", &pid.to_string()]);
    }
    run(command, LIMIT)
}

/// Runs `dsu-apply ARGUMENTS --json`.
pub fn operate(tools: &Tools, arguments: &[&OsStr]) -> Result<Said> {
    let mut command = Command::new(&tools.apply);
    command.args(arguments).arg("--json");
    run(command, LIMIT)
}

fn run(mut command: Command, limit: Duration) -> Result<Said> {
    let line = format!("{command:?}").replace('"', "");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("run {line}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{line}: not ended after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = start.elapsed();
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    let json = serde_json::from_str(stdout.trim()).unwrap_or(Value::Null);
    Ok(Said { exit: status.code().unwrap_or(-1), json, stderr, took, command: line })
}

/// Reads a pipe to its end on a thread, so that a full pipe never blocks the program.
fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
