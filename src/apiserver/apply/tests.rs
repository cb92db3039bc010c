//! What applies and other writes make of whose fields are whose.

use serde_json::json;

use super::*;
use crate::registry::Registry;

const NOW: &str = "2026-01-01T00:00:00Z";

fn writer(name: &str, operation: Operation) -> Manager {
    Manager { operation, name: name.to_owned(), api_version: "v1".to_owned(), subresource: String::new() }
}

fn service(ports: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "labels": {"a": "b"}},
        "spec": {"ports": ports, "selector": {"x": "y"}}})
}

/// Applies to a service and records it.
fn put(live: Option<&Value>, config: &Value, who: &str, force: bool) -> Result<Value, ApiError> {
    let (resource, version) = Registry::builtin().find("", "v1", "services").unwrap();
    let shape = Shape::of(&resource, version);
    let applied = apply(&shape, live, config, &writer(who, Operation::Apply), true, force, NOW)?;
    let mut new = applied.value.clone();
    applied.record(&shape, live, &mut new);
    Ok(new)
}

fn fields(object: &Value, who: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries
        .into_iter()
        .find(|entry| entry["manager"] == who)
        .map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[test]
fn what_is_applied_is_owned() {
    let made = put(None, &service(json!([{"port": 80}])), "one", false).unwrap();
    assert_eq!(
        fields(&made, "one"),
        json!({"f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:selector": {}, "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}})
    );
    // The same once more is no change at all.
    assert_eq!(put(Some(&made), &service(json!([{"port": 80}])), "one", false).unwrap(), made);
}

#[test]
fn what_is_applied_no_more_is_removed_and_what_others_own_stays() {
    let made = put(None, &service(json!([{"port": 80, "name": "web"}, {"port": 81}])), "one", false).unwrap();
    let two = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "labels": {"c": "d"}},
        "spec": {"ports": [{"port": 82}, {"port": 81}]}});
    let both = put(Some(&made), &two, "two", false).unwrap();
    let ports = |object: &Value| -> Vec<i64> {
        object["spec"]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port["port"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(ports(&both), [80, 81, 82]);
    let mut less = service(json!([{"port": 80}]));
    less["metadata"]["labels"] = json!({});
    let after = put(Some(&both), &less, "one", false).unwrap();
    assert_eq!(ports(&after), [80, 81, 82], "81 is also of the other manager");
    assert_eq!(after["spec"]["ports"][0], json!({"port": 80}), "the name was of this manager alone");
    assert_eq!(after["metadata"]["labels"], json!({"c": "d"}));
    let gone = put(
        Some(&after),
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}),
        "two",
        false,
    );
    let gone = gone.unwrap();
    assert_eq!(ports(&gone), [80]);
    assert_eq!(fields(&gone, "two"), Value::Null);
}

#[test]
fn another_value_for_a_field_of_somebody_else_is_a_conflict_that_force_wins() {
    let made = put(None, &service(json!([{"port": 80, "name": "web"}])), "one", false).unwrap();
    let mut other = service(json!([{"port": 80, "name": "else"}]));
    other["spec"]["selector"] = json!({"x": "z"});
    let refused = put(Some(&made), &other, "two", false).unwrap_err();
    assert_eq!(refused.code, 409);
    assert_eq!(
        refused.message,
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.ports[port=80,protocol=\"TCP\"].name\n\
         - .spec.selector"
    );
    let causes = refused.details.unwrap()["causes"].clone();
    assert_eq!(
        causes[1],
        json!({"reason": "FieldManagerConflict", "message": "conflict with \"one\"",
        "field": ".spec.selector"})
    );
    let forced = put(Some(&made), &other, "two", true).unwrap();
    assert_eq!(forced["spec"]["selector"], json!({"x": "z"}));
    assert_eq!(fields(&forced, "one")["f:spec"].get("f:selector"), None);
    // Equal values are shared.
    let shared = put(Some(&made), &service(json!([{"port": 80, "name": "web"}])), "two", false).unwrap();
    assert_eq!(fields(&shared, "one"), fields(&shared, "two"));
}

#[test]
fn other_writes_own_what_they_change() {
    let (resource, version) = Registry::builtin().find("", "v1", "services").unwrap();
    let shape = Shape::of(&resource, version);
    let made = put(None, &service(json!([{"port": 80}])), "one", false).unwrap();
    let mut changed = made.clone();
    changed["spec"]["selector"] = json!({"x": "w"});
    changed["metadata"]["labels"] = json!({"new": "er"});
    record(&shape, Some(&made), &mut changed, None, &writer("hand", Operation::Update), NOW);
    assert_eq!(
        fields(&changed, "hand"),
        json!({"f:metadata": {"f:labels": {"f:new": {}}}, "f:spec": {"f:selector": {}}})
    );
    assert_eq!(fields(&changed, "one")["f:metadata"], Value::Null, "its label is gone");
    let refused = put(Some(&changed), &service(json!([{"port": 80}])), "one", false).unwrap_err();
    assert!(refused.message.contains("conflict with \"hand\" using v1: "), "{}", refused.message);
    let mut forgotten = changed.clone();
    record(&shape, Some(&changed), &mut forgotten, Some(&json!([])), &writer("hand", Operation::Update), NOW);
    assert_eq!(forgotten["metadata"].get("managedFields"), None);
}

#[test]
fn what_was_there_before_ownership_belongs_to_nobody_who_applies() {
    let live = service(json!([{"port": 80}]));
    let mut config = service(json!([{"port": 80}]));
    config["spec"]["selector"] = json!({"x": "z"});
    let refused = put(Some(&live), &config, "one", false).unwrap_err();
    assert!(refused.message.contains("\"before-first-apply\""), "{}", refused.message);
    let forced = put(Some(&live), &config, "one", true).unwrap();
    let without = put(
        Some(&forced),
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}),
        "one",
        false,
    );
    let without = without.unwrap();
    assert_eq!(without["spec"], json!({"ports": [{"port": 80}]}));
}

#[test]
fn managers_are_told_by_operation_then_time_then_name() {
    let entry = |manager: &str, operation: &str, time: &str| {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}})
    };
    let (early, late) = (NOW, "2026-01-01T00:00:01Z");
    let ordered = [
        entry("z", "Apply", early),
        entry("a", "Apply", late),
        entry("b", "Apply", late),
        entry("a", "Update", early),
    ];
    let mut object = json!({});
    Managers::from_entries(&[3, 1, 2, 0].map(|at: usize| ordered[at].clone())).write(&mut object);
    let told = object["metadata"]["managedFields"].as_array().unwrap();
    let names = |entries: &[Value]| entries.iter().map(|e| e["manager"].to_string()).collect::<Vec<_>>();
    assert_eq!(names(told), names(&ordered));
}
