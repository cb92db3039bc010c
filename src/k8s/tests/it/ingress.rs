//! What is asked about Ingresses before what they asked for is carried out.

use flotilla_core::ids::ObjectKey;
use flotilla_k8s::ingress::{Owner, Standing, standing};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::server::{Server, on_every_server};

on_every_server!(what_became_of_an_ingress_since_it_was_seen_is_told);
async fn what_became_of_an_ingress_since_it_was_seen_is_told(server: Server) {
    let namespace = server.namespace().await;
    let api: Api<Ingress> = Api::namespaced(server.client.clone(), &namespace);
    let create = async |name: &str| {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let ingress = json!({"metadata": {"name": name}, "spec": {"defaultBackend": backend}});
        let ingress: Ingress = serde_json::from_value(ingress).unwrap();
        let made = api.create(&PostParams::default(), &ingress).await.unwrap();
        let key = ObjectKey::new(namespace.as_str(), name);
        let owner = Owner { key, uid: made.metadata.uid.unwrap() };
        (owner, made.metadata.resource_version.unwrap())
    };
    let stands =
        async |(owner, revision): &(Owner, String)| standing(&server.client, owner, revision).await.unwrap();
    let (one, other) = (create("one").await, create("other").await);
    assert_eq!((stands(&one).await, stands(&other).await), (Standing::AsSeen, Standing::AsSeen));

    api.delete("one", &DeleteParams::default()).await.unwrap();
    assert_eq!(stands(&one).await, Standing::Gone);
    let again = create("one").await;
    assert_eq!((stands(&again).await, stands(&one).await), (Standing::AsSeen, Standing::Gone));

    let finalizers = |list: serde_json::Value| Patch::Merge(json!({"metadata": {"finalizers": list}}));
    let parameters = PatchParams::default();
    let held = api.patch("other", &parameters, &finalizers(json!(["example.com/held"]))).await.unwrap();
    assert_eq!(stands(&other).await, Standing::Changed);
    let other = (other.0, held.metadata.resource_version.unwrap());
    api.delete("other", &DeleteParams::default()).await.unwrap();
    assert_eq!(stands(&other).await, Standing::Changed, "it is being deleted");
    api.patch("other", &parameters, &finalizers(json!([]))).await.unwrap();
}
