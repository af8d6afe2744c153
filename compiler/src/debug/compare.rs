//! How an object's type changed between two images, by value.
//!
//! Takes: two types. Decides: whether bytes of one can be used as the other. Gives: [`Layout`], with
//! each place that differs, innermost. A member keeps its identity by name; one that only
//! changed its name, and a union's members that do not change its size, are notes.

use std::fmt;

use super::DebugInfo;
use super::layout::{LayoutId, Layouts, Side, lengths, scalar};
use super::members;
use super::types::{
    AggregateKind, CHAIN_LIMIT, Enumerator, Member, MemberKind, Type, TypeId, TypeKind,
};

/// The most differences that are listed for one object.
const DIFFERENCES_LIMIT: usize = 256;
/// The most parts that are looked at for one object. Equal parts are not looked into.
const STEPS_LIMIT: usize = 65536;

/// What became of a place in an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It is elsewhere; bits from the start of what holds it.
    Moved {
        /// In OLD.
        from_bits: u64,
        /// In NEW.
        to_bits: u64,
    },
    /// It has another size, in bytes.
    Resized {
        /// In OLD.
        from: Option<u64>,
        /// In NEW.
        to: Option<u64>,
    },
    /// A bit-field has another width; `None` is none.
    Rewidened {
        /// In OLD.
        from_bits: Option<u64>,
        /// In NEW.
        to_bits: Option<u64>,
    },
    /// An array has another number of elements.
    Relengthened {
        /// In OLD, by dimension.
        from: Vec<u64>,
        /// In NEW, by dimension.
        to: Vec<u64>,
    },
    /// It is of another kind of type.
    Retyped {
        /// In OLD.
        from: String,
        /// In NEW.
        to: String,
    },
    /// NEW alone has it.
    Added {
        /// Its type.
        ty: String,
    },
    /// OLD alone has it.
    Removed {
        /// Its type.
        ty: String,
    },
    /// It has another name.
    Renamed {
        /// In NEW.
        to: String,
    },
    /// A value that it may have means something else: an enumerator, or a variant's discriminant.
    Renumbered {
        /// Whose value.
        name: String,
        /// In OLD.
        from: Option<i64>,
        /// In NEW; `None` if it is gone.
        to: Option<i64>,
    },
}

/// One place where two types differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutDifference {
    /// The place: `server.clients[].flags`.
    pub path: String,
    /// What became of it.
    pub what: Difference,
    /// It does not keep the bytes of one type from being used as the other.
    pub is_note: bool,
}

/// How the type of an object changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Not at all, by value.
    Same,
    /// Not as bytes, but a person may want to know: renames, enumerators, members of unions.
    SameWithNotes(Vec<LayoutDifference>),
    /// So, notes included.
    Changed(Vec<LayoutDifference>),
}

impl Layout {
    /// Whether objects cannot be taken over as they are.
    pub fn is_changed(&self) -> bool {
        matches!(self, Self::Changed(_))
    }

    /// What differs, notes included.
    pub fn differences(&self) -> &[LayoutDifference] {
        match self {
            Self::Same => &[],
            Self::SameWithNotes(differences) | Self::Changed(differences) => differences,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |bits: u64| match bits % 8 {
            0 => format!("{}", bits / 8),
            rest => format!("{} bit {rest}", bits / 8),
        };
        let bytes = |size: &Option<u64>| size.map_or("unknown".to_owned(), |s| s.to_string());
        let value = |value: &Option<i64>| value.map_or("gone".to_owned(), |v| v.to_string());
        match self {
            Self::Moved { from_bits, to_bits } => {
                write!(out, "moved from offset {} to {}", place(*from_bits), place(*to_bits))
            }
            Self::Resized { from, to } => {
                write!(out, "resized from {} to {} bytes", bytes(from), bytes(to))
            }
            Self::Rewidened { from_bits, to_bits } => {
                write!(out, "bit-field of {} bits now of {}", bytes(from_bits), bytes(to_bits))
            }
            Self::Relengthened { from, to } => {
                write!(out, "array length changed from {from:?} to {to:?}")
            }
            Self::Retyped { from, to } => write!(out, "type changed from {from} to {to}"),
            Self::Added { ty } => write!(out, "added ({ty})"),
            Self::Removed { ty } => write!(out, "removed ({ty})"),
            Self::Renamed { to } => write!(out, "renamed to {to}"),
            Self::Renumbered { name, from, to } => {
                write!(out, "value of {name} changed from {} to {}", value(from), value(to))
            }
        }
    }
}

impl fmt::Display for LayoutDifference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.path, self.what)
    }
}

