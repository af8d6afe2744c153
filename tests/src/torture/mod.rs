//! Exhaustive torture: programs updated after their k-th instruction must end as if nothing had happened.
//!
//! ```text
//! tests/torture/*.c, csmith -> builds  OLD and NEW: same source, other code; or the next version of the source
//!                              moments which program, after how many instructions
//!                              mother  steps through OLD, gives copies of it where they are wanted
//!                              trial   update, a few instructions more, update back, go on (tracee, updating)
//!                              oracle  the output is the undisturbed one, line by line
//!                              tally   applied, refused with reasons, diverged
//! ```
//!
//! A refused update is no failure: then the program must end as OLD. A divergence is; it is printed with the
//! command that repeats it, and run once more with all that dsu-apply says.

pub mod builds;
pub mod moments;
pub mod mother;
pub mod oracle;
pub mod parallel;
pub mod random;
pub mod suite;
pub mod tally;
pub mod tracee;
pub mod trial;
pub mod updating;
pub mod variants;

#[cfg(test)]
mod selftest;
