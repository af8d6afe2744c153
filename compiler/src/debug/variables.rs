//! Variables with a static place.
//!
//! Takes: raw units and the type table. Decides: which entries say what of one variable. Gives:
//! [`Variable`]s by place; one for each part of a variable that the compiler took apart (several DW_OP_piece).
//! What is a constant in the code has no place, and is not here.

use super::functions::home;
use super::lines::Files;
use super::merge::TypeIds;
use super::model::{Place, UnitId, Variable};
use super::raw::{RawUnits, RawVariable, text};
use super::sections::Extents;
use super::types::TypeTable;
use std::collections::{HashMap, HashSet};

/// All variables with a static place, sorted by it.
pub(super) fn read(
    raw: &RawUnits<'_>,
    files: &Files,
    ids: &TypeIds,
    table: &TypeTable,
    extents: &Extents,
) -> Vec<Variable> {
    let mut variables = Vec::new();
    let placed = all(raw).flat_map(|(unit, v)| v.places.iter().map(move |place| (unit, v, *place)));
    for (unit, variable, (place, part)) in placed {
        let entity = raw.variable(unit, variable.declared);
        let declared = entity.declared;
        let ty = declared.ty.and_then(|offset| ids.at(raw, offset));
        variables.push(Variable {
            place,
            part,
            name: declared.name.map(text).unwrap_or_default(),
            linkage_name: declared.linkage_name.map(text),
            unit: home(raw, unit, &entity),
            scope: raw.path(entity.unit, declared.scope),
            is_local: variable.is_local,
            ty,
            decl_file: files.get(entity.file_unit, declared.file),
            decl_line: declared.line,
            external: declared.external,
            is_const: ty.is_some_and(|ty| table.is_const(ty)),
        });
    }
    variables.retain(|variable| match variable.place {
        Place::Address(_) => true,
        Place::Tls(offset) => extents.has_tls(offset, variable.link_name()),
    });
    // An abstract instance and its concrete ones may all tell the place of a static local.
    variables.sort_by(|a, b| {
        (a.place, a.link_name(), !a.is_local, a.unit).cmp(&(
            b.place,
            b.link_name(),
            !b.is_local,
            b.unit,
        ))
    });
    variables
        .dedup_by(|next, kept| next.place == kept.place && next.link_name() == kept.link_name());
    variables
}

/// The variables that each unit declares or defines, by linkage name; statics, and what blocks declare, among them.
pub(super) fn named(raw: &RawUnits<'_>) -> HashMap<UnitId, HashSet<String>> {
    let mut named: HashMap<UnitId, HashSet<String>> = HashMap::new();
    for (unit, variable) in all(raw) {
        let entity = raw.variable(unit, variable.declared);
        let declared = entity.declared;
        if let Some(name) = declared.linkage_name.or(declared.name) {
            named.entry(home(raw, unit, &entity)).or_default().insert(text(name));
        }
    }
    named
}

fn all<'r, 'a>(raw: &'r RawUnits<'a>) -> impl Iterator<Item = (usize, &'r RawVariable<'a>)> {
    let units = raw.units.iter().enumerate();
    units.flat_map(|(index, unit)| unit.variables.iter().map(move |v| (index, v)))
}

/// The variable whose object holds an address. `variables` are sorted by place.
pub(super) fn at(variables: &[Variable], table: &TypeTable, address: u64) -> Option<usize> {
    let is_before = |variable: &Variable| match variable.place {
        Place::Address(start) => start <= address,
        Place::Tls(_) => false,
    };
    let after = variables.partition_point(is_before);
    let holds = |variable: &Variable| {
        let Place::Address(start) = variable.place else {
            return false;
        };
        let whole = || variable.ty.and_then(|ty| table.size(ty)).unwrap_or(0);
        let size = variable.part.map_or_else(whole, |part| part.bytes);
        address - start < size.max(1)
    };
    // An empty object may lie where the next begins, and a name may have several entries.
    let index = (0..after).rev().take(OVERLAP_LIMIT).find(|&index| holds(&variables[index]))?;
    Some(index)
}

/// How many variables that begin earlier are looked at for one that still reaches an address.
const OVERLAP_LIMIT: usize = 16;
