//! What NEW holds where OLD has come on a way that NEW does not have: a check that is gone from the source.
//!
//! OLD goes past what NEW always does. Both are at one place again where the source has only one of its kind;
//! what NEW may have done until then it has done, or not.

mod assembled;

use assembled::{RBX, behind, carried, framed_pair, into, reasons};
use dsu_compiler::Built;
use dsu_patch_format::frames::{Location, Value};
use dsu_patch_format::plan::SiteKind;

/// Whether NEW's `rbx` is OLD's behind the nth call.
fn carries(built: &Built, nth: usize) -> bool {
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    behind(built, nth).as_deref().and_then(|moves| into(moves, RBX)) == Some(&same)
}

/// A loop around a call whose line is the first one before it, too; its body puts `rbx` aside and has it back as
/// said. `check` may begin it anew.
fn looping(check: &str, back: &str) -> String {
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 605 1\nlea shared(%rip), %r12\njmp 1f\n1:\n.loc 1 605 \
         1\nmov %r12, %rdi\ncall other\n.loc 1 606 1\ntest %rax, %rax\nje 9f\n{check}\n.loc 1 608 1\nmov \
         %rbx, (%rsp)\nmov %rax, %rbx\n.loc 1 609 1\nmov %rbx, %rdi\ncall quiet\n.loc 1 610 1\n{back}\njmp \
         1b\n9:\n.loc 1 620 1\nmov %rbx, %rdi\ncall quiet"
    )
}

#[test]
fn what_every_way_of_new_saves_and_restores_is_as_it_was() {
    let check = ".loc 1 607 1\ncmp $5, %rax\nje 1b";
    let pair = |back: &str| framed_pair(&looping(check, back), &looping("", back));
    let built = pair("mov (%rsp), %rbx");
    assert!(carries(&built, 1), "{}", reasons(&built));
    for back in [
        // It is not what was put aside.
        "mov $5, %ebx",
        // The callee's result.
        "mov %rax, %rbx",
        // On one way it is something else.
        "mov (%rsp), %rbx\ntest %rax, %rax\njs 3f\nadd $1, %rbx\n3:",
        // Something else was put there in the meantime.
        "mov %rax, (%rsp)\nmov (%rsp), %rbx",
    ] {
        assert!(!carries(&pair(back), 1), "{back}");
    }
}

/// Two checks that only OLD has, one behind the other, the second before NEW is found again; and what they
/// guard.
fn checked(checks: [&str; 2], guarded: &str) -> String {
    let rest: String =
        (620..630).map(|n| format!(".loc 1 {n} 1\nmov ${n}, %edi\ncall hook\n")).collect();
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 602 1\ntest %rax, %rax\njs 7f\n.loc 1 612 1\nmov $4, %r12d\n{}\n.loc 1 607 1\nmov $2, \
         %edi\nimul $9, %edi, %esi\nlea 7(%rsi,%rdi,2), %rdi\n{guarded}\ncall other\n.loc 1 608 1\nmov $6, %edi\ncall other\n4:\n.loc 1 612 1\nmov %r12, \
         %rdi\naddq $1, shared(%rip)\ntest %rdi, %rdi\njs 7f\n{}\n.loc 1 614 1\nmov $3, %edi\nimul $5, %edi, %esi\nlea 3(%rsi,%rdi,2), \
         %rdi\ncall other\n.loc 1 615 1\nmov $8, %edi\ncall other\n6:\n{rest}.loc 1 640 1\nmov %rbx, %rdi\ncall quiet\njmp 9f\n7:\n.loc 1 650 1\nmov \
         $9, %edi\ncall quiet\n9:",
        checks[0], checks[1]
    )
}

#[test]
fn a_second_check_that_is_gone_does_not_lose_new() {
    let first = ".loc 1 605 1\nxor %eax, %eax\ncall several\ntest %eax, %eax\njne 4f";
    let second = ".loc 1 613 1\ncmpq $5, limit(%rip)\nje 6f";
    let pair = |guarded: &str| {
        framed_pair(&checked([first, second], guarded), &checked(["", ""], guarded))
    };
    // Behind the second of the calls of the rest.
    let last = |built: &Built| {
        let all = carried(built);
        let returns = all.proven.iter().filter(|p| p.kind == SiteKind::Return).count();
        let blind = all.blind.iter().filter(|b| b.kind == SiteKind::Return).count();
        returns + blind - 3
    };
    let built = pair("");
    assert!(carries(&built, last(&built)), "{}", reasons(&built));
    // NEW has another number then, unless OLD has gone past it.
    let built = pair("mov $5, %ebx");
    assert!(!carries(&built, last(&built)));
}

/// A loop of calls that look at no memory, behind a check that only OLD has.
fn behind_a_check(check: &str, guarded: &str, later: &str) -> String {
    let rest: String =
        (620..630).map(|n| format!(".loc 1 {n} 1\nmov ${n}, %edi\ncall hook\n")).collect();
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 602 1\ntest %rax, \
         %rax\njs 7f\n{check}\n{guarded}\n4:\n.loc 1 609 1\nxor %edx, %edx\n.loc 1 610 1\n1:\nmov %rbx, \
         %rdi\ncall quiet\n.loc 1 611 1\ntest %rax, %rax\njne 1b\n{later}\n{rest}7:"
    )
}

#[test]
fn memory_is_as_old_leaves_it_where_nothing_was_put_off() {
    let has_loop = |built: &Built| carried(built).proven.iter().any(|p| p.kind == SiteKind::Loop);
    let check = ".loc 1 605 1\nmov $1, %edi\nxor %eax, %eax\ncall several\ntest %eax, %eax\njne 4f";
    let call = ".loc 1 606 1\nmov $4, %edi\ncall quiet\n.loc 1 607 1\nmov $2, %edi\ncall other";
    let store = ".loc 1 608 1\nmovq $7, shared(%rip)";
    let quiet = ".loc 1 606 1\nmov $4, %edi\ncall quiet\n.loc 1 607 1\nmov $2, %edi\ncall quiet";
    let [stored, store_first] = [format!("{call}\n{store}"), format!("{store}\n{call}")];
    for guarded in [call, &store_first] {
        let built =
            framed_pair(&behind_a_check(check, guarded, ""), &behind_a_check("", guarded, ""));
        assert!(has_loop(&built), "{guarded}: {}", reasons(&built));
    }
    let [quiet_first, on_one_way] =
        [format!("{store}\n{quiet}"), format!("{call}\ntest %rax, %rax\njs 4f\n{store}")];
    let stores = check.replace("test %eax", "movq $3, shared(%rip)\ntest %eax");
    let checked_later = format!("{store}\n{check}");
    let silent = ".loc 1 605 1\ncmpq $5, limit(%rip)\nje 4f";
    for (check, [old, new], [old_later, new_later]) in [
        // NEW stores last, or before a call that need not see it.
        (check, [&*stored, &*stored], ["", ""]),
        (check, [&quiet_first, &quiet_first], ["", ""]),
        // On one way only.
        (check, [&on_one_way, &on_one_way], ["", ""]),
        // OLD has stored since.
        (&stores, [call, call], ["", ""]),
        // NEW has put off what OLD has stored before.
        (&checked_later, [quiet, quiet], ["", store]),
        // OLD has put off what NEW has stored.
        (silent, [&store_first, &store_first], [store, ""]),
    ] {
        let old = behind_a_check(check, old, old_later);
        let built = framed_pair(&old, &behind_a_check("", new, new_later));
        assert!(!has_loop(&built), "{old}");
    }
}
