//! Precise unwinding, for threads on whose stack the scan has found a blind word that may be stale.
//!
//! Takes the loaded images and a thread's registers; gives its frames by the rows of `.eh_frame`
//! (System V psABI 3.7 and 4.2.4; DWARF 5 section 6.4), read from the process. It is strict where
//! profilers guess: a program counter without a row, an unreadable word, a stack pointer that does
//! not rise end the walk as *incomplete*, and then the scan's answer stands. Complete means that a row
//! says that there is no caller, as glibc's `_start` and `clone` do.

use crate::address::{Bias, ProcAddr};
use crate::record::Record;
use crate::target::memory::ReadMemory;
use crate::target::module::Module;
use dsu_patch_format::plan::UnwindRow;
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, EvaluationResult, LittleEndian,
    Pointer, RegisterRule, UnwindContext, UnwindSection, Value, X86_64,
};
use object::elf;

/// Deeper recursions are not followed.
const MAX_FRAMES: usize = 20_000;
/// Registers 0 to 15 and the return address, by DWARF number (psABI table 3.36).
const REGISTERS: usize = 17;
const RSP: usize = 7;
const RA: usize = 16;
/// Against tables that do not fit what they describe.
const MAX_TABLE: u64 = 1 << 28;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
/// Values of the registers that are known, by DWARF number.
pub type Known = [Option<u64>; REGISTERS];

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where it goes on.
    pub pc: u64,
    /// It was interrupted there; else `pc` is a return address.
    pub interrupted: bool,
    /// The stack pointer once it has returned; 0 where unknown.
    pub cfa: u64,
}

/// All frames of a thread, from the top.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stack {
    /// From the innermost one.
    pub frames: Vec<Frame>,
    /// The last frame has no caller.
    pub complete: bool,
}

/// The rows of one shadow image, which has no `.eh_frame` in the process.
struct ShadowRows {
    start: u64,
    end: u64,
    bias: Bias,
    /// Ascending.
    rows: Vec<UnwindRow>,
}

impl ShadowRows {
    fn step(&self, memory: &impl ReadMemory, pc: u64, known: &Known) -> Option<Step> {
        let linked = self.bias.linked(ProcAddr(pc));
        let after = self.rows.partition_point(|r| r.start.0 <= linked);
        let row = self.rows.get(after.checked_sub(1)?)?;
        if linked - row.start.0 >= u64::from(row.len) {
            return None;
        }
        let at = |offset: i32, base: u64| ProcAddr(base.wrapping_add_signed(i64::from(offset)));
        let base = known.get(dwarf(row.cfa.0)?).copied()??;
        let cfa = at(row.cfa.1, base).0;
        let mut caller = *known;
        for (register, offset) in &row.saved {
            *caller.get_mut(dwarf(*register)?)? = Some(memory.read_u64(at(*offset, cfa)).ok()?);
        }
        caller[RSP] = Some(cfa);
        caller[RA] = Some(memory.read_u64(at(-8, cfa)).ok()?);
        Some(Step { cfa, known: caller, signal: false, root: false })
    }
}

/// DWARF's number of a register (psABI table 3.36) that the processor numbers otherwise.
fn dwarf(register: u8) -> Option<usize> {
    const NUMBERS: [usize; 16] = [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];
    NUMBERS.get(usize::from(register)).copied()
}

/// The unwinding tables of one image.
struct Tables {
    start: u64,
    end: u64,
    header: Vec<u8>,
    frames: Vec<u8>,
    bases: BaseAddresses,
}

/// Unwinds threads of one process. Tables are read when first needed and kept.
#[derive(Default)]
pub struct Unwinder {
    modules: Vec<Module>,
    tables: Vec<Option<Option<Tables>>>,
    shadows: Vec<ShadowRows>,
    context: UnwindContext<usize>,
}

impl Unwinder {
    /// For a process with these images.
    #[must_use]
    pub fn new(modules: Vec<Module>) -> Self {
        let tables = modules.iter().map(|_| None).collect();
        Self { modules, tables, shadows: Vec::new(), context: UnwindContext::new() }
    }

