//! Detours: where frames come out that are still suspended in code of versions long gone.
//!
//! Takes the records of one image's updates, oldest first; gives for each site that they planted, and
//! for each stub and cave on the way from it, the place in the process where whatever goes on there
//! arrives in the end. A site of version 1 leads to version 2; when that place is itself a site of
//! the update to version 3, it leads on to version 3, and so forth. Pure.

use super::Record;
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

/// All detours of an image, ascending and disjoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Detours(pub Vec<Detour>);

impl Detours {
    /// Those of all updates, oldest first.
    #[must_use]
    pub fn of<'a>(updates: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut all = BTreeMap::new();
        let mut before: Option<&Record> = None;
        for update in updates {
            add(&mut all, update, before);
            before = Some(update);
        }
        Self(all.into_iter().map(|(start, (end, to))| Detour { start, end, to }).collect())
    }
}

/// Adds the sites of one update, and lets what has led to one of them lead on.
fn add(all: &mut BTreeMap<u64, (u64, u64)>, update: &Record, before: Option<&Record>) {
    let old = |linked: u64| match before {
        Some(before) => before.map.place(linked).map(|p| p.0),
        None => Some(update.image_bias.apply(linked).0),
    };
    let new = |linked: u64| Bias(update.bias).apply(linked).0;
    let mut on: BTreeMap<u64, u64> = BTreeMap::new();
    for site in &update.sites {
        on.extend(old(site.at).map(|at| (at, new(site.to))));
    }
    for (_, to) in all.values_mut() {
        *to = on.get(to).copied().unwrap_or(*to);
    }
    for site in &update.sites {
        let to = new(site.to);
        // A jump is one instruction: a program counter is at its start or nowhere in it.
        for at in [old(site.at), site.cave.and_then(old)].into_iter().flatten() {
            all.insert(at, (at.saturating_add(1), to));
        }
        let stub = new(site.stub);
        all.insert(stub, (stub.saturating_add(u64::from(site.stub_len)), to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Planted;
    use crate::record::map::AddressMap;
    use dsu_patch_format::plan::{MapRun, MapTarget};
    use dsu_patch_format::{NewAddr, OldAddr};

    const IMAGE: Bias = Bias(0x10_0000);

    fn planted(at: u64, stub: u64, to: u64) -> Planted {
        Planted { at, cave: None, stub, stub_len: 8, to }
    }

    fn record(sequence: u32, bias: u64, map: AddressMap, sites: Vec<Planted>) -> Record {
        Record {
            bundle: String::new(),
            old_build_id: String::new(),
            new_build_id: String::new(),
            image_bias: IMAGE,
            sequence,
            when: 0,
            bias,
            span_start: 0,
            span_len: 0,
            map,
            identities: Vec::new(),
            sites,
            functions: Vec::new(),
            unwind: Vec::new(),
        }
    }

    /// A function at 0x100, replaced in each update, always at the same linked address.
    fn next_map(before: &AddressMap, bias: u64) -> AddressMap {
        let run = |start, len, to| MapRun { start: NewAddr(start), len, to };
        let old = |a| MapTarget::Old(OldAddr(a));
        let runs = [
            run(0, 0x100, old(0)),
            run(0x100, 0x80, MapTarget::Shadow),
            run(0x180, 0xe80, old(0x180)),
        ];
        before.compose(&runs, Bias(bias))
    }

    fn find(detours: &Detours, at: u64) -> Option<u64> {
        detours.0.iter().find(|d| (d.start..d.end).contains(&at)).map(|d| d.to)
    }

    #[test]
    fn one_update() {
        let image = AddressMap::of_image(0, 0x1000, IMAGE);
        let mut site = planted(0x120, 0x2000, 0x130);
        site.cave = Some(0x140);
        let one = record(1, 0x20_0000, next_map(&image, 0x20_0000), vec![site]);
        let detours = Detours::of([&one]);
        assert_eq!(find(&detours, 0x10_0120), Some(0x20_0130), "the site");
        assert_eq!(find(&detours, 0x10_0140), Some(0x20_0130), "its cave");
        assert_eq!(find(&detours, 0x10_0121), None, "never inside a jump");
        assert_eq!(find(&detours, 0x20_2000), Some(0x20_0130), "the stub");
        assert_eq!(find(&detours, 0x20_2007), Some(0x20_0130));
        assert_eq!(find(&detours, 0x20_2008), None);
        assert_eq!(find(&detours, 0x20_0130), None, "the counterpart is no detour");
        assert_eq!(Detours::of([]), Detours::default());
    }

    #[test]
    fn three_updates() {
        let image = AddressMap::of_image(0, 0x1000, IMAGE);
        let maps = [0x20_0000, 0x30_0000, 0x40_0000].iter().fold(vec![image], |mut maps, bias| {
            maps.push(next_map(&maps[maps.len() - 1], *bias));
            maps
        });
        let one = record(
            1,
            0x20_0000,
            maps[1].clone(),
            vec![planted(0x120, 0x2000, 0x130), planted(0x128, 0x2008, 0x138)],
        );
        // What version 2 has at 0x130 is a site of the second update, 0x138 is not.
        let two = record(2, 0x30_0000, maps[2].clone(), vec![planted(0x130, 0x2000, 0x150)]);
        let three = record(3, 0x40_0000, maps[3].clone(), vec![planted(0x150, 0x2000, 0x160)]);
        let detours = Detours::of([&one, &two]);
        assert_eq!(find(&detours, 0x10_0120), Some(0x30_0150), "1 to 2 to 3");
        assert_eq!(find(&detours, 0x20_2003), Some(0x30_0150), "in the stub from 1 to 2");
        assert_eq!(find(&detours, 0x20_0130), Some(0x30_0150), "2 to 3");
        assert_eq!(find(&detours, 0x10_0128), Some(0x20_0138), "ends in version 2");
        let detours = Detours::of([&one, &two, &three]);
        assert_eq!(find(&detours, 0x10_0120), Some(0x40_0160), "1 to 2 to 3 to 4");
        assert_eq!(find(&detours, 0x30_0150), Some(0x40_0160));
        let starts: Vec<u64> = detours.0.iter().map(|d| d.start).collect();
        assert!(starts.is_sorted());
    }
}
