//! Which member of OLD's aggregate is which of NEW's.
//!
//! By name; base classes by the name of their type; what is left over by place, if it is of one
//! layout there (it was renamed); anonymous structs and unions by layout, then by order.

use std::collections::HashMap;

use super::compare::LayoutComparer;
use super::layout::LayoutId;
use super::types::{Member, MemberKind, TypeTable};

/// How many members without a counterpart by name are looked at for one: no edit renames more.
const LEFT_OVER_LIMIT: usize = 4096;

/// A member of OLD and its counterpart in NEW; at least one is there.
type Pair<'t> = (Option<&'t Member>, Option<&'t Member>);

/// Pairs the members of two aggregates: those of OLD in their order, then NEW's own.
pub(super) fn pair<'t>(
    comparer: &mut LayoutComparer<'_>,
    old: &'t [Member],
    new: &'t [Member],
) -> Vec<Pair<'t>> {
    let mut matching =
        Matching { old, new, partner: vec![None; old.len()], used: vec![false; new.len()] };
    matching.by_name(comparer.old.table, comparer.new.table);
    let old_layouts: Vec<LayoutId> = old.iter().map(|m| comparer.old_layout(m.ty)).collect();
    let new_layouts: Vec<LayoutId> = new.iter().map(|m| comparer.new_layout(m.ty)).collect();
    let same_layout = |o: usize, n: usize| old_layouts[o] == new_layouts[n];
    // Renamed in place, or anonymous and unchanged.
    matching.rest(|o, n| {
        same_layout(o, n)
            && old[o].bit_offset == new[n].bit_offset
            && old[o].bit_size == new[n].bit_size
            && old[o].name.is_some() == new[n].name.is_some()
    });
    let both_anonymous = |o: usize, n: usize| old[o].name.is_none() && new[n].name.is_none();
    matching.rest(|o, n| both_anonymous(o, n) && same_layout(o, n));
    matching.rest(both_anonymous);
    matching.pairs()
}

struct Matching<'t> {
    old: &'t [Member],
    new: &'t [Member],
    partner: Vec<Option<usize>>,
    used: Vec<bool>,
}

impl<'t> Matching<'t> {
    fn by_name(&mut self, old_table: &TypeTable, new_table: &TypeTable) {
        let mut places: HashMap<(MemberClass, String), usize> = HashMap::new();
        for (index, member) in self.new.iter().enumerate() {
            if let Some(name) = key(new_table, member) {
                places.entry(name).or_insert(index);
            }
        }
        for (index, member) in self.old.iter().enumerate() {
            let found = key(old_table, member).and_then(|name| places.remove(&name));
            self.partner[index] = found;
            if let Some(found) = found {
                self.used[found] = true;
            }
        }
    }

    /// Pairs what is left over and belongs together, each with the first that fits.
    fn rest(&mut self, fits: impl Fn(usize, usize) -> bool) {
        let mut free: Vec<usize> = (0..self.new.len()).filter(|&n| !self.used[n]).collect();
        if free.len() > LEFT_OVER_LIMIT {
            return;
        }
        for old in 0..self.old.len() {
            if free.is_empty() {
                break;
            }
            if self.partner[old].is_some() {
                continue;
            }
            let is_kin = |n: usize| class(&self.old[old]) == class(&self.new[n]);
            if let Some(at) = free.iter().position(|&n| is_kin(n) && fits(old, n)) {
                let new = free.remove(at);
                self.partner[old] = Some(new);
                self.used[new] = true;
            }
        }
    }

    fn pairs(self) -> Vec<Pair<'t>> {
        let of_old = self.old.iter().zip(&self.partner);
        let mut pairs: Vec<Pair<'t>> =
            of_old.map(|(old, new)| (Some(old), new.map(|new| &self.new[new]))).collect();
        let alone = self.new.iter().zip(&self.used).filter(|(_, used)| !**used);
        pairs.extend(alone.map(|(new, _)| (None, Some(new))));
        pairs
    }
}

/// Members of different classes are never one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum MemberClass {
    Field,
    Base,
    Variant,
}

fn class(member: &Member) -> MemberClass {
    match member.kind {
        MemberKind::Field => MemberClass::Field,
        MemberKind::Base | MemberKind::VirtualBase => MemberClass::Base,
        MemberKind::Variant(_) => MemberClass::Variant,
    }
}

fn key(table: &TypeTable, member: &Member) -> Option<(MemberClass, String)> {
    let class = class(member);
    let name = match class {
        MemberClass::Base => Some(table.display(member.ty)),
        MemberClass::Field | MemberClass::Variant => member.name.clone(),
    };
    Some((class, name?))
}
