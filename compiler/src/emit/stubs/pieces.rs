//! A translation taken apart: what has to be written, in pieces that one or two instructions carry,
//! and a register to carry them through.
//!
//! Refuses translations that contradict themselves.

use super::code::{Code, Leaf, Place, RAX, RCX, RSP};
use super::{MAX_FRAME, RED_ZONE, Unencodable, refuse};
use dsu_patch_format::frames::{Binary, Location, Move, Translation, Value};

/// Slots are copied by straight-line code.
const MAX_SLOT: u32 = 4096;
/// Deeper expressions are somebody's mistake.
const MAX_NESTING: u32 = 64;
/// Registers that a call may change (psABI 3.2.1): when no move names one, nobody misses it.
const VOLATILE: [u8; 9] = [RAX, RCX, 2, 6, 7, 8, 9, 10, 11];

/// Where a piece goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dest {
    /// A general register.
    General(u8),
    /// A vector register.
    Vector(u8),
    /// Memory; `Place::Frame` always.
    Memory(Place),
}

/// Where a piece comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A general register.
    General(u8),
    /// A vector register.
    Vector(u8),
    /// Memory.
    Memory(Place),
    /// One instruction makes it.
    Leaf(Leaf),
}

/// A part of a move.
///
/// | to      | from                    | bytes                      |
/// |---------|-------------------------|----------------------------|
/// | general | anything                | 1, 2, 4, 8                 |
/// | vector  | vector, memory, leaf    | 4, 8, 16, 32, 64           |
/// | vector  | general                 | 4, 8                       |
/// | memory  | general, memory, leaf   | 1, 2, 4, 8                 |
/// | memory  | vector                  | 4, 8, 16, 32, 64           |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub to: Dest,
    pub from: Source,
    pub bytes: u32,
}

impl Piece {
    /// Writes it; `temp` may be used when [`Piece::uses_temp`].
    pub(super) fn write(&self, code: &mut Code, temp: u8) -> Result<(), Unencodable> {
        let bytes = self.bytes;
        match (self.to, self.from) {
            (Dest::General(to), Source::General(from)) => code.copy(to, from, bytes),
            (Dest::General(to), Source::Vector(from)) => code.general_from_vector(to, from, bytes),
            (Dest::General(to), Source::Memory(from)) => code.load(to, from, bytes),
            (Dest::General(to), Source::Leaf(leaf)) => code.leaf(to, leaf),
            (Dest::Vector(to), Source::General(from)) => code.vector_from_general(to, from, bytes),
            (Dest::Vector(to), Source::Vector(from)) => code.copy_vector(to, from, bytes),
            (Dest::Vector(to), Source::Memory(from)) => code.load_vector(to, from, bytes),
            (Dest::Vector(to), Source::Leaf(leaf)) => {
                code.leaf(temp, leaf)?;
                code.vector_from_general(to, temp, bytes)
            }
            (Dest::Memory(to), Source::General(from)) => code.store(to, from, bytes),
            (Dest::Memory(to), Source::Vector(from)) => code.store_vector(to, from, bytes),
            // More than one stride only when a vector has been parked: nothing overlaps then.
            (Dest::Memory(to), Source::Memory(from)) => copy(code, to, from, bytes, temp),
            (Dest::Memory(to), Source::Leaf(leaf)) => {
                if let Leaf::Constant(value) = leaf
                    && code.store_constant(to, value, bytes)?
                {
                    return Ok(());
                }
                code.leaf(temp, leaf)?;
                code.store(to, temp, bytes)
            }
        }
    }

    /// Copies the source into the scratch area; the piece then comes from there.
    pub(super) fn park(&mut self, code: &mut Code, temp: u8) -> Result<(), Unencodable> {
        let home = code.reserve(self.bytes);
        match self.from {
            Source::Leaf(_) => return Ok(()),
            Source::General(from) => code.store(home, from, 8)?,
            Source::Vector(from) => code.store_vector(home, from, self.bytes.max(4))?,
            Source::Memory(from) => copy(code, home, from, self.bytes, temp)?,
        }
        self.from = Source::Memory(home);
        Ok(())
    }

    /// Bytes of the frame that it reads.
    pub(super) fn reads(&self) -> Option<(i64, i64)> {
        match self.from {
            Source::Memory(Place::Frame(cfa)) => Some((cfa, cfa + i64::from(self.bytes))),
            _ => None,
        }
    }

    /// Bytes of the frame that it writes.
    pub(super) fn writes(&self) -> Option<(i64, i64)> {
        match self.to {
            Dest::Memory(Place::Frame(cfa)) => Some((cfa, cfa + i64::from(self.bytes))),
            _ => None,
        }
    }
}

/// Memory to memory by way of a register.
fn copy(code: &mut Code, to: Place, from: Place, bytes: u32, temp: u8) -> Result<(), Unencodable> {
    for (offset, bytes) in strides(bytes) {
        code.load(temp, from.offset(offset), bytes)?;
        code.store(to.offset(offset), temp, bytes)?;
    }
    Ok(())
}

