//! End-to-end tests of `dsu-build` and `dsu-apply` on other people's programs.
//!
//! ```text
//! cargo run --release -p dsu-tests --bin real-programs -- [--only KEY,..] [--repeat N] [--mutations N] [--live N]
//! cargo run --release -p dsu-tests --bin comparison    -- [--only KEY,..] [--mutations N]
//! cargo run --release -p dsu-tests --bin torture       -- [--exhaustive] [--program P] [--pair A:B] [--step K]
//!                                                         [--seed S] [--csmith N] [--seconds T]
//! cargo run --release -p dsu-tests --bin coverage      -- [--only KEY,..] [--series gcc,clang,unscheduled,nosched,o1] [--step TEXT]
//! cargo run --release -p dsu-tests --bin soak          -- [--minutes N] [--seconds N] [--kills N]
//! ```
//!
//! The first ends with the second, which is there to run that part alone. Both fetch Debian source
//! packages by name, build them plainly, and keep everything under `target/corpus`, so that a second run neither fetches nor builds. Nothing of it is committed.
//! As root they install by apt what the builds need; else they say what is missing and how to get it.
//! Each ends with a table and a line `N passed, N failed`, and exits 1 when anything failed. What
//! could not be had (a version that the mirror has deleted) is listed by name and never counted as passed.
//!
//! ```text
//! tests/threads  64 threads that hold locks in functions that never return, updated there and back
//! tests/small    coroutines, frames pending over several updates, longjmp, exceptions, gdb, perf
//! ```
//!
//! ```text
//! corpus/    recipe -> sources (private apt directory) -> quilt ladder -> target/corpus/KEY/steps/NN-PATCH/
//! climb      one running process up a ladder: dsu-build k -> k+1, dsu-apply, oracles, under load
//! scenario/  how each program is started, loaded and questioned
//! live/      functions that never leave the stack, changed and updated back and forth
//! repeat     the same updates at random moments of the load, a fresh process each time
//! comparison/  the same source twice, shuffled, and mutated one byte at a time
//! coverage/  how many call sites of changed functions can be carried over, and what stands against the others
//! soak/      one server updated and reverted for minutes, and its tool killed at random instants
//! torture/   small and random programs updated after their k-th instruction
//! tool, entries, process, load   the two programs under test; entry redirects; /proc; client threads
//! ```

pub mod clients;
pub mod climb;
pub mod comparison;
pub mod corpus;
pub mod coverage;
pub mod entries;
pub mod live;
pub mod load;
pub mod process;
pub mod repeat;
pub mod report;
pub mod scenario;
pub mod soak;
pub mod tool;
pub mod torture;
pub mod workspace;
