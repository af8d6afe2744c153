//! Which types of different units are one.
//!
//! Takes: raw units. Gives: for every type 128 bits, equal for types of equal structure: name,
//! file and line, size, members, and the structure of everything it holds by value. What it only
//! points to counts by name, file, line and size, so that recursive types end and a
//! pointer to a type is one type wherever it is written. Types nested deeper than
//! [`DEPTH_LIMIT`], or holding themselves, as only damaged input has them, are equal to none.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use gimli::constants as dw;

use super::raw::{ChildKind, Offset, Placement, RawType, RawUnits, ScopeId, ScopeKind};
use super::scopes::DEPTH_LIMIT;

/// What identifies a structure.
pub(super) type Signature = u128;

/// The signatures of all types of a unit.
pub(super) fn of_unit(raw: &RawUnits<'_>, unit: usize) -> Vec<Signature> {
    let count = raw.units[unit].types.len();
    let mut signer = Signer {
        raw,
        unit,
        whole: vec![State::Unknown; count],
        outline: vec![State::Unknown; count],
        foreign: HashMap::new(),
        depth: 0,
    };
    (0..count).map(|index| signer.at(unit, index, View::Whole)).collect()
}

/// How much of a type counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum View {
    /// All that it holds.
    Whole,
    /// What tells it from others, for who only points to it.
    Outline,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Unknown,
    Busy,
    Known(Signature),
}

struct Signer<'r, 'a> {
    raw: &'r RawUnits<'a>,
    unit: usize,
    whole: Vec<State>,
    outline: Vec<State>,
    /// Types of other units (link-time optimization, `dwz`).
    foreign: HashMap<(usize, usize, View), State>,
    depth: usize,
}

impl Signer<'_, '_> {
    fn reference(&mut self, offset: Option<Offset>, view: View) -> Signature {
        match offset.and_then(|offset| self.raw.type_at(offset)) {
            Some((unit, index)) => self.at(unit, index, view),
            // void, or a reference to nowhere, which is read as void.
            None => 0,
        }
    }

    fn state(&self, unit: usize, index: usize, view: View) -> State {
        match (unit == self.unit, view) {
            (true, View::Whole) => self.whole[index],
            (true, View::Outline) => self.outline[index],
            _ => self.foreign.get(&(unit, index, view)).copied().unwrap_or(State::Unknown),
        }
    }

    fn set_state(&mut self, unit: usize, index: usize, view: View, state: State) {
        match (unit == self.unit, view) {
            (true, View::Whole) => self.whole[index] = state,
            (true, View::Outline) => self.outline[index] = state,
            _ => {
                self.foreign.insert((unit, index, view), state);
            }
        }
    }

    fn at(&mut self, unit: usize, index: usize, view: View) -> Signature {
        let raw = self.raw;
        let ty = &raw.units[unit].types[index];
        match self.state(unit, index, view) {
            State::Known(signature) => return signature,
            State::Unknown if self.depth < DEPTH_LIMIT => {}
            State::Unknown | State::Busy => {
                let mut digest = Digest::new(dw::DW_TAG_null);
                digest.number(ty.declared.offset);
                return digest.finish();
            }
        }
        self.set_state(unit, index, view, State::Busy);
        self.depth += 1;
        let signature = match definition_elsewhere(raw, ty) {
            Some((unit, index)) => self.at(unit, index, view),
            None => self.compute(unit, ty, view),
        };
        self.depth -= 1;
        self.set_state(unit, index, view, State::Known(signature));
        signature
    }

    fn compute(&mut self, unit: usize, ty: &RawType<'_>, view: View) -> Signature {
        let mut digest = Digest::new(ty.tag);
        digest.optional(ty.size);
        digest.number(ty.encoding.into());
        digest.number(
            u64::from(ty.declared.declaration) << 2
                | u64::from(ty.vector) << 1
                | u64::from(ty.by_reference),
        );
        let is_named = self.name(&mut digest, unit, ty);
        let declared = &ty.declared;
        match ty.tag {
            dw::DW_TAG_pointer_type
            | dw::DW_TAG_reference_type
            | dw::DW_TAG_rvalue_reference_type
            | dw::DW_TAG_ptr_to_member_type => {
                digest.signature(self.reference(declared.ty, View::Outline));
            }
            dw::DW_TAG_subroutine_type => {
                digest.signature(self.reference(declared.ty, View::Outline));
                self.children(&mut digest, ty, View::Outline);
            }
            dw::DW_TAG_array_type | dw::DW_TAG_typedef | dw::DW_TAG_template_alias => {
                digest.signature(self.reference(declared.ty, view));
                self.children(&mut digest, ty, view);
            }
            dw::DW_TAG_structure_type | dw::DW_TAG_class_type | dw::DW_TAG_union_type
                if view == View::Outline && is_named => {}
            _ => {
                digest.signature(self.reference(declared.ty, view));
                self.children(&mut digest, ty, View::Whole);
            }
        }
        digest.finish()
    }

