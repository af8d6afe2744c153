//! Copies of functions: that each does what its function does, with the objects that the plan names elsewhere in the
//! frame, and everything else where it was.
//!
//! Takes the plan and NEW's functions; gives where each instruction of a copy comes from, and what stands against it.
//! Instruction by instruction the copy is decoded beside the function. What differs is displacements, and additions
//! for copies of registers; both bodies' frame addresses are then followed, and compared:
//!
//! - only displacements from addresses of the frame differ;
//! - bytes that are accessed at a known place are moved as the object is that they are in;
//! - an address that leaves sight is moved as an object that it is in, or ends; one that is counted from, or compared,
//!   only where all objects are moved alike;
//! - a register that holds an address of the frame holds the same one, or one that is moved so; any other known value
//!   is the same;
//! - what is accessed by instructions that want it aligned is as aligned as it was;
//! - jumps through tables go by tables of the copy (dispatch).
//!
//! Which of two objects an address means where one ends and the other begins, the builder decides.

use super::calls::Calls;
use super::code::{Code, Step, branch_target};
use super::dispatch::{self, Jumps};
use super::effects::{Access, Effects};
use super::function::Analysis;
use super::stub;
use super::values::{Known, Place, State, Values, is_call, transfer};
use super::{Finding, Rule};
use crate::image::{FunctionId, Image};
use dsu_patch_format::NewAddr;
use dsu_patch_format::frames::{Location, Translation};
use dsu_patch_format::plan::{Copied, Fixup, Plan};
use iced_x86::{
    Code as Opcode, Decoder, DecoderOptions, EncodingKind, Instruction, InstructionInfoFactory,
    Mnemonic, OpKind, Register,
};
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

/// One copy, decoded.
#[derive(Debug)]
pub(super) struct Copy<'p> {
    pub(super) plan: &'p Copied,
    whole: &'p Plan,
    /// NEW's function.
    pub(super) function: FunctionId,
    /// Where its instructions come from.
    origins: BTreeMap<u64, u64>,
    /// Where the function's instructions are in it.
    places: BTreeMap<u64, u64>,
    /// What of it is behind its code.
    rest: Range<u64>,
    /// The function with the copy's displacements, at the function's addresses.
    code: Code,
}

/// A copy whose addresses were followed.
#[derive(Debug)]
pub(super) struct Followed {
    /// Where its instructions come from.
    origins: BTreeMap<u64, u64>,
    code: Code,
    values: Values,
    finding: Option<Finding>,
    /// Steps between which registers hold other things than in the function.
    jumps: Vec<RangeInclusive<usize>>,
}

fn object(copy: &Copied, what: impl std::fmt::Display) -> Finding {
    Finding::new(Rule::Copy, format!("the copy at {}: {what}", copy.start))
}

impl<'p> Copy<'p> {
    /// Decodes a copy beside its function.
    pub(super) fn read(image: &Image, plan: &'p Plan, copy: &'p Copied) -> Result<Self, Finding> {
        let failed = |what: &str| object(copy, what);
        let found = image.functions.binary_search_by_key(&copy.of.0, |f| f.address).ok();
        let function = found.map(FunctionId).ok_or_else(|| failed("NEW has no such function"))?;
        let mut code = Code::new(image, function);
        if code.damaged.is_some() {
            return Err(failed("its function cannot be decoded"));
        }
        let len = u64::from(copy.len);
        let text = stub::segment(plan, copy.start, len);
        let is_text =
            text.is_some_and(|(s, _)| s.protection == dsu_patch_format::plan::Protection::Text);
        let bytes = stub::content(plan, copy.start, len).filter(|_| is_text);
        let bytes = bytes.ok_or_else(|| failed("it is no code"))?;
        let mut decoder = Decoder::with_ip(64, bytes, copy.start.0, DecoderOptions::NONE);
        let originals: Vec<usize> = (0..code.steps.len())
            .filter(|i| code.steps[*i].instruction.mnemonic() != Mnemonic::Nop)
            .collect();
        let mut copied = Vec::new();
        for _ in &originals {
            copied.push(decoder.decode());
        }
        if decoder.decode().code() != Opcode::Int3 {
            return Err(failed("it does not end where its function does"));
        }
        let rest = decoder.ip()..copy.start.0.saturating_add(len);
        let places: BTreeMap<u64, u64> = originals
            .iter()
            .zip(&copied)
            .map(|(step, i)| (code.steps[*step].instruction.ip(), i.ip()))
            .collect();
        let mut factory = InstructionInfoFactory::new();
        for (step, copied) in originals.iter().zip(&copied) {
            let original = code.steps[*step].instruction;
            let same = renamed(&original, copied, &code, &places)
                .filter(|_| same_fixups(plan, &original, copied));
            let Some(renamed) = same else {
                return Err(object(copy, format!("`{copied}` is not `{original}`")));
            };
            let info = factory.info(&renamed).clone();
            code.steps[*step] = Step { instruction: renamed, info };
        }
        // Nothing goes from the end of one part to the beginning of the next.
        for (_, steps) in &code.parts {
            let last = steps.clone().rev().find(|step| originals.contains(step));
            let ends = last.is_none_or(|last| {
                use iced_x86::FlowControl::{ConditionalBranch, Next};
                !matches!(code.steps[last].instruction.flow_control(), Next | ConditionalBranch)
            });
            if !ends {
                return Err(failed("its function goes on behind its end"));
            }
        }
        let origins = places.iter().map(|(from, to)| (*to, *from)).collect();
        Ok(Self { plan: copy, whole: plan, function, origins, places, rest, code })
    }

