//! Which registers a call of a function uses, from the types of its signature (System V psABI
//! x86-64, section 3.2.3).
//!
//! Takes: parameter and result types. Gives: [`Parameters`], or `None` where a type is not known
//! well enough. It classifies eightbytes as the psABI does; what it calls SSEUP goes along with
//! the SSE eightbyte before it and needs no register of its own.

use super::model::{Parameters, Returned};
use super::types::{Encoding, Type, TypeId, TypeKind, TypeTable};

/// Registers that pass INTEGER arguments.
const INTEGER_REGISTERS: u8 = 6;
/// Registers that pass SSE arguments.
const SSE_REGISTERS: u8 = 8;
/// How many parts of one argument are looked at. An argument in registers has at most 16.
const STEPS_LIMIT: usize = 1024;

/// The class of an eightbyte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Class {
    #[default]
    None,
    Integer,
    Sse,
    X87,
}

/// How a value is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    /// In so many registers of each kind.
    Registers(Returned),
    /// On the stack.
    Memory,
    /// By the address of a copy.
    Reference,
}

/// Why a value has no eightbytes.
enum Unclassified {
    /// It goes to memory.
    Memory,
    /// Its type is not known.
    Unknown,
}

/// The registers that a call uses.
pub(super) fn parameters(
    table: &TypeTable,
    types: &[Option<TypeId>],
    result: Option<TypeId>,
    variadic: bool,
) -> Option<Parameters> {
    let mut used = Parameters { variadic, ..Parameters::default() };
    if let Some(result) = result.filter(|result| table.stripped(*result).is_some()) {
        match passing(table, result)? {
            Passing::Registers(registers) => used.result = registers,
            // Its address is passed as a first argument, and returned.
            Passing::Memory if is_x87(table, result) => used.result = x87_result(table, result),
            Passing::Memory | Passing::Reference => {
                used.integer = 1;
                used.result.integer = 1;
            }
        }
    }
    for ty in types {
        let needed = match passing(table, (*ty)?)? {
            Passing::Registers(registers) => registers,
            Passing::Reference => Returned { integer: 1, ..Returned::default() },
            Passing::Memory => {
                used.stack = used.stack.saturating_add(stack_bytes(table, (*ty)?));
                continue;
            }
        };
        let integer = used.integer + needed.integer;
        let sse = used.sse + needed.sse;
        // An argument is never split between registers and the stack.
        if integer > INTEGER_REGISTERS || sse > SSE_REGISTERS {
            used.stack = used.stack.saturating_add(stack_bytes(table, (*ty)?));
        } else {
            (used.integer, used.sse) = (integer, sse);
            used.vector_bytes = used.vector_bytes.max(needed.vector_bytes);
        }
    }
    Some(used)
}

/// What an argument takes on the stack: eightbytes, and what goes lost to its alignment.
fn stack_bytes(table: &TypeTable, id: TypeId) -> u32 {
    let size = table.size(id).unwrap_or(0).min(1 << 20);
    let lost = if size >= 16 { size.min(64) - 8 } else { 0 };
    u32::try_from(size.next_multiple_of(8).max(8) + lost).unwrap_or(u32::MAX)
}

fn passing(table: &TypeTable, id: TypeId) -> Option<Passing> {
    let ty = table.get(table.resolved(id)?)?;
    match ty.kind {
        TypeKind::Aggregate { by_reference: true, .. } => return Some(Passing::Reference),
        TypeKind::Aggregate { complete: false, .. } => return None,
        // Of 128, 256 or 512 bits: one register.
        TypeKind::Array { vector: true, .. } if table.size(id)? >= 16 => {
            let vector_bytes = u8::try_from(table.size(id)?).unwrap_or(64);
            let one = Returned { sse: 1, vector_bytes, ..Returned::default() };
            return Some(Passing::Registers(one));
        }
        _ => {}
    }
    if table.size(id)? > 16 {
        return Some(Passing::Memory);
    }
    let mut classes = [Class::None; 2];
    let mut steps = 0;
    let mut classifier = Classifier { table, classes: &mut classes, steps: &mut steps };
    match classifier.add(id, 0) {
        Ok(()) => {}
        Err(Unclassified::Memory) => return Some(Passing::Memory),
        Err(Unclassified::Unknown) => return None,
    }
    if classes.contains(&Class::X87) {
        return Some(Passing::Memory);
    }
    let mut registers = Returned::default();
    for class in classes {
        match class {
            Class::Integer => registers.integer += 1,
            Class::Sse => registers.sse += 1,
            Class::X87 | Class::None => {}
        }
    }
    if registers.sse > 0 {
        // Of 128 bits where the second eightbyte goes along with the first.
        let wide = classes == [Class::Sse, Class::None] && table.size(id)? > 8;
        registers.vector_bytes = if wide { 16 } else { 8 };
    }
    Some(Passing::Registers(registers))
}

