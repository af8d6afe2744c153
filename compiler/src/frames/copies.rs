//! Which places of a function hold copies of one value.
//!
//! Takes: a function's flow and its unwind rows. Gives: for each tracked place (registers, and the
//! slots asked for) a number of its value before and after each instruction: equal numbers are equal
//! values, on every path. Moves, spills, reloads, pushes and pops pass numbers on; whatever else
//! writes a place gives it a new one. Paths that join with different numbers give the place a new
//! one, the same for all places that agreed on every path.
//!
//! Values are compared by their low `width` bytes: a move of fewer bytes is no copy, one that
//! extends `width` bytes or more is.

use crate::image::{Cfa, UnwindRow};
use crate::machine::flow::{BlockId, End, Flow};
use iced_x86::{
    Code, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
};
use iced_x86::{Register as Name, UsedMemory};
use rustc_hash::FxHashMap;

/// Rounds over all blocks until nothing changes; more than that many mean something is odd, and
/// then nothing is said.
const ROUNDS_LIMIT: usize = 64;
/// General registers, then vector registers, then slots.
const GENERAL: usize = 16;
const VECTOR: usize = 32;
/// Call-clobbered general registers (psABI figure 3.4): rax, rcx, rdx, rsi, rdi, r8 to r11.
const CLOBBERED: [usize; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];

/// The number of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum ValueId {
    /// What the place held when the function was entered.
    Entry(usize),
    /// What a step wrote there.
    Made(usize, usize),
    /// What came from different paths.
    Joined(BlockId, usize),
}

/// A tracked place: an index into states.
pub(super) type Tracked = usize;

/// The values of all tracked places, at one point.
pub(super) type State = Vec<ValueId>;

/// The values of one function.
pub(super) struct Copies<'f> {
    flow: &'f Flow,
    rows: &'f [UnwindRow],
    width: u32,
    slots: Vec<i64>,
    /// Of each step.
    effects: Vec<Vec<Effect>>,
    /// Before each block; `None` where it is never reached.
    entry: Vec<Option<State>>,
}

/// Something that an instruction does to tracked places.
enum Effect {
    /// The first place gets the value of the second.
    Copy(Tracked, Tracked),
    /// The place gets a new value.
    Write(Tracked),
}

impl<'f> Copies<'f> {
    /// Follows values of `width` bytes; `slots` are the tracked ones, by their offsets from the CFA.
    /// `None` where the flow is no promise or leads anywhere, or there is no end of changes.
    pub(super) fn new(
        flow: &'f Flow,
        rows: &'f [UnwindRow],
        width: u32,
        mut slots: Vec<i64>,
    ) -> Option<Self> {
        let leads_anywhere = flow.blocks.iter().any(|block| block.end == End::Unresolved);
        if flow.problem.is_some() || flow.blocks.is_empty() || leads_anywhere {
            return None;
        }
        slots.sort_unstable();
        slots.dedup();
        let entry = vec![None; flow.blocks.len()];
        let mut copies = Self { flow, rows, width, slots, effects: Vec::new(), entry };
        copies.effects = copies.all_effects();
        copies.solve().then_some(copies)
    }

    /// The place of a general register, by the processor's number.
    pub(super) fn general(number: u8) -> Option<Tracked> {
        (usize::from(number) < GENERAL).then_some(usize::from(number))
    }

    /// The place of a vector register.
    pub(super) fn vector(number: u8) -> Option<Tracked> {
        (usize::from(number) < VECTOR).then_some(GENERAL + usize::from(number))
    }

    /// The place of a slot.
    pub(super) fn slot(&self, offset: i64) -> Option<Tracked> {
        self.slots.binary_search(&offset).ok().map(|index| GENERAL + VECTOR + index)
    }

    /// Calls `visit` for each reachable one of the steps (ascending) with the values before and
    /// after it.
    pub(super) fn visit(&self, steps: &[usize], mut visit: impl FnMut(usize, &State, &State)) {
        for (block, entry) in self.flow.blocks.iter().zip(&self.entry) {
            let first = steps.partition_point(|step| *step < block.steps.start);
            let behind = steps.partition_point(|step| *step < block.steps.end);
            let (Some(entry), Some(last)) = (entry, steps[first..behind].last()) else { continue };
            let mut wanted = steps[first..behind].iter().peekable();
            let mut state = entry.clone();
            for step in block.steps.start..=*last {
                let before = wanted.next_if_eq(&&step).map(|_| state.clone());
                self.apply(step, &mut state);
                if let Some(before) = before {
                    visit(step, &before, &state);
                }
            }
        }
    }

    /// Whether two numbers are one value, as values are compared here.
    pub(super) fn is_same_constant(&self, a: u128, b: u128) -> bool {
        let mask = 1_u128.checked_shl(8 * self.width).map_or(u128::MAX, |bit| bit - 1);
        (a ^ b) & mask & u128::from(u64::MAX) == 0
    }

