//! Whether the history that this replica reads is still the cluster's.
//!
//! Everything that a replica knows follows from the log. When the log was
//! replaced, because etcd was restored from a backup, nothing that it knows is
//! true any more, so it does not try to sort out what is: it ends, and the one
//! that is started in its place reads everything anew under another name of the
//! history (see `flotilla_k8s::incarnation`). Its gateways go on with what they
//! have, and are then synchronised fully, because their versions carry the name
//! of the history that is no more.

use std::collections::{BTreeSet, VecDeque};

use flotilla_core::breakage::Breakages;
use flotilla_core::delivery::Notice;
use flotilla_core::ids::{Frontier, GatewayId, Kind, Revision};
use flotilla_core::lineage::{LAG, READ_EVERY, READS_PER_WRITE, Verdict};
use flotilla_k8s::Error;
use flotilla_k8s::incarnation::{Incarnation, Incarnations};
use flotilla_k8s::watch::newest;
use kube::Client;
use prometheus::{IntCounter, Registry};
use rand::Rng as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Delivery;

#[cfg(test)]
mod tests;

/// Why the history is to be looked at.
#[derive(Debug)]
pub enum Doubt {
    /// The newest answer about a kind is older than what was seen of it.
    Behind(Kind, Revision),
    /// A gateway's version is ahead of us.
    Ahead(GatewayId, Frontier),
    /// A gateway's version named another history at this time.
    OtherHistory(Instant),
    /// For a while before this nobody had said which history is the cluster's.
    OutOfTouch(Instant),
}

impl Doubt {
    /// The doubt that a notice of delivery gives rise to.
    pub fn of(notice: Notice) -> Option<Doubt> {
        match notice {
            Notice::AheadOfUs { gateway, high } => Some(Doubt::Ahead(gateway, high)),
            Notice::OtherHistory { .. } => Some(Doubt::OtherHistory(Instant::now())),
            Notice::OutOfTouch { .. } => Some(Doubt::OutOfTouch(Instant::now())),
            _ => None,
        }
    }
}

/// Gateways that were ahead of us, one after the other, each with the time at which that
/// would be strange. Nobody else must wait for it.
type Later = VecDeque<(Instant, GatewayId, Frontier)>;

/// A name for a history, or a mark, as random as it must be.
pub fn fresh() -> u32 {
    rand::rng().random()
}

/// The history is not the one any more that this replica was started with, or nobody can
/// tell.
#[derive(Debug, thiserror::Error)]
pub enum Over {
    /// It has another name now.
    #[error(
        "the history of the cluster is {now} and was {before}: etcd was restored, or the Lease \
         flotilla-incarnation was deleted; this replica ends and starts anew, and gateways are synchronised fully"
    )]
    Replaced {
        /// The name that this replica was started with.
        before: String,
        /// The name as of now.
        now: String,
    },
    /// Too much has happened while this replica did not hear of it.
    #[error(
        "this replica did not hear of the Lease flotilla-incarnation for so long that nobody can tell whether the \
         history of the cluster is still {known}; it ends and starts anew"
    )]
    Untold {
        /// The name that this replica was started with.
        known: String,
    },
}

/// Looks after the history. See the module's description.
pub struct Lineage {
    /// For lists.
    pub client: Client,
    /// The Lease.
    pub incarnations: Incarnations,
    /// As of the start, then as last seen.
    pub known: Incarnation,
    /// When it was last asked for by a renewal.
    pub confirmed: Instant,
    /// Where gateways wait.
    pub delivery: Delivery,
    /// What gives reason to look.
    pub doubts: mpsc::Receiver<Doubt>,
    /// Counters.
    pub metrics: Metrics,
    /// Gateways of which it is proven that they are ahead of the log.
    pub ahead: BTreeSet<GatewayId>,
}

/// Metrics of the history.
#[derive(Clone)]
pub struct Metrics {
    stale: IntCounter,
    ahead: IntCounter,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Metrics {
            stale: IntCounter::new(
                "flotilla_stale_reads_total",
                "Reads that should have been the newest and were older than what was seen.",
            )?,
            ahead: IntCounter::new(
                "flotilla_gateways_ahead_of_log_total",
                "Gateways whose version lies beyond the end of the API server's log.",
            )?,
        };
        registry.register(Box::new(metrics.stale.clone()))?;
        registry.register(Box::new(metrics.ahead.clone()))?;
        Ok(metrics)
    }
}

