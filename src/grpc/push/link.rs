//! One gateway that is dialled, for as long as this replica is to dial it.
//!
//! States, and who moves them:
//!
//! - *dialling*: connects, makes sure who answers, opens a session → serving; on a
//!   failure → waiting.
//! - *serving*: carries what delivery has for it, probes it now and then. The end
//!   of the session, whoever ended it → waiting.
//! - *waiting*: for a growing, jittered while, and until this replica may dial →
//!   dialling.
//!
//! A gateway that is away costs an attempt every half minute at most, and nothing
//! else: it has no session, so delivery knows nothing of it. A session that is open
//! stays when the right to dial is lost: being cut off from the API server is no reason
//! to leave a gateway. But whoever has lost a gateway to its next owner meanwhile must
//! not take it back.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use flotilla_certs::Role;
use flotilla_core::compile::Compiler;
use flotilla_core::delivery::Ack;
use flotilla_core::ids::{GatewayId, SessionId};
use flotilla_core::policy::Asking;
use flotilla_proto::operator::ConfigurationUpdate;
use flotilla_proto::push::{GetGatewayStatusResponse, UpdateResult};
use http::Uri;
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tracing::{debug, info, warn};

use super::pace::Pace;
use super::session::{Session, UNKNOWN};
use super::{Context, Target};
use crate::dial::{Answering, deepest, secured};
use crate::gateway::{DeliveryGone, PushedUpdates, labels, scope, shorten};
use crate::peers::duration_in;

/// How often a quiet connection is pinged, and how long the answer may take.
const PING: Duration = Duration::from_secs(10);

/// How often it is asked whether this replica may dial by now.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Why there is no session with a gateway, or no more.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("its address is none: {0}")]
    Address(#[from] http::uri::InvalidUri),
    #[error("cannot connect: {}", deepest(.0))]
    Connect(tonic::transport::Error),
    #[error("no connection in {0:?}")]
    Timeout(Duration),
    #[error("the certificate is for gateway {certificate}, and {expected} was to be dialled")]
    Another { certificate: GatewayId, expected: GatewayId },
    #[error("it says that it is {claimed:?}, but its certificate is for gateway {certificate}")]
    Claim { certificate: GatewayId, claimed: String },
    #[error("another replica has opened a session with it")]
    Superseded,
    #[error("a call failed: {0}")]
    Call(Status),
    #[error("this replica ended the session: {0}")]
    Ended(String),
    #[error(transparent)]
    Gone(#[from] DeliveryGone),
}

impl From<Status> for LinkError {
    fn from(status: Status) -> Self {
        if status.code() == Code::Aborted { LinkError::Superseded } else { LinkError::Call(status) }
    }
}

impl LinkError {
    /// As a label.
    fn reason(&self) -> &'static str {
        match self {
            LinkError::Address(_) | LinkError::Connect(_) | LinkError::Timeout(_) => "connect",
            LinkError::Another { .. } | LinkError::Claim { .. } => "identity",
            LinkError::Superseded => "superseded",
            LinkError::Call(_) => "call",
            LinkError::Ended(_) | LinkError::Gone(_) => "delivery",
        }
    }
}

/// See the module.
pub(super) struct Link<C: Compiler> {
    pub context: Context<C>,
    pub target: Target,
    /// Cancelled when this replica is not to dial it any more.
    pub end: CancellationToken,
}

/// One more session, for as long as this lives, however that ends.
struct Counted(IntGauge);

