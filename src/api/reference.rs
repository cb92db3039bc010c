//! The reference of all resources, as a page for people: made of the definitions, so that it says what API servers do.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use crate::avapigw::DURATION_PATTERN;
use crate::crd::crds;

/// The page, in Markdown.
pub fn reference() -> String {
    let mut page = "# Resources\n\n\
        Every field of every kind, as the API server checks it. What is checked beyond that, such as which fields exclude each other,\n\
        replicas say when they are asked about admission. `[]` is each entry of a list, `.*` each value of a map, and a\n\
        duration is written like `1m30s`. Written by `cargo run -p flotilla-api --example reference -- charts/flotilla/RESOURCES.md`.\n"
        .to_owned();
    for crd in &crds() {
        kind(&mut page, crd);
    }
    page
}

fn kind(page: &mut String, crd: &CustomResourceDefinition) {
    let names = &crd.spec.names;
    let short = names.short_names.as_deref().unwrap_or_default().join("`, `");
    for version in &crd.spec.versions {
        let Some(schema) = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref())
        else {
            continue;
        };
        let properties = schema.properties.as_ref();
        let description = schema.description.as_deref().unwrap_or_default();
        let _ = writeln!(page, "\n## {}\n\n{description}\n", names.kind);
        let _ =
            writeln!(page, "`{}/{}`, {}; short: `{short}`\n", crd.spec.group, version.name, crd.spec.scope);
        let _ = writeln!(page, "| field | type | default | rules | meaning |\n|---|---|---|---|---|");
        for part in ["spec", "status"] {
            if let Some(schema) = properties.and_then(|properties| properties.get(part)) {
                fields(page, part, schema);
            }
        }
    }
}

/// The fields of an object, each with those in it.
fn fields(page: &mut String, path: &str, schema: &JSONSchemaProps) {
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        // What has a default need not be written.
        row(page, &path, field, required.contains(name) && field.default.is_none());
        inner(page, &path, field);
    }
}

/// What is in a value: fields, entries, or values of a map.
fn inner(page: &mut String, path: &str, schema: &JSONSchemaProps) {
    fields(page, path, schema);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        inner(page, &format!("{path}[]"), items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        inner(page, &format!("{path}.*"), values);
    }
}

fn row(page: &mut String, path: &str, field: &JSONSchemaProps, required: bool) {
    let default = field.default.as_ref().map(|default| format!("`{}`", cell(&default.0.to_string())));
    let meaning = cell(field.description.as_deref().unwrap_or_default());
    let default = default.unwrap_or_default();
    let _ = writeln!(
        page,
        "| `{path}` | {} | {default} | {} | {meaning} |",
        type_of(field),
        rules(field, required).join("; ")
    );
}

fn type_of(schema: &JSONSchemaProps) -> String {
    let plain = |schema: &JSONSchemaProps| schema.type_.clone().unwrap_or_else(|| "any".to_owned());
    if schema.pattern.as_deref() == Some(DURATION_PATTERN) {
        return "duration".to_owned();
    }
    match (&schema.items, &schema.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(items)), _) => format!("list of {}", type_of(items)),
        (_, Some(JSONSchemaPropsOrBool::Schema(values))) => format!("map of {}", type_of(values)),
        _ => plain(schema),
    }
}

/// What a value must fulfil.
fn rules(schema: &JSONSchemaProps, required: bool) -> Vec<String> {
    let mut rules = Vec::new();
    if required {
        rules.push("required".to_owned());
    }
    if let Some(values) = &schema.enum_ {
        let values: Vec<_> = values.iter().map(|value| format!("`{}`", cell(&value.0.to_string()))).collect();
        rules.push(values.join(", "));
    }
    let bounds = [
        ("at least", schema.minimum, ""),
        ("at most", schema.maximum, ""),
        ("at least", count(schema.min_items), " entries"),
        ("at most", count(schema.max_items), " entries"),
        ("at least", count(schema.min_length), " characters"),
        ("at most", count(schema.max_length), " characters"),
    ];
    rules.extend(
        bounds.into_iter().filter_map(|(word, bound, unit)| Some(format!("{word} {}{unit}", bound?))),
    );
    if let Some(pattern) = schema.pattern.as_deref().filter(|pattern| *pattern != DURATION_PATTERN) {
        rules.push(format!("matches `{}`", cell(pattern)));
    }
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        rules.push(cell(rule.message.as_deref().unwrap_or(&rule.rule)));
    }
    rules
}

fn count(bound: Option<i64>) -> Option<f64> {
    bound.map(|bound| bound as f64)
}

/// A text that stands in one cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
