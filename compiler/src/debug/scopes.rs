//! What encloses an entity, and what it is called, over the entries that share in telling it.
//!
//! A concrete function refers to its abstract instance, that to the declaration in its class
//! (DWARF 5, sections 2.13.2 and 3.3.8): each says what the one before left out.

use super::raw::{Offset, RawDeclaration, RawUnits, ScopeId, ScopeKind, text};

/// How many entries may share in telling one thing, and how deep scopes may lie.
pub(super) const DEPTH_LIMIT: usize = 64;

/// What gcc, clang and demanglers call a namespace without a name.
const ANONYMOUS: &str = "(anonymous namespace)";

/// An entity as all entries that tell it say together; `unit` and `scope` are those of the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entity<'a> {
    /// The first value found of each kind.
    pub(super) declared: RawDeclaration<'a>,
    /// The unit that the last entry of the chain is in.
    pub(super) unit: usize,
    /// The unit that `file` counts in.
    pub(super) file_unit: usize,
}

/// Follows the origins of an entry that `unit` holds. `next` finds an entry of the right kind.
pub(super) fn entity<'a>(
    unit: usize,
    declared: RawDeclaration<'a>,
    next: impl Fn(Offset) -> Option<(usize, RawDeclaration<'a>)>,
) -> Entity<'a> {
    let mut found = Entity { declared, unit, file_unit: unit };
    let mut origin = declared.origin;
    for _ in 0..DEPTH_LIMIT {
        let Some((unit, further)) = origin.and_then(&next) else {
            break;
        };
        let own = &mut found.declared;
        own.name = own.name.or(further.name);
        own.linkage_name = own.linkage_name.or(further.linkage_name);
        own.ty = own.ty.or(further.ty);
        if own.file.is_none() && further.file.is_some() {
            own.file = further.file;
            found.file_unit = unit;
        }
        if own.line == 0 {
            own.line = further.line;
        }
        own.external |= further.external;
        own.scope = further.scope;
        found.unit = unit;
        origin = further.origin;
    }
    found
}

impl<'a> RawUnits<'a> {
    /// A function of a unit, with what its origins say.
    pub(super) fn function(&self, unit: usize, declared: RawDeclaration<'a>) -> Entity<'a> {
        entity(unit, declared, |at| self.function_at(at).map(|(unit, f)| (unit, f.declared)))
    }

    /// A variable of a unit, with what its origins say. A static member's declaration is a
    /// variable here, too.
    pub(super) fn variable(&self, unit: usize, declared: RawDeclaration<'a>) -> Entity<'a> {
        entity(unit, declared, |at| self.variable_at(at).map(|(unit, v)| (unit, v.declared)))
    }

    /// A type of a unit, with what its declaration says.
    pub(super) fn ty(&self, unit: usize, declared: RawDeclaration<'a>) -> Entity<'a> {
        entity(unit, declared, |at| {
            let (unit, index) = self.type_at(at)?;
            Some((unit, self.units[unit].types[index].declared))
        })
    }

    /// The names of a scope and those around it, outermost first. The functions among them go by
    /// their linkage names.
    pub(super) fn path(&self, unit: usize, scope: ScopeId) -> Vec<String> {
        let mut path = Vec::new();
        let (mut unit, mut scope) = (unit, scope);
        for _ in 0..DEPTH_LIMIT {
            let Some(here) = self.units.get(unit).and_then(|u| u.scopes.get(scope as usize)) else {
                break;
            };
            scope = here.parent;
            match here.kind {
                ScopeKind::Root => break,
                ScopeKind::Namespace(name) => {
                    path.push(name.map_or_else(|| ANONYMOUS.to_owned(), text));
                }
                ScopeKind::Block(number) => path.push(format!("{{{number}}}")),
                ScopeKind::Function(index) => {
                    let declared = self.units[unit].functions[index as usize].declared;
                    let function = self.function(unit, declared);
                    (unit, scope) = (function.unit, function.declared.scope);
                    let name = function.declared.linkage_name.or(function.declared.name);
                    path.push(name.map(text).unwrap_or_default());
                }
                ScopeKind::Type(index) => {
                    let declared = self.units[unit].types[index as usize].declared;
                    let ty = self.ty(unit, declared);
                    (unit, scope) = (ty.unit, ty.declared.scope);
                    path.extend(ty.declared.name.map(text));
                }
            }
        }
        path.reverse();
        path
    }

    /// The name of a type with the namespaces and classes around it.
    pub(super) fn type_name(&self, unit: usize, declared: RawDeclaration<'a>) -> Option<String> {
        let ty = self.ty(unit, declared);
        let name = text(ty.declared.name?);
        let mut parts = vec![name];
        let (mut unit, mut scope) = (ty.unit, ty.declared.scope);
        for _ in 0..DEPTH_LIMIT {
            let Some(here) = self.units.get(unit).and_then(|u| u.scopes.get(scope as usize)) else {
                break;
            };
            scope = here.parent;
            match here.kind {
                ScopeKind::Root => break,
                ScopeKind::Namespace(name) => {
                    parts.push(name.map_or_else(|| ANONYMOUS.to_owned(), text));
                }
                ScopeKind::Type(index) => {
                    let outer = self.ty(unit, self.units[unit].types[index as usize].declared);
                    (unit, scope) = (outer.unit, outer.declared.scope);
                    parts.extend(outer.declared.name.map(text));
                }
                ScopeKind::Function(_) | ScopeKind::Block(_) => {}
            }
        }
        parts.reverse();
        Some(parts.join("::"))
    }
}
