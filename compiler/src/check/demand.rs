//! What may be read before it is written: the backward may-analysis of one function.
//!
//! By the byte, and only as far as it matters: the source of a copy counts as far as the copy does, a
//! sum's operands up to the highest byte of it that counts, an instruction whose results nobody reads
//! not at all (but for what it may trap on). What a call of unknown prototype may read is kept apart
//! (`soft`): registers of arguments that are perhaps none.

mod lanes;
mod step;

use super::calls::Set;
use super::effects::{Bits, Effects};
use super::reach::Function;
use iced_x86::Register;
use std::collections::BTreeSet;

/// Bytes of registers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Registers {
    /// By number; bit b stands for byte b.
    pub(super) general: [u8; 16],
    /// By number; bit b stands for byte b.
    pub(super) vector: [u64; 32],
    /// Mask registers (bits 0 to 7), MMX registers (8 to 15), tiles (16 to 23).
    pub(super) other: u32,
}

/// Bytes of a register: its number and which of them.
enum Part {
    General(usize, u8),
    Vector(usize, u64),
    Other(u32),
}

/// Ones in the low bytes.
pub(super) fn low(bytes: usize) -> u64 {
    match bytes {
        0 => 0,
        64.. => u64::MAX,
        n => u64::MAX >> (64 - n),
    }
}

/// The bytes of a register that a mask of its own bytes stands for.
fn part(register: Register, mask: u64) -> Option<Part> {
    let full = register.full_register();
    let number = full.number();
    let byte = |m: u64| m.to_le_bytes()[0];
    Some(match register {
        Register::AH | Register::BH | Register::CH | Register::DH => {
            Part::General(number & 15, byte(mask << 1) & 2)
        }
        r if r.is_gpr() => Part::General(number & 15, byte(mask & low(r.size()))),
        r if r.is_vector_register() => Part::Vector(number & 31, mask & low(r.size())),
        r if r.is_k() => Part::Other(1 << (r.number() & 7)),
        r if r.is_mm() => Part::Other(0x100 << (r.number() & 7)),
        r if r.is_tmm() => Part::Other(0x1_0000 << (r.number() & 7)),
        _ => return None,
    })
}

impl Registers {
    fn add(&mut self, other: &Self) -> bool {
        let before = self.clone();
        for (a, b) in self.general.iter_mut().zip(other.general) {
            *a |= b;
        }
        for (a, b) in self.vector.iter_mut().zip(other.vector) {
            *a |= b;
        }
        self.other |= other.other;
        *self != before
    }

    fn need(&mut self, register: Register, mask: u64) {
        match part(register, mask) {
            // The stack pointer is always right.
            Some(Part::General(4, _)) | None => {}
            Some(Part::General(number, bytes)) => self.general[number] |= bytes,
            Some(Part::Vector(number, bytes)) => self.vector[number] |= bytes,
            Some(Part::Other(bit)) => {
                if mask != 0 {
                    self.other |= bit;
                }
            }
        }
    }

    fn wanted(&self, register: Register) -> u64 {
        match part(register, u64::MAX) {
            // The stack pointer counts always.
            Some(Part::General(4, bytes)) => u64::from(bytes),
            Some(Part::General(number, bytes)) => {
                let found = u64::from(self.general[number] & bytes);
                if bytes == 2 { found >> 1 } else { found }
            }
            Some(Part::Vector(number, bytes)) => self.vector[number] & bytes,
            Some(Part::Other(bit)) => u64::from(self.other & bit != 0) * u64::MAX,
            None => 0,
        }
    }

    /// Ends the life of a register's bytes; of all 8 where a 32-bit result clears the upper half.
    fn kill(&mut self, register: Register) {
        let register = if register.is_gpr32() { register.full_register() } else { register };
        match part(register, u64::MAX) {
            Some(Part::General(number, bytes)) => self.general[number] &= !bytes,
            Some(Part::Vector(number, bytes)) => self.vector[number] &= !bytes,
            Some(Part::Other(bit)) => self.other &= !bit,
            None => {}
        }
    }

    fn keep_only(&mut self, set: Set) {
        for number in 0..16 {
            if !set.has(Set::general(number)) {
                self.general[usize::from(number)] = 0;
            }
        }
        for number in 0..32 {
            if !set.has(Set::vector(number)) {
                self.vector[usize::from(number)] = 0;
            }
        }
    }
}

