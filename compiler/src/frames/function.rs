//! One replaced function: its points, the relation between its bodies, and a translation for each point.

use super::barriers::Barriers;
use super::beginning::Rounds;
use super::entry::Entry;
use super::fates::Fates;
use super::relation::{Before, Bodies, Relation};
use super::state::Doubt;
use super::translate::{Obstacle, Pending, translate};
use super::value::{Place, Side};
use super::variables::{self, Variables};
use super::{Blind, Carried, Proven, addresses, clones, exec, repair, source, strings};
use crate::debug::Locals;
use crate::emit::Inputs;
use crate::image::{FunctionId, Image};
use crate::machine::calls::{Callee, callee};
use crate::machine::flow::{BlockId, End, Flow};
use crate::machine::live::StackObject;
use crate::machine::{Analysis, Clobbers, Relied, Returning};
use crate::matching::names;
use crate::sites::matching::evidence::Evidence;
use crate::sites::matching::{BlockMatching, match_blocks};
use crate::sites::passages;
use dsu_patch_format::frames::{Location, Move, Proof, Translation, Value};
use dsu_patch_format::plan::{Fixup, SiteKind};
use dsu_patch_format::{NewAddr, OldAddr};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Pairs found out by the relation may be given up this often before it is taken as it is.
const ROUNDS: usize = 6;

/// What all functions of a patch share.
pub(super) struct Shared<'a> {
    pub inputs: Inputs<'a>,
    pub fixups: &'a [Fixup],
    pub clobbers: (&'a Clobbers, &'a Clobbers),
    pub barriers: (&'a Barriers, &'a Barriers),
    pub returning: (&'a Returning<'a>, &'a Returning<'a>),
    /// Caller-saved registers in which somebody keeps a value while a function runs.
    pub relied: Relied,
    /// Where OLD's objects are that the commit overwrites.
    pub overwritten: Vec<Range<u64>>,
    /// Where those are that NEW has elsewhere.
    pub left: Vec<Range<u64>>,
    /// Where those are that nothing of NEW can read.
    pub forgotten: Vec<Range<u64>>,
    /// OLD functions below which a replaced one may be running.
    pub through: BTreeSet<FunctionId>,
}

impl Shared<'_> {
    /// Whether OLD's code cannot run on beside NEW's, were it for a moment: the commit changes what it
    /// refers to, or the layout of what may come into its hands.
    fn is_disturbed(&self, old: &Flow) -> bool {
        let changed = |places| passages::refers_to(&old.body, places);
        self.inputs.layouts_accepted || changed(&self.overwritten) || changed(&self.left)
    }
}

/// A point of OLD that would be a site.
struct Wanted {
    at: u64,
    kind: SiteKind,
    block: BlockId,
    /// The block that ends with the call, for a return point.
    call: Option<BlockId>,
    /// The point is the call that the block ends with, not the block's beginning.
    last: bool,
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
struct Known<'a> {
    variables: &'a Variables<'a>,
    named: &'a source::Named,
    rounds: &'a Rounds,
    /// What holds just before calls, where that was asked for.
    before: &'a BTreeMap<BlockId, Before>,
}

/// A pair of functions and the relation between its bodies.
struct View<'a> {
    both: Both<'a>,
    relation: Relation,
    matching: BlockMatching,
    variables: Variables<'a>,
    named: source::Named,
    rounds: Rounds,
    /// What holds just before calls, where that was asked for.
    before: BTreeMap<BlockId, Before>,
}

