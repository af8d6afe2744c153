//! Where the frame is, at each instruction: the distance from the stack pointer to the canonical
//! frame address (CFA, DWARF 5 section 6.4), and which registers hold addresses of the frame.
//!
//! Takes a function's flow. Follows the stack pointer and its copies from the entry, where it is
//! CFA - 8 (psABI 3.2.2), through every path; the unwind tables must say the same. Where they do not,
//! or the distance depends on the run (alloca, variable-length arrays, a realigned stack), there is
//! none, with the reason.

use super::effects::{Access, Effects};
use super::flow::{End, Flow};
use crate::image::{Cfa, Image, UnwindRow};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

/// rsp's number.
pub const RSP: usize = 4;
/// rbp's number.
const RBP: usize = 5;

/// For each general register, by the processor's number: the offset from the CFA of the address that
/// it holds, when it holds one of the frame.
pub type Addresses = [Option<i64>; 16];

/// The frame at each step of a function.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Before each step; `None` for steps that no path reaches.
    states: Vec<Option<Addresses>>,
    unknown: Vec<Option<Unknown>>,
    rows: Vec<UnwindRow>,
    row_of: Vec<Option<usize>>,
}

/// Why the distance from the stack pointer to the CFA is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It depends on the run: alloca, a variable-length array, a realigned stack.
    Dynamic,
    /// The unwind table says something else than the code.
    Contradiction,
    /// No path leads there.
    Unreached,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dynamic => {
                "the frame has no fixed size (alloca, a variable-length array, a realigned stack)"
            }
            Self::Contradiction => "the unwind table contradicts the code",
            Self::Unreached => "no path leads there",
        })
    }
}

/// What an access to memory touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// These bytes of the frame, as offsets from the CFA.
    Frame(Range<i64>),
    /// An address of the frame, CFA + this, plus something that depends on registers; or an unknown
    /// number of bytes from there.
    Indexed(i64),
    /// Memory that the frame's known addresses do not lead to.
    Elsewhere,
}

impl Frame {
    /// Follows a function's stack pointer.
    #[must_use]
    pub fn new(image: &Image, flow: &Flow) -> Self {
        Self::with_slots(image, flow, &BTreeMap::new())
    }

    /// Follows it, and addresses of the frame that are in slots of the frame: of each slot the one address that is
    /// ever put there, by the slot's offset.
    pub(super) fn with_slots(image: &Image, flow: &Flow, slots: &BTreeMap<i64, i64>) -> Self {
        let rows = image.rows_of(flow.body.parts.iter().map(|(part, _)| part.clone()));
        let row_of: Vec<Option<usize>> =
            flow.body.steps.iter().map(|s| row_at(&rows, s.address())).collect();
        let compiled = image.function_at(flow.entry).is_some_and(|id| {
            let unit = image.unit_of(image.function(id));
            unit.is_some_and(|u| u.language != crate::debug::Language::Assembler)
        });
        let walk = Walk { flow, rows: &rows, row_of: &row_of, compiled, slots };
        let states = walk.states();
        let unknown = walk.unknown(&states);
        Self { states, unknown, rows, row_of }
    }

    /// The same frame as seen from a CFA that is `by` bytes higher than its own.
    #[must_use]
    pub fn lowered(&self, by: i64) -> Self {
        let mut lowered = self.clone();
        let known = lowered.states.iter_mut().flatten().flatten().flatten();
        known.for_each(|at| *at = at.saturating_sub(by));
        lowered.rows = lowered.rows.into_iter().map(|row| row.lowered(by)).collect();
        lowered
    }

    /// CFA minus stack pointer before a step.
    #[must_use]
    pub fn depth(&self, step: usize) -> Option<u64> {
        if self.unknown[step].is_some() {
            return None;
        }
        u64::try_from(self.states[step].as_ref()?[RSP]?.checked_neg()?).ok()
    }

    /// Why there is no depth.
    #[must_use]
    pub fn unknown(&self, step: usize) -> Option<Unknown> {
        self.unknown[step]
    }

    /// The registers that hold addresses of the frame before a step.
    #[must_use]
    pub fn addresses(&self, step: usize) -> Addresses {
        self.states[step].unwrap_or_default()
    }

    /// Whether some path leads to a step.
    #[must_use]
    pub fn is_reached(&self, step: usize) -> bool {
        self.states[step].is_some()
    }

    /// The slots that hold the caller's callee-saved registers before a step, by the unwind table:
    /// register number and offset from the CFA.
    #[must_use]
    pub fn saved(&self, step: usize) -> &[(u8, i64)] {
        self.row_of[step].map_or(&[], |row| &self.rows[row].saved)
    }

