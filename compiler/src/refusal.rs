//! What dsu-build will not do, why, and what the user can do instead.

use serde::Serialize;

/// One reason why no bundle is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// A word for tools; stable.
    pub code: &'static str,
    /// The function, variable or type it is about.
    pub subject: String,
    /// The reason in words.
    pub text: String,
    /// What can be done about it.
    pub way_out: String,
}
