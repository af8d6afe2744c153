//! What a function's code may still read, at each of its instructions: the locations that a frame
//! which begins there must have right.

use std::ops::Range;

/// Locations that may be read before they are written, by the byte: what is copied counts as far as the copy
/// does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Live {
    /// General registers by the processor's number (rax 0, rcx 1, rdx 2, rbx 3, rsp 4, rbp 5, rsi 6,
    /// rdi 7, r8 to r15); bit b stands for byte b. rsp is never here.
    pub general: [u8; 16],
    /// Vector registers 0 to 31; bit b stands for byte b.
    pub vector: [u64; 32],
    /// Some status flag.
    pub flags: bool,
    /// Something that is never carried over: a mask register (k0 to k7), a value on the x87 stack, an
    /// MMX register, AMX tiles; named for the report.
    pub other: Option<&'static str>,
    /// Private slots, as offsets from the CFA; sorted, disjoint, not adjacent. Not the return address.
    pub slots: Vec<Range<i64>>,
}

/// An object on the stack whose address is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackObject {
    /// Offsets from the CFA.
    pub extent: Range<i64>,
    /// The variable there, when the debug information knows one.
    pub name: Option<String>,
    /// Its address is used where none of its variables is in scope: something without a name shares the memory.
    pub shared: bool,
    /// For each step: whether the object may hold a value that is read later, by whoever has its
    /// address.
    pub live: Vec<bool>,
}
