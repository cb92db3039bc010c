//! The document of OpenAPI version 2, made from the schemas of version 3.
//!
//! Version 2 knows neither alternatives nor null, so schemas lose `anyOf`, `oneOf`, `not` and `nullable`, and a type
//! that would then be wrong. That is what kube-apiserver does, too.

use super::tables::REFERENCE;
use super::{ResourceDef, paths, schemas};
use serde_json::{Map, Value, json};

/// What version 2 keeps of a schema as it is.
const KEPT: [&str; 19] = [
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "required",
    "title",
    "type",
    "default",
];

/// The version 2 document of everything that is served.
#[must_use]
pub fn v2_document(resources: &[ResourceDef]) -> Value {
    let mut all_paths = Map::new();
    for resource in resources {
        paths::v2(resource, &mut all_paths);
    }
    let definitions: Map<String, Value> =
        schemas(resources.iter()).iter().map(|(name, schema)| (name.clone(), convert(schema))).collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": all_paths,
        "definitions": definitions,
    })
}

fn convert(schema: &Value) -> Value {
    let Value::Object(schema) = schema else { return json!({}) };
    let mut out = Map::new();
    let wrapped = schema.get("allOf").and_then(|all| all.get(0)).and_then(|first| first.get("$ref"));
    let reference = schema.get("$ref").or(wrapped).and_then(Value::as_str);
    if let Some(name) = reference.and_then(|name| name.strip_prefix(REFERENCE)) {
        out.insert("$ref".into(), format!("#/definitions/{name}").into());
        out.extend(schema.get("description").map(|text| ("description".to_owned(), text.clone())));
        out.extend(extensions(schema));
        return Value::Object(out);
    }
    for key in KEPT {
        if let Some(value) = schema.get(key).filter(|value| !value.is_null()) {
            out.insert(key.into(), value.clone());
        }
    }
    out.extend(extensions(schema));
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let converted: Map<String, Value> =
            properties.iter().map(|(name, property)| (name.clone(), convert(property))).collect();
        out.insert("properties".into(), converted.into());
    }
    if let Some(items) = schema.get("items") {
        out.insert("items".into(), convert(items));
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        out.insert("additionalProperties".into(), convert(values));
    }
    let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
    if schema.get("format").is_some_and(|format| format == "int-or-string") {
        out.insert("type".into(), "string".into());
    }
    // A client that checks types would refuse what these allow.
    if flag("nullable") || flag("x-kubernetes-int-or-string") || flag("x-kubernetes-preserve-unknown-fields")
    {
        for key in ["type", "format", "items", "properties", "additionalProperties", "required"] {
            if !(flag("x-kubernetes-preserve-unknown-fields") && key == "type" && !flag("nullable")) {
                out.remove(key);
            }
        }
    }
    Value::Object(out)
}

fn extensions(schema: &Map<String, Value>) -> impl Iterator<Item = (String, Value)> {
    let wanted = |name: &str| name.starts_with("x-kubernetes-") && name != "x-kubernetes-validations";
    schema.iter().filter(move |(name, _)| wanted(name)).map(|(name, value)| (name.clone(), value.clone()))
}
