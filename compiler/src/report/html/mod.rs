//! `--report FILE`: all that is known of a build as one page that needs nothing else.
//!
//! Takes what was found; gives HTML without scripts and without references to other files, the same bytes
//! for the same inputs. Everything that comes from the builds goes through [`escape`].
//!
//! | module | holds |
//! |---|---|
//! | here | the page: verdict, builds, refusals, warnings, data |
//! | [`functions`] | a section for each function |
//! | [`source`] | source lines with their sites and blind points |
//! | [`escape`] | text as text |

mod escape;
mod functions;
mod source;

use super::text::{action_word, all_coverage, coverage};
use crate::image::Image;
use crate::matching::names::readable;
use crate::{Built, Options, Outcome};
use escape::Text;
use functions::Subject;
use source::Sources;
use std::fmt::{Result, Write};

const STYLE: &str = include_str!("style.css");

/// The page.
#[must_use]
pub fn html(built: &Built, options: &Options) -> String {
    let mut out = String::new();
    let subjects = functions::subjects(built);
    let mut sources = Sources::new(&options.old);
    // Writing to a String cannot fail.
    let _ = page(&mut out, built, options, &subjects, &mut sources);
    out
}

fn page(
    out: &mut String,
    built: &Built,
    options: &Options,
    subjects: &[Subject],
    sources: &mut Sources,
) -> Result {
    head(out, built)?;
    writeln!(out, "<main id=\"main\">")?;
    verdict(out, built, subjects)?;
    refusals(out, built)?;
    warnings(out, built)?;
    builds(out, built, options)?;
    writeln!(out, "<section aria-labelledby=\"functions\"><h2 id=\"functions\">Functions</h2>")?;
    match subjects {
        [] => writeln!(out, "<p>No function is replaced, added or removed.</p>")?,
        some => functions::overview(out, built, some)?,
    }
    kept(out, built)?;
    writeln!(out, "</section>")?;
    data(out, built)?;
    if !subjects.is_empty() {
        writeln!(out, "<h2 id=\"one\">Function by function</h2>")?;
    }
    for (number, subject) in subjects.iter().enumerate() {
        functions::section(out, built, sources, number, subject)?;
    }
    legend(out)?;
    writeln!(out, "</main></body></html>")
}

fn head(out: &mut String, built: &Built) -> Result {
    let (old, new) = (short(&built.old), short(&built.new));
    let (file, other) = (&built.old.file, &built.new.file);
    let other = if file == other { String::new() } else { format!("{other} ") };
    let title = format!("{} {old} → {}{new}", Text(file), Text(&other));
    writeln!(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    // Nothing is loaded and nothing runs, whatever is in a name.
    writeln!(
        out,
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    )?;
    writeln!(out, "<meta name=\"color-scheme\" content=\"light dark\">")?;
    writeln!(out, "<title>dsu-build: {title}</title>\n<style>\n{STYLE}</style></head><body>")?;
    writeln!(out, "<a class=\"skip\" href=\"#main\">Skip to the report</a>")?;
    writeln!(out, "<header><h1>{title}</h1>")?;
    writeln!(out, "<nav aria-label=\"Parts of the report\"><ul>")?;
    for (part, name) in [("builds", "Builds"), ("functions", "Functions"), ("data", "Data")] {
        writeln!(out, "<li><a href=\"#{part}\">{name}</a></li>")?;
    }
    if !built.warnings.is_empty() {
        writeln!(out, "<li><a href=\"#warnings\">Warnings</a></li>")?;
    }
    writeln!(out, "<li><a href=\"#legend\">Words</a></li></ul></nav></header>")
}

/// The first digits of a build id, as the text report has them.
fn short(image: &Image) -> String {
    image.build_id.chars().take(12).collect()
}

fn verdict(out: &mut String, built: &Built, subjects: &[Subject]) -> Result {
    let (class, words) = match built.outcome {
        Outcome::Written => ("good", "Can be put into running processes"),
        Outcome::NothingToDo => ("good", "Nothing to do: both builds do the same"),
        Outcome::Refused => ("bad", "Refused: cannot be put into a running process as it is"),
    };
    writeln!(
        out,
        "<p class=\"verdict {class}\"><strong>{words}</strong></p><dl class=\"figures\">"
    )?;
    let of = |what| subjects.iter().filter(|s| s.what == what).count();
    let figures = [
        ("compared", built.comparisons.len()),
        ("replaced", of("replaced")),
        ("added", of("added")),
        ("removed", of("removed")),
        ("refusals", built.refusals.len()),
        ("warnings", built.warnings.len()),
    ];
    for (name, count) in figures {
        writeln!(out, "<div><dt>{name}</dt><dd>{count}</dd></div>")?;
    }
    writeln!(out, "</dl>")?;
    if built.carried.is_empty() {
        return Ok(());
    }
    let all = all_coverage(built);
    writeln!(out, "<p>Live frames: {} can be carried over.</p>", coverage(all))
}

fn refusals(out: &mut String, built: &Built) -> Result {
    if built.refusals.is_empty() {
        return Ok(());
    }
    writeln!(out, "<section aria-labelledby=\"refusals\"><h2 id=\"refusals\">Refusals</h2>")?;
    for refusal in &built.refusals {
        writeln!(out, "<div class=\"refusal\"><h3>{}</h3>", Text(&refusal.text))?;
        writeln!(out, "<p><strong>Way out:</strong> {}</p>", Text(&refusal.way_out))?;
        writeln!(out, "<p class=\"note\"><code>{}</code></p></div>", Text(refusal.code))?;
    }
    writeln!(out, "</section>")
}

fn warnings(out: &mut String, built: &Built) -> Result {
    if built.warnings.is_empty() {
        return Ok(());
    }
    writeln!(out, "<section aria-labelledby=\"warnings\"><h2 id=\"warnings\">Warnings</h2><ul>")?;
    for warning in &built.warnings {
        writeln!(out, "<li>{}</li>", Text(warning))?;
    }
    writeln!(out, "</ul></section>")
}

fn builds(out: &mut String, built: &Built, options: &Options) -> Result {
    writeln!(out, "<section aria-labelledby=\"builds\"><h2 id=\"builds\">Builds</h2>")?;
    writeln!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Builds\"><table>"
    )?;
    writeln!(
        out,
        "<thead><tr><td></td><th scope=\"col\">OLD</th><th scope=\"col\">NEW</th></tr></thead><tbody>"
    )?;
    let debug = |image: &Image| {
        image.debug_file.as_ref().map_or_else(|| "in the file".to_owned(), |d| d.file.clone())
    };
    let (old, new) = (&built.old, &built.new);
    for (name, a, b) in [
        ("File", old.file.clone(), new.file.clone()),
        ("Build id", old.build_id.clone(), new.build_id.clone()),
        ("SHA-256", old.sha256.clone(), new.sha256.clone()),
        ("Debug information", debug(old), debug(new)),
    ] {
        let (a, b) = (Text(&a), Text(&b));
        writeln!(
            out,
            "<tr><th scope=\"row\">{name}</th><td><code>{a}</code></td><td><code>{b}</code></td></tr>"
        )?;
    }
    writeln!(out, "</tbody></table></div>")?;
    let recorded = match options.recorded.as_slice() {
        [] => "none".to_owned(),
        some => some.join(" "),
    };
    let tool = concat!("dsu-build ", env!("CARGO_PKG_VERSION"));
    writeln!(out, "<p>Made by {tool}; options: <code>{}</code></p></section>", Text(&recorded))
}

