//! Planted sites in a real program: every jump leads to its stub, every stub to NEW, nothing is
//! written where it may not be.
//!
//! The sites are invented (every return point, every loop head, or every instruction of the changed
//! functions), their translations keep everything in place: what is tested is where the jumps go.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use dsu_compiler::code::decode;
use dsu_compiler::emit::Emitted;
use dsu_compiler::emit::sites::{Dropped, Planned, plant};
use dsu_compiler::image::Image;
use dsu_compiler::{Built, Options, Outcome, build};
use dsu_patch_format::plan::{RedirectForm, SiteKind};
use dsu_patch_format::{NewAddr, OldAddr, Translation};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Loops at entries, short functions, calls right behind calls, tails, a cold part.
const SOURCE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#ifndef ON
#define ON 0
#endif
#define KEEP __attribute__((noinline, noclone))
volatile int counter;
void (*volatile hook)(void);
KEEP void twice(void) { counter += ON; hook(); hook(); counter++; }
KEEP void only(void) { hook(); counter += ON + 1; }
KEEP int last(int n) { while (n > ON) { hook(); n -= 3; } abort(); }
KEEP int spin(int n) { do { n = n * 3 + ON; } while (n & 0x10); return n; }
KEEP int tight(const char *s) { int n = ON; while (*s) n += *s++; return n; }
KEEP long deep(long n) { return n < 2 ? ON : deep(n - 1) + deep(n - 2); }
KEEP int many(int n) {
    for (int i = 0; i < n; i++) {
        hook();
        if (__builtin_expect(i == 17 + ON, 0)) { puts("cold"); exit(n); }
        for (int k = i; k > 0; k--) { hook(); if (counter == k) break; }
        switch (n) { case 1: hook(); break; case 2: puts("two"); break; case 3: return spin(i);
        case 4: return deep(i); case 5: twice(); twice(); break; case 6: only(); break; }
    }
    return counter;
}
/* Keeps a table among its instructions, whose bytes look like padding. */
#define TEXT(x) #x
#define STRING(x) TEXT(x)
__asm__(".globl keeps_data\n.type keeps_data, @function\nkeeps_data: mov $" STRING(ON) ", %ecx\n"
        "mov hook(%rip), %rbx\ncall *%rbx\ncall *%rbx\n"
        "mov 1f(%rip), %eax\nret\n"
        "1: .long 0x90909090, 0x90909090, 0x90909090\n.size keeps_data, . - keeps_data\n");
int keeps_data(void);
static void nothing(void) { counter++; }
int main(int argc, char **argv) {
    hook = nothing;
    twice(); only();
    printf("%d %d %ld\n", many(argc), tight(argv[0]) + spin(argc), deep(argc));
    return argc > 9 ? last(argc) : argc > 8 ? keeps_data() : 0;
}
"#;

fn compile(directory: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let out = directory.join(name);
    let source = directory.join("p.c");
    std::fs::write(&source, SOURCE).unwrap();
    let status = Command::new("gcc")
        .args(["-g", "-fPIE", "-pie", "-Wl,--build-id"])
        .args(flags)
        .arg("-o")
        .args([&out, &source])
        .status()
        .unwrap();
    assert!(status.success(), "gcc");
    out
}

fn built(flags: &[&str]) -> Built {
    let directory = tempfile::tempdir().unwrap();
    let old = compile(directory.path(), "old", flags);
    let new = compile(directory.path(), "new", &[flags, &["-DON=1"]].concat());
    let built = build(&Options { old, new, ..Options::default() }, &|_| ()).unwrap();
    assert_eq!(built.outcome, Outcome::Written, "{:?}", built.refusals);
    built
}

/// Which instructions are sites.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Density {
    Returns,
    Loops,
    All,
}

fn planned(built: &Built, density: Density) -> Vec<Planned> {
    let frame = Translation { old_depth: 64, new_depth: 64, ..Translation::default() };
    let mut out = Vec::new();
    for (index, replaced) in built.emitted.replaced.iter().enumerate() {
        let Some(to) = replaced.new else { continue };
        let body = decode(&built.old, function(&built.old, replaced.old));
        let steps = || body.steps.iter();
        let heads: BTreeSet<u64> = steps()
            .filter(|s| s.instruction.is_jcc_short_or_near() || s.instruction.is_jmp_short())
            .map(|s| (s.address(), s.instruction.near_branch_target()))
            .filter_map(|(from, to)| (to <= from).then_some(to))
            .collect();
        let mut put = |at: u64, kind| {
            let function = u32::try_from(index).unwrap();
            out.push(Planned {
                at: OldAddr(at),
                kind,
                to,
                function,
                translation: frame.clone(),
                relaid: false,
            });
        };
        // Behind a call that does not return there may be another function.
        let returns = steps().filter(|s| is_call(s) && body.index_at(s.end()).is_some());
        returns.for_each(|s| put(s.end(), SiteKind::Return));
        if density != Density::Returns {
            heads.iter().for_each(|at| put(*at, SiteKind::Loop));
        }
        if density == Density::All {
            steps().for_each(|s| put(s.address(), SiteKind::Point));
        }
    }
    out
}

