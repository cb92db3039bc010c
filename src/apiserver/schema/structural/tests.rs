//! Pruning, defaulting and validation as users of the crate see them.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn schema(spec: Value) -> StructuralSchema {
    let properties =
        json!({"spec": spec, "status": {"type": "object", "properties": {"n": {"type": "integer"}}}});
    StructuralSchema::from_crd_version(&json!({"type": "object", "properties": properties})).unwrap()
}

fn texts(causes: &[Cause]) -> Vec<String> {
    causes.iter().map(ToString::to_string).collect()
}

/// Validates `spec` against its schema and compares the words.
fn check(spec_schema: Value, spec: Value, expected: &[&str]) {
    let found = schema(spec_schema.clone()).validate(&json!({"spec": spec.clone()}), None);
    assert_eq!(texts(&found), expected, "{spec} against {spec_schema}");
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

#[test]
fn a_schema_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<StructuralSchema>();
}

#[test]
fn unknown_fields_are_pruned_and_named() {
    let any = json!({"x-kubernetes-preserve-unknown-fields": true});
    let known = object(json!({"a": {"type": "string"}}));
    let list = |items: &Value| json!({"type": "array", "items": items});
    let map = json!({"type": "object", "additionalProperties": known});
    let embedded =
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": known}});
    let half_open =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"k": known}});
    let spec = object(json!({
        "known": known, "any": any, "list": list(&known), "map": map, "embedded": embedded, "open": half_open,
        "free": {"type": "object", "additionalProperties": true},
    }));
    let mut value = json!({
        "apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n", "labels": {"l": "1"}, "odd": 1}, "other": 1,
        "spec": {
            "known": {"a": "1", "b": 2},
            "any": {"b": {"c": 1}},
            "list": [{"a": "1"}, {"b": 1}],
            "map": {"m": {"a": "1", "b": 1}},
            "embedded": {"apiVersion": "v1", "kind": "K", "metadata": {"name": "n", "odd": 1}, "spec": {"b": 1}, "x": 1},
            "open": {"u": {"v": 1}, "k": {"b": 1}},
            "free": {"u": {"v": 1}},
            "unknown": {"deep": 1},
        },
    });
    let dropped = schema(spec).prune(&mut value);
    assert_eq!(
        dropped,
        [
            "metadata.odd",
            "other",
            "spec.embedded.metadata.odd",
            "spec.embedded.spec.b",
            "spec.embedded.x",
            "spec.free.u.v",
            "spec.known.b",
            "spec.list[1].b",
            "spec.map.m.b",
            "spec.open.k.b",
            "spec.unknown",
        ]
    );
    assert_eq!(
        value,
        json!({
            "apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n", "labels": {"l": "1"}},
            "spec": {
                "known": {"a": "1"}, "any": {"b": {"c": 1}}, "list": [{"a": "1"}, {}], "map": {"m": {"a": "1"}},
                "embedded": {"apiVersion": "v1", "kind": "K", "metadata": {"name": "n"}, "spec": {}},
                "open": {"u": {"v": 1}, "k": {}}, "free": {"u": {}},
            },
        })
    );
}

#[test]
fn a_root_that_preserves_unknown_fields_keeps_them() {
    let root = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"spec": object(json!({"a": {"type": "string"}}))}});
    let mut value = json!({"free": {"x": 1}, "spec": {"a": "1", "b": 1}});
    assert_eq!(StructuralSchema::from_crd_version(&root).unwrap().prune(&mut value), ["spec.b"]);
    assert_eq!(value, json!({"free": {"x": 1}, "spec": {"a": "1"}}));
}

