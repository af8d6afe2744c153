//! Execution of a stub over symbols.
//!
//! Takes its instructions; gives the state that they end in. Refuses instructions that it does not
//! know, writes that are not allowed anywhere, reads of what no table can speak of.

use super::stub::{self, Operation};
use super::word::{Byte, Term, Terms, known, number};
use super::{Finding, Rule};
use dsu_patch_format::NewAddr;
use dsu_patch_format::frames::{Binary, Location};
use dsu_patch_format::plan::{Fixup, FixupKind, Plan, Protection, Target};
use iced_x86::{EncodingKind, Instruction, Mnemonic, OpKind, Register};
use std::collections::BTreeMap;

/// Bytes below the stack pointer that signal handlers leave alone (psABI 3.2.2).
pub(super) const RED_ZONE: i64 = 128;
/// Number of rsp.
pub(super) const RSP: usize = 4;
/// Bytes that one string instruction may copy.
const LONGEST_COPY: u64 = 1 << 20;

/// What an execution may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits<'p> {
    /// Where constants of the stub are.
    pub(super) plan: &'p Plan,
    /// Where nothing may be written, `[start, end)` from the CFA.
    pub(super) objects: &'p [(i64, i64)],
    /// Bytes of the widest vector location that the table names; tells which instruction sets the
    /// processor has.
    pub(super) widest: u8,
}

/// A moment of an execution.
#[derive(Debug)]
pub(super) struct State<'p> {
    pub(super) terms: Terms,
    limits: Limits<'p>,
    general: Vec<Vec<Byte>>,
    vector: Vec<Vec<Byte>>,
    flags: Vec<Byte>,
    memory: BTreeMap<i64, Byte>,
    /// Everything below this offset was lost to a signal, unless written since.
    lost: i64,
}

impl<'p> State<'p> {
    /// OLD's state: each location holds its own symbol. Memory below `lost` holds nothing known.
    pub(super) fn new(old_depth: i64, lost: i64, limits: Limits<'p>) -> Self {
        let mut terms = Terms::default();
        let mut general: Vec<_> = (0..16).map(|n| terms.bytes(Term::General(n), 8)).collect();
        general[RSP] = terms.bytes(Term::Frame(-old_depth), 8);
        let vector = (0..32).map(|n| terms.bytes(Term::Vector(n), 64)).collect();
        let flags = terms.bytes(Term::Flags, 8);
        Self { terms, limits, general, vector, flags, memory: BTreeMap::new(), lost }
    }

    /// A general register.
    pub(super) fn general(&self, number: u8) -> &[Byte] {
        self.general.get(usize::from(number)).map_or(&[], Vec::as_slice)
    }

    /// A vector register.
    pub(super) fn vector(&self, number: u8) -> &[Byte] {
        self.vector.get(usize::from(number)).map_or(&[], Vec::as_slice)
    }

    /// The stack pointer, from the CFA.
    pub(super) fn stack_pointer(&self) -> Option<i64> {
        self.terms.frame(self.general(4))
    }

    /// Whether the flags are OLD's.
    pub(super) fn flags_kept(&mut self) -> bool {
        let initial = self.terms.bytes(Term::Flags, 8);
        self.flags == initial
    }

    /// Whether a byte of the stack is what it was in OLD.
    pub(super) fn untouched(&mut self, offset: i64) -> bool {
        let initial = self.terms.byte(Term::Stack(offset));
        self.stack(offset) == initial
    }

    /// Whether a register holds what it held in OLD.
    pub(super) fn kept(&mut self, place: &Location) -> bool {
        match *place {
            Location::General { number, bytes } => {
                let initial = self.terms.bytes(Term::General(number), bytes);
                self.general(number).get(..usize::from(bytes)) == Some(&initial)
            }
            Location::Vector { number, bytes } => {
                let initial = self.terms.bytes(Term::Vector(number), bytes);
                self.vector(number).get(..usize::from(bytes)) == Some(&initial)
            }
            Location::Slot { .. } => false,
        }
    }

    /// A byte of the stack.
    pub(super) fn stack(&mut self, offset: i64) -> Byte {
        match self.memory.get(&offset) {
            Some(byte) => *byte,
            None if offset < self.lost => self.terms.unknown(),
            None => self.terms.byte(Term::Stack(offset)),
        }
    }

