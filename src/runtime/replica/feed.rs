//! Hands what the watches tell to the webhooks, if any, to whoever holds objects and lets them go,
//! and to the delivery task. Waiting is the back pressure: a busy delivery slows
//! watches down, and the API server keeps the rest.

use flotilla_core::ids::{Kind, Revision};
use flotilla_k8s::watch::ObjectEvent;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Delivery;
use super::holding::Holding;
use super::leaving::Leaving;
use super::lineage::Doubt;
use crate::webhook::Known;

/// Runs until cancelled or until one side is gone.
pub async fn run(
    mut events: mpsc::Receiver<ObjectEvent>,
    delivery: Delivery,
    known: Option<Known>,
    (leaving, holding): (Leaving, Option<Holding>),
    doubts: mpsc::Sender<Doubt>,
    cancel: CancellationToken,
) {
    loop {
        let event = tokio::select! {
            biased; // ending comes first
            () = cancel.cancelled() => return,
            event = events.recv() => event,
        };
        let Some(event) = event else { return };
        if let Some(known) = &known {
            known.tell(&event);
        }
        leaving.tell(&event);
        if let Some(holding) = &holding {
            holding.tell(&event);
        }
        let told = match event {
            ObjectEvent::Listed { kind, revision, objects } => {
                let told = delivery.listed(kind, objects, revision).await;
                look_back(&delivery, &doubts, kind, revision).await;
                told
            }
            ObjectEvent::Changed(object) => delivery.changed(object).await,
            ObjectEvent::Deleted(kind, key, revision) => delivery.deleted(kind, key, revision).await,
            ObjectEvent::Bookmark(kind, revision) => delivery.bookmark(kind, revision).await,
        };
        if told.is_err() {
            return;
        }
    }
}

/// All kinds are in one log. A list that ends before what was read of another kind is
/// an old answer, or the log was replaced in between: then what is known is a mixture
/// of two.
async fn look_back(delivery: &Delivery, doubts: &mpsc::Sender<Doubt>, kind: Kind, listed: Revision) {
    let Ok(frontier) = delivery.inspect(|engine| engine.frontier()).await else { return };
    let read = Kind::ALL.into_iter().map(|kind| frontier.get(kind)).max();
    if let Some(read) = read.filter(|read| listed < *read) {
        // What finds no room comes up again with the next list or gateway.
        let _ = doubts.try_send(Doubt::Behind(kind, read));
    }
}