/// What is live at one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Demand {
    /// Read by an instruction, or passed by a known prototype.
    pub(super) hard: Registers,
    /// Perhaps passed to a callee of unknown prototype.
    pub(super) soft: Registers,
    /// Status flags, as iced numbers them.
    pub(super) flags: u32,
    /// Bytes of the frame.
    pub(super) frame: Bits,
    /// Values on the x87 stack.
    pub(super) x87: u32,
    /// An indirect jump leads nobody knows where.
    pub(super) everything: bool,
}

impl Demand {
    fn new(bytes: usize) -> Self {
        Self {
            hard: Registers::default(),
            soft: Registers::default(),
            flags: 0,
            frame: Bits::new(bytes),
            x87: 0,
            everything: false,
        }
    }

    fn add(&mut self, other: &Self) -> bool {
        let mut changed = self.hard.add(&other.hard);
        changed |= self.soft.add(&other.soft);
        changed |= self.frame.add(&other.frame);
        changed |= other.flags & !self.flags != 0 || other.everything && !self.everything;
        changed |= other.x87 > self.x87;
        self.x87 = self.x87.max(other.x87);
        self.flags |= other.flags;
        self.everything |= other.everything;
        changed
    }
}

impl Demand {
    /// An address of the frame leaves sight: what was written from there on, and is not read directly
    /// anywhere, is read through it. Up to the next such address, or to what was never written.
    fn pointed_to(&mut self, effects: &Effects, offset: i64) {
        let after = effects.offsets.partition_point(|o| *o <= offset);
        let end = effects.offsets.get(after).copied().unwrap_or(0).min(-8);
        for byte in offset..end {
            match effects.bytes.index(byte) {
                Some(number) if !effects.read.has(number) => self.frame.insert(number),
                Some(_) => {}
                None => break,
            }
        }
    }

    /// Everything below an offset is lost.
    fn lose_below(&mut self, effects: &Effects, top: i64) {
        for number in effects.bytes.below(top) {
            self.frame.remove(number);
        }
    }
}

/// The analysis of one function.
#[derive(Debug)]
pub(super) struct Demands {
    /// At the start of each block.
    pub(super) starts: Vec<Demand>,
}

impl Demands {
    pub(super) fn new(function: Function<'_>) -> Self {
        let count = function.code.blocks.len();
        let mut demands = Self { starts: vec![Demand::new(function.effects.bytes.count); count] };
        let mut before: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (from, (next, pads)) in
            function.values.successors.iter().zip(&function.values.pads).enumerate()
        {
            let next = if function.values.ended.contains(&from) { &[][..] } else { next };
            for to in next.iter().chain(pads) {
                before[*to].push(from);
            }
        }
        let mut queue: BTreeSet<usize> = (0..count).collect();
        while let Some(block) = queue.pop_last() {
            // Where no path leads, nothing is read.
            if function.values.states[block].is_none() {
                continue;
            }
            let start = demands.within(function, block, function.code.blocks[block].start);
            if demands.starts[block].add(&start) {
                queue.extend(before[block].iter().copied());
            }
        }
        demands
    }

    /// What is live right before an instruction.
    pub(super) fn at(&self, function: Function<'_>, index: usize) -> Option<Demand> {
        let block = *function.code.block_of.get(index)?;
        function.values.states.get(block)?.as_ref()?;
        Some(self.within(function, block, index))
    }

    fn within(&self, function: Function<'_>, block: usize, index: usize) -> Demand {
        let mut demand = Demand::new(function.effects.bytes.count);
        let ended = function.values.ended.contains(&block);
        for next in function.values.successors[block].iter().filter(|_| !ended) {
            demand.add(&self.starts[*next]);
        }
        // Where a pointer into the frame is lost to a join, what it points to is read through it.
        for (_, to, register, offset) in function.effects.lost_after(block) {
            let is_behind = !function.values.pads[block].contains(to);
            if !(ended && is_behind) && self.starts[*to].hard.general[*register] != 0 {
                demand.pointed_to(function.effects, *offset);
            }
        }
        for step in (index..function.code.blocks[block].end).rev() {
            let landing = function.values.pads[block].iter().map(|pad| &self.starts[*pad]);
            step::step(function, &mut demand, step, landing);
        }
        demand
    }
}
