//! Everything that a commit needs, computed while the process runs.
//!
//! Takes the target and the bundle; gives the place of the shadow image, its content, the writes of the
//! commit and the record. The shadow image is that of an earlier application of the bundle if it can be
//! taken again ([`crate::again`]), and then a span is needed for the record alone; else it gets the best free
//! place. Changes nothing.

use crate::address::{Bias, ProcAddr};
use crate::again::{self, Again, Answer};
use crate::commit;
use crate::commit::layout::Layout;
use crate::commit::places::Places;
use crate::commit::writes::CommitPlan;
use crate::error::ApplyError;
use crate::options::ApplyOptions;
use crate::record::map::AddressMap;
use crate::record::{Earlier, Entry, Extent, Passing, Planted, Record, retire, standing};
use crate::target::Target;
use crate::target::maps::Maps;
use dsu_patch_format::plan::{Copied, Passage, Plan, Site};
use dsu_patch_format::validate::NEAR_JUMP;
use dsu_patch_format::{Bundle, OldAddr};

/// Everything that a commit needs, computed before anything is stopped.
#[derive(Debug)]
pub struct Prepared {
    /// First byte of the span.
    pub span: ProcAddr,
    /// How the span is divided.
    pub layout: Layout,
    /// Of the shadow image.
    pub bias: Bias,
    /// What goes into the record.
    pub record: Record,
    /// What the commit writes.
    pub commit: CommitPlan,
    /// Content of the segments, fixed up.
    pub segments: Vec<Vec<u8>>,
    /// The shadow image of an earlier application of the bundle, if it is taken again.
    pub again: Option<Again>,
    /// Why such a one is not.
    pub why: Option<&'static str>,
}

impl Prepared {
    /// Computes everything: for the shadow image that an earlier application of the bundle has left, if it can
    /// be taken again, and else for the best free place. Changes nothing.
    ///
    /// # Errors
    /// There is no place, or something does not fit it.
    pub fn compute(
        target: &Target,
        bundle: &Bundle,
        digest: &str,
        options: &ApplyOptions,
    ) -> Result<Self, ApplyError> {
        let making = Making { target, bundle, digest, journals: target.journals()? };
        let answer = again::find(target, bundle, digest, options)?;
        let prepared = match answer {
            Answer::Again(again) => making.again(again)?,
            Answer::First => making.anew(None)?,
            Answer::Anew(why) => making.anew(Some(why))?,
        };
        commit::refuse_unwritable(&Maps::of(target.pid)?, &prepared.commit)?;
        if prepared.commit.writes.iter().any(|w| w.cave) {
            let image = prepared.again.as_ref().map(|again| again.image);
            let written = standing::written(&making.updates(), &making.journals, image);
            let written = written.iter().map(|place| (ProcAddr(place.start), place.len));
            prepared.commit.refuse_used_caves(written.collect())?;
        }
        Ok(prepared)
    }
}

/// What everything is computed from.
struct Making<'a> {
    target: &'a Target,
    bundle: &'a Bundle,
    digest: &'a str,
    /// Of the target's updates.
    journals: Vec<Vec<Entry>>,
}

