//! List and watch.

use std::time::Duration;

use flotilla_apiserver::{Effect, Matcher, Rule};
use flotilla_core::ids::{Frontier, Kind, Revision};
use flotilla_k8s::Error;
use flotilla_k8s::watch::{
    ObjectEvent, Wants, WatchConfig, WatchMetrics, Wiring, follow, list_once, replay_deletions,
};
use kube::Client;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::server::{Server, on_every_server};

const DEADLINE: Duration = Duration::from_secs(30);

struct Following {
    events: mpsc::Receiver<ObjectEvent>,
    doubted: mpsc::Receiver<(Kind, Revision)>,
    wants: Wants,
    cancel: CancellationToken,
    task: JoinHandle<()>,
    namespace: String,
}

impl Following {
    fn start(client: Client, namespace: &str, config: WatchConfig) -> Following {
        Self::of(Kind::Backend, client, namespace, config)
    }

    fn of(kind: Kind, client: Client, namespace: &str, config: WatchConfig) -> Following {
        let (events_in, events) = mpsc::channel(64);
        let (doubts, doubted) = mpsc::channel(4);
        let wants = Wants::default();
        let wiring = Wiring { events: events_in, doubts, wants: wants.clone() };
        let cancel = CancellationToken::new();
        let metrics = WatchMetrics::new(&prometheus::Registry::new()).unwrap();
        let task = tokio::spawn(follow(client, kind, config, metrics, wiring, cancel.clone()));
        Following { events, doubted, wants, cancel, task, namespace: namespace.to_owned() }
    }

    /// The next event about this test's namespace, in words; other tests share
    /// the server.
    async fn next(&mut self) -> String {
        // For what is waited for, however much else comes meanwhile.
        let until = Instant::now() + DEADLINE;
        loop {
            let event = timeout_at(until, self.events.recv()).await.expect("an event in time").unwrap();
            match event {
                ObjectEvent::Listed { objects, .. } => {
                    let ours = objects.iter().filter(|object| *object.key.namespace == *self.namespace);
                    let mut names: Vec<&str> = ours.map(|object| object.key.name.as_ref()).collect();
                    names.sort_unstable();
                    return format!("listed {}", names.join(","));
                }
                ObjectEvent::Changed(object) if *object.key.namespace == *self.namespace => {
                    let spec = String::from_utf8(object.spec.to_vec()).unwrap();
                    return format!("changed {} {} {spec}", object.key.name, object.generation);
                }
                ObjectEvent::Deleted(_, key, _) if *key.namespace == *self.namespace => {
                    return format!("deleted {}", key.name);
                }
                _ => {}
            }
        }
    }

    async fn stop(mut self) {
        assert!(self.doubted.try_recv().is_err(), "nobody gave reason to doubt the log");
        self.cancel.cancel();
        timeout(DEADLINE, self.task).await.expect("it ends when told to").unwrap();
    }
}

fn hosts(port: u16) -> serde_json::Value {
    json!({"hosts": [{"address": "x", "port": port}]})
}

on_every_server!(a_kind_is_told_from_the_list_on_in_order);
async fn a_kind_is_told_from_the_list_on_in_order(server: Server) {
    let namespace = server.namespace().await;
    server.create(&namespace, Kind::Backend, "a", hosts(1)).await;
    let config = WatchConfig { page: 1, ..WatchConfig::default() };
    server.create(&namespace, Kind::Backend, "b", hosts(2)).await;
    let mut following = Following::start(server.client.clone(), &namespace, config);
    assert_eq!(following.next().await, "listed a,b");
    server.create(&namespace, Kind::Backend, "c", hosts(3)).await;
    let changed = following.next().await;
    assert!(changed.starts_with("changed c 1 ") && changed.contains("\"port\":3"), "{changed}");
    server.edit(&namespace, Kind::Backend, "c", json!({"spec": hosts(4)})).await;
    let changed = following.next().await;
    assert!(changed.starts_with("changed c 2 ") && changed.contains("\"port\":4"), "{changed}");
    server.delete(&namespace, Kind::Backend, "a").await;
    assert_eq!(following.next().await, "deleted a");
    following.stop().await;
}

on_every_server!(a_watch_that_ends_goes_on_where_it_was);
async fn a_watch_that_ends_goes_on_where_it_was(server: Server) {
    let namespace = server.namespace().await;
    // The server ends every watch after five to six seconds.
    let config = WatchConfig { watch_timeout: Duration::from_secs(5), ..WatchConfig::default() };
    let mut following = Following::start(server.client.clone(), &namespace, config);
    assert_eq!(following.next().await, "listed ");
    for round in 0..8 {
        let name = format!("b{round}");
        server.create(&namespace, Kind::Backend, &name, hosts(1)).await;
        let next = following.next().await;
        assert!(next.starts_with(&format!("changed {name} ")), "no list in between, nothing twice: {next}");
        tokio::time::sleep(Duration::from_millis(1000)).await; // so that some watch ends in between
    }
    following.stop().await;
}

