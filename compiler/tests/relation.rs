//! What the simulation relation must not claim: each unsound rule that was tried, as a pair of small
//! functions in which it would carry a wrong value (DESIGN section 5).

mod assembled;

use assembled::{
    AROUND, R12, RBX, assembled, behind, carried, edited, framed, framed_pair, into, pair, program,
    reasons,
};
use dsu_compiler::Built;
use dsu_patch_format::frames::{Location, Move, Value};
use dsu_patch_format::plan::SiteKind;

#[test]
fn what_both_do_alike_is_carried() {
    let body = |more: &str| {
        format!(".loc 1 600 1\ncall hook\nmov %rax, %rbx\n{more}\n.loc 1 610 1\ncall other")
    };
    let built = framed_pair(&body(""), &body("xor %edx, %edx"));
    let moves = behind(&built, 1).unwrap_or_else(|| panic!("{}", reasons(&built)));
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    assert_eq!(into(&moves, RBX), Some(&same));
}

#[test]
fn a_loop_unrolled_in_old_is_not_run_once() {
    let copy = ".loc 1 600 1\nmov $5, %edi\ncall quiet\n.loc 1 601 1\nadd %rax, shared(%rip)\n";
    let old = format!("{copy}{copy}.loc 1 610 1\nmov $2, %ebx\ncall other");
    let new = format!(
        "xor %ebx, %ebx\n1:\n{copy}.loc 1 602 1\nadd $1, %rbx\ncmp limit(%rip), %rbx\njb 1b\n.loc 1 \
         610 1\ncall other"
    );
    let built = framed_pair(&old, &new);
    assert_eq!(behind(&built, 2), None, "NEW has passed the loop more than once");
    let back = framed_pair(&new, &old);
    let number = behind(&back, 1).and_then(|moves| into(&moves, RBX).cloned());
    assert!(matches!(number, None | Some(Value::Constant(2) | Value::At(_))), "{number:?}");
}

/// The same where NEW counts in a byte of what else is in its register.
#[test]
fn a_byte_of_a_loop_unrolled_in_old_is_not_counted_once() {
    let copy = ".loc 1 600 1\nmov $5, %edi\ncall quiet\n.loc 1 601 1\nadd %rax, shared(%rip)\n";
    let end = ".loc 1 610 1\ncall other\nmovzbl %bl, %ebx";
    let old = format!("{copy}{copy}.loc 1 605 1\nmov $2, %ebx\n{end}");
    let new = format!(
        "mov limit(%rip), %rbx\nmov $0, %bl\n1:\n{copy}.loc 1 602 1\nadd $1, %bl\ncmp limit(%rip), %bl\njb \
         1b\n{end}"
    );
    let built = framed_pair(&old, &new);
    assert_eq!(behind(&built, 2), None, "NEW has passed the loop more than once");
}

/// A way that ends with a call of `die` before the code of another way, and puts a number of its own into
/// the register that the other way keeps a value in.
fn dying(number: &str, argument: &str) -> String {
    format!(
        ".loc 1 600 1\nmov %rdi, %rbx\ncall hook\ntest %rax, %rax\njns 2f\n.loc 1 605 1\nmov ${number}, \
         %ebx\nmov ${argument}, %edi\ncall die\n2:\n.loc 1 610 1\ncall other\n.loc 1 620 1\ncall quiet"
    )
}

#[test]
fn nobody_comes_from_a_call_that_never_comes_back() {
    let built = framed_pair(&dying("5", "0"), &dying("6", "0"));
    let moves = behind(&built, 2).unwrap_or_else(|| panic!("{}", reasons(&built)));
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    assert_eq!(into(&moves, RBX), Some(&same));
    assert!(carried(&built).dead_returns.is_empty(), "who is replaced may come back some day");
}

#[test]
fn who_comes_back_with_other_numbers_does_come_back() {
    let built = framed_pair(&dying("5", "1"), &dying("6", "1"));
    assert_eq!(behind(&built, 2), None);
    // Only the low half of it is zero.
    let wide = |number| {
        let body = dying(number, "0x100000000").replace("mov $0x1", "movabs $0x1");
        body.replace("0000, %edi", "0000, %rdi").replace("call die", "call die_wide")
    };
    let built = framed_pair(&wide("5"), &wide("6"));
    assert_eq!(behind(&built, 2), None);
    // It is told by somebody else.
    let told = |number| dying(number, "0").replace("mov $0, %edi", "mov limit(%rip), %edi");
    let built = framed_pair(&told("5"), &told("6"));
    assert_eq!(behind(&built, 2), None);
}

/// Compilers align what follows a call when others jump there.
#[test]
fn padding_behind_a_call_is_no_way_apart() {
    let body = |more: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\ntest %rax, %rax\njs 2f\n.loc 1 610 1\ncall other\n\
             .p2align 5\n2:\n.loc 1 620 1\nadd $1, %rbx\n{more}\ncall quiet"
        )
    };
    let built = framed_pair(&body(""), &body("xor %edx, %edx"));
    assert!(behind(&built, 1).is_some(), "{}", reasons(&built));
}

/// Only functions without a prototype of their own may want the frame that they are nested in.
#[test]
fn a_variadic_callee_has_no_static_chain() {
    let body = |more: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\nmov limit(%rip), %r10\n.loc 1 610 1\ncall quiet\n\
             .loc 1 620 1\n{more}\nmov %rbx, %rdi\nxor %eax, %eax\ncall several"
        )
    };
    let built = framed_pair(&body(""), &body("xor %edx, %edx"));
    assert!(behind(&built, 1).is_some(), "{}", reasons(&built));
}

/// OLD has a copy of the loop's head at the loop's end, where NEW goes through the only one.
#[test]
fn a_head_that_old_has_twice_is_gone_through() {
    let body = |again: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\nxor %r12d, %r12d\n1:\n.loc 1 610 1\ncmp limit(%rip), \
             %r12\njae 3f\n2:\n.loc 1 620 1\nmov %r12, %rdi\ncall quiet\ntest %rax, %rax\njne 1b\n.loc 1 630 \
             1\nadd $1, %r12\n{again}\n3:\n.loc 1 640 1\ncall other\nadd %r12, %rbx"
        )
    };
    let built = framed_pair(&body(".loc 1 610 1\ncmp limit(%rip), %r12\njb 2b"), &body("jmp 1b"));
    for nth in [1, 2] {
        assert!(behind(&built, nth).is_some(), "{}", reasons(&built));
    }
}

/// Fills memory between two calls, of which the second sees none of it.
fn filled(how: &str) -> String {
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 605 1\nlea area(%rip), %rdi\n{how}\n.loc 1 \
         610 1\ncall quiet"
    )
}

