//! One instruction, symbolically: what it does to registers, flags, private slots and memory.
//!
//! Moves, spills and reloads carry values and are no operations; sums are linear; everything else
//! that is a pure function of its operands becomes an operation on them (SDM volume 2). What is not
//! understood gives values of its own, which are equal to nothing in the other body.

mod conditions;
mod generic;
mod operands;

pub use conditions::{EQUAL, apart, asked, condition, decided, zero};

use super::point::PointId;
use super::state::{Machine, memory};
use super::value::{Node, Operation, Place, Side, Value, Values};
use super::{strings, vector};
use crate::code::Step;
use crate::image::Image;
use iced_x86::{
    ConditionCode, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register,
};
use std::ops::Range;

/// A part of the frame, as offsets from the CFA, and a number that both bodies know it by.
pub type Numbered = (Range<i64>, u32);

/// What one body's addresses mean, and which parts of its frame are private.
pub struct Context<'a> {
    /// Which body.
    pub side: Side,
    /// Its image.
    pub image: &'a Image,
    /// OLD's image, which addresses of OLD lie in whichever body names them.
    pub old: &'a Image,
    /// The address that an operand stands for, as a value: see [`super::addresses`].
    pub address: &'a dyn Fn(&mut Values, &Step, bool) -> Option<Value>,
    /// Objects whose address is taken, as offsets from the CFA.
    pub objects: &'a [Range<i64>],
    /// Those that are the same local in both bodies, with a number for each.
    pub locals: &'a [Numbered],
    /// Which of OLD's arguments on the stack one of this body is; `None`: it may be another one, or this
    /// body may have written there.
    pub incoming: &'a dyn Fn(Place) -> Option<Place>,
    /// Steps of lines that the other build does not have: their stores are taken as not made.
    pub added: &'a [bool],
    /// Some instruction of this body makes string instructions go downwards.
    pub backwards: bool,
    /// Objects of OLD, by address, that get NEW's content at the commit: what OLD has read there NEW
    /// has not.
    pub overwritten: &'a [Range<u64>],
    /// Variables of this body's image, by address, that nothing of the other image can read: see
    /// [`super::forgotten`].
    pub forgotten: &'a [Range<u64>],
}

/// What is known of a call besides its callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// It is the same in both bodies: both get the same results.
    Matched {
        /// Both find the same memory behind it, too.
        settled: bool,
    },
    /// The other body does not have it here.
    Alone,
    /// Only NEW has it, and OLD nothing like it: inserted code, taken as not executed.
    Inserted,
}

/// Executes instructions of one body on its state.
pub struct Executor<'a, 'v> {
    pub(super) context: &'a Context<'a>,
    pub(super) values: &'v mut Values,
    pub(super) machine: Machine,
    /// Where names that are given here belong.
    pub(super) point: PointId,
    pub(super) step: u32,
    /// Whether a name was given: by its step, so that the step must not be executed again.
    pub(super) has_named: bool,
    /// So many slots were read that nothing was stored in.
    leftovers: u32,
    pub(super) factory: InstructionInfoFactory,
}

impl<'a, 'v> Executor<'a, 'v> {
    /// Begins at a state; names that are given belong to `point`.
    pub fn new(
        context: &'a Context<'a>,
        values: &'v mut Values,
        machine: Machine,
        point: PointId,
    ) -> Self {
        let factory = InstructionInfoFactory::new();
        Self { context, values, machine, point, step: 0, has_named: false, leftovers: 0, factory }
    }

    /// Executes one instruction, number `index` of its body. Branches and calls do nothing here
    /// but push: see [`Executor::call`].
    pub fn step(&mut self, index: usize, step: &Step) {
        self.step = u32::try_from(index).unwrap_or(u32::MAX);
        let i = &step.instruction;
        match i.flow_control() {
            FlowControl::Next => {}
            // It returns here, with a result in rax; rcx and r11 are the processor's (SDM volume 2, SYSCALL).
            _ if i.mnemonic() == Mnemonic::Syscall => {
                for number in [0, 1, 11] {
                    let value = self.unknown(Place::General(number));
                    self.machine.set_general(number, value);
                }
                let memory = self.unknown(Place::Memory);
                self.machine.set_memory(memory);
                return;
            }
            _ => return,
        }
        if vector::step(self, step)
            || strings::step(self, step)
            || self.arithmetic(step)
            || self.data_movement(step)
        {
            return;
        }
        self.generic(step);
    }

