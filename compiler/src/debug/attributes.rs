//! The attributes of one entry, by meaning instead of by form.
//!
//! Takes: the forms of DWARF 2 to 5 (DWARF 5, section 7.5.6) and GNU's. Decides: what a missing or
//! unusable value is, which is `None` or 0 and never an error; only an entry whose length cannot be
//! told ends the reading of its unit. Gives: [`Attributes`].

use std::collections::HashMap;
use std::ops::Range;

use gimli::{AttributeValue, Dwarf, Operation, Reader};

use super::model::{Part, Place};
use super::raw::{Input, Offset};
use super::sections::Extents;

/// The most address ranges that one function may have. gcc makes two, profile-guided layouts a
/// few; more is damage, and would let a small file claim much memory.
const RANGES_LIMIT: usize = 64;
/// Parts of one variable at most.
const PARTS_LIMIT: usize = 256;

/// The longest name that is read. Symbols of generic code have thousands of bytes; a longer one is
/// damage, and as any number of entries may share it, would let a small file claim much memory.
pub(super) const NAME_LIMIT: usize = 1 << 16;

/// Where `high_pc` ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum HighPc {
    /// At an address.
    Address(u64),
    /// So far behind `low_pc`.
    Length(u64),
}

/// DW_AT_data_member_location.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum MemberLocation {
    /// None: 0 (DWARF 5, section 5.7.6).
    #[default]
    Absent,
    /// Bytes.
    Bytes(u64),
    /// Found at run time.
    Computed,
}

/// A bound of an array's dimension.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Bound {
    /// None.
    #[default]
    Absent,
    /// A constant.
    Constant(i64),
    /// Found at run time.
    Computed,
}

/// What an entry says.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    pub(super) name: Option<&'a [u8]>,
    pub(super) linkage_name: Option<&'a [u8]>,
    pub(super) ty: Option<Offset>,
    pub(super) origin: Option<Offset>,
    /// Its definition is in a type unit (DWARF 5, section 5.7.1); `None` if that is nowhere.
    pub(super) definition: Option<Option<Offset>>,
    pub(super) import: Option<Offset>,
    pub(super) low_pc: Option<u64>,
    pub(super) high_pc: Option<HighPc>,
    pub(super) ranges: Option<AttributeValue<Input<'a>>>,
    pub(super) location: Option<gimli::Expression<Input<'a>>>,
    pub(super) byte_size: Option<u64>,
    pub(super) bit_size: Option<u64>,
    pub(super) bit_offset: Option<u64>,
    pub(super) data_bit_offset: Option<u64>,
    pub(super) member_location: MemberLocation,
    pub(super) upper_bound: Bound,
    pub(super) count: Bound,
    pub(super) lower_bound: i64,
    pub(super) const_value: Option<i64>,
    pub(super) discriminant: Option<u64>,
    pub(super) encoding: u8,
    pub(super) external: bool,
    pub(super) declaration: bool,
    pub(super) noreturn: bool,
    pub(super) prototyped: bool,
    pub(super) vector: bool,
    pub(super) is_virtual: bool,
    pub(super) by_reference: bool,
    pub(super) file: Option<u32>,
    pub(super) line: u32,
}

/// What attributes refer to.
#[derive(Clone, Copy)]
pub(super) struct Context<'c, 'a> {
    /// All sections.
    pub(super) dwarf: &'c Dwarf<Input<'a>>,
    /// The unit being read.
    pub(super) unit: &'c gimli::Unit<Input<'a>>,
    /// Where the unit begins.
    pub(super) base: Offset,
    /// Types by signature (DWARF 5, section 7.32).
    pub(super) signatures: &'c HashMap<u64, Offset>,
    /// What of the image is code and data.
    pub(super) extents: &'c Extents,
}

