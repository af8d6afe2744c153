//! Blocks that one build has more than once.
//!
//! Compilers duplicate the ends of ways and the heads of loops, and one build has copies where the other
//! has none: of a block that is copied only one copy has a partner. Takes where OLD is about to go, and
//! what the line tables say of copies; gives the blocks at which NEW may be then, other than the partner: the
//! partner's copies, the partners of OLD's copies, and whatever does the same work. Which of them it is, if any, is shown by the
//! relation's own rules: there must be no other way for NEW to go.

use super::point::Exit;
use super::relation::Bodies;
use crate::machine::flow::{BlockId, End, Flow};
use crate::sites::matching::BlockMatching;
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use std::collections::BTreeSet;

/// The blocks that NEW may come to by its next edge.
pub(super) fn ways(flow: &Flow, exit: Exit) -> BTreeSet<BlockId> {
    let successors = flow.blocks[exit.block.0].successors.iter().enumerate();
    let taken = successors.filter(|(i, _)| exit.edge.is_none_or(|only| only == *i));
    taken.map(|(_, to)| *to).collect()
}

/// Blocks of NEW that do what a block of OLD does, but are not its partner.
pub(super) fn candidates(bodies: &Bodies<'_>, old: BlockId) -> BTreeSet<BlockId> {
    let (evidence, matching) = (bodies.evidence, bodies.matching);
    let partner = matching.new_of[old.0];
    let mut found: BTreeSet<BlockId> = BTreeSet::new();
    for (other, new) in matching.pairs() {
        let copy = other != old && evidence.old.are_copies(other, old);
        if copy {
            found.insert(new);
        }
        if copy || partner == Some(new) {
            let copies = (0..bodies.new.blocks.len()).map(BlockId);
            found.extend(copies.filter(|block| {
                matching.old_of[block.0].is_none() && evidence.new.are_copies(*block, new)
            }));
        }
    }
    let all = (0..bodies.new.blocks.len()).map(BlockId);
    found.extend(all.filter(|new| evidence.do_alike(old, *new)));
    found.retain(|new| Some(*new) != partner && end_alike(bodies, old, *new));
    found
}

/// Whether both end with the same call, or neither with one.
pub(super) fn end_alike(bodies: &Bodies<'_>, old: BlockId, new: BlockId) -> bool {
    match (bodies.old.blocks[old.0].end, bodies.new.blocks[new.0].end) {
        (End::Call, End::Call) => (bodies.same_callee)(old, new),
        (x, y) => x != End::Call && y != End::Call,
    }
}

/// Whether both are but a jump, or neither is: else the one is soon where the other is.
pub(super) fn alike_jumps(bodies: &Bodies<'_>, old: BlockId, new: BlockId) -> bool {
    is_jump(bodies.old, old) == is_jump(bodies.new, new)
}

/// Gives up pairs of which one block is but a jump: the other one belongs to where that leads, or to a copy
/// of it.
pub(super) fn part_jumps(old: &Flow, new: &Flow, matching: &mut BlockMatching) {
    let pairs: Vec<(BlockId, BlockId)> = matching.pairs().collect();
    for (a, b) in pairs {
        if a.0 != 0 && b.0 != 0 && is_jump(old, a) != is_jump(new, b) {
            matching.unmatch(a);
        }
    }
}

/// Whether a block goes on to one other, and before that only puts values into registers and the frame.
pub(super) fn only_moves(flow: &Flow, block: BlockId) -> bool {
    let b = &flow.blocks[block.0];
    let own = |i: &Instruction| {
        let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
        !memory || i.memory_base() == Register::RSP && i.memory_index() == Register::None
    };
    let clears =
        |i: &Instruction| i.op1_kind() == OpKind::Register && i.op0_register() == i.op1_register();
    matches!(b.end, End::Jump | End::Next)
        && !flow.whole.contains_key(&block)
        && b.successors.len() == 1
        && flow.body.steps[b.steps.clone()].iter().all(|step| {
            let i = &step.instruction;
            match i.mnemonic() {
                Mnemonic::Mov => own(i),
                Mnemonic::Xor => clears(i),
                Mnemonic::Nop | Mnemonic::Jmp => true,
                _ => false,
            }
        })
}

fn is_jump(flow: &Flow, block: BlockId) -> bool {
    let b = &flow.blocks[block.0];
    matches!(b.end, End::Jump | End::Next)
        && !flow.whole.contains_key(&block)
        && flow.body.steps[b.steps.clone()].iter().all(|step| {
            let i = &step.instruction;
            i.mnemonic() == Mnemonic::Nop || i.flow_control() == FlowControl::UnconditionalBranch
        })
}
