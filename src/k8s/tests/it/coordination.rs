//! Replicas that coordinate over an API server. While they do, somebody looks
//! all the time whether two of them act on one namespace.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flotilla_api::fleet::{SHARD_MAP_NAME, ShardMap};
use flotilla_apiserver::{Effect, Matcher, Rule, Verb};
use flotilla_core::coordination::{CoordinationConfig, Identity, LeaseTiming};
use flotilla_core::ids::Epoch;
use flotilla_k8s::coordination::{
    ActingPermit, Announcement, Coordination, CoordinationMetrics, OwnershipView, PeerNews, published,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use prometheus::Registry;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::server::{Server, on_every_server};

const NAMESPACES: usize = 40;
/// A real API server on a busy machine may be slow.
const PATIENCE: Duration = Duration::from_secs(30);

fn namespaces() -> impl Iterator<Item = String> {
    (0..NAMESPACES).map(|index| format!("team-{index:02}"))
}

/// One replica's coordination, run as a task of its own.
struct Replica {
    name: String,
    permit: ActingPermit,
    view: watch::Receiver<Arc<OwnershipView>>,
    peers: mpsc::Sender<PeerNews>,
    /// Tells it to end, and then that its gateways are gone.
    cancel: CancellationToken,
    ended: CancellationToken,
    task: JoinHandle<()>,
    registry: Registry,
}

impl Replica {
    fn acts_on(&self) -> Vec<String> {
        namespaces().filter(|namespace| self.permit.may_act(namespace)).collect()
    }

    fn epoch(&self) -> Epoch {
        self.view.borrow().epoch()
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family
            .get_metric()
            .iter()
            .map(|one| one.get_gauge().get_value() + one.get_counter().get_value())
            .sum()
    }
}

/// Replicas over one API server.
struct Fleet {
    server: Server,
    namespace: String,
    lease_seconds: u64,
    replicas: Vec<Replica>,
    /// Set when two acted on one namespace.
    clash: Arc<std::sync::Mutex<Option<String>>>,
    watched: watch::Sender<Vec<(String, ActingPermit)>>,
    watchdog: JoinHandle<()>,
    /// There is one map per cluster, and Leases of a few seconds do not stand
    /// many tests at once: they take turns.
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.watchdog.abort();
        for replica in &self.replicas {
            replica.task.abort();
        }
    }
}

impl Fleet {
    async fn new(server: Server, lease_seconds: u64) -> Fleet {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let namespace = server.namespace().await;
        let clash = Arc::new(std::sync::Mutex::new(None));
        let (watched, permits) = watch::channel(Vec::<(String, ActingPermit)>::new());
        let watchdog = tokio::spawn(look_for_clashes(permits, clash.clone()));
        let replicas = Vec::new();
        Fleet { server, namespace, lease_seconds, replicas, clash, watched, watchdog, _turn: turn }
    }

    /// Starts a process of the replica `name`.
    fn start(&mut self, name: &str) {
        let timing = LeaseTiming {
            duration: Duration::from_secs(self.lease_seconds),
            renew: Duration::from_millis(200 * self.lease_seconds),
            margin: Duration::from_millis(150 * self.lease_seconds),
        };
        let config = CoordinationConfig {
            member_lease: timing,
            leader_lease: timing,
            assume_new_cluster: self.server.embedded.is_some(),
            ..CoordinationConfig::default()
        };
        let number = self.watched.borrow().len();
        let identity = Identity {
            member: name.into(),
            instance: format!("{name}/{number}").into(),
            address: format!("{name}:9445").into(),
        };
        let registry = Registry::new();
        let metrics = CoordinationMetrics::new(&registry).unwrap();
        let client = self.server.client.clone();
        let (task, mut handles) =
            Coordination::new(client, &self.namespace, identity, config, metrics).unwrap();
        let (cancel, ended) = (CancellationToken::new(), CancellationToken::new());
        self.watched
            .send_modify(|watched| watched.push((format!("{name}/{number}"), handles.permit.clone())));
        let peers: Vec<_> = self.replicas.iter().map(|replica| replica.peers.clone()).collect();
        let run = task.run(cancel.clone(), ended.clone());
        let task = tokio::spawn(async move {
            // What is written is nothing here, so every drain is done at once;
            // only peers that were there before us hear us, the others read
            // our Lease.
            let serve = async {
                loop {
                    tokio::select! {
                        Some(drain) = handles.drains.recv() => drop(drain),
                        Some(announcement) = handles.announcements.recv() => {
                            for peer in &peers {
                                let _ = peer.try_send(news(&announcement));
                            }
                        }
                        else => break,
                    }
                }
            };
            tokio::join!(run, serve);
        });
        self.replicas.push(Replica {
            name: name.to_owned(),
            permit: handles.permit,
            view: handles.ownership,
            peers: handles.peers,
            cancel,
            ended,
            task,
            registry,
        });
    }

