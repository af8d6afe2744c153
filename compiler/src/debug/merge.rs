//! The type table of an image, from the types of all its units.
//!
//! Takes: raw units and the signatures of their types. Decides: which structs without a name have
//! that of a typedef, which declarations have one definition. Gives: [`TypeTable`], and the id of
//! the type at any offset.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use gimli::constants as dw;
use rayon::prelude::*;

use super::error::DebugError;
use super::layout::{Layouts, Side};
use super::lines::Files;
use super::model::UnitId;
use super::raw::{ChildKind, Offset, Placement, RawChild, RawType, RawUnits, text};
use super::signature;
use super::types::{
    AggregateKind, CHAIN_LIMIT, Encoding, Enumerator, Member, MemberKind, Qualifier, Type, TypeId,
    TypeKind, TypeTable,
};

/// How many partial units are followed for one unit, and how many units one partial unit is
/// said to belong to.
const IMPORTS_LIMIT: usize = 256;

/// The types of all units, by where they were.
pub(super) struct TypeIds {
    by_unit: Vec<Vec<TypeId>>,
}

impl TypeIds {
    /// The type at an offset.
    pub(super) fn at(&self, raw: &RawUnits<'_>, offset: Offset) -> Option<TypeId> {
        let (unit, index) = raw.type_at(offset)?;
        self.by_unit.get(unit)?.get(index).copied()
    }
}

/// Where a type of the table was first seen, and which units have it.
struct Origin {
    unit: usize,
    index: usize,
    units: Vec<UnitId>,
}

/// Merges the types of all units.
pub(super) fn merge(raw: &RawUnits<'_>, files: &Files) -> Result<(TypeTable, TypeIds), DebugError> {
    let signatures: Vec<Vec<signature::Signature>> =
        (0..raw.units.len()).into_par_iter().map(|unit| signature::of_unit(raw, unit)).collect();
    let (origins, ids) = number(raw, &signatures)?;
    let builder = Builder { raw, files, ids: &ids };
    let types = origins.into_par_iter().map(|origin| builder.build(origin)).collect();
    let mut table = TypeTable { types };
    name_anonymous(&mut table);
    link_declarations(&mut table);
    Ok((table, ids))
}

fn number(
    raw: &RawUnits<'_>,
    signatures: &[Vec<signature::Signature>],
) -> Result<(Vec<Origin>, TypeIds), DebugError> {
    let mut known = HashMap::new();
    let users = users(raw);
    let mut origins: Vec<Origin> = Vec::new();
    let mut by_unit = Vec::with_capacity(signatures.len());
    for (unit, signatures) in signatures.iter().enumerate() {
        let mut ids = Vec::with_capacity(signatures.len());
        for (index, signature) in signatures.iter().enumerate() {
            let id = match known.entry(*signature) {
                Entry::Occupied(id) => *id.get(),
                Entry::Vacant(vacant) => {
                    let ty = &raw.units[unit].types[index];
                    let (unit, index) =
                        signature::definition_elsewhere(raw, ty).unwrap_or((unit, index));
                    let id = u32::try_from(origins.len()).map(TypeId);
                    let id = id.map_err(|_| DebugError::TooMany { what: "types" })?;
                    origins.push(Origin { unit, index, units: Vec::new() });
                    *vacant.insert(id)
                }
            };
            let units = &mut origins[id.0 as usize].units;
            if has_units(raw.units[unit].types[index].tag) && !units.ends_with(&users[unit]) {
                units.extend(&users[unit]);
            }
            ids.push(id);
        }
        by_unit.push(ids);
    }
    Ok((origins, TypeIds { by_unit }))
}

