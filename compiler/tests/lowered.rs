//! Frames of NEW that stand lower than OLD's, so that an object whose address is known keeps it; and frames that
//! must not: what NEW touches above its return address would be another thing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod compiled;

use compiled::compile;
use dsu_compiler::Built;
use dsu_compiler::check::{Checker, mutate};
use dsu_patch_format::Bundle;
use dsu_patch_format::frames::{Proof, Translation};

/// `serve` waits in calls of `hook`, an object of its frame in somebody's hands. OLD's keeps six values over
/// the call, NEW's fewer, and its object lies nearer to the CFA.
const PROGRAM: &str = r"
#include <stdarg.h>
#define KEEP __attribute__((noipa))
struct object { long total; long rest[2]; } *known;
void *other;
volatile long sink;
KEEP void meet(struct object *it) { known = it; }
KEEP void also(void *it) { other = it; }
KEEP void hook(long n) { known->total += n; }
KEEP void read_all(va_list *all) { sink = va_arg(*all, long); }
KEEP long serve(PARAMETERS) {
    struct object object = {0};
    MORE
    meet(&object);
    for (long i = 0; i < n; i++) {
        hook(i);
#ifdef NEW
        sink = i;
        NEW_BODY
#else
        sink = (a ^ i) + (b ^ i) * (c ^ i);
        sink = (a + i) * (b - i) + c * n;
        OLD_BODY
#endif
    }
    return object.total;
}
int main(int argc, char **argv) { return serve(argc, 2, 3, 4, 5, 6, 7, 8); }
";

/// What differs from one program to the next.
struct Program {
    parameters: &'static str,
    more: &'static str,
    old: &'static str,
    new: &'static str,
}

const PLAIN: Program = Program {
    parameters: "long n, long a, long b, long c, long d, long e, long f, long g",
    more: "",
    old: "",
    new: "",
};

/// OLD and NEW, or the other way round.
fn built(program: &Program, back: bool) -> (Built, Bundle) {
    let source = PROGRAM
        .replace("PARAMETERS", program.parameters)
        .replace("MORE", program.more)
        .replace("OLD_BODY", program.old)
        .replace("NEW_BODY", program.new);
    between(&source, back)
}

fn between(source: &str, back: bool) -> (Built, Bundle) {
    let directory = tempfile::tempdir().unwrap();
    let mut old = compile(directory.path(), "old", source, &[]);
    let mut new = compile(directory.path(), "new", source, &["-DNEW"]);
    if back {
        std::mem::swap(&mut old, &mut new);
    }
    compiled::bundle(old, new)
}

/// What is said against the points of `serve` that are blind.
fn reasons(built: &Built) -> String {
    let blind = built.carried.iter().flat_map(|c| &c.blind).flat_map(|b| &b.obstacles);
    blind.map(|o| format!("{}\n", o.text)).collect()
}

fn lowered(bundle: &Bundle) -> Vec<u64> {
    bundle.frames.iter().map(|frame| frame.lowered).collect()
}

/// Its object lies elsewhere in NEW's frame, and no frame that stands lower is made.
fn stays_blind(program: &Program) {
    let (built, bundle) = built(program, false);
    let what = (program.parameters, program.more, program.new);
    assert!(lowered(&bundle).iter().all(|by| *by == 0), "{what:?}: {:?}", lowered(&bundle));
    assert!(reasons(&built).contains("is at another place"), "{what:?}: {}", reasons(&built));
}

#[test]
fn an_object_keeps_its_address_in_a_frame_that_stands_lower() {
    let (built, bundle) = built(&PLAIN, false);
    assert!(!bundle.frames.is_empty(), "{}", reasons(&built));
    assert!(lowered(&bundle).iter().all(|by| *by == 32), "{:?}", lowered(&bundle));
    let returns =
        |frame: &Translation| frame.moves.iter().filter(|m| m.proof == Proof::Lowered).count();
    assert!(bundle.frames.iter().all(|frame| returns(frame) == 1 && !frame.objects.is_empty()));
    // One piece of code for all of them, which the next update can unwind.
    let last = bundle.plan.unwind.last().unwrap();
    assert_eq!((last.cfa, last.len), ((4, 8), 1), "`ret`");
    let before = &bundle.plan.unwind[bundle.plan.unwind.len() - 2];
    assert_eq!(before.cfa, (4, 32));
    assert_eq!(before.start.0 + u64::from(before.len), last.start.0);
}

