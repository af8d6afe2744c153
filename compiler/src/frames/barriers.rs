//! Calls behind which all memory is as the source has it, however a function was optimized.
//!
//! A compiler that knows its callee may keep a variable in a register across the call, and store it
//! later in one build than in the other (gcc's ipa-reference and ipa-modref, store motion). It knows
//! nothing of code that it does not see: what such code may look at must be in its place before the
//! call, and is read again behind it. Of the functions of the C library it knows those that ISO C
//! defines to touch nothing but their arguments; and that most others come back without having called anybody
//! (gcc's attribute `leaf`, glibc's `__THROW`): they do not see a file's own variables of which nobody has the address.
//!
//! Takes an image. Gives the functions through which such unseen code may be called.

use super::value::CANARY;
use crate::code::{Body, decode};
use crate::image::{FunctionId, Image, Meaning, Storage, SymbolName, Thing};
use crate::machine::calls::{Callee, callee, never_returns};
use iced_x86::{FlowControl, Register};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Functions of the C library that optimizers know to touch at most what their arguments point to
/// (C17 7.12, 7.22.1, 7.22.3, 7.22.6, 7.24; their checked forms), as beginnings of names.
const KNOWN: [&str; 30] = [
    "mem",
    "str",
    "wcs",
    "wmem",
    "stp",
    "is",
    "to",
    "abs",
    "labs",
    "llabs",
    "div",
    "ldiv",
    "malloc",
    "calloc",
    "realloc",
    "free",
    "aligned_alloc",
    "posix_memalign",
    "ffs",
    "bcmp",
    "bcopy",
    "bzero",
    "index",
    "rindex",
    "ato",
    "__mem",
    "__str",
    "__ctype",
    "__errno_location",
    "__isoc",
];

/// Functions of the mathematical library (C17 7.12), which in addition may set `errno`.
const MATHEMATICS: [&str; 38] = [
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "exp",
    "log",
    "pow",
    "sqrt",
    "cbrt",
    "hypot",
    "erf",
    "gamma",
    "lgamma",
    "tgamma",
    "ceil",
    "floor",
    "round",
    "lround",
    "llround",
    "trunc",
    "rint",
    "lrint",
    "llrint",
    "nearbyint",
    "fmod",
    "remainder",
    "remquo",
    "copysign",
    "nan",
    "nextafter",
    "fdim",
    "fmax",
    "fmin",
    "fma",
    "fabs",
    "frexp",
];

/// Functions of glibc that it does not declare to be leaves, for they may end a thread (POSIX.1-2017, XSH 2.9.5.2) or
/// call back: without `__` and `_chk` around them, and `64` behind.
const BRANCHING: [&str; 99] = [
    "accept",
    "accept4",
    "atexit",
    "bsearch",
    "clock_nanosleep",
    "close",
    "closedir",
    "connect",
    "creat",
    "dlclose",
    "dlopen",
    "dprintf",
    "epoll_pwait",
    "epoll_wait",
    "error",
    "exit",
    "fclose",
    "fcntl",
    "fdatasync",
    "fdopendir",
    "fflush",
    "fgetc",
    "fgets",
    "fopen",
    "fprintf",
    "fputc",
    "fputs",
    "fread",
    "freopen",
    "fscanf",
    "fseek",
    "fseeko",
    "fsync",
    "ftell",
    "ftello",
    "fwrite",
    "getaddrinfo",
    "getc",
    "getdelim",
    "gethostbyname",
    "getline",
    "getnameinfo",
    "lockf",
    "nanosleep",
    "open",
    "openat",
    "opendir",
    "openlog",
    "pause",
    "pclose",
    "perror",
    "poll",
    "popen",
    "ppoll",
    "pread",
    "printf",
    "pselect",
    "pthread_cond_timedwait",
    "pthread_cond_wait",
    "pthread_create",
    "pthread_join",
    "pthread_mutex_lock",
    "pthread_mutex_unlock",
    "pthread_once",
    "pthread_rwlock_rdlock",
    "pthread_rwlock_unlock",
    "pthread_rwlock_wrlock",
    "putc",
    "putchar",
    "puts",
    "pwrite",
    "qsort",
    "read",
    "readdir",
    "recv",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "scandir",
    "select",
    "sem_wait",
    "send",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "sigsuspend",
    "sigwait",
    "sleep",
    "snprintf",
    "sprintf",
    "syslog",
    "system",
    "tcdrain",
    "usleep",
    "vfprintf",
    "vprintf",
    "vsnprintf",
    "waitpid",
    "write",
];

/// What a callee may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Looks {
    /// What it was given.
    Given,
    /// All memory but the own variables of the file that calls it.
    Others,
    /// All memory.
    All,
}

/// What the functions of one image may look at, by what they may call.
pub(super) struct Barriers {
    /// Imports from glibc.
    library: BTreeSet<String>,
    functions: BTreeMap<FunctionId, Looks>,
}