#[test]
fn a_string_that_both_store_is_stored() {
    let zeros = "mov $64, %ecx\nxor %eax, %eax\nrep stosq";
    let other_registers = "mov $64, %r12d\nmov %r12, %rcx\nmov $0, %rax\nrep stosq";
    let built = framed_pair(&filled(zeros), &filled(other_registers));
    assert!(behind(&built, 1).is_some(), "{}", reasons(&built));
    let few = |how: &str| filled(&format!("xor %eax, %eax\n{how}"));
    let built =
        framed_pair(&few("mov $2, %ecx\nrep stosq"), &few("movq $0, 8(%rdi)\nmovq $0, (%rdi)"));
    assert!(behind(&built, 1).is_some(), "{}", reasons(&built));
}

#[test]
fn a_string_that_only_one_has_stored_is_not() {
    let old = "mov $64, %ecx\nxor %eax, %eax\nrep stosq";
    let others = [
        "mov $63, %ecx\nxor %eax, %eax\nrep stosq",
        "mov $64, %ecx\nmov $1, %eax\nrep stosq",
        "mov $64, %ecx\nxor %eax, %eax\nrep stosl",
        "mov $64, %ecx\nxor %eax, %eax\nadd $8, %rdi\nrep stosq",
        "mov $64, %ecx\nxor %eax, %eax\nstd\nrep stosq\ncld",
        "mov $64, %ecx\nxor %eax, %eax\nlea shared(%rip), %rsi\nrep movsq",
        "mov $64, %ecx\nxor %eax, %eax\nstosq",
        "",
    ];
    for new in others {
        let built = framed_pair(&filled(old), &filled(new));
        assert_eq!(behind(&built, 1), None, "{new}");
        let built = framed_pair(&filled(new), &filled(old));
        assert_eq!(behind(&built, 1), None, "{new}");
    }
}

/// Two variables of different scopes begin at one place of the frame: what a callee may write is the
/// larger one, wherever the smaller one's address is taken.
#[test]
fn an_exchange_with_memory_reads_and_then_stores() {
    let exchange = "mov $5, %ebx\nxchg %rbx, (%rdi)";
    let apart = "mov (%rdi), %rbx\nmovq $5, (%rdi)";
    let both_ways = |new: &str| {
        [(exchange, new), (new, exchange)].map(|(old, new)| {
            let built = framed_pair(&filled(old), &filled(new));
            behind(&built, 1).map(|moves| into(&moves, RBX).cloned())
        })
    };
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    assert_eq!(both_ways(apart), [(); 2].map(|()| Some(Some(same.clone()))));
    for other in ["mov (%rdi), %rbx\nmovl $5, (%rdi)", "mov (%rdi), %rbx"] {
        assert_eq!(both_ways(other), [None, None], "{other}");
    }
    // What is read is what was stored then.
    let stored = both_ways("movq $5, (%rdi)\nmov (%rdi), %rbx");
    assert_eq!(stored, [Some(Some(Value::Constant(5))), None]);
}

#[test]
fn a_variable_that_shares_memory_with_a_smaller_one_is_whole() {
    let source = r#"
#include <unistd.h>
#define KEEP __attribute__((noinline, noclone))
struct large { long first, second, third, fourth; };
KEEP void small(long *p) { *p = write(9, p, 0); }
KEEP void large(struct large *p) { p->fourth = write(9, p, 0); }
KEEP void last(long n) { write(9, &n, 0); }
KEEP long f(long n) {
    if (n & 1) {
        long only;
        small(&only);
        n += only;
    } else {
        struct large all;
        all.first = n;
        all.fourth = 0;
        large(&all);
        last(CHANGED);
        n = all.fourth;
    }
    return n;
}
int main(int argc, char **argv) { return f(argc); }
"#;
    let version = |number: &str| source.replace("CHANGED", number);
    let built = pair(&version("1"), &version("2"), (&[], &[]));
    let proven: Vec<_> = carried(&built).proven.iter().map(|p| &p.translation).collect();
    assert!(!proven.is_empty(), "{}", reasons(&built));
    for table in proven {
        let whole = table.objects.iter().any(|(start, end)| end - start == 32);
        assert!(whole, "{:?}", table.objects);
        let made =
            |m: &&Move| matches!((&m.to, &m.from), (Location::Slot { .. }, Value::Constant(_)));
        assert_eq!(table.moves.iter().find(made), None);
    }
}

#[test]
fn without_calls_it_is_not_either() {
    let copy = ".loc 1 600 1\nimul shared(%rip), %r12\n";
    let old = format!(
        ".loc 1 599 1\ncall hook\nmov %rax, %r12\n{copy}{copy}.loc 1 610 1\nmov $2, %ebx\ncall other\n\
         add %r12, %rbx"
    );
    let new = format!(
        ".loc 1 599 1\ncall hook\nmov %rax, %r12\nxor %ebx, %ebx\n1:\n{copy}.loc 1 602 1\nadd $1, %rbx\n\
         cmp limit(%rip), %rbx\njb 1b\n.loc 1 610 1\ncall other\nadd %r12, %rbx"
    );
    assert_eq!(behind(&framed_pair(&old, &new), 1), None);
}

#[test]
fn a_loop_peeled_in_new_does_not_forget_its_first_pass() {
    // The first pass stores 1, the others 0: NEW knows by where it is.
    let body = |first: &str| {
        format!(
            ".loc 1 600 1\nimul shared(%rip), %r12\n.loc 1 601 1\n{first}\n.loc 1 602 1\ndec %rbx\n"
        )
    };
    let head = ".loc 1 599 1\ncall hook\nmov %rax, %rbx\nmov $1, %r12d\n";
    let old = format!(
        "{head}mov $1, %ecx\n1:\n{}xor %ecx, %ecx\ntest %rbx, %rbx\njne 1b\n.loc 1 610 1\ncall other",
        body("add %rcx, %r12")
    );
    let new = format!(
        "{head}{}je 2f\n1:\n{}test %rbx, %rbx\njne 1b\n2:\n.loc 1 610 1\ncall other",
        body("add $1, %r12"),
        body("add $0, %r12")
    );
    let built = framed_pair(&old, &new);
    let loops = carried(&built).proven.iter().filter(|p| p.kind == SiteKind::Loop).count();
    assert_eq!(loops, 0, "in its loop NEW has made the first pass");
}

