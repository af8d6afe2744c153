//! One instruction, symbolically: what it does to registers, flags, private slots and memory.
//!
//! Moves, spills and reloads carry values and are no operations; sums are linear; everything else
//! that is a pure function of its operands becomes an operation on them (SDM volume 2). What is not
//! understood gives values of its own, which are equal to nothing in the other body.

use super::point::PointId;
use super::state::{LANES, Machine, VECTORS, memory};
use super::value::{Base, Node, Operation, Place, Side, Value, Values};
use super::{strings, vector};
use crate::code::Step;
use crate::image::{Image, SectionKind};
use iced_x86::{
    ConditionCode, FlowControl, Instruction, InstructionInfoFactory, MemorySize, Mnemonic,
    OpAccess, OpKind, Register,
};
use std::collections::BTreeSet;
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
        Self { context, values, machine, point, step: 0, has_named: false, factory }
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
            self.machine.forget_below(-top);
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

    // Operands.

    /// The address of the memory operand.
    pub(super) fn memory_address(&mut self, step: &Step) -> Value {
        let i = &step.instruction;
        let mut parts = Vec::new();
        let mut constant = 0;
        match (self.context.address)(self.values, step, false) {
            Some(named) => parts.push((named, 1)),
            None => constant = i.memory_displacement64(),
        }
        if i.memory_base() != Register::None && !i.is_ip_rel_memory_operand() {
            parts.push((self.register(i.memory_base()), 1));
        }
        if i.memory_index().is_vector_register() {
            // Gathers and scatters: as many addresses as lanes.
            let unknown = self.unknown(Place::Memory);
            parts.push((unknown, 1));
        } else if i.memory_index() != Register::None {
            parts.push((self.register(i.memory_index()), u64::from(i.memory_index_scale())));
        }
        if i.segment_prefix() == Register::FS {
            parts.push((self.values.intern(Node::Base(Base::Thread)), 1));
        } else if i.segment_prefix() == Register::GS {
            let unknown = self.unknown(Place::Memory);
            parts.push((unknown, 1));
        }
        self.values.linear(&parts, constant)
    }

    /// What a general register or a part of one holds, zero-extended.
    pub(super) fn register(&mut self, register: Register) -> Value {
        let full = self.machine.general(number(register));
        if is_high(register) {
            let eight = self.values.constant(8);
            let moved = self.values.operation(Operation::ShiftRight(8), &[full, eight]);
            return self.values.low(1, moved);
        }
        self.values.low(size_of(register), full)
    }

    /// Writes a general register or a part of one (SDM volume 1, 3.4.1.1: 32-bit results are
    /// zero-extended, narrower ones keep what is above).
    pub(super) fn set_register(&mut self, register: Register, value: Value) {
        let n = number(register);
        let before = self.machine.general(n);
        let value = match size_of(register) {
            8 => value,
            4 => self.values.low(4, value),
            _ if is_high(register) => {
                let operation = Operation::Instruction { code: u16::MAX, immediate: 0, output: 0 };
                self.values.operation(operation, &[before, value])
            }
            bytes => self.values.insert(bytes, before, value),
        };
        self.machine.set_general(n, value);
    }

    /// An operand of up to eight bytes, zero-extended.
    pub(super) fn operand(&mut self, step: &Step, index: u32) -> Value {
        let i = &step.instruction;
        match i.op_kind(index) {
            OpKind::Register => self.register(i.op_register(index)),
            OpKind::Memory => {
                let bytes = self.operand_size(i, index);
                let address = self.memory_address(step);
                self.load_operand(step, address, bytes)
            }
            _ => match (self.context.address)(self.values, step, true) {
                Some(named) => named,
                None => self.values.constant(i.immediate(index)),
            },
        }
    }

    pub(super) fn set_operand(&mut self, step: &Step, index: u32, value: Value) {
        let i = &step.instruction;
        match i.op_kind(index) {
            OpKind::Register => self.set_register(i.op_register(index), value),
            _ => {
                let bytes = self.operand_size(i, index);
                let address = self.memory_address(step);
                self.store(address, value, bytes);
            }
        }
    }

    pub(super) fn operand_size(&self, i: &Instruction, index: u32) -> u8 {
        match i.op_kind(index) {
            OpKind::Register => size_of(i.op_register(index)),
            _ => u8::try_from(i.memory_size().size()).unwrap_or(8),
        }
    }

    /// Loads what an operand names; constants are read from the image.
    pub(super) fn load_operand(&mut self, step: &Step, address: Value, bytes: u8) -> Value {
        let i = &step.instruction;
        let direct = i.is_ip_rel_memory_operand() && i.memory_index() == Register::None;
        if direct && let Some(known) = self.constant_at(i.ip_rel_memory_address(), bytes) {
            return known;
        }
        self.load(address, bytes)
    }

    /// The number in read-only data that nothing relocates.
    pub(super) fn constant_at(&mut self, address: u64, bytes: u8) -> Option<Value> {
        let image = self.context.image;
        let section = image.section_at(address)?;
        let constant = section.kind == SectionKind::ReadOnly && !section.name.starts_with(".got");
        let from = address.saturating_sub(7);
        if !constant || image.relocations.range(from..address + u64::from(bytes)).next().is_some() {
            return None;
        }
        let content = image.content(address, u64::from(bytes))?;
        let mut number = [0; 8];
        number.get_mut(..content.len())?.copy_from_slice(&content);
        Some(self.values.constant(u64::from_le_bytes(number)))
    }

    /// Loads up to eight bytes, zero-extended.
    pub(super) fn load(&mut self, address: Value, bytes: u8) -> Value {
        if let Some(at) = self.private(address, bytes) {
            if let Some(value) = self.machine.slot(self.values, at, bytes) {
                return value;
            }
            let place = Place::Slot(at, bytes);
            if at >= 0
                && let Some(same) = (self.context.incoming)(place)
            {
                let value = self.values.intern(Node::Entry(same));
                self.machine.set_slot(self.values, at, bytes, value);
                return self.values.low(bytes, value);
            }
            let value = self.unknown(place);
            // Of what counts again there may be less.
            let known = [4, 2, 1].into_iter().filter(|n| *n < bytes);
            let known = known
                .map(|n| (n, self.machine.slot(self.values, at, n)))
                .find_map(|(n, known)| Some((n, known?)));
            let value = match known {
                Some((n, known)) => self.values.insert(n, value, known),
                None => value,
            };
            return self.values.low(bytes, value);
        }
        if self.context.side == Side::New && self.is_overwritten(address) {
            let value = self.unknown(Place::Memory);
            return self.values.low(bytes, value);
        }
        if self.is_forgotten(address) {
            let value = self.unknown(Place::Memory);
            return self.values.low(bytes, value);
        }
        let address = self.named(address);
        let memory = match self.values.as_address(address) {
            // The canary, which no code of the program writes.
            Some((Base::Thread, 0x28)) => self.values.intern(Node::Constants),
            Some((Base::Old, at)) if self.is_constant(at) => self.values.intern(Node::Constants),
            _ => self.machine.memory(),
        };
        memory::load(self.values, memory, address, bytes)
    }

    /// An address in memory, that of a local by the local.
    pub(super) fn named(&mut self, address: Value) -> Value {
        let Some(at) = self.values.as_frame(address) else { return address };
        let local = self.context.locals.iter().find(|(extent, _)| extent.contains(&at));
        match local {
            Some((extent, number)) => {
                self.values.address(Base::Local(*number), at.abs_diff(extent.start))
            }
            None => address,
        }
    }

    /// Whether an address is in an object that the commit overwrites, as far as the address tells.
    fn is_overwritten(&self, address: Value) -> bool {
        let (terms, offset) = self.values.terms(address);
        let old = |v: &Value| *self.values.node(*v) == Node::Base(Base::Old);
        terms.iter().any(|(term, factor)| *factor == 1 && old(term))
            && self.context.overwritten.iter().any(|object| object.contains(&offset))
    }

    /// Whether an address is in a variable that the other build does not know.
    fn is_forgotten(&self, address: Value) -> bool {
        match self.values.as_address(address) {
            Some((Base::Old, at)) => self.context.forgotten.iter().any(|v| v.contains(&at)),
            _ => false,
        }
    }

    pub(super) fn is_added(&self) -> bool {
        usize::try_from(self.step).ok().and_then(|s| self.context.added.get(s)) == Some(&true)
    }

    /// Slots of the dynamic linker and the like: written before the program runs.
    /// NEW reads the slots of OLD, where OLD has them.
    fn is_constant(&self, at: u64) -> bool {
        self.context.old.section_at(at).is_some_and(|s| s.name == ".got")
    }

    pub(super) fn store(&mut self, address: Value, value: Value, bytes: u8) {
        if let Some(at) = self.private(address, bytes) {
            self.machine.set_slot(self.values, at, bytes, value);
            return;
        }
        if self.is_added() || self.is_forgotten(address) {
            return;
        }
        let address = self.named(address);
        let memory = memory::store(self.values, self.machine.memory(), address, value, bytes);
        self.machine.set_memory(memory);
    }

    /// The offset from the CFA, if this is a private slot: in the frame and in no object whose address
    /// is taken.
    fn private(&self, address: Value, bytes: u8) -> Option<i64> {
        let at = self.values.as_frame(address)?;
        let end = at.checked_add(i64::from(bytes))?;
        let taken = self.context.objects.iter().any(|o| o.start < end && at < o.end);
        (!taken).then_some(at)
    }

    // Instructions.

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

    // Flags.

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

    // Everything else.

    /// A pure function of what it reads, or something unknown.
    pub(super) fn generic(&mut self, step: &Step) {
        let i = step.instruction;
        let info = self.factory.info(&i).clone();
        let pure = is_pure(&i);
        let mut inputs = Vec::new();
        for index in 0..i.op_count() {
            let access = info.op_access(index);
            if matches!(access, OpAccess::Write | OpAccess::None | OpAccess::NoMemAccess) {
                continue;
            }
            self.inputs_of(step, index, &mut inputs);
        }
        if i.rflags_read() != 0 {
            inputs.push(self.machine.flags());
        }
        if i.has_lock_prefix() {
            // What it finds in memory others may have changed since anybody read it: it is the same for both
            // builds as their memory is, and equal to nothing that is read otherwise.
            let address = self.memory_address(step);
            inputs.extend([self.machine.memory(), address]);
        }
        let is_operand = |r: Register| {
            (0..i.op_count()).any(|n| {
                i.op_kind(n) == OpKind::Register
                    && i.op_register(n).full_register() == r.full_register()
            }) || i.memory_base().full_register() == r.full_register()
                || i.memory_index().full_register() == r.full_register()
        };
        for used in info.used_registers() {
            let implicit = !is_operand(used.register()) && used.register().is_gpr();
            if implicit && used.access() != OpAccess::Write {
                inputs.push(self.register(used.register()));
            }
        }
        if matches!(i.mnemonic(), Mnemonic::Mul | Mnemonic::Imul) && i.op_count() == 1 {
            // The factors change places as the compiler likes.
            inputs.sort_unstable();
        }
        let memory_written = info
            .used_memory()
            .iter()
            .any(|m| !matches!(m.access(), OpAccess::Read | OpAccess::CondRead));
        let mut output = 0;
        let mut result = |this: &mut Self, place: Place| {
            output += 1;
            if pure {
                let immediate = immediates(&i);
                let operation = Operation::Instruction { code: i.code() as u16, immediate, output };
                this.values.operation(operation, &inputs)
            } else {
                this.unknown(place)
            }
        };
        let mut written: Vec<Register> = Vec::new();
        for used in info.used_registers() {
            let writes =
                !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None);
            let register = used.register();
            // Conditional writes keep what was there on some path: not a function of the inputs alone.
            if writes && (register.is_gpr() || register.is_vector_register()) {
                written.push(register);
            }
        }
        if memory_written {
            self.clobber_memory(step, pure, &mut result);
        }
        for register in written {
            if register.is_gpr() {
                let value = result(self, Place::General(number(register)));
                self.set_register(register, value);
            } else if let Ok(n) = u8::try_from(register.number())
                && usize::from(n) < VECTORS
            {
                for lane in 0..4 {
                    let value = result(self, Place::Lane(n, lane));
                    self.machine.set_lane(n, lane, value);
                }
            }
        }
        if i.rflags_modified() != 0 {
            let value = result(self, Place::Flags);
            self.machine.set_flags(value);
        }
    }

    /// What a write of unknown meaning leaves in memory.
    fn clobber_memory(
        &mut self,
        step: &Step,
        pure: bool,
        result: &mut dyn FnMut(&mut Self, Place) -> Value,
    ) {
        let i = &step.instruction;
        let bytes = i.memory_size().size();
        let has_operand = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
        if has_operand && bytes > 0 && bytes <= 64 {
            let address = self.memory_address(step);
            let value = if pure { Some(result(self, Place::Memory)) } else { None };
            let mut done = 0;
            while done < bytes {
                let piece = [8usize, 4, 2, 1].into_iter().find(|p| done + p <= bytes).unwrap_or(1);
                let (piece8, done64) = (u8::try_from(piece).unwrap_or(8), done as u64);
                let at = self.values.offset(address, done64);
                let stored = match value {
                    Some(v) if bytes <= 8 => v,
                    _ => self.unknown(Place::Slot(i64::try_from(done).unwrap_or(0), piece8)),
                };
                self.store(at, stored, piece8);
                done += piece;
            }
            return;
        }
        if self.is_added() {
            return;
        }
        // A string instruction, or more: it goes through a pointer, so no private slot is written.
        let unknown = self.unknown(Place::Memory);
        self.machine.set_memory(unknown);
    }

    fn inputs_of(&mut self, step: &Step, index: u32, inputs: &mut Vec<Value>) {
        let i = &step.instruction;
        match i.op_kind(index) {
            OpKind::Register => {
                let register = i.op_register(index);
                if register.is_gpr() {
                    inputs.push(self.register(register));
                } else if register.is_vector_register() && register.number() < VECTORS {
                    let lanes = (register.size() / 8).min(LANES);
                    for lane in 0..lanes {
                        inputs.push(self.vector_lane(register, lane));
                    }
                } else {
                    let unknown = self.unknown(Place::Flags);
                    inputs.push(unknown);
                }
            }
            OpKind::Memory => {
                let bytes =
                    if i.memory_size() == MemorySize::Unknown { 8 } else { i.memory_size().size() };
                let address = self.memory_address(step);
                if bytes == 0 || bytes > 32 {
                    let unknown = self.unknown(Place::Memory);
                    inputs.push(unknown);
                    return;
                }
                inputs.extend(self.load_lanes(step, address, bytes));
            }
            _ => {}
        }
    }

    pub(super) fn vector_lane(&self, register: Register, lane: usize) -> Value {
        let number = u8::try_from(register.number()).unwrap_or(0);
        self.machine.lane(number, u8::try_from(lane).unwrap_or(0))
    }

    /// Loads any number of bytes up to 32 in pieces of eight and less.
    pub(super) fn load_lanes(&mut self, step: &Step, address: Value, bytes: usize) -> Vec<Value> {
        let i = &step.instruction;
        let direct = i.is_ip_rel_memory_operand() && i.memory_index() == Register::None;
        let mut lanes = Vec::new();
        let mut done = 0;
        while done < bytes {
            let piece = u8::try_from((bytes - done).min(8)).unwrap_or(8);
            let at = self.values.offset(address, done as u64);
            let known = if direct {
                self.constant_at(i.ip_rel_memory_address() + done as u64, piece)
            } else {
                None
            };
            let value = match known {
                Some(value) => value,
                None => self.load(at, piece),
            };
            lanes.push(value);
            done += usize::from(piece);
        }
        lanes
    }
}

