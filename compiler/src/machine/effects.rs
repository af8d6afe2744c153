//! What one instruction reads and writes, by the byte.
//!
//! Takes: an instruction. Gives: [`Effects`]. Source: the SDM's volume 2, as iced-x86's tables have
//! it; made narrower where the tables speak of whole registers and the instruction uses less:
//! scalar arithmetic, moves of parts of vector registers, idioms that give the same result whatever
//! the register held. Never the other way round: what is not known to be narrower is read whole,
//! and only what is certainly overwritten counts as written.
//!
//! Calls, returns and system calls are here as instructions only; what their other end reads is in
//! [`super::convention`].

use super::registers::{RegisterSet, STATUS};
use super::vectors;
use iced_x86::{
    EncodingKind, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
    UsedMemory,
};

/// What an instruction does to registers and memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// The result depends on these.
    pub reads: RegisterSet,
    /// It reads these, too, and a constant operand decides the result all the same.
    pub masked: RegisterSet,
    /// Has another value afterwards, whatever was there.
    pub writes: RegisterSet,
    /// May have another value afterwards; at least `writes`.
    pub changes: RegisterSet,
    /// Memory, without the code itself.
    pub memory: Vec<Access>,
    /// The x87 stack.
    pub x87: X87,
}

/// An access to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Segment, base, index, scale and displacement as the processor adds them up.
    pub segment: Register,
    /// Base register or [`Register::None`].
    pub base: Register,
    /// Index register or [`Register::None`].
    pub index: Register,
    /// Factor of the index.
    pub scale: u32,
    /// Added to them.
    pub displacement: i64,
    /// Bytes from there; `None` where that depends on registers.
    pub bytes: Option<u64>,
    /// May be read.
    pub reads: bool,
    /// May be written.
    pub changes: bool,
    /// Is written whole.
    pub writes: bool,
}

impl Access {
    /// The address that `lea` computes, which accesses nothing (SDM volume 2, LEA).
    #[must_use]
    pub fn computed(i: &Instruction) -> Self {
        Self {
            segment: Register::None,
            base: i.memory_base(),
            index: i.memory_index(),
            scale: i.memory_index_scale(),
            displacement: i.memory_displacement64().cast_signed(),
            bytes: None,
            reads: false,
            changes: false,
            writes: false,
        }
    }
}

/// What an instruction does to the stack of x87 registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct X87 {
    /// Values that must be on it.
    pub needs: u8,
    /// Values that it has less afterwards.
    pub pops: i8,
    /// What was on it does not count any more.
    pub forgets: bool,
}

impl Effects {
    /// The effects of an instruction.
    #[must_use]
    pub fn of(instruction: &Instruction) -> Self {
        let mut out = Self::default();
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(instruction);
        for used in info.used_registers() {
            out.register(instruction, used.register(), used.access());
        }
        let string = instruction.is_string_instruction()
            && (instruction.has_rep_prefix() || instruction.has_repne_prefix());
        out.memory = info.used_memory().iter().map(|m| access(m, string)).collect();
        out.status(instruction, string);
        out.special(instruction);
        if let Some(exact) = vectors::exact(instruction) {
            out.reads.vector = exact.reads;
            out.writes.vector = exact.writes;
            out.changes.vector = exact.writes;
        }
        out.x87(instruction);
        out
    }

    fn register(&mut self, instruction: &Instruction, register: Register, access: OpAccess) {
        let wide = widened(instruction, register);
        match access {
            OpAccess::None | OpAccess::NoMemAccess => {}
            OpAccess::Read | OpAccess::CondRead => self.reads.add_register(register),
            OpAccess::Write => {
                self.writes.add_register(wide);
                self.changes.add_register(wide);
            }
            OpAccess::CondWrite => self.changes.add_register(wide),
            OpAccess::ReadWrite => {
                self.reads.add_register(register);
                self.writes.add_register(wide);
                self.changes.add_register(wide);
            }
            OpAccess::ReadCondWrite => {
                self.reads.add_register(register);
                self.changes.add_register(wide);
            }
        }
    }

    /// Flags. What an instruction leaves undefined nobody may rely on.
    fn status(&mut self, instruction: &Instruction, string: bool) {
        let status = |bits: u32| bits.to_le_bytes()[0] & STATUS;
        self.reads.flags |= status(instruction.rflags_read());
        let modified = status(instruction.rflags_modified());
        self.changes.flags |= modified;
        if !string && !may_shift_by_nothing(instruction) {
            self.writes.flags |= modified;
        }
    }