/// `0..bytes` in strides of 8, 4, 2, 1.
pub(super) fn strides(bytes: u32) -> impl Iterator<Item = (u64, u32)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = bytes - done;
        let stride = [8, 4, 2, 1].into_iter().find(|s| *s <= left)?;
        let offset = u64::from(done);
        done += stride;
        Some((offset, stride))
    })
}

/// A translation that does not contradict itself.
pub(super) struct Problem<'a> {
    /// Moves that are not there already.
    pub moves: Vec<&'a Move>,
    /// A general register to carry values through.
    pub temp: u8,
    /// Somebody reads what OLD has in it.
    pub temp_read: bool,
    /// Somebody reads what OLD has in rcx.
    pub rcx_read: bool,
    /// There is a shift by a count that is not a constant: it takes rcx.
    pub counts: bool,
    /// There is arithmetic, and the flags go through.
    pub keep_flags: bool,
    /// The general registers that are named by moves that need nothing.
    pub identities: Vec<u8>,
}

impl<'a> Problem<'a> {
    /// Takes a translation apart.
    pub(super) fn new(translation: &'a Translation) -> Result<Self, Unencodable> {
        for depth in [translation.old_depth, translation.new_depth] {
            if !(8..=MAX_FRAME).contains(&depth) {
                return refuse(format!("a frame of {depth} bytes"));
            }
        }
        for each in &translation.moves {
            check_destination(translation, each)?;
            check_source(translation, each)?;
        }
        disjoint(translation)?;
        let (same, moves): (Vec<&Move>, Vec<&Move>) =
            translation.moves.iter().partition(|m| is_identity(m));
        let mut arithmetic = Arithmetic::default();
        for each in &moves {
            arithmetic.of(&each.from);
        }
        let mut read = [false; 16];
        translation.moves.iter().for_each(|m| registers_read(&m.from, &mut read));
        let keep_flags = translation.flags && arithmetic.any;
        let reads = |number: u8| read.get(usize::from(number)).copied().unwrap_or(true);
        let named = |number: u8| {
            let written =
                |m: &Move| matches!(m.to, Location::General { number: n, .. } if n == number);
            reads(number) || translation.moves.iter().any(written)
        };
        // lahf and sahf insist on rax, shifts on cl.
        let candidates = || {
            let all = if keep_flags { &VOLATILE[..1] } else { &VOLATILE[..] };
            all.iter().copied().filter(|r| *r != RCX || !arithmetic.counts)
        };
        let temp = candidates()
            .find(|r| !named(*r))
            .or_else(|| candidates().find(|r| !reads(*r)))
            .unwrap_or(RAX);
        let identities = same.iter().filter_map(|m| match m.to {
            Location::General { number, .. } => Some(number),
            _ => None,
        });
        Ok(Self {
            temp,
            temp_read: reads(temp),
            rcx_read: reads(RCX),
            counts: arithmetic.counts,
            keep_flags,
            identities: identities.collect(),
            moves,
        })
    }

    /// Whether something is written below the stack pointer at CFA - `depth`.
    pub(super) fn writes_below(&self, depth: u64) -> bool {
        self.moves.iter().any(|m| match m.to {
            Location::Slot { cfa, .. } => cfa < -depth.cast_signed(),
            _ => false,
        })
    }
}

/// Whether OLD has the value in NEW's place already.
fn is_identity(each: &Move) -> bool {
    match (each.to, &each.from) {
        (Location::General { number: to, .. }, Value::At(Location::General { number, .. }))
        | (Location::Vector { number: to, .. }, Value::At(Location::Vector { number, .. })) => {
            to == *number
        }
        (Location::Slot { cfa: to, .. }, Value::At(Location::Slot { cfa, .. })) => to == *cfa,
        _ => false,
    }
}

/// Bytes of a location.
pub(super) fn size(location: Location) -> u32 {
    match location {
        Location::General { bytes, .. } | Location::Vector { bytes, .. } => bytes.into(),
        Location::Slot { bytes, .. } => bytes,
    }
}

fn check_place(location: Location, lowest: i64) -> Result<(), Unencodable> {
    let right = match location {
        Location::General { number, bytes } => {
            number < 16 && number != RSP && [1, 2, 4, 8].contains(&bytes)
        }
        Location::Vector { number, bytes } => number < 32 && [4, 8, 16, 32, 64].contains(&bytes),
        Location::Slot { cfa, bytes } => {
            let highest = MAX_FRAME.cast_signed() - i64::from(bytes);
            bytes > 0 && lowest <= cfa && cfa <= highest
        }
    };
    if right { Ok(()) } else { refuse(format!("{location:?} is no place of this frame")) }
}

