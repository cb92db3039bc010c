//! A gateway whose network fails for a while gets what it missed, and nothing
//! else, from another replica than before.

use std::collections::BTreeSet;
use std::time::Duration;

use flotilla_core::ids::Kind;
use serde_json::json;
use tokio::time::sleep;

use crate::fleet::objects::answering;
use crate::fleet::proxy::Proxy;
use crate::fleet::waiting::{SOON, figure, full_length, within};
use crate::fleet::{Against, Fleet};

/// Resources that nobody touches, and their size: so much that sending all of
/// them again would cost more than the changes, by the project's own rule.
const UNTOUCHED: usize = 60;
const LARGE: usize = 250_000;
const CHANGED: usize = 70;
const CREATED: usize = 30;
const DELETED: usize = 10;

fn namespace(number: usize) -> String {
    format!("team-{}", number % 10)
}

async fn a_gateway_is_away(against: Against) {
    let Some(mut fleet) = Fleet::start(against).await else { return };
    fleet.tenants.namespaces((0..10).map(namespace)).await;
    let body = "x".repeat(LARGE);
    let routes = |prefix: &'static str, count: usize, body: &str| {
        let body = body.to_owned();
        (0..count).map(move |number| {
            let (namespace, name) = (namespace(number), format!("{prefix}-{number:03}"));
            let spec = answering(&namespace, &name, &body);
            (namespace, name, spec)
        })
    };
    fleet.tenants.create_all(Kind::ApiRoute, routes("untouched", UNTOUCHED, &body)).await;
    fleet.tenants.create_all(Kind::ApiRoute, routes("small", CHANGED + DELETED, "before")).await;
    fleet.add_replicas(2).await;
    let mut proxy = Proxy::start(fleet.replicas[0].grpc).await;
    fleet.add_gateways_to("away", 1, &[proxy.address()]).await;
    fleet.add_gateways("there", 1).await;
    fleet.settled_within(2 * SOON).await;
    let before = fleet.gateways[0].first().await;

    let away = full_length(Duration::from_secs(15));
    proxy.close();
    proxy.lead_to(fleet.replicas[1].grpc);
    let mut bytes = 0;
    for number in 0..CHANGED {
        let (namespace, name) = (namespace(number), format!("small-{number:03}"));
        let spec = answering(&namespace, &name, "after");
        bytes += spec.to_string().len();
        fleet.tenants.change(Kind::ApiRoute, &namespace, &name, spec).await;
    }
    bytes += routes("new", CREATED, "new").map(|(_, _, spec)| spec.to_string().len()).sum::<usize>();
    fleet.tenants.create_all(Kind::ApiRoute, routes("new", CREATED, "new")).await;
    let mut deleted = BTreeSet::new();
    for number in CHANGED..CHANGED + DELETED {
        fleet.tenants.delete(Kind::ApiRoute, &namespace(number), &format!("small-{number:03}")).await;
        deleted.insert(format!("APIRoute {}/small-{number:03} from gateways/away", namespace(number)));
    }
    let objects = fleet.tenants.all().await.unwrap();
    within(SOON, "the gateway that stayed has everything", async || {
        let expected = crate::fleet::expected_digest(&objects);
        let there = fleet.gateways[1].first().await;
        (there.digest == expected).then_some(()).ok_or_else(|| format!("{there:?}"))
    })
    .await;
    sleep(away).await;
    let meanwhile = fleet.gateways[0].first().await;
    assert_eq!(meanwhile.version, before.version, "something reached a gateway that is away");
    assert_eq!(fleet.gateways[0].events.removed(), Vec::<String>::new());

    proxy.open().await;
    within(SOON, "the gateway that was away has everything", async || {
        let expected = crate::fleet::expected_digest(&objects);
        let back = fleet.gateways[0].first().await;
        (back.digest == expected).then_some(()).ok_or_else(|| format!("{back:?}"))
    })
    .await;
    let after = fleet.gateways[0].first().await;
    let count = |of: fn(&crate::fleet::gateways::Stats) -> u64| of(&after.stats) - of(&before.stats);
    let (messages, received) = (count(|stats| stats.updates), count(|stats| stats.bytes_received));
    let missed = (CHANGED + CREATED + DELETED) as u64;
    figure(&format!(
        "resume, {against:?} API server: away for {} s, {missed} of {} resources changed: \
         {messages} messages with {received} bytes (specs of the changes: {bytes} bytes)",
        away.as_secs(),
        objects.len()
    ));
    assert_eq!(count(|stats| stats.full_syncs), 0, "{after:?}");
    assert_eq!(count(|stats| stats.skipped + stats.nacks + stats.guard_ignored), 0, "{after:?}");
    // One or two more only move the version and carry nothing.
    assert!((missed..=missed + 2).contains(&messages), "{messages} messages for {missed} changes");
    let most = bytes as u64 + 600 * messages;
    assert!(received <= most, "{received} bytes for changes of {bytes}");
    assert_eq!(count(|stats| stats.deletions), DELETED as u64);
    assert_eq!(fleet.gateways[0].events.removed().into_iter().collect::<BTreeSet<_>>(), deleted);
    assert_eq!(count(|stats| stats.removed_by_full_sync), 0);
    fleet.nothing_went_back().await;
    // And it is really served by the other replica now.
    let connected = fleet.replicas[1].log_lines(&["a gateway opens its stream", "gateways/away"]);
    assert!(!connected.is_empty(), "the other replica never served it");
    let route = json!({"directResponse": {"status": 200, "body": "once more"}});
    fleet.tenants.change(Kind::ApiRoute, "team-0", "small-000", route).await;
    fleet.settled().await;
}

