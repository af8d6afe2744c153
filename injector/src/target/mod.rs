//! The process as it is: what runs in it, what is free in it, where symbols are. Nothing is stopped
//! and nothing is written.
//!
//! Takes a pid and a bundle; gives a [`Target`], or the refusal: no such process, not permitted,
//! another machine, another build, updated already, an import missing, no address space near enough.

pub mod bpf;
pub mod dynamic;
pub mod elf;
pub mod imports;
pub mod lock;
pub mod maps;
pub mod memory;
pub mod module;
pub mod process;
pub mod space;
pub mod waiting;

use crate::address::ProcAddr;
use crate::error::{ApplyError, SysError};
use crate::ptrace::footholds::Footholds;
use crate::record::map::AddressMap;
use crate::record::{self, Entry, Found, Identity, State};
use crate::recover;
use crate::seccomp::Permit;
use dsu_patch_format::Bundle;
use dsu_patch_format::manifest::ImageKind;
use imports::Scope;
use maps::Maps;
use memory::{ProcessMemory, ReadMemory};
use module::Module;
use nix::errno::Errno;
use space::Wanted;

/// What the first phase finds out.
#[derive(Debug)]
pub struct Target {
    /// Process id.
    pub pid: i32,
    /// Its memory.
    pub memory: ProcessMemory,
    /// All its images.
    pub modules: Vec<Module>,
    /// The one to update.
    pub image: Module,
    /// Updates of that image that count, oldest first.
    pub updates: Vec<Found>,
    /// Those that were taken back.
    pub undone: Vec<Found>,
    /// Where OLD's addresses are.
    pub map: AddressMap,
    /// OLD's functions whose identity is elsewhere.
    pub identities: Vec<Identity>,
    /// Addresses of the plan's imports.
    pub imports: Vec<u64>,
    /// Code of the process that remote calls go through.
    pub footholds: Footholds,
    /// What seccomp allows; see [`crate::seccomp`].
    pub permit: Permit,
}

impl Target {
    /// Looks at the process.
    ///
    /// # Errors
    /// The refusal.
    pub fn look(pid: i32, bundle: &Bundle) -> Result<Self, ApplyError> {
        process::refuse_shadow_stack(pid, &process::check(pid)?)?;
        process::check_machine(pid)?;
        let memory = ProcessMemory::open(pid).map_err(|e| match e.errno {
            Errno::EACCES | Errno::EPERM => process::explain_refusal(pid, e.errno.desc()),
            Errno::ENOENT => ApplyError::NoProcess(format!("process {pid} has ended")),
            _ => e.into(),
        })?;
        let maps = Maps::of(pid)?;
        let modules = Module::all(&memory, &maps);
        let records = record::find_all(&memory, &maps);
        if recover::is_needed(&records) {
            return Err(ApplyError::LeftBehind(pid));
        }
        let found = find_image(bundle, pid, &memory, &modules, records)?;
        let plan = &bundle.plan;
        let (map, identities) = match found.updates.last() {
            Some(last) => (last.record.map.clone(), last.record.identities.clone()),
            None => {
                let (start, end) = (plan.old_start.0, plan.old_end.0);
                (AddressMap::of_image(start, end, found.image.bias), Vec::new())
            }
        };
        let executable = executable(&modules, pid);
        let scope = Scope::new(&memory, &modules, executable);
        let imports = plan.imports.iter().map(|i| scope.resolve(i)).collect::<Result<_, _>>()?;
        let footholds = Footholds::find(&memory, &maps).ok_or_else(|| {
            ApplyError::Unsuitable(format!("process {pid} has no syscall instruction in its code"))
        })?;
        let Chosen { image, updates, undone } = found;
        let permit = Permit::default();
        Ok(Self {
            pid,
            memory,
            image,
            updates,
            undone,
            map,
            identities,
            imports,
            footholds,
            permit,
            modules,
        })
    }

    /// What each of the updates has written.
    ///
    /// # Errors
    /// The process cannot be read any more.
    pub fn journals(&self) -> Result<Vec<Vec<Entry>>, SysError> {
        self.updates.iter().map(|found| record::journal(&self.memory, found)).collect()
    }

    /// A free place of `size` bytes for the shadow image.
    ///
    /// # Errors
    /// There is none near enough.
    pub fn place(&self, size: u64, low_2gib: bool) -> Result<ProcAddr, ApplyError> {
        let maps = Maps::of(self.pid)?;
        let (start, end) = self.map.extent().unwrap_or((self.image.start, self.image.end));
        let wanted = Wanted {
            size,
            reach_start: start.min(self.image.start),
            reach_end: end.max(self.image.end),
            low_2gib,
        };
        space::find(&maps, &wanted).ok_or_else(|| {
            ApplyError::Unsuitable(format!(
                "no {size} bytes of free address space {} {}",
                if low_2gib { "below 2 GiB and" } else { "" },
                format_args!("within 2 GiB of {} in process {}", self.image.name, self.pid)
            ))
        })
    }
}

