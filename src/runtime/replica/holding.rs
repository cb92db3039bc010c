//! Objects that are not held by the finalizer of their kind, and are to be: where that is
//! wished for, the owner of their namespace sets it, so that a deletion is over when
//! gateways have let the object go, and not before.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_k8s::coordination::{ActingPermit, OwnershipView};
use flotilla_k8s::finalizers;
use flotilla_k8s::watch::ObjectEvent;
use kube::Client;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Pause between two of them: statuses are more urgent.
const PACE: Duration = Duration::from_millis(10);
/// Pause until those are tried again that failed.
const PAUSE: Duration = Duration::from_secs(5);

type Id = (Kind, ObjectKey);

/// Those that lack it, of whatever namespace; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Holding {
    /// No more than there are objects.
    objects: Arc<Mutex<BTreeSet<Id>>>,
    news: Arc<Notify>,
}

impl Holding {
    /// Takes note of what a watch tells.
    pub fn tell(&self, event: &ObjectEvent) {
        let mut known = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ObjectEvent::Listed { kind, objects, .. } => {
                known.retain(|(known, _)| known != kind);
                let lacking = objects.iter().filter(|object| !object.held && !object.deleting);
                known.extend(lacking.map(|object| (*kind, object.key.clone())));
            }
            ObjectEvent::Changed(object) if !object.held && !object.deleting => {
                known.insert((object.kind, object.key.clone()));
            }
            ObjectEvent::Changed(object) => {
                known.remove(&(object.kind, object.key.clone()));
            }
            ObjectEvent::Deleted(kind, key, _) => {
                known.remove(&(*kind, key.clone()));
            }
            ObjectEvent::Bookmark(..) => {}
        }
        if !known.is_empty() {
            self.news.notify_one();
        }
    }

    fn known(&self) -> BTreeSet<Id> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the finalizers of what this replica acts on, until cancelled.
    pub async fn run(
        self,
        client: Client,
        permit: ActingPermit,
        mut ownership: watch::Receiver<Arc<OwnershipView>>,
        writes: Arc<Semaphore>,
        cancel: CancellationToken,
    ) {
        let mut failed_at: Option<Instant> = None;
        loop {
            let next = failed_at.map(|at| at + PAUSE);
            tokio::select! {
                biased; // ending comes first; the rest leads to the same
                () = cancel.cancelled() => return,
                () = self.news.notified() => {}
                // An error says that the Leases are given up: nothing may be acted on.
                Ok(()) = ownership.changed() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            if next.is_some_and(|at| at > Instant::now()) {
                continue;
            }
            failed_at = None;
            for object in self.known() {
                let (kind, key) = &object;
                if !permit.may_act(&key.namespace) {
                    continue;
                }
                let paced = Instant::now() + PACE;
                // It is never closed.
                let under_way = writes.acquire().await;
                if !permit.may_act(&key.namespace) {
                    continue;
                }
                let held = tokio::select! {
                    biased; // as above
                    () = cancel.cancelled() => return,
                    held = finalizers::hold(&client, *kind, key) => held,
                };
                drop(under_way);
                match held {
                    // What the watch tells next is true, whatever it is.
                    Ok(()) => {
                        self.objects.lock().unwrap_or_else(PoisonError::into_inner).remove(&object);
                    }
                    Err(error) => {
                        tracing::warn!(kind = kind.name(), namespace = %key.namespace, name = %key.name,
                            error = %error, "an object does not get its finalizer yet, trying again");
                        failed_at = Some(Instant::now());
                    }
                }
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = sleep_until(paced) => {}
                }
            }
        }
    }
}