#[test]
fn values_are_equal_at_a_point_only() {
    let turn = |before: &str, behind: &str| {
        format!(
            "xor %r12d, %r12d\nmov $9, %ebx\n1:\n{before}.loc 1 600 1\ncall hook\n{behind}.loc 1 602 1\n\
             dec %rbx\njne 1b\nmov %r12, %rbx"
        )
    };
    let step = ".loc 1 601 1\nadd $1, %r12\n";
    let built = framed_pair(&turn("", step), &turn(step, ""));
    let moves = behind(&built, 0);
    let same = Value::At(Location::General { number: R12, bytes: 8 });
    assert_ne!(moves.as_deref().and_then(|moves| into(moves, R12)), Some(&same));
}

#[test]
fn another_call_at_one_place_of_the_source_takes_the_place_of_the_first() {
    let body = |callee: &str, column: u32| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 605 {column}\ncall {callee}\n\
             .loc 1 610 1\ncall other"
        )
    };
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    let carries = |built: &Built| {
        behind(built, 2).as_deref().and_then(|moves| into(moves, RBX)) == Some(&same)
    };
    // Both are called elsewhere, too.
    assert!(carries(&framed_pair(&body("hook", 3), &body("other", 3))));
    // At another place nothing shows that the one is gone and the other new: either may have been moved.
    assert!(!carries(&framed_pair(&body("hook", 3), &body("other", 9))));
}

#[test]
fn all_ways_of_new_must_agree() {
    let old = ".loc 1 600 1\ncall hook\nmov $2, %ebx\n.loc 1 610 1\ncall other";
    let new = ".loc 1 600 1\ncall hook\nmov $2, %ebx\ncmp limit(%rip), %rax\nje 1f\nmov $1, %ebx\n1:\n\
               .loc 1 610 1\ncall other";
    let built = framed_pair(old, new);
    assert_eq!(behind(&built, 1), None);
}

#[test]
fn a_loop_of_new_alone_is_followed_to_its_fixpoint() {
    let old = ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 610 1\ncall other";
    let new = ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n1:\n.loc 1 605 1\nimul $3, %rbx, %rbx\n\
               cmp limit(%rip), %rbx\njb 1b\n.loc 1 610 1\ncall other";
    assert_eq!(behind(&framed_pair(old, new), 1), None);
}

#[test]
fn branches_are_taken_in_the_same_sense() {
    let side = |jump: &str| {
        format!(
            ".loc 1 600 1\ncall hook\ntest %rax, %rax\n{jump} 1f\n.loc 1 601 1\nmov $1, %ebx\njmp 2f\n1:\n\
             .loc 1 603 1\nmov $2, %ebx\n2:\n.loc 1 610 1\ncall other"
        )
    };
    // Which one is in rbx depends on the same condition, in the opposite sense.
    let built = framed_pair(&side("je"), &side("jne"));
    let moves = behind(&built, 1);
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    assert_ne!(moves.as_deref().and_then(|moves| into(moves, RBX)), Some(&same));
}

#[test]
fn parameters_go_by_name() {
    let body = |register: &str, more: &str| {
        framed(&format!("mov %{register}, %rbx\n{more}\n.loc 1 610 1\ncall other"))
    };
    let (old, more) = (body("rdi", ""), "xor %edx, %edx");
    let built = assembled(("long a", &old), ("long fresh, long a", &body("rdi", more)));
    assert_eq!(behind(&built, 0), None, "rdi is another parameter in NEW");
    let built = assembled(("long a", &old), ("long fresh, long a", &body("rsi", more)));
    assert!(behind(&built, 0).is_some(), "{}", reasons(&built));
}

#[test]
fn results_of_calls_match_one_to_one() {
    let call = ".loc 1 600 1\nmov $1, %edi\ncall quiet\n";
    let old = format!("{call}mov %rax, %r12\n{call}mov %rax, %rbx\n.loc 1 610 1\ncall other");
    let new = format!("{call}mov %rax, %rbx\n.loc 1 610 1\ncall other");
    assert_eq!(behind(&framed_pair(&old, &new), 2), None);
    let back = framed_pair(&new, &old);
    assert_eq!(behind(&back, 1), None);
}

#[test]
fn what_one_build_stores_later_is_not_lost() {
    let old = ".loc 1 600 1\nmov $3, %ebx\ncall quiet\n.loc 1 601 1\nmov %rbx, shared(%rip)\n.loc 1 610 \
               1\ncall other";
    let new = ".loc 1 601 1\nmov $3, %ebx\nmov %rbx, shared(%rip)\n.loc 1 600 1\ncall quiet\n.loc 1 610 \
               1\ncall other";
    let there = framed_pair(old, new);
    assert_eq!(behind(&there, 0), None, "NEW has stored it already");
    assert!(behind(&there, 1).is_some(), "by then both have: {}", reasons(&there));
    assert_eq!(behind(&framed_pair(new, old), 0), None, "OLD has stored it already");
}

#[test]
fn store_motion_out_of_a_loop_is_seen() {
    let source = format!(
        "{AROUND}\nKEEP long f(long n) {{ for (long i = 0; i < n; i++) {{ shared += i * n ^ shared >> 3; }} \
         return quiet(n); }}\nint main(int argc, char **argv) {{ return f(argc) + table[argc]; }}\n"
    );
    for flags in [["", "-fno-tree-loop-im"], ["-fno-tree-loop-im", ""]] {
        let flags = flags.map(|f| if f.is_empty() { "-ftree-loop-im" } else { f });
        let built = pair(&source, &source, (&flags[..1], &flags[1..]));
        let loops = carried(&built).proven.iter().filter(|p| p.kind == SiteKind::Loop).count();
        assert_eq!(loops, 0, "{flags:?}");
    }
}

#[test]
fn what_was_read_from_an_overwritten_table_is_not_what_new_reads() {
    let body = |more: &str| {
        format!("lea table(%rip), %rcx\nmov (%rcx,%rdi,8), %rbx\n{more}\n.loc 1 610 1\ncall other")
    };
    let built = framed_pair(&body(""), &body("xor %edx, %edx"));
    assert_eq!(behind(&built, 0), None);
}

#[test]
fn registers_that_callers_rely_on_stay() {
    const RCX: u8 = 1;
    // `keeps` has a value in rcx while `f` runs, as gcc does under -fipa-ra.
    let source = |shift: &str| {
        let body = format!(
            ".loc 1 600 1\nxor %eax, %eax\n1:\nadd %rdi, %rax\n.loc 1 601 1\ndec %rdi\njne 1b\n{shift}\nret"
        );
        let lines = body.lines().map(|line| format!("\"{line}\\n\"\n"));
        let body: String = lines.collect();
        format!(
            "{AROUND}\n__attribute__((naked, noinline, noclone)) long f(long n) {{ __asm__ volatile({body}); \
             }}\n__attribute__((naked, noinline, noclone)) long keeps(long n) {{ __asm__ volatile(\"mov $7, \
             %ecx\\nsub $8, %rsp\\n.cfi_adjust_cfa_offset 8\\ncall f\\nadd $8, %rsp\\n\
             .cfi_adjust_cfa_offset -8\\nadd %rcx, %rax\\nret\"); }}\nint main(int argc, char **argv) \
             {{ return keeps(argc) + table[argc]; }}\n"
        )
    };
    let built = pair(&source("shl $1, %rax"), &source("shl $2, %rax"), (&[], &[]));
    let site = carried(&built).proven.iter().find(|p| p.kind == SiteKind::Loop);
    let moves = &site.unwrap_or_else(|| panic!("{}", reasons(&built))).translation.moves;
    let same = Value::At(Location::General { number: RCX, bytes: 8 });
    assert_eq!(into(moves, RCX), Some(&same));
}

