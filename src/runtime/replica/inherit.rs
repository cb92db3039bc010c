//! What peers' gateways may have to be told if they come here, asked for while nobody waits
//! for it ([`flotilla_core::inheritance`]). Else it would be asked for when they come
//! ([`super::history`]), and take the API server a second and more, as a peer that has
//! seen none of a kind for a while cannot prove that there was none. When a peer dies, all
//! that it served wait for that.

use flotilla_core::inheritance::{Applied, Inheritance};
use flotilla_grpc::gateway::{DeliveryGone, DeliveryView, HistoryWanted};
use flotilla_grpc::peers::Peers;
use futures::stream::{FuturesUnordered, StreamExt as _};
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Delivery;
use super::history::search;

/// For how long after the first lists: later there is no gateway any more that has not
/// heard of what was deleted before them.
const INHERITS: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks until it is too late, and waits for its end then.
pub async fn run(
    applied: watch::Receiver<Applied>,
    view: watch::Receiver<DeliveryView>,
    sources: (Client, Peers),
    delivery: Delivery,
    cancel: CancellationToken,
) {
    tokio::select! {
        () = cancel.cancelled() => {}
        _ = inherit(applied, view, sources, delivery) => cancel.cancelled().await,
    }
}

async fn inherit(
    mut applied: watch::Receiver<Applied>,
    mut view: watch::Receiver<DeliveryView>,
    (client, peers): (Client, Peers),
    delivery: Delivery,
) -> Result<(), DeliveryGone> {
    let Ok(listed) = view.wait_for(|view| view.ready).await.map(|view| view.frontier) else {
        return Ok(());
    };
    let mut inheritance = Inheritance::of(listed);
    let until = Instant::now() + INHERITS;
    loop {
        let wanted = inheritance.wanted(&applied.borrow_and_update());
        let mut searches: FuturesUnordered<_> = wanted
            .into_iter()
            .map(|(kind, since)| {
                let until = view.borrow().frontier.get(kind);
                search(HistoryWanted { kind, since, until }, client.clone(), peers.clone())
            })
            .collect();
        while let Some((HistoryWanted { kind, since, .. }, found)) = searches.next().await {
            tracing::info!(kind = kind.name(), %since, deletions = found.as_ref().map(|found| found.1.len()),
                "looked for deletions that gateways of others may not have heard of");
            if let Some((until, tombstones)) = found {
                delivery.history(kind, since, until, tombstones).await?;
            }
        }
        sleep(PAUSE).await;
        if !matches!(timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
            return Ok(());
        }
    }
}
