//! Procedure linkage table entries, found by what they do: a jump through a slot that the dynamic
//! linker fills with an imported function. Covers `.plt`, `.plt.sec` (IBT), `.plt.got`, and the
//! IRELATIVE entries of static executables.

use super::functions::Function;
use super::relocations::{DynamicRelocation, Meaning, SymbolName};
use super::{Section, SectionKind};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic};
use std::collections::BTreeMap;

/// The entries as functions named `symbol@plt`. `name_at` gives a resolver's name.
pub(super) fn collect(
    sections: &[Section],
    bytes: &[u8],
    relocations: &BTreeMap<u64, DynamicRelocation>,
    name_at: impl Fn(u64) -> Option<String>,
) -> Vec<Function> {
    let mut out = Vec::new();
    let tables = sections.iter().filter(|s| {
        s.kind == SectionKind::Text && (s.name.starts_with(".plt") || s.name == ".iplt")
    });
    for section in tables {
        let Some(code) = bytes.get(section.file.clone()) else { continue };
        let entries: Vec<(u64, SymbolName)> = jumps(code, section.address)
            .into_iter()
            .filter_map(|(start, slot)| Some((start, imported(relocations.get(&slot)?, &name_at)?)))
            .collect();
        for (i, (address, import)) in entries.iter().enumerate() {
            let end = entries.get(i + 1).map_or(section.end(), |(next, _)| *next);
            let size = (end - address).min(LONGEST);
            out.push(Function {
                address: *address,
                size,
                names: vec![format!("{}@plt", import.name)],
                local: true,
                nameless: false,
                unit: section.name.clone(),
                cold: Vec::new(),
                room: size,
                import: Some(import.clone()),
                debug: None,
                exported: false,
            });
        }
    }
    out
}

/// Longest entry that any linker makes.
const LONGEST: u64 = 16;

/// Each indirect jump through a slot: where its entry begins (`endbr64` before it included), and
/// the slot.
fn jumps(code: &[u8], address: u64) -> Vec<(u64, u64)> {
    let mut out = Vec::new();
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut marked = None;
    while decoder.can_decode() {
        let i = decoder.decode();
        if i.flow_control() == FlowControl::IndirectBranch && i.is_ip_rel_memory_operand() {
            let start = marked.unwrap_or_else(|| i.ip());
            out.push((start, i.ip_rel_memory_address()));
        }
        marked = (i.mnemonic() == Mnemonic::Endbr64).then(|| i.ip());
    }
    out
}

fn imported(
    relocation: &DynamicRelocation,
    name_at: &impl Fn(u64) -> Option<String>,
) -> Option<SymbolName> {
    match &relocation.meaning {
        Meaning::Symbol(symbol, 0) => Some(symbol.clone()),
        Meaning::Resolver(address) => Some(SymbolName {
            name: name_at(*address).map_or_else(|| format!("*{address:#x}"), |n| format!("*{n}")),
            version: None,
            weak: false,
            defined: Some(*address),
        }),
        _ => None,
    }
}
