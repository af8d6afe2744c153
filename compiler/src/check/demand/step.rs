//! One instruction backwards: what counts after it, as what counts before it.

use super::lanes::{Lanes, lanes};
use super::{Demand, Registers, low};
use crate::check::calls::{ARGUMENTS, CALLEE_SAVED, Callee, SAVED, Set};
use crate::check::code::branch_target;
use crate::check::effects::{Access, Effect};
use crate::check::reach::{Function, results};
use crate::check::values;
use crate::debug::Parameters;
use iced_x86::{
    EncodingKind, FlowControl, Instruction, Mnemonic, OpAccess, OpKind, Register, RflagsBits,
};

/// The flags that instructions compute. The direction flag is clear wherever compiled code runs.
const STATUS: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;

/// One instruction of a function, and what counts behind it.
struct Step<'f, 'd> {
    function: Function<'f>,
    demand: &'d mut Demand,
    index: usize,
    i: &'f Instruction,
    effect: &'f Effect,
}

/// Takes what counts behind an instruction back over it. `landing` is what counts at the pads where
/// exceptions out of it land.
pub(super) fn step<'l>(
    function: Function<'_>,
    demand: &mut Demand,
    index: usize,
    landing: impl Iterator<Item = &'l Demand>,
) {
    let i = &function.code.steps[index].instruction;
    let effect = &function.effects.steps[index];
    let mut step = Step { function, demand, index, i, effect };
    step.x87();
    match i.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall if values::is_call(i) => step.call(landing),
        FlowControl::Return => step.leave(),
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => step.branch(),
        FlowControl::IndirectBranch => step.indirect(),
        _ => step.plain(),
    }
    for offset in &effect.taken {
        demand.pointed_to(function.effects, *offset);
    }
}

impl Step<'_, '_> {
    /// How many values on the x87 stack count before the instruction.
    fn x87(&mut self) {
        let info = self.i.fpu_stack_increment_info();
        let used = self.function.code.steps[self.index].info.used_registers().iter();
        let read = used.filter(|u| u.register().is_st() && u.access() != OpAccess::Write);
        let read = read.map(|u| u32::try_from(u.register().number()).unwrap_or(7) + 1);
        let read = read.max().unwrap_or(0);
        let after = self.demand.x87;
        let moved = match (info.writes_top(), info.increment()) {
            (false, _) => after,
            // Emptied as a whole.
            (true, 0) => 0,
            (true, pops @ 1..) => {
                let pops = pops.unsigned_abs();
                if after == 0 { pops } else { after.saturating_add(pops) }
            }
            (true, pushes) => after.saturating_sub(pushes.unsigned_abs()),
        };
        self.demand.x87 = moved.max(read).min(8);
    }

    fn plain(&mut self) {
        use Mnemonic as M;
        let register = self.i.op_count() > 0 && self.operand_is_register(0);
        match self.i.mnemonic() {
            M::Nop | M::Endbr64 => {}
            M::Mov | M::Movzx | M::Movsx | M::Movsxd if self.plain_operands() => self.copy(),
            M::Movaps
            | M::Movapd
            | M::Movups
            | M::Movupd
            | M::Movdqa
            | M::Movdqu
            | M::Vmovaps
            | M::Vmovapd
            | M::Vmovups
            | M::Vmovupd
            | M::Vmovdqa
            | M::Vmovdqu
                if self.plain_operands() =>
            {
                self.copy();
            }
            M::Lea => self.lea(),
            M::Push if self.i.stack_pointer_increment() == -8 => self.push(),
            M::Pop if register && self.i.stack_pointer_increment() == 8 => self.pop(),
            M::Add
            | M::Sub
            | M::And
            | M::Or
            | M::Xor
            | M::Imul
            | M::Inc
            | M::Dec
            | M::Neg
            | M::Not
                if register && (self.i.mnemonic() != M::Imul || self.i.op_count() > 1) =>
            {
                self.arithmetic();
            }
            M::Shl | M::Sal if register && self.i.op1_kind() != OpKind::Register => {
                self.arithmetic();
            }
            M::Sbb if register && self.same_operands() => {
                // Only the carry flag tells whether the result is 0 or -1.
                let wanted = self.take(self.i.op0_register());
                self.generic_flags(wanted != 0);
            }
            M::Cmp | M::Test => {
                let wanted = self.demand.flags & self.i.rflags_modified() != 0;
                self.demand.flags &= !self.i.rflags_modified();
                match wanted {
                    true => self.read_all(),
                    false => self.addresses(),
                }
            }
            _ => match lanes(self.i) {
                Some(lanes) => self.vector(&lanes),
                None => self.generic(),
            },
        }
    }

