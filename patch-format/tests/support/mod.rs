//! Bundles to test with: one made by hand, and any number of arbitrary valid ones.
//!
//! An arbitrary bundle is built from a list of numbers that proptest chooses (and shrinks): each
//! number is one decision, and every decision leads to a valid bundle.

use dsu_patch_format::manifest::{
    AddedFunction, BuildInfo, DataAction, DataChange, ImageKind, ReplacedFunction,
};
use dsu_patch_format::plan::{
    BlindRange, DataPointer, DataWrite, Fixup, FixupKind, Identity, Import, LineRow, MapRun,
    MapTarget, Protection, Redirect, RedirectForm, Segment, Target,
};
use dsu_patch_format::{Bundle, Manifest, NewAddr, OldAddr, Plan};
use proptest::prelude::*;

const PAGE: u64 = 4096;

/// Any valid bundle.
pub fn bundles() -> impl Strategy<Value = Bundle> {
    proptest::collection::vec(any::<u32>(), 0..400)
        .prop_map(|numbers| Choices::new(numbers).bundle())
}

/// A list of numbers as a source of decisions; 0 when it has run out.
struct Choices {
    numbers: std::vec::IntoIter<u32>,
}

impl Choices {
    fn new(numbers: Vec<u32>) -> Self {
        Self { numbers: numbers.into_iter() }
    }

    fn below(&mut self, end: u64) -> u64 {
        u64::from(self.numbers.next().unwrap_or(0)) % end.max(1)
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 1
    }

    fn count(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let first = self.byte();
        (0..len).map(|i| first.wrapping_mul(31).wrapping_add(i.to_le_bytes()[0])).collect()
    }

    fn text(&mut self) -> String {
        const TEXTS: [&str; 6] = ["", "f", "naïve::größe<T>", "a b", "x.isra.0", "\"quoted\"\n"];
        TEXTS[self.count(TEXTS.len())].to_owned()
    }

    fn bundle(mut self) -> Bundle {
        let manifest = self.manifest();
        let plan = self.plan(&manifest);
        Bundle { manifest, plan, frames: Vec::new() }
    }

    fn manifest(&mut self) -> Manifest {
        let texts = |c: &mut Self| (0..c.count(3)).map(|_| c.text()).collect::<Vec<_>>();
        let kinds = [ImageKind::Executable, ImageKind::Library];
        let build = |c: &mut Self, first: &str| BuildInfo {
            build_id: format!("{first}{}", "0123456789abcdef".repeat(1 + c.count(3))),
            file: c.text(),
            kind: kinds[c.count(2)],
        };
        let replaced = |c: &mut Self| ReplacedFunction {
            name: c.text(),
            old: OldAddr(c.below(1 << 40)),
            old_size: c.below(1000),
            new: c.yes().then(|| NewAddr(c.below(1 << 40))),
            new_size: c.below(1000),
            file: c.text(),
            line: u32::try_from(c.below(9999)).unwrap(),
            why: texts(c),
        };
        let actions = [
            DataAction::Added,
            DataAction::KeptValue,
            DataAction::UpdatedInPlace,
            DataAction::Moved,
            DataAction::Removed,
        ];
        Manifest {
            tool: self.text(),
            options: texts(self),
            old: build(self, "aa"),
            new: build(self, "bb"),
            replaced: (0..self.count(4)).map(|_| replaced(self)).collect(),
            added: (0..self.count(3))
                .map(|_| AddedFunction {
                    name: self.text(),
                    new: NewAddr(self.below(1 << 40)),
                    size: self.below(1000),
                })
                .collect(),
            line_only: texts(self),
            data: (0..self.count(3))
                .map(|_| DataChange {
                    name: self.text(),
                    old_size: self.below(1000),
                    new_size: self.below(1000),
                    action: actions[self.count(actions.len())],
                    why: self.text(),
                })
                .collect(),
            warnings: texts(self),
        }
    }

    fn plan(&mut self, manifest: &Manifest) -> Plan {
        let old_start = self.below(1 << 32);
        let mut plan = Plan {
            old_start: OldAddr(old_start),
            old_end: OldAddr(old_start + 0x1000 + self.below(1 << 24)),
            low_2gib: self.yes(),
            files: (0..self.count(3)).map(|_| self.text()).collect(),
            ..Plan::default()
        };
        plan.imports = (0..self.count(3)).map(|_| self.import()).collect();
        self.segments(&mut plan);
        self.fixups(&mut plan);
        for _ in 0..self.count(4) {
            let redirect = self.redirect(&plan);
            plan.redirects.extend(redirect);
        }
        self.writes(&mut plan);
        self.blind(&mut plan, manifest.replaced.len());
        self.lines(&mut plan);
        self.map(&mut plan);
        plan
    }

    fn import(&mut self) -> Import {
        let version = self.yes().then(|| self.text());
        Import { name: self.text(), version, weak: self.yes() }
    }

