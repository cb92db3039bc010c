//! Hands what the watches tell to the webhooks, if any, to whoever lets objects go,
//! and to the delivery task. Waiting is the back pressure: a busy delivery slows watches down, and the
//! API server keeps the rest.

use flotilla_k8s::watch::ObjectEvent;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Delivery;
use super::leaving::Leaving;
use crate::webhook::Known;

/// Runs until cancelled or until one side is gone.
pub async fn run(
    mut events: mpsc::Receiver<ObjectEvent>,
    delivery: Delivery,
    known: Option<Known>,
    leaving: Leaving,
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
        let told = match event {
            ObjectEvent::Listed { kind, revision, objects } => delivery.listed(kind, objects, revision).await,
            ObjectEvent::Changed(object) => delivery.changed(object).await,
            ObjectEvent::Deleted(kind, key, revision) => delivery.deleted(kind, key, revision).await,
            ObjectEvent::Bookmark(kind, revision) => delivery.bookmark(kind, revision).await,
        };
        if told.is_err() {
            return;
        }
    }
}
