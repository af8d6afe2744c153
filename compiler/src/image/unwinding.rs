//! Where a function's caller's frame is, at each of its instructions: the rows of `.eh_frame`.
//!
//! Takes the section as linked; gives [`Row`]s. Every build for x86-64 has the section (psABI 4.2.4)
//! unless asked not to; then there are no rows, which says nothing of the function.

use super::{Function, Image};
use crate::debug::Register;
use gimli::{BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, LittleEndian, UnwindSection};
use gimli::{RegisterRule, UnwindContext};
use std::ops::Range;

type Input<'a> = EndianSlice<'a, LittleEndian>;

/// Rows of one function; more is damage.
const ROWS_LIMIT: usize = 1 << 16;

/// How the CFA is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cfa {
    /// From a general register, by the processor's number.
    Register {
        /// 0 to 15.
        number: u8,
        /// Added to it.
        offset: i64,
    },
    /// By an expression, as in frames that realign the stack.
    Expression,
}

/// What holds for a range of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The code.
    pub range: Range<u64>,
    /// The CFA.
    pub cfa: Cfa,
    /// Registers of the caller that are in memory, with their offsets from the CFA; ascending.
    pub saved: Vec<(Register, i64)>,
}

/// Frame descriptions by the code they are for: the range, and where the description is.
pub(super) type FrameIndex = Vec<(Range<u64>, usize)>;

impl Image {
    /// The unwind rows of a function's parts, ascending.
    #[must_use]
    pub fn rows(&self, function: &Function) -> Vec<Row> {
        let mut rows = Vec::new();
        for part in function.parts() {
            self.rows_in(&part, &mut rows);
        }
        rows.sort_by_key(|row| row.range.start);
        rows
    }

    fn rows_in(&self, part: &Range<u64>, out: &mut Vec<Row>) {
        let Some((bases, section)) = self.eh_frame() else { return };
        let index = self.frames.get_or_init(|| index(&section, &bases));
        let first = index.partition_point(|(range, _)| range.end <= part.start);
        let found = index[first..].iter().take_while(|(range, _)| range.start < part.end);
        for (_, offset) in found {
            // Rows that were read before damage are right.
            let _ = add_rows(&section, &bases, *offset, part, out);
        }
    }

    fn eh_frame(&self) -> Option<(BaseAddresses, EhFrame<Input<'_>>)> {
        let address = |name: &str| {
            self.sections.iter().find(|s| s.name == name).map_or(0, |section| section.address)
        };
        let section = self.sections.iter().find(|s| s.name == ".eh_frame")?;
        let bytes = self.bytes.get(section.file.clone())?;
        let bases = BaseAddresses::default()
            .set_eh_frame(section.address)
            .set_text(address(".text"))
            .set_got(address(".got"));
        Some((bases, EhFrame::new(bytes, LittleEndian)))
    }
}

fn index(section: &EhFrame<Input<'_>>, bases: &BaseAddresses) -> FrameIndex {
    let mut found = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let offset = partial.offset();
        if let Ok(fde) = partial.parse(EhFrame::cie_from_offset) {
            found.push((fde.initial_address()..fde.end_address(), offset));
        }
    }
    found.retain(|(range, _)| !range.is_empty());
    found.sort_by_key(|(range, _)| (range.start, range.end));
    // A description that lies inside another's code would break the search by ends.
    found.dedup_by(|next, kept| next.0.start < kept.0.end);
    found
}

fn add_rows(
    section: &EhFrame<Input<'_>>,
    bases: &BaseAddresses,
    offset: usize,
    part: &Range<u64>,
    out: &mut Vec<Row>,
) -> gimli::Result<()> {
    let fde = section.fde_from_offset(bases, offset.into(), EhFrame::cie_from_offset)?;
    let mut context = UnwindContext::new();
    let mut table = fde.rows(section, bases, &mut context)?;
    while let Some(row) = table.next_row()? {
        let start = row.start_address().max(part.start);
        let end = row.end_address().min(part.end);
        if start >= end {
            continue;
        }
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                match Register::from_dwarf(register.0) {
                    Register::General(number) => Cfa::Register { number, offset: *offset },
                    _ => Cfa::Expression,
                }
            }
            CfaRule::Expression(_) => Cfa::Expression,
        };
        let saved = row.registers().filter_map(|(register, rule)| match rule {
            RegisterRule::Offset(offset) => Some((Register::from_dwarf(register.0), *offset)),
            _ => None,
        });
        let mut saved: Vec<_> = saved.collect();
        saved.sort_unstable();
        out.push(Row { range: start..end, cfa, saved });
        if out.len() >= ROWS_LIMIT {
            return Ok(());
        }
    }
    Ok(())
}
