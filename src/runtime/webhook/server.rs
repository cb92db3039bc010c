//! The HTTPS server of the webhooks.
//!
//! API servers ask over HTTP/1.1 and without a certificate of their own. TLS is
//! asked for its configuration at every connection, so a renewed certificate
//! takes effect without a restart. Nobody can hold a connection for ever: each
//! has a deadline for its handshake, for every head and body, and for its life.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use flotilla_certs::ServerTls;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Webhooks;

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one body. An object is at most 1.5 MiB in etcd, and an update
    /// carries two.
    pub body: usize,
    /// KiB of all bodies that are being read.
    pub bodies: usize,
    /// Time for one request, below the 10 s after which API servers give up.
    pub request: Duration,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Time for the head of a request; a connection may be quiet for as long. Longer than
    /// the 90 s for which API servers keep one that they do not use: who closed it sooner
    /// would now and then do so while a review is on its way, which is not sent again.
    pub head: Duration,
    /// Open connections.
    pub connections: usize,
    /// How long a connection may live; then it ends after the request in flight.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 4 << 20,
            bodies: 64 << 10,
            request: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(120),
            connections: 256,
            age: Duration::from_secs(600),
        }
    }
}

/// Serves until cancelled, then ends connections after their request in flight.
pub async fn serve(
    listener: TcpListener,
    tls: ServerTls,
    webhooks: Webhooks,
    limits: Limits,
    cancel: CancellationToken,
) {
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(limits.connections));
    let room = Arc::new(Semaphore::new(limits.bodies));
    loop {
        let accepted = tokio::select! {
            biased; // the end goes before new connections
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly; a pause lets some close.
                tracing::warn!(%error, "cannot accept a connection for webhooks");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tracing::warn!(%address, limit = limits.connections, "too many connections for webhooks");
            continue;
        };
        let connection = Connection {
            tls: tls.clone(),
            webhooks: webhooks.clone(),
            limits,
            room: room.clone(),
            cancel: cancel.clone(),
        };
        connections.spawn(async move {
            connection.serve(stream).await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    // Each of them ends within the time of a request.
    connections.wait().await;
}

struct Connection {
    tls: ServerTls,
    webhooks: Webhooks,
    limits: Limits,
    room: Arc<Semaphore>,
    cancel: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // A failure costs only latency.
        let _ = stream.set_nodelay(true);
        let handshake = TlsAcceptor::from(self.tls.config()).accept(stream);
        let accepted = tokio::select! {
            biased; // the end goes before handshakes
            () = self.cancel.cancelled() => return,
            accepted = tokio::time::timeout(self.limits.handshake, handshake) => accepted,
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake for webhooks failed"),
            Err(_) => return tracing::debug!("a TLS handshake for webhooks took too long"),
        };
        let (limits, cancel) = (self.limits, self.cancel);
        let service = service_fn(|request| {
            let (webhooks, room) = (self.webhooks.clone(), self.room.clone());
            async move { Ok::<_, Infallible>(webhooks.respond(request, limits, &room).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased; // a request in flight goes on after the end was announced, see below
            ended = connection.as_mut() => ended,
            () = async { tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(limits.age) => {}
            } } => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(limits.request + Duration::from_secs(1), connection).await {
                    Ok(ended) => ended,
                    Err(_) => return tracing::debug!("a connection for webhooks was cut"),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection for webhooks ended with an error");
        }
    }
}
