//! Pairs of functions in assembler, and what became of their frames: for tests of the simulation relation.
//!
//! No compiler decides what they look like; `.loc` says which source line an instruction was made from.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test takes what it needs")]

use dsu_compiler::frames::Carried;
use dsu_compiler::{Built, Options, Outcome, build};
use dsu_patch_format::frames::{Location, Move, Value};
use dsu_patch_format::plan::SiteKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What both functions may use.
pub const AROUND: &str = r#"
#include <unistd.h>
#define KEEP __attribute__((noinline, noclone))
volatile long limit = 3;
long shared;
long area[64];
#ifdef NEW
const long table[4] = {1, 2, 3, 5};
#else
const long table[4] = {1, 2, 3, 4};
#endif
/* Calls what the compiler does not see. */
KEEP long hook(long n) { return n + write(9, &limit, 0); }
KEEP long other(long n) { return n - write(9, &limit, 0); }
/* Ends the process unless it is told not to. */
__attribute__((noipa)) void end(int how) { if (how == 0) _exit(1); write(9, &limit, 0); }
__attribute__((noipa)) void die(int how) { write(9, &limit, 0); end(how); }
__attribute__((noipa)) void die_wide(long how) { write(9, &limit, 0); if (how == 0) _exit(1); }
KEEP long several(long n, ...) { return n + write(9, &limit, 0); }
/* Does not. */
KEEP long quiet(long n) { __asm__ volatile(""); return n * 7 + limit; }
"#;

fn compile(directory: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let out = directory.join(name);
    // One name for both: it is the same file in two versions.
    let file = directory.join("p.c");
    std::fs::write(&file, source).unwrap();
    let status = Command::new("gcc")
        .args(["-g", "-fPIE", "-pie", "-Wl,--build-id", "-fcf-protection=none", "-w"])
        .args(flags)
        .arg("-o")
        .args([&out, &file])
        .status()
        .unwrap();
    assert!(status.success(), "gcc");
    out
}

pub fn pair(old: &str, new: &str, flags: (&[&str], &[&str])) -> Built {
    let directory = tempfile::tempdir().unwrap();
    let old = compile(directory.path(), "old", old, &[&["-O2"], flags.0].concat());
    let new = compile(directory.path(), "new", new, &[&["-O2", "-DNEW"], flags.1].concat());
    let options = Options { old, new, live_frames: true, ..Options::default() };
    let built = build(&options, &|_| ()).unwrap();
    assert_eq!(built.outcome, Outcome::Written, "{:?}", built.refusals);
    built
}

/// A function `f` with these parameters and this body.
pub fn program(parameters: &str, body: &str) -> String {
    let lines = body.lines().map(|line| format!("\"{}\\n\"\n", line.trim()));
    let body: String = lines.collect();
    format!(
        "{AROUND}\n__attribute__((naked, noinline, noclone)) long f({parameters}) {{ __asm__ \
         volatile({body}); }}\nlong (*volatile use)() = (long (*)())f;\nint main(int argc, char **argv) \
         {{ return use(argc, argc, argc) + table[argc] + quiet(1) + other(2); }}\n"
    )
}

pub fn assembled(old: (&str, &str), new: (&str, &str)) -> Built {
    pair(&program(old.0, old.1), &program(new.0, new.1), (&[], &[]))
}

/// What became of the frames of `f`.
pub fn carried(built: &Built) -> &Carried {
    built.carried.iter().find(|c| built.old.function(c.function).name() == "f").unwrap()
}

/// The moves behind the nth call of `f`; `None`: blind.
pub fn behind(built: &Built, nth: usize) -> Option<Vec<Move>> {
    let carried = carried(built);
    let proven = carried.proven.iter().filter(|p| p.kind == SiteKind::Return);
    let blind = carried.blind.iter().filter(|b| b.kind == SiteKind::Return);
    let mut all: Vec<_> = proven
        .map(|p| (p.at, Some(p.translation.moves.clone())))
        .chain(blind.map(|b| (b.at, None)))
        .collect();
    all.sort_by_key(|(at, _)| *at);
    all[nth].1.clone()
}

pub fn reasons(built: &Built) -> String {
    let blind = carried(built).blind.iter();
    blind.flat_map(|b| &b.obstacles).map(|o| format!("{}\n", o.text)).collect()
}

/// What goes into a register.
pub fn into(moves: &[Move], register: u8) -> Option<&Value> {
    let is_it = |m: &&Move| matches!(m.to, Location::General { number, .. } if number == register);
    moves.iter().find(is_it).map(|m| &m.from)
}

pub const RBX: u8 = 3;
pub const R12: u8 = 12;

/// Saves rbx and r12, calls, and gives back what the body left in rbx.
pub fn framed(body: &str) -> String {
    format!(
        ".loc 1 500 1\npush %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset 3, 0\npush %r12\n\
         .cfi_adjust_cfa_offset 8\n.cfi_rel_offset 12, 0\nsub $8, %rsp\n.cfi_adjust_cfa_offset 8\n\
         {body}\n.loc 1 900 1\nmov %rbx, %rax\nadd $8, %rsp\n.cfi_adjust_cfa_offset -8\npop %r12\n\
         .cfi_adjust_cfa_offset -8\npop %rbx\n.cfi_adjust_cfa_offset -8\nret"
    )
}

pub fn framed_pair(old: &str, new: &str) -> Built {
    assembled(("long n", &framed(old)), ("long n", &framed(new)))
}

/// Two versions of `f`, of which NEW's has a line more: so all behind it is one line further on.
pub fn edited(old: &str, new: &str) -> Built {
    let version = |body: &str, more: u32| {
        let body = framed(body).replace(".loc 1 900", &format!(".loc 1 {}", 900 + more));
        let next = format!("\n#line {}\nint main", 1000 + more);
        program("long n", &body).replace("int main", &next)
    };
    pair(&version(old, 0), &version(new, 1), (&[], &[]))
}
