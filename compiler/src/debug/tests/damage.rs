//! Damaged debug information gives an error or warnings, never a panic, and it ends.

use object::{Object, ObjectSection};

use super::*;
use crate::debug::{FrameView, SectionStore, changed_types};

const SOURCE: &str = r#"
    struct node { struct node *next; union { int a; float f; }; enum { X, Y = 7 } e; char n[3][4]; };
    typedef struct { struct node in[2]; int b : 3, c : 9; } outer_t;
    static outer_t object; __thread long each; const char *const names[] = {"a", "b"};
    static inline int twice(int n) { static int calls; calls++; return n * 2; }
    __attribute__((noinline)) int sum(const outer_t *o, double d) {
        int total = 0;
        for (int i = 0; i < o->b; i++) { total += twice(o->in[i].a) + (int)d; }
        return total;
    }
    int main(int argc, char **argv) { each++; return sum(&object, argc) + names[argc & 1][0]; }
"#;

/// Numbers that look random and are the same in every run (xorshift, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }
}

/// Where the debug sections are in a file.
fn sections(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let file = object::File::parse(bytes).unwrap();
    file.sections()
        .filter(|section| section.name().is_ok_and(|name| name.starts_with(".debug_")))
        .filter_map(|section| section.file_range())
        .map(|(start, size)| {
            usize::try_from(start).unwrap()..usize::try_from(start + size).unwrap()
        })
        .collect()
}

fn use_all(info: &DebugInfo, bytes: &[u8]) {
    use_locals(info, bytes);
    for (id, ty) in info.types.iter() {
        info.types.size(id);
        info.types.is_const(id);
        assert!(info.types.display(Some(id)).len() < 1 << 20, "{ty:?}");
    }
    for function in &info.functions {
        for range in &function.ranges {
            info.position(range.start);
            info.rows(range.clone());
            assert!(info.function_at(range.start).is_some());
        }
    }
    for address in (0..0x8000).step_by(64) {
        info.position(address);
        info.function_at(address);
        info.variable_at(address);
    }
}

/// Local variables are read later, from the same bytes; what is said of them ends, too.
fn use_locals(info: &DebugInfo, bytes: &[u8]) {
    let file = object::File::parse(bytes).unwrap();
    let Ok(store) = SectionStore::load(&file) else { return };
    for (index, function) in info.functions.iter().enumerate() {
        let Ok(locals) = info.locals(index, &store, bytes, &FrameView::default()) else { continue };
        assert!(locals.variables.len() < 1 << 12);
        for range in &function.ranges {
            locals.at(range.start).for_each(drop);
            locals.inlined_at(range.start);
        }
        locals.object_at(-16, None);
    }
}

fn damage(options: &[&str], rounds: usize) {
    let whole = compile("gcc", options, &[SOURCE]).bytes();
    let sections = sections(&whole);
    let good = read(&whole, None).unwrap();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut read_well = 0;
    for _ in 0..rounds {
        let mut bytes = whole.clone();
        let section = sections[numbers.next(sections.len())].clone();
        for _ in 0..=numbers.next(4) {
            let at = section.start + numbers.next(section.len());
            let byte = u8::try_from(numbers.next(256)).unwrap();
            bytes[at] = if byte < 64 { 0xff } else { byte };
        }
        if let Ok(info) = read(&bytes, None) {
            use_all(&info, &bytes);
            changed_types(&good, &info);
            changed_types(&info, &good);
            read_well += 1;
        }
    }
    assert!(read_well > rounds / 4, "{read_well} of {rounds}");
}

#[test]
fn flipped_bytes_dwarf_5() {
    damage(&["-O2", "-gdwarf-5"], 1500);
}

#[test]
fn flipped_bytes_dwarf_4_with_type_units() {
    damage(&["-O2", "-gdwarf-4", "-fdebug-types-section"], 1500);
}

#[test]
fn noise_in_place_of_each_section() {
    let whole = compile("gcc", &["-O2"], &[SOURCE]).bytes();
    let mut numbers = Numbers(7);
    for section in sections(&whole) {
        for fill in [Some(0), Some(0xff), Some(0x01), None] {
            let mut bytes = whole.clone();
            for byte in &mut bytes[section.clone()] {
                *byte = fill.unwrap_or_else(|| u8::try_from(numbers.next(256)).unwrap());
            }
            if let Ok(info) = read(&bytes, None) {
                use_all(&info, &bytes);
            }
        }
    }
}

#[test]
fn a_compressed_section_cannot_claim_too_much() {
    let built = compile("gcc", &["-gz=zlib"], &[SOURCE]);
    let mut bytes = built.bytes();
    let file = object::File::parse(&*bytes).unwrap();
    let section = file.section_by_name(".debug_info").unwrap();
    let (start, _) = section.file_range().unwrap();
    // ch_size is the second eightbyte of the compression header (gABI, "Compression header").
    let size = usize::try_from(start).unwrap() + 8;
    bytes[size..size + 8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    assert!(matches!(read(&bytes, None), Err(DebugError::Expansion { .. })));
}

#[test]
fn damage_is_reported() {
    let mut bytes = compile("gcc", &["-O2"], &[SOURCE]).bytes();
    let file = object::File::parse(&*bytes).unwrap();
    let (start, size) = file.section_by_name(".debug_info").unwrap().file_range().unwrap();
    let middle = usize::try_from(start + size / 2).unwrap();
    bytes[middle..middle + 64].fill(0xff);
    let info = read(&bytes, None).unwrap();
    assert!(info.warnings.iter().any(|warning| warning.unit == "a.c"), "{:?}", info.warnings);
}
