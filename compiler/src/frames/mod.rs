//! Frame translation: for each checkpoint site, how OLD's frame becomes NEW's (DESIGN sections 3.6, 5).
//!
//! ```text
//! machine/, sites/ -> repair -> relation (point, state, value, exec, vector, addresses, ways, alone)
//!                                  -> translate (source, variables) -> Translation, or obstacles
//! ```
//!
//! Takes the replaced functions, their graphs with liveness, their matched blocks, and the shadow
//! image's fix-ups; gives for each call site, loop head and landing pad of OLD a [`Translation`] with a
//! proof for every location, or the reasons why there is none. [`carry`] is the way in.
//!
//! Where objects of NEW's frame lie elsewhere than OLD's, the same is done with NEW's function as it would be with its
//! frame lower, or with its objects where OLD has them (relaid).

mod addresses;
mod alone;
mod barriers;
mod beginning;
mod both;
mod bounds;
mod clones;
mod computed;
mod copied;
mod copies;
mod ends;
mod entries;
mod entry;
mod exec;
mod fates;
mod forgotten;
mod function;
mod join;
mod lifted;
mod multiples;
mod overdue;
mod point;
mod relaid;
mod relation;
mod repair;
mod same;
mod site;
mod solve;
mod source;
mod state;
mod stores;
mod strings;
mod translate;
mod trust;
mod unread;
mod value;
pub mod variables;
mod vector;
mod ways;

pub use translate::Obstacle;

use crate::emit::Inputs;
use crate::image::{FunctionId, Image, ObjectId};
use crate::machine::flow::Flow;
use crate::machine::{Clobbers, Dispatch, Relied, Returning};
use dsu_patch_format::frames::Translation;
use dsu_patch_format::plan::{Fixup, MovedObject, SiteKind};
use dsu_patch_format::{NewAddr, OldAddr};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;

/// A site with its proof.
#[derive(Debug, Clone)]
pub struct Proven {
    /// In OLD.
    pub at: OldAddr,
    /// What sort of point.
    pub kind: SiteKind,
    /// In NEW.
    pub to: NewAddr,
    /// What the stub shall do.
    pub translation: Translation,
    /// It goes on in a copy of NEW's function ([`Carried::relaid`]).
    pub relaid: bool,
    /// A variable that is out of scope, whose address was taken, is elsewhere in NEW's frame.
    pub leaves_behind: bool,
}

/// NEW's function with objects of its frame where OLD has them.
#[derive(Debug, Clone)]
pub struct Relaid {
    /// Its code, at the addresses of NEW's, with other displacements.
    pub flow: Flow,
    /// Where it jumps by tables.
    pub dispatches: Vec<Dispatch>,
    /// Bytes of stack between OLD's CFA and its own.
    pub lowered: u64,
    /// The objects, ascending.
    pub objects: Vec<MovedObject>,
}

/// A point that cannot be carried over.
#[derive(Debug, Clone)]
pub struct Blind {
    /// In OLD.
    pub at: OldAddr,
    /// What sort of point.
    pub kind: SiteKind,
    /// Why.
    pub obstacles: Vec<Obstacle>,
}

/// What is known of the frames of one replaced function.
#[derive(Debug, Clone)]
pub struct Carried {
    /// In OLD.
    pub function: FunctionId,
    /// Points that can be carried over.
    pub proven: Vec<Proven>,
    /// The same points with nothing left behind, for where that is not accepted.
    pub seconds: Vec<Proven>,
    /// Points that cannot.
    pub blind: Vec<Blind>,
    /// Return addresses that no callee returns to.
    pub dead_returns: Vec<OldAddr>,
    /// OLD's graph, where its code may run on for a moment beside NEW's: then a blind point from which
    /// it soon comes to a proven one is none ([`crate::sites::passages`]).
    pub flow: Option<Flow>,
    /// Return addresses behind calls that never come back, for all that OLD's code shows.
    pub unexpected: BTreeSet<u64>,
    /// Return addresses at which OLD's code relies on registers that NEW's code, which may return there, need not
    /// keep.
    pub relying: BTreeSet<u64>,
    /// What frames go on in whose objects lie elsewhere than in NEW's.
    pub relaid: Option<Relaid>,
    /// Why there is no such thing, where it was wanted.
    pub uncopied: Option<String>,
}

impl Carried {
    /// Call sites: those that can be carried over, those that only a local of NEW's stands against, all.
    #[must_use]
    pub fn coverage(&self) -> (usize, usize, usize) {
        let proven = self.proven.iter().filter(|p| p.kind == SiteKind::Return).count();
        let blind: Vec<_> = self.blind.iter().filter(|b| b.kind == SiteKind::Return).collect();
        let new_locals = blind.iter().filter(|b| b.obstacles.iter().all(|o| o.new_local)).count();
        (proven, new_locals, proven + blind.len())
    }
}

/// OLD functions below which a replaced one may be running: what they are known to keep, a stub or a
/// NEW body may not.
fn through_replaced(inputs: Inputs<'_>) -> BTreeSet<FunctionId> {
    let callers = crate::machine::callers(inputs.pair.old);
    let mut found: BTreeSet<FunctionId> = inputs.closure.replaced.keys().copied().collect();
    let mut queue: Vec<FunctionId> = found.iter().copied().collect();
    while let Some(id) = queue.pop() {
        for caller in callers.get(&id).into_iter().flatten() {
            if found.insert(*caller) {
                queue.push(*caller);
            }
        }
    }
    found
}

/// Where OLD's objects are.
fn places(old: &Image, objects: impl Iterator<Item = ObjectId>) -> Vec<Range<u64>> {
    let objects = objects.map(|id| old.object(id));
    objects.map(|o| o.address..o.address.saturating_add(o.size)).collect()
}

/// Translates what can be of all replaced functions' frames, by OLD function.
#[must_use]
pub fn carry(inputs: Inputs<'_>, fixups: &[Fixup]) -> Vec<Carried> {
    let pair = inputs.pair;
    let replaced: Vec<(FunctionId, FunctionId)> = inputs
        .closure
        .replaced
        .keys()
        .filter_map(|old| Some((*old, pair.matching.new_of(*old)?)))
        .filter(|(old, new)| {
            pair.old.function(*old).import.is_none() && pair.new.function(*new).import.is_none()
        })
        .collect();
    if replaced.is_empty() {
        return Vec::new();
    }
    let (old, new) = rayon::join(|| Clobbers::new(pair.old), || Clobbers::new(pair.new));
    let through = through_replaced(inputs);
    let (a, b) =
        rayon::join(|| barriers::Barriers::new(pair.old), || barriers::Barriers::new(pair.new));
    let context = function::Shared {
        inputs,
        fixups,
        clobbers: (&old, &new),
        barriers: (&a, &b),
        returning: (&Returning::new(pair.old), &Returning::new(pair.new)),
        overwritten: places(pair.old, inputs.data.updates.iter().map(|(old, _)| *old)),
        left: places(pair.old, inputs.data.moved.keys().copied()),
        forgotten: forgotten::forgotten(pair.old, pair.matching),
        relied: Relied::new(
            pair.old,
            &inputs.closure.replaced.keys().copied().collect(),
            (&old, &new),
            |id| pair.matching.new_of(id),
        ),
        through,
    };
    replaced.into_par_iter().map(|(old, new)| function::carry(&context, old, new)).collect()
}
