//! The part of a bundle that the transaction follows. Stored as postcard.
//!
//! Addresses are as linked; apply turns them into addresses of the process:
//!
//! ```text
//! process(NewAddr a)        = a + bias                        the shadow image, one constant
//! process(OldAddr a)        = a + load bias                   first update of a process
//! process(OldAddr a)        = run(a).delta + a                later ones, by the record's address map
//! identity(OldAddr entry)   = the first version's entry       what pointers to the function hold
//! ```

use crate::validate::{NEAR_JUMP, SHORT_JUMP};
use crate::{NewAddr, OldAddr};
use serde::{Deserialize, Serialize};

/// What apply maps, writes, redirects and records.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Linked extent of OLD's loaded segments, `[start, end)`.
    pub old_start: OldAddr,
    /// See [`Plan::old_start`].
    pub old_end: OldAddr,
    /// The shadow image must lie below 2 GiB: code in it holds 32-bit absolute addresses
    /// (non-PIE executables).
    pub low_2gib: bool,
    /// Parts of the shadow image, ascending, disjoint, no two protections on one page.
    pub segments: Vec<Segment>,
    /// Operands and pointers inside the segments, ascending by place.
    pub fixups: Vec<Fixup>,
    /// Symbols that NEW imports and OLD does not.
    pub imports: Vec<Import>,
    /// Jumps written at OLD entries at commit.
    pub redirects: Vec<Redirect>,
    /// Data overwritten at commit, in place.
    pub writes: Vec<DataWrite>,
    /// OLD code in which no thread may be at commit, ascending, disjoint.
    pub blind: Vec<BlindRange>,
    /// Points in the blind ranges that are checkpoints all the same: frames there are carried over.
    /// Ascending by [`Site::at`]. [`crate::Bundle::frames`] has the translation of each, by index.
    pub sites: Vec<Site>,
    /// Addresses in (or at the end of) the blind ranges to which nobody ever returns: behind a call that does
    /// not return (`noreturn`), or the end where no call is before it. No frame goes on there. Ascending.
    pub dead_returns: Vec<OldAddr>,
    /// Code in the blind ranges that may run on for a moment after the commit. Ascending, disjoint.
    pub passages: Vec<Passage>,
    /// Return addresses in the passages to which nobody is expected to return, for the callee never does as
    /// far as OLD's code shows, and what is known of the way on rests on that: a frame that waits for one is
    /// blind all the same. Ascending.
    pub unexpected_returns: Vec<OldAddr>,
    /// Functions of NEW once more, with objects of their frames elsewhere. Ascending, disjoint.
    pub copies: Vec<Copied>,
    /// Variables of OLD that NEW has elsewhere: place, bytes. Ascending.
    pub left: Vec<(OldAddr, u64)>,
    /// Source positions of the blind ranges, ascending by address, for messages.
    pub lines: Vec<LineRow>,
    /// File names that [`LineRow::file`] indexes.
    pub files: Vec<String>,
    /// Where NEW's addresses are in the process afterwards, ascending, disjoint (DESIGN 7.5).
    pub map: Vec<MapRun>,
    /// Functions of NEW whose identity is not where their code is: entry in NEW, entry in OLD.
    /// Ascending by NEW entry.
    pub identities: Vec<Identity>,
    /// Frames of the shadow image's functions, ascending and disjoint: what the next update unwinds them
    /// by. Where there is no row, it cannot, and looks at every word of the stack instead.
    pub unwind: Vec<UnwindRow>,
}

/// What holds before each instruction of `[start, start + len)`. The return address is at `CFA - 8`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnwindRow {
    /// First instruction.
    pub start: NewAddr,
    /// Bytes.
    pub len: u32,
    /// The CFA: a register, by the processor's number, plus an offset.
    pub cfa: (u8, i32),
    /// Registers by the processor's number, and the offset from the CFA of the slot that holds the caller's
    /// value.
    pub saved: Vec<(u8, i32)>,
}

/// A piece of the shadow image at `bias + start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// First byte.
    pub start: NewAddr,
    /// Content before fix-ups.
    pub bytes: Vec<u8>,
    /// Zero bytes that follow (new variables without initial value).
    pub zeroes: u64,
    /// How its pages are mapped.
    pub protection: Protection,
}

/// Page protection of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protection {
    /// `r-x`: code.
    Text,
    /// `r--`: constants, tables, GOT slots of the shadow image.
    ReadOnly,
    /// `rw-`: new variables.
    Data,
}

