//! Which instruction serves an operation of so many bytes, and what registers are called.

use super::{Unencodable, refuse};
use dsu_patch_format::frames::Binary;
use iced_x86::{Code as Op, Register};

/// The immediate that stands for a number in a store of so many bytes.
pub(super) fn immediate(value: u64, bytes: u32) -> Option<i32> {
    let signed = value.cast_signed();
    match bytes {
        8 => i32::try_from(signed).ok(),
        // Shifted up and back: the low bytes with their sign.
        1 | 2 | 4 => {
            let above = 64 - 8 * bytes;
            i32::try_from((signed << above) >> above).ok()
        }
        _ => None,
    }
}

pub(super) fn whole_vector(bytes: u32, low: bool) -> Result<Op, Unencodable> {
    Ok(match (bytes, low) {
        (4, _) => Op::EVEX_Vmovd_xmm_rm32,
        (8, _) => Op::EVEX_Vmovq_xmm_xmmm64,
        (16, true) => Op::Movups_xmm_xmmm128,
        (32, true) => Op::VEX_Vmovups_ymm_ymmm256,
        (16, false) => Op::EVEX_Vmovups_xmm_k1z_xmmm128,
        (32, false) => Op::EVEX_Vmovups_ymm_k1z_ymmm256,
        (64, _) => Op::EVEX_Vmovups_zmm_k1z_zmmm512,
        _ => return refuse(format!("a vector of {bytes} bytes")),
    })
}

pub(super) fn with_operand(op: Binary, wide: bool) -> Result<Op, Unencodable> {
    Ok(match (op, wide) {
        (Binary::Add, true) => Op::Add_r64_rm64,
        (Binary::Add, false) => Op::Add_r32_rm32,
        (Binary::Sub, true) => Op::Sub_r64_rm64,
        (Binary::Sub, false) => Op::Sub_r32_rm32,
        (Binary::Mul, true) => Op::Imul_r64_rm64,
        (Binary::Mul, false) => Op::Imul_r32_rm32,
        (Binary::And, true) => Op::And_r64_rm64,
        (Binary::And, false) => Op::And_r32_rm32,
        (Binary::Or, true) => Op::Or_r64_rm64,
        (Binary::Or, false) => Op::Or_r32_rm32,
        (Binary::Xor, true) => Op::Xor_r64_rm64,
        (Binary::Xor, false) => Op::Xor_r32_rm32,
        (Binary::Shl | Binary::Shr | Binary::Sar, _) => return refuse("a shift"),
    })
}

pub(super) fn with_immediate(op: Binary, wide: bool) -> Result<Op, Unencodable> {
    Ok(match (op, wide) {
        (Binary::Add, true) => Op::Add_rm64_imm32,
        (Binary::Add, false) => Op::Add_rm32_imm32,
        (Binary::Sub, true) => Op::Sub_rm64_imm32,
        (Binary::Sub, false) => Op::Sub_rm32_imm32,
        (Binary::Mul, true) => Op::Imul_r64_rm64_imm32,
        (Binary::Mul, false) => Op::Imul_r32_rm32_imm32,
        (Binary::And, true) => Op::And_rm64_imm32,
        (Binary::And, false) => Op::And_rm32_imm32,
        (Binary::Or, true) => Op::Or_rm64_imm32,
        (Binary::Or, false) => Op::Or_rm32_imm32,
        (Binary::Xor, true) => Op::Xor_rm64_imm32,
        (Binary::Xor, false) => Op::Xor_rm32_imm32,
        (Binary::Shl | Binary::Shr | Binary::Sar, _) => return refuse("a shift"),
    })
}

/// A general register by the processor's number, its low bytes.
pub(super) fn general(number: u8, bytes: u32) -> Register {
    let number = u32::from(number);
    match bytes {
        // iced has ah to bh between bl and spl.
        1 if number < 4 => Register::AL + number,
        1 => Register::SPL + (number - 4),
        2 => Register::AX + number,
        4 => Register::EAX + number,
        _ => Register::RAX + number,
    }
}

pub(super) fn vector(number: u8, bytes: u32) -> Register {
    let number = u32::from(number);
    match bytes {
        64 => Register::ZMM0 + number,
        32 => Register::YMM0 + number,
        _ => Register::XMM0 + number,
    }
}

/// A shift by an immediate, or by `cl`.
pub(super) fn shift(op: Binary, wide: bool, immediate: bool) -> Result<Op, Unencodable> {
    Ok(match (op, wide, immediate) {
        (Binary::Shl, true, true) => Op::Shl_rm64_imm8,
        (Binary::Shl, false, true) => Op::Shl_rm32_imm8,
        (Binary::Shl, true, false) => Op::Shl_rm64_CL,
        (Binary::Shl, false, false) => Op::Shl_rm32_CL,
        (Binary::Shr, true, true) => Op::Shr_rm64_imm8,
        (Binary::Shr, false, true) => Op::Shr_rm32_imm8,
        (Binary::Shr, true, false) => Op::Shr_rm64_CL,
        (Binary::Shr, false, false) => Op::Shr_rm32_CL,
        (Binary::Sar, true, true) => Op::Sar_rm64_imm8,
        (Binary::Sar, false, true) => Op::Sar_rm32_imm8,
        (Binary::Sar, true, false) => Op::Sar_rm64_CL,
        (Binary::Sar, false, false) => Op::Sar_rm32_CL,
        _ => return refuse("not a shift"),
    })
}

/// An extension with zeroes or with the sign; the former always fills the register.
pub(super) fn extension(sign: bool, from: u32, to: u32) -> Result<Op, Unencodable> {
    Ok(match (sign, from, to) {
        (false, 1, _) => Op::Movzx_r32_rm8,
        (false, 2, _) => Op::Movzx_r32_rm16,
        (false, 4, _) | (true, 4, 4) => Op::Mov_r32_rm32,
        (true, 1, 4) => Op::Movsx_r32_rm8,
        (true, 2, 4) => Op::Movsx_r32_rm16,
        (true, 1, 8) => Op::Movsx_r64_rm8,
        (true, 2, 8) => Op::Movsx_r64_rm16,
        (true, 4, 8) => Op::Movsxd_r64_rm32,
        _ => return refuse(format!("an extension from {from} to {to} bytes")),
    })
}

/// A store of the low bytes; `low` says that the register is one of the first sixteen.
pub(super) fn store_vector(bytes: u32, low: bool) -> Result<Op, Unencodable> {
    Ok(match (bytes, low) {
        (4, true) => Op::Movd_rm32_xmm,
        (8, true) => Op::Movq_xmmm64_xmm,
        (16, true) => Op::Movups_xmmm128_xmm,
        (32, true) => Op::VEX_Vmovups_ymmm256_ymm,
        (4, false) => Op::EVEX_Vmovd_rm32_xmm,
        (8, false) => Op::EVEX_Vmovq_xmmm64_xmm,
        (16, false) => Op::EVEX_Vmovups_xmmm128_k1z_xmm,
        (32, false) => Op::EVEX_Vmovups_ymmm256_k1z_ymm,
        (64, _) => Op::EVEX_Vmovups_zmmm512_k1z_zmm,
        _ => return refuse(format!("a vector store of {bytes} bytes")),
    })
}
