//! A function that its compiler has split: what is left of it ends with a jump into a clone (`f.part.0`),
//! which has the rest of the body.
//!
//! Such a jump leaves one frame where it was, so both are one body, as a function and its cold part are.
//! Takes NEW's function; gives it with the parts, and the local variables, of every clone that it jumps
//! to and OLD has no function for. A clone that is called has a frame of its own, and is left out.

use crate::change::Pair;
use crate::code::decode;
use crate::debug::Locals;
use crate::image::{Function, FunctionId, Image, Thing};
use crate::machine::flow::{BlockId, Flow};
use iced_x86::FlowControl;

/// A function with all that belongs to one frame of it.
pub struct Whole {
    /// The function, the clones' code among its cold parts.
    pub function: Function,
    /// Its local variables and theirs.
    pub locals: Locals,
    /// The entry of the clone that has most of the code, if one has more than the function itself.
    most: Option<u64>,
}

impl Whole {
    /// The block that OLD's entry is the counterpart of: a function that was split begins with what
    /// decides whether the clone is needed, which OLD did not have, or does in its first blocks.
    #[must_use]
    pub fn start(&self, flow: &Flow) -> BlockId {
        let at = |address: u64| {
            let step = flow.body.index_at(address)?;
            flow.block_of.get(step).copied()
        };
        self.most.and_then(at).unwrap_or(BlockId(0))
    }
}

/// NEW's function with its clones.
#[must_use]
pub fn whole(pair: Pair<'_>, new: FunctionId) -> Whole {
    let image = pair.new;
    let mut function = image.function(new).clone();
    let mut locals = image.locals(&function).unwrap_or_default();
    let mut seen = vec![new];
    let mut most = (function.size, None);
    while let Some(id) = next(pair, &function, &seen) {
        seen.push(id);
        let clone = image.function(id);
        function.cold.extend(clone.parts());
        if clone.size > most.0 {
            most = (clone.size, Some(clone.address));
        }
        let more = image.locals(clone).unwrap_or_default();
        locals.variables.extend(more.variables);
        locals.inlined.extend(more.inlined);
        locals.damage = locals.damage.or(more.damage);
    }
    Whole { function, locals, most: most.1 }
}

/// A clone that the code jumps to and that is not among those seen.
fn next(pair: Pair<'_>, function: &Function, seen: &[FunctionId]) -> Option<FunctionId> {
    let image = pair.new;
    let body = decode(image, function);
    let jumps = body.steps.iter().map(|s| &s.instruction).filter(|i| {
        matches!(
            i.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
        )
    });
    let mut targets = jumps.filter_map(|i| match image.resolve(i.near_branch_target()) {
        Thing::Code { function, offset: 0 } => Some(function),
        _ => None,
    });
    targets.find(|id| {
        !seen.contains(id)
            && pair.matching.old_of(*id).is_none()
            && is_part(image, *id, function.name())
    })
}

/// Whether a function is what was split off the one of a name.
fn is_part(image: &Image, id: FunctionId, of: &str) -> bool {
    let clone = image.function(id);
    let split = |name: &String| {
        let rest = name.strip_prefix(of).and_then(|rest| rest.strip_prefix(".part."));
        rest.is_some_and(|number| number.chars().all(|c| c.is_ascii_digit()))
    };
    clone.local && clone.names.iter().any(split)
}
