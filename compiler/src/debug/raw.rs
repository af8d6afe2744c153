//! One unit's entries, read but not yet related to those of other units.
//!
//! References are offsets into all entries of the image: [`Offset`] counts on from `.debug_info`
//! into `.debug_types`, so that one number names an entry of either. Names borrow from the input.

use std::ops::Range;
use std::sync::Arc;

use super::model::{Part, Place, Unit};

/// How the input is read: in place, little-endian.
pub(super) type Input<'a> = gimli::EndianSlice<'a, gimli::LittleEndian>;

/// An entry of the image, by its place in `.debug_info`, or behind it in `.debug_types`.
pub(super) type Offset = u64;

/// An index into [`RawUnit::scopes`].
pub(super) type ScopeId = u32;

/// The scope that the unit itself is.
pub(super) const ROOT: ScopeId = 0;

/// What a unit holds.
#[derive(Debug)]
pub(super) struct RawUnit<'a> {
    /// What is known of the unit as such.
    pub(super) unit: Unit,
    /// The offsets of its entries.
    pub(super) extent: Range<Offset>,
    /// A partial or type unit, which only others refer to.
    pub(super) auxiliary: bool,
    /// Its file table, by the number that `decl_file` uses.
    pub(super) files: Arc<Vec<String>>,
    /// Scopes; a parent comes before its children.
    pub(super) scopes: Vec<RawScope<'a>>,
    /// Types, by rising offset.
    pub(super) types: Vec<RawType<'a>>,
    /// Functions, declarations and abstract instances, by rising offset.
    pub(super) functions: Vec<RawFunction<'a>>,
    /// Variables and static members, by rising offset.
    pub(super) variables: Vec<RawVariable<'a>>,
    /// Partial units that it takes in (DWARF 5, section 3.2.5).
    pub(super) imports: Vec<Offset>,
    /// What could not be read.
    pub(super) damage: Vec<String>,
}

/// What encloses an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawScope<'a> {
    /// What encloses this scope.
    pub(super) parent: ScopeId,
    /// What it is.
    pub(super) kind: ScopeKind<'a>,
}

/// A kind of scope.
#[derive(Debug, Clone, Copy)]
pub(super) enum ScopeKind<'a> {
    /// The unit.
    Root,
    /// A namespace, by name; nameless ones are anonymous.
    Namespace(Option<&'a [u8]>),
    /// A function, by its index in the unit.
    Function(u32),
    /// A type, by its index in the unit.
    Type(u32),
    /// A lexical block, by its number in its parent.
    Block(u32),
}

/// What a declared entity says of itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RawDeclaration<'a> {
    /// Where the entry is.
    pub(super) offset: Offset,
    /// What encloses it.
    pub(super) scope: ScopeId,
    /// DW_AT_name.
    pub(super) name: Option<&'a [u8]>,
    /// DW_AT_linkage_name.
    pub(super) linkage_name: Option<&'a [u8]>,
    /// DW_AT_type.
    pub(super) ty: Option<Offset>,
    /// DW_AT_abstract_origin or DW_AT_specification: the entry that says the rest.
    pub(super) origin: Option<Offset>,
    /// DW_AT_decl_file.
    pub(super) file: Option<u32>,
    /// DW_AT_decl_line, or 0.
    pub(super) line: u32,
    /// DW_AT_external.
    pub(super) external: bool,
    /// DW_AT_declaration.
    pub(super) declaration: bool,
}

/// A type.
#[derive(Debug)]
pub(super) struct RawType<'a> {
    /// The common part; `ty` is what it refers to or is made of.
    pub(super) declared: RawDeclaration<'a>,
    /// What it is.
    pub(super) tag: gimli::DwTag,
    /// Of a stub for a type in a type unit, that type.
    pub(super) definition: Option<Offset>,
    /// DW_AT_byte_size.
    pub(super) size: Option<u64>,
    /// DW_AT_encoding.
    pub(super) encoding: u8,
    /// DW_AT_GNU_vector.
    pub(super) vector: bool,
    /// DW_AT_calling_convention is DW_CC_pass_by_reference.
    pub(super) by_reference: bool,
    /// Members, enumerators, dimensions or parameters.
    pub(super) children: Vec<RawChild<'a>>,
}

/// A part of a type.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawChild<'a> {
    /// What it is.
    pub(super) kind: ChildKind,
    /// DW_AT_name.
    pub(super) name: Option<&'a [u8]>,
    /// DW_AT_type.
    pub(super) ty: Option<Offset>,
}

