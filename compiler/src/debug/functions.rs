//! Functions, prototypes, and who names which types.
//!
//! Takes: raw units and the type table. Decides: which entries say what of one function, and which
//! of several entries for one function is kept (the linker keeps one copy of a COMDAT function,
//! and may leave the entries of all units pointing at it). Gives: [`Function`]s by address.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::lines::Files;
use super::merge::TypeIds;
use super::model::{Function, Language, Parameters, TypeUser, UnitId};
use super::raw::{Offset, RawFunction, RawUnits, text};
use super::registers;
use super::scopes::{DEPTH_LIMIT, Entity};
use super::types::{TypeId, TypeTable};

/// What functions are made from.
pub(super) struct Functions<'b, 'a> {
    pub(super) raw: &'b RawUnits<'a>,
    pub(super) files: &'b Files,
    pub(super) ids: &'b TypeIds,
    pub(super) table: &'b TypeTable,
}

impl Functions<'_, '_> {
    /// All functions that have code, sorted by entry, and where the entry of each is.
    pub(super) fn concrete(&self) -> (Vec<Function>, Vec<Offset>) {
        let mut functions: Vec<(Function, Offset)> = self
            .all()
            .filter_map(|(unit, function)| {
                let low_pc = function.low_pc?;
                Some((self.build(unit, function, low_pc), function.declared.offset))
            })
            .collect();
        functions.sort_by(|(a, _), (b, _)| {
            (a.low_pc, a.link_name(), a.unit).cmp(&(b.low_pc, b.link_name(), b.unit))
        });
        functions.dedup_by(|(next, _), (kept, _)| {
            next.low_pc == kept.low_pc && next.link_name() == kept.link_name()
        });
        functions.into_iter().unzip()
    }

    fn all(&self) -> impl Iterator<Item = (usize, &RawFunction<'_>)> {
        let units = self.raw.units.iter().enumerate();
        units.flat_map(|(index, unit)| unit.functions.iter().map(move |f| (index, f)))
    }

    fn build(&self, unit: usize, function: &RawFunction<'_>, low_pc: u64) -> Function {
        let entity = self.raw.function(unit, function.declared);
        let declared = entity.declared;
        Function {
            low_pc,
            ranges: function.ranges.clone(),
            name: declared.name.map(text).unwrap_or_default(),
            linkage_name: declared.linkage_name.map(text),
            unit: home(self.raw, unit, &entity),
            decl_file: self.files.get(entity.file_unit, declared.file),
            decl_line: declared.line,
            external: declared.external,
            noreturn: self.chain(unit, function).any(|(_, f)| f.noreturn),
            parameters: self.parameters(unit, function, &entity),
            scope: self.raw.path(entity.unit, declared.scope),
        }
    }

