//! Objects on the stack whose address is taken: parts of the frame that others may read and write.
//!
//! An address of the frame that flows as a value (stored, passed, in arithmetic), or to which an
//! index is added, makes everything that may be reached from it an object. The debug information
//! says how far that is: the variable there. Without one it is everything up to the next thing that
//! is known to be another.
//!
//! Compilers let temporaries, which no debug information names, share memory with variables. Two
//! things give them away, and make the object before them larger: a slot that is written and never
//! read, and one that is read and was never written. Somebody else does that, by an address.

use super::dataflow::Set;
use super::effects::Access;
use super::frame::{Place, RSP};
use super::live::StackObject;
use super::transfer::Transfers;
use crate::debug::Locals;
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use std::collections::BTreeMap;
use std::ops::Range;

/// An array has at least this many bytes for the question whether an address outside of everything
/// is an array's, biased by an index.
pub(super) const ARRAY: i64 = 9;

/// How an address of the frame is used.
#[derive(Debug, Clone, Default)]
struct Taken {
    /// By which steps.
    steps: Vec<usize>,
    /// Somebody may keep it.
    kept: bool,
    /// An index is added.
    indexed: bool,
}

/// Takes a function's steps and what is live before each; gives its objects by place.
pub(super) fn find(transfers: &Transfers<'_>, live: &[Set], locals: &Locals) -> Vec<StackObject> {
    let taken = taken(transfers, live);
    let mut objects = Extents { transfers, locals, found: Vec::new() };
    for (at, how) in &taken {
        objects.add(*at, how, &taken);
    }
    objects.merge();
    objects.grow(live);
    objects.merge();
    let found = std::mem::take(&mut objects.found);
    found
        .into_iter()
        .map(|(extent, name)| {
            let live = in_use(transfers, &extent, &taken);
            let shared = name.is_some() && is_shared(transfers, locals, &extent, &taken);
            StackObject { extent, name, shared, live }
        })
        .collect()
}

/// Whether some use of an object's address is where none of its variables is in scope.
fn is_shared(
    transfers: &Transfers<'_>,
    locals: &Locals,
    extent: &Range<i64>,
    taken: &BTreeMap<i64, Taken>,
) -> bool {
    let inside = taken.iter().filter(|(at, _)| extent.contains(at));
    inside.flat_map(|(_, how)| &how.steps).any(|step| {
        let pc = transfers.flow.body.steps[*step].address();
        let visible = locals.variables.iter().filter(|local| local.is_in_scope(pc));
        !visible
            .filter_map(crate::debug::Local::extent)
            .any(|whole| whole.start < extent.end && extent.start < whole.end)
    })
}

/// Every address of the frame that is used as more than a fixed place.
fn taken(transfers: &Transfers<'_>, live: &[Set]) -> BTreeMap<i64, Taken> {
    let mut out: BTreeMap<i64, Taken> = BTreeMap::new();
    let mut take = |at: i64, step: usize, indexed: bool| {
        let taken = out.entry(at).or_default();
        taken.steps.push(step);
        taken.indexed |= indexed;
        taken.kept |= !indexed;
    };
    for step in 0..transfers.flow.body.steps.len() {
        if !transfers.frame.is_reached(step) {
            continue;
        }
        for (at, indexed) in uses(transfers, step) {
            take(at, step, indexed);
        }
        for at in lost(transfers, step, live) {
            take(at, step, false);
        }
    }
    out
}

/// Addresses of the frame that a step uses as values, or adds an index to.
fn uses(transfers: &Transfers<'_>, step: usize) -> Vec<(i64, bool)> {
    let instruction = &transfers.flow.body.steps[step].instruction;
    let addresses = transfers.frame.addresses(step);
    let mut out = Vec::new();
    for access in &transfers.effects[step].memory {
        if let Place::Indexed(at) = transfers.frame.place(step, access) {
            out.push((at, true));
        }
    }
    if instruction.mnemonic() == Mnemonic::Lea {
        if let Some(at) = indexed_sum(transfers, step, instruction) {
            out.push((at, true));
        }
        if !instruction.op0_register().is_gpr64() {
            let base = instruction.memory_base();
            out.extend(tracked(&addresses, base).map(|at| (at, true)));
        }
        return out;
    }
    for (number, at) in addresses.iter().enumerate() {
        let Some(at) = at else { continue };
        if is_value(transfers, step, instruction, number) {
            out.push((*at, false));
        }
    }
    out
}

