//! What each instruction does to the frame, once the values of registers are known.
//!
//! Takes a function's code and values; gives each instruction's accesses with their places, the
//! offsets whose address it lets out of sight, and a numbering of all bytes that are accessed directly.

use super::calls::{ARGUMENTS, Calls};
use super::code::Code;
use super::values::{self, Known, Place, State, Values};
use iced_x86::{Instruction, Mnemonic, OpAccess, OpKind, Register, UsedMemory};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A set of small numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    pub(super) fn has(&self, bit: usize) -> bool {
        self.0.get(bit / 64).is_some_and(|w| w >> (bit % 64) & 1 != 0)
    }

    pub(super) fn insert(&mut self, bit: usize) {
        if let Some(word) = self.0.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }

    pub(super) fn remove(&mut self, bit: usize) {
        if let Some(word) = self.0.get_mut(bit / 64) {
            *word &= !(1 << (bit % 64));
        }
    }

    /// Adds another set; whether that changed anything.
    pub(super) fn add(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            changed |= *b & !*a != 0;
            *a |= b;
        }
        changed
    }
}

/// The bytes of a frame that are accessed directly, numbered.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    /// Disjoint ranges of offsets, ascending, with the number of their first byte.
    ranges: Vec<(Range<i64>, usize)>,
    pub(super) count: usize,
}

impl Bytes {
    fn new(accesses: impl Iterator<Item = Range<i64>>) -> Self {
        let mut all: Vec<Range<i64>> = accesses.collect();
        all.sort_by_key(|r| (r.start, r.end));
        let mut bytes = Self::default();
        for range in all {
            match bytes.ranges.last_mut() {
                Some((last, _)) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => bytes.ranges.push((range, 0)),
            }
        }
        for (range, first) in &mut bytes.ranges {
            *first = bytes.count;
            bytes.count += usize::try_from(range.end - range.start).unwrap_or(0);
        }
        bytes
    }

    /// The number of a byte.
    pub(super) fn index(&self, offset: i64) -> Option<usize> {
        let after = self.ranges.partition_point(|(r, _)| r.start <= offset);
        let (range, first) = self.ranges.get(after.checked_sub(1)?)?;
        let within = usize::try_from(offset - range.start).ok()?;
        range.contains(&offset).then_some(first + within)
    }

    /// The numbers of the bytes below an offset.
    pub(super) fn below(&self, offset: i64) -> Range<usize> {
        let after = self.ranges.partition_point(|(r, _)| r.start < offset);
        let last = after.checked_sub(1).and_then(|i| self.ranges.get(i));
        let end = last.map_or(0, |(r, first)| {
            first + usize::try_from(r.end.min(offset) - r.start).unwrap_or(0)
        });
        0..end
    }

    /// All numbered bytes, ascending.
    pub(super) fn offsets(&self) -> impl Iterator<Item = i64> + '_ {
        self.ranges.iter().flat_map(|(r, _)| r.clone())
    }
}

/// An access to memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    pub(super) place: Place,
    pub(super) bytes: i64,
    pub(super) read: bool,
    pub(super) write: bool,
    /// Writes all of it, whatever happens.
    pub(super) whole: bool,
}

impl Access {
    /// The bytes of the frame that it is about.
    pub(super) fn range(&self) -> Option<Range<i64>> {
        match self.place {
            Place::Frame(at) if self.bytes > 0 => Some(at..at.saturating_add(self.bytes)),
            _ => None,
        }
    }
}

/// What one instruction does to the frame.
#[derive(Debug, Clone, Default)]
pub(super) struct Effect {
    pub(super) accesses: Vec<Access>,
    /// Offsets from the CFA whose address leaves sight here.
    pub(super) taken: Vec<i64>,
    /// rsp before it, from the CFA.
    pub(super) top: Option<i64>,
    /// At a variadic call: how many vector registers hold arguments, if known.
    pub(super) vectors: Option<u64>,
}

/// The effects of a function's reachable instructions.
#[derive(Debug)]
pub(super) struct Effects {
    pub(super) steps: Vec<Effect>,
    pub(super) bytes: Bytes,
    /// Bytes written and never read but by `pop`: arguments on the stack, if anything.
    pub(super) passed: Bits,
    /// Bytes that some instruction reads directly.
    pub(super) read: Bits,
    /// No address below this offset leaves sight.
    pub(super) lowest: i64,
    /// All offsets whose address may leave sight, ascending.
    pub(super) offsets: Vec<i64>,
    /// Registers with a frame address that a join loses: block that ends, block that begins, register,
    /// offset. Ascending.
    pub(super) lost: Vec<(usize, usize, usize, i64)>,
}

