//! Drives the core's [`Coordinator`]: carries out its requests against the API
//! server, feeds it with answers, watches and peers' words, and shows the
//! result to the rest of the replica. It holds no rules.
//!
//! Every request has its own time-out, and the time given with an answer is
//! read before the request was sent where the core asks for that. Requests
//! run beside each other: a map that hangs never delays a renewal.

mod lease;
mod map;
mod metrics;
mod trouble;
mod view;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use flotilla_core::coordination::{
    Acting, Action, ConfigError, CoordinationConfig, Coordinator, Event, Identity, LeaseName, RequestError,
};
use flotilla_core::placement::{Loads, MoveReason, Moves, imbalance};
use flotilla_core::shardmap::Ownership;
use flotilla_core::time::Mono;
use kube::Client;
use rand::Rng as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

pub use map::published;
pub use metrics::CoordinationMetrics;
pub use view::{ActingPermit, Announcement, CurrentPermit, OwnershipView, PeerNews};

use lease::Leases;
use map::Maps;
use trouble::Trouble;

/// How long giving up Leases may take at the end, besides a renewal that is under way and
/// what is written instead: as long as other writes are waited for, and a little.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many events of watches and words of peers may wait; their senders then
/// wait too, and lose nothing by it.
const WAITING: usize = 256;

/// The task. [`Coordination::run`] it on the supervisor.
pub struct Coordination {
    coordinator: Coordinator,
    leases: Leases,
    maps: Maps,
    asking: Asking,
    origin: Instant,
    acting: Arc<ArcSwap<Acting>>,
    view: watch::Sender<Arc<OwnershipView>>,
    /// What the gauges of balance were made of.
    balance: ShownBalance,
    /// What the view was made of.
    shown: Shown,
    /// How many views were shown.
    views: u64,
    peers: mpsc::Receiver<PeerNews>,
    announcements: mpsc::Sender<Announcement>,
    drains: mpsc::Sender<Drain>,
    metrics: CoordinationMetrics,
}

/// What others see by.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    epoch: u64,
    leading: bool,
    taken_over: bool,
    /// Until when the right to act lasts; without a view when only this moves.
    until: Mono,
}

impl Shown {
    /// Whether there is anything new to see. Who stood still while a renewal was answered had
    /// no right to act for a moment, and has it again in the same step: whoever tried to
    /// act meanwhile waits to be told.
    fn moves_on(&self, next: &Shown, now: Mono) -> bool {
        let seen = |shown: &Shown| (shown.epoch, shown.leading, shown.taken_over);
        seen(self) != seen(next) || (self.taken_over && self.until <= now)
    }
}

#[derive(Default)]
struct ShownBalance {
    moves: Moves,
    of: Option<(Arc<Ownership>, Arc<Loads>)>,
}

/// A request to finish or abandon what is being written for namespaces that
/// the permit does not cover any more. Dropping it says that it is done.
#[derive(Debug)]
pub struct Drain {
    _done: tokio::sync::oneshot::Sender<()>,
}

/// What the rest of the replica holds.
pub struct Handles {
    /// Who owns what.
    pub ownership: watch::Receiver<Arc<OwnershipView>>,
    /// Whether we act on a namespace right now.
    pub permit: ActingPermit,
    /// For what peers say.
    pub peers: mpsc::Sender<PeerNews>,
    /// What to tell peers.
    pub announcements: mpsc::Receiver<Announcement>,
    /// Requests to finish writes.
    pub drains: mpsc::Receiver<Drain>,
}

