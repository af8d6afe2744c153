//! OLD code that frames may run on in for a moment: where there is some, and everything that can be wrong
//! with what the plan says of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod assembled;

use assembled::{framed_pair, reasons};
mod compiled;

use compiled::compile;
use dsu_compiler::check::Checker;
use dsu_compiler::code::decode;
use dsu_compiler::{Built, Options, Outcome, build};
use dsu_patch_format::plan::{DataWrite, Passage, RedirectForm, SiteKind};
use dsu_patch_format::{Bundle, OldAddr};

/// `f` waits in calls of `hook`, `probe` and `last`.
const AROUND: &str = r#"
#include <unistd.h>
#define KEEP __attribute__((noinline, noclone))
volatile long limit = 3;
long kept_table[4] = { 1, 2, 3, 4 };
KEEP long hook(long n) { return n + write(9, (void *)&limit, 0); }
KEEP long last(long n) { return n - write(9, (void *)&limit, 0); }
KEEP long probe(long n) { return n * write(9, (void *)&limit, 1); }
#ifdef NEW
const long table[4] = { 1, 5, 3, 4 };
KEEP long replaced(long n) { return n * 3 + write(9, (void *)&limit, 2); }
#else
const long table[4] = { 1, 2, 3, 4 };
KEEP long replaced(long n) { return n * 2 + write(9, (void *)&limit, 2); }
#endif
KEEP long f(long n) {
    for (;;) {
        n = hook(n);
#ifdef NEW
        n += 2;
#else
        OLD_STATEMENT
#endif
        if (last(n) == limit)
            return n;
    }
}
int main(int argc, char **argv) { return f(argc) + probe(argc) + replaced(argc) + table[argc & 3]; }
"#;

/// NEW's `f` lacks this statement of OLD's.
fn built(statement: &str) -> (Built, Bundle) {
    let directory = tempfile::tempdir().unwrap();
    let source = AROUND.replace("OLD_STATEMENT", statement);
    let old = compile(directory.path(), "old", &source, &[]);
    let new = compile(directory.path(), "new", &source, &["-DNEW"]);
    compiled::bundle(old, new)
}

/// Call sites of `f`: at their place, a little later, blind.
fn coverage(built: &Built) -> (u32, u32, u32) {
    let f = built.emitted.replaced.iter().find(|r| r.name == "f").unwrap();
    let coverage = f.coverage;
    (coverage.sites, coverage.passing, coverage.of - coverage.sites - coverage.passing)
}

#[test]
fn a_call_that_new_does_not_make_is_left_by_the_next_point() {
    let (built, bundle) = built("probe(n);");
    let passing = &built.emitted.passing_points;
    // What waits in `hook` goes on right behind NEW's call of it.
    assert_eq!(coverage(&built), (2, 1, 0));
    assert_eq!(passing.len(), 2, "the head of the loop, too: {passing:?}");
    for point in passing {
        assert!(matches!(point.kind, SiteKind::Return | SiteKind::Loop));
        assert!(!point.why.is_empty());
        assert!(built.emitted.blind_points.iter().all(|p| p.at != point.at));
        assert!(bundle.plan.passages.iter().any(|p| (p.start..p.end).contains(&point.at)));
    }
    assert_eq!(Checker::new(&built.old, &built.new, &bundle).passages(&bundle), []);
}

#[test]
fn a_loop_a_changed_callee_and_changed_data_are_no_way_out() {
    for statement in [
        "for (long i = probe(n); i; i >>= 1) n ^= kept_table[i & 3];",
        "probe(n); replaced(n);",
        "n += table[probe(n) & 3];",
    ] {
        let (built, bundle) = built(statement);
        let (_, _, blind) = coverage(&built);
        assert!(blind > 0, "{statement}: {:?}", bundle.plan.passages);
    }
}

/// gcc keeps values in registers that it sees the callee leave alone (`-fipa-ra`); a thread that is about to enter
/// the callee enters NEW's, which does not.
#[test]
fn what_only_olds_callee_leaves_alone_is_not_relied_on_behind_it() {
    const SOURCE: &str = r#"
volatile long limit = 3;
static __attribute__((noinline, noclone)) double leaf(double n) {
#if NEW == 1
    __asm__ volatile("xor %%edi, %%edi" ::: "rdi");
#elif NEW == 2
    limit = limit;
#endif
    return n * limit;
}
__attribute__((noinline, noclone)) double f(const double *in, const double *end) {
    double sum = 0;
    do
        sum = *in - leaf(sum);
    while (++in != end);
#if NEW == 2
    sum *= limit;
#endif
    return sum;
}
double in[16];
int main(int argc, char **argv) { return (int)f(in, in + 16); }
"#;
    let directory = tempfile::tempdir().unwrap();
    let old = compile(directory.path(), "old", SOURCE, &[]);
    // The second one leaves alone what OLD's does.
    for (version, expected) in [("-DNEW=1", (0, 0, 1)), ("-DNEW=2", (0, 1, 0))] {
        let new = compile(directory.path(), "new", SOURCE, &[version]);
        let old = old.clone();
        let options = Options { old, new, live_frames: true, ..Options::default() };
        let built = build(&options, &|_| ()).unwrap();
        assert_eq!(built.outcome, Outcome::Written, "{:?}", built.refusals);
        assert_eq!(coverage(&built), expected, "{version} {}", reasons(&built));
    }
}