    /// All slots that ever hold a caller's register.
    #[must_use]
    pub fn save_slots(&self) -> BTreeSet<i64> {
        self.rows.iter().flat_map(|row| &row.saved).map(|(_, at)| *at).collect()
    }

    /// What an access of a step touches.
    #[must_use]
    pub fn place(&self, step: usize, access: &Access) -> Place {
        if matches!(access.segment, Register::FS | Register::GS) {
            return Place::Elsewhere;
        }
        let addresses = self.addresses(step);
        let of = |register: Register| {
            if register.is_gpr64() { addresses[register.number()] } else { None }
        };
        let (base, index) = (of(access.base), of(access.index));
        let at = match (base, index) {
            // Two addresses of the frame make none.
            (Some(_), Some(_)) => return Place::Elsewhere,
            (Some(base), None) => base.wrapping_add(access.displacement),
            (None, Some(index)) if access.scale == 1 => index.wrapping_add(access.displacement),
            _ => return Place::Elsewhere,
        };
        let single = access.base == Register::None || access.index == Register::None;
        match access.bytes.and_then(|b| at.checked_add_unsigned(b)) {
            Some(end) if single => Place::Frame(at..end),
            _ => Place::Indexed(at),
        }
    }
}

fn row_at(rows: &[UnwindRow], address: u64) -> Option<usize> {
    let after = rows.partition_point(|r| r.extent.start <= address);
    let index = after.checked_sub(1)?;
    rows[index].extent.contains(&address).then_some(index)
}

struct Walk<'a> {
    flow: &'a Flow,
    rows: &'a [UnwindRow],
    row_of: &'a [Option<usize>],
    compiled: bool,
    slots: &'a BTreeMap<i64, i64>,
}

impl Walk<'_> {
    fn states(&self) -> Vec<Option<Addresses>> {
        let blocks = &self.flow.blocks;
        let mut before: Vec<Option<Addresses>> = vec![None; blocks.len()];
        let mut states = vec![None; self.flow.body.steps.len()];
        if blocks.is_empty() {
            return states;
        }
        let mut entry = Addresses::default();
        entry[RSP] = Some(-8);
        before[0] = Some(entry);
        let mut queue: BTreeSet<usize> = [0].into();
        while let Some(id) = queue.pop_first() {
            let Some(mut state) = before[id] else { continue };
            self.learn(blocks[id].steps.start, &mut state);
            for step in blocks[id].steps.clone() {
                states[step] = Some(state);
                let instruction = &self.flow.body.steps[step].instruction;
                let loaded = self.loaded(instruction, &state);
                advance(instruction, &mut state);
                if let Some((register, address)) = loaded {
                    state[register] = Some(address);
                }
            }
            for next in &blocks[id].successors {
                let mut state = state;
                if blocks[next.0].landing_pad {
                    let pushed = self.pushed(blocks[id].steps.end - 1);
                    state[RSP] = state[RSP].and_then(|top| top.checked_add_unsigned(pushed));
                }
                let joined = join(before[next.0].as_ref(), &state);
                if before[next.0] != Some(joined) {
                    before[next.0] = Some(joined);
                    queue.insert(next.0);
                }
            }
        }
        states
    }

    /// The register that a load gives an address of the frame.
    fn loaded(&self, i: &Instruction, state: &Addresses) -> Option<(usize, i64)> {
        let loads = i.mnemonic() == Mnemonic::Mov
            && i.op0_kind() == OpKind::Register
            && i.op0_register().is_gpr64()
            && i.op1_kind() == OpKind::Memory
            && i.memory_index() == Register::None
            && i.segment_prefix() == Register::None
            && i.memory_base().is_gpr64();
        let base = state[i.memory_base().number().min(15)].filter(|_| loads)?;
        let slot = base.checked_add(i.memory_displacement64().cast_signed())?;
        Some((i.op0_register().number(), *self.slots.get(&slot)?))
    }

    /// Where paths meet that do not agree, because one of them is never taken, compilers' unwind
    /// tables tell.
    fn learn(&self, step: usize, state: &mut Addresses) {
        let Some(row) = self.row_of[step].filter(|_| self.compiled) else { return };
        if let Cfa::Register(number, offset) = self.rows[row].cfa
            && let Some(known @ None) = state.get_mut(usize::from(number))
        {
            *known = offset.checked_neg();
        }
    }

    /// What the unwinder takes off the stack when an exception comes out of a call.
    fn pushed(&self, call: usize) -> u64 {
        self.row_of[call].map_or(0, |row| self.rows[row].pushed)
    }

    fn unknown(&self, states: &[Option<Addresses>]) -> Vec<Option<Unknown>> {
        let one = |(step, state): (usize, &Option<Addresses>)| {
            let Some(state) = state else { return Some(Unknown::Unreached) };
            let row = self.row_of[step].map(|row| self.rows[row].cfa);
            if let Some(Cfa::Register(number, offset)) = row {
                let known = state.get(usize::from(number)).copied().flatten();
                if known.is_some_and(|k| k.checked_add(offset) != Some(0)) {
                    return Some(Unknown::Contradiction);
                }
            }
            let below = state[RSP].is_some_and(|top| top <= -8);
            (!below).then_some(Unknown::Dynamic)
        };
        states.iter().enumerate().map(one).collect()
    }
}

