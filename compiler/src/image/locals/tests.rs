//! Places in the frame agree with what the code does.

use crate::code::decode;
use crate::debug::tests::{clang, compile};
use crate::debug::{LocalPlace as Place, Locals};
use crate::image::{Cfa, Function, Image};
use iced_x86::{Mnemonic, OpKind, Register};

/// `address` is passed to `one` alone, so that each `lea` of the frame is that of the object.
const FRAMES: &str = r#"
    void one(int *); int ten(int, int, int, int, int, int, int, int, int, int);
    int work(int a, int b) {
        int object[6] = {a, b};
        one(object);
        int got = ten(a, b, 3, 4, 5, 6, 7, a, b, a + b);
        one(object);
        return got + object[2];
    }
    __attribute__((noinline)) void one(int *p) { __asm__ volatile("" :: "r"(p) : "memory"); }
    __attribute__((noinline)) int ten(int a, int b, int c, int d, int e, int f, int g, int h, int i,
                                      int j) {
        __asm__ volatile("" : "+r"(j));
        return a + b + c + d + e + f + g + h + i + j;
    }
    int main(int argc, char **argv) { return work(argc, argc + 1); }
"#;

fn load(compiler: &str, options: &[&str]) -> Image {
    let built = compile(compiler, options, &[FRAMES]);
    Image::load(&built.path, None).unwrap()
}

fn work(image: &Image) -> (&Function, Locals) {
    let function = image.functions.iter().find(|f| f.name() == "work").unwrap();
    (function, image.locals(function).unwrap())
}

/// Offsets from the CFA of all addresses of the frame that the code takes.
fn taken(image: &Image, function: &Function) -> Vec<i64> {
    let rows = image.rows(function);
    let steps = decode(image, function).steps;
    let taken = steps.iter().filter_map(|step| {
        let instruction = &step.instruction;
        let (base, displacement) = match instruction.mnemonic() {
            Mnemonic::Lea if instruction.memory_index() == Register::None => {
                (instruction.memory_base(), instruction.memory_displacement64().cast_signed())
            }
            Mnemonic::Mov => (instruction.op1_register(), 0),
            _ => return None,
        };
        let row = rows.iter().find(|row| row.extent.contains(&instruction.ip()))?;
        let Cfa::Register(number, offset) = row.cfa else { return None };
        let is_base = base.is_gpr64() && base.number() == usize::from(number);
        is_base.then(|| displacement - offset)
    });
    taken.collect()
}

fn check(compiler: &str, options: &[&str]) {
    let image = load(compiler, options);
    let (function, locals) = work(&image);
    let object = locals.variables.iter().find(|local| local.name == "object").unwrap();
    let extent = object.extent().unwrap_or_else(|| panic!("{compiler} {options:?}: {object:x?}"));
    assert_eq!(extent.end - extent.start, 24);
    let taken = taken(&image, function);
    assert!(taken.contains(&extent.start), "{compiler} {options:?}: {extent:?} of {taken:?}");
    let found = locals.object_at(extent.start + 8, None);
    assert_eq!(found, Some((extent, "object".to_owned())));
}

#[test]
fn objects_are_where_the_code_takes_their_address() {
    let levels = ["-O0", "-O1", "-O2", "-O3", "-Os"];
    let frames = ["-fomit-frame-pointer", "-fno-omit-frame-pointer"];
    for compiler in std::iter::once("gcc").chain(clang()) {
        for level in levels {
            for frame in frames {
                check(compiler, &[level, frame, "-fno-inline"]);
            }
        }
    }
}

/// More values than callee-saved registers live across a call with arguments on the stack.
const SPILLS: &str = r#"
    long get(void); long ten(long, long, long, long, long, long, long, long, long, long);
    long work(long n) {
        long a = get(), b = get(), c = get(), d = get(), e = get(), f = get(), g = get(), h = get();
        long sum = 0;
        for (long i = 0; i < n; i++) {
            sum += ten(a, b, c, d, e, f, g, h, i, sum);
            a += sum; b ^= a; c += b; d ^= c; e += d; f ^= e; g += f; h ^= g;
        }
        return sum + a + b + c + d + e + f + g + h;
    }
    __attribute__((noinline)) long get(void) { long r; __asm__ volatile("" : "=r"(r)); return r; }
    __attribute__((noinline)) long ten(long a, long b, long c, long d, long e, long f, long g, long h,
                                       long i, long j) {
        __asm__ volatile("" : "+r"(j));
        return a + b + c + d + e + f + g + h + i + j;
    }
    int main(int argc, char **argv) { return (int)work(argc); }
"#;

/// Offsets from the CFA of stores to the frame.
fn stored(image: &Image, function: &Function, pushes: bool) -> std::collections::BTreeSet<i64> {
    let rows = image.rows(function);
    let steps = decode(image, function).steps;
    let stores = steps.iter().map(|step| &step.instruction).filter_map(|i| {
        let (base, displacement) = match i.mnemonic() {
            Mnemonic::Push if pushes => (Register::RSP, -8),
            Mnemonic::Mov if i.op0_kind() == OpKind::Memory => {
                (i.memory_base(), i.memory_displacement64().cast_signed())
            }
            _ => return None,
        };
        let row = rows.iter().find(|row| row.extent.contains(&i.ip()))?;
        let Cfa::Register(number, offset) = row.cfa else { return None };
        (base.is_gpr64() && base.number() == usize::from(number)).then(|| displacement - offset)
    });
    stores.collect()
}

fn check_spills(compiler: &str, options: &[&str]) -> usize {
    let built = compile(compiler, options, &[SPILLS]);
    let image = Image::load(&built.path, None).unwrap();
    let (function, locals) = work(&image);
    // gcc says of a variable that it is where it was pushed as an argument; clang does not.
    let stored = stored(&image, function, compiler == "gcc");
    let lists = locals.variables.iter().filter(|local| !local.is_whole_scope);
    let mut seen = 0;
    for local in lists {
        for (range, place) in &local.places {
            let Place::Frame(offset) = place else { continue };
            let what = format!("{compiler} {options:?}: {} at {range:x?}", local.name);
            assert!(stored.contains(offset), "{what}: {offset} of {stored:?}");
            seen += 1;
        }
    }
    seen
}

/// Also where the stack pointer still is below pushed arguments.
#[test]
fn spilled_variables_are_where_the_code_stores_them() {
    for compiler in std::iter::once("gcc").chain(clang()) {
        let mut seen = 0;
        for level in ["-O1", "-O2", "-Os", "-Oz"] {
            seen += check_spills(compiler, &[level, "-fno-inline"]);
        }
        assert!(seen > 10, "{compiler}: {seen}");
    }
}

#[test]
fn separate_debug_files_serve_too() {
    let built = compile("gcc", &["-O2", "-fno-inline"], &[FRAMES]);
    let plain = work(&Image::load(&built.path, None).unwrap()).1;
    let directory = built.directory.path();
    std::fs::write(directory.join("apart"), built.objcopy(&["--only-keep-debug"])).unwrap();
    std::fs::write(directory.join("bare"), built.objcopy(&["--strip-all"])).unwrap();
    let image = Image::load(&directory.join("bare"), Some(&directory.join("apart"))).unwrap();
    assert_eq!(work(&image).1, plain);
}
