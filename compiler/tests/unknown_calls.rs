//! What calls of unknown prototype may be given, and what they are not.
//!
//! The static chain (r10, psABI 3.2.3) is an argument of nested functions alone: neither a function that is none has
//! one at its entry, nor does one of another image take one. And what is pushed to align the stack looks like an
//! argument.

mod assembled;

use assembled::{carried, framed, into, pair, program};
use dsu_patch_format::frames::{Location, Value};
use dsu_patch_format::plan::SiteKind;

const R10: u8 = 10;

/// What goes into r10 at the head of a loop, behind which there is a call of which no prototype is known; `None`:
/// frames do not go on there.
fn chain(before: &str, call: &str) -> Option<Option<Value>> {
    let clone = "__asm__(\".pushsection .text\\n.type clone.isra.0, @function\\nclone.isra.0:\\nret\\n\
                 .size clone.isra.0, .-clone.isra.0\\n.popsection\");\nint main";
    let version = |round: &str| {
        let body = format!(
            ".loc 1 600 1\nmov %rdi, %rbx\n{before}\n1:\n.loc 1 605 1\n{round}\njnz 1b\n.loc 1 610 1\n\
             {call}\n.loc 1 620 1\ncall quiet"
        );
        program("long n", &framed(&body)).replacen("int main", clone, 1)
    };
    let built = pair(&version("sub $1, %rbx"), &version("dec %rbx"), (&[], &[]));
    let head = carried(&built).proven.iter().find(|p| p.kind == SiteKind::Loop)?;
    Some(into(&head.translation.moves, R10).cloned())
}

#[test]
fn a_function_with_a_prototype_has_none_to_pass_on() {
    for call in ["call clone.isra.0", "call getpid@plt", "mov use(%rip), %rax\ncall *%rax"] {
        assert_eq!(chain("", call), Some(None), "{call}");
    }
}

#[test]
fn what_is_put_there_for_a_clone_goes_through() {
    let same = Value::At(Location::General { number: R10, bytes: 8 });
    assert_eq!(chain("mov %rdi, %r10", "call clone.isra.0"), Some(Some(same)));
    assert_eq!(chain("mov %rdi, %r10", "call getpid@plt"), Some(None));
}

/// What goes to CFA-16 at the head of a loop behind a push, in front of a call that may take arguments there.
fn pushed(register: &str) -> Option<Value> {
    let version = |push: &str, pop: &str| {
        let body = format!(
            ".loc 1 600 1\n{push}\n.cfi_adjust_cfa_offset 8\n1:\n.loc 1 605 1\nsubq $1, area(%rip)\njnz 1b\n\
             .loc 1 610 1\ncall getpid@plt\n.loc 1 900 1\n{pop}\n.cfi_adjust_cfa_offset -8\nret"
        );
        program("long n", &body)
    };
    let old = version("sub $8, %rsp", "add $8, %rsp");
    let new = version(&format!("push %{register}"), "pop %rcx");
    let built = pair(&old, &new, (&[], &[]));
    let head = carried(&built).proven.iter().find(|p| p.kind == SiteKind::Loop)?;
    let moves = &head.translation.moves;
    let slot = Location::Slot { cfa: -16, bytes: 8 };
    moves.iter().find(|m| m.to == slot).map(|m| m.from.clone())
}

#[test]
fn what_is_pushed_to_align_the_stack_is_nothing() {
    assert_eq!(pushed("rax"), Some(Value::Constant(0)));
    // An argument of the function's own is something.
    let own = Value::At(Location::General { number: 7, bytes: 8 });
    assert_eq!(pushed("rdi"), Some(own));
}
