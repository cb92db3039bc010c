//! Histories that are replaced under replicas: an embedded API server that is restored
//! from a backup, and looks at it one by one, so that nothing depends on time.

use std::time::Duration;

use flotilla_api::crd::crds;
use flotilla_apiserver::{ApiServer, Effect, Identity, Matcher, Options, Rule, Verb};
use flotilla_avapigw::{AvapigwCompiler, Scope};
use flotilla_core::delivery::{Connect, Delivery as Engine, DeliveryConfig, Unlimited};
use flotilla_core::time::Mono;
use flotilla_grpc::clock::MonoClock;
use flotilla_grpc::gateway::{DeliveryTask, delivery_channel};
use flotilla_k8s::crd;
use flotilla_k8s::watch::ObjectEvent;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::*;
use crate::replica::feed;
use crate::replica::leaving::Leaving;

struct Cluster {
    api: ApiServer,
    client: Client,
    written: u32,
}

impl Cluster {
    async fn new() -> Self {
        let api = ApiServer::start(Options::default()).await.unwrap();
        let client = Client::new(api.service(Identity::admin("replica")), "default");
        crd::install(&client, &crds(), Duration::from_secs(60)).await.unwrap();
        Cluster { api, client, written: 0 }
    }

    /// So many writes of something else: the log grows.
    async fn write(&mut self, times: u32) {
        for _ in 0..times {
            self.written += 1;
            let name = Some(format!("n{}", self.written));
            let namespace =
                Namespace { metadata: ObjectMeta { name, ..ObjectMeta::default() }, ..Namespace::default() };
            Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        }
    }

    /// What a replica that starts now knows of the history; it has read nothing yet.
    async fn replica(&self) -> Lineage {
        self.replica_of(&[]).await
    }

    /// The same, with some gateways.
    async fn replica_of(&self, gateways: &[GatewayId]) -> Lineage {
        let (delivery, inbox) = delivery_channel::<AvapigwCompiler>();
        let registry = Registry::new();
        let metrics = flotilla_grpc::metrics::Metrics::new(&registry).unwrap();
        let compiler = AvapigwCompiler { scope: Scope::Namespace };
        let mut engine = Engine::new(DeliveryConfig::avapigw("0badcafe"), compiler);
        for gateway in gateways {
            let connect = Connect {
                session: gateway.to_string().as_str().into(),
                gateway: gateway.clone(),
                scope: Default::default(),
                last_version: String::new(),
                registered: None,
            };
            engine.connected(Mono(0), connect);
        }
        let limits = Box::new(Unlimited);
        let (task, _) = DeliveryTask::new(engine, limits, inbox, MonoClock::start(), None, metrics);
        // It ends with the last handle.
        tokio::spawn(task.run(CancellationToken::new()));
        let incarnations = Incarnations::new(self.client.clone(), "default");
        Lineage {
            client: self.client.clone(),
            known: incarnations.confirm(fresh()).await.unwrap(),
            confirmed: Instant::now(),
            incarnations,
            delivery,
            doubts: mpsc::channel(1).1,
            metrics: Metrics::new(&registry).unwrap(),
            ahead: BTreeSet::new(),
        }
    }

    async fn name(&self) -> String {
        Incarnations::new(self.client.clone(), "default").read().await.unwrap().unwrap().id
    }
}

/// Reads a kind to the end of the log; returns how far that is.
async fn lists(replica: &Lineage, kind: Kind) -> Revision {
    let end = newest(replica.client.clone(), kind).await.unwrap();
    replica.delivery.listed(kind, Vec::new(), end).await.unwrap();
    let read = async || replica.delivery.inspect(move |engine| engine.frontier().get(kind)).await.unwrap();
    while read().await < end {
        tokio::task::yield_now().await;
    }
    end
}

/// A replica that has read a kind further than the log goes since a restore. The Lease is
/// the same in the backup: it alone shows nothing.
async fn restored_under_a_reader() -> (Cluster, Lineage) {
    let mut cluster = Cluster::new().await;
    let replica = cluster.replica().await;
    let backup = cluster.api.backup();
    cluster.write(20).await;
    lists(&replica, Kind::Backend).await;
    cluster.api.restore(&backup);
    (cluster, replica)
}

/// How far somebody is who has read a kind beyond the log.
fn beyond(kind: Kind, revision: Revision) -> Frontier {
    let mut high = Frontier::default();
    high.advance(kind, Revision(revision.0 + 1_000));
    high
}