fn join(a: Option<&Addresses>, b: &Addresses) -> Addresses {
    let Some(a) = a else { return *b };
    let mut out = *a;
    for (mine, theirs) in out.iter_mut().zip(b) {
        if mine != theirs {
            *mine = None;
        }
    }
    out
}

/// The registers' frame addresses after an instruction.
fn advance(instruction: &Instruction, state: &mut Addresses) {
    let before = *state;
    let effects = Effects::of(instruction);
    let top = |by: i64| before[RSP].and_then(|t| t.checked_add(by));
    for (number, bytes) in effects.changes.general.iter().enumerate() {
        if *bytes != 0 {
            state[number] = None;
        }
    }
    match instruction.mnemonic() {
        Mnemonic::Call => {
            for (number, known) in state.iter_mut().enumerate() {
                if !is_preserved(number) {
                    *known = None;
                }
            }
            state[RSP] = before[RSP];
        }
        Mnemonic::Push | Mnemonic::Pushfq | Mnemonic::Pushf => {
            state[RSP] = top(instruction.stack_pointer_increment().into());
        }
        Mnemonic::Pop | Mnemonic::Popfq | Mnemonic::Popf => {
            let popped = instruction.op_count() == 1
                && instruction.op0_kind() == OpKind::Register
                && instruction.op0_register() == Register::RSP;
            if !popped {
                state[RSP] = top(instruction.stack_pointer_increment().into());
            }
        }
        Mnemonic::Leave => state[RSP] = before[RBP].and_then(|b| b.checked_add(8)),
        _ => {
            if let Some((number, value)) = computed(instruction, &before) {
                state[number] = value;
            }
        }
    }
}

/// The register that an instruction gives an address of the frame, and which.
pub(super) fn computed(i: &Instruction, before: &Addresses) -> Option<(usize, Option<i64>)> {
    if i.op_count() == 0 || i.op0_kind() != OpKind::Register || !i.op0_register().is_gpr64() {
        return None;
    }
    let to = i.op0_register().number();
    let source = (i.op_count() == 2 && i.op1_kind() == OpKind::Register)
        .then(|| i.op1_register())
        .filter(|r| r.is_gpr64())
        .map(|r| before[r.number()]);
    let constant = (i.op_count() == 2).then(|| i.try_immediate(1).ok()).flatten();
    let constant = constant.map(u64::cast_signed);
    let value = match i.mnemonic() {
        Mnemonic::Mov => source?,
        Mnemonic::Lea if i.memory_index() == Register::None && i.memory_base().is_gpr64() => {
            let base = before[i.memory_base().number()];
            base.map(|b| b.wrapping_add(i.memory_displacement64().cast_signed()))
        }
        Mnemonic::Add => before[to].zip(constant).map(|(b, c)| b.wrapping_add(c)),
        Mnemonic::Sub => before[to].zip(constant).map(|(b, c)| b.wrapping_sub(c)),
        Mnemonic::Inc => before[to].map(|b| b.wrapping_add(1)),
        Mnemonic::Dec => before[to].map(|b| b.wrapping_sub(1)),
        _ => return None,
    };
    Some((to, value))
}

/// Callee-saved registers (psABI 3.2.1), by number.
#[must_use]
pub fn is_preserved(number: usize) -> bool {
    matches!(number, 3 | 4 | 5 | 12..=15)
}

impl Flow {
    /// Whether a step is the call that ends its block.
    #[must_use]
    pub fn is_call(&self, step: usize) -> bool {
        let block = self.block(step);
        step + 1 == block.steps.end && matches!(block.end, End::Call | End::NoReturn)
    }
}
