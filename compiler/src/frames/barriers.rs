//! Calls behind which all memory is as the source has it, however a function was optimized.
//!
//! A compiler that knows its callee may keep a variable in a register across the call, and store it
//! later in one build than in the other (gcc's ipa-reference and ipa-modref, store motion). It knows
//! nothing of code that it does not see: what such code may look at must be in its place before the
//! call, and is read again behind it. Of the functions of the C library it knows those that ISO C
//! defines to touch nothing but their arguments.
//!
//! Takes an image. Gives the functions through which such unseen code may be called.

use crate::code::decode;
use crate::image::{FunctionId, Image};
use crate::machine::calls::{Callee, callee};
use iced_x86::FlowControl;
use rayon::prelude::*;
use std::collections::BTreeSet;

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

/// The functions of one image that may call what no compiler has seen.
pub(super) struct Barriers(BTreeSet<FunctionId>);

impl Barriers {
    /// Looks at all functions of an image.
    pub(super) fn new(image: &Image) -> Self {
        let outward = |id: &FunctionId| {
            let function = image.function(*id);
            if function.import.is_some() {
                return false;
            }
            let body = decode(image, function);
            body.steps.iter().any(|step| {
                use FlowControl::*;
                let flow = step.instruction.flow_control();
                let calls = matches!(flow, Call | IndirectCall);
                let jumps = matches!(flow, UnconditionalBranch | IndirectBranch);
                match callee(image, step) {
                    // Of jumps that is one through a table.
                    Callee::Unknown => calls,
                    Callee::Import(name) => (calls || jumps) && !is_known(&name),
                    Callee::Function(_) | Callee::Inside(_) => false,
                }
            })
        };
        let all = (0..image.functions.len()).into_par_iter().map(FunctionId);
        let mut found: BTreeSet<FunctionId> = all.filter(outward).collect();
        let callers = crate::machine::callers(image);
        let mut queue: Vec<FunctionId> = found.iter().copied().collect();
        while let Some(id) = queue.pop() {
            for caller in callers.get(&id).into_iter().flatten() {
                if found.insert(*caller) {
                    queue.push(*caller);
                }
            }
        }
        Self(found)
    }

    /// Whether everything that others may see is in memory when this is called.
    pub(super) fn is_one(&self, callee: &Callee) -> bool {
        match callee {
            Callee::Unknown => true,
            Callee::Import(name) => !is_known(name),
            Callee::Function(id) => self.0.contains(id),
            Callee::Inside(_) => false,
        }
    }
}

fn is_known(name: &str) -> bool {
    KNOWN.iter().any(|known| name.starts_with(known))
        || MATHEMATICS.iter().any(|known| name.strip_suffix(['f', 'l']).unwrap_or(name) == *known)
        || MATHEMATICS.contains(&name)
}
