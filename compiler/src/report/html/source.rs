//! Source lines of a function with its checkpoint sites and blind points marked on them.
//!
//! Takes the lines that OLD's debug information names; reads the file where the compiler found it, if it
//! is there and not newer than the build: a line of another text would mislead. Without the file, the
//! line numbers stand alone.

use super::escape::Text;
use crate::Built;
use crate::image::{Function, Image};
use crate::report::points::{Fate, Place, Point};
use crate::report::words;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Result, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Larger files are no source that a person wrote.
const LARGEST: u64 = 8 << 20;
/// Lines shown around one that is marked.
const CONTEXT: u32 = 2;

/// What stands at one line.
#[derive(Default)]
struct Marks<'a> {
    sites: usize,
    blind: Vec<(&'static str, &'a str)>,
    changed: bool,
}

/// Files read so far, by path; `None` for one that cannot be shown.
#[derive(Default)]
pub struct Sources {
    read: BTreeMap<PathBuf, Option<Vec<String>>>,
    /// When OLD was linked.
    built: Option<SystemTime>,
}

impl Sources {
    /// `old` is the file of the build whose sources are shown.
    pub fn new(old: &Path) -> Self {
        let built = std::fs::metadata(old).and_then(|m| m.modified()).ok();
        Self { read: BTreeMap::new(), built }
    }

    fn lines(&mut self, image: &Image, function: &Function, file: &str) -> Option<&[String]> {
        let directory = image.unit_of(function).map_or("", |unit| unit.comp_dir.as_str());
        let path = Path::new(directory).join(file);
        let built = self.built;
        let known = self.read.entry(path.clone()).or_insert_with(|| read(&path, built?));
        known.as_deref()
    }
}

/// A file's lines, if it is a text that was there when the build was made.
fn read(path: &Path, built: SystemTime) -> Option<Vec<String>> {
    let about = std::fs::metadata(path).ok()?;
    if !about.is_file() || about.len() > LARGEST || about.modified().ok()? > built {
        return None;
    }
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}

/// The function's lines with marks, file by file, its own first.
pub fn write(
    out: &mut String,
    built: &Built,
    sources: &mut Sources,
    function: &Function,
    points: &[Point<'_>],
    changed: &BTreeSet<Place>,
) -> Result {
    let mut marks: BTreeMap<&Place, Marks<'_>> = BTreeMap::new();
    for point in points {
        let marks = marks.entry(&point.place).or_default();
        match point.fate {
            Fate::Site { .. } | Fate::Passes { .. } => marks.sites += 1,
            Fate::Blind { why, .. } => marks.blind.push((words::kind(point.kind), why)),
        }
    }
    for place in changed {
        marks.entry(place).or_default().changed = true;
    }
    let own = Place::of(&built.old, function.address).file;
    let mut files: Vec<&str> =
        marks.keys().filter(|p| p.line > 0).map(|p| p.file.as_str()).collect();
    files.dedup();
    files.sort_by_key(|file| *file != own);
    for file in files {
        let here: BTreeMap<u32, &Marks<'_>> =
            marks.iter().filter(|(p, _)| p.file == file).map(|(p, m)| (p.line, m)).collect();
        let lines = sources.lines(&built.old, function, file);
        one_file(out, file, lines, &here)?;
    }
    Ok(())
}

fn one_file(
    out: &mut String,
    file: &str,
    lines: Option<&[String]>,
    marks: &BTreeMap<u32, &Marks<'_>>,
) -> Result {
    if lines.is_none() && marks.values().all(|m| m.sites + m.blind.len() == 0) {
        return Ok(());
    }
    writeln!(out, "<h4><code>{}</code></h4>", Text(file))?;
    let shown: BTreeSet<u32> = match lines {
        Some(lines) => {
            let last = u32::try_from(lines.len()).unwrap_or(u32::MAX);
            let around = |line: &u32| line.saturating_sub(CONTEXT)..=line.saturating_add(CONTEXT);
            marks.keys().flat_map(around).filter(|l| (1..=last).contains(l)).collect()
        }
        None => {
            writeln!(
                out,
                "<p class=\"note\">The file is not there as it was built: lines alone.</p>"
            )?;
            // A line that was touched says nothing without its text.
            let waits = |m: &Marks<'_>| m.sites + m.blind.len() > 0;
            marks.iter().filter(|(_, m)| waits(m)).map(|(line, _)| *line).collect()
        }
    };
    let text = |line: u32| {
        let index = usize::try_from(line).ok().and_then(|line| line.checked_sub(1));
        index.and_then(|index| lines?.get(index)).map_or("", String::as_str)
    };
    let label = Text(file);
    writeln!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Source of {label}\"><table class=\"source\">"
    )?;
    writeln!(
        out,
        "<thead><tr><th scope=\"col\">Line</th><th scope=\"col\">Frames</th><th scope=\"col\">Source</th></tr></thead><tbody>"
    )?;
    let mut before = None;
    for line in shown {
        if before.is_some_and(|before| before + 1 < line) {
            writeln!(out, "<tr class=\"gap\"><td colspan=\"3\">⋯</td></tr>")?;
        }
        before = Some(line);
        one_line(out, line, text(line), marks.get(&line).copied())?;
    }
    writeln!(out, "</tbody></table></div>")
}

fn one_line(out: &mut String, line: u32, text: &str, marks: Option<&Marks<'_>>) -> Result {
    let (sites, blind, changed) =
        marks.map_or((0, 0, false), |m| (m.sites, m.blind.len(), m.changed));
    let class = if changed { " class=\"touched\"" } else { "" };
    write!(out, "<tr{class}><th scope=\"row\">{line}</th><td class=\"marks\">")?;
    if sites > 0 {
        let what = if sites == 1 { "site" } else { "sites" };
        write!(out, "<span class=\"site\">● {sites} {what}</span> ")?;
    }
    if blind > 0 {
        write!(out, "<span class=\"blind\">▲ {blind} blind</span>")?;
    }
    writeln!(out, "</td><td><code>{}</code></td></tr>", Text(text))?;
    let mut told: Vec<&(&str, &str)> = Vec::new();
    for reason in marks.map_or(&[][..], |m| m.blind.as_slice()) {
        if !told.contains(&reason) {
            told.push(reason);
        }
    }
    for (kind, why) in told {
        writeln!(out, "<tr class=\"why\"><td></td><td></td><td>{kind}: {}</td></tr>", Text(why))?;
    }
    Ok(())
}