    fn special(&mut self, instruction: &Instruction) {
        let same = instruction.op_count() == 2
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && instruction.op0_register() == instruction.op1_register();
        match instruction.mnemonic() {
            // 0 or -1 by the carry flag.
            Mnemonic::Sbb if same => self.reads.general = [0; 16],
            Mnemonic::And | Mnemonic::Test => self.masked(instruction, 0),
            Mnemonic::Or => self.masked(instruction, 0xff),
            // The kernel's calling convention (psABI A.2.1): it keeps all but these.
            Mnemonic::Syscall => {
                for register in [
                    Register::RAX,
                    Register::RDI,
                    Register::RSI,
                    Register::RDX,
                    Register::R10,
                    Register::R8,
                    Register::R9,
                ] {
                    self.reads.add_register(register);
                }
                for register in [Register::RAX, Register::RCX, Register::R11] {
                    self.writes.add_register(register);
                    self.changes.add_register(register);
                }
            }
            _ => {}
        }
    }

    /// A byte of a constant operand that decides the result's byte alone: the register's does not
    /// count.
    fn masked(&mut self, instruction: &Instruction, decides: u8) {
        if instruction.op0_kind() != OpKind::Register {
            return;
        }
        let Ok(constant) = instruction.try_immediate(1) else { return };
        let register = instruction.op0_register();
        let first = usize::from(is_high(register));
        let number = register.full_register().number();
        let (read, masked) = (&mut self.reads.general[number], &mut self.masked.general[number]);
        for (i, byte) in constant.to_le_bytes().iter().take(register.size()).enumerate() {
            if *byte == decides {
                *read &= !(1 << (first + i));
                *masked |= 1 << (first + i);
            }
        }
    }

    fn x87(&mut self, instruction: &Instruction) {
        let info = instruction.fpu_stack_increment_info();
        let mut factory = InstructionInfoFactory::new();
        let read = factory.info(instruction).used_registers().iter().filter(|u| {
            u.register().is_st()
                && !matches!(u.access(), OpAccess::Write | OpAccess::CondWrite | OpAccess::None)
        });
        // Eight registers.
        let needs = read.map(|u| u.register().number() + 1).max().unwrap_or(0).min(8);
        self.x87 = X87 {
            needs: needs.to_le_bytes()[0],
            // What is pushed under a condition may not be there.
            pops: if info.conditional() { 0 } else { i8::try_from(info.increment()).unwrap_or(0) },
            forgets: info.writes_top(),
        };
    }
}

/// The register that changes as a whole when one is written: the 64-bit one with a 32-bit one (SDM
/// volume 1, 3.4.1.1), all of a vector register unless the encoding is the legacy one (SDM volume 1,
/// 14.6).
fn widened(instruction: &Instruction, register: Register) -> Register {
    let legacy = || instruction.op_code().encoding() == EncodingKind::Legacy;
    if register.is_gpr32() || (register.is_vector_register() && !legacy()) {
        register.full_register()
    } else {
        register
    }
}

/// Whether a name stands for the second byte of a register.
pub(super) fn is_high(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

/// A shift or rotation by 0 leaves the flags alone (SDM volume 2, SAL); so does a comparison of
/// strings of no length.
fn may_shift_by_nothing(instruction: &Instruction) -> bool {
    let count = match instruction.mnemonic() {
        Mnemonic::Shl
        | Mnemonic::Sal
        | Mnemonic::Shr
        | Mnemonic::Sar
        | Mnemonic::Rol
        | Mnemonic::Ror
        | Mnemonic::Rcl
        | Mnemonic::Rcr => 1,
        Mnemonic::Shld | Mnemonic::Shrd => 2,
        _ => return false,
    };
    let wide = match instruction.op0_kind() {
        OpKind::Register => instruction.op0_register().size(),
        _ => instruction.memory_size().size(),
    };
    let bits = if wide == 8 { 63 } else { 31 };
    instruction.try_immediate(count).map_or(true, |n| n & bits == 0)
}

fn access(used: &UsedMemory, string: bool) -> Access {
    let size = used.memory_size().size();
    let known = size != 0 && !string && !used.index().is_vector_register();
    let (reads, changes, writes) = match used.access() {
        OpAccess::None | OpAccess::NoMemAccess => (false, false, false),
        OpAccess::Read | OpAccess::CondRead => (true, false, false),
        OpAccess::Write => (false, true, true),
        OpAccess::CondWrite => (false, true, false),
        OpAccess::ReadWrite => (true, true, true),
        OpAccess::ReadCondWrite => (true, true, false),
    };
    Access {
        segment: used.segment(),
        base: used.base(),
        index: used.index(),
        scale: used.scale(),
        displacement: used.displacement().cast_signed(),
        bytes: known.then_some(size as u64),
        reads,
        changes,
        writes: writes && known,
    }
}
