//! What is known of values because a branch was taken: which two of them are equal.
//!
//! A loop that ends when its pointer meets its end has the end's address in the pointer's register from
//! there on. Builds differ in which of two equal values they use. (What is a number then is known by
//! [`State::zero`]: to put the number in its place would hide what it is equal to.)

use super::super::exec;
use super::super::state::{Machine, State};
use super::super::value::{Node, Operation, Place, Value, Values};
use crate::machine::flow::{BlockId, End, Flow};

/// What holds behind an edge of one side that is taken.
pub(super) fn behind(
    values: &mut Values,
    flow: &Flow,
    block: BlockId,
    edge: usize,
    flags: Value,
    state: State,
) -> State {
    let Some((from, to)) = equal(values, flow, block, edge, flags) else { return state };
    let mut replace = |machine: &Machine| {
        machine.map(|place, value| match place {
            Place::Memory | Place::Flags | Place::General(4) => value,
            _ => replaced(values, value, (from, to)),
        })
    };
    let (old, new) = (replace(&state.old), replace(&state.new));
    State { old, new, ..state }
}

/// Two values that are equal when an edge is taken: the one to drop for the other.
fn equal(
    values: &mut Values,
    flow: &Flow,
    block: BlockId,
    edge: usize,
    flags: Value,
) -> Option<(Value, Value)> {
    let b = &flow.blocks[block.0];
    // With one edge twice, it says nothing.
    if b.end != End::Branch || b.successors.len() != 2 || b.successors[0] == b.successors[1] {
        return None;
    }
    let code = flow.body.steps[b.steps.end - 1].instruction.condition_code();
    let (condition, negated) = exec::condition(values, code, flags);
    let Node::Operation(Operation::Condition(exec::EQUAL), operands) = values.node(condition)
    else {
        return None;
    };
    // The first edge is the one that is taken when the condition is met.
    if (edge == 0) == negated {
        return None;
    }
    let Node::Operation(Operation::Compare(_), operands) = values.node(operands[0]) else {
        return None;
    };
    let (a, b) = (operands[0], operands[1]);
    if a == b || [a, b].iter().any(|v| values.as_constant(*v).is_some()) {
        return None;
    }
    // Kept is what was there first: what fewer points have given a name to.
    let age = |v: Value| (values.depends(v).len(), v);
    Some(if age(a) < age(b) { (b, a) } else { (a, b) })
}

/// A value with another one that it is equal to in its place, also where it is a term of a sum.
fn replaced(values: &mut Values, value: Value, (from, to): (Value, Value)) -> Value {
    if value == from {
        return to;
    }
    let (mut terms, constant) = match values.node(value) {
        Node::Linear(..) => values.terms(value),
        _ => return value,
    };
    let mut found = false;
    for (term, _) in &mut terms {
        if *term == from {
            (*term, found) = (to, true);
        }
    }
    if found { values.linear(&terms, constant) } else { value }
}
