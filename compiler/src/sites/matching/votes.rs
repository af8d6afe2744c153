//! The blocks that are not equal: votes by what they say and by what is around them.
//!
//! Each pass gives every block without a counterpart the candidate with most votes, and takes those
//! pairs in which each is the other's best by a margin; what is taken votes in the next pass. Then
//! the bar is lowered. A pair whose rivals are as good is never taken.

use super::BlockMatching;
use super::evidence::Evidence;
use super::tokens::Key;
use super::view::{Edge, HUB, View};
use crate::machine::flow::{BlockId, End};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Votes and margin that a pair needs, by round.
const ROUNDS: [(f32, f32); 4] = [(2.4, 0.5), (1.7, 0.3), (1.1, 0.2), (0.7, 0.1)];
/// Passes of one round at most.
const PASSES: usize = 200;
/// A feature of more blocks than this finds no candidates.
const COMMON: usize = 12;
/// Blocks without counterparts that one block's surroundings go through at most.
const NEARBY: usize = 16;
/// Candidates of one block at most.
const CANDIDATES: usize = 32;

/// Matches what is left.
pub(super) fn settle(
    a: &View<'_>,
    b: &View<'_>,
    evidence: &Evidence,
    matching: &mut BlockMatching,
) {
    let mut voting = Voting::new(a, b, evidence, matching);
    for (least, margin) in ROUNDS {
        for _ in 0..PASSES {
            if !voting.pass(least, margin) {
                break;
            }
        }
    }
}

struct Voting<'v, 'a> {
    a: &'v View<'a>,
    b: &'v View<'a>,
    evidence: &'v Evidence,
    matching: &'v mut BlockMatching,
    /// How many blocks of each side have a feature.
    frequency: HashMap<Key, (usize, usize)>,
    /// NEW blocks that share a rare feature, by OLD block.
    similar: Vec<Vec<BlockId>>,
    /// What two blocks say, once compared.
    content: HashMap<(BlockId, BlockId), f32>,
    /// How often blocks of two loops were paired.
    loops: BTreeMap<BlockId, BTreeMap<BlockId, usize>>,
    /// What is around each block without a counterpart.
    around: [Vec<Around>; 2],
}

/// The closest blocks with counterparts on the paths to and from a block, with how the path begins
/// that leads away from the one or the other.
#[derive(Debug, Clone, Default)]
struct Around {
    into: Vec<Edge>,
    out: Vec<Edge>,
}

impl Around {
    fn new(view: &View<'_>, matched: &[Option<BlockId>], old: bool) -> Vec<Self> {
        let blocks = (0..view.len()).map(BlockId);
        let around = blocks.map(|block| {
            if matched[block.0].is_some() {
                return Self::default();
            }
            let into = closest(&view.into, matched, block, (old, false));
            Self { into, out: closest(&view.out, matched, block, (old, true)) }
        });
        around.collect()
    }
}

/// Blocks without counterparts next to one, and next to these.
fn reach(edges: &[Vec<Edge>], matched: &[Option<BlockId>], block: BlockId) -> Vec<BlockId> {
    let mut out: Vec<BlockId> = Vec::new();
    let mut queue = vec![block];
    while let Some(block) = queue.pop() {
        for edge in &edges[block.0] {
            if out.len() < NEARBY && matched[edge.block.0].is_none() && !out.contains(&edge.block) {
                out.push(edge.block);
                queue.push(edge.block);
            }
        }
    }
    out
}

/// Follows edges until blocks with counterparts. A path's label is that of its first edge in the
/// order of execution.
fn closest(
    edges: &[Vec<Edge>],
    matched: &[Option<BlockId>],
    block: BlockId,
    (old, forward): (bool, bool),
) -> Vec<Edge> {
    let mut out: Vec<Edge> = Vec::new();
    let mut seen = vec![block];
    let mut queue: Vec<Edge> = edges[block.0].clone();
    while let Some(edge) = queue.pop() {
        if let Some(counterpart) = matched[edge.block.0] {
            out.push(Edge { block: if old { counterpart } else { edge.block }, ..edge });
        } else if seen.len() < NEARBY
            && edges[edge.block.0].len() <= HUB
            && !seen.contains(&edge.block)
        {
            seen.push(edge.block);
            let further = edges[edge.block.0].iter();
            let on = |next: &Edge| if forward { Edge { block: next.block, ..edge } } else { *next };
            queue.extend(further.map(on));
        }
    }
    out.sort_unstable_by_key(|e| (e.block, e.label));
    out.dedup_by_key(|e| (e.block, e.label));
    out
}

