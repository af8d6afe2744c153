//! The instructions of a stub as they are written: places to operands, operands to bytes.
//!
//! The stack pointer is constant while this code runs, so every place is `[rsp + displacement]`.

use super::operands::{
    extension, general, immediate, shift, store_vector, vector, whole_vector, with_immediate,
    with_operand,
};
use super::{Stub, Unencodable, refuse};
use dsu_patch_format::NewAddr;
use dsu_patch_format::frames::Binary;
use dsu_patch_format::plan::{Fixup, FixupKind, Target};
use iced_x86::{Code as Op, Encoder, Instruction, MemoryOperand, Register};

/// rax, rcx: what shifts and the flags insist on.
pub(super) const RAX: u8 = 0;
pub(super) const RCX: u8 = 1;
/// rsp.
pub(super) const RSP: u8 = 4;
/// Addends beyond this are given 64 bits.
const NEAR_ADDEND: u64 = 1 << 24;

/// A place in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// CFA + offset.
    Frame(i64),
    /// Offset into the scratch area.
    Scratch(u64),
}

impl Place {
    /// The place some bytes further on.
    pub(super) fn offset(self, bytes: u64) -> Self {
        match self {
            Self::Frame(cfa) => Self::Frame(cfa.wrapping_add_unsigned(bytes)),
            Self::Scratch(offset) => Self::Scratch(offset + bytes),
        }
    }
}

/// A value that one instruction puts into a general register, without reading another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    /// A number.
    Constant(u64),
    /// An address of the process.
    Address(Target, i64),
    /// CFA + offset.
    Frame(i64),
    /// `%fs:0x28`.
    Canary,
}

/// What an operation takes as its second operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// A general register.
    Register(u8),
    /// Memory.
    Memory(Place),
    /// Sign-extended to the operation's width.
    Immediate(i32),
}

/// An operand whose value is known at apply.
struct Open {
    instruction: usize,
    kind: FixupKind,
    target: Target,
    addend: i64,
}

/// Code being written.
pub(super) struct Code {
    instructions: Vec<Instruction>,
    open: Vec<Open>,
    /// CFA minus stack pointer while it runs.
    depth: u64,
    /// Bytes of the scratch area in use, from the stack pointer up.
    pub(super) scratch: u64,
}

impl Code {
    /// Nothing yet; to be run with the stack pointer at CFA - `depth`.
    pub(super) fn new(depth: u64) -> Self {
        Self { instructions: Vec::new(), open: Vec::new(), depth, scratch: 0 }
    }

    /// Room in the scratch area.
    pub(super) fn reserve(&mut self, bytes: u32) -> Place {
        let place = Place::Scratch(self.scratch);
        self.scratch += u64::from(bytes).next_multiple_of(8);
        place
    }

    /// Adds what another one holds.
    pub(super) fn append(&mut self, other: Self) {
        let first = self.instructions.len();
        self.instructions.extend(other.instructions);
        self.open.extend(other.open.into_iter().map(|mut open| {
            open.instruction += first;
            open
        }));
    }

    /// `lea rsp`: from CFA - `from` to CFA - `to`.
    pub(super) fn move_stack_pointer(&mut self, from: u64, to: u64) -> Result<(), Unencodable> {
        if from != to {
            let distance = from.wrapping_sub(to).cast_signed();
            let operand = MemoryOperand::with_base_displ(Register::RSP, distance);
            self.push(Instruction::with2(Op::Lea_r64_m, Register::RSP, operand)?);
        }
        Ok(())
    }

    fn push(&mut self, instruction: Instruction) {
        self.instructions.push(instruction);
    }

    fn memory(&self, place: Place) -> Result<MemoryOperand, Unencodable> {
        let displacement = match place {
            Place::Frame(cfa) => i128::from(cfa) + i128::from(self.depth),
            Place::Scratch(offset) => i128::from(offset),
        };
        match i32::try_from(displacement) {
            Ok(near) => Ok(MemoryOperand::with_base_displ(Register::RSP, near.into())),
            Err(_) => refuse(format!("a place {displacement} bytes from the stack pointer")),
        }
    }

