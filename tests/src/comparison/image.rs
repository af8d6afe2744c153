//! A linked program, read for the mutations: its functions, objects, instructions and pointer relocations.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use object::read::elf::{ElfFile64, Rela};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind, elf};

/// A function, or the part of one that a symbol of its own names.
#[derive(Debug, Clone)]
pub struct Function {
    /// Its symbol.
    pub name: String,
    /// Entry as linked.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
}

/// A variable or constant with a symbol.
#[derive(Debug, Clone)]
pub struct DataObject {
    /// Its symbol.
    pub name: String,
    /// Address as linked.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
}

/// A section that the process maps.
#[derive(Debug, Clone)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Address as linked.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
    /// Offset in the file; none for `.bss`.
    pub offset: Option<u64>,
}

/// One `R_X86_64_RELATIVE` relocation.
#[derive(Debug, Clone, Copy)]
pub struct Pointer {
    /// Where the pointer lies.
    pub place: u64,
    /// Where it points.
    pub target: u64,
    /// Offset of its addend in the file.
    pub addend_offset: u64,
}

/// A memory operand relative to the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// Index of the function that contains it.
    pub function: usize,
    /// The address that it names.
    pub target: u64,
    /// `lea`, so nothing is read there by this instruction itself.
    pub is_lea: bool,
}

/// The program.
#[derive(Debug)]
pub struct Image {
    /// The file.
    pub bytes: Vec<u8>,
    /// Functions by address, each address once.
    pub functions: Vec<Function>,
    /// Objects by address.
    pub objects: Vec<DataObject>,
    /// Mapped sections.
    pub sections: Vec<Section>,
    /// Relocated pointers, by place.
    pub pointers: Vec<Pointer>,
    /// All references of all functions.
    pub references: Vec<Reference>,
    /// Where the bytes of the build id are in the file.
    pub build_id: (usize, usize),
}

impl Image {
    /// Reads a program.
    pub fn read(path: &Path) -> Result<Image> {
        let bytes = std::fs::read(path)?;
        let file: ElfFile64<'_> = ElfFile64::parse(&*bytes)?;
        let sections = sections(&file)?;
        let functions = functions(&file)?;
        let objects = objects(&file)?;
        let pointers = pointers(&file)?;
        let build_id = build_id(&file)?;
        let mut image = Image {
            functions,
            objects,
            sections,
            pointers,
            references: Vec::new(),
            build_id,
            bytes,
        };
        image.references = image.all_references();
        Ok(image)
    }

    /// The section that contains `address`.
    pub fn section_at(&self, address: u64) -> Option<&Section> {
        self.sections.iter().find(|s| (s.address..s.address + s.size).contains(&address))
    }

    /// Where `address` is in the file.
    pub fn offset(&self, address: u64) -> Option<usize> {
        let section = self.section_at(address)?;
        usize::try_from(section.offset? + (address - section.address)).ok()
    }

    /// Bytes at an address.
    pub fn at(&self, address: u64, length: usize) -> Option<&[u8]> {
        let offset = self.offset(address)?;
        self.bytes.get(offset..offset + length)
    }

    /// The signed 32-bit number at an address.
    pub fn i32_at(&self, address: u64) -> Option<i32> {
        Some(i32::from_le_bytes(self.at(address, 4)?.try_into().ok()?))
    }

    /// The object that contains `address`.
    pub fn object_at(&self, address: u64) -> Option<&DataObject> {
        self.objects.iter().find(|o| (o.address..o.address + o.size.max(1)).contains(&address))
    }

    /// The instructions of a function, with their decoder's constant offsets.
    pub fn instructions(
        &self,
        function: &Function,
    ) -> Vec<(Instruction, iced_x86::ConstantOffsets)> {
        let length = usize::try_from(function.size).unwrap_or(0);
        let Some(code) = self.at(function.address, length) else { return Vec::new() };
        let mut decoder = Decoder::with_ip(64, code, function.address, DecoderOptions::NONE);
        let mut list = Vec::new();
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return Vec::new();
            }
            list.push((instruction, decoder.get_constant_offsets(&instruction)));
        }
        list
    }

    fn all_references(&self) -> Vec<Reference> {
        let mut list = Vec::new();
        for (index, function) in self.functions.iter().enumerate() {
            for (instruction, _) in self.instructions(function) {
                if instruction.is_ip_rel_memory_operand() {
                    let is_lea = instruction.mnemonic() == Mnemonic::Lea;
                    let target = instruction.ip_rel_memory_address();
                    list.push(Reference { function: index, target, is_lea });
                }
            }
        }
        list
    }
}

/// Says whether an instruction's first operand is the stack pointer.
pub fn touches_stack_pointer(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RSP
}

fn sections(file: &ElfFile64<'_>) -> Result<Vec<Section>> {
    let mut list = Vec::new();
    for section in file.sections().filter(|s| s.address() != 0) {
        // Thread-local storage has addresses that overlap the sections after it.
        let name = section.name()?.to_owned();
        if name == ".tbss" {
            continue;
        }
        let offset = section.file_range().map(|(offset, _)| offset);
        list.push(Section { name, address: section.address(), size: section.size(), offset });
    }
    Ok(list)
}

fn functions(file: &ElfFile64<'_>) -> Result<Vec<Function>> {
    let mut by_address: HashMap<u64, Function> = HashMap::new();
    for symbol in file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.size() > 0) {
        let name = symbol.name()?.to_owned();
        by_address.entry(symbol.address()).or_insert(Function {
            name,
            address: symbol.address(),
            size: symbol.size(),
        });
    }
    let mut list: Vec<Function> = by_address.into_values().collect();
    list.sort_by_key(|f| f.address);
    Ok(list)
}

fn objects(file: &ElfFile64<'_>) -> Result<Vec<DataObject>> {
    let mut list = Vec::new();
    for symbol in file.symbols().filter(|s| s.kind() == SymbolKind::Data && s.size() > 0) {
        let name = symbol.name()?.to_owned();
        list.push(DataObject { name, address: symbol.address(), size: symbol.size() });
    }
    list.sort_by_key(|o| o.address);
    Ok(list)
}

fn pointers(file: &ElfFile64<'_>) -> Result<Vec<Pointer>> {
    let section = file.section_by_name(".rela.dyn").context("no .rela.dyn")?;
    let (start, _) = section.file_range().context(".rela.dyn is in the file")?;
    let endian = file.endian();
    let relas: &[elf::Rela64<object::Endianness>] =
        object::pod::slice_from_all_bytes(section.data()?)
            .ok()
            .context(".rela.dyn has whole entries")?;
    let mut list = Vec::new();
    for (index, rela) in (0_u64..).zip(relas) {
        if rela.r_type(endian, false) != elf::R_X86_64_RELATIVE {
            continue;
        }
        // Elf64_Rela: r_offset, r_info, r_addend, eight bytes each (gABI, "Relocation").
        list.push(Pointer {
            place: rela.r_offset(endian),
            target: rela.r_addend(endian).cast_unsigned(),
            addend_offset: start + index * 24 + 16,
        });
    }
    list.sort_by_key(|p| p.place);
    Ok(list)
}

fn build_id(file: &ElfFile64<'_>) -> Result<(usize, usize)> {
    let section = file.section_by_name(".note.gnu.build-id").context("no build id")?;
    let (offset, size) = section.file_range().context("the build id is in the file")?;
    // Twelve bytes of note header and four of its name `GNU` come first.
    Ok((usize::try_from(offset)? + 16, usize::try_from(size)? - 16))
}
