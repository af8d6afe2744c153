//! The DWARF sections of a file, decompressed, and the address ranges of the image they describe.
//!
//! Refuses what needs a further file that the caller cannot give: supplementary files.

use std::borrow::Cow;
use std::ops::Range;

use gimli::{Dwarf, DwarfSections, LittleEndian, SectionId};
use object::{
    File, Object, ObjectSection, ObjectSegment, ObjectSymbol, SectionFlags, SegmentFlags,
    SymbolKind, elf,
};
use rayon::prelude::*;

use super::error::DebugError;
use super::raw::Input;

/// What is read of DWARF at first. Locations are read when they are asked for; the others (macros,
/// indexes) are of no use here.
const NEEDED: [SectionId; 10] = [
    SectionId::DebugInfo,
    SectionId::DebugTypes,
    SectionId::DebugAbbrev,
    SectionId::DebugStr,
    SectionId::DebugLineStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugAddr,
    SectionId::DebugLine,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
];

/// What is read of DWARF for locations.
const STORED: [SectionId; 12] = [
    SectionId::DebugInfo,
    SectionId::DebugTypes,
    SectionId::DebugAbbrev,
    SectionId::DebugStr,
    SectionId::DebugLineStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugAddr,
    SectionId::DebugLine,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugLoc,
    SectionId::DebugLocLists,
];

/// The most that zlib can expand its input by (RFC 1951: 258 bytes for 2 bits). zstd could do more,
/// but debug information has not that little content.
const EXPANSION_LIMIT: u64 = 1032;

/// DWARF sections, in place or decompressed.
pub(super) struct Sections<'d>(DwarfSections<Cow<'d, [u8]>>);

impl<'d> Sections<'d> {
    /// Reads the sections of the first file that has debug information.
    pub(super) fn load(files: &[&File<'d>]) -> Result<Self, DebugError> {
        let file = files
            .iter()
            .find(|file| has_content(file, SectionId::DebugInfo))
            .ok_or(DebugError::Missing)?;
        if !file.is_little_endian() {
            return Err(DebugError::BigEndian);
        }
        refuse_supplementary(file)?;
        let mut loaded = NEEDED
            .par_iter()
            .map(|&id| Ok((id, load_section(file, id)?)))
            .collect::<Result<Vec<_>, DebugError>>()?;
        DwarfSections::load(|id| {
            let found = loaded.iter().position(|(loaded_id, _)| *loaded_id == id);
            Ok(found.map_or(Cow::Borrowed(&[][..]), |index| loaded.swap_remove(index).1))
        })
        .map(Self)
    }

    /// The sections as gimli reads them.
    pub(super) fn dwarf(&self) -> Dwarf<Input<'_>> {
        self.0.borrow(|section| gimli::EndianSlice::new(section, LittleEndian))
    }
}

/// Where the DWARF sections of a file are, to read parts of them later: those that are compressed
/// are kept unpacked, of the others only their ranges.
#[derive(Debug)]
pub struct SectionStore(Vec<(SectionId, Stored)>);

#[derive(Debug)]
enum Stored {
    InFile(Range<usize>),
    Unpacked(Vec<u8>),
}

impl SectionStore {
    /// Whether a file has debug information of its own.
    pub fn is_in(file: &File<'_>) -> bool {
        has_content(file, SectionId::DebugInfo)
    }

    /// Finds the sections of a file.
    ///
    /// # Errors
    /// A section that cannot be unpacked.
    pub fn load(file: &File<'_>) -> Result<Self, DebugError> {
        let stored = |id: SectionId| {
            let section = file.section_by_name(id.name())?;
            let plain = section
                .compressed_file_range()
                .ok()
                .filter(|range| range.format == object::CompressionFormat::None)
                .and_then(|range| {
                    let start = usize::try_from(range.offset).ok()?;
                    let length = usize::try_from(range.compressed_size).ok()?;
                    Some(start..start.checked_add(length)?)
                });
            Some(match plain {
                Some(range) => Ok((id, Stored::InFile(range))),
                None => load_section(file, id).map(|c| (id, Stored::Unpacked(c.into_owned()))),
            })
        };
        // One after the other: whoever asks first fills the image's cell with this, from within other work on the
        // pool. Waiting for work of its own there, it would be given some that asks for the same cell, for ever.
        STORED.into_iter().filter_map(stored).collect::<Result<_, _>>().map(Self)
    }

    /// The sections as gimli reads them; `bytes` are those of the file.
    pub(super) fn dwarf<'s>(&'s self, bytes: &'s [u8]) -> Dwarf<Input<'s>> {
        let section = |id: SectionId| {
            let found = self.0.iter().find(|(stored, _)| *stored == id);
            let content = match found {
                Some((_, Stored::InFile(range))) => bytes.get(range.clone()).unwrap_or_default(),
                Some((_, Stored::Unpacked(content))) => content,
                None => &[],
            };
            Ok::<_, std::convert::Infallible>(gimli::EndianSlice::new(content, LittleEndian))
        };
        Dwarf::load(section).unwrap_or_else(|never| match never {})
    }
}

