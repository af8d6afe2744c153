//! Translation units that were renamed: `old.c` and `new.c`, `v1/shop.c` and `v2/shop.c`.
//!
//! Statics are known within their unit only, so a unit that got another name would lose them all.

use crate::image::Image;
use std::collections::{BTreeMap, BTreeSet};

/// Gives NEW's functions and variables the OLD name of their unit, where a unit that only NEW has
/// defines most of what one does that only OLD has.
pub fn align(old: &Image, new: &mut Image) {
    let (olds, news) = (contents(old), contents(new));
    let gone: Vec<_> = olds.iter().filter(|(unit, _)| !news.contains_key(*unit)).collect();
    let mut renamed = BTreeMap::new();
    for (unit, names) in news.iter().filter(|(unit, _)| !olds.contains_key(*unit)) {
        // Most names in common, and more than half of those of the smaller one.
        let common = |other: &BTreeSet<String>| names.intersection(other).count();
        let best = gone.iter().max_by_key(|(_, other)| common(other));
        let found = best.filter(|(_, o)| common(o) * 2 > names.len().min(o.len()));
        if let Some((from, _)) = found {
            renamed.insert(unit.clone(), (*from).clone());
        }
    }
    // Two that claim the same one: nobody knows which it is.
    let mut claims: BTreeMap<&String, usize> = BTreeMap::new();
    renamed.values().for_each(|from| *claims.entry(from).or_default() += 1);
    let sure = |unit: &String| renamed.get(unit).filter(|from| claims[from] == 1).cloned();
    for unit in new.functions.iter_mut().map(|f| &mut f.unit) {
        *unit = sure(unit).unwrap_or_else(|| std::mem::take(unit));
    }
    for unit in new.objects.iter_mut().map(|o| &mut o.unit) {
        *unit = sure(unit).unwrap_or_else(|| std::mem::take(unit));
    }
}

/// What each unit defines.
fn contents(image: &Image) -> BTreeMap<String, BTreeSet<String>> {
    let mut units: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let functions = image.functions.iter().filter(|f| f.import.is_none());
    for (unit, name) in functions.map(|f| (&f.unit, f.name())) {
        units.entry(unit.clone()).or_default().insert(super::names::canonical(name));
    }
    for (unit, name) in image.objects.iter().map(|o| (&o.unit, o.name())) {
        units.entry(unit.clone()).or_default().insert(super::names::canonical(name));
    }
    units.remove("");
    units
}
