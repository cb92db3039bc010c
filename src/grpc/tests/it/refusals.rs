//! Clients that are not to be served: each is told why.

use std::time::{Duration, SystemTime};

use flotilla_certs::{Authority, ClientAuth, Identity, LeafRequest};
use flotilla_proto::operator::{
    AcknowledgeConfigurationRequest, GatewayInfo, HeartbeatRequest, RegisterGatewayRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::fleet::{
    Fleet, Gateway, Options, Replica, TRUST_DOMAIN, ack_request, dial, info, route, stream_request, until,
    within,
};

fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Tries a call, as TLS 1.3 clients learn only with it that they are refused.
async fn refusal(
    fleet: &Fleet,
    replica: &Replica,
    certificate: Option<&flotilla_certs::CertificatePem>,
) -> String {
    let mut client = match dial(replica.address, &fleet.client(certificate)).await {
        Ok(client) => client,
        Err(error) => return deepest(&error),
    };
    let request = RegisterGatewayRequest { gateway: info("gw"), capabilities: None };
    deepest(&client.register_gateway(request).await.unwrap_err())
}

#[tokio::test]
async fn strangers_do_not_get_past_the_handshake() {
    let fleet = Fleet::new();
    let replica = Replica::start(&fleet, Options::named("f-0")).await;
    let none = refusal(&fleet, &replica, None).await;
    assert!(none.contains("CertificateRequired"), "{none}");

    let foreign = refusal(&fleet, &replica, Some(&Fleet::new().gateway("gw"))).await;
    assert!(foreign.contains("UnknownCA"), "{foreign}");

    let identity = Identity::gateway(TRUST_DOMAIN, "edge", "gw").unwrap();
    let brief = LeafRequest { lifetime: Duration::from_secs(1), ..LeafRequest::gateway(identity) };
    // Certificates start a little in the past, so this one is over.
    let expired = {
        let authority = Authority::from_pem("ca", fleet.authority.pem().clone(), SystemTime::now()).unwrap();
        authority.issue_leaf(&brief, SystemTime::now() - Duration::from_secs(60)).unwrap()
    };
    let expired = refusal(&fleet, &replica, Some(&expired)).await;
    assert!(expired.contains("CertificateExpired"), "{expired}");
    until("they are counted", || replica.metrics.refused.with_label_values(&["handshake"]).get() == 3).await;
    replica.stop().await;
}

#[tokio::test]
async fn a_gateway_that_claims_anothers_name_is_refused_by_every_call() {
    let fleet = Fleet::new();
    let replica = Replica::with_routes(&fleet, Options::named("f-0"), vec![route("a", 10, "{}")]).await;
    let mut victim = Gateway::connect(&fleet, &replica, "victim", "").await;
    let version = victim.next().await.unwrap().version;
    let mut client = dial(replica.address, &fleet.client(Some(&fleet.gateway("gw")))).await.unwrap();

    let mut refusals = Vec::new();
    let request = RegisterGatewayRequest { gateway: info("victim"), capabilities: None };
    refusals.push(client.register_gateway(request).await.unwrap_err());
    let request = stream_request("victim", &victim.session, "");
    refusals.push(client.stream_configuration(request).await.unwrap_err());
    let request = HeartbeatRequest { gateway: info("victim"), ..HeartbeatRequest::default() };
    refusals.push(client.heartbeat(request).await.unwrap_err());
    let request = ack_request("victim", &victim.session, &version);
    refusals.push(client.acknowledge_configuration(request).await.unwrap_err());
    let elsewhere =
        GatewayInfo { namespace: "other".to_owned(), name: "gw".to_owned(), ..GatewayInfo::default() };
    let request = RegisterGatewayRequest { gateway: Some(elsewhere), capabilities: None };
    let other_namespace = client.register_gateway(request).await.unwrap_err();
    assert!(other_namespace.message().contains("other/gw"), "{other_namespace}");
    assert_eq!(other_namespace.code(), Code::PermissionDenied);
    for status in refusals {
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("edge/victim") && status.message().contains("edge/gw"), "{status}");
    }

    // Under its own name, but with the other's session.
    let mut thief =
        client.stream_configuration(stream_request("gw", &victim.session, "")).await.unwrap().into_inner();
    let status = within("the refusal", thief.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    client.acknowledge_configuration(ack_request("gw", &victim.session, &version)).await.unwrap();
    until("it is not taken for the victim's", || replica.metrics.unexpected_acks.get() == 1).await;
    // The victim has noticed nothing.
    assert!(victim.ack(&version).await.received);
    replica.stop().await;
}

#[tokio::test]
async fn only_gateways_of_the_fleet_are_gateways() {
    let fleet = Fleet::new();
    let replica = Replica::start(&fleet, Options::named("f-0")).await;
    let request = || RegisterGatewayRequest { gateway: info("gw"), capabilities: None };

    let controller = fleet.controller(TRUST_DOMAIN, "edge", "gw");
    let mut client = dial(replica.address, &fleet.client(Some(&controller))).await.unwrap();
    let status = client.register_gateway(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");

    let identity = Identity::gateway("other.local", "edge", "gw").unwrap();
    let other = fleet.authority.issue_leaf(&LeafRequest::gateway(identity), SystemTime::now()).unwrap();
    let mut client = dial(replica.address, &fleet.client(Some(&other))).await.unwrap();
    let status = client.register_gateway(request()).await.unwrap_err();
    assert!(status.message().contains("other.local") && status.message().contains(TRUST_DOMAIN), "{status}");

    let nobody = fleet.authority.issue_client("somebody", None, SystemTime::now()).unwrap();
    let mut client = dial(replica.address, &fleet.client(Some(&nobody))).await.unwrap();
    let status = client.register_gateway(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    replica.stop().await;
}

#[tokio::test]
async fn without_certificates_gateways_are_believed_only_where_that_is_wanted() {
    let fleet = Fleet::new();
    for anonymous in [false, true] {
        let options = Options { client_auth: ClientAuth::Optional, anonymous, ..Options::named("f-0") };
        let replica = Replica::start(&fleet, options).await;
        let mut client = dial(replica.address, &fleet.client(None)).await.unwrap();
        let request = RegisterGatewayRequest { gateway: info("gw"), capabilities: None };
        match client.register_gateway(request).await {
            Ok(answer) => assert!(anonymous && answer.into_inner().success),
            Err(status) => {
                assert!(!anonymous, "{status}");
                assert_eq!(status.code(), Code::Unauthenticated);
                assert!(status.message().contains("no client certificate"), "{status}");
            }
        }
        // Who presents a certificate is still held to it.
        let mut client = dial(replica.address, &fleet.client(Some(&fleet.gateway("other")))).await.unwrap();
        let request = RegisterGatewayRequest { gateway: info("gw"), capabilities: None };
        assert_eq!(client.register_gateway(request).await.unwrap_err().code(), Code::PermissionDenied);
        replica.stop().await;
    }
}

/// A name that nobody has confirmed is worth less than one that a certificate confirms.
#[tokio::test]
async fn who_shows_no_certificate_takes_no_confirmed_gateways_place() {
    let fleet = Fleet::new();
    let options = Options { client_auth: ClientAuth::Optional, anonymous: true, ..Options::named("f-0") };
    let replica = Replica::with_routes(&fleet, options, vec![route("a", 10, "{}")]).await;
    let stranger = async || dial(replica.address, &fleet.client(None)).await.unwrap();
    let counts = || (replica.metrics.gateways_connected.get(), replica.metrics.unconfirmed.get());

    let mut confirmed = Gateway::connect(&fleet, &replica, "gw", "").await;
    let first = confirmed.next().await.unwrap();
    assert_eq!(counts(), (1, 0));
    let mut other = Gateway::open(stranger().await, "gw", "").await;
    let status = other.end().await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    // Nor by its session.
    let mut client = stranger().await;
    let request = stream_request("gw", &confirmed.session, "");
    let status = match client.stream_configuration(request).await {
        Ok(updates) => within("its end", updates.into_inner().message()).await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(confirmed.ack(&first.version).await.received);
    assert_eq!(counts(), (1, 0));

    // Under a name of its own it is let in, and when a certificate is shown for that, it goes.
    let mut other = Gateway::open(stranger().await, "gw-2", "").await;
    until("it is counted", || counts() == (2, 1)).await;
    let mut confirmed = Gateway::connect(&fleet, &replica, "gw-2", "").await;
    confirmed.next().await.unwrap();
    assert_eq!(other.end().await.code(), Code::Unavailable);
    until("only confirmed ones are left", || counts() == (2, 0)).await;
    replica.stop().await;
}

#[tokio::test]
async fn oversized_requests_are_refused_and_the_connection_lives() {
    let fleet = Fleet::new();
    let replica = Replica::with_routes(&fleet, Options::named("f-0"), vec![route("a", 10, "{}")]).await;
    let mut gateway = Gateway::connect(&fleet, &replica, "gw", "").await;
    let version = gateway.next().await.unwrap().version;
    let huge = AcknowledgeConfigurationRequest {
        error_message: "x".repeat(5 * 1024 * 1024),
        ..ack_request("gw", &gateway.session, &version)
    };
    let status = gateway.client.acknowledge_configuration(huge).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let huge = stream_request("gw", &gateway.session, &"v".repeat(5 * 1024 * 1024));
    let status = gateway.client.stream_configuration(huge).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert!(gateway.ack(&version).await.received);
    replica.stop().await;
}

#[tokio::test]
async fn unknown_methods_are_unimplemented() {
    let fleet = Fleet::new();
    let replica = Replica::start(&fleet, Options::named("f-0")).await;
    let client = dial(replica.address, &fleet.client(Some(&fleet.gateway("gw")))).await.unwrap();
    drop(client);
    let tls = fleet.client(Some(&fleet.gateway("gw")));
    let mut raw = crate::raw_http2::RawClient::connect(replica.address, &tls, 1 << 16).await;
    let stream = raw.call("NoSuchThing", &RegisterGatewayRequest::default()).await;
    let last =
        within("an answer", raw.frames_until(|frame| frame.stream == stream && frame.flags & 1 != 0)).await;
    assert!(last.iter().any(|frame| frame.kind == crate::raw_http2::HEADERS));
    until("it is counted under a closed label", || {
        replica.metrics.requests.with_label_values(&["other", "UNIMPLEMENTED"]).get() == 1
    })
    .await;
    replica.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_is_dropped_and_connections_are_limited() {
    let fleet = Fleet::new();
    let mut options = Options::named("f-0");
    options.acceptor.handshake_timeout = Duration::from_millis(200);
    options.acceptor.max_connections = 2;
    let replica = Replica::start(&fleet, options).await;
    let mut silent = [
        TcpStream::connect(replica.address).await.unwrap(),
        TcpStream::connect(replica.address).await.unwrap(),
    ];
    let mut third = TcpStream::connect(replica.address).await.unwrap();
    let mut byte = [0];
    assert!(matches!(within("the refusal", third.read(&mut byte)).await, Ok(0) | Err(_)));
    assert_eq!(replica.metrics.refused.with_label_values(&["limit"]).get(), 1);
    for silent in &mut silent {
        assert!(matches!(within("the time-out", silent.read(&mut byte)).await, Ok(0) | Err(_)));
    }
    assert_eq!(replica.metrics.refused.with_label_values(&["timeout"]).get(), 2);
    // And there is room again.
    until("a slot", || true).await;
    dial(replica.address, &fleet.client(Some(&fleet.gateway("gw")))).await.unwrap();
    replica.stop().await;
}

#[tokio::test]
async fn handshakes_take_turns_and_who_waits_too_long_is_closed() {
    let fleet = Fleet::new();
    let mut options = Options::named("f-0");
    options.acceptor.handshake_timeout = Duration::from_secs(3);
    options.acceptor.handshake_patience = Duration::from_millis(100);
    options.acceptor.max_handshakes = 1;
    let replica = Replica::start(&fleet, options).await;
    let refused = |reason: &str| replica.metrics.refused.with_label_values(&[reason]).get();
    // Who says nothing takes nobody's turn.
    let silent = TcpStream::connect(replica.address).await.unwrap();
    let gateway = fleet.client(Some(&fleet.gateway("gw")));
    let connected = dial(replica.address, &gateway).await.unwrap();
    let mut slow = TcpStream::connect(replica.address).await.unwrap();
    slow.write_all(&[22]).await.unwrap();
    until("a turn is taken for long", || {
        let probe = std::net::TcpStream::connect(replica.address).unwrap();
        std::io::Write::write_all(&mut &probe, &[22]).unwrap();
        refused("busy") > 0
    })
    .await;
    // Connections that are up do not notice, and turns come back.
    within("a turn", async { while dial(replica.address, &gateway).await.is_err() {} }).await;
    let mut connected = connected;
    let request = RegisterGatewayRequest { gateway: info("gw"), capabilities: None };
    assert!(connected.register_gateway(request).await.unwrap().into_inner().success);
    drop((silent, slow));
    replica.stop().await;
}
