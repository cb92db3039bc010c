//! The proxy between one replica and its API server. It has a port and a
//! certificate of its own, so the replica is known by the port at which it
//! comes, and it goes upstream with the credentials that it was given.
//!
//! Every request and every event of a watch is put before the [`Stage`], which
//! all proxies of a run share; what the stage decides is carried out here.

mod answer;
mod request;
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flotilla_certs::{Alpn, Authority, ClientAuth, ServerTls};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch as signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::stage::Stage;
use crate::tape::Incarnation;

/// How long a replica may take for the TLS handshake or the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many deaths can be waiting to be heard of: more than a run causes.
const DEATHS: usize = 64;

/// A process that can be killed at the moment that a plan names.
#[derive(Debug, Clone, Copy, Default)]
struct Victim {
    /// `None` while it does not run.
    process: Option<Pid>,
    starts: u32,
}

/// What all proxies of a run share.
pub struct Theatre {
    stage: Mutex<Stage>,
    victims: Mutex<Vec<Victim>>,
    /// Tells of replicas that were killed. When it is full, nobody listens any
    /// more, and the run is over.
    killed: mpsc::Sender<usize>,
    /// Moves when every connection is to break.
    cuts: signal::Sender<u64>,
    /// The beginning of the run.
    origin: Instant,
}

impl Theatre {
    /// A theatre for so many replicas, and the deaths in it.
    pub fn new(stage: Stage, replicas: usize) -> (Arc<Theatre>, mpsc::Receiver<usize>) {
        let (killed, deaths) = mpsc::channel(DEATHS);
        let theatre = Theatre {
            stage: Mutex::new(stage),
            victims: Mutex::new(vec![Victim::default(); replicas]),
            killed,
            cuts: signal::Sender::new(0),
            origin: Instant::now(),
        };
        (Arc::new(theatre), deaths)
    }

    /// The stage, for as long as nothing is waited for.
    pub fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the beginning of the run.
    pub fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// A replica runs, as this process.
    pub fn started(&self, replica: usize, process: u32) {
        let victim = &mut self.victims()[replica];
        victim.process = i32::try_from(process).ok().map(Pid::from_raw);
        victim.starts += 1;
    }

    /// Whether a replica was started and nothing here has ended it.
    pub fn runs(&self, replica: usize) -> bool {
        self.victims()[replica].process.is_some()
    }

    /// A replica is ended by others, and not to be killed any more; returns whether it
    /// had not been killed before.
    pub fn ended(&self, replica: usize) -> bool {
        self.victims()[replica].process.take().is_some()
    }

    fn victims(&self) -> MutexGuard<'_, Vec<Victim>> {
        self.victims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn incarnation(&self, replica: usize) -> Incarnation {
        Incarnation { replica, starts: self.victims()[replica].starts.saturating_sub(1) }
    }

    /// SIGKILL, at once. Its process is not waited for before it is heard of,
    /// so the number cannot have been given to another one.
    fn kill(&self, replica: usize) {
        let Some(process) = self.victims()[replica].process.take() else { return };
        if let Err(error) = kill(process, Signal::SIGKILL) {
            tracing::warn!(replica, %error, "the replica was not killed");
        }
        if self.killed.try_send(replica).is_err() {
            tracing::warn!(replica, "nobody hears of this death");
        }
    }

    fn kill_all(&self) {
        let count = self.victims().len();
        (0..count).for_each(|replica| self.kill(replica));
    }

    /// Lets the stage decide, and breaks all connections if that is what comes
    /// of it.
    fn decide<T>(&self, decide: impl FnOnce(&mut Stage, Instant) -> T) -> T {
        let now = Instant::now();
        let mut stage = self.stage();
        let before = stage.away(now).is_some();
        let decided = decide(&mut stage, now);
        let gone = !before && stage.away(now).is_some();
        drop(stage);
        if gone {
            self.cuts.send_modify(|cuts| *cuts += 1);
        }
        decided
    }
}

/// What a proxy's connections work with.
struct Line {
    replica: usize,
    theatre: Arc<Theatre>,
    upstream: Client,
    token: String,
}

/// A running proxy. Dropping it breaks its connections.
pub struct Proxy {
    kubeconfig: PathBuf,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Proxy {
    /// Starts the proxy of the replica of this number, which goes on to
    /// `upstream`, and writes the replica's kubeconfig to `folder`.
    ///
    /// # Errors
    /// When there is no port, no certificate, or no file.
    pub async fn start(
        replica: usize,
        theatre: Arc<Theatre>,
        upstream: Client,
        folder: &Path,
    ) -> anyhow::Result<Proxy> {
        let now = SystemTime::now();
        let authority = Authority::generate("flotilla-fault-proxy", now)?;
        let loopback = Ipv4Addr::LOCALHOST;
        let serving =
            authority.issue_server("flotilla-fault-proxy", &["localhost"], &[IpAddr::V4(loopback)], now)?;
        let tls = ServerTls::new(&serving, authority.roots(), ClientAuth::Optional, Alpn::Http1)?;
        let listener = TcpListener::bind((loopback, 0)).await.context("a port for the fault proxy")?;
        let address = listener.local_addr()?;
        // Behind it are an administrator's rights, so not every process of
        // this machine is let through.
        let token = format!("{:032x}", rand::random::<u128>());
        let kubeconfig = folder.join(format!("proxy-{replica}.kubeconfig"));
        write(&kubeconfig, address, authority.roots().pem(), &token).await?;
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let line = Arc::new(Line { replica, theatre, upstream, token });
        tasks.spawn(accept(line, listener, tls, tasks.clone(), cancel.clone()));
        Ok(Proxy { kubeconfig, cancel, tasks })
    }

    /// The kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Breaks its connections and waits for its tasks.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn write(file: &Path, address: SocketAddr, ca: &str, token: &str) -> anyhow::Result<()> {
    let cluster = json!({
        "server": format!("https://{address}"),
        "certificate-authority-data": BASE64_STANDARD.encode(ca),
    });
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "proxy",
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "replica"}}],
        "clusters": [{"name": "proxy", "cluster": cluster}],
        "users": [{"name": "replica", "user": {"token": token}}],
    });
    tokio::fs::write(file, text.to_string()).await.with_context(|| format!("{}", file.display()))
}

async fn accept(
    line: Arc<Line>,
    listener: TcpListener,
    tls: ServerTls,
    tasks: TaskTracker,
    cancel: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased; // the end goes before new connections
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the fault proxy cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Where nothing answers, nothing takes connections either.
        if line.theatre.stage().away(Instant::now()).is_some() {
            continue;
        }
        let (line, tls, cancel) = (line.clone(), tls.clone(), cancel.clone());
        tasks.spawn(async move {
            let mut cuts = line.theatre.cuts.subscribe();
            // Whichever ends it: nothing is kept of a connection.
            tokio::select! {
                () = cancel.cancelled() => {}
                _ = cuts.changed() => {}
                () = serve(line, stream, tls) => {}
            }
        });
    }
}

/// Serves one connection to its end.
async fn serve(line: Arc<Line>, stream: TcpStream, tls: ServerTls) {
    // Events are small and must not wait for more.
    let _ = stream.set_nodelay(true);
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, handshake).await else { return };
    let service = service_fn(move |request| request::handle(line.clone(), request));
    // HTTP/1 only: there a broken answer is a broken connection.
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of the fault proxy ended");
    }
}