impl<'c, 'a> Context<'c, 'a> {
    /// Takes in one attribute.
    #[inline]
    pub(super) fn add(&self, to: &mut Attributes<'a>, attribute: &gimli::Attribute<Input<'a>>) {
        use gimli::constants as dw;
        let value = attribute.value();
        match attribute.name() {
            dw::DW_AT_name => to.name = self.text(value),
            dw::DW_AT_linkage_name | dw::DW_AT_MIPS_linkage_name => {
                to.linkage_name = self.text(value);
            }
            dw::DW_AT_type => to.ty = self.reference(value),
            dw::DW_AT_abstract_origin | dw::DW_AT_specification => {
                to.origin = self.reference(value);
            }
            dw::DW_AT_import => to.import = self.reference(value),
            dw::DW_AT_signature => to.definition = Some(self.reference(value)),
            dw::DW_AT_low_pc => to.low_pc = self.address(value),
            dw::DW_AT_high_pc => {
                to.high_pc = match self.address(value) {
                    Some(address) => Some(HighPc::Address(address)),
                    None => value.udata_value().map(HighPc::Length),
                };
            }
            dw::DW_AT_ranges => to.ranges = Some(value),
            dw::DW_AT_location => to.location = value.exprloc_value(),
            dw::DW_AT_byte_size => to.byte_size = value.udata_value(),
            dw::DW_AT_bit_size => to.bit_size = value.udata_value(),
            dw::DW_AT_bit_offset => to.bit_offset = value.udata_value(),
            dw::DW_AT_data_bit_offset => to.data_bit_offset = value.udata_value(),
            dw::DW_AT_data_member_location => to.member_location = self.member_location(value),
            dw::DW_AT_upper_bound => to.upper_bound = bound(value),
            dw::DW_AT_count => to.count = bound(value),
            dw::DW_AT_lower_bound => to.lower_bound = value.sdata_value().unwrap_or(0),
            dw::DW_AT_const_value => to.const_value = constant(value),
            dw::DW_AT_discr_value => {
                to.discriminant = constant(value).map(i64::cast_unsigned);
            }
            dw::DW_AT_encoding => {
                if let AttributeValue::Encoding(encoding) = value {
                    to.encoding = encoding.0;
                }
            }
            dw::DW_AT_external => to.external = is_set(value),
            dw::DW_AT_declaration => to.declaration = is_set(value),
            dw::DW_AT_noreturn => to.noreturn = is_set(value),
            dw::DW_AT_prototyped => to.prototyped = is_set(value),
            dw::DW_AT_GNU_vector => to.vector = is_set(value),
            dw::DW_AT_virtuality => {
                to.is_virtual = value == AttributeValue::Virtuality(dw::DW_VIRTUALITY_virtual);
            }
            dw::DW_AT_calling_convention => {
                to.by_reference =
                    value == AttributeValue::CallingConvention(dw::DW_CC_pass_by_reference);
            }
            dw::DW_AT_decl_file => {
                to.file = match value {
                    AttributeValue::FileIndex(index) => u32::try_from(index).ok(),
                    _ => None,
                };
            }
            dw::DW_AT_decl_line => {
                to.line =
                    value.udata_value().and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
            }
            _ => {}
        }
    }

