//! Tables: that they are well formed, and that the state in which a stub ends is theirs.

use super::symbolic::{Limits, RED_ZONE, State};
use super::word::{Byte, Term, Terms, known};
use super::{Finding, Rule};
use dsu_patch_format::frames::{Binary, Location, Translation, Value};
use dsu_patch_format::plan::{Plan, SiteKind};

/// Frames deeper than this are not carried over.
const DEEPEST: u64 = 1 << 24;
/// Arithmetic nested deeper than this is not read.
const NESTING: u32 = 64;

/// Where a location lies, for messages.
pub(super) fn name(place: &Location) -> String {
    match place {
        Location::General { number, bytes } => format!("{} ({bytes} bytes)", general_name(*number)),
        Location::Vector { number, bytes } => format!("xmm{number} ({bytes} bytes)"),
        Location::Slot { cfa, bytes } => format!("CFA{cfa:+} ({bytes} bytes)"),
    }
}

/// A source in words.
pub(super) fn source(value: &Value) -> String {
    match value {
        Value::At(place) => name(place),
        Value::Constant(number) => format!("{number:#x}"),
        Value::Frame(offset) => format!("the address CFA{offset:+}"),
        Value::Canary => "the stack protector's canary".to_owned(),
        Value::Address { .. } => "an address of the program".to_owned(),
        _ => "a computed value".to_owned(),
    }
}

/// A general register's name.
pub(super) fn general_name(number: u8) -> &'static str {
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    NAMES.get(usize::from(number)).copied().unwrap_or("no register")
}

/// Bytes of a location.
pub(super) fn bytes(place: &Location) -> u32 {
    match *place {
        Location::General { bytes, .. } | Location::Vector { bytes, .. } => u32::from(bytes),
        Location::Slot { bytes, .. } => bytes,
    }
}

/// The extent of a slot, `[start, end)`.
fn extent(cfa: i64, bytes: u32) -> (i64, i64) {
    (cfa, cfa.saturating_add(i64::from(bytes)))
}

/// Depths as offsets.
pub(super) fn depths(translation: &Translation) -> Option<(i64, i64)> {
    let depth = |d: u64| Some(d).filter(|d| (8..DEEPEST).contains(d)).map(u64::cast_signed);
    Some((depth(translation.old_depth)?, depth(translation.new_depth)?))
}

/// Everything below this offset is not OLD's any more when a frame goes on at a site: the red zone
/// is there only for a frame that is on top.
pub(super) fn lost_below(kind: SiteKind, old_depth: i64) -> i64 {
    match kind {
        SiteKind::Return | SiteKind::LandingPad => -old_depth,
        SiteKind::Loop | SiteKind::Point => -old_depth - RED_ZONE,
    }
}

/// That destinations and objects are places of NEW's frame, and disjoint.
pub(super) fn well_formed(translation: &Translation) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut object = |what: String| out.push(Finding::new(Rule::Table, what));
    let Some((_, new_depth)) = depths(translation) else {
        object("a depth is out of bounds".to_owned());
        return out;
    };
    let floor = -new_depth - RED_ZONE;
    for step in &translation.moves {
        if let Err(what) = destination(&step.to, &step.from, floor) {
            object(format!("the destination {} {what}", name(&step.to)));
        }
    }
    for pair in translation.moves.windows(2) {
        if pair[0].to >= pair[1].to || overlap(&pair[0].to, &pair[1].to) {
            let (a, b) = (name(&pair[0].to), name(&pair[1].to));
            object(format!("the destinations {a} and {b} overlap or are not in order"));
        }
    }
    let mut before = floor;
    for &(start, end) in &translation.objects {
        if start < before || end <= start || end > -8 {
            object(format!("the object at CFA{start:+} to CFA{end:+} is not in the frame"));
        }
        before = end;
        for step in &translation.moves {
            if let Location::Slot { cfa, bytes } = step.to
                && cfa < end
                && extent(cfa, bytes).1 > start
            {
                object(format!("{} is in the object at CFA{start:+}", name(&step.to)));
            }
        }
    }
    out
}

