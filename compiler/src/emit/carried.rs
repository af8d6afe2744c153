//! Sites, blind points and coverage of the bundle, from what is known of each function's frames.

use super::passages::{self, Flows};
use super::sites::{Dropped, Planned, plant};
use super::{Emitted, Inputs};
use crate::frames::{Blind, Carried};
use crate::image::Image;
use dsu_patch_format::manifest::{BlindPoint, Coverage};
use dsu_patch_format::plan::SiteKind;
use dsu_patch_format::{NewAddr, OldAddr};
use std::collections::BTreeSet;

/// Reasons told of one blind point.
const REASONS: usize = 3;

/// Plants the proven points; says of the others why frames cannot go on there.
pub fn write(inputs: Inputs<'_>, carried: &[Carried], out: &mut Emitted) {
    let pair = inputs.pair;
    let index = |entry: u64| {
        let found = out.replaced.iter().position(|r| r.old == OldAddr(entry));
        found.and_then(|i| u32::try_from(i).ok())
    };
    let mut planned = Vec::new();
    let mut points = Vec::new();
    let mut dead = std::mem::take(&mut out.plan.dead_returns);
    for one in carried {
        let Some(function) = index(pair.old.function(one.function).address) else { continue };
        planned.extend(one.proven.iter().map(|p| Planned {
            at: p.at,
            kind: p.kind,
            to: p.to,
            function,
            translation: p.translation.clone(),
            relaid: p.relaid,
        }));
        points.extend(one.blind.iter().map(|b| Point {
            at: b.at,
            function,
            kind: b.kind,
            why: words(b),
            new_local: !b.obstacles.is_empty() && b.obstacles.iter().all(|o| o.new_local),
        }));
        dead.extend(&one.dead_returns);
    }
    let flows: Flows<'_> = carried
        .iter()
        .filter_map(|one| {
            let function = index(pair.old.function(one.function).address)?;
            Some((function, one.flow.as_ref()?, &one.relying))
        })
        .collect();
    let blind: BTreeSet<u64> = points.iter().map(|p| p.at.0).collect();
    let reserved = passages::reserve(inputs, &flows, &planned, &blind);
    let relaid = carried.iter().filter_map(|one| {
        Some((index(pair.old.function(one.function).address)?, one.relaid.as_ref()?))
    });
    let relaid = relaid.collect();
    let end = NewAddr(pair.new.extent.end);
    let dropped = plant(pair.old, end, planned, &reserved, &relaid, out);
    let unexpected = carried.iter().flat_map(|one| one.unexpected.iter().copied());
    passages::write(inputs, &flows, unexpected, out);
    points.extend(dropped.into_iter().map(|Dropped { at, kind, function, reason }| Point {
        at,
        function,
        kind,
        why: reason,
        new_local: false,
    }));
    // Points in between are sites or nothing.
    points.retain(|p| p.kind != SiteKind::Point);
    points.sort();
    dead.sort_unstable();
    dead.dedup();
    out.plan.dead_returns = dead;
    let (passing, blind): (Vec<Point>, Vec<Point>) =
        points.into_iter().partition(|p| is_passed(out, p));
    coverage(&passing, &blind, out);
    let told = |points: Vec<Point>| {
        let one = |Point { at, function, kind, why, new_local }| {
            let (file, line) = position(pair.old, at, kind);
            BlindPoint { function, at, kind, file, line, new_local, why }
        };
        points.into_iter().map(one).collect()
    };
    (out.passing_points, out.blind_points) = (told(passing), told(blind));
}

/// Whether OLD's code runs on there.
fn is_passed(out: &Emitted, point: &Point) -> bool {
    let at = point.at;
    let unexpected = out.plan.unexpected_returns.binary_search(&at).is_ok();
    if point.kind == SiteKind::Return && unexpected {
        return false;
    }
    let after = out.plan.passages.partition_point(|p| p.start <= at);
    let before = after.checked_sub(1).and_then(|i| out.plan.passages.get(i));
    before.is_some_and(|p| at < p.end)
}

/// A blind point; they ascend by address, wherever a function's cold part is.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    at: OldAddr,
    function: u32,
    kind: SiteKind,
    why: String,
    new_local: bool,
}

/// Source file and line of a program point; that of the call for the point behind one, which may be the
/// first of another line.
#[must_use]
pub fn position(old: &Image, at: OldAddr, kind: SiteKind) -> (String, u32) {
    let counts = if kind == SiteKind::Return { at.0.saturating_sub(1) } else { at.0 };
    old.debug.position(counts).map_or_else(Default::default, |(file, line)| (file.to_owned(), line))
}

fn words(blind: &Blind) -> String {
    let mut told: Vec<&str> = Vec::new();
    for obstacle in &blind.obstacles {
        if !told.contains(&obstacle.text.as_str()) {
            told.push(&obstacle.text);
        }
    }
    let more = told.len().saturating_sub(REASONS);
    told.truncate(REASONS);
    let text = told.join("; ");
    if more > 0 { format!("{text}; and {more} more") } else { text }
}

fn coverage(passing: &[Point], blind: &[Point], out: &mut Emitted) {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    for (index, replaced) in out.replaced.iter_mut().enumerate() {
        let is_call =
            |function: u32, kind: SiteKind| function == count(index) && kind == SiteKind::Return;
        let sites = out.plan.sites.iter().filter(|s| is_call(s.function, s.kind)).count();
        let passing = passing.iter().filter(|p| is_call(p.function, p.kind)).count();
        let blind = || blind.iter().filter(|p| is_call(p.function, p.kind));
        replaced.coverage = Coverage {
            sites: count(sites),
            passing: count(passing),
            new_locals: count(blind().filter(|p| p.new_local).count()),
            of: count(sites + passing + blind().count()),
        };
    }
}
