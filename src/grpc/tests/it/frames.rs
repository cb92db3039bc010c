//! How streams end, frame by frame: always with trailers, never with
//! RST_STREAM.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flotilla_certs::{Alpn, ClientAuth, Identity, LeafRequest, ServerTls};
use flotilla_core::delivery::DeliveryConfig;
use flotilla_grpc::acceptor::{Acceptor, AcceptorConfig};
use flotilla_grpc::metrics::Metrics;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;

use crate::fleet::{Fleet, Options, Replica, TRUST_DOMAIN, route, stream_request, until, within};
use crate::raw_http2::{DATA, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, RawClient};

/// Opens a stream and reads up to its first data.
async fn open(fleet: &Fleet, replica: &Replica, session: &str) -> (RawClient, u32) {
    let tls = fleet.client(Some(&fleet.gateway("gw")));
    let mut client = RawClient::connect(replica.address, &tls, 1 << 20).await;
    let stream = client.call("StreamConfiguration", &stream_request("gw", session, "")).await;
    let seen = within("the first data", client.frames_until(|frame| frame.kind == DATA)).await;
    assert!(seen.iter().any(|frame| frame.kind == HEADERS && frame.stream == stream));
    assert_no_reset(&seen);
    (client, stream)
}

#[track_caller]
fn assert_no_reset(frames: &[Frame]) {
    assert!(!frames.iter().any(|frame| frame.kind == RST_STREAM), "{frames:?}");
}

/// Reads to the connection's end or until nothing comes for a while, and makes
/// sure that the stream ended with trailers and with nothing else.
async fn assert_ends_with_trailers(mut client: RawClient, stream: u32) -> Vec<Frame> {
    let ended =
        |frame: &Frame| frame.stream == stream && (frame.kind == RST_STREAM || frame.flags & END_STREAM != 0);
    let mut seen = within("the stream's end", client.frames_until(ended)).await;
    let last = seen.last().unwrap_or_else(|| panic!("the connection was cut without trailers"));
    assert!(last.kind == HEADERS && last.stream == stream && last.flags & END_STREAM != 0, "{seen:?}");
    // A reset would come right behind.
    let rest = tokio::time::timeout(Duration::from_millis(500), client.frames_until(|_| false)).await;
    seen.extend(rest.unwrap_or_default());
    assert_no_reset(&seen);
    seen
}

async fn replica(fleet: &Fleet, change: impl FnOnce(&mut Options)) -> Replica {
    let mut options = Options::named("f-0");
    change(&mut options);
    Replica::with_routes(fleet, options, vec![route("a", 10, "{}")]).await
}

#[tokio::test]
async fn shutdown_ends_streams_with_trailers_and_then_says_goaway() {
    let fleet = Fleet::new();
    let replica = replica(&fleet, |_| {}).await;
    let (client, stream) = open(&fleet, &replica, "f-0/1").await;
    replica.shutdown.cancel();
    let seen = assert_ends_with_trailers(client, stream).await;
    assert!(seen.iter().any(|frame| frame.kind == GOAWAY), "{seen:?}");
    replica.stop().await;
}

#[tokio::test]
async fn drain_ends_streams_with_trailers() {
    let fleet = Fleet::new();
    let replica = replica(&fleet, |_| {}).await;
    let (client, stream) = open(&fleet, &replica, "f-0/1").await;
    replica.delivery.drain(Duration::from_millis(50)).await.unwrap();
    assert_ends_with_trailers(client, stream).await;
    replica.stop().await;
}

