//! The file: bytes to [`Bundle`] and back. Takes any bytes; gives a validated bundle or says what
//! is wrong with them. Never panics, never allocates by a length that it has not checked.

use crate::signature::{KEY, PublicKey, SIGNATURE, SigningKey};
use crate::validate::{Invalid, validate, validate_plan};
use crate::{Bundle, Manifest, Plan};

/// First bytes of every bundle.
pub const MAGIC: &[u8; 8] = b"DSUPATCH";
/// The one version that this crate reads and writes.
pub const VERSION: u32 = 6;
/// In the header: a public key and a signature follow the digest.
pub const SIGNED: u32 = 1;
const HEADER: usize = 40;
const DIGEST: usize = blake3::OUT_LEN;
/// Larger files are refused before they are read: no bundle of a real program comes near.
pub const MAX_FILE: u64 = 1 << 30;

/// Why bytes are not a bundle.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its own lengths say, or than any bundle can be.
    #[error("the bundle is truncated: {have} bytes, {need} needed")]
    Truncated {
        /// Bytes there.
        have: usize,
        /// Bytes needed.
        need: u64,
    },
    /// Bytes behind the end.
    #[error("the bundle has {0} bytes behind its end")]
    Trailing(usize),
    /// Another kind of file.
    #[error("not a dsu bundle: it does not begin with DSUPATCH")]
    Magic,
    /// Made by another version of the tools.
    #[error(
        "bundle format {found}, this tool reads {VERSION}: make the bundle with the same release"
    )]
    Version {
        /// Version in the file.
        found: u32,
    },
    /// Reserved bits are set.
    #[error("the bundle uses features that this release does not know (flags {0:#x})")]
    Flags(u32),
    /// Content and digest differ.
    #[error("the bundle is damaged: its digest does not match its content")]
    Digest,
    /// The manifest is not what the format says.
    #[error("the bundle's manifest cannot be read: {0}")]
    Manifest(serde_json::Error),
    /// The plan is not what the format says.
    #[error("the bundle's plan cannot be read: {0}")]
    Plan(postcard::Error),
    /// The frames are not what the format says.
    #[error("the bundle's frame translations cannot be read: {0}")]
    Frames(postcard::Error),
    /// The content, or the signature, was changed.
    #[error("the bundle is damaged: its signature does not match its content")]
    Signature,
    /// Its parts contradict each other.
    #[error("the bundle contradicts itself: {0}")]
    Invalid(#[from] Invalid),
}

/// Writes a bundle as bytes. The same bundle gives the same bytes.
///
/// # Errors
/// A bundle that [`validate`] refuses is not written.
pub fn encode(bundle: &Bundle) -> Result<Vec<u8>, DecodeError> {
    encode_with(bundle, None)
}

pub(crate) fn encode_with(
    bundle: &Bundle,
    key: Option<&SigningKey>,
) -> Result<Vec<u8>, DecodeError> {
    validate(bundle)?;
    let manifest = serde_json::to_vec(&bundle.manifest).map_err(DecodeError::Manifest)?;
    let plan = postcard::to_stdvec(&bundle.plan).map_err(DecodeError::Plan)?;
    let frames = postcard::to_stdvec(&bundle.frames).map_err(DecodeError::Frames)?;
    let parts = [&manifest, &plan, &frames];
    let content: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(HEADER + content + DIGEST + KEY + SIGNATURE);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&key.map_or(0, |_| SIGNED).to_le_bytes());
    for part in parts {
        out.extend_from_slice(&(part.len() as u64).to_le_bytes());
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    let digest = blake3::hash(&out);
    out.extend_from_slice(digest.as_bytes());
    if let Some(key) = key {
        out.extend_from_slice(&key.public().bytes());
        let signature = key.sign(&out);
        out.extend_from_slice(&signature);
    }
    Ok(out)
}

/// What a bundle is called by: the digest of its header and its parts, whoever signed it.
///
/// # Errors
/// [`DecodeError`] when the bytes are no bundle.
pub fn digest(bytes: &[u8]) -> Result<[u8; DIGEST], DecodeError> {
    Ok(Parts::of(bytes)?.digest)
}

/// Reads and validates a bundle, whole.
///
/// # Errors
/// [`DecodeError`] names the first thing that is wrong.
pub fn decode(bytes: &[u8]) -> Result<Bundle, DecodeError> {
    let parts = Parts::of(bytes)?;
    let mut bundle = parts.without_frames()?;
    let (frames, rest) = postcard::take_from_bytes(parts.frames).map_err(DecodeError::Frames)?;
    bundle.frames = frames;
    nothing_behind(rest)?;
    validate(&bundle)?;
    Ok(bundle)
}

