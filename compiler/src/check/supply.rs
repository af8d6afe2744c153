//! Part 2: the table supplies every live location.
//!
//! Takes the analyses of both functions at a site's two points, the table, and the state in which the
//! stub ended; gives what is missing.

use super::calls::{CALLEE_SAVED, Callee, Calls, SAVED, Set};
use super::demand::low;
use super::function::{Analysis, Point};
use super::reach::results;
use super::rows::{Base, Saved};
use super::symbolic::State as Ended;
use super::table::{general_name, name, source};
use super::values::{Known, RBP, State, is_call};
use super::{Finding, Rule, copies};
use dsu_patch_format::frames::{Location, Translation, Value};
use dsu_patch_format::plan::{Copied, Site, SiteKind};
use std::ops::Range;

/// One of the two functions at its point.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) calls: &'a Calls<'a>,
    pub(super) function: &'a Analysis,
    pub(super) point: &'a Point,
}

/// A site with all that is known about it.
pub(super) struct Supply<'a, 'e> {
    pub(super) old: Side<'a>,
    pub(super) new: Side<'a>,
    pub(super) site: &'a Site,
    pub(super) translation: &'a Translation,
    /// The table with NEW's places as NEW's function calls them.
    pub(super) seen: Translation,
    /// The copy of NEW's function that the frame goes on in, with what is known there.
    pub(super) copy: Option<(&'a Copied, State)>,
    /// How the stub ended.
    pub(super) ended: &'e mut Ended<'a>,
}

impl Supply<'_, '_> {
    pub(super) fn check(mut self) -> Vec<Finding> {
        let mut out = Vec::new();
        self.depths(&mut out);
        self.whole(&mut out);
        self.registers(&mut out);
        self.frame(&mut out);
        self.known_values(&mut out);
        self.callers_registers(&mut out);
        self.objects(&mut out);
        self.sources(&mut out);
        self.read(&mut out);
        self.twice(&mut out);
        out
    }

    /// Both unwinding rows, both bodies and the table agree on the CFA.
    fn depths(&self, out: &mut Vec<Finding>) {
        let sides =
            [("OLD", self.old, self.translation.old_depth), ("NEW", self.new, self.seen.new_depth)];
        for (which, side, depth) in sides {
            let expected = i64::try_from(depth).unwrap_or(i64::MAX);
            let mut object = |what: String| out.push(Finding::new(Rule::Depth, what));
            match side.point.state.stack_pointer() {
                Some(top) if top == -expected => {}
                Some(top) => object(format!("{which}'s body has rsp at CFA{top:+}, not -{depth}")),
                None => object(format!("{which}'s body leaves the stack pointer unknown")),
            }
            let rbp = side.point.state.general[RBP];
            match side.point.row.as_ref().map(|r| r.cfa) {
                Some(Base::Rsp(n)) if n == expected => {}
                Some(Base::Rsp(n)) => {
                    object(format!("{which}'s row has rsp at CFA-{n}, not -{depth}"))
                }
                Some(Base::Rbp(n)) if rbp == Known::Frame(-n) => {}
                Some(Base::Rbp(n)) => {
                    object(format!(
                        "{which}'s row has rbp at CFA-{n}, its body does not show that"
                    ));
                }
                Some(Base::Other) => object(format!("{which}'s row computes the CFA")),
                None => object(format!("{which} has no unwinding row")),
            }
        }
    }

    /// What makes everything else worth nothing, and what is never carried over.
    fn whole(&self, out: &mut Vec<Finding>) {
        for (which, side) in [("OLD", self.old), ("NEW", self.new)] {
            if let Some(at) = side.function.code.damaged {
                out.push(Finding::new(Rule::Unknown, format!("{which} has no code at {at:#x}")));
            }
            if !side.function.pads_known {
                let what = format!("{which}'s exception table cannot be read");
                out.push(Finding::new(Rule::Unknown, what));
            }
        }
        let demand = &self.new.point.demand;
        if demand.everything {
            let what = "NEW comes to an indirect jump of which nobody knows where it leads";
            out.push(Finding::new(Rule::Unknown, what));
        }
        if demand.hard.other != 0 {
            let what = "NEW may read a mask register, an MMX register or a tile";
            out.push(Finding::new(Rule::Live, what));
        }
        if demand.flags != 0 && !self.translation.flags {
            out.push(Finding::new(Rule::Live, "NEW may read the flags"));
        }
        // A call's result in the x87 stack stays there: no stub touches it.
        let heights = (self.old.point.demand.x87, demand.x87);
        if heights.1 != 0 && !(self.site.kind == SiteKind::Return && heights.0 == heights.1) {
            out.push(Finding::new(Rule::Live, "NEW may read the x87 stack"));
        }
    }