impl Coordination {
    /// A task that coordinates by Leases in `namespace`. `client` should be used
    /// for nothing else.
    ///
    /// # Errors
    /// When a setting or a name cannot work.
    pub fn new(
        client: Client,
        namespace: &str,
        identity: Identity,
        config: CoordinationConfig,
        metrics: CoordinationMetrics,
    ) -> Result<(Self, Handles), ConfigError> {
        let origin = Instant::now();
        let request_timeout = config.request_timeout();
        let acting = Arc::new(ArcSwap::from_pointee(Acting::nothing(identity.member.clone())));
        let coordinator = Coordinator::new(config, identity, rand::rng().random())?;
        let (view, ownership) = watch::channel(Arc::new(OwnershipView::default()));
        let (peers_in, peers) = mpsc::channel(WAITING);
        let (announcements, announced) = mpsc::channel(WAITING);
        let (drains, drains_out) = mpsc::channel(WAITING);
        let permit = ActingPermit { acting: acting.clone(), origin };
        let task = Coordination {
            coordinator,
            leases: Leases::new(client.clone(), namespace),
            maps: Maps::new(client),
            asking: Asking { patience: request_timeout, trouble: Trouble::default() },
            origin,
            acting,
            view,
            balance: ShownBalance::default(),
            shown: Shown::default(),
            views: 0,
            peers,
            announcements,
            drains,
            metrics,
        };
        let handles =
            Handles { ownership, permit, peers: peers_in, announcements: announced, drains: drains_out };
        Ok((task, handles))
    }

    fn now(&self) -> Mono {
        Mono::from_origin(self.origin.elapsed())
    }

    /// Runs until it is told to end, then gives up both Leases at once. As long as gateways
    /// are served, until `ended`, it shows who the members are: they are to hear of them.
    /// A replica that fails is told nothing, and has `ended` at once.
    pub async fn run(mut self, told: CancellationToken, ended: CancellationToken) {
        let (events_in, mut events) = mpsc::channel(WAITING);
        let mut watches = JoinSet::new();
        let origin = self.origin;
        let clock = move || Mono::from_origin(origin.elapsed());
        watches.spawn(watching::leases(self.leases.clone(), clock, events_in.clone()));
        watches.spawn(watching::map(self.maps.clone(), clock, events_in));
        let mut requests: JoinSet<Option<Event>> = JoinSet::new();
        let mut stop_at: Option<Instant> = None;
        let mut event = Event::Tick;
        let mut released = false;
        loop {
            released |= self.step(event, &mut requests);
            let due = self.coordinator.next_deadline().map(|at| origin + Duration::from_nanos(at.0));
            event = tokio::select! {
                // Answers first: a renewal that succeeded must count before
                // anything that would end the tenure.
                biased;
                () = ended.cancelled(), if released => break,
                Some(answer) = requests.join_next() => match answer {
                    Ok(event) => event.unwrap_or(Event::Tick),
                    Err(error) if error.is_cancelled() => Event::Tick,
                    // Its answer would be waited for without an end.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                () = either(&told, &ended), if stop_at.is_none() => {
                    stop_at = Some(Instant::now() + FAREWELL + 2 * self.asking.patience);
                    Event::Shutdown
                }
                Some(event) = events.recv() => event,
                Some(news) = self.peers.recv() => match news {
                    PeerNews::Hello { highest } => Event::PeerHello { highest },
                    PeerNews::Settled { instance, epoch } => Event::PeerSettled { instance, epoch },
                    PeerNews::Departed { instance } => Event::PeerDeparted { instance },
                    PeerNews::Loads { member, report } => Event::Loads { member, report },
                },
                () = wait_until(due) => Event::Tick,
                () = wait_until(stop_at), if !released => {
                    tracing::warn!("Leases could not be given up in time, they expire");
                    break;
                }
            };
        }
        requests.shutdown().await;
        watches.shutdown().await;
    }

    /// One event: what the core says is started, and the result is shown.
    /// Returns whether everything is finished.
    fn step(&mut self, event: Event, requests: &mut JoinSet<Option<Event>>) -> bool {
        let now = self.now();
        let actions = self.coordinator.step(now, event);
        // Before anything else: whoever asks must not be told yes any more.
        self.acting.store(Arc::new(self.coordinator.acting()));
        let mut finished = false;
        for action in actions {
            finished |= matches!(action, Action::Finished);
            self.act(now, action, requests);
        }
        self.show(now);
        self.show_balance();
        finished
    }

