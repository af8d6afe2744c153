//! Programs compiled, bundles made, undisturbed runs recorded.
//!
//! Takes a source and a pair of code generations; gives a [`Cell`]. Compiled programs are kept
//! under `target/torture`, named by all that went into them; bundles are made anew, because dsu-build is what
//! is under test.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::mother;
use super::oracle::Reference;
use super::parallel::in_parallel;
use super::tracee::{Finished, Tracee};
use super::variants::{Pair, Side};
use crate::tool;
use crate::workspace;
use dsu_samples::tools::Tools;

/// What every program is compiled with.
const FLAGS: &[&str] =
    &["-std=gnu17", "-D_GNU_SOURCE", "-g", "-fPIE", "-pie", "-Wl,--build-id", "-w"];
/// How long an undisturbed program may run, which takes milliseconds.
const LIMIT: Duration = Duration::from_secs(2);
/// Instructions counted of a program that signals interrupt by the clock.
const MOST_BY_THE_CLOCK: u64 = 10_000;
/// dsu-build's exit codes.
const WRITTEN: i32 = 0;
const NOTHING: i32 = 5;

/// A program's source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// As in `--program`.
    pub name: String,
    /// Files to compile.
    pub files: Vec<PathBuf>,
    /// Files that these include, and flags for them.
    pub includes: Vec<PathBuf>,
    /// More flags.
    pub flags: Vec<String>,
}

/// A program, a pair, and what can be done with them.
#[derive(Debug)]
pub struct Cell {
    /// The program's name.
    pub program: String,
    /// OLD and NEW.
    pub pair: Pair,
    /// OLD, compiled.
    pub old: PathBuf,
    /// OLD to NEW.
    pub there: Bundle,
    /// NEW to OLD.
    pub back: Option<Bundle>,
    /// What both say undisturbed.
    pub reference: Reference,
}

/// What dsu-build made of two builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bundle {
    /// A bundle, here.
    Made(PathBuf),
    /// No bundle, because of this.
    None(String),
}

impl Bundle {
    /// The file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Made(path) => Some(path),
            Self::None(_) => None,
        }
    }
}

/// The programs of `tests/torture`.
pub fn sources() -> Result<Vec<Source>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("torture");
    let mut list = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        if path.extension().is_some_and(|e| e == "c") && name != WRAPPER {
            let includes = vec![dir.join("torture.h")];
            list.push(Source { name, files: vec![path], includes, flags: Vec::new() });
        }
    }
    list.sort();
    Ok(list)
}

/// The file around csmith's programs.
pub const WRAPPER: &str = "random_main";

/// Where things are kept.
pub fn home() -> PathBuf {
    workspace::root().join("target/torture")
}

/// A compiled program and what it does undisturbed.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub path: PathBuf,
    pub finished: Finished,
    /// Of its whole run; zero where nobody asked.
    pub instructions: u64,
}

/// How long a program may be, and how its bundles are made.
#[derive(Debug, Clone, Copy)]
pub struct Making<'a> {
    /// The programs under test.
    pub tools: &'a Tools,
    /// Instructions are counted up to here.
    pub most: u64,
    /// Make every way back, too; else only where it is asked for as a pair of its own.
    pub both_ways: bool,
}

