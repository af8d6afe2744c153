//! Operands that are addresses: branch targets, RIP-relative operands, and, where `--emit-relocs`
//! tells them from plain numbers, absolute ones.

use crate::image::{Image, Part};
use iced_x86::{ConstantOffsets, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
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
            call: instruction.is_call_near(),
            immediate: false,
        });
    } else if instruction.is_ip_rel_memory_operand() {
        let taken = instruction.mnemonic() == Mnemonic::Lea;
        let access = if taken { 0 } else { instruction.memory_size().size() as u64 };
        out.push(Reference {
            field: Field::Relative32,
            at: instruction.ip() + offsets.displacement_offset() as u64,
            target: instruction.ip_rel_memory_address(),
            symbol: None,
            taken,
            access,
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
            call: false,
            immediate,
        });
    }
}

fn immediate_value(instruction: &Instruction) -> u64 {
    (0..instruction.op_count())
        .find(|i| is_immediate(instruction.op_kind(*i)))
        .map_or(0, |i| instruction.immediate(i))
}

/// Whether an operand is a number in the instruction itself.
pub(crate) fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}
