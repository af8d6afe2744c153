//! Calls that do not come back because of the numbers that they are given.
//!
//! A function may return or end the process by what its arguments say: `stop(0)` never comes back though
//! `stop(1)` does. What compilers put behind such a call belongs to other paths, and NEW never reads what is
//! read there. Takes a call and the numbers in the registers of its arguments; runs the callee for them step
//! by step, with nothing known but numbers in registers, and says whether any path comes to a return.
//!
//! Whatever is not understood comes back.

use super::calls::{ARGUMENTS, Callee, Calls, SAVED};
use super::code::{Code, Step, branch_target};
use crate::image::FunctionId;
use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic, OpAccess, OpKind};
use std::collections::BTreeMap;

/// Calls within calls that are looked into.
const DEPTH: usize = 4;
/// Instructions of the longest callee that is.
const LONGEST: usize = 4000;

/// The numbers that the argument registers hold, in their order.
pub(super) type Given = [Option<u64>; ARGUMENTS.len()];

/// What is known before one instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Numbers {
    general: [Option<u64>; 16],
    /// Two numbers that the flags compare.
    compared: Option<(u64, u64)>,
}

impl Calls<'_> {
    /// Whether a call with these numbers may come back.
    pub(super) fn comes_back(&self, callee: &Callee, given: &Given) -> bool {
        self.comes_back_within(callee, given, DEPTH)
    }

    fn comes_back_within(&self, callee: &Callee, given: &Given, depth: usize) -> bool {
        let Callee::Function(id) = callee else { return self.returns(callee) };
        if !self.returns(callee) {
            return false;
        }
        if depth == 0 {
            return true;
        }
        let key = (*id, *given, depth);
        if let Some(known) = super::calls::lock(&self.given).get(&key) {
            return *known;
        }
        let found = Run::new(self, *id).comes_back(given, depth - 1);
        super::calls::lock(&self.given).insert(key, found);
        found
    }
}

/// One callee.
struct Run<'a> {
    calls: &'a Calls<'a>,
    code: Code,
}

impl<'a> Run<'a> {
    fn new(calls: &'a Calls<'a>, id: FunctionId) -> Self {
        Self { calls, code: Code::new(calls.image, id) }
    }

    fn comes_back(&self, given: &Given, depth: usize) -> bool {
        if self.code.damaged.is_some() || self.code.steps.len() > LONGEST {
            return true;
        }
        let mut first = Numbers { general: [None; 16], compared: None };
        for (register, number) in ARGUMENTS.iter().zip(given) {
            first.general[usize::from(*register)] = *number;
        }
        let mut before = BTreeMap::from([(0, first)]);
        let mut open = vec![0];
        while let Some(index) = open.pop() {
            let Some(step) = self.code.steps.get(index) else { return true };
            let Some(ways) = self.ways(index, step, &before[&index], depth) else { return true };
            for (to, arriving) in ways {
                let known = before.get(&to).map_or(arriving, |known| known.meet(&arriving));
                if before.insert(to, known) != Some(known) {
                    open.push(to);
                }
            }
        }
        false
    }

    /// The instructions that come next, with what is known there; `None` where the function may be left for its
    /// caller.
    fn ways(
        &self,
        index: usize,
        step: &Step,
        numbers: &Numbers,
        depth: usize,
    ) -> Option<Vec<(usize, Numbers)>> {
        let i = &step.instruction;
        let after = numbers.after(step);
        let goes_on = |numbers| self.code.next(index).map(|next| (next, numbers));
        match i.flow_control() {
            FlowControl::Next | FlowControl::Interrupt => Some(vec![goes_on(after)?]),
            FlowControl::Exception => Some(Vec::new()),
            FlowControl::UnconditionalBranch => {
                Some(self.jump(i, numbers, depth)?.into_iter().collect())
            }
            FlowControl::ConditionalBranch => {
                let taken = numbers.takes(i.condition_code());
                let mut ways = Vec::new();
                if taken != Some(false) {
                    ways.extend(self.jump(i, numbers, depth)?);
                }
                if taken != Some(true) {
                    ways.push(goes_on(*numbers)?);
                }
                Some(ways)
            }
            FlowControl::Call | FlowControl::IndirectCall if i.mnemonic() == Mnemonic::Call => {
                let callee = self.calls.callee(i);
                match self.calls.comes_back_within(&callee, &numbers.given(), depth) {
                    true => Some(vec![goes_on(numbers.behind_call())?]),
                    false => Some(Vec::new()),
                }
            }
            _ => None,
        }
    }

