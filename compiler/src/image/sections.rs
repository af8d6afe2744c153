//! Allocated sections: where they are, what may be done with them.

use super::Image;
use std::ops::Range;

/// What a section's memory is at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// Executable.
    Text,
    /// Never writable.
    ReadOnly,
    /// Written by the dynamic linker only (`PT_GNU_RELRO`).
    RelRo,
    /// Writable.
    Data,
    /// Initial image of thread-local variables.
    Tls,
}

/// An allocated section.
#[derive(Debug, Clone)]
pub struct Section {
    /// `.text`, `.rodata`, ...
    pub name: String,
    /// First byte as linked.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Where its bytes are in the file; empty when it has none (`SHT_NOBITS`).
    pub file: Range<usize>,
    /// How it is mapped.
    pub kind: SectionKind,
    /// `sh_entsize`.
    pub entry_size: u64,
}

impl Section {
    /// Past the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.address + self.size
    }
}

impl Image {
    /// The section that holds an address. Thread-local zero data has addresses that overlap those
    /// of the sections behind it (gABI), so TLS is looked up only by [`Image::tls`].
    #[must_use]
    pub fn section_at(&self, address: u64) -> Option<&Section> {
        let after = self.sections.partition_point(|s| s.address <= address);
        self.sections[..after].iter().rev().take(4).find(|s| address < s.end())
    }
}
