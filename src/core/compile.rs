//! The seam between delivery, which knows nothing of a family's rules, and a
//! family, which knows nothing of sessions: object → resource, purely.

use bytes::Bytes;

use crate::claims::Claim;
use crate::ids::{Kind, ObjectKey};
use crate::object::RawObject;

/// The form that objects are given. It is part of every version ([`crate::version::scope_hash`]):
/// a gateway that holds what another release made of the same objects gets everything anew.
/// To be raised with every change of what objects compile to.
pub const FORM: u32 = 1;

/// Compiles objects of one family for its gateways.
///
/// Implementations must be pure: the same object and the same answers of
/// `exists` give the same result on every replica.
pub trait Compiler: Send {
    /// Compiles one object. `exists` tells whether a live, valid-or-not object
    /// of that kind and key is in the store; every question asked of it must
    /// be listed in [`Compilation::references`].
    fn compile(&self, object: &RawObject, exists: &dyn Fn(Kind, &ObjectKey) -> bool) -> Compilation;

    /// What a valid object claims for itself, as [`Compilation::claims`] says it: asked of one
    /// that loses, to tell in words to whom it loses what.
    fn claims(&self, object: &RawObject) -> Vec<Claim> {
        self.compile(object, &|_, _| true).claims
    }

    /// Whether an object's status says that another one keeps it from being
    /// delivered ([`Fault::Conflict`]): what was said before we began to read.
    /// `None` when it says nothing of the object's present generation.
    fn was_withheld(&self, _object: &RawObject) -> Option<bool> {
        Some(false)
    }
}

/// What an object compiles to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compilation {
    /// The resource's `spec_json` and rank, or why there is none.
    pub outcome: Result<Compiled, Invalid>,
    /// Objects whose existence the outcome depends on, found or not.
    pub references: Vec<(Kind, ObjectKey)>,
    /// What the object claims for itself: it is delivered only while nobody who
    /// comes before it claims the same. Must follow from the object alone, and
    /// counts only while there is something to deliver. Claims of different kinds
    /// should not meet: kinds are read at their own pace, so an object might be
    /// taken away for a conflict that there was at no time.
    pub claims: Vec<Claim>,
}

/// A successful compilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// See [`crate::object::Resource::spec_json`].
    pub spec_json: Bytes,
    /// See [`crate::object::Resource::rank`].
    pub rank: u8,
}

/// Whose fault it is that an object is not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its own: the spec cannot be used.
    Spec,
    /// That of another object, which claims the same and comes first.
    Conflict,
}

/// Why an object that passed the schema cannot be delivered: shown in its
/// status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}; {remedy}")]
pub struct Invalid {
    /// Whose fault it is.
    pub fault: Fault,
    /// Path of the field, for example `spec.match[0].uri.regex`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}
