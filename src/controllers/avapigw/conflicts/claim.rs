//! What an object claims for itself: the matches of a route, the endpoints of a
//! backend, in a form in which equal claims are equal values.
//!
//! A gateway takes absent, null and empty for the same, compares header names
//! without case, and asks for no order among conditions, so none of these makes
//! a difference here.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use flotilla_api::validation::{
    GrpcMatch, HttpMatch, Matches, NamedMatch, QueryParamMatch, StringMatch, Text, grpc_matches, http_matches,
};
use flotilla_core::claims::{Claim, Interest, Slot, Stake};
use flotilla_core::ids::Kind;
use flotilla_core::object::RawObject;
use serde::{Deserialize, Serialize};

use super::Scope;
use crate::vocabulary::METHODS;

/// What is equal in all that may be in conflict. Serialised it says which
/// slot: equal text exactly when it is equal.
#[derive(Serialize)]
enum Condition<'a> {
    Http {
        uri: Option<Comparison<'a>>,
        headers: BTreeSet<Named<'a>>,
        query: BTreeSet<Named<'a>>,
    },
    Grpc {
        service: Option<Comparison<'a>>,
        method: Option<Comparison<'a>>,
        authority: Option<Comparison<'a>>,
        metadata: BTreeSet<Named<'a>>,
        without: BTreeSet<Cow<'a, str>>,
    },
    Endpoint {
        address: &'a str,
        port: i64,
    },
}

#[derive(Serialize)]
enum Comparison<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Regex(&'a str),
}

/// A condition on something with a name; empty and false stand for absent.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Named<'a> {
    name: Cow<'a, str>,
    exact: &'a str,
    prefix: &'a str,
    regex: &'a str,
    present: bool,
    absent: bool,
}

/// Every method, as the parts of a slot.
const ANY_METHOD: u16 = (1 << METHODS.len()) - 1;

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
    match object.kind {
        Kind::ApiRoute => {
            http_matches(&object.spec).map(|matches| claims_of(object, &Matches::Http(matches), scope))
        }
        Kind::GrpcRoute => {
            grpc_matches(&object.spec).map(|matches| claims_of(object, &Matches::Grpc(matches), scope))
        }
        Kind::Backend | Kind::GrpcBackend => Some(claims_of_hosts(object, &hosts(object), scope)),
    }
    .unwrap_or_default()
}

/// What a route claims whose matches have been read already. Without any it takes
/// every request.
pub(crate) fn claims_of(object: &RawObject, matches: &Matches<'_>, scope: Scope) -> Vec<Claim> {
    let place = |index: usize| format!("spec.match[{index}]");
    let all = || "spec.match".to_owned();
    let of_http = |field, entry: &HttpMatch<'_>| {
        let parts = methods(&entry.methods);
        let interest = Interest { takes: parts, bars: parts };
        (parts != 0).then(|| claim(object, scope, field, &http(entry), interest))
    };
    let of_grpc = |field, entry: &GrpcMatch<'_>| {
        claim(object, scope, field, &grpc(entry), Interest { takes: 1, bars: 1 })
    };
    match matches {
        Matches::Http(entries) if entries.is_empty() => {
            of_http(all(), &HttpMatch::default()).into_iter().collect()
        }
        Matches::Http(entries) => {
            entries.iter().enumerate().filter_map(|(index, entry)| of_http(place(index), entry)).collect()
        }
        Matches::Grpc(entries) if entries.is_empty() => vec![of_grpc(all(), &GrpcMatch::default())],
        Matches::Grpc(entries) => {
            entries.iter().enumerate().map(|(index, entry)| of_grpc(place(index), entry)).collect()
        }
    }
}

/// What a backend claims that leads to these hosts.
pub(super) fn claims_of_hosts(object: &RawObject, hosts: &[(String, i64)], scope: Scope) -> Vec<Claim> {
    // Backends of one kind may share an endpoint, those of two may not.
    let interest = match object.kind {
        Kind::Backend => Interest { takes: 1, bars: 2 },
        _ => Interest { takes: 2, bars: 1 },
    };
    let endpoint = |(index, (address, port)): (usize, &(String, i64))| {
        let condition = Condition::Endpoint { address, port: *port };
        claim(object, scope, format!("spec.hosts[{index}]"), &condition, interest)
    };
    hosts.iter().enumerate().map(endpoint).collect()
}

