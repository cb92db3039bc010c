//! How much a gateway that listens is given at once, and for how long.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use flotilla_certs::{Identity, LeafRequest};
use flotilla_core::delivery::DeliveryConfig;
use flotilla_core::ids::Kind;
use flotilla_core::object::RawObject;
use flotilla_grpc::acceptor::{Acceptor, AcceptorConfig};
use flotilla_grpc::metrics::Metrics;
use flotilla_proto::push::configuration_service_server::{ConfigurationService, ConfigurationServiceServer};
use flotilla_proto::push::{
    ApplyBatchRequest, ApplyBatchResponse, GetGatewayStatusRequest, GetGatewayStatusResponse, Offer,
    UpdateResult,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::fleet::{Fleet, Options, Replica, TRUST_DOMAIN, info, until, within};
use crate::push::{
    Pushing, answering, apply, client, digest_after, listening, listening_with, open, routes, server_tls,
};

/// A replica whose messages have room for a few routes.
fn small_messages() -> Options {
    let options = Options::named("a");
    let delivery =
        DeliveryConfig { message_limit: 4096, shrink_guard: Duration::ZERO, ..options.delivery.clone() };
    Options { delivery, ..options }
}

/// Digest of what gateways are to hold once the replica has read up to a revision.
async fn digest_at(replica: &Replica, revision: u64) -> String {
    let mut digest = String::new();
    for kind in Kind::ALL {
        digest = digest_after(replica, kind, revision).await;
    }
    digest
}

/// Forty routes, each changed at once.
fn changed() -> Vec<RawObject> {
    (1..=40).map(|number| answering(&format!("r{number}"), 100 + number)).collect()
}

#[tokio::test]
async fn a_snapshot_in_parts_removes_nothing_that_a_later_part_brings() {
    let fleet = Fleet::new();
    let gateways = listening(&fleet, "gw", false).await;
    let (gateway, address) = (gateways.gateways()[0].clone(), gateways.listening()[0]);
    // It holds everything in some content, and one that is gone, and nobody can tell that
    // by its version.
    let mut calls = client(&fleet, address, &fleet.controller(TRUST_DOMAIN, "system", "old")).await;
    open(&mut calls, "old").await.unwrap();
    for number in 1..=40 {
        assert!(apply(&mut calls, "old", number, &format!("r{number}")).await.unwrap().success);
    }
    assert!(apply(&mut calls, "old", 41, "stale").await.unwrap().success);

    let replica = Replica::with_routes(&fleet, small_messages(), routes(40)).await;
    let pushing = Pushing::start(&fleet, &replica);
    pushing.dial("gw", address);
    let wanted = digest_at(&replica, 100).await;
    until("it holds what it is to hold", || *gateway.digest() == *wanted).await;
    until("its version says so", || !gateway.version().contains(['~', '-'])).await;
    let stats = gateway.view().stats;
    assert_eq!((stats.deletions, stats.reappeared), (1, 0), "something that is still there was removed");
    assert_eq!(gateway.held_count(), 40);
    let fulls = replica.metrics.batches.with_label_values(&["full"]);
    assert_eq!(fulls.get(), 1, "there was no snapshot");
    // One message carries the last version with it.
    let versions = replica.metrics.batches.with_label_values(&["version"]);
    assert!(versions.get() > 0, "it was not in parts");
    pushing.stop().await;
    replica.stop().await;
    gateways.stop().await;
}

#[tokio::test]
async fn a_gateway_that_takes_one_resource_a_call_gets_no_snapshot_because_that_were_cheaper() {
    for batches in [false, true] {
        let fleet = Fleet::new();
        let gateways = listening(&fleet, "gw", batches).await;
        let gateway = gateways.gateways()[0].clone();
        let replica = Replica::with_routes(&fleet, Options::named("a"), routes(40)).await;
        let pushing = Pushing::start(&fleet, &replica);
        pushing.dial("gw", gateways.listening()[0]);
        until("everything is there", || gateway.held_count() == 40).await;
        let fulls = replica.metrics.batches.with_label_values(&["full"]);
        assert_eq!(fulls.get(), 1);

        replica.list(changed(), 200).await;
        let wanted = digest_at(&replica, 200).await;
        until("all changes are there", || *gateway.digest() == *wanted).await;
        assert_eq!(fulls.get(), if batches { 2 } else { 1 }, "batches: {batches}");
        pushing.stop().await;
        replica.stop().await;
        gateways.stop().await;
    }
}

#[tokio::test]
async fn a_session_ends_with_the_gateways_certificate_and_the_next_one_has_the_new() {
    let fleet = Fleet::new();
    let identity = Identity::gateway(TRUST_DOMAIN, "edge", "gw").unwrap();
    let brief = LeafRequest { lifetime: Duration::from_secs(5), ..LeafRequest::gateway(identity) };
    let replica = Replica::with_routes(&fleet, Options::named("a"), routes(3)).await;
    let pushing = Pushing::start(&fleet, &replica);
    let certificate = fleet.authority.issue_leaf(&brief, SystemTime::now()).unwrap();
    let tls = server_tls(&fleet, &certificate);
    let gateways = listening_with("gw", true, tls.clone()).await;
    let gateway = gateways.gateways()[0].clone();
    pushing.dial("gw", gateways.listening()[0]);
    until("everything is there", || gateway.held_count() == 3).await;
    until("the session has ended", || pushing.failures("delivery") == 1).await;
    until("who shows the old certificate is not served", || pushing.failures("connect") > 0).await;
    assert_eq!(pushing.metrics.sessions.get(), 0);

    tls.swap(&fleet.gateway("gw"), fleet.authority.roots()).unwrap();
    replica.list(routes(4), 200).await;
    until("it is served again", || gateway.held_count() == 4).await;
    let failed = ["call", "identity", "superseded"].map(|reason| pushing.failures(reason));
    assert_eq!(failed, [0; 3]);
    pushing.stop().await;
    replica.stop().await;
    gateways.stop().await;
}

/// Most updates that [`Slow`] applies before a call of it is over.
const AT_ONCE: usize = 3;

/// A gateway that takes batches and snapshots, and has no end with a call of more.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    session: String,
    version: String,
    resources: Vec<String>,
    /// Updates of each call.
    calls: Vec<usize>,
}

