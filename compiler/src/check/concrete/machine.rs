//! A processor that knows the instructions of stubs.

use super::{Layout, mix};
use iced_x86::{EncodingKind, Instruction, Mnemonic, OpKind, Register};
use std::collections::HashMap;

/// Registers, flags and memory. Memory that was never written has bytes made from its address.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    seed: u64,
    cfa: u64,
    general: [u64; 16],
    vector: Vec<[u8; 64]>,
    flags: u64,
    memory: HashMap<u64, u8>,
    /// What lies below was lost to a signal handler, unless written since.
    lost: u64,
    /// Nothing was written below.
    lowest: u64,
    /// Signals so far.
    signals: u64,
}

/// Bytes that one string instruction may copy.
const LONGEST_COPY: u64 = 1 << 20;

impl Machine {
    pub(super) fn new(layout: Layout, old_depth: u64, lost: i64) -> Self {
        let seed = mix(layout.seed);
        // Frames are only sure to be aligned to 8.
        let cfa = 0x7ffc_0000_0000 + (mix(seed) & 0xff_fff8);
        let mut general: [u64; 16] = std::array::from_fn(|n| mix(seed ^ ((n as u64) << 32)));
        general[4] = cfa.wrapping_sub(old_depth);
        let byte = |n: usize, i: usize| mix(seed ^ ((n as u64) << 40) ^ i as u64).to_le_bytes()[3];
        let vector = (0..32).map(|n| std::array::from_fn(|i| byte(n, i))).collect();
        let lost = cfa.wrapping_add_signed(lost);
        let flags = 0x202 | (mix(seed ^ 7) & 0x8d5);
        let memory = HashMap::new();
        Self { seed, cfa, general, vector, flags, memory, lost, lowest: u64::MAX, signals: 0 }
    }

    pub(super) fn cfa(&self) -> u64 {
        self.cfa
    }

    pub(super) fn general(&self, number: u8) -> u64 {
        self.general[usize::from(number & 15)]
    }

    pub(super) fn vector(&self, number: u8) -> &[u8; 64] {
        &self.vector[usize::from(number & 31)]
    }

    pub(super) fn flags(&self) -> u64 {
        self.flags
    }

    pub(super) fn canary(&self) -> u64 {
        mix(self.seed ^ 0x28) & !0xff
    }

    pub(super) fn byte(&self, address: u64) -> u8 {
        let epoch = if address < self.lost { 1 + self.signals } else { 0 };
        let initial = || mix(self.seed ^ address.rotate_left(17) ^ (epoch << 50)).to_le_bytes()[5];
        self.memory.get(&address).copied().unwrap_or_else(initial)
    }

    /// A handler runs: below the red zone nothing stays.
    pub(super) fn signal(&mut self) {
        let floor = self.general[4].wrapping_sub(128);
        self.lost = self.lost.max(floor);
        self.signals += 1;
        if self.lowest < floor {
            self.memory.retain(|at, _| *at >= floor);
            self.lowest = floor;
        }
    }

    fn load(&self, address: u64, bytes: usize) -> Vec<u8> {
        (0..bytes as u64).map(|i| self.byte(address.wrapping_add(i))).collect()
    }

    fn store(&mut self, address: u64, value: &[u8]) {
        self.lowest = self.lowest.min(address);
        for (i, byte) in (0..).zip(value) {
            self.memory.insert(address.wrapping_add(i), *byte);
        }
    }

    fn push(&mut self, value: u64) {
        self.general[4] = self.general[4].wrapping_sub(8);
        self.store(self.general[4], &value.to_le_bytes());
    }

    fn pop(&mut self) -> u64 {
        let value = word(&self.load(self.general[4], 8));
        self.general[4] = self.general[4].wrapping_add(8);
        value
    }

