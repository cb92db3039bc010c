//! Calls that no client of ours makes, drawn from a seed: messages that are broken somewhere, and bytes that are no
//! protocol at all. Each call is answered, and nobody else notices.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use flotilla_certs::ClientTls;
use flotilla_proto::operator::{
    AcknowledgeConfigurationRequest, ConfigurationResource, HeartbeatRequest, RegisterGatewayRequest,
};
use flotilla_proto::peer::{
    AdmitRequest, Frontier, Hello, HistoryRequest, ObjectName, PeerMessage, peer_message,
};
use flotilla_proto::push::{ApplyApiRouteRequest, GetGatewayStatusRequest, ResourceUpdate};
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::fleet::{
    Fleet, Gateway, Options, Replica, TRUST_DOMAIN, channel, info, route, stream_request, within,
};
use crate::push::{self, listening};
use crate::raw_http2::RawClient;

const OPERATOR: &str = "/avapigw.operator.v1alpha1.ConfigurationService";
const PUSH: &str = "/flotilla.gateway.v1.ConfigurationService";
const PEER: &str = "/flotilla.peer.v1.PeerService";

/// Messages as bytes, whatever they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}

/// The dice of a test, whose seed can be given.
fn dice() -> StdRng {
    let seed = std::env::var("FLOTILLA_RPC_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    eprintln!("FLOTILLA_RPC_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A message that was right before some of its bytes were changed, cut off or added to; or never was.
fn broken(dice: &mut StdRng, right: &[Vec<u8>]) -> Bytes {
    let mut message = right[dice.random_range(0..right.len())].clone();
    if dice.random_ratio(1, 8) {
        message = vec![0; dice.random_range(0..200)];
        dice.fill_bytes(&mut message);
    }
    for _ in 0..dice.random_range(0..5) {
        if !message.is_empty() {
            let at = dice.random_range(0..message.len());
            message[at] = dice.random();
        }
    }
    match dice.random_range(0..6) {
        0 => message.truncate(dice.random_range(0..=message.len())),
        // A field that says it is longer than all that follows, or than anything can be.
        1 => message.extend([0x0a, 0xff, 0xff, 0xff, 0xff, 0x07]),
        2 => message.extend([0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        // Groups in groups.
        3 => message.extend([0x0b; 300]),
        _ => {}
    }
    message.into()
}

/// Makes a call and waits for the first answer, or for its end.
async fn call(channel: &Channel, path: &str, message: Bytes) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let request = Request::new(tokio_stream::iter([message]));
    let path = PathAndQuery::try_from(path).unwrap();
    let mut answers = client.streaming(request, path, Raw).await?.into_inner();
    // A stream that is open may have nothing to tell for long.
    match tokio::time::timeout(Duration::from_millis(50), answers.next()).await {
        Ok(Some(answer)) => answer.map(drop),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Makes many broken calls; none of them may hang, or end the connection.
async fn pelt(dice: &mut StdRng, channel: &Channel, methods: &[String], right: &[Vec<u8>]) -> usize {
    let mut refused = 0;
    for case in 0..250 {
        let (path, message) = (&methods[dice.random_range(0..methods.len())], broken(dice, right));
        let answer =
            within(&format!("case {case}: {path} {message:?}"), call(channel, path, message.clone())).await;
        if let Err(status) = answer {
            refused += 1;
            let broken = [Code::Unknown, Code::Unavailable, Code::Cancelled, Code::DataLoss];
            assert!(!broken.contains(&status.code()), "case {case}: {path} {message:?}: {status:?}");
            assert!(!status.message().is_empty(), "case {case}: {path}: {status:?}");
        }
    }
    refused
}

/// What the other end of a connection is sent that was made with a certificate: no HTTP/2, which it has to end, or what
/// begins like it.
async fn babble(dice: &mut StdRng, address: SocketAddr, tls: &ClientTls) {
    for case in 0..40 {
        let mut bytes = vec![0; dice.random_range(30..400)];
        dice.fill_bytes(&mut bytes);
        let begins_well = dice.random();
        let mut client = match begins_well {
            true => RawClient::connect(address, tls, 1 << 16).await,
            false => RawClient::silent(address, tls).await,
        };
        if dice.random() {
            // A frame of some kind and of some length, on some stream.
            bytes.iter_mut().take(2).for_each(|byte| *byte = 0);
        }
        let io = client.io();
        // It may have gone already.
        let _ = io.write_all(&bytes).await;
        if begins_well {
            let _ = io.shutdown().await;
        }
        let mut rest = Vec::new();
        // By a close or by a reset.
        let _ = within(&format!("case {case}: the end of {bytes:?}"), io.read_to_end(&mut rest)).await;
    }
}

fn methods(service: &str, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{service}/{name}")).collect()
}

fn right_messages(gateway: &str, session: &str) -> Vec<Vec<u8>> {
    let resource = ConfigurationResource {
        namespace: "team".to_owned(),
        name: "r".to_owned(),
        spec_json: br#"{"name":"team/r","directResponse":{"status":200}}"#.to_vec().into(),
        ..ConfigurationResource::default()
    };
    let update = ResourceUpdate {
        session_id: session.to_owned(),
        config_version: "v1".to_owned(),
        sequence: 1,
        resource: Some(resource),
    };
    let acknowledged = AcknowledgeConfigurationRequest {
        gateway: info(gateway),
        session_id: session.to_owned(),
        error_message: "no".to_owned(),
        ..AcknowledgeConfigurationRequest::default()
    };
    vec![
        RegisterGatewayRequest { gateway: info(gateway), capabilities: None }.encode_to_vec(),
        stream_request(gateway, session, "f1.0a1b2c3d.00000000.00000000.0_0_0_0").encode_to_vec(),
        HeartbeatRequest { gateway: info(gateway), ..HeartbeatRequest::default() }.encode_to_vec(),
        acknowledged.encode_to_vec(),
        ApplyApiRouteRequest { update: Some(update) }.encode_to_vec(),
        GetGatewayStatusRequest { open_session: session.to_owned(), ..GetGatewayStatusRequest::default() }
            .encode_to_vec(),
        Vec::new(),
    ]
}

/// What a replica `f-1` tells and asks another.
fn of_a_peer() -> Vec<Vec<u8>> {
    let hello = Hello {
        member: "f-1".to_owned(),
        instance: "f-1/1".to_owned(),
        highest_epoch: 1,
        frontier: Some(Frontier { revisions: vec![1, 2, 3, 4] }),
        incarnation: "00000000".to_owned(),
    };
    let object = ObjectName { kind: 1, namespace: "team".to_owned(), name: "r".to_owned() };
    vec![
        PeerMessage { message: Some(peer_message::Message::Hello(hello)) }.encode_to_vec(),
        HistoryRequest { kind: 1, since: 1 }.encode_to_vec(),
        AdmitRequest { object: Some(object), ..AdmitRequest::default() }.encode_to_vec(),
    ]
}

#[tokio::test]
async fn whatever_a_replica_is_sent_others_are_served() {
    let (fleet, mut dice) = (Fleet::new(), dice());
    let replica = Replica::with_routes(&fleet, Options::named("f-0"), vec![route("a", 10, "{}")]).await;
    let mut other = Gateway::connect(&fleet, &replica, "other", "").await;
    other.synchronise().await;

    let mut calls = methods(
        OPERATOR,
        &[
            "RegisterGateway",
            "StreamConfiguration",
            "GetConfiguration",
            "Heartbeat",
            "AcknowledgeConfiguration",
        ],
    );
    calls.extend(methods(PUSH, &["GetGatewayStatus", "ApplyAPIRoute"]));
    let tls = fleet.client(Some(&fleet.gateway("gw")));
    let line = channel(replica.address, &tls).await.unwrap();
    let refused = pelt(&mut dice, &line, &calls, &right_messages("gw", "s")).await;
    assert!((50..250).contains(&refused), "{refused} of 250 were refused");

    let peer = fleet.peer_client(&fleet.controller(TRUST_DOMAIN, "system", "f-1"));
    let line = channel(replica.address, &peer).await.unwrap();
    let refused =
        pelt(&mut dice, &line, &methods(PEER, &["Exchange", "History", "Admit"]), &of_a_peer()).await;
    assert!((50..250).contains(&refused), "{refused} of 250 were refused");
    babble(&mut dice, replica.address, &tls).await;

    // Nobody ended, and who was served still is.
    replica.list(vec![route("a", 10, "{}"), route("b", 110, "{}")], 110).await;
    let update = other.apply_next().await;
    assert!(update.resource.is_some_and(|resource| resource.name == "b"));
    assert!(!replica.delivery_task.is_finished());
    replica.stop().await;
}

#[tokio::test]
async fn whatever_a_gateway_is_sent_it_goes_on() {
    let (fleet, mut dice) = (Fleet::new(), dice());
    let gateways = listening(&fleet, "gw", true).await;
    let address = gateways.listening()[0];
    let names = [
        "ApplyAPIRoute",
        "ApplyGRPCRoute",
        "ApplyBackend",
        "ApplyGRPCBackend",
        "DeleteAPIRoute",
        "DeleteGRPCRoute",
        "DeleteBackend",
        "DeleteGRPCBackend",
        "GetGatewayStatus",
        "ApplyBatch",
    ];
    let certificate = fleet.controller(TRUST_DOMAIN, "system", "f-0");
    let tls = fleet.dialler(&certificate);
    let line = channel(address, &tls).await.unwrap();
    let refused = pelt(&mut dice, &line, &methods(PUSH, &names), &right_messages("gw", "s")).await;
    assert!((50..250).contains(&refused), "{refused} of 250 were refused");
    babble(&mut dice, address, &tls).await;

    let mut client = push::client(&fleet, address, &certificate).await;
    push::open(&mut client, "another").await.unwrap();
    assert!(push::apply(&mut client, "another", 1, "r").await.unwrap().success);
    gateways.stop().await;
}
