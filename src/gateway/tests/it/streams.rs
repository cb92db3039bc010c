//! How streams end, and what a gateway makes of it: wire §2 points 2 to 4.

use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_core::digest::{HOLDS, Sums};
use flotilla_core::ids::{GatewayId, Kind, ObjectKey};
use flotilla_gateway::{Fleet, FleetOptions, GatewayOptions, Phase};
use flotilla_proto::operator as proto;
use flotilla_proto::operator::UpdateType;
use prost::Message;
use tonic::{Code, Status};

use crate::operator::{Behaviour, Operator, eventually};
use crate::updates::{increment, route};

#[tokio::test]
async fn a_gateway_registers_again_after_a_clean_end_or_any_status_but_cancelled() {
    let operator = Operator::start(Behaviour::default()).await;
    let (fleet, gateway) = operator.with_gateway().await;
    let ends = [
        None,
        Some(Code::Unavailable),
        Some(Code::Unknown),
        Some(Code::Internal),
        Some(Code::DeadlineExceeded),
        Some(Code::PermissionDenied),
        Some(Code::Aborted),
    ];
    for (index, end) in ends.into_iter().enumerate() {
        operator.end_stream(end.map(|code| Status::new(code, "bye"))).await;
        let what = format!("a new stream after {end:?}");
        eventually(&what, || (operator.streams().len() == index + 2).then_some(())).await;
    }
    assert_eq!(operator.registers().len(), 8);
    assert_eq!(gateway.stats().reconnects, 7);
    fleet.stop().await;
}

#[tokio::test]
async fn after_cancelled_a_gateway_only_heartbeats() {
    let interval = Duration::from_millis(20);
    let operator = Operator::start(Behaviour { heartbeat_interval: interval, ..Behaviour::default() }).await;
    let (fleet, gateway) = operator.with_gateway().await;
    operator.end_stream(Some(Status::cancelled("drained"))).await;
    eventually("the zombie", || (gateway.link().phase == Phase::Zombie).then_some(())).await;
    let before = operator.heartbeats().len();
    // Its back-off would have been 20 ms: ten times that passes.
    eventually("heartbeats", || (operator.heartbeats().len() >= before + 10).then_some(())).await;
    assert_eq!((operator.registers().len(), operator.streams().len()), (1, 1));
    assert!(gateway.link().last_error.contains("drained"), "{}", gateway.link().last_error);
    fleet.stop().await;
}

#[tokio::test]
async fn a_heartbeat_says_what_is_held_at_its_version() {
    let interval = Duration::from_millis(20);
    let operator = Operator::start(Behaviour { heartbeat_interval: interval, ..Behaviour::default() }).await;
    let (fleet, gateway) = operator.with_gateway().await;
    let routes = [route("team/a", 1), route("team/b", 1)];
    let keys = ["a", "b"].map(|name| ObjectKey::new("team", name));
    for (number, one) in (1..).zip(&routes) {
        operator.send(increment(UpdateType::Added, number, &format!("v{number}"), one)).await;
    }
    let said = eventually("a heartbeat at v2", || {
        let last = operator.heartbeats().pop()?.message;
        (last.last_applied_version == "v2").then_some(last)
    })
    .await;
    let held = keys.iter().zip(&routes).map(|(key, one)| (Kind::ApiRoute, key, one.spec_json.as_ref()));
    assert_eq!(said.gateway.unwrap().annotations[HOLDS], Sums::of(held).to_string());
    assert_eq!(gateway.holds().0.as_ref(), "v2");
    fleet.stop().await;
}

/// A controller made of frames: registers whoever comes, and resets every
/// stream with CANCEL after its head.
async fn resetting_operator(listener: tokio::net::TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let head =
                    http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut body = respond.send_response(head, false).unwrap();
                if request.uri().path().ends_with("/StreamConfiguration") {
                    body.send_reset(h2::Reason::CANCEL);
                    continue;
                }
                let message = match request.uri().path().rsplit('/').next() {
                    Some("RegisterGateway") => proto::RegisterGatewayResponse {
                        success: true,
                        session_id: "s".to_owned(),
                        heartbeat_interval: Duration::from_millis(20).try_into().ok(),
                        ..proto::RegisterGatewayResponse::default()
                    }
                    .encode_to_vec(),
                    _ => {
                        proto::HeartbeatResponse { acknowledged: true, ..Default::default() }.encode_to_vec()
                    }
                };
                let mut frame = vec![0];
                frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
                frame.extend_from_slice(&message);
                body.send_data(Bytes::from(frame), false).unwrap();
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                body.send_trailers(trailers).unwrap();
            }
        });
    }
}

#[tokio::test]
async fn a_reset_with_the_code_cancel_makes_the_same_zombie() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(resetting_operator(listener));
    let id = GatewayId { namespace: "edge".into(), name: "gw".into() };
    let options =
        GatewayOptions { backoff_scale: 0.02, ..GatewayOptions::new(id, vec![address.into()], None) };
    let fleet = Fleet::start(vec![options], FleetOptions::default()).await.unwrap();
    let gateway = fleet.gateways()[0].clone();
    eventually("the zombie", || (gateway.link().phase == Phase::Zombie).then_some(())).await;
    eventually("heartbeats", || (gateway.stats().heartbeats >= 10).then_some(())).await;
    assert_eq!((gateway.stats().registrations, gateway.link().phase), (1, Phase::Zombie));
    fleet.stop().await;
    server.abort();
}

