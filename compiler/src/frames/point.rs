//! Points of the product of two bodies: where OLD is and where NEW is at the same time.

use crate::machine::flow::BlockId;

/// Index of a point in the relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PointId(pub u32);

impl PointId {
    /// No point: what is named there is named once and for all.
    pub const NOWHERE: Self = Self(u32::MAX);
}

/// Where both bodies are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// Both at the beginning of matched blocks; both go on.
    Joint {
        /// OLD's block.
        old: BlockId,
        /// NEW's block.
        new: BlockId,
    },
    /// OLD at the beginning of a block that has no partner, NEW waiting behind its last matched one:
    /// OLD goes on alone.
    OldAlone {
        /// OLD's block.
        old: BlockId,
        /// The block that NEW has just left, or [`Exit`] says by which edge.
        new: Exit,
    },
    /// OLD at the beginning of a matched block, NEW on its way there in a block that has no partner:
    /// NEW goes on alone.
    NewAlone {
        /// OLD's block.
        old: BlockId,
        /// NEW's block.
        new: BlockId,
        /// The block of NEW that it goes to.
        goal: BlockId,
    },
}

/// Where NEW waits: behind a block, about to take one of its edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exit {
    /// The block.
    pub block: BlockId,
    /// The edge by index, when the conditions of both sides are known to agree; else any.
    pub edge: Option<usize>,
}
