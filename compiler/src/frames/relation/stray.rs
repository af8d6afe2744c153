//! What NEW still holds when it has come from one place to another on a way that is not known.
//!
//! OLD goes where NEW cannot follow, and comes to a place that is the only one of its kind: NEW is there, too,
//! however it came. Whatever way it took, what no instruction on any of these ways writes is as it was.
//!
//! Takes where NEW was, where it is, and what it held. Gives what it holds; nothing where it cannot have
//! come from there.

use super::super::copied;
use super::super::exec::number;
use super::super::point::{Exit, PointId};
use super::super::source::is_callee_saved;
use super::super::state::Machine;
use super::super::value::Side;
use super::Search;
use crate::machine::flow::{BlockId, End, Flow};
use iced_x86::{FlowControl, InstructionInfoFactory, OpAccess, Register, UsedMemory};
use std::collections::BTreeSet;
use std::ops::Range;

/// What is written on some ways.
#[derive(Default)]
struct Written {
    /// General registers, by their numbers.
    general: BTreeSet<u8>,
    /// Parts of the frame, as offsets from the CFA.
    frame: Vec<Range<i64>>,
    /// Some part of the frame that is not known.
    anywhere: bool,
}

impl Search<'_, '_> {
    /// What NEW holds at the beginning of `goal`.
    pub(super) fn strayed(
        &mut self,
        point: PointId,
        exit: Exit,
        goal: BlockId,
        before: &Machine,
    ) -> Option<Machine> {
        let blocks = between(self.bodies.new, exit, goal)?;
        let mut written = Written::default();
        for block in blocks {
            let depth = (self.bodies.depth)(Side::New, block).and_then(|d| i64::try_from(d).ok());
            written.add(self.bodies.new, block, depth);
        }
        let mut machine = self.unrelated(point, goal);
        for number in (0..16).filter(|n| *n != 4 && !written.general.contains(n)) {
            machine.set_general(number, before.general(number));
        }
        for (at, bytes, value) in before.slots().filter(|_| !written.anywhere) {
            let end = at + i64::from(bytes);
            if !written.frame.iter().any(|part| part.start < end && at < part.end) {
                machine.put_slot(at, bytes, value);
            }
        }
        Some(machine)
    }
}

impl Written {
    /// Adds what a block writes, at whose beginning the stack pointer is so far below the CFA.
    fn add(&mut self, flow: &Flow, block: BlockId, mut depth: Option<i64>) {
        let mut factory = InstructionInfoFactory::new();
        let b = &flow.blocks[block.0];
        for step in &flow.body.steps[b.steps.clone()] {
            let info = factory.info(&step.instruction);
            for memory in info.used_memory().iter().filter(|m| writes(m.access())) {
                self.store(memory, depth);
            }
            let registers = info.used_registers().iter().filter(|r| writes(r.access()));
            for register in registers.map(|r| r.register().full_register()) {
                if register == Register::RSP && step.instruction.flow_control() == FlowControl::Next
                {
                    depth = None;
                } else if register.is_gpr() {
                    self.general.insert(number(register));
                }
            }
        }
        if b.end != End::Call {
            return;
        }
        self.general.extend((0..16).filter(|number| !is_callee_saved(*number)));
        // What is below the stack pointer is the callee's.
        match depth {
            Some(depth) => self.frame.push(i64::MIN..-depth),
            None => self.anywhere = true,
        }
    }

    /// A store, as far as it may be to a part of the frame whose address nobody has taken: only by the
    /// stack or frame pointer code gets there.
    fn store(&mut self, memory: &UsedMemory, depth: Option<i64>) {
        if !matches!(memory.base(), Register::RSP | Register::RBP) {
            return;
        }
        let size = i64::try_from(memory.memory_size().size()).unwrap_or(0);
        match depth {
            Some(depth)
                if memory.base() == Register::RSP
                    && memory.index() == Register::None
                    && size > 0 =>
            {
                let at = memory.displacement().cast_signed().wrapping_sub(depth);
                self.frame.push(at..at.saturating_add(size));
            }
            _ => self.anywhere = true,
        }
    }
}

fn writes(access: OpAccess) -> bool {
    !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
}

/// The blocks on all ways by which NEW comes from an exit to `goal` for the first time; `None`: it does not.
fn between(flow: &Flow, exit: Exit, goal: BlockId) -> Option<BTreeSet<BlockId>> {
    let mut queue: Vec<BlockId> = copied::ways(flow, exit).into_iter().collect();
    let mut ahead = BTreeSet::new();
    while let Some(block) = queue.pop() {
        if ahead.insert(block) && block != goal {
            queue.extend(&flow.blocks[block.0].successors);
        }
    }
    if !ahead.contains(&goal) {
        return None;
    }
    let (mut found, mut queue) = (BTreeSet::new(), vec![goal]);
    while let Some(block) = queue.pop() {
        for before in &flow.blocks[block.0].predecessors {
            if *before != goal && ahead.contains(before) && found.insert(*before) {
                queue.push(*before);
            }
        }
    }
    Some(found)
}
