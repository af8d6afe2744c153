//! One section for each function: why it is what it is, its frames, its source, both bodies.

use super::escape::Text;
use super::source::{self, Sources};
use crate::Built;
use crate::image::FunctionId;
use crate::matching::names::readable;
use crate::report::bodies::{self, Row, Side};
use crate::report::points::{Fate, Place, Point, points};
use crate::report::{text, words};
use dsu_patch_format::OldAddr;
use std::collections::BTreeSet;
use std::fmt::{Result, Write};

/// Equal instructions shown around a difference.
const CONTEXT: usize = 3;
/// Rows of one diff; more is not looked at on a page.
const ROWS: usize = 1500;

/// What there is to say of one function.
pub struct Subject {
    /// In OLD.
    pub old: Option<FunctionId>,
    /// In NEW.
    pub new: Option<FunctionId>,
    /// `replaced`, `added` or `removed`.
    pub what: &'static str,
    /// Demangled.
    pub name: String,
    /// Why, the main reason first.
    pub why: Vec<String>,
    /// [`crate::emit::Emitted::replaced`] by index.
    pub index: Option<usize>,
}

/// All functions that are not simply kept: replaced ones, added, removed.
pub fn subjects(built: &Built) -> Vec<Subject> {
    let emitted = &built.emitted;
    let index = |old: FunctionId| {
        let entry = OldAddr(built.old.function(old).address);
        emitted.replaced.iter().position(|r| r.old == entry)
    };
    let mut all: Vec<Subject> = built
        .closure
        .replaced
        .iter()
        .map(|(old, why)| Subject {
            old: Some(*old),
            new: built.matching.new_of(*old),
            what: "replaced",
            name: readable(built.old.function(*old).name()),
            why: why.clone(),
            index: index(*old),
        })
        .collect();
    all.extend(emitted.added.iter().map(|added| Subject {
        old: None,
        new: built.new.function_at(added.new.0),
        what: "added",
        name: readable(&added.name),
        why: vec!["OLD has no such function".to_owned()],
        index: None,
    }));
    let removed = emitted.replaced.iter().enumerate().filter(|(_, r)| r.new.is_none());
    all.extend(removed.map(|(index, removed)| Subject {
        old: built.old.function_at(removed.old.0),
        new: None,
        what: "removed",
        name: readable(&removed.name),
        why: removed.why.clone(),
        index: Some(index),
    }));
    all
}

/// The table that leads to the sections.
pub fn overview(out: &mut String, built: &Built, subjects: &[Subject]) -> Result {
    let frames = !built.carried.is_empty();
    writeln!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Functions\"><table>"
    )?;
    write!(out, "<thead><tr><th scope=\"col\">Function</th><th scope=\"col\">What</th>")?;
    write!(out, "<th scope=\"col\" class=\"number\">Bytes</th>")?;
    if frames {
        write!(out, "<th scope=\"col\">Call sites carried over</th>")?;
    }
    writeln!(out, "<th scope=\"col\">Why</th></tr></thead><tbody>")?;
    for (number, subject) in subjects.iter().enumerate() {
        let Subject { what, name, why, .. } = subject;
        write!(
            out,
            "<tr><th scope=\"row\"><a href=\"#f{number}\"><code>{}</code></a></th>",
            Text(name)
        )?;
        write!(out, "<td>{what}</td><td class=\"number\">{}</td>", sizes(built, subject))?;
        if frames {
            coverage(out, built, subject)?;
        }
        writeln!(
            out,
            "<td class=\"wide\">{}</td></tr>",
            Text(why.first().map_or("", String::as_str))
        )?;
    }
    writeln!(out, "</tbody></table></div>")
}

fn sizes(built: &Built, subject: &Subject) -> String {
    let old = subject.old.map(|id| built.old.function(id).size);
    let new = subject.new.map(|id| built.new.function(id).size);
    match (old, new) {
        (Some(old), Some(new)) => format!("{old} → {new}"),
        (one, other) => one.or(other).map_or_else(String::new, |size| size.to_string()),
    }
}

fn coverage(out: &mut String, built: &Built, subject: &Subject) -> Result {
    let coverage = subject.index.map(|i| built.emitted.replaced[i].coverage).unwrap_or_default();
    if coverage.of == 0 {
        return write!(out, "<td>–</td>");
    }
    let (sites, of) = (coverage.sites, coverage.of);
    write!(
        out,
        "<td class=\"number\"><meter min=\"0\" max=\"{of}\" value=\"{sites}\" aria-hidden=\"true\"></meter> {sites} of {of}</td>"
    )
}

/// One function.
pub fn section(
    out: &mut String,
    built: &Built,
    sources: &mut Sources,
    number: usize,
    subject: &Subject,
) -> Result {
    let name = Text(&subject.name);
    writeln!(out, "<section id=\"f{number}\" aria-labelledby=\"f{number}h\">")?;
    writeln!(
        out,
        "<h3 id=\"f{number}h\"><code>{name}</code> <span class=\"what\">{}</span></h3>",
        subject.what
    )?;
    writeln!(out, "<ul class=\"why\">")?;
    for why in &subject.why {
        writeln!(out, "<li>{}</li>", Text(why))?;
    }
    writeln!(out, "</ul>")?;
    let rows = bodies::rows(built, subject.old, subject.new);
    let points = subject.index.map_or_else(Vec::new, |index| points(built, index));
    if !points.is_empty() {
        frames(out, built, subject, &points)?;
    }
    if let (Some(old), Some(_)) = (subject.old, subject.new) {
        let changed = changed_lines(&rows);
        let open = if points.is_empty() { "" } else { " open" };
        writeln!(out, "<details{open}><summary>Source lines of OLD</summary>")?;
        source::write(out, built, sources, built.old.function(old), &points, &changed)?;
        writeln!(out, "</details>")?;
    }
    diff(out, &rows, subject)?;
    writeln!(out, "</section>")
}