/// The even condition code of equality.
pub const EQUAL: u8 = 4;

/// A condition on flags in normal form: operands in one order, and a sense. Conditions that mean the
/// same are one value.
pub fn condition(values: &mut Values, code: ConditionCode, flags: Value) -> (Value, bool) {
    // iced numbers the conditions from 1, in the processor's order: odd ones negate (SDM volume 1, B.1).
    let number = (code as u8).saturating_sub(1);
    let (mut base, mut negated) = (number & !1, number & 1 == 1);
    const BELOW: u8 = 2;
    const BELOW_EQUAL: u8 = 6;
    const SIGN: u8 = 8;
    const LESS: u8 = 12;
    const LESS_EQUAL: u8 = 14;
    let mut flags = flags;
    let node = match values.node(flags) {
        Node::Operation(op, operands) => Some((*op, operands.clone())),
        _ => None,
    };
    match node {
        Some((Operation::Compare(bytes), operands)) => {
            let (mut a, mut b) = (operands[0], operands[1]);
            if matches!(base, BELOW_EQUAL | LESS_EQUAL) {
                // a <= b is not (b < a).
                (a, b) = (b, a);
                base = if base == BELOW_EQUAL { BELOW } else { LESS };
                negated = !negated;
            }
            let most = super::value::mask(bytes) >> u8::from(base == LESS);
            if matches!(base, BELOW | LESS)
                && let Some(k) = values.as_constant(a)
                && k != most
                && values.as_constant(b).is_none()
            {
                // k < b is not (b < k + 1).
                let above = values.constant(k.wrapping_add(1) & super::value::mask(bytes));
                (a, b) = (b, above);
                negated = !negated;
            }
            let wide = if matches!(base, EQUAL | BELOW) { 8 } else { bytes };
            if base == EQUAL && b < a {
                (a, b) = (b, a);
            }
            if base == EQUAL && values.is_further() {
                let difference = values.subtract(a, b);
                if let Some(number) = values.as_constant(difference) {
                    return (values.constant(u64::from(number == 0)), negated);
                }
                if let Some(zero) = values.zero_with(difference) {
                    (a, b) = (zero, values.constant(0));
                }
            }
            if matches!(base, EQUAL | LESS) && values.as_constant(b) == Some(0) {
                flags = values.operation(Operation::Logic(wide), &[a]);
                base = if base == EQUAL { EQUAL } else { SIGN };
            } else {
                flags = values.operation(Operation::Compare(wide), &[a, b]);
            }
        }
        Some((Operation::Logic(bytes), operands)) => match base {
            EQUAL => {
                let zero = values.zero_with(operands[0]).unwrap_or(operands[0]);
                flags = values.operation(Operation::Logic(8), &[zero]);
            }
            // The carry flag is clear: below or equal is equal.
            BELOW_EQUAL => {
                base = EQUAL;
                flags = values.operation(Operation::Logic(8), &operands);
            }
            LESS => base = SIGN,
            LESS_EQUAL => {
                // a <= 0 is a < 1.
                let one = values.constant(1);
                flags = values.operation(Operation::Compare(bytes), &[operands[0], one]);
                base = LESS;
            }
            _ => {}
        },
        Some((Operation::Instruction { immediate, output: u8::MAX, .. }, operands)) => {
            let bytes = u8::try_from(immediate & 0xff).unwrap_or(8);
            if base == EQUAL {
                flags = values.operation(Operation::Logic(8), &operands[..1]);
            } else if base == SIGN {
                flags = values.operation(Operation::Logic(bytes), &operands[..1]);
            }
        }
        _ => {}
    }
    (values.operation(Operation::Condition(base), &[flags]), negated)
}