    fn act(&mut self, now: Mono, action: Action, requests: &mut JoinSet<Option<Event>>) {
        match action {
            Action::ReadLease(name) => {
                let leases = self.leases.clone();
                self.lease_request(requests, name.clone(), async move { leases.read(&name).await });
            }
            Action::WriteLease(name, write) => {
                let leases = self.leases.clone();
                self.lease_request(requests, name.clone(), async move {
                    leases.write(&name, &write).await.map(Some)
                });
            }
            Action::ListLeases => {
                let (leases, asking) = (self.leases.clone(), self.asking.clone());
                requests.spawn(async move {
                    let answer = asking.within(LEASES, leases.list(now)).await;
                    Some(Event::LeasesListed(answer))
                });
            }
            Action::DeleteLease { name, uid, revision } => {
                let (leases, asking) = (self.leases.clone(), self.asking.clone());
                requests.spawn(async move {
                    // Somebody else deletes it another time if this fails.
                    let _ = asking.within(LEASES, leases.delete(&name, &uid, revision)).await;
                    None
                });
            }
            Action::ReadMap => {
                let (maps, asking) = (self.maps.clone(), self.asking.clone());
                requests.spawn(async move {
                    let answer = asking.within(MAP, maps.read()).await;
                    Some(Event::MapRead { sent_at: now, answer })
                });
            }
            Action::WriteMap(write) => {
                let (maps, asking) = (self.maps.clone(), self.asking.clone());
                requests.spawn(async move {
                    Some(Event::MapWritten(asking.within(MAP, maps.write(&write)).await))
                });
            }
            Action::StopActing(ticket) => {
                self.metrics.stopped.inc();
                let (done, finished) = tokio::sync::oneshot::channel();
                let drains = self.drains.clone();
                requests.spawn(async move {
                    // If nobody takes requests any more, nobody writes either.
                    // A full queue is waited for: what we said that we have
                    // stopped must have stopped.
                    let _ = drains.send(Drain { _done: done }).await;
                    // Resolves, with an error, when the request is dropped.
                    let _ = finished.await;
                    Some(Event::Drained(ticket))
                });
            }
            Action::AnnounceSettled { instance, epoch } => {
                tracing::info!(epoch = epoch.0, instance = %instance, "settled");
                self.announce(Announcement::Settled(instance, epoch));
            }
            Action::AnnounceDeparted { instance } => self.announce(Announcement::Departed(instance)),
            Action::Finished => {}
        }
    }

    /// The Lease carries the same news: one that finds no room is only slower.
    fn announce(&self, announcement: Announcement) {
        let _ = self.announcements.try_send(announcement);
    }

    fn lease_request<F>(&self, requests: &mut JoinSet<Option<Event>>, name: LeaseName, request: F)
    where
        F: Future<Output = Result<Option<flotilla_core::coordination::LeaseRecord>, crate::Error>>
            + Send
            + 'static,
    {
        let (asking, metrics) = (self.asking.clone(), self.metrics.clone());
        requests.spawn(async move {
            let started = Instant::now();
            let answer = asking.within(LEASES, request).await;
            metrics.lease_seconds.observe(started.elapsed().as_secs_f64());
            let result = match &answer {
                Ok(_) => "ok",
                Err(RequestError::Conflict) => "conflict",
                Err(RequestError::Unavailable) => "unavailable",
            };
            metrics.lease_requests.with_label_values(&[result]).inc();
            Some(Event::LeaseAnswered(name, answer))
        });
    }