    /// Executes instructions, a signal after each.
    pub(super) fn run(&mut self, operations: &[Operation]) -> Result<(), Finding> {
        for operation in operations {
            self.check_form(operation)?;
            self.step(operation)?;
            self.signal(operation)?;
        }
        Ok(())
    }

    /// A signal handler may run now: only the red zone below the stack pointer is kept.
    fn signal(&mut self, operation: &Operation) -> Result<(), Finding> {
        let Some(top) = self.stack_pointer() else {
            let what = format!("after `{}` the stack pointer is not known", operation.instruction);
            return Err(Finding::new(Rule::StackPointer, what));
        };
        self.lost = self.lost.max(top.saturating_sub(RED_ZONE));
        let floor = top.saturating_sub(RED_ZONE);
        if self.memory.first_key_value().is_some_and(|(at, _)| *at < floor) {
            self.memory = self.memory.split_off(&floor);
        }
        Ok(())
    }

    /// What holds of every instruction: no prefixes with a meaning of their own, no masks, no
    /// instruction set beyond what the table's locations show the processor to have.
    fn check_form(&self, operation: &Operation) -> Result<(), Finding> {
        let i = &operation.instruction;
        let plain = !i.has_lock_prefix()
            && !i.has_op_mask()
            && !i.is_broadcast()
            && !i.zeroing_masking()
            && !i.has_repne_prefix()
            && (!i.is_stack_instruction() || matches!(i.stack_pointer_increment(), 8 | -8));
        if !plain {
            return Err(unknown_instruction(operation));
        }
        let needed = match i.encoding() {
            EncodingKind::Legacy => 0,
            EncodingKind::VEX => 32,
            _ => 64,
        };
        if needed > self.limits.widest {
            let what =
                format!("`{i}`, while no location in the table is as wide as {needed} bytes");
            return Err(Finding::new(Rule::InstructionSet, what));
        }
        Ok(())
    }

    fn step(&mut self, operation: &Operation) -> Result<(), Finding> {
        use Mnemonic as M;
        let i = &operation.instruction;
        match i.mnemonic() {
            M::Nop | M::Endbr64 => Ok(()),
            M::Mov | M::Movzx => self.copy(operation, |_, _| Byte::Known(0)),
            M::Movsx | M::Movsxd => self.copy(operation, |terms, top| terms.sign(top)),
            M::Lea => {
                let address = self.address(operation)?;
                self.write(operation, 0, &address)
            }
            M::Add => self.arithmetic(operation, Binary::Add),
            M::Sub => self.arithmetic(operation, Binary::Sub),
            M::Imul if i.op_count() >= 2 => self.arithmetic(operation, Binary::Mul),
            M::And => self.arithmetic(operation, Binary::And),
            M::Or => self.arithmetic(operation, Binary::Or),
            M::Xor => self.arithmetic(operation, Binary::Xor),
            M::Shl | M::Sal => self.arithmetic(operation, Binary::Shl),
            M::Shr => self.arithmetic(operation, Binary::Shr),
            M::Sar => self.arithmetic(operation, Binary::Sar),
            M::Xchg => self.exchange(operation),
            M::Push => {
                let value = self.wide_operand(operation)?;
                self.push(operation, &value)
            }
            M::Pushfq => {
                let flags = self.flags.clone();
                self.push(operation, &flags)
            }
            M::Pop => {
                let value = self.pop(operation)?;
                self.write(operation, 0, &value)
            }
            M::Popfq => {
                let initial = self.terms.bytes(Term::Flags, 8);
                self.flags = self.pop(operation)?;
                // Not only the status flags are in there.
                match self.flags == initial {
                    true => Ok(()),
                    false => Err(Finding::new(Rule::Flags, "`popfq` of what are not OLD's flags")),
                }
            }
            M::Movsb if string(i) => self.copy_string(operation, 1),
            M::Movsq if string(i) => self.copy_string(operation, 8),
            _ => self.step_vector(operation),
        }
    }

