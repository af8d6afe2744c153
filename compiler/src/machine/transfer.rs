//! What each step of a function does to liveness: what it reads, what it overwrites, calls and
//! returns by the calling convention.

use super::calls::{Callee, callee};
use super::convention::{Convention, Defined, RAX, callee_prototype, incoming, landed, prototype};
use super::effects::{Effects, X87};
use super::flow::{End, Flow};
use super::frame::{Frame, Place};
use super::registers::RegisterSet;
use super::slots::{Atoms, Slots};
use crate::image::FunctionId;
use iced_x86::{Mnemonic, OpKind, Register};
use std::collections::BTreeMap;
use std::ops::Range;

/// One step, seen backwards: first it overwrites, then it reads.
#[derive(Debug, Clone)]
pub(super) struct Transfer {
    pub(super) reads: RegisterSet,
    pub(super) kills: RegisterSet,
    pub(super) slot_reads: Vec<Range<usize>>,
    pub(super) slot_kills: Vec<Range<usize>>,
    pub(super) x87: X87,
    /// It is a `push` of a register into a private slot: reads it only if somebody reads the slot, for
    /// compilers use it to lower the stack pointer.
    pub(super) push: bool,
    /// It may go on behind a `setjmp` that was made before.
    pub(super) jumps_back: bool,
    /// It is a copy, whose source is not among what it reads.
    pub(super) copy: Option<Copy>,
    /// It reads these, too, if somebody wants its flags.
    pub(super) flags_of: RegisterSet,
    /// A copy into these counts, though nobody is known to read them.
    pub(super) perhaps: RegisterSet,
}

/// A copy into a general register: of its source those bytes count that do of the register.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    pub(super) to: Register,
    pub(super) from: Source,
}

/// Where a copy is from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Register(Register),
    /// Bytes of the frame.
    Frame(Range<i64>),
}

/// What holds on the way to a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    /// Registers that somebody gave a value.
    pub(super) defined: Defined,
    /// Bytes of the frame written since the last call.
    fresh: Slots,
    /// Bytes of the frame ever written.
    pub(super) written: Slots,
}

/// Where stack arguments lie.
enum Outgoing {
    Known(Range<i64>),
    /// As many as there are.
    Within(Range<i64>),
}

/// All steps of one function.
pub(super) struct Transfers<'a> {
    pub(super) flow: &'a Flow,
    pub(super) frame: &'a Frame,
    pub(super) atoms: Atoms,
    pub(super) effects: Vec<Effects>,
    pub(super) steps: Vec<Transfer>,
    /// Before each step; `None` where no path leads.
    pub(super) reached: Vec<Option<Reached>>,
    /// Whom each block that ends with a call, or leaves, leads to.
    pub(super) callees: BTreeMap<usize, Callee>,
    convention: Convention<'a>,
    own: FunctionId,
    /// Registers that some step changes.
    changed: RegisterSet,
}

impl<'a> Transfers<'a> {
    pub(super) fn new(
        convention: Convention<'a>,
        own: FunctionId,
        flow: &'a Flow,
        frame: &'a Frame,
        effects: Vec<Effects>,
    ) -> Self {
        let mut callees = BTreeMap::new();
        for block in &flow.blocks {
            if leads_out(block.end) {
                let last = block.steps.end - 1;
                callees.insert(last, callee(convention.image, &flow.body.steps[last]));
            }
        }
        let mut out = Self {
            flow,
            frame,
            atoms: Atoms::default(),
            effects,
            steps: Vec::new(),
            reached: Vec::new(),
            callees,
            convention,
            own,
            changed: RegisterSet::default(),
        };
        for effects in &out.effects {
            out.changed.add(&effects.changes);
        }
        out.atoms = out.cut(false);
        out.reached = out.reach();
        out.steps = (0..flow.body.steps.len()).map(|step| out.transfer(step)).collect();
        out
    }

