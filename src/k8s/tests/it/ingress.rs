//! What is asked about Ingresses before something is made of them.

use flotilla_core::ids::ObjectKey;
use flotilla_k8s::ingress::{Owner, is_there};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::server::{Server, on_every_server};

on_every_server!(an_ingress_that_goes_or_is_another_by_now_is_not_there);
async fn an_ingress_that_goes_or_is_another_by_now_is_not_there(server: Server) {
    let namespace = server.namespace().await;
    let api: Api<Ingress> = Api::namespaced(server.client.clone(), &namespace);
    let create = async |name: &str| {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let ingress = json!({"metadata": {"name": name}, "spec": {"defaultBackend": backend}});
        let ingress: Ingress = serde_json::from_value(ingress).unwrap();
        let made = api.create(&PostParams::default(), &ingress).await.unwrap();
        Owner { key: ObjectKey::new(namespace.as_str(), name), uid: made.metadata.uid.unwrap() }
    };
    let there = async |owner: &Owner| is_there(&server.client, owner).await.unwrap();
    let (one, other) = (create("one").await, create("other").await);
    assert!(there(&one).await && there(&other).await);

    api.delete("one", &DeleteParams::default()).await.unwrap();
    assert!(!there(&one).await, "it is gone");
    let again = create("one").await;
    assert!(there(&again).await && !there(&one).await, "it is another one");

    let finalizers = |list: serde_json::Value| Patch::Merge(json!({"metadata": {"finalizers": list}}));
    let parameters = PatchParams::default();
    api.patch("other", &parameters, &finalizers(json!(["example.com/held"]))).await.unwrap();
    api.delete("other", &DeleteParams::default()).await.unwrap();
    assert!(!there(&other).await, "it is being deleted");
    api.patch("other", &parameters, &finalizers(json!([]))).await.unwrap();
}
