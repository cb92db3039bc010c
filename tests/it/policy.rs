//! Which gateways may have what, by a file that is read again when it changes.

use std::path::PathBuf;
use std::time::Duration;

use flotilla_core::ids::Kind;
use flotilla_core::object::RawObject;

use crate::fleet::gateways::{free_addresses, push_flag};
use crate::fleet::objects::{answering, backend};
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, expected_digest};

const NAMESPACES: [&str; 2] = ["shop", "inner"];
const ROUTES: usize = 3;
/// A gateway takes nothing away for so long after it registered.
const GUARD: Duration = Duration::from_secs(32);

fn policy(granted: &str) -> String {
    format!(
        "rules:\n- gateways: {{names: [public-*, public]}}\n  namespaces: [{granted}]\notherwise: everything\n"
    )
}

/// Waits until a group of gateways holds the objects of these namespaces.
async fn holds(fleet: &Fleet, group: usize, namespaces: &[&str], long: Duration) {
    holds_those(fleet, group, long, &format!("all of {namespaces:?}"), |object| {
        namespaces.contains(&&*object.key.namespace)
    })
    .await;
}

/// Waits until a group of gateways holds these objects and no other.
async fn holds_those(
    fleet: &Fleet,
    group: usize,
    long: Duration,
    what: &str,
    theirs: impl Fn(&RawObject) -> bool,
) {
    let objects: Vec<RawObject> = fleet.tenants.all().await.unwrap();
    let theirs: Vec<RawObject> = objects.into_iter().filter(theirs).collect();
    let expected = expected_digest(&theirs);
    within(long, &format!("gateway {group} holds {what}"), async || {
        let shown = fleet.gateways[group].first().await;
        (shown.digest == expected).then_some(()).ok_or_else(|| format!("{shown:?}"))
    })
    .await;
}

/// Waits until all replicas say whether they go by an old policy.
async fn stale(fleet: &Fleet, wanted: f64) {
    within(SOON, &format!("a stale policy: {wanted}"), async || {
        for replica in &fleet.replicas {
            let stale = replica.metric("flotilla_gateway_policy_stale", "").await?;
            if (stale - wanted).abs() > 0.1 {
                return Err(format!("{}: {stale}", replica.name));
            }
        }
        Ok(())
    })
    .await;
}

