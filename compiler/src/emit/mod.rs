//! The bundle: NEW's code and data where the process can take them, and every address in them.
//!
//! Takes the closed set of replaced functions and the data decisions; gives a [`Plan`] and what the
//! report tells of it. Refuses, by name, operands whose meaning is not known and entries without
//! room for a jump. Proven sites are planted afterwards: [`sites::plant`] puts their stubs behind the
//! rest and their jumps into OLD's text.

mod address_map;
mod blind;
pub mod carried;
mod expected;
mod passages;
mod pieces;
mod redirects;
mod shadow;
pub mod sites;
mod slots;
pub mod stubs;
mod unwinding;

pub use redirects::{folded, roomless};

use crate::change::{Closure, Comparisons, Pair};
use crate::data::DataPlan;
use crate::image::FunctionId;
use crate::refusal::Refusal;
use dsu_patch_format::manifest::{
    AddedFunction, BlindPoint, Coverage, DataAction, DataChange, ReplacedFunction,
};
use dsu_patch_format::plan::Plan;
use dsu_patch_format::{NewAddr, OldAddr, Translation};

/// What emitting gives besides the plan.
#[derive(Debug, Clone, Default)]
pub struct Emitted {
    /// For the transaction.
    pub plan: Plan,
    /// What each stub does, by index of [`Plan::sites`].
    pub frames: Vec<Translation>,
    /// Points of replaced functions without a counterpart, ascending.
    pub blind_points: Vec<BlindPoint>,
    /// Those of them from which OLD's code soon comes to a site by itself: no hindrance, ascending.
    pub passing_points: Vec<BlindPoint>,
    /// Functions whose OLD code is dead after commit.
    pub replaced: Vec<ReplacedFunction>,
    /// Functions that only NEW has and that are carried.
    pub added: Vec<AddedFunction>,
    /// New variables.
    pub data: Vec<DataChange>,
    /// What cannot be done.
    pub refusals: Vec<Refusal>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Everything that emitting reads.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Both images and the matching.
    pub pair: Pair<'a>,
    /// For the address map of kept functions.
    pub comparisons: &'a Comparisons,
    /// Who is replaced.
    pub closure: &'a Closure,
    /// Decisions about data.
    pub data: &'a DataPlan,
    /// The user says that nothing unwinds through replaced functions.
    pub no_unwinding: bool,
    /// The user says that a local which only NEW has may begin anew in a frame that goes on.
    pub init_new_locals: bool,
    /// The user says of some type whose layout changed that no object of it lives across the update.
    pub layouts_accepted: bool,
}

impl Inputs<'_> {
    /// Whether NEW's function runs from the shadow image instead of OLD's code.
    fn is_replaced(&self, new: FunctionId) -> bool {
        self.pair.matching.old_of(new).is_some_and(|o| self.closure.replaced.contains_key(&o))
    }

    /// OLD functions that NEW no longer has.
    fn removed(&self) -> Vec<FunctionId> {
        (0..self.pair.old.functions.len())
            .map(FunctionId)
            .filter(|f| {
                self.pair.matching.new_of(*f).is_none()
                    && self.pair.old.function(*f).import.is_none()
            })
            .collect()
    }
}

/// Makes the plan.
#[must_use]
pub fn emit(inputs: Inputs<'_>) -> Emitted {
    let mut out = Emitted::default();
    let placed = shadow::build(inputs, &mut out);
    unwinding::check(inputs, &placed, &mut out);
    unwinding::rows(inputs, &placed, &mut out);
    out.replaced = replaced(inputs);
    redirects::write(inputs, &mut out);
    blind::write(inputs, &mut out);
    address_map::write(inputs, &placed, &mut out);
    out.plan.old_start = OldAddr(inputs.pair.old.extent.start);
    out.plan.old_end = OldAddr(inputs.pair.old.extent.end);
    out.plan.low_2gib = inputs.pair.new.fixed;
    added(inputs, &placed, &mut out);
    out
}

fn replaced(inputs: Inputs<'_>) -> Vec<ReplacedFunction> {
    let Inputs { pair, closure, .. } = inputs;
    let removed =
        inputs.removed().into_iter().map(|f| (f, vec!["NEW has no such function".into()]));
    let mut all: Vec<(FunctionId, Vec<String>)> =
        closure.replaced.iter().map(|(f, why)| (*f, why.clone())).chain(removed).collect();
    all.sort_by_key(|(f, _)| *f);
    all.into_iter()
        .map(|(id, why)| {
            let old = pair.old.function(id);
            let new = pair.matching.new_of(id).map(|n| pair.new.function(n));
            let declared = pair.old.declared(old);
            let file = declared.and_then(|d| d.decl_file);
            ReplacedFunction {
                name: old.name().to_owned(),
                old: OldAddr(old.address),
                old_size: old.size,
                new: new.map(|n| NewAddr(n.address)),
                new_size: new.map_or(0, |n| n.size),
                file: file.map_or_else(String::new, |f| pair.old.debug.lines.file(f).to_owned()),
                line: declared.map_or(0, |d| d.decl_line),
                why,
                coverage: Coverage::default(),
            }
        })
        .collect()
}

fn added(inputs: Inputs<'_>, placed: &shadow::Placed, out: &mut Emitted) {
    let Inputs { pair, data, .. } = inputs;
    for id in &placed.functions {
        let function = pair.new.function(*id);
        if pair.matching.old_of(*id).is_none() && function.import.is_none() {
            out.added.push(AddedFunction {
                name: function.name().to_owned(),
                new: NewAddr(function.address),
                size: function.size,
            });
        }
    }
    out.refusals.extend(placed.objects.iter().filter_map(|id| data.doubtful.get(id).cloned()));
    for id in &placed.objects {
        let object = pair.new.object(*id);
        let known = pair.matching.old_object(*id).is_some_and(|o| data.moved.contains_key(&o));
        let constant = object.storage == crate::image::Storage::Constant;
        let of_the_compiler = constant && crate::matching::names::is_numbered(object.name());
        if !known && !of_the_compiler {
            out.data.push(DataChange {
                name: object.name().to_owned(),
                old_size: 0,
                new_size: object.size,
                action: DataAction::Added,
                why: if constant { "a new table" } else { "a new variable" }.to_owned(),
            });
        }
    }
}