    /// The instruction of the function that one of the copy stands for.
    pub(super) fn origin(&self, at: NewAddr) -> Option<u64> {
        self.origins.get(&at.0).copied()
    }

    /// Of one that no site leads to.
    pub(super) fn useless(&self) -> Finding {
        object(self.plan, "nothing goes on in it")
    }

    /// Follows both bodies' frame addresses, and compares them.
    pub(super) fn follow(self, calls: &Calls<'_>, analysis: &Analysis) -> Followed {
        let Self { plan, whole, mut code, origins, places, rest, .. } = self;
        let image = calls.image;
        let jumps = Jumps { plan: whole, image, analysis, copied: &code, places: &places, rest };
        let jumps = jumps.check();
        for load in jumps.iter().flatten().map(RangeInclusive::start) {
            code.steps[*load] = analysis.code.steps[*load].clone();
        }
        let values = Values::new(calls, &mut code);
        let effects = Effects::new(calls, &code, &values);
        let frames = Frames { plan, analysis, code: &code, values: &values, effects: &effects };
        let compared = jumps.and_then(|jumps| frames.compare().map(|()| jumps));
        let finding = compared.as_ref().err().map(|what| object(plan, what));
        let jumps = compared.unwrap_or_default();
        Followed { origins, finding, code, values, jumps }
    }
}

impl Followed {
    /// What stands against it.
    pub(super) fn finding(&self) -> Option<&Finding> {
        self.finding.as_ref()
    }

    /// The instruction of the function that one of the copy stands for.
    pub(super) fn origin(&self, at: NewAddr) -> Option<u64> {
        self.origins.get(&at.0).copied()
    }

    /// Whether an instruction uses what the one before has read from a table of the copy, by its address in the
    /// function.
    pub(super) fn is_jumping(&self, origin: u64) -> bool {
        let index = self.code.index(origin);
        let uses = |index| self.jumps.iter().any(|j| *j.start() < index && index <= *j.end());
        index.is_some_and(uses)
    }

    /// What is known at an instruction, by its address in the function.
    pub(super) fn state(&self, origin: u64) -> Option<State> {
        self.values.at(&self.code, self.code.index(origin)?)
    }
}

/// The copy's instruction as one of the function, at the function's address, if it is that but for displacements.
fn renamed(
    original: &Instruction,
    copied: &Instruction,
    code: &Code,
    places: &BTreeMap<u64, u64>,
) -> Option<Instruction> {
    let mut expected = *original;
    let registers = |i: &Instruction| {
        (0..i.op_count()).all(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_gpr64())
    };
    if original.mnemonic() == Mnemonic::Mov && copied.mnemonic() == Mnemonic::Lea {
        let added = registers(original)
            && copied.op0_register() == original.op0_register()
            && copied.memory_base() == original.op1_register()
            && copied.memory_index() == Register::None
            && copied.segment_prefix() == Register::None;
        let mut renamed = *copied;
        renamed.set_len(original.len());
        renamed.set_ip(original.ip());
        return added.then_some(renamed);
    }
    if original.op0_kind() == OpKind::NearBranch64 {
        let to = original.near_branch_target();
        let inside = branch_target(original).and_then(|to| dispatch::place(code, places, to));
        expected.set_near_branch64(inside.unwrap_or(to));
        // `jmp rel8` and `jmp rel32` are one.
        expected.set_code(copied.code());
        let same = expected == *copied && original.mnemonic() == copied.mnemonic();
        return same.then_some(*original);
    }
    let is_based = !original.is_ip_rel_memory_operand()
        && original.memory_base() != Register::None
        && (0..original.op_count()).any(|n| original.op_kind(n) == OpKind::Memory);
    if is_based {
        expected.set_memory_displacement64(copied.memory_displacement64());
        expected.set_memory_displ_size(copied.memory_displ_size());
    }
    (expected == *copied).then(|| {
        let mut renamed = *original;
        if is_based {
            renamed.set_memory_displacement64(copied.memory_displacement64());
        }
        renamed
    })
}

