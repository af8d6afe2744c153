//! Behind which calls both builds have stored what the source has by then, although nothing shows that it is the same.

mod assembled;

use assembled::{AROUND, behind, framed_pair, pair, reasons};

/// Whether `f` goes on behind its call when both builds have stored different things in a variable before it.
fn is_carried(variable: &str, callee: &str) -> bool {
    let version = |number: u32| {
        format!(
            ".loc 1 510 1\nmovq ${number}, {variable}(%rip)\n.loc 1 520 1\ncall {callee}\n.loc 1 530 1\ncall hook\n\
             mov %rax, %rbx"
        )
    };
    let built = framed_pair(&version(1), &version(2));
    let is_carried = behind(&built, 0).is_some();
    assert!(is_carried || reasons(&built).contains("stored something"), "{}", reasons(&built));
    is_carried
}

#[test]
fn who_may_call_back_finds_all_variables_in_memory() {
    assert!(is_carried("shared", "hook"));
}

#[test]
fn who_only_reads_what_it_knows_need_not() {
    assert!(!is_carried("shared", "quiet"));
}

const LEAF: &str = r#"
#include <stdlib.h>
SCOPE long total;
KEEP void show(void) { other(total); }
long *where(void) { TAKEN }
KEEP long f(long n) {
    total = n;
    long got = CALL;
    REPORT;
    total = got;
    return got + hook(n);
}
int main(int argc, char **argv) { return f(argc) + table[argc] + (where() != 0); }
"#;

/// gcc knows of `random` that it calls nobody, and of a static variable that nobody else knows it: it leaves out a store
/// that another one follows before anybody looks.
#[test]
fn a_leaf_does_not_see_a_files_own_variables() {
    let version = |scope: &str, call: &str, report: &str| {
        let source = LEAF.replace("SCOPE", scope).replace("CALL", call).replace("REPORT", report);
        format!("{AROUND}{}", source.replace("TAKEN", "return 0;"))
    };
    let carried = |scope: &str, call: &str| {
        let built = pair(&version(scope, call, ""), &version(scope, call, "show()"), (&[], &[]));
        behind(&built, 0).is_some()
    };
    assert!(!carried("static", "random()"));
    // Others may look at it, or somebody who may call `show` does.
    assert!(carried("", "random()"));
    assert!(carried("static", "write(9, 0, 0)"));
}
