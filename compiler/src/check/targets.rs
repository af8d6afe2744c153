//! Where the entries of tables of jumps lead, by what the image holds.

use super::code::Code;
use crate::image::{Image, Meaning, Section, SectionKind};
use iced_x86::{FlowControl, Mnemonic, Register};
use std::collections::{BTreeMap, BTreeSet};

/// Entries of one table, at most.
const LONGEST: u64 = 1 << 14;

/// Where the entries of a table of 32-bit distances lead, as long as they lead to instructions of the
/// function and nothing else begins.
pub(super) fn relative_targets(image: &Image, code: &Code, table: u64) -> Vec<u64> {
    targets(image, code, table, 4, |at| {
        let bytes = image.content(at, 4)?;
        let distance = i32::from_le_bytes(<[u8; 4]>::try_from(bytes.as_ref()).ok()?);
        Some(table.wrapping_add_signed(i64::from(distance)))
    })
}

/// Whether the entry behind those of a table that lead to instructions leads to where a part of the function ends: then
/// nobody knows whether more follow.
pub(super) fn leads_out(image: &Image, code: &Code, table: u64) -> bool {
    let anchor = image.next_anchor(table);
    let is_end = |to: u64| code.parts.iter().any(|(part, _)| part.end == to);
    let at = |entries: Vec<u64>, size: u64| {
        let at = table.saturating_add(entries.len() as u64 * size);
        (at.saturating_add(size) <= anchor).then_some(at)
    };
    let near = at(relative_targets(image, code, table), 4)
        .and_then(|at| image.content(at, 4))
        .and_then(|bytes| <[u8; 4]>::try_from(bytes.as_ref()).ok())
        .map(|bytes| table.wrapping_add_signed(i32::from_le_bytes(bytes).into()));
    let far = at(absolute_targets(image, code, table), 8).and_then(|at| {
        let meaning = image.relocations.get(&at).map(|relocation| &relocation.meaning);
        match meaning {
            Some(Meaning::Address(to)) => Some(*to),
            _ => image.word(at),
        }
    });
    near.is_some_and(is_end) || far.is_some_and(is_end)
}

/// Where the entries of a table of addresses lead.
pub(super) fn absolute_targets(image: &Image, code: &Code, table: u64) -> Vec<u64> {
    targets(image, code, table, 8, |at| match image.relocations.get(&at) {
        Some(relocation) => match relocation.meaning {
            Meaning::Address(address) => Some(address),
            _ => None,
        },
        None => image.word(at),
    })
}

fn targets(
    image: &Image,
    code: &Code,
    table: u64,
    size: u64,
    entry: impl Fn(u64) -> Option<u64>,
) -> Vec<u64> {
    let constant = |s: &Section| {
        matches!(s.kind, SectionKind::ReadOnly | SectionKind::RelRo | SectionKind::Text)
    };
    if !image.section_at(table).is_some_and(constant) {
        return Vec::new();
    }
    let end = image.next_anchor(table).min(table.saturating_add(LONGEST * size));
    let places = (0..).map(|n| table.saturating_add(n * size));
    places
        .take_while(|at| at.saturating_add(size) <= end)
        .map_while(|at| entry(at).filter(|target| code.index(*target).is_some()))
        .collect()
}

/// The targets of everything in the function that may be the table of a jump.
pub(super) fn candidates(image: &Image, code: &Code) -> BTreeMap<u64, Vec<u64>> {
    let jumps = |s: &super::code::Step| s.instruction.flow_control() == FlowControl::IndirectBranch;
    if !code.steps.iter().any(jumps) {
        return BTreeMap::new();
    }
    let mut tables = BTreeSet::new();
    for step in &code.steps {
        let i = &step.instruction;
        if i.mnemonic() == Mnemonic::Lea && i.is_ip_rel_memory_operand() {
            tables.insert(i.ip_rel_memory_address());
        } else if i.memory_index() != Register::None && i.memory_index_scale() == 8 {
            tables.insert(i.memory_displacement64());
        }
    }
    let both = |t| {
        let mut targets = relative_targets(image, code, t);
        targets.extend(absolute_targets(image, code, t));
        (t, targets)
    };
    tables.into_iter().map(both).filter(|(_, targets)| !targets.is_empty()).collect()
}