    pub(super) fn text(&self, value: AttributeValue<Input<'a>>) -> Option<&'a [u8]> {
        let text = self.dwarf.attr_string(self.unit, value).ok()?;
        Some(text.slice()).filter(|text| text.len() <= NAME_LIMIT)
    }

    pub(super) fn address(&self, value: AttributeValue<Input<'a>>) -> Option<u64> {
        self.dwarf.attr_address(self.unit, value).ok().flatten()
    }

    pub(super) fn reference(&self, value: AttributeValue<Input<'a>>) -> Option<Offset> {
        match value {
            AttributeValue::UnitRef(offset) => self.base.checked_add(offset.0 as u64),
            AttributeValue::DebugInfoRef(offset) => Some(offset.0 as u64),
            AttributeValue::DebugTypesRef(signature) => self.signatures.get(&signature.0).copied(),
            _ => None,
        }
    }

    fn member_location(&self, value: AttributeValue<Input<'a>>) -> MemberLocation {
        if let Some(bytes) = value.udata_value() {
            return MemberLocation::Bytes(bytes);
        }
        let AttributeValue::Exprloc(expression) = value else {
            return MemberLocation::Computed;
        };
        // DWARF 2 and 3 gave constant offsets as an expression, too (DWARF 3, section 5.5.6).
        let mut operations = expression.operations(self.unit.encoding());
        match (operations.next(), operations.next()) {
            (Ok(Some(Operation::PlusConstant { value })), Ok(None)) => MemberLocation::Bytes(value),
            _ => MemberLocation::Computed,
        }
    }

    /// Where a variable lives, if it is static and the linker kept it: as a whole, or in pieces, which
    /// clang makes of structures that are used by their members alone (DWARF 5, section 2.6.1.2).
    pub(super) fn places(
        &self,
        expression: gimli::Expression<Input<'a>>,
    ) -> Vec<(Place, Option<Part>)> {
        let mut operations = expression.operations(self.unit.encoding());
        let (mut places, mut offset, mut location) = (Vec::new(), 0u64, Vec::new());
        while let Ok(Some(operation)) = operations.next()
            && places.len() < PARTS_LIMIT
        {
            let Operation::Piece { size_in_bits, bit_offset } = operation else {
                location.push(operation);
                continue;
            };
            // Pieces of bits, and what is behind them, are not followed.
            if size_in_bits % 8 != 0 || bit_offset.is_some() {
                return places;
            }
            let piece = Part { offset, bytes: size_in_bits / 8 };
            let place = self.place(&std::mem::take(&mut location));
            places.extend(place.map(|place| (place, Some(piece))));
            let Some(next) = offset.checked_add(piece.bytes) else { return places };
            offset = next;
        }
        if offset == 0 {
            places.extend(self.place(&location).map(|place| (place, None)));
        }
        places
    }

    fn place(&self, location: &[Operation<Input<'a>>]) -> Option<Place> {
        let (first, rest) = location.split_first()?;
        let start = match *first {
            Operation::Address { address } => address,
            Operation::AddressIndex { index } | Operation::ConstantIndex { index } => {
                self.dwarf.address(self.unit, index).ok()?
            }
            Operation::UnsignedConstant { value } => value,
            Operation::SignedConstant { value } => u64::try_from(value).ok()?,
            _ => return None,
        };
        let is_constant =
            matches!(first, Operation::UnsignedConstant { .. } | Operation::SignedConstant { .. });
        match rest {
            [] if !is_constant => self.kept(start, 0),
            // clang places merged globals so.
            [Operation::PlusConstant { value }] if !is_constant => self.kept(start, *value),
            [Operation::TLS] => Some(Place::Tls(start)),
            _ => None,
        }
    }

    fn kept(&self, start: u64, addend: u64) -> Option<Place> {
        let address = start.checked_add(addend)?;
        self.extents.has_memory(start).then_some(Place::Address(address))
    }

    /// The code of a function, as far as the linker kept it: its entry, and its ranges.
    pub(super) fn code(&self, entry: &Attributes<'a>) -> (Option<u64>, Vec<Range<u64>>) {
        let mut ranges = Vec::new();
        if let Some(list) = entry.ranges {
            // A list that ends in damage is used up to there.
            if let Ok(Some(mut list)) = self.dwarf.attr_ranges(self.unit, list) {
                while let Ok(Some(range)) = list.next()
                    && ranges.len() < RANGES_LIMIT
                {
                    ranges.push(range.begin..range.end);
                }
            }
        } else if let (Some(low), Some(high)) = (entry.low_pc, entry.high_pc) {
            let high = match high {
                HighPc::Address(high) => high,
                HighPc::Length(length) => low.saturating_add(length),
            };
            ranges.push(low..high);
        }
        ranges.retain(|range| !range.is_empty() && self.extents.has_code(range.start));
        // The entry is DW_AT_entry_pc, else low_pc, else the first range's start (DWARF 5, section
        // 2.18); compilers list the hot part, which has the entry, first.
        let entry_pc = entry.low_pc.filter(|low| ranges.iter().any(|range| range.start == *low));
        let low_pc = entry_pc.or_else(|| ranges.first().map(|range| range.start));
        ranges.sort_by_key(|range| (range.start, range.end));
        ranges.dedup();
        (low_pc, ranges)
    }
}

fn is_set(value: AttributeValue<Input<'_>>) -> bool {
    value == AttributeValue::Flag(true)
}

fn bound(value: AttributeValue<Input<'_>>) -> Bound {
    match constant(value) {
        Some(constant) => Bound::Constant(constant),
        None => Bound::Computed,
    }
}

/// A constant of any form and sign, wider ones none: DW_FORM_data1 to 8 do not tell the sign, and
/// producers use them where the value is not negative, or fills the form.
fn constant(value: AttributeValue<Input<'_>>) -> Option<i64> {
    match value {
        AttributeValue::Data1(value) => Some(value.into()),
        AttributeValue::Data2(value) => Some(value.into()),
        AttributeValue::Data4(value) => Some(value.into()),
        AttributeValue::Data8(value) | AttributeValue::Udata(value) => Some(value.cast_signed()),
        AttributeValue::Sdata(value) => Some(value),
        AttributeValue::Block(block) if block.len() <= 8 => {
            // Rust gives 128-bit discriminants as blocks; no longer ones occur.
            let mut bytes = [0; 8];
            bytes.get_mut(..block.len())?.copy_from_slice(block.slice());
            Some(i64::from_le_bytes(bytes))
        }
        _ => None,
    }
}

impl Attributes<'_> {
    /// The length of an array's dimension, if it is constant.
    pub(super) fn dimension(&self) -> Option<u64> {
        match (self.count, self.upper_bound) {
            (Bound::Constant(count), _) => Some(u64::try_from(count).unwrap_or(0)),
            (Bound::Absent, Bound::Constant(upper)) => {
                let count = upper.checked_sub(self.lower_bound)?.checked_add(1)?;
                Some(u64::try_from(count).unwrap_or(0))
            }
            _ => None,
        }
    }
}
