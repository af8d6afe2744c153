//! Which local variable of OLD is which of NEW.
//!
//! The same name, in the same body: the function's own, or one inlined by calls of the same
//! functions from outside in. Of several with one name that are in scope at once, the nth from
//! outside is the nth. Lexical blocks need not have the same numbers, a change may add one; but two
//! calls of one function are told apart by their order while there are equally many.
//!
//! The same type: the same bytes (see [`LayoutComparer`]), and for pointers the same name of what
//! they point to, for a value is more than its bytes.

use super::variables::Side;
use crate::debug::{
    Difference, LayoutComparer, LayoutDifference, Local, Scope, TypeId, TypeKind, TypeTable,
};
use crate::image::Image;
use crate::matching::names::canonical;
use std::collections::{BTreeMap, BTreeSet};

/// How far pointers to pointers are followed.
const POINTER_LIMIT: usize = 8;

/// The types of variables that share a name, compared.
pub(super) struct Types(BTreeMap<(TypeId, TypeId), Result<(), String>>);

impl Types {
    /// Compares all that may be asked for.
    pub(super) fn new(old: Side<'_>, new: Side<'_>) -> Self {
        let mut comparer = LayoutComparer::new(&old.image.debug, &new.image.debug);
        let mut types: BTreeMap<&str, BTreeSet<TypeId>> = BTreeMap::new();
        for local in &old.locals.variables {
            types.entry(&local.name).or_default().extend(local.ty);
        }
        let mut found = BTreeMap::new();
        for local in &new.locals.variables {
            let (Some(ty), Some(others)) = (local.ty, types.get(local.name.as_str())) else {
                continue;
            };
            for other in others {
                found.entry((*other, ty)).or_insert_with(|| {
                    let tables = (&old.image.debug.types, &new.image.debug.types);
                    compare(&mut comparer, tables, *other, ty)
                });
            }
        }
        Self(found)
    }

    /// Whether a value of one can be used as one of the other; if not, why.
    pub(super) fn compare(&self, old: &Local, new: &Local) -> Result<(), String> {
        let (Some(from), Some(to)) = (old.ty, new.ty) else {
            return Err("its type is not known".to_owned());
        };
        self.0.get(&(from, to)).cloned().unwrap_or_else(|| Err("its type is not known".to_owned()))
    }
}

fn compare(
    comparer: &mut LayoutComparer<'_>,
    (old, new): (&TypeTable, &TypeTable),
    from: TypeId,
    to: TypeId,
) -> Result<(), String> {
    let layout = comparer.compare("it", from, to);
    let harmless = |d: &&LayoutDifference| {
        d.is_note && matches!(d.what, Difference::Renamed { .. } | Difference::Added { .. })
    };
    if let Some(difference) = layout.differences().iter().find(|d| !harmless(d)) {
        return Err(match &difference.what {
            Difference::Retyped { .. } if difference.path == "it" => retyped(old, new, from, to),
            _ => format!("its type changed ({difference})"),
        });
    }
    match same_pointee(old, new, from, to) {
        true => Ok(()),
        false => Err(retyped(old, new, from, to)),
    }
}

fn retyped(old: &TypeTable, new: &TypeTable, from: TypeId, to: TypeId) -> String {
    format!("its type changed from {} to {}", old.display(Some(from)), new.display(Some(to)))
}

/// Whether two pointers point to things of one name; `void *` to anything.
fn same_pointee(old: &TypeTable, new: &TypeTable, mut from: TypeId, mut to: TypeId) -> bool {
    for _ in 0..POINTER_LIMIT {
        let pointees = (pointee(old, from), pointee(new, to));
        let (Some(a), Some(b)) = pointees else { return true };
        let (Some(x), Some(y)) = (old.get(a), new.get(b)) else { return true };
        match (&x.kind, &y.kind) {
            (TypeKind::Aggregate { .. }, TypeKind::Aggregate { .. }) => {
                return x.name.as_deref().map(canonical) == y.name.as_deref().map(canonical);
            }
            (TypeKind::Aggregate { .. }, _) | (_, TypeKind::Aggregate { .. }) => return false,
            (TypeKind::Function { .. }, TypeKind::Function { .. }) => return true,
            (TypeKind::Function { .. }, _) | (_, TypeKind::Function { .. }) => return false,
            (TypeKind::Pointer { .. }, TypeKind::Pointer { .. }) => (from, to) = (a, b),
            _ => return old.size(a) == new.size(b),
        }
    }
    true
}

fn pointee(table: &TypeTable, id: TypeId) -> Option<TypeId> {
    table.pointee(id)
}

/// Whether two scopes are the same body, and if not whether that is for the call's place alone.
pub(super) fn same_body(old: &[Scope], new: &[Scope]) -> bool {
    old.len() == new.len()
        // The functions themselves are a pair already, whatever they are called.
        && old.iter().zip(new).skip(1).all(|(a, b)| {
            canonical(&a.function) == canonical(&b.function)
                && match (&a.call, &b.call) {
                    (Some(a), Some(b)) => a.of != b.of || a.ordinal == b.ordinal,
                    _ => false,
                }
        })
}

/// How deep a variable's declaration is nested.
fn depth(local: &Local) -> usize {
    local.scope.iter().map(|scope| scope.blocks.len()).sum()
}

/// Variables in scope at a point, and whether they are so only at the call that the point is
/// behind.
pub(super) fn visible(
    side: Side<'_>,
    pc: u64,
    is_return: bool,
) -> impl Iterator<Item = (usize, bool)> + '_ {
    side.locals.variables.iter().enumerate().filter_map(move |(index, local)| {
        if local.is_in_scope(pc) {
            return Some((index, false));
        }
        (is_return && local.is_in_scope(pc.wrapping_sub(1))).then_some((index, true))
    })
}

/// Variables with the name and body of `like`, from outside in.
pub(super) fn alike(
    side: Side<'_>,
    like: &Local,
    visible: &[(usize, bool)],
    left: Option<bool>,
    is_same: impl Fn(&[Scope]) -> bool,
) -> Vec<usize> {
    let mut found: Vec<usize> = visible
        .iter()
        .filter(|(_, is_left)| left.is_none_or(|left| left == *is_left))
        .map(|(index, _)| *index)
        .filter(|index| {
            let local = &side.locals.variables[*index];
            local.name == like.name && is_same(&local.scope)
        })
        .collect();
    found.sort_by_key(|index| (depth(&side.locals.variables[*index]), *index));
    found
}

/// What a variable is called in reasons.
pub(super) fn called(image: &Image, local: &Local) -> String {
    let file = local.decl_file.map_or("", |file| image.debug.lines.file(file));
    let file = file.rsplit('/').next().unwrap_or_default();
    match (file, local.decl_line) {
        (_, 0) | ("", _) => format!("`{}`", local.name),
        (file, line) => format!("`{}` ({file}:{line})", local.name),
    }
}
