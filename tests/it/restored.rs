//! etcd is restored from a backup: revisions go back and are used again for
//! other contents. Nothing that replicas and gateways remember is true any more,
//! and nobody tells them.

#![expect(clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use flotilla_core::ids::Kind;
use serde_json::json;

use crate::fleet::objects::{answering, backend, leading};
use crate::fleet::waiting::{SOON, figure, within};
use crate::fleet::{Against, Fleet, Server};

const NAMESPACES: usize = 10;
/// So many changes are lost that the new history does not pass the old one at once.
const LOST: usize = 20;

fn namespaces() -> impl Iterator<Item = String> {
    (0..NAMESPACES).map(|number| format!("team-{number}"))
}

/// A backup of the API server's store.
enum Backup {
    Inside(flotilla_apiserver::Backup),
    Real,
}

async fn back_up(fleet: &mut Fleet) -> Backup {
    match &mut fleet.server {
        Server::Inside(server) => Backup::Inside(server.backup()),
        Server::Real(kube) => {
            kube.back_up().await.unwrap();
            Backup::Real
        }
        Server::Embedded(_) => panic!("a server that is a process keeps nothing"),
    }
}

async fn restore(fleet: &mut Fleet, backup: &Backup) {
    match (&mut fleet.server, backup) {
        (Server::Inside(server), Backup::Inside(backup)) => server.restore(backup),
        (Server::Real(kube), _) => kube.restore().await.unwrap(),
        _ => panic!("the backup is of another server"),
    }
}

/// Waits until every gateway holds what the API server holds. A replica that
/// ends is started again, as a kubelet does.
async fn synchronised(fleet: &mut Fleet) -> usize {
    let mut restarts = 0;
    within(3 * SOON, "gateways hold what the restored API server holds", async || {
        for replica in &mut fleet.replicas {
            if replica.check().is_err() {
                replica.start();
                restarts += 1;
            }
        }
        let objects = fleet.tenants.all().await?;
        fleet.digests_equal(&objects).await
    })
    .await;
    restarts
}

async fn a_backup_is_restored(against: Against, running: bool) {
    let Some(mut fleet) = Fleet::start(against).await else { return };
    fleet.tenants.namespaces(namespaces()).await;
    let backends = namespaces().map(|namespace| (namespace, "api".to_owned(), backend(8080)));
    fleet.tenants.create_all(Kind::Backend, backends).await;
    for name in ["changed", "deleted"] {
        let route =
            |namespace: String| (namespace.clone(), name.to_owned(), leading(&namespace, name, "api"));
        fleet.tenants.create_all(Kind::ApiRoute, namespaces().map(route)).await;
    }
    fleet.add_replicas(2).await;
    fleet.add_gateways("gateway", 4).await;
    fleet.settled().await;
    let backup = back_up(&mut fleet).await;
    fleet.settled_within(2 * SOON).await;

    // What the backup does not know.
    for namespace in namespaces() {
        fleet.tenants.delete(Kind::ApiRoute, &namespace, "deleted").await;
        for round in 0..LOST {
            let spec = json!({"timeout": format!("{}s", round + 2)});
            fleet.tenants.change(Kind::ApiRoute, &namespace, "changed", spec).await;
        }
        fleet.tenants.create(Kind::ApiRoute, &namespace, "lost", answering(&namespace, "lost", "x")).await;
    }
    fleet.settled_within(2 * SOON).await;
    let before = fleet.show().await.unwrap();
    if !running {
        for replica in &mut fleet.replicas {
            replica.kill().await;
        }
    }
    restore(&mut fleet, &backup).await;
    let started = std::time::Instant::now();
    if !running {
        for replica in &mut fleet.replicas {
            replica.start();
        }
    }
    // The new history uses the revisions of the lost one for something else.
    fleet
        .tenants
        .create(Kind::ApiRoute, "team-0", "new", answering("team-0", "new", "of the new history"))
        .await;
    let restarts = synchronised(&mut fleet).await;
    let took = started.elapsed();
    for replica in &mut fleet.replicas {
        replica.ready().await;
    }
    fleet.settled_within(2 * SOON).await;

    let said: usize = fleet
        .replicas
        .iter()
        .map(|replica| replica.log_lines(&["this replica's history is over"]).len())
        .sum();
    assert!(said >= 1, "no replica said that the history was replaced");
    let after = fleet.show().await.unwrap();
    for (before, after) in before.iter().zip(&after) {
        let fulls = after.stats.full_syncs - before.stats.full_syncs;
        // Of those who come to a replica that does not know yet, each is
        // synchronised for itself, and once more under the new name.
        let most = if running { 1 } else { 2 };
        assert!((1..=most).contains(&fulls), "{fulls} full synchronisations: {after:?}");
        assert_ne!(before.version.split('.').nth(2), after.version.split('.').nth(2), "{after:?}");
    }
    figure(&format!(
        "restored backup, {against:?} API server, replicas {}: {} lost writes; every gateway equal again after {} ms \
         ({restarts} replicas ended and were started again)",
        if running { "running" } else { "down" },
        NAMESPACES * (LOST + 2),
        took.as_millis()
    ));
    // And everything goes on.
    fleet.tenants.change(Kind::ApiRoute, "team-1", "changed", json!({"timeout": "99s"})).await;
    fleet.settled_within(Duration::from_secs(90)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_under_running_replicas_ends_in_one_full_synchronisation() {
    a_backup_is_restored(Against::Inside, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_while_no_replica_runs_is_noticed_by_the_gateways_versions() {
    a_backup_is_restored(Against::Inside, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_of_a_real_etcd_ends_in_one_full_synchronisation() {
    a_backup_is_restored(Against::Real, true).await;
}
