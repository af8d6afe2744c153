//! What becomes of the addresses that a body takes.
//!
//! A linked operand is a bare number: it does not say whose address it was made of. A number may be
//! the start of one object, the end of another, and some bytes before a third (`table[c - '0']`).
//! Takes a function's flow; follows every address that an operand takes through registers and the
//! frame, over all paths; gives for each what is done with it ([`Uses`]). Decides nothing.
//!
//! The values of a place are a set: an address with a known distance, an address with an unknown
//! one, a number, anything else. Sets only grow, so what is told holds for more runs than there are;
//! known distances are such that some acyclic path leads there (what was moved before a loop goes
//! around is not known behind it): they tell where the first round of a loop reads.

mod alive;
mod state;
mod transfer;

use super::dominators::Dominators;
use super::effects::Effects;
use super::flow::{BlockId, Flow};
use super::frame::Frame;
use crate::code::Field;
use crate::image::{Function, FunctionId, Image};
use alive::{Mask, Touched};
use state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Values passed on along edges, and blocks visited, before nothing is said of a function.
const WORK: usize = 10_000_000;

/// What a place may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// Anything that is no address taken here.
    Other,
    /// An unknown number that was counted down, or negated.
    Down,
    /// A number; whether it was counted up or down since it was made.
    Number(i64, bool),
    /// The address of an origin plus a distance; whether it was moved since it was taken.
    At(usize, i64, bool),
    /// The address of an origin plus something.
    Around(usize),
    /// A word that was read at the address of an origin plus something.
    Read(usize),
}

impl Value {
    fn origin(self) -> Option<usize> {
        match self {
            Self::At(origin, ..) | Self::Around(origin) => Some(origin),
            Self::Other | Self::Down | Self::Number(..) | Self::Read(_) => None,
        }
    }

    fn is_moved(self) -> bool {
        matches!(self, Self::Around(_) | Self::At(_, _, true))
    }

    /// The same value when a loop has gone around.
    fn around(self) -> Self {
        match self {
            Self::At(origin, _, true) => Self::Around(origin),
            Self::Number(n, true) if n < 0 => Self::Down,
            Self::Number(_, true) => Self::Other,
            value => value,
        }
    }
}

/// What is done with one address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Bytes that are accessed, counted from the address: start and length.
    pub exact: BTreeSet<(i64, u64)>,
    /// Sizes of accesses at an unknown distance from it.
    pub indexed: BTreeSet<u64>,
    /// Known distances that it is moved by.
    pub steps: BTreeSet<i64>,
    /// It is moved by an unknown distance.
    pub moved: bool,
    /// Something counted down is added to it, or it is counted down itself.
    pub down: bool,
    /// Other addresses that it is compared with, one of the two being moved since it was taken: as the
    /// bounds of loops are.
    pub compared: BTreeSet<usize>,
    /// Other addresses that it is compared with, both as they were taken.
    pub compared_still: BTreeSet<usize>,
    /// Other addresses from which the distance to it is taken.
    pub subtracted: BTreeSet<usize>,
    /// It is compared with something of unknown origin, or the distance from that is taken.
    pub compared_unknown: bool,
    /// It leaves the function, or what is done with it is not understood.
    pub escapes: bool,
    /// A word that was read through it is put away, or leaves, or is counted with.
    pub content_escapes: bool,
}

/// An operand that takes an address, or that accesses memory at an address plus a register.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Place of the operand's field: see [`crate::code::Reference::at`].
    pub field: u64,
    /// The address.
    pub target: u64,
    /// What is done with it.
    pub uses: Uses,
}

/// Every address that a body takes.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// In the order of the body.
    pub origins: Vec<Origin>,
}

impl Uses {
    /// Whether it is compared with something that tells nothing of whose it is.
    #[must_use]
    pub fn meets_strangers(&self) -> bool {
        self.compared_unknown || !self.compared_still.is_subset(&self.compared)
    }
}