#[test]
fn no_site_where_an_instruction_may_be_half_done() {
    let body = |more: &str| {
        format!(
            ".loc 1 600 1\nmov $3, %ebx\n.loc 1 605 1\nlea shared(%rip), %rdi\nmov $8, %ecx\n.loc 1 610 1\n\
             1:\nrep stosb\n{more}\nmov $1, %ecx\ndec %rbx\njne 1b\n.loc 1 620 1\ncall other"
        )
    };
    let built = framed_pair(&body(""), &body("xor %edx, %edx"));
    let loops = carried(&built).proven.iter().filter(|p| p.kind == SiteKind::Loop).count();
    assert_eq!(loops, 0);
}

/// A variadic callee takes as many arguments in vector registers as al says.
#[test]
fn vector_registers_that_a_variadic_call_does_not_pass_are_not_needed() {
    let body = |register: u8, after: &str, passed: u8| {
        format!(
            ".loc 1 600 1\nmov %rdi, %rbx\nmovsd area(%rip), %xmm{register}\naddsd %xmm{register}, \
             %xmm{register}\nmovsd %xmm{register}, shared(%rip)\n{after}\n.loc 1 605 1\ncall quiet\n.loc 1 \
             610 1\nmov %rbx, %rdi\nmov ${passed}, %eax\ncall several"
        )
    };
    // OLD does not keep what NEW has in xmm5.
    let built = |passed| framed_pair(&body(6, "pxor %xmm6, %xmm6", passed), &body(5, "", passed));
    for passed in [0, 5] {
        let built = built(passed);
        assert!(behind(&built, 0).is_some(), "{}", reasons(&built));
    }
    assert_eq!(behind(&built(6), 0), None);
}

/// OLD saves one register more than NEW does, and has not used it yet: it holds what the caller left in it.
#[test]
fn what_is_saved_and_not_used_yet_is_still_the_callers() {
    let saving = |body: &str| {
        framed(body)
            .replace(
                "sub $8, %rsp\n.cfi_adjust_cfa_offset 8",
                "push %r13\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset 13, 0",
            )
            .replace("add $8, %rsp", "pop %r13")
    };
    let old = saving("call hook\nmov %rax, %rbx\nmov %rbx, %r13\ncall other\nadd %r13, %rbx");
    let new = framed("call hook\nmov %rax, %rbx\nmov %rbx, %r12\ncall other\nadd %r12, %rbx");
    let built = assembled(("long n", &old), ("long n", &new));
    // It is where it was saved, also while the register still holds it: OLD does not read that any more.
    let saved = Value::At(Location::Slot { cfa: -32, bytes: 8 });
    for nth in [0, 1] {
        let moves = behind(&built, nth).unwrap_or_else(|| panic!("{}", reasons(&built)));
        assert_eq!(into(&moves, 13), Some(&saved));
    }
}

/// Whoever has the list of a variadic function's arguments knows where those on the stack are: with the caller.
#[test]
fn arguments_on_the_stack_whose_address_is_taken_stay() {
    let source = |named: &str, more: &str| {
        format!(
            "#include <stdarg.h>\n{AROUND}\nKEEP long take(long n, va_list list) {{ while (hook(n) < limit) n += \
             va_arg(list, long); return n; }}\nKEEP long f(long n, {named} ...) {{ va_list list; \
             va_start(list, n); n = take(n, list) {more}; va_end(list); return other(n); }}\nint main(int argc, \
             char **argv) {{ return f(argc, 2, 3, 4, 5, 6, 7, 8, 9, 10L) + table[argc]; }}\n"
        )
    };
    const SIX: &str = "long b, long c, long d, long e, long g,";
    const SEVEN: &str = "long b, long c, long d, long e, long g, long fresh,";
    for (named, is_carried) in [("", true), (SIX, true), (SEVEN, false)] {
        let old = if named.is_empty() { "" } else { SIX };
        let old = source(old, "");
        let new = source(named, "+ 1");
        let built = pair(&old, &new, (&[], &[]));
        assert_eq!(behind(&built, 0).is_some(), is_carried, "{named}: {}", reasons(&built));
    }
}

#[test]
fn where_new_cannot_follow_it_is_not_said_to_be() {
    // OLD's second call of `quiet` is at the place of NEW's third; nothing is live there.
    let call = |line: u32| format!(".loc 1 {line} 1\nmov $1, %edi\ncall quiet\n");
    let old = format!(".loc 1 600 1\ncall hook\n{}mov $1, %ebx", call(605).repeat(2));
    let new = format!(".loc 1 600 1\ncall hook\n{}mov $2, %ebx", call(605).repeat(3));
    let built = framed_pair(&old, &new);
    assert_eq!(behind(&built, 2), None, "{}", reasons(&built));
}

#[test]
fn arguments_on_the_stack_go_by_name_and_may_be_overwritten() {
    const SEVEN: &str = "long a, long b, long c, long d, long e, long g, long h";
    // The first argument on the stack is at CFA, 32 above rsp.
    let take =
        |more: &str| framed(&format!("mov 32(%rsp), %rbx\n{more}\n.loc 1 610 1\ncall other"));
    let (old, new) = (take(""), take("xor %edx, %edx"));
    let inserted = "long a, long b, long c, long d, long e, long g, long fresh, long h";
    assert_eq!(behind(&assembled((SEVEN, &old), (inserted, &new)), 0), None);
    assert!(behind(&assembled((SEVEN, &old), (SEVEN, &new)), 0).is_some());
    let body = |from: &str, more: &str| {
        framed(&format!(
            "{more}\n.loc 1 600 1\ncall hook\ntest %rax, %rax\nje 1f\n.loc 1 601 1\nmovq $5, 32(%rsp)\n1:\n\
             .loc 1 605 1\nmov {from}, %rbx\n.loc 1 610 1\ncall other"
        ))
    };
    let (old, new) = (body("%r12", "mov 32(%rsp), %r12"), body("32(%rsp)", ""));
    let built = assembled((SEVEN, &old), (SEVEN, &new));
    let moves = behind(&built, 1);
    let kept = moves.as_deref().and_then(|moves| into(moves, RBX));
    assert!(kept.is_none(), "it may be 5 by now: {kept:?}");
}

