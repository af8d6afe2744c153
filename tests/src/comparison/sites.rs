//! Places where a few bytes change the meaning of one function or one table.
//!
//! Takes an [`Image`]; gives [`Site`]s of seven kinds, each with the bytes to write and what dsu-build must
//! report for it: these functions or that object, and nothing else.

use std::collections::BTreeSet;

use iced_x86::{ConstantOffsets, FlowControl, Instruction, Mnemonic, OpKind};

use super::image::{DataObject, Function, Image, touches_stack_pointer};

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An immediate operand.
    Constant,
    /// `add` becomes `sub`, a condition its opposite.
    Operator,
    /// A character of a string.
    Text,
    /// An entry of a jump table.
    JumpTable,
    /// An entry of a table of pointers.
    PointerTable,
    /// The target of a call.
    Callee,
    /// The global whose address is taken.
    Global,
}

/// All kinds, in the order in which they take turns.
pub const KINDS: [Kind; 7] = [
    Kind::Constant,
    Kind::Operator,
    Kind::Text,
    Kind::JumpTable,
    Kind::PointerTable,
    Kind::Callee,
    Kind::Global,
];

/// What must be reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Exactly the functions at these addresses.
    Functions(BTreeSet<u64>),
    /// This function; and its callers, where its registers may now be others (`-fipa-ra`).
    FunctionAndCallers(u64),
    /// This object, or the functions at these addresses, that refer to it.
    Object(String, BTreeSet<u64>),
}

/// One change.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its kind.
    pub kind: Kind,
    /// Where and what, for people.
    pub text: String,
    /// Offset in the file.
    pub offset: usize,
    /// What to write there.
    pub bytes: Vec<u8>,
    /// What must be reported.
    pub expected: Expected,
}

/// All sites of a kind in one program.
pub fn find(image: &Image, kind: Kind) -> Vec<Site> {
    if kind == Kind::PointerTable {
        return image.objects.iter().filter_map(|o| pointer_table(image, o)).collect();
    }
    let mut sites = Vec::new();
    for function in image.functions.iter().filter(|f| is_whole(image, f)) {
        let code = image.instructions(function);
        for index in 0..code.len() {
            let site = match kind {
                Kind::Constant => constant(image, function, &code[index]),
                Kind::Operator => operator(image, function, &code[index].0),
                Kind::Text => text(image, function, &code[index].0),
                Kind::JumpTable => jump_table(image, function, &code[..=index]),
                Kind::Callee => callee(image, function, &code[index]),
                Kind::Global => global(image, function, &code[index]),
                Kind::PointerTable => None,
            };
            sites.extend(site);
        }
    }
    sites
}

/// An ordinary function of the program's own: in `.text`, no start-up code, no split-off part.
fn is_whole(image: &Image, function: &Function) -> bool {
    let start_up = ["_start", "_init", "_fini"].contains(&function.name.as_str());
    let part = function.name.contains(".cold") || function.name.contains(".part");
    let text = image.section_at(function.address).is_some_and(|s| s.name == ".text");
    text && !start_up && !part && function.size >= 16
}

fn only(function: &Function) -> Expected {
    Expected::Functions(BTreeSet::from([function.address]))
}

type Decoded = (Instruction, ConstantOffsets);

fn constant(image: &Image, function: &Function, (instruction, offsets): &Decoded) -> Option<Site> {
    use Mnemonic::{Add, And, Cmp, Mov, Or, Sub, Xor};
    let known = [Mov, Cmp, Add, Sub, And, Or, Xor].contains(&instruction.mnemonic());
    if !known || !offsets.has_immediate() || touches_stack_pointer(instruction) {
        return None;
    }
    let address = instruction.ip() + u64::from(u8::try_from(offsets.immediate_offset()).ok()?);
    let offset = image.offset(address)?;
    let bytes = vec![image.bytes[offset] ^ 2];
    let text = format!("{}: immediate of `{instruction}`", place(function, instruction));
    Some(Site { kind: Kind::Constant, text, offset, bytes, expected: only(function) })
}

