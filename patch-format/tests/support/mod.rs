//! Bundles to test with: one made by hand, and any number of arbitrary valid ones.
//!
//! An arbitrary bundle is built from a list of numbers that proptest chooses (and shrinks): each
//! number is one decision, and every decision leads to a valid bundle.

mod frames;

use dsu_patch_format::frames::{Binary, Location, Move, Proof, Value};
use dsu_patch_format::manifest::{
    AddedFunction, BlindPoint, BuildInfo, Coverage, DataAction, DataChange, DebugFile, ImageKind,
    ReplacedFunction,
};
use dsu_patch_format::plan::{
    BlindRange, Copied, DataPointer, DataWrite, Fixup, FixupKind, Identity, Import, LineRow,
    MapRun, MapTarget, MovedObject, Passage, Protection, Redirect, RedirectForm, Segment, Site,
    SiteKind, Target, UnwindRow,
};
use dsu_patch_format::{Bundle, Manifest, NewAddr, OldAddr, Plan, Translation};
use proptest::prelude::*;

const PAGE: u64 = 4096;

/// Any valid bundle.
pub fn bundles() -> impl Strategy<Value = Bundle> {
    proptest::collection::vec(any::<u32>(), 0..1500)
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

    fn small(&mut self) -> u32 {
        u32::try_from(self.below(100)).unwrap()
    }

    fn text(&mut self) -> String {
        const TEXTS: [&str; 6] = ["", "f", "naïve::größe<T>", "a b", "x.isra.0", "\"quoted\"\n"];
        TEXTS[self.count(TEXTS.len())].to_owned()
    }

    fn bundle(mut self) -> Bundle {
        let manifest = self.manifest();
        let plan = self.plan(&manifest);
        let frames = plan.sites.iter().map(|_| self.frame(&plan)).collect();
        Bundle { manifest, plan, frames }
    }

    fn manifest(&mut self) -> Manifest {
        let texts = |c: &mut Self| (0..c.count(3)).map(|_| c.text()).collect::<Vec<_>>();
        let kinds = [ImageKind::Executable, ImageKind::Library];
        let build = |c: &mut Self, first: &str| BuildInfo {
            build_id: format!("{first}{}", "0123456789abcdef".repeat(1 + c.count(3))),
            file: c.text(),
            kind: kinds[c.count(2)],
            sha256: "0f".repeat(32),
            debug: c.yes().then(|| DebugFile { file: c.text(), sha256: "1e".repeat(32) }),
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
            coverage: Coverage {
                sites: c.small(),
                passing: c.small(),
                new_locals: c.small(),
                of: c.small(),
            },
        };
        let actions = [
            DataAction::Added,
            DataAction::KeptValue,
            DataAction::UpdatedInPlace,
            DataAction::Moved,
            DataAction::Removed,
        ];
        let functions: Vec<_> = (0..self.count(4)).map(|_| replaced(self)).collect();
        Manifest {
            tool: self.text(),
            options: texts(self),
            old: build(self, "aa"),
            new: build(self, "bb"),
            blind_points: self.blind_points(functions.len()),
            replaced: functions,
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

    fn blind_points(&mut self, replaced: usize) -> Vec<BlindPoint> {
        let mut at = 0;
        let point = |_| {
            at += self.below(100);
            BlindPoint {
                function: u32::try_from(self.count(replaced)).unwrap(),
                at: OldAddr(at),
                kind: self.site_kind(),
                file: self.text(),
                line: self.small(),
                new_local: self.yes(),
                why: self.text(),
            }
        };
        (0..if replaced == 0 { 0 } else { 2 }).map(point).collect()
    }

    fn site_kind(&mut self) -> SiteKind {
        let kinds = [SiteKind::Return, SiteKind::Loop, SiteKind::LandingPad, SiteKind::Point];
        kinds[self.count(kinds.len())]
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
        let behind = self.functions(&mut plan, manifest.replaced.len());
        self.writes(&mut plan, behind);
        self.lines(&mut plan);
        self.map(&mut plan, behind);
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

    /// Replaced functions with what is written into them, one behind the other; gives where the last
    /// one ends.
    fn functions(&mut self, plan: &mut Plan, replaced: usize) -> OldAddr {
        let mut next = plan.old_start;
        for _ in 0..self.count(4).min(replaced * 4) {
            let start = next.offset(self.below(500));
            let end = start.offset(20 + self.below(300));
            if end.offset(64) > plan.old_end {
                break;
            }
            let function = u32::try_from(self.count(replaced)).unwrap();
            plan.blind.push(BlindRange { start, end, free: Vec::new(), function });
            let room = self.redirect(plan, start);
            let written = self.sites(plan, room);
            if self.yes() {
                let site = plan.sites.last().filter(|s| s.at > start).map(|s| s.at);
                plan.dead_returns.push(site.unwrap_or(start).offset(1));
            }
            self.passage(plan, written);
            next = end.offset(4);
        }
        next
    }

    /// Perhaps a passage behind everything that is written into the last blind range.
    fn passage(&mut self, plan: &mut Plan, written: OldAddr) {
        let BlindRange { end, function, .. } = *plan.blind.last().unwrap();
        if written >= end || self.yes() {
            return;
        }
        let own = (0..).zip(&plan.sites).filter(|(_, s)| s.function == function);
        let exits: Vec<u32> = own.map(|(index, _)| index).collect();
        let mut names: Vec<OldAddr> = (0..self.count(3)).map(|_| self.old(plan, 0)).collect();
        names.sort_unstable();
        plan.passages.push(Passage { start: written, end, function, exits, names });
    }

    /// Perhaps a redirect at the entry of the last blind range; gives where it ends.
    fn redirect(&mut self, plan: &mut Plan, entry: OldAddr) -> OldAddr {
        let text = |s: &&Segment| s.protection == Protection::Text && !s.bytes.is_empty();
        let Some(segment) = plan.segments.iter().find(text).filter(|_| self.yes()) else {
            return entry;
        };
        let at = entry.offset(4 * self.below(2));
        let (form, end) = self.jump(at, 12);
        let to = segment.start.offset(self.below(segment.bytes.len() as u64));
        let len = self.count(65);
        let (expect, mask) = (self.bytes(len), self.bytes(len));
        plan.redirects.push(Redirect { entry, at, form, to, expect, mask });
        plan.blind.last_mut().unwrap().free = vec![entry, at];
        end
    }

    /// A jump at `at`, with its cave at most `room` bytes behind it; gives what is behind both.
    fn jump(&mut self, at: OldAddr, room: u64) -> (RedirectForm, OldAddr) {
        if self.yes() {
            return (RedirectForm::Near, at.offset(5));
        }
        let cave = at.offset(2 + self.below(room - 6));
        (RedirectForm::Short { cave }, cave.offset(5))
    }

    /// Sites in the last blind range, from `next` on; gives where the last one ends.
    fn sites(&mut self, plan: &mut Plan, mut next: OldAddr) -> OldAddr {
        let BlindRange { end, function, .. } = *plan.blind.last().unwrap();
        let text = |s: &Segment| s.protection == Protection::Text && s.bytes.len() > 10;
        let Some(index) = plan.segments.iter().position(text) else { return next };
        for _ in 0..self.count(5) {
            let at = next.offset(self.below(30));
            if at >= end {
                return next;
            }
            let (form, behind) = self.jump(at, 60);
            // The next function may begin there.
            if behind > end.offset(4) {
                return next;
            }
            let segment = &plan.segments[index];
            let segment_end = segment.start.offset(segment.bytes.len() as u64);
            let known = plan.sites.last().map(|s| (s.stub, s.stub_len, s.to));
            let stub = known.map_or(segment.start, |(stub, len, _)| stub.offset(u64::from(len)));
            let len = 1 + self.small() % 9;
            let (stub, stub_len, to) = match known {
                Some(same) if stub.offset(u64::from(len)) > segment_end || self.yes() => same,
                _ => (stub, len, stub),
            };
            let bytes = usize::try_from(form.jump_len()).unwrap();
            let (expect, mask) = (self.bytes(bytes), self.bytes(bytes));
            let kind = self.site_kind();
            plan.sites.push(Site { at, kind, form, stub, stub_len, to, function, expect, mask });
            next = behind;
        }
        next
    }

    fn writes(&mut self, plan: &mut Plan, mut next: OldAddr) {
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

    fn lines(&mut self, plan: &mut Plan) {
        let mut start = plan.old_start;
        for _ in 0..if plan.files.is_empty() { 0 } else { self.count(6) } {
            start = start.offset(self.below(30));
            let file = u32::try_from(self.count(plan.files.len())).unwrap();
            let line = u32::try_from(self.below(5000)).unwrap();
            plan.lines.push(LineRow { start, file, line });
        }
    }

    /// Kept is only what lies behind the replaced functions.
    fn map(&mut self, plan: &mut Plan, behind: OldAddr) {
        let mut next = self.below(1 << 32);
        for _ in 0..self.count(5) {
            let start = NewAddr(next + self.below(100));
            let len = 1 + self.below(1000);
            let to = match self.yes() {
                true if behind.offset(len) <= plan.old_end => {
                    let room = plan.old_end.since(behind) - len + 1;
                    MapTarget::Old(behind.offset(self.below(room)))
                }
                _ => MapTarget::Shadow,
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
        sha256: id.repeat(32),
        debug: (id == "01")
            .then(|| DebugFile { file: "server.debug".to_owned(), sha256: "0d".repeat(32) }),
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
                coverage: Coverage { sites: 2, passing: 1, new_locals: 1, of: 4 },
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
                coverage: Coverage::default(),
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
        blind_points: vec![BlindPoint {
            function: 0,
            at: OldAddr(0x1134),
            kind: SiteKind::Return,
            file: "price.c".to_owned(),
            line: 15,
            new_local: true,
            why: "variable `rebate` (line 13) has no value in OLD".to_owned(),
        }],
        warnings: vec!["main stays".to_owned()],
    };
    Bundle { manifest, plan: example_plan(), frames: example_frames() }
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
                to: NewAddr(0x1160),
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
        sites: vec![
            Site {
                at: OldAddr(0x112b),
                kind: SiteKind::Return,
                form: RedirectForm::Near,
                stub: NewAddr(0x1170),
                stub_len: 12,
                to: NewAddr(0x114f),
                function: 0,
                expect: vec![0x89, 0xc3, 0xe8, 0, 0],
                mask: vec![0xff, 0xff, 0xff, 0, 0],
            },
            Site {
                at: OldAddr(0x1146),
                kind: SiteKind::Loop,
                form: RedirectForm::Short { cave: OldAddr(0x1130) },
                stub: NewAddr(0x117c),
                stub_len: 9,
                to: NewAddr(0x115f),
                function: 0,
                expect: vec![0xeb, 0xf0],
                mask: vec![0xff, 0xff],
            },
        ],
        dead_returns: vec![OldAddr(0x1148)],
        passages: vec![Passage {
            start: OldAddr(0x1136),
            end: OldAddr(0x1146),
            function: 0,
            exits: vec![0, 1],
            names: vec![OldAddr(0x1010), OldAddr(0x4010)],
        }],
        unexpected_returns: vec![OldAddr(0x1138)],
        copies: vec![Copied {
            start: NewAddr(0x1188),
            len: 8,
            of: NewAddr(0x1140),
            lowered: 32,
            objects: vec![MovedObject { start: -24, end: -16, old: -32 }],
        }],
        left: vec![(OldAddr(0x4030), 8)],
        lines: vec![LineRow { start: OldAddr(0x1120), file: 0, line: 12 }],
        files: vec!["price.c".to_owned()],
        map: vec![
            MapRun { start: NewAddr(0x1000), len: 0x140, to: MapTarget::Old(OldAddr(0x1000)) },
            MapRun { start: NewAddr(0x1140), len: 80, to: MapTarget::Shadow },
        ],
        identities: vec![Identity { new: NewAddr(0x1140), old: OldAddr(0x1120) }],
        unwind: vec![UnwindRow {
            start: NewAddr(0x1140),
            len: 16,
            cfa: (4, 16),
            saved: vec![(3, -16)],
        }],
    }
}

/// Each kind of place, value and proof once.
fn example_frames() -> Vec<Translation> {
    let general = |number, bytes| Location::General { number, bytes };
    let vector = |number, bytes| Location::Vector { number, bytes };
    let slot = |cfa, bytes| Location::Slot { cfa, bytes };
    let one = |to, from, proof| Move { to, from, proof };
    let address = Value::Address { target: Target::Old(OldAddr(0x4010)), addend: 8 };
    let both = |op, bytes, left, right| Value::Binary {
        op,
        bytes,
        left: Box::new(left),
        right: Box::new(right),
    };
    let shifted = both(Binary::Shl, 8, Value::At(general(3, 8)), Value::Constant(3));
    let narrow = Value::ZeroExtend { from: 1, value: Box::new(Value::At(general(2, 1))) };
    let sum = both(Binary::Add, 4, narrow, Value::Constant(1));
    let wide = Value::SignExtend { from: 4, to: 8, value: Box::new(sum) };
    let first = Translation {
        old_depth: 40,
        new_depth: 56,
        lowered: 0,
        flags: true,
        moves: vec![
            one(general(0, 4), Value::At(general(0, 4)), Proof::Result),
            one(general(3, 8), Value::At(general(3, 8)), Proof::Equal),
            one(general(5, 8), Value::At(slot(-16, 8)), Proof::CalleeSaved),
            one(general(6, 8), address, Proof::Remade),
            one(general(12, 8), shifted, Proof::Remade),
            one(general(13, 8), wide, Proof::Remade),
            one(vector(1, 16), Value::At(vector(0, 16)), Proof::EqualVariable("rate".into())),
            one(slot(-56, 4), Value::At(slot(-40, 4)), Proof::Variable("count".into())),
            one(slot(-48, 8), Value::Frame(-40), Proof::Remade),
            one(slot(-24, 8), Value::Canary, Proof::Remade),
            one(slot(8, 4), Value::Constant(0), Proof::NewLocal("rebate".into())),
        ],
        objects: vec![(-40, -32)],
    };
    let returns = Value::Address { target: Target::New(NewAddr(0x1180)), addend: 0 };
    let second = Translation {
        old_depth: 8,
        new_depth: 24,
        lowered: 16,
        moves: vec![one(slot(-24, 8), returns, Proof::Lowered)],
        ..Translation::default()
    };
    vec![first, second]
}

fn fixup(at: u64, kind: FixupKind, addend: i64, target: Target) -> Fixup {
    Fixup { at: NewAddr(at), kind, addend, target }
}