impl Lineage {
    /// Runs until cancelled.
    ///
    /// # Errors
    /// [`Over`] when the history is another one.
    pub async fn run(mut self, cancel: CancellationToken) -> anyhow::Result<()> {
        let mut reads = interval(READ_EVERY);
        reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Replicas that start together do not write together.
        let mut until_write = rand::rng().random_range(1..=READS_PER_WRITE);
        let mut later = Later::new();
        // An error says that there are no gateways any more.
        let _ = self.delivery.confirmed(self.confirmed).await;
        loop {
            let due = later.front().map(|(due, ..)| *due);
            let looked = tokio::select! {
                biased; // ending first; then what gateways wait for; one that is ahead may wait longer
                () = cancel.cancelled() => return Ok(()),
                Some(doubt) = self.doubts.recv() => in_time(self.look_into(doubt, &mut later)).await,
                _ = reads.tick() => {
                    until_write -= 1;
                    if until_write == 0 {
                        until_write = READS_PER_WRITE;
                        in_time(self.confirm(Renewal::Marked)).await.map(drop)
                    } else {
                        in_time(self.read()).await
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => match later.pop_front() {
                    Some((_, gateway, high)) => {
                        let looked = in_time(self.look_into_gateway(&gateway, &high)).await;
                        if matches!(looked, Err(Trouble::Api(_))) && self.serves(&gateway).await {
                            later.push_back((Instant::now() + LAG, gateway, high));
                        }
                        looked
                    }
                    None => Ok(()),
                },
            };
            match looked {
                Ok(()) => {}
                Err(Trouble::Over(over)) => {
                    tracing::error!(why = %over, "this replica's history is over");
                    return Err(over.into());
                }
                Err(Trouble::Api(error)) => {
                    tracing::debug!(error = %error, "the history could not be looked at");
                }
            }
        }
    }

    async fn look_into(&mut self, doubt: Doubt, later: &mut Later) -> Result<(), Trouble> {
        match doubt {
            // One answer is for all who wondered before it was asked for.
            Doubt::OtherHistory(since) | Doubt::OutOfTouch(since) if self.confirmed > since => Ok(()),
            Doubt::OtherHistory(_) | Doubt::OutOfTouch(_) => self.confirm(Renewal::Plain).await.map(drop),
            Doubt::Behind(kind, seen) => {
                let Some((_, at)) = self.ends_before(kind, seen).await? else { return Ok(()) };
                Err(self.begin(&at).await)
            }
            Doubt::Ahead(gateway, high) => {
                later.retain(|(_, other, _)| *other != gateway);
                later.push_back((Instant::now() + LAG, gateway, high));
                Ok(())
            }
        }
    }

    /// A gateway's word is not enough to name the history anew, or any one of
    /// them could disturb all others: it concerns itself. Most of them, and more
    /// than one, are believed: so a restore is noticed that happened while no
    /// replica ran.
    async fn look_into_gateway(&mut self, gateway: &GatewayId, high: &Frontier) -> Result<(), Trouble> {
        let Ok(frontier) = self.delivery.inspect(|engine| engine.frontier()).await else { return Ok(()) };
        for kind in Kind::ALL.into_iter().filter(|kind| frontier.get(*kind) < high.get(*kind)) {
            let asked = Instant::now();
            let Some((newest, at)) = self.ends_before(kind, high.get(kind)).await? else { continue };
            if self.ahead.insert(gateway.clone()) {
                self.metrics.ahead.inc();
                tracing::error!(%gateway, kind = kind.name(), %newest, claimed = %high.get(kind),
                    "a gateway's version lies beyond the end of the log, it is synchronised fully: \
                     was etcd restored while no replica ran?");
            }
            let gateways = self.delivery.inspect(|engine| engine.session_count()).await.unwrap_or_default();
            if self.ahead.len() > 1 && self.ahead.len() * 2 >= gateways {
                return Err(self.begin(&at).await);
            }
            // An error says that there are no gateways any more.
            let _ = self.delivery.beyond_the_log(asked, kind, newest).await;
            return Ok(());
        }
        Ok(())
    }

    async fn serves(&self, gateway: &GatewayId) -> bool {
        let gateway = gateway.clone();
        self.delivery.inspect(move |engine| engine.session_of(&gateway).is_some()).await.unwrap_or_default()
    }

    /// Whether it is proven that the log of a kind ends before a revision: where
    /// it ends, and what the proof found in the Lease.
    async fn ends_before(
        &mut self,
        kind: Kind,
        seen: Revision,
    ) -> Result<Option<(Revision, Incarnation)>, Trouble> {
        let listed = newest(self.client.clone(), kind).await?;
        if listed >= seen {
            return Ok(None);
        }
        let at = self.confirm(Renewal::Plain).await?;
        if at.revision >= seen {
            self.metrics.stale.inc();
            tracing::warn!(kind = kind.name(), %listed, %seen, newest = %at.revision,
                "the API server answers from an old cache; nothing of it is believed");
            return Ok(None);
        }
        Ok(Some((listed, at)))
    }

    /// Reads the Lease, and tells delivery what it says.
    async fn read(&mut self) -> Result<(), Trouble> {
        let asked = Instant::now();
        match self.incarnations.read().await? {
            Some(found) => {
                if self.judge(found).await? {
                    // An error says that there are no gateways any more.
                    let _ = self.delivery.in_touch(asked).await;
                }
                Ok(())
            }
            None => self.confirm(Renewal::Marked).await.map(drop),
        }
    }

    /// Renews the Lease, and finds out whether the log is still the one that was read:
    /// neither the Lease nor its end lies before what was seen of either. Delivery is told.
    async fn confirm(&mut self, renewal: Renewal) -> Result<Incarnation, Trouble> {
        let asked = Instant::now();
        // What is read while the question is under way may lie beyond the answer.
        let read = self.delivery.inspect(|engine| engine.frontier()).await.unwrap_or_default();
        let found = match renewal {
            Renewal::Marked => self.incarnations.confirm(fresh()).await?,
            Renewal::Plain => self.incarnations.renew(fresh()).await?,
        };
        if !self.judge(found.clone()).await? {
            // It has moved on since.
            return Err(Error::Conflict { what: "renew the incarnation's lease".to_owned() }.into());
        }
        for kind in Kind::ALL.into_iter().filter(|kind| found.revision < read.get(*kind)) {
            // To synchronise a gateway with what is proven to be of another log would
            // take it back. Leases may be kept in another etcd, so the kind is asked, too.
            if newest(self.client.clone(), kind).await? < read.get(kind) {
                return Err(self.begin(&found).await);
            }
        }
        self.confirmed = asked;
        // An error says that there are no gateways any more.
        let _ = self.delivery.confirmed(asked).await;
        Ok(found)
    }

    /// Whether a Lease is a later state of the one that was last seen, of the same
    /// history; `false` when this is an old answer.
    async fn judge(&mut self, found: Incarnation) -> Result<bool, Trouble> {
        match self.known.judge(&found, Breakages::default()) {
            Verdict::Same => {
                self.known = found;
                Ok(true)
            }
            Verdict::Renamed => Err(self.replaced_by(found.id)),
            // An old answer, or an old Lease: only of the latter this is the present
            // revision, so that it can be replaced.
            Verdict::WentBack => match self.begin(&found).await {
                Trouble::Api(Error::Conflict { .. }) => Ok(false),
                begun => Err(begun),
            },
            Verdict::Untold => Err(Trouble::Over(Over::Untold { known: self.known.id.clone() })),
        }
    }

    /// Names the history anew, unless the Lease has moved on from `at`.
    async fn begin(&mut self, at: &Incarnation) -> Trouble {
        match self.incarnations.begin(at, &self.known.id, fresh()).await {
            Ok(begun) => self.replaced_by(begun.id),
            Err(error) => Trouble::Api(error),
        }
    }

    fn replaced_by(&self, now: String) -> Trouble {
        Trouble::Over(Over::Replaced { before: self.known.id.clone(), now })
    }
}

/// How the Lease is renewed.
enum Renewal {
    /// Now and then, leaving a mark.
    Marked,
    /// As often as there is reason to.
    Plain,
}

/// A look that is not over by then, so that an answer that never comes holds up nobody
/// else. What it would have begun the next one finds.
async fn in_time<T>(look: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let late = |_| Trouble::Api(Error::timeout("look at the incarnation's lease", READ_EVERY));
    timeout(READ_EVERY, look).await.map_err(late)?
}

/// What a look at the history came to.
enum Trouble {
    /// It is over.
    Over(Over),
    /// It could not be looked at; the next look comes soon.
    Api(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Api(error)
    }
}
