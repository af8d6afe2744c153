//! Calls that only one build makes at some point: whether they are new or gone, or only elsewhere.
//!
//! A call that both sources make, at whatever place, is made by both builds equally often. So what only
//! one side seems to call shows that the other is not where it is said to be, unless the other has no
//! such call at all, or the line tables show that its source has no such line, or calls something else at
//! that place of it. A body that the other has inlined is such a call, too.

use super::both::Both;
use super::value::Side;
use crate::machine::calls::Callee;
use crate::machine::flow::BlockId;
use crate::matching::names;
use crate::sites::matching::BlockMatching;
use std::collections::BTreeMap;

/// The calls of both bodies.
pub(super) struct Fates<'a> {
    /// Both bodies.
    pub both: &'a Both<'a>,
    /// Which blocks belong together.
    pub matching: &'a BlockMatching,
    /// Whom OLD's and NEW's blocks call.
    pub callees: &'a (BTreeMap<BlockId, Callee>, BTreeMap<BlockId, Callee>),
}

impl Fates<'_> {
    /// Whether OLD calls nothing like what NEW calls at the end of a block.
    pub(super) fn is_inserted(&self, new: BlockId) -> bool {
        let Some(callee) = self.callees.1.get(&new) else { return false };
        let last = self.both.analyses.1.flow.blocks[new.0].steps.end - 1;
        let added = self.both.evidence.is_added(last)
            || self.callees.0.keys().any(|old| self.is_replaced(*old, new));
        let is_inlined = self.is_inlined(Side::Old, callee);
        (added || !is_inlined)
            && self.callees.0.iter().all(|(old, other)| {
                added && (self.is_paired(*old) || self.stays(*old, other))
                    || !self.may_be(other, callee)
            })
    }

    /// Whether a call of OLD through a pointer is at a place of the source at which NEW calls somebody, too:
    /// then it is none that was moved to a line of its own.
    fn stays(&self, old: BlockId, callee: &Callee) -> bool {
        matches!(callee, Callee::Inside(_) | Callee::Unknown) && self.both.evidence.still_calls(old)
    }

    /// Whether NEW calls nothing like what OLD calls at the end of a block.
    pub(super) fn is_removed(&self, old: BlockId) -> bool {
        let Some(callee) = self.callees.0.get(&old) else { return false };
        let last = self.both.analyses.0.flow.blocks[old.0].steps.end - 1;
        let gone = self.both.evidence.removed.get(last).copied().unwrap_or(false)
            || self.callees.1.keys().any(|new| self.is_replaced(old, *new));
        let is_inlined = self.is_inlined(Side::New, callee);
        (gone || !is_inlined)
            && self.callees.1.iter().all(|(new, other)| {
                let paired = self.matching.old_of[new.0].is_some_and(|old| self.is_paired(old));
                gone && paired || !self.may_be(callee, other)
            })
    }

    /// Whether one side has the body of a callee of the other's in this one.
    fn is_inlined(&self, side: Side, callee: &Callee) -> bool {
        let pair = self.both.shared.inputs.pair;
        let (own, image) = match side {
            Side::Old => (&self.both.inlined.0, pair.new),
            Side::New => (&self.both.inlined.1, pair.old),
        };
        match callee {
            Callee::Function(id) => own.contains(&called(image.function(*id).name())),
            _ => false,
        }
    }

    /// Whether an OLD block has a partner, and both end with the same call.
    fn is_paired(&self, old: BlockId) -> bool {
        let partner = self.matching.new_of[old.0];
        partner.is_some_and(|new| self.both.same_call(self.callees, old, new))
    }

    /// Whether both sources call something at one place, and not the same.
    fn is_replaced(&self, old: BlockId, new: BlockId) -> bool {
        let both = self.callees.0.get(&old).zip(self.callees.1.get(&new));
        self.both.evidence.is_same_place(old, new) && both.is_some_and(|(a, b)| !self.may_be(a, b))
    }

    /// Whether a call of OLD and one of NEW may be the same call of the source: clones go by their
    /// origin, and of a pointer nobody knows.
    fn may_be(&self, old: &Callee, new: &Callee) -> bool {
        let pair = self.both.shared.inputs.pair;
        let name = |image: &crate::image::Image, callee: &Callee| match callee {
            Callee::Function(id) => Some(called(image.function(*id).name())),
            Callee::Import(name) => Some(name.clone()),
            Callee::Inside(_) | Callee::Unknown => None,
        };
        match (name(pair.old, old), name(pair.new, new)) {
            (Some(a), Some(b)) => a == b || self.both.same_callee(old, new),
            _ => true,
        }
    }

    /// Whether all memory is in its place when OLD and NEW make the call at the end of a block.
    pub(super) fn is_barrier(&self, old: BlockId) -> bool {
        let partner = self.matching.new_of[old.0].and_then(|new| self.callees.1.get(&new));
        self.both.looks_anywhere(Side::Old, self.callees.0.get(&old))
            && self.both.looks_anywhere(Side::New, partner)
    }
}

/// What the source calls a function: clones go by their origin.
pub(super) fn called(name: &str) -> String {
    names::stem(&names::canonical(name)).to_owned()
}
