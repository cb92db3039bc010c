//! Updates over the wire: wire §2 points 1, 5, 7, 8, 9, 13.

use std::time::Duration;

use flotilla_gateway::{ApplyCost, Fleet, FleetOptions, GatewayError, GatewayOptions, HttpListeners, Phase};
use flotilla_proto::operator::UpdateType;
use prost::Message;
use tonic::Status;

use crate::operator::{Behaviour, Operator, eventually};
use crate::updates::{increment, resource, route, snapshot};

#[tokio::test]
async fn a_gateway_registers_with_its_identity_and_streams_with_its_namespaces() {
    let operator = Operator::start(Behaviour::default()).await;
    let options = GatewayOptions {
        namespaces: vec!["a".to_owned(), "b".to_owned()],
        version: "9.9".to_owned(),
        pod_name: "pod".to_owned(),
        ..operator.gateway("gw")
    };
    let fleet = Fleet::start(vec![options], FleetOptions::default()).await.unwrap();
    let stream = eventually("a stream", || operator.streams().first().cloned()).await.message;
    let register = operator.registers().remove(0).message;
    let info = register.gateway.unwrap();
    assert_eq!((info.namespace.as_str(), info.name.as_str()), ("edge", "gw"));
    assert_eq!((info.version.as_str(), info.pod_name.as_str()), ("9.9", "pod"));
    assert!(register.capabilities.unwrap().http_routes);
    assert_eq!(stream.session_id, "session-1");
    assert_eq!(stream.last_config_version, "");
    assert_eq!(stream.namespaces, ["a", "b"]);
    fleet.stop().await;
}

#[tokio::test]
async fn every_update_is_acknowledged_in_order_with_its_version() {
    let operator = Operator::start(Behaviour::default()).await;
    let (fleet, gateway) = operator.with_gateway().await;
    operator.send(snapshot(1, "v1", &[route("a/r", 1), route("a/s", 1)])).await;
    for sequence in 2..=20 {
        let update =
            increment(UpdateType::Modified, sequence, &format!("v{sequence}"), &route("a/r", sequence));
        operator.send(update).await;
    }
    eventually("20 acknowledgements", || (operator.acks().len() == 20).then_some(())).await;
    for (index, call) in operator.acks().into_iter().enumerate() {
        assert_eq!(call.message.config_version, format!("v{}", index + 1));
        assert_eq!(call.message.session_id, "session-1");
        assert!(call.message.success, "{}", call.message.error_message);
        assert!(call.message.apply_duration.is_some());
    }
    assert_eq!((&*gateway.version(), gateway.held_count()), ("v20", 2));
    assert!(gateway.stats().bytes_received > 1000);
    fleet.stop().await;
}

