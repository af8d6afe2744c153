//! `dsu-apply --inspect`: everything that a bundle says of itself, without a process.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BundleFile, Key, build, bundle};
use dsu_patch_format::manifest::{
    AddedFunction, BlindPoint, Coverage, DataAction, DataChange, DebugFile,
};
use dsu_patch_format::plan::SiteKind;
use dsu_patch_format::signature::encode_signed;
use dsu_patch_format::{Bundle, NewAddr, OldAddr};
use std::process::{Command, Output};

/// With a name that would clear the screen and pretend to be a line.
const HOSTILE: &str = "an\u{1b}[2Jswer\nsigned by me";

fn rich() -> Bundle {
    let [old, new] = [1, 2].map(|version| build("answer", version, &[]));
    let mut bundle = bundle(&old, &new, &["answer"], &["added", "bonus"]);
    let m = &mut bundle.manifest;
    m.options = vec!["--data rates=new".into()];
    m.old.debug = Some(DebugFile { file: "answer.debug".into(), sha256: "0d".repeat(32) });
    m.replaced[0].name = HOSTILE.into();
    m.replaced[0].why = vec!["it adds".into()];
    m.replaced[0].coverage = Coverage { sites: 2, passing: 0, new_locals: 1, of: 3 };
    m.added = vec![AddedFunction { name: "bonus".into(), new: NewAddr(0x14b0), size: 16 }];
    m.blind_points = vec![BlindPoint {
        function: 0,
        at: OldAddr(0x1234),
        kind: SiteKind::Return,
        file: "answer.c".into(),
        line: 7,
        new_local: true,
        why: "variable `bonus`: OLD has no such variable".into(),
    }];
    m.data = vec![DataChange {
        name: "rates".into(),
        old_size: 8,
        new_size: 8,
        action: DataAction::UpdatedInPlace,
        why: "other content".into(),
    }];
    m.warnings = vec!["main stays".into()];
    bundle
}

fn inspect(bytes: &[u8], arguments: &[&str]) -> Output {
    let file = BundleFile::of_bytes(bytes);
    let mut command = Command::new(env!("CARGO_BIN_EXE_dsu-apply"));
    command.arg("--inspect").arg(file.0.path()).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn all_of_it_in_words() {
    let bytes = encode_signed(&rich(), &Key::read("one").signing).unwrap();
    let found = inspect(&bytes, &[]);
    assert_eq!(found.status.code(), Some(0));
    let found = text(&found);
    let (one, m) = (Key::read("one").public.to_string(), rich().manifest);
    for words in [
        &m.tool,
        "format 6",
        &one,
        "--data rates=new",
        &m.old.build_id,
        &m.new.build_id,
        &m.old.sha256,
        "answer.debug",
        &"0d".repeat(32),
        "it adds",
        "2 of 3 call sites",
        "answer.c:7",
        "OLD has no such variable",
        "rates is overwritten in place",
        "added      bonus, 16 bytes",
        "main stays",
        "1 redirect, 0 sites",
    ] {
        assert!(found.contains(words), "no {words:?} in:\n{found}");
    }
    assert!(!found.contains("(as required)"));
    assert!(found.contains(r"an\u{1b}[2Jswer\nsigned by me"), "{found}");
    let long = text(&inspect(&bytes, &["--verbose"]));
    assert!(long.contains("redirect 0x") && long.len() > found.len());
    for shown in [&found, &long] {
        assert!(!shown.contains('\u{1b}'));
        assert!(!shown.lines().any(|line| line.starts_with("signed by me")));
    }
}

#[test]
fn all_of_it_for_tools() {
    let bytes = encode_signed(&rich(), &Key::read("one").signing).unwrap();
    let key = Key::path("one.pub").display().to_string();
    let found = inspect(&bytes, &["--json", "--require-signature", &key]);
    let report: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(report["signature"]["trusted"], true);
    assert_eq!(report["signature"]["key"], Key::read("one").public.to_string());
    assert_eq!(report["manifest"], serde_json::to_value(rich().manifest).unwrap());
    assert_eq!(report["summary"]["redirects"], 1);
    assert!(report["plan"].is_null());
    let long = inspect(&bytes, &["--json", "--verbose"]);
    let report: serde_json::Value = serde_json::from_slice(&long.stdout).unwrap();
    assert_eq!(report["plan"], serde_json::to_value(rich().plan).unwrap());
    assert_eq!(report["signature"]["trusted"], false);
}

#[test]
fn what_apply_would_refuse_is_refused() {
    let unsigned = dsu_patch_format::encode(&rich()).unwrap();
    let signed = encode_signed(&rich(), &Key::read("one").signing).unwrap();
    let other = Key::path("other.pub").display().to_string();
    let demand = ["--require-signature", &other];
    for (bytes, arguments, exit) in [
        (&unsigned[..], &[][..], 0),
        (&unsigned, &demand, 20),
        (&signed, &demand, 20),
        (&signed[1..], &[], 10),
        (&signed[..signed.len() - 1], &demand, 10),
    ] {
        let found = inspect(bytes, arguments);
        assert_eq!(found.status.code(), Some(exit), "{arguments:?}");
        assert_eq!(found.stderr.is_empty(), exit == 0);
    }
    assert!(text(&inspect(&unsigned, &[])).contains("signed     no"));
}