#[test]
fn of_a_slot_as_much_is_kept_as_is_read_again() {
    // Eight bytes are stored, of which fewer are read.
    let body = |more: &str, read: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, (%rsp)\n{more}\n.loc 1 610 1\ncall other\n{read} (%rsp), \
             %ebx"
        )
    };
    let new = |read: &str| body("xor %edx, %edx", read);
    for (old, read) in [("mov", "mov"), ("mov", "movzbl"), ("movzbl", "movzbl")] {
        let built = framed_pair(&body("", old), &new(read));
        assert!(behind(&built, 1).is_some(), "{old} {read}: {}", reasons(&built));
    }
    // What OLD does not read any more may be anything.
    assert_eq!(behind(&framed_pair(&body("", "movzbl"), &new("mov")), 1), None);
}

/// Compilers spill whole registers of which they use one byte: above it is what happened to be there.
#[test]
fn of_what_ways_spill_as_much_is_compared_as_counts() {
    let body = |rest: &str, read: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\ntest %rax, %rax\njs 1f\n.loc 1 602 1\n{rest}\nmov $1, \
             %al\nmov %rax, (%rsp)\njmp 2f\n1:\n.loc 1 603 1\nxor %eax, %eax\nmov %rax, (%rsp)\n2:\n.loc 1 610 \
             1\ncall other\nmov (%rsp), %rcx\n{read}\nje 3f\n.loc 1 620 1\nadd $7, %rbx\n3:"
        )
    };
    let old = |read: &str| body("mov %rbx, %rax", read);
    let new = |read: &str| body("mov limit(%rip), %rax", read);
    let (byte, word) = ("test %cl, %cl", "test %cx, %cx");
    let built = framed_pair(&old(byte), &new(byte));
    let moves = behind(&built, 1).unwrap_or_else(|| panic!("{}", reasons(&built)));
    let only = Location::Slot { cfa: -32, bytes: 1 };
    let spilled = moves.iter().find(|m| matches!(m.to, Location::Slot { cfa: -32, .. }));
    assert_eq!(spilled.map(|m| (m.to, &m.from)), Some((only, &Value::At(only))));
    // Of both bytes only one is the same.
    assert_eq!(behind(&framed_pair(&old(word), &new(word)), 1), None);
    assert_eq!(behind(&framed_pair(&old(byte), &new(word)), 1), None);
}

/// The same of registers.
#[test]
fn of_a_register_as_much_is_compared_as_counts() {
    let body = |first: &str, read: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n{first}\ntest %rax, %rax\njs 1f\n.loc 1 602 1\nmov $1, \
             %r12b\njmp 2f\n1:\n.loc 1 603 1\nxor %r12d, %r12d\n2:\n.loc 1 610 1\ncall other\n{read}\nje \
             3f\n.loc 1 620 1\nadd $7, %rbx\n3:"
        )
    };
    let old = |read: &str| body("mov %rax, %r12", read);
    let new = |read: &str| body("mov limit(%rip), %r12", read);
    let (byte, word) = ("test %r12b, %r12b", "test %r12w, %r12w");
    let built = framed_pair(&old(byte), &new(byte));
    let moves = behind(&built, 1).unwrap_or_else(|| panic!("{}", reasons(&built)));
    let only = Value::At(Location::General { number: R12, bytes: 1 });
    assert_eq!(into(&moves, R12), Some(&only));
    for old_read in [byte, word] {
        assert_eq!(behind(&framed_pair(&old(old_read), &new(word)), 1), None);
    }
}

/// What NEW uses all of is had from what OLD uses all of, also where a byte of it is one number: of what OLD uses a
/// byte of, a frame that an earlier update has carried there need have no more.
#[test]
fn of_a_register_all_is_compared_where_it_is_known() {
    let body = |other: &str, number: usize, read: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\ntest %rax, %rax\njs 1f\n.loc 1 602 1\nlea {other}(%rax), \
             %r12\nmov $1, %r12b\njmp 2f\n1:\n.loc 1 603 1\nmov %rax, %r12\nmov ${number}, %r12b\n2:\n.loc 1 \
             610 1\ncall other\n{read}\nje 3f\n.loc 1 620 1\nadd $7, %rbx\n3:"
        )
    };
    let (byte, all) = ("cmp $3, %r12b", "cmp $3, %r12");
    for number in [1, 2] {
        let (old, whole_old) = (body("64", number, byte), body("64", number, "cmp $5, %r12"));
        let built = framed_pair(&whole_old, &body("64", number, all));
        let moves = behind(&built, 1).unwrap_or_else(|| panic!("{}", reasons(&built)));
        let whole = Value::At(Location::General { number: R12, bytes: 8 });
        assert_eq!(into(&moves, R12), Some(&whole));
        assert_eq!(behind(&framed_pair(&old, &body("64", number, all)), 1), None);
        // What is above the byte is not the same.
        assert_eq!(behind(&framed_pair(&whole_old, &body("4096", number, all)), 1), None);
        assert!(behind(&framed_pair(&old, &body("4096", number, byte)), 1).is_some());
        // The byte is not.
        assert_eq!(behind(&framed_pair(&old, &body("64", number + 4, byte)), 1), None);
    }
}

