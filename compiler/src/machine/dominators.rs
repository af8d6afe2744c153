//! Dominators and loops of a function's graph.
//!
//! Takes a [`Flow`]; gives the dominator tree (Cooper, Harvey, Kennedy, "A Simple, Fast Dominance
//! Algorithm") and from it the loops: natural ones by their back edges; where a loop can be entered
//! in several places (irreducible), every target of a retreating edge is a head.

use super::flow::{BlockId, Flow};
use std::collections::BTreeSet;

/// The dominator tree of the blocks that can be reached from the entry.
#[derive(Debug, Clone)]
pub struct Dominators {
    /// Blocks in reverse post-order: the entry first, unreachable ones left out.
    order: Vec<BlockId>,
    /// Place of each block in `order`.
    place: Vec<Option<usize>>,
    /// Immediate dominator; the entry and unreachable blocks have none.
    idom: Vec<Option<BlockId>>,
    /// When a walk over the tree comes to a block, and when it has left it.
    span: Vec<(usize, usize)>,
}

impl Dominators {
    /// Computes them.
    #[must_use]
    pub fn new(flow: &Flow) -> Self {
        let order = reverse_post_order(flow);
        let mut place = vec![None; flow.blocks.len()];
        for (i, block) in order.iter().enumerate() {
            place[block.0] = Some(i);
        }
        let idom = immediate(flow, &order, &place);
        let span = spans(&order, &idom, flow.blocks.len());
        Self { order, place, idom, span }
    }

    /// Blocks in reverse post-order, unreachable ones left out.
    #[must_use]
    pub fn order(&self) -> &[BlockId] {
        &self.order
    }

    /// The place of a block in [`Dominators::order`]; `None` when it cannot be reached.
    #[must_use]
    pub fn place(&self, block: BlockId) -> Option<usize> {
        self.place.get(block.0).copied().flatten()
    }

    /// The immediate dominator.
    #[must_use]
    pub fn idom(&self, block: BlockId) -> Option<BlockId> {
        self.idom.get(block.0).copied().flatten()
    }

    /// Whether every path from the entry to `b` goes through `a`; a block dominates itself. Of
    /// unreachable blocks nothing is said.
    #[must_use]
    pub fn dominates(&self, a: BlockId, b: BlockId) -> bool {
        if self.place(a).is_none() || self.place(b).is_none() {
            return false;
        }
        let ((from, to), (inner, _)) = (self.span[a.0], self.span[b.0]);
        from <= inner && inner < to
    }
}

/// Depth-first, successors in their order.
fn reverse_post_order(flow: &Flow) -> Vec<BlockId> {
    let mut order = Vec::with_capacity(flow.blocks.len());
    if flow.blocks.is_empty() {
        return order;
    }
    let mut seen = vec![false; flow.blocks.len()];
    let mut stack = vec![(BlockId(0), 0)];
    seen[0] = true;
    while let Some((block, next)) = stack.last_mut() {
        // Backwards, so that the first successor comes first in the reversed order.
        let successors = &flow.blocks[block.0].successors;
        let Some(&to) = successors.len().checked_sub(1 + *next).map(|i| &successors[i]) else {
            order.push(*block);
            stack.pop();
            continue;
        };
        *next += 1;
        if !std::mem::replace(&mut seen[to.0], true) {
            stack.push((to, 0));
        }
    }
    order.reverse();
    order
}

fn immediate(flow: &Flow, order: &[BlockId], place: &[Option<usize>]) -> Vec<Option<BlockId>> {
    // By place in the order; the entry stands for its own dominator while this runs.
    let mut idom: Vec<Option<usize>> = vec![None; order.len()];
    if let Some(entry) = idom.first_mut() {
        *entry = Some(0);
    }
    let mut moved = true;
    while moved {
        moved = false;
        for (i, block) in order.iter().enumerate().skip(1) {
            let before = flow.blocks[block.0].predecessors.iter().filter_map(|p| place[p.0]);
            let known = before.filter(|p| idom[*p].is_some());
            let new = known.reduce(|a, b| common(&idom, a, b));
            moved |= new != idom[i];
            idom[i] = new;
        }
    }
    let mut out = vec![None; flow.blocks.len()];
    for (i, block) in order.iter().enumerate().skip(1) {
        out[block.0] = idom[i].map(|p| order[p]);
    }
    out
}

/// The closest block that dominates both.
fn common(idom: &[Option<usize>], mut a: usize, mut b: usize) -> usize {
    while a != b {
        let later = a.max(b);
        let Some(up) = idom[later] else {
            return a.min(b);
        };
        (a, b) = (a.min(b), up);
    }
    a
}

