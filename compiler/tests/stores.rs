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

/// What is done in two ways, and in a third that is something else, with what rbx and r12 point to.
type Ways = (&'static str, &'static str, &'static str);

/// Registers by lanes (SDM volume 2).
const LANES: [Ways; 16] = [
    (
        "pcmpeqd %xmm0, %xmm0\nmovups %xmm0, (%rbx)",
        "movq $-1, (%rbx)\nmovq $-1, 8(%rbx)",
        "pcmpeqd %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\npcmpeqb %xmm0, %xmm0\nmovups %xmm0, (%rbx)",
        "movdqu (%r12), %xmm0\npcmpeqd %xmm1, %xmm1\nmovups %xmm1, (%rbx)",
        "movdqu (%r12), %xmm0\npxor %xmm0, %xmm0\nmovups %xmm0, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\npaddq %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
        "mov (%r12), %rax\nmov 8(%r12), %rcx\nadd 16(%r12), %rax\nadd 24(%r12), %rcx\nmov %rax, \
         (%rbx)\nmov %rcx, 8(%rbx)",
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\npaddd %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\npsubq %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
        "mov (%r12), %rax\nmov 8(%r12), %rcx\nsub 16(%r12), %rax\nsub 24(%r12), %rcx\nmov %rax, \
         (%rbx)\nmov %rcx, 8(%rbx)",
        "movdqu (%r12), %xmm1\nmovdqu 16(%r12), %xmm0\npsubq %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\nshufpd $2, %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
        "mov (%r12), %rax\nmov 24(%r12), %rcx\nmov %rax, (%rbx)\nmov %rcx, 8(%rbx)",
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\nshufpd $1, %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\npunpckhqdq %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
        "mov 8(%r12), %rax\nmov 24(%r12), %rcx\nmov %rax, (%rbx)\nmov %rcx, 8(%rbx)",
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\npunpcklqdq %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\nmovhlps %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
        "mov 24(%r12), %rax\nmov 8(%r12), %rcx\nmov %rax, (%rbx)\nmov %rcx, 8(%rbx)",
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\nmovlhps %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\nmovlps 16(%r12), %xmm0\nmovhps 24(%r12), %xmm0\nmovlps %xmm0, \
         (%rbx)\nmovhps %xmm0, 8(%rbx)",
        "movdqu 16(%r12), %xmm0\nmovups %xmm0, (%rbx)",
        "movdqu (%r12), %xmm0\nmovlps 16(%r12), %xmm0\nmovlps %xmm0, (%rbx)\nmovhps %xmm0, 8(%rbx)",
    ),
    (
        "movddup 8(%r12), %xmm0\nmovups %xmm0, (%rbx)",
        "mov 8(%r12), %rax\nmov %rax, (%rbx)\nmov %rax, 8(%rbx)",
        "movups 8(%r12), %xmm0\nmovups %xmm0, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\npinsrq $1, 16(%r12), %xmm0\npextrq $1, %xmm0, (%rbx)\npextrq $0, %xmm0, \
         %rax\nmov %rax, 8(%rbx)",
        "mov 16(%r12), %rax\nmov (%r12), %rcx\nmov %rax, (%rbx)\nmov %rcx, 8(%rbx)",
        "movdqu (%r12), %xmm0\npinsrq $0, 16(%r12), %xmm0\npextrq $1, %xmm0, (%rbx)\npextrq $0, %xmm0, \
         %rax\nmov %rax, 8(%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\npshufd $0x4e, %xmm0, %xmm0\nmovups %xmm0, (%rbx)",
        "mov 8(%r12), %rax\nmov (%r12), %rcx\nmov %rax, (%rbx)\nmov %rcx, 8(%rbx)",
        "movdqu (%r12), %xmm0\npshufd $0xe4, %xmm0, %xmm0\nmovups %xmm0, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\nshufps $0xb1, %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
        "mov 4(%r12), %eax\nmov (%r12), %ecx\nmov 28(%r12), %edx\nmov 24(%r12), %esi\nmov %eax, \
         (%rbx)\nmov %ecx, 4(%rbx)\nmov %edx, 8(%rbx)\nmov %esi, 12(%rbx)",
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\nshufps $0xe1, %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
    ),
    (
        "movd (%r12), %xmm0\nmovd 12(%r12), %xmm1\npunpckldq %xmm1, %xmm0\nmovq %xmm0, (%rbx)",
        "mov (%r12), %eax\nmov 12(%r12), %ecx\nmov %eax, (%rbx)\nmov %ecx, 4(%rbx)",
        "movd (%r12), %xmm1\nmovd 12(%r12), %xmm0\npunpckldq %xmm1, %xmm0\nmovq %xmm0, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\npunpckhdq %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
        "mov 8(%r12), %eax\nmov 24(%r12), %ecx\nmov 12(%r12), %edx\nmov 28(%r12), %esi\nmov %eax, \
         (%rbx)\nmov %ecx, 4(%rbx)\nmov %edx, 8(%rbx)\nmov %esi, 12(%rbx)",
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\npunpckldq %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\npandn %xmm1, %xmm0\nmovups %xmm0, (%rbx)",
        "mov (%r12), %rax\nmov 8(%r12), %rcx\nnot %rax\nnot %rcx\nand 16(%r12), %rax\nand 24(%r12), \
         %rcx\nmov %rax, (%rbx)\nmov %rcx, 8(%rbx)",
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\npandn %xmm0, %xmm1\nmovups %xmm1, (%rbx)",
    ),
    (
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\npor %xmm1, %xmm0\npxor %xmm1, %xmm0\nmovups \
         %xmm0, (%rbx)",
        "mov (%r12), %rax\nmov 8(%r12), %rcx\nor 16(%r12), %rax\nor 24(%r12), %rcx\nxor 16(%r12), \
         %rax\nxor 24(%r12), %rcx\nmov %rax, (%rbx)\nmov %rcx, 8(%rbx)",
        "movdqu (%r12), %xmm0\nmovdqu 16(%r12), %xmm1\npor %xmm1, %xmm0\npand %xmm1, %xmm0\nmovups \
         %xmm0, (%rbx)",
    ),
];

/// The encodings that have the result apart, and those of 32 bytes, half by half.
const WIDE: [Ways; 6] = [
    (
        "vmovdqu (%r12), %ymm0\nvmovdqu 32(%r12), %ymm1\nvpunpckhqdq %ymm1, %ymm0, %ymm2\nvmovdqu \
         %ymm2, (%rbx)",
        "vmovdqu (%r12), %ymm0\nvmovdqu 32(%r12), %ymm1\nvshufpd $0xf, %ymm1, %ymm0, %ymm2\nvmovdqu \
         %ymm2, (%rbx)",
        "vmovdqu (%r12), %ymm0\nvmovdqu 32(%r12), %ymm1\nvshufpd $0x3, %ymm1, %ymm0, %ymm2\nvmovdqu \
         %ymm2, (%rbx)",
    ),
    (
        "vmovdqu (%r12), %ymm0\nvmovddup %ymm0, %ymm2\nvmovdqu %ymm2, (%rbx)",
        "mov (%r12), %rax\nmov 16(%r12), %rcx\nmov %rax, (%rbx)\nmov %rax, 8(%rbx)\nmov %rcx, \
         16(%rbx)\nmov %rcx, 24(%rbx)",
        "vmovdqu (%r12), %ymm0\nvmovddup %xmm0, %xmm2\nvmovdqu %ymm2, (%rbx)",
    ),
    (
        "vmovdqu (%r12), %xmm0\nvmovhps 16(%r12), %xmm0, %xmm1\nvmovlps 24(%r12), %xmm1, \
         %xmm2\nvmovdqu %ymm2, (%rbx)",
        "mov 24(%r12), %rax\nmov 16(%r12), %rcx\nmov %rax, (%rbx)\nmov %rcx, 8(%rbx)\nmovq $0, \
         16(%rbx)\nmovq $0, 24(%rbx)",
        "vmovdqu (%r12), %xmm0\nvmovlps 24(%r12), %xmm0, %xmm2\nvmovdqu %ymm2, (%rbx)",
    ),
    (
        "vmovdqu (%r12), %xmm0\nvmovdqu 16(%r12), %xmm1\nvmovhlps %xmm1, %xmm0, %xmm2\nvmovsd %xmm0, \
         %xmm2, %xmm2\nvmovdqu %xmm2, (%rbx)",
        "mov (%r12), %rax\nmov 8(%r12), %rcx\nmov %rax, (%rbx)\nmov %rcx, 8(%rbx)",
        "vmovdqu (%r12), %xmm0\nvmovdqu 16(%r12), %xmm1\nvmovhlps %xmm0, %xmm1, %xmm2\nvmovsd %xmm0, \
         %xmm2, %xmm2\nvmovdqu %xmm2, (%rbx)",
    ),
    (
        "vmovdqu (%r12), %ymm0\nvpshufd $0xb1, %ymm0, %ymm0\nvpshufd $0xb1, %ymm0, %ymm0\nvmovdqu \
         %ymm0, (%rbx)",
        "vmovdqu (%r12), %ymm0\nvmovdqu %ymm0, (%rbx)",
        "vmovdqu (%r12), %ymm0\nvpshufd $0xb1, %ymm0, %ymm0\nvmovdqu %ymm0, (%rbx)",
    ),
    (
        "vmovdqu (%r12), %ymm0\nvpsubq 32(%r12), %ymm0, %ymm1\nvpaddq 32(%r12), %ymm1, \
         %ymm2\nvpcmpeqw %ymm0, %ymm2, %ymm3\nvmovdqu %ymm3, (%rbx)",
        "movq $-1, (%rbx)\nmovq $-1, 8(%rbx)\nmovq $-1, 16(%rbx)\nmovq $-1, 24(%rbx)",
        "vmovdqu (%r12), %ymm0\nvpaddq 32(%r12), %ymm0, %ymm1\nvpaddq 32(%r12), %ymm1, \
         %ymm2\nvpcmpeqw %ymm0, %ymm2, %ymm3\nvmovdqu %ymm3, (%rbx)",
    ),
];

/// Bits, and bytes in another order.
const BITS: [Ways; 8] = [
    (
        "movzbl (%r12), %eax\nand $-4, %eax\nor $1, %eax\nmov %al, (%rbx)",
        "movzbl (%r12), %eax\nand $-3, %eax\nor $1, %eax\nmov %al, (%rbx)",
        "movzbl (%r12), %eax\nand $-2, %eax\nor $1, %eax\nmov %al, (%rbx)",
    ),
    (
        "movzbl (%r12), %eax\nor $0x40, %eax\nand $-33, %eax\nmov %al, (%rbx)",
        "movzbl (%r12), %eax\nand $0xffffff9f, %eax\nor $0x40, %eax\nmov %al, (%rbx)",
        "movzbl (%r12), %eax\nand $-33, %eax\nmov %al, (%rbx)",
    ),
    (
        "mov (%r12), %rcx\nand $0xfffff, %ecx\nmov (%rbx), %rax\nmovabs $0xffbffffffff00000, %rdx\nand \
         %rdx, %rax\nor %rcx, %rax\nmov %rax, (%rbx)",
        "mov (%r12), %rcx\nand $0xfffff, %ecx\nmov (%rbx), %eax\nand $0xfff00000, %eax\nor %ecx, \
         %eax\nmov %eax, (%rbx)\nandb $0xbf, 6(%rbx)",
        "mov (%r12), %rcx\nand $0xfffff, %ecx\nmov (%rbx), %eax\nand $0xfff00000, %eax\nor %ecx, \
         %eax\nmov %eax, (%rbx)\nandb $0xbf, 5(%rbx)",
    ),
    (
        "movzbl (%r12), %eax\nshr $2, %al\nand $1, %eax\nxor $1, %eax\nshl $2, %eax\nmovzbl (%rbx), \
         %ecx\nand $-5, %ecx\nor %eax, %ecx\nmov %cl, (%rbx)",
        "movzbl (%r12), %eax\nnot %eax\nand $4, %eax\nandb $0xfb, (%rbx)\nor %al, (%rbx)",
        "movzbl (%r12), %eax\nand $4, %eax\nandb $0xfb, (%rbx)\nor %al, (%rbx)",
    ),
    (
        "mov (%r12), %eax\nbswap %eax\nadd $1, %eax\nmov %eax, (%rbx)",
        "movzbl (%r12), %eax\nshl $24, %eax\nmovzbl 1(%r12), %ecx\nshl $16, %ecx\nadd %ecx, %eax\nmovzbl \
         2(%r12), %ecx\nshl $8, %ecx\nadd %ecx, %eax\nmovzbl 3(%r12), %ecx\nadd %ecx, %eax\nadd $1, \
         %eax\nmov %eax, (%rbx)",
        "mov (%r12), %eax\nadd $1, %eax\nmov %eax, (%rbx)",
    ),
    (
        "mov (%r12), %rax\nmov 8(%r12), %rcx\nadd %rcx, %rax\nbswap %eax\nmov %eax, (%rbx)",
        "mov (%r12), %rax\nmov 8(%r12), %rcx\nadd %rcx, %rax\nmov %al, 3(%rbx)\nmov %rax, %rdx\nshr $8, \
         %rdx\nmov %dl, 2(%rbx)\nmov %rax, %rdx\nshr $16, %rdx\nmov %dl, 1(%rbx)\nshr $24, %rax\nmov \
         %al, (%rbx)",
        "mov (%r12), %rax\nmov 8(%r12), %rcx\nadd %rcx, %rax\nmov %eax, (%rbx)",
    ),
    (
        "mov (%r12), %rax\nbswap %rax\nmov %rax, (%rbx)",
        "mov (%r12), %eax\nmov 4(%r12), %ecx\nbswap %eax\nbswap %ecx\nmov %ecx, (%rbx)\nmov %eax, \
         4(%rbx)",
        "mov (%r12), %eax\nmov 4(%r12), %ecx\nbswap %eax\nbswap %ecx\nmov %eax, (%rbx)\nmov %ecx, \
         4(%rbx)",
    ),
    (
        "mov (%r12), %eax\nmov 4(%r12), %ecx\nshl $32, %rcx\nor %rcx, %rax\nnot %rax\nmov %rax, (%rbx)",
        "mov (%r12), %eax\nnot %eax\nmov %eax, (%rbx)\nmov 4(%r12), %eax\nxor $-1, %eax\nmov %eax, \
         4(%rbx)",
        "mov (%r12), %eax\nnot %eax\nmov %eax, (%rbx)\nmov 4(%r12), %eax\nmov %eax, 4(%rbx)",
    ),
];

#[test]
fn what_is_computed_in_lanes_may_be_computed_in_pieces() {
    for (old, new, other) in LANES.iter().chain(&WIDE).chain(&BITS) {
        let [old, new, other] =
            [old, new, other].map(|way| storing(&format!(".loc 1 605 1\n{way}\n"), "vzeroupper"));
        assert!(is_carried(&old, &new), "{old}\n{new}");
        assert!(!is_carried(&old, &other), "{old}\n{other}");
    }
}

/// The processor has the last word.
#[test]
fn what_is_taken_to_be_the_same_is_so_for_the_processor() {
    let wide = if std::is_x86_feature_detected!("avx2") { &WIDE[..] } else { &[] };
    let all: Vec<&Ways> = LANES.iter().chain(wide).chain(&BITS).collect();
    let mut source = String::from("#include <string.h>\n#include <stdlib.h>\n");
    for (number, (old, new, other)) in all.iter().enumerate() {
        for (way, text) in [old, new, other].into_iter().enumerate() {
            let text = text.replace('%', "%%").replace('\n', "\\n");
            source += &format!(
                "static void way{number}_{way}(char *to, char *from) {{ register char *b asm(\"rbx\") = to, *r \
                 asm(\"r12\") = from; asm volatile(\"{text}\" : : \"r\"(b), \"r\"(r) : \"rax\", \"rcx\", \
                 \"rdx\", \"rsi\", \"xmm0\", \"xmm1\", \"xmm2\", \"xmm3\", \"memory\", \"cc\"); }}\n"
            );
        }
    }
    let names = (0..all.len()).map(|n| format!("{{way{n}_0, way{n}_1, way{n}_2}},"));
    source +=
        &format!("static void (*ways[][3])(char *, char *) = {{{}}};\n", names.collect::<String>());
    source += "int main(void) { for (unsigned n = 0; n < sizeof ways / sizeof *ways; n++) { int unlike = 0; \
               for (int k = 0; k < 200; k++) { char from[64], to[3][64]; for (int i = 0; i < 64; i++) { \
               from[i] = k ? rand() >> 7 : 0; to[0][i] = rand() >> 7; } memcpy(to[1], to[0], 64); \
               memcpy(to[2], to[0], 64); for (int i = 0; i < 3; i++) ways[n][i](to[i], from); if \
               (memcmp(to[0], to[1], 64)) return 2 * n + 1; unlike |= memcmp(to[0], to[2], 64); } if \
               (!unlike) return 2 * n + 2; } return 0; }\n";
    let directory = tempfile::tempdir().expect("a directory");
    let (file, program) = (directory.path().join("ways.c"), directory.path().join("ways"));
    std::fs::write(&file, source).expect("a source");
    let gcc =
        std::process::Command::new("gcc").arg("-O1").arg(&file).arg("-o").arg(&program).status();
    assert!(gcc.expect("gcc").success());
    let run = std::process::Command::new(&program).status().expect("a run");
    assert_eq!(run.code(), Some(0), "twice the number of the ways, and one or two");
}
