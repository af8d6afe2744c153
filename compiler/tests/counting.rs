//! Builds that count with different things: one with a pointer, the other with the number of an element;
//! one knows where a buffer ends, the other how long it is; one uses a pointer, the other the end that
//! it has met. What one keeps is had from what the other keeps exactly when nothing is lost on the way.

mod assembled;

use assembled::{R12, RBX, behind, framed_pair, into, reasons};
use dsu_compiler::frames::Carried;
use dsu_compiler::{Built, Options, build};
use dsu_patch_format::frames::{Binary, Location, Move, Value};
use dsu_patch_format::plan::SiteKind;

fn at(number: u8) -> Value {
    Value::At(Location::General { number, bytes: 8 })
}

fn moves(built: &Built, nth: usize) -> Vec<Move> {
    behind(built, nth).unwrap_or_else(|| panic!("{}", reasons(built)))
}

/// A loop over the elements of `area`: what it begins with, how it loads one, how it goes on.
fn walked(begin: &str, load: &str, next: &str) -> String {
    format!(
        ".loc 1 600 1\ncall hook\n.loc 1 605 1\n{begin}\n1:\n.loc 1 610 1\n{load}\ncall hook\n.loc 1 \
         620 1\n{next}\njne 1b\n"
    )
}

/// By a pointer that goes from `start` on.
fn by_pointer(start: &str) -> String {
    let begin = format!("{start}\nlea area+512(%rip), %r12");
    walked(&begin, "mov (%rbx), %rdi", "add $8, %rbx\ncmp %r12, %rbx")
}

/// By the number of the element in rbx.
fn by_number(start: &str) -> String {
    let begin = format!("{start}\nlea area(%rip), %r12");
    walked(&begin, "mov (%r12,%rbx,8), %rdi", "add $1, %rbx\ncmp $64, %rbx")
}

#[test]
fn a_number_is_had_from_the_pointer() {
    let built = framed_pair(&by_pointer("lea area(%rip), %rbx"), &by_number("xor %ebx, %ebx"));
    let moves = moves(&built, 1);
    let Some(Value::Binary { op: Binary::Sar, bytes: 8, left, right }) = into(&moves, RBX) else {
        panic!("{moves:?}");
    };
    assert_eq!(**right, Value::Constant(3));
    let Value::Binary { op: Binary::Sub, left, right, .. } = &**left else { panic!("{left:?}") };
    assert_eq!(**left, at(RBX));
    assert!(matches!(**right, Value::Address { .. }), "{right:?}");
}

#[test]
fn a_pointer_is_had_from_the_number() {
    let built = framed_pair(&by_number("xor %ebx, %ebx"), &by_pointer("lea area(%rip), %rbx"));
    let moves = moves(&built, 1);
    assert!(matches!(into(&moves, RBX), Some(Value::Binary { op: Binary::Add, .. })), "{moves:?}");
}

#[test]
fn upper_bits_that_a_pointer_has_lost_are_not_made_up() {
    // It begins with what the caller gives, of which the pointer has 61 bits.
    let old = by_pointer("lea area(%rip), %rbx\nlea (%rbx,%rdi,8), %rbx");
    let new = by_number("mov %rdi, %rbx");
    let keep =
        |body: String| body.replacen("call hook", "mov %rdi, %rbx\ncall hook\nmov %rbx, %rdi", 1);
    let built = framed_pair(&keep(old), &keep(new));
    assert!(behind(&built, 1).is_none());
    // A step so large that the number could be anything soon.
    let wide = |body: String| body.replace("add $8, %rbx", "add $0x40000000, %rbx");
    let far = |body: String| body.replace("add $1, %rbx", "add $0x8000000, %rbx");
    let built =
        framed_pair(&wide(by_pointer("lea area(%rip), %rbx")), &far(by_number("xor %ebx, %ebx")));
    assert!(behind(&built, 1).is_none());
}

/// Two results of calls, `kept` in rbx and r12.
fn buffer(kept: &str) -> String {
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %r12\n.loc 1 601 1\nmov %rax, %rdi\ncall quiet\n.loc 1 605 \
         1\n{kept}\n.loc 1 610 1\nmov %r12, %rdi\ncall other\n.loc 1 620 1\nmov %rbx, %rdi\ncall hook"
    )
}

