//! Named aggregates that two images lay out differently, whether or not a variable has their type:
//! objects of them may be in the heap.
//!
//! Takes: two images. Decides: which type of OLD is which of NEW, where a name has several layouts
//! (each unit may have its own): by unit and declaring file. Gives: [`TypeChange`]s, by name. Types
//! that only one image has are no changes.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::DebugInfo;
use super::compare::{LayoutComparer, LayoutDifference};
use super::layout::LayoutId;
use super::members;
use super::reach::Reach;
use super::types::{AggregateKind, Member, TypeId, TypeKind, TypeTable};

/// The most users that are named for one type.
const USERS_LIMIT: usize = 5;

/// Why a type changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeCause {
    /// Its own members.
    Own,
    /// Only because it holds these changed types by value.
    Contains(Vec<String>),
}

/// A type that both images have, with different layouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeChange {
    /// Its name.
    pub name: String,
    /// What it is, in NEW.
    pub kind: AggregateKind,
    /// The type in OLD.
    pub old: TypeId,
    /// The type in NEW.
    pub new: TypeId,
    /// Bytes in OLD.
    pub old_size: Option<u64>,
    /// Bytes in NEW.
    pub new_size: Option<u64>,
    /// Why.
    pub cause: ChangeCause,
    /// Where, notes included.
    pub differences: Vec<LayoutDifference>,
    /// Some pointer or reference of either image points to it, or to something that holds it by
    /// value: objects of it may live in the heap.
    pub reached_by_pointer: bool,
    /// Functions and static variables that name it or pointers to it, at most five.
    pub users: Vec<String>,
}

/// The types of one name.
type ByName<'t> = BTreeMap<&'t str, Vec<TypeId>>;

/// Finds all changed types.
pub fn changed_types(old: &DebugInfo, new: &DebugInfo) -> Vec<TypeChange> {
    let mut finder = Finder { old, new, comparer: LayoutComparer::new(old, new) };
    let (old_names, new_names) = (by_name(&old.types), by_name(&new.types));
    let mut changes = Vec::new();
    for (name, old_ids) in &old_names {
        let Some(new_ids) = new_names.get(name) else {
            continue;
        };
        for (from, to) in finder.pairs(old_ids, new_ids) {
            changes.extend(finder.change(name, from, to));
        }
    }
    add_users(&mut changes, old, new);
    changes
}

fn by_name(table: &TypeTable) -> ByName<'_> {
    let mut names = ByName::new();
    for (id, ty) in table.iter() {
        if let (TypeKind::Aggregate { complete: true, .. }, Some(name)) = (&ty.kind, &ty.name) {
            names.entry(name).or_default().push(id);
        }
    }
    names
}

/// Where a type is: the unit's name, and the file it is declared in.
type Home<'t> = (&'t str, &'t str);

struct Finder<'t> {
    old: &'t DebugInfo,
    new: &'t DebugInfo,
    comparer: LayoutComparer<'t>,
}

impl<'t> Finder<'t> {
    /// The types of one name that differ, each with what became of it; one pair for each pair of
    /// layouts.
    fn pairs(&mut self, old: &[TypeId], new: &[TypeId]) -> Vec<(TypeId, TypeId)> {
        let old: Vec<(LayoutId, TypeId)> =
            old.iter().map(|&id| (self.comparer.old_layout(Some(id)), id)).collect();
        let new: Vec<(LayoutId, TypeId)> =
            new.iter().map(|&id| (self.comparer.new_layout(Some(id)), id)).collect();
        let layouts = |ids: &[(LayoutId, TypeId)]| -> BTreeSet<LayoutId> {
            ids.iter().map(|(layout, _)| *layout).collect()
        };
        let (old_layouts, new_layouts) = (layouts(&old), layouts(&new));
        if old_layouts.len() == 1 && old_layouts == new_layouts {
            return Vec::new();
        }
        let (old_homes, new_homes) = (homes(self.old, &old), homes(self.new, &new));
        let mut seen = HashSet::new();
        let mut pairs = Vec::new();
        let mut add = |(from, old): (LayoutId, TypeId), (to, new): (LayoutId, TypeId)| {
            if seen.insert((from, to)) {
                pairs.push(((from, old), (to, new)));
            }
        };
        for (home, old_here) in &old_homes {
            let Some(new_here) = new_homes.get(home) else {
                continue;
            };
            for (from, to) in unequal(old_here, new_here) {
                add(from, to);
            }
        }
        // What no unit of both images tells: its unit was renamed, or names the type no longer.
        let is_left = |side: &BTreeSet<LayoutId>, used: Vec<LayoutId>| {
            let other = side.clone();
            move |entry: &&(LayoutId, TypeId)| !other.contains(&entry.0) && !used.contains(&entry.0)
        };
        let used_old = pairs.iter().map(|((from, _), _)| *from).collect();
        let used_new = pairs.iter().map(|(_, (to, _))| *to).collect();
        let old_left: Vec<_> =
            old.iter().filter(is_left(&new_layouts, used_old)).copied().collect();
        let new_left: Vec<_> =
            new.iter().filter(is_left(&old_layouts, used_new)).copied().collect();
        pairs.extend(unequal(&old_left, &new_left));
        pairs.into_iter().map(|((_, from), (_, to))| (from, to)).collect()
    }

