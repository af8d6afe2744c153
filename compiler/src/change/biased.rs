//! Biased addresses: `table[c - '0']` in position-independent code takes the address of the table
//! less 48, which is inside of whatever lies before it.
//!
//! An address that is not the start of an object and is used with an index may therefore belong to
//! the next object as well as to the one it points into. The comparison takes it for what it points
//! into, which calls some functions changed that are not, never the reverse. Where a function is
//! carried, both readings must lead to the right place: see [`crate::emit`].

use crate::code::{Body, Step};
use crate::image::{Image, ObjectId};
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};
use std::collections::BTreeSet;

/// Farther than this no compiler biases: a character times the largest scale, and much more.
const FARTHEST: u64 = 8192;

/// The object that an address may belong to although it lies before it: the next one, with its
/// distance. `None` when the address is the start of an object.
#[must_use]
pub fn next_object(image: &Image, address: u64) -> Option<(ObjectId, u64)> {
    if image.object_at(address).is_some_and(|id| {
        let object = image.object(id);
        object.size > 0 && object.address == address
    }) {
        return None;
    }
    let (id, object) = image.first_object_behind(address)?;
    let distance = object.address - address;
    (distance <= FARTHEST).then_some((id, distance))
}

/// Whether the address that an instruction takes is added to something, directly or after copies:
/// no matter where in the function, as paths are not followed.
#[must_use]
pub fn is_indexed(body: &Body, step: &Step) -> bool {
    let lea = &step.instruction;
    if lea.mnemonic() != Mnemonic::Lea || lea.op_kind(0) != OpKind::Register {
        return false;
    }
    let mut holders = BTreeSet::from([lea.op_register(0).full_register()]);
    let mut factory = InstructionInfoFactory::new();
    loop {
        let mut copies = BTreeSet::new();
        for later in &body.steps {
            match use_of(&later.instruction, &holders, &mut factory) {
                Use::Added => return true,
                Use::Copied(register) => {
                    copies.insert(register);
                }
                Use::Other => {}
            }
        }
        let before = holders.len();
        holders.extend(copies);
        if holders.len() == before {
            return false;
        }
    }
}

/// What an instruction does with an address in a register.
enum Use {
    /// Adds an index to it, or puts it away where what is done with it is not followed.
    Added,
    /// Another register holds it as well.
    Copied(Register),
    /// Nothing of both.
    Other,
}

fn use_of(
    i: &Instruction,
    holders: &BTreeSet<Register>,
    factory: &mut InstructionInfoFactory,
) -> Use {
    let holds = |r: Register| r != Register::None && holders.contains(&r.full_register());
    let indexed = |base: Register, index: Register| {
        base != Register::None && index != Register::None && (holds(base) || holds(index))
    };
    let held =
        |operand: u32| i.op_kind(operand) == OpKind::Register && holds(i.op_register(operand));
    let plain = |operand: u32| matches!(i.op_kind(operand), OpKind::Register | OpKind::Memory);
    // An address that is only computed (`lea`) is no access, so the instruction's own operand counts.
    if indexed(i.memory_base(), i.memory_index())
        || factory.info(i).used_memory().iter().any(|m| indexed(m.base(), m.index()))
    {
        return Use::Added;
    }
    let mut operands = 0..i.op_count();
    match i.mnemonic() {
        Mnemonic::Add | Mnemonic::Sub if operands.clone().any(held) && operands.all(plain) => {
            Use::Added
        }
        Mnemonic::Mov if i.op_count() == 2 && held(1) => match i.op_kind(0) {
            OpKind::Register => Use::Copied(i.op_register(0).full_register()),
            OpKind::Memory if matches!(i.memory_base(), Register::RSP | Register::RBP) => {
                Use::Added
            }
            _ => Use::Other,
        },
        _ => Use::Other,
    }
}
