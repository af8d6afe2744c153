//! One server for a long time: updated, reverted and updated again under load, with its tool killed or not.
//!
//! ```text
//! server   `tests/soak/server.c` in three versions, with all bundles between them
//! clients  connections that check each answer and its version, and how long each took
//! latency  counts of durations, and their percentiles
//! rounds   minutes of updates and reverts: memory and latency stay as they were
//! kills    SIGKILL of dsu-apply and its guardian at random instants and in the commit
//! ```
//!
//! Versions 1 and 2 differ in functions that return soon: an update between them can be reverted from what the
//! process holds. Version 3 also differs in the loop that no thread ever leaves: its frames are carried
//! over by bundles.

pub mod clients;
pub mod kills;
pub mod latency;
pub mod rounds;
pub mod server;
