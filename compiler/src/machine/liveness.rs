//! Whether a caller still reads a caller-saved register after a call.

use super::clobbers::Registers;
use crate::code::{Body, decode};
use crate::image::{FunctionId, Image, Thing};
use iced_x86::{FlowControl, InstructionInfoFactory, OpAccess, Register};

/// rdi, rsi, rdx, rcx, r8, r9 (psABI 3.2.3).
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// A register of `extra` that `caller` reads after a call of `callee` before writing it.
pub(super) fn live_after_calls(
    image: &Image,
    caller: FunctionId,
    callee: FunctionId,
    extra: Registers,
) -> Option<Register> {
    let body = decode(image, image.function(caller));
    // The result registers are the callee's to write.
    let results = [Register::RAX, Register::RDX, Register::XMM0, Register::XMM1]
        .into_iter()
        .fold(Registers::default(), |set, r| set.with(Registers::one(r)));
    let extra = extra.without(results);
    let calls = body.steps.iter().enumerate().filter(|(_, s)| {
        s.references.iter().any(|r| {
            r.call
                && matches!(image.resolve(r.target), Thing::Code { function, .. } if function == callee)
        })
    });
    calls.filter_map(|(i, _)| read_after(image, &body, i + 1, extra)).next()
}

/// Follows every path from an instruction; what is read before it is written is live.
fn read_after(image: &Image, body: &Body, start: usize, set: Registers) -> Option<Register> {
    let mut seen = vec![Registers::default(); body.steps.len()];
    let mut queue = vec![(start, set)];
    let mut factory = InstructionInfoFactory::new();
    while let Some((index, watched)) = queue.pop() {
        let Some(step) = body.steps.get(index) else {
            continue;
        };
        let mut watched = watched.without(seen[index]);
        if watched.is_empty() {
            continue;
        }
        seen[index] = seen[index].with(watched);
        let info = factory.info(&step.instruction);
        let of = |write: bool| {
            info.used_registers().iter().fold(Registers::default(), |set, used| {
                let is = match used.access() {
                    OpAccess::Write => write,
                    OpAccess::Read | OpAccess::CondRead => !write,
                    OpAccess::None | OpAccess::NoMemAccess => false,
                    // A conditional or partial write keeps what was there.
                    _ => !write,
                };
                if is { set.with(Registers::one(used.register())) } else { set }
            })
        };
        let flow = step.instruction.flow_control();
        let read = match flow {
            FlowControl::Call | FlowControl::IndirectCall => of(false).with(arguments(image, step)),
            _ => of(false),
        };
        if let Some(register) = watched.and(read).first() {
            return Some(register);
        }
        watched = watched.without(of(true));
        match flow {
            // A later call may change what is watched, and gcc may know that it does not.
            FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {
                queue.push((index + 1, watched));
            }
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                let target = step.instruction.near_branch_target();
                match body.index_at(target) {
                    Some(inside) => queue.push((inside, watched)),
                    // A tail call: its arguments are read.
                    None => {
                        if let Some(register) = watched.and(arguments(image, step)).first() {
                            return Some(register);
                        }
                    }
                }
                if flow == FlowControl::ConditionalBranch {
                    queue.push((index + 1, watched));
                }
            }
            FlowControl::IndirectBranch => {
                // Wherever it leads: every instruction may follow.
                let tables = body.steps.iter().flat_map(|s| &s.references).filter(|r| r.taken);
                let mut known = false;
                for reference in tables {
                    for to in
                        crate::change::jump_table(image, body, reference.target).unwrap_or_default()
                    {
                        known = true;
                        queue.push((to, watched));
                    }
                }
                if !known {
                    return watched.first();
                }
            }
            _ => {}
        }
    }
    None
}

/// Registers in which a call passes arguments, as far as the callee's prototype is known.
fn arguments(image: &Image, step: &crate::code::Step) -> Registers {
    let known = step.references.first().and_then(|r| match image.resolve(r.target) {
        Thing::Code { function, offset: 0 } => {
            let function = image.function(function);
            let clone = function.name().contains('.');
            let own = function
                .debug
                .filter(|_| !clone)
                .and_then(|d| image.debug.functions.get(d))
                .and_then(|d| d.parameters);
            let import = || {
                let name = &function.import.as_ref()?.name;
                image.debug.declarations.get(name).copied()
            };
            own.or_else(import)
        }
        _ => None,
    });
    let (integer, sse, variadic) = known.map_or((6, 8, true), |p| (p.integer, p.sse, p.variadic));
    let mut set = Registers::default();
    // Optional arguments may be in any of them.
    let integer = if variadic { 6 } else { usize::from(integer) };
    for register in ARGUMENTS.iter().take(integer) {
        set = set.with(Registers::one(*register));
    }
    for i in 0..u32::from(if variadic { 8 } else { sse }) {
        set = set.with(Registers::one(Register::XMM0 + i));
    }
    set
}
