//! Loops that make numbers out of numbers: tables that a program fills when it starts.
//!
//! Compilers make such loops over as they like: unrolled, with vectors, with a choice instead of a branch. What comes of
//! them is the same, and can be had by doing what they do. Where all that decides how a loop runs is known at its
//! entry, on every way that leads there, it is followed as a whole, like one instruction: the graph goes from its head to
//! where it ends, and the state behind is what its code makes of the state before, step by step.
//!
//! Takes one body; gives its graph with such loops as one block each ([`collapse`]), and what one does to a state
//! ([`run`]). Loops that call, jump through tables, store what is no number, do what nothing is known of, or go on for
//! too long stay as they are.
//! Inside of such a loop nothing is said: no point of it is a site by this graph.

use super::alone::{self, Alone, Body};
use super::exec::{self, Executor};
use super::point::PointId;
use super::state::{Machine, memory};
use super::value::{Node, Place, Value, Values};
use crate::machine::dominators::{Dominators, Loops, natural_loop};
use crate::machine::flow::{BlockId, End, Flow, WholeLoop};
use iced_x86::ConditionCode;
use std::collections::{BTreeMap, BTreeSet};

/// Instructions that one run of a loop may take.
const MOST_STEPS: usize = 1 << 16;
/// Bytes that it may store.
const MOST_BYTES: usize = 1 << 13;

/// The graph of a body with each such loop as one block; `None`: it has none.
pub(super) fn collapse(body: &Body<'_>, values: &mut Values) -> Option<Flow> {
    let flow = body.flow;
    let dominators = Dominators::new(flow);
    let loops = Loops::new(flow, &dominators);
    let mut heads: Vec<BlockId> = loops.heads().to_vec();
    heads.retain(|head| is_plain(flow, &natural_loop(flow, &dominators, *head), *head));
    if heads.is_empty() {
        return None;
    }
    let entry = Machine::at_entry(values, |v, place| v.intern(Node::Entry(place)));
    let alone = Alone::new(body, values, entry);
    let mut collapsed = flow.clone();
    // Those around others first.
    heads.sort_by_key(|head| (loops.depth(*head), *head));
    for head in heads {
        if collapsed.is_inside(head) {
            continue;
        }
        let whole = WholeLoop {
            head: flow.blocks[head.0].clone(),
            blocks: natural_loop(flow, &dominators, head),
        };
        if let Some(exit) = exit(body, values, &alone, head, &whole) {
            replace(&mut collapsed, head, whole, exit);
        }
    }
    (!collapsed.whole.is_empty()).then_some(collapsed)
}

/// Whether a loop is entered at its head alone, and does nothing but run on in its own blocks.
fn is_plain(flow: &Flow, blocks: &BTreeSet<BlockId>, head: BlockId) -> bool {
    head.0 != 0
        && blocks.iter().all(|block| {
            let b = &flow.blocks[block.0];
            let entered = b.predecessors.iter().any(|from| !blocks.contains(from));
            matches!(b.end, End::Next | End::Jump | End::Branch)
                && !b.landing_pad
                && (*block == head || !entered)
        })
}

/// Where a loop is left, whatever way leads into it; `None` where that is not known.
fn exit(
    body: &Body<'_>,
    values: &mut Values,
    alone: &Alone,
    head: BlockId,
    whole: &WholeLoop,
) -> Option<BlockId> {
    let ways = whole.head.predecessors.iter().filter(|from| !whole.blocks.contains(from));
    let mut found = None;
    for from in ways {
        // Nobody comes from there.
        let Some(state) = alone.at(*from).cloned() else { continue };
        let id = alone::point(head.0);
        let state = alone::steps(body, values, alone::point(from.0), from.0, state);
        let (_, exit) = run(body, values, id, (head, whole), state)?;
        if *found.get_or_insert(exit) != exit {
            return None;
        }
    }
    found
}

