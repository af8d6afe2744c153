//! Slots that the dynamic linker fills: which slot of OLD holds what a slot of NEW would.

use crate::change::{Pair, same_slot};
use crate::image::{DynamicRelocation, Image, Meaning};
use std::collections::HashMap;

/// OLD's slots by the name of what they hold.
#[derive(Debug, Default)]
pub(super) struct Slots {
    by_name: HashMap<String, Vec<(u64, DynamicRelocation)>>,
}

impl Slots {
    /// Indexes OLD's slots.
    pub(super) fn new(old: &Image) -> Self {
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for (at, relocation) in all(old) {
            by_name.entry(name(&relocation)).or_default().push((at, relocation));
        }
        Self { by_name }
    }

    /// The OLD slot that holds the same as a NEW one.
    pub(super) fn find(&self, pair: Pair<'_>, slot: &DynamicRelocation) -> Option<u64> {
        let candidates = self.by_name.get(&name(slot))?;
        candidates.iter().find(|(_, old)| same_slot(pair, old, slot)).map(|(at, _)| *at)
    }
}

/// Every slot of an image.
pub(super) fn all(image: &Image) -> impl Iterator<Item = (u64, DynamicRelocation)> + '_ {
    let tables = image.sections.iter().filter(|s| s.name.starts_with(".got"));
    tables.flat_map(|section| {
        image.relocations.range(section.address..section.end()).map(|(at, r)| (*at, r.clone()))
    })
}

fn name(slot: &DynamicRelocation) -> String {
    match &slot.meaning {
        Meaning::Symbol(symbol, _) | Meaning::Copy(symbol) => symbol.name.clone(),
        Meaning::ThreadLocal(_, Some(symbol), _) => symbol.name.clone(),
        _ => String::new(),
    }
}
