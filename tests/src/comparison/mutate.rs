//! Random changes in copies of a linked program: each must be found, and nothing else reported.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::image::Image;
use super::sites::{Expected, KINDS, Kind, Site, find};
use crate::tool::{self, Said};
use dsu_samples::tools::Tools;

/// Chooses `count` sites of `image`, all kinds in turn, each in a function of its own.
pub fn choose(image: &Image, count: usize, seed: u64) -> Vec<Site> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pools: Vec<Vec<Site>> = KINDS.iter().map(|kind| find(image, *kind)).collect();
    pools.iter_mut().for_each(|pool| pool.shuffle(&mut random));
    let mut used: HashSet<String> = HashSet::new();
    let mut chosen = Vec::new();
    while chosen.len() < count && pools.iter().any(|pool| !pool.is_empty()) {
        for pool in &mut pools {
            while let Some(site) = pool.pop() {
                let subject = site.text.split([':', '+']).next().unwrap_or("").to_owned();
                if used.insert(subject) {
                    chosen.push(site);
                    break;
                }
            }
        }
    }
    chosen.truncate(count);
    chosen
}

/// How many sites of each kind there are, for the report.
pub fn counts(sites: &[Site]) -> String {
    let list = KINDS.iter().map(|kind| (kind, sites.iter().filter(|s| s.kind == *kind).count()));
    list.map(|(kind, count)| format!("{kind:?} {count}")).collect::<Vec<_>>().join(", ")
}

/// Applies one change to a copy and asks dsu-build about it.
pub fn check(
    tools: &Tools,
    old: &Path,
    image: &Image,
    site: &Site,
    dir: &Path,
    number: usize,
) -> Result<()> {
    let mut bytes = image.bytes.clone();
    let place = bytes.get_mut(site.offset..site.offset + site.bytes.len());
    place.context("the site is in the file")?.copy_from_slice(&site.bytes);
    // Another build has another id.
    let (id, length) = image.build_id;
    for (byte, salt) in bytes[id..id + length].iter_mut().zip(number.to_le_bytes()) {
        *byte ^= salt ^ 0x5a;
    }
    let new = dir.join("mutated");
    std::fs::write(&new, &bytes)?;
    // Only the comparison is asked.
    let flags = ["--no-live-frames"];
    let said = tool::build(tools, old, &new, &dir.join("bundle"), &flags)?;
    ensure!([0, 4, 5].contains(&said.exit), "{}", said.summary());
    agrees(image, site, &said)
        .with_context(|| format!("{:?} {} (file offset {:#x})", site.kind, site.text, site.offset))
}

fn agrees(image: &Image, site: &Site, said: &Said) -> Result<()> {
    let changed: BTreeSet<u64> = said.changed().iter().map(|f| f.old_address).collect();
    let data = data_names(said);
    match &site.expected {
        Expected::Functions(wanted) => {
            ensure!(
                changed == *wanted,
                "expected {}, reported {}",
                names(image, wanted),
                names(image, &changed)
            );
            strange_data(image, &changed, &data)?;
        }
        Expected::FunctionAndCallers(function) => {
            let wanted = BTreeSet::from([*function]);
            ensure!(
                changed.contains(function),
                "missed {}; reported {}",
                names(image, &wanted),
                names(image, &changed)
            );
            unexplained(image, &changed, *function)?;
            strange_data(image, &changed, &data)?;
        }
        Expected::Object(name, users) => {
            let others = data.iter().filter(|d| plain(d) != plain(name)).collect::<Vec<_>>();
            ensure!(others.is_empty(), "expected object {name}, reported {others:?}");
            let strangers: BTreeSet<u64> = changed.difference(users).copied().collect();
            ensure!(strangers.is_empty(), "object {name}: reported {}", names(image, &strangers));
            if data.is_empty() && changed.is_empty() {
                bail!("missed object {name}");
            }
        }
    }
    Ok(())
}

/// Any other function reported must call or refer to a reported one.
fn unexplained(image: &Image, changed: &BTreeSet<u64>, function: u64) -> Result<()> {
    for address in changed.iter().filter(|a| **a != function) {
        let Some(caller) = image.functions.iter().find(|f| f.address == *address) else {
            bail!("reported a function at {address:#x} that the program does not have");
        };
        let refers = image.instructions(caller).iter().any(|(i, _)| {
            let to = if i.is_ip_rel_memory_operand() {
                i.ip_rel_memory_address()
            } else {
                i.near_branch_target()
            };
            to != *address && changed.contains(&to)
        });
        ensure!(refers, "reported {}, which refers to nothing that changed", caller.name);
    }
    Ok(())
}

/// Data reported beside functions must point into one of them: tables of a computed `goto`.
fn strange_data(image: &Image, changed: &BTreeSet<u64>, data: &[String]) -> Result<()> {
    let changed: Vec<_> = image.functions.iter().filter(|f| changed.contains(&f.address)).collect();
    let inside = |to: u64| changed.iter().any(|f| to > f.address && to < f.address + f.size);
    let labels = |name: &String| {
        let same = image.objects.iter().filter(|o| plain(&o.name) == plain(name));
        let mut ranges = same.map(|o| o.address..o.address + o.size);
        ranges.any(|r| image.pointers.iter().any(|p| r.contains(&p.place) && inside(p.target)))
    };
    let strange: Vec<_> = data.iter().filter(|name| !labels(name)).collect();
    ensure!(strange.is_empty(), "reported data: {strange:?}");
    Ok(())
}

fn data_names(said: &Said) -> Vec<String> {
    let kinds = ["added", "initializer_changed", "updated_in_place", "layout_changed"];
    kinds.iter().flat_map(|kind| said.data(kind)).collect()
}

/// A static's name without the compiler's number.
fn plain(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((before, number)) if number.chars().all(|c| c.is_ascii_digit()) => before,
        _ => name,
    }
}

fn names(image: &Image, addresses: &BTreeSet<u64>) -> String {
    let name = |a: &u64| {
        let function = image.functions.iter().find(|f| f.address == *a);
        function.map_or(format!("{a:#x}"), |f| f.name.clone())
    };
    format!("[{}]", addresses.iter().map(name).collect::<Vec<_>>().join(", "))
}

/// The kinds of which `image` has no site: said, so that nobody believes them tested.
pub fn lacking(sites: &[Site]) -> Vec<Kind> {
    KINDS.into_iter().filter(|kind| !sites.iter().any(|s| s.kind == *kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn numbers_of_statics_mean_nothing() {
        assert_eq!(plain("table.12"), "table");
        assert_eq!(plain("table"), "table");
        assert_eq!(plain("a.b"), "a.b");
    }
}
