//! What the updates of an image have written into it and into each other's shadow images, and what of
//! that still stands.
//!
//! Takes the updates that count, oldest first; an update that takes the shadow image of an earlier
//! application of its bundle again makes that image's code as it was, so what later updates had written
//! there is gone. Gives the sites that stand and the places that are written; and what a new record has to
//! hold of both on behalf of records that it makes needless. Pure.

use super::{Earlier, Entry, Extent, Passing, Planted, Record};
use crate::address::Bias;
use std::collections::BTreeMap;

/// A jump that stands, as addresses of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// The cave that it goes through.
    pub cave: Option<u64>,
    /// Its stub.
    pub stub: Extent,
    /// Where that leads.
    pub to: u64,
}

/// Of the sites of all updates those that stand, by place. `again` is a shadow image that is about to be
/// taken again.
#[must_use]
pub fn sites(updates: &[&Record], again: Option<Extent>) -> BTreeMap<u64, Jump> {
    let mut all = BTreeMap::new();
    for (bias, planted) in stand(updates, again, |_| true).sites {
        for site in planted {
            let stub = Extent { start: bias.apply(site.stub).0, len: u64::from(site.stub_len) };
            let to = bias.apply(site.to).0;
            all.insert(site.at, Jump { cave: site.cave(), stub, to });
        }
    }
    all
}

/// Of the passages of all updates those that stand, by place.
#[must_use]
pub fn passages(updates: &[&Record], again: Option<Extent>) -> Vec<Passing> {
    stand(updates, again, |_| true).passages
}

/// The places that all updates have written and that were not put back; `journals` has those of each.
#[must_use]
pub fn written(updates: &[&Record], journals: &[Vec<Entry>], again: Option<Extent>) -> Vec<Extent> {
    let mut all = stand(updates, again, |_| true).written;
    all.extend(of_journals(updates, journals, again, |_| true));
    all
}

/// What a new record is to hold of `updates`, of which those that `is_covered` become needless.
#[must_use]
pub fn inherited(
    updates: &[&Record],
    journals: &[Vec<Entry>],
    again: Option<Extent>,
    is_covered: impl Fn(&Record) -> bool + Copy,
) -> Earlier {
    let mut earlier = stand(updates, again, is_covered);
    earlier.written.extend(of_journals(updates, journals, again, is_covered));
    earlier.written.sort_unstable_by_key(|place| (place.start, place.len));
    earlier.written.dedup();
    earlier
}

/// Whether something that was written at `at` was put back by one of the updates from the index `from` on,
/// or is about to be.
fn is_put_back(updates: &[&Record], from: usize, again: Option<Extent>, at: u64) -> bool {
    let later = updates.iter().skip(from).filter(|later| later.is_again());
    later.map(|later| later.image).chain(again).any(|image| image.contains(at))
}

/// What the last record has inherited, and the sites of those records that are `wanted`.
fn stand(updates: &[&Record], again: Option<Extent>, wanted: impl Fn(&Record) -> bool) -> Earlier {
    let mut all: BTreeMap<u64, (Bias, Planted)> = BTreeMap::new();
    let mut passages: BTreeMap<u64, Passing> = BTreeMap::new();
    let mut written = Vec::new();
    if let Some((last, before)) = updates.split_last() {
        // What it has inherited stood before it was applied.
        let gone = |at| is_put_back(updates, before.len(), again, at);
        for (bias, planted) in &last.earlier.sites {
            let standing = planted.iter().filter(|site| !gone(site.at));
            all.extend(standing.map(|site| (site.at, (*bias, *site))));
        }
        let standing = last.earlier.passages.iter().filter(|p| !gone(p.extent.start));
        passages.extend(standing.map(|p| (p.extent.start, p.clone())));
        written.extend(last.earlier.written.iter().filter(|place| !gone(place.start)));
    }
    for (index, update) in updates.iter().enumerate().filter(|(_, update)| wanted(update)) {
        let gone = |at| is_put_back(updates, index + 1, again, at);
        let standing = update.passages.iter().filter(|p| !gone(p.extent.start));
        passages.extend(standing.map(|p| (p.extent.start, p.clone())));
        let standing = update.sites.iter().filter(|site| !gone(site.at));
        all.extend(standing.map(|site| (site.at, (Bias(update.bias), *site))));
    }
    let mut sites: Vec<(Bias, Vec<Planted>)> = Vec::new();
    for (bias, site) in all.into_values() {
        match sites.iter_mut().find(|(known, _)| *known == bias) {
            Some((_, planted)) => planted.push(site),
            None => sites.push((bias, vec![site])),
        }
    }
    Earlier { sites, passages: passages.into_values().collect(), written }
}