    /// The part of a table's value that goes to some bytes.
    fn supplied(&self, place: Location) -> Option<Value> {
        self.seen.moves.iter().find_map(|step| match (step.to, place) {
            (
                Location::General { number: a, bytes: n },
                Location::General { number: b, bytes: m },
            )
            | (
                Location::Vector { number: a, bytes: n },
                Location::Vector { number: b, bytes: m },
            ) => (a == b && n >= m).then(|| step.from.clone()),
            (Location::Slot { cfa: a, bytes: n }, Location::Slot { cfa: b, bytes: m }) => {
                let within = b.checked_sub(a).filter(|w| *w >= 0)?;
                (within + i64::from(m) <= i64::from(n)).then_some(())?;
                match &step.from {
                    Value::At(Location::Slot { cfa, .. }) => {
                        Some(Value::At(Location::Slot { cfa: cfa.checked_add(within)?, bytes: m }))
                    }
                    other => (within == 0).then(|| other.clone()),
                }
            }
            _ => None,
        })
    }

    fn registers(&mut self, out: &mut Vec<Finding>) {
        let point = self.new.point;
        let results = self.result_registers();
        for number in 0..16 {
            let hard = point.demand.hard.general[usize::from(number)];
            let soft = point.demand.soft.general[usize::from(number)];
            let set = Set::general(number);
            if number == 4 || hard | soft == 0 || !point.reached.defined.has(set) {
                continue;
            }
            let bytes = [1, 2, 4, 8].into_iter().find(|b| u64::from(hard | soft) <= low(*b));
            let bytes = bytes.map_or(8, |b| u8::try_from(b).unwrap_or(8));
            let place = Location::General { number, bytes };
            let passes = hard == 0 && results.has(set) && self.ended_as_begun(place);
            if self.supplied(place).is_none() && !passes {
                out.push(missing(place));
            }
        }
        for number in 0..32 {
            let hard = point.demand.hard.vector[usize::from(number)];
            let soft = point.demand.soft.vector[usize::from(number)];
            let set = Set::vector(number);
            if hard | soft == 0 || !point.reached.defined.has(set) {
                continue;
            }
            let bytes = [4, 8, 16, 32, 64].into_iter().find(|b| hard | soft <= low(*b));
            let bytes = bytes.map_or(64, |b| u8::try_from(b).unwrap_or(64));
            let place = Location::Vector { number, bytes };
            let passes = hard == 0 && results.has(set) && self.ended_as_begun(place);
            if self.supplied(place).is_none() && !passes {
                out.push(missing(place));
            }
        }
    }

    /// Behind a call: where its result is. Such a register is nobody else's, and may go through to a
    /// call of unknown prototype without being named.
    fn result_registers(&self) -> Set {
        let none = Set::default();
        match (self.site.kind, self.callee(self.new)) {
            (SiteKind::Return, Some(callee)) => results(self.new.calls.prototype(&callee)),
            _ => none,
        }
    }

    fn ended_as_begun(&mut self, place: Location) -> bool {
        self.ended.kept(&place)
    }

    /// The callee of the call before a point.
    fn callee(&self, side: Side<'_>) -> Option<Callee> {
        let before = side.point.index.checked_sub(1)?;
        let step = side.function.code.steps.get(before)?;
        is_call(&step.instruction).then_some(())?;
        side.function.values.callees.get(&before).cloned()
    }

    /// Whether a byte of NEW's frame may hold a value at the counterpart.
    fn may_hold(&self, offset: i64) -> bool {
        let reached = &self.new.point.reached;
        let touched = self.new.function.effects.bytes.index(offset);
        if touched.is_some_and(|n| reached.touched.has(n)) {
            return true;
        }
        // Through an address: that of the nearest object below, as far as offsets tell objects apart.
        let offsets = &self.new.function.reach.offsets;
        let after = offsets.partition_point(|o| *o <= offset);
        after.checked_sub(1).is_some_and(|nearest| reached.taken.has(nearest))
    }

