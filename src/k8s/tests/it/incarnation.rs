//! Names of histories, and API servers that went back to an earlier one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla_apiserver::{Effect, Identity, Matcher, Rule, Verb};
use flotilla_core::breakage::Breakages;
use flotilla_core::coordination::{CoordinationConfig, Identity as Candidate};
use flotilla_core::ids::Kind;
use flotilla_core::lineage::Verdict;
use flotilla_k8s::Error;
use flotilla_k8s::coordination::{Coordination, CoordinationMetrics};
use flotilla_k8s::incarnation::Incarnations;
use flotilla_k8s::watch::{Wants, WatchConfig, WatchMetrics, Wiring, follow, list_once, newest};
use kube::Client;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::server::{Server, on_every_server};

const DEADLINE: Duration = Duration::from_secs(30);

on_every_server!(all_agree_on_one_name_and_only_one_gives_the_next);
async fn all_agree_on_one_name_and_only_one_gives_the_next(server: Server) {
    let namespace = server.namespace().await;
    let incarnations = Incarnations::new(server.client.clone(), &namespace);
    assert_eq!(incarnations.read().await.unwrap(), None);
    let found = futures::future::join_all((0..6).map(|fresh| incarnations.confirm(fresh))).await;
    let ids: BTreeSet<String> = found.into_iter().map(|found| found.unwrap().id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let first = incarnations.read().await.unwrap().unwrap();
    // A confirmation is a write: its revision is the newest there is.
    let confirmed = incarnations.confirm(0xffff_ffff).await.unwrap();
    assert_eq!(confirmed.id, first.id);
    assert!(confirmed.revision > first.revision);
    let whole = Breakages::default();
    assert_eq!(
        (first.judge(&confirmed, whole), confirmed.judge(&first, whole)),
        (Verdict::Same, Verdict::WentBack)
    );
    let late = incarnations.begin(&first, &first.id, 0xaaaa_aaaa).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
    let next = incarnations.begin(&confirmed, &first.id, 0xbbbb_bbbb).await.unwrap();
    assert_eq!((next.id.as_str(), &next.replaces), ("bbbbbbbb", &vec![first.id.clone()]));
    let late = incarnations.begin(&confirmed, &first.id, 0xcccc_cccc).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
    assert_eq!(incarnations.confirm(0xdddd_dddd).await.unwrap().replaces, next.replaces);
}

fn hosts(port: u16) -> serde_json::Value {
    json!({"hosts": [{"address": "x", "port": port}]})
}

fn quick() -> WatchConfig {
    WatchConfig { backoff: (Duration::from_millis(10), Duration::from_millis(50)), ..WatchConfig::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_went_back_is_doubted_and_not_followed() {
    let server = Server::embedded().await;
    let api = server.embedded.as_ref().unwrap();
    let namespace = server.namespace().await;
    server.create(&namespace, Kind::Backend, "kept", hosts(1)).await;
    let backup = api.backup();
    server.create(&namespace, Kind::Backend, "lost", hosts(1)).await;
    let metrics = WatchMetrics::new(&prometheus::Registry::new()).unwrap();
    let (events_in, mut events) = mpsc::channel(64);
    let (doubts_in, mut doubts) = mpsc::channel(4);
    let wiring = Wiring { events: events_in, doubts: doubts_in, wants: Wants::default() };
    let cancel = CancellationToken::new();
    let (client, seen_by) = (server.client.clone(), metrics.clone());
    let task = tokio::spawn(follow(client, Kind::Backend, quick(), seen_by, wiring, cancel.clone()));
    let listed = timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
    assert!(format!("{listed:?}").contains("lost"), "{listed:?}");
    while metrics.problems().contains_key(&Kind::Backend) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seen = newest(server.client.clone(), Kind::Backend).await.unwrap();
    api.restore(&backup);
    let (kind, doubted) = timeout(DEADLINE, doubts.recv()).await.unwrap().unwrap();
    assert_eq!((kind, doubted), (Kind::Backend, seen));
    // Again and again, and nothing of the other history is told meanwhile.
    assert!(timeout(DEADLINE, doubts.recv()).await.unwrap().is_some());
    while let Ok(event) = events.try_recv() {
        assert!(!format!("{event:?}").starts_with("Listed"), "{event:?}");
    }
    let problem = metrics.problems()[&Kind::Backend].clone();
    assert!(problem.contains("restored from a backup"), "{problem}");
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_tells_an_old_cache_from_a_log_that_went_back() {
    let server = Server::embedded().await;
    let api = server.embedded.as_ref().unwrap();
    let namespace = server.namespace().await;
    let incarnations = Incarnations::new(server.client.clone(), &namespace);
    let before = incarnations.confirm(0x0000_0001).await.unwrap();
    let backup = api.backup();
    server.create(&namespace, Kind::Backend, "a", hosts(1)).await;
    server.create(&namespace, Kind::Backend, "b", hosts(1)).await;
    let (seen, _) = list_once(server.client.clone(), Kind::Backend).await.unwrap();
    // An old cache answers reads, not writes.
    let reads = Matcher { verbs: vec![Verb::Get, Verb::List], ..Matcher::default() };
    let stale = Effect::StaleRead { revision: backup.revision() };
    let rule = api.faults().add(Rule::new(reads, stale));
    assert!(newest(server.client.clone(), Kind::Backend).await.unwrap() < seen);
    assert!(incarnations.confirm(0x0000_0002).await.unwrap().revision > seen);
    let old = incarnations.read().await.unwrap().unwrap();
    assert_eq!(old, before);
    assert!(matches!(incarnations.begin(&old, "00000001", 0x0000_0002).await, Err(Error::Conflict { .. })));
    api.faults().remove(rule);
    // A log that went back does.
    api.restore(&backup);
    let old = incarnations.read().await.unwrap().unwrap();
    assert_eq!(old, before);
    let begun = incarnations.begin(&old, "00000001", 0x0000_0002).await.unwrap();
    assert!(begun.revision < seen && begun.id == "00000002");
}

/// Every request of a client, as method and address.
type Requests = Arc<Mutex<Vec<String>>>;

/// A client of an embedded server whose requests are written down.
fn written_down(server: &Server) -> (Client, Requests) {
    let requests = Requests::default();
    let (writing, inner) =
        (requests.clone(), server.embedded.as_ref().unwrap().service(Identity::admin("a")));
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        writing.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
        inner.clone().oneshot(request)
    });
    (Client::new(service, "default"), requests)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_list_is_answered_from_a_cache() {
    let server = Server::embedded().await;
    let (client, requests) = written_down(&server);
    let namespace = server.namespace().await;
    let candidate = Candidate { member: "m".into(), instance: "m/1".into(), address: "x".into() };
    let metrics = CoordinationMetrics::new(&prometheus::Registry::new()).unwrap();
    let config = CoordinationConfig { assume_new_cluster: true, ..CoordinationConfig::default() };
    let (coordination, handles) =
        Coordination::new(client.clone(), &namespace, candidate, config, metrics).unwrap();
    let cancel = CancellationToken::new();
    let coordinating = tokio::spawn(coordination.run(cancel.clone(), cancel.clone()));
    let (events_in, mut events) = mpsc::channel(64);
    let (doubts_in, _doubts) = mpsc::channel(4);
    let metrics = WatchMetrics::new(&prometheus::Registry::new()).unwrap();
    let config = WatchConfig { watch_timeout: Duration::from_secs(5), ..quick() };
    let following = tokio::spawn(follow(
        client.clone(),
        Kind::Backend,
        config,
        metrics,
        Wiring { events: events_in, doubts: doubts_in, wants: Wants::default() },
        cancel.clone(),
    ));
    Incarnations::new(client.clone(), &namespace).confirm(0x0000_0001).await.unwrap();
    flotilla_k8s::cluster::cluster_id(&client).await.unwrap();
    list_once(client.clone(), Kind::ApiRoute).await.unwrap();
    timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
    let matcher = Matcher { verbs: vec![Verb::Watch], ..Matcher::default() };
    let mut view = handles.ownership.clone();
    timeout(DEADLINE, view.wait_for(|view| view.epoch().0 > 0)).await.unwrap().unwrap();
    // Watches are opened anew, too.
    let count = |text: &str| requests.lock().unwrap().iter().filter(|one| one.contains(text)).count();
    timeout(DEADLINE, async {
        while count("/backends?watch=true") < 3 {
            server.embedded.as_ref().unwrap().faults().cut_watches(&matcher);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    cancel.cancel();
    following.await.unwrap();
    coordinating.await.unwrap();
    let all = requests.lock().unwrap().clone();
    let reads: Vec<&String> = all.iter().filter(|one| one.starts_with("GET ")).collect();
    let (watches, others): (Vec<&String>, Vec<&String>) =
        reads.iter().partition(|one| one.contains("watch=true"));
    assert!(others.iter().any(|one| one.contains("/leases?")) && others.len() > 4, "{all:#?}");
    for read in others {
        assert!(!read.contains("resourceVersion="), "{read}");
    }
    for watch in watches {
        let known = watch.contains("resourceVersion=") && !watch.contains("resourceVersion=0&");
        assert!(known && !watch.ends_with("resourceVersion=0"), "{watch}");
    }
}
