//! Unwind tables (`.eh_frame`): where the canonical frame address and saved registers are, by
//! address, and where the table of landing pads is.
//!
//! Takes: the section as linked. Gives: [`UnwindEntry`] for any address that a frame description
//! covers. Says nothing where the section lacks one, or where it cannot be read.

use super::{Function, Image};
use gimli::{BaseAddresses, EhFrame, EhFrameOffset, LittleEndian, UnwindSection};
use std::ops::Range;
use std::sync::OnceLock;

type Input<'a> = gimli::EndianSlice<'a, LittleEndian>;
type Description<'a> = gimli::FrameDescriptionEntry<Input<'a>>;

/// The frame descriptions of an image by address, read when first asked for.
#[derive(Debug, Default)]
pub struct UnwindIndex(OnceLock<Vec<(Range<u64>, usize)>>);

/// What the unwind tables say of one contiguous piece of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnwindEntry {
    /// The code.
    pub extent: Range<u64>,
    /// Rows, ascending by address.
    pub rows: Vec<UnwindRow>,
    /// Address of its language-specific data, for exceptions.
    pub lsda: Option<u64>,
}

/// A row: what holds before each instruction of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnwindRow {
    /// Where it holds.
    pub extent: Range<u64>,
    /// The canonical frame address.
    pub cfa: Cfa,
    /// Registers by the processor's number, and the offset from the CFA of the slot that holds the
    /// caller's value; ascending. Those whose rule is of another kind are in `odd`.
    pub saved: Vec<(u8, i64)>,
    /// Some register has a rule that is no slot.
    pub odd: bool,
    /// Bytes of arguments that are on the stack for a call in progress, and that the unwinder takes
    /// off before it goes to a landing pad (`DW_CFA_GNU_args_size`).
    pub pushed: u64,
}

impl UnwindRow {
    /// What holds of a frame as seen from a CFA that is `by` bytes higher than its own.
    #[must_use]
    pub fn lowered(mut self, by: i64) -> Self {
        if let Cfa::Register(_, offset) = &mut self.cfa {
            *offset = offset.saturating_add(by);
        }
        for (_, at) in &mut self.saved {
            *at = at.saturating_sub(by);
        }
        self
    }
}

/// How the canonical frame address is had (DWARF 5, section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cfa {
    /// A register, by the processor's number, plus an offset.
    Register(u8, i64),
    /// By an expression.
    Expression,
}

impl UnwindEntry {
    /// The row that holds at an address.
    #[must_use]
    pub fn row_at(&self, address: u64) -> Option<&UnwindRow> {
        let after = self.rows.partition_point(|r| r.extent.start <= address);
        self.rows[..after].last().filter(|r| r.extent.contains(&address))
    }
}

/// DWARF's register numbers (psABI, figure 3.36) as the processor's.
const NUMBERS: [u8; 16] = [0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];

impl Image {
    /// The frame description that covers an address; `None` also where it is damaged.
    #[must_use]
    pub fn unwind_entry(&self, address: u64) -> Option<UnwindEntry> {
        let (section, bases) = self.eh_frame()?;
        let index = self.unwind.0.get_or_init(|| index(&section, &bases));
        let after = index.partition_point(|(range, _)| range.start <= address);
        let (range, offset) = index[..after].last()?;
        if !range.contains(&address) {
            return None;
        }
        let offset = EhFrameOffset(*offset);
        let description = section.fde_from_offset(&bases, offset, EhFrame::cie_from_offset).ok()?;
        self.entry(&section, &bases, &description)
    }

    /// The unwind rows of a function's parts, ascending.
    #[must_use]
    pub fn rows(&self, function: &Function) -> Vec<UnwindRow> {
        self.rows_of(function.parts())
    }

    /// The rows of pieces of code, by address.
    pub fn rows_of(&self, parts: impl Iterator<Item = super::Part>) -> Vec<UnwindRow> {
        let mut rows = Vec::new();
        for part in parts {
            let mut at = part.start;
            while let Some(entry) = self.unwind_entry(at).filter(|_| at < part.end) {
                at = entry.extent.end;
                rows.extend(entry.rows);
            }
        }
        rows.sort_by_key(|row| row.extent.start);
        rows
    }

    fn eh_frame(&self) -> Option<(EhFrame<Input<'_>>, BaseAddresses)> {
        let find = |name: &str| self.sections.iter().find(|s| s.name == name);
        let found = find(".eh_frame").filter(|s| !s.file.is_empty())?;
        let bytes = self.bytes.get(found.file.clone())?;
        let mut bases = BaseAddresses::default().set_eh_frame(found.address);
        if let Some(text) = find(".text") {
            bases = bases.set_text(text.address);
        }
        if let Some(got) = find(".got") {
            bases = bases.set_got(got.address);
        }
        Some((EhFrame::new(bytes, LittleEndian), bases))
    }

    fn entry(
        &self,
        section: &EhFrame<Input<'_>>,
        bases: &BaseAddresses,
        description: &Description<'_>,
    ) -> Option<UnwindEntry> {
        let mut context = gimli::UnwindContext::new();
        let mut table = description.rows(section, bases, &mut context).ok()?;
        let mut rows = Vec::new();
        while let Some(row) = table.next_row().ok()? {
            rows.push(read(row));
        }
        let lsda = match description.lsda() {
            Some(gimli::Pointer::Direct(address)) => Some(address),
            Some(gimli::Pointer::Indirect(at)) => Some(self.word(at)?),
            None => None,
        };
        let extent = description.initial_address()..description.end_address();
        Some(UnwindEntry { extent, rows, lsda })
    }
}

fn index(section: &EhFrame<Input<'_>>, bases: &BaseAddresses) -> Vec<(Range<u64>, usize)> {
    let mut out = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let gimli::CieOrFde::Fde(partial) = entry else { continue };
        let Ok(description) = partial.parse(EhFrame::cie_from_offset) else { continue };
        let range = description.initial_address()..description.end_address();
        if !range.is_empty() {
            out.push((range, description.offset()));
        }
    }
    out.sort_by_key(|(range, offset)| (range.start, range.end, *offset));
    out
}

fn read(row: &gimli::UnwindTableRow<usize>) -> UnwindRow {
    let number = |r: gimli::Register| NUMBERS.get(usize::from(r.0)).copied();
    let cfa = match row.cfa() {
        gimli::CfaRule::RegisterAndOffset { register, offset } => {
            number(*register).map_or(Cfa::Expression, |n| Cfa::Register(n, *offset))
        }
        gimli::CfaRule::Expression(_) => Cfa::Expression,
    };
    let mut saved = Vec::new();
    let mut odd = false;
    for (register, rule) in row.registers() {
        match (number(*register), rule) {
            (Some(n), gimli::RegisterRule::Offset(at)) => saved.push((n, *at)),
            (Some(_), gimli::RegisterRule::SameValue | gimli::RegisterRule::Undefined) => {}
            (Some(_), _) => odd = true,
            // The return address and registers that no compiler saves.
            (None, _) => {}
        }
    }
    saved.sort_unstable();
    let pushed = row.saved_args_size();
    UnwindRow { extent: row.start_address()..row.end_address(), cfa, saved, odd, pushed }
}
