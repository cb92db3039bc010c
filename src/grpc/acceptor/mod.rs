//! Accepts connections of gateways and peers: TCP, mutual TLS, HTTP/2.
//!
//! tonic's own server cannot change its certificates while it runs, and hides
//! the end of a connection; both matter here. What matters most is how streams
//! end: a gateway that sees CANCELED or RST_STREAM(CANCEL) never comes back, so
//! on every way out of here streams first end with trailers, then the
//! connection says GOAWAY, and only what is still blocked by then loses its
//! TCP connection, which gateways take for a network failure and redial.

mod connection;
mod listener;
mod observe;
mod peer;
mod pings;
mod seldom;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flotilla_certs::ServerTls;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::metrics::Metrics;

pub use listener::Listener;
pub use observe::Calls;
pub(crate) use observe::trailers;
pub use peer::{ConnectionHandle, Peer};

/// Settings of an [`Acceptor`].
#[derive(Debug, Clone, Copy)]
pub struct AcceptorConfig {
    /// How long TLS may take.
    pub handshake_timeout: Duration,
    /// How many handshakes may be under way at once: when a whole fleet
    /// returns, they must not take all the processor from those that are
    /// connected.
    pub max_handshakes: usize,
    /// How long a connection may wait for its handshake to begin. Then it is
    /// closed, and its gateway comes again after its own, growing pause. Well
    /// below the 10 s that gateways wait for their registration.
    pub handshake_patience: Duration,
    /// How many connections may be open, those in their handshake included.
    pub max_connections: usize,
    /// How many calls one connection may have open.
    pub max_streams: u32,
    /// How often a quiet connection is pinged.
    pub keep_alive_interval: Duration,
    /// How long the answer to a ping may take.
    pub keep_alive_timeout: Duration,
    /// How many pings a client may send within a minute in which it gets no data.
    /// Gateways send six.
    pub max_pings: u32,
    /// When to ask a connection to be made anew. `None` means never: to a
    /// gateway that is a reconnect for nothing. Connections always end when
    /// the client's certificate does.
    pub max_connection_age: Option<Duration>,
    /// How long a connection that is to end may finish what it has begun.
    pub close_grace: Duration,
    /// How long all connections together may take to end on shutdown.
    pub shutdown_grace: Duration,
}

impl Default for AcceptorConfig {
    fn default() -> Self {
        AcceptorConfig {
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 32,
            handshake_patience: Duration::from_secs(5),
            max_connections: 10_000,
            max_streams: 100,
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(10),
            max_pings: 60,
            max_connection_age: None,
            close_grace: Duration::from_secs(5),
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// A listener with everything that its connections need.
pub struct Acceptor<L, S> {
    listener: L,
    tls: ServerTls,
    service: S,
    config: AcceptorConfig,
    metrics: Arc<Metrics>,
}

impl<L: Listener, S: Calls> Acceptor<L, S> {
    /// Serves calls on a listener that is already bound.
    pub fn new(listener: L, tls: ServerTls, service: S, config: AcceptorConfig, metrics: Metrics) -> Self {
        Acceptor { listener, tls, service, config, metrics: Arc::new(metrics) }
    }

    /// Accepts until `shutdown`, then ends every connection: streams first,
    /// then the connections, at most the shutdown grace altogether.
    pub async fn run(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(self.config.max_connections));
        let handshakes = Arc::new(Semaphore::new(self.config.max_handshakes));
        let closing = shutdown.child_token();
        let kill = CancellationToken::new();
        loop {
            // Which comes first at shutdown does not matter: a connection that
            // is accepted then finds `closing` cancelled.
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly; a pause lets some close.
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                self.metrics.refused.with_label_values(&["limit"]).inc();
                warn!(%address, limit = self.config.max_connections, "too many connections, closing the newest");
                continue;
            };
            let task = connection::Task {
                stream,
                address,
                tls: self.tls.config(),
                context: connection::Context {
                    service: self.service.clone(),
                    config: self.config,
                    metrics: self.metrics.clone(),
                    handshakes: handshakes.clone(),
                    closing: closing.child_token(),
                    kill: kill.clone(),
                },
            };
            connections.spawn(async move {
                task.run().await;
                drop(slot);
            });
        }
        drop(self.listener);
        connections.close();
        let open = connections.len();
        if open > 0 {
            info!(connections = open, "ending connections");
        }
        if tokio::time::timeout(self.config.shutdown_grace, connections.wait()).await.is_err() {
            warn!(connections = connections.len(), "connections did not end in time, cutting them");
            kill.cancel();
            connections.wait().await;
        }
        debug!("acceptor ended");
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
