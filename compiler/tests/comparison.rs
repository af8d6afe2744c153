//! The comparison on code of many shapes: what changed is found, and nothing else.
//!
//! One source with a switch for each change; every build of it is compared with the base build.
//! What a change concerns is written beside it, so that both kinds of error show: a change missed,
//! and a function called changed that is not.

use dsu_compiler::matching::names;
use dsu_compiler::{Options, Outcome, build};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each change has a macro; `CHANGE(n, a, b)` is `b` when it is on.
const SOURCE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef ON
#define ON 0
#endif
#define CHANGE(n, a, b) (ON == (n) ? (b) : (a))
/* Weak: no compiler looks from one body into another. */
#define KEEP __attribute__((noinline, weak))

volatile int counter; volatile long other_counter; static volatile int hidden = 5; static volatile int hidden2 = 5;
static const char *const names[] = {"zero", ON == 7 ? "uno" : "one", "two", "three"};
static const int weights[8] = {1, 2, 3, ON == 8 ? 40 : 4, 5, 6, 7, 8};
__thread int per_thread = 1;
struct point { int x, y; double w; };
struct point corners[4] = {{1, 2, 3.0}, {4, 5, 6.0}, {7, 8, 9.0}, {10, 11, 12.0}};

KEEP int helper_a(int x) { return x + 1; }
KEEP int helper_b(int x) { return x + 2; }

KEEP int constant(int x) { return x * CHANGE(1, 1234, 1235) + counter; }
KEEP int operator(int x, int y) { return CHANGE(2, x - y, x + y) ^ 0x55; }
KEEP void text(void) { puts(CHANGE(3, "some text of the program", "some next of the program")); }
KEEP int callee(int x) { return CHANGE(4, helper_a, helper_b)(x) * 3; }
KEEP int global(void) { return CHANGE(5, hidden, hidden2) + 1; }
KEEP void *address(void) { return CHANGE(6, (void *)&counter, (void *)&other_counter); }
KEEP const char *name(int i) { return names[i & 3]; }
KEEP int weight(int i) { return weights[i & 7]; }
KEEP double number(double x) { return x * CHANGE(9, 3.25, 3.26) + 1.0; }
KEEP float number_f(float x) { return x * CHANGE(10, 1.5f, 2.5f); }
KEEP int choose(int x) {
    switch (x) {
    case 0: return helper_a(7);
    case 1: puts("one"); return 11;
    case 2: return counter * 3;
    case CHANGE(11, 3, 9): puts("three"); return 5;
    case 4: return hidden;
    case 5: puts("five"); return 6;
    case 6: return 77;
    default: return -1;
    }
}
KEEP int loop(const char *s) { int n = 0; while (*s) n += *s++ == CHANGE(12, ':', ';'); return n; }
KEEP int thread(void) { return per_thread += CHANGE(13, 1, 2); }
KEEP int compare(const void *a, const void *b) { return *(int *)a - *(int *)b; }
KEEP int compare2(const void *a, const void *b) { return *(int *)b - *(int *)a; }
KEEP void sort(int *v, int n) { qsort(v, n, sizeof *v, CHANGE(14, compare, compare2)); }
KEEP int field(struct point *p) { return CHANGE(15, p->x, p->y); }
KEEP long import(const char *s) { return CHANGE(16, strtol(s, 0, 10), (long)strtoul(s, 0, 10)); }
KEEP int bits(unsigned x) { return x >> CHANGE(17, 3, 4) & 0xf; }
KEEP int sum(void) {
    int s = 0;
    for (struct point *p = corners; p != corners + 4; p++) s += p->x * CHANGE(18, 2, 3);
    return s;
}
KEEP int recursive(int n) { return n < 2 ? 1 : n * recursive(n - CHANGE(19, 1, 2)); }
KEEP int inverted(int x) { if (CHANGE(20, x > 3, x >= 3)) puts("big"); return x; }
KEEP void buffer(char *out) { char b[64] = "abcdefghijklmnopqrstuvwxyz0123456789"; b[3] = CHANGE(21, 'x', 'y'); strcpy(out, b); }
KEEP int wide(void) { static const short t[5] = {9, 8, 7, 6, 5}; return t[counter % 5] + CHANGE(22, t[1], t[2]); }
KEEP int order(int x) { int a = helper_a(x), b = helper_b(x); return CHANGE(23, a * 2 + b, b * 2 + a); }
KEEP void aggregate(int *out) { int v[6] = {11, 22, 33, ON == 24 ? 45 : 44, 55, 66}; memcpy(out, v, sizeof v); }
KEEP void pointers(const char **out) { const char *v[3] = {"red", ON == 25 ? "grey" : "green", "blue"}; memcpy(out, v, sizeof v); }

int main(int argc, char **argv) {
    char b[64]; int v[8] = {3, 1, 2}; const char *w[3];
    printf("%d %d\n", constant(argc), operator(argc, 2)); text(); printf("%d %d %p %s %d %f %f %d\n",
        callee(1), global(), address(), name(argc), weight(argc), number(argc), number_f(argc), choose(argc));
    sort(v, 3); buffer(b); aggregate(v); pointers(w);
    printf("%d %d %d %ld %d %d %d %d %d %d %s\n", loop(argv[0]), thread(), field(corners), import("1"),
        bits(argc), sum(), recursive(3), inverted(argc), wide(), order(argc), w[1]);
    return 0;
}
"#;

