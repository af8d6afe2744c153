//! Part 4: passages are OLD's code that may run on beside NEW's for a moment.
//!
//! Of each function with passages, from OLD's bytes: every instruction in them is followed only by
//! instructions in them, by a site, or by nothing of the function (a return, a jump to another
//! function); whom it calls or jumps to is not replaced; there is no loop, and a bounded number of
//! instructions. What the plan says of each passage, its sites and the addresses that it names, is
//! complete. Nothing that the function refers to is overwritten or left behind by the update.

use super::calls::{Callee, Calls};
use super::code::{Code, Step};
use super::values::{Values, is_call};
use crate::image::{FunctionId, Image};
use dsu_patch_format::Bundle;
use dsu_patch_format::plan::Passage;
use iced_x86::{FlowControl, OpKind};
use object::elf;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Instructions, `nop`s and all, from any point of a passage to its end.
const MOST_STEPS: usize = 1_000;

/// A function whose OLD code may not run on, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impassable {
    /// [`dsu_patch_format::Manifest::replaced`] by index.
    pub function: u32,
    /// What does not hold, in words.
    pub subject: String,
}

/// All passages of one function.
struct Passages<'a> {
    bundle: &'a Bundle,
    calls: &'a Calls<'a>,
    code: &'a Code,
    values: &'a Values,
    own: Vec<&'a Passage>,
    /// Addresses of the function's sites, with their index.
    sites: BTreeMap<u64, u32>,
    /// Fields of its code that hold an address as a number (not PIE), with that.
    absolute: BTreeMap<u64, u64>,
}

/// Where one instruction leads.
#[derive(Debug, Default)]
struct Next {
    /// Instructions in passages.
    inside: BTreeSet<usize>,
    /// Sites, by index.
    sites: BTreeSet<u32>,
    /// Addresses that it names.
    names: BTreeSet<u64>,
}

/// Checks the passages of all functions of a bundle.
pub(super) fn check(calls: &Calls<'_>, bundle: &Bundle) -> Vec<Impassable> {
    let functions: BTreeSet<u32> = bundle.plan.passages.iter().map(|p| p.function).collect();
    let checked = functions.into_iter().filter_map(|function| {
        let subject = one(calls, bundle, function).err()?;
        Some(Impassable { function, subject })
    });
    checked.collect()
}

fn one(calls: &Calls<'_>, bundle: &Bundle, function: u32) -> Result<(), String> {
    let replaced = usize::try_from(function).ok().and_then(|i| bundle.manifest.replaced.get(i));
    let replaced = replaced.ok_or("names no replaced function")?;
    let functions = &calls.image.functions;
    let id = functions.binary_search_by_key(&replaced.old.0, |f| f.address);
    let id = FunctionId(id.map_err(|_| "OLD has no such function")?);
    let mut code = Code::new(calls.image, id);
    if let Some(at) = code.damaged {
        return Err(format!("OLD's code cannot be read at {at:#x}"));
    }
    let values = Values::new(calls, &mut code);
    let plan = &bundle.plan;
    let sites = plan.sites.iter().zip(0..).filter(|(s, _)| s.function == function);
    let passages = Passages {
        bundle,
        calls,
        code: &code,
        values: &values,
        own: plan.passages.iter().filter(|p| p.function == function).collect(),
        sites: sites.map(|(s, index)| (s.at.0, index)).collect(),
        absolute: absolute(calls.image, &code),
    };
    passages.undisturbed()?;
    let next = passages.next()?;
    passages.ends(&next)?;
    passages.told(&next)
}

/// What the linker was told to put into the code as absolute addresses (psABI 4.4: 32, 32S, 64).
fn absolute(image: &Image, code: &Code) -> BTreeMap<u64, u64> {
    let bytes = |kind| match kind {
        elf::R_X86_64_32 | elf::R_X86_64_32S => Some(4),
        elf::R_X86_64_64 => Some(8),
        _ => None,
    };
    let own = |at: u64| code.parts.iter().any(|(part, _)| part.contains(&at));
    let fields = image.static_relocations.iter().filter(|r| own(r.at));
    let number = |at: u64, len: usize| {
        let content = image.content(at, len as u64)?;
        let mut number = [0; 8];
        number.get_mut(..len)?.copy_from_slice(&content);
        Some(u64::from_le_bytes(number))
    };
    fields.filter_map(|r| Some((r.at, number(r.at, bytes(r.kind)?)?))).collect()
}

