//! What an instruction says, without the registers and places that a compiler chose for it.
//!
//! Takes one side's body; gives for each instruction a number that is equal where two instructions
//! do the same kind of thing with the same things, and the facts in it that outlive other code
//! generation: whom it calls, which variable, text, field or number it uses. Names of OLD are told
//! in terms of NEW, so that both sides' numbers can be compared. Equal numbers are hints.

use crate::change::{self, Pair};
use crate::code::{Body, Field, Reference, Step, is_immediate};
use crate::image::{FunctionId, Image, Meaning, ObjectId, Thing};
use crate::matching::names;
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A number for something, the same on both sides.
pub(super) type Key = u64;

/// Longest constant that is looked at.
const LONGEST: usize = 256;

/// What one instruction says.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// Everything but registers and stack offsets.
    pub exact: Key,
    /// What it refers to, with how much that tells.
    pub facts: Vec<(Key, f32)>,
}

/// Whom a call calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callee {
    /// A function: itself, and it by its name without a clone's suffixes.
    Known(Key, Key),
    /// Through a pointer.
    Indirect,
}

impl Callee {
    /// Whether the two may be one call.
    pub(super) fn agrees(self, other: Self) -> bool {
        match (self, other) {
            (Self::Known(a, s), Self::Known(b, t)) => a == b || s == t,
            // Fields move; where a pointer comes from is a vote of its own.
            (Self::Indirect, Self::Indirect) => true,
            _ => false,
        }
    }

    /// A number that is the same for calls that agree.
    pub(super) fn key(self) -> Key {
        match self {
            Self::Known(_, stem) => number(&("call", stem)),
            Self::Indirect => number(&"call through a pointer"),
        }
    }
}

/// One of the two builds.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub pair: Pair<'a>,
    /// OLD, not NEW.
    pub old: bool,
}

