//! What each register and slot must hold: the forward analysis of one function, and with it where
//! indirect jumps lead.
//!
//! The lattice: a location holds one [`Known`] value on every path, or [`Known::Nothing`] is known.
//! Joins keep what is equal. What it knows of the stack pointer gives every frame access its place.

use super::calls::{ARGUMENTS, Callee, Calls, SAVED};
use super::code::{Code, Step, branch_target};
use super::jumps::Bases;
use super::rows::Base;
use super::targets::{absolute_targets, candidates, leads_out, relative_targets};
use crate::image::Meaning;
use iced_x86::{FlowControl, Instruction, Mnemonic, OpAccess, OpKind, Register, UsedMemory};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    /// CFA plus this.
    Frame(i64),
    /// What the caller has in this callee-saved register.
    Caller(u8),
    /// `%fs:0x28`.
    Canary,
    Number(u64),
    /// An address of the image.
    Address(u64),
    /// A 32-bit entry of the table at this address.
    Entry(u64),
    /// Such an entry plus the table's address.
    Target(u64),
    /// A 64-bit entry of the table at this address.
    Pointer(u64),
}

use Known::{Address, Caller, Canary, Entry, Frame, Nothing, Number, Pointer, Target};

/// rsp, rbp by number.
pub(super) const RSP: usize = 4;
pub(super) const RBP: usize = 5;

/// What is known at one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) general: [Known; 16],
    /// Slots of eight bytes, by offset from the CFA.
    pub(super) slots: BTreeMap<i64, Known>,
    /// Tables of jumps that may be had from each place.
    pub(super) bases: Bases,
}

impl State {
    /// psABI 3.2.2: at the entry the return address is on top.
    fn entry() -> Self {
        let mut general = [Nothing; 16];
        general[RSP] = Frame(-8);
        for number in SAVED {
            general[usize::from(number)] = Caller(number);
        }
        Self { general, slots: BTreeMap::new(), bases: Bases::default() }
    }

    pub(super) fn stack_pointer(&self) -> Option<i64> {
        match self.general[RSP] {
            Frame(offset) => Some(offset),
            _ => None,
        }
    }

    fn join(&mut self, other: &Self) {
        for (a, b) in self.general.iter_mut().zip(&other.general) {
            if *a != *b {
                *a = Nothing;
            }
        }
        self.slots.retain(|at, value| other.slots.get(at) == Some(value));
        self.bases.join(&other.bases);
    }

    pub(super) fn register(&self, register: Register) -> Known {
        match register.is_gpr64() {
            true => self.general[register.number() & 15],
            false => Nothing,
        }
    }

    fn set(&mut self, register: Register, value: Known) {
        let full = register.full_register();
        if full.is_gpr64() {
            let exact = register.is_gpr64() || register.is_gpr32() && is_low(value);
            self.general[full.number() & 15] = if exact { value } else { Nothing };
        }
    }

    fn forget(&mut self, start: i64, bytes: i64) {
        let end = start.saturating_add(bytes);
        let from = start.saturating_sub(7);
        let gone: Vec<i64> = self.slots.range(from..end.max(from)).map(|(k, _)| *k).collect();
        for key in gone {
            self.slots.remove(&key);
        }
    }

    /// Code elsewhere, or a write through a pointer, may change what has its address taken; not what
    /// only the prologue writes.
    fn forget_shared(&mut self) {
        self.slots.retain(|_, value| matches!(value, Caller(_) | Canary));
    }

    fn store(&mut self, at: i64, bytes: i64, value: Known) {
        self.forget(at, bytes);
        if bytes == 8 && value != Nothing {
            self.slots.insert(at, value);
        }
    }
}

/// A number that a 32-bit register holds whole.
fn is_low(value: Known) -> bool {
    matches!(value, Number(n) if u32::try_from(n).is_ok())
}

