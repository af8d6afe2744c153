//! The entries of one function, walked once: its variables, and those of bodies inlined into it.
//!
//! What a copy of an inlined body leaves out is told by its abstract instance; such a variable is
//! listed without places, so that a name that exists is not taken for a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use gimli::{AttributeValue, DwTag, Dwarf, constants as dw};

use super::abstracts::{Abstract, Abstracts};
use super::entry::{Entries, Entry, OpenUnit, is_block, is_variable, merged};
use super::model::{Call, Inlined, Local, Locals, Place, Scope};
use super::places::{FrameBase, FrameView, Places};
use crate::debug::raw::{Input, Offset};
use crate::debug::{DebugError, DebugInfo};

/// The most variables that one function may have, copies included. Damaged references could claim
/// any number.
const VARIABLES_LIMIT: usize = 1 << 18;
/// The most entries of one location list.
const LIST_LIMIT: usize = 1 << 16;
/// How deep bodies may be inlined into another.
const NESTING_LIMIT: usize = 256;

/// Reads the variables of a function, by its index in [`DebugInfo::functions`].
pub(in crate::debug) fn read(
    info: &DebugInfo,
    function: usize,
    dwarf: &Dwarf<Input<'_>>,
    frame: &FrameView<'_>,
) -> Result<Locals, DebugError> {
    let entries = Entries::new(dwarf, &info.locals);
    let Some(offset) = info.locals.function(function) else {
        return Ok(Locals::default());
    };
    let fail = |source| DebugError::Units { section: ".debug_info", source };
    let open = entries.unit(offset).map_err(fail)?;
    let mut walk = Walk {
        info,
        entries: &entries,
        open: &open,
        frame,
        base: FrameBase::Other,
        abstracts: Abstracts::default(),
        chains: Vec::new(),
        bodies: Vec::new(),
        around: Vec::new(),
        out: Locals::default(),
        chain_of: Vec::new(),
    };
    if let Err(error) = walk.run(offset) {
        walk.out.damage = Some(error.to_string());
    }
    Ok(walk.finish())
}

/// A body being read: the function's own, or a copy of an inlined one.
struct BodyState {
    /// Its bodies around, itself last.
    chain: usize,
    origin: Option<Rc<Abstract>>,
    ranges: Vec<Range<u64>>,
    /// Origins of the variables that were listed.
    seen: BTreeSet<Offset>,
    parameters: u32,
}

/// An entry whose children are being read.
struct Around {
    depth: isize,
    /// `None` for what is skipped.
    block: Option<Block>,
    /// The entry is a body, the last of [`Walk::bodies`].
    is_body: bool,
}

/// A body, or a block in it.
#[derive(Clone)]
struct Block {
    path: Vec<u32>,
    blocks: u32,
    ranges: Rc<Vec<Range<u64>>>,
}

struct Walk<'w, 'a> {
    info: &'w DebugInfo,
    entries: &'w Entries<'w, 'a>,
    open: &'w OpenUnit<'a>,
    frame: &'w FrameView<'w>,
    base: FrameBase,
    abstracts: Abstracts,
    /// Chains of bodies, by the number that locals refer to until the end.
    chains: Vec<Vec<Scope>>,
    bodies: Vec<BodyState>,
    around: Vec<Around>,
    out: Locals,
    /// The chain of each variable of `out`.
    chain_of: Vec<usize>,
}

