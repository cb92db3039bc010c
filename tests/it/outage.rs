//! The API server is away for a while. Gateways and replicas go on, and
//! afterwards everything does.

use std::time::Duration;

use flotilla_core::ids::Kind;
use serde_json::json;
use tokio::time::Instant;

use crate::fleet::gateways::Gateways;
use crate::fleet::objects::{answering, backend, leading};
use crate::fleet::proxy::Proxy;
use crate::fleet::waiting::{SOON, figure, full_length, throughout, within};
use crate::fleet::{Against, Fleet, program, shards};

fn namespaces() -> impl Iterator<Item = String> {
    (0..10).map(|number| format!("team-{number}"))
}

async fn an_api_server_is_away(against: Against) {
    let Some(mut fleet) = Fleet::start(against).await else { return };
    fleet.tenants.namespaces(namespaces()).await;
    let backends = namespaces().map(|namespace| (namespace, "api".to_owned(), backend(8080)));
    fleet.tenants.create_all(Kind::Backend, backends).await;
    for name in ["one", "two", "three"] {
        let route =
            |namespace: String| (namespace.clone(), name.to_owned(), leading(&namespace, name, "api"));
        fleet.tenants.create_all(Kind::ApiRoute, namespaces().map(route)).await;
    }
    fleet.add_replicas(2).await;
    fleet.add_gateways("gateway", 3).await;
    let mut proxy = Proxy::start(fleet.replicas[0].grpc).await;
    fleet.add_gateways_to("returning", 1, &[proxy.address()]).await;
    fleet.settled().await;
    let authority = fleet.authority().await;
    let operators = fleet.operators();
    let before = fleet.show().await.unwrap();
    let map = shards::published(&fleet.client()).await.unwrap();

    let away = full_length(Duration::from_secs(30));
    let back_at = Instant::now() + away;
    fleet.server.go_away();
    // Things that happen meanwhile: a gateway loses its stream, another one is
    // new, and so is a replica.
    proxy.close();
    proxy.lead_to(fleet.replicas[1].grpc);
    fleet.add_replica(&[]).start();
    let newcomer = Gateways::start(program(), &authority, fleet.path(), "newcomer", 1, &operators).await;
    fleet.gateways.push(newcomer);
    proxy.open().await;
    let digest = &before[0].digest;
    within(away - Duration::from_secs(5), "gateways that come during an outage are served", async || {
        for gateway in fleet.show().await? {
            if (&gateway.digest, gateway.phase.as_str()) != (digest, "streaming") {
                return Err(format!("{gateway:?}"));
            }
        }
        Ok(())
    })
    .await;
    throughout(back_at - Instant::now(), "everything goes on during an outage", async || {
        fleet.check()?;
        match fleet.show().await?.into_iter().find(|gateway| gateway.digest != *digest) {
            None => Ok(()),
            Some(gateway) => Err(format!("{gateway:?}")),
        }
    })
    .await;
    assert_eq!(fleet.removed(), Vec::<String>::new());
    for replica in &fleet.replicas[..2] {
        assert_eq!(replica.probe("/readyz").await.unwrap().0, 200, "{} stopped serving", replica.name);
    }
    let newest = &fleet.replicas[2];
    assert_eq!(
        newest.probe("/readyz").await.unwrap().0,
        503,
        "a replica that knows nothing yet is not ready"
    );
    assert_eq!(newest.probe("/healthz").await.unwrap().0, 200);
    assert!(!newest.log_lines(&["standing by"]).is_empty(), "it does not say what it waits for");

    fleet.server.come_back().await;
    within(SOON, "the API server answers again", async || shards::published(&fleet.client()).await.map(drop))
        .await;
    let back = Instant::now();
    for (number, namespace) in namespaces().enumerate() {
        fleet.tenants.change(Kind::ApiRoute, &namespace, "one", json!({"timeout": "7s"})).await;
        fleet.tenants.create(Kind::ApiRoute, &namespace, "new", answering(&namespace, "new", "x")).await;
        if number == 0 {
            fleet.tenants.delete(Kind::ApiRoute, &namespace, "two").await;
        }
    }
    fleet.settled().await;
    figure(&format!(
        "outage, {against:?} API server: away for {} s; everything equal {} ms after its return, changes included",
        away.as_secs(),
        back.elapsed().as_millis()
    ));
    fleet.replicas[2].ready().await;
    let after = fleet.map_of_running().await;
    assert!(after.epoch > map.epoch, "three members need a new epoch: {after:?} after {map:?}");
    within(SOON, "the new replica owns its share", async || {
        let owned = fleet.replicas[2].metric("flotilla_owned_namespaces", "").await?;
        (owned > 0.0).then_some(()).ok_or_else(|| format!("it owns {owned}"))
    })
    .await;
    let wrong: Vec<String> =
        fleet.removed().into_iter().filter(|removed| !removed.contains(" team-0/two ")).collect();
    assert_eq!(wrong, Vec::<String>::new(), "removed although nobody deleted it");
    fleet.nothing_went_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_away_for_a_minute_loses_nothing() {
    an_api_server_is_away(Against::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_that_is_away_for_a_minute_loses_nothing() {
    an_api_server_is_away(Against::Real).await;
}
