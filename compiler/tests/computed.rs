//! Tables that both builds fill with the same numbers, each in its own way: behind the loops memory is the same, and
//! points are sites though what is called there looks at none of it.

mod assembled;

use assembled::{R12, behind, framed_pair, into, reasons};
use dsu_compiler::Built;
use dsu_patch_format::frames::{Location, Value};

/// A loop, and a call behind it of somebody who need not find its stores done.
fn filling(code: &str) -> String {
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 605 1\nlea area(%rip), %rdx\n{code}\n.loc 1 620 1\ncall quiet"
    )
}

fn is_same(old: &str, new: &str) -> bool {
    let there = framed_pair(&filling(old), &filling(new));
    let back = framed_pair(&filling(new), &filling(old));
    let known = |built: &Built| behind(built, 1).is_some();
    assert_eq!(known(&there), known(&back), "{} {}", reasons(&there), reasons(&back));
    known(&there)
}

/// Half of each number up to 64, four bytes each.
const UPWARDS: &str = "xor %ecx, %ecx\n1:\nmov %ecx, %eax\nshr %eax\nmov %eax, (%rdx,%rcx,4)\nadd $1, %rcx\ncmp \
                       $64, %rcx\njne 1b";
const DOWNWARDS: &str = "mov $63, %ecx\n1:\nmov %ecx, %eax\nshr $1, %eax\nmov %eax, (%rdx,%rcx,4)\nsub $1, \
                         %ecx\njns 1b";

#[test]
fn in_another_order() {
    assert!(is_same(UPWARDS, DOWNWARDS));
}

#[test]
fn four_at_once() {
    let four = ".pushsection .rodata\n.balign 16\n8:\n.long 0, 1, 2, 3\n9:\n.long 4, 4, 4, 4\n.popsection\nmovdqa \
                8b(%rip), %xmm0\nmovdqa 9b(%rip), %xmm2\nlea 256(%rdx), %rcx\n1:\nmovdqa %xmm0, %xmm1\npaddd \
                %xmm2, %xmm0\npsrld $1, %xmm1\nmovups %xmm1, (%rdx)\nadd $16, %rdx\ncmp %rcx, %rdx\njne 1b";
    assert!(is_same(UPWARDS, four));
    assert!(!is_same(UPWARDS, &four.replace("psrld $1", "psrad $2")));
    assert!(!is_same(UPWARDS, &four.replace("4, 4, 4, 4", "4, 4, 4, 3")));
}

/// By a choice in one build and a branch in the other: what a bit decides.
#[test]
fn with_a_branch() {
    let chosen = "xor %ecx, %ecx\n1:\nmov $7, %eax\nmov $5, %esi\ntest $1, %cl\ncmove %esi, %eax\nmov %eax, \
                  (%rdx,%rcx,4)\nadd $1, %ecx\ncmp $64, %ecx\njb 1b";
    let branched = "xor %ecx, %ecx\n1:\nmov $7, %eax\ntest $1, %cl\njne 2f\nmov $5, %eax\n2:\nmov %eax, \
                    (%rdx,%rcx,4)\nadd $1, %ecx\ncmp $63, %ecx\njle 1b";
    assert!(is_same(chosen, branched));
    assert!(!is_same(chosen, &branched.replace("jne 2f", "je 2f")));
}

/// The last number, the number of them, and one that comes behind.
#[test]
fn other_numbers_are_told_apart() {
    assert!(!is_same(UPWARDS, &DOWNWARDS.replace("shr $1", "shr $2")));
    assert!(!is_same(UPWARDS, &DOWNWARDS.replace("mov $63", "mov $62")));
    assert!(!is_same(UPWARDS, &format!("{DOWNWARDS}\nmovl $9, 8(%rdx)")));
    // The same number again says nothing else.
    assert!(is_same(UPWARDS, &format!("{DOWNWARDS}\nmovl $1, 8(%rdx)")));
}

