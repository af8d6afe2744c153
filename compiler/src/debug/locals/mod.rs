//! Local variables of one function: where each lives, and when.
//!
//! Takes: the debug information of an image again, at the entry of one function; its unwind rows.
//! Decides: what a location expression means in terms of the frame, the registers, or a constant
//! (DWARF 5, section 2.6). Gives: [`Locals`], owned and free of offsets into the input. Refuses:
//! nothing; an expression that is not understood is [`Place::Expression`], and an entry that cannot
//! be decoded ends the function's list with a note in [`Locals::damage`].
//!
//! ```text
//! index (kept from the first reading) -> walk (entries of one function) -> places (expressions)
//!                                          abstracts (what inlined bodies are made from)
//! ```
//!
//! Location lists are large and needed for few functions, so nothing here is read until asked for.

mod abstracts;
mod entry;
mod index;
mod model;
mod places;
mod walk;

pub(super) use index::Index;
pub use model::{Call, Inlined, Local, Locals, Piece, Place, Register, Scope};
pub use places::FrameView;

pub(super) use walk::read;
