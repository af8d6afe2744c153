//! Relocations: the dynamic ones, by what they mean for their place, and those that
//! `--emit-relocs` left in the file. Relocation types are those of the psABI, section 4.4.

use super::load::LoadError;
use object::elf;
use object::read::elf::{ElfFile64, Rela, SectionHeader, Sym};
use std::collections::BTreeMap;
use std::fmt;

/// A symbol of the dynamic symbol table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SymbolName {
    /// Name without version.
    pub name: String,
    /// Version required, if any.
    pub version: Option<String>,
    /// Undefined weak symbols resolve to 0 when absent.
    pub weak: bool,
    /// Address in this image when it defines the symbol itself.
    pub defined: Option<u64>,
}

impl fmt::Display for SymbolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.version.as_ref().map_or(Ok(()), |v| write!(f, "@{v}"))
    }
}

/// What the dynamic linker puts at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Load bias plus this address (`RELATIVE`, `RELR`).
    Address(u64),
    /// A symbol's address plus an addend (`64`, `GLOB_DAT`, `JUMP_SLOT`).
    Symbol(SymbolName, i64),
    /// A copy of the symbol's initial content (`COPY`).
    Copy(SymbolName),
    /// A number that the static linker put there: no address of the image (a weak symbol that is
    /// defined nowhere is 0).
    Number(u64),
    /// What the resolver at this address returns (`IRELATIVE`).
    Resolver(u64),
    /// A thread-local symbol's module, offset or both (`DTPMOD64`, `DTPOFF64`, `TPOFF64`,
    /// `TLSDESC`): relocation type, symbol, addend.
    ThreadLocal(elf::RelocationType, Option<SymbolName>, i64),
}

/// A dynamic relocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicRelocation {
    /// `R_X86_64_*`.
    pub kind: elf::RelocationType,
    /// What it puts there.
    pub meaning: Meaning,
}

/// A relocation that the linker applied already and left for us to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticRelocation {
    /// Place as linked.
    pub at: u64,
    /// `R_X86_64_*`.
    pub kind: elf::RelocationType,
    /// Address of the symbol that the source named; `None` where the assembler made it an offset
    /// in a section.
    pub symbol: Option<u64>,
    /// Addend.
    pub addend: i64,
}

type File<'a> = ElfFile64<'a, object::Endianness>;

/// Reads every dynamic relocation of the file, `.relr.dyn` included.
pub(super) fn dynamic(file: &File<'_>) -> Result<BTreeMap<u64, DynamicRelocation>, LoadError> {
    let endian = file.endian();
    let data = file.data();
    let sections = file.elf_section_table();
    let versions = sections.versions(endian, data)?;
    let symbols = file.elf_dynamic_symbol_table();
    let mut out = BTreeMap::new();
    for (_, section) in sections.enumerate() {
        if section.sh_flags(endian).0 & elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        if section.sh_type(endian) == elf::SHT_RELR {
            relr(file, section, &mut out)?;
            continue;
        }
        let Some((relas, _)) = section.rela(endian, data)? else {
            continue;
        };
        for rela in relas {
            let symbol = rela.symbol(endian, false).map(|index| -> Result<_, LoadError> {
                let symbol = symbols.symbol(index)?;
                let name = String::from_utf8_lossy(symbol.name(endian, symbols.strings())?);
                let version = match &versions {
                    Some(v) => v.version(v.version_index(endian, index).index())?,
                    None => None,
                };
                let version = version.map(|v| String::from_utf8_lossy(v.name()).into_owned());
                let undefined = symbol.st_shndx(endian) == elf::SHN_UNDEF;
                Ok(SymbolName {
                    name: name.into_owned(),
                    version,
                    weak: undefined && symbol.st_bind() == elf::STB_WEAK,
                    defined: (!undefined).then(|| symbol.st_value(endian)),
                })
            });
            let symbol = symbol.transpose()?;
            let kind = rela.r_type(endian, false);
            let addend = rela.r_addend(endian);
            if let Some(meaning) = meaning(kind, symbol, addend) {
                out.insert(rela.r_offset(endian), DynamicRelocation { kind, meaning });
            }
        }
    }
    Ok(out)
}

