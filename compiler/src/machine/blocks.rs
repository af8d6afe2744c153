//! Cutting a body into blocks: how each instruction goes on, then where blocks begin.

use super::calls::{self, Callee};
use super::flow::{Block, BlockId, End, Flow};
use super::landing::{self, CallSite};
use super::tables::{Before, Tables};
use crate::code::{Body, decode};
use crate::debug::Language;
use crate::image::{Function, Image, Thing};
use iced_x86::{FlowControl, Mnemonic};
use std::collections::{BTreeMap, BTreeSet};

/// How often the tables of a function are looked for anew with the edges that the last look found, beyond
/// the number of its jumps.
const ROUNDS: usize = 8;

pub(super) fn build(image: &Image, function: &Function) -> Flow {
    let body = decode(image, function);
    let mut builder = Builder::new(image, function, &body);
    let landing = builder.landing();
    let ends = builder.ends(&landing);
    let (blocks, block_of) = cut(&body, &ends, &landing);
    let problem = builder.problem;
    let returns_twice = builder.twice;
    Flow {
        entry: function.address,
        blocks,
        block_of,
        returns_twice,
        problem,
        body,
        whole: BTreeMap::new(),
    }
}

/// How an instruction goes on, with the steps that may follow. [`End::Next`] for most.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exit {
    end: End,
    next: Vec<usize>,
}

/// For each call, the landing pads of its exceptions.
type Landing = BTreeMap<usize, Vec<usize>>;

struct Builder<'a> {
    image: &'a Image,
    function: &'a Function,
    body: &'a Body,
    /// Written by hand: falls from one function into the next, has wrong unwind tables.
    assembler: bool,
    twice: Vec<usize>,
    problem: Option<String>,
}

impl<'a> Builder<'a> {
    fn new(image: &'a Image, function: &'a Function, body: &'a Body) -> Self {
        let unit = image.unit_of(function);
        let assembler = unit.is_none_or(|u| u.language == Language::Assembler);
        let mut builder =
            Self { image, function, body, assembler, twice: Vec::new(), problem: None };
        if let Some(opaque) = &body.opaque {
            builder.fail(format!("the bytes at {:#x} are no instructions", opaque.start));
        }
        if body.steps.is_empty() {
            builder.fail("it has no code".to_owned());
        }
        builder
    }

    /// The first problem counts.
    fn fail(&mut self, what: String) {
        self.problem.get_or_insert(what);
    }

    fn ends(&mut self, landing: &Landing) -> Vec<Exit> {
        let mut ends: Vec<Exit> = (0..self.body.steps.len()).map(|i| self.exit(i)).collect();
        self.resolve_tables(&mut ends, landing);
        ends
    }

    /// The step that comes behind one, if there is one in the same part.
    fn behind(&self, step: usize) -> Option<usize> {
        let next = step + 1;
        let (_, steps) = self.body.parts.iter().find(|(_, steps)| steps.contains(&step))?;
        steps.contains(&next).then_some(next)
    }

    fn exit(&mut self, index: usize) -> Exit {
        let instruction = &self.body.steps[index].instruction;
        match instruction.flow_control() {
            FlowControl::UnconditionalBranch => self.jump(index),
            FlowControl::ConditionalBranch => self.branch(index),
            FlowControl::IndirectBranch => Exit { end: End::Unresolved, next: Vec::new() },
            FlowControl::Return if instruction.mnemonic() == Mnemonic::Ret => {
                Exit { end: End::Return, next: Vec::new() }
            }
            FlowControl::Call | FlowControl::IndirectCall
                if instruction.mnemonic() == Mnemonic::Call =>
            {
                self.call(index)
            }
            FlowControl::Call if instruction.mnemonic() == Mnemonic::Syscall => self.fall(index),
            FlowControl::Interrupt
                if matches!(instruction.mnemonic(), Mnemonic::Int3 | Mnemonic::Int1) =>
            {
                Exit { end: End::Stop, next: Vec::new() }
            }
            FlowControl::Exception => Exit { end: End::Stop, next: Vec::new() },
            FlowControl::Next if instruction.mnemonic() == Mnemonic::Hlt => {
                Exit { end: End::Stop, next: Vec::new() }
            }
            FlowControl::Next if instruction.mnemonic() == Mnemonic::Std => {
                self.fail(format!("it sets the direction flag at {:#x}", instruction.ip()));
                self.fall(index)
            }
            FlowControl::Next => self.fall(index),
            _ => {
                self.fail(format!("`{instruction}` at {:#x}", instruction.ip()));
                Exit { end: End::Stop, next: Vec::new() }
            }
        }
    }

    fn fall(&mut self, index: usize) -> Exit {
        match self.behind(index) {
            Some(next) => Exit { end: End::Next, next: vec![next] },
            None => {
                // Compilers end like this what they know not to be reached.
                if self.assembler && self.body.opaque.is_none() {
                    let end = self.body.steps[index].end();
                    self.fail(format!("it goes on behind its end at {end:#x}"));
                }
                Exit { end: End::Stop, next: Vec::new() }
            }
        }
    }

