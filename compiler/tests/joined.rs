//! Where ways join: one build reads or stores something before that, on each way for itself, and the other
//! behind.

mod assembled;

use assembled::{RBX, behind, framed_pair, into, reasons};
use dsu_compiler::Built;
use dsu_patch_format::frames::{Location, Value};

fn stays(built: &Built, nth: usize) {
    let moves = behind(built, nth).unwrap_or_else(|| panic!("{}", reasons(built)));
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    assert_eq!(into(&moves, RBX), Some(&same));
}

/// Two ways, what each of them ends with, and what comes behind both.
fn two(ends: [&str; 2], joined: &str) -> String {
    let [one, other] = ends;
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %r12\ntest %rax, %rax\njs 2f\n.loc 1 605 1\n{one}\njmp 3f\n2:\n\
         .loc 1 606 1\n{other}\n3:\n.loc 1 610 1\n{joined}\ncall other\n.loc 1 620 1\ncall quiet"
    )
}

#[test]
fn what_is_read_before_ways_join_is_what_is_read_behind() {
    let read = "mov area(%rip), %rbx";
    let stores = ["movq $5, (%r12)", "movq $6, (%r12)"];
    let early = stores.map(|store| format!("{store}\n{read}"));
    let [old, new] = [two(stores, read), two([&early[0], &early[1]], "")];
    stays(&framed_pair(&old, &new), 1);
    stays(&framed_pair(&new, &old), 1);
    // What is made of it, too.
    let more = |body: &str| body.replace(read, "mov area(%rip), %ebx\nlea 8(%rbx,%rbx), %rbx");
    stays(&framed_pair(&more(&old), &more(&new)), 1);
}

#[test]
fn what_is_read_before_something_else_is_stored_there_is_not() {
    let read = "mov area(%rip), %rbx";
    let (store, through) = ("movq $5, (%r12)", "movq $6, (%r12)");
    let old = two([store, through], read);
    let early = [format!("{store}\n{read}"), format!("{read}\n{through}")];
    let new = two([&early[0], &early[1]], "");
    assert_eq!(behind(&framed_pair(&old, &new), 1), None);
    assert_eq!(behind(&framed_pair(&new, &old), 1), None);
    // Not from one address on both ways.
    let early = [format!("{store}\n{read}"), format!("{through}\nmov area+8(%rip), %rbx")];
    assert_eq!(behind(&framed_pair(&old, &two([&early[0], &early[1]], "")), 1), None);
}

/// Stores a number that each way has, behind both or on each way, and calls what looks at nothing.
fn stored(early: [&str; 2], late: &str) -> String {
    let ends = [format!("mov $5, %ebx\n{}", early[0]), format!("mov $6, %ebx\n{}", early[1])];
    two([&ends[0], &ends[1]], late).replace("call other", "call quiet")
}

#[test]
fn what_is_stored_before_ways_join_is_what_is_stored_behind() {
    let store = "mov %rbx, area(%rip)";
    let (old, new) = (stored([""; 2], store), stored([store; 2], ""));
    stays(&framed_pair(&old, &new), 1);
    stays(&framed_pair(&new, &old), 1);
}

#[test]
fn what_is_stored_on_one_way_only_is_not() {
    let (store, another) = ("mov %rbx, area(%rip)", "mov %r12, area(%rip)");
    let old = stored([""; 2], store);
    for early in [[store, ""], [store, another], ["", another]] {
        let new = stored(early, "");
        assert_eq!(behind(&framed_pair(&old, &new), 1), None);
        assert_eq!(behind(&framed_pair(&new, &old), 1), None);
    }
}
