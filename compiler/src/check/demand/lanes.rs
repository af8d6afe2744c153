//! Vector instructions of which not all bytes count, as the SDM's volume 2 describes them.

use iced_x86::{Instruction, Mnemonic, OpKind};

/// Which bytes of its operands an instruction on vectors is about.
pub(super) enum Lanes {
    /// The low `to` bytes of the result come from the low `from` bytes of the last operand (and of the
    /// destination, if `both`); what is above comes from the first operand.
    Low { to: usize, from: usize, both: bool },
    /// No register is written but flags and general ones; so many low bytes are read.
    Read(usize),
    /// Each byte of the result comes from those at its place.
    Bytewise,
    /// The result comes from the low eight bytes of the operands.
    LowHalves,
    /// The low eight bytes come from memory, the rest stays.
    LoadLow,
    /// The upper eight bytes come from memory or the source's low ones, the rest stays.
    LoadHigh,
    /// The low eight bytes come from the source's upper ones, the rest stays.
    HighToLow,
    /// Bytes of the register stored: first, count.
    Store(usize, usize),
    /// The operands are the same register and the result does not depend on it.
    Constant,
}

/// The shape of an instruction, where not all bytes of its vector operands count.
pub(super) fn lanes(i: &Instruction) -> Option<Lanes> {
    let name = format!("{:?}", i.mnemonic());
    let name = match i.mnemonic() {
        Mnemonic::Verr | Mnemonic::Verw => return None,
        _ if name.starts_with('V') => name[1..].to_ascii_lowercase(),
        _ => name.to_ascii_lowercase(),
    };
    let vector = |index: u32| {
        index < i.op_count()
            && i.op_kind(index) == OpKind::Register
            && i.op_register(index).is_vector_register()
    };
    if !(0..i.op_count()).any(vector) || i.has_op_mask() {
        return None;
    }
    let last = i.op_count() - 1;
    let same = last > 0
        && vector(last)
        && vector(last - 1)
        && i.op_register(last) == i.op_register(last - 1);
    let store = i.op0_kind() == OpKind::Memory;
    let move_bytes = |bytes| match (store, vector(0)) {
        (true, _) => Some(Lanes::Store(0, bytes)),
        (_, false) => Some(Lanes::Read(bytes)),
        _ => None,
    };
    match name.as_str() {
        "pxor" | "xorps" | "xorpd" | "pxord" | "pxorq" | "pcmpeqb" | "pcmpeqw" | "pcmpeqd"
        | "pcmpeqq" | "psubb" | "psubw" | "psubd" | "psubq"
            if same && vector(0) =>
        {
            Some(Lanes::Constant)
        }
        "pxor" | "xorps" | "xorpd" | "por" | "orps" | "orpd" | "pand" | "andps" | "andpd"
        | "pandn" | "andnps" | "andnpd" => Some(Lanes::Bytewise),
        "movd" => move_bytes(4),
        "movq" => move_bytes(8),
        "movss" if store => Some(Lanes::Store(0, 4)),
        "movsd" if store => Some(Lanes::Store(0, 8)),
        "movss" if vector(last) && vector(0) => Some(Lanes::Low { to: 4, from: 4, both: false }),
        "movsd" if vector(last) && vector(0) => Some(Lanes::Low { to: 8, from: 8, both: false }),
        "movlps" | "movlpd" if store => Some(Lanes::Store(0, 8)),
        "movhps" | "movhpd" if store => Some(Lanes::Store(8, 8)),
        "movlps" | "movlpd" if i.op_count() == 2 => Some(Lanes::LoadLow),
        "movhps" | "movhpd" | "movlhps" | "punpcklqdq" | "unpcklpd" if i.op_count() == 2 => {
            Some(Lanes::LoadHigh)
        }
        "movhlps" if i.op_count() == 2 => Some(Lanes::HighToLow),
        "punpcklbw" | "punpcklwd" | "punpckldq" | "unpcklps" if xmm(i) => Some(Lanes::LowHalves),
        "cvtps2pd" | "cvtdq2pd" | "movddup" if xmm(i) => Some(Lanes::LowHalves),
        "comiss" | "ucomiss" => Some(Lanes::Read(4)),
        "comisd" | "ucomisd" => Some(Lanes::Read(8)),
        "cvttss2si" | "cvtss2si" => Some(Lanes::Read(4)),
        "cvttsd2si" | "cvtsd2si" => Some(Lanes::Read(8)),
        "addss" | "subss" | "mulss" | "divss" | "minss" | "maxss" | "cmpss" => {
            scalar(i, 4, 4, true)
        }
        "addsd" | "subsd" | "mulsd" | "divsd" | "minsd" | "maxsd" | "cmpsd" if vector(0) => {
            scalar(i, 8, 8, true)
        }
        "sqrtss" | "rcpss" | "rsqrtss" | "roundss" => scalar(i, 4, 4, false),
        "sqrtsd" | "roundsd" => scalar(i, 8, 8, false),
        "cvtss2sd" => scalar(i, 8, 4, false),
        "cvtsd2ss" => scalar(i, 4, 8, false),
        "cvtsi2ss" => scalar(i, 4, 8, false),
        "cvtsi2sd" => scalar(i, 8, 8, false),
        _ => None,
    }
}

fn xmm(i: &Instruction) -> bool {
    i.op0_kind() == OpKind::Register && i.op0_register().is_xmm()
}

fn scalar(i: &Instruction, to: usize, from: usize, both: bool) -> Option<Lanes> {
    // EVEX forms may have an embedded rounding and a mask; they are taken whole.
    let plain =
        matches!(i.encoding(), iced_x86::EncodingKind::Legacy | iced_x86::EncodingKind::VEX);
    plain.then_some(Lanes::Low { to, from, both })
}
