//! Debug information of one image, as plain data.
//!
//! Takes: the sections of an image and, when its debug information lives in another file, of that
//! file. Decides: which entries of DWARF 2 to 5 (gcc, clang, rustc, `as -g`) describe something that
//! the linker kept, and which types of different units are one type. Gives: [`DebugInfo`], owned and
//! free of offsets into the input: units, functions, prototypes, variables, types, line rows; and
//! the comparison of the types of two images, [`compare_variable`] and [`changed_types`].
//! Refuses, by name: an image without debug information, split DWARF (`.dwo`), supplementary files
//! (`dwz -m`), other machines than little-endian. A unit that cannot be decoded to its end is kept
//! as far as it was read, and named in [`DebugInfo::warnings`].
//!
//! ```text
//! sections -> units -> scan (in parallel, by unit) -> merge (types) -> functions, variables, lines
//!                                                        types -> layout -> changes
//! ```
//!
//! All addresses are as linked in this image. All file names are independent of the directory that
//! the image was built in, so that those of two builds can be compared.

mod error;
mod model;
mod sections;

mod units;

mod attributes;
mod raw;
mod scan;

mod merge;
mod scopes;
mod signature;
mod types;

mod functions;
mod locals;
mod registers;
mod variables;

mod lines;
mod paths;

mod changes;
mod compare;
mod layout;
mod members;
mod reach;

#[cfg(test)]
pub(crate) mod tests;

pub use changes::{ChangeCause, TypeChange, changed_types};
pub use compare::{Difference, Layout, LayoutComparer, LayoutDifference, compare_variable};
pub use error::{DebugError, Warning};
pub use lines::{LineRow, LineTable};
pub use locals::Place as LocalPlace;
pub use locals::{Call, FrameView, Inlined, Local, Locals, Piece, Register, Scope};
pub use model::{
    FileId, Function, Language, Parameters, Part, Place, Returned, TypeUser, Unit, UnitId, Variable,
};
pub use types::{
    AggregateKind, Encoding, Enumerator, Member, MemberKind, Qualifier, Type, TypeId, TypeKind,
    TypeTable,
};

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::{iter, mem};

use functions::{CodeIndex, Functions};
use lines::Files;
use sections::{Extents, Sections};

pub use sections::SectionStore;

/// Everything that the compiler needs to know from the debug information of one image.
#[derive(Debug, Clone, Default)]
pub struct DebugInfo {
    /// Compilation units, in the order of the file.
    pub units: Vec<Unit>,
    /// Functions with machine code, sorted by entry.
    pub functions: Vec<Function>,
    /// Prototypes of external functions that units declare, by linkage name. Where declarations
    /// differ, the most registers that any of them takes.
    pub declarations: HashMap<String, Parameters>,
    /// External functions that some unit declares not to return, by linkage name.
    pub noreturn: BTreeSet<String>,
    /// Variables with a static place, sorted by it.
    pub variables: Vec<Variable>,
    /// Types.
    pub types: TypeTable,
    /// Source positions of the code.
    pub lines: LineTable,
    /// The types that functions name, inlined ones included.
    pub type_users: Vec<TypeUser>,
    /// What was left out because it is damaged.
    pub warnings: Vec<Warning>,
    code: CodeIndex,
    locals: locals::Index,
    named: HashMap<UnitId, HashSet<String>>,
}

