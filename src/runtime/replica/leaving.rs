//! Objects that are being deleted and are held by the finalizer of their kind. The owner
//! of their namespace takes it out when every connected gateway has let the object go, or
//! when that takes too long: a gateway that cannot be heard is made right when it
//! comes back, whatever has become of the object.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_core::applied::AppliedView;
use flotilla_core::ids::{Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_core::time::Mono;
use flotilla_k8s::coordination::{ActingPermit, OwnershipView};
use flotilla_k8s::event::Telling;
use flotilla_k8s::watch::ObjectEvent;
use flotilla_k8s::{Error, finalizers};
use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::events::{Events, about};
use super::reconciles::Finalizers;
use super::retries::Retries;
use super::writes::Writes;

/// Failures in a row that people are told of: a few may be conflicts, or an API server that starts,
/// and end by themselves.
const LASTING: u32 = 5;

type Id = (Kind, ObjectKey);

/// One that is held.
#[derive(Debug, Clone)]
struct Held {
    uid: Arc<str>,
    /// As of which its deletion is known.
    deleted: Revision,
    since: Instant,
    /// Connected gateways that may have it yet; `None`: not known.
    gateways: Option<u32>,
}

impl Held {
    fn of(object: &RawObject) -> Self {
        Held { uid: object.uid.clone(), deleted: object.revision, since: Instant::now(), gateways: None }
    }
}

/// Those that are to be looked at, of whatever namespace; clones are the same.
#[derive(Debug, Clone)]
pub struct Leaving {
    /// No more than there are objects.
    objects: Arc<Mutex<BTreeMap<Id, Held>>>,
    /// For how long gateways are waited for.
    patience: Duration,
    news: Arc<Notify>,
}

impl Leaving {
    /// Knows none yet, and will wait for gateways for so long.
    pub fn new(patience: Duration) -> Self {
        Leaving { objects: Arc::default(), patience, news: Arc::default() }
    }

    /// Takes note of what a watch tells.
    pub fn tell(&self, event: &ObjectEvent) {
        let mut known = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        let news = match event {
            ObjectEvent::Listed { kind, objects, .. } => {
                let former = std::mem::take(&mut *known);
                for object in objects.iter().filter(|object| object.deleting && object.held) {
                    let id = (*kind, object.key.clone());
                    let held = former.get(&id).filter(|held| held.uid == object.uid);
                    known.insert(id, held.cloned().unwrap_or_else(|| Held::of(object)));
                }
                known.extend(former.into_iter().filter(|((known, _), _)| known != kind));
                !known.is_empty()
            }
            ObjectEvent::Changed(object) if object.deleting && object.held => {
                let id = (object.kind, object.key.clone());
                let news = known.get(&id).is_none_or(|held| held.uid != object.uid);
                if news {
                    known.insert(id, Held::of(object));
                }
                news
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

    /// Looks at what all gateways have applied, if the tables of all replicas are there.
    pub fn look(&self, now: Mono, applied: &AppliedView) {
        if applied.member_count() == 0 || !applied.is_complete(now) {
            return;
        }
        let mut known = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = false;
        for ((kind, key), held) in known.iter_mut() {
            let before = held.gateways.replace(applied.holding(*kind, key, held.deleted));
            free |= held.gateways == Some(0) && before != Some(0);
        }
        if free {
            self.news.notify_one();
        }
    }

    fn known(&self) -> BTreeMap<Id, Held> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An object is held no more; one of the same name that came after it may be.
    fn done(&self, object: &Id, uid: &str) {
        let mut known = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(object).is_some_and(|held| *held.uid == *uid) {
            known.remove(object);
        }
    }

    /// Lets those go that this replica acts on, until cancelled.
    pub async fn run(
        self,
        client: Client,
        permit: ActingPermit,
        mut ownership: watch::Receiver<Arc<OwnershipView>>,
        writes: Writes,
        (events, counted): (Events, Finalizers),
        cancel: CancellationToken,
    ) {
        let mut again: Retries<Id> = Retries::new();
        let mut looked = Instant::now();
        loop {
            let late = self.known().into_values().map(|held| held.since + self.patience);
            // What was late when it was looked at needs no other look for that.
            let next = again.next().into_iter().chain(late.filter(|at| *at > looked)).min();
            tokio::select! {
                biased; // ending comes first; the rest leads to the same
                () = cancel.cancelled() => return,
                () = self.news.notified() => {}
                // An error says that coordination has ended: nothing may be acted on.
                Ok(()) = ownership.changed() => {}
                () = sleep_until(next.unwrap_or(looked)), if next.is_some() => {}
            }
            looked = Instant::now();
            let known = self.known();
            again.retain(|object| known.contains_key(object));
            for (object, held) in known {
                let late = held.since + self.patience <= looked;
                if held.gateways != Some(0) && !late {
                    again.forget(&object);
                    continue;
                }
                if again.waits(&object, looked) {
                    continue;
                }
                let (kind, key) = &object;
                let may_act = || permit.may_act(&key.namespace);
                let what = format!("release {kind} {key}");
                let release = finalizers::release(&client, *kind, key, &held.uid, may_act);
                let released = tokio::select! {
                    biased; // as above
                    () = cancel.cancelled() => return,
                    released = writes.carry_out(&what, may_act, release) => released,
                };
                match released {
                    // Another's, who is told of it as we were.
                    Ok(None) => again.forget(&object),
                    // Whatever else holds it is others' business.
                    Ok(Some(taken)) => {
                        if taken {
                            counted.taken_out(*kind);
                            events.tell(gone(*kind, key, &held, self.patience));
                        }
                        again.forget(&object);
                        self.done(&object, &held.uid);
                    }
                    Err(error) => {
                        if !matches!(error, Error::Conflict { .. }) {
                            tracing::warn!(kind = kind.name(), namespace = %key.namespace, name = %key.name,
                                error = %error, "an object cannot go yet, trying again");
                        }
                        let told = stays(*kind, key, &held.uid, &error);
                        if again.failed(object) == LASTING {
                            events.tell(told);
                        }
                    }
                }
            }
        }
    }
}

fn gone(kind: Kind, key: &ObjectKey, held: &Held, patience: Duration) -> Telling {
    let out = format!("its finalizer {} is taken out", kind.finalizer());
    let unheard = match held.gateways {
        Some(0) => None,
        Some(gateways) => Some(format!("{gateways} of the connected gateways have")),
        None => Some("not all replicas have told what their gateways have; some may have".to_owned()),
    };
    let message = match &unheard {
        None => format!("no connected gateway has it any more, and {out}"),
        Some(who) => format!(
            "{who} not confirmed within {patience:?} that it is gone, and {out} all the same; they are \
             made right when they are heard of again"
        ),
    };
    let reason = if unheard.is_some() { "CleanupFailed" } else { "Deleted" };
    let about = about(kind, key, &held.uid);
    Telling { about, action: "Release", reason, message, warning: unheard.is_some(), again: true }
}

fn stays(kind: Kind, key: &ObjectKey, uid: &Arc<str>, error: &Error) -> Telling {
    Telling {
        about: about(kind, key, uid),
        action: "Release",
        reason: "CleanupFailed",
        message: format!(
            "it is not delivered any more, and its finalizer {} could not be taken out, trying again: {error}",
            kind.finalizer()
        ),
        warning: true,
        // Whoever comes next fails with the same words.
        again: false,
    }
}
