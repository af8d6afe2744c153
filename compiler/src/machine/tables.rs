//! Where indirect jumps lead.
//!
//! A `switch` becomes (gcc and clang, position independent)
//!
//! ```text
//!     cmp    eax, 7            one more case than this, or more
//!     ja     default
//!     lea    rdx, [rip+table]  may be far away, outside of a loop
//!     movsxd rax, [rdx+rax*4]
//!     add    rax, rdx
//!     jmp    rax
//! ```
//!
//! and otherwise `jmp [table+rax*8]`. Takes a body and the edges known so far; follows the jump's
//! register back over every path to the tables that it may come from. What is not of this kind is a
//! call through a pointer in tail position, unless labels of the function have addresses that
//! somebody takes: then nobody knows.

use crate::code::{Body, Step};
use crate::image::{FunctionId, Image, Meaning, SectionKind, Thing};
use iced_x86::{
    ConditionCode, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register, UsedRegister,
};
use std::collections::BTreeSet;

/// Where a function's jump tables lead, whichever jump uses them.
pub(super) fn table_targets(image: &Image, body: &Body) -> Vec<usize> {
    let taken = body.steps.iter().flat_map(|s| &s.references).filter(|r| r.taken);
    let targets = taken.filter_map(|r| crate::change::jump_table(image, body, r.target)).flatten();
    targets.filter(|target| *target < body.steps.len()).collect()
}

/// How far definitions are followed.
const DEPTH: u8 = 8;

/// Resolves the indirect jumps of one function.
pub(super) struct Tables<'a> {
    pub(super) image: &'a Image,
    pub(super) function: FunctionId,
    pub(super) body: &'a Body,
    /// All edges are known that other jumps have: a base that no path defines may be any table.
    pub(super) last: bool,
}

/// Instructions that may come right before each one, by the edges known so far.
pub(super) type Before = Vec<Vec<usize>>;

/// The tables of one jump.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Found {
    /// Where they lead, in their order, with repetitions.
    pub(super) targets: Vec<usize>,
    /// Their addresses.
    pub(super) tables: BTreeSet<u64>,
}

/// Where a register's value comes from.
#[derive(Debug, Default)]
struct Definitions {
    steps: BTreeSet<usize>,
    /// Also from outside the function, or from a call.
    outside: bool,
}

impl Definitions {
    /// The instructions, when they are all there is.
    fn known(self) -> Option<BTreeSet<usize>> {
        (!self.outside && !self.steps.is_empty()).then_some(self.steps)
    }
}

impl Found {
    fn add(&mut self, other: Self) {
        self.targets.extend(other.targets);
        self.tables.extend(other.tables);
    }
}

