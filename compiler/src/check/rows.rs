//! Unwinding rows and exception tables, read for the checker alone.
//!
//! Takes an image's `.eh_frame` and `.gcc_except_table`; gives, for an address, how the CFA is had and
//! where the caller's registers are (DWARF 5, section 6.4), and where exceptions land (Itanium C++ ABI,
//! exception handling, section 7 of the level II LSDA).

use crate::image::Image;
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, LittleEndian, Pointer, RegisterRule,
    UnwindContext, UnwindSection,
};
use std::borrow::Cow;
use std::ops::Range;

/// How the CFA is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// rsp plus this.
    Rsp(i64),
    /// rbp plus this.
    Rbp(i64),
    /// Another register or an expression.
    Other,
}

/// Where the caller's value of a register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saved {
    /// In the register.
    Register,
    /// At CFA plus this.
    Slot(i64),
    /// Somewhere else, or nowhere.
    Other,
}

/// What holds at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) cfa: Base,
    /// By the processor's number.
    pub(super) saved: [Saved; 16],
}

/// DWARF's number of each register, by the processor's (psABI figure 3.36).
const DWARF: [u16; 16] = [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];

type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Fde<'a> = gimli::FrameDescriptionEntry<Reader<'a>>;

/// The tables of one image.
pub(super) struct Rows<'i> {
    image: &'i Image,
    frames: Cow<'i, [u8]>,
    bases: BaseAddresses,
    /// Extent and offset of each entry, ascending.
    index: Vec<(u64, u64, usize)>,
}

impl<'i> Rows<'i> {
    /// Indexes an image's entries. Damaged ones are left out.
    pub(super) fn new(image: &'i Image) -> Self {
        let section = |name: &str| image.sections.iter().find(|s| s.name == name);
        let mut bases = BaseAddresses::default();
        for (name, set) in [
            (".text", BaseAddresses::set_text as fn(BaseAddresses, u64) -> BaseAddresses),
            (".got", BaseAddresses::set_got),
            (".eh_frame", BaseAddresses::set_eh_frame),
        ] {
            if let Some(section) = section(name) {
                bases = set(bases, section.address);
            }
        }
        let frames =
            section(".eh_frame").and_then(|s| image.content(s.address, s.size)).unwrap_or_default();
        let mut rows = Self { image, frames, bases, index: Vec::new() };
        let mut index = Vec::new();
        let frames = rows.section();
        let mut entries = frames.entries(&rows.bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            if let Ok(fde) = partial.parse(EhFrame::cie_from_offset) {
                index.push((fde.initial_address(), fde.end_address(), fde.offset()));
            }
        }
        index.sort_unstable();
        rows.index = index;
        rows
    }

    fn section(&self) -> EhFrame<Reader<'_>> {
        EhFrame::new(&self.frames, LittleEndian)
    }

    fn fde(&self, address: u64) -> Option<Fde<'_>> {
        let after = self.index.partition_point(|(start, ..)| *start <= address);
        let (_, end, offset) = *self.index.get(after.checked_sub(1)?)?;
        if address >= end {
            return None;
        }
        let section = self.section();
        section
            .fde_from_offset(&self.bases, gimli::EhFrameOffset(offset), EhFrame::cie_from_offset)
            .ok()
    }

    /// What holds at an address.
    pub(super) fn row(&self, address: u64) -> Option<Row> {
        let fde = self.fde(address)?;
        let mut context = UnwindContext::new();
        let section = self.section();
        let row = fde.unwind_info_for_address(&section, &self.bases, &mut context, address).ok()?;
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } if register.0 == 7 => {
                Base::Rsp(*offset)
            }
            CfaRule::RegisterAndOffset { register, offset } if register.0 == 6 => {
                Base::Rbp(*offset)
            }
            _ => Base::Other,
        };
        let saved = DWARF.map(|number| match row.register(gimli::Register(number)) {
            // What no rule speaks of is not changed (psABI: callee-saved registers).
            None | Some(RegisterRule::SameValue) => Saved::Register,
            Some(RegisterRule::Offset(offset)) => Saved::Slot(offset),
            _ => Saved::Other,
        });
        Some(Row { cfa, saved })
    }

    /// Ranges of call sites in the code from `start` on, and where exceptions from there land.
    /// `None` when there is a table that cannot be read.
    pub(super) fn landing_pads(&self, start: u64) -> Option<Vec<(Range<u64>, u64)>> {
        let Some(fde) = self.fde(start) else { return Some(Vec::new()) };
        let Some(Pointer::Direct(table)) = fde.lsda() else { return Some(Vec::new()) };
        if table == 0 {
            return Some(Vec::new());
        }
        let section = self.image.section_at(table)?;
        let bytes = self.image.content(table, section.end().checked_sub(table)?)?;
        call_sites(&bytes, fde.initial_address())
    }
}

/// Reads an LSDA's call-site table.
fn call_sites(bytes: &[u8], start: u64) -> Option<Vec<(Range<u64>, u64)>> {
    let mut cursor = Cursor { bytes };
    // An explicit landing pad base does not occur: gcc and LLVM omit it.
    if cursor.byte()? != OMIT {
        return None;
    }
    if cursor.byte()? != OMIT {
        cursor.uleb()?;
    }
    let encoding = cursor.byte()?;
    let length = usize::try_from(cursor.uleb()?).ok()?;
    let mut sites = Cursor { bytes: cursor.bytes.get(..length)? };
    let mut out = Vec::new();
    while !sites.bytes.is_empty() {
        let from = start.checked_add(sites.encoded(encoding)?)?;
        let to = from.checked_add(sites.encoded(encoding)?)?;
        let pad = sites.encoded(encoding)?;
        sites.uleb()?;
        if pad != 0 {
            out.push((from..to, start.checked_add(pad)?));
        }
    }
    Some(out)
}

/// `DW_EH_PE_omit`.
const OMIT: u8 = 0xff;

struct Cursor<'a> {
    bytes: &'a [u8],
}

impl Cursor<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (head, tail) = self.bytes.split_at_checked(count)?;
        self.bytes = tail;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn uleb(&mut self) -> Option<u64> {
        let mut out = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            out |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(out);
            }
        }
        None
    }

    /// An unsigned number (LSB core, table 10-2: `uleb128`, `udata2`, `udata4`, `udata8`).
    fn encoded(&mut self, encoding: u8) -> Option<u64> {
        let size = match encoding {
            1 => return self.uleb(),
            2 => 2,
            3 => 4,
            4 => 8,
            _ => return None,
        };
        Some(self.take(size)?.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }
}
