//! Variables and tables: data symbols merged by address.

use super::functions::RawSymbol;
use super::{Image, Section, SectionKind};
use crate::debug::{DebugInfo, Place, TypeKind};
use crate::matching::names;
use std::collections::BTreeMap;
use std::ops::Range;

/// Index of an object in [`Image::objects`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub usize);

/// What an object's memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Constant: `.rodata`, or written by the dynamic linker only.
    Constant,
    /// Writable.
    Writable,
    /// One for each thread; `address` counts in the TLS segment as linked.
    ThreadLocal,
}

/// A variable or table of one image.
#[derive(Debug, Clone)]
pub struct Object {
    /// First byte as linked.
    pub address: u64,
    /// Bytes; 0 for the linker's marks (`_end`, `__bss_start`).
    pub size: u64,
    /// Every name, the plainest global one first.
    pub names: Vec<String>,
    /// No name of it is global.
    pub local: bool,
    /// Translation unit.
    pub unit: String,
    /// What its memory is.
    pub storage: Storage,
    /// Index in [`DebugInfo::variables`].
    pub debug: Option<usize>,
    /// The dynamic linker copies its content from a library (`R_X86_64_COPY`).
    pub copied: bool,
    /// It is a table of 32-bit distances from its own start to constants (clang's relative lookup tables),
    /// which may take this many bytes. Nobody takes an address near it: distances are added to its start.
    pub distances: Option<u64>,
}

impl Object {
    /// The name to show and to match by first.
    #[must_use]
    pub fn name(&self) -> &str {
        self.names.first().map_or("?", String::as_str)
    }

    /// Linked extent.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.address..self.address + self.size
    }
}

/// Merges data symbols by address. `thread_local` symbols count in the TLS segment, which starts
/// at `tls_start` as linked.
pub(super) fn collect(
    symbols: Vec<RawSymbol>,
    thread_local: Vec<RawSymbol>,
    tls_start: u64,
    sections: &[Section],
    debug: &DebugInfo,
    copied: impl Fn(u64) -> bool,
) -> Vec<Object> {
    let mut by_place: BTreeMap<(bool, u64), Vec<RawSymbol>> = BTreeMap::new();
    for symbol in symbols {
        by_place.entry((false, symbol.address)).or_default().push(symbol);
    }
    for symbol in thread_local {
        by_place.entry((true, symbol.address)).or_default().push(symbol);
    }
    let object = |((tls, address), mut symbols): ((bool, u64), Vec<RawSymbol>)| {
        symbols.sort_by_key(|s| (s.size == 0, s.local, s.name.len(), s.name.clone()));
        symbols.dedup_by(|a, b| a.name == b.name);
        let storage = if tls { Storage::ThreadLocal } else { storage_of(address, sections)? };
        if is_linkers(address, sections) && !tls {
            symbols.iter_mut().for_each(|s| s.size = 0);
        }
        // Marks of the linker (`_edata`, `__bss_start`) may be at the same place: they name nothing there.
        let sized = symbols.iter().filter(|s| s.size > 0).count().max(1);
        let local = symbols[..sized].iter().all(|s| s.local);
        let debug_index = debug_variable(debug, tls, address);
        let unit = debug_index
            .and_then(|i| debug.units.get(debug.variables[i].unit.0 as usize))
            .map_or_else(|| debug.unit_of_file(&symbols[0].file), |unit| unit.name.clone());
        let size = symbols.iter().map(|s| s.size).max().unwrap_or(0);
        let is_distances = symbols.first().is_some_and(|s| names::is_offset_table(&s.name));
        Some(Object {
            address: if tls { tls_start + address } else { address },
            size,
            distances: is_distances.then_some(size),
            local,
            unit,
            storage,
            debug: debug_index,
            copied: !tls && copied(address),
            names: symbols.into_iter().map(|s| s.name).collect(),
        })
    };
    let mut objects: Vec<Object> = by_place.into_iter().filter_map(object).collect();
    // Thread-local ones apart, behind: their addresses overlap others'.
    objects.sort_by_key(|o| (o.storage == Storage::ThreadLocal, o.address));
    objects
}

/// Tables of the linker, which some linkers give symbols with a size: no variables of the program.
fn is_linkers(address: u64, sections: &[Section]) -> bool {
    const TABLES: [&str; 12] = [
        ".dynamic",
        ".got",
        ".interp",
        ".note",
        ".gnu",
        ".dyn",
        ".rel",
        ".hash",
        ".init_array",
        ".fini_array",
        ".preinit_array",
        ".eh_frame",
    ];
    let section = sections.iter().find(|s| (s.address..s.end()).contains(&address));
    section.is_some_and(|s| TABLES.iter().any(|t| s.name.starts_with(t)))
}

