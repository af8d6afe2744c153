//! Part 1: right stubs pass; what differs in any byte that counts does not.

use super::super::{Finding, Rule, check_stub};
use super::{bundle, general, slot, step, vector};
use dsu_patch_format::frames::{Binary, Translation, Value};
use dsu_patch_format::plan::{SiteKind, Target};
use dsu_patch_format::{Bundle, NewAddr, OldAddr};
use iced_x86::code_asm::*;

fn binary(op: Binary, bytes: u8, left: Value, right: Value) -> Value {
    Value::Binary { op, bytes, left: Box::new(left), right: Box::new(right) }
}

/// Every sort of location and value.
fn everything() -> Translation {
    use Binary::*;
    let first = || Value::At(general(0, 8));
    let below = || Value::At(slot(-40, 8));
    let moves = vec![
        step(general(0, 8), Value::At(general(3, 8))),
        step(general(1, 4), Value::At(slot(-24, 4))),
        step(general(2, 8), Value::Frame(-64)),
        step(general(3, 8), first()),
        step(general(5, 8), Value::Address { target: Target::Old(OldAddr(0x4000)), addend: 3 }),
        step(general(6, 8), Value::Address { target: Target::New(NewAddr(0x5000)), addend: 0 }),
        step(general(7, 8), Value::Address { target: Target::Import(2), addend: 0 }),
        step(general(8, 8), binary(Add, 8, first(), Value::Constant(5))),
        step(general(9, 8), binary(Mul, 8, binary(Sub, 4, first(), below()), below())),
        step(general(10, 8), binary(Sar, 4, first(), Value::At(general(1, 1)))),
        step(general(11, 8), binary(Shl, 8, first(), Value::Constant(3))),
        step(general(12, 8), binary(And, 8, first(), binary(Or, 8, below(), first()))),
        step(general(13, 8), Value::SignExtend { from: 4, to: 8, value: Box::new(first()) }),
        step(general(14, 4), Value::ZeroExtend { from: 1, value: Box::new(below()) }),
        step(general(15, 8), Value::Constant(0x1234_5678_9abc)),
        step(vector(0, 16), Value::At(vector(1, 16))),
        step(vector(1, 8), Value::At(slot(-24, 8))),
        step(vector(2, 4), Value::At(vector(0, 16))),
        step(slot(-104, 24), Value::At(slot(-48, 24))),
        step(slot(-80, 16), Value::At(vector(3, 16))),
        step(slot(-48, 8), Value::Canary),
        step(slot(-40, 3), Value::At(general(0, 8))),
        step(slot(-32, 8), Value::At(slot(-40, 8))),
        step(slot(-24, 8), binary(Xor, 8, first(), Value::Frame(8))),
        step(slot(-16, 8), Value::At(general(5, 8))),
    ];
    Translation {
        old_depth: 48,
        new_depth: 96,
        lowered: 0,
        flags: true,
        moves,
        objects: Vec::new(),
    }
}

fn findings(bundle: &Bundle) -> Vec<Finding> {
    check_stub(&bundle.plan, &bundle.plan.sites[0], &bundle.frames[0]).1
}

/// A stub written by hand, against a table.
fn by_hand(
    table: Translation,
    write: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
) -> Vec<Finding> {
    let mut bundle = bundle(plain(48, 48), SiteKind::Loop, 0x3000);
    bundle.frames = vec![table];
    let mut code = CodeAssembler::new(64).unwrap();
    write(&mut code).unwrap();
    code.jmp(0x3000).unwrap();
    let bytes = code.assemble(super::STUBS).unwrap();
    bundle.plan.sites[0].stub_len = u32::try_from(bytes.len()).unwrap();
    bundle.plan.segments[0].bytes = bytes;
    bundle.plan.fixups.clear();
    findings(&bundle)
}

fn rules(findings: &[Finding]) -> Vec<Rule> {
    findings.iter().map(|f| f.rule).collect()
}

fn plain(old_depth: u64, new_depth: u64) -> Translation {
    Translation { old_depth, new_depth, ..Translation::default() }
}

#[test]
fn a_right_stub_passes() {
    let bundle = bundle(everything(), SiteKind::Return, 0x3000);
    assert_eq!(findings(&bundle), []);
}

#[test]
fn wide_vectors_pass() {
    let moves = vec![
        step(vector(4, 32), Value::At(vector(5, 32))),
        step(vector(5, 32), Value::At(slot(-48, 32))),
        step(slot(-80, 32), Value::At(vector(4, 32))),
    ];
    let table = Translation { moves, ..plain(72, 104) };
    assert_eq!(findings(&bundle(table, SiteKind::Loop, 0x3000)), []);
}

