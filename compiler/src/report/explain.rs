//! `--explain FUNCTION`: both bodies as a diff, operands resolved to what they refer to.

use crate::Built;
use crate::change::{Verdict, describe, neutral};
use crate::code::{Body, Step, decode};
use crate::image::{FunctionId, Image};
use crate::matching::names::readable;
use dsu_patch_format::plan::SiteKind;
use iced_x86::{Formatter, IntelFormatter};
use similar::{ChangeTag, TextDiff};
use std::fmt::Write;

/// The explanation, or `None` when no build has a function of that name.
#[must_use]
pub fn explain(built: &Built, name: &str) -> Option<String> {
    let find = |image: &Image| {
        let exact = image.functions.iter().position(|f| f.names.iter().any(|n| n == name));
        let shown = || image.functions.iter().position(|f| readable(f.name()) == name);
        exact.or_else(shown).map(FunctionId)
    };
    let old = find(&built.old);
    let new = old.and_then(|o| built.matching.new_of(o)).or_else(|| find(&built.new));
    if old.is_none() && new.is_none() {
        return None;
    }
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, built, name, old, new);
    Some(out)
}

fn write(
    out: &mut String,
    built: &Built,
    name: &str,
    old: Option<FunctionId>,
    new: Option<FunctionId>,
) -> std::fmt::Result {
    let reasons = old.and_then(|o| built.closure.replaced.get(&o));
    let verdict = old.zip(new).and_then(|pair| built.comparisons.get(&pair)).map(|c| c.verdict);
    let word = match (old, new, reasons, verdict) {
        (Some(_), None, _, _) => "removed: NEW has no such function",
        (None, _, _, _) => "added: OLD has no such function",
        (_, _, Some(_), _) => "replaced",
        (_, _, None, Some(Verdict::LineOnly)) => "kept: only source line numbers in it changed",
        _ => "kept: equal in both builds",
    };
    writeln!(out, "{name}: {word}")?;
    for reason in reasons.into_iter().flatten() {
        writeln!(out, "  because {reason}")?;
    }
    if let Some(old) = old {
        frames(out, built, old)?;
    }
    let lines =
        |image: &Image, id: Option<FunctionId>| id.map_or_else(Vec::new, |id| listing(image, id));
    let (a, b) = (lines(&built.old, old), lines(&built.new, new));
    let refs = |l: &'_ [String]| l.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    let (a, b) = (refs(&a), refs(&b));
    for change in TextDiff::from_lines(&a, &b).iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => ' ',
        };
        writeln!(out, "{sign} {}", change.value().trim_end())?;
    }
    Ok(())
}

/// The function's checkpoint sites with their tables, and its blind points with their reasons.
fn frames(out: &mut String, built: &Built, old: FunctionId) -> std::fmt::Result {
    let entry = dsu_patch_format::OldAddr(built.old.function(old).address);
    let emitted = &built.emitted;
    let Some(index) = emitted.replaced.iter().position(|r| r.old == entry) else { return Ok(()) };
    let line = |at: u64, kind: SiteKind| {
        let call = if kind == SiteKind::Return { at.saturating_sub(1) } else { at };
        built.old.debug.position(call).map_or(0, |(_, line)| line)
    };
    for (site, table) in emitted.plan.sites.iter().zip(&emitted.frames) {
        if usize::try_from(site.function) == Ok(index) {
            let line = line(site.at.0, site.kind);
            writeln!(
                out,
                "  site {} ({:?}, line {line}) -> {}: {table}",
                site.at, site.kind, site.to
            )?;
        }
    }
    for blind in emitted.blind_points.iter().filter(|b| usize::try_from(b.function) == Ok(index)) {
        writeln!(
            out,
            "  blind {} ({:?}, line {}): {}",
            blind.at, blind.kind, blind.line, blind.why
        )?;
    }
    Ok(())
}

/// The instructions of a function without addresses, source lines between them.
fn listing(image: &Image, id: FunctionId) -> Vec<String> {
    let body = decode(image, image.function(id));
    let mut formatter = IntelFormatter::new();
    let mut out = Vec::new();
    let mut last = String::new();
    for step in &body.steps {
        if let Some((file, _)) = image.debug.position(step.address())
            && file != last
        {
            last = file.to_owned();
            out.push(format!("; {file}"));
        }
        out.push(format!("    {}", line(image, &body, step, &mut formatter)));
    }
    out
}

/// One instruction; addresses in it are replaced by names, targets inside by labels.
fn line(image: &Image, body: &Body, step: &Step, formatter: &mut IntelFormatter) -> String {
    let mut text = String::new();
    // The diff must not show addresses, which always differ.
    formatter.format(&neutral(step), &mut text);
    for reference in &step.references {
        let name = match body.index_at(reference.target) {
            Some(index) => format!("line {index}"),
            None => describe(image, reference.target),
        };
        let _ = write!(text, "  <{name}>");
    }
    text
}
