//! The calling convention (System V psABI, section 3.2), by the callee's prototype where that can be
//! trusted: what a call reads, leaves and destroys, what a return gives.
//!
//! Prototypes come from the debug information. They do not hold for clones that gcc names `.isra`,
//! `.constprop` or `.part`, nor for local functions of clang, whose arguments its optimizer turns into
//! others without telling. Where a prototype is not known, a call reads the argument registers
//! that this function may have put something into since the call before.

use super::calls::Callee;
use super::clobbers::Clobbers;
use super::frame::is_preserved;
use super::registers::{RegisterSet, STATUS, low};
use crate::debug::{Language, Parameters, Returned};
use crate::image::{FunctionId, Image};

/// rdi, rsi, rdx, rcx, r8, r9 (psABI 3.2.3), by number.
pub(super) const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];
/// Vector registers 0 to 7 pass arguments.
const VECTOR_ARGUMENTS: usize = 8;
/// rax holds the number of vector arguments of a variadic call, r10 the static chain.
pub(super) const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const R10: usize = 10;

/// Registers that hold a value which somebody gave them, a bit each: general by number, vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Defined {
    pub(super) general: u16,
    pub(super) vector: u32,
}

impl Defined {
    pub(super) const ALL: Self = Self { general: u16::MAX, vector: u32::MAX };

    pub(super) fn add(&mut self, other: Self) {
        self.general |= other.general;
        self.vector |= other.vector;
    }

    /// Registers of which some byte is in a set.
    pub(super) fn of(set: &RegisterSet) -> Self {
        let mut out = Self::default();
        for (n, bytes) in set.general.iter().enumerate() {
            out.general |= u16::from(*bytes != 0) << n;
        }
        for (n, bytes) in set.vector.iter().enumerate() {
            out.vector |= u32::from(*bytes != 0) << n;
        }
        out
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self { general: self.general & !other.general, vector: self.vector & !other.vector }
    }

    /// All bytes of the registers.
    pub(super) fn limit(self, set: &mut RegisterSet) {
        for (n, bytes) in set.general.iter_mut().enumerate() {
            if self.general >> n & 1 == 0 {
                *bytes = 0;
            }
        }
        for (n, bytes) in set.vector.iter_mut().enumerate() {
            if self.vector >> n & 1 == 0 {
                *bytes = 0;
            }
        }
    }
}

/// The prototype that callers of a function of the image go by.
pub(super) fn prototype(image: &Image, id: FunctionId) -> Option<Parameters> {
    let function = image.function(id);
    if function.name().contains('.') {
        return None;
    }
    if function.local && image.unit_of(function).is_none_or(|unit| unit.is_clang) {
        return None;
    }
    image.declared(function)?.parameters
}

/// The prototype of whom a call leads to.
pub(super) fn callee_prototype(image: &Image, callee: &Callee) -> Option<Parameters> {
    match callee {
        Callee::Function(id) => prototype(image, *id),
        Callee::Import(name) => image.debug.declarations.get(name).copied(),
        Callee::Inside(_) | Callee::Unknown => None,
    }
}

/// Written by hand, or by nobody knows whom: it may have a convention of its own.
pub(super) fn is_odd(image: &Image, callee: &Callee) -> bool {
    match callee {
        Callee::Function(id) => {
            let unit = image.unit_of(image.function(*id));
            unit.is_none_or(|u| u.language == Language::Assembler)
        }
        Callee::Inside(_) => true,
        Callee::Import(_) | Callee::Unknown => false,
    }
}

/// What the convention says of one image's code, with the widest vector registers that the function at
/// hand uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Convention<'a> {
    pub(super) image: &'a Image,
    pub(super) clobbers: &'a Clobbers,
    /// Bytes of a vector register that an argument or a result may have when no prototype tells.
    pub(super) widest: usize,
    /// The function is C or C++, with at most two registers of each kind for a result.
    pub(super) plain: bool,
}

