//! Symbolic bytes: terms in a normal form, hash-consed, so that equal values are equal elements.
//!
//! Takes operations on bytes; gives bytes. Decides equality by structure after normalization:
//! numbers are folded, sums with a number are flattened, commutative operands are sorted, bitwise
//! operations are taken byte by byte, shifts by whole bytes move bytes. Never calls different values
//! equal; may call equal ones different.

use dsu_patch_format::NewAddr;
use dsu_patch_format::frames::Binary;
use dsu_patch_format::plan::Target;
use std::collections::HashMap;

/// A byte of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Byte {
    /// A number.
    Known(u8),
    /// A byte of a term.
    Of(Node, u8),
}

/// A term, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Node(u32);

/// What a byte is taken of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Term {
    /// OLD's general register.
    General(u8),
    /// OLD's vector register.
    Vector(u8),
    /// OLD's stack byte at CFA plus this.
    Stack(i64),
    /// `%fs:0x28`.
    Canary,
    /// OLD's flags register.
    Flags,
    /// CFA plus this.
    Frame(i64),
    /// The address of a thing, plus a number.
    Thing(Target, i64),
    /// 0xff where the byte's top bit is set, else 0.
    Sign(Byte),
    /// Arithmetic whose operands have as many bytes as its result, but for shift counts.
    Arithmetic(Binary, Vec<Byte>, Vec<Byte>),
    /// A bitwise operation on single bytes.
    Bitwise(Binary, Byte, Byte),
    /// Equal to itself alone.
    Unknown(u32),
}

/// All terms of one execution.
#[derive(Debug, Default)]
pub(super) struct Terms {
    terms: Vec<Term>,
    index: HashMap<Term, Node>,
    unknown: u32,
}

/// Little-endian bytes of a number.
pub(super) fn known(number: u64, bytes: usize) -> Vec<Byte> {
    let mut out: Vec<Byte> = number.to_le_bytes().map(Byte::Known).to_vec();
    out.resize(bytes, Byte::Known(0));
    out
}

/// The number that bytes are, if they are one of at most 8 bytes.
pub(super) fn number(bytes: &[Byte]) -> Option<u64> {
    let mut out = [0; 8];
    for (i, byte) in bytes.iter().enumerate() {
        let Byte::Known(value) = *byte else { return None };
        *out.get_mut(i)? = value;
    }
    Some(u64::from_le_bytes(out))
}

impl Terms {
    fn node(&mut self, term: Term) -> Node {
        if let Some(node) = self.index.get(&term) {
            return *node;
        }
        let node = Node(u32::try_from(self.terms.len()).unwrap_or(u32::MAX));
        self.terms.push(term.clone());
        self.index.insert(term, node);
        node
    }

    /// The first bytes of a term.
    pub(super) fn bytes(&mut self, term: Term, count: u8) -> Vec<Byte> {
        let node = self.node(term);
        (0..count).map(|i| Byte::Of(node, i)).collect()
    }

    /// One byte of a term.
    pub(super) fn byte(&mut self, term: Term) -> Byte {
        Byte::Of(self.node(term), 0)
    }

    /// A byte of which nothing is known.
    pub(super) fn unknown(&mut self) -> Byte {
        self.unknown += 1;
        self.byte(Term::Unknown(self.unknown))
    }

    /// The address of a thing. All places of the shadow image are at one distance from where they
    /// are linked; OLD's may be at several.
    pub(super) fn thing(&mut self, target: Target, addend: i64) -> Vec<Byte> {
        let term = match target {
            Target::New(at) => {
                Term::Thing(Target::New(NewAddr(0)), addend.wrapping_add(at.0.cast_signed()))
            }
            other => Term::Thing(other, addend),
        };
        self.bytes(term, 8)
    }

    /// The term that eight bytes are, in order, if they are one.
    pub(super) fn whole(&self, bytes: &[Byte]) -> Option<&Term> {
        let Some(Byte::Of(node, 0)) = bytes.first() else { return None };
        let same = bytes.len() == 8 && (0..8).zip(bytes).all(|(i, b)| *b == Byte::Of(*node, i));
        same.then(|| self.terms.get(node.0 as usize)).flatten()
    }

    /// The offset from the CFA, where eight bytes are such an address.
    pub(super) fn frame(&self, bytes: &[Byte]) -> Option<i64> {
        match self.whole(bytes)? {
            Term::Frame(offset) => Some(*offset),
            _ => None,
        }
    }