    /// Executes one instruction. `constant` reads the shadow image.
    pub(super) fn step(
        &mut self,
        i: &Instruction,
        constant: impl Fn(u64, usize) -> Option<Vec<u8>>,
    ) -> Result<(), String> {
        use Mnemonic as M;
        let bytes = width(i, 0);
        match i.mnemonic() {
            M::Nop | M::Endbr64 => {}
            M::Pushfq => self.push(self.flags),
            M::Popfq => self.flags = self.pop(),
            M::Push => {
                let value = self.get(i, 0, &constant)?;
                let value = if value.len() == 8 { word(&value) } else { return unknown() };
                self.push(value);
            }
            M::Pop => {
                let value = self.pop();
                self.put(i, 0, &value.to_le_bytes()[..bytes.min(8)])?;
            }
            M::Lea => {
                let address = self.effective(i)?;
                self.put(i, 0, &address.to_le_bytes()[..bytes.min(8)])?;
            }
            M::Xchg => {
                let (a, b) = (self.get(i, 0, &constant)?, self.get(i, 1, &constant)?);
                self.put(i, 0, &b)?;
                self.put(i, 1, &a)?;
            }
            M::Movsb | M::Movsq if i.op0_kind() == OpKind::MemoryESRDI => self.copy_string(i)?,
            M::Movsx | M::Movsxd => {
                let mut value = self.get(i, 1, &constant)?;
                let sign = value.last().is_some_and(|b| *b >= 0x80);
                value.resize(bytes, if sign { 0xff } else { 0 });
                self.put(i, 0, &value)?;
            }
            M::Mov | M::Movzx => {
                let mut value = self.get(i, 1, &constant)?;
                value.resize(bytes, 0);
                self.put(i, 0, &value)?;
            }
            _ if i.encoding() == EncodingKind::Legacy
                && i.op0_kind() == OpKind::Register
                && i.op0_register().is_gpr()
                && !i.op1_register().is_vector_register() =>
            {
                self.calculate(i, &constant)?;
            }
            _ => self.vector_move(i, &constant)?,
        }
        Ok(())
    }

    /// Arithmetic on a general register. The flags become garbage.
    fn calculate(
        &mut self,
        i: &Instruction,
        constant: &impl Fn(u64, usize) -> Option<Vec<u8>>,
    ) -> Result<(), String> {
        use Mnemonic as M;
        let three = i.op_count() == 3;
        let a = word(&self.get(i, u32::from(three), constant)?);
        let b = word(&self.get(i, if three { 2 } else { 1 }, constant)?);
        let bits = 8 * width(i, 0) as u64;
        let count = b & (bits - 1);
        let signed = if bits == 32 { i64::from(low32(a).cast_signed()) } else { a.cast_signed() };
        let result = match i.mnemonic() {
            M::Add => a.wrapping_add(b),
            M::Sub => a.wrapping_sub(b),
            M::Imul => a.wrapping_mul(b),
            M::And => a & b,
            M::Or => a | b,
            M::Xor => a ^ b,
            M::Shl | M::Sal => a << count,
            M::Shr => a >> count,
            M::Sar => (signed >> count).cast_unsigned(),
            _ => return unknown(),
        };
        self.flags ^= 0x8d5;
        self.put(i, 0, &result.to_le_bytes()[..width(i, 0).min(8)])
    }

    fn copy_string(&mut self, i: &Instruction) -> Result<(), String> {
        let unit = if i.mnemonic() == Mnemonic::Movsb { 1 } else { 8 };
        let count = if i.has_rep_prefix() { self.general[1] } else { 1 };
        let total = count.checked_mul(unit).filter(|t| *t <= LONGEST_COPY);
        let total = total.ok_or("too long a copy")?;
        for done in (0..total).step_by(if unit == 8 { 8 } else { 1 }) {
            let (from, to) =
                (self.general[6].wrapping_add(done), self.general[7].wrapping_add(done));
            let value = self.load(from, if unit == 8 { 8 } else { 1 });
            self.store(to, &value);
        }
        self.general[6] = self.general[6].wrapping_add(total);
        self.general[7] = self.general[7].wrapping_add(total);
        if i.has_rep_prefix() {
            self.general[1] = 0;
        }
        Ok(())
    }

