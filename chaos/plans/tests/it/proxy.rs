//! What a client sees through the proxy, and what the API server behind it then
//! holds.

use std::sync::Arc;
use std::time::Duration;

use flotilla_apiserver::{ApiServer, Identity, Options};
use flotilla_core::ids::Kind;
use flotilla_k8s::client::connect;
use flotilla_k8s::watch::list_once;
use flotilla_plans::{Proxy, Stage, Theatre};
use flotilla_testing::fleet::objects::{Tenants, backend};
use flotilla_testing::fleet::waiting::{SOON, within};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::Client;
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use serde_json::json;

struct World {
    server: ApiServer,
    /// Past the proxy.
    tenants: Tenants,
    /// Through the proxy.
    replica: Tenants,
    theatre: Arc<Theatre>,
    proxy: Proxy,
    folder: tempfile::TempDir,
}

async fn world(plan: &str) -> World {
    let tokens = vec![("admin".to_owned(), Identity::admin("admin"))];
    let server = ApiServer::start(Options { tokens, ..Options::default() }).await.unwrap();
    let client = Client::new(server.service(Identity::admin("tester")), "default");
    flotilla_k8s::crd::install(&client, &flotilla_api::crd::crds(), SOON).await.unwrap();
    let tenants = Tenants { client };
    tenants.namespaces(["team".to_owned()]).await;

    let folder = tempfile::tempdir().unwrap();
    let upstream = folder.path().join("upstream");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": server.url()}}],
        "users": [{"name": "it", "user": {"token": "admin"}}],
    });
    std::fs::write(&upstream, kubeconfig.to_string()).unwrap();
    let upstream = connect(Some(&upstream)).await.unwrap().leases;
    let plan = (!plan.is_empty()).then(|| plan.parse().unwrap());
    let (theatre, _) = Theatre::new(Stage::new(plan), 1);
    let proxy = Proxy::start(0, theatre.clone(), upstream, folder.path()).await.unwrap();
    let replica = Tenants { client: connect(Some(proxy.kubeconfig())).await.unwrap().leases };
    World { server, tenants, replica, theatre, proxy, folder }
}

impl World {
    async fn add(&self, names: &[&str]) {
        for name in names {
            self.tenants.create(Kind::Backend, "team", name, backend(8080)).await;
        }
    }

    /// Names of the Backends that the replica is shown.
    async fn listed(&self) -> Result<Vec<String>, String> {
        let listed = list_once(self.replica.client.clone(), Kind::Backend).await;
        let (_, objects) = listed.map_err(|error| error.to_string())?;
        Ok(objects.iter().map(|object| object.key.name.to_string()).collect())
    }

    /// Where the Backends are now.
    async fn now(&self) -> u64 {
        list_once(self.tenants.client.clone(), Kind::Backend).await.unwrap().0.0
    }

    /// What a watch from `since` tells the replica until `count` lines have come.
    async fn told(&self, since: u64, count: usize) -> Vec<String> {
        let api = self.replica.api(Kind::Backend, "team");
        let watch = api.watch(&WatchParams::default(), &since.to_string()).await.unwrap();
        let told = |event: WatchEvent<DynamicObject>| match event {
            WatchEvent::Added(object) => line("added", &object),
            WatchEvent::Modified(object) => line("modified", &object),
            WatchEvent::Deleted(object) => line("deleted", &object),
            WatchEvent::Bookmark(_) => "bookmark".to_owned(),
            WatchEvent::Error(status) => format!("error {}", status.code),
        };
        let lines = watch.map_ok(told).try_filter(|line| std::future::ready(line != "bookmark")).take(count);
        tokio::time::timeout(SOON, lines.try_collect()).await.unwrap().unwrap()
    }

    async fn end(self) {
        self.proxy.stop().await;
        self.server.shutdown().await;
        drop(self.folder);
    }
}

fn line(change: &str, object: &DynamicObject) -> String {
    let metadata = &object.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    format!("{change} {name} {}", metadata.generation.unwrap_or_default())
}

#[tokio::test]
async fn without_a_plan_everything_passes_and_is_recorded() {
    let world = world("").await;
    world.replica.create(Kind::Backend, "team", "one", backend(8080)).await;
    assert_eq!(world.listed().await.unwrap(), ["one"]);
    assert_eq!(world.told(0, 1).await, ["added one 1"]);
    let lives = world.theatre.stage().tape.lives();
    let lives: Vec<String> = lives
        .into_iter()
        .map(|((verb, resource, object), times)| format!("{verb} {resource} {object} {times}"))
        .collect();
    assert_eq!(lives, ["create backends team/one 1"]);
    world.end().await;
}