    async fn started(server: Server, lease_seconds: u64, names: &[&str]) -> Fleet {
        let mut fleet = Fleet::new(server, lease_seconds).await;
        for name in names {
            fleet.start(name);
        }
        fleet.settled(names).await;
        fleet
    }

    fn replica(&self, name: &str) -> &Replica {
        self.replicas.iter().find(|replica| replica.name == name).unwrap()
    }

    fn take(&mut self, name: &str) -> Replica {
        let index = self.replicas.iter().position(|replica| replica.name == name).unwrap();
        self.replicas.remove(index)
    }

    /// Waits until the replicas act on every namespace between them, by one
    /// map that names exactly `names`.
    async fn settled(&self, names: &[&str]) {
        let mut names = names.to_vec();
        names.sort_unstable();
        self.wait(&format!("{names:?} share all namespaces"), || {
            let epochs: Vec<_> = self.replicas.iter().map(Replica::epoch).collect();
            let members = self.replicas.iter().all(|replica| {
                let members = replica.view.borrow().members();
                members.iter().map(|member| member.as_str()).eq(names.iter().copied())
            });
            let acting: usize = self.replicas.iter().map(|replica| replica.acts_on().len()).sum();
            let leaders = self.replicas.iter().filter(|replica| replica.view.borrow().leading()).count();
            members
                && epochs.windows(2).all(|pair| pair[0] == pair[1])
                && acting == NAMESPACES
                && leaders == 1
        })
        .await;
    }

    async fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        // The first map of an API server waits for as long as a Lease lasts.
        let patience = PATIENCE + Duration::from_secs(self.lease_seconds);
        let give_up = Instant::now() + patience;
        while !condition() {
            assert!(Instant::now() < give_up, "not within {patience:?}: {what}; {}", self.describe());
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn describe(&self) -> String {
        let replicas: BTreeMap<_, _> = self
            .replicas
            .iter()
            .map(|replica| {
                let view = replica.view.borrow();
                (&replica.name, (view.epoch(), view.members(), view.leading(), replica.acts_on().len()))
            })
            .collect();
        format!("{replicas:?}")
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.server.client.clone(), &self.namespace)
    }

    fn map(&self) -> Api<ShardMap> {
        Api::all(self.server.client.clone())
    }

    fn check_no_clash(&self) {
        assert_eq!(*self.clash.lock().unwrap(), None);
    }
}

fn news(announcement: &Announcement) -> PeerNews {
    match announcement.clone() {
        Announcement::Settled(instance, epoch) => PeerNews::Settled { instance, epoch },
        Announcement::Departed(instance) => PeerNews::Departed { instance },
    }
}

async fn look_for_clashes(
    permits: watch::Receiver<Vec<(String, ActingPermit)>>,
    clash: Arc<std::sync::Mutex<Option<String>>>,
) {
    loop {
        let permits = permits.borrow().clone();
        for namespace in namespaces() {
            let who: Vec<_> =
                permits.iter().filter(|(_, permit)| permit.may_act(&namespace)).map(|(who, _)| who).collect();
            if who.len() > 1 {
                *clash.lock().unwrap() = Some(format!("{who:?} all act on {namespace}"));
            }
        }
        sleep(Duration::from_millis(2)).await;
    }
}

on_every_server!(replicas_share_all_namespaces_and_one_of_them_leads);
async fn replicas_share_all_namespaces_and_one_of_them_leads(server: Server) {
    let fleet = Fleet::started(server, 2, &["a", "b", "c"]).await;
    for replica in &fleet.replicas {
        assert!(!replica.acts_on().is_empty(), "{} acts on nothing", replica.name);
        assert_eq!(replica.metric("flotilla_epoch"), replica.epoch().0 as f64);
        let leading = f64::from(u8::from(replica.view.borrow().leading()));
        assert_eq!(replica.metric("flotilla_leader"), leading);
        assert_eq!(replica.metric("flotilla_leadership_changes_total"), leading);
        for namespace in replica.acts_on() {
            let view = replica.view.borrow();
            assert_eq!(view.owner(&namespace).map(|owner| owner.as_str()), Some(replica.name.as_str()));
        }
    }
    let map = fleet.map().get(SHARD_MAP_NAME).await.unwrap();
    assert_eq!(published(&map).unwrap().epoch, fleet.replicas[0].epoch());
    assert_eq!(map.status.unwrap().member_count, Some(3));
    fleet.check_no_clash();
}

