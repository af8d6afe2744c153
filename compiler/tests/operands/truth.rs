//! What the compiler meant: the relocations of the object file, which name each operand's symbol
//! where the linked file has numbers.

use object::elf;
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind};
use std::collections::BTreeMap;

/// An operand that is an address.
pub struct Operand {
    /// The function whose section it is in.
    pub function: String,
    /// Place of its field in the linked file.
    pub at: u64,
    /// The object that the source named; `None` for constants without a name.
    pub owner: Option<String>,
}

/// An object of a linked file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub address: u64,
    pub size: u64,
    pub writable: bool,
}

/// Functions and objects of a linked file by name.
pub fn symbols(file: &object::File<'_>) -> BTreeMap<String, Place> {
    file.symbols()
        .filter(|s| s.is_definition() && matches!(s.kind(), SymbolKind::Data | SymbolKind::Text))
        .filter_map(|s| {
            let section = file.section_by_index(s.section_index()?).ok()?;
            let name = section.name().ok()?;
            let writable = matches!(name, ".data" | ".bss" | ".tm_clone_table");
            let place = Place { address: s.address(), size: s.size(), writable };
            Some((s.name().ok()?.to_owned(), place))
        })
        .collect()
}

/// The operands in an object file compiled with a section for each function and object.
pub fn operands(object: &object::File<'_>, linked: &BTreeMap<String, Place>) -> Vec<Operand> {
    let mut out = Vec::new();
    for section in object.sections() {
        let name = section.name().unwrap();
        let Some(function) = name.strip_prefix(".text.") else { continue };
        let Some(place) = linked.get(function) else { continue };
        for (offset, relocation) in section.relocations() {
            let object::RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
            if !matches!(
                r_type,
                elf::R_X86_64_PC32 | elf::R_X86_64_32 | elf::R_X86_64_32S | elf::R_X86_64_64
            ) {
                continue;
            }
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let symbol = object.symbol_by_index(index).unwrap();
            let owner = match symbol.kind() {
                SymbolKind::Section => {
                    let inside = symbol.section_index();
                    let mut objects = object
                        .symbols()
                        .filter(|s| s.section_index() == inside && s.kind() == SymbolKind::Data);
                    objects.next().map(|s| s.name().unwrap().to_owned())
                }
                SymbolKind::Data => Some(symbol.name().unwrap().to_owned()),
                SymbolKind::Text => continue,
                // `.LC0`: what the assembler does not keep.
                _ => None,
            };
            let at = place.address + offset;
            out.push(Operand { function: function.to_owned(), at, owner });
        }
    }
    out
}
