//! Brings built-in objects into the shape of their kind, as decoding into a Go struct does: unknown fields and nulls
//! are dropped, wrong types refused.

use serde_json::Value;

use crate::schema::openapi::{builtin_kind, resolve};
use crate::status::ApiError;

/// Shapes everything but `metadata`. The paths of unknown fields are added to `dropped`.
pub(super) fn shape(
    kind: &str,
    version: &str,
    value: &mut Value,
    dropped: &mut Vec<String>,
) -> Result<(), ApiError> {
    let (Some(schema), Some(object)) = (builtin_kind(kind), value.as_object_mut()) else { return Ok(()) };
    let metadata = object.remove("metadata");
    let result = Shaper { kind, version, dropped }.visit(value, schema, "");
    if let (Some(metadata), Some(object)) = (metadata, value.as_object_mut()) {
        object.insert("metadata".into(), metadata);
    }
    result
}

struct Shaper<'a> {
    kind: &'a str,
    version: &'a str,
    dropped: &'a mut Vec<String>,
}

impl Shaper<'_> {
    fn visit(&mut self, value: &mut Value, schema: &'static Value, path: &str) -> Result<(), ApiError> {
        let schema = resolve(schema);
        let fits = match schema["type"].as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            _ if schema["format"] == "int-or-string" => value.is_string() || value.is_i64() || value.is_u64(),
            _ => return Ok(()),
        };
        if !fits {
            return Err(self.wrong(value, schema, path));
        }
        match value {
            Value::String(text)
                if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() =>
            {
                let layout = "2006-01-02T15:04:05Z07:00";
                let why =
                    format!("parsing time \"{text}\" as \"{layout}\": cannot parse \"{text}\" as \"2006\"");
                return Err(self.refuse(&why));
            }
            Value::Object(object) => {
                object.retain(|_, field| !field.is_null());
                if let Some(every) = schema.get("additionalProperties") {
                    for (key, field) in object.iter_mut() {
                        self.visit(field, every, &join(path, key))?;
                    }
                } else if let Some(known) = schema["properties"].as_object() {
                    let unknown: Vec<String> =
                        object.keys().filter(|key| !known.contains_key(*key)).cloned().collect();
                    for key in unknown {
                        object.remove(&key);
                        self.dropped.push(join(path, &key));
                    }
                    for (key, field) in object.iter_mut() {
                        if let Some(schema) = known.get(key) {
                            self.visit(field, schema, &join(path, key))?;
                        }
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = schema.get("items") {
                    for (at, item) in items.iter_mut().enumerate() {
                        self.visit(item, schema, &format!("{path}[{at}]"))?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn wrong(&self, value: &Value, schema: &Value, path: &str) -> ApiError {
        let found = go_json_type(value);
        let wanted = schema["type"].as_str().unwrap_or("IntOrString");
        self.refuse(&format!(
            "json: cannot unmarshal {found} into Go struct field {}.{path} of type {wanted}",
            self.kind
        ))
    }

    fn refuse(&self, why: &str) -> ApiError {
        let (kind, version) = (self.kind, self.version);
        ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What Go's decoder calls the type of a JSON value.
pub(super) fn go_json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_are_dropped_and_wrong_types_refused() {
        let mut dropped = Vec::new();
        let mut service = json!({"metadata": {"name": "kept as it is"}, "bogus": 1, "spec": {"selector": null,
            "ports": [{"port": 80, "targetPort": "http", "prot": "TCP"}]}});
        shape("Service", "v1", &mut service, &mut dropped).unwrap();
        assert_eq!(
            service,
            json!({"metadata": {"name": "kept as it is"}, "spec": {"ports": [{"port": 80, "targetPort": "http"}]}})
        );
        assert_eq!(dropped, ["bogus", "spec.ports[0].prot"]);
        let mut map = json!({"data": {"a": 1}});
        let refused = shape("ConfigMap", "v1", &mut map, &mut dropped).unwrap_err();
        assert_eq!(
            refused.message,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go \
             struct field ConfigMap.data.a of type string"
        );
    }

    #[test]
    fn the_schemas_inside_a_definition_are_left_alone() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"},
            "default": null}}});
        let definition = json!({"spec": {"group": "a.b", "versions": [{"name": "v1",
            "schema": {"openAPIV3Schema": schema}}]}});
        let (mut shaped, mut dropped) = (definition.clone(), Vec::new());
        shape("CustomResourceDefinition", "v1", &mut shaped, &mut dropped).unwrap();
        assert!(dropped.is_empty(), "{dropped:?}");
        assert_eq!(shaped["spec"]["group"], definition["spec"]["group"]);
        let pointer = "/spec/versions/0/schema/openAPIV3Schema/properties/a/items";
        assert_eq!(shaped.pointer(pointer), definition.pointer(pointer));
    }
}
