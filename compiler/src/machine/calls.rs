//! Whom an instruction calls or jumps to, and what that does to the flow of control.

use crate::code::Step;
use crate::image::{FunctionId, Image, Meaning, SymbolName, Thing};

/// The other end of a call, or of a jump out of the function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callee {
    /// A function of this image, at its entry.
    Function(FunctionId),
    /// An imported function, by its linkage name.
    Import(String),
    /// Code of this image that is no function's entry.
    Inside(u64),
    /// Known at run time only.
    Unknown,
}

/// Functions of the C and C++ run-time libraries that never return (ISO C17 7.22.4, POSIX, the LSB's
/// and the Itanium C++ ABI's support functions), for images whose debug information lacks their
/// declarations. Only names that no program may use for something else.
const NEVER_RETURN: [&str; 33] = [
    "abort",
    "exit",
    "_exit",
    "_Exit",
    "quick_exit",
    "__assert",
    "__assert_fail",
    "__assert_perror_fail",
    "__stack_chk_fail",
    "__fortify_fail",
    "__chk_fail",
    "longjmp",
    "_longjmp",
    "siglongjmp",
    "__longjmp_chk",
    "pthread_exit",
    "thrd_exit",
    "__libc_start_main",
    "_Unwind_Resume",
    "__cxa_throw",
    "__cxa_rethrow",
    "__cxa_bad_cast",
    "__cxa_bad_typeid",
    "__cxa_pure_virtual",
    "__cxa_deleted_virtual",
    "__cxa_call_unexpected",
    "__cxa_throw_bad_array_new_length",
    "_ZSt9terminatev",
    "_ZSt17__throw_bad_allocv",
    "_ZSt20__throw_length_errorPKc",
    "_ZSt19__throw_logic_errorPKc",
    "_ZSt24__throw_out_of_range_fmtPKcz",
    "_ZSt16__throw_bad_castv",
];

/// Functions that return a second time, when somebody jumps back (C17 7.13.1, POSIX).
const RETURN_TWICE: [&str; 7] =
    ["setjmp", "_setjmp", "sigsetjmp", "__sigsetjmp", "getcontext", "savectx", "vfork"];

/// Whom a call or a jump leads to.
#[must_use]
pub fn callee(image: &Image, step: &Step) -> Callee {
    let Some(reference) = step.references.first().filter(|r| !r.taken) else {
        return Callee::Unknown;
    };
    let direct = step.instruction.near_branch_target() == reference.target
        && !step.instruction.is_ip_rel_memory_operand();
    match image.resolve(reference.target) {
        Thing::Code { function, offset: 0 } if direct => entry(image, function),
        Thing::Code { .. } | Thing::Constant(_) if direct => Callee::Inside(reference.target),
        Thing::Slot(slot) if !direct => match &slot.meaning {
            Meaning::Symbol(symbol, 0) => import(symbol),
            Meaning::Address(address) => match image.resolve(*address) {
                Thing::Code { function, offset: 0 } => entry(image, function),
                _ => Callee::Unknown,
            },
            _ => Callee::Unknown,
        },
        _ => Callee::Unknown,
    }
}

fn entry(image: &Image, id: FunctionId) -> Callee {
    image.function(id).import.as_ref().map_or(Callee::Function(id), import)
}

fn import(symbol: &SymbolName) -> Callee {
    Callee::Import(symbol.name.clone())
}

/// Whether a callee never returns, as far as its declaration or its name tells.
#[must_use]
pub fn never_returns(image: &Image, callee: &Callee) -> bool {
    let named = |name: &str| NEVER_RETURN.contains(&name) || image.debug.noreturn.contains(name);
    match callee {
        Callee::Function(id) => {
            let function = image.function(*id);
            image.declared(function).is_some_and(|d| d.noreturn)
                // In a static executable the library's functions are the image's own.
                || (!function.local && function.names.iter().any(|n| named(n)))
        }
        Callee::Import(name) => named(name),
        Callee::Inside(_) | Callee::Unknown => false,
    }
}

/// Whether a callee may return twice.
#[must_use]
pub fn returns_twice(image: &Image, callee: &Callee) -> bool {
    let named = |name: &str| RETURN_TWICE.contains(&name);
    match callee {
        Callee::Function(id) => image.function(*id).names.iter().any(|n| named(n)),
        Callee::Import(name) => named(name),
        Callee::Inside(_) | Callee::Unknown => false,
    }
}