fn gateway(name: &str) -> GatewayId {
    GatewayId { namespace: "edge".into(), name: name.into() }
}

/// The new name of a history that was found replaced.
fn renamed<T>(looked: Result<T, Trouble>) -> String {
    match looked {
        Err(Trouble::Over(Over::Replaced { now, .. })) => now,
        Err(Trouble::Over(over)) => panic!("{over}"),
        Err(Trouble::Api(error)) => panic!("{error}"),
        Ok(_) => panic!("not noticed"),
    }
}

fn unchanged<T>(looked: Result<T, Trouble>) {
    match looked {
        Ok(_) => {}
        Err(Trouble::Over(over)) => panic!("{over}"),
        Err(Trouble::Api(error)) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_renewal_shows_a_log_that_ends_before_what_was_read() {
    for doubt in [Doubt::OutOfTouch, Doubt::OtherHistory] {
        let (cluster, mut replica) = restored_under_a_reader().await;
        let now = renamed(replica.look_into(doubt(Instant::now()), &mut Later::new()).await);
        assert_eq!(cluster.name().await, now);
    }
}

#[tokio::test]
async fn a_lease_that_went_back_and_was_renewed_more_often_since_is_told_by_its_marks() {
    let mut cluster = Cluster::new().await;
    let mut away = cluster.replica().await;
    let backup = cluster.api.backup();
    unchanged(away.confirm(Renewal::Marked).await);
    cluster.api.restore(&backup);
    // Started since: it knows no other history, and renews this one.
    let mut since = cluster.replica().await;
    for _ in 0..3 {
        cluster.write(10).await;
        unchanged(since.confirm(Renewal::Marked).await);
    }
    let now = renamed(away.read().await);
    assert_eq!(renamed(since.read().await), now);
    assert_eq!(cluster.name().await, now);
}

#[tokio::test]
async fn who_missed_more_renewals_than_are_listed_starts_anew_and_names_nothing() {
    let cluster = Cluster::new().await;
    let (mut away, mut other) = (cluster.replica().await, cluster.replica().await);
    let before = cluster.name().await;
    for _ in 0..300 {
        unchanged(other.confirm(Renewal::Marked).await);
    }
    assert!(matches!(away.read().await, Err(Trouble::Over(Over::Untold { .. }))));
    assert_eq!(cluster.name().await, before);
}

#[tokio::test]
async fn a_lease_that_went_back_is_seen_though_the_log_is_longer() {
    let mut cluster = Cluster::new().await;
    let mut replica = cluster.replica().await;
    let backup = cluster.api.backup();
    unchanged(replica.confirm(Renewal::Marked).await);
    cluster.api.restore(&backup);
    cluster.write(20).await;
    renamed(replica.confirm(Renewal::Marked).await);
}

#[tokio::test]
async fn one_restore_gives_one_new_name() {
    let cluster = Cluster::new().await;
    let (mut one, mut other) = (cluster.replica().await, cluster.replica().await);
    let backup = cluster.api.backup();
    unchanged(one.confirm(Renewal::Marked).await);
    unchanged(other.confirm(Renewal::Marked).await);
    cluster.api.restore(&backup);
    let now = renamed(one.read().await);
    assert_eq!(renamed(other.read().await), now);
    assert_eq!(cluster.name().await, now);
}

#[tokio::test]
async fn an_old_cache_is_not_believed() {
    let mut cluster = Cluster::new().await;
    let mut replica = cluster.replica().await;
    let (before, backup) = (cluster.name().await, cluster.api.backup());
    cluster.write(3).await;
    unchanged(replica.confirm(Renewal::Marked).await);
    let seen = lists(&replica, Kind::Backend).await;
    let reads = Matcher { verbs: vec![Verb::Get, Verb::List], ..Matcher::default() };
    let stale = cluster.api.faults().add(Rule::new(reads, Effect::StaleRead { revision: backup.revision() }));
    unchanged(replica.read().await);
    unchanged(replica.confirm(Renewal::Marked).await);
    unchanged(replica.look_into(Doubt::Behind(Kind::Backend, seen), &mut Later::new()).await);
    assert_eq!(replica.metrics.stale.get(), 1);
    cluster.api.faults().remove(stale);
    assert_eq!(cluster.name().await, before);
}

#[tokio::test]
async fn one_gateways_word_names_no_history_anew_and_that_of_two_does() {
    let cluster = Cluster::new().await;
    let mut replica = cluster.replica().await;
    let high = beyond(Kind::ApiRoute, lists(&replica, Kind::ApiRoute).await);
    let before = cluster.name().await;
    for _ in 0..2 {
        unchanged(replica.look_into_gateway(&gateway("one"), &high).await);
        assert_eq!((replica.metrics.ahead.get(), cluster.name().await), (1, before.clone()));
    }
    renamed(replica.look_into_gateway(&gateway("other"), &high).await);
}

#[tokio::test]
async fn whoever_is_ahead_is_looked_at_until_there_is_an_answer() {
    let cluster = Cluster::new().await;
    let both = [gateway("one"), gateway("other")];
    let mut replica = cluster.replica_of(&both).await;
    let high = beyond(Kind::ApiRoute, lists(&replica, Kind::ApiRoute).await);
    let (before, gone) = (cluster.name().await, gateway("gone"));
    let lists = Matcher { verbs: vec![Verb::List], ..Matcher::default() };
    let unavailable = Effect::Status { code: 503, retry_after: None };
    let fault = cluster.api.faults().add(Rule::new(lists, unavailable));
    let (doubts, heard) = mpsc::channel(8);
    replica.doubts = heard;
    for gateway in both.into_iter().chain([gone]) {
        doubts.send(Doubt::Ahead(gateway, high)).await.unwrap();
    }
    let running = replica.run(CancellationToken::new());
    let api_comes_back = async {
        while cluster.api.faults().hits(fault) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster.api.faults().remove(fault);
    };
    let both = async { tokio::join!(running, api_comes_back).0 };
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    let over = ended.unwrap_err().downcast::<Over>().unwrap();
    assert!(matches!(over, Over::Replaced { before: name, .. } if name == before));
}

#[tokio::test]
async fn one_gateways_word_is_enough_for_who_has_read_beyond_the_log_itself() {
    let (_cluster, mut replica) = restored_under_a_reader().await;
    // To synchronise it with this mixture would take it back.
    let high = beyond(Kind::ApiRoute, lists(&replica, Kind::ApiRoute).await);
    renamed(replica.look_into_gateway(&gateway("one"), &high).await);
    assert_eq!(replica.metrics.ahead.get(), 0);
}

#[tokio::test]
async fn a_list_that_ends_before_what_was_read_of_another_kind_is_doubted() {
    let replica = Cluster::new().await.replica().await;
    let (events, told) = mpsc::channel(8);
    let (doubts_in, mut doubts) = mpsc::channel(8);
    for (kind, revision) in [(Kind::Backend, 10), (Kind::GrpcRoute, 10), (Kind::ApiRoute, 9)] {
        let listed = ObjectEvent::Listed { kind, revision: Revision(revision), objects: Vec::new() };
        events.send(listed).await.unwrap();
    }
    drop(events);
    let delivery = replica.delivery.clone();
    let holders = (Leaving::new(Duration::ZERO), None);
    feed::run(told, delivery, None, holders, doubts_in, CancellationToken::new()).await;
    let doubt = doubts.recv().await;
    assert!(matches!(doubt, Some(Doubt::Behind(Kind::ApiRoute, Revision(10)))), "{doubt:?}");
    assert!(doubts.recv().await.is_none());
}

#[tokio::test]
async fn gateways_that_were_ahead_hold_up_nobody_else() {
    let cluster = Cluster::new().await;
    let mut replica = cluster.replica().await;
    let (doubts, heard) = mpsc::channel(64);
    replica.doubts = heard;
    let before = replica.known.revision;
    // Each is looked at two seconds later: together that would be two minutes.
    for number in 0..60 {
        doubts.send(Doubt::Ahead(gateway(&number.to_string()), Frontier::default())).await.unwrap();
    }
    doubts.send(Doubt::OutOfTouch(Instant::now())).await.unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(replica.run(cancel.clone()));
    let leases = Incarnations::new(cluster.client.clone(), "default");
    let renewed = async || leases.read().await.unwrap().unwrap().revision > before;
    tokio::time::timeout(Duration::from_secs(60), async {
        while !renewed().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    cancel.cancel();
    running.await.unwrap().unwrap();
}