fn replace(flow: &mut Flow, head: BlockId, whole: WholeLoop, exit: BlockId) {
    let inside = whole.blocks.clone();
    let leaves: BTreeSet<BlockId> = inside
        .iter()
        .flat_map(|block| flow.blocks[block.0].successors.clone())
        .filter(|to| !inside.contains(to))
        .collect();
    for to in leaves {
        flow.blocks[to.0].predecessors.retain(|from| !inside.contains(from));
    }
    flow.blocks[exit.0].predecessors.push(head);
    for to in flow.blocks[head.0].successors.clone() {
        flow.blocks[to.0].predecessors.retain(|from| *from != head || to == exit);
    }
    let block = &mut flow.blocks[head.0];
    block.predecessors.retain(|from| !inside.contains(from));
    block.successors = vec![exit];
    block.end = End::Next;
    flow.whole.insert(head, whole);
}

/// What a loop makes of the state in front of it, and where it goes on; `None` where a branch does not ask about numbers.
pub(super) fn run(
    body: &Body<'_>,
    values: &mut Values,
    id: PointId,
    (head, whole): (BlockId, &WholeLoop),
    machine: Machine,
) -> Option<(Machine, BlockId)> {
    let (before, side) = (machine.memory(), Some(body.context.side));
    // What it stores is told from what was stored before.
    let memory = values.intern(Node::Given(id, side, u32::MAX - 1, Place::Memory));
    let (mut at, mut machine, mut left) = (head, machine, MOST_STEPS);
    machine.set_memory(memory);
    loop {
        let block = if at == head { &whole.head } else { &body.flow.blocks[at.0] };
        left = left.checked_sub(block.steps.len().max(1))?;
        let mut executor = Executor::new(body.context, values, machine, id);
        for index in block.steps.clone() {
            executor.step(index, &body.flow.body.steps[index]);
        }
        // In the next round it would be the same one.
        if executor.has_named {
            return None;
        }
        machine = executor.finish();
        let edge = match block.end {
            End::Branch => {
                let last = &body.flow.body.steps[block.steps.end - 1].instruction;
                // `jrcxz` asks about a register.
                if last.condition_code() == ConditionCode::None {
                    return None;
                }
                let flags = machine.flags();
                let (met, negated) = exec::condition(values, last.condition_code(), flags);
                usize::from((values.as_constant(met)? == 1) == negated)
            }
            _ => 0,
        };
        at = *block.successors.get(edge)?;
        if !whole.blocks.contains(&at) {
            let memory = stored(values, before, (memory, machine.memory()))?;
            machine.set_memory(memory);
            return Some((machine, at));
        }
    }
}

/// Memory after a loop, made of the bytes that it has stored, eight at a time where that goes: the same for the same
/// bytes, whatever was stored by whom in which order and pieces. `None`: something is no number, or it is not known what
/// overlaps.
fn stored(values: &mut Values, before: Value, (nothing, all): (Value, Value)) -> Option<Value> {
    let mut bytes: BTreeMap<u64, u8> = BTreeMap::new();
    let (mut memory, mut base) = (all, None);
    while memory != nothing {
        let Node::Store(earlier, at, value, size) = *values.node(memory) else { return None };
        let number = values.as_constant(value)?.to_le_bytes();
        let (terms, offset) = values.terms(at);
        if *base.get_or_insert_with(|| terms.clone()) != terms || bytes.len() > MOST_BYTES {
            return None;
        }
        // What was stored later is there.
        for (byte, at) in number.into_iter().take(size.into()).zip(0..) {
            bytes.entry(offset.wrapping_add(at)).or_insert(byte);
        }
        memory = earlier;
    }
    let (base, mut memory) = (base.unwrap_or_default(), before);
    while let Some((first, _)) = bytes.first_key_value() {
        let first = *first;
        let has = |size: u64| (0..size).all(|i| bytes.contains_key(&first.wrapping_add(i)));
        let size = [8u8, 4, 2].into_iter().find(|size| has((*size).into())).unwrap_or(1);
        let mut number = [0; 8];
        for (byte, at) in number.iter_mut().zip(0..u64::from(size)) {
            *byte = bytes.remove(&first.wrapping_add(at)).unwrap_or_default();
        }
        let at = values.linear(&base, first);
        let number = values.constant(u64::from_le_bytes(number));
        memory = memory::store(values, memory, at, number, size);
    }
    Some(memory)
}
