//! The gateway's side of the stream protocol (wire §2).
//!
//! States, and who moves them ([`Phase`] shows them):
//!
//! - *starting*: registering until it succeeds → streaming.
//! - *streaming*: takes updates one at a time and acknowledges each before it
//!   looks at the next. A clean end or any status but CANCELED → reconnecting;
//!   CANCELED, or a reset with that code → zombie.
//! - *reconnecting*: waits and registers anew, on a new connection, until it
//!   succeeds → streaming.
//! - *zombie*: for ever. Heartbeats go on as if nothing had happened.

use std::error::Error as _;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_core::digest::HOLDS;
use flotilla_proto::operator as proto;
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::connect::{Dialer, OperatorClient};
use crate::gateway::{Gateway, Phase};
use crate::state::{Outcome, Snapshot, Update};

/// The published gateway's deadline for a registration.
const REGISTER_DEADLINE: Duration = Duration::from_secs(10);

/// The heartbeat interval if the controller names none.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(30);

/// The task of one gateway.
#[derive(Debug)]
pub(crate) struct Client {
    gateway: Arc<Gateway>,
    dialer: Dialer,
    /// Replaced by every registration; heartbeats and acknowledgements use
    /// what is there when they begin.
    session: Mutex<Option<Session>>,
    /// Whether to heartbeat: from a registration on, until the stream is lost
    /// or the controller says `should_reconnect`.
    heartbeating: AtomicBool,
}

#[derive(Debug, Clone)]
struct Session {
    id: String,
    client: OperatorClient,
}

/// How a stream ended.
#[derive(Debug)]
enum StreamEnd {
    /// The gateway registers again.
    Lost(String),
    /// The gateway believes that it ended the stream itself.
    Canceled(String),
}

/// Why a registration failed.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error("the controller did not answer the registration within 10 s")]
    Deadline,
    #[error("registration failed: {0}")]
    Status(String),
    #[error("the controller rejected the registration: {0}")]
    Rejected(String),
}

impl Client {
    pub(crate) fn new(gateway: Arc<Gateway>) -> Self {
        let dialer = Dialer::new(gateway.clone());
        Client { gateway, dialer, session: Mutex::new(None), heartbeating: AtomicBool::new(false) }
    }

