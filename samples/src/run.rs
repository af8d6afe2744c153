//! One case with one build line, from sources to a process that was updated and ended well.
//!
//! Takes a case; gives nothing or the first thing that is not as the case says, with the file and
//! the directive.

use crate::case::Case;
use crate::compile::{Version, compile};
use crate::program::Program;
use crate::report::Expected;
use crate::tools::{Said, Tools, say};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Exit codes of dsu-apply that the runner itself expects.
const UPDATED: i32 = 0;
const ALREADY: i32 = 15;

/// Runs one case with one build line in `scratch`.
///
/// # Errors
/// The first difference from what the case says.
pub fn run(case: &Case, build: &str, tools: &Tools, scratch: &Path) -> Result<()> {
    let dir = scratch.join(directory_name(case, build));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let ladder = case.ladder(build)?;
    let mut versions = BTreeMap::new();
    for version in &ladder {
        if !versions.contains_key(version) {
            let made = compile(case, build, *version, &dir.join(format!("v{version}")))?;
            versions.insert(*version, made);
        }
    }
    let run = Run { case, build, tools, dir: &dir };
    let bundles = ladder
        .windows(2)
        .enumerate()
        .map(|(i, pair)| run.make_bundle(i + 1, &versions[&pair[0]], &versions[&pair[1]]))
        .collect::<Result<Vec<Option<PathBuf>>>>()?;
    if bundles.iter().any(Option::is_some) {
        let mut program = Program::start(&versions[&ladder[0]].program)?;
        run.answers(&mut program, "before", 1)?;
        for (i, bundle) in bundles.iter().enumerate() {
            if let Some(bundle) = bundle {
                run.apply(&program, bundle, i + 1)?;
            }
            run.answers(&mut program, "after", i + 1)?;
        }
        program.end().with_context(|| format!("{} at its end", case.name))?;
    }
    Ok(())
}

/// A name for files made of a case and a build line.
#[must_use]
pub fn directory_name(case: &Case, build: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    format!("{}/{}", case.name, build.chars().map(word).collect::<String>())
}

struct Run<'a> {
    case: &'a Case,
    build: &'a str,
    tools: &'a Tools,
    dir: &'a Path,
}

