//! Is the comparison ever wrong?
//!
//! ```text
//! variants   each program built again from the same source, and with its functions shuffled: nothing to do
//! image      the linked program: functions, objects, references, relocations
//! sites      places where one byte changes the meaning of one function, with what must be reported
//! mutate     100 such changes in copies of the linked program: each found, nothing else reported
//! ```
//!
//! Reads ELF with `object` and decodes with `iced-x86`, by code of its own: nothing of the compiler is used
//! but its command line.

pub mod image;
pub mod mutate;
pub mod sites;
pub mod variants;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::corpus::Ladder;
use crate::report::Report;
use dsu_samples::tools::Tools;
use variants::Variants;

/// How many of `total` mutations the program at `index` of `programs` gets.
pub fn share(total: usize, programs: usize, index: usize) -> usize {
    total / programs + usize::from(index < total % programs)
}

/// All of it for one program and its variants.
pub fn run(
    tools: &Tools,
    ladder: &Ladder,
    variants: Result<Variants>,
    (mutations, seed): (usize, u64),
    report: &mut Report,
) {
    let key = ladder.recipe.key;
    let compare = || -> Result<()> {
        let dir = tempfile::TempDir::new()?;
        let last = &ladder.steps.last().context("a ladder has steps")?.program;
        twins(tools, key, (last, variants), dir.path(), report);
        mutations_of(tools, key, last, dir.path(), (mutations, seed), report)
    };
    if let Err(error) = compare() {
        report.failure(key, "comparison", &error);
    }
}

/// The builds that must not differ.
fn twins(
    tools: &Tools,
    key: &str,
    (last, variants): (&Path, Result<Variants>),
    dir: &Path,
    report: &mut Report,
) {
    let bundle = dir.join("bundle");
    match variants {
        Ok(variants) => {
            let again = variants::same(tools, last, &variants.again, &bundle);
            report.outcome(key, "the same source built again", again);
            let shuffled = variants::same(tools, last, &variants.shuffled, &bundle);
            report.outcome(key, "functions shuffled", shuffled);
        }
        Err(error) => report.failure(key, "variants", &error),
    }
}

/// The copies that must differ in one thing.
fn mutations_of(
    tools: &Tools,
    key: &str,
    last: &Path,
    dir: &Path,
    (count, seed): (usize, u64),
    report: &mut Report,
) -> Result<()> {
    let image = image::Image::read(last)?;
    let sites = mutate::choose(&image, count, seed);
    let (start, mut found) = (Instant::now(), 0);
    for (number, site) in sites.iter().enumerate() {
        match mutate::check(tools, last, &image, site, dir, number) {
            Ok(()) => found += 1,
            Err(error) => report.failure(key, &format!("mutation {number}"), &error),
        }
    }
    if found == sites.len() && found == count {
        let (kinds, lacking) = (mutate::counts(&sites), mutate::lacking(&sites));
        let lacking =
            if lacking.is_empty() { String::new() } else { format!("; none of {lacking:?}") };
        let took = start.elapsed().as_secs();
        let text =
            format!("{found} of {count} found, nothing else ({kinds}{lacking}), in {took} s");
        report.outcome(key, "mutations", Ok(text));
    } else if sites.len() < count {
        report.failure(
            key,
            "mutations",
            &anyhow::anyhow!("only {} sites, not {count}", sites.len()),
        );
    }
    Ok(())
}
