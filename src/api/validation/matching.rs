//! The entries of `match` with all that they compare, borrowed from the spec's
//! bytes: what [`crate::avapigw::HttpMatch`] and [`crate::avapigw::GrpcMatch`]
//! own. What decodes as these decodes here, to the same content: null where they
//! want a list, or a key twice, is an error. So is a list in place of an object,
//! which serde would take for its fields in order, and a gateway does not take.
//! A gateway takes more than that, so a route may be delivered whose matches cannot
//! be told: see [`super::Inspection::matches`].

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::decode::plainly;
use super::shape::Text;

/// The entries of `match`; none are there when the spec has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matches<'a> {
    /// Of an APIRoute.
    Http(Vec<HttpMatch<'a>>),
    /// Of a GRPCRoute.
    Grpc(Vec<GrpcMatch<'a>>),
}

/// Conditions on an HTTP request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatch<'a> {
    /// Condition on the path.
    #[serde(borrow, default, deserialize_with = "object")]
    pub uri: Option<StringMatch<'a>>,
    /// Accepted methods, in any case; empty accepts all.
    #[serde(borrow, default)]
    pub methods: Vec<Text<'a>>,
    /// Conditions on headers.
    #[serde(borrow, default, deserialize_with = "objects")]
    pub headers: Vec<NamedMatch<'a>>,
    /// Conditions on query parameters.
    #[serde(borrow, default, deserialize_with = "objects")]
    pub query_params: Vec<QueryParamMatch<'a>>,
}

/// Conditions on a gRPC call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcMatch<'a> {
    /// Condition on the full service name.
    #[serde(borrow, default, deserialize_with = "object")]
    pub service: Option<StringMatch<'a>>,
    /// Condition on the method name.
    #[serde(borrow, default, deserialize_with = "object")]
    pub method: Option<StringMatch<'a>>,
    /// Condition on the authority that was called.
    #[serde(borrow, default, deserialize_with = "object")]
    pub authority: Option<StringMatch<'a>>,
    /// Conditions on the call's metadata.
    #[serde(borrow, default, deserialize_with = "objects")]
    pub metadata: Vec<NamedMatch<'a>>,
    /// Names that must not occur in the metadata.
    #[serde(borrow, default)]
    pub without_headers: Vec<Text<'a>>,
}

/// How a string is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct StringMatch<'a> {
    /// The whole string.
    #[serde(borrow)]
    pub exact: Option<Text<'a>>,
    /// The beginning of the string.
    #[serde(borrow)]
    pub prefix: Option<Text<'a>>,
    /// A regular expression.
    #[serde(borrow)]
    pub regex: Option<Text<'a>>,
}

/// A condition on one header or metadata entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NamedMatch<'a> {
    /// Name of the header or entry.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// The whole value.
    #[serde(borrow)]
    pub exact: Option<Text<'a>>,
    /// The beginning of the value.
    #[serde(borrow)]
    pub prefix: Option<Text<'a>>,
    /// A regular expression that the value must match.
    #[serde(borrow)]
    pub regex: Option<Text<'a>>,
    /// Whether it must be there.
    pub present: Option<bool>,
    /// Whether it must be missing.
    pub absent: Option<bool>,
}

/// A condition on one query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct QueryParamMatch<'a> {
    /// Name of the parameter.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// The whole value.
    #[serde(borrow)]
    pub exact: Option<Text<'a>>,
    /// A regular expression that the value must match.
    #[serde(borrow)]
    pub regex: Option<Text<'a>>,
    /// Whether it must be there.
    pub present: Option<bool>,
}

/// A spec of which only `match` is read.
#[derive(Deserialize)]
#[serde(bound = "M: Deserialize<'de>")]
struct Route<M> {
    #[serde(default = "Option::default", rename = "match")]
    matches: Option<Vec<Object<M>>>,
}

/// Decodes from an object only.
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|object| object.0))
}

fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Object<T>>::deserialize(deserializer)?.into_iter().map(|object| object.0).collect())
}

/// The matches of an APIRoute's spec; `None` when they do not decode.
pub fn http_matches(spec: &[u8]) -> Option<Vec<HttpMatch<'_>>> {
    entries(spec)
}

/// The matches of a GRPCRoute's spec; `None` when they do not decode.
pub fn grpc_matches(spec: &[u8]) -> Option<Vec<GrpcMatch<'_>>> {
    entries(spec)
}

fn entries<'a, M: Deserialize<'a>>(spec: &'a [u8]) -> Option<Vec<M>> {
    let route: Route<M> = plainly(spec).ok()?;
    Some(route.matches.unwrap_or_default().into_iter().map(|entry| entry.0).collect())
}