/// One place in a segment whose value depends on where things are in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixup {
    /// First byte of the field.
    pub at: NewAddr,
    /// Form of the field (S, A, P as in the System V psABI, section 4.4).
    pub kind: FixupKind,
    /// A, added to the target.
    pub addend: i64,
    /// S.
    pub target: Target,
}

/// Form of a fixed-up field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FixupKind {
    /// 4 bytes, `S + A - P`, must fit 32 bits signed.
    Rel32,
    /// 8 bytes, `S + A`.
    Abs64,
    /// 4 bytes, `S + A`, must be the same zero- or sign-extended: `0 <= S + A < 2^31`.
    Abs32,
}

/// What a fix-up refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    /// A kept variable, table, GOT slot or PLT entry of OLD.
    Old(OldAddr),
    /// The code of an OLD function as a call target: where it runs now.
    OldCode(OldAddr),
    /// The address of an OLD function as a value: its identity.
    OldIdentity(OldAddr),
    /// A place in the shadow image.
    New(NewAddr),
    /// [`Plan::imports`] by index.
    Import(u32),
}

/// A symbol to be found in the libraries that the process has loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Name in the dynamic symbol table.
    pub name: String,
    /// Version required, if any (`GLIBC_2.34`).
    pub version: Option<String>,
    /// Resolves to 0 when absent.
    pub weak: bool,
}

/// A jump at an OLD function's entry to its NEW body. All flags and registers are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// OLD entry.
    pub entry: OldAddr,
    /// Where the jump is written: the entry, or behind its `endbr64`.
    pub at: OldAddr,
    /// Form of the jump.
    pub form: RedirectForm,
    /// NEW entry, in the shadow image.
    pub to: NewAddr,
    /// Bytes that OLD has from [`Redirect::entry`] on, for the check that the text is as built.
    pub expect: Vec<u8>,
    /// Of [`Redirect::expect`], same length: 0xff where the byte must be equal, 0 where an operand
    /// may have been fixed up by an earlier update.
    pub mask: Vec<u8>,
}

/// How a redirect jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedirectForm {
    /// `jmp rel32` (5 bytes) to the NEW entry.
    Near,
    /// `jmp rel8` (2 bytes) to `cave`, where a `jmp rel32` goes on; for functions shorter than
    /// five bytes with the next one right behind. The cave is padding between functions.
    Short {
        /// Five bytes of padding within reach.
        cave: OldAddr,
    },
}

/// Bytes of OLD's data replaced at commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataWrite {
    /// First byte.
    pub at: OldAddr,
    /// New content before fix-ups.
    pub bytes: Vec<u8>,
    /// Pointers in it; `offset` counts from `at`, all [`FixupKind::Abs64`].
    pub pointers: Vec<DataPointer>,
}

/// An 8-byte pointer inside a [`DataWrite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPointer {
    /// Bytes from the start of the write.
    pub offset: u64,
    /// Added to the target.
    pub addend: i64,
    /// What it points to.
    pub target: Target,
}

/// OLD code of a replaced function, `[start, end)`.
///
/// A program counter `pc` is blind when `start <= pc < end` and `pc` is not in `free`. A return
/// address `ra` is blind when `start < ra <= end`: the call it follows lies before it, also when
/// the call is the last instruction (psABI 3.2.1: calls push the address of the next instruction).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlindRange {
    /// First byte.
    pub start: OldAddr,
    /// Past the last byte.
    pub end: OldAddr,
    /// Program counters inside at which the whole function is still to be run: its entry, and the
    /// place of the redirect behind an `endbr64`.
    pub free: Vec<OldAddr>,
    /// [`crate::Manifest::replaced`] by index.
    pub function: u32,
}

/// A checkpoint site: an OLD program point from which a frame goes on in NEW (DESIGN section 2).
///
/// After commit the text at [`Site::at`] holds a jump to the stub. A frame may be suspended there in
/// any way: its callee will return there, the thread's program counter is there, or a signal
/// interrupted it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// The program point.
    pub at: OldAddr,
    /// What sort of point it is.
    pub kind: SiteKind,
    /// How the planted jump reaches the stub.
    pub form: RedirectForm,
    /// First byte of the stub, in a text segment of the shadow image behind NEW's own.
    pub stub: NewAddr,
    /// Bytes of the stub, its last instruction (a jump to [`Site::to`]) included.
    pub stub_len: u32,
    /// The counterpart in NEW.
    pub to: NewAddr,
    /// [`crate::Manifest::replaced`] by index.
    pub function: u32,
    /// Bytes that OLD has where the jump is planted (5, or 2 for a short one), for the check that the
    /// text is as built.
    pub expect: Vec<u8>,
    /// Of [`Site::expect`], same length: 0xff where the byte must be equal, 0 where an operand may
    /// have been fixed up by an earlier update.
    pub mask: Vec<u8>,
}

