//! Stubs run on the processor: what they leave behind is what their translation says.
//!
//! Each random translation is assembled and run, instruction by instruction, on a random state, by a
//! harness that overwrites all memory below the red zone before each instruction. The result is
//! compared with an evaluation of the translation that shares no code with the assembler.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cases;
mod machine;
mod reference;

use cases::Random;
use dsu_compiler::emit::stubs::{Stub, assemble};
use dsu_patch_format::NewAddr;
use dsu_patch_format::frames::{Location, Move, Proof, Translation, Value};
use machine::{LANDING, Machine, STUB, State};

const CASES: u64 = 1500;

fn stub(translation: &Translation) -> Stub {
    let made = assemble(translation, NewAddr(STUB), NewAddr(LANDING));
    let mut stub = made.unwrap_or_else(|e| panic!("{e}: {translation:#?}"));
    assert!(stub.fixups.is_sorted_by_key(|f| f.at), "fix-ups ascend");
    machine::fix(&mut stub.bytes, &stub.fixups);
    stub
}

fn judge(machine: &Machine, translation: &Translation, old: &State) -> Result<(), String> {
    let stub = stub(translation);
    let new = machine.run(std::iter::once((stub.bytes.as_slice(), old)));
    reference::check(translation, old, &new[0])
}

/// The same failure with as few moves as possible.
fn smaller(machine: &Machine, mut translation: Translation, old: &State) -> Translation {
    let mut index = 0;
    while index < translation.moves.len() {
        let mut without = translation.clone();
        without.moves.remove(index);
        if judge(machine, &without, old).is_err() {
            translation = without;
        } else {
            index += 1;
        }
    }
    translation
}

fn listing(stub: &Stub) -> String {
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
    let mut text = String::new();
    for instruction in Decoder::with_ip(64, &stub.bytes, STUB, DecoderOptions::NONE).iter() {
        IntelFormatter::new().format(&instruction, &mut text);
        text.push('\n');
    }
    text
}

fn check_all(cases: &[(Translation, State)]) {
    let machine = Machine::new();
    let stubs: Vec<Stub> = cases.iter().map(|(t, _)| stub(t)).collect();
    let after = machine.run(stubs.iter().zip(cases).map(|(stub, (_, old))| (&stub.bytes[..], old)));
    for (index, ((translation, old), new)) in cases.iter().zip(&after).enumerate() {
        if reference::check(translation, old, new).is_ok() {
            continue;
        }
        let least = smaller(&machine, translation.clone(), old);
        let why = judge(&machine, &least, old).unwrap_err();
        panic!("case {index}: {why}\n{least:#?}\n{}", listing(&stub(&least)));
    }
    let steps: u64 = after.iter().map(|s| s.steps).sum();
    assert!(steps > cases.len() as u64, "the harness steps through the stubs");
}

#[test]
fn random_translations_do_what_they_say() {
    let cases: Vec<(Translation, State)> = (0..CASES)
        .map(|seed| {
            let mut random = Random(seed);
            let translation = cases::translation(&mut random);
            let state = cases::state(&mut random, &translation);
            (translation, state)
        })
        .collect();
    check_all(&cases);
}

/// The comparison above can fail: a stub whose table lacks one of its moves is found out.
#[test]
fn a_stub_that_lacks_a_move_is_found_out() {
    let machine = Machine::new();
    let mut cases = Vec::new();
    for seed in 0..300 {
        let mut random = Random(seed);
        let translation = cases::translation(&mut random);
        let state = cases::state(&mut random, &translation);
        let moving = |m: &Move| Value::At(m.to) != m.from;
        let Some(index) = translation.moves.iter().position(moving) else { continue };
        let mut less = translation.clone();
        less.moves.remove(index);
        cases.push((translation, stub(&less), state));
    }
    let after = machine.run(cases.iter().map(|(_, stub, old)| (&stub.bytes[..], old)));
    let wrong = |((translation, _, old), new): &(&(Translation, Stub, State), &State)| {
        reference::check(translation, old, new).is_err()
    };
    let found = cases.iter().zip(&after).filter(wrong).count();
    // A byte of a register may be right by luck.
    assert!(found * 100 >= cases.len() * 97, "{found} of {}", cases.len());
}

fn at(number: u8) -> Location {
    Location::General { number, bytes: 8 }
}

fn moved(to: Location, from: Value) -> Move {
    Move { to, from, proof: Proof::Equal }
}

fn text(translation: &Translation) -> String {
    listing(&stub(translation))
}

#[test]
fn nothing_to_do_is_one_jump() {
    let moves = vec![moved(at(3), Value::At(at(3))), moved(at(12), Value::At(at(12)))];
    let same = Translation { old_depth: 48, new_depth: 48, moves, ..Translation::default() };
    assert_eq!(text(&same), "jmp 0000000010040000h\n");
    let smaller = Translation { new_depth: 32, ..same };
    assert_eq!(text(&smaller), "lea rsp,[rsp+10h]\njmp 0000000010040000h\n");
}

#[test]
fn the_stack_pointer_is_below_all_that_is_written() {
    let slot = Location::Slot { cfa: -64, bytes: 8 };
    let moves = vec![moved(slot, Value::At(at(3)))];
    let grows = Translation { old_depth: 32, new_depth: 64, moves, ..Translation::default() };
    let code = "lea rsp,[rsp-0A0h]\nmov [rsp+80h],rbx\nlea rsp,[rsp+80h]\njmp 0000000010040000h\n";
    assert_eq!(text(&grows), code);
}

#[test]
fn a_translation_that_contradicts_itself_is_refused() {
    let slot = |cfa, bytes| Location::Slot { cfa, bytes };
    let refused = |moves: Vec<Move>, objects: Vec<(i64, i64)>| {
        let translation =
            Translation { old_depth: 64, new_depth: 64, moves, objects, ..Translation::default() };
        let made = assemble(&translation, NewAddr(STUB), NewAddr(LANDING));
        made.expect_err("refused").to_string()
    };
    let one = Value::Constant(1);
    let cases = [
        (vec![moved(slot(-8, 8), one.clone())], "covers the return address"),
        (vec![moved(slot(-200, 8), one.clone())], "is no place of this frame"),
        (vec![moved(at(4), one.clone())], "is no place of this frame"),
        (vec![moved(slot(-40, 8), one.clone())], "covers the object"),
        (vec![moved(slot(-64, 8), one.clone()), moved(slot(-60, 4), one.clone())], "overlap"),
        (vec![moved(at(0), one.clone()), moved(at(0), one)], "overlap"),
        (
            vec![moved(at(0), Value::At(Location::General { number: 3, bytes: 4 }))],
            "8 bytes wanted",
        ),
        (vec![moved(slot(16, 5000), Value::At(slot(24, 5000)))], "a slot of 5000 bytes"),
    ];
    for (moves, why) in cases {
        let text = refused(moves, vec![(-40, -24)]);
        assert!(text.contains(why), "{text}");
    }
}
