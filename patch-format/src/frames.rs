//! Frame translations: what each stub does, as data that can be read and checked (DESIGN 3.6, 5).
//!
//! One [`Translation`] belongs to one [`crate::plan::Site`], by index. It speaks of one frame, at one
//! moment: the processor is about to execute the OLD instruction at the site, and shall be about to
//! execute the NEW one at [`crate::plan::Site::to`] instead. The canonical frame address (CFA, DWARF 5
//! section 6.4: the caller's stack pointer before the call) is the same on both sides: the return
//! address stays where it is, what differs lies below. (Where NEW's frame stands lower, see below, it has one more.)
//!
//! ```text
//!   CFA + k, k >= 0    the caller's frame: arguments on the stack
//!   CFA - 8            return address: the same for both, never a destination
//!   CFA + k, k < -8    this frame's slots, named by k: in OLD's layout for sources,
//!                      in NEW's for destinations
//!   CFA - old_depth    the stack pointer at the site
//!   CFA - new_depth    the stack pointer at its counterpart
//! ```
//!
//! Where an object whose address is taken lies nearer to the CFA in NEW's layout than in OLD's, it keeps its
//! address all the same if NEW's frame stands lower by that much ([`Translation::lowered`], a multiple of
//! 16 as psABI 3.2.2 wants the stack pointer): as if OLD's frame had called NEW's function, from code that
//! takes the rest of OLD's frame away and returns, too. Everything here still counts from OLD's CFA:
//!
//! ```text
//!   CFA - 8              OLD's return address, as it was
//!   CFA - lowered        what NEW's body and its unwinding rows call the CFA
//!   CFA - lowered - 8    its return address: `lea rsp, [rsp + lowered - 8]; ret` in the shadow image
//! ```
//!
//! Where the objects lie anywhere else in NEW's layout, the frame goes on in a copy of NEW's function
//! ([`crate::plan::Copied`]), whose displacements lead to them: to OLD's frame, above the copy's CFA, which stands lower
//! than all of them. Whatever is no such object is where NEW's function has it, from that CFA:
//!
//! ```text
//!   CFA - 8              OLD's return address, as it was
//!   CFA + old ...        objects, where they were
//!   CFA - lowered - 8    the copy's return address, as above
//!   below                everything else of NEW's frame
//! ```
//!
//! All sources are read in OLD's state before any destination is written, and are what OLD's code may still read itself
//! (or what its unwinding rows name): a frame that an earlier update has carried to the site was given no more.
//!
//! A location that no move names has an arbitrary value afterwards, but for: memory from the CFA up, memory outside the
//! frame, escaped objects ([`Translation::objects`]), the flags when [`Translation::flags`] says so,
//! `mxcsr`, the x87 control word, segment bases.

use crate::plan::Target;
use serde::{Deserialize, Deserializer, Serialize};
use std::cell::Cell;

/// Values nest at most this deep: what reads, checks or drops one may recurse.
pub const MAX_DEPTH: usize = 64;

/// How one frame is carried over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Translation {
    /// CFA minus stack pointer at the OLD site, in bytes.
    pub old_depth: u64,
    /// CFA minus stack pointer at the NEW counterpart, in bytes.
    pub new_depth: u64,
    /// OLD's CFA minus that of NEW's body, in bytes. Nearly always 0.
    pub lowered: u64,
    /// The status flags are live in NEW and equal in OLD: they go through.
    pub flags: bool,
    /// Every location that NEW may read before writing it, with its source. Also those that need no
    /// instruction, because OLD has the same value in the same place. Sorted by destination, no two
    /// destinations overlapping.
    pub moves: Vec<Move>,
    /// Objects on the stack whose address may be known outside the frame: they stay where they are,
    /// `[start, end)` relative to the CFA, ascending. No move writes into them, the new frame has
    /// them at the same place.
    pub objects: Vec<(i64, i64)>,
}

