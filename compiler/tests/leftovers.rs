//! What is left in slots that nothing was stored in, where code reads them without using what it reads: two builds
//! that do the same with it go together. And two that do not, which must stay refused.

mod assembled;

use assembled::{assembled, behind, reasons};

/// A frame with `rbx`, `r12` and so many bytes.
fn framed(bytes: u32, body: &str) -> String {
    format!(
        ".loc 1 500 1\npush %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset 3, 0\npush %r12\n\
         .cfi_adjust_cfa_offset 8\n.cfi_rel_offset 12, 0\nsub ${bytes}, %rsp\n.cfi_adjust_cfa_offset {bytes}\n\
         {body}\n.loc 1 900 1\nmov %rbx, %rax\nadd ${bytes}, %rsp\n.cfi_adjust_cfa_offset -{bytes}\npop %r12\n\
         .cfi_adjust_cfa_offset -8\npop %rbx\n.cfi_adjust_cfa_offset -8\nret"
    )
}

/// A loop that stores what `slot` has had since the round before, from its second round on, and knows that by rbx.
fn keeping(slot: &str, before: &str, read: &str) -> String {
    format!(
        ".loc 1 510 1\n{before}\nmov %rdi, %r12\nxor %ebx, %ebx\n1: .loc 1 520 1\ntest %ebx, %ebx\nje 2f\n\
         .loc 1 530 1\nmov {read}, %rdx\nmov %rdx, shared(%rip)\n2: .loc 1 540 1\nmov %r12, %rdi\ncall quiet\n\
         .loc 1 550 1\nmov %rax, {slot}\nmov $1, %ebx\ndec %r12\njne 1b"
    )
}

/// Whether the frame is carried over behind the call in that loop, in both directions.
fn is_carried(old: &str, new: &str) -> bool {
    let [there, back] = [(old, new), (new, old)].map(|(a, b)| {
        let built = assembled(("long n", a), ("long n", b));
        (behind(&built, 0).is_some(), reasons(&built))
    });
    assert_eq!(there.0, back.0, "{}\n{}", there.1, back.1);
    there.0
}

#[test]
fn what_nobody_uses_is_the_same_wherever_it_lies() {
    let old = framed(24, &keeping("(%rsp)", "nop", "(%rsp)"));
    for slot in ["(%rsp)", "8(%rsp)", "16(%rsp)"] {
        let new = framed(40, &keeping(slot, "nop", slot));
        assert!(is_carried(&old, &new), "{slot}");
    }
}

#[test]
fn what_was_stored_is_not() {
    let old = framed(24, &keeping("(%rsp)", "nop", "(%rsp)"));
    // It is the first time.
    let stored = "movq $5, 8(%rsp)";
    assert!(!is_carried(&old, &framed(40, &keeping("(%rsp)", stored, "8(%rsp)"))));
    // It is the last time that it is stored.
    let other = keeping("(%rsp)", "nop", "(%rsp)").replace("mov %rax, (%rsp)", "mov %r12, (%rsp)");
    assert!(!is_carried(&old, &framed(40, &other)));
}