    /// A jump inside the function, or for good to one that does not come back (no way at all).
    fn jump(
        &self,
        i: &Instruction,
        numbers: &Numbers,
        depth: usize,
    ) -> Option<Option<(usize, Numbers)>> {
        if let Some(to) = branch_target(i).and_then(|target| self.code.index(target)) {
            return Some(Some((to, *numbers)));
        }
        let callee = self.calls.callee(i);
        let comes_back = self.calls.comes_back_within(&callee, &numbers.given(), depth);
        (!comes_back).then_some(None)
    }
}

impl Numbers {
    fn given(&self) -> Given {
        ARGUMENTS.map(|register| self.general[usize::from(register)])
    }

    fn meet(&self, other: &Self) -> Self {
        let mut both = *self;
        for (a, b) in both.general.iter_mut().zip(&other.general) {
            if *a != *b {
                *a = None;
            }
        }
        if both.compared != other.compared {
            both.compared = None;
        }
        both
    }

    /// psABI 3.2.1: callees keep some registers.
    fn behind_call(&self) -> Self {
        let mut general = [None; 16];
        for register in SAVED.map(usize::from) {
            general[register] = self.general[register];
        }
        Self { general, compared: None }
    }

    fn after(&self, step: &Step) -> Self {
        let i = &step.instruction;
        let mut next = *self;
        for used in step.info.used_registers() {
            let is_read = matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            let register = used.register().full_register();
            if !is_read && register.is_gpr64() {
                next.general[register.number() & 15] = None;
            }
        }
        if i.rflags_modified() != 0 {
            next.compared = self.comparison(i);
        }
        if i.op0_kind() == OpKind::Register
            && let Some(number) = self.made(i)
        {
            next.general[i.op0_register().full_register().number() & 15] = Some(number);
        }
        next
    }

    /// The number that an instruction puts into a 64-bit register, or a 32-bit one, which clears what is above
    /// (SDM volume 1, 3.4.1.1).
    fn made(&self, i: &Instruction) -> Option<u64> {
        let register = i.op0_register();
        let size = register.size();
        if !register.is_gpr64() && !register.is_gpr32() {
            return None;
        }
        match i.mnemonic() {
            Mnemonic::Xor if i.op1_kind() == OpKind::Register && i.op1_register() == register => {
                Some(0)
            }
            Mnemonic::Mov => Some(cut(self.value(i, 1)?, size)),
            _ => None,
        }
    }

    fn comparison(&self, i: &Instruction) -> Option<(u64, u64)> {
        let size = match i.op0_kind() {
            OpKind::Register => i.op0_register().size(),
            _ => return None,
        };
        let (a, b) = (self.value(i, 0)?, self.value(i, 1)?);
        match i.mnemonic() {
            Mnemonic::Cmp => Some((cut(a, size), cut(b, size))),
            Mnemonic::Test => Some((cut(a & b, size), 0)),
            _ => None,
        }
    }

    fn value(&self, i: &Instruction, operand: u32) -> Option<u64> {
        match i.op_kind(operand) {
            OpKind::Register => {
                let register = i.op_register(operand);
                let is_whole = register.is_gpr64() || register.is_gpr32();
                is_whole.then(|| self.general[register.full_register().number() & 15]).flatten()
            }
            OpKind::Immediate8
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64 => Some(i.immediate(operand)),
            _ => None,
        }
    }

    /// Whether a condition holds of what was compared, as far as equality and order without a sign tell.
    fn takes(&self, condition: ConditionCode) -> Option<bool> {
        let (a, b) = self.compared?;
        match condition {
            ConditionCode::e => Some(a == b),
            ConditionCode::ne => Some(a != b),
            ConditionCode::a => Some(a > b),
            ConditionCode::ae => Some(a >= b),
            ConditionCode::b => Some(a < b),
            ConditionCode::be => Some(a <= b),
            _ => None,
        }
    }
}

fn cut(value: u64, bytes: usize) -> u64 {
    if bytes == 4 { value & u64::from(u32::MAX) } else { value }
}
