//! ELF headers of an image, read from the process itself: the file may be gone, replaced, or in
//! another mount namespace.
//!
//! Takes a reader and the address of an ELF header; gives program headers, load bias, build id.
//! Refuses what is not a little-endian 64-bit x86-64 ELF image (System V psABI, ELF-64).

use super::memory::ReadMemory;
use crate::address::{Bias, PAGE, ProcAddr};
use object::elf;

/// No real image has more; a broken one may claim any number.
const MAX_SEGMENTS: usize = 256;
/// Build ids are 8 to 64 bytes; all notes of an image together are far below this.
const MAX_NOTES: u64 = 1 << 16;

/// A program header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// `p_type`.
    pub kind: u32,
    /// `p_flags`.
    pub flags: u32,
    /// `p_offset`.
    pub offset: u64,
    /// `p_vaddr`, as linked.
    pub vaddr: u64,
    /// `p_filesz`.
    pub file_size: u64,
    /// `p_memsz`.
    pub mem_size: u64,
    /// `p_align`.
    pub align: u64,
}

/// What an ELF header and its program headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// `e_type`: `ET_EXEC` or `ET_DYN`.
    pub kind: u16,
    /// Program headers in their order.
    pub segments: Vec<Segment>,
}

impl Headers {
    /// Reads the headers at `at`; `None` when there is no such image.
    #[must_use]
    pub fn read(memory: &impl ReadMemory, at: ProcAddr) -> Option<Self> {
        let mut header = [0; 64];
        memory.read(at, &mut header).ok()?;
        let ident = [elf::ELFCLASS64.0, elf::ELFDATA2LSB.0];
        if header[..4] != elf::ELFMAG || header[4..6] != ident {
            return None;
        }
        let kind = u16_at(&header, 16);
        let entry_size = usize::from(u16_at(&header, 54));
        let count = usize::from(u16_at(&header, 56));
        if u16_at(&header, 18) != elf::EM_X86_64.0 || entry_size != 56 || count > MAX_SEGMENTS {
            return None;
        }
        let table = at.checked_add(u64_at(&header, 32))?;
        let bytes = memory.read_vec(table, count * 56).ok()?;
        let segments = bytes.chunks_exact(56).map(segment).collect();
        Some(Self { kind, segments })
    }

    /// The load bias, when the file's offset 0 is mapped at `base`.
    #[must_use]
    pub fn bias(&self, base: ProcAddr) -> Option<Bias> {
        let first = self.loads().find(|s| s.offset < PAGE)?;
        Some(Bias::between(first.vaddr & !(PAGE - 1), base))
    }

    /// The loaded segments.
    pub fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.of_kind(elf::PT_LOAD.0)
    }

    /// The segments of one type.
    pub fn of_kind(&self, kind: u32) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(move |s| s.kind == kind)
    }

    /// The linked extent of the loaded segments, `[start, end)`.
    #[must_use]
    pub fn extent(&self) -> Option<(u64, u64)> {
        let start = self.loads().map(|s| s.vaddr).min()?;
        let end = self.loads().filter_map(|s| s.vaddr.checked_add(s.mem_size)).max()?;
        (start < end).then_some((start, end))
    }

    /// The GNU build id in lower-case hexadecimal.
    #[must_use]
    pub fn build_id(&self, memory: &impl ReadMemory, bias: Bias) -> Option<String> {
        self.of_kind(elf::PT_NOTE.0).filter(|s| s.mem_size <= MAX_NOTES).find_map(|s| {
            let len = usize::try_from(s.mem_size).ok()?;
            let notes = memory.read_vec(bias.apply(s.vaddr), len).ok()?;
            build_id_note(&notes, if s.align == 8 { 8 } else { 4 })
        })
    }
}

fn segment(bytes: &[u8]) -> Segment {
    Segment {
        kind: u32_at(bytes, 0),
        flags: u32_at(bytes, 4),
        offset: u64_at(bytes, 8),
        vaddr: u64_at(bytes, 16),
        file_size: u64_at(bytes, 32),
        mem_size: u64_at(bytes, 40),
        align: u64_at(bytes, 48),
    }
}

/// Finds `NT_GNU_BUILD_ID` among notes padded to `align` (gABI, note section).
fn build_id_note(mut notes: &[u8], align: usize) -> Option<String> {
    while notes.len() >= 12 {
        let name_len = usize::try_from(u32_at(notes, 0)).ok()?;
        let desc_len = usize::try_from(u32_at(notes, 4)).ok()?;
        let kind = u32_at(notes, 8);
        let desc_at = 12usize.checked_add(name_len)?.checked_next_multiple_of(align)?;
        let end = desc_at.checked_add(desc_len)?;
        let name = notes.get(12..12 + name_len)?;
        let desc = notes.get(desc_at..end)?;
        if kind == elf::NT_GNU_BUILD_ID.0 && name == b"GNU\0" {
            return Some(hex(desc));
        }
        notes = notes.get(end.checked_next_multiple_of(align)?..)?;
    }
    None
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let mut word = [0; 2];
    word.copy_from_slice(&bytes[at..at + 2]);
    u16::from_le_bytes(word)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_id_among_notes() {
        let mut notes = Vec::new();
        for (name, kind, desc) in [(&b"X\0"[..], 7u32, &b"abc"[..]), (b"GNU\0", 3, b"\x12\xab")] {
            notes.extend_from_slice(&u32::try_from(name.len()).unwrap().to_le_bytes());
            notes.extend_from_slice(&u32::try_from(desc.len()).unwrap().to_le_bytes());
            notes.extend_from_slice(&kind.to_le_bytes());
            notes.extend_from_slice(name);
            notes.resize(notes.len().next_multiple_of(4), 0);
            notes.extend_from_slice(desc);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(build_id_note(&notes, 4).as_deref(), Some("12ab"));
        for cut in 0..notes.len() - 2 {
            assert_eq!(build_id_note(&notes[..cut], 4), None);
        }
    }

    #[test]
    fn absurd_note_lengths_are_no_panic() {
        assert_eq!(build_id_note(&[0xff; 40], 4), None);
        assert_eq!(build_id_note(&[0xff; 40], 8), None);
    }
}
