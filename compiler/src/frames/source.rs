//! From equal values to sources: where in OLD's frame, or how from it, a value that NEW needs is had.
//!
//! Takes the states of both sides at a site; gives, for a wanted value, a place of OLD that holds it, or
//! the way to make it again out of such places, constants and addresses. Never guesses: no source is an
//! answer.

use super::beginning::Beginnings;
use super::state::State;
use super::value::{Base, CANARY, Node, Operation, Place, Value, Values};
use dsu_patch_format::frames::{Binary, Location, Proof, Value as Source};
use dsu_patch_format::plan::Target;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Operations in one remade value, at most.
const OPERATIONS: usize = 12;
/// How deep they may be nested.
const DEPTH: usize = 6;

/// Addresses that NEW's code names, as it names them: base and offset to target and addend.
pub type Named = FxHashMap<(Base, u64), (Target, i64)>;

/// OLD's places by what they hold.
pub struct Sources<'a> {
    values: &'a mut Values,
    named: &'a Named,
    beginnings: &'a Beginnings<'a>,
    held: FxHashMap<Value, Vec<Location>>,
    /// Upper lanes of vector registers that may be read.
    lanes: FxHashMap<(u8, u8), Value>,
    /// Slots of eight bytes that may be read.
    slots: FxHashMap<i64, Value>,
    /// The places' values by what they are sums of, once that was asked for.
    sums: Option<FxHashMap<Value, Vec<Value>>>,
    /// The last source was had back from what was made of the value.
    solved: bool,
    /// What OLD has found to be zero.
    zero: &'a BTreeSet<Value>,
}

impl<'a> Sources<'a> {
    /// Indexes OLD's places. `usable` says how many low bytes of a place may be read; 0: none.
    pub fn new(
        values: &'a mut Values,
        state: &'a State,
        named: &'a Named,
        beginnings: &'a Beginnings<'a>,
        usable: impl Fn(Place) -> u8,
    ) -> Self {
        let mut held: FxHashMap<Value, Vec<Location>> = FxHashMap::default();
        let places: Vec<(Place, Value)> = state.old.places().collect();
        let (mut lanes, mut slots) = (FxHashMap::default(), FxHashMap::default());
        for (place, value) in places {
            let most = usable(place);
            match place {
                Place::Lane(number, lane) if most >= 8 => {
                    lanes.insert((number, lane), value);
                }
                Place::Slot(cfa, 8) if most >= 8 => {
                    slots.insert(cfa, value);
                }
                _ => {}
            }
            for bytes in [8u8, 4, 2, 1].into_iter().filter(|b| *b <= most) {
                let Some(location) = location(place, bytes) else { continue };
                let key = values.low(bytes, value);
                held.entry(key).or_default().push(location);
            }
        }
        Self {
            values,
            named,
            beginnings,
            held,
            lanes,
            slots,
            sums: None,
            solved: false,
            zero: &state.zero,
        }
    }

    /// All values, for the caller's own questions.
    pub fn values(&mut self) -> &mut Values {
        self.values
    }

    /// The same, to look at.
    pub(super) fn known(&self) -> &Values {
        self.values
    }

    /// Whether the last source was had back from what was made of the value.
    pub(super) fn was_solved(&self) -> bool {
        self.solved
    }

    /// Whether a value counts in small steps.
    pub(super) fn counts(&self, value: Value) -> bool {
        self.beginnings.counts(self.values, value)
    }

    /// What OLD's places hold that is a sum with this term, in their order.
    pub(super) fn with(&mut self, term: Value) -> Vec<Value> {
        let (values, held) = (&*self.values, &self.held);
        let sums = self.sums.get_or_insert_with(|| {
            let mut sums: FxHashMap<Value, Vec<Value>> = FxHashMap::default();
            for place in held.keys() {
                for (term, _) in values.terms(whole(values, *place, 1)).0 {
                    sums.entry(term).or_default().push(*place);
                }
            }
            sums.values_mut().for_each(|all| all.sort_unstable());
            sums
        });
        sums.get(&term).cloned().unwrap_or_default()
    }

