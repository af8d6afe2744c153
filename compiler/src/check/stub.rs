//! The bytes of a stub as instructions, with the fix-ups of their operands.
//!
//! Takes a plan and a site; gives the instructions before the final jump. Refuses what is not whole
//! instructions one after the other up to a jump to the counterpart, and fix-ups that are not whole
//! operands.

use super::{Finding, Rule};
use dsu_patch_format::NewAddr;
use dsu_patch_format::plan::{Fixup, FixupKind, Plan, Protection, Segment, Site, Target};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};

/// An instruction of a stub.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    /// Decoded, at its linked address.
    pub(super) instruction: Instruction,
    /// What its displacement becomes.
    pub(super) displacement: Option<Fixup>,
    /// What its immediate becomes.
    pub(super) immediate: Option<Fixup>,
}

/// Bytes of a stub, at most: far beyond any that is of use.
const LONGEST: u64 = 1 << 20;

/// The segment with the bytes of a range, and where they begin in it.
pub(super) fn segment(plan: &Plan, start: NewAddr, len: u64) -> Option<(&Segment, usize)> {
    let after = plan.segments.partition_point(|s| s.start <= start);
    let segment = plan.segments.get(after.checked_sub(1)?)?;
    let offset = start.since(segment.start);
    let end = offset.checked_add(len)?;
    let inside = end <= segment.bytes.len() as u64;
    inside.then_some((segment, usize::try_from(offset).ok()?))
}

/// Content of the shadow image before fix-ups.
pub(super) fn content(plan: &Plan, start: NewAddr, len: u64) -> Option<&[u8]> {
    let (segment, offset) = segment(plan, start, len)?;
    segment.bytes.get(offset..offset + usize::try_from(len).ok()?)
}

/// The fix-ups that touch a range, ascending.
pub(super) fn fixups(plan: &Plan, start: NewAddr, len: u64) -> &[Fixup] {
    let size = |f: &Fixup| if f.kind == FixupKind::Abs64 { 8 } else { 4 };
    let end = start.0.saturating_add(len);
    let first = plan.fixups.partition_point(|f| f.at.0.saturating_add(size(f)) <= start.0);
    let last = plan.fixups.partition_point(|f| f.at.0 < end);
    plan.fixups.get(first..last).unwrap_or_default()
}

/// The instructions of a site's stub, without the jump at its end.
pub(super) fn decode(plan: &Plan, site: &Site) -> Result<Vec<Operation>, Finding> {
    let bytes_rule = |what: String| Finding::new(Rule::Bytes, what);
    let len = u64::from(site.stub_len);
    let bytes = Some(len)
        .filter(|len| *len <= LONGEST)
        .and_then(|len| content(plan, site.stub, len))
        .ok_or_else(|| bytes_rule(format!("no segment has the {len} bytes of {}", site.stub)))?;
    let text = segment(plan, site.stub, len).is_some_and(|(s, _)| s.protection == Protection::Text);
    if !text {
        return Err(bytes_rule(format!("{} is not in a text segment", site.stub)));
    }
    let mut decoder = Decoder::with_ip(64, bytes, site.stub.0, DecoderOptions::NONE);
    let mut out = Vec::new();
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            let at = instruction.ip();
            return Err(bytes_rule(format!("no whole instruction at {at:#x} of the stub")));
        }
        let (displacement, immediate) = operands(plan, &decoder, &instruction)?;
        let operation = Operation { instruction, displacement, immediate };
        if instruction.flow_control() == FlowControl::Next {
            out.push(operation);
            continue;
        }
        return match ends(site, &operation, decoder.can_decode()) {
            true => Ok(out),
            false => Err(Finding::new(
                Rule::End,
                format!("`{instruction}` at {:#x} is not the end of the stub", instruction.ip()),
            )),
        };
    }
    Err(Finding::new(Rule::End, "the stub runs on behind its end"))
}

/// Whether an instruction is the jump to the counterpart, and the last one.
fn ends(site: &Site, operation: &Operation, more: bool) -> bool {
    let instruction = &operation.instruction;
    let near = instruction.mnemonic() == Mnemonic::Jmp && instruction.is_jmp_short_or_near();
    let to = match operation.immediate {
        None => NewAddr(instruction.near_branch_target()),
        Some(Fixup { target: Target::New(target), addend, at, .. }) => {
            let from_field = instruction.next_ip().wrapping_sub(at.0);
            target.offset(addend.cast_unsigned()).offset(from_field)
        }
        Some(_) => return false,
    };
    near && !more && to == site.to
}

/// The fix-ups of an instruction's displacement and immediate.
fn operands(
    plan: &Plan,
    decoder: &Decoder<'_>,
    instruction: &Instruction,
) -> Result<(Option<Fixup>, Option<Fixup>), Finding> {
    let offsets = decoder.get_constant_offsets(instruction);
    let (mut displacement, mut immediate) = (None, None);
    for fixup in fixups(plan, NewAddr(instruction.ip()), instruction.len() as u64) {
        let within = usize::try_from(fixup.at.0.wrapping_sub(instruction.ip())).ok();
        let size = if fixup.kind == FixupKind::Abs64 { 8 } else { 4 };
        let relative = fixup.kind == FixupKind::Rel32;
        let is_displacement = offsets.has_displacement()
            && within == Some(offsets.displacement_offset())
            && size == offsets.displacement_size()
            && relative == instruction.is_ip_rel_memory_operand();
        let branch = instruction.flow_control() != FlowControl::Next;
        let is_immediate = offsets.has_immediate()
            && within == Some(offsets.immediate_offset())
            && size == offsets.immediate_size()
            && relative == branch;
        match (is_displacement, is_immediate) {
            (true, _) => displacement = Some(*fixup),
            (_, true) => immediate = Some(*fixup),
            _ => {
                let what = format!("the fix-up at {} is no operand of `{instruction}`", fixup.at);
                return Err(Finding::new(Rule::Bytes, what));
            }
        }
    }
    Ok((displacement, immediate))
}