    /// `mov` and its extending forms: the source's bytes, then what `extend` makes of the last one.
    fn copy(
        &mut self,
        operation: &Operation,
        extend: impl Fn(&mut Terms, Byte) -> Byte,
    ) -> Result<(), Finding> {
        let mut value = self.read(operation, 1)?;
        let i = &operation.instruction;
        let size = size(i, 0);
        if let (Some(f), OpKind::Register) = (&operation.immediate, i.op0_kind())
            && let (FixupKind::Abs32, Some((Bank::General, n, 4 | 8))) =
                (f.kind, place(i.op0_register()))
        {
            // The same number whether 4 bytes are extended by zeroes or by their sign.
            self.general[n] = self.terms.thing(f.target, f.addend);
            return Ok(());
        }
        let top = value.last().copied().unwrap_or(Byte::Known(0));
        let filler = extend(&mut self.terms, top);
        value.resize(size, filler);
        self.write(operation, 0, &value)
    }

    /// Two and three operand arithmetic. Its flags are not followed.
    fn arithmetic(&mut self, operation: &Operation, op: Binary) -> Result<(), Finding> {
        let i = &operation.instruction;
        let width = size(i, 0);
        if !matches!(width, 4 | 8) || i.op0_kind() != OpKind::Register {
            return Err(unknown_instruction(operation));
        }
        let (left, right) = if i.op_count() == 3 { (1, 2) } else { (0, 1) };
        let a = self.read(operation, left)?;
        let mut b = self.read(operation, right)?;
        b.resize(width, Byte::Known(0));
        let value = self.terms.binary(op, &a, &b);
        self.flags = (0..8).map(|_| self.terms.unknown()).collect();
        self.write(operation, 0, &value)
    }

    fn exchange(&mut self, operation: &Operation) -> Result<(), Finding> {
        let i = &operation.instruction;
        if i.op0_kind() != OpKind::Register || i.op1_kind() != OpKind::Register {
            return Err(unknown_instruction(operation));
        }
        let (a, b) = (self.read(operation, 0)?, self.read(operation, 1)?);
        self.write(operation, 0, &b)?;
        self.write(operation, 1, &a)
    }

    /// The eight bytes that `push` pushes.
    fn wide_operand(&mut self, operation: &Operation) -> Result<Vec<Byte>, Finding> {
        let value = self.read(operation, 0)?;
        match value.len() {
            8 => Ok(value),
            _ => Err(unknown_instruction(operation)),
        }
    }

    fn push(&mut self, operation: &Operation, value: &[Byte]) -> Result<(), Finding> {
        let top = self.stack_pointer().ok_or_else(|| unknown_instruction(operation))?;
        let top = top.wrapping_sub(8);
        self.general[RSP] = self.terms.bytes(Term::Frame(top), 8);
        self.store(operation, top, value)
    }

    fn pop(&mut self, operation: &Operation) -> Result<Vec<Byte>, Finding> {
        let top = self.stack_pointer().ok_or_else(|| unknown_instruction(operation))?;
        let value = self.load_stack(top, 8);
        self.general[RSP] = self.terms.bytes(Term::Frame(top.wrapping_add(8)), 8);
        Ok(value)
    }

    /// `rep movs`, upwards (the direction flag is clear wherever compiled code runs, psABI 3.2.1).
    fn copy_string(&mut self, operation: &Operation, unit: u64) -> Result<(), Finding> {
        let i = &operation.instruction;
        let count = if i.has_rep_prefix() { number(self.general(1)) } else { Some(1) };
        let places = (self.terms.frame(self.general(6)), self.terms.frame(self.general(7)));
        let (Some(count), (Some(mut from), Some(mut to))) = (count, places) else {
            let what = format!("`{i}` with a count or an address that is not known");
            return Err(Finding::new(Rule::Write, what));
        };
        if count.checked_mul(unit).is_none_or(|total| total > LONGEST_COPY) {
            return Err(unknown_instruction(operation));
        }
        let step = unit.cast_signed();
        for _ in 0..count {
            let value = self.load_stack(from, unit);
            self.store(operation, to, &value)?;
            (from, to) = (from.wrapping_add(step), to.wrapping_add(step));
        }
        self.general[6] = self.terms.bytes(Term::Frame(from), 8);
        self.general[7] = self.terms.bytes(Term::Frame(to), 8);
        if i.has_rep_prefix() {
            self.general[1] = known(0, 8);
        }
        Ok(())
    }

