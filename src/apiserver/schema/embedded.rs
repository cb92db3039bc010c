//! Resources inside of resources (`x-kubernetes-embedded-resource`): they must say what they are.

use super::cause::Cause;
use super::node::{Additional, Node};
use serde_json::{Map, Value};

/// Longest DNS label.
const MAX_LABEL: usize = 63;

/// Reports every embedded resource that lacks a usable `apiVersion` or `kind`.
pub(super) fn check(object: &Value, root: &Node) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(object, root, "", &mut causes);
    causes
}

fn walk(value: &Value, node: &Node, path: &str, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(map) => {
            if node.embedded {
                api_version(map, path, causes);
                kind(map, path, causes);
            }
            for (name, value) in map {
                match (node.properties.get(name), &node.additional) {
                    (Some(property), _) => walk(value, property, &child(path, name), causes),
                    (None, Additional::Schema(values)) => {
                        walk(value, values, &format!("{path}[{name}]"), causes)
                    }
                    (None, Additional::Unset | Additional::Any | Additional::Denied) => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = node.items.as_deref() {
                for (index, item) in items.iter().enumerate() {
                    walk(item, node, &format!("{path}[{index}]"), causes);
                }
            }
        }
        _ => {}
    }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The text of a field that must be there, after reporting that it is missing, empty or no text.
fn required<'a>(
    map: &'a Map<String, Value>,
    name: &str,
    path: &str,
    causes: &mut Vec<Cause>,
) -> Option<&'a str> {
    let place = child(path, name);
    match map.get(name) {
        None => causes.push(Cause::required(place, "")),
        Some(Value::String(text)) if text.is_empty() => {
            causes.push(Cause::invalid(place, &Value::from(""), "must not be empty"));
        }
        Some(Value::String(text)) => return Some(text),
        Some(other) => causes.push(Cause::invalid(place, other, "must be a string")),
    }
    None
}

fn api_version(map: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    if let Some(text) = required(map, "apiVersion", path, causes)
        && text.matches('/').count() > 1
    {
        let why = format!("unexpected GroupVersion string: {text}");
        causes.push(Cause::invalid(child(path, "apiVersion"), &text.into(), &why));
    }
}

fn kind(map: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    let Some(text) = required(map, "kind", path, causes) else { return };
    let mut why = Vec::new();
    if text.len() > MAX_LABEL {
        why.push("must be no more than 63 characters");
    }
    let lower = text.to_lowercase();
    let label = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && lower.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !label {
        why.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
             validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        );
    }
    if !why.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", why.join(","));
        causes.push(Cause::invalid(child(path, "kind"), &text.into(), &why));
    }
}
