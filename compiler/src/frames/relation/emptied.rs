//! What is known to be zero, and memory in which that was stored.
//!
//! Behind a test that has found a value to be zero, compilers store the value, or the number: builds differ in
//! which. Neither is put in the other's place where it is held, for that would hide what it is equal to; memory
//! alone is looked at once more, where both sides' differs.

use super::super::state::{Machine, State};
use super::super::value::{Node, Place, Value, Values};
use std::collections::BTreeSet;

/// How many stores are looked at.
const STORES: usize = 32;

impl State {
    /// Both have the same memory, where that differs in nothing but what was found to be zero.
    pub(super) fn agree_on_zero(&mut self, values: &mut Values) {
        agree(values, &mut self.old, &mut self.new, &self.zero);
    }
}

/// The same of two machines, where these values are zero.
pub(super) fn agree(
    values: &mut Values,
    old: &mut Machine,
    new: &mut Machine,
    zero: &BTreeSet<Value>,
) {
    if old.memory() == new.memory() || zero.is_empty() {
        return;
    }
    let memory = emptied(values, old.memory(), zero);
    if memory == emptied(values, new.memory(), zero) {
        old.set_memory(memory);
        new.set_memory(memory);
    }
}

/// Memory with the number in the place of what is zero, as far as the latest stores go.
fn emptied(values: &mut Values, memory: Value, zero: &BTreeSet<Value>) -> Value {
    let mut stores = Vec::new();
    let mut before = memory;
    while stores.len() < STORES
        && let Node::Store(earlier, address, value, bytes) = *values.node(before)
    {
        stores.push((address, value, bytes));
        before = earlier;
    }
    let nothing = values.constant(0);
    for (address, value, bytes) in stores.into_iter().rev() {
        let value = if is_zero(values, value, zero) { nothing } else { value };
        before = values.intern(Node::Store(before, address, value, bytes));
    }
    before
}

/// The values that are zero where ways join: what OLD has in one place that is zero on every way, whatever
/// it is there.
pub(super) fn on_every_way<'a>(
    values: &'a Values,
    arrivals: &'a [State],
    joined: &'a Machine,
) -> impl Iterator<Item = Value> + 'a {
    let is_number = |place: &Place| matches!(place, Place::General(_) | Place::Slot(..));
    let empty = |place: Place| {
        arrivals.iter().all(|state| {
            state.old.at(place).is_some_and(|value| is_zero(values, value, &state.zero))
        })
    };
    let known = |value: Value| values.as_constant(value).is_some();
    joined
        .places()
        .filter(move |(place, value)| is_number(place) && !known(*value) && empty(*place))
        .map(|(_, value)| value)
}

/// Whether a value is zero, if these are.
fn is_zero(values: &Values, value: Value, known: &BTreeSet<Value>) -> bool {
    match values.node(value) {
        _ if known.contains(&value) || values.as_constant(value) == Some(0) => true,
        Node::Low(_, whole) => known.contains(whole),
        _ => false,
    }
}
