//! What a seccomp filter says of a system call: an interpreter of classic BPF, as far as seccomp allows it.
//!
//! Takes a program as the kernel gives it (`PTRACE_SECCOMP_GET_FILTER`) and a call; gives the verdict, which is
//! the kernel's own: the same instructions on the same 64 bytes (`seccomp_check_filter` and `struct
//! seccomp_data`, kernel/seccomp.c, uapi/linux/seccomp.h). Refuses programs with other instructions.

/// Bytes of `struct seccomp_data`.
const DATA: usize = 64;
const DATA_LEN: u32 = 64;
/// Words of memory that a program has (`BPF_MEMWORDS`).
const WORDS: usize = 16;
/// `AUDIT_ARCH_X86_64`.
const ARCH: u32 = 0xc000_003e;

/// One instruction (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to leave out if a condition holds ...
    pub if_true: u8,
    /// ... and if not.
    pub if_false: u8,
    /// A constant.
    pub k: u32,
}

/// A system call that is about to be made.
#[derive(Debug, Clone, Copy)]
pub struct SystemCall {
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// Behind the `syscall` instruction.
    pub at: u64,
}

/// What becomes of a call (`SECCOMP_RET_*`), in the kernel's order: of several filters the last one of these
/// counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is made, and written down.
    Log,
    /// A tracer decides; where it has not asked for that, the call gives an error.
    Trace,
    /// A supervisor of the process's decides.
    Notify,
    /// It gives an error.
    Error,
    /// The thread gets SIGSYS.
    Trap,
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
}

impl Action {
    /// By the upper half of what a filter returns (`SECCOMP_RET_ACTION_FULL`); what the kernel does not know
    /// ends the process.
    fn of(value: u32) -> Self {
        match value & 0xffff_0000 {
            0x7fff_0000 => Self::Allow,
            0x7ffc_0000 => Self::Log,
            0x7ff0_0000 => Self::Trace,
            0x7fc0_0000 => Self::Notify,
            0x0005_0000 => Self::Error,
            0x0003_0000 => Self::Trap,
            0x0000_0000 => Self::KillThread,
            _ => Self::KillProcess,
        }
    }

    /// Whether the call is made.
    #[must_use]
    pub fn allows(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }

    /// Whether nobody but the caller sees it.
    #[must_use]
    pub fn is_mild(self) -> bool {
        matches!(self, Self::Error | Self::Trace) || self.allows()
    }

    /// In words: "its filter ... for mmap".
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Allow | Self::Log => "allows it",
            Self::Error | Self::Trace => "gives an error",
            Self::Notify => "asks a supervisor",
            Self::Trap => "sends SIGSYS",
            Self::KillThread | Self::KillProcess => "kills it",
        }
    }
}

/// What all of these filters together say of a call. `None` for a program that the kernel would not take.
#[must_use]
pub fn verdict(filters: &[Vec<Instruction>], call: &SystemCall) -> Option<Action> {
    let data = data(call);
    let mut worst = Action::Allow;
    for filter in filters {
        worst = worst.max(Action::of(run(filter, &data)?));
    }
    Some(worst)
}

fn data(call: &SystemCall) -> [u8; DATA] {
    let mut data = [0; DATA];
    // The number is 32 bits wide.
    let number = (call.number & 0xffff_ffff).cast_unsigned();
    let words = [number | u64::from(ARCH) << 32, call.at].into_iter().chain(call.arguments);
    for (place, word) in data.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    data
}

/// The machine of uapi/linux/bpf_common.h: class in the low three bits, operation in the upper four.
#[derive(Default)]
struct Machine {
    a: u32,
    x: u32,
    memory: [u32; WORDS],
}

fn run(filter: &[Instruction], data: &[u8; DATA]) -> Option<u32> {
    let mut machine = Machine::default();
    let mut at = 0usize;
    // Jumps lead forward only: each instruction is executed once at most.
    loop {
        let one = *filter.get(at)?;
        at += 1;
        match one.code {
            // Returns: a constant, the accumulator.
            0x06 => return Some(one.k),
            0x16 => return Some(machine.a),
            // A jump.
            0x05 => at = at.checked_add(usize::try_from(one.k).ok()?)?,
            code if code & 7 == 5 => {
                let taken = machine.condition(one)?;
                at += usize::from(if taken { one.if_true } else { one.if_false });
            }
            code if code & 7 == 4 => machine.calculate(one)?,
            _ => machine.move_word(one, data)?,
        }
    }
}

impl Machine {
    fn move_word(&mut self, one: Instruction, data: &[u8; DATA]) -> Option<()> {
        let place = usize::try_from(one.k).ok()?;
        match one.code {
            // A word of the data, of which the kernel wants whole ones.
            0x20 if place.is_multiple_of(4) => {
                let bytes = data.get(place..)?.first_chunk::<4>()?;
                self.a = u32::from_le_bytes(*bytes);
            }
            // Its length.
            0x80 => self.a = DATA_LEN,
            0x81 => self.x = DATA_LEN,
            // Constants, memory.
            0x00 => self.a = one.k,
            0x01 => self.x = one.k,
            0x60 => self.a = *self.memory.get(place)?,
            0x61 => self.x = *self.memory.get(place)?,
            0x02 => *self.memory.get_mut(place)? = self.a,
            0x03 => *self.memory.get_mut(place)? = self.x,
            // Each to the other.
            0x07 => self.x = self.a,
            0x87 => self.a = self.x,
            _ => return None,
        }
        Some(())
    }

