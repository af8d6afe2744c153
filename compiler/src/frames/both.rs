//! Both bodies of one replaced function, as the simulation relation sees them.
//!
//! Takes their graphs with what is known of them; gives whom they call, which calls are the same, and the
//! relation for a matching of their blocks.

use super::addresses::{self, Texts};
use super::entry::Entry;
use super::fates::Fates;
use super::function::Shared;
use super::relation::{Before, Bodies, Relation, TooLarge};
use super::value::{Place, Side, Values};
use super::{exec, strings};
use crate::code::Step;
use crate::image::{FunctionId, Image};
use crate::machine::Analysis;
use crate::machine::calls::{Callee, callee};
use crate::machine::flow::{BlockId, End, Flow};
use crate::machine::live::StackObject;
use crate::matching::names;
use crate::sites::matching::BlockMatching;
use crate::sites::matching::evidence::Evidence;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
/// Pairs found out by the relation may be given up this often before it is taken as it is.
const ROUNDS: usize = 6;
/// On ways that are seldom worth much no pair is given up any more after so many executions of points.
const MOST_VISITS: usize = 8_000;
/// Whom each block of OLD, and of NEW, that ends with a call calls.
pub(super) type Callees = (BTreeMap<BlockId, Callee>, BTreeMap<BlockId, Callee>);

/// Both bodies of one function.
pub(super) struct Both<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) old: FunctionId,
    pub(super) analyses: (&'a Analysis, &'a Analysis),
    pub(super) flows: (&'a Flow, &'a Flow),
    pub(super) entry: Entry,
    pub(super) evidence: Evidence,
    /// Blocks are followed together with copies of their partners, too.
    pub(super) copied: bool,
    /// More is done to know what loops count with.
    pub(super) further: bool,
    /// The literals of both.
    pub(super) texts: Texts,
    /// Whose bodies each has inlined, by what the source calls them.
    pub(super) inlined: (BTreeSet<String>, BTreeSet<String>),
    /// Whether either has to do with variables that only its file knows.
    pub(super) keeps_own: bool,
    /// So many bytes NEW's frame is to stand lower than OLD's; its analysis says so already.
    pub(super) lowered: u64,
    /// NEW's code is a copy with objects of its frame elsewhere.
    pub(super) relaid: bool,
}