    /// The step that a direct branch leads to; `None` when it leaves the function by the entry of
    /// another.
    fn target(&mut self, index: usize) -> Option<usize> {
        let step = &self.body.steps[index];
        let target = step.instruction.near_branch_target();
        if let Some(inside) = self.inside(target) {
            return Some(inside);
        }
        if let Callee::Inside(_) = calls::callee(self.image, step) {
            let what = match self.image.resolve(target) {
                Thing::Code { function, .. } => self.image.function(function).name().to_owned(),
                _ => "code that no symbol names".to_owned(),
            };
            self.fail(format!("it jumps from {:#x} into {what}", step.address()));
        }
        None
    }

    /// The step at an address of this function.
    fn inside(&mut self, target: u64) -> Option<usize> {
        let (_, steps) = self.body.parts.iter().find(|(part, _)| part.contains(&target))?;
        let steps = steps.clone();
        let index = self.body.index_at(target)?;
        if !self.body.is_boundary(target) {
            self.fail(format!("it jumps into the middle of an instruction at {target:#x}"));
        }
        if steps.contains(&index) {
            return Some(index);
        }
        self.fail(format!("it jumps to {target:#x}, where it has no instruction"));
        None
    }

    fn jump(&mut self, index: usize) -> Exit {
        match self.target(index) {
            Some(target) => Exit { end: End::Jump, next: vec![target] },
            None => Exit { end: End::TailCall, next: Vec::new() },
        }
    }

    fn branch(&mut self, index: usize) -> Exit {
        let instruction = &self.body.steps[index].instruction;
        // They count in rcx, and ask about it beside the flags (SDM volume 2, LOOP).
        if matches!(instruction.mnemonic(), Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne) {
            self.fail(format!("it has a `loop` instruction at {:#x}", instruction.ip()));
        }
        let taken = self.target(index);
        let mut next: Vec<usize> = taken.into_iter().collect();
        next.extend(self.behind(index));
        if self.behind(index).is_none() {
            self.fail(format!("it goes on behind {:#x}", self.body.steps[index].address()));
        }
        Exit { end: if taken.is_some() { End::Branch } else { End::BranchOut }, next }
    }

    fn call(&mut self, index: usize) -> Exit {
        let step = &self.body.steps[index];
        let callee = calls::callee(self.image, step);
        if let Callee::Inside(address) = callee {
            self.fail(format!("it calls {address:#x}, which is no function's entry"));
        }
        if calls::returns_twice(self.image, &callee) {
            self.twice.push(index);
        }
        match self.behind(index) {
            Some(next) if !calls::never_returns(self.image, &callee) && !self.frame_ends(index) => {
                Exit { end: End::Call, next: vec![next] }
            }
            _ => Exit { end: End::NoReturn, next: Vec::new() },
        }
    }

    /// Whether the code behind a call belongs to another path: a call leaves the stack pointer as it
    /// was (psABI 3.2.1), so a change of the CFA's rule right there means that nobody comes from it.
    fn frame_ends(&self, index: usize) -> bool {
        if self.assembler {
            return false;
        }
        let step = &self.body.steps[index];
        let row = |address: u64| {
            let entry = self.image.unwind_entry(address)?;
            entry.row_at(address).map(|row| row.cfa)
        };
        // Padding may lie between; what counts is the return address.
        match (row(step.address()), row(step.end())) {
            (Some(before), Some(behind)) => before != behind,
            _ => false,
        }
    }

    /// Finds the targets of indirect jumps, beginning with no edges out of them: each table found adds
    /// edges, by which the bases of others are found, until nothing is added. A real path then has
    /// nothing but known edges, so the base that a jump really uses is among those found for it.
    fn resolve_tables(&mut self, ends: &mut [Exit], landing: &Landing) {
        let jumps: Vec<usize> =
            (0..ends.len()).filter(|i| ends[*i].end == End::Unresolved).collect();
        if jumps.is_empty() {
            return;
        }
        let id = self.image.function_at(self.function.address);
        let Some(function) = id else {
            self.fail("no symbol names it".to_owned());
            return;
        };
        let mut tables = Tables { image: self.image, function, body: self.body, last: false };
        let mut leaving = BTreeMap::new();
        // With what jumps that nobody understands add, others may have more tables.
        for last in [false, true, true] {
            tables.last = last;
            if !self.settle(&tables, &jumps, &leaving, ends, landing) {
                self.fail("its jump tables lead to ever more jump tables".to_owned());
                return;
            }
            let used = |ends: &[Exit]| -> BTreeSet<u64> {
                let before = before(ends, landing);
                let found = jumps.iter().filter_map(|j| tables.find(*j, &before));
                found.flat_map(|f| f.tables).collect()
            };
            if last {
                let used = used(ends);
                let open = jumps.iter().filter(|j| ends[**j].end == End::Unresolved);
                let open: Vec<usize> = open.copied().collect();
                leaving = open.into_iter().map(|j| (j, tables.leaves(j, &used))).collect();
            }
        }
        for (jump, out) in leaving {
            ends[jump] = self.open_jump(out);
        }
    }

