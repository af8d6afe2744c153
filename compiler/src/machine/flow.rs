//! The control flow of one function: blocks that end at calls and branches.
//!
//! Takes an image and a function's decoded body; gives its blocks with their edges, jump tables
//! resolved. A call ends a block: the point behind it is where frames wait, so it begins one.

use crate::code::Body;
use std::ops::Range;

/// Index of a block in [`Flow::blocks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub usize);

/// A function as a graph.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Its instructions.
    pub body: Body,
    /// Blocks in the order of `body.steps`; the first one is the entry.
    pub blocks: Vec<Block>,
    /// The block of each step.
    pub block_of: Vec<BlockId>,
}

/// Instructions that are executed one after the other.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its instructions, an index range of `body.steps`; never empty.
    pub steps: Range<usize>,
    /// How it ends.
    pub end: End,
    /// Blocks that may follow, in the order that [`End`] says.
    pub successors: Vec<BlockId>,
    /// Blocks that it may follow, ascending.
    pub predecessors: Vec<BlockId>,
    /// An exception may land here (from the LSDA).
    pub landing_pad: bool,
}

/// How a block ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Falls through into its one successor.
    Next,
    /// Jumps to its one successor.
    Jump,
    /// A conditional jump: taken, then not taken. Only the latter where the former leaves the function
    /// (a conditional tail call): see [`End::BranchOut`].
    Branch,
    /// A conditional jump that leaves the function; its one successor is where it is not taken.
    BranchOut,
    /// An indirect jump through a table: its targets in the table's order, with repetitions.
    Table,
    /// An indirect jump of which nobody knows where it leads inside the function: every block that is
    /// some address's target, conservatively all blocks.
    Unresolved,
    /// A call that returns to its one successor. Landing pads of the call site follow it as further
    /// successors.
    Call,
    /// A call that does not return.
    NoReturn,
    /// A jump out of the function.
    TailCall,
    /// `ret`.
    Return,
    /// `ud2`, `hlt`: the end.
    Stop,
}
