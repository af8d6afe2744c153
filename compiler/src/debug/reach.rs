//! Which types pointers lead to, and what lies behind pointers and arrays.
//!
//! Takes: a type table. Every pointer that a member, variable, parameter or result has is in it.
//! Gives: for each aggregate, whether an object of it may be somewhere that only pointers lead to.

use std::collections::{BTreeSet, HashMap};

use super::DebugInfo;
use super::types::{CHAIN_LIMIT, TypeId, TypeKind, TypeTable};

/// What one image's pointers lead to.
pub(super) struct Reach<'t> {
    table: &'t TypeTable,
    /// By type, whether a pointer leads to it or to what holds it.
    reached: Vec<bool>,
    /// Definitions by name, for declarations that have several.
    named: HashMap<&'t str, Vec<TypeId>>,
}

impl<'t> Reach<'t> {
    /// Follows all pointers of an image.
    pub(super) fn of(table: &'t TypeTable) -> Self {
        let mut named: HashMap<&str, Vec<TypeId>> = HashMap::new();
        for (id, ty) in table.iter() {
            if let (TypeKind::Aggregate { complete: true, .. }, Some(name)) = (&ty.kind, &ty.name) {
                named.entry(name).or_default().push(id);
            }
        }
        let mut reach = Self { table, reached: vec![false; table.types.len()], named };
        let mut open: Vec<TypeId> = Vec::new();
        for (_, ty) in table.iter() {
            if let TypeKind::Pointer { to: Some(to) } | TypeKind::Reference { to: Some(to) } =
                ty.kind
            {
                open.push(to);
            }
        }
        reach.follow(open);
        reach
    }

    /// Marks types and all that they hold by value.
    fn follow(&mut self, mut open: Vec<TypeId>) {
        while let Some(id) = open.pop() {
            let Some(id) = self.table.resolved(id) else {
                continue;
            };
            let Some(seen) = self.reached.get_mut(id.0 as usize) else {
                continue;
            };
            if std::mem::replace(seen, true) {
                continue;
            }
            let Some(ty) = self.table.get(id) else {
                continue;
            };
            match &ty.kind {
                TypeKind::Array { element, .. } => open.extend(element),
                TypeKind::Aggregate { complete: true, members, .. } => {
                    open.extend(members.iter().filter_map(|member| member.ty));
                }
                TypeKind::Aggregate { .. } => {
                    let name = ty.name.as_deref().unwrap_or_default();
                    open.extend(self.named.get(name).into_iter().flatten());
                }
                _ => {}
            }
        }
    }

    /// Whether a pointer leads to this type, to one of its name, or to what holds it.
    pub(super) fn by_pointer(&self, id: TypeId) -> bool {
        let is_reached = |id: TypeId| self.reached.get(id.0 as usize) == Some(&true);
        let name = self.table.get(id).and_then(|ty| ty.name.as_deref());
        let namesakes = name.and_then(|name| self.named.get(name));
        is_reached(id) || namesakes.into_iter().flatten().any(|id| is_reached(*id))
    }

    /// The functions and static variables that name a type, or pointers to it, by its name.
    pub(super) fn users<'u>(&self, image: &'u DebugInfo) -> HashMap<&'t str, BTreeSet<&'u str>> {
        let mut users: HashMap<&str, BTreeSet<&str>> = HashMap::new();
        let of_functions = image
            .type_users
            .iter()
            .flat_map(|user| user.types.iter().map(|ty| (user.function.as_str(), *ty)));
        let of_variables = image
            .variables
            .iter()
            .filter_map(|variable| Some((variable.name.as_str(), variable.ty?)));
        for (name, ty) in of_functions.chain(of_variables) {
            if let Some(ty) = self.innermost(ty)
                && !name.is_empty()
            {
                users.entry(ty).or_default().insert(name);
            }
        }
        users
    }

    /// The name of the type behind pointers and arrays.
    fn innermost(&self, id: TypeId) -> Option<&'t str> {
        let mut id = id;
        for _ in 0..CHAIN_LIMIT {
            id = self.table.resolved(id)?;
            let ty = self.table.get(id)?;
            match ty.kind {
                TypeKind::Pointer { to } | TypeKind::Reference { to } => id = to?,
                TypeKind::Array { element, .. } => id = element?,
                _ => return ty.name.as_deref(),
            }
        }
        None
    }
}
