//! What the first reading of the debug information leaves behind, so that one function's entries
//! can be read again: where functions begin, and which types and files the units mean.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::debug::lines::Files;
use crate::debug::merge::TypeIds;
use crate::debug::raw::{Offset, RawUnits};
use crate::debug::{FileId, TypeId};

/// Offsets into the debug information of one image.
#[derive(Debug, Clone, Default)]
pub(in crate::debug) struct Index {
    /// The entry of each of [`DebugInfo::functions`](crate::debug::DebugInfo::functions).
    functions: Vec<Offset>,
    /// By rising extent.
    units: Vec<UnitIndex>,
    /// Types by signature (DWARF 5, section 7.32).
    signatures: Arc<HashMap<u64, Offset>>,
}

/// One unit.
#[derive(Debug, Clone, Default)]
struct UnitIndex {
    extent: Range<Offset>,
    files: Vec<FileId>,
    /// Types by rising offset, counted from the unit.
    types: Vec<(u32, TypeId)>,
}

impl Index {
    /// Keeps what `raw` says of offsets; `functions` are those of the functions that were kept.
    pub(in crate::debug) fn new(
        raw: &RawUnits<'_>,
        files: &Files,
        ids: &TypeIds,
        signatures: HashMap<u64, Offset>,
        functions: Vec<Offset>,
    ) -> Self {
        let unit = |(index, unit): (usize, &crate::debug::raw::RawUnit<'_>)| UnitIndex {
            extent: unit.extent.clone(),
            files: files.of_unit(index).to_vec(),
            types: unit
                .types
                .iter()
                .filter_map(|ty| {
                    let offset = ty.declared.offset;
                    // A unit has less than 2^32 bytes.
                    let from_unit = u32::try_from(offset.checked_sub(unit.extent.start)?).ok()?;
                    Some((from_unit, ids.at(raw, offset)?))
                })
                .collect(),
        };
        let units = raw.units.iter().enumerate().map(unit).collect();
        Self { functions, units, signatures: Arc::new(signatures) }
    }

    /// Where the entry of a function is, by its index.
    pub(super) fn function(&self, function: usize) -> Option<Offset> {
        self.functions.get(function).copied()
    }

    /// The unit that holds an entry, and where the unit begins.
    pub(super) fn unit_of(&self, offset: Offset) -> Option<(usize, Offset)> {
        let after = self.units.partition_point(|unit| unit.extent.start <= offset);
        let index = after.checked_sub(1)?;
        let extent = &self.units[index].extent;
        extent.contains(&offset).then_some((index, extent.start))
    }

    /// The type whose entry is at an offset.
    pub(super) fn ty(&self, offset: Offset) -> Option<TypeId> {
        let (unit, base) = self.unit_of(offset)?;
        let types = &self.units[unit].types;
        let from_unit = u32::try_from(offset - base).ok()?;
        let index = types.binary_search_by_key(&from_unit, |(at, _)| *at).ok()?;
        Some(types[index].1)
    }

    /// The file that a unit means by a number.
    pub(super) fn file(&self, unit: usize, number: u64) -> Option<FileId> {
        self.units.get(unit)?.files.get(usize::try_from(number).ok()?).copied()
    }

    /// Types by signature.
    pub(super) fn signatures(&self) -> &HashMap<u64, Offset> {
        &self.signatures
    }
}
