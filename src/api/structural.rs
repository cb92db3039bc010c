//! From what `schemars` derives to the structural schemas that Kubernetes takes.
//!
//! `schemars` describes what Rust accepts, Kubernetes what clients may send,
//! and they differ: an `Option` is not nullable (the API server drops nulls of
//! fields that are not), Rust's integer formats mean nothing to it (and
//! `int32` would deny numbers that the published schemas accept), enums must
//! be plain lists, and a free-form value must say so.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// Fields that the published schemas both require and default, which makes
/// them present for every reader and optional for every writer.
const REQUIRED_THOUGH_DEFAULTED: [&str; 2] = ["enabled", "attempts"];

const PRESERVE_UNKNOWN: &str = "x-kubernetes-preserve-unknown-fields";

/// A whole number of any size that clients may send, negative ones included:
/// Go's `int`, which the published schemas give no format.
pub(crate) struct Integer;

impl JsonSchema for Integer {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Integer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer" })
    }
}

/// The schema of a whole object with spec and status. Neither is required, as
/// in what controller-gen generates.
pub(crate) fn object<Spec: JsonSchema, Status: JsonSchema>(
    generator: &mut SchemaGenerator,
    description: &str,
) -> Schema {
    let mut schema = json_schema!({
        "type": "object",
        "description": description,
        "properties": {
            "apiVersion": {
                "type": "string",
                "description": "Group and version of this representation of the object.",
            },
            "kind": { "type": "string", "description": "The kind of the object." },
            "metadata": { "type": "object" },
            "spec": generator.subschema_for::<Spec>(),
            "status": generator.subschema_for::<Status>(),
        },
    });
    if let Some(root) = schema.as_object_mut() {
        rewrite_object(root);
    }
    schema
}

fn rewrite(schema: &mut Value) {
    if let Value::Bool(_) = schema {
        *schema = json!({});
    }
    if let Value::Object(schema) = schema {
        rewrite_object(schema);
    }
}

fn rewrite_object(schema: &mut Map<String, Value>) {
    // The name of the Rust type is no business of a CRD's reader.
    schema.remove("title");
    collapse_alternatives(schema);
    drop_null(schema);
    drop_rust_format(schema);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(rewrite);
        let required = |name: &str, property: &Value| {
            property.get("default").is_some() && REQUIRED_THOUGH_DEFAULTED.contains(&name)
        };
        let also: Vec<Value> =
            properties.iter().filter(|(name, p)| required(name, p)).map(|(name, _)| json!(name)).collect();
        require(schema, also);
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(nested) = schema.get_mut(nested) {
            rewrite(nested);
        }
    }
    if !schema.contains_key("type") {
        schema.insert(PRESERVE_UNKNOWN.into(), json!(true));
    }
}

fn require(schema: &mut Map<String, Value>, also: Vec<Value>) {
    if also.is_empty() {
        return;
    }
    if let Value::Array(required) = schema.entry("required").or_insert_with(|| json!([])) {
        required.extend(also);
        required.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        required.dedup();
    }
}

/// `anyOf` a schema and null becomes that schema; `oneOf` constants becomes an enum.
fn collapse_alternatives(schema: &mut Map<String, Value>) {
    let Some(Value::Array(alternatives)) = schema.remove("anyOf").or_else(|| schema.remove("oneOf")) else {
        return;
    };
    let mut values = Vec::new();
    for alternative in alternatives {
        let Value::Object(mut alternative) = alternative else { continue };
        if alternative.get("type") == Some(&json!("null")) {
            continue;
        }
        collapse_alternatives(&mut alternative);
        if let Some(constant) = alternative.remove("const") {
            values.push(constant);
            alternative.remove("description");
        }
        if let Some(Value::Array(constants)) = alternative.remove("enum") {
            values.extend(constants);
        }
        for (keyword, value) in alternative {
            // What stands at the field itself says more than what stands at its type.
            schema.entry(keyword).or_insert(value);
        }
    }
    if !values.is_empty() {
        schema.insert("enum".into(), Value::Array(values));
    }
}

fn drop_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

fn drop_rust_format(schema: &mut Map<String, Value>) {
    let of_kubernetes = |format: &str| matches!(format, "int32" | "int64" | "date-time");
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| !of_kubernetes(format)) {
        schema.remove("format");
    }
}
