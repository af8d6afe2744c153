//! A variable that one build has given its next value when both come to a point, and the other has not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod compiled;

use dsu_compiler::{Built, Options, Outcome, build};
use dsu_patch_format::frames::Proof;
use dsu_patch_format::plan::SiteKind;
use std::path::Path;

fn built(source: &str, flags: [&str; 2]) -> Built {
    let directory = tempfile::tempdir().unwrap();
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/torture");
    let include = format!("-I{}", headers.display());
    let [old, new] = [("old", flags[0]), ("new", flags[1])]
        .map(|(name, flag)| compiled::compile(directory.path(), name, source, &[&include, flag]));
    let built =
        build(&Options { old, new, live_frames: true, ..Options::default() }, &|_| ()).unwrap();
    assert_eq!(built.outcome, Outcome::Written, "{:?}", built.refusals);
    built
}

/// gcc 12 at -O3 mixes `all` behind the call of `version`, and says all the while that it is in r12; at -O2 it has
/// done so before.
#[test]
fn what_is_known_by_its_name_alone_has_not_changed_in_one_build_only() {
    let source = include_str!("../../tests/torture/nested_loops.c");
    let line = source.lines().position(|line| line.trim() == "version();").unwrap() + 1;
    for flags in [["-O3", "-O2"], ["-O2", "-O3"]] {
        let built = built(source, flags);
        let main = |id| built.old.function(id).name() == "main";
        let main = built.carried.iter().find(|carried| main(carried.function)).unwrap();
        let behind = main.proven.iter().filter(|p| p.kind == SiteKind::Return).filter(|p| {
            built.old.debug.position(p.at.0 - 1).is_some_and(|(_, at)| at as usize == line)
        });
        let by_name = behind
            .flat_map(|p| &p.translation.moves)
            .filter(|step| matches!(&step.proof, Proof::Variable(name) if name == "all"));
        assert_eq!(by_name.count(), 0, "{flags:?}");
    }
}