#[test]
fn a_length_is_had_from_where_a_buffer_ends() {
    let (end, length) = (buffer("lea (%r12,%rax), %rbx"), buffer("mov %rax, %rbx"));
    let length = length.replace("mov %rbx, %rdi", "lea (%r12,%rbx), %rdi");
    // Where the buffer begins OLD reads again, too.
    let built = framed_pair(
        &end.replace("mov %rbx, %rdi", "mov %rbx, %rdi\nadd %r12, area(%rip)"),
        &length,
    );
    let moves = moves(&built, 2);
    let difference =
        Value::Binary { op: Binary::Sub, bytes: 8, left: at(RBX).into(), right: at(R12).into() };
    assert_eq!(into(&moves, RBX), Some(&difference));
}

#[test]
fn a_third_is_had_and_half_is_not() {
    let times = |n: u8| buffer(&format!("imul ${n}, %rax, %rbx"));
    let built = framed_pair(&times(3), &buffer("mov %rax, %rbx"));
    let moves = moves(&built, 2);
    let third = Value::Binary {
        op: Binary::Mul,
        bytes: 8,
        left: at(RBX).into(),
        right: Value::Constant(0xaaaa_aaaa_aaaa_aaab).into(),
    };
    assert_eq!(into(&moves, RBX), Some(&third));
    let built = framed_pair(&times(2), &buffer("mov %rax, %rbx"));
    assert!(behind(&built, 2).is_none());
}

/// A loop that a test of `pointer` against the end in r12 leaves, behind which `used` goes to memory.
fn met(jump: &str, used: &str) -> String {
    format!(
        ".loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 601 1\nmov %rax, %rdi\ncall quiet\nmov %rax, \
         %r12\n1:\n.loc 1 605 1\nadd $1, %rbx\ncmp %r12, %rbx\n{jump} 2f\n.loc 1 606 1\ncmpb $58, \
         (%rbx)\njne 1b\n2:\n.loc 1 610 1\nmov {used}, area(%rip)\ncall quiet"
    )
}

#[test]
fn what_has_met_the_end_is_the_end() {
    let old = format!("{}\n", met("je", "%rbx").replace("jne 1b\n2:", "jmp 1b\n2:"));
    let new = met("je", "%r12").replace("jne 1b\n2:", "jmp 1b\n2:");
    let built = framed_pair(&old, &new);
    moves(&built, 2);
    // By the other way it has not.
    let built = framed_pair(&met("je", "%rbx"), &met("je", "%r12"));
    assert!(behind(&built, 2).is_none());
}

/// Stores where a text is, which is not the first one: that may be the end of what is in front.
fn texts(text: &str, more: &str) -> String {
    format!(
        ".pushsection .rodata.str1.1,\\\"aMS\\\",@progbits,1\n.string \\\"first\\\"\n7:\n.string \\\"{text}\\\"\n.popsection\n\
         .loc 1 600 1\ncall hook\nmov %rax, %rbx\n.loc 1 605 1\nlea 7b(%rip), %rax\nmov %rax, \
         area(%rip)\n{more}\n.loc 1 610 1\ncall quiet"
    )
}

#[test]
fn one_literal_of_both_is_one_value() {
    let built = framed_pair(&texts("combined", ""), &texts("combined", "xor %edx, %edx"));
    moves(&built, 1);
    let built = framed_pair(&texts("combined", ""), &texts("combines", "xor %edx, %edx"));
    assert!(behind(&built, 1).is_none());
}

