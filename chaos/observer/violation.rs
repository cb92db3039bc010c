//! What is said when a promise is broken.

use std::fmt;

use crate::ids::{At, GatewayId, InstanceId, NamespaceId, ObjectId};

/// The promises, as the design numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// At most one replica acts on a namespace at any time.
    I1,
    /// What a gateway has of an object never goes back.
    I2,
    /// When changes stop, all is equal and every status says so.
    I3,
    /// No deletion reaches a gateway that nobody asked for.
    I4,
    /// Gateways keep their last configuration while nobody serves them.
    I5,
    /// Members that join or leave move only what they must.
    I6,
    /// One tenant's load or mistakes do not delay another's changes.
    I7,
    /// Of conflicting creations one is admitted; else the oldest wins.
    I8,
    /// Memory is bounded by objects and gateways.
    I9,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {invariant}: {text}")]
pub struct Violation {
    /// Which promise.
    pub invariant: Invariant,
    /// When it was seen.
    pub at: At,
    /// Who and what.
    pub text: String,
    /// Whom it is about, to find what led to it.
    pub about: About,
}

/// Whom a violation is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct About {
    /// The namespace.
    pub namespace: Option<NamespaceId>,
    /// The object.
    pub object: Option<ObjectId>,
    /// The gateway.
    pub gateway: Option<GatewayId>,
    /// The instance.
    pub instance: Option<InstanceId>,
}

/// A violation whose time is not said yet.
#[derive(Debug)]
pub(crate) struct Fault(Box<(Invariant, String, About)>);

impl Fault {
    pub(crate) fn new(invariant: Invariant, text: String, about: About) -> Self {
        Fault(Box::new((invariant, text, about)))
    }

    pub(crate) fn at(self, at: At) -> Violation {
        let (invariant, text, about) = *self.0;
        Violation { invariant, at, text, about }
    }
}
