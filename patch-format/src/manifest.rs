//! The part of a bundle that people and tools read: who, what, why. Stored as JSON.

use crate::plan::SiteKind;
use crate::{NewAddr, OldAddr};
use serde::{Deserialize, Serialize};

/// What the bundle changes and why. Nothing in here steers the transaction except the build ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name and version of the tool that made the bundle.
    pub tool: String,
    /// Options of that tool which shaped the bundle, as given.
    pub options: Vec<String>,
    /// The build that the process must run.
    pub old: BuildInfo,
    /// The build that it runs afterwards.
    pub new: BuildInfo,
    /// Functions of OLD of which no instruction runs after commit, by OLD address.
    /// [`crate::plan::BlindRange::function`] is an index here.
    pub replaced: Vec<ReplacedFunction>,
    /// Functions that only NEW has and that the shadow image carries.
    pub added: Vec<AddedFunction>,
    /// Functions kept although they differ by their own source line numbers alone.
    pub line_only: Vec<String>,
    /// Variables and tables: what was found and what is done.
    pub data: Vec<DataChange>,
    /// Program points of replaced functions that have no counterpart, ascending by address: where a
    /// thread keeps the update waiting.
    pub blind_points: Vec<BlindPoint>,
    /// What the user should know, in words.
    pub warnings: Vec<String>,
}

/// One of the two builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildInfo {
    /// GNU build id, lower-case hexadecimal.
    pub build_id: String,
    /// File name without its directory (bundles do not depend on where they were made).
    pub file: String,
    /// `executable` or `library`.
    pub kind: ImageKind,
    /// SHA-256 of the file, as `sha256sum` prints it.
    pub sha256: String,
    /// The separate file that its debug information was read from, if it was.
    pub debug: Option<DebugFile>,
}

/// A separate debug file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugFile {
    /// File name without its directory.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// What sort of ELF image is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    /// The program itself.
    Executable,
    /// A shared library in it.
    Library,
}

/// A function of OLD that goes on as its NEW body, or that NEW no longer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedFunction {
    /// Linkage name.
    pub name: String,
    /// Entry in OLD.
    pub old: OldAddr,
    /// Bytes of its main part in OLD.
    pub old_size: u64,
    /// Entry in NEW; `None` when NEW has no such function. Nothing leads to its code any more, but a
    /// frame of it must not outlive the commit.
    pub new: Option<NewAddr>,
    /// Bytes of its main part in NEW; 0 when NEW has none.
    pub new_size: u64,
    /// Declared in, as the debug information says; empty when unknown.
    pub file: String,
    /// Declared at; 0 when unknown.
    pub line: u32,
    /// Why it is replaced, one reason a line, the first being the main one.
    pub why: Vec<String>,
    /// How many of its program points are checkpoints.
    pub coverage: Coverage,
}

/// Call sites of a replaced function: those whose frames can be carried over, of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// Translatable.
    pub sites: u32,
    /// Of the others, those from which the frame soon comes to such a point by itself, or returns
    /// ([`crate::plan::Passage`]).
    pub passing: u32,
    /// Of the others, those that only a local variable which NEW adds stands against.
    pub new_locals: u32,
    /// All to which a callee may return.
    pub of: u32,
}

/// A program point of OLD at which the update cannot be done, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlindPoint {
    /// [`Manifest::replaced`] by index.
    pub function: u32,
    /// The point: for calls, the return address.
    pub at: OldAddr,
    /// What sort of point it is.
    pub kind: SiteKind,
    /// Source file; empty when unknown.
    pub file: String,
    /// Source line; 0 when unknown.
    pub line: u32,
    /// Only a local variable that NEW adds stands against it.
    pub new_local: bool,
    /// The reason in words: "variable `iter` (line 12) has no value in OLD".
    pub why: String,
}

/// A function that only NEW has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedFunction {
    /// Linkage name.
    pub name: String,
    /// Entry in NEW.
    pub new: NewAddr,
    /// Bytes.
    pub size: u64,
}

/// A variable or table that is not simply the same in both builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataChange {
    /// Linkage name.
    pub name: String,
    /// Bytes in OLD; 0 when only NEW has it.
    pub old_size: u64,
    /// Bytes in NEW; 0 when only OLD has it.
    pub new_size: u64,
    /// What is done.
    pub action: DataAction,
    /// Why, in words.
    pub why: String,
}

/// What an update does with one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataAction {
    /// Only NEW has it: it lives in the shadow image with NEW's initial value.
    Added,
    /// Its initializer changed; the running value stays.
    KeptValue,
    /// Overwritten at commit with NEW's content, in place.
    UpdatedInPlace,
    /// NEW's object in the shadow image takes its place; all users are replaced.
    Moved,
    /// Only OLD has it; it stays where it is, unused by NEW.
    Removed,
}