    /// Shows the loads as far as they are known here; every replica shows the
    /// same, give or take what is on its way.
    fn show_balance(&mut self) {
        let moves = self.coordinator.moves();
        if moves != self.balance.moves {
            for reason in MoveReason::ALL {
                let more = moves.get(reason) - self.balance.moves.get(reason);
                self.metrics.moves.with_label_values(&[reason.name()]).inc_by(more);
            }
            self.balance.moves = moves;
        }
        let Some(ownership) = self.coordinator.ownership() else { return };
        let loads = self.coordinator.loads();
        let known = self.balance.of.as_ref();
        if known.is_some_and(|(map, seen)| Arc::ptr_eq(map, ownership) && Arc::ptr_eq(seen, loads)) {
            return;
        }
        self.balance.of = Some((ownership.clone(), loads.clone()));
        let shares = loads.shares(ownership);
        self.metrics.member_load.reset();
        self.metrics.member_namespaces.reset();
        for (member, share) in &shares {
            let label = [member.as_str()];
            self.metrics
                .member_load
                .with_label_values(&label)
                .set(i64::try_from(share.load).unwrap_or(i64::MAX));
            self.metrics.member_namespaces.with_label_values(&label).set(i64::from(share.namespaces));
        }
        self.metrics.imbalance.set(imbalance(shares.values()) as f64 / 100.0);
        self.metrics.away.set(i64::try_from(ownership.map().away.len()).unwrap_or(i64::MAX));
        let exceptions = ownership.map().exceptions.len();
        self.metrics.exceptions.set(i64::try_from(exceptions).unwrap_or(i64::MAX));
    }

    /// Shows what changed.
    fn show(&mut self, now: Mono) {
        let ownership = self.coordinator.ownership().cloned();
        let epoch = ownership.as_ref().map_or(0, |ownership| ownership.epoch().0);
        let leading = self.coordinator.leading_until().is_some_and(|until| now < until);
        let until = self.coordinator.acting().until();
        let taken_over = self.coordinator.has_taken_over() && now < until;
        let shown = Shown { epoch, leading, taken_over, until };
        let before = std::mem::replace(&mut self.shown, shown);
        if !before.moves_on(&shown, now) {
            return;
        }
        if before.leading != leading {
            self.metrics.leadership_changes.inc();
            tracing::info!(leading, epoch, "leadership changed");
        }
        if before.epoch != epoch {
            let members = ownership.as_ref().map_or(0, |ownership| ownership.map().members.len());
            tracing::info!(epoch, members, "shard map accepted");
            self.metrics.members.set(i64::try_from(members).unwrap_or(i64::MAX));
        }
        self.metrics.leader.set(i64::from(leading));
        self.metrics.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
        self.views += 1;
        // An error says that nobody looks any more.
        let idle = self.coordinator.idle(now);
        let view = OwnershipView::new(ownership, leading, self.views, taken_over, idle);
        let _ = self.view.send(Arc::new(view));
    }
}

/// What requests are about.
const LEASES: &str = "Leases";
const MAP: &str = "shard map";

/// How requests are made.
#[derive(Clone)]
struct Asking {
    patience: Duration,
    trouble: Trouble,
}

impl Asking {
    /// An answer within the time that there is, as the core takes it.
    async fn within<T>(
        &self,
        about: &'static str,
        request: impl Future<Output = Result<T, crate::Error>>,
    ) -> Result<T, RequestError> {
        let answer = timeout(self.patience, request).await;
        let answer = answer.unwrap_or_else(|_| Err(crate::Error::timeout(about, self.patience)));
        self.trouble.heard(about, answer.as_ref().err());
        answer.map_err(|error| watching::request_error(&error))
    }
}

async fn either(one: &CancellationToken, other: &CancellationToken) {
    tokio::select! {
        () = one.cancelled() => {}
        () = other.cancelled() => {}
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn acting_until(seconds: u32) -> Shown {
        let until = Mono::from_origin(SECOND * seconds);
        Shown { epoch: 1, leading: false, taken_over: true, until }
    }

    #[test]
    fn a_right_to_act_that_lapsed_and_came_back_in_one_step_is_shown() {
        let at = |seconds| Mono::from_origin(SECOND * seconds);
        let (before, renewed) = (acting_until(15), acting_until(45));
        assert!(!before.moves_on(&renewed, at(14)), "it was there all the time");
        assert!(before.moves_on(&renewed, at(15)));
        assert!(before.moves_on(&renewed, at(40)));
        let lapsed = Shown { taken_over: false, ..before };
        assert!(before.moves_on(&lapsed, at(15)));
        assert!(!lapsed.moves_on(&lapsed, at(16)), "nobody is told twice");
    }
}
