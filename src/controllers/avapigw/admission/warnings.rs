//! What a writer should know of an object that is admitted all the same.

use flotilla_core::ids::Kind;
use serde_json::Value;

use super::fields::{dotted, each, is_on, is_set, text};
use super::{WARNINGS, credentials};

/// Secrets of whom a gateway connects to, below an `authentication`.
const TO_BACKENDS: [&str; 3] = ["/jwt/staticToken", "/jwt/oidc/clientSecret", "/basic/password"];

/// Where a Redis is named, in any kind.
const STORES: [&str; 6] = [
    "/cache",
    "/cache/redis",
    "/rateLimit/redis",
    "/authorization/cache",
    "/authorization/cache/redis",
    "/aggregate/spool/redisRef",
];

/// Passwords of one.
const OF_STORES: [&str; 3] = ["/password", "/sentinel/password", "/sentinel/sentinelPassword"];

/// Adds what is to be said of a spec.
pub(super) fn add(kind: Kind, spec: &Value, warnings: &mut Vec<String>) {
    let plain = |path: String| {
        format!("{} is a secret in plain text, readable for all who may read this object", dotted(&path))
    };
    let there = |path: &String| is_set(spec, path);
    warnings.extend(secrets(kind, spec).filter(there).take(WARNINGS).map(plain));
    for store in STORES {
        let url = format!("{store}/url");
        if has_password(text(spec, &url)) {
            warnings.push(format!(
                "{} has a password in plain text, readable for all who may read this object",
                dotted(&url)
            ));
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
    // No requirement says that gateways refuse such a target.
    for (target, _) in each(spec, "/aggregate/targets").take(WARNINGS) {
        credentials::of_backend(spec, &target, &mut |path: &str, problem: String| {
            warnings.push(format!("{} {problem}", dotted(path)));
        });
    }
}

/// Where a secret may stand in a spec.
fn secrets(kind: Kind, spec: &Value) -> impl Iterator<Item = String> {
    let own: &'static [&'static str] = if kind.is_route() { &["/jwt/secret"] } else { &TO_BACKENDS };
    let own = own.iter().map(|field| format!("/authentication{field}"));
    let providers = each(spec, "/authentication/oidc/providers").map(|(at, _)| format!("{at}/clientSecret"));
    let targets = each(spec, "/aggregate/targets")
        .flat_map(|(at, _)| TO_BACKENDS.map(|field| format!("{at}/authentication{field}")));
    let stores = STORES.into_iter().flat_map(|at| OF_STORES.map(|field| format!("{at}{field}")));
    own.chain(providers).chain(targets).chain(stores)
}

/// Whether a URL is of the form `redis://USER:PASSWORD@HOST`; the user may be missing.
fn has_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, _)) = authority.rsplit_once('@') else { return false };
    user.split_once(':').is_some_and(|(_, password)| !password.is_empty())
}
