//! Why debug information could not be used.

use thiserror::Error;

/// Debug information that cannot be read, or is of a kind that is not supported.
#[derive(Debug, Error)]
pub enum DebugError {
    /// Neither the image nor the separate file has `.debug_info`.
    #[error(
        "no debug information (.debug_info): build with -g, or name the file that holds it \
         with --debug-old or --debug-new (objcopy --only-keep-debug, a -dbgsym package)"
    )]
    Missing,
    /// The file is not little-endian ELF.
    #[error("debug information of a big-endian file")]
    BigEndian,
    /// A section could not be read or decompressed.
    #[error("section {name}: {source}")]
    Section {
        /// The section's name.
        name: &'static str,
        /// What failed.
        source: object::Error,
    },
    /// A compressed section claims a size that its content cannot have.
    #[error("section {name}: {compressed} bytes cannot expand to {claimed}")]
    Expansion {
        /// The section's name.
        name: &'static str,
        /// Bytes in the file.
        compressed: u64,
        /// Bytes that the header claims.
        claimed: u64,
    },
    /// Part of the debug information is in a `.dwo` file (`-gsplit-dwarf`).
    #[error("split DWARF: debug information is in {dwo}; build without -gsplit-dwarf")]
    Split {
        /// The file that a unit names; skeletons of units have no name of their own.
        dwo: String,
    },
    /// Part of the debug information is in a supplementary file, made by `dwz -m`.
    #[error(
        "debug information refers to a supplementary file ({file}); undo dwz -m, \
         or build without it (dh_dwz --no-dwz-multifile)"
    )]
    Supplementary {
        /// The file that it names.
        file: String,
    },
    /// The list of units is damaged.
    #[error("list of units in {section}: {source}")]
    Units {
        /// The section.
        section: &'static str,
        /// What failed.
        source: gimli::Error,
    },
    /// More units, types or files than an image can have.
    #[error("more than 4294967295 {what} in one image")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
}

/// Debug information that was left out, because it is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The unit, by name; empty where its name is what could not be read.
    pub unit: String,
    /// What was left out, and why.
    pub what: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "debug information of {}: {}", self.unit, self.what)
    }
}
