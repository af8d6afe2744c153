//! Procedure linkage table entries, found by what they do: a jump through a slot that the dynamic
//! linker fills with an imported function. Covers `.plt`, `.plt.sec` (IBT), `.plt.got`, and the
//! IRELATIVE entries of static executables.

use super::functions::Function;
use super::relocations::{DynamicRelocation, Meaning, SymbolName};
use super::{Section, SectionKind};
use iced_x86::{Decoder, DecoderOptions, FlowControl};
use std::collections::BTreeMap;

/// The entries as functions named `symbol@plt`.
pub(super) fn collect(
    sections: &[Section],
    bytes: &[u8],
    relocations: &BTreeMap<u64, DynamicRelocation>,
) -> Vec<Function> {
    let mut out = Vec::new();
    let tables = sections.iter().filter(|s| {
        s.kind == SectionKind::Text && (s.name.starts_with(".plt") || s.name == ".iplt")
    });
    for section in tables {
        let entry = if section.entry_size == 0 {
            16
        } else {
            section.entry_size
        };
        let Some(code) = bytes.get(section.file.clone()) else {
            continue;
        };
        for (index, chunk) in code
            .chunks(usize::try_from(entry).unwrap_or(16))
            .enumerate()
        {
            let address = section.address + index as u64 * entry;
            let Some(slot) = jump_slot(chunk, address) else {
                continue;
            };
            let Some(import) = relocations.get(&slot).and_then(imported) else {
                continue;
            };
            out.push(Function {
                address,
                size: chunk.len() as u64,
                names: vec![format!("{}@plt", import.name)],
                local: true,
                unit: section.name.clone(),
                cold: Vec::new(),
                room: chunk.len() as u64,
                import: Some(import),
                debug: None,
                exported: false,
            });
        }
    }
    out
}

/// The slot of the first indirect jump of an entry.
fn jump_slot(code: &[u8], address: u64) -> Option<u64> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.flow_control() == FlowControl::IndirectBranch {
            return instruction
                .is_ip_rel_memory_operand()
                .then(|| instruction.ip_rel_memory_address());
        }
        if instruction.is_invalid() || instruction.flow_control() != FlowControl::Next {
            return None;
        }
    }
    None
}

fn imported(relocation: &DynamicRelocation) -> Option<SymbolName> {
    match &relocation.meaning {
        Meaning::Symbol(symbol, 0) => Some(symbol.clone()),
        Meaning::Resolver(address) => Some(SymbolName {
            name: format!("*resolver+{address:#x}"),
            version: None,
            weak: false,
            defined: Some(*address),
        }),
        _ => None,
    }
}
