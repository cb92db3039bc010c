//! Replicas audit each other: they hold the same, and of all namespaces each has
//! one owner. That a difference is found is shown beside the auditor. And they audit
//! gateways that say what they hold.

use flotilla_core::ids::Kind;

use crate::fleet::forgetful::Forgetful;
use crate::fleet::objects::answering;
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet};

const NAMESPACES: [&str; 3] = ["team-a", "team-b", "team-c"];

/// A metric of every replica.
async fn all(fleet: &Fleet, name: &str, label: &str) -> Result<Vec<f64>, String> {
    let mut values = Vec::new();
    for replica in &fleet.replicas {
        values.push(replica.metric(name, label).await?);
    }
    Ok(values)
}

/// Waits until every replica has compared and audited this many times more.
async fn audited(fleet: &Fleet, times: f64) {
    let before = all(fleet, "flotilla_ownership_audits_total", r#"result="complete""#).await.unwrap();
    within(SOON, "all replicas have audited who acts on what", async || {
        let now = all(fleet, "flotilla_ownership_audits_total", r#"result="complete""#).await?;
        let enough = before.iter().zip(&now).all(|(before, now)| *now >= before + times);
        enough.then_some(()).ok_or_else(|| format!("{now:?} after {before:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_find_that_they_agree_and_that_every_namespace_has_one_owner() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.namespaces(NAMESPACES.map(str::to_owned)).await;
    let route =
        |namespace: &str| (namespace.to_owned(), "route".to_owned(), answering(namespace, "route", "x"));
    fleet.tenants.create_all(Kind::ApiRoute, NAMESPACES.map(route)).await;
    fleet.add_replicas(3).await;
    fleet.add_gateways("gateway", 1).await;
    fleet.settled().await;
    audited(&fleet, 2.0).await;
    for metric in
        ["flotilla_namespaces_unowned", "flotilla_namespaces_doubly_owned", "flotilla_namespaces_different"]
    {
        assert_eq!(all(&fleet, metric, "").await.unwrap(), [0.0; 3], "{metric}");
    }
    let owned = all(&fleet, "flotilla_owned_namespaces", "").await.unwrap();
    assert!((owned.iter().sum::<f64>() - 3.0).abs() < 0.5, "each namespace is owned once: {owned:?}");
    let equal = all(&fleet, "flotilla_digest_comparisons_total", r#"result="equal""#).await.unwrap();
    assert!(equal.iter().all(|count| *count > 0.0), "digests were compared: {equal:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_lost_an_object_is_found_and_the_others_are_not_suspected() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.namespaces(NAMESPACES.map(str::to_owned)).await;
    let route =
        |namespace: &str| (namespace.to_owned(), "route".to_owned(), answering(namespace, "route", "x"));
    fleet.tenants.create_all(Kind::ApiRoute, NAMESPACES.map(route)).await;
    fleet.add_replicas_with(1, &["--heartbeat-interval=1s"]).await;
    fleet.add_gateways("gateway", 3).await;
    fleet.settled().await;
    let compared = async |result: &str| {
        let label = format!("result=\"{result}\"");
        fleet.replicas[0].metric("flotilla_gateway_digests_total", &label).await
    };
    within(SOON, "the gateways are compared", async || {
        let equal = compared("equal").await?;
        (equal >= 6.0).then_some(()).ok_or_else(|| format!("{equal} times"))
    })
    .await;
    assert_eq!(compared("different").await, Ok(0.0));

    let authority = fleet.authority().await;
    let mut forgetful = Forgetful::connect(fleet.replicas[0].grpc, &authority, "forgetful").await;
    assert_eq!(forgetful.held.len(), NAMESPACES.len());
    let (lost, _) = forgetful.held.swap_remove(1);
    within(SOON, "it is noticed", async || {
        forgetful.heartbeat().await;
        let different = compared("different").await?;
        (different >= 1.0).then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let said = format!("APIRoute {lost}");
    let words = ["does not hold what it acknowledged", "gateways/forgetful", &said];
    within(SOON, "it is named with what it lacks", async || {
        let lines = fleet.replicas[0].log_lines(&words);
        (lines.len() == 1).then_some(()).ok_or_else(|| format!("{lines:?}"))
    })
    .await;
}