    fn step_vector(&mut self, operation: &Operation) -> Result<(), Finding> {
        let i = &operation.instruction;
        match form(i) {
            Some(Form::Whole) => {
                let value = self.read(operation, 1)?;
                self.write(operation, 0, &value)
            }
            Some(Form::Low(bytes)) => {
                let mut value = self.read_low(operation, 1, bytes)?;
                // From memory or a general register the rest of the low 16 bytes is cleared.
                let merges = matches!(i.mnemonic(), Mnemonic::Movss | Mnemonic::Movsd)
                    && i.op1_kind() == OpKind::Register;
                if is_vector(i, 0) && !merges {
                    value.resize(16, Byte::Known(0));
                }
                self.write(operation, 0, &value)
            }
            Some(Form::Zero) => {
                let bytes = size(i, 0);
                self.write(operation, 0, &vec![Byte::Known(0); bytes])
            }
            None => Err(unknown_instruction(operation)),
        }
    }

    /// The low bytes of an operand.
    fn read_low(
        &mut self,
        operation: &Operation,
        index: u32,
        bytes: usize,
    ) -> Result<Vec<Byte>, Finding> {
        let mut value = self.read(operation, index)?;
        value.truncate(bytes);
        Ok(value)
    }

    /// An operand's bytes.
    fn read(&mut self, operation: &Operation, index: u32) -> Result<Vec<Byte>, Finding> {
        let i = &operation.instruction;
        match i.op_kind(index) {
            OpKind::Register => match place(i.op_register(index)) {
                Some((Bank::General, n, bytes)) => Ok(self.general[n][..bytes].to_vec()),
                Some((Bank::Vector, n, bytes)) => Ok(self.vector[n][..bytes].to_vec()),
                None => Err(unknown_instruction(operation)),
            },
            OpKind::Memory => self.load(operation),
            kind if is_immediate(kind) => Ok(self.immediate(operation, index)),
            _ => Err(unknown_instruction(operation)),
        }
    }

    fn immediate(&mut self, operation: &Operation, index: u32) -> Vec<Byte> {
        let i = &operation.instruction;
        let width = match i.mnemonic() {
            Mnemonic::Push => 8,
            _ => size(i, 0),
        };
        let mut value = match &operation.immediate {
            // `S + A`; a 32-bit field is checked to be the same however it is extended.
            Some(fixup) => self.terms.thing(fixup.target, fixup.addend),
            None => known(i.immediate(index), 8),
        };
        value.truncate(width);
        value
    }

    /// Writes a register, with what its width does to the rest of it, or memory.
    fn write(&mut self, operation: &Operation, index: u32, value: &[Byte]) -> Result<(), Finding> {
        let i = &operation.instruction;
        if i.op_kind(index) == OpKind::Memory {
            let address = self.address(operation)?;
            let Some(offset) = self.terms.frame(&address) else {
                let what =
                    format!("`{i}` writes to what is not known to be an address of the frame");
                return Err(Finding::new(Rule::Write, what));
            };
            return self.store(operation, offset, value);
        }
        let Some((bank, n, bytes)) = place(i.op_register(index)) else {
            return Err(unknown_instruction(operation));
        };
        let register = match bank {
            Bank::General => &mut self.general[n],
            Bank::Vector => &mut self.vector[n],
        };
        let value = &value[..value.len().min(bytes)];
        register[..value.len()].copy_from_slice(value);
        // SDM volume 1, 3.4.1.1: a 32-bit result clears the upper half. Volume 1, 14.2: a VEX or EVEX
        // coded one clears the rest of the vector register; a legacy one leaves it.
        let clears = match bank {
            Bank::General => bytes == 4,
            Bank::Vector => i.encoding() != EncodingKind::Legacy,
        };
        if clears {
            register[value.len()..].fill(Byte::Known(0));
        }
        Ok(())
    }

