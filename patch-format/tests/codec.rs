//! The bundle as bytes: what goes in comes out, and nothing that was damaged comes through.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test has no callers, and may panic")]

mod support;

use dsu_patch_format::codec::{MAGIC, VERSION};
use dsu_patch_format::frames::MAX_DEPTH;
use dsu_patch_format::validate::{validate, validate_plan};
use dsu_patch_format::{Bundle, DecodeError, NewAddr, OldAddr, decode, decode_plan, encode};
use proptest::prelude::*;
use serde_json::Value;
use support::{bundles, example};

const HEADER: usize = 40;
const DIGEST: usize = 32;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(bundle in bundles()) {
        let bytes = encode(&bundle).unwrap();
        prop_assert_eq!(&decode(&bytes).unwrap(), &bundle);
        let without = Bundle { frames: Vec::new(), ..bundle.clone() };
        prop_assert_eq!(decode_plan(&bytes).unwrap(), without);
        prop_assert_eq!(encode(&bundle).unwrap(), bytes);
    }

    /// Somebody else's bytes with a digest that fits: no panic, and what comes through is valid.
    #[test]
    fn damage_under_a_fitting_digest(
        bundle in bundles(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8, 0..4usize), 1..6),
    ) {
        let mut all = parts(&encode(&bundle).unwrap());
        for (place, byte, kind, part) in edits {
            // Half of them in the plan.
            let part = &mut all[[0, 1, 1, 2][part]];
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
        comes_through_only_if_valid(&assemble(&all));
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
            comes_through_only_if_valid_at_all(Bundle { plan, ..bundle });
        }
    }

    /// The same in the frames.
    #[test]
    fn extreme_numbers_in_frames(
        bundle in bundles().prop_filter("has frames", |b| !b.frames.is_empty()),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..SIGNED.len()), 1..4),
    ) {
        let mut json = serde_json::to_value(&bundle.frames).unwrap();
        for (place, edge) in edits {
            let count = numbers(&mut json).len();
            *numbers(&mut json)[place.index(count)] = Value::from(SIGNED[edge]);
        }
        if let Ok(frames) = serde_json::from_value(json) {
            comes_through_only_if_valid_at_all(Bundle { frames, ..bundle });
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
        comes_through_only_if_valid(&assemble(&[bytes.clone(), bytes.clone(), bytes]));
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

const SIGNED: [i64; 12] =
    [0, 1, -1, 8, -8, -129, 255, 1 << 20, i32::MIN as i64, u32::MAX as i64, i64::MIN, i64::MAX];

#[test]
fn every_truncation_is_an_error() {
    let bytes = encode(&example()).unwrap();
    for len in 0..bytes.len() {
        for error in [decode(&bytes[..len]).unwrap_err(), decode_plan(&bytes[..len]).unwrap_err()] {
            assert!(matches!(error, DecodeError::Truncated { .. }), "{len} bytes: {error}");
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let bytes = encode(&example()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        for error in [decode(&damaged).unwrap_err(), decode_plan(&damaged).unwrap_err()] {
            if bit / 8 >= HEADER {
                assert!(matches!(error, DecodeError::Digest), "bit {bit}: {error}");
            }
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
    flagged[12] = 2;
    let digest = blake3::hash(&flagged);
    flagged.extend_from_slice(digest.as_bytes());
    assert!(matches!(decode(&flagged).unwrap_err(), DecodeError::Flags(2)));
}

#[test]
fn lengths_are_not_believed() {
    let lengths = [0, 1, 1 << 60, 1 << 62, u64::MAX];
    for (manifest, plan, frames) in
        lengths.iter().flat_map(|m| lengths.iter().flat_map(move |p| lengths.map(|f| (m, p, f))))
    {
        let mut bytes = encode(&example()).unwrap();
        bytes[16..24].copy_from_slice(&manifest.to_le_bytes());
        bytes[24..32].copy_from_slice(&plan.to_le_bytes());
        bytes[32..40].copy_from_slice(&frames.to_le_bytes());
        assert!(decode(&bytes).is_err(), "{manifest} {plan} {frames}");
        assert!(decode_plan(&bytes).is_err(), "{manifest} {plan} {frames}");
    }
    // Inside the plan: old_start, old_end, low_2gib, then a count of segments out of this world.
    let [manifest, plan, frames] = parts(&encode(&example()).unwrap());
    let count = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let many = [&[0, 1, 0][..], &count].concat();
    let error = decode(&assemble(&[manifest.clone(), many, frames])).unwrap_err();
    assert!(matches!(error, DecodeError::Plan(_)), "{error}");
    let error = decode(&assemble(&[manifest, plan, count.to_vec()])).unwrap_err();
    assert!(matches!(error, DecodeError::Frames(_)), "{error}");
}

/// Bytes that nest without end must not use up the stack; nor may a bundle that would.
#[test]
fn values_nest_to_a_bound() {
    // One frame of depths 8 and 8, not lowered, with one move: to rax, from a value that extends a value ...
    let nested = |depth: usize| {
        let mut bytes = vec![2, 8, 8, 0, 0, 1, 0, 0, 8];
        bytes.extend_from_slice(&[6, 4].repeat(depth));
        // ... that is a constant; proof, no objects. Then the second frame.
        bytes.extend_from_slice(&[1, 7, 3, 0, 8, 8, 0, 0, 0, 0]);
        bytes
    };
    let [manifest, plan, _] = parts(&encode(&example()).unwrap());
    let deep = |depth| decode(&assemble(&[manifest.clone(), plan.clone(), nested(depth)]));
    let deepest = deep(MAX_DEPTH - 1).expect("as deep as allowed");
    assert!(matches!(deep(MAX_DEPTH), Err(DecodeError::Frames(_))));
    assert!(matches!(deep(5_000_000), Err(DecodeError::Frames(_))));
    assert!(deep(MAX_DEPTH - 1).is_ok(), "the count starts anew");

    let mut bundle = deepest;
    let one = &mut bundle.frames[0].moves[0];
    let inner = one.from.clone();
    one.from = dsu_patch_format::frames::Value::ZeroExtend { from: 4, value: Box::new(inner) };
    assert!(matches!(encode(&bundle), Err(DecodeError::Invalid(_))));
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
        assert_eq!(decode_plan(bytes).unwrap().plan, bundle.plan);
    }
    if let Ok(bundle) = decode_plan(bytes) {
        validate_plan(&bundle).unwrap();
    }
}

/// By way of bytes that no encoder has checked.
fn comes_through_only_if_valid_at_all(bundle: Bundle) {
    let manifest = serde_json::to_vec(&bundle.manifest).unwrap();
    let plan = postcard::to_stdvec(&bundle.plan).unwrap();
    let frames = postcard::to_stdvec(&bundle.frames).unwrap();
    comes_through_only_if_valid(&assemble(&[manifest, plan, frames]));
    assert_eq!(encode(&bundle).is_ok(), validate(&bundle).is_ok());
}

/// Manifest, plan and frames of an encoded bundle.
fn parts(bytes: &[u8]) -> [Vec<u8>; 3] {
    let length = |at: usize| {
        usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
    };
    let (manifest, rest) = bytes[HEADER..bytes.len() - DIGEST].split_at(length(16));
    let (plan, frames) = rest.split_at(length(24));
    [manifest, plan, frames].map(<[u8]>::to_vec)
}

/// A file around three parts, with lengths and a digest that fit.
fn assemble(parts: &[Vec<u8>; 3]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes());
    for part in parts {
        out.extend_from_slice(&(part.len() as u64).to_le_bytes());
    }
    for part in parts {
        out.extend_from_slice(part);
    }
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
