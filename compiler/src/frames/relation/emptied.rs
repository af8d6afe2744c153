//! What is known to be zero where ways join.

use super::super::join::may_count;
use super::super::state::{Machine, State};
use super::super::value::{Node, Place, Value, Values};
use std::collections::BTreeSet;

/// The values that are zero where ways join: what OLD has in one place that is zero on every way, whatever
/// it is there.
pub(super) fn on_every_way<'a>(
    values: &'a Values,
    arrivals: &'a [State],
    joined: &'a Machine,
) -> impl Iterator<Item = Value> + 'a {
    let empty = |place: Place| {
        arrivals.iter().all(|state| {
            state.old.at(place).is_some_and(|value| is_zero(values, value, &state.zero))
        })
    };
    let known = |value: Value| values.as_constant(value).is_some();
    joined
        .places()
        .filter(move |(place, value)| may_count(*place) && !known(*value) && empty(*place))
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
