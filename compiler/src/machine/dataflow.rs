//! Liveness: what may be read before it is written. A backward analysis over blocks, to the fixpoint;
//! registers and bytes of the frame together.

use super::effects::is_high;
use super::flow::BlockId;
use super::frame::RSP;
use super::live::Live;
use super::registers::RegisterSet;
use super::slots::Slots;
use super::transfer::{Source, Transfers};
use std::collections::BTreeSet;
use std::ops::Range;

/// What is live at a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) registers: RegisterSet,
    /// Into which copies count all the same.
    perhaps: RegisterSet,
    pub(super) slots: Slots,
    /// Values on the x87 stack.
    pub(super) x87: u8,
}

/// What is live before each step.
pub(super) fn run(transfers: &Transfers<'_>) -> Vec<Set> {
    let flow = transfers.flow;
    let empty = || Set {
        registers: RegisterSet::default(),
        perhaps: RegisterSet::default(),
        slots: transfers.atoms.none(),
        x87: 0,
    };
    let mut before: Vec<Set> = flow.blocks.iter().map(|_| empty()).collect();
    let mut steps: Vec<Set> = flow.body.steps.iter().map(|_| empty()).collect();
    let mut queue: BTreeSet<usize> = (0..flow.blocks.len()).collect();
    // Bytes of the frame that count when somebody jumps back to a setjmp.
    let mut kept = transfers.atoms.none();
    while let Some(id) = queue.pop_last() {
        let block = &flow.blocks[id];
        let mut set = empty();
        for next in &block.successors {
            let next = &before[next.0];
            set.registers.add(&next.registers);
            set.perhaps.add(&next.perhaps);
            set.slots.add(&next.slots);
            set.x87 = set.x87.max(next.x87);
        }
        for step in block.steps.clone().rev() {
            back(transfers, step, &kept, &mut set);
            steps[step] = set.clone();
        }
        if before[id] != set {
            before[id] = set;
            queue.extend(block.predecessors.iter().map(|p| p.0));
            let now = behind_setjmp(transfers, &before);
            if now != kept {
                kept = now;
                queue.extend(0..flow.blocks.len());
            }
        }
    }
    steps
}

fn behind_setjmp(transfers: &Transfers<'_>, before: &[Set]) -> Slots {
    let mut out = transfers.atoms.none();
    for step in &transfers.flow.returns_twice {
        let point = transfers.flow.return_point(transfers.flow.block_of[*step]);
        if let Some(BlockId(behind)) = point {
            out.add(&before[behind].slots);
        }
    }
    out
}

/// What is live before a step, from what is live behind it.
fn back(transfers: &Transfers<'_>, step: usize, kept: &Slots, set: &mut Set) {
    let transfer = &transfers.steps[step];
    if transfer.jumps_back {
        set.slots.add(kept);
    }
    let wanted = |atoms: &Range<usize>, slots: &Slots| atoms.clone().any(|a| slots.has(a));
    let idle_push = transfer.push
        && !transfer.slot_kills.is_empty()
        && !transfer.slot_kills.iter().any(|atoms| wanted(atoms, &set.slots));
    let copied = transfer.copy.as_ref().map(|copy| {
        let mut counts = set.registers.clone();
        counts.add(&set.perhaps);
        let mut wanted = RegisterSet::default();
        wanted.add_register(copy.to);
        wanted.keep(&counts);
        (&copy.from, wanted.general[copy.to.full_register().number()] >> u8::from(is_high(copy.to)))
    });
    let tests = set.registers.flags & transfer.kills.flags != 0;
    set.registers.remove(&transfer.kills);
    set.perhaps.remove(&transfer.kills);
    set.perhaps.add(&transfer.perhaps);
    for atoms in &transfer.slot_kills {
        set.slots.remove(atoms.clone());
    }
    if !idle_push {
        set.registers.add(&transfer.reads);
    }
    for atoms in &transfer.slot_reads {
        set.slots.insert(atoms.clone());
    }
    if tests {
        set.registers.add(&transfer.flags_of);
    }
    if let Some((from, wanted)) = copied {
        source(transfers, from, wanted, set);
    }
    set.registers.general[RSP] = 0;
    let x87 = &transfer.x87;
    let behind = transfers.x87_behind(step, set.x87);
    let left = if x87.forgets || transfers.flow.is_call(step) { 0 } else { behind };
    set.x87 = x87.needs.max(left.saturating_add_signed(x87.pops).min(8));
}

/// Adds the bytes of a copy's source that count.
fn source(transfers: &Transfers<'_>, from: &Source, wanted: u8, set: &mut Set) {
    match from {
        Source::Register(register) => {
            let mut read = RegisterSet::default();
            read.add_register(*register);
            let number = register.full_register().number();
            read.general[number] &= wanted << u8::from(is_high(*register));
            set.registers.add(&read);
        }
        Source::Frame(bytes) => {
            for (byte, _) in bytes.clone().zip(0..8).filter(|(_, n)| wanted >> n & 1 != 0) {
                set.slots.insert(transfers.atoms.touching(&(byte..byte + 1)));
            }
        }
    }
}

/// What is told of a step: of caller-saved registers only those that somebody gave a value, of the
/// frame what is private.
pub(super) fn told(
    transfers: &Transfers<'_>,
    step: usize,
    set: &Set,
    objects: &[Range<i64>],
) -> Live {
    let mut registers = set.registers.clone();
    if let Some(reached) = &transfers.reached[step] {
        reached.defined.limit(&mut registers);
    }
    let other = [
        (registers.mask != 0, "a mask register"),
        (registers.mmx != 0, "an MMX register"),
        (registers.tile != 0, "a tile register"),
        (set.x87 != 0, "the x87 stack"),
    ];
    let slots = private(transfers, set, objects);
    Live {
        general: registers.general,
        vector: registers.vector,
        flags: registers.flags != 0,
        other: other.into_iter().find(|(is, _)| *is).map(|(_, what)| what),
        slots,
    }
}

/// What is live of the frame and in no object.
fn private(transfers: &Transfers<'_>, set: &Set, objects: &[Range<i64>]) -> Vec<Range<i64>> {
    let mut slots = transfers.atoms.ranges(&set.slots);
    // The return address is where it is in either build.
    for taken in objects.iter().chain([&(-8..0)]) {
        slots = slots.into_iter().flat_map(|s| without(s, taken)).collect();
    }
    slots
}

fn without(slot: Range<i64>, taken: &Range<i64>) -> impl Iterator<Item = Range<i64>> {
    let below = slot.start..slot.end.min(taken.start);
    let above = slot.start.max(taken.end)..slot.end;
    let apart = slot.end <= taken.start || taken.end <= slot.start;
    let parts = if apart { [slot, 0..0] } else { [below, above] };
    parts.into_iter().filter(|r| r.start < r.end)
}