    /// Low bytes of memory into a register; what is above them is zero, or of no meaning.
    pub(super) fn load(&mut self, to: u8, from: Place, bytes: u32) -> Result<(), Unencodable> {
        let memory = self.memory(from)?;
        let (op, to) = match bytes {
            1 => (Op::Movzx_r32_rm8, general(to, 4)),
            2 => (Op::Movzx_r32_rm16, general(to, 4)),
            4 => (Op::Mov_r32_rm32, general(to, 4)),
            8 => (Op::Mov_r64_rm64, general(to, 8)),
            _ => return refuse(format!("a load of {bytes} bytes")),
        };
        self.push(Instruction::with2(op, to, memory)?);
        Ok(())
    }

    /// Low bytes of a register into memory.
    pub(super) fn store(&mut self, to: Place, from: u8, bytes: u32) -> Result<(), Unencodable> {
        let memory = self.memory(to)?;
        let op = match bytes {
            1 => Op::Mov_rm8_r8,
            2 => Op::Mov_rm16_r16,
            4 => Op::Mov_rm32_r32,
            8 => Op::Mov_rm64_r64,
            _ => return refuse(format!("a store of {bytes} bytes")),
        };
        self.push(Instruction::with2(op, memory, general(from, bytes))?);
        Ok(())
    }

    /// A number into memory, when an instruction has room for it.
    pub(super) fn store_constant(
        &mut self,
        to: Place,
        value: u64,
        bytes: u32,
    ) -> Result<bool, Unencodable> {
        let Some(immediate) = immediate(value, bytes) else {
            return Ok(false);
        };
        let op = match bytes {
            1 => Op::Mov_rm8_imm8,
            2 => Op::Mov_rm16_imm16,
            4 => Op::Mov_rm32_imm32,
            8 => Op::Mov_rm64_imm32,
            _ => return refuse(format!("a store of {bytes} bytes")),
        };
        let memory = self.memory(to)?;
        self.push(Instruction::with2(op, memory, immediate)?);
        Ok(true)
    }

    /// One register into another.
    pub(super) fn copy(&mut self, to: u8, from: u8, bytes: u32) -> Result<(), Unencodable> {
        let (op, bytes) = if bytes == 8 { (Op::Mov_r64_rm64, 8) } else { (Op::Mov_r32_rm32, 4) };
        self.push(Instruction::with2(op, general(to, bytes), general(from, bytes))?);
        Ok(())
    }

    /// A leaf into a register.
    pub(super) fn leaf(&mut self, to: u8, leaf: Leaf) -> Result<(), Unencodable> {
        match leaf {
            Leaf::Constant(value) => self.constant(to, value),
            Leaf::Address(target, addend) => self.address(to, target, addend),
            Leaf::Frame(cfa) => {
                let memory = self.memory(Place::Frame(cfa))?;
                self.push(Instruction::with2(Op::Lea_r64_m, general(to, 8), memory)?);
                Ok(())
            }
            Leaf::Canary => {
                let memory = MemoryOperand::new(
                    Register::None,
                    Register::None,
                    1,
                    0x28,
                    4,
                    false,
                    Register::FS,
                );
                self.push(Instruction::with2(Op::Mov_r64_rm64, general(to, 8), memory)?);
                Ok(())
            }
        }
    }

    fn constant(&mut self, to: u8, value: u64) -> Result<(), Unencodable> {
        let instruction = if let Ok(low) = u32::try_from(value) {
            Instruction::with2(Op::Mov_r32_imm32, general(to, 4), low)?
        } else if let Ok(low) = i32::try_from(value.cast_signed()) {
            Instruction::with2(Op::Mov_rm64_imm32, general(to, 8), low)?
        } else {
            Instruction::with2(Op::Mov_r64_imm64, general(to, 8), value)?
        };
        self.push(instruction);
        Ok(())
    }

