//! The parts of NEW that the shadow image carries, as ranges; segments are made of them at the end.

use crate::image::{Image, SectionKind};
use crate::refusal::Refusal;
use dsu_patch_format::NewAddr;
use dsu_patch_format::plan::{Protection, Segment};
use dsu_patch_format::validate::PAGE;
use std::collections::BTreeMap;

/// Ranges of NEW's addresses, merged where they touch or overlap, with what is not NEW's own bytes.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Start to end and protection.
    ranges: Vec<(u64, u64, Protection)>,
    /// Bytes put over NEW's: jumps at kept functions' places.
    over: BTreeMap<u64, Vec<u8>>,
}

impl Pieces {
    /// Carries `[start, end)` of NEW.
    pub(super) fn add(&mut self, start: u64, end: u64, protection: Protection) {
        if start < end {
            self.ranges.push((start, end, protection));
        }
    }

    /// Carries other bytes than NEW's at a place.
    pub(super) fn put(&mut self, start: u64, bytes: Vec<u8>, protection: Protection) {
        self.add(start, start + bytes.len() as u64, protection);
        self.over.insert(start, bytes);
    }

    /// Whether an address is carried.
    pub(super) fn contains(&self, address: u64) -> bool {
        self.ranges.iter().any(|(s, e, _)| *s <= address && address < *e)
    }

    /// The segments: pages with pieces of two kinds get the kind that serves both.
    pub(super) fn segments(mut self, image: &Image) -> Result<Vec<Segment>, Refusal> {
        let mut pages: BTreeMap<u64, Protection> = BTreeMap::new();
        for (start, end, protection) in &self.ranges {
            for page in start / PAGE..end.div_ceil(PAGE) {
                let there = pages.entry(page).or_insert(*protection);
                *there = join(*there, *protection).ok_or_else(|| mixed(page * PAGE))?;
            }
        }
        self.ranges.sort_unstable();
        let mut merged: Vec<(u64, u64, Protection)> = Vec::new();
        for (start, end, _) in self.ranges.drain(..) {
            let mut from = start;
            while from < end {
                let to = end.min((from / PAGE + 1) * PAGE);
                let protection = pages[&(from / PAGE)];
                match merged.last_mut() {
                    Some(last) if last.1 >= from && last.2 == protection => last.1 = last.1.max(to),
                    // What begins on a page of another kind begins behind what was there.
                    Some(last) if last.1 > from => {
                        let rest = last.1.max(from);
                        if rest < to {
                            merged.push((rest, to, protection));
                        }
                    }
                    _ => merged.push((from, to, protection)),
                }
                from = to;
            }
        }
        Ok(merged.into_iter().flat_map(|m| self.segment(image, m)).collect())
    }

    /// One range as segments: a part with bytes, then a part of zeroes.
    fn segment(
        &self,
        image: &Image,
        (start, end, protection): (u64, u64, Protection),
    ) -> Vec<Segment> {
        let mut bytes: Vec<u8> = Vec::new();
        let mut at = start;
        let mut stored = 0;
        while at < end {
            let section = image.section_at(at);
            let to = section.map_or_else(
                || {
                    image
                        .sections
                        .iter()
                        .map(|s| s.address)
                        .filter(|a| *a > at)
                        .min()
                        .unwrap_or(end)
                },
                crate::image::Section::end,
            );
            let to = to.min(end);
            let part = image.content(at, to - at).unwrap_or_default();
            bytes.extend_from_slice(&part);
            bytes.resize(usize::try_from(to - start).unwrap_or(0), 0);
            if section.is_some_and(|s| !s.file.is_empty()) {
                stored = bytes.len();
            }
            at = to;
        }
        for (place, over) in self.over.range(start..end) {
            let from = usize::try_from(place - start).unwrap_or(usize::MAX);
            if let Some(field) = bytes.get_mut(from..from.saturating_add(over.len())) {
                field.copy_from_slice(over);
                stored = stored.max(from + over.len());
            }
        }
        let zeroes = (bytes.len() - stored) as u64;
        bytes.truncate(stored);
        vec![Segment { start: NewAddr(start), bytes, zeroes, protection }]
    }
}

/// How a section's content is mapped in the shadow image.
pub(super) fn protection(kind: SectionKind) -> Protection {
    match kind {
        SectionKind::Text => Protection::Text,
        SectionKind::ReadOnly | SectionKind::RelRo | SectionKind::Tls => Protection::ReadOnly,
        SectionKind::Data => Protection::Data,
    }
}

fn join(a: Protection, b: Protection) -> Option<Protection> {
    use Protection::{Data, ReadOnly, Text};
    match (a, b) {
        (Text, Text | ReadOnly) | (ReadOnly, Text) => Some(Text),
        (ReadOnly, ReadOnly) => Some(ReadOnly),
        (Data, Data | ReadOnly) | (ReadOnly, Data) => Some(Data),
        (Text, Data) | (Data, Text) => None,
    }
}

fn mixed(page: u64) -> Refusal {
    Refusal {
        code: "mixed-page",
        subject: format!("{page:#x}"),
        text: format!("NEW has code and writable data on one page ({page:#x})"),
        way_out: "link without -z noseparate-code / -N".to_owned(),
    }
}
