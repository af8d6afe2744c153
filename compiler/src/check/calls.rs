//! Who is called, with which registers, and what that changes.
//!
//! Takes an image; gives for a call its callee, the registers of its prototype (psABI 3.2.3), the
//! caller-saved registers that it may change with all that it calls, and whether it comes back.

use super::code::Code;
use super::numbers::Given;
use super::rows::Rows;
use super::values::Values;
use crate::debug::Parameters;
use crate::image::{FunctionId, Image, Meaning, Thing};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// A set of registers: bit n is the general one numbered n, bit 16 + n the vector one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Set(pub(super) u64);

/// rbx, rbp, r12 to r15, and rsp (psABI figure 3.4).
pub(super) const CALLEE_SAVED: Set = Set(1 << 3 | 1 << 4 | 1 << 5 | 0xf << 12);
/// All others.
pub(super) const CALLER_SAVED: Set = Set(0xffff_ffff_ffff & !CALLEE_SAVED.0);
/// The callee-saved registers but rsp, by number.
pub(super) const SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];
/// General registers of arguments, in order.
pub(super) const ARGUMENTS: [u8; 6] = [7, 6, 2, 1, 8, 9];

impl Set {
    /// One register, of whatever width.
    pub(super) fn one(register: Register) -> Self {
        let full = register.full_register();
        if full.is_gpr64() {
            Self(1 << full.number())
        } else if full.is_vector_register() {
            Self(1 << (16 + full.number()))
        } else {
            Self(0)
        }
    }

    pub(super) fn general(number: u8) -> Self {
        Self(1 << (number & 15))
    }

    pub(super) fn vector(number: u8) -> Self {
        Self(1 << (16 + (number & 31)))
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Whom an instruction calls, or jumps to for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Callee {
    /// A function of this image.
    Function(FunctionId),
    /// A function of a library, by name.
    Import(String),
    /// A thread-local storage descriptor's resolver, which keeps everything but rax.
    Descriptor,
    /// Through a pointer.
    Unknown,
}

/// What a function does itself.
#[derive(Debug, Default)]
struct Own {
    writes: Set,
    calls: Vec<FunctionId>,
    /// Tail calls among them.
    jumps: Vec<FunctionId>,
    /// Calls what is not known, or jumps there for good.
    unknown_call: bool,
    /// Has a jump that may lead through a table of its own.
    indirect_jump: bool,
    returns: bool,
    /// Jumps for good to what is not known.
    leaves: bool,
    /// While reading: instructions within which a table of jumps was read.
    table_read: u32,
}

/// Between the load from a table of jumps and the jump there are few instructions.
const NEAR: u32 = 16;

/// What is known of the calls of one image.
pub(super) struct Calls<'i> {
    pub(super) image: &'i Image,
    pub(super) rows: Rows<'i>,
    own: Mutex<HashMap<FunctionId, Arc<Own>>>,
    clobbers: Mutex<HashMap<(FunctionId, bool), Set>>,
    jumps_inside: Mutex<HashMap<FunctionId, bool>>,
    /// Whether functions come back with these numbers, within so many calls.
    pub(super) given: Mutex<HashMap<(FunctionId, Given, usize), bool>>,
}

impl<'i> Calls<'i> {
    pub(super) fn new(image: &'i Image) -> Self {
        Self {
            image,
            rows: Rows::new(image),
            own: Mutex::default(),
            clobbers: Mutex::default(),
            jumps_inside: Mutex::default(),
            given: Mutex::default(),
        }
    }

    /// The callee of a call or jump out of the function, as far as the instruction tells.
    pub(super) fn callee(&self, i: &Instruction) -> Callee {
        if i.op0_kind() == OpKind::NearBranch64 {
            return self.entry(i.near_branch_target());
        }
        if i.is_ip_rel_memory_operand()
            && let Some(relocation) = self.image.relocations.get(&i.ip_rel_memory_address())
            && let Meaning::Symbol(symbol, 0) = &relocation.meaning
        {
            return match symbol.defined {
                Some(address) => self.entry(address),
                None => Callee::Import(symbol.name.clone()),
            };
        }
        Callee::Unknown
    }