/// For each unit those that have what it holds: itself, or if it is a partial unit the units that
/// import it. What a type unit holds is had by the units with stubs for it.
fn users(raw: &RawUnits<'_>) -> Vec<Vec<UnitId>> {
    let mut users = vec![Vec::new(); raw.units.len()];
    for (unit, user) in raw.units.iter().zip(0..).filter(|(unit, _)| !unit.auxiliary) {
        let mut seen = HashSet::new();
        let mut open = vec![user as usize];
        open.extend(unit.imports.iter().filter_map(|at| raw.unit_of(*at)));
        while let Some(index) = open.pop() {
            if seen.len() < IMPORTS_LIMIT && seen.insert(index) {
                if users[index].len() < IMPORTS_LIMIT {
                    users[index].push(UnitId(user));
                }
                let further = &raw.units[index].imports;
                open.extend(further.iter().filter_map(|at| raw.unit_of(*at)));
            }
        }
    }
    users
}

fn has_units(tag: gimli::DwTag) -> bool {
    aggregate_kind(tag).is_some() || tag == dw::DW_TAG_enumeration_type
}

fn aggregate_kind(tag: gimli::DwTag) -> Option<AggregateKind> {
    match tag {
        dw::DW_TAG_structure_type => Some(AggregateKind::Struct),
        dw::DW_TAG_union_type => Some(AggregateKind::Union),
        dw::DW_TAG_class_type | dw::DW_TAG_interface_type => Some(AggregateKind::Class),
        _ => None,
    }
}

struct Builder<'b, 'a> {
    raw: &'b RawUnits<'a>,
    files: &'b Files,
    ids: &'b TypeIds,
}

impl Builder<'_, '_> {
    fn id(&self, offset: Option<Offset>) -> Option<TypeId> {
        self.ids.at(self.raw, offset?)
    }

    fn build(&self, origin: Origin) -> Type {
        let raw = &self.raw.units[origin.unit].types[origin.index];
        let entity = self.raw.ty(origin.unit, raw.declared);
        let mut units = origin.units;
        units.sort_unstable();
        units.dedup();
        Type {
            name: self.raw.type_name(origin.unit, raw.declared),
            named_by_typedef: false,
            byte_size: raw.size,
            kind: self.kind(raw),
            decl_file: self.files.get(entity.file_unit, entity.declared.file),
            decl_line: entity.declared.line,
            units,
        }
    }

    fn kind(&self, raw: &RawType<'_>) -> TypeKind {
        let to = self.id(raw.declared.ty);
        if let Some(kind) = aggregate_kind(raw.tag) {
            return TypeKind::Aggregate {
                kind,
                members: raw.children.iter().filter_map(|child| self.member(child)).collect(),
                complete: !raw.declared.declaration,
                definition: None,
                by_reference: raw.by_reference,
            };
        }
        let qualified = |qualifier| TypeKind::Qualified { qualifier, to };
        match raw.tag {
            dw::DW_TAG_base_type => TypeKind::Base { encoding: encoding(raw.encoding) },
            dw::DW_TAG_pointer_type => TypeKind::Pointer { to },
            dw::DW_TAG_reference_type | dw::DW_TAG_rvalue_reference_type => {
                TypeKind::Reference { to }
            }
            dw::DW_TAG_ptr_to_member_type => TypeKind::MemberPointer { to },
            dw::DW_TAG_array_type => {
                TypeKind::Array { element: to, dimensions: dimensions(raw), vector: raw.vector }
            }
            dw::DW_TAG_enumeration_type => self.enumeration(raw),
            dw::DW_TAG_subroutine_type => self.function(raw),
            dw::DW_TAG_typedef | dw::DW_TAG_template_alias => TypeKind::Typedef { to },
            dw::DW_TAG_const_type => qualified(Qualifier::Const),
            dw::DW_TAG_volatile_type => qualified(Qualifier::Volatile),
            dw::DW_TAG_restrict_type => qualified(Qualifier::Restrict),
            dw::DW_TAG_atomic_type => qualified(Qualifier::Atomic),
            dw::DW_TAG_packed_type | dw::DW_TAG_shared_type | dw::DW_TAG_immutable_type => {
                qualified(Qualifier::Other)
            }
            _ => TypeKind::Unspecified,
        }
    }

