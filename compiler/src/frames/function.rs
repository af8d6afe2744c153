//! One replaced function: its points, the relation between its bodies, and a translation for each point.

use super::barriers::{self, Barriers};
use super::beginning::Rounds;
use super::both::Both;
use super::ends::Ends;
use super::entry::Entry;
use super::relation::{Before, Relation};
use super::site::{Known, Wanted, wanted};
use super::translate::Obstacle;
use super::unread::Unread;
use super::value::{Place, Side};
use super::variables::{self, CLOBBERED, Variables};
use super::{Blind, Carried, Proven, addresses, clones, fates, relaid, repair, source};
use crate::debug::Locals;
use crate::emit::Inputs;
use crate::image::FunctionId;
use crate::machine::calls::{Callee, callee};
use crate::machine::flow::{BlockId, End, Flow};
use crate::machine::{Analysis, Clobbers, Relied, Returning};
use crate::sites::matching::{BlockMatching, match_blocks};
use crate::sites::passages;
use dsu_patch_format::OldAddr;
use dsu_patch_format::plan::{Fixup, SiteKind};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

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
    /// Whether a callee of one side, if there is one, may look at any memory that the caller has to do with:
    /// own variables of its file, if it `keeps_own`.
    pub fn looks_anywhere(&self, side: Side, callee: Option<&Callee>, keeps_own: bool) -> bool {
        let barriers = match side {
            Side::Old => self.barriers.0,
            Side::New => self.barriers.1,
        };
        callee.is_some_and(|callee| barriers.is_one(callee, keeps_own))
    }

    /// Whether a callee keeps a caller-saved register in both builds.
    pub fn keeps(&self, callee: FunctionId, place: Place) -> bool {
        let (old, new) = self.clobbers;
        let Some(partner) = self.inputs.pair.matching.new_of(callee) else { return false };
        match place {
            Place::General(n) => old.keeps_general(callee, n) && new.keeps_general(partner, n),
            Place::Lane(n, _) => old.keeps_vector(callee, n) && new.keeps_vector(partner, n),
            _ => false,
        }
    }

    /// Whether OLD's code cannot run on beside NEW's, were it for a moment: the commit changes what it
    /// refers to, or the layout of what may come into its hands.
    fn is_disturbed(&self, old: &Flow) -> bool {
        let changed = |places| passages::refers_to(&old.body, places);
        self.inputs.layouts_accepted || changed(&self.overwritten) || changed(&self.left)
    }
}

/// A pair of functions and the relation between its bodies.
struct View<'a> {
    both: Both<'a>,
    relation: Relation,
    matching: BlockMatching,
    variables: Variables<'a>,
    named: source::Named,
    rounds: (Rounds, Rounds),
    unread: Unread,
    ends: Ends,
    /// What holds just before calls, where that was asked for.
    before: BTreeMap<BlockId, Before>,
}

/// Both sides of a pair of functions, before they are related.
#[derive(Clone, Copy)]
struct Sides<'a> {
    functions: (FunctionId, FunctionId),
    analyses: (&'a Analysis, &'a Analysis),
    locals: (&'a Locals, &'a Locals),
    whole: &'a clones::Whole,
    /// Whether either body has to do with variables that only its file knows.
    keeps_own: bool,
    /// So many bytes NEW's frame is to stand lower than OLD's; its analysis and locals say so already.
    lowered: u64,
    /// NEW's code is a copy with objects of its frame elsewhere.
    relaid: bool,
}

