//! Hosts of rules and of TLS: which may be, and which requests they mean.
//!
//! As Kubernetes has it: a wildcard stands for exactly one label, the first.

use serde_json::{Value, json};

const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// What is wrong with a host, if anything.
pub(super) fn problem(host: &str) -> Option<&'static str> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if host.len() > LONGEST_NAME {
        return Some("is longer than 253 characters");
    }
    if name.contains('*') {
        return Some("has a wildcard that is not the whole first label");
    }
    let bytes = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inside)
    };
    for label in name.split('.') {
        if label.len() > LONGEST_LABEL {
            return Some("has a label of more than 63 characters");
        }
        if !bytes(label) {
            return Some("is no DNS name in lower case");
        }
    }
    None
}

/// Whether requests for `host` are for `pattern`, too.
pub(super) fn covers(pattern: &str, host: &str) -> bool {
    let one_label =
        |rest: &str| host.split_once('.').is_some_and(|(first, of_host)| first != "*" && of_host == rest);
    pattern == host || pattern.strip_prefix("*.").is_some_and(one_label)
}

/// The condition that a host's requests fulfil: `exact` or `regex`.
pub(super) fn condition(host: &str) -> Value {
    match host.strip_prefix("*.") {
        None => json!({"exact": host}),
        Some(rest) => json!({"regex": format!("^[^.]+\\.{}$", rest.replace('.', "\\."))}),
    }
}
