//! The annotations of an Ingress and where they stand in what it becomes: a table, and
//! reading it.
//!
//! The names are those of the published operator and of its documents. It ignores a
//! value that it cannot read, and a group of annotations whose first one is missing;
//! here the one is an error and the other a warning.

use std::collections::BTreeMap;

use flotilla_api::ingress::ANNOTATIONS;
use serde_json::{Map, Value};

use super::Fault;
use super::values::Reads;
use crate::vocabulary;

/// The protocols under which an annotation means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    Http,
    Grpc,
    Both,
}

/// Which of the things that an Ingress becomes an annotation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Route,
    Backend,
    /// The conversion itself.
    Conversion,
}

/// One annotation under one protocol.
pub(super) struct Row {
    /// Its name without the prefix.
    pub name: &'static str,
    pub on: On,
    pub part: Part,
    /// Where its value stands in the spec, as a JSON pointer; empty in rows of the
    /// conversion.
    pub at: &'static str,
    pub reads: Reads,
}

/// Annotations that mean something only together.
pub(super) struct Group {
    pub on: On,
    pub part: Part,
    /// Where they stand.
    pub at: &'static str,
    /// Without this one, or with `false`, the others have no effect.
    pub lead: &'static str,
    /// What the first one cannot do without.
    pub needs: &'static [&'static str],
}

const fn row(name: &'static str, on: On, part: Part, at: &'static str, reads: Reads) -> Row {
    Row { name, on, part, at, reads }
}

const fn group(
    on: On,
    part: Part,
    at: &'static str,
    lead: &'static str,
    needs: &'static [&'static str],
) -> Group {
    Group { on, part, at, lead, needs }
}

use On::{Both, Grpc, Http};
use Part::{Backend, Conversion, Route};

const HTTP_FAILURES: Reads = Reads::Words(vocabulary::HTTP_FAILURES);
const GRPC_FAILURES: Reads = Reads::Words(vocabulary::GRPC_FAILURES);
const TLS_VERSION: Reads = Reads::Word(&["TLS12", "TLS13"]);
const BALANCING: Reads = Reads::Spelt(vocabulary::BALANCING);
const COMPARISON: Reads = Reads::Word(&["exact", "prefix", "regex"]);

/// Gateways count in 32 bits on some machines.
const COUNT: Reads = Reads::Count(1..=2_147_483_647);
const COUNT_OR_NONE: Reads = Reads::Count(0..=2_147_483_647);
const UP_TO_TEN: Reads = Reads::Count(1..=10);

