//! The same bundle again: the shadow image that its earlier application left is taken once more.
//!
//! A dead version's functions and variables may be referred to from anywhere in the process (heap, stacks,
//! registers, libraries, the kernel), so its shadow image can never be unmapped. But the same bundle needs
//! the same code at the same address: there it finds the image, and a process that goes back and forth
//! between versions does not grow.
//!
//! Takes the target and the bundle; gives the image and what is to be put back in its code (the jumps
//! with which later updates led away from it), or why a new one is mapped. It is taken only where
//!
//! - nothing of the version that runs is in it, code, data or identity;
//! - all of its content, fix-ups included, is what this application would write: the digest in its record;
//! - its code and constants are in memory as written, but for what later updates wrote;
//! - its **variables** may stay as they are. Stale pointers may lead to them, so they are never overwritten:
//!   a variable that is new in NEW goes on with the value that it had when NEW ran last, and keeps its
//!   address. Values are numbers then. An *address* among them could be one of memory that OLD has freed
//!   meanwhile, without knowing of the variable: where one is found that does not lead into an image or a
//!   shadow image (whose memory is not freed), a new shadow image is mapped, with variables that begin anew, unless the caller
//!   wants them kept ([`crate::ApplyOptions::keep_variables`]).
//!
//! Frames of NEW that still wait in that code go on in it, which is where they belong.

use crate::address::{Bias, ProcAddr};
use crate::commit::places::Places;
use crate::error::{ApplyError, SysError};
use crate::options::ApplyOptions;
use crate::record::{Entry, Extent, Found, Record, standing};
use crate::target::Target;
use crate::target::maps::Maps;
use crate::target::memory::ReadMemory;
use dsu_patch_format::Bundle;
use dsu_patch_format::plan::{Plan, Protection, Segment};

/// `jmp rel8` (SDM volume 2, JMP).
const JMP_REL8: u8 = 0xeb;
/// Larger variables are not looked through: a new image is mapped.
const MOST_DATA: u64 = 1 << 28;

/// Code of the image that is put back at commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutBack {
    /// Where.
    pub at: ProcAddr,
    /// What is there.
    pub now: Vec<u8>,
    /// What was there first.
    pub first: Vec<u8>,
}

/// An image that can be taken again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// Where it is.
    pub image: Extent,
    /// Its bias.
    pub bias: Bias,
    /// In the order of addresses.
    pub put_back: Vec<PutBack>,
    /// Bytes of its variables that differ from NEW's initial values.
    pub changed: u64,
}

/// What became of the question.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Answer {
    /// The bundle was never applied to this image of the process.
    #[default]
    First,
    /// It was, but its image cannot be taken again.
    Anew(&'static str),
    /// It can.
    Again(Again),
}

const IN_USE: &str = "the running version still uses its memory";
const OTHER: &str = "what it refers to is elsewhere now";
const CODE: &str = "its code was changed by something else";
const ADDRESSES: &str = "its new variables hold addresses, which may be stale";

/// The digest of a shadow image as it is written.
#[must_use]
pub fn digest(plan: &Plan, content: &[Vec<u8>]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (segment, bytes) in plan.segments.iter().zip(content) {
        for number in [segment.start.0, bytes.len() as u64, segment.zeroes] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&[segment.protection as u8]);
        hasher.update(bytes);
    }
    hasher.finalize().into()
}

/// Looks for the newest image of the bundle that can be taken again.
///
/// # Errors
/// The process cannot be read any more.
pub fn find(
    target: &Target,
    bundle: &Bundle,
    digest: &str,
    options: &ApplyOptions,
) -> Result<Answer, ApplyError> {
    let mut images: Vec<&Found> = Vec::new();
    let all = target.updates.iter().chain(&target.undone);
    let same = all.filter(|f| f.record.bundle == digest && f.record.image.len > 0);
    for found in same {
        match images.iter_mut().find(|known| known.record.image == found.record.image) {
            Some(known) if known.record.serial < found.record.serial => *known = found,
            Some(_) => {}
            None => images.push(found),
        }
    }
    images.sort_by_key(|found| std::cmp::Reverse(found.record.serial));
    let mut answer = Answer::First;
    let journals = if images.is_empty() { Vec::new() } else { target.journals()? };
    for found in images {
        answer = candidate(target, bundle, &found.record, &journals, options)?;
        if matches!(answer, Answer::Again(_)) {
            break;
        }
    }
    Ok(answer)
}

