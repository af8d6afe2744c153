//! What is read is what was compiled, whatever compiler, version of DWARF or packaging.

use super::*;
use crate::debug::{Language, Parameters, Place, Returned};

const A: &str = r#"
#include <complex.h>
#include <stdarg.h>
#include <stdlib.h>
struct point { int x, y; };
struct node { struct node *next; enum { RED = -1, GREEN = 5 } colour; char name[3][7]; };
typedef struct { int three : 3; unsigned five : 5; long long forty : 40; double d; } packed_t;
struct small { float a, b; int c; };
struct mixed { double d; long l; };
struct big { long a[4]; };
static struct node head;
__attribute__((used)) struct node *list = &head;
const int table[5] = {1, 2, 3};
const char *const names[] = {"a", "b"};
__attribute__((used)) packed_t bits;
__thread int first = 4;
__thread struct node second;
long double ld(long double x, int y) { return x * y; }
struct small sm(struct small s, struct mixed m, struct big b, __int128 q) {
    s.a += m.d + b.a[0] + q;
    return s;
}
struct big bg(int a, double b, float c, ...) {
    struct big r = {{a, (long)b, (long)c}};
    va_list v;
    va_start(v, c);
    r.a[3] = va_arg(v, int);
    va_end(v);
    return r;
}
double complex cd(double complex a, float complex b, long double complex c) { return a + b + c; }
__attribute__((noinline)) int counter(int n) {
    static int calls;
    if (n) {
        static long deep[3];
        deep[n % 3]++;
    }
    return calls += n;
}
__attribute__((noreturn, noinline)) void die(int x) { exit(x); }
int unused(int a, long *b) { return a + *b; }
int other(struct node *, double);
int main(int argc, char **argv) {
    first++;
    second.colour = GREEN;
    list->colour = RED;
    bits.five = argc;
    if (argc > 5)
        die(3);
    return counter(argc) + table[argc] + names[argc & 1][0] + other(list, 2.0);
}
"#;

const B: &str = r#"
struct node;
__attribute__((noinline)) static int counter(void) { static int calls; return ++calls; }
int other(struct node *n, double d) { return n != 0 && d > 1 ? counter() : 0; }
"#;

fn registers(integer: u8, sse: u8, result: (u8, u8, u8)) -> Parameters {
    let (result_integer, result_sse, x87) = result;
    Parameters {
        integer,
        sse,
        stack: 0,
        vector_bytes: if sse > 0 { 8 } else { 0 },
        variadic: false,
        result: Returned {
            integer: result_integer,
            sse: result_sse,
            x87,
            vector_bytes: if result_sse > 0 { 8 } else { 0 },
        },
    }
}

/// All that must hold of the program above.
fn check(info: &DebugInfo) {
    assert_eq!(info.warnings, []);
    let unit = |id| info.unit(id).unwrap();
    let main = function(info, "main");
    assert_eq!(unit(main.unit).name, "a.c");
    assert_eq!(unit(main.unit).language, Language::C);
    assert!(main.external && !main.noreturn && main.scope.is_empty());
    assert_eq!(main.decl_file.map(|file| info.lines.file(file)), Some("a.c"));
    let line = 1 + A.lines().position(|line| line.starts_with("int main")).unwrap();
    assert_eq!(main.decl_line as usize, line);
    assert_eq!(main.parameters, Some(registers(2, 0, (1, 0, 0))));
    assert_eq!(info.function_at(main.ranges[0].end - 1).unwrap().name, "main");
    assert_eq!(info.position(main.low_pc), Some(("a.c", main.decl_line)));
    assert!(info.rows(main.ranges[0].clone()).len() > 3);
    assert!(function(info, "die").noreturn);

    let counters: Vec<_> = info.functions.iter().filter(|f| f.name == "counter").collect();
    let homes = counters.iter().map(|f| unit(f.unit).name.as_str()).collect::<Vec<_>>();
    assert!(homes.contains(&"a.c") && homes.contains(&"b.c"), "{homes:?}");

    let list = variable(info, "list");
    assert_eq!(info.types.display(list.ty), "struct node *");
    assert!(list.external && !list.is_const);
    assert!(variable(info, "table").is_const && variable(info, "names").is_const);
    let head = variable(info, "head");
    let Place::Address(start) = head.place else { panic!("{head:?}") };
    assert_eq!(head.ty.and_then(|ty| info.types.size(ty)), Some(40));
    assert_eq!(info.variable_at(start + 39).unwrap().name, "head");
    assert!(info.variable_at(start + 40).is_none_or(|v| v.name != "head"));
    assert_eq!(variable(info, "first").place, Place::Tls(0));
    let deep = variable(info, "deep");
    assert!(deep.is_local && deep.scope[0] == "counter", "{:?}", deep.scope);
    assert_eq!(info.variables.iter().filter(|v| v.name == "calls").count(), 2);
    check_bits(info);
}