/// Translates what can be of one function's frames.
pub(super) fn carry(shared: &Shared<'_>, old: FunctionId, new: FunctionId) -> Carried {
    let pair = shared.inputs.pair;
    let f = pair.old.function(old);
    let old_locals = pair.old.locals(f).unwrap_or_default();
    let whole = clones::whole(pair, new);
    let (g, new_locals) = (&whole.function, &whole.locals);
    let a = Analysis::new(pair.old, (old, f), &old_locals, shared.clobbers.0);
    let b = Analysis::new(pair.new, (new, g), new_locals, shared.clobbers.1);
    let mut carried = Carried {
        function: old,
        proven: Vec::new(),
        blind: Vec::new(),
        dead_returns: dead_returns(&a.flow),
        flow: None,
        unexpected: BTreeSet::new(),
    };
    let wanted = wanted(&a.flow);
    let all_blind = |carried: &mut Carried, text: String| {
        carried.blind = wanted
            .iter()
            .map(|w| Blind {
                at: OldAddr(w.at),
                kind: w.kind,
                obstacles: vec![Obstacle { text: text.clone(), new_local: false }],
            })
            .collect();
    };
    for (analysis, side) in [(&a, "OLD"), (&b, "NEW")] {
        if let Some(problem) = &analysis.problem {
            all_blind(&mut carried, format!("{side}'s code: {problem}"));
            return carried;
        }
        if !analysis.flow.returns_twice.is_empty() {
            let text = "the function calls setjmp or the like: its frame may be used a second time";
            all_blind(&mut carried, text.to_owned());
            return carried;
        }
    }
    // Behind calls that never come back compilers put any other path's code. Claims that nobody comes from
    // there are good for all points but those behind such calls: a callee that is replaced, too, may
    // return some day.
    let (returning, other) = shared.returning;
    let trimmed = (returning.trimmed(&a.flow), other.trimmed(&b.flow));
    let dead = |call: BlockId| trimmed.0.blocks[call.0].end != a.flow.blocks[call.0].end;
    let calls = |flow: &Flow| flow.blocks.iter().filter(|b| b.end == End::Call).count();
    let all = (&a.flow, &b.flow);
    let is_trimmed = calls(&trimmed.0) != calls(all.0) || calls(&trimmed.1) != calls(all.1);
    let locals = (&old_locals, new_locals);
    let view = |flows, copied| {
        View::new(shared, (old, new), (&a, &b), (flows, copied), locals, &whole, &wanted)
    };
    let mut views = vec![view(all, false)];
    if is_trimmed {
        views.insert(0, view((&trimmed.0, &trimmed.1), false));
    }
    let Some(mut views) = views.into_iter().collect::<Option<Vec<_>>>() else {
        all_blind(&mut carried, "the function is too large to be followed".to_owned());
        return carried;
    };
    let mut open = Vec::new();
    for point in &wanted {
        let first = if point.call.is_some_and(dead) { views.len() - 1 } else { 0 };
        let mut result = views[first].site(point);
        if let (Err(_), Some(view)) = (&result, views.get_mut(first + 1)) {
            result = view.site(point).or(result);
        }
        match result {
            Ok(proven) => carried.proven.push(proven),
            Err(obstacles) => open.push((point, obstacles)),
        }
    }
    // Where that is not enough, blocks that one build has twice are followed, too; what is behind calls
    // that never come back stays out of it.
    if let Some(mut more) =
        (!open.is_empty()).then(|| view((&trimmed.0, &trimmed.1), true)).flatten()
    {
        open.retain(|(point, _)| {
            let found = if point.call.is_some_and(dead) { None } else { more.site(point).ok() };
            let is_open = found.is_none();
            carried.proven.extend(found);
            is_open
        });
        views.push(more);
    }
    carried.blind = open
        .into_iter()
        .map(|(w, obstacles)| Blind { at: OldAddr(w.at), kind: w.kind, obstacles })
        .collect();
    if shared.is_disturbed(&a.flow) {
        return carried;
    }
    if !carried.blind.is_empty() {
        views.iter_mut().for_each(View::look_before_calls);
        let mut site = |point: &Wanted| views.iter_mut().find_map(|view| view.site(point).ok());
        rescue(&a.flow, &mut carried, &mut site);
    }
    carried.unexpected = unexpected(&a.flow, dead);
    drop(views);
    carried.flow = Some(a.flow);
    carried
}

/// Return addresses behind the calls that `is_dead`.
fn unexpected(flow: &Flow, is_dead: impl Fn(BlockId) -> bool) -> BTreeSet<u64> {
    let calls = (0..flow.blocks.len()).map(BlockId).filter(|block| is_dead(*block));
    calls.map(|block| flow.body.steps[flow.blocks[block.0].steps.end - 1].end()).collect()
}

/// Makes sites of the points in between to which blind ones lead, wherever that can be proven.
fn rescue(flow: &Flow, carried: &mut Carried, site: &mut dyn FnMut(&Wanted) -> Option<Proven>) {
    let steps = &flow.body.steps;
    let mut proven: BTreeSet<u64> = carried.proven.iter().map(|p| p.at.0).collect();
    let mut queue: Vec<usize> =
        carried.blind.iter().filter_map(|b| flow.body.index_at(b.at.0)).collect();
    let tried: BTreeSet<u64> = carried.blind.iter().map(|b| b.at.0).collect();
    let mut seen: BTreeSet<usize> = queue.iter().copied().collect();
    while let Some(index) = queue.pop() {
        for next in flow.next(index) {
            if proven.contains(&steps[next].address()) || !seen.insert(next) {
                continue;
            }
            let block = flow.block_of[next];
            let (first, last) = (flow.block(next).steps.start, flow.block(next).steps.end - 1);
            let calls = next == last && flow.block(next).end == End::Call;
            let at = steps[next].address();
            let point = |last| Wanted { at, kind: SiteKind::Point, block, call: None, last };
            // What is blind stays so: a callee that returns there keeps less than a jump does.
            let begins = next == first && !tried.contains(&at) && !flow.block(next).landing_pad;
            let found = begins.then(|| site(&point(false))).flatten();
            match found.or_else(|| calls.then(|| site(&point(true))).flatten()) {
                Some(found) => {
                    proven.insert(at);
                    carried.proven.push(found);
                }
                None if calls => {}
                None => queue.push(next),
            }
        }
    }
}