/// What a replica has found when it has started, and looks for when a gateway has come that
/// needs it.
const AHEAD: &[&str] =
    &["looked for deletions that gateways of others may not have heard of", "GRPCRoute", "\"deletions\":0"];
const THEN: &[&str] = &["looked for deletions before the start", "GRPCRoute"];

/// Nothing happens to gRPC routes: the replica that goes on knows them as of its own start
/// until a bookmark comes, which takes a real API server a minute, and the one that starts
/// anew as of a later one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_starts_looks_for_what_gateways_of_others_may_lack_on_a_real_api_server() {
    let Some(mut fleet) = Fleet::start(Against::Real).await else { return };
    fleet.tenants.namespaces(["team-0".to_owned()]).await;
    let routes = (0..20).map(|number| {
        let name = format!("route-{number:02}");
        let spec = answering("team-0", &name, "before");
        ("team-0".to_owned(), name, spec)
    });
    fleet.tenants.create_all(Kind::ApiRoute, routes).await;
    fleet.add_replicas(2).await;
    let mut proxy = Proxy::start(fleet.replicas[0].grpc).await;
    fleet.add_gateways_to("moving", 1, &[proxy.address()]).await;
    fleet.settled().await;
    fleet.tenants.delete(Kind::ApiRoute, "team-0", "route-00").await;
    fleet.settled().await;

    let other = &mut fleet.replicas[1];
    other.terminate();
    other.ended(SOON).await;
    let before = other.log_lines(AHEAD).len();
    other.start();
    other.ready().await;
    within(SOON, "it has found out about deletions", async || {
        let found = fleet.replicas[1].log_lines(AHEAD).len();
        (found > before).then_some(()).ok_or_else(|| format!("{found} times, as before"))
    })
    .await;

    proxy.close();
    proxy.lead_to(fleet.replicas[1].grpc);
    proxy.open().await;
    within(2 * SOON, "the gateway comes", async || {
        let opened = fleet.replicas[1].log_lines(&["a gateway opens its stream", "gateways/moving"]);
        (!opened.is_empty()).then_some(()).ok_or_else(|| "it has not come".to_owned())
    })
    .await;
    // It gets something from there.
    let route = answering("team-0", "route-01", "after");
    fleet.tenants.change(Kind::ApiRoute, "team-0", "route-01", route).await;
    fleet.settled().await;
    assert_eq!(fleet.replicas[1].log_lines(THEN), Vec::<String>::new(), "it had to wait");
    assert_eq!(fleet.gateways[0].first().await.stats.full_syncs, 1, "that of its start");
    fleet.nothing_went_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_away_gets_only_what_it_missed() {
    a_gateway_is_away(Against::Inside).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_away_gets_only_what_it_missed_on_a_real_api_server() {
    a_gateway_is_away(Against::Real).await;
}
