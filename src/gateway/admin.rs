//! What the gateways show of themselves over HTTP.
//!
//! | path | shows |
//! |---|---|
//! | `/healthz` | `ok` |
//! | `/config`, `/digest`, `/stats` | of the first gateway |
//! | `/gateways` | one entry per gateway: name, version, digest, counters |
//! | `/gateways/<namespace>/<name>/config`, `/digest`, `/stats` | of that one |
//! | `/events` | what changes, as it happens: one JSON object a line |
//!
//! `/config` shows specs as they are, secrets in them included: listen where
//! only operators can reach it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

use crate::events::{Event, EventHub, unix_micros};
use crate::gateway::{Gateway, Phase};
use crate::proxy::ProxyStats;
use crate::stats::Stats;

/// What the handlers work with.
#[derive(Clone)]
struct Admin {
    gateways: Arc<[Arc<Gateway>]>,
    events: EventHub,
    /// Ends event streams, which would otherwise never end.
    cancel: CancellationToken,
}

/// The routes over these gateways, of which there is at least one.
pub(crate) fn router(gateways: Arc<[Arc<Gateway>]>, events: EventHub, cancel: CancellationToken) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/config", get(|State(admin): State<Admin>| async move { config(&admin.gateways[0]) }))
        .route("/digest", get(|State(admin): State<Admin>| async move { digest(&admin.gateways[0]) }))
        .route("/stats", get(|State(admin): State<Admin>| async move { stats(&admin.gateways[0]) }))
        .route("/gateways", get(|State(admin): State<Admin>| async move { list(&admin) }))
        .route("/gateways/{namespace}/{name}/{what}", get(one))
        .route("/events", get(|State(admin): State<Admin>| async move { events_of(&admin) }))
        .with_state(Admin { gateways, events, cancel })
}

async fn one(
    State(admin): State<Admin>,
    Path((namespace, name, what)): Path<(String, String, String)>,
) -> Response {
    let found = admin
        .gateways
        .iter()
        .find(|gateway| *gateway.id().namespace == *namespace && *gateway.id().name == *name);
    let Some(gateway) = found else {
        let problem = format!("no gateway {namespace}/{name} runs here; see /gateways\n");
        return (StatusCode::NOT_FOUND, problem).into_response();
    };
    match what.as_str() {
        "config" => config(gateway),
        "digest" => digest(gateway),
        "stats" => stats(gateway),
        _ => (StatusCode::NOT_FOUND, "there are config, digest and stats\n").into_response(),
    }
}

#[derive(Serialize)]
struct ConfigPage<'a> {
    gateway: String,
    version: &'a str,
    sequence: i64,
    phase: Phase,
    zombie: bool,
    session: &'a str,
    last_error: &'a str,
    fully_loaded: bool,
    resources: Vec<ResourceEntry<'a>>,
}

#[derive(Serialize)]
struct ResourceEntry<'a> {
    kind: &'static str,
    key: &'a str,
    name: &'a str,
    uid: &'a str,
    generation: i64,
    resource_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
    spec: Option<&'a RawValue>,
}

fn config(gateway: &Gateway) -> Response {
    let view = gateway.view();
    let resources = view
        .held
        .iter()
        .map(|resource| ResourceEntry {
            kind: resource.kind.name(),
            key: &resource.key,
            name: resource.name(),
            uid: &resource.uid,
            generation: resource.generation,
            resource_version: &resource.resource_version,
            fault: resource.fault(),
            // It was decoded when it arrived, so it is JSON.
            spec: serde_json::from_slice(&resource.spec_json).ok(),
        })
        .collect();
    Json(ConfigPage {
        gateway: gateway.id().to_string(),
        version: &view.version,
        sequence: view.sequence,
        phase: view.link.phase,
        zombie: view.link.phase == Phase::Zombie,
        session: &view.link.session,
        last_error: &view.link.last_error,
        fully_loaded: view.fully_loaded,
        resources,
    })
    .into_response()
}

fn digest(gateway: &Gateway) -> Response {
    format!("{}\n", gateway.digest()).into_response()
}

#[derive(Serialize)]
struct StatsPage {
    gateway: String,
    phase: Phase,
    zombie: bool,
    held: usize,
    #[serde(flatten)]
    stats: Stats,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<ProxyStats>,
}

fn stats(gateway: &Gateway) -> Response {
    let phase = gateway.link().phase;
    Json(StatsPage {
        gateway: gateway.id().to_string(),
        phase,
        zombie: phase == Phase::Zombie,
        held: gateway.held_count(),
        stats: gateway.stats(),
        proxy: gateway.proxy_stats(),
    })
    .into_response()
}

#[derive(Serialize)]
struct ListEntry {
    namespace: String,
    name: String,
    version: Arc<str>,
    digest: Arc<str>,
    phase: Phase,
    held: usize,
    stats: Stats,
}

fn list(admin: &Admin) -> Response {
    let entries: Vec<ListEntry> = admin
        .gateways
        .iter()
        .map(|gateway| ListEntry {
            namespace: gateway.id().namespace.to_string(),
            name: gateway.id().name.to_string(),
            version: gateway.version(),
            digest: gateway.digest(),
            phase: gateway.link().phase,
            held: gateway.held_count(),
            stats: gateway.stats(),
        })
        .collect();
    Json(entries).into_response()
}

/// Most events that go out in one piece.
const CHUNK: usize = 256;

fn events_of(admin: &Admin) -> Response {
    let stream = event_stream(admin.events.subscribe(), admin.cancel.clone());
    let mut response = Body::from_stream(stream).into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Lines for events. The first one says that the subscription is in force;
/// one with `dropped` says that so many were lost to a slow reader.
fn event_stream(
    receiver: broadcast::Receiver<Event>,
    cancel: CancellationToken,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let hello = serde_json::json!({ "subscribed": true, "at_ms": unix_micros() as f64 / 1000.0 });
    let hello = Bytes::from(format!("{hello}\n"));
    futures::stream::unfold((receiver, cancel, Some(hello)), |(mut receiver, cancel, hello)| async move {
        if let Some(hello) = hello {
            return Some((Ok(hello), (receiver, cancel, None)));
        }
        let first = tokio::select! {
            () = cancel.cancelled() => return None,
            first = receiver.recv() => first,
        };
        let mut chunk = BytesMut::new();
        match first {
            Ok(event) => write_line(&mut chunk, &event.line()),
            Err(RecvError::Lagged(dropped)) => write_line(&mut chunk, &Dropped { dropped }),
            Err(RecvError::Closed) => return None,
        }
        for _ in 1..CHUNK {
            match receiver.try_recv() {
                Ok(event) => write_line(&mut chunk, &event.line()),
                Err(TryRecvError::Lagged(dropped)) => write_line(&mut chunk, &Dropped { dropped }),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some((Ok(chunk.freeze()), (receiver, cancel, None)))
    })
}

#[derive(Serialize)]
struct Dropped {
    dropped: u64,
}

fn write_line(chunk: &mut BytesMut, line: &impl Serialize) {
    // Strings and numbers only: there is nothing in a line that fails.
    if serde_json::to_writer((&mut *chunk).writer(), line).is_ok() {
        chunk.put_u8(b'\n');
    }
}
