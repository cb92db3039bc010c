//! Status patches and their precondition.

use std::time::Duration;

use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_k8s::Error;
use flotilla_k8s::crd::install;
use flotilla_k8s::status::patch;
use flotilla_k8s::watch::list_once;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::server::{Server, on_every_server};

on_every_server!(a_late_status_changes_nothing);
async fn a_late_status_changes_nothing(server: Server) {
    let namespace = server.namespace().await;
    server.create(&namespace, Kind::Backend, "b", json!({"hosts": [{"address": "x", "port": 1}]})).await;
    let key = ObjectKey::new(namespace.as_str(), "b");
    let revision = || async {
        let (_, objects) = list_once(server.client.clone(), Kind::Backend).await.unwrap();
        objects.into_iter().find(|object| object.key == key).unwrap()
    };
    let before = revision().await;
    let body = |generation: i64| {
        json!({
            "apiVersion": "avapigw.io/v1alpha1",
            "kind": "Backend",
            "metadata": {"name": "b", "namespace": namespace, "resourceVersion": before.revision.to_string(),
                "uid": *before.uid},
            "status": {"observedGeneration": generation, "conditions": [], "epoch": 3},
        })
        .to_string()
        .into_bytes()
    };
    let written = patch(&server.client, Kind::Backend, &key, body(1)).await.unwrap();
    let after = revision().await;
    assert_eq!(written, Some(after.revision), "the answer says when it was written");
    assert!(after.revision > before.revision);
    assert_eq!(after.generation, before.generation, "a status is no change of the spec");
    assert_eq!(after.spec, before.spec);
    let late = patch(&server.client, Kind::Backend, &key, body(7)).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
    assert_eq!(revision().await.status, after.status);
    let none = String::from_utf8(body(1)).unwrap().replace("\"b\"", "\"none\"").into_bytes();
    let gone = patch(&server.client, Kind::Backend, &ObjectKey::new(namespace.as_str(), "none"), none).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
}

on_every_server!(what_the_published_operator_wrote_is_taken_out_in_one_write);
async fn what_the_published_operator_wrote_is_taken_out_in_one_write(server: Server) {
    let namespace = server.namespace().await;
    server.create(&namespace, Kind::Backend, "b", json!({"hosts": [{"address": "x", "port": 1}]})).await;
    let key = ObjectKey::new(namespace.as_str(), "b");
    let condition = |type_: &str, status: &str, reason: &str| {
        json!({"type": type_, "status": status, "reason": reason, "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1})
    };
    let gvk = GroupVersionKind::gvk("avapigw.io", "v1alpha1", "Backend");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "backends");
    let api: Api<DynamicObject> = Api::namespaced_with(server.client.clone(), &namespace, &resource);
    let mut object = api.get("b").await.unwrap();
    object.data["status"] = json!({
        "conditions": [condition("Ready", "True", "Reconciled"), condition("Audited", "True", "ByHand"),
            condition("Healthy", "True", "HealthCheckOK")],
        "observedGeneration": 1, "totalHosts": 1, "healthyHosts": 1, "lastHealthCheck": "2026-01-01T00:00:00Z",
    });
    // It writes by updates, under the name of its program.
    let params = PostParams { field_manager: Some("operator".to_owned()), ..PostParams::default() };
    let theirs = api.replace_status("b", &params, &object).await.unwrap();
    let body = |revision: Option<String>, status: Value| {
        let metadata = json!({"name": "b", "namespace": namespace, "resourceVersion": revision,
            "uid": theirs.metadata.uid});
        json!({"apiVersion": "avapigw.io/v1alpha1", "kind": "Backend", "metadata": metadata, "status": status})
            .to_string()
            .into_bytes()
    };
    let ours =
        |ready: &str| [condition("Ready", ready, "Applying"), condition("Healthy", "Unknown", "Applied")];
    let [ready, healthy] = ours("True");
    let first = json!({"conditions": [ready, condition("Audited", "True", "ByHand"), healthy], "epoch": 3,
        "observedGeneration": 1, "totalHosts": 1, "healthyHosts": null, "lastHealthCheck": null});
    let at = body(theirs.metadata.resource_version.clone(), first.clone());
    patch(&server.client, Kind::Backend, &key, at.clone()).await.unwrap();
    let found = api.get("b").await.unwrap();
    let mut left = first;
    left.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    assert_eq!(found.data["status"], left);
    let late = patch(&server.client, Kind::Backend, &key, at).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");

    // The next one is applied: ours change, and what is theirs stays.
    let [ready, healthy] = ours("False");
    let second =
        json!({"conditions": [ready, healthy], "epoch": 4, "observedGeneration": 1, "totalHosts": 2});
    let at = body(found.metadata.resource_version, second.clone());
    patch(&server.client, Kind::Backend, &key, at).await.unwrap();
    let found = api.get("b").await.unwrap();
    let mut conditions = found.data["status"]["conditions"].as_array().unwrap().clone();
    conditions.sort_by_key(|one| one["type"].to_string());
    let [ready, healthy] = ours("False");
    assert_eq!(conditions, [condition("Audited", "True", "ByHand"), healthy, ready]);
    assert_eq!((&found.data["status"]["totalHosts"], &found.data["status"]["epoch"]), (&json!(2), &json!(4)));
    assert!(found.data["status"].get("healthyHosts").is_none());
}

/// Definitions as others publish them: no epoch, and conditions are one value.
fn older(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = definition.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    for schema in schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()) {
        let status = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")).unwrap();
        let fields = status.properties.as_mut().unwrap();
        fields.remove("epoch");
        let Some(conditions) = fields.get_mut("conditions") else { continue };
        (conditions.x_kubernetes_list_type, conditions.x_kubernetes_list_map_keys) = (None, None);
    }
    definition
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_an_older_definition_statuses_are_written_and_spare_others() {
    let server = Server::embedded().await;
    let definitions: Vec<_> = flotilla_api::crd::crds().into_iter().map(older).collect();
    install(&server.client, &definitions, Duration::from_secs(60)).await.unwrap();
    let namespace = server.namespace().await;
    server.create(&namespace, Kind::Backend, "b", json!({"hosts": [{"address": "x", "port": 1}]})).await;
    let key = ObjectKey::new(namespace.as_str(), "b");
    let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let gvk = GroupVersionKind::gvk("avapigw.io", "v1alpha1", "Backend");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "backends");
    let api: Api<DynamicObject> = Api::namespaced_with(server.client.clone(), &namespace, &resource);
    let theirs =
        json!({"status": {"conditions": [condition("Audited", "True"), condition("Ready", "False")]}});
    api.patch_status("b", &PatchParams::default(), &Patch::Merge(&theirs)).await.unwrap();
    let found = api.get("b").await.unwrap();
    let body = json!({
        "apiVersion": "avapigw.io/v1alpha1",
        "kind": "Backend",
        "metadata": {"name": "b", "namespace": namespace, "resourceVersion": found.metadata.resource_version,
            "uid": found.metadata.uid},
        "status": {"epoch": 3, "observedGeneration": 1, "conditions": [condition("Ready", "True")]},
    });
    let body = body.to_string().into_bytes();
    patch(&server.client, Kind::Backend, &key, body.clone()).await.unwrap();
    let status = api.get("b").await.unwrap().data["status"].take();
    let conditions = json!([condition("Ready", "True"), condition("Audited", "True")]);
    assert_eq!(status, json!({"conditions": conditions, "observedGeneration": 1}));
    let late = patch(&server.client, Kind::Backend, &key, body).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
}