/// One location and where its value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// In NEW.
    pub to: Location,
    /// In OLD.
    pub from: Value,
    /// Why that is right.
    pub proof: Proof,
}

/// A place for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Location {
    /// The low bytes of a general register, by the processor's number (SDM volume 2, table 3-1: rax 0,
    /// rcx 1, rdx 2, rbx 3, rsp 4, rbp 5, rsi 6, rdi 7, r8 to r15). Never rsp.
    General {
        /// 0 to 15.
        number: u8,
        /// 1, 2, 4 or 8.
        bytes: u8,
    },
    /// The low bytes of a vector register.
    Vector {
        /// 0 to 31.
        number: u8,
        /// 4, 8, 16, 32 or 64.
        bytes: u8,
    },
    /// Memory at CFA + `cfa`.
    Slot {
        /// Offset from the CFA, negative inside the frame.
        cfa: i64,
        /// Any positive number.
        bytes: u32,
    },
}

/// How a value is had from OLD's state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Value {
    /// What is in a place of OLD. At least as many bytes as the destination takes; its low ones
    /// count.
    At(Location),
    /// A number.
    Constant(u64),
    /// The address of a thing, plus an addend.
    Address {
        /// Of what.
        target: Target,
        /// Added to it.
        addend: i64,
    },
    /// CFA + offset.
    Frame(i64),
    /// The stack protector's canary, `%fs:0x28` (psABI 3.5.4 reserves the block).
    Canary,
    /// Arithmetic on two values of `bytes`; the result has `bytes`, above them zeroes.
    Binary {
        /// What is done.
        op: Binary,
        /// 4 or 8.
        bytes: u8,
        /// First operand.
        #[serde(deserialize_with = "nested")]
        left: Box<Value>,
        /// Second operand.
        #[serde(deserialize_with = "nested")]
        right: Box<Value>,
    },
    /// The low `from` bytes, extended with zeroes to 8.
    ZeroExtend {
        /// 1, 2 or 4.
        from: u8,
        /// What is extended.
        #[serde(deserialize_with = "nested")]
        value: Box<Value>,
    },
    /// The low `from` bytes, extended with their sign to `to`, above them zeroes.
    SignExtend {
        /// 1, 2 or 4.
        from: u8,
        /// 4 or 8.
        to: u8,
        /// What is extended.
        #[serde(deserialize_with = "nested")]
        value: Box<Value>,
    },
}

/// Arithmetic that stubs can do. Shift counts are taken modulo the width in bits (SDM volume 2, SAL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Binary {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Low half of the product.
    Mul,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// Shift left.
    Shl,
    /// Shift right, zeroes come in.
    Shr,
    /// Shift right, the sign comes in.
    Sar,
}

/// Why a source is the right one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// The simulation relation between the two bodies: both compute it alike on every path.
    Equal,
    /// The debug information says that this variable is in both places.
    Variable(String),
    /// Both, agreeing.
    EqualVariable(String),
    /// It can be made again: a constant, an address, arithmetic over values that have a source.
    Remade,
    /// The caller's value of a callee-saved register, by the unwind tables of both sides.
    CalleeSaved,
    /// The result of the call that the site follows.
    Result,
    /// A local that only NEW has, with the constant that NEW gives it before its outermost loop; the
    /// user allowed it.
    NewLocal(String),
    /// Where a frame returns to that stands lower ([`Translation::lowered`]).
    Lowered,
}

thread_local! {
    /// How deep the value that is being read lies in others.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Reads a value inside another one. Formats like postcard recurse as deep as the bytes say: here is
/// where that ends.
fn nested<'de, D: Deserializer<'de>>(from: D) -> Result<Box<Value>, D::Error> {
    struct Deeper;
    impl Drop for Deeper {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    let _deeper = Deeper;
    if DEPTH.get() >= MAX_DEPTH {
        return Err(serde::de::Error::custom("a value nests too deep"));
    }
    Box::deserialize(from)
}
