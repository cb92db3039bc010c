//! What an object claims for itself: the matches of a route, the endpoints of a
//! backend, in a form in which equal claims are equal values.
//!
//! A gateway takes absent, null and empty for the same, compares header names
//! without case, and asks for no order among conditions, so none of these makes
//! a difference here.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use flotilla_api::avapigw::{GrpcMatch, HttpMatch, NamedMatch, QueryParamMatch, StringMatch};
use flotilla_core::ids::Kind;
use flotilla_core::object::RawObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What is equal in all that may be in conflict.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    /// `None` when claims of all namespaces meet.
    pub namespace: Option<Arc<str>>,
    pub condition: Condition,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Condition {
    Http {
        uri: Option<Comparison>,
        headers: BTreeSet<Named>,
        query: BTreeSet<Named>,
    },
    Grpc {
        service: Option<Comparison>,
        method: Option<Comparison>,
        authority: Option<Comparison>,
        metadata: BTreeSet<Named>,
        without: BTreeSet<String>,
    },
    Endpoint {
        address: String,
        port: i64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Comparison {
    Exact(String),
    Prefix(String),
    Regex(String),
}

/// A condition on something with a name; empty and false stand for absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Named {
    name: String,
    exact: String,
    prefix: String,
    regex: String,
    present: bool,
    absent: bool,
}

/// Which part of a slot is claimed: only claims of overlapping parts conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    /// Every method.
    AnyMethod,
    /// One method, by its place in [`METHODS`].
    Method(usize),
    /// The endpoint, as a backend of this kind.
    Endpoint(Kind),
}

/// The methods that a route may name.
const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"];

/// One claim.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Where it stands, for example `spec.match[0]`.
    pub field: String,
    pub slot: Arc<Slot>,
    pub parts: Vec<Part>,
}

impl Claim {
    /// Whether a claim of the same slot to `part` is in conflict with this one.
    pub fn meets(&self, part: Part) -> bool {
        match part {
            Part::Endpoint(kind) => !self.parts.contains(&Part::Endpoint(kind)),
            Part::AnyMethod => !self.parts.is_empty(),
            Part::Method(_) => self.parts.contains(&Part::AnyMethod) || self.parts.contains(&part),
        }
    }
}

#[derive(Deserialize)]
#[serde(bound = "M: DeserializeOwned")]
struct Route<M> {
    #[serde(default = "Option::default", rename = "match")]
    matches: Option<Vec<M>>,
}

#[derive(Deserialize)]
struct Backend {
    #[serde(default)]
    hosts: Vec<Host>,
}

#[derive(Deserialize)]
struct Host {
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
}

/// What an object claims. A spec that does not decode claims nothing: it is
/// delivered to nobody.
pub(super) fn claims(object: &RawObject, cluster_wide: bool) -> Vec<Claim> {
    let namespace = (!cluster_wide).then(|| object.key.namespace.clone());
    let claim = |field: String, condition, parts| Claim {
        field,
        slot: Arc::new(Slot { namespace: namespace.clone(), condition }),
        parts,
    };
    match object.kind {
        Kind::ApiRoute => entries::<HttpMatch>(&object.spec)
            .into_iter()
            .map(|(field, entry)| {
                let parts = methods(&entry.methods);
                claim(field, http(entry), parts)
            })
            .collect(),
        Kind::GrpcRoute => entries::<GrpcMatch>(&object.spec)
            .into_iter()
            .map(|(field, entry)| claim(field, grpc(entry), vec![Part::AnyMethod]))
            .collect(),
        Kind::Backend | Kind::GrpcBackend => hosts(object)
            .enumerate()
            .map(|(index, (address, port))| {
                let endpoint = Condition::Endpoint { address, port };
                claim(format!("spec.hosts[{index}]"), endpoint, vec![Part::Endpoint(object.kind)])
            })
            .collect(),
    }
}

/// The hosts of a backend as names that can be compared, with their ports.
pub(super) fn hosts(object: &RawObject) -> impl Iterator<Item = (String, i64)> {
    let hosts = serde_json::from_slice::<Backend>(&object.spec).map_or(Vec::new(), |spec| spec.hosts);
    hosts.into_iter().map(|host| (normal(&host.address), host.port))
}