    /// Stores at an offset from the CFA, where that is allowed.
    fn store(&mut self, operation: &Operation, offset: i64, value: &[Byte]) -> Result<(), Finding> {
        let end = i64::try_from(value.len()).ok().and_then(|n| offset.checked_add(n));
        let top = self.stack_pointer();
        let inside = |end: i64| top.is_some_and(|t| offset >= t) && end <= -8;
        let object = |end: i64| self.limits.objects.iter().find(|o| o.0 < end && offset < o.1);
        let refusal = match end {
            Some(end) if !inside(end) => {
                format!("outside of the frame (rsp is CFA{:+})", top.unwrap_or(0))
            }
            Some(end) => match object(end) {
                None => {
                    for (at, byte) in (offset..).zip(value) {
                        self.memory.insert(at, *byte);
                    }
                    return Ok(());
                }
                Some((from, to)) => format!("into the object at CFA{from:+} to CFA{to:+}"),
            },
            None => "out of bounds".to_owned(),
        };
        let what = format!("`{}` writes at CFA{offset:+}, {refusal}", operation.instruction);
        Err(Finding::new(Rule::Write, what))
    }

    fn load_stack(&mut self, offset: i64, bytes: u64) -> Vec<Byte> {
        (0..bytes.cast_signed()).map(|i| self.stack(offset.wrapping_add(i))).collect()
    }

    /// A memory operand's content: of the frame, a constant of the shadow image, the canary.
    fn load(&mut self, operation: &Operation) -> Result<Vec<Byte>, Finding> {
        let i = &operation.instruction;
        let refusal = |what: &str| Err(Finding::new(Rule::Read, format!("`{i}` reads {what}")));
        let bytes = i.memory_size().size() as u64;
        if i.memory_segment() == Register::FS {
            let canary = i.memory_base() == Register::None
                && i.memory_index() == Register::None
                && operation.displacement.is_none()
                && i.memory_displacement64() == 0x28
                && bytes == 8;
            return match canary {
                true => Ok(self.terms.bytes(Term::Canary, 8)),
                false => refusal("a thread-local place"),
            };
        }
        let address = self.address(operation)?;
        match self.terms.whole(&address).cloned() {
            Some(Term::Frame(offset)) => Ok(self.load_stack(offset, bytes)),
            Some(Term::Thing(Target::New(NewAddr(0)), at)) => {
                match constant(self.limits.plan, NewAddr(at.cast_unsigned()), bytes) {
                    Some(Constant::Bytes(value)) => Ok(value),
                    Some(Constant::Thing(f)) => Ok(self.terms.thing(f.target, f.addend)),
                    None => refusal("what is no constant of the shadow image"),
                }
            }
            _ => refusal("at an address that is not the frame's"),
        }
    }

    /// The address that a memory operand forms.
    fn address(&mut self, operation: &Operation) -> Result<Vec<Byte>, Finding> {
        let i = &operation.instruction;
        let flat = matches!(i.memory_segment(), Register::DS | Register::SS | Register::FS);
        if i.is_ip_rel_memory_operand() {
            return match &operation.displacement {
                None => Ok(self.terms.thing(Target::New(NewAddr(i.ip_rel_memory_address())), 0)),
                Some(f) if f.kind == FixupKind::Rel32 => {
                    // The field becomes S + A - P, and counts from the end of the instruction.
                    let from_field = i.next_ip().wrapping_sub(f.at.0).cast_signed();
                    Ok(self.terms.thing(f.target, f.addend.wrapping_add(from_field)))
                }
                Some(_) => Err(unknown_instruction(operation)),
            };
        }
        let mut sum = match &operation.displacement {
            Some(f) if f.kind == FixupKind::Abs32 => self.terms.thing(f.target, f.addend),
            Some(_) => return Err(unknown_instruction(operation)),
            None => known(i.memory_displacement64(), 8),
        };
        let parts = [(i.memory_base(), 1), (i.memory_index(), u64::from(i.memory_index_scale()))];
        for (register, scale) in parts {
            if register == Register::None {
                continue;
            }
            let Some((Bank::General, n, 8)) = place(register) else {
                return Err(unknown_instruction(operation));
            };
            let value = self.general[n].clone();
            let scaled = match scale {
                1 => value,
                _ => {
                    let bits = known(u64::from(scale.trailing_zeros()), 8);
                    self.terms.binary(Binary::Shl, &value, &bits)
                }
            };
            sum = self.terms.binary(Binary::Add, &scaled, &sum);
        }
        if flat { Ok(sum) } else { Err(unknown_instruction(operation)) }
    }
}

/// What constant memory of the shadow image holds.
enum Constant {
    Bytes(Vec<Byte>),
    Thing(Fixup),
}

