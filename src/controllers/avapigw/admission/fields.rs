//! A spec by paths into it (JSON pointers), as rules of admission look at it: what is of
//! another type than the schema has counts as not there, since decoding says that.

use std::time::Duration;

use flotilla_api::validation::parse_go_duration;
use serde_json::Value;

/// Whether a part has `enabled: true`.
pub(super) fn is_on(spec: &Value, path: &str) -> bool {
    spec.pointer(&format!("{path}/enabled")) == Some(&Value::Bool(true))
}

/// Whether a text is there, and is not empty, which is the same to gateways.
pub(super) fn is_set(spec: &Value, path: &str) -> bool {
    !text(spec, path).is_empty()
}

/// A text; empty when there is none.
pub(super) fn text<'s>(spec: &'s Value, path: &str) -> &'s str {
    spec.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// A number.
pub(super) fn number(spec: &Value, path: &str) -> Option<i64> {
    spec.pointer(path)?.as_i64()
}

/// A duration that gateways can parse.
pub(super) fn duration(spec: &Value, path: &str) -> Option<Duration> {
    parse_go_duration(spec.pointer(path)?.as_str()?).ok()
}

/// The elements of a list, each with its path.
pub(super) fn each<'s>(spec: &'s Value, path: &str) -> impl Iterator<Item = (String, &'s Value)> + use<'s> {
    let list = spec.pointer(path).and_then(Value::as_array);
    let path = path.to_owned();
    list.into_iter().flatten().enumerate().map(move |(index, value)| (format!("{path}/{index}"), value))
}

/// `/a/0/b` as people write it: `spec.a[0].b`.
pub(super) fn dotted(path: &str) -> String {
    let mut text = "spec".to_owned();
    for step in path.split('/').filter(|step| !step.is_empty()) {
        match step.parse::<usize>() {
            Ok(index) => text.push_str(&format!("[{index}]")),
            Err(_) => text.push_str(&format!(".{step}")),
        }
    }
    text
}
