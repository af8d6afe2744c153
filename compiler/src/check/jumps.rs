//! Which jump tables' addresses registers and slots of the frame may hold.
//!
//! A table's address is made by `lea`, perhaps long before the jump, copied, kept on the stack, and
//! added to what is read from the table. What is followed is the union over all paths: a
//! path that nobody takes (behind a call that in fact does not return) adds to it and hides nothing,
//! where [`Known`](super::values::Known) would know no more. Of a jump through a table the table is
//! among those that its register may come from.
//!
//! A register that was jumped to holds the address of code from there on: neither a table's nor an entry of one, so that
//! nothing that is loaded by it or summed up with it comes from a table.

use super::code::Code;
use super::values::{Place, State, place};
use iced_x86::{FlowControl, Instruction, Mnemonic, OpAccess, OpKind, Register};
use std::collections::{BTreeMap, BTreeSet};

/// What a place may have to do with a table, by the table's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// It is its address, an entry, or the sum of both.
    Any(u64),
    /// It is where a jump through it went to.
    Target(u64),
}

impl Role {
    fn table(self) -> u64 {
        let (Self::Any(table) | Self::Target(table)) = self;
        table
    }
}

/// What each place may have to do with tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bases {
    general: [BTreeSet<Role>; 16],
    /// By offset from the CFA.
    slots: BTreeMap<i64, BTreeSet<Role>>,
}

impl Bases {
    pub(super) fn join(&mut self, other: &Self) {
        for (mine, others) in self.general.iter_mut().zip(&other.general) {
            mine.extend(others);
        }
        for (at, others) in &other.slots {
            self.slots.entry(*at).or_default().extend(others);
        }
    }

    /// The tables that a register may hold the address of, or an entry, or a target.
    pub(super) fn of(&self, register: Register) -> BTreeSet<u64> {
        self.roles(register).iter().map(|role| role.table()).collect()
    }

    fn roles(&self, register: Register) -> &BTreeSet<Role> {
        &self.general[register.full_register().number() & 15]
    }

    /// Executes one instruction. A call keeps everything: under gcc's `-fipa-ra` it may.
    pub(super) fn step(state: &mut State, code: &Code, index: usize) {
        let Some(step) = code.steps.get(index).filter(|_| !code.tables.is_empty()) else { return };
        let i = &step.instruction;
        if i.flow_control() == FlowControl::IndirectBranch && i.op0_kind() == OpKind::Register {
            let jumped = state.bases.of(i.op0_register()).into_iter().map(Role::Target).collect();
            state.bases.general[i.op0_register().full_register().number() & 15] = jumped;
            return;
        }
        let stored = match i.mnemonic() {
            Mnemonic::Push if i.op0_kind() == OpKind::Register => Some(i.op0_register()),
            Mnemonic::Mov if i.op1_kind() == OpKind::Register => Some(i.op1_register()),
            _ => None,
        };
        let stored = stored.map(|r| state.bases.roles(r).clone()).unwrap_or_default();
        for memory in step.info.used_memory() {
            let writes = !matches!(memory.access(), OpAccess::Read | OpAccess::CondRead);
            if let (true, Place::Frame(at)) = (writes, place(state, memory)) {
                state.bases.slots.insert(at, stored.clone());
            }
        }
        let gained = gained(state, code, index);
        for used in step.info.used_registers() {
            let register = used.register();
            match used.access() {
                OpAccess::Write | OpAccess::ReadWrite if register.is_gpr() => {
                    state.bases.general[register.full_register().number() & 15] = gained.clone();
                }
                OpAccess::CondWrite | OpAccess::ReadCondWrite if register.is_gpr() => {
                    let had = &mut state.bases.general[register.full_register().number() & 15];
                    had.extend(&gained);
                }
                _ => {}
            }
        }
    }
}

/// What the registers that an instruction writes may hold then.
fn gained(state: &State, code: &Code, index: usize) -> BTreeSet<Role> {
    let Some(step) = code.steps.get(index) else { return BTreeSet::new() };
    let i = &step.instruction;
    if !derives(i) {
        return BTreeSet::new();
    }
    if i.mnemonic() == Mnemonic::Lea && i.is_ip_rel_memory_operand() {
        let address = i.ip_rel_memory_address();
        return code.tables.get(&address).copied().map(Role::Any).into_iter().collect();
    }
    let mut gained = BTreeSet::new();
    // What is loaded from a table has an index; what is loaded from elsewhere has nothing to do with the
    // registers that it is loaded by.
    let plain = i.mnemonic() != Mnemonic::Lea
        && i.op_count() == 2
        && i.op1_kind() == OpKind::Memory
        && i.memory_index() == Register::None;
    for used in step.info.used_registers() {
        let read = !plain && !matches!(used.access(), OpAccess::Write | OpAccess::CondWrite);
        if read && used.register().is_gpr() && used.register().full_register() != Register::RSP {
            gained
                .extend(state.bases.roles(used.register()).iter().filter(|role| keeps(i, **role)));
        }
    }
    for memory in step.info.used_memory() {
        let of_frame = matches!(memory.base(), Register::RSP | Register::RBP);
        match place(state, memory) {
            Place::Frame(at) => gained.extend(state.bases.slots.get(&at).into_iter().flatten()),
            // Somewhere in the frame: whatever was put there.
            Place::Indexed(_) => gained.extend(state.bases.slots.values().flatten()),
            Place::Elsewhere if of_frame && memory.index() == Register::None => {
                gained.extend(code.tables.iter().copied().map(Role::Any));
            }
            Place::Elsewhere => {}
        }
    }
    gained
}

/// Whether what an instruction makes of a register can have to do with a table if the register has.
fn keeps(i: &Instruction, role: Role) -> bool {
    let computes = matches!(i.mnemonic(), Mnemonic::Add | Mnemonic::Sub | Mnemonic::Lea)
        || (0..i.op_count()).any(|operand| i.op_kind(operand) == OpKind::Memory);
    matches!(role, Role::Any(_)) || !computes
}

/// Whether an instruction copies, loads or adds.
fn derives(i: &Instruction) -> bool {
    use Mnemonic as M;
    let conditional = i.condition_code() != iced_x86::ConditionCode::None && i.op_count() == 2;
    conditional
        || matches!(
            i.mnemonic(),
            M::Mov | M::Movsxd | M::Add | M::Lea | M::Cdqe | M::Xchg | M::Pop | M::Sub
        )
}