    fn entry(&self, address: u64) -> Callee {
        match self.image.resolve(address) {
            Thing::Code { function, offset: 0 } => {
                let import = self.image.function(function).import.as_ref();
                import.map_or(Callee::Function(function), |i| Callee::Import(i.name.clone()))
            }
            _ => Callee::Unknown,
        }
    }

    /// The registers of a callee's prototype, where they are known. A clone (`.isra`, `.constprop`,
    /// `.part`) has another one than its source.
    pub(super) fn prototype(&self, callee: &Callee) -> Option<Parameters> {
        match callee {
            Callee::Function(id) => self.own_prototype(*id),
            Callee::Import(name) => self.image.debug.declarations.get(name).copied(),
            Callee::Descriptor | Callee::Unknown => None,
        }
    }

    /// The prototype of a function with code here.
    pub(super) fn own_prototype(&self, id: FunctionId) -> Option<Parameters> {
        let function = self.image.function(id);
        let clone = function.name().trim_start_matches('.').contains('.');
        self.image.declared(function).filter(|_| !clone)?.parameters
    }

    /// The caller-saved registers that a call may change: nothing in them survives for sure.
    pub(super) fn clobbers(&self, callee: &Callee) -> Set {
        self.changed(callee, true)
    }

    /// The caller-saved registers that no compiler relies on behind a call (gcc's `-fipa-ra` relies
    /// on those that a callee which it sees leaves alone). An indirect jump that nobody understands
    /// counts as one within the function: to liveness, relying on too much is no harm, on too little
    /// is.
    pub(super) fn ends(&self, callee: &Callee) -> Set {
        self.changed(callee, false)
    }

    fn changed(&self, callee: &Callee, careful: bool) -> Set {
        match callee {
            Callee::Descriptor => Set::general(0),
            Callee::Import(_) | Callee::Unknown => CALLER_SAVED,
            Callee::Function(id) => self.transitive(*id, careful),
        }
    }

    /// Everything that a function and all that it calls write; `careful` says whether indirect jumps
    /// that nobody understands may lead anywhere.
    fn transitive(&self, id: FunctionId, careful: bool) -> Set {
        if let Some(found) = lock(&self.clobbers).get(&(id, careful)) {
            return *found;
        }
        let mut set = Set::default();
        let mut seen = BTreeSet::from([id]);
        let mut queue = vec![id];
        while let Some(next) = queue.pop() {
            let own = self.own(next);
            set = set.with(own.writes);
            let unknown = own.unknown_call || own.indirect_jump && careful && !self.inside(next);
            if unknown || set.and(CALLER_SAVED) == CALLER_SAVED {
                set = CALLER_SAVED;
                break;
            }
            queue.extend(own.calls.iter().filter(|c| seen.insert(**c)));
        }
        let set = set.and(CALLER_SAVED);
        lock(&self.clobbers).insert((id, careful), set);
        set
    }

    /// Whether all indirect jumps of a function are known to stay inside.
    fn inside(&self, id: FunctionId) -> bool {
        if let Some(found) = lock(&self.jumps_inside).get(&id) {
            return *found;
        }
        let mut code = Code::new(self.image, id);
        let values = Values::new(self, &mut code);
        let leaves = values.callees.iter().any(|(index, callee)| {
            let flow = code.steps[*index].instruction.flow_control();
            flow == FlowControl::IndirectBranch && *callee == Callee::Unknown
        });
        let inside = values.unresolved.is_empty() && !leaves;
        lock(&self.jumps_inside).insert(id, inside);
        inside
    }

    /// Whether a call comes back.
    pub(super) fn returns(&self, callee: &Callee) -> bool {
        match callee {
            Callee::Import(name) => !never_returns(name),
            Callee::Function(id) => self.function_returns(*id, &mut BTreeSet::new()),
            Callee::Descriptor | Callee::Unknown => true,
        }
    }

    fn function_returns(&self, id: FunctionId, seen: &mut BTreeSet<FunctionId>) -> bool {
        let function = self.image.function(id);
        if function.names.iter().any(|n| never_returns(n)) {
            return false;
        }
        if self.image.declared(function).is_some_and(|f| f.noreturn) {
            return false;
        }
        let own = self.own(id);
        // A cycle of tail calls alone adds no way back.
        own.returns
            || own.indirect_jump
            || own.leaves
            || own.jumps.iter().any(|j| seen.insert(*j) && self.function_returns(*j, seen))
    }

