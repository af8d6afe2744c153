//! What a translation means, and whether a state after it is right.

use crate::machine::{CFA, State, address};
use dsu_patch_format::frames::{Binary, Location, Translation, Value};

/// Carry, parity, adjust, zero, sign, overflow.
const STATUS: u64 = 0x8d5;

/// Everything that is wrong.
pub fn check(translation: &Translation, old: &State, new: &State) -> Result<(), String> {
    for each in &translation.moves {
        let wanted = value(&each.from, old, new.canary);
        let (bytes, got) = contents(each.to, new);
        let mut wanted = wanted;
        wanted.resize(bytes.max(wanted.len()), 0);
        if got != wanted[..bytes] {
            return Err(format!("{each:?}: wanted {:x?}, got {got:x?}", &wanted[..bytes]));
        }
    }
    if new.general[4] != CFA - translation.new_depth {
        return Err(format!("the stack pointer is {:#x}", new.general[4]));
    }
    if translation.flags && (old.flags ^ new.flags) & STATUS != 0 {
        return Err(format!("flags {:#x} became {:#x}", old.flags, new.flags));
    }
    for number in [3, 5, 12, 13, 14, 15] {
        let named = |l| matches!(l, Location::General { number: n, .. } if n == number);
        let index = usize::from(number);
        let moved = translation.moves.iter().any(|m| named(m.to));
        if !moved && old.general[index] != new.general[index] {
            return Err(format!("register {number} is the caller's"));
        }
    }
    kept(translation, old, new)
}

/// Memory that nobody moves: the caller's, the return address, objects with their address known.
fn kept(translation: &Translation, old: &State, new: &State) -> Result<(), String> {
    let object = |at| translation.objects.iter().any(|(from, to)| *from <= at && at < *to);
    let slot = |at| {
        translation.moves.iter().any(|m| match m.to {
            Location::Slot { cfa, bytes } => cfa <= at && at < cfa + i64::from(bytes),
            _ => false,
        })
    };
    let lost = (-(translation.new_depth.cast_signed())..512)
        .filter(|at| object(*at) || (*at >= -8 && !slot(*at)))
        .find(|at| old.stack(*at, 1) != new.stack(*at, 1));
    lost.map_or(Ok(()), |at| Err(format!("the byte at CFA{at:+} is not the stub's")))
}

fn contents(location: Location, state: &State) -> (usize, Vec<u8>) {
    let (bytes, all) = match location {
        Location::General { number, bytes } => {
            (usize::from(bytes), state.general[usize::from(number)].to_le_bytes().to_vec())
        }
        Location::Vector { number, bytes } => {
            (usize::from(bytes), state.vector[usize::from(number)].to_vec())
        }
        Location::Slot { cfa, bytes } => (bytes as usize, state.stack(cfa, bytes).to_vec()),
    };
    (bytes, all[..bytes].to_vec())
}

fn value(value: &Value, old: &State, canary: u64) -> Vec<u8> {
    match value {
        Value::At(location) => contents(*location, old).1,
        other => number(other, old, canary).to_le_bytes().to_vec(),
    }
}

fn number(value: &Value, old: &State, canary: u64) -> u64 {
    let inner = |value: &Value| number(value, old, canary);
    match value {
        Value::At(location) => {
            let mut bytes = contents(*location, old).1;
            bytes.resize(8, 0);
            u64::from_le_bytes(bytes.try_into().unwrap())
        }
        Value::Constant(number) => *number,
        Value::Address { target, addend } => address(*target).wrapping_add_signed(*addend),
        Value::Frame(cfa) => CFA.wrapping_add_signed(*cfa),
        Value::Canary => canary,
        Value::Binary { op, bytes, left, right } => {
            let cut = |v: u64| if *bytes == 4 { v & 0xffff_ffff } else { v };
            cut(binary(*op, u32::from(*bytes) * 8, cut(inner(left)), cut(inner(right))))
        }
        Value::ZeroExtend { from, value } => inner(value) & (u64::MAX >> (64 - 8 * from)),
        Value::SignExtend { from, to, value } => {
            let above = 64 - 8 * u32::from(*from);
            let wide = ((inner(value) << above).cast_signed() >> above).cast_unsigned();
            if *to == 4 { wide & 0xffff_ffff } else { wide }
        }
    }
}

fn binary(op: Binary, bits: u32, left: u64, right: u64) -> u64 {
    let count = u32::try_from(right % u64::from(bits)).unwrap();
    match op {
        Binary::Add => left.wrapping_add(right),
        Binary::Sub => left.wrapping_sub(right),
        Binary::Mul => left.wrapping_mul(right),
        Binary::And => left & right,
        Binary::Or => left | right,
        Binary::Xor => left ^ right,
        Binary::Shl => left << count,
        Binary::Shr => left >> count,
        Binary::Sar => {
            let above = 64 - bits;
            (((left << above).cast_signed() >> above) >> count).cast_unsigned()
        }
    }
}