/// How far two lists of closest blocks agree.
struct Agreement {
    alike: f32,
    not: f32,
    /// The same blocks on the same paths.
    exact: bool,
}

impl Agreement {
    /// Compares two lists that are in the same order.
    fn of(p: &[Edge], q: &[Edge]) -> Self {
        let mut found = Self { alike: 0.0, not: 0.0, exact: !p.is_empty() && p.len() == q.len() };
        let (mut i, mut j) = (0, 0);
        while i < p.len() || j < q.len() {
            let block = p.get(i).into_iter().chain(q.get(j)).map(|e| e.block).min();
            let of = |edges: &[Edge], from: usize| {
                edges[from..].iter().take_while(|e| Some(e.block) == block).count()
            };
            let (m, n) = (of(p, i), of(q, j));
            let (x, y) = (&p[i..i + m], &q[j..j + n]);
            let best = x
                .iter()
                .flat_map(|e| y.iter().map(move |f| (e.label == f.label, e.kind == f.kind)));
            let best = best.map(|alike| match alike {
                (true, _) => 1.0,
                (_, true) => 0.5,
                _ => 0.3,
            });
            match best.reduce(f32::max) {
                Some(vote) => found.alike += vote,
                None => found.not += 0.5,
            }
            let labels = x.iter().zip(y).all(|(e, f)| e.label == f.label);
            found.exact &= m == n && labels;
            (i, j) = (i + m, j + n);
        }
        found
    }
}

/// The best candidate and the votes of it and of the next one.
#[derive(Debug, Clone, Copy)]
struct Best {
    block: BlockId,
    votes: f32,
    second: f32,
}

impl Best {
    fn offer(best: &mut Option<Self>, block: BlockId, votes: f32) {
        match best {
            Some(known) if known.votes >= votes => known.second = known.second.max(votes),
            Some(known) => *known = Self { block, votes, second: known.votes },
            None => *best = Some(Self { block, votes, second: 0.0 }),
        }
    }
}

impl<'v, 'a> Voting<'v, 'a> {
    fn new(
        a: &'v View<'a>,
        b: &'v View<'a>,
        evidence: &'v Evidence,
        matching: &'v mut BlockMatching,
    ) -> Self {
        let mut frequency: HashMap<Key, (usize, usize)> = HashMap::new();
        for (key, _) in a.facts.iter().flat_map(|f| &f.features) {
            frequency.entry(*key).or_default().0 += 1;
        }
        let mut places: HashMap<Key, Vec<BlockId>> = HashMap::new();
        for (j, facts) in b.facts.iter().enumerate() {
            for (key, _) in &facts.features {
                if let Some(count) = frequency.get_mut(key) {
                    count.1 += 1;
                    places.entry(*key).or_default().push(BlockId(j));
                }
            }
        }
        let similar = a.facts.iter().map(|facts| {
            let mut rare: Vec<&Vec<BlockId>> =
                facts.features.iter().filter_map(|(key, _)| places.get(key)).collect();
            rare.retain(|blocks| blocks.len() <= COMMON);
            rare.sort_by_key(|blocks| blocks.len());
            let mut out = Vec::new();
            for block in rare.into_iter().flatten() {
                if out.len() < CANDIDATES && !out.contains(block) {
                    out.push(*block);
                }
            }
            out
        });
        let similar = similar.collect();
        let (content, loops, around) = (HashMap::new(), BTreeMap::new(), Default::default());
        Self { a, b, evidence, matching, frequency, similar, content, loops, around }
    }