impl Making<'_> {
    fn updates(&self) -> Vec<&Record> {
        self.target.updates.iter().map(|found| &found.record).collect()
    }

    /// In a free place.
    fn anew(&self, why: Option<&'static str>) -> Result<Prepared, ApplyError> {
        let plan = &self.bundle.plan;
        // Sizes do not depend on the place: once for them, once for the content. The draft's bias brings
        // nothing next to each other: its map is never the smaller one.
        let draft_bias = Bias(1 << 60);
        let draft = CommitPlan::draft(plan, &self.places(draft_bias));
        let draft = (self.record(&draft, draft_bias, None)?, draft.journal_len());
        let layout = layout(plan, &draft.0, draft.1)?;
        let span = self.target.place(layout.len, plan.low_2gib)?;
        let bias = layout.bias(span);
        let places = self.places(bias);
        let commit = CommitPlan::new(plan, &places, |entry| self.name(entry))?;
        let segments = places.segments(plan)?;
        let mut record = self.record(&commit, bias, None)?;
        (record.span_start, record.span_len) = (span.0, layout.len);
        record.image = layout.image(span);
        record.content = again::digest(plan, &segments);
        Ok(Prepared { span, layout, bias, record, commit, segments, again: None, why })
    }

    /// In an image that is there.
    fn again(&self, again: Again) -> Result<Prepared, ApplyError> {
        let (plan, bias) = (&self.bundle.plan, again.bias);
        let places = self.places(bias);
        let mut commit = CommitPlan::new(plan, &places, |entry| self.name(entry))?;
        commit.put_back(&again.put_back);
        let segments = places.segments(plan)?;
        let mut record = self.record(&commit, bias, Some(again.image))?;
        // A span for the record alone.
        let layout = layout(&Plan::default(), &record, commit.journal_len())?;
        let span = self.target.place(layout.len, plan.low_2gib)?;
        (record.span_start, record.span_len) = (span.0, layout.len);
        record.content = again::digest(plan, &segments);
        record.image = again.image;
        let again = Some(again);
        Ok(Prepared { span, layout, bias, record, commit, segments, again, why: None })
    }

    fn places(&self, bias: Bias) -> Places<'_> {
        Places {
            map: &self.target.map,
            identities: &self.target.identities,
            bias,
            imports: &self.target.imports,
        }
    }

    fn name(&self, entry: OldAddr) -> String {
        let found = self.bundle.manifest.replaced.iter().find(|f| f.old == entry);
        found.map_or_else(|| format!("{entry}"), |f| f.name.clone())
    }

    /// The record, but for what depends on its place.
    fn record(
        &self,
        commit: &CommitPlan,
        bias: Bias,
        again: Option<Extent>,
    ) -> Result<Record, ApplyError> {
        let (target, plan) = (self.target, &self.bundle.plan);
        let (manifest, updates) = (&self.bundle.manifest, self.updates());
        let serials = target.updates.iter().chain(&target.undone).map(|f| f.record.serial);
        let map = target.map.compose(&plan.map, bias);
        let mut passages: Vec<Passing> =
            plan.passages.iter().flat_map(|passage| self.passing(passage)).collect();
        for copy in &plan.copies {
            passages.push(copied(copy, &map, bias)?);
        }
        passages.sort_by_key(|passing| passing.extent.start);
        let mut record = Record {
            bundle: self.digest.to_owned(),
            old_build_id: manifest.old.build_id.clone(),
            new_build_id: manifest.new.build_id.clone(),
            image_bias: target.image.bias,
            sequence: updates.last().map_or(0, |last| last.sequence).saturating_add(1),
            when: std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()),
            bias: bias.0,
            span_start: 0,
            span_len: 0,
            image: again.unwrap_or_default(),
            content: [0; 32],
            serial: serials.max().unwrap_or(0).saturating_add(1),
            needs: Vec::new(),
            earlier: Earlier::default(),
            map,
            identities: commit.identities.clone(),
            sites: plan.sites.iter().map(|site| self.planted(site)).collect::<Result<_, _>>()?,
            passages,
            functions: manifest.replaced.iter().map(|f| f.name.clone()).collect(),
            unwind: plan.unwind.clone(),
        };
        // The last one is what a revert comes back to.
        let last = updates.last().map(|last| last.serial);
        let is_covered = |earlier: &Record| {
            let later = updates.iter().copied().chain([&record]);
            Some(earlier.serial) != last
                && later.into_iter().any(|later| retire::says_the_same(earlier, later))
        };
        let needs = updates.iter().filter(|update| !is_covered(update)).map(|u| u.sequence);
        let needs: Vec<u32> = needs.collect();
        let earlier = standing::inherited(&updates, &self.journals, again, is_covered);
        (record.needs, record.earlier) = (needs, earlier);
        Ok(record)
    }

    /// A passage, in several pieces where the version before it is.
    fn passing(&self, passage: &Passage) -> Vec<Passing> {
        let map = &self.target.map;
        let place = |at: OldAddr| map.place(at.0).map(|at| at.0);
        let sites = passage.exits.iter().filter_map(|i| self.bundle.plan.sites.get(*i as usize));
        let exits: Vec<u64> = sites.filter_map(|site| place(site.at)).collect();
        let names: Vec<u64> = passage.names.iter().filter_map(|at| place(*at)).collect();
        map.pieces(passage.start.0, passage.end.0)
            .map(|run| Passing {
                extent: Extent { start: run.to, len: run.len },
                exits: exits.clone(),
                names: names.clone(),
            })
            .collect()
    }

    fn planted(&self, site: &Site) -> Result<Planted, ApplyError> {
        let places = self.places(Bias(0));
        let at = places.old_range(site.at, site.form.jump_len())?;
        let cave = site.form.cave().map(|cave| places.old_range(cave, NEAR_JUMP)).transpose()?;
        // One that is not near is refused when its jump is made.
        let near = |cave: ProcAddr| i16::try_from(cave.since(at).cast_signed()).unwrap_or(0);
        Ok(Planted {
            at: at.0,
            cave: cave.map(near),
            stub: site.stub.0,
            stub_len: site.stub_len,
            to: site.to.0,
        })
    }
}

/// A copy of a function, as code that frames run on in while nothing changes the function: they leave it by
/// returning alone.
fn copied(copy: &Copied, map: &AddressMap, bias: Bias) -> Result<Passing, ApplyError> {
    let function = map.place(copy.of.0).ok_or_else(|| {
        ApplyError::Internal(format!("the function at {} has no place in the process", copy.of))
    })?;
    Ok(Passing {
        extent: Extent { start: bias.apply(copy.start.0).0, len: copy.len.into() },
        exits: Vec::new(),
        names: vec![function.0],
    })
}

fn layout(plan: &Plan, record: &Record, journal: usize) -> Result<Layout, ApplyError> {
    let size = record.journal_offset().map_err(encoding)? + journal;
    Layout::new(plan, size).ok_or_else(|| {
        ApplyError::Unsuitable("the shadow image is larger than the address space".into())
    })
}

pub(crate) fn encoding(error: postcard::Error) -> ApplyError {
    ApplyError::Internal(format!("encode the record: {error}"))
}
