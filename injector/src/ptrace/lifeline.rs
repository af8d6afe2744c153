//! What saves a borrowed thread if the tool dies: a signal frame below its stack.
//!
//! A thread that runs a remote system call has foreign registers. If its tracer is killed then (SIGKILL
//! cannot be held up), the kernel lets it go at once, and it runs on with them. So the `syscall` that
//! it is sent to has a `ret` behind it, and its stack pointer leads to a frame as the kernel makes one for a
//! signal handler: the `ret` leads to the C library's call of `rt_sigreturn`, which restores all registers,
//! the processor's extended state and the signal mask at once, from memory. Whatever instant the tool dies
//! at, the thread runs the one call, heals itself, and goes on where it was.
//!
//! Takes a stopped thread and its registers; writes the frame below the red zone of its stack, where nothing
//! is in use; gives it, and puts the bytes there back when it is no longer needed. Refuses stacks that it
//! does not know to end in a guard page: there could be something else below.
//!
//! One thing heals only nearly: a system call that was under way begins anew, with its whole time-out. (The
//! kernel's restart block does not outlive `rt_sigreturn`, arch/x86/kernel/signal_64.c.)

use super::footholds::Footholds;
use super::sys::{self, Registers};
use super::thread::Stopped;
use crate::address::ProcAddr;
use crate::error::SysError;
use crate::target::maps::Maps;
use crate::target::memory::{ProcessMemory, ReadMemory};

/// The red zone: 128 bytes below the stack pointer are in use (psABI 3.2.2).
const RED_ZONE: u64 = 128;
/// Room for the arguments of a remote call.
pub const SCRATCH: usize = 96;
/// `struct rt_sigframe`: the return address, `ucontext`, `siginfo` (arch/x86/include/asm/sigframe.h).
const FRAME: usize = 440;
/// Offsets in it: flags and stack of the context, its registers, its signal mask.
const UC_FLAGS: usize = 8;
const UC_STACK_FLAGS: usize = 8 + 24;
const REGISTERS: usize = 8 + 40;
const FPSTATE: usize = REGISTERS + 23 * 8;
const SIGMASK: usize = REGISTERS + 32 * 8;
/// The extended state is there; the stack segment is as saved (uapi/asm/ucontext.h).
const FLAGS: u64 = 7;
/// No valid setting of the alternate stack: the kernel then leaves it as it is (`do_sigaltstack`).
const KEEP_STACK: u32 = 0x7fff;
/// Bytes of the instructions that call `rt_sigreturn`, at most.
const SIGRETURN_LEN: u64 = 9;
/// Of an XSAVE image: alignment, and where the kernel says what is in it (`struct _fpx_sw_bytes`).
const ALIGN: u64 = 64;
const SW_BYTES: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// Bytes of the legacy area and the header of an XSAVE image (SDM volume 1, 13.4).
const XSAVE_HEADER_END: usize = 576;

/// A frame in place.
#[derive(Debug)]
pub struct Lifeline {
    at: ProcAddr,
    /// Past its last byte, scratch included.
    end: ProcAddr,
    /// What was there.
    before: Vec<u8>,
}

impl Lifeline {
    /// Lays one for a stopped thread with these registers. `None` where there is no place for it, or no
    /// code to go through.
    ///
    /// # Errors
    /// The thread was killed.
    pub fn lay(
        thread: &Stopped,
        registers: &Registers,
        memory: &ProcessMemory,
        maps: &Maps,
        footholds: &Footholds,
    ) -> Result<Option<Self>, SysError> {
        let (Some(_), Some(sigreturn)) = (footholds.ret, footholds.sigreturn) else {
            return Ok(None);
        };
        let xstate = usable(thread.extended_state()?);
        let end = ProcAddr(registers.rsp.wrapping_sub(RED_ZONE) & !15);
        let scratch = end.back(SCRATCH as u64);
        let fpstate = ProcAddr(scratch.back(xstate.len() as u64).0 & !(ALIGN - 1));
        let at = ProcAddr(fpstate.back(FRAME as u64).0 & !15);
        if !is_own_stack(maps, at, ProcAddr(registers.rsp)) {
            return Ok(None);
        }
        let Ok(len) = usize::try_from(end.since(at)) else { return Ok(None) };
        // A stack grows page by page: what cannot be read is not there yet.
        let Ok(before) = memory.read_vec(at, len) else { return Ok(None) };
        let mut bytes = frame(&healed(registers), thread.signal_mask()?, sigreturn, fpstate);
        let offset = usize::try_from(fpstate.since(at)).unwrap_or(0);
        bytes.resize(offset, 0);
        bytes.extend_from_slice(&xstate);
        let line = Self { at, end, before };
        if let Err(e) = memory.write(at, &bytes) {
            // A part may be there. The error that counts is the first one.
            let _ = line.take_up(memory);
            return Err(e);
        }
        Ok(Some(line))
    }