impl Run<'_> {
    /// The bundle of one step, checked; `None` when the case expects none.
    fn make_bundle(&self, step: usize, old: &Version, new: &Version) -> Result<Option<PathBuf>> {
        let expected = Expected { case: self.case, build: self.build, step };
        let bundle = self.dir.join(format!("step{step}.patch"));
        let said = self.dsu_build(step, old, new, &bundle)?;
        let place = expected.place(match expected.exit() {
            3 => "build-error",
            4 => "refused",
            5 => "nothing-to-do",
            _ => "changed",
        });
        let exit = expected.exit();
        ensure!(
            said.exit == exit,
            "{place}: expected exit {exit} of dsu-build: {}",
            summary(&said)
        );
        if let Some(text) = self.case.value("build-error", self.build, step) {
            ensure!(said.stderr.contains(text), "{place}: it says {}", said.stderr);
            ensure!(!bundle.exists(), "{place}: dsu-build wrote a bundle all the same");
            return Ok(None);
        }
        let debug = with_debug(&old.target);
        expected.check(&said.json(), &debug).with_context(|| summary(&said))?;
        if exit != 0 {
            ensure!(!bundle.exists(), "{place}: dsu-build wrote a bundle all the same");
            return Ok(None);
        }
        let again = self.dir.join("again.patch");
        self.dsu_build(step, old, new, &again)?;
        let same = std::fs::read(&bundle)? == std::fs::read(&again)?;
        ensure!(same, "{}: two runs of dsu-build gave different bundles", self.case.name);
        Ok(Some(bundle))
    }

    /// More arguments of a tool; `{keys}` in them is the directory of the keys that tests sign with.
    fn arguments(&self, key: &str, step: usize) -> Vec<String> {
        let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/../patch-format/tests/keys");
        let words = self.case.words(key, self.build, step);
        words.into_iter().map(|word| word.replace("{keys}", keys)).collect()
    }

    fn dsu_build(&self, step: usize, old: &Version, new: &Version, to: &Path) -> Result<Said> {
        let path = |p: &Path| p.display().to_string();
        let mut arguments = vec![path(&old.target), path(&new.target)];
        arguments.extend(["-o".to_owned(), path(to), "--json".to_owned()]);
        arguments.extend(self.arguments("build-args", step));
        say(&self.tools.build, &arguments)
    }

    fn apply(&self, program: &Program, bundle: &Path, step: usize) -> Result<()> {
        let expected = Expected { case: self.case, build: self.build, step };
        let code = self.case.value("apply", self.build, step).unwrap_or("0");
        let code: i32 = code.parse().with_context(|| expected.place("apply"))?;
        if code == UPDATED {
            let said = self.dsu_apply(program, bundle, step, &["--dry-run"])?;
            ensure!(said.exit == UPDATED, "{}: dry run: {}", expected.place("apply"), said.all());
        }
        let said = self.dsu_apply(program, bundle, step, &[])?;
        let place = expected.place("apply");
        ensure!(said.exit == code, "{place}: expected exit {code} of dsu-apply: {}", said.all());
        self.blockers(&expected, &said)?;
        for (file, d) in self.case.directives("says", self.build, step) {
            let told = said.stdout.contains(&d.value) || said.stderr.contains(&d.value);
            ensure!(told, "{}:{}: {d}: dsu-apply said {}", file.display(), d.line, said.all());
        }
        if code == UPDATED {
            let said = self.dsu_apply(program, bundle, step, &[])?;
            ensure!(said.exit == ALREADY, "{place}: the same bundle again: {}", said.all());
        }
        Ok(())
    }

    /// Each function that is in the way is named, with a source line.
    fn blockers(&self, expected: &Expected<'_>, said: &Said) -> Result<()> {
        let report = said.json();
        let blockers: Vec<_> = report["blockers"].as_array().into_iter().flatten().collect();
        for name in self.case.words("blocker", self.build, expected.step) {
            let place = expected.place("blocker");
            let named = blockers.iter().find(|b| b["function"] == name.as_str());
            let named = named.with_context(|| format!("{place}: not named: {}", said.all()))?;
            let line = named["line"].as_u64().unwrap_or(0);
            ensure!(line > 0, "{place}: no source line: {named}");
            let file = named["file"].as_str().unwrap_or("");
            ensure!(!file.is_empty(), "{place}: no source file: {named}");
        }
        Ok(())
    }

    fn dsu_apply(
        &self,
        program: &Program,
        bundle: &Path,
        step: usize,
        more: &[&str],
    ) -> Result<Said> {
        let mut arguments = vec![bundle.display().to_string(), "--json".to_owned()];
        arguments.extend(["--pid".to_owned(), program.pid().to_string()]);
        arguments.extend(self.arguments("apply-args", step));
        arguments.extend(more.iter().map(|a| (*a).to_owned()));
        say(&self.tools.apply, &arguments)
    }

    /// Asks every `question => answer` of `key` for this step, in order.
    fn answers(&self, program: &mut Program, key: &str, step: usize) -> Result<()> {
        for (file, d) in self.case.directives(key, self.build, step) {
            let place = format!("{}:{}: {d}", file.display(), d.line);
            let (question, answer) = d
                .value
                .split_once("=>")
                .with_context(|| format!("{place}: expected `question => answer`"))?;
            let found = program.ask(question.trim()).with_context(|| place.clone())?;
            ensure!(found == answer.trim(), "{place}: it answers {found:?}");
        }
        Ok(())
    }
}

/// The file that has the symbols.
fn with_debug(image: &Path) -> PathBuf {
    let mut beside = image.as_os_str().to_owned();
    beside.push(".debug");
    let beside = PathBuf::from(beside);
    if beside.is_file() { beside } else { image.to_path_buf() }
}

/// What dsu-build reported, in a few lines.
fn summary(said: &Said) -> String {
    let report = said.json();
    let mut lines = vec![format!("dsu-build: exit {} {}", said.exit, said.stderr.trim())];
    let lists = ["added", "initializer_changed", "updated_in_place", "moved"];
    let lists = lists.map(|k| (k, &report["data"][k]));
    let functions = [("changed", &report["functions"]["changed"])];
    let refusals = [("refused", &report["refusals"]), ("warning", &report["warnings"])];
    for (kind, list) in functions.into_iter().chain(lists).chain(refusals) {
        for item in list.as_array().into_iter().flatten() {
            let why = item.get("why").or_else(|| item.get("text")).unwrap_or(item);
            lines.push(format!("  {kind} {} {why}", item["name"].as_str().unwrap_or("")));
        }
    }
    lines.join("\n")
}
