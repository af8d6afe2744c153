//! Addresses as linked, one type for each image.
//!
//! Mixing up addresses of two images, or of an image and a process, is the bug of this field, so
//! each kind has a type. Addresses in a process are the injector's own matter and its own type.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! linked_address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
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

            /// Bytes from `earlier` to here, wrapping.
            #[must_use]
            pub fn since(self, earlier: Self) -> u64 {
                self.0.wrapping_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

linked_address! {
    /// An address as linked in OLD (`p_vaddr` space of the OLD file).
    OldAddr
}
linked_address! {
    /// An address as linked in NEW (`p_vaddr` space of the NEW file).
    NewAddr
}
