//! Objects as the published operator leaves them behind, with its statuses and finalizers: a fleet that comes in its
//! place writes each status once at most, and not again.

use std::collections::BTreeMap;

use flotilla_core::ids::Kind;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::fleet::objects::{answering, backend};
use crate::fleet::{Against, Fleet};

const NAMESPACES: [&str; 3] = ["team-a", "team-b", "team-c"];
const THEN: &str = "2026-01-01T00:00:00Z";

/// As it writes them (without asking any gateway or host).
fn status(kind: Kind) -> Value {
    let condition = |type_: &str, reason: &str, message: &str| {
        json!({"type": type_, "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": THEN, "observedGeneration": 1})
    };
    if kind.is_route() {
        return json!({
            "conditions": [condition("Ready", "Reconciled", "Route successfully applied")],
            "observedGeneration": 1,
        });
    }
    json!({
        "conditions": [
            condition("Ready", "Reconciled", "Backend successfully applied"),
            condition("Healthy", "HealthCheckOK", "All hosts are healthy"),
        ],
        "observedGeneration": 1,
        "totalHosts": 1,
        "healthyHosts": 1,
        "lastHealthCheck": THEN,
    })
}

async fn left_behind(fleet: &Fleet, kind: Kind, namespace: &str, name: &str, spec: Value) {
    fleet.tenants.create(kind, namespace, name, spec).await;
    let api = fleet.tenants.api(kind, namespace);
    let finalizer = format!("{}.avapigw.io/finalizer", kind.name().to_lowercase());
    let held = Patch::Merge(json!({"metadata": {"finalizers": [finalizer]}}));
    let mut object = api.patch(name, &PatchParams::default(), &held).await.unwrap();
    object.data["status"] = status(kind);
    let by = PostParams { field_manager: Some("operator".to_owned()), ..PostParams::default() };
    api.replace_status(name, &by, &object).await.unwrap();
}

/// Revisions of all objects, which every write of a status moves.
async fn revisions(fleet: &Fleet) -> BTreeMap<String, u64> {
    let all = fleet.tenants.all().await.unwrap();
    all.iter().map(|object| (format!("{} {}", object.kind, object.key), object.revision.0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_published_operator_left_is_written_once_and_never_again() {
    let Some(mut fleet) = Fleet::start(Against::Real).await else { return };
    fleet.tenants.namespaces(NAMESPACES.map(str::to_owned)).await;
    for namespace in NAMESPACES {
        for number in 0..5 {
            let route = format!("route-{number}");
            left_behind(&fleet, Kind::ApiRoute, namespace, &route, answering(namespace, &route, "x")).await;
            let name = format!("backend-{number}");
            left_behind(&fleet, Kind::Backend, namespace, &name, backend(8080 + number)).await;
        }
    }
    fleet.add_replicas(2).await;
    fleet.add_gateways("gateway", 2).await;
    fleet.settled().await;

    let mut written = BTreeMap::<String, usize>::new();
    for replica in &fleet.replicas {
        for line in replica.log_lines(&["status written"]) {
            let line: Value = serde_json::from_str(&line).unwrap();
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            *written.entry(format!("{} {}", text("namespace"), text("name"))).or_default() += 1;
        }
    }
    assert_eq!(written.len(), 30, "{written:?}");
    assert!(written.values().all(|times| *times == 1), "{written:?}");

    for object in fleet.tenants.all().await.unwrap() {
        let status: Value = serde_json::from_slice(&object.status).unwrap();
        assert_eq!(
            (status.get("healthyHosts"), status.get("lastHealthCheck")),
            (None, None),
            "{}: nobody here checks hosts: {status}",
            object.key
        );
        let conditions = status["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|one| one["type"] == "Ready").unwrap();
        assert_eq!(ready["lastTransitionTime"], THEN, "it was ready and is");
    }
    let kept = fleet.tenants.api(Kind::Backend, "team-a").get("backend-0").await.unwrap();
    assert_eq!(kept.finalizers(), ["backend.avapigw.io/finalizer"], "what is not deleted is left as it is");

    // Whoever comes next finds nothing to write.
    let before = revisions(&fleet).await;
    fleet.restart_all().await;
    fleet.tenants.create(Kind::ApiRoute, "team-a", "new", answering("team-a", "new", "x")).await;
    fleet.settled().await;
    let mut after = revisions(&fleet).await;
    after.retain(|key, _| before.contains_key(key));
    assert_eq!(after, before, "statuses were written again");
    fleet.nothing_went_back().await;
}