    fn member(&self, child: &RawChild<'_>) -> Option<Member> {
        let (placement, kind) = match child.kind {
            ChildKind::Field(placement) => (placement, MemberKind::Field),
            ChildKind::Variant(placement, value) => (placement, MemberKind::Variant(value)),
            ChildKind::Base(Some(bytes)) => {
                let bits = bytes.saturating_mul(8);
                (Placement { bits, ..Placement::default() }, MemberKind::Base)
            }
            ChildKind::Base(None) => (Placement::default(), MemberKind::VirtualBase),
            _ => return None,
        };
        Some(Member {
            name: child.name.map(text),
            bit_offset: self.bit_offset(placement, child.ty),
            bit_size: placement.bit_size,
            ty: self.id(child.ty),
            kind,
        })
    }

    /// A bit-field's place in the old way counts from the most significant bit of a storage unit
    /// (DWARF 4, section 5.5.6), which is the last one on this machine.
    fn bit_offset(&self, placement: Placement, ty: Option<Offset>) -> u64 {
        let (Some((from_top, storage)), Some(width)) = (placement.from_top, placement.bit_size)
        else {
            return placement.bits;
        };
        let storage = storage.or_else(|| self.raw_size(ty)).unwrap_or(4).saturating_mul(8);
        // The offset is negative, as a large number, where a field crosses its storage unit.
        let from_bottom = storage.wrapping_sub(from_top).wrapping_sub(width);
        placement.bits.wrapping_add(from_bottom)
    }

    /// The size of a scalar type, before the table is there.
    fn raw_size(&self, ty: Option<Offset>) -> Option<u64> {
        let mut offset = ty?;
        for _ in 0..CHAIN_LIMIT {
            let (unit, index) = self.raw.type_at(offset)?;
            let ty = &self.raw.units[unit].types[index];
            if ty.size.is_some() {
                return ty.size;
            }
            offset = ty.declared.ty?;
        }
        None
    }

    fn enumeration(&self, raw: &RawType<'_>) -> TypeKind {
        let enumerators: Vec<Enumerator> = raw
            .children
            .iter()
            .filter_map(|child| match child.kind {
                ChildKind::Enumerator(value) => {
                    Some(Enumerator { name: child.name.map(text).unwrap_or_default(), value })
                }
                _ => None,
            })
            .collect();
        TypeKind::Enum {
            underlying: self.id(raw.declared.ty),
            signed: self.is_signed(raw, &enumerators),
            enumerators,
        }
    }

    fn is_signed(&self, raw: &RawType<'_>, enumerators: &[Enumerator]) -> bool {
        let underlying = raw.declared.ty.and_then(|offset| self.raw.type_at(offset));
        let own = encoding(raw.encoding);
        let encoding = underlying
            .map(|(unit, index)| &self.raw.units[unit].types[index])
            .filter(|ty| ty.tag == dw::DW_TAG_base_type)
            .map_or(own, |ty| encoding(ty.encoding));
        match encoding {
            Encoding::Signed | Encoding::SignedChar => true,
            Encoding::Other(0) => enumerators.iter().any(|constant| constant.value < 0),
            _ => false,
        }
    }

    fn function(&self, raw: &RawType<'_>) -> TypeKind {
        let of = |kind| raw.children.iter().filter(move |child| child.kind == kind);
        TypeKind::Function {
            result: self.id(raw.declared.ty),
            parameters: of(ChildKind::Parameter).map(|child| self.id(child.ty)).collect(),
            variadic: of(ChildKind::Ellipsis).next().is_some(),
        }
    }
}

fn dimensions(raw: &RawType<'_>) -> Vec<Option<u64>> {
    let length = |child: &RawChild<'_>| match child.kind {
        ChildKind::Dimension(length) => Some(length),
        _ => None,
    };
    raw.children.iter().filter_map(length).collect()
}

