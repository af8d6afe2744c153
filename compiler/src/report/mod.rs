//! What a person, or a tool, should know of a build.
//!
//! Takes what [`crate::build`] found; decides nothing.
//!
//! | module | gives |
//! |---|---|
//! | [`text`] | the short table for people |
//! | [`explain`] | one function: reasons, frames, both bodies |
//! | [`html`] | all of it as a page |
//! | [`json`] | one object for tools |
//! | [`points`], [`words`] | where frames may wait, and what becomes of them in words |
//! | [`bodies`] | two bodies as a diff |
//! | [`layout`] | text in eighty columns |

mod bodies;
mod explain;
mod html;
mod json;
mod layout;
mod points;
mod text;
mod words;

pub use explain::explain;
pub use html::html;
pub use json::json;
pub use text::text;

use crate::change::Pair;
use crate::frames::Carried;
use crate::image::FunctionId;
use crate::matching::names::readable;
use dsu_patch_format::dump::printable;
use dsu_patch_format::frames::{Proof, Value};
use std::collections::BTreeMap;

/// Warnings that follow from who is replaced.
#[must_use]
pub fn warnings(pair: Pair<'_>, stuck: &[FunctionId]) -> Vec<String> {
    let mut out = Vec::new();
    for function in stuck {
        let name = pair.old.function(*function).name();
        if matches!(name, "main" | "_start") {
            out.push(format!(
                "{} changed, is on the stack for as long as the process runs, and nowhere can its \
                 frame be carried over: dsu-apply will wait for it in vain",
                readable(name)
            ));
        }
    }
    out.extend(constructors(pair));
    for warning in pair.old.debug.warnings.iter().chain(&pair.new.debug.warnings).take(5) {
        out.push(format!("debug information: {warning}"));
    }
    out
}

/// Locals that begin anew in frames which go on in NEW (`--init-new-locals`).
#[must_use]
pub fn new_locals(pair: Pair<'_>, carried: &[Carried]) -> Vec<String> {
    let mut all: BTreeMap<(FunctionId, &str, u64), usize> = BTreeMap::new();
    for one in carried {
        for step in one.proven.iter().flat_map(|p| &p.translation.moves) {
            if let (Proof::NewLocal(name), Value::Constant(number)) = (&step.proof, &step.from) {
                *all.entry((one.function, name, *number)).or_default() += 1;
            }
        }
    }
    let text = |((function, name, number), points): ((FunctionId, &str, u64), usize)| {
        let function = readable(pair.old.function(function).name());
        let points = if points == 1 { "1 point".into() } else { format!("{points} points") };
        format!(
            "{function}: the new variable `{name}` begins with {number} in a frame that goes on in \
             NEW, at {points} (--init-new-locals)"
        )
    };
    all.into_iter().map(text).collect()
}

/// Names given with `--map` that no function has: a slip of the pen would otherwise map nothing.
#[must_use]
pub fn unknown_renames(pair: Pair<'_>, renames: &[(String, String)]) -> Vec<String> {
    use crate::image::Image;
    let missing =
        |image: &Image, name: &String| image.functions.iter().all(|f| !f.names.contains(name));
    let told = |from: &String, to: &String, side: &str, name: &String| {
        format!("--map {from}={to}: {side} has no function {}", printable(name))
    };
    let old = renames.iter().filter(|(from, _)| missing(pair.old, from));
    let new = renames.iter().filter(|(_, to)| missing(pair.new, to));
    let old = old.map(|(from, to)| told(from, to, "OLD", from));
    old.chain(new.map(|(from, to)| told(from, to, "NEW", to))).collect()
}

/// Functions that only NEW runs at start-up: they will not run.
fn constructors(pair: Pair<'_>) -> Vec<String> {
    use crate::image::{Image, Meaning, Thing};
    let list = |image: &Image| -> Vec<String> {
        let tables = image.sections.iter().filter(|s| s.name.starts_with(".init_array"));
        tables
            .flat_map(|s| image.relocations.range(s.address..s.end()))
            .filter_map(|(_, relocation)| match relocation.meaning {
                Meaning::Address(to) => match image.resolve(to) {
                    Thing::Code { function, .. } => {
                        Some(image.function(function).name().to_owned())
                    }
                    _ => None,
                },
                _ => None,
            })
            .collect()
    };
    let old = list(pair.old);
    list(pair.new)
        .into_iter()
        .filter(|name| !old.contains(name))
        .map(|name| format!("{} runs at start-up in NEW only: it will not be run", readable(&name)))
        .collect()
}
