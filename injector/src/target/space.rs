//! Where the shadow image goes.
//!
//! Takes the mappings, the extents that must be within reach of a 32-bit displacement, and the
//! size; gives a free place. Prefers places below the image: above it the heap grows (brk(2)). Keeps
//! an unmapped page on both sides, and far from stacks, which grow downwards.

use super::maps::Maps;
use crate::address::{PAGE, ProcAddr};

/// Reach of a 32-bit displacement, less some room for addends and the ends of instructions.
const REACH: u64 = (1 << 31) - (1 << 16);
/// The kernel maps nothing for a process below this (vm.mmap_min_addr's usual value).
const LOWEST: u64 = 1 << 16;
/// Past the last address that a process of 47 bits can map.
const HIGHEST: u64 = 0x7fff_ffff_f000;
/// Left free below a stack; the usual limit of its size, doubled.
const STACK_ROOM: u64 = 16 << 20;

/// What must hold for the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes, whole pages.
    pub size: u64,
    /// Everything from here ...
    pub reach_start: ProcAddr,
    /// ... to here must be within reach of everything in the place.
    pub reach_end: ProcAddr,
    /// The place must lie below 2 GiB.
    pub low_2gib: bool,
}

/// The best free place, or `None`.
#[must_use]
pub fn find(maps: &Maps, wanted: &Wanted) -> Option<ProcAddr> {
    let lowest = wanted.reach_end.0.saturating_sub(REACH).max(LOWEST);
    let highest = wanted.reach_start.0.saturating_add(REACH).min(HIGHEST);
    let highest = if wanted.low_2gib { highest.min(1 << 31) } else { highest };
    let mut below: Option<u64> = None;
    let mut above: Option<u64> = None;
    for (start, end, stack_above) in holes(maps) {
        let room = if stack_above { STACK_ROOM } else { 0 };
        // One page stays free on either side, so that no mapping merges with ours.
        let from = start.saturating_add(PAGE).max(lowest);
        let to = end.saturating_sub(PAGE + room).min(highest);
        if to < from || to - from < wanted.size {
            continue;
        }
        let at = (to - wanted.size) & !(PAGE - 1);
        if at < from {
            continue;
        }
        if at < wanted.reach_start.0 {
            below = Some(below.map_or(at, |b| b.max(at)));
        } else {
            above = Some(above.map_or(at, |a| a.min(at)));
        }
    }
    below.or(above).map(ProcAddr)
}

/// Free ranges, and whether a stack is right above.
fn holes(maps: &Maps) -> impl Iterator<Item = (u64, u64, bool)> {
    let starts = std::iter::once(0).chain(maps.0.iter().map(|m| m.end.0));
    let ends = maps.0.iter().map(|m| (m.start.0, &*m.name == "[stack]"));
    starts
        .zip(ends.chain(std::iter::once((HIGHEST, false))))
        .filter_map(|(start, (end, stack))| (start < end).then_some((start, end, stack)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIE: &[u8] = b"\
555555554000-555555560000 r-xp 00000000 fd:01 42 /bin/a
555555570000-555555591000 rw-p 00000000 00:00 0 [heap]
7ffff7d00000-7ffff7f00000 r-xp 00000000 fd:01 43 /lib/c.so
7ffff7f40000-7ffff7f80000 rw-p 00000000 00:00 0
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0 [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";
    const FIXED: &[u8] = b"\
00400000-00500000 r-xp 00000000 fd:01 42 /bin/a
00500000-00600000 rw-p 00000000 00:00 0 [heap]
7ffff7d00000-7ffff7f00000 r-xp 00000000 fd:01 43 /lib/c.so
";

    fn place(text: &[u8], size: u64, start: u64, end: u64, low: bool) -> Option<u64> {
        let wanted =
            Wanted { size, reach_start: ProcAddr(start), reach_end: ProcAddr(end), low_2gib: low };
        let maps = Maps::parse(text);
        let found = find(&maps, &wanted)?.0;
        for m in &maps.0 {
            assert!(m.end.0 + PAGE <= found || found + size + PAGE <= m.start.0, "{found:#x}");
        }
        assert!(found.abs_diff(end) < 1 << 31 && (found + size).abs_diff(start) < 1 << 31);
        assert_eq!(found % PAGE, 0);
        Some(found)
    }

    #[test]
    fn below_the_image_first() {
        let at = place(PIE, 0x5000, 0x5555_5555_4000, 0x5555_5556_0000, false);
        assert_eq!(at, Some(0x5555_5555_4000 - 0x6000));
    }

    #[test]
    fn a_library_gets_the_next_hole_below() {
        let at = place(PIE, 0x5000, 0x7fff_f7d0_0000, 0x7fff_f7f0_0000, false);
        assert_eq!(at, Some(0x7fff_f7d0_0000 - 0x6000));
    }

    #[test]
    fn a_low_image_takes_the_gap_below_when_it_fits() {
        let at = place(FIXED, 0x5000, 0x40_0000, 0x50_0000, true);
        assert_eq!(at, Some(0x40_0000 - 0x6000));
    }

    #[test]
    fn above_the_heap_as_far_from_it_as_reach_allows() {
        let at = place(FIXED, 0x50_0000, 0x40_0000, 0x50_0000, true);
        assert!(at.is_some_and(|a| a > 0x7000_0000), "{at:x?}");
    }

    #[test]
    fn nothing_within_reach() {
        let text = b"00010000-ffffffff000 rw-p 00000000 00:00 0\n";
        assert_eq!(place(text, 0x1000, 0x40_0000, 0x50_0000, false), None);
    }
}