    /// A function's entry and those that it refers to.
    fn chain<'s>(
        &'s self,
        unit: usize,
        function: &'s RawFunction<'s>,
    ) -> impl Iterator<Item = (usize, &'s RawFunction<'s>)> {
        let next = |(_, function): &(usize, &'s RawFunction<'s>)| {
            self.raw.function_at(function.declared.origin?)
        };
        std::iter::successors(Some((unit, function)), next).take(DEPTH_LIMIT)
    }

    fn parameters(
        &self,
        unit: usize,
        function: &RawFunction<'_>,
        entity: &Entity<'_>,
    ) -> Option<Parameters> {
        let language = self.raw.units[entity.unit].unit.language;
        // The calling convention of Rust is unstable, assembler has none, others are unknown.
        if !matches!(language, Language::C | Language::Cpp) {
            return None;
        }
        // The types are with the entry that declares the parameters, the last in the chain that
        // has any which refer to none.
        let tells = |f: &RawFunction<'_>| f.parameters.iter().all(|p| p.ty.is_some());
        let refers = |f: &RawFunction<'_>| f.parameters.iter().any(|p| p.has_origin);
        let chain: Vec<_> = self.chain(unit, function).map(|(_, f)| f).collect();
        let teller = chain
            .iter()
            .find(|f| !f.parameters.is_empty() && tells(f))
            .or_else(|| chain.last().filter(|f| !refers(f)))?;
        let is_prototype = !teller.parameters.is_empty() || teller.prototyped || teller.variadic;
        if language == Language::C && function.declared.declaration && !is_prototype {
            return None;
        }
        let types: Vec<Option<TypeId>> =
            teller.parameters.iter().map(|p| self.ids.at(self.raw, p.ty?)).collect();
        let result = match entity.declared.ty {
            Some(offset) => Some(self.ids.at(self.raw, offset)?),
            None => None,
        };
        registers::parameters(self.table, &types, result, teller.variadic)
    }

    /// Prototypes of external functions that are only declared.
    pub(super) fn declarations(&self) -> HashMap<String, Parameters> {
        let mut prototypes: HashMap<String, Parameters> = HashMap::new();
        for (unit, function) in self.all() {
            let declared = &function.declared;
            if !declared.declaration || !declared.external {
                continue;
            }
            let entity = self.raw.function(unit, *declared);
            let Some(parameters) = self.parameters(unit, function, &entity) else {
                continue;
            };
            let name = entity.declared.linkage_name.or(entity.declared.name);
            let known = prototypes.entry(name.map(text).unwrap_or_default()).or_default();
            *known = most(*known, parameters);
        }
        prototypes
    }

    /// External functions that are declared not to return.
    pub(super) fn noreturn(&self) -> BTreeSet<String> {
        let declared = self.all().filter(|(_, f)| f.noreturn && f.declared.external);
        let names = declared.filter_map(|(unit, function)| {
            let entity = self.raw.function(unit, function.declared);
            entity.declared.linkage_name.or(entity.declared.name).map(text)
        });
        names.collect()
    }

    /// Which types each function names.
    pub(super) fn type_users(&self) -> Vec<TypeUser> {
        let mut users: Vec<TypeUser> = Vec::new();
        for (unit, function) in self.all() {
            if function.declared.declaration || function.mentions.is_empty() {
                continue;
            }
            let entity = self.raw.function(unit, function.declared);
            let name = entity.declared.linkage_name.or(entity.declared.name);
            let types = function.mentions.iter().filter_map(|at| self.ids.at(self.raw, *at));
            users.push(TypeUser {
                function: name.map(text).unwrap_or_default(),
                unit: home(self.raw, unit, &entity),
                types: types.collect(),
            });
        }
        users.sort_by(|a, b| (&a.function, a.unit).cmp(&(&b.function, b.unit)));
        users.dedup_by(|next, kept| {
            let same = next.function == kept.function && next.unit == kept.unit;
            if same {
                kept.types.append(&mut next.types);
            }
            same
        });
        for user in &mut users {
            user.types.sort_unstable();
            user.types.dedup();
        }
        users
    }
}

/// The unit that the source of an entity is in: that of its abstract instance, for link-time
/// optimization puts the code into artificial units; but its own if that is a partial unit.
pub(super) fn home(raw: &RawUnits<'_>, unit: usize, entity: &Entity<'_>) -> UnitId {
    let home = if raw.units[entity.unit].auxiliary { unit } else { entity.unit };
    // The list of units has less than 2^32.
    UnitId(u32::try_from(home).unwrap_or(u32::MAX))
}

fn most(a: Parameters, b: Parameters) -> Parameters {
    Parameters {
        integer: a.integer.max(b.integer),
        sse: a.sse.max(b.sse),
        stack: a.stack.max(b.stack),
        vector_bytes: a.vector_bytes.max(b.vector_bytes),
        variadic: a.variadic || b.variadic,
        result: super::model::Returned {
            integer: a.result.integer.max(b.result.integer),
            sse: a.result.sse.max(b.result.sse),
            x87: a.result.x87.max(b.result.x87),
            vector_bytes: a.result.vector_bytes.max(b.result.vector_bytes),
        },
    }
}

/// Finds functions by any address in their code.
#[derive(Debug, Clone, Default)]
pub(super) struct CodeIndex {
    /// Ranges and the function each belongs to, sorted.
    parts: Vec<(Range<u64>, usize)>,
}

/// How many ranges that begin earlier are looked at for one that still reaches an address. Ranges
/// overlap only where the linker folded functions.
const OVERLAP_LIMIT: usize = 16;

impl CodeIndex {
    /// Indexes functions.
    pub(super) fn of(functions: &[Function]) -> Self {
        let mut parts: Vec<_> = functions
            .iter()
            .enumerate()
            .flat_map(|(index, f)| f.ranges.iter().map(move |range| (range.clone(), index)))
            .collect();
        parts.sort_by_key(|(range, index)| (range.start, range.end, *index));
        Self { parts }
    }

    /// The functions whose code holds an address.
    pub(super) fn at(&self, address: u64) -> Option<usize> {
        let after = self.parts.partition_point(|(range, _)| range.start <= address);
        let before = self.parts[..after].iter().rev().take(OVERLAP_LIMIT);
        let holding = before.filter(|(range, _)| range.contains(&address));
        // Of folded functions the first by name, which does not depend on the order of units.
        holding.map(|(_, index)| *index).min()
    }
}
