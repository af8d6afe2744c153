//! The attributes of the entries that make up a function's body, and what their origins add.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use gimli::{Abbreviation, AttributeValue, DebugInfoOffset, DwTag, EntriesRaw, UnitOffset};
use gimli::{Dwarf, constants as dw};

use super::index::Index;
use crate::debug::attributes::NAME_LIMIT;
use crate::debug::raw::{Input, Offset, text};
use crate::debug::scopes::DEPTH_LIMIT;
use crate::debug::{FileId, TypeId};

/// The most address ranges that a block may have. Scheduling scatters inlined bodies of large
/// functions over some hundreds; more is damage.
const RANGES_LIMIT: usize = 1 << 16;

/// What an entry says, as far as variables are concerned.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry<'a> {
    pub(super) name: Option<String>,
    pub(super) linkage_name: Option<String>,
    pub(super) ty: Option<TypeId>,
    /// The entry that says the rest.
    pub(super) origin: Option<Offset>,
    /// The same where it is an abstract instance, not a declaration.
    pub(super) instance: Option<Offset>,
    pub(super) file: Option<FileId>,
    pub(super) line: u32,
    pub(super) call_file: Option<FileId>,
    pub(super) call_line: u32,
    pub(super) call_column: u32,
    pub(super) declaration: bool,
    pub(super) location: Option<AttributeValue<Input<'a>>>,
    pub(super) constant: Option<u128>,
    pub(super) frame_base: Option<gimli::Expression<Input<'a>>>,
    low_pc: Option<u64>,
    high_pc: Option<AttributeValue<Input<'a>>>,
    ranges: Option<AttributeValue<Input<'a>>>,
}

/// A unit that is open for reading.
pub(super) struct OpenUnit<'a> {
    /// As gimli sees it.
    pub(super) unit: gimli::Unit<Input<'a>>,
    /// Where it begins.
    pub(super) base: Offset,
    number: usize,
}

/// Reads entries anywhere in the image.
pub(super) struct Entries<'r, 'a> {
    pub(super) dwarf: &'r Dwarf<Input<'a>>,
    pub(super) index: &'r Index,
    units: RefCell<HashMap<usize, Rc<OpenUnit<'a>>>>,
    entities: RefCell<HashMap<Offset, Rc<Entry<'a>>>>,
}

impl<'r, 'a> Entries<'r, 'a> {
    pub(super) fn new(dwarf: &'r Dwarf<Input<'a>>, index: &'r Index) -> Self {
        Self { dwarf, index, units: RefCell::default(), entities: RefCell::default() }
    }