fn constant(plan: &Plan, at: NewAddr, bytes: u64) -> Option<Constant> {
    let (segment, _) = stub::segment(plan, at, bytes)?;
    let content = stub::content(plan, at, bytes)?;
    if segment.protection == Protection::Data {
        return None;
    }
    match stub::fixups(plan, at, bytes) {
        [] => Some(Constant::Bytes(content.iter().map(|b| Byte::Known(*b)).collect())),
        [f] if f.kind == FixupKind::Abs64 && f.at == at && bytes == 8 => Some(Constant::Thing(*f)),
        _ => None,
    }
}

/// Which registers a register belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bank {
    General,
    Vector,
}

/// Bank, number and bytes of a register; `None` for the high bytes (`ah`) and all others.
pub(super) fn place(register: Register) -> Option<(Bank, usize, usize)> {
    let high = matches!(register, Register::AH | Register::BH | Register::CH | Register::DH);
    let bank = match register {
        r if high || !(r.is_gpr() || r.is_vector_register()) => return None,
        r if r.is_gpr() => Bank::General,
        _ => Bank::Vector,
    };
    Some((bank, register.full_register().number(), register.size()))
}

/// What sort of vector move an instruction is.
pub(super) enum Form {
    /// All bytes of the operand.
    Whole,
    /// So many low bytes.
    Low(usize),
    /// Both operands the same: the result is 0.
    Zero,
}

/// The vector moves that stubs may have. Those that need aligned memory are moves between registers
/// only: nobody proves more of a CFA than its alignment to 8 (gcc's `-fipa-stack-alignment`).
pub(super) fn form(i: &Instruction) -> Option<Form> {
    use Mnemonic as M;
    let registers = is_vector(i, 0) && is_vector(i, 1);
    let some = is_vector(i, 0) || is_vector(i, 1);
    match i.mnemonic() {
        M::Movdqu | M::Movups | M::Movupd | M::Vmovdqu | M::Vmovups | M::Vmovupd => {
            Some(Form::Whole)
        }
        M::Vmovdqu8 | M::Vmovdqu16 | M::Vmovdqu32 | M::Vmovdqu64 => Some(Form::Whole),
        M::Movaps | M::Movapd | M::Movdqa | M::Vmovaps | M::Vmovapd | M::Vmovdqa if registers => {
            Some(Form::Whole)
        }
        M::Vmovdqa32 | M::Vmovdqa64 if registers => Some(Form::Whole),
        M::Movd | M::Vmovd if some => Some(Form::Low(4)),
        M::Movq | M::Vmovq if some => Some(Form::Low(8)),
        M::Movss if some => Some(Form::Low(4)),
        M::Movsd if some => Some(Form::Low(8)),
        M::Vmovss if some && i.op_count() == 2 => Some(Form::Low(4)),
        M::Vmovsd if some && i.op_count() == 2 => Some(Form::Low(8)),
        M::Pxor | M::Xorps | M::Xorpd
            if registers && i.op0_register() == i.op1_register() && i.op_count() == 2 =>
        {
            Some(Form::Zero)
        }
        M::Vpxor | M::Vxorps | M::Vxorpd | M::Vpxord | M::Vpxorq
            if i.op_count() == 3
                && is_vector(i, 2)
                && i.op1_register() == i.op2_register()
                && registers =>
        {
            Some(Form::Zero)
        }
        _ => None,
    }
}

pub(super) fn is_vector(i: &Instruction, index: u32) -> bool {
    i.op_kind(index) == OpKind::Register && i.op_register(index).is_vector_register()
}

/// Both operands are where `movs` has them, with 64-bit addresses and no segment but the usual.
pub(super) fn string(i: &Instruction) -> bool {
    i.op0_kind() == OpKind::MemoryESRDI
        && i.op1_kind() == OpKind::MemorySegRSI
        && i.memory_segment() == Register::DS
}

pub(super) fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

/// Bytes of an operand.
pub(super) fn size(i: &Instruction, index: u32) -> usize {
    match i.op_kind(index) {
        OpKind::Register => i.op_register(index).size(),
        OpKind::Memory => i.memory_size().size(),
        _ => 8,
    }
}

pub(super) fn unknown_instruction(operation: &Operation) -> Finding {
    let i = &operation.instruction;
    Finding::new(Rule::Whitelist, format!("`{i}` at {:#x} of the stub", i.ip()))
}