/// OLD code of a replaced function, `[start, end)`, that a frame may run on in after the commit: every way
/// through it ends, without a loop and within a bounded number of instructions and calls, at a site of
/// its function or with the function's return. Nothing is planted in it.
///
/// A program counter `pc` and a return address `ra` are in it when `start <= pc < end`: a return address
/// is that of the next instruction, which is what matters here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// First byte.
    pub start: OldAddr,
    /// Past the last byte.
    pub end: OldAddr,
    /// [`crate::Manifest::replaced`] by index.
    pub function: u32,
    /// The sites that it leads to, [`Plan::sites`] by index, ascending.
    pub exits: Vec<u32>,
    /// What its code names on the way there: functions that it calls, variables, tables; ascending. A
    /// later update that changes one of them must not find a frame here.
    pub names: Vec<OldAddr>,
}

/// A function of NEW once more, behind NEW's own code: instruction by instruction the same, but for where objects of
/// its frame are. For frames of OLD whose objects lie elsewhere than NEW has them, and cannot be moved, for their
/// addresses are known. Nobody calls it; frames go on in it, below OLD's ([`crate::Translation::lowered`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// First byte.
    pub start: NewAddr,
    /// Bytes; the last one is never executed.
    pub len: u32,
    /// The entry of the function that it is one of.
    pub of: NewAddr,
    /// Bytes of stack between OLD's CFA and that of the copy.
    pub lowered: u64,
    /// The objects, ascending by their place in the function, disjoint.
    pub objects: Vec<MovedObject>,
}

/// An object on the stack that a copy of its function has elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedObject {
    /// Where the function has it, as an offset from its CFA.
    pub start: i64,
    /// Past its end.
    pub end: i64,
    /// Where it begins in the frame of OLD, as an offset from OLD's CFA.
    pub old: i64,
}

impl Plan {
    /// The copy of a function that holds an address.
    #[must_use]
    pub fn copy_at(&self, at: NewAddr) -> Option<&Copied> {
        let after = self.copies.partition_point(|copy| copy.start <= at);
        self.copies.get(after.checked_sub(1)?).filter(|copy| copy.contains(at))
    }
}

impl MovedObject {
    /// How far its place is from the function's in the frame of the copy, which stands `lowered` bytes lower than OLD's.
    #[must_use]
    pub fn shift(&self, lowered: u64) -> i64 {
        self.old.saturating_add_unsigned(lowered).saturating_sub(self.start)
    }

    /// Where it ends in the frame of OLD.
    #[must_use]
    pub fn old_end(&self) -> i64 {
        self.old.saturating_add(self.end.saturating_sub(self.start))
    }
}

impl Copied {
    /// Past its last byte.
    #[must_use]
    pub fn end(&self) -> NewAddr {
        self.start.offset(self.len.into())
    }

    /// Whether it holds an address.
    #[must_use]
    pub fn contains(&self, at: NewAddr) -> bool {
        at.0.wrapping_sub(self.start.0) < u64::from(self.len)
    }
}

impl RedirectForm {
    /// Bytes written where it jumps from.
    #[must_use]
    pub fn jump_len(self) -> u64 {
        match self {
            Self::Near => NEAR_JUMP,
            Self::Short { .. } => SHORT_JUMP,
        }
    }

    /// The cave that it goes through.
    #[must_use]
    pub fn cave(self) -> Option<OldAddr> {
        match self {
            Self::Near => None,
            Self::Short { cave } => Some(cave),
        }
    }
}

/// What sort of program point a site is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteKind {
    /// Behind a call.
    Return,
    /// The head of a loop.
    Loop,
    /// Where an exception lands.
    LandingPad,
    /// Any other aligned point.
    Point,
}

/// Source position from `start` up to the next row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRow {
    /// First address.
    pub start: OldAddr,
    /// [`Plan::files`] by index.
    pub file: u32,
    /// 0 when the compiler names none.
    pub line: u32,
}

/// A run of addresses of NEW and where they are in the process once the bundle is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRun {
    /// First address of the run, in NEW.
    pub start: NewAddr,
    /// Bytes.
    pub len: u64,
    /// Where it is.
    pub to: MapTarget,
}

/// Where a [`MapRun`] leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MapTarget {
    /// Kept: where OLD has it.
    Old(OldAddr),
    /// In the shadow image, at the same address plus the bias.
    Shadow,
}

/// A function whose pointers hold another address than that of its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Entry in NEW.
    pub new: NewAddr,
    /// Entry in OLD.
    pub old: OldAddr,
}