    fn address(&mut self, to: u8, target: Target, addend: i64) -> Result<(), Unencodable> {
        let near = !matches!(target, Target::Import(_)) && addend.unsigned_abs() < NEAR_ADDEND;
        let instruction = self.instructions.len();
        if near {
            // The operand's value is filled in when the place of the instruction is known.
            let memory = MemoryOperand::with_base_displ(Register::RIP, 0);
            self.push(Instruction::with2(Op::Lea_r64_m, general(to, 8), memory)?);
            self.open.push(Open { instruction, kind: FixupKind::Rel32, target, addend });
        } else {
            self.push(Instruction::with2(Op::Mov_r64_imm64, general(to, 8), 0u64)?);
            self.open.push(Open { instruction, kind: FixupKind::Abs64, target, addend });
        }
        Ok(())
    }

    /// Low bytes of a vector register into memory: 4, 8, 16, 32 or 64.
    pub(super) fn store_vector(
        &mut self,
        to: Place,
        from: u8,
        bytes: u32,
    ) -> Result<(), Unencodable> {
        let memory = self.memory(to)?;
        let op = store_vector(bytes, from < 16)?;
        self.push(Instruction::with2(op, memory, vector(from, bytes))?);
        Ok(())
    }

    /// Memory into the low bytes of a vector register; what is above them has no meaning.
    pub(super) fn load_vector(
        &mut self,
        to: u8,
        from: Place,
        bytes: u32,
    ) -> Result<(), Unencodable> {
        let memory = self.memory(from)?;
        let op = match (bytes, to < 16) {
            (4, true) => Op::Movd_xmm_rm32,
            (8, true) => Op::Movq_xmm_xmmm64,
            _ => whole_vector(bytes, to < 16)?,
        };
        self.push(Instruction::with2(op, vector(to, bytes), memory)?);
        Ok(())
    }

    /// One vector register into another.
    pub(super) fn copy_vector(&mut self, to: u8, from: u8, bytes: u32) -> Result<(), Unencodable> {
        let bytes = bytes.max(16);
        let op = whole_vector(bytes, to < 16 && from < 16)?;
        self.push(Instruction::with2(op, vector(to, bytes), vector(from, bytes))?);
        Ok(())
    }

    /// A general register, with zeroes above it, into a vector register.
    pub(super) fn vector_from_general(
        &mut self,
        to: u8,
        from: u8,
        bytes: u32,
    ) -> Result<(), Unencodable> {
        let op = match (bytes, to < 16) {
            (4 | 8 | 16, true) => Op::Movq_xmm_rm64,
            // VEX and EVEX zero what is above 128 bits (SDM volume 2, 2.3.10.1).
            (_, true) => Op::VEX_Vmovq_xmm_rm64,
            (_, false) => Op::EVEX_Vmovq_xmm_rm64,
        };
        self.push(Instruction::with2(op, vector(to, 16), general(from, 8))?);
        Ok(())
    }

    /// Low bytes of a vector register into a general one.
    pub(super) fn general_from_vector(
        &mut self,
        to: u8,
        from: u8,
        bytes: u32,
    ) -> Result<(), Unencodable> {
        let (op, width) = match (bytes <= 4, from < 16) {
            (true, true) => (Op::Movd_rm32_xmm, 4),
            (false, true) => (Op::Movq_rm64_xmm, 8),
            (true, false) => (Op::EVEX_Vmovd_rm32_xmm, 4),
            (false, false) => (Op::EVEX_Vmovq_rm64_xmm, 8),
        };
        self.push(Instruction::with2(op, general(to, width), vector(from, 16))?);
        Ok(())
    }

    /// `to = to op right`, no shift.
    pub(super) fn operate(
        &mut self,
        op: Binary,
        bytes: u32,
        to: u8,
        right: Right,
    ) -> Result<(), Unencodable> {
        let wide = bytes == 8;
        let register = general(to, bytes);
        let instruction = match right {
            Right::Immediate(value) => {
                let op = with_immediate(op, wide)?;
                if matches!(op, Op::Imul_r64_rm64_imm32 | Op::Imul_r32_rm32_imm32) {
                    Instruction::with3(op, register, register, value)?
                } else {
                    Instruction::with2(op, register, value)?
                }
            }
            Right::Register(from) => {
                Instruction::with2(with_operand(op, wide)?, register, general(from, bytes))?
            }
            Right::Memory(place) => {
                Instruction::with2(with_operand(op, wide)?, register, self.memory(place)?)?
            }
        };
        self.push(instruction);
        Ok(())
    }