    fn segments(&mut self, plan: &mut Plan) {
        let mut next = self.below(1 << 32);
        for _ in 0..self.count(5) {
            let protection = match self.below(3) {
                0 => Protection::Text,
                1 => Protection::ReadOnly,
                _ => Protection::Data,
            };
            if plan.segments.last().is_some_and(|s| s.protection != protection) {
                next = next.div_ceil(PAGE) * PAGE;
            }
            let start = next + self.below(100);
            let len = self.count(200);
            let bytes = self.bytes(len);
            let zeroes = self.below(5000).max(u64::from(bytes.is_empty()));
            next = start + bytes.len() as u64 + zeroes;
            plan.segments.push(Segment { start: NewAddr(start), bytes, zeroes, protection });
        }
    }

    fn fixups(&mut self, plan: &mut Plan) {
        let mut fixups = Vec::new();
        for segment in &plan.segments {
            let mut at = 0;
            loop {
                let kind = match self.below(3) {
                    0 => FixupKind::Rel32,
                    1 => FixupKind::Abs64,
                    _ if plan.low_2gib => FixupKind::Abs32,
                    _ => break,
                };
                at += self.below(40);
                let size = if kind == FixupKind::Abs64 { 8 } else { 4 };
                if at + size > segment.bytes.len() as u64 {
                    break;
                }
                let addend = self.below(1 << 31).cast_signed() - (1 << 30);
                let target = self.target(plan);
                fixups.push(Fixup { at: segment.start.offset(at), kind, addend, target });
                at += size;
            }
        }
        plan.fixups = fixups;
    }

    /// An address of OLD with `room` bytes behind it.
    fn old(&mut self, plan: &Plan, room: u64) -> OldAddr {
        plan.old_start.offset(self.below(plan.old_end.since(plan.old_start) - room + 1))
    }

    fn target(&mut self, plan: &Plan) -> Target {
        match self.below(5) {
            0 => Target::Old(self.old(plan, 0)),
            1 => Target::OldCode(self.old(plan, 0)),
            2 if !plan.imports.is_empty() => {
                Target::Import(u32::try_from(self.count(plan.imports.len())).unwrap())
            }
            3 if !plan.segments.is_empty() => {
                let segment = &plan.segments[self.count(plan.segments.len())];
                let size = segment.bytes.len() as u64 + segment.zeroes;
                Target::New(segment.start.offset(self.below(size + 1)))
            }
            _ => Target::OldIdentity(self.old(plan, 0)),
        }
    }

    fn redirect(&mut self, plan: &Plan) -> Option<Redirect> {
        let text = |s: &&Segment| s.protection == Protection::Text && !s.bytes.is_empty();
        let segment = plan.segments.iter().find(text)?;
        let entry = self.old(plan, 200);
        let at = entry.offset(4 * self.below(2));
        let form = if self.yes() {
            RedirectForm::Short { cave: at.offset(2 + self.below(120)) }
        } else {
            RedirectForm::Near
        };
        let len = self.count(65);
        Some(Redirect {
            entry,
            at,
            form,
            to: segment.start.offset(self.below(segment.bytes.len() as u64)),
            expect: self.bytes(len),
            mask: self.bytes(len),
        })
    }

    fn writes(&mut self, plan: &mut Plan) {
        let mut next = plan.old_start;
        for _ in 0..self.count(4) {
            let at = next.offset(self.below(500));
            let len = 1 + self.count(100);
            if at.offset(len as u64) > plan.old_end {
                return;
            }
            let mut pointers = Vec::new();
            let mut offset = self.below(50);
            while offset + 8 <= len as u64 {
                let addend = self.below(1000).cast_signed() - 500;
                pointers.push(DataPointer { offset, addend, target: self.target(plan) });
                offset += 8 + self.below(50);
            }
            plan.writes.push(DataWrite { at, bytes: self.bytes(len), pointers });
            next = at.offset(len as u64);
        }
    }

    fn blind(&mut self, plan: &mut Plan, replaced: usize) {
        let mut next = plan.old_start;
        for _ in 0..self.count(4).min(replaced * 4) {
            let start = next.offset(self.below(500));
            let len = 1 + self.below(300);
            if start.offset(len) > plan.old_end {
                return;
            }
            let free = (0..self.count(3)).map(|_| start.offset(self.below(len))).collect();
            let function = u32::try_from(self.count(replaced)).unwrap();
            plan.blind.push(BlindRange { start, end: start.offset(len), free, function });
            next = start.offset(len);
        }
    }

    fn lines(&mut self, plan: &mut Plan) {
        let mut start = plan.old_start;
        for _ in 0..if plan.files.is_empty() { 0 } else { self.count(6) } {
            start = start.offset(self.below(30));
            let file = u32::try_from(self.count(plan.files.len())).unwrap();
            let line = u32::try_from(self.below(5000)).unwrap();
            plan.lines.push(LineRow { start, file, line });
        }
    }

    fn map(&mut self, plan: &mut Plan) {
        let mut next = self.below(1 << 32);
        for _ in 0..self.count(5) {
            let start = NewAddr(next + self.below(100));
            let len = 1 + self.below(1000);
            let to = match self.yes() {
                true => MapTarget::Old(self.old(plan, len)),
                false => MapTarget::Shadow,
            };
            plan.map.push(MapRun { start, len, to });
            next = start.0 + len;
        }
        let mut new = 0;
        for _ in 0..self.count(4) {
            new += self.below(100);
            plan.identities.push(Identity { new: NewAddr(new), old: self.old(plan, 1) });
        }
    }
}

