//! Which jump goes where in the code of one part of a function.
//!
//! Takes the bytes that may be overwritten and the places where jumps must begin; gives the form of
//! each jump. Five bytes where there is room up to the next place; else two, to a cave of five free
//! bytes within reach, in the same part: other parts may be elsewhere in a process that has been
//! updated before. Where places compete for room, one in which threads wait is worth more than one
//! that they run through.

use dsu_patch_format::OldAddr;
use dsu_patch_format::plan::RedirectForm;
use dsu_patch_format::validate::{NEAR_JUMP, SHORT_JUMP};
use std::cmp::Reverse;
use std::ops::Range;

/// Who has to give way to whom: the greater one goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// A function's entry, which always has its jump.
    Entry,
    /// Frames wait here, or exceptions land here.
    Waiting,
    /// The head of a loop.
    Loop,
    /// Any other point.
    Point,
}

/// A place where a jump must begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub at: u64,
    pub rank: Rank,
}

/// The form of each jump, `None` for those without room. Takes bytes that may be overwritten, and
/// places, both ascending, no two alike or adjacent.
pub(super) fn lay_out(usable: &[Range<u64>], wanted: &[Wanted]) -> Vec<Option<RedirectForm>> {
    let mut alive: Vec<usize> = (0..wanted.len()).collect();
    loop {
        let places: Vec<Wanted> = alive.iter().map(|i| wanted[*i]).collect();
        match attempt(usable, &places) {
            Ok(forms) => {
                let mut out = vec![None; wanted.len()];
                for (index, form) in alive.iter().zip(forms) {
                    out[*index] = Some(form);
                }
                return out;
            }
            Err(victim) => {
                alive.remove(victim);
            }
        }
    }
}

/// All of them, or the one that has to give way.
fn attempt(usable: &[Range<u64>], places: &[Wanted]) -> Result<Vec<RedirectForm>, usize> {
    let mut forms = vec![RedirectForm::Near; places.len()];
    let mut taken = Vec::new();
    let mut short = Vec::new();
    for (index, place) in places.iter().enumerate() {
        let next = places.get(index + 1).map_or(u64::MAX, |p| p.at);
        let size = match room(usable, place.at).min(next - place.at) {
            NEAR_JUMP.. => NEAR_JUMP,
            SHORT_JUMP..NEAR_JUMP => SHORT_JUMP,
            _ => return Err(weakest(places, index, SHORT_JUMP)),
        };
        taken.push(place.at..place.at + size);
        if size == SHORT_JUMP {
            short.push(index);
        }
    }
    short.sort_by_key(|i| (places[*i].rank, places[*i].at));
    let mut gaps = without(usable, &taken);
    for index in short {
        let cave = take_cave(&mut gaps, places[index].at);
        let cave = OldAddr(cave.ok_or_else(|| weakest(places, index, NEAR_JUMP))?);
        forms[index] = RedirectForm::Short { cave };
    }
    Ok(forms)
}

/// Usable bytes from a place on.
fn room(usable: &[Range<u64>], at: u64) -> u64 {
    let after = usable.partition_point(|r| r.start <= at);
    let run = after.checked_sub(1).and_then(|i| usable.get(i));
    run.map_or(0, |run| run.end.saturating_sub(at))
}

/// Of a place without room and those so close behind that they take it, the one that is worth
/// least; of equals the first, but never an entry.
fn weakest(places: &[Wanted], index: usize, close: u64) -> usize {
    let end = places[index].at + close;
    let rivals = (index + 1..places.len()).take_while(|i| places[*i].at < end);
    let all = std::iter::once(index).chain(rivals);
    all.min_by_key(|i| (Reverse(places[*i].rank), *i)).unwrap_or(index)
}

/// Ranges without what is taken of them.
pub(super) fn without(ranges: &[Range<u64>], taken: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut taken: Vec<&Range<u64>> = taken.iter().collect();
    taken.sort_by_key(|r| r.start);
    let mut out = Vec::new();
    for range in ranges {
        let mut from = range.start;
        let first = taken.partition_point(|t| t.end <= range.start);
        for hole in taken[first..].iter().take_while(|t| t.start < range.end) {
            if from < hole.start {
                out.push(from..hole.start);
            }
            from = from.max(hole.end);
        }
        if from < range.end {
            out.push(from..range.end);
        }
    }
    out
}

