//! What the process itself holds of its updates.
//!
//! Each update puts a record at the start of its span, in a read-only mapping of its own behind a
//! guard page. A record counts only when its state word says *applied*; the commit writes that word
//! last. Takes the process's mappings and memory; gives the records of one image, oldest first. A
//! record that does not parse is none: it is not this tool's.
//!
//! ```text
//! 0   8  magic "DSURECRD"
//! 8   4  format version
//! 12  4  state: 0 prepared, 1 committing, 2 applied, 3 undone, 4 reverting
//! 16  4  1: the process is held, and would stay stopped if the tool died
//! 20  4  a thread that blocks more signals than it knows of, or 0 ...
//! 24  8  ... and what it blocks by itself
//! 32  8  length of the body
//! 40  8  length of the journal
//! 48     body, postcard
//! ..     journal: old and new bytes of every write of the commit, filled in before the first
//! ```
//!
//! What is found in another state than *applied* while no tool is at work was left by one that was killed
//! ([`crate::recover`]). *Undone* is an update that was taken back, but that threads may still be in: its
//! shadow image stays.
//!
//! A record holds what its own update did; what several of them come to is put together when it is
//! needed ([`standing`], [`detours`]): else a process that climbs many versions would hold each site many
//! times. Nothing in the process points to a record, so one that no later update needs is unmapped
//! ([`retire`]): a process that goes back and forth between versions holds a bounded number of them.

pub mod detours;
pub mod map;
pub mod retire;
pub mod standing;

use crate::address::{Bias, ProcAddr};
use crate::error::SysError;
use crate::target::maps::Maps;
use crate::target::memory::ReadMemory;
use dsu_patch_format::plan::UnwindRow;
use map::AddressMap;
use serde::{Deserialize, Serialize};

/// First bytes of a record.
pub const MAGIC: &[u8; 8] = b"DSURECRD";
/// The one version that this release reads and writes.
pub const VERSION: u32 = 5;
/// Where the state word is.
pub const STATE_AT: u64 = 12;
/// Where it is said that the process is held.
pub const HELD_AT: u64 = 16;
/// Where the note is of a thread's signal mask.
pub const NOTE_AT: u64 = 20;
/// Where the lengths are of body and journal.
const LENGTHS_AT: usize = 32;
/// Bytes before the body.
pub const HEADER: usize = 48;
/// No record is larger: what claims to be is not one.
const MAX_BODY: u64 = 1 << 28;

/// How far an update has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Mapped and written; nothing can reach it.
    Prepared = 0,
    /// The journal is filled in and its writes are under way.
    Committing = 1,
    /// The process runs NEW.
    Applied = 2,
    /// It was taken back, and counts no more.
    Undone = 3,
    /// It is being taken back.
    Reverting = 4,
}

impl State {
    /// The word in memory.
    #[must_use]
    pub fn word(self) -> [u8; 4] {
        (self as u32).to_le_bytes()
    }

    /// The word in memory with the one behind it: whether the process is held.
    #[must_use]
    pub fn words(self, held: bool) -> [u8; 8] {
        (u64::from(self as u32) | u64::from(held) << 32).to_le_bytes()
    }

    fn of(word: u32) -> Option<Self> {
        use State::{Applied, Committing, Prepared, Reverting, Undone};
        let all = [Prepared, Committing, Applied, Undone, Reverting];
        all.into_iter().find(|s| *s as u32 == word)
    }
}

/// A function of the version that now runs whose pointers hold another address than its code's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Entry as linked in the version that now runs.
    #[serde(with = "postcard::fixint::le")]
    pub entry: u64,
    /// The address that pointers to it hold.
    #[serde(with = "postcard::fixint::le")]
    pub identity: u64,
    /// The `jmp rel32` that leads from there to its code.
    #[serde(with = "postcard::fixint::le")]
    pub jump: u64,
}

/// A site that the update has planted. The record's size does not depend on where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planted {
    /// Where the jump is, in the process.
    #[serde(with = "postcard::fixint::le")]
    pub at: u64,
    /// The cave that it goes through, counted from there.
    pub cave: Option<i16>,
    /// The stub, in the shadow image, as linked.
    pub stub: u64,
    /// Bytes of the stub.
    pub stub_len: u32,
    /// Where the stub leads, in the shadow image, as linked.
    pub to: u64,
}

impl Planted {
    /// Where its cave is in the process.
    #[must_use]
    pub fn cave(&self) -> Option<u64> {
        self.cave.map(|distance| self.at.wrapping_add_signed(i64::from(distance)))
    }
}

