//! Replicas audit each other: who has lost an event holds something else than
//! the others, and that is seen; and of all namespaces each has one owner.

use flotilla_apiserver::{Effect, Matcher, Rule, Verb};
use flotilla_core::ids::Kind;
use serde_json::json;

use crate::fleet::objects::answering;
use crate::fleet::server::replica_user;
use crate::fleet::waiting::{SOON, figure, within};
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
async fn a_replica_that_lost_an_event_is_found_out_and_every_namespace_has_one_owner() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.namespaces(NAMESPACES.map(str::to_owned)).await;
    let route =
        |namespace: &str| (namespace.to_owned(), "route".to_owned(), answering(namespace, "route", "x"));
    fleet.tenants.create_all(Kind::ApiRoute, NAMESPACES.map(route)).await;
    fleet.add_replicas(3).await;
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

    // One replica is not told of one change, and of the next one it is.
    let lost = Matcher {
        verbs: vec![Verb::Watch],
        resource: Some("apiroutes".to_owned()),
        namespace: Some("team-b".to_owned()),
        user: Some(replica_user(1)),
        ..Matcher::default()
    };
    let rule = fleet.server.faults().add(Rule::new(lost, Effect::DropEvent));
    fleet.tenants.change(Kind::ApiRoute, "team-b", "route", json!({"timeout": "7s"})).await;
    within(SOON, "the event is lost", async || {
        (fleet.server.faults().hits(rule) > 0).then_some(()).ok_or_else(String::new)
    })
    .await;
    let began = std::time::Instant::now();
    let found = within(3 * SOON, "the others see that it holds something else", async || {
        // Same events seen last, or nothing can be said.
        fleet.tenants.change(Kind::ApiRoute, "team-c", "route", json!({"timeout": "8s"})).await;
        let different = all(&fleet, "flotilla_namespaces_different", "").await?;
        different
            .iter()
            .any(|count| *count > 0.0)
            .then_some(different.clone())
            .ok_or(format!("{different:?}"))
    })
    .await;
    figure(&format!("agreement: a lost event was found out after {:.0} s", began.elapsed().as_secs_f64()));
    assert!(found.iter().all(|count| *count <= 1.0), "one namespace differs: {found:?}");
    let words = "holds something else of these namespaces";
    let named: Vec<String> = fleet.replicas.iter().flat_map(|one| one.log_lines(&[words])).collect();
    assert!(named.iter().all(|line| line.contains("team-b")), "{named:?}");
    assert!(!named.is_empty(), "somebody says so in its log");

    // With the next event of the object all is equal again, and nobody says otherwise.
    fleet.server.faults().remove(rule);
    fleet.tenants.change(Kind::ApiRoute, "team-b", "route", json!({"timeout": "9s"})).await;
    within(3 * SOON, "nothing differs any more", async || {
        let different = all(&fleet, "flotilla_namespaces_different", "").await?;
        (different == [0.0; 3]).then_some(()).ok_or_else(|| format!("{different:?}"))
    })
    .await;
}
