//! Jumps through tables of distances, as a copy of their function needs them: the copy lies elsewhere, so its tables
//! are others, but every register shall hold what it holds in the function.
//!
//! Takes a function; gives the loads from its tables, each of which a copy can do by another displacement, or why there
//! is one of which nobody can say that:
//!
//! ```text
//!     movsxd rax, [rdx+rax*4]      in the copy [rdx+rax*4+d], d from the function's table to the copy's
//!     add    rax, rdx
//!     jmp    rax
//! ```
//!
//! What is loaded and what is jumped to is in nobody's hands but the jump's; nor are the flags of the addition.

use super::analysis::Analysis;
use super::effects::Effects;
use super::flow::{BlockId, End, Flow};
use super::tables::{Before, Tables};
use crate::image::{FunctionId, Image};
use iced_x86::{Mnemonic, OpKind, Register};

/// A load from a table of distances, by which a block ends with a jump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// The step that loads.
    pub load: usize,
    /// The table's address, which the operand's base holds.
    pub table: u64,
    /// The steps to which the entries lead, in their order.
    pub targets: Vec<usize>,
}

impl Analysis {
    /// The loads of all jumps through tables.
    ///
    /// # Errors
    /// Which jump has no such load, and what else is done with what is loaded.
    pub fn dispatches(&self, image: &Image, id: FunctionId) -> Result<Vec<Dispatch>, String> {
        let flow = &self.flow;
        let before = before(flow);
        let tables = Tables { image, function: id, body: &flow.body, last: true };
        let jumps = flow.blocks.iter().enumerate().filter(|(_, block)| block.end == End::Table);
        jumps
            .map(|(block, _)| {
                self.dispatch(&tables, &before, BlockId(block)).map_err(|what| {
                    let jump = flow.blocks[block].steps.end - 1;
                    format!("it jumps by a table at {:#x}: {what}", flow.body.steps[jump].address())
                })
            })
            .collect()
    }

    fn dispatch(
        &self,
        tables: &Tables<'_>,
        before: &Before,
        block: BlockId,
    ) -> Result<Dispatch, &'static str> {
        const OTHER: &str = "not as compilers do it with distances";
        const USED: &str = "what is loaded is used otherwise, too";
        let flow = &self.flow;
        let block = &flow.blocks[block.0];
        let jump = block.steps.end - 1;
        let instruction = |step: usize| &flow.body.steps[step].instruction;
        let changes = |step: usize, register: Register| {
            Effects::of(instruction(step)).changes.general[register.number()] != 0
        };
        let made = |register: Register, behind: usize| {
            (block.steps.start..behind).rev().find(|step| changes(*step, register))
        };
        let target = instruction(jump).op0_register();
        if !target.is_gpr64() {
            return Err(OTHER);
        }
        let sum = made(target, jump).ok_or(OTHER)?;
        let i = instruction(sum);
        let is_sum = i.mnemonic() == Mnemonic::Add
            && i.op1_kind() == OpKind::Register
            && i.op0_register().is_gpr64();
        let (a, b) = if is_sum { (i.op0_register(), i.op1_register()) } else { return Err(OTHER) };
        let loads = |offset: Register, base: Register| {
            let load = made(offset, sum)?;
            let i = instruction(load);
            let same = i.mnemonic() == Mnemonic::Movsxd
                && i.op0_register() == offset
                && i.op1_kind() == OpKind::Memory
                && i.memory_base() == base
                && i.memory_index().is_gpr64()
                && i.memory_index_scale() == 4
                && i.memory_displacement64() == 0
                && offset != base
                && !(load + 1..sum).any(|step| changes(step, base));
            same.then_some((load, offset, base))
        };
        let (load, offset, base) = loads(a, b).or_else(|| loads(b, a)).ok_or(OTHER)?;
        let reads = |step: usize, register: Register| {
            let effects = Effects::of(instruction(step));
            let number = register.number();
            effects.reads.general[number] | effects.masked.general[number] != 0
        };
        let tests = |step: usize| instruction(step).rflags_read() != 0;
        let used = (load + 1..sum).any(|step| reads(step, offset))
            || (sum + 1..jump)
                .any(|step| reads(step, offset) || reads(step, target) || tests(step));
        let live = block.successors.iter().any(|next| {
            let live = &self.live[flow.blocks[next.0].steps.start];
            live.flags
                || [offset, target].iter().any(|register| live.general[register.number()] != 0)
        });
        if used || live {
            return Err(USED);
        }
        let (table, targets) =
            tables.only(base, load, before).ok_or("which one, or how far it goes, is not known")?;
        let leads = targets.iter().map(|step| flow.block_of[*step]);
        if !leads.eq(block.successors.iter().copied()) {
            return Err(OTHER);
        }
        Ok(Dispatch { load, table, targets })
    }
}

/// Instructions that may come right before each one.
fn before(flow: &Flow) -> Before {
    let mut before = vec![Vec::new(); flow.body.steps.len()];
    for step in 0..flow.body.steps.len() {
        for next in flow.next(step) {
            before[next].push(step);
        }
    }
    before
}
