//! Stacks that no thread is on: coroutines of `makecontext` and `swapcontext`, suspended.
//!
//! Takes the images, the mappings and the stopped threads; gives the blind return addresses in memory that
//! may be such a stack. A frame that waits at a site needs no care: it is carried over when it wakes. One
//! that waits at a blind point would go on in OLD code after the commit, and no list of threads shows it.
//!
//! Looked for only in a process one of whose images knows these functions by name: it costs a look at all
//! of its private memory. Conservative, like the scan of stacks: a stale word (a stack that was given
//! back) counts as well, and is named as what it may be. Coroutines of other makes, which switch stacks by
//! code of their own, are not recognized.

use super::blind::{BlindRanges, Standing};
use super::judge::BlindThread;
use crate::address::ProcAddr;
use crate::ptrace::thread::Stopped;
use crate::target::dynamic::Dynamic;
use crate::target::maps::{Mapping, Maps};
use crate::target::memory::ReadMemory;
use crate::target::module::Module;

/// What a program with such coroutines imports (makecontext(3)).
const NAMES: [&[u8]; 2] = [b"\0makecontext\0", b"\0swapcontext\0"];
/// More private memory than this is not read while the process stands still.
const MOST: u64 = 2 << 30;
/// Bytes read at once.
const CHUNK: u64 = 1 << 20;
/// Words reported; one is enough.
const REPORTED: usize = 4;

/// Whether any image imports what makes coroutines. The library that defines it does not count.
pub fn may_be(memory: &impl ReadMemory, modules: &[Module]) -> bool {
    modules.iter().any(|module| {
        let Some(dynamic) = Dynamic::read(memory, module) else { return false };
        if dynamic.find(memory, "makecontext", None).is_some() {
            return false;
        }
        let names = dynamic.names(memory).unwrap_or_default();
        NAMES.iter().any(|name| names.windows(name.len()).any(|part| part == *name))
    })
}

/// A stopped thread's stack pointer and thread pointer.
#[derive(Debug, Clone, Copy)]
pub struct Stand {
    /// The stack pointer.
    pub rsp: u64,
    /// The thread control block, at the upper end of a thread's own stack (pthread_create(3)).
    pub tcb: u64,
}

impl Stand {
    /// Of a stopped thread; `None` when it was killed.
    pub fn of(thread: &Stopped) -> Option<Self> {
        let registers = thread.registers().ok()?;
        Some(Self { rsp: registers.rsp, tcb: registers.fs_base })
    }
}

/// What is in the way, if anything is.
pub fn look(
    memory: &impl ReadMemory,
    maps: &Maps,
    blind: &BlindRanges,
    pid: i32,
    stands: &[Stand],
) -> Option<BlindThread> {
    if blind.is_empty() {
        return None;
    }
    let mut found = BlindThread {
        tid: pid,
        points: Vec::new(),
        step: false,
        goals: Vec::new(),
        waiting: true,
        note: String::new(),
    };
    let parts: Vec<(u64, u64)> =
        maps.0.iter().filter(|m| may_hold_stacks(m)).map(|m| unseen(m, stands)).collect();
    let total: u64 = parts.iter().map(|(start, end)| end - start).sum();
    if total > MOST {
        found.note = format!(
            "the process makes coroutines, whose stacks may be anywhere in {} MiB of memory: too much to look through",
            total >> 20
        );
        return Some(found);
    }
    for (start, end) in parts {
        scan(memory, blind, start, end, &mut found);
        if found.points.len() >= REPORTED {
            break;
        }
    }
    (!found.points.is_empty()).then_some(found)
}

fn may_hold_stacks(mapping: &Mapping) -> bool {
    mapping.readable && mapping.writable && mapping.private
}

/// The part of a mapping in which the threads' own scans have not looked, and which is not the unused
/// part of a thread's own stack, where old return addresses are.
fn unseen(mapping: &Mapping, stands: &[Stand]) -> (u64, u64) {
    let (start, end) = (mapping.start.0, mapping.end.0);
    let on_it = || stands.iter().filter(|s| mapping.contains(ProcAddr(s.rsp)));
    let own = |s: &&Stand| &*mapping.name == "[stack]" || mapping.contains(ProcAddr(s.tcb));
    if on_it().any(|s| own(&s)) {
        return (end, end);
    }
    // From the lowest stack pointer upwards all was scanned, as a thread's stack.
    (start, on_it().map(|s| s.rsp).min().unwrap_or(end))
}