    /// The second operand: bit 3 says which.
    fn operand(&self, one: Instruction) -> u32 {
        if one.code & 8 == 0 { one.k } else { self.x }
    }

    fn condition(&self, one: Instruction) -> Option<bool> {
        let (a, b) = (self.a, self.operand(one));
        match one.code >> 4 {
            1 => Some(a == b),
            2 => Some(a > b),
            3 => Some(a >= b),
            4 => Some(a & b != 0),
            _ => None,
        }
    }

    fn calculate(&mut self, one: Instruction) -> Option<()> {
        let (a, b) = (self.a, self.operand(one));
        self.a = match one.code >> 4 {
            0 => a.wrapping_add(b),
            1 => a.wrapping_sub(b),
            2 => a.wrapping_mul(b),
            // A division by zero ends the program, with 0: "kill".
            3 => a.checked_div(b)?,
            4 => a | b,
            5 => a & b,
            // By 32 and more is not defined.
            6 => a.checked_shl(b)?,
            7 => a.checked_shr(b)?,
            8 if one.code == 0x84 => a.wrapping_neg(),
            0xa => a ^ b,
            _ => return None,
        };
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(lines: &[(u16, u8, u8, u32)]) -> Vec<Instruction> {
        let one = |&(code, if_true, if_false, k)| Instruction { code, if_true, if_false, k };
        lines.iter().map(one).collect()
    }

    fn call(number: i64, third: u64) -> SystemCall {
        SystemCall { number, arguments: [0, 0, third, 0, 0, 1 << 40], at: 0x1234_5678_9abc }
    }

    /// mmap with PROT_EXEC gives EPERM, getpid ends the process, another architecture too.
    fn example() -> Vec<Instruction> {
        program(&[
            (0x20, 0, 0, 4),
            (0x15, 1, 0, ARCH),
            (0x06, 0, 0, 0x8000_0000),
            (0x20, 0, 0, 0),
            (0x15, 4, 0, 39),
            (0x15, 0, 2, 9),
            (0x20, 0, 0, 16 + 2 * 8),
            (0x45, 2, 0, 4),
            (0x06, 0, 0, 0x7fff_0000),
            (0x06, 0, 0, 0x8000_0000),
            (0x06, 0, 0, 0x0005_0001),
        ])
    }

    #[test]
    fn verdicts() {
        let filters = [example()];
        assert_eq!(verdict(&filters, &call(9, 5)), Some(Action::Error));
        assert_eq!(verdict(&filters, &call(9, 3)), Some(Action::Allow));
        assert_eq!(verdict(&filters, &call(39, 0)), Some(Action::KillProcess));
        assert_eq!(verdict(&filters, &call(0, 0)), Some(Action::Allow));
        assert_eq!(verdict(&[], &call(0, 0)), Some(Action::Allow));
    }

    #[test]
    fn the_strictest_filter_counts() {
        let returning = |value| program(&[(0x06, 0, 0, value)]);
        let of = |values: &[u32]| {
            let filters: Vec<_> = values.iter().map(|v| returning(*v)).collect();
            verdict(&filters, &call(1, 0))
        };
        assert_eq!(of(&[0x7fff_0000, 0x0005_0016]), Some(Action::Error));
        assert_eq!(of(&[0x0005_0016, 0x7ff0_0000]), Some(Action::Error), "before a tracer");
        assert_eq!(of(&[0x0005_0016, 0x0003_0000, 0x7fff_0000]), Some(Action::Trap));
        assert_eq!(of(&[0, 0x8000_0000]), Some(Action::KillProcess));
        assert_eq!(of(&[0x7ffc_0000]), Some(Action::Log));
        assert_eq!(of(&[0x1234_0000]), Some(Action::KillProcess), "unknown");
    }

    #[test]
    fn arithmetic_and_memory() {
        // ((ip low - 8) ^ args[5] high) through memory and X.
        let filter = program(&[
            (0x20, 0, 0, 8),
            (0x14, 0, 0, 8),
            (0x02, 0, 0, 3),
            (0x20, 0, 0, 60),
            (0x07, 0, 0, 0),
            (0x60, 0, 0, 3),
            (0xac, 0, 0, 0),
            (0x1d, 1, 0, 0),
            (0x16, 0, 0, 0),
            (0x06, 0, 0, 0),
        ]);
        let value = run(&filter, &data(&call(0, 0)));
        assert_eq!(value, Some((0x5678_9abc - 8) ^ (1 << 8)));
    }

    #[test]
    fn broken_programs_say_nothing() {
        for lines in [
            &[][..],
            &[(0x20, 0, 0, 64), (0x16, 0, 0, 0)],
            &[(0x20, 0, 0, 2), (0x16, 0, 0, 0)],
            &[(0x60, 0, 0, 16), (0x16, 0, 0, 0)],
            &[(0x05, 0, 0, u32::MAX), (0x16, 0, 0, 0)],
            &[(0x34, 0, 0, 0), (0x16, 0, 0, 0)],
            &[(0x28, 0, 0, 0), (0x16, 0, 0, 0)],
        ] {
            assert_eq!(run(&program(lines), &[0; DATA]), None, "{lines:x?}");
        }
    }
}
