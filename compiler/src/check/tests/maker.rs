//! The plainest stub for a table: everything goes through scratch memory below both frames.

use dsu_patch_format::NewAddr;
use dsu_patch_format::frames::{Binary, Location, Translation, Value};
use dsu_patch_format::plan::{Fixup, FixupKind};
use iced_x86::code_asm::*;

const GENERAL: [AsmRegister64; 16] =
    [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
const XMM: [AsmRegisterXmm; 16] = [
    xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14,
    xmm15,
];
const YMM: [AsmRegisterYmm; 16] = [
    ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14,
    ymm15,
];

struct Maker {
    code: CodeAssembler,
    /// CFA minus rsp while the work is done.
    depth: i64,
    /// Saved registers and finished values, from the CFA.
    registers: i64,
    vectors: i64,
    /// Targets of `mov r64, imm64`, in order.
    targets: Vec<(dsu_patch_format::plan::Target, i64)>,
}

/// A number that marks an immediate to be fixed up.
const MARK: u64 = 0x1122_3344_5566_7700;

pub(super) fn stub(table: &Translation, at: u64, to: u64) -> (Vec<u8>, Vec<Fixup>) {
    let total: u32 = table.moves.iter().map(|m| super::super::table::bytes(&m.to)).sum();
    let below = table.old_depth.max(table.new_depth).cast_signed() + 128;
    let registers = -below - 128;
    let vectors = registers - 16 * 32;
    let values = vectors - i64::from(total);
    let depth = (-values + 15) / 8 * 8;
    let mut maker = Maker {
        code: CodeAssembler::new(64).unwrap(),
        depth,
        registers,
        vectors,
        targets: Vec::new(),
    };
    maker.make(table, values);
    maker.code.jmp(to).unwrap();
    let bytes = maker.code.assemble(at).unwrap();
    let mut fixups = Vec::new();
    let mut from = 0;
    for (index, (target, addend)) in (0..).zip(maker.targets) {
        let mark = (MARK + index).to_le_bytes();
        let found = bytes[from..].windows(8).position(|w| w == mark).unwrap() + from;
        let at = NewAddr(at + found as u64);
        fixups.push(Fixup { at, kind: FixupKind::Abs64, addend, target });
        from = found + 8;
    }
    (bytes, fixups)
}

impl Maker {
    fn frame(&self, cfa: i64) -> AsmMemoryOperand {
        rsp + i32::try_from(cfa + self.depth).unwrap()
    }

    fn make(&mut self, table: &Translation, mut values: i64) {
        let lower = self.depth - table.old_depth.cast_signed();
        self.code.lea(rsp, rsp - i32::try_from(lower).unwrap()).unwrap();
        self.code.pushfq().unwrap();
        self.depth += 8;
        for (n, register) in GENERAL.into_iter().enumerate() {
            let place = self.frame(self.registers + 8 * n as i64);
            self.code.mov(qword_ptr(place), register).unwrap();
        }
        let mentions = format!("{table:?}");
        let wide = mentions.contains("Vector") && mentions.contains("bytes: 32");
        for n in 0..16 {
            let place = self.frame(self.vectors + 32 * n as i64);
            match wide {
                true => self.code.vmovdqu(ymmword_ptr(place), YMM[n]).unwrap(),
                false => self.code.movdqu(xmmword_ptr(place), XMM[n]).unwrap(),
            }
        }
        let mut finished = Vec::new();
        for step in &table.moves {
            let bytes = i64::from(super::super::table::bytes(&step.to));
            self.value(&step.from, values, bytes);
            finished.push((step.to, values, bytes));
            values += bytes;
        }
        finished.sort_by_key(|(to, ..)| !matches!(to, Location::Slot { .. }));
        for (to, from, bytes) in finished {
            match to {
                Location::Slot { cfa, .. } => self.copy(cfa, from, bytes),
                Location::Vector { number, bytes } => {
                    let (n, place) = (usize::from(number), self.frame(from));
                    match bytes {
                        4 => self.code.movss(XMM[n], dword_ptr(place)).unwrap(),
                        8 => self.code.movsd_2(XMM[n], qword_ptr(place)).unwrap(),
                        16 => self.code.movdqu(XMM[n], xmmword_ptr(place)).unwrap(),
                        _ => self.code.vmovdqu(YMM[n], ymmword_ptr(place)).unwrap(),
                    }
                }
                Location::General { number, bytes } => {
                    // Kept below until everything that needs scratch registers is done.
                    self.copy(self.registers + 8 * i64::from(number), from, i64::from(bytes));
                }
            }
        }
        let mut named = [false; 16];
        for step in &table.moves {
            if let Location::General { number, .. } = step.to {
                named[usize::from(number)] = true;
            }
        }
        for (n, register) in GENERAL.into_iter().enumerate().filter(|(n, _)| named[*n]) {
            let place = self.frame(self.registers + 8 * n as i64);
            self.code.mov(register, qword_ptr(place)).unwrap();
        }
        self.code.popfq().unwrap();
        self.depth -= 8;
        let rise = i32::try_from(self.depth - table.new_depth.cast_signed()).unwrap();
        self.code.lea(rsp, rsp + rise).unwrap();
    }

    /// Copies bytes from place to place, through rax.
    fn copy(&mut self, to: i64, from: i64, bytes: i64) {
        let mut done = 0;
        while done < bytes {
            let (target, source) = (self.frame(to + done), self.frame(from + done));
            let unit = match bytes - done {
                8.. => {
                    self.code.mov(rax, qword_ptr(source)).unwrap();
                    self.code.mov(qword_ptr(target), rax).unwrap();
                    8
                }
                4.. => {
                    self.code.mov(eax, dword_ptr(source)).unwrap();
                    self.code.mov(dword_ptr(target), eax).unwrap();
                    4
                }
                _ => {
                    self.code.movzx(eax, byte_ptr(source)).unwrap();
                    self.code.mov(byte_ptr(target), al).unwrap();
                    1
                }
            };
            done += unit;
        }
    }

    /// Where a location of OLD is found while the work is done.
    fn saved(&self, place: &Location) -> i64 {
        match *place {
            Location::General { number, .. } => self.registers + 8 * i64::from(number),
            Location::Vector { number, .. } => self.vectors + 32 * i64::from(number),
            Location::Slot { cfa, .. } => cfa,
        }
    }

    fn value(&mut self, value: &Value, to: i64, bytes: i64) {
        if let Value::At(place) = value {
            return self.copy(to, self.saved(place), bytes);
        }
        self.word(value);
        let place = self.frame(to);
        match bytes {
            1 => self.code.mov(byte_ptr(place), al).unwrap(),
            2 => self.code.mov(word_ptr(place), ax).unwrap(),
            4 => self.code.mov(dword_ptr(place), eax).unwrap(),
            _ => self.code.mov(qword_ptr(place), rax).unwrap(),
        }
        for more in (8..bytes).step_by(8) {
            self.code.xor(eax, eax).unwrap();
            let place = self.frame(to + more);
            self.code.mov(qword_ptr(place), rax).unwrap();
        }
    }

    /// Computes a value into rax.
    fn word(&mut self, value: &Value) {
        match value {
            Value::At(place) => {
                let from = self.frame(self.saved(place));
                match super::super::table::bytes(place) {
                    8.. => self.code.mov(rax, qword_ptr(from)).unwrap(),
                    4.. => self.code.mov(eax, dword_ptr(from)).unwrap(),
                    2.. => self.code.movzx(eax, word_ptr(from)).unwrap(),
                    _ => self.code.movzx(eax, byte_ptr(from)).unwrap(),
                }
            }
            Value::Constant(number) => self.code.mov(rax, *number).unwrap(),
            Value::Address { target, addend } => {
                self.code.mov(rax, MARK + self.targets.len() as u64).unwrap();
                self.targets.push((*target, *addend));
            }
            Value::Frame(offset) => {
                let place = self.frame(*offset);
                self.code.lea(rax, place).unwrap();
            }
            Value::Canary => self.code.mov(rax, qword_ptr(0x28).fs()).unwrap(),
            Value::Binary { op, bytes, left, right } => self.binary(*op, *bytes, left, right),
            Value::ZeroExtend { from, value } => {
                self.word(value);
                match from {
                    1 => self.code.movzx(eax, al).unwrap(),
                    2 => self.code.movzx(eax, ax).unwrap(),
                    _ => self.code.mov(eax, eax).unwrap(),
                }
            }
            Value::SignExtend { from, to, value } => {
                self.word(value);
                match (from, to) {
                    (1, 4) => self.code.movsx(eax, al).unwrap(),
                    (1, _) => self.code.movsx(rax, al).unwrap(),
                    (2, 4) => self.code.movsx(eax, ax).unwrap(),
                    (2, _) => self.code.movsx(rax, ax).unwrap(),
                    _ => self.code.movsxd(rax, eax).unwrap(),
                }
            }
        }
    }

    fn binary(&mut self, op: Binary, bytes: u8, left: &Value, right: &Value) {
        self.word(right);
        self.code.push(rax).unwrap();
        self.depth += 8;
        self.word(left);
        self.code.pop(rcx).unwrap();
        self.depth -= 8;
        let c = &mut self.code;
        match (op, bytes) {
            (Binary::Add, 4) => c.add(eax, ecx),
            (Binary::Sub, 4) => c.sub(eax, ecx),
            (Binary::Mul, 4) => c.imul_2(eax, ecx),
            (Binary::And, 4) => c.and(eax, ecx),
            (Binary::Or, 4) => c.or(eax, ecx),
            (Binary::Xor, 4) => c.xor(eax, ecx),
            (Binary::Shl, 4) => c.shl(eax, cl),
            (Binary::Shr, 4) => c.shr(eax, cl),
            (Binary::Sar, 4) => c.sar(eax, cl),
            (Binary::Add, _) => c.add(rax, rcx),
            (Binary::Sub, _) => c.sub(rax, rcx),
            (Binary::Mul, _) => c.imul_2(rax, rcx),
            (Binary::And, _) => c.and(rax, rcx),
            (Binary::Or, _) => c.or(rax, rcx),
            (Binary::Xor, _) => c.xor(rax, rcx),
            (Binary::Shl, _) => c.shl(rax, cl),
            (Binary::Shr, _) => c.shr(rax, cl),
            (Binary::Sar, _) => c.sar(rax, cl),
        }
        .unwrap();
    }
}
