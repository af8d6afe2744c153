//! Broken bundles by the thousand: no panic, no hang, and what is given is valid.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test has no callers, and may panic")]

#[path = "../../tests/fuzz/bodies/bundle.rs"]
mod body;
#[path = "../../tests/fuzz/bodies/mutate.rs"]
mod mutate;
#[allow(dead_code, reason = "the other test files use the rest")]
mod support;

use dsu_patch_format::encode;
use mutate::{Numbers, mutate, time};
use std::time::{Duration, Instant};

#[test]
fn broken_bundles() {
    let good = encode(&support::example()).unwrap();
    body::read(&good);
    let length =
        |at: usize| usize::try_from(u64::from_le_bytes(good[at..at + 8].try_into().unwrap()));
    // The plan and the frames by themselves: the manifest is longer than both, and text.
    let (manifest, plan) = (40 + length(16).unwrap(), length(24).unwrap());
    let places = [0..40, 40..manifest, manifest..manifest + plan, manifest + plan..good.len()];
    let start = Instant::now();
    for seed in 0.. {
        if start.elapsed() > time() {
            assert!(seed > 100, "only {seed} cases");
            break;
        }
        let mut bytes = good.clone();
        mutate(&mut bytes, &places, &mut Numbers::new(seed));
        let one = Instant::now();
        let result = std::panic::catch_unwind(|| body::read(&bytes));
        assert!(result.is_ok(), "seed {seed} panics");
        assert!(one.elapsed() < Duration::from_secs(10), "seed {seed} takes {:?}", one.elapsed());
    }
}
