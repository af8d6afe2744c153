//! Signatures: the same bytes each time, good for exactly one content and one key.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test has no callers, and may panic")]

#[allow(dead_code, reason = "the other test files use the rest")]
mod support;

use dsu_patch_format::codec::digest;
use dsu_patch_format::signature::{KeyError, Untrusted, encode_signed, require, signer};
use dsu_patch_format::{DecodeError, PublicKey, SigningKey, decode, decode_plan, encode};
use support::example;

/// Behind the digest of a signed bundle: a public key and a signature.
const BEHIND: usize = 32 + 64;

fn text(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn signing(name: &str) -> SigningKey {
    SigningKey::from_pem(&text(name)).unwrap()
}

fn public(name: &str) -> PublicKey {
    PublicKey::from_pem(&text(name)).unwrap()
}

#[test]
fn a_signed_bundle_is_read_like_another_one_and_names_its_key() {
    let (one, other) = (public("one.pub"), public("other.pub"));
    let bytes = encode_signed(&example(), &signing("one.pem")).unwrap();
    assert_eq!(decode(&bytes).unwrap(), example());
    assert_eq!(decode_plan(&bytes).unwrap().plan, example().plan);
    assert_eq!(signer(&bytes).unwrap(), Some(one));
    assert_eq!(require(&bytes, &[one]).unwrap(), one);
    assert_eq!(require(&bytes, &[other, one]).unwrap(), one, "one of several is enough");
    assert_eq!(bytes, encode_signed(&example(), &signing("one.pem")).unwrap());
    assert!(text("one.pub").lines().any(|line| line == one.to_string()));
}

#[test]
fn who_signs_does_not_change_what_a_bundle_is_called() {
    let by = |key| digest(&encode_signed(&example(), &signing(key)).unwrap()).unwrap();
    assert_eq!(by("one.pem"), by("other.pem"));
}

#[test]
fn absent_and_other_signatures_are_refused() {
    let (one, other) = (public("one.pub"), public("other.pub"));
    let unsigned = encode(&example()).unwrap();
    assert_eq!(signer(&unsigned).unwrap(), None);
    assert!(matches!(require(&unsigned, &[one]), Err(Untrusted::Unsigned)));
    let bytes = encode_signed(&example(), &signing("one.pem")).unwrap();
    assert!(matches!(require(&bytes, &[other]), Err(Untrusted::OtherKey(by)) if by == one));
    assert!(matches!(require(&bytes, &[]), Err(Untrusted::OtherKey(_))));
}

/// Every byte that is acted upon is covered: content, digest, key and the signature itself.
#[test]
fn every_flipped_bit_is_refused() {
    let one = public("one.pub");
    let bytes = encode_signed(&example(), &signing("one.pem")).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(require(&damaged, &[one]).is_err(), "bit {bit}");
        assert!(decode(&damaged).is_err(), "bit {bit}");
        assert!(decode_plan(&damaged).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(require(&bytes[..len], &[one]).is_err(), "{len} bytes");
    }
}

/// Somebody who can compute digests, but not sign.
#[test]
fn a_signature_does_not_fit_other_content() {
    let one = public("one.pub");
    let signed = encode_signed(&example(), &signing("one.pem")).unwrap();
    let mut other = example();
    other.manifest.warnings.push("something else".to_owned());
    let content = encode_signed(&other, &signing("other.pem")).unwrap();
    let content = &content[..content.len() - BEHIND];
    let moved = [content, &signed[signed.len() - BEHIND..]].concat();
    assert!(matches!(require(&moved, &[one]), Err(Untrusted::Damaged(DecodeError::Signature))));
    assert!(matches!(decode_plan(&moved), Err(DecodeError::Signature)));

    // The key that is trusted, under a signature of the key that is not.
    let theirs = encode_signed(&other, &signing("other.pem")).unwrap();
    let ours = &signed[signed.len() - BEHIND..][..32];
    let claimed = [content, ours, &theirs[theirs.len() - 64..]].concat();
    assert!(require(&claimed, &[one]).is_err());

    // The signature taken off: a bundle like any other, and not signed.
    let mut bare = signed[..signed.len() - BEHIND - 32].to_vec();
    bare[12] = 0;
    let digest = blake3::hash(&bare);
    bare.extend_from_slice(digest.as_bytes());
    assert_eq!(decode(&bare).unwrap(), example());
    assert!(matches!(require(&bare, &[one]), Err(Untrusted::Unsigned)));
}

/// Under a key of small order one signature fits any content: such a key is nobody's, and neither read
/// as a trusted one nor believed when a bundle brings it along.
#[test]
fn weak_keys_are_refused() {
    assert_eq!(PublicKey::from_pem(&text("weak.pub")).unwrap_err(), KeyError::Weak);
    let signed = encode_signed(&example(), &signing("one.pem")).unwrap();
    let mut weak = signed[..signed.len() - BEHIND].to_vec();
    let neutral = |out: &mut Vec<u8>| {
        out.push(1);
        out.extend_from_slice(&[0; 31]);
    };
    neutral(&mut weak);
    neutral(&mut weak);
    weak.extend_from_slice(&[0; 32]);
    assert!(matches!(signer(&weak), Err(DecodeError::Signature)));
}

#[test]
fn other_files_are_told_apart() {
    let signing = |name: &str| SigningKey::from_pem(&text(name)).unwrap_err();
    let public = |name: &str| PublicKey::from_pem(&text(name)).unwrap_err();
    assert_eq!(signing("one.pub"), KeyError::Public);
    assert_eq!(signing("encrypted.pem"), KeyError::Encrypted);
    assert_eq!(signing("ssh"), KeyError::OpenSsh);
    assert_eq!(signing("README.md"), KeyError::Other);
    assert_eq!(public("one.pem"), KeyError::Private);
    assert_eq!(public("ssh.pub"), KeyError::OpenSsh);
    assert_eq!(public("x25519.pub"), KeyError::Other);
    assert_eq!(public("README.md"), KeyError::Other);
    assert!(!format!("{:?}", super_secret()).contains(text("one.pem").lines().nth(1).unwrap()));
}

fn super_secret() -> SigningKey {
    signing("one.pem")
}
