//! What tenants have and change.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use flotilla_testing::fleet::objects::Tenants;
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cli::Size;
use crate::client::{Board, key};

/// ResourceType API_ROUTE on the wire.
pub const ROUTE: u64 = 1;

/// Writes that may be under way at once.
const AT_ONCE: usize = 64;

/// How long a status may take.
const SAID_WITHIN: Duration = Duration::from_secs(60);

/// How often it is looked at: the measurement is not to be of this.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// How fast changes are made, and whose routes they change.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Changes a second.
    pub rate: u32,
    /// For how long, in seconds.
    pub seconds: u32,
    /// Whose.
    pub whose: Whose,
}

/// Some of the tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// All.
    All,
    /// The one with the first namespace. Its changes are not measured.
    Loud,
    /// All others.
    Quiet,
}

/// Routes, spread over namespaces.
#[derive(Clone)]
pub struct Routes {
    client: Client,
    api: Api<DynamicObject>,
    size: Size,
    /// How many changes were made: no two specs are the same.
    made: Arc<AtomicU64>,
}

fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("avapigw.io", "v1alpha1", "APIRoute"),
        "apiroutes",
    )
}

/// The spec of a route, of the size that routes of tenants have. No two turns
/// give the same.
pub fn spec(namespace: &str, name: &str, turn: u64) -> Value {
    json!({
        "match": [{
            "uri": {"prefix": format!("/{namespace}/{name}")},
            "methods": ["GET", "POST", "PUT"],
            "headers": [{"name": "x-tenant", "exact": namespace}],
        }],
        "route": [
            {"destination": {"host": "10.0.0.1", "port": 8080}, "weight": 90},
            {"destination": {"host": "10.0.0.2", "port": 8080}, "weight": 10},
        ],
        "timeout": "30s",
        "retries": {"attempts": 3, "perTryTimeout": "10s", "retryOn": "5xx,reset,connect-failure"},
        "headers": {"request": {"set": {"x-turn": turn.to_string()}, "remove": ["x-internal"]}},
    })
}

impl Routes {
    /// So many routes in so many namespaces, none of which is there yet.
    pub fn new(client: Client, size: Size) -> Self {
        Routes { api: Api::all_with(client.clone(), &resource()), client, size, made: Arc::default() }
    }

    /// Namespace and name of the route of this number.
    pub fn name(&self, number: u32) -> (String, String) {
        (format!("load-{:04}", number % self.size.namespaces), format!("route-{number:05}"))
    }

    /// Its key.
    pub fn key(&self, number: u32) -> u64 {
        let (namespace, name) = self.name(number);
        key(ROUTE, &namespace, &name)
    }

    /// Its spec: see [`spec`].
    pub fn spec(&self, number: u32, turn: u64) -> Value {
        let (namespace, name) = self.name(number);
        spec(&namespace, &name, turn)
    }

    /// Creates the namespaces.
    pub async fn namespaces(&self) {
        let names = (0..self.size.namespaces).map(|number| format!("load-{number:04}"));
        Tenants { client: self.client.clone() }.namespaces(names).await;
    }

    /// Creates the routes of these numbers as fast as the API server takes
    /// them; `board` is told of each.
    pub async fn create(&self, numbers: std::ops::Range<u32>, board: Option<&Board>) -> anyhow::Result<()> {
        let mut writes = futures::stream::iter(numbers)
            .map(|number| async move {
                anyhow::Ok((number, self.create_one(number, self.spec(number, 0)).await?))
            })
            .buffer_unordered(AT_ONCE);
        while let Some(made) = writes.next().await {
            let (number, generation) = made?;
            if let Some(board) = board {
                board.written(self.key(number), generation, board.now(), true);
            }
        }
        Ok(())
    }

    async fn create_one(&self, number: u32, spec: Value) -> anyhow::Result<u64> {
        let (namespace, name) = self.name(number);
        let object = serde_json::from_value(json!({
            "apiVersion": "avapigw.io/v1alpha1",
            "kind": "APIRoute",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }))?;
        let api = self.of(&namespace);
        let made: DynamicObject = api.create(&PostParams::default(), &object).await?;
        Ok(made.metadata.generation.unwrap_or(1) as u64)
    }

