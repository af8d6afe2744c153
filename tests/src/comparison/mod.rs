//! Is the comparison ever wrong?
//!
//! ```text
//! variants   each program built again from the same source, and with its functions shuffled: nothing to do
//! image      the linked program: functions, objects, references, relocations
//! sites      places where one byte changes the meaning of one function, with what must be reported
//! mutate     100 such changes in copies of the linked program: each found, nothing else reported
//! ```
//!
//! Reads ELF with `object` and decodes with `iced-x86`, by code of its own: nothing of the compiler is used
//! but its command line.

pub mod image;
pub mod mutate;
pub mod sites;
pub mod variants;
