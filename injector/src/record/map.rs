//! The address map: where a build's linked addresses are in the process (DESIGN section 7.5).
//!
//! A first update's map is one run, the load bias. Each update composes its bundle's map (NEW to
//! OLD or to the shadow image) with the map that held before (OLD to the process), so that the next
//! bundle, made from two neighbouring builds alone, finds its OLD.

use super::Extent;
use crate::address::{Bias, ProcAddr};
use dsu_patch_format::plan::{MapRun, MapTarget};
use serde::{Deserialize, Serialize};

/// Linked addresses `[start, start + len)` are at `to` onwards. The width is fixed, so that the size
/// of a record does not depend on where it will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// First linked address.
    #[serde(with = "postcard::fixint::le")]
    pub start: u64,
    /// Bytes.
    #[serde(with = "postcard::fixint::le")]
    pub len: u64,
    /// Process address of the first one.
    #[serde(with = "postcard::fixint::le")]
    pub to: u64,
}

impl Run {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// Runs of constant difference, ascending and disjoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AddressMap(Vec<Run>);

impl AddressMap {
    /// The map of an image as it was loaded.
    #[must_use]
    pub fn of_image(start: u64, end: u64, bias: Bias) -> Self {
        Self(vec![Run { start, len: end.saturating_sub(start), to: bias.apply(start).0 }])
    }

    /// Whether the runs ascend, are disjoint and end within the address space: what everything
    /// here relies on, and what a record read from a process must prove.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let mut end = 0;
        self.0.iter().all(|run| {
            let sound = run.start >= end
                && run.len > 0
                && run.start.checked_add(run.len).is_some()
                && run.to.checked_add(run.len).is_some();
            end = run.start.saturating_add(run.len);
            sound
        })
    }

    fn run_of(&self, address: u64) -> Option<&Run> {
        let after = self.0.partition_point(|r| r.start <= address);
        self.0.get(after.checked_sub(1)?).filter(|r| address < r.end())
    }

    /// Where a linked address is. One past the end of a run belongs to it when no other run starts
    /// there: programs form such addresses.
    #[must_use]
    pub fn place(&self, address: u64) -> Option<ProcAddr> {
        if let Some(run) = self.run_of(address) {
            return Some(ProcAddr(run.to + (address - run.start)));
        }
        let run = self.run_of(address.checked_sub(1)?)?;
        Some(ProcAddr(run.to + run.len))
    }

    /// Where `[address, address + len)` is, if it is in one piece there.
    #[must_use]
    pub fn range(&self, address: u64, len: u64) -> Option<ProcAddr> {
        let mut pieces = self.pieces(address, address.checked_add(len)?);
        let first = pieces.next()?;
        let mut end = first.to.checked_add(first.len)?;
        let mut reached = first.end();
        for piece in pieces {
            if piece.to != end || piece.start != reached {
                return None;
            }
            end = piece.to.checked_add(piece.len)?;
            reached = piece.end();
        }
        let whole = first.start == address && reached == address + len;
        whole.then_some(ProcAddr(first.to))
    }

    /// The parts of `[start, end)` that are in the process.
    pub fn pieces(&self, start: u64, end: u64) -> impl Iterator<Item = Run> {
        let first = self.0.partition_point(|r| r.end() <= start);
        self.0[first..].iter().take_while(move |r| r.start < end).map(move |r| {
            let from = r.start.max(start);
            let to = r.end().min(end);
            Run { start: from, len: to - from, to: r.to + (from - r.start) }
        })
    }

    /// The linked address at a process address.
    #[must_use]
    pub fn linked(&self, at: ProcAddr) -> Option<u64> {
        let run = self.0.iter().find(|r| at.0.wrapping_sub(r.to) < r.len)?;
        Some(run.start + (at.0 - run.to))
    }

    /// Whether anything is in this part of the process.
    #[must_use]
    pub fn leads_into(&self, part: Extent) -> bool {
        self.0.iter().any(|run| run.to < part.end() && part.start < run.to + run.len)
    }

    /// The lowest and the highest process address that it leads to, `[start, end)`.
    #[must_use]
    pub fn extent(&self) -> Option<(ProcAddr, ProcAddr)> {
        let start = self.0.iter().map(|r| r.to).min()?;
        let end = self.0.iter().map(|r| r.to + r.len).max()?;
        Some((ProcAddr(start), ProcAddr(end)))
    }

    /// The map of NEW: `runs` of the bundle, with OLD's addresses through `self`. What is not in
    /// the process stays unmapped.
    #[must_use]
    pub fn compose(&self, runs: &[MapRun], bias: Bias) -> Self {
        let mut composed: Vec<Run> = Vec::new();
        for run in runs {
            match run.to {
                MapTarget::Shadow => push(
                    &mut composed,
                    Run { start: run.start.0, len: run.len, to: bias.apply(run.start.0).0 },
                ),
                MapTarget::Old(old) => {
                    for piece in self.pieces(old.0, old.0.saturating_add(run.len)) {
                        let start = run.start.0 + (piece.start - old.0);
                        push(&mut composed, Run { start, len: piece.len, to: piece.to });
                    }
                }
            }
        }
        Self(composed)
    }
}