fn check_destination(translation: &Translation, each: &Move) -> Result<(), Unencodable> {
    check_place(each.to, -(translation.new_depth + RED_ZONE).cast_signed())?;
    let Location::Slot { cfa, bytes } = each.to else { return Ok(()) };
    if is_identity(each) {
        return Ok(());
    }
    if bytes > MAX_SLOT {
        return refuse(format!("a slot of {bytes} bytes at CFA{cfa:+} that moves"));
    }
    let end = cfa + i64::from(bytes);
    let meets = |from: i64, to: i64| cfa < to && from < end;
    if meets(-8, 0) {
        return refuse(format!("the slot at CFA{cfa:+} covers the return address"));
    }
    match translation.objects.iter().find(|(from, to)| meets(*from, *to)) {
        Some((from, to)) => {
            refuse(format!("the slot at CFA{cfa:+} covers the object at CFA{from:+} to {to:+}"))
        }
        None => Ok(()),
    }
}

fn check_source(translation: &Translation, each: &Move) -> Result<(), Unencodable> {
    let needs = match each.from {
        Value::At(_) => size(each.to),
        // What is made has 8 bytes, above them zeroes.
        _ => size(each.to).min(8),
    };
    check_value(&each.from, needs, -(translation.old_depth + RED_ZONE).cast_signed(), 0)
}

/// Whether a value has the low bytes that are needed of it.
fn check_value(value: &Value, needs: u32, lowest: i64, nesting: u32) -> Result<(), Unencodable> {
    if nesting > MAX_NESTING {
        return refuse("an expression too deep");
    }
    let inner = |value: &Value, needs| check_value(value, needs, lowest, nesting + 1);
    match value {
        Value::At(location) => {
            check_place(*location, lowest)?;
            if size(*location) < needs {
                return refuse(format!("{needs} bytes wanted of {location:?}"));
            }
            Ok(())
        }
        Value::Constant(_) | Value::Address { .. } | Value::Canary => Ok(()),
        Value::Frame(cfa) if cfa.unsigned_abs() > MAX_FRAME => {
            refuse(format!("CFA{cfa:+} as an address"))
        }
        Value::Frame(_) => Ok(()),
        Value::Binary { op, bytes, left, right } => {
            if ![4, 8].contains(bytes) {
                return refuse(format!("arithmetic on {bytes} bytes"));
            }
            inner(left, (*bytes).into())?;
            // The count's low bits are all that counts.
            inner(right, if is_shift(*op) { 1 } else { (*bytes).into() })
        }
        Value::ZeroExtend { from, value } => {
            if ![1, 2, 4].contains(from) {
                return refuse(format!("an extension from {from} bytes"));
            }
            inner(value, (*from).into())
        }
        Value::SignExtend { from, to, value } => {
            if ![1, 2, 4].contains(from) || ![4, 8].contains(to) {
                return refuse(format!("an extension from {from} to {to} bytes"));
            }
            inner(value, (*from).into())
        }
    }
}

/// No two destinations overlap.
fn disjoint(translation: &Translation) -> Result<(), Unencodable> {
    let mut spans: Vec<(u8, i64, i64)> = translation
        .moves
        .iter()
        .map(|m| match m.to {
            Location::General { number, .. } => (0, i64::from(number), i64::from(number) + 1),
            Location::Vector { number, .. } => (1, i64::from(number), i64::from(number) + 1),
            Location::Slot { cfa, bytes } => (2, cfa, cfa + i64::from(bytes)),
        })
        .collect();
    spans.sort_unstable();
    match spans.windows(2).find(|w| w[0].0 == w[1].0 && w[1].1 < w[0].2) {
        Some(pair) => {
            let what = ["general registers", "vector registers", "slots"];
            let what = what.get(usize::from(pair[0].0)).copied().unwrap_or_default();
            refuse(format!("{what} at {} and {} overlap as destinations", pair[0].1, pair[1].1))
        }
        None => Ok(()),
    }
}

pub(super) fn is_shift(op: Binary) -> bool {
    matches!(op, Binary::Shl | Binary::Shr | Binary::Sar)
}

#[derive(Default)]
struct Arithmetic {
    any: bool,
    counts: bool,
}

impl Arithmetic {
    fn of(&mut self, value: &Value) {
        match value {
            Value::Binary { op, left, right, .. } => {
                self.any = true;
                self.counts |= is_shift(*op) && !matches!(**right, Value::Constant(_));
                self.of(left);
                self.of(right);
            }
            Value::ZeroExtend { value, .. } | Value::SignExtend { value, .. } => self.of(value),
            _ => {}
        }
    }
}

fn registers_read(value: &Value, read: &mut [bool; 16]) {
    match value {
        Value::At(Location::General { number, .. }) => {
            if let Some(flag) = read.get_mut(usize::from(*number)) {
                *flag = true;
            }
        }
        Value::Binary { left, right, .. } => {
            registers_read(left, read);
            registers_read(right, read);
        }
        Value::ZeroExtend { value, .. } | Value::SignExtend { value, .. } => {
            registers_read(value, read);
        }
        _ => {}
    }
}
