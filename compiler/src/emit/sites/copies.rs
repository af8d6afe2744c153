//! A function of NEW once more, with the displacements that its frames of OLD need.
//!
//! Takes a function's instructions as they shall be, and what the plan says of its own code; gives the bytes of the
//! copy, with everything that the plan has to say of them. Jumps stay inside; whatever the function calls, itself
//! too, is called where it was.
//!
//! ```text
//! code            every instruction of the function
//! int3            up to where the tables are aligned
//! tables          where the copy's jumps go instead of the function's own tables, as distances from those
//! ```

use dsu_patch_format::NewAddr;
use dsu_patch_format::plan::{Fixup, Plan, UnwindRow};
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, BlockEncoderResult, ConstantOffsets, Decoder,
    DecoderOptions, FlowControl, Instruction, InstructionBlock,
};
use std::collections::BTreeMap;

use crate::code::Step;
use crate::frames::Relaid;
use crate::machine::Dispatch;
use crate::machine::flow::Flow;

/// Added to the addresses of the function's own instructions, so that the encoder does not take a call of the
/// function for one of the copy.
const ASIDE: u64 = 1 << 46;
/// `int3`.
const END: u8 = 0xcc;
/// Bytes of a table's entry.
const ENTRY: u64 = 4;

/// The copy.
pub(super) struct Copy {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Its operands that depend on the process.
    pub fixups: Vec<Fixup>,
    /// How its frames are unwound.
    pub rows: Vec<UnwindRow>,
    /// Where each instruction is, by its address in the function.
    pub places: BTreeMap<u64, NewAddr>,
}

/// The copy of a function, to lie at `at`.
pub(super) fn assemble(relaid: &Relaid, plan: &Plan, at: NewAddr) -> Result<Copy, String> {
    let Relaid { flow, dispatches, .. } = relaid;
    let body = &flow.body;
    if body.opaque.is_some() {
        return Err("its code cannot be decoded".to_owned());
    }
    for (part, steps) in &body.parts {
        let last = steps.clone().last().map(|step| &body.steps[step].instruction);
        if last.is_some_and(|i| {
            matches!(i.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch)
        }) {
            return Err(format!("its code goes on behind {:#x}", part.end));
        }
    }
    let mut moved: Vec<Instruction> =
        body.steps.iter().map(|step| aside(flow, step)).collect::<Result<_, _>>()?;
    // How far the tables are says how long the code is, for all that is known to be far.
    let first = encoded(&with_tables(&moved, dispatches, &BTreeMap::new(), at)?, at)?;
    let tables = Tables::behind(at.offset(first.code_buffer.len() as u64), dispatches);
    moved = with_tables(&moved, dispatches, &tables.places, at)?;
    let made = encoded(&moved, at)?;
    if made.code_buffer.len() != first.code_buffer.len() {
        return Err("its tables are too near".to_owned());
    }
    let mut bytes = made.code_buffer;
    let starts = made.new_instruction_offsets.iter().map(|offset| u64::from(*offset));
    let ends = starts.clone().skip(1).chain([bytes.len() as u64]);
    let mut copy =
        Copy { bytes: Vec::new(), fixups: Vec::new(), rows: Vec::new(), places: BTreeMap::new() };
    for (step, (start, end)) in body.steps.iter().zip(starts.zip(ends)) {
        let code = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let code = code.and_then(|(start, end)| bytes.get(start..end));
        let code = code.ok_or_else(|| format!("`{}` cannot be put elsewhere", step.instruction))?;
        let place = at.offset(start);
        let own = fixups(step, (plan, code), place)?;
        let takes = |table: &u64| step.references.iter().any(|r| r.taken && r.target == *table);
        if !own.is_empty() && tables.places.keys().any(takes) {
            return Err("its table is not NEW's own".to_owned());
        }
        copy.fixups.extend(own);
        copy.places.insert(step.address(), place);
        if let Some(row) = row(plan, NewAddr(step.address())) {
            add_row(
                &mut copy.rows,
                UnwindRow {
                    start: place,
                    len: u32::try_from(code.len()).unwrap_or(u32::MAX),
                    ..row.clone()
                },
            );
        }
    }
    tables.write(flow, (dispatches, &copy.places), at, &mut bytes)?;
    copy.bytes = bytes;
    Ok(copy)
}

fn encoded(moved: &[Instruction], at: NewAddr) -> Result<BlockEncoderResult, String> {
    let block = InstructionBlock::new(moved, at.0);
    let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    BlockEncoder::encode(64, block, options).map_err(|why| why.to_string())
}

/// The same code with its loads from tables leading to those of the copy; to `at` where their places are not known
/// yet.
fn with_tables(
    code: &[Instruction],
    dispatches: &[Dispatch],
    places: &BTreeMap<u64, NewAddr>,
    at: NewAddr,
) -> Result<Vec<Instruction>, String> {
    let mut code = code.to_vec();
    for dispatch in dispatches {
        let place = places.get(&dispatch.table).unwrap_or(&at);
        let distance = distance(dispatch.table, *place)?;
        let load = code.get_mut(dispatch.load).ok_or("a load is behind its end")?;
        load.set_memory_displacement64(i64::from(distance).cast_unsigned());
        load.set_memory_displ_size(8);
    }
    Ok(code)
}