    /// The instruction that wrote a value.
    pub(super) fn maker(&self, value: ValueId) -> Option<&Instruction> {
        match value {
            ValueId::Made(step, _) => Some(&self.flow.body.steps.get(step)?.instruction),
            _ => None,
        }
    }

    fn len(&self) -> usize {
        GENERAL + VECTOR + self.slots.len()
    }

    fn apply(&self, step: usize, state: &mut State) {
        // The source of a copy is read before anything is written.
        let copied = self.effects[step].iter().find_map(|effect| match effect {
            Effect::Copy(to, from) => Some((*to, state[*from])),
            Effect::Write(_) => None,
        });
        for effect in &self.effects[step] {
            if let Effect::Write(place) = effect {
                state[*place] = ValueId::Made(step, *place);
            }
        }
        if let Some((to, value)) = copied {
            state[to] = value;
        }
    }

    fn all_effects(&self) -> Vec<Vec<Effect>> {
        let mut infos = InstructionInfoFactory::new();
        let steps = 0..self.flow.body.steps.len();
        steps
            .map(|step| {
                let mut effects = Vec::new();
                self.effects_of(step, &mut infos, &mut effects);
                effects
            })
            .collect()
    }

    /// Runs to the fixpoint, optimistically: an edge that was not reached yet says nothing.
    fn solve(&mut self) -> bool {
        let mut exits: Vec<Option<State>> = vec![None; self.flow.blocks.len()];
        for _ in 0..ROUNDS_LIMIT {
            let mut changed = false;
            for (index, block) in self.flow.blocks.iter().enumerate() {
                let Some(entry) = self.join(BlockId(index), &exits) else { continue };
                if self.entry[index].as_ref() == Some(&entry) {
                    continue;
                }
                changed = true;
                let mut state = entry.clone();
                for step in block.steps.clone() {
                    self.apply(step, &mut state);
                }
                self.entry[index] = Some(entry);
                exits[index] = Some(state);
            }
            if !changed {
                return true;
            }
        }
        false
    }

    fn join(&self, block: BlockId, exits: &[Option<State>]) -> Option<State> {
        let initial: State = (0..self.len()).map(ValueId::Entry).collect();
        let predecessors = &self.flow.blocks[block.0].predecessors;
        let mut incoming: Vec<&State> =
            predecessors.iter().filter_map(|p| exits.get(p.0)?.as_ref()).collect();
        let is_entry = self.flow.block_of.first() == Some(&block);
        if is_entry {
            incoming.push(&initial);
        }
        let (first, others) = incoming.split_first()?;
        if others.iter().all(|other| other == first) {
            return Some((*first).clone());
        }
        let mut groups: FxHashMap<Vec<ValueId>, Tracked> = FxHashMap::default();
        let joined = (0..self.len()).map(|place| {
            let values: Vec<ValueId> = incoming.iter().map(|state| state[place]).collect();
            if values.iter().all(|value| *value == values[0]) {
                return values[0];
            }
            ValueId::Joined(block, *groups.entry(values).or_insert(place))
        });
        Some(joined.collect())
    }