impl Barriers {
    /// Looks at all functions of an image.
    pub(super) fn new(image: &Image) -> Self {
        let mut barriers = Self { library: library(image), functions: BTreeMap::new() };
        let own = |id: &FunctionId| image.function(*id).import.is_none();
        let all = (0..image.functions.len()).into_par_iter().map(FunctionId).filter(own);
        let found: Vec<(FunctionId, Looks)> =
            all.map(|id| (id, barriers.calls(image, id))).collect();
        let callers = crate::machine::callers(image);
        // What may look at more first: its callers may, too.
        for looks in [Looks::All, Looks::Others] {
            let mut queue: Vec<FunctionId> =
                found.iter().filter(|one| one.1 == looks).map(|one| one.0).collect();
            while let Some(id) = queue.pop() {
                if barriers.functions.contains_key(&id) {
                    continue;
                }
                barriers.functions.insert(id, looks);
                queue.extend(callers.get(&id).into_iter().flatten());
            }
        }
        barriers
    }

    /// Whether everything that others may see is in memory when a function calls this; `keeps_own`: it has to do
    /// with own variables of its file.
    pub(super) fn is_one(&self, callee: &Callee, keeps_own: bool) -> bool {
        let least = if keeps_own { Looks::All } else { Looks::Others };
        self.looks(callee) >= least
    }

    fn looks(&self, callee: &Callee) -> Looks {
        match callee {
            Callee::Unknown => Looks::All,
            Callee::Import(name) if is_known(name) => Looks::Given,
            Callee::Import(name) if self.library.contains(name) && !is_branching(name) => {
                Looks::Others
            }
            Callee::Import(_) => Looks::All,
            Callee::Function(id) => self.functions.get(id).copied().unwrap_or(Looks::Given),
            Callee::Inside(_) => Looks::Given,
        }
    }

    /// What a function may look at by what it calls outside of the image.
    fn calls(&self, image: &Image, id: FunctionId) -> Looks {
        let body = decode(image, image.function(id));
        let called = body.steps.iter().map(|step| {
            use FlowControl::{Call, IndirectBranch, IndirectCall, UnconditionalBranch};
            let flow = step.instruction.flow_control();
            let calls = matches!(flow, Call | IndirectCall);
            let jumps = matches!(flow, UnconditionalBranch | IndirectBranch);
            match callee(image, step) {
                // Of jumps that is one through a table.
                Callee::Unknown if !calls => Looks::Given,
                Callee::Function(_) => Looks::Given,
                // What ends the process is no reason to put anything in its place (assertions).
                callee if never_returns(image, &callee) => Looks::Given,
                callee if calls || jumps => self.looks(&callee),
                _ => Looks::Given,
            }
        });
        called.max().unwrap_or(Looks::Given)
    }
}

/// Whether code has to do with variables that only its own file knows by name, threads' own among them.
pub(super) fn has_own_variables(image: &Image, body: &Body) -> bool {
    let is_own = |address: u64| match image.resolve(address) {
        Thing::Object { object, .. } => {
            let object = image.object(object);
            object.local && object.storage != Storage::Constant
        }
        Thing::Unknown => true,
        _ => false,
    };
    body.steps.iter().any(|step| {
        let i = &step.instruction;
        let of_thread = i.segment_prefix() == Register::FS && i.memory_displacement64() != CANARY;
        of_thread || step.references.iter().any(|reference| is_own(reference.target))
    })
}

/// Functions that an image imports from glibc, as their versions say.
fn library(image: &Image) -> BTreeSet<String> {
    let plt = image.functions.iter().filter_map(|function| function.import.as_ref());
    let slots = image.relocations.values().filter_map(|slot| match &slot.meaning {
        Meaning::Symbol(symbol, _) => Some(symbol),
        _ => None,
    });
    let versioned = |symbol: &&SymbolName| {
        symbol.version.as_ref().is_some_and(|version| version.starts_with("GLIBC_"))
    };
    plt.chain(slots).filter(versioned).map(|symbol| symbol.name.clone()).collect()
}

fn is_branching(name: &str) -> bool {
    let plain = name.trim_start_matches('_');
    let plain = plain.strip_suffix("_chk").unwrap_or(plain);
    let plain = plain.strip_suffix("64").unwrap_or(plain);
    BRANCHING.binary_search(&plain).is_ok()
}

fn is_known(name: &str) -> bool {
    KNOWN.iter().any(|known| name.starts_with(known))
        || MATHEMATICS.iter().any(|known| name.strip_suffix(['f', 'l']).unwrap_or(name) == *known)
        || MATHEMATICS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::{BRANCHING, is_branching};

    #[test]
    fn names_are_found() {
        assert!(BRANCHING.is_sorted());
        for name in ["write", "__read_chk", "pread64", "__fprintf_chk", "__open64_2"] {
            assert_eq!(is_branching(name), name != "__open64_2", "{name}");
        }
        assert!(!is_branching("random"));
    }
}
