//! Whose address a bare number in an operand is.
//!
//! `lea N(%rip)` says where, not whose. The number may belong to
//!
//! | reading | example |
//! |---|---|
//! | what it points into | `&table[2]` |
//! | an object that ends there | the bound of a loop over it; `table[i - COUNT]` |
//! | an object that begins behind it | `table[c - '0']`, `*++p` from `table - 1` |
//! | an object that ends before it | the bound of a loop over one field of its elements |
//!
//! The first reading is right for nearly all; where another one is possible, it is settled by what
//! the body does with the address (see [`crate::machine::provenance`]):
//!
//! 1. Relocations name the symbol (`--emit-relocs`).
//! 2. Bytes at a known distance from it are accessed: it belongs to what is there.
//! 3. It is moved by known distances, which only one object around it is long enough for.
//! 4. It is compared with an address that is settled, and touches the same object.
//! 5. It is not indexed, something with a name or a text is there, and no object that ends at it is
//!    otherwise referred to by the body, or static and referred to by nothing else in the image.
//!
//! What is left is [`Owner::Open`]: the caller decides whether it matters.

use crate::code::{Body, Field, Reference};
use crate::image::{Function, Image, ObjectId, SectionKind, Thing};
use crate::machine::provenance::{Provenance, Uses};
use std::collections::BTreeMap;

/// How far an address may be from the object that it is meant for. Compilers put into the displacement
/// what an index is less (`first_day[year - 1900]`), and that takes any signed 32-bit number (SDM volume 2,
/// section 2.2.1.3).
pub const FARTHEST: u64 = 1 << 31;
/// How near an object the address is that tells, by a comparison, whose another one is. What is settled must
/// not be settled wrongly: a larger element leaves both open.
const NEAR: u64 = 8192;

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// This object's, in it or near it.
    Object(ObjectId),
    /// Of a constant without a name, in it or near it.
    Bare,
    /// Of what it points into, as far as anything shows.
    Here,
    /// Not shown.
    Open,
}

/// An address that a body takes, and whose it is.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Place of the operand's field.
    pub field: u64,
    /// The address.
    pub target: u64,
    /// Whose it is.
    pub owner: Owner,
    /// What is done with it; `None` when the function's flow is not understood.
    pub uses: Option<Uses>,
    /// It is used with an index, or moved, or that is not known.
    pub indexed: bool,
}

/// Whose the addresses are that a body takes.
#[derive(Debug, Clone, Default)]
pub struct Meanings {
    /// In the order of the body; of data only.
    pub taken: Vec<Taken>,
    /// The index in `taken` of each origin that [`Uses`] speaks of.
    by_origin: BTreeMap<usize, usize>,
}

/// Whether a reference takes an address of data, or accesses memory at one plus a register.
#[must_use]
pub fn is_taken(image: &Image, body: &Body, r: &Reference) -> bool {
    !matches!(r.field, Field::Branch8 | Field::Branch32)
        && r.access == 0
        && body.index_at(r.target).is_none()
        && image.section_at(r.target).is_none_or(|s| s.kind != SectionKind::Text)
        && super::jump_table(image, body, r.target).is_none()
}

impl Meanings {
    /// Finds out about every address that a function takes.
    #[must_use]
    pub fn new(image: &Image, function: &Function, body: &Body) -> Self {
        let provenance = Provenance::new(image, function);
        let mut out = Self::default();
        for r in body.steps.iter().flat_map(|s| &s.references) {
            if !is_taken(image, body, r) {
                continue;
            }
            let origin = provenance.as_ref().and_then(|p| Some((p, p.find(r.at)?)));
            let uses = origin.map(|(p, index)| p.origins[index].uses.clone());
            let indexed = uses.as_ref().is_none_or(|u| u.moved || !u.indexed.is_empty());
            let named = r.symbol.and_then(|s| image.object_at(s));
            let named = named.filter(|id| image.object(*id).size > 0);
            // What distances are added to is where their table begins.
            let base = image.is_offset_base(r.at).then(|| image.object_at(r.target)).flatten();
            let owner = named
                .or(base)
                .map(Owner::Object)
                .or_else(|| accessed(image, r.target, uses.as_ref()?))
                .or_else(|| moved_inside(image, r.target, uses.as_ref()?).map(Owner::Object))
                .unwrap_or(Owner::Open);
            if let Some((_, origin)) = origin {
                out.by_origin.insert(origin, out.taken.len());
            }
            out.taken.push(Taken { field: r.at, target: r.target, owner, uses, indexed });
        }
        out.compare(image);
        out.rest(image, body);
        out
    }

    /// What is known of an operand, by the place of its field.
    #[must_use]
    pub fn find(&self, field: u64) -> Option<usize> {
        self.taken.iter().position(|t| t.field == field)
    }

    /// The addresses that one is compared with, or counted from.
    pub fn met(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let uses = self.taken[index].uses.as_ref();
        let all = uses.into_iter().flat_map(|u| u.compared.iter().chain(&u.subtracted));
        all.filter_map(|origin| self.by_origin.get(origin).copied())
    }