    /// Knows the code of these updates, too.
    #[must_use]
    pub fn with_updates<'a>(mut self, updates: impl IntoIterator<Item = &'a Record>) -> Self {
        self.shadows = updates
            .into_iter()
            .map(|record| ShadowRows {
                start: record.image.start,
                end: record.image.end(),
                bias: Bias(record.bias),
                rows: record.unwind.clone(),
            })
            .collect();
        self
    }

    /// Reads the tables of all images now, so that nothing has to be read while threads wait.
    pub fn load(&mut self, memory: &impl ReadMemory) {
        for index in 0..self.modules.len() {
            self.tables_of(memory, index);
        }
    }

    fn tables_of(&mut self, memory: &impl ReadMemory, index: usize) {
        if let (Some(slot), Some(module)) = (self.tables.get_mut(index), self.modules.get(index))
            && slot.is_none()
        {
            *slot = Some(Tables::read(memory, module));
        }
    }

    /// All frames of a thread with these registers.
    pub fn walk(&mut self, memory: &impl ReadMemory, pc: u64, known: Known) -> Stack {
        let mut stack = Stack::default();
        let mut frame = Frame { pc, interrupted: true, cfa: 0 };
        let mut known = known;
        while stack.frames.len() < MAX_FRAMES {
            let step = self.step(memory, frame, &known);
            if let Some(step) = &step {
                frame.cfa = step.cfa;
            }
            stack.frames.push(frame);
            let Some(step) = step else { break };
            let caller = match step.known[RA] {
                // A return address that a row calls undefined, or a zero, marks the root.
                Some(caller) if caller != 0 && !step.root => caller,
                None if !step.root => break,
                _ => {
                    stack.complete = true;
                    break;
                }
            };
            // Except out of a signal handler, stacks grow down only.
            let risen = step.known[RSP] > known[RSP] || step.signal;
            if !risen {
                break;
            }
            frame = Frame { pc: caller, interrupted: step.signal, cfa: 0 };
            known = step.known;
        }
        stack
    }

    /// From a frame to its caller's registers; the return address is in their last place.
    fn step(&mut self, memory: &impl ReadMemory, frame: Frame, known: &Known) -> Option<Step> {
        // A call may be the last instruction of its function: look at the call, not behind it.
        let pc = if frame.interrupted { frame.pc } else { frame.pc.checked_sub(1)? };
        if let Some(shadow) = self.shadows.iter().find(|s| (s.start..s.end).contains(&pc)) {
            return shadow.step(memory, pc, known);
        }
        let index =
            self.modules.iter().position(|m| m.start <= ProcAddr(pc) && ProcAddr(pc) < m.end)?;
        self.tables_of(memory, index);
        let tables = self.tables.get(index)?.as_ref()?.as_ref()?;
        tables.step(memory, pc, known, &mut self.context)
    }
}

/// A caller's registers.
struct Step {
    cfa: u64,
    known: Known,
    signal: bool,
    root: bool,
}

impl Tables {
    fn read(memory: &impl ReadMemory, module: &Module) -> Option<Self> {
        let (at, size) = module.place_of(elf::PT_GNU_EH_FRAME.0)?;
        let size = usize::try_from(size).ok().filter(|s| *s as u64 <= MAX_TABLE)?;
        let header = memory.read_vec(at, size).ok()?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(at.0);
        let parsed = EhFrameHdr::new(&header, LittleEndian).parse(&bases, 8).ok()?;
        let Pointer::Direct(frames_at) = parsed.eh_frame_ptr() else { return None };
        // The section's size is not in the header: it ends with its segment at the latest.
        let linked = module.bias.linked(ProcAddr(frames_at));
        let segment =
            module.headers.loads().find(|s| linked.wrapping_sub(s.vaddr) < s.file_size)?;
        let rest = segment.vaddr + segment.file_size - linked;
        let rest = usize::try_from(rest).ok().filter(|s| *s as u64 <= MAX_TABLE)?;
        let frames = memory.read_vec(ProcAddr(frames_at), rest).ok()?;
        let bases = bases.set_eh_frame(frames_at);
        Some(Self { start: module.start.0, end: module.end.0, header, frames, bases })
    }

    fn step(
        &self,
        memory: &impl ReadMemory,
        pc: u64,
        known: &Known,
        context: &mut UnwindContext<usize>,
    ) -> Option<Step> {
        debug_assert!(self.start <= pc && pc < self.end);
        let header = EhFrameHdr::new(&self.header, LittleEndian).parse(&self.bases, 8).ok()?;
        let frames = EhFrame::new(&self.frames, LittleEndian);
        let table = header.table()?;
        let fde = table
            .fde_for_address(&frames, &self.bases, pc, EhFrame::cie_from_offset)
            .ok()
            .filter(|fde| fde.contains(pc))?;
        let signal = fde.is_signal_trampoline();
        let row = fde.unwind_info_for_address(&frames, &self.bases, context, pc).ok()?;
        let encoding = fde.cie().encoding();
        let evaluate = |expression: &gimli::UnwindExpression<usize>, start: Option<u64>| {
            evaluate(memory, expression.get(&frames).ok()?, encoding, known, start)
        };
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                known.get(usize::from(register.0)).copied()??.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => evaluate(expression, None)?,
        };
        let mut caller = *known;
        caller[RA] = None;
        caller[RSP] = Some(cfa);
        let mut root = false;
        for (register, rule) in row.registers() {
            root |= usize::from(register.0) == RA && *rule == RegisterRule::Undefined;
            let Some(slot) = caller.get_mut(usize::from(register.0)) else { continue };
            *slot = match rule {
                RegisterRule::Undefined => None,
                RegisterRule::SameValue => {
                    known.get(usize::from(register.0)).copied().unwrap_or_default()
                }
                RegisterRule::Offset(offset) => {
                    Some(memory.read_u64(ProcAddr(cfa.wrapping_add_signed(*offset))).ok()?)
                }
                RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(*offset)),
                RegisterRule::Register(other) => {
                    known.get(usize::from(other.0)).copied().unwrap_or_default()
                }
                RegisterRule::Expression(expression) => {
                    let at = evaluate(expression, Some(cfa))?;
                    Some(memory.read_u64(ProcAddr(at)).ok()?)
                }
                RegisterRule::ValExpression(expression) => Some(evaluate(expression, Some(cfa))?),
                _ => return None,
            };
        }
        Some(Step { cfa, known: caller, signal, root })
    }
}