/// Copies by one string instruction that are followed byte by byte.
const LONGEST_COPY: u64 = 4096;

impl Effects {
    pub(super) fn new(calls: &Calls<'_>, code: &Code, values: &Values) -> Self {
        let mut steps = vec![Effect::default(); code.steps.len()];
        let mut lost = Vec::new();
        for (block, range) in code.blocks.iter().enumerate() {
            let Some(Some(mut state)) = values.states.get(block).cloned() else { continue };
            for index in range.clone() {
                steps[index] = effect(calls, values, code, &state, index);
                values::transfer(&mut state, code, index, values.callees.get(&index));
            }
            for to in values.successors[block].iter().chain(&values.pads[block]) {
                lost.extend(lost_at(&state, values.states[*to].as_ref(), block, *to));
            }
        }
        let ranges = steps.iter().flat_map(|e| e.accesses.iter().filter_map(Access::range));
        let bytes = Bytes::new(ranges);
        let (passed, read) = passed(code, &steps, &bytes);
        let taken = steps.iter().flat_map(|e| e.taken.iter().copied());
        let offsets: BTreeSet<i64> = taken.chain(lost.iter().map(|l| l.3)).collect();
        let lowest = offsets.first().copied().unwrap_or(i64::MAX);
        let offsets = offsets.into_iter().collect();
        Self { steps, bytes, passed, read, lowest, offsets, lost }
    }

    /// What the end of a block loses.
    pub(super) fn lost_after(&self, block: usize) -> &[(usize, usize, usize, i64)] {
        let first = self.lost.partition_point(|l| l.0 < block);
        let last = self.lost.partition_point(|l| l.0 <= block);
        self.lost.get(first..last).unwrap_or_default()
    }
}

fn lost_at(
    state: &State,
    next: Option<&State>,
    from: usize,
    to: usize,
) -> Vec<(usize, usize, usize, i64)> {
    let Some(next) = next else { return Vec::new() };
    let pairs = state.general.iter().zip(&next.general).enumerate();
    let lost = pairs.filter(|(number, (a, b))| *number != values::RSP && a != b);
    lost.filter_map(|(number, (a, _))| match a {
        Known::Frame(offset) => Some((from, to, number, *offset)),
        _ => None,
    })
    .collect()
}

fn effect(calls: &Calls<'_>, values: &Values, code: &Code, state: &State, index: usize) -> Effect {
    let step = &code.steps[index];
    let i = &step.instruction;
    let mut effect = Effect { top: state.stack_pointer(), ..Effect::default() };
    if let Some(callee) = values.callees.get(&index) {
        let known = calls.prototype(callee).filter(|p| !p.variadic);
        let count = known.map_or(6, |p| usize::from(p.integer));
        let passed = ARGUMENTS.iter().take(count);
        effect.taken.extend(passed.filter_map(|n| frame(state.general[usize::from(*n)])));
        if let Known::Number(n) = state.general[0] {
            effect.vectors = Some(n & 0xff);
        }
    }
    if !values::is_call(i) {
        effect.accesses = step.info.used_memory().iter().map(|m| access(state, i, m)).collect();
    } else if i.op0_kind() == OpKind::Memory {
        // Where the call reads its target; what it pushes is nobody's.
        let reads = step.info.used_memory().iter().filter(|m| m.access() == OpAccess::Read);
        effect.accesses = reads.map(|m| access(state, i, m)).collect();
    }
    for access in &effect.accesses {
        if let Place::Indexed(offset) = access.place {
            effect.taken.push(offset);
        }
    }
    effect.taken.extend(used(state, i));
    effect
}

fn frame(value: Known) -> Option<i64> {
    match value {
        Known::Frame(offset) => Some(offset),
        _ => None,
    }
}