impl Counted {
    fn new(sessions: &IntGauge) -> Self {
        sessions.inc();
        Counted(sessions.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A session that is open.
struct Open {
    session: Session,
    id: SessionId,
    gateway: GatewayId,
    /// When the gateway's certificate ends.
    until: Instant,
    updates: PushedUpdates,
}

/// A gateway that is served.
struct Served {
    open: Open,
    ended: oneshot::Receiver<Status>,
}

impl<C: Compiler> Link<C> {
    /// Dials the gateway again and again until it is told to end.
    pub async fn run(self) {
        let (shortest, longest) = self.context.config.backoff;
        let mut pause = shortest;
        let mut pace = Pace::new(self.context.config.call_timeout);
        while !self.end.is_cancelled() && !self.context.told.is_cancelled() {
            if !(self.context.may_dial)(&self.target) {
                self.wait(ASK_EVERY).await;
                continue;
            }
            let began = Instant::now();
            let error = tokio::select! {
                biased; // what is in flight is given up: the session's successor asks what came of it
                () = self.end.cancelled() => break,
                error = self.serve(&mut pace) => error,
            };
            self.context.metrics.failures.with_label_values(&[error.reason()]).inc();
            // What we ended ourselves, or what lived, shows that the gateway is well.
            if matches!(error, LinkError::Ended(_)) || began.elapsed() > longest {
                pause = shortest;
            }
            warn!(target = %self.target, %error, retry_ms = pause.as_millis(), "no session with a gateway that listens");
            // Replicas that see the same do not dial in step.
            let jitter = rand::random_range(0.5..1.5);
            self.wait(pause.mul_f64(jitter).min(longest)).await;
            pause = (pause * 2).min(longest);
        }
        debug!(target = %self.target, "a gateway is not dialled any more");
    }

    /// Waits, unless there is nothing to wait for any more.
    async fn wait(&self, pause: Duration) {
        tokio::select! {
            () = self.end.cancelled() => {}
            () = self.context.told.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// One session, from dialling to its end.
    async fn serve(&self, pace: &mut Pace) -> LinkError {
        let closing = CancellationToken::new();
        // The semaphore is never closed.
        let dial = self.context.dials.acquire().await;
        let mut served = match self.open(&closing).await {
            Ok(served) => served,
            Err(error) => return error,
        };
        drop(dial);
        let _counted = Counted::new(&self.context.metrics.sessions);
        tokio::select! {
            biased; // an end comes before what waits, and why before that
            ended = &mut served.ended => match ended {
                Ok(status) => LinkError::Ended(status.message().to_owned()),
                Err(_) => LinkError::Gone(DeliveryGone),
            },
            () = closing.cancelled() => LinkError::Ended("its connection is to end".to_owned()),
            error = self.carry(&mut served.open, pace) => error,
        }
    }

    async fn open(&self, closing: &CancellationToken) -> Result<Served, LinkError> {
        let config = &self.context.config;
        let timeout = config.connect_timeout;
        let connected = tokio::time::timeout(timeout, self.connect()).await;
        let (channel, certificate, life) = connected.map_err(|_| LinkError::Timeout(timeout))??;
        let until = Instant::now() + life;
        if let Some(expected) = self.target.gateway.clone().filter(|expected| *expected != certificate) {
            return Err(LinkError::Another { certificate, expected });
        }
        let id = SessionId::from(format!("{}/{}", config.member, uuid::Uuid::new_v4()));
        let metrics = self.context.metrics.clone();
        let (session, status) = Session::open(channel, id.clone(), config.call_timeout, metrics).await?;
        let asking = asking(&certificate, &status)?;
        let version = version(&status);
        info!(gateway = %certificate, session = %id, version, address = self.target.address,
            resources = status.total_resources, "a session is opened with a gateway that listens");
        let delivery = &self.context.delivery;
        let opened = delivery.push_to(id.clone(), asking, version, session.batches(), closing.clone());
        let (updates, ended) = opened.await?;
        Ok(Served { open: Open { session, id, gateway: certificate, until, updates }, ended })
    }

    /// A connection, the gateway that its certificate names, and how long that lasts.
    async fn connect(&self) -> Result<(Channel, GatewayId, Duration), LinkError> {
        let uri: Uri = format!("http://{}", self.target.address).parse()?;
        let endpoint = Endpoint::from(uri)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true);
        let config = &self.context.config;
        let (dial, tls, trust_domain) =
            (config.dial.clone(), config.tls.clone(), config.trust_domain.clone());
        let (found_in, found) = oneshot::channel();
        let once = std::sync::Arc::new(std::sync::Mutex::new(Some(found_in)));
        let connector = tower::service_fn(move |uri: Uri| {
            let (dial, tls, trust_domain, once) =
                (dial.clone(), tls.clone(), trust_domain.clone(), once.clone());
            async move {
                // A channel connects anew by itself, but a session is one of one connection.
                let told = once.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                let told = told.ok_or_else(|| io::Error::other("the session's connection is over"))?;
                let (stream, answering) = secured(&uri, &dial, &tls).await?;
                let identity = &answering.identity;
                if identity.role != Role::Gateway || identity.trust_domain != trust_domain {
                    return Err(io::Error::other(format!("{identity} answers, which is no gateway of ours")));
                }
                // An error says that nobody waits any more.
                let _ = told.send(answering);
                Ok(TokioIo::new(stream))
            }
        });
        let channel = endpoint.connect_with_connector(connector).await.map_err(LinkError::Connect)?;
        // It was sent before the connection was handed out.
        let Answering { identity, life } =
            found.await.map_err(|_| LinkError::Timeout(config.connect_timeout))?;
        let gateway = GatewayId { namespace: identity.namespace, name: identity.name };
        Ok((channel, gateway, life))
    }

    /// Carries batches and probes, until something fails or the gateway's certificate
    /// ends. A call that is under way is waited for: what it changes is known then.
    async fn carry(&self, open: &mut Open, pace: &mut Pace) -> LinkError {
        let every = self.context.config.heartbeat_interval;
        let mut probes = interval_at(Instant::now() + every, every);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                biased; // a gateway that is never without changes is asked how it is all the same
                () = sleep_until(open.until) => {
                    return LinkError::Ended("the gateway's certificate has ended".to_owned());
                }
                _ = probes.tick() => self.probe(open).await,
                batch = open.updates.next() => match batch {
                    Some(Ok(batch)) => self.carry_batch(open, pace, batch.into()).await,
                    Some(Err(status)) => Err(status.into()),
                    None => return LinkError::Gone(DeliveryGone),
                },
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    async fn carry_batch(
        &self,
        open: &mut Open,
        pace: &mut Pace,
        mut batch: VecDeque<ConfigurationUpdate>,
    ) -> Result<(), LinkError> {
        let Open { session, id, gateway, .. } = open;
        let count = batch.len();
        while !batch.is_empty() {
            for (version, result) in session.carry(&mut batch, pace).await? {
                let UpdateResult { success, error_message, apply_duration, .. } = result;
                if !success {
                    debug!(%gateway, version, words = error_message, "a gateway refuses an update");
                }
                let ack = Ack {
                    session: id.clone(),
                    gateway: gateway.clone(),
                    version,
                    result: if success { Ok(()) } else { Err(shorten(error_message)) },
                    apply_duration: duration_in(apply_duration),
                };
                self.context.delivery.answered(ack).await?;
            }
        }
        pace.done(count);
        Ok(())
    }

    async fn probe(&self, open: &mut Open) -> Result<(), LinkError> {
        let status = open.session.probe().await?;
        let sums = status.holds.parse().ok().map(Box::new);
        let (id, gateway) = (open.id.clone(), open.gateway.clone());
        Ok(self.context.delivery.probed(id, gateway, status.last_config_version, sums).await?)
    }
}

/// What the policy is asked about a gateway, if it is the one of the certificate.
fn asking(gateway: &GatewayId, status: &GetGatewayStatusResponse) -> Result<Asking, LinkError> {
    let info = status.gateway.as_ref();
    let claims =
        |text: fn(&flotilla_proto::operator::GatewayInfo) -> &str| info.map(text).unwrap_or_default();
    let (namespace, name) = (claims(|info| &info.namespace), claims(|info| &info.name));
    if *gateway.namespace != *namespace || *gateway.name != *name {
        let claimed = format!("{namespace}/{name}");
        return Err(LinkError::Claim { certificate: gateway.clone(), claimed });
    }
    Ok(Asking {
        gateway: gateway.clone(),
        labels: labels(gateway, info)?,
        anonymous: false,
        scope: scope(&status.namespaces, &status.resource_types)?,
    })
}

/// The version to go on from.
fn version(status: &GetGatewayStatusResponse) -> String {
    // One that has taken nothing and holds something holds what no version names.
    if status.last_config_version.is_empty() && status.total_resources > 0 {
        return UNKNOWN.to_owned();
    }
    status.last_config_version.clone()
}
