//! What admission asks for beyond what gateways need (A-28, A-29, A-51, A-54,
//! A-96), and what it warns of. By paths into the spec: each rule is
//! about one or two fields.

use std::time::Duration;

use flotilla_api::validation::parse_go_duration;
use flotilla_core::ids::Kind;
use flotilla_core::object::RawObject;
use serde_json::Value;

use super::{Refusal, Verdict};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Judges a spec that gateways could take.
pub(super) fn check(object: &RawObject, verdict: &mut Verdict) {
    let spec: Value = match serde_json::from_slice(&object.spec) {
        Ok(spec) => spec,
        // Deeper than any spec is.
        Err(error) => return verdict.refusals.push(Refusal::new("spec", format!("cannot be read: {error}"))),
    };
    let mut say = |path: &str, problem: String| verdict.refusals.push(Refusal::new(dotted(path), problem));
    if object.kind.is_route() {
        route(&spec, &mut say);
    } else {
        backend(&spec, &mut say);
    }
    warn(object.kind, &spec, &mut verdict.warnings);
}

fn route(spec: &Value, say: &mut impl FnMut(&str, String)) {
    within(spec, "/timeout", SECOND, DAY, say);
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
    vault(spec, say);
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

fn backend(spec: &Value, say: &mut impl FnMut(&str, String)) {
    within(spec, "/healthCheck/interval", SECOND, Duration::MAX, say);
    within(spec, "/circuitBreaker/timeout", SECOND, Duration::MAX, say);
    let set = |path| duration(spec, path).filter(|value| !value.is_zero());
    if let (Some(interval), Some(timeout)) = (set("/healthCheck/interval"), set("/healthCheck/timeout"))
        && timeout >= interval
    {
        say("/healthCheck/timeout", format!("{timeout:?} is not below the interval {interval:?}; lower it"));
    }
    vault(spec, say);
}

fn vault(spec: &Value, say: &mut impl FnMut(&str, String)) {
    const VAULT: &str = "/tls/vault";
    for field in ["pkiMount", "role"] {
        if is_on(spec, VAULT) && !is_set(spec, &format!("{VAULT}/{field}")) {
            say(VAULT, format!("is enabled without {field}; set it"));
        }
    }
}

fn warn(kind: Kind, spec: &Value, warnings: &mut Vec<String>) {
    let secrets: &[&str] = if kind.is_route() {
        &["/authentication/jwt/secret"]
    } else {
        &[
            "/authentication/jwt/staticToken",
            "/authentication/jwt/oidc/clientSecret",
            "/authentication/basic/password",
        ]
    };
    let plain = |path: &str| {
        format!("{} is a secret in plain text, readable for all who may read this object", dotted(path))
    };
    warnings.extend(secrets.iter().filter(|path| is_set(spec, path)).map(|path| plain(path)));
    let providers = spec.pointer("/authentication/oidc/providers").and_then(Value::as_array);
    for index in 0..providers.map_or(0, Vec::len) {
        let path = format!("/authentication/oidc/providers/{index}/clientSecret");
        if is_set(spec, &path) {
            warnings.push(plain(&path));
        }
    }
    if kind.is_route() && is_on(spec, "/authentication/mtls") && !is_set(spec, "/authentication/mtls/caFile")
    {
        warnings.push(
            "spec.authentication.mtls has no caFile: which clients are believed is up to the gateway".into(),
        );
    }
    if !kind.is_route() && is_on(spec, "/cache") {
        warnings.push("spec.cache of backends is ignored by gateways; set it in routes".into());
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

fn duration(spec: &Value, path: &str) -> Option<Duration> {
    parse_go_duration(spec.pointer(path)?.as_str()?).ok()
}

fn is_on(spec: &Value, path: &str) -> bool {
    spec.pointer(&format!("{path}/enabled")) == Some(&Value::Bool(true))
}

fn is_set(spec: &Value, path: &str) -> bool {
    spec.pointer(path).and_then(Value::as_str).is_some_and(|text| !text.is_empty())
}

/// `/a/0/b` as people write it: `spec.a[0].b`.
fn dotted(path: &str) -> String {
    let mut text = "spec".to_owned();
    for step in path.split('/').filter(|step| !step.is_empty()) {
        match step.parse::<usize>() {
            Ok(index) => text.push_str(&format!("[{index}]")),
            Err(_) => text.push_str(&format!(".{step}")),
        }
    }
    text
}
