//! The short table for people.

use crate::matching::names::readable;
use crate::refusal::Refusal;
use crate::{Built, Outcome};
use dsu_patch_format::manifest::{DataAction, DataChange};
use std::fmt::Write;

/// Rows of one list before it is cut.
const ROWS: usize = 40;

/// The report; `bundle` is where the patch was written, with its size in bytes.
#[must_use]
pub fn text(built: &Built, bundle: Option<(&str, usize)>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, built, bundle);
    out
}

fn write(out: &mut String, built: &Built, bundle: Option<(&str, usize)>) -> std::fmt::Result {
    header(out, built)?;
    functions(out, built)?;
    frames(out, built)?;
    data(out, built)?;
    for warning in &built.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for refusal in &built.refusals {
        let Refusal { code, text, way_out, .. } = refusal;
        writeln!(out, "refused [{code}]: {text}\n  way out: {way_out}")?;
    }
    match (built.outcome, bundle) {
        (Outcome::Written, Some((path, size))) => writeln!(out, "patch: {path} ({size} bytes)"),
        (Outcome::Written, None) => Ok(()),
        (Outcome::NothingToDo, _) => writeln!(out, "nothing to do: both builds do the same"),
        (Outcome::Refused, _) => {
            let count = built.refusals.len();
            writeln!(out, "no patch made: {count} refusal{}", if count == 1 { "" } else { "s" })
        }
    }
}

fn header(out: &mut String, built: &Built) -> std::fmt::Result {
    let id = |id: &str| id.chars().take(12).collect::<String>();
    writeln!(
        out,
        "{} {} -> {} {}",
        built.old.file,
        id(&built.old.build_id),
        built.new.file,
        id(&built.new.build_id)
    )?;
    let replaced = built.closure.replaced.len();
    let line_only = built.line_only().len();
    let compared = built.comparisons.len();
    writeln!(
        out,
        "{compared} functions compared, {replaced} replaced, {} added, {} removed{}",
        built.emitted.added.len(),
        built.emitted.replaced.iter().filter(|f| f.new.is_none()).count(),
        match line_only {
            0 => String::new(),
            n => format!(
                "; {n} kept that differ by line numbers alone (--line-numbers replaces them)"
            ),
        }
    )
}

fn functions(out: &mut String, built: &Built) -> std::fmt::Result {
    let width = built
        .closure
        .replaced
        .keys()
        .map(|f| readable(built.old.function(*f).name()).len())
        .max()
        .unwrap_or(0)
        .min(40);
    for (index, (id, why)) in built.closure.replaced.iter().enumerate() {
        if index == ROWS {
            writeln!(out, "  ... and {} more", built.closure.replaced.len() - ROWS)?;
            break;
        }
        let name = readable(built.old.function(*id).name());
        let sizes = built.matching.new_of(*id).map_or_else(String::new, |n| {
            format!("{:>5} -> {:<5}", built.old.function(*id).size, built.new.function(n).size)
        });
        let first = why.first().map_or("", String::as_str);
        writeln!(out, "  changed  {name:width$}  {sizes}  {first}")?;
    }
    for added in built.emitted.added.iter().take(ROWS) {
        writeln!(out, "  added    {:width$}  {:>14}", readable(&added.name), added.size)?;
    }
    for removed in built.emitted.replaced.iter().filter(|f| f.new.is_none()).take(ROWS) {
        writeln!(out, "  removed  {}", readable(&removed.name))?;
    }
    Ok(())
}

/// How many of the places where frames may wait can be carried over, and what stands against the rest.
fn frames(out: &mut String, built: &Built) -> std::fmt::Result {
    if built.carried.is_empty() {
        return Ok(());
    }
    let planted = &built.emitted.replaced;
    let all = planted.iter().fold((0, 0), |(sites, of), f| {
        (sites + u64::from(f.coverage.sites), of + u64::from(f.coverage.of))
    });
    let new_locals: usize = built.carried.iter().map(|c| c.coverage().1).sum();
    let share = (all.0 * 100).checked_div(all.1).unwrap_or(100);
    write!(
        out,
        "live frames: {} of {} call sites in changed functions can be carried over ({share} %)",
        all.0, all.1
    )?;
    match new_locals {
        0 => writeln!(out)?,
        n => writeln!(out, "; {n} more wait only for locals that NEW adds")?,
    }
    for function in planted.iter().filter(|f| f.coverage.sites < f.coverage.of).take(ROWS) {
        let Some(index) = planted.iter().position(|f| std::ptr::eq(f, function)) else { continue };
        let blind = built.emitted.blind_points.iter().find(|b| {
            usize::try_from(b.function) == Ok(index)
                && b.kind == dsu_patch_format::plan::SiteKind::Return
        });
        let first = blind.map_or_else(String::new, |b| format!("  line {}: {}", b.line, b.why));
        let coverage = function.coverage;
        writeln!(
            out,
            "  frames   {}  {} of {}{first}",
            readable(&function.name),
            coverage.sites,
            coverage.of
        )?;
    }
    Ok(())
}

fn data(out: &mut String, built: &Built) -> std::fmt::Result {
    for change in built.data.changes.iter().chain(&built.emitted.data).take(ROWS) {
        let DataChange { name, action, why, .. } = change;
        let name = readable(name);
        let choose = match action {
            DataAction::KeptValue => format!(" (--data '{name}=new' overwrites it)"),
            _ => String::new(),
        };
        writeln!(out, "  data     {name}: {}: {why}{choose}", action_word(*action))?;
    }
    Ok(())
}

pub(super) fn action_word(action: DataAction) -> &'static str {
    match action {
        DataAction::Added => "added",
        DataAction::KeptValue => "kept",
        DataAction::UpdatedInPlace => "updated in place",
        DataAction::Moved => "moved",
        DataAction::Removed => "removed",
    }
}
