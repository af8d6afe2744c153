//! Instructions that nothing else knows: pure functions of what they read, or something unknown.

use super::super::state::{LANES, VECTORS};
use super::super::value::{Operation, Place, Value};
use super::{Executor, number};
use crate::code::{Step, is_immediate};
use iced_x86::{
    FlowControl, Instruction, InstructionInfo, MemorySize, Mnemonic, OpAccess, OpKind, Register,
};

impl Executor<'_, '_> {
    /// A pure function of what it reads, or something unknown.
    pub(in crate::frames) fn generic(&mut self, step: &Step) {
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
        let memory_written = info.used_memory().iter().any(|m| is_write(m.access()));
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
            self.clobber_memory(step, &info, pure, &mut result);
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
        info: &InstructionInfo,
        pure: bool,
        result: &mut dyn FnMut(&mut Self, Place) -> Value,
    ) {
        let i = &step.instruction;
        let bytes = i.memory_size().size();
        let is_written = |n: u32| i.op_kind(n) == OpKind::Memory && is_write(info.op_access(n));
        if (0..i.op_count()).any(is_written) && bytes > 0 && bytes <= 64 {
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
        // More than that (FXSAVE), or what an address in a register leads to (MOVDIR64B): into the frame, too.
        let is_frame = |register: Register| {
            register.is_gpr64()
                && self.values.as_frame(self.machine.general(number(register))).is_some()
        };
        let mut into_frame = info.used_memory().iter().filter(|m| is_write(m.access()));
        if !i.is_string_instruction()
            && into_frame.any(|m| is_frame(m.base()) || is_frame(m.index()))
        {
            self.machine.lose_slots();
        }
        if self.is_added() {
            return;
        }
        // A string instruction goes through a pointer: no private slot is written.
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
}

fn is_write(access: OpAccess) -> bool {
    !matches!(access, OpAccess::Read | OpAccess::CondRead)
}

fn immediates(i: &Instruction) -> u64 {
    let mut all = 0u64;
    for index in 0..i.op_count() {
        if is_immediate(i.op_kind(index)) {
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
