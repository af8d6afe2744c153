//! NEW's function with the objects of its frame where OLD has them, for frames that cannot go on in NEW's otherwise.
//!
//! Takes both functions and which of their blocks are the same; gives NEW's as if it had been compiled so, its frame
//! below OLD's, or why that cannot be. An object is moved that both builds know by one name, with one size.

use super::{MovedObject, Relaid};
use crate::change::Pair;
use crate::debug::Locals;
use crate::machine::flow::End;
use crate::machine::live::StackObject;
use crate::machine::{Analysis, Handed, Layout, Pin};
use crate::sites::matching::BlockMatching;
use std::ops::Range;

/// Of the stack pointer before a call (psABI 3.2.2).
const ALIGNMENT: u64 = 16;

/// The function with its variables, as everything else here sees NEW's.
pub(super) struct Laid {
    /// From OLD's CFA.
    pub analysis: Analysis,
    /// From OLD's CFA.
    pub locals: Locals,
    /// For the bundle.
    pub relaid: Relaid,
}

/// NEW's function laid out for OLD's frames.
///
/// # Errors
/// Why there is none.
pub(super) fn lay_out(
    pair: Pair<'_>,
    (old, new): (&Analysis, &Analysis),
    locals: &Locals,
    matching: &BlockMatching,
) -> Result<Laid, String> {
    let blocks = &new.flow.blocks;
    if blocks.iter().any(|block| block.end == End::Unresolved) {
        return Err("nobody knows where it jumps to".to_owned());
    }
    if blocks.iter().any(|block| block.landing_pad) {
        return Err("exceptions land in it".to_owned());
    }
    let id = pair.new.function_at(new.flow.entry);
    let own = id.filter(|id| pair.new.function(*id).parts().count() == new.flow.body.parts.len());
    let id = own.ok_or("a part of it was split off")?;
    let dispatches = new.dispatches(pair.new, id)?;
    let pairs = pairs(&old.objects, &new.objects);
    let lowest = pairs.iter().map(|(_, old)| old.start).min();
    let lowest = lowest.ok_or("no object is known by one name in both builds")?;
    let lowered = lowest.unsigned_abs().checked_next_multiple_of(ALIGNMENT);
    let lowered = lowered.and_then(|bytes| i64::try_from(bytes).ok());
    let lowered = lowered.ok_or("OLD's frame is out of bounds")?;
    let pin = |(extent, old): &(Range<i64>, Range<i64>)| Pin {
        extent: extent.clone(),
        to: old.start.saturating_add(lowered),
    };
    let pins = pairs.iter().map(pin).collect();
    let layout = Layout::new(new, locals, pins);
    let handed = |step: usize, number: usize| {
        let block = new.flow.block_of.get(step)?;
        let partner = matching.old_of.get(block.0).copied().flatten()?;
        let last = old.flow.blocks.get(partner.0)?.steps.end.checked_sub(1)?;
        old.flow.is_call(last).then(|| old.frame.addresses(last)[number]).flatten()
    };
    let analysis = new.relaid(pair.new, &layout, &Handed { by: lowered, old: &handed })?;
    let moved = |(extent, there): (Range<i64>, Range<i64>)| MovedObject {
        start: extent.start,
        end: extent.end,
        old: there.start,
    };
    let relaid = Relaid {
        flow: analysis.flow.clone(),
        dispatches,
        lowered: lowered.unsigned_abs(),
        objects: pairs.into_iter().map(moved).collect(),
    };
    Ok(Laid { analysis, locals: locals.relaid(&layout).lowered(lowered), relaid })
}

/// Whether some object that both builds have is elsewhere in NEW's frame.
pub(super) fn has_moved(old: &[StackObject], new: &[StackObject]) -> bool {
    pairs(old, new).iter().any(|(here, there)| here != there)
}

/// The objects that both builds have, NEW's place first; ascending.
fn pairs(old: &[StackObject], new: &[StackObject]) -> Vec<(Range<i64>, Range<i64>)> {
    // The return address is there, and what is the caller's behind.
    const END: i64 = -8;
    let length = |object: &StackObject| object.extent.end.saturating_sub(object.extent.start);
    let only = |all: &[StackObject], name: &Option<String>| {
        let mut named = all.iter().filter(|object| object.name == *name);
        named.next().cloned().filter(|_| named.next().is_none())
    };
    let pair = |object: &StackObject| {
        object.name.as_ref()?;
        let (here, there) = (only(new, &object.name)?, only(old, &object.name)?);
        let fits =
            length(&here) == length(&there) && here.extent.end <= END && there.extent.end <= END;
        fits.then_some((here.extent, there.extent))
    };
    let mut pairs: Vec<_> = new.iter().filter_map(pair).collect();
    pairs.sort_by_key(|(here, _)| here.start);
    pairs
}
