//! Whether a caller still reads a caller-saved register after a call.

use super::clobbers::{Clobbers, Registers};
use super::tables::table_targets;
use crate::code::{Body, decode};
use crate::debug::Parameters;
use crate::image::{Function, FunctionId, Image, Thing};
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
    clobbers: &Clobbers,
) -> Option<Register> {
    all_live_after_calls(image, caller, callee, extra, clobbers).first()
}

/// All of them.
pub(super) fn all_live_after_calls(
    image: &Image,
    caller: FunctionId,
    callee: FunctionId,
    extra: Registers,
    clobbers: &Clobbers,
) -> Registers {
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
    let mut relied = Registers::default();
    for (i, _) in calls {
        let mut watched = extra.without(relied);
        while let Some(register) = read_after(image, &body, i + 1, watched) {
            let one = Registers::one(register);
            if defined_before(image, caller, &body, i, one, clobbers) {
                relied = relied.with(one);
            }
            watched = watched.without(one);
        }
    }
    relied
}

/// Whether a value that the caller put into a register itself, or got as an argument, reaches an
/// instruction: only such a value can be meant to survive a call. What an earlier call left there
/// is garbage to the caller.
fn defined_before(
    image: &Image,
    caller: FunctionId,
    body: &Body,
    call: usize,
    register: Registers,
    clobbers: &Clobbers,
) -> bool {
    let before = predecessors(image, body);
    let mut factory = InstructionInfoFactory::new();
    let mut seen = vec![false; body.steps.len()];
    let mut queue = vec![call];
    while let Some(index) = queue.pop() {
        if index == 0 && !register.and(incoming(image, caller)).is_empty() {
            return true;
        }
        for &earlier in &before[index] {
            if std::mem::replace(&mut seen[earlier], true) {
                continue;
            }
            let step = &body.steps[earlier];
            match step.instruction.flow_control() {
                FlowControl::Call | FlowControl::IndirectCall => {
                    // A callee that keeps it may have been relied on as well.
                    let kept = step.references.iter().filter(|r| r.call).any(|r| {
                        matches!(
                            image.resolve(r.target),
                            Thing::Code { function, .. }
                                if clobbers.of(function).and(register).is_empty()
                        )
                    });
                    if kept {
                        queue.push(earlier);
                    }
                }
                _ => {
                    let writes = factory.info(&step.instruction).used_registers().iter().any(|u| {
                        !matches!(u.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None)
                            && !Registers::one(u.register()).and(register).is_empty()
                    });
                    if writes {
                        return true;
                    }
                    queue.push(earlier);
                }
            }
        }
    }
    false
}

/// The registers that a function's own arguments come in.
fn incoming(image: &Image, id: FunctionId) -> Registers {
    passed(prototype(image, image.function(id)))
}

/// A function's prototype; a clone's is not that of its source.
fn prototype(image: &Image, function: &Function) -> Option<Parameters> {
    let declared = image.declared(function).filter(|_| !function.name().contains('.'))?;
    declared.parameters
}

/// For each instruction, those that may come right before it.
fn predecessors(image: &Image, body: &Body) -> Vec<Vec<usize>> {
    let mut before = vec![Vec::new(); body.steps.len() + 1];
    for (index, step) in body.steps.iter().enumerate() {
        let flow = step.instruction.flow_control();
        if !matches!(
            flow,
            FlowControl::UnconditionalBranch | FlowControl::Return | FlowControl::IndirectBranch
        ) {
            before[index + 1].push(index);
        }
        if matches!(flow, FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch)
            && let Some(to) = body.index_at(step.instruction.near_branch_target())
        {
            before[to].push(index);
        }
        if flow == FlowControl::IndirectBranch {
            for to in table_targets(image, body) {
                before[to].push(index);
            }
        }
    }
    before.truncate(body.steps.len());
    before
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
                let targets = table_targets(image, body);
                let known = !targets.is_empty();
                queue.extend(targets.into_iter().map(|to| (to, watched)));
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
            let import = || {
                let name = &function.import.as_ref()?.name;
                image.debug.declarations.get(name).copied()
            };
            prototype(image, function).or_else(import)
        }
        _ => None,
    });
    passed(known)
}

/// The registers of a prototype; all that there are when it is not known.
fn passed(known: Option<Parameters>) -> Registers {
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