impl DebugInfo {
    /// Reads the debug information of `image`, from itself or from `separate` (what
    /// `objcopy --only-keep-debug` made of it, or a `-dbgsym` package has).
    pub fn read<'d>(
        image: &object::File<'d>,
        separate: Option<&object::File<'d>>,
    ) -> Result<Self, DebugError> {
        let files: Vec<_> = iter::once(image).chain(separate).collect();
        let sections = Sections::load(&files)?;
        let mut dwarf = sections.dwarf();
        dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
        let extents = Extents::of(image);
        let mut units = units::read(&dwarf, &extents)?;
        let files = Files::of(&mut units.raw.units)?;
        let (types, ids) = merge::merge(&units.raw, &files)?;
        let mut warnings = mem::take(&mut units.warnings);
        let rows = lines::read(&units, &files, &extents, &mut warnings);
        let functions = Functions { raw: &units.raw, files: &files, ids: &ids, table: &types };
        let ((concrete, entries), declarations, type_users) =
            (functions.concrete(), functions.declarations(), functions.type_users());
        let noreturn = functions.noreturn();
        let variables = variables::read(&units.raw, &files, &ids, &types, &extents);
        let named = variables::named(&units.raw);
        let signatures = mem::take(&mut units.signatures);
        let locals = locals::Index::new(&units.raw, &files, &ids, signatures, entries);
        let mut described = Vec::with_capacity(units.raw.units.len());
        for raw in units.raw.units {
            let name = &raw.unit.name;
            warnings
                .extend(raw.damage.into_iter().map(|what| Warning { unit: name.clone(), what }));
            described.push(raw.unit);
        }
        Ok(Self {
            units: described,
            code: CodeIndex::of(&concrete),
            functions: concrete,
            declarations,
            noreturn,
            variables,
            types,
            lines: LineTable { files: files.names, rows },
            type_users,
            warnings,
            locals,
            named,
        })
    }

    /// The local variables of a function, by its index in [`DebugInfo::functions`]; `store` and
    /// `file` are of the file that this was read from. `frame` says what the function does with its
    /// stack pointer.
    ///
    /// # Errors
    /// [`DebugError`] when the function's unit cannot be read any more.
    pub fn locals(
        &self,
        function: usize,
        store: &SectionStore,
        file: &[u8],
        frame: &FrameView<'_>,
    ) -> Result<Locals, DebugError> {
        locals::read(self, function, &store.dwarf(file), frame)
    }

    /// The source position of an address, unless its code belongs to none.
    pub fn position(&self, address: u64) -> Option<(&str, u32)> {
        let row = self.lines.row_at(address)?;
        let file = self.lines.file(row.file);
        (row.line != 0 && !file.is_empty()).then_some((file, row.line))
    }

    /// The rows that hold in a range; see [`LineTable::rows_in`].
    pub fn rows(&self, range: Range<u64>) -> &[LineRow] {
        self.lines.rows_in(range)
    }

    /// The function whose code holds an address; of several (folded by the linker) the first by
    /// name.
    pub fn function_at(&self, address: u64) -> Option<&Function> {
        self.functions.get(self.code.at(address)?)
    }

    /// Whether a unit declares or defines a variable, by linkage name.
    pub fn names(&self, unit: UnitId, name: &str) -> bool {
        self.named.get(&unit).is_some_and(|named| named.contains(name))
    }

    /// The variable whose object holds an address.
    pub fn variable_at(&self, address: u64) -> Option<&Variable> {
        self.variables.get(variables::at(&self.variables, &self.types, address)?)
    }

    /// The registers that values of these types are passed in, in this order; `None` where one of
    /// them is not known well enough.
    pub fn passing(&self, types: &[TypeId]) -> Option<Parameters> {
        let types: Vec<Option<TypeId>> = types.iter().copied().map(Some).collect();
        registers::parameters(&self.types, &types, None, false)
    }

    /// The name of the unit that a symbol table calls by its file's name alone; that name itself, where
    /// none or several may be meant.
    #[must_use]
    pub fn unit_of_file(&self, file: &str) -> String {
        let is_it = |unit: &&Unit| {
            let directory = unit.name.strip_suffix(file);
            directory.is_some_and(|d| d.is_empty() || d.ends_with('/'))
        };
        let mut found = self.units.iter().filter(is_it);
        match (found.next(), found.next()) {
            (Some(one), None) if !file.is_empty() => one.name.clone(),
            _ => file.to_owned(),
        }
    }

    /// The unit of this id.
    pub fn unit(&self, id: UnitId) -> Option<&Unit> {
        self.units.get(id.0 as usize)
    }
}
