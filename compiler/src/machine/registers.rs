//! Sets of registers by the byte.

use iced_x86::{Register, RflagsBits};

/// The status flags, as [`RflagsBits`] numbers them.
pub const STATUS: u8 = {
    let bits = RflagsBits::OF
        | RflagsBits::SF
        | RflagsBits::ZF
        | RflagsBits::AF
        | RflagsBits::CF
        | RflagsBits::PF;
    // They are its lowest six bits.
    bits.to_le_bytes()[0]
};

/// Bytes of registers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegisterSet {
    /// General registers by the processor's number; bit b stands for byte b.
    pub general: [u8; 16],
    /// Vector registers; bit b stands for byte b.
    pub vector: [u64; 32],
    /// Status flags, see [`STATUS`].
    pub flags: u8,
    /// Mask registers k0 to k7.
    pub mask: u8,
    /// MMX registers.
    pub mmx: u8,
    /// Tile registers (AMX).
    pub tile: u8,
}

impl RegisterSet {
    /// Adds what the other has.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, |a, b| a | b);
    }

    /// Takes away what the other has.
    pub fn remove(&mut self, other: &Self) {
        self.merge(other, |a, b| a & !b);
    }

    /// Leaves what both have.
    pub fn keep(&mut self, other: &Self) {
        self.merge(other, |a, b| a & b);
    }

    fn merge(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        // Both operands have one byte, and no bit comes in from above.
        let narrow = |a: u8, b: u8| with(u64::from(a), u64::from(b)).to_le_bytes()[0];
        for (mine, theirs) in self.general.iter_mut().zip(other.general) {
            *mine = narrow(*mine, theirs);
        }
        for (mine, theirs) in self.vector.iter_mut().zip(other.vector) {
            *mine = with(*mine, theirs);
        }
        self.flags = narrow(self.flags, other.flags);
        self.mask = narrow(self.mask, other.mask);
        self.mmx = narrow(self.mmx, other.mmx);
        self.tile = narrow(self.tile, other.tile);
    }

    /// Whether anything is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds all bytes of a register, of whatever kind; instruction pointer, segment and control
    /// registers are not kept.
    pub fn add_register(&mut self, register: Register) {
        // Of at most 32 registers of a kind.
        let number = register.number();
        if register.is_gpr() {
            let full = register.full_register().number();
            self.general[full] |= general_bytes(register);
        } else if register.is_vector_register() {
            self.vector[number] |= low(register.size());
        } else if register.is_k() {
            self.mask |= 1 << number;
        } else if register.is_mm() {
            self.mmx |= 1 << number;
        } else if register.is_tmm() {
            self.tile |= 1 << number;
        }
    }
}

/// The bytes that a general register's name stands for.
fn general_bytes(register: Register) -> u8 {
    match register {
        Register::AH | Register::BH | Register::CH | Register::DH => 0b10,
        _ => low(register.size()).to_le_bytes()[0],
    }
}

/// The lowest so many bytes.
#[must_use]
pub const fn low(bytes: usize) -> u64 {
    if bytes >= 64 { u64::MAX } else { (1 << bytes) - 1 }
}

/// Bytes in a range.
#[must_use]
pub const fn bytes(from: usize, to: usize) -> u64 {
    low(to) & !low(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_their_bytes() {
        let of = |register: Register| {
            let mut set = RegisterSet::default();
            set.add_register(register);
            set
        };
        assert_eq!(of(Register::AH).general[0], 0b10);
        assert_eq!(of(Register::BH).general[3], 0b10);
        assert_eq!(of(Register::SIL).general[6], 1);
        assert_eq!(of(Register::R9W).general[9], 3);
        assert_eq!(of(Register::EDI).general[7], 0xf);
        assert_eq!(of(Register::R15).general[15], 0xff);
        assert_eq!(of(Register::XMM31).vector[31], 0xffff);
        assert_eq!(of(Register::YMM2).vector[2], 0xffff_ffff);
        assert_eq!(of(Register::ZMM0).vector[0], u64::MAX);
        assert_eq!((of(Register::K7).mask, of(Register::MM1).mmx), (0x80, 2));
        assert!(of(Register::RIP).is_empty() && of(Register::FS).is_empty());
        assert_eq!(STATUS, 0x3f);
    }
}
