//! What was deleted before this replica started to read: asked of peers first,
//! which remember the longest, then of the API server's own history.

use flotilla_grpc::gateway::HistoryWanted;
use flotilla_grpc::peers::Peers;
use flotilla_k8s::watch::replay_deletions;
use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Delivery;

/// Answers the delivery task's questions, one at a time: there is at most one
/// per kind, right after the start.
pub async fn answer(
    mut questions: mpsc::Receiver<HistoryWanted>,
    client: Client,
    peers: Peers,
    delivery: Delivery,
    cancel: CancellationToken,
) {
    loop {
        let wanted = tokio::select! {
            biased; // ending comes first
            () = cancel.cancelled() => return,
            wanted = questions.recv() => wanted,
        };
        let Some(HistoryWanted { kind, since, until }) = wanted else { return };
        let search = async {
            match peers.history(kind, since).await.filter(|history| history.until >= until) {
                Some(history) => Some((history.until, history.tombstones)),
                None => {
                    replay_deletions(client.clone(), kind, since, until).await.map(|found| (until, found))
                }
            }
        };
        let found = tokio::select! {
            biased; // nobody needs the answer any more
            () = cancel.cancelled() => return,
            found = search => found,
        };
        tracing::info!(kind = kind.name(), %since, deletions = found.as_ref().map(|found| found.1.len()),
            "looked for deletions before the start");
        let told = match found {
            Some((until, tombstones)) => delivery.history(kind, since, until, tombstones).await,
            None => delivery.history_unavailable(kind, since).await,
        };
        if told.is_err() {
            return;
        }
    }
}
