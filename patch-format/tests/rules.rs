//! Each rule about sites, writes and frames: the example keeps it, one change breaks it.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test has no callers, and may panic")]

#[allow(dead_code, reason = "the other test files use the rest")]
mod support;

use dsu_patch_format::frames::{Location, Value};
use dsu_patch_format::plan::{DataWrite, Protection, RedirectForm};
use dsu_patch_format::validate::{validate, validate_plan};
use dsu_patch_format::{Bundle, NewAddr, OldAddr};
use support::example;

#[track_caller]
fn breaks(rule: &str, change: impl FnOnce(&mut Bundle)) {
    let mut bundle = example();
    change(&mut bundle);
    let error = validate(&bundle).expect_err(rule).to_string();
    assert!(error.starts_with(rule), "{error}");
}

#[test]
fn the_example_keeps_them() {
    validate(&example()).unwrap();
}

#[test]
fn sites() {
    let short = |cave| RedirectForm::Short { cave: OldAddr(cave) };
    breaks("sites ascend", |b| b.plan.sites.swap(0, 1));
    breaks("sites ascend", |b| b.plan.sites[1].at = b.plan.sites[0].at);
    breaks("a site lies in a blind range", |b| b.plan.sites[1].at = OldAddr(0x1148));
    breaks("a site lies in a blind range", |b| b.plan.sites[0].at = OldAddr(0x111f));
    breaks("a site names the function", |b| b.plan.sites[0].function = 1);
    breaks("a site's cave lies in dead code", |b| {
        // Behind what is kept.
        b.plan.blind.remove(1);
        b.plan.redirects.remove(1);
        b.plan.map.clear();
        b.plan.blind[0].end = OldAddr(0x1147);
        b.plan.sites.remove(0);
        b.plan.dead_returns.clear();
        b.plan.sites[0].form = short(0x1190);
    });
    breaks("a cave is within reach", |b| b.plan.sites[1].form = short(0x11d0));
    breaks("a site's jump does not reach", |b| {
        // Five bytes with two in the function, and kept code right behind it.
        b.plan.dead_returns.clear();
        b.plan.blind[0].end = OldAddr(0x112d);
        b.plan.sites.truncate(1);
        b.frames.truncate(1);
        let to = dsu_patch_format::plan::MapTarget::Old(OldAddr(0x112f));
        b.plan.map[0] = dsu_patch_format::plan::MapRun { start: NewAddr(0x1000), len: 9, to };
    });
    breaks("a site has as many expected bytes", |b| b.plan.sites[0].expect.truncate(4));
    breaks("a site has as many expected bytes", |b| b.plan.sites[1].mask.push(0));
}

#[test]
fn stubs() {
    breaks("a stub lies in a text segment", |b| b.plan.sites[0].stub = NewAddr(0x1190));
    breaks("a stub lies in a text segment", |b| b.plan.sites[0].stub_len = 0);
    breaks("a stub lies in a text segment", |b| b.plan.sites[1].stub_len = 100);
    breaks("a stub lies in a text segment", |b| b.plan.sites[1].stub = NewAddr(0x4000));
    breaks("a site's counterpart lies in a text segment", |b| {
        b.plan.sites[0].to = NewAddr(0x4000);
    });
    breaks("stubs do not overlap", |b| b.plan.sites[0].stub_len += 1);
    breaks("stubs do not overlap", |b| {
        let same = (b.plan.sites[0].stub, b.plan.sites[0].stub_len);
        (b.plan.sites[1].stub, b.plan.sites[1].stub_len) = same;
    });
    breaks("a redirect leads to code", |b| b.plan.segments[0].protection = Protection::ReadOnly);
}

#[test]
fn dead_returns() {
    breaks("dead return addresses ascend", |b| b.plan.dead_returns.push(OldAddr(0x1140)));
    breaks("a dead return is in a blind range", |b| b.plan.dead_returns[0] = OldAddr(0x1149));
    breaks("a dead return is in a blind range", |b| b.plan.dead_returns[0] = OldAddr(0x1120));
    breaks("a dead return is in a blind range", |b| b.plan.dead_returns[0] = OldAddr(0));
    breaks("nothing returns to a site at a dead", |b| b.plan.dead_returns[0] = OldAddr(0x112b));
    // A site of the function behind, which nothing returns to.
    let mut bundle = example();
    bundle.plan.dead_returns[0] = bundle.plan.sites[1].at;
    validate(&bundle).unwrap();
}

