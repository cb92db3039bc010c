//! What admission asks for beyond what gateways need (A-10, A-13, A-25, A-28, A-29, A-42,
//! A-51 … ). By paths into the spec: each rule is about one or two fields.
//!
//! None of these says anything of what is served: the published operator may have admitted
//! an object that they refuse, and gateways go on with it.

use std::ops::RangeInclusive;
use std::time::Duration;

use flotilla_core::ids::Kind;
use flotilla_core::object::RawObject;
use serde_json::Value;

use super::fields::{dotted, duration, each, is_on, is_set, number, text};
use super::{Refusal, Verdict, credentials, warnings};
use crate::vocabulary::{GRPC_FAILURES, GRPC_RETRIED, HTTP_FAILURES, METHODS};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Wrong elements of one list that an answer names.
const NAMED: usize = 8;

/// Characters of a value that an answer repeats.
const QUOTED: usize = 40;

/// Judges a spec, as far as it can be read, whether gateways could take it or not.
pub(super) fn check(object: &RawObject, verdict: &mut Verdict) {
    let spec: Value = match serde_json::from_slice(&object.spec) {
        Ok(spec) => spec,
        // Deeper than any spec is.
        Err(error) => return verdict.refusals.push(Refusal::new("spec", format!("cannot be read: {error}"))),
    };
    let mut say = |path: &str, problem: String| verdict.refusals.push(Refusal::new(dotted(path), problem));
    if object.kind.is_route() {
        route(object.kind, &spec, &mut say, &mut verdict.warnings);
    } else {
        backend(&spec, &mut say);
    }
    warnings::add(object.kind, &spec, &mut verdict.warnings);
}

fn route(kind: Kind, spec: &Value, say: &mut impl FnMut(&str, String), warnings: &mut Vec<String>) {
    within(spec, "/timeout", SECOND, DAY, say);
    if kind == Kind::ApiRoute {
        methods(spec, say);
    }
    retries(kind, spec, say, warnings);
    const AGE: &str = "/cors/maxAge";
    if let Some(age) = number(spec, AGE).filter(|age| *age < 0) {
        say(AGE, format!("is {age}; give seconds, 0 or more"));
    }
    const AUTHENTICATION: &str = "/authentication";
    let methods = ["jwt", "apiKey", "mtls", "oidc"];
    if is_on(spec, AUTHENTICATION)
        && !methods.iter().any(|method| is_on(spec, &format!("{AUTHENTICATION}/{method}")))
    {
        say(AUTHENTICATION, "is enabled without a method; enable jwt, apiKey, mtls or oidc".to_owned());
    }
    const JWT: &str = "/authentication/jwt";
    let keys = ["jwksUrl", "secret", "publicKey"];
    if is_on(spec, AUTHENTICATION)
        && is_on(spec, JWT)
        && !keys.iter().any(|key| is_set(spec, &format!("{JWT}/{key}")))
    {
        say(JWT, "has no key to check tokens with; set jwksUrl, secret or publicKey".to_owned());
    }
    const CLIENTS: &str = "/tls/clientValidation";
    if is_on(spec, CLIENTS) && !is_set(spec, &format!("{CLIENTS}/caFile")) {
        say(CLIENTS, "is enabled without caFile; name the file with the authority of clients".to_owned());
    }
    credentials::vault(spec, "/tls/vault", say);
    const RESPONSE: &str = "/transform/response";
    let listed = |name: &str| {
        spec.pointer(&format!("{RESPONSE}/{name}"))
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
    };
    if listed("allowFields") && listed("denyFields") {
        say(RESPONSE, "has both allowFields and denyFields; keep one of them".to_owned());
    }
}

