//! The text form of a bundle, compared with a file. `DSU_BLESS=1 cargo test` writes the file anew.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test has no callers, and may panic")]

#[allow(dead_code, reason = "the other test file uses the rest")]
mod support;

use dsu_patch_format::dump::dump;
use std::path::Path;

#[test]
fn dump_of_the_example() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/example.txt");
    let found = dump(&support::example());
    if std::env::var_os("DSU_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let at = expected.lines().zip(found.lines()).position(|(a, b)| a != b);
    assert!(
        expected == found,
        "the dump differs from {} first at line {}; DSU_BLESS=1 accepts it:\n{found}",
        path.display(),
        at.unwrap_or_else(|| expected.lines().count().min(found.lines().count())) + 1,
    );
}
