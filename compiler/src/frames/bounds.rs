//! Counters whose end is known.
//!
//! What begins as `c`, goes on by `s` from round to round, and goes round again only while it is not `c + n*s` is
//! one of `c`, `c + s`, ... `c + n*s`, by induction over the rounds. Builds count in 32 bits or in 64, with a number
//! or with a pointer; within such bounds the low bytes of a sum are all of it, and so is what they are with their sign.
//!
//! Takes what both sides held on each edge into a point; gives the bounds of their places there. They hold only while
//! these are the edges: who relies on them asks again each time that one of them changes.

use super::join::may_count;
use super::point::{Point, PointId};
use super::state::{Machine, State, memory};
use super::value::{Node, Place, Side, Value, Values, extended, mask, operands};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Counters that go farther than this are not followed.
const FARTHEST: i64 = 1 << 31;
/// How deep values are gone into.
const DEPTH: usize = 64;

/// What a name may stand for: what it begins with, and up to how much more (or less).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// In the first round.
    pub first: Value,
    /// In the last one, less that.
    pub last: i64,
}

/// A place of one side.
type Key = (Side, Place);
/// How far counters go, by the points.
type Seeds = BTreeMap<(Point, Key), i64>;

/// What is known of counters in one search for the fixpoint.
///
/// What is made of a name before its bounds are known is made otherwise, and what a loop has once made of that goes
/// round in it. So the search is done again with what it has found out (`seeds`), which is believed from the
/// beginning and must be found out again by the end: else it is not believed any more (`unbound`).
#[derive(Debug, Default)]
pub struct Bounds {
    /// What is believed from the beginning.
    seeds: Seeds,
    /// Counters that turned out to have no such bounds.
    unbound: BTreeSet<(Point, Key)>,
    /// Nothing is believed.
    pub off: bool,
    /// Counters of NEW's that seem to end somewhere, for OLD's loop ends otherwise as long as that is not known.
    guessed: Seeds,
    believed: BTreeMap<PointId, BTreeMap<Key, (Value, Bound)>>,
    shown: BTreeMap<PointId, (Point, BTreeMap<Key, Bound>)>,
    /// Something was believed that is not so.
    failed: bool,
}

impl Bounds {
    /// Asks the edges into a point; what they hold is then what it is within the bounds of its names.
    pub fn ask(
        &mut self,
        values: &mut Values,
        (id, point): (PointId, Point),
        arrivals: &mut [State],
    ) {
        if self.off {
            return;
        }
        let found = find(values, id, arrivals);
        let mut now: BTreeMap<Key, (Value, Bound)> = BTreeMap::new();
        let mut before = self.believed.remove(&id).unwrap_or_default();
        for (key, (name, bound)) in &found {
            // Where a counter begins is not to change while there is something of it.
            if before.get(key) == Some(&(*name, *bound)) || values.depends(bound.first).is_empty() {
                now.insert(*key, (*name, *bound));
            }
        }
        let seeds = self.seeds.iter().filter(|seed| seed.0.0 == point);
        for ((_, key), last) in seeds {
            if now.contains_key(key) {
                continue;
            }
            let known = before.get(key).filter(|(_, bound)| {
                // The first round may have been gone through before there was a name.
                let mut all = held(arrivals, *key).unwrap_or_default().into_iter();
                all.all(|v| values.depends_on(v, id) || bound.has(values, v))
            });
            let name = match known {
                Some((name, bound)) if bound.last == *last => Some((*name, *bound)),
                _ => begin(values, id, arrivals, *key).and_then(|first| {
                    let name = values.bound_name(Node::Phi(id, key.0, key.1), first)?;
                    Some((name, Bound { first, last: *last }))
                }),
            };
            now.extend(name.map(|known| (*key, known)));
        }
        now.retain(|key, _| !self.unbound.contains(&(point, *key)));
        before.retain(|key, known| now.get(key) != Some(known));
        for (key, (name, _)) in before {
            // What was made of it must be made anew.
            self.disbelieve((point, key));
            values.bind(name, None);
            now.remove(&key);
        }
        for (name, bound) in now.values() {
            values.bind(*name, Some(*bound));
        }
        if !now.is_empty() {
            let mut renewed = Renewed { values, id, known: FxHashMap::default() };
            for state in arrivals {
                (state.old, state.new) = (renewed.machine(&state.old), renewed.machine(&state.new));
            }
        }
        self.believed.insert(id, now);
        let shown = found.into_iter().map(|(key, (_, bound))| (key, bound)).collect();
        self.shown.insert(id, (point, shown));
    }