    /// One pass; whether it found anything.
    fn pass(&mut self, least: f32, margin: f32) -> bool {
        self.loops = self.pair_loops();
        self.around = [
            Around::new(self.a, &self.matching.new_of, true),
            Around::new(self.b, &self.matching.old_of, false),
        ];
        let mut best_new: Vec<Option<Best>> = vec![None; self.a.len()];
        let mut best_old: Vec<Option<Best>> = vec![None; self.b.len()];
        for x in (0..self.a.len()).map(BlockId) {
            if self.matching.new_of[x.0].is_some() {
                continue;
            }
            for y in self.candidates(x) {
                if let Some(votes) = self.votes(x, y) {
                    Best::offer(&mut best_new[x.0], y, votes);
                    Best::offer(&mut best_old[y.0], x, votes);
                }
            }
        }
        let clear = |best: &Best| best.votes >= least && best.votes >= best.second + margin;
        let mut found = false;
        for (i, best) in best_new.iter().enumerate() {
            let Some(best) = best.filter(clear) else { continue };
            let back = best_old[best.block.0].filter(clear);
            if back.is_some_and(|back| back.block == BlockId(i)) {
                found |= self.matching.add(BlockId(i), best.block);
            }
        }
        found
    }

    /// NEW blocks without a counterpart that may be an OLD block's.
    fn candidates(&self, x: BlockId) -> BTreeSet<BlockId> {
        let mut out: BTreeSet<BlockId> = self.similar[x.0].iter().copied().collect();
        let around = &self.around[0][x.0];
        let mut near = |edges: &[Edge], theirs: &[Vec<Edge>]| {
            for edge in edges.iter().take(NEARBY) {
                let free = reach(theirs, &self.matching.old_of, edge.block);
                out.extend(free);
            }
        };
        near(&around.into, &self.b.out);
        near(&around.out, &self.b.into);
        if let Some(head) = self.loop_of(x) {
            out.insert(head);
        }
        out.retain(|y| self.matching.old_of[y.0].is_none());
        out
    }

    /// The votes for a pair; `None` when it cannot be.
    fn votes(&mut self, x: BlockId, y: BlockId) -> Option<f32> {
        let (p, q) = (&self.a.facts[x.0], &self.b.facts[y.0]);
        if self.a.block(x).landing_pad != self.b.block(y).landing_pad {
            return None;
        }
        // Behind a call is behind that call, or behind what is called instead at its place.
        match (p.returns, q.returns) {
            (Some(c), Some(d)) if !c.is_instead_of(d) => return None,
            // A return point that others jump to is a join, and may be one that no call is before.
            (Some(_), None) if self.a.block(x).predecessors.len() < 2 => return None,
            (None, Some(_)) if self.b.block(y).predecessors.len() < 2 => return None,
            _ => {}
        }
        let content = self.content(x, y);
        let around = self.around(x, y);
        let mut votes = content + around;
        if p.returns.is_some() != q.returns.is_some() {
            votes -= 0.5;
        }
        if !self.same_loop(x, y) {
            votes -= 1.0;
        }
        if !self.dominated_alike(x, y) {
            votes -= 0.7;
        }
        // What only one build's source has is seldom the other's: where ends of ways were made one it is, and where
        // what a call gives serves for more than one line.
        let ends = (self.a.block(x).end, self.b.block(y).end);
        if ends != (End::Call, End::Call) && self.evidence.is_gone(x) != self.evidence.is_fresh(y) {
            votes -= 1.0;
        }
        Some(votes)
    }

