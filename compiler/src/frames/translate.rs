//! One site: every location that NEW may read from there on, with its source in OLD's frame.
//!
//! Takes the relation's states at a matched pair, liveness of both sides, objects on the stack, and what
//! the debug information says; gives a [`Translation`], or every reason why there is none. The relation
//! comes first; variables second, where it does not know; where both know and disagree, nobody is
//! believed.

use super::beginning::Beginnings;
use super::entry::Entry;
use super::overdue::Earlier;
use super::source::{Named, Sources};
use super::state::State;
use super::value::{Node, Place, Side, Value, Values};
use super::variables::{Answer, Variables};
use crate::machine::live::{Live, StackObject};
use dsu_patch_format::frames::{Location, Move, Proof, Translation, Value as Source};
use dsu_patch_format::plan::SiteKind;

/// A pair of points to be translated, with all that is known of it.
pub struct Pending<'a> {
    /// OLD's point as linked.
    pub at: u64,
    /// NEW's point as linked.
    pub to: u64,
    /// What sort of point.
    pub kind: SiteKind,
    /// What both sides hold there.
    pub state: &'a State,
    /// What both sides held on each way there.
    pub arrivals: &'a [State],
    /// What OLD's code may read from there on.
    pub old_live: &'a Live,
    /// What NEW's code may read from there on.
    pub new_live: &'a Live,
    /// Objects of OLD's frame whose address is taken.
    pub old_objects: &'a [StackObject],
    /// Those of NEW's frame, and whether they may be in use there.
    pub new_objects: Vec<(&'a StackObject, bool)>,
    /// The debug information's view.
    pub variables: &'a Variables<'a>,
    /// What both sides held when the function was entered.
    pub entry: &'a Entry,
    /// Whether a step of NEW is a call.
    pub is_new_call: &'a dyn Fn(u32) -> bool,
    /// Behind a call: caller-saved registers that whoever returns there keeps.
    pub kept: &'a dyn Fn(Place) -> bool,
    /// Addresses as NEW names them.
    pub named: &'a Named,
    /// Slots where unwinders look for the caller's registers in OLD, by the registers' numbers.
    pub old_saved: &'a [(u8, i64)],
    /// Those in NEW.
    pub new_saved: &'a [(u8, i64)],
    /// What values of NEW began with before its loops.
    pub beginnings: Beginnings<'a>,
    /// The points that both came through before.
    pub earlier: Vec<Earlier<'a>>,
    /// Locals that only NEW has may begin anew.
    pub init_new_locals: bool,
    /// So many bytes NEW's frame stands lower than OLD's.
    pub lowered: u64,
}

/// Why a point cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// In words, with the variable and its line where there is one.
    pub text: String,
    /// A local variable that only NEW has, and nothing else.
    pub new_local: bool,
    /// An object that keeps its address if NEW's frame stands lower by so many bytes.
    pub lower: Option<u64>,
    /// An object that is elsewhere in NEW's frame.
    pub moved: bool,
}

impl Obstacle {
    /// Something of which both builds have the counterpart.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), new_local: false, lower: None, moved: false }
    }

    /// Objects are elsewhere in NEW's frame, and there is no copy of NEW's code for that.
    pub fn uncopied(why: &str) -> Self {
        Self::new(format!("NEW's code cannot be given other displacements: {why}"))
    }

    /// About a variable; `new_local` says that only NEW has it.
    fn of_local(text: String, new_local: bool) -> Self {
        Self { new_local, ..Self::new(text) }
    }
}