#[test]
fn passages() {
    breaks("passages ascend", |b| b.plan.passages[0].end = b.plan.passages[0].start);
    breaks("passages ascend", |b| b.plan.passages.push(b.plan.passages[0].clone()));
    breaks("a passage lies in a blind range", |b| b.plan.passages[0].end = OldAddr(0x1149));
    breaks("a passage lies in a blind range", |b| b.plan.passages[0].function = 1);
    breaks("a passage leads to sites", |b| b.plan.passages[0].exits = vec![2]);
    breaks("what is left is in OLD", |b| b.plan.left[0].1 = u64::MAX);
    breaks("unexpected return addresses ascend", |b| {
        b.plan.unexpected_returns.push(OldAddr(0x1137));
    });
    breaks("what is left ascends", |b| b.plan.left.push((OldAddr(0x4020), 4)));
    breaks("a passage's exits ascend", |b| b.plan.passages[0].exits = vec![1, 0]);
    breaks("what a passage names ascends", |b| b.plan.passages[0].names.reverse());
    breaks("nothing is written into a passage", |b| b.plan.passages[0].end = OldAddr(0x1147));
    breaks("nothing is written into a passage", |b| b.plan.passages[0].start = OldAddr(0x1134));
}

#[test]
fn copies() {
    breaks("copies of functions are code, and ascend", |b| b.plan.copies[0].len = 9);
    breaks("copies of functions are code, and ascend", |b| b.plan.copies[0].len = 0);
    breaks("copies of functions are code, and ascend", |b| {
        b.plan.copies[0].start = NewAddr(0x4000);
    });
    breaks("copies of functions are code, and ascend", |b| {
        b.plan.copies.push(b.plan.copies[0].clone());
    });
    breaks("a copy is one of a function", |b| b.plan.copies[0].of = NewAddr(0x4000));
    breaks("the function of a copy is in the address map", |b| {
        b.plan.map.truncate(1);
    });
    breaks("a copy's frame is aligned", |b| b.plan.copies[0].lowered = 40);
    breaks("objects of a copy ascend", |b| b.plan.copies[0].objects[0].end = -4);
    breaks("objects of a copy ascend", |b| b.plan.copies[0].objects[0].end = -24);
    breaks("objects of a copy ascend", |b| {
        let object = b.plan.copies[0].objects[0];
        b.plan.copies[0].objects.push(object);
    });
    breaks("objects of a copy are in OLD's frame", |b| b.plan.copies[0].objects[0].old = -40);
    breaks("objects of a copy are in OLD's frame", |b| b.plan.copies[0].objects[0].old = -12);
    breaks("a frame in a copy stands where the copy's do", |b| {
        b.plan.sites[1].to = NewAddr(0x1188);
    });
}

#[test]
fn what_is_written() {
    let rule = "no two writes touch one byte";
    breaks(rule, |b| b.plan.sites[0].at = OldAddr(0x112f));
    breaks(rule, |b| b.plan.sites[1].at = OldAddr(0x1134));
    breaks(rule, |b| b.plan.sites[1].form = RedirectForm::Short { cave: OldAddr(0x1127) });
    breaks(rule, |b| b.plan.sites[1].form = RedirectForm::Short { cave: OldAddr(0x1147) });
    breaks(rule, |b| b.plan.redirects[1].form = RedirectForm::Short { cave: OldAddr(0x1146) });
    breaks(rule, |b| b.plan.sites[0].at = OldAddr(0x1128));
    breaks(rule, |b| {
        b.plan.redirects[0].at = OldAddr(0x1120);
        b.plan.redirects[0].form = RedirectForm::Short { cave: OldAddr(0x1121) };
    });
    let write = |at, len| DataWrite { at: OldAddr(at), bytes: vec![0; len], pointers: Vec::new() };
    breaks(rule, |b| b.plan.writes.insert(0, write(0x1129, 10)));
    breaks(rule, |b| b.plan.writes.insert(0, write(0x1150, 1)));
    // Clear of everything.
    let mut bundle = example();
    bundle.plan.passages.clear();
    bundle.plan.writes.insert(0, write(0x1138, 10));
    validate(&bundle).unwrap();
    breaks("no site covers the entry", |b| b.plan.blind[0].free.push(OldAddr(0x112b)));
    breaks("no site covers the entry", |b| b.plan.blind[0].free.push(OldAddr(0x112f)));
    breaks("no site covers the entry", |b| b.plan.blind[0].free.push(OldAddr(0x1134)));
}

