//! Changed layouts are found, named by where they differ, and nothing else is.

use super::*;
use crate::debug::{ChangeCause, Layout, TypeChange, changed_types, compare_variable};

/// Compiles a declaration of `object` before and after, and compares it.
fn compare(old: &str, new: &str) -> (Layout, Vec<String>) {
    let build = |source: &str| {
        let source = format!("{source}\nint main() {{ return *(volatile char *)&object; }}\n");
        compile("gcc", &["-O1"], &[&source]).info()
    };
    let (old, new) = (build(old), build(new));
    let ty = |info: &DebugInfo| variable(info, "object").ty.unwrap();
    let layout = compare_variable("object", &old, ty(&old), &new, ty(&new));
    let text = layout.differences().iter().map(ToString::to_string).collect();
    (layout, text)
}

#[track_caller]
fn changed(old: &str, new: &str, expected: &[&str]) {
    let (layout, text) = compare(old, new);
    assert!(layout.is_changed(), "{layout:?}");
    assert_eq!(text, expected);
}

#[track_caller]
fn noted(old: &str, new: &str, expected: &[&str]) {
    let (layout, text) = compare(old, new);
    assert!(!layout.is_changed(), "{layout:?}");
    assert_eq!(text, expected);
}

#[test]
fn scalars() {
    noted("unsigned object;", "int object;", &[]);
    noted("char *object;", "struct x *object;", &[]);
    changed("int object;", "long object;", &["object: resized from 4 to 8 bytes"]);
    changed("int object;", "float object;", &["object: type changed from int to float"]);
    changed("long object;", "void *object;", &["object: type changed from long int to void *"]);
    changed("int object;", "int object[1];", &["object: type changed from int to int[1]"]);
}

#[test]
fn arrays() {
    changed(
        "int object[2][3];",
        "int object[2][4];",
        &["object: array length changed from [2, 3] to [2, 4]"],
    );
    changed("short object[5];", "int object[5];", &["object[]: resized from 2 to 4 bytes"]);
}

#[test]
fn members() {
    changed(
        "struct s { int a; long b; char c; } object;",
        "struct s { int a; int n; int m; long b; char c; } object;",
        &[
            "object: resized from 24 to 32 bytes",
            "object.b: moved from offset 8 to 16",
            "object.c: moved from offset 16 to 24",
            "object.n: added (int)",
            "object.m: added (int)",
        ],
    );
    changed(
        "struct s { int a; long b; } object;",
        "struct s { int a; int hole; long b; } object;",
        &["object.hole: added (int)"],
    );
    noted(
        "struct s { int a; long b; } object;",
        "typedef struct { unsigned a; long better; } t; t object;",
        &["object.b: renamed to better"],
    );
    changed(
        "struct s { int a : 3, b : 5; } object;",
        "struct s { int a : 4, b : 4; } object;",
        &[
            "object.a: bit-field of 3 bits now of 4",
            "object.b: moved from offset 0 bit 3 to 0 bit 4",
            "object.b: bit-field of 5 bits now of 4",
        ],
    );
}

#[test]
fn nested_members_have_a_path() {
    changed(
        "struct in { int f; int flags; }; struct s { struct in clients[3]; } object;",
        "struct in { int f; long flags; }; struct s { struct in clients[3]; } object;",
        &[
            "object: resized from 24 to 48 bytes",
            "object.clients[]: resized from 8 to 16 bytes",
            "object.clients[].flags: moved from offset 4 to 8",
            "object.clients[].flags: resized from 4 to 8 bytes",
        ],
    );
    // Anonymous members are no part of the path.
    changed(
        "struct s { int k; union { int a; struct { char x, y; }; }; } object;",
        "struct s { int k; union { int a; struct { char y, x; }; }; } object;",
        &["object.x: moved from offset 0 to 1", "object.y: moved from offset 1 to 0"],
    );
}

