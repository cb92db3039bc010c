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
mod pace;
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
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

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

/// Whether this replica may dial a gateway at this moment.
pub type MayDial = Arc<dyn Fn(&Target) -> bool + Send + Sync>;

/// How many gateways are dialled at once: a replica that gets a thousand of them must
/// not spend all its time in handshakes.
const DIALS: usize = 32;

/// What all links share.
struct Context<C: Compiler> {
    config: Arc<PushConfig>,
    delivery: DeliveryHandle<C>,
    metrics: PushMetrics,
    /// Asked before every attempt.
    may_dial: MayDial,
    /// The right to be dialling.
    dials: Arc<Semaphore>,
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
            may_dial: self.may_dial.clone(),
            dials: self.dials.clone(),
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
    /// A task that feeds this delivery task and keeps links to `targets`. `may_dial` is
    /// asked before every attempt; a session that is open stays without. `told` is
    /// cancelled when this replica is told to end.
    pub fn new(
        config: PushConfig,
        delivery: DeliveryHandle<C>,
        targets: watch::Receiver<BTreeSet<Target>>,
        may_dial: MayDial,
        metrics: PushMetrics,
        told: CancellationToken,
    ) -> Self {
        let (config, dials) = (Arc::new(config), Arc::new(Semaphore::new(DIALS)));
        PushTask { context: Context { config, delivery, metrics, may_dial, dials, told }, targets }
    }

    /// Runs until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
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
                Some(ended) = tasks.join_next() => pass_on(ended),
            }
        }
        // With nobody left to change the targets, links go on until the end.
        shutdown.cancelled().await;
        while let Some(ended) = tasks.join_next().await {
            pass_on(ended);
        }
    }
}

/// A link that panicked would leave its gateway undialled in silence: the task ends
/// with it, and the process with the task.
fn pass_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