/// Functions that differ and are kept all the same.
fn kept(out: &mut String, built: &Built) -> Result {
    let names = built.line_only();
    if names.is_empty() {
        return Ok(());
    }
    let count = names.len();
    writeln!(
        out,
        "<details><summary>{count} kept that differ by line numbers alone</summary><ul>"
    )?;
    for name in names {
        writeln!(out, "<li><code>{}</code></li>", Text(&readable(&name)))?;
    }
    writeln!(out, "</ul></details>")
}

fn data(out: &mut String, built: &Built) -> Result {
    writeln!(out, "<section aria-labelledby=\"data\"><h2 id=\"data\">Data</h2>")?;
    let changes: Vec<_> = built.data.changes.iter().chain(&built.emitted.data).collect();
    if changes.is_empty() {
        return writeln!(out, "<p>No variable or table changes.</p></section>");
    }
    writeln!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Data\"><table>"
    )?;
    writeln!(
        out,
        "<thead><tr><th scope=\"col\">Object</th><th scope=\"col\">What is done</th><th scope=\"col\" class=\"number\">Bytes</th><th scope=\"col\">Why</th></tr></thead><tbody>"
    )?;
    for change in changes {
        let (name, why) = (readable(&change.name), Text(&change.why));
        write!(out, "<tr><th scope=\"row\"><code>{}</code></th>", Text(&name))?;
        write!(out, "<td>{}</td>", action_word(change.action))?;
        write!(out, "<td class=\"number\">{} → {}</td>", change.old_size, change.new_size)?;
        writeln!(out, "<td>{why}</td></tr>")?;
    }
    writeln!(out, "</tbody></table></div></section>")
}

fn legend(out: &mut String) -> Result {
    writeln!(
        out,
        "<section aria-labelledby=\"legend\"><h2 id=\"legend\">Words</h2><dl class=\"words\">"
    )?;
    for (word, meaning) in [
        ("replaced", "its body, or something that it refers to, differs: calls lead to NEW's body"),
        (
            "site",
            "a point of OLD from which a waiting frame goes on in NEW: each of its values has a proven source",
        ),
        (
            "blind point",
            "a point of OLD without such a proof: the update waits until no thread is there",
        ),
        (
            "[cfa-24]:8",
            "8 bytes of the frame, 24 below the stack pointer before the function was called",
        ),
        ("touched line", "a source line of which some instruction is not in NEW"),
    ] {
        writeln!(out, "<div><dt>{word}</dt><dd>{meaning}</dd></div>")?;
    }
    writeln!(out, "</dl></section>")
}
