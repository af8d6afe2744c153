//! The loaded images of the process: executable, libraries, vDSO.
//!
//! Takes the mappings and the memory; gives one [`Module`] for each ELF image that is loaded as one
//! (a file that is merely mapped for reading is not). Works from the process's memory alone.

use super::elf::Headers;
use super::maps::{Mapping, Maps};
use super::memory::ReadMemory;
use crate::address::{Bias, ProcAddr};
use object::elf;

/// A loaded ELF image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// As the kernel prints it in the maps.
    pub name: Box<str>,
    /// Where its file's first byte is mapped.
    pub base: ProcAddr,
    /// Process address minus linked address.
    pub bias: Bias,
    /// Program headers.
    pub headers: Headers,
    /// First byte of its loaded segments.
    pub start: ProcAddr,
    /// Past the last byte of its loaded segments.
    pub end: ProcAddr,
}

impl Module {
    /// The module whose ELF header is at the start of `mapping`, if it is loaded as an image.
    fn at(memory: &impl ReadMemory, maps: &Maps, mapping: &Mapping) -> Option<Self> {
        let headers = Headers::read(memory, mapping.start)?;
        let bias = headers.bias(mapping.start)?;
        let (start, end) = headers.extent()?;
        let code = headers.loads().find(|s| s.flags & elf::PF_X.0 != 0)?;
        maps.find(bias.apply(code.vaddr)).filter(|m| m.executable)?;
        let (start, end) = (bias.apply(start), bias.apply(end));
        // Servers move their text to anonymous memory for the sake of huge pages, some with all around it.
        let inside = |m: &&Mapping| m.inode != 0 && start <= m.start && m.end <= end;
        let named = if mapping.inode == 0 { maps.0.iter().find(inside) } else { None };
        let name = named.unwrap_or(mapping).name.clone();
        Some(Self { name, base: mapping.start, bias, headers, start, end })
    }

    /// All modules of a process, in the order of their addresses.
    #[must_use]
    pub fn all(memory: &impl ReadMemory, maps: &Maps) -> Vec<Self> {
        let anonymous = |m: &Mapping| m.inode == 0 && m.name.is_empty() && !m.writable;
        let image = |m: &&Mapping| {
            let loaded = m.inode != 0 || &*m.name == "[vdso]" || anonymous(m);
            m.offset == 0 && m.readable && loaded
        };
        maps.0.iter().filter(image).filter_map(|m| Self::at(memory, maps, m)).collect()
    }

    /// The file name without directories and without the kernel's mark for deleted files.
    #[must_use]
    pub fn file_name(&self) -> &str {
        let path = self.name.strip_suffix(" (deleted)").unwrap_or(&self.name);
        path.rsplit('/').next().unwrap_or(path)
    }

    /// The GNU build id in lower-case hexadecimal.
    #[must_use]
    pub fn build_id(&self, memory: &impl ReadMemory) -> Option<String> {
        self.headers.build_id(memory, self.bias)
    }

    /// Whether `at` lies in an executable segment.
    #[must_use]
    pub fn is_code(&self, at: ProcAddr) -> bool {
        let linked = self.bias.linked(at);
        self.headers
            .loads()
            .any(|s| s.flags & elf::PF_X.0 != 0 && linked.wrapping_sub(s.vaddr) < s.mem_size)
    }

    /// The first program header of a type, in the process.
    #[must_use]
    pub fn place_of(&self, kind: u32) -> Option<(ProcAddr, u64)> {
        let segment = self.headers.of_kind(kind).next()?;
        Some((self.bias.apply(segment.vaddr), segment.mem_size))
    }
}
