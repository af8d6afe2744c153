//! The bundle as bytes: what goes in comes out, and nothing that was damaged comes through.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test has no callers, and may panic")]

mod support;

use dsu_patch_format::codec::{MAGIC, VERSION};
use dsu_patch_format::validate::validate;
use dsu_patch_format::{Bundle, DecodeError, NewAddr, OldAddr, decode, encode};
use proptest::prelude::*;
use serde_json::Value;
use support::{bundles, example};

const HEADER: usize = 32;
const DIGEST: usize = 32;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(bundle in bundles()) {
        let bytes = encode(&bundle).unwrap();
        prop_assert_eq!(&decode(&bytes).unwrap(), &bundle);
        prop_assert_eq!(encode(&bundle).unwrap(), bytes);
    }

    /// Somebody else's bytes with a digest that fits: no panic, and what comes through is valid.
    #[test]
    fn damage_under_a_fitting_digest(
        bundle in bundles(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        let (mut manifest, mut plan) = parts(&encode(&bundle).unwrap());
        for (place, byte, kind) in edits {
            let part = if kind == 3 { &mut manifest } else { &mut plan };
            let at = place.index(part.len());
            match kind {
                0 => drop(part.remove(at)),
                1 => part.insert(at, byte),
                _ => part[at] = byte,
            }
            if part.is_empty() {
                part.push(byte);
            }
        }
        comes_through_only_if_valid(&assemble(&manifest, &plan));
    }

    /// Numbers at the edges of their range in every place: no sum may overflow.
    #[test]
    fn extreme_numbers_under_a_fitting_digest(
        bundle in bundles(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..EDGES.len()), 1..4),
    ) {
        let mut json = serde_json::to_value(&bundle.plan).unwrap();
        for (place, edge) in edits {
            let count = numbers(&mut json).len();
            *numbers(&mut json)[place.index(count)] = Value::from(EDGES[edge]);
        }
        // Not every number fits every field.
        if let Ok(plan) = serde_json::from_value(json) {
            let manifest = serde_json::to_vec(&bundle.manifest).unwrap();
            let changed = Bundle { plan, ..bundle };
            let encoded = postcard::to_stdvec(&changed.plan).unwrap();
            comes_through_only_if_valid(&assemble(&manifest, &encoded));
            prop_assert_eq!(encode(&changed).is_ok(), validate(&changed).is_ok());
        }
    }

    /// 256 bundles, 40 flips in each.
    #[test]
    fn flipped_bits_anywhere(
        bundle in bundles(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8u32), 40),
    ) {
        let bytes = encode(&bundle).unwrap();
        for (place, bit) in flips {
            let mut damaged = bytes.clone();
            damaged[place.index(bytes.len())] ^= 1 << bit;
            prop_assert!(decode(&damaged).is_err());
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes).is_err());
        let mut with_magic = MAGIC.to_vec();
        with_magic.extend_from_slice(&bytes);
        prop_assert!(decode(&with_magic).is_err());
        comes_through_only_if_valid(&assemble(&bytes, &bytes));
    }
}

const EDGES: [u64; 12] = [
    0,
    1,
    4095,
    4096,
    0x5000,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 40,
    i64::MAX as u64,
    (i64::MAX as u64) + 1,
    u64::MAX - 1,
    u64::MAX,
];

#[test]
fn every_truncation_is_an_error() {
    let bytes = encode(&example()).unwrap();
    for len in 0..bytes.len() {
        let error = decode(&bytes[..len]).unwrap_err();
        assert!(matches!(error, DecodeError::Truncated { .. }), "{len} bytes: {error}");
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let bytes = encode(&example()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = decode(&damaged).unwrap_err();
        if bit / 8 >= HEADER {
            assert!(matches!(error, DecodeError::Digest), "bit {bit}: {error}");
        }
    }
}

#[test]
fn bytes_behind_the_end_are_an_error() {
    let mut bytes = encode(&example()).unwrap();
    bytes.push(0);
    assert!(matches!(decode(&bytes).unwrap_err(), DecodeError::Trailing(1)));
}

#[test]
fn other_versions_and_reserved_bits_are_told_apart() {
    let bytes = encode(&example()).unwrap();
    let mut other = bytes.clone();
    other[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let error = decode(&other).unwrap_err();
    assert!(matches!(error, DecodeError::Version { found } if found == VERSION + 1), "{error}");

    let mut flagged = bytes[..bytes.len() - DIGEST].to_vec();
    flagged[12] = 1;
    let digest = blake3::hash(&flagged);
    flagged.extend_from_slice(digest.as_bytes());
    assert!(matches!(decode(&flagged).unwrap_err(), DecodeError::Flags(1)));
}

#[test]
fn lengths_are_not_believed() {
    for (manifest, plan) in [(u64::MAX, u64::MAX), (u64::MAX, 1), (1 << 60, 1 << 60), (0, 1 << 62)]
    {
        let mut bytes = encode(&example()).unwrap();
        bytes[16..24].copy_from_slice(&manifest.to_le_bytes());
        bytes[24..32].copy_from_slice(&plan.to_le_bytes());
        assert!(decode(&bytes).is_err(), "{manifest} {plan}");
    }
    // Inside the plan: old_start, old_end, low_2gib, then a count of segments out of this world.
    let manifest = serde_json::to_vec(&example().manifest).unwrap();
    let mut plan = vec![0, 1, 0];
    plan.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    assert!(matches!(decode(&assemble(&manifest, &plan)), Err(DecodeError::Plan(_))));
}

/// Found by the two tests above with extreme numbers: sums that overflowed before they were refused.
#[test]
fn numbers_at_the_end_of_the_address_space_are_refused() {
    let mut bundle = example();
    bundle.plan.segments[1].start = NewAddr(0);
    bundle.plan.fixups.clear();
    assert!(validate(&bundle).is_err(), "a segment below the first");

    let mut bundle = example();
    bundle.plan.redirects[1].at = OldAddr(u64::MAX);
    assert!(validate(&bundle).is_err(), "a short jump at the last address");
}

fn comes_through_only_if_valid(bytes: &[u8]) {
    if let Ok(bundle) = decode(bytes) {
        validate(&bundle).unwrap();
        assert_eq!(decode(&encode(&bundle).unwrap()).unwrap(), bundle);
    }
}

/// Manifest and plan of an encoded bundle.
fn parts(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let length = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    let content = &bytes[HEADER..bytes.len() - DIGEST];
    let (manifest, plan) = content.split_at(usize::try_from(length).unwrap());
    (manifest.to_vec(), plan.to_vec())
}

/// A file around two parts, with lengths and a digest that fit.
fn assemble(manifest: &[u8], plan: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&(manifest.len() as u64).to_le_bytes());
    out.extend_from_slice(&(plan.len() as u64).to_le_bytes());
    out.extend_from_slice(manifest);
    out.extend_from_slice(plan);
    let digest = blake3::hash(&out);
    out.extend_from_slice(digest.as_bytes());
    out
}

/// All numbers in a JSON value.
fn numbers(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Number(_) => vec![value],
        Value::Array(items) => items.iter_mut().flat_map(numbers).collect(),
        Value::Object(fields) => fields.values_mut().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}
