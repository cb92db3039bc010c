//! Owners that wake up too late, and clocks that do not agree: what they write
//! does not stay.

#![expect(clippy::print_stdout, reason = "who skips a test says why")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla_api::fleet::{SHARD_MAP_NAME, ShardMap};
use flotilla_apiserver::{Effect, Matcher, Rule, RuleId, Verb};
use flotilla_core::ids::{Epoch, Kind};
use futures::TryStreamExt;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::fleet::objects::answering;
use crate::fleet::server::replica_user;
use crate::fleet::waiting::{SOON, figure, full_length, throughout, within};
use crate::fleet::{Against, Fleet, shards};

fn namespaces() -> Vec<String> {
    (0..12).map(|number| format!("team-{number:02}")).collect()
}

async fn fleet_of(count: usize) -> Option<Fleet> {
    let mut fleet = Fleet::start(Against::Inside).await?;
    fleet.tenants.namespaces(namespaces()).await;
    let route = |namespace: String| {
        let spec = answering(&namespace, "route", "x");
        (namespace, "route".to_owned(), spec)
    };
    fleet.tenants.create_all(Kind::ApiRoute, namespaces().into_iter().map(route)).await;
    fleet.add_replicas(count).await;
    fleet.add_gateways("gateway", 2).await;
    fleet.settled().await;
    Some(fleet)
}

/// The epochs in which each namespace's status was written, in order.
type Epochs = Arc<Mutex<BTreeMap<String, Vec<i64>>>>;

/// Writes down every status from now on, until dropped.
struct Watching {
    epochs: Epochs,
    task: AbortHandle,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch_statuses(fleet: &Fleet) -> Watching {
    let gvk = GroupVersionKind::gvk("avapigw.io", "v1alpha1", "APIRoute");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "apiroutes");
    let api = Api::<DynamicObject>::all_with(fleet.client(), &resource);
    let epochs = Epochs::default();
    let written = epochs.clone();
    let start = api.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap();
    let task = tokio::spawn(async move {
        let mut events = Box::pin(api.watch(&WatchParams::default(), &start).await.unwrap());
        while let Ok(Some(event)) = events.try_next().await {
            if let WatchEvent::Modified(object) = event
                && let Some(epoch) = object.data["status"]["epoch"].as_i64()
            {
                let namespace = object.metadata.namespace.clone().unwrap_or_default();
                written.lock().unwrap().entry(namespace).or_default().push(epoch);
            }
        }
    });
    Watching { epochs, task: task.abort_handle() }
}

impl Watching {
    /// Whoever wrote in an earlier epoch wrote nothing after the others.
    fn never_went_back(&self) {
        for (namespace, epochs) in self.epochs.lock().unwrap().iter() {
            assert!(epochs.is_sorted(), "{namespace}: statuses were written in the epochs {epochs:?}");
        }
    }
}

/// The next write of this replica to this resource's status is worked on only
/// after this time.
fn hold(fleet: &Fleet, replica: &str, verb: Verb, resource: &str, namespace: Option<&str>) -> RuleId {
    let number: usize = replica.rsplit('-').next().unwrap().parse().unwrap();
    let matcher = Matcher {
        verbs: vec![verb],
        resource: Some(resource.to_owned()),
        subresource: Some("status".to_owned()),
        namespace: namespace.map(str::to_owned),
        user: Some(replica_user(number)),
        ..Matcher::default()
    };
    fleet.server.faults().add(Rule::new(matcher, Effect::Delay(held())).times(1))
}

/// For how long a write is held on its way, and its sender stands still.
fn held() -> Duration {
    full_length(Duration::from_secs(15))
}

/// Waits until the write is on its way, and stops its sender.
async fn stop_when_sent(fleet: &mut Fleet, replica: &str, write: RuleId) {
    within(SOON, "the write is on its way", async || {
        (fleet.server.faults().hits(write) == 1).then_some(()).ok_or_else(String::new)
    })
    .await;
    fleet.replica(replica).process().signal(Signal::SIGSTOP);
}

async fn status_of(fleet: &Fleet, namespace: &str) -> Value {
    fleet.tenants.api(Kind::ApiRoute, namespace).get("route").await.unwrap().data["status"].take()
}