fn tracked(addresses: &super::frame::Addresses, register: Register) -> Option<i64> {
    if register.is_gpr64() { addresses[register.number()] } else { None }
}

/// The part of a `lea` with an index that is known to be in the frame.
fn indexed_sum(transfers: &Transfers<'_>, step: usize, i: &Instruction) -> Option<i64> {
    if i.memory_base() == Register::None || i.memory_index() == Register::None {
        return None;
    }
    match transfers.frame.place(step, &Access::computed(i)) {
        Place::Indexed(at) => Some(at),
        _ => None,
    }
}

/// Whether a step uses a register that holds an address of the frame otherwise than as the base of
/// an access, to make another known address of it, or to compare it.
fn is_value(transfers: &Transfers<'_>, step: usize, i: &Instruction, number: usize) -> bool {
    let reads = transfers.steps[step].reads.general[number] != 0;
    if number == RSP {
        return stores_stack_pointer(i);
    }
    if !reads || i.mnemonic() == Mnemonic::Leave {
        return false;
    }
    let is = |register: Register| register.is_gpr() && register.full_register().number() == number;
    let explicit = (0..i.op_count()).any(|n| {
        let mut factory = InstructionInfoFactory::new();
        let access = factory.info(i).op_access(n);
        let read = !matches!(access, OpAccess::None | OpAccess::Write | OpAccess::CondWrite);
        i.op_kind(n) == OpKind::Register && is(i.op_register(n)) && read
    });
    let tracked = match i.mnemonic() {
        Mnemonic::Mov => i.op0_kind() == OpKind::Register && i.op0_register().is_gpr64(),
        Mnemonic::Add | Mnemonic::Sub => {
            i.op1_kind() != OpKind::Register && i.op0_register().is_gpr64()
        }
        Mnemonic::Inc | Mnemonic::Dec | Mnemonic::Cmp | Mnemonic::Test => true,
        _ => false,
    };
    if explicit {
        return !tracked;
    }
    // As the base of an access, which has its place; a scaled index, and what an instruction reads
    // without saying so (arguments of calls, strings), have none.
    let base = is(i.memory_base()) || (is(i.memory_index()) && i.memory_index_scale() == 1);
    !base
}

/// Whether an instruction puts the stack pointer itself somewhere where it is not followed.
fn stores_stack_pointer(i: &Instruction) -> bool {
    let operand = |n: u32| {
        i.op_count() > n && i.op_kind(n) == OpKind::Register && i.op_register(n) == Register::RSP
    };
    match i.mnemonic() {
        Mnemonic::Mov => operand(1) && i.op0_kind() == OpKind::Memory,
        Mnemonic::Push => operand(0),
        Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Lea => false,
        // Whatever is done to it, it stays the stack pointer.
        _ => !operand(0) && operand(1),
    }
}

/// Addresses that a register holds before a step, and that are not known any more behind it although
/// the register is still read: pointers that go on in a loop.
fn lost(transfers: &Transfers<'_>, step: usize, live: &[Set]) -> Vec<i64> {
    let flow = transfers.flow;
    let before = transfers.frame.addresses(step);
    let changed = &transfers.effects[step].changes.general;
    let destroyed = &transfers.steps[step].kills.general;
    let mut out = Vec::new();
    for next in flow.next(step) {
        let behind = transfers.frame.addresses(next);
        for number in (0..16).filter(|n| *n != RSP) {
            // The address before, unless the step itself makes another.
            let (Some(at), None) = (before[number], behind[number]) else { continue };
            let same = changed[number] == 0 && destroyed[number] == 0;
            if same && live[next].registers.general[number] != 0 {
                out.push(at);
            }
        }
        // An address that this step makes may be unknown where paths meet.
        if let Some((number, at)) = made(transfers, step)
            && behind[number].is_none()
            && live[next].registers.general[number] != 0
        {
            out.push(at);
        }
    }
    out
}

