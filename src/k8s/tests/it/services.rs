//! Services, followed.

use std::time::Duration;

use flotilla_k8s::services::{KnownService, Seen, follow};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::server::{Server, on_every_server};

type Told = mpsc::Receiver<Seen<KnownService>>;

/// Waits until something is told that fits.
async fn told(seen: &mut Told, fits: impl Fn(&Seen<KnownService>) -> bool) {
    let told = async { while !fits(&seen.recv().await.unwrap()) {} };
    timeout(Duration::from_secs(30), told).await.unwrap();
}

on_every_server!(services_are_told_with_their_named_ports_as_they_come_and_go);
async fn services_are_told_with_their_named_ports_as_they_come_and_go(server: Server) {
    let namespace = server.namespace().await;
    let api: Api<Service> = Api::namespaced(server.client.clone(), &namespace);
    let service = |name: &str| -> Service {
        let ports = json!([{"name": "http", "port": 80}, {"name": "more", "port": 81}]);
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"ports": ports}})).unwrap()
    };
    api.create(&PostParams::default(), &service("first")).await.unwrap();
    let (seen_in, mut seen) = mpsc::channel(4);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(follow(server.client.clone(), seen_in, cancel.clone()));
    let is = |known: &KnownService, name: &str| {
        let named: Vec<(&str, u16)> = known.ports.iter().map(|(name, port)| (name.as_str(), *port)).collect();
        *known.key.namespace == *namespace
            && &*known.key.name == name
            && named == [("http", 80), ("more", 81)]
    };
    told(&mut seen, |seen| matches!(seen, Seen::All(all) if all.iter().any(|one| is(one, "first")))).await;
    api.create(&PostParams::default(), &service("second")).await.unwrap();
    told(&mut seen, |seen| matches!(seen, Seen::Is(one) if is(one, "second"))).await;
    api.delete("first", &DeleteParams::default()).await.unwrap();
    told(&mut seen, |seen| matches!(seen, Seen::Gone(one) if is(one, "first"))).await;
    cancel.cancel();
    timeout(Duration::from_secs(30), task).await.unwrap().unwrap();
}

on_every_server!(who_may_not_read_services_is_told_that_nothing_is_known);
async fn who_may_not_read_services_is_told_that_nothing_is_known(server: Server) {
    let (seen_in, mut seen) = mpsc::channel(4);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(follow(server.limited.clone(), seen_in, cancel.clone()));
    let first = timeout(Duration::from_secs(30), seen.recv()).await.unwrap().unwrap();
    assert!(matches!(first, Seen::Lost), "{first:?}");
    cancel.cancel();
    timeout(Duration::from_secs(30), task).await.unwrap().unwrap();
}
