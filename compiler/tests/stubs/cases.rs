//! Random translations and random states.

use crate::machine::{ABOVE, BELOW, CFA, State};
use dsu_patch_format::frames::{Binary, Location, Move, Proof, Translation, Value};
use dsu_patch_format::plan::Target;
use dsu_patch_format::{NewAddr, OldAddr};

/// Splitmix64 (Steele, Lea, Flood 2014): the same cases in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        let index = self.below(all.len() as u64);
        all[usize::try_from(index).unwrap()]
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.below((to - from).cast_unsigned()).cast_signed()
    }
}

/// Widest vectors that this processor has: bytes, and how many registers.
fn vectors() -> (u8, u8) {
    if std::is_x86_feature_detected!("avx512vl") {
        (64, 32)
    } else if std::is_x86_feature_detected!("avx2") {
        (32, 16)
    } else {
        (16, 16)
    }
}

/// A translation of any shape that there may be.
pub fn translation(random: &mut Random) -> Translation {
    let depth = |random: &mut Random| {
        8 + 8 * if random.chance(10) { random.below(500) } else { random.below(30) }
    };
    let old_depth = depth(random);
    let new_depth = if random.chance(30) { old_depth } else { depth(random) };
    let mut made = Translation { old_depth, new_depth, ..Translation::default() };
    made.flags = random.chance(30);
    let lowest = -old_depth.min(new_depth).cast_signed();
    if lowest < -8 && random.chance(30) {
        let start = random.between(lowest, -8);
        made.objects.push((start, random.between(start + 1, -7)));
    }
    // From a few places to all of them: only then is no register free.
    let share = random.of(&[10, 30, 60, 100]);
    // What is in place already, as most is in real updates; or nothing, for long cycles.
    let same = random.of(&[0, 40, 80]);
    let simple = random.chance(50);
    let mut shuffled = Shuffle { random, old_depth, same, simple };
    shuffled.registers(share, &mut made.moves);
    shuffled.slots(share, new_depth, &made.objects, &mut made.moves);
    made.moves.sort_by_key(|m| m.to);
    made
}

struct Shuffle<'a> {
    random: &'a mut Random,
    old_depth: u64,
    same: u64,
    /// Only copies, as in permutations.
    simple: bool,
}