    /// The place that holds a value.
    pub(super) fn place(&self, value: Value, bytes: u8) -> Option<Source> {
        self.held(value, bytes, None)
    }

    /// A source for the low `bytes` of a value that goes to `to`.
    pub fn of(&mut self, wanted: Value, bytes: u8, to: Location) -> Option<(Source, Proof)> {
        let wanted = self.values.low(bytes, wanted);
        self.solved = false;
        if let Some(made) = self.made(wanted) {
            return Some((made, Proof::Remade));
        }
        if let Some(source) = self.held(wanted, bytes, Some(to)) {
            let saved = matches!(self.values.node(wanted), Node::Entry(Place::General(n)) if is_callee_saved(*n));
            return Some((source, if saved { Proof::CalleeSaved } else { Proof::Equal }));
        }
        let mut budget = OPERATIONS;
        let source = self.remake(wanted, bytes, DEPTH, &mut budget)?;
        Some((source, Proof::Remade))
    }

    /// Whether a place of OLD holds the value, as far as is known.
    pub fn agrees(&mut self, wanted: Value, bytes: u8, source: &Source) -> Option<bool> {
        let wanted = self.values.low(bytes, wanted);
        match source {
            Source::At(location) => {
                let location = narrowed(*location, bytes)?;
                let known = self.held.values().any(|all| all.contains(&location));
                let holds = self.held.get(&wanted).is_some_and(|all| all.contains(&location));
                known.then_some(holds)
            }
            Source::Constant(k) => {
                self.values.as_constant(wanted).map(|w| w == *k & super::value::mask(bytes))
            }
            _ => None,
        }
    }

    /// Lanes of a vector register: all of them in one place of OLD.
    pub fn of_lanes(
        &mut self,
        wanted: &[Value],
        bytes: u8,
        to: Location,
    ) -> Option<(Source, Proof)> {
        if let ([one], true) = (wanted, bytes <= 8) {
            return self.of(*one, bytes, to);
        }
        if bytes <= 8 {
            return None;
        }
        let zero = self.values.constant(0);
        if wanted.iter().all(|v| *v == zero) {
            return Some((Source::Constant(0), Proof::Remade));
        }
        let whole = |location: &Location| match *location {
            Location::Vector { number, bytes: 8 } => Some(Location::Vector { number, bytes }),
            Location::Slot { cfa, bytes: 8 } => {
                Some(Location::Slot { cfa, bytes: u32::from(bytes) })
            }
            _ => None,
        };
        let mut candidates: Vec<Location> =
            self.held.get(wanted.first()?)?.iter().filter_map(whole).collect();
        candidates.sort_by_key(|location| (!same_place(*location, to), *location));
        let has = |whole: &Location| {
            wanted
                .iter()
                .enumerate()
                .skip(1)
                .all(|(lane, value)| self.lane(*whole, lane) == Some(*value))
        };
        let found = candidates.into_iter().find(has)?;
        Some((Source::At(found), Proof::Equal))
    }

    /// What the nth eight bytes of a place of OLD hold.
    fn lane(&self, whole: Location, lane: usize) -> Option<Value> {
        match whole {
            Location::Vector { number, .. } => {
                self.lanes.get(&(number, u8::try_from(lane).ok()?)).copied()
            }
            Location::Slot { cfa, .. } => {
                self.slots.get(&(cfa + 8 * i64::try_from(lane).ok()?)).copied()
            }
            Location::General { .. } => None,
        }
    }

    fn made(&mut self, wanted: Value) -> Option<Source> {
        if let Some(k) = self.values.as_constant(wanted) {
            return Some(Source::Constant(k));
        }
        if self.zero.contains(&wanted) {
            return Some(Source::Constant(0));
        }
        if let Some((base, offset)) = self.values.as_address(wanted) {
            if base == Base::Cfa {
                return Some(Source::Frame(offset.cast_signed()));
            }
            return self.address(base, offset);
        }
        if let Node::Load(memory, address, 8) = *self.values.node(wanted)
            && *self.values.node(memory) == Node::Constants
            && self.values.as_address(address) == Some((Base::Thread, CANARY))
        {
            return Some(Source::Canary);
        }
        None
    }

