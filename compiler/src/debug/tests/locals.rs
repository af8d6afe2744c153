//! Local variables: scopes, places over time, constants, pieces.

use super::*;
use crate::debug::{FrameView, Local, LocalPlace as Place, Locals, Register, SectionStore};

fn locals(bytes: &[u8], name: &str) -> Locals {
    let info = read(bytes, None).unwrap();
    let store = SectionStore::load(&object::File::parse(bytes).unwrap()).unwrap();
    let index = info.functions.iter().position(|f| f.name == name).unwrap();
    let found = info.locals(index, &store, bytes, &FrameView::default()).unwrap();
    assert_eq!(found.damage, None);
    found
}

fn all<'l>(locals: &'l Locals, name: &str) -> Vec<&'l Local> {
    locals.variables.iter().filter(|local| local.name == name).collect()
}

fn one<'l>(locals: &'l Locals, name: &str) -> &'l Local {
    match all(locals, name)[..] {
        [one] => one,
        ref found => panic!("{} variables {name}", found.len()),
    }
}

const BLOCKS: &str = r#"
    extern int printf(const char *, ...);
    struct pair { long a, b; };
    int work(int count, char *text, struct pair p) {
        int total = 0;
        static int calls = 1;
        for (int i = 0; i < count; i++) { int step = i * 2; total += step; }
        { char buffer[32]; buffer[0] = text[0]; total += buffer[0] + calls; }
        for (int i = 9; i > 0; i--) total += i + (int)p.b;
        extern int elsewhere;
        return total + elsewhere;
    }
    int elsewhere;
    int main(int argc, char **argv) {
        struct pair p = {1, 2};
        return work(argc, argv[0], p);
    }
"#;

#[test]
fn blocks_parameters_and_frame_places() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let built = compile("gcc", &["-O0", version], &[BLOCKS]);
        let found = locals(&built.bytes(), "work");
        let order = ["count", "text", "p"].map(|name| one(&found, name).parameter);
        assert_eq!(order, [Some(0), Some(1), Some(2)]);
        let total = one(&found, "total");
        assert_eq!((total.parameter, total.size, total.decl_line), (None, Some(4), 5));
        assert!(total.is_whole_scope && total.scope.len() == 1);
        assert_eq!(total.scope[0].function, "work");
        let blocks = |local: &Local| local.scope[0].blocks.clone();
        let loops: Vec<_> = all(&found, "i").into_iter().map(blocks).collect();
        assert_eq!(loops, [vec![1], vec![3]]);
        assert_eq!(blocks(one(&found, "step")), [1, 1]);
        let buffer = one(&found, "buffer");
        let extent = buffer.extent().unwrap();
        assert_eq!((blocks(buffer), extent.end - extent.start), (vec![2], 32));
        let inside = (extent.clone(), "buffer".to_owned());
        assert_eq!(found.object_at(extent.start + 7, None), Some(inside));
        assert_eq!(found.object_at(extent.end, Some(buffer.in_scope[0].start)), None);
        assert!(matches!(one(&found, "calls").places[..], [(_, Place::Address(_))]));
        assert!(all(&found, "elsewhere").is_empty());
        // Only what is in scope at a point.
        let here: Vec<_> = found.at(buffer.in_scope[0].start).map(|(l, _)| &*l.name).collect();
        assert_eq!(here, ["count", "text", "p", "total", "calls", "buffer"]);
    }
}

const TIME: &str = r#"
    void take(long); long give(void);
    struct pair { long a, b; };
    long work(long n, struct pair p) {
        long constant = 42;
        take(n);
        long got = give();
        take(constant);
        long gone = got + 1;
        return n + got + p.b;
    }
    __attribute__((noinline)) void take(long n) { __asm__ volatile("" :: "r"(n) : "rbx"); }
    __attribute__((noinline)) long give(void) { long r; __asm__ volatile("" : "=r"(r)); return r; }
    int main(int argc, char **argv) { struct pair p = {argc, 2}; return work(argc, p); }
"#;

#[test]
fn places_change_over_time() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let options = ["-O2", version, "-fno-inline", "-fno-ipa-cp", "-fno-ipa-sra", "-fno-ipa-ra"];
        let built = compile("gcc", &options, &[TIME]);
        let info = built.info();
        let entry = function(&info, "work").low_pc;
        let found = locals(&built.bytes(), "work");
        let n = one(&found, "n");
        // The psABI passes it in rdi; it must outlive calls, then.
        assert_eq!(n.place_at(entry), Some(&Place::Register(Register::General(7))));
        let later: Vec<_> = n.places.iter().map(|(_, place)| place).collect();
        let is_saved = |place: &&Place| {
            matches!(place, Place::Register(Register::General(3 | 5 | 12..=15)) | Place::Frame(_))
        };
        assert!(!n.is_whole_scope && later.iter().any(is_saved), "{later:?}");
        let constants: Vec<_> = one(&found, "constant").places.iter().collect();
        assert!(!constants.is_empty());
        assert!(constants.iter().all(|(_, place)| *place == Place::Constant(42)), "{constants:?}");
        let piece = |number| crate::debug::Piece {
            bytes: 8,
            place: Place::Register(Register::General(number)),
        };
        let in_two = Place::Pieces(vec![piece(6), piece(2)]);
        assert_eq!(one(&found, "p").place_at(entry), Some(&in_two));
    }
}

