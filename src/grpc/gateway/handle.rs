//! How everybody else talks to the delivery task.
//!
//! Two bounded inboxes: what gateways, peers and operators say, and what the
//! API server says. They are apart so that a flood of objects never holds up an
//! acknowledgement. A sender waits when its inbox is full: for a watch that is
//! back pressure, for a call it ends in a status.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use flotilla_core::compile::Compiler;
use flotilla_core::delivery::{Ack, Delivery, Scope, Tombstone};
use flotilla_core::digest::Sums;
use flotilla_core::ids::{GatewayId, Kind, ObjectKey, Revision, SessionId};
use flotilla_core::object::RawObject;
use flotilla_core::policy::{Asking, Policy};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::body::StreamHandle;
use crate::peers::{History, HistorySource};

/// How many messages of gateways, peers and operators may wait.
const CONTROL: usize = 4096;

/// How many watch events may wait.
const WATCH: usize = 4096;

/// The delivery task has ended; so does the process, before long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("delivery has stopped; the process is about to end")]
pub struct DeliveryGone;

type Question<C> = Box<dyn FnOnce(&Delivery<C>) + Send>;

/// How a gateway and this replica came together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    /// It dialled.
    Came,
    /// This replica dialled it, so it is not moved for balance.
    Dialled {
        /// Whether it takes many updates in one call.
        batches: bool,
    },
}

/// From gateways, peers and operators.
pub(super) enum Control<C: Compiler> {
    Registered(SessionId, GatewayId),
    Connected {
        session: SessionId,
        asking: Asking,
        /// The version it last applied.
        version: String,
        contact: Contact,
        handle: StreamHandle,
    },
    /// The policy is another one.
    Policy,
    Acknowledged {
        ack: Ack,
        /// Whether other replicas may be told.
        forward: bool,
    },
    Heartbeat {
        session: SessionId,
        gateway: GatewayId,
        version: String,
        /// What the gateway says it holds, if it does.
        sums: Option<Box<Sums>>,
        forward: bool,
    },
    Drain {
        spread: Duration,
    },
    Shed {
        count: usize,
        spread: Duration,
    },
    Spare {
        but: usize,
    },
    InTouch {
        asked: Instant,
    },
    Confirmed {
        asked: Instant,
    },
    BeyondTheLog {
        asked: Instant,
        kind: Kind,
        newest: Revision,
    },
    Inspect(Question<C>),
}

/// From the API server.
pub(super) enum Watch {
    Listed { kind: Kind, objects: Vec<RawObject>, revision: Revision },
    Changed(RawObject),
    Deleted { kind: Kind, key: ObjectKey, revision: Revision },
    Bookmark { kind: Kind, revision: Revision },
    History { kind: Kind, since: Revision, until: Revision, tombstones: Vec<Tombstone> },
    HistoryUnavailable { kind: Kind, since: Revision },
}

/// Sends events to the delivery task; clones reach the same one.
pub struct DeliveryHandle<C: Compiler> {
    control: mpsc::Sender<Control<C>>,
    watch: mpsc::Sender<Watch>,
    policy: Arc<ArcSwap<Policy>>,
    pub(super) gone: Arc<Notify>,
}

impl<C: Compiler> Clone for DeliveryHandle<C> {
    fn clone(&self) -> Self {
        DeliveryHandle {
            control: self.control.clone(),
            watch: self.watch.clone(),
            policy: self.policy.clone(),
            gone: self.gone.clone(),
        }
    }
}

/// The delivery task's end of the handle.
pub struct DeliveryInbox<C: Compiler> {
    pub(super) control: mpsc::Receiver<Control<C>>,
    pub(super) watch: mpsc::Receiver<Watch>,
    /// What gateways may have.
    pub(super) policy: Arc<ArcSwap<Policy>>,
    /// Woken when a stream's body was dropped.
    pub(super) gone: Arc<Notify>,
}

/// Makes both ends. The handle exists before the task does, so that what the
/// task needs can be built from it.
pub fn delivery_channel<C: Compiler>() -> (DeliveryHandle<C>, DeliveryInbox<C>) {
    let (control_in, control) = mpsc::channel(CONTROL);
    let (watch_in, watch) = mpsc::channel(WATCH);
    let gone = Arc::new(Notify::new());
    let policy = Arc::new(ArcSwap::from_pointee(Policy::default()));
    let handle =
        DeliveryHandle { control: control_in, watch: watch_in, policy: policy.clone(), gone: gone.clone() };
    (handle, DeliveryInbox { control, watch, policy, gone })
}

