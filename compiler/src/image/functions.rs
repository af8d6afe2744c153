//! Functions: symbols merged by address, with their cold parts.
//!
//! A function is one address with every name it has (aliases, symbol versions, identical code
//! folding), its size, and the parts that the compiler split off (`.cold`). Code without such a symbol
//! is found by [`super::labels`]; [`super::Thing::Constant`] stands for what is data in text.

use super::relocations::SymbolName;
use super::{Image, Section, SectionKind};
use crate::debug::DebugInfo;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Index of a function in [`Image::functions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(pub usize);

/// A contiguous piece of a function.
pub type Part = Range<u64>;

/// A function of one image.
#[derive(Debug, Clone)]
pub struct Function {
    /// Entry.
    pub address: u64,
    /// Bytes of the main part.
    pub size: u64,
    /// Every name at this address, the plainest global one first.
    pub names: Vec<String>,
    /// No name of it is global.
    pub local: bool,
    /// The file has no name for it: its name here says only where it is.
    pub nameless: bool,
    /// Translation unit: from the debug information, else the symbol table's file name.
    pub unit: String,
    /// Split-off parts (`.cold`).
    pub cold: Vec<Part>,
    /// Bytes from the entry up to the next function: what a redirect may use.
    pub room: u64,
    /// A procedure linkage table entry: what it calls.
    pub import: Option<SymbolName>,
    /// Index in [`DebugInfo::functions`].
    pub debug: Option<usize>,
    /// Visible to other images, so its address may be held anywhere.
    pub exported: bool,
}

impl Function {
    /// The name to show and to match by first.
    #[must_use]
    pub fn name(&self) -> &str {
        self.names.first().map_or("?", String::as_str)
    }

    /// The main part.
    #[must_use]
    pub fn main(&self) -> Part {
        self.address..self.address + self.size
    }

    /// Main part, then cold ones.
    pub fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        std::iter::once(self.main()).chain(self.cold.iter().cloned())
    }
}

/// A symbol as the symbol tables have it.
#[derive(Debug, Clone)]
pub(super) struct RawSymbol {
    pub name: String,
    pub address: u64,
    pub size: u64,
    pub local: bool,
    pub exported: bool,
    /// `STT_FILE` before it.
    pub file: String,
}

/// Merges function symbols, gives sizes to those without, attaches cold parts.
pub(super) fn collect(
    symbols: Vec<RawSymbol>,
    sections: &[Section],
    debug: &DebugInfo,
) -> Vec<Function> {
    let (cold, hot): (Vec<_>, Vec<_>) = symbols.into_iter().partition(|s| is_cold(&s.name));
    let mut by_address: BTreeMap<u64, Vec<RawSymbol>> = BTreeMap::new();
    for symbol in hot {
        let text = sections
            .iter()
            .any(|s| s.kind == SectionKind::Text && (s.address..s.end()).contains(&symbol.address));
        if text {
            by_address.entry(symbol.address).or_default().push(symbol);
        }
    }
    let mut functions: Vec<Function> = by_address.into_values().map(|s| merge(s, debug)).collect();
    size_unsized(&mut functions, sections);
    attach_cold(&mut functions, &cold, debug);
    functions
}

fn is_cold(name: &str) -> bool {
    // gcc: `f.cold`, with link-time optimization `f.cold.123`; clang's hot-cold splitting: `f.cold.1`.
    name.split_once(".cold").is_some_and(|(stem, rest)| {
        !stem.is_empty() && rest.chars().all(|c| c == '.' || c.is_ascii_digit())
    })
}

pub(super) fn merge(mut symbols: Vec<RawSymbol>, debug: &DebugInfo) -> Function {
    // Global names first, then the shortest, then by alphabet: the same choice in both builds.
    symbols.sort_by_key(|s| (s.local, s.name.len(), s.name.clone()));
    symbols.dedup_by(|a, b| a.name == b.name);
    let first = &symbols[0];
    let address = first.address;
    let index = debug.functions.binary_search_by_key(&address, |f| f.low_pc).ok();
    let unit = index
        .and_then(|i| debug.units.get(debug.functions[i].unit.0 as usize))
        .map_or_else(|| debug.unit_of_file(&first.file), |unit| unit.name.clone());
    Function {
        address,
        size: symbols.iter().map(|s| s.size).max().unwrap_or(0),
        local: symbols.iter().all(|s| s.local),
        nameless: false,
        exported: symbols.iter().any(|s| s.exported),
        names: symbols.into_iter().map(|s| s.name).collect(),
        unit,
        cold: Vec::new(),
        room: 0,
        import: None,
        debug: index,
    }
}

/// Assembler code often has no `.size`: up to the next symbol or the section's end.
fn size_unsized(functions: &mut [Function], sections: &[Section]) {
    for i in 0..functions.len() {
        if functions[i].size != 0 {
            continue;
        }
        let address = functions[i].address;
        let next = functions.get(i + 1).map_or(u64::MAX, |f| f.address);
        let end = sections
            .iter()
            .find(|s| (s.address..s.end()).contains(&address))
            .map_or(address, Section::end);
        functions[i].size = next.min(end) - address;
    }
}

fn attach_cold(functions: &mut [Function], cold: &[RawSymbol], debug: &DebugInfo) {
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, function) in functions.iter().enumerate() {
        for name in &function.names {
            by_name.entry(name.clone()).or_default().push(i);
        }
    }
    for part in cold {
        let stem = part.name.split(".cold").next().unwrap_or_default();
        let empty = Vec::new();
        let named = by_name.get(stem).unwrap_or(&empty);
        // Statics share names: the debug information knows which function the range belongs to.
        let by_range = named.iter().copied().find(|i| {
            let index = functions[*i].debug;
            index.is_some_and(|d| {
                debug.functions[d].ranges.iter().any(|r| r.contains(&part.address))
            })
        });
        let by_file = || {
            let mut same =
                named.iter().copied().filter(|i| functions[*i].unit.ends_with(&part.file));
            same.next().filter(|_| same.next().is_none())
        };
        let only = || (named.len() == 1).then(|| named[0]);
        if let Some(owner) = by_range.or_else(only).or_else(by_file) {
            functions[owner].cold.push(part.address..part.address + part.size);
            functions[owner].cold.sort_by_key(|r| r.start);
        }
    }
}

impl Image {
    /// The function whose main or cold part holds an address.
    #[must_use]
    pub fn function_at(&self, address: u64) -> Option<FunctionId> {
        let after = self.functions.partition_point(|f| f.address <= address);
        // Assembler nests symbols: the innermost that covers the address.
        let main = (after.saturating_sub(8)..after)
            .rev()
            .find(|i| self.functions[*i].main().contains(&address));
        main.or_else(|| self.cold_owner(address)).map(FunctionId)
    }

    fn cold_owner(&self, address: u64) -> Option<usize> {
        let after = self.cold_index.partition_point(|(r, _)| r.start <= address);
        let (range, owner) = self.cold_index.get(after.checked_sub(1)?)?;
        range.contains(&address).then_some(*owner)
    }

    /// What the compiler said of a function.
    #[must_use]
    pub fn declared(&self, function: &Function) -> Option<&crate::debug::Function> {
        self.debug.functions.get(function.debug?)
    }

    /// The translation unit of a function, as the compiler said it.
    #[must_use]
    pub fn unit_of(&self, function: &Function) -> Option<&crate::debug::Unit> {
        self.debug.unit(self.declared(function)?.unit)
    }

    /// A function by index.
    #[must_use]
    pub fn function(&self, id: FunctionId) -> &Function {
        &self.functions[id.0]
    }
}