/// Reads and validates what apply needs. The digest is that of the whole file; the frames are not
/// looked at, and [`Bundle::frames`] is empty.
///
/// # Errors
/// [`DecodeError`] names the first thing that is wrong.
pub fn decode_plan(bytes: &[u8]) -> Result<Bundle, DecodeError> {
    let bundle = Parts::of(bytes)?.without_frames()?;
    validate_plan(&bundle)?;
    Ok(bundle)
}

/// The parts of a file whose digest is right, and its signature if it has one.
pub(crate) struct Parts<'a> {
    manifest: &'a [u8],
    plan: &'a [u8],
    frames: &'a [u8],
    digest: [u8; DIGEST],
    /// Has signed everything before the signature.
    pub(crate) signer: Option<PublicKey>,
}

impl<'a> Parts<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let truncated = |need: u64| DecodeError::Truncated { have: bytes.len(), need };
        if !bytes.starts_with(MAGIC) {
            return Err(if MAGIC.starts_with(bytes) {
                truncated(HEADER as u64)
            } else {
                DecodeError::Magic
            });
        }
        let header = bytes.get(..HEADER).ok_or_else(|| truncated(HEADER as u64))?;
        let version = u32_at(header, 8);
        if version != VERSION {
            return Err(DecodeError::Version { found: version });
        }
        let flags = u32_at(header, 12);
        if flags & !SIGNED != 0 {
            return Err(DecodeError::Flags(flags));
        }
        let behind = if flags & SIGNED == 0 { 0 } else { KEY + SIGNATURE };
        let lengths = [16, 24, 32].map(|at| u64_at(header, at));
        let need = lengths
            .iter()
            .try_fold((HEADER + DIGEST + behind) as u64, |sum, len| sum.checked_add(*len))
            .ok_or(DecodeError::Digest)?;
        let have = bytes.len() as u64;
        if have < need {
            return Err(truncated(need));
        }
        if have > need {
            return Err(DecodeError::Trailing(usize::try_from(have - need).unwrap_or(usize::MAX)));
        }
        let (content, rest) = bytes.split_at(bytes.len() - behind - DIGEST);
        // As long as just counted.
        let (digest, _) = rest.split_first_chunk::<DIGEST>().ok_or(DecodeError::Digest)?;
        if blake3::hash(content).as_bytes() != digest {
            return Err(DecodeError::Digest);
        }
        let signer = if behind == 0 { None } else { Some(signer(bytes)?) };
        // All lengths fit: their sum is the length of a slice that exists.
        let [manifest, plan, _] = lengths.map(|len| usize::try_from(len).unwrap_or(usize::MAX));
        let split = |part: &'a [u8], at| part.split_at_checked(at).ok_or(DecodeError::Digest);
        let (manifest, rest) = split(&content[HEADER..], manifest)?;
        let (plan, frames) = split(rest, plan)?;
        Ok(Self { manifest, plan, frames, digest: *digest, signer })
    }

    fn without_frames(&self) -> Result<Bundle, DecodeError> {
        let manifest: Manifest =
            serde_json::from_slice(self.manifest).map_err(DecodeError::Manifest)?;
        let (plan, rest): (Plan, _) =
            postcard::take_from_bytes(self.plan).map_err(DecodeError::Plan)?;
        nothing_behind(rest)?;
        Ok(Bundle { manifest, plan, frames: Vec::new() })
    }
}

/// The key that signed all bytes before the last 64.
fn signer(bytes: &[u8]) -> Result<PublicKey, DecodeError> {
    let (content, signature) =
        bytes.split_last_chunk::<SIGNATURE>().ok_or(DecodeError::Signature)?;
    let key = content.last_chunk::<KEY>().ok_or(DecodeError::Signature)?;
    let key = PublicKey::from_bytes(*key);
    if key.verifies(content, *signature) { Ok(key) } else { Err(DecodeError::Signature) }
}

fn nothing_behind(rest: &[u8]) -> Result<(), DecodeError> {
    if rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(rest.len())) }
}

fn u32_at(header: &[u8], at: usize) -> u32 {
    let mut b = [0; 4];
    b.copy_from_slice(&header[at..at + 4]);
    u32::from_le_bytes(b)
}

fn u64_at(header: &[u8], at: usize) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(&header[at..at + 8]);
    u64::from_le_bytes(b)
}
