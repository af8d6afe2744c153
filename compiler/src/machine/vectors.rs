//! Instructions that use parts of vector registers, where iced-x86's tables speak of the whole
//! (SDM volume 2, each instruction's operation).

use super::registers::{bytes, low};
use iced_x86::{EncodingKind, Instruction, Mnemonic as M, OpKind, Register};

/// The bytes of vector registers that an instruction reads and writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exact {
    pub(super) reads: [u64; 32],
    pub(super) writes: [u64; 32],
}

const WHOLE: u64 = low(16);
const LOW: u64 = low(8);
const HIGH: u64 = bytes(8, 16);

/// Exactly what an instruction uses of vector registers; `None` for those that are not known here.
pub(super) fn exact(instruction: &Instruction) -> Option<Exact> {
    match instruction.mnemonic() {
        M::Vzeroupper => return Some(zeroed(bytes(16, 64))),
        M::Vzeroall => return Some(zeroed(u64::MAX)),
        // These share their names with vector instructions.
        M::Movsd | M::Cmpsd if instruction.is_string_instruction() => return None,
        _ => {}
    }
    match instruction.op_code().encoding() {
        EncodingKind::Legacy => legacy(instruction),
        EncodingKind::VEX => vex(instruction),
        _ => None,
    }
}

fn zeroed(mask: u64) -> Exact {
    let mut out = Exact { reads: [0; 32], writes: [0; 32] };
    out.writes[..16].fill(mask);
    out
}

/// `reads0` of the first operand, `reads1` of the second, `writes0` of the first; operands that are
/// no vector registers do not count.
fn two(instruction: &Instruction, reads0: u64, writes0: u64, reads1: u64) -> Exact {
    let mut out = Exact { reads: [0; 32], writes: [0; 32] };
    let number = |operand: u32| {
        let is = instruction.op_count() > operand
            && instruction.op_kind(operand) == OpKind::Register
            && instruction.op_register(operand).is_vector_register();
        is.then(|| instruction.op_register(operand).number())
    };
    if let Some(first) = number(0) {
        out.reads[first] |= reads0;
        out.writes[first] |= writes0;
    }
    if let Some(second) = number(1) {
        out.reads[second] |= reads1;
    }
    out
}

fn legacy(i: &Instruction) -> Option<Exact> {
    let loads = i.op_count() > 1 && i.op1_kind() == OpKind::Memory;
    // Other general or MMX registers are not spoken of here, but the operand in question must be
    // a vector register of 128 bits.
    let (reads0, writes0, reads1) = match i.mnemonic() {
        M::Addss | M::Subss | M::Mulss | M::Divss | M::Minss | M::Maxss | M::Cmpss => {
            (low(4), low(4), low(4))
        }
        M::Addsd | M::Subsd | M::Mulsd | M::Divsd | M::Minsd | M::Maxsd | M::Cmpsd => {
            (LOW, LOW, LOW)
        }
        M::Sqrtss | M::Rcpss | M::Rsqrtss | M::Roundss => (0, low(4), low(4)),
        M::Sqrtsd | M::Roundsd => (0, LOW, LOW),
        M::Cvtss2sd => (0, LOW, low(4)),
        M::Cvtsd2ss => (0, low(4), LOW),
        M::Cvtsi2ss => (0, low(4), 0),
        M::Cvtsi2sd => (0, LOW, 0),
        M::Comiss | M::Ucomiss => (low(4), 0, low(4)),
        M::Comisd | M::Ucomisd => (LOW, 0, LOW),
        M::Cvtss2si | M::Cvttss2si => (0, 0, low(4)),
        M::Cvtsd2si | M::Cvttsd2si => (0, 0, LOW),
        M::Movss if loads => (0, WHOLE, 0),
        M::Movss => (0, low(4), low(4)),
        M::Movsd if loads => (0, WHOLE, 0),
        M::Movsd => (0, LOW, LOW),
        M::Movd => (0, WHOLE, low(4)),
        M::Movq => (0, WHOLE, LOW),
        M::Movlps | M::Movlpd => (0, LOW, LOW),
        M::Movhps | M::Movhpd => (0, HIGH, HIGH),
        M::Movhlps => (0, LOW, HIGH),
        M::Movlhps => (0, HIGH, LOW),
        M::Unpcklpd | M::Punpcklqdq => (0, HIGH, LOW),
        M::Unpckhpd | M::Punpckhqdq => (HIGH, WHOLE, HIGH),
        M::Unpcklps | M::Punpckldq | M::Punpcklwd | M::Punpcklbw => (LOW, WHOLE, LOW),
        M::Unpckhps | M::Punpckhdq | M::Punpckhwd | M::Punpckhbw => (HIGH, WHOLE, HIGH),
        M::Movddup | M::Cvtps2pd | M::Cvtdq2pd => (0, WHOLE, LOW),
        M::Pmovsxbw | M::Pmovsxwd | M::Pmovsxdq | M::Pmovzxbw | M::Pmovzxwd | M::Pmovzxdq => {
            (0, WHOLE, LOW)
        }
        M::Pmovsxbd | M::Pmovsxwq | M::Pmovzxbd | M::Pmovzxwq => (0, WHOLE, low(4)),
        M::Pmovsxbq | M::Pmovzxbq => (0, WHOLE, low(2)),
        M::Pshufd => (0, WHOLE, selected(i.immediate8(), 0..4, 4)),
        M::Shufps => {
            let imm = i.immediate8();
            (selected(imm, 0..2, 4), WHOLE, selected(imm, 2..4, 4))
        }
        M::Pslldq => (low(16usize.saturating_sub(i.immediate8().into())), WHOLE, 0),
        M::Psrldq => (bytes(usize::from(i.immediate8()).min(16), 16), WHOLE, 0),
        M::Pextrb => (0, 0, element(i, 1)),
        M::Pextrw => (0, 0, element(i, 2)),
        M::Pextrd | M::Extractps => (0, 0, element(i, 4)),
        M::Pextrq => (0, 0, element(i, 8)),
        M::Pinsrb => (0, element(i, 1), 0),
        M::Pinsrw => (0, element(i, 2), 0),
        M::Pinsrd => (0, element(i, 4), 0),
        M::Pinsrq => (0, element(i, 8), 0),
        _ => return None,
    };
    Some(two(i, reads0, writes0, reads1))
}

