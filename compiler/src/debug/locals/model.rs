//! The plain data that is known of local variables.

use std::ops::Range;

use crate::debug::{FileId, TypeId};
use crate::machine::Layout;

/// A register, by the processor's number. DWARF counts otherwise (System V psABI x86-64, figure
/// 3.36).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Register {
    /// rax 0, rcx 1, rdx 2, rbx 3, rsp 4, rbp 5, rsi 6, rdi 7, r8 to r15.
    General(u8),
    /// xmm0 to xmm31, or the wider register that it is the low part of.
    Vector(u8),
    /// Any other, by DWARF's number.
    Other(u16),
}

impl Register {
    /// From DWARF's number.
    pub fn from_dwarf(number: u16) -> Self {
        const GENERAL: [u8; 8] = [0, 2, 1, 3, 6, 7, 5, 4];
        let low = u8::try_from(number).unwrap_or(u8::MAX);
        match low {
            0..=7 => Self::General(GENERAL[usize::from(low)]),
            8..=15 => Self::General(low),
            17..=32 => Self::Vector(low - 17),
            67..=82 => Self::Vector(low - 67 + 16),
            _ => Self::Other(number),
        }
    }
}

/// Where a variable is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Its bytes are the low ones of a register (or the register's value is its value).
    Register(Register),
    /// In memory at CFA + this.
    Frame(i64),
    /// In memory at an address of the image.
    Address(u64),
    /// It has no place, its value is this: the low bytes count, signed ones are extended.
    Constant(u128),
    /// It has no place, its value is CFA + this.
    FrameAddress(i64),
    /// It has no place, its value is an address of the image.
    AddressValue(u64),
    /// It has no place, its value is that which the register had when the function was entered.
    EntryValue(Register),
    /// In pieces, from its first byte on.
    Pieces(Vec<Piece>),
    /// Something that must be computed, or is elsewhere in memory. With the register, if its value is made by
    /// arithmetic of what one register holds, and of numbers.
    Expression(Option<Register>),
    /// Nowhere.
    OptimizedOut,
}

/// A piece of a variable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Piece {
    /// How many bytes of the variable.
    pub bytes: u64,
    /// Where they are; never [`Place::Pieces`].
    pub place: Place,
}

/// The call that a body was inlined in place of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Call {
    /// Its file.
    pub file: Option<FileId>,
    /// Its line, 0 where unknown.
    pub line: u32,
    /// Its column, 0 where unknown.
    pub column: u32,
    /// Which one it is of the calls of this function that were inlined in the same body, by file,
    /// line and column; counts from 0. Copies of one call are one.
    pub ordinal: u32,
    /// How many those are.
    pub of: u32,
}

/// A body that a variable is in: the function's own, or one inlined into the one before.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Scope {
    /// Whose body: the linkage name, else the name.
    pub function: String,
    /// The call that it stands for; `None` for the function's own.
    pub call: Option<Call>,
    /// The lexical blocks in it, outermost first, around the variable or around the next body: each
    /// the nth of its parent, from 1. As the abstract instance counts, where there is one.
    pub blocks: Vec<u32>,
}

/// A local variable or parameter, of the function or of a body inlined into it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Local {
    /// Its name; empty where it has none.
    pub name: String,
    /// The bodies around it, outermost (the function itself) first.
    pub scope: Vec<Scope>,
    /// Its position among the parameters of the function itself.
    pub parameter: Option<u32>,
    /// Its type.
    pub ty: Option<TypeId>,
    /// Its size, where it is constant.
    pub size: Option<u64>,
    /// The file of its declaration.
    pub decl_file: Option<FileId>,
    /// The line of its declaration, 0 where unknown.
    pub decl_line: u32,
    /// Where it is, by ranges of code, ascending; no two overlap.
    pub places: Vec<(Range<u64>, Place)>,
    /// It has one place for as long as it lives, and the compiler gave no ranges. That says nothing
    /// of the code which puts it there: the prologue's, for a parameter.
    pub is_whole_scope: bool,
    /// The code of the blocks that declare it, ascending.
    pub in_scope: Vec<Range<u64>>,
}

/// One copy of a body inlined into the function.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inlined {
    /// The bodies around, and last this one.
    pub scope: Vec<Scope>,
    /// Its code, ascending.
    pub ranges: Vec<Range<u64>>,
}

/// What is known of a function's local variables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Locals {
    /// All of them, in the order of the debug information: those of outer scopes first.
    pub variables: Vec<Local>,
    /// The bodies inlined into it, outer ones first.
    pub inlined: Vec<Inlined>,
    /// Why the list ends early.
    pub damage: Option<String>,
}

impl Local {
    /// Whether code at an address is in the variable's scope.
    pub fn is_in_scope(&self, pc: u64) -> bool {
        contains(&self.in_scope, pc)
    }

    /// Where the variable is before the instruction at `pc` is executed; `None` where the debug
    /// information says nothing, which means the same as [`Place::OptimizedOut`].
    pub fn place_at(&self, pc: u64) -> Option<&Place> {
        self.entry_at(pc).map(|(_, place)| place)
    }

    /// The entry of [`Local::places`] that holds at `pc`.
    pub fn entry_at(&self, pc: u64) -> Option<&(Range<u64>, Place)> {
        self.places.get(self.entry_index(pc)?)
    }