fn candidate(
    target: &Target,
    bundle: &Bundle,
    record: &Record,
    journals: &[Vec<Entry>],
    options: &ApplyOptions,
) -> Result<Answer, ApplyError> {
    let (plan, image, bias) = (&bundle.plan, record.image, Bias(record.bias));
    if is_in_use(target, image) {
        return Ok(Answer::Anew(IN_USE));
    }
    let places =
        Places { map: &target.map, identities: &target.identities, bias, imports: &target.imports };
    // Out of reach from there: it is another content.
    let Ok(content) = places.segments(plan) else { return Ok(Answer::Anew(OTHER)) };
    if digest(plan, &content) != record.content {
        return Ok(Answer::Anew(OTHER));
    }
    let updates: Vec<&Record> = target.updates.iter().map(|found| &found.record).collect();
    let mut written = standing::written(&updates, journals, None);
    written.retain(|place| image.contains(place.start));
    let code = plan.segments.iter().zip(&content);
    let mut put_back = Vec::new();
    for (segment, bytes) in code.filter(|(s, _)| s.protection != Protection::Data) {
        let at = bias.apply(segment.start.0);
        let now = target.memory.read_vec(at, bytes.len())?;
        match differences(at, &now, bytes, &written) {
            Some(found) => put_back.extend(found),
            None => return Ok(Answer::Anew(CODE)),
        }
    }
    put_back.sort_by_key(|place| place.at);
    let mut again = Again { image, bias, put_back, changed: 0 };
    Ok(match again.look_at_variables(target, plan, &content, options)? {
        true => Answer::Again(again),
        false => Answer::Anew(ADDRESSES),
    })
}

/// Whether the version that runs has something there.
fn is_in_use(target: &Target, image: Extent) -> bool {
    let overlaps = |start: u64, len: u64| start < image.end() && image.start < start + len;
    target.map.leads_into(image)
        || target.identities.iter().any(|i| overlaps(i.identity, 1) || overlaps(i.jump, 5))
}

/// The places in which code differs from what was written first. `None` where something else than an update
/// has written.
fn differences(at: ProcAddr, now: &[u8], first: &[u8], written: &[Extent]) -> Option<Vec<PutBack>> {
    let offset = |address: u64| usize::try_from(address.saturating_sub(at.0)).unwrap_or(usize::MAX);
    let mut rest = now.to_vec();
    let mut places: Vec<Extent> = Vec::new();
    for place in written.iter().filter(|p| at.0 <= p.start) {
        let range = offset(place.start)..offset(place.end());
        let (Some(old), Some(new)) = (first.get(range.clone()), rest.get_mut(range)) else {
            continue;
        };
        if new != old {
            new.copy_from_slice(old);
            places.push(*place);
        }
    }
    let back = |place: Extent| {
        let range = offset(place.start)..offset(place.end());
        let (now, first) = (now.get(range.clone())?.to_vec(), first.get(range)?.to_vec());
        Some(PutBack { at: ProcAddr(place.start), now, first })
    };
    (rest == first).then(|| places.into_iter().filter_map(back).collect())
}

impl Again {
    /// Whether the variables may stay as they are: to be asked once more when nothing runs.
    ///
    /// # Errors
    /// The process cannot be read any more.
    pub fn look_at_variables(
        &mut self,
        target: &Target,
        plan: &Plan,
        content: &[Vec<u8>],
        options: &ApplyOptions,
    ) -> Result<bool, SysError> {
        let maps = Maps::of(target.pid)?;
        let ours = || target.updates.iter().chain(&target.undone);
        let is_static = |word: u64| {
            ours().any(|found| found.record.image.contains(word))
                || target.modules.iter().any(|m| (m.start.0..m.end.0).contains(&word))
        };
        let is_address = |word: u64| maps.spans(ProcAddr(word)) && !is_static(word);
        let mut changed = 0;
        let mut addresses = false;
        for (segment, first) in plan.segments.iter().zip(content) {
            if segment.protection != Protection::Data {
                continue;
            }
            let Some(len) = data_len(segment) else { return Ok(false) };
            let now = target.memory.read_vec(self.bias.apply(segment.start.0), len)?;
            changed += count_changed(&now, first);
            addresses |= changed_words(segment.start.0, &now, first).any(is_address);
        }
        self.changed = changed;
        Ok(options.keep_variables || !addresses)
    }

