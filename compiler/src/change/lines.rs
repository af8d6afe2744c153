//! Immediates that are source line numbers.
//!
//! Half of the functions that a real fix changes differ only because lines above them were added:
//! `assert`, log and error macros pass `__LINE__`. Such a function does the same, and says another
//! number; it is kept unless the user asks for it.
//!
//! An immediate is a line number when it equals the line of its own instruction, or of the call
//! that it is an argument of, in both builds, and these lines differ. A macro call over several
//! lines passes its last line and is recorded at its first: then both are off by the same few.

use super::Pair;
use super::compare::neutral;
use crate::code::{Body, Step};
use iced_x86::{FlowControl, Instruction, OpKind};

/// Instructions from an argument to its call.
const REACH: usize = 16;
/// Lines that one macro call spans at most.
const SPAN: u32 = 16;

/// Whether two instructions differ by their own line numbers alone.
pub(super) fn is_line_number(pair: Pair<'_>, old: &Body, new: &Body, index: usize) -> bool {
    let (s, t) = (&old.steps[index], &new.steps[index]);
    let (Some(x), Some(y)) = (line_sized(&s.instruction), line_sized(&t.instruction)) else {
        return false;
    };
    if without_immediate(s) != without_immediate(t) {
        return false;
    }
    for (s, t) in old.steps[index..].iter().zip(&new.steps[index..]).take(REACH) {
        let line = |image: &crate::image::Image, at| image.debug.position(at).map(|(_, l)| l);
        if let (Some(i), Some(j)) = (line(pair.old, s.address()), line(pair.new, t.address())) {
            let (over_i, over_j) = (x.checked_sub(i), y.checked_sub(j));
            if i != j && i > 0 && over_i == over_j && over_i.is_some_and(|o| o <= SPAN) {
                return true;
            }
        }
        if s.instruction.flow_control() != FlowControl::Next {
            return false;
        }
    }
    false
}

/// The one 32-bit immediate that an instruction moves.
fn line_sized(i: &Instruction) -> Option<u32> {
    let moves = matches!(i.mnemonic(), iced_x86::Mnemonic::Mov | iced_x86::Mnemonic::Push);
    let operand = (0..i.op_count()).find(|o| {
        matches!(i.op_kind(*o), OpKind::Immediate32 | OpKind::Immediate32to64)
            || (i.op_kind(*o) == OpKind::Immediate8to64)
    })?;
    moves.then(|| u32::try_from(i.immediate(operand)).ok()).flatten()
}

fn without_immediate(step: &Step) -> Instruction {
    let mut i = neutral(step);
    for operand in 0..i.op_count() {
        match i.op_kind(operand) {
            OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate8to64 => {
                i.set_immediate_u64(operand, 0);
            }
            _ => {}
        }
    }
    // `push 100` and `push 300` are two encodings of one instruction.
    if i.mnemonic() == iced_x86::Mnemonic::Push {
        i.set_code(iced_x86::Code::Pushq_imm32);
        i.set_op0_kind(OpKind::Immediate32to64);
    }
    i
}
