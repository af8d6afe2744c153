//! Which registers still matter to where addresses go.
//!
//! Takes what each step reads and overwrites; gives the registers that are read behind the start of
//! each block before they are overwritten. What is in the others can reach nothing that is told of
//! an address; to follow it along every edge of an interpreter's dispatch costs most of the time.

use crate::machine::flow::Flow;
use std::collections::BTreeSet;

/// General registers, by the processor's number.
pub(super) type Mask = u16;

/// Registers that a step reads before it overwrites others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Touched {
    pub(super) reads: Mask,
    /// Overwritten whole on every path through the step.
    pub(super) writes: Mask,
}

/// The registers that matter at the start of each block.
pub(super) fn at_blocks(flow: &Flow, touched: &[Touched]) -> Vec<Mask> {
    let mut before: Vec<Mask> = vec![0; flow.blocks.len()];
    let mut queue: BTreeSet<usize> = (0..flow.blocks.len()).collect();
    while let Some(id) = queue.pop_last() {
        let block = &flow.blocks[id];
        let behind = block.successors.iter().fold(0, |mask, next| mask | before[next.0]);
        let alive = touched[block.steps.clone()]
            .iter()
            .rev()
            .fold(behind, |mask, step| mask & !step.writes | step.reads);
        if alive != before[id] {
            before[id] = alive;
            queue.extend(block.predecessors.iter().map(|p| p.0));
        }
    }
    before
}