/// OLD code that frames may run on in ([`dsu_patch_format::plan::Passage`]), as addresses of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passing {
    /// Where it is.
    pub extent: Extent,
    /// The sites that it leads to.
    pub exits: Vec<u64>,
    /// What its code names.
    pub names: Vec<u64>,
}

/// Addresses of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Extent {
    /// First byte.
    #[serde(with = "postcard::fixint::le")]
    pub start: u64,
    /// Bytes.
    #[serde(with = "postcard::fixint::le")]
    pub len: u64,
}

impl Extent {
    /// Past the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Whether `at` is in it.
    #[must_use]
    pub fn contains(&self, at: u64) -> bool {
        at.wrapping_sub(self.start) < self.len
    }
}

/// What earlier updates have left standing, whose own records this one makes needless.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Earlier {
    /// Sites, by the bias of the shadow image that they lead to.
    pub sites: Vec<(Bias, Vec<Planted>)>,
    /// Code that frames may still run on in, on the way to those.
    pub passages: Vec<Passing>,
    /// All places that were written and not put back, sites included.
    pub written: Vec<Extent>,
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Digest of the bundle, hexadecimal.
    pub bundle: String,
    /// Build id of the version before.
    pub old_build_id: String,
    /// Build id of the version that runs after it.
    pub new_build_id: String,
    /// Load bias of the image: which of the process's images it belongs to.
    pub image_bias: Bias,
    /// 1 for the first update of the image.
    pub sequence: u32,
    /// Seconds since 1970, when it was prepared.
    #[serde(with = "postcard::fixint::le")]
    pub when: u64,
    /// Bias of the shadow image.
    #[serde(with = "postcard::fixint::le")]
    pub bias: u64,
    /// First byte of the span, the guard page: what was mapped for this update.
    #[serde(with = "postcard::fixint::le")]
    pub span_start: u64,
    /// Bytes of the span.
    #[serde(with = "postcard::fixint::le")]
    pub span_len: u64,
    /// The shadow image: the rest of the span, or one that an earlier application of the bundle left.
    pub image: Extent,
    /// Digest of the shadow image as it was written.
    pub content: [u8; 32],
    /// Higher than that of every record of the image that was in the process when it was made.
    #[serde(with = "postcard::fixint::le")]
    pub serial: u64,
    /// Earlier updates (by their sequence numbers) whose records this one relies on; those of others are
    /// needless.
    pub needs: Vec<u32>,
    /// What those others have left standing.
    pub earlier: Earlier,
    /// Where the linked addresses of the version that now runs are.
    pub map: AddressMap,
    /// Its functions whose identity is elsewhere, ascending by entry.
    pub identities: Vec<Identity>,
    /// Sites that it planted, ascending by place.
    pub sites: Vec<Planted>,
    /// Code of the version before that frames may run on in, ascending.
    pub passages: Vec<Passing>,
    /// Names of the functions that it replaced.
    pub functions: Vec<String>,
    /// How frames of its code are unwound, as linked, ascending.
    pub unwind: Vec<UnwindRow>,
}

impl Record {
    /// Whether it has taken the shadow image that an earlier application of its bundle left.
    #[must_use]
    pub fn is_again(&self) -> bool {
        let span = Extent { start: self.span_start, len: self.span_len };
        self.image.len > 0 && !span.contains(self.image.start)
    }

    /// The part of its span that is the record, with the guard page before it: what nobody refers to.
    #[must_use]
    pub fn own(&self) -> Extent {
        let whole = Extent { start: self.span_start, len: self.span_len };
        if self.image.len == 0 || self.is_again() {
            return whole;
        }
        Extent { len: self.image.start.saturating_sub(whole.start), ..whole }
    }

    /// The bytes of a record in state *prepared*, with room for a journal.
    ///
    /// # Errors
    /// Never in practice; postcard's own.
    pub fn encode(&self, journal: usize) -> Result<Vec<u8>, postcard::Error> {
        let body = postcard::to_stdvec(self)?;
        let mut out = Vec::with_capacity(HEADER + body.len() + journal);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&State::Prepared.words(false));
        out.resize(LENGTHS_AT, 0);
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        out.extend_from_slice(&(journal as u64).to_le_bytes());
        out.extend_from_slice(&body);
        out.resize(out.len() + journal, 0);
        Ok(out)
    }

    /// Where the journal starts in the encoded record.
    ///
    /// # Errors
    /// As [`Record::encode`].
    pub fn journal_offset(&self) -> Result<usize, postcard::Error> {
        Ok(HEADER + postcard::to_stdvec(self)?.len())
    }
}

