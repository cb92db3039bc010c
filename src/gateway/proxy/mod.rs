//! The HTTP data plane: serves what the gateway was given.
//!
//! A request is routed by the table that is in force when it arrives and keeps
//! that table to its end, so a change of configuration drops nothing.
//!
//! Served are APIRoutes with URI, method, header and query matches, weights,
//! timeout, retries, redirect, rewrite, direct response and header changes
//! over HTTP/1.1 and HTTP/2 without TLS, and GRPCRoutes with destinations and
//! timeout. Everything else in a spec (authentication, rate limits, caching,
//! CORS, TLS to upstreams, mirrors, faults, …) is held and shown, and has no
//! effect here.

pub(crate) mod backend;
mod body;
mod call;
mod forward;
pub(crate) mod grpc;
pub(crate) mod matcher;
mod retry;
mod rewrite;
pub(crate) mod route;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;

use self::backend::{BackendPool, InFlight, authority, pick_weighted};
pub(crate) use self::body::Body;
use self::matcher::RequestView;
use self::route::{Action, Destination};
use self::table::ServingTable;
use crate::state::{Applied, State};

/// What the data plane has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ProxyStats {
    /// Requests received.
    pub requests: u64,
    /// Requests that no route was for.
    pub unrouted: u64,
    /// Requests answered with 502, 503 or 504 by the gateway itself.
    pub failed: u64,
    /// Additional tries.
    pub retries: u64,
}

/// Serves requests by the table that is in force.
#[derive(Debug)]
pub(crate) struct DataPlane {
    table: ArcSwap<ServingTable>,
    http: Client<HttpConnector, Body>,
    /// HTTP/2 with prior knowledge, for gRPC.
    http2: Client<HttpConnector, Body>,
    requests: AtomicU64,
    unrouted: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
}

/// Where a request goes.
struct Target {
    authority: String,
    in_flight: Option<InFlight>,
}

impl DataPlane {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(std::time::Duration::from_secs(5)));
        DataPlane {
            table: ArcSwap::default(),
            http: Client::builder(TokioExecutor::new()).build(connector.clone()),
            http2: Client::builder(TokioExecutor::new()).http2_only(true).build(connector),
            requests: AtomicU64::new(0),
            unrouted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }

    /// Puts in force what `state` has loaded, if `applied` loaded anything.
    pub(crate) fn update(&self, state: &State, applied: &Applied) {
        if applied.routes_loaded || applied.backends_loaded {
            let kept = (!applied.backends_loaded).then(|| self.table.load().backends.clone());
            self.table.store(Arc::new(ServingTable::build(state, kept)));
        }
    }

    pub(crate) fn stats(&self) -> ProxyStats {
        ProxyStats {
            requests: self.requests.load(Ordering::Relaxed),
            unrouted: self.unrouted.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
        }
    }

    /// Answers one request.
    pub(crate) async fn serve<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<body::BodyError>,
    {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let table = self.table.load_full();
        if call::is_call(&request) {
            return self.serve_call(&table, request, peer).await;
        }
        let (mut parts, body) = request.into_parts();
        if let (None, Some(authority)) = (parts.headers.get(HOST), parts.uri.authority()) {
            // HTTP/2 has the host elsewhere; matches on `Host` must see it.
            if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
                parts.headers.insert(HOST, host);
            }
        }
        let view = RequestView::new(&parts.method, &parts.uri, &parts.headers);
        let Some((route, matched)) = table.find(&view) else {
            self.unrouted.fetch_add(1, Ordering::Relaxed);
            return error_response(StatusCode::NOT_FOUND, "no route matches this request");
        };
        match &route.action {
            Action::Respond { status, headers, body } => {
                let mut response = Response::new(body::full(body.clone()));
                *response.status_mut() = *status;
                *response.headers_mut() = headers.clone();
                response
            }
            Action::Redirect(redirect) => {
                let host = matcher::header_value(&parts.headers, HOST.as_str());
                let location = rewrite::location(redirect, &parts.uri, host);
                let Ok(location) = HeaderValue::from_str(&location) else {
                    let problem = "the route's redirect is no legal location; correct redirect.uri";
                    return error_response(StatusCode::INTERNAL_SERVER_ERROR, problem);
                };
                let mut response = Response::new(body::empty());
                *response.status_mut() = redirect.code;
                response.headers_mut().insert(LOCATION, location);
                response
            }
            Action::Forward(destinations) => {
                let (route, path) = (route.clone(), matched.path.clone());
                let exchange = forward::Exchange { plane: self, table: &table, route: &route, path: &path };
                exchange.run(destinations, parts, body, peer).await
            }
        }
    }

    /// The gateway's own answer in place of an upstream's.
    fn failure(&self, status: StatusCode, message: &str) -> Response<Body> {
        self.failed.fetch_add(1, Ordering::Relaxed);
        error_response(status, message)
    }
}

/// Chooses a destination by weight, then a host: of the backend with that name
/// if there is one, otherwise the destination as it is written.
fn pick_target(
    table: &ServingTable,
    destinations: &[Destination],
    grpc: bool,
) -> Result<Target, &'static str> {
    if destinations.is_empty() {
        return Err("the route has no destination; add one");
    }
    let weights: Vec<u32> = destinations.iter().map(|destination| destination.weight).collect();
    let destination = &destinations[pick_weighted(&weights)];
    match table.backends.find(&destination.host, grpc).map(Arc::as_ref) {
        Some(BackendPool { settings, .. }) if settings.tls => {
            Err("the backend wants TLS, which this gateway does not speak to upstreams")
        }
        Some(pool) => {
            let (host, in_flight) = pool.pick();
            Ok(Target { authority: host.authority.clone(), in_flight: Some(in_flight) })
        }
        None if destination.port == 0 => Err("the destination is no known backend and has no port; set one"),
        None => Ok(Target { authority: authority(&destination.host, destination.port), in_flight: None }),
    }
}

/// An answer that the gateway itself gives.
fn error_response(status: StatusCode, message: &str) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("error");
    let json = serde_json::json!({ "error": reason.to_lowercase(), "message": message }).to_string();
    let mut response = Response::new(body::full(Bytes::from(json)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Removes what belongs to one connection only.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ] {
        headers.remove(name);
    }
}

/// Tells the upstream who asked, by which host and how.
fn add_forwarded(headers: &mut HeaderMap, peer: SocketAddr) {
    let chain = match matcher::header_value(headers, "x-forwarded-for") {
        Some(before) => format!("{before}, {}", peer.ip()),
        None => peer.ip().to_string(),
    };
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert("x-forwarded-for", chain);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert("x-forwarded-host", host);
    }
}