#[test]
fn nothing_lies_higher() {
    let (built, bundle) = built(&PLAIN, true);
    assert_eq!(lowered(&bundle), [0_u64; 0]);
    assert!(reasons(&built).contains("`object`, whose address is taken"), "{}", reasons(&built));
}

#[test]
fn what_new_finds_above_its_return_address_is_not_there() {
    let programs = [
        // An argument on the stack, read; and one that somebody has the address of.
        Program { new: "sink = g;", old: "sink = g;", ..PLAIN },
        Program { more: "sink = (long)&g;", ..PLAIN },
        Program { new: "sink = (long)__builtin_return_address(0);", ..PLAIN },
    ];
    programs.iter().for_each(stays_blind);
    // The caller's arguments from the CFA up.
    let variadic = Program {
        parameters: "long n, long a, long b, long c, ...",
        more: "va_list all; va_start(all, c); read_all(&all);",
        ..PLAIN
    };
    assert!(lowered(&built(&variadic, false).1).iter().all(|by| *by == 0));
}

/// `serve` ends with a call that compilers make a jump, for its object is in nobody's hands.
const JUMPING: &str = r"
#include <unistd.h>
#define KEEP __attribute__((noipa))
volatile long sink;
KEEP long hook(long n) { return n + write(9, (void *)&sink, 0); }
KEEP long few(long a, long b) { return a - b + sink; }
KEEP long many(long a, long b, long c, long d, long e, long f, long g, long h) { return a + g - h; }
KEEP long serve(long n, long a, long b, long c, long d, long e, long f, long g) {
    long object[4] = {0};
    for (long i = 0; i < n; i++) {
        object[i % 4] += hook(i);
#ifdef NEW
        sink = i;
#else
        sink = (a ^ i) + (b ^ i) * (c ^ i);
        sink = (a + i) * (b - i) + c * n;
#endif
    }
    return ENDING;
}
int main(int argc, char **argv) { return serve(argc, 2, 3, 4, 5, 6, 7, 8); }
";

#[test]
fn whom_new_jumps_to_may_find_arguments_there() {
    let by = |ending: &str| {
        let (built, bundle) = between(&JUMPING.replace("ENDING", ending), false);
        println!("{}", reasons(&built));
        lowered(&bundle).into_iter().max().unwrap_or(0)
    };
    assert!(by("object[n % 4]") > 0);
    assert!(by("few(object[n % 4], n)") > 0, "nothing is passed on the stack");
    assert_eq!(by("many(object[n % 4], n, n, n, n, n, f, g)"), 0, "they are where they were");
}

#[test]
fn objects_that_would_need_two_frames_need_a_copy() {
    // OLD has another one between them, by its size.
    let program = Program {
        more: "struct { long a, b; } second = {1, 2}; also(&second);",
        old: "char third[20]; also(third); also(&second);",
        new: "also(&second);",
        ..PLAIN
    };
    let (built, bundle) = built(&program, false);
    assert_eq!(bundle.plan.copies.len(), 1, "{}", reasons(&built));
    assert!(lowered(&bundle).iter().all(|by| *by == bundle.plan.copies[0].lowered));
}

#[test]
fn everything_wrong_with_a_lowered_frame_is_found() {
    let (built, bundle) = built(&PLAIN, false);
    let checker = Checker::new(&built.old, &built.new, &bundle);
    let mut tried = 0;
    for site in 0..bundle.plan.sites.len() {
        assert_eq!(checker.site(&bundle, site), [], "unchanged");
        let (tables, code) = (mutate::tables(&bundle, site), mutate::returns(&bundle, site));
        assert_eq!(code.len(), 6, "`lea rsp, [rsp + 24]; ret`");
        for mutant in tables.iter().chain(&mutate::stubs(&bundle, site)).chain(&code) {
            tried += 1;
            let objections = checker.site(&mutant.apply(&bundle), site);
            assert!(!objections.is_empty(), "site {site}: {}", mutant.what);
        }
    }
    assert!(tried > 50, "{tried}");
}
