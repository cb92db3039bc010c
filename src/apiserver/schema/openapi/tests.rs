//! What clients look for in the documents.

use super::*;

fn builtin(group: &str, kind: &str, plural: &str, namespaced: bool) -> ResourceDef {
    ResourceDef {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        plural: plural.into(),
        namespaced,
        status: kind != "ConfigMap",
        schema: None,
    }
}

fn custom() -> ResourceDef {
    let spec = json!({"type": "object", "description": "What is wanted.", "properties": {
        "hosts": {"type": "array", "items": {"type": "string"}, "description": "Host names."},
        "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "maybe": {"type": "string", "nullable": true}}});
    ResourceDef {
        version: "v1alpha1".into(),
        schema: Some(json!({"type": "object", "description": "A route.", "properties": {"spec": spec}})),
        ..builtin("example.io", "Route", "routes", true)
    }
}

fn all() -> Vec<ResourceDef> {
    vec![
        builtin("", "Namespace", "namespaces", false),
        builtin("", "ConfigMap", "configmaps", true),
        builtin("", "Service", "services", true),
        custom(),
    ]
}

#[test]
fn every_patch_operation_offers_field_validation_for_its_kind() {
    let document = v3_document("example.io/v1alpha1", &all());
    let patch = &document["paths"]["/apis/example.io/v1alpha1/namespaces/{namespace}/routes/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "example.io", "version": "v1alpha1", "kind": "Route"})
    );
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    assert!(patch["requestBody"]["content"]["application/merge-patch+json"].is_object());
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_null());
    let core = v3_document("v1", &all());
    let patch = &core["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"];
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
}

#[test]
fn a_document_holds_its_own_version_and_nothing_else() {
    let document = v3_document("v1", &all());
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/api/v1/configmaps",
            "/api/v1/namespaces",
            "/api/v1/namespaces/{namespace}/configmaps",
            "/api/v1/namespaces/{namespace}/configmaps/{name}",
            "/api/v1/namespaces/{namespace}/services",
            "/api/v1/namespaces/{namespace}/services/{name}",
            "/api/v1/namespaces/{namespace}/services/{name}/status",
            "/api/v1/namespaces/{name}",
            "/api/v1/namespaces/{name}/status",
            "/api/v1/services",
        ]
    );
    assert!(document["components"]["schemas"].get("io.example.v1alpha1.Route").is_none());
}

#[test]
fn a_custom_resource_is_described_in_its_own_words() {
    let document = v3_document("example.io/v1alpha1", &all());
    let schema = &document["components"]["schemas"]["io.example.v1alpha1.Route"];
    assert_eq!(schema["description"], "A route.");
    assert_eq!(schema["properties"]["spec"]["properties"]["hosts"]["description"], "Host names.");
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{"group": "example.io", "version": "v1alpha1", "kind": "Route"}])
    );
    assert!(schema["properties"]["metadata"]["allOf"][0]["$ref"].as_str().unwrap().ends_with(".ObjectMeta"));
}

#[test]
fn lists_to_be_merged_say_by_which_key() {
    let document = v3_document("v1", &all());
    let ports = &document["components"]["schemas"]["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
}

fn dangling(value: &Value, prefix: &str, known: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                match reference.strip_prefix(prefix) {
                    Some(name) if known.get(name).is_some() => {}
                    _ => found.push(reference.clone()),
                }
            }
            map.values().for_each(|value| dangling(value, prefix, known, found));
        }
        Value::Array(items) => items.iter().for_each(|item| dangling(item, prefix, known, found)),
        _ => {}
    }
}

#[test]
fn every_reference_stays_inside_its_document() {
    let mut found = Vec::new();
    for version in ["v1", "example.io/v1alpha1"] {
        let document = v3_document(version, &all());
        dangling(&document, "#/components/schemas/", &document["components"]["schemas"], &mut found);
    }
    let document = v2_document(&all());
    dangling(&document, "#/definitions/", &document["definitions"], &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn version_2_leaves_out_what_it_cannot_say() {
    let document = v2_document(&all());
    let spec = &document["definitions"]["io.example.v1alpha1.Route"]["properties"]["spec"];
    assert_eq!(spec["properties"]["port"], json!({"x-kubernetes-int-or-string": true}));
    assert_eq!(spec["properties"]["maybe"], json!({}));
    let metadata = &document["definitions"]["io.k8s.api.core.v1.ConfigMap"]["properties"]["metadata"];
    assert_eq!(metadata["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
}

/// The fields of a protobuf message: number and content of those that are delimited.
fn delimited(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        match tag & 7 {
            0 => drop(varint(&mut bytes)),
            1 => bytes = &bytes[8..],
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (content, rest) = bytes.split_at(length);
                found.push((tag >> 3, content));
                bytes = rest;
            }
            other => panic!("wire type {other}"),
        }
    }
    found
}

fn first(bytes: &[u8], field: u64) -> &[u8] {
    delimited(bytes).into_iter().find(|(number, _)| *number == field).unwrap().1
}

#[test]
fn protobuf_carries_definitions_paths_and_extensions() {
    let bytes = v2_protobuf(&v2_document(&all()));
    assert_eq!(first(&bytes, 1), b"2.0");
    assert_eq!(first(first(&bytes, 2), 1), b"Kubernetes");
    let names = |bytes, field| -> Vec<String> {
        let entries = delimited(bytes).into_iter().filter(|(number, _)| *number == field);
        entries.map(|(_, entry)| String::from_utf8(first(entry, 1).to_vec()).unwrap()).collect()
    };
    assert!(names(first(&bytes, 8), 2).contains(&"/api/v1/namespaces/{name}".to_owned()));
    assert!(names(first(&bytes, 9), 1).contains(&"io.example.v1alpha1.Route".to_owned()));
    let route = delimited(first(&bytes, 9))
        .into_iter()
        .find(|(_, entry)| first(entry, 1) == b"io.example.v1alpha1.Route")
        .map(|(_, entry)| first(entry, 2))
        .unwrap();
    let extension = first(route, 31);
    assert_eq!(first(extension, 1), b"x-kubernetes-group-version-kind");
    assert_eq!(
        first(first(extension, 2), 2),
        br#"[{"group":"example.io","kind":"Route","version":"v1alpha1"}]"#
    );
}