    /// The fixed accesses of a step to the frame: bytes, whether they are read, whether they are
    /// overwritten, whether they may be.
    pub(super) fn accesses(
        &self,
        step: usize,
    ) -> impl Iterator<Item = (Range<i64>, &super::effects::Access)> {
        self.effects[step].memory.iter().filter_map(move |access| {
            match self.frame.place(step, access) {
                Place::Frame(bytes) => Some((bytes, access)),
                _ => None,
            }
        })
    }

    /// The same, told apart by the byte: copies read of their sources what counts of what is copied.
    pub(super) fn by_the_byte(mut self) -> Self {
        self.atoms = self.cut(true);
        self.reached = self.reach();
        self.steps = (0..self.flow.body.steps.len()).map(|step| self.transfer(step)).collect();
        for step in 0..self.steps.len() {
            self.tell_copy(step);
            // Flags are told from all bytes, also where a constant decides some.
            self.steps[step].flags_of = self.effects[step].masked.clone();
        }
        self
    }

    fn tell_copy(&mut self, step: usize) {
        let i = &self.flow.body.steps[step].instruction;
        let moves = matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx);
        if !moves || i.op0_kind() != OpKind::Register || !i.op0_register().is_gpr() {
            return;
        }
        let from = match i.op1_kind() {
            OpKind::Register if i.op1_register().is_gpr() => Source::Register(i.op1_register()),
            OpKind::Memory => match self.accesses(step).map(|(bytes, _)| bytes).next() {
                Some(bytes) => Source::Frame(bytes),
                None => return,
            },
            _ => return,
        };
        let transfer = &mut self.steps[step];
        match from {
            Source::Register(_) => transfer.reads = RegisterSet::default(),
            Source::Frame(_) => transfer.slot_reads.clear(),
        }
        transfer.copy = Some(Copy { to: i.op0_register(), from });
    }

    /// Cuts what steps access, and `finely` the parts of registers that may count of it.
    fn cut(&self, finely: bool) -> Atoms {
        let fixed = (0..self.flow.body.steps.len()).flat_map(|s| self.accesses(s).map(|(b, _)| b));
        let fixed = fixed.flat_map(|bytes| {
            let parts = [1, 2, 4].into_iter().filter(|_| finely).map({
                let bytes = bytes.clone();
                move |size| bytes.start..bytes.end.min(bytes.start.saturating_add(size))
            });
            parts.chain([bytes])
        });
        let saved = self.frame.save_slots().into_iter().map(|at| at..at.saturating_add(8));
        let passed = self.callees.keys().filter_map(|step| match self.outgoing(*step)? {
            Outgoing::Known(area) => Some(area),
            Outgoing::Within(_) => None,
        });
        Atoms::new(fixed.chain(saved).chain(passed).chain(std::iter::once(-8..0)))
    }

    /// Where the stack arguments of a call lie, by the prototype.
    fn outgoing(&self, step: usize) -> Option<Outgoing> {
        let callee = &self.callees[&step];
        let known = callee_prototype(self.convention.image, callee);
        let bytes = known.filter(|p| !p.variadic).map(|p| i64::from(p.stack));
        if self.flow.is_call(step) {
            let top = self.top(step)?;
            return Some(bytes.map_or(Outgoing::Within(top..-8), |b| {
                Outgoing::Known(top..top.saturating_add(b))
            }));
        }
        // A sibling finds its arguments where this function found its own, which has as much room.
        let own = prototype(self.convention.image, self.own).filter(|p| !p.variadic);
        let room = own.map(|p| i64::from(p.stack));
        Some(bytes.or(room).map_or(Outgoing::Within(0..i64::MAX), |b| Outgoing::Known(0..b)))
    }

    /// The stack pointer before a step, as an offset from the CFA.
    fn top(&self, step: usize) -> Option<i64> {
        self.frame.depth(step).and_then(|d| i64::try_from(d).ok()?.checked_neg())
    }

    /// Bytes that a call reads as stack arguments: written since the call before; when the
    /// prototype does not tell how many, as long as there is one such eightbyte after the other
    /// (psABI 3.2.3 pushes each as eightbytes).
    fn stack_arguments(&self, step: usize) -> Vec<Range<usize>> {
        let (area, known) = match self.outgoing(step) {
            Some(Outgoing::Known(area)) => (area, true),
            Some(Outgoing::Within(area)) => (area, false),
            None => return Vec::new(),
        };
        if !self.flow.is_call(step) {
            return vec![self.atoms.within(&area)];
        }
        let Some(reached) = &self.reached[step] else { return Vec::new() };
        let mut out = Vec::new();
        let mut at = area.start;
        while at < area.end {
            let word = self.atoms.touching(&(at..at.saturating_add(8).min(area.end)));
            let fresh: Vec<usize> = word.filter(|atom| reached.fresh.has(*atom)).collect();
            if fresh.is_empty() && !known {
                break;
            }
            out.extend(fresh.into_iter().map(|atom| atom..atom + 1));
            at = at.saturating_add(8);
        }
        out
    }

    /// Forward to the fixpoint.
    fn reach(&self) -> Vec<Option<Reached>> {
        let blocks = &self.flow.blocks;
        let mut before: Vec<Option<Reached>> = vec![None; blocks.len()];
        let mut out = vec![None; self.flow.body.steps.len()];
        let odd = super::convention::is_odd(self.convention.image, &Callee::Function(self.own));
        let known = prototype(self.convention.image, self.own).filter(|_| !odd);
        let mut entry = Reached {
            defined: incoming(known),
            fresh: self.atoms.none(),
            written: self.atoms.none(),
        };
        entry.written.insert(self.atoms.within(&(-8..i64::MAX)));
        if let Some(first) = before.first_mut() {
            *first = Some(entry);
        }
        let mut queue: std::collections::BTreeSet<usize> = (0..before.len().min(1)).collect();
        while let Some(id) = queue.pop_first() {
            let Some(mut state) = before[id].clone() else { continue };
            for step in blocks[id].steps.clone() {
                out[step] = Some(state.clone());
                self.passed(step, &mut state);
            }
            for next in &blocks[id].successors {
                let mut arriving = state.clone();
                if blocks[next.0].landing_pad {
                    arriving.defined = landed();
                }
                let joined = before[next.0].as_ref().map_or_else(
                    || arriving.clone(),
                    |known| {
                        let mut joined = known.clone();
                        joined.defined.add(arriving.defined);
                        joined.fresh.add(&arriving.fresh);
                        joined.written.add(&arriving.written);
                        joined
                    },
                );
                if before[next.0].as_ref() != Some(&joined) {
                    before[next.0] = Some(joined);
                    queue.insert(next.0);
                }
            }
        }
        out
    }

    fn passed(&self, step: usize, state: &mut Reached) {
        let effects = &self.effects[step];
        if self.flow.is_call(step) {
            let callee = &self.callees[&step];
            let gone = Defined::of(&self.convention.destroyed(callee));
            state.defined = state.defined.without(gone);
            state.defined.add(self.convention.results(callee));
            state.fresh.clear();
            return;
        }
        state.defined.add(Defined::of(&effects.changes));
        for (bytes, _) in self.accesses(step).filter(|(_, a)| a.changes) {
            let atoms = self.atoms.within(&bytes);
            state.fresh.insert(atoms.clone());
            state.written.insert(atoms);
        }
    }

    fn transfer(&self, step: usize) -> Transfer {
        let effects = &self.effects[step];
        let mut out = Transfer {
            reads: effects.reads.clone(),
            kills: effects.writes.clone(),
            slot_reads: Vec::new(),
            slot_kills: Vec::new(),
            x87: effects.x87,
            push: false,
            jumps_back: false,
            copy: None,
            flags_of: RegisterSet::default(),
            perhaps: RegisterSet::default(),
        };
        for (bytes, access) in self.accesses(step) {
            if access.reads {
                out.slot_reads.push(self.atoms.touching(&bytes));
            }
            if access.writes {
                out.slot_kills.push(self.atoms.within(&bytes));
            }
        }
        let block = self.flow.block(step);
        if step + 1 == block.steps.end {
            match block.end {
                End::Call | End::NoReturn => self.call(step, &mut out),
                End::TailCall | End::BranchOut => {
                    self.arguments(step, &mut out);
                    out.reads.add(&super::convention::preserved());
                }
                End::Return => out.reads.add(&self.convention.returned(self.own)),
                _ => {}
            }
        }
        out
    }

    /// Says which pushes store nothing that anybody could know the address of.
    pub(super) fn tell_pushes(&mut self, objects: &[Range<i64>]) {
        let private = |bytes: &Range<i64>| {
            objects.iter().all(|o| o.end <= bytes.start || bytes.end <= o.start)
        };
        for step in 0..self.steps.len() {
            let instruction = &self.flow.body.steps[step].instruction;
            let push = instruction.mnemonic() == Mnemonic::Push
                && instruction.op0_kind() == OpKind::Register;
            let push = push && self.accesses(step).all(|(bytes, _)| private(&bytes));
            self.steps[step].push = push;
        }
    }

    fn arguments(&self, step: usize, out: &mut Transfer) {
        let defined = self.reached[step].as_ref().map_or(Defined::ALL, |r| r.defined);
        let callee = &self.callees[&step];
        out.reads.add(&self.convention.arguments(callee, defined, self.al(step)));
        out.perhaps = self.convention.perhaps(callee);
        out.slot_reads.extend(self.stack_arguments(step));
    }

    /// The number in al before a step, where the block gives it one.
    fn al(&self, step: usize) -> Option<u8> {
        let before = self.flow.block(step).steps.start..step;
        let last = before.rev().find(|s| self.effects[*s].changes.general[RAX] != 0)?;
        let i = &self.flow.body.steps[last].instruction;
        let is_rax = i.op0_register().full_register() == Register::RAX;
        if i.op_count() != 2 || !is_rax || i.op0_register() == Register::AH {
            return None;
        }
        match i.mnemonic() {
            Mnemonic::Xor if i.op1_kind() == OpKind::Register => {
                (i.op0_register() == i.op1_register()).then_some(0)
            }
            Mnemonic::Mov => i.try_immediate(1).ok().map(|n| n.to_le_bytes()[0]),
            _ => None,
        }
    }

    fn call(&self, step: usize, out: &mut Transfer) {
        out.kills.add(&self.convention.destroyed(&self.callees[&step]));
        out.jumps_back = !self.flow.returns_twice.is_empty();
        // What lies below is the callee's, the return address first.
        if let Some(top) = self.top(step) {
            out.slot_kills.push(self.atoms.within(&(i64::MIN..top)));
        }
        self.arguments(step, out);
        // An exception, a cancelled thread or a debugger unwinds the frame: it finds the caller's
        // registers by the unwind table (psABI 6.2).
        let mut unsaved = super::convention::preserved();
        unsaved.remove(&self.changed);
        for (register, at) in self.frame.saved(step) {
            if *at < 0 && usize::from(*register) != super::frame::RSP {
                out.slot_reads.push(self.atoms.within(&(*at..at.saturating_add(8))));
                // There, and not in the register, though nothing may have changed that.
                unsaved.general[usize::from(*register)] = 0;
            }
        }
        out.reads.add(&unsaved);
    }

    /// Values on the x87 stack behind a step, as far as its own part of the convention tells.
    pub(super) fn x87_behind(&self, step: usize, after: u8) -> u8 {
        let block = self.flow.block(step);
        if step + 1 == block.steps.end && block.end == End::Return {
            let uses = self.effects.iter().any(|e| e.x87 != X87::default());
            return self.convention.x87_returned(self.own, uses);
        }
        after
    }
}

/// Whether a block ends with control in another function.
fn leads_out(end: End) -> bool {
    matches!(end, End::Call | End::NoReturn | End::TailCall | End::BranchOut)
}
