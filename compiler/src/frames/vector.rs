//! Vector instructions, by eight-byte lanes: moves carry values; scalar ones touch the low lane alone;
//! legacy encodings keep what is above 128 bits, VEX encodings clear it (SDM volume 1, 14.1.3).

use super::exec::Executor;
use super::state::VECTORS;
use super::value::{Operation, Value};
use crate::code::Step;
use iced_x86::{EncodingKind, Instruction, Mnemonic as M, OpKind, Register};

/// Executes the instruction if it is one that is understood here.
pub(super) fn step(e: &mut Executor<'_, '_>, step: &Step) -> bool {
    let i = &step.instruction;
    if !touches_vectors(i) {
        return false;
    }
    let followed = (0..i.op_count()).all(|n| {
        i.op_kind(n) != OpKind::Register
            || is_followed(i.op_register(n))
            || i.op_register(n).is_gpr()
    });
    if !followed || matches!(i.encoding(), EncodingKind::EVEX | EncodingKind::MVEX) {
        return false;
    }
    moves(e, step) || by_lanes(e, step) || scalar(e, step) || packed(e, step)
}

fn touches_vectors(i: &Instruction) -> bool {
    (0..i.op_count())
        .any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_vector_register())
}

fn is_followed(register: Register) -> bool {
    (register.is_xmm() || register.is_ymm()) && register.number() < VECTORS
}

fn is_vex(i: &Instruction) -> bool {
    i.encoding() == EncodingKind::VEX
}

fn number(register: Register) -> u8 {
    u8::try_from(register.number()).unwrap_or(0)
}

/// Writes lanes from the lowest on. Above them: VEX clears, legacy keeps.
fn set(e: &mut Executor<'_, '_>, i: &Instruction, register: Register, lanes: &[Value]) {
    let n = number(register);
    for lane in 0..4u8 {
        match lanes.get(usize::from(lane)) {
            Some(value) => e.machine.set_lane(n, lane, *value),
            None if is_vex(i) => {
                let zero = e.values.constant(0);
                e.machine.set_lane(n, lane, zero);
            }
            None => {}
        }
    }
}

/// The lanes of an operand of so many bytes.
fn lanes(e: &mut Executor<'_, '_>, step: &Step, index: u32, bytes: usize) -> Vec<Value> {
    let i = &step.instruction;
    match i.op_kind(index) {
        OpKind::Register if i.op_register(index).is_gpr() => vec![e.operand(step, index)],
        OpKind::Register => {
            let register = i.op_register(index);
            let mut all: Vec<Value> =
                (0..bytes.div_ceil(8)).map(|lane| e.vector_lane(register, lane)).collect();
            if bytes < 8
                && let Some(first) = all.first_mut()
            {
                *first = e.values.low(u8::try_from(bytes).unwrap_or(8), *first);
            }
            all
        }
        _ => {
            let address = e.memory_address(step);
            e.load_lanes(step, address, bytes)
        }
    }
}

fn store(e: &mut Executor<'_, '_>, step: &Step, values: &[Value], bytes: usize) {
    let address = e.memory_address(step);
    for (lane, value) in values.iter().enumerate() {
        let size = (bytes - 8 * lane).min(8);
        let at = e.values.offset(address, 8 * lane as u64);
        e.store(at, *value, u8::try_from(size).unwrap_or(8));
    }
}

