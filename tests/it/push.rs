//! Gateways that listen and are dialled, beside those that dial in.

use std::collections::BTreeSet;

use flotilla_core::ids::Kind;
use flotilla_core::shardmap::Ownership;
use serde_json::json;

use crate::fleet::gateways::{Shown, free_addresses, push_flag};
use crate::fleet::objects::answering;
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, expected_digest, shards};

const NAMESPACES: usize = 6;

fn namespaces() -> impl Iterator<Item = String> + Clone {
    (0..NAMESPACES).map(|number| format!("team-{number}"))
}

/// One flag that names what several name.
fn joined(flags: &[String]) -> String {
    let lists: Vec<_> = flags.iter().map(|flag| flag.split_once('=').unwrap().1).collect();
    format!("--push-gateways={}", lists.join(","))
}

/// Counts updates that gateways have got since they were shown.
fn updates_since(before: &[Shown], now: &[Shown]) -> u64 {
    before.iter().zip(now).map(|(before, now)| now.stats.updates - before.stats.updates).sum()
}

/// No replica that runs has met a version that it could not go on from.
async fn every_version_was_resumed(fleet: &Fleet) {
    for replica in fleet.replicas.iter().filter(|replica| replica.runs()) {
        let unknown = replica.metric("flotilla_unknown_versions_total", "").await.unwrap();
        assert_eq!(unknown, 0.0, "{}: a version was not resumed", replica.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_listen_get_everything_and_a_restarted_controller_goes_on() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.furnish(namespaces()).await;
    // Of two of them one takes batches, and one takes one update a call.
    let (batched, single) = (free_addresses(1), free_addresses(1));
    let flag = joined(&[push_flag("batched", &batched), push_flag("single", &single)]);
    fleet.add_replicas_with(1, &[&flag]).await;
    fleet.add_listening("batched", &batched, true).await;
    fleet.add_listening("single", &single, false).await;
    fleet.settled().await;

    // Changes, creations and deletions, the last of a kind included.
    for namespace in namespaces() {
        fleet.tenants.change(Kind::ApiRoute, &namespace, "one", json!({"timeout": "7s"})).await;
    }
    fleet.tenants.delete(Kind::ApiRoute, "team-0", "two").await;
    fleet.tenants.create(Kind::ApiRoute, "team-1", "new", answering("team-1", "new", "x")).await;
    fleet.settled().await;
    let removed: BTreeSet<_> = fleet.removed().into_iter().collect();
    let asked = ["batched", "single"].map(|name| format!("APIRoute team-0/two from gateways/{name}"));
    assert_eq!(removed, asked.into());

    // What was changed while no controller ran comes, and no full synchronisation: of
    // that the second gateway would get eighteen resources, one by one.
    let before = fleet.show().await.unwrap();
    fleet.replicas[0].kill().await;
    fleet.tenants.change(Kind::ApiRoute, "team-3", "two", json!({"timeout": "9s"})).await;
    fleet.restart_all_stopped().await;
    fleet.settled().await;
    let now = fleet.show().await.unwrap();
    // The changed route, and messages that only move the version.
    let updates = updates_since(&before, &now);
    assert!((2..32).contains(&updates), "{updates} updates after a restart: {now:?}");
    every_version_was_resumed(&fleet).await;
    let calls = |rpc: &'static str| {
        let replica = &fleet.replicas[0];
        async move { replica.metric("flotilla_push_calls_total", &format!("rpc=\"{rpc}\"")).await.unwrap() }
    };
    assert!(calls("ApplyBatch").await > 0.0 && calls("ApplyAPIRoute").await > 0.0);
    fleet.nothing_went_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_resource_keeps_no_other_from_gateways_that_listen() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.furnish(namespaces()).await;
    // Correct for us, and not for the reference gateway: it is there from the first
    // synchronisation on, which a gateway without batches gets piece by piece.
    let mut bad = answering("team-2", "bad", "x");
    bad["match"] = json!([{"uri": {"regex": r"^/\Qa.b\E$"}}]);
    fleet.tenants.create(Kind::ApiRoute, "team-2", "bad", bad).await;
    let addresses = free_addresses(2);
    let flag = push_flag("single", &addresses);
    fleet.add_replicas_with(1, &[&flag]).await;
    fleet.add_listening("single", &addresses, false).await;
    let all_but_bad = async |fleet: &mut Fleet| {
        within(SOON, "all others are applied", async || {
            fleet.check()?;
            let objects = fleet.tenants.all().await?;
            let mut others = objects.iter().filter(|object| &*object.key.name != "bad");
            match others.find(|object| !crate::fleet::ready(object).applied_to(2)) {
                None => Ok(()),
                Some(object) => Err(format!("{}: {:?}", object.key, crate::fleet::ready(object))),
            }
        })
        .await;
    };
    all_but_bad(&mut fleet).await;
    within(SOON, "the bad one says so", async || {
        let ready = fleet.tenants.status(Kind::ApiRoute, "team-2", "bad").await?;
        let said = ready.status == "False" && ready.message.contains("rejected by gateways/single-");
        said.then_some(()).ok_or_else(|| format!("{ready:?}"))
    })
    .await;

    // A good one goes bad between good changes.
    for namespace in namespaces() {
        fleet.tenants.change(Kind::ApiRoute, &namespace, "two", json!({"timeout": "7s"})).await;
    }
    all_but_bad(&mut fleet).await;
    for gateway in fleet.show().await.unwrap() {
        assert_eq!(gateway.stats.regressions, 0, "{gateway:?}");
    }
    let mended = answering("team-2", "bad", "mended");
    fleet.tenants.change(Kind::ApiRoute, "team-2", "bad", mended).await;
    fleet.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_fleet_converges_when_a_replica_is_killed() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.furnish(namespaces()).await;
    let (batched, single) = (free_addresses(10), free_addresses(10));
    let flag = joined(&[push_flag("batched", &batched), push_flag("single", &single)]);
    fleet.add_replicas_with(3, &[&flag]).await;
    fleet.add_gateways("dialling", 20).await;
    fleet.add_listening("batched", &batched, true).await;
    fleet.add_listening("single", &single, false).await;
    fleet.settled().await;

    // Each is dialled by the one that owns its name.
    let map = fleet.map_of_running().await;
    let ownership = Ownership::new(map);
    let keys: Vec<_> = ["batched", "single"]
        .iter()
        .flat_map(|name| (0..10).map(move |number| format!("gateway/gateways/{name}-{number}")))
        .collect();
    for replica in &fleet.replicas {
        let owned = keys
            .iter()
            .filter(|key| ownership.owner(key).is_some_and(|owner| owner.as_str() == replica.name));
        let sessions = replica.metric("flotilla_push_sessions", "").await.unwrap();
        assert_eq!(sessions, owned.count() as f64, "{}", replica.name);
    }

    // One of those that take one resource a call loses its replica, too.
    let victim = ownership.owner(&keys[10]).unwrap().clone();
    fleet.replica(victim.as_str()).kill().await;
    for namespace in namespaces() {
        fleet.tenants.change(Kind::ApiRoute, &namespace, "one", json!({"timeout": "7s"})).await;
    }
    fleet.tenants.delete(Kind::ApiRoute, "team-5", "two").await;
    fleet.settled().await;
    let objects = fleet.tenants.all().await.unwrap();
    fleet.digests_equal(&objects).await.unwrap();
    assert_eq!(fleet.show().await.unwrap().len(), 40);
    let expected = expected_digest(&objects);
    assert!(fleet.show().await.unwrap().iter().all(|gateway| gateway.digest == expected));
    // Whatever came to them came as a difference to what they had, a snapshot where
    // that was cheaper, and nothing was removed but what was deleted.
    every_version_was_resumed(&fleet).await;
    assert!(fleet.removed().iter().all(|removed| removed.starts_with("APIRoute team-5/two from")));
    assert_eq!(fleet.removed().len(), 40);
    let members = shards::members(&shards::published(&fleet.client()).await.unwrap());
    assert!(!members.contains(&victim.as_str().to_owned()), "{members:?}");
    fleet.nothing_went_back().await;
}