/// From one place of NEW's to another.
fn distance(from: u64, to: NewAddr) -> Result<i32, String> {
    i32::try_from(to.0.wrapping_sub(from).cast_signed())
        .map_err(|_| "its tables are too far away".to_owned())
}

/// The tables of a copy.
struct Tables {
    /// Where each is, by the address of the function's own.
    places: BTreeMap<u64, NewAddr>,
}

impl Tables {
    /// Those of a copy whose code ends there.
    fn behind(code: NewAddr, dispatches: &[Dispatch]) -> Self {
        let mut places = BTreeMap::new();
        let mut next = NewAddr((code.0 + 1).next_multiple_of(ENTRY));
        for dispatch in dispatches {
            places.entry(dispatch.table).or_insert_with(|| {
                let place = next;
                next = next.offset(ENTRY * dispatch.targets.len() as u64);
                place
            });
        }
        Self { places }
    }

    /// Writes them behind the code of a copy that lies at `at`, by where its instructions are.
    fn write(
        &self,
        flow: &Flow,
        (dispatches, instructions): (&[Dispatch], &BTreeMap<u64, NewAddr>),
        at: NewAddr,
        bytes: &mut Vec<u8>,
    ) -> Result<(), String> {
        bytes.push(END);
        for dispatch in dispatches {
            let place = self.places.get(&dispatch.table).ok_or("a table has no place")?;
            let start = usize::try_from(place.since(at)).map_err(|why| why.to_string())?;
            // Several jumps may go by one table.
            if start < bytes.len() {
                continue;
            }
            bytes.resize(start, END);
            for target in &dispatch.targets {
                let to = flow.body.steps.get(*target);
                let to = to.and_then(|step| instructions.get(&step.address()));
                let to = to.ok_or("a table leads to nowhere")?;
                bytes.extend(distance(dispatch.table, *to)?.to_le_bytes());
            }
        }
        Ok(())
    }
}

/// An instruction for the encoder.
fn aside(flow: &Flow, step: &Step) -> Result<Instruction, String> {
    let mut moved = step.instruction;
    moved.set_ip(step.address().wrapping_add(ASIDE));
    let jumps = matches!(
        moved.flow_control(),
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
    );
    if jumps && let Some(to) = flow.body.index_at(moved.near_branch_target()) {
        let to = flow.body.steps.get(to).ok_or("it jumps behind its end")?;
        moved.set_near_branch64(to.address().wrapping_add(ASIDE));
    }
    Ok(moved)
}

/// The fix-ups of an instruction, where it is now.
fn fixups(step: &Step, (plan, code): (&Plan, &[u8]), at: NewAddr) -> Result<Vec<Fixup>, String> {
    let (start, end) = (step.address(), step.end());
    let first = plan.fixups.partition_point(|fixup| fixup.at.0 < start);
    let own = plan.fixups[first..].iter().take_while(|fixup| fixup.at.0 < end);
    let failed = || format!("the operands of `{}` cannot be put elsewhere", step.instruction);
    let mut out = Vec::new();
    for fixup in own {
        let original = content(plan, start, end - start).ok_or_else(failed)?;
        let (was, is) = (constants(original, start), constants(code, at.0));
        let within = usize::try_from(fixup.at.0 - start).map_err(|_| failed())?;
        let place = if was.has_displacement() && was.displacement_offset() == within {
            is.has_displacement().then(|| (is.displacement_offset(), is.displacement_size()))
        } else if was.has_immediate() && was.immediate_offset() == within {
            is.has_immediate().then(|| (is.immediate_offset(), is.immediate_size()))
        } else {
            None
        };
        let size = |offsets: &ConstantOffsets| match was.displacement_offset() == within {
            true => offsets.displacement_size(),
            false => offsets.immediate_size(),
        };
        // The addend counts from the field to the end of its instruction.
        let alike = |(offset, bytes): &(usize, usize)| {
            *bytes == size(&was) && code.len() - offset == original.len() - within
        };
        let (offset, _) = place.filter(alike).ok_or_else(failed)?;
        out.push(Fixup { at: at.offset(offset as u64), ..*fixup });
    }
    Ok(out)
}

fn constants(code: &[u8], at: u64) -> ConstantOffsets {
    let mut decoder = Decoder::with_ip(64, code, at, DecoderOptions::NONE);
    let instruction = decoder.decode();
    decoder.get_constant_offsets(&instruction)
}

fn content(plan: &Plan, at: u64, len: u64) -> Option<&[u8]> {
    let after = plan.segments.partition_point(|segment| segment.start.0 <= at);
    let segment = plan.segments.get(after.checked_sub(1)?)?;
    let offset = usize::try_from(at - segment.start.0).ok()?;
    segment.bytes.get(offset..offset.checked_add(usize::try_from(len).ok()?)?)
}

fn row(plan: &Plan, at: NewAddr) -> Option<&UnwindRow> {
    let after = plan.unwind.partition_point(|row| row.start <= at);
    let row = plan.unwind.get(after.checked_sub(1)?)?;
    (at.since(row.start) < u64::from(row.len)).then_some(row)
}

fn add_row(rows: &mut Vec<UnwindRow>, row: UnwindRow) {
    match rows.last_mut() {
        Some(last)
            if (last.cfa, &last.saved) == (row.cfa, &row.saved)
                && last.start.offset(last.len.into()) == row.start =>
        {
            last.len += row.len;
        }
        _ => rows.push(row),
    }
}