    fn in_object(&self, offset: i64) -> bool {
        self.seen.objects.iter().any(|(start, end)| (*start..*end).contains(&offset))
    }

    fn frame(&mut self, out: &mut Vec<Finding>) {
        let bytes = &self.new.function.effects.bytes;
        let top = -i64::try_from(self.seen.new_depth).unwrap_or(i64::MAX);
        let mut gaps: Vec<Range<i64>> = Vec::new();
        for offset in bytes.offsets() {
            let live = bytes.index(offset).is_some_and(|n| self.new.point.demand.frame.has(n));
            // The return address is where it was. Below the stack pointer a call leaves nothing.
            let returned = self.site.kind == SiteKind::Return && offset < top;
            if !live || (-8..0).contains(&offset) || returned {
                continue;
            }
            let right = match offset {
                0.. => self.translation.lowered == 0 && self.argument(offset),
                _ => !self.may_hold(offset) || self.in_object(offset) || self.supplied_byte(offset),
            };
            if right {
                continue;
            }
            match gaps.last_mut() {
                Some(last) if last.end == offset => last.end += 1,
                _ => gaps.push(offset..offset + 1),
            }
        }
        for gap in gaps {
            let (rule, what) = match gap.start {
                0.. => (Rule::Arguments, "which OLD need not have there"),
                _ => (Rule::Live, "which nothing supplies"),
            };
            let what = format!("NEW may read CFA{:+} to CFA{:+}, {what}", gap.start, gap.end);
            out.push(Finding::new(rule, what));
        }
    }

    fn supplied_byte(&self, offset: i64) -> bool {
        self.supplied(Location::Slot { cfa: offset, bytes: 1 }).is_some()
            || self.seen.moves.iter().any(|m| match m.to {
                Location::Slot { cfa, bytes } => {
                    (cfa..cfa.saturating_add(i64::from(bytes))).contains(&offset)
                }
                _ => false,
            })
    }

    /// Whether OLD has at an offset from the CFA up what NEW has: the signatures are the same, or OLD
    /// reads it, too; and if NEW may have written there, OLD may have.
    fn argument(&self, offset: i64) -> bool {
        let number = |side: Side<'_>| side.function.effects.bytes.index(offset);
        let same =
            self.old.function.own.is_some() && self.old.function.own == self.new.function.own;
        let reads = number(self.old).is_some_and(|n| self.old.function.effects.read.has(n));
        let written =
            |side: Side<'_>| number(side).is_some_and(|n| side.point.reached.touched.has(n));
        (same || reads) && (!written(self.new) || written(self.old))
    }

    /// What a value is known to be, addresses of the frame as NEW tells them.
    fn known(&self, value: &Value) -> Known {
        match self.known_in_old(value) {
            Known::Frame(at) => Known::Frame(at.saturating_add_unsigned(self.translation.lowered)),
            other => other,
        }
    }

    fn known_in_old(&self, value: &Value) -> Known {
        let state = &self.old.point.state;
        match value {
            Value::Constant(number) => Known::Number(*number),
            Value::Frame(offset) => Known::Frame(*offset),
            Value::Canary => Known::Canary,
            Value::At(Location::General { number, bytes: 8 }) => {
                state.general.get(usize::from(*number)).copied().unwrap_or(Known::Nothing)
            }
            Value::At(Location::Slot { cfa, bytes: 8.. }) => {
                let saved = SAVED.into_iter().find(|r| {
                    let row = self.old.point.row.as_ref();
                    row.is_some_and(|row| row.saved[usize::from(*r)] == Saved::Slot(*cfa))
                });
                let found = state.slots.get(cfa).copied();
                found.or(saved.map(Known::Caller)).unwrap_or(Known::Nothing)
            }
            _ => Known::Nothing,
        }
    }

    /// Where NEW's body leaves no choice, the table makes none.
    fn known_values(&self, out: &mut Vec<Finding>) {
        let point = self.new.point;
        // A copy has addresses of its own.
        let state = self.copy.as_ref().map_or(&point.state, |(_, state)| state);
        for number in 0..16 {
            let demand = point.demand.hard.general[usize::from(number)];
            let known = state.general[usize::from(number)];
            if number != 4 && demand != 0 {
                let bytes = 8;
                self.known_value(Location::General { number, bytes }, known, demand, out);
            }
        }
        let bytes = &self.new.function.effects.bytes;
        for (cfa, known) in &state.slots {
            let mut demand = 0;
            for byte in 0..8 {
                let number = bytes.index(cfa.saturating_add(byte));
                demand |= u8::from(number.is_some_and(|n| point.demand.frame.has(n))) << byte;
            }
            if demand != 0 && *cfa < -8 && !self.in_object(*cfa) {
                self.known_value(Location::Slot { cfa: *cfa, bytes: 8 }, *known, demand, out);
            }
        }
    }