/// The owner is stopped at the worst moment: its write is on the way to the API
/// server, which takes it only after the namespace has changed hands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_a_stopped_owner_that_arrives_late_changes_nothing() {
    let Some(mut fleet) = fleet_of(2).await else { return };
    let map = shards::published(&fleet.client()).await.unwrap();
    let owners = shards::owners(&map, &namespaces());
    let (namespace, owner) = owners.iter().next().map(|(a, b)| (a.clone(), b.clone())).unwrap();
    let watching = watch_statuses(&fleet).await;

    let late = held();
    let write = hold(&fleet, &owner, Verb::Patch, "apiroutes", Some(&namespace));
    let sent = std::time::Instant::now();
    fleet.tenants.change(Kind::ApiRoute, &namespace, "route", json!({"timeout": "7s"})).await;
    stop_when_sent(&mut fleet, &owner, write).await;
    // The other one takes over and writes; it knows one gateway less at most.
    let written = within(late, "the new owner has written", async || {
        let status = status_of(&fleet, &namespace).await;
        let epoch = status["epoch"].as_i64().unwrap_or_default();
        (epoch > i64::try_from(map.epoch.0).unwrap()).then_some(status).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let took_over = sent.elapsed();
    assert!(took_over < late, "the write that is held was to come later");
    throughout(late - took_over + Duration::from_secs(1), "the late write comes", async || {
        watching.never_went_back();
        let now = status_of(&fleet, &namespace).await;
        // The new owner may write again, also in a later epoch: members may come and go.
        let epoch = |status: &Value| status["epoch"].as_i64().unwrap_or_default();
        if epoch(&now) >= epoch(&written) { Ok(()) } else { Err(format!("it stayed: {now}")) }
    })
    .await;

    // Then it wakes up, long after its Lease ended, and finds its place.
    fleet.replica(&owner).process().signal(Signal::SIGCONT);
    fleet.map_of_running().await;
    for namespace in namespaces() {
        fleet.tenants.change(Kind::ApiRoute, &namespace, "route", json!({"timeout": "8s"})).await;
    }
    fleet.settled().await;
    watching.never_went_back();
    fleet.nothing_went_back().await;
    figure(&format!(
        "fencing: an owner stopped with a write on the way; the other one wrote {} ms later, the late write came after \
         {} s and changed nothing",
        took_over.as_millis(),
        late.as_secs()
    ));
}

/// Every map that is published from now on: its epoch and who published it.
async fn watch_maps(fleet: &Fleet) -> (Arc<Mutex<Vec<(Epoch, String)>>>, AbortHandle) {
    let api = Api::<ShardMap>::all(fleet.client());
    let start = api.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let published = seen.clone();
    let task = tokio::spawn(async move {
        let mut events = Box::pin(api.watch(&WatchParams::default(), &start).await.unwrap());
        while let Ok(Some(event)) = events.try_next().await {
            if let WatchEvent::Modified(map) = event
                && let Some(map) = flotilla_k8s::coordination::published(&map)
            {
                published.lock().unwrap().push((map.epoch, map.leader.to_string()));
            }
        }
    });
    (seen, task.abort_handle())
}

/// The leader is stopped while the map that it publishes is on its way to the
/// API server, which takes it only after another one leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_of_a_stopped_leader_that_arrives_late_is_refused() {
    let Some(mut fleet) = fleet_of(3).await else { return };
    let leader = shards::published(&fleet.client()).await.unwrap().leader.to_string();
    let other = fleet.replicas.iter().map(|replica| replica.name.clone()).find(|name| *name != leader);
    let (maps, watching) = watch_maps(&fleet).await;
    let statuses = watch_statuses(&fleet).await;

    let write = hold(&fleet, &leader, Verb::Update, "shardmaps", None);
    let sent = std::time::Instant::now();
    // A reason to publish.
    let pinned = json!({"spec": {"pins": {"team-00": other}}});
    let api = Api::<ShardMap>::all(fleet.client());
    api.patch(SHARD_MAP_NAME, &PatchParams::default(), &Patch::Merge(&pinned)).await.unwrap();
    stop_when_sent(&mut fleet, &leader, write).await;
    let successor = within(held(), "another one leads and publishes", async || {
        let map = shards::published(&fleet.client()).await?;
        (map.leader.as_str() != leader).then_some(map).ok_or_else(|| format!("{leader} leads"))
    })
    .await;
    let took_over = sent.elapsed();
    assert!(took_over < held(), "the map that is held was to come later");
    tokio::time::sleep(held() - took_over + Duration::from_secs(1)).await;
    let now = shards::published(&fleet.client()).await.unwrap();
    assert!(now.epoch >= successor.epoch && now.leader == successor.leader, "the late map stayed: {now:?}");

    fleet.replica(&leader).process().signal(Signal::SIGCONT);
    fleet.map_of_running().await;
    fleet.settled().await;
    statuses.never_went_back();
    fleet.nothing_went_back().await;
    watching.abort();
    let maps = maps.lock().unwrap().clone();
    let epochs: Vec<Epoch> = maps.iter().map(|(epoch, _)| *epoch).collect();
    assert!(epochs.is_sorted(), "epochs only grow: {maps:?}");
    let mut since = maps.iter().skip_while(|(_, by)| *by == leader).peekable();
    assert!(since.peek().is_some(), "the successor's maps were seen: {maps:?}");
    assert!(since.all(|(_, by)| *by != leader), "{leader} published after its successor: {maps:?}");
    figure(&format!(
        "fencing: a leader stopped with a map on the way; another one published {} ms later, the late map came after \
         {} s and was refused",
        took_over.as_millis(),
        held().as_secs()
    ));
}