#[tokio::test]
async fn a_connection_that_goes_away_is_no_cancellation() {
    // The listener stays, connections are cut by ending their task.
    let operator = Operator::start(Behaviour::default()).await;
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let upstream = operator.address;
    let (cut, _) = tokio::sync::broadcast::channel::<()>(1);
    let cutter = cut.clone();
    let forwarding = tokio::spawn(async move {
        while let Ok((mut near, _)) = proxy.accept().await {
            let mut cut = cutter.subscribe();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(upstream).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = cut.recv() => {}
                }
            });
        }
    });
    let options = GatewayOptions { operators: vec![address.into()], ..operator.gateway("gw") };
    let fleet = Fleet::start(vec![options], FleetOptions::default()).await.unwrap();
    let gateway = fleet.gateways()[0].clone();
    for round in 1..=5 {
        eventually("a stream", || (operator.streams().len() == round).then_some(())).await;
        eventually("streaming", || (gateway.link().phase == Phase::Streaming).then_some(())).await;
        cut.send(()).unwrap();
    }
    eventually("a sixth stream", || (operator.streams().len() == 6).then_some(())).await;
    assert_ne!(gateway.link().phase, Phase::Zombie);
    fleet.stop().await;
    forwarding.abort();
}

#[tokio::test]
async fn waits_double_until_a_registration_succeeds_and_then_start_over() {
    let operator = Operator::start(Behaviour { failing_registers: 5, ..Behaviour::default() }).await;
    let options = GatewayOptions { backoff_scale: 0.1, ..operator.gateway("gw") };
    let fleet = Fleet::start(vec![options], FleetOptions::default()).await.unwrap();
    eventually("a stream", || operator.streams().first().cloned()).await;
    let registers = operator.registers();
    let gaps: Vec<Duration> = registers.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    let least = [100, 200, 400, 800, 1600].map(Duration::from_millis);
    assert_eq!(gaps.len(), 5);
    // The clock of the test and of timers may differ by a millisecond.
    let slack = Duration::from_millis(2);
    assert!(gaps.iter().zip(least).all(|(gap, least)| *gap + slack >= least), "{gaps:?}");

    let lost = Instant::now();
    operator.end_stream(None).await;
    eventually("a second stream", || operator.streams().get(1).cloned()).await;
    let again = operator.registers().last().unwrap().at - lost;
    // 3 s if it had not started over.
    assert!(again + slack >= least[0] && again < Duration::from_millis(2900), "{again:?}");
    fleet.stop().await;
}

#[tokio::test]
async fn heartbeats_tell_session_and_version() {
    let interval = Duration::from_millis(20);
    let operator = Operator::start(Behaviour { heartbeat_interval: interval, ..Behaviour::default() }).await;
    let (fleet, _) = operator.with_gateway().await;
    operator.send_acked(increment(UpdateType::Added, 1, "v1", &route("a/r", 1))).await;
    let heartbeat = eventually("a heartbeat with the version", || {
        operator.heartbeats().into_iter().find(|call| call.message.last_applied_version == "v1")
    })
    .await
    .message;
    assert_eq!(heartbeat.session_id, "session-1");
    let status = heartbeat.status.unwrap();
    assert_eq!(status.health(), proto::HealthState::Healthy);
    assert!(status.last_config_applied.is_some() && status.uptime.is_some());
    fleet.stop().await;
}

#[tokio::test]
async fn should_reconnect_only_stops_the_heartbeats() {
    let behaviour = Behaviour {
        heartbeat_interval: Duration::from_millis(20),
        should_reconnect: true,
        ..Behaviour::default()
    };
    let operator = Operator::start(behaviour).await;
    let (fleet, gateway) = operator.with_gateway().await;
    eventually("a heartbeat", || (operator.heartbeats().len() == 1).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((operator.heartbeats().len(), operator.streams().len()), (1, 1));
    let ack = operator.send_acked(increment(UpdateType::Added, 1, "v1", &route("a/r", 1))).await;
    assert!(ack.success);
    assert_eq!(gateway.link().phase, Phase::Streaming);
    fleet.stop().await;
}

#[tokio::test]
async fn after_goaway_the_stream_goes_on_and_calls_use_a_new_connection() {
    let behaviour = Behaviour {
        connection_age: Some(Duration::from_millis(300)),
        heartbeat_interval: Duration::from_millis(50),
        ..Behaviour::default()
    };
    let operator = Operator::start(behaviour).await;
    let (fleet, gateway) = operator.with_gateway().await;
    let stream = operator.streams()[0].peer;
    eventually("a heartbeat over another connection", || {
        operator.heartbeats().into_iter().find(|call| call.peer != stream)
    })
    .await;
    operator.send_acked(increment(UpdateType::Added, 1, "v1", &route("a/r", 1))).await;
    let ack = operator.acks().remove(0);
    assert_ne!(ack.peer, stream);
    assert_eq!((operator.streams().len(), gateway.held_count()), (1, 1));
    fleet.stop().await;
}

#[tokio::test]
async fn connections_go_round_the_addresses_and_skip_those_that_are_gone() {
    let (one, two) =
        (Operator::start(Behaviour::default()).await, Operator::start(Behaviour::default()).await);
    // Bound and dropped again: nothing listens there.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let operators = vec![one.address.into(), gone.into(), two.address.into()];
    let options = GatewayOptions { operators, backoff_scale: 0.01, ..one.gateway("gw") };
    let fleet = Fleet::start(vec![options], FleetOptions::default()).await.unwrap();
    for round in 1..=4 {
        let streams = || one.streams().len() + two.streams().len();
        eventually("the next stream", || (streams() == round).then_some(())).await;
        let current = if round == 1 {
            if one.streams().is_empty() { &two } else { &one }
        } else if one.streams().last().map(|call| call.at) > two.streams().last().map(|call| call.at) {
            &one
        } else {
            &two
        };
        current.end_stream(None).await;
    }
    assert!(one.streams().len() >= 2 && two.streams().len() >= 2);
    fleet.stop().await;
}
