//! Code that the process has anyway, and that borrowed threads are led through: nothing is ever written
//! into its text.
//!
//! Takes the mappings and the memory; gives the address of a `syscall` instruction, of a `ret` right behind
//! it, and of a call of `rt_sigreturn`, which every C library has for its signal handlers. The last two
//! are what makes a borrowed thread safe when the tool dies (see [`super::lifeline`]).

use crate::address::ProcAddr;
use crate::target::maps::{Mapping, Maps};
use crate::target::memory::ReadMemory;

/// `syscall; ret` and `syscall`.
const SYSCALL_RET: [u8; 3] = [0x0f, 0x05, 0xc3];
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Bytes of `syscall`: the `ret` is behind them.
const SYSCALL_LEN: u64 = 2;
/// `mov $15, %rax; syscall` and the shorter form: what a handler returns to, `rt_sigreturn`.
pub const RESTORERS: [&[u8]; 2] =
    [&[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05], &[0xb8, 15, 0, 0, 0, 0x0f, 0x05]];
/// Bytes read at once; a pattern may begin in one such piece and end in the next.
const PIECE: u64 = 1 << 16;
const LONGEST_PATTERN: u64 = 9;
/// Bytes searched in all.
const MOST: u64 = 16 << 20;

/// Addresses in the process's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footholds {
    /// A `syscall` instruction.
    pub syscall: ProcAddr,
    /// A `ret`, if it is right behind that.
    pub ret: Option<ProcAddr>,
    /// Instructions that call `rt_sigreturn`.
    pub sigreturn: Option<ProcAddr>,
}

impl Footholds {
    /// Finds them, in the C library first. `None` where there is no `syscall` at all.
    #[must_use]
    pub fn find(memory: &impl ReadMemory, maps: &Maps) -> Option<Self> {
        let mut code: Vec<&Mapping> = maps
            .0
            .iter()
            .filter(|m| m.executable && m.readable && &*m.name != "[vsyscall]")
            .collect();
        code.sort_by_key(|m| !is_c_library(&m.name));
        let mut search = Search::default();
        let mut left = MOST;
        for mapping in code {
            let len = mapping.end.since(mapping.start).min(left);
            left -= len;
            if search.through(memory, mapping.start, len) {
                break;
            }
        }
        let syscall = search.syscall_ret.or(search.syscall)?;
        let ret = search.syscall_ret.map(|at| at.offset(SYSCALL_LEN));
        Some(Self { syscall, ret, sigreturn: search.sigreturn })
    }
}

fn is_c_library(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.starts_with("libc.") || file.starts_with("libc-") || file.starts_with("ld-musl")
}

#[derive(Default)]
struct Search {
    syscall_ret: Option<ProcAddr>,
    syscall: Option<ProcAddr>,
    sigreturn: Option<ProcAddr>,
}

impl Search {
    /// Searches `[start, start + len)`; says whether nothing is missing any more.
    fn through(&mut self, memory: &impl ReadMemory, start: ProcAddr, len: u64) -> bool {
        let mut offset = 0;
        while offset < len {
            let piece = (len - offset).min(PIECE + LONGEST_PATTERN);
            let Ok(size) = usize::try_from(piece) else { break };
            let at = start.offset(offset);
            let Ok(bytes) = memory.read_vec(at, size) else { break };
            self.piece(at, &bytes);
            if self.syscall_ret.is_some() && self.sigreturn.is_some() {
                return true;
            }
            offset += PIECE;
        }
        false
    }

    fn piece(&mut self, start: ProcAddr, bytes: &[u8]) {
        let find = |pattern: &[u8]| {
            let at = bytes.windows(pattern.len()).position(|window| window == pattern)?;
            Some(start.offset(at as u64))
        };
        self.syscall_ret = self.syscall_ret.or_else(|| find(&SYSCALL_RET));
        if self.syscall_ret.is_none() {
            self.syscall = self.syscall.or_else(|| find(&SYSCALL));
        }
        self.sigreturn = self.sigreturn.or_else(|| RESTORERS.iter().find_map(|code| find(code)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::FakeMemory;

    #[test]
    fn in_the_c_library_first() {
        let maps = Maps::parse(
            b"10000-11000 r-xp 00000000 fd:01 7 /bin/a\n\
              20000-41000 r-xp 00000000 fd:01 8 /lib/libc.so.6\n",
        );
        let mut program = vec![0x90; 0x1000];
        program[0x10..0x13].copy_from_slice(&SYSCALL_RET);
        let mut library = vec![0x90; 0x2_1000];
        // Across the border of two pieces.
        library[0xffff..0x1_0002].copy_from_slice(&SYSCALL_RET);
        let memory = |library: &[u8]| {
            FakeMemory(vec![
                (ProcAddr(0x1_0000), program.clone()),
                (ProcAddr(0x2_0000), library.to_vec()),
            ])
        };
        let found = Footholds::find(&memory(&library), &maps).unwrap();
        assert_eq!(found.syscall, ProcAddr(0x2_ffff));
        assert_eq!((found.ret, found.sigreturn), (Some(ProcAddr(0x3_0001)), None));
        library[0x1_0100..0x1_0109].copy_from_slice(RESTORERS[0]);
        let found = Footholds::find(&memory(&library), &maps).unwrap();
        assert_eq!(found.sigreturn, Some(ProcAddr(0x3_0100)));
        assert!(Footholds::find(&FakeMemory::default(), &maps).is_none());
    }
}
