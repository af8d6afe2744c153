//! Translations as text: one move a line, in the notation of the field.
//!
//! ```text
//! depth 40 -> 72, lowered 16, flags
//!   rbx <- [cfa-24]:8 (equal)
//!   [cfa-32]:4 <- r12d (variable `count`)
//!   object cfa-48..cfa-40
//! ```

use crate::frames::{Binary, Location, Move, Proof, Translation, Value};
use crate::plan::Target;
use std::fmt::{Display, Formatter, Result};

/// General registers by number, 8 bytes wide (SDM volume 2, table 3-1).
const GENERAL: [&str; 8] = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"];
/// Their low bytes.
const LOW: [&str; 8] = ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"];

impl Display for Translation {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "depth {} -> {}", self.old_depth, self.new_depth)?;
        if self.lowered > 0 {
            write!(f, ", lowered {}", self.lowered)?;
        }
        if self.flags {
            write!(f, ", flags")?;
        }
        for one in &self.moves {
            write!(f, "\n  {one}")?;
        }
        for (start, end) in &self.objects {
            write!(f, "\n  object cfa{start:+}..cfa{end:+}")?;
        }
        Ok(())
    }
}

impl Display for Move {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} <- {} ({})", self.to, self.from, self.proof)
    }
}

impl Display for Location {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match *self {
            Self::General { number, bytes } => general(f, number, bytes),
            Self::Vector { number, bytes } => match bytes {
                16 => write!(f, "xmm{number}"),
                32 => write!(f, "ymm{number}"),
                64 => write!(f, "zmm{number}"),
                _ => write!(f, "xmm{number}:{bytes}"),
            },
            Self::Slot { cfa, bytes } => write!(f, "[cfa{cfa:+}]:{bytes}"),
        }
    }
}

fn general(f: &mut Formatter<'_>, number: u8, bytes: u8) -> Result {
    let (Some(wide), Some(low)) = (GENERAL.get(usize::from(number)), LOW.get(usize::from(number)))
    else {
        let suffix = ["", "b", "w", "", "d"].get(usize::from(bytes)).copied().unwrap_or("");
        return write!(f, "r{number}{suffix}");
    };
    match bytes {
        1 => write!(f, "{low}"),
        2 => write!(f, "{}", &wide[1..]),
        4 => write!(f, "e{}", &wide[1..]),
        _ => write!(f, "{wide}"),
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::At(location) => write!(f, "{location}"),
            Self::Constant(number) => write!(f, "{number:#x}"),
            Self::Address { target, addend: 0 } => write!(f, "&{target}"),
            Self::Address { target, addend } => write!(f, "&{target}{addend:+}"),
            Self::Frame(offset) => write!(f, "cfa{offset:+}"),
            Self::Canary => write!(f, "canary"),
            Self::Binary { op, bytes, left, right } => {
                write!(f, "({left} {op} {right}):{bytes}")
            }
            Self::ZeroExtend { from, value } => write!(f, "zero-extend {from} ({value})"),
            Self::SignExtend { from, to, value } => {
                write!(f, "sign-extend {from} to {to} ({value})")
            }
        }
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Old(a) => write!(f, "old {a}"),
            Self::OldCode(a) => write!(f, "code {a}"),
            Self::OldIdentity(a) => write!(f, "identity {a}"),
            Self::New(a) => write!(f, "new {a}"),
            Self::Import(i) => write!(f, "import {i}"),
        }
    }
}

impl Display for Binary {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::And => "&",
            Self::Or => "|",
            Self::Xor => "^",
            Self::Shl => "<<",
            Self::Shr => ">>",
            Self::Sar => ">>>",
        })
    }
}

impl Display for Proof {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Equal => write!(f, "equal"),
            Self::Variable(name) => write!(f, "variable `{name}`"),
            Self::EqualVariable(name) => write!(f, "equal, variable `{name}`"),
            Self::Remade => write!(f, "remade"),
            Self::CalleeSaved => write!(f, "callee-saved"),
            Self::Result => write!(f, "result"),
            Self::NewLocal(name) => write!(f, "new local `{name}`"),
            Self::Lowered => write!(f, "return of a lowered frame"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers() {
        let name = |number, bytes| Location::General { number, bytes }.to_string();
        assert_eq!([name(0, 8), name(0, 4), name(0, 2), name(0, 1)], ["rax", "eax", "ax", "al"]);
        assert_eq!([name(5, 1), name(7, 1), name(12, 8)], ["bpl", "dil", "r12"]);
        assert_eq!([name(12, 4), name(12, 2), name(12, 1)], ["r12d", "r12w", "r12b"]);
        assert_eq!(name(200, 200), "r200", "no number panics");
        assert_eq!(Location::Vector { number: 3, bytes: 16 }.to_string(), "xmm3");
        assert_eq!(Location::Vector { number: 3, bytes: 8 }.to_string(), "xmm3:8");
    }

    #[test]
    fn values() {
        let at = |number| Box::new(Value::At(Location::General { number, bytes: 8 }));
        let sum = Value::Binary { op: Binary::Add, bytes: 8, left: at(3), right: at(1) };
        let value = Value::SignExtend { from: 4, to: 8, value: Box::new(sum) };
        assert_eq!(value.to_string(), "sign-extend 4 to 8 ((rbx + rcx):8)");
    }
}