/// A kind of part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ChildKind {
    /// A data member at a bit offset, of this many bits if a bit-field; not yet placed where the
    /// storage unit's size must be known first.
    Field(Placement),
    /// A base class at a byte offset, `None` if virtual.
    Base(Option<u64>),
    /// The member of a variant, with its discriminant.
    Variant(Placement, Option<u64>),
    /// A constant of an enumeration.
    Enumerator(i64),
    /// A dimension of an array.
    Dimension(Option<u64>),
    /// A parameter of a function type.
    Parameter,
    /// Further parameters.
    Ellipsis,
}

/// Where a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Placement {
    /// From the start of the aggregate.
    pub(super) bits: u64,
    /// Width, of a bit-field.
    pub(super) bit_size: Option<u64>,
    /// Of a bit-field that is placed as in DWARF 3 (section 5.5.6 there, DWARF 4 5.5.6 still
    /// allows it): bits from the most significant end of the storage unit at `bits`, whose byte
    /// size follows, or is that of the type.
    pub(super) from_top: Option<(u64, Option<u64>)>,
}

/// A function: concrete, abstract or only declared.
#[derive(Debug)]
pub(super) struct RawFunction<'a> {
    /// The common part; `ty` is the result.
    pub(super) declared: RawDeclaration<'a>,
    /// Its code, as far as the linker kept it, sorted.
    pub(super) ranges: Vec<Range<u64>>,
    /// Its entry, if it was kept.
    pub(super) low_pc: Option<u64>,
    /// DW_AT_noreturn.
    pub(super) noreturn: bool,
    /// DW_AT_prototyped.
    pub(super) prototyped: bool,
    /// Has unspecified parameters.
    pub(super) variadic: bool,
    /// The type and origin of each parameter.
    pub(super) parameters: Vec<RawParameter>,
    /// Types of its parameters, locals and result.
    pub(super) mentions: Vec<Offset>,
}

/// A parameter of a function.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawParameter {
    /// DW_AT_type.
    pub(super) ty: Option<Offset>,
    /// Has DW_AT_abstract_origin.
    pub(super) has_origin: bool,
}

/// A variable with a static place, or one that such a variable may refer to.
#[derive(Debug)]
pub(super) struct RawVariable<'a> {
    /// The common part.
    pub(super) declared: RawDeclaration<'a>,
    /// Where it is, if the linker kept it; of one that the compiler took apart, where its parts are.
    pub(super) places: Vec<(Place, Option<Part>)>,
    /// In a function's scope.
    pub(super) is_local: bool,
}

/// All units of an image, with access by offset.
#[derive(Debug)]
pub(super) struct RawUnits<'a> {
    /// By rising offset.
    pub(super) units: Vec<RawUnit<'a>>,
}

impl<'a> RawUnits<'a> {
    /// The unit that an entry is in.
    pub(super) fn unit_of(&self, offset: Offset) -> Option<usize> {
        let after = self.units.partition_point(|unit| unit.extent.start <= offset);
        let index = after.checked_sub(1)?;
        self.units[index].extent.contains(&offset).then_some(index)
    }

    /// The type at an offset: its unit, and its index there.
    pub(super) fn type_at(&self, offset: Offset) -> Option<(usize, usize)> {
        let unit = self.unit_of(offset)?;
        let types = &self.units[unit].types;
        let index = types.binary_search_by_key(&offset, |ty| ty.declared.offset).ok()?;
        Some((unit, index))
    }

    /// The function at an offset, and its unit.
    pub(super) fn function_at(&self, offset: Offset) -> Option<(usize, &RawFunction<'a>)> {
        let unit = self.unit_of(offset)?;
        let functions = &self.units[unit].functions;
        let index = functions.binary_search_by_key(&offset, |f| f.declared.offset).ok()?;
        Some((unit, &functions[index]))
    }

    /// The variable at an offset, and its unit.
    pub(super) fn variable_at(&self, offset: Offset) -> Option<(usize, &RawVariable<'a>)> {
        let unit = self.unit_of(offset)?;
        let variables = &self.units[unit].variables;
        let index = variables.binary_search_by_key(&offset, |v| v.declared.offset).ok()?;
        Some((unit, &variables[index]))
    }
}

/// Input text as a string; what is not UTF-8 is replaced.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
