//! A function's instructions and blocks, decoded for the checker alone.
//!
//! Takes an image and a function; gives every instruction, padding included, and where blocks begin.
//! What cannot be decoded is said, not skipped.

use crate::image::{FunctionId, Image};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfo, InstructionInfoFactory,
    OpKind,
};
use std::collections::BTreeSet;
use std::ops::Range;

/// One instruction with what it reads and writes.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) instruction: Instruction,
    pub(super) info: InstructionInfo,
}

/// The code of one function.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) steps: Vec<Step>,
    /// Main part, then cold ones, each with its range of `steps`.
    pub(super) parts: Vec<(Range<u64>, Range<usize>)>,
    /// Where no instruction could be decoded.
    pub(super) damaged: Option<u64>,
    /// Ranges of `steps`, ascending; the first is the entry.
    pub(super) blocks: Vec<Range<usize>>,
    /// The block of each step.
    pub(super) block_of: Vec<usize>,
    /// Addresses of what may be tables of jumps.
    pub(super) tables: BTreeSet<u64>,
}

impl Code {
    /// Decodes a function. Blocks begin at branch targets, at the given addresses (targets of jump
    /// tables, landing pads), behind branches and behind calls.
    pub(super) fn new(image: &Image, id: FunctionId) -> Self {
        let mut code = Self {
            steps: Vec::new(),
            parts: Vec::new(),
            damaged: None,
            blocks: Vec::new(),
            block_of: Vec::new(),
            tables: BTreeSet::new(),
        };
        let mut factory = InstructionInfoFactory::new();
        for part in image.function(id).parts() {
            let first = code.steps.len();
            let bytes = image.content(part.start, part.end.saturating_sub(part.start));
            if bytes.is_none() {
                code.damaged.get_or_insert(part.start);
            }
            let bytes = bytes.unwrap_or_default();
            let mut decoder = Decoder::with_ip(64, &bytes, part.start, DecoderOptions::NONE);
            while decoder.can_decode() {
                let instruction = decoder.decode();
                if instruction.is_invalid() {
                    code.damaged.get_or_insert(instruction.ip());
                    break;
                }
                let info = factory.info(&instruction).clone();
                code.steps.push(Step { instruction, info });
            }
            code.parts.push((part, first..code.steps.len()));
        }
        code
    }

    /// Cuts the code into blocks.
    pub(super) fn cut(&mut self, more: impl Iterator<Item = u64>) {
        let mut leaders: BTreeSet<usize> = more.filter_map(|a| self.index(a)).collect();
        leaders.extend(self.parts.iter().map(|(_, steps)| steps.start));
        for (index, step) in self.steps.iter().enumerate() {
            if let Some(target) = branch_target(&step.instruction) {
                leaders.extend(self.index(target));
            }
            if step.instruction.flow_control() != FlowControl::Next {
                leaders.insert(index + 1);
            }
        }
        leaders.remove(&self.steps.len());
        let starts: Vec<usize> = leaders.into_iter().collect();
        let ends = starts.iter().skip(1).copied().chain([self.steps.len()]);
        self.blocks = starts.iter().copied().zip(ends).map(|(s, e)| s..e).collect();
        self.blocks.retain(|b| !b.is_empty());
        self.block_of = vec![0; self.steps.len()];
        for (block, steps) in self.blocks.iter().enumerate() {
            self.block_of[steps.clone()].fill(block);
        }
    }

    /// The instruction that begins at an address.
    pub(super) fn index(&self, address: u64) -> Option<usize> {
        let (_, steps) = self.parts.iter().find(|(part, _)| part.contains(&address))?;
        let inside = self.steps.get(steps.clone())?;
        let found = inside.binary_search_by_key(&address, |s| s.instruction.ip()).ok()?;
        Some(steps.start + found)
    }

    /// The instruction behind another one, if it is in the same part.
    pub(super) fn next(&self, index: usize) -> Option<usize> {
        let (_, steps) = self.parts.iter().find(|(_, steps)| steps.contains(&index))?;
        Some(index + 1).filter(|n| *n < steps.end)
    }

    /// The instruction right before an address.
    pub(super) fn before(&self, address: u64) -> Option<&Step> {
        let found = self.steps.iter().find(|s| s.instruction.next_ip() == address);
        found.filter(|s| self.parts.iter().any(|(p, _)| p.contains(&s.instruction.ip())))
    }
}

/// Where a direct branch (no call) leads.
pub(super) fn branch_target(instruction: &Instruction) -> Option<u64> {
    let branch = matches!(
        instruction.flow_control(),
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
    );
    (branch && instruction.op0_kind() == OpKind::NearBranch64)
        .then(|| instruction.near_branch_target())
}
