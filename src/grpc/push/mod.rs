//! Push mode: gateways that listen are dialled, and what delivery has for them is
//! carried there by calls (`flotilla.gateway.v1`).
//!
//! ```text
//! DeliveryTask ──▶ PushedUpdates ──▶ Link (one per gateway) ──calls──▶ gateway
//!       ▲                              │                                  │
//!       └────── acknowledgements ◀─────┴──────────── answers ◀────────────┘
//! ```
//! The session in `flotilla-core` decides everything, as for streams: versions,
//! batches, limits, what is left out for whom. A link is the other half of a
//! stream: what a gateway that dials in would acknowledge, its answers say.
//! Who dials whom is decided elsewhere; a [`PushTask`] dials what it is told to.

mod link;
mod metrics;
mod session;
mod snapshot;
mod status;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_certs::{ClientTls, Dial};
use flotilla_core::compile::Compiler;
use flotilla_core::ids::MemberName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::DeliveryHandle;
use link::Link;
pub use metrics::PushMetrics;
pub use status::StatusService;
pub use target::{Target, TargetError};

/// Settings of push mode.
#[derive(Debug, Clone)]
pub struct PushConfig {
    /// This replica: sessions are named after it.
    pub member: MemberName,
    /// The fleet that gateways must belong to.
    pub trust_domain: Arc<str>,
    /// Our certificate, and the check that a gateway answers.
    pub tls: ClientTls,
    /// What connections run over.
    pub dial: Dial,
    /// How often a gateway is asked how it is.
    pub heartbeat_interval: Duration,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long one call may take.
    pub call_timeout: Duration,
    /// First and longest pause between attempts.
    pub backoff: (Duration, Duration),
}

impl PushConfig {
    /// The defaults.
    pub fn new(member: MemberName, trust_domain: Arc<str>, tls: ClientTls) -> Self {
        PushConfig {
            member,
            trust_domain,
            tls,
            dial: Dial::tcp(),
            heartbeat_interval: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
        }
    }
}

/// What all links share.
struct Context<C: Compiler> {
    config: Arc<PushConfig>,
    delivery: DeliveryHandle<C>,
    metrics: PushMetrics,
    /// Cancelled when this replica is told to end: sessions go on until they are
    /// ended, but nobody is dialled any more.
    told: CancellationToken,
}

impl<C: Compiler> Clone for Context<C> {
    fn clone(&self) -> Self {
        Context {
            config: self.config.clone(),
            delivery: self.delivery.clone(),
            metrics: self.metrics.clone(),
            told: self.told.clone(),
        }
    }
}

/// Keeps a link to every gateway that it is told to dial.
pub struct PushTask<C: Compiler> {
    context: Context<C>,
    targets: watch::Receiver<BTreeSet<Target>>,
}

impl<C: Compiler + 'static> PushTask<C> {
    /// A task that feeds this delivery task. `told` is cancelled when this replica
    /// is told to end.
    pub fn new(
        config: PushConfig,
        delivery: DeliveryHandle<C>,
        targets: watch::Receiver<BTreeSet<Target>>,
        metrics: PushMetrics,
        told: CancellationToken,
    ) -> Self {
        PushTask { context: Context { config: Arc::new(config), delivery, metrics, told }, targets }
    }

    /// Runs until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        // Gateways being dialled, with the token that ends it.
        let mut links: BTreeMap<Target, CancellationToken> = BTreeMap::new();
        loop {
            let wanted = self.targets.borrow_and_update().clone();
            links.retain(|target, end| {
                let keep = wanted.contains(target);
                if !keep {
                    end.cancel();
                }
                keep
            });
            for target in &wanted {
                links.entry(target.clone()).or_insert_with(|| {
                    let end = shutdown.child_token();
                    let link =
                        Link { context: self.context.clone(), target: target.clone(), end: end.clone() };
                    tasks.spawn(link.run());
                    end
                });
            }
            self.context.metrics.targets.set(i64::try_from(links.len()).unwrap_or(i64::MAX));
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = self.targets.changed() => if changed.is_err() { break },
            }
        }
        // With nobody left to change the targets, links go on until the end.
        shutdown.cancelled().await;
        tasks.close();
        tasks.wait().await;
    }
}