    /// Where OLD's loop ends with a test of what is said in terms of NEW's counter, and NEW's ends with another as long
    /// as nothing is known of that: how far it counts by its own, if that is all there is to it. A guess, to be
    /// believed until the end of the next search.
    pub fn guess(
        &mut self,
        values: &Values,
        (old, new): (Value, Value),
        arrivals: impl Fn(PointId) -> Option<(Point, Vec<State>)>,
    ) {
        let Some((name, end)) = tested(values, new).filter(|_| !self.off) else { return };
        let of_name = |v: &Value| narrowed(values, *v).1;
        let mentions = |v: &Value| values.terms(of_name(v)).0.iter().any(|t| t.0 == name);
        let Node::Phi(id, Side::New, place) = *values.node(name) else { return };
        if !compared(values, old).is_some_and(|all| all.iter().any(mentions)) {
            return;
        }
        let Some((point, arrivals)) = arrivals(id).filter(|_| may_count(place)) else { return };
        let key = (Side::New, place);
        let first = begin(values, id, &arrivals, key).and_then(|first| values.as_constant(first));
        let last = first.and_then(|first| end.checked_sub_unsigned(first));
        if let Some(last) = last.filter(|last| last.unsigned_abs() < FARTHEST.unsigned_abs()) {
            self.guessed.insert((point, key), last);
        }
    }

    /// At the end of a search: what is to be believed in the next one, and whether that is needed.
    pub fn next(mut self) -> (Self, bool) {
        for (id, believed) in std::mem::take(&mut self.believed) {
            let Some((point, shown)) = self.shown.get(&id) else { continue };
            let is_wrong = |key: &Key, bound: &Bound| shown.get(key) != Some(bound);
            let wrong = believed.into_iter().filter(|(key, (_, bound))| is_wrong(key, bound));
            let wrong: Vec<(Point, Key)> = wrong.map(|(key, _)| (*point, key)).collect();
            wrong.into_iter().for_each(|counter| self.disbelieve(counter));
        }
        let all = self.shown.values().flat_map(|(point, shown)| {
            shown.iter().map(|(key, bound)| ((*point, *key), bound.last))
        });
        let mut seeds: Seeds = all.filter(|(key, _)| !self.unbound.contains(key)).collect();
        for (key, last) in std::mem::take(&mut self.guessed) {
            if !self.unbound.contains(&key) {
                seeds.entry(key).or_insert(last);
            }
        }
        let is_new = seeds.iter().any(|(key, last)| self.seeds.get(key) != Some(last));
        let again = is_new || self.failed;
        (Self { seeds, unbound: self.unbound, ..Self::default() }, again)
    }

    /// What was believed is not so.
    fn disbelieve(&mut self, counter: (Point, Key)) {
        self.unbound.insert(counter);
        self.failed = true;
    }
}

impl Bound {
    /// Whether a value is one of those that the name may stand for, whatever the step is.
    fn has(&self, values: &mut Values, value: Value) -> bool {
        let more = values.subtract(value, self.first);
        let more = values.as_constant(more).map(u64::cast_signed);
        more.is_some_and(|more| (self.last.min(0)..=self.last.max(0)).contains(&more))
    }
}

/// What a place holds on the edges, if that is known of all of them.
fn held(arrivals: &[State], (side, place): Key) -> Option<Vec<Value>> {
    arrivals.iter().map(|s| s.side(side).at(place)).collect()
}

/// What a place holds on all edges that do not come from the point itself, if that is one value.
fn begin(values: &Values, id: PointId, arrivals: &[State], key: Key) -> Option<Value> {
    let all = held(arrivals, key)?;
    let mut begins = all.into_iter().filter(|v| !values.depends_on(*v, id));
    let first = begins.next()?;
    begins.all(|begin| begin == first).then_some(first)
}

/// The counters at a point, by the places of both sides: the name, and its bounds.
fn find(values: &mut Values, id: PointId, arrivals: &[State]) -> BTreeMap<Key, (Value, Bound)> {
    let [one, _, ..] = arrivals else { return BTreeMap::new() };
    let of = |side: Side| one.side(side).places().map(move |(place, _)| (side, place));
    let keys: Vec<Key> = of(Side::Old).chain(of(Side::New)).collect();
    let mut found = BTreeMap::new();
    // The stack pointer is what the unwind tables say.
    let may_count = |place: Place| place != Place::General(4) && may_count(place);
    for key in keys.into_iter().filter(|(_, place)| may_count(*place)) {
        let Some(first) = begin(values, id, arrivals, key) else { continue };
        let all = arrivals.iter().zip(held(arrivals, key).unwrap_or_default());
        let rounds: Vec<(&State, Value)> = all.filter(|(_, v)| values.depends_on(*v, id)).collect();
        if rounds.is_empty() {
            continue;
        }
        let name = values.intern(Node::Phi(id, key.0, key.1));
        let counter = Counter { name, first };
        if let Some(last) = counter.last(values, &rounds) {
            found.insert(key, (name, Bound { first, last }));
        }
    }
    found
}

