//! What NEW still holds when it has come from one place to another on a way that is not known.
//!
//! OLD goes where NEW cannot follow, and comes to a place that is the only one of its kind: NEW is there, too,
//! however it came. Whatever way it took, what no instruction on any of these ways writes is as it was.
//!
//! Takes where NEW was last known to be and what it held there; gives what it still holds at such a place, nothing
//! where it cannot have come from there. What else the states say of NEW there is what it would hold had it gone as
//! OLD went.

use super::super::copied;
use super::super::exec::number;
use super::super::point::{Exit, PointId};
use super::super::source::is_callee_saved;
use super::super::state::{Doubt, Machine, Seen, Sight, State};
use super::super::value::{Place, Side, Value, Values};
use super::Bodies;
use crate::machine::flow::{BlockId, End, Flow};
use iced_x86::{FlowControl, InstructionInfoFactory, OpAccess, Register, UsedMemory};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

/// What is written on some ways.
#[derive(Default)]
struct Written {
    /// General registers, by their numbers.
    general: BTreeSet<u8>,
    /// Parts of the frame, as offsets from the CFA.
    frame: Vec<Range<i64>>,
    /// Some part of the frame that is not known.
    anywhere: bool,
}

impl Seen {
    /// NEW goes on from an exit to nobody knows where.
    pub(super) fn left(&self, exit: Exit, machine: &Machine) -> Self {
        if *self != Self::Here {
            return self.clone();
        }
        let followed = |place: &Place| match place {
            Place::General(number) => *number != 4,
            Place::Slot(..) => true,
            _ => false,
        };
        let held = machine.places().filter(|(place, _)| followed(place)).collect();
        Self::Before(Rc::new(Sight { exit, held }))
    }

    /// What all of these agree on that come to a point, for as long as it has not been passed once more.
    pub(super) fn join(values: &Values, arrivals: &[State], id: PointId) -> Self {
        let mut seen = arrivals.iter().map(|state| &state.seen);
        let Some(first) = seen.next() else { return Self::Nowhere };
        let Self::Before(first) = first else {
            return if seen.all(|other| other == first) { first.clone() } else { Self::Nowhere };
        };
        let mut held: BTreeMap<Place, Value> = first.held.clone();
        held.retain(|_, value| values.depends(*value).binary_search(&id).is_err());
        for other in seen {
            match other {
                Self::Before(sight) if sight.exit == first.exit => {
                    held.retain(|place, value| sight.held.get(place) == Some(value));
                }
                _ => return Self::Nowhere,
            }
        }
        Self::Before(Rc::new(Sight { exit: first.exit, held }))
    }
}

impl State {
    /// NEW is at the beginning of `goal`, however it came there.
    pub(super) fn found(&mut self, bodies: &Bodies<'_>, values: &mut Values, goal: BlockId) {
        self.doubt = Doubt::None;
        let Seen::Before(sight) = std::mem::replace(&mut self.seen, Seen::Here) else { return };
        for (place, value) in kept(bodies, &sight, goal) {
            match place {
                Place::Slot(at, bytes) => self.new.set_slot(values, at, bytes, value),
                place => self.new.put(place, value),
            }
        }
    }
}

/// What NEW still holds at the beginning of `goal` of what it held before.
fn kept(bodies: &Bodies<'_>, sight: &Sight, goal: BlockId) -> Vec<(Place, Value)> {
    let Some(blocks) = between(bodies.new, sight.exit, goal) else { return Vec::new() };
    let mut written = Written::default();
    for block in blocks {
        let depth = (bodies.depth)(Side::New, block).and_then(|d| i64::try_from(d).ok());
        written.add(bodies.new, block, depth);
    }
    let held = sight.held.iter().map(|(place, value)| (*place, *value));
    held.filter(|(place, _)| !written.covers(*place)).collect()
}

impl Written {
    /// Whether a place may have been written.
    fn covers(&self, place: Place) -> bool {
        match place {
            Place::General(number) => self.general.contains(&number),
            Place::Slot(at, bytes) => {
                let end = at + i64::from(bytes);
                self.anywhere || self.frame.iter().any(|part| part.start < end && at < part.end)
            }
            _ => true,
        }
    }

    /// Adds what a block writes, at whose beginning the stack pointer is so far below the CFA.
    fn add(&mut self, flow: &Flow, block: BlockId, mut depth: Option<i64>) {
        let mut factory = InstructionInfoFactory::new();
        let b = &flow.blocks[block.0];
        for step in &flow.body.steps[b.steps.clone()] {
            let info = factory.info(&step.instruction);
            for memory in info.used_memory().iter().filter(|m| writes(m.access())) {
                self.store(memory, depth);
            }
            let registers = info.used_registers().iter().filter(|r| writes(r.access()));
            for register in registers.map(|r| r.register().full_register()) {
                if register == Register::RSP && step.instruction.flow_control() == FlowControl::Next
                {
                    depth = None;
                } else if register.is_gpr() {
                    self.general.insert(number(register));
                }
            }
        }
        if b.end != End::Call {
            return;
        }
        self.general.extend((0..16).filter(|number| !is_callee_saved(*number)));
        // What is below the stack pointer is the callee's.
        match depth {
            Some(depth) => self.frame.push(i64::MIN..-depth),
            None => self.anywhere = true,
        }
    }

    /// A store, as far as it may be to a part of the frame whose address nobody has taken: only by the
    /// stack or frame pointer code gets there.
    fn store(&mut self, memory: &UsedMemory, depth: Option<i64>) {
        if !matches!(memory.base(), Register::RSP | Register::RBP) {
            return;
        }
        let size = i64::try_from(memory.memory_size().size()).unwrap_or(0);
        match depth {
            Some(depth)
                if memory.base() == Register::RSP
                    && memory.index() == Register::None
                    && size > 0 =>
            {
                let at = memory.displacement().cast_signed().wrapping_sub(depth);
                self.frame.push(at..at.saturating_add(size));
            }
            _ => self.anywhere = true,
        }
    }
}

fn writes(access: OpAccess) -> bool {
    !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
}

/// The blocks on all ways by which NEW comes from an exit to `goal` for the first time; `None`: it does not.
fn between(flow: &Flow, exit: Exit, goal: BlockId) -> Option<BTreeSet<BlockId>> {
    let mut queue: Vec<BlockId> = copied::ways(flow, exit).into_iter().collect();
    let mut ahead = BTreeSet::new();
    while let Some(block) = queue.pop() {
        if ahead.insert(block) && block != goal {
            queue.extend(&flow.blocks[block.0].successors);
        }
    }
    if !ahead.contains(&goal) {
        return None;
    }
    let (mut found, mut queue) = (BTreeSet::new(), vec![goal]);
    while let Some(block) = queue.pop() {
        for before in &flow.blocks[block.0].predecessors {
            if *before != goal && ahead.contains(before) && found.insert(*before) {
                queue.push(*before);
            }
        }
    }
    Some(found)
}
