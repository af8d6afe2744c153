//! What registers and the frame hold at a point: sets of values, shared between the points that have
//! the same ones.

use super::Value;
use super::alive::Mask;
use std::collections::BTreeMap;
use std::iter::Copied;
use std::rc::Rc;
use std::slice::Iter;

/// More distances from one address than this are not told apart.
const MOST: usize = 6;

/// The values of one place, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Values(Rc<Vec<Value>>);

impl Values {
    pub(super) fn one(value: Value) -> Self {
        Self(Rc::new(vec![value]))
    }

    pub(super) fn other() -> Self {
        Self::one(Value::Other)
    }

    pub(super) fn iter(&self) -> Copied<Iter<'_, Value>> {
        self.0.iter().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, value: Value) -> bool {
        self.0.binary_search(&value).is_ok()
    }

    /// Adds a value; too many distances are an unknown one. Whether that is news.
    pub(super) fn insert(&mut self, value: Value) -> bool {
        let Err(at) = self.0.binary_search(&value) else { return false };
        // Those alike stand side by side in the order of values.
        let alike = match value {
            Value::At(origin, ..) => {
                self.iter().filter(|v| matches!(v, Value::At(o, ..) if *o == origin)).count()
            }
            Value::Number(..) => self.iter().filter(|v| matches!(v, Value::Number(..))).count(),
            _ => 0,
        };
        if alike < MOST {
            Rc::make_mut(&mut self.0).insert(at, value);
            return true;
        }
        self.insert(value.origin().map_or(Value::Other, Value::Around))
    }

    /// Adds what another way brings; whether that is news.
    fn add(&mut self, theirs: &Self, retreating: bool) -> bool {
        if Rc::ptr_eq(&self.0, &theirs.0) && !retreating {
            return false;
        }
        if self == theirs && !retreating {
            *self = theirs.clone();
            return false;
        }
        let mut news = false;
        for value in theirs.iter() {
            news |= self.insert(if retreating { value.around() } else { value });
        }
        news
    }
}

impl Extend<Value> for Values {
    fn extend<T: IntoIterator<Item = Value>>(&mut self, values: T) {
        for value in values {
            self.insert(value);
        }
    }
}

impl FromIterator<Value> for Values {
    fn from_iter<T: IntoIterator<Item = Value>>(values: T) -> Self {
        let mut out = Self::default();
        out.extend(values);
        out
    }
}

impl<'a> IntoIterator for &'a Values {
    type Item = Value;
    type IntoIter = Copied<Iter<'a, Value>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What registers and the frame hold at a point; a place of the frame that is not here holds other
/// things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) registers: [Values; 16],
    frame: Rc<BTreeMap<i64, Values>>,
}

impl State {
    pub(super) fn entry() -> Self {
        let other = Values::other();
        Self { registers: std::array::from_fn(|_| other.clone()), frame: Rc::default() }
    }

    /// How many values it has.
    pub(super) fn size(&self) -> usize {
        self.registers.iter().chain(self.frame.values()).map(|v| v.0.len()).sum()
    }

    /// What a place of the frame holds.
    pub(super) fn slot(&self, at: i64) -> Values {
        self.frame.get(&at).cloned().unwrap_or_else(Values::other)
    }

    /// Puts something into a place of the frame.
    pub(super) fn put(&mut self, at: i64, values: Values) {
        if values != Values::other() {
            Rc::make_mut(&mut self.frame).insert(at, values);
        }
    }

    /// Places of the frame whose word begins in a range hold other things.
    pub(super) fn overwrite(&mut self, range: &std::ops::Range<i64>) {
        let hit = |at: i64| at + 8 > range.start && at < range.end;
        if self.frame.keys().any(|at| hit(*at)) {
            Rc::make_mut(&mut self.frame).retain(|at, _| !hit(*at));
        }
    }

    /// Any place of the frame may hold something else.
    pub(super) fn blur(&mut self) {
        if self.frame.values().any(|values| !values.contains(Value::Other)) {
            for values in Rc::make_mut(&mut self.frame).values_mut() {
                values.insert(Value::Other);
            }
        }
    }

    /// The state behind the first edge that leads somewhere, where only some registers matter.
    pub(super) fn first(&self, alive: Mask, retreating: bool) -> Self {
        let other = Values::other();
        let taken = |values: &Values| match retreating {
            true => values.iter().map(Value::around).collect(),
            false => values.clone(),
        };
        let frame = match retreating {
            true => Rc::new(self.frame.iter().map(|(at, v)| (*at, taken(v))).collect()),
            false => Rc::clone(&self.frame),
        };
        Self {
            registers: std::array::from_fn(|n| match alive >> n & 1 {
                0 => other.clone(),
                _ => taken(&self.registers[n]),
            }),
            frame,
        }
    }

    /// Adds what another way brings; whether that is news.
    pub(super) fn join(&mut self, other: &Self, alive: Mask, retreating: bool) -> bool {
        let mut news = false;
        for (n, (mine, theirs)) in self.registers.iter_mut().zip(&other.registers).enumerate() {
            news |= alive >> n & 1 == 1 && mine.add(theirs, retreating);
        }
        news | self.join_frame(other, retreating)
    }

    fn join_frame(&mut self, other: &Self, retreating: bool) -> bool {
        if !retreating {
            if Rc::ptr_eq(&self.frame, &other.frame) {
                return false;
            }
            if self.frame == other.frame {
                self.frame = Rc::clone(&other.frame);
                return false;
            }
        }
        let mut frame = (*self.frame).clone();
        let mut news = false;
        for (at, theirs) in other.frame.iter() {
            news |= frame.entry(*at).or_insert_with(Values::other).add(theirs, retreating);
        }
        for (at, mine) in &mut frame {
            if !other.frame.contains_key(at) {
                news |= mine.insert(Value::Other);
            }
        }
        if news {
            self.frame = Rc::new(frame);
        }
        news
    }
}
