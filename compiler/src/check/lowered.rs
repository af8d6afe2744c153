//! Frames of NEW that stand lower than OLD's did: as if OLD's frame had called NEW's body, from code that
//! takes the rest of OLD's frame away and returns, too.
//!
//! Takes a site's table and NEW's function; gives what stands against it. Everything else is proved of such a
//! frame as of any other, NEW's offsets being told from a CFA that is so much lower ([`as_seen_by_new`]).

use super::code::{Step, branch_target};
use super::effects::Access;
use super::function::Analysis;
use super::stub;
use super::supply::Side;
use super::values::Place;
use super::{Finding, Rule, copies};
use crate::debug::Parameters;
use dsu_patch_format::NewAddr;
use dsu_patch_format::frames::{Location, Translation, Value};
use dsu_patch_format::plan::{Copied, Plan, Protection, Target};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Register};

/// Of the stack pointer before a call (psABI 3.2.2).
const ALIGNMENT: u64 = 16;
/// At this offset from its CFA a body finds its return address, and from there on its caller's frame.
const RETURN_ADDRESS: i64 = -8;

/// The table with NEW's places told from what NEW's body calls the CFA.
pub(super) fn as_seen_by_new(translation: &Translation, copy: Option<&Copied>) -> Translation {
    let mut seen = translation.clone();
    seen.new_depth = seen.new_depth.saturating_sub(translation.lowered);
    for step in &mut seen.moves {
        step.to = copies::seen(step.to, translation, copy);
    }
    for (start, end) in &mut seen.objects {
        let bytes = end.saturating_sub(*start);
        *start = copies::seen_offset(*start, bytes, translation, copy);
        *end = start.saturating_add(bytes);
    }
    seen
}

/// What stands against a frame that is lowered, if it is one.
pub(super) fn check(
    plan: &Plan,
    translation: &Translation,
    new: Side<'_>,
    copy: Option<&Copied>,
) -> Vec<Finding> {
    let mut out = Vec::new();
    if let Some(copy) = copy.filter(|copy| copy.lowered != translation.lowered) {
        let what = format!("the copy at {} is for frames {} bytes lower", copy.start, copy.lowered);
        out.push(Finding::new(Rule::Lowered, what));
    }
    if translation.lowered == 0 {
        return out;
    }
    let mut object = |what: String| out.push(Finding::new(Rule::Lowered, what));
    if !translation.lowered.is_multiple_of(ALIGNMENT) {
        object(format!("{} bytes leave the stack pointer unaligned", translation.lowered));
    }
    if let Err(what) = returns(plan, translation) {
        object(what);
    }
    if let Some(at) = touched(new.function) {
        object(format!("NEW may touch its caller's frame, or its return address, at CFA{at:+}"));
    }
    if let Some(at) = left(new) {
        object(format!(
            "NEW may leave at {at:#x}, or whom it jumps to, with arguments on the stack"
        ));
    }
    out
}

/// Where a frame that stands lower returns to, by its table.
pub(super) fn returns_to(translation: &Translation) -> Option<NewAddr> {
    let by = translation.lowered.cast_signed();
    let home = Location::Slot { cfa: RETURN_ADDRESS.saturating_sub(by), bytes: 8 };
    let given = translation.moves.iter().find(|step| step.to == home)?;
    match given.from {
        Value::Address { target: Target::New(code), addend: 0 } if by > 0 => Some(code),
        _ => None,
    }
}

/// The two instructions at an address, as bytes that apply does not change.
pub(super) fn decode(plan: &Plan, at: NewAddr) -> Option<&[u8]> {
    // `lea rsp, [rsp + disp32]` has eight.
    const LONGEST: u64 = 9;
    let most = (1..=LONGEST).rev().find(|len| stub::segment(plan, at, *len).is_some())?;
    let bytes = stub::content(plan, at, most)?;
    let mut decoder = Decoder::with_ip(64, bytes, at.0, DecoderOptions::NONE);
    let len = decoder.decode().len() + decoder.decode().len();
    let is_text = stub::segment(plan, at, most)?.0.protection == Protection::Text;
    let whole = is_text && stub::fixups(plan, at, len as u64).is_empty();
    bytes.get(..len).filter(|_| whole)
}

