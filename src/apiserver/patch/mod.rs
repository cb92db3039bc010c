//! The patch formats a Kubernetes API server accepts, as pure functions on JSON values.
//!
//! JSON patches (RFC 6902) and merge patches (RFC 7386) work on any object. Strategic merge patches are Kubernetes'
//! own: they merge lists by key, which takes knowledge of the kind, so they work on built-in kinds only.

mod json;
mod strategic;
mod strategic_list;

pub use json::{json_patch, merge_patch};
pub use strategic::strategic_merge;

/// Why a patch was not applied. The texts are for the message of a `Status`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch cannot be read, whatever object it is for; it has to be written differently.
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// The patch can be read and does not apply to this object: a test failed, or a path is not there.
    #[error("{0}")]
    Rejected(String),
    /// A JSON patch has too many operations; it has to be split.
    #[error("the allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooLarge(usize),
}

/// The most operations that a JSON patch may have.
const MAX_OPERATIONS: usize = 10_000;

impl PatchError {
    /// The HTTP status code that kube-apiserver answers with: 400, 413 or 422.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::TooLarge(_) => 413,
            Self::Rejected(_) => 422,
        }
    }
}
