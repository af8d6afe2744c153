//! Where control goes from an address, without a symbol's help.
//!
//! Assembler sources mix code and tables, and a linked file does not say which is which. What a
//! known instruction leads to is code for sure; what is behind an indirect jump, or behind nothing,
//! may be either.

use crate::image::{Image, SectionKind};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};
use std::collections::BTreeSet;
use std::ops::Range;

/// What was met on the way from an address.
#[derive(Debug, Default)]
pub struct Flow {
    /// Every instruction reached: its first byte and past its last.
    pub reached: BTreeSet<(u64, u64)>,
    /// Targets of calls, wherever they are.
    pub called: BTreeSet<u64>,
    /// Targets of jumps out of the ranges that were followed.
    pub left: BTreeSet<u64>,
    /// An indirect jump, whose targets are not known.
    pub indirect: bool,
    /// Bytes that no program executes: the way leads into data.
    pub broken: bool,
}

impl Flow {
    /// Past the last byte reached.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.reached.iter().map(|(_, end)| *end).max().unwrap_or(0)
    }
}

/// Follows control from `start` inside of `ranges`.
#[must_use]
pub fn follow(image: &Image, start: u64, ranges: &[Range<u64>]) -> Flow {
    let mut flow = Flow::default();
    let mut todo = vec![start];
    while let Some(mut at) = todo.pop() {
        while let Some(range) = ranges.iter().find(|r| r.contains(&at)) {
            let Some(i) = decode_at(image, at, range.end) else {
                flow.broken = true;
                break;
            };
            if !flow.reached.insert((at, i.next_ip())) {
                break;
            }
            todo.extend(flow.branch(image, &i, ranges));
            if ends(&i) {
                break;
            }
            at = i.next_ip();
            if !ranges.iter().any(|r| r.contains(&at)) {
                flow.left.insert(at);
            }
        }
    }
    flow
}

impl Flow {
    /// Notes where an instruction branches to; gives the target when it is to be followed.
    fn branch(&mut self, image: &Image, i: &Instruction, ranges: &[Range<u64>]) -> Option<u64> {
        self.indirect |= i.flow_control() == FlowControl::IndirectBranch;
        if i.op_count() == 0 || i.op_kind(0) != OpKind::NearBranch64 {
            return None;
        }
        let target = i.near_branch_target();
        let text = image.section_at(target).is_some_and(|s| s.kind == SectionKind::Text);
        self.broken |= !text;
        if i.flow_control() == FlowControl::Call {
            self.called.insert(target);
        } else if ranges.iter().any(|r| r.contains(&target)) {
            return Some(target);
        } else {
            self.left.insert(target);
        }
        None
    }
}

/// The instruction at an address, when it is one of a program.
fn decode_at(image: &Image, at: u64, end: u64) -> Option<Instruction> {
    // No instruction is longer than 15 bytes (SDM volume 2, 2.3.11).
    let code = image.content(at, (end - at).min(15))?;
    let i = Decoder::with_ip(64, &code, at, DecoderOptions::NONE).decode();
    (!i.is_invalid() && !i.is_privileged()).then_some(i)
}

/// Whether control does not go on behind an instruction.
fn ends(i: &Instruction) -> bool {
    match i.flow_control() {
        FlowControl::UnconditionalBranch
        | FlowControl::IndirectBranch
        | FlowControl::Return
        | FlowControl::Exception => true,
        FlowControl::Interrupt => i.mnemonic() == Mnemonic::Int3,
        _ => false,
    }
}

/// Whether bytes are what assemblers and linkers fill with: one kind of it, zeroes or `nop`s.
#[must_use]
pub fn is_filler(code: &[u8]) -> bool {
    code.iter().all(|b| *b == 0) || leading_filler(code) == code.len()
}

/// Bytes of `nop` and `int3` at the beginning.
#[must_use]
pub fn leading_filler(code: &[u8]) -> usize {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut end = 0;
    while decoder.can_decode()
        && matches!(decoder.decode().mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
    {
        end = decoder.position();
    }
    end
}