    /// Name, scope and place of the declaration; whether there is a name. Of the file only the
    /// last part counts: units that are compiled in different directories name it differently.
    fn name(&self, digest: &mut Digest, unit: usize, ty: &RawType<'_>) -> bool {
        let entity = self.raw.ty(unit, ty.declared);
        let declared = entity.declared;
        digest.text(declared.name);
        digest.number(declared.line.into());
        let files = &self.raw.units[entity.file_unit].files;
        let file = declared.file.and_then(|number| files.get(number as usize));
        let base = file.map(|file| file.rsplit('/').next().unwrap_or_default());
        digest.text(base.map(str::as_bytes));
        self.scope(digest, entity.unit, declared.scope);
        declared.name.is_some()
    }

    fn scope(&self, digest: &mut Digest, unit: usize, scope: ScopeId) {
        let raw = &self.raw.units[unit];
        let mut scope = scope;
        for _ in 0..DEPTH_LIMIT {
            let Some(here) = raw.scopes.get(scope as usize) else {
                break;
            };
            match here.kind {
                ScopeKind::Root => break,
                ScopeKind::Namespace(name) => digest.text(name),
                ScopeKind::Type(index) => digest.text(raw.types[index as usize].declared.name),
                ScopeKind::Function(_) | ScopeKind::Block(_) => {}
            }
            scope = here.parent;
        }
    }

    fn children(&mut self, digest: &mut Digest, ty: &RawType<'_>, view: View) {
        for child in &ty.children {
            match child.kind {
                ChildKind::Field(placement) => digest.placement(1, placement),
                ChildKind::Base(offset) => {
                    digest.number(2);
                    digest.optional(offset);
                }
                ChildKind::Variant(placement, discriminant) => {
                    digest.placement(3, placement);
                    digest.optional(discriminant);
                }
                ChildKind::Enumerator(value) => {
                    digest.number(4);
                    digest.number(value.cast_unsigned());
                }
                ChildKind::Dimension(length) => {
                    digest.number(5);
                    digest.optional(length);
                }
                ChildKind::Parameter => digest.number(6),
                ChildKind::Ellipsis => digest.number(7),
            }
            digest.text(child.name);
            // Of a dimension the type is that of the index.
            if !matches!(child.kind, ChildKind::Dimension(_)) {
                digest.signature(self.reference(child.ty, view));
            }
        }
    }
}

/// The definition that a declaration refers to by signature (DWARF 5, section 5.7.1).
pub(super) fn definition_elsewhere(raw: &RawUnits<'_>, ty: &RawType<'_>) -> Option<(usize, usize)> {
    raw.type_at(ty.definition?)
}

/// 128 bits of hash: two of 64 bits over the same input, one of them begun differently.
struct Digest {
    first: DefaultHasher,
    second: DefaultHasher,
}

impl Digest {
    fn new(tag: gimli::DwTag) -> Self {
        let (mut first, mut second) = (DefaultHasher::new(), DefaultHasher::new());
        first.write_u64(tag.0.into());
        second.write_u64(u64::from(tag.0) | 1 << 32);
        Self { first, second }
    }

    fn number(&mut self, number: u64) {
        self.first.write_u64(number);
        self.second.write_u64(number);
    }

    fn optional(&mut self, number: Option<u64>) {
        self.number(number.is_some().into());
        self.number(number.unwrap_or(0));
    }

    fn text(&mut self, text: Option<&[u8]>) {
        self.number(text.map_or(u64::MAX, |text| text.len() as u64));
        self.first.write(text.unwrap_or_default());
        self.second.write(text.unwrap_or_default());
    }

    fn signature(&mut self, signature: Signature) {
        self.first.write_u128(signature);
        self.second.write_u128(signature);
    }

    fn placement(&mut self, kind: u64, placement: Placement) {
        self.number(kind);
        self.number(placement.bits);
        self.optional(placement.bit_size);
        self.optional(placement.from_top.map(|(bits, _)| bits));
        self.optional(placement.from_top.and_then(|(_, storage)| storage));
    }

    fn finish(&self) -> Signature {
        u128::from(self.first.finish()) << 64 | u128::from(self.second.finish())
    }
}