#[test]
fn how_long_it_goes_on_must_be_known() {
    let until = |limit: &str| UPWARDS.replace("cmp $64", &format!("cmp {limit}"));
    assert!(!is_same(UPWARDS, &until("limit(%rip)")));
    // For ever, or as good as that.
    assert!(!is_same(UPWARDS, &UPWARDS.replace("add $1, %rcx", "add $0, %rcx")));
}

/// What nothing is known of is another thing in each round.
#[test]
fn a_clock_goes_on() {
    let ticks = "lea area(%rip), %r8\nxor %ecx, %ecx\n1:\nrdtsc\nmov %eax, %edi\nsub %esi, %edi\nmov %eax, \
                 %esi\ntest %ecx, %ecx\nje 2f\nmov %edi, (%r8,%rcx,4)\n2:\nadd $1, %ecx\ncmp $64, %ecx\njne 1b";
    let nothing = "mov $1, %ecx\nxor %edi, %edi\n1:\nmov %edi, (%rdx,%rcx,4)\nadd $1, %ecx\ncmp $64, %ecx\njne 1b";
    assert!(!is_same(ticks, nothing));
}

/// Where the loop may be met in its second half, nothing is known of it.
#[test]
fn whoever_is_inside_stays() {
    let entered = |n: usize| {
        format!(
            "mov ${n}, %ecx\ncmpq $0, limit(%rip)\nje 1f\nmov $8, %ecx\n{}",
            &UPWARDS["xor %ecx, %ecx\n".len()..]
        )
    };
    // Both ways lead to one end, but not to one table.
    assert!(!is_same(&entered(4), &entered(6).replace("shr %eax", "shr $1, %eax")));
    let built = framed_pair(&filling(UPWARDS), &filling(DOWNWARDS));
    let loops = assembled::carried(&built)
        .proven
        .iter()
        .filter(|p| p.kind == dsu_patch_format::plan::SiteKind::Loop);
    assert_eq!(loops.count(), 0);
}

/// Where OLD's loop is run through and NEW's is not, NEW is not taken to have gone around once only.
#[test]
fn one_that_is_not_run_through_goes_around_as_often() {
    let turned = UPWARDS.replace("shr %eax", "rol $31, %eax\nand $0x7fffffff, %eax");
    let end = |code: &str| {
        let code = code
            .replace("(%rdx,%rcx,4)", "(%rdx)")
            .replace("add $1, %rcx", "add $4, %rdx\nadd $1, %rcx");
        format!("{code}\nmov %rdx, %r12\n.loc 1 615 1\nmov %rbx, %rdi\ncall hook\nmov %r12, %rbx")
    };
    for (old, new) in [(UPWARDS, turned.as_str()), (turned.as_str(), UPWARDS)] {
        let built = framed_pair(&filling(&end(old)), &filling(&end(new)));
        if let Some(moves) = behind(&built, 1) {
            // The end of what both have filled is where OLD has it, or made of where it begins.
            match into(&moves, R12) {
                Some(Value::At(Location::General { number: R12, bytes: 8 })) => {}
                Some(Value::Address { addend, .. }) => assert_eq!(addend % 256, 0, "{moves:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The kernel's answer is no number that the code has.
#[test]
fn what_the_kernel_gives_is_not_known() {
    let asked = |rest: &str| {
        format!(
            ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 605 1\nmov $39, %eax\nsyscall\nmov %rax, %r12\n{rest}\n.loc 1 620 1\ncall hook\nadd %r12, %rbx"
        )
    };
    let built = framed_pair(&asked(""), &asked("xor %edx, %edx"));
    let moves = behind(&built, 1).unwrap_or_default();
    assert!(!matches!(into(&moves, R12), Some(Value::Constant(_))), "{moves:?}");
}

#[test]
fn loops_by_rcx_are_not_followed() {
    let by_rcx = "mov $64, %ecx\nxor %eax, %eax\n1:\nmov %eax, (%rdx)\nlea 4(%rdx), %rdx\nloop 1b";
    let fewer = by_rcx.replace("$64", "$32");
    assert!(!is_same(by_rcx, &fewer));
}