    /// Repeats until the tables found are those of all edges found; `false` when that has no end.
    fn settle(
        &self,
        tables: &Tables<'_>,
        jumps: &[usize],
        leaving: &BTreeMap<usize, bool>,
        ends: &mut [Exit],
        landing: &Landing,
    ) -> bool {
        for _ in 0..jumps.len() + ROUNDS {
            let before = before(ends, landing);
            let mut stable = true;
            for jump in jumps {
                let now = match (tables.find(*jump, &before), leaving.get(jump)) {
                    (Some(found), _) => Exit { end: End::Table, next: found.targets },
                    (None, Some(out)) => self.open_jump(*out),
                    (None, None) => Exit { end: End::Unresolved, next: Vec::new() },
                };
                stable &= ends[*jump] == now;
                ends[*jump] = now;
            }
            if stable {
                return true;
            }
        }
        false
    }

    /// A jump that no table explains: out of the function, or to anywhere in it.
    fn open_jump(&self, leaves: bool) -> Exit {
        match leaves {
            true => Exit { end: End::TailCall, next: Vec::new() },
            false => Exit { end: End::Unresolved, next: (0..self.body.steps.len()).collect() },
        }
    }

    /// For each step, the landing pads of its call site.
    fn landing(&mut self) -> Landing {
        let sites = match landing::call_sites(self.image, self.function.parts()) {
            Ok(sites) => sites,
            Err(problem) => {
                self.fail(problem);
                return Landing::new();
            }
        };
        if !sites.is_empty() && self.throws_anywhere() {
            self.fail(
                "exceptions may come from any instruction (-fnon-call-exceptions)".to_owned(),
            );
        }
        let mut out = Landing::new();
        for CallSite { calls, pad } in sites {
            let Some(pad) = self.inside(pad) else {
                self.fail(format!("its landing pad {pad:#x} lies outside"));
                continue;
            };
            for (index, step) in self.body.steps.iter().enumerate() {
                // The unwinder looks up the byte before the return address.
                let last = step.end() - 1;
                if step.instruction.mnemonic() == Mnemonic::Call && calls.contains(&last) {
                    out.entry(index).or_default().push(pad);
                }
            }
        }
        out
    }

    fn throws_anywhere(&self) -> bool {
        let unit = self.image.unit_of(self.function);
        unit.is_some_and(|u| u.producer.contains("-fnon-call-exceptions"))
    }
}

/// Instructions that may come right before each one.
fn before(ends: &[Exit], landing: &Landing) -> Before {
    let mut before = vec![Vec::new(); ends.len()];
    for (index, exit) in ends.iter().enumerate() {
        for next in exit.next.iter().chain(landing.get(&index).into_iter().flatten()) {
            before[*next].push(index);
        }
    }
    before
}

fn cut(body: &Body, ends: &[Exit], landing: &Landing) -> (Vec<Block>, Vec<BlockId>) {
    let mut leaders: BTreeSet<usize> =
        body.parts.iter().map(|(_, steps)| steps.start).filter(|s| *s < ends.len()).collect();
    for (index, exit) in ends.iter().enumerate() {
        if exit.end != End::Next {
            leaders.extend(exit.next.iter().copied());
            leaders.extend((index + 1 < ends.len()).then_some(index + 1));
        }
    }
    let pads: BTreeSet<usize> = landing.values().flatten().copied().collect();
    leaders.extend(&pads);
    let starts: Vec<usize> = leaders.into_iter().collect();
    let id_at = |step: usize| BlockId(starts.partition_point(|s| *s <= step) - 1);
    let block_of: Vec<BlockId> = (0..ends.len()).map(id_at).collect();
    let mut blocks: Vec<Block> = starts
        .iter()
        .enumerate()
        .map(|(i, start)| {
            let end = starts.get(i + 1).copied().unwrap_or(ends.len());
            let exit = &ends[end - 1];
            let landing = landing.get(&(end - 1)).into_iter().flatten();
            let mut successors: Vec<BlockId> =
                exit.next.iter().chain(landing).map(|s| id_at(*s)).collect();
            if exit.end == End::Unresolved {
                successors.dedup();
            }
            Block {
                steps: *start..end,
                end: exit.end,
                successors,
                predecessors: Vec::new(),
                landing_pad: pads.contains(start),
            }
        })
        .collect();
    for id in 0..blocks.len() {
        for next in blocks[id].successors.clone() {
            let before = &mut blocks[next.0].predecessors;
            if before.last() != Some(&BlockId(id)) {
                before.push(BlockId(id));
            }
        }
    }
    (blocks, block_of)
}