fn is_call(step: &dsu_compiler::code::Step) -> bool {
    step.instruction.is_call_near() || step.instruction.is_call_near_indirect()
}

fn function(image: &Image, at: OldAddr) -> &dsu_compiler::image::Function {
    image.function(image.function_at(at.0).unwrap())
}

/// OLD's text as commit leaves it, by the byte: what is written there.
struct Text<'a> {
    old: &'a Image,
    written: BTreeMap<u64, u8>,
}

impl Text<'_> {
    fn write(&mut self, at: u64, bytes: &[u8]) {
        for (at, byte) in (at..).zip(bytes) {
            assert!(self.written.insert(at, *byte).is_none(), "{at:#x} is written twice");
        }
    }

    /// A jump and its cave; the far jump's displacement stands for the way to the shadow image.
    fn jump(&mut self, at: OldAddr, form: RedirectForm, number: u32) {
        let mut far = vec![0xe9];
        far.extend(number.to_le_bytes());
        match form {
            RedirectForm::Near => self.write(at.0, &far),
            RedirectForm::Short { cave } => {
                let reach = i8::try_from(cave.since(at.offset(2)).cast_signed()).unwrap();
                self.write(at.0, &[0xeb, reach.cast_unsigned()]);
                self.write(cave.0, &far);
            }
        }
    }

    fn byte(&self, at: u64) -> u8 {
        let as_built = || self.old.content(at, 1).unwrap()[0];
        self.written.get(&at).copied().unwrap_or_else(as_built)
    }

    /// Which far jump a thread at an address comes to first: by way of `endbr64` and a short jump.
    fn follow(&self, at: u64) -> u32 {
        match self.byte(at) {
            0xf3 => self.follow(at + 4),
            0xeb => {
                self.follow((at + 2).wrapping_add_signed(self.byte(at + 1).cast_signed().into()))
            }
            0xe9 => u32::from_le_bytes(std::array::from_fn(|i| self.byte(at + 1 + i as u64))),
            other => panic!("{other:#x} at {at:#x}"),
        }
    }
}

fn check(built: &mut Built, density: Density) -> (usize, Vec<Dropped>) {
    let sites = planned(built, density);
    let count = sites.len();
    let new_end = NewAddr(built.new.extent.end);
    let dropped = plant(&built.old, new_end, sites, &[], &BTreeMap::new(), &mut built.emitted);
    let Emitted { plan, frames, .. } = &built.emitted;
    assert_eq!(plan.sites.len() + dropped.len(), count);
    assert_eq!(plan.sites.len(), frames.len());
    let mut text = Text { old: &built.old, written: BTreeMap::new() };
    for (number, redirect) in (0x8000_0000..).zip(&plan.redirects) {
        text.jump(redirect.at, redirect.form, number);
    }
    for (number, site) in (0..).zip(&plan.sites) {
        text.jump(site.at, site.form, number);
        let len = site.expect.len() as u64;
        assert_eq!(len, if site.form == RedirectForm::Near { 5 } else { 2 });
        assert_eq!(built.old.content(site.at.0, len).unwrap(), &site.expect[..]);
        assert_eq!(site.mask.len(), site.expect.len());
    }
    for (number, redirect) in (0x8000_0000..).zip(&plan.redirects) {
        assert_eq!(text.follow(redirect.entry.0), number, "the redirect at {}", redirect.entry);
    }
    for (number, site) in (0..).zip(&plan.sites) {
        assert_eq!(text.follow(site.at.0), number, "the site at {}", site.at);
        let range = plan.blind.iter().find(|b| b.start <= site.at && site.at < b.end).unwrap();
        if let RedirectForm::Short { cave } = site.form {
            assert!(range.start <= cave && cave.offset(5) <= range.end, "{site:?}");
        }
    }
    stubs_lead_to_new(built);
    (count, dropped)
}

