//! What must hold between the parts of a bundle before any of it may be used.
//!
//! Takes a decoded bundle; gives the first contradiction. Apply relies on every rule here and
//! checks none of them again.
//!
//! | module | holds |
//! |---|---|
//! | here | segments, fix-ups, redirects, data, blind ranges, the address map |
//! | [`written`] | that no two writes of a commit touch one byte |
//! | [`sites`] | checkpoint sites and their stubs |
//! | [`frames`] | frame translations |

mod frames;
mod sites;
mod written;

pub use frames::MAX_FRAME;

use crate::manifest::BlindPoint;
use crate::plan::{
    BlindRange, DataPointer, FixupKind, MapRun, MapTarget, Plan, Protection, Redirect,
    RedirectForm, Segment, Target,
};
use crate::{Bundle, NewAddr, OldAddr};

/// Bytes of a page, the unit of protection.
pub const PAGE: u64 = 4096;
/// All of a shadow image must fit well inside the reach of a 32-bit displacement.
pub const MAX_SPAN: u64 = 1 << 30;
/// Bytes of `jmp rel32` and of `jmp rel8` (SDM volume 2, JMP).
pub const NEAR_JUMP: u64 = 5;
/// See [`NEAR_JUMP`].
pub const SHORT_JUMP: u64 = 2;

/// A contradiction, with the place.
#[derive(Debug, thiserror::Error)]
#[error("{rule} ({place})")]
pub struct Invalid {
    rule: &'static str,
    place: String,
}

type Check = Result<(), Invalid>;

fn require(holds: bool, rule: &'static str, place: impl std::fmt::Display) -> Check {
    if holds { Ok(()) } else { Err(Invalid { rule, place: place.to_string() }) }
}

/// Checks everything that can be checked without the process.
///
/// # Errors
/// The first rule that does not hold.
pub fn validate(bundle: &Bundle) -> Check {
    validate_plan(bundle)?;
    frames::check(bundle)
}

/// Checks all but the frames: they may be left out.
///
/// # Errors
/// The first rule that does not hold.
pub fn validate_plan(bundle: &Bundle) -> Check {
    let plan = &bundle.plan;
    build_ids(bundle)?;
    require(plan.old_start < plan.old_end, "OLD's extent is not empty", plan.old_start)?;
    segments(plan)?;
    fixups(plan)?;
    for redirect in &plan.redirects {
        check_redirect(plan, redirect)?;
    }
    writes(plan)?;
    blind(bundle)?;
    lines(plan)?;
    map(plan)?;
    unwind(plan)?;
    sites::check(bundle)?;
    copies(plan)?;
    written::check(plan)
}

fn unwind(plan: &Plan) -> Check {
    let mut end = 0;
    for row in &plan.unwind {
        let start = row.start.0;
        require(start >= end && row.len > 0, "unwind rows ascend, disjoint", row.start)?;
        let known = row.saved.iter().map(|(register, _)| register).chain([&row.cfa.0]);
        require(known.into_iter().all(|r| *r < 16), "there are 16 registers", row.start)?;
        end = start.saturating_add(u64::from(row.len));
        let last = NewAddr(end.saturating_sub(1));
        let inside =
            |s: &Segment| s.start <= row.start && last.0 - s.start.0 < s.bytes.len() as u64;
        let text = plan.segments.iter().filter(|s| s.protection == Protection::Text);
        let mut text = text.skip_while(|s| s.start.0 + (s.bytes.len() as u64) <= start);
        require(
            text.next().is_some_and(inside),
            "unwind rows are of the shadow's code",
            row.start,
        )?;
    }
    Ok(())
}

fn copies(plan: &Plan) -> Check {
    let mut end = NewAddr(0);
    for copy in &plan.copies {
        let at = copy.start;
        let code = copy.len > 0 && in_text(plan, at, copy.len.into());
        require(at >= end && code, "copies of functions are code, and ascend", at)?;
        require(in_text(plan, copy.of, 1), "a copy is one of a function in the shadow image", at)?;
        let placed = |run: &MapRun| {
            run.to == MapTarget::Shadow && copy.of.0.wrapping_sub(run.start.0) < run.len
        };
        require(plan.map.iter().any(placed), "the function of a copy is in the address map", at)?;
        let bound = MAX_FRAME.cast_signed();
        require(
            copy.lowered.is_multiple_of(16) && copy.lowered <= MAX_FRAME,
            "a copy's frame is aligned",
            at,
        )?;
        let mut reached = -bound;
        for object in &copy.objects {
            let ascends = object.start >= reached && object.start < object.end && object.end <= -8;
            require(ascends, "objects of a copy ascend, in its function's frame", at)?;
            let lowest = 0i64.saturating_sub_unsigned(copy.lowered);
            let inside = object.old >= lowest && object.old_end() <= -8;
            require(inside, "objects of a copy are in OLD's frame, above the copy's", at)?;
            reached = object.end;
        }
        end = copy.end();
    }
    Ok(())
}

