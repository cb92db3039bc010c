//! Objects as users write them go through the types unharmed and are fit to be sent.

use std::path::PathBuf;

use flotilla_api::avapigw::{APIRoute, Backend, GRPCBackend, GRPCRoute, Kind};
use flotilla_api::fleet::ShardMap;
use flotilla_api::validation::inspect;
use kube_core::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

fn samples() -> Vec<(String, Value)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("the samples are part of the crate")
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    files.sort();
    let mut samples = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        for document in text.split("\n---\n") {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let object = serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{name}: {error}"));
            samples.push((name, object));
        }
    }
    assert!(samples.len() >= 9, "{}", samples.len());
    samples
}

fn round_trip<K>(name: &str, object: &Value)
where
    K: DeserializeOwned + serde::Serialize + Clone + PartialEq + std::fmt::Debug + Resource<DynamicType = ()>,
{
    let typed: K = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(K::kind(&()), object["kind"].as_str().unwrap_or_default());
    assert_eq!(K::api_version(&()), object["apiVersion"].as_str().unwrap_or_default());
    assert_eq!(Some(typed.name_any().as_str()), object["metadata"]["name"].as_str());
    let written = serde_json::to_value(&typed).expect("JSON");
    assert_eq!(written["spec"], object["spec"], "{name}");
    assert_eq!(written.get("status"), object.get("status"), "{name}");
    let again: K = serde_json::from_value(written).expect("what was written can be read");
    assert_eq!(again, typed, "{name}");
}

#[test]
fn objects_survive_the_types() {
    for (name, object) in samples() {
        match object["kind"].as_str() {
            Some("APIRoute") => round_trip::<APIRoute>(&name, &object),
            Some("GRPCRoute") => round_trip::<GRPCRoute>(&name, &object),
            Some("Backend") => round_trip::<Backend>(&name, &object),
            Some("GRPCBackend") => round_trip::<GRPCBackend>(&name, &object),
            Some("ShardMap") => round_trip::<ShardMap>(&name, &object),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn objects_are_fit_to_be_sent() {
    for (name, object) in samples() {
        let Some(kind) = object["kind"].as_str().and_then(Kind::from_name) else { continue };
        let spec = object["spec"].to_string();
        let inspection = inspect(kind, spec.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!inspection.catch_all, "{name}");
        let routes = object["spec"]["route"].as_array().map_or(0, Vec::len);
        let mirrors = usize::from(object["spec"].get("mirror").is_some());
        assert_eq!(inspection.destinations.len(), routes + mirrors, "{name}");
    }
}

#[test]
fn an_object_without_status_is_written_without_one() {
    let route = APIRoute::new("plain", Default::default());
    let written = serde_json::to_value(&route).expect("JSON");
    assert_eq!(
        written,
        serde_json::json!({
            "apiVersion": "avapigw.io/v1alpha1",
            "kind": "APIRoute",
            "metadata": { "name": "plain" },
            "spec": {},
        })
    );
}