    /// How far an address is from those that it is compared with or counted from, by their index.
    #[must_use]
    pub fn distances(&self, index: usize) -> Vec<(usize, u64)> {
        let here = self.taken[index].target;
        let others = self.met(index).filter(|m| *m != index);
        others.map(|m| (m, here.wrapping_sub(self.taken[m].target))).collect()
    }

    /// Addresses that are compared with settled ones.
    fn compare(&mut self, image: &Image) {
        loop {
            let mut news = Vec::new();
            for (i, taken) in self.taken.iter().enumerate().filter(|(_, t)| t.owner == Owner::Open)
            {
                let known = taken.uses.iter().filter(|u| !u.meets_strangers());
                let compared = known.flat_map(|u| &u.compared);
                let partners = compared.filter_map(|o| self.by_origin.get(o));
                let owners: Vec<Owner> = partners
                    .map(|p| self.taken[*p].owner)
                    .filter(|o| touches(image, *o, taken.target))
                    .collect();
                if let Some(first) = owners.first().filter(|f| owners.iter().all(|o| o == *f)) {
                    news.push((i, *first));
                }
            }
            if news.is_empty() {
                return;
            }
            for (i, owner) in news {
                self.taken[i].owner = owner;
            }
        }
    }

    /// Addresses of which nothing speaks for another reading.
    fn rest(&mut self, image: &Image, body: &Body) {
        for taken in self.taken.iter_mut().filter(|t| t.owner == Owner::Open && !t.indexed) {
            let compared = taken.uses.as_ref().is_some_and(|u| {
                u.meets_strangers() || !u.compared.is_empty() || !u.subtracted.is_empty()
            });
            let ends = ending(image, taken.target, if compared { FARTHEST } else { 0 });
            let field = taken.field;
            let mentioned = ends.iter().any(|id| {
                let range = image.object(*id).range();
                body.steps
                    .iter()
                    .flat_map(|s| &s.references)
                    .any(|o| o.at != field && range.contains(&o.target))
            });
            let unseen = unseen_end(image, taken.target).is_some();
            if !mentioned && !unseen && (is_something(image, taken.target) || ends.is_empty()) {
                taken.owner = Owner::Here;
            }
        }
    }
}

/// Objects that end at an address or up to `distance` before it.
#[must_use]
pub fn ending(image: &Image, address: u64, distance: u64) -> Vec<ObjectId> {
    image
        .objects_near(address.saturating_sub(distance)..=address)
        .filter(|(_, o)| o.range().end <= address)
        .map(|(id, _)| id)
        .collect()
}

/// Whose the bytes are that are accessed at known distances from an address.
fn accessed(image: &Image, address: u64, uses: &Uses) -> Option<Owner> {
    let mut found = None;
    for (distance, bytes) in &uses.exact {
        let at = address.wrapping_add_signed(*distance);
        let owner = match image.resolve(at) {
            Thing::Object { object, .. } => {
                let inside = at + bytes <= image.object(object).range().end;
                inside.then_some(Owner::Object(object))?
            }
            Thing::Constant(_) => Owner::Bare,
            // A label without a size: as far as it may go.
            Thing::Mark(_) if *distance == 0 => Owner::Here,
            _ => return None,
        };
        if *found.get_or_insert(owner) != owner {
            return None;
        }
    }
    found
}

/// The one object that an address and all places that it is moved to by known distances are in, or
/// at the end of.
fn moved_inside(image: &Image, address: u64, uses: &Uses) -> Option<ObjectId> {
    let places = || uses.steps.iter().map(|step| address.wrapping_add_signed(*step));
    if uses.moved || !uses.indexed.is_empty() || places().all(|at| at == address) {
        return None;
    }
    let mut around = image
        .objects_near(address..=address)
        .filter(|(_, o)| places().all(|at| o.address <= at && at <= o.range().end));
    let found = around.next().map(|(id, _)| id);
    found.filter(|_| around.next().is_none())
}

/// Whether there is something at an address that one would take the address of, and not just what
/// fills the room behind an object.
fn is_something(image: &Image, address: u64) -> bool {
    match image.resolve(address) {
        Thing::Constant(at) => super::text_at(image, at).is_some_and(|t| !t.is_empty()),
        Thing::Mark(_) | Thing::Unknown | Thing::Outside(_) => false,
        Thing::Object { .. } | Thing::Slot(_) | Thing::Code { .. } => true,
    }
}

/// The static object that ends at an address and of which nothing in the image takes an address
/// inside: the compiler would have left it out, so somebody refers to it by an address elsewhere.
#[must_use]
pub fn unseen_end(image: &Image, address: u64) -> Option<ObjectId> {
    let id = image.object_ending_at(address)?;
    let object = image.object(id);
    (object.local && image.is_array(id) && !image.is_referred_to(&object.range())).then_some(id)
}

/// Whether an address may be one of an owner's.
fn touches(image: &Image, owner: Owner, address: u64) -> bool {
    match owner {
        Owner::Object(id) => {
            let range = image.object(id).range();
            range.start.saturating_sub(NEAR) <= address && address <= range.end.saturating_add(NEAR)
        }
        Owner::Bare => true,
        Owner::Here | Owner::Open => false,
    }
}
