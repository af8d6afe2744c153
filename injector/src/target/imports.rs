//! Symbols that NEW imports, found where the process's dynamic linker would find them.
//!
//! Takes the modules; gives one address for each import. Indirect functions (`STT_GNU_IFUNC`) are
//! not run: their result is read from a slot that the dynamic linker has filled already. Refuses by
//! name what is missing, thread-local, or an indirect function that nobody in the process uses.

use super::dynamic::{Dynamic, Relocation, Symbol};
use super::memory::ReadMemory;
use super::module::Module;
use crate::address::ProcAddr;
use crate::error::ApplyError;
use dsu_patch_format::plan::Import;
use object::elf;

/// The link map of a process has never been seen longer.
const MAX_LINK_MAP: usize = 4096;

/// The loaded images in the order in which symbols are looked up.
pub struct Scope<'a, M> {
    memory: &'a M,
    modules: Vec<(&'a Module, Dynamic)>,
}

impl<'a, M: ReadMemory> Scope<'a, M> {
    /// The global scope: the executable, then the libraries as the dynamic linker has loaded them.
    /// The vDSO is not in it.
    pub fn new(memory: &'a M, modules: &'a [Module], executable: Option<&Module>) -> Self {
        let mut all: Vec<(&Module, Dynamic)> = modules
            .iter()
            .filter(|m| &*m.name != "[vdso]")
            .filter_map(|m| Some((m, Dynamic::read(memory, m)?)))
            .collect();
        let first = executable.map(|m| m.base);
        let debug = all.iter().find(|m| Some(m.0.base) == first).and_then(|m| m.1.debug);
        let order = debug.map(|at| link_map(memory, at)).unwrap_or_default();
        let rank = |m: &Module| {
            let dynamic = m.place_of(elf::PT_DYNAMIC.0).map(|p| p.0);
            let listed = order.iter().position(|at| Some(*at) == dynamic);
            (Some(m.base) != first, listed.unwrap_or(usize::MAX))
        };
        all.sort_by_key(|m| rank(m.0));
        Self { memory, modules: all }
    }

    /// The address that `import` binds to; 0 for an absent weak one.
    ///
    /// # Errors
    /// The refusal, by name.
    pub fn resolve(&self, import: &Import) -> Result<u64, ApplyError> {
        let version = import.version.as_deref();
        let found = self
            .modules
            .iter()
            .find_map(|(module, d)| Some((*module, d.find(self.memory, &import.name, version)?)));
        let refuse = |why: &str| ApplyError::Unsuitable(format!("{}: {why}", spelled(import)));
        match found {
            None if import.weak => Ok(0),
            None => Err(refuse("NEW imports it, and no library in the process defines it")),
            Some((_, symbol)) if symbol.kind == elf::STT_TLS.0 => {
                Err(refuse("it is a thread-local variable of a library, which has no one address"))
            }
            Some((module, symbol)) if symbol.kind == elf::STT_GNU_IFUNC.0 => {
                let address = self.indirect(module, symbol, &import.name);
                Ok(address
                    .ok_or_else(|| refuse("it is an indirect function that nothing has bound yet"))?
                    .0)
            }
            Some((_, symbol)) => Ok(symbol.address.0),
        }
    }

    /// What the resolver of an indirect function has given to somebody else.
    fn indirect(&self, owner: &Module, resolver: Symbol, name: &str) -> Option<ProcAddr> {
        let in_owner = |value: ProcAddr| owner.is_code(value) && value != resolver.address;
        let irelative = |module: &Module, r: &Relocation| {
            r.kind == elf::R_X86_64_IRELATIVE.0
                && module.base == owner.base
                && module.bias.apply(r.addend.cast_unsigned()) == resolver.address
        };
        let named = |dynamic: &Dynamic, r: &Relocation| {
            let kinds = [elf::R_X86_64_GLOB_DAT, elf::R_X86_64_JUMP_SLOT, elf::R_X86_64_64];
            kinds.iter().any(|k| k.0 == r.kind)
                && r.addend == 0
                && dynamic.name_of(self.memory, r.symbol).as_deref() == Some(name.as_bytes())
        };
        for (module, dynamic) in &self.modules {
            for relocation in dynamic.relocations(self.memory) {
                // An unbound slot leads into its own module's PLT, not to the owner's code: slots
                // of the owner itself prove nothing.
                let foreign = module.base != owner.base && named(dynamic, &relocation);
                if foreign || irelative(module, &relocation) {
                    let value = ProcAddr(self.memory.read_u64(relocation.slot).ok()?);
                    if in_owner(value) {
                        return Some(value);
                    }
                }
            }
        }
        None
    }
}

fn spelled(import: &Import) -> String {
    match &import.version {
        Some(version) => format!("{}@{version}", import.name),
        None => import.name.clone(),
    }
}

/// Addresses of the dynamic sections in the order of the dynamic linker's list (`struct r_debug`
/// and `struct link_map` of link.h).
fn link_map(memory: &impl ReadMemory, debug: ProcAddr) -> Vec<ProcAddr> {
    let mut order = Vec::new();
    let mut entry = memory.read_u64(debug.offset(8)).unwrap_or(0);
    while entry != 0 && order.len() < MAX_LINK_MAP {
        let Ok(dynamic) = memory.read_u64(ProcAddr(entry).offset(16)) else { break };
        order.push(ProcAddr(dynamic));
        entry = memory.read_u64(ProcAddr(entry).offset(24)).unwrap_or(0);
    }
    order
}
