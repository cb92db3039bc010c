//! The endpoints of Services, followed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use flotilla_k8s::endpoints::{ServicePort, follow};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::server::{Server, on_every_server};

/// Waits until these addresses are told.
async fn told(found: &mut mpsc::Receiver<(ServicePort, BTreeSet<SocketAddr>)>, expected: &[&str]) {
    let expected: BTreeSet<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
    let told = async { while found.recv().await.unwrap().1 != expected {} };
    timeout(Duration::from_secs(30), told).await.unwrap();
}

on_every_server!(endpoints_of_a_service_are_told_as_they_come_and_go);
async fn endpoints_of_a_service_are_told_as_they_come_and_go(server: Server) {
    let namespace = server.namespace().await;
    let api: Api<EndpointSlice> = Api::namespaced(server.client.clone(), &namespace);
    let slice = |name: &str, service: &str, address: &str| -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "push", "port": 9446}],
            "endpoints": [{"addresses": [address]}],
        }))
        .unwrap()
    };
    api.create(&PostParams::default(), &slice("one", "edge", "10.0.0.1")).await.unwrap();
    api.create(&PostParams::default(), &slice("other", "other", "10.9.9.9")).await.unwrap();
    let (found_in, mut found) = mpsc::channel(4);
    let cancel = CancellationToken::new();
    let service: ServicePort = format!("{namespace}/edge:push").parse().unwrap();
    let task = tokio::spawn(follow(server.client.clone(), service, found_in, cancel.clone()));
    told(&mut found, &["10.0.0.1:9446"]).await;
    api.create(&PostParams::default(), &slice("two", "edge", "10.0.0.2")).await.unwrap();
    told(&mut found, &["10.0.0.1:9446", "10.0.0.2:9446"]).await;
    let moved = Patch::Merge(json!({"endpoints": [{"addresses": ["10.0.0.3"]}]}));
    api.patch("two", &PatchParams::default(), &moved).await.unwrap();
    told(&mut found, &["10.0.0.1:9446", "10.0.0.3:9446"]).await;
    api.delete("one", &DeleteParams::default()).await.unwrap();
    told(&mut found, &["10.0.0.3:9446"]).await;
    cancel.cancel();
    timeout(Duration::from_secs(30), task).await.unwrap().unwrap();
}