fn of_journals(
    updates: &[&Record],
    journals: &[Vec<Entry>],
    again: Option<Extent>,
    wanted: impl Fn(&Record) -> bool,
) -> Vec<Extent> {
    let mut all = Vec::new();
    let both = updates.iter().zip(journals).enumerate();
    for (index, (update, journal)) in both.filter(|(_, (update, _))| wanted(update)) {
        for entry in journal {
            let at = entry.at.0;
            // In its own image it has put back what others had written.
            if !update.image.contains(at) && !is_put_back(updates, index + 1, again, at) {
                all.push(Extent { start: at, len: entry.new.len() as u64 });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::test_record;
    use super::*;
    use crate::address::ProcAddr;

    const X: Extent = Extent { start: 0x20_0000, len: 0x1000 };
    const Y: Extent = Extent { start: 0x30_0000, len: 0x1000 };

    fn update(sequence: u32, image: Extent, again: bool, at: u64) -> Record {
        let span = if again { 0x90_0000 + u64::from(sequence) * 0x1000 } else { image.start };
        let site = Planted { at, cave: Some(0x20), stub: 0x800, stub_len: 8, to: 0x100 };
        let mut record = test_record(sequence, image.start, vec![site]);
        (record.span_start, record.span_len, record.image) = (span, 0x1000, image);
        let extent = Extent { start: at - 8, len: 8 };
        record.passages = vec![Passing { extent, exits: vec![at], names: Vec::new() }];
        record
    }

    fn journal(record: &Record) -> Vec<Entry> {
        let entry = |at| Entry { at: ProcAddr(at), old: vec![0; 5], new: vec![1; 5] };
        // The site, and the entry of the function.
        record.sites.iter().flat_map(|s| [entry(s.at), entry(s.at - 0x10)]).collect()
    }

    fn all(updates: &[Record], again: Option<Extent>) -> (Vec<u64>, Vec<u64>) {
        let records: Vec<_> = updates.iter().collect();
        let journals: Vec<_> = updates.iter().map(journal).collect();
        let mut written: Vec<_> =
            written(&records, &journals, again).iter().map(|place| place.start).collect();
        written.sort_unstable();
        (sites(&records, again).into_keys().collect(), written)
    }

    #[test]
    fn what_an_image_taken_again_has_put_back_is_gone() {
        let there = update(1, X, false, 0x10_0100);
        let back = update(2, Y, false, 0x20_0100);
        let updates = [there, back];
        assert_eq!(
            all(&updates, None),
            (vec![0x10_0100, 0x20_0100], vec![0x10_00f0, 0x10_0100, 0x20_00f0, 0x20_0100])
        );
        // About to be taken again, and taken.
        let gone = (vec![0x10_0100], vec![0x10_00f0, 0x10_0100]);
        assert_eq!(all(&updates, Some(X)), gone);
        let [there, back] = updates;
        let updates = [there, back, update(3, X, true, 0x30_0100)];
        let (sites, _) = all(&updates, None);
        assert_eq!(sites, [0x10_0100, 0x30_0100]);
        assert_eq!(all(&updates, Some(Y)), gone);
    }

    #[test]
    fn a_record_holds_what_needless_ones_have_left() {
        let mut updates = vec![update(1, X, false, 0x10_0100), update(2, Y, false, 0x20_0100)];
        let updates_first = updates[0].passages.clone();
        // There and back for ever: each record makes the one before of the same image needless.
        for sequence in 3..50u32 {
            let (image, at) = if sequence % 2 == 1 { (X, 0x30_0100) } else { (Y, 0x20_0100) };
            let mut record = update(sequence, image, true, at);
            let records: Vec<_> = updates.iter().collect();
            let journals: Vec<_> = updates.iter().map(journal).collect();
            let covered = |r: &Record| r.image == image;
            record.earlier = inherited(&records, &journals, Some(image), covered);
            assert_eq!(record.earlier.sites.len(), 1, "{sequence}: those of the first update");
            assert_eq!(record.earlier.sites[0].1[0].at, 0x10_0100);
            assert_eq!(record.earlier.passages, updates_first);
            assert_eq!(record.earlier.written.len(), 2);
            updates.retain(|r| r.image != image);
            updates.push(record);
            let standing = if image == X { 0x30_0100 } else { 0x20_0100 };
            assert_eq!(all(&updates, None).0, [0x10_0100, standing], "{sequence}");
            let records: Vec<_> = updates.iter().collect();
            let passages = passages(&records, None);
            let exits: Vec<u64> = passages.iter().flat_map(|p| p.exits.clone()).collect();
            assert_eq!(exits, [0x10_0100, standing], "{sequence}");
        }
    }
}
