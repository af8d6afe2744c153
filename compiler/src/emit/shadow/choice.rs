//! Where an address that a carried function takes must lead.
//!
//! Takes whose each address is, as far as NEW's body shows (see [`crate::change::meaning`]). Where
//! it does not, every reading is looked at: what all lead to the same place for is no question. If
//! they differ, OLD's body may show which reading it has; constants whose addresses stay among
//! themselves are all taken from the shadow image, which has NEW's distances; the rest is refused.

use super::{Carrying, Item, Shadow};
use crate::change::is_same_text;
use crate::change::meaning::{FARTHEST, Meanings, Owner, Taken, ending, unseen_end};
use crate::code::{Reference, decode};
use crate::image::{Image, ObjectId, SectionKind, Thing};
use crate::matching::names::readable;
use std::collections::{BTreeMap, BTreeSet};

/// Addresses that OLD's body takes, each with whose it is wherever it is taken.
type OldTaken = BTreeMap<u64, Vec<Owner>>;

/// What an address is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// What it points into.
    Here,
    /// What it points into, of which only the place counts.
    Bound,
    /// This object's, in it or near it.
    Object(ObjectId),
    /// One of the constants around it: all of them are carried.
    Constants,
    /// Nothing shows which: these two lead to different places.
    Ambiguous(Reading, Reading),
}

/// A way to read an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// What it points into.
    Here,
    /// Of an object in it or near it.
    Object(ObjectId),
    /// Of a constant without a name near it.
    Bare,
}

/// Where a reading leads: OLD's address less NEW's, or the shadow image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Old(u64),
    Shadow,
    /// Not known; a use of it is refused.
    Unknown,
}

