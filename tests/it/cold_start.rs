//! All replicas are started again: what is known of the gateways is gone, and
//! everything that stands in the API server is still true.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_core::ids::{Kind, ObjectKey, Revision};
use serde_json::json;

use crate::fleet::objects::{backend, leading};
use crate::fleet::waiting::{SOON, figure, throughout, within};
use crate::fleet::{Against, Fleet};

const NAMESPACES: usize = 10;

fn namespaces() -> impl Iterator<Item = String> {
    (0..NAMESPACES).map(|number| format!("team-{number}"))
}

type Revisions = BTreeMap<(Kind, ObjectKey), Revision>;

async fn revisions(fleet: &Fleet) -> Result<Revisions, String> {
    let objects = fleet.tenants.all().await?;
    Ok(objects.into_iter().map(|object| ((object.kind, object.key), object.revision)).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_replicas_start_again_nothing_is_written_and_nothing_is_sent_again() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.namespaces(namespaces()).await;
    let backends = namespaces().map(|namespace| (namespace, "api".to_owned(), backend(8080)));
    fleet.tenants.create_all(Kind::Backend, backends).await;
    let routes = namespaces()
        .map(|namespace| (namespace.clone(), "one".to_owned(), leading(&namespace, "one", "api")));
    fleet.tenants.create_all(Kind::ApiRoute, routes).await;
    fleet.add_replicas(2).await;
    fleet.add_gateways("gateway", 3).await;
    fleet.settled().await;
    // Our own statuses raised the revisions; a quiet gateway is told so by an
    // empty message.
    let (before, updates) = within(SOON, "the versions include the statuses", async || {
        fleet.versions_include(&fleet.tenants.all().await?).await?;
        Ok((
            revisions(&fleet).await?,
            fleet.show().await?.iter().map(|shown| shown.stats.updates).sum::<u64>(),
        ))
    })
    .await;

    fleet.restart_all().await;
    fleet.map_of_running().await;
    within(SOON, "the gateways are back", async || {
        let away = fleet.show().await?.into_iter().find(|shown| shown.phase != "streaming");
        away.map_or(Ok(()), |shown| Err(format!("{} is {}", shown.name, shown.phase)))
    })
    .await;
    // Longer than counts take to settle, and than a change takes until its
    // progress is written.
    let unwritten = async || {
        let now = revisions(&fleet).await?;
        let differ = before.iter().find(|(key, revision)| now.get(key) != Some(revision));
        differ.map_or(Ok(()), |((kind, key), _)| Err(format!("the status of {kind} {key} was written")))
    };
    throughout(Duration::from_secs(8), "statuses stay as they are", unwritten).await;
    let sent = fleet.show().await.unwrap().iter().map(|shown| shown.stats.updates).sum::<u64>() - updates;
    figure(&format!("cold start: {sent} updates to 3 gateways, {} objects", before.len()));
    // The sequence has to be set anew on every stream.
    assert!(sent <= 2 * 3, "{sent} updates");

    // What changes now is written as ever.
    fleet.tenants.change(Kind::ApiRoute, "team-3", "one", json!({"timeout": "9s"})).await;
    fleet.settled().await;
    let now = revisions(&fleet).await.unwrap();
    let differ = before.iter().filter(|(key, revision)| now.get(key) != Some(revision)).count();
    assert_eq!(differ, 1);
    fleet.nothing_went_back().await;
}
