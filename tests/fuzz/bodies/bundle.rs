//! What is done with the bytes of a bundle: all that dsu-apply does before it looks at a process, and
//! `--inspect`. Takes any bytes; panics where a promise of the reader is broken.

use dsu_patch_format::dump::dump;
use dsu_patch_format::validate::{validate, validate_plan};
use dsu_patch_format::{decode, decode_plan, encode, signature};

/// Bytes as they are, and with a digest that fits, as somebody would write them who means harm.
pub fn read(bytes: &[u8]) {
    read_as_is(bytes);
    if let Some(sealed) = sealed(bytes) {
        read_as_is(&sealed);
    }
}

fn read_as_is(bytes: &[u8]) {
    // Whether anybody signed it is an answer, too.
    let _ = signature::signer(bytes);
    if let Ok(bundle) = decode_plan(bytes) {
        assert!(validate_plan(&bundle).is_ok(), "only what is valid is given");
    }
    if let Ok(bundle) = decode(bytes) {
        assert!(validate(&bundle).is_ok(), "only what is valid is given");
        assert!(!dump(&bundle).contains('\u{1b}'), "nothing commands a terminal");
        let again = encode(&bundle).expect("what was read can be written");
        assert!(decode(&again).expect("and read again") == bundle, "it is the same");
    }
}

/// The bytes as an unsigned bundle, the last 32 being the digest of the rest.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = bytes.get(..bytes.len().checked_sub(32)?)?.to_vec();
    out.get_mut(12..16)?.fill(0);
    let digest = blake3::hash(&out);
    out.extend_from_slice(digest.as_bytes());
    Some(out)
}