    /// Shifts by a constant, or by `cl`.
    pub(super) fn shift(
        &mut self,
        op: Binary,
        bytes: u32,
        to: u8,
        by: Option<u32>,
    ) -> Result<(), Unencodable> {
        let wide = bytes == 8;
        let register = general(to, bytes);
        let instruction = match by {
            Some(count) => Instruction::with2(shift(op, wide, true)?, register, count)?,
            None => Instruction::with2(shift(op, wide, false)?, register, Register::CL)?,
        };
        self.push(instruction);
        Ok(())
    }

    /// The low `from` bytes of a register, extended with zeroes or the sign to `to`.
    pub(super) fn extend(
        &mut self,
        register: u8,
        sign: bool,
        from: u32,
        to: u32,
    ) -> Result<(), Unencodable> {
        let op = extension(sign, from, to)?;
        let to = if sign { to } else { 4 };
        self.push(Instruction::with2(op, general(register, to), general(register, from))?);
        Ok(())
    }

    /// The status flags into memory, by way of rax (SDM volume 2, LAHF: all but the overflow flag).
    pub(super) fn save_flags(&mut self, to: Place) -> Result<(), Unencodable> {
        self.push(Instruction::with1(Op::Seto_rm8, Register::AL)?);
        self.push(Instruction::with(Op::Lahf));
        self.store(to, RAX, 2)
    }

    /// The status flags from memory, by way of rax: 1 + 0x7f overflows, 0 + 0x7f does not.
    pub(super) fn restore_flags(&mut self, from: Place) -> Result<(), Unencodable> {
        self.load(RAX, from, 2)?;
        self.push(Instruction::with2(Op::Add_AL_imm8, Register::AL, 0x7f)?);
        self.push(Instruction::with(Op::Sahf));
        Ok(())
    }

    /// The bytes, with the jump to NEW at the end.
    pub(super) fn finish(mut self, at: NewAddr, to: NewAddr) -> Result<Stub, Unencodable> {
        self.push(Instruction::with_branch(Op::Jmp_rel32_64, to.0)?);
        let mut encoder = Encoder::new(64);
        let mut stub = Stub::default();
        let mut open = self.open.into_iter().peekable();
        for (index, instruction) in self.instructions.iter_mut().enumerate() {
            let start = at.offset(stub.bytes.len() as u64);
            let hole = open.next_if(|o| o.instruction == index);
            if hole.as_ref().is_some_and(|o| o.kind == FixupKind::Rel32) {
                // Any target within reach will do: the next instruction but a few.
                instruction.set_memory_displacement64(start.0);
            }
            encoder.encode(instruction, start.0)?;
            let offsets = encoder.get_constant_offsets();
            let before = stub.bytes.len();
            stub.bytes.extend(encoder.take_buffer());
            let Some(hole) = hole else { continue };
            let within = if hole.kind == FixupKind::Rel32 {
                offsets.displacement_offset()
            } else {
                offsets.immediate_offset()
            };
            fill(&mut stub, start, before + within, &hole, at)?;
        }
        Ok(stub)
    }
}

/// Fills an operand in, or leaves it to apply.
fn fill(
    stub: &mut Stub,
    start: NewAddr,
    field: usize,
    open: &Open,
    at: NewAddr,
) -> Result<(), Unencodable> {
    let place = at.offset(field as u64);
    let (size, addend) = match open.kind {
        // The displacement counts from the next instruction, which begins behind the field.
        FixupKind::Rel32 => (4, open.addend - 4),
        _ => (8, open.addend),
    };
    let Some(bytes) = stub.bytes.get_mut(field..field + size) else {
        return refuse(format!("no operand in the instruction at {start}"));
    };
    if let (FixupKind::Rel32, Target::New(target)) = (open.kind, open.target) {
        let value = target.since(place).wrapping_add_signed(addend).cast_signed();
        let Ok(value) = i32::try_from(value) else {
            return refuse(format!("{target} is too far from the stub"));
        };
        bytes.copy_from_slice(&value.to_le_bytes());
        return Ok(());
    }
    bytes.fill(0);
    stub.fixups.push(Fixup { at: place, kind: open.kind, addend, target: open.target });
    Ok(())
}
