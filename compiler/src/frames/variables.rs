//! What the debug information of both builds says of a value: NEW's variable that lives in a place
//! at a point of NEW, and where the same variable of OLD lives at the matching point of OLD.
//!
//! Takes: the local variables of a function and of its counterpart, their code. Decides: which
//! variable is which (see [`same`](super::same)), and whether what is said of it can be relied on (see
//! [`trust`](super::trust)). Gives: [`Answer`]. Refuses, with a reason in words: a variable that OLD lacks,
//! has no place for, has of another type, or lost track of.
//!
//! A point is an address: of the instruction that is executed next. Behind a call it is the return
//! address; places are those after the return, and variables whose scope ends with the call count.

use super::same::{self, Types};
use super::trust::Trust;
use crate::debug::{Local, LocalPlace as Place, Locals, Register, Scope};
use crate::image::Image;
use crate::machine::flow::{End, Flow};
use dsu_patch_format::frames::{Binary, Location, Value};
use std::collections::BTreeSet;
use std::ops::Range;

/// General registers that a call may change (psABI figure 3.4), by number.
pub(super) const CLOBBERED: [u8; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];

/// One function of one build.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The build.
    pub image: &'a Image,
    /// The function's local variables, by [`Image::locals`].
    pub locals: &'a Locals,
    /// Its code.
    pub flow: &'a Flow,
    /// The places of `locals` are told from a CFA so many bytes higher than the function's own.
    pub lowered: i64,
}

/// What is known of a place of NEW.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is a variable, which OLD has here.
    Found {
        /// The variable's value in OLD.
        value: Value,
        /// The variable.
        name: String,
    },
    /// The same, but the variable has fewer bytes than are wanted: what is above them is unknown.
    Partial {
        /// The variable's value in OLD.
        value: Value,
        /// Its bytes.
        bytes: u32,
        /// The variable.
        name: String,
    },
    /// No variable is known to live there.
    NoName,
    /// It is a variable whose value OLD does not have, or is not known to have.
    Unavailable {
        /// The variable.
        name: String,
        /// A sentence about it.
        why: String,
        /// Only NEW has it.
        new_local: bool,
    },
}

/// The local variables of a pair of functions.
pub struct Variables<'a> {
    old: Side<'a>,
    new: Side<'a>,
    types: Types,
    old_trust: Trust,
    new_trust: Trust,
    /// Return addresses of calls.
    old_returns: BTreeSet<u64>,
    new_returns: BTreeSet<u64>,
}

/// The part of a variable that a place holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// Bytes of the variable before it.
    offset: u64,
    /// Bytes of it from there.
    bytes: u64,
}