fn access(state: &State, i: &Instruction, memory: &UsedMemory) -> Access {
    let mut place = values::place(state, memory);
    let mut bytes = i64::try_from(memory.memory_size().size()).unwrap_or(0);
    let repeated = i.has_rep_prefix() || i.has_repne_prefix();
    if repeated {
        let count = match state.general[1] {
            Known::Number(n) if n <= LONGEST_COPY => i64::try_from(n).ok(),
            _ => None,
        };
        let scans = matches!(
            i.mnemonic(),
            Mnemonic::Cmpsb
                | Mnemonic::Cmpsw
                | Mnemonic::Cmpsd
                | Mnemonic::Cmpsq
                | Mnemonic::Scasb
                | Mnemonic::Scasw
                | Mnemonic::Scasd
                | Mnemonic::Scasq
        );
        match (place, count) {
            (Place::Frame(_), Some(count)) if !scans => bytes *= count,
            (Place::Frame(at), _) => place = Place::Indexed(at),
            _ => {}
        }
    } else if let (Place::Frame(at), 0) = (place, bytes) {
        // Of an extent that the instruction alone does not tell (`fxsave`).
        place = Place::Indexed(at);
    }
    let access = memory.access();
    let read = !matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::NoMemAccess);
    let write = !matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
    // `rep` makes iced call the access conditional; with a known count it is not.
    let sure = matches!(access, OpAccess::Write | OpAccess::ReadWrite)
        || repeated && access == OpAccess::CondWrite;
    Access { place, bytes, read, write, whole: sure && write && !i.has_op_mask() }
}

/// Offsets whose address an instruction uses in a way that is not followed.
fn used(state: &State, i: &Instruction) -> BTreeSet<i64> {
    let mut out = BTreeSet::new();
    if values::is_call(i) || matches!(i.mnemonic(), Mnemonic::Cmp | Mnemonic::Test) {
        return out;
    }
    let copied = i.op_count() > 0
        && i.op0_kind() == OpKind::Register
        && matches!(
            i.mnemonic(),
            Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Pop | Mnemonic::Add | Mnemonic::Sub
        );
    if i.mnemonic() == Mnemonic::Lea {
        let base = frame(state.register(i.memory_base()));
        let index = i.memory_index() != Register::None
            && !matches!(state.register(i.memory_index()), Known::Number(_));
        if let Some(offset) = base.filter(|_| index) {
            out.insert(values::indexed(i.memory_base(), offset, i.memory_displacement64()));
        }
        if index {
            out.extend(frame(state.register(i.memory_index())));
        }
    }
    let followed = copied && known_result(state, i);
    if followed {
        return out;
    }
    let written_only = matches!(
        i.mnemonic(),
        Mnemonic::Mov
            | Mnemonic::Lea
            | Mnemonic::Movzx
            | Mnemonic::Movsx
            | Mnemonic::Movsxd
            | Mnemonic::Pop
    );
    for index in u32::from(written_only && i.op0_kind() == OpKind::Register)..i.op_count() {
        if i.op_kind(index) == OpKind::Register {
            let register = i.op_register(index).full_register();
            if register != Register::RSP {
                out.extend(frame(state.register(register)));
            }
        }
    }
    out
}

/// Whether the result is a frame address again.
fn known_result(state: &State, i: &Instruction) -> bool {
    let to = i.op0_register();
    if !to.is_gpr64() {
        return false;
    }
    match i.mnemonic() {
        Mnemonic::Mov | Mnemonic::Pop => true,
        Mnemonic::Lea => {
            i.memory_index() == Register::None
                || matches!(state.register(i.memory_index()), Known::Number(_))
        }
        _ => {
            let immediate = !matches!(i.op1_kind(), OpKind::Register | OpKind::Memory);
            let number = i.op1_kind() == OpKind::Register
                && matches!(state.register(i.op1_register()), Known::Number(_));
            immediate || number
        }
    }
}

/// Bytes that are written and never read, but for `pop`, which also just moves the stack pointer. A
/// `push` counts where the stack pointer does not stay: it makes arguments there, and room elsewhere.
/// With them, the bytes that are read.
fn passed(code: &Code, steps: &[Effect], bytes: &Bytes) -> (Bits, Bits) {
    let mut tops: BTreeMap<i64, usize> = BTreeMap::new();
    for effect in steps {
        if let Some(top) = effect.top {
            *tops.entry(top).or_default() += 1;
        }
    }
    let usual = tops.into_iter().max_by_key(|(_, count)| *count).map_or(i64::MIN, |(top, _)| top);
    let mut written = Bits::new(bytes.count);
    let mut read = Bits::new(bytes.count);
    for (step, effect) in code.steps.iter().zip(steps) {
        let mnemonic = step.instruction.mnemonic();
        for access in &effect.accesses {
            for byte in access.range().into_iter().flatten() {
                let Some(bit) = bytes.index(byte) else { continue };
                if access.write && (mnemonic != Mnemonic::Push || byte < usual) {
                    written.insert(bit);
                }
                if access.read && mnemonic != Mnemonic::Pop {
                    read.insert(bit);
                }
            }
        }
    }
    for bit in (0..bytes.count).filter(|bit| read.has(*bit)) {
        written.remove(bit);
    }
    (written, read)
}