    /// The unit that holds an entry.
    pub(super) fn unit(&self, offset: Offset) -> gimli::Result<Rc<OpenUnit<'a>>> {
        let unknown = gimli::Error::OffsetOutOfBounds(offset);
        let (number, base) = self.index.unit_of(offset).ok_or(unknown)?;
        if let Some(open) = self.units.borrow().get(&number) {
            return Ok(Rc::clone(open));
        }
        let base_offset = usize::try_from(base).map_err(|_| unknown)?;
        let header = self.dwarf.unit_header(DebugInfoOffset(base_offset))?;
        let open = Rc::new(OpenUnit { unit: self.dwarf.unit(header)?, base, number });
        self.units.borrow_mut().insert(number, Rc::clone(&open));
        Ok(open)
    }

    /// An entry together with the entries that it refers to for the rest (DWARF 5, sections 2.13.2
    /// and 3.3.8). One that cannot be read says nothing.
    pub(super) fn entity(&self, offset: Offset) -> Rc<Entry<'a>> {
        if let Some(known) = self.entities.borrow().get(&offset) {
            return Rc::clone(known);
        }
        let mut entry = self.one(offset).unwrap_or_default();
        self.complete(&mut entry);
        let entry = Rc::new(entry);
        self.entities.borrow_mut().insert(offset, Rc::clone(&entry));
        entry
    }

    /// Adds what the origins of an entry say of name, type and declaration. `origin` stays the
    /// entry's own.
    pub(super) fn complete(&self, entry: &mut Entry<'a>) {
        let mut origin = entry.origin;
        for _ in 0..DEPTH_LIMIT {
            let Some(further) = origin.and_then(|at| self.one(at).ok()) else {
                return;
            };
            entry.name = entry.name.take().or(further.name);
            entry.linkage_name = entry.linkage_name.take().or(further.linkage_name);
            entry.ty = entry.ty.or(further.ty);
            entry.file = entry.file.or(further.file);
            entry.line = if entry.line == 0 { further.line } else { entry.line };
            entry.constant = entry.constant.or(further.constant);
            entry.declaration |= further.declaration;
            origin = further.origin;
        }
    }

    fn one(&self, offset: Offset) -> gimli::Result<Entry<'a>> {
        let open = self.unit(offset)?;
        let mut entries = open.entries(Some(offset))?;
        match entries.read_abbreviation()? {
            Some(abbreviation) => self.read(&open, &mut entries, abbreviation),
            None => Ok(Entry::default()),
        }
    }

    /// Reads the attributes of the entry whose abbreviation was read last.
    pub(super) fn read(
        &self,
        open: &OpenUnit<'a>,
        entries: &mut EntriesRaw<'_, Input<'a>>,
        abbreviation: &Abbreviation,
    ) -> gimli::Result<Entry<'a>> {
        let mut entry = Entry::default();
        for &specification in abbreviation.attributes() {
            let attribute = entries.read_attribute_inline(specification)?;
            self.add(open, &mut entry, attribute.name(), attribute.value());
        }
        Ok(entry)
    }

    fn add(
        &self,
        open: &OpenUnit<'a>,
        to: &mut Entry<'a>,
        name: gimli::DwAt,
        value: AttributeValue<Input<'a>>,
    ) {
        let number = || value.udata_value().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let file = || match value {
            AttributeValue::FileIndex(number) => self.index.file(open.number, number),
            _ => self.index.file(open.number, value.udata_value()?),
        };
        match name {
            dw::DW_AT_name => to.name = self.text(open, value),
            dw::DW_AT_linkage_name | dw::DW_AT_MIPS_linkage_name => {
                to.linkage_name = self.text(open, value);
            }
            dw::DW_AT_type => {
                to.ty = self.reference(open, value).and_then(|at| self.index.ty(at));
            }
            dw::DW_AT_abstract_origin => {
                to.instance = self.reference(open, value);
                to.origin = to.instance;
            }
            dw::DW_AT_specification => to.origin = self.reference(open, value),
            dw::DW_AT_decl_file => to.file = file(),
            dw::DW_AT_decl_line => to.line = number(),
            dw::DW_AT_call_file => to.call_file = file(),
            dw::DW_AT_call_line => to.call_line = number(),
            dw::DW_AT_call_column => to.call_column = number(),
            dw::DW_AT_declaration => to.declaration = value == AttributeValue::Flag(true),
            dw::DW_AT_location => to.location = Some(value),
            dw::DW_AT_const_value => to.constant = constant(&value),
            dw::DW_AT_frame_base => to.frame_base = value.exprloc_value(),
            dw::DW_AT_low_pc => to.low_pc = self.address(open, value),
            dw::DW_AT_high_pc => to.high_pc = Some(value),
            dw::DW_AT_ranges => to.ranges = Some(value),
            _ => {}
        }
    }

    fn text(&self, open: &OpenUnit<'a>, value: AttributeValue<Input<'a>>) -> Option<String> {
        let name = self.dwarf.attr_string(&open.unit, value).ok()?;
        (name.len() <= NAME_LIMIT).then(|| text(name.slice()))
    }

    fn address(&self, open: &OpenUnit<'a>, value: AttributeValue<Input<'a>>) -> Option<u64> {
        self.dwarf.attr_address(&open.unit, value).ok().flatten()
    }

    fn reference(&self, open: &OpenUnit<'a>, value: AttributeValue<Input<'a>>) -> Option<Offset> {
        match value {
            AttributeValue::UnitRef(offset) => open.base.checked_add(offset.0 as u64),
            AttributeValue::DebugInfoRef(offset) => Some(offset.0 as u64),
            AttributeValue::DebugTypesRef(signature) => {
                self.index.signatures().get(&signature.0).copied()
            }
            _ => None,
        }
    }

    /// The code that an entry says it has, ascending and merged; `None` where it says nothing.
    pub(super) fn code(&self, open: &OpenUnit<'a>, entry: &Entry<'a>) -> Option<Vec<Range<u64>>> {
        let mut ranges = Vec::new();
        if let Some(list) = entry.ranges {
            // A list that ends in damage is used up to there.
            if let Ok(Some(mut list)) = self.dwarf.attr_ranges(&open.unit, list) {
                while let Ok(Some(range)) = list.next()
                    && ranges.len() < RANGES_LIMIT
                {
                    ranges.push(range.begin..range.end);
                }
            }
        } else {
            let (low, high) = (entry.low_pc?, entry.high_pc?);
            let end = match self.address(open, high) {
                Some(address) => address,
                None => low.saturating_add(high.udata_value()?),
            };
            ranges.push(low..end);
        }
        Some(merged(ranges))
    }
}

impl<'a> OpenUnit<'a> {
    /// The entries from one on.
    pub(super) fn entries(&self, from: Option<Offset>) -> gimli::Result<EntriesRaw<'_, Input<'a>>> {
        let from = from.and_then(|at| usize::try_from(at.checked_sub(self.base)?).ok());
        self.unit.entries_raw(from.map(UnitOffset))
    }
}

/// Sorts ranges and joins those that touch.
pub(super) fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| (range.start, range.end));
    ranges.dedup_by(|next, kept| {
        let touches = next.start <= kept.end;
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
    ranges
}

/// The value of a constant, sign-extended where its form is signed.
fn constant(value: &AttributeValue<Input<'_>>) -> Option<u128> {
    match value {
        AttributeValue::Sdata(value) => Some(i128::from(*value).cast_unsigned()),
        AttributeValue::Block(block) if block.len() <= 16 => {
            let mut bytes = [0; 16];
            bytes.get_mut(..block.len())?.copy_from_slice(block.slice());
            Some(u128::from_le_bytes(bytes))
        }
        _ => value.udata_value().map(u128::from),
    }
}

/// Whether an entry is a block of statements.
pub(super) fn is_block(tag: DwTag) -> bool {
    matches!(tag, dw::DW_TAG_lexical_block | dw::DW_TAG_try_block | dw::DW_TAG_catch_block)
}

/// Whether an entry is a variable or a parameter.
pub(super) fn is_variable(tag: DwTag) -> bool {
    matches!(tag, dw::DW_TAG_variable | dw::DW_TAG_formal_parameter | dw::DW_TAG_constant)
}
