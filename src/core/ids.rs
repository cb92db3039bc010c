//! Identifiers and small value types that the whole core shares.
//!
//! They are newtypes so that a namespace is never taken for a member and a
//! revision of one kind never for another's: only [`Frontier`] compares
//! revisions, and it does so kind by kind.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kinds that are delivered to gateways, in the order in which frontiers
/// list them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `apiroutes.avapigw.io`
    ApiRoute,
    /// `grpcroutes.avapigw.io`
    GrpcRoute,
    /// `backends.avapigw.io`
    Backend,
    /// `grpcbackends.avapigw.io`
    GrpcBackend,
}

impl Kind {
    /// How many kinds there are: the length of a [`Frontier`].
    pub const COUNT: usize = 4;

    /// All kinds, in frontier order.
    pub const ALL: [Kind; Kind::COUNT] = [Kind::ApiRoute, Kind::GrpcRoute, Kind::Backend, Kind::GrpcBackend];

    /// Position of this kind in a [`Frontier`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The kind's name in Kubernetes, for example `APIRoute`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::ApiRoute => "APIRoute",
            Kind::GrpcRoute => "GRPCRoute",
            Kind::Backend => "Backend",
            Kind::GrpcBackend => "GRPCBackend",
        }
    }

    /// The resource's plural in Kubernetes, for example `apiroutes`.
    pub const fn plural(self) -> &'static str {
        match self {
            Kind::ApiRoute => "apiroutes",
            Kind::GrpcRoute => "grpcroutes",
            Kind::Backend => "backends",
            Kind::GrpcBackend => "grpcbackends",
        }
    }

    /// The finalizer that holds an object of this kind back until gateways have let it go:
    /// that of the published operator.
    pub const fn finalizer(self) -> &'static str {
        match self {
            Kind::ApiRoute => "apiroute.avapigw.io/finalizer",
            Kind::GrpcRoute => "grpcroute.avapigw.io/finalizer",
            Kind::Backend => "backend.avapigw.io/finalizer",
            Kind::GrpcBackend => "grpcbackend.avapigw.io/finalizer",
        }
    }

    /// One letter for version strings.
    pub const fn letter(self) -> char {
        match self {
            Kind::ApiRoute => 'a',
            Kind::GrpcRoute => 'g',
            Kind::Backend => 'b',
            Kind::GrpcBackend => 'q',
        }
    }

    /// Whether objects of this kind are routes (as opposed to backends).
    pub const fn is_route(self) -> bool {
        matches!(self, Kind::ApiRoute | Kind::GrpcRoute)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A `metadata.resourceVersion`: an ordered integer within one kind
/// (contract since Kubernetes 1.35, KEP-5504). Zero is before everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One revision per kind: how far a reader has seen everything.
///
/// Frontiers are only partially ordered: see [`Frontier::reached`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Frontier(pub [Revision; Kind::COUNT]);

impl Frontier {
    /// The revision of one kind.
    pub fn get(&self, kind: Kind) -> Revision {
        self.0[kind.index()]
    }

    /// Moves one kind forward; a lower revision changes nothing.
    pub fn advance(&mut self, kind: Kind, to: Revision) {
        let slot = &mut self.0[kind.index()];
        *slot = (*slot).max(to);
    }

    /// Whether this frontier is at or beyond `other` in every kind.
    pub fn reached(&self, other: &Frontier) -> bool {
        self.0.iter().zip(&other.0).all(|(own, theirs)| own >= theirs)
    }

    /// The later revision in every kind.
    pub fn join(&self, other: &Frontier) -> Frontier {
        let mut joined = *self;
        for kind in Kind::ALL {
            joined.advance(kind, other.get(kind));
        }
        joined
    }
}

/// Namespace and name of an object, cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key that sorts before all others and that no object has: where ranges
    /// begin. It takes no memory.
    pub fn first() -> Self {
        ObjectKey { namespace: Arc::default(), name: Arc::default() }
    }

    /// A key from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                $name(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                $name(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

string_id! {
    /// A replica's stable name, normally its pod's name: what the ring hashes
    /// and what the ShardMap lists.
    MemberName
}

string_id! {
    /// One process of a member: member name, `/`, and a random id made at
    /// process start. This is what Leases name as holder, so that a restarted
    /// process is never taken for the one before it.
    Instance
}

string_id! {
    /// A session between one gateway and the replica that registered it,
    /// unique for ever. It starts with the member's name, so that any replica
    /// can pass an acknowledgement on.
    SessionId
}

/// Namespace and name by which a gateway identifies itself (and which its
/// certificate must confirm).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatewayId {
    /// The gateway's namespace.
    pub namespace: Arc<str>,
    /// The gateway's name.
    pub name: Arc<str>,
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The number of a published ShardMap; it only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
