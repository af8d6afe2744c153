//! Changes to bytes, the same for the same seed: what a fuzzer would do, for a test of a few seconds.

/// A sequence of numbers by a seed (xorshift64*, Vigna 2016): the same on every machine.
pub struct Numbers(u64);

impl Numbers {
    /// Any seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next one below a bound.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).expect("below a usize")
    }
}

/// Numbers that sums and products overflow with.
const EDGES: [u64; 10] =
    [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, i64::MAX as u64, u64::MAX];

/// Changes some bytes inside `places` (ranges of the file that mean something), or cuts the end off.
pub fn mutate(bytes: &mut Vec<u8>, places: &[std::ops::Range<usize>], numbers: &mut Numbers) {
    for _ in 0..1 + numbers.below(4) {
        let Some(range) = places.get(numbers.below(places.len())).cloned() else { return };
        let end = range.end.min(bytes.len());
        if range.start >= end {
            continue;
        }
        let at = range.start + numbers.below(end - range.start);
        match numbers.below(20) {
            0 => bytes.truncate(at),
            1..=6 => bytes[at] ^= 1 << numbers.below(8),
            7..=10 => bytes[at] = u8::try_from(numbers.below(256)).unwrap_or(0),
            11..=16 => {
                let width = 1 << numbers.below(4);
                let at = at - at % width;
                let value = EDGES[numbers.below(EDGES.len())].to_le_bytes();
                let end = (at + width).min(bytes.len());
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            _ => {
                // Something that is right elsewhere.
                let from = range.start + numbers.below(end - range.start);
                let len = numbers.below(24).min(bytes.len() - from.max(at));
                bytes.copy_within(from..from + len, at);
            }
        }
    }
}

/// How long to go on: some seconds in a test, more when asked by `DSU_FUZZ_SECONDS`.
pub fn time() -> std::time::Duration {
    let asked = std::env::var("DSU_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    std::time::Duration::from_secs(asked.unwrap_or(3))
}