/// All of them. What an alias reads stands at the same place.
pub(super) const ROWS: &[Row] = &[
    row("protocol", Both, Conversion, "", Reads::Word(&["http", "grpc", "h2c"])),
    row("grpc-service", Grpc, Conversion, "", Reads::Text),
    row("grpc-service-match-type", Grpc, Conversion, "", COMPARISON),
    row("grpc-method", Grpc, Conversion, "", Reads::Text),
    row("grpc-method-match-type", Grpc, Conversion, "", COMPARISON),
    row("timeout", Both, Route, "/timeout", Reads::Duration),
    row("retries", Both, Route, "/retries/attempts", UP_TO_TEN),
    row("retry-attempts", Both, Route, "/retries/attempts", UP_TO_TEN),
    row("retry-per-try-timeout", Both, Route, "/retries/perTryTimeout", Reads::Duration),
    row("retry-on", Http, Route, "/retries/retryOn", HTTP_FAILURES),
    // Read for gRPC only where the next one is not there, see `RETRY_ON`.
    row("retry-on", Grpc, Route, "/retries/retryOn", GRPC_FAILURES),
    row("grpc-retry-on", Grpc, Route, "/retries/retryOn", GRPC_FAILURES),
    row("grpc-backoff-base-interval", Grpc, Route, "/retries/backoffBaseInterval", Reads::Duration),
    row("grpc-backoff-max-interval", Grpc, Route, "/retries/backoffMaxInterval", Reads::Duration),
    row("rate-limit-enabled", Both, Route, "/rateLimit/enabled", Reads::Truth),
    row("rate-limit-rps", Both, Route, "/rateLimit/requestsPerSecond", COUNT),
    row("rate-limit-burst", Both, Route, "/rateLimit/burst", COUNT),
    row("rate-limit-per-client", Both, Route, "/rateLimit/perClient", Reads::Truth),
    row("cors-allow-origins", Both, Route, "/cors/allowOrigins", Reads::List),
    row("cors-allow-methods", Both, Route, "/cors/allowMethods", Reads::Methods),
    row("cors-allow-headers", Both, Route, "/cors/allowHeaders", Reads::List),
    row("cors-expose-headers", Both, Route, "/cors/exposeHeaders", Reads::List),
    row("cors-max-age", Both, Route, "/cors/maxAge", COUNT_OR_NONE),
    row("cors-allow-credentials", Both, Route, "/cors/allowCredentials", Reads::Truth),
    row("rewrite-uri", Http, Route, "/rewrite/uri", Reads::Path),
    row("rewrite-authority", Http, Route, "/rewrite/authority", Reads::Authority),
    row("redirect-uri", Http, Route, "/redirect/uri", Reads::Text),
    row("redirect-code", Http, Route, "/redirect/code", Reads::Number(&[301, 302, 303, 307, 308])),
    row("redirect-scheme", Http, Route, "/redirect/scheme", Reads::Word(&["http", "https"])),
    row("health-check-path", Http, Backend, "/healthCheck/path", Reads::Path),
    row("health-check-interval", Http, Backend, "/healthCheck/interval", Reads::Duration),
    row("health-check-timeout", Http, Backend, "/healthCheck/timeout", Reads::Duration),
    row("health-check-healthy-threshold", Http, Backend, "/healthCheck/healthyThreshold", UP_TO_TEN),
    row("health-check-unhealthy-threshold", Http, Backend, "/healthCheck/unhealthyThreshold", UP_TO_TEN),
    row("load-balancer-algorithm", Both, Backend, "/loadBalancer/algorithm", BALANCING),
    row("load-balancer", Both, Backend, "/loadBalancer/algorithm", BALANCING),
    row("circuit-breaker-enabled", Both, Backend, "/circuitBreaker/enabled", Reads::Truth),
    row("circuit-breaker-threshold", Both, Backend, "/circuitBreaker/threshold", Reads::Count(1..=100)),
    row("circuit-breaker-timeout", Both, Backend, "/circuitBreaker/timeout", Reads::Duration),
    row("circuit-breaker-half-open", Both, Backend, "/circuitBreaker/halfOpenRequests", UP_TO_TEN),
    row("tls-min-version", Both, Route, "/tls/minVersion", TLS_VERSION),
    row("tls-max-version", Both, Route, "/tls/maxVersion", TLS_VERSION),
    row("security-enabled", Both, Route, "/security/enabled", Reads::Truth),
    row("security-x-frame-options", Both, Route, "/security/headers/xFrameOptions", Reads::Text),
    row("security-x-content-type-options", Both, Route, "/security/headers/xContentTypeOptions", Reads::Text),
    row("security-x-xss-protection", Both, Route, "/security/headers/xXSSProtection", Reads::Text),
    row("encoding-request-content-type", Both, Route, "/encoding/request/contentType", Reads::MediaType),
    row("encoding-response-content-type", Both, Route, "/encoding/response/contentType", Reads::MediaType),
    row("cache-enabled", Both, Route, "/cache/enabled", Reads::Truth),
    row("cache-ttl", Both, Route, "/cache/ttl", Reads::Duration),
    row("max-sessions-enabled", Both, Route, "/maxSessions/enabled", Reads::Truth),
    row("max-sessions-max-concurrent", Both, Route, "/maxSessions/maxConcurrent", COUNT),
    row("max-sessions-queue-size", Both, Route, "/maxSessions/queueSize", COUNT_OR_NONE),
    row("max-sessions-queue-timeout", Both, Route, "/maxSessions/queueTimeout", Reads::Duration),
    row("max-body-size", Both, Route, "/requestLimits/maxBodySize", Reads::Count(1..=i64::MAX)),
    row("auth-enabled", Both, Route, "/authentication/enabled", Reads::Truth),
    row("auth-type", Both, Route, AUTH_TYPE, Reads::Word(&["jwt", "apiKey", "mtls"])),
    row("grpc-health-check-enabled", Grpc, Backend, "/healthCheck/enabled", Reads::Truth),
    row("grpc-health-check-service", Grpc, Backend, "/healthCheck/service", Reads::MaybeText),
    row("grpc-health-check-interval", Grpc, Backend, "/healthCheck/interval", Reads::Duration),
    row("grpc-health-check-timeout", Grpc, Backend, "/healthCheck/timeout", Reads::Duration),
    row("grpc-health-check-healthy-threshold", Grpc, Backend, "/healthCheck/healthyThreshold", UP_TO_TEN),
    row("grpc-health-check-unhealthy-threshold", Grpc, Backend, "/healthCheck/unhealthyThreshold", UP_TO_TEN),
    row("grpc-max-idle-conns", Grpc, Backend, "/connectionPool/maxIdleConns", COUNT),
    row("grpc-max-conns-per-host", Grpc, Backend, "/connectionPool/maxConnsPerHost", COUNT),
    row("grpc-idle-conn-timeout", Grpc, Backend, "/connectionPool/idleConnTimeout", Reads::Duration),
];

