//! `--explain FUNCTION`: why it is replaced or kept, what becomes of each of its frames, and both bodies
//! as a diff.

use super::bodies::{self, Row, Side};
use super::layout::{shown, table, wrapped};
use super::points::{Fate, Point, points};
use super::words;
use crate::Built;
use crate::change::Verdict;
use crate::image::{FunctionId, Image};
use crate::matching::names::readable;
use dsu_patch_format::OldAddr;
use dsu_patch_format::frames::Move;
use std::fmt::{Result, Write};

/// Equal instructions shown around a difference.
const CONTEXT: usize = 3;
/// Names proposed for one that does not exist.
const PROPOSALS: usize = 5;

/// A function in either build; in both, when they are one.
type Found = (Option<FunctionId>, Option<FunctionId>);

/// The explanation of each function of that name.
///
/// # Errors
/// No build has one; in words, with names that are like it.
pub fn explain(built: &Built, name: &str) -> std::result::Result<String, String> {
    let found = find(built, name);
    if found.is_empty() {
        return Err(unknown(built, name));
    }
    let mut out = String::new();
    for (index, (old, new)) in found.into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = write(&mut out, built, old, new);
    }
    Ok(shown(&out))
}

/// All functions of a name: static ones may share it. A linkage name counts before a readable one.
fn find(built: &Built, name: &str) -> Vec<Found> {
    let linked = |f: &crate::image::Function| f.names.iter().any(|n| n == name);
    let shown = |f: &crate::image::Function| readable(f.name()) == name;
    for is_meant in [&linked as &dyn Fn(&crate::image::Function) -> bool, &shown] {
        let of = |image: &Image| -> Vec<FunctionId> {
            let all = image.functions.iter().enumerate();
            all.filter(|(_, f)| is_meant(f)).map(|(index, _)| FunctionId(index)).collect()
        };
        let (old, new) = (of(&built.old), of(&built.new));
        let mut found: Vec<Found> =
            old.iter().map(|o| (Some(*o), built.matching.new_of(*o))).collect();
        let alone = new.iter().filter(|n| built.matching.old_of(**n).is_none());
        found.extend(alone.map(|n| (None, Some(*n))));
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn unknown(built: &Built, name: &str) -> String {
    let images = [&built.old, &built.new];
    let mut like: Vec<String> = images
        .iter()
        .flat_map(|image| image.functions.iter().map(|f| readable(f.name())))
        .filter(|known| known.contains(name))
        .collect();
    like.sort_by_key(|known| (known.len(), known.clone()));
    like.dedup();
    let proposals: Vec<_> = like.iter().take(PROPOSALS).map(String::as_str).collect();
    match proposals.as_slice() {
        [] => format!(
            "neither build has a function {name} (one that is in the source alone was inlined: ask for \
             its callers)"
        ),
        some => format!(
            "neither build has a function {name} (was it inlined?); there is {}",
            some.join(", ")
        ),
    }
}

/// What becomes of a function, in a few words.
pub fn verdict(built: &Built, old: Option<FunctionId>, new: Option<FunctionId>) -> &'static str {
    let replaced = old.is_some_and(|o| built.closure.replaced.contains_key(&o));
    let compared = old.zip(new).and_then(|pair| built.comparisons.get(&pair)).map(|c| c.verdict);
    match (old, new, replaced, compared) {
        (Some(_), None, ..) => "removed: NEW has no such function",
        (None, ..) => "added: OLD has no such function",
        (_, _, true, _) => "replaced",
        (_, _, false, Some(Verdict::LineOnly)) => "kept: only source line numbers in it changed",
        _ => "kept: equal in both builds",
    }
}

fn write(
    out: &mut String,
    built: &Built,
    old: Option<FunctionId>,
    new: Option<FunctionId>,
) -> Result {
    let name = match (old, new) {
        (Some(old), _) => readable(built.old.function(old).name()),
        (_, Some(new)) => readable(built.new.function(new).name()),
        _ => return Ok(()),
    };
    writeln!(out, "{name}: {}", verdict(built, old, new))?;
    for reason in old.and_then(|o| built.closure.replaced.get(&o)).into_iter().flatten() {
        wrapped(out, "  because ", 4, reason);
    }
    if let Some(old) = old {
        frames(out, built, old)?;
    }
    diff(out, &bodies::rows(built, old, new))
}

/// The function's checkpoint sites with their tables, and its blind points with their reasons.
fn frames(out: &mut String, built: &Built, old: FunctionId) -> Result {
    let entry = OldAddr(built.old.function(old).address);
    let replaced = &built.emitted.replaced;
    let Some(index) = replaced.iter().position(|r| r.old == entry) else { return Ok(()) };
    let all = points(built, index);
    if all.is_empty() {
        return Ok(());
    }
    let coverage = replaced[index].coverage;
    if coverage.of > 0 {
        writeln!(out, "\nlive frames: {} can be carried over", super::text::coverage(coverage))?;
    }
    for point in &all {
        out.push('\n');
        one(out, built, point)?;
    }
    Ok(())
}

fn one(out: &mut String, built: &Built, point: &Point<'_>) -> Result {
    let (kind, place, at) = (words::kind(point.kind), &point.place, point.at);
    match &point.fate {
        Fate::Blind { why, new_local } => {
            writeln!(out, "  blind {at}, {kind} at {place}")?;
            wrapped(out, "    because ", 6, why);
            if *new_local {
                wrapped(out, "    ", 4, "only a variable that NEW adds stands against it");
            }
        }
        Fate::Passes { why } => {
            writeln!(out, "  passes {at}, {kind} at {place}")?;
            wrapped(
                out,
                "    ",
                4,
                "OLD's code runs on with it to a site close behind, or returns",
            );
            wrapped(out, "    no site itself: ", 6, why);
        }
        Fate::Site { to, place: there, table: translation, copied } => {
            writeln!(out, "  site {at}, {kind} at {place}")?;
            writeln!(out, "    goes on in {} at {to}, {there}", words::code(*copied))?;
            let (old, new) = (translation.old_depth, translation.new_depth);
            let flags = if translation.flags { "; the flags are kept" } else { "" };
            let lowered = words::lowered(translation);
            writeln!(out, "    frame of {old} bytes -> {new} bytes{lowered}{flags}")?;
            let (left, moved): (Vec<&Move>, _) =
                translation.moves.iter().partition(|m| words::is_left(m));
            let rows: Vec<_> = moved.into_iter().map(|m| words::row(built, m)).collect();
            table(out, 4, &rows);
            if !left.is_empty() {
                let places: Vec<String> = left.iter().map(|m| m.to.to_string()).collect();
                wrapped(out, "    the caller's stay: ", 6, &places.join(", "));
            }
            for (start, end) in &translation.objects {
                writeln!(out, "    [cfa{start:+}]:{} stays: its address is taken", end - start)?;
            }
        }
    }
    Ok(())
}

fn diff(out: &mut String, rows: &[Row]) -> Result {
    let hunks = bodies::hunks(rows, CONTEXT);
    for hunk in &hunks {
        let first = hunk.rows.first().map(|row| row.place.clone()).unwrap_or_default();
        match hunk.skipped {
            0 => writeln!(out, "\n@@ {first}")?,
            n => writeln!(out, "\n@@ {first} ({n} equal instructions above)")?,
        }
        for row in hunk.rows {
            let sign = match row.side {
                Side::Old => '-',
                Side::New => '+',
                Side::Both => ' ',
            };
            let label = row.label.map(|label| format!("L{label}:")).unwrap_or_default();
            writeln!(out, "{sign} {label:>5} {}", row.text)?;
        }
    }
    Ok(())
}
