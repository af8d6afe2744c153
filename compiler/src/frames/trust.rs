//! Where the debug information of one function is borne out by its code.
//!
//! Compilers lose track now and then: gcc 12 moves a variable to a register that holds something
//! else, from there to the slot which that is spilled to, and its own value is elsewhere. So wherever
//! a variable changes its place, on every edge of the flow, the new place must hold
//!
//! - a copy of what was in the old one, or the constant that the variable was, or
//! - a value that was made while the variable was in the old place: it was assigned.
//!
//! Where it holds a value made before, the debug information contradicts the code, or cannot be told
//! from one that does, and is not trusted; nor is what a value was copied to from there. A variable that
//! had no place before, or only an expression, has nothing to contradict.
//!
//! Takes: flow, unwind rows, locals. Gives: [`Trust`]. Of a variable with one place for its whole
//! scope only this is checked: that a register which belongs to the caller was written first.

use super::copies::{Copies, State, Tracked, ValueId};
use crate::debug::{Local, LocalPlace as Place, Locals, Register};
use crate::image::UnwindRow;
use crate::machine::flow::Flow;
use iced_x86::{Instruction, Mnemonic, OpKind};
use std::collections::{BTreeMap, BTreeSet};

/// Registers whose value at the entry is the caller's (psABI figure 3.4): rbx, rbp, r12 to r15.
const CALLEE_SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];

/// What the code says of one function's location lists.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// The code is not understood: no list with more than one place is trusted.
    opaque: bool,
    /// By variable and entry of its list: the address where the contradiction is.
    doubts: BTreeMap<(usize, usize), u64>,
    /// Variables and addresses where a variable has just got another value, or its first one.
    assigned: BTreeSet<(usize, u64)>,
    /// Variables and addresses where a variable's register still is the caller's.
    foreign: BTreeSet<(usize, u64)>,
}

/// A variable goes from one entry of its list to another, behind a step.
#[derive(Debug, Clone, Copy)]
struct Change {
    variable: usize,
    from: Option<usize>,
    to: usize,
    /// The step in front of which it is in the new place.
    next: usize,
}

/// How a variable comes to be in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// It holds the value of the place before.
    Copied,
    /// It holds a new value of the variable.
    Assigned,
    /// It holds something else, as far as the code tells.
    Contradicted,
    /// It is no place that could be checked.
    Unchecked,
}

impl Trust {
    /// Checks all variables of a function.
    pub(super) fn new(flow: &Flow, rows: &[UnwindRow], locals: &Locals) -> Self {
        let mut trust = Self::default();
        let mut by_width: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, local) in locals.variables.iter().enumerate() {
            if !local.places.is_empty() {
                by_width.entry(width(local)).or_default().push(index);
            }
        }
        let mut copied: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for (width, variables) in by_width {
            let slots = slots(locals, &variables);
            let Some(copies) = Copies::new(flow, rows, width, slots) else {
                trust.opaque = true;
                return trust;
            };
            trust.check(flow, &copies, locals, &variables, &mut copied);
            trust.find_foreign(flow, &copies, locals, &variables);
        }
        trust.spread(&copied);
        trust
    }

    /// Why the place of a variable at `pc` is not to be relied on.
    pub(super) fn doubt(&self, local: &Local, index: usize, pc: u64) -> Option<String> {
        if self.foreign.contains(&(index, pc)) {
            return Some("its register still holds the caller's value here".to_owned());
        }
        let entry = local.entry_index(pc)?;
        if self.opaque && local.places.len() > 1 && !local.is_whole_scope {
            return Some("the function's code is not understood".to_owned());
        }
        let at = self.doubts.get(&(index, entry))?;
        Some(format!("the debug information contradicts the code at {at:#x}"))
    }

    /// Whether a variable has, right at `pc`, another value than before.
    pub(super) fn is_assigned(&self, index: usize, pc: u64) -> bool {
        self.assigned.contains(&(index, pc))
    }

    fn check(
        &mut self,
        flow: &Flow,
        copies: &Copies<'_>,
        locals: &Locals,
        variables: &[usize],
        copied: &mut BTreeMap<usize, Vec<(usize, usize)>>,
    ) {
        let changes = changes(flow, locals, variables);
        let steps: Vec<usize> = changes.keys().copied().collect();
        copies.visit(&steps, |step, before, after| {
            for change in &changes[&step] {
                let local = &locals.variables[change.variable];
                let arrival = arrival(flow, copies, local, *change, before, after);
                let key = (change.variable, change.to);
                let end = flow.body.steps[step].end();
                if arrival == Arrival::Contradicted {
                    self.doubts.entry(key).or_insert(end);
                }
                if let (Arrival::Copied, Some(from)) = (arrival, change.from) {
                    copied.entry(change.variable).or_default().push((from, change.to));
                } else {
                    // Behind a call, padding may come before the next instruction.
                    self.assigned.insert((change.variable, end));
                    let next = flow.body.steps[change.next].address();
                    self.assigned.insert((change.variable, next));
                }
            }
        });
    }

    /// What was copied from a place that is not trusted is not trusted.
    fn spread(&mut self, copied: &BTreeMap<usize, Vec<(usize, usize)>>) {
        for (variable, edges) in copied {
            loop {
                let before = self.doubts.len();
                for (from, to) in edges {
                    if let Some(at) = self.doubts.get(&(*variable, *from)).copied() {
                        self.doubts.entry((*variable, *to)).or_insert(at);
                    }
                }
                if self.doubts.len() == before {
                    break;
                }
            }
        }
    }

    fn find_foreign(
        &mut self,
        flow: &Flow,
        copies: &Copies<'_>,
        locals: &Locals,
        variables: &[usize],
    ) {
        let mut whole: Vec<(usize, Tracked)> = Vec::new();
        for variable in variables {
            let local = &locals.variables[*variable];
            if let Some((_, Place::Register(Register::General(number)))) = local.places.first()
                && local.is_whole_scope
                && CALLEE_SAVED.contains(number)
            {
                whole.extend(Copies::general(*number).map(|place| (*variable, place)));
            }
        }
        if whole.is_empty() {
            return;
        }
        let steps: Vec<usize> = (0..flow.body.steps.len()).collect();
        copies.visit(&steps, |step, before, after| {
            for (variable, place) in &whole {
                if before[*place] == ValueId::Entry(*place) {
                    self.foreign.insert((*variable, flow.body.steps[step].address()));
                }
                if after[*place] == ValueId::Entry(*place) {
                    self.foreign.insert((*variable, flow.body.steps[step].end()));
                }
            }
        });
    }
}