/// Makes the table of one site.
///
/// # Errors
/// All obstacles.
pub fn translate(values: &mut Values, site: &Pending<'_>) -> Result<Translation, Vec<Obstacle>> {
    let mut obstacles = Vec::new();
    let mut depth = |machine: &super::state::Machine, side: &str| {
        let top = values.as_frame(machine.general(4)).and_then(|top| u64::try_from(-top).ok());
        if top.is_none() {
            obstacles.push(Obstacle::new(format!(
                "{side}'s frame has no fixed size here (alloca, a variable-length array, or a realigned stack)"
            )));
        }
        top
    };
    let (old_depth, new_depth) = (depth(&site.state.old, "OLD"), depth(&site.state.new, "NEW"));
    let (Some(old_depth), Some(new_depth)) = (old_depth, new_depth) else { return Err(obstacles) };
    if let Some(what) = site.new_live.other {
        obstacles.push(Obstacle::new(format!("NEW has a live value in {what} here")));
    }
    let flags = site.new_live.flags;
    if flags && !(site.old_live.flags && site.state.old.flags() == site.state.new.flags()) {
        obstacles.push(Obstacle::new("NEW tests flags here that OLD does not have"));
    }
    let objects = objects(site, (old_depth, new_depth), &mut obstacles);
    let usable = |place| usable(site, place);
    let mut table = Table {
        site,
        sources: Sources::new(values, site.state, site.named, &site.beginnings, usable),
        moves: Vec::new(),
        by_code: Vec::new(),
        by_name: Vec::new(),
        obstacles,
    };
    table.saved();
    table.registers();
    table.slots();
    table.rounds();
    let Table { mut moves, obstacles, .. } = table;
    if !obstacles.is_empty() {
        return Err(obstacles);
    }
    moves.sort_by_key(|m| m.to);
    Ok(Translation { old_depth, new_depth, lowered: site.lowered, flags, moves, objects })
}

/// How many low bytes of a place of OLD hold what OLD's code put there, in every frame that is at the point: also in one
/// that an earlier update has carried there, which has no more than what OLD's code still reads.
fn usable(site: &Pending<'_>, place: Place) -> u8 {
    let live = |bytes: u8| u8::try_from(bytes.trailing_ones()).unwrap_or(8);
    let held = held_by(site, place);
    match place {
        Place::General(n) => held.min(live(site.old_live.general[usize::from(n)])),
        Place::Lane(n, lane) => {
            let read = site.old_live.vector[usize::from(n)] >> (8 * u32::from(lane));
            held.min(live(read.to_le_bytes()[0]))
        }
        _ => held,
    }
}

/// The same of frames that are OLD's from the beginning.
fn held_by(site: &Pending<'_>, place: Place) -> u8 {
    let behind_call = matches!(site.kind, SiteKind::Return | SiteKind::LandingPad);
    match place {
        Place::General(4) | Place::Flags | Place::Memory => 0,
        // Behind a call only results and callee-saved registers: another caller-saved one may be
        // kept by the callee that OLD called, but not by the one that returns (DESIGN section 5).
        Place::General(n)
            if behind_call && !super::source::is_callee_saved(n) && !matches!(n, 0 | 2) =>
        {
            if (site.kept)(place) { 8 } else { 0 }
        }
        Place::Lane(n, _) if behind_call && n > 1 => {
            if (site.kept)(place) {
                8
            } else {
                0
            }
        }
        Place::General(_) | Place::Lane(..) => 8,
        // Outgoing arguments are the callee's to overwrite: only what OLD itself still reads counts. Of a slot that is
        // written as a whole it may read the lower part only.
        Place::Slot(at, bytes) => {
            let live = |n: &u8| {
                let end = at + i64::from(*n);
                site.old_live.slots.iter().any(|r| r.start <= at && end <= r.end)
            };
            [8, 4, 2, 1].into_iter().filter(|n| *n <= bytes).find(live).unwrap_or(0)
        }
    }
}

