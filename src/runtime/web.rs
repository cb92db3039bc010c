//! `/metrics`, `/healthz` and `/readyz`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use flotilla_k8s::watch::WatchMetrics;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether this replica can serve gateways: it has listed every kind and its
/// server is open. Never depends on being leader, nor on the API server being
/// there at this moment.
#[derive(Clone, Default)]
pub struct Readiness {
    ready: Arc<AtomicBool>,
    /// What keeps it from being ready before anything is watched.
    waits: Arc<Mutex<String>>,
    /// What keeps kinds from being read.
    watches: Arc<OnceLock<WatchMetrics>>,
}

impl Readiness {
    /// Says that the replica is ready, or no longer.
    pub fn set(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Says what is waited for, until kinds are watched.
    pub fn waits_for(&self, what: &str) {
        what.clone_into(&mut self.waits.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// From now on the watches say which kinds are not read, and why.
    pub fn explained_by(&self, watches: WatchMetrics) {
        // A second one would be the same.
        let _ = self.watches.set(watches);
    }

    /// Why it is not ready, or what is not as it should be although it is.
    fn explanation(&self) -> String {
        let Some(watches) = self.watches.get() else {
            return self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        };
        watches.problems().iter().map(|(kind, problem)| format!("{kind}: {problem}\n")).collect()
    }

    /// Whether it is ready.
    pub fn get(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// Opens a listener, with an error that names the flag.
///
/// # Errors
/// When the address is taken or not ours.
pub async fn listen(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("--{flag}: cannot listen on {address}; choose another address or port"))
}

/// Serves metrics until cancelled.
///
/// # Errors
/// When the listener fails.
pub async fn serve_metrics(
    listener: TcpListener,
    registry: Registry,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new().route("/metrics", get(metrics)).with_state(registry);
    serve(listener, router, cancel).await
}

/// Serves probes until cancelled.
///
/// # Errors
/// When the listener fails.
pub async fn serve_probes(
    listener: TcpListener,
    readiness: Readiness,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(readiness);
    serve(listener, router, cancel).await
}

async fn serve(listener: TcpListener, router: Router, cancel: CancellationToken) -> anyhow::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await.context("web server")
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    if readiness.get() {
        (StatusCode::OK, format!("ok\n{}", readiness.explanation()))
    } else {
        let why = "not ready: not all kinds are listed yet, or this replica is about to end\n";
        (StatusCode::SERVICE_UNAVAILABLE, format!("{why}{}", readiness.explanation()))
    }
}

async fn metrics(State(registry): State<Registry>) -> impl IntoResponse {
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, encoder.format_type().to_owned())], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain".to_owned())],
            error.to_string().into_bytes(),
        ),
    }
}