    /// Creates a route that nothing speaks against but what gateways can load.
    pub async fn create_unloadable(&self, number: u32) -> anyhow::Result<()> {
        let mut spec = self.spec(number, 0);
        spec["match"][0]["uri"] = json!({ "regex": r"^/\Qa.b\E$" });
        self.create_one(number, spec).await.map(|_| ())
    }

    /// Mends it.
    pub async fn mend(&self, number: u32) -> anyhow::Result<()> {
        let (namespace, name) = self.name(number);
        let uri = json!({"regex": null, "prefix": format!("/{namespace}/{name}")});
        let mut spec = self.spec(number, 1);
        spec["match"][0]["uri"] = uri;
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.of(&namespace).patch(&name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits until a route's status says this of its present generation, and returns
    /// its message.
    pub async fn says(&self, number: u32, status: &str, reason: &str) -> anyhow::Result<String> {
        let (namespace, name) = self.name(number);
        let (api, until) = (self.of(&namespace), Instant::now() + SAID_WITHIN);
        loop {
            let object = api.get(&name).await?;
            let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
            let ready = ready.unwrap_or_default();
            let of_now = ready["observedGeneration"].as_i64() == object.metadata.generation;
            if of_now && ready["status"] == status && ready["reason"] == reason {
                return Ok(ready["message"].as_str().unwrap_or_default().to_owned());
            }
            anyhow::ensure!(
                Instant::now() < until,
                "{namespace}/{name} does not say {status}, {reason}: {ready}"
            );
            sleep(LOOK_AGAIN).await;
        }
    }

    fn of(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource())
    }

    async fn change(&self, number: u32) -> anyhow::Result<u64> {
        let turn = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let (namespace, name) = self.name(number);
        let patch = Patch::Merge(json!({"spec": self.spec(number, turn)}));
        let made = self.of(&namespace).patch(&name, &PatchParams::default(), &patch).await?;
        Ok(made.metadata.generation.context("an object without generation")? as u64)
    }

    /// Changes so many routes in turn, as fast as the API server takes it.
    pub async fn change_all(&self, changes: u32) -> anyhow::Result<()> {
        let mut writes = futures::stream::iter(0..changes)
            .map(|change| self.change(change % self.size.routes))
            .buffer_unordered(AT_ONCE);
        while let Some(made) = writes.next().await {
            made?;
        }
        Ok(())
    }

    /// Changes routes in turn at a steady rate, whatever becomes of the changes
    /// before: a slow server must not slow the measurement down.
    pub async fn keep_changing(&self, board: &Arc<Board>, pace: Pace) -> anyhow::Result<()> {
        let Pace { rate, seconds, whose } = pace;
        let begun = Instant::now();
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut writes = JoinSet::new();
        // Shown where standard error is a terminal.
        let changes = u64::from(rate) * u64::from(seconds);
        let progress = ProgressBar::new(changes).with_style(ProgressStyle::with_template(
            "{bar:40} {pos}/{len} changes, {msg} not everywhere, {eta} to go",
        )?);
        for turn in 0..changes {
            sleep_until(begun + Duration::from_secs(1).mul_f64(turn as f64 / f64::from(rate))).await;
            let permit = room.clone().acquire_owned().await?;
            let (routes, theirs) = (self.clone(), board.clone());
            writes.spawn(async move {
                let number = routes.in_turn(whose, turn);
                let generation = routes.change(number).await?;
                theirs.written(routes.key(number), generation, theirs.now(), whose != Whose::Loud);
                drop(permit);
                anyhow::Ok(())
            });
            while let Some(done) = writes.try_join_next() {
                done??;
            }
            progress.set_message(board.open().to_string());
            progress.inc(1);
        }
        progress.finish_and_clear();
        while let Some(done) = writes.join_next().await {
            done??;
        }
        Ok(())
    }

    /// The number of the route whose turn it is.
    fn in_turn(&self, whose: Whose, turn: u64) -> u32 {
        let Size { routes, namespaces, .. } = self.size;
        let nth = |of: u32| (turn % u64::from(of.max(1))) as u32;
        match whose {
            Whose::All => nth(routes),
            Whose::Loud => nth(routes.div_ceil(namespaces)) * namespaces,
            // Rows of one route from each namespace, without the first.
            Whose::Quiet => {
                let quiet = nth(routes - routes.div_ceil(namespaces));
                quiet / (namespaces - 1) * namespaces + quiet % (namespaces - 1) + 1
            }
        }
    }

    /// Deletes the routes of these numbers; the board is told before.
    pub async fn delete(&self, numbers: std::ops::Range<u32>, board: &Board) -> anyhow::Result<()> {
        for number in numbers {
            let (namespace, name) = self.name(number);
            board.deleting(self.key(number));
            self.of(&namespace).delete(&name, &DeleteParams::default()).await?;
        }
        Ok(())
    }

    /// Tells the board of every status that says Ready, for ever.
    pub async fn follow_statuses(&self, board: &Board) -> anyhow::Result<Infallible> {
        let listed = self.api.list_metadata(&ListParams::default().limit(1)).await?;
        let mut revision = listed.metadata.resource_version.context("a list without resourceVersion")?;
        loop {
            let mut events = self.api.watch(&WatchParams::default(), &revision).await?.boxed();
            while let Some(event) = events.next().await {
                match event? {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        if let Some(generation) = ready(&object) {
                            let namespace = object.namespace().unwrap_or_default();
                            board.ready(key(ROUTE, &namespace, &object.name_any()), generation, board.now());
                        }
                        revision = object.resource_version().unwrap_or(revision);
                    }
                    WatchEvent::Bookmark(bookmark) => revision = bookmark.metadata.resource_version,
                    WatchEvent::Deleted(_) => {}
                    WatchEvent::Error(error) => anyhow::bail!("the watch of statuses: {error}"),
                }
            }
        }
    }

