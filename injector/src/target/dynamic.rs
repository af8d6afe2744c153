//! The dynamic section of a loaded image: symbol lookup by hash and version, relocations.
//!
//! Takes a module and a reader; gives symbols with their addresses. Everything is read from the
//! process, nothing from files. Broken tables give "not found": every walk is bounded.
//! (gABI chapter 5; GNU hash: binutils' documentation; versions: LSB core, symbol versioning.)

use super::elf::{u16_at, u32_at, u64_at};
use super::memory::ReadMemory;
use super::module::Module;
use crate::address::{Bias, ProcAddr};
use object::elf;

/// Bounds against broken tables.
const MAX_DYNAMIC: usize = 512;
const MAX_CHAIN: usize = 1 << 16;
const MAX_VERSIONS: usize = 1 << 12;
const MAX_RELOCATIONS: u64 = 1 << 21;
const MAX_NAME: usize = 1 << 12;
const MAX_NAMES: u64 = 1 << 28;

/// The tables that the dynamic section names.
#[derive(Debug, Clone, Default)]
pub struct Dynamic {
    bias: Bias,
    symbols: Option<ProcAddr>,
    strings: Option<ProcAddr>,
    strings_size: u64,
    gnu_hash: Option<ProcAddr>,
    sysv_hash: Option<ProcAddr>,
    version_indices: Option<ProcAddr>,
    version_names: Vec<(u16, Vec<u8>)>,
    relocations: Vec<(ProcAddr, u64)>,
    /// `r_debug` of the dynamic linker, in the executable alone.
    pub debug: Option<ProcAddr>,
}

/// A symbol that a module defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol {
    /// Its address; for [`elf::STT_GNU_IFUNC`] that of the resolver.
    pub address: ProcAddr,
    /// `STT_*`.
    pub kind: u8,
    /// Whether it is its name's default version.
    pub default: bool,
}

/// A relocation with the content of the slot it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// `R_X86_64_*`.
    pub kind: u32,
    /// Symbol index.
    pub symbol: u32,
    /// Addend.
    pub addend: i64,
    /// The place.
    pub slot: ProcAddr,
}

impl Dynamic {
    /// Reads the dynamic section of `module`; `None` for a static image.
    #[must_use]
    pub fn read(memory: &impl ReadMemory, module: &Module) -> Option<Self> {
        let (at, size) = module.place_of(elf::PT_DYNAMIC.0)?;
        let count = usize::try_from(size / 16).ok()?.min(MAX_DYNAMIC);
        let bytes = memory.read_vec(at, count * 16).ok()?;
        let entries = bytes.chunks_exact(16).map(|e| (u64_at(e, 0).cast_signed(), u64_at(e, 8)));
        let entries: Vec<_> = entries.take_while(|(tag, _)| *tag != 0).collect();
        let value = |tag: elf::DynamicTag| entries.iter().find(|e| e.0 == tag.0).map(|e| e.1);
        // glibc's linker adds the bias to these in place, musl's and the vDSO's do not.
        let place = |tag| value(tag).map(|v| absolute(module, v));
        let table = |start, size| Some((place(start)?, value(size)? / 24));
        let mut dynamic = Self {
            bias: module.bias,
            symbols: place(elf::DT_SYMTAB),
            strings: place(elf::DT_STRTAB),
            strings_size: value(elf::DT_STRSZ).unwrap_or(0),
            gnu_hash: place(elf::DT_GNU_HASH),
            sysv_hash: place(elf::DT_HASH),
            version_indices: place(elf::DT_VERSYM),
            version_names: Vec::new(),
            relocations: [
                table(elf::DT_RELA, elf::DT_RELASZ),
                table(elf::DT_JMPREL, elf::DT_PLTRELSZ),
            ]
            .into_iter()
            .flatten()
            .collect(),
            debug: value(elf::DT_DEBUG).filter(|v| *v != 0).map(ProcAddr),
        };
        if let (Some(at), Some(count)) = (place(elf::DT_VERDEF), value(elf::DT_VERDEFNUM)) {
            dynamic.version_names = dynamic.read_versions(memory, at, count).unwrap_or_default();
        }
        Some(dynamic)
    }