/// The value that a condition tests for being zero, and whether the condition is met then.
pub fn zero(values: &Values, code: ConditionCode, flags: Value) -> Option<(Value, bool)> {
    match (values.node(flags), code) {
        (Node::Operation(Operation::Logic(_), operands), ConditionCode::e) => {
            Some((operands[0], true))
        }
        (Node::Operation(Operation::Logic(_), operands), ConditionCode::ne) => {
            Some((operands[0], false))
        }
        _ => None,
    }
}

/// The value that is not zero where an equality is met (`true`), or is not, if the condition is one.
pub fn apart(values: &mut Values, code: ConditionCode, flags: Value) -> Option<(Value, bool)> {
    let met = match code {
        ConditionCode::e => false,
        ConditionCode::ne => true,
        _ => return None,
    };
    let is_result = matches!(values.node(flags), Node::Operation(Operation::Instruction { .. }, _));
    asked(values, flags).filter(|_| !is_result).map(|value| (value, met))
}

/// The value that the zero flag tells of.
pub fn asked(values: &mut Values, flags: Value) -> Option<Value> {
    let (bytes, value) = match values.node(flags) {
        Node::Operation(Operation::Logic(bytes), operands) => (*bytes, operands[0]),
        Node::Operation(Operation::Compare(bytes), operands) => {
            let (bytes, a, b) = (*bytes, operands[0], operands[1]);
            (bytes, values.subtract(a, b))
        }
        Node::Operation(Operation::Instruction { immediate, output: u8::MAX, .. }, operands) => {
            (u8::try_from(immediate & 0xff).unwrap_or(8), operands[0])
        }
        _ => return None,
    };
    Some(values.low(bytes, value))
}