impl<'a> View<'a> {
    /// Matches and relates both bodies by these graphs of theirs, together with copies of blocks or not;
    /// `None` when it does not settle.
    fn new(
        shared: &'a Shared<'a>,
        (old, new): (FunctionId, FunctionId),
        (a, b): (&'a Analysis, &'a Analysis),
        (flows, copied): ((&'a Flow, &'a Flow), bool),
        locals: (&'a Locals, &'a Locals),
        whole: &clones::Whole,
        wanted: &[Wanted],
    ) -> Option<Self> {
        let pair = shared.inputs.pair;
        let (f, g) = (pair.old.function(old), &whole.function);
        let (mut matching, evidence) =
            match_blocks(pair, (flows.0, locals.0), (flows.1, locals.1), whole.start(flows.1));
        let own = pair.new.locals(pair.new.function(new)).unwrap_or_default();
        let entry = Entry::new((pair.old, f, locals.0), (pair.new, g, &own));
        let both = Both { shared, old, analyses: (a, b), flows, entry, evidence, copied };
        let callees = both.callees();
        let same_call = |a, b| both.same_call(&callees, a, b) || both.evidence.is_same_place(a, b);
        let points: BTreeSet<BlockId> = wanted.iter().map(|w| w.block).collect();
        let precious = |block: BlockId| points.contains(&block);
        let kept = |block: BlockId| !copied || precious(block);
        if copied {
            super::copied::part_jumps(flows.0, flows.1, &mut matching);
        }
        repair::realign(flows.0, flows.1, &mut matching, &same_call, &kept);
        repair::repair(flows.0, flows.1, &mut matching, &precious);
        let relations = both.relations(matching, &points);
        let variables = Variables::new(
            variables::Side { image: pair.old, locals: locals.0, flow: flows.0 },
            variables::Side { image: pair.new, locals: locals.1, flow: flows.1 },
        );
        let named = addresses::named(shared.fixups, &flows.1.body);
        let rounds = Rounds::new(flows.1);
        let before = BTreeMap::new();
        let known =
            Known { variables: &variables, named: &named, rounds: &rounds, before: &before };
        let is_only = relations.len() == 1;
        let good = |(relation, matching): &mut (Relation, BlockMatching)| {
            let mut proven = |point: &&Wanted| both.site(point, matching, relation, known).is_ok();
            let proven = if is_only { 0 } else { wanted.iter().filter(|w| proven(w)).count() };
            (Reverse(relation.failures.len()), proven)
        };
        let rated = relations.into_iter().map(|mut one| (good(&mut one), one));
        // Of those that are as good the first one, for which least was given up.
        let best = rated.reduce(|best, next| if next.0 > best.0 { next } else { best });
        let (relation, matching) = best?.1;
        Some(Self { both, relation, matching, variables, named, rounds, before })
    }

    /// Before points that are calls can be asked for.
    fn look_before_calls(&mut self) {
        self.before = self.both.before_calls(&self.matching, &mut self.relation);
    }

    /// The translation of one point.
    fn site(&mut self, point: &Wanted) -> Result<Proven, Vec<Obstacle>> {
        let Self { both, relation, matching, variables, named, rounds, before } = self;
        both.site(point, matching, relation, Known { variables, named, rounds, before })
    }
}

/// Whom each block of OLD, and of NEW, that ends with a call calls.
type Callees = (BTreeMap<BlockId, Callee>, BTreeMap<BlockId, Callee>);

/// Both bodies of one function.
pub(super) struct Both<'a> {
    pub(super) shared: &'a Shared<'a>,
    old: FunctionId,
    pub(super) analyses: (&'a Analysis, &'a Analysis),
    flows: (&'a Flow, &'a Flow),
    entry: Entry,
    pub(super) evidence: Evidence,
    /// Blocks are followed together with copies of their partners, too.
    copied: bool,
}

