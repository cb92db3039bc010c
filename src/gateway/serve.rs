//! HTTP listeners: accept, serve, and let requests in flight finish at the end.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::error::GatewayError;

/// How long requests in flight may take after the end was announced.
const DRAIN: Duration = Duration::from_secs(5);

/// Any error of a service or a body.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Binds a listener.
pub(crate) async fn bind(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(address).await.map_err(|source| GatewayError::Listen { address, purpose, source })
}

/// Serves with what `service` makes for each connection, until cancelled.
pub(crate) async fn serve<F, S, B>(listener: TcpListener, service: F, cancel: CancellationToken)
where
    F: Fn(SocketAddr) -> S,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let open = |stream, peer| {
        let service = service(peer);
        async move { Some((stream, service)) }
    };
    serve_opened(listener, open, cancel).await;
}

/// Serves connections that are first opened, as by a TLS handshake, until
/// cancelled. One for which `open` finds nothing to serve is closed.
pub(crate) async fn serve_opened<O, F, T, S, B>(listener: TcpListener, open: O, cancel: CancellationToken)
where
    O: Fn(TcpStream, SocketAddr) -> F,
    F: Future<Output = Option<(T, S)>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
            // Reaps connections that ended; with none the branch is off.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "the connection is gone already");
                }
                let (opened, cancel) = (open(stream, peer), cancel.clone());
                connections.spawn(async move {
                    let opened = tokio::select! {
                        () = cancel.cancelled() => None,
                        opened = opened => opened,
                    };
                    if let Some((stream, service)) = opened {
                        connection(stream, service, cancel).await;
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: others may end soon.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection<T, S, B>(stream: T, service: S, cancel: CancellationToken)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
    builder.http2().timer(TokioTimer::new());
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(error, "connection ended with an error");
    }
}
