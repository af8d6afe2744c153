//! What a location expression means.
//!
//! Takes: an expression, the code it holds for, and the function's unwind rows. Decides: which
//! expressions name a register, memory of the frame by its distance from the CFA, or a value that
//! needs no place (DWARF 5, section 2.6.1). Everything else is [`Place::Expression`], of which the register is said that
//! it is computed from, if that is one: for what people are told, not as a place.
//!
//! A stack pointer in an expression is turned into the CFA by the row that holds there. Producers
//! based on LLVM mean the stack pointer as it is in the function's body, also where arguments have
//! been pushed for a call (their frame base is the bare register, and its offsets are computed from
//! the size of the frame): for them the body's depth counts, wherever the code is.

use std::ops::Range;

use gimli::{Expression, Operation};

use super::model::{Piece, Place, Register};
use crate::debug::raw::Input;
use crate::image::{Cfa, UnwindRow};

/// Expressions with more operations are computations.
const OPERATIONS_LIMIT: usize = 64;
/// The processor's numbers.
const RSP: u8 = 4;
const RBP: u8 = 5;

/// What a function does with its stack pointer.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrameView<'r> {
    /// Unwind rows, ascending.
    pub rows: &'r [UnwindRow],
    /// The producer counts from the stack pointer as it is in the body.
    pub body_relative: bool,
    /// CFA minus stack pointer in the body, where that is one number.
    pub body_depth: Option<i64>,
}

impl FrameView<'_> {
    /// `register + offset` as an offset from the CFA, at a point of the code.
    fn cfa_offset(&self, register: u8, offset: i64, pc: u64) -> Option<i64> {
        if register == RSP && self.body_relative {
            return offset.checked_sub(self.body_depth?);
        }
        let row = self.rows.iter().find(|row| row.extent.contains(&pc))?;
        match row.cfa {
            Cfa::Register(number, cfa) if number == register => offset.checked_sub(cfa),
            _ => None,
        }
    }

    /// The same for a frame base, which has one meaning for the whole function.
    fn base_offset(&self, register: u8, offset: i64) -> Option<i64> {
        if register == RSP {
            return offset.checked_sub(self.body_depth?);
        }
        let mut found = self.rows.iter().filter_map(|row| match row.cfa {
            Cfa::Register(number, offset) if number == register => Some(offset),
            _ => None,
        });
        let cfa = found.next()?;
        found.all(|other| other == cfa).then(|| offset.checked_sub(cfa))?
    }

    /// Whether a register may be what the frame is addressed by: rsp always, rbp only in functions
    /// whose unwind rows say so.
    fn is_frame_register(&self, register: u8) -> bool {
        let in_rows =
            |row: &UnwindRow| matches!(row.cfa, Cfa::Register(number, _) if number == register);
        register == RSP || (register == RBP && self.rows.iter().any(in_rows))
    }
}

/// What `DW_OP_fbreg` counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameBase {
    /// The CFA, or what lies this far from it.
    Cfa(i64),
    /// A register with an offset.
    Register(u8, i64),
    /// Unknown.
    Other,
}

/// Reads expressions of one unit, in one function.
#[derive(Clone, Copy)]
pub(super) struct Places<'p, 'a> {
    pub(super) frame: &'p FrameView<'p>,
    pub(super) base: FrameBase,
    pub(super) dwarf: &'p gimli::Dwarf<Input<'a>>,
    pub(super) unit: &'p gimli::Unit<Input<'a>>,
}

type Operations<'a> = Vec<Operation<Input<'a>>>;