/// Any content as a number.
pub(super) fn number<T: Hash>(content: &T) -> Key {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

impl<'a> Side<'a> {
    /// Its image.
    pub(super) fn image(self) -> &'a Image {
        if self.old { self.pair.old } else { self.pair.new }
    }

    /// The token of each instruction of a body.
    pub(super) fn tokens(self, body: &Body) -> Vec<Token> {
        let frame = keeps_frame_pointer(body);
        body.steps.iter().map(|step| self.token(body, step, frame)).collect()
    }

    fn token(self, body: &Body, step: &Step, frame: bool) -> Token {
        let i = &step.instruction;
        let mut hasher = DefaultHasher::new();
        let mut facts = Vec::new();
        // Either sense of a condition: which way is taken is the graph's.
        let mnemonic = if i.is_jcc_short_or_near() { Mnemonic::Je } else { i.mnemonic() };
        (mnemonic as u32).hash(&mut hasher);
        i.is_jcc_short_or_near().then(|| sense(i).0).hash(&mut hasher);
        for operand in 0..i.op_count() {
            self.operand(step, operand, frame, &mut hasher, &mut facts);
        }
        for reference in &step.references {
            let (key, tells) = self.reference(body, reference);
            key.hash(&mut hasher);
            if tells > 0.0 {
                facts.push((key, tells));
            }
        }
        Token { exact: hasher.finish(), facts }
    }

    fn operand(
        self,
        step: &Step,
        operand: u32,
        frame: bool,
        hasher: &mut DefaultHasher,
        facts: &mut Vec<(Key, f32)>,
    ) {
        let i = &step.instruction;
        match i.op_kind(operand) {
            OpKind::Register => {
                let register = i.op_register(operand);
                (0, register.size(), register.is_gpr()).hash(hasher);
            }
            OpKind::Memory => {
                (1, i.memory_size() as u32, i.segment_prefix() as u32).hash(hasher);
                self.memory(step, frame, hasher, facts);
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                2.hash(hasher);
            }
            kind if is_immediate(kind) => {
                let held = step.references.iter().any(|r| r.immediate);
                let value = if held { 0 } else { i.immediate(operand) };
                // A line number means the line, wherever it is now.
                let line = self.image().debug.lines.row_at(i.ip()).map(|row| u64::from(row.line));
                if line == Some(value) && value > 0 {
                    (4, 0u64).hash(hasher);
                } else {
                    (3, value).hash(hasher);
                    if value.cast_signed().unsigned_abs() > 16 {
                        facts.push((number(&("number", value)), 0.5));
                    }
                }
            }
            kind => (5, kind as u32).hash(hasher),
        }
    }

    fn memory(
        self,
        step: &Step,
        frame: bool,
        hasher: &mut DefaultHasher,
        facts: &mut Vec<(Key, f32)>,
    ) {
        let i = &step.instruction;
        let (base, index) = (i.memory_base(), i.memory_index());
        if base == Register::RSP || (frame && base == Register::RBP) {
            "stack".hash(hasher);
            return;
        }
        if let Some(displacement) = change::thread_local_displacement(i) {
            let key = match change::thread_local(self.image(), displacement) {
                Some((object, offset)) => number(&(self.object(object), offset)),
                None => number(&("thread", displacement)),
            };
            key.hash(hasher);
            facts.push((key, 0.5));
            return;
        }
        (index != Register::None, i.memory_index_scale()).hash(hasher);
        let displacement = i.memory_displacement64();
        let held = step.references.iter().any(|r| !r.immediate);
        if base == Register::RIP || held {
            return;
        }
        displacement.hash(hasher);
        if displacement != 0 && i.mnemonic() != Mnemonic::Lea {
            facts.push((number(&("field", displacement)), 0.4));
        }
    }

    /// What an operand refers to, and how much that tells.
    fn reference(self, body: &Body, r: &Reference) -> (Key, f32) {
        let branch = matches!(r.field, Field::Branch8 | Field::Branch32);
        let recursive = r.call && body.steps.first().is_some_and(|s| s.address() == r.target);
        if body.index_at(r.target).is_some() && !recursive {
            return (number(&"here"), 0.0);
        }
        match self.image().resolve(r.target) {
            Thing::Code { function, offset } => {
                let (key, _) = self.function(function);
                (if branch { key } else { number(&("address", key, offset)) }, 1.0)
            }
            Thing::Slot(slot) => (self.slot(&slot.meaning), 1.0),
            Thing::Object { object, offset } => (number(&(self.object(object), offset)), 1.0),
            Thing::Constant(address) => self.constant(body, r, address),
            Thing::Mark(name) => (number(&name), 0.5),
            Thing::Outside(value) => (number(&("outside", value)), 0.1),
            Thing::Unknown => (number(&"unknown"), 0.0),
        }
    }

    fn constant(self, body: &Body, r: &Reference, address: u64) -> (Key, f32) {
        let image = self.image();
        if r.access > 0 {
            let bytes = image.content(address, r.access).unwrap_or_default();
            return (number(&("bytes", bytes)), 0.7);
        }
        if change::jump_table(image, body, address).is_some() {
            return (number(&"jump table"), 1.0);
        }
        match change::text_at(image, address) {
            Some(text) => (number(&("text", &text[..text.len().min(LONGEST)])), 1.0),
            None => (number(&"constant"), 0.2),
        }
    }

    fn slot(self, meaning: &Meaning) -> Key {
        match meaning {
            Meaning::Symbol(symbol, _) | Meaning::Copy(symbol) => number(&("import", &symbol.name)),
            Meaning::Address(to) | Meaning::Resolver(to) => match self.image().resolve(*to) {
                Thing::Code { function, .. } => self.function(function).0,
                Thing::Object { object, offset } => number(&(self.object(object), offset)),
                _ => number(&"slot"),
            },
            Meaning::Number(value) => number(&("slot", value)),
            Meaning::ThreadLocal(..) => number(&"thread-local slot"),
        }
    }

    /// A function: itself, and what it is a clone of.
    fn function(self, id: FunctionId) -> (Key, Key) {
        let function = self.image().function(id);
        if let Some(import) = &function.import {
            let key = number(&("import", &import.name));
            return (key, key);
        }
        let matching = self.pair.matching;
        let in_new = if self.old { matching.new_of(id) } else { matching.old_of(id).map(|_| id) };
        let stem = |image: &Image, id: FunctionId| {
            number(&("stem", names::stem(&names::canonical(image.function(id).name()))))
        };
        match in_new {
            Some(new) => (number(&("function", new)), stem(self.pair.new, new)),
            None => (number(&names::canonical(function.name())), stem(self.image(), id)),
        }
    }

    fn object(self, id: ObjectId) -> Key {
        let matching = self.pair.matching;
        let in_new =
            if self.old { matching.new_object(id) } else { matching.old_object(id).map(|_| id) };
        match in_new {
            Some(new) => number(&("object", new)),
            None => {
                let object = self.image().object(id);
                let name = if names::is_compilers_table(object.name()) {
                    "table".to_owned()
                } else {
                    names::canonical(object.name())
                };
                number(&("object named", name))
            }
        }
    }

    /// Whom an instruction calls; `None` when it is no call.
    pub(super) fn callee(self, step: &Step) -> Option<Callee> {
        let i = &step.instruction;
        if !matches!(i.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            return None;
        }
        for r in &step.references {
            let function = match self.image().resolve(r.target) {
                Thing::Code { function, .. } => Some(self.function(function)),
                Thing::Slot(slot) => {
                    let key = self.slot(&slot.meaning);
                    Some((key, key))
                }
                _ => None,
            };
            if let Some((key, stem)) = function {
                return Some(Callee::Known(key, stem));
            }
        }
        Some(Callee::Indirect)
    }
}

/// The condition of a conditional jump, without and as its sense: each second code negates the one
/// before (SDM volume 1, appendix B).
pub(super) fn sense(i: &Instruction) -> (u8, bool) {
    let code = i.condition_code() as u8;
    // `None` is 0, overflow 1, not overflow 2.
    (code.wrapping_sub(1) / 2, code % 2 == 1)
}

/// Whether `rbp` is the frame's: `mov rbp, rsp` among the first instructions.
fn keeps_frame_pointer(body: &Body) -> bool {
    body.steps.iter().take(12).any(|step| {
        let i = &step.instruction;
        i.mnemonic() == Mnemonic::Mov
            && i.op0_kind() == OpKind::Register
            && i.op0_register() == Register::RBP
            && i.op1_kind() == OpKind::Register
            && i.op1_register() == Register::RSP
    })
}
