//! Where frames return to that stand lower than the frame of OLD which they go on for.
//!
//! NEW's body takes its frame away and returns to here, the stack pointer `lowered` bytes below OLD's CFA;
//! OLD's return address is 8 bytes below that. Nothing but the stack pointer changes, so results, flags and
//! registers come through.

use dsu_patch_format::NewAddr;
use dsu_patch_format::frames::{Location, Move, Proof, Translation, Value};
use dsu_patch_format::plan::{Target, UnwindRow};
use iced_x86::{Code, Encoder, IcedError, Instruction, MemoryOperand, Register};

/// The code, with what unwinders need to know of it.
pub(super) struct Returning {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Where frames return to.
    pub entry: NewAddr,
    /// How the rest of OLD's frame is unwound.
    pub rows: Vec<UnwindRow>,
}

/// The code for frames that stand `lowered` bytes lower, to lie at `at`.
pub(super) fn assemble(lowered: u64, at: NewAddr) -> Result<Returning, IcedError> {
    let home = MemoryOperand::with_base_displ(Register::RSP, lowered.cast_signed() - 8);
    let lift = Instruction::with2(Code::Lea_r64_m, Register::RSP, home)?;
    let mut encoder = Encoder::new(64);
    // Unwinders look at the instruction before a return address: at the call, they think.
    let padding = encoder.encode(&Instruction::with(Code::Nopd), at.0)? as u64;
    let entry = at.offset(padding);
    let lifted = padding + encoder.encode(&lift, entry.0)? as u64;
    let back = encoder.encode(&Instruction::with(Code::Retnq), at.0 + lifted)? as u64;
    const RSP: u8 = 4;
    let row = |from: u64, to: u64, cfa: u64| UnwindRow {
        start: at.offset(from),
        len: u32::try_from(to - from).unwrap_or(u32::MAX),
        cfa: (RSP, i32::try_from(cfa).unwrap_or(i32::MAX)),
        saved: Vec::new(),
    };
    let rows = vec![row(0, lifted, lowered), row(lifted, lifted + back, 8)];
    Ok(Returning { bytes: encoder.take_buffer(), entry, rows })
}

/// Gives a frame that stands lower its return address.
pub(super) fn to(translation: &mut Translation, code: NewAddr) {
    let to = Location::Slot { cfa: -(translation.lowered + 8).cast_signed(), bytes: 8 };
    let from = Value::Address { target: Target::New(code), addend: 0 };
    translation.moves.push(Move { to, from, proof: Proof::Lowered });
    translation.moves.sort_by_key(|m| m.to);
}
