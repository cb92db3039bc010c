//! Our definitions accept, deny and fill in what the published ones do.
//!
//! The published definitions are not part of this project. They are compared
//! field by field when they are there: in the directory that
//! `FLOTILLA_PUBLISHED_CRDS` names, or beside the workspace.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::schema::definition;

/// Where we differ on purpose, and why: paths as [`compare`] reports them.
const DELIBERATE: &[(&str, &str)] = &[
    (
        "APIRoute.versions[0].schema.openAPIV3Schema.properties.status.properties.conditions.x-kubernetes-list",
        APPLIED,
    ),
    ("APIRoute.versions[0].schema.openAPIV3Schema.properties.status.properties.epoch", FENCED),
    (
        "GRPCRoute.versions[0].schema.openAPIV3Schema.properties.status.properties.conditions.x-kubernetes-list",
        APPLIED,
    ),
    ("GRPCRoute.versions[0].schema.openAPIV3Schema.properties.status.properties.epoch", FENCED),
    (
        "Backend.versions[0].schema.openAPIV3Schema.properties.status.properties.conditions.x-kubernetes-list",
        APPLIED,
    ),
    ("Backend.versions[0].schema.openAPIV3Schema.properties.status.properties.epoch", FENCED),
    (
        "GRPCBackend.versions[0].schema.openAPIV3Schema.properties.status.properties.conditions.x-kubernetes-list",
        APPLIED,
    ),
    ("GRPCBackend.versions[0].schema.openAPIV3Schema.properties.status.properties.epoch", FENCED),
];
const APPLIED: &str =
    "statuses are written by server-side apply, which must leave conditions of others alone";
const FENCED: &str =
    "a status tells in which epoch it was written, so that who acts in an earlier one sees it";

const KINDS: [(&str, &str); 4] = [
    ("APIRoute", "avapigw.io_apiroutes.yaml"),
    ("GRPCRoute", "avapigw.io_grpcroutes.yaml"),
    ("Backend", "avapigw.io_backends.yaml"),
    ("GRPCBackend", "avapigw.io_grpcbackends.yaml"),
];

/// Keywords whose order means nothing.
const SETS: [&str; 4] = ["required", "enum", "shortNames", "categories"];

fn directory() -> Option<PathBuf> {
    match std::env::var_os("FLOTILLA_PUBLISHED_CRDS") {
        Some(named) => {
            let named = PathBuf::from(named);
            assert!(
                named.is_dir(),
                "FLOTILLA_PUBLISHED_CRDS names {}, which is not a directory",
                named.display()
            );
            Some(named)
        }
        None => {
            let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/crds/avapigw");
            beside.is_dir().then_some(beside)
        }
    }
}

/// Reports every path at which `ours` is not what `published` is. Descriptions
/// are free.
fn compare(path: &str, published: &Value, ours: &Value, differences: &mut Vec<String>) {
    match (published, ours) {
        (Value::Object(published), Value::Object(ours)) => {
            let is_properties = path.ends_with(".properties");
            let keys: BTreeSet<&String> = published.keys().chain(ours.keys()).collect();
            for key in keys {
                if key == "description" && !is_properties {
                    continue;
                }
                let path = format!("{path}.{key}");
                match (published.get(key), ours.get(key)) {
                    (Some(published), Some(ours)) if SETS.contains(&key.as_str()) && !is_properties => {
                        if as_set(published) != as_set(ours) {
                            differences.push(format!("{path}: published {published}, ours {ours}"));
                        }
                    }
                    (Some(published), Some(ours)) => compare(&path, published, ours, differences),
                    (Some(published), None) => {
                        differences.push(format!("{path}: published {published}, ours lacks it"))
                    }
                    (None, Some(ours)) => {
                        differences.push(format!("{path}: ours {ours}, published lacks it"))
                    }
                    (None, None) => {}
                }
            }
        }
        (Value::Array(published), Value::Array(ours)) if published.len() == ours.len() => {
            for (index, (published, ours)) in published.iter().zip(ours).enumerate() {
                compare(&format!("{path}[{index}]"), published, ours, differences);
            }
        }
        _ if same_scalar(published, ours) => {}
        _ => differences.push(format!("{path}: published {published}, ours {ours}")),
    }
}

fn as_set(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(Value::to_string).collect()
}

fn same_scalar(one: &Value, other: &Value) -> bool {
    one == other || matches!((one.as_f64(), other.as_f64()), (Some(one), Some(other)) if one == other)
}

fn spec_of(definition: &Value) -> Value {
    definition["spec"].clone()
}

#[test]
fn published_crds_agree() {
    let Some(directory) = directory() else {
        println!("SKIPPED: no published definitions; name their directory in FLOTILLA_PUBLISHED_CRDS");
        return;
    };
    let mut differences = Vec::new();
    for (kind, file) in KINDS {
        let text = std::fs::read_to_string(directory.join(file)).expect(file);
        let published: Value = serde_saphyr::from_str(&text).expect(file);
        compare(kind, &spec_of(&published), &spec_of(&definition(kind)), &mut differences);
    }
    let is_deliberate = |difference: &String| DELIBERATE.iter().any(|(path, _)| difference.starts_with(path));
    let surprising: Vec<_> = differences.iter().filter(|difference| !is_deliberate(difference)).collect();
    assert!(surprising.is_empty(), "{} differences:\n{surprising:#?}", surprising.len());
    for (path, reason) in DELIBERATE {
        let there = differences.iter().any(|difference| difference.starts_with(path));
        assert!(there, "{path} no longer differs ({reason}): take it off the list");
    }
}

/// Every object in `value`, by JSON pointer.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.push(at.to_owned());
            fields.iter().for_each(|(key, nested)| objects(nested, &format!("{at}/{key}"), found));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, nested)| objects(nested, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

/// The comparison is only worth something if it misses nothing: whatever is
/// changed anywhere in a definition must be reported.
#[test]
fn every_change_to_a_definition_is_a_difference() {
    let original = spec_of(&definition("Backend"));
    let mut pointers = Vec::new();
    objects(&original, "", &mut pointers);
    assert!(pointers.len() > 200, "{}", pointers.len());
    let mut same = Vec::new();
    compare("Backend", &original, &original, &mut same);
    assert_eq!(same, [""; 0]);
    for pointer in pointers {
        let is_description = |key: &String| key == "description" && !pointer.ends_with("/properties");
        let fields: Map<String, Value> =
            original.pointer(&pointer).and_then(Value::as_object).cloned().unwrap_or_default();
        for key in fields.keys().filter(|key| !is_description(key)) {
            for change in [None, Some(json!("something else"))] {
                let mut changed = original.clone();
                let object =
                    changed.pointer_mut(&pointer).and_then(Value::as_object_mut).expect("still there");
                match change {
                    None => object.remove(key),
                    Some(other) => object.insert(key.clone(), other),
                };
                let mut differences = Vec::new();
                compare("Backend", &original, &changed, &mut differences);
                assert!(!differences.is_empty(), "{pointer}/{key}");
            }
        }
    }
}
