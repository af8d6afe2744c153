//! What may have a value at each point: the forward may-analyses of one function.
//!
//! A register that no path has defined since the last call that may change it holds nothing that NEW
//! can want, nor does a byte of the frame that no path has written.

use super::calls::{ARGUMENTS, CALLEE_SAVED, Callee, Calls, Set};
use super::code::Code;
use super::effects::{Bits, Effects};
use super::values::{self, Values};
use crate::debug::{Language, Parameters};
use iced_x86::OpAccess;
use std::collections::{BTreeMap, BTreeSet};

/// What may have a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    /// Registers that may hold a defined value.
    pub(super) defined: Set,
    /// Bytes of the frame that may have been written directly.
    pub(super) touched: Bits,
    /// Offsets, by index, whose address may have left sight.
    pub(super) taken: Bits,
}

/// The analysis of one function.
#[derive(Debug)]
pub(super) struct Reach {
    states: Vec<Option<Reached>>,
    /// All offsets whose address leaves sight somewhere, ascending.
    pub(super) offsets: Vec<i64>,
    /// Those that leave sight at the end of a block.
    at_ends: BTreeMap<usize, BTreeSet<i64>>,
}

/// What all steps of the analysis look at.
#[derive(Clone, Copy)]
pub(super) struct Function<'a> {
    pub(super) calls: &'a Calls<'a>,
    pub(super) code: &'a Code,
    pub(super) values: &'a Values,
    pub(super) effects: &'a Effects,
    /// Its own prototype.
    pub(super) own: Option<Parameters>,
}

/// Registers of a call's result.
pub(super) fn results(prototype: Option<Parameters>) -> Set {
    let (integer, sse) = prototype.map_or((2, 2), |p| (p.result.integer, p.result.sse));
    let general = [0, 2].into_iter().take(usize::from(integer)).map(Set::general);
    let vector = (0..sse.min(2)).map(Set::vector);
    general.chain(vector).fold(Set::default(), Set::with)
}

impl Reach {
    /// `alive` says whether a register is read behind the start of a block: a lost address that is
    /// not does not leave sight.
    pub(super) fn new(function: Function<'_>, alive: impl Fn(usize, usize) -> bool) -> Self {
        let mut at_ends: BTreeMap<usize, BTreeSet<i64>> = BTreeMap::new();
        for (from, to, register, offset) in &function.effects.lost {
            if alive(*to, *register) {
                at_ends.entry(*from).or_default().insert(*offset);
            }
        }
        let taken = function.effects.steps.iter().flat_map(|e| e.taken.iter().copied());
        let offsets: BTreeSet<i64> = taken.chain(at_ends.values().flatten().copied()).collect();
        let mut reach = Self {
            states: vec![None; function.code.blocks.len()],
            offsets: offsets.into_iter().collect(),
            at_ends,
        };
        reach.run(function);
        reach
    }

    fn run(&mut self, function: Function<'_>) {
        let Some(first) = self.states.first_mut() else { return };
        *first = Some(Reached {
            defined: entry(function),
            touched: Bits::new(function.effects.bytes.count),
            taken: Bits::new(self.offsets.len()),
        });
        let mut queue = BTreeSet::from([0]);
        while let Some(block) = queue.pop_first() {
            let Some(mut state) = self.states[block].clone() else { continue };
            for index in function.code.blocks[block].clone() {
                self.step(function, &mut state, index);
            }
            for to in &function.values.successors[block] {
                if self.join(*to, &state) {
                    queue.insert(*to);
                }
            }
            // psABI 3.2.1; the personality routine's results are in rax and rdx.
            let landing = Set::general(0).with(Set::general(2));
            state.defined = state.defined.and(CALLEE_SAVED).with(landing);
            for to in &function.values.pads[block] {
                if self.join(*to, &state) {
                    queue.insert(*to);
                }
            }
        }
    }

    fn join(&mut self, to: usize, state: &Reached) -> bool {
        match &mut self.states[to] {
            Some(before) => {
                let defined = before.defined.with(state.defined);
                let changed = defined != before.defined;
                before.defined = defined;
                let touched = before.touched.add(&state.touched);
                let taken = before.taken.add(&state.taken);
                changed || touched || taken
            }
            none => {
                *none = Some(state.clone());
                true
            }
        }
    }

    fn step(&self, function: Function<'_>, state: &mut Reached, index: usize) {
        let Function { calls, code, values, effects, .. } = function;
        let step = &code.steps[index];
        let i = &step.instruction;
        let effect = &effects.steps[index];
        if values::is_call(i) {
            let callee = values.callees.get(&index).unwrap_or(&Callee::Unknown);
            let prototype = calls.prototype(callee);
            state.defined = state.defined.without(calls.ends(callee)).with(results(prototype));
            // The callee's frame was there.
            for number in effect.top.into_iter().flat_map(|top| effects.bytes.below(top)) {
                state.touched.remove(number);
            }
        } else {
            for used in step.info.used_registers() {
                if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None) {
                    state.defined = state.defined.with(Set::one(used.register()));
                }
            }
        }
        for access in effect.accesses.iter().filter(|a| a.write) {
            for bit in access.range().into_iter().flatten().filter_map(|b| effects.bytes.index(b)) {
                state.touched.insert(bit);
            }
        }
        let last = code.blocks[code.block_of[index]].end == index + 1;
        let lost = self.at_ends.get(&code.block_of[index]).filter(|_| last);
        for offset in effect.taken.iter().chain(lost.into_iter().flatten()) {
            if let Ok(found) = self.offsets.binary_search(offset) {
                state.taken.insert(found);
            }
        }
    }

    /// What may have a value right behind an instruction, for one that comes from there.
    pub(super) fn behind(&self, function: Function<'_>, index: usize) -> Option<Reached> {
        let mut state = self.at(function, index)?;
        self.step(function, &mut state, index);
        Some(state)
    }

    /// What may have a value right before an instruction.
    pub(super) fn at(&self, function: Function<'_>, index: usize) -> Option<Reached> {
        let block = *function.code.block_of.get(index)?;
        let mut state = self.states.get(block)?.clone()?;
        for before in function.code.blocks.get(block)?.start..index {
            self.step(function, &mut state, before);
        }
        Some(state)
    }
}

/// What has a value at an entry: arguments, what belongs to the caller; the static chain (r10) where this may be a
/// nested function. In C those have names of clones and so no prototype, in C++ and Rust there are none.
fn entry(function: Function<'_>) -> Set {
    let own = function.own;
    let image = function.calls.image;
    let language = function.code.parts.first().and_then(|(part, _)| {
        let id = image.function_at(part.start)?;
        Some(image.unit_of(image.function(id))?.language)
    });
    let plain = matches!(language, Some(Language::C | Language::Cpp | Language::Rust));
    let mut set = CALLEE_SAVED;
    if own.is_none() || !plain {
        set = set.with(Set::general(10));
    }
    let variadic = own.is_none_or(|p| p.variadic);
    let integer = own.filter(|p| !p.variadic).map_or(6, |p| usize::from(p.integer));
    for number in ARGUMENTS.iter().take(integer) {
        set = set.with(Set::general(*number));
    }
    let vectors = own.filter(|p| !p.variadic).map_or(8, |p| p.sse);
    for number in 0..vectors.min(8) {
        set = set.with(Set::vector(number));
    }
    if variadic { set.with(Set::general(0)) } else { set }
}
