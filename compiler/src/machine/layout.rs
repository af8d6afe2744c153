//! Where the objects of a frame shall be, and how far an address of it is moved for that.

use super::analysis::Analysis;
use super::objects::ARRAY;
use crate::debug::Locals;
use std::collections::BTreeSet;
use std::ops::Range;

/// What vector instructions want of their operands, in bytes (SDM volume 1, 4.1.1).
pub(super) const ALIGNMENT: i64 = 16;

/// An object with the place where it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Where the code has it, as offsets from its CFA.
    pub extent: Range<i64>,
    /// Where it shall begin, as an offset from the same CFA.
    pub to: i64,
}

impl Pin {
    /// How much further from the code's place it is.
    #[must_use]
    pub fn shift(&self) -> i64 {
        self.to.saturating_sub(self.extent.start)
    }

    fn holds(&self, range: &Range<i64>) -> bool {
        self.extent.start <= range.start && range.end <= self.extent.end
    }

    fn touches(&self, range: &Range<i64>) -> bool {
        self.extent.start < range.end && range.start < self.extent.end
    }
}

/// Where the objects of a frame shall be; whatever is none of them stays.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Disjoint, ascending.
    pins: Vec<Pin>,
    /// Everything else that somebody may know the address of.
    others: Vec<Range<i64>>,
    /// How far everything is moved that code may count in.
    all: BTreeSet<i64>,
}

impl Layout {
    /// Of a function's frame, with its variables.
    #[must_use]
    pub fn new(analysis: &Analysis, locals: &Locals, pins: Vec<Pin>) -> Self {
        let pin_of = |range: &Range<i64>| pins.iter().find(|pin| pin.holds(range));
        let variables = locals.variables.iter().filter_map(crate::debug::Local::extent);
        let long = |range: &Range<i64>| range.end.saturating_sub(range.start) >= ARRAY;
        let objects = analysis.objects.iter().map(|object| object.extent.clone());
        let counted = objects.chain(variables.filter(long));
        let others: Vec<Range<i64>> = counted.filter(|range| pin_of(range).is_none()).collect();
        let pinned = pins.iter().map(Pin::shift);
        let all = pinned.chain(others.iter().map(|_| 0)).collect();
        Self { pins, others, all }
    }

    /// Where the code has what has a place of its own.
    pub(super) fn pinned(&self) -> impl Iterator<Item = &Range<i64>> {
        self.pins.iter().map(|pin| &pin.extent)
    }

    /// How far bytes of the frame are moved; `None` where some are, and others are not.
    #[must_use]
    pub fn of_bytes(&self, range: &Range<i64>) -> Option<i64> {
        let mut touched = self.pins.iter().filter(|pin| pin.touches(range));
        match touched.next() {
            None => Some(0),
            Some(pin) => pin.holds(range).then(|| pin.shift()),
        }
    }

    /// Bytes of the frame where they shall be.
    #[must_use]
    pub fn places(&self, range: &Range<i64>) -> Vec<Range<i64>> {
        let mut out = Vec::new();
        let mut at = range.start;
        for pin in self.pins.iter().filter(|pin| pin.touches(range)) {
            let (from, to) = (pin.extent.start.max(at), pin.extent.end.min(range.end));
            out.push(at..from);
            out.push(from + pin.shift()..to + pin.shift());
            at = to;
        }
        out.push(at..range.end);
        out.retain(|part| part.start < part.end);
        out.sort_by_key(|part| part.start);
        out
    }

    /// How far an address is moved that is handed to somebody: it is in an object, or where one ends.
    #[must_use]
    pub fn of_pointer(&self, at: i64) -> Option<i64> {
        only(self.holding(at).chain(self.ending(at))).unwrap_or(Some(0))
    }

    /// How far an address is moved from which code goes on to somewhere: to any object.
    pub(super) fn of_base(&self) -> Option<i64> {
        only(self.all.iter().copied()).unwrap_or(Some(0))
    }

    /// How far whatever holds an address is moved.
    pub(super) fn holding(&self, at: i64) -> impl Iterator<Item = i64> {
        let holds = move |extent: &Range<i64>| extent.contains(&at);
        let pinned = self.pins.iter().filter(move |pin| holds(&pin.extent)).map(Pin::shift);
        pinned.chain(self.others.iter().filter(move |extent| holds(extent)).map(|_| 0))
    }

    /// How far whatever ends at an address is moved.
    fn ending(&self, at: i64) -> impl Iterator<Item = i64> {
        let pinned = self.pins.iter().filter(move |pin| pin.extent.end == at).map(Pin::shift);
        pinned.chain(self.others.iter().filter(move |extent| extent.end == at).map(|_| 0))
    }

    /// Whether an address may be one of what is to be elsewhere.
    pub(super) fn may_be_pinned(&self, at: i64) -> bool {
        self.pins.iter().any(|pin| pin.extent.start <= at && at <= pin.extent.end)
    }

    /// Whether something is not aligned any more as it was to what vector instructions want.
    pub(super) fn is_shifted(&self) -> bool {
        self.pins.iter().any(|pin| pin.shift() % ALIGNMENT != 0)
    }

    /// How far an address is moved that is only made: what it means shows where it is used.
    pub(super) fn of_made(&self, at: i64) -> i64 {
        let inside = self.of_bytes(&(at..at.saturating_add(1))).unwrap_or(0);
        match self.holding(at).next() {
            Some(_) => inside,
            None => self.ending(at).next().unwrap_or(0),
        }
    }
}

/// The one value that all have; `None` for several. Nothing at all for none.
pub(super) fn only(mut all: impl Iterator<Item = i64>) -> Option<Option<i64>> {
    let first = all.next()?;
    Some(all.all(|one| one == first).then_some(first))
}
