//! Where a thread may come out of replaced code, guessed from its stack where no unwinding rows tell.
//!
//! Takes the stack from a place upwards; gives words that look like return addresses into code that is
//! not blind: executable memory behind the bytes of a call (SDM volume 2, CALL). The guess only places
//! breakpoints: whether the thread is free where it stops is judged anew, and a wrong guess costs a
//! millisecond.

use super::blind::BlindRanges;
use crate::address::ProcAddr;
use crate::ptrace::onward::Goal;
use crate::target::maps::Maps;
use crate::target::memory::ReadMemory;

/// Words looked at: a frame is seldom larger.
const WORDS: u64 = 1024;
/// The longest form of an indirect call: prefix, opcode, ModRM, SIB, 32-bit displacement.
const LONGEST_CALL: usize = 8;

/// The next `most` likely callers from `from` upwards.
pub fn callers(
    memory: &impl ReadMemory,
    maps: &Maps,
    blind: &BlindRanges,
    from: u64,
    most: usize,
) -> Vec<Goal> {
    let from = from & !7;
    let Some(stack) = maps.find(ProcAddr(from)) else { return Vec::new() };
    let end = stack.end.0.min(from.saturating_add(8 * WORDS));
    let len = usize::try_from(end - from).unwrap_or(0);
    let Ok(bytes) = memory.read_vec(ProcAddr(from), len) else { return Vec::new() };
    let (words, _) = bytes.as_chunks::<8>();
    let places = words.iter().zip((from..).step_by(8));
    places
        .map(|(word, at)| (u64::from_le_bytes(*word), at))
        .filter(|(word, _)| blind.return_address(*word).blind().is_none())
        .filter(|(word, _)| maps.find(ProcAddr(*word)).is_some_and(|m| m.executable))
        .filter(|(word, _)| is_behind_call(memory, ProcAddr(*word)))
        // The return takes the word off the stack.
        .map(|(word, at)| Goal { at: ProcAddr(word), min_rsp: at + 8 })
        .take(most)
        .collect()
}

fn is_behind_call(memory: &impl ReadMemory, address: ProcAddr) -> bool {
    let mut before = [0; LONGEST_CALL];
    let start = address.back(LONGEST_CALL as u64);
    memory.read(start, &mut before).is_ok() && ends_with_call(&before)
}

/// `e8 rel32`, or `ff /2` with 0, 1 or 4 bytes of displacement and perhaps a SIB byte.
fn ends_with_call(before: &[u8; LONGEST_CALL]) -> bool {
    let indirect = |back: usize, modes: &[u8]| {
        let (opcode, modrm) = (before[LONGEST_CALL - back], before[LONGEST_CALL - back + 1]);
        opcode == 0xff && modrm >> 3 & 7 == 2 && modes.contains(&(modrm >> 6))
    };
    before[LONGEST_CALL - 5] == 0xe8
        || indirect(2, &[0, 3])
        || indirect(3, &[0, 1])
        || indirect(4, &[1])
        || indirect(6, &[0, 2])
        || indirect(7, &[0, 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::FakeMemory;

    #[test]
    fn calls() {
        let ends = |tail: &[u8]| {
            let mut bytes = [0x90; LONGEST_CALL];
            bytes[LONGEST_CALL - tail.len()..].copy_from_slice(tail);
            ends_with_call(&bytes)
        };
        assert!(ends(&[0xe8, 1, 2, 3, 4]), "call rel32");
        assert!(ends(&[0xff, 0xd0]), "call rax");
        assert!(ends(&[0xff, 0x10]), "call [rax]");
        assert!(ends(&[0x41, 0xff, 0x54, 0x24, 8]), "call [r12 + 8]");
        assert!(ends(&[0xff, 0x50, 8]), "call [rax + 8]");
        assert!(ends(&[0xff, 0x15, 1, 2, 3, 4]), "call [rip + disp32]");
        assert!(ends(&[0xff, 0x94, 0xc3, 1, 2, 3, 4]), "call [rbx + 8 * rax + disp32]");
        assert!(!ends(&[0xff, 0xe0]), "jmp rax");
        assert!(!ends(&[0x90]));
    }

    #[test]
    fn callers_are_code_behind_calls() {
        let maps =
            Maps::parse(b"1000-2000 r-xp 00000000 00:00 0\n8000-9000 rw-p 00000000 00:00 0\n");
        let mut code = vec![0x90; 0x1000];
        code[0x100..0x105].copy_from_slice(&[0xe8, 0, 0, 0, 0]);
        let mut stack = vec![0; 0x1000];
        for (at, word) in [(0x10, 0x1105u64), (0x18, 0x1106), (0x20, 0x8000), (0x28, 0x1105)] {
            stack[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let memory = FakeMemory(vec![(ProcAddr(0x1000), code), (ProcAddr(0x8000), stack)]);
        let blind = BlindRanges::default();
        let found = callers(&memory, &maps, &blind, 0x8000, 4);
        let found: Vec<_> = found.iter().map(|g| (g.at.0, g.min_rsp)).collect();
        assert_eq!(found, [(0x1105, 0x8018), (0x1105, 0x8030)]);
        assert!(callers(&memory, &maps, &blind, 0x7000, 4).is_empty());
    }
}