impl<'a> Places<'_, 'a> {
    /// Where a variable is in each part of `range`, by one expression.
    pub(super) fn of(
        &self,
        range: &Range<u64>,
        expression: Expression<Input<'a>>,
        out: &mut Vec<(Range<u64>, Place)>,
    ) {
        let Some(operations) = self.operations(expression) else {
            out.push((range.clone(), Place::Expression(None)));
            return;
        };
        let mut start = range.start;
        while start < range.end {
            let end = if self.depends_on_row(&operations) { self.row_end(start) } else { u64::MAX };
            let end = end.min(range.end);
            let place = self.whole(&operations, start);
            match out.last_mut() {
                Some((last, same))
                    if last.end == start && *same == place && start != range.start =>
                {
                    last.end = end;
                }
                _ => out.push((start..end, place)),
            }
            start = end;
        }
    }

    /// The frame base that an expression gives.
    pub(super) fn frame_base(&self, expression: Option<Expression<Input<'a>>>) -> FrameBase {
        let operations = expression.and_then(|expression| self.operations(expression));
        match operations.as_deref() {
            Some([Operation::CallFrameCFA]) => FrameBase::Cfa(0),
            Some([Operation::Register { register }]) => match Register::from_dwarf(register.0) {
                Register::General(number) => FrameBase::Register(number, 0),
                _ => FrameBase::Other,
            },
            Some([Operation::RegisterOffset { register, offset, base_type }])
                if base_type.0 == 0 =>
            {
                match Register::from_dwarf(register.0) {
                    Register::General(number) => FrameBase::Register(number, *offset),
                    _ => FrameBase::Other,
                }
            }
            _ => FrameBase::Other,
        }
    }

    fn operations(&self, expression: Expression<Input<'a>>) -> Option<Operations<'a>> {
        let mut all = Vec::new();
        let mut operations = expression.operations(self.unit.encoding());
        while let Some(operation) = operations.next().ok()? {
            if all.len() == OPERATIONS_LIMIT {
                return None;
            }
            if operation != Operation::Nop {
                all.push(operation);
            }
        }
        Some(all)
    }

    fn depends_on_row(&self, operations: &[Operation<Input<'a>>]) -> bool {
        operations.iter().any(|operation| match operation {
            Operation::RegisterOffset { register, .. } => {
                matches!(Register::from_dwarf(register.0), Register::General(RSP | RBP))
            }
            _ => false,
        })
    }

    /// Where the row that holds at `pc` ends, or the next one begins.
    fn row_end(&self, pc: u64) -> u64 {
        let rows = self.frame.rows;
        let after = rows.partition_point(|row| row.extent.start <= pc);
        let holding = after.checked_sub(1).map(|index| &rows[index].extent);
        let ends = holding.filter(|range| range.contains(&pc)).map(|range| range.end);
        ends.or_else(|| rows.get(after).map(|row| row.extent.start)).unwrap_or(u64::MAX)
    }

    fn whole(&self, operations: &[Operation<Input<'a>>], pc: u64) -> Place {
        let is_piece = |operation: &Operation<_>| matches!(operation, Operation::Piece { .. });
        if !operations.iter().any(is_piece) {
            return self.simple(operations, pc);
        }
        let mut pieces = Vec::new();
        for part in operations.split_inclusive(is_piece) {
            let Some((Operation::Piece { size_in_bits, bit_offset: None }, part)) =
                part.split_last()
            else {
                return Place::Expression(None);
            };
            if size_in_bits % 8 != 0 {
                return Place::Expression(None);
            }
            pieces.push(Piece { bytes: size_in_bits / 8, place: self.simple(part, pc) });
        }
        Place::Pieces(pieces)
    }

    /// A place that is not in pieces.
    fn simple(&self, operations: &[Operation<Input<'a>>], pc: u64) -> Place {
        match operations {
            [] => Place::OptimizedOut,
            [Operation::Register { register }] => Place::Register(Register::from_dwarf(register.0)),
            [Operation::ImplicitValue { data }] if data.len() <= 16 => {
                let mut bytes = [0; 16];
                bytes.iter_mut().zip(data.slice()).for_each(|(to, from)| *to = *from);
                Place::Constant(u128::from_le_bytes(bytes))
            }
            [value @ .., Operation::StackValue] => self.value(value, pc),
            address => match self.address(address, pc) {
                Some(Address::Frame(offset)) => Place::Frame(offset),
                Some(Address::Image(address)) => Place::Address(address),
                None => Place::Expression(None),
            },
        }
    }

    /// What has no place but a value.
    fn value(&self, operations: &[Operation<Input<'a>>], pc: u64) -> Place {
        match operations {
            [Operation::UnsignedConstant { value }] => Place::Constant(u128::from(*value)),
            [Operation::SignedConstant { value }] => {
                Place::Constant(i128::from(*value).cast_unsigned())
            }
            [Operation::EntryValue { expression }] => {
                let inner = Expression(*expression);
                match self.operations(inner).as_deref() {
                    Some([Operation::Register { register }]) => {
                        Place::EntryValue(Register::from_dwarf(register.0))
                    }
                    _ => Place::Expression(None),
                }
            }
            // The value is what is in memory: as good as being there.
            [address @ .., Operation::Deref { size: 8, space: false, base_type }]
                if base_type.0 == 0 =>
            {
                match self.address(address, pc) {
                    Some(Address::Frame(offset)) => Place::Frame(offset),
                    _ => Place::Expression(None),
                }
            }
            _ => match self.address(operations, pc) {
                Some(Address::Frame(offset)) => Place::FrameAddress(offset),
                Some(Address::Image(address)) => Place::AddressValue(address),
                None => self.register_value(operations),
            },
        }
    }

    /// The value of a register that the frame is not addressed by, as it is.
    fn register_value(&self, operations: &[Operation<Input<'a>>]) -> Place {
        match operations {
            [Operation::RegisterOffset { register, offset: 0, base_type }] if base_type.0 == 0 => {
                match Register::from_dwarf(register.0) {
                    Register::General(number) if self.frame.is_frame_register(number) => {
                        Place::Expression(None)
                    }
                    register => Place::Register(register),
                }
            }
            _ => Place::Expression(self.computed_from(operations)),
        }
    }

    /// The one register that a value is made of, by arithmetic alone.
    fn computed_from(&self, operations: &[Operation<Input<'a>>]) -> Option<Register> {
        let mut found = None;
        for operation in operations {
            let register = match operation {
                Operation::RegisterOffset { register, .. } => Register::from_dwarf(register.0),
                operation if is_arithmetic(operation) => continue,
                _ => return None,
            };
            let is_frame =
                matches!(register, Register::General(n) if self.frame.is_frame_register(n));
            if is_frame || found.is_some_and(|found| found != register) {
                return None;
            }
            found = Some(register);
        }
        found
    }

    fn address(&self, operations: &[Operation<Input<'a>>], pc: u64) -> Option<Address> {
        let (first, rest) = operations.split_first()?;
        let start = match first {
            Operation::FrameOffset { offset } => Address::Frame(self.frame_base_offset(*offset)?),
            Operation::CallFrameCFA => Address::Frame(0),
            Operation::RegisterOffset { register, offset, base_type } if base_type.0 == 0 => {
                match Register::from_dwarf(register.0) {
                    Register::General(number) => {
                        Address::Frame(self.frame.cfa_offset(number, *offset, pc)?)
                    }
                    _ => return None,
                }
            }
            Operation::Address { address } => Address::Image(*address),
            Operation::AddressIndex { index } => {
                Address::Image(self.dwarf.address(self.unit, *index).ok()?)
            }
            _ => return None,
        };
        match (rest, start) {
            ([], start) => Some(start),
            ([Operation::PlusConstant { value }], Address::Frame(offset)) => {
                Some(Address::Frame(offset.checked_add_unsigned(*value)?))
            }
            ([Operation::PlusConstant { value }], Address::Image(address)) => {
                Some(Address::Image(address.checked_add(*value)?))
            }
            _ => None,
        }
    }

    fn frame_base_offset(&self, offset: i64) -> Option<i64> {
        match self.base {
            FrameBase::Cfa(base) => base.checked_add(offset),
            FrameBase::Register(register, base) => {
                self.frame.base_offset(register, base.checked_add(offset)?)
            }
            FrameBase::Other => None,
        }
    }
}

/// An address that an expression computes.
enum Address {
    /// CFA + offset.
    Frame(i64),
    /// As linked.
    Image(u64),
}

/// Whether an operation computes, with what is on the expression's stack and numbers alone (DWARF 5, sections 2.5.1.1,
/// 2.5.1.3 and 2.5.1.4).
fn is_arithmetic<R: gimli::Reader>(operation: &Operation<R>) -> bool {
    matches!(
        operation,
        Operation::UnsignedConstant { .. }
            | Operation::SignedConstant { .. }
            | Operation::PlusConstant { .. }
            | Operation::Pick { .. }
            | Operation::Swap
            | Operation::Rot
            | Operation::Drop
            | Operation::Abs
            | Operation::And
            | Operation::Div
            | Operation::Minus
            | Operation::Mod
            | Operation::Mul
            | Operation::Neg
            | Operation::Not
            | Operation::Or
            | Operation::Plus
            | Operation::Shl
            | Operation::Shr
            | Operation::Shra
            | Operation::Xor
            | Operation::Eq
            | Operation::Ge
            | Operation::Gt
            | Operation::Le
            | Operation::Lt
            | Operation::Ne
            | Operation::Convert { .. }
            | Operation::Reinterpret { .. }
    )
}
