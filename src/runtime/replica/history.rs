//! What was deleted before this replica started to read: asked of peers first,
//! which remember the longest, then of the API server's own history.

use flotilla_core::delivery::Tombstone;
use flotilla_core::ids::{Kind, Revision};
use flotilla_grpc::gateway::{DeliveryGone, HistoryWanted};
use flotilla_grpc::peers::Peers;
use flotilla_k8s::watch::replay_deletions;
use futures::stream::{FuturesUnordered, StreamExt as _};
use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Delivery;

/// Answers the delivery task's questions: there is at most one per kind at a time,
/// most after the start and some after a list has overtaken a watch. All at once, as a gateway waits until every kind is known.
pub async fn answer(
    mut questions: mpsc::Receiver<HistoryWanted>,
    client: Client,
    peers: Peers,
    delivery: Delivery,
    cancel: CancellationToken,
) {
    let mut searches = FuturesUnordered::new();
    loop {
        let told = tokio::select! {
            biased; // ending comes first, and nobody needs the answers any more
            () = cancel.cancelled() => return,
            Some((wanted, found)) = searches.next() => tell(&delivery, wanted, found).await,
            wanted = questions.recv(), if searches.len() < Kind::ALL.len() => match wanted {
                Some(wanted) => {
                    searches.push(search(wanted, client.clone(), peers.clone()));
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

/// Deletions, and up to where these are all.
pub(super) type Found = Option<(Revision, Vec<Tombstone>)>;

/// Asks peers, then the API server.
pub(super) async fn search(wanted: HistoryWanted, client: Client, peers: Peers) -> (HistoryWanted, Found) {
    let HistoryWanted { kind, since, until } = wanted;
    let found = match peers.history(kind, since, until).await {
        Some(history) => Some((history.until, history.tombstones)),
        None => replay_deletions(client, kind, since, until).await.map(|found| (until, found)),
    };
    (wanted, found)
}

async fn tell(delivery: &Delivery, wanted: HistoryWanted, found: Found) -> Result<(), DeliveryGone> {
    let HistoryWanted { kind, since, .. } = wanted;
    tracing::info!(kind = kind.name(), %since, deletions = found.as_ref().map(|found| found.1.len()),
        "looked for deletions before the start");
    match found {
        Some((until, tombstones)) => delivery.history(kind, since, until, tombstones).await,
        None => delivery.history_unavailable(kind, since).await,
    }
}
