//! The word scan of a stack: conservative, without unwinding tables.
//!
//! Takes a stack pointer, the mappings, a reader and the blind ranges; gives every word that could be
//! a return address into a blind range, every signal frame that has interrupted blind code, and what
//! waits at sites. Reads each byte once, in chunks. A signal handler may run on another stack than the
//! code it interrupts; the signal frame says where that one is, and it is scanned too.
//!
//! Never says "free" wrongly: where it cannot read to the end, it says so.

use super::blind::{BlindRanges, Point, Standing};
use crate::address::ProcAddr;
use crate::ptrace::footholds::RESTORERS;
use crate::target::maps::Maps;
use crate::target::memory::ReadMemory;

/// The red zone: 128 bytes below the stack pointer are in use (psABI 3.2.2).
const RED_ZONE: u64 = 128;
/// Bytes read at once.
const CHUNK: usize = 1 << 18;
/// A stack that is larger is not scanned to its end; unwinding must decide then.
const LONGEST: u64 = 1 << 26;
/// Stacks that one thread may be on at once, by nested signal handlers.
const MAX_STACKS: usize = 8;

/// `cs` and `ss` of a 64-bit user thread as the kernel saves them in a signal frame, and the form
/// without `ss` of old kernels (arch/x86/include/uapi/asm/sigcontext.h).
const SELECTORS: [u64; 2] = [0x002b_0000_0000_0033, 0x0000_0000_0000_0033];
/// From there back to the return address of the handler: `struct rt_sigframe` begins with it, then
/// `ucontext` with 40 bytes before the registers, of which the selectors are the nineteenth.
const TO_FRAME: u64 = 8 + 40 + 18 * 8;
/// In the frame: saved stack pointer and program counter.
const SAVED_RSP: u64 = 8 + 40 + 15 * 8;
const SAVED_RIP: u64 = 8 + 40 + 16 * 8;

/// A word that could be a blind return address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Where on the stack.
    pub at: ProcAddr,
    /// The word: a return leads there.
    pub word: ProcAddr,
    /// What it would be.
    pub point: Point,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// In the order of the scan.
    pub hits: Vec<Hit>,
    /// Blind points that signal handlers have interrupted.
    pub interrupted: Vec<Point>,
    /// Functions of the words that lead to sites: frames that are carried over, or stale words.
    pub pending: Vec<u32>,
    /// Why the scan could not see everything.
    pub incomplete: Option<&'static str>,
}

impl Scan {
    /// Whether it proves that nothing blind is on the stack.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.hits.is_empty() && self.interrupted.is_empty() && self.incomplete.is_none()
    }
}

/// Scans from the stack pointer `rsp` to the end of its stack, and the stacks that signal frames
/// lead to. `compiled` says that the thread is in code that a compiler made, where no return address is
/// ever below the stack pointer: what is there is the last one that was used. `buffer` is kept between
/// calls, to be allocated once.
pub fn scan(
    memory: &impl ReadMemory,
    maps: &Maps,
    blind: &BlindRanges,
    (rsp, compiled): (u64, bool),
    buffer: &mut Vec<u8>,
) -> Scan {
    let mut scan = Scan::default();
    let mut done: Vec<(u64, u64)> = Vec::new();
    let mut todo = vec![(rsp, if compiled { 0 } else { RED_ZONE })];
    while let Some((rsp, below)) = todo.pop() {
        let from = rsp.saturating_sub(below) & !7;
        if done.iter().any(|(start, end)| *start <= from && from < *end) {
            continue;
        }
        if done.len() == MAX_STACKS {
            scan.incomplete = Some("too many signal stacks");
            break;
        }
        let Some(mapping) = maps.find(ProcAddr(rsp)) else {
            scan.incomplete = Some("its stack pointer leads nowhere");
            continue;
        };
        let from = from.max(mapping.start.0);
        let mut end = mapping.end.0;
        if end - from > LONGEST {
            end = from + LONGEST;
            scan.incomplete = Some("its stack is too large to scan");
        }
        done.push((from, end));
        let frames = one(memory, blind, from, end, buffer, &mut scan);
        for frame in frames {
            let Ok(pc) = memory.read_u64(frame.offset(SAVED_RIP)) else { continue };
            scan.interrupted.extend(blind.counter(pc).blind());
            todo.extend(memory.read_u64(frame.offset(SAVED_RSP)).map(|rsp| (rsp, RED_ZONE)));
        }
    }
    scan
}

/// Scans `[from, end)`; gives the signal frames in it.
fn one(
    memory: &impl ReadMemory,
    blind: &BlindRanges,
    from: u64,
    end: u64,
    buffer: &mut Vec<u8>,
    scan: &mut Scan,
) -> Vec<ProcAddr> {
    let mut frames = Vec::new();
    let mut at = from;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        buffer.resize(len, 0);
        if memory.read(ProcAddr(at), buffer).is_err() {
            scan.incomplete = Some("its stack cannot be read");
            break;
        }
        let (words, _) = buffer.as_chunks::<8>();
        for (index, word) in words.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            if blind.may_hold(word) {
                let at = ProcAddr(at + 8 * index as u64);
                match blind.return_address(word) {
                    Standing::Clear => {}
                    Standing::Site(function) => scan.pending.push(function),
                    Standing::Blind(point) => {
                        scan.hits.push(Hit { at, word: ProcAddr(word), point });
                    }
                }
            } else if SELECTORS.contains(&word) {
                let frame = ProcAddr(at + 8 * index as u64).back(TO_FRAME);
                if frame.0 < from {
                    continue;
                }
                if is_signal_frame(memory, frame) {
                    frames.push(frame);
                } else if let Ok(pc) = memory.read_u64(frame.offset(SAVED_RIP)) {
                    // A restorer of the program's own, perhaps: what it interrupted counts.
                    scan.interrupted.extend(blind.counter(pc).blind());
                }
            }
        }
        at += len as u64;
    }
    frames
}

