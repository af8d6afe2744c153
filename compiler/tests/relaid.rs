//! Copies of NEW's code for frames of OLD whose objects lie elsewhere; and code of which nobody knows what its
//! addresses mean.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod compiled;

use compiled::{compile, compile_by};
use dsu_compiler::Built;
use dsu_compiler::check::{Checker, Rule, check, mutate};
use dsu_patch_format::plan::{Copied, Plan};
use dsu_patch_format::{Bundle, NewAddr};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use std::collections::BTreeSet;

/// `serve` waits in calls of `hook`, two objects of its frame in somebody's hands.
const PROGRAM: &str = r"
#define KEEP __attribute__((noipa))
struct pair { long total, last; } *known;
long *others, *end;
volatile long sink;
KEEP void meet(struct pair *it, long *all) { known = it; others = all; }
KEEP void until(long *it) { end = it; }
KEEP void hook(long n) { known->total += n; others[n % 3] ^= n; }
KEEP long serve(long n, long a, long b, long c, long d) {
    struct pair pair = {0};
    long all[3] = {0};
    DECLARE
    meet(&pair, all);
    for (long i = 1; i <= n; i++) {
        hook(i);
        BODY
        sink = (a ^ i) + (b ^ i) * (c ^ i) + d;
    }
    return pair.total + all[1];
}
int main(int argc, char **argv) { return serve(argc, 2, 3, 4, 5); }
";

/// Jumps by a table, whose address the loop may keep.
const SWITCH: &str = r"
switch (n * i % 9) {
case 0: sink = a; break;
case 1: hook(b); break;
case 2: sink = b + c; break;
case 3: hook(c); sink = 3; break;
case 4: sink = d; break;
case 5: hook(a + d); break;
case 6: sink = a * c; break;
default: hook(7); break;
}
";

/// Flags of OLD and NEW that give the frame another layout each.
const LAYOUTS: [(&str, &str); 2] = [("-O2", "-Os"), ("-fno-omit-frame-pointer", "-O1")];

fn built(declare: &str, body: &str, (old, new): (&str, &str)) -> (Built, Bundle) {
    let source = PROGRAM.replace("DECLARE", declare).replace("BODY", body);
    let directory = tempfile::tempdir().unwrap();
    let old = compile(directory.path(), "old", &source, &[old]);
    let new = compile(directory.path(), "new", &source, &[new]);
    compiled::bundle(old, new)
}

/// What is said against the points that are blind.
fn reasons(built: &Built) -> String {
    let blind = built.carried.iter().flat_map(|c| &c.blind).flat_map(|b| &b.obstacles);
    blind.map(|o| format!("{}\n", o.text)).collect()
}

fn sites_of(plan: &Plan, copy: &Copied) -> Vec<usize> {
    (0..plan.sites.len()).filter(|site| copy.contains(plan.sites[*site].to)).collect()
}

fn bytes_of<'p>(plan: &'p Plan, copy: &Copied) -> &'p [u8] {
    let segment = plan.segments.iter().rfind(|s| s.start <= copy.start).unwrap();
    let start = usize::try_from(copy.start.since(segment.start)).unwrap();
    &segment.bytes[start..start + usize::try_from(copy.len).unwrap()]
}

#[test]
fn a_frame_goes_on_in_a_copy_of_new() {
    for layout in LAYOUTS {
        let (built, bundle) = built("", "", layout);
        let copies = &bundle.plan.copies;
        assert_eq!(copies.len(), 1, "{layout:?}: {}", reasons(&built));
        let copy = &copies[0];
        assert!(!sites_of(&bundle.plan, copy).is_empty());
        let shifts: Vec<i64> = copy.objects.iter().map(|o| o.shift(copy.lowered)).collect();
        assert_eq!(shifts.len(), 2, "{layout:?}");
        for site in sites_of(&bundle.plan, copy) {
            let frame = &bundle.frames[site];
            assert_eq!(frame.lowered, copy.lowered);
            let moved: Vec<(i64, i64)> =
                copy.objects.iter().map(|o| (o.old, o.old_end())).collect();
            assert!(frame.objects.iter().all(|object| moved.contains(object)));
        }
        // The next update can unwind it.
        let row = bundle.plan.unwind.iter().rfind(|row| copy.contains(row.start)).unwrap();
        assert!(row.start.offset(row.len.into()) <= copy.end());
        assert_eq!(check(&built.old, &built.new, &bundle), []);
    }
}

#[test]
fn an_index_may_mean_each_array_that_is_moved_otherwise() {
    // Of two sizes, so that compilers put them in other orders, and counted from before each.
    let declare =
        "long more[5] = {1, 2, 3, 4, 5}; char text[20] = {0}; until(more); until((long *)text);";
    let body = "all[i - 1] += 1; more[i - 1] += 2; text[i - 1] ^= 3;";
    let mut seen = false;
    for layout in LAYOUTS {
        let (built, bundle) = built(declare, body, layout);
        let shifts = |copy: &Copied| -> BTreeSet<i64> {
            let arrays = copy.objects.iter().filter(|o| o.end - o.start > 16);
            arrays.map(|o| o.shift(copy.lowered)).collect()
        };
        let alike = bundle.plan.copies.iter().all(|copy| shifts(copy).len() == 1);
        let told = reasons(&built);
        assert!(alike, "{:?}", bundle.plan.copies);
        println!("{layout:?}: {told}");
        seen |= told.contains("may mean several");
    }
    assert!(seen, "no layout is of use here");
}

