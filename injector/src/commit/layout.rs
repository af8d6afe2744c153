//! How an update lies in memory: guard page, record, shadow image.
//!
//! ```text
//! span                                                        bias + first page of NEW's segments
//! | guard, PROT_NONE | record, r-- | ...text r-x... | ...read-only r--... | ...data rw-... |
//! ```
//!
//! Takes the plan and the size of the record; gives the pieces with their protections. Pure.

use crate::address::{Bias, PAGE, ProcAddr, pages};
use crate::record::Extent;
use dsu_patch_format::plan::{Plan, Protection};

/// Holes between segments of one protection up to this size are mapped along, to save calls.
const MERGE: u64 = 16 * PAGE;

/// A run of pages with one protection, from the start of the span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Bytes from the start of the span.
    pub offset: u64,
    /// Bytes, whole pages.
    pub len: u64,
    /// Protection.
    pub protection: Protection,
}

/// The layout of one span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the whole span.
    pub len: u64,
    /// Pieces, ascending; the first one holds the record.
    pub pieces: Vec<Piece>,
    /// Bytes from the start of the span to where `image_start` goes.
    image_offset: u64,
    /// First page of NEW's segments, as linked.
    image_start: u64,
}

impl Layout {
    /// Lays out a record of `record` bytes and the plan's segments. `None` when that is larger than
    /// the address space.
    #[must_use]
    pub fn new(plan: &Plan, record: usize) -> Option<Self> {
        let record = pages(record as u64)?;
        let image_start = plan.segments.first().map_or(0, |s| s.start.0 & !(PAGE - 1));
        let image_offset = PAGE.checked_add(record)?;
        let mut pieces =
            vec![Piece { offset: PAGE, len: record, protection: Protection::ReadOnly }];
        let mut len = image_offset;
        for segment in &plan.segments {
            let start = (segment.start.0 & !(PAGE - 1)) - image_start;
            let bytes = segment.start.0 - image_start;
            let end = bytes.checked_add(segment.bytes.len() as u64)?.checked_add(segment.zeroes)?;
            let start = image_offset.checked_add(start)?;
            let end = image_offset.checked_add(pages(end)?)?;
            len = len.max(end);
            match pieces.last_mut() {
                Some(last)
                    if last.protection == segment.protection
                        && start <= last.offset + last.len + MERGE =>
                {
                    last.len = last.len.max(end - last.offset);
                }
                _ => pieces.push(Piece {
                    offset: start,
                    len: end - start,
                    protection: segment.protection,
                }),
            }
        }
        Some(Self { len, pieces, image_offset, image_start })
    }

    /// The bias of the shadow image in a span at `span`.
    #[must_use]
    pub fn bias(&self, span: ProcAddr) -> Bias {
        Bias::between(self.image_start, span.offset(self.image_offset))
    }

    /// Where the shadow image is in a span at `span`.
    #[must_use]
    pub fn image(&self, span: ProcAddr) -> Extent {
        Extent { start: span.offset(self.image_offset).0, len: self.len - self.image_offset }
    }

    /// Where the record goes in a span at `span`.
    #[must_use]
    pub fn record(&self, span: ProcAddr) -> ProcAddr {
        span.offset(PAGE)
    }

    /// Bytes that the process can touch: what the update costs it.
    #[must_use]
    pub fn mapped(&self) -> u64 {
        self.pieces.iter().map(|p| p.len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsu_patch_format::NewAddr;
    use dsu_patch_format::plan::Segment;

    fn segment(start: u64, len: usize, zeroes: u64, protection: Protection) -> Segment {
        Segment { start: NewAddr(start), bytes: vec![0; len], zeroes, protection }
    }

    #[test]
    fn pieces_and_bias() {
        let plan = Plan {
            segments: vec![
                segment(0x40_1010, 0x20, 0, Protection::Text),
                segment(0x40_3000, 0x1001, 0, Protection::Text),
                segment(0x48_0100, 8, 0x2000, Protection::Data),
            ],
            ..Plan::default()
        };
        let layout = Layout::new(&plan, 100).unwrap();
        let piece = |offset, len, protection| Piece { offset, len, protection };
        assert_eq!(
            layout.pieces,
            [
                piece(0x1000, 0x1000, Protection::ReadOnly),
                piece(0x2000, 0x4000, Protection::Text),
                piece(0x8_1000, 0x3000, Protection::Data),
            ]
        );
        assert_eq!(layout.len, 0x8_4000);
        let bias = layout.bias(ProcAddr(0x10_0000));
        assert_eq!(bias.apply(0x40_1010), ProcAddr(0x10_2010));
        assert_eq!(layout.mapped(), 0x8000);
        assert_eq!(layout.image(ProcAddr(0x10_0000)), Extent { start: 0x10_2000, len: 0x8_2000 });
    }

    #[test]
    fn an_image_linked_above_its_place() {
        let plan = Plan {
            segments: vec![segment(0x7000_0000_0000, 8, 0, Protection::Text)],
            ..Plan::default()
        };
        let layout = Layout::new(&plan, 1).unwrap();
        assert_eq!(layout.bias(ProcAddr(0x1000)).apply(0x7000_0000_0004), ProcAddr(0x3004));
    }

    #[test]
    fn a_bundle_that_changes_data_alone_has_a_record_alone() {
        let layout = Layout::new(&Plan::default(), 5000).unwrap();
        assert_eq!((layout.len, layout.pieces.len()), (3 * PAGE, 1));
    }
}
