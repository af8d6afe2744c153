//! Reading a file into an [`Image`].

use super::functions::{self, Function, RawSymbol};
use super::{Image, Section, SectionKind, Tls};
use super::{anchors, labels, objects, offsets, plt, relocations, separate};
use crate::debug::{DebugInfo, SectionStore};
use dsu_patch_format::manifest::{DebugFile, ImageKind};
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{Object, ObjectSection};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

type File<'a> = ElfFile64<'a, object::Endianness>;
/// What the symbol table names.
#[derive(Default)]
struct Symbols {
    functions: Vec<RawSymbol>,
    /// Variables, tables, marks.
    data: Vec<RawSymbol>,
    thread_local: Vec<RawSymbol>,
    /// Symbols without a type; also in `data`, as marks.
    labels: Vec<RawSymbol>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The operating system's word.
    #[error("read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// Broken or unknown ELF.
    #[error("not a readable ELF file: {0}")]
    Elf(#[from] object::read::Error),
    /// Another machine, class or file type.
    #[error("{0}; dsu updates 64-bit x86-64 executables and shared libraries")]
    Unsupported(String),
    /// Nothing to recognize the running process by.
    #[error("no build id; link with -Wl,--build-id")]
    NoBuildId,
    /// Neither symbols here nor in a separate debug file.
    #[error(
        "no symbol table and no separate debug file found; keep the unstripped build, \
         or give the debug file with --debug-old/--debug-new"
    )]
    NoSymbols,
    /// A separate debug file of another build.
    #[error("debug file {0} belongs to another build")]
    OtherDebug(PathBuf),
    /// A packed relative relocation outside of the file.
    #[error("packed relative relocation at {0:#x} lies outside of the file's sections")]
    Relr(u64),
    /// Broken or unsupported debug information.
    #[error("debug information: {0}")]
    Debug(#[from] crate::debug::DebugError),
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The last part of a path.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

impl Image {
    /// Reads `path`, and its debug information from `debug` or from where it is kept apart.
    ///
    /// # Errors
    /// [`LoadError`] says what the file lacks.
    pub fn load(path: &Path, debug: Option<&Path>) -> Result<Self, LoadError> {
        let read = |p: &Path| std::fs::read(p).map_err(|e| LoadError::Read(p.to_owned(), e));
        let bytes = read(path)?;
        let any = object::File::parse(bytes.as_slice())?;
        let id = any.build_id()?.map(hex);
        let has_symbols = any.symbol_table().is_some_and(|t| {
            use object::ObjectSymbolTable;
            t.symbols().next().is_some()
        });
        let has_dwarf = any.section_by_name(".debug_info").is_some()
            || any.section_by_name(".zdebug_info").is_some();
        let apart = match debug {
            Some(given) => Some(given.to_owned()),
            None if has_symbols && has_dwarf => None,
            None => separate::candidates(path, &any).into_iter().next(),
        };
        let apart_bytes = apart.as_deref().map(read).transpose()?;
        if let (Some(b), Some(p)) = (&apart_bytes, &apart) {
            let other = object::File::parse(b.as_slice())?.build_id()?.map(hex);
            if other != id {
                return Err(LoadError::OtherDebug(p.clone()));
            }
        }
        let debug_file = apart
            .zip(apart_bytes.as_deref())
            .map(|(path, bytes)| DebugFile { file: name(&path), sha256: sha256(bytes) });
        Ok(Self { debug_file, ..Self::parse(&name(path), bytes, apart_bytes, id)? })
    }

    fn parse(
        name: &str,
        bytes: Vec<u8>,
        apart: Option<Vec<u8>>,
        build_id: Option<String>,
    ) -> Result<Self, LoadError> {
        check_header(&bytes)?;
        let file = File::parse(bytes.as_slice())?;
        let build_id = build_id.ok_or(LoadError::NoBuildId)?;
        let apart_file = apart.as_deref().map(File::parse).transpose()?;
        let (debug, embedded) = {
            let main = object::File::parse(bytes.as_slice())?;
            let apart = apart.as_deref().map(object::File::parse).transpose()?;
            (DebugInfo::read(&main, apart.as_ref())?, SectionStore::is_in(&main))
        };
        let sections = sections(&file, &bytes)?;
        let mut found = symbols(&file)?;
        if found.functions.is_empty()
            && let Some(apart) = &apart_file
        {
            found = symbols(apart)?;
        }
        let Symbols { functions, data, thread_local, labels } = found;
        if functions.is_empty() {
            return Err(LoadError::NoSymbols);
        }
        let relocations = relocations::dynamic(&file)?;
        let tls = tls(&file)?;
        let mut functions = functions::collect(functions, &sections, &debug);
        functions.retain(|f| !in_plt(&sections, f.address));
        let entries = plt::collect(&sections, &bytes, &relocations, |address| {
            let index = functions.binary_search_by_key(&address, |f| f.address).ok()?;
            Some(functions[index].name().to_owned())
        });
        functions.extend(entries);
        functions.sort_by_key(|f| f.address);
        let copied = |a: u64| relocations.get(&a).is_some_and(|r| r.kind == elf::R_X86_64_COPY);
        let tls_start = tls.as_ref().map_or(0, |t| t.extent.start);
        let objects = objects::collect(data, thread_local, tls_start, &sections, &debug, copied);
        let plain_objects = objects.partition_point(|o| o.storage != objects::Storage::ThreadLocal);
        let endian = file.endian();
        let fixed = file.elf_header().e_type(endian) == elf::ET_EXEC;
        let has_interpreter =
            file.elf_program_headers().iter().any(|p| p.p_type(endian) == elf::PT_INTERP);
        let executable = fixed || has_interpreter || static_pie(&file);
        let static_relocations = relocations::emitted(&file)?;
        let extent = extent(&file);
        let mut image = Self {
            file: name.to_owned(),
            build_id,
            kind: if executable { ImageKind::Executable } else { ImageKind::Library },
            sha256: sha256(&bytes),
            debug_file: None,
            fixed,
            extent,
            sections,
            functions,
            objects,
            relocations,
            static_relocations,
            tls,
            referred: Vec::new(),
            anchors: Vec::new(),
            debug,
            unwind: super::UnwindIndex::default(),
            plain_objects,
            offset_bases: std::collections::BTreeSet::new(),
            cold_index: Vec::new(),
            bytes,
            apart: apart.filter(|_| !embedded),
            store: OnceLock::new(),
        };
        image.index_cold_parts();
        labels::adopt(&mut image, &labels);
        image.index_cold_parts();
        rooms(&mut image.functions, &image.sections);
        image.referred = anchors::referred(&image);
        offsets::adopt(&mut image);
        image.anchors = anchors::collect(&image);
        Ok(image)
    }

    fn index_cold_parts(&mut self) {
        let functions = self.functions.iter().enumerate();
        self.cold_index =
            functions.flat_map(|(i, f)| f.cold.iter().map(move |r| (r.clone(), i))).collect();
        self.cold_index.sort_by_key(|(r, _)| r.start);
    }
}

fn check_header(bytes: &[u8]) -> Result<(), LoadError> {
    let unsupported = |what: &str| Err(LoadError::Unsupported(what.to_owned()));
    match bytes.get(..20) {
        Some(h) if h[..4] != elf::ELFMAG => unsupported("not an ELF file"),
        Some(h) if h[4] != elf::ELFCLASS64.0 => unsupported("a 32-bit file"),
        Some(h) if u16::from_le_bytes([h[18], h[19]]) != elf::EM_X86_64.0 => {
            unsupported("a file for another machine")
        }
        Some(h) => match u16::from_le_bytes([h[16], h[17]]) {
            t if t == elf::ET_EXEC.0 || t == elf::ET_DYN.0 => Ok(()),
            t if t == elf::ET_REL.0 => unsupported("an object file that is not linked yet"),
            t => unsupported(&format!("an ELF file of type {t}")),
        },
        None => unsupported("not an ELF file"),
    }
}

fn static_pie(file: &File<'_>) -> bool {
    // DF_1_PIE marks executables without an interpreter (gABI extension of the GNU linker).
    let endian = file.endian();
    let Ok(Some((dynamic, _))) = file.elf_section_table().dynamic(endian, file.data()) else {
        return false;
    };
    use object::read::elf::Dyn;
    dynamic
        .iter()
        .any(|d| d.d_tag(endian) == elf::DT_FLAGS_1 && d.d_val(endian) & elf::DF_1_PIE.0 != 0)
}

fn sections(file: &File<'_>, bytes: &[u8]) -> Result<Vec<Section>, LoadError> {
    let endian = file.endian();
    let relro: Vec<Range<u64>> = file
        .elf_program_headers()
        .iter()
        .filter(|p| p.p_type(endian) == elf::PT_GNU_RELRO)
        .map(|p| p.p_vaddr(endian)..p.p_vaddr(endian).saturating_add(p.p_memsz(endian)))
        .collect();
    let mut out = Vec::new();
    for section in file.sections() {
        let header = section.elf_section_header();
        let flags = header.sh_flags(endian);
        let (address, size) = (header.sh_addr(endian), header.sh_size(endian));
        if flags.0 & elf::SHF_ALLOC.0 == 0 || size == 0 || address.checked_add(size).is_none() {
            continue;
        }
        let tls = flags.0 & elf::SHF_TLS.0 != 0;
        let no_bits = header.sh_type(endian) == elf::SHT_NOBITS;
        if tls && no_bits {
            // Takes no room in the image (gABI): `.tbss` overlaps what follows.
            continue;
        }
        let kind = if tls {
            SectionKind::Tls
        } else if flags.0 & elf::SHF_EXECINSTR.0 != 0 {
            SectionKind::Text
        } else if flags.0 & elf::SHF_WRITE.0 == 0 {
            SectionKind::ReadOnly
        } else if relro.iter().any(|r| r.contains(&address)) {
            SectionKind::RelRo
        } else {
            SectionKind::Data
        };
        let offset = usize::try_from(header.sh_offset(endian)).unwrap_or(usize::MAX);
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let range = if no_bits {
            0..0
        } else {
            let end = offset.checked_add(length).filter(|e| *e <= bytes.len());
            let beyond = || LoadError::Unsupported("a file that ends inside of a section".into());
            offset..end.ok_or_else(beyond)?
        };
        out.push(Section {
            name: section.name().unwrap_or_default().to_owned(),
            address,
            size,
            file: range,
            kind,
            entry_size: header.sh_entsize(endian),
        });
    }
    out.sort_by_key(|s| s.address);
    Ok(out)
}

fn symbols(file: &File<'_>) -> Result<Symbols, LoadError> {
    let endian = file.endian();
    let mut out = Symbols::default();
    let exported: std::collections::HashSet<u64> = {
        let table = file.elf_dynamic_symbol_table();
        table
            .iter()
            .filter(|s| s.st_shndx(endian) != elf::SHN_UNDEF)
            .map(|s| s.st_value(endian))
            .collect()
    };
    let table = file.elf_symbol_table();
    let mut unit = String::new();
    for symbol in table.iter() {
        let name = || -> Result<String, LoadError> {
            Ok(String::from_utf8_lossy(symbol.name(endian, table.strings())?).into_owned())
        };
        let local = symbol.st_bind() == elf::STB_LOCAL;
        if symbol.st_type() == elf::STT_FILE {
            unit = name()?;
            continue;
        }
        if symbol.st_shndx(endian) == elf::SHN_UNDEF {
            continue;
        }
        let address = symbol.st_value(endian);
        let mut raw = RawSymbol {
            name: name()?,
            address,
            size: symbol.st_size(endian),
            local,
            exported: exported.contains(&address),
            file: if local { unit.clone() } else { String::new() },
        };
        // Assemblers' own labels, which --emit-relocs keeps, name no object.
        if raw.name.is_empty() || raw.name.starts_with(".L") {
            continue;
        }
        match symbol.st_type() {
            elf::STT_FUNC | elf::STT_GNU_IFUNC => out.functions.push(raw),
            elf::STT_OBJECT | elf::STT_COMMON => out.data.push(raw),
            elf::STT_TLS => out.thread_local.push(raw),
            // Marks of the linker and of assembler sources: known by their place alone.
            elf::STT_NOTYPE if symbol.st_shndx(endian) != elf::SHN_ABS => {
                out.labels.push(raw.clone());
                raw.size = 0;
                out.data.push(raw);
            }
            _ => {}
        }
    }
    Ok(out)
}

fn in_plt(sections: &[Section], address: u64) -> bool {
    let inside = |s: &&Section| (s.address..s.end()).contains(&address);
    sections.iter().find(inside).is_some_and(|s| s.name.starts_with(".plt"))
}

/// From an entry to the next function, cold part, or end of section.
fn rooms(functions: &mut [Function], sections: &[Section]) {
    let mut starts: Vec<u64> = functions
        .iter()
        .flat_map(|f| std::iter::once(f.address).chain(f.cold.iter().map(|r| r.start)))
        .collect();
    starts.sort_unstable();
    for function in functions.iter_mut() {
        let next = starts.partition_point(|s| *s <= function.address);
        let next = starts.get(next).copied().unwrap_or(u64::MAX);
        let section = sections.iter().find(|s| (s.address..s.end()).contains(&function.address));
        let end = section.map_or(function.main().end, Section::end);
        function.room = next.min(end).saturating_sub(function.address);
    }
}

fn tls(file: &File<'_>) -> Result<Option<Tls>, LoadError> {
    let endian = file.endian();
    let header = file.elf_program_headers().iter().find(|p| p.p_type(endian) == elf::PT_TLS);
    let Some(header) = header else {
        return Ok(None);
    };
    let (start, size) = (header.p_vaddr(endian), header.p_memsz(endian));
    let align = header.p_align(endian).max(1);
    let end = start.checked_add(size);
    let rounded = size.checked_next_multiple_of(align);
    match (end, rounded) {
        (Some(end), Some(to_thread_pointer)) => {
            Ok(Some(Tls { extent: start..end, to_thread_pointer }))
        }
        _ => Err(LoadError::Unsupported("a file with a thread-local segment out of bounds".into())),
    }
}

fn extent(file: &File<'_>) -> Range<u64> {
    let endian = file.endian();
    let loads = || file.elf_program_headers().iter().filter(|p| p.p_type(endian) == elf::PT_LOAD);
    let start = loads().map(|p| p.p_vaddr(endian)).min().unwrap_or(0);
    let end =
        loads().map(|p| p.p_vaddr(endian).saturating_add(p.p_memsz(endian))).max().unwrap_or(0);
    start..end
}