impl Provenance {
    /// Follows the addresses of a function. `None` when its flow is not understood.
    #[must_use]
    pub fn new(image: &Image, function: &Function) -> Option<Self> {
        let flow = Flow::new(image, function);
        if flow.problem.is_some() {
            return None;
        }
        let frame = Frame::new(image, &flow);
        let result = image.declared(function).and_then(|f| f.parameters.as_ref());
        let mut walk = Walk::new(image, &flow, &frame, result.map_or(2, |p| p.result.integer));
        walk.run().then_some(Self { origins: walk.origins })
    }

    /// The origin whose field is at a place.
    #[must_use]
    pub fn find(&self, field: u64) -> Option<usize> {
        self.origins.iter().position(|o| o.field == field)
    }
}

/// What is known of a step before anything is followed.
#[derive(Debug)]
struct Facts {
    effects: Effects,
    /// Registers that leave with it: of a call, a jump out of the function, a system call, a return.
    leaving: Mask,
    call: Option<Clobbers>,
}

/// What a call leaves of the registers that a callee need not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clobbers {
    /// Nothing.
    All,
    /// Nobody knows which.
    Some,
}

struct Walk<'a> {
    image: &'a Image,
    flow: &'a Flow,
    frame: &'a Frame,
    /// What is known of each step before anything is followed.
    facts: Rc<[Facts]>,
    origins: Vec<Origin>,
    /// Origins by step, with whether the operand is an immediate.
    by_step: BTreeMap<usize, Vec<(bool, usize)>>,
    /// Somebody else may read the frame.
    frame_is_read: bool,
    /// Registers among rax and rdx that hold the function's result (psABI 3.2.3).
    results: u8,
    /// Callees that keep no register that they need not.
    clobbering: BTreeMap<FunctionId, bool>,
}

impl<'a> Walk<'a> {
    fn new(image: &'a Image, flow: &'a Flow, frame: &'a Frame, results: u8) -> Self {
        let mut walk = Self {
            image,
            flow,
            frame,
            facts: Rc::default(),
            origins: Vec::new(),
            by_step: BTreeMap::new(),
            frame_is_read: false,
            results,
            clobbering: BTreeMap::new(),
        };
        for (index, step) in flow.body.steps.iter().enumerate() {
            for r in &step.references {
                if matches!(r.field, Field::Branch8 | Field::Branch32) || r.access > 0 {
                    continue;
                }
                let origin = walk.origins.len();
                let uses = Uses::default();
                walk.origins.push(Origin { field: r.at, target: r.target, uses });
                walk.by_step.entry(index).or_default().push((r.immediate, origin));
            }
            walk.frame_is_read |= walk.takes_frame_address(index);
        }
        walk
    }

    /// To the fixpoint; whether it was reached within [`WORK`].
    fn run(&mut self) -> bool {
        if self.origins.is_empty() {
            return true;
        }
        self.facts = (0..self.flow.body.steps.len()).map(|index| self.facts_of(index)).collect();
        let touched: Vec<Touched> = self.facts.iter().map(Facts::touched).collect();
        let alive = alive::at_blocks(self.flow, &touched);
        let mut budget = WORK;
        let dominators = Dominators::new(self.flow);
        let mut before: Vec<Option<State>> = vec![None; self.flow.blocks.len()];
        let mut queue: BTreeSet<usize> = BTreeSet::from([0]);
        // In reverse post-order, so that most blocks are looked at once.
        let order = dominators.order().to_vec();
        if let Some(entry) = order.first() {
            before[entry.0] = Some(State::entry());
        }
        while let Some(place) = queue.pop_first() {
            let size = before.get(order[place].0).and_then(Option::as_ref).map_or(0, State::size);
            let Some(left) = budget.checked_sub(1 + size) else { return false };
            budget = left;
            let Some(block) = order.get(place).map(|b| &self.flow.blocks[b.0]) else { continue };
            let Some(mut state) = before[order[place].0].clone() else { continue };
            for step in block.steps.clone() {
                self.step(step, &mut state);
            }
            for BlockId(next) in &block.successors {
                let Some(to) = dominators.place(BlockId(*next)) else { continue };
                let retreating = to <= place;
                let news = match &mut before[*next] {
                    Some(there) => there.join(&state, alive[*next], retreating),
                    empty => {
                        *empty = Some(state.first(alive[*next], retreating));
                        true
                    }
                };
                if news {
                    queue.insert(to);
                }
            }
        }
        true
    }
}