    fn change(&mut self, name: &str, old: TypeId, new: TypeId) -> Option<TypeChange> {
        let layout = self.comparer.compare(name, old, new);
        if !layout.is_changed() {
            return None;
        }
        let (from, to) = (self.old.types.get(old)?, self.new.types.get(new)?);
        let TypeKind::Aggregate { kind, .. } = to.kind else {
            return None;
        };
        Some(TypeChange {
            name: name.to_owned(),
            kind,
            old,
            new,
            old_size: from.byte_size,
            new_size: to.byte_size,
            cause: self.cause(old, new),
            differences: layout.differences().to_vec(),
            reached_by_pointer: false,
            users: Vec::new(),
        })
    }

    /// Whether a type changed only as what it holds did: the same members in the same order, and
    /// each of them as it was or itself of a changed type with a name.
    fn cause(&mut self, old: TypeId, new: TypeId) -> ChangeCause {
        let (old_members, new_members) =
            (members_of(&self.old.types, old), members_of(&self.new.types, new));
        let names = |members: &'t [Member]| members.iter().map(|member| &member.name);
        let mut held = Vec::new();
        if !names(old_members).eq(names(new_members)) {
            return ChangeCause::Own;
        }
        for pair in members::pair(&mut self.comparer, old_members, new_members) {
            let (Some(from), Some(to)) = pair else {
                return ChangeCause::Own;
            };
            if from.bit_size != to.bit_size {
                return ChangeCause::Own;
            }
            if self.comparer.old_layout(from.ty) == self.comparer.new_layout(to.ty) {
                continue;
            }
            match (held_name(&self.old.types, from.ty), held_name(&self.new.types, to.ty)) {
                (Some(from), Some(to)) if from == to => held.push(from.0.to_owned()),
                _ => return ChangeCause::Own,
            }
        }
        held.sort();
        held.dedup();
        if held.is_empty() { ChangeCause::Own } else { ChangeCause::Contains(held) }
    }
}

/// The layouts that one side alone has, in order, each with one of the other side's. The last is
/// repeated where the sides have different numbers of them.
fn unequal(
    old: &[(LayoutId, TypeId)],
    new: &[(LayoutId, TypeId)],
) -> Vec<((LayoutId, TypeId), (LayoutId, TypeId))> {
    let lacks = |side: &[(LayoutId, TypeId)], layout| side.iter().all(|(l, _)| *l != layout);
    let old_own: Vec<_> = old.iter().filter(|(layout, _)| lacks(new, *layout)).collect();
    let new_own: Vec<_> = new.iter().filter(|(layout, _)| lacks(old, *layout)).collect();
    let (Some(last_old), Some(last_new)) = (old_own.last(), new_own.last()) else {
        return Vec::new();
    };
    let count = old_own.len().max(new_own.len());
    (0..count)
        .map(|i| (**old_own.get(i).unwrap_or(last_old), **new_own.get(i).unwrap_or(last_new)))
        .collect()
}

fn homes<'t>(
    image: &'t DebugInfo,
    ids: &[(LayoutId, TypeId)],
) -> BTreeMap<Home<'t>, Vec<(LayoutId, TypeId)>> {
    let mut homes: BTreeMap<Home<'t>, Vec<(LayoutId, TypeId)>> = BTreeMap::new();
    for entry in ids {
        let Some(ty) = image.types.get(entry.1) else {
            continue;
        };
        let file = ty.decl_file.map_or("", |file| image.lines.file(file));
        for unit in &ty.units {
            let unit = image.units.get(unit.0 as usize).map_or("", |unit| unit.name.as_str());
            homes.entry((unit, file)).or_default().push(*entry);
        }
    }
    let line = |entry: &(LayoutId, TypeId)| image.types.get(entry.1).map(|ty| ty.decl_line);
    for entries in homes.values_mut() {
        entries.sort_by_key(|entry| (line(entry), entry.1));
    }
    homes
}

fn members_of(table: &TypeTable, id: TypeId) -> &[Member] {
    match table.get(id).map(|ty| &ty.kind) {
        Some(TypeKind::Aggregate { members, .. }) => members,
        _ => &[],
    }
}

/// The name of the aggregate that a member holds, and how many of it.
fn held_name(table: &TypeTable, id: Option<TypeId>) -> Option<(&str, Vec<Option<u64>>)> {
    let mut id = table.resolved(id?)?;
    let mut lengths = Vec::new();
    for _ in 0..super::types::CHAIN_LIMIT {
        let ty = table.get(id)?;
        match &ty.kind {
            TypeKind::Array { element, dimensions, .. } => {
                lengths.extend(dimensions);
                id = table.resolved((*element)?)?;
            }
            TypeKind::Aggregate { .. } => return Some((ty.name.as_deref()?, lengths)),
            _ => return None,
        }
    }
    None
}

fn add_users(changes: &mut [TypeChange], old: &DebugInfo, new: &DebugInfo) {
    if changes.is_empty() {
        return;
    }
    let (old_reach, new_reach) = (Reach::of(&old.types), Reach::of(&new.types));
    let (old_users, new_users) = (old_reach.users(old), new_reach.users(new));
    for change in changes {
        change.reached_by_pointer =
            old_reach.by_pointer(change.old) || new_reach.by_pointer(change.new);
        let of_old = old_users.get(change.name.as_str()).into_iter().flatten();
        let of_new = new_users.get(change.name.as_str()).into_iter().flatten();
        let users: BTreeSet<&str> = of_old.chain(of_new).copied().collect();
        change.users = users.into_iter().take(USERS_LIMIT).map(str::to_owned).collect();
    }
}
