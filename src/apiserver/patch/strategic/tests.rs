//! Strategic merge patches of the built-in kinds.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn check(kind: &str, original: Value, patch: Value, expected: Value) {
    assert_eq!(strategic_merge(kind, &original, &patch).unwrap(), expected, "{patch}");
}

#[test]
fn ports_of_a_service_are_merged_by_port() {
    let original = json!({"spec": {"type": "ClusterIP", "ports": [
        {"port": 80, "name": "http", "targetPort": 8080}, {"port": 443, "name": "https"}]}});
    check(
        "Service",
        original.clone(),
        json!({"spec": {"ports": [{"port": 443, "targetPort": 8443}]}}),
        json!({"spec": {"type": "ClusterIP", "ports": [
            {"port": 80, "name": "http", "targetPort": 8080}, {"port": 443, "name": "https", "targetPort": 8443}]}}),
    );
    check(
        "Service",
        original.clone(),
        json!({"spec": {"ports": [{"port": 80, "$patch": "delete"}]}}),
        json!({"spec": {"type": "ClusterIP", "ports": [{"port": 443, "name": "https"}]}}),
    );
    check(
        "Service",
        original,
        json!({"spec": {"$setElementOrder/ports": [{"port": 443}, {"port": 80}], "ports": [{"port": 443, "name": "tls"}]}}),
        json!({"spec": {"type": "ClusterIP", "ports": [
            {"port": 443, "name": "tls"}, {"port": 80, "name": "http", "targetPort": 8080}]}}),
    );
}

#[test]
fn metadata_of_every_kind_is_merged() {
    let original = json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1", "y": "2"},
        "ownerReferences": [{"uid": "u1", "name": "one"}]}});
    for kind in
        ["ConfigMap", "Secret", "Lease", "Ingress", "EndpointSlice", "CustomResourceDefinition", "Event"]
    {
        check(
            kind,
            original.clone(),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"], "labels": {"x": null},
                "ownerReferences": [{"uid": "u1", "name": "uno"}, {"uid": "u2"}]}}),
            json!({"metadata": {"finalizers": ["c", "b"], "labels": {"y": "2"},
                "ownerReferences": [{"uid": "u1", "name": "uno"}, {"uid": "u2"}]}}),
        );
    }
}

#[test]
fn lists_without_a_key_are_replaced() {
    check(
        "Ingress",
        json!({"spec": {"rules": [{"host": "a"}], "tls": [{"hosts": ["a"]}]}}),
        json!({"spec": {"rules": [{"host": "b"}]}}),
        json!({"spec": {"rules": [{"host": "b"}], "tls": [{"hosts": ["a"]}]}}),
    );
}

#[test]
fn directives_replace_delete_and_retain() {
    let original = json!({"data": {"a": "1", "b": "2"}});
    check(
        "ConfigMap",
        original.clone(),
        json!({"data": {"$patch": "replace", "c": "3"}}),
        json!({"data": {"c": "3"}}),
    );
    check("ConfigMap", original.clone(), json!({"data": {"$patch": "delete"}}), json!({"data": {}}));
    check(
        "ConfigMap",
        original.clone(),
        json!({"data": {"$patch": "merge", "c": "3"}}),
        json!({"data": {"a": "1", "b": "2", "c": "3"}}),
    );
    check(
        "ConfigMap",
        original.clone(),
        json!({"data": {"$retainKeys": ["b", "c"], "c": "3"}}),
        json!({"data": {"b": "2", "c": "3"}}),
    );
    for patch in [
        json!([]),
        json!({"data": {"$patch": "shuffle"}}),
        json!({"data": {"$retainKeys": ["a"], "c": "3"}}),
        json!({"data": {"$retainKeys": 1}}),
        json!({"$setElementOrder/x": 1}),
        json!({"$deleteFromPrimitiveList/x": 1}),
    ] {
        assert_eq!(strategic_merge("ConfigMap", &original, &patch).unwrap_err().code(), 400, "{patch}");
    }
}

#[test]
fn directives_never_end_up_in_an_object() {
    check(
        "Service",
        json!({}),
        json!({"spec": {"$setElementOrder/ports": [{"port": 80}], "ports": [{"port": 80, "name": null}, {"port": 81, "$patch": "delete"}]}}),
        json!({"spec": {"ports": [{"port": 80}]}}),
    );
}

#[test]
fn unknown_fields_are_merged_like_any_object() {
    check(
        "ConfigMap",
        json!({"odd": {"a": 1, "l": [1]}}),
        json!({"odd": {"b": 2, "l": [2]}}),
        json!({"odd": {"a": 1, "b": 2, "l": [2]}}),
    );
}

fn objects() -> impl Strategy_<Value = Value> {
    let leaf = prop_oneof![any::<i8>().prop_map(Value::from), "[a-c]".prop_map(Value::from)];
    let value = leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("metadata|spec|ports|finalizers|port|data", inner, 0..3)
                .prop_map(|map| json!(map)),
        ]
    });
    prop::collection::btree_map("metadata|spec|data|status", value, 0..4).prop_map(|map| json!(map))
}

use proptest::strategy::Strategy as Strategy_;

proptest! {
    #[test]
    fn an_empty_patch_changes_nothing(original in objects()) {
        for kind in ["Service", "ConfigMap", "Unknown"] {
            prop_assert_eq!(&strategic_merge(kind, &original, &json!({})).unwrap(), &original);
        }
    }

    #[test]
    fn no_patch_makes_it_panic(original in objects(), patch in objects()) {
        let _ = strategic_merge("Service", &original, &patch);
    }
}
