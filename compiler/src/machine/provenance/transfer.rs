//! What one instruction does with addresses.

use super::alive::Touched;
use super::state::{State, Values};
use super::{Clobbers, Facts, Origin, Uses, Value, Walk};
use crate::code::decode;
use crate::machine::calls::{Callee, callee};
use crate::machine::convention::{callee_prototype, is_odd};
use crate::machine::effects::{Access, Effects};
use crate::machine::flow::End;
use crate::machine::frame::{Place, RSP};
use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic, OpAccess, OpKind, Register};
use std::rc::Rc;

/// Registers of integer arguments (psABI 3.2.3): rdi, rsi, rdx, rcx, r8, r9.
const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];
/// Registers that a callee need not keep, but for rax (psABI 3.2.1): rcx, rdx, rsi, rdi, r8 to r11.
const CLOBBERED: [usize; 8] = [1, 2, 6, 7, 8, 9, 10, 11];
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;

impl Facts {
    pub(super) fn touched(&self) -> Touched {
        let mask = |bytes: &[u8; 16], is: fn(u8) -> bool| {
            bytes.iter().rev().fold(0, |mask, b| mask << 1 | u16::from(is(*b)))
        };
        let result = u16::from(self.call.is_some()) << RAX;
        Touched {
            reads: mask(&self.effects.reads.general, |b| b != 0) | self.leaving,
            writes: mask(&self.effects.writes.general, |b| b == 0xff) | result,
        }
    }
}

