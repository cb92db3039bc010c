//! Hands what the one watch of Services tells to all who look names up among them: the
//! webhooks, and what makes routes of Ingresses, where these are switched on.

use flotilla_k8s::ingress::Observed;
use flotilla_k8s::services::{KnownService, Seen};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::webhook::Known;

/// Runs until cancelled. Waiting is the back pressure: who makes routes and is busy slows
/// the watch down, and the API server keeps the rest.
pub async fn run(
    mut seen: mpsc::Receiver<Seen<KnownService>>,
    known: Option<Known>,
    ingresses: Option<mpsc::Sender<Observed>>,
    cancel: CancellationToken,
) {
    let telling = async {
        while let Some(seen) = seen.recv().await {
            if let Some(known) = &known {
                known.tell_services(&seen);
            }
            if let Some(ingresses) = &ingresses
                && ingresses.send(Observed::Service(seen)).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        biased; // cancellation ends it at once
        () = cancel.cancelled() => {}
        // One side is gone, as everything soon is.
        () = telling => cancel.cancelled().await,
    }
}