impl Shadow<'_> {
    /// The choice for each address that a function takes, by the place of its field.
    pub(super) fn choices(&self, ctx: &Carrying<'_>) -> BTreeMap<u64, Choice> {
        let meanings = Meanings::new(self.new_image(), ctx.function, ctx.body);
        // Asked for what is not settled alone, and following OLD's body costs as much as following NEW's.
        let open = meanings.taken.iter().any(|t| t.owner == Owner::Open);
        let old = if open { self.taken_by_old(ctx) } else { OldTaken::new() };
        let mut choices: Vec<Choice> =
            (0..meanings.taken.len()).map(|i| self.choice(ctx, &meanings, i, &old)).collect();
        for (taken, choice) in meanings.taken.iter().zip(&mut choices) {
            let bound = taken.uses.as_ref().is_some_and(|u| u.exact.is_empty() && !u.escapes);
            if *choice == Choice::Here && bound && !taken.indexed {
                *choice = Choice::Bound;
            }
        }
        for i in 0..choices.len() {
            if !matches!(choices[i], Choice::Ambiguous(..)) {
                continue;
            }
            for member in self.private(&meanings, i).unwrap_or_default() {
                choices[member] = Choice::Constants;
            }
        }
        meanings.taken.iter().map(|t| t.field).zip(choices).collect()
    }

    /// Addresses of data that OLD's body takes, and whose they are there.
    fn taken_by_old(&self, ctx: &Carrying<'_>) -> OldTaken {
        let pair = self.inputs.pair;
        let mut taken = OldTaken::new();
        if let Some(id) = pair.matching.old_of(ctx.id) {
            let function = pair.old.function(id);
            let meanings = Meanings::new(pair.old, function, &decode(pair.old, function));
            for one in meanings.taken {
                taken.entry(one.target).or_default().push(one.owner);
            }
        }
        taken
    }

    fn choice(
        &self,
        ctx: &Carrying<'_>,
        meanings: &Meanings,
        index: usize,
        old: &OldTaken,
    ) -> Choice {
        let taken = &meanings.taken[index];
        match taken.owner {
            Owner::Here => return Choice::Here,
            Owner::Object(id) => return Choice::Object(id),
            Owner::Bare if matches!(self.new_image().resolve(taken.target), Thing::Constant(_)) => {
                return Choice::Here;
            }
            Owner::Bare => return Choice::Constants,
            Owner::Open => {}
        }
        let compared = taken.uses.as_ref().is_none_or(|u| {
            u.meets_strangers() || !u.compared.is_empty() || !u.subtracted.is_empty()
        });
        let down = taken.uses.as_ref().is_none_or(|u| u.down);
        let far = if taken.indexed && down || compared { FARTHEST } else { 0 };
        let ending = if taken.indexed && !down && !compared {
            unseen_end(self.new_image(), taken.target).into_iter().collect()
        } else {
            ending(self.new_image(), taken.target, far)
        };
        let readings = self.readings(ctx, taken, ending, old);
        let place = |r: &Reading| self.place(taken.target, *r);
        let Some(first) = readings.first().copied() else { return Choice::Here };
        let Some(other) = readings.iter().copied().find(|r| place(r) != place(&first)) else {
            return chosen(first);
        };
        if let Some(reading) = self.literal(taken.target, &readings, old) {
            return chosen(reading);
        }
        let bare = readings.iter().any(|r| self.is_bare(taken.target, *r));
        let shows = |r: &Reading| !bare && self.shows(taken.target, *r, old);
        let shown: Vec<Reading> = readings.iter().copied().filter(shows).collect();
        match shown.first() {
            Some(one) if shown.iter().all(|r| place(r) == place(one)) => chosen(*one),
            _ => Choice::Ambiguous(first, other),
        }
    }

    /// Every way to read an address that is not settled; `objects` end at it, or before it.
    fn readings(
        &self,
        ctx: &Carrying<'_>,
        taken: &Taken,
        mut objects: Vec<ObjectId>,
        old: &OldTaken,
    ) -> Vec<Reading> {
        let (address, indexed) = (taken.target, taken.indexed);
        let image = self.new_image();
        let start = match image.resolve(address) {
            Thing::Object { object, offset: 0 } => Some(object),
            _ => None,
        };
        let mut readings = Vec::new();
        let single = indexed && start.is_some_and(|id| image.is_single(id));
        let filling = objects.iter().any(|id| image.object(*id).range().end == address)
            && fills(image, address);
        let hidden = start.and_then(|id| image.variable(image.object(id)));
        if !single && !filling && hidden.is_none_or(|v| self.is_in_scope(ctx, v)) {
            readings.push(Reading::Here);
        }
        if indexed {
            let behind = image.objects_near(address..=address.saturating_add(FARTHEST));
            objects.extend(behind.filter(|(_, o)| o.address > address).map(|(id, _)| id));
        }
        objects.retain(|id| self.sees(ctx, *id) && !(indexed && image.is_single(*id)));
        let objects = objects.into_iter().map(Reading::Object);
        // An index from the start of an array is into that array, unless OLD says otherwise.
        let plain = start.is_some() && !single;
        readings.extend(objects.filter(|r| {
            !plain
                || self.mentions(ctx, address, *r)
                || self.shows(address, *r, old)
                || unseen_end(image, address).map(Reading::Object) == Some(*r)
        }));
        let constants = image.section_at(address).is_some_and(|s| s.kind != SectionKind::Data);
        if indexed && constants && !plain {
            readings.push(Reading::Bare);
        }
        readings
    }

    /// Whether an object ends at an address and the body refers to it elsewhere.
    fn mentions(&self, ctx: &Carrying<'_>, address: u64, reading: Reading) -> bool {
        let Reading::Object(id) = reading else { return false };
        let range = self.new_image().object(id).range();
        let mut references = ctx.body.steps.iter().flat_map(|s| &s.references);
        range.end == address && references.any(|r| range.contains(&r.target))
    }

    /// Whether a reading is of a constant without a name: OLD has its own copy of it somewhere, which an
    /// address of OLD may as well be of.
    fn is_bare(&self, address: u64, reading: Reading) -> bool {
        match reading {
            Reading::Bare => true,
            Reading::Here => matches!(self.new_image().resolve(address), Thing::Constant(_)),
            Reading::Object(_) => false,
        }
    }

    /// Whether OLD's body takes the address that a reading leads to, and not for another object that
    /// begins there in OLD.
    fn shows(&self, address: u64, reading: Reading, old: &OldTaken) -> bool {
        let pair = self.inputs.pair;
        let meant = match (reading, pair.new.resolve(address)) {
            (Reading::Object(id), _) | (Reading::Here, Thing::Object { object: id, .. }) => {
                pair.matching.old_object(id).map(|old| (id, old))
            }
            _ => None,
        };
        let there = match (meant, self.place(address, reading)) {
            (Some((new, old)), _) => {
                let offset = address.wrapping_sub(pair.new.object(new).address);
                pair.old.object(old).address.wrapping_add(offset)
            }
            (None, Place::Old(distance)) => address.wrapping_add(distance),
            (None, _) => return false,
        };
        let (at, begins) = match pair.old.resolve(there) {
            Thing::Object { object, offset } => (Some(object), (offset == 0).then_some(object)),
            _ => (None, None),
        };
        let meant = meant.map(|(_, old)| old);
        // What is settled in OLD shows that reading, and no other.
        let fits = |owner: &Owner| match (owner, meant) {
            (Owner::Object(id), Some(meant)) => *id == meant,
            (Owner::Open, Some(meant)) => begins.is_none_or(|begins| begins == meant),
            (Owner::Here, Some(meant)) => at == Some(meant),
            (Owner::Bare, Some(_)) | (Owner::Object(_), None) => false,
            (Owner::Here | Owner::Bare | Owner::Open, None) => begins.is_none(),
        };
        old.get(&there).is_some_and(|owners| owners.iter().any(fits))
    }

    /// How to read an address at which there is a text whose address OLD's body takes, too. Where it lies in OLD as
    /// it does in NEW, OLD may have meant something else near it, and its own text serves for both.
    fn literal(&self, address: u64, readings: &[Reading], old: &OldTaken) -> Option<Reading> {
        let pair = self.inputs.pair;
        let is_constant = |image: &Image, at| matches!(image.resolve(at), Thing::Constant(_));
        if !readings.contains(&Reading::Here) || !is_constant(pair.new, address) {
            return None;
        }
        let texts: Vec<u64> = old
            .iter()
            .filter(|(_, owners)| !owners.iter().any(|o| matches!(o, Owner::Object(_))))
            .map(|(at, _)| *at)
            .filter(|at| is_constant(pair.old, *at) && is_same_text(pair, *at, address))
            .collect();
        let [text] = texts.as_slice() else { return None };
        let mut chosen = Reading::Here;
        for reading in readings {
            let Place::Old(distance) = self.place(address, *reading) else { continue };
            let there = address.wrapping_add(distance);
            if there == *text {
                chosen = *reading;
            } else if old.contains_key(&there) {
                return None;
            }
        }
        Some(chosen)
    }

    fn place(&self, address: u64, reading: Reading) -> Place {
        let pair = self.inputs.pair;
        let found = |old: Option<u64>| {
            old.map_or(Place::Unknown, |old| Place::Old(old.wrapping_sub(address)))
        };
        match reading {
            Reading::Object(id) => self.object_place(id),
            Reading::Bare => Place::Shadow,
            Reading::Here => match pair.new.resolve(address) {
                Thing::Object { object, .. } => self.object_place(object),
                Thing::Constant(_) => Place::Shadow,
                Thing::Slot(slot) => match self.slots.find(pair, &slot) {
                    Some(old) => found(Some(old)),
                    None => Place::Shadow,
                },
                Thing::Mark(name) => found(self.old_mark(&name)),
                Thing::Outside(number) => {
                    let header = number.wrapping_sub(pair.new.extent.start);
                    let inside = pair.new.extent.contains(&number);
                    found(inside.then(|| pair.old.extent.start.wrapping_add(header)))
                }
                Thing::Unknown => match pair.new.object_ending_at(address) {
                    Some(object) => self.object_place(object),
                    None => Place::Unknown,
                },
                Thing::Code { .. } => Place::Unknown,
            },
        }
    }

    fn object_place(&self, id: ObjectId) -> Place {
        let pair = self.inputs.pair;
        self.kept_object(id).map_or(Place::Shadow, |old| {
            let there = pair.old.object(old).address;
            Place::Old(there.wrapping_sub(pair.new.object(id).address))
        })
    }

    /// Addresses of constants that meet each other and nothing else: wherever they lead, it is right
    /// as long as all lead there together.
    fn private(&self, meanings: &Meanings, index: usize) -> Option<Vec<usize>> {
        let image = self.new_image();
        let constant = |address: u64| {
            image.section_at(address).is_none_or(|s| s.kind != SectionKind::Data)
                && image
                    .section_at(address.wrapping_sub(1))
                    .is_none_or(|s| s.kind != SectionKind::Data)
        };
        let mut members = BTreeSet::from([index]);
        let mut queue = vec![index];
        while let Some(member) = queue.pop() {
            let taken = &meanings.taken[member];
            let uses = taken.uses.as_ref()?;
            if uses.escapes || uses.meets_strangers() || !constant(taken.target) {
                return None;
            }
            queue.extend(meanings.met(member).filter(|m| members.insert(*m)));
        }
        Some(members.into_iter().collect())
    }

    /// Carries the constants around an address.
    pub(super) fn constants_around(&mut self, r: &Reference) {
        let image = self.new_image();
        let at = |at: u64| image.section_at(at).filter(|s| is_constants(s.kind));
        let mut sections: Vec<_> =
            [r.target, r.target.wrapping_sub(1)].into_iter().filter_map(at).collect();
        if sections.is_empty() {
            // In front of the first one, or between two: of any.
            sections = image.sections.iter().filter(|s| is_constants(s.kind)).collect();
        }
        let items = sections.into_iter().map(|s| Item::Constant(s.address, s.end()));
        self.queue.extend(items);
        self.carried(r);
    }

    pub(super) fn ambiguous(
        &mut self,
        ctx: &Carrying<'_>,
        r: &Reference,
        one: Reading,
        two: Reading,
    ) {
        let (one, two) = (self.name(r.target, one), self.name(r.target, two));
        let text = format!(
            "{} takes an address ({:#x}) that may be meant for {one} or for {two}; OLD has the two at \
             another distance, and the code does not show which one is meant",
            readable(ctx.function.name()),
            r.target
        );
        let way = "add new variables behind the others (or in a file of their own); where both are \
                   global, linking NEW with -Wl,--emit-relocs tells them apart";
        self.refuse("ambiguous", ctx.function.name(), text, way);
    }

    fn name(&self, address: u64, reading: Reading) -> String {
        let image = self.new_image();
        match reading {
            Reading::Object(id) => readable(image.object(id).name()),
            Reading::Bare => "a constant without a name".to_owned(),
            Reading::Here => crate::change::describe(image, address),
        }
    }
}

fn chosen(reading: Reading) -> Choice {
    match reading {
        Reading::Here => Choice::Here,
        Reading::Object(id) => Choice::Object(id),
        Reading::Bare => Choice::Constants,
    }
}

fn is_constants(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::ReadOnly | SectionKind::RelRo)
}

/// Whether nothing is at an address that a source could name: a mark that the linker made for itself,
/// or what fills the room between variables (a literal there would hold pointers).
fn fills(image: &Image, address: u64) -> bool {
    match image.resolve(address) {
        Thing::Mark(_) => image.object_at(address).is_some_and(|id| image.object(id).local),
        Thing::Constant(_) => {
            let end = image.next_anchor(address);
            image.section_at(address).is_some_and(|s| s.kind == SectionKind::Data)
                && crate::change::pointers(image, &(address..end)).is_empty()
                && image
                    .content(address, end.saturating_sub(address))
                    .is_some_and(|bytes| bytes.iter().all(|b| *b == 0))
        }
        _ => false,
    }
}
