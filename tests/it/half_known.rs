//! Replicas that cannot read everything: one kind is refused, is missing or does
//! not answer. They are not ready, say which kind and why, and send nothing.

use std::time::Duration;

use flotilla_apiserver::{Effect, Matcher, Rule};
use flotilla_core::ids::Kind;
use serde_json::json;

use crate::fleet::objects::{answering, backend};
use crate::fleet::server::replica_user;
use crate::fleet::waiting::{SOON, throughout, within};
use crate::fleet::{Against, Fleet};

fn of_backends(number: usize) -> Matcher {
    Matcher { resource: Some("backends".to_owned()), user: Some(replica_user(number)), ..Matcher::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_cannot_be_read_takes_nothing_from_a_gateway() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.namespaces(["team".to_owned()]).await;
    for number in 0..10 {
        let name = format!("route-{number}");
        fleet.tenants.create(Kind::ApiRoute, "team", &name, answering("team", &name, "x")).await;
        fleet.tenants.create(Kind::Backend, "team", &format!("backend-{number}"), backend(8080)).await;
    }
    fleet.add_replicas(2).await;
    fleet.add_gateways("gateway", 2).await;
    fleet.settled().await;
    let before = fleet.show().await.unwrap();
    let keeps = async |fleet: &Fleet| {
        for (before, now) in before.iter().zip(&fleet.show().await?) {
            if (now.held, &now.digest) != (before.held, &before.digest) {
                return Err(format!("{now:?} after {before:?}"));
            }
        }
        Ok(())
    };
    for (effect, words) in [
        (Effect::Status { code: 403, retry_after: None }, "RBAC"),
        (Effect::Status { code: 404, retry_after: None }, "flotilla crds"),
        (Effect::Hang, "not listed yet"),
    ] {
        for number in 0..2 {
            fleet.replicas[number].kill().await;
            fleet.server.faults().add(Rule::new(of_backends(number), effect.clone()));
            fleet.replicas[number].start();
        }
        within(SOON, "readiness names the kind and why", async || {
            let (code, text) = fleet.replicas[0].probe("/readyz").await?;
            let said = code == 503 && text.contains("Backend: ") && text.contains(words);
            // The others are read.
            let others = !text.contains("APIRoute: ") && !text.contains("GRPCRoute: ");
            (said && others).then_some(()).ok_or_else(|| format!("{code} {text}"))
        })
        .await;
        throughout(Duration::from_secs(4), "gateways keep what they have", async || keeps(&fleet).await)
            .await;
        assert_eq!(fleet.removed(), Vec::<String>::new(), "{effect:?}");
        fleet.server.faults().clear();
        for replica in &mut fleet.replicas {
            replica.ready().await;
        }
        fleet.settled().await;
        assert_eq!(fleet.removed(), Vec::<String>::new(), "{effect:?}");
    }

    // The same while it runs: the right to read one kind is taken away.
    for number in 0..2 {
        fleet
            .server
            .faults()
            .add(Rule::new(of_backends(number), Effect::Status { code: 403, retry_after: None }));
    }
    fleet
        .server
        .faults()
        .cut_watches(&Matcher { resource: Some("backends".to_owned()), ..Matcher::default() });
    within(SOON, "a replica that is ready says what it cannot read", async || {
        let (code, text) = fleet.replicas[0].probe("/readyz").await?;
        (code == 200 && text.contains("Backend: ")).then_some(()).ok_or_else(|| format!("{code} {text}"))
    })
    .await;
    // Changes of the other kinds go on.
    fleet.tenants.change(Kind::ApiRoute, "team", "route-0", json!({"timeout": "9s"})).await;
    fleet.settled().await;
    assert_eq!(fleet.removed(), Vec::<String>::new());
    fleet.nothing_went_back().await;
}
