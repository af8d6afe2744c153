//! One point of one function: whether OLD's frame goes on in NEW from there, and how.

use super::Proven;
use super::beginning::Rounds;
use super::both::{Both, Callees};
use super::ends::Ends;
use super::overdue;
use super::relation::{Before, Relation, Returned};
use super::source;
use super::state::Doubt;
use super::translate::{self, Obstacle, Pending, translate};
use super::unread::Unread;
use super::value::Place;
use super::variables::Variables;
use crate::image::Image;
use crate::machine::calls::Callee;
use crate::machine::flow::{BlockId, Flow};
use crate::sites::matching::BlockMatching;
use dsu_patch_format::frames::{Location, Move, Proof, Translation, Value};
use dsu_patch_format::plan::SiteKind;
use dsu_patch_format::{NewAddr, OldAddr};
use std::collections::BTreeMap;

/// A point of OLD that would be a site.
pub(super) struct Wanted {
    pub(super) at: u64,
    pub(super) kind: SiteKind,
    pub(super) block: BlockId,
    /// The block that ends with the call, for a return point.
    pub(super) call: Option<BlockId>,
    /// The point is the call that the block ends with, not the block's beginning.
    pub(super) last: bool,
}

impl Wanted {
    /// The instruction in a graph at which the point is, if it is of this block.
    fn step(&self, flow: &Flow, block: BlockId) -> usize {
        let steps = &flow.blocks[block.0].steps;
        if self.last { steps.end - 1 } else { steps.start }
    }
}

/// What is known of a pair of functions beside the relation.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) variables: &'a Variables<'a>,
    pub(super) named: &'a source::Named,
    /// OLD's loops.
    pub(super) old_rounds: &'a Rounds,
    /// NEW's.
    pub(super) rounds: &'a Rounds,
    /// Where NEW's code relies on nothing that memory holds.
    pub(super) unread: &'a Unread,
    /// Loops of NEW's that end with an exact number.
    pub(super) ends: &'a Ends,
    /// What holds just before calls, where that was asked for.
    pub(super) before: &'a BTreeMap<BlockId, Before>,
}