fn operator(image: &Image, function: &Function, instruction: &Instruction) -> Option<Site> {
    if touches_stack_pointer(instruction) {
        return None;
    }
    let code = image.at(instruction.ip(), instruction.len())?;
    // Legacy prefixes and REX come before the opcode (Intel SDM volume 2, section 2.1).
    let is_prefix =
        |b: &u8| matches!(b, 0x66 | 0xf2 | 0xf3 | 0x2e | 0x3e | 0x64 | 0x65 | 0xf0 | 0x40..=0x4f);
    let skip = code.iter().take_while(|b| is_prefix(b)).count();
    let (at, byte) = match code.get(skip..)? {
        // add <-> sub, or <-> and: the middle bits of the opcode.
        [b @ (0x01 | 0x03 | 0x29 | 0x2b | 0x09 | 0x0b | 0x21 | 0x23), ..] => (skip, b ^ 0x28),
        // Every condition's opposite differs in the lowest bit.
        [b @ 0x70..=0x7f, ..] => (skip, b ^ 1),
        [0x0f, b @ 0x80..=0x8f, ..] => (skip + 1, b ^ 1),
        _ => return None,
    };
    let offset = image.offset(instruction.ip())? + at;
    let text = format!("{}: operator of `{instruction}`", place(function, instruction));
    let expected = Expected::FunctionAndCallers(function.address);
    Some(Site { kind: Kind::Operator, text, offset, bytes: vec![byte], expected })
}

/// A string without a name, that only `lea` of its beginning refers to.
fn text(image: &Image, function: &Function, instruction: &Instruction) -> Option<Site> {
    let target = lea_target(instruction)?;
    if image.section_at(target)?.name != ".rodata" || image.object_at(target).is_some() {
        return None;
    }
    let before = image.at(target - 1, 1)?;
    let length = image.at(target, 200)?.iter().position(|b| *b == 0)?;
    let content = image.at(target, length)?;
    let printable = content.iter().all(|b| b.is_ascii_graphic() || *b == b' ' || *b == b'\n');
    if before != [0] || length < 6 || !printable {
        return None;
    }
    let end = target + u64::try_from(length).ok()?;
    // A wide load may begin before the string and still read it.
    let near = |address: u64| (target - 32..=end).contains(&address);
    let refs: Vec<_> = image.references.iter().filter(|r| near(r.target)).collect();
    let unclear = refs.iter().any(|r| (r.target > target) || (!r.is_lea && r.target != target));
    let wide = refs.iter().any(|r| r.target == target && !r.is_lea);
    let pointed = image.pointers.iter().any(|p| (target..=end).contains(&p.target));
    if unclear || wide || pointed {
        return None;
    }
    let users = refs.iter().filter(|r| r.target == target);
    let users: BTreeSet<u64> = users.map(|r| image.functions[r.function].address).collect();
    // Split-off parts are reported under their function: leave such strings alone.
    if users.iter().any(|u| image.functions.iter().any(|f| f.address == *u && !is_whole(image, f)))
    {
        return None;
    }
    let content = String::from_utf8_lossy(content).into_owned();
    let offset = image.offset(target)? + 1;
    let bytes = vec![if image.bytes[offset] == b'Q' { b'J' } else { b'Q' }];
    let text = format!("{}: string {content:?} of {} functions", function.name, users.len());
    Some(Site { kind: Kind::Text, text, offset, bytes, expected: Expected::Functions(users) })
}

/// `lea t, [rip+TABLE]; movsxd r, [t+i*4]; add r, t; jmp r`.
fn jump_table(image: &Image, function: &Function, code: &[Decoded]) -> Option<Site> {
    let (jump, _) = code.last()?;
    if jump.flow_control() != FlowControl::IndirectBranch || jump.op0_kind() != OpKind::Register {
        return None;
    }
    let recent = &code[code.len().saturating_sub(12)..];
    let loads = |i: &Instruction| i.mnemonic() == Mnemonic::Movsxd && i.memory_index_scale() == 4;
    let (load, _) = recent.iter().rev().find(|(i, _)| loads(i))?;
    let is_base = |i: &Instruction| i.op0_register() == load.memory_base();
    let table = recent.iter().rev().filter(|(i, _)| is_base(i)).find_map(|(i, _)| lea_target(i))?;
    let inside = |entry: i32| {
        let to = table.wrapping_add_signed(i64::from(entry));
        (function.address..function.address + function.size).contains(&to)
    };
    let first = image.i32_at(table)?;
    let others = (1..4).map_while(|n| image.i32_at(table + n * 4).filter(|e| inside(*e)));
    let other = others.into_iter().find(|entry| *entry != first)?;
    if !inside(first) {
        return None;
    }
    let (offset, bytes) = (image.offset(table)?, other.to_le_bytes().to_vec());
    let text = format!("{}: first entry of the table at {table:#x}", place(function, jump));
    let expected = Expected::FunctionAndCallers(function.address);
    Some(Site { kind: Kind::JumpTable, text, offset, bytes, expected })
}

