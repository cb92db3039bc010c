//! Routes that match the same although nobody was asked: the oldest is served, and
//! the others say whose fault it is until it goes.

use flotilla_core::ids::Kind;
use serde_json::{Value, json};

use crate::fleet::objects::answering;
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, http};

/// A route at `/same` that answers with its name.
fn same(name: &str) -> Value {
    let mut spec = answering("team", name, name);
    spec["match"] = json!([{"uri": {"prefix": "/same"}}]);
    spec
}

/// Waits until a route's status says that it lost to another.
async fn lost(fleet: &Fleet, name: &str, winner: &str) {
    within(SOON, &format!("{name} lost to {winner}"), async || {
        let ready = fleet.tenants.status(Kind::ApiRoute, "team", name).await?;
        let words = ["spec.match[0]", "uri prefix /same", &format!("APIRoute team/{winner}")];
        let told = ready.is_current() && (&*ready.status, &*ready.reason) == ("False", "Conflict");
        let told = told && words.iter().all(|word| ready.message.contains(word));
        told.then_some(()).ok_or_else(|| format!("{ready:?}"))
    })
    .await;
}

/// Waits until everything is as it is to be and every gateway answers with this
/// route's name.
async fn served(fleet: &mut Fleet, name: &str) {
    fleet.settled().await;
    for gateways in &fleet.gateways {
        let (status, text) = http::get(gateways.http, "/same").await.unwrap();
        assert_eq!((status.as_u16(), text.as_str()), (200, name));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_with_the_same_match_the_oldest_is_served_until_it_goes() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.namespaces(["team".to_owned()]).await;
    fleet.add_replicas(3).await;
    fleet.add_gateways("gateway", 2).await;
    let create = async |fleet: &Fleet, name: &str| {
        fleet.tenants.create(Kind::ApiRoute, "team", name, same(name)).await;
    };
    create(&fleet, "a").await;
    create(&fleet, "b").await;
    create(&fleet, "c").await;
    for name in ["b", "c"] {
        lost(&fleet, name, "a").await;
    }
    served(&mut fleet, "a").await;

    // It goes, and the next one has its turn.
    fleet.tenants.delete(Kind::ApiRoute, "team", "a").await;
    lost(&fleet, "c", "b").await;
    served(&mut fleet, "b").await;
    // It leaves the match to the others.
    fleet.tenants.change(Kind::ApiRoute, "team", "b", answering("team", "b", "b")).await;
    served(&mut fleet, "c").await;
    // It was there first: the match is its own when it wants it back.
    fleet.tenants.change(Kind::ApiRoute, "team", "b", same("b")).await;
    lost(&fleet, "c", "b").await;
    served(&mut fleet, "b").await;

    // Whoever did not see it go finds out by what the status says of it.
    for replica in &mut fleet.replicas {
        replica.kill().await;
    }
    fleet.tenants.delete(Kind::ApiRoute, "team", "b").await;
    fleet.restart_all_stopped().await;
    served(&mut fleet, "c").await;
    let full_syncs = fleet.show().await.unwrap();
    assert!(full_syncs.iter().all(|gateway| gateway.stats.removed_by_full_sync == 0), "{full_syncs:?}");
}