    fn own(&self, id: FunctionId) -> Arc<Own> {
        if let Some(found) = lock(&self.own).get(&id) {
            return Arc::clone(found);
        }
        let made = Arc::new(self.read_own(id));
        lock(&self.own).insert(id, Arc::clone(&made));
        made
    }

    fn read_own(&self, id: FunctionId) -> Own {
        let function = self.image.function(id);
        let mut own = Own::default();
        if let Some(import) = &function.import {
            own.unknown_call = true;
            own.returns = !never_returns(&import.name);
            return own;
        }
        let inside = |address: u64| function.parts().any(|p| p.contains(&address));
        let mut factory = InstructionInfoFactory::new();
        for part in function.parts() {
            let bytes = self.image.content(part.start, part.end.saturating_sub(part.start));
            let bytes = bytes.unwrap_or_default();
            own.unknown_call |= bytes.is_empty();
            let mut decoder = Decoder::with_ip(64, &bytes, part.start, DecoderOptions::NONE);
            while decoder.can_decode() {
                let i = decoder.decode();
                if i.is_invalid() {
                    (own.unknown_call, own.leaves) = (true, true);
                    break;
                }
                for used in factory.info(&i).used_registers() {
                    let reads = matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
                    if !reads {
                        own.writes = own.writes.with(Set::one(used.register()));
                    }
                }
                let entry = i.memory_index() != Register::None
                    && matches!(i.memory_index_scale(), 4 | 8)
                    && matches!(i.mnemonic(), Mnemonic::Movsxd | Mnemonic::Mov | Mnemonic::Jmp);
                own.table_read = if entry { NEAR } else { own.table_read.saturating_sub(1) };
                self.add_flow(&mut own, &i, &inside);
            }
        }
        own
    }

    fn add_flow(&self, own: &mut Own, i: &Instruction, inside: &impl Fn(u64) -> bool) {
        match i.flow_control() {
            FlowControl::Return => own.returns = true,
            FlowControl::Call | FlowControl::IndirectCall if i.mnemonic() == Mnemonic::Call => {
                match self.callee(i) {
                    Callee::Function(id) => own.calls.push(id),
                    _ => own.unknown_call = true,
                }
            }
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                if i.op0_kind() == OpKind::NearBranch64 && inside(i.near_branch_target()) {
                    return;
                }
                self.add_jump(own, i);
            }
            FlowControl::IndirectBranch => self.add_jump(own, i),
            FlowControl::Interrupt => own.unknown_call = true,
            _ => {}
        }
    }

    fn add_jump(&self, own: &mut Own, i: &Instruction) {
        match self.callee(i) {
            Callee::Function(id) => {
                own.calls.push(id);
                own.jumps.push(id);
            }
            Callee::Unknown if own.table_read > 0 => own.indirect_jump = true,
            _ => (own.unknown_call, own.leaves) = (true, true),
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Functions of libraries that do not return. Prototypes of libraries do not say.
fn never_returns(name: &str) -> bool {
    const NAMES: [&str; 34] = [
        "abort",
        "exit",
        "_exit",
        "_Exit",
        "quick_exit",
        "__stack_chk_fail",
        "__assert_fail",
        "__assert_perror_fail",
        "__assert",
        "__chk_fail",
        "__fortify_fail",
        "longjmp",
        "_longjmp",
        "siglongjmp",
        "__longjmp_chk",
        "err",
        "errx",
        "verr",
        "verrx",
        "pthread_exit",
        "__pthread_unwind_next",
        "__libc_fatal",
        "__cxa_throw",
        "__cxa_rethrow",
        "__cxa_bad_cast",
        "__cxa_bad_typeid",
        "__cxa_throw_bad_array_new_length",
        "__cxa_throw_bad_array_length",
        "__cxa_pure_virtual",
        "__cxa_deleted_virtual",
        "__cxa_call_unexpected",
        "__clang_call_terminate",
        "_Unwind_Resume",
        "_ZSt9terminatev",
    ];
    // libstdc++: std::__throw_length_error(char const*) and its like.
    NAMES.contains(&name) || (name.starts_with("_ZSt") && name.contains("__throw_"))
}