/// Adds a run, in one piece with the one before where both have the same difference.
fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.end() == run.start && last.to + last.len == run.to => {
            last.len += run.len;
        }
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsu_patch_format::{NewAddr, OldAddr};
    use proptest::prelude::*;

    fn old(start: u64, len: u64, to: u64) -> MapRun {
        MapRun { start: NewAddr(start), len, to: MapTarget::Old(OldAddr(to)) }
    }

    fn shadow(start: u64, len: u64) -> MapRun {
        MapRun { start: NewAddr(start), len, to: MapTarget::Shadow }
    }

    #[test]
    fn two_updates() {
        let image = AddressMap::of_image(0, 0x1000, Bias(0x5000));
        // Build 2: [0x100, 0x180) is new, what follows has moved up by 0x80.
        let runs = [old(0, 0x100, 0), shadow(0x100, 0x80), old(0x180, 0xe00, 0x100)];
        let second = image.compose(&runs, Bias(0x9_0000));
        assert!(second.is_sound());
        assert_eq!(second.place(0x50), Some(ProcAddr(0x5050)));
        assert_eq!(second.place(0x110), Some(ProcAddr(0x9_0110)));
        assert_eq!(second.place(0x190), Some(ProcAddr(0x5110)));
        // Build 3: all of it moved up by 0x1000.
        let third = second.compose(&[old(0x1000, 0xf80, 0)], Bias(0xa_0000));
        assert_eq!(third.place(0x1110), Some(ProcAddr(0x9_0110)));
        assert_eq!(third.linked(ProcAddr(0x9_0110)), Some(0x1110));
        assert_eq!(third.range(0x10f0, 0x20), None, "across two places");
        assert_eq!(third.range(0x1100, 0x80), Some(ProcAddr(0x9_0100)));
        let part = |start, len| third.leads_into(Extent { start, len });
        assert!(part(0x9_017f, 1) && part(0, 0x5001));
        assert!(!part(0x9_0180, 0x1000) && !part(0x6000, 0x1000));
        assert_eq!(third.extent(), Some((ProcAddr(0x5000), ProcAddr(0x9_0180))));
    }

    #[test]
    fn edges() {
        let image = AddressMap::of_image(0x1000, 0x2000, Bias(0x10_0000));
        assert_eq!(image.place(0x2000), Some(ProcAddr(0x10_2000)), "one past the end");
        assert_eq!(image.place(0x2001), None);
        assert_eq!(image.place(0xfff), None);
        assert_eq!(image.place(0), None);
        assert_eq!(image.range(0x1fff, 1), Some(ProcAddr(0x10_1fff)));
        assert_eq!(image.range(0x1fff, 2), None);
        assert_eq!(image.range(u64::MAX, 2), None);
    }

    #[test]
    fn unsound_maps_are_known() {
        let run = |start, len, to| Run { start, len, to };
        assert!(!AddressMap(vec![run(5, 5, 0), run(9, 1, 0)]).is_sound());
        assert!(!AddressMap(vec![run(u64::MAX, 2, 0)]).is_sound());
        assert!(!AddressMap(vec![run(0, 2, u64::MAX)]).is_sound());
        assert!(!AddressMap(vec![run(0, 0, 0)]).is_sound());
    }

    proptest! {
        /// Composition is composition: through both maps one after the other, address by address.
        #[test]
        fn compose_agrees_with_two_lookups(cuts in proptest::collection::vec((1u64..40, 0u64..3), 1..12)) {
            let image = AddressMap(vec![
                Run { start: 0, len: 100, to: 1000 },
                Run { start: 120, len: 200, to: 5000 },
            ]);
            let mut runs = Vec::new();
            let (mut at, mut from) = (0, 0);
            for (len, kind) in cuts {
                match kind {
                    0 => runs.push(shadow(at, len)),
                    _ => runs.push(old(at, len, from)),
                }
                at += len + kind;
                from += len;
            }
            let composed = image.compose(&runs, Bias(100_000));
            prop_assert!(composed.is_sound());
            for address in 0..at {
                let run = runs.iter().find(|r| address.wrapping_sub(r.start.0) < r.len);
                let expected = run.and_then(|r| match r.to {
                    MapTarget::Shadow => Some(address + 100_000),
                    MapTarget::Old(o) => image.range(o.0 + (address - r.start.0), 1).map(|a| a.0),
                });
                prop_assert_eq!(composed.range(address, 1).map(|a| a.0), expected);
            }
        }
    }
}