fn destination(to: &Location, from: &Value, floor: i64) -> Result<(), &'static str> {
    match *to {
        Location::General { number: 4, .. } => Err("is rsp"),
        Location::General { number, bytes } if number < 16 && matches!(bytes, 1 | 2 | 4 | 8) => {
            Ok(())
        }
        Location::Vector { number, bytes }
            if number < 32 && matches!(bytes, 4 | 8 | 16 | 32 | 64) =>
        {
            Ok(())
        }
        Location::Slot { cfa, bytes } if bytes > 0 => {
            let (start, end) = extent(cfa, bytes);
            // The caller's frame stays as it is; saying so is no harm.
            let stays = cfa >= 0 && *from == Value::At(*to);
            match start >= floor && (end <= -8 || stays) {
                true => Ok(()),
                false => Err("is not in the frame"),
            }
        }
        _ => Err("does not exist"),
    }
}

fn overlap(a: &Location, b: &Location) -> bool {
    match (a, b) {
        (Location::General { number: m, .. }, Location::General { number: n, .. })
        | (Location::Vector { number: m, .. }, Location::Vector { number: n, .. }) => m == n,
        (Location::Slot { cfa: a, bytes: n }, Location::Slot { cfa: b, bytes: m }) => {
            let (a, b) = (extent(*a, *n), extent(*b, *m));
            a.0 < b.1 && b.0 < a.1
        }
        _ => false,
    }
}

/// What the stub may do, by its table.
pub(super) fn limits<'p>(plan: &'p Plan, translation: &'p Translation) -> Limits<'p> {
    let widest = translation.moves.iter().map(|m| widest(&m.to).max(source_width(&m.from, 0)));
    Limits { plan, objects: &translation.objects, widest: widest.max().unwrap_or(0) }
}

/// Bytes of the vector registers that a location needs the processor to have.
fn widest(place: &Location) -> u8 {
    match *place {
        // Only AVX-512 has them.
        Location::Vector { number: 16.., .. } => 64,
        Location::Vector { bytes, .. } if bytes > 16 => bytes,
        _ => 0,
    }
}

fn source_width(value: &Value, nesting: u32) -> u8 {
    match value {
        Value::At(place) => widest(place),
        _ if nesting > NESTING => 0,
        Value::Binary { left, right, .. } => {
            source_width(left, nesting + 1).max(source_width(right, nesting + 1))
        }
        Value::ZeroExtend { value, .. } | Value::SignExtend { value, .. } => {
            source_width(value, nesting + 1)
        }
        _ => 0,
    }
}

/// A value in OLD's state.
struct Initial<'t> {
    terms: &'t mut Terms,
    old_depth: i64,
    lost: i64,
}

