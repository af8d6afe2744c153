//! Jumps through tables: which entry one takes.
//!
//! Takes what a body's registers hold at such a jump; gives the distance of the entry that it takes from
//! the table's start, as a value. Two jumps for which that is one value take entries of one number: a `switch`
//! over the same value goes to the same case in both builds. Refuses where the table is not the only one
//! that the jump may go through, or is not found in what the jump adds up.

use super::exec::{Context, number};
use super::state::Machine;
use super::value::{Base, Node, Side, Value, Values};
use crate::machine::flow::{BlockId, End, Flow};
use iced_x86::OpKind;
use std::collections::BTreeSet;

/// The bytes between the start of the table, whose entries are the successors of a block that ends with a
/// jump through it, and the entry that is taken.
pub(super) fn taken(
    values: &mut Values,
    flow: &Flow,
    block: BlockId,
    context: &Context<'_>,
    machine: &Machine,
) -> Option<Value> {
    let b = &flow.blocks[block.0];
    let jump = &flow.body.steps[b.steps.end - 1].instruction;
    if b.end != End::Table || jump.op0_kind() != OpKind::Register {
        return None;
    }
    // The table's address and what it has there: a distance of four bytes from its start.
    let (terms, _) = values.terms(machine.general(number(jump.op0_register())));
    let mut distances = terms.into_iter().filter_map(|(term, factor)| match *values.node(term) {
        Node::Signed(4, load) if factor == 1 => Some(load),
        _ => None,
    });
    let load = distances.next()?;
    if distances.next().is_some() {
        return None;
    }
    let Node::Load(_, address, 4) = *values.node(load) else { return None };
    let start = start(flow, block, context)?;
    let own = match context.side {
        Side::Old => Base::Old,
        Side::New => Base::Shadow,
    };
    let table = values.address(own, start);
    let entry = values.subtract(address, table);
    // Then nothing is left of the table's address: what remains is the index.
    let (rest, _) = values.terms(entry);
    let is_base = |v: &Value| matches!(values.node(*v), Node::Base(_));
    (!rest.iter().any(|(v, _)| is_base(v))).then_some(entry)
}

/// The address of the only table that has a block's successors for entries.
fn start(flow: &Flow, block: BlockId, context: &Context<'_>) -> Option<u64> {
    let all = flow.body.steps.iter().flat_map(|step| &step.references).filter(|r| r.taken);
    let tables: BTreeSet<u64> = all.map(|r| r.target).collect();
    let leads = |table: &u64| {
        let entries = crate::change::jump_table(context.image, &flow.body, *table);
        entries.is_some_and(|entries| {
            let blocks = entries.iter().map(|to| flow.block_of[*to]);
            blocks.eq(flow.blocks[block.0].successors.iter().copied())
        })
    };
    let mut found = tables.into_iter().filter(leads);
    let first = found.next();
    first.filter(|_| found.next().is_none())
}