/// Objects whose address may be known: they stay where they are, or the point is blind.
fn objects(
    site: &Pending<'_>,
    depths: (u64, u64),
    obstacles: &mut Vec<Obstacle>,
) -> Vec<(i64, i64)> {
    let mut stay = Vec::new();
    for (object, in_use) in &site.new_objects {
        let name = words_of(object);
        let partner = if *in_use { partner(site, object) } else { None };
        let Some(partner) = partner else {
            stay.extend(idle(site, object, depths));
            continue;
        };
        match partner {
            // Arguments on the stack are the caller's: they stay in any case.
            Ok(extent) if extent == object.extent && extent.start >= 0 => {}
            Ok(extent) if extent == object.extent => stay.push((extent.start, extent.end)),
            Ok(extent) => {
                let (here, there) = (object.extent.start, extent.start);
                let text = format!(
                    "{name}, whose address is taken, is at another place of NEW's frame (CFA{here:+} instead \
                     of CFA{there:+})"
                );
                let lower = u64::try_from(here - there).ok();
                obstacles.push(Obstacle { lower, moved: true, ..Obstacle::new(text) });
            }
            Err(why) => obstacles.push(Obstacle::new(why)),
        }
    }
    stay.sort_unstable();
    stay.dedup();
    stay
}

/// Whether something whose address may be known is out of scope, which OLD has at another place: only who proves that nobody
/// knows the address any more can say that such a point may be carried over.
pub(super) fn leaves_behind(site: &Pending<'_>) -> bool {
    let is_elsewhere = |object: &StackObject| {
        let named = |o: &&StackObject| o.name.is_some() && o.name == object.name;
        site.old_objects.iter().find(named).is_some_and(|o| o.extent != object.extent)
    };
    let mut used = site.new_objects.iter().filter(|(_, in_use)| *in_use);
    used.any(|(object, _)| is_elsewhere(object) && partner(site, object).is_none())
}

/// An object that is in nobody's hands, and that OLD has in the same place: leaving it there costs
/// nothing, and code that is never taken from here on, but might be for all the checker knows, finds it.
fn idle(site: &Pending<'_>, object: &StackObject, depths: (u64, u64)) -> Option<(i64, i64)> {
    let extent = &object.extent;
    let same = |o: &StackObject| o.extent == *extent && o.name == object.name;
    let inside = extent.start.unsigned_abs() <= depths.0.min(depths.1) && extent.end <= -8;
    let stays = object.name.is_some() && inside && site.old_objects.iter().any(same);
    stays.then_some((extent.start, extent.end))
}

fn words_of(object: &StackObject) -> String {
    match &object.name {
        Some(name) => format!("the local `{name}`"),
        None => {
            let bytes = object.extent.end - object.extent.start;
            format!("an object of {bytes} bytes on the stack")
        }
    }
}

/// Where in OLD's frame an object of NEW's is. `None`: it is nobody's any more.
fn partner(
    site: &Pending<'_>,
    object: &StackObject,
) -> Option<Result<std::ops::Range<i64>, String>> {
    let extent = &object.extent;
    let is_named = |o: &&StackObject| o.name.is_some() == object.name.is_some();
    let alike = site.old_objects.iter().filter(is_named).find(|o| o.extent == *extent);
    let known = site.variables.object_partner(extent.clone(), site.at, site.to);
    let is_visible = site.variables.is_visible(extent, site.to);
    // Where NEW's frame was given its place to have objects in the same one, that they are says nothing.
    let is_placed = site.lowered > 0;
    let is_vouched_for = object.name.is_none() || is_visible || !is_placed;
    match (known, alike) {
        (Ok(partner), _) => Some(Ok(partner)),
        // Several variables share the memory, or temporaries without a name do: what is in scope must be
        // in the same place of OLD's.
        (Err(_), Some(same))
            if is_vouched_for && site.variables.stay(extent, site.at, site.to) =>
        {
            Some(Ok(same.extent.clone()))
        }
        // A variable out of scope is in nobody's hands any more (C17 6.2.4).
        (Err(_), _) if object.name.is_some() && !is_visible => (object.shared && is_placed).then(|| {
            Err(format!(
                "something without a name, whose address is taken, shares the place of {} in NEW's frame",
                words_of(object)
            ))
        }),
        (Err(why), _) if object.name.is_some() => Some(Err(why)),
        (Err(_), _) => Some(Err(format!(
            "{}, whose address is taken, has no counterpart in OLD",
            words_of(object)
        ))),
    }
}