/// Host names have no case, and a dot at the end changes nothing here.
pub(super) fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// The entries of `match` with their paths. A route without any has one that
/// holds for every request.
fn entries<M: DeserializeOwned + Default>(spec: &[u8]) -> Vec<(String, M)> {
    let Ok(route) = serde_json::from_slice::<Route<M>>(spec) else { return Vec::new() };
    match route.matches {
        Some(entries) if !entries.is_empty() => entries
            .into_iter()
            .enumerate()
            .map(|(index, entry)| (format!("spec.match[{index}]"), entry))
            .collect(),
        _ => vec![("spec.match".to_owned(), M::default())],
    }
}

fn methods(names: &[String]) -> Vec<Part> {
    if names.is_empty() {
        return vec![Part::AnyMethod];
    }
    let named = |name: &String| METHODS.iter().position(|known| known.eq_ignore_ascii_case(name));
    let places: BTreeSet<usize> = names.iter().filter_map(named).collect();
    if places.len() == METHODS.len() {
        return vec![Part::AnyMethod];
    }
    places.into_iter().map(Part::Method).collect()
}

fn http(entry: HttpMatch) -> Condition {
    Condition::Http {
        uri: comparison(entry.uri),
        headers: entry.headers.into_iter().map(header).collect(),
        query: entry.query_params.into_iter().map(parameter).collect(),
    }
}

fn grpc(entry: GrpcMatch) -> Condition {
    Condition::Grpc {
        service: comparison(entry.service),
        method: comparison(entry.method),
        authority: comparison(entry.authority),
        metadata: entry.metadata.into_iter().map(header).collect(),
        without: entry.without_headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
    }
}

fn comparison(condition: Option<StringMatch>) -> Option<Comparison> {
    let condition = condition?;
    let set = |text: Option<String>| text.filter(|text| !text.is_empty());
    set(condition.exact)
        .map(Comparison::Exact)
        .or_else(|| set(condition.prefix).map(Comparison::Prefix))
        .or_else(|| set(condition.regex).map(Comparison::Regex))
}

fn header(condition: NamedMatch) -> Named {
    Named {
        name: condition.name.to_ascii_lowercase(),
        exact: condition.exact.unwrap_or_default(),
        prefix: condition.prefix.unwrap_or_default(),
        regex: condition.regex.unwrap_or_default(),
        present: condition.present.unwrap_or_default(),
        absent: condition.absent.unwrap_or_default(),
    }
}

fn parameter(condition: QueryParamMatch) -> Named {
    Named {
        name: condition.name,
        exact: condition.exact.unwrap_or_default(),
        regex: condition.regex.unwrap_or_default(),
        present: condition.present.unwrap_or_default(),
        ..Named::default()
    }
}

impl fmt::Display for Condition {
    /// What users know it by.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Http { uri, headers, query } => {
                describe(f, "uri", uri)?;
                more(f, headers.len() + query.len())
            }
            Condition::Grpc { service, method, authority, metadata, without } => {
                describe(f, "service", service)?;
                for (name, set) in [("method", method), ("authority", authority)] {
                    if set.is_some() {
                        f.write_str(", ")?;
                        describe(f, name, set)?;
                    }
                }
                more(f, metadata.len() + without.len())
            }
            Condition::Endpoint { address, port } => write!(f, "{address}:{port}"),
        }
    }
}

fn describe(f: &mut fmt::Formatter<'_>, name: &str, comparison: &Option<Comparison>) -> fmt::Result {
    match comparison {
        None => write!(f, "any {name}"),
        Some(Comparison::Exact(text)) => write!(f, "{name} exact {text}"),
        Some(Comparison::Prefix(text)) => write!(f, "{name} prefix {text}"),
        Some(Comparison::Regex(text)) => write!(f, "{name} regex {text}"),
    }
}

fn more(f: &mut fmt::Formatter<'_>, conditions: usize) -> fmt::Result {
    match conditions {
        0 => Ok(()),
        1 => f.write_str(" with the same condition"),
        count => write!(f, " with the same {count} conditions"),
    }
}
