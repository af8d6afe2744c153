//! Each operand of a carried function leads where the compiler meant it to.
//!
//! Random programs with tables side by side are compiled by gcc and clang at several levels; the
//! object file's relocations say whose address each operand is, which the linked file does not, and
//! which `dsu-build` is not shown. Every fix-up has to agree with them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "operands/generate.rs"]
mod generate;
#[path = "operands/truth.rs"]
mod truth;

use dsu_compiler::{Options, Outcome, build};
use dsu_patch_format::plan::{Fixup, Plan, Target};
use dsu_patch_format::{NewAddr, OldAddr};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const BUILDS: [&str; 8] = [
    "gcc -O2 -malign-data=abi",
    "gcc -O1 -malign-data=abi",
    "gcc -O3 -malign-data=abi -mavx2",
    "gcc -Os",
    "gcc -O2",
    "clang -O2",
    "clang -O1",
    "clang -O3 -mavx2",
];

/// What all programs of one build together gave.
#[derive(Debug, Default)]
struct Tally {
    operands: usize,
    programs: usize,
    refused: usize,
    wrong: Vec<String>,
}

#[test]
fn operands_lead_where_the_relocations_say() {
    let directory = tempfile::tempdir().unwrap();
    let seeds = std::env::var("DSU_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(6);
    let mut failed = false;
    for (i, words) in BUILDS.iter().enumerate() {
        let mut tally = Tally::default();
        for seed in 0..seeds {
            one(directory.path(), words, seed * BUILDS.len() as u64 + i as u64, &mut tally);
        }
        println!(
            "{words}: {} operands of {} programs, {} wrong, {} programs refused",
            tally.operands,
            tally.programs,
            tally.wrong.len(),
            tally.refused
        );
        for wrong in &tally.wrong {
            println!("  {wrong}");
        }
        failed |= !tally.wrong.is_empty();
        assert!(tally.operands > 10, "{words}: nothing was compared");
    }
    assert!(!failed, "operands that lead elsewhere, see above");
}

/// What the numbers in the code alone do not tell: `tests` ends where `preface` begins, and the text lies among tables.
const SCOPES: &str = r#"
#include <unistd.h>
#define KEEP __attribute__((noinline, noclone))
struct test { long len, value; };
volatile long limit = 3;
#if VERSION == 2
const long more[1024] = {1, 2, 3};
#endif
long table[8] = {1, 2, 3, 4, 5, 6, 7, 8};
OUTSIDE
KEEP long hook(const void *p) { return write(9, p, 1); }
KEEP long other(void) {
  INSIDE
  return hook(preface);
}
#if VERSION == 1
KEEP long third(void) {
  static const struct test between[] = {{5, 5}, {6, 6}};
  return hook(between);
}
#endif
KEEP long parse(long n) {
  static const struct test tests[] = {{1, 2}, {3, 4}, {5, 6}, {7, 8}};
  static const struct test *test;
  long i = 4;
  test = tests;
  do {
    if (test->len == n) return test->value + VERSION;
    test++;
  } while (--i);
  return -1;
}
KEEP long walk(long n) {
  const char *text = TEXT;
  long sum = VERSION;
  for (; n; n--) sum = sum * 31 + hook(text++);
  return sum + table[sum & 7];
}
int main(int argc, char **argv) {
  long sum = parse(argc) + other() + walk(argc);
#if VERSION == 2
  return sum + more[argc];
#else
  return sum + third();
#endif
}
"#;

/// Static locals are of their functions alone, and the same literal is in both builds.
#[test]
fn what_the_source_can_name_is_meant() {
    let directory = tempfile::tempdir().unwrap();
    let preface = "static const struct test preface[] = {{9, 9}, {8, 8}, {7, 7}};";
    let source = |outside: &str, inside: &str, text: &str| {
        SCOPES.replace("OUTSIDE", outside).replace("INSIDE", inside).replace("TEXT", text)
    };
    let same = source("", preface, "\"$EOF:\"");
    let refused = |words: &str, old: &str, new: &str| {
        let mut tally = Tally::default();
        compare(directory.path(), words, (old, new), "scopes", &mut tally);
        assert!(tally.wrong.is_empty() && tally.operands > 2, "{words}: {tally:?}");
        tally.refused > 0
    };
    for words in ["gcc -O1", "gcc -O2"] {
        assert!(!refused(words, &same, &same), "{words}");
        // OLD has another text there: this may be a distance from a table.
        let other = source("", preface, "\"$EOF;\"");
        assert!(refused(words, &other, &same), "{words}");
    }
    // Of the whole unit: then either may be meant.
    let wide = source(preface, "", "\"$EOF:\"");
    assert!(refused("gcc -O1", &wide, &wide));
}

fn one(directory: &Path, words: &str, seed: u64, tally: &mut Tally) {
    let (old, new) = generate::sources(seed);
    compare(directory, words, (&old, &new), &format!("seed {seed}"), tally);
}

fn compare(directory: &Path, words: &str, (old, new): (&str, &str), name: &str, tally: &mut Tally) {
    compile(directory, words, "old", 1, old);
    compile(directory, words, "new", 2, new);
    let options =
        Options { old: directory.join("old"), new: directory.join("new"), ..Options::default() };
    let built = build(&options, &|_| {}).unwrap();
    tally.programs += 1;
    tally.refused += usize::from(built.outcome == Outcome::Refused);
    let read = |name: &str| std::fs::read(directory.join(name)).unwrap();
    let (old, new, object) = (read("old"), read("new"), read("new.o"));
    let parse = |bytes| object::File::parse(bytes).unwrap();
    let old = truth::symbols(&parse(&*old));
    let new = truth::symbols(&parse(&*new));
    let operands = truth::operands(&parse(&*object), &new);
    // Whatever is refused gets no fix-up: nothing to compare.
    let refused = |function: &str| {
        built.refusals.iter().any(|r| r.subject == function || r.code != "ambiguous")
    };
    let fixups: BTreeMap<u64, &Fixup> =
        built.emitted.plan.fixups.iter().map(|f| (f.at.0, f)).collect();
    for operand in operands {
        let carried = covers(&built.emitted.plan, operand.at, 4);
        if !carried || refused(&operand.function) {
            continue;
        }
        tally.operands += 1;
        let target = fixups.get(&operand.at).copied();
        let wrong = judge(&operand, target, &built.emitted.plan, &old, &new, directory);
        tally.wrong.extend(wrong.map(|w| format!("{name}: {w}")));
    }
}

fn compile(directory: &Path, words: &str, name: &str, version: u8, source: &str) {
    let file = directory.join(format!("{name}.c"));
    std::fs::write(&file, source).unwrap();
    let run = |more: &[String]| {
        let mut all = words.split(' ');
        let mut command = Command::new(all.next().unwrap());
        command.args(all).args(["-g", "-fPIE", "-ffunction-sections", "-fdata-sections"]);
        let status = command.args(["-w"]).args(more).current_dir(directory).status().unwrap();
        assert!(status.success(), "{words} {name}");
    };
    run(&["-c", &format!("-DVERSION={version}"), &format!("{name}.c"), "-o", &format!("{name}.o")]
        .map(str::to_owned));
    run(&["-pie", "-Wl,--build-id", &format!("{name}.o"), "-o", name].map(str::to_owned));
}

fn covers(plan: &Plan, start: u64, len: u64) -> bool {
    plan.segments.iter().any(|s| {
        let end = s.start.0 + s.bytes.len() as u64 + s.zeroes;
        s.start.0 <= start && start + len <= end
    })
}

/// In words, when an operand leads elsewhere.
fn judge(
    operand: &truth::Operand,
    fixup: Option<&Fixup>,
    plan: &Plan,
    old: &BTreeMap<String, truth::Place>,
    new: &BTreeMap<String, truth::Place>,
    directory: &Path,
) -> Option<String> {
    let (stands, next) = field_target(directory, operand.at);
    // S + A - P is what the field holds; the processor counts from the instruction's end.
    let leads = |f: &Fixup| match f.target {
        Target::Old(start) => {
            let behind = next.wrapping_sub(f.at.0).cast_signed();
            Target::Old(OldAddr(start.0.wrapping_add_signed(f.addend + behind)))
        }
        target => target,
    };
    let target = fixup.map(leads);
    let shadow = matches!(target, None | Some(Target::New(NewAddr(_))));
    let owner = operand.owner.as_deref();
    let place = owner.and_then(|name| new.get(name));
    let kept =
        owner.and_then(|name| Some((old.get(name)?, place?))).filter(|(a, b)| a.size == b.size);
    let right = match (kept, place) {
        (Some((old, new)), _) => {
            let there = OldAddr(old.address.wrapping_add(stands.wrapping_sub(new.address)));
            let carried = !new.writable && covers(plan, new.address, new.size);
            target == Some(Target::Old(there)) || shadow && carried
        }
        (None, Some(new)) => shadow && covers(plan, new.address, new.size),
        (None, None) => shadow,
    };
    let owner = owner.unwrap_or("a constant");
    (!right).then(|| {
        format!(
            "{} at {:#x}: {stands:#x} is of {owner}, leads to {target:?}",
            operand.function, operand.at
        )
    })
}

/// The address that a field of NEW stands for, and its instruction's end; all fields are relative to that,
/// which is what a decoder says.
fn field_target(directory: &Path, at: u64) -> (u64, u64) {
    use object::{Object, ObjectSection};
    let bytes = std::fs::read(directory.join("new")).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section =
        file.sections().find(|s| (s.address()..s.address() + s.size()).contains(&at)).unwrap();
    let data = section.data().unwrap();
    let mut decoder =
        iced_x86::Decoder::with_ip(64, data, section.address(), iced_x86::DecoderOptions::NONE);
    let instruction = decoder.iter().find(|i| at >= i.ip() && at < i.next_ip()).unwrap();
    let stands = if instruction.is_ip_rel_memory_operand() {
        instruction.ip_rel_memory_address()
    } else {
        instruction.near_branch_target()
    };
    (stands, instruction.next_ip())
}