/// Where the kind of authentication is kept until it is spelt out, see `spell_out`.
const AUTH_TYPE: &str = "/authentication/type";

const GROUPS: &[Group] = &[
    group(Both, Route, "/rateLimit", "rate-limit-enabled", &["rate-limit-rps", "rate-limit-burst"]),
    group(Both, Route, "/cors", "cors-allow-origins", &[]),
    group(Http, Route, "/redirect", "redirect-uri", &[]),
    group(Http, Backend, "/healthCheck", "health-check-path", &[]),
    group(Grpc, Backend, "/healthCheck", "grpc-health-check-enabled", &[]),
    group(
        Both,
        Backend,
        "/circuitBreaker",
        "circuit-breaker-enabled",
        &["circuit-breaker-threshold", "circuit-breaker-timeout"],
    ),
    group(Both, Route, "/security", "security-enabled", &[]),
    group(Both, Route, "/cache", "cache-enabled", &[]),
    group(Both, Route, "/maxSessions", "max-sessions-enabled", &["max-sessions-max-concurrent"]),
    group(Both, Route, "/authentication", "auth-enabled", &["auth-type"]),
];

/// What the published operator writes back: says nothing about the Ingress.
const BOOKKEEPING: [&str; 2] = ["applied-routes", "observed-generation"];

/// How often a request is tried again when only the rest is said.
const ATTEMPTS: i64 = 3;

impl On {
    pub(super) fn covers(self, grpc: bool) -> bool {
        match self {
            On::Both => true,
            On::Grpc => grpc,
            On::Http => !grpc,
        }
    }
}

/// The annotations of an Ingress, read.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    /// Whether routes and backends are those of gRPC.
    pub grpc: bool,
    /// What every route's spec has.
    pub route: Map<String, Value>,
    /// What every backend's spec has.
    pub backend: Map<String, Value>,
    /// What the `tls` of routes has besides its hosts.
    pub tls: Map<String, Value>,
    /// How services and methods of gRPC are compared.
    pub service: Option<(String, String)>,
    /// As `service`.
    pub method: Option<(String, String)>,
    /// What has no effect, or is unknown.
    pub warnings: Vec<String>,
}

/// An annotation's name as it stands in an object.
pub(super) fn full(name: &str) -> String {
    format!("{ANNOTATIONS}{name}")
}

/// The field of an annotation.
pub(super) fn field(name: &str) -> String {
    format!("metadata.annotations[{}]", full(name))
}

/// Whether an annotation says something about the Ingress: all of this family but those
/// that the published operator keeps its books in.
pub(super) fn is_ours(name: &str) -> bool {
    name.strip_prefix(ANNOTATIONS).is_some_and(|name| !BOOKKEEPING.contains(&name))
}

