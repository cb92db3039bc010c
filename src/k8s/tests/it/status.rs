//! Status patches and their precondition.

use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_k8s::Error;
use flotilla_k8s::status::patch;
use flotilla_k8s::watch::list_once;
use serde_json::json;

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
            "metadata": {"resourceVersion": before.revision.to_string(), "uid": *before.uid},
            "status": {"observedGeneration": generation, "conditions": []},
        })
        .to_string()
        .into_bytes()
    };
    patch(&server.client, Kind::Backend, &key, body(1)).await.unwrap();
    let after = revision().await;
    assert!(after.revision > before.revision);
    assert_eq!(after.generation, before.generation, "a status is no change of the spec");
    assert_eq!(after.spec, before.spec);
    let late = patch(&server.client, Kind::Backend, &key, body(7)).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
    assert_eq!(revision().await.status, after.status);
    let gone =
        patch(&server.client, Kind::Backend, &ObjectKey::new(namespace.as_str(), "none"), body(1)).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
}
