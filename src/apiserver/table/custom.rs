//! Tables of custom resources, whose columns stand in their definitions.

use super::age::since;
use super::json_path::JsonPath;
use super::{CREATED, Column, IncludeObject, NAME, table};
use jiff::Timestamp;
use serde_json::{Value, json};

/// One column of a definition: where its value is, and of which type.
struct Printer {
    kind: String,
    /// `None` when the path cannot be read; the column then stays empty.
    path: Option<JsonPath>,
}

/// The table of custom resources. `columns` are the `additionalPrinterColumns` of the definition as written; without
/// any, the age is shown. `now` is what ages are counted to.
#[must_use]
pub fn for_crd(columns: &[Value], objects: &[Value], include: IncludeObject, now: Timestamp) -> Value {
    let age = [
        json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": CREATED}),
    ];
    let columns = if columns.is_empty() { &age } else { columns };
    let text = |column: &Value, key: &str| column.get(key).and_then(Value::as_str).unwrap_or("").to_owned();

    let mut headings = vec![Column::new("Name", "string", NAME)];
    let mut printers = Vec::with_capacity(columns.len());
    for column in columns {
        let path = text(column, "jsonPath");
        let mut description = text(column, "description");
        if description.is_empty() {
            description = format!("Custom resource definition column (in JSONPath format): {path}");
        }
        let kind = text(column, "type");
        headings.push(Column {
            name: text(column, "name"),
            kind: kind.clone(),
            format: text(column, "format"),
            description,
            priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
        });
        printers.push(Printer { kind, path: JsonPath::parse(&path) });
    }
    table(&headings, objects, include, |object| {
        let name = object["metadata"]["name"].clone();
        std::iter::once(name).chain(printers.iter().map(|printer| cell(printer, object, now))).collect()
    })
}

/// A column shows the first value that its path finds.
fn cell(printer: &Printer, object: &Value, now: Timestamp) -> Value {
    let found = printer.path.as_ref().and_then(|path| path.find(object).first().copied());
    let Some(value) = found.filter(|value| !value.is_null()) else { return Value::Null };
    match (printer.kind.as_str(), value) {
        ("string", Value::String(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => integer.into(),
            (None, Some(float)) => (float as i64).into(),
            (None, None) => Value::Null,
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(_)) => since(value, now).into(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2024-01-01T01:00:00Z".parse().unwrap()
    }

    fn route() -> Value {
        json!({
            "apiVersion": "example.io/v1", "kind": "Route",
            "metadata": {"name": "r", "creationTimestamp": "2024-01-01T00:55:00Z"},
            "spec": {"hosts": ["a", "b"], "weight": 3, "ratio": 0.5, "on": true, "limits": {"n": 1}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    #[test]
    fn cells_are_of_the_columns_type() {
        for (column, expected) in [
            (json!({"type": "string", "jsonPath": ".spec.hosts"}), json!("[\"a\",\"b\"]")),
            (json!({"type": "string", "jsonPath": ".spec.hosts[*]"}), json!("a")),
            (json!({"type": "string", "jsonPath": ".spec.weight"}), json!("3")),
            (json!({"type": "string", "jsonPath": ".spec.on"}), json!("true")),
            (json!({"type": "string", "jsonPath": ".spec.limits"}), json!("{\"n\":1}")),
            (json!({"type": "integer", "jsonPath": ".spec.weight"}), json!(3)),
            (json!({"type": "integer", "jsonPath": ".spec.hosts"}), json!(null)),
            (json!({"type": "number", "jsonPath": ".spec.ratio"}), json!(0.5)),
            (json!({"type": "boolean", "jsonPath": ".spec.on"}), json!(true)),
            (json!({"type": "date", "jsonPath": ".metadata.creationTimestamp"}), json!("5m")),
            (
                json!({"type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}),
                json!("True"),
            ),
            (json!({"type": "string", "jsonPath": ".status.none"}), json!(null)),
            (json!({"type": "string", "jsonPath": "no path"}), json!(null)),
        ] {
            let table = for_crd(std::slice::from_ref(&column), &[route()], IncludeObject::None, now());
            assert_eq!(table["rows"], json!([{"cells": ["r", expected]}]), "{column}");
        }
    }

    #[test]
    fn headings_tell_wide_columns_from_others() {
        let columns = [
            json!({"name": "Weight", "type": "integer", "format": "int32", "priority": 1, "jsonPath": ".spec.weight"}),
        ];
        let table = for_crd(&columns, &[], IncludeObject::None, now());
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["apiVersion"], "meta.k8s.io/v1");
        assert_eq!(table["rows"], json!([]));
        assert_eq!(table["columnDefinitions"][0]["format"], "name");
        assert_eq!(
            table["columnDefinitions"][1],
            json!({
                "name": "Weight", "type": "integer", "format": "int32", "priority": 1,
                "description": "Custom resource definition column (in JSONPath format): .spec.weight",
            })
        );
    }

    #[test]
    fn without_columns_the_age_is_shown() {
        let table = for_crd(&[], &[route()], IncludeObject::None, now());
        assert_eq!(table["columnDefinitions"][1]["name"], "Age");
        assert_eq!(table["rows"][0]["cells"], json!(["r", "5m"]));
    }

    #[test]
    fn rows_carry_as_much_of_the_object_as_was_asked_for() {
        let object = |include| for_crd(&[], &[route()], include, now())["rows"][0]["object"].clone();
        assert_eq!(object(IncludeObject::None), Value::Null);
        assert_eq!(object(IncludeObject::Object), route());
        assert_eq!(
            object(IncludeObject::Metadata),
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": route()["metadata"]})
        );
    }
}