/// The annotation that a field of a route's or backend's spec comes from, for example
/// `timeout` for `spec.timeout`.
pub(super) fn origin<'a>(given: &'a Given<'_>, grpc: bool, part: Part, field: &str) -> Option<&'a str> {
    let pointer = field.strip_prefix("spec")?.replace('.', "/");
    let there = |row: &&Row| row.part == part && row.on.covers(grpc) && given.contains_key(row.name);
    let exact = || ROWS.iter().filter(there).find(|row| row.at == pointer);
    // What is said of a whole group is the business of its first annotation.
    let within = || ROWS.iter().filter(there).find(|row| row.at.starts_with(&format!("{pointer}/")));
    exact().or_else(within).map(|row| row.name)
}

/// Annotations by their names without the prefix.
pub(super) type Given<'a> = BTreeMap<&'a str, &'a str>;

/// Those of this family, without the books of the published operator.
pub(super) fn given(annotations: &BTreeMap<String, String>) -> Given<'_> {
    let ours = annotations.iter().filter(|(name, _)| is_ours(name));
    ours.filter_map(|(name, value)| Some((name.strip_prefix(ANNOTATIONS)?, value.as_str()))).collect()
}

/// Reads them all. A value is checked also where it has no effect.
pub(super) fn read(given: &Given<'_>, faults: &mut Vec<Fault>) -> Annotations {
    let protocol = given.get("protocol").copied();
    let grpc = protocol == Some("grpc");
    let mut read = Annotations { grpc, ..Annotations::default() };
    if protocol == Some("h2c") {
        read.warnings.push(format!(
            "{}: gateways have no setting for h2c; what is made is that of http",
            field("protocol")
        ));
    }
    let mut conversion = Map::new();
    for (name, value) in given {
        let mut rows = ROWS.iter().filter(|row| row.name == *name);
        let Some(any) = rows.clone().next() else {
            let nearest = nearest(name);
            read.warnings.push(format!(
                "{} is unknown and has no effect; the nearest is {}",
                field(name),
                full(nearest)
            ));
            continue;
        };
        let Some(row) = rows.find(|row| row.on.covers(grpc)) else {
            let needed = if any.on == Grpc { "needs avapigw.io/protocol: grpc" } else { "is not for gRPC" };
            read.warnings.push(format!("{} has no effect: it {needed}", field(name)));
            // Wrong all the same.
            let _ = value_of(any, value, faults);
            continue;
        };
        if grpc && row.name == "retry-on" && given.contains_key("grpc-retry-on") {
            continue; // only stands in for that one
        }
        let Some(value) = value_of(row, value, faults) else { continue };
        let into = match row.part {
            Route => &mut read.route,
            Backend => &mut read.backend,
            Conversion => {
                conversion.insert(row.name.to_owned(), value);
                continue;
            }
        };
        let steps: Vec<&str> = row.at.split('/').skip(1).collect();
        if let Some(other) = put(into, &steps, value) {
            let alias = ROWS
                .iter()
                .find(|other| other.at == row.at && other.part == row.part && other.name != row.name);
            let alias = alias.map_or("another one", |alias| alias.name);
            faults.push(Fault::of_annotation(
                row.name,
                given.get(row.name).copied().unwrap_or_default(),
                format!("says something else than {}, which is {other}", full(alias)),
                "keep one of the two",
            ));
        }
    }
    groups(given, &mut read, faults);
    spell_out(given, &mut read, faults);
    if let Some(Value::Object(tls)) = read.route.remove("tls") {
        read.tls = tls;
    }
    let mut compared = |name: &str| {
        let text = |name: &str| conversion.get(name).and_then(Value::as_str).map(str::to_owned);
        let kind = format!("{name}-match-type");
        let how = text(&kind);
        if how.is_some() && text(name).is_none() {
            read.warnings.push(format!("{} has no effect without {}", field(&kind), full(name)));
        }
        text(name).map(|value| (how.unwrap_or_else(|| "prefix".to_owned()), value))
    };
    (read.service, read.method) = (compared("grpc-service"), compared("grpc-method"));
    read
}