/// The register that a step gives a known address of the frame.
fn made(transfers: &Transfers<'_>, step: usize) -> Option<(usize, i64)> {
    let instruction = &transfers.flow.body.steps[step].instruction;
    let (number, at) = super::frame::computed(instruction, &transfers.frame.addresses(step))?;
    Some((number, at?)).filter(|_| number != RSP)
}

/// Extents of objects as they are found.
struct Extents<'a> {
    transfers: &'a Transfers<'a>,
    locals: &'a Locals,
    found: Vec<(Range<i64>, Option<String>)>,
}

impl Extents<'_> {
    fn add(&mut self, at: i64, how: &Taken, all: &BTreeMap<i64, Taken>) {
        // Of whichever scope: one step may take the address of a variable of several scopes, or be moved
        // out of its own.
        let named = self.locals.object_at(at, None);
        let scalar = named.as_ref().is_none_or(|(extent, _)| length(extent) < ARRAY);
        if how.indexed && scalar {
            // Counted from outside of the array: it may be any.
            self.add_arrays();
        }
        // The end of an array serves loops as a bound, or to count down from.
        if how.kept
            && let Some((before, name)) =
                at.checked_sub(1).and_then(|k| self.locals.object_at(k, None))
            && !before.contains(&at)
            && length(&before) >= ARRAY
        {
            self.found.push((before, Some(name)));
        }
        match named {
            Some((extent, name)) => self.found.push((extent, Some(name))),
            None => self.found.push((at..self.end(at, all), None)),
        }
    }

    fn add_arrays(&mut self) {
        let arrays = self.locals.variables.iter().filter_map(crate::debug::Local::extent);
        let arrays = arrays.filter(|e| length(e) >= ARRAY);
        let named = arrays.filter_map(|e| self.locals.object_at(e.start, None));
        self.found.extend(named.map(|(extent, name)| (extent, Some(name))));
    }

    /// Where something without a name ends at the latest.
    fn end(&self, at: i64, all: &BTreeMap<i64, Taken>) -> i64 {
        let variables = self.locals.variables.iter().filter_map(crate::debug::Local::extent);
        let saved = self.transfers.frame.save_slots();
        let others = variables
            .map(|e| e.start)
            .chain(all.keys().copied())
            .chain(saved)
            .chain([-8])
            .filter(|start| *start > at);
        others.min().unwrap_or(at.saturating_add(8)).max(at.saturating_add(1))
    }

    /// Extents that overlap are one; it has the name of the largest that has one.
    fn merge(&mut self) {
        let mut all = std::mem::take(&mut self.found);
        all.sort_by(|a, b| (a.0.start, a.0.end, &a.1).cmp(&(b.0.start, b.0.end, &b.1)));
        let mut widest = 0;
        for (extent, name) in all {
            match self.found.last_mut() {
                Some((last, known)) if extent.start < last.end => {
                    let size = length(&extent);
                    if name.is_some() && (known.is_none() || size > widest) {
                        *known = name;
                        widest = size;
                    }
                    last.end = last.end.max(extent.end);
                }
                _ => {
                    widest = length(&extent);
                    self.found.push((extent, name));
                }
            }
        }
    }

    /// Takes in slots that somebody else reads or writes, for the function itself does not.
    fn grow(&mut self, live: &[Set]) {
        for slot in self.strange(live) {
            let inside = self.found.iter().any(|(e, _)| e.start < slot.end && slot.start < e.end);
            if inside || self.locals.object_at(slot.start, None).is_some() {
                continue;
            }
            let below = self.found.iter_mut().filter(|(e, _)| e.end <= slot.start);
            if let Some((extent, _)) = below.max_by_key(|(e, _)| e.end) {
                extent.end = slot.end;
            }
        }
    }

    /// Slots that are written and not read afterwards, or read and never written before.
    fn strange(&self, live: &[Set]) -> Vec<Range<i64>> {
        let transfers = self.transfers;
        let saved = transfers.frame.save_slots();
        let mut out = Vec::new();
        for step in 0..transfers.flow.body.steps.len() {
            let Some(reached) = &transfers.reached[step] else { continue };
            let mnemonic = transfers.flow.body.steps[step].instruction.mnemonic();
            let plain = !matches!(
                mnemonic,
                Mnemonic::Push | Mnemonic::Pop | Mnemonic::Call | Mnemonic::Ret | Mnemonic::Leave
            );
            for (bytes, access) in transfers.accesses(step).filter(|_| plain) {
                if bytes.start >= 0 || saved.contains(&bytes.start) {
                    continue;
                }
                let atoms = transfers.atoms.touching(&bytes);
                let next = || transfers.flow.next(step);
                let unread =
                    access.writes && next().all(|n| !atoms.clone().any(|a| live[n].slots.has(a)));
                let unwritten = access.reads && !atoms.clone().any(|a| reached.written.has(a));
                if unread || unwritten {
                    out.push(bytes);
                }
            }
        }
        out.sort_by_key(|r| (r.start, r.end));
        out
    }
}

