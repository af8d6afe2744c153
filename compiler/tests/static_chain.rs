//! The static chain (r10, psABI 3.2.3) is an argument of nested functions alone: neither a function that is none has
//! one at its entry, nor does one of another image take one.

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
