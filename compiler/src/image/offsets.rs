//! Tables of 32-bit distances that no symbol names: clang makes them of arrays of pointers to constants
//! (its relative lookup tables) under a name that it keeps for itself (`.Lreltable.f`).
//!
//! Takes the functions' code; adds an [`Object`] for each address at which code looks a distance up and
//! to which it adds it: `lea table(%rip), b; movslq (b,i,4), r; add b, r`. The address that the distances
//! are counted from is the table's start whatever the index is, so no other thing can be meant. How many
//! entries there are nothing says. At least, it goes on to what something else refers to; at most, for as
//! long as entries lead to constants, which may be too long, never too short.

use super::{Image, Object, Part, SectionKind, Storage};
use crate::machine::is_preserved;
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Entries of one table at most.
const MOST: u64 = 1 << 16;

/// Adds the tables to the image's objects, and the places of the operands that take their addresses.
pub(super) fn adopt(image: &mut Image) {
    let found: Vec<(u64, u64, usize)> = image
        .functions
        .par_iter()
        .enumerate()
        .flat_map_iter(|(function, f)| {
            let all = f.parts().flat_map(|part| lookups(image, part));
            all.map(|(table, field)| (table, field, function)).collect::<Vec<_>>()
        })
        .collect();
    let mut tables: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
    for (table, field, function) in found {
        tables.entry(table).or_default().push((field, function));
    }
    if tables.is_empty() {
        return;
    }
    let starts: Vec<u64> = tables.keys().copied().collect();
    for (number, (table, users)) in tables.into_iter().enumerate() {
        let next = starts.get(number + 1).copied().unwrap_or(u64::MAX);
        let most = 4 * entries(image, table, next);
        let referred = image.referred.partition_point(|at| *at <= table);
        let behind = image.referred.get(referred).map_or(most, |at| at - table);
        let size = most.min(behind) / 4 * 4;
        if size == 0 {
            continue;
        }
        image.offset_bases.extend(users.iter().map(|(field, _)| *field));
        let of = users.iter().map(|(_, function)| *function).min().map(|f| &image.functions[f]);
        let Some(of) = of else { continue };
        let object = Object {
            address: table,
            size,
            names: vec![format!("reltable.{}", of.name())],
            local: true,
            unit: String::new(),
            storage: Storage::Constant,
            debug: None,
            copied: false,
            distances: Some(most),
        };
        let plain = &image.objects[..image.plain_objects];
        let at = plain.partition_point(|o| o.address < table);
        if plain.get(at).is_none_or(|o| o.address != table) {
            image.referred.extend(crate::change::offset_table(image, &object, size));
            image.objects.insert(at, object);
            image.plain_objects += 1;
        }
    }
    image.referred.par_sort_unstable();
    image.referred.dedup();
}

/// How many distances from a table lead to constants, one behind the other, before something else begins.
fn entries(image: &Image, table: u64, next: u64) -> u64 {
    let constant = |address: u64| {
        let section = image.section_at(address);
        section.filter(|s| matches!(s.kind, SectionKind::ReadOnly | SectionKind::RelRo))
    };
    let Some(section) = constant(table) else { return 0 };
    // A named object around it is what it is; one behind it ends it.
    let near = image.objects[..image.plain_objects].partition_point(|o| o.address <= table);
    let around =
        image.objects[near.saturating_sub(8)..near].iter().any(|o| o.range().contains(&table));
    if around {
        return 0;
    }
    let behind = image.objects[near..image.plain_objects].iter().find(|o| o.size > 0);
    let end = next.min(section.end()).min(behind.map_or(u64::MAX, |o| o.address));
    let leads = |number: &u64| {
        let at = table + 4 * number;
        let distance = image.content(at, 4).and_then(|b| <[u8; 4]>::try_from(b.as_ref()).ok());
        let to = distance.map(|d| table.wrapping_add_signed(i64::from(i32::from_le_bytes(d))));
        at + 4 <= end
            && to.is_some_and(|to| !(table..at + 4).contains(&to) && constant(to).is_some())
    };
    (0..MOST).take_while(leads).count() as u64
}