impl Making<'_> {
    /// What is `wanted`, in its order. What several cells need is made once.
    pub fn cells(&self, wanted: &[(&Source, Pair)]) -> Vec<Result<Cell>> {
        let mut ways: BTreeSet<(&Source, Pair)> = wanted.iter().copied().collect();
        if self.both_ways {
            ways.extend(wanted.iter().map(|(source, pair)| (*source, pair.reversed())));
        }
        let olds: BTreeSet<(&Source, Side)> = wanted.iter().map(|(s, p)| (*s, p.old)).collect();
        let sides = ways.iter().flat_map(|(s, p)| [(*s, p.old), (*s, p.new)]).collect();
        let programs = table(&sides, |source, side| {
            program(source, side, if olds.contains(&(source, side)) { self.most } else { 0 })
        });
        let bundles = table(&ways, |source, pair| {
            let old = had(&programs, source, pair.old)?;
            let new = had(&programs, source, pair.new)?;
            self.bundle(&old.path, &new.path, &source.name, pair)
        });
        let cell = |source: &Source, pair: Pair| {
            let there = had(&bundles, source, pair)?;
            let back = had(&bundles, source, pair.reversed()).ok();
            let old = had(&programs, source, pair.old)?;
            let new = had(&programs, source, pair.new)?;
            let reference = Reference::new(old.finished, new.finished, old.instructions);
            let reference = reference.with_context(|| format!("{} {pair}", source.name))?;
            let program = source.name.clone();
            Ok(Cell { program, pair, old: old.path, there, back, reference })
        };
        wanted.iter().map(|(source, pair)| cell(source, *pair)).collect()
    }

    fn bundle(&self, old: &Path, new: &Path, name: &str, pair: Pair) -> Result<Bundle> {
        let dir = home().join("bundles");
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{name}-{pair}.patch"));
        let said = tool::build(self.tools, old, new, &path, &[])?;
        match said.exit {
            WRITTEN => Ok(Bundle::Made(path)),
            NOTHING => Ok(Bundle::None("nothing to do".into())),
            _ if !said.refusals().is_empty() => {
                let codes: BTreeSet<String> =
                    said.refusals().iter().map(|r| first_clause(&r.text)).collect();
                Ok(Bundle::None(codes.into_iter().collect::<Vec<_>>().join(", ")))
            }
            _ => anyhow::bail!("{}: {}", said.command, said.summary()),
        }
    }
}

/// Results by source and something else.
type Table<'a, K, V> = BTreeMap<(&'a Source, K), Result<V, String>>;

/// Makes something for each source and key, in parallel.
fn table<'a, K: Copy + Ord + Sync + Send, V: Send>(
    wanted: &BTreeSet<(&'a Source, K)>,
    make: impl Fn(&Source, K) -> Result<V> + Sync,
) -> Table<'a, K, V> {
    let items: Vec<(&Source, K)> = wanted.iter().copied().collect();
    let made =
        in_parallel(&items, |(source, key)| make(source, *key).map_err(|e| format!("{e:#}")));
    items.into_iter().zip(made).collect()
}

fn had<K: Ord, V: Clone>(table: &Table<K, V>, source: &Source, key: K) -> Result<V> {
    match table.get(&(source, key)) {
        Some(Ok(value)) => Ok(value.clone()),
        Some(Err(error)) => anyhow::bail!("{}: {error}", source.name),
        None => anyhow::bail!("{}: not made", source.name),
    }
}

/// Compiles one side of a source and runs it, counting up to `most` instructions.
pub(super) fn program(source: &Source, side: Side, most: u64) -> Result<Compiled> {
    let path = compile(source, side)?;
    let finished = Tracee::start(&path)?.finish(LIMIT)?;
    // A timer goes by the clock: under a tracer there is no end of it.
    let most = if mother::is_alone(&source.name) { most } else { most.min(MOST_BY_THE_CLOCK) };
    let instructions = Tracee::start(&path)?.step(most)?;
    Ok(Compiled { path, finished, instructions })
}

/// Compiles one side of a source, or finds it compiled.
fn compile(source: &Source, side: Side) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    for file in source.files.iter().chain(&source.includes) {
        std::fs::read(file).with_context(|| format!("read {}", file.display()))?.hash(&mut hasher);
    }
    (FLAGS, &source.flags, side).hash(&mut hasher);
    let dir = home().join("programs");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{}-{side}-{:016x}", source.name, hasher.finish()));
    if path.is_file() {
        return Ok(path);
    }
    // Others may be compiling the same: the last one wins, and all are right.
    let draft = tempfile::Builder::new().tempfile_in(&dir)?.into_temp_path();
    let mut command = Command::new(side.generation.compiler);
    command.args(FLAGS).args(side.generation.flags).args(&source.flags);
    if side.next {
        command.arg("-DNEW");
    }
    command.args(&source.files).arg("-o").arg(draft.as_os_str());
    let out = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{command:?}: {}\n{said}", out.status);
    draft.persist(&path)?;
    Ok(path)
}

/// The code at the start of a refusal's text.
fn first_clause(text: &str) -> String {
    text.split(':').next().unwrap_or(text).to_owned()
}
