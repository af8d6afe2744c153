//! Loops that the builds go through otherwise: counting with a number or a pointer, up or down, and to another end.

mod assembled;

use assembled::{R12, RBX, behind, framed_pair, into, reasons};
use dsu_compiler::Built;
use dsu_patch_format::frames::{Location, Value};

fn stays(built: &Built, nth: usize) {
    let moves = behind(built, nth).unwrap_or_else(|| panic!("{}", reasons(built)));
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    assert_eq!(into(&moves, RBX), Some(&same));
}

/// Eight elements of `area`, one after the other: `begin` makes r12, `test` asks whether that was the last one.
fn walk(begin: &str, test: &str) -> String {
    format!(
        ".loc 1 600 1\nlea area(%rip), %rbx\n{begin}\n1:\n.loc 1 601 1\nmov (%rbx), %rdi\ncall quiet\n\
         .loc 1 602 1\nadd $8, %rbx\n{test}\njne 1b\n"
    )
}

const END: [&str; 2] = ["lea 64(%rbx), %r12", "cmp %r12, %rbx"];
const UP: [&str; 2] = ["xor %r12d, %r12d", "add $1, %r12d\ncmp $8, %r12d"];
const DOWN: [&str; 2] = ["mov $8, %r12d", "sub $1, %r12d"];

#[test]
fn what_counts_with_a_number_is_what_counts_with_a_pointer() {
    for (old, new) in [(END, UP), (END, DOWN), (UP, END), (DOWN, END), (UP, DOWN), (DOWN, UP)] {
        let built = framed_pair(&walk(old[0], old[1]), &walk(new[0], new[1]));
        stays(&built, 0);
        let moves = behind(&built, 0).unwrap_or_default();
        assert!(into(&moves, R12).is_some(), "{old:?} to {new:?}");
    }
}

#[test]
fn where_old_may_be_past_the_end_of_new_s_loop_it_does_not_go_on() {
    // Compilers make `!=` of `<`: the seventh round of seven is not NEW's last if the eighth is begun.
    for (test, old) in [("cmp $7, %r12d", END), ("cmp $7, %r12d", UP), ("cmp $8, %rbx", UP)] {
        let new = UP[1].replace("cmp $8, %r12d", test);
        let built = framed_pair(&walk(old[0], old[1]), &walk(UP[0], &new));
        assert_eq!(behind(&built, 0), None, "{old:?} to {test}");
        assert!(reasons(&built).contains("OLD may be further on"), "{}", reasons(&built));
    }
    // Of a copy, or of what comes next.
    for test in [
        "mov %r12d, %eax\nadd $1, %r12d\ncmp $6, %eax",
        "lea 1(%r12), %eax\nadd $1, %r12d\ncmp $7, %eax",
    ] {
        let built = framed_pair(&walk(END[0], END[1]), &walk(UP[0], test));
        assert_eq!(behind(&built, 0), None, "{test}");
        assert!(reasons(&built).contains("OLD may be further on"), "{}", reasons(&built));
    }
    // By steps that miss it, down to nothing, in memory.
    let memory = ["movl $8, (%rsp)", "subl $1, (%rsp)"];
    let fewer = ["movl $7, (%rsp)", "subl $1, (%rsp)"];
    for (old, new) in [(DOWN, ["mov $16, %r12d", "sub $2, %r12d"]), (memory, fewer)] {
        let built = framed_pair(&walk(old[0], old[1]), &walk(new[0], new[1]));
        let same = old == DOWN;
        assert_eq!(behind(&built, 0).is_some(), same, "{}", reasons(&built));
    }
}

#[test]
fn a_loop_that_ends_beyond_a_number_may_be_entered_past_it() {
    // What `walk` asks at the end never sends it back.
    let to = |limit: u32| {
        let test = format!(
            "add $1, %r12d\ncmp ${limit}, %r12d\njb 1b\ntest %rbx, %rbx\nje 9f\n9:\ncmp %eax, %eax"
        );
        walk(UP[0], &test)
    };
    stays(&framed_pair(&to(8), &to(7)), 0);
}
