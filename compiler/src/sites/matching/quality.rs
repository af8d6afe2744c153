//! How good a matching is, counted without knowing the right one.
//!
//! Shares of what has a counterpart; and paths of OLD between two pairs that NEW does not have: each
//! of them is a change of the program or a wrong pair.

use super::BlockMatching;
use super::tokens::Side;
use crate::change::Pair;
use crate::machine::dominators::Dominators;
use crate::machine::dominators::Loops;
use crate::machine::flow::{BlockId, End, Flow};
use std::collections::BTreeSet;
use std::ops::AddAssign;

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// So many.
    pub part: usize,
    /// Of so many.
    pub all: usize,
}

impl Share {
    fn count(&mut self, is: bool) {
        self.all += 1;
        self.part += usize::from(is);
    }
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        self.part += other.part;
        self.all += other.all;
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "counts of blocks")]
        let percent = self.part as f64 * 100.0 / self.all.max(1) as f64;
        write!(f, "{}/{} {percent:.1}%", self.part, self.all)
    }
}

/// The counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quality {
    /// OLD blocks that can be reached, with a counterpart.
    pub blocks: Share,
    /// Of these those behind calls: where frames wait.
    pub returns: Share,
    /// Of the blocks the heads of loops.
    pub heads: Share,
    /// Of matched heads those whose counterpart is one, too.
    pub heads_alike: Share,
    /// Of matched return points those whose calls are at one line and column, as they must be when
    /// both builds were made from one source.
    pub same_place: Share,
    /// Of matched return points those whose calls have the same callee.
    pub same_callee: Share,
    /// Return points without a counterpart although NEW has one to spare, of the same callee at the
    /// same line: `part` of all without. For builds of one source.
    pub missed: Share,
    /// Of paths of OLD from pair to pair those that NEW has, too.
    pub paths: Share,
}

impl AddAssign for Quality {
    fn add_assign(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.returns += other.returns;
        self.heads += other.heads;
        self.heads_alike += other.heads_alike;
        self.same_place += other.same_place;
        self.same_callee += other.same_callee;
        self.missed += other.missed;
        self.paths += other.paths;
    }
}

impl Quality {
    /// Counts.
    #[must_use]
    pub fn of(pair: Pair<'_>, old: &Flow, new: &Flow, matching: &BlockMatching) -> Self {
        let mut out = Self::default();
        let dominators = Dominators::new(old);
        let loops = Loops::new(old, &dominators);
        let heads: BTreeSet<BlockId> =
            Loops::new(new, &Dominators::new(new)).heads().iter().copied().collect();
        let (calls, new_calls) = (calls(old), calls(new));
        let spare: Vec<usize> = (new_calls.iter().zip(&matching.old_of))
            .filter_map(|(call, old)| call.filter(|_| old.is_none()))
            .collect();
        for block in dominators.order() {
            let counterpart = matching.new_of[block.0];
            out.blocks.count(counterpart.is_some());
            if let Some(step) = calls[block.0] {
                out.returns.count(counterpart.is_some());
                if let Some(other) = counterpart.and_then(|c| new_calls[c.0]) {
                    out.call(pair, (old, step), (new, other));
                } else if counterpart.is_none() {
                    let fits = |t: &usize| {
                        same_callee(pair, (old, step), (new, *t))
                            && same_place(pair, (old, step), (new, *t), false) == Some(true)
                    };
                    out.missed.count(spare.iter().any(fits));
                }
            }
            if loops.is_head(*block) {
                out.heads.count(counterpart.is_some());
                if let Some(counterpart) = counterpart {
                    out.heads_alike.count(heads.contains(&counterpart));
                }
            }
            if let Some(counterpart) = counterpart {
                let reached = next_pairs(new, &matching.old_of, counterpart);
                for next in next_pairs(old, &matching.new_of, *block) {
                    let has = matching.new_of[next.0].is_some_and(|n| reached.contains(&n));
                    out.paths.count(has);
                }
            }
        }
        out
    }

    fn call(&mut self, pair: Pair<'_>, old: (&Flow, usize), new: (&Flow, usize)) {
        self.same_callee.count(same_callee(pair, old, new));
        if let Some(same) = same_place(pair, old, new, true) {
            self.same_place.count(same);
        }
    }
}

/// Whether two calls have one callee.
fn same_callee(pair: Pair<'_>, old: (&Flow, usize), new: (&Flow, usize)) -> bool {
    let callee = |(flow, step): (&Flow, usize), old| {
        flow.body.steps.get(step).and_then(|step| Side { pair, old }.callee(step))
    };
    matches!((callee(old, true), callee(new, false)), (Some(c), Some(d)) if c.agrees(d))
}

/// Whether two instructions are at one line, and column where both tell; `None` when a line is not
/// known.
fn same_place(
    pair: Pair<'_>,
    old: (&Flow, usize),
    new: (&Flow, usize),
    columns: bool,
) -> Option<bool> {
    let (from, to) = (&pair.old.debug.lines, &pair.new.debug.lines);
    let x = from.row_at(old.0.body.steps.get(old.1)?.address()).filter(|row| row.line > 0)?;
    let y = to.row_at(new.0.body.steps.get(new.1)?.address()).filter(|row| row.line > 0)?;
    let columns = columns && x.column > 0 && y.column > 0;
    Some(
        x.line == y.line
            && (!columns || x.column == y.column)
            && from.file(x.file) == to.file(y.file),
    )
}

/// For each block the call that it is behind.
fn calls(flow: &Flow) -> Vec<Option<usize>> {
    let mut calls = vec![None; flow.blocks.len()];
    for block in flow.blocks.iter().filter(|b| b.end == End::Call) {
        if let Some(to) = block.successors.first() {
            calls[to.0] = block.steps.clone().last();
        }
    }
    calls
}

/// The blocks with a counterpart that are reached from one through blocks without.
fn next_pairs(flow: &Flow, matched: &[Option<BlockId>], from: BlockId) -> BTreeSet<BlockId> {
    let mut seen = BTreeSet::new();
    let mut queue = flow.blocks[from.0].successors.clone();
    while let Some(block) = queue.pop() {
        if seen.insert(block) && matched[block.0].is_none() {
            queue.extend(&flow.blocks[block.0].successors);
        }
    }
    seen.retain(|block| matched[block.0].is_some());
    seen
}