    fn operand_is_register(&self, index: u32) -> bool {
        self.i.op_kind(index) == OpKind::Register
    }

    fn same_operands(&self) -> bool {
        self.operand_is_register(1) && self.i.op0_register() == self.i.op1_register()
    }

    /// Two operands, each a general or vector register, memory or a number; no mask.
    fn plain_operands(&self) -> bool {
        let known = |index| match self.i.op_kind(index) {
            OpKind::Register => {
                let r = self.i.op_register(index);
                r.is_gpr() || r.is_vector_register()
            }
            _ => true,
        };
        self.i.op_count() == 2 && known(0) && known(1) && !self.i.has_op_mask()
    }

    /// The bytes of a register that count, which ends their life.
    fn take(&mut self, register: Register) -> u64 {
        let wanted = self.demand.hard.wanted(register) | self.demand.soft.wanted(register);
        let killed = match self.i.encoding() {
            EncodingKind::Legacy => register,
            // A VEX or EVEX result clears the rest of the register.
            _ if register.is_vector_register() => register.full_register(),
            _ => register,
        };
        self.demand.hard.kill(killed);
        self.demand.soft.kill(killed);
        wanted
    }

    fn need(&mut self, register: Register, mask: u64) {
        self.demand.hard.need(register, mask);
    }

    /// The registers that form the explicit memory operand's address: a wrong one traps, or leads
    /// elsewhere.
    fn addresses(&mut self) {
        let memory = (0..self.i.op_count()).any(|n| self.i.op_kind(n) == OpKind::Memory);
        if memory && self.i.mnemonic() != Mnemonic::Nop {
            for register in [self.i.memory_base(), self.i.memory_index()] {
                self.need(register, u64::MAX);
            }
        }
    }