    fn known_value(&self, place: Location, known: Known, demand: u8, out: &mut Vec<Finding>) {
        // What is not supplied, or not whole, is objected to elsewhere.
        let Some(value) = self.supplied(place) else { return };
        let given = self.known(&value);
        let object = |rule, what: &str| {
            Finding::new(rule, format!("{} is {what}, not {}", name(&place), source(&value)))
        };
        match known {
            Known::Caller(number) if given != known => {
                let what = format!("the caller's {}", general_name(number));
                out.push(object(Rule::CallersValue, &what));
            }
            Known::Frame(offset) if given != known => {
                out.push(object(Rule::FrameAddress, &format!("CFA{offset:+}")));
            }
            Known::Canary if given != known => {
                out.push(object(Rule::FrameAddress, "the stack protector's canary"));
            }
            Known::Number(number) => {
                let live = (0..8).filter(|b| demand >> b & 1 != 0);
                let mask: u64 = live.map(|b| 0xff << (8 * b)).sum();
                if let Known::Number(other) = given
                    && (number ^ other) & mask != 0
                {
                    out.push(object(Rule::Constant, &format!("{number:#x}")));
                }
            }
            _ => {}
        }
    }

    /// Callee-saved registers go from where OLD's row has them to where NEW's row has them.
    fn callers_registers(&self, out: &mut Vec<Finding>) {
        let Some(row) = &self.new.point.row else { return };
        let top = -i64::try_from(self.seen.new_depth).unwrap_or(0);
        if let Base::Rbp(n) = row.cfa {
            let rbp = self.supplied(Location::General { number: 5, bytes: 8 });
            if rbp.is_none_or(|v| self.known(&v) != Known::Frame(-n)) {
                let what = format!("NEW's row needs rbp to be CFA-{n}");
                out.push(Finding::new(Rule::FrameAddress, what));
            }
        }
        for number in SAVED {
            let restored =
                self.new.point.state.general[usize::from(number)] == Known::Caller(number);
            let place = match row.saved[usize::from(number)] {
                // The epilogue has it back already, and the row was not told.
                Saved::Slot(cfa) if cfa < top && restored => continue,
                Saved::Slot(cfa) => Location::Slot { cfa, bytes: 8 },
                // In the register: known values and liveness see to it.
                Saved::Register => continue,
                Saved::Other => {
                    let what = format!("NEW's row computes the caller's {}", general_name(number));
                    out.push(Finding::new(Rule::CallersValue, what));
                    continue;
                }
            };
            let value = self.supplied(place);
            if value.is_none_or(|v| self.known(&v) != Known::Caller(number)) {
                let what = format!(
                    "{} is not given the caller's {}, which NEW's row has there",
                    name(&place),
                    general_name(number)
                );
                out.push(Finding::new(Rule::CallersValue, what));
            }
        }
    }

    /// What has its address taken in NEW stays where it is, and is the same thing in OLD.
    fn objects(&mut self, out: &mut Vec<Finding>) {
        let new = &self.new.function.reach.offsets;
        let old = &self.old.function.reach.offsets;
        let both = self.translation.objects.iter().zip(&self.seen.objects);
        for (here, there) in both {
            for (which, offsets, (start, end)) in [("OLD", old, here), ("NEW", new, there)] {
                if !offsets.iter().any(|o| (start..=end).contains(&o)) {
                    let what = format!("{which} takes no address in CFA{start:+} to CFA{end:+}");
                    out.push(Finding::new(Rule::Object, what));
                }
            }
            for (which, side, (start, end)) in [("OLD", self.old, here), ("NEW", self.new, there)] {
                let private = side.point.state.slots.iter().find(|(at, value)| {
                    matches!(value, Known::Caller(_) | Known::Canary) && (start..end).contains(at)
                });
                if let Some((at, _)) = private {
                    let what = format!(
                        "{which} has something else at CFA{at:+}, in CFA{start:+} to CFA{end:+}"
                    );
                    out.push(Finding::new(Rule::Object, what));
                }
            }
        }
        let top = -i64::try_from(self.seen.new_depth).unwrap_or(i64::MAX);
        for (position, &offset) in new.iter().enumerate() {
            // One before the lowest object is an address that compilers form, too.
            let below = (top - 16..top).contains(&offset);
            let offset = if below { top } else { offset };
            let named = self.seen.objects.iter().any(|(s, e)| (*s..=*e).contains(&offset));
            // From the CFA up everything stays.
            if named || offset >= -8 {
                continue;
            }
            if self.new.point.reached.taken.has(position) {
                let in_old = copies::in_old(offset, self.translation, self.copied());
                let same = below || old.binary_search(&in_old).is_ok();
                if !(same && self.ended.untouched(in_old)) {
                    let what = format!(
                        "somebody may know the address CFA{offset:+} of NEW's frame, which no object \
                         of the table has"
                    );
                    out.push(Finding::new(Rule::Object, what));
                }
            }
        }
    }