    /// Step `index` is a call: the registers that it does not keep (psABI 3.2.1), flags and memory have
    /// unknown values then. `kept` says which registers the callee is known to keep all the same.
    pub fn call(&mut self, index: usize, by: Call, kept: &dyn Fn(Place) -> bool) {
        const SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];
        let step = u32::try_from(index).unwrap_or(u32::MAX);
        let (point, side) = (self.point, self.context.side);
        // A matched call is one event of both bodies: its results and what it does to memory are.
        let given = |values: &mut Values, place| {
            let result =
                matches!(place, Place::General(0 | 2) | Place::Lane(0 | 1, _) | Place::Memory);
            let common = match by {
                Call::Matched { settled } => result && (settled || place != Place::Memory),
                _ => false,
            };
            let node = if common {
                Node::Given(point, None, 0, place)
            } else {
                Node::Given(point, Some(side), step, place)
            };
            values.intern(node)
        };
        for number in (0..16).filter(|n| *n != 4 && !SAVED.contains(n)) {
            let place = Place::General(number);
            if !kept(place) {
                let value = given(self.values, place);
                self.machine.set_general(number, value);
            }
        }
        for number in 0..16 {
            for lane in 0..4 {
                let place = Place::Lane(number, lane);
                if !kept(place) {
                    let value = given(self.values, place);
                    self.machine.set_lane(number, lane, value);
                }
            }
        }
        let flags = given(self.values, Place::Flags);
        self.machine.set_flags(flags);
        if by != Call::Inserted {
            let memory = given(self.values, Place::Memory);
            self.machine.set_memory(memory);
        }
        // The return address that the call pushed is gone, and with it all below.
        if let Some(top) = self.values.as_frame(self.machine.general(4)) {
            self.machine.forget_below(self.values, -top);
        }
    }

    /// The state after all of it.
    pub fn finish(self) -> Machine {
        self.machine
    }

    /// A name for something that nothing is known of.
    pub(super) fn unknown(&mut self, place: Place) -> Value {
        self.has_named = true;
        self.values.intern(Node::Given(self.point, Some(self.context.side), self.step, place))
    }

    fn data_movement(&mut self, step: &Step) -> bool {
        let i = &step.instruction;
        match i.mnemonic() {
            Mnemonic::Mov if is_plain(i) => {
                let value = self.operand(step, 1);
                self.set_operand(step, 0, value);
            }
            Mnemonic::Movzx => {
                let value = self.operand(step, 1);
                self.set_operand(step, 0, value);
            }
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let bytes = self.operand_size(i, 1);
                let value = self.operand(step, 1);
                let value = self.values.signed(bytes, value);
                self.set_operand(step, 0, value);
            }
            Mnemonic::Lea => {
                let value = self.memory_address(step);
                self.set_operand(step, 0, value);
            }
            Mnemonic::Cdqe | Mnemonic::Cwde | Mnemonic::Cbw => {
                let (from, to) = match i.mnemonic() {
                    Mnemonic::Cdqe => (4, Register::RAX),
                    Mnemonic::Cwde => (2, Register::EAX),
                    _ => (1, Register::AX),
                };
                let value = self.machine.general(0);
                let value = self.values.signed(from, value);
                self.set_register(to, value);
            }
            Mnemonic::Push => {
                let value = match i.op_kind(0) {
                    OpKind::Register | OpKind::Memory => self.operand(step, 0),
                    _ => self.values.constant(i.immediate(0)),
                };
                let top = self.machine.general(4);
                let top = self.values.offset(top, 8u64.wrapping_neg());
                self.machine.set_general(4, top);
                self.store(top, value, 8);
            }
            Mnemonic::Pop => {
                let top = self.machine.general(4);
                let value = self.load(top, 8);
                let top = self.values.offset(top, 8);
                self.machine.set_general(4, top);
                self.set_operand(step, 0, value);
            }
            Mnemonic::Leave => {
                let frame = self.machine.general(5);
                let value = self.load(frame, 8);
                let top = self.values.offset(frame, 8);
                self.machine.set_general(4, top);
                self.machine.set_general(5, value);
            }
            // Memory is written while the register still is what its address may be made of.
            Mnemonic::Xchg if i.op_kind(1) == OpKind::Register => {
                let (a, b) = (self.operand(step, 0), self.operand(step, 1));
                self.set_operand(step, 0, b);
                self.set_operand(step, 1, a);
            }
            Mnemonic::Nop
            | Mnemonic::Endbr64
            | Mnemonic::Pause
            | Mnemonic::Prefetcht0
            | Mnemonic::Prefetcht1
            | Mnemonic::Prefetcht2
            | Mnemonic::Prefetchnta
            | Mnemonic::Prefetchw
            | Mnemonic::Vzeroupper => {
                if i.mnemonic() == Mnemonic::Vzeroupper {
                    self.zero_upper();
                }
            }
            _ => return false,
        }
        true
    }

    fn zero_upper(&mut self) {
        let zero = self.values.constant(0);
        for number in 0..16 {
            self.machine.set_lane(number, 2, zero);
            self.machine.set_lane(number, 3, zero);
        }
    }

    fn arithmetic(&mut self, step: &Step) -> bool {
        let i = &step.instruction;
        if i.op_count() == 0 || i.has_lock_prefix() && i.mnemonic() == Mnemonic::Cmpxchg {
            return false;
        }
        let bytes = match i.op_kind(0) {
            OpKind::Register if !i.op_register(0).is_gpr() => return false,
            OpKind::Register | OpKind::Memory => self.operand_size(i, 0),
            _ => return false,
        };
        match i.mnemonic() {
            Mnemonic::Add | Mnemonic::Sub | Mnemonic::And | Mnemonic::Or | Mnemonic::Xor => {
                self.two_operands(step, bytes);
            }
            Mnemonic::Cmp | Mnemonic::Test => {
                let (a, b) = (self.operand(step, 0), self.operand(step, 1));
                let flags = if i.mnemonic() == Mnemonic::Cmp {
                    self.compare(bytes, a, b)
                } else {
                    let both = self.values.bitwise(Operation::And, a, b);
                    self.logic(bytes, both)
                };
                self.machine.set_flags(flags);
            }
            Mnemonic::Inc | Mnemonic::Dec | Mnemonic::Neg => {
                let a = self.operand(step, 0);
                let (factor, k) = match i.mnemonic() {
                    Mnemonic::Inc => (1, 1),
                    Mnemonic::Dec => (1, u64::MAX),
                    _ => (u64::MAX, 0),
                };
                let result = self.values.linear(&[(a, factor)], k);
                let before = self.machine.flags();
                self.set_result_flags(i, bytes, result, &[a, before]);
                self.set_operand(step, 0, result);
            }
            Mnemonic::Not => {
                let a = self.operand(step, 0);
                let result = self.values.linear(&[(a, u64::MAX)], u64::MAX);
                self.set_operand(step, 0, result);
            }
            Mnemonic::Imul if i.op_count() >= 2 => {
                let first = if i.op_count() == 3 { 1 } else { 0 };
                let (a, b) = (self.operand(step, first), self.operand(step, first + 1));
                let result = self.values.multiply(a, b);
                self.set_result_flags(i, bytes, result, &[a, b]);
                self.set_operand(step, 0, result);
            }
            Mnemonic::Sbb
                if i.op_kind(1) == OpKind::Register && i.op_register(0) == i.op_register(1) =>
            {
                // Minus the carry flag, whatever the register held.
                let before = self.machine.flags();
                let (carry, negated) = self.condition(ConditionCode::b, before);
                let result = if negated {
                    self.values.offset(carry, u64::MAX)
                } else {
                    self.values.linear(&[(carry, u64::MAX)], 0)
                };
                self.set_result_flags(i, bytes, result, &[before]);
                self.set_operand(step, 0, result);
            }
            Mnemonic::Shl | Mnemonic::Shr | Mnemonic::Sar => self.shift(step, bytes),
            Mnemonic::Bswap => return self.swapped(step, bytes),
            _ if i.condition_code() != ConditionCode::None => self.conditional(step),
            _ => return false,
        }
        true
    }

    fn two_operands(&mut self, step: &Step, bytes: u8) {
        let i = &step.instruction;
        let (a, b) = (self.operand(step, 0), self.operand(step, 1));
        let result = match i.mnemonic() {
            Mnemonic::Add => self.values.add(a, b),
            Mnemonic::Sub => self.values.subtract(a, b),
            Mnemonic::And => self.values.bitwise(Operation::And, a, b),
            Mnemonic::Or => self.values.bitwise(Operation::Or, a, b),
            _ => self.values.bitwise(Operation::Xor, a, b),
        };
        match i.mnemonic() {
            Mnemonic::Sub => {
                let flags = self.compare(bytes, a, b);
                self.machine.set_flags(flags);
            }
            Mnemonic::Add => self.set_result_flags(i, bytes, result, &[a, b]),
            _ => {
                let flags = self.logic(bytes, result);
                self.machine.set_flags(flags);
            }
        }
        // The address must be that of before the result is written: `add rax, [rax]` has none.
        self.set_operand(step, 0, result);
    }

    fn shift(&mut self, step: &Step, bytes: u8) {
        let i = &step.instruction;
        let (a, count) = (self.operand(step, 0), self.operand(step, 1));
        let limit = super::value::shift_limit(bytes);
        let known = self.values.as_constant(count).map(|k| k & limit);
        let (op, result) = match (i.mnemonic(), known) {
            (_, Some(0)) => return,
            (Mnemonic::Shl, Some(k)) => (None, self.values.linear(&[(a, 1 << k)], 0)),
            (Mnemonic::Shl, None) => (Some(Operation::ShiftLeft(bytes)), a),
            (Mnemonic::Shr, _) => (Some(Operation::ShiftRight(bytes)), a),
            _ => (Some(Operation::ShiftArithmetic(bytes)), a),
        };
        let count = match known {
            Some(k) => self.values.constant(k),
            None => self.values.low(1, count),
        };
        let result = match op {
            Some(op) => {
                let raw = self.values.operation(op, &[a, count]);
                self.values.low(bytes, raw)
            }
            None => result,
        };
        let before = self.machine.flags();
        self.set_result_flags(i, bytes, result, &[a, count, before]);
        self.set_operand(step, 0, result);
    }

    /// The bytes of what is read from memory in the other order are as many reads of one byte each.
    fn swapped(&mut self, step: &Step, bytes: u8) -> bool {
        let a = self.operand(step, 0);
        let Node::Load(memory, address, size) = *self.values.node(a) else { return false };
        if size != bytes || !matches!(bytes, 4 | 8) {
            return false;
        }
        let mut parts = Vec::new();
        for byte in 0..bytes {
            let at = self.values.offset(address, byte.into());
            let one = memory::load(self.values, memory, at, 1);
            parts.push((one, 1 << (8 * (bytes - 1 - byte))));
        }
        let sum = self.values.linear(&parts, 0);
        self.set_operand(step, 0, sum);
        true
    }

    /// Conditional moves and sets.
    fn conditional(&mut self, step: &Step) {
        let i = &step.instruction;
        let flags = self.machine.flags();
        let (condition, negated) = self.condition(i.condition_code(), flags);
        if i.op_count() == 1 {
            let result = if negated {
                let one = self.values.constant(1);
                self.values.subtract(one, condition)
            } else {
                condition
            };
            self.set_operand(step, 0, result);
            return;
        }
        let (kept, moved) = (self.operand(step, 0), self.operand(step, 1));
        let (yes, no) = if negated { (kept, moved) } else { (moved, kept) };
        let result = if yes == no {
            yes
        } else {
            self.values.operation(Operation::Select, &[condition, yes, no])
        };
        self.set_operand(step, 0, result);
    }

    /// Flags of `a - b`.
    pub(super) fn compare(&mut self, bytes: u8, a: Value, b: Value) -> Value {
        let (a, b) = (self.values.low(bytes, a), self.values.low(bytes, b));
        if self.values.as_constant(b) == Some(0) {
            return self.logic(bytes, a);
        }
        self.values.operation(Operation::Compare(bytes), &[a, b])
    }

    fn logic(&mut self, bytes: u8, result: Value) -> Value {
        let result = self.values.low(bytes, result);
        self.values.operation(Operation::Logic(bytes), &[result])
    }

    /// Flags of an instruction whose zero and sign flag are those of its result.
    fn set_result_flags(&mut self, i: &Instruction, bytes: u8, result: Value, inputs: &[Value]) {
        let result = self.values.low(bytes, result);
        let immediate = u64::from(bytes) | 0x100;
        let operation =
            Operation::Instruction { code: i.code() as u16, immediate, output: u8::MAX };
        let operands: Vec<Value> = std::iter::once(result).chain(inputs.iter().copied()).collect();
        let flags = self.values.operation(operation, &operands);
        self.machine.set_flags(flags);
    }

    /// A condition on flags as a value that is 0 or 1, and whether it must be negated.
    pub fn condition(&mut self, code: ConditionCode, flags: Value) -> (Value, bool) {
        condition(self.values, code, flags)
    }
}

/// Not to or from segment, control or debug registers.
fn is_plain(i: &Instruction) -> bool {
    (0..i.op_count()).all(|n| i.op_kind(n) != OpKind::Register || i.op_register(n).is_gpr())
}

/// The processor's number of a general register.
pub fn number(register: Register) -> u8 {
    u8::try_from(register.full_register().number()).unwrap_or(0)
}

fn is_high(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

fn size_of(register: Register) -> u8 {
    u8::try_from(register.size()).unwrap_or(8)
}