/// Copies between registers and memory.
fn moves(e: &mut Executor<'_, '_>, step: &Step) -> bool {
    let i = &step.instruction;
    let to_memory = i.op_kind(0) == OpKind::Memory;
    let registers =
        i.op_kind(0) == OpKind::Register && i.op_kind(1) == OpKind::Register && i.op_count() == 2;
    let bytes = match i.mnemonic() {
        M::Movaps
        | M::Movups
        | M::Movapd
        | M::Movupd
        | M::Movdqa
        | M::Movdqu
        | M::Lddqu
        | M::Movntdq
        | M::Movntps
        | M::Movntpd => 16,
        M::Vmovaps | M::Vmovups | M::Vmovapd | M::Vmovupd | M::Vmovdqa | M::Vmovdqu | M::Vlddqu => {
            if (0..2).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_ymm()) {
                32
            } else {
                16
            }
        }
        M::Movq | M::Vmovq => return move_low(e, step, 8),
        M::Movd | M::Vmovd => return move_low(e, step, 4),
        // From memory they clear what is above, to memory they store the low part; between registers
        // they merge.
        M::Movss | M::Vmovss if !registers && i.op_count() == 2 => return move_low(e, step, 4),
        M::Movsd | M::Vmovsd if !registers && i.op_count() == 2 => return move_low(e, step, 8),
        M::Movsd if registers => {
            let low = lanes(e, step, 1, 8);
            set(e, i, i.op_register(0), &low);
            return true;
        }
        M::Movss if registers => {
            let low = lanes(e, step, 1, 4);
            let before = e.vector_lane(i.op_register(0), 0);
            let merged = e.values.insert(4, before, low[0]);
            set(e, i, i.op_register(0), &[merged]);
            return true;
        }
        M::Movhps | M::Movhpd | M::Vmovhps | M::Vmovhpd if to_memory => {
            let high = e.vector_lane(i.op_register(1), 1);
            store(e, step, &[high], 8);
            return true;
        }
        M::Movlps | M::Movlpd | M::Vmovlps | M::Vmovlpd if to_memory => {
            let low = e.vector_lane(i.op_register(1), 0);
            store(e, step, &[low], 8);
            return true;
        }
        _ => return false,
    };
    let values = lanes(e, step, 1, bytes);
    if to_memory {
        store(e, step, &values, bytes);
    } else {
        set(e, i, i.op_register(0), &values);
    }
    true
}

/// `movq`, `movd` and scalar loads and stores.
fn move_low(e: &mut Executor<'_, '_>, step: &Step, bytes: usize) -> bool {
    let i = &step.instruction;
    let bytes8 = u8::try_from(bytes).unwrap_or(8);
    let source = lanes(e, step, 1, bytes);
    let low = e.values.low(bytes8, source[0]);
    match i.op_kind(0) {
        OpKind::Memory => store(e, step, &[low], bytes),
        _ if i.op_register(0).is_gpr() => e.set_register(i.op_register(0), low),
        _ => {
            let zero = e.values.constant(0);
            set(e, i, i.op_register(0), &[low, zero]);
        }
    }
    true
}

/// Instructions of which each eight-byte lane of the result is made of one lane or two (SDM volume 2).
fn by_lanes(e: &mut Executor<'_, '_>, step: &Step) -> bool {
    let i = &step.instruction;
    if extracted(e, step) {
        return true;
    }
    if i.op_kind(0) != OpKind::Register || !is_followed(i.op_register(0)) || i.op_count() < 2 {
        return false;
    }
    let to = i.op_register(0);
    let last = i.op_count() - 1;
    let has_immediate = i.op_kind(last) == OpKind::Immediate8;
    let (second, immediate) = if has_immediate { (last - 1, i.immediate(last)) } else { (last, 0) };
    // The encodings of three operands have the first input apart from the result.
    let first = second.saturating_sub(1);
    let count = if to.is_ymm() { 4 } else { 2 };
    let Some(result) = made(e, step, (first, second), immediate, count) else { return false };
    set(e, i, to, &result);
    true
}

