//! What is at an address.

use super::{DynamicRelocation, FunctionId, Image, ObjectId, SectionKind};

/// What an address of an image stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// Code of a function, bytes behind its entry (or in a cold part: behind the entry as linked).
    Code {
        /// Whose.
        function: FunctionId,
        /// Address minus entry.
        offset: u64,
    },
    /// A slot that the dynamic linker fills (`.got`, `.got.plt`).
    Slot(DynamicRelocation),
    /// A named variable or table.
    Object {
        /// Which.
        object: ObjectId,
        /// Bytes from its start.
        offset: u64,
    },
    /// A constant without a name.
    Constant(u64),
    /// Something of the linker's own, known by name (`_end`, `.got.plt` itself).
    Mark(String),
    /// A number that is no address of code or data: the file's own headers, and 0 for weak symbols
    /// that are defined nowhere.
    Outside(u64),
    /// Writable memory or code that no symbol names.
    Unknown,
}

impl Image {
    /// What is at an address. Ends of objects are not resolved to the object: see
    /// [`Image::object_ending_at`].
    #[must_use]
    pub fn resolve(&self, address: u64) -> Thing {
        let Some(section) = self.section_at(address) else {
            return match self.mark(address) {
                Thing::Unknown if self.is_outside(address) => Thing::Outside(address),
                found => found,
            };
        };
        match section.kind {
            SectionKind::Text => self.resolve_code(address),
            SectionKind::Data | SectionKind::RelRo | SectionKind::ReadOnly => {
                if section.name.starts_with(".got") {
                    return match self.relocations.get(&address) {
                        Some(relocation) => Thing::Slot(relocation.clone()),
                        None => self.filled_slot(address),
                    };
                }
                self.resolve_data(address, section.kind)
            }
            SectionKind::Tls => Thing::Unknown,
        }
    }

    /// A slot that the static linker filled, as in executables linked at a fixed address and for
    /// symbols that are defined nowhere.
    fn filled_slot(&self, address: u64) -> Thing {
        use super::Meaning;
        if let Thing::Mark(name) = self.mark(address) {
            return Thing::Mark(name);
        }
        if !address.is_multiple_of(super::plt::SLOT) {
            return Thing::Mark("nowhere".to_owned());
        }
        let Some(value) = self.word(address) else { return Thing::Unknown };
        let meaning = match self.section_at(value) {
            Some(_) if self.fixed => Meaning::Address(value),
            _ => Meaning::Number(value),
        };
        Thing::Slot(DynamicRelocation { kind: object::elf::R_X86_64_RELATIVE, meaning })
    }

    /// Before every section, or beyond the image.
    fn is_outside(&self, address: u64) -> bool {
        let first = self.sections.first().map_or(u64::MAX, |s| s.address);
        address < first || !self.extent.contains(&address)
    }

    fn resolve_code(&self, address: u64) -> Thing {
        match self.function_at(address) {
            Some(function) => Thing::Code {
                function,
                offset: address.wrapping_sub(self.function(function).address),
            },
            // What a label stands at here is no function, so its content is all that is known of it.
            None => match self.object_at(address).filter(|o| self.object(*o).size > 0) {
                Some(object) => self.in_object(object, address),
                None => Thing::Constant(address),
            },
        }
    }

    fn resolve_data(&self, address: u64, kind: SectionKind) -> Thing {
        match self.object_at(address) {
            Some(object) if self.object(object).size == 0 => self.mark(address),
            Some(object) => self.in_object(object, address),
            None if kind == SectionKind::Data && !self.is_literal(address) => self.mark(address),
            None => Thing::Constant(address),
        }
    }

    /// Where labels without a size stand that are called so, among constants: tables of assembler
    /// sources that declare neither type nor size. The linker's own marks are at other places.
    #[must_use]
    pub fn unsized_tables(&self, name: &str) -> Vec<u64> {
        const TABLES: [&str; 2] = [".rodata", ".data.rel.ro"];
        let table = |address: u64| {
            self.section_at(address).is_some_and(|s| TABLES.iter().any(|t| s.name.starts_with(t)))
        };
        let labels = self.objects.iter().filter(|o| o.size == 0);
        let called = labels.filter(|o| o.names.iter().any(|n| n == name));
        called.map(|o| o.address).filter(|a| table(*a)).collect()
    }

    /// Whether writable memory without a name is a compiler's literal: gcc puts the initial content
    /// of local arrays with pointers in them (`const char *help[] = {...}`) into `.data` when code
    /// is position independent. Every variable has a symbol, unless those of statics were stripped.
    fn is_literal(&self, address: u64) -> bool {
        let initialized = self.section_at(address).is_some_and(|s| !s.file.is_empty());
        initialized && self.objects.iter().any(|o| o.local && o.size > 0)
    }

    fn in_object(&self, object: ObjectId, address: u64) -> Thing {
        Thing::Object { object, offset: address - self.object(object).address }
    }

    /// The linker's own places: named zero-size symbols and the start of a table of slots.
    fn mark(&self, address: u64) -> Thing {
        if let Some(section) = self.section_at(address).filter(|s| s.address == address)
            && section.name.starts_with(".got")
        {
            return Thing::Mark(section.name.clone());
        }
        match self.object_at(address).map(|id| self.object(id)) {
            Some(object) if object.address == address => Thing::Mark(object.name().to_owned()),
            _ => Thing::Unknown,
        }
    }
}