    /// The access that the explicit memory operand makes, when it is the only one.
    fn access(&self) -> Option<Access> {
        match self.effect.accesses.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    fn need_frame(&mut self, access: Option<Access>, mask: u64) {
        let Some(range) = access.and_then(|a| a.range()) else { return };
        for (bit, byte) in range.enumerate() {
            if (bit >= 64 || mask >> bit & 1 != 0)
                && let Some(number) = self.function.effects.bytes.index(byte)
            {
                self.demand.frame.insert(number);
            }
        }
    }

    /// The bytes of an access that count, which ends their life.
    fn take_frame(&mut self, access: Option<Access>) -> u64 {
        let mut wanted = 0;
        let Some(access) = access.filter(|a| a.whole) else { return u64::MAX };
        for (bit, byte) in access.range().into_iter().flatten().enumerate() {
            let Some(number) = self.function.effects.bytes.index(byte) else { continue };
            if self.demand.frame.has(number) && bit < 64 {
                wanted |= 1 << bit;
            }
            self.demand.frame.remove(number);
        }
        wanted
    }

    /// `mov` in all its forms.
    fn copy(&mut self) {
        let i = self.i;
        let from = match i.op1_kind() {
            OpKind::Register => i.op1_register().size(),
            OpKind::Memory => i.memory_size().size(),
            _ => 0,
        };
        if !self.operand_is_register(0) {
            self.take_frame(self.access());
            self.addresses();
            if self.operand_is_register(1) {
                self.need(i.op1_register(), low(from));
            }
            return;
        }
        let to = i.op0_register();
        let wanted = self.take(to) & low(to.size());
        let mut mask = wanted & low(from);
        let signed = matches!(i.mnemonic(), Mnemonic::Movsx | Mnemonic::Movsxd);
        if signed && wanted & !low(from) != 0 && from > 0 {
            mask |= 1 << (from - 1);
        }
        self.source(1, mask);
    }

    /// An operand that is read: so many of its bytes.
    fn source(&mut self, index: u32, mask: u64) {
        match self.i.op_kind(index) {
            OpKind::Register => self.need(self.i.op_register(index), mask),
            OpKind::Memory => {
                self.addresses();
                self.need_frame(self.access(), mask);
            }
            _ => {}
        }
    }

    fn lea(&mut self) {
        let wanted = self.take(self.i.op0_register());
        let mask = up_to_highest(wanted);
        if mask != 0 {
            for register in [self.i.memory_base(), self.i.memory_index()] {
                self.need(register, mask);
            }
        }
    }

    fn push(&mut self) {
        let slot = self.effect.accesses.iter().copied().find(|a| a.write);
        let wanted = self.take_frame(slot);
        // Where an object may be, its address may be taken of what is pushed.
        let private =
            slot.and_then(|s| s.range()).is_some_and(|r| r.end <= self.function.effects.lowest);
        let mask = if private { wanted } else { u64::MAX };
        match self.i.op0_kind() {
            OpKind::Register => self.need(self.i.op0_register(), mask),
            OpKind::Memory => {
                self.addresses();
                let read = self.effect.accesses.iter().copied().find(|a| a.read);
                self.need_frame(read, mask);
            }
            _ => {}
        }
    }

    fn pop(&mut self) {
        let wanted = self.take(self.i.op0_register());
        let slot = self.effect.accesses.iter().copied().find(|a| a.read);
        self.need_frame(slot, wanted);
    }

    /// Integer arithmetic into a register: a byte of the result depends on those up to it.
    fn arithmetic(&mut self) {
        use Mnemonic as M;
        let i = self.i;
        let to = i.op0_register();
        // A count in a register may be 0, which leaves the flags alone; those forms are not here.
        let flags = self.demand.flags & i.rflags_modified() != 0;
        self.demand.flags &= !i.rflags_modified();
        let constant = matches!(i.mnemonic(), M::Xor | M::Sub) && self.same_operands();
        let plain = i.op_count() == 2 && !matches!(i.op1_kind(), OpKind::Register | OpKind::Memory);
        let number = plain.then(|| i.immediate(1));
        let three = i.op_count() == 3;
        let wanted = self.take(to);
        if constant {
            return;
        }
        let size = low(to.size());
        let wanted = if flags { size } else { wanted & size };
        let bitwise = matches!(i.mnemonic(), M::And | M::Or | M::Xor | M::Not);
        let mut mask = if bitwise { wanted } else { up_to_highest(wanted) };
        if let (Some(number), false) = (number, flags) {
            mask &= match i.mnemonic() {
                // Bytes that the number decides alone.
                M::And => !bytes_equal(number, 0),
                M::Or => !bytes_equal(number, 0xff),
                _ => u64::MAX,
            };
        }
        if mask == 0 {
            return self.addresses();
        }
        match three {
            true => {
                self.source(1, mask);
                self.source(2, mask);
            }
            false => {
                self.need(to, mask);
                if i.op_count() == 2 {
                    self.source(1, mask);
                }
            }
        }
    }

    fn vector(&mut self, lanes: &Lanes) {
        let i = self.i;
        let last = i.op_count() - 1;
        let flags = self.demand.flags & i.rflags_modified() != 0;
        self.demand.flags &= !i.rflags_modified();
        match *lanes {
            Lanes::Constant => {
                self.take(i.op0_register());
            }
            Lanes::Store(first, bytes) => {
                self.take_frame(self.access());
                self.addresses();
                self.need(i.op_register(last), low(bytes) << first);
            }
            Lanes::Read(bytes) => {
                let general = self.operand_is_register(0) && i.op0_register().is_gpr();
                let wanted = flags || general && self.take(i.op0_register()) != 0;
                match wanted {
                    true => {
                        for index in u32::from(general)..i.op_count() {
                            self.source(index, low(bytes));
                        }
                    }
                    false => self.addresses(),
                }
            }
            Lanes::Bytewise => {
                let wanted = self.take(i.op0_register()) & low(i.op0_register().size());
                for index in u32::from(i.op_count() == 3)..i.op_count() {
                    self.source(index, wanted);
                }
            }
            Lanes::LowHalves => {
                let wanted = self.take(i.op0_register()) & low(16);
                let mask = if wanted == 0 { 0 } else { low(8) };
                let unary =
                    i.op_count() == 2 && !i.op0_register().is_vector_register() || is_conversion(i);
                for index in u32::from(i.op_count() == 3 || unary)..i.op_count() {
                    self.source(index, mask);
                }
            }
            _ => self.merge(lanes, last),
        }
    }

    /// Part of the result is what was there before, or in the first of three operands.
    fn merge(&mut self, lanes: &Lanes, last: u32) {
        let to = self.i.op0_register();
        let first = u32::from(self.i.op_count() == 3 && self.i.encoding() != EncodingKind::Legacy);
        let wanted = self.take(to) & low(to.size());
        let (kept, source) = match *lanes {
            Lanes::Low { to: bytes, from, both } => {
                let result = wanted & low(bytes) != 0;
                let read = if result { low(from) } else { 0 };
                (wanted & !low(bytes) | if both { read } else { 0 }, read)
            }
            Lanes::LoadLow => (wanted & !low(8), wanted & low(8)),
            Lanes::LoadHigh => (wanted & low(8), wanted >> 8 & low(8)),
            _ => (wanted & !low(8), (wanted & low(8)) << 8),
        };
        self.source(first, kept);
        if self.i.op_kind(last) == OpKind::Register || source != 0 {
            self.source(last, source);
        } else {
            self.addresses();
        }
    }

    /// Any other instruction: everything that it reads counts, unless it does nothing but write
    /// registers and flags that nobody reads.
    fn generic(&mut self) {
        let info = &self.function.code.steps[self.index].info;
        let mut wanted = self.demand.flags & self.i.rflags_modified() != 0;
        let mut pure = !may_trap(self.i) && !self.effect.accesses.iter().any(|a| a.write);
        for used in info.used_registers() {
            let register = used.register();
            let writes =
                !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None);
            let ordinary = register.is_gpr() && register.full_register() != Register::RSP
                || register.is_vector_register()
                || register.is_k();
            pure &= !writes || ordinary;
            wanted |= writes
                && self.demand.hard.wanted(register) | self.demand.soft.wanted(register) != 0;
        }
        for used in info.used_registers() {
            if matches!(used.access(), OpAccess::Write | OpAccess::ReadWrite) {
                self.demand.hard.kill(used.register());
                self.demand.soft.kill(used.register());
            }
        }
        for access in &self.effect.accesses {
            if access.write {
                self.take_frame(Some(*access));
            }
        }
        self.generic_flags(wanted || !pure);
        match wanted || !pure {
            true => self.read_all(),
            false => self.addresses(),
        }
    }

