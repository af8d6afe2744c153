//! Planting: where the jumps to the stubs are written into OLD's text, and the stubs themselves.
//!
//! Takes the proven sites of all replaced functions; gives [`Plan::sites`], their stubs, and the copies of functions
//! that some lead to, as the last segment of the shadow image, and [`Emitted::frames`]. Drops, with the reason, sites for which OLD's
//! text has no room, and those whose stub cannot be made.
//!
//! ```text
//! sites of a part -> room (which bytes are free) -> layout (which jump goes where) -> stubs -> plan
//! ```
//!
//! [`Plan::sites`]: dsu_patch_format::plan::Plan::sites

mod copies;
mod layout;
mod returns;
mod room;

use super::expected::expected;
use super::{Emitted, stubs};
use crate::code::{Body, decode};
use crate::frames::Relaid;
use crate::image::{FunctionId, Image};
use dsu_patch_format::plan::{
    BlindRange, Copied, Fixup, Plan, Protection, Redirect, RedirectForm, Segment, Site, SiteKind,
    UnwindRow,
};
use dsu_patch_format::validate::{MAX_SPAN, NEAR_JUMP, PAGE, SHORT_JUMP};
use dsu_patch_format::{NewAddr, OldAddr, Translation};
use layout::{Rank, Wanted};
use room::Text;
pub(super) use room::union;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;

/// Stubs begin at multiples of this, as functions do.
const ALIGNMENT: u64 = 16;

/// A site with the proof that frames can go on from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The program point in OLD.
    pub at: OldAddr,
    /// What sort of point it is.
    pub kind: SiteKind,
    /// Its counterpart.
    pub to: NewAddr,
    /// [`Emitted::replaced`] by index.
    pub function: u32,
    /// What happens to the frame.
    pub translation: Translation,
    /// It goes on in a copy of the counterpart's function.
    pub relaid: bool,
}

/// A site that is not in the plan after all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The program point in OLD.
    pub at: OldAddr,
    /// What sort of point it is.
    pub kind: SiteKind,
    /// [`Emitted::replaced`] by index.
    pub function: u32,
    /// Why, for people.
    pub reason: String,
}

impl Dropped {
    fn new(site: &Planned, reason: impl Into<String>) -> Self {
        let Planned { at, kind, function, .. } = *site;
        Self { at, kind, function, reason: reason.into() }
    }
}

/// Plants sites. The redirects and blind ranges must be in `out.plan` already; `new_end` is the end of
/// NEW's extent; each of `reserved` is code that is better left alone, the first the best,
/// ascending and disjoint; `relaid` are the functions that copies are made of, by [`Planned::function`]. A redirect may
/// become a short one to make room for a site behind it.
pub fn plant(
    old: &Image,
    new_end: NewAddr,
    mut planned: Vec<Planned>,
    reserved: &[Vec<Range<u64>>],
    relaid: &BTreeMap<u32, &Relaid>,
    out: &mut Emitted,
) -> Vec<Dropped> {
    let mut dropped = Vec::new();
    planned.sort_by_key(|p| (p.at, rank(p.kind)));
    planned.dedup_by(|later, first| {
        let twice = later.at == first.at;
        if twice {
            dropped.push(Dropped::new(later, "another site is at the same place"));
        }
        twice
    });
    let formed = place(old, planned, reserved, out, &mut dropped);
    let mut section = Section::new(out, new_end);
    for Formed { mut site, form, expect, mask } in formed {
        let to = match (site.relaid, relaid.get(&site.function)) {
            (false, _) => Ok(site.to),
            (true, Some(relaid)) => section.copied(site.function, (relaid, &out.plan), site.to),
            (true, None) => Err("there is no copy of NEW's code".to_owned()),
        };
        let added = to.and_then(|to| {
            site.to = to;
            section.add(&mut site.translation, to)
        });
        match added {
            Ok((stub, stub_len)) => {
                let Planned { at, kind, to, function, translation, .. } = site;
                out.plan.sites.push(Site {
                    at,
                    kind,
                    form,
                    stub,
                    stub_len,
                    to,
                    function,
                    expect,
                    mask,
                });
                out.frames.push(translation);
            }
            Err(reason) => dropped.push(Dropped::new(&site, reason)),
        }
    }
    section.finish(out);
    dropped.sort_by_key(|d| (d.at, d.kind));
    dropped
}

fn rank(kind: SiteKind) -> Rank {
    match kind {
        SiteKind::Return | SiteKind::LandingPad => Rank::Waiting,
        SiteKind::Loop => Rank::Loop,
        SiteKind::Point => Rank::Point,
    }
}

/// A site whose jump has its place.
struct Formed {
    site: Planned,
    form: RedirectForm,
    expect: Vec<u8>,
    mask: Vec<u8>,
}