/// Compares the type of one object called `name`. For many objects keep a [`LayoutComparer`].
pub fn compare_variable(
    name: &str,
    old: &DebugInfo,
    old_type: TypeId,
    new: &DebugInfo,
    new_type: TypeId,
) -> Layout {
    LayoutComparer::new(old, new).compare(name, old_type, new_type)
}

/// Compares types of two images, and remembers which are equal.
#[derive(Debug)]
pub struct LayoutComparer<'t> {
    layouts: Layouts,
    pub(super) old: Side<'t>,
    pub(super) new: Side<'t>,
}

impl<'t> LayoutComparer<'t> {
    /// Compares OLD's types with NEW's.
    pub fn new(old: &'t DebugInfo, new: &'t DebugInfo) -> Self {
        Self { layouts: Layouts::default(), old: Side::new(&old.types), new: Side::new(&new.types) }
    }

    /// How the type of an object called `name` changed.
    pub fn compare(&mut self, name: &str, old: TypeId, new: TypeId) -> Layout {
        let mut walk = Walk { comparer: self, found: Vec::new(), steps: 0 };
        walk.types(name, Some(old), Some(new), CHAIN_LIMIT);
        let found = walk.found;
        match (found.is_empty(), found.iter().all(|difference| difference.is_note)) {
            (true, _) => Layout::Same,
            (_, true) => Layout::SameWithNotes(found),
            _ => Layout::Changed(found),
        }
    }

    /// The layout of a type of OLD.
    pub(super) fn old_layout(&mut self, id: Option<TypeId>) -> LayoutId {
        self.layouts.of(&mut self.old, id)
    }

    /// The layout of a type of NEW.
    pub(super) fn new_layout(&mut self, id: Option<TypeId>) -> LayoutId {
        self.layouts.of(&mut self.new, id)
    }
}

struct Walk<'w, 't> {
    comparer: &'w mut LayoutComparer<'t>,
    found: Vec<LayoutDifference>,
    steps: usize,
}

