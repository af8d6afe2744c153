//! What is different.
//!
//! Takes both images and the matching; gives for each pair of functions a [`Verdict`] with reasons.
//! A function is called the same only when each instruction has an equal partner in the same order
//! and each address in it stands for the same thing. Never the other way round: what cannot be
//! resolved is a difference.

mod closure;
mod compare;
mod constants;
mod copies;
mod fingerprint;
mod gaps;
mod lines;
pub mod meaning;
mod target;

pub use closure::{Closure, close};
pub use compare::{Comparison, Verdict, compare_function};
pub(crate) use compare::{
    neutral, thread_local, thread_local_displacement, thread_local_layout_moved,
};
pub use constants::{is_same_text, offset_table, pointers};
pub(crate) use constants::{jump_table, pointer_targets, text_at};
pub use copies::readers_of_copies;
pub use fingerprint::fingerprint;
pub use gaps::is_bound_code;
pub use target::{describe, is_readable_text, same_label, same_slot};

use crate::code::{Body, decode};
use crate::image::{FunctionId, Image};
use crate::matching::Matching;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The two builds and what belongs together in them.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The build that runs.
    pub old: &'a Image,
    /// The build to come.
    pub new: &'a Image,
    /// Who is who.
    pub matching: &'a Matching,
    /// Count functions that differ by their own line numbers alone as changed.
    pub line_numbers: bool,
}

/// Every pair of functions with its comparison, by OLD and NEW index.
pub type Comparisons = BTreeMap<(FunctionId, FunctionId), Comparison>;

/// Compares every pair of functions, in parallel.
#[must_use]
pub fn compare_all(pair: Pair<'_>) -> Comparisons {
    pair.matching
        .function_pairs()
        .into_par_iter()
        .map(|(a, b)| ((a, b), compare_function(pair, a, b)))
        .collect()
}

/// Both bodies of a pair.
pub(crate) fn bodies(pair: Pair<'_>, a: FunctionId, b: FunctionId) -> (Body, Body) {
    (decode(pair.old, pair.old.function(a)), decode(pair.new, pair.new.function(b)))
}

/// Whether two ranges have the same content, pointers resolved.
#[must_use]
pub fn same_content(pair: Pair<'_>, old: std::ops::Range<u64>, new: std::ops::Range<u64>) -> bool {
    target::same_content(pair, old, new, 0)
}
