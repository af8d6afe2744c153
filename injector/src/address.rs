//! Addresses in the process: a type of their own, beside `OldAddr` and `NewAddr` of the bundle.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An address in the running process.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ProcAddr(pub u64);

impl ProcAddr {
    /// The address `bytes` further on; `None` past the end of the address space.
    #[must_use]
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// The address `bytes` further on, wrapping as addresses in the processor do.
    #[must_use]
    pub fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// The address `bytes` before this one, wrapping.
    #[must_use]
    pub fn back(self, bytes: u64) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }

    /// Bytes from `earlier` to here, wrapping.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The start of the page that holds this address.
    #[must_use]
    pub fn page(self) -> Self {
        Self(self.0 & !(PAGE - 1))
    }
}

impl fmt::Display for ProcAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What is added to a linked address to get the process's, wrapping: images may be linked above
/// where they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bias(pub u64);

impl Bias {
    /// The process address of a linked one.
    #[must_use]
    pub fn apply(self, linked: u64) -> ProcAddr {
        ProcAddr(linked.wrapping_add(self.0))
    }

    /// The bias that brings `linked` to `at`.
    #[must_use]
    pub fn between(linked: u64, at: ProcAddr) -> Self {
        Self(at.0.wrapping_sub(linked))
    }

    /// The linked address of a process one.
    #[must_use]
    pub fn linked(self, at: ProcAddr) -> u64 {
        at.0.wrapping_sub(self.0)
    }
}

impl fmt::Display for Bias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Bytes of a page.
pub const PAGE: u64 = dsu_patch_format::validate::PAGE;

/// `bytes` rounded up to whole pages; `None` past the end of the address space.
#[must_use]
pub fn pages(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(PAGE)
}