/// A name, and what it stands for in the first round.
struct Counter {
    name: Value,
    first: Value,
}

impl Counter {
    /// How far it goes, if by one step in all rounds, up to what each edge back shows.
    fn last(&self, values: &mut Values, rounds: &[(&State, Value)]) -> Option<i64> {
        let mut step = None;
        let mut last: Option<i64> = None;
        let mut narrow = 8;
        for (state, value) in rounds {
            let (bytes, by) = self.step(values, *value)?;
            narrow = narrow.min(bytes);
            if *step.get_or_insert(by) != by {
                return None;
            }
            let apart: Vec<Value> = state.apart.iter().copied().collect();
            let ends = apart.into_iter().filter_map(|v| self.never(values, v));
            let ends = ends.filter(|end| end % by == 0 && end / by >= 0 && end.abs() < FARTHEST);
            let end = ends.min_by_key(|end| end.abs())?;
            last = last.filter(|last| last.abs() >= end.abs()).or(Some(end));
        }
        let last = last?;
        // Of what is counted in fewer bytes all is kept.
        let number = || values.as_constant(self.first).and_then(|k| i64::try_from(k).ok());
        let kept = narrow == 8
            || number().is_some_and(|k| {
                let most = i64::try_from(mask(narrow)).unwrap_or(i64::MAX);
                k <= most && (0..=most).contains(&k.saturating_add(last))
            });
        kept.then_some(last)
    }

    /// By how much it goes on in a round, and in how many bytes.
    fn step(&self, values: &Values, value: Value) -> Option<(u8, i64)> {
        let (bytes, sum) = narrowed(values, value);
        let (terms, by) = values.terms(sum);
        let by = extended(bytes, by);
        (terms == [(self.name, 1)] && by != 0).then_some((bytes, by))
    }

    /// How much more than at first it never is where a value is not zero.
    fn never(&self, values: &mut Values, value: Value) -> Option<i64> {
        let (bytes, sum) = narrowed(values, value);
        let (terms, _) = values.terms(sum);
        let factor = terms.iter().find(|t| t.0 == self.name).map(|t| extended(bytes, t.1))?;
        let times = factor.cast_unsigned();
        let parts = [(sum, 1), (self.name, times.wrapping_neg()), (self.first, times)];
        let rest = values.linear(&parts, 0);
        let (terms, number) = values.terms(rest);
        let number = extended(bytes, number);
        let is_number = terms.iter().all(|t| t.1 & mask(bytes) == 0);
        let is_met = is_number && number.checked_rem(factor) == Some(0);
        is_met.then(|| number.checked_div(factor)?.checked_neg()).flatten()
    }
}

/// What a condition compares, or compares with zero.
fn compared(values: &Values, test: Value) -> Option<Rc<[Value]>> {
    let of = |value: Value| match values.node(value) {
        Node::Operation(_, operands) => Some(operands.clone()),
        _ => None,
    };
    of(*of(test)?.first()?)
}

/// What the low bytes of a sum with one name are compared with for equality: the name, and the number at which they
/// are equal.
fn tested(values: &Values, test: Value) -> Option<(Value, i64)> {
    let operands = compared(values, test)?;
    let (number, sum) = match operands[..] {
        [sum] => (0, sum),
        [a, b] => match (values.as_constant(a), values.as_constant(b)) {
            (Some(number), None) => (number, b),
            (None, Some(number)) => (number, a),
            _ => return None,
        },
        _ => return None,
    };
    let (bytes, sum) = narrowed(values, sum);
    let (terms, added) = values.terms(sum);
    let [(name, factor)] = terms[..] else { return None };
    let factor = extended(bytes, factor);
    let end = extended(bytes, number.wrapping_sub(added));
    (factor.unsigned_abs() == 1).then(|| (name, end.wrapping_mul(factor)))
}

