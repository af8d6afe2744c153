//! Moves and stores of strings, symbolically (SDM volume 2: MOVS, STOS, REP).
//!
//! Few elements are loads and stores one by one. Many are one change of memory, a function of what memory
//! was before, where they begin, how many there are, and what they are made of: the same in both bodies
//! when all of that is.

use super::exec::Executor;
use super::value::{Base, Node, Operation, Place, Side, Value, mask};
use crate::code::Step;
use crate::machine::flow::Flow;
use iced_x86::{Instruction, Mnemonic};

/// So many elements are stored one by one.
const SINGLY: u64 = 16;
const RAX: u8 = 0;
const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// Whether a body sets the direction flag, which is clear where functions begin (psABI 3.2.1), or may.
pub fn go_backwards(flow: &Flow) -> bool {
    let sets = |i: &Instruction| {
        matches!(i.mnemonic(), Mnemonic::Std | Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq)
    };
    flow.body.steps.iter().any(|step| sets(&step.instruction))
}

/// Executes a step if it is one of these.
pub fn step(executor: &mut Executor<'_, '_>, step: &Step) -> bool {
    let i = &step.instruction;
    let Some((bytes, moves)) = kind(i) else { return false };
    // With 32-bit addresses, another segment, or going downwards it is something else.
    let plain = i.op_kinds().all(|kind| {
        use iced_x86::OpKind;
        !matches!(
            kind,
            OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegSI | OpKind::MemoryESDI
        )
    });
    if !plain || i.has_segment_prefix() || i.has_repne_prefix() || executor.context.backwards {
        return false;
    }
    let one = executor.values.constant(1);
    let repeated = i.has_rep_prefix();
    let count = if repeated { executor.machine.general(RCX) } else { one };
    match executor.values.as_constant(count) {
        Some(known @ ..=SINGLY) => {
            for number in 0..known {
                element(executor, u64::from(bytes) * number, bytes, moves);
            }
        }
        _ => all(executor, i, count, bytes, moves),
    }
    let length = executor.values.linear(&[(count, u64::from(bytes))], 0);
    for number in [RDI, RSI].into_iter().take(if moves { 2 } else { 1 }) {
        let before = executor.machine.general(number);
        let behind = executor.values.add(before, length);
        executor.machine.set_general(number, behind);
    }
    if repeated {
        let zero = executor.values.constant(0);
        executor.machine.set_general(RCX, zero);
    }
    true
}

/// Bytes of an element, and whether it comes from memory.
fn kind(i: &Instruction) -> Option<(u8, bool)> {
    // `movsd` is also a move of a vector register.
    if !i.is_string_instruction() {
        return None;
    }
    Some(match i.mnemonic() {
        Mnemonic::Stosb => (1, false),
        Mnemonic::Stosw => (2, false),
        Mnemonic::Stosd => (4, false),
        Mnemonic::Stosq => (8, false),
        Mnemonic::Movsb => (1, true),
        Mnemonic::Movsw => (2, true),
        Mnemonic::Movsd => (4, true),
        Mnemonic::Movsq => (8, true),
        _ => return None,
    })
}

fn element(executor: &mut Executor<'_, '_>, at: u64, bytes: u8, moves: bool) {
    let value = if moves {
        let from = executor.machine.general(RSI);
        let from = executor.values.offset(from, at);
        executor.load(from, bytes)
    } else {
        executor.machine.general(RAX)
    };
    let to = executor.machine.general(RDI);
    let to = executor.values.offset(to, at);
    executor.store(to, value, bytes);
}

/// All of memory after a number of elements that is not known, or large.
fn all(executor: &mut Executor<'_, '_>, i: &Instruction, count: Value, bytes: u8, moves: bool) {
    if executor.is_added() {
        return;
    }
    let (to, from) = (executor.machine.general(RDI), executor.machine.general(RSI));
    let memory = if moves && may_be_overwritten(executor, from) {
        // OLD has read there what the commit replaces.
        executor.unknown(Place::Memory)
    } else {
        let to = executor.named(to);
        let what = if moves {
            executor.named(from)
        } else {
            let element = executor.machine.general(RAX);
            executor.values.low(bytes, element)
        };
        let before = executor.machine.memory();
        // A repeated instruction is the same form as a single one, which never comes here.
        let operation =
            Operation::Instruction { code: i.code() as u16, immediate: mask(bytes), output: 0 };
        executor.values.operation(operation, &[before, to, count, what])
    };
    executor.machine.set_memory(memory);
}

/// Whether NEW may read from an address on what the commit overwrites.
fn may_be_overwritten(executor: &Executor<'_, '_>, from: Value) -> bool {
    let (terms, _) = executor.values.terms(from);
    let old = |v: &Value| *executor.values.node(*v) == Node::Base(Base::Old);
    executor.context.side == Side::New
        && !executor.context.overwritten.is_empty()
        && terms.iter().any(|(term, _)| old(term))
}