fn plus(value: Known, added: u64) -> Known {
    match value {
        Frame(k) => Frame(k.wrapping_add(added.cast_signed())),
        Number(n) => Number(n.wrapping_add(added)),
        Address(a) => Address(a.wrapping_add(added)),
        _ => Nothing,
    }
}

/// Where a memory operand leads, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// CFA plus this.
    Frame(i64),
    /// Around CFA plus this: an index is not known.
    Indexed(i64),
    /// Not in the frame, or through a pointer.
    Elsewhere,
}

/// The place of a memory access.
pub(super) fn place(state: &State, memory: &UsedMemory) -> Place {
    let index = match memory.index() {
        Register::None => Number(0),
        register => state.register(register),
    };
    let displacement = memory.displacement();
    let scaled = |n: u64| n.wrapping_mul(memory.scale() as u64).wrapping_add(displacement);
    if matches!(memory.segment(), Register::FS | Register::GS) {
        return Place::Elsewhere;
    }
    match (state.register(memory.base()), index) {
        (Frame(k), Number(n)) => Place::Frame(k.wrapping_add(scaled(n).cast_signed())),
        (Frame(k), _) => Place::Indexed(indexed(memory.base(), k, displacement)),
        (base, Frame(k)) if memory.scale() == 1 => match base {
            Number(n) => Place::Frame(k.wrapping_add(n.wrapping_add(displacement).cast_signed())),
            _ => Place::Indexed(k),
        },
        _ => Place::Elsewhere,
    }
}

/// What is indexed by base, displacement and an unknown index: where a register was pointed at, for the
/// displacement may belong to the index (`buffer[n - 4]`); but from the stack or frame pointer on, the
/// displacement says what it is.
pub(super) fn indexed(base: Register, offset: i64, displacement: u64) -> i64 {
    // `push %rbp; mov %rsp, %rbp` leaves the frame pointer at CFA-16.
    match base == Register::RSP || base == Register::RBP && offset == -16 {
        true => offset.wrapping_add(displacement.cast_signed()),
        false => offset,
    }
}

/// The analysis of one function.
#[derive(Debug)]
pub(super) struct Values {
    /// At the start of each block; `None` where no path leads.
    pub(super) states: Vec<Option<State>>,
    /// Blocks that may follow each.
    pub(super) successors: Vec<Vec<usize>>,
    /// Blocks that end with calls which do not come back with the numbers that they are given, whatever is behind.
    pub(super) ended: BTreeSet<usize>,
    /// Landing pads that may follow each.
    pub(super) pads: Vec<Vec<usize>>,
    /// Indirect jumps of which nobody knows where they lead, by step.
    pub(super) unresolved: BTreeSet<usize>,
    /// The callee of each call and of each jump out of the function, by step.
    pub(super) callees: BTreeMap<usize, Callee>,
    /// Blocks that end with a jump of which no path so far shows a table.
    open: BTreeSet<usize>,
    /// Those of them that stayed so when all else was known: they lead through any table.
    given_up: BTreeSet<usize>,
}

