//! Locals that only NEW has: with what they begin in a frame that goes on, and when they must not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod compiled;

use compiled::compile;
use dsu_compiler::{Built, Options, Outcome, build};
use dsu_patch_format::frames::{Proof, Value};
use dsu_patch_format::plan::SiteKind;

/// `f` waits in calls of `hook`; what it returns depends on its locals.
const AROUND: &str = r#"
#include <unistd.h>
#define KEEP __attribute__((noinline, noclone))
volatile long limit = 3;
KEEP long hook(long n) { return n + write(9, (void *)&limit, 0); }
KEEP long last(long n) { return n - write(9, (void *)&limit, 0); }
KEEP int narrow(long n) { return n - write(9, (void *)&limit, 0); }
KEEP long f(long n) {
#ifdef NEW
    NEW_BODY
#else
    OLD_BODY
#endif
}
int main(int argc, char **argv) { return f(argc); }
"#;

fn built(old: &str, new: &str, init_new_locals: bool) -> Built {
    let directory = tempfile::tempdir().unwrap();
    let source = AROUND.replace("OLD_BODY", old).replace("NEW_BODY", new);
    let old = compile(directory.path(), "old", &source, &[]);
    let new = compile(directory.path(), "new", &source, &["-DNEW"]);
    let options = Options { old, new, live_frames: true, init_new_locals, ..Options::default() };
    let built = build(&options, &|_| ()).unwrap();
    assert_eq!(built.outcome, Outcome::Written, "{:?}", built.refusals);
    built
}

/// Behind the first call of `f`: the number that a new local begins with; or why the point is blind.
fn begins(old: &str, new: &str) -> Result<Option<u64>, String> {
    let built = built(old, new, true);
    let of_f = |c: &&dsu_compiler::frames::Carried| built.old.function(c.function).name() == "f";
    let carried = built.carried.iter().find(of_f).unwrap();
    let proven = carried.proven.iter().filter(|p| p.kind == SiteKind::Return);
    let blind = carried.blind.iter().filter(|b| b.kind == SiteKind::Return);
    let first = proven.clone().map(|p| p.at).chain(blind.clone().map(|b| b.at)).min().unwrap();
    if let Some(blind) = blind.clone().find(|b| b.at == first) {
        return Err(blind.obstacles.iter().map(|o| format!("{}\n", o.text)).collect());
    }
    let site = proven.clone().find(|p| p.at == first).unwrap();
    let mut numbers = site.translation.moves.iter().filter_map(|m| match (&m.proof, &m.from) {
        (Proof::NewLocal(_), Value::Constant(number)) => Some(*number),
        (Proof::NewLocal(name), other) => panic!("{name}: {other:?}"),
        _ => None,
    });
    Ok(numbers.next())
}

const OLD: &str = "for (;;) { if (hook(n) == limit) return last(n); }";

#[test]
fn a_counter_counts_from_its_start() {
    let new = "long c = 5; for (;;) { if (hook(n) == limit) return last(n + c); c++; }";
    assert_eq!(begins(OLD, new), Ok(Some(5)));
    // Counted before the call: the first round's is one more.
    let new = "long c = 5; for (;;) { c++; if (hook(n) == limit) return last(n + c); }";
    assert_eq!(begins(OLD, new), Ok(Some(6)));
}

#[test]
fn nothing_begins_anew_unless_it_is_allowed() {
    let new = "long c = 5; for (;;) { if (hook(n) == limit) return last(n + c); c++; }";
    let built = built(OLD, new, false);
    let carried = built.carried.iter().find(|c| built.old.function(c.function).name() == "f");
    let carried = carried.unwrap();
    let texts: Vec<&str> =
        carried.blind.iter().flat_map(|b| &b.obstacles).map(|o| o.text.as_str()).collect();
    assert!(texts.iter().any(|t| t.contains("--init-new-locals it begins with 5")), "{texts:?}");
    let all = carried.proven.iter().flat_map(|p| &p.translation.moves);
    assert!(all.clone().all(|m| !matches!(m.proof, Proof::NewLocal(_))));
}

#[test]
fn what_does_not_begin_with_a_constant_is_not_made_up() {
    for new in [
        // From an argument, from a call, from memory.
        "long c = n * 3; for (;;) { if (hook(n) == limit) return last(n + c); c++; }",
        "long c = last(7); for (;;) { if (hook(n) == limit) return last(n + c); c++; }",
        "long c = limit; for (;;) { if (hook(n) == limit) return last(n + c); c++; }",
        // Two beginnings.
        "long c = 1; if (n > limit) c = 2; for (;;) { if (hook(n) == limit) return last(n + c); c++; }",
    ] {
        let found = begins(OLD, new);
        assert!(!matches!(found, Ok(Some(_))), "{new}: {found:?}");
    }
}

#[test]
fn what_is_set_inside_of_the_outer_loop_is_not_a_beginning() {
    let old = "for (;;) { while (hook(n) != limit) n++; if (last(n)) return n; }";
    let new = "for (;;) { long c = 4; while (hook(n) != limit) { n++; c++; } if (last(n + c)) return n; }";
    let found = begins(old, new);
    assert!(found.is_err(), "{found:?}");
}

#[test]
fn a_variable_that_both_have_is_no_new_one() {
    let old = "long c = 5; for (;;) { if (hook(n) == limit) return last(n + c); c++; }";
    let new = "long c = 7; for (;;) { if (hook(n) == limit) return last(n + c); c += 2; }";
    let found = begins(old, new);
    assert!(!matches!(found, Ok(Some(_))), "{found:?}");
}

/// The debug information has it as what is computed from a register: the reason names it all the same, and no
/// number is made up for the register.
#[test]
fn a_variable_that_is_computed_from_a_register_is_named() {
    let body = |since: &str, spent: &str| {
        format!(
            "for (;;) {{ {since} long c = hook(n); limit += narrow(n){spent}; if (c == limit) return last(n); }}"
        )
    };
    // What the call gives OLD reads, too.
    let old = body("limit -= narrow(n);", "");
    let built = built(&old, &body("long since = narrow(n);", " - since"), true);
    let blind = built.carried.iter().flat_map(|carried| &carried.blind);
    let behind_calls = blind.filter(|b| b.kind == SiteKind::Return).flat_map(|b| &b.obstacles);
    let why: Vec<(&str, bool)> = behind_calls.map(|o| (o.text.as_str(), o.new_local)).collect();
    let names = |text: &str| {
        text.starts_with("variable `since` (p.c:") && text.ends_with("OLD has no such variable")
    };
    let all_named = why.iter().all(|(text, new_local)| *new_local && names(text));
    assert!(!why.is_empty() && all_named, "{why:?}");
}
