//! Where threads may not be, and where frames are carried over, as addresses of the process.
//!
//! Takes the bundle's blind ranges and sites, the address map, and the detours that earlier updates have
//! left; says of a program counter and of a return address how it stands (the rules are those of
//! `BlindRange`), by binary search behind a test against the lowest and the highest. Pure.
//!
//! Something on a detour stands where the detour leads.

use crate::address::ProcAddr;
use crate::record::detours::{Detour, Detours, Passage};
use crate::record::map::AddressMap;
use dsu_patch_format::OldAddr;
use dsu_patch_format::plan::Plan;
use std::collections::BTreeSet;

/// A part of a blind range that is in one piece in the process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    start: u64,
    end: u64,
    /// OLD's address at `start`.
    linked: u64,
    /// Program counters inside that are not blind.
    free: Vec<u64>,
    function: u32,
    /// The function has sites.
    sited: bool,
}

/// A blind point that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Index of the function in the manifest.
    pub function: u32,
    /// The point, as linked in OLD.
    pub at: OldAddr,
    /// What a message is about, as linked in OLD: for a return address, the call before it.
    pub linked: OldAddr,
    /// The function has sites: further on it may be at one.
    pub sited: bool,
}

/// The function of a point in an earlier version's code, which the bundle does not know.
pub const NOBODY: u32 = u32::MAX;

/// How a program counter or return address stands to the update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing to do with it, or where a redirect takes over.
    Clear,
    /// At a site of this function, or where OLD's code soon comes to one: the frame is carried over.
    Site(u32),
    /// In the way.
    Blind(Point),
}

impl Standing {
    /// The blind point, if it is one.
    #[must_use]
    pub fn blind(self) -> Option<Point> {
        if let Self::Blind(point) = self { Some(point) } else { None }
    }

    /// The function of the site, if it is one.
    #[must_use]
    pub fn site(self) -> Option<u32> {
        if let Self::Site(function) = self { Some(function) } else { None }
    }
}

/// What stands where an earlier update's site, stub or cave leads; only what is not clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Onward {
    start: u64,
    end: u64,
    standing: Standing,
}

/// All blind ranges and sites of an update, for lookups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlindRanges {
    /// Ascending by start, disjoint.
    pieces: Vec<Piece>,
    /// Ascending, with the function of each.
    sites: Vec<(u64, u32)>,
    /// OLD code that runs on for a moment: start, end, function. Ascending, disjoint.
    passages: Vec<(u64, u64, u32)>,
    /// Of return addresses in them those that are blind all the same, ascending.
    unexpected_returns: Vec<u64>,
    /// Ascending.
    dead_returns: Vec<u64>,
    /// Ascending by start, disjoint.
    onward: Vec<Onward>,
    lowest: u64,
    highest: u64,
}

impl BlindRanges {
    /// What `plan` says, where `map` has it and `detours` lead to it.
    #[must_use]
    pub fn new(plan: &Plan, map: &AddressMap, detours: &Detours) -> Self {
        let place = |a: OldAddr| map.range(a.0, 1).map(|at| at.0);
        let mut sites: Vec<_> =
            plan.sites.iter().filter_map(|s| Some((place(s.at)?, s.function))).collect();
        sites.sort_unstable();
        // A return address may be one past the end of its range: it is where the call before it is.
        let behind = |a: OldAddr| place(OldAddr(a.0.checked_sub(1)?)).map(|call| call + 1);
        let mut dead_returns: Vec<_> =
            plan.dead_returns.iter().filter_map(|a| behind(*a)).collect();
        dead_returns.sort_unstable();
        let passages = passages(plan, map);
        let unexpected = plan.unexpected_returns.iter();
        let mut unexpected_returns: Vec<_> = unexpected.filter_map(|a| place(*a)).collect();
        unexpected_returns.sort_unstable();
        let pieces = pieces(plan, map);
        let mut ranges =
            Self { sites, dead_returns, pieces, passages, unexpected_returns, ..Self::default() };
        let changed = Changed::by(plan, map);
        // A way may lead into a passage, and that to another one.
        for _ in 0..=detours.passages.len() {
            let onward = ranges.led(detours, &changed);
            if onward == ranges.onward {
                break;
            }
            ranges.onward = onward;
        }
        ranges.bound();
        ranges
    }

