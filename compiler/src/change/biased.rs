//! Biased addresses: `table[c - '0']` in position-independent code takes the address of the table
//! less 48, which is inside of whatever lies before it.
//!
//! An address that is not the start of an object and is used with an index may therefore belong to
//! the next object as well as to the one it points into. The comparison takes it for what it points
//! into, which calls some functions changed that are not, never the reverse. Where a function is
//! carried, both readings must lead to the right place: see [`crate::emit`].

use crate::code::{Body, Step};
use crate::image::{Image, ObjectId};
use iced_x86::{InstructionInfoFactory, Mnemonic, OpKind, Register};
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
    let mut holders = BTreeSet::from([lea.op_register(0).full_register() as u32]);
    let mut factory = InstructionInfoFactory::new();
    loop {
        let mut copies = BTreeSet::new();
        for later in &body.steps {
            let i = &later.instruction;
            let holds =
                |r: Register| r != Register::None && holders.contains(&(r.full_register() as u32));
            for memory in factory.info(i).used_memory() {
                let both = memory.base() != Register::None && memory.index() != Register::None;
                if both && (holds(memory.base()) || holds(memory.index())) {
                    return true;
                }
            }
            let sources = (0..i.op_count())
                .filter(|o| i.op_kind(*o) == OpKind::Register && holds(i.op_register(*o)))
                .count();
            match i.mnemonic() {
                Mnemonic::Lea
                    if i.memory_base() != Register::None
                        && i.memory_index() != Register::None
                        && (holds(i.memory_base()) || holds(i.memory_index())) =>
                {
                    return true;
                }
                Mnemonic::Add | Mnemonic::Sub
                    if sources > 0
                        && (0..i.op_count()).all(|o| {
                            i.op_kind(o) == OpKind::Register || i.op_kind(o) == OpKind::Memory
                        }) =>
                {
                    return true;
                }
                Mnemonic::Mov if i.op_count() == 2 && holds_operand(i, 1, &holders) => {
                    match i.op_kind(0) {
                        OpKind::Register => {
                            copies.insert(i.op_register(0).full_register() as u32);
                        }
                        // Spilled: what is done with it after a reload is not followed.
                        OpKind::Memory
                            if matches!(i.memory_base(), Register::RSP | Register::RBP) =>
                        {
                            return true;
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        let before = holders.len();
        holders.extend(copies);
        if holders.len() == before {
            return false;
        }
    }
}

fn holds_operand(i: &iced_x86::Instruction, operand: u32, holders: &BTreeSet<u32>) -> bool {
    i.op_kind(operand) == OpKind::Register
        && holders.contains(&(i.op_register(operand).full_register() as u32))
}