struct Table<'a, 'v> {
    site: &'a Pending<'a>,
    sources: Sources<'v>,
    moves: Vec<Move>,
    /// What of NEW is known by the code alone, and where NEW keeps it.
    by_code: Vec<(Location, Value)>,
    /// What of NEW is known by the name of a variable alone.
    by_name: Vec<Value>,
    obstacles: Vec<Obstacle>,
}

impl Table<'_, '_> {
    fn registers(&mut self) {
        let (live, state) = (self.site.new_live, &self.site.state.new);
        for number in 0..16u8 {
            let value = state.general(number);
            let mut bytes = covering(u64::from(live.general[usize::from(number)]));
            // A frame pointer that no code reads again is one to unwinders (psABI 3.4.1).
            if number == 5 && self.sources.values().as_frame(value).is_some() {
                bytes = 8;
            }
            if bytes > 0 && number != 4 && !self.is_rest(value, number) {
                self.supply(Location::General { number, bytes: bytes.min(8) }, &[value]);
            }
        }
        for number in 0..32u8 {
            let bytes = covering(live.vector[usize::from(number)]).max(4);
            if live.vector[usize::from(number)] == 0 {
                continue;
            }
            let to = Location::Vector { number, bytes };
            if number >= 16 || bytes > 32 {
                self.obstacles
                    .push(Obstacle::new(format!("NEW has a live value in zmm{number} here")));
                continue;
            }
            let lanes: Vec<Value> =
                (0..bytes.div_ceil(8)).map(|lane| state.lane(number, lane)).collect();
            self.supply(to, &lanes);
        }
    }

    /// Whether a register holds what some call left there, which no code means to read: it only looks
    /// live because the arguments of a later call are not known.
    fn is_rest(&mut self, value: Value, number: u8) -> bool {
        let caller_saved = !super::source::is_callee_saved(number) && !matches!(number, 0 | 2);
        match *self.sources.values().node(value) {
            Node::Given(_, Some(Side::New), step, Place::General(_)) => {
                caller_saved && (self.site.is_new_call)(step)
            }
            _ => false,
        }
    }

    fn slots(&mut self) {
        let known: Vec<(i64, u8, Value)> = self.site.state.new.slots().collect();
        for range in &self.site.new_live.slots {
            let mut at = range.start;
            while at < range.end {
                let found = known
                    .iter()
                    .find(|(start, bytes, _)| *start <= at && at < start + i64::from(*bytes));
                match found {
                    // Pushed to align the stack, and taken for an argument of a call of unknown prototype.
                    Some((start, bytes, value)) if self.is_idle(*start, *value) => {
                        let end = range.end.min(start + i64::from(*bytes));
                        self.anything(at..end);
                        at = end;
                    }
                    Some((start, bytes, value)) => {
                        let wanted = (range.end - start).min(i64::from(*bytes));
                        let bytes = covering_bytes(u64::try_from(wanted).unwrap_or(8)).min(*bytes);
                        self.supply(
                            Location::Slot { cfa: *start, bytes: u32::from(bytes) },
                            &[*value],
                        );
                        at = start + i64::from(bytes).max(1);
                    }
                    None => {
                        let next = known.iter().map(|k| k.0).filter(|k| *k > at).min();
                        let end = next.map_or(range.end, |n| n.min(range.end));
                        self.unwritten(at..end);
                        at = end;
                    }
                }
            }
        }
    }

    /// Whether a slot holds what no code means to read, and unwinders do not either.
    fn is_idle(&mut self, start: i64, value: Value) -> bool {
        let is_it = |m: &Move| matches!(m.to, Location::Slot { cfa, .. } if cfa == start);
        if self.moves.iter().any(is_it) {
            return false;
        }
        match *self.sources.values().node(value) {
            Node::Entry(place) => self.site.entry.is_idle(place),
            _ => false,
        }
    }