impl Both<'_> {
    /// The relation, and what it becomes as pairs are given up that it finds out; nothing when it does not
    /// settle.
    fn relations(
        &self,
        mut matching: BlockMatching,
        points: &BTreeSet<BlockId>,
    ) -> Vec<(Relation, BlockMatching)> {
        let mut found = Vec::new();
        while found.len() < ROUNDS {
            let Ok(relation) = self.relation(&matching) else { return Vec::new() };
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

    fn relation(&self, matching: &BlockMatching) -> Result<Relation, super::relation::TooLarge> {
        self.bodies(matching, Relation::new)
    }

    /// What holds just before each call that both bodies make, by OLD's block.
    fn before_calls(
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
        let extents = |analysis: &Analysis| -> Vec<std::ops::Range<i64>> {
            analysis.objects.iter().map(|o| o.extent.clone()).collect()
        };
        let (old_objects, new_objects) = (extents(self.analyses.0), extents(self.analyses.1));
        let (old_locals, new_locals) = self.locals();
        let old_address =
            |values: &mut super::value::Values, step: &crate::code::Step, immediate: bool| {
                addresses::old(pair.old, values, step, immediate)
            };
        let new_address =
            |values: &mut super::value::Values, step: &crate::code::Step, immediate: bool| {
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
            evidence: &self.evidence,
            copied: self.copied,
            kept: &kept,
            entry: &entry,
            depth: &depth,
        })
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
    fn callees(&self) -> Callees {
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

    /// Whether a callee keeps a caller-saved register in both builds.
    fn keeps(&self, callee: FunctionId, place: Place) -> bool {
        let (old, new) = self.shared.clobbers;
        let Some(partner) = self.shared.inputs.pair.matching.new_of(callee) else { return false };
        match place {
            Place::General(n) => old.keeps_general(callee, n) && new.keeps_general(partner, n),
            Place::Lane(n, _) => old.keeps_vector(callee, n) && new.keeps_vector(partner, n),
            _ => false,
        }
    }

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

    /// The translation of one point.
    fn site(
        &self,
        point: &Wanted,
        matching: &BlockMatching,
        relation: &mut Relation,
        known: Known<'_>,
    ) -> Result<Proven, Vec<Obstacle>> {
        let fail = |text: &str| Err(vec![Obstacle { text: text.to_owned(), new_local: false }]);
        let (old, new) = self.flows;
        let partner = match self.copied {
            true => relation.only(point.block),
            false => matching.new_of[point.block.0],
        };
        let Some(partner) = partner else {
            return fail("no counterpart of this point was found in NEW");
        };
        if let Some(call) = point.call {
            let callees = self.callees();
            let fits = new.blocks.iter().enumerate().any(|(i, b)| {
                b.end == End::Call
                    && b.successors.first() == Some(&partner)
                    && self.same_call(&callees, call, BlockId(i))
            });
            if !fits {
                return fail("NEW does not make this call here");
            }
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
                let Some(state) = relation.at(point.block, partner) else {
                    return fail("no path leads here");
                };
                let settled = state.old.memory() == state.new.memory();
                (state, relation.arrivals(point.block, partner), settled)
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
        let (i, j) = (point.step(old, point.block), point.step(new, partner));
        if is_interruptible(old, i) {
            return fail("the instruction here may be half done");
        }
        let (a, b) = self.analyses;
        let callee = point.call.and_then(|call| self.callees().0.remove(&call));
        let kept = |place: Place| match callee {
            Some(Callee::Function(id)) if !self.shared.through.contains(&id) => {
                self.keeps(id, place)
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
        let pending = Pending {
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
            init_new_locals: self.shared.inputs.init_new_locals,
        };
        let mut translation = translate(values, &pending)?;
        self.leave_alone(&mut translation)?;
        let to = NewAddr(pending.to);
        Ok(Proven { at: OldAddr(point.at), kind: point.kind, to, translation })
    }
}

fn relied_on(what: &str) -> Vec<Obstacle> {
    let text = format!("a caller keeps a value in {what} that OLD leaves alone and NEW needs");
    vec![Obstacle { text, new_local: false }]
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
fn wanted(flow: &Flow) -> Vec<Wanted> {
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

/// Behind calls that do not return, where nothing else leads either.
fn dead_returns(flow: &Flow) -> Vec<OldAddr> {
    let starts: BTreeSet<u64> = flow
        .blocks
        .iter()
        .filter(|b| !b.predecessors.is_empty())
        .map(|b| flow.body.steps[b.steps.start].address())
        .collect();
    let calls = flow.blocks.iter().filter(|b| b.end == End::NoReturn);
    let mut dead: Vec<OldAddr> = calls
        .map(|b| flow.body.steps[b.steps.end - 1].end())
        .filter(|at| !starts.contains(at))
        .map(OldAddr)
        .collect();
    dead.sort_unstable();
    dead.dedup();
    dead
}