fn scan(
    memory: &impl ReadMemory,
    blind: &BlindRanges,
    start: u64,
    end: u64,
    found: &mut BlindThread,
) {
    let mut at = start.next_multiple_of(8);
    while at < end {
        let len = (end - at).min(CHUNK);
        // What cannot be read holds no stack: a page behind the end of a file, a device.
        let bytes = memory.read_vec(ProcAddr(at), usize::try_from(len).unwrap_or(0));
        let (words, _) = bytes.as_deref().unwrap_or_default().as_chunks::<8>();
        for (index, word) in words.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            if !blind.may_hold(word) {
                continue;
            }
            if let Standing::Blind(point) = blind.return_address(word) {
                let place = ProcAddr(at + 8 * index as u64);
                found.points.push(point);
                found.note = format!(
                    "a return address at {place}, which is on no thread's stack: a coroutine that is suspended there, perhaps"
                );
                if found.points.len() >= REPORTED {
                    return;
                }
            }
        }
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Bias;
    use crate::record::detours::Detours;
    use crate::record::map::AddressMap;
    use crate::target::memory::FakeMemory;
    use dsu_patch_format::OldAddr;
    use dsu_patch_format::plan::{BlindRange, Plan};

    fn blind() -> BlindRanges {
        let range = BlindRange {
            start: OldAddr(0x100),
            end: OldAddr(0x200),
            free: vec![OldAddr(0x100)],
            function: 0,
        };
        let plan = Plan { blind: vec![range], ..Plan::default() };
        BlindRanges::new(
            &plan,
            &AddressMap::of_image(0, 0x1000, Bias(0x1_0000)),
            &Detours::default(),
        )
    }

    fn maps() -> Maps {
        Maps::parse(
            b"20000-22000 rw-p 00000000 00:00 0 [heap]\n30000-31000 rw-p 00000000 00:00 0\n\
              40000-41000 rw-s 00000000 00:00 0\n50000-51000 rw-p 00000000 00:00 0 [stack]\n",
        )
    }

    /// A blind return address at each of these places.
    fn run(places: &[u64], stands: &[Stand]) -> Option<BlindThread> {
        let part = |start: u64, len: usize| {
            let mut bytes = vec![0; len];
            for at in places {
                let inside = at.checked_sub(start).and_then(|o| usize::try_from(o).ok());
                if let Some(word) = inside.and_then(|o| bytes.get_mut(o..o + 8)) {
                    word.copy_from_slice(&0x1_0150u64.to_le_bytes());
                }
            }
            (ProcAddr(start), bytes)
        };
        let memory = FakeMemory(vec![
            part(0x2_0000, 0x2000),
            part(0x3_0000, 0x1000),
            part(0x4_0000, 0x1000),
            part(0x5_0000, 0x1000),
        ]);
        look(&memory, &maps(), &blind(), 7, stands)
    }

    #[test]
    fn a_suspended_stack_in_the_heap_is_in_the_way() {
        let found = run(&[0x2_0800], &[]).expect("found");
        assert_eq!((found.tid, found.points.len()), (7, 1));
        assert!(found.note.contains("0x20800"), "{}", found.note);
        assert_eq!(run(&[], &[]), None);
        assert_eq!(run(&[0x4_0800], &[]), None, "shared memory holds no stack of this process");
    }

    #[test]
    fn what_threads_have_left_on_their_own_stacks_is_not() {
        let main = Stand { rsp: 0x5_0800, tcb: 0 };
        assert_eq!(run(&[0x5_0400], &[main]), None);
        let thread = Stand { rsp: 0x3_0800, tcb: 0x3_0f00 };
        assert_eq!(run(&[0x3_0400], &[thread]), None);
    }

    #[test]
    fn beside_a_running_coroutine_others_may_be_suspended() {
        // It runs on a stack in the heap, with its thread's control block elsewhere.
        let running = Stand { rsp: 0x2_1000, tcb: 0x3_0f00 };
        assert!(run(&[0x2_0400], &[running]).is_some());
        assert_eq!(run(&[0x2_1400], &[running]), None, "the thread's own scan looks there");
    }
}