/// Five bytes within reach of a short jump, out of the smallest gap that has them.
fn take_cave(gaps: &mut Vec<Range<u64>>, at: u64) -> Option<u64> {
    // A displacement of 8 bits counts from the next instruction.
    let from = at + SHORT_JUMP;
    let (low, high) = (from.saturating_sub(128), from + 127);
    let fit = |gap: &Range<u64>| {
        let start = gap.start.max(low);
        (start <= high && start + NEAR_JUMP <= gap.end).then_some(start)
    };
    let first = gaps.partition_point(|g| g.end <= low);
    let near = gaps.iter().enumerate().skip(first).take_while(|(_, g)| g.start <= high);
    let (index, start) = near
        .filter_map(|(i, gap)| Some((gap.end - gap.start, i, fit(gap)?)))
        .min()
        .map(|(_, i, start)| (i, start))?;
    let gap = gaps.remove(index);
    let rest = [gap.start..start, start + NEAR_JUMP..gap.end];
    gaps.splice(index..index, rest.into_iter().filter(|r| !r.is_empty()));
    Some(start)
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one range is meant")]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Splitmix64: the same cases in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % bound
        }
    }

    fn random(seed: u64) -> (Vec<Range<u64>>, Vec<Wanted>) {
        let mut random = Random(seed);
        let mut at = 0x1000;
        let mut usable = Vec::new();
        for _ in 0..=random.below(4) {
            at += 1 + random.below(40);
            let end = at + 1 + random.below(200);
            usable.push(at..end);
            at = end;
        }
        let ranks = [Rank::Waiting, Rank::Waiting, Rank::Loop, Rank::Point];
        let mut places: BTreeMap<u64, Rank> = BTreeMap::new();
        let spread = 1 + random.below(12);
        let mut next = usable[0].start;
        while next < at {
            if places.is_empty() && random.below(2) == 0 {
                places.insert(next, Rank::Entry);
            } else {
                let rank = ranks[usize::try_from(random.below(4)).unwrap()];
                places.insert(next, rank);
            }
            next += 1 + random.below(2 * spread);
        }
        let entry_fits = |r: &Rank| *r != Rank::Entry || usable[0].end - usable[0].start >= 5;
        places.retain(|_, rank| entry_fits(rank));
        let wanted = places.into_iter().map(|(at, rank)| Wanted { at, rank }).collect();
        (usable, wanted)
    }

    /// Writes the jumps; fails where two write one byte, or one writes where none may.
    fn write(
        usable: &[Range<u64>],
        wanted: &[Wanted],
        forms: &[Option<RedirectForm>],
    ) -> BTreeMap<u64, u8> {
        let mut text = BTreeMap::new();
        let mut put = |at: u64, bytes: &[u8]| {
            for (at, byte) in (at..).zip(bytes) {
                assert!(usable.iter().any(|r| r.contains(&at)), "{at:#x}");
                assert!(text.insert(at, *byte).is_none(), "two jumps at {at:#x}");
            }
        };
        for (place, form) in wanted.iter().zip(forms) {
            let stub = u8::try_from(place.at % 251).unwrap();
            match form {
                Some(RedirectForm::Near) => put(place.at, &[0xe9, stub, 0, 0, 0]),
                Some(RedirectForm::Short { cave }) => {
                    let reach = cave.0.wrapping_sub(place.at + 2).cast_signed();
                    let reach = i8::try_from(reach).expect("within reach");
                    put(place.at, &[0xeb, reach.cast_unsigned()]);
                    put(cave.0, &[0xe9, stub, 0, 0, 0]);
                }
                None => {}
            }
        }
        text
    }

    /// Where a thread that comes to an address ends up.
    fn follow(text: &BTreeMap<u64, u8>, at: u64) -> Option<u8> {
        match text.get(&at)? {
            0xe9 => text.get(&(at + 1)).copied(),
            0xeb => {
                let reach = text.get(&(at + 1))?.cast_signed();
                follow(text, (at + 2).wrapping_add_signed(reach.into()))
            }
            _ => None,
        }
    }

    #[test]
    fn jumps_lead_to_their_stubs_and_do_not_meet() {
        let (mut near, mut short, mut dropped) = (0, 0, 0);
        for seed in 0..2_000 {
            let (usable, wanted) = random(seed);
            let forms = lay_out(&usable, &wanted);
            assert_eq!(forms.len(), wanted.len());
            let text = write(&usable, &wanted, &forms);
            for (place, form) in wanted.iter().zip(&forms) {
                let stub = u8::try_from(place.at % 251).unwrap();
                let there = form.map(|_| stub);
                assert!(form.is_none() || follow(&text, place.at) == there, "{place:?}");
                match form {
                    Some(RedirectForm::Near) => near += 1,
                    Some(RedirectForm::Short { .. }) => short += 1,
                    None => dropped += 1,
                }
                assert!(form.is_some() || place.rank != Rank::Entry, "an entry has its jump");
            }
        }
        assert!(near > 1000 && short > 1000 && dropped > 1000, "{near} {short} {dropped}");
    }

    fn places(all: &[(u64, Rank)]) -> Vec<Wanted> {
        all.iter().map(|(at, rank)| Wanted { at: *at, rank: *rank }).collect()
    }

    const NEAR: Option<RedirectForm> = Some(RedirectForm::Near);

    fn short(cave: u64) -> Option<RedirectForm> {
        Some(RedirectForm::Short { cave: OldAddr(cave) })
    }

    #[test]
    fn a_place_close_to_the_next_jumps_by_way_of_a_cave() {
        let wanted = places(&[(0x10, Rank::Waiting), (0x13, Rank::Loop)]);
        assert_eq!(lay_out(&[0..0x40], &wanted), [short(0), NEAR]);
        // The cave of the first lies behind the second; there is none before.
        assert_eq!(lay_out(&[0x10..0x40], &wanted), [short(0x18), NEAR]);
    }

    #[test]
    fn a_loop_gives_way_to_a_return() {
        let wanted = places(&[(0x10, Rank::Waiting), (0x13, Rank::Loop)]);
        assert_eq!(lay_out(&[0x10..0x18], &wanted), [NEAR, None]);
        let wanted = places(&[(0x10, Rank::Loop), (0x13, Rank::Waiting)]);
        assert_eq!(lay_out(&[0x10..0x18], &wanted), [None, NEAR]);
        let wanted = places(&[(0x10, Rank::Loop), (0x11, Rank::Waiting)]);
        assert_eq!(lay_out(&[0x10..0x40], &wanted), [None, NEAR]);
    }

    #[test]
    fn an_entry_makes_room_for_a_place_behind_it() {
        let wanted = places(&[(0x10, Rank::Entry), (0x14, Rank::Loop)]);
        assert_eq!(lay_out(&[0x10..0x40], &wanted), [short(0x19), NEAR]);
        // No cave: the entry comes first.
        assert_eq!(lay_out(&[0x10..0x19], &wanted), [NEAR, None]);
    }

    #[test]
    fn the_end_of_a_part_is_the_end() {
        let wanted = places(&[(0x1f, Rank::Waiting)]);
        assert_eq!(lay_out(&[0x10..0x20], &wanted), [None]);
        let wanted = places(&[(0x1d, Rank::Waiting)]);
        assert_eq!(lay_out(&[0x10..0x20], &wanted), [short(0x10)]);
    }

    #[test]
    fn a_cave_out_of_reach_is_none() {
        let wanted = places(&[(0x100, Rank::Waiting)]);
        assert_eq!(lay_out(&[0x10..0x80, 0x100..0x103], &wanted), [None]);
        assert_eq!(lay_out(&[0x10..0x88, 0x100..0x103], &wanted), [short(0x82)]);
    }
}