    /// A source is there whatever returns at the site, if NEW has a value in its place when something
    /// returns there. (Other paths may lead to the same point.)
    fn sources(&self, out: &mut Vec<Finding>) {
        // The personality routine's results are in rax and rdx.
        let landing = CALLEE_SAVED.with(Set::general(0)).with(Set::general(2));
        let (kept, defined) = match self.site.kind {
            SiteKind::Loop | SiteKind::Point => return,
            SiteKind::LandingPad => (landing, landing),
            SiteKind::Return => {
                let (old, new) = (self.callee(self.old), self.callee(self.new));
                let (Some(old), Some(new)) = (old, new) else { return };
                // What waits there may be replaced itself, and return from its NEW body.
                let clobbers = self.old.calls.clobbers(&old).with(self.new.calls.clobbers(&new));
                let results = results(self.old.calls.prototype(&old));
                let function = self.new.function.view(self.new.calls);
                let call = self.new.point.index.saturating_sub(1);
                let behind = self.new.function.reach.behind(function, call);
                let defined = behind.map_or(Set(u64::MAX), |r| r.defined);
                (Set(u64::MAX).without(clobbers).with(results), defined)
            }
        };
        for step in &self.translation.moves {
            let mut registers = Set::default();
            mentioned(&step.from, &mut |place| {
                registers = registers.with(match *place {
                    Location::General { number, .. } => Set::general(number),
                    Location::Vector { number, .. } => Set::vector(number),
                    Location::Slot { .. } => Set::default(),
                });
            });
            let wanted = match step.to {
                Location::General { number, .. } => defined.has(Set::general(number)),
                Location::Vector { number, .. } => defined.has(Set::vector(number)),
                Location::Slot { .. } => true,
            };
            if wanted && registers.without(kept) != Set::default() {
                let what = format!(
                    "the source of {} is in a register that whatever comes before may change: {}",
                    name(&step.to),
                    source(&step.from)
                );
                out.push(Finding::new(Rule::Source, what));
            }
        }
    }

    /// A source is what OLD still reads: a frame that an earlier update carried to this point, whose NEW is this one's
    /// OLD, has been given no more.
    fn read(&self, out: &mut Vec<Finding>) {
        for step in &self.translation.moves {
            let wanted = demanded(self.new, &self.seen_by_new(step.to));
            let mut unread = None;
            mentioned(&step.from, &mut |place| {
                let wanted = match step.from {
                    Value::At(_) => wanted,
                    // Any byte of the result may be made of any of these.
                    _ if wanted == 0 => 0,
                    _ => low(size(place)),
                };
                let is_read = wanted & !demanded(self.old, place) == 0;
                if !is_read && !self.is_the_callers(place) {
                    unread.get_or_insert(*place);
                }
            });
            if let Some(place) = unread {
                let (place, to) = (name(&place), name(&step.to));
                let what = format!("OLD does not read all of {place}, the source of {to}");
                out.push(Finding::new(Rule::Source, what));
            }
        }
    }