/// The first of two different pointers in one object becomes the second.
fn pointer_table(image: &Image, object: &DataObject) -> Option<Site> {
    let section = &image.section_at(object.address)?.name;
    if section != ".data.rel.ro" && section != ".data" {
        return None;
    }
    let range = object.address..object.address + object.size;
    let inside: Vec<_> = image.pointers.iter().filter(|p| range.contains(&p.place)).collect();
    let (first, other) = (inside.first()?, inside.iter().find(|p| p.target != inside[0].target)?);
    let users = image.references.iter().filter(|r| range.contains(&r.target));
    let users: BTreeSet<u64> = users.map(|r| image.functions[r.function].address).collect();
    Some(Site {
        kind: Kind::PointerTable,
        text: format!("{section} {}: pointer at {:#x}", object.name, first.place),
        offset: usize::try_from(first.addend_offset).ok()?,
        bytes: other.target.to_le_bytes().to_vec(),
        expected: Expected::Object(object.name.clone(), users),
    })
}

fn callee(image: &Image, function: &Function, (instruction, offsets): &Decoded) -> Option<Site> {
    if instruction.mnemonic() != Mnemonic::Call || instruction.op0_kind() != OpKind::NearBranch64 {
        return None;
    }
    let target = instruction.near_branch_target();
    let index = image.functions.binary_search_by_key(&target, |f| f.address).ok()?;
    // Some other function, the same at every run.
    let step = usize::try_from(instruction.ip() % 97).ok()? + 1;
    let other = &image.functions[(index + step) % image.functions.len()];
    if other.address == target || !is_whole(image, other) {
        return None;
    }
    let at = instruction.ip() + u64::try_from(offsets.immediate_offset()).ok()?;
    let displacement =
        i32::try_from(other.address.wrapping_sub(instruction.next_ip()).cast_signed()).ok()?;
    Some(Site {
        kind: Kind::Callee,
        text: format!("{}: calls {} instead", place(function, instruction), other.name),
        offset: image.offset(at)?,
        bytes: displacement.to_le_bytes().to_vec(),
        expected: Expected::FunctionAndCallers(function.address),
    })
}

fn global(image: &Image, function: &Function, (instruction, offsets): &Decoded) -> Option<Site> {
    let target = lea_target(instruction)?;
    let index = image.objects.iter().position(|o| o.address == target)?;
    let step = usize::try_from(instruction.ip() % 53).ok()? + 1;
    let other = &image.objects[(index + step) % image.objects.len()];
    let writable = |address: u64| {
        image.section_at(address).is_some_and(|s| s.name == ".data" || s.name == ".bss")
    };
    if other.address == target || !writable(target) || !writable(other.address) {
        return None;
    }
    let at = instruction.ip() + u64::try_from(offsets.displacement_offset()).ok()?;
    let displacement =
        i32::try_from(other.address.wrapping_sub(instruction.next_ip()).cast_signed()).ok()?;
    Some(Site {
        kind: Kind::Global,
        text: format!(
            "{}: takes the address of {} instead",
            place(function, instruction),
            other.name
        ),
        offset: image.offset(at)?,
        bytes: displacement.to_le_bytes().to_vec(),
        expected: only(function),
    })
}

fn lea_target(instruction: &Instruction) -> Option<u64> {
    let lea = instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand();
    lea.then(|| instruction.ip_rel_memory_address())
}

fn place(function: &Function, instruction: &Instruction) -> String {
    format!("{}+{:#x}", function.name, instruction.ip() - function.address)
}
