//! The last step of a ladder built twice more: as it was, and with its functions in another order.
//!
//! Shuffled means `-ffunction-sections` and the linker's own script with one line for each function, in random
//! order. Both must compare as "nothing to do".

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSymbol, SymbolKind};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::corpus::Ladder;
use crate::tool;
use dsu_samples::tools::Tools;

/// dsu-build's exit code for two builds without differences.
const NOTHING: i32 = 5;

/// Two builds of what the last step was built from.
#[derive(Debug)]
pub struct Variants {
    /// Built again.
    pub again: PathBuf,
    /// With functions shuffled.
    pub shuffled: PathBuf,
}

/// Builds both variants, or takes them from the cache.
pub fn build(ladder: &Ladder) -> Result<Variants> {
    let home = ladder.tree.parent().context("the tree has a home")?;
    let dir = home.join("variants");
    let last = ladder.steps.last().context("a ladder has steps")?;
    let program = last.program.file_name().context("programs have names")?;
    let variants = Variants {
        again: dir.join("again").join(program),
        shuffled: dir.join("shuffled").join(program),
    };
    let stamp = std::fs::read_to_string(home.join("stamp"))?;
    if std::fs::read_to_string(dir.join("stamp")).is_ok_and(|s| s == stamp) {
        return Ok(variants);
    }
    std::fs::create_dir_all(&dir)?;
    let script = dir.join("shuffled.ld");
    std::fs::write(&script, shuffled_script(&last.program)?)?;
    let link = format!(" -Wl,-T,{}", script.display());
    ladder.remake(" -ffunction-sections", &link, &dir.join("shuffled"))?;
    // The plain one comes last, so that the tree stays as the ladder left it.
    ladder.remake("", "", &dir.join("again"))?;
    ensure!(
        is_shuffled(&last.program, &variants.shuffled)?,
        "the linker kept the order of the functions"
    );
    std::fs::write(dir.join("stamp"), stamp)?;
    Ok(variants)
}

/// Two builds that must not differ: an error says what dsu-build found.
pub fn same(tools: &Tools, old: &Path, new: &Path, bundle: &Path) -> Result<String> {
    let said = tool::build(tools, old, new, bundle, &[])?;
    let names: Vec<String> = said.changed().into_iter().map(|f| f.name).collect();
    let some = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    ensure!(
        said.exit == NOTHING && names.is_empty(),
        "expected nothing to do: {} changed ({some}); {} ({})",
        names.len(),
        said.summary(),
        said.command
    );
    Ok(format!("nothing to do, in {} ms", said.took.as_millis()))
}

/// The linker's script for position independent programs, with every function of `program` on a line of its own.
fn shuffled_script(program: &Path) -> Result<String> {
    let out = Command::new("gcc").args(["-pie", "-Wl,--verbose"]).env("LC_ALL", "C").output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let script = text.split("==================================================").nth(1);
    let script = script.context("ld --verbose shows no linker script")?;
    let mut names: Vec<String> = function_order(program)?;
    names.sort_unstable();
    names.dedup();
    names.shuffle(&mut StdRng::seed_from_u64(1));
    let lines: String = names.iter().map(|name| format!("    *(.text.{name})\n")).collect();
    let place = "*(.text .stub";
    ensure!(script.contains(place), "the linker script has no {place}");
    Ok(script.replacen(place, &format!("\n{lines}    {place}"), 1))
}

/// The names of all functions, by address.
fn function_order(program: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(program)?;
    let file = object::File::parse(&*bytes)?;
    let mut list = Vec::new();
    for symbol in file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.size() > 0) {
        list.push((symbol.address(), symbol.name()?.to_owned()));
    }
    list.sort();
    Ok(list.into_iter().map(|(_, name)| name).collect())
}

/// At least a quarter of the functions follow another one than before: a bundled library, as memcached's Lua,
/// may have been built with flags of its own.
fn is_shuffled(old: &Path, new: &Path) -> Result<bool> {
    let pairs = |names: Vec<String>| -> std::collections::HashSet<(String, String)> {
        names.windows(2).map(|w| (w[0].clone(), w[1].clone())).collect()
    };
    let (old, new) = (pairs(function_order(old)?), pairs(function_order(new)?));
    Ok(old.intersection(&new).count() * 4 < old.len() * 3)
}
