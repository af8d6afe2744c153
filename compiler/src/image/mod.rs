//! One ELF file as linked, as plain indexed data.
//!
//! Takes a file (and its separate debug file); gives sections, functions, objects, relocations,
//! and the answer to the question that everything later asks: *what is at this address?*
//! ([`Image::resolve`]). Decides nothing about the other build. Refuses what is not a 64-bit
//! x86-64 executable or shared library with a build id.
//!
//! Addresses are `u64` as linked in this image; the phases that hold two images at once use
//! [`dsu_patch_format::OldAddr`] and [`dsu_patch_format::NewAddr`], or indices typed by side.

mod anchors;
mod functions;
mod labels;
mod load;
mod locals;
mod objects;
mod offsets;
mod plt;
mod relocations;
mod resolve;
mod sections;
mod separate;
mod unwind;

pub use functions::{Function, FunctionId, Part};
pub use load::LoadError;
pub use locals::LocalsError;
pub use objects::{Object, ObjectId, Storage};
pub use relocations::{DynamicRelocation, Meaning, StaticRelocation, SymbolName};
pub use resolve::Thing;
pub use sections::{Section, SectionKind};
pub use unwind::{Cfa, UnwindEntry, UnwindIndex, UnwindRow};

use crate::debug::{DebugInfo, SectionStore};
use dsu_patch_format::manifest::{DebugFile, ImageKind};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// One ELF file, indexed.
#[derive(Debug)]
pub struct Image {
    /// File name without directory.
    pub file: String,
    /// GNU build id, lower-case hexadecimal.
    pub build_id: String,
    /// Executable or library.
    pub kind: ImageKind,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
    /// The separate file that symbols or debug information were read from, if one was.
    pub debug_file: Option<DebugFile>,
    /// Linked at a fixed address (`ET_EXEC`): code may hold absolute addresses.
    pub fixed: bool,
    /// Loaded extent, `[start, end)`.
    pub extent: std::ops::Range<u64>,
    /// Allocated sections, ascending by address.
    pub sections: Vec<Section>,
    /// Functions, PLT entries among them, ascending by address.
    pub functions: Vec<Function>,
    /// Variables and tables, ascending by address.
    pub objects: Vec<Object>,
    /// Dynamic relocations by place.
    pub relocations: BTreeMap<u64, DynamicRelocation>,
    /// Relocations that `--emit-relocs` left, ascending by place.
    pub static_relocations: Vec<StaticRelocation>,
    /// Thread-local variables' initial image, if any: `[start, end)` as linked, and the distance
    /// from its start to the thread pointer (psABI 3.5.4, variant II).
    pub tls: Option<Tls>,
    /// Every address that operands and pointers lead to, ascending.
    referred: Vec<u64>,
    /// Bounds of anonymous constants, ascending: what is referred to, and where named things begin
    /// and end.
    pub anchors: Vec<u64>,
    /// What the compiler said.
    pub debug: DebugInfo,
    /// Frame descriptions by address.
    unwind: UnwindIndex,
    /// Objects before this index are plain, those behind thread-local.
    plain_objects: usize,
    /// Places of operands that take the address of a table of distances (see `offsets`).
    offset_bases: std::collections::BTreeSet<u64>,
    /// Cold parts and their functions' indices, ascending.
    cold_index: Vec<(std::ops::Range<u64>, usize)>,
    /// The whole file; sections know their ranges in it.
    bytes: Vec<u8>,
    /// The whole separate file, when the debug information was read from one.
    apart: Option<Vec<u8>>,
    /// Where the debug information's sections are in `apart` or `bytes`.
    store: OnceLock<Result<SectionStore, String>>,
}

/// The thread-local segment.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Linked extent of the initial image with its zero part.
    pub extent: std::ops::Range<u64>,
    /// Bytes from the segment's start to the thread pointer: its size rounded up to its alignment.
    pub to_thread_pointer: u64,
}

impl Image {
    /// Whether an operand, by the place of its field, takes the address from which distances are counted that
    /// stand there: the start of a table of such (see `offsets`).
    #[must_use]
    pub fn is_offset_base(&self, field: u64) -> bool {
        self.offset_bases.contains(&field)
    }

    /// The 8-byte number at an address as linked.
    #[must_use]
    pub fn word(&self, address: u64) -> Option<u64> {
        let bytes = self.content(address, 8)?;
        <[u8; 8]>::try_from(bytes.as_ref()).ok().map(u64::from_le_bytes)
    }

    /// Content as linked at `[address, address + len)`, zeroes where the file has none (`.bss`).
    /// `None` outside of one section.
    #[must_use]
    pub fn content(&self, address: u64, len: u64) -> Option<std::borrow::Cow<'_, [u8]>> {
        let section = self.section_at(address)?;
        let offset = address - section.address;
        let end = offset.checked_add(len).filter(|e| *e <= section.size)?;
        if section.file.is_empty() {
            return Some(vec![0; usize::try_from(len).ok()?].into());
        }
        let from = section.file.start + usize::try_from(offset).ok()?;
        let to = section.file.start + usize::try_from(end).ok()?;
        self.bytes.get(from..to).map(Into::into)
    }
}
