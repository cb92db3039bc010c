//! Watches through kube-rs.

use std::time::Duration;

use flotilla_apiserver::Options;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::world::{DEADLINE, World};

fn config_map(name: &str, label: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"l": label}}})).unwrap()
}

/// The next event in short.
async fn next(
    stream: &mut (impl Stream<Item = Result<WatchEvent<ConfigMap>, kube::Error>> + Unpin),
) -> String {
    let event = tokio::time::timeout(DEADLINE, stream.next()).await.expect("an event in time");
    let name = |map: &ConfigMap| map.metadata.name.clone().unwrap_or_default();
    match event {
        Some(Ok(WatchEvent::Added(map))) => format!("+{}", name(&map)),
        Some(Ok(WatchEvent::Modified(map))) => format!("~{}", name(&map)),
        Some(Ok(WatchEvent::Deleted(map))) => format!("-{}", name(&map)),
        Some(Ok(WatchEvent::Bookmark(mark))) if !mark.metadata.annotations.is_empty() => {
            "initial end".to_owned()
        }
        Some(Ok(WatchEvent::Bookmark(_))) => "bookmark".to_owned(),
        Some(Ok(WatchEvent::Error(status))) => format!("error {}", status.code),
        Some(Err(error)) => format!("broken: {error}"),
        None => "end".to_owned(),
    }
}

#[tokio::test]
async fn a_watch_continues_where_a_list_ended() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client("root", "system:masters").await);
    maps.create(&PostParams::default(), &config_map("before", "x")).await.unwrap();
    let list = maps.list(&ListParams::default()).await.unwrap();
    let revision = list.metadata.resource_version.unwrap();
    maps.create(&PostParams::default(), &config_map("a", "x")).await.unwrap();
    let mut stream =
        maps.watch(&WatchParams::default().disable_bookmarks(), &revision).await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, "+a");
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "v"}}))).await.unwrap();
    assert_eq!(next(&mut stream).await, "~a");
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let deleted = stream.try_next().await.unwrap();
    let Some(WatchEvent::Deleted(last)) = deleted else { panic!("{deleted:?}") };
    // A deletion is told at the revision that it made.
    assert_eq!(last.metadata.resource_version, Some(world.server.revision().to_string()));
}

#[tokio::test]
async fn a_watch_from_nowhere_begins_with_what_is_there() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    maps.create(&PostParams::default(), &config_map("a", "x")).await.unwrap();
    maps.create(&PostParams::default(), &config_map("b", "x")).await.unwrap();
    let mut stream = maps.watch(&WatchParams::default().disable_bookmarks(), "0").await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, "+a");
    assert_eq!(next(&mut stream).await, "+b");
    let initial = WatchParams::default().initial_events();
    let mut stream = maps.watch(&initial, "").await.unwrap().boxed();
    let seen = [next(&mut stream).await, next(&mut stream).await, next(&mut stream).await];
    assert_eq!(seen, ["+a", "+b", "initial end"]);
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    let revision = world.server.revision().to_string();
    let params = WatchParams::default().labels("l=x").disable_bookmarks();
    let mut stream = maps.watch(&params, &revision).await.unwrap().boxed();
    maps.create(&PostParams::default(), &config_map("other", "y")).await.unwrap();
    maps.create(&PostParams::default(), &config_map("a", "y")).await.unwrap();
    let label = |label: &str| Patch::Merge(json!({"metadata": {"labels": {"l": label}}}));
    maps.patch("a", &PatchParams::default(), &label("x")).await.unwrap();
    assert_eq!(next(&mut stream).await, "+a");
    maps.patch("a", &PatchParams::default(), &label("z")).await.unwrap();
    assert_eq!(next(&mut stream).await, "-a");
    let params = WatchParams::default().fields("metadata.name=b").disable_bookmarks();
    let mut stream = maps.watch(&params, &revision).await.unwrap().boxed();
    maps.create(&PostParams::default(), &config_map("b", "x")).await.unwrap();
    assert_eq!(next(&mut stream).await, "+b");
}

#[tokio::test]
async fn bookmarks_come_and_carry_the_revision() {
    let options = Options { bookmark_interval: Duration::from_millis(50), ..Options::default() };
    let world = World::start_with(options).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    let before = world.server.revision().to_string();
    // A write to another resource moves the frontier of this one.
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::default_namespaced(world.local());
    leases
        .create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "l"}})).unwrap())
        .await
        .unwrap();
    let mut stream = maps.watch(&WatchParams::default(), &before).await.unwrap().boxed();
    let event = tokio::time::timeout(DEADLINE, stream.try_next()).await.unwrap().unwrap();
    let Some(WatchEvent::Bookmark(bookmark)) = event else { panic!("{event:?}") };
    assert_eq!(bookmark.metadata.resource_version, world.server.revision().to_string());
}

#[tokio::test]
async fn a_watch_ends_after_its_time_with_a_last_bookmark() {
    let options = Options { bookmark_interval: Duration::from_secs(3600), ..Options::default() };
    let world = World::start_with(options).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    let params = WatchParams::default().timeout(2);
    let mut stream = maps.watch(&params, &world.server.revision().to_string()).await.unwrap().boxed();
    assert_eq!([next(&mut stream).await, next(&mut stream).await], ["bookmark", "end"]);
}

#[tokio::test]
async fn history_that_was_forgotten_is_gone() {
    let world = World::start_with(Options { history: 3, ..Options::default() }).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    let early = world.server.revision().to_string();
    for number in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("m-{number}"), "x")).await.unwrap();
    }
    let mut stream = maps.watch(&WatchParams::default(), &early).await.unwrap().boxed();
    assert_eq!([next(&mut stream).await, next(&mut stream).await], ["error 410", "end"]);
    // So is what never was: a client of an earlier life of the server has to list again.
    let mut stream = maps.watch(&WatchParams::default(), "999999").await.unwrap().boxed();
    assert_eq!([next(&mut stream).await, next(&mut stream).await], ["error 410", "end"]);
}

#[tokio::test]
async fn every_watcher_sees_every_change_in_order() {
    let world = World::start().await;
    let client = world.client("root", "system:masters").await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let revision = world.server.revision().to_string();
    let mut watchers = Vec::new();
    for _ in 0..5 {
        let stream = maps.watch(&WatchParams::default().disable_bookmarks(), &revision).await.unwrap();
        watchers.push(tokio::spawn(async move {
            let seen: Vec<u64> = stream
                .take(300)
                .map(|event| match event.unwrap() {
                    WatchEvent::Added(map) => map.metadata.resource_version.unwrap().parse::<u64>().unwrap(),
                    other => panic!("{other:?}"),
                })
                .collect()
                .await;
            seen
        }));
    }
    for number in 0..300 {
        maps.create(&PostParams::default(), &config_map(&format!("m-{number}"), "x")).await.unwrap();
    }
    let mut all = Vec::new();
    for watcher in watchers {
        all.push(tokio::time::timeout(DEADLINE, watcher).await.unwrap().unwrap());
    }
    assert!(all[0].is_sorted() && all[0].len() == 300);
    assert!(all.iter().all(|seen| *seen == all[0]));
}

#[tokio::test]
async fn watches_end_when_the_server_does() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client("root", "system:masters").await);
    let params = WatchParams::default().disable_bookmarks();
    let mut stream = maps.watch(&params, &world.server.revision().to_string()).await.unwrap().boxed();
    let started = std::time::Instant::now();
    world.server.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(next(&mut stream).await, "end");
}
