//! One side of a matching: its graph with what each block says.

use super::lines::Place;
use super::tokens::{Callee, Key, Side, Token, number, sense};
use crate::code::Step;
use crate::machine::dominators::{Dominators, Loops};
use crate::machine::flow::{Block, BlockId, End, Flow};
use std::collections::BTreeMap;

/// More edges than this at one end of a block are not followed.
pub(super) const HUB: usize = 16;

/// A call, as seen from both its ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Whom it calls.
    pub callee: Callee,
    /// Where, in NEW's terms.
    pub place: Option<Place>,
}

impl Call {
    /// Whether it may be another one, or takes its place.
    pub(super) fn is_instead_of(self, other: Self) -> bool {
        self.callee.agrees(other.callee) || self.place.is_some() && self.place == other.place
    }
}

/// An edge of the graph.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    /// The block at its other end.
    pub block: BlockId,
    /// When it is taken; for branches without which of both.
    pub kind: Key,
    /// When it is taken, exactly.
    pub label: Key,
}

/// What a block says.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Its instructions without registers, their source positions, and where it returns from.
    pub strong: Key,
    /// What is in it, ascending, each once, with how much it tells.
    pub features: Vec<(Key, f32)>,
    /// The call that it is the return point of.
    pub returns: Option<Call>,
}

/// One side.
pub(super) struct View<'a> {
    pub flow: &'a Flow,
    pub dominators: Dominators,
    pub loops: Loops,
    pub facts: Vec<Facts>,
    /// Edges to successors.
    pub out: Vec<Vec<Edge>>,
    /// Edges from predecessors.
    pub into: Vec<Vec<Edge>>,
}

impl<'a> View<'a> {
    /// Looks at a graph.
    pub(super) fn new(
        side: Side<'a>,
        flow: &'a Flow,
        tokens: &[Token],
        places: &[Option<Place>],
    ) -> Self {
        let dominators = Dominators::new(flow);
        let loops = Loops::new(flow, &dominators);
        let out: Vec<Vec<Edge>> = flow.blocks.iter().map(|block| edges(flow, block)).collect();
        let into = reversed(&out, &dominators);
        let mut returns = vec![None; flow.blocks.len()];
        for block in &flow.blocks {
            if let (End::Call, Some(to)) = (block.end, block.successors.first())
                && let Some(at) = block.steps.clone().last()
                && let Some(step) = flow.body.steps.get(at)
            {
                returns[to.0] = side.callee(step).map(|callee| Call { callee, place: places[at] });
            }
        }
        let facts = flow
            .blocks
            .iter()
            .zip(returns)
            .map(|(block, returns)| facts(side, flow, block, returns, tokens, places))
            .collect();
        Self { flow, dominators, loops, facts, out, into }
    }

    /// How many blocks there are.
    pub(super) fn len(&self) -> usize {
        self.flow.blocks.len()
    }

    /// The block of an index.
    pub(super) fn block(&self, block: BlockId) -> &Block {
        &self.flow.blocks[block.0]
    }
}

/// The edges by the block that they lead to. Where very many lead (the targets of an interpreter's
/// jumps) only those from dominators are kept: the others tell nothing and cost much.
fn reversed(out: &[Vec<Edge>], dominators: &Dominators) -> Vec<Vec<Edge>> {
    let mut into = vec![Vec::new(); out.len()];
    for (from, edges) in out.iter().enumerate() {
        for edge in edges {
            into[edge.block.0].push(Edge { block: BlockId(from), ..*edge });
        }
    }
    for (to, edges) in into.iter_mut().enumerate() {
        if edges.len() > HUB {
            edges.retain(|edge| dominators.dominates(edge.block, BlockId(to)));
        }
    }
    into
}

fn edges(flow: &Flow, block: &Block) -> Vec<Edge> {
    let last = block.steps.clone().last().and_then(|at| flow.body.steps.get(at));
    let branch = |taken: bool| {
        let (family, positive) = last.map_or((0, true), |step: &Step| sense(&step.instruction));
        (number(&("branch", family)), number(&("branch", family, positive == taken)))
    };
    let plain = |what: &str| (number(&what), number(&what));
    let label = |i: usize| match (block.end, i) {
        (End::Branch, 0) => branch(true),
        (End::Branch | End::BranchOut, _) => branch(false),
        (End::Table, i) => (number(&"case"), number(&("case", i))),
        (End::Call, 0) => plain("return"),
        (End::Call | End::NoReturn, _) => plain("pad"),
        _ => plain("next"),
    };
    if block.end == End::Unresolved {
        return Vec::new();
    }
    let all = block.successors.iter().enumerate();
    all.map(|(i, to)| {
        let (kind, label) = label(i);
        Edge { block: *to, kind, label }
    })
    .collect()
}

fn facts(
    side: Side<'_>,
    flow: &Flow,
    block: &Block,
    returns: Option<Call>,
    tokens: &[Token],
    places: &[Option<Place>],
) -> Facts {
    let exact: Vec<Key> = block.steps.clone().map(|i| tokens[i].exact).collect();
    let own = &places[block.steps.clone()];
    let came = returns.map(|call| (call.callee.key(), call.place));
    let mut features: BTreeMap<Key, f32> = BTreeMap::new();
    let mut add = |key: Key, tells: f32| {
        let known = features.entry(key).or_default();
        *known = known.max(tells);
    };
    for (n, i) in block.steps.clone().enumerate() {
        add(tokens[i].exact, if n < 2 { 0.4 } else { 0.25 });
        tokens[i].facts.iter().for_each(|(key, tells)| add(*key, *tells));
        if let Some(place) = places[i] {
            add(number(&place.line()), 0.5);
            add(number(&(place.line(), place.column)), 0.3);
            add(number(&(place.line(), place.body)), 0.3);
        }
    }
    let first = own.iter().flatten().next().copied();
    if let Some(place) = first {
        add(number(&("first", place.line())), 0.5);
        add(number(&("first", place)), 0.5);
    }
    let mut calls = |call: Call, what: &str, tells: f32| {
        add(number(&(what, call.callee.key())), tells);
        if let Some(place) = call.place {
            add(number(&(what, call.callee.key(), place.line())), tells);
            add(number(&(what, call.callee.key(), place)), tells);
        }
    };
    if let Some(call) = returns {
        calls(call, "returns", 1.5);
    }
    if let Some(at) = block.steps.clone().last()
        && let Some(callee) = flow.body.steps.get(at).and_then(|step| side.callee(step))
    {
        calls(Call { callee, place: places[at] }, "calls", 0.7);
    }
    add(number(&("end", std::mem::discriminant(&block.end))), 0.2);
    Facts {
        strong: number(&(exact, own, came, block.landing_pad)),
        features: features.into_iter().collect(),
        returns,
    }
}