#[test]
fn a_function_that_was_split_goes_on_in_its_clone() {
    let source = r#"
extern long hook(long);
extern long other(long);
#ifdef NEW
static __attribute__((noinline, noclone)) long rest(long n) __asm__("f.part.0");
static long rest(long n) {
#else
__attribute__((noinline, noclone)) long f(long n) {
#endif
    long first = hook(n);
    long second = other(first + n);
    return hook(first) * n + second;
}
#ifdef NEW
__attribute__((noinline, noclone)) long f(long n) {
    if (limit > 1000) return 0;
    return rest(n);
}
#endif
int main(int argc, char **argv) { return f(argc) + table[argc] + quiet(1); }
"#;
    let source = format!("{AROUND}{source}");
    let built = pair(&source, &source, (&[], &[]));
    let clone = built.new.functions.iter().find(|g| g.name() == "f.part.0").unwrap();
    let proven: Vec<_> =
        carried(&built).proven.iter().filter(|p| p.kind == SiteKind::Return).collect();
    assert_eq!(proven.len(), 3, "{}", reasons(&built));
    assert!(proven.iter().all(|p| clone.main().contains(&p.to.0)));
}

#[test]
fn a_clone_that_is_called_has_a_frame_of_its_own() {
    let source = r#"
extern long hook(long);
#ifdef NEW
static __attribute__((noinline, noclone)) long rest(long n) __asm__("f.part.0");
static long rest(long n) {
#else
__attribute__((noinline, noclone)) long f(long n) {
#endif
    long first = hook(n);
    return hook(first) * n;
}
#ifdef NEW
__attribute__((noinline, noclone)) long f(long n) {
    if (limit > 1000) return 0;
    return rest(n) + limit;
}
#endif
int main(int argc, char **argv) { return f(argc) + table[argc] + quiet(1) + other(2); }
"#;
    let source = format!("{AROUND}{source}");
    let built = pair(&source, &source, (&[], &[]));
    assert!(carried(&built).proven.iter().all(|p| p.kind != SiteKind::Return));
}

/// Two cases that are in another place of the code each, and call the same.
fn chosen(first: [&str; 2], index: &str) -> String {
    framed(&format!(
        ".loc 1 600 1\nmov %rdi, %rbx\ncall hook\n.loc 1 610 1\nmov {index}, %ecx\ncmp $1, %ecx\nja 9f\n\
         lea 8f(%rip), %rdx\nmovslq (%rdx,%rcx,4), %rax\nadd %rdx, %rax\njmp *%rax\n.pushsection \
         .rodata\n.balign 4\n8:\n.long 2f-8b\n.long 3f-8b\n.popsection\n{}\n{}\n9:\n.loc 1 810 1\ncall \
         other\nadd %r12, %rbx",
        first[0], first[1]
    ))
}

/// A case: what it keeps, and by which register it gets at it.
fn case(number: usize, value: usize) -> String {
    let line = 700 + number;
    format!(
        "{number}:\n.loc 1 {line} 1\nmov ${value}, %r12d\nmov ${value}, %edi\ncall quiet\njmp 9f"
    )
}

#[test]
fn tables_are_jumped_through_by_the_same_index() {
    let (a, b) = (case(2, 20), case(3, 30));
    // A call that only NEW makes leaves one of both without a partner.
    let c = b.replace("mov $30, %edi", "mov $1, %edi\n.loc 1 950 1\ncall hook\nmov $30, %edi");
    let old = chosen([&a, &b], "limit(%rip)");
    let there = assembled(("long n", &old), ("long n", &chosen([&a, &c], "limit(%rip)")));
    let moves = behind(&there, 1).unwrap_or_else(|| panic!("{}", reasons(&there)));
    assert!(into(&moves, R12).is_some(), "{moves:?}");
    // NEW goes by something else: it may be in the other case.
    let other = chosen([&a, &c], "shared(%rip)");
    let built = assembled(("long n", &old), ("long n", &other));
    let moves = behind(&built, 3);
    let kept = moves.as_deref().and_then(|moves| into(moves, R12));
    assert!(
        matches!(kept, None | Some(Value::At(Location::General { number: R12, .. }))),
        "{kept:?}"
    );
}

/// Where OLD tests the condition of a loop at its end alone, NEW may test it before the first round, too.
#[test]
fn a_condition_that_new_tests_once_more_is_followed() {
    let test = ".loc 1 610 1\nmov limit(%rip), %rax\ntest %rax, %rax\n";
    let round = ".loc 1 620 1\nmov $1, %edi\ncall quiet\ntest %rax, %rax\njne 4f\n";
    let end = ".loc 1 640 1\ncall other";
    let old = format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 605 1\njmp 3f\n2:\n{round}3:\n{test}je 2b\n4:\n{end}"
    );
    let new = format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n{test}je 2f\njmp 4f\n3:\n{test}jne 4f\n2:\n{round}jmp \
         3b\n4:\n{end}"
    );
    let built = framed_pair(&old, &new);
    let moves = behind(&built, 1).unwrap_or_else(|| panic!("{}", reasons(&built)));
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    assert_eq!(into(&moves, RBX), Some(&same));
}

/// Two ways that end alike: with one end, or with one each.
fn ended(joined: bool, more: &str) -> String {
    let end = ".loc 1 700 1\nmov $9, %edi\ncall quiet\njmp 9f\n";
    let first = if joined { "jmp 5f\n" } else { end };
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\ntest %rax, %rax\njs 4f\n.loc 1 610 1\nmov $1, \
         %edi\ncall other\n{first}4:\n.loc 1 620 1\nmov $2, %edi\ncall other\n5:\n{end}9:\n{more}\n.loc 1 800 \
         1\ncall hook"
    )
}

#[test]
fn ends_of_ways_that_one_build_has_twice_are_followed() {
    let (one, two) = (ended(true, ""), ended(false, "xor %edx, %edx"));
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    for (old, new, last) in [(&one, &two, 4), (&two, &one, 5)] {
        let built = framed_pair(old, new);
        let moves = behind(&built, last).unwrap_or_else(|| panic!("{}", reasons(&built)));
        assert_eq!(into(&moves, RBX), Some(&same));
    }
    // Of the two ends of NEW one keeps another number: behind OLD's only one it is not known which.
    let unlike =
        two.replacen("mov $9, %edi\ncall quiet", "mov $9, %edi\ncall quiet\nmov $5, %ebx", 1);
    let built = framed_pair(&one, &unlike);
    assert_eq!(behind(&built, 4), None, "rbx may be 5 in NEW");
}

/// Behind a call NEW has back what it keeps in its frame, and comes there also when it does not make the call.
#[test]
fn what_is_moved_behind_a_call_may_be_so_without_it() {
    let body = |past: &str, number: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\nmov %rax, (%rsp)\ntest %rax, %rax\njs 5f\n.loc 1 605 \
             1\ncmpq $3, limit(%rip)\njg {past}\n.loc 1 606 1\nmov $1, %edi\ncall quiet\n4:\n.loc 1 607 1\n\
             {number}\n5:\n.loc 1 610 1\nmov %rbx, %rdi\ncall other"
        )
    };
    let (again, others) = ("mov (%rsp), %rbx", "mov $7, %ebx");
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    let built = framed_pair(&body("5f", again), &body("4f", again));
    assert!(behind(&built, 1).is_some(), "{}", reasons(&built));
    let moves = behind(&built, 2).unwrap_or_else(|| panic!("{}", reasons(&built)));
    assert_eq!(into(&moves, RBX), Some(&same));
    // By that way it has another number.
    let built = framed_pair(&body("5f", others), &body("4f", others));
    assert_eq!(behind(&built, 2), None);
}