#[tonic::async_trait]
impl ConfigurationService for Slow {
    async fn get_gateway_status(
        &self,
        request: Request<GetGatewayStatusRequest>,
    ) -> Result<Response<GetGatewayStatusResponse>, Status> {
        let mut taken = self.0.lock().unwrap();
        let open = request.into_inner().open_session;
        if !open.is_empty() {
            taken.session = open;
        }
        Ok(Response::new(GetGatewayStatusResponse {
            gateway: info("gw"),
            last_config_version: taken.version.clone(),
            session_id: taken.session.clone(),
            offer: Some(Offer { batches: true, max_batch_bytes: 0 }),
            ..GetGatewayStatusResponse::default()
        }))
    }

    async fn apply_batch(
        &self,
        request: Request<ApplyBatchRequest>,
    ) -> Result<Response<ApplyBatchResponse>, Status> {
        let updates = request.into_inner().updates;
        self.0.lock().unwrap().calls.push(updates.len());
        if updates.len() > AT_ONCE {
            std::future::pending::<()>().await;
        }
        let mut taken = self.0.lock().unwrap();
        let mut results = Vec::new();
        for update in updates {
            taken.version.clone_from(&update.version);
            taken.resources.extend(update.resource.map(|resource| resource.name));
            results.push(UpdateResult { success: true, ..UpdateResult::default() });
        }
        Ok(Response::new(ApplyBatchResponse { results }))
    }
}

#[tokio::test]
async fn a_gateway_that_is_slow_gets_what_it_applies_within_a_call() {
    let fleet = Fleet::new();
    let slow = Slow::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let service = Routes::new(ConfigurationServiceServer::new(slow.clone()));
    let tls = server_tls(&fleet, &fleet.gateway("gw"));
    let acceptor = Acceptor::new(listener, tls, service, AcceptorConfig::default(), metrics);
    let shutdown = CancellationToken::new();
    let acceptor = tokio::spawn(acceptor.run(shutdown.clone()));

    // The first two come as a snapshot; forty would not fit into one.
    let replica = Replica::with_routes(&fleet, small_messages(), routes(2)).await;
    let pushing = Pushing::start_with(&fleet, &replica, |config| {
        config.call_timeout = Duration::from_millis(500);
    });
    pushing.dial("gw", address);
    until("the first are there", || slow.0.lock().unwrap().version.len() > 1).await;
    replica.list(changed(), 200).await;
    let taken = |name: &str| slow.0.lock().unwrap().resources.iter().any(|taken| taken == name);
    until("all are there", || (1..=40).all(|number| taken(&format!("r{number}")))).await;
    let calls = slow.0.lock().unwrap().calls.clone();
    assert!(calls.iter().any(|updates| *updates > AT_ONCE), "nothing was too much: {calls:?}");
    pushing.stop().await;
    replica.stop().await;
    shutdown.cancel();
    within("the gateway's end", acceptor).await.unwrap();
}