#[tokio::test]
async fn a_slow_answer_to_an_acknowledgement_holds_up_the_next_update() {
    let operator = Operator::start(Behaviour::default()).await;
    let (fleet, gateway) = operator.with_gateway().await;
    operator.hold_acks(true);
    operator.send(increment(UpdateType::Added, 1, "v1", &route("a/r", 1))).await;
    operator.send(increment(UpdateType::Added, 2, "v2", &route("a/s", 1))).await;
    eventually("the first acknowledgement", || (operator.acks().len() == 1).then_some(())).await;
    // It takes effect before the acknowledgement is answered; the second one
    // has every chance to arrive, and must not be looked at.
    assert_eq!(gateway.held_count(), 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((gateway.held_count(), operator.acks().len()), (1, 1));
    operator.hold_acks(false);
    eventually("the second acknowledgement", || (operator.acks().len() == 2).then_some(())).await;
    assert_eq!(gateway.held_count(), 2);
    fleet.stop().await;
}

#[tokio::test]
async fn a_bad_update_is_rejected_with_words_and_the_version_stays() {
    let operator = Operator::start(Behaviour::default()).await;
    let (fleet, gateway) = operator.with_gateway().await;
    operator.send_acked(increment(UpdateType::Added, 1, "v1", &route("a/r", 1))).await;
    let bad = resource(flotilla_core::ids::Kind::ApiRoute, "a/bad", 1, "{");
    let ack = operator.send_acked(increment(UpdateType::Added, 2, "v2", &bad)).await;
    assert!(!ack.success);
    assert_eq!(ack.config_version, "v2");
    assert!(ack.error_message.contains("a/bad"), "{}", ack.error_message);
    assert_eq!(&*gateway.version(), "v1");
    assert_eq!(gateway.stats().nacks, 1);
    fleet.stop().await;
}

#[tokio::test]
async fn a_skipped_update_gets_no_acknowledgement() {
    let operator = Operator::start(Behaviour::default()).await;
    let (fleet, gateway) = operator.with_gateway().await;
    operator.send_acked(increment(UpdateType::Added, 5, "v5", &route("a/r", 1))).await;
    operator.send(increment(UpdateType::Added, 5, "again", &route("a/s", 1))).await;
    let ack = operator.send_acked(increment(UpdateType::Added, 6, "v6", &route("a/t", 1))).await;
    assert_eq!(ack.config_version, "v6");
    assert_eq!(operator.acks().len(), 2);
    assert_eq!(gateway.stats().skipped, 1);
    fleet.stop().await;
}

#[tokio::test]
async fn the_guards_answer_with_success_and_keep_what_is_held() {
    let operator = Operator::start(Behaviour::default()).await;
    let (fleet, gateway) = operator.with_gateway().await;
    operator.send_acked(snapshot(1, "v1", &[route("a/r", 1), route("a/s", 1)])).await;
    let shrinking = operator.send_acked(snapshot(2, "v2", &[route("a/r", 1)])).await;
    let empty = operator.send_acked(snapshot(3, "v3", &[])).await;
    assert!(shrinking.success && empty.success);
    assert_eq!((gateway.held_count(), &*gateway.version()), (2, "v3"));
    assert_eq!(gateway.stats().guard_ignored, 2);
    fleet.stop().await;
}

#[tokio::test]
async fn version_and_sequence_survive_a_reconnect() {
    let operator = Operator::start(Behaviour::default()).await;
    let (fleet, gateway) = operator.with_gateway().await;
    operator.send_acked(increment(UpdateType::Added, 7, "v7", &route("a/r", 1))).await;
    operator.end_stream(Some(Status::unavailable("draining"))).await;
    let stream = eventually("a second stream", || operator.streams().get(1).cloned()).await;
    assert_eq!(stream.message.last_config_version, "v7");
    assert_eq!(stream.message.session_id, "session-2");
    operator.send(increment(UpdateType::Added, 7, "old", &route("a/s", 1))).await;
    let ack = operator.send_acked(increment(UpdateType::Added, 8, "v8", &route("a/t", 1))).await;
    assert_eq!((ack.config_version.as_str(), ack.session_id.as_str()), ("v8", "session-2"));
    assert_eq!(gateway.held_count(), 2);
    fleet.stop().await;
}

#[tokio::test]
async fn an_initial_configuration_is_held_without_acknowledgement_or_version() {
    let initial = snapshot(0, "vi", &[route("a/r", 1)]).snapshot;
    let operator = Operator::start(Behaviour { initial, ..Behaviour::default() }).await;
    let (fleet, gateway) = operator.with_gateway().await;
    assert_eq!((gateway.held_count(), &*gateway.version()), (1, ""));
    assert_eq!(operator.streams()[0].message.last_config_version, "");
    assert!(operator.acks().is_empty());
    fleet.stop().await;
}

/// An update whose encoded form has exactly so many bytes.
fn update_of_size(
    bytes: usize,
    sequence: i64,
    version: &str,
) -> flotilla_proto::operator::ConfigurationUpdate {
    let of = |padding: usize| {
        let spec = format!(r#"{{"name":"a/big","x":"{}"}}"#, "x".repeat(padding));
        let resource = resource(flotilla_core::ids::Kind::ApiRoute, "a/big", 1, &spec);
        increment(UpdateType::Added, sequence, version, &resource)
    };
    let mut padding = bytes - 1000;
    for _ in 0..3 {
        padding = padding + bytes - of(padding).encoded_len();
    }
    let update = of(padding);
    assert_eq!(update.encoded_len(), bytes);
    update
}

const LIMIT: usize = 4_194_304;

#[tokio::test]
async fn a_message_of_4_mib_is_taken_and_one_byte_more_ends_the_stream_again_and_again() {
    let operator = Operator::start(Behaviour::default()).await;
    let (fleet, gateway) = operator.with_gateway().await;
    let ack = operator.send_acked(update_of_size(LIMIT, 1, "v1")).await;
    assert!(ack.success);
    for round in 1..=2 {
        operator.send(update_of_size(LIMIT + 1, 2, "v2")).await;
        eventually("another stream", || (operator.streams().len() == 1 + round).then_some(())).await;
    }
    assert_eq!(operator.acks().len(), 1);
    assert_eq!((&*gateway.version(), gateway.stats().nacks), ("v1", 0));
    fleet.stop().await;
}

#[tokio::test]
async fn the_real_cost_is_waited_for_and_reported() {
    let operator = Operator::start(Behaviour::default()).await;
    let options = GatewayOptions { apply_cost: ApplyCost::Real, ..operator.gateway("gw") };
    let fleet = Fleet::start(vec![options], FleetOptions::default()).await.unwrap();
    eventually("a stream", || operator.streams().first().cloned()).await;
    let routes: Vec<_> = (0..2000).map(|number| route(&format!("a/r{number}"), 1)).collect();
    let ack = operator.send_acked(snapshot(1, "v1", &routes)).await;
    // 17 ms at 1,000 routes and 212 ms at 5,000: 65 ms at 2,000.
    let reported = Duration::try_from(ack.apply_duration.unwrap()).unwrap();
    assert!(reported >= Duration::from_millis(65), "{reported:?}");
    fleet.stop().await;
}

#[tokio::test]
async fn many_gateways_share_what_they_hold() {
    let operator = Operator::start(Behaviour::default()).await;
    let options = (0..20).map(|number| operator.gateway(&format!("gw-{number}"))).collect();
    let fleet = Fleet::start(options, FleetOptions::default()).await.unwrap();
    eventually("all streams", || (operator.streams().len() == 20).then_some(())).await;
    let gateways = fleet.gateways().to_vec();
    assert!(gateways.iter().all(|gateway| gateway.link().phase != Phase::Zombie));
    let names: std::collections::BTreeSet<_> =
        operator.registers().iter().map(|call| call.message.gateway.clone().unwrap().name).collect();
    assert_eq!(names.len(), 20);
    // Every stream gets the same configuration in its own messages.
    operator.send_to_all(snapshot(1, "v1", &[route("a/r", 1), route("a/s", 1)])).await;
    eventually("all acknowledgements", || (operator.acks().len() == 20).then_some(())).await;
    let first = gateways[0].view().held;
    for gateway in &gateways {
        assert_eq!(gateway.digest(), gateways[0].digest());
        let held = gateway.view().held;
        assert!(held.iter().zip(&first).all(|(a, b)| std::sync::Arc::ptr_eq(a, b)));
    }
    fleet.stop().await;
}

#[tokio::test]
async fn impossible_fleets_are_refused() {
    let operator = Operator::start(Behaviour::default()).await;
    let start = |gateways, options| Fleet::start(gateways, options);
    let none = start(vec![], FleetOptions::default()).await;
    assert!(matches!(none, Err(GatewayError::NoGateway)));
    let twins = vec![operator.gateway("gw"), operator.gateway("gw")];
    assert!(matches!(start(twins, FleetOptions::default()).await, Err(GatewayError::Duplicate { .. })));
    let busy = FleetOptions { admin: Some(operator.address), ..FleetOptions::default() };
    let error = start(vec![operator.gateway("gw")], busy).await.unwrap_err();
    assert!(error.to_string().contains(&operator.address.to_string()), "{error}");
    let http = HttpListeners::All("127.0.0.1:65535".parse().unwrap());
    let two = vec![operator.gateway("a"), operator.gateway("b")];
    let ports = start(two, FleetOptions { http, ..FleetOptions::default() }).await;
    assert!(matches!(ports, Err(GatewayError::Ports { first: 65535, count: 2 })));
}