#[test]
fn every_other_source_is_refused() {
    let right = bundle(everything(), SiteKind::Return, 0x3000);
    let moves = right.frames[0].moves.clone();
    // Narrower places hold equal low bytes of different values.
    for i in (0..moves.len()).filter(|i| super::super::table::bytes(&moves[*i].to) >= 8) {
        let mut sources: Vec<Value> = moves.iter().map(|m| m.from.clone()).collect();
        sources.extend([Value::At(slot(-16, 8)), Value::Constant(6), Value::Frame(-65)]);
        for source in sources.into_iter().filter(|s| !same_place(s, &moves[i].from)) {
            let mut wrong = right.clone();
            wrong.frames[0].moves[i].from = source.clone();
            assert!(!findings(&wrong).is_empty(), "{:?} from {source:?}", moves[i].to);
        }
    }
}

/// Of a wider source the low bytes count: the same place is the same value.
fn same_place(a: &Value, b: &Value) -> bool {
    use dsu_patch_format::frames::Location::*;
    let place = |value: &Value| match value {
        Value::At(General { number, .. }) => Some((0, i64::from(*number))),
        Value::At(Vector { number, .. }) => Some((1, i64::from(*number))),
        Value::At(Slot { cfa, .. }) => Some((2, *cfa)),
        _ => None,
    };
    a == b || (place(a).is_some() && place(a) == place(b))
}

#[test]
fn both_opinions_agree_on_every_damaged_stub() {
    let right = bundle(everything(), SiteKind::Return, 0x3000);
    let (mut refused, mut passed) = (0, 0);
    for at in 0..right.plan.segments[0].bytes.len() {
        let mut wrong = right.clone();
        wrong.plan.segments[0].bytes[at] ^= 1 << (at % 8);
        let found = findings(&wrong);
        let disagree = found.iter().find(|f| f.rule == Rule::SecondOpinion);
        assert_eq!(disagree, None, "byte {at}");
        if found.is_empty() { passed += 1 } else { refused += 1 }
    }
    // What passes: unused prefix bits, redundant encodings, dead scratch copies, immediates whose
    // place is fixed up anyway.
    assert!(passed * 8 < refused, "{passed} of {refused}");
}

#[test]
fn signals_take_what_lies_below_the_red_zone() {
    let table = || Translation {
        moves: vec![step(general(0, 8), Value::At(slot(-160, 8)))],
        ..plain(168, 8)
    };
    // Read first, then rise.
    let good = by_hand(table(), |c| {
        c.mov(rax, qword_ptr(rsp + 8))?;
        c.lea(rsp, rsp + 160)
    });
    assert_eq!(good, []);
    let bad = by_hand(table(), |c| {
        c.lea(rsp, rsp + 160)?;
        c.mov(rax, qword_ptr(rsp - 152))
    });
    assert_eq!(rules(&bad), [Rule::Move]);
    // Down again: what was lost does not come back.
    let bad = by_hand(table(), |c| {
        c.lea(rsp, rsp + 160)?;
        c.lea(rsp, rsp - 160)?;
        c.mov(rax, qword_ptr(rsp + 8))?;
        c.lea(rsp, rsp + 160)
    });
    assert_eq!(rules(&bad), [Rule::Move]);
}

#[test]
fn the_red_zone_is_there_for_a_frame_on_top_only() {
    let table =
        Translation { moves: vec![step(general(0, 8), Value::At(slot(-24, 8)))], ..plain(8, 8) };
    let write = |c: &mut CodeAssembler| c.mov(rax, qword_ptr(rsp - 16));
    assert_eq!(by_hand(table.clone(), write), []);
    let mut returned = bundle(table, SiteKind::Return, 0x3000);
    returned.plan.sites[0].kind = SiteKind::Return;
    assert_eq!(rules(&findings(&returned)), [Rule::Table]);
}

#[test]
fn writes_stay_in_the_frame() {
    let objects = vec![(-40, -24)];
    let table = || Translation { objects: objects.clone(), ..plain(48, 48) };
    type Write = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let cases: [(Write, Rule); 7] = [
        (|c| c.mov(qword_ptr(rsp - 8), rax), Rule::Write),
        (|c| c.mov(qword_ptr(rsp + 40), rax), Rule::Write),
        (|c| c.mov(qword_ptr(rsp + 48), rax), Rule::Write),
        (|c| c.mov(byte_ptr(rsp + 8), al), Rule::Write),
        (|c| c.mov(dword_ptr(rsp + 20), eax), Rule::Write),
        (|c| c.mov(qword_ptr(rax), rcx), Rule::Write),
        (|c| c.mov(rax, qword_ptr(rcx)), Rule::Read),
    ];
    for (index, (write, rule)) in cases.into_iter().enumerate() {
        assert_eq!(rules(&by_hand(table(), write)), [rule], "case {index}");
    }
    assert_eq!(by_hand(table(), |c| c.mov(qword_ptr(rsp + 24), rax)), []);
}