#[test]
fn blind_points() {
    breaks("a blind point names", |b| b.manifest.blind_points[0].function = 2);
    breaks("blind points ascend", |b| {
        let mut lower = b.manifest.blind_points[0].clone();
        lower.at = OldAddr(0x1130);
        b.manifest.blind_points.push(lower);
    });
}

#[test]
fn frames() {
    let to = |number, place: Location| {
        move |b: &mut Bundle| b.frames[0].moves[number as usize].to = place
    };
    let from = |value: Value| move |b: &mut Bundle| b.frames[0].moves[1].from = value;
    let general = |number, bytes| Location::General { number, bytes };
    let slot = |cfa, bytes| Location::Slot { cfa, bytes };
    breaks("each site has one translation", |b| drop(b.frames.pop()));
    breaks("a frame's depth", |b| b.frames[1].old_depth = 7);
    breaks("a frame's depth", |b| b.frames[1].new_depth = (1 << 24) + 1);
    breaks("a lowered frame is aligned", |b| b.frames[0].lowered = 8);
    breaks("a lowered frame is within its depth", |b| b.frames[0].lowered = 64);
    breaks("a lowered frame has a return address", |b| b.frames[0].lowered = 16);
    breaks("moves ascend", |b| b.frames[0].moves.swap(0, 1));
    breaks("moves ascend", to(1, general(0, 4)));
    breaks("destinations do not overlap", to(1, general(0, 8)));
    breaks("destinations do not overlap", to(8, slot(-53, 8)));
    breaks("the stack pointer is no destination", to(2, general(4, 8)));
    breaks("a location is a register", to(5, general(16, 8)));
    breaks("a location is a register", to(5, general(13, 3)));
    breaks("a location is a register", to(6, Location::Vector { number: 32, bytes: 16 }));
    breaks("a location is a register", to(6, Location::Vector { number: 1, bytes: 8 * 3 }));
    breaks("a location is a register", to(7, slot(-56 - 129, 4)));
    breaks("a location is a register", to(10, slot(i64::MAX, 4)));
    breaks("a location is a register", to(10, slot(8, 0)));
    breaks("the return address stays", to(9, slot(-9, 2)));
    breaks("the return address stays", to(9, slot(-1, 4)));
    breaks("stack objects stay", to(8, slot(-41, 8)));
    breaks("stack objects ascend", |b| b.frames[0].objects.push((-48, -44)));
    breaks("stack objects ascend", |b| b.frames[0].objects[0] = (-32, -32));
    breaks("a stack object lies in both", |b| b.frames[0].objects[0] = (-40 - 129, -100));
    breaks("a source is as wide", from(Value::At(general(3, 4))));
    breaks("a location is a register", from(Value::At(slot(-40 - 136, 8))));
    breaks("a target lies in OLD", |b| {
        let target = dsu_patch_format::plan::Target::Old(OldAddr(0x5001));
        b.frames[0].moves[3].from = Value::Address { target, addend: 0 };
    });
    let extend = |from, to, value| Value::SignExtend { from, to, value: Box::new(value) };
    breaks("extending makes wider", from(extend(4, 4, Value::Constant(1))));
    breaks("what is extended has", from(extend(8, 8, Value::Constant(1))));
    breaks("an operand is as wide", from(extend(4, 8, Value::At(general(3, 2)))));
    // Frames that are left out are not missed.
    let mut bundle = example();
    bundle.frames.clear();
    validate_plan(&bundle).unwrap();
}