    /// Bytes of all routes as JSON.
    pub async fn bytes(&self) -> anyhow::Result<usize> {
        let (mut page, mut sum) = (ListParams::default().limit(500), 0);
        loop {
            let listed = self.api.list(&page).await?;
            for object in &listed.items {
                sum += serde_json::to_vec(object)?.len();
            }
            match listed.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(sum),
            }
        }
    }

    /// Key, uid and generation of every route that the API server has.
    pub async fn all(&self) -> anyhow::Result<Vec<(u64, String, u64)>> {
        let listed = self.api.list_metadata(&ListParams::default()).await?;
        let each = listed.items.into_iter().map(|object| {
            let namespace = object.namespace().unwrap_or_default();
            let generation = object.metadata.generation.unwrap_or_default() as u64;
            (key(ROUTE, &namespace, &object.name_any()), object.uid().unwrap_or_default(), generation)
        });
        Ok(each.collect())
    }
}

/// The generation that a status says is on every gateway.
fn ready(object: &DynamicObject) -> Option<u64> {
    let status = &object.data["status"];
    let conditions = status["conditions"].as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    let generation = ready["observedGeneration"].as_u64().or(status["observedGeneration"].as_u64())?;
    (ready["status"] == "True").then_some(generation)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test]
    async fn the_loud_and_the_quiet_have_all_routes_between_them() {
        let config = kube::Config::new("http://localhost".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        for (routes, namespaces) in [(1000, 50), (101, 10), (7, 2)] {
            let all = Routes::new(client.clone(), Size { gateways: 1, routes, namespaces });
            let numbers = |whose| (0..2000).map(|turn| all.in_turn(whose, turn)).collect::<BTreeSet<_>>();
            let (loud, quiet) = (numbers(Whose::Loud), numbers(Whose::Quiet));
            assert!(loud.is_disjoint(&quiet));
            assert_eq!(&loud | &quiet, numbers(Whose::All));
            assert!(loud.iter().all(|number| all.name(*number).0 == "load-0000"));
        }
    }
}