#[tokio::test]
async fn a_newer_stream_ends_the_older_one_with_trailers() {
    let fleet = Fleet::new();
    let replica = replica(&fleet, |_| {}).await;
    // Once under another session, once under the same one.
    for (first, second) in [("f-0/1", "f-0/2"), ("f-0/3", "f-0/3")] {
        let (client, stream) = open(&fleet, &replica, first).await;
        let (_newer, _) = open(&fleet, &replica, second).await;
        assert_ends_with_trailers(client, stream).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_missing_acknowledgement_ends_the_stream_with_trailers() {
    let fleet = Fleet::new();
    let replica = replica(&fleet, |options| {
        options.delivery =
            DeliveryConfig { ack_timeout: Duration::from_millis(300), ..options.delivery.clone() };
    })
    .await;
    let (client, stream) = open(&fleet, &replica, "f-0/1").await;
    assert_ends_with_trailers(client, stream).await;
    replica.stop().await;
}

#[tokio::test]
async fn a_panic_of_the_delivery_task_ends_streams_with_trailers() {
    let fleet = Fleet::new();
    let mut replica = replica(&fleet, |_| {}).await;
    let (client, stream) = open(&fleet, &replica, "f-0/1").await;
    let asked = replica.delivery.inspect(|_| -> () { panic!("as the test wants it") }).await;
    asked.unwrap_err();
    let panicked = within("the panic", &mut replica.delivery_task).await;
    assert!(panicked.unwrap_err().is_panic());
    assert_ends_with_trailers(client, stream).await;
    replica.shutdown.cancel();
}

#[tokio::test]
async fn a_connection_that_reached_its_age_ends_its_streams_with_trailers() {
    let fleet = Fleet::new();
    let replica = replica(&fleet, |options| {
        options.acceptor =
            AcceptorConfig { max_connection_age: Some(Duration::from_millis(400)), ..options.acceptor };
    })
    .await;
    let (client, stream) = open(&fleet, &replica, "f-0/1").await;
    let seen = assert_ends_with_trailers(client, stream).await;
    assert!(seen.iter().any(|frame| frame.kind == GOAWAY), "{seen:?}");
    replica.stop().await;
}

#[tokio::test]
async fn a_refused_stream_ends_with_a_status_and_no_reset() {
    let fleet = Fleet::new();
    let replica = replica(&fleet, |_| {}).await;
    let tls = fleet.client(Some(&fleet.gateway("gw")));
    let mut client = RawClient::connect(replica.address, &tls, 1 << 20).await;
    let stream = client.call("StreamConfiguration", &stream_request("another", "f-0/1", "")).await;
    assert_ends_with_trailers(client, stream).await;
    replica.stop().await;
}

#[tokio::test]
async fn a_client_that_never_reads_gets_its_window_and_is_cut_without_a_reset() {
    let fleet = Fleet::new();
    let mut options = Options::named("f-0");
    options.delivery = DeliveryConfig { ack_timeout: Duration::from_millis(500), ..options.delivery };
    let big = format!("{{\"pad\":\"{}\"}}", "x".repeat(512 * 1024));
    let replica = Replica::with_routes(&fleet, options, vec![route("a", 10, &big)]).await;
    let tls = fleet.client(Some(&fleet.gateway("gw")));
    let window = 20_000;
    let mut client = RawClient::connect(replica.address, &tls, window).await;
    client.reading = false;
    client.call("StreamConfiguration", &stream_request("gw", "f-0/1", "")).await;
    // Many changes while it does not read: none of them may queue up.
    for revision in 0..200 {
        replica.delivery.changed(route("b", 200 + revision, &big)).await.unwrap();
    }
    let seen = within("the cut", client.frames_until(|_| false)).await;
    assert_no_reset(&seen);
    let data: usize = seen.iter().filter(|frame| frame.kind == DATA).map(|frame| frame.payload.len()).sum();
    assert!(data <= window as usize, "{data} bytes came through a window of {window}");
    assert!(seen.iter().any(|frame| frame.kind == GOAWAY), "the connection says that it ends");
    let full = replica.metrics.batches.with_label_values(&["full"]).get();
    let increments = replica.metrics.batches.with_label_values(&["increments"]).get();
    assert!(full + increments <= 1, "{full} full and {increments} incremental batches for one unread stream");
    let sessions = replica.delivery.inspect(|engine| engine.session_count()).await.unwrap();
    assert_eq!(sessions, 0);
    replica.stop().await;
}

#[tokio::test]
async fn a_client_that_pings_without_end_is_ended_with_trailers() {
    let fleet = Fleet::new();
    let replica = replica(&fleet, |options| options.acceptor.max_pings = 20).await;
    let (mut client, stream) = open(&fleet, &replica, "f-0/1").await;
    // As many as are allowed are answered.
    client.ping(20).await;
    let mut answers = 0;
    let seen = client.frames_until(|frame| {
        answers += usize::from(frame.kind == PING);
        answers == 20
    });
    assert_no_reset(&within("the answers", seen).await);
    assert_eq!(replica.metrics.refused.with_label_values(&["pings"]).get(), 0);
    client.ping(1).await;
    let seen = assert_ends_with_trailers(client, stream).await;
    assert!(seen.iter().any(|frame| frame.kind == GOAWAY), "{seen:?}");
    assert_eq!(replica.metrics.refused.with_label_values(&["pings"]).get(), 1);
    replica.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_gone_without_a_word_is_noticed() {
    let fleet = Fleet::new();
    let replica = replica(&fleet, |options| {
        options.acceptor.keep_alive_interval = Duration::from_millis(50);
        options.acceptor.keep_alive_timeout = Duration::from_millis(200);
    })
    .await;
    let (mut client, _) = open(&fleet, &replica, "f-0/1").await;
    // Who answers stays.
    let mut pings = 0;
    let seen = client.frames_until(|frame| {
        pings += usize::from(frame.kind == PING);
        pings == 3
    });
    within("pings", seen).await;
    assert_eq!(replica.metrics.gateways_connected.get(), 1);
    // From here on nothing is read or answered, and the socket stays open.
    until("its stream and connection are given up", || {
        (replica.metrics.gateways_connected.get(), replica.metrics.connections.get()) == (0, 0)
    })
    .await;
    drop(client);
    replica.stop().await;
}

#[tokio::test]
async fn the_end_of_a_certificate_ends_the_streams_made_with_it() {
    let fleet = Fleet::new();
    let replica = replica(&fleet, |_| {}).await;
    let identity = Identity::gateway(TRUST_DOMAIN, "edge", "gw").unwrap();
    let brief = LeafRequest { lifetime: Duration::from_secs(3), ..LeafRequest::gateway(identity) };
    let certificate = fleet.authority.issue_leaf(&brief, SystemTime::now()).unwrap();
    let tls = fleet.client(Some(&certificate));
    let mut client = RawClient::connect(replica.address, &tls, 1 << 20).await;
    let stream = client.call("StreamConfiguration", &stream_request("gw", "f-0/1", "")).await;
    within("the first data", client.frames_until(|frame| frame.kind == DATA)).await;
    assert_ends_with_trailers(client, stream).await;
    replica.stop().await;
}

/// A service whose calls panic: before the answer, or in its middle.
#[derive(Clone)]
struct Panics;

impl NamedService for Panics {
    const NAME: &'static str = "avapigw.operator.v1alpha1.ConfigurationService";
}

impl tower::Service<http::Request<Body>> for Panics {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path().ends_with("Before") {
            panic!("as the test wants it");
        }
        std::future::ready(Ok(http::Response::new(Body::new(PanicsLater(false)))))
    }
}

struct PanicsLater(bool);

impl http_body::Body for PanicsLater {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        assert!(!self.0, "as the test wants it");
        self.0 = true;
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"\0\0\0\0\0")))))
    }
}

#[tokio::test]
async fn a_call_that_panics_ends_with_trailers() {
    let fleet = Fleet::new();
    let certificate = fleet.controller(TRUST_DOMAIN, "system", "f-0");
    let tls = ServerTls::new(&certificate, fleet.authority.roots(), ClientAuth::Required, Alpn::H2).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let routes = Routes::new(Panics);
    let acceptor = Acceptor::new(listener, tls, routes, AcceptorConfig::default(), metrics.clone());
    let shutdown = CancellationToken::new();
    let acceptor = tokio::spawn(acceptor.run(shutdown.clone()));
    for method in ["Before", "Later"] {
        let tls = fleet.client(Some(&fleet.gateway("gw")));
        let mut client = RawClient::connect(address, &tls, 1 << 20).await;
        let stream = client.call(method, &stream_request("gw", "", "")).await;
        assert_ends_with_trailers(client, stream).await;
    }
    assert_eq!(metrics.requests.with_label_values(&["other", "UNAVAILABLE"]).get(), 2);
    shutdown.cancel();
    within("the acceptor's end", acceptor).await.unwrap();
}
