//! Program points of OLD and their counterparts in NEW.
//!
//! Takes both bodies of a replaced function as graphs; gives which block of OLD is which of NEW
//! ([`matching`]), and where OLD's code may be left alone for a moment ([`passages`]). Nothing here is a proof: a pair of blocks is a guess where two executions are at
//! the same place, and what holds there is for the simulation relation to show.

pub mod matching;
pub mod passages;