fn made(
    e: &mut Executor<'_, '_>,
    step: &Step,
    (first, second): (u32, u32),
    immediate: u64,
    count: usize,
) -> Option<Vec<Value>> {
    let i = &step.instruction;
    let a = |e: &mut Executor<'_, '_>| lanes(e, step, first, 8 * count);
    let b = |e: &mut Executor<'_, '_>| lanes(e, step, second, 8 * count);
    let low = |e: &mut Executor<'_, '_>| lanes(e, step, second, 8)[0];
    // Lanes of both inputs by number, the second's above the first's: in each half of a wide register the same.
    let picked = |e: &mut Executor<'_, '_>, pick: [usize; 2]| {
        let (a, b) = (a(e), b(e));
        let halves = a.chunks(2).zip(b.chunks(2)).map(|(a, b)| [a[0], a[1], b[0], b[1]]);
        Some(halves.flat_map(|all| pick.map(|n| all[n])).collect())
    };
    let bitwise = |e: &mut Executor<'_, '_>, operation| {
        let (a, b) = (a(e), b(e));
        Some(a.iter().zip(&b).map(|(a, b)| e.values.bitwise(operation, *a, *b)).collect())
    };
    match i.mnemonic() {
        M::Pand | M::Andps | M::Andpd | M::Vpand | M::Vandps | M::Vandpd => {
            bitwise(e, Operation::And)
        }
        M::Por | M::Orps | M::Orpd | M::Vpor | M::Vorps | M::Vorpd => bitwise(e, Operation::Or),
        M::Pxor | M::Xorps | M::Xorpd | M::Vpxor | M::Vxorps | M::Vxorpd => {
            bitwise(e, Operation::Xor)
        }
        // The first is inverted.
        M::Pandn | M::Andnps | M::Andnpd | M::Vpandn | M::Vandnps | M::Vandnpd => {
            let (a, b) = (a(e), b(e));
            let each = a.iter().zip(&b).map(|(a, b)| {
                let not = e.values.linear(&[(*a, u64::MAX)], u64::MAX);
                e.values.bitwise(Operation::And, not, *b)
            });
            Some(each.collect())
        }
        // All ones where they are equal, whatever the elements' size.
        M::Pcmpeqb
        | M::Pcmpeqw
        | M::Pcmpeqd
        | M::Pcmpeqq
        | M::Vpcmpeqb
        | M::Vpcmpeqw
        | M::Vpcmpeqd
        | M::Vpcmpeqq => {
            let same = a(e) == b(e);
            let ones = e.values.constant(u64::MAX);
            same.then(|| vec![ones; count])
        }
        M::Paddq | M::Vpaddq => {
            let (a, b) = (a(e), b(e));
            Some(a.iter().zip(&b).map(|(a, b)| e.values.add(*a, *b)).collect())
        }
        M::Psubq | M::Vpsubq => {
            let (a, b) = (a(e), b(e));
            Some(a.iter().zip(&b).map(|(a, b)| e.values.subtract(*a, *b)).collect())
        }
        M::Punpcklqdq | M::Unpcklpd | M::Movlhps | M::Movhps | M::Movhpd => {
            let (a, b) = (lanes(e, step, first, 8)[0], low(e));
            Some(vec![a, b])
        }
        M::Vmovlhps | M::Vmovhps | M::Vmovhpd => {
            let (a, b) = (lanes(e, step, first, 8)[0], low(e));
            Some(vec![a, b])
        }
        M::Vpunpcklqdq | M::Vunpcklpd => picked(e, [0, 2]),
        M::Punpckhqdq | M::Unpckhpd | M::Vpunpckhqdq | M::Vunpckhpd => picked(e, [1, 3]),
        M::Movhlps | M::Vmovhlps => picked(e, [3, 1]),
        M::Movlps | M::Movlpd | M::Vmovlps | M::Vmovlpd => {
            let (a, b) = (lanes(e, step, first, 16)[1], low(e));
            Some(vec![b, a])
        }
        M::Vmovsd if i.op_count() == 3 => picked(e, [2, 1]),
        M::Movddup => {
            let low = low(e);
            Some(vec![low; 2])
        }
        M::Vmovddup if count == 2 => {
            let low = low(e);
            Some(vec![low; 2])
        }
        M::Vmovddup => picked(e, [2, 2]),
        // Two bits of the immediate for each half.
        M::Shufpd | M::Vshufpd => {
            let (a, b) = (a(e), b(e));
            let pick = |lane: usize| {
                let from = if lane.is_multiple_of(2) { &a } else { &b };
                from[(lane & !1) + usize::from(immediate >> lane & 1 == 1)]
            };
            Some((0..count).map(pick).collect())
        }
        // Halves of lanes: of both inputs' in turn, or by two bits of the immediate each.
        M::Punpckldq | M::Unpcklps | M::Vpunpckldq | M::Vunpcklps => {
            let (a, b) = (a(e), b(e));
            Some(halves(e, &a, &b, |n| (n % 2 == 1, n / 2)))
        }
        M::Punpckhdq | M::Unpckhps | M::Vpunpckhdq | M::Vunpckhps => {
            let (a, b) = (a(e), b(e));
            Some(halves(e, &a, &b, |n| (n % 2 == 1, 2 + n / 2)))
        }
        M::Pshufd | M::Vpshufd => {
            let b = b(e);
            Some(halves(e, &b, &b, |n| (false, immediate >> (2 * n) & 3)))
        }
        M::Shufps | M::Vshufps => {
            let (a, b) = (a(e), b(e));
            Some(halves(e, &a, &b, |n| (n > 1, immediate >> (2 * n) & 3)))
        }
        M::Pinsrq | M::Vpinsrq => {
            let mut all = lanes(e, step, first, 16);
            all[usize::from(immediate & 1 == 1)] = low(e);
            Some(all)
        }
        _ => None,
    }
}

