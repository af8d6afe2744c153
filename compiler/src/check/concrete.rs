//! The second opinion: stubs executed on numbers.
//!
//! Takes a plan, a site and its table; lays the shadow image and OLD's image out at random places,
//! applies the stub's fix-ups as dsu-apply does, and runs the resulting bytes on random states with a
//! signal after each instruction; compares what comes out with the table, computed on the same state.
//! Written apart from the symbolic execution, on another representation, so that a mistake in either
//! shows as a disagreement.

mod machine;
mod values;

use super::{Finding, Rule};
use dsu_patch_format::frames::{Location, Translation};
use dsu_patch_format::plan::{Fixup, FixupKind, Plan, Site, Target};
use iced_x86::{Decoder, DecoderOptions, FlowControl};
use machine::Machine;

/// States that each stub runs on.
const STATES: u64 = 8;

/// Where things are in an imagined process. Deterministic.
#[derive(Debug, Clone, Copy)]
struct Layout {
    seed: u64,
}

/// A permutation with good diffusion (splitmix64): equal inputs, equal numbers.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Layout {
    /// The address of a thing. Each kind of OLD thing is elsewhere, so that confusing them shows.
    fn address(self, target: Target) -> u64 {
        let base = 0x2000_0000 + (mix(self.seed) & 0x0fff_f000);
        let (kind, number) = match target {
            Target::New(at) => return base.wrapping_add(at.0),
            Target::Old(at) => (1, at.0),
            Target::OldCode(at) => (2, at.0),
            Target::OldIdentity(at) => (3, at.0),
            Target::Import(index) => (4, u64::from(index)),
        };
        // Within reach of 31 bits, and not one constant distance from where it is linked.
        base.wrapping_add(number) ^ (mix(self.seed ^ (kind << 56) ^ number) & 0x03ff_fff8)
    }
}

/// Runs the stub on several states; says where it differs from the table.
pub(super) fn check(
    plan: &Plan,
    site: &Site,
    translation: &Translation,
    lost: i64,
) -> Option<Finding> {
    (0..STATES).find_map(|state| {
        let layout = Layout { seed: mix(site.at.0 ^ (state << 48)) };
        let what = run(plan, site, translation, layout, lost).err()?;
        Some(Finding::new(Rule::SecondOpinion, what))
    })
}

fn run(
    plan: &Plan,
    site: &Site,
    translation: &Translation,
    layout: Layout,
    lost: i64,
) -> Result<(), String> {
    let start = layout.address(Target::New(site.stub));
    let code = fixed(plan, site.stub, u64::from(site.stub_len), layout)?;
    let before = Machine::new(layout, translation.old_depth, lost);
    let mut machine = before.clone();
    let mut decoder = Decoder::with_ip(64, &code, start, DecoderOptions::NONE);
    loop {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return Err("runs into no instruction".to_owned());
        }
        if instruction.flow_control() == FlowControl::UnconditionalBranch {
            let to = instruction.near_branch_target();
            let end = instruction.next_ip() == start + u64::from(site.stub_len);
            if to != layout.address(Target::New(site.to)) || !end {
                return Err(format!("jumps to {to:#x}"));
            }
            break;
        }
        machine
            .step(&instruction, |at, bytes| constant(plan, layout, at, bytes))
            .map_err(|what| format!("`{instruction}`: {what}"))?;
        machine.signal();
    }
    compare(&before, &mut machine, translation, layout)
}

/// Bytes of the shadow image with fix-ups applied.
fn fixed(
    plan: &Plan,
    at: dsu_patch_format::NewAddr,
    len: u64,
    layout: Layout,
) -> Result<Vec<u8>, String> {
    let segment = plan.segments.iter().find(|s| at.since(s.start) < s.bytes.len() as u64);
    let content = segment.and_then(|s| {
        let from = usize::try_from(at.since(s.start)).ok()?;
        s.bytes.get(from..from.checked_add(usize::try_from(len).ok()?)?)
    });
    let mut content = content.ok_or("no bytes")?.to_vec();
    let first = plan.fixups.partition_point(|f| f.at.0.saturating_add(8) <= at.0);
    for fixup in plan.fixups.iter().skip(first).take_while(|f| f.at.since(at) < len || f.at < at) {
        let Ok(offset) = usize::try_from(fixup.at.since(at)) else { continue };
        let value = field(fixup, layout)?;
        if let Some(place) =
            offset.checked_add(value.len()).and_then(|e| content.get_mut(offset..e))
        {
            place.copy_from_slice(&value);
        }
    }
    Ok(content)
}

/// What apply writes into a field.
fn field(fixup: &Fixup, layout: Layout) -> Result<Vec<u8>, String> {
    let place = layout.address(Target::New(fixup.at));
    let value = layout.address(fixup.target).wrapping_add_signed(fixup.addend);
    let narrow = |wide: i64| {
        let narrow = i32::try_from(wide).map_err(|_| format!("fix-up at {} overflows", fixup.at));
        Ok(narrow?.to_le_bytes().to_vec())
    };
    match fixup.kind {
        FixupKind::Abs64 => Ok(value.to_le_bytes().to_vec()),
        FixupKind::Abs32 => narrow(value.cast_signed()),
        FixupKind::Rel32 => narrow(value.wrapping_sub(place).cast_signed()),
    }
}

/// Constants of the shadow image at an address of the process.
fn constant(plan: &Plan, layout: Layout, at: u64, bytes: usize) -> Option<Vec<u8>> {
    let base = layout.address(Target::New(dsu_patch_format::NewAddr(0)));
    let linked = dsu_patch_format::NewAddr(at.wrapping_sub(base));
    fixed(plan, linked, bytes as u64, layout).ok()
}

fn compare(
    before: &Machine,
    after: &mut Machine,
    translation: &Translation,
    layout: Layout,
) -> Result<(), String> {
    let top = before.cfa().wrapping_sub(translation.new_depth);
    if after.general(4) != top {
        return Err("rsp ends elsewhere".to_owned());
    }
    if translation.flags && before.flags() != after.flags() {
        return Err("the flags differ".to_owned());
    }
    for (index, step) in translation.moves.iter().enumerate() {
        let bytes = match step.to {
            Location::General { bytes, .. } | Location::Vector { bytes, .. } => u32::from(bytes),
            Location::Slot { bytes, .. } => bytes,
        };
        let expected = values::evaluate(&step.from, before, layout, bytes as usize)?;
        let found = values::location(after, &step.to)?;
        if expected != found {
            return Err(format!("destination {index} holds another value"));
        }
    }
    Ok(())
}
