//! Hands what the watches tell to the delivery task. Waiting is the back
//! pressure: a busy delivery slows watches down, and the API server keeps the
//! rest.

use flotilla_k8s::watch::ObjectEvent;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Delivery;

/// Runs until cancelled or until one side is gone.
pub async fn run(mut events: mpsc::Receiver<ObjectEvent>, delivery: Delivery, cancel: CancellationToken) {
    loop {
        let event = tokio::select! {
            biased; // ending comes first
            () = cancel.cancelled() => return,
            event = events.recv() => event,
        };
        let told = match event {
            None => return,
            Some(ObjectEvent::Listed { kind, revision, objects }) => {
                delivery.listed(kind, objects, revision).await
            }
            Some(ObjectEvent::Changed(object)) => delivery.changed(object).await,
            Some(ObjectEvent::Deleted(kind, key, revision)) => delivery.deleted(kind, key, revision).await,
            Some(ObjectEvent::Bookmark(kind, revision)) => delivery.bookmark(kind, revision).await,
        };
        if told.is_err() {
            return;
        }
    }
}
