//! Types as plain data: structural, each once, resolved over units.
//!
//! Takes nothing from DWARF itself ([`merge`](super::merge) fills the table). Gives: [`Type`] by
//! [`TypeId`], what a type is behind its names and qualifiers, and its size. Chains end after
//! [`CHAIN_LIMIT`] steps, so that damaged input cannot make a query run forever.

use super::model::{FileId, UnitId};

/// How far typedefs, qualifiers and array elements are followed.
pub(super) const CHAIN_LIMIT: usize = 64;

/// A type of this image: an index into [`TypeTable::types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// What the bits of a base type mean (DWARF 5, section 5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// DW_ATE_signed.
    Signed,
    /// DW_ATE_unsigned.
    Unsigned,
    /// DW_ATE_signed_char.
    SignedChar,
    /// DW_ATE_unsigned_char.
    UnsignedChar,
    /// DW_ATE_UTF, UCS, ASCII: a character type of its own.
    Character,
    /// DW_ATE_boolean.
    Boolean,
    /// DW_ATE_float, imaginary_float.
    Float,
    /// DW_ATE_complex_float.
    ComplexFloat,
    /// DW_ATE_decimal_float.
    DecimalFloat,
    /// DW_ATE_address.
    Address,
    /// Any other, by its DW_ATE number.
    Other(u8),
}

/// What qualifies a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Qualifier {
    /// `const`.
    Const,
    /// `volatile`.
    Volatile,
    /// `restrict`.
    Restrict,
    /// `_Atomic`.
    Atomic,
    /// Any other modifier (DWARF 5, section 5.3).
    Other,
}

/// The keyword that an aggregate was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateKind {
    /// `struct`; also Rust's tuples and enums with data.
    Struct,
    /// `union`.
    Union,
    /// `class`.
    Class,
}

impl AggregateKind {
    /// The keyword.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Struct => "struct",
            Self::Union => "union",
            Self::Class => "class",
        }
    }
}

/// What a member of an aggregate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberKind {
    /// A data member.
    Field,
    /// A base class at a fixed offset.
    Base,
    /// A virtual base class: its offset is found at run time, `bit_offset` is 0.
    VirtualBase,
    /// The member of one variant of a Rust enum: lives only while the discriminant has this value
    /// (`None`: any value that no other variant has).
    Variant(Option<u64>),
}

/// A data member or base class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name; `None` for base classes, anonymous structs and unions.
    pub name: Option<String>,
    /// From the start of the aggregate.
    pub bit_offset: u64,
    /// Of a bit-field, its width.
    pub bit_size: Option<u64>,
    /// Its type.
    pub ty: Option<TypeId>,
    /// What it is.
    pub kind: MemberKind,
}

/// A named constant of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Enumerator {
    /// Its name.
    pub name: String,
    /// Its value; that of an unsigned 64-bit enumeration as two's complement.
    pub value: i64,
}

/// What a type is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeKind {
    /// A base type.
    Base {
        /// What its bits mean.
        encoding: Encoding,
    },
    /// A pointer; `None` is `void *`.
    Pointer {
        /// What it points to.
        to: Option<TypeId>,
    },
    /// A C++ reference.
    Reference {
        /// What it refers to.
        to: Option<TypeId>,
    },
    /// A C++ pointer to member.
    MemberPointer {
        /// The type of the member.
        to: Option<TypeId>,
    },
    /// An array.
    Array {
        /// Its element.
        element: Option<TypeId>,
        /// Elements by dimension; `None` where it is not constant or not given (`[]`).
        dimensions: Vec<Option<u64>>,
        /// A vector type (`__m128`), passed and kept in vector registers.
        vector: bool,
    },
    /// A struct, union or class.
    Aggregate {
        /// Which.
        kind: AggregateKind,
        /// Its data members and bases, in the order of their declaration.
        members: Vec<Member>,
        /// Defined here; otherwise only declared, with no members and no size.
        complete: bool,
        /// Of a declared one: the definition elsewhere in this image, when only one fits its name.
        definition: Option<TypeId>,
        /// Passed by a hidden reference (DW_CC_pass_by_reference).
        by_reference: bool,
    },
    /// An enumeration.
    Enum {
        /// The type its values are kept as.
        underlying: Option<TypeId>,
        /// Its values are signed.
        signed: bool,
        /// Its constants, in the order of their declaration.
        enumerators: Vec<Enumerator>,
    },
    /// A function type.
    Function {
        /// What it returns; `None` is `void`.
        result: Option<TypeId>,
        /// What it takes.
        parameters: Vec<Option<TypeId>>,
        /// It takes further arguments.
        variadic: bool,
    },
    /// Another name for a type.
    Typedef {
        /// The type; `None` is `void`.
        to: Option<TypeId>,
    },
    /// A qualified type.
    Qualified {
        /// How.
        qualifier: Qualifier,
        /// The type; `None` is `void`.
        to: Option<TypeId>,
    },
    /// A type without known structure (`decltype(nullptr)`, `!`, kinds that C, C++ and Rust lack).
    Unspecified,
}

/// A type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    /// Its name, with namespaces and enclosing classes. A struct, union, class or enum without a
    /// name has that of its first typedef.
    pub name: Option<String>,
    /// `name` is that of a typedef.
    pub named_by_typedef: bool,
    /// Its size in bytes, as its own entry gives it; see [`TypeTable::size`].
    pub byte_size: Option<u64>,
    /// What it is made of.
    pub kind: TypeKind,
    /// The file of its declaration.
    pub decl_file: Option<FileId>,
    /// The line of its declaration; 0 when unknown.
    pub decl_line: u32,
    /// The units that have it, sorted (aggregates and enums; empty for others).
    pub units: Vec<UnitId>,
}

