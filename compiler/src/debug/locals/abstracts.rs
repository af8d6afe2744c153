//! Abstract instances: a body as the source has it, which every inlined copy refers to (DWARF 5,
//! section 3.3.8.1). It lists also what a copy leaves out because no code came of it.

use std::collections::HashMap;
use std::rc::Rc;

use gimli::constants as dw;

use super::entry::{Entries, is_block, is_variable};
use crate::debug::raw::Offset;

/// The most entries that are read of one body, and of all bodies for one function. Damaged
/// references could make them many.
const ENTRIES_LIMIT: usize = 1 << 16;

/// A body.
#[derive(Debug, Default)]
pub(super) struct Abstract {
    /// Its variables and parameters with the blocks around each, in order.
    pub(super) variables: Vec<(Offset, Vec<u32>)>,
    /// Where its parameters are, in order.
    pub(super) parameters: Vec<Offset>,
    /// The path of each block, itself included.
    blocks: HashMap<Offset, Vec<u32>>,
    by_offset: HashMap<Offset, usize>,
}

impl Abstract {
    /// The path of a block.
    pub(super) fn block(&self, block: Offset) -> Option<&Vec<u32>> {
        self.blocks.get(&block)
    }

    /// The blocks around a variable.
    pub(super) fn around(&self, variable: Offset) -> Option<&Vec<u32>> {
        self.by_offset.get(&variable).map(|index| &self.variables[*index].1)
    }

    fn add(&mut self, offset: Offset, path: Vec<u32>) {
        self.by_offset.insert(offset, self.variables.len());
        self.variables.push((offset, path));
    }
}

/// The bodies read so far.
#[derive(Default)]
pub(super) struct Abstracts {
    known: HashMap<Offset, Rc<Abstract>>,
    entries: usize,
}

impl Abstracts {
    /// The body at an offset; empty where it cannot be read.
    pub(super) fn of(&mut self, entries: &Entries<'_, '_>, offset: Offset) -> Rc<Abstract> {
        if let Some(known) = self.known.get(&offset) {
            return Rc::clone(known);
        }
        let mut body = Abstract::default();
        // What was read before damage counts.
        if self.read(entries, offset, &mut body).is_err() {
            body.parameters.clear();
        }
        let body = Rc::new(body);
        self.known.insert(offset, Rc::clone(&body));
        body
    }

    fn read(
        &mut self,
        all: &Entries<'_, '_>,
        root: Offset,
        out: &mut Abstract,
    ) -> gimli::Result<()> {
        let open = all.unit(root)?;
        let mut entries = open.entries(Some(root))?;
        // Around the entry: depth, path, blocks counted so far. `None` for what is skipped.
        let mut around: Vec<(isize, Option<Vec<u32>>, u32)> = Vec::new();
        while !entries.is_empty() && self.entries < ENTRIES_LIMIT {
            self.entries += 1;
            let depth = entries.next_depth();
            let offset = open.base.saturating_add(entries.next_offset().0 as u64);
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            while around.last().is_some_and(|(outer, ..)| *outer >= depth) {
                around.pop();
            }
            if around.is_empty() && offset != root {
                return Ok(());
            }
            entries.skip_attributes(abbreviation.attributes())?;
            let tag = abbreviation.tag();
            let path = match around.last_mut() {
                None => Some(Vec::new()),
                Some((_, None, _)) => None,
                Some((_, Some(path), blocks)) if is_block(tag) => {
                    *blocks += 1;
                    let mut path = path.clone();
                    path.push(*blocks);
                    out.blocks.insert(offset, path.clone());
                    Some(path)
                }
                Some((_, Some(path), _)) if is_variable(tag) => {
                    if tag == dw::DW_TAG_formal_parameter && path.is_empty() {
                        out.parameters.push(offset);
                    }
                    out.add(offset, path.clone());
                    None
                }
                Some((_, Some(path), _)) if tag == dw::DW_TAG_GNU_formal_parameter_pack => {
                    Some(path.clone())
                }
                Some(_) => None,
            };
            if abbreviation.has_children() {
                around.push((depth, path, 0));
            } else if around.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }
}