impl<'a> Walk<'_, 'a> {
    fn run(&mut self, root: Offset) -> gimli::Result<()> {
        let mut entries = self.open.entries(Some(root))?;
        while !entries.is_empty() && self.out.variables.len() < VARIABLES_LIMIT {
            let depth = entries.next_depth();
            let offset = self.open.base.saturating_add(entries.next_offset().0 as u64);
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            self.close(depth);
            if self.around.is_empty() && offset != root {
                return Ok(());
            }
            let tag = abbreviation.tag();
            if offset != root && !self.is_of_use(tag) {
                entries.skip_attributes(abbreviation.attributes())?;
                if abbreviation.has_children() {
                    self.around.push(Around { depth, block: None, is_body: false });
                }
                continue;
            }
            let entry = self.entries.read(self.open, &mut entries, abbreviation)?;
            let around = self.enter(depth, tag, offset, entry);
            if abbreviation.has_children() {
                self.around.push(around);
            } else if around.is_body {
                self.end_body();
            }
            if self.around.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_of_use(&self, tag: DwTag) -> bool {
        let inside = self.around.last().is_some_and(|around| around.block.is_some());
        inside
            && (is_block(tag)
                || is_variable(tag)
                || tag == dw::DW_TAG_inlined_subroutine
                || tag == dw::DW_TAG_GNU_formal_parameter_pack)
    }

    fn close(&mut self, depth: isize) {
        while let Some(around) = self.around.pop_if(|around| around.depth >= depth) {
            if around.is_body {
                self.end_body();
            }
        }
    }

    fn enter(&mut self, depth: isize, tag: DwTag, offset: Offset, entry: Entry<'a>) -> Around {
        let skipped = Around { depth, block: None, is_body: false };
        if self.bodies.is_empty() {
            let block = self.function(offset, entry);
            return Around { depth, block: Some(block), is_body: true };
        }
        let Some(outer) = self.around.last().and_then(|around| around.block.clone()) else {
            return skipped;
        };
        if tag == dw::DW_TAG_inlined_subroutine {
            if self.bodies.len() >= NESTING_LIMIT {
                return skipped;
            }
            let block = self.inlined(&outer, entry);
            Around { depth, block: Some(block), is_body: true }
        } else if is_block(tag) {
            let block = self.block(&outer, &entry);
            Around { depth, block: Some(block), is_body: false }
        } else if is_variable(tag) {
            self.variable(&outer, tag, offset, entry);
            skipped
        } else {
            Around { depth, block: Some(outer), is_body: false }
        }
    }

    /// The function itself.
    fn function(&mut self, offset: Offset, mut entry: Entry<'a>) -> Block {
        let ranges = self.entries.code(self.open, &entry).unwrap_or_default();
        self.base = self.places().frame_base(entry.frame_base);
        let instance = entry.instance;
        self.entries.complete(&mut entry);
        let function = link_name(&entry);
        self.chains.push(vec![Scope { function, call: None, blocks: Vec::new() }]);
        // Without an abstract instance the concrete one tells the order of parameters.
        self.begin_body(0, Some(instance.unwrap_or(offset)), ranges)
    }

    fn inlined(&mut self, outer: &Block, mut entry: Entry<'a>) -> Block {
        let ranges = self.entries.code(self.open, &entry).unwrap_or_default();
        let call = Call {
            file: entry.call_file,
            line: entry.call_line,
            column: entry.call_column,
            ordinal: 0,
            of: 0,
        };
        let instance = entry.instance;
        self.entries.complete(&mut entry);
        let outer_chain = self.bodies.last().map_or(0, |body| body.chain);
        let mut chain = self.chains.get(outer_chain).cloned().unwrap_or_default();
        if let Some(last) = chain.last_mut() {
            last.blocks.clone_from(&outer.path);
        }
        chain.push(Scope { function: link_name(&entry), call: Some(call), blocks: Vec::new() });
        self.chains.push(chain);
        let number = self.chains.len() - 1;
        self.out.inlined.push(Inlined { scope: Vec::new(), ranges: ranges.clone() });
        self.begin_body(number, instance, ranges)
    }

    fn begin_body(
        &mut self,
        chain: usize,
        origin: Option<Offset>,
        ranges: Vec<Range<u64>>,
    ) -> Block {
        let origin = origin.map(|origin| self.abstracts.of(self.entries, origin));
        let (seen, shared) = (BTreeSet::new(), Rc::new(ranges.clone()));
        self.bodies.push(BodyState { chain, origin, ranges, seen, parameters: 0 });
        Block { path: Vec::new(), blocks: 0, ranges: shared }
    }

    /// Lists what the copy left out.
    fn end_body(&mut self) {
        let Some(body) = self.bodies.pop() else { return };
        let Some(origin) = &body.origin else { return };
        for (offset, path) in &origin.variables {
            if body.seen.contains(offset) || self.out.variables.len() >= VARIABLES_LIMIT {
                continue;
            }
            let entry = self.entries.entity(*offset);
            let mut local = self.local(&entry, body.chain, path.clone());
            local.in_scope.clone_from(&body.ranges);
            if body.chain == 0 {
                local.parameter = position(&origin.parameters, *offset);
            }
            self.push(local, body.chain);
        }
    }

    fn block(&mut self, outer: &Block, entry: &Entry<'a>) -> Block {
        if let Some(around) = self.around.last_mut().and_then(|around| around.block.as_mut()) {
            around.blocks += 1;
        }
        let origin = self.bodies.last().and_then(|body| body.origin.as_ref());
        let told = entry.instance.and_then(|at| origin?.block(at).cloned());
        let path = told.unwrap_or_else(|| {
            let mut path = outer.path.clone();
            path.push(outer.blocks + 1);
            path
        });
        let ranges = self.entries.code(self.open, entry).map(Rc::new);
        Block { path, blocks: 0, ranges: ranges.unwrap_or_else(|| Rc::clone(&outer.ranges)) }
    }

    fn variable(&mut self, outer: &Block, tag: DwTag, offset: Offset, mut entry: Entry<'a>) {
        let own_constant = entry.constant;
        // Where the body is no copy, its abstract instance is itself.
        let at = entry.instance.unwrap_or(offset);
        self.entries.complete(&mut entry);
        let Some(body) = self.bodies.last_mut() else { return };
        let told = body.origin.as_ref().and_then(|origin| origin.around(at).cloned());
        body.seen.insert(at);
        let chain = body.chain;
        let mut parameter = None;
        if tag == dw::DW_TAG_formal_parameter && chain == 0 {
            let origin = body.origin.as_ref();
            let known = origin.and_then(|origin| position(&origin.parameters, at));
            parameter = known.or(Some(body.parameters));
            body.parameters += 1;
        }
        if entry.declaration {
            // Declared here, defined elsewhere: no variable of this function.
            return;
        }
        let mut local = self.local(&entry, chain, told.unwrap_or_else(|| outer.path.clone()));
        local.parameter = parameter;
        local.in_scope.clone_from(&outer.ranges);
        self.locate(&mut local, &entry, own_constant);
        self.push(local, chain);
    }

    fn push(&mut self, local: Local, chain: usize) {
        self.out.variables.push(local);
        self.chain_of.push(chain);
    }

    /// What is known of a variable without its places. Only the innermost scope's blocks are
    /// there yet.
    fn local(&self, entry: &Entry<'a>, chain: usize, blocks: Vec<u32>) -> Local {
        let function = self.chains.get(chain).and_then(|chain| chain.last());
        let mut scope = function.cloned().unwrap_or_default();
        scope.blocks = blocks;
        Local {
            name: entry.name.clone().unwrap_or_default(),
            scope: vec![scope],
            ty: entry.ty,
            size: entry.ty.and_then(|ty| self.info.types.size(ty)),
            decl_file: entry.file,
            decl_line: entry.line,
            ..Local::default()
        }
    }

    fn locate(&self, local: &mut Local, entry: &Entry<'a>, constant: Option<u128>) {
        let everywhere = local.in_scope.clone();
        let places = self.places();
        let Some(location) = entry.location else {
            if let Some(constant) = constant.or(entry.constant) {
                local.places =
                    everywhere.into_iter().map(|r| (r, Place::Constant(constant))).collect();
                local.is_whole_scope = true;
            }
            return;
        };
        if let AttributeValue::Exprloc(expression) = location {
            for range in &everywhere {
                places.of(range, expression, &mut local.places);
            }
            local.is_whole_scope = true;
            return;
        }
        let list = self.entries.dwarf.attr_locations(&self.open.unit, location);
        let Ok(Some(mut list)) = list else { return };
        let (mut bounded, mut default) = (Vec::new(), Vec::new());
        while let Ok(Some(found)) = list.next()
            && bounded.len() < LIST_LIMIT
        {
            let range = found.range.begin..found.range.end;
            if range == (0..u64::MAX) {
                for range in &everywhere {
                    places.of(range, found.data, &mut default);
                }
            } else {
                places.of(&range, found.data, &mut bounded);
            }
        }
        local.places = disjoint(bounded, default);
    }

    fn places(&self) -> Places<'_, 'a> {
        Places {
            frame: self.frame,
            base: self.base,
            dwarf: self.entries.dwarf,
            unit: &self.open.unit,
        }
    }

    fn finish(mut self) -> Locals {
        while !self.bodies.is_empty() {
            self.end_body();
        }
        number_calls(&mut self.chains);
        for (local, chain) in self.out.variables.iter_mut().zip(&self.chain_of) {
            let own = local.scope.pop().map(|scope| scope.blocks).unwrap_or_default();
            local.scope.clone_from(&self.chains[*chain]);
            if let Some(last) = local.scope.last_mut() {
                last.blocks = own;
            }
            local.in_scope = merged(std::mem::take(&mut local.in_scope));
        }
        // The first chain is the function's own.
        for (inlined, chain) in self.out.inlined.iter_mut().zip(self.chains.iter().skip(1)) {
            inlined.scope.clone_from(chain);
        }
        self.out
    }
}

/// Entries in order, without overlaps: of two that hold somewhere each is right there (DWARF 5,
/// section 2.6.2), and the first is kept; defaults hold where no other does.
fn disjoint(
    mut entries: Vec<(Range<u64>, Place)>,
    mut defaults: Vec<(Range<u64>, Place)>,
) -> Vec<(Range<u64>, Place)> {
    let start = |(range, _): &(Range<u64>, Place)| (range.start, range.end);
    entries.sort_by_key(start);
    defaults.sort_by_key(start);
    let mut out: Vec<(Range<u64>, Place)> = Vec::with_capacity(entries.len());
    for (range, place) in entries {
        let after = out.last().map_or(0, |(last, _)| last.end);
        let range = range.start.max(after)..range.end;
        if !range.is_empty() {
            out.push((range, place));
        }
    }
    let bounded: Vec<Range<u64>> = out.iter().map(|(range, _)| range.clone()).collect();
    for (range, place) in defaults {
        let mut start = range.start;
        let first = bounded.partition_point(|other| other.end <= range.start);
        for other in bounded[first..].iter().take_while(|other| other.start < range.end) {
            if start < other.start {
                out.push((start..other.start, place.clone()));
            }
            start = start.max(other.end);
        }
        if start < range.end {
            out.push((start..range.end, place));
        }
    }
    out.sort_by_key(start);
    out
}

fn link_name(entry: &Entry<'_>) -> String {
    entry.linkage_name.clone().or_else(|| entry.name.clone()).unwrap_or_default()
}

fn position(parameters: &[Offset], offset: Offset) -> Option<u32> {
    let index = parameters.iter().position(|parameter| *parameter == offset)?;
    u32::try_from(index).ok()
}

/// A body without its blocks: a function, and where it was called.
type Link = (String, Option<(Option<crate::debug::FileId>, u32, u32)>);

/// Tells for each call which one it is of the calls of its function in the same body.
fn number_calls(chains: &mut [Vec<Scope>]) {
    let link = |scope: &Scope| -> Link {
        let call = scope.call.as_ref().map(|call| (call.file, call.line, call.column));
        (scope.function.clone(), call)
    };
    // By the bodies around and the function called: the calls.
    let mut calls: BTreeMap<(Vec<Link>, String), BTreeSet<_>> = BTreeMap::new();
    for chain in chains.iter() {
        if let [outer @ .., last] = &chain[..] {
            let key = (outer.iter().map(link).collect(), last.function.clone());
            calls.entry(key).or_default().insert(link(last).1);
        }
    }
    for chain in chains {
        let links: Vec<Link> = chain.iter().map(link).collect();
        for (index, scope) in chain.iter_mut().enumerate() {
            let Some(call) = &mut scope.call else { continue };
            let key = (links[..index].to_vec(), scope.function.clone());
            let all = calls.get(&key);
            let before = all.map_or(0, |all| all.range(..&links[index].1).count());
            call.ordinal = u32::try_from(before).unwrap_or(u32::MAX);
            call.of = all.map_or(0, |all| u32::try_from(all.len()).unwrap_or(u32::MAX));
        }
    }
}