/// Whom OLD calls through a pointer nobody knows; at what place of the source it does is known.
#[test]
fn a_call_through_a_pointer_that_stays_is_no_call_of_another_line() {
    let call = |line: u32| format!(".loc 1 {line} 1\nmov $9, %edi\ncall *use(%rip)\n");
    let body = |first: &str, line: u32, second: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\ntest %rax, %rax\njs 4f\n.loc 1 602 1\nmov $1, %edi\ncall \
             other\n{first}4:\n.loc 1 603 1\nmov $2, %edi\ncall other\n5:\n{second}9:\n.loc 1 {line} 1\ncall hook"
        )
    };
    let end = call(605) + "jmp 9f\n";
    let old = body(&end, 610, &end);
    let more = ".loc 1 604 1\nmov $3, %edi\ncall quiet\n";
    let new = body("jmp 5f\n", 611, &format!("{more}{}", call(606)));
    let built = edited(&old, &new);
    let moves = behind(&built, 5).unwrap_or_else(|| panic!("{}", reasons(&built)));
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    assert_eq!(into(&moves, RBX), Some(&same));
}

/// OLD has not made its call yet, and NEW may have, where it calls nobody any more at the place of that.
#[test]
fn a_call_through_a_pointer_may_have_been_moved_to_another_line() {
    let body = |first: &str, line: u32, last: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n{first}.loc 1 {line} 1\nmov $4, %edi\ncall other\n.loc 1 {} \
             1\nimul $77, %rbx, %rdi\nlea 9(%rdi,%rbx,4), %rdi\nmov %rdi, area(%rip)\n{last}",
            line + 2,
        )
    };
    let (first, call) = (".loc 1 601 1\nmov $3, %edi\ncall quiet\n", "call *use(%rip)\n");
    let old = body("", 603, call);
    let stays = edited(&old, &body(first, 604, call));
    let moved = edited(&old, &body(first, 604, ""));
    for nth in [0, 1] {
        assert!(behind(&stays, nth).is_some(), "{}", reasons(&stays));
        assert_eq!(behind(&moved, nth), None);
    }
}

/// What OLD counts in a variable that NEW does not have NEW cannot read.
#[test]
fn a_counter_that_new_no_longer_has_is_no_memory_of_new() {
    let count = ".loc 1 605 1\nlock addq $1, gone(%rip)\n";
    let body = |count: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n{count}.loc 1 610 1\nmov limit(%rip), %rax\nmov \
             shared(%rip), %r12\ntest %rax, %rax\njs 1f\nadd %r12, %rbx\n1:\n.loc 1 620 1\ncall quiet"
        )
    };
    let program = |declared: &str, count: &str| {
        let source = program("long n", &framed(&body(count)));
        source.replace("long shared;", &format!("long shared;\n{declared}"))
    };
    let new = program("", "");
    let built = pair(&program("long gone;", count), &new, (&[], &[]));
    assert!(behind(&built, 1).is_some(), "{}", reasons(&built));
    // Somebody may have its address.
    let taken = program("long gone; long *volatile who = &gone;", count);
    let built = pair(&taken, &new, (&[], &[]));
    assert_eq!(behind(&built, 1), None);
}

/// A loop around a jump through a table whose address is made before the loop.
fn switched(more: &str) -> String {
    let case =
        |n: usize| format!("{n}:\n.loc 1 {} 1\nmov ${n}, %edi\ncall quiet\njmp 9f\n", 700 + n);
    let cases: String = (2..6).map(case).collect();
    framed(&format!(
        ".loc 1 600 1\nlea 8f(%rip), %r12\nxor %ebx, %ebx\n1:\n.loc 1 610 1\nmov %ebx, %eax\ncmp $3, %eax\n\
         ja 9f\nmovslq (%r12,%rax,4), %rax\nadd %r12, %rax\njmp *%rax\n.pushsection \
         .rodata\n.balign 4\n8:\n.long 2f-8b\n.long 3f-8b\n.long 4f-8b\n.long \
         5f-8b\n.popsection\n{cases}9:\n{more}\n.loc 1 800 1\nadd $1, %rbx\ncmp $4, %rbx\njb 1b\n.loc 1 \
         810 1\ncall other"
    ))
}

#[test]
fn a_table_whose_address_is_made_before_the_loop_is_found() {
    let built = assembled(("long n", &switched("")), ("long n", &switched("xor %edx, %edx")));
    let returns = carried(&built).proven.iter().filter(|p| p.kind == SiteKind::Return).count();
    assert_eq!(returns, 5, "{}", reasons(&built));
}

/// Where a jump went to stays in its register, and a path behind it hands that to the loop's jump as if it were a
/// table's address: the checker knows that the loop's jump leads through no table of the first one.
#[test]
fn a_target_of_a_jump_is_no_table() {
    let first = ".loc 1 605 1\nmov limit(%rip), %rcx\ncmp $1, %rcx\nja 10f\nlea 18f(%rip), %rdx\nmovslq \
                 (%rdx,%rcx,4), %rax\nadd %rdx, %rax\njmp *%rax\n.pushsection .rodata\n.balign 4\n18:\n.long \
                 16f-18b\n.long 17f-18b\n.popsection\n16:\nxor %ebx, %ebx\nmov %rax, %r12\njmp 9f\n17:\nmov \
                 %ecx, %edi\ncall quiet\n10:\n.loc 1 607 1\nlea 8f";
    let version = |more: &str| switched(more).replace("lea 8f", first);
    let built = assembled(("long n", &version("")), ("long n", &version("xor %edx, %edx")));
    let reasons = reasons(&built);
    assert!(reasons.contains("r12"), "what the loop jumps by is not known: {reasons}");
    assert!(!reasons.contains("checker"), "{reasons}");
}

/// Whether a loop's head is a site.
fn has_loop(built: &Built) -> bool {
    carried(built).proven.iter().any(|p| p.kind == SiteKind::Loop)
}

/// A loop behind a call that NEW may lack, and what comes before both.
fn behind_a_gone_call(first: &str, gone: &str) -> String {
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\nmov $7, %r12d\n{first}\n{gone}\n.loc 1 609 1\nxor %edx, \
         %edx\n.loc 1 610 1\n1:\nmov %rbx, %rdi\ncall quiet\ntest %rax, %rax\njne 1b\n5:\n.loc 1 620 1\nmov \
         %r12, %rdi\ncall other"
    )
}

/// Whom NEW does not call at all any more.
const GONE: &str = ".loc 1 605 1\nmov $1, %edi\nxor %eax, %eax\ncall several";

