//! Source files that were moved or renamed: their static variables are the same ones, or it is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use dsu_compiler::{Built, Options, build};
use dsu_patch_format::manifest::DataAction;
use std::path::Path;
use std::process::Command;

/// gcc makes tables of the switches, whose symbols have no debug information: they are in a unit that only
/// the symbol table names, by its file's name alone.
const SHOP: &str = r#"
#include <stdio.h>
static long hits = 5;
long next(long x) { return x + 1; }
__attribute__((noinline)) int price(int d) {
    switch (d) {
        case 0: return 311; case 1: return 17; case 2: return 5; case 3: return 99; case 4: return 12345;
        default: return 7;
    }
}
long step(long x) {
    hits++;
#ifdef NEW
    if (x > 100) puts("far");
#endif
    return hits + price(x);
}
"#;
const MAIN: &str = "long step(long), next(long); int main(int argc, char **argv) { return step(argc) + next(argc); }";

/// Builds OLD and NEW of these files.
fn built(old: &[(&str, &str)], new: &[(&str, &str)]) -> Built {
    let directory = tempfile::tempdir().unwrap();
    let compile = |name: &str, files: &[(&str, &str)], flags: &[&str]| {
        let mut gcc = Command::new("gcc");
        gcc.current_dir(directory.path()).args(["-O2", "-g", "-fPIE", "-pie", "-Wl,--build-id"]);
        for (file, text) in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
            std::fs::write(&path, text).unwrap();
            gcc.arg(file);
        }
        assert!(gcc.args(flags).args(["-o", name]).status().unwrap().success(), "gcc");
        directory.path().join(name)
    };
    let (old, new) = (compile("old", old, &[]), compile("new", new, &["-DNEW"]));
    build(&Options { old, new, ..Options::default() }, &|_| ()).unwrap()
}

fn added(built: &Built) -> Vec<&str> {
    let all = built.data.changes.iter().chain(&built.emitted.data);
    all.filter(|c| c.action == DataAction::Added).map(|c| c.name.as_str()).collect()
}

#[test]
fn a_file_compiled_from_another_directory_keeps_its_statics() {
    for name in ["sub/shop.c", "sub/store.c"] {
        let built = built(&[("main.c", MAIN), ("shop.c", SHOP)], &[("main.c", MAIN), (name, SHOP)]);
        assert!(built.refusals.is_empty(), "{name}: {:?}", built.refusals);
        assert_eq!(added(&built), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn a_static_whose_file_nobody_knows_is_not_started_anew() {
    // The file is split: either half may be what is left of it.
    let (_, behind) = SHOP.split_once("long step").unwrap();
    let (_, prices) = SHOP.split_once("static long hits = 5;").unwrap();
    let (prices, _) = prices.split_once("long step").unwrap();
    let head = "#include <stdio.h>\nstatic long hits = 5;\nint price(int);\nlong step";
    let steps = format!("{head}{behind}");
    let built = built(
        &[("main.c", MAIN), ("shop.c", SHOP)],
        &[("main.c", MAIN), ("steps.c", &steps), ("prices.c", prices)],
    );
    let refused: Vec<(&str, &str)> =
        built.refusals.iter().map(|r| (r.code, r.subject.as_str())).collect();
    assert_eq!(refused, [("unit", "hits")], "{:?}", built.refusals);
}