/// The function that each change is in; a table that is updated in place concerns no function.
const CHANGES: [(u32, &str); 25] = [
    (1, "constant"),
    (2, "operator"),
    (3, "text"),
    (4, "callee"),
    (5, "global"),
    (6, "address"),
    (7, "data names"),
    (8, "data weights"),
    (9, "number"),
    (10, "number_f"),
    (11, "choose"),
    (12, "loop"),
    (13, "thread"),
    (14, "sort"),
    (15, "field"),
    (16, "import"),
    (17, "bits"),
    (18, "sum"),
    (19, "recursive"),
    (20, "inverted"),
    (21, "buffer"),
    (22, "wide"),
    (23, "order"),
    (24, "aggregate"),
    (25, "pointers"),
];

struct Workshop {
    directory: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("p.c"), SOURCE).expect("write the source");
        Self { directory }
    }

    /// Builds with one change on; every build is called `p`, as names are part of nothing.
    fn build(&self, compiler: &str, flags: &str, on: u32, name: &str) -> PathBuf {
        let to = self.directory.path().join(name);
        let status = Command::new(compiler)
            .current_dir(self.directory.path())
            .args(flags.split_whitespace())
            .args(["-g", &format!("-DON={on}"), "-Wl,--build-id", "-w", "-o", name, "p.c"])
            .status()
            .expect("run the compiler");
        assert!(status.success(), "{compiler} {flags} change {on}");
        to
    }
}

/// Names of everything reported: functions, then objects as `data NAME`.
fn differences(old: &Path, new: &Path) -> (Outcome, BTreeSet<String>) {
    let options = Options { old: old.to_owned(), new: new.to_owned(), ..Options::default() };
    let built = build(&options, &|_| ()).expect("both files are usable");
    let mut found: BTreeSet<String> = built
        .closure
        .replaced
        .keys()
        // With link-time optimization a function may be known as a clone of itself.
        .map(|f| names::stem(built.old.function(*f).name()).to_owned())
        .chain(built.data.changes.iter().map(|d| format!("data {}", d.name)))
        .collect();
    found.extend(built.refusals.iter().map(|r| format!("refused {}", r.text)));
    if built.outcome == Outcome::Written {
        let bytes = built.bundle(&options).expect("the bundle passes its own check");
        dsu_patch_format::decode(&bytes).expect("the bundle can be read again");
    }
    (built.outcome, found)
}

fn every_change_is_found(compiler: &str, flags: &str) {
    let workshop = Workshop::new();
    let base = workshop.build(compiler, flags, 0, "base");
    for (on, function) in CHANGES {
        let changed = workshop.build(compiler, flags, on, "changed");
        let (outcome, found) = differences(&base, &changed);
        // clang keeps no table of pointers where a table of distances will do: it has no address
        // of its own, so the change is its user's.
        let table = function.strip_prefix("data ").filter(|_| compiler == "clang" && on == 7);
        let expected = match table {
            Some(_) if !found.contains(function) => BTreeSet::from(["name".to_owned()]),
            _ => BTreeSet::from([function.to_owned()]),
        };
        // A function of three bytes with the next one right behind has no room for a jump: its
        // caller is replaced.
        let mut also = expected.clone();
        also.insert("main".to_owned());
        let packed = function == "field" && (flags.contains("-Os") || flags.contains("-O1"));
        assert!(
            found == expected || packed && found == also,
            "{compiler} {flags}, change {on}: found {found:?}, expected {expected:?}"
        );
        assert_eq!(outcome, Outcome::Written, "{compiler} {flags}, change {on}");
    }
}

fn equal_sources_have_no_differences(compiler: &str, flags: &str, other: &str) {
    let workshop = Workshop::new();
    let one = workshop.build(compiler, flags, 0, "one");
    let two = workshop.build(compiler, other, 0, "two");
    let (outcome, found) = differences(&one, &two);
    assert_eq!(found, BTreeSet::new(), "{compiler} {flags} / {other}");
    assert_eq!(outcome, Outcome::NothingToDo, "{compiler} {flags} / {other}");
}

macro_rules! builds {
    ($($name:ident: $compiler:literal $flags:literal;)*) => {
        mod finds_every_change { $(#[test] fn $name() { super::every_change_is_found($compiler, $flags); })* }
        mod finds_no_difference { $(#[test] fn $name() {
            super::equal_sources_have_no_differences($compiler, $flags, $flags);
            super::equal_sources_have_no_differences(
                $compiler,
                $flags,
                concat!($flags, " -ffunction-sections -fdata-sections -Wl,--sort-section=name"),
            );
        })* }
    };
}

builds! {
    gcc_o0: "gcc" "-O0";
    gcc_o1: "gcc" "-O1";
    gcc_o2: "gcc" "-O2";
    gcc_o3: "gcc" "-O3";
    gcc_os: "gcc" "-Os";
    gcc_lto: "gcc" "-O2 -flto";
    gcc_cet: "gcc" "-O2 -fcf-protection=full";
    gcc_fixed: "gcc" "-O2 -no-pie -Wl,--emit-relocs";
    gcc_emit_relocs: "gcc" "-O2 -Wl,--emit-relocs";
    gcc_library: "gcc" "-O2 -fPIC -shared -Wl,-Bsymbolic";
    gcc_dwarf4: "gcc" "-O2 -gdwarf-4";
    clang_o0: "clang" "-O0";
    clang_o2: "clang" "-O2";
    clang_o3: "clang" "-O3";
    clang_os: "clang" "-Os";
}
