//! Objects that are being deleted and are there yet: something holds them. What the
//! published operator held them with is taken out by the owner of their namespace; they
//! are gone from gateways without it.

use std::collections::{BTreeMap, BTreeSet};
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

/// Pause until something is tried again that failed.
const PAUSE: Duration = Duration::from_secs(10);

/// Those that are to be looked at, of whatever namespace; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Leaving {
    /// No more than there are objects.
    objects: Arc<Mutex<BTreeSet<(Kind, ObjectKey)>>>,
    news: Arc<Notify>,
}

impl Leaving {
    /// Takes note of what a watch tells.
    pub fn tell(&self, event: &ObjectEvent) {
        let mut known = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        let news = match event {
            ObjectEvent::Listed { kind, objects, .. } => {
                known.retain(|(known, _)| known != kind);
                let leaving = objects.iter().filter(|object| object.deleting);
                known.extend(leaving.map(|object| (*kind, object.key.clone())));
                !known.is_empty()
            }
            ObjectEvent::Changed(object) if object.deleting => {
                known.insert((object.kind, object.key.clone()))
            }
            ObjectEvent::Changed(object) if before > 0 => {
                known.remove(&(object.kind, object.key.clone()));
                false
            }
            ObjectEvent::Deleted(kind, key, _) if before > 0 => {
                known.remove(&(*kind, key.clone()));
                false
            }
            ObjectEvent::Changed(_) | ObjectEvent::Deleted(..) | ObjectEvent::Bookmark(..) => false,
        };
        if news {
            self.news.notify_one();
        }
    }

    fn known(&self) -> BTreeSet<(Kind, ObjectKey)> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn done(&self, object: &(Kind, ObjectKey)) {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }

    /// Lets those go that this replica acts on, until cancelled.
    pub async fn run(
        self,
        client: Client,
        permit: ActingPermit,
        mut ownership: watch::Receiver<Arc<OwnershipView>>,
        writes: Arc<Semaphore>,
        cancel: CancellationToken,
    ) {
        // Those that failed, and when they are tried again.
        let mut again: BTreeMap<(Kind, ObjectKey), Instant> = BTreeMap::new();
        loop {
            let next = again.values().min().copied();
            tokio::select! {
                biased; // ending comes first; the rest leads to the same
                () = cancel.cancelled() => return,
                () = self.news.notified() => {}
                // An error says that the Leases are given up: nothing may be acted on.
                Ok(()) = ownership.changed() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            let known = self.known();
            again.retain(|object, _| known.contains(object));
            for object in known {
                if again.get(&object).is_some_and(|at| *at > Instant::now()) {
                    continue;
                }
                let (kind, key) = &object;
                // It is never closed.
                let _under_way = writes.acquire().await;
                if !permit.may_act(&key.namespace) {
                    again.remove(&object);
                    continue;
                }
                let released = tokio::select! {
                    biased; // as above
                    () = cancel.cancelled() => return,
                    released = finalizers::release(&client, *kind, key) => released,
                };
                match released {
                    // Whatever else holds it is others' business.
                    Ok(()) => {
                        again.remove(&object);
                        self.done(&object);
                    }
                    Err(error) => {
                        tracing::warn!(kind = kind.name(), namespace = %key.namespace, name = %key.name,
                            error = %error, "an object cannot go yet, trying again");
                        again.insert(object, Instant::now() + PAUSE);
                    }
                }
            }
        }
    }
}