fn stubs_lead_to_new(built: &Built) {
    let plan = &built.emitted.plan;
    let Some(last) = plan.segments.last().filter(|_| !plan.sites.is_empty()) else { return };
    assert!(last.start.0 >= built.new.extent.end && last.start.0.is_multiple_of(4096));
    let mut end = last.start;
    for site in &plan.sites {
        assert!(site.stub >= end && site.stub.0.is_multiple_of(16));
        end = site.stub.offset(site.stub_len.into());
        let jump = usize::try_from(end.since(last.start) - 5).unwrap();
        assert_eq!(last.bytes[jump], 0xe9);
        let distance = i32::from_le_bytes(last.bytes[jump + 1..jump + 5].try_into().unwrap());
        assert_eq!(end.0.wrapping_add_signed(distance.into()), site.to.0);
    }
    // What is written passes the reader's rules.
    built.bundle(&Options::default()).unwrap();
}

fn refused(dropped: &[Dropped], kind: SiteKind, why: &str) -> usize {
    dropped.iter().filter(|d| d.kind == kind && d.reason == why).count()
}

#[test]
fn every_return_point_has_its_jump() {
    for flags in [&["-O2"][..], &["-O2", "-fcf-protection"], &["-Os"], &["-O1"], &["-O3"]] {
        let mut built = built(flags);
        let (count, dropped) = check(&mut built, Density::Returns);
        assert!(count > 10, "{count}");
        // The one that has no room for two jumps but in its data.
        let data = built.emitted.replaced.iter().position(|r| r.name == "keeps_data").unwrap();
        let [only] = &dropped[..] else { panic!("{flags:?}: {dropped:#?}") };
        assert_eq!((only.function as usize, &only.reason[..]), (data, "no room for a jump"));
    }
}

#[test]
fn loop_heads_have_theirs_when_the_entry_makes_room() {
    for flags in [&["-O2"][..], &["-O2", "-fcf-protection"], &["-Os"]] {
        let mut built = built(flags);
        let before = built.emitted.plan.redirects.clone();
        let (_, dropped) = check(&mut built, Density::Loops);
        let room = refused(&dropped, SiteKind::Loop, "no room for a jump");
        assert!(room <= 1, "{flags:?}: {dropped:#?}");
        let entries = |r: &dsu_patch_format::plan::Redirect| (r.entry, r.at, r.to);
        let after = &built.emitted.plan.redirects;
        assert!(before.iter().map(entries).eq(after.iter().map(entries)));
    }
}

#[test]
fn points_give_way_to_return_points() {
    for flags in [&["-O2"][..], &["-Os"]] {
        let (count, dropped) = check(&mut built(flags), Density::All);
        assert_eq!(refused(&dropped, SiteKind::Return, "no room for a jump"), 1, "{flags:?}");
        assert!(dropped.len() < count, "some points have room");
    }
}

#[test]
fn what_is_no_site_of_a_replaced_function_is_dropped() {
    let mut built = built(&["-O2"]);
    let spin = built.emitted.replaced.iter().find(|r| r.name == "spin").unwrap().clone();
    let kept = built.old.functions.iter().find(|f| f.name() == "nothing").unwrap().address;
    let site = |at: u64, translation| Planned {
        at: OldAddr(at),
        kind: SiteKind::Return,
        to: spin.new.unwrap(),
        function: 0,
        translation,
        relaid: false,
    };
    let frame = Translation { old_depth: 64, new_depth: 64, ..Translation::default() };
    let body = decode(&built.old, function(&built.old, spin.old));
    let wide = body.steps.iter().skip(1).find(|s| s.instruction.len() > 2).unwrap().address();
    let inside = body.steps.iter().find(|s| s.address() > wide + 1).unwrap().address();
    assert!(inside + 5 <= spin.old.0 + spin.old_size);
    let sites = vec![
        site(kept, frame.clone()),
        site(spin.old.0, frame.clone()),
        site(wide + 1, frame.clone()),
        site(inside, Translation::default()),
        site(inside, frame),
    ];
    let new_end = NewAddr(built.new.extent.end);
    let dropped = plant(&built.old, new_end, sites, &[], &BTreeMap::new(), &mut built.emitted);
    assert!(built.emitted.plan.sites.is_empty());
    let mut reasons: Vec<&str> = dropped.iter().map(|d| d.reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        [
            "another site is at the same place",
            "it is not in the code of a replaced function",
            "it is the function's entry, where the redirect is",
            "its stub cannot be made: a frame of 0 bytes",
            "no instruction begins there",
        ]
    );
}
