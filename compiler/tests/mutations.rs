//! A thousand tables that the builder made, each with one thing wrong: the checker objects to every one.
//!
//! The programs are those of the torture suite. A mutant has its table changed and its stub left as it
//! was, so what the table says is no longer what the stub does: a move dropped, narrowed, misplaced,
//! taken from the place beside it, or with its source exchanged for another one's; a number or an
//! address that is one off; a depth that is eight off.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use dsu_compiler::check::{Checker, mutate};
use dsu_compiler::{Built, Options, Outcome, build};
use dsu_patch_format::Bundle;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mutants to be tried.
const MUTANTS: usize = 1000;
/// Mutants of one site at most: many sites rather than many of one.
const OF_ONE_SITE: usize = 40;
/// Programs of `tests/torture`, with the flags of OLD and NEW. In none of them a register holds a small
/// structure of which NEW reads a part: there a narrower move might be as good.
const PROGRAMS: [(&str, &str, &str); 11] = [
    ("bytecode", "-O2", "-fno-omit-frame-pointer"),
    ("ciphers", "-O2", "-fno-schedule-insns2"),
    ("doubles", "-O2", "-fno-omit-frame-pointer"),
    ("lists", "-O2", "-fstack-protector-strong"),
    ("many_arguments", "-O2", "-fno-omit-frame-pointer"),
    ("strings", "-O2", "-fstack-protector-strong"),
    ("inlined", "-O2", "-fno-omit-frame-pointer"),
    ("nested_loops", "-O2", "-fno-omit-frame-pointer"),
    ("queens", "-O2", "-fno-omit-frame-pointer"),
    ("recursion", "-O2", "-fno-omit-frame-pointer"),
    ("trees", "-O2", "-fno-shrink-wrap"),
];

fn compile(directory: &Path, program: &str, name: &str, flags: &[&str]) -> PathBuf {
    let out = directory.join(name);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/torture");
    let status = Command::new("gcc")
        .args(["-std=gnu17", "-D_GNU_SOURCE", "-g", "-fPIE", "-pie", "-Wl,--build-id", "-w"])
        .args(flags)
        .arg("-o")
        .arg(&out)
        .arg(sources.join(format!("{program}.c")))
        .status()
        .unwrap();
    assert!(status.success(), "gcc");
    out
}

fn built((program, old, new): (&str, &str, &str)) -> (Built, Bundle) {
    let directory = tempfile::tempdir().unwrap();
    let old = compile(directory.path(), program, "old", &[old]);
    let new = compile(directory.path(), program, "new", &["-O2", new]);
    let options = Options { old, new, live_frames: true, ..Options::default() };
    let built = build(&options, &|_| ()).unwrap();
    assert_eq!(built.outcome, Outcome::Written, "{program}: {:?}", built.refusals);
    let bundle = dsu_patch_format::decode(&built.bundle(&options).unwrap()).unwrap();
    (built, bundle)
}

#[test]
fn everything_wrong_with_a_table_is_found() {
    let (mut tried, mut kinds) = (0, BTreeMap::<String, usize>::new());
    let mut missed = Vec::new();
    for (index, program) in PROGRAMS.into_iter().enumerate() {
        let (built, bundle) = built(program);
        let share = (MUTANTS - tried).div_ceil(PROGRAMS.len() - index);
        let mut here = 0;
        let checker = Checker::new(&built.old, &built.new, &bundle);
        for site in 0..bundle.plan.sites.len() {
            assert_eq!(checker.site(&bundle, site), [], "{}: unchanged", program.0);
            let mutants = mutate::tables(&bundle, site);
            // Spread over all kinds of one site.
            let stride = mutants.len().div_ceil(OF_ONE_SITE).max(1);
            for mutant in mutants.iter().skip(site % stride).step_by(stride) {
                if here == share {
                    break;
                }
                here += 1;
                let kind = mutant.what.split(' ').next().unwrap_or_default();
                *kinds.entry(kind.to_owned()).or_default() += 1;
                if checker.site(&mutant.apply(&bundle), site).is_empty() {
                    missed.push(format!("{} site {site}: {}", program.0, mutant.what));
                }
            }
        }
        tried += here;
    }
    println!("{tried} mutants: {kinds:?}");
    assert_eq!(missed, Vec::<String>::new());
    assert_eq!(tried, MUTANTS);
}
