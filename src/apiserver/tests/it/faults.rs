//! Injected faults, as kube-rs sees them.

use std::time::{Duration, Instant};

use flotilla_apiserver::{Effect, Matcher, Rule, Verb};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::world::{DEADLINE, World, code, eventually};

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

fn on(verb: Verb) -> Matcher {
    Matcher { verbs: vec![verb], resource: Some("configmaps".into()), ..Matcher::default() }
}

async fn create(maps: &Api<ConfigMap>, name: &str) {
    maps.create(&PostParams::default(), &config_map(name)).await.unwrap();
}

/// Names of the objects that a watch tells about, without bookmarks.
fn names(
    stream: impl futures::Stream<Item = Result<WatchEvent<ConfigMap>, kube::Error>>,
) -> impl futures::Stream<Item = String> {
    stream.filter_map(|event| async move {
        match event {
            Ok(WatchEvent::Added(map) | WatchEvent::Modified(map)) => map.metadata.name,
            _ => None,
        }
    })
}

async fn next(stream: &mut (impl futures::Stream<Item = String> + Unpin)) -> Option<String> {
    tokio::time::timeout(DEADLINE, stream.next()).await.expect("in time")
}

#[tokio::test]
async fn requests_fail_as_asked_and_then_no_more() {
    let world = World::start().await;
    // Without the client's own retries, which would hide the 429.
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    for wanted in [409, 410, 429, 500, 503] {
        let effect = Effect::Status { code: wanted, retry_after: Some(1) };
        let rule = world.server.faults().add(Rule::new(on(Verb::List), effect).times(1));
        assert_eq!(code(maps.list(&ListParams::default()).await), wanted);
        assert!(maps.list(&ListParams::default()).await.is_ok());
        assert_eq!(world.server.faults().hits(rule), 1);
    }
    let counts = world.server.request_counts();
    let lists = counts.iter().find(|(kind, _)| kind.verb == Verb::List && kind.resource == "configmaps");
    assert_eq!(lists.map(|(_, count)| *count), Some(10));
}

#[tokio::test]
async fn answers_are_delayed_and_withheld() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client("root", "system:masters").await);
    let delay = Duration::from_millis(200);
    world.server.faults().add(Rule::new(on(Verb::List), Effect::Delay(delay)).times(1));
    let started = Instant::now();
    maps.list(&ListParams::default()).await.unwrap();
    assert!(started.elapsed() >= delay);
    let rule = world.server.faults().add(Rule::new(on(Verb::Get), Effect::Hang));
    let hanging = maps.get_opt("a");
    assert!(tokio::time::timeout(Duration::from_millis(200), hanging).await.is_err());
    world.server.faults().remove(rule);
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_lost_answer_hides_a_write_that_was_done() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client("root", "system:masters").await);
    world.server.faults().add(Rule::new(on(Verb::Create), Effect::LoseAnswer).times(1));
    let lost = maps.create(&PostParams::default(), &config_map("a")).await;
    assert!(!matches!(lost, Ok(_) | Err(kube::Error::Api(_))), "{lost:?}");
    assert!(maps.get_opt("a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_stale_read_answers_from_the_past() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    create(&maps, "old").await;
    let revision = world.server.revision();
    create(&maps, "new").await;
    let mut matcher = on(Verb::List);
    matcher.verbs.push(Verb::Get);
    world.server.faults().add(Rule::new(matcher, Effect::StaleRead { revision }));
    let list = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!((list.items.len(), list.metadata.resource_version), (1, Some(revision.to_string())));
    assert!(maps.get_opt("new").await.unwrap().is_none());
    world.server.faults().clear();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn watch_events_are_dropped_and_delayed() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client("root", "system:masters").await);
    let revision = world.server.revision().to_string();
    let mut stream = names(maps.watch(&WatchParams::default(), &revision).await.unwrap()).boxed();
    let dropped = Matcher { name: Some("dropped".into()), ..on(Verb::Watch) };
    world.server.faults().add(Rule::new(dropped, Effect::DropEvent));
    create(&maps, "dropped").await;
    create(&maps, "kept").await;
    assert_eq!(next(&mut stream).await.as_deref(), Some("kept"));
    let delay = Duration::from_millis(300);
    let late = Matcher { name: Some("late".into()), ..on(Verb::Watch) };
    world.server.faults().add(Rule::new(late, Effect::DelayEvents(delay)));
    let started = Instant::now();
    create(&maps, "late").await;
    create(&maps, "after").await;
    assert_eq!(next(&mut stream).await.as_deref(), Some("late"));
    assert!(started.elapsed() >= delay);
    assert_eq!(next(&mut stream).await.as_deref(), Some("after"), "order is kept");
}

#[tokio::test]
async fn a_frozen_watch_goes_on_where_it_stood() {
    let world = World::start_with(flotilla_apiserver::Options {
        bookmark_interval: Duration::from_millis(20),
        ..flotilla_apiserver::Options::default()
    })
    .await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client("root", "system:masters").await);
    let revision = world.server.revision().to_string();
    let mut stream = maps.watch(&WatchParams::default(), &revision).await.unwrap().boxed();
    let rule = world.server.faults().add(Rule::new(on(Verb::Watch), Effect::FreezeEvents));
    create(&maps, "a").await;
    // What was on its way before the freeze may still come, but neither the event nor a bookmark past it.
    let frozen = world.server.revision();
    let early = tokio::time::timeout(Duration::from_millis(300), async {
        while let Some(event) = stream.next().await {
            match event.unwrap() {
                WatchEvent::Bookmark(mark)
                    if mark.metadata.resource_version.parse::<u64>().unwrap() < frozen => {}
                other => return Some(other),
            }
        }
        None
    });
    assert!(early.await.is_err(), "the watch is not frozen");
    world.server.faults().remove(rule);
    let mut stream = names(stream).boxed();
    assert_eq!(next(&mut stream).await.as_deref(), Some("a"));
}

#[tokio::test]
async fn watches_are_cut() {
    let world = World::start().await;
    let client = world.client("root", "system:masters").await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let revision = world.server.revision().to_string();
    let mut stream =
        maps.watch(&WatchParams::default().disable_bookmarks(), &revision).await.unwrap().boxed();
    let faults = world.server.faults();
    eventually("the watch is open", || async { (faults.open_watches(&on(Verb::Watch)) == 1).then_some(()) })
        .await;
    assert_eq!(faults.cut_watches(&on(Verb::Watch)), 1);
    let end = tokio::time::timeout(DEADLINE, stream.next()).await.unwrap();
    assert!(matches!(end, None | Some(Err(_))), "{end:?}");
    eventually("the watch is closed", || async {
        (faults.open_watches(&on(Verb::Watch)) == 0).then_some(())
    })
    .await;
    world.server.faults().add(Rule::new(on(Verb::Watch), Effect::CutWatch).times(1));
    let mut stream =
        maps.watch(&WatchParams::default().disable_bookmarks(), &revision).await.unwrap().boxed();
    create(&maps, "a").await;
    let end = tokio::time::timeout(DEADLINE, stream.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
}