    /// `Elf64_Verdef` chain: index and name of each version that the module defines.
    fn read_versions(
        &self,
        memory: &impl ReadMemory,
        mut at: ProcAddr,
        count: u64,
    ) -> Option<Vec<(u16, Vec<u8>)>> {
        let mut names = Vec::new();
        for _ in 0..usize::try_from(count).ok()?.min(MAX_VERSIONS) {
            let definition = memory.read_vec(at, 20).ok()?;
            let aux = at.offset(u64::from(u32_at(&definition, 12)));
            let name = self.string(memory, u64::from(memory.read_u32(aux).ok()?))?;
            // The top bit of an index is the hidden flag of version symbols.
            names.push((u16_at(&definition, 4) & !elf::VERSYM_HIDDEN.0, name));
            let next = u32_at(&definition, 16);
            if next == 0 {
                break;
            }
            at = at.offset(u64::from(next));
        }
        Some(names)
    }

    /// The table of all names, each between zeroes.
    pub fn names(&self, memory: &impl ReadMemory) -> Option<Vec<u8>> {
        let size = usize::try_from(self.strings_size.min(MAX_NAMES)).ok()?;
        memory.read_vec(self.strings?, size).ok()
    }

    fn string(&self, memory: &impl ReadMemory, offset: u64) -> Option<Vec<u8>> {
        memory.read_str(self.strings?.offset(offset), MAX_NAME).ok()
    }

    /// The definition of `name` that a reference with `version` binds to.
    #[must_use]
    pub fn find(
        &self,
        memory: &impl ReadMemory,
        name: &str,
        version: Option<&str>,
    ) -> Option<Symbol> {
        let candidates = self.candidates(memory, name.as_bytes())?;
        let mut found: Option<Symbol> = None;
        for index in candidates {
            let Some(symbol) = self.matching(memory, index, name.as_bytes(), version) else {
                continue;
            };
            if version.is_some() || symbol.default {
                return Some(symbol);
            }
            found.get_or_insert(symbol);
        }
        found
    }

    fn matching(
        &self,
        memory: &impl ReadMemory,
        index: u32,
        name: &[u8],
        version: Option<&str>,
    ) -> Option<Symbol> {
        let raw = memory.read_vec(self.symbols?.offset(u64::from(index) * 24), 24).ok()?;
        let defined = u16_at(&raw, 6) != elf::SHN_UNDEF.0;
        let local = raw[4] >> 4 == elf::STB_LOCAL.0;
        let spelled = memory
            .read_vec(self.strings?.offset(u64::from(u32_at(&raw, 0))), name.len() + 1)
            .is_ok_and(|s| s.strip_suffix(&[0]) == Some(name));
        if !defined || local || !spelled {
            return None;
        }
        let versym = match self.version_indices {
            Some(table) => {
                let mut word = [0; 2];
                memory.read(table.offset(u64::from(index) * 2), &mut word).ok()?;
                u16::from_le_bytes(word)
            }
            None => 1,
        };
        let number = versym & !elf::VERSYM_HIDDEN.0;
        if let Some(wanted) = version {
            let of_index = self.version_names.iter().find(|v| v.0 == number);
            // A module without versions satisfies any (LSB, symbol lookup).
            let none = self.version_names.is_empty();
            if !none && of_index.is_none_or(|v| v.1 != wanted.as_bytes()) {
                return None;
            }
        }
        let value = u64_at(&raw, 8);
        let absolute = u16_at(&raw, 6) == elf::SHN_ABS.0;
        Some(Symbol {
            address: if absolute { ProcAddr(value) } else { self.bias.apply(value) },
            kind: raw[4] & 0xf,
            default: versym & elf::VERSYM_HIDDEN.0 == 0,
        })
    }

