//! Conversion between the versions of a resource.
//!
//! Custom resources know the conversion strategy `None`: only `apiVersion` changes. Events are the one built-in with
//! two shapes, in two groups; they are kept in the older one.

use serde_json::{Map, Value};

use super::{Builtin, Resource};

/// Brings an object, in whatever version of the resource, into version `version`.
pub fn convert(resource: &Resource, version: usize, mut value: Value) -> Value {
    let wanted = resource.api_version(version);
    if value.get("apiVersion").and_then(Value::as_str) == Some(&wanted) {
        return value;
    }
    if resource.builtin == Some(Builtin::Event) {
        rename_event_fields(&mut value, wanted == "v1");
    }
    if let Some(object) = value.as_object_mut() {
        object.insert("apiVersion".into(), wanted.into());
    }
    value
}

/// Brings an object into the version it is stored in.
pub fn to_storage(resource: &Resource, value: Value) -> Value {
    if resource.builtin == Some(Builtin::Event) {
        let mut value = value;
        if value.get("apiVersion").and_then(Value::as_str) != Some("v1") {
            rename_event_fields(&mut value, true);
            if let Some(object) = value.as_object_mut() {
                object.insert("apiVersion".into(), "v1".into());
            }
        }
        return value;
    }
    convert(resource, resource.storage, value)
}

/// Field names in v1 and in events.k8s.io/v1.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename_event_fields(value: &mut Value, to_core: bool) {
    let Some(object) = value.as_object_mut() else { return };
    let mut renamed = Map::new();
    for (key, value) in std::mem::take(object) {
        let pair = EVENT_FIELDS.iter().find(|(core, new)| key == if to_core { *new } else { *core });
        let key = pair.map_or(key, |(core, new)| (if to_core { *core } else { *new }).to_owned());
        renamed.insert(key, value);
    }
    *object = renamed;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    #[test]
    fn events_keep_their_content_in_both_shapes() {
        let registry = Registry::builtin();
        let (new, _) = registry.find("events.k8s.io", "v1", "events").unwrap();
        let sent = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "text",
            "regarding": {"name": "a"}, "reportingController": "c", "action": "x"});
        let stored = to_storage(&new, sent.clone());
        assert_eq!(
            stored,
            json!({"apiVersion": "v1", "kind": "Event", "message": "text", "involvedObject": {"name": "a"},
                "reportingComponent": "c", "action": "x"})
        );
        assert_eq!(convert(&new, 0, stored), sent);
    }
}
