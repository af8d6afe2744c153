//! Regions: what lies close together is read, checked and written at once.
//!
//! An update plants thousands of jumps, and each system call on another process's memory costs a
//! microsecond and a page's lookup. Takes the writes and what is expected; gives regions, ascending, data
//! first. Text that lies less than a page apart is one region: no page is touched that has no write of its
//! own on it. Pure.

use super::writes::{Expected, Write};
use crate::address::{PAGE, ProcAddr};

/// A region is not larger, where it could be smaller.
const LARGEST: u64 = 1 << 16;

/// Bytes that are read at once, and of which a part is written at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub at: ProcAddr,
    /// Bytes.
    pub len: usize,
    /// Of it, what is written: offsets of the first byte and past the last one.
    pub written: (usize, usize),
    /// The writes in it, by index, in their order.
    pub writes: Vec<usize>,
    /// What is expected in it, by index.
    pub expected: Vec<usize>,
}

impl Region {
    /// The bytes of a part of the region, from the content of the whole.
    #[must_use]
    pub fn slice<'a>(&self, content: &'a [u8], at: ProcAddr, len: usize) -> &'a [u8] {
        let start = usize::try_from(at.since(self.at)).unwrap_or(usize::MAX);
        let end = start.saturating_add(len);
        content.get(start..end).unwrap_or_default()
    }

    /// Where the first write is.
    #[must_use]
    pub fn write_at(&self) -> ProcAddr {
        self.at.offset(self.written.0 as u64)
    }

    /// Of the content of the whole, what is written.
    #[must_use]
    pub fn to_write<'a>(&self, content: &'a [u8]) -> &'a [u8] {
        content.get(self.written.0..self.written.1).unwrap_or_default()
    }

    /// The content of the whole after all its writes.
    #[must_use]
    pub fn after(&self, writes: &[Write], old: &[u8]) -> Vec<u8> {
        let mut new = old.to_vec();
        for write in self.writes.iter().filter_map(|i| writes.get(*i)) {
            let start = usize::try_from(write.at.since(self.at)).unwrap_or(usize::MAX);
            let end = start.saturating_add(write.bytes.len());
            if let Some(place) = new.get_mut(start..end) {
                place.copy_from_slice(&write.bytes);
            }
        }
        new
    }

    /// For messages: the first of its writes, and how many more.
    #[must_use]
    pub fn what(&self, writes: &[Write]) -> String {
        let first = self.writes.first().and_then(|i| writes.get(*i));
        let first = first.map(|w| w.what.clone()).unwrap_or_default();
        match self.writes.len() {
            0 | 1 => first,
            n => format!("{first} and {} more near it", n - 1),
        }
    }
}

/// Something in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Extent {
    start: u64,
    end: u64,
    /// What, by index.
    write: Option<usize>,
    expected: Option<usize>,
}

/// All regions: each data write by itself, then the text, ascending.
#[must_use]
pub fn of(writes: &[Write], expected: &[Expected]) -> Vec<Region> {
    let (text, data): (Vec<_>, Vec<_>) = extents(writes).partition(|(_, is_text)| *is_text);
    let mut regions: Vec<_> = data.iter().map(|(extent, _)| region(&[*extent])).collect();
    let mut text: Vec<Extent> = text.into_iter().map(|(extent, _)| extent).collect();
    text.extend(expected.iter().enumerate().map(|(index, e)| {
        let (start, end) = (e.at.0, e.at.0.saturating_add(e.bytes.len() as u64));
        Extent { start, end, write: None, expected: Some(index) }
    }));
    text.sort_unstable();
    let mut together: Vec<Extent> = Vec::new();
    let mut reached = 0;
    for extent in text {
        if let Some(first) = together.first() {
            let overlaps = extent.start < reached;
            let near = extent.start.saturating_sub(reached) < PAGE
                && extent.end.saturating_sub(first.start) <= LARGEST;
            if !overlaps && !near {
                regions.push(region(&together));
                together.clear();
            }
        }
        reached = if together.is_empty() { extent.end } else { reached.max(extent.end) };
        together.push(extent);
    }
    if !together.is_empty() {
        regions.push(region(&together));
    }
    regions
}

