//! The cases on disk and what one of them expects.
//!
//! Takes `cases/`; gives each case with its directives. A case is a file `NAME.c`, or a directory
//! `NAME/` with several sources (directives may stand in any of them).

use crate::directive::{self, Directive};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// File name without ending.
    pub name: String,
    /// All its files.
    pub files: Vec<PathBuf>,
    /// With the file that each stands in.
    pub directives: Vec<(PathBuf, Directive)>,
}

/// All cases under `dir`, by name.
///
/// # Errors
/// A file that cannot be read or a directive that makes no sense.
pub fn all(dir: &Path) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for path in sorted(dir)? {
        if path.is_dir() {
            cases.push(Case::read(&path, sorted(&path)?)?);
        } else if is_source(&path) {
            cases.push(Case::read(&path, vec![path.clone()])?);
        }
    }
    ensure!(!cases.is_empty(), "no cases in {}", dir.display());
    Ok(cases)
}

/// A file that the compiler takes.
#[must_use]
pub fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "c" || e == "cc" || e == "S")
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let mut paths = entries.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

impl Case {
    fn read(path: &Path, files: Vec<PathBuf>) -> Result<Self> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut directives = Vec::new();
        for file in &files {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("read {}", file.display()))?;
            let found = directive::parse(&text).with_context(|| file.display().to_string())?;
            directives.extend(found.into_iter().map(|d| (file.clone(), d)));
        }
        let case = Self { name, files, directives };
        ensure!(!case.builds().is_empty(), "{}: no //# build: line", path.display());
        Ok(case)
    }

    /// The build lines, each of which is a run of its own.
    #[must_use]
    pub fn builds(&self) -> Vec<String> {
        let builds = self.directives.iter().filter(|(_, d)| d.key == "build");
        builds.map(|(_, d)| d.value.clone()).collect()
    }

    /// Directives with `key` that count for this build line and step.
    pub fn directives<'a>(
        &'a self,
        key: &str,
        build: &str,
        step: usize,
    ) -> impl Iterator<Item = &'a (PathBuf, Directive)> {
        self.directives
            .iter()
            .filter(move |(_, d)| d.key == key && d.step == step && d.applies_to(build))
    }

    /// All words of those directives.
    #[must_use]
    pub fn words(&self, key: &str, build: &str, step: usize) -> Vec<String> {
        let found = self.directives(key, build, step);
        found.flat_map(|(_, d)| d.words().map(str::to_owned)).collect()
    }

    /// The last of their values.
    #[must_use]
    pub fn value(&self, key: &str, build: &str, step: usize) -> Option<&str> {
        self.directives(key, build, step).last().map(|(_, d)| d.value.as_str())
    }

    /// Versions in the order in which the process runs them: `1 2` unless the case says otherwise.
    ///
    /// # Errors
    /// Something that is not a number.
    pub fn ladder(&self, build: &str) -> Result<Vec<u32>> {
        let words = self.words("ladder", build, 1);
        if words.is_empty() {
            return Ok(vec![1, 2]);
        }
        let versions = words.iter().map(|w| w.parse::<u32>()).collect::<Result<Vec<_>, _>>();
        let versions = versions.with_context(|| format!("{}: //# ladder", self.name))?;
        ensure!(versions.len() >= 2, "{}: //# ladder needs two versions", self.name);
        Ok(versions)
    }

    /// Where to look when an expectation with `key` fails: the directive, or the case's first file
    /// when it says nothing of it.
    #[must_use]
    pub fn place(&self, key: &str, build: &str, step: usize) -> String {
        match self.directives(key, build, step).next() {
            Some((file, d)) => format!("{}:{}: {d}", file.display(), d.line),
            None => {
                let file = self.files.first().map(|f| f.display().to_string());
                format!("{}: no //# {key} for step {step}", file.unwrap_or_default())
            }
        }
    }
}