    /// What two blocks say: the share of it that is the same, and how rare that is.
    fn content(&mut self, x: BlockId, y: BlockId) -> f32 {
        if let Some(known) = self.content.get(&(x, y)) {
            return *known;
        }
        let (p, q) = (&self.a.facts[x.0].features, &self.b.facts[y.0].features);
        let sum = |features: &[(Key, f32)]| -> f32 { features.iter().map(|(_, t)| *t).sum() };
        let (mut shared, mut rare) = (0.0, 0.0);
        let (mut i, mut j) = (0, 0);
        while let (Some((k, t)), Some((l, u))) = (p.get(i), q.get(j)) {
            if k == l {
                let both = t.min(*u);
                let (m, n) = self.frequency.get(k).copied().unwrap_or((1, 1));
                shared += both;
                #[expect(clippy::cast_precision_loss, reason = "counts of blocks")]
                let count = m.max(n).max(1) as f32;
                rare += both / count;
            }
            (i, j) = (i + usize::from(k <= l), j + usize::from(l <= k));
        }
        let all = sum(p) + sum(q) - shared;
        let share = if all > 0.0 { shared / all } else { 0.0 };
        let content = share + rare.min(1.5);
        self.content.insert((x, y), content);
        content
    }

    /// What is around two blocks: edges that lead from or to pairs, alike or not.
    fn around(&self, x: BlockId, y: BlockId) -> f32 {
        let matching = &*self.matching;
        let (p, q) = (&self.around[0][x.0], &self.around[1][y.0]);
        let (into, out) = (Agreement::of(&p.into, &q.into), Agreement::of(&p.out, &q.out));
        let (alike, not) = (into.alike + out.alike, into.not + out.not);
        let adjacent = |i: Option<usize>, j: Option<usize>| {
            let (Some(i), Some(j)) = (i, j) else { return false };
            matching.new_of.get(i).is_some_and(|to| *to == Some(BlockId(j)))
        };
        let beside = usize::from(adjacent(x.0.checked_sub(1), y.0.checked_sub(1)))
            + usize::from(adjacent(Some(x.0 + 1), Some(y.0 + 1)));
        let beside = if beside == 2 {
            0.5
        } else if beside == 1 {
            0.3
        } else {
            0.0
        };
        let exact = if into.exact { 0.8 } else { 0.0 };
        1.5 * (alike - not) / (alike + not + 0.5) + beside + exact
    }

    /// For each loop of OLD the loops of NEW that its blocks went to.
    fn pair_loops(&self) -> BTreeMap<BlockId, BTreeMap<BlockId, usize>> {
        let mut loops: BTreeMap<BlockId, BTreeMap<BlockId, usize>> = BTreeMap::new();
        for (x, y) in self.matching.pairs() {
            if let (Some(h), Some(k)) = (self.a.loops.innermost(x), self.b.loops.innermost(y)) {
                *loops.entry(h).or_default().entry(k).or_default() += 1;
            }
        }
        loops
    }

    /// The head of NEW's loop that an OLD head's loop became.
    fn loop_of(&self, head: BlockId) -> Option<BlockId> {
        let votes = self.loops.get(&head)?;
        votes.iter().max_by_key(|(k, n)| (**n, std::cmp::Reverse(**k))).map(|(k, _)| *k)
    }

    fn same_loop(&self, x: BlockId, y: BlockId) -> bool {
        if !self.both_reached(x, y) {
            return true;
        }
        match (self.a.loops.innermost(x), self.b.loops.innermost(y)) {
            (Some(h), Some(k)) => match self.loop_of(h) {
                Some(other) => other == k,
                None => self.a.loops.depth(x) == self.b.loops.depth(y),
            },
            (None, None) => true,
            _ => false,
        }
    }

    /// Of what cannot be reached, as far as is known, nothing is known.
    fn both_reached(&self, x: BlockId, y: BlockId) -> bool {
        self.a.dominators.place(x).is_some() && self.b.dominators.place(y).is_some()
    }

    /// Whether what became of the closest dominator that has a counterpart dominates, too.
    fn dominated_alike(&self, x: BlockId, y: BlockId) -> bool {
        if !self.both_reached(x, y) {
            return true;
        }
        let mut up = self.a.dominators.idom(x);
        for _ in 0..32 {
            let Some(block) = up else { return true };
            if let Some(other) = self.matching.new_of[block.0] {
                return self.b.dominators.dominates(other, y);
            }
            up = self.a.dominators.idom(block);
        }
        true
    }
}
