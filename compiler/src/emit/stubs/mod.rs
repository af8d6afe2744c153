//! Stubs: the machine code that carries one frame from an OLD site to its NEW counterpart.
//!
//! Takes a [`Translation`]; gives its code. Refuses what it cannot say in a few instructions.
//!
//! ```text
//! lea  rsp, [rsp - n]       below both frames, both red zones and the scratch area, if any is needed
//! prelude                   what takes arithmetic or no plain load gives: into the scratch area
//! moves                     each when nobody needs any more what it overwrites; a cycle is cut by
//!                           copying one of its sources into the scratch area
//! lea  rsp, [rsp + m]       CFA - new_depth
//! jmp  NEW
//! ```
//!
//! A signal may come before any of these instructions, and its handler overwrites what lies more than
//! 128 bytes below the stack pointer (psABI 3.2.2, the red zone). So the stack pointer is constant
//! between the first and the last instruction but one, everything written lies at or above it, and
//! everything still to be read lies at or above 128 bytes below it.
//!
//! The code consists of: `mov` (also from `%fs:0x28`), `movzx`, `movsx`, `movsxd`, `movabs`, `lea`,
//! `movd`, `movq`, `movups`, `vmovd`, `vmovq`, `vmovups`, `jmp`; for [`dsu_patch_format::frames::Value::Binary`] also `add`, `sub`,
//! `imul`, `and`, `or`, `xor`, `shl`, `shr`, `sar`, between `seto al; lahf` and `add al, 0x7f; sahf` when
//! the flags go through. `pushf` would show a debugger's trap flag to the program, and `popf` keep it
//! set (SDM volume 3, 18.3.1.4): the injector steps threads through here.

mod code;
mod operands;
mod order;
mod pieces;
mod prelude;

use dsu_patch_format::NewAddr;
use dsu_patch_format::frames::Translation;
use dsu_patch_format::plan::Fixup;
use dsu_patch_format::validate::MAX_FRAME;

/// Bytes below the stack pointer that signal handlers leave alone (psABI 3.2.2).
const RED_ZONE: u64 = 128;
/// What the scratch area may grow to: a stub runs on stacks of any size.
const MAX_SCRATCH: u64 = 16 << 10;

/// The code of one stub.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stub {
    /// Instructions, the last one a `jmp rel32` to NEW.
    pub bytes: Vec<u8>,
    /// Operands that depend on where OLD is, ascending.
    pub fixups: Vec<Fixup>,
}

/// Why there is no stub for a translation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unencodable(pub String);

impl From<iced_x86::IcedError> for Unencodable {
    fn from(error: iced_x86::IcedError) -> Self {
        Self(error.to_string())
    }
}

/// Makes the stub of a translation, to lie at `at` and to go on at `to`.
///
/// # Errors
/// [`Unencodable`] for a translation that contradicts itself (places that overlap, sources that are
/// too small, the return address as destination), and for one that needs too much room.
pub fn assemble(translation: &Translation, at: NewAddr, to: NewAddr) -> Result<Stub, Unencodable> {
    let problem = pieces::Problem::new(translation)?;
    // How far the stack pointer goes down depends on the room that the code turns out to need; the
    // code is the same but for displacements.
    let first = body(&problem, translation.old_depth)?;
    let lowered = first.scratch > 0 || problem.writes_below(translation.old_depth);
    let depth = if lowered {
        translation.old_depth.max(translation.new_depth)
            + RED_ZONE
            + first.scratch.next_multiple_of(8)
    } else {
        translation.old_depth
    };
    let body = body(&problem, depth)?;
    let mut whole = code::Code::new(depth);
    whole.move_stack_pointer(translation.old_depth, depth)?;
    whole.append(body);
    whole.move_stack_pointer(depth, translation.new_depth)?;
    whole.finish(at, to)
}

fn body(problem: &pieces::Problem<'_>, depth: u64) -> Result<code::Code, Unencodable> {
    let mut code = code::Code::new(depth);
    let work = prelude::write(problem, &mut code)?;
    order::write(work, &mut code)?;
    if code.scratch > MAX_SCRATCH {
        return refuse(format!("it needs {} bytes to move values through", code.scratch));
    }
    Ok(code)
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Unencodable> {
    Err(Unencodable(why.into()))
}