    /// An address as NEW's own code names it; or one of the shadow image, which is one piece.
    fn address(&self, base: Base, offset: u64) -> Option<Source> {
        if let Some((target, addend)) = self.named.get(&(base, offset)) {
            return Some(Source::Address { target: *target, addend: *addend });
        }
        None
    }

    fn held(&self, wanted: Value, bytes: u8, to: Option<Location>) -> Option<Source> {
        let all = self.held.get(&wanted)?;
        let rank = |location: &Location| {
            let place = match *location {
                Location::General { number, .. } if is_callee_saved(number) => 1,
                Location::General { .. } => 2,
                Location::Slot { .. } => 3,
                Location::Vector { .. } => 4,
            };
            let stays = to.is_some_and(|to| same_place(to, *location));
            (size(*location) < u32::from(bytes), if stays { 0 } else { place }, *location)
        };
        let best = *all.iter().min_by_key(|l| rank(l))?;
        let from = u8::try_from(size(best)).ok()?;
        if from >= bytes {
            return Some(Source::At(narrowed(best, bytes)?));
        }
        // Equal as a whole although narrower: what is above is zero.
        Some(Source::ZeroExtend { from, value: Box::new(Source::At(best)) })
    }

    /// The low `bytes` of a value by arithmetic.
    pub(super) fn remake(
        &mut self,
        wanted: Value,
        bytes: u8,
        depth: usize,
        budget: &mut usize,
    ) -> Option<Source> {
        let wanted = self.values.low(bytes, wanted);
        if let Some(made) = self.made(wanted) {
            return Some(made);
        }
        if let Some(source) = self.held(wanted, bytes, None) {
            return Some(source);
        }
        let depth = depth.checked_sub(1)?;
        *budget = budget.checked_sub(1)?;
        let width = if bytes <= 4 { 4 } else { 8 };
        let made = self.forward(wanted, bytes, (depth, width), budget);
        made.or_else(|| {
            // Where the value is no more than these bytes, it may be had from all eight.
            let narrow = self.solved(wanted, (depth, width), budget);
            let solved = narrow.or_else(|| self.solved(wanted, (depth, 8), budget));
            self.solved |= solved.is_some();
            solved
        })
    }

    /// The value as what it is made of says.
    fn forward(
        &mut self,
        wanted: Value,
        bytes: u8,
        (depth, width): (usize, u8),
        budget: &mut usize,
    ) -> Option<Source> {
        match self.values.node(wanted).clone() {
            Node::Linear(terms, k) => self.sum(&terms, k, width, depth, budget),
            Node::Low(n, v) => {
                let value = self.remake(v, n, depth, budget)?;
                if n >= bytes {
                    return Some(value);
                }
                Some(Source::ZeroExtend { from: n, value: Box::new(value) })
            }
            Node::Signed(n, v) => {
                let value = Box::new(self.remake(v, n, depth, budget)?);
                Some(Source::SignExtend { from: n, to: width, value })
            }
            Node::Operation(operation, operands) => {
                let (op, width) = match operation {
                    Operation::And => (Binary::And, width),
                    Operation::Or => (Binary::Or, width),
                    Operation::Xor => (Binary::Xor, width),
                    Operation::Multiply => (Binary::Mul, width),
                    Operation::ShiftLeft(n @ (4 | 8)) => (Binary::Shl, n),
                    Operation::ShiftRight(n @ (4 | 8)) => (Binary::Shr, n),
                    Operation::ShiftArithmetic(n @ (4 | 8)) => (Binary::Sar, n),
                    _ => return None,
                };
                if width < bytes.min(8) && bytes > 4 {
                    return None;
                }
                let left = Box::new(self.remake(operands[0], width, depth, budget)?);
                let right = Box::new(self.remake(operands[1], width, depth, budget)?);
                Some(Source::Binary { op, bytes: width, left, right })
            }
            _ => None,
        }
    }

