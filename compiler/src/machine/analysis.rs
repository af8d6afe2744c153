//! All that is known of one function's code: its graph, its frame, what is live where, and which parts
//! of the frame others may know the address of.

use super::calls::callee;
use super::clobbers::Clobbers;
use super::convention::{self, Convention};
use super::effects::Effects;
use super::flow::{Block, End, Flow};
use super::frame::{Frame, Place, Unknown};
use super::live::{Live, StackObject};
use super::returning::Returning;
use super::transfer::Transfers;
use super::{dataflow, objects};
use crate::debug::{Language, Locals, Parameters};
use crate::image::{Function, FunctionId, Image};
use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register};
use std::ops::Range;

/// One function, analysed.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// Its graph.
    pub flow: Flow,
    /// Where its frame is.
    pub frame: Frame,
    /// What may be read before it is written, before each step.
    pub live: Vec<Live>,
    /// Objects of its frame whose address is taken, by place.
    pub objects: Vec<StackObject>,
    /// Why none of this may be relied on.
    pub problem: Option<String>,
    /// It may leave arguments of its own on the stack to whom it jumps to.
    lends_arguments: bool,
}

impl Analysis {
    /// Analyses a function: its index, and itself, perhaps with more parts than the image gives it. `locals` may be empty; objects without a name are then larger. `clobbers`
    /// are those of the image. With `returning`, what is behind calls that never come back is not live before them.
    #[must_use]
    pub fn new(
        image: &Image,
        (id, function): (FunctionId, &Function),
        locals: &Locals,
        clobbers: &Clobbers,
        returning: Option<&Returning<'_>>,
    ) -> Self {
        let flow = Flow::new(image, function);
        let frame = Frame::new(image, &flow);
        let instructions = || flow.body.steps.iter().map(|s| &s.instruction);
        let effects = instructions().map(Effects::of).collect();
        let widest = instructions().map(widest).max().unwrap_or(16);
        let language = image.unit_of(function).map(|unit| unit.language);
        let plain = matches!(language, Some(Language::C | Language::Cpp));
        let convention = Convention { image, clobbers, widest, plain };
        let trimmed = returning.map(|returning| returning.trimmed(&flow));
        let followed = trimmed.as_ref().unwrap_or(&flow);
        let transfers = Transfers::new(convention, id, followed, &frame, effects);
        let objects = objects::find(&transfers, &dataflow::run(&transfers), locals);
        let extents: Vec<Range<i64>> = objects.iter().map(|o| o.extent.clone()).collect();
        let mut transfers = transfers.by_the_byte();
        transfers.tell_pushes(&extents);
        let live = dataflow::run(&transfers);
        let told = |(step, set)| dataflow::told(&transfers, step, set, &extents);
        let live = live.iter().enumerate().map(told).collect();
        let problem = flow.problem.clone().or_else(|| contradiction(&flow, &frame));
        let lends_arguments = lends_arguments(image, id, &flow);
        Self { live, objects, problem, lends_arguments, flow, frame }
    }
}

impl Analysis {
    /// Whether the function may write to its own arguments on the stack by their place. (Those whose
    /// address it takes are objects.)
    #[must_use]
    pub fn overwrites_arguments(&self) -> bool {
        let mut infos = InstructionInfoFactory::new();
        let frame_pointer = self.flow.body.steps.iter().take(12).any(|step| {
            let i = &step.instruction;
            i.mnemonic() == Mnemonic::Mov
                && i.op0_register() == Register::RBP
                && i.op1_register() == Register::RSP
        });
        self.flow.body.steps.iter().enumerate().any(|(index, step)| {
            let info = infos.info(&step.instruction);
            let mut written = info
                .used_memory()
                .iter()
                .filter(|m| !matches!(m.access(), OpAccess::Read | OpAccess::CondRead));
            written.any(|m| {
                let below = match m.base() {
                    Register::RSP => self.frame.depth(index).map(u64::cast_signed),
                    // psABI 3.2.2: the caller's rbp is at CFA-16, and rbp points there.
                    Register::RBP if frame_pointer => Some(16),
                    _ => return false,
                };
                let bytes = i64::try_from(m.memory_size().size()).unwrap_or(i64::MAX);
                let end = m.displacement().cast_signed().saturating_add(bytes);
                below.is_none_or(|below| m.index() != Register::None || end > below)
            })
        })
    }
}

impl Analysis {
    /// The same function, whose frame is seen from a CFA that is `by` bytes higher than its own; `None` where its
    /// code, or whom it jumps to, may touch what is above its return address, or that: for then it matters what is
    /// there.
    #[must_use]
    pub fn lowered(&self, by: i64) -> Option<Self> {
        if self.touches_caller() {
            return None;
        }
        Some(self.clone().told_from(by))
    }

    /// The same, told from a CFA that is `by` bytes higher.
    pub(super) fn told_from(mut self, by: i64) -> Self {
        let lower =
            |range: &Range<i64>| range.start.saturating_sub(by)..range.end.saturating_sub(by);
        self.frame = self.frame.lowered(by);
        for live in &mut self.live {
            live.slots.iter_mut().for_each(|range| *range = lower(range));
        }
        self.objects.iter_mut().for_each(|object| object.extent = lower(&object.extent));
        self
    }

    /// Whether something other than a plain return may read or write from the return address up, or make an
    /// address of it.
    pub(super) fn touches_caller(&self) -> bool {
        let is_above = |end: i64| end > -8;
        let in_code = self.flow.body.steps.iter().enumerate().any(|(index, step)| {
            let effects = Effects::of(&step.instruction);
            step.instruction.code() != Code::Retnq
                && effects.memory.iter().any(|access| match self.frame.place(index, access) {
                    Place::Frame(bytes) => is_above(bytes.end),
                    Place::Indexed(at) => is_above(at),
                    Place::Elsewhere => false,
                })
        });
        in_code
            || self.lends_arguments
            || self.objects.iter().any(|object| is_above(object.extent.end))
    }
}

/// Whether some jump to another function may leave it arguments on the stack: they are where this function finds its
/// own (psABI 3.2.3), which it need not touch for that.
fn lends_arguments(image: &Image, id: FunctionId, flow: &Flow) -> bool {
    let some = |known: Option<Parameters>| known.is_none_or(|p| p.variadic || p.stack > 0);
    let is_left = |block: &&Block| matches!(block.end, End::TailCall | End::BranchOut);
    let mut jumps = flow.blocks.iter().filter(is_left);
    some(convention::prototype(image, id))
        && jumps.any(|block| {
            let to = callee(image, &flow.body.steps[block.steps.end - 1]);
            some(convention::callee_prototype(image, &to))
        })
}

/// Bytes of the widest vector register that an instruction names, at least 16.
fn widest(instruction: &Instruction) -> usize {
    let registers = (0..instruction.op_count()).map(|n| instruction.op_register(n));
    registers.filter(|r| r.is_vector_register()).map(iced_x86::Register::size).max().unwrap_or(16)
}

/// Where the unwind table and the code tell different stories, nothing that depends on the frame is
/// to be believed.
fn contradiction(flow: &Flow, frame: &Frame) -> Option<String> {
    let step = (0..flow.body.steps.len())
        .find(|step| frame.unknown(*step) == Some(Unknown::Contradiction))?;
    let address = flow.body.steps[step].address();
    Some(format!("the unwind table contradicts the code at {address:#x}"))
}