fn extents(writes: &[Write]) -> impl Iterator<Item = (Extent, bool)> {
    writes.iter().enumerate().map(|(index, w)| {
        let (start, end) = (w.at.0, w.at.0.saturating_add(w.bytes.len() as u64));
        (Extent { start, end, write: Some(index), expected: None }, w.text)
    })
}

fn region(extents: &[Extent]) -> Region {
    let start = extents.iter().map(|e| e.start).min().unwrap_or(0);
    let end = extents.iter().map(|e| e.end).max().unwrap_or(0);
    let offset = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
    let written = || extents.iter().filter(|e| e.write.is_some());
    let first = written().map(|e| e.start).min().unwrap_or(start);
    let last = written().map(|e| e.end).max().unwrap_or(start);
    let mut writes: Vec<_> = extents.iter().filter_map(|e| e.write).collect();
    writes.sort_unstable();
    Region {
        at: ProcAddr(start),
        len: offset(end),
        written: (offset(first), offset(last)),
        writes,
        expected: extents.iter().filter_map(|e| e.expected).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: u64, len: usize, text: bool) -> Write {
        let what = format!("write {at:#x}");
        Write { at: ProcAddr(at), bytes: vec![7; len], what, text, cave: false }
    }

    fn expected(at: u64, len: usize) -> Expected {
        let (bytes, mask) = (vec![0; len], vec![0xff; len]);
        Expected { at: ProcAddr(at), bytes, mask, what: String::new() }
    }

    #[test]
    fn what_is_near_is_together() {
        let writes = [
            write(0x9000, 4, false),
            write(0x2010, 5, true),
            write(0x1000, 5, true),
            write(0x1100, 2, true),
            write(0x5000, 5, true),
            write(0x9004, 4, false),
        ];
        let expected = [expected(0xff8, 16), expected(0x2010, 16), expected(0x7000, 1)];
        let regions = of(&writes, &expected);
        let short: Vec<_> =
            regions.iter().map(|r| (r.at.0, r.len, r.written, r.writes.as_slice())).collect();
        assert_eq!(
            short,
            [
                (0x9000, 4, (0, 4), &[0][..]),
                (0x9004, 4, (0, 4), &[5]),
                (0xff8, 0x1028, (8, 0x101d), &[1, 2, 3]),
                (0x5000, 5, (0, 5), &[4]),
                (0x7000, 1, (0, 0), &[]),
            ]
        );
        assert_eq!(regions[2].expected, [0, 1]);
        assert_eq!(regions[2].what(&writes), "write 0x2010 and 2 more near it");
        let old = vec![1; 0x1028];
        let new = regions[2].after(&writes, &old);
        let changed: Vec<_> = (0..new.len()).filter(|i| new[*i] != 1).collect();
        assert_eq!(changed.len(), 12);
        assert_eq!((changed[0], changed[11]), (8, 0x101c));
        assert_eq!(regions[2].to_write(&new).len(), 0x101d - 8);
    }

    #[test]
    fn no_page_is_touched_in_vain() {
        let writes: Vec<_> = (0..100).map(|i| write(0x1000 + i * 0xffa, 5, true)).collect();
        let regions = of(&writes, &[]);
        assert!(regions.iter().all(|r| r.len as u64 <= LARGEST));
        for region in &regions {
            for page in (region.write_at().page().0..region.at.0 + region.len as u64).step_by(4096)
            {
                let used = writes.iter().any(|w| w.at.0 + 5 > page && w.at.0 < page + 4096);
                assert!(used, "{page:#x}");
            }
        }
    }

    #[test]
    fn later_writes_lie_over_earlier_ones() {
        let mut writes = [write(0x1000, 5, true), write(0x1002, 5, true)];
        writes[1].bytes = vec![9; 5];
        let regions = of(&writes, &[]);
        assert_eq!(regions[0].after(&writes, &[0; 7]), [7, 7, 9, 9, 9, 9, 9]);
    }
}
