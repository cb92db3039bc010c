//! Objects that are being deleted and are there yet: something holds them. What the
//! published operator held them with is taken out by the owner of their namespace; they
//! are gone from gateways without it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_k8s::coordination::{ActingPermit, OwnershipView};
use flotilla_k8s::event::Telling;
use flotilla_k8s::watch::ObjectEvent;
use flotilla_k8s::{Error, finalizers};
use kube::Client;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::events::{Events, about};

/// Pause until something is tried again that failed.
const PAUSE: Duration = Duration::from_secs(10);

/// Failures in a row that people are told of: one may be a conflict, and ends by itself.
const LASTING: u32 = 2;

type Id = (Kind, ObjectKey);

/// One that failed.
#[derive(Debug)]
struct Again {
    at: Instant,
    /// How often it was tried.
    tries: u32,
}

/// Those that are to be looked at, of whatever namespace; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Leaving {
    /// With their uids; no more than there are objects.
    objects: Arc<Mutex<BTreeMap<Id, Arc<str>>>>,
    news: Arc<Notify>,
}

impl Leaving {
    /// Takes note of what a watch tells.
    pub fn tell(&self, event: &ObjectEvent) {
        let mut known = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        let news = match event {
            ObjectEvent::Listed { kind, objects, .. } => {
                known.retain(|(known, _), _| known != kind);
                let leaving = objects.iter().filter(|object| object.deleting);
                known.extend(leaving.map(|object| ((*kind, object.key.clone()), object.uid.clone())));
                !known.is_empty()
            }
            ObjectEvent::Changed(object) if object.deleting => {
                known.insert((object.kind, object.key.clone()), object.uid.clone()).is_none()
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

    fn known(&self) -> BTreeMap<Id, Arc<str>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn done(&self, object: &Id) {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }

    /// Lets those go that this replica acts on, until cancelled.
    pub async fn run(
        self,
        client: Client,
        permit: ActingPermit,
        mut ownership: watch::Receiver<Arc<OwnershipView>>,
        writes: Arc<Semaphore>,
        events: Events,
        cancel: CancellationToken,
    ) {
        let mut again: BTreeMap<Id, Again> = BTreeMap::new();
        loop {
            let next = again.values().map(|again| again.at).min();
            tokio::select! {
                biased; // ending comes first; the rest leads to the same
                () = cancel.cancelled() => return,
                () = self.news.notified() => {}
                // An error says that the Leases are given up: nothing may be acted on.
                Ok(()) = ownership.changed() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            let known = self.known();
            again.retain(|object, _| known.contains_key(object));
            for (object, uid) in known {
                if again.get(&object).is_some_and(|again| again.at > Instant::now()) {
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
                    Ok(taken) => {
                        if taken {
                            events.tell(gone(*kind, key, &uid));
                        }
                        again.remove(&object);
                        self.done(&object);
                    }
                    Err(error) => {
                        tracing::warn!(kind = kind.name(), namespace = %key.namespace, name = %key.name,
                            error = %error, "an object cannot go yet, trying again");
                        let tries = again.get(&object).map_or(0, |again| again.tries) + 1;
                        if tries == LASTING {
                            events.tell(stays(*kind, key, &uid, &error));
                        }
                        again.insert(object, Again { at: Instant::now() + PAUSE, tries });
                    }
                }
            }
        }
    }
}

/// Gateways had it taken away when its deletion was seen: it is not held back for them.
fn gone(kind: Kind, key: &ObjectKey, uid: &Arc<str>) -> Telling {
    Telling {
        about: about(kind, key, uid),
        action: "Release",
        reason: "Deleted",
        message: format!(
            "it is not delivered any more, and its finalizer {} is taken out",
            finalizers::of(kind)
        ),
        warning: false,
        again: true,
    }
}

fn stays(kind: Kind, key: &ObjectKey, uid: &Arc<str>, error: &Error) -> Telling {
    Telling {
        about: about(kind, key, uid),
        action: "Release",
        reason: "CleanupFailed",
        message: format!(
            "it is not delivered any more, and its finalizer {} could not be taken out, trying again: {error}",
            finalizers::of(kind)
        ),
        warning: true,
        // Whoever comes next fails with the same words.
        again: false,
    }
}
