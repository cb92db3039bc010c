//! Owners that are stopped while they write what an Ingress becomes: what arrives late
//! does not stay.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flotilla_apiserver::{Effect, Matcher, Rule, RuleId, Verb};
use flotilla_core::ids::Kind;
use futures::TryStreamExt as _;
use kube::api::{DeleteParams, ListParams, WatchEvent, WatchParams};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::task::AbortHandle;

use super::{becomes, change, create, example, fleet_of, ingresses, namespaces, path, there};
use crate::fleet::server::replica_user;
use crate::fleet::waiting::{SOON, full_length, throughout, within};
use crate::fleet::{Against, Fleet, shards};

/// For how long a write is on its way: longer than it takes others to take over.
fn late() -> Duration {
    full_length(Duration::from_secs(15))
}

/// The next write of this sort by this replica is worked on only after this time.
fn hold(fleet: &Fleet, replica: &str, verb: Verb) -> RuleId {
    let number: usize = replica.rsplit('-').next().unwrap().parse().unwrap();
    let matcher = Matcher {
        verbs: vec![verb],
        resource: Some("apiroutes".to_owned()),
        subresource: Some(String::new()),
        user: Some(replica_user(number)),
        ..Matcher::default()
    };
    fleet.server.faults().add(Rule::new(matcher, Effect::Delay(late())).times(1))
}

/// Stops the owner when its write is on its way; when it will be there.
async fn stop_when_sent(fleet: &mut Fleet, owner: &str, write: RuleId) -> Instant {
    within(SOON, "the write is on its way", async || {
        (fleet.server.faults().hits(write) == 1).then_some(()).ok_or_else(String::new)
    })
    .await;
    fleet.replica(owner).process().signal(Signal::SIGSTOP);
    Instant::now() + late()
}

async fn wake(fleet: &mut Fleet, owner: &str) {
    fleet.replica(owner).process().signal(Signal::SIGCONT);
    fleet.map_of_running().await;
    fleet.settled().await;
}

async fn owner(fleet: &Fleet) -> String {
    let map = shards::published(&fleet.client()).await.unwrap();
    shards::owners(&map, &namespaces()).remove("team-0").unwrap()
}

/// The time-outs that routes are given from now on, as they are written.
async fn watch_timeouts(fleet: &Fleet) -> (Arc<Mutex<Vec<String>>>, AbortHandle) {
    let api = fleet.tenants.api(Kind::ApiRoute, "team-0");
    let start = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let written = seen.clone();
    let task = tokio::spawn(async move {
        let mut events = Box::pin(api.watch(&WatchParams::default(), &start).await.unwrap());
        while let Ok(Some(event)) = events.try_next().await {
            if let WatchEvent::Modified(route) = event
                && let Some(timeout) = route.data["spec"]["timeout"].as_str()
            {
                let mut written = written.lock().unwrap();
                if written.last().is_none_or(|last| last != timeout) {
                    written.push(timeout.to_owned());
                }
            }
        }
    });
    (seen, task.abort_handle())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopped_owner_writes_late_for_an_ingress_does_not_stay() {
    let Some(mut fleet) = fleet_of(Against::Inside).await else { return };
    create(&fleet, "team-0", &example()).await.unwrap();
    becomes(&fleet, "team-0", "a route and a backend", |all| all.len() == 2).await;
    fleet.settled().await;
    let timeout = |timeout: &str| json!({"metadata": {"annotations": {"avapigw.io/timeout": timeout}}});

    // A change, when others have changed it since.
    let first = owner(&fleet).await;
    let (written, watching) = watch_timeouts(&fleet).await;
    let write = hold(&fleet, &first, Verb::Patch);
    change(&fleet, "team-0", "api-ingress", timeout("60s")).await;
    let arrives = stop_when_sent(&mut fleet, &first, write).await;
    change(&fleet, "team-0", "api-ingress", timeout("90s")).await;
    becomes(&fleet, "team-0", "the later timeout", |all| all[0].1["timeout"] == "90s").await;
    assert!(Instant::now() < arrives, "the write that is held was to come later");
    throughout(arrives - Instant::now() + Duration::from_secs(1), "the late change comes", async || {
        let there = there(&fleet, "team-0").await;
        let right = there.len() == 2 && there.values().any(|spec| spec["timeout"] == "90s");
        right.then_some(()).ok_or_else(|| format!("{there:?}"))
    })
    .await;
    wake(&mut fleet, &first).await;
    watching.abort();
    assert_eq!(*written.lock().unwrap(), ["90s"], "not even for a moment");

    // A creation, when its Ingress is gone since.
    let second = owner(&fleet).await;
    let write = hold(&fleet, &second, Verb::Create);
    let mut paths = example()["spec"]["rules"][0]["http"]["paths"].clone();
    paths.as_array_mut().unwrap().push(path("/more", json!({"number": 80})));
    let rules = json!([{"host": "api.example.com", "http": {"paths": paths}}]);
    change(&fleet, "team-0", "api-ingress", json!({"spec": {"rules": rules}})).await;
    let arrives = stop_when_sent(&mut fleet, &second, write).await;
    ingresses(&fleet, "team-0").delete("api-ingress", &DeleteParams::default()).await.unwrap();
    becomes(&fleet, "team-0", "nothing", |all| all.is_empty()).await;
    assert!(Instant::now() < arrives, "the write that is held was to come later");
    tokio::time::sleep_until((arrives + Duration::from_secs(1)).into()).await;
    becomes(&fleet, "team-0", "nothing again", |all| all.is_empty()).await;
    wake(&mut fleet, &second).await;
    let there: BTreeSet<String> = there(&fleet, "team-0").await.into_keys().collect();
    assert_eq!(there, BTreeSet::new());
    fleet.nothing_went_back().await;
}