#[test]
fn an_expression_says_from_what_register_it_is_computed() {
    const NARROW: &str = r#"
        int narrow(void); void take(long); volatile int number;
        long work(void) {
            for (;;) { long since = narrow(); take(1); number += narrow() - since; }
        }
        __attribute__((noipa)) int narrow(void) { return number; }
        __attribute__((noipa)) void take(long n) { number += n; }
        int main(void) { return work(); }
    "#;
    let built = compile("gcc", &["-O2"], &[NARROW]);
    let found = locals(&built.bytes(), "work");
    let places = &one(&found, "since").places;
    let is_computed = |place: &Place| {
        matches!(place, Place::Expression(Some(Register::General(3 | 5 | 12..=15))))
    };
    assert!(places.iter().any(|(_, place)| is_computed(place)), "{places:?}");
}

#[test]
fn compressed_and_separate_sections_say_the_same() {
    let built = compile("gcc", &["-O2"], &[TIME]);
    let plain = locals(&built.bytes(), "work");
    let packed = built.objcopy(&["--compress-debug-sections=zlib"]);
    assert_eq!(locals(&packed, "work"), plain);
    let info = built.info();
    let index = info.functions.iter().position(|f| f.name == "work").unwrap();
    let apart = built.objcopy(&["--only-keep-debug"]);
    let file = object::File::parse(&*apart).unwrap();
    assert!(SectionStore::is_in(&file));
    let store = SectionStore::load(&file).unwrap();
    let again = info.locals(index, &store, &apart, &FrameView::default()).unwrap();
    assert_eq!(again, plain);
}

const INLINED: &str = r#"
    int seed(int);
    static inline __attribute__((always_inline)) int twice(int n) {
        int unused_one = 3;
        int result = seed(n);
        { int inner = seed(result); result += inner; }
        return result * 2;
    }
    static inline __attribute__((always_inline)) int both(int m) {
        return twice(m) + twice(m + 1);
    }
    int work(int a) { return both(a) + twice(a); }
    __attribute__((noinline)) int seed(int n) { __asm__ volatile("" : "+r"(n)); return n; }
    int main(int argc, char **argv) { return work(argc); }
"#;

fn inlined(compiler: &str) {
    let built = compile(compiler, &["-O1"], &[INLINED]);
    let found = locals(&built.bytes(), "work");
    type Link<'n> = (&'n str, Option<(u32, u32, u32)>);
    let chains: std::collections::BTreeSet<Vec<Link<'_>>> = found
        .variables
        .iter()
        .filter(|local| local.name == "result")
        .map(|local| {
            let call = |call: &crate::debug::Call| (call.line, call.ordinal, call.of);
            local.scope.iter().map(|s| (&*s.function, s.call.as_ref().map(call))).collect()
        })
        .collect();
    let outer = [("work", None), ("both", Some((12, 0, 1)))];
    let twice = |ordinal, of, line| ("twice", Some((line, ordinal, of)));
    let expected = std::collections::BTreeSet::from([
        vec![outer[0], outer[1], twice(0, 2, 10)],
        vec![outer[0], outer[1], twice(1, 2, 10)],
        vec![outer[0], twice(0, 1, 12)],
    ]);
    assert_eq!(chains, expected, "{compiler}");
    // In a block of its own, and known also where no code came of it.
    assert!(all(&found, "inner").iter().all(|l| l.scope.last().unwrap().blocks == [1]));
    assert!(!all(&found, "unused_one").is_empty());
    assert_eq!(one(&found, "a").parameter, Some(0));
    let inner = all(&found, "result")[0];
    let pc = inner.places.iter().find_map(|(r, _)| inner.is_in_scope(r.start).then_some(r.start));
    let around = found.inlined_at(pc.unwrap()).unwrap();
    assert_eq!(around.scope.last().unwrap().function, "twice");
}

#[test]
fn inlined_bodies_have_their_chain_of_calls() {
    inlined("gcc");
    if let Some(clang) = clang() {
        inlined(clang);
    }
}