/// Executes one instruction.
pub(super) fn transfer(state: &mut State, code: &Code, index: usize, callee: Option<&Callee>) {
    let Some(step) = code.steps.get(index) else { return };
    let i = &step.instruction;
    let result = result(state, step);
    let top = state.stack_pointer();
    if !is_call(i) {
        Bases::step(state, code, index);
    } else {
        // Callee-saved registers and the stack pointer come back as they were.
        for (number, value) in state.general.iter_mut().enumerate() {
            let saved = number == RSP || SAVED.iter().any(|s| usize::from(*s) == number);
            if !saved && callee != Some(&Callee::Descriptor) || number == 0 {
                *value = Nothing;
            }
        }
        state.forget_shared();
        return;
    }
    let pushed = match i.mnemonic() {
        Mnemonic::Push if i.stack_pointer_increment() == -8 => operand(state, i, 0),
        _ => Nothing,
    };
    for memory in step.info.used_memory() {
        if matches!(memory.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess) {
            continue;
        }
        let bytes = i64::try_from(memory.memory_size().size()).unwrap_or(0);
        match place(state, memory) {
            Place::Frame(at) if bytes > 0 && !i.has_rep_prefix() && !i.has_repne_prefix() => {
                let value = match i.mnemonic() {
                    Mnemonic::Push => pushed,
                    Mnemonic::Mov => operand(state, i, 1),
                    _ => Nothing,
                };
                state.store(at, bytes, value);
            }
            _ => state.forget_shared(),
        }
    }
    for used in step.info.used_registers() {
        if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None) {
            state.set(used.register().full_register(), Nothing);
        }
    }
    if i.is_stack_instruction() && i.mnemonic() != Mnemonic::Leave {
        let moved = u64::from_ne_bytes(i64::from(i.stack_pointer_increment()).to_ne_bytes());
        state.general[RSP] = top.map_or(Nothing, |t| plus(Frame(t), moved));
    }
    for (register, value) in result.into_iter().flatten() {
        state.set(register, value);
    }
}

/// Whether an instruction calls code (iced counts `syscall` among the calls, too).
pub(super) fn is_call(i: &Instruction) -> bool {
    i.mnemonic() == Mnemonic::Call
}

/// The registers of which the instruction's result is known, and the result.
fn result(state: &State, step: &Step) -> [Option<(Register, Known)>; 2] {
    use Mnemonic as M;
    let i = &step.instruction;
    if i.mnemonic() == M::Leave {
        let base = state.general[RBP];
        let saved = match base {
            Frame(k) => state.slots.get(&k).copied().unwrap_or(Nothing),
            _ => Nothing,
        };
        return [Some((Register::RSP, plus(base, 8))), Some((Register::RBP, saved))];
    }
    // What is compared or pushed stays as it is.
    let reads =
        matches!(step.info.op0_access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead);
    if i.op_count() == 0 || i.op0_kind() != OpKind::Register || reads {
        return [None, None];
    }
    let to = i.op0_register();
    let value = match i.mnemonic() {
        M::Mov => operand(state, i, 1),
        M::Movsxd if i.op1_kind() == OpKind::Memory => table(state, i, 4).map_or(Nothing, Entry),
        M::Pop if i.stack_pointer_increment() == 8 => {
            state.stack_pointer().and_then(|top| state.slots.get(&top).copied()).unwrap_or(Nothing)
        }
        M::Lea => address(state, i),
        M::Add => match (state.register(to), operand(state, i, 1)) {
            (Entry(t), Address(a)) | (Address(a), Entry(t)) if a == t => Target(t),
            (a, Number(n)) => plus(a, n),
            (Number(n), b) => plus(b, n),
            _ => Nothing,
        },
        M::Sub | M::Xor if i.op1_kind() == OpKind::Register && i.op1_register() == to => Number(0),
        M::Sub => match operand(state, i, 1) {
            Number(n) => plus(state.register(to), n.wrapping_neg()),
            _ => Nothing,
        },
        _ => Nothing,
    };
    // A 32-bit form has a result of 32 bits.
    let value = if to.is_gpr64() || is_low(value) { value } else { Nothing };
    [Some((to, value)), None]
}

/// An operand of eight bytes, or a number.
fn operand(state: &State, i: &Instruction, index: u32) -> Known {
    match i.op_kind(index) {
        OpKind::Register => {
            let register = i.op_register(index);
            let value = state.register(register.full_register());
            if register.is_gpr64() || register.is_gpr32() && is_low(value) {
                value
            } else {
                Nothing
            }
        }
        OpKind::Memory => loaded(state, i),
        OpKind::Immediate8
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => {
            let narrow = i.op0_kind() == OpKind::Register && i.op0_register().is_gpr32();
            let number = i.immediate(index);
            Number(if narrow { number & u64::from(u32::MAX) } else { number })
        }
        _ => Nothing,
    }
}

