//! The blocks that are not equal: votes by what they say and by what is around them.
//!
//! Each pass gives every block without a counterpart the candidate with most votes, and takes those
//! pairs in which each is the other's best by a margin; what is taken votes in the next pass. Then
//! the bar is lowered. A pair whose rivals are as good is never taken.

use super::BlockMatching;
use super::tokens::Key;
use super::view::{Edge, View};
use crate::machine::flow::BlockId;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Votes and margin that a pair needs, by round.
const ROUNDS: [(f32, f32); 4] = [(2.4, 0.5), (1.7, 0.3), (1.1, 0.2), (0.7, 0.1)];
/// Passes of one round at most.
const PASSES: usize = 200;
/// A feature of more blocks than this finds no candidates.
const COMMON: usize = 12;
/// Candidates of one block at most.
const CANDIDATES: usize = 32;

/// Matches what is left.
pub(super) fn settle(a: &View<'_>, b: &View<'_>, matching: &mut BlockMatching) {
    let mut voting = Voting::new(a, b, matching);
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
    matching: &'v mut BlockMatching,
    /// How many blocks of each side have a feature.
    frequency: HashMap<Key, (usize, usize)>,
    /// NEW blocks that share a rare feature, by OLD block.
    similar: Vec<Vec<BlockId>>,
    /// What two blocks say, once compared.
    content: HashMap<(BlockId, BlockId), f32>,
    /// How often blocks of two loops were paired.
    loops: BTreeMap<BlockId, BTreeMap<BlockId, usize>>,
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
    fn new(a: &'v View<'a>, b: &'v View<'a>, matching: &'v mut BlockMatching) -> Self {
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
        let (content, loops) = (HashMap::new(), BTreeMap::new());
        Self { a, b, matching, frequency, similar, content, loops }
    }

    /// One pass; whether it found anything.
    fn pass(&mut self, least: f32, margin: f32) -> bool {
        self.loops = self.pair_loops();
        let mut best_new: Vec<Option<Best>> = vec![None; self.a.len()];
        let mut best_old: Vec<Option<Best>> = vec![None; self.b.len()];
        for i in 0..self.a.len() {
            let x = BlockId(i);
            if self.matching.new_of[i].is_some() {
                continue;
            }
            for y in self.candidates(x) {
                if let Some(votes) = self.votes(x, y) {
                    Best::offer(&mut best_new[i], y, votes);
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
        for edge in &self.a.into[x.0] {
            if let Some(from) = self.matching.new_of[edge.block.0] {
                out.extend(self.b.out[from.0].iter().map(|e| e.block).take(CANDIDATES));
            }
        }
        for edge in &self.a.out[x.0] {
            if let Some(to) = self.matching.new_of[edge.block.0] {
                out.extend(self.b.into[to.0].iter().map(|e| e.block).take(CANDIDATES));
            }
        }
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
        // Behind a call is behind that call.
        match (p.returns, q.returns) {
            (Some(c), Some(d)) if !c.callee.agrees(d.callee) => return None,
            (Some(_), None) | (None, Some(_)) => return None,
            _ => {}
        }
        let content = self.content(x, y);
        let around = self.around(x, y);
        let mut votes = content + around;
        if !self.same_loop(x, y) {
            votes -= 0.7;
        }
        if !self.dominated_alike(x, y) {
            votes -= 0.7;
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
        let (mut alike, mut not) = (0.0, 0.0);
        let mut count = |edges: &[Edge], others: &[Edge], to: &[Option<BlockId>], full: bool| {
            for edge in edges {
                let Some(other) = to[edge.block.0] else { continue };
                let same = others.iter().filter(|e| e.block == other);
                let best = same.map(|e| {
                    if e.label == edge.label {
                        1.0
                    } else if e.kind == edge.kind {
                        0.6
                    } else {
                        0.4
                    }
                });
                match best.reduce(f32::max) {
                    Some(vote) if full => alike += vote,
                    Some(_) => {}
                    None => not += 0.5,
                }
            }
        };
        count(&self.a.into[x.0], &self.b.into[y.0], &matching.new_of, true);
        count(&self.a.out[x.0], &self.b.out[y.0], &matching.new_of, true);
        count(&self.b.into[y.0], &self.a.into[x.0], &matching.old_of, false);
        count(&self.b.out[y.0], &self.a.out[x.0], &matching.old_of, false);
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
        1.5 * (alike - not) / (alike + not + 0.5) + beside
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
        match (self.a.loops.innermost(x), self.b.loops.innermost(y)) {
            (Some(h), Some(k)) => match self.loop_of(h) {
                Some(other) => other == k,
                None => self.a.loops.depth(x) == self.b.loops.depth(y),
            },
            (None, None) => true,
            _ => false,
        }
    }

    /// Whether what became of the closest dominator that has a counterpart dominates, too.
    fn dominated_alike(&self, x: BlockId, y: BlockId) -> bool {
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