/// A loop that clang goes through three elements at a time at one level and one at the other: both count in step with
/// its rounds. The sum tells that these are not the same; it is known by its name.
#[test]
fn rounds_of_a_loop_that_one_build_has_unrolled_are_not_those_of_the_other() {
    const SOURCE: &str = r#"
unsigned long mix(unsigned long h, unsigned long x) {
  h ^= x + 0x9e3779b97f4a7c15ul; h *= 0x632be59bd9b4e019ul; return h ^ h >> 29;
}
__attribute__((noinline)) static unsigned long sum_up(const int *v, int n) {
  unsigned long sum = 0;
  for (int i = 0; i < n; i++) sum = mix(sum, (unsigned long)v[i] + (unsigned)i);
  return sum;
}
int main(int argc, char **argv) {
  int v[36];
  for (int i = 0; i < 36; i++) v[i] = argc * i;
  unsigned long sum = sum_up(v, 36);
  v[argc & 31] = 1;
  return (int)(sum + sum_up(v, 36));
}
"#;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("p.c");
    std::fs::write(&file, SOURCE).unwrap();
    let build_at = |level: &str| {
        let out = directory.path().join(level);
        let mut clang = std::process::Command::new("clang");
        clang.args(["-g", "-fPIE", "-pie", "-Wl,--build-id", level, "-o"]).args([&out, &file]);
        assert!(clang.status().unwrap().success(), "clang");
        out
    };
    for (old, new) in [("-O2", "-O1"), ("-O1", "-O2")] {
        let (old, new) = (build_at(old), build_at(new));
        let options = Options { old, new, live_frames: true, ..Options::default() };
        let built = build(&options, &|_| ()).unwrap();
        let is_it = |c: &&Carried| built.old.function(c.function).name() == "sum_up";
        let carried = built.carried.iter().find(is_it).unwrap();
        assert!(carried.blind.iter().any(|b| b.kind == SiteKind::Loop), "it has no loop");
        // Of what goes from round to round.
        let is_counted = |m: &Move| matches!(m.from, Value::Binary { .. });
        let wrong = carried.proven.iter().find(|p| p.translation.moves.iter().any(is_counted));
        assert!(wrong.is_none(), "{wrong:?}");
    }
}

/// By the number of the element in ebx, of 32 bits with a sign.
fn by_narrow_number(first: u32, end: u32) -> String {
    let begin = format!("mov ${first}, %ebx\nlea area(%rip), %r12");
    let load = "movslq %ebx, %rdi\nmov (%r12,%rdi,8), %rdi";
    walked(&begin, load, &format!("add $1, %ebx\ncmp ${end}, %ebx"))
}

#[test]
fn a_number_of_32_bits_goes_along_with_a_pointer_up_to_a_known_end() {
    let [pointer, number] = [by_pointer("lea area(%rip), %rbx"), by_narrow_number(0, 64)];
    let there = framed_pair(&pointer, &number);
    let Some(Value::Binary { op: Binary::Sar, .. }) = into(&moves(&there, 1), RBX).cloned() else {
        panic!("{:?}", moves(&there, 1));
    };
    let back = framed_pair(&number, &pointer);
    assert!(matches!(into(&moves(&back, 1), RBX), Some(Value::Binary { op: Binary::Add, .. })));
}

#[test]
fn what_a_number_of_32_bits_that_changes_its_sign_leads_to_is_not_what_a_pointer_leads_to() {
    // What was read is stored, and nobody else may look there.
    let told = |body: String| {
        body.replace("call hook\n.loc 1 620", "mov %rdi, shared(%rip)\ncall quiet\n.loc 1 620")
    };
    let pair = |first: u32| {
        let start = format!("lea area(%rip), %rbx\nmov ${}, %eax\nlea (%rbx,%rax,8), %rbx", first);
        let pointer = by_pointer(&start).replace("area+512(%rip)", "512(%rbx)");
        [pointer, by_narrow_number(first, first + 64)].map(told)
    };
    let [pointer, number] = pair(3);
    assert!(behind(&framed_pair(&pointer, &number), 1).is_some());
    assert!(behind(&framed_pair(&number, &pointer), 1).is_some());
    let [pointer, number] = pair(i32::MAX.cast_unsigned() - 16);
    assert_eq!(behind(&framed_pair(&pointer, &number), 1), None);
    assert_eq!(behind(&framed_pair(&number, &pointer), 1), None);
}

#[test]
fn a_number_of_32_bits_whose_end_is_not_known_does_not_go_along_with_a_pointer() {
    let unknown = |body: String, end: &str| body.replace(end, "limit(%rip)");
    let number = unknown(by_narrow_number(0, 64), "$64");
    let pointer = unknown(by_pointer("lea area(%rip), %rbx"), "%r12, %rbx")
        .replace("cmp limit(%rip)", "cmp %rbx, limit(%rip)");
    assert_eq!(behind(&framed_pair(&pointer, &number), 1), None);
    assert_eq!(behind(&framed_pair(&number, &pointer), 1), None);
}