/// Whether the handler of the frame returns to `rt_sigreturn`.
fn is_signal_frame(memory: &impl ReadMemory, frame: ProcAddr) -> bool {
    let Ok(restorer) = memory.read_u64(frame) else { return false };
    RESTORERS.iter().any(|code| {
        memory.read_vec(ProcAddr(restorer), code.len()).is_ok_and(|found| found == **code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Bias;
    use crate::record::detours::Detours;
    use crate::record::map::AddressMap;
    use crate::target::memory::FakeMemory;
    use dsu_patch_format::plan::{BlindRange, Plan, RedirectForm, Site, SiteKind};
    use dsu_patch_format::{NewAddr, OldAddr};

    fn blind() -> BlindRanges {
        let plan = Plan {
            blind: vec![BlindRange {
                start: OldAddr(0x100),
                end: OldAddr(0x200),
                free: vec![OldAddr(0x100)],
                function: 0,
            }],
            sites: vec![Site {
                at: OldAddr(0x180),
                kind: SiteKind::Return,
                form: RedirectForm::Near,
                stub: NewAddr(0),
                stub_len: 1,
                to: NewAddr(0),
                function: 0,
                expect: vec![0; 5],
                mask: vec![0; 5],
            }],
            ..Plan::default()
        };
        let image = AddressMap::of_image(0, 0x1000, Bias(0x1_0000));
        BlindRanges::new(&plan, &image, &Detours::default())
    }

    fn maps() -> Maps {
        Maps::parse(
            b"20000-22000 rw-p 00000000 00:00 0\n30000-31000 rw-p 00000000 00:00 0\n\
              40000-50000000 rw-p 00000000 00:00 0\n",
        )
    }

    fn words(content: &[(usize, u64)], len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (at, word) in content {
            bytes[*at..*at + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn run(stack: &[(usize, u64)], other: &[(usize, u64)], rsp: u64) -> Scan {
        let memory = FakeMemory(vec![
            (ProcAddr(0x2_0000), words(stack, 0x2000)),
            (ProcAddr(0x3_0000), words(other, 0x1000)),
            (ProcAddr(0x9_0000), RESTORERS[0].to_vec()),
        ]);
        scan(&memory, &maps(), &blind(), (rsp, false), &mut Vec::new())
    }

    #[test]
    fn words_above_the_stack_pointer_count() {
        let content =
            [(0x100, 0x1_0150), (0x1ff8, 0x1_0200), (0x1000, 0x1_0201), (0x1008, 0x1_0100)];
        let found = run(&content, &[], 0x2_1000);
        let at: Vec<_> = found.hits.iter().map(|h| h.at.0).collect();
        assert_eq!(at, [0x2_1ff8], "below the stack pointer, past the end, at the entry: free");
        assert!(!found.is_clean());
        assert!(run(&content, &[], 0x2_2000).incomplete.is_some(), "outside of any stack");
    }

    #[test]
    fn the_red_zone_counts() {
        assert!(!run(&[(0xf88, 0x1_0150)], &[], 0x2_1000).is_clean());
        assert!(run(&[(0xf78, 0x1_0150)], &[], 0x2_1000).is_clean());
        let memory = FakeMemory(vec![(ProcAddr(0x2_0000), words(&[(0xf88, 0x1_0150)], 0x2000))]);
        let at = (0x2_1000, true);
        assert!(scan(&memory, &maps(), &blind(), at, &mut Vec::new()).is_clean(), "compiled code");
    }

    #[test]
    fn the_stack_below_a_signal_stack_counts() {
        let at = |offset: u64| usize::try_from(0x200 + offset).unwrap();
        let frame = [
            (at(0), 0x9_0000),
            (at(SAVED_RSP), 0x2_1800),
            (at(SAVED_RIP), 0x1_0108),
            (at(TO_FRAME), SELECTORS[0]),
        ];
        let found = run(&[(0x1900, 0x1_0110)], &frame, 0x3_0100);
        // The saved rip is seen by the scan as well: it is a word like any other.
        assert!(found.hits.iter().any(|h| h.at.0 == 0x2_1900), "{found:?}");
        assert_eq!(found.interrupted.len(), 1);
        let no_restorer = [(at(0), 0x9_0001), frame[1], frame[3]];
        assert!(run(&[(0x1900, 0x1_0110)], &no_restorer, 0x3_0100).is_clean());
        let own_restorer = [(at(0), 0x9_0001), frame[1], frame[2], frame[3]];
        assert_eq!(run(&[], &own_restorer, 0x3_0100).interrupted.len(), 1);
    }

    #[test]
    fn words_that_lead_to_sites_are_pending() {
        let content = [(0x1100, 0x1_0180), (0x1108, 0x1_0180), (0x1110, 0x1_0181)];
        let found = run(&content, &[], 0x2_1000);
        assert_eq!((found.pending.as_slice(), found.hits.len()), (&[0, 0][..], 1));
        assert_eq!(found.hits[0].word.0, 0x1_0181);
        let found = run(&content[..2], &[], 0x2_1000);
        assert!(found.is_clean() && found.pending.len() == 2);
    }

    #[test]
    fn what_cannot_be_seen_is_not_clean() {
        assert!(run(&[], &[], 0x1000).incomplete.is_some());
        assert!(run(&[], &[], 0x4_0000).incomplete.is_some());
    }
}