impl Walk<'_> {
    pub(super) fn takes_frame_address(&self, index: usize) -> bool {
        let i = &self.flow.body.steps[index].instruction;
        i.mnemonic() == Mnemonic::Lea
            && i.op0_register().full_register() != Register::RSP
            && (i.memory_base() == Register::RSP
                || number(i.memory_base())
                    .is_some_and(|n| self.frame.addresses(index)[n].is_some()))
    }

    /// Follows one step.
    pub(super) fn step(&mut self, index: usize, state: &mut State) {
        let i = self.flow.body.steps[index].instruction;
        let facts = Rc::clone(&self.facts);
        let Facts { effects, .. } = &facts[index];
        for access in &effects.memory {
            if access.reads || access.changes {
                self.access(index, access, state, &i);
            }
        }
        match i.mnemonic() {
            Mnemonic::Lea => self.lea(index, &i, state),
            Mnemonic::Mov => {
                let values = self.operand(index, &i, 1, state);
                self.write(index, &i, 0, values, effects, state);
            }
            Mnemonic::Movsxd | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Cdqe => {
                self.extend(index, &i, effects, state);
            }
            Mnemonic::Add | Mnemonic::Sub => self.arithmetic(index, &i, effects, state),
            Mnemonic::Inc | Mnemonic::Dec => {
                let by = if i.mnemonic() == Mnemonic::Inc { 1 } else { -1 };
                let values = self.operand(index, &i, 0, state);
                let values = self.sum(&values, &Values::one(Value::Number(by, false)), 1);
                self.write(index, &i, 0, values, effects, state);
            }
            Mnemonic::Neg => {
                let values = self.operand(index, &i, 0, state);
                self.escape(&values);
                let negated = values.iter().map(|v| match v {
                    Value::Number(n, moved) => Value::Number(n.wrapping_neg(), moved),
                    _ => Value::Down,
                });
                self.write(index, &i, 0, negated.collect(), effects, state);
            }
            Mnemonic::Not => {
                let values = self.operand(index, &i, 0, state);
                self.escape(&values);
                self.write(index, &i, 0, Values::one(Value::Down), effects, state);
            }
            Mnemonic::Cmp => {
                let (a, b) = (self.operand(index, &i, 0, state), self.operand(index, &i, 1, state));
                self.meet(&a, &b, true);
            }
            Mnemonic::Test => {}
            Mnemonic::Xor if is_same(&i) => {
                let zero = Values::one(Value::Number(0, false));
                self.write(index, &i, 0, zero, effects, state);
            }
            Mnemonic::Xchg
                if i.op0_kind() == OpKind::Register && i.op1_kind() == OpKind::Register =>
            {
                let (a, b) = (self.operand(index, &i, 0, state), self.operand(index, &i, 1, state));
                self.write(index, &i, 0, b, effects, state);
                self.write(index, &i, 1, a, effects, state);
            }
            _ if is_conditional_move(&i) => {
                let mut values = self.operand(index, &i, 0, state);
                values.extend(&self.operand(index, &i, 1, state));
                self.write(index, &i, 0, values, effects, state);
            }
            _ => self.anything(index, &i, effects, state),
        }
        self.leave(&facts[index], state);
    }

    /// Calls, jumps out and returns.
    fn leave(&mut self, facts: &Facts, state: &mut State) {
        for (n, values) in state.registers.iter().enumerate() {
            if facts.leaving >> n & 1 == 1 {
                self.escape(values);
            }
        }
        let Some(clobbers) = facts.call else { return };
        state.registers[RAX] = Values::other();
        state.registers[RDX].insert(Value::Other);
        if clobbers == Clobbers::All {
            for register in CLOBBERED {
                state.registers[register] = Values::other();
            }
        }
    }

    /// What is known of a step before anything is followed.
    pub(super) fn facts_of(&mut self, index: usize) -> Facts {
        let i = &self.flow.body.steps[index].instruction;
        let block = self.flow.block(index);
        let out = |end: End| matches!(end, End::TailCall | End::BranchOut | End::Unresolved);
        let leaves = index + 1 == block.steps.end && out(block.end);
        let call = matches!(i.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
        let mask = |registers: &[usize]| registers.iter().fold(0, |mask, n| mask | 1 << n);
        let mut leaving = 0;
        if i.mnemonic() == Mnemonic::Syscall {
            // The kernel takes the fourth argument in r10 (psABI A.2.1).
            leaving |= mask(&ARGUMENTS) | mask(&[10]);
        }
        if call || leaves {
            leaving |= mask(&self.arguments(index));
        }
        if i.flow_control() == FlowControl::Return {
            leaving |= mask(&[RAX, RDX][..usize::from(self.results).min(2)]);
        }
        let all = call && self.clobbers_all(index);
        Facts {
            effects: Effects::of(i),
            leaving,
            call: call.then_some(if all { Clobbers::All } else { Clobbers::Some }),
        }
    }

    /// Whether nothing that a call may change survives it: a callee that no compiler sees, or one that
    /// calls such a one. Of the others gcc may know what they leave alone (`-fipa-ra`).
    fn clobbers_all(&mut self, index: usize) -> bool {
        let to = callee(self.image, &self.flow.body.steps[index]);
        let image = self.image;
        match to {
            Callee::Import(_) | Callee::Unknown => true,
            Callee::Inside(_) => false,
            Callee::Function(_) if is_odd(image, &to) => false,
            Callee::Function(id) => *self.clobbering.entry(id).or_insert_with(|| {
                let body = decode(image, image.function(id));
                body.opaque.is_none()
                    && body.steps.iter().any(|s| {
                        let i = &s.instruction;
                        let calls = i.is_call_near() || i.is_call_near_indirect();
                        calls && matches!(callee(image, s), Callee::Import(_) | Callee::Unknown)
                    })
            }),
        }
    }

    /// Registers that a call or a jump out of the function may read.
    fn arguments(&self, index: usize) -> Vec<usize> {
        let callee = callee(self.image, &self.flow.body.steps[index]);
        if is_odd(self.image, &callee) {
            return (0..16).filter(|n| *n != RSP).collect();
        }
        let fixed = callee_prototype(self.image, &callee).filter(|p| !p.variadic);
        let count = fixed.map_or(ARGUMENTS.len(), |p| p.integer.into());
        ARGUMENTS.into_iter().take(count).collect()
    }

    fn uses(&mut self, origin: usize) -> &mut Uses {
        let Origin { uses, .. } = &mut self.origins[origin];
        uses
    }

    fn escape(&mut self, values: &Values) {
        for value in values {
            match value {
                Value::At(origin, ..) | Value::Around(origin) => self.uses(origin).escapes = true,
                Value::Read(origin) => self.uses(origin).content_escapes = true,
                Value::Other | Value::Down | Value::Number(..) => {}
            }
        }
    }

    fn meet(&mut self, a: &Values, b: &Values, compared: bool) {
        for (these, those) in [(a, b), (b, a)] {
            for x in these {
                let Some(origin) = x.origin() else { continue };
                for y in those {
                    let uses = self.uses(origin);
                    match y.origin() {
                        Some(to) if !compared => {
                            uses.subtracted.insert(to);
                        }
                        Some(to) if x.is_moved() || y.is_moved() => {
                            uses.compared.insert(to);
                        }
                        Some(to) => {
                            uses.compared_still.insert(to);
                        }
                        None if matches!(y, Value::Number(..)) => {}
                        None => uses.compared_unknown = true,
                    }
                }
            }
        }
    }

    /// The values of `a + b * scale`.
    fn sum(&mut self, a: &Values, b: &Values, scale: i64) -> Values {
        let mut out = Values::default();
        for x in a {
            for y in b {
                let scaled = |n: i64| n.wrapping_mul(scale);
                let value = match (x, y) {
                    (Value::At(o, at, _), Value::Number(n, _)) => {
                        Value::At(o, at.wrapping_add(scaled(n)), true)
                    }
                    (Value::Number(n, _), Value::At(o, at, _)) if scale == 1 => {
                        Value::At(o, at.wrapping_add(n), true)
                    }
                    (Value::Number(n, _), Value::Number(m, _)) => {
                        Value::Number(n.wrapping_add(scaled(m)), true)
                    }
                    (x, y) => {
                        for value in [x, y] {
                            if let Value::Read(origin) = value {
                                self.uses(origin).content_escapes = true;
                            }
                        }
                        let down = scale < 0
                            || [x, y].iter().any(|v| match v {
                                Value::Down => true,
                                Value::Number(n, _) => *n < 0,
                                _ => false,
                            });
                        for origin in [x, y].into_iter().filter_map(Value::origin) {
                            self.uses(origin).moved = true;
                            self.uses(origin).down |= down;
                            out.insert(Value::Around(origin));
                        }
                        if x.origin().or(y.origin()).is_some() {
                            continue;
                        }
                        if down { Value::Down } else { Value::Other }
                    }
                };
                if let Value::At(origin, at, true) = value {
                    self.uses(origin).steps.insert(at);
                }
                out.insert(value);
            }
        }
        out
    }

    /// The values of an address as an access or a `lea` adds it up.
    fn address(&mut self, index: usize, a: &Access, state: &State, i: &Instruction) -> Values {
        let plain = |n: i64| Values::one(Value::Number(n, false));
        let constant = self.taken(index, false).filter(|_| {
            i.memory_displacement64().cast_signed() == a.displacement
                || i.is_ip_rel_memory_operand()
        });
        let mut out = match constant {
            Some(origin) => Values::one(Value::At(origin, 0, false)),
            None => plain(a.displacement),
        };
        if a.base != Register::None && a.base != Register::RIP {
            let base = self.register(a.base, state);
            out = if out == plain(0) { base } else { self.sum(&base, &out, 1) };
        }
        if a.index != Register::None {
            let index = self.register(a.index, state);
            out = self.sum(&out, &index, i64::from(a.scale));
        }
        out
    }

    fn access(&mut self, index: usize, a: &Access, state: &State, i: &Instruction) {
        for value in &self.address(index, a, state, i) {
            // Of a string as many bytes as a register says; its beginning in any case.
            let bytes = a.bytes.or(i.is_string_instruction().then_some(1));
            match (value, bytes) {
                (Value::At(origin, at, _), Some(bytes)) => {
                    self.uses(origin).exact.insert((at, bytes));
                }
                (Value::At(origin, ..) | Value::Around(origin), bytes) => {
                    self.uses(origin).indexed.insert(bytes.unwrap_or(0));
                }
                _ => {}
            }
        }
    }

    fn lea(&mut self, index: usize, i: &Instruction, state: &mut State) {
        let values = self.address(index, &Access::computed(i), state, i);
        if let Some(n) = number(i.op0_register()) {
            state.registers[n] = values;
        }
    }

    fn arithmetic(&mut self, index: usize, i: &Instruction, effects: &Effects, state: &mut State) {
        let (a, b) = (self.operand(index, i, 0, state), self.operand(index, i, 1, state));
        if i.mnemonic() == Mnemonic::Add {
            let values = self.sum(&a, &b, 1);
            return self.write(index, i, 0, values, effects, state);
        }
        // Less an address: a distance, which belongs to nobody.
        let (addresses, rest): (Values, Values) = b.iter().partition(|v| v.origin().is_some());
        self.meet(&a, &addresses, false);
        let mut values = self.sum(&a, &rest, -1);
        if !addresses.is_empty() || values.contains(Value::Other) {
            values.insert(Value::Down);
        }
        self.write(index, i, 0, values, effects, state);
    }

    fn extend(&mut self, index: usize, i: &Instruction, effects: &Effects, state: &mut State) {
        let cdqe = i.mnemonic() == Mnemonic::Cdqe;
        let values = match cdqe {
            true => state.registers[RAX].clone(),
            false => self.operand(index, i, 1, state),
        };
        let wide = cdqe
            || i.op_count() == 2 && i.op1_kind() == OpKind::Register && i.op1_register().is_gpr32();
        let extended: Values = values
            .iter()
            .map(|v| match v {
                Value::Number(n, moved) if wide && n == i64::from(truncate(n)) => {
                    Value::Number(n, moved)
                }
                Value::Down => Value::Down,
                _ => Value::Other,
            })
            .collect();
        self.escape(&values);
        if cdqe {
            state.registers[RAX] = extended;
        } else {
            self.write(index, i, 0, extended, effects, state);
        }
    }

    /// An instruction that nothing more is known of: addresses that it reads leave.
    fn anything(&mut self, index: usize, i: &Instruction, effects: &Effects, state: &mut State) {
        if i.flow_control() == FlowControl::IndirectBranch {
            // A label is used up by the jump to it: where that leads is not known here, and what all
            // blocks together do with the register is not what the label's own block does.
            if let Some(n) = number(i.op0_register()).filter(|_| i.op0_kind() == OpKind::Register) {
                state.registers[n] = Values::other();
            }
            return;
        }
        let mut factory = iced_x86::InstructionInfoFactory::new();
        let info = factory.info(i);
        let only_address = |r: Register| {
            let of_memory = info
                .used_memory()
                .iter()
                .any(|m| m.base().full_register() == r || m.index().full_register() == r);
            let of_operand = (0..i.op_count())
                .any(|o| i.op_kind(o) == OpKind::Register && i.op_register(o).full_register() == r);
            of_memory && !of_operand
        };
        for used in info.used_registers() {
            let reads = !matches!(
                used.access(),
                OpAccess::None | OpAccess::Write | OpAccess::CondWrite | OpAccess::NoMemAccess
            );
            let Some(n) = number(used.register()).filter(|n| *n != RSP) else { continue };
            if reads && !only_address(used.register().full_register()) {
                self.escape(&state.registers[n].clone());
            }
        }
        for (n, changed) in effects.changes.general.iter().enumerate() {
            if *changed == 0 || n == RSP {
                continue;
            }
            // `rep movs` and their like go on from where they were.
            let values: Values = state.registers[n]
                .iter()
                .map(|v| match (v.origin(), i.is_string_instruction() && n != RCX) {
                    (Some(origin), true) => Value::Around(origin),
                    // Shifts and products of what was counted down.
                    _ if v == Value::Down => Value::Down,
                    _ => Value::Other,
                })
                .collect();
            state.registers[n] = values;
        }
        self.forget(index, effects, state);
    }

    /// The origin of an operand of a step.
    fn taken(&self, index: usize, immediate: bool) -> Option<usize> {
        let origins = self.by_step.get(&index)?;
        origins.iter().find(|(i, _)| *i == immediate).map(|(_, origin)| *origin)
    }

    fn register(&self, register: Register, state: &State) -> Values {
        number(register).map_or_else(Values::other, |n| state.registers[n].clone())
    }

    /// The values of an operand.
    fn operand(&mut self, index: usize, i: &Instruction, operand: u32, state: &State) -> Values {
        match i.op_kind(operand) {
            OpKind::Register => {
                let register = i.op_register(operand);
                if register.is_gpr64() || register.is_gpr32() {
                    return self.register(register, state);
                }
                let values = self.register(register, state);
                self.escape(&values);
                Values::other()
            }
            OpKind::Memory => match self.slot(index) {
                Some(at) => state.slot(at),
                None => self.content(index, i, state),
            },
            _ => match (self.taken(index, true), i.try_immediate(operand)) {
                (Some(origin), _) => Values::one(Value::At(origin, 0, false)),
                (None, Ok(n)) => Values::one(Value::Number(n.cast_signed(), false)),
                (None, Err(_)) => Values::other(),
            },
        }
    }

    /// What an instruction reads from memory.
    fn content(&mut self, index: usize, i: &Instruction, state: &State) -> Values {
        let facts = Rc::clone(&self.facts);
        let effects = &facts[index].effects;
        let mut out = Values::other();
        for access in effects.memory.iter().filter(|a| a.reads && a.bytes == Some(8)) {
            let at = self.address(index, access, state, i);
            out.extend(at.into_iter().filter_map(Value::origin).map(Value::Read));
        }
        out
    }

    /// The place in the frame of a whole word that an instruction accesses.
    fn slot(&self, index: usize) -> Option<i64> {
        let access = self.facts[index].effects.memory.iter().find(|a| a.reads || a.changes)?;
        match self.frame.place(index, access) {
            Place::Frame(range) if range.end - range.start == 8 => Some(range.start),
            _ => None,
        }
    }

    fn write(
        &mut self,
        index: usize,
        i: &Instruction,
        operand: u32,
        values: Values,
        effects: &Effects,
        state: &mut State,
    ) {
        if i.op_kind(operand) == OpKind::Register {
            let register = i.op_register(operand);
            let Some(n) = number(register) else { return self.escape(&values) };
            if register.is_gpr64() || register.is_gpr32() {
                state.registers[n] = values;
            } else {
                self.escape(&values);
                state.registers[n] = Values::other();
            }
            return;
        }
        let slot = self.slot(index);
        self.forget(index, effects, state);
        match slot {
            Some(at) => {
                if self.frame_is_read {
                    self.escape(&values);
                }
                state.put(at, values);
            }
            None => self.escape(&values),
        }
    }

    /// Places of the frame that may have been overwritten hold other things.
    fn forget(&self, index: usize, effects: &Effects, state: &mut State) {
        for access in effects.memory.iter().filter(|a| a.changes) {
            match self.frame.place(index, access) {
                Place::Frame(range) => state.overwrite(&range),
                Place::Indexed(_) => state.blur(),
                Place::Elsewhere => {}
            }
        }
    }
}

/// A general register's number, whatever part of it is named.
fn number(register: Register) -> Option<usize> {
    let full = register.full_register();
    full.is_gpr64().then(|| full.number())
}

/// The lower half as a signed number.
fn truncate(n: i64) -> i32 {
    let [a, b, c, d, ..] = n.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// CMOVcc is the only one of two operands that has a condition (SDM volume 2, appendix B.1.4.7).
fn is_conditional_move(i: &Instruction) -> bool {
    i.condition_code() != ConditionCode::None && i.op_count() == 2
}

fn is_same(i: &Instruction) -> bool {
    i.op0_kind() == OpKind::Register
        && i.op1_kind() == OpKind::Register
        && i.op0_register() == i.op1_register()
}