fn build_ids(bundle: &Bundle) -> Check {
    for build in [&bundle.manifest.old, &bundle.manifest.new] {
        sha256(&build.sha256)?;
        build.debug.iter().try_for_each(|debug| sha256(&debug.sha256))?;
        let hex = build.build_id.len() >= 16
            && build.build_id.len() <= 128
            && build.build_id.len().is_multiple_of(2)
            && build.build_id.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        require(hex, "a build id is lower-case hexadecimal", &build.build_id)?;
    }
    let differ = bundle.manifest.old.build_id != bundle.manifest.new.build_id;
    require(differ, "OLD and NEW are two builds", &bundle.manifest.old.build_id)
}

fn sha256(text: &str) -> Check {
    let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    require(text.len() == 64 && hex, "a SHA-256 is 64 lower-case hexadecimal digits", text)
}

fn segments(plan: &Plan) -> Check {
    let mut previous: Option<(u64, Protection)> = None;
    let first = plan.segments.first().map_or(0, |s| s.start.0);
    for segment in &plan.segments {
        let start = segment.start.0;
        let end = start
            .checked_add(segment.bytes.len() as u64)
            .and_then(|e| e.checked_add(segment.zeroes));
        let end =
            end.filter(|e| *e > start && e.checked_sub(first).is_some_and(|span| span <= MAX_SPAN));
        require(end.is_some(), "a segment has a size within bounds", segment.start)?;
        let end = end.unwrap_or_default();
        if let Some((before, protection)) = previous {
            let apart = protection == segment.protection || before.div_ceil(PAGE) <= start / PAGE;
            require(before <= start && apart, "segments ascend, one protection a page", start)?;
        }
        previous = Some((end, segment.protection));
    }
    Ok(())
}

fn fixups(plan: &Plan) -> Check {
    let mut end = 0;
    for fixup in &plan.fixups {
        let size = if fixup.kind == FixupKind::Abs64 { 8 } else { 4 };
        require(fixup.at.0 >= end, "fix-ups ascend and do not overlap", fixup.at)?;
        require(in_bytes(plan, fixup.at, size), "a fix-up lies in a segment's bytes", fixup.at)?;
        let low = fixup.kind != FixupKind::Abs32 || plan.low_2gib;
        require(low, "32-bit absolute fields only in a low shadow image", fixup.at)?;
        check_target(plan, &fixup.target)?;
        end = fixup.at.0 + size;
    }
    Ok(())
}

fn check_target(plan: &Plan, target: &Target) -> Check {
    match *target {
        // One past the end is an address that programs may form.
        Target::Old(a) | Target::OldCode(a) | Target::OldIdentity(a) => {
            let inside = plan.old_start <= a && a <= plan.old_end;
            require(inside, "a target lies in OLD's image", a)
        }
        Target::New(a) => require(is_near(plan, a), "a target lies in a segment, or near one", a),
        Target::Import(i) => {
            require((i as usize) < plan.imports.len(), "an import's index is in range", i)
        }
    }
}

fn check_redirect(plan: &Plan, redirect: &Redirect) -> Check {
    let at = redirect.at;
    check_jump(plan, at, redirect.form)?;
    require(in_old(plan, redirect.entry, 1), "an entry lies in OLD's image", redirect.entry)?;
    let behind = at.0.wrapping_sub(redirect.entry.0);
    require(behind == 0 || behind == 4, "a redirect is at its entry or behind endbr64", at)?;
    let text = in_text(plan, redirect.to, 1);
    require(text, "a redirect leads to code in the shadow image", redirect.to)?;
    let masked = redirect.expect.len() == redirect.mask.len() && redirect.expect.len() <= 64;
    require(masked, "expected bytes and their mask have one length", at)
}

/// A jump written into OLD: of a redirect or to a stub.
fn check_jump(plan: &Plan, at: OldAddr, form: RedirectForm) -> Check {
    if let Some(cave) = form.cave() {
        let reach = cave.since(at.offset(SHORT_JUMP)).cast_signed();
        require(i8::try_from(reach).is_ok(), "a cave is within reach of a short jump", cave)?;
        require(in_old(plan, cave, NEAR_JUMP), "a cave lies in OLD's image", cave)?;
    }
    require(in_old(plan, at, form.jump_len()), "a jump lies in OLD's image", at)
}