/// One that nobody sends matches no request, and a route with no other serves nothing.
fn methods(spec: &Value, say: &mut impl FnMut(&str, String)) {
    let entries = each(spec, "/match");
    let named = entries.flat_map(|(entry, _)| each(spec, &format!("{entry}/methods")));
    let known = |method: &str| METHODS.iter().any(|known| known.eq_ignore_ascii_case(method));
    let wrong = named.filter_map(|(path, method)| Some((path, method.as_str()?)));
    for (path, method) in wrong.filter(|(_, method)| !known(method)).take(NAMED) {
        say(&path, format!("is {}, no method of HTTP; give one of {}", quoted(method), METHODS.join(", ")));
    }
}

/// Conditions that gateways do not know never hold.
fn retries(kind: Kind, spec: &Value, say: &mut impl FnMut(&str, String), warnings: &mut Vec<String>) {
    const ON: &str = "/retries/retryOn";
    if !is_set(spec, ON) {
        return;
    }
    let (allowed, heeded) = match kind {
        Kind::GrpcRoute => (GRPC_FAILURES, GRPC_RETRIED),
        _ => (HTTP_FAILURES, HTTP_FAILURES),
    };
    let conditions = || text(spec, ON).split(',').map(str::trim);
    if let Some(wrong) = conditions().find(|condition| !allowed.contains(condition)) {
        let remedy = format!("give some of {}, separated by commas", heeded.join(", "));
        say(ON, format!("has {}, which is no condition for trying again; {remedy}", quoted(wrong)));
    } else if let Some(other) = conditions().find(|condition| !heeded.contains(condition)) {
        warnings.push(format!(
            "{} has {other:?}: gateways are only known to try again on {}",
            dotted(ON),
            heeded.join(", ")
        ));
    }
}

fn backend(spec: &Value, say: &mut impl FnMut(&str, String)) {
    // Gateways look at nothing that is switched off. Only health checks of gRPC can be.
    if spec.pointer("/healthCheck/enabled") != Some(&Value::Bool(false)) {
        health_check(spec, say);
    }
    if is_on(spec, "/circuitBreaker") {
        within(spec, "/circuitBreaker/timeout", SECOND, Duration::MAX, say);
        bounded(spec, "/circuitBreaker/threshold", 1..=100, say);
        bounded(spec, "/circuitBreaker/halfOpenRequests", 1..=10, say);
    }
    credentials::of_backend(spec, "", say);
}

fn health_check(spec: &Value, say: &mut impl FnMut(&str, String)) {
    within(spec, "/healthCheck/interval", SECOND, Duration::MAX, say);
    let set = |path| duration(spec, path).filter(|value| !value.is_zero());
    if let (Some(interval), Some(timeout)) = (set("/healthCheck/interval"), set("/healthCheck/timeout"))
        && timeout >= interval
    {
        say("/healthCheck/timeout", format!("{timeout:?} is not below the interval {interval:?}; lower it"));
    }
    const PATH: &str = "/healthCheck/path";
    if is_set(spec, PATH) && !text(spec, PATH).starts_with('/') {
        let path = quoted(text(spec, PATH));
        say(PATH, format!("is {path}, which does not begin with /; give a path, for example /health"));
    }
    bounded(spec, "/healthCheck/healthyThreshold", 1..=10, say);
    bounded(spec, "/healthCheck/unhealthyThreshold", 1..=10, say);
}

/// Refuses a number outside of bounds.
fn bounded(spec: &Value, path: &str, range: RangeInclusive<i64>, say: &mut impl FnMut(&str, String)) {
    if let Some(count) = number(spec, path).filter(|count| !range.contains(count)) {
        say(path, format!("is {count}; give a number from {} to {}", range.start(), range.end()));
    }
}

/// Refuses a duration outside of bounds; zero stands for none.
fn within(spec: &Value, path: &str, least: Duration, most: Duration, say: &mut impl FnMut(&str, String)) {
    match duration(spec, path) {
        Some(value) if !value.is_zero() && value < least => {
            say(path, format!("{value:?} is too short; use at least {least:?}"));
        }
        Some(value) if value > most => say(path, format!("{value:?} is too long; use at most {most:?}")),
        _ => {}
    }
}

fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(QUOTED).collect::<String>())
}