/// Checks, once threads of `pid` are stopped, that they are those of the program that was looked at.
/// The memory that is held open ends with the address space that it was opened on: between two
/// attempts the program may have ended or executed another one, and its pid may be another's.
///
/// # Errors
/// They are not.
pub fn still_there(pid: i32, memory: &ProcessMemory, image: ProcAddr) -> Result<(), ApplyError> {
    let mut magic = [0; 4];
    match memory.read(image, &mut magic) {
        Ok(()) if magic == object::elf::ELFMAG => Ok(()),
        _ => Err(ApplyError::Died(format!(
            "process {pid} has ended or executed another program meanwhile"
        ))),
    }
}

/// Whether an image of the process is this build now: as it was loaded, or by its last update.
#[must_use]
pub fn runs(pid: i32, build_id: &str) -> bool {
    let (Ok(memory), Ok(maps)) = (ProcessMemory::open(pid), Maps::of(pid)) else { return false };
    let records = record::find_all(&memory, &maps);
    Module::all(&memory, &maps).iter().any(|module| {
        let counts = |f: &&Found| f.record.image_bias == module.bias && f.state == State::Applied;
        match records.iter().rfind(counts) {
            Some(last) => last.record.new_build_id == build_id,
            None => module.build_id(&memory).is_some_and(|loaded| loaded == build_id),
        }
    })
}

/// The image that the bundle is for, and its updates.
struct Chosen {
    image: Module,
    updates: Vec<Found>,
    undone: Vec<Found>,
}

/// The program itself: where the kernel says that its program headers are, or else by its name.
fn executable(modules: &[Module], pid: i32) -> Option<&Module> {
    /// `AT_PHDR` (uapi/linux/auxvec.h).
    const PROGRAM_HEADERS: u64 = 3;
    let vector = std::fs::read(format!("/proc/{pid}/auxv")).unwrap_or_default();
    let (words, _) = vector.as_chunks::<8>();
    let pairs = words.as_chunks::<2>().0.iter().map(|pair| pair.map(u64::from_le_bytes));
    let at = pairs.into_iter().find(|[kind, _]| *kind == PROGRAM_HEADERS).map(|[_, at]| at);
    let holds = |m: &&Module| at.is_some_and(|at| m.start.0 <= at && at < m.end.0);
    if let Some(found) = modules.iter().find(holds) {
        return Some(found);
    }
    let link = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let link = link.to_string_lossy();
    modules.iter().find(|m| *m.name == *link)
}

fn find_image(
    bundle: &Bundle,
    pid: i32,
    memory: &ProcessMemory,
    modules: &[Module],
    records: Vec<Found>,
) -> Result<Chosen, ApplyError> {
    let old = &bundle.manifest.old;
    let new = &bundle.manifest.new;
    let mut same_name = None;
    let mut found: Option<Chosen> = None;
    for module in modules {
        let Some(loaded) = module.build_id(memory) else { continue };
        let of = |state| {
            let wanted = move |r: &&Found| r.record.image_bias == module.bias && r.state == state;
            records.iter().filter(wanted).cloned().collect::<Vec<Found>>()
        };
        let updates = of(State::Applied);
        let runs = updates.last().map_or(&loaded, |u| &u.record.new_build_id).clone();
        if runs == new.build_id {
            return Err(ApplyError::AlreadyApplied(format!(
                "process {pid} runs {} already: build {runs} of {}{}",
                new.file,
                module.file_name(),
                if updates.is_empty() { ", since its start" } else { ", by an update" },
            )));
        }
        if runs == old.build_id {
            if found.is_some() {
                return Err(ApplyError::Unsuitable(format!(
                    "process {pid} has loaded {} twice, and one bundle updates one image",
                    old.file
                )));
            }
            let undone = of(State::Undone);
            found = Some(Chosen { image: module.clone(), updates, undone });
        } else if module.file_name() == old.file || old.kind == ImageKind::Executable {
            let updated = updates.last().map_or(0, |last| last.record.sequence);
            same_name.get_or_insert((module.file_name().to_owned(), runs, updated));
        }
    }
    found.ok_or_else(|| {
        let seen = match same_name {
            Some((name, runs, 0)) => format!("its {name} is build {runs}"),
            Some((name, runs, n)) => format!("its {name} is build {runs}, after {n} updates"),
            None => format!("it maps no file of the name {}", old.file),
        };
        ApplyError::WrongBuild(format!(
            "process {pid} does not run build {} of {}: {seen}; make the bundle from the build that \
             runs, or name the right process",
            old.build_id, old.file
        ))
    })
}