/// Elements that fields of two bits select.
fn selected(immediate: u8, fields: std::ops::Range<usize>, size: usize) -> u64 {
    fields.fold(0, |mask, field| {
        let from = usize::from(immediate >> (2 * field) & 3) * size;
        mask | bytes(from, from + size)
    })
}

/// The element that the last operand names.
fn element(i: &Instruction, size: usize) -> u64 {
    let index = usize::from(i.immediate8()) % (16 / size);
    bytes(index * size, (index + 1) * size)
}

fn vex(i: &Instruction) -> Option<Exact> {
    let all = u64::MAX;
    let (width, result) = match i.mnemonic() {
        M::Vucomiss | M::Vcomiss => return Some(two(i, low(4), 0, low(4))),
        M::Vucomisd | M::Vcomisd => return Some(two(i, LOW, 0, LOW)),
        M::Vcvtss2si | M::Vcvttss2si => return Some(two(i, 0, 0, low(4))),
        M::Vcvtsd2si | M::Vcvttsd2si => return Some(two(i, 0, 0, LOW)),
        M::Vmovd => return Some(two(i, 0, all, low(4))),
        M::Vmovq => return Some(two(i, 0, all, LOW)),
        M::Vmovss if i.op_count() == 2 => return Some(two(i, 0, all, low(4))),
        M::Vmovsd if i.op_count() == 2 => return Some(two(i, 0, all, LOW)),
        M::Vmovss => (low(4), low(4)),
        M::Vmovsd => (LOW, LOW),
        M::Vcvtsi2ss => (0, low(4)),
        M::Vcvtsi2sd => (0, LOW),
        M::Vcvtss2sd => (low(4), LOW),
        M::Vcvtsd2ss => (LOW, low(4)),
        M::Vsqrtss | M::Vrcpss | M::Vrsqrtss | M::Vroundss => (low(4), low(4)),
        M::Vsqrtsd | M::Vroundsd => (LOW, LOW),
        M::Vaddss | M::Vsubss | M::Vmulss | M::Vdivss | M::Vminss | M::Vmaxss | M::Vcmpss => {
            (low(4), 0)
        }
        M::Vaddsd | M::Vsubsd | M::Vmulsd | M::Vdivsd | M::Vminsd | M::Vmaxsd | M::Vcmpsd => {
            (LOW, 0)
        }
        _ => return None,
    };
    // The second operand gives what the result does not overwrite.
    let mut out = two(i, 0, all, WHOLE & !result);
    if i.op_kind(2) == OpKind::Register && i.op_register(2).is_vector_register() {
        out.reads[i.op_register(2).number()] |= width;
    }
    Some(out).filter(|_| i.op0_register() != Register::None)
}
