//! Operands: registers and their parts, addresses, loads and stores.

use super::super::state::{Held, memory};
use super::super::value::{Base, CANARY, Node, Operation, Place, Side, Value};
use super::{Executor, is_high, number, size_of};
use crate::code::Step;
use crate::image::SectionKind;
use iced_x86::{Instruction, OpKind, Register};

impl Executor<'_, '_> {
    /// The address of the memory operand.
    pub(in crate::frames) fn memory_address(&mut self, step: &Step) -> Value {
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
    pub(in crate::frames) fn register(&mut self, register: Register) -> Value {
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
    pub(in crate::frames) fn set_register(&mut self, register: Register, value: Value) {
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
    pub(in crate::frames) fn operand(&mut self, step: &Step, index: u32) -> Value {
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

    pub(in crate::frames) fn set_operand(&mut self, step: &Step, index: u32, value: Value) {
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

    pub(in crate::frames) fn operand_size(&self, i: &Instruction, index: u32) -> u8 {
        match i.op_kind(index) {
            OpKind::Register => size_of(i.op_register(index)),
            _ => u8::try_from(i.memory_size().size()).unwrap_or(8),
        }
    }

    /// Loads what an operand names; constants are read from the image.
    pub(in crate::frames) fn load_operand(
        &mut self,
        step: &Step,
        address: Value,
        bytes: u8,
    ) -> Value {
        let i = &step.instruction;
        let direct = i.is_ip_rel_memory_operand() && i.memory_index() == Register::None;
        if direct && let Some(known) = self.constant_at(i.ip_rel_memory_address(), bytes) {
            return known;
        }
        self.load(address, bytes)
    }

    /// The number in read-only data that nothing relocates.
    pub(in crate::frames) fn constant_at(&mut self, address: u64, bytes: u8) -> Option<Value> {
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
    pub(in crate::frames) fn load(&mut self, address: Value, bytes: u8) -> Value {
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
            if self.machine.held(self.values, at, bytes) == Held::Garbage {
                return self.leftover(at, bytes);
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
            Some((Base::Thread, CANARY)) => self.values.intern(Node::Constants),
            Some((Base::Old, at)) if self.is_constant(at) => self.values.intern(Node::Constants),
            _ => self.machine.memory(),
        };
        memory::load(self.values, memory, address, bytes)
    }

    /// What is left in a slot that nothing was stored in, and from now on stays there. Code that reads it does not
    /// use it: it has kept in mind that it is nothing. So it may be taken to be what the other body finds that reads
    /// as many of them before, in the same place of both.
    fn leftover(&mut self, at: i64, bytes: u8) -> Value {
        self.has_named = true;
        let name = Node::Given(self.point, None, self.leftovers, Place::Slot(0, bytes));
        self.leftovers += 1;
        let name = self.values.intern(name);
        let value = self.values.low(bytes, name);
        self.machine.set_slot(self.values, at, bytes, value);
        value
    }

    /// An address in memory, that of a local by the local.
    pub(in crate::frames) fn named(&mut self, address: Value) -> Value {
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

    pub(in crate::frames) fn is_added(&self) -> bool {
        usize::try_from(self.step).ok().and_then(|s| self.context.added.get(s)) == Some(&true)
    }

    /// Slots of the dynamic linker and the like: written before the program runs.
    /// NEW reads the slots of OLD, where OLD has them.
    fn is_constant(&self, at: u64) -> bool {
        self.context.old.section_at(at).is_some_and(|s| s.name == ".got")
    }

    pub(in crate::frames) fn store(&mut self, address: Value, value: Value, bytes: u8) {
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

    pub(in crate::frames) fn vector_lane(&self, register: Register, lane: usize) -> Value {
        let number = u8::try_from(register.number()).unwrap_or(0);
        self.machine.lane(number, u8::try_from(lane).unwrap_or(0))
    }

    /// Loads any number of bytes up to 32 in pieces of eight and less.
    pub(in crate::frames) fn load_lanes(
        &mut self,
        step: &Step,
        address: Value,
        bytes: usize,
    ) -> Vec<Value> {
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