fn storage_of(address: u64, sections: &[Section]) -> Option<Storage> {
    // A mark at a section's end, or in the gap before the next one, belongs to it.
    let section = sections.iter().rev().find(|s| s.address <= address)?;
    match section.kind {
        SectionKind::ReadOnly | SectionKind::RelRo | SectionKind::Text => Some(Storage::Constant),
        SectionKind::Data => Some(Storage::Writable),
        SectionKind::Tls => None,
    }
}

fn debug_variable(debug: &DebugInfo, tls: bool, address: u64) -> Option<usize> {
    let place = if tls { Place::Tls(address) } else { Place::Address(address) };
    debug.variables.binary_search_by_key(&place, |v| v.place).ok()
}

impl Image {
    /// The object that covers an address, thread-local ones aside. A mark without size counts at
    /// its own address when nothing else is there.
    #[must_use]
    pub fn object_at(&self, address: u64) -> Option<ObjectId> {
        let plain = &self.objects[..self.plain_objects];
        let after = plain.partition_point(|o| o.address <= address);
        let covering =
            (after.saturating_sub(8)..after).rev().find(|i| plain[*i].range().contains(&address));
        let mark = || after.checked_sub(1).filter(|i| plain[*i].address == address);
        covering.or_else(mark).map(ObjectId)
    }

    /// Objects with a size that begin in a range or reach into it, thread-local ones and tables of distances
    /// aside: what an address near them may be meant for.
    pub fn objects_near(
        &self,
        range: std::ops::RangeInclusive<u64>,
    ) -> impl Iterator<Item = (ObjectId, &Object)> {
        let plain = &self.objects[..self.plain_objects];
        let first = plain.partition_point(|o| o.address < *range.start()).saturating_sub(8);
        let end = *range.end();
        plain
            .iter()
            .enumerate()
            .skip(first)
            .take_while(move |(_, o)| o.address <= end)
            .filter(|(_, o)| o.size > 0 && o.distances.is_none())
            .filter(move |(_, o)| o.range().end >= *range.start())
            .map(|(i, o)| (ObjectId(i), o))
    }

    /// The object that ends exactly at an address, tables of distances aside.
    #[must_use]
    pub fn object_ending_at(&self, address: u64) -> Option<ObjectId> {
        let plain = &self.objects[..self.plain_objects];
        let after = plain.partition_point(|o| o.address < address);
        (after.saturating_sub(8)..after)
            .rev()
            .filter(|i| plain[*i].size > 0 && plain[*i].distances.is_none())
            .find(|i| plain[*i].range().end == address)
            .map(ObjectId)
    }

    /// The thread-local variable at an offset from the TLS segment's start as linked.
    #[must_use]
    pub fn thread_local_at(&self, address: u64) -> Option<ObjectId> {
        let all = &self.objects[self.plain_objects..];
        let after = all.partition_point(|o| o.address <= address);
        let i = after.checked_sub(1)?;
        all[i].range().contains(&address).then_some(ObjectId(self.plain_objects + i))
    }

    /// Whether an object is an array, as the compiler said.
    #[must_use]
    pub fn is_array(&self, id: ObjectId) -> bool {
        matches!(self.object_type(id), Some(TypeKind::Array { .. }))
    }

    /// Whether an object is a single value, which nobody indexes.
    #[must_use]
    pub fn is_single(&self, id: ObjectId) -> bool {
        let kind = self.object_type(id);
        matches!(
            kind,
            Some(TypeKind::Base { .. } | TypeKind::Pointer { .. } | TypeKind::Enum { .. })
        )
    }

    /// What the compiler said of an object.
    #[must_use]
    pub fn variable(&self, object: &Object) -> Option<&crate::debug::Variable> {
        self.debug.variables.get(object.debug?)
    }

    fn object_type(&self, id: ObjectId) -> Option<&TypeKind> {
        let variable = self.variable(self.object(id))?;
        // What a part is of is not known from the type of the whole.
        let variable = Some(variable).filter(|variable| variable.part.is_none())?;
        let types = &self.debug.types;
        Some(&types.get(types.stripped(variable.ty?)?)?.kind)
    }

    /// An object by index.
    #[must_use]
    pub fn object(&self, id: ObjectId) -> &Object {
        &self.objects[id.0]
    }
}
