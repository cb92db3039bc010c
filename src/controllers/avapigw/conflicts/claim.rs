//! What an object claims for itself: the matches of a route, the endpoints of a
//! backend, in a form in which equal claims are equal values.
//!
//! A gateway takes absent, null and empty for the same, compares header names
//! without case, and asks for no order among conditions, so none of these makes
//! a difference here.

use std::collections::BTreeSet;
use std::fmt;

use flotilla_api::avapigw::{GrpcMatch, HttpMatch, NamedMatch, QueryParamMatch, StringMatch};
use flotilla_core::claims::{Claim, Interest};
use flotilla_core::ids::Kind;
use flotilla_core::object::RawObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Scope;

/// What is equal in all that may be in conflict. Serialised it is the slot: equal
/// text exactly when it is equal.
#[derive(Serialize)]
enum Condition {
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

#[derive(Serialize)]
enum Comparison {
    Exact(String),
    Prefix(String),
    Regex(String),
}

/// A condition on something with a name; empty and false stand for absent.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Named {
    name: String,
    exact: String,
    prefix: String,
    regex: String,
    present: bool,
    absent: bool,
}

/// The methods that a route may name.
const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"];

/// Every method, as the parts of a slot.
const ANY_METHOD: u16 = (1 << METHODS.len()) - 1;

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
pub(crate) fn claims(object: &RawObject, scope: Scope) -> Vec<Claim> {
    let namespace = (scope == Scope::Namespace).then(|| object.key.namespace.clone());
    let claim = |field: String, condition: Condition, interest| {
        // Words and numbers can always be written down.
        let slot = serde_json::to_string(&(&namespace, &condition)).unwrap_or_default();
        Claim { slot: slot.into(), interest, field: field.into(), words: condition.to_string().into() }
    };
    match object.kind {
        Kind::ApiRoute => entries::<HttpMatch>(&object.spec)
            .into_iter()
            .filter_map(|(field, entry)| {
                let parts = methods(&entry.methods);
                let interest = Interest { takes: parts, bars: parts };
                (parts != 0).then(|| claim(field, http(entry), interest))
            })
            .collect(),
        Kind::GrpcRoute => entries::<GrpcMatch>(&object.spec)
            .into_iter()
            .map(|(field, entry)| claim(field, grpc(entry), Interest { takes: 1, bars: 1 }))
            .collect(),
        Kind::Backend | Kind::GrpcBackend => {
            // Backends of one kind may share an endpoint, those of two may not.
            let interest = match object.kind {
                Kind::Backend => Interest { takes: 1, bars: 2 },
                _ => Interest { takes: 2, bars: 1 },
            };
            let endpoint = |(index, (address, port))| {
                claim(format!("spec.hosts[{index}]"), Condition::Endpoint { address, port }, interest)
            };
            hosts(object).enumerate().map(endpoint).collect()
        }
    }
}

/// The hosts of a backend as names that can be compared, with their ports.
pub(super) fn hosts(object: &RawObject) -> impl Iterator<Item = (String, i64)> {
    let hosts = serde_json::from_slice::<Backend>(&object.spec).map_or(Vec::new(), |spec| spec.hosts);
    hosts.into_iter().map(|host| (normal(&host.address), host.port))
}

/// Host names have no case, and a dot at the end changes nothing here.
pub(crate) fn normal(host: &str) -> String {
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

/// The methods as parts of a slot; none named are all.
fn methods(names: &[String]) -> u16 {
    if names.is_empty() {
        return ANY_METHOD;
    }
    let named = |name: &String| METHODS.iter().position(|known| known.eq_ignore_ascii_case(name));
    names.iter().filter_map(named).fold(0, |parts, place| parts | 1 << place)
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
