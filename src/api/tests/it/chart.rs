//! The definitions in the chart are those that the code prints.

use std::path::PathBuf;

use flotilla_api::crd::{crd_files, crd_yaml, crds};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../charts/flotilla/crds")
}

#[test]
fn definitions_in_the_chart_are_current() {
    const REMEDY: &str = "run `cargo run -p flotilla-api --example crds -- charts/flotilla/crds`";
    let files = crd_files();
    for (name, content) in &files {
        let path = directory().join(name);
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == *content, "{name} in the chart is stale; {REMEDY}");
    }
    let mut present: Vec<_> = std::fs::read_dir(directory())
        .expect("the chart keeps its definitions")
        .map(|entry| entry.expect("a readable entry").file_name().into_string().expect("a name in UTF-8"))
        .collect();
    present.sort();
    let mut expected: Vec<_> = files.into_iter().map(|(name, _)| name).collect();
    expected.sort();
    assert_eq!(present, expected, "the chart has files of no kind, or lacks some; {REMEDY}");
}

#[test]
fn the_reference_of_resources_is_current() {
    let path = directory().join("../RESOURCES.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let reference = flotilla_api::reference::reference();
    assert!(
        written == reference,
        "{} is stale; run `cargo run -p flotilla-api --example reference -- charts/flotilla/RESOURCES.md`",
        path.display()
    );
    for row in [
        "| `spec.route[].weight` | integer | `100` | at least 0; at most 100 | Share of the requests, relative to the others. |",
        "| `spec.timeout` | duration |  |  | Time limit of a request with all its retries. |",
        "| `spec.hosts[].address` | string |  | required; at least 1 characters |",
    ] {
        assert!(reference.contains(row), "{row}");
    }
}

#[test]
fn definitions_come_in_a_stable_order() {
    let names: Vec<_> = crds().iter().map(|crd| crd.metadata.name.clone().unwrap_or_default()).collect();
    assert_eq!(
        names,
        [
            "apiroutes.avapigw.io",
            "grpcroutes.avapigw.io",
            "backends.avapigw.io",
            "grpcbackends.avapigw.io",
            "shardmaps.fleet.flotilla.dev"
        ]
    );
    assert_eq!(crd_yaml().matches("\n---\n").count() + 1, names.len());
    assert_eq!(crd_yaml(), crd_files().into_iter().map(|(_, content)| content).collect::<String>());
}

#[test]
fn yaml_says_the_same_as_json() {
    for (crd, (name, content)) in crds().iter().zip(crd_files()) {
        let read: serde_json::Value = serde_saphyr::from_str(&content).expect(&name);
        assert_eq!(read, flotilla_api::crd::crd_json(crd), "{name}");
    }
}

#[test]
fn the_shard_map_shows_what_operators_ask_for() {
    let definition = super::schema::definition("ShardMap");
    let spec = &definition["spec"];
    assert_eq!(spec["scope"], "Cluster");
    assert_eq!(spec["names"]["shortNames"], serde_json::json!(["sm"]));
    assert_eq!(spec["versions"][0]["subresources"], serde_json::json!({ "status": {} }));
    let columns: Vec<_> = spec["versions"][0]["additionalPrinterColumns"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|column| column["name"].as_str())
        .collect();
    let wanted = ["Epoch", "Leader", "Members", "Away", "Imbalance", "Exceptions", "Shares", "Age"];
    assert_eq!(columns, wanted);
}
