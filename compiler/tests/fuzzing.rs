//! Broken ELF files and debug information by the hundred, through all of dsu-build: no panic, no hang,
//! no memory without bound.
//!
//! The cases run in a process of their own whose memory is limited. `DSU_FUZZ_SECONDS` makes it longer,
//! `DSU_FUZZ_FIRST` begins at a seed, for one that was found.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/fuzz/bodies/builds.rs"]
mod body;
#[path = "../../tests/fuzz/bodies/mutate.rs"]
mod mutate;

use mutate::{Numbers, mutate, time};
use object::{Object, ObjectSection};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Kilobytes of address space: threads, their stacks, the program; some hundred times what a file of
/// twenty kilobytes needs.
const MEMORY: u32 = 4 << 20;
/// No case takes longer, in a debug build on a crowded machine.
const LONGEST: Duration = Duration::from_secs(30);

const SOURCE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct item { int kind; long value; struct item *next; char name[12]; };
static struct item first = {1, 2, 0, "first"};
static const int weights[4] = {1, 2, 3, VERSION * 4};
static const char *const names[] = {"zero", "one", "two"};
__thread int mine = 3;
static inline int twice(int x) { return x * 2 + weights[x & 3]; }
__attribute__((noinline)) static long choose(int x, double y) {
    switch (x) {
    case 0: return twice(x);
    case 1: return (long)(y * 1.5);
    case 2: puts(names[x % 3]); return 7 + VERSION;
    case 3: return first.value++;
    case 4: return mine;
    case 5: return (long)strlen(first.name);
    default: return -1;
    }
}
__attribute__((noinline)) int loop(int n) {
    int array[8] = {0}, sum = 0;
    for (int i = 0; i < n; i++) {
        array[i & 7] += (int)choose(i % 6, i) + VERSION;
        sum += array[(i * 3) & 7];
    }
    return sum;
}
int main(int argc, char **argv) {
    for (int i = 0; i < argc * 4; i++) printf("%d %s\n", loop(i), argv[0]);
    return 0;
}
"#;

/// Both versions by one build line.
fn pair(flags: &[&str]) -> [Vec<u8>; 2] {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.c"), SOURCE).unwrap();
    [1, 2].map(|version| {
        let out = dir.path().join(format!("v{version}"));
        let status = Command::new("gcc")
            .args(["-O2", "-g", "-Wl,--build-id", "a.c", "-o"])
            .arg(&out)
            .args(flags)
            .arg(format!("-DVERSION={version}"))
            .current_dir(dir.path())
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::read(out).unwrap()
    })
}

/// Parts of a file that mean something: its headers and each section, so that small ones are hit as
/// often as large ones.
fn places(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let file = object::File::parse(bytes).unwrap();
    let range = |(start, len): (u64, u64)| {
        usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap()
    };
    let mut all: Vec<_> = file.sections().filter_map(|s| s.file_range()).map(range).collect();
    all.retain(|range| !range.is_empty());
    // e_shoff is at 40 of the header (gABI, "ELF Header").
    let table = usize::try_from(u64::from_le_bytes(bytes[40..48].try_into().unwrap())).unwrap();
    all.extend([0..0x300, table..bytes.len()]);
    all
}

/// In a process of its own, started by the test below.
#[test]
#[ignore = "the other test runs it with limited memory"]
fn cases() {
    let pairs = [
        pair(&[]),
        pair(&["-gdwarf-4", "-no-pie", "-fno-pie", "-Wl,--emit-relocs"]),
        pair(&["-gz", "-fasynchronous-unwind-tables"]),
    ];
    let first = std::env::var("DSU_FUZZ_FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let start = Instant::now();
    let mut out = std::io::stdout().lock();
    for seed in first.. {
        if start.elapsed() > time() {
            writeln!(out, "cases {}", seed - first).unwrap();
            break;
        }
        let mut numbers = Numbers::new(seed);
        let [old, new] = &pairs[numbers.below(pairs.len())];
        let broken = numbers.below(2);
        let mut bytes = [old, new][broken].clone();
        mutate(&mut bytes, &places([old, new][broken]), &mut numbers);
        writeln!(out, "seed {seed}").unwrap();
        let one = Instant::now();
        match broken {
            0 => body::compare(&bytes, new),
            _ => body::compare(old, &bytes),
        }
        assert!(one.elapsed() < LONGEST, "seed {seed} takes {:?}", one.elapsed());
    }
}

#[test]
fn broken_builds() {
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "cases", "--ignored", "--nocapture"])
        .env("RAYON_NUM_THREADS", "2")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .spawn()
        .unwrap();
    // A case that hangs is ended with its process.
    let pid = child.id().to_string();
    let (told, ended) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let limit = time() + LONGEST * 2;
        if ended.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            Command::new("kill").args(["-KILL", &pid]).status().unwrap();
        }
    });
    let mut errors = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || std::io::read_to_string(&mut errors).unwrap());
    let said = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    let status = child.wait().unwrap();
    drop(told);
    watch.join().unwrap();
    let errors = reader.join().unwrap();
    let last = said.lines().rfind(|line| line.starts_with("seed ")).unwrap_or("no seed");
    assert!(status.success(), "{last}: {status}\n{errors}");
    let count = said.lines().find_map(|line| line.strip_prefix("cases "));
    assert!(count.is_some_and(|n| n.parse::<u64>().unwrap() > 1), "{said}");
}