    /// The index of that entry.
    pub fn entry_index(&self, pc: u64) -> Option<usize> {
        let after = self.places.partition_point(|(range, _)| range.start <= pc);
        after.checked_sub(1).filter(|index| self.places[*index].0.contains(&pc))
    }

    /// Its extent in the frame, if there is one place in memory of the frame where it is whenever
    /// it is in memory at all.
    pub fn extent(&self) -> Option<Range<i64>> {
        let size = i64::try_from(self.size?).ok()?;
        let mut found = None;
        for (_, place) in &self.places {
            let Place::Frame(start) = place else { continue };
            if found.is_some_and(|found| found != *start) {
                return None;
            }
            found = Some(*start);
        }
        let start = found?;
        Some(start..start.checked_add(size)?)
    }
}

impl Place {
    /// The same place of `bytes` bytes in a frame whose objects lie elsewhere.
    fn relaid(&self, bytes: u64, layout: &Layout) -> Self {
        let moved = |at: i64, by: Option<i64>| by.map(|by| at.saturating_add(by));
        match self {
            Self::Frame(at) => {
                let end = at.saturating_add_unsigned(bytes.max(1));
                moved(*at, layout.of_bytes(&(*at..end))).map_or(Self::OptimizedOut, Self::Frame)
            }
            Self::FrameAddress(at) => {
                let place = moved(*at, layout.of_pointer(*at));
                place.map_or(Self::OptimizedOut, Self::FrameAddress)
            }
            Self::Pieces(pieces) => {
                let relaid =
                    |p: &Piece| Piece { bytes: p.bytes, place: p.place.relaid(p.bytes, layout) };
                Self::Pieces(pieces.iter().map(relaid).collect())
            }
            other => other.clone(),
        }
    }

    /// The same place, told from a CFA that is `by` bytes higher.
    fn lowered(&self, by: i64) -> Self {
        match self {
            Self::Frame(at) => Self::Frame(at.saturating_sub(by)),
            Self::FrameAddress(at) => Self::FrameAddress(at.saturating_sub(by)),
            Self::Pieces(pieces) => {
                let lowered = |p: &Piece| Piece { bytes: p.bytes, place: p.place.lowered(by) };
                Self::Pieces(pieces.iter().map(lowered).collect())
            }
            other => other.clone(),
        }
    }
}

impl Locals {
    /// The variables of a frame as seen from a CFA that is `by` bytes higher than its own.
    #[must_use]
    pub fn lowered(&self, by: i64) -> Self {
        let mut lowered = self.clone();
        for (_, place) in lowered.variables.iter_mut().flat_map(|local| &mut local.places) {
            *place = place.lowered(by);
        }
        lowered
    }

    /// The variables of a frame whose objects lie elsewhere.
    #[must_use]
    pub fn relaid(&self, layout: &Layout) -> Self {
        let mut relaid = self.clone();
        for local in &mut relaid.variables {
            let bytes = local.size.unwrap_or(0);
            for (_, place) in &mut local.places {
                *place = place.relaid(bytes, layout);
            }
        }
        relaid
    }

    /// The variables in scope at `pc`, each with its place before the instruction there is
    /// executed; those of inner scopes last.
    pub fn at(&self, pc: u64) -> impl Iterator<Item = (&Local, Option<&Place>)> {
        let found = self.variables.iter().filter(move |local| local.is_in_scope(pc));
        found.map(move |local| (local, local.place_at(pc)))
    }

    /// The bodies that code at `pc` belongs to, the function's own left out: the innermost copy's
    /// scope.
    pub fn inlined_at(&self, pc: u64) -> Option<&Inlined> {
        let holding = self.inlined.iter().filter(|inlined| contains(&inlined.ranges, pc));
        holding.max_by_key(|inlined| inlined.scope.len())
    }

    /// The variable whose memory in the frame holds CFA + `k`: its extent, and its name. With `pc`
    /// only variables in scope there count. Compilers let variables of different scopes share
    /// memory: of several the union of the extents, named after the largest.
    pub fn object_at(&self, k: i64, pc: Option<u64>) -> Option<(Range<i64>, String)> {
        let visible = |local: &&Local| pc.is_none_or(|pc| local.is_in_scope(pc));
        let extents: Vec<(Range<i64>, &Local)> = self
            .variables
            .iter()
            .filter(visible)
            .filter_map(|local| Some((local.extent()?, local)))
            .collect();
        let mut whole = k..k.checked_add(1)?;
        let mut largest: Option<(&Range<i64>, &Local)> = None;
        loop {
            let before = whole.clone();
            for (extent, local) in &extents {
                if extent.start < whole.end && whole.start < extent.end {
                    whole = whole.start.min(extent.start)..whole.end.max(extent.end);
                    let length = |range: &Range<i64>| range.end.saturating_sub(range.start);
                    if largest.is_none_or(|(range, _)| length(range) < length(extent)) {
                        largest = Some((extent, local));
                    }
                }
            }
            if whole == before {
                return largest.map(|(_, local)| (whole, local.name.clone()));
            }
        }
    }
}

fn contains(ranges: &[Range<u64>], pc: u64) -> bool {
    let after = ranges.partition_point(|range| range.start <= pc);
    after.checked_sub(1).is_some_and(|index| ranges[index].contains(&pc))
}