/// That NEW's return address is that of `lea rsp, [rsp + lowered - 8]; ret`: after NEW's return the stack pointer
/// is `lowered` below OLD's CFA, and OLD's return address is 8 below that.
fn returns(plan: &Plan, translation: &Translation) -> Result<(), String> {
    let code = returns_to(translation).ok_or("NEW has no return address of its own")?;
    let bytes = decode(plan, code).ok_or_else(|| format!("{code} is no code that stays"))?;
    let mut decoder = Decoder::with_ip(64, bytes, code.0, DecoderOptions::NONE);
    let (lift, back) = (decoder.decode(), decoder.decode());
    let above = translation.lowered.cast_signed().saturating_add(RETURN_ADDRESS);
    let lifts = lift.code() == Code::Lea_r64_m
        && lift.op0_register() == Register::RSP
        && lift.memory_base() == Register::RSP
        && lift.memory_index() == Register::None
        && lift.memory_displacement64().cast_signed() == above;
    if !(lifts && back.code() == Code::Retnq) {
        return Err(format!("the code at {code} is `{lift}; {back}`"));
    }
    match unwinds(plan, translation, code, lift.len() as u64) {
        true => Ok(()),
        false => Err(format!("the code at {code} cannot be unwound")),
    }
}

/// How unwinders get from there to OLD's caller: the instruction before a return address counts as the call.
fn unwinds(plan: &Plan, translation: &Translation, code: NewAddr, lift: u64) -> bool {
    let row = |at: u64| {
        let after = plan.unwind.partition_point(|row| row.start.0 <= at);
        let row = after.checked_sub(1).and_then(|i| plan.unwind.get(i))?;
        let holds = at - row.start.0 < u64::from(row.len) && row.saved.is_empty();
        holds.then_some(row.cfa)
    };
    let rsp = |offset: u64| i32::try_from(offset).ok().map(|offset| (4, offset));
    let lowered = rsp(translation.lowered);
    let (before, lifted) = (code.0.wrapping_sub(1), code.0.wrapping_add(lift));
    row(before) == lowered && row(code.0) == lowered && row(lifted) == rsp(8)
}

/// Where NEW may leave otherwise than by a plain return and with arguments on the stack: those of whom it jumps to,
/// which are where it found its own, or its own that it takes away.
fn left(new: Side<'_>) -> Option<u64> {
    let Side { calls, function, .. } = new;
    let stacked = |p: Option<Parameters>| p.is_none_or(|p| p.variadic || p.stack > 0);
    let odd = |(index, step): (usize, &Step)| {
        let i = &step.instruction;
        let leaves = match i.flow_control() {
            FlowControl::Return => return i.code() != Code::Retnq,
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                branch_target(i).is_none_or(|to| function.code.index(to).is_none())
            }
            FlowControl::IndirectBranch => true,
            _ => false,
        };
        let callee = function.values.callees.get(&index);
        let jumps = leaves && (callee.is_some() || i.flow_control() != FlowControl::IndirectBranch);
        jumps && stacked(function.own) && stacked(callee.and_then(|c| calls.prototype(c)))
    };
    let mut steps = function.code.steps.iter().enumerate();
    steps.find(|step| odd(*step)).map(|(_, step)| step.instruction.ip())
}

/// An offset from the return address up that NEW's body may read or write itself, or of which an address may be
/// known. Returns find theirs wherever the frame stands.
fn touched(new: &Analysis) -> Option<i64> {
    let effects = &new.effects;
    let above = |access: &Access| match access.place {
        Place::Frame(at) => (at.saturating_add(access.bytes.max(1)) > RETURN_ADDRESS).then_some(at),
        Place::Indexed(at) => (at >= RETURN_ADDRESS).then_some(at),
        _ => None,
    };
    let steps = new.code.steps.iter().zip(&effects.steps);
    let others = steps.filter(|(step, _)| step.instruction.flow_control() != FlowControl::Return);
    let direct = others.flat_map(|(_, effect)| &effect.accesses).find_map(above);
    direct.or_else(|| new.reach.offsets.last().copied().filter(|at| *at >= RETURN_ADDRESS))
}