on_every_server!(a_replica_that_stops_hands_over_at_once);
async fn a_replica_that_stops_hands_over_at_once(server: Server) {
    // Expiry would take half a minute.
    let mut fleet = Fleet::started(server, 30, &["a", "b", "c"]).await;
    for leaver in ["a", "b"] {
        let replica = fleet.take(leaver);
        let stopped = Instant::now();
        replica.cancel.cancel();
        let names: Vec<&str> = fleet.replicas.iter().map(|replica| replica.name.as_str()).collect();
        fleet.settled(&names).await;
        assert!(stopped.elapsed() < Duration::from_secs(20), "it took {:?}", stopped.elapsed());
        fleet
            .wait("who has left and still serves gateways knows who is to hear of them", || {
                let members = replica.view.borrow().members();
                members.iter().map(|member| member.as_str()).eq(names.iter().copied())
            })
            .await;
        assert_eq!(replica.acts_on(), Vec::<String>::new());
        replica.ended.cancel();
        replica.task.await.unwrap();
        let lease = fleet.leases().get(&format!("flotilla-member-{leaver}")).await.unwrap();
        assert_eq!(lease.spec.unwrap().holder_identity.unwrap_or_default(), "", "it is released");
    }
    fleet.check_no_clash();
}

on_every_server!(a_replica_that_fails_hands_over_at_once_too);
async fn a_replica_that_fails_hands_over_at_once_too(server: Server) {
    // Expiry would take half a minute.
    let mut fleet = Fleet::started(server, 30, &["a", "b", "c"]).await;
    let replica = fleet.take("a");
    let failed = Instant::now();
    replica.ended.cancel();
    fleet.settled(&["b", "c"]).await;
    assert!(failed.elapsed() < Duration::from_secs(20), "it took {:?}", failed.elapsed());
    replica.task.await.unwrap();
    fleet.check_no_clash();
}

on_every_server!(a_replica_that_dies_is_succeeded_when_its_lease_has_expired);
async fn a_replica_that_dies_is_succeeded_when_its_lease_has_expired(server: Server) {
    let mut fleet = Fleet::started(server, 2, &["a", "b", "c"]).await;
    let leader = fleet.replicas.iter().find(|replica| replica.view.borrow().leading()).unwrap().name.clone();
    let replica = fleet.take(&leader);
    let died = Instant::now();
    replica.task.abort();
    let names: Vec<&str> = fleet.replicas.iter().map(|replica| replica.name.as_str()).collect();
    fleet.settled(&names).await;
    let took = died.elapsed();
    assert!(took >= Duration::from_millis(1_500), "its Lease was not waited for: {took:?}");
    fleet.check_no_clash();
}

on_every_server!(a_second_process_of_a_name_waits_until_the_first_has_released_it);
async fn a_second_process_of_a_name_waits_until_the_first_has_released_it(server: Server) {
    let mut fleet = Fleet::started(server, 2, &["a", "b"]).await;
    let first = fleet.take("a");
    fleet.start("a");
    let second = fleet.replica("a");
    let mine = first.acts_on();
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        assert_eq!(second.acts_on(), Vec::<String>::new());
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(first.acts_on(), mine, "the first is not disturbed");
    first.cancel.cancel();
    first.ended.cancel();
    first.task.await.unwrap();
    fleet.settled(&["a", "b"]).await;
    fleet.check_no_clash();
}

on_every_server!(operators_move_namespaces_by_the_spec);
async fn operators_move_namespaces_by_the_spec(server: Server) {
    let fleet = Fleet::started(server, 2, &["a", "b"]).await;
    let edit = async |spec: serde_json::Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        fleet.map().patch(SHARD_MAP_NAME, &PatchParams::default(), &patch).await.unwrap();
    };
    let (a, b) = (fleet.replica("a"), fleet.replica("b"));
    let moving = a.acts_on()[0].clone();
    let kept = b.acts_on()[0].clone();
    let interrupted = Arc::new(AtomicBool::new(false));
    let guard = {
        let (permit, interrupted, kept) = (b.permit.clone(), interrupted.clone(), kept.clone());
        tokio::spawn(async move {
            loop {
                interrupted.fetch_or(!permit.may_act(&kept), Ordering::Relaxed);
                sleep(Duration::from_millis(1)).await;
            }
        })
    };
    edit(json!({"pins": {moving.as_str(): "b"}})).await;
    fleet.wait("the pin counts", || b.permit.may_act(&moving)).await;
    edit(json!({"drained": ["a"]})).await;
    fleet.wait("b acts on everything", || b.acts_on().len() == NAMESPACES).await;
    assert_eq!(a.acts_on(), Vec::<String>::new());
    guard.abort();
    assert!(!interrupted.load(Ordering::Relaxed), "what was not moved was acted on all the time");
    edit(json!({"drained": null, "pins": null})).await;
    fleet.settled(&["a", "b"]).await;
    fleet.wait("a has its namespace back", || a.permit.may_act(&moving)).await;
    let map = fleet.map().get(SHARD_MAP_NAME).await.unwrap();
    assert_eq!(map.status.unwrap().observed_generation, map.metadata.generation);
    fleet.check_no_clash();
}