fn is_x87(table: &TypeTable, id: TypeId) -> bool {
    let ty = table.resolved(id).and_then(|id| table.get(id));
    ty.is_some_and(|ty| match ty.kind {
        TypeKind::Base { encoding: Encoding::ComplexFloat } => ty.byte_size == Some(32),
        TypeKind::Base { encoding: Encoding::Float } => is_long_double(ty),
        _ => false,
    })
}

fn is_long_double(ty: &Type) -> bool {
    // __float128 has the same size and encoding, and goes in a vector register.
    ty.byte_size == Some(16) && ty.name.as_deref() == Some("long double")
}

fn x87_result(table: &TypeTable, id: TypeId) -> Returned {
    let x87 = if table.size(id) == Some(32) { 2 } else { 1 };
    Returned { x87, ..Returned::default() }
}

struct Classifier<'c> {
    table: &'c TypeTable,
    classes: &'c mut [Class; 2],
    steps: &'c mut usize,
}

impl Classifier<'_> {
    fn add(&mut self, id: TypeId, at: u64) -> Result<(), Unclassified> {
        *self.steps += 1;
        if *self.steps > STEPS_LIMIT {
            return Err(Unclassified::Unknown);
        }
        let table = self.table;
        let resolved = table.resolved(id).ok_or(Unclassified::Unknown)?;
        let ty = table.get(resolved).ok_or(Unclassified::Unknown)?;
        let size = table.size(resolved).ok_or(Unclassified::Unknown)?;
        match &ty.kind {
            TypeKind::Base { encoding } => self.base(ty, *encoding, at, size),
            TypeKind::Pointer { .. }
            | TypeKind::Reference { .. }
            | TypeKind::MemberPointer { .. }
            | TypeKind::Enum { .. }
            | TypeKind::Unspecified => self.scalar(Class::Integer, at, size),
            TypeKind::Array { vector: true, .. } => self.scalar(Class::Sse, at, size),
            TypeKind::Array { element, .. } => {
                let element = element.ok_or(Unclassified::Unknown)?;
                let step = table.size(element).ok_or(Unclassified::Unknown)?;
                // Sixteen bytes hold no more elements that have a size.
                let count = size.checked_div(step).unwrap_or(0).min(16);
                (0..count).try_for_each(|index| self.add(element, at.saturating_add(index * step)))
            }
            TypeKind::Aggregate { complete: true, members, .. } => {
                members.iter().try_for_each(|member| {
                    let ty = member.ty.ok_or(Unclassified::Unknown)?;
                    let at = at.saturating_add(member.bit_offset / 8);
                    match member.bit_size {
                        Some(_) => self.mark(Class::Integer, at, 1),
                        None => self.add(ty, at),
                    }
                })
            }
            _ => Err(Unclassified::Unknown),
        }
    }

    fn base(
        &mut self,
        ty: &Type,
        encoding: Encoding,
        at: u64,
        size: u64,
    ) -> Result<(), Unclassified> {
        match encoding {
            Encoding::Float if is_long_double(ty) => self.scalar(Class::X87, at, size),
            // The second eightbyte of a 128-bit float is SSEUP.
            Encoding::Float | Encoding::DecimalFloat => self.mark_aligned(Class::Sse, at, size, 8),
            Encoding::ComplexFloat => self.mark_aligned(Class::Sse, at, size / 2, size),
            _ => self.scalar(Class::Integer, at, size),
        }
    }

    fn scalar(&mut self, class: Class, at: u64, size: u64) -> Result<(), Unclassified> {
        self.mark_aligned(class, at, size, size)
    }

    /// Marks `length` bytes of something that is aligned to `align`; an object with an unaligned
    /// part goes to memory.
    fn mark_aligned(
        &mut self,
        class: Class,
        at: u64,
        align: u64,
        length: u64,
    ) -> Result<(), Unclassified> {
        if !at.is_multiple_of(align.clamp(1, 16)) {
            return Err(Unclassified::Memory);
        }
        self.mark(class, at, length)
    }

    fn mark(&mut self, class: Class, at: u64, length: u64) -> Result<(), Unclassified> {
        let end = at.saturating_add(length);
        if end > 16 {
            return Err(Unclassified::Memory);
        }
        for (index, slot) in (0..).zip(self.classes.iter_mut()) {
            let start = index * 8;
            if at < start + 8 && end > start {
                *slot = match (*slot, class) {
                    (Class::None, class) | (class, Class::None) => class,
                    (Class::Integer, _) | (_, Class::Integer) => Class::Integer,
                    (Class::X87, _) | (_, Class::X87) => Class::X87,
                    _ => Class::Sse,
                };
            }
        }
        Ok(())
    }
}