/// Intervals of a walk over the tree: those of dominated blocks lie inside.
fn spans(order: &[BlockId], idom: &[Option<BlockId>], blocks: usize) -> Vec<(usize, usize)> {
    let mut size = vec![1usize; blocks];
    for block in order.iter().rev() {
        if let Some(up) = idom[block.0] {
            size[up.0] += size[block.0];
        }
    }
    let mut span = vec![(0, 0); blocks];
    // Where the next child of each block begins.
    let mut next = vec![0; blocks];
    for block in order {
        let from = idom[block.0].map_or(0, |up| next[up.0]);
        if let Some(up) = idom[block.0] {
            next[up.0] += size[block.0];
        }
        span[block.0] = (from, from + size[block.0]);
        next[block.0] = from + 1;
    }
    span
}

/// The loops of a function.
#[derive(Debug, Clone)]
pub struct Loops {
    /// Heads, ascending.
    heads: Vec<BlockId>,
    /// How many loops each block is in.
    depth: Vec<usize>,
    /// The head of the innermost loop of each block.
    innermost: Vec<Option<BlockId>>,
}

impl Loops {
    /// Finds them.
    #[must_use]
    pub fn new(flow: &Flow, dominators: &Dominators) -> Self {
        let mut latches: std::collections::BTreeMap<BlockId, Vec<BlockId>> = Default::default();
        for block in dominators.order() {
            for to in &flow.blocks[block.0].successors {
                if dominators.place(*to) <= dominators.place(*block) {
                    latches.entry(*to).or_default().push(*block);
                }
            }
        }
        let heads: Vec<BlockId> = latches.keys().copied().collect();
        let mut bodies: Vec<(BlockId, Vec<BlockId>)> = latches
            .into_iter()
            .map(|(head, latches)| (head, body(flow, dominators, head, latches)))
            .collect();
        // Outer loops first, so that inner ones overwrite.
        bodies.sort_by_key(|(head, body)| (std::cmp::Reverse(body.len()), *head));
        let mut depth = vec![0; flow.blocks.len()];
        let mut innermost = vec![None; flow.blocks.len()];
        for (head, body) in bodies {
            for block in body {
                depth[block.0] += 1;
                innermost[block.0] = Some(head);
            }
        }
        Self { heads, depth, innermost }
    }

    /// Heads of loops, ascending.
    #[must_use]
    pub fn heads(&self) -> &[BlockId] {
        &self.heads
    }

    /// Whether a block is the head of a loop.
    #[must_use]
    pub fn is_head(&self, block: BlockId) -> bool {
        self.heads.binary_search(&block).is_ok()
    }

    /// How many loops a block is in. Of a loop with several entries only the head itself counts.
    #[must_use]
    pub fn depth(&self, block: BlockId) -> usize {
        self.depth.get(block.0).copied().unwrap_or(0)
    }

    /// The head of the innermost loop that a block is in.
    #[must_use]
    pub fn innermost(&self, block: BlockId) -> Option<BlockId> {
        self.innermost.get(block.0).copied().flatten()
    }
}

/// The blocks of the loop with this head: those that come back to it. Just the head where none does.
#[must_use]
pub fn natural_loop(flow: &Flow, dominators: &Dominators, head: BlockId) -> BTreeSet<BlockId> {
    let latches = flow.blocks.get(head.0).map(|b| b.predecessors.clone()).unwrap_or_default();
    body(flow, dominators, head, latches).into_iter().collect()
}

/// A loop's blocks: those that come to a latch without going through the head. Where the head does
/// not dominate a latch this would leave the loop, so such a latch adds nothing.
fn body(
    flow: &Flow,
    dominators: &Dominators,
    head: BlockId,
    latches: Vec<BlockId>,
) -> Vec<BlockId> {
    let mut inside = BTreeSet::from([head]);
    let mut queue: Vec<BlockId> =
        latches.into_iter().filter(|l| dominators.dominates(head, *l)).collect();
    while let Some(block) = queue.pop() {
        if inside.insert(block) {
            let before = &flow.blocks[block.0].predecessors;
            queue.extend(before.iter().filter(|p| dominators.place(**p).is_some()));
        }
    }
    inside.into_iter().collect()
}