#[test]
fn defaults_fill_what_is_missing_or_null() {
    let leaf = json!({"type": "integer", "default": 7});
    let nullable = json!({"type": "integer", "default": 7, "nullable": true});
    let inner = object(json!({"n": leaf, "o": nullable}));
    let mut with_default = inner.clone();
    with_default["default"] = json!({});
    let spec = object(json!({
        "inner": with_default, "list": {"type": "array", "items": inner}, "plain": {"type": "string"},
        "map": {"type": "object", "additionalProperties": inner},
        "numbers": {"type": "array", "items": {"type": "integer", "default": 3}},
    }));
    for (value, expected) in [
        (json!({}), json!({"inner": {"n": 7, "o": 7}})),
        (json!({"inner": {"n": null, "o": null}}), json!({"inner": {"n": 7, "o": null}})),
        (json!({"inner": null}), json!({"inner": {"n": 7, "o": 7}})),
        (
            json!({"list": [{}, {"n": 1}]}),
            json!({"inner": {"n": 7, "o": 7}, "list": [{"n": 7, "o": 7}, {"n": 1, "o": 7}]}),
        ),
        (
            json!({"map": {"a": {}, "b": null}}),
            json!({"inner": {"n": 7, "o": 7}, "map": {"a": {"n": 7, "o": 7}}}),
        ),
        (json!({"numbers": [null, 1]}), json!({"inner": {"n": 7, "o": 7}, "numbers": [3, 1]})),
        (json!({"plain": null}), json!({"inner": {"n": 7, "o": 7}})),
    ] {
        let mut object = json!({"spec": value});
        schema(spec.clone()).default(&mut object);
        assert_eq!(object, json!({"spec": expected}));
    }
}

#[test]
fn an_absent_spec_is_not_invented() {
    let mut object = json!({"kind": "X"});
    schema(json!({"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}))
        .default(&mut object);
    assert_eq!(object, json!({"kind": "X"}));
}

#[test]
fn types_are_checked() {
    for (kind, value, shown) in [
        ("integer", json!("1"), "string"),
        ("integer", json!(1.5), "number"),
        ("string", json!(1), "integer"),
        ("boolean", json!("true"), "string"),
        ("object", json!([]), "array"),
        ("array", json!({}), "object"),
        ("string", json!(null), "null"),
        ("number", json!(true), "boolean"),
    ] {
        let mut x = json!({"type": kind});
        if kind == "array" {
            x["items"] = json!({"type": "string"});
        }
        let words =
            format!("spec.x: Invalid value: \"{shown}\": spec.x in body must be of type {kind}: \"{shown}\"");
        check(object(json!({"x": x})), json!({"x": value}), &[&words]);
    }
    check(object(json!({"x": {"type": "integer"}})), json!({"x": 1.0}), &[]);
    check(object(json!({"x": {"type": "number"}})), json!({"x": 1}), &[]);
    check(object(json!({"x": {"type": "string", "nullable": true}})), json!({"x": null}), &[]);
    let either = json!({"x-kubernetes-int-or-string": true});
    check(object(json!({"x": either})), json!({"x": 1}), &[]);
    check(object(json!({"x": either})), json!({"x": "1"}), &[]);
    let words =
        "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"";
    check(object(json!({"x": either})), json!({"x": true}), &[words]);
}

#[test]
fn values_are_checked_in_the_words_of_kube_apiserver() {
    for (x, value, expected) in [
        (
            json!({"type": "string", "enum": ["GET", "PUT"]}),
            json!("FOO"),
            r#"spec.x: Unsupported value: "FOO": supported values: "GET", "PUT""#,
        ),
        (
            json!({"type": "integer", "enum": [1, 2]}),
            json!(3),
            r#"spec.x: Unsupported value: 3: supported values: "1", "2""#,
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("äöü"),
            "spec.x: Too long: may not be more than 2 bytes",
        ),
        (
            json!({"type": "string", "minLength": 1}),
            json!(""),
            r#"spec.x: Invalid value: "": spec.x in body should be at least 1 chars long"#,
        ),
        (
            json!({"type": "string", "pattern": "^a$"}),
            json!("b"),
            r#"spec.x: Invalid value: "b": spec.x in body should match '^a$'"#,
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "maximum": 65535}),
            json!(65536),
            "spec.x: Invalid value: 65536: spec.x in body should be less than or equal to 65535",
        ),
        (
            json!({"type": "number", "minimum": 0, "exclusiveMinimum": true}),
            json!(0.0),
            "spec.x: Invalid value: 0: spec.x in body should be greater than 0",
        ),
        (
            json!({"type": "number", "maximum": 1.5, "exclusiveMaximum": true}),
            json!(1.5),
            "spec.x: Invalid value: 1.5: spec.x in body should be less than 1.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!(7),
            "spec.x: Invalid value: 7: spec.x in body should be a multiple of 5",
        ),
        (
            json!({"type": "number", "multipleOf": 0.5}),
            json!(0.7),
            "spec.x: Invalid value: 0.7: spec.x in body should be a multiple of 0.5",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!([]),
            "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a", "b"]),
            "spec.x: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1}),
            json!({"a": "", "b": ""}),
            "spec.x: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}),
            json!({}),
            "spec.x: Invalid value: 0: spec.x in body should have at least 1 properties",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}}),
            json!({"k": 0}),
            "spec.x.k: Invalid value: 0: spec.x.k in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            json!({}),
            "spec.x.a: Required value",
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("today"),
            r#"spec.x: Invalid value: "today": spec.x in body must be of type date-time: "today""#,
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!(1),
            r#"spec.x: Invalid value: "int64": spec.x in body must be of type date-time: "int64""#,
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            json!(["a", "b", "a", "a"]),
            r#"spec.x[2]: Duplicate value: "a""#,
        ),
        (
            json!({"type": "string", "not": {"enum": ["a"]}}),
            json!("a"),
            r#"<nil>: Invalid value: "": "spec.x" must not validate the schema (not)"#,
        ),
        (
            json!({"type": "string", "nullable": true, "enum": ["a"]}),
            json!(null),
            r#"spec.x: Unsupported value: null: supported values: "a""#,
        ),
    ] {
        check(object(json!({"x": x})), json!({"x": value}), &[expected]);
    }
}

