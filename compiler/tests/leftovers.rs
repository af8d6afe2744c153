//! What is left in slots that nothing was stored in, where code reads them without using what it reads: two builds
//! that do the same with it go together. And two that do not, which must stay refused.

mod assembled;

use assembled::{assembled, behind, reasons};
use dsu_patch_format::frames::{Location, Value};

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

/// A loop-free body: `first`, then a read of a slot, a call that both make, and what was read.
fn reading(first: &str, read: &str) -> String {
    framed(
        640,
        &format!(
            ".loc 1 510 1\n{first}\n.loc 1 520 1\nmov {read}, %ebx\n.loc 1 530 1\nmov %rdi, %r12\ncall quiet\n\
             .loc 1 540 1\nadd %r12, %rbx"
        ),
    )
}

/// FXSAVE writes 512 bytes, MOVDIR64B 64 where a register says (SDM volume 2).
#[test]
fn what_large_instructions_have_stored_is_not() {
    for first in ["fxsave (%rsp)", "fnsave (%rsp)", "movdir64b (%rdi), %rsp"] {
        let [old, new] = ["24(%rsp)", "28(%rsp)"].map(|read| reading(first, read));
        assert!(!is_carried(&old, &new), "{first}");
        assert!(!is_carried(&reading("nop", "24(%rsp)"), &new), "{first}");
        // What was stored before is not there any more.
        let before = format!("movl $5, 28(%rsp)\n{first}");
        let constant = reading("nop", "$5");
        assert!(!is_carried(&constant, &reading(&before, "28(%rsp)")), "{first}");
    }
}

/// Of a slot that a call's return address covers in part the other part is still there.
#[test]
fn what_is_above_the_stack_pointer_stays() {
    let first = "mov %rdi, %r12\nmov %rdi, -4(%rsp)\ncall hook";
    let [old, new] = [first, &format!("movl $0, 8(%rsp)\n{first}")]
        .map(|first| reading(first, "(%rsp)").replace("mov %rdi, %r12\ncall quiet", "call quiet"));
    let built = assembled(("long n", &old), ("long n", &new));
    let moves = behind(&built, 0).unwrap_or_else(|| panic!("{}", reasons(&built)));
    // Return address, two registers and the frame are above it.
    let there = Location::Slot { cfa: -664, bytes: 4 };
    let found = moves.iter().find(|m| m.to == there).map(|m| &m.from);
    assert_eq!(found, Some(&Value::At(there)), "{moves:?}");
}
