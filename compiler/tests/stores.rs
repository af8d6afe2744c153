//! When both builds have stored the same: in another order, in other pieces, by one instruction that no other
//! thread comes between. And when they have not, which must stay refused.

mod assembled;

use assembled::{RBX, behind, framed_pair, into, reasons};
use dsu_patch_format::frames::{Location, Value};

/// Two pointers, what is done with them, and a call that is given none of it.
fn storing(before: &str, after: &str) -> String {
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\nmov shared(%rip), %r12\n{before}\n.loc 1 610 1\ncall \
         quiet\n{after}"
    )
}

/// Whether the frame is carried over behind that call; in both directions, as it must be.
fn is_carried(old: &str, new: &str) -> bool {
    let [there, back] = [(old, new), (new, old)].map(|(a, b)| {
        let built = framed_pair(a, b);
        (behind(&built, 1).is_some(), reasons(&built))
    });
    assert_eq!(there.0, back.0, "{} {}", there.1, back.1);
    there.0
}

const FIRST: &str = ".loc 1 605 1\nmovq $1, (%rbx)\n";
const SECOND: &str = ".loc 1 606 1\nmovq $2, (%r12)\n";

#[test]
fn stores_may_change_places() {
    let both = storing(&format!("{FIRST}{SECOND}"), "");
    assert!(is_carried(&both, &storing(&format!("{SECOND}{FIRST}"), "")));
    // One of them is still to come.
    assert!(!is_carried(&both, &storing(FIRST, SECOND)));
    assert!(!is_carried(&both, &storing(SECOND, FIRST)));
}

#[test]
fn a_place_may_be_read_again_behind_a_store_to_another_one() {
    let once = ".loc 1 605 1\nmov (%r12), %rcx\nmovq $0, (%rbx)\n.loc 1 606 1\nmov %rcx, 8(%rbx)\n";
    let again = ".loc 1 605 1\nmov (%r12), %rcx\nmovq $0, (%rbx)\n.loc 1 606 1\nmov (%r12), %rdx\nmov %rdx, \
                 8(%rbx)\n";
    assert!(is_carried(&storing(once, ""), &storing(again, "")));
    // That and one more is something else.
    let more = again.replace("mov %rdx", "inc %rdx\nmov %rdx");
    assert!(!is_carried(&storing(once, ""), &storing(&more, "")));
}

#[test]
fn stores_may_be_put_together() {
    let whole = ".loc 1 605 1\nmovw $0x2e2d, (%rbx)\n";
    let (one, other) =
        (".loc 1 605 1\nmovb $0x2d, (%rbx)\n", ".loc 1 606 1\nmovb $0x2e, 1(%rbx)\n");
    assert!(is_carried(&storing(whole, ""), &storing(&format!("{one}{other}"), "")));
    assert!(!is_carried(&storing(whole, ""), &storing(one, other)));
}

#[test]
fn what_no_thread_comes_between_is_done_once() {
    let add = ".loc 1 605 1\nmov $3, %ecx\nlock xadd %rcx, (%r12)\nmov %rcx, %rbx\n";
    let other = ".loc 1 605 1\nmov $3, %edx\nlock xadd %rdx, (%r12)\nmov %rdx, %rbx\n";
    let built = framed_pair(&storing(add, "add $1, %rbx"), &storing(other, "add $1, %rbx"));
    let moves = behind(&built, 1).unwrap_or_else(|| panic!("{}", reasons(&built)));
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    assert_eq!(into(&moves, RBX), Some(&same));
    // It is still to come.
    assert!(!is_carried(&storing(add, ""), &storing("", add)));
    // What was read before it is not what it has found there: others may have written in between.
    let read = ".loc 1 604 1\nmov (%r12), %rbx\n.loc 1 605 1\nmov $3, %edx\nlock xadd %rdx, (%r12)\nxor %edx, %edx\n";
    assert!(!is_carried(&storing(add, "add $1, %rbx"), &storing(read, "add $1, %rbx")));
    // What is known to be zero is compared with as such.
    let exchange = |zero: &str| {
        storing(
            &format!(
                ".loc 1 605 1\nmov (%r12), %rcx\ntest %rcx, %rcx\njne 3f\n.loc 1 606 1\n{zero}\nmov $1, \
                 %edx\nlock cmpxchg %rdx, (%r12)\n3:\n"
            ),
            "",
        )
    };
    assert!(is_carried(&exchange("mov %rcx, %rax"), &exchange("xor %eax, %eax")));
}