impl Initial<'_> {
    /// The first bytes of a value.
    fn value(&mut self, value: &Value, bytes: usize) -> Result<Vec<Byte>, String> {
        let mut out = self.word(value, 0)?;
        if let Value::At(place) = value {
            if out.len() < bytes {
                return Err(format!("the source {} is narrower than its place", name(place)));
            }
            out.truncate(bytes);
        }
        out.resize(bytes, Byte::Known(0));
        Ok(out)
    }

    fn word(&mut self, value: &Value, nesting: u32) -> Result<Vec<Byte>, String> {
        if nesting > NESTING {
            return Err("arithmetic is nested too deep".to_owned());
        }
        Ok(match value {
            Value::At(place) => self.place(place)?,
            Value::Constant(number) => known(*number, 8),
            Value::Address { target, addend } => self.terms.thing(*target, *addend),
            Value::Frame(offset) => self.terms.bytes(Term::Frame(*offset), 8),
            Value::Canary => self.terms.bytes(Term::Canary, 8),
            Value::Binary { op, bytes, left, right } => {
                if !matches!(bytes, 4 | 8) {
                    return Err(format!("arithmetic on {bytes} bytes"));
                }
                let left = self.operand(left, *bytes, nesting)?;
                // Of a shift count the processor takes the low byte.
                let shift = matches!(op, Binary::Shl | Binary::Shr | Binary::Sar);
                let right = self.operand(right, if shift { 1 } else { *bytes }, nesting)?;
                self.terms.binary(*op, &left, &right)
            }
            Value::ZeroExtend { from, value } => {
                if !matches!(from, 1 | 2 | 4) {
                    return Err(format!("an extension of {from} bytes"));
                }
                self.operand(value, *from, nesting)?
            }
            Value::SignExtend { from, to, value } => {
                if !matches!((from, to), (1 | 2, 4 | 8) | (4, 8)) {
                    return Err(format!("an extension of {from} to {to} bytes"));
                }
                let mut out = self.operand(value, *from, nesting)?;
                let top = out.last().copied().unwrap_or(Byte::Known(0));
                let sign = self.terms.sign(top);
                out.resize(usize::from(*to), sign);
                out
            }
        })
    }

    /// So many low bytes of an operand.
    fn operand(&mut self, value: &Value, bytes: u8, nesting: u32) -> Result<Vec<Byte>, String> {
        let mut out = self.word(value, nesting + 1)?;
        let bytes = usize::from(bytes);
        if out.len() < bytes && matches!(value, Value::At(_)) {
            return Err("an operand is narrower than its operation".to_owned());
        }
        out.resize(bytes, Byte::Known(0));
        Ok(out)
    }

    fn place(&mut self, place: &Location) -> Result<Vec<Byte>, String> {
        match *place {
            Location::General { number: 4, bytes } if bytes <= 8 => {
                let top = self.terms.bytes(Term::Frame(-self.old_depth), 8);
                Ok(top[..usize::from(bytes)].to_vec())
            }
            Location::General { number, bytes } if number < 16 && (1..=8).contains(&bytes) => {
                Ok(self.terms.bytes(Term::General(number), bytes))
            }
            Location::Vector { number, bytes } if number < 32 && (1..=64).contains(&bytes) => {
                Ok(self.terms.bytes(Term::Vector(number), bytes))
            }
            Location::Slot { cfa, bytes } if bytes > 0 && u64::from(bytes) < DEEPEST => {
                if cfa < self.lost {
                    return Err(format!("the source {} is below OLD's frame", name(place)));
                }
                let offsets = (0..i64::from(bytes)).map(|i| cfa.saturating_add(i));
                Ok(offsets.map(|at| self.terms.byte(Term::Stack(at))).collect())
            }
            _ => Err(format!("the source {} does not exist", name(place))),
        }
    }
}

/// That the state at the end of a stub is what the table says.
pub(super) fn compare(
    state: &mut State<'_>,
    translation: &Translation,
    kind: SiteKind,
) -> Vec<Finding> {
    let mut out = Vec::new();
    let Some((old_depth, new_depth)) = depths(translation) else { return out };
    let lost = lost_below(kind, old_depth);
    match state.stack_pointer() {
        Some(top) if top == -new_depth => {}
        top => {
            let what = format!("rsp ends at CFA{:+}, not CFA-{new_depth}", top.unwrap_or(0));
            out.push(Finding::new(Rule::StackPointer, what));
        }
    }
    if translation.flags && !state.flags_kept() {
        out.push(Finding::new(Rule::Flags, "the flags are lost"));
    }
    for step in &translation.moves {
        let count = bytes(&step.to) as usize;
        let mut initial = Initial { terms: &mut state.terms, old_depth, lost };
        let expected = match initial.value(&step.from, count) {
            Ok(expected) => expected,
            Err(what) => {
                out.push(Finding::new(Rule::Table, format!("{}: {what}", name(&step.to))));
                continue;
            }
        };
        let found = ended(state, &step.to);
        if found.as_deref() != Some(&expected) {
            let first = found.iter().flatten().zip(&expected).position(|(a, b)| a != b);
            let what = format!(
                "{} does not hold {} from byte {} on",
                name(&step.to),
                source(&step.from),
                first.unwrap_or(0)
            );
            out.push(Finding::new(Rule::Move, what));
        }
    }
    out
}

/// What a location holds at the end.
fn ended(state: &mut State<'_>, place: &Location) -> Option<Vec<Byte>> {
    match *place {
        Location::General { number, bytes } => {
            state.general(number).get(..usize::from(bytes)).map(<[Byte]>::to_vec)
        }
        Location::Vector { number, bytes } => {
            state.vector(number).get(..usize::from(bytes)).map(<[Byte]>::to_vec)
        }
        Location::Slot { cfa, bytes } => {
            let offsets = (0..i64::from(bytes)).map(|i| cfa.saturating_add(i));
            Some(offsets.map(|at| state.stack(at)).collect())
        }
    }
}