/// Whether a condition is met by flags that are those of numbers, or of a value that is `known` to be zero:
/// of equality alone, for all that is needed.
pub fn decided(
    values: &Values,
    code: ConditionCode,
    flags: Value,
    known: &BTreeSet<Value>,
) -> Option<bool> {
    if let Some((_, met)) = zero(values, code, flags).filter(|(value, _)| known.contains(value)) {
        return Some(met);
    }
    let equal = match values.node(flags) {
        Node::Operation(Operation::Logic(bytes), operands) => {
            values.as_constant(operands[0])? & super::value::mask(*bytes) == 0
        }
        Node::Operation(Operation::Compare(bytes), operands) => {
            let (a, b) = (values.as_constant(operands[0])?, values.as_constant(operands[1])?);
            (a ^ b) & super::value::mask(*bytes) == 0
        }
        _ => return None,
    };
    match code {
        ConditionCode::e => Some(equal),
        ConditionCode::ne => Some(!equal),
        _ => None,
    }
}

fn immediates(i: &Instruction) -> u64 {
    let mut all = 0u64;
    for index in 0..i.op_count() {
        if matches!(
            i.op_kind(index),
            OpKind::Immediate8
                | OpKind::Immediate8_2nd
                | OpKind::Immediate16
                | OpKind::Immediate32
                | OpKind::Immediate64
                | OpKind::Immediate8to16
                | OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate32to64
        ) {
            all = all.rotate_left(8) ^ i.immediate(index);
        }
    }
    all
}

/// Results depend on the operands alone.
fn is_pure(i: &Instruction) -> bool {
    use iced_x86::CpuidFeature as F;
    let string = i.is_string_instruction();
    let stateful = i.cpuid_features().iter().any(|f| {
        matches!(
            f,
            F::FPU
                | F::FPU287
                | F::FPU387
                | F::MMX
                | F::TSC
                | F::RDTSCP
                | F::RDRAND
                | F::RDSEED
                | F::CPUID
                | F::XSAVE
                | F::XSAVEC
                | F::XSAVEOPT
                | F::FXSR
                | F::FSGSBASE
                | F::RDPID
                | F::CET_SS
                | F::AMX_TILE
        )
    });
    let system = i.is_privileged() || !matches!(i.flow_control(), FlowControl::Next);
    !(string
        || stateful
        || system
        || i.mnemonic() == Mnemonic::Syscall
        || matches!(
            i.mnemonic(),
            Mnemonic::Stmxcsr | Mnemonic::Ldmxcsr | Mnemonic::Pushfq | Mnemonic::Popfq
        ))
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