fn encoding(number: u8) -> Encoding {
    match gimli::DwAte(number) {
        dw::DW_ATE_signed => Encoding::Signed,
        dw::DW_ATE_unsigned => Encoding::Unsigned,
        dw::DW_ATE_signed_char => Encoding::SignedChar,
        dw::DW_ATE_unsigned_char => Encoding::UnsignedChar,
        dw::DW_ATE_UTF | dw::DW_ATE_UCS | dw::DW_ATE_ASCII => Encoding::Character,
        dw::DW_ATE_boolean => Encoding::Boolean,
        dw::DW_ATE_float | dw::DW_ATE_imaginary_float => Encoding::Float,
        dw::DW_ATE_complex_float => Encoding::ComplexFloat,
        dw::DW_ATE_decimal_float => Encoding::DecimalFloat,
        dw::DW_ATE_address => Encoding::Address,
        _ => Encoding::Other(number),
    }
}

/// Names structs, unions, classes and enums that have no name after their first typedef, and those
/// that only pointers reach after the typedef or member that points.
fn name_anonymous(table: &mut TypeTable) {
    for by_pointer in [false, true] {
        let mut names: Vec<(TypeId, String)> = Vec::new();
        for ty in &table.types {
            match (&ty.kind, &ty.name) {
                (TypeKind::Typedef { to: Some(to) }, Some(name)) => {
                    names.extend(anonymous(table, *to, by_pointer, name));
                }
                (TypeKind::Aggregate { members, .. }, Some(outer)) if by_pointer => {
                    for member in members {
                        if let (Some(ty), Some(name)) = (member.ty, &member.name) {
                            let path = format!("{outer}.{name}");
                            names.extend(anonymous(table, ty, true, &path));
                        }
                    }
                }
                _ => {}
            }
        }
        for (id, name) in names {
            let ty = &mut table.types[id.0 as usize];
            ty.named_by_typedef |= ty.name.is_none();
            ty.name.get_or_insert(name);
        }
    }
}

fn anonymous(
    table: &TypeTable,
    id: TypeId,
    by_pointer: bool,
    name: &str,
) -> Option<(TypeId, String)> {
    let mut target = table.stripped(id)?;
    let mut name = name.to_owned();
    if by_pointer {
        target = table.pointee(target)?;
        name = format!("<pointee of {name}>");
    }
    let ty = table.get(target)?;
    let may_be_named = matches!(ty.kind, TypeKind::Aggregate { .. } | TypeKind::Enum { .. });
    (may_be_named && ty.name.is_none()).then_some((target, name))
}

/// Gives each declared aggregate its definition, if all definitions of its name have one layout.
fn link_declarations(table: &mut TypeTable) {
    let mut definitions: HashMap<&str, Vec<TypeId>> = HashMap::new();
    for (id, ty) in table.iter() {
        if let (TypeKind::Aggregate { complete: true, .. }, Some(name)) = (&ty.kind, &ty.name) {
            definitions.entry(name).or_default().push(id);
        }
    }
    let mut layouts = Layouts::default();
    let mut side = Side::new(table);
    let mut links = Vec::new();
    for (id, ty) in table.iter() {
        let (TypeKind::Aggregate { complete: false, .. }, Some(name)) = (&ty.kind, &ty.name) else {
            continue;
        };
        let Some((first, others)) = definitions.get(name.as_str()).and_then(|d| d.split_first())
        else {
            continue;
        };
        let layout = layouts.of(&mut side, Some(*first));
        if others.iter().all(|other| layouts.of(&mut side, Some(*other)) == layout) {
            links.push((id, *first));
        }
    }
    for (id, found) in links {
        if let TypeKind::Aggregate { definition, .. } = &mut table.types[id.0 as usize].kind {
            *definition = Some(found);
        }
    }
}
