//! One stored revision of an object.
//!
//! An object is kept as the JSON bytes that clients are sent, plus the few fields the server itself decides on.
//! A list or a watch event is then a copy of bytes: nothing is serialised per reader, and ten thousand objects
//! cost little more than their text. Whoever has to look inside parses them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value};

/// What identifies an object among those of its resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace; empty for cluster-scoped resources.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of `name` in `namespace`, which is empty for cluster-scoped resources.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// The part of an `ownerReference` that garbage collection looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The owner's uid.
    pub uid: String,
    /// Whether the owner's foreground deletion waits for this object.
    pub blocks_deletion: bool,
}

/// The metadata the server decides on.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    /// `apiVersion`, which tells whether a reader needs a conversion.
    pub api_version: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub revision: u64,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.ownerReferences`.
    pub owners: Vec<Owner>,
    /// `metadata.finalizers`, and for namespaces `spec.finalizers` after them.
    pub finalizers: Vec<String>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
}

/// One revision of an object, immutable.
#[derive(Debug)]
pub struct Object {
    /// Where it is kept.
    pub key: Key,
    /// What the server decides on.
    pub meta: Meta,
    /// The whole object as JSON, in its storage version.
    pub bytes: Bytes,
}

impl Object {
    /// Stamps `value` with `revision` and keeps it.
    pub fn stamp(mut value: Value, revision: u64) -> Self {
        metadata_mut(&mut value).insert("resourceVersion".into(), Value::String(revision.to_string()));
        let bytes = Bytes::from(value.to_string());
        Self { key: key_of(&value), meta: meta_of(&value, revision), bytes }
    }

    /// An object that is shown and not kept, so that it has no revision.
    pub fn unstamped(value: Value) -> Self {
        Self { key: key_of(&value), meta: meta_of(&value, 0), bytes: Bytes::from(value.to_string()) }
    }

    /// The object's content.
    #[expect(clippy::expect_used, reason = "the bytes were written by `stamp` from a JSON value")]
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("stored objects are JSON written by this module")
    }
}

/// The object's `metadata`, made if it is missing.
#[expect(clippy::expect_used, reason = "both places were made objects on the line before")]
pub fn metadata_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let object = value.as_object_mut().expect("just made an object");
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().expect("just made an object")
}

/// The string at a JSON pointer, empty when there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Namespace and name of an object.
pub fn key_of(value: &Value) -> Key {
    Key::new(text(value, "/metadata/namespace"), text(value, "/metadata/name"))
}

/// The strings of the array at a JSON pointer.
pub fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let items = value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn meta_of(value: &Value, revision: u64) -> Meta {
    let mut finalizers = texts(value, "/metadata/finalizers");
    if text(value, "/kind") == "Namespace" && text(value, "/apiVersion") == "v1" {
        finalizers.extend(texts(value, "/spec/finalizers"));
    }
    let labels = value.pointer("/metadata/labels").and_then(Value::as_object);
    let owners = value.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    Meta {
        api_version: text(value, "/apiVersion").to_owned(),
        uid: text(value, "/metadata/uid").to_owned(),
        revision,
        labels: labels
            .into_iter()
            .flatten()
            .filter_map(|(key, label)| Some((key.clone(), label.as_str()?.to_owned())))
            .collect(),
        owners: owners
            .into_iter()
            .flatten()
            .map(|owner| Owner {
                uid: text(owner, "/uid").to_owned(),
                blocks_deletion: owner.get("blockOwnerDeletion").and_then(Value::as_bool) == Some(true),
            })
            .collect(),
        finalizers,
        deleting: value.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stamped_object_carries_its_revision_in_bytes_and_meta() {
        let object = Object::stamp(
            json!({"metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"k": "v"},
                "ownerReferences": [{"uid": "o", "blockOwnerDeletion": true}]}}),
            7,
        );
        assert_eq!(object.key, Key::new("n", "a"));
        assert_eq!(object.meta.revision, 7);
        assert_eq!(text(&object.value(), "/metadata/resourceVersion"), "7");
        assert_eq!(object.meta.labels.get("k").map(String::as_str), Some("v"));
        assert_eq!(object.meta.owners, [Owner { uid: "o".into(), blocks_deletion: true }]);
    }
}