impl Convention<'_> {
    /// Registers that a call reads as arguments; `al` is what is in that register, if that is known.
    pub(super) fn arguments(
        &self,
        callee: &Callee,
        defined: Defined,
        al: Option<u8>,
    ) -> RegisterSet {
        let known = callee_prototype(self.image, callee);
        let fixed = known.filter(|p| !p.variadic);
        let mut set = RegisterSet::default();
        let vector = fixed.map_or(self.widest, |p| p.vector_bytes.into());
        for (place, number) in ARGUMENTS.into_iter().enumerate() {
            if fixed.is_none_or(|p| place < usize::from(p.integer)) {
                set.general[number] = 0xff;
            }
        }
        for number in 0..VECTOR_ARGUMENTS {
            if fixed.is_none_or(|p| number < usize::from(p.sse)) {
                set.vector[number] = low(vector);
            }
        }
        if fixed.is_none() {
            set.general[RAX] = 1;
            if self.takes_chain(callee) {
                set.general[R10] = 0xff;
            }
            // A variadic callee takes as many vector arguments as al says, and not more (psABI 3.2.3).
            if let Some(passed) = al.filter(|_| known.is_some()) {
                set.vector.iter_mut().skip(passed.into()).for_each(|bytes| *bytes = 0);
            }
            if is_odd(self.image, callee) {
                set.general = [0xff; 16];
                set.vector = [low(self.widest); 32];
            }
            // Of a variadic one at least those that are named.
            let mut named = known.map_or_else(Defined::default, |p| incoming(Some(p)));
            named.add(defined);
            named.limit(&mut set);
        }
        set
    }

    /// Registers in which somebody may pass something to a callee of which nothing is known, though no code
    /// here can mean to.
    pub(super) fn perhaps(&self, callee: &Callee) -> RegisterSet {
        let mut set = RegisterSet::default();
        if callee_prototype(self.image, callee).is_none() {
            set.general[R10] = 0xff;
        }
        set
    }

    /// Whether a callee may want the frame of the function that it is nested in (psABI 3.2.3): gcc
    /// names nested functions like clones. Pointers to them lead to trampolines.
    fn takes_chain(&self, callee: &Callee) -> bool {
        match callee {
            Callee::Function(id) => self.image.function(*id).name().contains('.'),
            Callee::Unknown => !self.plain,
            Callee::Import(_) | Callee::Inside(_) => false,
        }
    }

    /// Registers that a call leaves with something else in them. A callee of which it is known keeps
    /// some (`-fipa-ra`).
    pub(super) fn destroyed(&self, callee: &Callee) -> RegisterSet {
        let kept = |number: u8, vector: bool| match callee {
            Callee::Function(id) if vector => self.clobbers.keeps_vector(*id, number),
            Callee::Function(id) => self.clobbers.keeps_general(*id, number),
            _ => false,
        };
        let mut set = RegisterSet { flags: STATUS, ..RegisterSet::default() };
        for number in (0..16).filter(|n| !is_preserved((*n).into()) && !kept(*n, false)) {
            set.general[usize::from(number)] = 0xff;
        }
        for number in (0..32).filter(|n| !kept(*n, true)) {
            set.vector[usize::from(number)] = u64::MAX;
        }
        // They are not counted for callees.
        (set.mask, set.mmx, set.tile) = (0xff, 0xff, 0xff);
        set
    }

    /// Registers that a call gives its result in.
    pub(super) fn results(&self, callee: &Callee) -> Defined {
        if is_odd(self.image, callee) {
            return Defined::ALL;
        }
        let known = callee_prototype(self.image, callee).map(|p| p.result);
        Defined::of(&self.registers_of(known))
    }

    /// What is read by whom a function returns to: its results, by its own prototype, and the
    /// registers that it must keep.
    pub(super) fn returned(&self, own: FunctionId) -> RegisterSet {
        let declared = self.image.declared(self.image.function(own)).and_then(|d| d.parameters);
        // A clone's result is its source's, or nothing.
        let result = declared.map(|p| p.result);
        let mut set = self.registers_of(result);
        set.add(&preserved());
        set
    }

    /// Registers of a result; without a prototype all that the language may give one in: clang and
    /// rustc return up to three integers, up to four vectors, but not for C and C++.
    fn registers_of(&self, known: Option<Returned>) -> RegisterSet {
        let mut set = RegisterSet::default();
        let most = if self.plain { (2, 2, self.widest) } else { (3, 4, self.widest) };
        let (integer, sse, bytes) =
            known.map_or(most, |r| (r.integer.into(), usize::from(r.sse), r.vector_bytes.into()));
        for number in [RAX, RDX, RCX].into_iter().take(integer) {
            set.general[number] = 0xff;
        }
        for number in 0..sse {
            set.vector[number] = low(bytes);
        }
        set
    }

    /// Values that a function leaves on the x87 stack.
    pub(super) fn x87_returned(&self, own: FunctionId, uses: bool) -> u8 {
        let declared = self.image.declared(self.image.function(own)).and_then(|d| d.parameters);
        declared.map_or(u8::from(uses), |p| p.result.x87)
    }
}

/// Callee-saved registers, but for the stack pointer.
pub(super) fn preserved() -> RegisterSet {
    let mut set = RegisterSet::default();
    for number in (0..16).filter(|n| is_preserved(*n) && *n != super::frame::RSP) {
        set.general[number] = 0xff;
    }
    set
}

/// What a function is given: arguments by its prototype, anything if that is not known, and its
/// caller's callee-saved registers.
pub(super) fn incoming(known: Option<Parameters>) -> Defined {
    let mut set = Defined::of(&preserved());
    set.general |= 1 << super::frame::RSP;
    let Some(parameters) = known else { return Defined::ALL };
    for number in ARGUMENTS.into_iter().take(parameters.integer.into()) {
        set.general |= 1 << number;
    }
    set.vector |= (1u32 << parameters.sse.min(8)) - 1;
    if parameters.variadic {
        set.general |= 1;
        ARGUMENTS.into_iter().for_each(|number| set.general |= 1 << number);
        set.vector |= 0xff;
    }
    set
}

/// What an exception leaves at a landing pad: the exception and its kind (Itanium C++ ABI, 2.5),
/// and callee-saved registers.
pub(super) fn landed() -> Defined {
    let mut set = Defined::of(&preserved());
    set.general |= 1 << super::frame::RSP | 1 << RAX | 1 << RDX;
    set
}