    /// Arithmetic on words of one width, 4 or 8 bytes.
    pub(super) fn binary(&mut self, op: Binary, left: &[Byte], right: &[Byte]) -> Vec<Byte> {
        match op {
            Binary::Add => self.add(left, right),
            Binary::Sub => self.sub(left, right),
            Binary::Mul => self.mul(left, right),
            Binary::And | Binary::Or | Binary::Xor => {
                left.iter().zip(right).map(|(l, r)| self.bitwise(op, *l, *r)).collect()
            }
            Binary::Shl | Binary::Shr | Binary::Sar => self.shift(op, left, right),
        }
    }

    fn arithmetic(&mut self, op: Binary, left: Vec<Byte>, right: Vec<Byte>) -> Vec<Byte> {
        let width = u8::try_from(left.len()).unwrap_or(8);
        self.bytes(Term::Arithmetic(op, left, right), width)
    }

    fn add(&mut self, left: &[Byte], right: &[Byte]) -> Vec<Byte> {
        let width = left.len();
        match (number(left), number(right)) {
            (Some(a), Some(b)) => known(a.wrapping_add(b), 8)[..width].to_vec(),
            (Some(a), None) => self.plus(right, a),
            (None, Some(b)) => self.plus(left, b),
            (None, None) => {
                let (a, b) = if left <= right { (left, right) } else { (right, left) };
                self.arithmetic(Binary::Add, a.to_vec(), b.to_vec())
            }
        }
    }

    /// A word plus a number: the number ends up in the term, or in one sum around it.
    fn plus(&mut self, word: &[Byte], number_added: u64) -> Vec<Byte> {
        let width = word.len();
        let mask = if width == 4 { u64::from(u32::MAX) } else { u64::MAX };
        let added = number_added & mask;
        if added == 0 {
            return word.to_vec();
        }
        match self.whole(word).cloned() {
            Some(Term::Frame(k)) => {
                return self.bytes(Term::Frame(k.wrapping_add(added.cast_signed())), 8);
            }
            Some(Term::Thing(target, k)) => {
                return self.bytes(Term::Thing(target, k.wrapping_add(added.cast_signed())), 8);
            }
            _ => {}
        }
        if let Some((inner, before)) = self.sum(word) {
            let total = before.wrapping_add(added) & mask;
            return self.plus(&inner, total);
        }
        self.arithmetic(Binary::Add, word.to_vec(), known(added, width)[..width].to_vec())
    }

    /// The operands of a word that is a sum with a number.
    fn sum(&self, word: &[Byte]) -> Option<(Vec<Byte>, u64)> {
        let Some(Byte::Of(node, 0)) = word.first() else { return None };
        let in_order = (0..).zip(word).all(|(i, b)| *b == Byte::Of(*node, i));
        match self.terms.get(node.0 as usize)? {
            Term::Arithmetic(Binary::Add, left, right)
                if in_order && left.len() == word.len() && number(right).is_some() =>
            {
                Some((left.clone(), number(right)?))
            }
            _ => None,
        }
    }

    fn sub(&mut self, left: &[Byte], right: &[Byte]) -> Vec<Byte> {
        if let Some(b) = number(right) {
            return self.add(left, &known(b.wrapping_neg(), 8)[..left.len()]);
        }
        if left == right {
            return known(0, left.len());
        }
        if let (Some(a), Some(b)) = (self.frame(left), self.frame(right)) {
            return known(a.wrapping_sub(b).cast_unsigned(), 8);
        }
        self.arithmetic(Binary::Sub, left.to_vec(), right.to_vec())
    }

    fn mul(&mut self, left: &[Byte], right: &[Byte]) -> Vec<Byte> {
        let width = left.len();
        match (number(left), number(right)) {
            (Some(a), Some(b)) => known(a.wrapping_mul(b), 8)[..width].to_vec(),
            (Some(1), None) => right.to_vec(),
            (None, Some(1)) => left.to_vec(),
            (Some(0), None) | (None, Some(0)) => known(0, width),
            _ => {
                let (a, b) = if left <= right { (left, right) } else { (right, left) };
                self.arithmetic(Binary::Mul, a.to_vec(), b.to_vec())
            }
        }
    }

