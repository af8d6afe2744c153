//! Operands that are addresses: branch targets, RIP-relative operands, and, where `--emit-relocs`
//! tells them from plain numbers, absolute ones.

use crate::image::{Image, Part};
use iced_x86::{
    ConstantOffsets, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};
use object::elf;

/// How an operand holds its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// 8-bit branch displacement.
    Branch8,
    /// 32-bit branch displacement.
    Branch32,
    /// 32-bit displacement to the next instruction's address.
    Relative32,
    /// 32-bit absolute displacement or immediate.
    Absolute32,
    /// 64-bit absolute immediate.
    Absolute64,
}

/// An operand that is an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// Form.
    pub field: Field,
    /// Address of the field itself.
    pub at: u64,
    /// Address that it stands for.
    pub target: u64,
    /// Address of the symbol that the source named, when relocations tell.
    pub symbol: Option<u64>,
    /// The address itself is the result (`lea`, `mov $address`), nothing is accessed there.
    pub taken: bool,
    /// Bytes accessed there; 0 when `taken` or a branch.
    pub access: u64,
    /// The access writes.
    pub written: bool,
    /// A call (as against a jump).
    pub call: bool,
    /// Held by an immediate, not by a displacement.
    pub immediate: bool,
}

/// Calls `each` for every reference of a part; stops where decoding fails.
pub fn for_each_reference(image: &Image, part: Part, mut each: impl FnMut(Reference)) {
    let Some(code) = image.content(part.start, part.end - part.start) else {
        return;
    };
    let mut decoder = Decoder::with_ip(64, &code, part.start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return;
        }
        let offsets = decoder.get_constant_offsets(&instruction);
        references(image, &instruction, &offsets).into_iter().for_each(&mut each);
    }
}

/// The references of one instruction.
#[must_use]
pub fn references(
    image: &Image,
    instruction: &Instruction,
    offsets: &ConstantOffsets,
) -> Vec<Reference> {
    let mut out = Vec::new();
    if is_near_branch(instruction) {
        let field = if offsets.immediate_size() == 1 { Field::Branch8 } else { Field::Branch32 };
        out.push(Reference {
            field,
            at: instruction.ip() + offsets.immediate_offset() as u64,
            target: instruction.near_branch_target(),
            symbol: None,
            taken: false,
            access: 0,
            written: false,
            call: instruction.is_call_near(),
            immediate: false,
        });
    } else if instruction.is_ip_rel_memory_operand() {
        let taken = instruction.mnemonic() == Mnemonic::Lea;
        let (access, written) = if taken { (0, false) } else { accessed(instruction) };
        out.push(Reference {
            field: Field::Relative32,
            at: instruction.ip() + offsets.displacement_offset() as u64,
            target: instruction.ip_rel_memory_address(),
            symbol: None,
            taken,
            access,
            written,
            call: false,
            immediate: false,
        });
    }
    if !image.static_relocations.is_empty() {
        from_relocations(image, instruction, offsets, &mut out);
    }
    out
}

fn is_near_branch(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::NearBranch64)
}

fn accessed(instruction: &Instruction) -> (u64, bool) {
    let size = instruction.memory_size().size() as u64;
    let mut factory = InstructionInfoFactory::new();
    let written = factory.info(instruction).used_memory().iter().any(|m| {
        m.base() == Register::RIP
            && matches!(
                m.access(),
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            )
    });
    (size, written)
}

/// Absolute operands, and the symbols behind relative ones.
fn from_relocations(
    image: &Image,
    instruction: &Instruction,
    offsets: &ConstantOffsets,
    out: &mut Vec<Reference>,
) {
    let all = &image.static_relocations;
    let first = all.partition_point(|r| r.at < instruction.ip());
    for relocation in all[first..].iter().take_while(|r| r.at < instruction.next_ip()) {
        let absolute = match relocation.kind {
            elf::R_X86_64_32 | elf::R_X86_64_32S => Some(Field::Absolute32),
            elf::R_X86_64_64 => Some(Field::Absolute64),
            _ => None,
        };
        let Some(field) = absolute else {
            // Relaxed or not, the operand says where it leads; the relocation says to whom.
            if let Some(known) = out.iter_mut().find(|r| r.at == relocation.at) {
                known.symbol = relocation.symbol;
            }
            continue;
        };
        let within = relocation.at - instruction.ip();
        let immediate = offsets.has_immediate() && within == offsets.immediate_offset() as u64;
        let target = if immediate {
            immediate_value(instruction)
        } else {
            instruction.memory_displacement64()
        };
        out.push(Reference {
            field,
            at: relocation.at,
            target,
            symbol: relocation.symbol,
            taken: immediate || instruction.mnemonic() == Mnemonic::Lea,
            // An absolute displacement beside an index register has no bound of its own.
            access: 0,
            written: false,
            call: false,
            immediate,
        });
    }
}

fn immediate_value(instruction: &Instruction) -> u64 {
    (0..instruction.op_count())
        .find(|i| instruction.op_kind(*i).is_immediate())
        .map_or(0, |i| instruction.immediate(i))
}

/// Whether an operand kind is an immediate.
trait Immediate {
    fn is_immediate(self) -> bool;
}

impl Immediate for OpKind {
    fn is_immediate(self) -> bool {
        matches!(
            self,
            Self::Immediate8
                | Self::Immediate8_2nd
                | Self::Immediate16
                | Self::Immediate32
                | Self::Immediate64
                | Self::Immediate8to16
                | Self::Immediate8to32
                | Self::Immediate8to64
                | Self::Immediate32to64
        )
    }
}