/// Lanes of four-byte halves: `pick` says of each of the four of 16 bytes whether it is one of the second input,
/// and which.
fn halves(
    e: &mut Executor<'_, '_>,
    a: &[Value],
    b: &[Value],
    pick: impl Fn(u64) -> (bool, u64),
) -> Vec<Value> {
    let mut made = Vec::new();
    for (a, b) in a.chunks(2).zip(b.chunks(2)) {
        for lane in [0, 2] {
            let [low, high] = [lane, lane + 1].map(|n| {
                let (second, number) = pick(n);
                let from = if second { b } else { a };
                (from[usize::from(number > 1)], number % 2)
            });
            made.push(match (low, high) {
                ((low, 0), (high, 1)) if low == high => low,
                _ => {
                    let [low, high] = [low, high].map(|(value, upper)| {
                        if upper == 0 {
                            return e.values.low(4, value);
                        }
                        let shift = e.values.constant(32);
                        match e.values.as_constant(value) {
                            Some(number) => e.values.constant(number >> 32),
                            None => e.values.operation(Operation::ShiftRight(8), &[value, shift]),
                        }
                    });
                    e.values.linear(&[(low, 1), (high, 1 << 32)], 0)
                }
            });
        }
    }
    made
}

/// `pextrq`.
fn extracted(e: &mut Executor<'_, '_>, step: &Step) -> bool {
    let i = &step.instruction;
    if !matches!(i.mnemonic(), M::Pextrq | M::Vpextrq) {
        return false;
    }
    let lane = e.vector_lane(i.op_register(1), usize::from(i.immediate(2) & 1 == 1));
    e.set_operand(step, 0, lane);
    true
}

/// Bytes of the source and of the result of a scalar instruction.
fn scalar_sizes(mnemonic: M) -> Option<(usize, usize)> {
    Some(match mnemonic {
        M::Addsd
        | M::Subsd
        | M::Mulsd
        | M::Divsd
        | M::Minsd
        | M::Maxsd
        | M::Sqrtsd
        | M::Roundsd
        | M::Vaddsd
        | M::Vsubsd
        | M::Vmulsd
        | M::Vdivsd
        | M::Vminsd
        | M::Vmaxsd
        | M::Vsqrtsd
        | M::Vroundsd
        | M::Cmpsd
        | M::Vcmpsd => (8, 8),
        M::Addss
        | M::Subss
        | M::Mulss
        | M::Divss
        | M::Minss
        | M::Maxss
        | M::Sqrtss
        | M::Roundss
        | M::Vaddss
        | M::Vsubss
        | M::Vmulss
        | M::Vdivss
        | M::Vminss
        | M::Vmaxss
        | M::Vsqrtss
        | M::Vroundss
        | M::Cmpss
        | M::Vcmpss => (4, 4),
        M::Cvtss2sd | M::Vcvtss2sd => (4, 8),
        M::Cvtsd2ss | M::Vcvtsd2ss => (8, 4),
        M::Cvtsi2sd | M::Vcvtsi2sd => (0, 8),
        M::Cvtsi2ss | M::Vcvtsi2ss => (0, 4),
        _ => return None,
    })
}

