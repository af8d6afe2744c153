//! Source files that were moved or renamed: their static variables are the same ones, or it is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use dsu_compiler::image::ObjectId;
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
    built_with(old, new, &[])
}

fn built_with(old: &[(&str, &str)], new: &[(&str, &str)], more: &[&str]) -> Built {
    built_by("gcc", old, new, more)
}

fn built_by(cc: &str, old: &[(&str, &str)], new: &[(&str, &str)], more: &[&str]) -> Built {
    let directory = tempfile::tempdir().unwrap();
    let compile = |name: &str, files: &[(&str, &str)], flags: &[&str]| {
        let mut gcc = Command::new(cc);
        gcc.current_dir(directory.path()).args(["-O2", "-g", "-fPIE", "-pie", "-Wl,--build-id"]);
        for (file, text) in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
            std::fs::write(&path, text).unwrap();
            gcc.arg(file);
        }
        assert!(gcc.args(flags).args(more).args(["-o", name]).status().unwrap().success(), "{cc}");
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

/// `static long count` in two files, with a different number in each build after link-time optimization.
fn counting(name: &str, start: &str, more: &str) -> String {
    format!(
        "static long count = {start};\n{more}\n__attribute__((noinline)) long {name}(long x) {{ count += x; \
         return count + {name}_more(x); }}\n"
    )
}

#[test]
fn statics_of_one_name_stay_apart_after_link_time_optimization() {
    let more = |name: &str, new: &str| {
        format!("static __attribute__((noinline)) long {name}_more(long x) {{ return x {new}; }}")
    };
    let main = "long a(long), b(long), c(long); int main(int argc, char **argv) { return a(argc) + b(argc)\n\
                #ifdef NEW\n + c(argc)\n#endif\n; }";
    let files = |new: &str| {
        [
            counting("a", "1", &more("a", new)),
            counting("b", "2", &more("b", new)),
            counting("c", "3", &more("c", new)),
        ]
    };
    let ([a, b, _], [x, y, z]) = (files(""), files("* 3"));
    let old = [("main.c", main), ("a.c", &a), ("b.c", &b)];
    // In front of the others, so that it takes their numbers.
    let new = [("main.c", main), ("c.c", &z), ("b.c", &y), ("a.c", &x)];
    let flags = ["-flto", "-flto-partition=max"];
    let built = built_with(&old, &new, &flags);
    for (id, object) in (0..).zip(&built.new.objects) {
        let Some(partner) = built.matching.old_object(ObjectId(id)) else {
            continue;
        };
        if object.name().starts_with("count") {
            let partner = built.old.object(partner);
            let content = |image: &dsu_compiler::image::Image, at: u64| {
                image.content(at, 8).map(std::borrow::Cow::into_owned)
            };
            let (before, after) =
                (content(&built.old, partner.address), content(&built.new, object.address));
            assert_eq!(before, after, "{} and {}", partner.name(), object.name());
        }
    }
    assert!(built.refusals.is_empty(), "{:?}", built.refusals);
    assert_eq!(added(&built).len(), 1, "{:?}", added(&built));
}

#[test]
fn parts_of_a_static_structure_that_clang_took_apart_keep_their_values() {
    let text = r#"
        #include <stdio.h>
        static struct { long a, b; char pad[100]; long c; } st;
        __attribute__((noinline)) void note(long x) { st.a++; st.b += x; if (x > st.c) st.c = x
        #ifdef NEW
            + 0 * puts("new")
        #endif
        ; }
        __attribute__((noinline)) void show(void) { printf("%ld %ld %ld\n", st.a, st.b, st.c); }
        int main(int argc, char **argv) { note(argc); show(); return 0; }
    "#;
    let built = built_by("clang", &[("a.c", text)], &[("a.c", text)], &[]);
    let parts = ["st.0", "st.1", "st.2"];
    assert!(parts.iter().all(|part| built.old.objects.iter().any(|o| o.name() == *part)));
    assert!(built.refusals.is_empty(), "{:?}", built.refusals);
    assert_eq!(added(&built), Vec::<&str>::new());
    // One member is used no more: the others have other numbers, and are the same as before.
    let fewer =
        text.replace("st.b += x;", "").replace("%ld %ld %ld", "%ld %ld").replace("st.b, ", "");
    let built = built_by("clang", &[("a.c", text)], &[("a.c", &fewer)], &[]);
    assert!(built.refusals.is_empty(), "{:?}", built.refusals);
    let partner = |part: &str| {
        let new = (0..).map(ObjectId).zip(&built.new.objects).find(|(_, o)| o.name() == part);
        let old = new.and_then(|(id, _)| built.matching.old_object(id));
        old.map(|old| built.old.object(old).name().to_owned())
    };
    assert_eq!(partner("st.0").as_deref(), Some("st.0"));
    assert_eq!(partner("st.1").as_deref(), Some("st.2"));
    // A whole that was taken apart is refused, whichever part has which value.
    let whole = text.replace("show(void) {", "show(void) { printf(\"%p\", (void *)&st);");
    let built = built_by("clang", &[("a.c", &whole)], &[("a.c", text)], &[]);
    assert!(built.refusals.iter().all(|r| r.code == "unit"), "{:?}", built.refusals);
    assert!(!built.refusals.is_empty());
}
