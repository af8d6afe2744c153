//! Loops of NEW that end with an exact number.
//!
//! Compilers make `!=` of a loop's `<` where they know that the counter steps on its end. A frame of OLD that is further
//! on than NEW's loop goes (the source has another end now, or steps otherwise) would never come to it, and NEW would
//! run on through memory. So such a loop is entered in its middle only where its test was shown to be OLD's.
//!
//! Takes NEW's body and the relation; gives the first such test of a loop around a block, if there is one.

use super::beginning::Rounds;
use super::relation::Relation;
use crate::machine::Analysis;
use crate::machine::effects::{Access, Effects};
use crate::machine::flow::{BlockId, End, Flow};
use crate::machine::frame::Place;
use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind, Register};
use std::collections::{BTreeMap, BTreeSet};

/// The tests of NEW's loops.
pub(super) struct Ends {
    /// By block of NEW: those blocks that end with such a test of a loop around.
    tests: BTreeMap<BlockId, BTreeSet<BlockId>>,
}

impl Ends {
    /// Of NEW's body, and its loops.
    pub(super) fn new(analysis: &Analysis, flow: &Flow, rounds: &Rounds) -> Self {
        let mut tests: BTreeMap<BlockId, BTreeSet<BlockId>> = BTreeMap::new();
        for blocks in rounds.blocks(flow) {
            let counted = Counted::new(analysis, flow, &blocks);
            let exact: BTreeSet<BlockId> =
                blocks.iter().copied().filter(|block| counted.is_test(*block)).collect();
            for block in blocks.iter().filter(|_| !exact.is_empty()) {
                tests.entry(*block).or_default().extend(&exact);
            }
        }
        Self { tests }
    }

    /// The block with a test of a loop around a block of NEW that was not shown to be OLD's.
    pub(super) fn open(&self, relation: &Relation, block: BlockId) -> Option<BlockId> {
        let tests = self.tests.get(&block)?;
        tests.iter().copied().find(|test| !relation.is_test_shared(*test))
    }
}

/// What a loop counts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Counter {
    Register(usize),
    Slot(i64),
}

/// What changes from round to round by numbers alone.
struct Counted<'a> {
    analysis: &'a Analysis,
    flow: &'a Flow,
    blocks: &'a BTreeSet<BlockId>,
    counters: BTreeSet<Counter>,
}

impl<'a> Counted<'a> {
    fn new(analysis: &'a Analysis, flow: &'a Flow, blocks: &'a BTreeSet<BlockId>) -> Self {
        let mut found = Self { analysis, flow, blocks, counters: BTreeSet::new() };
        let mut others = BTreeSet::new();
        for step in blocks.iter().flat_map(|block| flow.blocks[block.0].steps.clone()) {
            let i = &flow.body.steps[step].instruction;
            match found.stepped(step, i) {
                Some(counter) => {
                    found.counters.insert(counter);
                }
                None => others.extend(found.changed(step, i)),
            }
        }
        found.counters.retain(|counter| !others.contains(counter));
        found
    }

    /// The counter that a step moves on by a number.
    fn stepped(&self, step: usize, i: &Instruction) -> Option<Counter> {
        let is_number = i.op_count() == 2 && i.try_immediate(1).is_ok();
        let lea = i.mnemonic() == Mnemonic::Lea
            && i.memory_index() == Register::None
            && i.memory_base().full_register() == i.op0_register().full_register();
        let counts = match i.mnemonic() {
            Mnemonic::Add | Mnemonic::Sub => is_number,
            Mnemonic::Inc | Mnemonic::Dec => true,
            _ => lea,
        };
        counts.then(|| self.operand(step, i, 0)).flatten()
    }

    /// A register, or a slot of the frame, that an operand is.
    fn operand(&self, step: usize, i: &Instruction, index: u32) -> Option<Counter> {
        match i.op_kind(index) {
            OpKind::Register if i.op_register(index).is_gpr() => {
                let number = i.op_register(index).full_register().number();
                (i.op_register(index).full_register() != Register::RSP)
                    .then_some(Counter::Register(number))
            }
            OpKind::Memory => Effects::of(i).memory.iter().find_map(|a| self.slot(step, a)),
            _ => None,
        }
    }

    fn slot(&self, step: usize, access: &Access) -> Option<Counter> {
        match self.analysis.frame.place(step, access) {
            Place::Frame(bytes) => Some(Counter::Slot(bytes.start)),
            _ => None,
        }
    }

    /// What a step changes otherwise.
    fn changed(&self, step: usize, i: &Instruction) -> Vec<Counter> {
        let effects = Effects::of(i);
        let registers = effects.changes.general.iter().enumerate();
        let registers = registers.filter(|(_, bytes)| **bytes != 0);
        let slots = effects.memory.iter().filter(|a| a.changes);
        let calls = i.is_call_near() || i.is_call_near_indirect();
        let lost = (0..16).filter(|n| calls && !crate::machine::frame::is_preserved(*n));
        registers
            .map(|(number, _)| Counter::Register(number))
            .chain(lost.map(Counter::Register))
            .chain(slots.filter_map(|a| self.slot(step, a)))
            .collect()
    }

    /// Whether a block leaves the loop just when a counter is equal to something.
    fn is_test(&self, block: BlockId) -> bool {
        let b = &self.flow.blocks[block.0];
        let [taken, not_taken] = b.successors[..] else { return false };
        if b.end != End::Branch {
            return false;
        }
        let steps = &self.flow.body.steps;
        let last = b.steps.end - 1;
        let leaves = match steps[last].instruction.condition_code() {
            ConditionCode::e => taken,
            ConditionCode::ne => not_taken,
            _ => return false,
        };
        let stays = if leaves == taken { not_taken } else { taken };
        if self.blocks.contains(&leaves) || !self.blocks.contains(&stays) {
            return false;
        }
        let writes_flags = |step: &usize| {
            steps[*step].instruction.rflags_modified() & iced_x86::RflagsBits::ZF != 0
        };
        let Some(test) = (b.steps.start..last).rev().find(writes_flags) else { return false };
        let i = &steps[test].instruction;
        let operands = (0..i.op_count()).filter_map(|n| self.operand(test, i, n));
        let first = b.steps.start;
        let compares = matches!(
            i.mnemonic(),
            Mnemonic::Cmp | Mnemonic::Add | Mnemonic::Sub | Mnemonic::Inc | Mnemonic::Dec
        );
        let is_itself = i.mnemonic() == Mnemonic::Test
            && i.op_count() == 2
            && i.op1_kind() == OpKind::Register
            && i.op0_kind() == OpKind::Register
            && i.op0_register() == i.op1_register();
        (compares || is_itself) && operands.into_iter().any(|c| self.counts(c, first, test))
    }

    /// Whether this is a counter before a step, or a register that was made of one in the same block.
    fn counts(&self, counter: Counter, first: usize, test: usize) -> bool {
        if self.counters.contains(&counter) {
            return true;
        }
        let Counter::Register(number) = counter else { return false };
        let changes = |step: &usize| {
            let i = &self.flow.body.steps[*step].instruction;
            Effects::of(i).changes.general[number] != 0
        };
        let Some(made) = (first..test).rev().find(changes) else { return false };
        let i = &self.flow.body.steps[made].instruction;
        let from = match i.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsxd => self.operand(made, i, 1),
            Mnemonic::Lea if i.memory_index() == Register::None && i.memory_base().is_gpr() => {
                Some(Counter::Register(i.memory_base().full_register().number()))
            }
            _ => None,
        };
        from.is_some_and(|from| self.counters.contains(&from))
    }
}
