//! One connection, from its first byte to its last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use flotilla_certs::{Validity, peer_identity};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::observe::{Calls, Observe};
use super::pings::{Counted, Pings};
use super::seldom::Seldom;
use super::{AcceptorConfig, ConnectionHandle, Peer};
use crate::metrics::Metrics;

/// Largest frame we read, and how much a stream may hold unsent: small, so that
/// a client that does not read costs a few of them and shares the rest.
const FRAME: u32 = 64 * 1024;

/// Requests are small; a client may send this much before we have read it.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What is read before a handshake may begin: a few bytes show that somebody is
/// there, and later reads go past so small a buffer.
const LOOK_AHEAD: usize = 16;

pub(super) struct Task<S, C> {
    pub stream: S,
    pub address: SocketAddr,
    pub tls: Arc<ServerConfig>,
    pub context: Context<C>,
}

/// What a connection needs besides its socket.
pub(super) struct Context<C> {
    pub service: C,
    pub config: AcceptorConfig,
    pub metrics: Arc<Metrics>,
    /// The right to be in a handshake.
    pub handshakes: Arc<Semaphore>,
    /// Asks this connection to end.
    pub closing: CancellationToken,
    /// Cuts it.
    pub kill: CancellationToken,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static, C: Calls> Task<S, C> {
    pub(super) async fn run(self) {
        let Task { stream, address, tls, context } = self;
        let refused = |reason| context.metrics.refused.with_label_values(&[reason]).inc();
        let timed_out = || {
            refused("timeout");
            warn!(%address, timeout = ?context.config.handshake_timeout, "TLS handshake timed out");
        };
        // Who says nothing takes nobody's turn.
        let mut stream = BufReader::with_capacity(LOOK_AHEAD, stream);
        let spoken = tokio::time::timeout(context.config.handshake_timeout, stream.fill_buf());
        tokio::select! {
            () = context.closing.cancelled() => return,
            spoken = spoken => match spoken {
                // An error shows in the handshake again.
                Ok(_) => {}
                Err(_) => return timed_out(),
            },
        }
        // In the order of coming; the semaphore is never closed.
        let turn = tokio::time::timeout(context.config.handshake_patience, context.handshakes.acquire());
        let turn = tokio::select! {
            () = context.closing.cancelled() => return,
            turn = turn => turn,
        };
        let Ok(turn) = turn else {
            refused("busy");
            debug!(%address, "too many handshakes, closing one that has waited for its turn");
            return;
        };
        let handshake = TlsAcceptor::from(tls).accept(stream);
        let handshake = tokio::time::timeout(context.config.handshake_timeout, handshake);
        let stream = tokio::select! {
            () = context.closing.cancelled() => return,
            done = handshake => match done {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    refused("handshake");
                    warn!(%address, %error, "TLS handshake failed");
                    return;
                }
                Err(_) => return timed_out(),
            },
        };
        drop(turn);
        context.metrics.connections.inc();
        context.serve(stream, address).await;
        context.metrics.connections.dec();
    }
}

impl<C: Calls> Context<C> {
    async fn serve<S>(&self, stream: TlsStream<S>, address: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = Peer {
            identity: peer_identity(chain),
            address,
            connection: ConnectionHandle::new(self.closing.clone()),
        };
        let certificate_end =
            chain.first().and_then(|leaf| Validity::of("the client's certificate", leaf).ok());
        let certificate_life = certificate_end
            .map(|validity| validity.not_after.duration_since(SystemTime::now()).unwrap_or_default());
        let life = [certificate_life, self.config.max_connection_age].into_iter().flatten().min();
        match &peer.identity {
            Ok(identity) => info!(%address, %identity, "connected"),
            Err(error) => info!(%address, %error, "connected without an identity"),
        }

        let (pings, too_many_pings) = (Pings::default(), CancellationToken::new());
        let stream = Counted::new(stream, pings.clone(), self.config.max_pings, too_many_pings.clone());
        let service = Observe::new(self.service.clone(), peer, self.metrics.clone(), pings);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.config.max_streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(FRAME as usize)
            .max_header_list_size(16 * 1024)
            .keep_alive_interval(self.config.keep_alive_interval)
            .keep_alive_timeout(self.config.keep_alive_timeout);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);

        let end_of_life = async {
            match life {
                Some(life) => tokio::time::sleep(life).await,
                None => std::future::pending().await,
            }
        };
        // A connection wakes for every frame; what may end it is asked when that wakes.
        let mut end = Seldom::new(async {
            tokio::select! {
                () = self.kill.cancelled() => return false,
                () = end_of_life => {
                    info!(%address, "the connection or its certificate has reached its age");
                }
                () = too_many_pings.cancelled() => {
                    self.metrics.refused.with_label_values(&["pings"]).inc();
                    warn!(%address, a_minute = self.config.max_pings, "a client pings too often, ending its connection");
                }
                () = self.closing.cancelled() => {}
            }
            self.closing.cancel();
            true
        });
        tokio::select! {
            ended = &mut connection => return log_end(address, ended),
            in_order = &mut end => if !in_order { return },
        }
        // Streams watch `closing` and end with trailers; hyper sends GOAWAY and
        // is done when the last one has.
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = &mut connection => log_end(address, ended),
            () = self.kill.cancelled() => {}
            () = tokio::time::sleep(self.config.close_grace) => {
                info!(%address, "the client does not read, cutting its connection");
            }
        }
    }
}

fn log_end(address: SocketAddr, ended: hyper::Result<()>) {
    match ended {
        Ok(()) => info!(%address, "disconnected"),
        // A client that vanishes is its everyday business, not ours.
        Err(error) => info!(%address, %error, "connection lost"),
    }
}