    /// Whether a place of OLD's is the caller's, or holds what is the caller's as OLD's row has it: that is there in any
    /// frame.
    fn is_the_callers(&self, place: &Location) -> bool {
        let Some(row) = &self.old.point.row else { return false };
        match *place {
            Location::General { number, .. } => {
                let number = usize::from(number);
                let known = self.old.point.state.general.get(number);
                row.saved.get(number) == Some(&Saved::Register)
                    && matches!(known, Some(Known::Caller(own)) if usize::from(*own) == number)
            }
            Location::Slot { cfa, bytes } if cfa >= -8 => {
                let touched = &self.old.point.reached.touched;
                let end = cfa.saturating_add(bytes.into());
                let mut numbers =
                    (cfa..end).filter_map(|at| self.old.function.effects.bytes.index(at));
                !numbers.any(|number| touched.has(number))
            }
            Location::Slot { cfa, .. } => row.saved.contains(&Saved::Slot(cfa)),
            Location::Vector { .. } => false,
        }
    }

    /// A place of NEW's as NEW calls it.
    fn seen_by_new(&self, place: Location) -> Location {
        copies::seen(place, self.translation, self.copied())
    }

    fn copied(&self) -> Option<&Copied> {
        self.copy.as_ref().map(|(copy, _)| *copy)
    }

    /// In a function that returns twice a frame may be translated twice: every slot stays in place.
    fn twice(&self, out: &mut Vec<Finding>) {
        let twice = [self.old, self.new].into_iter().any(|side| {
            side.function.values.callees.values().any(|callee| match callee {
                Callee::Import(name) => returns_twice(name),
                Callee::Function(id) => {
                    side.calls.image.function(*id).names.iter().any(|n| returns_twice(n))
                }
                _ => false,
            })
        });
        if !twice {
            return;
        }
        if self.translation.lowered > 0 {
            out.push(Finding::new(Rule::Twice, "NEW's frame stands lower"));
        }
        for step in &self.translation.moves {
            let mut moved = false;
            mentioned(&step.from, &mut |place| {
                let stays = match (place, &step.to) {
                    (Location::Slot { cfa: a, .. }, Location::Slot { cfa: b, .. }) => {
                        a == b && matches!(step.from, Value::At(_))
                    }
                    (Location::Slot { .. }, _) => false,
                    _ => true,
                };
                moved |= !stays;
            });
            if moved {
                let what =
                    format!("{} comes from another slot: {}", name(&step.to), source(&step.from));
                out.push(Finding::new(Rule::Twice, what));
            }
        }
    }
}

fn size(place: &Location) -> usize {
    match *place {
        Location::General { bytes, .. } | Location::Vector { bytes, .. } => bytes.into(),
        Location::Slot { bytes, .. } => usize::try_from(bytes).unwrap_or(usize::MAX),
    }
}

/// Which bytes of a place a side may read at its point, by bits.
fn demanded(side: Side<'_>, place: &Location) -> u64 {
    let demand = &side.point.demand;
    let read = match *place {
        Location::General { number, .. } => {
            let of = |all: &[u8; 16]| all.get(usize::from(number)).copied().unwrap_or(0);
            u64::from(of(&demand.hard.general) | of(&demand.soft.general))
        }
        Location::Vector { number, .. } => {
            let of = |all: &[u64; 32]| all.get(usize::from(number)).copied().unwrap_or(0);
            of(&demand.hard.vector) | of(&demand.soft.vector)
        }
        Location::Slot { cfa, bytes } => {
            let numbers = &side.function.effects.bytes;
            let is_read = |byte: &u32| {
                let number = numbers.index(cfa.saturating_add((*byte).into()));
                number.is_some_and(|n| demand.frame.has(n))
            };
            (0..bytes.min(64)).filter(is_read).map(|byte| 1u64 << byte).sum()
        }
    };
    read & low(size(place))
}

fn missing(place: Location) -> Finding {
    Finding::new(Rule::Live, format!("NEW may read {}, which nothing supplies", name(&place)))
}

/// Every location that a value is made of.
fn mentioned(value: &Value, each: &mut impl FnMut(&Location)) {
    match value {
        Value::At(place) => each(place),
        Value::Binary { left, right, .. } => {
            mentioned(left, each);
            mentioned(right, each);
        }
        Value::ZeroExtend { value, .. } | Value::SignExtend { value, .. } => mentioned(value, each),
        Value::Constant(_) | Value::Address { .. } | Value::Frame(_) | Value::Canary => {}
    }
}

fn returns_twice(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "setjmp",
        "_setjmp",
        "sigsetjmp",
        "__sigsetjmp",
        "vfork",
        "__vfork",
        "getcontext",
        "savectx",
    ];
    NAMES.contains(&name)
}
