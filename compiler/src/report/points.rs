//! The program points of a replaced function at which its frames may wait, in order of address: those
//! that can be carried over, with their tables, and those that cannot, with the reason.
//!
//! Takes what was emitted; decides nothing.

use crate::Built;
use crate::emit::carried::position;
use crate::image::Image;
use dsu_patch_format::dump::printable;
use dsu_patch_format::plan::SiteKind;
use dsu_patch_format::{NewAddr, OldAddr, Translation};

/// A place in the source; empty and 0 when unknown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// File.
    pub file: String,
    /// Line.
    pub line: u32,
}

impl Place {
    /// What the code at an address was made of.
    pub fn of(image: &Image, address: u64) -> Self {
        let (file, line) = image.debug.position(address).unwrap_or_default();
        Self { file: printable(file).into_owned(), line }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "no known line"),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// One point.
#[derive(Debug)]
pub struct Point<'a> {
    /// In OLD.
    pub at: OldAddr,
    /// What sort of point.
    pub kind: SiteKind,
    /// In OLD's source.
    pub place: Place,
    /// What becomes of a frame there.
    pub fate: Fate<'a>,
}

/// What becomes of a frame that waits at a point.
#[derive(Debug)]
pub enum Fate<'a> {
    /// It goes on in NEW.
    Site {
        /// There.
        to: NewAddr,
        /// In NEW's source.
        place: Place,
        /// How.
        table: &'a Translation,
        /// That is in a copy of NEW's code.
        copied: bool,
    },
    /// OLD's code runs on with it for a moment, to one that goes on in NEW, or out of the function.
    Passes {
        /// Why it is none itself.
        why: &'a str,
    },
    /// The update waits for it.
    Blind {
        /// Why.
        why: &'a str,
        /// Only a local variable that NEW adds stands against it.
        new_local: bool,
    },
}

/// All points of a function, by its index in what was emitted.
pub fn points(built: &Built, function: usize) -> Vec<Point<'_>> {
    let emitted = &built.emitted;
    let own = |index: u32| usize::try_from(index) == Ok(function);
    let place = |at, kind| {
        let (file, line) = position(&built.old, at, kind);
        Place { file, line }
    };
    let sites = emitted.plan.sites.iter().zip(&emitted.frames).filter(|(s, _)| own(s.function));
    let sites = sites.map(|(site, table)| {
        // Of a copy of NEW's code the lines are those of the code.
        let copied = emitted.plan.copy_at(site.to).is_some();
        let own = built.carried.iter().flat_map(|one| &one.proven).find(|p| p.at == site.at);
        let to = own.filter(|_| copied).map_or(site.to, |proven| proven.to);
        // Behind a call the line is that of the call.
        let counts = to.0.saturating_sub(u64::from(site.kind == SiteKind::Return));
        let to = Place::of(&built.new, counts);
        let fate = Fate::Site { to: site.to, place: to, table, copied };
        Point { at: site.at, kind: site.kind, place: place(site.at, site.kind), fate }
    });
    let blind = emitted.blind_points.iter().filter(|b| own(b.function)).map(|b| Point {
        at: b.at,
        kind: b.kind,
        place: Place { file: b.file.clone(), line: b.line },
        fate: Fate::Blind { why: &b.why, new_local: b.new_local },
    });
    let passing = emitted.passing_points.iter().filter(|b| own(b.function)).map(|b| Point {
        at: b.at,
        kind: b.kind,
        place: Place { file: b.file.clone(), line: b.line },
        fate: Fate::Passes { why: &b.why },
    });
    let mut all: Vec<Point<'_>> = sites.chain(passing).chain(blind).collect();
    all.sort_by_key(|point| (point.at, point.kind));
    all
}

/// Blind points that share their reason.
pub struct Group<'a> {
    /// The reason.
    pub why: &'a str,
    /// Where, without repetition, by file and line.
    pub places: Vec<(Place, SiteKind)>,
    /// How many points.
    pub count: usize,
}

/// Blind points by reason, the reason with the most points first.
pub fn groups<'a>(points: &[Point<'a>]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for point in points {
        let Fate::Blind { why, .. } = point.fate else { continue };
        let known = groups.iter().position(|group| group.why == why);
        let index = known.unwrap_or_else(|| {
            groups.push(Group { why, places: Vec::new(), count: 0 });
            groups.len() - 1
        });
        let group = &mut groups[index];
        group.count += 1;
        let place = (point.place.clone(), point.kind);
        if !group.places.contains(&place) {
            group.places.push(place);
        }
    }
    for group in &mut groups {
        group.places.sort();
    }
    // Stable: among equals the one with the lowest address stays first.
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

/// Places as a list in which a file is named once: `a.c:1, 7 (loop), b.h:3`. Of many the first ones.
pub fn list(places: &[(Place, SiteKind)]) -> String {
    const SHOWN: usize = 12;
    let mut out = String::new();
    let mut file = None;
    for (place, kind) in places.iter().take(SHOWN) {
        if !out.is_empty() {
            out.push_str(", ");
        }
        if file == Some(&place.file) && place.line != 0 {
            out.push_str(&place.line.to_string());
        } else {
            out.push_str(&place.to_string());
        }
        file = Some(&place.file);
        out.push_str(match kind {
            SiteKind::Return => "",
            SiteKind::Loop => " (loop)",
            SiteKind::LandingPad => " (landing pad)",
            SiteKind::Point => " (in between)",
        });
    }
    match places.len().saturating_sub(SHOWN) {
        0 => out,
        n => format!("{out} and {n} other lines"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blind(at: u64, line: u32, kind: SiteKind, why: &str) -> Point<'_> {
        let place = Place { file: "a.c".to_owned(), line };
        Point { at: OldAddr(at), kind, place, fate: Fate::Blind { why, new_local: false } }
    }

    #[test]
    fn points_with_one_reason_are_told_together() {
        let points = [
            blind(1, 9, SiteKind::Return, "rare"),
            blind(2, 7, SiteKind::Loop, "often"),
            blind(3, 3, SiteKind::Return, "often"),
            blind(4, 3, SiteKind::Return, "often"),
            blind(5, 0, SiteKind::Return, "often"),
        ];
        let groups = groups(&points);
        assert_eq!(
            groups.iter().map(|g| (g.why, g.count)).collect::<Vec<_>>(),
            [("often", 4), ("rare", 1)]
        );
        assert_eq!(list(&groups[0].places), "no known line, 3, 7 (loop)");
        assert_eq!(list(&groups[1].places), "a.c:9");
    }
}
