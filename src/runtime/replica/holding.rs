//! Objects that are not held by the finalizer of their kind, and are to be: where that is
//! wished for, the owner of their namespace sets it, so that a deletion is over when
//! gateways have let the object go, and not before.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_k8s::coordination::{ActingPermit, OwnershipView};
use flotilla_k8s::watch::ObjectEvent;
use flotilla_k8s::{Error, finalizers};
use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::reconciles::Finalizers;
use super::retries::Retries;
use super::writes::Writes;

/// Pause between two of them: statuses are more urgent.
const PACE: Duration = Duration::from_millis(10);

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
        let news = match event {
            ObjectEvent::Listed { kind, objects, .. } => {
                known.retain(|(known, _)| known != kind);
                let lacking = objects.iter().filter(|object| !object.held && !object.deleting);
                known.extend(lacking.map(|object| (*kind, object.key.clone())));
                !known.is_empty()
            }
            ObjectEvent::Changed(object) if !object.held && !object.deleting => {
                known.insert((object.kind, object.key.clone()))
            }
            ObjectEvent::Changed(object) => {
                known.remove(&(object.kind, object.key.clone()));
                false
            }
            ObjectEvent::Deleted(kind, key, _) => {
                known.remove(&(*kind, key.clone()));
                false
            }
            ObjectEvent::Bookmark(..) => false,
        };
        if news {
            self.news.notify_one();
        }
    }

    /// Those that this replica acts on.
    fn ours(&self, permit: &ActingPermit) -> Vec<Id> {
        let known = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|(_, key)| permit.may_act(&key.namespace)).cloned().collect()
    }

    /// Sets the finalizers of what this replica acts on, until cancelled.
    pub async fn run(
        self,
        client: Client,
        permit: ActingPermit,
        mut ownership: watch::Receiver<Arc<OwnershipView>>,
        writes: Writes,
        counted: Finalizers,
        cancel: CancellationToken,
    ) {
        let mut again: Retries<Id> = Retries::new();
        loop {
            let next = again.next();
            tokio::select! {
                biased; // ending comes first; the rest leads to the same
                () = cancel.cancelled() => return,
                () = self.news.notified() => {}
                // An error says that coordination has ended: nothing may be acted on.
                Ok(()) = ownership.changed() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            let (looked, ours) = (Instant::now(), self.ours(&permit));
            again.retain(|object| ours.binary_search(object).is_ok());
            for object in ours {
                let (kind, key) = &object;
                if again.waits(&object, looked) {
                    continue;
                }
                let paced = Instant::now() + PACE;
                let may_act = || permit.may_act(&key.namespace);
                let what = format!("hold {kind} {key}");
                let hold = finalizers::hold(&client, *kind, key, may_act);
                let held = tokio::select! {
                    biased; // as above
                    () = cancel.cancelled() => return,
                    held = writes.carry_out(&what, may_act, hold) => held,
                };
                match held {
                    // Not ours at this moment: it is ours later, or stays another's.
                    Ok(None) => {
                        again.failed(object);
                        continue;
                    }
                    // What the watch tells next is true, whatever it is.
                    Ok(Some(set)) => {
                        if set {
                            counted.set(object.0);
                        }
                        again.forget(&object);
                        self.objects.lock().unwrap_or_else(PoisonError::into_inner).remove(&object);
                    }
                    Err(error) => {
                        if !matches!(error, Error::Conflict { .. }) {
                            tracing::warn!(kind = kind.name(), namespace = %key.namespace, name = %key.name,
                                error = %error, "an object does not get its finalizer yet, trying again");
                        }
                        again.failed(object);
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