#[test]
fn unions_and_enums() {
    noted(
        "union u { int a; long b; } object;",
        "union u { int a; long b; char c[8]; } object;",
        &["object.c: added (char[8])"],
    );
    changed(
        "union u { int a; long b; } object;",
        "union u { int a; long b; char c[16]; } object;",
        &["object: resized from 8 to 16 bytes", "object.c: added (char[16])"],
    );
    noted(
        "enum e { A, B, C, D } object = C;",
        "enum e { A, B, X, C } object = C;",
        &["object: value of C changed from 2 to 3", "object: value of D changed from 3 to gone"],
    );
}

#[test]
fn pointers_are_not_followed_and_recursion_ends() {
    noted(
        "struct n { struct n *next; struct m { struct n *up; } *m; int v; } object;",
        "struct n { struct n *next; struct m { struct n *up; int w; } *m; int v; } object;",
        &[],
    );
    noted(
        "struct f { int n; int rest[]; } object;",
        "struct f { int n; int rest[0]; } object;",
        &[],
    );
}

fn changes(old: &[&str], new: &[&str]) -> Vec<TypeChange> {
    let build = |sources: &[&str]| compile("gcc", &["-O1"], sources).info();
    changed_types(&build(old), &build(new))
}

const MAIN: &str = "
    #include <stdlib.h>
    struct inner { int a; EXTRA };
    struct outer { long k; struct inner in; };
    struct apart { int z; };
    struct apart only; struct inner table[2];
    struct outer *make(void) { struct outer *o = malloc(sizeof *o); o->in.a = 1; return o; }
    int main() { return make()->k + only.z + table[1].a; }";

#[test]
fn changed_types_name_the_innermost() {
    let old = MAIN.replace("EXTRA", "");
    let new = MAIN.replace("EXTRA", "long more;").replace("int z;", "int y; int z;");
    assert_eq!(changes(&[&old], &[&old]), []);
    let found = changes(&[&old], &[&new]);
    let names: Vec<_> = found.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(names, ["apart", "inner", "outer"]);
    let [apart, inner, outer] = &found[..] else { panic!("{found:?}") };
    assert!(!apart.reached_by_pointer, "a static variable alone has it");
    assert_eq!(apart.users, ["only"]);
    assert_eq!(inner.cause, ChangeCause::Own);
    assert!(inner.reached_by_pointer, "held by what make() allocates");
    assert_eq!((inner.old_size, inner.new_size), (Some(4), Some(16)));
    assert_eq!(outer.cause, ChangeCause::Contains(vec!["inner".to_owned()]));
    assert_eq!(outer.users, ["make"]);
}

#[test]
fn a_name_may_have_several_layouts() {
    let main =
        "struct node { int a; }; struct node *m; int f(void); int main() { return f() + m->a; }";
    let with = |members: &str| {
        format!("struct node {{ {members} }}; struct node *n; int f(void) {{ return n->b; }}")
    };
    let (one, two, three) = (with("int b;"), with("long b;"), with("int a; int b;"));
    assert_eq!(changes(&[main, &one], &[main, &one]), []);
    // Also when the units come in another order.
    assert_eq!(changes(&[main, &two], &[main, &two]), []);
    let found = changes(&[main, &two], &[main, &three]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].old_size, found[0].new_size), (Some(8), Some(8)));
    // The unit's type becomes what another unit has already.
    let same = "struct node { int a; }; struct node *n; int f(void) { return n->a; }";
    let found = changes(&[main, &two], &[main, same]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].old_size, found[0].new_size), (Some(8), Some(4)));
}

#[test]
fn anonymous_pointees_have_a_name() {
    let source = |members: &str| {
        format!("typedef struct {{ {members} }} *handle; handle h; int main() {{ return h != 0; }}")
    };
    let found = changes(&[&source("int a;")], &[&source("int a, b;")]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].name, "<pointee of handle>");
    assert!(found[0].reached_by_pointer);
}

#[test]
fn compilers_agree() {
    let Some(clang) = clang() else { return };
    let source =
        MAIN.replace("EXTRA", "unsigned b : 3; union { float f; char c[3]; }; enum { X } e;");
    let old = compile("gcc", &["-O1", "-gdwarf-4"], &[&source]).info();
    let new = compile(clang, &["-O1", "-gdwarf-5"], &[&source]).info();
    assert_eq!(changed_types(&old, &new), []);
}