    fn bitwise(&mut self, op: Binary, left: Byte, right: Byte) -> Byte {
        use Byte::Known;
        let (left, right) = if left <= right { (left, right) } else { (right, left) };
        match (op, left, right) {
            (Binary::And, Known(a), Known(b)) => Known(a & b),
            (Binary::Or, Known(a), Known(b)) => Known(a | b),
            (Binary::Xor, Known(a), Known(b)) => Known(a ^ b),
            (Binary::And, Known(0), _) => Known(0),
            (Binary::Or, Known(0xff), _) => Known(0xff),
            (Binary::And, Known(0xff), x) | (Binary::Or | Binary::Xor, Known(0), x) => x,
            (Binary::And | Binary::Or, a, b) if a == b => a,
            (Binary::Xor, a, b) if a == b => Known(0),
            _ => self.byte(Term::Bitwise(op, left, right)),
        }
    }

    /// Only the low byte of a count matters; the processor takes it modulo the width.
    fn shift(&mut self, op: Binary, left: &[Byte], count: &[Byte]) -> Vec<Byte> {
        let width = left.len();
        let Some(count) = count.first().copied() else { return left.to_vec() };
        let Byte::Known(bits) = count else {
            return self.arithmetic(op, left.to_vec(), vec![count]);
        };
        let bits = usize::from(bits) % (8 * width);
        if !bits.is_multiple_of(8) {
            return match number(left) {
                Some(value) => fold_shift(op, value, bits, width),
                None => {
                    let count = u8::try_from(bits).unwrap_or_default();
                    self.arithmetic(op, left.to_vec(), vec![Byte::Known(count)])
                }
            };
        }
        let moved = bits / 8;
        let filler = match (op, left.last()) {
            (Binary::Sar, Some(top)) => self.sign(*top),
            _ => Byte::Known(0),
        };
        (0..width)
            .map(|i| {
                let from =
                    if op == Binary::Shl { i.checked_sub(moved) } else { i.checked_add(moved) };
                from.and_then(|f| left.get(f)).copied().unwrap_or(filler)
            })
            .collect()
    }

    /// What extends a byte with its sign.
    pub(super) fn sign(&mut self, byte: Byte) -> Byte {
        match byte {
            Byte::Known(value) => Byte::Known(if value & 0x80 == 0 { 0 } else { 0xff }),
            // The sign of a sign is itself.
            Byte::Of(node, _) if matches!(self.terms.get(node.0 as usize), Some(Term::Sign(_))) => {
                byte
            }
            _ => self.byte(Term::Sign(byte)),
        }
    }
}

fn fold_shift(op: Binary, value: u64, bits: usize, width: usize) -> Vec<Byte> {
    let wide = match op {
        Binary::Shl => value << bits,
        Binary::Shr => value >> bits,
        _ if width == 4 => {
            let low = (value & u64::from(u32::MAX)) << 32;
            ((low.cast_signed() >> bits) >> 32).cast_unsigned()
        }
        _ => (value.cast_signed() >> bits).cast_unsigned(),
    };
    known(wide, 8)[..width].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_equal_elements() {
        let mut terms = Terms::default();
        let rax = terms.bytes(Term::General(0), 8);
        let rcx = terms.bytes(Term::General(1), 8);
        let five = known(5, 8);
        let seven = known(7, 8);
        let twelve = known(12, 8);
        let once = terms.binary(Binary::Add, &rax, &five);
        let twice = terms.binary(Binary::Add, &seven, &once);
        assert_eq!(twice, terms.binary(Binary::Add, &rax, &twelve));
        let back = terms.binary(Binary::Sub, &twice, &twelve);
        assert_eq!(back, rax);
        let (a, b) = (terms.binary(Binary::Mul, &rax, &rcx), terms.binary(Binary::Mul, &rcx, &rax));
        assert_eq!(a, b);
        let (a, b) = (terms.binary(Binary::Sub, &rax, &rcx), terms.binary(Binary::Sub, &rcx, &rax));
        assert_ne!(a, b);
        let frame = terms.bytes(Term::Frame(-40), 8);
        let lower = terms.binary(Binary::Sub, &frame, &five);
        assert_eq!(terms.frame(&lower), Some(-45));
        assert_ne!(terms.unknown(), terms.unknown());
    }

    #[test]
    fn shifts_fold_as_the_processor_does() {
        let mut terms = Terms::default();
        let value = known(0x8000_0001, 4);
        for (op, count, expected) in [
            (Binary::Sar, 4, 0xf800_0000),
            (Binary::Shr, 4, 0x0800_0000),
            (Binary::Shl, 4, 0x10),
            (Binary::Sar, 8, 0xff80_0000),
            (Binary::Shr, 36, 0x0800_0000),
        ] {
            let out = terms.binary(op, &value[..4], &known(count, 4)[..4]);
            assert_eq!(number(&out), Some(expected), "{op:?} {count}");
        }
    }
}