/// The bytes by which values of a variable are compared.
fn width(local: &Local) -> u32 {
    match local.size {
        Some(1) => 1,
        Some(2 | 3) => 2,
        Some(4..8) => 4,
        Some(16) if is_in_vector(local) => 16,
        _ => 8,
    }
}

fn is_in_vector(local: &Local) -> bool {
    local.places.iter().any(|(_, place)| matches!(place, Place::Register(Register::Vector(_))))
}

fn slots(locals: &Locals, variables: &[usize]) -> Vec<i64> {
    let places = variables.iter().flat_map(|variable| &locals.variables[*variable].places);
    let slots = places.filter_map(|(_, place)| match place {
        Place::Frame(offset) => Some(*offset),
        _ => None,
    });
    slots.collect()
}

/// By step: the variables that are in another entry of their list behind it.
fn changes(flow: &Flow, locals: &Locals, variables: &[usize]) -> BTreeMap<usize, Vec<Change>> {
    let mut found: BTreeMap<usize, Vec<Change>> = BTreeMap::new();
    let address = |step: usize| flow.body.steps[step].address();
    for &variable in variables {
        let local = &locals.variables[variable];
        if local.is_whole_scope {
            continue;
        }
        let entry = |step: usize| local.entry_index(address(step));
        let mut add = |step: usize, next: usize| {
            let (from, to) = (entry(step), entry(next));
            if let Some(to) = to.filter(|_| from != to) {
                found.entry(step).or_default().push(Change { variable, from, to, next });
            }
        };
        for (range, _) in &local.places {
            // Inside of a block; the edges between blocks come below.
            if let Some(next) = flow.body.index_at(range.start)
                && let Some(block) = flow.block_of.get(next)
                && flow.blocks[block.0].steps.start < next
            {
                add(next - 1, next);
            }
        }
        for block in &flow.blocks {
            for successor in &block.successors {
                add(block.steps.end - 1, flow.blocks[successor.0].steps.start);
            }
        }
    }
    found
}

fn tracked(copies: &Copies<'_>, place: &Place) -> Option<Tracked> {
    match place {
        Place::Register(Register::General(number)) => Copies::general(*number),
        Place::Register(Register::Vector(number)) => Copies::vector(*number),
        Place::Frame(offset) => copies.slot(*offset),
        _ => None,
    }
}

fn arrival(
    flow: &Flow,
    copies: &Copies<'_>,
    local: &Local,
    change: Change,
    before: &State,
    after: &State,
) -> Arrival {
    let to = &local.places[change.to].1;
    let from = change.from.map(|from| &local.places[from]);
    if from.is_some_and(|(_, from)| from == to) {
        return Arrival::Copied;
    }
    let Some(place) = tracked(copies, to) else { return Arrival::Unchecked };
    let value = after[place];
    let Some((range, from)) = from else { return Arrival::Assigned };
    let is_copy = match (tracked(copies, from), from) {
        (Some(old), _) => before[old] == value || after[old] == value,
        (None, Place::Constant(constant)) => {
            let made = copies.maker(value).and_then(constant_of);
            made.is_some_and(|made| copies.is_same_constant(u128::from(made), *constant))
        }
        (None, Place::EntryValue(Register::General(number))) => {
            Copies::general(*number).is_some_and(|place| value == ValueId::Entry(place))
        }
        // What it was before cannot be told from the code.
        _ => return Arrival::Assigned,
    };
    match value {
        _ if is_copy => Arrival::Copied,
        // An instruction has made its value when it ends.
        ValueId::Made(step, _) if range.contains(&(flow.body.steps[step].end() - 1)) => {
            Arrival::Assigned
        }
        _ => Arrival::Contradicted,
    }
}

/// The constant that an instruction makes.
fn constant_of(instruction: &Instruction) -> Option<u64> {
    let same = instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register();
    match instruction.mnemonic() {
        Mnemonic::Xor | Mnemonic::Pxor | Mnemonic::Xorps if same => Some(0),
        Mnemonic::Mov => match instruction.op1_kind() {
            OpKind::Register | OpKind::Memory => None,
            _ => Some(instruction.immediate(1)),
        },
        _ => None,
    }
}
