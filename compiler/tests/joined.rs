//! Where ways join: one build reads or stores something before that, on each way for itself, and the other
//! behind; one has a test more; what is behind a call that never comes back joins nothing.

mod assembled;

use assembled::{RBX, behind, edited, framed_pair, into, reasons};
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

/// With lines of NEW's alone in front of a store; the lines behind them are one further on.
fn bounded(added: &str, more: u32) -> String {
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\ntest %rax, %rax\njs 5f\n.loc 1 602 1\nmov $1, %edi\ncall \
         other\n{added}5:\n.loc 1 {} 1\nmov %rbx, area(%rip)\nmov $2, %edi\ncall quiet\n.loc 1 {} 1\nmov $3, %edi\ncall other\n",
        603 + more,
        605 + more
    )
}

#[test]
fn a_test_that_only_new_has_has_let_old_pass() {
    let test = ".loc 1 603 1\ncmp $100, %rbx\njle 5f\nmov $100, %rbx\n";
    stays(&edited(&bounded("", 0), &bounded(test, 1)), 2);
}

#[test]
fn what_only_new_does_whatever_comes_old_has_not_done() {
    let always = ".loc 1 603 1\nadd $100, %rbx\n";
    assert_eq!(behind(&edited(&bounded("", 0), &bounded(always, 1)), 2), None);
}

/// Behind a call of `die` is what another way uses in r12, which NEW uses before as well.
fn ended(used: &str, how: u32) -> String {
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\ntest %rax, %rax\njs 5f\n.loc 1 602 1\n{used}mov $2, %edi\ncall \
         other\n.loc 1 603 1\ntest %rax, %rax\njns 9f\n.loc 1 605 1\nmov ${how}, %edi\ncall die\n4:\n.loc 1 607 1\n\
         add %r12, %rbx\njmp 9f\n5:\n.loc 1 608 1\nmov limit(%rip), %r12\njmp 4b\n9:\n.loc 1 610 1\nmov $3, \
         %edi\ncall quiet"
    )
}

#[test]
fn behind_a_call_that_never_comes_back_nothing_is_read() {
    let used = "mov limit(%rip), %r12\nadd %r12, area(%rip)\n";
    stays(
        &framed_pair(&ended("mov limit(%rip), %rdi\nadd %rdi, area(%rip)\n", 0), &ended(used, 0)),
        1,
    );
    let built =
        framed_pair(&ended("mov limit(%rip), %rdi\nadd %rdi, area(%rip)\n", 1), &ended(used, 1));
    assert_eq!(behind(&built, 1), None, "it does come back with this number");
}

/// On two ways a result is found to be zero, or on one of them only; what is `kept` of it over a call is stored
/// behind.
fn emptied(tested: &str, kept: &str, stored: &str) -> String {
    format!(
        ".loc 1 600 1\ncall hook\ntest %rax, %rax\nje 3f\n.loc 1 605 1\nmov $1, %edi\ncall other\n{tested}3:\n\
         .loc 1 610 1\n{kept}mov $2, %edi\ncall other\n.loc 1 615 1\n{stored}xchg %rax, area(%rip)\n.loc 1 \
         620 1\nmov $3, %edi\ncall quiet\n9:\n.loc 1 640 1\nmov $4, %edi\ncall hook"
    )
}

#[test]
fn what_was_found_to_be_zero_on_every_way_is_stored_as_zero() {
    let (test, kept, again) =
        ("test %rax, %rax\njne 9f\n", "mov %rax, (%rsp)\n", "mov (%rsp), %rax\n");
    let pair = |test: &str, other: &str| {
        [emptied(test, kept, again), emptied(test, "", &format!("mov ${other}, %eax\n"))]
    };
    let [old, new] = pair(test, "0");
    for (old, new) in [(&old, &new), (&new, &old)] {
        let built = framed_pair(old, new);
        assert!(behind(&built, 3).is_some(), "{}", reasons(&built));
    }
    let wrong = [pair(test, "1"), pair("", "0"), pair(&format!("{test}mov %rdx, %rax\n"), "0")];
    for [old, new] in &wrong {
        assert_eq!(behind(&framed_pair(old, new), 3), None);
        assert_eq!(behind(&framed_pair(new, old), 3), None);
    }
}

/// Stores, from round to round, what was found to be zero before the first one or not, and goes around with a result
/// that is zero (`je`) or is not.
fn round(tested: &str, again: &str, stored: &str) -> String {
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n{tested}1:\n.loc 1 605 1\n{stored}\n.loc 1 610 1\nmov $2, \
         %edi\ncall quiet\n.loc 1 615 1\nmov $3, %edi\ncall other\nmov %rax, %rbx\ntest %rbx, %rbx\n{again} \
         1b\n9:\n.loc 1 640 1\nmov $4, %edi\ncall hook"
    )
}

#[test]
fn what_was_found_to_be_zero_in_one_round_is_not_so_in_the_next() {
    let test = "test %rbx, %rbx\njne 9f\n";
    for (tested, again, holds) in
        [(test, "je", true), (test, "jne", false), ("", "je", false), (test, "jmp", false)]
    {
        let [value, number] = ["mov %rbx, area(%rip)", "movq $0, area(%rip)"]
            .map(|stored| round(tested, again, stored));
        for (old, new) in [(&value, &number), (&number, &value)] {
            let built = framed_pair(old, new);
            assert_eq!(behind(&built, 1).is_some(), holds, "{tested}{again}: {}", reasons(&built));
        }
    }
}

/// What OLD's code reads no more is not there in a frame that an earlier update has carried to the point.
#[test]
fn what_old_reads_no_more_is_no_source() {
    let body = |kept: &str, used: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n{kept}\n.loc 1 610 1\nmov $1, %edi\ncall other\n.loc 1 611 \
             1\nmov {used}, area(%rip)\nmov $2, %edi\ncall quiet"
        )
    };
    let (copy, gone) = ("mov %rax, %r12", "mov %rax, %r12\nmov $0, %ebx");
    let from_rbx = Value::At(Location::General { number: RBX, bytes: 8 });
    // Both hold it; the one that is read again is taken.
    let moves = behind(&framed_pair(&body(copy, "%rbx"), &body(gone, "%r12")), 1);
    let moves = moves.unwrap_or_else(|| panic!("nothing at all"));
    assert_eq!(into(&moves, 12), Some(&from_rbx));
    // One alone does, and is not read.
    let built = framed_pair(&body(gone, "$7"), &body(gone, "%r12"));
    assert_eq!(behind(&built, 1), None);
}
