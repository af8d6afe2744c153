//! A table's values on numbers.

use super::{Layout, Machine};
use dsu_patch_format::frames::{Binary, Location, Value};

/// The bytes in a location.
pub(super) fn location(machine: &Machine, place: &Location) -> Result<Vec<u8>, String> {
    match *place {
        Location::General { number, bytes } if number < 16 && bytes <= 8 => {
            Ok(machine.general(number).to_le_bytes()[..usize::from(bytes)].to_vec())
        }
        Location::Vector { number, bytes } if number < 32 && bytes <= 64 => {
            Ok(machine.vector(number)[..usize::from(bytes)].to_vec())
        }
        Location::Slot { cfa, bytes } => {
            let start = machine.cfa().wrapping_add_signed(cfa);
            Ok((0..u64::from(bytes)).map(|i| machine.byte(start.wrapping_add(i))).collect())
        }
        _ => Err("a location that does not exist".to_owned()),
    }
}

/// The first bytes of a value.
pub(super) fn evaluate(
    value: &Value,
    machine: &Machine,
    layout: Layout,
    bytes: usize,
) -> Result<Vec<u8>, String> {
    if let Value::At(place) = value {
        let found = location(machine, place)?;
        return found.get(..bytes).map(<[u8]>::to_vec).ok_or("a narrow source".to_owned());
    }
    let mut out = number(value, machine, layout)?.to_le_bytes().to_vec();
    out.resize(bytes, 0);
    Ok(out)
}

fn number(value: &Value, machine: &Machine, layout: Layout) -> Result<u64, String> {
    Ok(match value {
        Value::At(place) => {
            let mut bytes = location(machine, place)?;
            bytes.resize(8, 0);
            bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
        }
        Value::Constant(number) => *number,
        Value::Address { target, addend } => layout.address(*target).wrapping_add_signed(*addend),
        Value::Frame(offset) => machine.cfa().wrapping_add_signed(*offset),
        Value::Canary => machine.canary(),
        Value::Binary { op, bytes, left, right } => {
            let (a, b) = (number(left, machine, layout)?, number(right, machine, layout)?);
            calculate(*op, *bytes, a, b)
        }
        Value::ZeroExtend { from, value } => {
            let bits = 8 * u32::from(*from);
            number(value, machine, layout)? & (u64::MAX >> (64 - bits.clamp(1, 64)))
        }
        Value::SignExtend { from, to, value } => {
            let up = 64 - (8 * u32::from(*from)).clamp(1, 64);
            let wide = (number(value, machine, layout)? << up).cast_signed() >> up;
            let over = 64 - (8 * u32::from(*to)).clamp(1, 64);
            wide.cast_unsigned() << over >> over
        }
    })
}

fn calculate(op: Binary, bytes: u8, a: u64, b: u64) -> u64 {
    let narrow = bytes == 4;
    let count = b & if narrow { 31 } else { 63 };
    let low = u64::from(u32::MAX);
    let result = match op {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Shl => a << count,
        Binary::Shr if narrow => (a & low) >> count,
        Binary::Shr => a >> count,
        Binary::Sar if narrow => (((a << 32).cast_signed() >> count) >> 32).cast_unsigned(),
        Binary::Sar => (a.cast_signed() >> count).cast_unsigned(),
    };
    if narrow { result & low } else { result }
}
