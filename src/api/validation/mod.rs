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
mod cel;
mod decode;
mod destinations;
mod duration;
mod field;
mod go_regex;
mod limits;
mod matches;
mod matching;
mod route;
mod shape;

pub use destinations::DestinationHost;
pub use duration::{DurationError, parse_go_duration};
pub use field::FieldError;
pub use go_regex::{RegexError, check_go_regex};
pub use matching::{
    GrpcMatch, HttpMatch, Matches, NamedMatch, QueryParamMatch, StringMatch, grpc_matches, http_matches,
};
pub use shape::Text;

use crate::avapigw::Kind;
use decode::{decode, plainly};
use field::Path;
use matching::Object;
use shape::{Backend, Route};

/// What a valid spec tells whoever sends it to gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection<'a> {
    /// The destinations whose host may name a Backend, in the order of the bytes; empty for backends.
    pub destinations: Vec<DestinationHost<'a>>,
    /// See [`is_catch_all`].
    pub catch_all: bool,
    /// The entries of `match`, as [`http_matches`] and [`grpc_matches`] read them;
    /// `None` for backends and when they do not decode there, although a gateway
    /// takes them: with null in place of a list, for example.
    pub matches: Option<Matches<'a>>,
}

/// Validates a spec and reads what delivery needs of it, in one pass.
///
/// # Errors
/// The first [`FieldError`] found, as [`validate_for_gateway`].
pub fn inspect(kind: Kind, spec: &[u8]) -> Result<Inspection<'_>, FieldError> {
    match kind {
        Kind::ApiRoute => inspect_route(spec, true, Matches::Http, lenient::<shape::HttpMatch<'_>>),
        Kind::GrpcRoute => inspect_route(spec, false, Matches::Grpc, lenient::<shape::GrpcMatch<'_>>),
        Kind::Backend | Kind::GrpcBackend => {
            backend::check(&decode::<Backend<'_>>(spec)?, &Path::Spec)?;
            Ok(Inspection { destinations: Vec::new(), catch_all: false, matches: None })
        }
    }
}

/// Decodes with all that matches compare. What does not decode so is left to
/// `otherwise`: only it says what is wrong, or that gateways take it all the same.
fn inspect_route<'a, M>(
    spec: &'a [u8],
    http: bool,
    matches: fn(Vec<M>) -> Matches<'a>,
    otherwise: fn(&'a [u8], bool) -> Result<Inspection<'a>, FieldError>,
) -> Result<Inspection<'a>, FieldError>
where
    M: serde::Deserialize<'a> + matches::Match,
{
    let Ok(mut route) = plainly::<Route<'a, Object<M>>>(spec) else { return otherwise(spec, http) };
    let inspection = look(&route, spec, http)?;
    let entries = route.matches.take().unwrap_or_default().into_iter().map(|entry| entry.0).collect();
    Ok(Inspection { matches: Some(matches(entries)), ..inspection })
}

/// Decodes as gateways do.
fn lenient<'a, M>(spec: &'a [u8], http: bool) -> Result<Inspection<'a>, FieldError>
where
    M: serde::Deserialize<'a> + matches::Match,
{
    look(&decode::<Route<'a, M>>(spec)?, spec, http)
}

fn look<'a, M: matches::Match>(
    route: &Route<'a, M>,
    spec: &'a [u8],
    http: bool,
) -> Result<Inspection<'a>, FieldError> {
    route::check(route, http, &Path::Spec)?;
    let catch_all = matches::catch_all(&route.matches);
    Ok(Inspection { destinations: destinations::of(route, spec)?, catch_all, matches: None })
}

/// Checks that gateways can take a spec: the `.spec` of an object of `kind` as
/// JSON.
///
/// # Errors
/// The first [`FieldError`] found: bytes that do not decode, a regular
/// or an ABAC expression that gateways do not compile, a duration that they do
/// not parse, no destination, no host, and so on.
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
            decode::<Route<'_, shape::HttpMatch<'_>>>(spec).is_ok_and(|r| matches::catch_all(&r.matches))
        }
        Kind::GrpcRoute => {
            decode::<Route<'_, shape::GrpcMatch<'_>>>(spec).is_ok_and(|r| matches::catch_all(&r.matches))
        }
        Kind::Backend | Kind::GrpcBackend => false,
    }
}