/// Lines of OLD of which some instruction is not in NEW.
fn changed_lines(rows: &[Row]) -> BTreeSet<Place> {
    let old = rows.iter().filter(|row| row.side == Side::Old && row.place.line > 0);
    old.map(|row| row.place.clone()).collect()
}

/// Tables of the sites, reasons of the blind points.
fn frames(out: &mut String, built: &Built, subject: &Subject, points: &[Point<'_>]) -> Result {
    if let Some(index) = subject.index {
        let coverage = built.emitted.replaced[index].coverage;
        if coverage.of > 0 {
            let coverage = text::coverage(coverage);
            writeln!(out, "<p>Live frames: {coverage} can be carried over.</p>")?;
        }
    }
    let blind = points.iter().filter(|p| matches!(p.fate, Fate::Blind { .. })).count();
    let count = points.len() - blind;
    let (sites, blind_points) = (plural(count, "site"), plural(blind, "blind point"));
    writeln!(out, "<details><summary>{sites} and {blind_points}, one by one</summary>")?;
    for point in points {
        let (kind, place) = (words::kind(point.kind), point.place.to_string());
        let heading = |class: &str, sign: &str| {
            format!("<h4 class=\"{class}\">{sign} {}, {kind} at {}</h4>", point.at, Text(&place))
        };
        match &point.fate {
            Fate::Blind { why, .. } => {
                writeln!(out, "{}<p>{}</p>", heading("blind", "▲ blind point"), Text(why))?;
            }
            Fate::Passes { why } => {
                writeln!(
                    out,
                    "{}<p>OLD's code runs on with it to a site close behind, or returns. No site \
                     itself: {}</p>",
                    heading("site", "○ passes"),
                    Text(why)
                )?;
            }
            Fate::Site { to, place: there, table, copied } => {
                let there = there.to_string();
                writeln!(out, "{}", heading("site", "● site"))?;
                let (old, new) = (table.old_depth, table.new_depth);
                let flags = if table.flags { ", the flags are kept" } else { "" };
                let lowered = words::lowered(table);
                writeln!(
                    out,
                    "<p>Goes on in {} at {to}, {}; frame of {old} bytes → {new} bytes{lowered}{flags}.</p>",
                    words::code(*copied),
                    Text(&there)
                )?;
                moves(out, built, table)?;
            }
        }
    }
    writeln!(out, "</details>")
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn moves(out: &mut String, built: &Built, table: &dsu_patch_format::Translation) -> Result {
    if table.moves.is_empty() {
        return Ok(());
    }
    writeln!(out, "<table class=\"moves\"><thead><tr><th scope=\"col\">In NEW</th>")?;
    writeln!(
        out,
        "<th scope=\"col\">from OLD</th><th scope=\"col\">because</th></tr></thead><tbody>"
    )?;
    for step in &table.moves {
        let [to, from, why] = words::row(built, step);
        write!(
            out,
            "<tr><td><code>{}</code></td><td><code>{}</code></td>",
            Text(&to),
            Text(&from)
        )?;
        writeln!(out, "<td>{}</td></tr>", Text(&why))?;
    }
    writeln!(out, "</tbody></table>")
}

fn diff(out: &mut String, rows: &[Row], subject: &Subject) -> Result {
    let hunks = bodies::hunks(rows, CONTEXT);
    if hunks.is_empty() {
        return writeln!(
            out,
            "<p class=\"note\">The instructions are the same; what they refer to is not.</p>"
        );
    }
    let both = subject.old.is_some() && subject.new.is_some();
    let open = if both { " open" } else { "" };
    let title = if both { "Both bodies" } else { "Its body" };
    writeln!(out, "<details{open}><summary>{title}, operands resolved</summary>")?;
    let name = Text(&subject.name);
    writeln!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Instructions of {name}\"><table class=\"diff\">"
    )?;
    writeln!(
        out,
        "<thead><tr><th scope=\"col\"><span class=\"hidden\">In</span></th><th scope=\"col\">Line</th><th scope=\"col\">Label</th><th scope=\"col\">Instruction</th></tr></thead><tbody>"
    )?;
    let mut left = ROWS;
    for hunk in &hunks {
        if hunk.skipped > 0 {
            writeln!(
                out,
                "<tr class=\"gap\"><td colspan=\"4\">⋯ {} equal instructions</td></tr>",
                hunk.skipped
            )?;
        }
        for row in hunk.rows.iter().take(left) {
            instruction(out, row)?;
        }
        left = left.saturating_sub(hunk.rows.len());
    }
    writeln!(out, "</tbody></table></div>")?;
    if left == 0 {
        writeln!(out, "<p class=\"note\">Cut after {ROWS} rows; --explain shows all.</p>")?;
    }
    writeln!(out, "</details>")
}

fn instruction(out: &mut String, row: &Row) -> Result {
    let (class, sign) = match row.side {
        Side::Both => ("", ""),
        Side::Old => (" class=\"old\"", "− OLD"),
        Side::New => (" class=\"new\"", "+ NEW"),
    };
    let label = row.label.map(|label| format!("L{label}")).unwrap_or_default();
    let place = if row.place.line == 0 { String::new() } else { row.place.to_string() };
    writeln!(
        out,
        "<tr{class}><td>{sign}</td><td>{}</td><td>{label}</td><td><code>{}</code></td></tr>",
        Text(&place),
        Text(&row.text)
    )
}
