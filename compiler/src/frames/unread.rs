//! Where NEW's code knows nothing of what memory holds.
//!
//! OLD makes a call that NEW no longer has, and memory changes under NEW's hands. Code behind may rely on
//! what it has found or put there before: in a register, by the way that it has taken, or by leaving a
//! test out. What all ways to a point have in common is all that the code there can rely on; so it
//! relies on nothing where one of them comes from the entry, or from a call that may change any memory,
//! without having touched memory since.
//!
//! Takes NEW's graph and which of its calls may change any memory. Gives the blocks at whose beginning that
//! is so.

use super::value::CANARY;
use crate::code::Step;
use crate::machine::flow::{BlockId, End, Flow};
use iced_x86::{InstructionInfoFactory, Mnemonic, OpAccess, Register, UsedMemory};
use std::ops::Range;

/// What is known of one body.
pub(super) struct Unread {
    blocks: Vec<bool>,
    /// Which steps touch memory.
    touching: Vec<bool>,
}

impl Unread {
    /// `barrier` says of blocks that end with calls whether these may change any memory; `escapes`, whether
    /// any address in the frame is taken: what is above the stack pointer is memory like any other then.
    pub(super) fn new(flow: &Flow, barrier: &dyn Fn(BlockId) -> bool, escapes: bool) -> Self {
        let mut factory = InstructionInfoFactory::new();
        let touching: Vec<bool> =
            flow.body.steps.iter().map(|step| touches(&mut factory, step, escapes)).collect();
        let mut blocks = vec![false; flow.blocks.len()];
        let calls =
            (0..flow.blocks.len()).map(BlockId).filter(|b| flow.blocks[b.0].end == End::Call);
        let mut queue: Vec<BlockId> = calls
            .filter(|call| barrier(*call))
            .flat_map(|call| flow.blocks[call.0].successors.iter().copied())
            .chain((!flow.blocks.is_empty()).then_some(BlockId(0)))
            .collect();
        while let Some(block) = queue.pop() {
            if std::mem::replace(&mut blocks[block.0], true) {
                continue;
            }
            let b = &flow.blocks[block.0];
            if b.end != End::Call && !touching[b.steps.clone()].contains(&true) {
                queue.extend(&b.successors);
            }
        }
        Self { blocks, touching }
    }

    /// Whether nothing is relied on in front of the last of these steps' end, which begin a block.
    pub(super) fn holds(&self, block: BlockId, passed: Range<usize>) -> bool {
        self.blocks[block.0] && !self.touching[passed].contains(&true)
    }
}

/// Whether an instruction reads or writes memory that others may write.
fn touches(factory: &mut InstructionInfoFactory, step: &Step, escapes: bool) -> bool {
    let i = &step.instruction;
    let is_stack = matches!(i.mnemonic(), Mnemonic::Push | Mnemonic::Pop | Mnemonic::Call);
    let is_own = |m: &UsedMemory| match m.segment() {
        Register::FS => {
            m.base() == Register::None && m.index() == Register::None && m.displacement() == CANARY
        }
        Register::GS => false,
        _ => m.base() == Register::RSP && (is_stack || !escapes),
    };
    let info = factory.info(i);
    info.used_memory().iter().any(|m| m.access() != OpAccess::NoMemAccess && !is_own(m))
}
