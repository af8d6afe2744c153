//! Blind ranges, as addresses of the process.
//!
//! Takes the bundle's blind ranges and the address map; answers whether a program counter or a
//! return address is blind (the rules are those of `BlindRange`), by binary search behind a test
//! against the lowest and the highest. Pure.

use crate::address::ProcAddr;
use crate::record::map::AddressMap;
use dsu_patch_format::OldAddr;
use dsu_patch_format::plan::Plan;

/// A part of a blind range that is in one piece in the process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    start: u64,
    end: u64,
    /// OLD's address at `start`.
    linked: u64,
    /// Program counters inside that are not blind.
    free: Vec<u64>,
    function: u32,
}

/// A blind point that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Index of the function in the manifest.
    pub function: u32,
    /// The point, as linked in OLD.
    pub linked: OldAddr,
}

/// All blind ranges of an update, for lookups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlindRanges {
    /// Ascending by start, disjoint.
    pieces: Vec<Piece>,
    lowest: u64,
    highest: u64,
}

impl BlindRanges {
    /// The blind ranges of `plan` where `map` has them.
    #[must_use]
    pub fn new(plan: &Plan, map: &AddressMap) -> Self {
        let mut pieces = Vec::new();
        for range in &plan.blind {
            for run in map.pieces(range.start.0, range.end.0) {
                let inside = range.free.iter().filter_map(|f| f.0.checked_sub(run.start));
                pieces.push(Piece {
                    start: run.to,
                    end: run.to + run.len,
                    linked: run.start,
                    free: inside.filter(|o| *o < run.len).map(|o| run.to + o).collect(),
                    function: range.function,
                });
            }
        }
        pieces.sort_by_key(|p| p.start);
        let lowest = pieces.first().map_or(u64::MAX, |p| p.start);
        let highest = pieces.iter().map(|p| p.end).max().unwrap_or(0);
        Self { pieces, lowest, highest }
    }

    /// Whether `word` could be a return address into a blind range: one comparison for nearly every
    /// word of a stack.
    #[must_use]
    pub fn may_hold(&self, word: u64) -> bool {
        word.wrapping_sub(self.lowest) <= self.highest.wrapping_sub(self.lowest)
    }

    /// The blind point of a return address: `start < ra <= end`.
    #[must_use]
    pub fn return_address(&self, ra: u64) -> Option<Point> {
        let after = self.pieces.partition_point(|p| p.start < ra);
        let piece = self.pieces.get(after.checked_sub(1)?).filter(|p| ra <= p.end)?;
        // The call is what the message is about; it is before its return address.
        Some(piece.point(ra - 1))
    }

    /// The blind point of a program counter: `start <= pc < end` and not free.
    #[must_use]
    pub fn counter(&self, pc: u64) -> Option<Point> {
        let after = self.pieces.partition_point(|p| p.start <= pc);
        let piece = self.pieces.get(after.checked_sub(1)?).filter(|p| pc < p.end)?;
        (!piece.free.contains(&pc)).then(|| piece.point(pc))
    }

    /// Whether there is anything to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The lowest and highest blind address.
    #[must_use]
    pub fn extent(&self) -> (ProcAddr, ProcAddr) {
        (ProcAddr(self.lowest), ProcAddr(self.highest))
    }
}

impl Piece {
    fn point(&self, at: u64) -> Point {
        Point { function: self.function, linked: OldAddr(self.linked + (at - self.start)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Bias;
    use dsu_patch_format::plan::BlindRange;

    fn ranges() -> BlindRanges {
        let range = |start, end, free: &[u64], function| BlindRange {
            start: OldAddr(start),
            end: OldAddr(end),
            free: free.iter().map(|f| OldAddr(*f)).collect(),
            function,
        };
        let plan = Plan {
            blind: vec![
                range(0x100, 0x110, &[0x100, 0x104], 0),
                range(0x110, 0x120, &[0x110], 1),
                range(0x200, 0x201, &[], 2),
            ],
            ..Plan::default()
        };
        BlindRanges::new(&plan, &AddressMap::of_image(0, 0x1000, Bias(0x1_0000)))
    }

    #[test]
    fn return_addresses() {
        let ranges = ranges();
        let function = |ra: u64| ranges.return_address(ra).map(|p| p.function);
        assert_eq!(function(0x1_0100), None, "nothing was called from before the entry");
        assert_eq!(function(0x1_0101), Some(0));
        assert_eq!(function(0x1_0104), Some(0), "free is for program counters");
        assert_eq!(function(0x1_0110), Some(0), "a call at the very end");
        assert_eq!(function(0x1_0111), Some(1));
        assert_eq!(function(0x1_0120), Some(1));
        assert_eq!(function(0x1_0121), None);
        assert_eq!(function(0x1_0201), Some(2));
        assert_eq!(function(0x100), None);
    }

    #[test]
    fn program_counters() {
        let ranges = ranges();
        let function = |pc: u64| ranges.counter(pc).map(|p| p.function);
        assert_eq!(function(0x1_0100), None);
        assert_eq!(function(0x1_0101), Some(0));
        assert_eq!(function(0x1_0104), None);
        assert_eq!(function(0x1_0110), None);
        assert_eq!(function(0x1_011f), Some(1));
        assert_eq!(function(0x1_0120), None);
        assert_eq!(function(0x1_0200), Some(2));
    }

    #[test]
    fn the_prefilter_lets_everything_blind_through() {
        let ranges = ranges();
        for word in 0x1_0000..0x1_0300 {
            if ranges.return_address(word).is_some() || ranges.counter(word).is_some() {
                assert!(ranges.may_hold(word), "{word:#x}");
            }
        }
        assert!(!ranges.may_hold(0) && !ranges.may_hold(u64::MAX) && !ranges.may_hold(0x1_0202));
        assert!(!BlindRanges::default().may_hold(5));
    }

    #[test]
    fn moved_ranges_are_found_where_they_are() {
        let plan = Plan {
            blind: vec![BlindRange {
                start: OldAddr(0xf8),
                end: OldAddr(0x108),
                free: vec![OldAddr(0xf8)],
                function: 0,
            }],
            ..Plan::default()
        };
        let image = AddressMap::of_image(0, 0x100, Bias(0x1_0000));
        let runs = [
            dsu_patch_format::plan::MapRun {
                start: dsu_patch_format::NewAddr(0),
                len: 0x100,
                to: dsu_patch_format::plan::MapTarget::Old(OldAddr(0)),
            },
            dsu_patch_format::plan::MapRun {
                start: dsu_patch_format::NewAddr(0x100),
                len: 0x100,
                to: dsu_patch_format::plan::MapTarget::Shadow,
            },
        ];
        let ranges = BlindRanges::new(&plan, &image.compose(&runs, Bias(0x9_0000)));
        assert!(ranges.counter(0x1_00f8).is_none());
        assert_eq!(ranges.counter(0x1_00ff).map(|p| p.linked.0), Some(0xff));
        assert_eq!(ranges.counter(0x9_0100).map(|p| p.linked.0), Some(0x100));
        assert_eq!(ranges.return_address(0x9_0108).map(|p| p.linked.0), Some(0x107));
        assert!(ranges.counter(0x9_0108).is_none());
    }
}
