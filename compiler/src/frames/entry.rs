//! What is equal when OLD's function and NEW's are called alike: callee-saved registers, and each
//! parameter by its name, wherever the two signatures put it (psABI 3.2.3).
//!
//! Never by the place alone: a parameter that NEW inserts moves those behind it (FEASIBILITY section
//! 2.1). Where the places of parameters are not known, nothing is said of argument registers.

use super::value::Place;
use crate::debug::{self, Local, Locals, Register};
use crate::image::{Function, Image};
use std::collections::BTreeMap;

/// rdi, rsi, rdx, rcx, r8, r9.
const ARGUMENTS: [u8; 6] = [7, 6, 2, 1, 8, 9];

/// Which place of OLD's entry holds what a place of NEW's entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Both take all arguments alike, those on the stack too.
    same: bool,
    /// NEW's place to OLD's, for argument registers.
    by_name: BTreeMap<Place, Place>,
    /// NEW takes no number of vector arguments in rax: what is there means nothing.
    rax_is_idle: bool,
}

/// Where one parameter is passed: a name, a size, and registers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parameter {
    name: String,
    size: Option<u64>,
    places: Vec<Place>,
}

impl Entry {
    /// Compares two functions' signatures.
    #[must_use]
    pub fn new(old: (&Image, &Function, &Locals), new: (&Image, &Function, &Locals)) -> Self {
        let (Some((a, a_more)), Some((b, b_more))) = (parameters(old), parameters(new)) else {
            return Self { same: false, by_name: BTreeMap::new(), rax_is_idle: false };
        };
        let (cloned, clones) = (is_clone(old.0, old.1), is_clone(new.0, new.1));
        let (clone, rax_is_idle) = (cloned || clones, !b_more && !clones);
        if a == b && a_more == b_more && !clone {
            return Self { same: true, by_name: BTreeMap::new(), rax_is_idle };
        }
        let mut by_name = BTreeMap::new();
        for parameter in &b {
            let mut alike =
                a.iter().filter(|p| p.name == parameter.name && p.size == parameter.size);
            let (Some(found), None) = (alike.next(), alike.next()) else { continue };
            if found.places.len() == parameter.places.len() {
                by_name.extend(parameter.places.iter().copied().zip(found.places.iter().copied()));
            }
        }
        Self { same: false, by_name, rax_is_idle }
    }

    /// Whether what a place holds at NEW's entry is nothing that any code means to read (psABI 3.2.3: rax tells
    /// variadic functions how many vector registers hold arguments, and others nothing).
    #[must_use]
    pub fn is_idle(&self, place: Place) -> bool {
        place == Place::General(0) && self.rax_is_idle
    }

    /// The place of OLD's entry with the same content.
    #[must_use]
    pub fn counterpart(&self, place: Place) -> Option<Place> {
        match place {
            _ if self.same => Some(place),
            Place::General(n) if ARGUMENTS.contains(&n) => self.by_name.get(&place).copied(),
            Place::Lane(0..=7, _) => self.by_name.get(&place).copied(),
            Place::Slot(at, _) if at >= 0 => None,
            _ => Some(place),
        }
    }
}

/// Compilers give such functions signatures of their own: gcc says so in the name, clang turns the
/// arguments of local functions into others without telling (argument promotion).
fn is_clone(image: &Image, function: &Function) -> bool {
    if function.local && image.unit_of(function).is_none_or(|unit| unit.is_clang) {
        return true;
    }
    [".isra", ".constprop", ".part", ".specialized"].iter().any(|s| function.name().contains(s))
}

/// The parameters in order, and whether there may be others.
fn parameters(of: (&Image, &Function, &Locals)) -> Option<(Vec<Parameter>, bool)> {
    let (image, function, locals) = of;
    let mut formal: Vec<&Local> = locals
        .variables
        .iter()
        .filter(|l| l.parameter.is_some() && l.scope.len() <= 1 && !l.name.is_empty())
        .collect();
    formal.sort_by_key(|l| l.parameter);
    formal.dedup_by_key(|l| l.parameter);
    if is_clone(image, function) {
        return Some((formal.iter().filter_map(|l| at_entry(function, l)).collect(), false));
    }
    let declared = image.declared(function)?.parameters?;
    let mut out = Vec::new();
    // A hidden pointer to a result in memory comes first.
    let own = passed(image, &formal)?;
    let hidden = usize::from(declared.integer).checked_sub(usize::from(own.integer))?;
    let mut before = debug::Parameters::default();
    for end in 1..=formal.len() {
        let now = passed(image, &formal[..end])?;
        let general = (before.integer..now.integer)
            .filter_map(|i| ARGUMENTS.get(hidden + usize::from(i)).map(|n| Place::General(*n)));
        let vector = (before.sse..now.sse).map(|i| Place::Lane(i, 0));
        let local = formal[end - 1];
        out.push(Parameter {
            name: local.name.clone(),
            size: local.size,
            places: general.chain(vector).collect(),
        });
        before = now;
    }
    if hidden > 0 {
        let places = vec![Place::General(ARGUMENTS[0])];
        out.push(Parameter { name: String::new(), size: Some(8), places });
    }
    Some((out, declared.variadic))
}

/// How the types of some parameters are passed, the result aside.
fn passed(image: &Image, formal: &[&Local]) -> Option<debug::Parameters> {
    let types: Option<Vec<_>> = formal.iter().map(|l| l.ty).collect();
    image.debug.passing(&types?)
}

/// A parameter of a clone: in the register in which the debug information has it at the entry. A
/// place without ranges says nothing of the entry.
fn at_entry(function: &Function, local: &Local) -> Option<Parameter> {
    if local.is_whole_scope {
        return None;
    }
    let (range, place) = local.entry_at(function.address)?;
    let place = match place {
        debug::LocalPlace::Register(Register::General(n)) => Place::General(*n),
        debug::LocalPlace::Register(Register::Vector(n)) => Place::Lane(*n, 0),
        _ => return None,
    };
    (range.start == function.address).then(|| Parameter {
        name: local.name.clone(),
        size: local.size,
        places: vec![place],
    })
}