    fn vector_move(
        &mut self,
        i: &Instruction,
        constant: &impl Fn(u64, usize) -> Option<Vec<u8>>,
    ) -> Result<(), String> {
        let name = format!("{:?}", i.mnemonic()).to_lowercase();
        let name = name.strip_prefix('v').unwrap_or(&name);
        let same =
            i.op_count() > 1 && i.op_register(i.op_count() - 1) == i.op_register(i.op_count() - 2);
        let value = match name {
            "pxor" | "xorps" | "xorpd" | "pxord" | "pxorq" if same => vec![0; width(i, 0)],
            n if n.starts_with("movdq") || n.starts_with("movup") || n.starts_with("movap") => {
                self.get(i, 1, constant)?
            }
            "movd" | "movss" | "movq" | "movsd" if i.op_count() == 2 => {
                let bytes = if matches!(name, "movd" | "movss") { 4 } else { 8 };
                let mut value = self.get(i, 1, constant)?;
                value.truncate(bytes);
                let register = i.op1_kind() == OpKind::Register;
                let into_vector = i.op0_register().is_vector_register();
                if into_vector && !(register && matches!(name, "movss" | "movsd")) {
                    value.resize(16, 0);
                }
                value
            }
            _ => return unknown(),
        };
        self.put(i, 0, &value)
    }

    fn get(
        &self,
        i: &Instruction,
        index: u32,
        constant: &impl Fn(u64, usize) -> Option<Vec<u8>>,
    ) -> Result<Vec<u8>, String> {
        match i.op_kind(index) {
            OpKind::Register => {
                let register = i.op_register(index);
                let n = register.full_register().number();
                if register.is_gpr() {
                    Ok(self.general[n & 15].to_le_bytes()[..register.size().min(8)].to_vec())
                } else if register.is_vector_register() {
                    Ok(self.vector[n & 31][..register.size().min(64)].to_vec())
                } else {
                    unknown()
                }
            }
            OpKind::Memory if i.memory_segment() == Register::FS => {
                Ok(self.canary().to_le_bytes().to_vec())
            }
            OpKind::Memory => {
                let (address, bytes) = (self.effective(i)?, i.memory_size().size());
                let own = constant(address, bytes);
                Ok(own.unwrap_or_else(|| self.load(address, bytes)))
            }
            kind if super::super::symbolic::is_immediate(kind) => {
                let bytes = if i.mnemonic() == Mnemonic::Push { 8 } else { width(i, 0) };
                Ok(i.immediate(index).to_le_bytes()[..bytes.min(8)].to_vec())
            }
            _ => unknown(),
        }
    }

    fn put(&mut self, i: &Instruction, index: u32, value: &[u8]) -> Result<(), String> {
        if i.op_kind(index) == OpKind::Memory {
            let address = self.effective(i)?;
            self.store(address, value);
            return Ok(());
        }
        let register = i.op_register(index);
        let n = register.full_register().number();
        if register.is_gpr() {
            let old = self.general[n & 15].to_le_bytes();
            let mut new = if register.size() == 4 { [0; 8] } else { old };
            new[..value.len()].copy_from_slice(value);
            self.general[n & 15] = u64::from_le_bytes(new);
        } else if register.is_vector_register() {
            let place = &mut self.vector[n & 31];
            if i.encoding() != EncodingKind::Legacy {
                place.fill(0);
            }
            place[..value.len()].copy_from_slice(value);
        } else {
            return unknown();
        }
        Ok(())
    }

    fn effective(&self, i: &Instruction) -> Result<u64, String> {
        if i.is_ip_rel_memory_operand() {
            return Ok(i.ip_rel_memory_address());
        }
        let value = |register: Register| match register {
            Register::None => Ok(0),
            r if r.is_gpr64() => Ok(self.general[r.number() & 15]),
            _ => unknown(),
        };
        let index = value(i.memory_index())?.wrapping_mul(u64::from(i.memory_index_scale()));
        Ok(value(i.memory_base())?.wrapping_add(index).wrapping_add(i.memory_displacement64()))
    }
}

fn unknown<T>() -> Result<T, String> {
    Err("not an instruction of stubs".to_owned())
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn low32(number: u64) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn width(i: &Instruction, index: u32) -> usize {
    match i.op_kind(index) {
        OpKind::Register => i.op_register(index).size(),
        _ => i.memory_size().size(),
    }
}
