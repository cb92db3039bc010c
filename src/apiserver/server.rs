//! The running server: it listens, keeps its tasks, and ends them.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::auth::{Access, Identity, Permission};
use crate::faults::Faults;
use crate::http::{Body, BoxError, Cut, handle};
use crate::options::{Error, Options};
use crate::state::State;
use crate::store::Backup;
use crate::tls::Tls;
use crate::verb::RequestKind;

/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take for the head of a request, and be silent between two. Clients (Go's,
/// hyper's) give up connections that they did not use for 90 s: a server that did so
/// sooner would now and then close one on which a request is on its way.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How many requests, watches included, one HTTP/2 connection may have open.
const STREAMS: u32 = 1000;

/// A running API server. It ends with [`ApiServer::shutdown`]; dropping it ends it, too, without waiting.
#[derive(Debug)]
pub struct ApiServer {
    state: Arc<State>,
    address: SocketAddr,
    secure: bool,
    tasks: TaskTracker,
    grace: Duration,
}

impl ApiServer {
    /// Starts a server.
    ///
    /// # Errors
    /// When the address cannot be listened on or the certificates cannot be used.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let tls = options.tls.as_ref().map(Tls::new).transpose()?;
        if tls.is_none() && !options.address.ip().is_loopback() {
            return Err(Error::Plain(options.address));
        }
        let bind = |source| Error::Bind { address: options.address, source };
        let listener = TcpListener::bind(options.address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let access = Access::new(&options.tokens, options.permissions);
        let state = Arc::new(State::new(access, options.history, options.bookmark_interval));
        let tasks = TaskTracker::new();
        let secure = tls.is_some();
        let collector = state.clone();
        tasks.spawn(async move { collector.collect().await });
        let acceptor =
            Acceptor { state: state.clone(), tls, tasks: tasks.clone(), grace: options.shutdown_grace };
        tasks.spawn(acceptor.run(listener));
        tracing::info!(%address, "the API server listens");
        Ok(Self { state, address, secure, tasks, grace: options.shutdown_grace })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.address)
    }

    /// Its faults.
    pub fn faults(&self) -> &Faults {
        &self.state.faults
    }

    /// How many requests there were of each kind, without discovery.
    pub fn request_counts(&self) -> BTreeMap<RequestKind, u64> {
        self.state.requests.snapshot()
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.state.read(|store| store.revision())
    }

    /// Forgets all history, as etcd's compaction does: watches and continued lists from before are 410 Gone.
    pub fn compact(&self) {
        self.state.write(|store, _| store.compact());
    }

    /// Everything that is stored now.
    pub fn backup(&self) -> Backup {
        self.state.read(|store| store.backup())
    }

    /// Goes back to an earlier state, as when etcd is restored from a backup: revisions go back, too, and are used
    /// again. Watches end.
    pub fn restore(&self, backup: &Backup) {
        self.state.write(|store, _| store.restore(backup));
    }

    /// Replaces what users outside `system:masters` may do.
    pub fn set_permissions(&self, permissions: Vec<Permission>) {
        self.state.access.set_permissions(permissions);
    }

    /// A service that answers requests as if `identity` had sent them, without a socket. Fit for
    /// `kube::Client::new`.
    pub fn service(&self, identity: Identity) -> LocalService {
        LocalService { state: self.state.clone(), identity }
    }

    /// Ends watches, waits for requests in flight for the grace period, and for all tasks.
    pub async fn shutdown(self) {
        self.state.stop.cancel();
        self.tasks.close();
        // Connections end themselves after the grace period; the second is for tasks that have just been cut off.
        if tokio::time::timeout(self.grace + Duration::from_secs(1), self.tasks.wait()).await.is_err() {
            tracing::warn!("tasks of the API server are still running after its grace period");
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.state.stop.cancel();
    }
}

struct Acceptor {
    state: Arc<State>,
    tls: Option<Tls>,
    tasks: TaskTracker,
    grace: Duration,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        let this = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                biased; // the end goes before new connections
                () = this.state.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let this = this.clone();
                    this.clone().tasks.spawn(async move { this.serve(stream).await });
                }
                Err(error) => {
                    // Most often too many open files: connections have to end before there can be new ones.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(&self, stream: TcpStream) {
        // Watch events are small and must not wait for more.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.speak(stream, None).await };
        let handshake = TlsAcceptor::from(tls.config.clone()).accept(stream);
        let accepted = tokio::select! {
            biased; // the end goes before handshakes
            () = self.state.stop.cancelled() => return,
            accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => accepted,
        };
        match accepted {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let who = tls.identify(shown);
                self.speak(stream, who).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        who: Option<Identity>,
    ) {
        let state = self.state.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            handle(state.clone(), who.clone(), request)
        });
        let mut builder = auto::Builder::new(Owned(self.tasks.clone()));
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased; // requests in flight go on after the end was announced, see below
            ended = connection.as_mut() => ended,
            () = self.state.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(self.grace, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %Chain(&*error), "a connection ended with an error");
        }
    }
}

/// Prints an error with what caused it.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Spawns a connection's streams where the server waits for them.
#[derive(Clone, Debug)]
struct Owned(TaskTracker);

impl<F> hyper::rt::Executor<F> for Owned
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Answers requests in the same process, see [`ApiServer::service`].
#[derive(Clone, Debug)]
pub struct LocalService {
    state: Arc<State>,
    identity: Identity,
}

impl<B> tower_service::Service<Request<B>> for LocalService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Cut;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Cut>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(handle(self.state.clone(), Some(self.identity.clone()), request))
    }
}