fn value_of(row: &Row, text: &str, faults: &mut Vec<Fault>) -> Option<Value> {
    row.reads
        .read(text)
        .map_err(|bad| faults.push(Fault::of_annotation(row.name, text, bad.problem, bad.remedy)))
        .ok()
}

/// Puts a value in place; returns what stood there if it was something else.
fn put(into: &mut Map<String, Value>, steps: &[&str], value: Value) -> Option<Value> {
    match steps {
        [] => None,
        [last] => {
            let differs = into.get(*last).filter(|other| **other != value).cloned();
            into.insert((*last).to_owned(), value);
            differs
        }
        [first, rest @ ..] => {
            let within = into.entry((*first).to_owned()).or_insert_with(|| Value::Object(Map::new()));
            within.as_object_mut().and_then(|within| put(within, rest, value))
        }
    }
}

/// Takes out the groups that are not switched on, and asks for what the others need.
fn groups(given: &Given<'_>, read: &mut Annotations, faults: &mut Vec<Fault>) {
    for group in GROUPS.iter().filter(|group| group.on.covers(read.grpc)) {
        let spec = if group.part == Route { &mut read.route } else { &mut read.backend };
        let Some(lead) = given.get(group.lead) else {
            if spec.remove(&group.at[1..]).is_some() {
                let inside = ROWS.iter().filter(|row| {
                    row.at.starts_with(group.at) && row.part == group.part && row.on.covers(read.grpc)
                });
                let idle = inside.filter(|row| given.contains_key(row.name));
                read.warnings.extend(
                    idle.map(|row| format!("{} has no effect without {}", field(row.name), full(group.lead))),
                );
            }
            continue;
        };
        let switch = spec.get(&group.at[1..]).and_then(|spec| spec.get("enabled"));
        if switch == Some(&Value::Bool(false)) {
            spec.remove(&group.at[1..]);
            continue;
        }
        for needed in group.needs.iter().filter(|needed| !given.contains_key(*needed)) {
            let problem = format!("needs {}", full(needed));
            faults.push(Fault::of_annotation(group.lead, lead, problem, format!("set {}", full(needed))));
        }
    }
}

/// Adds what goes without saying.
fn spell_out(given: &Given<'_>, read: &mut Annotations, faults: &mut Vec<Fault>) {
    if let Some(Value::Object(retries)) = read.route.get_mut("retries") {
        retries.entry("attempts").or_insert_with(|| Value::from(ATTEMPTS));
    }
    if let Some(Value::Object(headers)) = read.route.get_mut("security").and_then(|it| it.get_mut("headers"))
    {
        headers.insert("enabled".to_owned(), Value::Bool(true));
    }
    if let Some(Value::Object(authentication)) = read.route.get_mut("authentication")
        && let Some(Value::String(method)) = authentication.remove("type")
    {
        if method == "jwt" {
            // Served as it is, the route would be open or closed to everybody.
            let value = given.get("auth-type").copied().unwrap_or_default();
            let problem = "needs a key to check tokens with, which no annotation gives";
            faults.push(Fault::of_annotation(
                "auth-type",
                value,
                problem,
                "write an APIRoute or GRPCRoute instead",
            ));
        }
        authentication.insert(method, serde_json::json!({"enabled": true}));
    }
}

/// The known annotation that differs least from a name.
pub(super) fn nearest(name: &str) -> &'static str {
    // A very long name is not near anything; comparing costs its length times theirs.
    let name: Vec<char> = name.chars().take(64).collect();
    let names = ROWS.iter().map(|row| row.name);
    names.min_by_key(|known| distance(&name, known)).unwrap_or_default()
}

/// How many characters have to be put in, left out or changed (Levenshtein 1966).
fn distance(one: &[char], other: &str) -> usize {
    let mut row: Vec<usize> = (0..=one.len()).collect();
    for (line, there) in other.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, here) in one.iter().enumerate() {
            let changed = diagonal + usize::from(*here != there);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[one.len()]
}