    /// How everything on a detour stands, by what is known of where it leads; ascending.
    fn led(&self, detours: &Detours, changed: &Changed) -> Vec<Onward> {
        let ways = detours.ways.iter().map(|detour| {
            let Detour { start, end, to } = *detour;
            Onward { start, end, standing: self.counter(to) }
        });
        let earlier = detours.passages.iter().map(|passage| {
            let standing = self.earlier(passage, changed);
            Onward { start: passage.start, end: passage.end, standing }
        });
        let all = ways.chain(earlier).filter(|o| o.standing != Standing::Clear);
        let mut onward: Vec<Onward> = all.collect();
        onward.sort_by_key(|o| o.start);
        onward
    }

    /// How a frame stands that runs on in code of an earlier version: as it will where it comes out,
    /// unless the update changes something under it.
    fn earlier(&self, passage: &Passage, changed: &Changed) -> Standing {
        let whose = |at: &u64| self.piece(*at).map(|piece| piece.point(*at, *at));
        if let Some(point) = passage.names.iter().find_map(whose) {
            return Standing::Blind(point);
        }
        if passage.names.iter().any(|at| changed.has(*at)) {
            let at = OldAddr(passage.start);
            return Standing::Blind(Point { function: NOBODY, at, linked: at, sited: false });
        }
        let exits = passage.exits.iter().map(|at| self.counter(*at));
        exits
            .clone()
            .find(|s| s.blind().is_some())
            .or_else(|| exits.max())
            .unwrap_or(Standing::Clear)
    }

    /// With these ranges of addresses, in which no function of OLD is.
    #[must_use]
    pub fn with_code(mut self, ranges: &[(u64, u64)]) -> Self {
        self.pieces.extend(Self::of_code(ranges).pieces);
        self.pieces.sort_by_key(|p| p.start);
        self.bound();
        self
    }

    /// These ranges of addresses, in which an update has put its code, or jumps to it: where nobody may be when
    /// it is taken back. A point in one is told by its address in the process.
    #[must_use]
    pub fn of_code(ranges: &[(u64, u64)]) -> Self {
        let whole = |(start, end): (u64, u64)| Piece {
            start,
            end,
            linked: start,
            free: Vec::new(),
            function: 0,
            sited: false,
        };
        let mut pieces: Vec<_> = ranges.iter().copied().map(whole).collect();
        pieces.sort_by_key(|p| p.start);
        let mut ranges = Self { pieces, ..Self::default() };
        ranges.bound();
        ranges
    }

    fn bound(&mut self) {
        let starts = self.pieces.first().map(|p| p.start).into_iter();
        let starts = starts.chain(self.onward.first().map(|o| o.start));
        self.lowest = starts.min().unwrap_or(u64::MAX);
        let ends = self.pieces.iter().map(|p| p.end).chain(self.onward.iter().map(|o| o.end));
        self.highest = ends.max().unwrap_or(0);
    }

    /// Whether `word` could be a return address that is not clear: one comparison for nearly every
    /// word of a stack.
    #[must_use]
    pub fn may_hold(&self, word: u64) -> bool {
        word.wrapping_sub(self.lowest) <= self.highest.wrapping_sub(self.lowest)
    }

    /// How a return address stands: blind when `start < ra <= end`, unless the frame that waits for
    /// it is carried over or waits for ever.
    #[must_use]
    pub fn return_address(&self, ra: u64) -> Standing {
        if let Some(standing) = self.elsewhere(ra) {
            return standing;
        }
        let after = self.pieces.partition_point(|p| p.start < ra);
        let piece = after.checked_sub(1).and_then(|i| self.pieces.get(i));
        let Some(piece) = piece.filter(|p| ra <= p.end) else { return Standing::Clear };
        if self.dead_returns.binary_search(&ra).is_ok() {
            return Standing::Clear;
        }
        // The call is what the message is about; it is before its return address.
        let inside = ra < piece.end;
        let expected = || inside && self.unexpected_returns.binary_search(&ra).is_err();
        let passes = || self.passage(ra).filter(|_| expected());
        self.site(ra)
            .filter(|_| inside)
            .or_else(passes)
            .unwrap_or_else(|| Standing::Blind(piece.point(ra, ra - 1)))
    }

    /// How a program counter stands: blind when `start <= pc < end`, not free and no site.
    #[must_use]
    pub fn counter(&self, pc: u64) -> Standing {
        if let Some(standing) = self.elsewhere(pc) {
            return standing;
        }
        let Some(piece) = self.piece(pc).filter(|p| !p.free.contains(&pc)) else {
            return Standing::Clear;
        };
        self.site(pc)
            .or_else(|| self.passage(pc))
            .unwrap_or_else(|| Standing::Blind(piece.point(pc, pc)))
    }