#[tokio::test]
async fn who_has_not_the_token_is_refused() {
    let world = world("").await;
    let text = std::fs::read_to_string(world.proxy.kubeconfig()).unwrap();
    let mut kubeconfig: serde_json::Value = serde_json::from_str(&text).unwrap();
    kubeconfig["users"][0]["user"]["token"] = "another".into();
    let file = world.folder.path().join("stranger");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let stranger = connect(Some(&file)).await.unwrap().leases;
    let error = list_once(stranger, Kind::Backend).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
    world.end().await;
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_done() {
    let world = world("lose-answer@create:backends:team/one#1").await;
    let api = world.replica.api(Kind::Backend, "team");
    let object = serde_json::from_value(json!({
        "apiVersion": "avapigw.io/v1alpha1", "kind": "Backend",
        "metadata": {"name": "one", "namespace": "team"}, "spec": backend(8080),
    }))
    .unwrap();
    api.create(&kube::api::PostParams::default(), &object).await.unwrap_err();
    assert_eq!(world.listed().await.unwrap(), ["one"]);
    assert_eq!(world.theatre.stage().struck(), 1);
    world.end().await;
}

#[tokio::test]
async fn an_error_is_answered_as_often_as_asked() {
    let world = world("status=503,2@list:backends#2").await;
    world.add(&["one"]).await;
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(world.listed().await.is_ok());
    }
    assert_eq!(outcomes, [true, false, false, true]);
    world.end().await;
}

#[tokio::test]
async fn a_left_out_state_never_arrives_and_the_next_one_does() {
    let world = world("drop@event:backends:team/one#2").await;
    let since = world.now().await;
    world.add(&["one"]).await;
    world.tenants.change(Kind::Backend, "team", "one", backend(8081)).await;
    world.tenants.change(Kind::Backend, "team", "one", backend(8082)).await;
    assert_eq!(world.told(since, 2).await, ["added one 1", "modified one 3"]);
    world.end().await;
}

#[tokio::test]
async fn a_deletion_and_a_creation_come_as_one_change() {
    let world = world("merge@event:backends:team/one#2").await;
    let since = world.now().await;
    world.add(&["one"]).await;
    world.tenants.delete(Kind::Backend, "team", "one").await;
    world.add(&["one", "two"]).await;
    assert_eq!(world.told(since, 3).await, ["added one 1", "modified one 1", "added two 1"]);
    world.end().await;
}

#[tokio::test]
async fn a_page_is_short_and_its_token_expires_when_a_plan_says_so() {
    let world = world("status=410,1@page:backends#1").await;
    world.add(&["one", "two", "three"]).await;
    let error = world.listed().await.unwrap_err();
    assert!(error.contains("gone"), "{error}");
    assert_eq!(world.listed().await.unwrap().len(), 3);
    world.end().await;
}

#[tokio::test]
async fn half_a_list_is_no_list() {
    let world = world("truncate@list:backends#1").await;
    world.add(&["one"]).await;
    world.listed().await.unwrap_err();
    assert_eq!(world.listed().await.unwrap(), ["one"]);
    world.end().await;
}

#[tokio::test]
async fn a_stale_server_shows_the_past_and_catches_up() {
    let world = world("relist=2@event:backends:team/one#2").await;
    let since = world.now().await;
    world.add(&["one"]).await;
    world.tenants.delete(Kind::Backend, "team", "one").await;
    assert_eq!(world.told(since, 2).await, ["added one 1", "error 410"]);
    let (revision, past) = list_once(world.replica.client.clone(), Kind::Backend).await.unwrap();
    assert_eq!(past.len(), 1);
    assert_eq!(world.told(revision.0, 1).await, ["deleted one 1"]);
    within(SOON, "the present", async || {
        let listed = world.listed().await?;
        listed.is_empty().then_some(()).ok_or_else(|| format!("{listed:?}"))
    })
    .await;
    world.end().await;
}

#[tokio::test]
async fn a_frozen_watch_goes_on_with_what_it_held_back() {
    let world = world("freeze=1@event:backends:team/one#1").await;
    world.add(&["one", "two"]).await;
    let began = std::time::Instant::now();
    assert_eq!(world.told(0, 2).await, ["added one 1", "added two 1"]);
    assert!(began.elapsed() >= Duration::from_secs(1), "it was not held back");
    world.end().await;
}

#[tokio::test]
async fn an_api_server_that_is_away_breaks_every_connection() {
    let world = world("away=1@write:*#1").await;
    world.add(&["one"]).await;
    assert_eq!(world.listed().await.unwrap(), ["one"]);
    let api = world.replica.api(Kind::Backend, "team");
    let watch = api.watch(&WatchParams::default(), "0").await.unwrap();
    api.delete("one", &kube::api::DeleteParams::default()).await.unwrap_err();
    world.listed().await.unwrap_err();
    let rest: Result<Vec<_>, _> = watch.try_collect().await;
    assert!(rest.is_err(), "the watch outlived its connection");
    within(SOON, "it is back", async || world.listed().await.map(drop)).await;
    assert_eq!(world.listed().await.unwrap(), ["one"], "a request reached a server that is away");
    world.end().await;
}