/// Whether both have the same operands that depend on the process, at the same distances from their ends.
fn same_fixups(plan: &Plan, original: &Instruction, copied: &Instruction) -> bool {
    let of = |i: &Instruction| -> Vec<(u64, Fixup)> {
        let fixups = stub::fixups(plan, NewAddr(i.ip()), i.len() as u64);
        let from_end =
            |f: &Fixup| (i.next_ip().wrapping_sub(f.at.0), Fixup { at: NewAddr(0), ..*f });
        fixups.iter().map(from_end).collect()
    };
    of(original) == of(copied)
}

struct Frames<'a> {
    plan: &'a Copied,
    analysis: &'a Analysis,
    code: &'a Code,
    values: &'a Values,
    effects: &'a Effects,
}

impl Frames<'_> {
    fn compare(&self) -> Result<(), String> {
        let (own, code) = (self.analysis, &self.analysis.code);
        let alike = code.blocks == self.code.blocks
            && own.values.successors == self.values.successors
            && own.values.unresolved.is_empty()
            && self.values.unresolved.is_empty();
        if !alike {
            return Err("nobody knows where it goes".to_owned());
        }
        for (block, steps) in code.blocks.iter().enumerate() {
            let states = (own.values.states[block].clone(), self.values.states[block].clone());
            let mut states = match states {
                (None, None) => None,
                (Some(was), Some(is)) => Some((was, is)),
                _ => return Err("nobody knows where it goes".to_owned()),
            };
            for index in steps.clone() {
                self.step(index, states.as_ref())?;
                if let Some((was, is)) = &mut states {
                    transfer(was, code, index, own.values.callees.get(&index));
                    transfer(is, self.code, index, self.values.callees.get(&index));
                }
            }
        }
        let same = own.effects.lost.len() == self.effects.lost.len()
            && own.effects.lost.iter().zip(&self.effects.lost).all(|(was, is)| {
                (was.0, was.1, was.2) == (is.0, is.1, is.2)
                    && self.is_moved(was.3, is.3)
                    && self.are_moved_alike()
            });
        if same { Ok(()) } else { Err("an address that goes on in a loop is another".to_owned()) }
    }

    /// Compares one step, before which this is known of both, if some path leads there.
    fn step(&self, index: usize, states: Option<&(State, State)>) -> Result<(), String> {
        let own = self.analysis;
        let i = &own.code.steps[index].instruction;
        let unlike = |what: &str| format!("{what} at {:#x} of its function", i.ip());
        let (was, is) = (&own.effects.steps[index], &self.effects.steps[index]);
        if was.accesses.len() != is.accesses.len() || was.taken.len() != is.taken.len() {
            return Err(unlike("what it does to memory is not known"));
        }
        let accessed =
            was.accesses.iter().zip(&is.accesses).all(|(was, is)| self.access(i, was, is));
        if !accessed {
            return Err(unlike("it accesses something else, or not as aligned"));
        }
        // A callee, memory and strings take addresses as they are.
        let handed = is_call(i)
            || i.is_string_instruction()
            || matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Push);
        let taken = was
            .taken
            .iter()
            .zip(&is.taken)
            .all(|(was, is)| self.is_moved(*was, *is) && (handed || self.are_moved_alike()));
        let same = match states {
            Some((was, is)) => self.registers(index, (was, is)),
            // Nobody comes there.
            None => *i == self.code.steps[index].instruction,
        };
        if !taken || !same {
            return Err(unlike("it has another address"));
        }
        Ok(())
    }

    fn shifts(&self) -> impl Iterator<Item = i64> {
        self.plan.objects.iter().map(|o| o.shift(self.plan.lowered))
    }

    /// Whether all objects are moved by one distance.
    fn are_moved_alike(&self) -> bool {
        let mut shifts = self.shifts();
        let first = shifts.next();
        shifts.all(|shift| Some(shift) == first)
    }

    /// Whether bytes that are accessed are moved as the object is that they are in, and stay aligned.
    fn access(&self, i: &Instruction, was: &Access, is: &Access) -> bool {
        let aligned = |shift: i64| shift % ALIGNMENT == 0 || !is_aligned(i);
        match (was.place, is.place) {
            (Place::Elsewhere, Place::Elsewhere) => self.shifts().all(aligned),
            (Place::Indexed(was), Place::Indexed(is)) => {
                let counted = !i.is_string_instruction();
                self.is_moved(was, is)
                    && (!counted || self.are_moved_alike())
                    && self.shifts().all(aligned)
            }
            (Place::Frame(from), Place::Frame(to)) => {
                let end = from.saturating_add(was.bytes.max(1));
                let mut touched =
                    self.plan.objects.iter().filter(|o| o.start < end && from < o.end);
                let shift = match touched.next() {
                    None => Some(0),
                    Some(o) => {
                        (o.start <= from && end <= o.end).then(|| o.shift(self.plan.lowered))
                    }
                };
                was.bytes == is.bytes && shift == to.checked_sub(from) && shift.is_some_and(aligned)
            }
            _ => false,
        }
    }

    /// Whether an address is moved as an object that it is in or ends; one that is in none stays.
    fn is_moved(&self, was: i64, is: i64) -> bool {
        let shift = is.checked_sub(was);
        let objects = &self.plan.objects;
        let mut near = objects.iter().filter(|o| o.start <= was && was <= o.end);
        let inside = objects.iter().any(|o| o.start <= was && was < o.end);
        near.any(|o| shift == Some(o.shift(self.plan.lowered))) || !inside && shift == Some(0)
    }

    /// Whether registers hold the same addresses, or moved ones; those that are compared must be moved ones.
    fn registers(&self, index: usize, (was, is): (&State, &State)) -> bool {
        let i = &self.code.steps[index].instruction;
        let compared = |number: usize| {
            matches!(i.mnemonic(), Mnemonic::Cmp | Mnemonic::Test)
                && (0..i.op_count()).any(|n| {
                    i.op_kind(n) == OpKind::Register
                        && i.op_register(n).is_gpr()
                        && i.op_register(n).full_register().number() == number
                })
        };
        was.general.iter().zip(&is.general).enumerate().all(|(number, pair)| match pair {
            (Known::Frame(was), Known::Frame(is)) => match compared(number) {
                true => self.is_moved(*was, *is) && self.are_moved_alike(),
                false => self.is_moved(*was, *is) || was == is,
            },
            (was, is) => was == is,
        }) && self.is_based(index, was)
    }

    /// Whether an instruction that differs adds to an address of the frame.
    fn is_based(&self, index: usize, was: &State) -> bool {
        let before = &self.analysis.code.steps[index].instruction;
        let after = &self.code.steps[index].instruction;
        let base = match (before == after, before.mnemonic()) {
            (true, _) => return true,
            (false, Mnemonic::Mov) if after.mnemonic() == Mnemonic::Lea => before.op1_register(),
            _ => before.memory_base(),
        };
        let known = |register| matches!(was.register(register), Known::Frame(_));
        known(base) || before.memory_index_scale() == 1 && known(before.memory_index())
    }
}