/// The heads of a function's loops, ascending.
#[must_use]
pub fn loop_heads(flow: &Flow) -> Vec<BlockId> {
    Loops::new(flow, &Dominators::new(flow)).heads
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::code::Body;
    use crate::machine::flow::{Block, End};

    /// A graph without instructions, by the successors of each block.
    pub(crate) fn graph(edges: &[&[usize]]) -> Flow {
        let mut blocks: Vec<Block> = edges
            .iter()
            .map(|to| Block {
                steps: 0..0,
                end: match to.len() {
                    0 => End::Return,
                    1 => End::Jump,
                    2 => End::Branch,
                    _ => End::Table,
                },
                successors: to.iter().map(|b| BlockId(*b)).collect(),
                predecessors: Vec::new(),
                landing_pad: false,
            })
            .collect();
        for (from, to) in edges.iter().enumerate() {
            for b in *to {
                if !blocks[*b].predecessors.contains(&BlockId(from)) {
                    blocks[*b].predecessors.push(BlockId(from));
                }
            }
        }
        let body = Body { steps: Vec::new(), parts: Vec::new(), opaque: None };
        let block_of = Vec::new();
        Flow {
            entry: 0,
            body,
            blocks,
            block_of,
            returns_twice: Vec::new(),
            problem: None,
            whole: std::collections::BTreeMap::new(),
        }
    }

    /// Dominance by its definition: `a` dominates `b` when `b` cannot be reached without it.
    fn by_definition(flow: &Flow, a: usize, b: usize) -> bool {
        let reaches = |without: Option<usize>| {
            let mut seen = vec![false; flow.blocks.len()];
            let mut queue = vec![0];
            while let Some(block) = queue.pop() {
                if Some(block) != without && !std::mem::replace(&mut seen[block], true) {
                    queue.extend(flow.blocks[block].successors.iter().map(|s| s.0));
                }
            }
            seen
        };
        reaches(None)[a] && reaches(None)[b] && !reaches(Some(a))[b]
    }

    #[test]
    fn dominance_is_what_its_definition_says() {
        // Every graph of four blocks with up to two successors each, and one that is irreducible.
        let choices: Vec<Vec<usize>> = (0..4usize)
            .map(|a| vec![a])
            .chain((0..16).map(|n| vec![n / 4, n % 4]))
            .chain([vec![]])
            .collect();
        let mut checked = 0;
        for x in &choices {
            for y in &choices {
                for z in &choices {
                    let flow = graph(&[x, y, z, &[]]);
                    let dominators = Dominators::new(&flow);
                    for a in 0..4 {
                        for b in 0..4 {
                            let expected = by_definition(&flow, a, b);
                            let found = dominators.dominates(BlockId(a), BlockId(b));
                            assert_eq!(found, expected, "{x:?} {y:?} {z:?}: {a} over {b}");
                            checked += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(checked, choices.len().pow(3) * 16);
    }

    #[test]
    fn loops_nest() {
        // 0 -> 1 (outer head) -> 2 (inner head) -> 3 -> 2 or 4 -> 1 or 5.
        let flow = graph(&[&[1], &[2], &[3], &[2, 4], &[1, 5], &[]]);
        let loops = Loops::new(&flow, &Dominators::new(&flow));
        assert_eq!(loops.heads(), [BlockId(1), BlockId(2)]);
        let depths: Vec<usize> = (0..6).map(|b| loops.depth(BlockId(b))).collect();
        assert_eq!(depths, [0, 1, 2, 2, 1, 0]);
        assert_eq!(loops.innermost(BlockId(3)), Some(BlockId(2)));
        assert_eq!(loops.innermost(BlockId(4)), Some(BlockId(1)));
        assert!(loops.is_head(BlockId(2)) && !loops.is_head(BlockId(3)));
    }

    #[test]
    fn a_loop_with_two_entries_has_a_head() {
        let flow = graph(&[&[1, 2], &[2, 3], &[1], &[]]);
        let dominators = Dominators::new(&flow);
        assert_eq!(loop_heads(&flow).len(), 1);
        // The entry is no head, and neither block of the loop dominates the other.
        assert!(!loop_heads(&flow).contains(&BlockId(0)));
        assert!(!dominators.dominates(BlockId(1), BlockId(2)));
    }

    #[test]
    fn what_cannot_be_reached_has_no_dominator() {
        let flow = graph(&[&[1], &[], &[1]]);
        let dominators = Dominators::new(&flow);
        assert_eq!(dominators.idom(BlockId(1)), Some(BlockId(0)));
        assert_eq!(dominators.idom(BlockId(2)), None);
        assert_eq!(dominators.place(BlockId(2)), None);
        assert!(!dominators.dominates(BlockId(2), BlockId(2)));
    }
}
