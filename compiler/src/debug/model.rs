//! The plain data that [`DebugInfo`](super::DebugInfo) is made of, types and lines apart.

use std::ops::Range;

use super::types::TypeId;

/// A unit of this image: an index into [`DebugInfo::units`](super::DebugInfo::units).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitId(pub u32);

/// A source file of this image: an index into [`LineTable::files`](super::LineTable::files).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// The source language of a unit (DWARF 5, table 7.17), dialects of one language being one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// C, any edition.
    C,
    /// C++, any edition.
    Cpp,
    /// Rust.
    Rust,
    /// Assembler, as `as -g` marks it.
    Assembler,
    /// Anything else, by its DW_LANG number; 0 where the unit does not say.
    Other(u16),
}

/// A compilation unit. Type units and partial units, which only serve others, have no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its source file, relative to `comp_dir` where it lies below it. The crate hash in the unit
    /// names of rustc is left out.
    pub name: String,
    /// The directory that the compiler ran in.
    pub comp_dir: String,
    /// The language it is written in.
    pub language: Language,
    /// The compiler and, with gcc, its options.
    pub producer: String,
    /// Compiled by gcc.
    pub is_gcc: bool,
    /// Compiled by clang.
    pub is_clang: bool,
    /// Part of a link-time optimized program, as far as the unit lets one see it.
    pub lto: bool,
}

/// A function that has machine code of its own. What is only inlined is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its entry.
    pub low_pc: u64,
    /// Its code, sorted; several where a cold part lies apart. Never empty.
    pub ranges: Vec<Range<u64>>,
    /// Its name in the source; empty where the producer gives none.
    pub name: String,
    /// Its mangled name, where the language mangles. The symbol of a clone (`.cold`, `.isra.0`)
    /// is not told by DWARF.
    pub linkage_name: Option<String>,
    /// The unit whose source holds it (with LTO: not the artificial unit that holds its code).
    pub unit: UnitId,
    /// The file of its declaration.
    pub decl_file: Option<FileId>,
    /// The line of its declaration; 0 when unknown.
    pub decl_line: u32,
    /// Visible outside its unit.
    pub external: bool,
    /// Does not return (DWARF 5, section 3.3.1).
    pub noreturn: bool,
    /// How its source signature passes arguments; `None` where that cannot be derived (Rust, a
    /// parameter of unknown type). It does not hold for a clone whose symbol says `.isra`,
    /// `.constprop` or `.part`: those have a signature of their own.
    pub parameters: Option<Parameters>,
    /// What encloses it, outermost first: namespaces, classes, the function it is nested in.
    pub scope: Vec<String>,
}

impl Function {
    /// The name that identifies it best: the linkage name, else the source name.
    pub fn link_name(&self) -> &str {
        self.linkage_name.as_deref().unwrap_or(&self.name)
    }
}

/// Registers that a call passes arguments in (System V psABI x86-64, section 3.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parameters {
    /// How many of rdi, rsi, rdx, rcx, r8, r9, in this order; a hidden pointer to a result in
    /// memory counts as the first.
    pub integer: u8,
    /// How many of the vector registers 0 to 7, in this order.
    pub sse: u8,
    /// Bytes of arguments that are passed on the stack, at most; 0 if none is.
    pub stack: u32,
    /// How many bytes of a vector register the widest such argument takes.
    pub vector_bytes: u8,
    /// Takes further arguments; their number of vector registers is in al.
    pub variadic: bool,
    /// Where the result is.
    pub result: Returned,
}

/// Registers that a call gives its result in (System V psABI x86-64, section 3.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Returned {
    /// How many of rax, rdx; 1 also where the result is in memory, for its address.
    pub integer: u8,
    /// How many of the vector registers 0 and 1.
    pub sse: u8,
    /// How many of st0 and st1.
    pub x87: u8,
    /// How many bytes of a vector register count.
    pub vector_bytes: u8,
}

/// Where a variable lives for as long as the program, or the thread, runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// At an address of the image.
    Address(u64),
    /// At an offset from the start of the image's TLS template (`PT_TLS`).
    Tls(u64),
}

/// A part of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Its distance from the variable's start, in bytes.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

/// A variable with a static place, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Where it lives.
    pub place: Place,
    /// Which part of it lives there, where the compiler took it apart: `ty` is that of the whole.
    pub part: Option<Part>,
    /// Its name in the source.
    pub name: String,
    /// Its mangled name, where the language mangles.
    pub linkage_name: Option<String>,
    /// The unit whose source holds it.
    pub unit: UnitId,
    /// What encloses it, outermost first: namespaces, classes; for a static local the linkage name
    /// of its function, then `{n}` for each lexical block around it, the nth of its parent.
    pub scope: Vec<String>,
    /// The function that it is a static local of.
    pub is_local: bool,
    /// Its type; `None` where the producer gives none.
    pub ty: Option<TypeId>,
    /// The file of its declaration.
    pub decl_file: Option<FileId>,
    /// The line of its declaration; 0 when unknown.
    pub decl_line: u32,
    /// Visible outside its unit.
    pub external: bool,
    /// Of a const-qualified type, or an array of such.
    pub is_const: bool,
}

impl Variable {
    /// The name that identifies it best: the linkage name, else the source name.
    pub fn link_name(&self) -> &str {
        self.linkage_name.as_deref().unwrap_or(&self.name)
    }
}

/// The types that a function names: of its parameters, locals and result. Functions that are only
/// inlined are here too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeUser {
    /// Its linkage name, else its name.
    pub function: String,
    /// The unit that holds it.
    pub unit: UnitId,
    /// Sorted, without duplicates.
    pub types: Vec<TypeId>,
}