    /// A part of the frame of which nothing depends on what is there.
    fn anything(&mut self, slots: std::ops::Range<i64>) {
        let mut at = slots.start;
        while at < slots.end {
            let left = slots.end - at;
            let bytes = [8u32, 4, 2, 1].into_iter().find(|n| i64::from(*n) <= left).unwrap_or(1);
            let to = Location::Slot { cfa: at, bytes };
            self.moves.push(Move { to, from: Source::Constant(0), proof: Proof::Remade });
            at += i64::from(bytes);
        }
    }

    /// What the caller had in its registers is to be found where NEW's unwind rows say, also where NEW never
    /// returns and reads it itself no more.
    fn saved(&mut self) {
        let site = self.site;
        for (number, at) in site.new_saved {
            let to = Location::Slot { cfa: *at, bytes: 8 };
            let values = self.sources.values();
            let callers = values.intern(Node::Entry(Place::General(*number)));
            let value = site.state.new.slot(values, *at, 8).unwrap_or(callers);
            self.supply(to, &[value]);
        }
    }

    /// Where OLD has what its caller had in a register that callees keep: in the slot that its unwind rows
    /// name, if they name one, and not in the register, though that may still be the same.
    fn callers(&mut self, value: Value) -> Option<Source> {
        let number = match self.sources.values().node(value) {
            Node::Entry(Place::General(n)) if super::source::is_callee_saved(*n) => *n,
            _ => return None,
        };
        let (_, cfa) = *self.site.old_saved.iter().find(|(n, _)| *n == number)?;
        let held = self.site.state.old.slot(self.sources.values(), cfa, 8)?;
        (held == value).then_some(Source::At(Location::Slot { cfa, bytes: 8 }))
    }

    /// Finds the source of a location of whose value NEW's state knows the lanes.
    fn supply(&mut self, to: Location, lanes: &[Value]) {
        if self.moves.iter().any(|m| m.to == to) {
            return;
        }
        let bytes = bytes_of(to);
        let callers = match lanes {
            [one] if bytes == 8 => self.callers(*one),
            _ => None,
        };
        let proved = match lanes {
            _ if callers.is_some() => callers.map(|from| (from, Proof::CalleeSaved)),
            [one] => self.sources.of(*one, bytes, to),
            _ => self.sources.of_lanes(lanes, bytes, to),
        };
        let solved = self.sources.was_solved();
        let named = self.site.variables.source(self.site.at, self.site.to, to);
        match (proved, named) {
            (Some((from, proof)), Answer::Found { value, name, .. }) => {
                let agrees = match lanes {
                    _ if value == from => Some(true),
                    [one] => self.sources.agrees(*one, bytes, &value),
                    _ => None,
                };
                let contradicts = agrees == Some(false);
                if agrees != Some(true) {
                    self.by_code.extend(lanes.iter().map(|value| (to, *value)));
                }
                // What OLD has made of something differently is in its memory, too: a buffer's length.
                if contradicts && solved {
                    self.obstacles.push(Obstacle::new(format!(
                        "variable `{name}` has not the same value in both builds when they come here"
                    )));
                    return;
                }
                if contradicts && proof == Proof::Equal {
                    self.obstacles.push(Obstacle::new(format!(
                        "the debug information of variable `{name}` contradicts the code"
                    )));
                    return;
                }
                let proof = if proof == Proof::Equal { Proof::EqualVariable(name) } else { proof };
                self.moves.push(Move { to, from, proof });
            }
            (Some((from, proof)), _) => {
                self.by_code.extend(lanes.iter().map(|value| (to, *value)));
                self.moves.push(Move { to, from, proof });
            }
            (None, Answer::Unavailable { name, why, new_local: true }) => {
                self.begin(to, lanes, name, why);
            }
            (None, answer) => {
                self.by_name.extend(lanes);
                self.named(to, answer);
            }
        }
    }

