//! What has to be done before anything of OLD's state is overwritten: registers that the code itself
//! takes are put aside, expressions are computed, odd sizes stored; all into the scratch area.

use super::code::{Code, Leaf, Place, RCX, Right};
use super::operands::immediate;
use super::order::Work;
use super::pieces::{Dest, Piece, Problem, Source, is_shift, size, strides};
use super::{Unencodable, refuse};
use dsu_patch_format::frames::{Binary, Location, Move, Value};

/// Writes the prelude; gives what is left to do.
pub(super) fn write(problem: &Problem<'_>, code: &mut Code) -> Result<Work, Unencodable> {
    let mut work = Work { pieces: Vec::new(), last: None, temp: problem.temp };
    if problem.moves.is_empty() {
        return Ok(work);
    }
    let mut prelude = Prelude { problem, temp_home: None, rcx_home: None };
    if problem.temp_read {
        prelude.temp_home = Some(put_aside(code, problem.temp)?);
    }
    let flags = problem.keep_flags.then(|| code.reserve(8));
    if let Some(home) = flags {
        code.save_flags(home)?;
    }
    if problem.counts && problem.rcx_read && problem.temp != RCX {
        prelude.rcx_home = Some(put_aside(code, RCX)?);
    }
    for each in &problem.moves {
        prelude.pieces(code, each, &mut work.pieces)?;
    }
    if let Some(home) = flags {
        code.restore_flags(home)?;
    }
    if let Some(home) = prelude.rcx_home {
        code.load(RCX, home, 8)?;
    }
    if let Some(home) = prelude.temp_home.filter(|_| problem.identities.contains(&problem.temp)) {
        let (to, from) = (Dest::General(problem.temp), Source::Memory(home));
        work.pieces.push(Piece { to, from, bytes: 8 });
    }
    work.set_last_apart(code)?;
    Ok(work)
}

fn put_aside(code: &mut Code, register: u8) -> Result<Place, Unencodable> {
    let home = code.reserve(8);
    code.store(home, register, 8)?;
    Ok(home)
}

struct Prelude<'a> {
    problem: &'a Problem<'a>,
    /// Where OLD's value of the temporary register is.
    temp_home: Option<Place>,
    /// Where OLD's value of rcx is while the prelude uses it.
    rcx_home: Option<Place>,
}