    fn sum(
        &mut self,
        terms: &[(Value, u64)],
        constant: u64,
        bytes: u8,
        depth: usize,
        budget: &mut usize,
    ) -> Option<Source> {
        let binary = |op, left, right| binary(op, bytes, left, right);
        let mut total: Option<Source> = None;
        // An address with an offset is named as a whole, where a term is one.
        let mut constant = constant;
        for (value, factor) in terms {
            let whole = self.values.offset(*value, constant);
            let base = if *factor == 1 && constant != 0 { self.made(whole) } else { None };
            let part = match base {
                Some(base) => {
                    constant = 0;
                    base
                }
                None => self.remake(*value, bytes, depth, budget)?,
            };
            let minus = *factor & super::value::mask(bytes) == super::value::mask(bytes);
            total = Some(match (total, *factor) {
                (None, 1) => part,
                (Some(total), 1) => binary(Binary::Add, total, part),
                (Some(total), _) if minus => binary(Binary::Sub, total, part),
                (total, factor) => {
                    let product = binary(Binary::Mul, part, Source::Constant(factor));
                    match total {
                        Some(total) => binary(Binary::Add, total, product),
                        None => product,
                    }
                }
            });
        }
        let total = total?;
        Some(if constant == 0 {
            total
        } else {
            binary(Binary::Add, total, Source::Constant(constant))
        })
    }
}

/// The value that one is the low bytes of, when those are `width` or more.
pub(super) fn whole(values: &Values, value: Value, width: u8) -> Value {
    match values.node(value) {
        Node::Low(bytes, inner) if *bytes >= width => *inner,
        _ => value,
    }
}

/// An operation on two sources, in so many bytes.
pub(super) fn binary(op: Binary, bytes: u8, left: Source, right: Source) -> Source {
    Source::Binary { op, bytes, left: Box::new(left), right: Box::new(right) }
}

/// rbx, rbp, r12 to r15 (psABI 3.2.1).
pub fn is_callee_saved(number: u8) -> bool {
    matches!(number, 3 | 5 | 12..=15)
}

fn location(place: Place, bytes: u8) -> Option<Location> {
    match place {
        Place::General(4) | Place::Flags | Place::Memory => None,
        Place::General(number) => Some(Location::General { number, bytes }),
        Place::Lane(number, 0) if bytes >= 4 => Some(Location::Vector { number, bytes }),
        Place::Lane(..) => None,
        Place::Slot(cfa, _) => Some(Location::Slot { cfa, bytes: u32::from(bytes) }),
    }
}

fn narrowed(location: Location, bytes: u8) -> Option<Location> {
    Some(match location {
        Location::General { number, bytes: had } if had >= bytes => {
            Location::General { number, bytes }
        }
        Location::Vector { number, bytes: had } if had >= bytes => {
            Location::Vector { number, bytes: bytes.max(4) }
        }
        Location::Slot { cfa, bytes: had } if had >= u32::from(bytes) => {
            Location::Slot { cfa, bytes: u32::from(bytes) }
        }
        _ => return None,
    })
}

fn size(location: Location) -> u32 {
    match location {
        Location::General { bytes, .. } | Location::Vector { bytes, .. } => u32::from(bytes),
        Location::Slot { bytes, .. } => bytes,
    }
}

fn same_place(a: Location, b: Location) -> bool {
    match (a, b) {
        (Location::General { number: x, .. }, Location::General { number: y, .. })
        | (Location::Vector { number: x, .. }, Location::Vector { number: y, .. }) => x == y,
        (Location::Slot { cfa: x, .. }, Location::Slot { cfa: y, .. }) => x == y,
        _ => false,
    }
}