/// Finds the place of each jump. Takes sites ascending.
fn place(
    old: &Image,
    planned: Vec<Planned>,
    reserved: &[Vec<Range<u64>>],
    out: &mut Emitted,
    dropped: &mut Vec<Dropped>,
) -> Vec<Formed> {
    let owners: Vec<Option<FunctionId>> =
        out.replaced.iter().map(|r| old.function_at(r.old.0)).collect();
    let carried = out.replaced.iter().zip(&owners).filter(|(r, _)| r.new.is_some());
    let mut text = Text {
        old,
        replaced: carried.filter_map(|(_, owner)| *owner).collect(),
        redirects: std::mem::take(&mut out.plan.redirects),
    };
    let mut bodies: BTreeMap<FunctionId, Body> = BTreeMap::new();
    let mut formed = Vec::new();
    let mut rest = planned.into_iter().peekable();
    for blind in &out.plan.blind {
        while let Some(site) = rest.next_if(|p| p.at < blind.start) {
            dropped.push(Dropped::new(&site, "it is not in the code of a replaced function"));
        }
        let inside: Vec<Planned> =
            std::iter::from_fn(|| rest.next_if(|p| p.at < blind.end)).collect();
        let owner = owners.get(blind.function as usize).copied().flatten();
        let Some(owner) = owner.filter(|_| !inside.is_empty()) else { continue };
        let body = bodies.entry(owner).or_insert_with(|| decode(old, old.function(owner)));
        formed.extend(text.place((body, blind), inside, reserved, dropped));
    }
    for site in rest {
        dropped.push(Dropped::new(&site, "it is not in the code of a replaced function"));
    }
    out.plan.redirects = text.redirects;
    formed
}

impl Text<'_> {
    /// The sites of one blind range.
    fn place(
        &mut self,
        (body, blind): (&Body, &BlindRange),
        mut sites: Vec<Planned>,
        reserved: &[Vec<Range<u64>>],
        dropped: &mut Vec<Dropped>,
    ) -> Vec<Formed> {
        sites.retain(|site| {
            let why = if blind.free.contains(&site.at) {
                "it is the function's entry, where the redirect is"
            } else if !body.is_boundary(site.at.0) {
                "no instruction begins there"
            } else {
                return true;
            };
            dropped.push(Dropped::new(site, why));
            false
        });
        let part = blind.start.0..blind.end.0;
        let places: Vec<u64> = sites.iter().map(|s| s.at.0).collect();
        let usable = self.usable(body, &part, &places);
        let mut wanted: Vec<Wanted> =
            sites.iter().map(|s| Wanted { at: s.at.0, rank: rank(s.kind) }).collect();
        let entry = self.entry(&part).filter(|r| r.form == RedirectForm::Near).map(|r| r.at.0);
        if let Some(at) = entry {
            let index = wanted.partition_point(|w| w.at < at);
            wanted.insert(index, Wanted { at, rank: Rank::Entry });
        }
        // A site is worth more than what is reserved, and the function's entry has its jump in any case.
        let own = entry.map(|at| at..at + NEAR_JUMP);
        let careful = |reserved: &Vec<Range<u64>>| {
            let reserved = layout::without(reserved, own.as_slice());
            let forms = layout::lay_out(&layout::without(&usable, &reserved), &wanted);
            forms.iter().all(Option::is_some).then_some(forms)
        };
        let forms = reserved.iter().find_map(careful);
        let forms = forms.unwrap_or_else(|| layout::lay_out(&usable, &wanted));
        let mut by_place: BTreeMap<u64, RedirectForm> = wanted
            .iter()
            .zip(forms)
            .filter_map(|(wanted, form)| Some((wanted.at, form?)))
            .collect();
        if let Some(form) = entry.and_then(|at| by_place.remove(&at)) {
            self.set_entry(&part, form);
        }
        let mut out = Vec::new();
        for site in sites {
            let Some(form) = by_place.remove(&site.at.0) else {
                dropped.push(Dropped::new(&site, "no room for a jump"));
                continue;
            };
            let (expect, mask) = replaced_bytes(self.old, body, site.at.0, form);
            out.push(Formed { site, form, expect, mask });
        }
        out
    }

    fn set_entry(&mut self, part: &Range<u64>, form: RedirectForm) {
        let here = |r: &&mut Redirect| r.entry.0 == part.start;
        if let Some(redirect) = self.redirects.iter_mut().find(here) {
            redirect.form = form;
        }
    }
}

/// What a jump overwrites, and which bytes of it are as built in every process.
fn replaced_bytes(old: &Image, body: &Body, at: u64, form: RedirectForm) -> (Vec<u8>, Vec<u8>) {
    let len = if form == RedirectForm::Near { NEAR_JUMP } else { SHORT_JUMP };
    let steps = body.index_at(at).and_then(|i| body.steps.get(i..)).unwrap_or_default();
    let steps = steps.iter().take_while(|s| s.address() < at + len);
    expected(old, at, len, steps.flat_map(|s| s.references.iter().copied()))
}