impl<C: Compiler> DeliveryHandle<C> {
    /// Everything of one kind, as listed at `revision`.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn listed(
        &self,
        kind: Kind,
        objects: Vec<RawObject>,
        revision: Revision,
    ) -> Result<(), DeliveryGone> {
        self.watched(Watch::Listed { kind, objects, revision }).await
    }

    /// An object was added or modified.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn changed(&self, object: RawObject) -> Result<(), DeliveryGone> {
        self.watched(Watch::Changed(object)).await
    }

    /// An object was deleted at `revision`.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn deleted(&self, kind: Kind, key: ObjectKey, revision: Revision) -> Result<(), DeliveryGone> {
        self.watched(Watch::Deleted { kind, key, revision }).await
    }

    /// Everything up to `revision` has been told.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn bookmark(&self, kind: Kind, revision: Revision) -> Result<(), DeliveryGone> {
        self.watched(Watch::Bookmark { kind, revision }).await
    }

    /// Answers [`super::HistoryWanted`]: all deletions above `since`, complete
    /// up to `until`.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn history(
        &self,
        kind: Kind,
        since: Revision,
        until: Revision,
        tombstones: Vec<Tombstone>,
    ) -> Result<(), DeliveryGone> {
        self.watched(Watch::History { kind, since, until, tombstones }).await
    }

    /// Answers [`super::HistoryWanted`]: nobody remembers.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn history_unavailable(&self, kind: Kind, since: Revision) -> Result<(), DeliveryGone> {
        self.watched(Watch::HistoryUnavailable { kind, since }).await
    }

    /// What gateways may have from now on. Streams of those that get something else
    /// than before are ended; they come back for it.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn set_policy(&self, policy: Policy) -> Result<(), DeliveryGone> {
        // Before the task hears of it: it goes by the newest for who connects meanwhile.
        self.policy.store(Arc::new(policy));
        self.told(Control::Policy).await
    }

    /// What a gateway gets of what it asks for.
    pub(super) fn grant(&self, asking: &Asking) -> Scope {
        self.policy.load().grant(asking)
    }

    /// An acknowledgement that another replica passed on. If its session is
    /// not here either, it is dropped.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn forwarded_ack(&self, ack: Ack) -> Result<(), DeliveryGone> {
        self.told(Control::Acknowledged { ack, forward: false }).await
    }

    /// A heartbeat that another replica passed on.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn forwarded_heartbeat(
        &self,
        session: SessionId,
        gateway: GatewayId,
        version: String,
    ) -> Result<(), DeliveryGone> {
        self.told(Control::Heartbeat { session, gateway, version, sums: None, forward: false }).await
    }

    /// Ends all streams, spread over a while; those opened later are
    /// ended at once.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn drain(&self, spread: Duration) -> Result<(), DeliveryGone> {
        self.told(Control::Drain { spread }).await
    }

    /// Ends `count` streams, spread over a while, because this replica has more
    /// than its share.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn shed(&self, count: usize, spread: Duration) -> Result<(), DeliveryGone> {
        self.told(Control::Shed { count, spread }).await
    }

    /// Of the streams that [`DeliveryHandle::shed`] has chosen, and that have
    /// not ended yet, all stay but the next `but`.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn spare(&self, but: usize) -> Result<(), DeliveryGone> {
        self.told(Control::Spare { but }).await
    }

    /// At `asked` the history was still the one that this engine was made for, as far
    /// as was read: see [`flotilla_core::delivery::Delivery::in_touch`].
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn in_touch(&self, asked: Instant) -> Result<(), DeliveryGone> {
        self.told(Control::InTouch { asked }).await
    }

    /// The same, proven by a write: gateways that came with another one's version need
    /// not wait any longer.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn confirmed(&self, asked: Instant) -> Result<(), DeliveryGone> {
        self.told(Control::Confirmed { asked }).await
    }

    /// It is proven that the log of a kind ended at `newest` at the time
    /// `asked`: gateways that were ahead of it are synchronised fully.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn beyond_the_log(
        &self,
        asked: Instant,
        kind: Kind,
        newest: Revision,
    ) -> Result<(), DeliveryGone> {
        self.told(Control::BeyondTheLog { asked, kind, newest }).await
    }

    /// Answers other members' questions for history from this engine.
    pub fn history_source(&self) -> HistorySource
    where
        C: 'static,
    {
        let handle = self.clone();
        Arc::new(move |kind, since| {
            let handle = handle.clone();
            Box::pin(async move {
                let history = handle.inspect(move |engine| {
                    let tombstones = engine.store().tombstones(kind, since)?;
                    Some(History { tombstones, until: engine.frontier().get(kind) })
                });
                history.await.ok().flatten()
            })
        })
    }

    /// Asks a question of the engine, in between two events.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub async fn inspect<R: Send + 'static>(
        &self,
        question: impl FnOnce(&Delivery<C>) -> R + Send + 'static,
    ) -> Result<R, DeliveryGone> {
        let (answer_in, answer) = oneshot::channel();
        let question = move |engine: &Delivery<C>| {
            // An error means that nobody waits for the answer any more.
            let _ = answer_in.send(question(engine));
        };
        self.told(Control::Inspect(Box::new(question))).await?;
        answer.await.map_err(|_| DeliveryGone)
    }

    /// The same, waiting at most so long for room; whether it was told. Mostly there is
    /// room, and no timer is set.
    pub(super) async fn told_within(&self, patience: Duration, event: Control<C>) -> bool {
        match self.control.try_reserve() {
            Ok(room) => {
                room.send(event);
                true
            }
            Err(TrySendError::Closed(())) => false,
            Err(TrySendError::Full(())) => {
                matches!(tokio::time::timeout(patience, self.told(event)).await, Ok(Ok(())))
            }
        }
    }

    pub(super) async fn told(&self, event: Control<C>) -> Result<(), DeliveryGone> {
        self.control.send(event).await.map_err(|_| DeliveryGone)
    }

    async fn watched(&self, event: Watch) -> Result<(), DeliveryGone> {
        self.watch.send(event).await.map_err(|_| DeliveryGone)
    }
}
