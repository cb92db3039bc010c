//! What tables, patches and OpenAPI documents are until their modules are wired in.

use serde_json::{Value, json};

/// Whether rows of a table carry their objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    None,
    Metadata,
    Object,
}

/// A patch that cannot be applied.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PatchError(String);

impl PatchError {
    pub fn code(&self) -> u16 {
        422
    }
}

pub(crate) fn json_patch(value: &Value, patch: &Value) -> Result<Value, PatchError> {
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError(error.to_string()))?;
    let mut value = value.clone();
    json_patch::patch(&mut value, &patch).map_err(|error| PatchError(error.to_string()))?;
    Ok(value)
}

pub(crate) fn merge_patch(value: &Value, patch: &Value) -> Value {
    let mut value = value.clone();
    json_patch::merge(&mut value, patch);
    value
}

pub(crate) fn strategic_merge(_: &str, value: &Value, patch: &Value) -> Result<Value, PatchError> {
    Ok(merge_patch(value, patch))
}

fn rows(columns: &[&str], values: &[Value], include: IncludeObject) -> Value {
    let columns: Vec<Value> = columns
        .iter()
        .map(|name| json!({"name": name, "type": "string", "format": "", "description": "", "priority": 0}))
        .collect();
    let rows: Vec<Value> = values
        .iter()
        .map(|value| {
            let object = match include {
                IncludeObject::None => Value::Null,
                IncludeObject::Metadata => crate::registry::metadata_only(value),
                IncludeObject::Object => value.clone(),
            };
            json!({"cells": [value["metadata"]["name"], value["metadata"]["creationTimestamp"]], "object": object})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns,
        "rows": rows})
}

pub(crate) fn for_builtin(_: &str, values: &[Value], include: IncludeObject) -> Value {
    rows(&["Name", "Created At"], values, include)
}

pub(crate) fn for_crd(_: &[Value], values: &[Value], include: IncludeObject) -> Value {
    rows(&["Name", "Created At"], values, include)
}