/// A sum of which so many low bytes count.
fn narrowed(values: &Values, value: Value) -> (u8, Value) {
    match *values.node(value) {
        Node::Low(bytes, sum) => (bytes, sum),
        _ => (8, value),
    }
}

/// Values as they are now that more is known of the names at a point.
struct Renewed<'v> {
    values: &'v mut Values,
    id: PointId,
    known: FxHashMap<Value, Value>,
}

impl Renewed<'_> {
    /// Everything that one side holds.
    fn machine(&mut self, machine: &Machine) -> Machine {
        machine.map(|_, value| self.value(value, DEPTH))
    }

    fn value(&mut self, value: Value, depth: usize) -> Value {
        let Some(depth) = depth.checked_sub(1) else { return value };
        if !self.values.depends_on(value, self.id) {
            return value;
        }
        if let Some(known) = self.known.get(&value) {
            return *known;
        }
        let node = self.values.node(value).clone();
        let operands: Vec<Value> =
            operands(&node).into_iter().map(|v| self.value(v, depth)).collect();
        let new = match (&node, &operands[..]) {
            (Node::Load(_, _, bytes), [from, address]) => {
                memory::load(self.values, *from, *address, *bytes)
            }
            (Node::Store(.., bytes), [before, address, stored]) => {
                memory::store(self.values, *before, *address, *stored, *bytes)
            }
            _ => self.values.remade(&node, &operands),
        };
        self.known.insert(value, new);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::Bound;
    use crate::frames::point::PointId;
    use crate::frames::value::{Node, Place, Side, Values};

    const HERE: PointId = PointId(7);

    fn name(place: u8, id: PointId) -> Node {
        Node::Phi(id, Side::Old, Place::General(place))
    }

    #[test]
    fn within_bounds_the_low_bytes_of_a_sum_are_all_of_it() {
        let mut values = Values::default();
        let (counter, first) = (values.intern(name(3, HERE)), values.constant(5));
        let next = values.offset(counter, 1);
        assert_ne!(values.low(1, next), next);
        values.bind(counter, Some(Bound { first, last: 121 }));
        // 6 to 127.
        assert_eq!(values.low(1, next), next);
        assert_eq!(values.signed(1, next), next);
        let more = values.offset(counter, 2);
        assert_eq!(values.low(1, more), more);
        assert_ne!(values.signed(1, more), more, "128 is less than zero in a byte");
        let less = values.offset(counter, 6u64.wrapping_neg());
        assert_ne!(values.low(1, less), less, "-1 is not");
        assert_eq!(values.signed(1, less), less);
        let down = values.linear(&[(counter, u64::MAX)], 126);
        assert_eq!(values.low(1, down), down);
        let twice = values.linear(&[(counter, 2)], 0);
        assert_eq!(values.low(1, twice), twice);
        let thrice = values.linear(&[(counter, 3)], 0);
        assert_ne!(values.low(1, thrice), thrice);
        values.bind(counter, None);
        let again = values.offset(counter, 3);
        assert_ne!(values.low(1, again), again);
    }

    #[test]
    fn within_bounds_a_sum_is_zero_with_one_number() {
        let mut values = Values::new(true);
        let (counter, first) = (values.intern(name(3, HERE)), values.constant(5));
        values.bind(counter, Some(Bound { first, last: 60 }));
        let mut zero = |factor: i64, number: i64| {
            let factor = factor.cast_unsigned();
            let sum = values.linear(&[(counter, factor)], number.cast_unsigned());
            let found = values.zero_with(sum)?;
            let (terms, number) = values.terms(found);
            assert_eq!(terms, [(counter, 1)]);
            Some(-number.cast_signed())
        };
        assert_eq!(zero(1, -5), Some(5));
        assert_eq!(zero(1, -65), Some(65));
        assert_eq!(zero(16, -16 * 33), Some(33));
        assert_eq!(zero(-8, 8 * 20), Some(20));
        assert_eq!(zero(1, -66), None, "it does not get there");
        assert_eq!(zero(1, -4), None);
        assert_eq!(zero(16, -16 * 33 - 1), None, "it steps over it");
        assert_eq!(zero(1 << 60, -(33 << 60)), None, "it may be so several times");
    }

    #[test]
    fn a_name_within_bounds_is_made_of_what_it_begins_with() {
        let mut values = Values::default();
        let outer = values.intern(name(1, PointId(2)));
        let inner = values.bound_name(name(2, HERE), outer).expect("nothing is made of it");
        assert_eq!(values.depends(inner), [PointId(2), HERE]);
        assert_eq!(values.bound_name(name(2, HERE), outer), None);
    }
}
