//! The project's own table of what the schemas accept, deny, fill in and drop.
//!
//! `tests/cases` is data: the end-to-end tests put every case to an API
//! server. Here it is checked that the table fits the types and the schemas.

use std::collections::BTreeSet;
use std::path::Path;

use flotilla_api::avapigw::{ApiRouteSpec, BackendSpec, GrpcBackendSpec, GrpcRouteSpec};
use flotilla_api::fleet::ShardMapSpec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::schema::{field, object_schema, pointer};
use super::table::{Case, Table, Verdict, read};

fn tables() -> Vec<Table> {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"))
}

fn for_each_case(mut check: impl FnMut(&str, &Value, &Case)) {
    for table in tables() {
        let schema = object_schema(&table.kind);
        for case in &table.cases {
            check(&table.kind, &schema, case);
        }
    }
}

/// What remains of a spec that goes through the types, or why it does not fit them.
fn through_types(kind: &str, spec: &Value) -> Result<Value, String> {
    fn through<T: DeserializeOwned + Serialize>(spec: &Value) -> Result<Value, String> {
        let typed: T = serde_json::from_value(spec.clone()).map_err(|error| error.to_string())?;
        serde_json::to_value(typed).map_err(|error| error.to_string())
    }
    match kind {
        "APIRoute" => through::<ApiRouteSpec>(spec),
        "GRPCRoute" => through::<GrpcRouteSpec>(spec),
        "Backend" => through::<BackendSpec>(spec),
        "GRPCBackend" => through::<GrpcBackendSpec>(spec),
        "ShardMap" => through::<ShardMapSpec>(spec),
        other => Err(format!("no kind {other}")),
    }
}

#[test]
fn every_case_is_about_a_field_of_the_schema() {
    for_each_case(|kind, schema, case| {
        let found = field(schema, &case.path);
        assert_eq!(found.is_some(), case.verdict != Verdict::Prune, "{kind} {}: {}", case.name, case.path);
        if case.verdict == Verdict::Default {
            assert!(case.expected.is_some(), "{kind} {}: nothing expected", case.name);
            assert_eq!(
                found.and_then(|field| field.get("default")),
                case.expected.as_ref(),
                "{kind} {}",
                case.name
            );
        }
    });
}

#[test]
fn accepted_specs_survive_the_types() {
    for_each_case(|kind, schema, case| {
        if case.verdict != Verdict::Accept {
            return;
        }
        let after =
            through_types(kind, &case.spec).unwrap_or_else(|error| panic!("{kind} {}: {error}", case.name));
        assert_eq!(
            without_defaults(&after, &case.spec, &schema["properties"]["spec"]),
            case.spec,
            "{kind} {}",
            case.name
        );
    });
}

/// Leaves out of `after` what the schema would fill in and `before` does not have.
fn without_defaults(after: &Value, before: &Value, schema: &Value) -> Value {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => after
            .iter()
            .filter_map(|(key, value)| {
                let nested = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
                match before.get(key) {
                    Some(before) => Some((key.clone(), without_defaults(value, before, nested))),
                    None => (nested.get("default") != Some(value)).then(|| (key.clone(), value.clone())),
                }
            })
            .collect(),
        (Value::Array(after), Value::Array(before)) if after.len() == before.len() => after
            .iter()
            .zip(before)
            .map(|(after, before)| without_defaults(after, before, &schema["items"]))
            .collect(),
        _ => after.clone(),
    }
}

#[test]
fn unknown_fields_do_not_survive_the_types() {
    let mut seen = 0;
    for_each_case(|kind, _, case| {
        if case.verdict == Verdict::Prune {
            seen += 1;
            let at = pointer(case.path.strip_prefix("spec").unwrap_or_default().trim_start_matches('.'));
            assert!(case.spec.pointer(&at).is_some(), "{kind} {}: the spec lacks {}", case.name, case.path);
            let after = through_types(kind, &case.spec)
                .unwrap_or_else(|error| panic!("{kind} {}: {error}", case.name));
            assert_eq!(after.pointer(&at), None, "{kind} {}", case.name);
        }
    });
    assert!(seen >= 10, "{seen}");
}

#[test]
fn the_table_covers_every_verdict_of_every_kind() {
    let (mut covered, mut names) = (BTreeSet::new(), BTreeSet::new());
    for_each_case(|kind, _, case| {
        covered.insert((kind.to_owned(), case.verdict));
        assert!(names.insert((kind.to_owned(), case.name.clone())), "{kind} {} is there twice", case.name);
    });
    assert_eq!(covered.len(), 5 * 4, "kinds and verdicts");
    assert!(names.len() > 600, "{}", names.len());
}
