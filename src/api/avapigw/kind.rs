//! The kinds of the AVAPIGW family, for code that is given one at run time.

use std::fmt;

/// A kind of group `avapigw.io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// All kinds.
    pub const ALL: [Kind; 4] = [Kind::ApiRoute, Kind::GrpcRoute, Kind::Backend, Kind::GrpcBackend];

    /// The kind's name in Kubernetes, for example `APIRoute`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::ApiRoute => "APIRoute",
            Kind::GrpcRoute => "GRPCRoute",
            Kind::Backend => "Backend",
            Kind::GrpcBackend => "GRPCBackend",
        }
    }

    /// The kind of that name in Kubernetes.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
