//! What a type is as bytes: equal for types that objects can be read by interchangeably.
//!
//! Takes: type tables, of one image or of two. Gives: a [`LayoutId`] for each type, equal exactly
//! where sizes, member names and offsets, scalar classes and enumerators are, all the way down by
//! value. Names of types, signedness, qualifiers and what pointers point to do not count.

use std::collections::HashMap;

use super::types::{
    AggregateKind, CHAIN_LIMIT, Encoding, Enumerator, Member, MemberKind, TypeId, TypeKind,
    TypeTable,
};

/// A layout, unique within one [`Layouts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LayoutId(u32);

/// What kind of scalar, as far as it matters to who copies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scalar {
    /// Integers, characters and enumerations.
    Integer,
    /// Only two of its bytes' values mean something.
    Boolean,
    /// Binary floating point.
    Float,
    /// Decimal floating point.
    Decimal,
    /// A pair of floats.
    Complex,
    /// Pointers and references.
    Pointer,
    /// Pointers to members.
    MemberPointer,
    /// Unknown.
    Other,
}

/// What tells layouts apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Scalar(Scalar, Option<u64>),
    Enum(Option<u64>, Vec<Enumerator>),
    Array(Vec<u64>, LayoutId),
    Aggregate {
        is_union: bool,
        size: Option<u64>,
        parts: Vec<Part>,
    },
    Declared(Option<String>),
    Function,
    Void,
    /// Damaged: nested too deep, or within itself.
    Endless,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Part {
    name: Option<String>,
    bit_offset: u64,
    bit_size: Option<u64>,
    kind: MemberKind,
    layout: LayoutId,
}

/// The layouts seen so far.
#[derive(Debug, Default)]
pub(super) struct Layouts {
    known: HashMap<Key, LayoutId>,
}

/// One image's types and the layouts found for them.
#[derive(Debug)]
pub(super) struct Side<'t> {
    /// The types.
    pub(super) table: &'t TypeTable,
    found: HashMap<TypeId, Option<LayoutId>>,
}

impl<'t> Side<'t> {
    /// Nothing is known yet.
    pub(super) fn new(table: &'t TypeTable) -> Self {
        Self { table, found: HashMap::new() }
    }
}

impl Layouts {
    /// The layout of a type.
    pub(super) fn of(&mut self, side: &mut Side<'_>, id: Option<TypeId>) -> LayoutId {
        self.within(side, id, CHAIN_LIMIT)
    }

    fn within(&mut self, side: &mut Side<'_>, id: Option<TypeId>, limit: usize) -> LayoutId {
        let Some(id) = id.and_then(|id| side.table.resolved(id)) else {
            return self.intern(Key::Void);
        };
        match side.found.get(&id) {
            Some(Some(layout)) => return *layout,
            // Within itself.
            Some(None) => return self.intern(Key::Endless),
            None => {}
        }
        let Some(limit) = limit.checked_sub(1) else {
            return self.intern(Key::Endless);
        };
        side.found.insert(id, None);
        let key = self.key(side, id, limit);
        let layout = self.intern(key);
        side.found.insert(id, Some(layout));
        layout
    }

    fn key(&mut self, side: &mut Side<'_>, id: TypeId, limit: usize) -> Key {
        let table = side.table;
        let Some(ty) = table.get(id) else {
            return Key::Void;
        };
        match &ty.kind {
            TypeKind::Array { element, dimensions, .. } => {
                let element = self.within(side, *element, limit);
                Key::Array(lengths(dimensions), element)
            }
            TypeKind::Aggregate { complete: false, .. } => Key::Declared(ty.name.clone()),
            TypeKind::Aggregate { kind, members, .. } => Key::Aggregate {
                is_union: *kind == AggregateKind::Union,
                size: ty.byte_size,
                parts: members.iter().map(|member| self.part(side, member, limit)).collect(),
            },
            TypeKind::Enum { enumerators, .. } => Key::Enum(table.size(id), enumerators.clone()),
            TypeKind::Function { .. } => Key::Function,
            kind => Key::Scalar(scalar(kind), table.size(id)),
        }
    }

    fn part(&mut self, side: &mut Side<'_>, member: &Member, limit: usize) -> Part {
        Part {
            name: member.name.clone(),
            bit_offset: member.bit_offset,
            bit_size: member.bit_size,
            kind: member.kind,
            layout: self.within(side, member.ty, limit),
        }
    }

    fn intern(&mut self, key: Key) -> LayoutId {
        // Each layout has at least one of less than 2^32 types.
        let next = LayoutId(u32::try_from(self.known.len()).unwrap_or(u32::MAX));
        *self.known.entry(key).or_insert(next)
    }
}

/// The lengths of an array. One of no length (`[]`) takes no room in what holds it.
pub(super) fn lengths(dimensions: &[Option<u64>]) -> Vec<u64> {
    dimensions.iter().map(|length| length.unwrap_or(0)).collect()
}

/// The class of a type that is no array and no aggregate.
pub(super) fn scalar(kind: &TypeKind) -> Scalar {
    match kind {
        TypeKind::Pointer { .. } | TypeKind::Reference { .. } => Scalar::Pointer,
        TypeKind::MemberPointer { .. } => Scalar::MemberPointer,
        TypeKind::Enum { .. } => Scalar::Integer,
        TypeKind::Base { encoding } => match encoding {
            Encoding::Signed
            | Encoding::Unsigned
            | Encoding::SignedChar
            | Encoding::UnsignedChar
            | Encoding::Character => Scalar::Integer,
            Encoding::Boolean => Scalar::Boolean,
            Encoding::Float => Scalar::Float,
            Encoding::DecimalFloat => Scalar::Decimal,
            Encoding::ComplexFloat => Scalar::Complex,
            Encoding::Address => Scalar::Pointer,
            Encoding::Other(_) => Scalar::Other,
        },
        _ => Scalar::Other,
    }
}
