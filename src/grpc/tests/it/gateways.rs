//! Gateways that behave: registration, streams, acknowledgements, snapshots.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use flotilla_certs::Authority;
use flotilla_core::digest::{HOLDS, Sums};
use flotilla_core::ids::{Kind, ObjectKey, Revision};
use flotilla_proto::operator::{
    GatewayInfo, GetConfigurationRequest, HeartbeatRequest, RegisterGatewayRequest, UpdateType,
};
use tonic::Code;

use crate::fleet::{Fleet, Gateway, Options, Replica, ack_request, dial, info, route, stream_request, until};

#[tokio::test]
async fn a_gateway_is_registered_synchronised_and_kept_up_to_date() {
    let fleet = Fleet::new();
    let replica = Replica::with_routes(
        &fleet,
        Options::named("f-0"),
        vec![route("a", 10, "{\"x\":1}"), route("b", 11, "{}")],
    )
    .await;
    let mut gateway = Gateway::connect(&fleet, &replica, "gw", "").await;
    assert!(gateway.session.starts_with("f-0/"));

    let first = gateway.synchronise().await;
    assert_eq!(first.r#type(), UpdateType::FullSync);
    let snapshot = first.snapshot.unwrap();
    assert_eq!(snapshot.total_resources, 2);
    assert_eq!(snapshot.checksum.len(), 64);
    assert_eq!(snapshot.api_routes[0].spec_json, &br#"{"name":"team/a","x":1}"#[..]);
    assert!(first.sequence > 0);

    let pending_since = replica.metrics.delivery_pending_since.clone();
    replica.delivery.changed(route("c", 101, "{\"x\":3}")).await.unwrap();
    until("it is told that a gateway lacks something", || pending_since.get() > 0.0).await;
    let mut seen = Vec::new();
    let mut sequence = first.sequence;
    while seen.is_empty() {
        let update = gateway.apply_next().await;
        assert!(update.sequence > sequence || update.r#type() == UpdateType::FullSync);
        sequence = update.sequence;
        if let Some(resource) = update.resource {
            seen.push((resource.name, resource.spec_json));
        }
    }
    assert_eq!(seen, [("c".to_owned(), (&br#"{"name":"team/c","x":3}"#[..]).into())]);

    replica.delivery.deleted(Kind::ApiRoute, ObjectKey::new("team", "c"), Revision(102)).await.unwrap();
    let deleted = loop {
        let update = gateway.apply_next().await;
        if update.r#type() == UpdateType::Deleted {
            break update.resource.unwrap();
        }
    };
    assert_eq!((deleted.namespace.as_str(), deleted.name.as_str()), ("team", "c"));

    let view = replica.outputs.view.clone();
    until("the table says that it is applied", || {
        let table = view.borrow().table.clone();
        matches!(&table.rows[..], [row] if row.gateways == 1 && row.low.get(Kind::ApiRoute) == Revision(102))
    })
    .await;
    until("it is told that no gateway lacks anything", || pending_since.get() == 0.0).await;
    assert_eq!(replica.metrics.gateways_connected.get(), 1);
    assert!(replica.metrics.pushes.get() >= 3);
    drop(gateway);
    until("the stream's end is noticed", || replica.metrics.gateways_connected.get() == 0).await;
    replica.stop().await;
}

#[tokio::test]
async fn batches_are_encoded_once_for_gateways_at_the_same_position() {
    let fleet = Fleet::new();
    let replica = Replica::with_routes(&fleet, Options::named("f-0"), vec![route("a", 10, "{}")]).await;
    let mut gateways = Vec::new();
    for name in ["g1", "g2", "g3", "g4"] {
        let mut gateway = Gateway::connect(&fleet, &replica, name, "").await;
        gateway.synchronise().await;
        gateways.push(gateway);
    }
    let before = replica.metrics.encoded.get();
    replica.delivery.changed(route("b", 101, "{}")).await.unwrap();
    for gateway in &mut gateways {
        while gateway.next().await.unwrap().resource.is_none() {}
    }
    assert!(replica.metrics.encoded.get() - before <= 1);
    replica.stop().await;
}

#[tokio::test]
async fn large_resources_arrive_whole_and_more_than_a_message_holds_is_split() {
    let fleet = Fleet::new();
    let sizes = [10, 5_000, 16_000, 16_384, 40_000, 900_000, 1_000_000, 1_500_000, 2_000_000];
    let spec = |size: usize| format!("{{\"pad\":\"{}\"}}", "x".repeat(size));
    let routes = sizes
        .iter()
        .enumerate()
        .map(|(at, size)| route(&format!("r{at}"), 10 + at as u64, &spec(*size)))
        .collect();
    let replica = Replica::with_routes(&fleet, Options::named("f-0"), routes).await;
    let mut gateway = Gateway::connect(&fleet, &replica, "gw", "").await;
    let mut lengths = BTreeMap::new();
    while lengths.len() < sizes.len() {
        // The client refuses messages over the gateways' limit.
        let update = gateway.apply_next().await;
        let snapshot = update.snapshot.map(|snapshot| snapshot.api_routes).unwrap_or_default();
        for resource in snapshot.into_iter().chain(update.resource) {
            lengths.insert(resource.name, resource.spec_json.len());
        }
    }
    for (at, size) in sizes.iter().enumerate() {
        let name = format!("r{at}");
        let expected = spec(*size).len() + format!("\"name\":\"team/{name}\",").len();
        assert_eq!(lengths[&name], expected, "{name}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_version_is_resumed_with_the_difference() {
    let fleet = Fleet::new();
    let routes: Vec<_> = (0..50).map(|number| route(&format!("r{number}"), 10 + number, "{}")).collect();
    let replica = Replica::with_routes(&fleet, Options::named("f-0"), routes).await;
    let mut gateway = Gateway::connect(&fleet, &replica, "gw", "").await;
    let version = gateway.synchronise().await.version;
    drop(gateway);
    replica.delivery.changed(route("new", 150, "{}")).await.unwrap();
    let mut gateway = Gateway::connect(&fleet, &replica, "gw", &version).await;
    let update = loop {
        let update = gateway.apply_next().await;
        assert!(update.snapshot.is_none(), "a full synchronisation is not needed");
        if update.resource.is_some() {
            break update;
        }
    };
    assert_eq!(update.resource.unwrap().name, "new");
    replica.stop().await;
}

#[tokio::test]
async fn an_unknown_session_and_an_unreadable_version_are_taken_from_the_right_gateway() {
    let fleet = Fleet::new();
    // Such a gateway holds who knows what, so its guard is waited for.
    let mut options = Options::named("f-0");
    options.delivery.shrink_guard = Duration::from_millis(100);
    let replica = Replica::with_routes(&fleet, options, vec![route("a", 10, "{}")]).await;
    for (session, version) in [("gone/123", "f1.nonsense"), ("", "\u{1F6A2} v-42 from the future")] {
        let mut client = dial(replica.address, &fleet.client(Some(&fleet.gateway("gw")))).await.unwrap();
        let updates = client.stream_configuration(stream_request("gw", session, version)).await.unwrap();
        let mut gateway = Gateway {
            name: "gw".to_owned(),
            client,
            session: session.to_owned(),
            updates: updates.into_inner(),
        };
        let first = gateway.next().await.unwrap();
        if !session.is_empty() {
            assert!(gateway.ack(&first.version).await.received);
        }
    }
    assert!(replica.metrics.unknown_versions.get() >= 2);
    replica.stop().await;
}

#[tokio::test]
async fn acknowledgements_of_things_never_sent_are_counted_and_change_nothing() {
    let fleet = Fleet::new();
    let replica = Replica::with_routes(&fleet, Options::named("f-0"), vec![route("a", 10, "{}")]).await;
    let mut gateway = Gateway::connect(&fleet, &replica, "gw", "").await;
    gateway.apply_next().await;
    gateway.ack("never-sent").await;
    gateway.client.acknowledge_configuration(ack_request("gw", "nobody/1", "v")).await.unwrap();
    until("it is counted", || replica.metrics.unexpected_acks.get() >= 1).await;
    // And the stream goes on.
    replica.delivery.changed(route("b", 101, "{}")).await.unwrap();
    while gateway.apply_next().await.resource.is_none() {}
    replica.stop().await;
}

#[tokio::test]
async fn heartbeats_are_acknowledged_and_never_ask_for_a_reconnect() {
    let fleet = Fleet::new();
    let replica = Replica::with_routes(&fleet, Options::named("f-0"), vec![route("a", 10, "{}")]).await;
    let mut gateway = Gateway::connect(&fleet, &replica, "gw", "").await;
    gateway.apply_next().await;
    for session in [gateway.session.clone(), "nobody/1".to_owned()] {
        let request =
            HeartbeatRequest { session_id: session, gateway: info("gw"), ..HeartbeatRequest::default() };
        let answer = gateway.client.heartbeat(request).await.unwrap().into_inner();
        assert!(answer.acknowledged && !answer.should_reconnect && answer.server_time.is_some());
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_gateway_that_offers_what_it_holds_is_compared_and_others_are_not() {
    let fleet = Fleet::new();
    let routes = ["a", "b", "c"].map(|name| route(name, 10, "{}")).to_vec();
    let replica = Replica::with_routes(&fleet, Options::named("f-0"), routes).await;
    let mut gateway = Gateway::connect(&fleet, &replica, "gw", "").await;
    let update = gateway.synchronise().await;
    let held: Vec<(ObjectKey, Vec<u8>)> = update
        .snapshot
        .unwrap()
        .api_routes
        .into_iter()
        .map(|one| (ObjectKey::new(one.namespace, one.name), one.spec_json.to_vec()))
        .collect();
    let sums = |held: &[(ObjectKey, Vec<u8>)]| {
        Sums::of(held.iter().map(|(key, spec)| (Kind::ApiRoute, key, spec.as_slice()))).to_string()
    };
    let compared = |result: &str| replica.metrics.gateway_digests.with_label_values(&[result]).get();
    let offers = [None, Some("of another form".to_owned()), Some(sums(&held)), Some(sums(&held[1..]))];
    for (offer, expected) in offers.into_iter().zip([(0, 0), (0, 0), (1, 0), (1, 1)]) {
        let annotations = offer.into_iter().map(|text| (HOLDS.to_owned(), text)).collect();
        let request = HeartbeatRequest {
            session_id: gateway.session.clone(),
            gateway: info("gw").map(|info| GatewayInfo { annotations, ..info }),
            last_applied_version: update.version.clone(),
            ..HeartbeatRequest::default()
        };
        assert!(gateway.client.heartbeat(request).await.unwrap().into_inner().acknowledged);
        // The delivery task has had its turn when it answers.
        replica.delivery.inspect(|_| ()).await.unwrap();
        assert_eq!((compared("equal"), compared("different")), expected);
    }
    replica.stop().await;
}

#[tokio::test]
async fn registration_without_info_is_refused_in_the_message() {
    let fleet = Fleet::new();
    let replica = Replica::start(&fleet, Options::named("f-0")).await;
    let mut client = dial(replica.address, &fleet.client(Some(&fleet.gateway("gw")))).await.unwrap();
    let answer = client.register_gateway(RegisterGatewayRequest::default()).await.unwrap().into_inner();
    assert!(!answer.success);
    assert_eq!(answer.error_message, "gateway info is required");
    replica.stop().await;
}

#[tokio::test]
async fn tools_get_a_snapshot_of_their_scope_once_everything_is_read() {
    let fleet = Fleet::new();
    let replica = Replica::start(&fleet, Options::named("f-0")).await;
    let mut client = dial(replica.address, &fleet.client(Some(&fleet.gateway("gw")))).await.unwrap();
    let ask = |namespaces: &[&str]| GetConfigurationRequest {
        gateway: info("gw"),
        namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        ..GetConfigurationRequest::default()
    };
    let early = client.get_configuration(ask(&[])).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    replica.list(vec![route("a", 10, "{}"), route("b", 11, "{}")], 100).await;
    let all = client.get_configuration(ask(&[])).await.unwrap().into_inner();
    assert_eq!(all.total_resources, 2);
    assert!(all.version.starts_with("f1.0a1b2c3d."), "{}", all.version);
    let none = client.get_configuration(ask(&["other"])).await.unwrap().into_inner();
    assert_eq!(none.total_resources, 0);
    replica.stop().await;
}

#[tokio::test]
async fn changing_certificates_drops_no_stream() {
    let fleet = Fleet::new();
    let replica = Replica::with_routes(&fleet, Options::named("f-0"), vec![route("a", 10, "{}")]).await;
    let mut gateway = Gateway::connect(&fleet, &replica, "gw", "").await;
    gateway.apply_next().await;

    let newer = Fleet { authority: Authority::generate("next authority", SystemTime::now()).unwrap() };
    let certificate = newer.controller(crate::fleet::TRUST_DOMAIN, "system", "f-0");
    replica.tls.swap(&certificate, newer.authority.roots()).unwrap();

    replica.delivery.changed(route("b", 101, "{}")).await.unwrap();
    while gateway.apply_next().await.resource.is_none() {}
    // New connections are made with the new authority, and only with it.
    let mut other = Gateway::connect(&newer, &replica, "other", "").await;
    other.apply_next().await;
    assert!(dial(replica.address, &fleet.client(Some(&fleet.gateway("gw")))).await.is_err());
    replica.stop().await;
}

#[tokio::test]
async fn shutdown_tells_gateways_to_come_again() {
    let fleet = Fleet::new();
    let replica = Replica::with_routes(&fleet, Options::named("f-0"), vec![route("a", 10, "{}")]).await;
    let mut gateway = Gateway::connect(&fleet, &replica, "gw", "").await;
    gateway.apply_next().await;
    replica.shutdown.cancel();
    let status = gateway.end().await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    tokio::time::timeout(Duration::from_secs(10), replica.stop()).await.unwrap();
}
