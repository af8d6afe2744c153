//! Functions that never leave the stack, changed in real servers and updated under load, back and forth.
//!
//! ```text
//! tests/live/KEY/*.patch -> build   -> OLD and NEW, in one directory
//!                           rounds  -> one process, its load, OLD -> NEW -> OLD -> ... 100 times and more
//! redis, memcached, civetweb           which loops, how NEW is told from OLD on a connection opened before
//! ```
//!
//! The patches are changes of this suite's own to the bodies of `main`, event loops and worker
//! threads: a statement, a check, a local, a call moved. NEW counts what its loops do, and answers a
//! question on a connection that was opened before the first update with these numbers: a loop whose number
//! rises runs in its NEW version. A patch that asks for something that cannot be carried over has to be
//! refused, with the variable by name.

pub mod build;
pub mod civetweb;
pub mod memcached;
pub mod redis;
pub mod rounds;

use std::path::Path;

use anyhow::Result;

use crate::load::Client;

/// One change, as patches below `tests/live/KEY`, applied in this order.
#[derive(Debug)]
pub struct Variant {
    /// Its name in the report.
    pub name: &'static str,
    /// The patches, without `.patch`.
    pub patches: &'static [&'static str],
    /// What has to come of it.
    pub expect: Expect,
}

/// What has to come of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Every update is applied.
    Applied,
    /// Refused at the deadline: this function is in the way, and the reason contains this.
    Blocked(&'static str, &'static str),
}

/// The changes that each program has: four that are applied, and one, of this name, that must not be, for
/// NEW has in `function` a `variable` of which no OLD frame has the value.
pub const fn variants(
    refused: &'static str,
    function: &'static str,
    variable: &'static str,
) -> [Variant; 5] {
    const fn applied(name: &'static str, patches: &'static [&'static str]) -> Variant {
        Variant { name, patches, expect: Expect::Applied }
    }
    [
        applied("statements", &["visible", "statements"]),
        applied("checks", &["visible", "checks"]),
        applied("locals", &["visible", "locals"]),
        applied("moved calls", &["visible", "moved"]),
        Variant {
            name: refused,
            patches: &["visible", "refused"],
            expect: Expect::Blocked(function, variable),
        },
    ]
}

/// A program with loops that are changed.
pub trait Loops: Sync {
    /// The changes.
    fn variants(&self) -> &'static [Variant];

    /// The loops that NEW counts, in the order of its answer.
    fn loops(&self) -> &'static [&'static str];

    /// Starts a build.
    fn start(&self, program: &Path) -> Result<Box<dyn Looping>>;
}

/// A running server whose loops are updated.
pub trait Looping {
    /// The process.
    fn pid(&self) -> i32;

    /// Client threads for its load, each of which checks what it is told.
    fn clients(&self) -> Result<Vec<Client>>;

    /// Whether it runs, and nothing beside it complained.
    fn alive(&mut self) -> Result<()>;

    /// Asks on a connection that was opened at the start: NEW gives its numbers, OLD nothing.
    fn ask(&mut self) -> Result<Option<Vec<u64>>>;

    /// Lets the process, which runs NEW, end by itself: frames that have waited since its start return.
    /// Says what they said.
    fn end(self: Box<Self>) -> Result<String>;
}