fn check_bits(info: &DebugInfo) {
    let ty = info.types.resolved(variable(info, "bits").ty.unwrap()).unwrap();
    let ty = info.types.get(ty).unwrap();
    assert_eq!((ty.name.as_deref(), ty.named_by_typedef), (Some("packed_t"), true));
    let crate::debug::TypeKind::Aggregate { members, .. } = &ty.kind else { panic!("{ty:?}") };
    let places: Vec<_> = members.iter().map(|m| (m.bit_offset, m.bit_size)).collect();
    assert_eq!(places, [(0, Some(3)), (3, Some(5)), (8, Some(40)), (64, None)]);
}

/// What holds where nothing was inlined, cloned or left out.
fn check_signatures(info: &DebugInfo) {
    let of = |name: &str| function(info, name).parameters.unwrap();
    assert_eq!(of("ld"), Parameters { stack: 24, ..registers(1, 0, (0, 0, 1)) });
    assert_eq!(of("sm"), Parameters { stack: 56, ..registers(4, 2, (1, 1, 0)) });
    assert_eq!(of("bg"), Parameters { variadic: true, ..registers(2, 2, (1, 0, 0)) });
    assert_eq!(of("cd"), Parameters { stack: 56, ..registers(0, 3, (0, 2, 0)) });
}

#[test]
fn gcc_of_each_version_and_level() {
    for options in [
        &["-O2", "-gdwarf-5"][..],
        &["-O2", "-gdwarf-4"],
        &["-O2", "-gdwarf-3", "-gstrict-dwarf"],
        &["-O0"],
        &["-O3", "-gdwarf-4", "-fdebug-types-section"],
        &["-O2", "-fdebug-types-section"],
        &["-O2", "-gz=zlib"],
        &["-O2", "-gz=zlib-gnu"],
        &["-O2", "-no-pie"],
    ] {
        let info = compile("gcc", options, &[A, B]).info();
        // DW_AT_noreturn is of DWARF 5, and gcc leaves it out of strict DWARF 3.
        if !options.contains(&"-gstrict-dwarf") {
            check(&info);
        }
        check_signatures(&info);
        assert!(
            info.units.iter().all(|u| u.name.is_empty() || u.is_gcc && !u.lto),
            "{:?}",
            info.units
        );
    }
}

#[test]
fn clang_of_each_version() {
    let Some(clang) = clang() else { return };
    for options in [&["-O2"][..], &["-O2", "-gdwarf-4"], &["-O0", "-gdwarf-5"]] {
        let info = compile(clang, options, &[A, B]).info();
        check(&info);
        check_signatures(&info);
        assert!(info.units.iter().all(|unit| unit.is_clang && !unit.is_gcc));
    }
}

#[test]
fn link_time_optimization_keeps_source_units() {
    let info = compile("gcc", &["-O1", "-flto", "-fno-inline"], &[A, B]).info();
    check(&info);
    assert!(info.units.iter().all(|unit| unit.lto));
}

#[test]
fn discarded_functions_are_left_out() {
    let options = ["-O2", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"];
    let info = compile("gcc", &options, &[A, B]).info();
    check(&info);
    assert!(info.functions.iter().all(|f| f.name != "unused" && f.low_pc > 0x100));
}

#[test]
fn separate_and_compressed_files() {
    let built = compile("gcc", &["-O2"], &[A, B]);
    let whole = built.info();
    let image = built.objcopy(&["--strip-all"]);
    let debug = built.objcopy(&["--only-keep-debug"]);
    assert!(matches!(read(&image, None), Err(DebugError::Missing)));
    let apart = read(&image, Some(&debug)).unwrap();
    assert_eq!(apart.functions, whole.functions);
    assert_eq!(apart.variables, whole.variables);
    assert_eq!(apart.types, whole.types);
    assert_eq!(apart.lines, whole.lines);
    for how in ["zlib", "zlib-gnu", "zlib-gabi"] {
        let compressed = built.objcopy(&[&format!("--compress-debug-sections={how}")]);
        check(&read(&compressed, None).unwrap());
    }
}

#[test]
fn other_files_are_refused_by_name() {
    let built = compile("gcc", &["-O2", "-gsplit-dwarf"], &[B, "int main() { return 0; }"]);
    let error = read(&built.bytes(), None).unwrap_err().to_string();
    assert!(error.contains(".dwo") && error.contains("-gsplit-dwarf"), "{error}");

    let built = compile("gcc", &[], &["int main() { return 0; }"]);
    let link = built.directory.path().join("link");
    std::fs::write(&link, b"../common.debug\0 twenty bytes of id ").unwrap();
    let section = format!(".gnu_debugaltlink={}", link.display());
    let linked = built.objcopy(&["--add-section", &section]);
    let error = read(&linked, None).unwrap_err().to_string();
    assert!(error.contains("../common.debug") && error.contains("dwz"), "{error}");
}

#[test]
fn nothing_depends_on_the_build_directory() {
    let [one, two] = [(); 2].map(|()| compile("gcc", &["-O2"], &[A, B]));
    assert_ne!(one.directory.path(), two.directory.path());
    let (old, new) = (one.info(), two.info());
    let names = |info: &DebugInfo| info.units.iter().map(|u| u.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&old), names(&new));
    assert_eq!(old.functions, new.functions);
    assert_eq!(old.variables, new.variables);
    assert_eq!(old.types, new.types);
    assert_eq!(old.lines, new.lines);
    for name in ["a.c", "b.c"] {
        assert!(old.lines.files.iter().any(|file| file == name));
        assert!(exists(one.directory.path(), name));
    }
}

