//! Procedure linkage table entries, found by what they do: a jump through a slot that the dynamic
//! linker fills with an imported function. Covers `.plt`, `.plt.sec` (IBT), `.plt.got`, and the
//! IRELATIVE entries of static executables; and the entries of these for functions that are defined nowhere,
//! whose slots hold zero for ever (weak ones, which nobody calls without asking for that).

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
        let entry = |(start, slot): (u64, u64)| match relocations.get(&slot) {
            Some(relocation) => Some((start, Some(imported(relocation, &name_at)?))),
            None if !slot.is_multiple_of(SLOT) => Some((start, None)),
            None => (word(sections, bytes, slot)? == 0).then_some((start, None)),
        };
        let entries: Vec<(u64, Option<SymbolName>)> =
            jumps(code, section.address).into_iter().filter_map(entry).collect();
        for (i, (address, import)) in entries.iter().enumerate() {
            let end = entries.get(i + 1).map_or(section.end(), |(next, _)| *next);
            let size = (end - address).min(LONGEST);
            out.push(Function {
                address: *address,
                size,
                names: vec![match import {
                    Some(import) => format!("{}@plt", import.name),
                    None => format!("*nowhere.{}.{i}@plt", section.name),
                }],
                local: true,
                nameless: false,
                unit: section.name.clone(),
                cold: Vec::new(),
                room: size,
                import: import.clone(),
                debug: None,
                exported: false,
            });
        }
    }
    out
}

/// Bytes of a slot. Of a static PIE, ld 2.40 leads the entries of functions that are defined nowhere to
/// the byte behind the start of their slot; nobody calls them.
pub(super) const SLOT: u64 = 8;
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

/// What a slot holds in the file.
fn word(sections: &[Section], bytes: &[u8], slot: u64) -> Option<u64> {
    let section = sections.iter().find(|s| s.address <= slot && slot < s.end())?;
    let content = bytes.get(section.file.clone())?;
    let word = content.get(usize::try_from(slot - section.address).ok()?..)?.first_chunk()?;
    Some(u64::from_le_bytes(*word))
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