#[test]
fn what_stubs_never_need_is_refused() {
    type Write = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;
    let cases: [(Write, Rule); 13] = [
        (|c| c.std(), Rule::Whitelist),
        (|c| c.ldmxcsr(dword_ptr(rsp)), Rule::Whitelist),
        (|c| c.fld1(), Rule::Whitelist),
        (|c| c.call(0x3000), Rule::End),
        (|c| c.ret(), Rule::End),
        (|c| c.je(0x3000), Rule::End),
        (|c| c.syscall(), Rule::End),
        (|c| c.movdqa(xmm0, xmmword_ptr(rsp)), Rule::Whitelist),
        (|c| c.vmovdqu(xmm0, xmmword_ptr(rsp)), Rule::InstructionSet),
        (|c| c.mov(rax, qword_ptr(0x30).fs()), Rule::Read),
        (|c| c.lock().add(qword_ptr(rsp), rax), Rule::Whitelist),
        (|c| c.mov(rsp, rax), Rule::StackPointer),
        (
            |c| {
                c.push(rax)?;
                c.popfq()
            },
            Rule::Flags,
        ),
    ];
    for (index, (write, rule)) in cases.into_iter().enumerate() {
        let found = by_hand(plain(48, 48), write);
        assert_eq!(rules(&found), [rule], "case {index}: {found:?}");
    }
}

#[test]
fn flags_and_depth_and_upper_halves_count() {
    let flags = Translation { flags: true, ..plain(48, 48) };
    assert_eq!(by_hand(flags.clone(), |c| c.mov(rax, rcx)), []);
    assert_eq!(rules(&by_hand(flags, |c| c.add(rax, rcx))), [Rule::Flags]);
    assert_eq!(rules(&by_hand(plain(48, 40), |c| c.nop())), [Rule::StackPointer]);
    // A legacy load leaves the upper half as it was, a VEX one clears it.
    let upper = |from| Translation { moves: vec![step(vector(0, 32), from)], ..plain(48, 48) };
    let same = upper(Value::At(vector(0, 32)));
    assert_eq!(by_hand(same.clone(), |c| c.movdqa(xmm0, xmm0)), []);
    assert_eq!(rules(&by_hand(same, |c| c.vmovdqa(xmm0, xmm0))), [Rule::Move]);
    let zeroes = upper(Value::Constant(0));
    assert_eq!(by_hand(zeroes.clone(), |c| c.vpxor(xmm0, xmm0, xmm0)), []);
    assert_eq!(rules(&by_hand(zeroes, |c| c.pxor(xmm0, xmm0))), [Rule::Move]);
    let narrow =
        Translation { moves: vec![step(general(0, 8), Value::At(general(0, 8)))], ..plain(48, 48) };
    assert_eq!(rules(&by_hand(narrow, |c| c.mov(eax, eax))), [Rule::Move]);
}

#[test]
fn strings_are_copied_upwards() {
    let table =
        Translation { moves: vec![step(slot(-80, 32), Value::At(slot(-40, 32)))], ..plain(96, 96) };
    let good = by_hand(table.clone(), |c| {
        c.lea(rsi, rsp + 56)?;
        c.lea(rdi, rsp + 16)?;
        c.mov(ecx, 4)?;
        c.rep().movsq()
    });
    assert_eq!(good, []);
    let short = by_hand(table, |c| {
        c.lea(rsi, rsp + 56)?;
        c.lea(rdi, rsp + 16)?;
        c.mov(ecx, 31)?;
        c.rep().movsb()
    });
    assert_eq!(rules(&short), [Rule::Move]);
}

#[test]
fn tables_are_well_formed() {
    let cases = [
        vec![step(general(4, 8), Value::Constant(0))],
        vec![step(general(16, 8), Value::Constant(0))],
        vec![step(general(0, 3), Value::Constant(0))],
        vec![step(general(0, 8), Value::At(general(1, 4)))],
        vec![step(general(1, 8), Value::Constant(0)), step(general(0, 8), Value::Constant(0))],
        vec![step(slot(-40, 16), Value::Constant(0)), step(slot(-32, 8), Value::Constant(0))],
        vec![step(slot(-8, 8), Value::At(slot(-8, 8)))],
        vec![step(slot(-12, 8), Value::Constant(0))],
        vec![step(slot(16, 8), Value::At(slot(24, 8)))],
        vec![step(slot(-4000, 8), Value::Constant(0))],
    ];
    for moves in cases {
        let table = Translation { moves: moves.clone(), ..plain(48, 48) };
        let found = by_hand(table, |c| c.nop());
        assert!(rules(&found).contains(&Rule::Table), "{moves:?}: {found:?}");
    }
}