#[test]
fn prototypes_of_what_is_elsewhere() {
    let info = compile("gcc", &["-O2"], &[A, B]).info();
    assert_eq!(info.declarations["exit"], registers(1, 0, (0, 0, 0)));
    assert_eq!(info.declarations["other"], registers(1, 1, (1, 0, 0)));
}

#[test]
fn hot_and_cold_parts() {
    let source = r#"
        __attribute__((cold, noinline)) void rare(int n) { __asm__ volatile("" :: "r"(n)); }
        __attribute__((noinline)) int work(int n) {
            if (__builtin_expect(n > 100, 0)) { rare(n); rare(n * n); return n * 7; }
            return n + 1;
        }
        int main(int argc, char **argv) { return work(argc); }
    "#;
    let info = compile("gcc", &["-O2"], &[source]).info();
    let work = function(&info, "work");
    assert_eq!(work.ranges.len(), 2, "{work:?}");
    for range in &work.ranges {
        assert_eq!(info.function_at(range.start).unwrap().name, "work");
    }
    assert!(work.ranges.iter().any(|range| range.start == work.low_pc));
    assert!(work.low_pc > work.ranges[0].start, "the cold part comes first here: {work:?}");
}

#[test]
fn cpp_scopes() {
    let source = r#"
        namespace ns {
        namespace { int hidden = 3; }
        struct Base { virtual ~Base(); virtual int f(int) = 0; static int shared; int b; };
        int Base::shared = 7;
        Base::~Base() {}
        struct Root { long r; };
        template <class T> struct Derived : Base, virtual Root { T t; int f(int x) override; };
        template <class T> int Derived<T>::f(int x) { static int count; return count += x + hidden; }
        }
        ns::Derived<long> object;
        int main() { return object.f(3); }
    "#;
    for compiler in ["g++"].into_iter().chain(clang().map(|_| "clang++-14").filter(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    })) {
        let info = compile(compiler, &["-O1"], &[source]).info();
        let f = function(&info, "f");
        assert_eq!(f.scope[0], "ns");
        assert!(f.scope[1].starts_with("Derived<long"), "{:?}", f.scope);
        assert!(f.link_name().starts_with("_ZN2ns7DerivedIlE1fEi"), "{f:?}");
        assert_eq!(f.parameters.unwrap().integer, 2);
        let shared = variable(&info, "shared");
        assert_eq!(shared.scope, ["ns", "Base"]);
        assert_eq!(shared.linkage_name.as_deref(), Some("_ZN2ns4Base6sharedE"));
        assert!(shared.external);
        let count = variable(&info, "count");
        assert!(count.is_local && count.scope.iter().any(|s| s == f.link_name()), "{count:?}");
        let object = variable(&info, "object");
        assert_eq!(object.ty.and_then(|ty| info.types.size(ty)), Some(32));
    }
}

#[test]
fn declarations_find_their_definition() {
    let user = "struct hidden; extern struct hidden *get(void); struct hidden *kept;
        int main() { kept = get(); return 0; }";
    let owner = "struct hidden { int a; long b; }; static struct hidden one;
        struct hidden *get(void) { return &one; }";
    let info = compile("gcc", &["-O2"], &[user, owner]).info();
    let pointee = info.types.pointee(variable(&info, "kept").ty.unwrap()).unwrap();
    assert_eq!(info.types.size(pointee), Some(16));
}