fn claim(
    object: &RawObject,
    scope: Scope,
    field: String,
    condition: &Condition<'_>,
    interest: Interest,
) -> Claim {
    let namespace = (scope == Scope::Namespace).then_some(&object.key.namespace);
    // Words and numbers can always be written down.
    let slot = Slot::of(&serde_json::to_string(&(namespace, condition)).unwrap_or_default());
    let mut words = String::with_capacity(64);
    let _ = write!(words, "{condition}");
    Claim { stake: Stake { slot, interest }, field: field.into(), words: words.into() }
}

/// The hosts of a backend as names that can be compared, with their ports.
pub(super) fn hosts(object: &RawObject) -> Vec<(String, i64)> {
    let hosts = serde_json::from_slice::<Backend>(&object.spec).map_or(Vec::new(), |spec| spec.hosts);
    hosts.into_iter().map(|host| (normal(&host.address), host.port)).collect()
}

/// Host names have no case, and a dot at the end changes nothing here.
pub(crate) fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// The methods as parts of a slot; none named are all.
fn methods(names: &[Text<'_>]) -> u16 {
    if names.is_empty() {
        return ANY_METHOD;
    }
    let named = |name: &Text<'_>| METHODS.iter().position(|known| known.eq_ignore_ascii_case(name.as_ref()));
    names.iter().filter_map(named).fold(0, |parts, place| parts | 1 << place)
}

fn http<'a>(entry: &'a HttpMatch<'_>) -> Condition<'a> {
    Condition::Http {
        uri: comparison(&entry.uri),
        headers: entry.headers.iter().map(header).collect(),
        query: entry.query_params.iter().map(parameter).collect(),
    }
}

fn grpc<'a>(entry: &'a GrpcMatch<'_>) -> Condition<'a> {
    Condition::Grpc {
        service: comparison(&entry.service),
        method: comparison(&entry.method),
        authority: comparison(&entry.authority),
        metadata: entry.metadata.iter().map(header).collect(),
        without: entry.without_headers.iter().map(|name| lower(name)).collect(),
    }
}

fn comparison<'a>(condition: &'a Option<StringMatch<'_>>) -> Option<Comparison<'a>> {
    let condition = condition.as_ref()?;
    let set = |text: &'a Option<Text<'_>>| Some(content(text)).filter(|text| !text.is_empty());
    set(&condition.exact)
        .map(Comparison::Exact)
        .or_else(|| set(&condition.prefix).map(Comparison::Prefix))
        .or_else(|| set(&condition.regex).map(Comparison::Regex))
}

fn header<'a>(condition: &'a NamedMatch<'_>) -> Named<'a> {
    Named {
        name: lower(&condition.name),
        exact: content(&condition.exact),
        prefix: content(&condition.prefix),
        regex: content(&condition.regex),
        present: condition.present.unwrap_or_default(),
        absent: condition.absent.unwrap_or_default(),
    }
}

fn parameter<'a>(condition: &'a QueryParamMatch<'_>) -> Named<'a> {
    Named {
        name: condition.name.as_ref().into(),
        exact: content(&condition.exact),
        regex: content(&condition.regex),
        present: condition.present.unwrap_or_default(),
        ..Named::default()
    }
}

/// Empty when absent.
fn content<'a>(text: &'a Option<Text<'_>>) -> &'a str {
    text.as_ref().map_or("", AsRef::as_ref)
}

/// Names of headers have no case.
fn lower<'a>(name: &'a Text<'_>) -> Cow<'a, str> {
    let name = name.as_ref();
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

impl fmt::Display for Condition<'_> {
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

fn describe(f: &mut fmt::Formatter<'_>, name: &str, comparison: &Option<Comparison<'_>>) -> fmt::Result {
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