/// Translates what can be of one function's frames.
pub(super) fn carry(shared: &Shared<'_>, old: FunctionId, new: FunctionId) -> Carried {
    let pair = shared.inputs.pair;
    let f = pair.old.function(old);
    let old_locals = pair.old.locals(f).unwrap_or_default();
    let whole = clones::whole(pair, new);
    let (g, new_locals) = (&whole.function, &whole.locals);
    let (returning, other) = shared.returning;
    let a = Analysis::new(pair.old, (old, f), &old_locals, shared.clobbers.0, None);
    let b = Analysis::new(pair.new, (new, g), new_locals, shared.clobbers.1, Some(other));
    let mut carried = Carried {
        function: old,
        proven: Vec::new(),
        seconds: Vec::new(),
        blind: Vec::new(),
        dead_returns: dead_returns(&a.flow),
        flow: None,
        unexpected: BTreeSet::new(),
        relying: BTreeSet::new(),
        relaid: None,
        uncopied: None,
    };
    let wanted = wanted(&a.flow);
    let all_blind = |carried: &mut Carried, text: String| {
        carried.blind = wanted
            .iter()
            .map(|w| Blind {
                at: OldAddr(w.at),
                kind: w.kind,
                obstacles: vec![Obstacle::new(text.clone())],
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
    let trimmed = (returning.trimmed(&a.flow), other.trimmed(&b.flow));
    let dead = |call: BlockId| trimmed.0.blocks[call.0].end != a.flow.blocks[call.0].end;
    let graphs = Graphs {
        shared,
        all: (&a.flow, &b.flow),
        trimmed: (&trimmed.0, &trimmed.1),
        code: (&trimmed.0, &trimmed.1),
        is_dead: &dead,
        wanted: &wanted,
    };
    let keeps_own = barriers::has_own_variables(pair.old, &a.flow.body)
        || barriers::has_own_variables(pair.new, &b.flow.body);
    let sides = Sides {
        functions: (old, new),
        analyses: (&a, &b),
        locals: (&old_locals, new_locals),
        whole: &whole,
        keeps_own,
        lowered: 0,
        relaid: false,
    };
    let mut open: Vec<Open<'_>> = wanted.iter().map(|point| (point, Vec::new())).collect();
    let mut views = Views::new(&graphs, sides);
    views.prove(&mut open, &mut carried.proven);
    // Tables that are filled in other ways are the same behind.
    let collapsed = if open.is_empty() { None } else { views.collapsed() };
    let computing = collapsed.as_ref().map(|(old, new)| Graphs { trimmed: (old, new), ..graphs });
    let mut computed = computing.as_ref().map(|graphs| Views::new(graphs, sides));
    if let Some(views) = &mut computed {
        views.prove_by(&[Way::Copied, Way::Further], &mut open, &mut carried.proven);
    }
    // Objects that lie nearer to the CFA in NEW's frame keep their address where that stands lower.
    let lower = |by: u64| {
        let below = by.cast_signed();
        Some((by, b.lowered(below)?, new_locals.lowered(below)))
    };
    let lowered: Vec<(u64, Analysis, Locals)> =
        distances(&open).into_iter().filter_map(lower).collect();
    let mut below: Vec<Views<'_>> = Vec::new();
    for (by, analysis, locals) in &lowered {
        let analyses = (&a, analysis);
        let locals = (&old_locals, locals);
        let mut views = Views::new(&graphs, Sides { analyses, locals, lowered: *by, ..sides });
        views.prove(&mut open, &mut carried.proven);
        below.push(views);
    }
    // Those that lie anywhere else keep it where NEW's code is laid out so.
    let left: BTreeSet<u64> =
        carried.proven.iter().filter(|p| p.leaves_behind).map(|p| p.at.0).collect();
    let mut left: Vec<Open<'_>> =
        wanted.iter().filter(|w| left.contains(&w.at)).map(|w| (w, Vec::new())).collect();
    let moved = !(open.is_empty() && left.is_empty());
    let moved = moved && relaid::has_moved(&a.objects, &b.objects);
    let mut laid = None;
    if let Some(matching) = views.matching().filter(|_| moved) {
        match relaid::lay_out(pair, (&a, &b), new_locals, matching) {
            Ok(found) => laid = Some(found),
            Err(why) => {
                told(&mut open, &why);
                carried.uncopied = Some(why);
            }
        }
    }
    let trimmed_copy = laid.as_ref().map(|laid| other.trimmed(&laid.analysis.flow));
    let copied = laid.as_ref().zip(trimmed_copy.as_ref());
    let copied = copied.map(|(laid, trimmed_copy)| Graphs {
        all: (&a.flow, &laid.analysis.flow),
        trimmed: (&trimmed.0, trimmed_copy),
        code: (&trimmed.0, trimmed_copy),
        ..graphs
    });
    if let Some((graphs, laid)) = copied.as_ref().zip(laid.as_ref()) {
        let (analyses, locals) = ((&a, &laid.analysis), (&old_locals, &laid.locals));
        let lowered = laid.relaid.lowered;
        let mut views =
            Views::new(graphs, Sides { analyses, locals, lowered, relaid: true, ..sides });
        views.prove(&mut open, &mut carried.proven);
        views.prove(&mut left, &mut carried.seconds);
        below.push(views);
    }
    carried.relaid = laid.as_ref().map(|laid| laid.relaid.clone());
    carried.blind = open
        .into_iter()
        .map(|(w, obstacles)| Blind { at: OldAddr(w.at), kind: w.kind, obstacles })
        .collect();
    if shared.is_disturbed(&a.flow) {
        return carried;
    }
    if !carried.blind.is_empty() {
        let mut views: Vec<&mut View<'_>> = views
            .found()
            .chain(computed.iter_mut().chain(&mut below).flat_map(Views::found))
            .collect();
        views.iter_mut().for_each(|view| view.look_before_calls());
        let mut site = |point: &Wanted| views.iter_mut().find_map(|view| view.site(point).ok());
        rescue(&a.flow, &mut carried, &mut site);
    }
    carried.unexpected = unexpected(&a.flow, dead);
    carried.relying = relying(shared, &a);
    drop((views, computed, below));
    carried.flow = Some(a.flow);
    carried
}

/// A point that is not translated yet, and why.
type Open<'a> = (&'a Wanted, Vec<Obstacle>);

/// Adds to what stands against points why no copy of NEW's code helps: first where an object is elsewhere, last where
/// that may be behind the rest.
fn told(open: &mut [Open<'_>], why: &str) {
    let others = |obstacles: &[Obstacle]| obstacles.iter().any(|obstacle| !obstacle.new_local);
    for (_, obstacles) in open.iter_mut().filter(|(_, obstacles)| others(obstacles)) {
        let why = Obstacle::uncopied(why);
        match obstacles.iter().any(|obstacle| obstacle.moved) {
            true => obstacles.insert(0, why),
            false => obstacles.push(why),
        }
    }
}

/// How much lower NEW's frame would have to stand at how many of the points that are open; the commonest
/// distance first, none that would leave the stack pointer unaligned (psABI 3.2.2).
fn distances(open: &[Open<'_>]) -> Vec<u64> {
    const ALIGNMENT: u64 = 16;
    const MOST: usize = 2;
    let mut points: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, obstacles) in open {
        let all: BTreeSet<u64> = obstacles.iter().filter_map(|o| o.lower).collect();
        for by in all.into_iter().filter(|by| *by > 0 && by.is_multiple_of(ALIGNMENT)) {
            *points.entry(by).or_default() += 1;
        }
    }
    let mut all: Vec<(u64, usize)> = points.into_iter().collect();
    all.sort_by_key(|(by, points)| (Reverse(*points), *by));
    all.into_iter().take(MOST).map(|(by, _)| by).collect()
}

/// The graphs by which a pair of functions is followed, and the points that would be sites.
#[derive(Clone, Copy)]
struct Graphs<'a> {
    shared: &'a Shared<'a>,
    all: (&'a Flow, &'a Flow),
    /// Without what is behind calls that never come back.
    trimmed: (&'a Flow, &'a Flow),
    /// The same with what is inside of loops that are one block of those.
    code: (&'a Flow, &'a Flow),
    /// Whether a call of OLD never comes back.
    is_dead: &'a dyn Fn(BlockId) -> bool,
    wanted: &'a [Wanted],
}

/// A way to follow a pair of functions.
#[derive(Clone, Copy)]
enum Way {
    /// Without what is behind calls that never come back.
    Trimmed,
    /// With all code.
    Whole,
    /// Blocks that one build has twice are followed, too; what is behind calls that never come back stays out
    /// of it.
    Copied,
    /// More is done to know what loops count with; what is behind calls that never come back stays out of it.
    Further,
}

/// What a pair of functions is followed by.
#[derive(Clone, Copy)]
struct Followed<'a> {
    flows: (&'a Flow, &'a Flow),
    /// The same with what is inside of loops that are one block of those.
    code: (&'a Flow, &'a Flow),
    copied: bool,
    further: bool,
}

/// What is found of both sides by each way, as it is asked for.
struct Views<'a> {
    graphs: &'a Graphs<'a>,
    sides: Sides<'a>,
    /// By [`Way`]; `None` inside where following it does not settle.
    found: [Option<Option<View<'a>>>; 4],
}

impl<'a> Views<'a> {
    fn new(graphs: &'a Graphs<'a>, sides: Sides<'a>) -> Self {
        Self { graphs, sides, found: [None, None, None, None] }
    }

    fn site(&mut self, way: Way, point: &Wanted) -> Result<Proven, Vec<Obstacle>> {
        let graphs = self.graphs;
        let (flows, code) = match way {
            Way::Whole => (graphs.all, graphs.all),
            _ => (graphs.trimmed, graphs.code),
        };
        let (copied, further) = (matches!(way, Way::Copied), matches!(way, Way::Further));
        let followed = Followed { flows, code, copied, further };
        let view = || View::new(graphs.shared, self.sides, followed, graphs.wanted);
        match self.found[way as usize].get_or_insert_with(view) {
            Some(view) => view.site(point),
            None => Err(vec![Obstacle::new("the function is too large to be followed")]),
        }
    }

    /// Which blocks are the same, by the way that was tried first.
    fn matching(&self) -> Option<&BlockMatching> {
        Some(&self.first()?.matching)
    }

    /// What is found by the way that was tried first.
    fn first(&self) -> Option<&View<'a>> {
        let way = if self.graphs.is_trimmed() { Way::Trimmed } else { Way::Whole };
        self.found[way as usize].as_ref()?.as_ref()
    }

    fn found(&mut self) -> impl Iterator<Item = &mut View<'a>> {
        self.found.iter_mut().flatten().flatten()
    }

    /// Translates what can be of the points that are open, and leaves the others, with what stands against them
    /// where nothing is said yet.
    fn prove(&mut self, open: &mut Vec<Open<'_>>, proven: &mut Vec<Proven>) {
        let graphs = self.graphs;
        let is_dead = |point: &Wanted| point.call.is_some_and(graphs.is_dead);
        let is_trimmed = graphs.is_trimmed();
        open.retain_mut(|(point, obstacles)| {
            let trimmed = (is_trimmed && !is_dead(point)).then(|| self.site(Way::Trimmed, point));
            let result = match trimmed {
                Some(Ok(found)) => Ok(found),
                Some(Err(first)) => self.site(Way::Whole, point).map_err(|_| first),
                None => self.site(Way::Whole, point),
            };
            let stays = result.is_err();
            match result {
                Ok(found) => proven.push(found),
                Err(found) if obstacles.is_empty() => *obstacles = found,
                Err(_) => {}
            }
            stays
        });
        self.prove_by(&[Way::Copied], open, proven);
        if graphs.has_loops() {
            self.prove_by(&[Way::Further], open, proven);
        }
    }

    /// The same by ways that follow nothing behind calls that never come back.
    fn prove_by(&mut self, ways: &[Way], open: &mut Vec<Open<'_>>, proven: &mut Vec<Proven>) {
        let is_dead = |point: &Wanted| point.call.is_some_and(self.graphs.is_dead);
        for way in ways {
            open.retain_mut(|(point, obstacles)| {
                if is_dead(point) {
                    return true;
                }
                match self.site(*way, point) {
                    Ok(found) => {
                        proven.push(found);
                        return false;
                    }
                    // With more that is followed nothing else is in the way.
                    Err(others) if others.iter().all(|o| o.new_local) => *obstacles = others,
                    Err(_) => {}
                }
                true
            });
        }
    }

    /// Both graphs without what is behind calls that never come back, with each loop that makes numbers of numbers alone as
    /// one block; `None` where there is none.
    fn collapsed(&mut self) -> Option<(Flow, Flow)> {
        let View { both, matching, .. } = self.first()?;
        let (old, new) = both.collapsed(matching);
        if old.is_none() && new.is_none() {
            return None;
        }
        let (a, b) = self.graphs.trimmed;
        Some((old.unwrap_or_else(|| a.clone()), new.unwrap_or_else(|| b.clone())))
    }
}

