//! The control flow of one function: blocks that end at calls and branches.
//!
//! Takes an image and a function; gives its blocks with their edges, jump tables and landing pads
//! resolved. A call ends a block: the point behind it is where frames wait, so it begins one. What
//! cannot be understood is in [`Flow::problem`]; edges are then no promise.

use crate::code::Body;
use crate::image::{Function, Image};
use std::collections::{BTreeMap, BTreeSet};
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
    /// The address of the entry.
    pub entry: u64,
    /// Calls that may return a second time (`setjmp`, `vfork`): steps, ascending.
    pub returns_twice: Vec<usize>,
    /// Why the graph may be wrong: code that does not decode, a jump into the middle of something.
    /// Such a function must be treated as opaque.
    pub problem: Option<String>,
    /// Loops that are one block of this graph, by their heads: what is inside of them nothing leads to.
    pub whole: BTreeMap<BlockId, WholeLoop>,
}

/// A loop that is one block of a graph: its head, whose one successor is where it ends.
#[derive(Debug, Clone)]
pub struct WholeLoop {
    /// The head as it was.
    pub head: Block,
    /// All its blocks.
    pub blocks: BTreeSet<BlockId>,
}

impl Flow {
    /// The control flow of a function.
    #[must_use]
    pub fn new(image: &Image, function: &Function) -> Self {
        super::blocks::build(image, function)
    }

    /// Whether a block is in a loop that is one block of this graph.
    pub fn is_inside(&self, block: BlockId) -> bool {
        self.whole.values().any(|whole| whole.blocks.contains(&block))
    }

    /// The block that a step is in.
    #[must_use]
    pub fn block(&self, step: usize) -> &Block {
        &self.blocks[self.block_of[step].0]
    }

    /// Steps that may be executed right after a step.
    pub fn next(&self, step: usize) -> impl Iterator<Item = usize> + '_ {
        let block = self.block(step);
        let inside = (step + 1 < block.steps.end).then_some(step + 1);
        let last = step + 1 == block.steps.end;
        let behind = block.successors.iter().filter(move |_| last);
        inside.into_iter().chain(behind.map(|b| self.blocks[b.0].steps.start))
    }

    /// The block behind a call that returns: where frames wait, at the address behind the call.
    #[must_use]
    pub fn return_point(&self, block: BlockId) -> Option<BlockId> {
        let block = &self.blocks[block.0];
        (block.end == End::Call).then(|| block.successors[0])
    }
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
    /// A call that does not return. Its landing pads are its successors.
    NoReturn,
    /// A jump out of the function.
    TailCall,
    /// `ret`.
    Return,
    /// `ud2`, `hlt`: the end.
    Stop,
}