impl Both<'_> {
    /// Registers that callers rely on stay as they are, and the stub must not use them for itself.
    fn leave_alone(&self, translation: &mut Translation) -> Result<(), Vec<Obstacle>> {
        let relied = &self.shared.relied;
        let same = |m: &Move| m.from == Value::At(m.to);
        for number in 0..16 {
            let is_it =
                |m: &&Move| matches!(m.to, Location::General { number: n, .. } if n == number);
            let to = Location::General { number, bytes: 8 };
            match translation.moves.iter().find(is_it) {
                _ if !relied.general(self.old, number) => {}
                Some(m) if m.to == to && same(m) => {}
                None => {
                    let keep = Move { to, from: Value::At(to), proof: Proof::Equal };
                    translation.moves.push(keep);
                }
                Some(_) => return Err(relied_on("a register")),
            }
        }
        let vectors = translation.moves.iter().filter(|m| !same(m)).filter_map(|m| match m.to {
            Location::Vector { number, .. } => Some(number),
            _ => None,
        });
        for number in vectors {
            if relied.vector(self.old, number) {
                return Err(relied_on("a vector register"));
            }
        }
        translation.moves.sort_by_key(|m| m.to);
        Ok(())
    }

    /// The block at which NEW is when OLD is at a point, and what holds there where that is not the partner
    /// of OLD's block but what comes before it: one build may have statements more behind a call.
    fn counterpart(
        &self,
        point: &Wanted,
        callees: &Callees,
        matching: &BlockMatching,
        relation: &mut Relation,
    ) -> Result<(BlockId, Option<Returned>), &'static str> {
        let new = self.flows.1;
        let partner = match self.copied {
            true => relation.only(point.block),
            false => matching.new_of[point.block.0],
        };
        let none = "no counterpart of this point was found in NEW";
        let Some(call) = point.call else {
            return partner.map(|partner| (partner, None)).ok_or(none);
        };
        let is_call = |block: BlockId| self.same_call(callees, call, block);
        let is_behind = |block: &BlockId| {
            let mut all = (0..new.blocks.len()).map(BlockId);
            all.any(|b| new.return_point(b) == Some(*block) && is_call(b))
        };
        if let Some(partner) = partner.filter(is_behind) {
            return Ok((partner, None));
        }
        match (relation.returned(new, point.block, &is_call), partner) {
            (Some(returned), _) => Ok((returned.new, Some(returned))),
            (None, Some(_)) => Err("NEW does not make this call here"),
            (None, None) => Err(none),
        }
    }

    /// The translation of one point.
    pub(super) fn site(
        &self,
        point: &Wanted,
        matching: &BlockMatching,
        relation: &mut Relation,
        known: Known<'_>,
    ) -> Result<Proven, Vec<Obstacle>> {
        let fail = |text: &str| Err(vec![Obstacle::new(text)]);
        let (old, new) = self.flows;
        let callees = self.callees();
        let (new_block, returned) = match self.counterpart(point, &callees, matching, relation) {
            Ok(found) => found,
            Err(text) => return fail(text),
        };
        if old.is_inside(point.block) || new.is_inside(new_block) {
            return fail("the loop is followed as a whole, and nothing is known inside of it");
        }
        if let Some(call) = point.call {
            // Unless the user says that none passes.
            if old.blocks[call.0].successors.len() > 1 && !self.shared.inputs.no_unwinding {
                return fail(
                    "an exception of the callee may land in this function (--accept-no-unwinding says \
                     that none does)",
                );
            }
        }
        let before = if point.last { known.before.get(&point.block) } else { None };
        let (state, arrivals, settled) = match before {
            Some(before) => (before.state.clone(), before.arrivals.clone(), before.settled),
            None if point.last => return fail("NEW does not make this call here"),
            None => {
                let known = match returned {
                    Some(returned) => Some((returned.state, returned.arrivals)),
                    None => relation
                        .at(point.block, new_block)
                        .map(|state| (state, relation.arrivals(point.block, new_block))),
                };
                let Some((state, arrivals)) = known else { return fail("no path leads here") };
                let settled = state.old.memory() == state.new.memory();
                (state, arrivals, settled)
            }
        };
        if state.doubt != Doubt::None {
            return fail("OLD comes here in a way that NEW cannot: it may be elsewhere");
        }
        if !settled {
            return fail(
                "one of both builds has stored something by then that the other stores only later",
            );
        }
        let (i, j) = (point.step(old, point.block), point.step(new, new_block));
        if state.changed && !known.unread.holds(new_block, new.blocks[new_block.0].steps.start..j) {
            return fail(
                "a call that NEW does not make may have changed what NEW has read or stored by then",
            );
        }
        if let Some(test) = known.ends.open(relation, new_block) {
            let last = &new.body.steps[new.blocks[test.0].steps.end - 1];
            let pair = self.shared.inputs.pair;
            return fail(&ended(pair.new, last.address()));
        }
        if is_interruptible(old, i) {
            return fail("the instruction here may be half done");
        }
        let (a, b) = self.analyses;
        let callee = point.call.and_then(|call| callees.0.get(&call));
        let kept = |place: Place| match callee {
            Some(Callee::Function(id)) if !self.shared.through.contains(id) => {
                self.shared.keeps(*id, place)
            }
            _ => false,
        };
        let is_new_call = |step: u32| {
            let step = usize::try_from(step).ok().and_then(|step| new.body.steps.get(step));
            step.is_some_and(|s| {
                s.instruction.is_call_near() || s.instruction.is_call_near_indirect()
            })
        };
        let (values, arrived) = relation.parts();
        let earlier = overdue::earlier(
            arrived,
            matching,
            self.flows,
            (known.old_rounds, known.rounds),
            (point.block, new_block, point.last),
        );
        let pending = Pending {
            entry: &self.entry,
            is_new_call: &is_new_call,
            kept: &kept,
            at: point.at,
            to: new.body.steps[j].address(),
            kind: point.kind,
            state: &state,
            arrivals: &arrivals,
            old_live: &a.live[i],
            new_live: &b.live[j],
            old_objects: &a.objects,
            new_objects: b
                .objects
                .iter()
                .map(|o| (o, o.live.get(j).copied().unwrap_or(true)))
                .collect(),
            variables: known.variables,
            named: known.named,
            old_saved: a.frame.saved(i),
            new_saved: b.frame.saved(j),
            beginnings: known.rounds.of(arrived),
            earlier,
            init_new_locals: self.shared.inputs.init_new_locals,
            lowered: self.lowered,
        };
        let mut translation = translate(values, &pending)?;
        self.leave_alone(&mut translation)?;
        let to = NewAddr(pending.to);
        let at = OldAddr(point.at);
        let leaves_behind = translate::leaves_behind(&pending);
        let relaid = self.relaid;
        Ok(Proven { at, kind: point.kind, to, translation, relaid, leaves_behind })
    }
}

/// Of a loop of NEW's.
fn ended(new: &Image, test: u64) -> String {
    let (file, line) = new.debug.position(test).unwrap_or(("NEW", 0));
    let file = file.rsplit('/').next().unwrap_or(file);
    format!(
        "NEW's loop ends with just one number ({file}:{line}), by a test that was not shown to be OLD's: OLD may be \
         further on"
    )
}

fn relied_on(what: &str) -> Vec<Obstacle> {
    let text = format!("a caller keeps a value in {what} that OLD leaves alone and NEW needs");
    vec![Obstacle::new(text)]
}

/// Whether an instruction may be interrupted half done, to go on with what it has changed in
/// registers so far: then being at its address says nothing (SDM volume 2, REP; VGATHER).
fn is_interruptible(flow: &Flow, step: usize) -> bool {
    flow.body.steps.get(step).is_some_and(|step| {
        let i = &step.instruction;
        i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix())
            || i.memory_index().is_vector_register()
    })
}

/// The points of OLD that would be sites: behind calls, loop heads.
pub(super) fn wanted(flow: &Flow) -> Vec<Wanted> {
    let mut points: BTreeMap<u64, Wanted> = BTreeMap::new();
    for (i, block) in flow.blocks.iter().enumerate() {
        let Some(behind) = flow.return_point(BlockId(i)) else { continue };
        let at = flow.body.steps[block.steps.end - 1].end();
        points.insert(
            at,
            Wanted {
                at,
                kind: SiteKind::Return,
                block: behind,
                call: Some(BlockId(i)),
                last: false,
            },
        );
    }
    for head in crate::machine::dominators::loop_heads(flow) {
        let at = flow.body.steps[flow.blocks[head.0].steps.start].address();
        // The entry itself is where the redirect is.
        if at != flow.entry {
            points.entry(at).or_insert(Wanted {
                at,
                kind: SiteKind::Loop,
                block: head,
                call: None,
                last: false,
            });
        }
    }
    points.into_values().collect()
}
