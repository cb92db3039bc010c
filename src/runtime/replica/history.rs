//! What was deleted before this replica started to read: asked of peers first,
//! which remember the longest, then of the API server's own history.

use flotilla_core::delivery::Tombstone;
use flotilla_core::ids::{Kind, Revision};
use flotilla_grpc::gateway::{DeliveryGone, HistoryWanted};
use flotilla_grpc::peers::Peers;
use flotilla_k8s::watch::replay_deletions;
use futures::stream::{FuturesUnordered, StreamExt as _};
use kube::Client;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Delivery;

/// Answers the delivery task's questions: there is at most one per kind at a time,
/// most after the start and some after a list has overtaken a watch. All at once, as a
/// gateway waits until every kind is known.
pub async fn answer(
    mut questions: mpsc::Receiver<HistoryWanted>,
    searches: Searches,
    delivery: Delivery,
    cancel: CancellationToken,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        let told = tokio::select! {
            biased; // ending comes first, and nobody needs the answers any more
            () = cancel.cancelled() => return,
            Some((wanted, found)) = under_way.next() => tell(&delivery, wanted, found).await,
            wanted = questions.recv(), if under_way.len() < Kind::ALL.len() => match wanted {
                Some(wanted) => {
                    under_way.push(searches.search(wanted));
                    Ok(())
                }
                None => return,
            },
        };
        if told.is_err() {
            return;
        }
    }
}

async fn tell(delivery: &Delivery, wanted: HistoryWanted, found: Found) -> Result<(), DeliveryGone> {
    let HistoryWanted { kind, since, .. } = wanted;
    match found {
        Some((until, tombstones)) => delivery.history(kind, since, until, tombstones).await,
        None => delivery.history_unavailable(kind, since).await,
    }
}

/// Deletions, and up to where these are all.
pub(super) type Found = Option<(Revision, Vec<Tombstone>)>;

/// Why deletions are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    /// A gateway waits for them.
    Gateway,
    /// Gateways of others may need them some time.
    Ahead,
}

/// Looks for deletions.
#[derive(Clone)]
pub(super) struct Searches {
    client: Client,
    peers: Peers,
    need: Need,
    /// By need and by who told.
    counted: IntCounterVec,
}

impl Searches {
    /// Registers the metric. Those made from it by [`Searches::ahead`] share it.
    ///
    /// # Errors
    /// When the name is registered already.
    pub fn new(client: Client, peers: Peers, registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new(
            "flotilla_history_searches_total",
            "Looks for deletions before this replica's lists, by what for and by who told.",
        );
        let counted = IntCounterVec::new(opts, &["need", "told_by"])?;
        registry.register(Box::new(counted.clone()))?;
        Ok(Searches { client, peers, need: Need::Gateway, counted })
    }

    /// The same for what no gateway waits for yet.
    pub fn ahead(&self) -> Self {
        Searches { need: Need::Ahead, ..self.clone() }
    }

    /// Asks peers, then the API server.
    pub fn search(&self, wanted: HistoryWanted) -> impl Future<Output = (HistoryWanted, Found)> + use<> {
        let Searches { client, peers, need, counted } = self.clone();
        async move {
            let HistoryWanted { kind, since, until } = wanted;
            let begun = Instant::now();
            let (told_by, found) = match peers.history(kind, since, until).await {
                Some(history) => ("peers", Some((history.until, history.tombstones))),
                None => match replay_deletions(client, kind, since, until).await {
                    Some(found) => ("api_server", Some((until, found))),
                    None => ("nobody", None),
                },
            };
            let (need, words) = need.words();
            counted.with_label_values(&[need, told_by]).inc();
            let deletions = found.as_ref().map(|found| found.1.len());
            let seconds = begun.elapsed().as_secs_f32();
            tracing::info!(kind = kind.name(), %since, told_by, deletions, seconds, "{words}");
            (wanted, found)
        }
    }
}

impl Need {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Need::Gateway => ("gateway", "looked for deletions before the start"),
            Need::Ahead => ("ahead", "looked for deletions that gateways of others may not have heard of"),
        }
    }
}
