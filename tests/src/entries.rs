//! Does each replaced function run in its NEW version? Answered from the process's own memory.
//!
//! Takes dsu-build's list of changed functions; follows the jump at each OLD entry in `/proc/PID/mem`
//! and asks that it leads into anonymous executable memory, at one bias from the function's address in NEW
//! (DESIGN section 4). Shares no code with the programs under test.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSymbol, SymbolKind};

use crate::process::{Mapping, maps, read_memory};
use crate::tool::Changed;

/// No function is behind more jumps than this.
const MOST_JUMPS: usize = 8;

/// How many functions were looked at, and how many could not be.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Entries that lead to NEW.
    pub checked: usize,
    /// Functions whose entry in the first build is not known by a unique name (added later, or one of
    /// several statics of one name).
    pub skipped: usize,
}

/// Checks the entries of `changed`, functions of the build `old`, in a process started from `first`.
pub fn check(pid: i32, first: &Path, old: &Path, changed: &[Changed]) -> Result<Counts> {
    let maps = maps(pid)?;
    let base = load_base(&maps, first)?;
    let (first_names, old_names) = (Functions::read(first)?, Functions::read(old)?);
    let mut counts = Counts::default();
    let mut biases: Option<HashSet<u64>> = None;
    for function in changed {
        let linked = if first == old {
            Some(function.old_address)
        } else {
            old_names.name_at(function.old_address).and_then(|name| first_names.unique(name))
        };
        let Some(linked) = linked else {
            counts.skipped += 1;
            continue;
        };
        let landings = follow(pid, base + linked, &maps)?;
        ensure!(
            !landings.is_empty(),
            "entry of {} at {:#x} in pid {pid} has no jump into anonymous code: it still runs OLD",
            function.name,
            base + linked
        );
        let here: HashSet<u64> =
            landings.iter().map(|l| l.wrapping_sub(function.new_address)).collect();
        let common: HashSet<u64> = match &biases {
            None => here.clone(),
            Some(before) => before.intersection(&here).copied().collect(),
        };
        ensure!(
            !common.is_empty(),
            "entry of {} leads to {landings:x?}, not to its address in NEW at the bias of the others ({biases:x?})",
            function.name
        );
        biases = Some(common);
        counts.checked += 1;
    }
    Ok(counts)
}

/// The addresses in anonymous code that the jumps from `entry` lead through.
fn follow(pid: i32, entry: u64, maps: &[Mapping]) -> Result<Vec<u64>> {
    let mut landings = Vec::new();
    let mut address = entry;
    for _ in 0..MOST_JUMPS {
        let Some(target) = jump_target(pid, address)? else { break };
        address = target;
        if maps.iter().any(|m| m.contains(address) && m.is_anonymous_code()) {
            landings.push(address);
        }
    }
    Ok(landings)
}

/// Where the jump at `address` goes, when there is one.
fn jump_target(pid: i32, address: u64) -> Result<Option<u64>> {
    let bytes = read_memory(pid, address, 20)?;
    // A redirect may leave the landing pad of indirect branch tracking in place.
    let skip = if bytes.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { 4 } else { 0 };
    let at = address + skip as u64;
    let code = &bytes[skip..];
    let after =
        |length: u64, displacement: i64| at.wrapping_add(length).wrapping_add_signed(displacement);
    Ok(match code {
        [0xe9, a, b, c, d, ..] => Some(after(5, i64::from(i32::from_le_bytes([*a, *b, *c, *d])))),
        [0xeb, a, ..] => Some(after(2, i64::from(i8::from_le_bytes([*a])))),
        [0xff, 0x25, a, b, c, d, ..] => {
            let slot = after(6, i64::from(i32::from_le_bytes([*a, *b, *c, *d])));
            let bytes: [u8; 8] = read_memory(pid, slot, 8)?.try_into().unwrap_or_default();
            Some(u64::from_le_bytes(bytes))
        }
        _ => None,
    })
}

/// Where `program` lies in the process: address in the process minus address as linked.
fn load_base(maps: &[Mapping], program: &Path) -> Result<u64> {
    let path = std::fs::canonicalize(program)?;
    let path = path.to_string_lossy();
    let first =
        maps.iter().find(|m| m.offset == 0 && m.path.trim_end_matches(" (deleted)") == path);
    // The ladders are position independent: the first segment is linked at 0.
    Ok(first.with_context(|| format!("{path} is not mapped"))?.start)
}

/// The function symbols of a build.
struct Functions {
    by_address: HashMap<u64, String>,
    by_name: HashMap<String, Vec<u64>>,
}

impl Functions {
    fn read(program: &Path) -> Result<Functions> {
        let bytes = std::fs::read(program)?;
        let file = object::File::parse(&*bytes)?;
        let mut functions = Functions { by_address: HashMap::new(), by_name: HashMap::new() };
        for symbol in file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.is_definition()) {
            let name = symbol.name()?.to_owned();
            functions.by_address.insert(symbol.address(), name.clone());
            functions.by_name.entry(name).or_default().push(symbol.address());
        }
        Ok(functions)
    }

    fn name_at(&self, address: u64) -> Option<&str> {
        self.by_address.get(&address).map(String::as_str)
    }

    fn unique(&self, name: &str) -> Option<u64> {
        match self.by_name.get(name)?.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }
}