    /// Lives until it is cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.live() => {}
        }
    }

    async fn live(&self) {
        let interval = self.register_until_it_succeeds(Backoff::new(self.scale()), Duration::ZERO).await;
        tokio::join!(self.stream_for_ever(), self.heartbeat_for_ever(interval));
    }

    /// Waits first, then registers, then again. Returns the heartbeat interval
    /// that the answer names.
    async fn register_until_it_succeeds(&self, mut backoff: Backoff, first_wait: Duration) -> Duration {
        let mut wait = first_wait;
        loop {
            tokio::time::sleep(wait).await;
            match self.register().await {
                Ok(interval) => return interval,
                Err(error) => {
                    wait = backoff.next();
                    warn!(gateway = %self.gateway.id(), %error, retry_ms = wait.as_millis(), "not registered");
                    self.gateway.set_phase(self.gateway.link().phase, Some(error.to_string()));
                }
            }
        }
    }

    async fn register(&self) -> Result<Duration, RegisterError> {
        let mut client = self.dialer.client();
        let request = proto::RegisterGatewayRequest {
            gateway: Some(self.gateway.info()),
            capabilities: Some(proto::GatewayCapabilities {
                http_routes: true,
                grpc_routes: true,
                ..proto::GatewayCapabilities::default()
            }),
        };
        let mut request = tonic::Request::new(request);
        request.set_timeout(REGISTER_DEADLINE);
        let answer = tokio::time::timeout(REGISTER_DEADLINE, client.register_gateway(request))
            .await
            .map_err(|_| RegisterError::Deadline)?
            .map_err(|status| RegisterError::Status(describe(&status)))?
            .into_inner();
        if !answer.success {
            return Err(RegisterError::Rejected(answer.error_message));
        }
        info!(gateway = %self.gateway.id(), session = answer.session_id, "registered");
        self.gateway.registered(&answer.session_id, answer.initial_config.map(Snapshot::from));
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Session { id: answer.session_id, client });
        self.heartbeating.store(true, Ordering::Relaxed);
        let interval = answer.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
        Ok(interval.filter(|interval| !interval.is_zero()).unwrap_or(DEFAULT_HEARTBEAT))
    }

    async fn stream_for_ever(&self) {
        loop {
            match self.stream().await {
                StreamEnd::Lost(reason) => {
                    info!(gateway = %self.gateway.id(), reason, "stream lost");
                    self.heartbeating.store(false, Ordering::Relaxed);
                    self.gateway.set_phase(Phase::Reconnecting, Some(reason));
                    self.gateway.count(|stats| stats.reconnects += 1);
                    let mut backoff = Backoff::new(self.scale());
                    let first_wait = backoff.next();
                    // The interval of the first registration stays in force.
                    self.register_until_it_succeeds(backoff, first_wait).await;
                }
                StreamEnd::Canceled(reason) => {
                    warn!(gateway = %self.gateway.id(), reason, "stream cancelled: no updates until a restart");
                    self.gateway.set_phase(Phase::Zombie, Some(reason));
                    pending::<()>().await;
                }
            }
        }
    }

    /// One stream from its opening to its end.
    async fn stream(&self) -> StreamEnd {
        let Some(Session { id, mut client }) = self.session() else {
            return StreamEnd::Lost("there is no session".to_owned());
        };
        let request = proto::StreamConfigurationRequest {
            session_id: id,
            gateway: Some(self.gateway.info()),
            last_config_version: self.gateway.version().to_string(),
            namespaces: self.gateway.options().namespaces.clone(),
            resource_types: Vec::new(),
        };
        let mut updates = match client.stream_configuration(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return StreamEnd::of(&status),
        };
        self.gateway.set_phase(Phase::Streaming, None);
        loop {
            match updates.message().await {
                Ok(Some(update)) => self.take(update).await,
                Ok(None) => return StreamEnd::Lost("the controller ended the stream".to_owned()),
                Err(status) => return StreamEnd::of(&status),
            }
        }
    }

    /// Applies one update and acknowledges it.
    async fn take(&self, message: proto::ConfigurationUpdate) {
        let started = Instant::now();
        // Five bytes of framing come with every message.
        let bytes = message.encoded_len() as u64 + 5;
        let version = message.version.clone();
        let taken = self.gateway.apply(Update::from(message), bytes);
        if !taken.cost.is_zero() {
            tokio::time::sleep(taken.cost).await;
        }
        let error_message = match taken.outcome {
            Outcome::Ack => String::new(),
            Outcome::Nack(message) => {
                warn!(gateway = %self.gateway.id(), version, error = message, "update rejected");
                message
            }
            Outcome::Skipped => {
                debug!(gateway = %self.gateway.id(), version, "update skipped: its sequence is old");
                return;
            }
        };
        let Some(Session { id, mut client }) = self.session() else { return };
        let acknowledgement = proto::AcknowledgeConfigurationRequest {
            session_id: id,
            gateway: Some(self.gateway.short_info()),
            config_version: version,
            success: error_message.is_empty(),
            error_message,
            apply_duration: started.elapsed().try_into().ok(),
        };
        // Without a deadline, as the published gateway does it.
        if let Err(status) = client.acknowledge_configuration(acknowledgement).await {
            warn!(gateway = %self.gateway.id(), error = describe(&status), "acknowledgement not delivered");
            self.gateway.count(|stats| stats.ack_failures += 1);
        }
    }

    async fn heartbeat_for_ever(&self, interval: Duration) {
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.heartbeating.load(Ordering::Relaxed) {
                self.heartbeat().await;
            }
        }
    }

    async fn heartbeat(&self) {
        let Some(Session { id, mut client }) = self.session() else { return };
        let (version, sums) = self.gateway.holds();
        let annotations = [(HOLDS.to_owned(), sums.to_string())].into();
        let request = proto::HeartbeatRequest {
            session_id: id,
            gateway: Some(proto::GatewayInfo { annotations, ..self.gateway.short_info() }),
            status: Some(self.gateway.health()),
            last_applied_version: version.to_string(),
        };
        match client.heartbeat(request).await {
            Ok(answer) => {
                self.gateway.count(|stats| stats.heartbeats += 1);
                if answer.into_inner().should_reconnect {
                    // All that the published gateway makes of it.
                    self.heartbeating.store(false, Ordering::Relaxed);
                }
            }
            Err(status) => {
                warn!(gateway = %self.gateway.id(), error = describe(&status), "heartbeat failed");
                self.gateway.count(|stats| stats.heartbeat_failures += 1);
            }
        }
    }

    fn session(&self) -> Option<Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn scale(&self) -> f64 {
        self.gateway.options().backoff_scale
    }
}

impl StreamEnd {
    fn of(status: &Status) -> Self {
        let reason = describe(status);
        if status.code() == Code::Cancelled && !cancelled_locally(status) {
            StreamEnd::Canceled(reason)
        } else {
            StreamEnd::Lost(reason)
        }
    }
}

/// Whether it was our HTTP stack that gave the call up, because its connection
/// went away. The published gateway's stack calls that UNAVAILABLE.
fn cancelled_locally(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        source = error.source();
    }
    false
}

/// Code, message and the innermost cause of a status.
fn describe(status: &Status) -> String {
    let mut innermost = None;
    let mut source = status.source();
    while let Some(error) = source {
        innermost = Some(error.to_string());
        source = error.source();
    }
    match innermost {
        Some(cause) if cause != status.message() => {
            format!("{:?}: {}: {cause}", status.code(), status.message())
        }
        _ => format!("{:?}: {}", status.code(), status.message()),
    }
}
