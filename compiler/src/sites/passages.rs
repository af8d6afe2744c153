//! Passages: OLD code from which a frame soon comes to a site, or leaves the function, by itself.
//!
//! A frame that waits where it cannot be carried over may be let go on in OLD's code all the same, if
//! every way through it is short, has no loop, calls nothing that is replaced, and ends at a site or
//! with the function's return: what it then does is what it would have done had the update come a
//! moment later.
//!
//! Takes OLD's graph, where the sites are, which bytes their jumps take, and what may be called; gives
//! the instructions that are such code. Sound only where the commit changes nothing that the function
//! reads by itself ([`refers_to`]).

use crate::code::{Body, Step};
use crate::machine::flow::{BlockId, End, Flow};
use iced_x86::FlowControl;
use std::collections::BTreeSet;
use std::ops::Range;

/// Instructions on the longest way out: more is not soon.
const MOST_STEPS: usize = 200;
/// Calls on the way with the most of them: a frame may wait in each.
const MOST_CALLS: usize = 8;
/// `nop`s between two instructions of a function take less than this.
const MOST_PADDING: u64 = 64;

/// What bounds passages.
pub struct Bounds<'a> {
    /// Whether a site is at an address.
    pub is_site: &'a dyn Fn(u64) -> bool,
    /// Whether something else is planted on some of these bytes.
    pub is_covered: &'a dyn Fn(&Range<u64>) -> bool,
    /// Whether the call or jump out of the function that ends a block may be done by OLD's code.
    pub may_call: &'a dyn Fn(BlockId) -> bool,
}

/// The steps from which every way ends at a site, or leaves the function, within [`MOST_STEPS`]
/// instructions and [`MOST_CALLS`] calls. Sites themselves are not among them.
#[must_use]
pub fn passing(flow: &Flow, bounds: &Bounds<'_>) -> Vec<bool> {
    let steps = &flow.body.steps;
    let mut passing = vec![false; steps.len()];
    let stops: Vec<bool> = steps.iter().map(|s| (bounds.is_site)(s.address())).collect();
    // How many of the ways on are not known to end; and by step, who comes from there.
    let mut open = vec![usize::MAX; steps.len()];
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    let mut ready = Vec::new();
    for index in 0..steps.len() {
        let own = extent(flow, index);
        if stops[index] || !is_plain(flow, index, bounds) || (bounds.is_covered)(&own) {
            continue;
        }
        // Not twice where both ways of a branch, or entries of a table, lead to one place.
        let next: BTreeSet<usize> = flow.next(index).filter(|n| !stops[*n]).collect();
        open[index] = next.len();
        next.iter().for_each(|n| before[*n].push(index));
        if next.is_empty() {
            ready.push(index);
        }
    }
    let (mut longest, mut most) = (vec![0; steps.len()], vec![0; steps.len()]);
    while let Some(index) = ready.pop() {
        let behind = |of: &[usize]| flow.next(index).map(|n| of[n]).max().unwrap_or(0);
        let calls = behind(&most) + usize::from(is_call(flow, index));
        let length = behind(&longest) + 1;
        if length > MOST_STEPS || calls > MOST_CALLS {
            continue;
        }
        (longest[index], most[index], passing[index]) = (length, calls, true);
        for from in &before[index] {
            open[*from] -= 1;
            if open[*from] == 0 {
                ready.push(*from);
            }
        }
    }
    passing
}

fn is_call(flow: &Flow, index: usize) -> bool {
    let block = flow.block(index);
    index + 1 == block.steps.end && block.end == End::Call
}

/// An instruction that ends, and after which the thread goes on in the function, or has left it.
fn is_plain(flow: &Flow, index: usize, bounds: &Bounds<'_>) -> bool {
    let block = flow.block(index);
    let straight = flow.body.steps[index].instruction.flow_control() == FlowControl::Next;
    if index + 1 < block.steps.end {
        return straight;
    }
    match block.end {
        End::Next => straight,
        End::Jump | End::Branch | End::Table | End::Return => true,
        End::Call | End::NoReturn | End::TailCall | End::BranchOut => {
            (bounds.may_call)(flow.block_of[index])
        }
        End::Unresolved | End::Stop => false,
    }
}

/// The bytes that are executed with a step: up to the next one, where it runs into padding.
fn extent(flow: &Flow, index: usize) -> Range<u64> {
    let step = &flow.body.steps[index];
    let runs_on = !matches!(
        step.instruction.flow_control(),
        FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return
    );
    let next = flow.body.steps.get(index + 1).map(Step::address);
    let close = |at: &u64| *at >= step.end() && *at - step.end() < MOST_PADDING;
    let end = next.filter(|_| runs_on).filter(close).unwrap_or(step.end());
    step.address()..end
}

/// Passing code as ranges of addresses, ascending within each part of the function.
#[must_use]
pub fn ranges(flow: &Flow, passing: &[bool]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for index in (0..passing.len()).filter(|i| passing[*i]) {
        let own = extent(flow, index);
        match ranges.last_mut() {
            Some(last) if last.end == own.start => last.end = own.end,
            _ => ranges.push(own),
        }
    }
    ranges
}

/// Of the steps that are passing those to which frames come from some points.
#[must_use]
pub fn from(flow: &Flow, passing: &[bool], points: &BTreeSet<u64>) -> Vec<bool> {
    let mut reached = vec![false; passing.len()];
    let starts = points.iter().filter_map(|at| flow.body.index_at(*at));
    let mut queue: Vec<usize> = starts.filter(|i| passing[*i]).collect();
    while let Some(index) = queue.pop() {
        if !std::mem::replace(&mut reached[index], true) {
            queue.extend(flow.next(index).filter(|next| passing[*next]));
        }
    }
    reached
}

/// What follows from being in a range of passing code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Onward {
    /// Addresses of the sites that it leads to.
    pub exits: BTreeSet<u64>,
    /// Addresses that its code names on the way, other than as targets of branches inside.
    pub names: BTreeSet<u64>,
}

/// Where a range of passing code leads.
#[must_use]
pub fn onward(flow: &Flow, passing: &[bool], range: &Range<u64>) -> Onward {
    let steps = &flow.body.steps;
    let own = |at: u64| flow.body.parts.iter().any(|(part, _)| part.contains(&at));
    let inside = |i: &usize| range.contains(&steps[*i].address());
    let mut queue: Vec<usize> = (0..steps.len()).filter(|i| passing[*i]).filter(inside).collect();
    let mut seen: BTreeSet<usize> = queue.iter().copied().collect();
    let mut found = Onward::default();
    while let Some(index) = queue.pop() {
        let named = steps[index].references.iter().map(|r| r.target);
        found.names.extend(named.filter(|at| !own(*at)));
        for next in flow.next(index) {
            if !passing[next] {
                found.exits.insert(steps[next].address());
            } else if seen.insert(next) {
                queue.push(next);
            }
        }
    }
    found
}

/// Whether code refers to any of these places.
#[must_use]
pub fn refers_to(body: &Body, places: &[Range<u64>]) -> bool {
    let targets = body.steps.iter().flat_map(|s| &s.references).map(|r| r.target);
    { targets }.any(|target| places.iter().any(|place| place.contains(&target)))
}