/// A write that comes late when nothing has changed since takes effect: then the
/// owner sees that the status is not what it should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_somebody_else_wrote_is_put_right() {
    let Some(mut fleet) = fleet_of(1).await else { return };
    let before = status_of(&fleet, "team-03").await;
    let wrong = json!({"status": {"observedGeneration": 1, "epoch": 0, "conditions": [
        {"type": "Ready", "status": "False", "reason": "Applying", "message": "Applied 0/2 gateways",
         "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}]}});
    let api = fleet.tenants.api(Kind::ApiRoute, "team-03");
    api.patch_status("route", &PatchParams::default(), &Patch::Merge(&wrong)).await.unwrap();
    within(SOON, "the owner puts it right", async || {
        let now = status_of(&fleet, "team-03").await;
        let right = now["epoch"] == before["epoch"] && now["conditions"][0]["status"] == "True";
        right.then_some(()).ok_or_else(|| now.to_string())
    })
    .await;
    fleet.settled().await;
    // One that claims to be of a later epoch is nobody's to touch, and is told of.
    let later = json!({"status": {"epoch": 1_000_000_000_i64, "observedGeneration": 0}});
    api.patch_status("route", &PatchParams::default(), &Patch::Merge(&later)).await.unwrap();
    within(SOON, "a fenced status is counted", async || {
        let fenced = fleet.replicas[0].metric("flotilla_status_fenced_total", "").await?;
        (fenced > 0.0).then_some(()).ok_or_else(String::new)
    })
    .await;
    assert_eq!(status_of(&fleet, "team-03").await["observedGeneration"], 0);
    let cleared = json!({"status": {"epoch": null}});
    api.patch_status("route", &PatchParams::default(), &Patch::Merge(&cleared)).await.unwrap();
    fleet.settled().await;
}

/// Where Debian and its like put the library that bends clocks.
fn faketime() -> Option<PathBuf> {
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| PathBuf::from(format!("/usr/lib/{machine}/faketime/libfaketime.so.1")))
        .into_iter()
        .find(|path| path.exists());
    if found.is_none() {
        let required = std::env::var_os("FLOTILLA_REQUIRE_REAL_KUBE").is_some_and(|value| value == "1");
        assert!(!required, "libfaketime is missing: install the package faketime");
        println!("SKIPPED: libfaketime is missing; install the package faketime");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_at_half_and_double_rate_break_no_safety() {
    let Some(library) = faketime() else { return };
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.namespaces(namespaces()).await;
    let route = |namespace: String| {
        let spec = answering(&namespace, "route", "x");
        (namespace, "route".to_owned(), spec)
    };
    fleet.tenants.create_all(Kind::ApiRoute, namespaces().into_iter().map(route)).await;
    for rate in ["0.5", "2", "1"] {
        let replica = fleet.add_replica(&[]);
        if rate != "1" {
            replica.environment = vec![
                ("LD_PRELOAD".to_owned(), library.display().to_string()),
                ("FAKETIME".to_owned(), format!("+0 x{rate}")),
            ];
        }
        replica.start();
    }
    for replica in &mut fleet.replicas {
        replica.ready().await;
    }
    fleet.add_gateways("gateway", 2).await;
    let watching = watch_statuses(&fleet).await;
    // Leases that last twice as long for one as for the other: members come and
    // go, and changes are delivered all the same.
    for round in 0..8 {
        for namespace in namespaces() {
            let spec = json!({"timeout": format!("{}s", round + 1)});
            fleet.tenants.change(Kind::ApiRoute, &namespace, "route", spec).await;
        }
        within(SOON, "a change reaches all gateways", async || {
            fleet.check()?;
            let objects = fleet.tenants.all().await?;
            fleet.digests_equal(&objects).await
        })
        .await;
        throughout(Duration::from_secs(2), "Leases end, also those of members that live", async || {
            watching.never_went_back();
            fleet.check()
        })
        .await;
    }
    fleet.settled_within(2 * SOON).await;
    watching.never_went_back();
    fleet.nothing_went_back().await;
    assert_eq!(fleet.removed(), Vec::<String>::new());
}