fn meaning(kind: elf::RelocationType, symbol: Option<SymbolName>, addend: i64) -> Option<Meaning> {
    Some(match (kind, symbol) {
        (elf::R_X86_64_RELATIVE | elf::R_X86_64_RELATIVE64, _) => {
            Meaning::Address(addend.cast_unsigned())
        }
        (elf::R_X86_64_IRELATIVE, _) => Meaning::Resolver(addend.cast_unsigned()),
        (elf::R_X86_64_COPY, Some(symbol)) => Meaning::Copy(symbol),
        (elf::R_X86_64_64 | elf::R_X86_64_GLOB_DAT | elf::R_X86_64_JUMP_SLOT, Some(symbol)) => {
            Meaning::Symbol(symbol, addend)
        }
        (elf::R_X86_64_NONE, _) => return None,
        (kind, symbol) => Meaning::ThreadLocal(kind, symbol, addend),
    })
}

/// `SHT_RELR` (gABI): an even entry is an address, an odd one a bitmap of the 63 words after it.
fn relr(
    file: &File<'_>,
    section: &elf::SectionHeader64<object::Endianness>,
    out: &mut BTreeMap<u64, DynamicRelocation>,
) -> Result<(), LoadError> {
    let words: &[object::U64<object::Endianness>] =
        section.data_as_array(file.endian(), file.data())?;
    let mut place = 0u64;
    for word in words {
        let word = word.get(file.endian());
        if word & 1 == 0 {
            relative_in_place(file, word, out)?;
            place = word.wrapping_add(8);
            continue;
        }
        for bit in (0..63).filter(|bit| word >> (bit + 1) & 1 == 1) {
            relative_in_place(file, place.wrapping_add(bit * 8), out)?;
        }
        place = place.wrapping_add(63 * 8);
    }
    Ok(())
}

/// A relative relocation whose addend is what stands at its place.
fn relative_in_place(
    file: &File<'_>,
    at: u64,
    out: &mut BTreeMap<u64, DynamicRelocation>,
) -> Result<(), LoadError> {
    use object::{Object, ObjectSection};
    let bytes = file
        .sections()
        .find_map(|s| s.data_range(at, 8).ok().flatten())
        .and_then(|b| <[u8; 8]>::try_from(b).ok())
        .ok_or(LoadError::Relr(at))?;
    let meaning = Meaning::Address(u64::from_le_bytes(bytes));
    out.insert(at, DynamicRelocation { kind: elf::R_X86_64_RELATIVE, meaning });
    Ok(())
}

/// Reads the relocations of allocated sections that `--emit-relocs` left, ascending.
pub(super) fn emitted(file: &File<'_>) -> Result<Vec<StaticRelocation>, LoadError> {
    let endian = file.endian();
    let sections = file.elf_section_table();
    let symbols = file.elf_symbol_table();
    let mut out = Vec::new();
    for (_, section) in sections.enumerate() {
        if section.sh_flags(endian).0 & elf::SHF_ALLOC.0 != 0 {
            continue;
        }
        let Some((relas, _)) = section.rela(endian, file.data())? else {
            continue;
        };
        let target = sections.section(section.info_link(endian))?;
        if target.sh_flags(endian).0 & elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        for rela in relas {
            let Some(index) = rela.symbol(endian, false) else {
                continue;
            };
            let symbol = symbols.symbol(index)?;
            let named = symbol.st_type() != elf::STT_SECTION;
            out.push(StaticRelocation {
                at: rela.r_offset(endian),
                kind: rela.r_type(endian, false),
                symbol: named.then(|| symbol.st_value(endian)),
                addend: rela.r_addend(endian),
            });
        }
    }
    out.sort_by_key(|r| r.at);
    Ok(out)
}