#[test]
fn memory_behind_a_call_that_is_gone_is_as_that_call_has_left_it() {
    let new = behind_a_gone_call("", "");
    let there = framed_pair(&behind_a_gone_call("", GONE), &new);
    // Here it is a call that OLD does not make.
    let back = framed_pair(&new, &behind_a_gone_call("", GONE));
    for built in [there, back] {
        assert!(has_loop(&built), "{}", reasons(&built));
        assert!(behind(&built, 0).is_some(), "{}", reasons(&built));
    }
    // By one of both ways NEW knows nothing.
    let first = ".loc 1 603 1\ncmpq $5, shared(%rip)\nje 3f\n.loc 1 604 1\ncall other\n3:";
    let built = framed_pair(&behind_a_gone_call(first, GONE), &behind_a_gone_call(first, ""));
    assert!(has_loop(&built), "{}", reasons(&built));
}

#[test]
fn what_new_has_read_before_a_call_that_is_gone_may_be_old() {
    for first in [
        // It has it in a register.
        ".loc 1 603 1\nmov shared(%rip), %r12\n.loc 1 604 1\ncall quiet",
        // It has put it there.
        ".loc 1 603 1\nmov %r12, shared(%rip)\n.loc 1 604 1\ncall quiet",
        // It has come here because of what is there.
        ".loc 1 603 1\ncmpq $5, shared(%rip)\nje 5f",
        // The same, by a function that does nothing else.
        ".loc 1 603 1\ncall quiet\ntest %rax, %rax\njs 5f",
    ] {
        let built = framed_pair(&behind_a_gone_call(first, GONE), &behind_a_gone_call(first, ""));
        assert!(!has_loop(&built), "{first}");
        // Behind what may change any memory it does not know any more.
        let later = |gone: &str| {
            behind_a_gone_call(
                &format!("{first}\n{gone}\n.loc 1 606 1\nxor %edx, %edx\ncall hook"),
                "",
            )
        };
        let built = framed_pair(&later(GONE), &later(""));
        assert!(has_loop(&built), "{first}: {}", reasons(&built));
    }
}

#[test]
fn statements_right_behind_a_call_do_not_hide_it() {
    let body = |more: &str| {
        format!(
            ".loc 1 600 1\ncall hook\n{more}.loc 1 602 1\nmov %rax, %rbx\ntest %rax, %rax\nje 2f\n.loc 1 603 \
             1\ncall quiet\n2:\n.loc 1 610 1\ncall other"
        )
    };
    let more = ".loc 1 601 1\nmov %rax, %r12\nmov $1, %edi\nxor %eax, %eax\ncall several\nmov %r12, %rax\n";
    for (old, new) in [(body(more), body("")), (body(""), body(more))] {
        let built = framed_pair(&old, &new);
        let moves = behind(&built, 0).unwrap_or_else(|| panic!("{}", reasons(&built)));
        let result = Value::At(Location::General { number: 0, bytes: 8 });
        assert_eq!(into(&moves, 0), Some(&result));
    }
}

/// A condition that is gone from the source: OLD may go past what NEW does always.
#[test]
fn what_no_way_of_new_writes_is_as_it_was() {
    let rest: String =
        (610..620).map(|n| format!(".loc 1 {n} 1\nmov ${n}, %edi\ncall hook\n")).collect();
    let body = |guard: &str, guarded: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 602 1\ntest %rax, %rax\njs 7f\n{guard}\n.loc 1 607 \
             1\nmov $2, %edi\nimul $9, %edi, %esi\nlea 7(%rsi,%rdi,2), %rdi\n{guarded}\ncall other\n.loc 1 608 1\nmov \
             $4, %edi\ncall other\n4:\n{rest}.loc 1 620 1\nmov %rbx, %rdi\ncall quiet\njmp 9f\n7:\n.loc 1 630 \
             1\nmov $9, %edi\ncall quiet\n9:"
        )
    };
    let guard = ".loc 1 605 1\nxor %eax, %eax\ncall several\ntest %eax, %eax\njne 4f";
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    let carries = |guarded: &str| {
        let built = framed_pair(&body(guard, guarded), &body("", guarded));
        let moves = behind(&built, 12);
        moves.as_deref().and_then(|moves| into(moves, RBX)) == Some(&same)
    };
    assert!(carries(""));
    // Where OLD has gone past it NEW has another number.
    assert!(!carries("mov $5, %ebx"));
}

/// Two calls in another order: where both come to the next one NEW holds what it held before them.
#[test]
fn what_was_held_before_calls_in_another_order_is_held_behind_them() {
    // What `end` jumps to no compiler has seen: memory is as the source has it.
    let rest: String =
        (610..620).map(|n| format!(".loc 1 {n} 1\nmov ${n}, %edi\ncall end\n")).collect();
    let (one, two) =
        (".loc 1 605 1\nmov $1, %edi\ncall several", ".loc 1 606 1\nmov $2, %edi\ncall other");
    let body = |calls: [&str; 2], more: &str| {
        let [first, second] = calls;
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n{first}\ntest %rax, %rax\nje 7f\n{more}\n{second}\ntest \
             %rax, %rax\nje 7f\n.loc 1 608 1\nmov $4, %edi\ncall end\n{rest}.loc 1 620 1\nmov %rbx, \
             %rdi\ncall quiet\njmp 9f\n7:\n.loc 1 630 1\nmov $9, %edi\ncall quiet\n9:"
        )
    };
    let same = Value::At(Location::General { number: RBX, bytes: 8 });
    let carries = |more: &str| {
        let built = framed_pair(&body([one, two], ""), &body([two, one], more));
        let moves = behind(&built, 12);
        moves.as_deref().and_then(|moves| into(moves, RBX)) == Some(&same)
    };
    assert!(carries(""));
    assert!(!carries("mov $5, %ebx"));
}

/// What a branch has found to be zero is so where it is tested again: one build has a copy of what is done
/// before that, and no second test behind it.
#[test]
fn what_was_found_to_be_zero_is_not_tested_in_vain() {
    let last = ".loc 1 630 1\naddq $1, shared(%rip)\n";
    let body = |zero: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 604 1\nxor %edx, %edx\n1:\n.loc 1 605 1\nmov $1, \
             %edi\ncall quiet\n.loc 1 610 1\ntest %rbx, %rbx\njne 3f\n.loc 1 615 1\nmov $2, %edi\ncall \
             other\n{zero}3:\n.loc 1 620 1\nmov $3, %edi\ncall hook\n4:\n{last}.loc 1 631 1\ntest %rbx, %rbx\njne \
             1b\n5:\n.loc 1 640 1\nmov $7, %edi\ncall hook"
        )
    };
    // It may have another value by then.
    for (then, holds) in [("", true), ("mov %rax, %rbx\n", false)] {
        let (joined, copied) = (format!("{then}jmp 4f\n"), format!("{then}{last}jmp 5f\n"));
        let built = framed_pair(&body(&joined), &body(&copied));
        assert_eq!(has_loop(&built), holds, "{}", reasons(&built));
    }
}