    /// What the stack pointer must be.
    #[must_use]
    pub fn stack_pointer(&self) -> u64 {
        self.at.0
    }

    /// Where [`SCRATCH`] bytes may be written.
    #[must_use]
    pub fn scratch(&self) -> ProcAddr {
        self.end.back(SCRATCH as u64)
    }

    /// To be handed on: where it is, and what was there.
    #[must_use]
    pub fn into_parts(self) -> (ProcAddr, Vec<u8>) {
        (self.at, self.before)
    }

    /// One that another process has laid.
    #[must_use]
    pub fn from_parts(at: ProcAddr, before: Vec<u8>) -> Self {
        let end = at.offset(before.len() as u64);
        Self { at, end, before }
    }

    /// Puts back what was there. The thread has its own registers again.
    ///
    /// # Errors
    /// The process has ended.
    pub fn take_up(self, memory: &ProcessMemory) -> Result<(), SysError> {
        memory.write_back(self.at, &self.before)
    }
}

/// Whether a thread is on its way through a lifeline that a tool has left which was killed.
#[must_use]
pub fn is_on(thread: &Stopped, memory: &impl ReadMemory, footholds: &Footholds) -> bool {
    let (Some(ret), Some(sigreturn)) = (footholds.ret, footholds.sigreturn) else { return false };
    let Ok(registers) = thread.registers() else { return false };
    let in_sigreturn = registers.rip.wrapping_sub(sigreturn.0) < SIGRETURN_LEN;
    if !in_sigreturn && registers.rip != footholds.syscall.0 && registers.rip != ret.0 {
        return false;
    }
    // The `ret` takes the first word off.
    let frame = ProcAddr(registers.rsp.wrapping_sub(if in_sigreturn { 8 } else { 0 }));
    memory.read_u64(frame).is_ok_and(|word| word == sigreturn.0)
        && memory.read_u32(frame.offset(UC_STACK_FLAGS as u64)).is_ok_and(|f| f == KEEP_STACK)
}

/// Whether `[at, rsp)` is in a stack that is nothing else: the first thread's, or one that ends in
/// a page without access, as thread libraries make them.
fn is_own_stack(maps: &Maps, at: ProcAddr, rsp: ProcAddr) -> bool {
    let index = maps.0.iter().position(|m| m.start <= rsp && rsp < m.end);
    let Some((index, stack)) = index.and_then(|i| Some((i, maps.0.get(i)?))) else { return false };
    let guarded = || {
        let below = index.checked_sub(1).and_then(|i| maps.0.get(i));
        below.is_some_and(|b| b.end == stack.start && !b.readable && !b.writable && !b.executable)
    };
    stack.writable
        && stack.private
        && at >= stack.start
        && at < rsp
        && (&*stack.name == "[stack]" || guarded())
}

/// The registers that the thread goes on with by itself: the kernel's rule for a system call that an
/// interrupt has ended, without the restart block (arch/x86/kernel/signal.c).
fn healed(registers: &Registers) -> Registers {
    let mut healed = *registers;
    if registers.orig_rax.cast_signed() >= 0 && (-516..=-512).contains(&registers.rax.cast_signed())
    {
        healed.rax = registers.orig_rax;
        healed.rip = registers.rip.wrapping_sub(2);
    }
    healed
}

