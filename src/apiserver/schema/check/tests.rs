//! Which schemas are refused, and in which words.

use super::*;

fn texts(schema: &Value) -> Vec<String> {
    check(schema).iter().map(ToString::to_string).collect()
}

/// A root schema around one property `x`.
fn around(x: Value) -> Value {
    json!({"type": "object", "properties": {"x": x}})
}

#[test]
fn structural_schemas_are_accepted() {
    for x in [
        json!({"type": "string", "pattern": "^a$", "default": "a"}),
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
        json!({"x-kubernetes-int-or-string": true, "allOf": [
            {"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"pattern": "^a"}]}),
        json!({"x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items":
            {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}}),
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [{"required": ["a"]}]}),
        json!({"type": "object", "additionalProperties": {"type": "string"}}),
        json!({"type": "string", "x-kubernetes-validations": [{"rule": "self != oldSelf", "fieldPath": ""}]}),
    ] {
        assert_eq!(texts(&around(x.clone())), Vec::<String>::new(), "{x}");
    }
}

#[test]
fn what_is_not_structural_is_named() {
    for (x, expected) in [
        (json!({}), "properties[x].type: Required value: must not be empty for specified object fields"),
        (
            json!({"type": "text"}),
            r#"properties[x].type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
        ),
        (json!({"type": "array"}), "properties[x].items: Required value: must be specified"),
        (
            json!({"type": "array", "items": {}}),
            "properties[x].items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({"type": "string", "anyOf": [{"type": "string"}]}),
            "properties[x].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "not": {"properties": {"a": {"enum": ["a"]}}}}),
            "properties[x].properties[a]: Required value: because it is defined in properties[x].not.properties[a]",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            "properties[x].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (json!({"type": "string", "$ref": "#/x"}), "properties[x].$ref: Forbidden: $ref is not supported"),
        (
            json!({"type": "string", "pattern": "("}),
            "properties[x].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: ",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            "properties[x].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({"type": "string", "x-kubernetes-list-type": "set"}),
            "properties[x].type: Invalid value: \"string\": must be array if x-kubernetes-list-type is specified",
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
            "properties[x].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            "properties[x].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}),
            "properties[x].items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            "properties[x].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            "properties[x].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ),
        (
            json!({"type": "integer", "default": "a"}),
            "properties[x].default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "string", "x-kubernetes-validations": [{"rule": ""}]}),
            "properties[x].x-kubernetes-validations[0].rule: Required value: rule is not specified",
        ),
        (
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "self ="}]}),
            "properties[x].x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"self =\"}: compilation failed: ",
        ),
        (
            json!({"type": "string", "x-kubernetes-validations": [{"rule": "true", "reason": "Bad"}]}),
            "properties[x].x-kubernetes-validations[0].reason: Unsupported value: \"Bad\": supported values: ",
        ),
        (
            json!({"type": "object", "x-kubernetes-validations": [{"rule": "true", "fieldPath": ".a"}]}),
            "properties[x].x-kubernetes-validations[0].fieldPath: Invalid value: \".a\": must be a valid path",
        ),
        (
            json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}),
            "properties[x].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema",
        ),
    ] {
        let found = texts(&around(x.clone()));
        assert!(found.iter().any(|text| text.starts_with(expected)), "{x}: {found:#?}");
    }
}

#[test]
fn the_root_has_rules_of_its_own() {
    for (schema, expected) in [
        (json!({}), "type: Required value: must not be empty at the root"),
        (json!({"type": "string"}), "type: Invalid value: \"string\": must be object at the root"),
        (
            json!({"type": "object", "additionalProperties": true}),
            "additionalProperties: Forbidden: must not be used at the root",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            "properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ),
        (
            json!({"type": "object", "properties": {"kind": {"type": "integer"}}}),
            "properties[kind].type: Invalid value: \"integer\": must be string",
        ),
        (json!("x"), "<nil>: Required value: schemas are required"),
    ] {
        let found = texts(&schema);
        assert!(found.iter().any(|text| text == expected), "{schema}: {found:#?}");
    }
}

#[test]
fn a_schema_too_deep_to_walk_is_refused() {
    let mut schema = json!({"type": "string"});
    for _ in 0..=MAX_DEPTH {
        schema = around(schema);
    }
    assert_eq!(texts(&schema), ["<nil>: Forbidden: must not be nested deeper than 64 levels"]);
}
