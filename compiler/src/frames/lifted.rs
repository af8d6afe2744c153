//! What memory holds where ways join: one build reads it before that, on each way for itself, and the other
//! behind.
//!
//! Takes what a place holds on each edge into a point, and what is known there by a name already, memory
//! among it. Where each edge's value is read from that edge's memory at one address, the place holds what is
//! read from the joined memory; so it is with what is made of that, in the same way on every edge.

use super::point::PointId;
use super::state::{Held, memory};
use super::value::{Node, Value, Values};
use rustc_hash::FxHashMap;

/// How deep a value is looked into.
const DEPTH: usize = 6;

/// What is known at a point.
pub(super) struct Lift<'a> {
    pub(super) values: &'a mut Values,
    pub(super) id: PointId,
    /// Names by what stands behind them on the edges.
    pub(super) names: &'a FxHashMap<Vec<Held>, Value>,
    /// Memory on the edges, and behind them.
    pub(super) memory: &'a (Vec<Value>, Value),
}

impl Lift<'_> {
    /// What is made of what has a name at the point, and by edge of what stands behind that name.
    pub(super) fn value(&mut self, all: &[Value]) -> Option<Value> {
        all.first()?;
        self.made(all, DEPTH)
    }

    fn value_at(&mut self, all: &[Value], depth: usize) -> Option<Value> {
        if all.iter().all(|value| *value == all[0]) {
            // The same the next time, too.
            let again = self.values.depends_on(all[0], self.id);
            return (!again).then_some(all[0]);
        }
        let held: Vec<Held> = all.iter().map(|value| Held::Value(*value)).collect();
        match self.names.get(&held) {
            Some(known) => Some(*known),
            None => self.made(all, depth.checked_sub(1)?),
        }
    }

    fn made(&mut self, all: &[Value], depth: usize) -> Option<Value> {
        match *self.values.node(all[0]) {
            Node::Load(_, _, bytes) => self.load(all, bytes, depth),
            ref first @ (Node::Low(bytes, _) | Node::Signed(bytes, _)) => {
                let kind = std::mem::discriminant(first);
                let is_signed = matches!(first, Node::Signed(..));
                let inner = self.inner(all, |node| match node {
                    Node::Low(n, inner) | Node::Signed(n, inner) => {
                        (*n == bytes && std::mem::discriminant(node) == kind).then_some(*inner)
                    }
                    _ => None,
                })?;
                let inner = self.value_at(&inner, depth)?;
                Some(match is_signed {
                    true => self.values.signed(bytes, inner),
                    false => self.values.low(bytes, inner),
                })
            }
            Node::Linear(..) => self.sum(all, depth),
            Node::Store(.., bytes) => self.store(all, bytes, depth),
            _ => None,
        }
    }

    fn inner(&self, all: &[Value], each: impl Fn(&Node) -> Option<Value>) -> Option<Vec<Value>> {
        all.iter().map(|value| each(self.values.node(*value))).collect()
    }

    fn load(&mut self, all: &[Value], bytes: u8, depth: usize) -> Option<Value> {
        let addresses = self.inner(all, |node| match node {
            Node::Load(_, address, n) if *n == bytes => Some(*address),
            _ => None,
        })?;
        let (before, behind) = self.memory;
        for ((value, address), memory) in all.iter().zip(&addresses).zip(before) {
            if memory::load(self.values, *memory, *address, bytes) != *value {
                return None;
            }
        }
        let address = self.value_at(&addresses, depth)?;
        Some(memory::load(self.values, *behind, address, bytes))
    }

    /// Memory itself, where one build has stored something on each edge that the other stores behind.
    fn store(&mut self, all: &[Value], bytes: u8, depth: usize) -> Option<Value> {
        let stores = all.iter().map(|memory| match self.values.node(*memory) {
            Node::Store(before, address, value, n) if *n == bytes => {
                Some([*before, *address, *value])
            }
            _ => None,
        });
        let stores: Vec<[Value; 3]> = stores.collect::<Option<_>>()?;
        let part = |n: usize| stores.iter().map(|store| store[n]).collect::<Vec<_>>();
        let (befores, addresses, stored) = (part(0), part(1), part(2));
        let before = self.value_at(&befores, depth)?;
        let address = self.value_at(&addresses, depth)?;
        let stored = self.value_at(&stored, depth)?;
        Some(memory::store(self.values, before, address, stored, bytes))
    }

    /// Of a sum one term may differ from edge to edge.
    fn sum(&mut self, all: &[Value], depth: usize) -> Option<Value> {
        let sums: Vec<_> = all.iter().map(|value| self.values.terms(*value)).collect();
        let (first, number) = &sums[0];
        let is_shared = |term: &(Value, u64)| sums.iter().all(|(terms, _)| terms.contains(term));
        let mut parts: Vec<(Value, u64)> = first.iter().copied().filter(is_shared).collect();
        if parts.iter().any(|(v, _)| self.values.depends_on(*v, self.id)) {
            return None;
        }
        let mut others = Vec::new();
        let mut factor = None;
        for (terms, own) in &sums {
            let mut rest = terms.iter().filter(|term| !parts.contains(term));
            let ((value, times), None) = (rest.next()?, rest.next()) else { return None };
            if own != number || *factor.get_or_insert(*times) != *times {
                return None;
            }
            others.push(*value);
        }
        parts.push((self.value_at(&others, depth)?, factor?));
        Some(self.values.linear(&parts, *number))
    }
}
