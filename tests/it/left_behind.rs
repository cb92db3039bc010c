//! Objects that the published operator has left behind, with its finalizers: they are served, and go when they are
//! deleted, from gateways at once and from the API server whatever replica acts.

use flotilla_core::ids::Kind;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::fleet::objects::{answering, backend};
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet};

const NAMESPACES: [&str; 3] = ["team-a", "team-b", "team-c"];

async fn hold(fleet: &Fleet, kind: Kind, namespace: &str, name: &str, finalizers: &[&str]) {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    fleet.tenants.api(kind, namespace).patch(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn goes(fleet: &Fleet, kind: Kind, namespace: &str, name: &str) {
    within(SOON, &format!("{kind} {namespace}/{name} goes"), async || {
        let there =
            fleet.tenants.api(kind, namespace).get_opt(name).await.map_err(|error| error.to_string())?;
        there.map_or(Ok(()), |object| Err(format!("{:?}", object.metadata)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_published_operator_holds_may_go_and_what_others_hold_stays() {
    let Some(mut fleet) = Fleet::start(Against::Real).await else { return };
    fleet.tenants.namespaces(NAMESPACES.map(str::to_owned)).await;
    for namespace in NAMESPACES {
        fleet.tenants.create(Kind::ApiRoute, namespace, "route", answering(namespace, "route", "x")).await;
        fleet.tenants.create(Kind::Backend, namespace, "backend", backend(8080)).await;
        hold(&fleet, Kind::ApiRoute, namespace, "route", &["apiroute.avapigw.io/finalizer"]).await;
        hold(&fleet, Kind::Backend, namespace, "backend", &["a.b/c", "backend.avapigw.io/finalizer"]).await;
    }
    // One is on its way already when the first replica comes.
    fleet.tenants.delete(Kind::ApiRoute, "team-a", "route").await;
    fleet.add_replicas(2).await;
    fleet.add_gateways("gateway", 1).await;
    goes(&fleet, Kind::ApiRoute, "team-a", "route").await;
    fleet.settled().await;

    fleet.tenants.delete(Kind::ApiRoute, "team-b", "route").await;
    goes(&fleet, Kind::ApiRoute, "team-b", "route").await;
    fleet.tenants.delete(Kind::Backend, "team-b", "backend").await;
    within(SOON, "only the others' finalizer is left", async || {
        let object = fleet.tenants.api(Kind::Backend, "team-b").get("backend").await.unwrap();
        let left = object.finalizers() == ["a.b/c"];
        left.then_some(()).ok_or_else(|| format!("{:?}", object.metadata))
    })
    .await;
    hold(&fleet, Kind::Backend, "team-b", "backend", &[]).await;
    goes(&fleet, Kind::Backend, "team-b", "backend").await;
    // Of what is not deleted nothing is taken.
    let stays = fleet.tenants.api(Kind::ApiRoute, "team-c").get("route").await.unwrap();
    assert_eq!(stays.finalizers(), ["apiroute.avapigw.io/finalizer"]);
    // Whoever is left goes on.
    fleet.replicas[0].kill().await;
    fleet.tenants.delete(Kind::ApiRoute, "team-c", "route").await;
    goes(&fleet, Kind::ApiRoute, "team-c", "route").await;
    fleet.settled().await;
    fleet.nothing_went_back().await;
}