fn scalar(e: &mut Executor<'_, '_>, step: &Step) -> bool {
    let i = &step.instruction;
    let vex = is_vex(i);
    // Numbers of mnemonics, apart from those of codes that are used elsewhere.
    let operation = |immediate: u64, output: u8| Operation::Instruction {
        code: i.mnemonic() as u16,
        immediate,
        output: output | 0x40,
    };
    if matches!(
        i.mnemonic(),
        M::Comisd
            | M::Ucomisd
            | M::Vcomisd
            | M::Vucomisd
            | M::Comiss
            | M::Ucomiss
            | M::Vcomiss
            | M::Vucomiss
    ) {
        let bytes = i.memory_size().size();
        let double = matches!(i.mnemonic(), M::Comisd | M::Ucomisd | M::Vcomisd | M::Vucomisd);
        let bytes = if bytes == 0 { if double { 8 } else { 4 } } else { bytes };
        let (a, b) = (lanes(e, step, 0, bytes), lanes(e, step, 1, bytes));
        let flags = e.values.operation(operation(0, 0), &[a[0], b[0]]);
        e.machine.set_flags(flags);
        return true;
    }
    if matches!(
        i.mnemonic(),
        M::Cvttsd2si
            | M::Cvtsd2si
            | M::Cvttss2si
            | M::Cvtss2si
            | M::Vcvttsd2si
            | M::Vcvtsd2si
            | M::Vcvttss2si
            | M::Vcvtss2si
    ) {
        let single =
            matches!(i.mnemonic(), M::Cvttss2si | M::Cvtss2si | M::Vcvttss2si | M::Vcvtss2si);
        let source = lanes(e, step, 1, if single { 4 } else { 8 });
        let to = i.op_register(0);
        let result = e.values.operation(operation(to.size() as u64, 0), &[source[0]]);
        e.set_register(to, result);
        return true;
    }
    let Some((source_bytes, result_bytes)) = scalar_sizes(i.mnemonic()) else { return false };
    if i.op_kind(0) != OpKind::Register {
        return false;
    }
    // The immediate (rounding, predicate) is the last operand.
    let has_immediate = i.op_kind(i.op_count() - 1) == OpKind::Immediate8;
    let last = i.op_count() - 1 - u32::from(has_immediate);
    let immediate = if has_immediate { i.immediate(i.op_count() - 1) } else { 0 };
    let source = if source_bytes == 0 {
        vec![e.operand(step, last)]
    } else {
        lanes(e, step, last, source_bytes)
    };
    // One operand: conversions, roots, rounding. Two: the first is also what is merged into.
    let converts = source_bytes != result_bytes
        || matches!(
            i.mnemonic(),
            M::Sqrtsd
                | M::Sqrtss
                | M::Vsqrtsd
                | M::Vsqrtss
                | M::Roundsd
                | M::Roundss
                | M::Vroundsd
                | M::Vroundss
        );
    let first = if vex && last == 2 { 1 } else { 0 };
    let merged = lanes(e, step, first, 16);
    let width = if source_bytes == 0 { source_width(i, last) } else { 0 };
    let result = if converts {
        e.values.operation(operation(immediate | width << 8, 0), &[source[0]])
    } else {
        let mut a = merged[0];
        if source_bytes == 4 {
            a = e.values.low(4, a);
        }
        e.values.operation(operation(immediate, 0), &[a, source[0]])
    };
    let low = if result_bytes == 4 { e.values.insert(4, merged[0], result) } else { result };
    set(e, i, i.op_register(0), &[low, merged[1]]);
    true
}

/// Bytes of an integer source.
fn source_width(i: &Instruction, index: u32) -> u64 {
    match i.op_kind(index) {
        OpKind::Register => i.op_register(index).size() as u64,
        _ => i.memory_size().size() as u64,
    }
}

