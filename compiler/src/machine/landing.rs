//! Landing pads: where an exception that passes through a call goes on in the function (Itanium C++
//! ABI, "Exception Handling Tables"; the LSB, "DWARF Extensions", for the encodings).
//!
//! Takes: an image and the function's parts. Gives: call sites with their landing pads. A table that
//! cannot be read is an error: a function with unknown landing pads has unknown flow.

use crate::image::{Image, Part};
use std::ops::Range;

/// Calls in a range land at an address when an exception passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallSite {
    pub(super) calls: Range<u64>,
    pub(super) pad: u64,
}

/// The call sites of all parts of a function that have a landing pad.
pub(super) fn call_sites(
    image: &Image,
    parts: impl Iterator<Item = Part>,
) -> Result<Vec<CallSite>, String> {
    let mut out = Vec::new();
    for part in parts {
        let Some(entry) = image.unwind_entry(part.start) else { continue };
        let Some(address) = entry.lsda else { continue };
        let found = table(image, address, entry.extent.start)
            .ok_or_else(|| format!("the table of landing pads at {address:#x} cannot be read"))?;
        out.extend(found);
    }
    Ok(out)
}

fn table(image: &Image, address: u64, function: u64) -> Option<Vec<CallSite>> {
    let section = image.section_at(address)?;
    let bytes = image.content(address, section.end() - address)?;
    let mut reader = Reader { image, bytes: &bytes, at: 0, address, function };
    let start = match reader.byte()? {
        OMITTED => function,
        encoding => reader.pointer(encoding)?,
    };
    if reader.byte()? != OMITTED {
        // Distance to the table of types.
        reader.uleb()?;
    }
    let encoding = reader.byte()?;
    let length = usize::try_from(reader.uleb()?).ok()?;
    let end = reader.at.checked_add(length).filter(|e| *e <= bytes.len())?;
    let mut out = Vec::new();
    while reader.at < end {
        let first = function.checked_add(reader.number(encoding)?)?;
        let past = first.checked_add(reader.number(encoding)?)?;
        let pad = reader.number(encoding)?;
        reader.uleb()?;
        if pad != 0 {
            out.push(CallSite { calls: first..past, pad: start.checked_add(pad)? });
        }
    }
    (reader.at == end).then_some(out)
}

/// DW_EH_PE_omit.
const OMITTED: u8 = 0xff;

struct Reader<'a> {
    image: &'a Image,
    bytes: &'a [u8],
    at: usize,
    /// Of the first byte.
    address: u64,
    function: u64,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let end = self.at.checked_add(N)?;
        let bytes = self.bytes.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(bytes)
    }

    fn uleb(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn sleb(&mut self) -> Option<u64> {
        let mut value = 0i64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64 - (shift + 7).min(64);
                return Some((value << unused >> unused).cast_unsigned());
            }
        }
        None
    }

    /// The value format: the low half of an encoding.
    fn number(&mut self, encoding: u8) -> Option<u64> {
        match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => Some(u64::from_le_bytes(self.fixed()?)),
            0x01 => self.uleb(),
            0x02 => Some(u64::from(u16::from_le_bytes(self.fixed()?))),
            0x03 => Some(u64::from(u32::from_le_bytes(self.fixed()?))),
            0x09 => self.sleb(),
            0x0a => Some(i64::from(i16::from_le_bytes(self.fixed()?)).cast_unsigned()),
            0x0b => Some(i64::from(i32::from_le_bytes(self.fixed()?)).cast_unsigned()),
            _ => None,
        }
    }

    /// A whole pointer: value, what it is relative to, indirection.
    fn pointer(&mut self, encoding: u8) -> Option<u64> {
        let here = self.address.checked_add(u64::try_from(self.at).ok()?)?;
        let value = self.number(encoding)?;
        let base = match encoding & 0x70 {
            0x00 => 0,
            0x10 => here,
            0x40 => self.function,
            _ => return None,
        };
        let address = base.wrapping_add(value);
        if encoding & 0x80 != 0 { self.image.word(address) } else { Some(address) }
    }
}
