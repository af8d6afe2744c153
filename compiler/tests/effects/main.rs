//! The claimed effects of instructions against the processor.
//!
//! Takes every kind of instruction that the C and mathematics libraries of this machine have, with
//! several operands of each, and all that the claims treat specially; executes each on several states, with each byte of the input flipped;
//! what the output does must be within what [`Effects`] claims: a byte that is not claimed to be
//! read may influence nothing but itself, one that is claimed to be overwritten not even itself, one
//! that is not claimed to be changed stays.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use dsu_compiler::machine::effects::Effects;
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};
use object::{Object, ObjectSection};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

/// As in `driver.c`.
const VECTOR: usize = 128;
const FLAGS: usize = VECTOR + 2048;
const MASK: usize = FLAGS + 6;
const MEMORY: usize = MASK + 8;
const COUNT: usize = MEMORY + 256;
/// Where accesses go: the middle of the 256 bytes that are compared.
const CENTER: u64 = 0x2_0000_0000 + 4096 + 1024 + 128;
const READ: u8 = 1;
const CHANGED: u8 = 2;
const WRITTEN: u8 = 4;
const IGNORED: u8 = 8;
/// How many instructions of one code are tried.
const OF_EACH: usize = 6;

#[test]
fn effects_are_what_the_processor_does() {
    let directory = tempfile::tempdir().unwrap();
    let driver = directory.path().join("driver");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/effects/driver.c");
    let gcc = Command::new("gcc").args(["-O1", source, "-o"]).arg(&driver).status().unwrap();
    assert!(gcc.success());
    let chosen = choose(directory.path());
    let tried: Vec<(Instruction, Vec<u8>, Setting)> =
        chosen.into_iter().filter_map(|(i, b)| Some((i, b, setting(&i)?))).collect();
    let mut child =
        Command::new(&driver).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let records: Vec<u8> = tried.iter().flat_map(|(i, b, s)| record(i, b, s)).collect();
    let writer = std::thread::spawn(move || input.write_all(&records).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let summary = lines.pop().unwrap();
    let mut wrong: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let (instruction, ..) = &tried[words.next().unwrap().parse::<usize>().unwrap()];
        let what = words.next().unwrap();
        let places: Vec<String> = words.map(|w| place(w.parse().unwrap())).collect();
        wrong.entry(instruction.to_string()).or_default().insert(format!("{what} {places:?}"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{summary}");
    let executed: usize = summary.split(' ').nth(1).unwrap().parse().unwrap();
    // What the processor lacks is not executed; every one has the instructions of plain code.
    assert!(executed > 1000, "{summary}");
    println!("{summary}");
}

fn place(at: usize) -> String {
    match at {
        0..VECTOR => format!("general {} byte {}", at / 8, at % 8),
        VECTOR..FLAGS => format!("vector {} byte {}", (at - VECTOR) / 64, (at - VECTOR) % 64),
        FLAGS..MASK => format!("flag {}", at - FLAGS),
        MASK..MEMORY => format!("mask {}", at - MASK),
        _ => format!("memory {}", at as i64 - MEMORY as i64 - 128),
    }
}

/// What the claims are narrower for than the tables: all of it, in AT&T syntax (sources first). `X`
/// stands for vector registers, another one and the same one; `I` for constants.
const NARROWED: &str = "
addss X; subss X; mulss X; divss X; minss X; maxss X; cmpltss X; addsd X; subsd X; mulsd X; divsd X
minsd X; maxsd X; cmpltsd X; sqrtss X; rcpss X; rsqrtss X; roundss I,X; sqrtsd X; roundsd I,X
cvtss2sd X; cvtsd2ss X; cvtsi2ss %ecx,%xmm1; cvtsi2sd %ecx,%xmm1; cvtsi2sd %rcx,%xmm1
cvtsi2ss %rcx,%xmm1; comiss X; ucomiss X; comisd X; ucomisd X; cvtss2si %xmm1,%ecx
cvttss2si %xmm1,%rcx; cvtsd2si %xmm1,%ecx; cvttsd2si %xmm1,%rcx; movss X; movsd X; movss (%rax),%xmm1
movsd (%rax),%xmm1; movss %xmm1,(%rax); movsd %xmm1,(%rax); movd %xmm1,%ecx; movd %ecx,%xmm1
movq %xmm1,%rcx; movq %rcx,%xmm1; movq X; movq (%rax),%xmm1; movq %xmm1,(%rax); movlps (%rax),%xmm1
movlpd (%rax),%xmm1; movhps (%rax),%xmm1; movhpd (%rax),%xmm1; movlps %xmm1,(%rax)
movlpd %xmm1,(%rax); movhps %xmm1,(%rax); movhpd %xmm1,(%rax); movhlps X; movlhps X; unpcklpd X
unpckhpd X; punpcklqdq X; punpckhqdq X; unpcklps X; unpckhps X; punpckldq X; punpckhdq X; punpcklwd X
punpckhwd X; punpcklbw X; punpckhbw X; movddup X; cvtps2pd X; cvtdq2pd X; cvtpd2ps X; pmovsxbw X
pmovsxwd X; pmovsxdq X; pmovzxbw X; pmovzxwd X; pmovzxdq X; pmovsxbd X; pmovsxwq X; pmovzxbd X
pmovzxwq X; pmovsxbq X; pmovzxbq X; pshufd I,X; shufps I,X; shufpd I,X; pslldq I,%xmm1
psrldq I,%xmm1; pextrb I,%xmm1,%ecx; pextrw I,%xmm1,%ecx; pextrd I,%xmm1,%ecx; pextrq I,%xmm1,%rcx
extractps I,%xmm1,%ecx; pextrb I,%xmm1,(%rax); pextrd I,%xmm1,(%rax); pinsrb I,%ecx,%xmm1
pinsrw I,%ecx,%xmm1; pinsrd I,%ecx,%xmm1; pinsrq I,%rcx,%xmm1; pinsrw I,(%rax),%xmm1; insertps I,X
vucomiss X; vcomiss X; vucomisd X; vcomisd X; vcvtss2si %xmm1,%ecx; vcvttsd2si %xmm1,%rcx
vmovd %xmm1,%ecx; vmovd %ecx,%xmm1; vmovq %xmm1,%rcx; vmovq %rcx,%xmm1; vmovq X; vmovss (%rax),%xmm1
vmovsd (%rax),%xmm1; vmovss %xmm1,(%rax); vmovsd %xmm1,(%rax); vmovss X,%xmm3; vmovsd X,%xmm3
vcvtsi2ss %ecx,X; vcvtsi2sd %rcx,X; vcvtss2sd X,%xmm3; vcvtsd2ss X,%xmm3; vsqrtss X,%xmm3
vsqrtsd X,%xmm3; vrcpss X,%xmm3; vrsqrtss X,%xmm3; vroundss I,X,%xmm3; vroundsd I,X,%xmm3
vaddss X,%xmm3; vsubss X,%xmm3; vmulss X,%xmm3; vdivss X,%xmm3; vminss X,%xmm3; vmaxss X,%xmm3
vcmpltss X,%xmm3; vaddsd X,%xmm3; vsubsd X,%xmm3; vmulsd X,%xmm3; vdivsd X,%xmm3; vminsd X,%xmm3
vmaxsd X,%xmm3; vcmpltsd X,%xmm3; vaddsd (%rax),%xmm1,%xmm2; vsqrtsd (%rax),%xmm1,%xmm2; vzeroupper
vzeroall; pxor X; xorps X; xorpd X; psubd X; pcmpeqd X; pcmpgtd X; vpxor X,%xmm3; vxorps X,%xmm3
sbb %ecx,%ecx; sbb %rcx,%rcx; sbb %cl,%cl; sbb %ecx,%edx; xor %ecx,%ecx; sub %rcx,%rcx; xor %cl,%cl
and $0xff,%ecx; and $-256,%ecx; and $0xff00,%cx; and $0xf,%ch; and $0x0f0000,%rcx; or $-1,%ecx
or $-1,%rcx; or $0xff,%ecx; or $-1,%cl; or $-1,%ch; or $0xff00,%cx; test $0xff00,%ecx; test $1,%cl
test $0x10,%ch; test $0,%ecx; and $0,%rcx; shl $0,%ecx; shl %cl,%edx; shr $1,%edx; shr $32,%rdx
rol %cl,%edx; rcl %cl,%rdx; shld %cl,%edx,%esi; shrd $0,%edx,%esi; cmove %ecx,%edx; cmove %rcx,%rdx
cmove %cx,%dx; bsf %ecx,%edx; bsr %rcx,%rdx; tzcnt %ecx,%edx; mov %ah,%cl; mov %cl,%ah
movzbl %ah,%ecx; xchg %cl,%ch; bswap %ecx; cmpxchg %ecx,(%rax); xadd %ecx,(%rdx); rep movsb
rep stosl; repne scasb; repe cmpsb; movsq; stosb; imul %ecx,%edx; mul %rcx; div %ecx; idiv %rcx
cqto; cltd; cltq; cwtl; lahf; sahf; seta %cl; mulx %rcx,%rdx,%rsi; andn %ecx,%edx,%esi; leave
";

/// The instructions of [`NARROWED`], assembled.
fn assembled(directory: &std::path::Path) -> Vec<u8> {
    let mut text = String::new();
    for line in NARROWED.split([';', '\n']).map(str::trim).filter(|l| !l.is_empty()) {
        let registers: &[&str] =
            if line.contains('X') { &["%xmm1,%xmm2", "%xmm2,%xmm2"] } else { &[""] };
        let constants: &[u8] =
            if line.contains('I') { &[0, 1, 2, 3, 5, 7, 8, 0x1b, 0xe4] } else { &[0] };
        for registers in registers {
            for constant in constants {
                let line = line.replace('X', registers).replace('I', &format!("${constant}"));
                text.push_str(&line);
                text.push('\n');
            }
        }
    }
    let source = directory.join("narrowed.s");
    let object = directory.join("narrowed.o");
    std::fs::write(&source, text).unwrap();
    let gcc = Command::new("gcc").arg("-c").arg(&source).arg("-o").arg(&object).status().unwrap();
    assert!(gcc.success());
    std::fs::read(object).unwrap()
}

/// Instructions of the libraries, some of each code, those with different operands first.
fn choose(directory: &std::path::Path) -> Vec<(Instruction, Vec<u8>)> {
    let mut of_code: BTreeMap<Code, BTreeMap<String, (Instruction, Vec<u8>)>> = BTreeMap::new();
    let library = |name: &str| {
        let path = Command::new("gcc").arg(format!("-print-file-name={name}")).output().unwrap();
        std::fs::read(String::from_utf8(path.stdout).unwrap().trim()).unwrap()
    };
    let files = [
        (assembled(directory), usize::MAX),
        (library("libc.so.6"), OF_EACH),
        (library("libm.so.6"), OF_EACH),
        (std::fs::read("/proc/self/exe").unwrap(), OF_EACH),
    ];
    for (file, limit) in files {
        let file = object::File::parse(file.as_slice()).unwrap();
        let text = file.section_by_name(".text").unwrap();
        let bytes = text.uncompressed_data().unwrap();
        let mut decoder = Decoder::with_ip(64, &bytes, text.address(), DecoderOptions::NONE);
        while decoder.can_decode() {
            let at = decoder.position();
            let instruction = decoder.decode();
            let code = bytes[at..at + instruction.len()].to_vec();
            let found = of_code.entry(instruction.code()).or_default();
            if found.len() < limit {
                found.entry(shape(&instruction)).or_insert((instruction, code));
            }
        }
    }
    of_code.into_values().flat_map(BTreeMap::into_values).collect()
}

/// What of the operands makes a difference: which registers are the same, what the constant is like.
fn shape(i: &Instruction) -> String {
    let mut shape = String::new();
    for n in 0..i.op_count() {
        let text = match i.op_kind(n) {
            OpKind::Register => {
                let same = (0..n).find(|m| {
                    i.op_kind(*m) == OpKind::Register && i.op_register(*m) == i.op_register(n)
                });
                same.map_or("register".to_owned(), |m| format!("same{m}"))
            }
            OpKind::Memory => "memory".to_owned(),
            _ => format!("{:x}", i.try_immediate(n).unwrap_or(0) & 0xff),
        };
        shape.push_str(&text);
        shape.push(' ');
    }
    shape
}

/// Registers that must hold addresses or counts, and where memory is accessed.
struct Setting {
    fixed: BTreeMap<usize, u64>,
}

/// How an instruction can be executed alone; `None` when it cannot.
fn setting(i: &Instruction) -> Option<Setting> {
    use Mnemonic as M;
    let special = matches!(
        i.mnemonic(),
        M::Syscall
            | M::Rdtsc
            | M::Rdtscp
            | M::Rdrand
            | M::Rdseed
            | M::Rdpid
            | M::Xgetbv
            | M::Hlt
            | M::Std
            | M::Cpuid
            | M::Ldmxcsr
            | M::Stmxcsr
            | M::Enter
            | M::Leave
            | M::Popfq
            | M::Pushfq
            | M::Incsspq
            | M::Rdsspq
            | M::Wrpkru
            | M::Rdpkru
            | M::Emms
            | M::Xbegin
            | M::Xend
            | M::Xtest
            | M::Xabort
            | M::Lsl
            | M::Invlpg
            | M::Prefetchw
            | M::Prefetchit0
            | M::Prefetchit1
    );
    let effects = Effects::of(i);
    let odd = [&effects.reads, &effects.changes].iter().any(|s| s.mmx != 0 || s.tile != 0);
    let names_stack = (0..i.op_count()).any(|n| {
        i.op_kind(n) == OpKind::Register && i.op_register(n).full_register() == Register::RSP
    });
    let bits = i.op_count() == 2
        && matches!(i.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc)
        && i.op0_kind() == OpKind::Memory
        && i.op1_kind() == OpKind::Register;
    let unusual = i.is_privileged()
        || (0..i.op_count()).any(|n| i.op_register(n).is_st())
        || i.is_save_restore_instruction()
        || i.mnemonic() == M::INVALID
        || is_x87(i);
    if special
        || odd
        || names_stack
        || bits
        || unusual
        || i.flow_control() != FlowControl::Next
        || i.is_stack_instruction()
        || i.is_ip_rel_memory_operand()
    {
        return None;
    }
    let mut fixed = BTreeMap::new();
    for access in &effects.memory {
        let segments = [Register::FS, Register::GS];
        if segments.contains(&access.segment) || access.index.is_vector_register() {
            return None;
        }
        if !access.base.is_gpr64() || access.base == Register::RSP {
            return None;
        }
        let mut base = CENTER.wrapping_sub(access.displacement.cast_unsigned());
        if access.index != Register::None {
            if !access.index.is_gpr64() || access.index == access.base {
                return None;
            }
            fixed.insert(access.index.number(), 3);
            base = base.wrapping_sub(3 * u64::from(access.scale));
        }
        let known = fixed.insert(access.base.number(), base);
        if known.is_some_and(|k| k != base) {
            return None;
        }
    }
    if i.has_rep_prefix() || i.has_repne_prefix() {
        fixed.insert(1, 4);
    }
    Some(Setting { fixed })
}

fn is_x87(i: &Instruction) -> bool {
    i.op_code().instruction_string().starts_with('F')
}

/// What is claimed, as the driver reads it.
fn record(i: &Instruction, code: &[u8], setting: &Setting) -> Vec<u8> {
    let effects = Effects::of(i);
    let mut claims = vec![0u8; COUNT];
    for (set, claim) in
        [(&effects.reads, READ), (&effects.changes, CHANGED), (&effects.writes, WRITTEN)]
    {
        for (at, claimed) in claims.iter_mut().enumerate().take(128) {
            *claimed |= if set.general[at / 8] >> (at % 8) & 1 != 0 { claim } else { 0 };
        }
        for at in 0..2048 {
            claims[VECTOR + at] |=
                if set.vector[at / 64] >> (at % 64) & 1 != 0 { claim } else { 0 };
        }
        for at in 0..6 {
            claims[FLAGS + at] |= if set.flags >> at & 1 != 0 { claim } else { 0 };
        }
        for at in 0..8 {
            claims[MASK + at] |= if set.mask >> at & 1 != 0 { claim } else { 0 };
        }
    }
    for at in 0..6 {
        if i.rflags_undefined() >> at & 1 != 0 {
            claims[FLAGS + at] |= IGNORED;
        }
    }
    for access in &effects.memory {
        let area = match access.bytes {
            Some(bytes) => 128..128 + usize::try_from(bytes).unwrap().min(128),
            None => 0..256,
        };
        for at in area {
            let claims = &mut claims[MEMORY + at];
            *claims |= if access.reads { READ } else { 0 };
            *claims |= if access.changes { CHANGED } else { 0 };
            *claims |= if access.writes { WRITTEN } else { 0 };
        }
    }
    let mut out = u32::try_from(code.len()).unwrap().to_le_bytes().to_vec();
    let mut padded = [0xc3u8; 16];
    padded[..code.len()].copy_from_slice(code);
    out.extend(padded);
    for number in 0..16 {
        out.extend(setting.fixed.get(&number).copied().unwrap_or(0).to_le_bytes());
    }
    let fixed: u16 = setting.fixed.keys().map(|n| 1 << n).sum();
    out.extend(fixed.to_le_bytes());
    out.extend(claims);
    out
}
