//! Objects as they arrive, and resources as they leave.
//!
//! The spec is kept as the bytes that arrived and leaves as those bytes with
//! one more key: delivery never re-types a spec, so a field that this version
//! does not know reaches the gateway unharmed.

use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{Kind, ObjectKey, Revision};

/// What is kept of an object of a delivered kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawObject {
    /// The object's kind.
    pub kind: Kind,
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`
    pub revision: Revision,
    /// `metadata.generation`: counts changes of the spec.
    pub generation: i64,
    /// `metadata.creationTimestamp` as written, for example `2026-11-21T10:00:00Z`.
    pub created: Arc<str>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Whether `metadata.finalizers` has that of its kind ([`Kind::finalizer`]).
    pub held: bool,
    /// `.spec` as JSON bytes; `{}` when the object has none.
    pub spec: Bytes,
    /// `.status` as JSON bytes; empty when the object has none.
    pub status: Bytes,
}

impl RawObject {
    /// Whether another state of the object differs in nothing that gateways get: it is the
    /// same object, with the same spec, and is being deleted or not as well.
    pub fn has_content_of(&self, other: &RawObject) -> bool {
        (&self.uid, self.generation, self.deleting) == (&other.uid, other.generation, other.deleting)
    }
}

/// One resource as a gateway gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The kind of the object it was compiled from.
    pub kind: Kind,
    /// Namespace and name of that object.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Arc<str>,
    /// Its generation.
    pub generation: i64,
    /// Its content revision (ARCHITECTURE.md, "Terms and rules").
    pub revision: Revision,
    /// Its creation timestamp as written.
    pub created: Arc<str>,
    /// The spec's bytes with `"name":"<namespace>/<name>"` put in front and
    /// destinations resolved.
    pub spec_json: Bytes,
    /// Where it stands in a snapshot among the resources of its kind: lower
    /// first, then by key. A route that catches everything comes last, so that
    /// a gateway that is still loading does not route with it what belongs to
    /// a more specific one.
    pub rank: u8,
}
