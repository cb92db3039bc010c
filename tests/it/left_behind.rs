//! Objects that are held by finalizers, those that the published operator has left behind and those of a replica that
//! sets them: they are served, and go when they are deleted, from gateways at once and from the API server when gateways
//! have let them go, whatever replica acts.

use flotilla_core::ids::Kind;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::fleet::objects::{answering, backend};
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, expected_digest};

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
    within(SOON, "what was taken out is counted", async || {
        let mut taken = 0.0;
        for replica in &fleet.replicas {
            let of = |controller: &str| format!("controller=\"{controller}\",operation=\"remove\"");
            for label in [of("apiroute"), of("backend")] {
                taken += replica.metric("avapigw_operator_finalizer_operations_total", &label).await?;
            }
        }
        (taken > 2.5 && taken < 3.5).then_some(()).ok_or_else(|| format!("{taken}"))
    })
    .await;
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

async fn are_held(fleet: &Fleet, wanted: &[(Kind, &str, &str, &[&str])]) {
    within(SOON, "all are held", async || {
        for (kind, namespace, name, finalizers) in wanted {
            let object = fleet.tenants.api(*kind, namespace).get(name).await.map_err(|e| e.to_string())?;
            if object.finalizers() != *finalizers {
                return Err(format!("{:?}", object.metadata));
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_objects_are_held_a_deletion_is_over_when_gateways_have_let_go() {
    let Some(mut fleet) = Fleet::start(Against::Real).await else { return };
    fleet.tenants.namespaces(NAMESPACES.map(str::to_owned)).await;
    fleet.tenants.create(Kind::Backend, "team-a", "backend", backend(8080)).await;
    hold(&fleet, Kind::Backend, "team-a", "backend", &["a.b/c"]).await;
    fleet.add_replicas_with(2, &["--finalizers=true", "--deletion-timeout=15s"]).await;
    fleet.add_gateways("steady", 2).await;
    fleet.add_gateways("stuck", 1).await;
    for namespace in NAMESPACES {
        fleet.tenants.create(Kind::ApiRoute, namespace, "route", answering(namespace, "route", "x")).await;
    }
    fleet.tenants.create(Kind::ApiRoute, "team-b", "another", answering("team-b", "another", "x")).await;
    fleet.settled().await;
    let route = &["apiroute.avapigw.io/finalizer"][..];
    let routes = NAMESPACES.map(|namespace| (Kind::ApiRoute, namespace, "route", route));
    are_held(&fleet, &routes).await;
    let backend = &["a.b/c", "backend.avapigw.io/finalizer"][..];
    are_held(&fleet, &[(Kind::Backend, "team-a", "backend", backend)]).await;

    // Gone is gone from gateways.
    fleet.tenants.delete(Kind::ApiRoute, "team-a", "route").await;
    goes(&fleet, Kind::ApiRoute, "team-a", "route").await;
    let expected = expected_digest(&fleet.tenants.all().await.unwrap());
    for gateway in fleet.show().await.unwrap() {
        assert_eq!(gateway.digest, expected, "{gateway:?}");
    }

    // Of one that does not answer it is not known, and it holds nobody up for ever.
    let stuck = fleet.gateways.iter().find(|gateways| gateways.name == "stuck").unwrap();
    stuck.process.signal(Signal::SIGSTOP);
    for name in ["route", "another"] {
        fleet.tenants.delete(Kind::ApiRoute, "team-b", name).await;
    }
    let steady = fleet.gateways.iter().find(|gateways| gateways.name == "steady").unwrap();
    within(SOON, "those that answer let it go", async || {
        let held = steady.show().await?.iter().map(|gateway| gateway.held).max();
        (held == Some(2)).then_some(()).ok_or_else(|| format!("{held:?}"))
    })
    .await;
    let there = fleet.tenants.api(Kind::ApiRoute, "team-b").get("route").await.unwrap();
    assert!(there.metadata.deletion_timestamp.is_some() && there.finalizers() == route, "{there:?}");
    for name in ["another", "route"] {
        goes(&fleet, Kind::ApiRoute, "team-b", name).await;
    }
    within(SOON, "people are told", async || {
        let events = Api::<Event>::namespaced(fleet.client(), "team-b").list(&Default::default()).await;
        let events = events.map_err(|error| error.to_string())?;
        let told = events.items.iter().any(|event| {
            event.reason.as_deref() == Some("CleanupFailed")
                && event.message.as_ref().is_some_and(|message| message.starts_with("1 of the connected"))
        });
        told.then_some(()).ok_or_else(|| format!("{:?}", events.items))
    })
    .await;
    let stuck = fleet.gateways.iter().find(|gateways| gateways.name == "stuck").unwrap();
    stuck.process.signal(Signal::SIGCONT);
    hold(&fleet, Kind::Backend, "team-a", "backend", &["backend.avapigw.io/finalizer"]).await;
    fleet.tenants.delete(Kind::Backend, "team-a", "backend").await;
    goes(&fleet, Kind::Backend, "team-a", "backend").await;
    fleet.settled().await;
    fleet.nothing_went_back().await;
}