    /// Where one build goes a loop's round while the other goes several, both count in step all the same. What they
    /// count then shows in what else goes from round to round: that is not the same.
    fn rounds(&mut self) {
        let values = self.sources.values();
        let meets = |counted: &Value, other: &Value| {
            values.depends(*counted).iter().any(|point| {
                values.are_in_step(*point)
                    && values.depends_on(*other, *point)
                    && values.goes_around(*counted, *point)
            })
        };
        let is_open = |value: &Value| self.by_name.iter().any(|other| meets(value, other));
        for (to, _) in self.by_code.iter().filter(|(_, value)| is_open(value)) {
            self.obstacles.push(Obstacle::new(format!(
                "a value without a name that NEW keeps in {} has no proven source in OLD: the builds may not go \
                 through the same rounds of a loop",
                words(*to)
            )));
        }
    }

    /// A local that only NEW has: as it begins, if it does so with one number and the user allows it.
    fn begin(&mut self, to: Location, lanes: &[Value], name: String, why: String) {
        let (site, bytes) = (self.site, bytes_of(to));
        let number = match lanes {
            [one] => site.beginnings.number(self.sources.values(), *one, bytes),
            _ => None,
        };
        match number {
            Some(number) if site.init_new_locals => {
                let (from, proof) = (Source::Constant(number), Proof::NewLocal(name));
                self.moves.push(Move { to, from, proof });
            }
            Some(number) => {
                let text = format!("{why}; with --init-new-locals it begins with {number} here");
                self.obstacles.push(Obstacle::of_local(text, true));
            }
            None => self.obstacles.push(Obstacle::of_local(why, true)),
        }
    }

    /// A part of the frame that NEW has not written on its way here, unless the relation lost it. A
    /// variable there may have a value all the same, which OLD has; else nothing that is right depends on
    /// what is there.
    fn unwritten(&mut self, slots: std::ops::Range<i64>) {
        let bytes = u32::try_from(slots.end - slots.start).unwrap_or(u32::MAX);
        let to = Location::Slot { cfa: slots.start, bytes };
        let answer = self.site.variables.source(self.site.at, self.site.to, to);
        let own = -8i64.saturating_add_unsigned(self.site.lowered);
        let is_garbage = !self.site.state.new.has_lost_slots() && slots.end <= own;
        if !is_garbage || matches!(answer, Answer::Found { .. } | Answer::Partial { .. }) {
            return self.named(to, answer);
        }
        self.anything(slots);
    }

    fn named(&mut self, to: Location, answer: Answer) {
        match answer {
            Answer::Found { value, name, .. } if self.is_refuted(to, &value) => {
                self.obstacles.push(Obstacle::new(format!(
                    "variable `{name}` has not the same value in both builds when they come here"
                )));
            }
            Answer::Found { value, name, .. } if self.is_overdue(to, &value) => {
                self.obstacles.push(Obstacle::new(format!(
                    "variable `{name}`: one of both builds has given it a value by then that the other gives it only \
                     later"
                )));
            }
            Answer::Found { value, name, .. } if self.is_usable(&value) => {
                self.moves.push(Move { to, from: value, proof: Proof::Variable(name) });
            }
            Answer::Found { name, .. } => self.obstacles.push(Obstacle::new(format!(
                "variable `{name}`: where the debug information has it in OLD, a callee may have overwritten it"
            ))),
            Answer::Unavailable { why, new_local, .. } => {
                self.obstacles.push(Obstacle::of_local(why, new_local));
            }
            _ => match self.site.variables.computed(self.site.at, self.site.to, to) {
                Some((text, new_local)) => self.obstacles.push(Obstacle::of_local(text, new_local)),
                None => self.obstacles.push(Obstacle::new(format!(
                    "a value without a name that NEW keeps in {} has no proven source in OLD",
                    words(to)
                ))),
            },
        }
    }