/// All types of an image. Types that are equal in all units are one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeTable {
    /// By [`TypeId`].
    pub types: Vec<Type>,
}

impl TypeTable {
    /// The type of this id. An id of another image gives another type, or none.
    pub fn get(&self, id: TypeId) -> Option<&Type> {
        self.types.get(id.0 as usize)
    }

    /// All types with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        // There are less than 2^32 types: they are numbered so.
        (0..).map(TypeId).zip(&self.types)
    }

    /// The type behind typedefs and qualifiers; `None` is `void`, or a chain without end.
    pub fn stripped(&self, id: TypeId) -> Option<TypeId> {
        let mut id = id;
        for _ in 0..CHAIN_LIMIT {
            match self.get(id)?.kind {
                TypeKind::Typedef { to } | TypeKind::Qualified { to, .. } => id = to?,
                _ => return Some(id),
            }
        }
        None
    }

    /// As [`stripped`](Self::stripped), with a declared aggregate replaced by its definition where
    /// that is known.
    pub fn resolved(&self, id: TypeId) -> Option<TypeId> {
        let id = self.stripped(id)?;
        match self.get(id)?.kind {
            TypeKind::Aggregate { definition: Some(definition), .. } => Some(definition),
            _ => Some(id),
        }
    }

    /// What a pointer or reference points to, behind typedefs and qualifiers of both; `None` for
    /// other types and for `void *`.
    pub fn pointee(&self, id: TypeId) -> Option<TypeId> {
        match self.get(self.stripped(id)?)?.kind {
            TypeKind::Pointer { to } | TypeKind::Reference { to } => self.resolved(to?),
            _ => None,
        }
    }

    /// The size of an object of a type, if it is known and constant. A flexible array has size 0.
    pub fn size(&self, id: TypeId) -> Option<u64> {
        let mut id = id;
        let mut count: u64 = 1;
        for _ in 0..CHAIN_LIMIT {
            id = self.resolved(id)?;
            let ty = self.get(id)?;
            let next = match &ty.kind {
                TypeKind::Array { .. } if ty.byte_size.is_some() => None,
                TypeKind::Array { element, dimensions, .. } => {
                    for dimension in dimensions {
                        count = count.checked_mul(dimension.unwrap_or(0))?;
                    }
                    Some((*element)?)
                }
                TypeKind::Enum { underlying, .. } if ty.byte_size.is_none() => Some((*underlying)?),
                TypeKind::Pointer { .. } | TypeKind::Reference { .. } => {
                    return count.checked_mul(ty.byte_size.unwrap_or(8));
                }
                _ => None,
            };
            match next {
                Some(next) => id = next,
                None => return count.checked_mul(ty.byte_size?),
            }
        }
        None
    }

    /// Whether objects of a type do not change: const-qualified, or an array of such.
    pub fn is_const(&self, id: TypeId) -> bool {
        let mut id = id;
        for _ in 0..CHAIN_LIMIT {
            let next = match self.get(id).map(|ty| &ty.kind) {
                Some(TypeKind::Qualified { qualifier: Qualifier::Const, .. }) => return true,
                Some(TypeKind::Qualified { to, .. } | TypeKind::Typedef { to }) => *to,
                Some(TypeKind::Array { element, .. }) => *element,
                _ => return false,
            };
            let Some(next) = next else { return false };
            id = next;
        }
        false
    }

    /// How a person would write the type.
    pub fn display(&self, id: Option<TypeId>) -> String {
        self.display_within(id, CHAIN_LIMIT)
    }

    fn display_within(&self, id: Option<TypeId>, limit: usize) -> String {
        let Some(id) = id else {
            return "void".to_owned();
        };
        let (Some(ty), Some(limit)) = (self.get(id), limit.checked_sub(1)) else {
            return "?".to_owned();
        };
        let inner = |id: Option<TypeId>| self.display_within(id, limit);
        let named = |keyword: &str| match &ty.name {
            Some(name) if ty.named_by_typedef => name.clone(),
            Some(name) => format!("{keyword} {name}"),
            None => format!("{keyword} {{...}}"),
        };
        match &ty.kind {
            TypeKind::Aggregate { kind, .. } => named(kind.keyword()),
            TypeKind::Enum { .. } => named("enum"),
            TypeKind::Pointer { to } => match to.and_then(|to| self.get(to)).map(|ty| &ty.kind) {
                Some(TypeKind::Function { .. }) => inner(*to),
                _ => format!("{} *", inner(*to)),
            },
            TypeKind::Reference { to } => format!("{} &", inner(*to)),
            TypeKind::MemberPointer { to } => format!("{} ::*", inner(*to)),
            TypeKind::Array { element, dimensions, .. } => {
                let mut text = inner(*element);
                for dimension in dimensions {
                    match dimension {
                        Some(length) => text.push_str(&format!("[{length}]")),
                        None => text.push_str("[]"),
                    }
                }
                text
            }
            TypeKind::Function { result, .. } => format!("{} (*)()", inner(*result)),
            TypeKind::Qualified { qualifier, to } => {
                let keyword = match qualifier {
                    Qualifier::Const => "const ",
                    Qualifier::Volatile => "volatile ",
                    Qualifier::Restrict => "restrict ",
                    Qualifier::Atomic => "_Atomic ",
                    Qualifier::Other => "",
                };
                format!("{keyword}{}", inner(*to))
            }
            TypeKind::Base { .. } | TypeKind::Typedef { .. } | TypeKind::Unspecified => {
                ty.name.clone().unwrap_or_else(|| "?".to_owned())
            }
        }
    }
}
