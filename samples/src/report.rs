//! Compares what dsu-build reported with what the case expects.
//!
//! Every list is exact: what a case does not name must not have changed, been added or been refused.

use crate::case::Case;
use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSymbol, SymbolKind};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// What one step of a case expects of the report, with the build line that it is read for.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The case.
    pub case: &'a Case,
    /// Its build line.
    pub build: &'a str,
    /// Step of its ladder, from 1.
    pub step: usize,
}

impl Expected<'_> {
    /// The exit code of dsu-build that the directives imply.
    #[must_use]
    pub fn exit(&self) -> i32 {
        if !self.words("build-error").is_empty() {
            3
        } else if !self.words("refused").is_empty() {
            4
        } else if self.case.directives("nothing-to-do", self.build, self.step).next().is_some() {
            5
        } else {
            0
        }
    }

    fn words(&self, key: &str) -> Vec<String> {
        self.case.words(key, self.build, self.step)
    }

    /// Where the expectation stands.
    #[must_use]
    pub fn place(&self, key: &str) -> String {
        self.case.place(key, self.build, self.step)
    }

    /// Checks all directives about the report. `old` is the image that has the symbols.
    ///
    /// # Errors
    /// The first difference, with the directive that it contradicts.
    pub fn check(&self, report: &Value, old: &Path) -> Result<()> {
        let functions = &report["functions"];
        let refused = !self.words("refused").is_empty();
        if refused {
            let found = report["refusals"].as_array().into_iter().flatten();
            let word = |v: &Value| v.as_str().unwrap_or("").to_owned();
            let found = found.map(|r| format!("{} {}", word(&r["code"]), word(&r["subject"])));
            self.same("refused", self.lines("refused"), found.collect())?;
        } else {
            let refusals = report["refusals"].as_array().map_or(0, Vec::len);
            ensure!(refusals == 0, "{}: refused: {}", self.place("refused"), report["refusals"]);
            self.same("added", self.set("added"), names(&functions["added"]))?;
            self.same("removed", self.set("removed"), names(&functions["removed"]))?;
            self.same("data", self.lines("data"), data(&report["data"]))?;
        }
        self.same("changed", self.set("changed"), names(&functions["changed"]))?;
        self.same("line-only", self.set("line-only"), names(&functions["line_only"]))?;
        self.warnings(report)?;
        self.kept(report, old)
    }

    fn set(&self, key: &str) -> BTreeSet<String> {
        self.words(key).into_iter().collect()
    }

    fn lines(&self, key: &str) -> BTreeSet<String> {
        let found = self.case.directives(key, self.build, self.step);
        found.map(|(_, d)| d.words().collect::<Vec<_>>().join(" ")).collect()
    }

    fn same(&self, key: &str, expected: BTreeSet<String>, found: BTreeSet<String>) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        let list = |set: Vec<&String>| set.into_iter().cloned().collect::<Vec<_>>().join(", ");
        bail!(
            "{}: missing: [{}], not expected: [{}]",
            self.place(key),
            list(expected.difference(&found).collect()),
            list(found.difference(&expected).collect())
        )
    }

    fn warnings(&self, report: &Value) -> Result<()> {
        for (file, d) in self.case.directives("warning", self.build, self.step) {
            let found = report["warnings"].as_array().into_iter().flatten();
            let told = found.filter_map(Value::as_str).any(|w| w.contains(&d.value));
            let place = format!("{}:{}: {d}", file.display(), d.line);
            ensure!(told, "{place}: not among the warnings {}", report["warnings"]);
        }
        Ok(())
    }

    /// Kept functions must be there at all, else the directive asserts nothing.
    fn kept(&self, report: &Value, old: &Path) -> Result<()> {
        let changed = names(&report["functions"]["changed"]);
        let kept = self.words("kept");
        if kept.is_empty() {
            return Ok(());
        }
        let there = function_names(old)?;
        for name in kept {
            ensure!(there.contains(&name), "{}: OLD has no {name}", self.place("kept"));
            ensure!(!changed.contains(&name), "{}: {name} is replaced", self.place("kept"));
        }
        Ok(())
    }
}

/// The names in a list of strings or of objects with a name.
fn names(list: &Value) -> BTreeSet<String> {
    let name = |v: &Value| v.as_str().or_else(|| v["name"].as_str()).unwrap_or("?").to_owned();
    list.as_array().into_iter().flatten().map(name).collect()
}

/// All data changes as `name action`.
fn data(report: &Value) -> BTreeSet<String> {
    let kinds = [
        ("added", "added"),
        ("initializer_changed", "kept"),
        ("updated_in_place", "updated"),
        ("moved", "moved"),
    ];
    let each = |(kind, word): (&str, &'static str)| {
        names(&report[kind]).into_iter().map(move |name| format!("{name} {word}"))
    };
    kinds.into_iter().flat_map(each).collect()
}

fn function_names(path: &Path) -> Result<BTreeSet<String>> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| path.display().to_string())?;
    let functions = file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.is_definition());
    Ok(functions.filter_map(|s| s.name().ok().map(str::to_owned)).collect())
}
