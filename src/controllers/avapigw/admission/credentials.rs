//! What a gateway shows to whom it connects to must be there: certificates of `tls`, and
//! what `authentication` of backends sends. Gateways look at nothing that is
//! switched off.

use serde_json::Value;

use super::fields::{is_on, is_set, text};

/// Checks `tls` and `authentication` of a backend, or of a target of requests that fan
/// out, which stands at `at`.
pub(super) fn of_backend(spec: &Value, at: &str, say: &mut impl FnMut(&str, String)) {
    let tls = format!("{at}/tls");
    let lacking = ["certFile", "keyFile"].iter().any(|file| !is_set(spec, &format!("{tls}/{file}")));
    if is_on(spec, &tls)
        && text(spec, &format!("{tls}/mode")) == "MUTUAL"
        && lacking
        && !is_on(spec, &format!("{tls}/vault"))
    {
        say(
            &tls,
            "has mode MUTUAL and no certificate to show; set certFile and keyFile, or enable vault".into(),
        );
    }
    vault(spec, &format!("{tls}/vault"), say);
    authentication(spec, &format!("{at}/authentication"), say);
}

/// Checks where a certificate comes from that Vault issues.
pub(super) fn vault(spec: &Value, at: &str, say: &mut impl FnMut(&str, String)) {
    for field in ["pkiMount", "role"] {
        if is_on(spec, at) && !is_set(spec, &format!("{at}/{field}")) {
            say(at, format!("is enabled without {field}; set it"));
        }
    }
}

fn authentication(spec: &Value, at: &str, say: &mut impl FnMut(&str, String)) {
    let kind = text(spec, &format!("{at}/type"));
    // Another type is what the schema refuses.
    if !["jwt", "basic", "mtls"].contains(&kind) {
        return;
    }
    let method = format!("{at}/{kind}");
    if !spec.pointer(&method).is_some_and(Value::is_object) {
        return say(at, format!("has type {kind} without {kind}; set {kind}, or another type"));
    }
    if !is_on(spec, &method) {
        return;
    }
    let set = |field: &str| is_set(spec, &format!("{method}/{field}"));
    match kind {
        "jwt" => {
            let source = text(spec, &format!("{method}/tokenSource"));
            let (field, there) = match source {
                "static" => ("staticToken", set("staticToken")),
                "vault" => ("vaultPath", set("vaultPath")),
                "oidc" => ("oidc", spec.pointer(&format!("{method}/oidc")).is_some_and(Value::is_object)),
                _ => return,
            };
            if !there {
                let remedy = format!("set {field}, or another tokenSource");
                say(&method, format!("has tokenSource {source} without {field}; {remedy}"));
            }
        }
        "basic" if !(set("username") && set("password") || set("vaultPath")) => {
            say(&method, "has nothing to log in with; set username and password, or vaultPath".to_owned());
        }
        "mtls" => {
            let vaulted = format!("{method}/vault");
            if !(set("certFile") && set("keyFile") || is_on(spec, &vaulted)) {
                say(
                    &method,
                    "has no certificate to show; set certFile and keyFile, or enable vault".to_owned(),
                );
            }
            vault(spec, &vaulted, say);
        }
        _ => {}
    }
}