fn length(range: &Range<i64>) -> i64 {
    range.end.saturating_sub(range.start)
}

/// At which steps an object may hold something that is read later: behind any step that takes its
/// address or accesses it, and before one; or, when somebody may have kept the address, before
/// anything that may use it: calls, and accesses to memory that is not known.
fn in_use(
    transfers: &Transfers<'_>,
    extent: &Range<i64>,
    taken: &BTreeMap<i64, Taken>,
) -> Vec<bool> {
    let flow = transfers.flow;
    let count = flow.body.steps.len();
    // The caller's part of the frame holds something from the beginning.
    if extent.end > 0 {
        return vec![true; count];
    }
    let inside: Vec<&Taken> =
        taken.iter().filter(|(at, _)| reaches(extent, **at)).map(|(_, how)| how).collect();
    let kept = inside.iter().any(|how| how.kept || how.indexed);
    let mut touched = vec![false; count];
    inside.iter().flat_map(|how| &how.steps).for_each(|step| touched[*step] = true);
    for (step, touched) in touched.iter_mut().enumerate() {
        let overlaps = |(bytes, _): (Range<i64>, &Access)| {
            bytes.start < extent.end && extent.start < bytes.end
        };
        *touched |= transfers.accesses(step).any(overlaps);
    }
    let used: Vec<bool> = (0..count)
        .map(|step| {
            let elsewhere = || {
                let mut memory = transfers.effects[step].memory.iter();
                memory.any(|a| transfers.frame.place(step, a) == Place::Elsewhere)
            };
            touched[step] || kept && (transfers.callees.contains_key(&step) || elsewhere())
        })
        .collect();
    let filled = forward(transfers, &touched);
    let read = backward(transfers, &used);
    filled.into_iter().zip(read).map(|(filled, read)| filled && read).collect()
}

/// Whether an address may be one of an object: inside, or its end.
fn reaches(extent: &Range<i64>, at: i64) -> bool {
    extent.start <= at && at <= extent.end
}

/// Steps that come behind one of these.
fn forward(transfers: &Transfers<'_>, from: &[bool]) -> Vec<bool> {
    let mut out = vec![false; from.len()];
    let mut queue: Vec<usize> = (0..from.len()).filter(|s| from[*s]).collect();
    while let Some(step) = queue.pop() {
        for next in transfers.flow.next(step) {
            if !std::mem::replace(&mut out[next], true) {
                queue.push(next);
            }
        }
    }
    out
}

/// Steps that are one of these, or that one comes behind.
fn backward(transfers: &Transfers<'_>, from: &[bool]) -> Vec<bool> {
    let flow = transfers.flow;
    let mut out = vec![false; from.len()];
    let mut queue: Vec<usize> = (0..from.len()).filter(|s| from[*s]).collect();
    while let Some(step) = queue.pop() {
        if std::mem::replace(&mut out[step], true) {
            continue;
        }
        let block = flow.block(step);
        if step > block.steps.start {
            queue.push(step - 1);
        } else {
            queue.extend(block.predecessors.iter().map(|p| flow.blocks[p.0].steps.end - 1));
        }
    }
    out
}