impl Tables<'_> {
    /// The tables that the indirect jump at a step goes through; `None` when it is no such jump.
    pub(super) fn find(&self, jump: usize, before: &Before) -> Option<Found> {
        let instruction = &self.body.steps[jump].instruction;
        let found = match instruction.op0_kind() {
            OpKind::Memory => self.pointers(jump, before),
            OpKind::Register => {
                let mut found = Found::default();
                let last = self.definitions(instruction.op0_register(), jump, before);
                for definition in last.known()? {
                    found.add(self.computed(definition, before)?);
                }
                Some(found).filter(|f| !f.targets.is_empty())
            }
            _ => None,
        };
        // An entry that leads behind the last instruction: where it goes is not known, nor how far the table.
        let inside = |f: &Found| f.targets.iter().all(|target| *target < self.body.steps.len());
        found.filter(|f| inside(f) && !f.tables.iter().any(|table| self.leads_out(*table)))
    }

    /// Whether the entry behind those of a table that lead to instructions leads to where a part of the function ends, as
    /// compilers fill in a case that cannot be: more entries may follow.
    fn leads_out(&self, table: u64) -> bool {
        let (image, body) = (self.image, self.body);
        let end = image.next_anchor(table);
        let is_end = |to: u64| body.parts.iter().any(|(part, _)| part.end == to);
        let behind = |entries: usize, size: u64| {
            let at = table.checked_add(entries as u64 * size)?;
            (at.checked_add(size)? <= end).then_some(at)
        };
        let distances = crate::change::jump_table(image, body, table).map_or(0, |all| all.len());
        let distance = behind(distances, 4).and_then(|at| {
            let bytes = image.content(at, 4)?;
            let distance = i32::from_le_bytes(bytes.as_ref().try_into().ok()?);
            Some(table.wrapping_add_signed(distance.into()))
        });
        let pointers = crate::change::pointer_targets(image, self.function, body, table);
        let pointer = behind(pointers.map_or(0, |all| all.len()), 8).and_then(|at| {
            match image.relocations.get(&at).map(|relocation| &relocation.meaning) {
                Some(Meaning::Address(to)) => Some(*to),
                _ => image.word(at),
            }
        });
        distance.is_some_and(is_end) || pointer.is_some_and(is_end)
    }

    /// The one table that a register may hold the address of at a load, and where it leads: if nothing but zeros is
    /// behind what are entries for certain.
    pub(super) fn only(
        &self,
        register: Register,
        at: usize,
        before: &Before,
    ) -> Option<(u64, Vec<usize>)> {
        let mut all = self.bases(register, at, before).into_iter();
        let table = all.next().filter(|_| all.next().is_none())?;
        let targets = crate::change::jump_table(self.image, self.body, table)?;
        let inside = |step: &usize| *step < self.body.steps.len();
        let whole = self.bound(at).is_none_or(|cases| cases <= targets.len());
        (whole && targets.iter().all(inside) && self.ends(table, targets.len()))
            .then_some((table, targets))
    }

    /// Whether a table of distances has no more than so many entries: up to what somebody refers to next only zeros follow,
    /// by which what is next is aligned.
    fn ends(&self, table: u64, entries: usize) -> bool {
        let image = self.image;
        let Some(section) = image.section_at(table) else { return false };
        let end = image.next_anchor(table).min(section.end());
        let start = table.saturating_add(4 * entries as u64);
        let rest = image.content(start, end.saturating_sub(start));
        rest.is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    }

    /// Whether an indirect jump that uses no table leaves the function. `used` are the tables of the
    /// function's other jumps.
    pub(super) fn leaves(&self, jump: usize, used: &BTreeSet<u64>) -> bool {
        let step = &self.body.steps[jump];
        let operand = step.references.iter().find(|r| !r.taken && r.access == 8);
        let slot = operand.is_some_and(|r| matches!(self.image.resolve(r.target), Thing::Slot(_)));
        slot || (!self.has_labels(used) && self.frame_is_gone(step))
    }

    /// The targets that an instruction computes: `add offset, table` or a load from a table of
    /// pointers.
    fn computed(&self, at: usize, before: &Before) -> Option<Found> {
        let i = &self.body.steps[at].instruction;
        match i.mnemonic() {
            Mnemonic::Mov if i.op1_kind() == OpKind::Memory => self.pointers(at, before),
            Mnemonic::Add if i.op1_kind() == OpKind::Register => {
                let (a, b) = (i.op0_register(), i.op1_register());
                self.sum(a, b, at, before).or_else(|| self.sum(b, a, at, before))
            }
            Mnemonic::Lea if i.memory_index_scale() == 1 && i.memory_displacement64() == 0 => {
                let (a, b) = (i.memory_base(), i.memory_index());
                self.sum(a, b, at, before).or_else(|| self.sum(b, a, at, before))
            }
            _ => None,
        }
    }

    /// The sum of an offset loaded from a table and the table's address.
    fn sum(&self, offset: Register, table: Register, at: usize, before: &Before) -> Option<Found> {
        let mut out = Found::default();
        let added = self.bases(table, at, before);
        for (load, mut loaded) in self.loads(offset, at, before)? {
            if !loaded.is_subset(&added) {
                return None;
            }
            let guessed = self.last && loaded.is_empty();
            if guessed {
                loaded = self.all();
            }
            for table in loaded {
                let targets = crate::change::jump_table(self.image, self.body, table)?;
                if self.bound(load).is_some_and(|cases| targets.len() < cases) && !guessed {
                    return None;
                }
                out.add(Found { targets, tables: [table].into() });
            }
        }
        Some(out).filter(|f| !f.targets.is_empty())
    }

    /// The instructions that load an offset from a table, and from which: `movsxd`, or without
    /// optimization `mov` with the index scaled beforehand, then `cdqe`.
    fn loads(
        &self,
        offset: Register,
        at: usize,
        before: &Before,
    ) -> Option<Vec<(usize, BTreeSet<u64>)>> {
        let mut out = Vec::new();
        for step in self.definitions(offset, at, before).known()? {
            let i = &self.body.steps[step].instruction;
            let load = i.op_count() == 2
                && i.op1_kind() == OpKind::Memory
                && i.memory_displacement64() == 0;
            if i.mnemonic() == Mnemonic::Movsxd && load && i.memory_index_scale() == 4 {
                out.push((step, self.bases(i.memory_base(), step, before)));
            } else if i.mnemonic() == Mnemonic::Cdqe && offset == Register::RAX {
                out.extend(self.loads(Register::EAX, step, before)?);
            } else if i.mnemonic() == Mnemonic::Mov
                && load
                && i.op0_register() == offset
                && i.memory_index_scale() == 1
            {
                let mut found = self.bases(i.memory_base(), step, before);
                let other = self.bases(i.memory_index(), step, before);
                found.extend(other);
                out.push((step, found));
            } else {
                return None;
            }
        }
        Some(out)
    }

    /// The function's tables of distances.
    fn all(&self) -> BTreeSet<u64> {
        let taken = self.body.steps.iter().flat_map(|s| &s.references).filter(|r| r.taken);
        taken.map(|r| r.target).filter(|t| self.is_table(*t)).collect()
    }

    fn is_table(&self, address: u64) -> bool {
        crate::change::jump_table(self.image, self.body, address).is_some()
    }

    /// The tables of distances that a register may hold the address of. It must hold one: what a
    /// path that nobody takes (behind a call that in fact does not return) leaves there does not
    /// count, and compilers make such addresses by `lea`, copy them, and keep them on the stack, nowhere
    /// else.
    fn bases(&self, register: Register, at: usize, before: &Before) -> BTreeSet<u64> {
        let (mut out, from_stack) = self.copied(register, at, before, DEPTH);
        if from_stack {
            out.extend(self.spilled(before));
        }
        out
    }

    /// The tables whose addresses come to a register by copies between registers, and whether anything
    /// comes from the stack.
    fn copied(
        &self,
        register: Register,
        at: usize,
        before: &Before,
        depth: u8,
    ) -> (BTreeSet<u64>, bool) {
        let (mut out, mut from_stack) = (BTreeSet::new(), false);
        for definition in self.definitions(register, at, before).steps {
            let step = &self.body.steps[definition];
            let i = &step.instruction;
            if let Some(taken) = step.references.iter().find(|r| r.taken) {
                out.extend(self.is_table(taken.target).then_some(taken.target));
            } else if copies(i) && i.op1_kind() == OpKind::Register && depth > 0 {
                let more = self.copied(i.op1_register(), definition, before, depth - 1);
                out.extend(more.0);
                from_stack |= more.1;
            } else {
                from_stack |= copies(i) && i.op1_kind() == OpKind::Memory && is_on_stack(i);
            }
        }
        (out, from_stack)
    }

    /// The tables whose addresses are kept on the stack at some time. What is stored again after it was
    /// loaded from there was stored before.
    fn spilled(&self, before: &Before) -> BTreeSet<u64> {
        let holders = self.holders();
        let mut out = BTreeSet::new();
        for (at, step) in self.body.steps.iter().enumerate() {
            let i = &step.instruction;
            let register = match i.mnemonic() {
                Mnemonic::Push => i.op0_register(),
                Mnemonic::Mov if i.op0_kind() == OpKind::Memory && is_on_stack(i) => {
                    i.op1_register()
                }
                _ => continue,
            };
            if holders.contains(&register) {
                out.extend(self.copied(register, at, before, DEPTH).0);
            }
        }
        out
    }

    /// Registers that hold a table's address somewhere.
    fn holders(&self) -> BTreeSet<Register> {
        let steps = || self.body.steps.iter();
        let takes = |step: &Step| {
            let mut taken = step.references.iter().filter(|r| r.taken);
            taken.any(|r| self.is_table(r.target))
        };
        let made = steps().filter(|step| takes(step));
        let mut holders: BTreeSet<Register> = made.map(|s| s.instruction.op0_register()).collect();
        loop {
            let copied = steps().map(|s| &s.instruction).filter(|i| {
                copies(i) && i.op1_kind() == OpKind::Register && holders.contains(&i.op1_register())
            });
            let more: Vec<Register> =
                copied.map(|i| i.op0_register()).filter(|r| !holders.contains(r)).collect();
            if more.is_empty() {
                return holders;
            }
            holders.extend(more);
        }
    }

    /// The targets of a load, or jump, through a table of pointers.
    fn pointers(&self, at: usize, before: &Before) -> Option<Found> {
        let step = &self.body.steps[at];
        let i = &step.instruction;
        if i.memory_index() == Register::None || i.memory_index_scale() != 8 {
            return None;
        }
        let tables: BTreeSet<u64> = if i.memory_base() == Register::None {
            step.references.iter().filter(|r| !r.taken).map(|r| r.target).collect()
        } else if i.memory_displacement64() == 0 {
            self.addresses(i.memory_base(), at, before, DEPTH)?
        } else {
            return None;
        };
        let mut out = Found::default();
        for table in tables {
            // In writable memory it need not be what it was.
            let kind = self.image.section_at(table)?.kind;
            if kind == SectionKind::Data {
                return None;
            }
            let targets =
                crate::change::pointer_targets(self.image, self.function, self.body, table)?;
            if self.bound(at).is_some_and(|cases| targets.len() < cases) {
                return None;
            }
            out.add(Found { targets, tables: [table].into() });
        }
        Some(out).filter(|f| !f.targets.is_empty())
    }

    /// The addresses that a register may hold, when they are all taken by `lea` or `mov`.
    fn addresses(
        &self,
        register: Register,
        at: usize,
        before: &Before,
        depth: u8,
    ) -> Option<BTreeSet<u64>> {
        let mut out = BTreeSet::new();
        for definition in self.definitions(register, at, before).known()? {
            let step = &self.body.steps[definition];
            let i = &step.instruction;
            if let Some(taken) = step.references.iter().find(|r| r.taken) {
                out.insert(taken.target);
            } else if i.mnemonic() == Mnemonic::Mov && i.op1_kind() == OpKind::Register && depth > 0
            {
                out.extend(self.addresses(i.op1_register(), definition, before, depth - 1)?);
            } else {
                return None;
            }
        }
        (!out.is_empty()).then_some(out)
    }

    /// The instructions that write a register last before a step, over every known path.
    fn definitions(&self, register: Register, at: usize, before: &Before) -> Definitions {
        let full = register.full_register();
        let mut found = Definitions::default();
        let mut seen = vec![false; self.body.steps.len()];
        let mut queue = vec![at];
        let mut factory = InstructionInfoFactory::new();
        while let Some(step) = queue.pop() {
            found.outside |= step == 0;
            for &earlier in &before[step] {
                if std::mem::replace(&mut seen[earlier], true) {
                    continue;
                }
                let i = &self.body.steps[earlier].instruction;
                let called = matches!(
                    i.flow_control(),
                    FlowControl::Call | FlowControl::IndirectCall | FlowControl::Interrupt
                );
                if called && !is_preserved(full) {
                    found.outside = true;
                    continue;
                }
                let info = factory.info(i);
                let access = info.used_registers().iter().filter(|u| {
                    !matches!(u.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None)
                        && u.register().full_register() == full
                });
                let access: Vec<OpAccess> = access.map(UsedRegister::access).collect();
                if !access.is_empty() {
                    found.steps.insert(earlier);
                }
                let kept =
                    |a: &OpAccess| matches!(a, OpAccess::CondWrite | OpAccess::ReadCondWrite);
                if access.iter().all(kept) {
                    queue.push(earlier);
                }
            }
        }
        found
    }

    /// How many cases the check before a load from a table lets through. The check is looked for in
    /// what comes straight before it.
    fn bound(&self, load: usize) -> Option<usize> {
        let mut index = self.body.steps[load].instruction.memory_index().full_register();
        for at in (load.saturating_sub(12)..load).rev() {
            let i = &self.body.steps[at].instruction;
            match i.mnemonic() {
                Mnemonic::Cmp
                    if i.op0_kind() == OpKind::Register
                        && i.op0_register().full_register() == index =>
                {
                    let checked = self.body.steps.get(at + 1).is_some_and(|s| {
                        matches!(s.instruction.mnemonic(), Mnemonic::Ja | Mnemonic::Jbe)
                    });
                    let last = usize::try_from(i.try_immediate(1).ok()?).ok()?;
                    return if checked { last.checked_add(1) } else { None };
                }
                Mnemonic::Mov | Mnemonic::Movzx
                    if i.op0_kind() == OpKind::Register
                        && i.op0_register().full_register() == index =>
                {
                    if i.op1_kind() != OpKind::Register {
                        return None;
                    }
                    index = i.op1_register().full_register();
                }
                _ if i.op_count() > 0
                    && i.op0_kind() == OpKind::Register
                    && i.op0_register().full_register() == index =>
                {
                    return None;
                }
                _ => {}
            }
        }
        None
    }

    /// Whether somebody has the address of an instruction inside: the function takes it, has a table
    /// that no jump is known to use, or some pointer of the image leads there.
    fn has_labels(&self, used: &BTreeSet<u64>) -> bool {
        let entry = self.image.function(self.function).address;
        let inside = |address: u64| address != entry && self.body.index_at(address).is_some();
        let mut taken = self.body.steps.iter().flat_map(|s| &s.references).filter(|r| r.taken);
        let orphan = |table: u64| !used.contains(&table) && self.is_table(table);
        taken.any(|r| inside(r.target) || orphan(r.target))
            || self.image.relocations.values().any(|r| match r.meaning {
                Meaning::Address(address) => inside(address),
                _ => false,
            })
            || self.image.fixed
                && self.image.static_relocations.iter().any(|r| {
                    r.kind == object::elf::R_X86_64_64 && self.image.word(r.at).is_some_and(inside)
                })
    }

    /// Whether the frame is gone at a jump, as it is at a call in tail position (psABI 3.2.2); also
    /// where no unwind table can tell.
    fn frame_is_gone(&self, step: &Step) -> bool {
        use crate::image::Cfa;
        let entry = self.image.unwind_entry(step.address());
        entry.is_none_or(|e| {
            e.row_at(step.address()).is_some_and(|row| row.cfa == Cfa::Register(4, 8))
        })
    }
}

/// Whether an instruction does nothing but copy, perhaps on a condition.
fn copies(i: &Instruction) -> bool {
    let moved = i.condition_code() != ConditionCode::None && i.op_count() == 2;
    i.mnemonic() == Mnemonic::Mov || moved
}

/// Whether the memory operand is in the frame, at a fixed place.
fn is_on_stack(i: &Instruction) -> bool {
    matches!(i.memory_base(), Register::RSP | Register::RBP) && i.memory_index() == Register::None
}

/// Callee-saved registers (psABI 3.2.1).
pub(crate) fn is_preserved(register: Register) -> bool {
    matches!(
        register,
        Register::RBX
            | Register::RBP
            | Register::R12
            | Register::R13
            | Register::R14
            | Register::R15
            | Register::RSP
    )
}