impl Graphs<'_> {
    /// Whether there is a loop in both bodies.
    fn has_loops(&self) -> bool {
        let has = |flow: &Flow| !crate::machine::dominators::loop_heads(flow).is_empty();
        has(self.trimmed.0) && has(self.trimmed.1)
    }

    /// Whether less is followed without what is behind calls that never come back.
    fn is_trimmed(&self) -> bool {
        let calls = |flow: &Flow| flow.blocks.iter().filter(|b| b.end == End::Call).count();
        calls(self.trimmed.0) != calls(self.all.0) || calls(self.trimmed.1) != calls(self.all.1)
    }
}

/// Return addresses behind calls under which replaced code may run, where OLD's code reads registers again that OLD's
/// callee was seen to leave alone: whoever returns there from NEW's need not have, unless that does, too, and
/// the stubs below do ([`Relied`]).
fn relying(shared: &Shared<'_>, old: &Analysis) -> BTreeSet<u64> {
    let (flow, relied) = (&old.flow, &shared.relied);
    // Kept by OLD's callee, and not known to be kept by whoever returns.
    let is_lost = |id: FunctionId, place: Place| match place {
        Place::General(n) => {
            shared.clobbers.0.keeps_general(id, n)
                && !(shared.keeps(id, place) && relied.general(id, n))
        }
        Place::Lane(n, _) => {
            shared.clobbers.0.keeps_vector(id, n)
                && !(shared.keeps(id, place) && relied.vector(id, n))
        }
        _ => false,
    };
    let relies = |call: usize| {
        let block = &flow.blocks[call];
        let (Callee::Function(id), true) = (
            callee(shared.inputs.pair.old, &flow.body.steps[block.steps.end - 1]),
            block.end == End::Call,
        ) else {
            return false;
        };
        let Some(behind) = flow.return_point(BlockId(call)) else { return false };
        let live = &old.live[flow.blocks[behind.0].steps.start];
        shared.through.contains(&id)
            && (CLOBBERED
                .into_iter()
                .any(|n| live.general[usize::from(n)] > 0 && is_lost(id, Place::General(n)))
                || (0..32)
                    .any(|n| live.vector[usize::from(n)] > 0 && is_lost(id, Place::Lane(n, 0))))
    };
    let calls = (0..flow.blocks.len()).filter(|call| relies(*call));
    calls.map(|call| flow.body.steps[flow.blocks[call].steps.end - 1].end()).collect()
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
    /// Matches and relates both bodies by these graphs of theirs; `None` when it does not settle.
    fn new(
        shared: &'a Shared<'a>,
        sides: Sides<'a>,
        followed: Followed<'a>,
        wanted: &[Wanted],
    ) -> Option<Self> {
        let Followed { flows, code, copied, further } = followed;
        let Sides { functions, analyses: (a, b), locals, whole, keeps_own, lowered, relaid } =
            sides;
        let (old, new) = functions;
        let pair = shared.inputs.pair;
        let (f, g) = (pair.old.function(old), &whole.function);
        let (mut matching, evidence) =
            match_blocks(pair, (flows.0, locals.0), (flows.1, locals.1), whole.start(flows.1));
        let own = pair.new.locals(pair.new.function(new)).unwrap_or_default();
        let entry = Entry::new((pair.old, f, locals.0), (pair.new, g, &own));
        let texts = addresses::texts(pair, shared.fixups, &flows.0.body, &flows.1.body);
        let analyses = (a, b);
        let inlined = |locals: &Locals| -> BTreeSet<String> {
            let bodies = locals.inlined.iter().filter_map(|body| body.scope.last());
            bodies.map(|scope| fates::called(&scope.function)).collect()
        };
        let inlined = (inlined(locals.0), inlined(locals.1));
        let both = Both {
            shared,
            old,
            analyses,
            flows,
            entry,
            evidence,
            copied,
            further,
            texts,
            inlined,
            keeps_own,
            lowered,
            relaid,
        };
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
            variables::Side { image: pair.old, locals: locals.0, flow: code.0, lowered: 0 },
            variables::Side {
                image: pair.new,
                locals: locals.1,
                flow: code.1,
                lowered: lowered.cast_signed(),
            },
        );
        let named = addresses::named(shared.fixups, &flows.1.body);
        let rounds = (Rounds::new(flows.0), Rounds::new(flows.1));
        let barrier = |call: BlockId| both.looks_anywhere(Side::New, callees.1.get(&call));
        let unread = Unread::new(code.1, &barrier, !b.objects.is_empty());
        let ends = Ends::new(b, code.1, &Rounds::new(code.1));
        let before = BTreeMap::new();
        let known = Known {
            variables: &variables,
            named: &named,
            old_rounds: &rounds.0,
            rounds: &rounds.1,
            unread: &unread,
            ends: &ends,
            before: &before,
        };
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
        Some(Self { both, relation, matching, variables, named, rounds, unread, ends, before })
    }

    /// Before points that are calls can be asked for.
    fn look_before_calls(&mut self) {
        self.before = self.both.before_calls(&self.matching, &mut self.relation);
    }

    /// The translation of one point.
    fn site(&mut self, point: &Wanted) -> Result<Proven, Vec<Obstacle>> {
        let Self { both, relation, matching, variables, named, rounds, unread, ends, before } =
            self;
        let (old_rounds, rounds) = (&rounds.0, &rounds.1);
        let known = Known { variables, named, old_rounds, rounds, unread, ends, before };
        both.site(point, matching, relation, known)
    }
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
