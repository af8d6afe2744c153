//! Anchors: every address that something in the image refers to. Constants without a symbol
//! (strings, tables of a `switch`, aggregate initializers) have no size in a linked file; one ends
//! at the latest where the next anchor begins.

use super::{Image, SectionKind};
use crate::code::for_each_reference;
use rayon::prelude::*;

/// All addresses that code and data refer to, ascending, unique.
pub(super) fn referred(image: &Image) -> Vec<u64> {
    let mut anchors: Vec<u64> = image
        .functions
        .par_iter()
        .flat_map_iter(|function| {
            let mut targets = Vec::new();
            for part in function.parts() {
                for_each_reference(image, part, |reference| targets.push(reference.target));
            }
            targets
        })
        .collect();
    for object in &image.objects {
        anchors.extend(crate::change::offset_table(image, object, object.size));
    }
    for relocation in image.relocations.values() {
        if let super::Meaning::Address(target) = relocation.meaning {
            anchors.push(target);
        }
    }
    for relocation in &image.static_relocations {
        if relocation.kind == object::elf::R_X86_64_64
            && let Some(value) = image.word(relocation.at)
        {
            anchors.push(value);
        }
    }
    anchors.par_sort_unstable();
    anchors.dedup();
    anchors
}

/// Bounds of anonymous constants, ascending, unique: what is referred to, and what has bounds.
pub(super) fn collect(image: &Image) -> Vec<u64> {
    let mut anchors = image.referred.clone();
    anchors.extend(image.objects.iter().flat_map(|o| [o.address, o.range().end]));
    anchors.extend(image.sections.iter().map(super::Section::end));
    anchors.par_sort_unstable();
    anchors.dedup();
    anchors
}

impl Image {
    /// The first anchor behind an address.
    #[must_use]
    pub fn next_anchor(&self, address: u64) -> u64 {
        let after = self.anchors.partition_point(|a| *a <= address);
        self.anchors.get(after).copied().unwrap_or(u64::MAX)
    }

    /// Whether an operand or a pointer leads into a range.
    #[must_use]
    pub fn is_referred_to(&self, range: &std::ops::Range<u64>) -> bool {
        let first = self.referred.partition_point(|a| *a < range.start);
        self.referred.get(first).is_some_and(|a| range.contains(a))
    }

    /// Where the anonymous constants around an address must have ended: the next object, function
    /// or section end. Never too short, often too long; what the shadow image carries.
    #[must_use]
    pub fn constant_zone(&self, address: u64) -> Option<std::ops::Range<u64>> {
        let section = self.section_at(address)?;
        let (mut start, mut end) = (section.address, section.end());
        let mut limit = |from: u64, to: u64| {
            if to <= address {
                start = start.max(to);
            } else if from > address {
                end = end.min(from);
            }
        };
        let plain = &self.objects[..self.plain_objects];
        let next = plain.partition_point(|o| o.address <= address);
        for object in plain[next.saturating_sub(8)..].iter().take(10).filter(|o| o.size > 0) {
            limit(object.address, object.range().end);
        }
        if section.kind == SectionKind::Text {
            let next = self.functions.partition_point(|f| f.address <= address);
            for function in self.functions[next.saturating_sub(8)..].iter().take(10) {
                limit(function.address, function.main().end);
            }
            for (range, _) in &self.cold_index {
                limit(range.start, range.end);
            }
        }
        Some(start..end)
    }
}