/// Evaluates a DWARF expression of a row: registers and memory are all that such ones use.
fn evaluate(
    memory: &impl ReadMemory,
    expression: gimli::Expression<Slice<'_>>,
    encoding: gimli::Encoding,
    known: &Known,
    start: Option<u64>,
) -> Option<u64> {
    let mut evaluation = expression.evaluation(encoding);
    evaluation.set_max_iterations(1000);
    if let Some(start) = start {
        evaluation.set_initial_value(start);
    }
    let mut result = evaluation.evaluate().ok()?;
    loop {
        result = match result {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = known.get(usize::from(register.0)).copied()??;
                evaluation.resume_with_register(Value::Generic(value)).ok()?
            }
            EvaluationResult::RequiresMemory { address, size, .. } => {
                let mut word = [0; 8];
                memory.read(ProcAddr(address), word.get_mut(..usize::from(size))?).ok()?;
                let value = Value::Generic(u64::from_le_bytes(word));
                evaluation.resume_with_memory(value).ok()?
            }
            _ => return None,
        };
    }
    evaluation.value_result()?.to_u64(u64::MAX).ok()
}

/// A thread's registers by DWARF number.
#[must_use]
pub fn known(registers: &crate::ptrace::sys::Registers) -> Known {
    let mut known = [None; REGISTERS];
    let values = [
        (X86_64::RAX, registers.rax),
        (X86_64::RDX, registers.rdx),
        (X86_64::RCX, registers.rcx),
        (X86_64::RBX, registers.rbx),
        (X86_64::RSI, registers.rsi),
        (X86_64::RDI, registers.rdi),
        (X86_64::RBP, registers.rbp),
        (X86_64::RSP, registers.rsp),
        (X86_64::R8, registers.r8),
        (X86_64::R9, registers.r9),
        (X86_64::R10, registers.r10),
        (X86_64::R11, registers.r11),
        (X86_64::R12, registers.r12),
        (X86_64::R13, registers.r13),
        (X86_64::R14, registers.r14),
        (X86_64::R15, registers.r15),
    ];
    for (register, value) in values {
        if let Some(slot) = known.get_mut(usize::from(register.0)) {
            *slot = Some(value);
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::FakeMemory;
    use dsu_patch_format::NewAddr;

    /// Two frames of a shadow image: the inner one has pushed rbx and counts by rsp, the outer one by rbp.
    #[test]
    fn frames_of_shadow_images() {
        let row = |start, cfa, saved: &[(u8, i32)]| UnwindRow {
            start: NewAddr(start),
            len: 0x10,
            cfa,
            saved: saved.to_vec(),
        };
        let rows = vec![row(0x100, (4, 16), &[(3, -16)]), row(0x110, (5, 16), &[(5, -16)])];
        let shadow = ShadowRows { start: 0x5_0000, end: 0x5_1000, bias: Bias(0x5_0000), rows };
        let mut stack = vec![0; 0x100];
        // rbx, back into the outer one; at 0x8040 rbp, and no caller.
        for (at, word) in [(0u64, 77u64), (8, 0x5_0118), (0x40, 99), (0x48, 0)] {
            let at = usize::try_from(at).unwrap();
            stack[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let memory = FakeMemory(vec![(ProcAddr(0x8000), stack)]);
        let mut unwinder = Unwinder { shadows: vec![shadow], ..Unwinder::default() };
        let mut known = [None; REGISTERS];
        (known[RSP], known[6]) = (Some(0x8000), Some(0x8040));
        let walked = unwinder.walk(&memory, 0x5_0108, known);
        let frame = |pc, interrupted, cfa| Frame { pc, interrupted, cfa };
        let frames = vec![frame(0x5_0108, true, 0x8010), frame(0x5_0118, false, 0x8050)];
        assert_eq!(walked, Stack { frames, complete: true });
        // Behind the last row.
        assert!(!unwinder.walk(&memory, 0x5_0120, known).complete);
    }
}