/// Routes in all namespaces, and the policy's file.
async fn furnish(fleet: &Fleet, policy: &str) -> PathBuf {
    let file = fleet.path().join("policy.yaml");
    std::fs::write(&file, policy).unwrap();
    fleet.tenants.namespaces(NAMESPACES.map(str::to_owned)).await;
    for namespace in NAMESPACES {
        let route = |number| {
            let name = format!("route-{number}");
            (namespace.to_owned(), name.clone(), answering(namespace, &name, "hi"))
        };
        fleet.tenants.create_all(Kind::ApiRoute, (0..ROUTES).map(route)).await;
    }
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_gets_what_the_policy_gives_it_and_loses_what_it_takes() {
    let Some(mut fleet) = Fleet::start(Against::Embedded).await else { return };
    let file = furnish(&fleet, &policy("sho*")).await;
    let flag = file.to_str().unwrap().to_owned();
    fleet.add_replicas_with(2, &["--gateway-policy", &flag]).await;
    fleet.add_gateways("public", 1).await;
    fleet.add_gateways("back", 1).await;
    holds(&fleet, 0, &["shop"], SOON).await;
    holds(&fleet, 1, &NAMESPACES, SOON).await;

    // A version that cannot be used changes nothing.
    std::fs::write(&file, "rules: [").unwrap();
    stale(&fleet, 1.0).await;
    for replica in &fleet.replicas {
        let ended = replica.metric("flotilla_streams_ended_total", "reason=\"policy\"").await.unwrap();
        assert!(ended < 0.1, "{}: {ended} streams", replica.name);
    }

    std::fs::write(&file, policy("inner")).unwrap();
    stale(&fleet, 0.0).await;
    holds(&fleet, 0, &["inner"], GUARD + SOON).await;
    holds(&fleet, 1, &NAMESPACES, SOON).await;

    // Nothing at all is a configuration, too, and not everything.
    std::fs::write(&file, policy("")).unwrap();
    holds(&fleet, 0, &[], GUARD + SOON).await;
    fleet.tenants.change(Kind::ApiRoute, "inner", "route-0", answering("inner", "route-0", "ho")).await;
    holds(&fleet, 1, &NAMESPACES, SOON).await;
    holds(&fleet, 0, &[], SOON).await;
    let removed = fleet.gateways[1].events.removed();
    assert!(removed.is_empty(), "the other gateway lost something: {removed:?}");
    fleet.nothing_went_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_go_by_labels_and_kinds_also_for_who_is_dialled() {
    let Some(mut fleet) = Fleet::start(Against::Embedded).await else { return };
    let rules = |public: &str| {
        format!(
            "rules:\n- gateways: {{names: [edge-*], labels: {{tier: public}}}}\n  {public}\n\
             - gateways: {{names: [edge-*]}}\n  namespaces: [inner]\n  kinds: [Backend]\n"
        )
    };
    let file = furnish(&fleet, &rules("namespaces: [shop]\n  kinds: [APIRoute]")).await;
    for namespace in NAMESPACES {
        fleet.tenants.create(Kind::Backend, namespace, "behind", backend(8080)).await;
    }
    let addresses = free_addresses(1);
    let policy = format!("--gateway-policy={}", file.display());
    fleet.add_replicas_with(2, &[&policy, &push_flag("edge-dialled", &addresses)]).await;
    let dials = format!("--operator-address={}", fleet.operators().join(","));
    let labels = "--labels=tier=public,zone=a".to_owned();
    fleet.add_gateway_with("edge-public", &[dials.clone(), labels.clone()]).await;
    fleet.add_gateway_with("edge-plain", &[dials, "--labels=zone=a".to_owned()]).await;
    let listens = format!("--push-listen={}", addresses[0]);
    fleet.add_gateway_with("edge-dialled", &[listens, labels, "--push-batches=false".to_owned()]).await;
    let of = |kind: Kind, namespace: &'static str| {
        move |object: &RawObject| object.kind == kind && &*object.key.namespace == namespace
    };
    for group in [0, 2] {
        holds_those(&fleet, group, SOON, "routes of shop", of(Kind::ApiRoute, "shop")).await;
    }
    holds_those(&fleet, 1, SOON, "backends of inner", of(Kind::Backend, "inner")).await;

    // Another version reaches those that are connected, whoever dialled whom.
    std::fs::write(&file, rules("namespaces: [inner, shop]\n  kinds: [Backend]")).unwrap();
    for group in [0, 2] {
        let theirs = |object: &RawObject| object.kind == Kind::Backend;
        holds_those(&fleet, group, GUARD + SOON, "all backends", theirs).await;
    }
    holds_those(&fleet, 1, SOON, "backends of inner", of(Kind::Backend, "inner")).await;
    let removed = fleet.gateways[1].events.removed();
    assert!(removed.is_empty(), "the gateway that nothing changed for lost something: {removed:?}");
}

/// Waits until a replica serves so many gateways that showed no certificate.
async fn unconfirmed(fleet: &Fleet, replica: usize, wanted: f64) {
    within(SOON, &format!("{wanted} gateways without a certificate"), async || {
        let there = fleet.replicas[replica].metric("flotilla_unconfirmed_gateways", "").await?;
        ((there - wanted).abs() < 0.1).then_some(()).ok_or_else(|| there.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_without_a_certificate_get_what_rules_give_them_where_they_are_let_in() {
    let Some(mut fleet) = Fleet::start(Against::Embedded).await else { return };
    let file = furnish(&fleet, &policy("sho*")).await;
    let flag = format!("--gateway-policy={}", file.display());
    fleet.add_replicas_with(1, &[&flag, "--require-client-certificate=false"]).await;
    fleet.add_replicas_with(1, &[&flag]).await;
    let operators = fleet.operators();
    let (open, strict) = operators.split_at(1);

    // By a rule, by none although all others get everything, and with a certificate.
    fleet.add_unconfirmed("public", open).await;
    fleet.add_unconfirmed("back", open).await;
    fleet.add_gateways_to("confirmed", 1, open).await;
    holds(&fleet, 0, &["shop"], SOON).await;
    holds(&fleet, 2, &NAMESPACES, SOON).await;
    unconfirmed(&fleet, 0, 2.0).await;
    within(SOON, "it has been told that it gets nothing", async || {
        let shown = fleet.gateways[1].first().await;
        (!shown.version.is_empty()).then_some(()).ok_or_else(|| format!("{shown:?}"))
    })
    .await;
    for namespace in NAMESPACES {
        fleet
            .tenants
            .change(Kind::ApiRoute, namespace, "route-0", answering(namespace, "route-0", "ho"))
            .await;
    }
    holds(&fleet, 0, &["shop"], SOON).await;
    holds(&fleet, 2, &NAMESPACES, SOON).await;
    assert_eq!(fleet.gateways[1].first().await.held, 0);

    // A rule that names it gives it what that says.
    let rules = "rules:\n- gateways: {names: [public, back]}\n  namespaces: [shop]\notherwise: everything\n";
    std::fs::write(&file, rules).unwrap();
    holds(&fleet, 1, &["shop"], SOON).await;
    holds(&fleet, 0, &["shop"], SOON).await;

    // Where a certificate is asked for, nobody comes in without one, whatever the rules say.
    fleet.add_unconfirmed("public-2", strict).await;
    within(SOON, "it is refused", async || {
        let refused = fleet.replicas[1].metric("flotilla_connections_refused_total", "reason=\"handshake\"");
        let (refused, shown) = (refused.await?, fleet.gateways[3].first().await);
        (refused > 1.5).then_some(()).ok_or_else(|| format!("{refused} refusals, {shown:?}"))
    })
    .await;
    let shown = fleet.gateways[3].first().await;
    assert_eq!((shown.stats.updates, shown.held, shown.version.as_str()), (0, 0, ""), "{shown:?}");
    unconfirmed(&fleet, 1, 0.0).await;

    let warned =
        |replica: usize| fleet.replicas[replica].log_lines(&["\"warn\"", "without a client certificate"]);
    assert_eq!((warned(0).len(), warned(1).len()), (1, 0), "{:?}", warned(0));
}
