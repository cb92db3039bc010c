//! Structural schemas of custom resources and the OpenAPI documents made from them.
//!
//! A custom resource definition carries an OpenAPI v3 schema that does three jobs in a Kubernetes API server: it
//! decides which fields are kept ([`StructuralSchema::prune`]), which are filled in ([`StructuralSchema::default`])
//! and which values are refused ([`StructuralSchema::validate`]). All three are pure functions on JSON values, so
//! that they can be tested by properties and used by whoever has an object at hand.
//!
//! What is accepted, what is refused and how a refusal is worded follow kube-apiserver 1.34, including its odd
//! corners: clients and tests read these words, and an object that our server takes must not be refused later by a
//! real one.

mod cause;
mod cel;
mod cel_value;
mod check;
mod check_node;
mod correlate;
mod default;
mod embedded;
mod format;
mod list_type;
mod node;
pub mod openapi;
mod pattern;
mod prune;
mod structural;
mod validate;

pub use cause::{Cause, Reason};
pub use structural::StructuralSchema;
pub(crate) use structural::{Merging, SchemaNode};