    /// Flags: those written end their life, those read begin it.
    fn generic_flags(&mut self, counts: bool) {
        let i = self.i;
        let by_count = matches!(
            i.mnemonic(),
            Mnemonic::Shl
                | Mnemonic::Sal
                | Mnemonic::Shr
                | Mnemonic::Sar
                | Mnemonic::Rol
                | Mnemonic::Ror
                | Mnemonic::Rcl
                | Mnemonic::Rcr
                | Mnemonic::Shld
                | Mnemonic::Shrd
        ) && i.op_register(i.op_count().saturating_sub(1)) == Register::CL;
        // With a count of 0 nothing is written.
        let sure = !by_count && !i.has_rep_prefix() && !i.has_repne_prefix();
        if sure {
            self.demand.flags &= !i.rflags_modified();
        }
        if counts {
            self.demand.flags |= i.rflags_read() & STATUS;
        }
    }

    /// Everything that an instruction reads.
    fn read_all(&mut self) {
        let info = &self.function.code.steps[self.index].info;
        for used in info.used_registers() {
            let reads = matches!(
                used.access(),
                OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            );
            if reads {
                self.need(used.register(), u64::MAX);
            }
        }
        for access in self.effect.accesses.iter().filter(|a| a.read) {
            self.need_frame(Some(*access), u64::MAX);
        }
        if self.i.mnemonic() == Mnemonic::Syscall {
            for register in [
                Register::RAX,
                Register::RDI,
                Register::RSI,
                Register::RDX,
                Register::R10,
                Register::R8,
                Register::R9,
            ] {
                self.demand.soft.need(register, u64::MAX);
            }
        }
    }