#[test]
fn paths_lead_through_lists_and_required_fields_of_the_root() {
    let port = json!({"type": "object", "properties": {"port": {"type": "integer", "minimum": 1}}});
    check(
        object(json!({"hosts": {"type": "array", "items": port}})),
        json!({"hosts": [{"port": 0}]}),
        &[
            "spec.hosts[0].port: Invalid value: 0: spec.hosts[0].port in body should be greater than or equal to 1",
        ],
    );
    let root = json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object"}}});
    let found = StructuralSchema::from_crd_version(&root).unwrap().validate(&json!({}), None);
    assert_eq!(texts(&found), ["spec: Required value"]);
}

#[test]
fn junctors_show_the_errors_of_the_best_branch() {
    let ab = json!({"a": {"type": "string"}, "b": {"type": "string"}});
    let with = |junctor: &str, branches: Value| {
        let mut node = object(ab.clone());
        node[junctor] = branches;
        node
    };
    let either = json!([{"required": ["a"]}, {"required": ["b"]}]);
    check(with("oneOf", either.clone()), json!({"a": "1"}), &[]);
    check(
        with("oneOf", either.clone()),
        json!({}),
        &[
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
            "spec.a: Required value",
        ],
    );
    check(
        with("oneOf", either.clone()),
        json!({"a": "1", "b": "1"}),
        &[
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ],
    );
    check(
        with("anyOf", either.clone()),
        json!({}),
        &[
            r#"<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)"#,
            "spec.a: Required value",
        ],
    );
    check(with("anyOf", either.clone()), json!({"a": "1", "b": "1"}), &[]);
    check(
        with("allOf", either),
        json!({"a": "1"}),
        &[
            "spec.b: Required value",
            r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf)"#,
        ],
    );
}