/// What a load of eight bytes gives.
fn loaded(state: &State, i: &Instruction) -> Known {
    if i.memory_size().size() != 8 {
        return Nothing;
    }
    if i.memory_segment() == Register::FS {
        let canary = i.memory_base() == Register::None
            && i.memory_index() == Register::None
            && i.memory_displacement64() == 0x28;
        return if canary { Canary } else { Nothing };
    }
    if i.memory_index() == Register::None
        && let Frame(k) = state.register(i.memory_base())
    {
        let at = k.wrapping_add(i.memory_displacement64().cast_signed());
        return state.slots.get(&at).copied().unwrap_or(Nothing);
    }
    table(state, i, 8).map_or(Nothing, Pointer)
}

/// The table that a memory operand with an index scaled by the size of its entries reads.
fn table(state: &State, i: &Instruction, entry: u32) -> Option<u64> {
    if i.memory_index() == Register::None || i.memory_index_scale() != entry {
        return None;
    }
    match state.register(i.memory_base()) {
        Address(a) | Number(a) => Some(a.wrapping_add(i.memory_displacement64())),
        _ if i.memory_base() == Register::None => Some(i.memory_displacement64()),
        _ => None,
    }
}

/// The address that `lea` gives.
fn address(state: &State, i: &Instruction) -> Known {
    if i.is_ip_rel_memory_operand() {
        return Address(i.ip_rel_memory_address());
    }
    let base = match i.memory_base() {
        Register::None => Number(0),
        register => state.register(register),
    };
    match i.memory_index() {
        Register::None => plus(base, i.memory_displacement64()),
        index => match state.register(index) {
            Number(n) => {
                let scaled = n.wrapping_mul(u64::from(i.memory_index_scale()));
                plus(base, scaled.wrapping_add(i.memory_displacement64()))
            }
            _ => Nothing,
        },
    }
}

impl Values {
    /// Cuts the code into blocks and runs the analysis to its fixpoint.
    pub(super) fn new(calls: &Calls<'_>, code: &mut Code) -> Self {
        let image = calls.image;
        let mut pads = Vec::new();
        for (part, _) in &code.parts {
            // A table that cannot be read: nothing is known of where its exceptions land, so nothing
            // is called live there. Refused by whoever asks (`lsda`).
            pads.extend(calls.rows.landing_pads(part.start).unwrap_or_default());
        }
        let tables = candidates(image, code);
        code.tables = tables.keys().copied().collect();
        let tables: Vec<Vec<u64>> = tables.into_values().collect();
        code.cut(tables.iter().flatten().copied().chain(pads.iter().map(|(_, pad)| *pad)));
        let count = code.blocks.len();
        let mut values = Self {
            states: vec![None; count],
            successors: vec![Vec::new(); count],
            ended: BTreeSet::new(),
            pads: vec![Vec::new(); count],
            unresolved: BTreeSet::new(),
            callees: BTreeMap::new(),
            open: BTreeSet::new(),
            given_up: BTreeSet::new(),
        };
        values.link(calls, code, &pads);
        values.run(calls, code, &tables);
        values.ended = (0..count).filter(|block| values.is_end(calls, code, *block)).collect();
        values
    }

    /// Whether a block's call never comes back because of what it is given.
    fn is_end(&self, calls: &Calls<'_>, code: &Code, block: usize) -> bool {
        let last = code.blocks[block].end - 1;
        let Some(callee) = self.callees.get(&last) else { return false };
        if !is_call(&code.steps[last].instruction) {
            return false;
        }
        let Some(state) = self.at(code, last) else { return false };
        let given = ARGUMENTS.map(|register| match state.general[usize::from(register)] {
            Number(number) => Some(number),
            _ => None,
        });
        !calls.comes_back(callee, &given)
    }

