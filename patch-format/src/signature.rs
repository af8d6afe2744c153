//! Who made a bundle: Ed25519 signatures (RFC 8032) with keys in the files that `openssl genpkey`
//! writes (RFC 8410).
//!
//! Takes key files and the bytes of a bundle; says whether one of the keys that the reader trusts has
//! signed exactly these bytes. [`codec`](crate::codec) says where a signature lies: it is the last part
//! of the file and covers every byte before it, the public key and the flag that announces it among them.
//! Nothing of a bundle is interpreted for the answer but its header. Refuses keys of other kinds, with
//! the command that makes the right one.

use crate::codec::Parts;
use crate::{Bundle, DecodeError};
use ed25519_compact as ed25519;
use std::fmt;

/// Bytes of a public key.
pub(crate) const KEY: usize = ed25519::PublicKey::BYTES;
/// Bytes of a signature without its key.
pub(crate) const SIGNATURE: usize = ed25519::Signature::BYTES;

/// Why a file is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A private key where a public one belongs.
    #[error("a private key; `openssl pkey -in KEY -pubout -out PUBKEY` writes its public half")]
    Private,
    /// A public key where a private one belongs.
    #[error("a public key; signing takes the private one")]
    Public,
    /// Under a pass phrase.
    #[error(
        "encrypted; dsu asks for no pass phrase: `openssl pkey -in KEY -out PLAIN` takes it off"
    )]
    Encrypted,
    /// Made by ssh-keygen.
    #[error("an OpenSSH key; make one with `openssl genpkey -algorithm ed25519 -out KEY`")]
    OpenSsh,
    /// PEM, but of another kind, or not PEM at all.
    #[error(
        "not an Ed25519 key in PEM form; make one with \
         `openssl genpkey -algorithm ed25519 -out KEY`"
    )]
    Other,
    /// A number that is a public key, but one under which anybody can sign.
    #[error("a weak key: signatures under it prove nothing")]
    Weak,
}

impl KeyError {
    /// What the first line of a file that is not the wanted key says it is.
    fn of(pem: &str, wanted: &str) -> Self {
        let label = pem.lines().find_map(|line| line.trim().strip_prefix("-----BEGIN "));
        match label.map(|label| label.trim_end_matches('-')) {
            Some("ENCRYPTED PRIVATE KEY") => Self::Encrypted,
            Some("OPENSSH PRIVATE KEY") => Self::OpenSsh,
            Some("PRIVATE KEY") if wanted != "PRIVATE KEY" => Self::Private,
            Some("PUBLIC KEY") if wanted != "PUBLIC KEY" => Self::Public,
            _ if pem.starts_with("ssh-") => Self::OpenSsh,
            _ => Self::Other,
        }
    }
}

/// A key that signs.
#[derive(Clone)]
pub struct SigningKey(ed25519::KeyPair);

impl SigningKey {
    /// Reads a PKCS#8 PEM file.
    ///
    /// # Errors
    /// [`KeyError`] says what the text is instead.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let pair = ed25519::KeyPair::from_pem(pem);
        pair.map(Self).map_err(|_| KeyError::of(pem, "PRIVATE KEY"))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.pk)
    }

    /// Always the same bytes for the same content (RFC 8032, section 5.1.6).
    pub(crate) fn sign(&self, content: &[u8]) -> [u8; SIGNATURE] {
        *self.0.sk.sign(content, None)
    }
}

// The secret half is nobody's to print.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

/// A key that signatures are checked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(ed25519::PublicKey);

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo PEM file.
    ///
    /// # Errors
    /// [`KeyError`] says what the text is instead.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let key = ed25519::PublicKey::from_pem(pem);
        let key = key.map_err(|_| KeyError::of(pem, "PUBLIC KEY"))?;
        key.validate().map_err(|_| KeyError::Weak)?;
        Ok(Self(key))
    }

    pub(crate) fn from_bytes(bytes: [u8; KEY]) -> Self {
        Self(ed25519::PublicKey::new(bytes))
    }

    pub(crate) fn bytes(&self) -> [u8; KEY] {
        *self.0
    }

    pub(crate) fn verifies(&self, content: &[u8], signature: [u8; SIGNATURE]) -> bool {
        self.0.verify(content, &ed25519::Signature::new(signature)).is_ok()
    }
}

/// The middle line of the key's PEM file, for comparing by eye or with grep.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_pem().lines().nth(1).unwrap_or_default())
    }
}

/// Why a bundle does not come from whom it should.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// Anybody may have made it.
    #[error("the bundle is not signed, and a signature is required: make it with dsu-build --sign")]
    Unsigned,
    /// Whole, and signed, but by somebody else.
    #[error("the bundle is signed by {0}, which is none of the keys required")]
    OtherKey(PublicKey),
    /// Damaged, or changed after it was signed.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
}

/// Writes a bundle as bytes, signed. The same bundle and key give the same bytes.
///
/// # Errors
/// A bundle that [`validate`](crate::validate::validate) refuses is not written.
pub fn encode_signed(bundle: &Bundle, key: &SigningKey) -> Result<Vec<u8>, DecodeError> {
    crate::codec::encode_with(bundle, Some(key))
}

/// Who signed these bytes; `None` when nobody did. The signature is right, but whether its key is to be
/// trusted is the caller's question.
///
/// # Errors
/// [`DecodeError`] when the bytes are no bundle, or not as they were when they were signed.
pub fn signer(bytes: &[u8]) -> Result<Option<PublicKey>, DecodeError> {
    Ok(Parts::of(bytes)?.signer)
}

/// Demands that one of `keys` has signed these very bytes.
///
/// # Errors
/// [`Untrusted`] says who did instead, if anybody did.
pub fn require(bytes: &[u8], keys: &[PublicKey]) -> Result<PublicKey, Untrusted> {
    let signer = signer(bytes)?.ok_or(Untrusted::Unsigned)?;
    if keys.contains(&signer) { Ok(signer) } else { Err(Untrusted::OtherKey(signer)) }
}