    /// Indices of the symbols whose hash is that of `name`.
    fn candidates(&self, memory: &impl ReadMemory, name: &[u8]) -> Option<Vec<u32>> {
        match (self.gnu_hash, self.sysv_hash) {
            (Some(table), _) => gnu_candidates(memory, table, name),
            (None, Some(table)) => sysv_candidates(memory, table, name),
            (None, None) => None,
        }
    }

    /// All relocations of the module.
    #[must_use]
    pub fn relocations(&self, memory: &impl ReadMemory) -> Vec<Relocation> {
        let mut all = Vec::new();
        for (at, count) in &self.relocations {
            let Ok(len) = usize::try_from((*count).min(MAX_RELOCATIONS) * 24) else { continue };
            let Ok(bytes) = memory.read_vec(*at, len) else { continue };
            all.extend(bytes.chunks_exact(24).map(|r| Relocation {
                kind: u32_at(r, 8),
                symbol: u32_at(r, 12),
                addend: u64_at(r, 16).cast_signed(),
                slot: self.bias.apply(u64_at(r, 0)),
            }));
        }
        all
    }

    /// The name of a symbol by its index.
    #[must_use]
    pub fn name_of(&self, memory: &impl ReadMemory, index: u32) -> Option<Vec<u8>> {
        let at = self.symbols?.offset(u64::from(index) * 24);
        self.string(memory, u64::from(memory.read_u32(at).ok()?))
    }
}

fn absolute(module: &Module, value: u64) -> ProcAddr {
    let relocated = ProcAddr(value);
    let inside = module.start <= relocated && relocated < module.end;
    if inside { relocated } else { module.bias.apply(value) }
}

fn gnu_candidates(memory: &impl ReadMemory, table: ProcAddr, name: &[u8]) -> Option<Vec<u32>> {
    let header = memory.read_vec(table, 16).ok()?;
    let (buckets, first) = (u32_at(&header, 0), u32_at(&header, 4));
    let (bloom_words, shift) = (u32_at(&header, 8), u32_at(&header, 12));
    if buckets == 0 || bloom_words == 0 {
        return None;
    }
    let hash = elf::gnu_hash(name);
    let bloom = table.offset(16);
    let word = memory.read_u64(bloom.offset(u64::from(hash / 64 % bloom_words) * 8)).ok()?;
    let second = hash.checked_shr(shift).unwrap_or(0);
    if word >> (hash % 64) & word >> (second % 64) & 1 == 0 {
        return Some(Vec::new());
    }
    let bucket_table = bloom.offset(u64::from(bloom_words) * 8);
    let mut index = memory.read_u32(bucket_table.offset(u64::from(hash % buckets) * 4)).ok()?;
    let chain = bucket_table.offset(u64::from(buckets) * 4);
    let mut found = Vec::new();
    if index == 0 {
        return Some(found);
    }
    for _ in 0..MAX_CHAIN {
        let link = chain.offset(u64::from(index.checked_sub(first)?) * 4);
        let entry = memory.read_u32(link).ok()?;
        if entry | 1 == hash | 1 {
            found.push(index);
        }
        if entry & 1 == 1 {
            break;
        }
        index = index.checked_add(1)?;
    }
    Some(found)
}