/// A small bundle in which every kind of thing occurs once.
pub fn example() -> Bundle {
    let build = |id: &str, file: &str| BuildInfo {
        build_id: id.repeat(20),
        file: file.to_owned(),
        kind: ImageKind::Executable,
    };
    let manifest = Manifest {
        tool: "by hand".to_owned(),
        options: vec!["--data rates=new".to_owned()],
        old: build("01", "server"),
        new: build("02", "server"),
        replaced: vec![
            ReplacedFunction {
                name: "price".to_owned(),
                old: OldAddr(0x1120),
                old_size: 40,
                new: Some(NewAddr(0x1140)),
                new_size: 52,
                file: "price.c".to_owned(),
                line: 12,
                why: vec!["price.c:14: `add eax,1` -> `add eax,2`".to_owned()],
            },
            ReplacedFunction {
                name: "discount".to_owned(),
                old: OldAddr(0x1150),
                old_size: 3,
                new: None,
                new_size: 0,
                file: String::new(),
                line: 0,
                why: vec!["NEW has no such function".to_owned()],
            },
        ],
        added: vec![AddedFunction { name: "rebate".to_owned(), new: NewAddr(0x1180), size: 16 }],
        line_only: vec!["check".to_owned()],
        data: vec![DataChange {
            name: "rates".to_owned(),
            old_size: 16,
            new_size: 16,
            action: DataAction::UpdatedInPlace,
            why: "a constant table whose content changed".to_owned(),
        }],
        warnings: vec!["main stays".to_owned()],
    };
    Bundle { manifest, plan: example_plan(), frames: Vec::new() }
}

fn example_plan() -> Plan {
    Plan {
        old_start: OldAddr(0),
        old_end: OldAddr(0x5000),
        low_2gib: false,
        segments: vec![
            Segment {
                start: NewAddr(0x1140),
                bytes: vec![0x90; 80],
                zeroes: 0,
                protection: Protection::Text,
            },
            Segment {
                start: NewAddr(0x4000),
                bytes: vec![0; 16],
                zeroes: 8,
                protection: Protection::Data,
            },
        ],
        fixups: vec![
            fixup(0x1144, FixupKind::Rel32, -4, Target::OldCode(OldAddr(0x1200))),
            fixup(0x1150, FixupKind::Rel32, -4, Target::Old(OldAddr(0x4010))),
            fixup(0x1158, FixupKind::Rel32, -4, Target::New(NewAddr(0x4000))),
            fixup(0x4000, FixupKind::Abs64, 0, Target::OldIdentity(OldAddr(0x1120))),
            fixup(0x4008, FixupKind::Abs64, 8, Target::Import(0)),
        ],
        imports: vec![Import {
            name: "strtol".to_owned(),
            version: Some("GLIBC_2.2.5".to_owned()),
            weak: false,
        }],
        redirects: vec![
            Redirect {
                entry: OldAddr(0x1120),
                at: OldAddr(0x1124),
                form: RedirectForm::Near,
                to: NewAddr(0x1140),
                expect: vec![0xf3, 0x0f, 0x1e, 0xfa],
                mask: vec![0xff; 4],
            },
            Redirect {
                entry: OldAddr(0x1150),
                at: OldAddr(0x1150),
                form: RedirectForm::Short { cave: OldAddr(0x1158) },
                to: NewAddr(0x1180),
                expect: vec![0x89, 0xf8, 0xc3],
                mask: vec![0xff; 3],
            },
        ],
        writes: vec![DataWrite {
            at: OldAddr(0x4020),
            bytes: vec![0; 16],
            pointers: vec![DataPointer {
                offset: 8,
                addend: 0,
                target: Target::OldIdentity(OldAddr(0x1120)),
            }],
        }],
        blind: vec![
            BlindRange {
                start: OldAddr(0x1120),
                end: OldAddr(0x1148),
                free: vec![OldAddr(0x1120), OldAddr(0x1124)],
                function: 0,
            },
            BlindRange {
                start: OldAddr(0x1150),
                end: OldAddr(0x1153),
                free: vec![OldAddr(0x1150)],
                function: 1,
            },
        ],
        lines: vec![LineRow { start: OldAddr(0x1120), file: 0, line: 12 }],
        files: vec!["price.c".to_owned()],
        map: vec![
            MapRun { start: NewAddr(0x1000), len: 0x140, to: MapTarget::Old(OldAddr(0x1000)) },
            MapRun { start: NewAddr(0x1140), len: 80, to: MapTarget::Shadow },
        ],
        identities: vec![Identity { new: NewAddr(0x1140), old: OldAddr(0x1120) }],
    }
}

fn fixup(at: u64, kind: FixupKind, addend: i64, target: Target) -> Fixup {
    Fixup { at: NewAddr(at), kind, addend, target }
}