/// What vector instructions want of their operands (SDM volume 1, 4.1.1).
const ALIGNMENT: i64 = 16;

/// Whether an instruction faults where what it accesses is not aligned (SDM volume 1, 10.4.4 and 14.9).
fn is_aligned(i: &Instruction) -> bool {
    use Mnemonic as M;
    if i.memory_size().size() < 16 {
        return false;
    }
    match i.encoding() {
        EncodingKind::Legacy => {
            !matches!(i.mnemonic(), M::Movups | M::Movupd | M::Movdqu | M::Lddqu)
        }
        _ => matches!(
            i.mnemonic(),
            M::Vmovaps
                | M::Vmovapd
                | M::Vmovdqa
                | M::Vmovdqa32
                | M::Vmovdqa64
                | M::Vmovntps
                | M::Vmovntpd
                | M::Vmovntdq
                | M::Vmovntdqa
        ),
    }
}

/// A place of NEW's as its function calls it.
pub(super) fn seen(place: Location, translation: &Translation, copy: Option<&Copied>) -> Location {
    match place {
        Location::Slot { cfa, bytes } => {
            let cfa = seen_offset(cfa, i64::from(bytes), translation, copy);
            Location::Slot { cfa, bytes }
        }
        other => other,
    }
}

/// An offset from OLD's CFA of so many bytes, as NEW's function calls it.
pub(super) fn seen_offset(
    cfa: i64,
    bytes: i64,
    translation: &Translation,
    copy: Option<&Copied>,
) -> i64 {
    let end = cfa.saturating_add(bytes);
    let mut objects = copy.into_iter().flat_map(|copy| &copy.objects);
    match objects.find(|o| o.old <= cfa && end <= o.old_end()) {
        Some(o) => o.start.saturating_add(cfa.saturating_sub(o.old)),
        None => cfa.saturating_add_unsigned(translation.lowered),
    }
}

/// Where what NEW's function has at an offset is, from OLD's CFA.
pub(super) fn in_old(offset: i64, translation: &Translation, copy: Option<&Copied>) -> i64 {
    let objects = || copy.into_iter().flat_map(|copy| &copy.objects);
    let inside = objects().find(|o| o.start <= offset && offset < o.end);
    match inside.or_else(|| objects().find(|o| o.end == offset)) {
        Some(o) => o.old.saturating_add(offset.saturating_sub(o.start)),
        None => offset.saturating_sub_unsigned(translation.lowered),
    }
}