impl Both<'_> {
    /// The relation, and what it becomes as pairs are given up that it finds out; nothing when it does not
    /// settle.
    pub(super) fn relations(
        &self,
        mut matching: BlockMatching,
        points: &BTreeSet<BlockId>,
    ) -> Vec<(Relation, BlockMatching)> {
        let is_extra =
            self.further || [self.flows.0, self.flows.1].iter().any(|f| !f.whole.is_empty());
        let (mut found, mut visits) = (Vec::new(), 0);
        while found.len() < ROUNDS && !(is_extra && visits > MOST_VISITS) {
            let Ok(relation) = self.relation(&matching) else { return Vec::new() };
            visits += relation.visits;
            let failing: Vec<BlockId> = relation.failures.iter().map(|f| f.0).collect();
            found.push((relation, matching.clone()));
            let give_up = failing.iter().find(|b| b.0 != 0 && !points.contains(b));
            match give_up.or_else(|| failing.iter().find(|b| b.0 != 0)) {
                Some(block) => matching.unmatch(*block),
                None => break,
            };
        }
        found
    }

    fn relation(&self, matching: &BlockMatching) -> Result<Relation, TooLarge> {
        self.bodies(matching, Relation::new)
    }

    /// The graphs of both with loops that make numbers of numbers alone as one block each, where there are any.
    pub(super) fn collapsed(&self, matching: &BlockMatching) -> (Option<Flow>, Option<Flow>) {
        self.bodies(matching, |bodies| (bodies.collapsed(Side::Old), bodies.collapsed(Side::New)))
    }

    /// What holds just before each call that both bodies make, by OLD's block.
    pub(super) fn before_calls(
        &self,
        matching: &BlockMatching,
        relation: &mut Relation,
    ) -> BTreeMap<BlockId, Before> {
        self.bodies(matching, |bodies| {
            let all = matching.new_of.iter().enumerate().map(|(old, new)| (BlockId(old), *new));
            let before = |(old, new): (BlockId, Option<BlockId>)| {
                let new = if self.copied { relation.only(old) } else { new }?;
                Some((old, relation.before_call(bodies, old, new)?))
            };
            all.filter_map(before).collect()
        })
    }

    /// Gives both bodies, as the relation sees them, to `then`.
    fn bodies<R>(&self, matching: &BlockMatching, then: impl FnOnce(&Bodies<'_>) -> R) -> R {
        let pair = self.shared.inputs.pair;
        let (old, new) = self.flows;
        let extents = |analysis: &Analysis| -> Vec<Range<i64>> {
            analysis.objects.iter().map(|o| o.extent.clone()).collect()
        };
        let (old_objects, new_objects) = (extents(self.analyses.0), extents(self.analyses.1));
        let (old_locals, new_locals) = self.locals();
        let old_address = |values: &mut Values, step: &Step, immediate: bool| {
            addresses::old(pair.old, &self.texts, values, step, immediate)
        };
        let new_address = |values: &mut Values, step: &Step, immediate: bool| {
            addresses::new(self.shared.fixups, values, step, immediate)
        };
        let callees = self.callees();
        let same_callee = |a, b| self.same_call(&callees, a, b);
        let fates = Fates { both: self, matching, callees: &callees };
        let all = |flow: &Flow| (0..flow.blocks.len()).map(BlockId);
        let is_inserted: Vec<bool> = all(new).map(|b| fates.is_inserted(b)).collect();
        let is_removed: Vec<bool> = all(old).map(|b| fates.is_removed(b)).collect();
        let inserted = |block: BlockId| is_inserted[block.0];
        let removed = |block: BlockId| is_removed[block.0];
        let barrier = |block: BlockId| fates.is_barrier(block);
        let looks_anywhere = |side: Side, block: BlockId| {
            let callees = if side == Side::Old { &callees.0 } else { &callees.1 };
            self.looks_anywhere(side, callees.get(&block))
        };
        let kept = |side: Side, block: BlockId, place: Place| {
            let (callees, clobbers) = match side {
                Side::Old => (&callees.0, self.shared.clobbers.0),
                Side::New => (&callees.1, self.shared.clobbers.1),
            };
            match (callees.get(&block), place) {
                (Some(Callee::Function(id)), Place::General(number)) => {
                    clobbers.keeps_general(*id, number)
                }
                (Some(Callee::Function(id)), Place::Lane(number, _)) => {
                    clobbers.keeps_vector(*id, number)
                }
                _ => false,
            }
        };
        let entry = |place: Place| self.entry.counterpart(place);
        let intact =
            (!self.analyses.0.overwrites_arguments(), !self.analyses.1.overwrites_arguments());
        let old_incoming = |place: Place| intact.0.then_some(place);
        let new_incoming = |place: Place| self.entry.counterpart(place).filter(|_| intact.1);
        let depth = |side: Side, block: BlockId| {
            let analysis = match side {
                Side::Old => self.analyses.0,
                Side::New => self.analyses.1,
            };
            analysis.frame.depth(analysis.flow.blocks[block.0].steps.start)
        };
        let (a, b) = self.analyses;
        let live = |side: Side, block: BlockId| {
            let analysis = if side == Side::Old { a } else { b };
            &analysis.live[analysis.flow.blocks[block.0].steps.start]
        };
        then(&Bodies {
            old,
            new,
            matching,
            old_context: exec::Context {
                side: Side::Old,
                image: pair.old,
                old: pair.old,
                address: &old_address,
                objects: &old_objects,
                locals: &old_locals,
                incoming: &old_incoming,
                added: &[],
                backwards: strings::go_backwards(old),
                overwritten: &self.shared.overwritten,
                forgotten: &self.shared.forgotten,
            },
            new_context: exec::Context {
                side: Side::New,
                image: pair.new,
                old: pair.old,
                address: &new_address,
                objects: &new_objects,
                locals: &new_locals,
                incoming: &new_incoming,
                added: &self.evidence.added,
                backwards: strings::go_backwards(new),
                overwritten: &self.shared.overwritten,
                forgotten: &[],
            },
            same_callee: &same_callee,
            inserted: &inserted,
            removed: &removed,
            barrier: &barrier,
            looks_anywhere: &looks_anywhere,
            evidence: &self.evidence,
            copied: self.copied,
            further: self.further,
            kept: &kept,
            entry: &entry,
            depth: &depth,
            live: &live,
        })
    }

    /// Whether a callee of one side, if there is one, may look at any memory that the two have to do with.
    pub(super) fn looks_anywhere(&self, side: Side, callee: Option<&Callee>) -> bool {
        self.shared.looks_anywhere(side, callee, self.keeps_own)
    }

    /// Locals whose address is taken that both bodies have, each with its extent and a common number: by
    /// their names, where there is one of each.
    fn locals(&self) -> (Vec<exec::Numbered>, Vec<exec::Numbered>) {
        let (old, new) = (&self.analyses.0.objects, &self.analyses.1.objects);
        let only = |objects: &[StackObject], name: &str| {
            let mut found = objects.iter().filter(|o| o.name.as_deref() == Some(name));
            let one = found.next().map(|o| o.extent.clone());
            one.filter(|_| found.next().is_none())
        };
        let mut both = (Vec::new(), Vec::new());
        for (number, object) in (0..).zip(old) {
            let Some(name) = &object.name else { continue };
            if let (Some(a), Some(b)) = (only(old, name), only(new, name))
                && a.end - a.start == b.end - b.start
            {
                both.0.push((a, number));
                both.1.push((b, number));
            }
        }
        both
    }

    /// Whom each block that ends with a call calls.
    pub(super) fn callees(&self) -> Callees {
        let of = |image: &Image, flow: &Flow| {
            let calls = flow.blocks.iter().enumerate().filter(|(_, b)| b.end == End::Call);
            calls
                .map(|(i, b)| (BlockId(i), callee(image, &flow.body.steps[b.steps.end - 1])))
                .collect()
        };
        let pair = self.shared.inputs.pair;
        let (old, new) = self.flows;
        (of(pair.old, old), of(pair.new, new))
    }

    /// Whether an OLD block and a NEW one end with the same call.
    pub(super) fn same_call(&self, callees: &Callees, old: BlockId, new: BlockId) -> bool {
        let both = callees.0.get(&old).zip(callees.1.get(&new));
        both.is_some_and(|(a, b)| {
            self.same_callee(a, b)
                || self.evidence.is_same_place(old, new) && self.is_specialized(a, b)
        })
    }

    /// Whether a build has made a function anew for what its callers give it, and the other build has not:
    /// the one source makes the two calls the same if they are at one place of it.
    fn is_specialized(&self, a: &Callee, b: &Callee) -> bool {
        let pair = self.shared.inputs.pair;
        let (Callee::Function(a), Callee::Function(b)) = (a, b) else { return false };
        let name = |image: &Image, id: FunctionId| names::canonical(image.function(id).name());
        names::is_specialized(&name(pair.old, *a), &name(pair.new, *b))
    }

    /// Whether two calls lead to one function.
    pub(super) fn same_callee(&self, a: &Callee, b: &Callee) -> bool {
        match (a, b) {
            (Callee::Function(a), Callee::Function(b)) => {
                self.shared.inputs.pair.matching.is_pair(*a, *b)
            }
            (Callee::Import(a), Callee::Import(b)) => a == b,
            (Callee::Unknown, Callee::Unknown) => true,
            _ => false,
        }
    }
}