/// The stubs' segment being written.
struct Section {
    start: u64,
    /// The first address beyond the reach of everything else.
    limit: u64,
    bytes: Vec<u8>,
    fixups: Vec<Fixup>,
    /// Where frames return to that stand so much lower.
    returns: BTreeMap<u64, NewAddr>,
    /// Where the instructions of functions are in their copies, or why there is none.
    places: BTreeMap<u32, Result<BTreeMap<u64, NewAddr>, String>>,
    copies: Vec<Copied>,
    unwind: Vec<UnwindRow>,
}

impl Section {
    /// Behind NEW's own and what the shadow image has of it.
    fn new(out: &Emitted, new_end: NewAddr) -> Self {
        let segments = &out.plan.segments;
        let end = |s: &Segment| s.start.0 + s.bytes.len() as u64 + s.zeroes;
        let last = segments.iter().map(end).max().unwrap_or(0);
        let first = segments.first().map_or(last, |s| s.start.0);
        Self {
            start: last.max(new_end.0).next_multiple_of(PAGE),
            limit: first.saturating_add(MAX_SPAN),
            bytes: Vec::new(),
            fixups: Vec::new(),
            returns: BTreeMap::new(),
            places: BTreeMap::new(),
            copies: Vec::new(),
            unwind: Vec::new(),
        }
    }

    /// Where an instruction of a function is in its copy, which is added if it is not there yet.
    fn copied(
        &mut self,
        function: u32,
        (relaid, plan): (&Relaid, &Plan),
        to: NewAddr,
    ) -> Result<NewAddr, String> {
        let places = match self.places.get(&function) {
            Some(places) => places,
            None => {
                let places = self.copy(relaid, plan);
                self.places.entry(function).or_insert(places)
            }
        };
        let places =
            places.as_ref().map_err(|why| format!("a copy of NEW's code cannot be made: {why}"))?;
        places.get(&to.0).copied().ok_or_else(|| format!("the copy has nothing of {to}"))
    }

    fn copy(&mut self, relaid: &Relaid, plan: &Plan) -> Result<BTreeMap<u64, NewAddr>, String> {
        let at = self.next();
        let copy = copies::assemble(relaid, plan, at)?;
        let len = self.put(copy.bytes)?;
        self.fixups.extend(copy.fixups);
        self.unwind.extend(copy.rows);
        self.copies.push(Copied {
            start: at,
            len,
            of: NewAddr(relaid.flow.entry),
            lowered: relaid.lowered,
            objects: relaid.objects.clone(),
        });
        Ok(copy.places)
    }

    /// Adds a stub; gives where it is and its length.
    fn add(&mut self, frame: &mut Translation, to: NewAddr) -> Result<(NewAddr, u32), String> {
        let failed = |why: &dyn Display| format!("its stub cannot be made: {why}");
        if frame.lowered > 0 {
            let code = match self.returns.get(&frame.lowered) {
                Some(code) => *code,
                None => {
                    let made = returns::assemble(frame.lowered, self.next());
                    let made = made.map_err(|why| failed(&why))?;
                    self.put(made.bytes)?;
                    self.unwind.extend(made.rows);
                    self.returns.insert(frame.lowered, made.entry);
                    made.entry
                }
            };
            returns::to(frame, code);
        }
        let at = self.next();
        let stub = stubs::assemble(frame, at, to).map_err(|why| failed(&why))?;
        let len = self.put(stub.bytes)?;
        self.fixups.extend(stub.fixups);
        Ok((at, len))
    }

    /// Where the next piece of code begins.
    fn next(&self) -> NewAddr {
        NewAddr(self.start + (self.bytes.len() as u64).next_multiple_of(ALIGNMENT))
    }

    /// Puts code there; gives its length.
    fn put(&mut self, code: Vec<u8>) -> Result<u32, String> {
        let at = self.next().0;
        let len = u32::try_from(code.len()).map_err(|e| e.to_string())?;
        if at + u64::from(len) > self.limit {
            return Err("NEW is too large: its stub would be out of reach".to_owned());
        }
        let offset = usize::try_from(at - self.start).map_err(|e| e.to_string())?;
        self.bytes.resize(offset, FILLER);
        self.bytes.extend(code);
        Ok(len)
    }

    fn finish(self, out: &mut Emitted) {
        if self.bytes.is_empty() {
            return;
        }
        out.plan.segments.push(Segment {
            start: NewAddr(self.start),
            bytes: self.bytes,
            zeroes: 0,
            protection: Protection::Text,
        });
        out.plan.fixups.extend(self.fixups);
        out.plan.copies.extend(self.copies);
        out.plan.unwind.extend(self.unwind);
    }
}

/// `int3`, between stubs.
const FILLER: u8 = 0xcc;
