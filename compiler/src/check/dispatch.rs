//! Jumps of copies through tables: that each goes in the copy where its function's goes in the function.
//!
//! A copy reads tables of its own, behind its code, by another displacement from the address of the function's table;
//! what is read is added to that address as ever. Every register then holds what it holds in the function, but for
//! what is read and jumped to: the jump alone may use those.

use super::code::{Code, Step};
use super::function::Analysis;
use super::stub;
use super::targets::relative_targets;
use super::values::Known;
use crate::image::Image;
use dsu_patch_format::NewAddr;
use dsu_patch_format::plan::Plan;
use iced_x86::{FlowControl, Mnemonic, OpAccess, OpKind, Register};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};

/// `int3`.
const END: u8 = 0xcc;

/// A copy, and what its jumps are compared with.
pub(super) struct Jumps<'a> {
    pub(super) plan: &'a Plan,
    pub(super) image: &'a Image,
    /// The function.
    pub(super) analysis: &'a Analysis,
    /// With the copy's displacements, at the function's addresses.
    pub(super) copied: &'a Code,
    /// Where instructions of the function are in the copy.
    pub(super) places: &'a BTreeMap<u64, u64>,
    /// What of the copy is behind its code.
    pub(super) rest: Range<u64>,
}

impl Jumps<'_> {
    /// From each step that reads one of the copy's tables instead of the function's up to its jump.
    pub(super) fn check(&self) -> Result<Vec<RangeInclusive<usize>>, String> {
        let own = self.analysis;
        let mut loads = Vec::new();
        let mut covered = BTreeSet::new();
        for (block, steps) in own.code.blocks.iter().enumerate() {
            let last = steps.end - 1;
            let jumps = own.code.steps[last].instruction.flow_control()
                == FlowControl::IndirectBranch
                && !own.values.successors[block].is_empty();
            if jumps && own.values.states[block].is_some() {
                let at = own.code.steps[last].instruction.ip();
                let load = self.load(steps.clone());
                let load = load.and_then(|load| {
                    covered.extend(self.table(block, load)?);
                    self.is_only(block, load..last)?;
                    Ok(load..=last)
                });
                loads.push(load.map_err(|what| format!("{what} (the jump at {at:#x})"))?);
            }
        }
        let bytes = stub::content(self.plan, NewAddr(self.rest.start), self.len());
        let bytes = bytes.ok_or("it ends behind its segment")?;
        let mut others = self.rest.clone().zip(bytes).filter(|(at, _)| !covered.contains(at));
        if others.any(|(_, byte)| *byte != END) {
            return Err("it has something behind its code that nothing uses".to_owned());
        }
        Ok(loads)
    }

    fn len(&self) -> u64 {
        self.rest.end.saturating_sub(self.rest.start)
    }

    /// The step of a block that reads from a table, by another displacement in the copy.
    fn load(&self, steps: Range<usize>) -> Result<usize, String> {
        let own = &self.analysis.code;
        let mut moved = steps.filter(|step| {
            let i = &own.steps[*step].instruction;
            i.mnemonic() == Mnemonic::Movsxd
                && i.op0_register().is_gpr64()
                && i.op1_kind() == OpKind::Memory
                && i.memory_index_scale() == 4
                && i.memory_base().is_gpr64()
                && i.memory_displacement64() == 0
                && self.by(*step) != 0
        });
        match (moved.next(), moved.next()) {
            (Some(load), None) => Ok(load),
            _ => Err("it jumps by its function's table".to_owned()),
        }
    }

    /// How far from the function's the copy reads.
    fn by(&self, step: usize) -> u64 {
        let of = |code: &Code| code.steps[step].instruction.memory_displacement64();
        of(self.copied).wrapping_sub(of(&self.analysis.code))
    }

    /// The bytes of the table that a step reads in the copy: each entry leads to the counterpart of the function's.
    fn table(&self, block: usize, load: usize) -> Result<Vec<u64>, String> {
        let own = self.analysis;
        let state = own.values.at(&own.code, load).ok_or("no path leads there")?;
        let base = own.code.steps[load].instruction.memory_base();
        let table = match state.register(base) {
            Known::Address(table) => Some(table),
            _ => {
                let mut all = state.bases.of(base).into_iter();
                all.next().filter(|_| all.next().is_none())
            }
        };
        let table = table.ok_or("it is not known by which table")?;
        let targets = relative_targets(self.image, &own.code, table);
        let blocks: BTreeSet<usize> = targets
            .iter()
            .filter_map(|to| own.code.index(*to))
            .map(|step| own.code.block_of[step])
            .collect();
        if !blocks.iter().eq(&own.values.successors[block]) {
            return Err("it is not known where it leads".to_owned());
        }
        // Where entries might follow that are none of the function's, the copy's table would be too short.
        let start = table.saturating_add(4 * targets.len() as u64);
        let section = self.image.section_at(table).ok_or("its table is nowhere")?;
        let end = self.image.next_anchor(table).min(section.end());
        let behind = self.image.content(start, end.saturating_sub(start));
        if !behind.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)) {
            return Err("it is not known how far its table goes".to_owned());
        }
        let takes = |step: &&Step| {
            let i = &step.instruction;
            i.is_ip_rel_memory_operand() && i.ip_rel_memory_address() == table
        };
        let is_fixed = |step: &Step| {
            let i = &step.instruction;
            !stub::fixups(self.plan, NewAddr(i.ip()), i.len() as u64).is_empty()
        };
        if own.code.steps.iter().filter(takes).any(is_fixed) {
            return Err("its table is not NEW's".to_owned());
        }
        let mut covered = Vec::new();
        for (n, target) in (0u64..).zip(targets) {
            let at = table.wrapping_add(self.by(load)).wrapping_add(4 * n);
            let to = place(&own.code, self.places, target).ok_or("it leads to nowhere")?;
            let inside = self.rest.start <= at && at.saturating_add(4) <= self.rest.end;
            let entry = stub::content(self.plan, NewAddr(at), 4).filter(|_| inside);
            let entry = entry.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            let entry = entry.ok_or("its table is not the copy's")?;
            let distance = i64::from(i32::from_le_bytes(entry));
            let is_fixed = !stub::fixups(self.plan, NewAddr(at), 4).is_empty();
            if table.wrapping_add_signed(distance) != to || is_fixed {
                return Err(format!("entry {n} of its table leads elsewhere"));
            }
            covered.extend(at..at + 4);
        }
        Ok(covered)
    }

    /// That what a step reads is added to the table's address and jumped to, and nothing else is done with both.
    fn is_only(&self, block: usize, steps: Range<usize>) -> Result<(), String> {
        let own = self.analysis;
        let code = |step: usize| &own.code.steps[step];
        let (load, jump) = (&code(steps.start).instruction, &code(steps.end).instruction);
        let (offset, base) = (load.op0_register(), load.memory_base());
        let accesses = |step: usize, register: Register, which: fn(OpAccess) -> bool| {
            let mut used = code(step).info.used_registers().iter();
            used.any(|u| u.register().full_register() == register && which(u.access()))
        };
        let mut sum = None;
        for step in steps.start + 1..steps.end {
            let i = &code(step).instruction;
            let added = i.mnemonic() == Mnemonic::Add && i.op1_kind() == OpKind::Register;
            let operands = (i.op0_register(), i.op1_register());
            let adds = added && (operands == (offset, base) || operands == (base, offset));
            if sum.is_none() && adds {
                sum = Some(i.op0_register());
                continue;
            }
            let used = accesses(step, offset, reads)
                || sum.is_some() && i.rflags_read() != 0
                || sum.is_none()
                    && (accesses(step, offset, writes) || accesses(step, base, writes))
                || sum.is_some_and(|sum| accesses(step, sum, reads) || accesses(step, sum, writes));
            if used {
                return Err("what it reads is used otherwise".to_owned());
            }
        }
        let sum =
            sum.filter(|sum| jump.op0_kind() == OpKind::Register && jump.op0_register() == *sum);
        let sum = sum.ok_or("it does not jump to what it reads")?;
        let used = own.values.successors[block].iter().any(|next| {
            let demand = &own.demands.starts[*next];
            let general = &demand.hard.general;
            // The addition leaves flags, too.
            demand.flags != 0
                || [offset, sum].iter().any(|register| general[register.number()] != 0)
        });
        if used || offset == base {
            return Err("what it reads is used behind it".to_owned());
        }
        Ok(())
    }
}

fn reads(access: OpAccess) -> bool {
    !matches!(access, OpAccess::None | OpAccess::Write | OpAccess::CondWrite)
}

fn writes(access: OpAccess) -> bool {
    !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead)
}

/// Where the copy has what is at an address of the function, or, for padding, behind it.
pub(super) fn place(code: &Code, places: &BTreeMap<u64, u64>, address: u64) -> Option<u64> {
    let mut step = code.index(address)?;
    while code.steps.get(step)?.instruction.mnemonic() == Mnemonic::Nop {
        step += 1;
    }
    places.get(&code.steps.get(step)?.instruction.ip()).copied()
}
