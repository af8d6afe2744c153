//! Which function or variable of NEW is which of OLD.
//!
//! Takes both images; gives a relation. Names decide first, then, for what shares a name, the
//! translation unit, the scope and the content. Nothing here says whether a pair is equal: that is
//! [`crate::change`]'s. Where two candidates cannot be told apart no pair is made: a function that
//! is called new although it is not costs memory, a wrong pair costs the process.

mod functions;
pub mod names;
mod objects;
pub mod units;

use crate::image::{FunctionId, Image, ObjectId};
use std::collections::{HashMap, HashSet};

/// OLD index to NEW index and back.
#[derive(Debug, Default)]
pub struct Matching {
    /// NEW counterpart of each OLD function.
    new_function: HashMap<FunctionId, FunctionId>,
    /// OLD counterpart of each NEW function: the one whose entry is its identity.
    old_function: HashMap<FunctionId, FunctionId>,
    /// All pairs, also the second and later of a folded function.
    function_pairs: HashSet<(FunctionId, FunctionId)>,
    /// NEW functions that shared one OLD address with another one: see [`Split`].
    pub splits: Vec<Split>,
    new_object: HashMap<ObjectId, ObjectId>,
    old_object: HashMap<ObjectId, ObjectId>,
}

/// One OLD function with several names, which NEW has apart: only its first name's NEW body can be
/// what pointers to the OLD address mean.
#[derive(Debug, Clone)]
pub struct Split {
    /// The one OLD function.
    pub old: FunctionId,
    /// What its address goes on as.
    pub primary: FunctionId,
    /// Another NEW function whose name OLD had at the same address.
    pub other: FunctionId,
}

impl Matching {
    /// Matches everything; `renames` are the user's `OLD=NEW` pairs of function names.
    #[must_use]
    pub fn new(old: &Image, new: &Image, renames: &[(String, String)]) -> Self {
        let mut matching = Self::default();
        objects::pair(old, new, &mut matching);
        functions::pair(old, new, renames, &mut matching);
        matching
    }

    /// The NEW counterpart of an OLD function.
    #[must_use]
    pub fn new_of(&self, old: FunctionId) -> Option<FunctionId> {
        self.new_function.get(&old).copied()
    }

    /// The OLD function whose entry is a NEW function's identity.
    #[must_use]
    pub fn old_of(&self, new: FunctionId) -> Option<FunctionId> {
        self.old_function.get(&new).copied()
    }

    /// Whether the two are the same function.
    #[must_use]
    pub fn is_pair(&self, old: FunctionId, new: FunctionId) -> bool {
        self.function_pairs.contains(&(old, new))
    }

    /// Every pair, ordered.
    #[must_use]
    pub fn function_pairs(&self) -> Vec<(FunctionId, FunctionId)> {
        let mut pairs: Vec<_> = self.function_pairs.iter().copied().collect();
        pairs.sort_unstable();
        pairs
    }

    /// The NEW counterpart of an OLD object.
    #[must_use]
    pub fn new_object(&self, old: ObjectId) -> Option<ObjectId> {
        self.new_object.get(&old).copied()
    }

    /// The OLD counterpart of a NEW object.
    #[must_use]
    pub fn old_object(&self, new: ObjectId) -> Option<ObjectId> {
        self.old_object.get(&new).copied()
    }

    fn add_function(&mut self, old: FunctionId, new: FunctionId) {
        self.new_function.entry(old).or_insert(new);
        self.old_function.entry(new).or_insert(old);
        self.function_pairs.insert((old, new));
    }

    fn add_object(&mut self, old: ObjectId, new: ObjectId) {
        self.new_object.entry(old).or_insert(new);
        self.old_object.entry(new).or_insert(old);
    }
}