impl<'a> Variables<'a> {
    /// Looks at both functions. Costs about as much as decoding them a few times.
    #[must_use]
    pub fn new(old: Side<'a>, new: Side<'a>) -> Self {
        let trust = |side: Side<'_>| {
            let parts = side.flow.body.parts.iter().map(|(part, _)| part.clone());
            let rows = side.image.rows_of(parts).into_iter();
            let rows: Vec<_> = rows.map(|row| row.lowered(side.lowered)).collect();
            Trust::new(side.flow, &rows, side.locals)
        };
        Self {
            old,
            new,
            types: Types::new(old, new),
            old_trust: trust(old),
            new_trust: trust(new),
            old_returns: returns(old.flow),
            new_returns: returns(new.flow),
        }
    }

    /// Where the value for a place of NEW's is in OLD: `at` is the point in OLD, `to` its
    /// counterpart in NEW, `wanted` the place in NEW with the bytes that are live.
    #[must_use]
    pub fn source(&self, at: u64, to: u64, wanted: Location) -> Answer {
        let mut best = Answer::NoName;
        let mut seen: Option<(Value, String)> = None;
        for (index, _) in same::visible(self.new, to, self.new_returns.contains(&to)) {
            let local = &self.new.locals.variables[index];
            let Some(part) = local.place_at(to).and_then(|place| part_in(place, local, wanted))
            else {
                continue;
            };
            let answer = self.of_variable(index, part, at, to, wanted);
            if let Answer::Found { value, name } | Answer::Partial { value, name, .. } = &answer {
                if let Some((other, also)) = &seen
                    && other != value
                {
                    let why = format!(
                        "variables `{also}` and `{name}` share a place in NEW, and have different ones \
                         in OLD"
                    );
                    return Answer::Unavailable { name: name.clone(), why, new_local: false };
                }
                seen.get_or_insert((value.clone(), name.clone()));
            }
            if rank(&answer) > rank(&best) {
                best = answer;
            }
        }
        best
    }

    /// Where the variable that lives in a place of NEW's at the first of two points was at the second, in OLD and in NEW:
    /// `None` where that is not known, or it was in no place of NEW's.
    #[must_use]
    pub fn earlier(
        &self,
        [(at, to), (before, there)]: [(u64, u64); 2],
        wanted: Location,
    ) -> Option<(Value, Location)> {
        let mut visible = same::visible(self.new, to, self.new_returns.contains(&to));
        let (local, partner, part) = visible.find_map(|(index, _)| {
            let local = &self.new.locals.variables[index];
            let part = part_in(local.place_at(to)?, local, wanted)?;
            let partner = self.partner(index, at, to).ok()?;
            Some((local, &self.old.locals.variables[partner], part))
        })?;
        let bytes = part.bytes.min(u64::from(size(wanted)));
        let read = |place: &Place| self.read(place, part.offset, bytes, before, there).ok();
        let old = read(partner.place_at(before)?)?;
        match read(local.place_at(there)?)? {
            Value::At(new) => Some((old, new)),
            _ => None,
        }
    }

    /// Cuts a range of NEW's frame where variables begin and end at `to`, so that each part can be
    /// asked for by itself.
    #[must_use]
    pub fn split(&self, to: u64, slots: Range<i64>) -> Vec<Range<i64>> {
        let mut cuts = BTreeSet::from([slots.start, slots.end]);
        for (index, _) in same::visible(self.new, to, self.new_returns.contains(&to)) {
            let local = &self.new.locals.variables[index];
            let place = local.place_at(to);
            for extent in place.into_iter().flat_map(|place| extents(place, local.size)) {
                cuts.extend([extent.start, extent.end]);
            }
        }
        let cuts: Vec<i64> = cuts.range(slots.start..=slots.end).copied().collect();
        cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// The extent in OLD's frame of the object that has `extent` in NEW's: of the variable there,
    /// in scope at `to`, the same in OLD, in scope at `at`. Offsets from the CFA.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn object_partner(
        &self,
        extent: Range<i64>,
        at: u64,
        to: u64,
    ) -> Result<Range<i64>, String> {
        let mut why = "no variable is known to be there".to_owned();
        for (index, _) in same::visible(self.new, to, self.new_returns.contains(&to)) {
            let local = &self.new.locals.variables[index];
            let Some(whole) = local.extent() else { continue };
            if whole.start > extent.start || whole.end < extent.end || whole.is_empty() {
                continue;
            }
            match self.partner_extent(index, at, to) {
                Ok(partner) => {
                    let start = partner.start + (extent.start - whole.start);
                    return Ok(start..start + (extent.end - extent.start));
                }
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    /// Whether each variable in scope at `to` that lies in a part of NEW's frame, even with some of its
    /// bytes only, is the same one and in the same place in OLD's.
    #[must_use]
    pub fn stay(&self, part: &Range<i64>, at: u64, to: u64) -> bool {
        same::visible(self.new, to, self.new_returns.contains(&to)).all(|(index, _)| {
            let whole = self.new.locals.variables[index].extent();
            whole.is_none_or(|whole| {
                whole.end <= part.start
                    || part.end <= whole.start
                    || self.partner_extent(index, at, to).is_ok_and(|partner| partner == whole)
            })
        })
    }

    /// Whether only NEW has a variable of this name in this body.
    #[must_use]
    pub fn is_new(&self, name: &str, scope: &[Scope]) -> bool {
        let is_it = |local: &Local| local.name == name && same::same_body(&local.scope, scope);
        !self.old.locals.variables.iter().any(is_it)
    }

    /// Whether any variable that lies in this part of NEW's frame is in scope at a point.
    #[must_use]
    pub fn is_visible(&self, extent: &Range<i64>, to: u64) -> bool {
        let visible = same::visible(self.new, to, self.new_returns.contains(&to));
        visible.into_iter().any(|(index, _)| {
            let whole = self.new.locals.variables[index].extent();
            whole.is_some_and(|whole| whole.start < extent.end && extent.start < whole.end)
        })
    }

    /// NEW's variables that live in a place at a point, by whatever the debug information says.
    pub fn named(&self, to: u64, wanted: Location) -> impl Iterator<Item = &'a Local> + '_ {
        let visible = same::visible(self.new, to, self.new_returns.contains(&to));
        visible.filter_map(move |(index, _)| {
            let local = &self.new.locals.variables[index];
            part_in(local.place_at(to)?, local, wanted).map(|_| local)
        })
    }

    /// What is said of a place of NEW that is no variable's, but from which alone a variable is computed: why OLD's
    /// has nothing for it, and whether only NEW has the variable.
    #[must_use]
    pub fn computed(&self, at: u64, to: u64, wanted: Location) -> Option<(String, bool)> {
        let Location::General { number, .. } = wanted else { return None };
        let from = Place::Expression(Some(Register::General(number)));
        let visible = same::visible(self.new, to, self.new_returns.contains(&to));
        let locals = visible.map(|(index, _)| (index, &self.new.locals.variables[index]));
        let answers =
            locals.filter(|(_, local)| local.place_at(to) == Some(&from)).map(|(index, local)| {
                match self.partner(index, at, to) {
                    Err(why) => (why, self.is_new(&local.name, &local.scope)),
                    Ok(_) => (
                        self.sentence(
                            local,
                            "what NEW computes it from has no proven source in OLD",
                        ),
                        false,
                    ),
                }
            });
        // What OLD has, too, says more against it.
        answers.min_by_key(|(_, new_local)| *new_local)
    }

    fn partner_extent(&self, index: usize, at: u64, to: u64) -> Result<Range<i64>, String> {
        let local = &self.new.locals.variables[index];
        let partner = self.partner(index, at, to)?;
        let old = &self.old.locals.variables[partner];
        self.types.compare(old, local).map_err(|why| self.sentence(local, &why))?;
        old.extent().ok_or_else(|| self.sentence(local, "it is not in one place of OLD's frame"))
    }

    fn of_variable(&self, index: usize, part: Part, at: u64, to: u64, wanted: Location) -> Answer {
        let local = &self.new.locals.variables[index];
        let name = local.name.clone();
        match self.value(index, part, at, to, wanted) {
            Ok((value, bytes)) if bytes >= size(wanted) => Answer::Found { value, name },
            Ok((value, bytes)) => Answer::Partial { value, bytes, name },
            Err(why) => {
                let new_local = self.is_new(&name, &local.scope);
                Answer::Unavailable { name, why, new_local }
            }
        }
    }

    /// The value in OLD of part of a variable, and how many bytes it has.
    fn value(
        &self,
        index: usize,
        part: Part,
        at: u64,
        to: u64,
        wanted: Location,
    ) -> Result<(Value, u32), String> {
        let local = &self.new.locals.variables[index];
        let say = |why: &str| self.sentence(local, why);
        if let Some(doubt) = self.new_trust.doubt(local, index, to) {
            return Err(say(&format!("in NEW, {doubt}")));
        }
        let partner = self.partner(index, at, to)?;
        let old = &self.old.locals.variables[partner];
        self.types.compare(old, local).map_err(|why| say(&why))?;
        if let Some(doubt) = self.old_trust.doubt(old, partner, at) {
            return Err(say(&format!("in OLD, {doubt}")));
        }
        let assigned = self.new_trust.is_assigned(index, to);
        if assigned != self.old_trust.is_assigned(partner, at) {
            let side = if assigned { "NEW" } else { "OLD" };
            return Err(say(&format!("it gets a value right here, in {side} only")));
        }
        let place = old.place_at(at).unwrap_or(&Place::OptimizedOut);
        self.refuse_clobbered(old, place, at).map_err(|why| say(&why))?;
        let bytes = part.bytes.min(u64::from(size(wanted)));
        let value = self.read(place, part.offset, bytes, at, to).map_err(|why| say(&why))?;
        Ok((value, u32::try_from(bytes).unwrap_or(u32::MAX)))
    }

    /// OLD's variable that is NEW's one of this index.
    fn partner(&self, index: usize, at: u64, to: u64) -> Result<usize, String> {
        let local = &self.new.locals.variables[index];
        let new: Vec<_> = same::visible(self.new, to, self.new_returns.contains(&to)).collect();
        let old: Vec<_> = same::visible(self.old, at, self.old_returns.contains(&at)).collect();
        let own = new.iter().find(|(other, _)| *other == index).map(|(_, left)| *left);
        // Those in scope here first, then those that leave it with the call, then all together.
        for left in [own, None] {
            let ours = same::alike(self.new, local, &new, left, |s| {
                s.len() == local.scope.len() && same::same_body(s, &local.scope)
            });
            let theirs =
                same::alike(self.old, local, &old, left, |s| same::same_body(s, &local.scope));
            let position = ours.iter().position(|other| *other == index);
            if let Some(position) = position.filter(|_| ours.len() == theirs.len()) {
                return Ok(theirs[position]);
            }
        }
        Err(self.sentence(local, self.why_no_partner(local)))
    }

    fn why_no_partner(&self, local: &Local) -> &'static str {
        let named = |other: &&Local| other.name == local.name;
        let mut others = self.old.locals.variables.iter().filter(named).peekable();
        if local.name.is_empty() {
            "it has no name"
        } else if others.peek().is_none() {
            "OLD has no such variable"
        } else if others.any(|other| same::same_body(&other.scope, &local.scope)) {
            "OLD's is not in scope here, or there are several"
        } else {
            "OLD has one of this name only in another body"
        }
    }

    /// What a call may change is no source behind it, if the callee happened to leave it alone: that
    /// callee may be replaced.
    fn refuse_clobbered(&self, old: &Local, place: &Place, at: u64) -> Result<(), String> {
        let held = old.entry_index(at) == old.entry_index(at.wrapping_sub(1));
        if !self.old_returns.contains(&at) || !held {
            return Ok(());
        }
        let is_clobbered = |place: &Place| match place {
            Place::Register(Register::General(number)) => CLOBBERED.contains(number),
            Place::Register(Register::Vector(_) | Register::Other(_)) => true,
            _ => false,
        };
        let found = match place {
            Place::Pieces(pieces) => pieces.iter().any(|piece| is_clobbered(&piece.place)),
            place => is_clobbered(place),
        };
        match found {
            true => Err("OLD keeps it in a register that calls may change".to_owned()),
            false => Ok(()),
        }
    }

    /// `bytes` of what is in a place of OLD, from `offset` on.
    fn read(
        &self,
        place: &Place,
        offset: u64,
        bytes: u64,
        at: u64,
        to: u64,
    ) -> Result<Value, String> {
        let unavailable = |why: &str| Err(why.to_owned());
        match place {
            Place::Register(Register::General(number)) => general(*number, offset, bytes),
            Place::Register(Register::Vector(number)) => {
                match (offset, bytes.next_power_of_two()) {
                    (0, bytes @ ..=64) => {
                        let bytes = u8::try_from(bytes.max(4)).unwrap_or(64);
                        Ok(Value::At(Location::Vector { number: *number, bytes }))
                    }
                    _ => unavailable("OLD has it in the middle of a vector register"),
                }
            }
            Place::Frame(start) => {
                let cfa = i64::try_from(offset).ok().and_then(|offset| start.checked_add(offset));
                match (cfa, u32::try_from(bytes)) {
                    (Some(cfa), Ok(bytes)) => Ok(Value::At(Location::Slot { cfa, bytes })),
                    _ => unavailable("it is too large"),
                }
            }
            Place::Constant(constant) => {
                let shifted = u32::try_from(offset).ok().and_then(|o| constant.checked_shr(o * 8));
                match shifted.and_then(|value| u64::try_from(value & u128::from(u64::MAX)).ok()) {
                    Some(value) if bytes <= 8 => Ok(Value::Constant(value)),
                    _ => unavailable("it is a constant of more than 8 bytes"),
                }
            }
            Place::FrameAddress(target) => self.frame_address(*target, at, to),
            Place::Pieces(pieces) => {
                let mut start = 0_u64;
                for piece in pieces {
                    let end = start.saturating_add(piece.bytes);
                    if start <= offset && offset.saturating_add(bytes) <= end {
                        return self.read(&piece.place, offset - start, bytes, at, to);
                    }
                    start = end;
                }
                unavailable("OLD has it in pieces that do not fit")
            }
            Place::Address(_) => unavailable("OLD has it in static memory"),
            Place::AddressValue(_) => unavailable("in OLD it is an address that is kept nowhere"),
            Place::EntryValue(_) => {
                unavailable("OLD keeps only what it was when the function was entered")
            }
            Place::Expression(_) => unavailable("OLD has it only as an expression to be computed"),
            Place::OptimizedOut => unavailable("it is optimized out in OLD here"),
            Place::Register(Register::Other(_)) => unavailable("OLD has it in an unusual register"),
        }
    }

    /// A pointer to a variable of the frame is the same number in NEW only where that variable
    /// stays.
    fn frame_address(&self, target: i64, at: u64, to: u64) -> Result<Value, String> {
        let byte = target..target.saturating_add(1);
        let locals = &self.new.locals.variables;
        for (index, _) in same::visible(self.new, to, self.new_returns.contains(&to)) {
            let Some(extent) = locals[index].extent().filter(|extent| extent.contains(&target))
            else {
                continue;
            };
            if self.partner_extent(index, at, to).is_ok_and(|partner| partner == extent) {
                return Ok(Value::Frame(byte.start));
            }
        }
        Err("it points to a part of the frame that may be elsewhere in NEW".to_owned())
    }

    fn sentence(&self, local: &Local, why: &str) -> String {
        format!("variable {}: {why}", same::called(self.new.image, local))
    }
}

fn returns(flow: &Flow) -> BTreeSet<u64> {
    let calls = flow.blocks.iter().filter(|block| block.end == End::Call);
    calls.filter_map(|block| Some(flow.body.steps.get(block.steps.end - 1)?.end())).collect()
}

fn rank(answer: &Answer) -> u8 {
    match answer {
        Answer::NoName => 0,
        Answer::Unavailable { .. } => 1,
        Answer::Partial { .. } => 2,
        Answer::Found { .. } => 3,
    }
}

fn size(location: Location) -> u32 {
    match location {
        Location::General { bytes, .. } | Location::Vector { bytes, .. } => u32::from(bytes),
        Location::Slot { bytes, .. } => bytes,
    }
}

/// The part of a variable that begins where `wanted` does.
fn part_in(place: &Place, local: &Local, wanted: Location) -> Option<Part> {
    let size = local.size?;
    if let Place::Pieces(pieces) = place {
        let mut offset = 0_u64;
        for piece in pieces {
            if let Some(part) = part_of(&piece.place, piece.bytes, wanted) {
                let offset = offset.checked_add(part.offset)?;
                return (offset < size).then_some(Part { offset, ..part });
            }
            offset = offset.checked_add(piece.bytes)?;
        }
        return None;
    }
    part_of(place, size, wanted)
}

fn part_of(place: &Place, size: u64, wanted: Location) -> Option<Part> {
    let whole = Part { offset: 0, bytes: size };
    match (place, wanted) {
        (Place::Register(Register::General(a)), Location::General { number, .. }) => {
            (*a == number && (1..=8).contains(&size)).then_some(whole)
        }
        (Place::Register(Register::Vector(a)), Location::Vector { number, .. }) => {
            (*a == number && (1..=64).contains(&size)).then_some(whole)
        }
        (Place::Frame(start), Location::Slot { cfa, .. }) => {
            let offset = u64::try_from(cfa.checked_sub(*start)?).ok()?;
            Some(Part { offset, bytes: size.checked_sub(offset).filter(|rest| *rest > 0)? })
        }
        _ => None,
    }
}

/// The memory of the frame that a place covers.
fn extents(place: &Place, size: Option<u64>) -> Vec<Range<i64>> {
    let extent = |place: &Place, bytes: u64| match place {
        Place::Frame(start) => {
            let end = start.checked_add(i64::try_from(bytes).ok()?)?;
            Some(*start..end)
        }
        _ => None,
    };
    match place {
        Place::Pieces(pieces) => {
            pieces.iter().filter_map(|piece| extent(&piece.place, piece.bytes)).collect()
        }
        place => size.and_then(|size| extent(place, size)).into_iter().collect(),
    }
}

/// Bytes of a general register, from `offset` on.
fn general(number: u8, offset: u64, bytes: u64) -> Result<Value, String> {
    let whole = |bytes: u64| {
        let bytes = u8::try_from(bytes.next_power_of_two().min(8)).unwrap_or(8);
        Value::At(Location::General { number, bytes })
    };
    match (offset, offset.checked_add(bytes)) {
        (0, Some(..=8)) => Ok(whole(bytes)),
        (_, Some(..=8)) => Ok(Value::Binary {
            op: Binary::Shr,
            bytes: 8,
            left: Box::new(whole(8)),
            right: Box::new(Value::Constant(offset * 8)),
        }),
        _ => Err("it is larger than the register that OLD has it in".to_owned()),
    }
}