impl Prelude<'_> {
    /// One move as pieces.
    fn pieces(
        &self,
        code: &mut Code,
        each: &Move,
        out: &mut Vec<Piece>,
    ) -> Result<(), Unencodable> {
        let bytes = size(each.to);
        let from = self.source(code, &each.from, each.to)?;
        match each.to {
            Location::General { number, .. } => {
                out.push(Piece { to: Dest::General(number), from, bytes });
            }
            Location::Vector { number, .. } => {
                out.push(Piece { to: Dest::Vector(number), from, bytes });
            }
            Location::Slot { cfa, .. } => {
                let to = Place::Frame(cfa);
                if matches!(from, Source::General(_) | Source::Vector(_)) {
                    out.push(Piece { to: Dest::Memory(to), from, bytes });
                    return Ok(());
                }
                for (offset, bytes) in strides(bytes) {
                    let to = Dest::Memory(to.offset(offset));
                    let from = part(from, offset);
                    out.push(Piece { to, from, bytes });
                }
            }
        }
        Ok(())
    }

    /// Where a value is to be had from when the moves begin.
    fn source(&self, code: &mut Code, value: &Value, to: Location) -> Result<Source, Unencodable> {
        let slot = matches!(to, Location::Slot { .. });
        let from = match value {
            // rcx is itself again when the moves begin.
            Value::At(Location::General { number, .. }) if *number == self.problem.temp => {
                self.temp_home.map_or(Source::General(*number), Source::Memory)
            }
            Value::At(Location::General { number, .. }) => Source::General(*number),
            Value::At(Location::Vector { number, .. }) => Source::Vector(*number),
            Value::At(Location::Slot { cfa, .. }) => Source::Memory(Place::Frame(*cfa)),
            Value::Constant(_) | Value::Address { .. } | Value::Frame(_) | Value::Canary => {
                Source::Leaf(leaf(value).ok_or_else(|| Unencodable("not a leaf".into()))?)
            }
            _ => return self.compute(code, value, size(to)),
        };
        let storable = match from {
            Source::General(_) => matches!(size(to), 1 | 2 | 4 | 8),
            Source::Vector(_) => matches!(size(to), 4 | 8 | 16 | 32 | 64),
            // Numbers are cut at will.
            Source::Memory(_) | Source::Leaf(Leaf::Constant(_)) => true,
            Source::Leaf(_) => matches!(size(to), 1 | 2 | 4 | 8),
        };
        if !slot || storable {
            return Ok(from);
        }
        match from {
            Source::Leaf(_) => self.compute(code, value, size(to)),
            Source::General(number) => Ok(Source::Memory(match self.home(number) {
                Some(home) => home,
                None => put_aside(code, number)?,
            })),
            Source::Vector(number) => {
                let bytes = size(to).next_power_of_two().clamp(4, 64);
                let home = code.reserve(bytes);
                code.store_vector(home, number, bytes)?;
                Ok(Source::Memory(home))
            }
            Source::Memory(_) => Ok(from),
        }
    }

    /// A value of 8 bytes in the scratch area, with zeroes above.
    fn compute(&self, code: &mut Code, value: &Value, bytes: u32) -> Result<Source, Unencodable> {
        self.evaluate(code, value, bytes.min(8))?;
        let home = code.reserve(bytes.max(8));
        code.store(home, self.problem.temp, 8)?;
        for offset in (8..u64::from(bytes)).step_by(8) {
            code.store_constant(home.offset(offset), 0, 8)?;
        }
        Ok(Source::Memory(home))
    }

    /// A value into the temporary register; what is above the bytes needed has no meaning for
    /// [`Value::At`], and is zero for anything made.
    fn evaluate(&self, code: &mut Code, value: &Value, needs: u32) -> Result<(), Unencodable> {
        let temp = self.problem.temp;
        match value {
            Value::At(location) => self.read(code, *location, needs),
            Value::Binary { op, bytes, left, right } if is_shift(*op) => {
                self.shift(code, *op, (*bytes).into(), left, right)
            }
            Value::Binary { op, bytes, left, right } => {
                let bytes = u32::from(*bytes);
                let right = self.right(code, right, bytes)?;
                self.evaluate(code, left, bytes)?;
                code.operate(*op, bytes, temp, right)
            }
            Value::ZeroExtend { from, value } => {
                self.evaluate(code, value, (*from).into())?;
                code.extend(temp, false, (*from).into(), 8)
            }
            Value::SignExtend { from, to, value } => {
                self.evaluate(code, value, (*from).into())?;
                code.extend(temp, true, (*from).into(), (*to).into())
            }
            _ => match leaf(value) {
                Some(leaf) => code.leaf(temp, leaf),
                None => refuse("a value of no known kind"),
            },
        }
    }

    fn read(&self, code: &mut Code, location: Location, needs: u32) -> Result<(), Unencodable> {
        let temp = self.problem.temp;
        match location {
            Location::Slot { cfa, .. } => code.load(temp, Place::Frame(cfa), needs),
            Location::Vector { number, .. } => code.general_from_vector(temp, number, needs),
            Location::General { number, .. } => match self.home(number) {
                Some(home) => code.load(temp, home, needs),
                None => code.copy(temp, number, needs),
            },
        }
    }

    /// Where a register has been put aside that the prelude itself overwrites.
    fn home(&self, number: u8) -> Option<Place> {
        if number == self.problem.temp {
            self.temp_home
        } else if number == RCX {
            self.rcx_home
        } else {
            None
        }
    }

    /// A second operand, made before the first one takes the temporary register.
    fn right(&self, code: &mut Code, value: &Value, bytes: u32) -> Result<Right, Unencodable> {
        match value {
            Value::Constant(number) => {
                if let Some(number) = immediate(*number, bytes) {
                    return Ok(Right::Immediate(number));
                }
            }
            Value::At(Location::General { number, .. }) => {
                return Ok(self.home(*number).map_or(Right::Register(*number), Right::Memory));
            }
            Value::At(Location::Slot { cfa, .. }) => {
                return Ok(Right::Memory(Place::Frame(*cfa)));
            }
            _ => {}
        }
        Ok(Right::Memory(self.spill(code, value, bytes)?))
    }

    fn spill(&self, code: &mut Code, value: &Value, needs: u32) -> Result<Place, Unencodable> {
        self.evaluate(code, value, needs)?;
        let home = code.reserve(8);
        code.store(home, self.problem.temp, 8)?;
        Ok(home)
    }

    fn shift(
        &self,
        code: &mut Code,
        op: Binary,
        bytes: u32,
        left: &Value,
        count: &Value,
    ) -> Result<(), Unencodable> {
        let temp = self.problem.temp;
        if let Value::Constant(count) = count {
            let count = u8::try_from(count % u64::from(8 * bytes)).unwrap_or(0);
            self.evaluate(code, left, bytes)?;
            return code.shift(op, bytes, temp, Some(count.into()));
        }
        let count = self.spill(code, count, 1)?;
        self.evaluate(code, left, bytes)?;
        code.load(RCX, count, 4)?;
        code.shift(op, bytes, temp, None)
    }
}

fn leaf(value: &Value) -> Option<Leaf> {
    Some(match value {
        Value::Constant(number) => Leaf::Constant(*number),
        Value::Address { target, addend } => Leaf::Address(*target, *addend),
        Value::Frame(cfa) => Leaf::Frame(*cfa),
        Value::Canary => Leaf::Canary,
        _ => return None,
    })
}

/// A source, some bytes further on.
fn part(from: Source, offset: u64) -> Source {
    match from {
        Source::Memory(place) => Source::Memory(place.offset(offset)),
        Source::Leaf(Leaf::Constant(value)) => {
            let bits = u32::try_from(8 * offset).unwrap_or(u32::MAX);
            Source::Leaf(Leaf::Constant(value.checked_shr(bits).unwrap_or(0)))
        }
        other => other,
    }
}