    /// The jumps in padding that are put back: whoever is at one would go on in padding.
    #[must_use]
    pub fn caves(&self) -> Vec<(u64, u64)> {
        let cave = |place: &PutBack| match place.now[..] {
            [JMP_REL8, distance] => {
                let distance = i64::from(distance.cast_signed());
                Some(place.at.0.wrapping_add(2).wrapping_add_signed(distance))
            }
            _ => None,
        };
        self.put_back.iter().filter_map(cave).map(|at| (at, at + 1)).collect()
    }
}

fn data_len(segment: &Segment) -> Option<usize> {
    let len = (segment.bytes.len() as u64).checked_add(segment.zeroes)?;
    usize::try_from(len).ok().filter(|_| len <= MOST_DATA)
}

/// What a byte was first: behind the content there are zeroes.
fn first_byte(first: &[u8], index: usize) -> u8 {
    first.get(index).copied().unwrap_or(0)
}

fn count_changed(now: &[u8], first: &[u8]) -> u64 {
    now.iter().enumerate().filter(|(index, byte)| **byte != first_byte(first, *index)).count()
        as u64
}

/// The aligned words that are no longer as they were; compilers keep pointers aligned.
fn changed_words<'a>(
    linked: u64,
    now: &'a [u8],
    first: &'a [u8],
) -> impl Iterator<Item = u64> + 'a {
    let skip = usize::try_from(linked.next_multiple_of(8) - linked).unwrap_or(0);
    let words = now.get(skip..).unwrap_or_default().as_chunks::<8>().0;
    words.iter().enumerate().filter_map(move |(number, word)| {
        let start = skip + number * 8;
        let same = word.iter().enumerate().all(|(i, byte)| *byte == first_byte(first, start + i));
        (!same).then(|| u64::from_le_bytes(*word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_updates_wrote_is_put_back() {
        let first = vec![0x90; 32];
        let mut now = first.clone();
        let at = ProcAddr(0x1000);
        let places = [
            Extent { start: 0x1004, len: 5 },
            Extent { start: 0x1010, len: 2 },
            Extent { start: 0x0ffe, len: 5 },
        ];
        assert_eq!(differences(at, &now, &first, &places), Some(Vec::new()));
        now[4..9].copy_from_slice(&[0xe9, 1, 2, 3, 4]);
        let found = differences(at, &now, &first, &places).unwrap();
        assert_eq!(
            found,
            [PutBack { at: ProcAddr(0x1004), now: vec![0xe9, 1, 2, 3, 4], first: vec![0x90; 5] }]
        );
        now[9] = 0xcc;
        assert_eq!(differences(at, &now, &first, &places), None, "a breakpoint of somebody");
    }

    #[test]
    fn the_words_that_changed() {
        let first = [1u64.to_le_bytes(), 2u64.to_le_bytes()].concat();
        // One more behind the content, which was zero.
        let now = [5u64.to_le_bytes(), 2u64.to_le_bytes(), 7u64.to_le_bytes()].concat();
        assert_eq!(changed_words(0x10, &now, &first).collect::<Vec<_>>(), [5, 7]);
        assert_eq!(count_changed(&now, &first), 2);
        // From an odd place on: the first whole word.
        let bytes = [&[9; 4][..], &0x55aau64.to_le_bytes(), &[3; 3]].concat();
        assert_eq!(changed_words(0x14, &bytes, &[9; 4]).collect::<Vec<_>>(), [0x55aa]);
    }

    #[test]
    fn caves_are_where_short_jumps_lead() {
        let place = |at, now: &[u8]| PutBack {
            at: ProcAddr(at),
            now: now.to_vec(),
            first: vec![0x90; now.len()],
        };
        let again = Again {
            image: Extent { start: 0, len: 0x10_0000 },
            bias: Bias(0),
            put_back: vec![place(0x100, &[0xe9, 0, 0, 0, 0]), place(0x200, &[0xeb, 0xee])],
            changed: 0,
        };
        assert_eq!(again.caves(), [(0x1f0, 0x1f1)]);
    }
}
