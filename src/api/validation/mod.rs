//! Pure validation of specs before they are sent to gateways.
//!
//! A gateway that is given one bad resource may drop good ones beside it, so
//! nothing is sent that it could not take. What is refused here is what the
//! schema cannot say and a gateway chokes on, or what can never work; advice
//! belongs to admission, not here, since an object that is refused here
//! serves nothing.
//!
//! All functions depend on the spec's bytes alone, which keeps what a gateway
//! gets the same on every replica. They run once per change and replica, so
//! the bytes are parsed once into structs that borrow from them.

mod backend;
mod decode;
mod destinations;
mod duration;
mod field;
mod go_regex;
mod limits;
mod matches;
mod route;
mod shape;

pub use destinations::DestinationHost;
pub use duration::{DurationError, parse_go_duration};
pub use field::FieldError;
pub use go_regex::{RegexError, check_go_regex};

use crate::avapigw::Kind;
use decode::decode;
use field::Path;
use shape::{Backend, GrpcMatch, HttpMatch, Route};

/// What a valid spec tells whoever sends it to gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection<'a> {
    /// The destinations whose host may name a Backend, in the order of the bytes; empty for backends.
    pub destinations: Vec<DestinationHost<'a>>,
    /// See [`is_catch_all`].
    pub catch_all: bool,
}

/// Validates a spec and reads what delivery needs of it, in one pass.
///
/// # Errors
/// The first [`FieldError`] found, as [`validate_for_gateway`].
pub fn inspect(kind: Kind, spec: &[u8]) -> Result<Inspection<'_>, FieldError> {
    match kind {
        Kind::ApiRoute => inspect_route::<HttpMatch<'_>>(spec, true),
        Kind::GrpcRoute => inspect_route::<GrpcMatch<'_>>(spec, false),
        Kind::Backend | Kind::GrpcBackend => {
            backend::check(&decode::<Backend<'_>>(spec)?, &Path::Spec)?;
            Ok(Inspection { destinations: Vec::new(), catch_all: false })
        }
    }
}

fn inspect_route<'a, M>(spec: &'a [u8], http: bool) -> Result<Inspection<'a>, FieldError>
where
    M: serde::Deserialize<'a> + matches::Match,
{
    let route: Route<'a, M> = decode(spec)?;
    route::check(&route, http, &Path::Spec)?;
    Ok(Inspection {
        destinations: destinations::of(&route, spec)?,
        catch_all: matches::catch_all(&route.matches),
    })
}

/// Checks that gateways can take a spec: the `.spec` of an object of `kind` as
/// JSON.
///
/// # Errors
/// The first [`FieldError`] found: bytes that do not decode, a regular
/// expression that Go does not compile, a duration that it does not parse, no
/// destination, no host, and so on.
pub fn validate_for_gateway(kind: Kind, spec: &[u8]) -> Result<(), FieldError> {
    inspect(kind, spec).map(|_| ())
}

/// Where a route's spec names the hosts that it sends requests to, in the
/// order of the bytes: `route[].destination.host` and `mirror.destination.host`.
/// Gateways look these up among their backends; the targets of `aggregate` are
/// always taken as network hosts and therefore left out.
///
/// # Errors
/// A [`FieldError`] when the bytes are not a route's spec.
pub fn route_destinations(spec: &[u8]) -> Result<Vec<DestinationHost<'_>>, FieldError> {
    destinations::of(&decode::<Route<'_, serde::de::IgnoredAny>>(spec)?, spec)
}

/// Whether a route takes every request that nothing else takes: it has no
/// match, or one with no condition but the prefix `/`. False for backends and
/// for what does not decode.
pub fn is_catch_all(kind: Kind, spec: &[u8]) -> bool {
    match kind {
        Kind::ApiRoute => {
            decode::<Route<'_, HttpMatch<'_>>>(spec).is_ok_and(|r| matches::catch_all(&r.matches))
        }
        Kind::GrpcRoute => {
            decode::<Route<'_, GrpcMatch<'_>>>(spec).is_ok_and(|r| matches::catch_all(&r.matches))
        }
        Kind::Backend | Kind::GrpcBackend => false,
    }
}