fn sysv_candidates(memory: &impl ReadMemory, table: ProcAddr, name: &[u8]) -> Option<Vec<u32>> {
    let buckets = memory.read_u32(table).ok()?;
    if buckets == 0 {
        return None;
    }
    let bucket_table = table.offset(8);
    let chain = bucket_table.offset(u64::from(buckets) * 4);
    let hash = elf::hash(name);
    let mut index = memory.read_u32(bucket_table.offset(u64::from(hash % buckets) * 4)).ok()?;
    let mut found = Vec::new();
    while index != 0 && found.len() < MAX_CHAIN {
        found.push(index);
        index = memory.read_u32(chain.offset(u64::from(index) * 4)).ok()?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::FakeMemory;

    const NAMES: &[u8] = b"\0open\0close\0V1\0V2\0";

    /// A module at bias 0x1000 with `open@V1` (hidden), `open@@V2` and `close@@V1`.
    fn library() -> (FakeMemory, Dynamic) {
        let symbols = [(0, 0, 0), (1, 0x12, 0x100), (1, 0x12, 0x200), (6, 0x1a, 0x300)];
        let mut table = Vec::new();
        for (name, info, value) in symbols {
            table.extend_from_slice(&u32::to_le_bytes(name));
            table.extend_from_slice(&[info, 0, u8::from(name != 0), 0]);
            table.extend_from_slice(&u64::to_le_bytes(value));
            table.extend_from_slice(&[0; 8]);
        }
        let versions: Vec<u8> = [0u16, 0x8002, 3, 2].iter().flat_map(|v| v.to_le_bytes()).collect();
        // SysV hash with one bucket: every symbol is in one chain.
        let hash: Vec<u8> = [1u32, 4, 1, 0, 2, 3, 0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let memory = FakeMemory(vec![
            (ProcAddr(0x2000), table),
            (ProcAddr(0x3000), NAMES.to_vec()),
            (ProcAddr(0x4000), versions),
            (ProcAddr(0x5000), hash),
        ]);
        let dynamic = Dynamic {
            bias: Bias(0x1000),
            symbols: Some(ProcAddr(0x2000)),
            strings: Some(ProcAddr(0x3000)),
            sysv_hash: Some(ProcAddr(0x5000)),
            version_indices: Some(ProcAddr(0x4000)),
            version_names: vec![(2, b"V1".to_vec()), (3, b"V2".to_vec())],
            ..Dynamic::default()
        };
        (memory, dynamic)
    }

    #[test]
    fn versions_decide() {
        let (memory, dynamic) = library();
        let find = |name, version| dynamic.find(&memory, name, version).map(|s| s.address.0);
        assert_eq!(find("open", None), Some(0x1200));
        assert_eq!(find("open", Some("V1")), Some(0x1100));
        assert_eq!(find("open", Some("V2")), Some(0x1200));
        assert_eq!(find("open", Some("V3")), None);
        assert_eq!(find("close", None), Some(0x1300));
        assert_eq!(find("clos", None), None);
        assert_eq!(find("closed", None), None);
    }

    #[test]
    fn a_module_without_versions_satisfies_any() {
        let (memory, mut dynamic) = library();
        dynamic.version_names.clear();
        dynamic.version_indices = None;
        assert!(dynamic.find(&memory, "close", Some("V9")).is_some());
    }

    #[test]
    fn gnu_hash_finds_and_rejects() {
        let hash = elf::gnu_hash(b"open");
        let mut table: Vec<u8> = [1u32, 1, 1, 6].iter().flat_map(|v| v.to_le_bytes()).collect();
        let bloom: u64 = 1 << (hash % 64) | 1 << ((hash >> 6) % 64);
        table.extend_from_slice(&bloom.to_le_bytes());
        table.extend_from_slice(&1u32.to_le_bytes());
        table.extend_from_slice(&(hash & !1).to_le_bytes());
        table.extend_from_slice(&(hash | 1).to_le_bytes());
        let memory = FakeMemory(vec![(ProcAddr(0x100), table)]);
        assert_eq!(gnu_candidates(&memory, ProcAddr(0x100), b"open"), Some(vec![1, 2]));
        let other = gnu_candidates(&memory, ProcAddr(0x100), b"other");
        assert_eq!(other.unwrap_or_default(), Vec::<u32>::new());
    }

    #[test]
    fn a_chain_that_never_ends_is_cut() {
        let table: Vec<u8> = [1u32, 2, 1, 0, 1].iter().flat_map(|v| v.to_le_bytes()).collect();
        let memory = FakeMemory(vec![(ProcAddr(0x100), table)]);
        let found = sysv_candidates(&memory, ProcAddr(0x100), b"x");
        assert_eq!(found.map(|f| f.len()), Some(MAX_CHAIN));
    }
}
