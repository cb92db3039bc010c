//! Finalizers: set and taken out only while the namespace is ours.

use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_k8s::Error;
use flotilla_k8s::finalizers::{hold, release};
use kube::api::{Api, DeleteParams, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;

use crate::server::{Server, on_every_server};

on_every_server!(who_lost_a_namespace_while_it_read_writes_nothing);
async fn who_lost_a_namespace_while_it_read_writes_nothing(server: Server) {
    let namespace = server.namespace().await;
    server.create(&namespace, Kind::Backend, "b", json!({"hosts": [{"address": "x", "port": 1}]})).await;
    let (client, kind, key) = (&server.client, Kind::Backend, ObjectKey::new(namespace.as_str(), "b"));
    let gvk = GroupVersionKind::gvk("avapigw.io", "v1alpha1", "Backend");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "backends");
    let api: Api<DynamicObject> = Api::namespaced_with(server.client.clone(), &namespace, &resource);
    let finalizers = async || api.get("b").await.unwrap().metadata.finalizers.unwrap_or_default();

    let refused = hold(client, kind, &key, || false).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    assert!(finalizers().await.is_empty());
    assert!(hold(client, kind, &key, || true).await.unwrap());
    assert!(!hold(client, kind, &key, || true).await.unwrap(), "it is there");
    assert_eq!(finalizers().await, [kind.finalizer()]);

    let uid = api.get("b").await.unwrap().metadata.uid.unwrap();
    assert!(!release(client, kind, &key, &uid, || true).await.unwrap(), "it is not being deleted");
    api.delete("b", &DeleteParams::default()).await.unwrap();
    let refused = release(client, kind, &key, &uid, || false).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    assert_eq!(finalizers().await, [kind.finalizer()]);
    assert!(!release(client, kind, &key, "another", || true).await.unwrap());
    assert!(release(client, kind, &key, &uid, || true).await.unwrap());
    assert!(api.get_opt("b").await.unwrap().is_none(), "nothing holds it any more");
}