/// A write of a commit, as its journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub at: ProcAddr,
    /// What was there.
    pub old: Vec<u8>,
    /// What was written.
    pub new: Vec<u8>,
}

/// The journal of a record, in the order of its writes.
///
/// # Errors
/// The record cannot be read any more.
pub fn journal(memory: &impl ReadMemory, found: &Found) -> Result<Vec<Entry>, SysError> {
    let lengths = found.at.offset(LENGTHS_AT as u64);
    let (body, journal) = (memory.read_u64(lengths)?, memory.read_u64(lengths.offset(8))?);
    let len = usize::try_from(journal.min(MAX_BODY)).unwrap_or(0);
    let start = found.at.offset(HEADER as u64).offset(body);
    Ok(entries(&memory.read_vec(start, len)?))
}

/// Of a journal: a count, and for each write its place, its length and both contents.
fn entries(journal: &[u8]) -> Vec<Entry> {
    let mut out = Vec::new();
    let Some((count, mut rest)) = journal.split_first_chunk::<4>() else { return out };
    for _ in 0..u32::from_le_bytes(*count) {
        let Some((at, behind)) = rest.split_first_chunk::<8>() else { break };
        let Some((len, contents)) = behind.split_first_chunk::<4>() else { break };
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let Some((old, behind)) = contents.split_at_checked(len) else { break };
        let Some((new, next)) = behind.split_at_checked(len) else { break };
        let at = ProcAddr(u64::from_le_bytes(*at));
        out.push(Entry { at, old: old.to_vec(), new: new.to_vec() });
        rest = next;
    }
    out
}

/// A record as found in a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it starts.
    pub at: ProcAddr,
    /// How far its update has come.
    pub state: State,
    /// A tool holds the process, or did when it was killed.
    pub held: bool,
    /// A thread that blocks more than it knows of, and what it blocks by itself.
    pub note: Option<(i32, u64)>,
    /// Content.
    pub record: Record,
}

/// All records in the process, by image and age. A mapping that is not a record is skipped.
#[must_use]
pub fn find_all(memory: &impl ReadMemory, maps: &Maps) -> Vec<Found> {
    let candidate = |m: &&crate::target::maps::Mapping| {
        m.readable && !m.writable && !m.executable && m.private && m.inode == 0
    };
    let mut found: Vec<Found> = maps
        .0
        .iter()
        .filter(candidate)
        .filter_map(|m| read(memory, m.start, m.end.since(m.start)).ok().flatten())
        .collect();
    found.sort_by_key(|f| (f.record.image_bias.0, f.record.sequence, f.record.serial));
    found
}

fn read(memory: &impl ReadMemory, at: ProcAddr, room: u64) -> Result<Option<Found>, SysError> {
    let mut header = [0; HEADER];
    if room < HEADER as u64 {
        return Ok(None);
    }
    memory.read(at, &mut header)?;
    let word =
        |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    let long = |i: usize| u64::from(word(i)) | u64::from(word(i + 4)) << 32;
    let len = long(LENGTHS_AT);
    let state = State::of(word(12));
    let held = word(16) == 1;
    let note = i32::try_from(word(20)).ok().filter(|tid| *tid > 0).map(|tid| (tid, long(24)));
    let fits = len <= MAX_BODY && len <= room - HEADER as u64;
    let (true, VERSION, Some(state), true) = (&header[..8] == MAGIC, word(8), state, fits) else {
        return Ok(None);
    };
    let Ok(len) = usize::try_from(len) else { return Ok(None) };
    let body = memory.read_vec(at.offset(HEADER as u64), len)?;
    let record = postcard::from_bytes::<Record>(&body).ok().filter(|r| r.map.is_sound());
    Ok(record.map(|record| Found { at, state, held, note, record }))
}