    fn effects_of(&self, step: usize, infos: &mut InstructionInfoFactory, out: &mut Vec<Effect>) {
        let instruction = &self.flow.body.steps[step].instruction;
        if let Some((to, from)) = self.copy(instruction) {
            out.push(Effect::Copy(to, from));
        }
        let copied = match out.first() {
            Some(Effect::Copy(to, _)) => Some(*to),
            _ => None,
        };
        let info = infos.info(instruction);
        for used in info.used_registers() {
            if writes(used.access())
                && let Some(place) = register(used.register())
                && Some(place) != copied
            {
                out.push(Effect::Write(place));
            }
        }
        for memory in info.used_memory() {
            if writes(memory.access()) {
                self.write_memory(instruction, memory, copied, out);
            }
        }
        let call = matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall | FlowControl::Interrupt
        );
        if call {
            out.extend(CLOBBERED.into_iter().map(Effect::Write));
            out.extend((GENERAL..GENERAL + VECTOR).map(Effect::Write));
        }
    }

    fn write_memory(
        &self,
        instruction: &Instruction,
        memory: &UsedMemory,
        copied: Option<Tracked>,
        out: &mut Vec<Effect>,
    ) {
        let Some(start) = self.frame_offset(instruction, memory) else { return };
        let size = i64::try_from(memory.memory_size().size()).unwrap_or(i64::MAX);
        let end = start.saturating_add(size.max(1));
        let width = i64::from(self.width);
        for (index, slot) in self.slots.iter().enumerate() {
            let place = GENERAL + VECTOR + index;
            let overlaps = *slot < end && start < slot.saturating_add(width);
            if overlaps && copied != Some(place) {
                out.push(Effect::Write(place));
            }
        }
    }

    /// The destination and the source of an instruction that does nothing but move a value.
    fn copy(&self, instruction: &Instruction) -> Option<(Tracked, Tracked)> {
        if moved_bytes(instruction) < self.width {
            return None;
        }
        let memory = || self.slot(self.memory_offset(instruction)?);
        match instruction.mnemonic() {
            Mnemonic::Push => {
                let at = self.push_offset(instruction)?;
                Some((self.slot(at)?, register(instruction.op0_register())?))
            }
            Mnemonic::Pop => {
                let at = self.push_offset(instruction)?.checked_add(8)?;
                Some((register(instruction.op0_register())?, self.slot(at)?))
            }
            _ => match (instruction.op0_kind(), instruction.op1_kind()) {
                (OpKind::Register, OpKind::Register) => Some((
                    register(instruction.op0_register())?,
                    register(instruction.op1_register())?,
                )),
                (OpKind::Register, OpKind::Memory) => {
                    Some((register(instruction.op0_register())?, memory()?))
                }
                (OpKind::Memory, OpKind::Register) => {
                    Some((memory()?, register(instruction.op1_register())?))
                }
                _ => None,
            },
        }
    }

    /// The memory operand of an instruction as an offset from the CFA.
    fn memory_offset(&self, instruction: &Instruction) -> Option<i64> {
        if instruction.memory_index() != Name::None || instruction.segment_prefix() != Name::None {
            return None;
        }
        let displacement = instruction.memory_displacement64().cast_signed();
        self.cfa_offset(instruction.ip(), instruction.memory_base(), displacement)
    }

    fn frame_offset(&self, instruction: &Instruction, memory: &UsedMemory) -> Option<i64> {
        if memory.index() != Name::None {
            return None;
        }
        let displacement = memory.displacement().cast_signed();
        self.cfa_offset(instruction.ip(), memory.base(), displacement)
    }

    /// Where a push stores.
    fn push_offset(&self, instruction: &Instruction) -> Option<i64> {
        self.cfa_offset(instruction.ip(), Name::RSP, -8)
    }

    fn cfa_offset(&self, address: u64, base: Name, displacement: i64) -> Option<i64> {
        let after = self.rows.partition_point(|row| row.extent.start <= address);
        let row = self.rows.get(after.checked_sub(1)?)?;
        let Cfa::Register(number, offset) = row.cfa else { return None };
        let is_base = base.is_gpr64() && base.number() == usize::from(number);
        (is_base && row.extent.contains(&address)).then(|| displacement.checked_sub(offset))?
    }
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
    )
}

/// The tracked place that a register is, or is the low part of.
fn register(name: Name) -> Option<Tracked> {
    if name.is_gpr() {
        return Some(name.full_register().number());
    }
    name.is_vector_register().then(|| GENERAL + name.full_register().number())
}

/// How many low bytes of its source a move leaves in its destination; 0 for other instructions.
fn moved_bytes(instruction: &Instruction) -> u32 {
    let high = |name| matches!(name, Name::AH | Name::BH | Name::CH | Name::DH);
    if high(instruction.op0_register()) || high(instruction.op1_register()) {
        return 0;
    }
    let size = |operand: u32| match instruction.op_kind(operand) {
        OpKind::Register => u32::try_from(instruction.op_register(operand).size()).unwrap_or(0),
        OpKind::Memory => u32::try_from(instruction.memory_size().size()).unwrap_or(0),
        _ => 0,
    };
    match instruction.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movd | Mnemonic::Movq | Mnemonic::Vmovd | Mnemonic::Vmovq => {
            let moved = size(0).min(size(1));
            if matches!(instruction.mnemonic(), Mnemonic::Movd | Mnemonic::Vmovd) {
                return moved.min(4);
            }
            moved.min(8)
        }
        Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => size(1),
        Mnemonic::Push | Mnemonic::Pop
            if instruction.op0_kind() == OpKind::Register
                && instruction.op0_register().is_gpr64() =>
        {
            8
        }
        Mnemonic::Movss => 4,
        // The string instruction has the same name.
        Mnemonic::Movsd if instruction.code() != Code::Movsd_m32_m32 => 8,
        Mnemonic::Vmovss if instruction.op_count() == 2 => 4,
        Mnemonic::Vmovsd if instruction.op_count() == 2 => 8,
        Mnemonic::Movaps
        | Mnemonic::Movups
        | Mnemonic::Movapd
        | Mnemonic::Movupd
        | Mnemonic::Movdqa
        | Mnemonic::Movdqu
        | Mnemonic::Vmovaps
        | Mnemonic::Vmovups
        | Mnemonic::Vmovapd
        | Mnemonic::Vmovupd
        | Mnemonic::Vmovdqa
        | Mnemonic::Vmovdqu => size(0).min(size(1)),
        _ => 0,
    }
}