    fn piece(&self, pc: u64) -> Option<&Piece> {
        let after = self.pieces.partition_point(|p| p.start <= pc);
        self.pieces.get(after.checked_sub(1)?).filter(|p| pc < p.end)
    }

    fn site(&self, at: u64) -> Option<Standing> {
        let index = self.sites.binary_search_by_key(&at, |(site, _)| *site).ok()?;
        self.sites.get(index).map(|(_, function)| Standing::Site(*function))
    }

    fn passage(&self, at: u64) -> Option<Standing> {
        let after = self.passages.partition_point(|(start, ..)| *start <= at);
        let (_, end, function) = *self.passages.get(after.checked_sub(1)?)?;
        (at < end).then_some(Standing::Site(function))
    }

    /// On the way out of a version long gone.
    fn elsewhere(&self, at: u64) -> Option<Standing> {
        let after = self.onward.partition_point(|o| o.start <= at);
        let onward = self.onward.get(after.checked_sub(1)?)?;
        (at < onward.end).then_some(onward.standing)
    }

    /// The sites in the piece that holds `pc` which a thread there may come to next: those behind it
    /// first, as far as they are near, and the one before it, the head of a loop perhaps.
    #[must_use]
    pub fn sites_near(&self, pc: u64) -> Vec<ProcAddr> {
        let Some(piece) = self.piece(pc) else { return Vec::new() };
        let after = self.sites.partition_point(|(site, _)| *site <= pc);
        let (before, behind) = self.sites.split_at(after);
        let near = behind.iter().take(2).chain(before.last());
        near.map(|(site, _)| *site)
            .filter(|site| (piece.start..piece.end).contains(site))
            .map(ProcAddr)
            .collect()
    }

    /// Whether there is anything to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// The passages in the process, ascending.
fn passages(plan: &Plan, map: &AddressMap) -> Vec<(u64, u64, u32)> {
    let placed = plan.passages.iter().flat_map(|p| {
        let runs = map.pieces(p.start.0, p.end.0);
        runs.map(|run| (run.to, run.to + run.len, p.function))
    });
    let mut passages: Vec<_> = placed.collect();
    passages.sort_unstable();
    passages
}

/// The data that an update overwrites or leaves behind, in the process: ascending, start and end.
struct Changed(Vec<(u64, u64)>);

impl Changed {
    fn by(plan: &Plan, map: &AddressMap) -> Self {
        let writes = plan.writes.iter().map(|w| (w.at.0, w.bytes.len() as u64));
        let left = plan.left.iter().map(|(at, bytes)| (at.0, *bytes));
        let placed = writes.chain(left).flat_map(|(at, bytes)| {
            map.pieces(at, at.saturating_add(bytes)).map(|run| (run.to, run.to + run.len))
        });
        let mut all: Vec<_> = placed.collect();
        all.sort_unstable();
        Self(all)
    }

    fn has(&self, at: u64) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= at);
        self.0[..after].iter().any(|(_, end)| at < *end)
    }
}

/// The blind ranges in the process, ascending.
fn pieces(plan: &Plan, map: &AddressMap) -> Vec<Piece> {
    let sited: BTreeSet<u32> = plan.sites.iter().map(|s| s.function).collect();
    let mut pieces = Vec::new();
    for range in &plan.blind {
        for run in map.pieces(range.start.0, range.end.0) {
            let inside = range.free.iter().filter_map(|f| f.0.checked_sub(run.start));
            pieces.push(Piece {
                start: run.to,
                end: run.to + run.len,
                linked: run.start,
                free: inside.filter(|o| *o < run.len).map(|o| run.to + o).collect(),
                function: range.function,
                sited: sited.contains(&range.function),
            });
        }
    }
    pieces.sort_by_key(|p| p.start);
    pieces
}

