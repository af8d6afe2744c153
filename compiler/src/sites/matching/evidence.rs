//! What the line tables say of the instructions of both bodies, apart from any matching.
//!
//! Takes the positions of both bodies' instructions and the map of lines. Gives: which instructions
//! belong to lines that only one build has; and, within one body, which blocks were made from the same
//! source: compilers copy positions with the code when they unroll, peel, or duplicate tails, so a
//! block that shares the position of real work with another one is a copy of it, in whole or in part.
//!
//! Refuses to say that a line is new or gone where the declarations around it are as far apart in
//! both files: then nothing shows that the source changed there.

use super::lines::{LineMap, Spot, Spots};
use crate::code::Step;
use crate::machine::flow::{BlockId, Flow};
use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the source of two bodies.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Of each step of OLD: NEW's source no longer has its line.
    pub removed: Vec<bool>,
    /// Of each step of NEW: OLD's source did not have its line.
    pub added: Vec<bool>,
    /// Which of OLD's blocks are copies of which.
    pub old: Copies,
    /// Which of NEW's blocks are.
    pub new: Copies,
}

/// Which blocks of one body were made from the same source.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    of: Vec<BTreeSet<BlockId>>,
    repeats: Vec<bool>,
}

/// What an instruction does, as far as copies of it do the same however they were optimized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Loads,
    Stores,
    Computes,
    Calls,
}

impl Evidence {
    pub(super) fn new(old: (&Flow, &Spots), new: (&Flow, &Spots), map: &LineMap) -> Self {
        let removed = old.1.steps.iter();
        let added = new.1.steps.iter();
        Self {
            removed: removed.map(|s| s.is_some_and(|s| map.is_removed(s.file, s.line))).collect(),
            added: added.map(|s| s.is_some_and(|s| map.is_added(s.file, s.line))).collect(),
            old: Copies::new(old.0, &old.1.steps),
            new: Copies::new(new.0, &new.1.steps),
        }
    }
}

impl Copies {
    fn new(flow: &Flow, spots: &[Option<Spot>]) -> Self {
        let mut at: BTreeMap<(Spot, Work), BTreeMap<BlockId, usize>> = BTreeMap::new();
        let mut infos = InstructionInfoFactory::new();
        let entry = spots.first().copied().flatten();
        let framed = keeps_frame_pointer(flow);
        for (block, b) in flow.blocks.iter().enumerate() {
            for step in b.steps.clone() {
                let Some(spot) =
                    spots[step].filter(|spot| Some(spot.line) != entry.map(|e| e.line))
                else {
                    continue;
                };
                if let Some(work) = work(&mut infos, &flow.body.steps[step], framed) {
                    *at.entry((spot, work)).or_default().entry(BlockId(block)).or_default() += 1;
                }
            }
        }
        let mut of = vec![BTreeSet::new(); flow.blocks.len()];
        let mut repeats = vec![false; flow.blocks.len()];
        for blocks in at.values() {
            for (block, count) in blocks {
                repeats[block.0] |= *count > 1;
                of[block.0].extend(blocks.keys().filter(|other| *other != block));
            }
        }
        Self { of, repeats }
    }

    /// Whether two blocks do work of the same source.
    #[must_use]
    pub fn are_copies(&self, a: BlockId, b: BlockId) -> bool {
        self.of.get(a.0).is_some_and(|of| of.contains(&b))
    }

    /// Whether a block has a copy at all.
    #[must_use]
    pub fn has_copy(&self, block: BlockId) -> bool {
        self.of.get(block.0).is_some_and(|of| !of.is_empty())
    }

    /// Whether a block may do the same work more than once.
    #[must_use]
    pub fn repeats(&self, block: BlockId) -> bool {
        self.repeats.get(block.0).copied().unwrap_or(false)
    }
}

/// The work of an instruction; `None` for what compilers put anywhere: moves, comparisons, spills.
fn work(infos: &mut InstructionInfoFactory, step: &Step, framed: bool) -> Option<Work> {
    let i = &step.instruction;
    match i.flow_control() {
        FlowControl::Next => {}
        FlowControl::Call | FlowControl::IndirectCall => return Some(Work::Calls),
        _ => return None,
    }
    let own_frame = i.memory_base() == Register::RSP || framed && i.memory_base() == Register::RBP;
    let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) && !own_frame;
    let clears = i.op_count() == 2 && i.op_register(0) == i.op_register(1);
    match i.mnemonic() {
        Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Push | Mnemonic::Pop | Mnemonic::Leave => {
            None
        }
        Mnemonic::Lea => None,
        _ if memory && i.mnemonic() != Mnemonic::Lea => {
            let writes = infos
                .info(i)
                .used_memory()
                .iter()
                .any(|m| !matches!(m.access(), OpAccess::Read | OpAccess::CondRead));
            Some(if writes { Work::Stores } else { Work::Loads })
        }
        Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Mov | Mnemonic::Movaps | Mnemonic::Movups => {
            None
        }
        Mnemonic::Movsxd | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Cdqe | Mnemonic::Cdq => {
            None
        }
        Mnemonic::Xor | Mnemonic::Pxor | Mnemonic::Xorps if clears => None,
        // Frames are made and given up in more than one place.
        Mnemonic::Add | Mnemonic::Sub if i.op_register(0) == Register::RSP => None,
        _ => Some(Work::Computes),
    }
}

/// Whether `rbp` is the frame's.
fn keeps_frame_pointer(flow: &Flow) -> bool {
    flow.body.steps.iter().take(12).any(|step| {
        let i = &step.instruction;
        i.mnemonic() == Mnemonic::Mov
            && i.op0_register() == Register::RBP
            && i.op1_register() == Register::RSP
    })
}