    /// Whether both sides are known to come here with different numbers, by some way at least.
    fn is_refuted(&mut self, to: Location, from: &Source) -> bool {
        let bytes = bytes_of(to).min(8);
        let site = self.site;
        site.arrivals.iter().any(|state| {
            let values = self.sources.values();
            let Some(new) = held(values, &state.new, to) else { return false };
            let old = match from {
                Source::At(location) => held(values, &state.old, *location),
                Source::Constant(number) => Some(values.constant(*number)),
                _ => None,
            };
            let Some(old) = old else { return false };
            let apart = values.subtract(old, new);
            let apart = values.low(bytes, apart);
            values.as_constant(apart).is_some_and(|apart| apart != 0)
        })
    }

    /// Whether one side alone has given the variable in a place of NEW's, which OLD has in this one, another value since
    /// some point that both came through.
    fn is_overdue(&mut self, to: Location, from: &Source) -> bool {
        let site = self.site;
        let values = self.sources.values();
        site.earlier.iter().any(|earlier| {
            let points = [(site.at, site.to), (earlier.at, earlier.to)];
            let Some((old, new)) = site.variables.earlier(points, to) else { return false };
            let mut is_same = |side: Side, now: &Source, then: &Source| {
                let (before, here) = (earlier.state.side(side), site.state.side(side));
                match (now, then) {
                    (Source::At(now), Source::At(then)) => {
                        let bytes = bytes_of(*now).min(bytes_of(*then)).min(8);
                        let (now, then) = (held(values, here, *now)?, held(values, before, *then)?);
                        Some(values.low(bytes, now) == values.low(bytes, then))
                    }
                    (Source::Constant(a), Source::Constant(b)) => Some(a == b),
                    _ => None,
                }
            };
            let (now, then) = (Source::At(to), Source::At(new));
            match (is_same(Side::Old, from, &old), is_same(Side::New, &now, &then)) {
                (Some(a), Some(b)) => a != b,
                _ => false,
            }
        })
    }

    /// Whether OLD's code keeps what the debug information names.
    fn is_usable(&self, value: &Source) -> bool {
        match value {
            Source::At(Location::General { number, bytes }) => {
                usable(self.site, Place::General(*number)) >= *bytes
            }
            Source::At(Location::Vector { number, .. }) => {
                usable(self.site, Place::Lane(*number, 0)) > 0
            }
            _ => true,
        }
    }
}

/// What a side holds in a location of up to eight bytes.
fn held(values: &mut Values, machine: &super::state::Machine, at: Location) -> Option<Value> {
    match at {
        Location::General { number, .. } => Some(machine.general(number)),
        Location::Vector { number, bytes: ..=8 } => Some(machine.lane(number, 0)),
        Location::Vector { .. } => None,
        Location::Slot { cfa, bytes } => machine.slot(values, cfa, u8::try_from(bytes).ok()?),
    }
}

fn bytes_of(location: Location) -> u8 {
    match location {
        Location::General { bytes, .. } | Location::Vector { bytes, .. } => bytes,
        Location::Slot { bytes, .. } => u8::try_from(bytes).unwrap_or(u8::MAX),
    }
}

fn words(location: Location) -> String {
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    match location {
        Location::General { number, .. } => NAMES[usize::from(number) % 16].to_owned(),
        Location::Vector { number, .. } => format!("xmm{number}"),
        Location::Slot { cfa, .. } => format!("its frame (CFA{cfa:+})"),
    }
}

/// The width of a register whose live bytes are these bits: 0, 1, 2, 4, 8, 16, 32 or 64.
fn covering(mask: u64) -> u8 {
    covering_bytes(u64::from(64 - mask.leading_zeros()))
}

fn covering_bytes(bytes: u64) -> u8 {
    if bytes == 0 { 0 } else { u8::try_from(bytes.next_power_of_two()).unwrap_or(64) }
}