impl Piece {
    fn point(&self, at: u64, about: u64) -> Point {
        let linked = |at: u64| OldAddr(self.linked + (at - self.start));
        let Self { function, sited, .. } = *self;
        Point { function, at: linked(at), linked: linked(about), sited }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Bias;
    use dsu_patch_format::NewAddr;
    use dsu_patch_format::plan::{BlindRange, RedirectForm, Site, SiteKind};

    fn image() -> AddressMap {
        AddressMap::of_image(0, 0x1000, Bias(0x1_0000))
    }

    fn ranges() -> BlindRanges {
        let range = |start, end, free: &[u64], function| BlindRange {
            start: OldAddr(start),
            end: OldAddr(end),
            free: free.iter().map(|f| OldAddr(*f)).collect(),
            function,
        };
        let plan = Plan {
            blind: vec![
                range(0x100, 0x110, &[0x100, 0x104], 0),
                range(0x110, 0x120, &[0x110], 1),
                range(0x200, 0x201, &[], 2),
            ],
            ..Plan::default()
        };
        BlindRanges::new(&plan, &image(), &Detours::default())
    }

    #[test]
    fn return_addresses() {
        let ranges = ranges();
        let function = |ra: u64| ranges.return_address(ra).blind().map(|p| p.function);
        assert_eq!(function(0x1_0100), None, "nothing was called from before the entry");
        assert_eq!(function(0x1_0101), Some(0));
        assert_eq!(function(0x1_0104), Some(0), "free is for program counters");
        assert_eq!(function(0x1_0110), Some(0), "a call at the very end");
        assert_eq!(function(0x1_0111), Some(1));
        assert_eq!(function(0x1_0120), Some(1));
        assert_eq!(function(0x1_0121), None);
        assert_eq!(function(0x1_0201), Some(2));
        assert_eq!(function(0x100), None);
    }

    #[test]
    fn program_counters() {
        let ranges = ranges();
        let function = |pc: u64| ranges.counter(pc).blind().map(|p| p.function);
        assert_eq!(function(0x1_0100), None);
        assert_eq!(function(0x1_0101), Some(0));
        assert_eq!(function(0x1_0104), None);
        assert_eq!(function(0x1_0110), None);
        assert_eq!(function(0x1_011f), Some(1));
        assert_eq!(function(0x1_0120), None);
        assert_eq!(function(0x1_0200), Some(2));
    }

    #[test]
    fn the_prefilter_lets_everything_blind_through() {
        let ranges = ranges();
        for word in 0x1_0000..0x1_0300 {
            if ranges.return_address(word) != Standing::Clear
                || ranges.counter(word) != Standing::Clear
            {
                assert!(ranges.may_hold(word), "{word:#x}");
            }
        }
        assert!(!ranges.may_hold(0) && !ranges.may_hold(u64::MAX) && !ranges.may_hold(0x1_0202));
        assert!(!BlindRanges::default().may_hold(5));
    }

    #[test]
    fn moved_ranges_are_found_where_they_are() {
        let plan = Plan {
            blind: vec![BlindRange {
                start: OldAddr(0xf8),
                end: OldAddr(0x108),
                free: vec![OldAddr(0xf8)],
                function: 0,
            }],
            ..Plan::default()
        };
        let image = AddressMap::of_image(0, 0x100, Bias(0x1_0000));
        let runs = [
            dsu_patch_format::plan::MapRun {
                start: dsu_patch_format::NewAddr(0),
                len: 0x100,
                to: dsu_patch_format::plan::MapTarget::Old(OldAddr(0)),
            },
            dsu_patch_format::plan::MapRun {
                start: dsu_patch_format::NewAddr(0x100),
                len: 0x100,
                to: dsu_patch_format::plan::MapTarget::Shadow,
            },
        ];
        let ranges =
            BlindRanges::new(&plan, &image.compose(&runs, Bias(0x9_0000)), &Detours::default());
        assert_eq!(ranges.counter(0x1_00f8), Standing::Clear);
        assert_eq!(ranges.counter(0x1_00ff).blind().map(|p| p.linked.0), Some(0xff));
        assert_eq!(ranges.counter(0x9_0100).blind().map(|p| p.linked.0), Some(0x100));
        assert_eq!(ranges.return_address(0x9_0108).blind().map(|p| p.linked.0), Some(0x107));
        assert_eq!(ranges.counter(0x9_0108), Standing::Clear);
    }

    fn site(at: u64, function: u32) -> Site {
        Site {
            at: OldAddr(at),
            kind: SiteKind::Return,
            form: RedirectForm::Near,
            stub: NewAddr(0),
            stub_len: 1,
            to: NewAddr(0),
            function,
            expect: vec![0; 5],
            mask: vec![0; 5],
        }
    }

    fn sited_plan() -> Plan {
        Plan {
            blind: vec![BlindRange {
                start: OldAddr(0x100),
                end: OldAddr(0x140),
                free: vec![OldAddr(0x100)],
                function: 3,
            }],
            sites: vec![site(0x110, 3), site(0x120, 3)],
            dead_returns: vec![OldAddr(0x130), OldAddr(0x140)],
            ..Plan::default()
        }
    }

    #[test]
    fn sites_and_returns_that_never_happen() {
        let ranges = BlindRanges::new(&sited_plan(), &image(), &Detours::default());
        for at in [0x1_0110, 0x1_0120] {
            assert_eq!(ranges.counter(at), Standing::Site(3));
            assert_eq!(ranges.return_address(at), Standing::Site(3));
        }
        assert_eq!(ranges.return_address(0x1_0111).blind().map(|p| p.at.0), Some(0x111));
        assert_eq!(ranges.return_address(0x1_0111).blind().map(|p| p.linked.0), Some(0x110));
        assert!(ranges.counter(0x1_010f).blind().is_some_and(|p| p.sited));
        assert_eq!(ranges.return_address(0x1_0130), Standing::Clear);
        assert_eq!(ranges.return_address(0x1_0140), Standing::Clear, "one past the end");
        assert!(ranges.counter(0x1_0130).blind().is_some(), "reached by another way");
        let near = |pc| ranges.sites_near(pc).iter().map(|a| a.0 & 0xfff).collect::<Vec<_>>();
        assert_eq!(near(0x1_0108), [0x110, 0x120]);
        assert_eq!(near(0x1_0118), [0x120, 0x110]);
        assert_eq!(near(0x1_0128), [0x120]);
        assert!(near(0x1_0148).is_empty());
    }

    #[test]
    fn what_leads_into_a_copy_stands_as_the_copy_does() {
        // A site of an earlier update, its stub, and a passage lead into a copy of a function that is replaced now.
        let copy = Passage { start: 0x9_0000, end: 0x9_0080, exits: vec![], names: vec![0x1_0100] };
        let way = Detour { start: 0x5_0010, end: 0x5_0011, to: 0x9_0020 };
        let through =
            Passage { start: 0x5_0020, end: 0x5_0030, exits: vec![0x9_0040], names: vec![] };
        let detours = Detours { ways: vec![way], passages: vec![through, copy] };
        let ranges = BlindRanges::new(&sited_plan(), &image(), &detours);
        for at in [0x5_0010, 0x5_0020, 0x5_002f, 0x9_0000, 0x9_0020, 0x9_007f] {
            for look in [BlindRanges::counter, BlindRanges::return_address] {
                assert_eq!(look(&ranges, at).blind().map(|p| p.function), Some(3), "{at:#x}");
            }
        }
        assert_eq!(ranges.counter(0x9_0080), Standing::Clear);
        // Of a function that stays.
        let others = Plan { blind: Vec::new(), sites: Vec::new(), ..sited_plan() };
        let ranges = BlindRanges::new(&others, &image(), &detours);
        assert_eq!(ranges.counter(0x5_0010), Standing::Clear);
        assert_eq!(ranges.counter(0x9_0020), Standing::Clear);
    }

    #[test]
    fn code_that_runs_on_is_as_good_as_a_site() {
        let mut plan = sited_plan();
        let (start, end) = (OldAddr(0x114), OldAddr(0x120));
        let names = Vec::new();
        plan.passages.push(dsu_patch_format::plan::Passage {
            start,
            end,
            function: 3,
            exits: vec![1],
            names,
        });
        let ranges = BlindRanges::new(&plan, &image(), &Detours::default());
        for look in [BlindRanges::counter, BlindRanges::return_address] {
            assert!(look(&ranges, 0x1_0113).blind().is_some());
            assert_eq!(look(&ranges, 0x1_0114), Standing::Site(3));
            assert_eq!(look(&ranges, 0x1_011f), Standing::Site(3));
            assert!(look(&ranges, 0x1_0121).blind().is_some());
        }
        plan.unexpected_returns.push(OldAddr(0x118));
        let ranges = BlindRanges::new(&plan, &image(), &Detours::default());
        assert!(ranges.return_address(0x1_0118).blind().is_some());
        assert_eq!(ranges.counter(0x1_0118), Standing::Site(3));
    }

    #[test]
    fn a_return_to_the_end_of_a_function_is_not_to_the_next_one() {
        let range = |start, end, function| BlindRange {
            start: OldAddr(start),
            end: OldAddr(end),
            free: Vec::new(),
            function,
        };
        let mut plan = Plan {
            blind: vec![range(0x100, 0x140, 0), range(0x140, 0x180, 1)],
            passages: vec![dsu_patch_format::plan::Passage {
                start: OldAddr(0x140),
                end: OldAddr(0x150),
                function: 1,
                exits: Vec::new(),
                names: Vec::new(),
            }],
            ..Plan::default()
        };
        let ranges = BlindRanges::new(&plan, &image(), &Detours::default());
        assert_eq!(ranges.counter(0x1_0140), Standing::Site(1));
        assert_eq!(ranges.return_address(0x1_0140).blind().map(|p| p.function), Some(0));
        assert_eq!(ranges.return_address(0x1_0141), Standing::Site(1));
        plan.passages.clear();
        plan.sites.push(Site { kind: SiteKind::Point, ..site(0x140, 1) });
        for (dead, stands) in [(Vec::new(), Some(0)), (vec![OldAddr(0x140)], None)] {
            plan.dead_returns = dead;
            let ranges = BlindRanges::new(&plan, &image(), &Detours::default());
            assert_eq!(ranges.counter(0x1_0140), Standing::Site(1));
            assert_eq!(ranges.return_address(0x1_0140).blind().map(|p| p.function), stands);
        }
    }

    #[test]
    fn code_of_an_earlier_version_runs_on_unless_something_changes_under_it() {
        let passage = |exits: &[u64], names: &[u64]| Passage {
            start: 0x500,
            end: 0x510,
            exits: exits.to_vec(),
            names: names.to_vec(),
        };
        let write = dsu_patch_format::plan::DataWrite {
            at: OldAddr(0x800),
            bytes: vec![0; 16],
            pointers: Vec::new(),
        };
        let plan = Plan { writes: vec![write], left: vec![(OldAddr(0x900), 8)], ..sited_plan() };
        let look = |passage| {
            let detours = Detours { ways: Vec::new(), passages: vec![passage] };
            let ranges = BlindRanges::new(&plan, &image(), &detours);
            assert_eq!(ranges.counter(0x4ff), Standing::Clear);
            assert_eq!(ranges.counter(0x510), Standing::Clear);
            assert_eq!(ranges.counter(0x508), ranges.return_address(0x508));
            ranges.counter(0x50f)
        };
        assert_eq!(look(passage(&[], &[])), Standing::Clear, "it only returns");
        assert_eq!(look(passage(&[0x2_0000], &[0x1_0200])), Standing::Clear);
        assert_eq!(look(passage(&[0x1_0110, 0x2_0000], &[])), Standing::Site(3));
        let at = |standing: Standing| standing.blind().map(|p| p.at.0);
        assert_eq!(at(look(passage(&[0x1_0110, 0x1_0118], &[]))), Some(0x118), "a blind exit");
        assert_eq!(at(look(passage(&[], &[0x1_0100]))), Some(0x100), "calls what is replaced");
        let nobody = |standing: Standing| standing.blind().map(|p| p.function) == Some(NOBODY);
        assert!(nobody(look(passage(&[], &[0x1_080f]))), "overwritten");
        assert!(nobody(look(passage(&[], &[0x1_0900]))), "left behind");
        assert_eq!(look(passage(&[], &[0x1_0810])), Standing::Clear);
    }

    #[test]
    fn what_is_on_a_detour_stands_where_it_leads() {
        let detour = |start, len, to| Detour { start, end: start + len, to };
        let ways = vec![
            detour(0x500, 1, 0x1_0110),
            detour(0x600, 1, 0x1_0118),
            detour(0x700, 8, 0x1_0118),
            detour(0x800, 1, 0x1_0100),
            detour(0x900, 1, 0x2_0000),
        ];
        let detours = Detours { ways, ..Detours::default() };
        let ranges = BlindRanges::new(&sited_plan(), &image(), &detours);
        for look in [BlindRanges::counter, BlindRanges::return_address] {
            assert_eq!(look(&ranges, 0x500), Standing::Site(3));
            assert_eq!(look(&ranges, 0x501), Standing::Clear);
            for at in [0x600, 0x700, 0x707] {
                assert_eq!(look(&ranges, at).blind().map(|p| p.at.0), Some(0x118), "{at:#x}");
                assert!(ranges.may_hold(at));
            }
            assert_eq!(look(&ranges, 0x708), Standing::Clear);
            assert_eq!(look(&ranges, 0x800), Standing::Clear, "an entry is free");
            assert_eq!(look(&ranges, 0x900), Standing::Clear, "kept code");
        }
    }
}
