//! Detours: where frames come out that are still suspended in code of versions long gone.
//!
//! Takes the records of one image's updates, oldest first; gives for each site that they planted, and
//! for each stub and cave on the way from it, the place in the process where whatever goes on there
//! arrives in the end. A site of version 1 leads to version 2; when that place is itself a site of
//! the update to version 3, it leads on to version 3, and so forth. Also the passages: code of such versions
//! that frames may run on in for a moment. Pure.

use super::standing::{self, Jump};
use super::{Extent, Passing, Record};
use crate::address::Bias;
use std::collections::BTreeMap;

/// Program counters and return addresses in `[start, end)` go on at `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detour {
    /// First address.
    pub start: u64,
    /// Past the last one.
    pub end: u64,
    /// Where it leads.
    pub to: u64,
}

/// Code of an earlier version that frames may still run on in, for a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// First address.
    pub start: u64,
    /// Past the last one.
    pub end: u64,
    /// Where its sites lead.
    pub exits: Vec<u64>,
    /// What its code names on the way.
    pub names: Vec<u64>,
}

/// All detours of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Detours {
    /// Ascending and disjoint.
    pub ways: Vec<Detour>,
    /// Ascending and disjoint, from each other and from the ways.
    pub passages: Vec<Passage>,
}

impl Detours {
    /// Those of all updates, oldest first. `again` is a shadow image that is about to be taken again: what
    /// was written into it is put back, and frames there go on there.
    #[must_use]
    pub fn of(updates: &[&Record], again: Option<Extent>) -> Self {
        let sites = standing::sites(updates, again);
        let mut all = BTreeMap::new();
        for (at, jump) in &sites {
            let to = arrival(&sites, jump.to);
            // A jump is one instruction: a program counter is at its start or nowhere in it.
            for at in [Some(*at), jump.cave].into_iter().flatten() {
                all.insert(at, (at.saturating_add(1), to));
            }
            all.insert(jump.stub.start, (jump.stub.end(), to));
        }
        // In a stub a thread may be even when the site that led there is gone.
        for update in updates {
            for site in &update.sites {
                let bias = Bias(update.bias);
                let stub = bias.apply(site.stub).0;
                let end = stub.saturating_add(u64::from(site.stub_len));
                all.insert(stub, (end, arrival(&sites, bias.apply(site.to).0)));
            }
        }
        let passage = |p: Passing| Passage {
            start: p.extent.start,
            end: p.extent.end(),
            exits: p.exits.into_iter().map(|at| arrival(&sites, at)).collect(),
            names: p.names,
        };
        let passages = standing::passages(updates, again).into_iter().map(passage).collect();
        let ways = all.into_iter().map(|(start, (end, to))| Detour { start, end, to });
        Self { ways: ways.collect(), passages }
    }
}