    fn branch(&mut self) {
        let outside = branch_target(self.i).is_none_or(|t| self.function.code.index(t).is_none());
        if outside {
            self.tail_call();
        }
        self.demand.flags |= self.i.rflags_read() & STATUS;
        self.read_all();
    }

    fn indirect(&mut self) {
        if self.function.values.unresolved.contains(&self.index) {
            self.demand.everything = true;
        }
        if self.function.values.callees.contains_key(&self.index) {
            self.tail_call();
        }
        self.read_all();
    }

    /// The function is left for another one, which returns to the caller.
    fn tail_call(&mut self) {
        let callee = self.function.values.callees.get(&self.index).cloned();
        let callee = callee.unwrap_or(Callee::Unknown);
        self.arguments(&callee);
        if self.function.calls.returns(&callee) {
            self.callers();
        }
    }

    fn leave(&mut self) {
        *self.demand = Demand::new(self.function.effects.bytes.count);
        let own = self.function.own;
        let set = results(own);
        for number in [0, 2] {
            if set.has(Set::general(number)) {
                let register = general(number);
                match own {
                    Some(_) => self.demand.hard.need(register, u64::MAX),
                    None => self.demand.soft.need(register, u64::MAX),
                }
            }
        }
        for number in 0..2 {
            if set.has(Set::vector(number)) {
                let register = Register::XMM0 + u32::from(number);
                match own {
                    // As much of it as the widest scalar has.
                    Some(_) => self.demand.hard.need(register, low(8)),
                    None => self.demand.soft.need(register, low(16)),
                }
            }
        }
        self.callers();
    }

    /// What belongs to the caller.
    fn callers(&mut self) {
        for number in SAVED {
            self.need(general(number), u64::MAX);
        }
    }