impl Passages<'_> {
    /// Nothing that the function names is changed under it.
    fn undisturbed(&self) -> Result<(), String> {
        let plan = &self.bundle.plan;
        let writes = plan.writes.iter().map(|w| (w.at.0, w.bytes.len() as u64));
        let left = plan.left.iter().map(|(at, bytes)| (at.0, *bytes));
        let changed: Vec<Range<u64>> =
            writes.chain(left).map(|(at, bytes)| at..at.saturating_add(bytes)).collect();
        for step in &self.code.steps {
            for at in self.names(step) {
                if changed.iter().any(|c| c.contains(&at)) {
                    return Err(format!("its code refers to {at:#x}, which the update changes"));
                }
            }
        }
        Ok(())
    }

    /// The addresses that an instruction names outside of the function.
    fn names(&self, step: &Step) -> BTreeSet<u64> {
        let i = &step.instruction;
        let relative = i.is_ip_rel_memory_operand().then(|| i.ip_rel_memory_address());
        let absolute = self.absolute.range(i.ip()..i.next_ip()).map(|(_, target)| *target);
        let own = |at: &u64| self.code.parts.iter().any(|(part, _)| part.contains(at));
        let direct = (i.op0_kind() == OpKind::NearBranch64).then(|| i.near_branch_target());
        let all = relative.into_iter().chain(direct).chain(absolute);
        all.filter(|at| !own(at)).collect()
    }

    /// The function's passage that holds an address.
    fn holds(&self, at: u64) -> bool {
        self.own.iter().any(|p| p.start.0 <= at && at < p.end.0)
    }

    /// Where each instruction in a passage leads.
    fn next(&self) -> Result<BTreeMap<usize, Next>, String> {
        let mut found = BTreeMap::new();
        for passage in &self.own {
            if self.code.index(passage.start.0).is_none() {
                return Err(format!("no instruction begins at {}", passage.start));
            }
            let mut at = passage.start.0;
            while at < passage.end.0 {
                let index =
                    self.code.index(at).ok_or(format!("no instruction begins at {at:#x}"))?;
                found.insert(index, self.follow(index)?);
                at = self.code.steps[index].instruction.next_ip();
            }
            if at != passage.end.0 {
                return Err(format!("an instruction goes on behind {}", passage.end));
            }
        }
        Ok(found)
    }

    fn follow(&self, index: usize) -> Result<Next, String> {
        let step = &self.code.steps[index];
        let (i, at) = (&step.instruction, step.instruction.ip());
        let block = self.code.block_of[index];
        if self.values.unresolved.contains(&index) {
            return Err(format!("nobody knows where the jump at {at:#x} leads"));
        }
        match i.flow_control() {
            FlowControl::Next
            | FlowControl::ConditionalBranch
            | FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return => {}
            FlowControl::Call | FlowControl::IndirectCall if is_call(i) => {}
            _ => return Err(format!("the instruction at {at:#x} may take any time")),
        }
        if let Some(callee) = self.values.callees.get(&index) {
            self.may_call(callee, at)?;
        }
        let mut next = Next { names: self.names(step), ..Next::default() };
        let starts = |block: &usize| self.code.blocks[*block].start;
        let followers: BTreeSet<usize> = if index + 1 < self.code.blocks[block].end {
            BTreeSet::from([index + 1])
        } else {
            let ways = self.values.successors[block].iter().chain(&self.values.pads[block]);
            ways.map(starts).collect()
        };
        for follower in followers {
            let to = self.code.steps[follower].instruction.ip();
            if let Some(site) = self.sites.get(&to) {
                next.sites.insert(*site);
            } else if self.holds(to) {
                next.inside.insert(follower);
            } else {
                return Err(format!(
                    "from {at:#x} it leads to {to:#x}, which is neither part of it nor a site"
                ));
            }
        }
        Ok(next)
    }

    fn may_call(&self, callee: &Callee, at: u64) -> Result<(), String> {
        let Callee::Function(id) = callee else { return Ok(()) };
        let function = self.calls.image.function(*id);
        match self.bundle.manifest.replaced.iter().find(|r| r.old.0 == function.address) {
            Some(replaced) => Err(format!("at {at:#x} it calls {}, which changes", replaced.name)),
            None => Ok(()),
        }
    }

    /// Every way ends: instructions without an open way are taken away until none is left.
    fn ends(&self, next: &BTreeMap<usize, Next>) -> Result<(), String> {
        let mut length: BTreeMap<usize, usize> = BTreeMap::new();
        loop {
            let before = length.len();
            for (index, one) in next {
                let behind: Option<Vec<usize>> =
                    one.inside.iter().map(|n| length.get(n).copied()).collect();
                if let Some(behind) = behind {
                    length.insert(*index, behind.into_iter().max().unwrap_or(0) + 1);
                }
            }
            if length.len() == next.len() {
                break;
            }
            if length.len() == before {
                return Err("there is a loop in it".to_owned());
            }
        }
        match length.values().max() {
            Some(longest) if *longest > MOST_STEPS => {
                Err(format!("it takes {longest} instructions"))
            }
            _ => Ok(()),
        }
    }

    /// The plan tells of each passage all sites that it leads to, and all that it names.
    fn told(&self, next: &BTreeMap<usize, Next>) -> Result<(), String> {
        for passage in &self.own {
            let at = |index: &usize| self.code.steps[*index].instruction.ip();
            let inside = |index: &usize| (passage.start.0..passage.end.0).contains(&at(index));
            let mut queue: Vec<usize> = next.keys().copied().filter(inside).collect();
            let mut seen: BTreeSet<usize> = queue.iter().copied().collect();
            while let Some(one) = queue.pop().and_then(|index| next.get(&index)) {
                if let Some(site) = one.sites.iter().find(|s| !passage.exits.contains(s)) {
                    return Err(format!("the passage at {} leads to site {site}", passage.start));
                }
                if let Some(name) =
                    one.names.iter().find(|n| !passage.names.iter().any(|p| p.0 == **n))
                {
                    return Err(format!("the passage at {} names {name:#x}", passage.start));
                }
                queue.extend(one.inside.iter().filter(|n| seen.insert(**n)));
            }
        }
        Ok(())
    }
}