#[test]
fn a_copy_has_tables_of_its_own() {
    for layout in LAYOUTS {
        let (built, bundle) = built("", SWITCH, layout);
        let copies = &bundle.plan.copies;
        assert_eq!(copies.len(), 1, "{layout:?}: {}", reasons(&built));
        let bytes = bytes_of(&bundle.plan, &copies[0]);
        assert_ne!(bytes.last(), Some(&0xcc), "{layout:?}: the code is the last of it");
        assert_eq!(check(&built.old, &built.new, &bundle), []);
    }
}

/// What a table of the copy says is no address, and no entry of NEW's table either.
#[test]
fn no_site_leads_between_a_load_from_a_table_and_its_jump() {
    let (built, mut bundle) = built("", SWITCH, LAYOUTS[0]);
    let copy = &bundle.plan.copies[0];
    let site = sites_of(&bundle.plan, copy)[0];
    let bytes = bytes_of(&bundle.plan, copy);
    let mut code = Decoder::with_ip(64, bytes, copy.start.0, DecoderOptions::NONE);
    let is_load = |i: &Instruction| i.mnemonic() == Mnemonic::Movsxd && i.memory_index_scale() == 4;
    let load = code.iter().find(is_load).unwrap();
    bundle.plan.sites[site].to = NewAddr(load.next_ip());
    let objections = Checker::new(&built.old, &built.new, &bundle).site(&bundle, site);
    assert!(objections.iter().any(|o| o.rule == Rule::Copy), "{objections:?}");
}

/// clang fills in a case that cannot be with the function's end; entries follow, of which its code says nothing.
#[test]
fn nobody_knows_how_far_a_table_goes_behind_a_case_that_cannot_be() {
    let cases = SWITCH.replace("case 3:", "case 3: __builtin_unreachable(); case 7:").replace(
        "default: hook(7); break;",
        "case 8: hook(7); break; default: __builtin_unreachable();",
    );
    let source = PROGRAM.replace("DECLARE", "").replace("BODY", &cases);
    let directory = tempfile::tempdir().unwrap();
    let build = |name: &str, flag: &str| {
        compile_by("clang", directory.path(), name, &source, &["-O1", flag])
    };
    let old = build("old", "-fomit-frame-pointer");
    let (built, bundle) = compiled::bundle(old, build("new", "-fno-omit-frame-pointer"));
    assert_eq!(bundle.plan.copies, []);
    assert!(reasons(&built).contains("nobody knows where it jumps to"), "{}", reasons(&built));
}

#[test]
fn everything_wrong_with_a_copy_is_found() {
    check_everything("");
}

#[test]
fn everything_wrong_with_tables_of_a_copy_is_found() {
    check_everything(SWITCH);
}

/// Every byte of a copy, and everything that the plan says of it, one thing at a time.
fn check_everything(body: &str) {
    let (built, bundle) = built("", body, LAYOUTS[0]);
    let (old, new) = (&built.old, &built.new);
    let sites = sites_of(&bundle.plan, &bundle.plan.copies[0]);
    let is_found = |changed: &Bundle, what: &str| {
        let objections = check(old, new, changed);
        let found = |site: &usize| objections.iter().any(|o| o.site == *site);
        assert!(sites.iter().all(found), "{what}: {objections:?}");
    };
    let mut tried = 0;
    for mutant in mutate::copies(&bundle) {
        is_found(&mutant.apply(&bundle), &mutant.what);
        tried += 1;
    }
    assert!(tried > 150, "{tried}");
    let changed = |what: &str, change: &dyn Fn(&mut Copied)| {
        let mut changed = bundle.clone();
        change(&mut changed.plan.copies[0]);
        is_found(&changed, what);
    };
    changed("a lower frame", &|copy| copy.lowered += 16);
    changed("a shorter copy", &|copy| copy.len -= 1);
    changed("another function's", &|copy| copy.of = NewAddr(copy.of.0 + 1));
    changed("objects elsewhere", &|copy| copy.objects.iter_mut().for_each(|o| o.old -= 8));
    changed("an object less", &|copy| copy.objects.truncate(1));
    changed("an object more than it is", &|copy| copy.objects[0].end -= 8);
    changed("no objects", &|copy| copy.objects.clear());
    // Where nothing says that it is a copy.
    let mut without = bundle.clone();
    without.plan.copies.clear();
    is_found(&without, "no copy");
    // The tables of its sites are those of other frames.
    let checker = Checker::new(old, new, &bundle);
    for site in sites.iter().copied() {
        for mutant in mutate::tables(&bundle, site) {
            let objections = checker.site(&mutant.apply(&bundle), site);
            assert!(!objections.is_empty(), "site {site}: {}", mutant.what);
        }
    }
    let objections = check(old, new, &without);
    assert!(objections.iter().any(|o| o.rule == Rule::Boundary), "{objections:?}");
}