impl Shuffle<'_> {
    fn registers(&mut self, share: u64, moves: &mut Vec<Move>) {
        for number in (0..16).filter(|n| *n != 4) {
            if self.random.chance(share) {
                let to = Location::General { number, bytes: self.random.of(&[1, 2, 4, 8, 8, 8]) };
                moves.push(self.each(to));
            }
        }
        let (width, count) = vectors();
        for number in 0..count {
            if self.random.chance(share / 3) {
                let bytes = self.random.of(&[4u8, 8, 16, 16, 16, 32, 64]).min(width);
                moves.push(self.each(Location::Vector { number, bytes }));
            }
        }
    }

    fn slots(&mut self, share: u64, new_depth: u64, objects: &[(i64, i64)], moves: &mut Vec<Move>) {
        let red_zone = if self.random.chance(20) { 128 } else { 0 };
        let mut at = -(new_depth + red_zone).cast_signed();
        while at < 64 {
            let bytes = match self.random.below(20) {
                0 => u32::try_from(1 + self.random.below(100)).unwrap(),
                1 => self.random.of(&[1, 2, 3, 6, 12]),
                2..5 => 4,
                5..7 => self.random.of(&[16, 32, 64]),
                _ => 8,
            };
            let end = at + i64::from(bytes);
            let taken = |from: i64, to: i64| at < to && from < end;
            let free = !taken(-8, 0) && !objects.iter().any(|(f, t)| taken(*f, *t));
            if free && end < 64 && self.random.chance(share) {
                moves.push(self.each(Location::Slot { cfa: at, bytes }));
            }
            at = if self.random.chance(10) { at + 1 } else { end };
            if moves
                .last()
                .is_some_and(|m| m.to == Location::Slot { cfa: end - i64::from(bytes), bytes })
            {
                at = end;
            }
        }
    }

    fn each(&mut self, to: Location) -> Move {
        let from = if self.random.chance(self.same) && self.holds(to) {
            Value::At(to)
        } else {
            self.source(to)
        };
        Move { to, from, proof: Proof::Equal }
    }

    fn holds(&self, location: Location) -> bool {
        match location {
            Location::Slot { cfa, .. } => cfa >= -(self.old_depth + 128).cast_signed(),
            _ => true,
        }
    }

    fn source(&mut self, to: Location) -> Value {
        let bytes = match to {
            Location::General { bytes, .. } | Location::Vector { bytes, .. } => bytes.into(),
            Location::Slot { bytes, .. } => bytes,
        };
        match self.random.below(10) {
            0..6 => Value::At(self.place(bytes)),
            _ if self.simple => Value::At(self.place(bytes)),
            6 => self.leaf(),
            _ => match self.value(bytes.min(8), 0) {
                Value::At(_) => Value::At(self.place(bytes)),
                made => made,
            },
        }
    }

    /// A place of OLD with so many bytes.
    fn place(&mut self, bytes: u32) -> Location {
        let (width, count) = vectors();
        let narrow = u8::try_from(bytes).unwrap_or(u8::MAX);
        match self.random.below(8) {
            0..4 if bytes <= 8 => {
                let numbers = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
                let widths: Vec<u8> = [1, 2, 4, 8].into_iter().filter(|b| *b >= narrow).collect();
                let (number, bytes) = (self.random.of(&numbers), self.random.of(&widths));
                Location::General { number, bytes }
            }
            4 | 5 if bytes <= width.into() => {
                let widths: Vec<u8> = [4, 8, 16, 32, 64]
                    .into_iter()
                    .filter(|b| narrow <= *b && *b <= width)
                    .collect();
                let number = u8::try_from(self.random.below(count.into())).unwrap();
                Location::Vector { number, bytes: self.random.of(&widths) }
            }
            _ => {
                let lowest = -(self.old_depth + 128).cast_signed();
                let highest = 128 - i64::from(bytes);
                let cfa = self.random.between(lowest, highest.max(lowest + 1));
                let cfa = if self.random.chance(80) { (cfa & !7).max(lowest) } else { cfa };
                Location::Slot { cfa, bytes: bytes + self.random.of(&[0, 0, 0, 5]) }
            }
        }
    }

    fn leaf(&mut self) -> Value {
        match self.random.below(7) {
            0 => Value::Constant(self.random.next()),
            1 => Value::Constant(self.random.below(100)),
            2 => Value::Constant(self.random.below(100).wrapping_neg()),
            3 => Value::Frame(self.random.between(-5000, 500)),
            4 => Value::Canary,
            _ => {
                let address = 0x1000 + self.random.below(0x10000);
                let target = match self.random.below(5) {
                    0 => Target::Old(OldAddr(address)),
                    1 => Target::OldCode(OldAddr(address)),
                    2 => Target::OldIdentity(OldAddr(address)),
                    3 => Target::New(NewAddr(0x1100_0000 + address)),
                    _ => Target::Import(7),
                };
                let addend = self.random.of(&[0, 8, -16, 0x1_0000, 0x7fff_ffff, i64::MIN]);
                Value::Address { target, addend }
            }
        }
    }

    fn value(&mut self, needs: u32, nesting: u32) -> Value {
        let choice = if nesting > 3 { self.random.below(2) } else { self.random.below(10) };
        match choice {
            0 => self.leaf(),
            1 | 2 => Value::At(self.place(needs)),
            3 => {
                let from = self.random.of(&[1, 2, 4]);
                let value = Box::new(self.value(from.into(), nesting + 1));
                Value::ZeroExtend { from, value }
            }
            4 => {
                let (from, to) = (self.random.of(&[1, 2, 4]), self.random.of(&[4, 8]));
                let value = Box::new(self.value(from.into(), nesting + 1));
                Value::SignExtend { from, to, value }
            }
            _ => {
                use Binary::{Add, And, Mul, Or, Sar, Shl, Shr, Sub, Xor};
                let op = self.random.of(&[Add, Sub, Mul, And, Or, Xor, Shl, Shr, Sar]);
                let bytes = self.random.of(&[4, 8]);
                let counts = matches!(op, Shl | Shr | Sar);
                let left = Box::new(self.value(bytes.into(), nesting + 1));
                let needs = if counts { 1 } else { bytes.into() };
                let right = Box::new(self.value(needs, nesting + 1));
                Value::Binary { op, bytes, left, right }
            }
        }
    }
}

/// A state in which every byte tells where it is from.
pub fn state(random: &mut Random, translation: &Translation) -> State {
    let mut state = State {
        general: std::array::from_fn(|_| random.next()),
        flags: random.next() & 0x8d5,
        canary: 0,
        steps: 0,
        vector: [[0; 64]; 32],
        memory: Vec::new(),
    };
    state.general[4] = CFA - translation.old_depth;
    let mut fill = |bytes: &mut [u8]| {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
    };
    state.vector.iter_mut().for_each(|v| fill(v));
    state.memory.resize(usize::try_from(BELOW + ABOVE).unwrap(), 0);
    fill(&mut state.memory);
    state
}
