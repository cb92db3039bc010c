//! What peers' gateways may have to be told if they come here, asked for while nobody waits
//! for it ([`flotilla_core::inheritance`]). Else it would be asked for when they come
//! ([`super::history`]), and take the API server a second and more, as a peer that has
//! seen none of a kind for a while cannot prove that there was none. When a peer dies, all
//! that it served wait for that.

use flotilla_core::ids::Frontier;
use flotilla_core::inheritance::Inheritance;
use flotilla_grpc::gateway::{DeliveryGone, DeliveryView, HistoryWanted};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Delivery;
use super::history::Searches;

/// For how long after the first lists: gateways that are served know by then what was
/// deleted before them, but for a few that are asked for when they come.
const INHERITS: Duration = Duration::from_secs(60);

/// Asks until it is too late, and waits for its end then. `places`: where gateways of
/// peers are, as their tables tell.
pub async fn run(
    places: mpsc::Receiver<Vec<Frontier>>,
    view: watch::Receiver<DeliveryView>,
    searches: Searches,
    delivery: Delivery,
    cancel: CancellationToken,
) {
    tokio::select! {
        () = cancel.cancelled() => {}
        _ = inherit(places, view, searches, delivery) => cancel.cancelled().await,
    }
}

async fn inherit(
    mut places: mpsc::Receiver<Vec<Frontier>>,
    mut view: watch::Receiver<DeliveryView>,
    searches: Searches,
    delivery: Delivery,
) -> Result<(), DeliveryGone> {
    let mut inheritance = Inheritance::default();
    let listed = loop {
        tokio::select! {
            ready = view.wait_for(|view| view.ready) => match ready {
                Ok(view) => break view.frontier,
                Err(_) => return Err(DeliveryGone),
            },
            Some(told) = places.recv() => inheritance.hear(told),
        }
    };
    inheritance.listed(listed);
    let end = Instant::now() + INHERITS;
    let mut under_way = FuturesUnordered::new();
    loop {
        for (kind, since) in inheritance.wanted() {
            let until = view.borrow().frontier.get(kind);
            under_way.push(searches.search(HistoryWanted { kind, since, until }));
        }
        tokio::select! {
            () = sleep_until(end) => return Ok(()),
            Some((HistoryWanted { kind, since, .. }, found)) = under_way.next() => {
                inheritance.answered(kind, since, found.is_some());
                if let Some((until, tombstones)) = found {
                    delivery.history(kind, since, until, tombstones).await?;
                }
            }
            told = places.recv() => match told {
                Some(told) => inheritance.hear(told),
                None => return Ok(()),
            },
        }
    }
}
