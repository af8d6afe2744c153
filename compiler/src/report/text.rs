//! The short table for people.

use super::layout::{columns, shown, wrapped};
use super::points::{groups, list, points};
use crate::matching::names::readable;
use crate::refusal::Refusal;
use crate::{Built, Outcome};
use dsu_patch_format::manifest::{Coverage, DataAction, DataChange, ReplacedFunction};
use std::fmt::{Result, Write};

/// Rows of one list before it is cut.
const ROWS: usize = 40;
/// Reasons of blind points told of one function; `--explain` tells all.
const REASONS: usize = 3;
/// Names that are longer do not push the columns behind them.
const NAME: usize = 36;
/// Where the second line of an entry begins.
const HANG: usize = 11;

/// The report; `bundle` is where the patch was written, with its size in bytes.
#[must_use]
pub fn text(built: &Built, bundle: Option<(&str, usize)>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, built, bundle);
    shown(&out)
}

fn write(out: &mut String, built: &Built, bundle: Option<(&str, usize)>) -> Result {
    header(out, built);
    functions(out, built)?;
    live_frames(out, built);
    data(out, built);
    for warning in &built.warnings {
        wrapped(out, "warning: ", 2, warning);
    }
    for refusal in &built.refusals {
        let Refusal { code, text, way_out, .. } = refusal;
        wrapped(out, &format!("refused [{code}]: "), 2, text);
        wrapped(out, "  way out: ", 4, way_out);
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

fn header(out: &mut String, built: &Built) {
    let side = |file: &str, id: &str| format!("{file} {}", id.chars().take(12).collect::<String>());
    let old = side(&built.old.file, &built.old.build_id);
    let new = side(&built.new.file, &built.new.build_id);
    wrapped(out, "", 2, &format!("{old} -> {new}"));
    let lines = match built.line_only().len() {
        0 => String::new(),
        n => {
            format!("; {n} kept that differ by line numbers alone (--line-numbers replaces them)")
        }
    };
    let (compared, replaced) = (built.comparisons.len(), built.closure.replaced.len());
    let (added, removed) = (built.emitted.added.len(), removed(built).count());
    let counts = format!(
        "{compared} functions compared, {replaced} replaced, {added} added, {removed} removed{lines}"
    );
    wrapped(out, "", 2, &counts);
}

fn removed(built: &Built) -> impl Iterator<Item = &ReplacedFunction> {
    built.emitted.replaced.iter().filter(|f| f.new.is_none())
}

fn functions(out: &mut String, built: &Built) -> Result {
    let replaced = &built.closure.replaced;
    let names: Vec<String> =
        replaced.keys().map(|f| readable(built.old.function(*f).name())).collect();
    let added: Vec<String> = built.emitted.added.iter().map(|a| readable(&a.name)).collect();
    let fits = names.iter().chain(&added).map(|name| columns(name)).filter(|w| *w <= NAME);
    let width = fits.max().unwrap_or(0);
    for ((id, why), name) in replaced.iter().zip(&names).take(ROWS) {
        let old = built.old.function(*id);
        let new = built.matching.new_of(*id).map(|n| built.new.function(n).size);
        let sizes = new.map_or_else(String::new, |new| format!("{:>6} -> {new:<6}", old.size));
        let entry = dsu_patch_format::OldAddr(old.address);
        let index = built.emitted.replaced.iter().position(|r| r.old == entry);
        let frames = index.map(|i| built.emitted.replaced[i].coverage).filter(|c| c.of > 0);
        let sites = frames.map_or_else(String::new, |c| format!("{} of {} sites", c.sites, c.of));
        let line = format!("  changed  {name:width$}  {sizes}  {sites}");
        writeln!(out, "{}", line.trim_end())?;
        let first = why.first().map_or("", String::as_str);
        wrapped(out, &" ".repeat(HANG), HANG + 2, first);
        blind(out, built, index, name);
    }
    more(out, replaced.len())?;
    for (added, name) in built.emitted.added.iter().zip(&added).take(ROWS) {
        writeln!(out, "  added    {name:width$}  {:>6} -> {}", "", added.size)?;
    }
    more(out, added.len())?;
    for function in removed(built).take(ROWS) {
        writeln!(out, "  removed  {}", readable(&function.name))?;
    }
    more(out, removed(built).count())
}

fn more(out: &mut String, all: usize) -> Result {
    match all.saturating_sub(ROWS) {
        0 => Ok(()),
        n => writeln!(out, "  ... and {n} more"),
    }
}

/// The blind points of a function by reason, those that concern most points first.
fn blind(out: &mut String, built: &Built, index: Option<usize>, name: &str) {
    let Some(index) = index else { return };
    let points = points(built, index);
    let groups = groups(&points);
    for group in groups.iter().take(REASONS) {
        let text = format!("blind at {}: {}", list(&group.places), group.why);
        wrapped(out, &" ".repeat(HANG), HANG + 2, &text);
    }
    let left: usize = groups.iter().skip(REASONS).map(|group| group.count).sum();
    if left > 0 {
        let text = format!("and {left} more blind points: --explain '{name}' shows all");
        wrapped(out, &" ".repeat(HANG), HANG + 2, &text);
    }
}

/// Call sites of which frames can be carried over, in words.
pub(super) fn coverage(coverage: Coverage) -> String {
    let Coverage { sites, passing, new_locals, of } = coverage;
    let carried = sites + passing;
    let share = (u64::from(carried) * 100).checked_div(u64::from(of)).unwrap_or(100);
    let later = match passing {
        0 => String::new(),
        n => format!("; {n} of them a little later, from the next point that OLD's code comes to"),
    };
    let only = match new_locals {
        0 => String::new(),
        n => format!("; {n} more wait only for variables that NEW adds"),
    };
    format!("{carried} of {of} call sites ({share} %{later}{only})")
}

/// All functions together.
pub(super) fn all_coverage(built: &Built) -> Coverage {
    built.emitted.replaced.iter().fold(Coverage::default(), |sum, f| Coverage {
        sites: sum.sites + f.coverage.sites,
        passing: sum.passing + f.coverage.passing,
        new_locals: sum.new_locals + f.coverage.new_locals,
        of: sum.of + f.coverage.of,
    })
}

/// How many of the places where frames may wait can be carried over.
fn live_frames(out: &mut String, built: &Built) {
    if !built.carried.is_empty() {
        let text =
            format!("{} in changed functions can be carried over", coverage(all_coverage(built)));
        wrapped(out, "live frames: ", 2, &text);
    }
}

fn data(out: &mut String, built: &Built) {
    let all = || built.data.changes.iter().chain(&built.emitted.data);
    for change in all().take(ROWS) {
        let DataChange { name, action, why, .. } = change;
        let name = readable(name);
        let choose = match action {
            DataAction::KeptValue => format!(" (--data '{name}=new' overwrites it)"),
            _ => String::new(),
        };
        let text = format!("{name}: {}: {why}{choose}", action_word(*action));
        wrapped(out, "  data     ", HANG + 2, &text);
    }
    // Writing to a String cannot fail.
    let _ = more(out, all().count());
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
