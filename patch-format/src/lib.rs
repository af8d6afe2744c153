//! The patch bundle: what `dsu-build` writes and `dsu-apply` reads.
//!
//! ```text
//! compiler -> Bundle -> encode -> file -> decode_plan -> validate -> Bundle -> injector
//!                               \-> decode -> validate -> Bundle -> checker, dump (text for people)
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`address`] | one type for each kind of number: linked in OLD, linked in NEW |
//! | [`manifest`] | what people and tools ask: names, sources, reasons, warnings |
//! | [`plan`] | what apply does: segments, fix-ups, redirects, sites, writes, blind ranges, address map |
//! | [`frames`] | what each stub does to its frame |
//! | [`codec`] | the file: magic, version, lengths, JSON, postcard twice, digest |
//! | [`signature`] | who made it |
//! | [`validate`] | what must hold between the parts before anything of a bundle may be used |
//! | [`dump`] | a stable text form of the whole |
//!
//! The file, all integers little-endian:
//!
//! ```text
//! 0   8  magic "DSUPATCH"
//! 8   4  format version
//! 12  4  1: signed; 0: not
//! 16  8  length of the manifest in bytes
//! 24  8  length of the plan in bytes
//! 32  8  length of the frames in bytes
//! 40     manifest, JSON
//! ..     plan, postcard
//! ..     frames, postcard; last, because apply needs none of them
//! ..  32 BLAKE3 digest of everything before it
//! ..  32 when signed: the Ed25519 public key
//! ..  64 when signed: the signature of everything before it
//! ```

pub mod address;
pub mod codec;
pub mod dump;
pub mod frames;
pub mod manifest;
mod notation;
pub mod plan;
pub mod signature;
pub mod validate;

pub use address::{NewAddr, OldAddr};
pub use codec::{DecodeError, decode, decode_plan, encode};
pub use frames::Translation;
pub use manifest::Manifest;
pub use plan::Plan;
pub use signature::{PublicKey, SigningKey};

/// Everything that apply needs to bring one running process from OLD to NEW.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// For people and tools.
    pub manifest: Manifest,
    /// For the transaction.
    pub plan: Plan,
    /// For people, tools and the checker: what each stub does. As many as [`Plan::sites`], or none in
    /// what [`decode_plan`] gives.
    pub frames: Vec<Translation>,
}