/// Two bytes behind a site there is code that who waits in a call which NEW does not make runs through.
#[test]
fn a_jump_leaves_what_frames_run_through_close_behind_it() {
    let body = |gone: &str, sooner: &str, later: &str| {
        format!(
            ".loc 1 600 1\nmov %rdi, %rbx\n{gone}\n.loc 1 605 1\n{sooner}\ntest %rbx, %rbx\njs 1f\n.loc 1 610 \
             1\ncall other\njmp 2f\n1:\n.loc 1 615 1\n{later}\nadd %r12, %rbx\n2:\n.loc 1 620 1\ncall quiet"
        )
    };
    let load = "mov shared(%rip), %r12";
    let (hook, new) = ("call hook", body("", load, ""));
    for gone in [hook, ""] {
        let built = framed_pair(&body(gone, "", load), &new);
        let waits = !gone.is_empty();
        let (_, passed, blind) = coverage(&built);
        // What memory holds behind `quiet` hangs on `hook`, too.
        assert_eq!((passed, blind), (2 * u32::from(waits), 0), "{}", reasons(&built));
        let f = built.old.functions.iter().find(|f| f.name() == "f").unwrap();
        let steps = decode(&built.old, f).steps;
        let behind = steps.iter().find(|s| s.instruction.is_jmp_short()).unwrap();
        let plan = &built.emitted.plan;
        let site = plan.sites.iter().find(|s| s.at.0 == behind.address()).unwrap();
        // Where nobody waits a whole jump has room.
        assert_eq!(matches!(site.form, RedirectForm::Short { .. }), waits, "{site:?}");
        let is_passage = |at: u64| plan.passages.iter().any(|p| p.start.0 <= at && at < p.end.0);
        assert_eq!(is_passage(behind.end()), waits);
        let written = plan.sites.iter().flat_map(|s| {
            let cave = s.form.cave().map(|cave| cave.0..cave.0 + 5);
            (s.at.0..s.at.0 + s.form.jump_len()).chain(cave.into_iter().flatten())
        });
        assert_eq!(written.filter(|at| is_passage(*at)).count(), 0);
    }
}

#[test]
fn everything_wrong_with_a_passage_is_found() {
    let (built, bundle) = built("kept_table[probe(n) & 3]++;");
    let f = built.emitted.replaced.iter().position(|r| r.name == "f").unwrap();
    let f = u32::try_from(f).unwrap();
    let object = |change: &dyn Fn(&mut Bundle)| {
        let mut bundle = bundle.clone();
        change(&mut bundle);
        let found = Checker::new(&built.old, &built.new, &bundle).passages(&bundle);
        found.into_iter().filter(|i| i.function == f).map(|i| i.subject).collect::<Vec<_>>()
    };
    assert_eq!(object(&|_| ()), [""; 0]);
    let own: Vec<usize> = (0..bundle.plan.passages.len())
        .filter(|i| bundle.plan.passages[*i].function == f)
        .collect();
    let function = built.old.functions.iter().find(|g| g.name() == "f").unwrap();
    let body = decode(&built.old, function);
    let mut tried = 0;
    for index in own {
        let passage = &bundle.plan.passages[index];
        let mut each = |what: &str, change: &dyn Fn(&mut Passage)| {
            tried += 1;
            let found = object(&|b: &mut Bundle| change(&mut b.plan.passages[index]));
            assert_eq!(found.len(), 1, "{what} of {passage:?}");
        };
        for exit in 0..passage.exits.len() {
            each("an exit less", &|p| {
                p.exits.remove(exit);
            });
        }
        for name in 0..passage.names.len() {
            each("a name less", &|p| {
                p.names.remove(name);
            });
        }
        let inside = (passage.start.0..passage.end.0).find(|at| !body.is_boundary(*at)).unwrap();
        each("begins inside of an instruction", &|p| p.start = OldAddr(inside));
        each("ends inside of an instruction", &|p| p.end = OldAddr(inside));
        let range =
            bundle.plan.blind.iter().find(|b| b.start <= passage.start && passage.end <= b.end);
        let range = range.unwrap().clone();
        each("all of the function", &|p| (p.start, p.end) = (range.start, range.end));
    }
    assert!(tried > 6, "{tried}");
    let table = built.old.objects.iter().find(|o| o.name() == "kept_table").unwrap().address;
    let write = || DataWrite { at: OldAddr(table + 24), bytes: vec![1; 8], pointers: Vec::new() };
    assert_eq!(object(&|b| b.plan.writes.push(write())).len(), 0, "the table's end: not named");
    let write = || DataWrite { at: OldAddr(table), bytes: vec![1; 8], pointers: Vec::new() };
    assert_eq!(object(&|b| b.plan.writes.push(write())).len(), 1);
    assert_eq!(object(&|b| b.plan.left.push((OldAddr(table), 32))).len(), 1);
    // A callee that is replaced after all.
    for (callee, objections) in [("hook", 1), ("probe", 1), ("last", 0)] {
        let callee = built.old.functions.iter().find(|g| g.name() == callee).unwrap();
        let mut changed = bundle.manifest.replaced[0].clone();
        changed.old = OldAddr(callee.address);
        let found = object(&|b| b.manifest.replaced.push(changed.clone()));
        assert_eq!(found.len(), objections, "{}: {found:?}", callee.name());
    }
    // NEW makes that call: a site. Without it the code leads elsewhere.
    assert_eq!(object(&|b| b.plan.sites.iter_mut().for_each(|s| s.at = s.at.offset(1))).len(), 1);
}