impl<'t> Walk<'_, 't> {
    fn add(&mut self, path: &str, what: Difference, is_note: bool) {
        if self.found.len() < DIFFERENCES_LIMIT {
            self.found.push(LayoutDifference { path: path.to_owned(), what, is_note });
        }
    }

    fn types(&mut self, path: &str, old: Option<TypeId>, new: Option<TypeId>, limit: usize) {
        self.steps += 1;
        if self.comparer.old_layout(old) == self.comparer.new_layout(new) {
            return;
        }
        let (old_table, new_table) = (self.comparer.old.table, self.comparer.new.table);
        let old_type = old.and_then(|id| old_table.get(old_table.resolved(id)?));
        let new_type = new.and_then(|id| new_table.get(new_table.resolved(id)?));
        let retyped =
            || Difference::Retyped { from: old_table.display(old), to: new_table.display(new) };
        let (Some(from), Some(to), Some(limit)) = (old_type, new_type, limit.checked_sub(1)) else {
            return self.add(path, retyped(), false);
        };
        if self.found.len() >= DIFFERENCES_LIMIT || self.steps > STEPS_LIMIT {
            return self.add(path, retyped(), false);
        }
        match (&from.kind, &to.kind) {
            (
                TypeKind::Array { element: old, dimensions: from, .. },
                TypeKind::Array { element: new, dimensions: to, .. },
            ) if from.len() == to.len() => {
                let (from, to) = (lengths(from), lengths(to));
                if from != to {
                    self.add(path, Difference::Relengthened { from, to }, false);
                }
                self.types(&format!("{path}[]"), *old, *new, limit);
            }
            (
                TypeKind::Aggregate { kind: old, members: from_members, complete: true, .. },
                TypeKind::Aggregate { kind: new, members: to_members, complete: true, .. },
            ) if is_union(*old) == is_union(*new) => {
                if from.byte_size != to.byte_size {
                    self.add(path, resized(from.byte_size, to.byte_size), false);
                }
                self.members(path, is_union(*old), from_members, to_members, limit);
            }
            (
                TypeKind::Array { .. } | TypeKind::Aggregate { .. } | TypeKind::Function { .. },
                _,
            )
            | (_, TypeKind::Array { .. } | TypeKind::Aggregate { .. }) => {
                self.add(path, retyped(), false);
            }
            _ => self.scalars(path, (old, from), (new, to), retyped()),
        }
    }

    fn scalars(
        &mut self,
        path: &str,
        (old, from): (Option<TypeId>, &Type),
        (new, to): (Option<TypeId>, &Type),
        retyped: Difference,
    ) {
        if scalar(&from.kind) != scalar(&to.kind) {
            return self.add(path, retyped, false);
        }
        let from_size = old.and_then(|id| self.comparer.old.table.size(id));
        let to_size = new.and_then(|id| self.comparer.new.table.size(id));
        if from_size != to_size {
            return self.add(path, resized(from_size, to_size), false);
        }
        if let (TypeKind::Enum { enumerators: from, .. }, TypeKind::Enum { enumerators: to, .. }) =
            (&from.kind, &to.kind)
        {
            self.enumerators(path, from, to);
        }
    }

    /// Notes constants whose value changed or is gone: bytes stored before mean something else.
    /// One that is only declared has no constants.
    fn enumerators(&mut self, path: &str, old: &[Enumerator], new: &[Enumerator]) {
        if old.is_empty() || new.is_empty() {
            return;
        }
        let values: std::collections::HashMap<&str, i64> =
            new.iter().map(|constant| (constant.name.as_str(), constant.value)).collect();
        for constant in old {
            let to = values.get(constant.name.as_str()).copied();
            if to != Some(constant.value) {
                let (name, from) = (constant.name.clone(), Some(constant.value));
                self.add(path, Difference::Renumbered { name, from, to }, true);
            }
        }
    }

    fn members(
        &mut self,
        path: &str,
        is_union: bool,
        old: &'t [Member],
        new: &'t [Member],
        limit: usize,
    ) {
        for (from, to) in members::pair(self.comparer, old, new) {
            match (from, to) {
                (Some(from), Some(to)) => self.member(path, from, to, limit),
                (Some(from), None) => {
                    let ty = self.comparer.old.table.display(from.ty);
                    self.add(&below(path, from), Difference::Removed { ty }, is_union);
                }
                (None, Some(to)) => {
                    let ty = self.comparer.new.table.display(to.ty);
                    self.add(&below(path, to), Difference::Added { ty }, is_union);
                }
                (None, None) => {}
            }
        }
    }

    fn member(&mut self, path: &str, from: &Member, to: &Member, limit: usize) {
        let path = below(path, from);
        if let (Some(old), Some(new)) = (&from.name, &to.name)
            && old != new
        {
            self.add(&path, Difference::Renamed { to: new.clone() }, true);
        }
        let (from_bits, to_bits) = (from.bit_offset, to.bit_offset);
        if from_bits != to_bits {
            self.add(&path, Difference::Moved { from_bits, to_bits }, false);
        }
        let (from_bits, to_bits) = (from.bit_size, to.bit_size);
        if from_bits != to_bits {
            self.add(&path, Difference::Rewidened { from_bits, to_bits }, false);
        }
        if let (MemberKind::Variant(old), MemberKind::Variant(new)) = (from.kind, to.kind)
            && old != new
        {
            let signed = |value: Option<u64>| value.map(u64::cast_signed);
            let name = from.name.clone().unwrap_or_default();
            let (from, to) = (signed(old), signed(new));
            self.add(&path, Difference::Renumbered { name, from, to }, false);
        }
        self.types(&path, from.ty, to.ty, limit);
    }
}

fn is_union(kind: AggregateKind) -> bool {
    kind == AggregateKind::Union
}

fn resized(from: Option<u64>, to: Option<u64>) -> Difference {
    Difference::Resized { from, to }
}

/// The path of a member. What an anonymous member holds is reached without naming it.
fn below(path: &str, member: &Member) -> String {
    match &member.name {
        Some(name) => format!("{path}.{name}"),
        None => path.to_owned(),
    }
}
