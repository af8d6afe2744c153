//! Register contracts between functions.
//!
//! gcc's `-fipa-ra` (on at `-O2`) lets a caller keep values in caller-saved registers across a call
//! when the callee, whose body it sees, happens not to clobber them. A replaced callee must not
//! clobber more than OLD's did, transitively, or such callers are replaced too.
//!
//! Takes both images; gives the callers whose contract a set of replacements breaks.

pub mod calls;
pub mod dominators;
pub mod flow;

mod blocks;
mod landing;
mod tables;

pub mod effects;
pub mod frame;
pub mod registers;
mod vectors;

pub mod live;
pub mod provenance;

mod analysis;
mod convention;
mod dataflow;
mod dispatch;
mod layout;
mod objects;
mod relaid;
mod slots;
mod transfer;

mod clobbers;
mod liveness;
mod relied;
mod returning;

pub use analysis::Analysis;
pub use clobbers::Clobbers;
pub use dispatch::Dispatch;
pub use layout::{Layout, Pin};
pub use relaid::Handed;
pub use relied::Relied;
pub use returning::Returning;
pub(crate) use tables::is_preserved;

use crate::change::Pair;
use crate::image::{FunctionId, Image, Thing};
use clobbers::Registers;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of both builds' register use.
pub struct Contracts<'a> {
    pair: Pair<'a>,
    old: Clobbers,
    new: Clobbers,
    /// Direct callers of each OLD function.
    callers: BTreeMap<FunctionId, BTreeSet<FunctionId>>,
}

impl<'a> Contracts<'a> {
    /// Computes what every function clobbers, in both builds.
    #[must_use]
    pub fn new(pair: Pair<'a>) -> Self {
        let (old, new) = rayon::join(|| Clobbers::new(pair.old), || Clobbers::new(pair.new));
        let callers = callers(pair.old);
        Self { pair, old, new, callers }
    }

    /// Direct callers of an OLD function.
    pub fn callers(&self, id: FunctionId) -> impl Iterator<Item = FunctionId> + '_ {
        self.callers.get(&id).into_iter().flatten().copied()
    }

    /// Kept callers that rely on a register which a replaced function's NEW body clobbers and
    /// OLD's does not, with the reason.
    #[must_use]
    pub fn broken(
        &self,
        replaced: &BTreeMap<FunctionId, Vec<String>>,
    ) -> Vec<(FunctionId, String)> {
        let mut out = Vec::new();
        for (function, extra) in self.grown(replaced) {
            for caller in self.callers.get(&function).into_iter().flatten() {
                if replaced.contains_key(caller) || !may_rely(self.pair.old, *caller, function) {
                    continue;
                }
                let live =
                    liveness::live_after_calls(self.pair.old, *caller, function, extra, &self.old);
                if let Some(register) = live {
                    let callee = self.pair.old.function(function).name();
                    out.push((
                        *caller,
                        format!(
                            "keeps a value in {register:?} across its call of {callee}, whose \
                                 new body clobbers it"
                        ),
                    ));
                }
            }
        }
        out
    }

    /// OLD functions that clobber more once the replacements are in, their kept callers included.
    fn grown(&self, replaced: &BTreeMap<FunctionId, Vec<String>>) -> Vec<(FunctionId, Registers)> {
        let mut extra: BTreeMap<FunctionId, Registers> = BTreeMap::new();
        let mut queue: Vec<FunctionId> = Vec::new();
        for id in replaced.keys() {
            let Some(new) = self.pair.matching.new_of(*id) else {
                continue;
            };
            let more = self.new.of(new).without(self.old.of(*id));
            if !more.is_empty() {
                extra.insert(*id, more);
                queue.push(*id);
            }
        }
        while let Some(id) = queue.pop() {
            let more = extra[&id];
            for caller in self.callers.get(&id).into_iter().flatten() {
                if replaced.contains_key(caller) {
                    continue;
                }
                let had = extra.get(caller).copied().unwrap_or_default();
                let now = had.with(more.without(self.old.of(*caller)));
                if now != had {
                    extra.insert(*caller, now);
                    queue.push(*caller);
                }
            }
        }
        extra.into_iter().collect()
    }
}

/// gcc knows a callee's registers only within a translation unit, or the whole program with
/// link-time optimization; other compilers do not do it. Assembler may do anything.
fn may_rely(image: &Image, caller: FunctionId, callee: FunctionId) -> bool {
    let unit = |f: FunctionId| image.unit_of(image.function(f));
    match (unit(caller), unit(callee)) {
        (Some(a), Some(b)) => {
            use crate::debug::Language::Assembler;
            a.language == Assembler
                || b.language == Assembler
                || (allocates(a) && allocates(b) && (a.lto || b.lto || a.name == b.name))
        }
        _ => true,
    }
}

/// Whether gcc compiled a unit with `-fipa-ra`: on at every level but `-O0`.
fn allocates(unit: &crate::debug::Unit) -> bool {
    let words = || unit.producer.split(' ');
    let level = words().rfind(|w| w.starts_with("-O"));
    unit.is_gcc && level.is_some_and(|l| l != "-O0") && !words().any(|w| w == "-fno-ipa-ra")
}

pub(crate) fn callers(image: &Image) -> BTreeMap<FunctionId, BTreeSet<FunctionId>> {
    let mut callers: BTreeMap<FunctionId, BTreeSet<FunctionId>> = BTreeMap::new();
    for (i, function) in image.functions.iter().enumerate() {
        for part in function.parts() {
            crate::code::for_each_reference(image, part, |r| {
                if let Thing::Code { function, .. } = image.resolve(r.target)
                    && !r.taken
                    && function != FunctionId(i)
                {
                    callers.entry(function).or_default().insert(FunctionId(i));
                }
            });
        }
    }
    callers
}
