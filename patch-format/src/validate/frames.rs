//! Frame translations: what must hold of each by itself. Whether it is right is the checker's matter.

use super::{Check, check_target, in_text, require};
use crate::frames::{Location, MAX_DEPTH, Move, Translation, Value};
use crate::plan::{Plan, Site, Target};
use crate::{Bundle, OldAddr};

/// No frame that is carried over is deeper.
pub const MAX_FRAME: u64 = 1 << 24;
/// Below the stack pointer a leaf function may use this much (psABI 3.2.2).
const RED_ZONE: u64 = 128;
/// Of the stack pointer before a call (psABI 3.2.2).
const ALIGNMENT: u64 = 16;
/// The return address is at CFA - 8, in every frame.
const RETURN_ADDRESS: (i64, i64) = (-8, 0);

pub(super) fn check(bundle: &Bundle) -> Check {
    let (plan, frames) = (&bundle.plan, &bundle.frames);
    require(frames.len() == plan.sites.len(), "each site has one translation", frames.len())?;
    for (site, frame) in plan.sites.iter().zip(frames) {
        Frame { plan, site, frame }.check()?;
    }
    Ok(())
}

struct Frame<'a> {
    plan: &'a Plan,
    site: &'a Site,
    frame: &'a Translation,
}

impl Frame<'_> {
    fn check(&self) -> Check {
        for depth in [self.frame.old_depth, self.frame.new_depth] {
            self.require((8..=MAX_FRAME).contains(&depth), "a frame's depth is within bounds")?;
        }
        self.objects()?;
        self.lowered()?;
        let copy = self.plan.copy_at(self.site.to);
        let stands = copy.is_none_or(|copy| copy.lowered == self.frame.lowered);
        self.require(stands, "a frame in a copy stands where the copy's do")?;
        let moves = &self.frame.moves;
        for one in moves {
            self.destination(one.to)?;
            self.value(&one.from, 0)?;
            self.width(one)?;
        }
        for (before, next) in moves.iter().zip(moves.iter().skip(1)) {
            self.require(before.to < next.to, "moves ascend by destination")?;
            self.require(!overlap(before.to, next.to), "destinations do not overlap")?;
        }
        Ok(())
    }

    /// A frame that stands lower keeps the stack pointer aligned and has a return address of its own.
    fn lowered(&self) -> Check {
        let Translation { lowered, new_depth, moves, .. } = self.frame;
        if *lowered == 0 {
            return Ok(());
        }
        self.require(lowered.is_multiple_of(ALIGNMENT), "a lowered frame is aligned")?;
        self.require(*lowered <= new_depth - 8, "a lowered frame is within its depth")?;
        let home = Location::Slot { cfa: -(lowered + 8).cast_signed(), bytes: 8 };
        let is_code = |from: &Value| match *from {
            Value::Address { target: Target::New(code), addend: 0 } => in_text(self.plan, code, 1),
            _ => false,
        };
        let returns = moves.iter().any(|one| one.to == home && is_code(&one.from));
        self.require(returns, "a lowered frame has a return address")
    }

    fn at(&self) -> OldAddr {
        self.site.at
    }

    fn require(&self, holds: bool, rule: &'static str) -> Check {
        require(holds, rule, format_args!("site {}", self.at()))
    }

    fn objects(&self) -> Check {
        let mut reached = i64::MIN;
        for (start, end) in &self.frame.objects {
            self.require(*start >= reached && start < end, "stack objects ascend")?;
            let inside = self.within(*start, *end, self.frame.old_depth)
                && self.within(*start, *end, self.frame.new_depth);
            self.require(inside, "a stack object lies in both frames")?;
            reached = *end;
        }
        Ok(())
    }

    /// Whether `[start, end)` is in a frame of this depth, or in its caller's near by.
    fn within(&self, start: i64, end: i64, depth: u64) -> bool {
        let lowest = 0i64.saturating_sub_unsigned(depth + RED_ZONE);
        lowest <= start && start < end && end <= MAX_FRAME.cast_signed()
    }

    fn destination(&self, to: Location) -> Check {
        self.location(to, self.frame.new_depth)?;
        match to {
            Location::General { number, .. } => {
                self.require(number != 4, "the stack pointer is no destination")
            }
            Location::Vector { .. } => Ok(()),
            Location::Slot { cfa, bytes } => {
                let slot = (cfa, cfa + i64::from(bytes));
                self.require(apart(slot, RETURN_ADDRESS), "the return address stays")?;
                let clear = self.frame.objects.iter().all(|object| apart(slot, *object));
                self.require(clear, "stack objects stay")
            }
        }
    }

    fn location(&self, location: Location, depth: u64) -> Check {
        let exists = match location {
            Location::General { number, bytes } => number < 16 && matches!(bytes, 1 | 2 | 4 | 8),
            Location::Vector { number, bytes } => {
                number < 32 && matches!(bytes, 4 | 8 | 16 | 32 | 64)
            }
            Location::Slot { cfa, bytes } => {
                cfa.checked_add(i64::from(bytes)).is_some_and(|end| self.within(cfa, end, depth))
            }
        };
        self.require(exists, "a location is a register, or lies in its frame")
    }

    /// A value and what it is made of; not deeper than anybody's stack can bear.
    fn value(&self, value: &Value, depth: usize) -> Check {
        self.require(depth < MAX_DEPTH, "a value does not nest too deep")?;
        match value {
            Value::At(location) => self.location(*location, self.frame.old_depth),
            Value::Address { target, .. } => check_target(self.plan, target),
            Value::Constant(_) | Value::Frame(_) | Value::Canary => Ok(()),
            Value::Binary { bytes, left, right, .. } => {
                self.require(matches!(bytes, 4 | 8), "arithmetic has 4 or 8 bytes")?;
                self.operand(left, u32::from(*bytes), depth)?;
                self.operand(right, u32::from(*bytes), depth)
            }
            Value::ZeroExtend { from, value } => {
                self.require(matches!(from, 1 | 2 | 4), "what is extended has 1, 2 or 4 bytes")?;
                self.operand(value, u32::from(*from), depth)
            }
            Value::SignExtend { from, to, value } => {
                self.require(matches!(from, 1 | 2 | 4), "what is extended has 1, 2 or 4 bytes")?;
                self.require(matches!(to, 4 | 8) && from < to, "extending makes wider")?;
                self.operand(value, u32::from(*from), depth)
            }
        }
    }

    fn operand(&self, value: &Value, bytes: u32, depth: usize) -> Check {
        self.value(value, depth + 1)?;
        self.require(reaches(value, bytes), "an operand is as wide as the operation")
    }

    fn width(&self, one: &Move) -> Check {
        self.require(reaches(&one.from, size(one.to)), "a source is as wide as its destination")
    }
}

/// Whether a value has this many bytes. All but copies have 8, or are zero above.
fn reaches(value: &Value, bytes: u32) -> bool {
    if let Value::At(from) = value { size(*from) >= bytes } else { true }
}

fn size(location: Location) -> u32 {
    match location {
        Location::General { bytes, .. } | Location::Vector { bytes, .. } => u32::from(bytes),
        Location::Slot { bytes, .. } => bytes,
    }
}

/// Of two neighbours in the order of destinations, both within bounds.
fn overlap(before: Location, next: Location) -> bool {
    match (before, next) {
        (Location::General { number: a, .. }, Location::General { number: b, .. })
        | (Location::Vector { number: a, .. }, Location::Vector { number: b, .. }) => a == b,
        (Location::Slot { cfa: a, bytes }, Location::Slot { cfa: b, .. }) => {
            a + i64::from(bytes) > b
        }
        _ => false,
    }
}

fn apart(a: (i64, i64), b: (i64, i64)) -> bool {
    a.1 <= b.0 || b.1 <= a.0
}