fn has_content(file: &File<'_>, id: SectionId) -> bool {
    let section = file.section_by_name(id.name());
    // A file stripped to its debug information's counterpart keeps NOBITS headers.
    section.is_some_and(|section| {
        section.compressed_data().is_ok_and(|content| !content.data.is_empty())
    })
}

fn load_section<'d>(file: &File<'d>, id: SectionId) -> Result<Cow<'d, [u8]>, DebugError> {
    let name = id.name();
    // `section_by_name` finds `.zdebug_*` too.
    let Some(section) = file.section_by_name(name) else {
        return Ok(Cow::Borrowed(&[]));
    };
    let fail = |source| DebugError::Section { name, source };
    let content = section.compressed_data().map_err(fail)?;
    let compressed = content.data.len() as u64;
    let claimed = content.uncompressed_size;
    if claimed > compressed.saturating_mul(EXPANSION_LIMIT).saturating_add(64) {
        return Err(DebugError::Expansion { name, compressed, claimed });
    }
    content.decompress().map_err(fail)
}

/// Refuses a file that `dwz -m` moved a part out of: `.gnu_debugaltlink` names it; DWARF 5 (section
/// 7.3.6) has `.debug_sup`, whose third byte is 0 in the file that refers.
fn refuse_supplementary(file: &File<'_>) -> Result<(), DebugError> {
    let gnu = file.section_by_name(".gnu_debugaltlink");
    let standard = file.section_by_name(".debug_sup");
    let content = gnu.and_then(|section| section.data().ok()).or_else(|| {
        let data = standard?.data().ok()?;
        (data.get(2) == Some(&0)).then(|| data.get(3..)).flatten()
    });
    let Some(content) = content else {
        return Ok(());
    };
    let name = content.split(|&byte| byte == 0).next().unwrap_or_default();
    Err(DebugError::Supplementary { file: super::raw::text(name) })
}

/// Which addresses of the image are code and which are anything, to tell what the linker kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Extents {
    code: Vec<Range<u64>>,
    memory: Vec<Range<u64>>,
    /// Names of the thread-local symbols at offset 0; `None` where the image has no symbols.
    first_tls: Option<Vec<String>>,
}

impl Extents {
    /// From the section headers, or where there are none from the program headers.
    pub(super) fn of(file: &File<'_>) -> Self {
        let mut extents = Self::default();
        for section in file.sections() {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
                continue;
            };
            let range = section.address()..section.address().saturating_add(section.size());
            // A TLS section's addresses are those of its template; .tbss has none of its own.
            if !sh_flags.contains(elf::SHF_ALLOC)
                || sh_flags.contains(elf::SHF_TLS)
                || range.is_empty()
            {
                continue;
            }
            if sh_flags.contains(elf::SHF_EXECINSTR) {
                extents.code.push(range.clone());
            }
            extents.memory.push(range);
        }
        if extents.memory.is_empty() {
            extents.add_segments(file);
        }
        let tls = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Tls);
        let first: Vec<String> = tls
            .filter(|symbol| symbol.address() == 0)
            .filter_map(|symbol| symbol.name().ok().map(str::to_owned))
            .collect();
        extents.first_tls = (file.symbols().count() > 0).then_some(first);
        extents
    }

    fn add_segments(&mut self, file: &File<'_>) {
        for segment in file.segments() {
            // Address 0 is the file header, and what a discarded function is said to be at.
            let range = segment.address().max(1)..segment.address().saturating_add(segment.size());
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else {
                continue;
            };
            if p_flags.contains(elf::PF_X) {
                self.code.push(range.clone());
            }
            self.memory.push(range);
        }
    }

    /// Whether code of the image begins here. Functions that the linker discarded are said to be
    /// at 0 (GNU ld, gold), at 1 (GNU ld, in `.debug_ranges`), or at the top of the address space
    /// (lld; DWARF 6 will make that the rule).
    pub(super) fn has_code(&self, address: u64) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }

    /// Whether a thread-local variable of this name is at an offset. Discarded ones are said to be
    /// at 0, where one may be as well: only its symbol tells, which may have a suffix (`x.0`).
    pub(super) fn has_tls(&self, offset: u64, name: &str) -> bool {
        let is_named = |symbol: &String| {
            symbol.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        match &self.first_tls {
            Some(first) if offset == 0 => first.iter().any(is_named),
            _ => true,
        }
    }

    /// Whether memory of the image is here, or ends here (an empty object may lie at the end).
    pub(super) fn has_memory(&self, address: u64) -> bool {
        self.memory.iter().any(|range| range.start <= address && address <= range.end)
    }
}