/// The frame without the extended state.
fn frame(registers: &Registers, mask: u64, sigreturn: ProcAddr, fpstate: ProcAddr) -> Vec<u8> {
    let mut bytes = vec![0; FRAME];
    let mut put = |at: usize, value: u64| {
        if let Some(field) = bytes.get_mut(at..at + 8) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    };
    put(0, sigreturn.0);
    put(UC_FLAGS, FLAGS);
    put(UC_STACK_FLAGS, u64::from(KEEP_STACK));
    let r = registers;
    let selectors = r.cs & 0xffff | (r.ss & 0xffff) << 48;
    // `struct sigcontext` (uapi/asm/sigcontext.h).
    let fields = [
        r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx,
        r.rax, r.rcx, r.rsp, r.rip, r.eflags, selectors,
    ];
    for (index, value) in fields.into_iter().enumerate() {
        put(REGISTERS + 8 * index, value);
    }
    put(FPSTATE, fpstate.0);
    put(SIGMASK, mask);
    bytes
}

/// The extended state as `rt_sigreturn` wants it: with the marks that say how much of it there is. State
/// that a process must ask for before it may use it (AMX) is left out where it is not in use: a frame that
/// has it is refused in a process that has not asked.
fn usable(mut xstate: Vec<u8>) -> Vec<u8> {
    const DYNAMIC: u64 = 3 << 17;
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..).and_then(|b| b.first_chunk::<8>()).map_or(0, |b| u64::from_le_bytes(*b))
    };
    let mut features = word(&xstate, SW_BYTES);
    let in_use = word(&xstate, 512);
    if features & DYNAMIC != 0 && in_use & DYNAMIC == 0 {
        features &= !DYNAMIC;
        let end = sys::xsave_end(features).max(XSAVE_HEADER_END);
        xstate.truncate(end);
    }
    let size = u32::try_from(xstate.len()).unwrap_or(0);
    let marks = [MAGIC1.to_le_bytes(), (size + 4).to_le_bytes()].concat();
    let marks = [&marks[..], &features.to_le_bytes(), &size.to_le_bytes()].concat();
    if let Some(place) = xstate.get_mut(SW_BYTES..SW_BYTES + marks.len()) {
        place.copy_from_slice(&marks);
    }
    xstate.extend_from_slice(&MAGIC2.to_le_bytes());
    xstate
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILES: u64 = 3 << 17;

    /// An image as the kernel gives it: what is there, and what of it is in use.
    fn image(features: u64, in_use: u64, len: usize) -> Vec<u8> {
        let mut image = vec![0xa5; len];
        image[SW_BYTES..SW_BYTES + 8].copy_from_slice(&features.to_le_bytes());
        image[512..520].copy_from_slice(&in_use.to_le_bytes());
        image
    }

    fn marks(image: &[u8]) -> (u32, u32, u64, u32) {
        let word = |at: usize| u32::from_le_bytes(*image[at..].first_chunk().unwrap());
        let features = u64::from_le_bytes(*image[SW_BYTES + 8..].first_chunk().unwrap());
        (word(SW_BYTES), word(SW_BYTES + 4), features, word(SW_BYTES + 16))
    }

    /// Of every processor: the kernel checks these before it restores anything
    /// (`check_xstate_in_sigframe`, arch/x86/kernel/fpu/signal.c).
    #[test]
    fn states_of_all_sizes_are_marked_whole() {
        // x87 and SSE; AVX; AVX-512; AMX in use.
        for (features, len) in [(3, 576), (7, 832), (0xe7, 2696), (0xe7 | TILES, 11_008)] {
            let state = usable(image(features, features, len));
            let size = u32::try_from(len).unwrap();
            assert_eq!(marks(&state), (MAGIC1, size + 4, features, size));
            assert_eq!((state.len(), &state[len..]), (len + 4, &MAGIC2.to_le_bytes()[..]));
            assert!(state[576..len].iter().all(|byte| *byte == 0xa5), "nothing else has changed");
        }
    }

    /// A process that has not asked for tiles may not restore any, not even unused ones.
    #[test]
    fn tiles_that_are_not_in_use_are_left_out() {
        let state = usable(image(7 | TILES, 7, 11_008));
        let (_, _, features, size) = marks(&state);
        assert_eq!(features, 7);
        // As large as this processor has it for the rest; more than the header, and no tiles.
        let len = usize::try_from(size).unwrap();
        assert!((XSAVE_HEADER_END..4096).contains(&len), "{len}");
        assert_eq!(state.len(), len + 4);
    }
}