/// The tables that a part looks distances up in, each with the place of the operand that takes its address.
fn lookups(image: &Image, part: Part) -> Vec<(u64, u64)> {
    let Some(code) = image.content(part.start, part.end - part.start) else { return Vec::new() };
    let mut decoder = Decoder::with_ip(64, &code, part.start, DecoderOptions::NONE);
    let mut infos = InstructionInfoFactory::new();
    let mut state = Registers::default();
    let mut out = BTreeSet::new();
    let mut i = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut i);
        if i.is_invalid() {
            break;
        }
        if let Some(found) = state.completes(&i) {
            out.insert(found);
        }
        state.step(&mut infos, &i);
        if i.mnemonic() == Mnemonic::Lea && i.is_ip_rel_memory_operand() {
            let field = i.ip() + decoder.get_constant_offsets(&i).displacement_offset() as u64;
            state.tables.insert(i.op0_register(), (i.ip_rel_memory_address(), field));
        }
        if let Some((register, base)) = state.loads(&i) {
            state.distances.insert(register, base);
        }
        // What is behind is reached by other ways alone.
        if !matches!(
            i.flow_control(),
            FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::Call
        ) {
            state = Registers::default();
        }
    }
    out.into_iter().collect()
}

/// What registers hold, as far as the code in its order shows.
#[derive(Default)]
struct Registers {
    /// Addresses, with the places of their operands.
    tables: BTreeMap<Register, (u64, u64)>,
    /// Distances, with the register that holds the address of their table.
    distances: BTreeMap<Register, Register>,
}

impl Registers {
    /// The table whose address an instruction adds to a distance from it.
    fn completes(&self, i: &Instruction) -> Option<(u64, u64)> {
        let registers = i.op_count() == 2
            && i.op0_kind() == OpKind::Register
            && i.op1_kind() == OpKind::Register;
        let (a, b) = (i.op0_register(), i.op1_register());
        // The sum of two registers, by `add` or by `lea`.
        let (a, b) = match i.mnemonic() {
            Mnemonic::Add if registers => (a, b),
            Mnemonic::Lea if i.memory_index_scale() == 1 && i.memory_displacement64() == 0 => {
                (i.memory_base(), i.memory_index())
            }
            _ => return None,
        };
        let base =
            |distance: Register, base: Register| self.distances.get(&distance) == Some(&base);
        let table = if base(a, b) { Some(b) } else { base(b, a).then_some(a) };
        self.tables.get(&table?).copied()
    }

    /// The register that an instruction loads a distance to, and the one of its table.
    fn loads(&self, i: &Instruction) -> Option<(Register, Register)> {
        let entry = i.mnemonic() == Mnemonic::Movsxd
            && i.op1_kind() == OpKind::Memory
            && i.memory_displacement64() == 0
            && matches!(i.memory_index_scale(), 1 | 4);
        let (base, index) = (i.memory_base(), i.memory_index());
        let is_table = |register: &Register| self.tables.contains_key(register);
        let table = Some(base).filter(is_table);
        let table = table.or(Some(index).filter(|r| i.memory_index_scale() == 1 && is_table(r)))?;
        (entry && i.op0_register() != table).then(|| (i.op0_register(), table))
    }

    /// Forgets what an instruction overwrites.
    fn step(&mut self, infos: &mut InstructionInfoFactory, i: &Instruction) {
        // Of no table there is no distance, either: so it is nearly everywhere.
        if self.tables.is_empty() {
            return;
        }
        if i.flow_control() == FlowControl::Call {
            self.tables.retain(|register, _| is_preserved(*register));
            self.distances.retain(|register, base| is_preserved(*register) && is_preserved(*base));
            return;
        }
        for used in infos.info(i).used_registers() {
            if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead) {
                let register = used.register().full_register();
                self.tables.remove(&register);
                self.distances.retain(|distance, base| *distance != register && *base != register);
            }
        }
    }
}