/// A record for tests, of an image at 0x10_0000.
#[cfg(test)]
pub(crate) fn test_record(sequence: u32, bias: u64, sites: Vec<Planted>) -> Record {
    Record {
        bundle: String::new(),
        old_build_id: String::new(),
        new_build_id: String::new(),
        image_bias: Bias(0x10_0000),
        sequence,
        when: 0,
        bias,
        span_start: 0,
        span_len: 0,
        image: Extent::default(),
        content: [0; 32],
        serial: u64::from(sequence),
        needs: Vec::new(),
        earlier: Earlier::default(),
        map: AddressMap::default(),
        identities: Vec::new(),
        sites,
        passages: Vec::new(),
        functions: Vec::new(),
        unwind: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::FakeMemory;

    fn record() -> Record {
        Record {
            bundle: "ab".into(),
            old_build_id: "01".into(),
            new_build_id: "02".into(),
            image_bias: Bias(0x5000),
            sequence: 1,
            when: 7,
            bias: 0,
            span_start: 0,
            span_len: 0,
            image: Extent::default(),
            content: [7; 32],
            serial: 1,
            needs: vec![2, 3],
            earlier: Earlier {
                sites: vec![(
                    Bias(0x8000),
                    vec![Planted { at: 5, cave: Some(-3), stub: 77, stub_len: 5, to: 777 }],
                )],
                passages: Vec::new(),
                written: vec![Extent { start: 5, len: 5 }],
            },
            map: AddressMap::of_image(0, 0x1000, Bias(0x5000)),
            identities: vec![Identity { entry: 1, identity: 2, jump: 3 }],
            sites: vec![Planted { at: 9, cave: None, stub: 99, stub_len: 5, to: 999 }],
            passages: vec![Passing {
                extent: Extent { start: 3, len: 6 },
                exits: vec![9],
                names: vec![77],
            }],
            functions: vec!["f".into()],
            unwind: Vec::new(),
        }
    }

    fn maps() -> Maps {
        Maps::parse(b"1000-3000 r--p 00000000 00:00 0\n4000-5000 rw-p 00000000 00:00 0\n")
    }

    #[test]
    fn round_trip() {
        let mut bytes = record().encode(16).unwrap();
        bytes.resize(0x2000, 0);
        let memory = FakeMemory(vec![(ProcAddr(0x1000), bytes.clone())]);
        let found = find_all(&memory, &maps());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].state, &found[0].record), (State::Prepared, &record()));
        bytes[12..16].copy_from_slice(&State::Applied.word());
        let memory = FakeMemory(vec![(ProcAddr(0x1000), bytes)]);
        assert_eq!(find_all(&memory, &maps())[0].state, State::Applied);
    }

    #[test]
    fn held_and_noted() {
        let mut bytes = record().encode(0).unwrap();
        bytes[12..20].copy_from_slice(&State::Committing.words(true));
        bytes[20..24].copy_from_slice(&77u32.to_le_bytes());
        bytes[24..32].copy_from_slice(&0x8000_0000_0000_0001u64.to_le_bytes());
        bytes.resize(0x2000, 0);
        let found = find_all(&FakeMemory(vec![(ProcAddr(0x1000), bytes)]), &maps());
        assert_eq!((found[0].state, found[0].held), (State::Committing, true));
        assert_eq!(found[0].note, Some((77, 0x8000_0000_0000_0001)));
    }

    #[test]
    fn journals() {
        let entry = |at, old: &[u8], new: &[u8]| Entry {
            at: ProcAddr(at),
            old: old.to_vec(),
            new: new.to_vec(),
        };
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (at, old, new) in [(0x1234u64, [1, 2], [3, 4]), (0x99, [5, 6], [7, 8])] {
            bytes.extend_from_slice(&at.to_le_bytes());
            bytes.extend_from_slice(&2u32.to_le_bytes());
            bytes.extend_from_slice(&[old, new].concat());
        }
        assert_eq!(
            entries(&bytes),
            [entry(0x1234, &[1, 2], &[3, 4]), entry(0x99, &[5, 6], &[7, 8])]
        );
        assert_eq!(entries(&bytes[..bytes.len() - 1]), [entry(0x1234, &[1, 2], &[3, 4])]);
        assert_eq!(entries(&[0; 64]), [], "not filled in yet");
        assert_eq!(entries(&[]), []);
    }

    #[test]
    fn the_size_does_not_depend_on_addresses() {
        let mut far = record();
        far.bias = u64::MAX;
        far.span_start = 0x7fff_ffff_0000;
        far.image = Extent { start: 0x7fff_ffff_2000, len: 0x5000 };
        far.sites[0].at = 0x7fff_0000_0000;
        far.map = AddressMap::of_image(0, 0x1000, Bias(0x7fff_0000_0000));
        assert_eq!(far.encode(0).unwrap().len(), record().encode(0).unwrap().len());
    }

    #[test]
    fn what_is_damaged_is_no_record() {
        let good = record().encode(0).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                bytes.resize(0x2000, 0);
                // No panic; whether a flipped bit in a name is noticed does not matter here.
                let _ = find_all(&FakeMemory(vec![(ProcAddr(0x1000), bytes)]), &maps());
            }
        }
    }
}
