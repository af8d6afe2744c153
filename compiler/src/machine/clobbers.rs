//! Which caller-saved registers a function changes, its callees included.

use crate::code::decode;
use crate::image::{FunctionId, Image, Thing};
use iced_x86::{FlowControl, InstructionInfoFactory, OpAccess, Register};
use rayon::prelude::*;

/// A set of caller-saved registers: rax rcx rdx rsi rdi r8-r11, then the vector registers 0 to 31,
/// mask registers not kept by anybody (psABI 3.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Registers(u64);

const GENERAL: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

impl Registers {
    /// All of them: what a call to unknown code may change.
    pub(super) const ALL: Self = Self((1 << 41) - 1);

    /// The set of one register, of whatever width; empty for callee-saved ones.
    pub(super) fn one(register: Register) -> Self {
        let full = register.full_register();
        if let Some(bit) = GENERAL.iter().position(|r| *r == full) {
            return Self(1 << bit);
        }
        if full.is_zmm() {
            return Self(1 << (9 + (full as u32 - Register::ZMM0 as u32)));
        }
        Self(0)
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

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Some register of the set.
    pub(super) fn first(self) -> Option<Register> {
        let bit = (self.0 != 0).then(|| self.0.trailing_zeros())?;
        GENERAL.get(bit as usize).copied().or_else(|| Some(Register::XMM0 + (bit - 9)))
    }
}

/// The clobbers of every function of an image.
#[derive(Debug)]
pub struct Clobbers(Vec<Registers>);

impl Clobbers {
    /// Own writes, then those of callees to the fixpoint.
    pub fn new(image: &Image) -> Self {
        let direct: Vec<(Registers, Vec<FunctionId>)> =
            (0..image.functions.len()).into_par_iter().map(|i| own(image, FunctionId(i))).collect();
        let mut all: Vec<Registers> = direct.iter().map(|(r, _)| *r).collect();
        let mut moved = true;
        while moved {
            moved = false;
            for (i, (_, callees)) in direct.iter().enumerate() {
                let with = callees.iter().fold(all[i], |set, c| set.with(all[c.0]));
                moved |= with != all[i];
                all[i] = with;
            }
        }
        Self(all)
    }

    /// Whether a function, its callees included, leaves a general register as it was.
    #[must_use]
    pub fn keeps_general(&self, id: FunctionId, number: u8) -> bool {
        let register = Register::RAX + u32::from(number);
        self.of(id).and(Registers::one(register)).is_empty()
    }

    /// Whether it leaves a vector register as it was.
    #[must_use]
    pub fn keeps_vector(&self, id: FunctionId, number: u8) -> bool {
        self.of(id).and(Registers::one(Register::XMM0 + u32::from(number))).is_empty()
    }

    pub(super) fn of(&self, id: FunctionId) -> Registers {
        self.0[id.0]
    }
}

/// What a function's own instructions write, and whom it calls or jumps to.
fn own(image: &Image, id: FunctionId) -> (Registers, Vec<FunctionId>) {
    let function = image.function(id);
    if function.import.is_some() {
        return (Registers::ALL, Vec::new());
    }
    let body = decode(image, function);
    let mut set = if body.opaque.is_some() { Registers::ALL } else { Registers::default() };
    let mut callees = Vec::new();
    let mut factory = InstructionInfoFactory::new();
    for step in &body.steps {
        for used in factory.info(&step.instruction).used_registers() {
            if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None) {
                set = set.with(Registers::one(used.register()));
            }
        }
        match step.instruction.flow_control() {
            FlowControl::IndirectCall | FlowControl::Interrupt => set = Registers::ALL,
            FlowControl::Call
            | FlowControl::UnconditionalBranch
            | FlowControl::ConditionalBranch => {
                for r in step.references.iter().filter(|r| body.index_at(r.target).is_none()) {
                    match image.resolve(r.target) {
                        Thing::Code { function, .. } => callees.push(function),
                        _ => set = Registers::ALL,
                    }
                }
            }
            // A jump table stays inside; an indirect tail call leads anywhere.
            FlowControl::IndirectBranch
                if super::tables::table_targets(image, &body).is_empty() =>
            {
                set = Registers::ALL;
            }
            _ => {}
        }
    }
    (set, callees)
}
