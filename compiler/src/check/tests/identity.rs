//! Right tables for a function and itself: everything live stays where it is.

use super::super::Checker;
use super::super::calls::{SAVED, Set};
use super::super::demand::low;
use super::super::function::{Analysis, Point};
use super::super::rows::{Base, Saved};
use super::{general, manifest, slot, step, vector};
use crate::image::{FunctionId, Image};
use dsu_patch_format::frames::{Move, Translation, Value};
use dsu_patch_format::manifest::ReplacedFunction;
use dsu_patch_format::plan::{Plan, Protection, RedirectForm, Segment, Site, SiteKind};
use dsu_patch_format::{Bundle, NewAddr, OldAddr};
use iced_x86::Mnemonic;

/// The table of a point that goes on at itself.
pub(super) fn table(function: &Analysis, point: &Point) -> Option<Translation> {
    let depth = u64::try_from(-point.state.stack_pointer()?).ok()?;
    let mut moves: Vec<Move> = Vec::new();
    let mut stay = |place| moves.push(step(place, Value::At(place)));
    for number in 0..16 {
        let n = usize::from(number);
        let mut live = point.demand.hard.general[n] | point.demand.soft.general[n];
        if number == 5 && matches!(point.row.as_ref()?.cfa, Base::Rbp(_)) {
            live = 0xff;
        }
        if number != 4 && live != 0 && point.reached.defined.has(Set::general(number)) {
            let bytes = [1, 2, 4, 8].into_iter().find(|b| u64::from(live) <= low(*b))?;
            stay(general(number, u8::try_from(bytes).ok()?));
        }
    }
    for number in 0..32 {
        let n = usize::from(number);
        let live = point.demand.hard.vector[n] | point.demand.soft.vector[n];
        if live != 0 && point.reached.defined.has(Set::vector(number)) {
            let bytes = [4, 8, 16, 32, 64].into_iter().find(|b| live <= low(*b))?;
            stay(vector(number, u8::try_from(bytes).ok()?));
        }
    }
    let bytes = &function.effects.bytes;
    let live = |o: &i64| bytes.index(*o).is_some_and(|n| point.demand.frame.has(n));
    let top = point.state.stack_pointer()?;
    let mut offsets: Vec<i64> =
        bytes.offsets().filter(|o| (top..-8).contains(o) && live(o)).collect();
    if let Some(row) = &point.row {
        for number in SAVED {
            if let Saved::Slot(at) = row.saved[usize::from(number)] {
                offsets.extend(at..at + 8);
            }
        }
    }
    offsets.sort_unstable();
    offsets.dedup();
    for run in offsets.chunk_by(|a, b| a + 1 == *b && b % 8 != 0) {
        stay(slot(run[0], u32::try_from(run.len()).ok()?));
    }
    Some(Translation {
        old_depth: depth,
        new_depth: depth,
        lowered: 0,
        flags: point.demand.flags != 0,
        moves,
        objects: Vec::new(),
    })
}