#[test]
fn an_embedded_resource_says_what_it_is() {
    let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
    let list = object(json!({"x": {"type": "array", "items": embedded}}));
    check(list.clone(), json!({"x": [{"apiVersion": "apps/v1", "kind": "Deployment", "spec": {}}]}), &[]);
    check(
        list.clone(),
        json!({"x": [{}]}),
        &["spec.x[0].apiVersion: Required value", "spec.x[0].kind: Required value"],
    );
    check(
        list,
        json!({"x": [{"apiVersion": "a/b/c", "kind": ""}]}),
        &[
            r#"spec.x[0].apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
            r#"spec.x[0].kind: Invalid value: "": must not be empty"#,
        ],
    );
}

fn by_name() -> Value {
    let item = json!({"type": "object", "required": ["name"],
        "properties": {"name": {"type": "string"}, "n": {"type": "integer", "minimum": 1}}});
    object(json!({
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item},
        "other": {"type": "string"},
    }))
}

#[test]
fn keys_of_a_list_map_are_unique() {
    check(
        by_name(),
        json!({"items": [{"name": "a"}, {"name": "b"}, {"name": "a", "n": 2}]}),
        &[r#"spec.items[2]: Duplicate value: {"name":"a"}"#],
    );
}

#[test]
fn an_unchanged_mistake_does_not_block_another_change() {
    let schema = schema(by_name());
    let object = |n: i64, other: &str| json!({"spec": {"items": [{"name": "z"}, {"name": "a", "n": n}], "other": other}});
    let reordered = json!({"spec": {"items": [{"name": "a", "n": 0}, {"name": "z"}], "other": "y"}});
    assert_eq!(schema.validate(&object(0, "x"), None).len(), 1);
    assert_eq!(texts(&schema.validate(&object(0, "y"), Some(&object(0, "x")))), Vec::<String>::new());
    assert_eq!(texts(&schema.validate(&reordered, Some(&object(0, "x")))), Vec::<String>::new());
    assert_eq!(schema.validate(&object(-1, "x"), Some(&object(0, "x"))).len(), 1);
}

#[test]
fn a_status_update_is_judged_by_the_status_alone() {
    let schema = schema(object(json!({"x": {"type": "string"}})));
    let old = json!({"spec": {"x": 1}, "status": {"n": 1}});
    assert!(schema.validate_status(&json!({"spec": {"x": 1}, "status": {"n": 2}}), &old).is_empty());
    assert_eq!(
        texts(&schema.validate_status(&json!({"spec": {"x": 1}, "status": {"n": "2"}}), &old)),
        [r#"status.n: Invalid value: "string": n in body must be of type integer: "string""#]
    );
}

fn with_rule(rule: Value) -> Value {
    let mut spec = object(json!({
        "min": {"type": "integer"}, "max": {"type": "integer"}, "namespace": {"type": "string"},
        "at": {"type": "string", "format": "date-time"}, "ratio": {"type": "number"}, "a-b": {"type": "string"},
        "wait": {"type": "string", "format": "duration"},
    }));
    spec["x-kubernetes-validations"] = json!([rule]);
    spec
}

#[test]
fn rules_refuse_in_their_own_words() {
    let range = "self.min <= self.max";
    let invalid = json!({"min": 2, "max": 1});
    for (rule, expected) in [
        (json!({"rule": range}), "spec: Invalid value: \"object\": failed rule: self.min <= self.max"),
        (
            json!({"rule": range, "message": " min above max "}),
            "spec: Invalid value: \"object\": min above max",
        ),
        (
            json!({"rule": range, "messageExpression": "'min is ' + string(self.min)", "message": "m"}),
            "spec: Invalid value: \"object\": min is 2",
        ),
        (
            json!({"rule": range, "messageExpression": "self.none", "message": "m"}),
            "spec: Invalid value: \"object\": m",
        ),
        (
            json!({"rule": range, "fieldPath": ".min", "message": "m"}),
            "spec.min: Invalid value: \"object\": m",
        ),
        (
            json!({"rule": range, "fieldPath": "['a-b']", "message": "m"}),
            "spec.a-b: Invalid value: \"object\": m",
        ),
        (json!({"rule": range, "reason": "FieldValueForbidden", "message": "m"}), "spec: Forbidden: m"),
        (json!({"rule": range, "reason": "FieldValueRequired", "message": "m"}), "spec: Required value: m"),
        (
            json!({"rule": range, "reason": "FieldValueDuplicate", "message": "m"}),
            "spec: Duplicate value: \"object\"",
        ),
    ] {
        check(with_rule(rule), invalid.clone(), &[expected]);
    }
    check(with_rule(json!({"rule": range})), json!({"min": 1, "max": 2}), &[]);
}

#[test]
fn rules_see_values_by_their_schema() {
    for (rule, spec) in [
        ("self.__namespace__ == 'a'", json!({"namespace": "a"})),
        ("self.a__dash__b == 'a'", json!({"a-b": "a"})),
        ("has(self.min) && !has(self.max)", json!({"min": 1})),
        ("self.at < timestamp('2025-01-01T00:00:00Z')", json!({"at": "2024-01-01T00:00:00Z"})),
        ("self.wait < duration('1h')", json!({"wait": "30m"})),
        ("self.ratio < 2.0", json!({"ratio": 1})),
        ("type(self.min) == int && type(self.ratio) == double", json!({"min": 1, "ratio": 1})),
        ("dyn(self.min) == 1", json!({"min": 1})),
    ] {
        check(with_rule(json!({"rule": rule})), spec.clone(), &[]);
        let negated = format!("!({rule})");
        let words = format!("spec: Invalid value: \"object\": failed rule: {negated}");
        check(with_rule(json!({"rule": negated})), spec, &[&words]);
    }
}

#[test]
fn a_rule_that_fails_to_run_refuses() {
    let found = schema(with_rule(json!({"rule": "self.min > 0"}))).validate(&json!({"spec": {}}), None);
    assert_eq!(
        texts(&found),
        ["spec: Invalid value: \"object\": no such key: min evaluating rule: self.min > 0"]
    );
}

#[test]
fn transition_rules_compare_with_the_old_value_of_the_same_item() {
    let mut spec = by_name();
    spec["properties"]["items"]["items"]["properties"]["n"]["x-kubernetes-validations"] =
        json!([{"rule": "self >= oldSelf", "message": "must not shrink"}]);
    let schema = schema(spec);
    let object = |items: Value| json!({"spec": {"items": items}});
    let old = object(json!([{"name": "a", "n": 5}, {"name": "b", "n": 1}]));
    let moved = object(json!([{"name": "b", "n": 2}, {"name": "a", "n": 5}, {"name": "c", "n": 1}]));
    assert_eq!(texts(&schema.validate(&moved, Some(&old))), Vec::<String>::new());
    assert_eq!(texts(&schema.validate(&old, None)), Vec::<String>::new());
    let shrunk = object(json!([{"name": "b", "n": 1}, {"name": "a", "n": 4}]));
    assert_eq!(
        texts(&schema.validate(&shrunk, Some(&old))),
        ["spec.items[1].n: Invalid value: \"integer\": must not shrink"]
    );
}

#[test]
fn an_optional_old_self_is_there_from_the_start() {
    let rule = json!({"rule": "!oldSelf.hasValue() || oldSelf.value().min == self.min", "optionalOldSelf": true, "message": "fixed"});
    let schema = schema(with_rule(rule));
    let object = |min: i64| json!({"spec": {"min": min}});
    assert!(schema.validate(&object(1), None).is_empty());
    assert!(schema.validate(&object(1), Some(&object(1))).is_empty());
    assert_eq!(
        texts(&schema.validate(&object(2), Some(&object(1)))),
        ["spec: Invalid value: \"object\": fixed"]
    );
}

#[test]
fn the_order_of_sets_and_list_maps_is_no_change() {
    let mut spec = by_name();
    spec["properties"]["tags"] =
        json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    spec["x-kubernetes-validations"] = json!([{"rule": "self == oldSelf", "message": "fixed"}]);
    let schema = schema(spec);
    let object = |items: Value, tags: Value| json!({"spec": {"items": items, "tags": tags}});
    let old = object(json!([{"name": "a", "n": 1}, {"name": "b"}]), json!(["x", "y"]));
    let moved = object(json!([{"name": "b"}, {"name": "a", "n": 1}]), json!(["y", "x"]));
    assert_eq!(texts(&schema.validate(&moved, Some(&old))), Vec::<String>::new());
    for changed in [
        object(json!([{"name": "b"}, {"name": "a", "n": 2}]), json!(["y", "x"])),
        object(json!([{"name": "b"}, {"name": "a", "n": 1}]), json!(["y"])),
        object(json!([{"name": "b"}]), json!(["x", "y"])),
    ] {
        assert_eq!(schema.validate(&changed, Some(&old)).len(), 1, "{changed}");
    }
}

#[test]
fn rules_forgive_what_has_not_changed() {
    let schema = schema(with_rule(json!({"rule": "self.min > 0", "message": "m"})));
    let object = |label: &str| json!({"metadata": {"labels": {"l": label}}, "spec": {"min": 0}});
    assert_eq!(schema.validate(&object("1"), None).len(), 1);
    assert!(schema.validate(&object("2"), Some(&object("1"))).is_empty());
}

#[test]
fn rules_at_the_root_see_names_and_no_other_metadata() {
    for (rule, holds) in [("self.metadata.name == 'n'", true), ("has(self.metadata.labels)", false)] {
        let root = json!({"type": "object", "x-kubernetes-validations": [{"rule": rule, "message": "m"}]});
        let schema = StructuralSchema::from_crd_version(&root).unwrap();
        let found = schema.validate(&json!({"metadata": {"name": "n", "labels": {"a": "b"}}}), None);
        assert_eq!(found.is_empty(), holds, "{rule}");
    }
}

#[test]
fn rules_wait_until_the_shape_is_right() {
    let found =
        schema(with_rule(json!({"rule": "self.min > 0"}))).validate(&json!({"spec": {"min": "x"}}), None);
    let words = "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; \
                 correct the existing errors to complete validation";
    assert_eq!(texts(&found).last().unwrap(), words);
    assert_eq!(found.len(), 2);
}

/// A schema that uses every way of keeping, dropping and defaulting.
fn mixed() -> StructuralSchema {
    let leaf =
        object(json!({"a": {"type": "integer", "default": 1}, "b": {"type": "string", "nullable": true}}));
    let mut open = leaf.clone();
    open["x-kubernetes-preserve-unknown-fields"] = json!(true);
    let mut filled = leaf.clone();
    filled["default"] = json!({"b": "x"});
    schema(object(json!({
        "a": leaf, "b": open, "c": {"type": "array", "items": leaf}, "d": filled,
        "e": {"type": "object", "additionalProperties": leaf},
    })))
}

/// Objects whose field names meet those of [`mixed`] often.
fn objects() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!("s")), Just(json!(true))];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-f]", inner, 0..4).prop_map(|map| json!(map)),
        ]
    });
    value.prop_map(|spec| json!({"kind": "X", "spec": spec}))
}

proptest! {
    #[test]
    fn pruning_twice_drops_nothing_more(object in objects()) {
        let schema = mixed();
        let mut once = object;
        schema.prune(&mut once);
        let mut twice = once.clone();
        prop_assert_eq!(schema.prune(&mut twice), Vec::<String>::new());
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn defaulting_twice_changes_nothing_more(object in objects()) {
        let schema = mixed();
        let mut once = object;
        schema.default(&mut once);
        let mut twice = once.clone();
        schema.default(&mut twice);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn an_object_is_never_worse_than_itself(object in objects()) {
        let schema = mixed();
        let mut object = object;
        schema.prune(&mut object);
        prop_assert_eq!(texts(&schema.validate(&object, Some(&object))), Vec::<String>::new());
    }
}