on_every_server!(epochs_grow_over_the_deletion_of_leases_and_map);
async fn epochs_grow_over_the_deletion_of_leases_and_map(server: Server) {
    let fleet = Fleet::started(server, 2, &["a", "b", "c"]).await;
    let before = fleet.replicas[0].epoch();
    let params = DeleteParams::default();
    drop(fleet.map().delete(SHARD_MAP_NAME, &params).await.unwrap());
    for lease in ["flotilla-leader", "flotilla-member-a", "flotilla-member-b", "flotilla-member-c"] {
        drop(fleet.leases().delete(lease, &params).await.unwrap());
    }
    fleet.wait("a new map", || fleet.replicas.iter().all(|replica| replica.epoch() > before)).await;
    fleet.settled(&["a", "b", "c"]).await;
    let map = fleet.map().get(SHARD_MAP_NAME).await.unwrap();
    assert!(published(&map).unwrap().epoch > before);
    fleet.check_no_clash();
}

/// An embedded server with a fleet on it, and a matcher of requests for Leases.
async fn faulty_fleet() -> (Fleet, Matcher) {
    let fleet = Fleet::started(Server::embedded().await, 3, &["a", "b", "c"]).await;
    (fleet, Matcher { resource: Some("leases".into()), ..Matcher::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_stops_all_acting_in_time_and_ends_by_itself() {
    let (fleet, _) = faulty_fleet().await;
    let faults = fleet.server.embedded.as_ref().unwrap().faults();
    let before = fleet.replicas[0].epoch();
    faults.add(Rule::new(Matcher::default(), Effect::Status { code: 503, retry_after: None }));
    let begin = Instant::now();
    let (pause, mut late) = (Duration::from_millis(5), Duration::ZERO);
    while fleet.replicas.iter().any(|replica| !replica.acts_on().is_empty()) {
        assert!(begin.elapsed() < PATIENCE, "{}", fleet.describe());
        let asleep = Instant::now();
        sleep(pause).await;
        // Where the machine stands still, so do those who act.
        late += asleep.elapsed().saturating_sub(pause);
    }
    let took = begin.elapsed() - late;
    // The duration less margin, from the last renewal that was sent before.
    assert!(took < Duration::from_millis(2_900), "{took:?} and {late:?} of standing still");
    sleep(Duration::from_secs(5)).await;
    faults.clear();
    fleet.settled(&["a", "b", "c"]).await;
    let epoch = fleet.replicas[0].epoch();
    assert!(epoch.0 <= before.0 + 4, "members were not lost one by one: {before} → {epoch}");
    fleet.check_no_clash();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_stand_still_make_nobody_look_dead() {
    let (fleet, leases) = faulty_fleet().await;
    let faults = fleet.server.embedded.as_ref().unwrap().faults();
    let before = fleet.replicas[0].epoch();
    faults.add(Rule::new(Matcher { verbs: vec![Verb::Watch], ..leases }, Effect::FreezeEvents));
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        let acting: usize = fleet.replicas.iter().map(|replica| replica.acts_on().len()).sum();
        assert_eq!(acting, NAMESPACES, "{}", fleet.describe());
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fleet.replicas[0].epoch(), before);
    fleet.check_no_clash();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_conflicts_and_cut_watches_cost_nobody_their_namespaces() {
    let (fleet, leases) = faulty_fleet().await;
    let faults = fleet.server.embedded.as_ref().unwrap().faults();
    let updates = Matcher { verbs: vec![Verb::Update], ..leases.clone() };
    for (effect, times) in [
        (Effect::LoseAnswer, 3),
        (Effect::Status { code: 409, retry_after: None }, 3),
        (Effect::Status { code: 429, retry_after: Some(1) }, 3),
        (Effect::Status { code: 500, retry_after: None }, 3),
        (Effect::Hang, 1),
    ] {
        let rule = faults.add(Rule::new(updates.clone(), effect.clone()).times(times));
        faults.cut_watches(&Matcher::default());
        let (before, give_up) = (fleet.replicas[0].epoch(), Instant::now() + PATIENCE);
        while faults.hits(rule) < times {
            assert!(Instant::now() < give_up, "{effect:?} has not struck");
            let acting: usize = fleet.replicas.iter().map(|replica| replica.acts_on().len()).sum();
            assert_eq!(acting, NAMESPACES, "under {effect:?}: {}", fleet.describe());
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(600)).await;
        assert_eq!(fleet.replicas[0].epoch(), before, "under {effect:?}");
        faults.clear();
    }
    fleet.settled(&["a", "b", "c"]).await;
    let conflicts = fleet.replicas.iter().map(|replica| replica.metric("flotilla_lease_requests_total"));
    assert!(conflicts.sum::<f64>() > 10.0);
    fleet.check_no_clash();
}