    fn call<'l>(&mut self, landing: impl Iterator<Item = &'l Demand>) {
        let callee = self.function.values.callees.get(&self.index).cloned();
        let callee = callee.unwrap_or(Callee::Unknown);
        let ends = self.function.calls.ends(&callee);
        let kept = Set(u64::MAX).without(ends);
        self.demand.hard.keep_only(kept);
        self.demand.soft.keep_only(kept);
        // psABI 3.2.1: neither flags nor mask registers are kept by anybody.
        self.demand.hard.other = 0;
        self.demand.flags = 0;
        // psABI 3.2.3: the x87 stack is empty before a call; its result is there afterwards.
        self.demand.x87 = 0;
        if let Some(top) = self.effect.top {
            self.demand.lose_below(self.function.effects, top);
        }
        for pad in landing {
            let mut pad = pad.clone();
            pad.hard.keep_only(CALLEE_SAVED);
            pad.soft = Registers::default();
            self.demand.add(&pad);
        }
        self.arguments(&callee);
        // The target, if it is in a register or memory.
        self.read_all();
    }

    /// Registers and stack slots in which arguments are passed.
    fn arguments(&mut self, callee: &Callee) {
        let prototype = match callee {
            Callee::Descriptor => Some(Parameters::default()),
            _ => self.function.calls.prototype(callee),
        };
        let known = prototype.map_or(0, |p| usize::from(p.integer));
        let open = prototype.is_none_or(|p| p.variadic);
        for (position, number) in ARGUMENTS.into_iter().enumerate() {
            match position < known {
                true => self.demand.hard.need(general(number), u64::MAX),
                false if open => self.demand.soft.need(general(number), u64::MAX),
                false => {}
            }
        }
        let known = prototype.map_or(0, |p| p.sse);
        let passed = self.effect.vectors.map_or(8, |n| u8::try_from(n).unwrap_or(8).min(8));
        for number in 0..8 {
            let register = Register::XMM0 + u32::from(number);
            match number < known {
                true => self.demand.hard.need(register, low(8)),
                false if open && number < passed => self.demand.soft.need(register, low(16)),
                false => {}
            }
        }
        if open {
            // How many vector registers hold arguments.
            self.demand.soft.need(Register::AL, 1);
        }
        if prototype.is_none() && matches!(callee, Callee::Function(_) | Callee::Unknown) {
            // The static chain of a nested function: those have names of clones and no prototype, and no other image
            // calls them by name.
            self.demand.soft.need(Register::R10, u64::MAX);
        }
        if prototype.is_none_or(|p| p.variadic || p.stack > 0) {
            self.stacked();
        }
    }

    /// Arguments on the stack: from the stack pointer up, as long as there is what nobody here reads.
    fn stacked(&mut self) {
        let Some(top) = self.effect.top else { return };
        let effects = self.function.effects;
        for word in 0.. {
            let start = top.saturating_add(word * 8);
            let numbers: Vec<usize> =
                (start..start.saturating_add(8)).filter_map(|b| effects.bytes.index(b)).collect();
            if !numbers.iter().any(|n| effects.passed.has(*n)) {
                return;
            }
            for number in numbers {
                self.demand.frame.insert(number);
            }
        }
    }
}

fn general(number: u8) -> Register {
    // iced numbers the 64-bit registers as the processor does.
    Register::RAX + u32::from(number)
}

/// All bytes up to the highest of a mask.
fn up_to_highest(mask: u64) -> u64 {
    match mask {
        0 => 0,
        _ => u64::MAX >> mask.leading_zeros(),
    }
}

/// The bytes of a number that equal one, as a mask.
fn bytes_equal(number: u64, byte: u8) -> u64 {
    let equal = number.to_le_bytes().into_iter().enumerate().filter(|(_, b)| *b == byte);
    equal.map(|(i, _)| 1 << i).sum()
}

fn is_conversion(i: &Instruction) -> bool {
    matches!(
        i.mnemonic(),
        Mnemonic::Cvtps2pd
            | Mnemonic::Vcvtps2pd
            | Mnemonic::Cvtdq2pd
            | Mnemonic::Vcvtdq2pd
            | Mnemonic::Movddup
            | Mnemonic::Vmovddup
    )
}

/// Whether an instruction does more than compute: traps on some operands, or acts on the world.
fn may_trap(i: &Instruction) -> bool {
    matches!(
        i.mnemonic(),
        Mnemonic::Div
            | Mnemonic::Idiv
            | Mnemonic::Syscall
            | Mnemonic::Cpuid
            | Mnemonic::Rdtsc
            | Mnemonic::Rdtscp
            | Mnemonic::Xgetbv
            | Mnemonic::Rdpmc
    ) || i.is_privileged()
        || i.flow_control() != FlowControl::Next
        || i.is_stack_instruction()
}
