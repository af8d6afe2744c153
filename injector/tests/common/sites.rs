//! Checkpoint sites made by hand: for builds that differ by constants alone, in which every instruction
//! is at the same offset of its function and every frame has the same layout. A stub is a jump then.

use super::Build;
use dsu_patch_format::manifest::BlindPoint;
use dsu_patch_format::plan::{Protection, RedirectForm, Segment, Site, SiteKind};
use dsu_patch_format::validate::PAGE;
use dsu_patch_format::{Bundle, NewAddr, OldAddr, Translation};

/// A site to be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub function: &'static str,
    /// From the function's entry.
    pub offset: u64,
    pub kind: SiteKind,
    /// Offset of a cave, for a short jump.
    pub cave: Option<u64>,
}

/// The named program point.
pub fn point(build: &Build, name: &'static str) -> Wanted {
    let offset = build.points[name] - build.symbol(name).address;
    Wanted { function: name, offset, kind: SiteKind::Loop, cave: None }
}

/// Where calls of named functions return to in `function`.
pub fn returns(build: &Build, function: &'static str) -> Vec<Wanted> {
    let symbol = build.symbol(function);
    let is_entry = |a: u64| build.symbols.values().any(|s| s.is_function && s.address == a);
    let calls = symbol.bytes.windows(5).enumerate().filter(|(at, bytes)| {
        let distance = i32::from_le_bytes(bytes[1..].try_into().unwrap());
        let next = symbol.address + *at as u64 + 5;
        bytes[0] == 0xe8 && is_entry(next.wrapping_add_signed(i64::from(distance)))
    });
    let offsets = calls.map(|(at, _)| at as u64 + 5);
    let site = |offset| Wanted { function, offset, kind: SiteKind::Return, cave: None };
    offsets.map(site).collect()
}

/// Adds sites to a bundle, with stubs behind NEW's image.
pub fn add(bundle: &mut Bundle, old: &Build, new: &Build, sites: &[Wanted]) {
    let stubs = new.extent.1.next_multiple_of(PAGE);
    let mut code = Vec::new();
    for wanted in sites {
        let (from, to) = (old.symbol(wanted.function), new.symbol(wanted.function));
        let at = from.address + wanted.offset;
        // Without room behind the function: by dead code behind the redirect.
        let short_of_room = wanted.offset + 5 > old.room(wanted.function);
        let cave = wanted.cave.or(short_of_room.then_some(5));
        let cave = cave.map(|cave| OldAddr(from.address + cave));
        let form = cave.map_or(RedirectForm::Near, |cave| RedirectForm::Short { cave });
        let len = usize::try_from(form.jump_len()).unwrap();
        let expect = old.code(at, len).to_vec();
        let mask = |i: usize| if is_operand(old, at + i as u64) { 0 } else { 0xff };
        let stub = stubs + code.len() as u64;
        let to = to.address + wanted.offset;
        code.push(0xe9);
        let distance = i32::try_from(to.wrapping_sub(stub + 5).cast_signed()).unwrap();
        code.extend_from_slice(&distance.to_le_bytes());
        let names = &bundle.manifest.replaced;
        let function = names.iter().position(|f| f.name == wanted.function).unwrap();
        bundle.plan.sites.push(Site {
            at: OldAddr(at),
            kind: wanted.kind,
            form,
            stub: NewAddr(stub),
            stub_len: 5,
            to: NewAddr(to),
            function: u32::try_from(function).unwrap(),
            // Operands may have been fixed up in an earlier update.
            mask: (0..len).map(mask).collect(),
            expect,
        });
        let none = Translation { old_depth: 8, new_depth: 8, ..Translation::default() };
        bundle.frames.push(none);
    }
    bundle.plan.sites.sort_by_key(|s| s.at);
    if sites.is_empty() {
        return;
    }
    let start = NewAddr(stubs);
    let protection = Protection::Text;
    bundle.plan.segments.push(Segment { start, bytes: code, zeroes: 0, protection });
}

/// Whether a byte belongs to the operand of a call, or could.
fn is_operand(build: &Build, at: u64) -> bool {
    (1..5).any(|back| matches!(build.code(at - back, 1), [0xe8 | 0xe9]))
}

/// Notes why there is no site.
pub fn blind_point(bundle: &mut Bundle, old: &Build, at: Wanted, why: &str) {
    let names = &bundle.manifest.replaced;
    let function = names.iter().position(|f| f.name == at.function).unwrap();
    bundle.manifest.blind_points.push(BlindPoint {
        function: u32::try_from(function).unwrap(),
        at: OldAddr(old.symbol(at.function).address + at.offset),
        kind: at.kind,
        file: "program.c".to_owned(),
        line: 7,
        new_local: false,
        why: why.to_owned(),
    });
}