fn writes(plan: &Plan) -> Check {
    let mut end = 0;
    for write in &plan.writes {
        let len = write.bytes.len() as u64;
        require(write.at.0 >= end && len > 0, "writes ascend and do not overlap", write.at)?;
        require(in_old(plan, write.at, len), "a write lies in OLD's image", write.at)?;
        end = write.at.0 + len;
        let mut done = 0;
        for DataPointer { offset, target, .. } in &write.pointers {
            let fits = *offset >= done && offset.checked_add(8).is_some_and(|e| e <= len);
            require(fits, "pointers of a write ascend inside it", write.at)?;
            check_target(plan, target)?;
            done = offset + 8;
        }
    }
    Ok(())
}

fn blind(bundle: &Bundle) -> Check {
    let mut end = OldAddr(0);
    for BlindRange { start, end: stop, free, function } in &bundle.plan.blind {
        require(*start >= end && stop > start, "blind ranges ascend", start)?;
        require(in_old(&bundle.plan, *start, stop.0 - start.0), "a blind range is OLD's", start)?;
        require(
            (*function as usize) < bundle.manifest.replaced.len(),
            "a blind range names a replaced function",
            function,
        )?;
        require(free.iter().all(|f| start <= f && f < stop), "free points lie inside", start)?;
        end = *stop;
    }
    let points = &bundle.manifest.blind_points;
    let known = |p: &BlindPoint| (p.function as usize) < bundle.manifest.replaced.len();
    require(points.iter().all(known), "a blind point names a replaced function", "blind points")?;
    require(points.is_sorted_by_key(|p| p.at), "blind points ascend", "blind points")
}

fn lines(plan: &Plan) -> Check {
    require(plan.lines.is_sorted_by_key(|l| l.start), "line rows ascend", "lines")?;
    let known = plan.lines.iter().all(|l| (l.file as usize) < plan.files.len());
    require(known, "line rows name files that there are", "lines")
}

fn map(plan: &Plan) -> Check {
    let mut end = 0;
    for run in &plan.map {
        let stop = run.start.0.checked_add(run.len).filter(|s| *s > run.start.0);
        require(run.start.0 >= end && stop.is_some(), "map runs ascend", run.start)?;
        end = stop.unwrap_or_default();
        if let crate::plan::MapTarget::Old(old) = run.to {
            require(in_old(plan, old, run.len), "a map run leads into OLD's image", old)?;
        }
    }
    let sorted = plan.identities.is_sorted_by_key(|i| i.new);
    require(sorted, "identities ascend", "identities")?;
    for identity in &plan.identities {
        require(in_old(plan, identity.old, 1), "an identity is in OLD's image", identity.old)?;
    }
    Ok(())
}

/// The segment that could hold an address: segments ascend, so it is the last one that starts there
/// or before.
fn segment_at(plan: &Plan, address: NewAddr) -> Option<&Segment> {
    let after = plan.segments.partition_point(|s| s.start <= address);
    after.checked_sub(1).and_then(|i| plan.segments.get(i))
}

/// Whether an index that is added to an address may lead into a segment: what it is less may be any
/// signed 32-bit number (`table[year - 1900]`).
fn is_near(plan: &Plan, address: NewAddr) -> bool {
    let (Some(first), Some(last)) = (plan.segments.first(), plan.segments.last()) else {
        return false;
    };
    let end = last.start.0.saturating_add(last.bytes.len() as u64).saturating_add(last.zeroes);
    first.start.0.saturating_sub(1 << 31) <= address.0 && address.0 <= end.saturating_add(1 << 31)
}

fn in_bytes(plan: &Plan, address: NewAddr, size: u64) -> bool {
    segment_at(plan, address).is_some_and(|s| {
        let end = address.since(s.start).checked_add(size);
        end.is_some_and(|e| e <= s.bytes.len() as u64)
    })
}

fn in_text(plan: &Plan, address: NewAddr, size: u64) -> bool {
    in_bytes(plan, address, size)
        && segment_at(plan, address).is_some_and(|s| s.protection == Protection::Text)
}

fn in_old(plan: &Plan, address: OldAddr, size: u64) -> bool {
    plan.old_start <= address && address.checked_add(size).is_some_and(|end| end <= plan.old_end)
}