/// Where what goes on at `to` arrives in the end. Each jump leads into code that was put in place, or back
/// in place, after the jump's own: that the way has an end is not taken from a process's memory, though.
fn arrival(sites: &BTreeMap<u64, Jump>, to: u64) -> u64 {
    let mut to = to;
    for _ in 0..sites.len() {
        match sites.get(&to) {
            Some(jump) => to = jump.to,
            None => break,
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Planted, test_record};

    fn planted(at: u64, stub: u64, to: u64) -> Planted {
        Planted { at, cave: None, stub, stub_len: 8, to }
    }

    fn find(detours: &Detours, at: u64) -> Option<u64> {
        detours.ways.iter().find(|d| (d.start..d.end).contains(&at)).map(|d| d.to)
    }

    #[test]
    fn one_update() {
        let mut site = planted(0x10_0120, 0x2000, 0x130);
        site.cave = Some(0x20);
        let one = test_record(1, 0x20_0000, vec![site]);
        let detours = Detours::of(&[&one], None);
        assert_eq!(find(&detours, 0x10_0120), Some(0x20_0130), "the site");
        assert_eq!(find(&detours, 0x10_0140), Some(0x20_0130), "its cave");
        assert_eq!(find(&detours, 0x10_0121), None, "never inside a jump");
        assert_eq!(find(&detours, 0x20_2000), Some(0x20_0130), "the stub");
        assert_eq!(find(&detours, 0x20_2007), Some(0x20_0130));
        assert_eq!(find(&detours, 0x20_2008), None);
        assert_eq!(find(&detours, 0x20_0130), None, "the counterpart is no detour");
        assert_eq!(Detours::of(&[], None), Detours::default());
    }

    #[test]
    fn three_updates() {
        let one = test_record(
            1,
            0x20_0000,
            vec![planted(0x10_0120, 0x2000, 0x130), planted(0x10_0128, 0x2008, 0x138)],
        );
        // What version 2 has at 0x130 is a site of the second update, 0x138 is not.
        let two = test_record(2, 0x30_0000, vec![planted(0x20_0130, 0x2000, 0x150)]);
        let three = test_record(3, 0x40_0000, vec![planted(0x30_0150, 0x2000, 0x160)]);
        let detours = Detours::of(&[&one, &two], None);
        assert_eq!(find(&detours, 0x10_0120), Some(0x30_0150), "1 to 2 to 3");
        assert_eq!(find(&detours, 0x20_2003), Some(0x30_0150), "in the stub from 1 to 2");
        assert_eq!(find(&detours, 0x20_0130), Some(0x30_0150), "2 to 3");
        assert_eq!(find(&detours, 0x10_0128), Some(0x20_0138), "ends in version 2");
        let detours = Detours::of(&[&one, &two, &three], None);
        assert_eq!(find(&detours, 0x10_0120), Some(0x40_0160), "1 to 2 to 3 to 4");
        assert_eq!(find(&detours, 0x30_0150), Some(0x40_0160));
        let starts: Vec<u64> = detours.ways.iter().map(|d| d.start).collect();
        assert!(starts.is_sorted());
    }

    #[test]
    fn a_shadow_image_that_is_taken_again_is_where_the_way_ends() {
        let image = |start| Extent { start, len: 0x1_0000 };
        let mut one = test_record(1, 0x20_0000, vec![planted(0x10_0120, 0x2000, 0x130)]);
        one.image = image(0x20_0000);
        let mut two = test_record(2, 0x30_0000, vec![planted(0x20_0130, 0x2000, 0x150)]);
        two.image = image(0x30_0000);
        (one.span_start, one.span_len) = (0x20_0000, 0x1_0000);
        (two.span_start, two.span_len) = (0x30_0000, 0x1_0000);
        let detours = Detours::of(&[&one, &two], Some(one.image));
        assert_eq!(find(&detours, 0x10_0120), Some(0x20_0130), "and no further");
        assert_eq!(find(&detours, 0x20_0130), None, "a frame of version 2 in version 2");
        // Taken.
        let mut three = test_record(3, 0x20_0000, vec![planted(0x30_0150, 0x2000, 0x130)]);
        (three.image, three.span_start, three.span_len) = (one.image, 0x50_0000, 0x2000);
        let detours = Detours::of(&[&one, &two, &three], None);
        assert_eq!(find(&detours, 0x30_2000), Some(0x20_0130), "the stub to version 1 leads on");
        assert_eq!(find(&detours, 0x10_0120), Some(0x20_0130));
        assert_eq!(find(&detours, 0x20_0130), None);
    }

    #[test]
    fn a_circle_ends_too() {
        let one = test_record(1, 0, vec![planted(5, 0x2000, 6), planted(6, 0x2100, 5)]);
        assert_eq!(Detours::of(&[&one], None).ways.len(), 4);
    }

    #[test]
    fn passages_lead_where_their_sites_lead() {
        let passing = |start, exits: &[u64], names: &[u64]| Passing {
            extent: Extent { start, len: 0x10 },
            exits: exits.to_vec(),
            names: names.to_vec(),
        };
        let mut one = test_record(1, 0x20_0000, vec![planted(0x10_0120, 0x2000, 0x130)]);
        one.passages = vec![passing(0x10_0110, &[0x10_0120], &[0x10_0800])];
        let mut two = test_record(2, 0x30_0000, vec![planted(0x20_0130, 0x2000, 0x150)]);
        two.passages = vec![passing(0x20_0120, &[0x20_0130], &[])];
        let passage = |start, exits: &[u64], names: &[u64]| Passage {
            start,
            end: start + 0x10,
            exits: exits.to_vec(),
            names: names.to_vec(),
        };
        let first = |to| passage(0x10_0110, &[to], &[0x10_0800]);
        assert_eq!(Detours::of(&[&one], None).passages, [first(0x20_0130)]);
        let second = passage(0x20_0120, &[0x30_0150], &[]);
        assert_eq!(Detours::of(&[&one, &two], None).passages, [first(0x30_0150), second]);
    }
}