/// A bundle that replaces functions of an image by themselves, with a site at every return point and
/// every head of a block that `wanted` picks.
pub(super) fn bundle(
    image: &Image,
    functions: &[FunctionId],
    wanted: impl Fn(&Analysis, usize) -> Option<SiteKind>,
) -> Bundle {
    let calls = super::super::Calls::new(image);
    let mut sites = Vec::new();
    let mut frames = Vec::new();
    let mut replaced = Vec::new();
    for (number, id) in (0..).zip(functions) {
        let entry = image.function(*id);
        replaced.push(ReplacedFunction {
            name: entry.name().to_owned(),
            old: OldAddr(entry.address),
            old_size: entry.size,
            new: Some(NewAddr(entry.address)),
            new_size: entry.size,
            file: String::new(),
            line: 0,
            why: vec!["test".to_owned()],
            coverage: Default::default(),
        });
        let function = Analysis::new(&calls, *id);
        for index in 0..function.code.steps.len() {
            let Some(kind) = wanted(&function, index) else { continue };
            let at = function.code.steps[index].instruction.ip();
            let Some(point) = function.point(&calls, at) else { continue };
            let Some(translation) = table(&function, &point) else { continue };
            sites.push(Site {
                at: OldAddr(at),
                kind,
                form: RedirectForm::Near,
                stub: NewAddr(0),
                stub_len: 0,
                to: NewAddr(at),
                function: number,
                expect: image.content(at, 5).unwrap_or_default().into_owned(),
                mask: vec![0xff; 5],
            });
            frames.push(translation);
        }
    }
    let text = image.sections.iter().filter(|s| s.name == ".text");
    let mut segments: Vec<Segment> = text
        .map(|s| Segment {
            start: NewAddr(s.address),
            bytes: image.content(s.address, s.size).unwrap_or_default().into_owned(),
            zeroes: 0,
            protection: Protection::Text,
        })
        .collect();
    let start = (image.extent.end + 0xfff) & !0xfff;
    let mut stubs = Vec::new();
    for (site, table) in sites.iter_mut().zip(&frames) {
        site.stub = NewAddr(start + stubs.len() as u64);
        let (bytes, _) = super::maker::stub(table, site.stub.0, site.to.0);
        site.stub_len = u32::try_from(bytes.len()).unwrap();
        stubs.extend(bytes);
    }
    let protection = Protection::Text;
    segments.push(Segment { start: NewAddr(start), bytes: stubs, zeroes: 0, protection });
    let plan = Plan {
        old_start: OldAddr(image.extent.start),
        old_end: OldAddr(image.extent.end),
        segments,
        sites,
        ..Plan::default()
    };
    Bundle { manifest: manifest(replaced), plan, frames }
}

/// Behind every call that comes back.
pub(super) fn returns(function: &Analysis, index: usize) -> Option<SiteKind> {
    let before = index.checked_sub(1)?;
    let call = function.code.steps[before].instruction.mnemonic() == Mnemonic::Call;
    (call && function.code.next(before) == Some(index)).then_some(SiteKind::Return)
}

/// Every instruction.
pub(super) fn everywhere(_: &Analysis, _: usize) -> Option<SiteKind> {
    Some(SiteKind::Point)
}

/// What the checker objects to in all functions of a file, planting aside. For looking at.
#[test]
#[ignore = "reads the file that DSU_CHECK_IMAGE names"]
fn a_real_image() {
    let path = std::env::var("DSU_CHECK_IMAGE").unwrap();
    let image = Image::load(std::path::Path::new(&path), None).unwrap();
    let only = std::env::var("DSU_CHECK_FUNCTION").ok();
    let functions: Vec<FunctionId> = (0..image.functions.len())
        .map(FunctionId)
        .filter(|id| image.function(*id).import.is_none())
        .filter(|id| only.as_deref().is_none_or(|o| image.function(*id).name() == o))
        .collect();
    let started = std::time::Instant::now();
    let bundle = match std::env::var("DSU_CHECK_POINTS") {
        Ok(_) => bundle(&image, &functions, everywhere),
        Err(_) => bundle(&image, &functions, returns),
    };
    println!("{} sites made in {:?}", bundle.plan.sites.len(), started.elapsed());
    let started = std::time::Instant::now();
    let checker = Checker::new(&image, &image, &bundle);
    println!("analysed in {:?}", started.elapsed());
    let started = std::time::Instant::now();
    let mut counts = std::collections::BTreeMap::<_, usize>::new();
    let mut bad = 0;
    for site in 0..bundle.plan.sites.len() {
        let found = checker.site(&bundle, site);
        let found: Vec<_> =
            found.into_iter().filter(|o| o.rule != super::super::Rule::Planted).collect();
        bad += usize::from(!found.is_empty());
        for objection in found {
            let count = counts.entry(objection.rule).or_default();
            *count += 1;
            if *count <= 12 {
                println!("{objection}");
            }
        }
    }
    println!("{bad} sites objected to, {counts:#?} in {:?}", started.elapsed());
}
