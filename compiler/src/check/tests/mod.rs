//! Tables made from the checker's own liveness, stubs assembled the plainest way, and everything that
//! can be wrong with them.

mod identity;
mod maker;
mod stubs;

use dsu_patch_format::frames::{Location, Move, Proof, Translation, Value};
use dsu_patch_format::manifest::{BuildInfo, ImageKind, Manifest, ReplacedFunction};
use dsu_patch_format::plan::{Plan, Protection, RedirectForm, Segment, Site, SiteKind};
use dsu_patch_format::{Bundle, NewAddr, OldAddr};

fn general(number: u8, bytes: u8) -> Location {
    Location::General { number, bytes }
}

fn vector(number: u8, bytes: u8) -> Location {
    Location::Vector { number, bytes }
}

fn slot(cfa: i64, bytes: u32) -> Location {
    Location::Slot { cfa, bytes }
}

fn step(to: Location, from: Value) -> Move {
    Move { to, from, proof: Proof::Equal }
}

fn manifest(replaced: Vec<ReplacedFunction>) -> Manifest {
    let info = |id: &str| BuildInfo {
        build_id: id.to_owned(),
        file: "program".to_owned(),
        kind: ImageKind::Executable,
        sha256: "0f".repeat(32),
        debug: None,
    };
    Manifest {
        tool: "test".to_owned(),
        options: Vec::new(),
        old: info("00112233445566778899"),
        new: info("99887766554433221100"),
        replaced,
        added: Vec::new(),
        line_only: Vec::new(),
        data: Vec::new(),
        blind_points: Vec::new(),
        warnings: Vec::new(),
    }
}

/// Where stubs of tests are.
const STUBS: u64 = 0x10_0000;

/// A site at a place of its own with this stub, in a bundle with nothing else.
fn bundle(translation: Translation, kind: SiteKind, to: u64) -> Bundle {
    let (bytes, fixups) = maker::stub(&translation, STUBS, to);
    let site = Site {
        at: OldAddr(0x2000),
        kind,
        form: RedirectForm::Near,
        stub: NewAddr(STUBS),
        stub_len: u32::try_from(bytes.len()).unwrap(),
        to: NewAddr(to),
        function: 0,
        expect: vec![0; 5],
        mask: vec![0; 5],
    };
    let segment = Segment { start: NewAddr(STUBS), bytes, zeroes: 0, protection: Protection::Text };
    let plan = Plan {
        old_start: OldAddr(0x1000),
        old_end: OldAddr(0x9000),
        segments: vec![segment],
        fixups,
        sites: vec![site],
        ..Plan::default()
    };
    Bundle { manifest: manifest(Vec::new()), plan, frames: vec![translation] }
}