    /// Everything that follows from an instruction alone.
    fn link(&mut self, calls: &Calls<'_>, code: &Code, pads: &[(std::ops::Range<u64>, u64)]) {
        for (block, steps) in code.blocks.iter().enumerate() {
            let last = steps.end - 1;
            let i = &code.steps[last].instruction;
            let mut next: Vec<usize> = Vec::new();
            let behind = || code.next(last).map(|n| code.block_of[n]);
            match i.flow_control() {
                FlowControl::Next | FlowControl::Interrupt => next.extend(behind()),
                FlowControl::Call if !is_call(i) => next.extend(behind()),
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                    if i.flow_control() == FlowControl::ConditionalBranch {
                        next.extend(behind());
                    }
                    match branch_target(i).and_then(|t| code.index(t)) {
                        Some(inside) => next.push(code.block_of[inside]),
                        None => {
                            self.callees.insert(last, calls.callee(i));
                        }
                    }
                }
                FlowControl::Call | FlowControl::IndirectCall if is_call(i) => {
                    let callee = calls.callee(i);
                    if calls.returns(&callee) {
                        next.extend(behind());
                    }
                    self.callees.insert(last, callee);
                    let at = i.ip();
                    let lands = pads.iter().filter(|(site, _)| site.contains(&at));
                    let lands = lands.filter_map(|(_, pad)| code.index(*pad));
                    self.pads[block] = lands.map(|p| code.block_of[p]).collect();
                }
                FlowControl::XbeginXabortXend => {
                    next.extend(behind());
                    self.unresolved.insert(last);
                }
                _ => {}
            }
            next.sort_unstable();
            next.dedup();
            self.successors[block] = next;
        }
    }

    fn run(&mut self, calls: &Calls<'_>, code: &Code, tables: &[Vec<u64>]) {
        let mut queue = BTreeSet::new();
        if !code.blocks.is_empty() {
            self.states[0] = Some(State::entry());
            queue.insert(0);
        }
        loop {
            let Some(block) = queue.pop_first() else {
                let open = std::mem::take(&mut self.open);
                if open.is_empty() {
                    return;
                }
                self.given_up.extend(&open);
                queue.extend(open);
                continue;
            };
            let Some(mut state) = self.states[block].clone() else { continue };
            let steps = code.blocks[block].clone();
            let last = steps.end - 1;
            for index in steps {
                if index == last {
                    self.find_descriptor(calls, &state, code, last);
                    self.resolve(calls, code, tables, &state, block, last);
                }
                transfer(&mut state, code, index, self.callees.get(&index));
            }
            let landing = landing_state(&state);
            for to in self.pads[block].clone() {
                self.flow(calls, code, to, &landing, &mut queue);
            }
            for to in self.successors[block].clone() {
                self.flow(calls, code, to, &state, &mut queue);
            }
        }
    }

    /// A call through a thread-local descriptor: its address is in rax (psABI, TLS descriptors).
    fn find_descriptor(&mut self, calls: &Calls<'_>, state: &State, code: &Code, last: usize) {
        let i = &code.steps[last].instruction;
        let through = i.flow_control() == FlowControl::IndirectCall
            && i.op0_kind() == OpKind::Memory
            && i.memory_base() == Register::RAX
            && i.memory_index() == Register::None
            && i.memory_displacement64() == 0;
        if let (true, Address(slot)) = (through, state.general[0])
            && let Some(relocation) = calls.image.relocations.get(&slot)
            && matches!(relocation.meaning, Meaning::ThreadLocal(..))
        {
            self.callees.insert(last, Callee::Descriptor);
        }
    }

    /// Where an indirect jump leads.
    fn resolve(
        &mut self,
        calls: &Calls<'_>,
        code: &Code,
        tables: &[Vec<u64>],
        state: &State,
        block: usize,
        last: usize,
    ) {
        let i = &code.steps[last].instruction;
        if i.flow_control() != FlowControl::IndirectBranch {
            return;
        }
        let callee = calls.callee(i);
        if callee != Callee::Unknown {
            self.callees.insert(last, callee);
            return;
        }
        let value = match i.op0_kind() {
            OpKind::Register => state.register(i.op0_register()),
            _ => loaded(state, i),
        };
        let mut found = match value {
            Target(table) => relative_targets(calls.image, code, table),
            Pointer(table) => absolute_targets(calls.image, code, table),
            _ => Vec::new(),
        };
        let mut through: BTreeSet<u64> = match value {
            Target(table) | Pointer(table) => [table].into(),
            _ => BTreeSet::new(),
        };
        if found.is_empty() {
            let base = match i.op0_kind() {
                OpKind::Register => i.op0_register(),
                _ => i.memory_base(),
            };
            if base.is_gpr() {
                let both = |t: &u64| {
                    let absolute = absolute_targets(calls.image, code, *t);
                    [relative_targets(calls.image, code, *t), absolute]
                };
                through = state.bases.of(base);
                found = through.iter().flat_map(both).flatten().collect();
            }
        }
        // Out of the function, where the frame is gone; perhaps through some table of it, too.
        let gone = state.stack_pointer() == Some(-8);
        if !found.is_empty() {
            self.open.remove(&block);
            if gone && !matches!(value, Target(_) | Pointer(_)) {
                self.callees.insert(last, Callee::Unknown);
            }
        } else if !self.given_up.contains(&block) {
            self.open.insert(block);
        } else {
            found = tables.iter().flatten().copied().collect();
            through.clone_from(&code.tables);
            if gone {
                self.callees.insert(last, Callee::Unknown);
            } else if found.is_empty() {
                self.unresolved.insert(last);
            }
        }
        if through.iter().any(|table| leads_out(calls.image, code, *table)) {
            self.unresolved.insert(last);
        }
        let next = &mut self.successors[block];
        next.extend(found.iter().filter_map(|t| code.index(*t)).map(|n| code.block_of[n]));
        next.sort_unstable();
        next.dedup();
    }

    fn flow(
        &mut self,
        calls: &Calls<'_>,
        code: &Code,
        to: usize,
        state: &State,
        queue: &mut BTreeSet<usize>,
    ) {
        let joined = match &self.states[to] {
            None => Some(settled(calls, code, to, state.clone())),
            Some(before) => {
                let mut joined = before.clone();
                joined.join(state);
                let joined = settled(calls, code, to, joined);
                (joined != *before).then_some(joined)
            }
        };
        if joined.is_some() {
            self.states[to] = joined;
            queue.insert(to);
        }
    }

    /// What is known right before an instruction; `None` where no path leads.
    pub(super) fn at(&self, code: &Code, index: usize) -> Option<State> {
        let block = *code.block_of.get(index)?;
        let mut state = self.states.get(block)?.clone()?;
        for before in code.blocks.get(block)?.start..index {
            transfer(&mut state, code, before, self.callees.get(&before));
        }
        Some(state)
    }
}

/// Where paths disagree about the stack pointer (a loop that probes the stack, a call that does not
/// return taken for one that does), the compiler's row decides.
fn settled(calls: &Calls<'_>, code: &Code, block: usize, mut state: State) -> State {
    if state.stack_pointer().is_none()
        && let Some(steps) = code.blocks.get(block)
        && let Some(row) = calls.rows.row(code.steps[steps.start].instruction.ip())
        && let Base::Rsp(offset) = row.cfa
    {
        state.general[RSP] = Frame(-offset);
    }
    state
}

/// An exception lands with the stack and the callee-saved registers of the call (Itanium C++ ABI:
/// exception handling, 2.4).
fn landing_state(state: &State) -> State {
    let mut state = state.clone();
    for (number, value) in state.general.iter_mut().enumerate() {
        if number != RSP && !SAVED.iter().any(|s| usize::from(*s) == number) {
            *value = Nothing;
        }
    }
    state
}