/// Any other instruction on whole vectors: each lane of the result is a function of all inputs.
fn packed(e: &mut Executor<'_, '_>, step: &Step) -> bool {
    let i = step.instruction;
    let to = i.op_register(0);
    let understood = i.op_kind(0) == OpKind::Register && is_followed(to) && i.op_count() >= 2;
    let info = e.factory.info(&i);
    let simple = info.used_memory().iter().all(|m| m.access() == iced_x86::OpAccess::Read)
        && info.used_registers().iter().all(|r| {
            r.access() == iced_x86::OpAccess::Read
                || r.register().full_register() == to.full_register()
                || r.register() == Register::None
        })
        && i.rflags_modified() == 0;
    let reads_result = !matches!(info.op_access(0), iced_x86::OpAccess::Write);
    if !understood
        || !simple
        || (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm())
    {
        return false;
    }
    let mut inputs = Vec::new();
    let mut immediate = 0u64;
    for index in u32::from(!reads_result)..i.op_count() {
        match i.op_kind(index) {
            OpKind::Register | OpKind::Memory => {
                let bytes = match i.op_kind(index) {
                    OpKind::Register => i.op_register(index).size(),
                    _ => i.memory_size().size(),
                };
                if bytes == 0 || bytes > 32 {
                    return false;
                }
                inputs.extend(lanes(e, step, index, bytes));
            }
            _ => immediate = immediate.rotate_left(8) ^ i.immediate(index),
        }
    }
    let count = if to.is_ymm() { 4u8 } else { 2 };
    let numbers: Option<Vec<u64>> = inputs.iter().map(|v| e.values.as_constant(*v)).collect();
    if let Some(known) = numbers.and_then(|all| of_numbers(&i, &all, usize::from(count))) {
        let known: Vec<Value> = known.into_iter().map(|n| e.values.constant(n)).collect();
        set(e, &i, to, &known);
        return true;
    }
    let results: Vec<Value> = (0..count)
        .map(|output| {
            let code = i.code() as u16;
            e.values.operation(Operation::Instruction { code, immediate, output }, &inputs)
        })
        .collect();
    set(e, &i, to, &results);
    true
}

/// What an instruction on elements of four bytes makes of numbers (SDM volume 2).
fn of_numbers(i: &Instruction, lanes: &[u64], count: usize) -> Option<Vec<u64>> {
    let parts = |lane: u64| {
        let [a, b, c, d, e, f, g, h] = lane.to_le_bytes();
        [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
    };
    let lane = |[low, high]: [u32; 2]| u64::from(low) | u64::from(high) << 32;
    let each = |made: &dyn Fn(u32, u32) -> u32| -> Option<Vec<u64>> {
        let (a, b) = (lanes.get(..count)?, lanes.get(count..2 * count)?);
        let all = a.iter().zip(b).map(|(a, b)| {
            let ([a, c], [b, d]) = (parts(*a), parts(*b));
            lane([made(a, b), made(c, d)])
        });
        Some(all.collect())
    };
    // By a number in the code.
    let shifted = |made: &dyn Fn(u32, u32) -> u32| -> Option<Vec<u64>> {
        let by = match i.op_kind(i.op_count() - 1) {
            OpKind::Immediate8 => u32::from(i.immediate8()),
            _ => return None,
        };
        let all = lanes.get(..count)?.iter();
        Some(all.map(|n| lane(parts(*n).map(|part| made(part, by)))).collect())
    };
    match i.mnemonic() {
        M::Pcmpeqd | M::Vpcmpeqd => each(&|a, b| if a == b { u32::MAX } else { 0 }),
        M::Pcmpgtd | M::Vpcmpgtd => {
            each(&|a, b| if a.cast_signed() > b.cast_signed() { u32::MAX } else { 0 })
        }
        M::Paddd | M::Vpaddd => each(&u32::wrapping_add),
        M::Psubd | M::Vpsubd => each(&u32::wrapping_sub),
        M::Pmulld | M::Vpmulld => each(&u32::wrapping_mul),
        M::Pslld | M::Vpslld => shifted(&|a, by| a.checked_shl(by).unwrap_or(0)),
        M::Psrld | M::Vpsrld => shifted(&|a, by| a.checked_shr(by).unwrap_or(0)),
        M::Psrad | M::Vpsrad => shifted(&|a, by| (a.cast_signed() >> by.min(31)).cast_unsigned()),
        _ => None,
    }
}