on_every_server!(a_kind_that_nothing_happens_to_catches_up_with_what_others_have_seen);
async fn a_kind_that_nothing_happens_to_catches_up_with_what_others_have_seen(server: Server) {
    let namespace = server.namespace().await;
    for name in ["a", "b"] {
        server.create(&namespace, Kind::GrpcBackend, name, hosts(1)).await;
    }
    for page in [500, 1] {
        let config = WatchConfig { page, ..WatchConfig::default() };
        let mut following = Following::of(Kind::GrpcBackend, server.client.clone(), &namespace, config);
        assert_eq!(following.next().await, "listed a,b");
        // Its own bookmarks come once a minute.
        server.create(&namespace, Kind::Backend, &format!("c{page}"), hosts(1)).await;
        let (seen, _) = list_once(server.client.clone(), Kind::Backend).await.unwrap();
        let saw = |revision: Revision| Frontier([revision; Kind::COUNT]);
        following.wants.raise(&saw(seen));
        let caught_up = loop {
            match timeout(DEADLINE, following.events.recv()).await.expect("it catches up").unwrap() {
                ObjectEvent::Listed { revision, objects, .. } => break (Some(objects.len()), revision),
                ObjectEvent::Bookmark(_, revision) if revision >= seen => break (None, revision),
                _ => {}
            }
        };
        assert!(if page > 1 { caught_up == (Some(2), seen) } else { caught_up.0.is_none() }, "{caught_up:?}");
        // It goes on from there, also after somebody claims what never was, and knows
        // the end of the log then.
        following.wants.raise(&saw(Revision(seen.0 + 1_000_000)));
        server.edit(&namespace, Kind::GrpcBackend, "a", json!({"spec": hosts(page as u16 + 1)})).await;
        let changed = following.next().await;
        assert!(changed.starts_with("changed a "), "{changed}");
        following.stop().await;
    }
}

on_every_server!(deletions_of_the_past_can_be_replayed);
async fn deletions_of_the_past_can_be_replayed(server: Server) {
    let namespace = server.namespace().await;
    server.create(&namespace, Kind::Backend, "a", hosts(1)).await;
    server.create(&namespace, Kind::Backend, "b", hosts(1)).await;
    let (before, _) = list_once(server.client.clone(), Kind::Backend).await.unwrap();
    server.delete(&namespace, Kind::Backend, "a").await;
    let (after, _) = list_once(server.client.clone(), Kind::Backend).await.unwrap();
    assert!(after > before);
    let found = replay_deletions(server.client.clone(), Kind::Backend, before, after).await.unwrap();
    let ours: Vec<_> = found.iter().filter(|one| *one.key.namespace == *namespace).collect();
    assert_eq!(ours.len(), 1, "{found:?}");
    assert_eq!(&*ours[0].key.name, "a");
    assert!(ours[0].revision > before && ours[0].revision <= after);
    // Nobody can know what lies beyond the newest revision.
    let future = Revision(after.0 + 1_000_000);
    assert_eq!(replay_deletions(server.client.clone(), Kind::Backend, after, future).await, None);
}

on_every_server!(whoever_may_not_read_is_told_so_and_keeps_trying);
async fn whoever_may_not_read_is_told_so_and_keeps_trying(server: Server) {
    let error = list_once(server.limited.clone(), Kind::Backend).await.err().unwrap();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    assert!(error.to_string().contains("RBAC"), "{error}");
    let config = WatchConfig {
        backoff: (Duration::from_millis(10), Duration::from_millis(20)),
        ..WatchConfig::default()
    };
    let mut following = Following::start(server.limited.clone(), "any", config);
    let silence = timeout(Duration::from_millis(500), following.events.recv()).await;
    assert!(silence.is_err(), "nothing is told, above all no empty list: {silence:?}");
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_past_that_is_compacted_leads_to_a_new_list() {
    let server = Server::embedded().await;
    let api = server.embedded.as_ref().unwrap();
    let namespace = server.namespace().await;
    server.create(&namespace, Kind::Backend, "a", hosts(1)).await;
    server.create(&namespace, Kind::Backend, "b", hosts(1)).await;
    let config = WatchConfig {
        backoff: (Duration::from_millis(10), Duration::from_millis(50)),
        ..WatchConfig::default()
    };
    let mut following = Following::start(server.client.clone(), &namespace, config);
    assert_eq!(following.next().await, "listed a,b");
    let (before, _) = list_once(server.client.clone(), Kind::Backend).await.unwrap();
    // While its watch shows nothing, an object goes, and the past with it.
    let backends = || Matcher { resource: Some("backends".to_owned()), ..Matcher::default() };
    let frozen = api.faults().add(Rule::new(backends(), Effect::FreezeEvents));
    server.delete(&namespace, Kind::Backend, "a").await;
    api.compact();
    // Cut before it can show the deletion: whoever had seen that would go on behind it, and
    // need no list.
    api.faults().cut_watches(&backends());
    api.faults().remove(frozen);
    assert_eq!(following.next().await, "listed b");
    assert_eq!(
        replay_deletions(server.client.clone(), Kind::Backend, Revision(before.0 - 1), before).await,
        None
    );
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_every_kind_are_outlived_and_tell_nothing_wrong() {
    let server = Server::embedded().await;
    let faults = server.embedded.as_ref().unwrap().faults();
    let namespace = server.namespace().await;
    server.create(&namespace, Kind::Backend, "a", hosts(1)).await;
    let config = WatchConfig {
        backoff: (Duration::from_millis(10), Duration::from_millis(50)),
        ..WatchConfig::default()
    };
    let backends = || Matcher { resource: Some("backends".to_owned()), ..Matcher::default() };
    let failing = [
        Effect::Status { code: 500, retry_after: None },
        Effect::Status { code: 503, retry_after: None },
        Effect::Status { code: 429, retry_after: None },
        Effect::Status { code: 410, retry_after: None },
        Effect::Status { code: 403, retry_after: None },
    ];
    for effect in failing {
        let rule = faults.add(Rule::new(backends(), effect.clone()).times(3));
        let mut following = Following::start(server.client.clone(), &namespace, config.clone());
        assert_eq!(following.next().await, "listed a", "after {effect:?}");
        following.stop().await;
        faults.remove(rule);
    }
}
