//! Connections over TLS, and what a gateway says when there is none.

use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use flotilla_certs::{Alpn, Authority, ClientAuth, ClientTls, Identity, LeafRequest, ServerCheck, ServerTls};
use flotilla_gateway::{Fleet, FleetOptions, GatewayOptions, Phase};
use flotilla_proto::operator::UpdateType;

use crate::operator::{Behaviour, Operator, eventually};
use crate::updates::{increment, route};

/// A server whose certificate names this address.
async fn operator(authority: &Authority, address: IpAddr) -> Operator {
    let certificate = authority.issue_server("operator", &[], &[address], SystemTime::now()).unwrap();
    let tls = ServerTls::new(&certificate, authority.roots(), ClientAuth::Required, Alpn::H2).unwrap();
    Operator::start_tls(Behaviour::default(), tls).await
}

/// What a gateway presents, and whom it believes.
fn client(own: &Authority, believed: &Authority) -> ClientTls {
    let identity = Identity::gateway("cluster.local", "edge", "gw").unwrap();
    let certificate = own.issue_leaf(&LeafRequest::gateway(identity), SystemTime::now()).unwrap();
    ClientTls::new(Some(&certificate), believed.roots(), ServerCheck::Name, Alpn::H2).unwrap()
}

async fn start(operator: &Operator, tls: Option<ClientTls>) -> Fleet {
    let options = GatewayOptions { tls, ..operator.gateway("gw") };
    Fleet::start(vec![options], FleetOptions::default()).await.unwrap()
}

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn a_gateway_with_a_certificate_of_the_fleets_authority_is_served() {
    let authority = Authority::generate("fleet", SystemTime::now()).unwrap();
    let operator = operator(&authority, LOCALHOST).await;
    let fleet = start(&operator, Some(client(&authority, &authority))).await;
    eventually("a stream", || operator.streams().first().cloned()).await;
    let ack = operator.send_acked(increment(UpdateType::Added, 1, "v1", &route("a/r", 1))).await;
    assert!(ack.success);
    fleet.stop().await;
}

/// Why the gateway says that it could not register.
async fn refusal(operator: &Operator, tls: Option<ClientTls>) -> String {
    let fleet = start(operator, tls).await;
    let gateway = fleet.gateways()[0].clone();
    let reason = eventually("a reason", || Some(gateway.link().last_error).filter(|e| !e.is_empty())).await;
    assert_eq!(gateway.link().phase, Phase::Starting);
    assert!(operator.registers().is_empty());
    fleet.stop().await;
    reason
}

#[tokio::test]
async fn unknown_authorities_wrong_hosts_and_missing_certificates_are_told_apart() {
    let authority = Authority::generate("fleet", SystemTime::now()).unwrap();
    let foreign = Authority::generate("foreign", SystemTime::now()).unwrap();
    let good = operator(&authority, LOCALHOST).await;

    let reason = refusal(&good, Some(client(&authority, &foreign))).await;
    assert!(reason.contains("UnknownIssuer"), "{reason}");
    let reason = refusal(&good, Some(client(&foreign, &authority))).await;
    assert!(!reason.is_empty(), "{reason}");
    let reason = refusal(&good, None).await;
    assert!(!reason.is_empty(), "{reason}");

    let elsewhere = operator(&authority, IpAddr::V4(Ipv4Addr::new(10, 9, 8, 7))).await;
    let reason = refusal(&elsewhere, Some(client(&authority, &authority))).await;
    assert!(reason.contains("not valid for name"), "{reason}");
}
